//! The ledger against real files: what it keeps, what it drops, what it survives.

#![allow(clippy::unwrap_used)]

mod savings;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::*;

pub(super) fn row(outcome: &str) -> Row {
    Row {
        time_ms: 1_700_000_000_000,
        decision: "dec_00".into(),
        tenant: "default".into(),
        key: String::new(),
        feature: "kiosk".into(),
        prompt_version: String::new(),
        conversation: String::new(),
        endpoint: "openai.chat".into(),
        model: "auto".into(),
        target: "local/concierge".into(),
        zone: "device".into(),
        ceiling: "cloud".into(),
        ceiling_source: "tag".into(),
        reason: "near".into(),
        outcome: outcome.into(),
        failure: String::new(),
        attempts: 1,
        prompt_tokens: Some(10),
        cached_prompt_tokens: Some(4),
        completion_tokens: Some(5),
        reasoning_tokens: Some(1),
        cost_micro: Some(7),
        saved_micro: None,
        cache_written_tokens: None,
        failed_cost_micro: None,
        baseline: String::new(),
        saved_local_micro: None,
        ttft_ms: Some(20.0),
        duration_ms: 100.0,
        stream: true,
        failed_legs: Vec::new(),
    }
}

fn all(ledger: &Ledger) -> UsageLine {
    let mut lines = ledger.usage(&UsageQuery::default()).unwrap();
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn requests(ledger: &Ledger) -> u64 {
    let lines = ledger.usage(&UsageQuery::default()).unwrap();
    lines.iter().map(|line| line.requests).sum()
}

fn asides(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("ledger.sqlite.corrupt-"))
        .collect();
    names.sort();
    names
}

#[test]
fn rows_that_were_queued_at_the_end_are_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for outcome in ["ok", "ok", "failed", "refused", "cancelled"] {
        ledger.record(row(outcome));
    }
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    let line = all(&ledger);
    assert_eq!((line.requests, line.ok, line.failed), (5, 2, 1));
    assert_eq!((line.refused, line.cancelled), (1, 1));
    assert_eq!((line.prompt_tokens, line.cached_prompt_tokens), (50, 20));
    assert_eq!((line.completion_tokens, line.reasoning_tokens), (25, 5));
    assert_eq!((line.cost_micro, line.cost_unknown), (35, 0));
    assert_eq!(line.mean_duration_ms, 100.0);
    assert_eq!(ledger.dropped(), 0);
}

#[test]
fn an_empty_ledger_has_no_lines() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap(), []);
}

#[test]
fn an_unknown_cost_is_counted_and_not_taken_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(row("ok"));
    ledger.record(Row {
        cost_micro: None,
        prompt_tokens: None,
        ..row("ok")
    });
    ledger.flush();
    let line = all(&ledger);
    assert_eq!((line.cost_micro, line.cost_unknown), (7, 1));
    assert_eq!(line.prompt_tokens, 10);
}

#[test]
fn lines_are_grouped_by_every_dimension_and_bounded_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let day = 24 * 3600 * 1000;
    for (time_ms, target, feature) in [
        (0, "local/a", "x"),
        (day, "local/a", "x"),
        (day, "local/a", "y"),
        (day + 5, "cloud/b", "x"),
        (2 * day, "cloud/b", ""),
    ] {
        ledger.record(Row {
            time_ms,
            target: target.into(),
            feature: feature.into(),
            ..row("ok")
        });
    }
    ledger.flush();
    let query = UsageQuery {
        by: Dimension::list("target, feature,target").unwrap(),
        since_ms: Some(day),
        until_ms: Some(2 * day),
    };
    let lines = ledger.usage(&query).unwrap();
    let found: Vec<(u64, Vec<&str>)> = lines
        .iter()
        .map(|line| {
            (
                line.requests,
                line.group.values().map(String::as_str).collect(),
            )
        })
        .collect();
    // `group` follows the order of the dimensions: feature before target.
    assert_eq!(
        found,
        [
            (1, vec!["x", "cloud/b"]),
            (1, vec!["x", "local/a"]),
            (1, vec!["y", "local/a"])
        ]
    );
    let by_day = UsageQuery {
        by: vec![Dimension::Day],
        ..UsageQuery::default()
    };
    let days = ledger.usage(&by_day).unwrap();
    assert_eq!(days[0].group[&Dimension::Day], "1970-01-02");
    assert_eq!(days[0].requests, 3);
    // Every dimension is a column that exists.
    let everything = UsageQuery {
        by: Dimension::ALL.to_vec(),
        ..UsageQuery::default()
    };
    assert_eq!(ledger.usage(&everything).unwrap().len(), 5);
    assert!(
        Dimension::list("target;drop")
            .unwrap_err()
            .to_string()
            .contains("outcome")
    );
}

#[test]
fn percentiles_are_nearest_ranks_over_requests_that_had_a_first_token() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for ttft in (1..=100).rev() {
        ledger.record(Row {
            ttft_ms: Some(f64::from(ttft)),
            ..row("ok")
        });
    }
    ledger.record(Row {
        ttft_ms: None,
        ..row("failed")
    });
    ledger.record(Row {
        ttft_ms: None,
        target: String::new(),
        ..row("refused")
    });
    ledger.flush();
    let line = all(&ledger);
    assert_eq!(line.ttft_p50_ms, Some(50.0));
    assert_eq!(line.ttft_p95_ms, Some(95.0));
    let by_target = UsageQuery {
        by: vec![Dimension::Target],
        ..UsageQuery::default()
    };
    let lines = ledger.usage(&by_target).unwrap();
    assert_eq!(lines[0].ttft_p95_ms, Some(95.0));
    assert_eq!((lines[1].ttft_p50_ms, lines[1].ttft_p95_ms), (None, None));
}

#[test]
fn absurd_values_neither_break_the_writer_nor_the_sums() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for _ in 0..100 {
        ledger.record(Row {
            prompt_tokens: Some(u64::MAX),
            cost_micro: Some(u64::MAX),
            ttft_ms: Some(f64::NAN),
            duration_ms: f64::INFINITY,
            feature: "é'; DROP TABLE requests; --".repeat(1000),
            ..row("ok")
        });
    }
    ledger.flush();
    assert_eq!(ledger.dropped(), 0);
    let line = all(&ledger);
    assert_eq!(line.requests, 100);
    assert!(line.prompt_tokens > u64::from(u32::MAX));
    assert_eq!(line.ttft_p50_ms, None);
}

#[test]
fn more_groups_than_memory_should_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let connection = Connection::open(ledger.path()).unwrap();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_GROUPS})
         INSERT INTO requests (time_ms, decision, tenant, feature, prompt_version, conversation,
            endpoint, model, target, zone, ceiling, ceiling_source, reason, outcome, failure,
            attempts, duration_ms, stream)
         SELECT i, '', '', i, '', '', '', '', '', '', '', '', '', 'ok', '', 1, 1.0, 0 FROM n"
    );
    connection.execute_batch(&fill).unwrap();
    let by_feature = UsageQuery {
        by: vec![Dimension::Feature],
        ..UsageQuery::default()
    };
    let error = ledger.usage(&by_feature).unwrap_err();
    assert!(matches!(error, StoreError::TooManyGroups), "{error}");
    assert_eq!(requests(&ledger), MAX_GROUPS as u64 + 1);
    let fewer = UsageQuery {
        until_ms: Some(MAX_LINES as i64 + 5),
        ..by_feature
    };
    assert_eq!(ledger.usage(&fewer).unwrap().len(), MAX_LINES);
}

#[test]
fn many_writers_lose_nothing_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| ledger.record(row("ok"))));
        }
        // A reader meanwhile sees a whole number of batches, never an error.
        for _ in 0..20 {
            assert!(requests(&ledger) <= 4_000);
        }
    });
    ledger.flush();
    assert_eq!(requests(&ledger) + ledger.dropped(), 4_000);
}

#[test]
fn a_stuck_disk_drops_rows_and_never_blocks_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let holder = Connection::open(ledger.path()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More than the queue and a batch hold: with a caller that waited, this
    // would wait for the lock that we hold ourselves.
    for _ in 0..10_000 {
        ledger.record(row("ok"));
    }
    assert!(ledger.dropped() > 0);
    holder.execute_batch("ROLLBACK").unwrap();
    ledger.flush();
    assert_eq!(requests(&ledger) + ledger.dropped(), 10_000);
    let before = ledger.dropped();
    ledger.record(row("ok"));
    ledger.flush();
    assert_eq!(ledger.dropped(), before, "it works again");
}

#[test]
fn the_file_is_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(LEDGER_FILE), b"").unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(row("ok"));
    ledger.flush();
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_corrupt_file_is_set_aside_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LEDGER_FILE);
    std::fs::write(&path, vec![0x5a; 20_000]).unwrap();
    std::fs::write(dir.path().join("ledger.sqlite-wal"), b"rubbish").unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(row("ok"));
    ledger.flush();
    assert_eq!(requests(&ledger), 1);
    let aside = asides(dir.path());
    assert!(
        aside
            .iter()
            .any(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
    );
    let kept = std::fs::read(dir.path().join(&aside[0])).unwrap();
    assert_eq!(kept, vec![0x5a; 20_000], "the old file is kept as it was");
}

#[test]
fn a_file_that_goes_bad_while_open_is_replaced_and_the_rows_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(row("ok"));
    ledger.flush();
    let other = Connection::open(ledger.path()).unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let length = std::fs::metadata(ledger.path()).unwrap().len();
    std::fs::write(ledger.path(), vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    ledger.record(row("ok"));
    ledger.flush();
    assert_eq!(ledger.dropped(), 0);
    assert_eq!(requests(&ledger), 1, "in the new file");
    assert!(!asides(dir.path()).is_empty());
}

#[test]
fn bit_flips_never_panic_and_never_stop_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    (0..50).for_each(|_| ledger.record(row("ok")));
    drop(ledger);
    let good = std::fs::read(dir.path().join(LEDGER_FILE)).unwrap();
    for at in (0..good.len()).step_by(good.len() / 60) {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        std::fs::write(dir.path().join(LEDGER_FILE), &bad).unwrap();
        let ledger = match Ledger::open(dir.path()) {
            Ok(ledger) => ledger,
            // A flip in the version number reads as a later nearfar's file.
            Err(StoreError::Newer { .. }) => continue,
            Err(error) => panic!("byte {at}: {error}"),
        };
        ledger.record(row("ok"));
        ledger.flush();
        let _ = ledger.usage(&UsageQuery::default());
    }
}

#[test]
fn a_later_nearfars_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ledger::open(dir.path()).unwrap());
    let connection = Connection::open(dir.path().join(LEDGER_FILE)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    assert!(error.to_string().contains("newer nearfar"), "{error}");
    assert!(asides(dir.path()).is_empty());
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_the_file() {
    let error = Ledger::open(Path::new("/nonexistent/nearfar")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/nearfar/ledger.sqlite")
    );
}

#[test]
fn an_older_file_is_brought_up_to_date_and_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    // As it was before rows named keys.
    let connection = Connection::open(dir.path().join(LEDGER_FILE)).unwrap();
    let old = &schema::MIGRATIONS[..2];
    old.iter()
        .for_each(|m| connection.execute_batch(m).unwrap());
    let row_of_then = "INSERT INTO requests (time_ms, decision, tenant, feature, prompt_version,
            conversation, endpoint, model, target, zone, ceiling, ceiling_source, reason, outcome,
            failure, attempts, duration_ms, stream)
         VALUES (1, 'd', 'default', '', '', '', '', '', '', '', '', '', '', 'ok', '', 1, 1.0, 0)";
    connection.execute_batch(row_of_then).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(Row {
        key: "key_1".into(),
        ..row("ok")
    });
    ledger.flush();
    let by_key = UsageQuery {
        by: vec![Dimension::Key],
        ..UsageQuery::default()
    };
    let lines = ledger.usage(&by_key).unwrap();
    let keys = lines
        .iter()
        .map(|line| line.group[&Dimension::Key].as_str());
    assert_eq!(keys.collect::<Vec<_>>(), ["", "key_1"]);
}

const LIMITED: &str = "NEARFAR_TEST_LIMITED_FILES";

/// Runs a test again by itself, under a limit on the sizes of files (in blocks
/// of 512 bytes), which the ledger meets as it would meet a full disk.
fn again_with_small_files(test: &str, blocks: u32, dir: &Path) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact \"$1\"");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("store::tests::{test}"))
        .env(LIMITED, dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
fn a_full_disk_drops_rows_counts_them_and_keeps_the_rest() {
    if let Some(dir) = std::env::var_os(LIMITED) {
        return fill_the_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_full_disk_drops_rows_counts_them_and_keeps_the_rest";
    again_with_small_files(test, 512, dir.path());
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(requests(&ledger) > 0);
    ledger.record(row("ok"));
    ledger.flush();
    assert_eq!(ledger.dropped(), 0, "with room again, it works again");
}

fn fill_the_disk(dir: &Path) {
    let ledger = Ledger::open(dir).unwrap();
    let mut recorded = 0;
    while ledger.dropped() == 0 {
        assert!(recorded < 200_000, "the limit was never met");
        for _ in 0..2_000 {
            ledger.record(row("ok"));
            recorded += 1;
        }
        ledger.flush();
    }
    assert_eq!(requests(&ledger) + ledger.dropped(), recorded);
    assert!(requests(&ledger) > 0);
}

#[test]
fn a_disk_that_is_full_at_the_start_does_not_keep_the_ledger_from_opening() {
    if let Some(dir) = std::env::var_os(LIMITED) {
        let ledger = Ledger::open(Path::new(&dir)).unwrap();
        ledger.record(row("ok"));
        ledger.flush();
        assert_eq!(ledger.dropped(), 1);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_disk_that_is_full_at_the_start_does_not_keep_the_ledger_from_opening";
    again_with_small_files(test, 0, dir.path());
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(row("ok"));
    ledger.flush();
    assert_eq!((requests(&ledger), ledger.dropped()), (1, 0));
}

#[test]
fn legs_that_failed_are_kept_with_their_request() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let leg = |target: &str, failure: &str, pieces| FailedLeg {
        target: target.into(),
        zone: "cloud".into(),
        failure: failure.into(),
        pieces,
    };
    ledger.record(row("ok"));
    ledger.record(Row {
        attempts: 3,
        failed_legs: vec![leg("far/a", "cut", 12), leg("far/b", "overloaded", 0)],
        ..row("ok")
    });
    ledger.flush();
    let connection = Connection::open(ledger.path()).unwrap();
    let mut query = connection
        .prepare(
            "SELECT leg.target, leg.failure, leg.pieces, attempts FROM failed_legs AS leg
             JOIN requests ON requests.id = leg.request ORDER BY leg.rowid",
        )
        .unwrap();
    let rows: Vec<(String, String, i64, i64)> = query
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected = [("far/a", "cut", 12, 3), ("far/b", "overloaded", 0, 3)];
    let expected = expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c, d));
    assert_eq!(rows, expected);
}

#[test]
fn what_the_cache_saved_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.record(Row {
        cost_micro: Some(0),
        saved_micro: Some(7),
        ..row("ok")
    });
    ledger.record(row("ok"));
    ledger.flush();
    let connection = Connection::open(ledger.path()).unwrap();
    let saved: (i64, i64) = connection
        .query_row(
            "SELECT sum(saved_micro), count(saved_micro) FROM requests",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(saved, (7, 1));
}

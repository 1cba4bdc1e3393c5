//! Rows on their way to the fleet's ledger: how far it has them, and which are
//! next. How far is kept in the ledger's own file, so that it can never be ahead
//! of the rows.

use rusqlite::{Connection, Transaction, params};

use nearfar_domain::frames::{LedgerLeg, LedgerRow};

/// Rows in a batch.
const MAX_ROWS: usize = 500;
/// Bytes of text in a batch, roughly; one row may be over it.
const MAX_BYTES: usize = 512 << 10;

/// The next rows for the fleet's ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unsent {
    /// The random name of the ledger's file.
    pub daemon: String,
    /// The id of the last row that the fleet has.
    pub sent: i64,
    /// The id of the newest row.
    pub newest: i64,
    /// The rows after `sent`, in order; a batch of them.
    pub rows: Vec<LedgerRow>,
}

/// A change of what is kept about the fleet's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has all rows up to this one, under this name.
    Sent { daemon: String, id: i64 },
    /// This name is another's: draw a new one.
    Rename { daemon: String },
}

/// Writes a change down. One that is about an earlier name changes nothing.
pub(super) fn note(transaction: &Transaction<'_>, progress: &Progress) -> rusqlite::Result<()> {
    match progress {
        Progress::Sent { daemon, id } => transaction.execute(
            "UPDATE export SET sent = max(sent, ?2) WHERE daemon = ?1",
            params![daemon, id],
        )?,
        Progress::Rename { daemon } => transaction.execute(
            "UPDATE export SET daemon = lower(hex(randomblob(16))) WHERE daemon = ?1",
            [daemon],
        )?,
    };
    Ok(())
}

/// How far the fleet's ledger is, and the newest row's id.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<Unsent> {
    connection.query_row(
        "SELECT daemon, sent, (SELECT ifnull(max(id), 0) FROM requests) FROM export",
        [],
        |row| {
            Ok(Unsent {
                daemon: row.get(0)?,
                sent: row.get(1)?,
                newest: row.get(2)?,
                rows: Vec::new(),
            })
        },
    )
}

/// The rows after `known`, where that is further than what is written down for
/// the same name: what was just sent may not be on the disk yet.
pub(super) fn unsent(
    connection: &mut Connection,
    known: Option<(&str, i64)>,
) -> rusqlite::Result<Unsent> {
    // One view of both tables, whatever is written meanwhile.
    let transaction = connection.transaction()?;
    let mut found = state(&transaction)?;
    if let Some((_, sent)) = known.filter(|(daemon, _)| *daemon == found.daemon) {
        found.sent = found.sent.max(sent);
    }
    let mut select = transaction.prepare(
        "SELECT id, time_ms, decision, tenant, key, feature, prompt_version, conversation,
            endpoint, model, target, zone, ceiling, ceiling_source, reason, outcome, failure,
            attempts, prompt_tokens, cached_prompt_tokens, completion_tokens, reasoning_tokens,
            cost_micro, saved_micro, ttft_ms, duration_ms, stream,
            cache_written_tokens, failed_cost_micro, baseline, saved_local_micro
         FROM requests WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut select_legs = transaction.prepare(
        "SELECT target, zone, failure, pieces FROM failed_legs WHERE request = ?1 ORDER BY rowid",
    )?;
    let mut bytes = 0;
    let mut rows = select.query(params![found.sent, MAX_ROWS as i64])?;
    while let Some(row) = rows.next()? {
        let mut next = LedgerRow {
            id: row.get(0)?,
            time_ms: row.get(1)?,
            decision: row.get(2)?,
            tenant: row.get(3)?,
            key: row.get(4)?,
            feature: row.get(5)?,
            prompt_version: row.get(6)?,
            conversation: row.get(7)?,
            endpoint: row.get(8)?,
            model: row.get(9)?,
            target: row.get(10)?,
            zone: row.get(11)?,
            ceiling: row.get(12)?,
            ceiling_source: row.get(13)?,
            reason: row.get(14)?,
            outcome: row.get(15)?,
            failure: row.get(16)?,
            attempts: row.get(17)?,
            prompt_tokens: row.get(18)?,
            cached_prompt_tokens: row.get(19)?,
            completion_tokens: row.get(20)?,
            reasoning_tokens: row.get(21)?,
            cost_micro: row.get(22)?,
            saved_micro: row.get(23)?,
            ttft_ms: row.get(24)?,
            duration_ms: row.get(25)?,
            stream: row.get(26)?,
            cache_written_tokens: row.get(27)?,
            failed_cost_micro: row.get(28)?,
            baseline: row.get(29)?,
            saved_local_micro: row.get(30)?,
            failed_legs: Vec::new(),
        };
        let legs = select_legs.query_map([next.id], |leg| {
            Ok(LedgerLeg {
                target: leg.get(0)?,
                zone: leg.get(1)?,
                failure: leg.get(2)?,
                pieces: leg.get(3)?,
            })
        })?;
        next.failed_legs = legs.collect::<rusqlite::Result<_>>()?;
        bytes += bytes_of(&next);
        if bytes > MAX_BYTES && !found.rows.is_empty() {
            break;
        }
        found.rows.push(next);
    }
    Ok(found)
}

fn bytes_of(row: &LedgerRow) -> usize {
    let texts = [
        &row.decision,
        &row.tenant,
        &row.feature,
        &row.prompt_version,
        &row.conversation,
        &row.model,
        &row.target,
        &row.reason,
    ];
    let legs: usize = row
        .failed_legs
        .iter()
        .map(|leg| leg.target.len() + 96)
        .sum();
    texts.iter().map(|text| text.len()).sum::<usize>() + legs + 256
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::row;
    use super::super::{FailedLeg, Ledger, Row};

    #[test]
    fn rows_are_taken_in_order_and_go_on_where_they_were_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for number in 0..3 {
            let leg = FailedLeg {
                target: "cloud/a".into(),
                zone: "cloud".into(),
                failure: "timeout".into(),
                pieces: number,
            };
            ledger.record(Row {
                decision: format!("dec_{number}"),
                failed_legs: vec![leg; number as usize],
                ..row("ok")
            });
        }
        ledger.flush();
        assert_eq!(ledger.newest(), 3);
        let unsent = ledger.unsent(None).unwrap();
        assert_eq!((unsent.sent, unsent.newest), (0, 3));
        let seen: Vec<_> = unsent
            .rows
            .iter()
            .map(|row| (row.id, &*row.decision))
            .collect();
        assert_eq!(seen, [(1, "dec_0"), (2, "dec_1"), (3, "dec_2")]);
        assert_eq!(unsent.rows[2].failed_legs.len(), 2);
        assert_eq!(unsent.rows[2].failed_legs[0].pieces, 2);
        // Sent, and not yet written down.
        let rest = ledger.unsent(Some((&unsent.daemon, 2))).unwrap();
        assert_eq!(rest.rows.len(), 1);
        ledger.sent(&unsent.daemon, 2);
        ledger.sent(&unsent.daemon, 1);
        drop(ledger);

        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.newest(), 3);
        let next = ledger.unsent(None).unwrap();
        assert_eq!((&next.daemon, next.sent), (&unsent.daemon, 2));
        assert_eq!(next.rows, unsent.rows[2..]);
    }

    #[test]
    fn a_new_name_keeps_the_place_and_news_of_the_old_one_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        (0..2).for_each(|_| ledger.record(row("ok")));
        ledger.flush();
        let old = ledger.unsent(None).unwrap().daemon;
        ledger.sent(&old, 1);
        ledger.rename(&old);
        ledger.sent(&old, 2);
        ledger.flush();
        let next = ledger.unsent(Some((&old, 2))).unwrap();
        assert_ne!(next.daemon, old);
        assert_eq!((next.sent, next.rows.len()), (1, 1));
    }

    #[test]
    fn a_batch_is_bounded_by_rows() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        (0..super::MAX_ROWS + 1).for_each(|_| ledger.record(row("ok")));
        ledger.flush();
        assert_eq!(ledger.unsent(None).unwrap().rows.len(), super::MAX_ROWS);
    }
}

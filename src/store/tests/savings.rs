//! What was spent and saved, in one question.

use super::*;

#[test]
fn one_question_tells_what_was_spent_and_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let far = |cost_micro| Row {
        target: "openai/mini".into(),
        zone: "cloud".into(),
        cost_micro,
        failed_cost_micro: Some(2),
        cache_written_tokens: Some(3),
        ..row("ok")
    };
    let here = |saved: Option<u64>| Row {
        cost_micro: Some(0),
        saved_local_micro: saved,
        baseline: saved.map(|_| "openai/mini".to_owned()).unwrap_or_default(),
        ..row("ok")
    };
    let kept = Row {
        reason: "cache".into(),
        cost_micro: Some(0),
        saved_micro: Some(40),
        ..row("ok")
    };
    for row in [
        far(Some(10)),
        far(None),
        here(Some(9)),
        here(Some(1)),
        here(None),
        kept,
    ] {
        ledger.record(row);
    }
    // Not answered: it saved nothing.
    ledger.record(Row {
        outcome: "failed".into(),
        ..here(None)
    });
    ledger.flush();
    let query = UsageQuery {
        by: vec![Dimension::Zone],
        ..UsageQuery::default()
    };
    let lines = ledger.usage(&query).unwrap();
    let of = |zone: &str| {
        let found = lines
            .iter()
            .find(|line| line.group[&Dimension::Zone] == zone);
        found.unwrap()
    };
    let (device, cloud) = (of("device"), of("cloud"));
    assert_eq!(
        (
            cloud.cost_micro,
            cloud.cost_unknown,
            cloud.failed_cost_micro
        ),
        (10, 1, 4)
    );
    assert_eq!((cloud.local, cloud.cache_written_tokens), (0, 6));
    assert_eq!((device.local, device.from_cache), (3, 1));
    assert_eq!(
        (device.saved_local_micro, device.saved_local_unknown),
        (10, 1)
    );
    assert_eq!(device.saved_cache_micro, 40);
    assert!(device.baselines.iter().eq(["openai/mini"]));
}

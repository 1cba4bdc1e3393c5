//! Every fault of a provider, through the real daemon over its API: what the
//! client saw, how often a provider was asked, how long it took.
//!
//! Each case is a test of its own ending: the whole answer, or an honest error
//! and never a part that looks whole. The table of `docs/faults.md` is printed
//! by `cargo test --test nearfar fault_table -- --nocapture`.

mod cases;
mod clients;
mod run;

use std::fmt::Write as _;
use std::time::Duration;

use run::{Row, Run};

/// How a case must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The answer is whole, to the letter.
    Whole,
    /// An error before anything was shown.
    Error(u16),
    /// An error that says that nobody was reached: at once or after the limit.
    Unreached,
    /// A part, and then an error in the stream: nothing that looks like an end.
    ErrorInBand,
}

/// Cases that are run at the same time: they wait more than they work.
const AT_ONCE: usize = 6;

#[test]
fn every_fault_ends_in_the_whole_answer_or_an_honest_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = Run::start(&runtime);
    let mut rows: Vec<Row> = Vec::new();
    let mut wrong = 0;
    let cases = cases::all();
    assert!(cases.len() >= 24, "{}", cases.len());
    for some in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|case| scope.spawn(|| run.case(case)))
                .collect();
            for thread in running {
                match thread.join() {
                    Ok(row) => rows.push(row),
                    // It has said what was wrong.
                    Err(_) => wrong += 1,
                }
            }
        });
    }
    println!("{}", markdown(&rows));
    assert_eq!(wrong, 0, "cases that ended otherwise");
    assert!(!run.log().contains("panicked"));
}

fn markdown(rows: &[Row]) -> String {
    let mut table =
        "| fault | what the client saw | attempts | time |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let Row {
            fault,
            saw,
            attempts,
            took,
        } = row;
        writeln!(table, "| {fault} | {saw} | {attempts} | {} |", human(*took)).unwrap();
    }
    table
}

fn human(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

//! How far something long has come, on standard error.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::show::size;
use crate::cli::style;

/// A bar on a terminal, a line every tenth elsewhere, nothing with `--json`.
pub(super) enum Meter {
    Bar(ProgressBar),
    Lines { what: String, tenth: u64 },
    Quiet,
}

impl Meter {
    pub(super) fn new(json: bool, what: &str) -> Meter {
        if json {
            return Meter::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Meter::Lines {
                what: what.to_owned(),
                tenth: 0,
            };
        }
        let bar = ProgressBar::new(0).with_message(what.to_owned());
        if let Ok(look) = ProgressStyle::with_template(
            "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(look);
        }
        Meter::Bar(bar)
    }

    pub(super) fn at(&mut self, done: u64, total: Option<u64>) {
        match self {
            Meter::Bar(bar) => {
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            }
            Meter::Lines { what, tenth } => {
                let Some(total) = total.filter(|total| *total > 0) else {
                    return;
                };
                let now = done.saturating_mul(10) / total;
                if now > *tenth {
                    *tenth = now;
                    style::note(&format!("{what}: {} of {}", size(done), size(total)));
                }
            }
            Meter::Quiet => {}
        }
    }

    pub(super) fn say(&self, what: &str) {
        match self {
            Meter::Bar(bar) => bar.set_message(what.to_owned()),
            Meter::Lines { .. } => style::note(what),
            Meter::Quiet => {}
        }
    }

    pub(super) fn end(self) {
        if let Meter::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

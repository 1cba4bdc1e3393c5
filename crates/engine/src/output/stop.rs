//! Ends an answer before any of the given strings, however it is cut into tokens.

use super::{earliest, held_back};

/// Looks for stop strings in a stream of text.
pub struct StopFinder {
    stops: Vec<String>,
    held: String,
    /// Which stop string came up.
    found: Option<usize>,
}

impl StopFinder {
    /// Stop strings; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
            found: None,
        }
    }

    /// Adds text. Returns what is safe to pass on and whether a stop string came up.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        let needles: Vec<&str> = self.stops.iter().map(String::as_str).collect();
        if let Some((at, which)) = earliest(&self.held, &needles) {
            self.found = Some(which);
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = held_back(&self.held, &needles);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The stop string that came up.
    pub fn found(&self) -> Option<&str> {
        self.stops.get(self.found?).map(String::as_str)
    }

    /// What was held back when the answer ended without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

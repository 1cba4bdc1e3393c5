//! Generated text, taken apart: content, reasoning and tool calls.
//!
//! Text arrives in pieces of any size and the result does not depend on how it
//! was cut. What looks like the beginning of a marker is held back until it is
//! clear; what turns out malformed comes out as content, so that nothing is lost.

mod splitter;
mod stop;

pub use splitter::{Piece, Splitter};
pub use stop::StopFinder;

/// How a model writes tool calls; read off its chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// It does not, or the request offers no tools.
    None,
    /// `<tool_call>{"name":…,"arguments":…}</tool_call>` (Hermes, Qwen, SmolLM3, concierge).
    Hermes,
    /// The whole answer is `{"name":…,"parameters":…}` (Llama 3.x).
    BareJson,
}

impl ToolFormat {
    /// The format that a chat template teaches.
    pub fn of_template(source: &str) -> Self {
        if source.contains("<tool_call>") {
            Self::Hermes
        } else if source.contains("\"parameters\"") || source.contains("python_tag") {
            Self::BareJson
        } else {
            Self::None
        }
    }
}

/// Where the earliest of `needles` begins in `text`: (position, which).
fn earliest(text: &str, needles: &[&str]) -> Option<(usize, usize)> {
    needles
        .iter()
        .enumerate()
        .filter_map(|(which, needle)| text.find(needle).map(|at| (at, which)))
        .min()
}

/// Length of the longest end of `text` that begins one of `needles`.
fn held_back(text: &str, needles: &[&str]) -> usize {
    let longest = needles.iter().map(|n| n.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    (from..text.len())
        .filter(|at| text.is_char_boundary(*at))
        .map(|at| &text[at..])
        .find(|tail| needles.iter().any(|needle| needle.starts_with(tail)))
        .map_or(0, str::len)
}

#[cfg(test)]
mod tests;

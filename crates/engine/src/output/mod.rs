//! Generated text, taken apart: content, reasoning and tool calls.
//!
//! Text arrives in pieces of any size and the result does not depend on how it
//! was cut. What looks like the beginning of a marker is held back until it is
//! clear. A call's arguments go out as they grow, from the moment when its name
//! is known; what turns out to be no call before that comes out as content, so
//! that nothing is lost.

mod object;
mod pythonic;
mod region;
mod splitter;
mod stop;

pub use splitter::{Piece, Splitter};
pub use stop::StopFinder;

/// Control tokens that mean something in an answer's text: they are part of it
/// for the splitter, and no grammar takes them for text.
pub const MARKS: [&str; 12] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
];

/// How a model writes tool calls; read off its chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// It does not, or the request offers no tools.
    None,
    /// `<tool_call>{"name":…,"arguments":…}</tool_call>` (Hermes, Qwen, SmolLM3,
    /// Granite 4, concierge).
    Hermes,
    /// The whole answer is `{"name":…,"parameters":…}`, perhaps after
    /// `<|python_tag|>` (Llama 3.x).
    BareJson,
    /// `[TOOL_CALLS][{"name":…,"arguments":…}]` (Mistral until 2024).
    MistralList,
    /// `[TOOL_CALLS]name[ARGS]{…}` (Mistral since).
    MistralArgs,
    /// `<|tool_call|>[{"name":…,"arguments":…}]` (Granite 3).
    Granite,
    /// `<|tool_call|>[{…}]<|/tool_call|>` or `functools[{…}]` (Phi-4-mini).
    Phi,
    /// `<|tool_call_start|>[name(key="value")]<|tool_call_end|>` (LFM2).
    Lfm2,
    /// A fenced block `tool_code` of calls `name(key="value")` (Gemma).
    ToolCode,
}

/// All formats that there are calls in.
#[cfg(test)]
pub(crate) const FORMATS: [ToolFormat; 8] = [
    ToolFormat::Hermes,
    ToolFormat::BareJson,
    ToolFormat::MistralList,
    ToolFormat::MistralArgs,
    ToolFormat::Granite,
    ToolFormat::Phi,
    ToolFormat::Lfm2,
    ToolFormat::ToolCode,
];

impl ToolFormat {
    /// The format that a chat template teaches.
    pub fn of_template(source: &str) -> Self {
        let has = |mark: &str| source.contains(mark);
        if has("<tool_call>") {
            Self::Hermes
        } else if has("[TOOL_CALLS]") && has("[ARGS]") {
            Self::MistralArgs
        } else if has("[TOOL_CALLS]") {
            Self::MistralList
        } else if has("<|tool_call_start|>") || has("<|tool_list_start|>") {
            Self::Lfm2
        } else if has("<|/tool_call|>") || has("<|/tool|>") || has("functools") {
            Self::Phi
        } else if has("<|tool_call|>") {
            Self::Granite
        } else if has("tool_code") {
            Self::ToolCode
        } else if has("\"parameters\"") || has("python_tag") {
            Self::BareJson
        } else {
            Self::None
        }
    }

    /// What a call begins with, and what of that belongs to the call itself.
    fn openers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[],
            Self::Hermes => &[("<tool_call>", "")],
            Self::BareJson => &[("<|python_tag|>", "")],
            Self::MistralList | Self::MistralArgs => &[("[TOOL_CALLS]", "")],
            Self::Granite => &[("<|tool_call|>", "")],
            Self::Phi => &[("<|tool_call|>", ""), ("functools[", "[")],
            Self::Lfm2 => &[("<|tool_call_start|>", "")],
            Self::ToolCode => &[("```tool_code", "")],
        }
    }

    /// What follows the last call of an opener; it may be missing.
    fn closer(self) -> &'static str {
        match self {
            Self::Hermes => "</tool_call>",
            Self::Phi => "<|/tool_call|>",
            Self::Lfm2 => "<|tool_call_end|>",
            Self::ToolCode => "```",
            Self::None | Self::BareJson | Self::MistralList | Self::MistralArgs | Self::Granite => {
                ""
            }
        }
    }

    /// Whether a call may be written as `name(key=value)`.
    fn is_pythonic(self) -> bool {
        matches!(self, Self::Lfm2 | Self::ToolCode | Self::BareJson)
    }

    /// Whether a call may be written as `name[ARGS]{…}`.
    fn is_named(self) -> bool {
        matches!(self, Self::MistralList | Self::MistralArgs)
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

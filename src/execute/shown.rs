//! What a client has seen of an answer, and how another leg's part joins it.
//!
//! No I/O. The rule: what was shown stays as it is, and what follows begins
//! right behind it, so that nothing is read twice and nothing is missing.

use nearfar_domain::chat::{Chat, ResponseFormat, ToolChoice};
use nearfar_domain::events::Event;

/// Longer answers are not gone on with: the part would have to be read again.
const MAX_PART_BYTES: usize = 1 << 20;
/// So many bytes that are the same are no coincidence: the leg begins the
/// answer anew, or says first what it was given.
const ECHO_BYTES: usize = 24;

/// What was shown.
#[derive(Default)]
pub(super) struct Shown {
    content: String,
    reasoning: bool,
    calls: bool,
    other: bool,
    too_long: bool,
}

/// How an answer that broke off can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the beginning: nothing of the answer itself was shown.
    Afresh,
    /// From this part of its text. `tail` is white space that was shown behind
    /// it and is not given to a model, which would have to go on in mid-air.
    From {
        part: String,
        tail: String,
        /// The form is to be held by whoever goes on.
        held: bool,
    },
    /// Not at all.
    Never,
}

impl Shown {
    pub(super) fn add(&mut self, event: &Event) {
        match event {
            Event::Content(text) if self.content.len() + text.len() > MAX_PART_BYTES => {
                self.too_long = true;
            }
            Event::Content(text) => self.content.push_str(text),
            Event::Reasoning(_) => self.reasoning = true,
            Event::ToolCall(_) => self.calls = true,
            Event::Vectors(_) => self.other = true,
            _ => {}
        }
    }

    /// The answer's text; `None` when not all of it was kept.
    pub(super) fn content(&self) -> Option<&str> {
        (!self.too_long).then_some(&self.content)
    }

    pub(super) fn called(&self) -> bool {
        self.calls
    }

    /// How an answer to `chat` can go on.
    pub(super) fn way_on(&self, chat: &Chat) -> Way {
        // Half a call cannot be given to anyone, and a whole one may be the
        // first of several.
        if self.calls || self.other || self.too_long {
            return Way::Never;
        }
        let part = self.content.trim_end();
        if part.is_empty() {
            // Reasoning is thinking aloud, not the answer.
            return if self.content.is_empty() {
                Way::Afresh
            } else {
                Way::Never
            };
        }
        if matches!(
            chat.tool_choice,
            ToolChoice::Required | ToolChoice::Named(_)
        ) {
            return Way::Never;
        }
        Way::From {
            part: part.to_owned(),
            tail: self.content[part.len()..].to_owned(),
            held: chat.response_format != ResponseFormat::Text,
        }
    }

    /// Whether reasoning was shown and nothing else.
    pub(super) fn only_reasoned(&self) -> bool {
        self.reasoning && self.content.is_empty() && !self.calls
    }
}

/// The new leg begins the answer again instead of going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubled;

/// The place where a new leg's text joins what was shown.
#[derive(Default)]
pub(super) struct Seam {
    /// What the leg was given, while it may be saying it again.
    given: String,
    /// What came of it so far.
    held: String,
    /// White space that was shown already.
    tail: String,
}

impl Seam {
    /// `echoes`: whether the leg may begin with what it was given. This
    /// device's engine does not.
    pub(super) fn new(part: &str, tail: &str, echoes: bool) -> Self {
        let long = part.len() >= ECHO_BYTES;
        Self {
            given: if echoes && long {
                part.to_owned()
            } else {
                String::new()
            },
            held: String::new(),
            tail: tail.to_owned(),
        }
    }

    /// Whether all that follows passes as it is.
    pub(super) fn is_closed(&self) -> bool {
        self.given.is_empty() && self.tail.is_empty()
    }

    /// Takes the leg's next text; returns what of it is to be shown.
    pub(super) fn push(&mut self, text: &str) -> Result<String, Doubled> {
        if self.given.is_empty() {
            return Ok(self.behind_tail(text));
        }
        self.held.push_str(text);
        if let Some(rest) = self.held.strip_prefix(self.given.as_str()) {
            let rest = rest.to_owned();
            self.open();
            return Ok(self.behind_tail(&rest));
        }
        if self.given.starts_with(self.held.as_str()) {
            return Ok(String::new());
        }
        self.released()
    }

    /// The leg's text is over, or something else follows: what was held back.
    pub(super) fn finish(&mut self) -> Result<String, Doubled> {
        if self.given.is_empty() {
            return Ok(String::new());
        }
        self.released()
    }

    fn released(&mut self) -> Result<String, Doubled> {
        let same = self
            .held
            .bytes()
            .zip(self.given.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        if same >= ECHO_BYTES {
            return Err(Doubled);
        }
        let held = std::mem::take(&mut self.held);
        self.open();
        Ok(self.behind_tail(&held))
    }

    fn open(&mut self) {
        self.given = String::new();
        self.held = String::new();
    }

    /// Drops the white space at the text's beginning that was shown already.
    fn behind_tail(&mut self, text: &str) -> String {
        let mut rest = text;
        while let Some(first) = self.tail.chars().next() {
            let Some(next) = rest.chars().next() else {
                return String::new();
            };
            if next != first {
                self.tail.clear();
                break;
            }
            self.tail.drain(..first.len_utf8());
            rest = &rest[first.len_utf8()..];
        }
        rest.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nearfar_domain::events::ToolCallDelta;

    use super::*;

    fn joined(part: &str, tail: &str, echoes: bool, pieces: &[&str]) -> Result<String, Doubled> {
        let mut seam = Seam::new(part, tail, echoes);
        let mut out = String::new();
        for piece in pieces {
            out.push_str(&seam.push(piece)?);
        }
        out.push_str(&seam.finish()?);
        Ok(out)
    }

    const PART: &str = "Breakfast is served from seven to";

    #[test]
    fn a_part_that_is_said_again_is_shown_once() {
        for size in [1, 3, 100] {
            let again = format!("{PART} ten o'clock.");
            let bytes: Vec<char> = again.chars().collect();
            let pieces: Vec<String> = bytes.chunks(size).map(|c| c.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(joined(PART, "", true, &pieces).unwrap(), " ten o'clock.");
            assert_eq!(joined(PART, " ", true, &pieces).unwrap(), "ten o'clock.");
        }
    }

    #[test]
    fn an_answer_that_begins_anew_is_a_fault() {
        let anew = ["Breakfast is served from ", "eight o'clock."];
        assert_eq!(joined(PART, "", true, &anew), Err(Doubled));
        assert_eq!(joined(PART, "", true, &anew[..1]), Err(Doubled));
    }

    #[test]
    fn what_goes_on_passes_and_white_space_is_not_doubled() {
        assert_eq!(joined(PART, "", true, &[" ten."]).unwrap(), " ten.");
        assert_eq!(joined(PART, " ", true, &[" ten."]).unwrap(), "ten.");
        assert_eq!(joined(PART, " ", false, &["ten."]).unwrap(), "ten.");
        assert_eq!(joined("a", "\n\n", false, &["\n", "\nb\n"]).unwrap(), "b\n");
        assert_eq!(joined("a", "\n", false, &["\n\nb"]).unwrap(), "\nb");
        // Too short to tell: it is taken at its word.
        assert_eq!(joined("Br", "", true, &["Breakfast"]).unwrap(), "Breakfast");
        // A beginning that is alike by chance comes out again.
        assert_eq!(
            joined(PART, "", true, &["Breakf", "ost"]).unwrap(),
            "Breakfost"
        );
        assert_eq!(joined(PART, "", true, &["Break"]).unwrap(), "Break");
    }

    #[test]
    fn the_way_on_depends_on_what_was_shown() {
        let chat = Chat::turns(Vec::new());
        let mut shown = Shown::default();
        assert_eq!(shown.way_on(&chat), Way::Afresh);
        shown.add(&Event::Reasoning("hm".into()));
        assert_eq!(shown.way_on(&chat), Way::Afresh);
        assert!(shown.only_reasoned());
        shown.add(&Event::Content("Yes, \n".into()));
        let way = |held| Way::From {
            part: "Yes,".into(),
            tail: " \n".into(),
            held,
        };
        assert_eq!(shown.way_on(&chat), way(false));
        let form = Chat {
            response_format: ResponseFormat::JsonObject,
            ..chat.clone()
        };
        assert_eq!(shown.way_on(&form), way(true));
        let forced = Chat {
            tool_choice: ToolChoice::Required,
            ..chat.clone()
        };
        assert_eq!(shown.way_on(&forced), Way::Never);
        shown.add(&Event::ToolCall(ToolCallDelta {
            index: 0,
            id: None,
            name: None,
            arguments: String::new(),
        }));
        assert_eq!(shown.way_on(&chat), Way::Never);
    }
}

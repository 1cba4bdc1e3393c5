//! The state machine behind [`Splitter`].

use super::region::{Fed, Region};
use super::{ToolFormat, earliest, held_back};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";

/// A part of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the user.
    Content(String),
    /// The model's reasoning.
    Reasoning(String),
    /// A tool call begins.
    CallStart {
        /// The function's name.
        name: String,
    },
    /// More of the call's arguments: JSON text, as the model wrote it.
    CallArguments(String),
    /// The call is over.
    CallEnd,
}

enum State {
    /// At the very beginning: white space is dropped, a bare JSON call may start.
    Start,
    Content,
    /// After reasoning or a call: white space is dropped once.
    AfterBlock,
    Reasoning,
    Calls(Box<Region>),
}

/// Takes generated text apart.
pub struct Splitter {
    format: ToolFormat,
    state: State,
    held: String,
    /// White space that is content only if more content follows it.
    space: String,
    calls: u32,
    tools: Vec<String>,
}

impl Splitter {
    /// `thinking`: whether the prompt already opened a `<think>` block.
    pub fn new(format: ToolFormat, thinking: bool) -> Self {
        Self {
            format,
            state: if thinking {
                State::Reasoning
            } else {
                State::Start
            },
            held: String::new(),
            space: String::new(),
            calls: 0,
            tools: Vec::new(),
        }
    }

    /// Where nothing but its name tells a call from a JSON answer, only the
    /// names of these tools do.
    pub fn with_tools(self, tools: Vec<String>) -> Self {
        Self { tools, ..self }
    }

    /// Whether the text goes on as reasoning.
    pub fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning)
    }

    /// Number of whole tool calls so far.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Whether a call has begun that is not whole yet.
    pub fn in_call(&self) -> bool {
        matches!(&self.state, State::Calls(region) if region.is_open())
    }

    /// Adds text and returns the parts that are certain now.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        merge(out)
    }

    /// The answer ended: everything that was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::AfterBlock) {
            State::Reasoning => {
                self.state = State::Reasoning;
                push_text(&mut out, Piece::Reasoning(rest));
            }
            State::Calls(region) => {
                let shown = region.finish();
                if !shown.is_empty() {
                    self.state = State::Content;
                    self.content(&shown, &mut out);
                }
            }
            state @ (State::Start | State::Content | State::AfterBlock) => {
                self.state = state;
                self.content(&rest, &mut out);
            }
        }
        if self.calls == 0 && matches!(self.state, State::Content | State::Start) {
            let space = std::mem::take(&mut self.space);
            push_text(&mut out, Piece::Content(space));
        }
        merge(out)
    }

    /// One move of the machine; `false` when more text is needed.
    fn step(&mut self, out: &mut Vec<Piece>) -> bool {
        match &mut self.state {
            State::Start => self.start(),
            State::AfterBlock => {
                let dropped = self.held.len() - self.held.trim_start().len();
                self.held.drain(..dropped);
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Content;
                true
            }
            State::Content => self.scan_content(out),
            State::Reasoning => match self.held.find(END_THINK) {
                Some(at) => {
                    let text: String = self.held.drain(..at + END_THINK.len()).collect();
                    let text = text[..at].to_owned();
                    push_text(out, Piece::Reasoning(text));
                    self.state = State::AfterBlock;
                    true
                }
                None => {
                    let keep = held_back(&self.held, &[END_THINK]);
                    let text: String = self.held.drain(..self.held.len() - keep).collect();
                    push_text(out, Piece::Reasoning(text));
                    false
                }
            },
            State::Calls(region) => {
                let text = std::mem::take(&mut self.held);
                let tools = &self.tools;
                let by_name = self.format == ToolFormat::BareJson && !tools.is_empty();
                let may_call = |name: &str| !by_name || tools.iter().any(|tool| tool == name);
                let before = out.len();
                let fed = region.push(&text, &may_call, out);
                for piece in &out[before..] {
                    match piece {
                        // The line break before a call belongs to the format.
                        Piece::CallStart { .. } => self.space.clear(),
                        Piece::CallEnd => self.calls += 1,
                        _ => {}
                    }
                }
                match fed {
                    Fed::More => false,
                    Fed::Done(rest) => {
                        self.held = rest;
                        self.state = State::AfterBlock;
                        true
                    }
                    Fed::Broken(shown) => {
                        self.broken(shown, out);
                        true
                    }
                }
            }
        }
    }

    /// Text that looked like a call is content; what follows its first
    /// character is read again, for a call may begin in it.
    fn broken(&mut self, shown: String, out: &mut Vec<Piece>) {
        let first = shown.chars().next().map_or(0, char::len_utf8);
        self.held = shown[first..].to_owned();
        self.state = State::Content;
        self.content(&shown[..first], out);
    }

    fn start(&mut self) -> bool {
        let dropped = self.held.len() - self.held.trim_start().len();
        // Leading white space is kept in case plain content follows.
        self.space.extend(self.held.drain(..dropped));
        if self.held.is_empty() {
            return false;
        }
        if self.format == ToolFormat::BareJson && self.held.starts_with('{') {
            self.state = State::Calls(Box::new(Region::new(self.format, "")));
            return true;
        }
        if THINK.starts_with(self.held.as_str()) && self.held != THINK {
            return false;
        }
        if self.held.starts_with(THINK) {
            self.held.drain(..THINK.len());
            self.space.clear();
            self.state = State::Reasoning;
        } else {
            self.state = State::Content;
        }
        true
    }

    fn scan_content(&mut self, out: &mut Vec<Piece>) -> bool {
        let openers = self.format.openers();
        let texts: Vec<&str> = openers.iter().map(|(text, _)| *text).collect();
        match earliest(&self.held, &texts) {
            Some((at, which)) => {
                let (opener, seed) = openers[which];
                let before: String = self.held.drain(..at).collect();
                self.held.drain(..opener.len());
                self.content(&before, out);
                let mut region = Region::new(self.format, opener);
                region.seed(seed);
                self.state = State::Calls(Box::new(region));
                true
            }
            None => {
                let keep = held_back(&self.held, &texts);
                let text: String = self.held.drain(..self.held.len() - keep).collect();
                self.content(&text, out);
                false
            }
        }
    }

    /// Passes content on; its trailing white space waits for what follows.
    fn content(&mut self, text: &str, out: &mut Vec<Piece>) {
        let solid = text.trim_end().len();
        if solid > 0 {
            let mut whole = std::mem::take(&mut self.space);
            whole.push_str(&text[..solid]);
            push_text(out, Piece::Content(whole));
        }
        self.space.push_str(&text[solid..]);
    }
}

/// Adds to the arguments of the call that was begun last.
pub(super) fn push_arguments(out: &mut Vec<Piece>, text: &str) {
    match out.last_mut() {
        Some(Piece::CallArguments(last)) => last.push_str(text),
        _ => out.push(Piece::CallArguments(text.to_owned())),
    }
}

fn push_text(out: &mut Vec<Piece>, piece: Piece) {
    let empty = match &piece {
        Piece::Content(text) | Piece::Reasoning(text) => text.is_empty(),
        _ => false,
    };
    if !empty {
        out.push(piece);
    }
}

/// Neighbouring pieces of one kind become one.
fn merge(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (out.last_mut(), &piece) {
            (Some(Piece::Content(last)), Piece::Content(text))
            | (Some(Piece::Reasoning(last)), Piece::Reasoning(text))
            | (Some(Piece::CallArguments(last)), Piece::CallArguments(text)) => last.push_str(text),
            _ => out.push(piece),
        }
    }
    out
}

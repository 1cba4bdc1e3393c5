//! The state machine behind [`Splitter`].

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ToolFormat, earliest, held_back};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const CALL: &str = "<tool_call>";
const END_CALL: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";

/// A part of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the user.
    Content(String),
    /// The model's reasoning.
    Reasoning(String),
    /// A whole tool call.
    ToolCall {
        /// The function's name.
        name: String,
        /// The arguments as JSON text, as the model wrote them.
        arguments: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the very beginning: white space is dropped, a bare JSON call may start.
    Start,
    Content,
    /// After reasoning or a call: white space is dropped once.
    AfterBlock,
    Reasoning,
    Call,
    /// The whole answer may be one bare JSON call.
    Bare,
}

/// Takes generated text apart.
pub struct Splitter {
    format: ToolFormat,
    state: State,
    held: String,
    /// White space that is content only if more content follows it.
    space: String,
    calls: u32,
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
        }
    }

    /// Whether the text goes on as reasoning.
    pub fn is_reasoning(&self) -> bool {
        self.state == State::Reasoning
    }

    /// Number of tool calls so far.
    pub fn calls(&self) -> u32 {
        self.calls
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
        match self.state {
            State::Reasoning => push_text(&mut out, Piece::Reasoning(rest)),
            State::Call => {
                // A call that was never closed: some models end the turn right
                // after the JSON. If it is whole, it counts.
                if !self.call(&rest, &mut out) {
                    self.content(&format!("{CALL}{rest}"), &mut out);
                }
            }
            State::Bare => {
                let body = rest.trim().trim_start_matches(PYTHON_TAG).to_owned();
                if !self.call(&body, &mut out) {
                    self.content(&rest, &mut out);
                }
            }
            State::Start | State::Content | State::AfterBlock => self.content(&rest, &mut out),
        }
        if self.calls == 0 && matches!(self.state, State::Content | State::Start) {
            let space = std::mem::take(&mut self.space);
            push_text(&mut out, Piece::Content(space));
        }
        merge(out)
    }

    /// One move of the machine; `false` when more text is needed.
    fn step(&mut self, out: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Start | State::AfterBlock => {
                let trimmed = self.held.trim_start().len();
                let dropped = self.held.len() - trimmed;
                if self.state == State::AfterBlock {
                    self.held.drain(..dropped);
                } else {
                    // Leading white space is kept in case plain content follows.
                    self.space.extend(self.held.drain(..dropped));
                }
                if self.held.is_empty() {
                    return false;
                }
                if self.format == ToolFormat::BareJson && self.state == State::Start {
                    if self.held.starts_with('{') || self.held.starts_with(PYTHON_TAG) {
                        self.state = State::Bare;
                        return false;
                    }
                    if PYTHON_TAG.starts_with(self.held.as_str()) {
                        return false;
                    }
                }
                if THINK.starts_with(self.held.as_str()) && self.held != THINK {
                    return false;
                }
                if self.held.starts_with(THINK) && self.state == State::Start {
                    self.held.drain(..THINK.len());
                    self.space.clear();
                    self.state = State::Reasoning;
                } else {
                    self.state = State::Content;
                }
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
            State::Call => match self.held.find(END_CALL) {
                Some(at) => {
                    let whole: String = self.held.drain(..at + END_CALL.len()).collect();
                    if self.call(&whole[..at], out) {
                        self.state = State::AfterBlock;
                    } else {
                        self.state = State::Content;
                        self.content(&format!("{CALL}{whole}"), out);
                    }
                    true
                }
                None => false,
            },
            State::Bare => false,
        }
    }

    fn scan_content(&mut self, out: &mut Vec<Piece>) -> bool {
        if self.format != ToolFormat::Hermes {
            let text = std::mem::take(&mut self.held);
            self.content(&text, out);
            return false;
        }
        match earliest(&self.held, &[CALL]) {
            Some((at, _)) => {
                let before: String = self.held.drain(..at).collect();
                self.held.drain(..CALL.len());
                self.content(&before, out);
                // The line break before a call belongs to the format.
                self.space.clear();
                self.state = State::Call;
                true
            }
            None => {
                let keep = held_back(&self.held, &[CALL]);
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

    fn call(&mut self, json: &str, out: &mut Vec<Piece>) -> bool {
        #[derive(Deserialize)]
        struct Call<'a> {
            name: String,
            #[serde(borrow, alias = "parameters")]
            arguments: Option<&'a RawValue>,
        }
        let Ok(call) = serde_json::from_str::<Call<'_>>(json.trim()) else {
            return false;
        };
        let arguments = call.arguments.map_or("{}", RawValue::get);
        // Some models write the arguments as a string of JSON.
        let arguments =
            serde_json::from_str::<String>(arguments).unwrap_or_else(|_| arguments.to_owned());
        if call.name.is_empty() {
            return false;
        }
        self.calls += 1;
        out.push(Piece::ToolCall {
            name: call.name,
            arguments,
        });
        true
    }
}

fn push_text(out: &mut Vec<Piece>, piece: Piece) {
    let empty = match &piece {
        Piece::Content(text) | Piece::Reasoning(text) => text.is_empty(),
        Piece::ToolCall { .. } => false,
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
            | (Some(Piece::Reasoning(last)), Piece::Reasoning(text)) => last.push_str(text),
            _ => out.push(piece),
        }
    }
    out
}

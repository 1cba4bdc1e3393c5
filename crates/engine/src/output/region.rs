//! What follows a call's opener: one call or several, in whichever of the
//! forms the format has.

use super::ToolFormat;
use super::object::{ObjectCall, Step, is_json};
use super::pythonic::{self, Parentheses};
use super::splitter::{Piece, push_arguments};

/// The longest name of a function, in bytes.
const MAX_NAME: usize = 128;

/// What became of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// It goes on.
    More,
    /// It is over; this text follows it.
    Done(String),
    /// It is no call, or no longer one; this text is content.
    Broken(String),
}

enum State {
    /// A call or a list of calls begins.
    Before,
    Object(ObjectCall),
    /// A name, of `name(…)` or `name[ARGS]{…}`.
    Name(String),
    /// `[ARGS]` or `[CALL_ID]…[ARGS]` after a name.
    Marks {
        name: String,
        marks: String,
    },
    /// The arguments of `name[ARGS]{…}`.
    Named {
        depth: u32,
        quoted: bool,
        escaped: bool,
    },
    /// `(…)` after a name.
    Python {
        name: String,
        text: String,
        parentheses: Parentheses,
    },
    /// After a call.
    Between,
    /// After the list: the closer may follow.
    Tail(String),
}

/// The reader of one region.
pub(super) struct Region {
    format: ToolFormat,
    state: State,
    list: bool,
    /// Calls that are whole.
    calls: u32,
    /// What is shown should this be no call: the opener and all after it, or
    /// after the last whole call.
    raw: String,
}

impl Region {
    /// `opener` is shown again if no call follows it.
    pub(super) fn new(format: ToolFormat, opener: &str) -> Self {
        Self {
            format,
            state: State::Before,
            list: false,
            calls: 0,
            raw: opener.to_owned(),
        }
    }

    /// Puts what already counts as read before the text; not shown again.
    pub(super) fn seed(&mut self, text: &str) {
        if text == "[" {
            self.list = true;
        }
    }

    /// Reads text.
    pub(super) fn push(
        &mut self,
        text: &str,
        may_call: &dyn Fn(&str) -> bool,
        out: &mut Vec<Piece>,
    ) -> Fed {
        for (at, c) in text.char_indices() {
            match self.step(c, may_call, out) {
                Fed::More => {}
                Fed::Done(mut rest) => {
                    rest.push_str(&text[at + c.len_utf8()..]);
                    return Fed::Done(rest);
                }
                Fed::Broken(mut shown) => {
                    shown.push_str(&text[at + c.len_utf8()..]);
                    return Fed::Broken(shown);
                }
            }
        }
        Fed::More
    }

    /// The answer ended here: what is left to show as content.
    pub(super) fn finish(self) -> String {
        match self.state {
            State::Between | State::Tail(_) => String::new(),
            State::Object(object) if object.has_begun() => String::new(),
            State::Named { .. } => String::new(),
            State::Before if self.calls > 0 => String::new(),
            _ => self.raw,
        }
    }

    /// Whether a call has begun that is not whole.
    pub(super) fn is_open(&self) -> bool {
        match &self.state {
            State::Object(object) => object.has_begun(),
            State::Named { .. } => true,
            _ => false,
        }
    }

    fn step(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Fed {
        self.raw.push(c);
        match &mut self.state {
            State::Before => self.before(c, may_call, out),
            State::Object(object) => match object.push(c, may_call, out) {
                Step::More => Fed::More,
                Step::End => self.called(),
                Step::Broken if object.has_begun() => {
                    out.push(Piece::CallEnd);
                    self.tail(c, may_call, out)
                }
                Step::Broken => self.broken(),
            },
            State::Name(name) => {
                if (c.is_alphanumeric() || "_-.".contains(c)) && name.len() < MAX_NAME {
                    name.push(c);
                    return Fed::More;
                }
                let name = std::mem::take(name);
                self.named(name, c, may_call, out)
            }
            State::Marks { name, marks } => {
                marks.push(c);
                if marks.ends_with("[ARGS]") {
                    let name = std::mem::take(name);
                    self.state = State::Marks {
                        name,
                        marks: "[ARGS]".to_owned(),
                    };
                    return Fed::More;
                }
                if marks == "[ARGS]{" {
                    let name = std::mem::take(name);
                    return self.begin_named(name, may_call, out);
                }
                if marks
                    .strip_prefix("[ARGS]")
                    .is_some_and(|rest| rest.trim().is_empty())
                {
                    marks.truncate("[ARGS]".len());
                    return Fed::More;
                }
                let known = ["[ARGS]", "[CALL_ID]"];
                let begins = known.iter().any(|mark| {
                    mark.starts_with(marks.as_str())
                        || (*mark == "[CALL_ID]" && marks.starts_with(mark))
                });
                if begins && marks.len() < MAX_NAME {
                    Fed::More
                } else {
                    self.broken()
                }
            }
            State::Named {
                depth,
                quoted,
                escaped,
            } => {
                if !*quoted && !is_json(c) && c != '"' {
                    out.push(Piece::CallEnd);
                    return self.tail(c, may_call, out);
                }
                push_arguments(out, c.encode_utf8(&mut [0; 4]));
                if *escaped {
                    *escaped = false;
                } else if *quoted {
                    match c {
                        '\\' => *escaped = true,
                        '"' => *quoted = false,
                        _ => {}
                    }
                } else {
                    match c {
                        '"' => *quoted = true,
                        '{' | '[' => *depth += 1,
                        '}' | ']' => *depth -= 1,
                        _ => {}
                    }
                }
                if *depth == 0 {
                    out.push(Piece::CallEnd);
                    return self.called();
                }
                Fed::More
            }
            State::Python {
                name,
                text,
                parentheses,
            } => {
                text.push(c);
                if !parentheses.push(c) {
                    return Fed::More;
                }
                let arguments = pythonic::arguments(text).filter(|_| may_call(name));
                let Some(arguments) = arguments else {
                    return self.broken();
                };
                let name = std::mem::take(name);
                out.push(Piece::CallStart { name });
                push_arguments(out, &arguments);
                out.push(Piece::CallEnd);
                self.called()
            }
            State::Between => self.between(c, may_call, out),
            State::Tail(tail) => {
                tail.push(c);
                let closer = self.format.closer();
                let read = tail.trim_start();
                if read == closer {
                    Fed::Done(String::new())
                } else if closer.starts_with(read) {
                    Fed::More
                } else {
                    Fed::Done(std::mem::take(tail))
                }
            }
        }
    }

    fn before(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Fed {
        let names = self.format.is_pythonic() || self.format.is_named();
        if c.is_whitespace() {
            return Fed::More;
        }
        match c {
            '[' if !self.list && self.calls == 0 => {
                self.list = true;
                Fed::More
            }
            '{' => {
                let mut object = ObjectCall::new();
                // An opening brace is always the beginning.
                let _ = object.push(c, may_call, out);
                self.state = State::Object(object);
                Fed::More
            }
            ']' if self.list && self.calls > 0 => self.list_ended(),
            c if names && (c.is_alphabetic() || c == '_') => {
                self.state = State::Name(c.to_string());
                Fed::More
            }
            _ => self.broken(),
        }
    }

    fn named(
        &mut self,
        name: String,
        c: char,
        may_call: &dyn Fn(&str) -> bool,
        out: &mut Vec<Piece>,
    ) -> Fed {
        match c {
            '(' if self.format.is_pythonic() => {
                let mut parentheses = Parentheses::default();
                parentheses.push(c);
                // Llama's built-in tools are called so.
                let name = name.strip_suffix(".call").unwrap_or(&name).to_owned();
                self.state = State::Python {
                    name,
                    text: "(".to_owned(),
                    parentheses,
                };
                Fed::More
            }
            '[' if self.format.is_named() => {
                self.state = State::Marks {
                    name,
                    marks: "[".to_owned(),
                };
                Fed::More
            }
            '{' if self.format.is_named() => self.begin_named(name, may_call, out),
            _ => self.broken(),
        }
    }

    fn begin_named(
        &mut self,
        name: String,
        may_call: &dyn Fn(&str) -> bool,
        out: &mut Vec<Piece>,
    ) -> Fed {
        if !may_call(&name) {
            return self.broken();
        }
        out.push(Piece::CallStart { name });
        push_arguments(out, "{");
        self.state = State::Named {
            depth: 1,
            quoted: false,
            escaped: false,
        };
        Fed::More
    }

    fn between(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Fed {
        match c {
            c if c.is_whitespace() => Fed::More,
            ',' | ';' if self.list || self.format == ToolFormat::BareJson => {
                self.state = State::Before;
                Fed::More
            }
            ']' if self.list => self.list_ended(),
            '{' if !self.list => {
                self.state = State::Before;
                self.before(c, may_call, out)
            }
            c if self.format == ToolFormat::ToolCode && (c.is_alphabetic() || c == '_') => {
                self.state = State::Before;
                self.before(c, may_call, out)
            }
            c => self.tail(c, may_call, out),
        }
    }

    /// After the last call: `c` begins the closer, or is text.
    fn tail(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Fed {
        self.state = State::Tail(String::new());
        self.raw.clear();
        self.step(c, may_call, out)
    }

    /// A call is whole.
    fn called(&mut self) -> Fed {
        self.calls += 1;
        self.raw.clear();
        self.state = State::Between;
        // Where one opener has one call and nothing closes it, it ends here.
        if self.format == ToolFormat::MistralArgs && !self.list {
            return Fed::Done(String::new());
        }
        Fed::More
    }

    fn list_ended(&mut self) -> Fed {
        self.raw.clear();
        if self.format.closer().is_empty() {
            return Fed::Done(String::new());
        }
        self.state = State::Tail(String::new());
        Fed::More
    }

    fn broken(&mut self) -> Fed {
        Fed::Broken(std::mem::take(&mut self.raw))
    }
}

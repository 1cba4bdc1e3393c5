//! One call as a JSON object, `{"name":…,"arguments":…}`, read character by
//! character. `parameters` is another name for `arguments`.

use super::splitter::{Piece, push_arguments};

/// What a character did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More is to come.
    More,
    /// The call is whole.
    End,
    /// This is no call, or no longer one; the character belongs to what follows.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the object's brace.
    Open,
    /// A key or the end.
    Key,
    InKey,
    Colon,
    Value,
    InText,
    InNested,
    InScalar,
    AfterValue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Name,
    Arguments,
    Other,
}

/// The reader of one object.
pub(super) struct ObjectCall {
    state: State,
    role: Role,
    /// The key or value that is being read, as written.
    text: String,
    escaped: bool,
    quoted: bool,
    depth: u32,
    name: Option<String>,
    /// Arguments that came before the name.
    waiting: Option<String>,
    /// The name went out; arguments follow it as they grow.
    begun: bool,
    /// Arguments have gone out.
    given: bool,
}

impl ObjectCall {
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            role: Role::Other,
            text: String::new(),
            escaped: false,
            quoted: false,
            depth: 0,
            name: None,
            waiting: None,
            begun: false,
            given: false,
        }
    }

    /// Whether the call's name went out, so that it cannot be taken back.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Reads one character. `may_call`: whether a call of this name is one.
    pub(super) fn push(
        &mut self,
        c: char,
        may_call: &dyn Fn(&str) -> bool,
        out: &mut Vec<Piece>,
    ) -> Step {
        match self.state {
            State::Open if c == '{' => self.go(State::Key),
            State::Open => Step::Broken,
            State::Key if c.is_whitespace() => Step::More,
            State::Key if c == '"' => {
                self.text.clear();
                self.text.push(c);
                self.go(State::InKey)
            }
            State::Key if c == '}' => self.end(may_call, out),
            State::Key => Step::Broken,
            State::InKey => {
                if !self.text_goes_on(c) {
                    self.role = match self.text.as_str() {
                        "\"name\"" => Role::Name,
                        "\"arguments\"" | "\"parameters\"" => Role::Arguments,
                        _ => Role::Other,
                    };
                    self.state = State::Colon;
                }
                Step::More
            }
            State::Colon if c.is_whitespace() => Step::More,
            State::Colon if c == ':' => self.go(State::Value),
            State::Colon => Step::Broken,
            State::Value if c.is_whitespace() => Step::More,
            State::Value => self.value(c, may_call, out),
            State::InText => {
                if self.text_goes_on(c) {
                    Step::More
                } else {
                    self.value_ended(may_call, out)
                }
            }
            State::InNested => self.nested(c, may_call, out),
            State::InScalar => {
                if matches!(c, ',' | '}') || c.is_whitespace() {
                    match self.value_ended(may_call, out) {
                        Step::More => self.push(c, may_call, out),
                        other => other,
                    }
                } else if is_json(c) {
                    self.text.push(c);
                    Step::More
                } else {
                    Step::Broken
                }
            }
            State::AfterValue if c.is_whitespace() => Step::More,
            State::AfterValue if c == ',' => self.go(State::Key),
            State::AfterValue if c == '}' => self.end(may_call, out),
            State::AfterValue => Step::Broken,
        }
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    /// Adds a character to a JSON string; `false` when it closed the string.
    fn text_goes_on(&mut self, c: char) -> bool {
        self.text.push(c);
        if self.escaped {
            self.escaped = false;
        } else if c == '\\' {
            self.escaped = true;
        } else if c == '"' {
            return false;
        }
        true
    }

    fn value(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Step {
        self.text.clear();
        self.text.push(c);
        match c {
            '"' => self.go(State::InText),
            '{' | '[' => {
                self.depth = 1;
                self.state = State::InNested;
                if self.role == Role::Arguments && self.name.is_some() && !self.given {
                    if !self.begin(may_call, out) {
                        return Step::Broken;
                    }
                    push_arguments(out, &self.text);
                }
                Step::More
            }
            c if is_json(c) && !matches!(c, '}' | ']' | ':' | ',') => self.go(State::InScalar),
            _ => Step::Broken,
        }
    }

    fn nested(&mut self, c: char, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Step {
        if !self.quoted && !is_json(c) && c != '"' {
            return Step::Broken;
        }
        if self.is_streaming() {
            push_arguments(out, c.encode_utf8(&mut [0; 4]));
        } else if self.role == Role::Arguments {
            self.text.push(c);
        }
        if self.escaped {
            self.escaped = false;
        } else if self.quoted {
            match c {
                '\\' => self.escaped = true,
                '"' => self.quoted = false,
                _ => {}
            }
        } else {
            match c {
                '"' => self.quoted = true,
                '{' | '[' => self.depth += 1,
                '}' | ']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return self.value_ended(may_call, out);
                    }
                }
                _ => {}
            }
        }
        Step::More
    }

    fn is_streaming(&self) -> bool {
        self.begun && self.role == Role::Arguments && !self.given
    }

    fn value_ended(&mut self, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Step {
        let nested = self.state == State::InNested;
        self.state = State::AfterValue;
        match self.role {
            Role::Other => {}
            Role::Name if self.begun => {}
            Role::Name => match serde_json::from_str::<String>(&self.text) {
                Ok(name) if !name.is_empty() => self.name = Some(name),
                _ => return Step::Broken,
            },
            Role::Arguments if self.given => {}
            Role::Arguments if self.begun && nested => self.given = true,
            Role::Arguments => {
                let text = std::mem::take(&mut self.text);
                self.waiting = Some(match text.as_str() {
                    "null" => "{}".to_owned(),
                    // Some models write the arguments as a string of JSON.
                    _ => serde_json::from_str::<String>(&text).unwrap_or(text),
                });
            }
        }
        if self.name.is_some() && self.waiting.is_some() && !self.given {
            if !self.begin(may_call, out) {
                return Step::Broken;
            }
            if let Some(arguments) = self.waiting.take() {
                push_arguments(out, &arguments);
            }
            self.given = true;
        }
        Step::More
    }

    /// The call's name goes out.
    fn begin(&mut self, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> bool {
        if self.begun {
            return true;
        }
        match self.name.clone().filter(|name| may_call(name)) {
            Some(name) => {
                out.push(Piece::CallStart { name });
                self.begun = true;
                true
            }
            None => false,
        }
    }

    fn end(&mut self, may_call: &dyn Fn(&str) -> bool, out: &mut Vec<Piece>) -> Step {
        if !self.begin(may_call, out) {
            return Step::Broken;
        }
        if !self.given {
            push_arguments(out, "{}");
        }
        out.push(Piece::CallEnd);
        Step::End
    }
}

/// Whether a character can stand outside of strings in JSON.
pub(super) fn is_json(c: char) -> bool {
    matches!(c, '{' | '}' | '[' | ']' | ':' | ',' | '-' | '+' | '.')
        || c.is_ascii_alphanumeric()
        || c.is_ascii_whitespace()
}

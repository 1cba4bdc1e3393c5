//! Calls written as Python: `name(key="value", n=1, flags=[True, None])`.

use serde_json::{Map, Value};

/// How deep values may be nested.
const MAX_DEPTH: u32 = 32;

/// Keeps track of where a call's closing parenthesis is, character by character.
#[derive(Default)]
pub(super) struct Parentheses {
    depth: u32,
    quote: Option<char>,
    escaped: bool,
}

impl Parentheses {
    /// Reads one character; `true` when it closed the first one that was opened.
    pub(super) fn push(&mut self, c: char) -> bool {
        if self.escaped {
            self.escaped = false;
        } else if let Some(quote) = self.quote {
            match c {
                '\\' => self.escaped = true,
                c if c == quote => self.quote = None,
                _ => {}
            }
        } else {
            match c {
                '"' | '\'' => self.quote = Some(c),
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    return self.depth == 0;
                }
                _ => {}
            }
        }
        false
    }
}

/// The arguments of `(key=value, …)` as a JSON object; `None` when they are not
/// all named, or not values that JSON has.
pub(super) fn arguments(text: &str) -> Option<String> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
    };
    let mut out = Map::new();
    reader.expect('(')?;
    reader.skip();
    while !reader.take(')') {
        let name = reader.identifier()?;
        reader.skip();
        reader.expect('=')?;
        let value = reader.value(0)?;
        out.insert(name, value);
        reader.skip();
        if !reader.take(',') {
            reader.expect(')')?;
            break;
        }
        reader.skip();
    }
    (reader.at == reader.chars.len()).then(|| Value::Object(out).to_string())
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.take(c).then_some(())
    }

    fn identifier(&mut self) -> Option<String> {
        let from = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        (self.at > from).then(|| self.chars[from..self.at].iter().collect())
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip();
        match self.peek()? {
            '"' | '\'' => self.text().map(Value::String),
            '[' => self.list(']', depth),
            // A tuple is a list in JSON.
            '(' => self.list(')', depth),
            '{' => self.dictionary(depth),
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            _ => match self.identifier()?.as_str() {
                "True" | "true" => Some(Value::Bool(true)),
                "False" | "false" => Some(Value::Bool(false)),
                "None" | "null" => Some(Value::Null),
                _ => None,
            },
        }
    }

    fn list(&mut self, close: char, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip();
        while !self.take(close) {
            items.push(self.value(depth + 1)?);
            self.skip();
            if !self.take(',') {
                self.expect(close)?;
                break;
            }
            self.skip();
        }
        Some(Value::Array(items))
    }

    fn dictionary(&mut self, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut map = Map::new();
        self.skip();
        while !self.take('}') {
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                _ => return None,
            };
            self.skip();
            self.expect(':')?;
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            self.skip();
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
            self.skip();
        }
        Some(Value::Object(map))
    }

    fn number(&mut self) -> Option<Value> {
        let from = self.at;
        while self
            .peek()
            .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_'))
        {
            self.at += 1;
        }
        let text: String = self.chars[from..self.at]
            .iter()
            .filter(|c| **c != '_')
            .collect();
        let text = text.trim_start_matches('+');
        if let Ok(number) = serde_json::from_str::<serde_json::Number>(text) {
            return Some(Value::Number(number));
        }
        // `1.` and `.5` are numbers in Python alone.
        let number: f64 = text.parse().ok()?;
        serde_json::Number::from_f64(number).map(Value::Number)
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.peek()?;
        self.at += 1;
        let mut out = String::new();
        loop {
            let c = self.peek()?;
            self.at += 1;
            match c {
                c if c == quote => return Some(out),
                '\\' => out.push_str(&self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<String> {
        let c = self.peek()?;
        self.at += 1;
        let simple = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'x' => return char::from_u32(self.hex(2)?).map(String::from),
            'U' => return char::from_u32(self.hex(8)?).map(String::from),
            'u' => return self.unicode().map(String::from),
            '\n' => return Some(String::new()),
            '\\' | '"' | '\'' | '/' => c,
            // Python keeps the backslash of an escape that it does not know.
            other => return Some(format!("\\{other}")),
        };
        Some(simple.to_string())
    }

    /// `\uXXXX`, and JSON's pair of them.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first);
        }
        self.expect('\\')?;
        self.expect('u')?;
        let second = self.hex(4)?;
        let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + low)
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text: String = self.chars.iter().skip(self.at).take(digits).collect();
        if text.chars().count() < digits {
            return None;
        }
        self.at += digits;
        u32::from_str_radix(&text, 16).ok()
    }
}

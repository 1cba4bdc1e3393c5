//! llama.cpp's GBNF as Lark: the same rules in another spelling.
//!
//! Source: llama.cpp's `grammars/README.md`. Rules whose names begin with a
//! small letter are rules in Lark, so every name gets a prefix; `root` becomes
//! `start`.

/// Not GBNF. `problem` quotes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GbnfError {
    /// Counted from 1.
    pub(super) line: usize,
    /// What was wanted.
    pub(super) problem: &'static str,
}

/// Lark defines rules with `:`, GBNF with `::=`.
pub(super) fn is_gbnf(text: &str) -> bool {
    text.contains("::=")
}

/// Rewrites a grammar.
///
/// # Errors
/// The first place that is not GBNF.
pub(super) fn to_lark(text: &str) -> Result<String, GbnfError> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
    };
    let mut out = String::new();
    let mut any_root = false;
    reader.skip(true);
    while reader.peek().is_some() {
        let name = reader.name()?;
        reader.skip(true);
        if !reader.take("::=") {
            return Err(reader.error("a rule is a name, ::= and its body"));
        }
        any_root |= name == "root";
        out.push_str(&rule_name(&name));
        out.push_str(": ");
        reader.body(&mut out, 0)?;
        out.push('\n');
        reader.skip(true);
    }
    if any_root {
        Ok(out)
    } else {
        Err(reader.error("there must be a rule 'root'"))
    }
}

fn rule_name(name: &str) -> String {
    if name == "root" {
        return "start".to_owned();
    }
    // `a-b` and `a_b` are two rules.
    let name = name.replace('_', "__").replace('-', "_");
    format!("r_{}", name.to_lowercase())
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn error(&self, problem: &'static str) -> GbnfError {
        let until = self.at.min(self.chars.len());
        GbnfError {
            line: 1 + self.chars[..until].iter().filter(|c| **c == '\n').count(),
            problem,
        }
    }

    fn take(&mut self, text: &str) -> bool {
        let matches = text
            .chars()
            .enumerate()
            .all(|(index, c)| self.chars.get(self.at + index) == Some(&c));
        if matches {
            self.at += text.chars().count();
        }
        matches
    }

    /// Skips white space and comments.
    fn skip(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                '\n' | '\r' if !lines => return,
                c if c.is_whitespace() => self.at += 1,
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<String, GbnfError> {
        let from = self.at;
        while self
            .peek()
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            self.at += 1;
        }
        if self.at == from {
            return Err(self.error("a rule's name was expected"));
        }
        Ok(self.chars[from..self.at].iter().collect())
    }

    /// Whether the next rule begins here: a name and `::=`.
    fn at_rule(&mut self) -> bool {
        let from = self.at;
        let begins = self.name().is_ok() && {
            self.skip(true);
            self.take("::=")
        };
        self.at = from;
        begins
    }

    /// Alternatives and sequences, up to the end of the rule or the group.
    fn body(&mut self, out: &mut String, depth: usize) -> Result<(), GbnfError> {
        if depth > 64 {
            return Err(self.error("groups are nested too deeply"));
        }
        let mut empty = true;
        loop {
            self.skip(true);
            match self.peek() {
                None => break,
                Some(')') if depth > 0 => break,
                Some('|') => {
                    self.at += 1;
                    if empty {
                        out.push_str("\"\"");
                    }
                    out.push_str(" | ");
                    empty = true;
                    continue;
                }
                _ if self.at_rule() => break,
                Some('"') => self.text(out)?,
                Some('[') => self.class(out)?,
                Some('.') => {
                    self.at += 1;
                    out.push_str("/(?s:.)/");
                }
                Some('(') => {
                    self.at += 1;
                    out.push('(');
                    self.body(out, depth + 1)?;
                    if !self.take(")") {
                        return Err(self.error("a group is not closed"));
                    }
                    out.push(')');
                }
                Some(_) => {
                    let name = self.name()?;
                    out.push_str(&rule_name(&name));
                }
            }
            empty = false;
            self.repetition(out)?;
            out.push(' ');
        }
        if empty {
            out.push_str("\"\"");
        }
        Ok(())
    }

    fn repetition(&mut self, out: &mut String) -> Result<(), GbnfError> {
        match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.at += 1;
                out.push(c);
            }
            Some('{') => {
                let from = self.at;
                while self.peek().is_some_and(|c| c != '}') {
                    self.at += 1;
                }
                self.at += 1;
                let range: String = self.chars[from..self.at.min(self.chars.len())]
                    .iter()
                    .collect();
                if !range.ends_with('}')
                    || range.contains(|c: char| !"{},".contains(c) && !c.is_ascii_digit())
                {
                    return Err(self.error("a repetition is {m}, {m,} or {m,n}"));
                }
                out.push_str(&range);
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, out: &mut String) -> Result<(), GbnfError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                None | Some('\n') => return Err(self.error("a text is not closed")),
                Some(_) => text.push(self.character()?),
            }
        }
        self.at += 1;
        out.push_str(&super::lark::literal(&text));
        Ok(())
    }

    /// One character, which may be written with an escape.
    fn character(&mut self) -> Result<char, GbnfError> {
        let c = self
            .peek()
            .ok_or_else(|| self.error("the grammar ends too early"))?;
        self.at += 1;
        if c != '\\' {
            return Ok(c);
        }
        let escaped = self
            .peek()
            .ok_or_else(|| self.error("the grammar ends too early"))?;
        self.at += 1;
        let digits = match escaped {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Ok(other),
        };
        let hex: String = self.chars.iter().skip(self.at).take(digits).collect();
        self.at += digits;
        u32::from_str_radix(&hex, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(|| self.error("an escape names no character"))
    }

    fn class(&mut self, out: &mut String) -> Result<(), GbnfError> {
        self.at += 1;
        out.push_str("/[");
        if self.take("^") {
            out.push('^');
        }
        loop {
            match self.peek() {
                Some(']') => break,
                None => return Err(self.error("a set of characters is not closed")),
                Some('-') => {
                    self.at += 1;
                    // A range, or at either end the character itself.
                    let range = self.peek() != Some(']') && !out.ends_with(['[', '^']);
                    out.push_str(if range { "-" } else { "\\-" });
                }
                Some(_) => {
                    let c = self.character()?;
                    out.push_str(&format!("\\u{{{:X}}}", u32::from(c)));
                }
            }
        }
        self.at += 1;
        out.push_str("]/");
        Ok(())
    }
}

//! Texts that must not occur, in requests and in answers as they stream.

use std::sync::Arc;

use nearfar_domain::events::Event;
use regex::Regex;

use crate::config::guard::{Form, Pattern, compile};

/// Patterns that were compiled.
pub(super) struct Patterns(Vec<(String, Regex)>);

impl Patterns {
    /// `None` where there are none.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Option<Self> {
        let compiled: Vec<(String, Regex)> = patterns
            .filter_map(|pattern| {
                let regex = match &pattern.form {
                    Form::Text(text) => compile(&format!("(?i){}", regex::escape(text))),
                    Form::Regex(regex) => compile(regex),
                };
                // The configuration was checked: they compile.
                Some((pattern.name.clone(), regex.ok()?))
            })
            .collect();
        (!compiled.is_empty()).then_some(Self(compiled))
    }

    /// The name of the first pattern that occurs.
    pub(super) fn find(&self, text: &str) -> Option<&str> {
        let found = self.0.iter().find(|(_, regex)| regex.is_match(text));
        found.map(|(name, _)| name.as_str())
    }
}

/// Of each stretch of an answer this many bytes are kept: what is longer is
/// found only within one piece.
const WINDOW: usize = 1024;

/// Looks at one answer as it streams.
pub(crate) struct Watch {
    patterns: Arc<Patterns>,
    content: String,
    reasoning: String,
    arguments: String,
    /// The tool call under way.
    call: u32,
}

impl Watch {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        Self {
            patterns,
            content: String::new(),
            reasoning: String::new(),
            arguments: String::new(),
            call: 0,
        }
    }

    /// The name of the pattern that this event completes. What was sent before
    /// is not taken back.
    pub(crate) fn see(&mut self, event: &Event) -> Option<String> {
        let (tail, piece) = match event {
            Event::Content(text) => (&mut self.content, text),
            Event::Reasoning(text) => (&mut self.reasoning, text),
            Event::ToolCall(delta) => {
                if delta.index != self.call {
                    self.call = delta.index;
                    self.arguments.clear();
                }
                (&mut self.arguments, &delta.arguments)
            }
            _ => return None,
        };
        tail.push_str(piece);
        let found = self.patterns.find(tail).map(str::to_owned);
        if tail.len() > WINDOW {
            let mut from = tail.len() - WINDOW;
            while !tail.is_char_boundary(from) {
                from += 1;
            }
            tail.drain(..from);
        }
        found
    }
}

/// Whether a name fits a pattern in which `*` stands for anything. Goes back to
/// the last `*` only, so it takes at most the product of both lengths.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star, from)) = &mut back {
            *from += 1;
            (p, n) = (*star + 1, *from);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|sign| *sign == b'*')
}

//! Puts identifiers back into an answer, as it streams.

use std::collections::VecDeque;
use std::sync::Arc;

use super::vault::{MAX_PLACEHOLDER, Vault};
use crate::events::{Event, Signed, ToolCallDelta};

/// Restores the answer of one leg. Holds back the end of a piece only while it
/// is the beginning of a placeholder that the request has.
pub struct Restorer {
    vault: Arc<Vault>,
    /// Whether the answer's text is JSON.
    json: bool,
    content: String,
    reasoning: String,
    /// The tool call under way: its index, and what is held back of it.
    call: Option<(u32, String)>,
}

impl Restorer {
    /// For one leg's answer. `json` says that its text was asked for as JSON,
    /// where values are written with JSON's escapes, as in tool calls.
    pub fn new(vault: Arc<Vault>, json: bool) -> Self {
        Self {
            vault,
            json,
            content: String::new(),
            reasoning: String::new(),
            call: None,
        }
    }

    /// Takes the leg's next event; what may be shown by now goes to `out`. What
    /// is held back when a leg fails is dropped: nobody saw it, and the leg that
    /// goes on begins before it.
    pub fn push(&mut self, event: Event, out: &mut VecDeque<Event>) {
        match event {
            Event::Content(text) => {
                self.end_reasoning(out);
                self.end_call(out);
                self.content.push_str(&text);
                let ready = ready(&self.vault, &mut self.content, self.json, false);
                out.extend(shown(ready).map(Event::Content));
            }
            Event::Reasoning(text) => {
                self.end_content(out);
                self.reasoning.push_str(&text);
                let ready = ready(&self.vault, &mut self.reasoning, false, false);
                out.extend(shown(ready).map(Event::Reasoning));
            }
            Event::ToolCall(delta) => self.tool_call(delta, out),
            Event::StoppedBy(text) => {
                self.end(out);
                let mut text = text;
                out.push_back(Event::StoppedBy(ready(
                    &self.vault,
                    &mut text,
                    self.json,
                    true,
                )));
            }
            Event::Signature { ref of, .. } => {
                if matches!(of, Signed::Thought { .. }) {
                    self.end_reasoning(out);
                }
                out.push_back(event);
            }
            Event::Finished { .. } => {
                self.end(out);
                out.push_back(event);
            }
            other => out.push_back(other),
        }
    }

    fn tool_call(&mut self, delta: ToolCallDelta, out: &mut VecDeque<Event>) {
        self.end_content(out);
        self.end_reasoning(out);
        if self
            .call
            .as_ref()
            .is_some_and(|(index, _)| *index != delta.index)
        {
            self.end_call(out);
        }
        let (_, held) = self
            .call
            .get_or_insert_with(|| (delta.index, String::new()));
        held.push_str(&delta.arguments);
        let arguments = ready(&self.vault, held, true, false);
        if delta.name.is_some() || delta.id.is_some() || !arguments.is_empty() {
            out.push_back(Event::ToolCall(ToolCallDelta { arguments, ..delta }));
        }
    }

    fn end(&mut self, out: &mut VecDeque<Event>) {
        self.end_reasoning(out);
        self.end_content(out);
        self.end_call(out);
    }

    // What is held back when its stretch ends was no placeholder after all.

    fn end_content(&mut self, out: &mut VecDeque<Event>) {
        out.extend(shown(std::mem::take(&mut self.content)).map(Event::Content));
    }

    fn end_reasoning(&mut self, out: &mut VecDeque<Event>) {
        out.extend(shown(std::mem::take(&mut self.reasoning)).map(Event::Reasoning));
    }

    fn end_call(&mut self, out: &mut VecDeque<Event>) {
        if let Some((index, arguments)) = self.call.take()
            && !arguments.is_empty()
        {
            let (id, name) = (None, None);
            out.push_back(Event::ToolCall(ToolCallDelta {
                index,
                id,
                name,
                arguments,
            }));
        }
    }
}

fn shown(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Takes out of `held` all that is settled, restored. With `last` everything is.
fn ready(vault: &Vault, held: &mut String, json: bool, last: bool) -> String {
    let mut out = String::with_capacity(held.len());
    let mut rest = held.as_str();
    let kept = loop {
        let Some(open) = rest.find('[') else {
            out.push_str(rest);
            break "";
        };
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        // Only ASCII can be a placeholder's, so the cut is on a character.
        let mut window = from.len().min(MAX_PLACEHOLDER);
        while !from.is_char_boundary(window) {
            window -= 1;
        }
        let close = from[..window].find(']');
        if let Some(close) = close
            && let Some(value) = vault.value_of(&from[..=close])
        {
            if json {
                escape(value, &mut out);
            } else {
                out.push_str(value);
            }
            rest = &from[close + 1..];
        } else if close.is_none() && !last && vault.begins(from) {
            break from;
        } else {
            out.push('[');
            rest = &from[1..];
        }
    };
    *held = kept.to_owned();
    out
}

/// A value as it stands between a JSON string's quotes.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let code = u32::from(c);
                out.push_str(&format!("\\u{code:04x}"));
            }
            c => out.push(c),
        }
    }
}

//! What makes two requests the same: a hash over everything that may change the
//! answer, under a key that is drawn anew at each start.
//!
//! What goes in: the tenant, the ceiling, what is done about identifiers, the
//! model that was asked for and the side, every turn, tools, form and parameters,
//! and fields that are passed on unread. What stays out, because it changes when and where and not what:
//! whether the answer is streamed, the dialect, deadlines, cost limits, priority,
//! the conversation's name, and marks for a provider's own prompt cache.
//!
//! Each field is written with its length before it, so that no two requests run
//! together into the same bytes. Structures are taken apart by name: a new field
//! does not compile until somebody has thought about it here.

use nearfar_domain::chat::{
    Chat, Message, Params, Part, Prompt, ResponseFormat, Role, Tool, ToolCall, ToolChoice,
};
use nearfar_domain::embed::{Input, Inputs, Purpose};
use nearfar_domain::guard::Kinds;
use nearfar_domain::privacy::Zone;
use nearfar_domain::route::{ModelChoice, Side};
use nearfar_domain::thought::{Signature, Thought};

use super::near::Words;

/// The hash of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// What the hash is keyed with.
pub(super) struct Secret([u8; 32]);

impl Secret {
    /// `None` without randomness.
    pub(super) fn draw() -> Option<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).ok().map(|()| Self(secret))
    }
}

/// What no answer crosses, beside the request itself.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Whose request it is.
    pub tenant: &'a str,
    /// The farthest zone that it may reach.
    pub ceiling: Zone,
    /// Whether it asked that identifiers be replaced before it leaves.
    pub redact: bool,
    /// The kinds that are replaced.
    pub kinds: Kinds,
    /// The model that was asked for.
    pub model: &'a ModelChoice,
    /// The side that was asked for.
    pub side: Side,
}

/// The request as it stands.
pub(super) fn exact(secret: &Secret, scope: &Scope<'_>, chat: &Chat) -> Key {
    let mut hash = Hash::new(secret, "exact");
    hash.scope(scope);
    hash.chat(chat, None);
    hash.done()
}

/// All of a request but its last turn, and the numbers in that: what must be the
/// same for two questions that mean the same. `None` for requests whose answer
/// is no plain text, or depends on more than text.
pub(super) fn bucket(
    secret: &Secret,
    scope: &Scope<'_>,
    feature: &str,
    chat: &Chat,
) -> Option<(Key, Words)> {
    let question = question(chat)?;
    let mut hash = Hash::new(secret, "bucket");
    hash.text(feature);
    hash.scope(scope);
    let Prompt::Turns(turns) = &chat.prompt else {
        return None;
    };
    hash.chat(chat, Some(turns.len() - 1));
    hash.list(figures(question));
    Some((hash.done(), words(secret, question)))
}

/// The question, where it is one of text alone that asks for text alone.
fn question(chat: &Chat) -> Option<&str> {
    let plain = chat.tools.is_empty()
        && chat.response_format == ResponseFormat::Text
        && chat.params.logprobs.is_none()
        && !chat.has_images();
    let Prompt::Turns(turns) = &chat.prompt else {
        return None;
    };
    let last = turns.last().filter(|last| last.role == Role::User)?;
    match last.content.as_slice() {
        [Part::Text(text)] if plain && last.name.is_none() => Some(text),
        _ => None,
    }
}

fn words(secret: &Secret, text: &str) -> Words {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty()).map(str::to_lowercase);
    let mut words: Vec<String> = words.collect();
    let number = |words: &[String]| {
        let mut hash = Hash::new(secret, "words");
        hash.list(words.iter().cloned());
        let Key(bytes) = hash.done();
        bytes
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let in_order = number(&words);
    words.sort_unstable();
    Words {
        in_order,
        in_any_order: number(&words),
    }
}

/// The words of a text that hold a digit, in lower case and in order: a room, a
/// date or a sum makes another question, however near the vectors are.
fn figures(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().any(char::is_numeric))
        .map(str::to_lowercase)
}

struct Hash(blake3::Hasher);

impl Hash {
    fn new(secret: &Secret, what: &str) -> Self {
        let mut hash = Self(blake3::Hasher::new_keyed(&secret.0));
        hash.text(what);
        hash
    }

    fn done(self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn maybe_text(&mut self, text: Option<&String>) {
        self.maybe(text, |hash, text| hash.text(text));
    }

    fn maybe_number(&mut self, number: Option<u64>) {
        self.maybe(number, Self::number);
    }

    fn float(&mut self, number: f32) {
        // Both zeros are one.
        let number = if number == 0.0 { 0.0 } else { number };
        self.number(u64::from(number.to_bits()));
    }

    fn maybe_float(&mut self, number: Option<f32>) {
        self.maybe(number, Self::float);
    }

    fn list(&mut self, texts: impl Iterator<Item = String>) {
        for text in texts {
            self.flag(true);
            self.text(&text);
        }
        self.flag(false);
    }

    fn scope(&mut self, scope: &Scope<'_>) {
        let Scope {
            tenant,
            ceiling,
            redact,
            kinds,
            model,
            side,
        } = scope;
        self.text(tenant);
        self.text(ceiling.as_str());
        self.flag(*redact);
        self.list(kinds.iter().map(|kind| kind.as_str().to_owned()));
        // A choice's Debug is its kind and the target's whole name.
        self.text(&format!("{model:?} {side:?}"));
    }

    /// `but` leaves out the content of the turn at this place.
    fn chat(&mut self, chat: &Chat, but: Option<usize>) {
        let Chat {
            prompt,
            tools,
            tool_cache_marks: _,
            tool_choice,
            response_format,
            params,
            passthrough,
            passthrough_of,
        } = chat;
        match prompt {
            Prompt::Turns(turns) => {
                self.text("turns");
                self.number(turns.len() as u64);
                for (at, turn) in turns.iter().enumerate() {
                    self.turn(turn, but == Some(at));
                }
            }
            Prompt::Text(text) => {
                self.text("text");
                self.text(text);
            }
            Prompt::Inputs(inputs) => self.inputs(inputs),
        }
        self.number(tools.len() as u64);
        for tool in tools {
            let Tool {
                name,
                description,
                parameters,
                strict,
            } = tool;
            self.text(name);
            self.maybe_text(description.as_ref());
            self.maybe_text(parameters.as_ref());
            self.maybe(*strict, Self::flag);
        }
        match tool_choice {
            ToolChoice::Auto => self.text("auto"),
            ToolChoice::None => self.text("none"),
            ToolChoice::Required => self.text("required"),
            ToolChoice::Named(name) => {
                self.text("named");
                self.text(name);
            }
        }
        self.format(response_format);
        self.params(params);
        if !passthrough.is_empty() {
            self.text(passthrough_of.as_str());
        }
        self.text(passthrough);
    }

    fn turn(&mut self, turn: &Message, but_content: bool) {
        let Message {
            role,
            content,
            name,
            reasoning,
            thoughts,
            cache_marks: _,
            tool_calls,
            tool_call_id,
            tool_failed,
        } = turn;
        self.text(role.as_str());
        self.flag(but_content);
        if !but_content {
            self.number(content.len() as u64);
            for part in content {
                match part {
                    Part::Text(text) => {
                        self.text("text");
                        self.text(text);
                    }
                    Part::Image { url, detail } => {
                        self.text("image");
                        self.text(url);
                        self.maybe_text(detail.as_ref());
                    }
                }
            }
        }
        self.maybe_text(name.as_ref());
        self.maybe_text(reasoning.as_ref());
        self.number(thoughts.len() as u64);
        for thought in thoughts {
            let Thought {
                text,
                signature,
                redacted,
                id,
                after,
            } = thought;
            self.text(text);
            self.maybe(signature.as_ref(), Self::signature);
            self.flag(*redacted);
            self.maybe_text(id.as_ref());
            self.number(u64::from(*after));
        }
        self.number(tool_calls.len() as u64);
        for call in tool_calls {
            let ToolCall {
                id,
                name,
                arguments,
                signature,
            } = call;
            self.text(id);
            self.text(name);
            self.text(arguments);
            self.maybe(signature.as_ref(), Self::signature);
        }
        self.maybe_text(tool_call_id.as_ref());
        self.flag(*tool_failed);
    }

    fn signature(&mut self, signature: &Signature) {
        self.text(signature.origin.as_str());
        self.text(&signature.data);
    }

    fn inputs(&mut self, inputs: &Inputs) {
        let Inputs {
            items,
            dimensions,
            purpose,
        } = inputs;
        self.text("inputs");
        self.number(items.len() as u64);
        for item in items {
            match item {
                Input::Text(text) => {
                    self.text("text");
                    self.text(text);
                }
                Input::Tokens(tokens) => {
                    self.text("tokens");
                    self.number(tokens.len() as u64);
                    for token in tokens {
                        self.number(u64::from(*token));
                    }
                }
            }
        }
        self.maybe_number(dimensions.map(u64::from));
        self.text(match purpose {
            None => "",
            Some(Purpose::Query) => "query",
            Some(Purpose::Document) => "document",
        });
    }

    fn format(&mut self, format: &ResponseFormat) {
        match format {
            ResponseFormat::Text => self.text("text"),
            ResponseFormat::JsonObject => self.text("json"),
            ResponseFormat::JsonSchema {
                name,
                schema,
                strict,
            } => {
                self.text("schema");
                self.text(name);
                self.text(schema);
                self.maybe(*strict, Self::flag);
            }
            ResponseFormat::Regex(regex) => {
                self.text("regex");
                self.text(regex);
            }
            ResponseFormat::Choice(choices) => {
                self.text("choice");
                self.list(choices.iter().cloned());
            }
            ResponseFormat::Grammar(grammar) => {
                self.text("grammar");
                self.text(grammar);
            }
        }
    }

    fn params(&mut self, params: &Params) {
        let Params {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            seed,
            logit_bias,
            logprobs,
            max_tokens,
            stop,
            parallel_tool_calls,
            reasoning_effort,
            enable_thinking,
            thinking_tokens,
        } = params;
        for number in [
            temperature,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
        ] {
            self.maybe_float(*number);
        }
        for number in [top_k, max_tokens, thinking_tokens] {
            self.maybe_number(number.map(u64::from));
        }
        self.maybe_number(seed.map(i64::cast_unsigned));
        self.maybe_number(logprobs.map(u64::from));
        self.number(logit_bias.len() as u64);
        for (token, bias) in logit_bias {
            self.number(u64::from(*token));
            self.float(*bias);
        }
        self.list(stop.iter().cloned());
        self.maybe(*parallel_tool_calls, Self::flag);
        self.maybe_text(reasoning_effort.as_ref());
        self.maybe(*enable_thinking, Self::flag);
    }
}

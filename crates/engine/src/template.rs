//! Chat templates: a conversation as the text that the model was trained on.
//!
//! The template comes from the model file and is foreign code. It runs in
//! minijinja with fuel, a recursion limit and no access to anything but its
//! input, in an environment like Hugging Face's `apply_chat_template`.
//!
//! Content may contain the text of a control token. A
//! sentinel inside such text keeps it from being read as that token; the
//! sentinel is taken out again before text becomes tokens ([`Rendered`]).

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use nearfar_domain::chat::{Chat, Message, Prompt, Role, ToolChoice};
use serde_json::{Map, Value, json};

use crate::gguf::LoadError;

/// Enough for conversations of some megabytes; a loop without end stops in
/// well under a second.
const FUEL: u64 = 20_000_000;
/// The longest prompt that is worth rendering, in bytes.
const MAX_RENDERED: usize = 64 << 20;
/// A noncharacter: valid in a string, never in text that means something.
pub(crate) const SENTINEL: char = '\u{fdd0}';

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// A rendered prompt, cut into parts that may and may not contain control tokens.
pub struct Rendered {
    text: String,
}

impl Rendered {
    /// The text with the sentinels still in it: what control tokens are found in.
    pub fn marked(&self) -> &str {
        &self.text
    }

    /// The text as the model reads it.
    pub fn text(&self) -> String {
        self.text.replace(SENTINEL, "")
    }

    /// Goes on with text from outside of the template; control tokens in it stay text.
    pub fn push_content(&mut self, text: &str, control_texts: &[String]) {
        self.text.push_str(&guard(text.to_owned(), control_texts));
    }

    /// Goes on with text as the template could have written it.
    pub fn push_template_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Whether any content had to be marked.
    pub fn is_marked(&self) -> bool {
        self.text.contains(SENTINEL)
    }
}

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template itself refused (`raise_exception`); its words are public.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed or ran out of fuel.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, LoadError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| {
                LoadError::Unsupported(format!("the template engine refuses its set-up: {error}"))
            })?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(64);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Refused))
            },
        );
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned("chat", without_generation_marks(source))
            .map_err(|error| {
                LoadError::key(
                    "tokenizer.chat_template",
                    format!("is not a valid template: {error}"),
                )
            })?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The template's text: what formats it knows is read off it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template does something with tools.
    pub fn knows_tools(&self) -> bool {
        self.source.contains("tools")
    }

    /// Renders a conversation with the opening of the model's turn.
    /// `control_texts` are texts that content must not be able to say;
    /// `today` is a date as `strftime_now` would print it with `%d %b %Y`.
    ///
    /// # Errors
    /// [`TemplateError`] when the template refuses or fails.
    pub fn render(
        &self,
        chat: &Chat,
        control_texts: &[String],
        today: &str,
    ) -> Result<Rendered, TemplateError> {
        let Prompt::Turns(turns) = &chat.prompt else {
            return Err(TemplateError::Failed("raw text has no template".to_owned()));
        };
        let mut messages: Vec<Value> = turns
            .iter()
            .map(|turn| message(turn, control_texts))
            .collect();
        let tools = (chat.tool_choice != ToolChoice::None && !chat.tools.is_empty())
            .then(|| tools(chat, control_texts));
        if let Some(tools) = &tools
            && self.source.contains("message['tools']")
        {
            give_tools_to_system(tools, &mut messages);
        }
        let mut extra = Map::new();
        let effort = chat.params.reasoning_effort.as_deref();
        // `minimal` is the least that every dialect has a word for: no reasoning
        // where the template has a switch for it.
        let thinking = chat
            .params
            .enable_thinking
            .or((effort == Some("minimal")).then_some(false));
        if let Some(thinking) = thinking {
            extra.insert("enable_thinking".to_owned(), json!(thinking));
        }
        if let Some(effort) = effort {
            extra.insert("reasoning_effort".to_owned(), json!(effort));
        }
        self.render_values(&messages, tools.as_ref(), true, extra, today)
    }

    /// Renders OpenAI-shaped messages and tools as they are. `extra` are further
    /// template variables.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_values(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        add_generation_prompt: bool,
        extra: Map<String, Value>,
        today: &str,
    ) -> Result<Rendered, TemplateError> {
        let template = self
            .environment
            .get_template("chat")
            .map_err(|error| TemplateError::Failed(error.to_string()))?;
        let today = today.to_owned();
        let now = move |format: String| -> String {
            // Templates ask for the day only; the engine has no clock of its own.
            if format.contains('H') || format.contains('M') {
                String::new()
            } else {
                today.clone()
            }
        };
        let input = context! {
            messages => minijinja::Value::from(Serde(messages)),
            tools => minijinja::Value::from(Serde(tools)),
            documents => (),
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.clone(),
            eos_token => self.eos.clone(),
            strftime_now => minijinja::Value::from_function(now),
            ..minijinja::Value::from(Serde(&extra))
        };
        let text = template.render(input).map_err(|error| {
            use std::error::Error as _;
            if error.source().is_some_and(|source| source.is::<Refused>()) {
                TemplateError::Refused(error.detail().unwrap_or("no reason given").to_owned())
            } else {
                // The kind only: details can quote the conversation.
                TemplateError::Failed(format!(
                    "{:?} in line {}",
                    error.kind(),
                    error.line().unwrap_or(0)
                ))
            }
        })?;
        if text.len() > MAX_RENDERED {
            return Err(TemplateError::Failed(format!(
                "the prompt is longer than {MAX_RENDERED} bytes"
            )));
        }
        Ok(Rendered { text })
    }
}

/// Marks an error as the template's own refusal.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

/// `{% generation %}` marks what is trained on; it means nothing when answering.
fn without_generation_marks(source: &str) -> String {
    let mut out = source.to_owned();
    for word in ["generation", "endgeneration"] {
        for (open, close) in [("{%-", "-%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%", "%}")] {
            let tag = format!("{open} {word} {close}");
            // An empty comment keeps the tag's trimming of white space.
            let comment = format!("{}{}", open.replace('%', "#"), close.replace('%', "#"));
            out = out.replace(&tag, &comment);
        }
    }
    out
}

/// Hugging Face's `tojson`: Python's `json.dumps(ensure_ascii=False)`.
fn tojson(value: minijinja::Value, kwargs: Kwargs) -> Result<minijinja::Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<minijinja::Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let value = serde_json::to_value(&value)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "the value has no JSON form"))?;
    let mut out = String::new();
    python_json(&value, indent, 0, &mut out);
    Ok(minijinja::Value::from_safe_string(out))
}

fn python_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(comma);
                }
                line(out, depth + 1);
                python_json(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(comma);
                }
                line(out, depth + 1);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                python_json(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// One turn as templates expect it. Content is a string: templates of models
/// without vision concatenate it. Whoever speaks, control tokens in it stay text.
fn message(turn: &Message, control_texts: &[String]) -> Value {
    let role = match turn.role {
        // Templates of local models know one name for instructions.
        Role::Developer => "system",
        role => role.as_str(),
    };
    let content = if turn.role == Role::Assistant {
        // Templates take the reasoning out of earlier answers by these marks.
        let others: Vec<String> = control_texts
            .iter()
            .filter(|text| !matches!(text.as_str(), "<think>" | "</think>"))
            .cloned()
            .collect();
        guard(turn.plain_text(), &others)
    } else {
        guard(turn.plain_text(), control_texts)
    };
    let mut out = json!({"role": role, "content": content});
    let mut set = |key: &str, text: &Option<String>| {
        if let Some(text) = text {
            out[key] = json!(guard(text.clone(), control_texts));
        }
    };
    set("name", &turn.name);
    set(
        "reasoning_content",
        &turn.reasoning_text().map(Cow::into_owned),
    );
    set("tool_call_id", &turn.tool_call_id);
    if !turn.tool_calls.is_empty() {
        let calls = turn
            .tool_calls
            .iter()
            .map(|call| {
                let arguments: Value =
                    serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
                json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            })
            .collect();
        out["tool_calls"] = guard_value(calls, control_texts);
    }
    out
}

fn tools(chat: &Chat, control_texts: &[String]) -> Value {
    let tools = chat
        .tools
        .iter()
        .map(|tool| {
            let mut function = Map::new();
            function.insert("name".to_owned(), json!(tool.name));
            if let Some(description) = &tool.description {
                function.insert("description".to_owned(), json!(description));
            }
            let parameters: Value = tool
                .parameters
                .as_deref()
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            function.insert("parameters".to_owned(), parameters);
            json!({"type": "function", "function": function})
        })
        .collect();
    guard_value(tools, control_texts)
}

/// Phi-4-mini's template takes the tools from the first instructions, as text.
fn give_tools_to_system(tools: &Value, messages: &mut Vec<Value>) {
    let functions: Value = tools
        .as_array()
        .into_iter()
        .flatten()
        .map(|tool| tool["function"].clone())
        .collect();
    let mut text = String::new();
    python_json(&functions, None, 0, &mut text);
    if messages
        .first()
        .is_none_or(|first| first["role"] != "system")
    {
        messages.insert(0, json!({"role": "system", "content": ""}));
    }
    messages[0]["tools"] = json!(text);
}

/// [`guard`] for every string in a value, keys too.
fn guard_value(value: Value, control_texts: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(guard(text, control_texts)),
        Value::Array(items) => items
            .into_iter()
            .map(|item| guard_value(item, control_texts))
            .collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, item)| (guard(key, control_texts), guard_value(item, control_texts)))
            .collect(),
        other => other,
    }
}

/// Puts a sentinel after the first character of every control token's text.
fn guard(text: String, control_texts: &[String]) -> String {
    let mut text = if text.contains(SENTINEL) {
        text.replace(SENTINEL, "")
    } else {
        text
    };
    for control in control_texts {
        if text.contains(control.as_str()) {
            let mut marked = String::with_capacity(control.len() + 3);
            let mut chars = control.chars();
            marked.extend(chars.next());
            marked.push(SENTINEL);
            marked.extend(chars);
            text = text.replace(control.as_str(), &marked);
        }
    }
    text
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;

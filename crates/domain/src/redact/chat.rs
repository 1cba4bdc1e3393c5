//! Everything of a request that a provider sees, one piece at a time.

use super::vault::Vault;
use crate::chat::{Chat, Message, Part, Prompt, ResponseFormat, Tool};
use crate::embed::Input;
use crate::guard::{Kind, Kinds};
use crate::thought::{Origin, Thought};

/// In descriptions of data a web address names a vocabulary, not a page that
/// somebody visited.
const IN_SCHEMAS: Kinds = Kinds::ALL.without(Kind::Url);

/// The request with placeholders; `None` where nothing is replaced.
pub(super) fn redacted(chat: &Chat, vault: &mut Vault) -> Option<Chat> {
    // A request is copied only when it must be: it may hold pictures.
    let mut copy: Option<Chat> = None;
    let mut edit = |change: &dyn Fn(&mut Chat)| {
        change(copy.get_or_insert_with(|| chat.clone()));
    };
    match &chat.prompt {
        Prompt::Text(text) => {
            if let Some(text) = vault.redact(text) {
                edit(&|chat| chat.prompt = Prompt::Text(text.clone()));
            }
        }
        Prompt::Inputs(inputs) => {
            for (at, item) in inputs.items.iter().enumerate() {
                let Input::Text(text) = item else { continue };
                if let Some(text) = vault.redact(text) {
                    edit(&|chat| {
                        if let Prompt::Inputs(inputs) = &mut chat.prompt {
                            inputs.items[at] = Input::Text(text.clone());
                        }
                    });
                }
            }
        }
        Prompt::Turns(turns) => {
            for (at, turn) in turns.iter().enumerate() {
                if let Some(turn) = message(turn, vault) {
                    edit(&|chat| {
                        if let Prompt::Turns(turns) = &mut chat.prompt {
                            turns[at] = turn.clone();
                        }
                    });
                }
            }
        }
    }
    for (at, tool) in chat.tools.iter().enumerate() {
        if let Some(tool) = described(tool, vault) {
            edit(&|chat| chat.tools[at] = tool.clone());
        }
    }
    if let Some(format) = format(&chat.response_format, vault) {
        edit(&|chat| chat.response_format = format.clone());
    }
    for (at, stop) in chat.params.stop.iter().enumerate() {
        if let Some(stop) = vault.redact(stop) {
            edit(&|chat| chat.params.stop[at] = stop.clone());
        }
    }
    if let Some(passthrough) = vault.redact_json(&chat.passthrough, IN_SCHEMAS) {
        edit(&|chat| chat.passthrough = passthrough.clone());
    }
    copy
}

/// Hands on every text of a request that a provider would see.
pub(super) fn texts(chat: &Chat, see: &mut dyn FnMut(&str)) {
    let mut say = |text: &Option<String>| {
        if let Some(text) = text {
            see(text);
        }
    };
    for tool in &chat.tools {
        say(&tool.description);
        say(&tool.parameters);
    }
    match &chat.prompt {
        Prompt::Text(text) => see(text),
        Prompt::Inputs(inputs) => inputs.items.iter().for_each(|item| {
            if let Input::Text(text) = item {
                see(text);
            }
        }),
        Prompt::Turns(turns) => turns.iter().for_each(|turn| of_message(turn, see)),
    }
    match &chat.response_format {
        ResponseFormat::Text | ResponseFormat::JsonObject => {}
        ResponseFormat::JsonSchema { schema: text, .. }
        | ResponseFormat::Regex(text)
        | ResponseFormat::Grammar(text) => see(text),
        ResponseFormat::Choice(choices) => choices.iter().for_each(|choice| see(choice)),
    }
    chat.params.stop.iter().for_each(|stop| see(stop));
    if !chat.passthrough.is_empty() {
        see(&chat.passthrough);
    }
}

fn of_message(message: &Message, see: &mut dyn FnMut(&str)) {
    for part in &message.content {
        if let Part::Text(text) = part {
            see(text);
        }
    }
    message
        .name
        .iter()
        .chain(&message.reasoning)
        .for_each(|text| see(text));
    message
        .tool_calls
        .iter()
        .for_each(|call| see(&call.arguments));
    message
        .thoughts
        .iter()
        .for_each(|thought| see(&thought.text));
}

/// Replaces a text in place; whether it did.
fn swap(text: &mut String, redacted: Option<String>) -> bool {
    redacted.map(|redacted| *text = redacted).is_some()
}

fn message(message: &Message, vault: &mut Vault) -> Option<Message> {
    // Texts first without a copy: most turns hold nothing.
    let mut copy = Message {
        // Pictures are large and stay as they are.
        content: Vec::new(),
        ..message.clone()
    };
    let mut changed = false;
    let mut content = Vec::new();
    for (at, part) in message.content.iter().enumerate() {
        if let Part::Text(text) = part
            && let Some(text) = vault.redact(text)
        {
            content.push((at, text));
        }
    }
    changed |= !content.is_empty();
    if let Some(name) = &mut copy.name {
        let redacted = vault.redact(name);
        changed |= swap(name, redacted);
    }
    if let Some(reasoning) = &mut copy.reasoning {
        let redacted = vault.redact(reasoning);
        changed |= swap(reasoning, redacted);
    }
    for call in &mut copy.tool_calls {
        let redacted = vault.redact_json(&call.arguments, Kinds::ALL);
        changed |= swap(&mut call.arguments, redacted);
    }
    let before = copy.thoughts.len();
    copy.thoughts.retain_mut(|thought| {
        let redacted = vault.redact(&thought.text);
        let touched = swap(&mut thought.text, redacted);
        changed |= touched;
        // Its author would find that the words were changed.
        !(touched && proves_words(thought))
    });
    changed |= copy.thoughts.len() != before;
    if !changed {
        return None;
    }
    copy.content.clone_from(&message.content);
    for (at, text) in content {
        copy.content[at] = Part::Text(text);
    }
    Some(copy)
}

/// Whether a thought's signature is over its words.
fn proves_words(thought: &Thought) -> bool {
    let by = thought.signature.as_ref().map(|signature| signature.origin);
    by == Some(Origin::Anthropic)
}

fn described(tool: &Tool, vault: &mut Vault) -> Option<Tool> {
    let description = tool
        .description
        .as_deref()
        .and_then(|text| vault.redact(text));
    let parameters = tool.parameters.as_deref();
    let parameters = parameters.and_then(|json| vault.redact_json(json, IN_SCHEMAS));
    if description.is_none() && parameters.is_none() {
        return None;
    }
    Some(Tool {
        description: description.or_else(|| tool.description.clone()),
        parameters: parameters.or_else(|| tool.parameters.clone()),
        ..tool.clone()
    })
}

fn format(format: &ResponseFormat, vault: &mut Vault) -> Option<ResponseFormat> {
    match format {
        ResponseFormat::Text | ResponseFormat::JsonObject => None,
        ResponseFormat::JsonSchema {
            name,
            schema,
            strict,
        } => {
            let schema = vault.redact_json(schema, IN_SCHEMAS)?;
            Some(ResponseFormat::JsonSchema {
                name: name.clone(),
                schema,
                strict: *strict,
            })
        }
        ResponseFormat::Regex(pattern) => vault.redact_pattern(pattern).map(ResponseFormat::Regex),
        ResponseFormat::Choice(choices) => {
            let redacted: Vec<Option<String>> = choices.iter().map(|c| vault.redact(c)).collect();
            if redacted.iter().all(Option::is_none) {
                return None;
            }
            let pairs = redacted.into_iter().zip(choices);
            let choices = pairs.map(|(new, old)| new.unwrap_or_else(|| old.clone()));
            Some(ResponseFormat::Choice(choices.collect()))
        }
        ResponseFormat::Grammar(text) => vault.redact(text).map(ResponseFormat::Grammar),
    }
}

//! A [`Chat`] as an OpenAI request body.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nearfar_domain::chat::{
    Chat, Message, Params, Part, Prompt, ResponseFormat, Role, Tool, ToolChoice,
};
use nearfar_domain::embed::{Input, Inputs, Purpose};
use nearfar_domain::thought::Origin;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::habits::{Habits, Limit, Reasoning, Required, Seed, reasons};
use crate::codec::{Encoded, Unsupported};
use crate::object::{Object, raw};

/// Fields that a [`Chat`] holds itself: unknown fields may not bring them in
/// by the back door, whether or not the request sets them.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "n",
    "best_of",
    "echo",
    "suffix",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "random_seed",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "reasoning_effort",
    "enable_thinking",
    "nearfar",
];

/// As [`KNOWN`], for a request for vectors.
const KNOWN_OF_INPUTS: &[&str] = &[
    "model",
    "input",
    "dimensions",
    "encoding_format",
    "input_type",
    "nearfar",
];

/// Writes a chat completion, or a raw-text completion for a [`Prompt::Text`].
/// Usage is always asked for.
///
/// # Errors
/// [`Unsupported`] for a tool schema or response schema that is not JSON, and
/// for unknown fields that are not an object.
pub fn encode(
    chat: &Chat,
    model: &str,
    stream: bool,
    habits: Habits,
) -> Result<Encoded, Unsupported> {
    let mut body = Object::default();
    body.set("model", model);
    if let Prompt::Inputs(inputs) = &chat.prompt {
        return encode_inputs(body, inputs, chat.passthrough_for(Origin::Openai), habits);
    }
    let path = match &chat.prompt {
        Prompt::Text(text) => {
            body.set("prompt", text);
            // Log-probabilities are a number here, not a switch.
            body.set_some("logprobs", &chat.params.logprobs);
            set_format(&mut body, &chat.response_format)?;
            "/completions"
        }
        Prompt::Turns(turns) => {
            let mut messages: Vec<WireMessage<'_>> =
                turns.iter().map(|turn| message(turn, habits)).collect();
            if let Some(last) = messages.last_mut() {
                last.prefix = habits.prefix && last.role == Role::Assistant.as_str();
            }
            body.set("messages", &messages);
            set_tools(&mut body, chat, habits)?;
            set_format(&mut body, &chat.response_format)?;
            if let Some(top) = chat.params.logprobs {
                body.set("logprobs", &true);
                if top > 0 {
                    body.set("top_logprobs", &top);
                }
            }
            "/chat/completions"
        }
        Prompt::Inputs(_) => "/embeddings",
    };
    set_params(&mut body, &chat.params, model, habits);
    body.set("stream", &stream);
    if stream && habits.stream_options {
        body.set("stream_options", &json!({ "include_usage": true }));
    }
    body.merge(chat.passthrough_for(Origin::Openai), KNOWN)
        .map_err(|_| Unsupported::new("body", "the unknown fields are not a JSON object"))?;
    Ok(Encoded {
        path,
        headers: &[],
        body: body.into_bytes(),
    })
}

/// Writes a request for vectors. They come as numbers, which every follower of
/// OpenAI's writes; not all write base64.
fn encode_inputs(
    mut body: Object,
    inputs: &Inputs,
    passthrough: &str,
    habits: Habits,
) -> Result<Encoded, Unsupported> {
    let texts: Option<Vec<&str>> = inputs.items.iter().map(text_of).collect();
    let tokens: Option<Vec<&[u32]>> = inputs.items.iter().map(tokens_of).collect();
    match (texts, tokens) {
        (Some(texts), _) => body.set("input", &texts),
        (None, Some(tokens)) => body.set("input", &tokens),
        (None, None) => {
            return Err(Unsupported::new(
                "input",
                "texts and token ids cannot be mixed in one request to a provider",
            ));
        }
    }
    body.set_some("dimensions", &inputs.dimensions);
    body.set("encoding_format", "float");
    // OpenAI itself refuses fields that it does not know.
    if let Some(purpose) = inputs.purpose.filter(|_| habits.sampling_extras) {
        let name = match purpose {
            Purpose::Query => "query",
            Purpose::Document => "document",
        };
        body.set("input_type", name);
    }
    body.merge(passthrough, KNOWN_OF_INPUTS)
        .map_err(|_| Unsupported::new("body", "the unknown fields are not a JSON object"))?;
    Ok(Encoded {
        path: "/embeddings",
        headers: &[],
        body: body.into_bytes(),
    })
}

fn text_of(input: &Input) -> Option<&str> {
    match input {
        Input::Text(text) => Some(text),
        Input::Tokens(_) => None,
    }
}

fn tokens_of(input: &Input) -> Option<&[u32]> {
    match input {
        Input::Tokens(tokens) => Some(tokens),
        Input::Text(_) => None,
    }
}

fn set_params(body: &mut Object, params: &Params, model: &str, habits: Habits) {
    let reasoning_model = reasons(model);
    let later_name = match habits.limit {
        Limit::ByModel => reasoning_model,
        Limit::MaxTokens => false,
        Limit::MaxCompletionTokens => true,
    };
    let limit = if later_name {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body.set_some(limit, &params.max_tokens);
    if !reasoning_model {
        body.set_some("temperature", &params.temperature);
        body.set_some("top_p", &params.top_p);
        body.set_some("presence_penalty", &params.presence_penalty);
        body.set_some("frequency_penalty", &params.frequency_penalty);
        if !params.logit_bias.is_empty() && habits.logit_bias {
            let bias: BTreeMap<u32, f32> = params.logit_bias.iter().copied().collect();
            body.set("logit_bias", &bias);
        }
    }
    if habits.sampling_extras {
        body.set_some("top_k", &params.top_k);
        body.set_some("min_p", &params.min_p);
        body.set_some("repetition_penalty", &params.repetition_penalty);
    }
    let seed = match habits.seed {
        Seed::Seed => "seed",
        Seed::RandomSeed => "random_seed",
    };
    body.set_some(seed, &params.seed);
    if !params.stop.is_empty() {
        body.set("stop", &params.stop);
    }
    if habits.reasoning_effort {
        body.set_some("reasoning_effort", &params.reasoning_effort);
    }
    if habits.template_kwargs
        && let Some(thinking) = params.enable_thinking
    {
        body.set(
            "chat_template_kwargs",
            &json!({ "enable_thinking": thinking }),
        );
    }
}

fn set_tools(body: &mut Object, chat: &Chat, habits: Habits) -> Result<(), Unsupported> {
    if chat.tools.is_empty() {
        return Ok(());
    }
    let tools: Vec<WireTool<'_>> = chat.tools.iter().map(tool).collect::<Result<_, _>>()?;
    body.set("tools", &tools);
    match &chat.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None => body.set("tool_choice", "none"),
        ToolChoice::Required => {
            let word = match habits.required {
                Required::Required => "required",
                Required::Any => "any",
            };
            body.set("tool_choice", word);
        }
        ToolChoice::Named(name) => body.set(
            "tool_choice",
            &json!({ "type": "function", "function": { "name": name } }),
        ),
    }
    if habits.parallel_tool_calls {
        body.set_some("parallel_tool_calls", &chat.params.parallel_tool_calls);
    }
    Ok(())
}

fn set_format(body: &mut Object, format: &ResponseFormat) -> Result<(), Unsupported> {
    match format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => {
            body.set("response_format", &json!({ "type": "json_object" }));
        }
        ResponseFormat::JsonSchema {
            name,
            schema,
            strict,
        } => {
            let schema = raw(schema).ok_or_else(|| {
                Unsupported::new("response_format", "the schema is not JSON; send an object")
            })?;
            body.set(
                "response_format",
                &WireFormat {
                    r#type: "json_schema",
                    json_schema: WireSchema {
                        name,
                        schema,
                        strict: *strict,
                    },
                },
            );
        }
        // vLLM's names, the later one and the earlier one; servers ignore the
        // one that they do not know.
        ResponseFormat::Regex(regex) => {
            body.set("structured_outputs", &json!({ "regex": regex }));
            body.set("guided_regex", regex);
        }
        ResponseFormat::Choice(choices) => {
            body.set("structured_outputs", &json!({ "choice": choices }));
            body.set("guided_choice", choices);
        }
        // llama.cpp's name, and vLLM's two.
        ResponseFormat::Grammar(grammar) => {
            body.set("grammar", grammar);
            body.set("structured_outputs", &json!({ "grammar": grammar }));
            body.set("guided_grammar", grammar);
        }
    }
    Ok(())
}

fn tool(tool: &Tool) -> Result<WireTool<'_>, Unsupported> {
    let parameters = match &tool.parameters {
        None => None,
        Some(text) => Some(raw(text).ok_or_else(|| {
            Unsupported::new("tools", "a tool's parameters are not JSON; send an object")
        })?),
    };
    Ok(WireTool {
        r#type: "function",
        function: WireFunction {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters,
            strict: tool.strict,
        },
    })
}

fn message<'a>(message: &'a Message, habits: Habits) -> WireMessage<'a> {
    let role = match message.role {
        Role::Developer if !habits.developer_role => Role::System,
        role => role,
    };
    let content = match message.content.as_slice() {
        [] if !message.tool_calls.is_empty() => Content::None,
        [] => Content::Text(""),
        // One text is a string everywhere; lists are not.
        [Part::Text(text)] => Content::Text(text),
        parts => Content::Parts(parts.iter().map(part).collect()),
    };
    let reasoning = message.reasoning_text();
    WireMessage {
        role: role.as_str(),
        content,
        name: message.name.as_deref(),
        reasoning_content: reasoning
            .clone()
            .filter(|_| habits.reasoning == Reasoning::ReasoningContent),
        reasoning: reasoning.filter(|_| habits.reasoning == Reasoning::Reasoning),
        tool_calls: message
            .tool_calls
            .iter()
            .map(|call| WireCall {
                id: &call.id,
                r#type: "function",
                function: WireCallFunction {
                    name: &call.name,
                    arguments: &call.arguments,
                },
            })
            .collect(),
        tool_call_id: message.tool_call_id.as_deref(),
        prefix: false,
    }
}

fn part(part: &Part) -> WirePart<'_> {
    match part {
        Part::Text(text) => WirePart::Text { text },
        Part::Image { url, detail } => WirePart::ImageUrl {
            image_url: WireImage {
                url,
                detail: detail.as_deref(),
            },
        },
    }
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    None,
    Text(&'a str),
    Parts(Vec<WirePart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: WireImage<'a> },
}

#[derive(Serialize)]
struct WireImage<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireCallFunction<'a>,
}

#[derive(Serialize)]
struct WireCallFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
struct WireFormat<'a> {
    r#type: &'static str,
    json_schema: WireSchema<'a>,
}

#[derive(Serialize)]
struct WireSchema<'a> {
    name: &'a str,
    schema: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

//! A request, checked and turned into tokens.

use nearfar_domain::chat::{Chat, Prompt, ResponseFormat, ToolChoice};
use nearfar_domain::events::{Failure, FailureKind};

use super::date::today;
use super::ready::ReadyModel;
use super::writer::Writer;
use crate::constrain::{Constraint, Reasoning};
use crate::gguf::LoadError;
use crate::output::{Splitter, ToolFormat};
use crate::sampling::Settings;
use crate::template::TemplateError;

/// A request that this model can answer, ready to be computed.
pub struct Prepared {
    pub(super) tokens: Vec<u32>,
    /// The most tokens that may be written; at least 1.
    pub(super) limit: usize,
    pub(super) settings: Settings,
    pub(super) constraint: Option<Constraint>,
    pub(super) writer: Writer,
}

impl Prepared {
    /// The prompt.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// What the model reads, and how what it writes is to be taken apart.
struct Read {
    tokens: Vec<u32>,
    splitter: Option<Splitter>,
    format: ToolFormat,
    reasoning: Reasoning,
}

pub(super) fn prepare(ready: &ReadyModel, chat: &Chat, partial: &str) -> Result<Prepared, Failure> {
    if chat.has_images() {
        return Err(unable(
            "messages",
            "this model does not see pictures; remove them or use a model that does",
        ));
    }
    let settings = Settings::resolve(&chat.params, &ready.defaults, ready.tokenizer.vocab_size())?;
    let context = ready.model.context_tokens();
    // Text that cannot fit is not worth turning into tokens.
    let least = chat.text_bytes() / ready.longest_token;
    if least >= context {
        return Err(too_long(chat, &format!("at least {least}"), context));
    }
    let read = match &chat.prompt {
        Prompt::Text(text) => Read {
            tokens: ready
                .tokenizer
                .encode_prompt(&format!("{text}{partial}"))
                .map_err(|error| encoding(&error))?,
            splitter: None,
            format: ToolFormat::None,
            reasoning: Reasoning::None,
        },
        Prompt::Turns(_) => read_turns(ready, chat, partial)?,
        Prompt::Inputs(_) => {
            return Err(unable(
                "model",
                "this model answers in words and makes no vectors; name an embedding model",
            ));
        }
    };
    if read.tokens.is_empty() {
        return Err(wrong(
            field(chat),
            "there is nothing to answer: the prompt is empty",
        ));
    }
    let (used, wanted) = (read.tokens.len(), chat.params.max_tokens);
    if wanted == Some(0) {
        return Err(wrong("max_tokens", "max_tokens must be at least 1"));
    }
    let left = context.saturating_sub(used);
    if left == 0 {
        return Err(too_long(chat, &used.to_string(), context));
    }
    let constraint = ready.constraint(chat, read.format, read.reasoning, partial)?;
    // What another target wrote of the answer counts.
    let written = match partial {
        "" => 0,
        partial => ready
            .tokenizer
            .encode(partial, false)
            .map_err(|error| encoding(&error))?
            .len(),
    };
    let one_call = chat.params.parallel_tool_calls == Some(false);
    Ok(Prepared {
        tokens: read.tokens,
        // A client's limit is a bound and not a wish: many send one that no
        // small context has. An answer that reaches the context's end says so.
        limit: wanted.map_or(left, |wanted| {
            left.min((wanted as usize).saturating_sub(written).max(1))
        }),
        settings,
        constraint,
        writer: Writer::new(read.splitter, &chat.params.stop, one_call),
    })
}

fn read_turns(ready: &ReadyModel, chat: &Chat, partial: &str) -> Result<Read, Failure> {
    let Some(template) = &ready.template else {
        return Err(unable(
            "messages",
            "this model has no chat template, so it cannot hold a conversation; use /v1/completions",
        ));
    };
    let tokenizer = &ready.tokenizer;
    let controls = tokenizer.control_texts();
    let mut rendered = template
        .render(chat, controls, &today())
        .map_err(|error| match error {
            TemplateError::Refused(_) => wrong("messages", &error.to_string()),
            // Another model's template may well take it.
            TemplateError::Failed(_) => Failure::new(FailureKind::Internal, error.to_string()),
        })?;
    let offered = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
    let forced = matches!(
        chat.tool_choice,
        ToolChoice::Required | ToolChoice::Named(_)
    );
    let format = if offered {
        ready.tool_format()
    } else {
        ToolFormat::None
    };
    let opened = rendered.marked().trim_end().ends_with("<think>");
    let constrained = forced || chat.response_format != ResponseFormat::Text;
    let marks = tokenizer.id_of("<think>").zip(tokenizer.id_of("</think>"));
    // The reasoning is over where the answer has begun, and where its end could
    // not be told from the answer's text.
    let closes = opened && (!partial.is_empty() || constrained && marks.is_none());
    if closes {
        rendered.push_template_text("\n</think>\n\n");
    }
    rendered.push_content(partial, controls);
    let thinking = opened && !closes;
    let may_think =
        template.source().contains("<think>") && chat.params.enable_thinking != Some(false);
    let reasoning = match marks {
        Some((_, end)) if thinking => Reasoning::Open { end },
        Some((open, end)) if may_think && partial.is_empty() => Reasoning::Possible { open, end },
        _ => Reasoning::None,
    };
    let names = chat.tools.iter().map(|tool| tool.name.clone()).collect();
    Ok(Read {
        tokens: tokenizer
            .encode_rendered(&rendered)
            .map_err(|error| encoding(&error))?,
        splitter: Some(Splitter::new(format, thinking).with_tools(names)),
        format,
        reasoning,
    })
}

fn field(chat: &Chat) -> &'static str {
    match chat.prompt {
        Prompt::Turns(_) => "messages",
        Prompt::Text(_) => "prompt",
        Prompt::Inputs(_) => "input",
    }
}

/// This model cannot do it; another may.
fn unable(field: &str, message: &str) -> Failure {
    Failure {
        kind: FailureKind::Unsupported,
        ..wrong(field, message)
    }
}

fn wrong(field: &str, message: &str) -> Failure {
    Failure {
        field: Some(field.to_owned()),
        ..Failure::new(FailureKind::BadRequest, message)
    }
}

fn too_long(chat: &Chat, used: &str, context: usize) -> Failure {
    let message = format!(
        "this model's context is {context} tokens and the prompt takes {used}, which leaves no \
         room for an answer; shorten the prompt or use a model with more context"
    );
    Failure {
        field: Some(field(chat).to_owned()),
        ..Failure::new(FailureKind::ContextLength, message)
    }
}

fn encoding(error: &LoadError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}

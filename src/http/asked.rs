//! From a decoded request and its tags to what the road is asked.

use axum::http::HeaderMap;
use nearfar_domain::chat::{Chat, Prompt, ResponseFormat, ToolChoice};
use nearfar_domain::explain::Ability;
use nearfar_domain::frames::Purpose;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::dialect::Form;
use super::problem::Problem;
use super::reply::Wish;
use super::tags;
use crate::road::Asked;

/// A request as its front understood it, whatever the dialect was.
pub(crate) struct Understood {
    /// The model's name as the client wrote it; `auto` where it wrote none.
    pub(crate) model: String,
    /// The content.
    pub(crate) chat: Chat,
    /// Whether the client wants a stream.
    pub(crate) stream: bool,
    /// The body object `nearfar`.
    pub(crate) tags: Option<Map<String, Value>>,
    /// How the answer is to be written.
    pub(crate) form: Box<dyn Form>,
}

/// Abilities without which an answer would be wrong.
pub(crate) fn needs(chat: &Chat) -> Vec<Ability> {
    let mut needs = Vec::new();
    if !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None {
        needs.push(Ability::Tools);
    }
    if matches!(
        chat.tool_choice,
        ToolChoice::Required | ToolChoice::Named(_)
    ) {
        needs.push(Ability::ForcedTools);
    }
    match chat.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => needs.push(Ability::JsonObject),
        ResponseFormat::JsonSchema { .. } => needs.push(Ability::JsonSchema),
        ResponseFormat::Regex(_) | ResponseFormat::Choice(_) | ResponseFormat::Grammar(_) => {
            needs.push(Ability::Grammar);
        }
    }
    if chat.has_images() {
        needs.push(Ability::Vision);
    }
    if chat.params.logprobs.is_some() {
        needs.push(Ability::Logprobs);
    }
    match chat.prompt {
        Prompt::Turns(_) => {}
        Prompt::Text(_) => needs.push(Ability::RawText),
        Prompt::Inputs(_) => needs.push(Ability::Embeddings),
    }
    needs
}

/// Puts a request and its tags together.
///
/// # Errors
/// Names the tag that is wrong.
pub(crate) fn asked(
    caller: Caller,
    endpoint: &'static str,
    headers: &HeaderMap,
    request: Understood,
) -> Result<(Asked, Wish), Problem> {
    let tags = tags::read(headers, request.tags.as_ref())?;
    let wish = Wish {
        form: request.form,
        stream: request.stream,
    };
    let Caller(identity) = caller;
    let asked = Asked {
        endpoint,
        model: request.model,
        needs: needs(&request.chat),
        chat: request.chat,
        stream: request.stream,
        says: tags.says,
        side: tags.side,
        target: tags.target,
        deadline_ms: tags.deadline_ms,
        ttft_ms: tags.ttft_ms,
        max_cost_micro: tags.max_cost_micro,
        priority: tags.priority,
        purpose: Purpose::Answer,
        feature: identity.feature(tags.feature)?,
        identity,
        cache: tags.cache,
        conversation: tags.conversation,
        prompt_version: tags.prompt,
    };
    Ok((asked, wish))
}

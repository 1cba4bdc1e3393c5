//! From a decoded request and its tags to what the road is asked.

use axum::http::HeaderMap;
use nearfar_domain::chat::Prompt;
use nearfar_domain::frames::Purpose;

use super::openai::request::OpenaiRequest;
use super::problem::Problem;
use super::reply::{Form, Wish};
use super::tags;
use crate::road::Asked;

/// Puts a request and its tags together.
///
/// # Errors
/// Names the tag that is wrong.
pub(crate) fn asked(
    endpoint: &'static str,
    headers: &HeaderMap,
    request: OpenaiRequest,
) -> Result<(Asked, Wish), Problem> {
    let tags = tags::read(headers, request.tags.as_ref())?;
    let needs = request.needs();
    let form = match &request.chat.prompt {
        Prompt::Turns(_) => Form::Chat,
        Prompt::Text(prompt) => Form::Text {
            echo: request.echo.then(|| prompt.clone()),
        },
        Prompt::Inputs(_) => Form::Vectors {
            base64: request.base64,
        },
    };
    let wish = Wish {
        form,
        stream: request.stream,
        include_usage: request.include_usage,
    };
    let asked = Asked {
        endpoint,
        model: request.model,
        chat: request.chat,
        needs,
        stream: request.stream,
        says: tags.says,
        side: tags.side,
        target: tags.target,
        deadline_ms: tags.deadline_ms,
        ttft_ms: tags.ttft_ms,
        max_cost_micro: tags.max_cost_micro,
        priority: tags.priority,
        purpose: Purpose::Answer,
        feature: tags.feature,
        conversation: tags.conversation,
        prompt_version: tags.prompt,
    };
    Ok((asked, wish))
}

//! The paths under `/v1/responses`.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{FutureExt, Stream};
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::ids::DecisionId;
use nearfar_domain::privacy::{Say, Source, Zone};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::request::{self, said};
use super::stream::{Keeper, ResponseForm};
use crate::conversations::{Conversations, Running, Turn};
use crate::http::api::Api;
use crate::http::asked::{Understood, asked};
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::reply::{json, reply};
use crate::road::EventStream;

/// Items that a page holds, where nobody says how many.
const PAGE: usize = 20;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/responses", post(create))
        .route("/v1/responses/{id}", get(find).delete(forget))
        .route("/v1/responses/{id}/cancel", post(cancel))
        .route("/v1/responses/{id}/input_items", get(input_items))
}

async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    let mut read = request::read(&body)?;
    drop(body);
    let conversations = api.gate.conversations();
    let tenant = Arc::clone(caller.0.tenant());
    let before = match &read.previous {
        None => Vec::new(),
        Some(id) => conversations
            .chain(&tenant, id, Instant::now())
            .ok_or_else(no_longer_kept)?,
    };
    let chat = read.chat(&before)?;
    let keeper = read.store.then(|| {
        Arc::new(Keeper {
            conversations: Arc::clone(conversations),
            tenant: tenant.to_string(),
            ceiling: OnceLock::new(),
            redact: OnceLock::new(),
            previous: read.previous,
            input: read.input,
        })
    });
    let form = ResponseForm {
        echo: read.echo,
        keeper: keeper.clone(),
    };
    let understood = Understood {
        model: read.model,
        chat,
        stream: read.stream,
        tags: read.tags,
        form: Box::new(form),
    };
    let (mut asked, wish) = asked(caller, "openai.responses", &parts.headers, understood)?;
    // A conversation that once had to stay near stays near.
    asked.says.extend(before.iter().map(|turn| Say {
        source: Source::Conversation,
        zone: turn.ceiling,
    }));
    if before.iter().any(|turn| turn.redact) {
        asked.says.push(Say {
            source: Source::Redact,
            zone: Zone::Cloud,
        });
    }
    drop(before);
    let redact = asked.says.iter().any(|say| say.source == Source::Redact);
    let answer = api.gate.answer(asked).await;
    let mut answer = answer.map_err(|error| {
        Problem::from(error)
            .renamed("response_format.json_schema", "text.format")
            .renamed("messages", "input")
    })?;
    if let Some(keeper) = keeper {
        let _ = keeper.ceiling.set(answer.ceiling.zone);
        let _ = keeper.redact.set(redact);
    }
    if wish.stream {
        let id = id_of(answer.decision);
        answer.events = stoppable(answer.events, conversations, &tenant, &id);
    }
    Ok(reply(answer, wish).await)
}

fn id_of(decision: DecisionId) -> String {
    format!("resp_{:032x}", decision.0)
}

/// OpenAI's words, which clients look for to send the whole conversation anew.
fn no_longer_kept() -> Problem {
    Problem::field(
        "previous_response_id",
        "The previous response was not found. Responses are kept in memory for a while, unless \
         store is false. Send the whole conversation as input.",
    )
    .coded("previous_response_not_found")
}

fn no_such_response() -> Problem {
    Problem::not_found(
        "response_not_found",
        "There is no such response. Responses are kept in memory for a while, unless store is \
         false.",
    )
}

fn kept(api: &Api, caller: &Caller, id: &str) -> Result<Arc<Turn>, Problem> {
    let found = api
        .gate
        .conversations()
        .find(caller.0.tenant(), id, Instant::now());
    found.ok_or_else(no_such_response)
}

async fn find(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let pairs = query::pairs(uri.query());
    if pairs
        .iter()
        .any(|(name, value)| name == "stream" && value == "true")
    {
        return Err(Problem::field(
            "stream",
            "A response that has ended is not streamed again. Leave stream out.",
        ));
    }
    let turn = kept(&api, &caller, &id)?;
    let response: Value = serde_json::from_str(&turn.response).unwrap_or_default();
    Ok(json(StatusCode::OK, &response))
}

async fn forget(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    if !api.gate.conversations().forget(caller.0.tenant(), &id) {
        return Err(no_such_response());
    }
    let body = json!({"id": id, "object": "response", "deleted": true});
    Ok(json(StatusCode::OK, &body))
}

/// Stops an answer whose stream is open. Its stream ends with `response.failed`
/// and the status `cancelled`.
async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let conversations = api.gate.conversations();
    if conversations.stop(caller.0.tenant(), &id) {
        let body = json!({
            "id": id, "object": "response", "status": "cancelled", "error": null, "output": [],
        });
        return Ok(json(StatusCode::OK, &body));
    }
    kept(&api, &caller, &id)?;
    Err(Problem::bad_request(
        "response_ended",
        "The response has ended. Only an answer whose stream is open can be cancelled.",
    ))
}

/// What was sent with a response, after what was said before.
async fn input_items(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let conversations = api.gate.conversations();
    let mut chain = conversations
        .chain(caller.0.tenant(), &id, Instant::now())
        .ok_or_else(no_such_response)?;
    let own = chain.pop();
    let mut items: Vec<Value> = chain.iter().flat_map(|turn| said(turn)).collect();
    if let Some(own) = own {
        let own: Vec<Value> = serde_json::from_str(&own.input).unwrap_or_default();
        items.extend(own);
    }
    Ok(json(StatusCode::OK, &page(items, uri.query())?))
}

/// A part of a list, as the query asks for it.
fn page(mut items: Vec<Value>, asked: Option<&str>) -> Result<Value, Problem> {
    let (mut limit, mut after, mut newest_first) = (PAGE, None, true);
    for (name, value) in query::pairs(asked) {
        match name.as_str() {
            "limit" => {
                let wrong = || Problem::field("limit", "limit must be a number from 1 to 100.");
                limit = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=100).contains(n))
                    .ok_or_else(wrong)?;
            }
            "after" => after = Some(value),
            "order" if value == "asc" => newest_first = false,
            "order" if value == "desc" => newest_first = true,
            "order" => return Err(Problem::field("order", "order must be asc or desc.")),
            // `include[]` adds nothing to items of ours.
            _ => {}
        }
    }
    if newest_first {
        items.reverse();
    }
    if let Some(after) = after {
        let place = items.iter().position(|item| item["id"] == after.as_str());
        let place = place.ok_or_else(|| Problem::field("after", "There is no such item."))?;
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Value>| item.map(|item| item["id"].clone());
    Ok(json!({
        "object": "list",
        "first_id": id(items.first()),
        "last_id": id(items.last()),
        "has_more": has_more,
        "data": items,
    }))
}

/// The same events, until somebody stops the answer.
fn stoppable(
    events: EventStream,
    conversations: &Arc<Conversations>,
    tenant: &str,
    id: &str,
) -> EventStream {
    let (running, stopped) = conversations.run(tenant, id);
    Box::pin(Stoppable {
        events: Some(events),
        stopped,
        _running: running,
    })
}

struct Stoppable {
    /// Until it is stopped. Dropping them cancels the leg.
    events: Option<EventStream>,
    stopped: oneshot::Receiver<()>,
    _running: Running,
}

impl Stream for Stoppable {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        let event = events.as_mut().poll_next(cx);
        if event.is_ready() {
            return event;
        }
        match self.stopped.poll_unpin(cx) {
            Poll::Ready(Ok(())) => {
                self.events = None;
                let message = "The answer was cancelled.";
                let failure = Failure::new(FailureKind::Cancelled, message);
                Poll::Ready(Some(Event::Failed(failure)))
            }
            // Nobody can stop it any more.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::StreamExt;

    use super::*;

    fn items(count: usize) -> Vec<Value> {
        (0..count).map(|n| json!({"id": format!("i{n}")})).collect()
    }

    fn ids(list: &Value) -> Vec<&str> {
        let items = list["data"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn pages_go_backwards_unless_told_otherwise() {
        let list = page(items(3), None).unwrap();
        assert_eq!(ids(&list), ["i2", "i1", "i0"]);
        assert_eq!(
            (&list["first_id"], &list["last_id"]),
            (&json!("i2"), &json!("i0"))
        );
        assert_eq!(list["has_more"], false);
        let list = page(items(5), Some("limit=2&order=asc&after=i1")).unwrap();
        assert_eq!(ids(&list), ["i2", "i3"]);
        assert_eq!(list["has_more"], true);
        let empty = page(Vec::new(), None).unwrap();
        assert_eq!(empty["first_id"], Value::Null);
        for wrong in ["limit=0", "limit=x", "order=up", "after=nobody"] {
            assert!(page(items(1), Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_stopped_answer_ends_with_a_failure() {
        let conversations = Arc::new(Conversations::default());
        let first = futures_util::stream::iter([Event::Content("a".into())]);
        let silent = futures_util::stream::pending();
        let mut events = stoppable(Box::pin(first.chain(silent)), &conversations, "t", "resp_1");
        assert!(matches!(events.next().await, Some(Event::Content(_))));
        assert!(!conversations.stop("other", "resp_1"));
        assert!(conversations.stop("t", "resp_1"));
        let ended = events.next().await;
        assert!(matches!(ended, Some(Event::Failed(f)) if f.kind == FailureKind::Cancelled));
        assert!(events.next().await.is_none());
        drop(events);
        assert!(!conversations.stop("t", "resp_1"));
    }
}

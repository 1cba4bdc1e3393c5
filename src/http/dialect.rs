//! What a front dialect is to the rest of the front.
//!
//! Each dialect has a folder: `openai/`, `anthropic/`, `ollama/`. In it, a
//! request's body becomes an [`Understood`](super::asked::Understood); that
//! carries the [`Form`] in which the answer goes back, whole or as [`Chunks`].
//! The shape of errors is [`Problem::body`](super::problem::Problem::body)'s,
//! and [`Dialect::of`] tells which shape a request gets, whatever became of it.

use axum::http::HeaderMap;
use nearfar_domain::events::{Event, Failure};
use nearfar_domain::ids::{DecisionId, TargetId};
use serde_json::Value;

use super::collect::Collected;
use crate::account::Bill;
use crate::road::Answer;

/// A wire format of ours towards clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/chat/completions` and its like; also of all that is our own.
    Openai,
    /// `/v1/messages`.
    Anthropic,
    /// `/api/…`.
    Ollama,
}

impl Dialect {
    /// The word in a key's scope.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
        }
    }

    /// The dialect of a request, also of one that no route takes.
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Self {
        let under = |root: &str| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if under("/v1/messages") {
            Self::Anthropic
        } else if under("/api") {
            Self::Ollama
        } else if headers.contains_key("anthropic-version") && !super::api::is_known(path) {
            Self::Anthropic
        } else {
            Self::Openai
        }
    }
}

/// What a form may tell of the answer beside its events.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The decision that led to it; its number makes the answer's id.
    pub(crate) decision: DecisionId,
    /// The target that really answers.
    pub(crate) target: TargetId,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// What it costs, once it has ended.
    pub(crate) bill: Bill,
}

impl About {
    pub(crate) fn of(answer: &Answer) -> Self {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            decision: answer.decision,
            target: answer.target.clone(),
            created,
            bill: answer.bill.clone(),
        }
    }
}

/// How one kind of answer is written in its dialect.
pub(crate) trait Form: Send {
    /// The body of a whole answer.
    ///
    /// # Errors
    /// When the answer cannot be written in this dialect.
    fn whole(&self, about: &About, answer: &Collected) -> Result<Value, Failure>;

    /// What writes the answer as a stream.
    fn chunks(self: Box<Self>, about: About) -> Box<dyn Chunks>;
}

/// Writes one stream.
pub(crate) trait Chunks: Send {
    /// The stream's media type.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// Adds an event's bytes to `out`. After `Finished` the stream is whole;
    /// after `Failed` it must not look so.
    fn push(&mut self, event: Event, out: &mut String);

    /// Adds what fills a silence without meaning anything; nothing, where the
    /// dialect has no such thing.
    fn keep_alive(&mut self, out: &mut String) {
        out.push_str(": keep-alive\n\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_path_tells_the_dialect_and_where_it_does_not_the_header() {
        let plain = HeaderMap::new();
        let mut anthropic = HeaderMap::new();
        anthropic.insert("anthropic-version", "2023-06-01".parse().unwrap());
        for (path, without, with) in [
            ("/v1/messages", Dialect::Anthropic, Dialect::Anthropic),
            (
                "/v1/messages/count_tokens",
                Dialect::Anthropic,
                Dialect::Anthropic,
            ),
            ("/v1/messagesx", Dialect::Openai, Dialect::Anthropic),
            ("/v1/chat/completions", Dialect::Openai, Dialect::Openai),
            ("/v1/models/local/x", Dialect::Openai, Dialect::Anthropic),
            ("/v1/nonsense", Dialect::Openai, Dialect::Anthropic),
            ("/api/chat", Dialect::Ollama, Dialect::Ollama),
            ("/apix", Dialect::Openai, Dialect::Anthropic),
        ] {
            assert_eq!(Dialect::of(path, &plain), without, "{path}");
            assert_eq!(Dialect::of(path, &anthropic), with, "{path}");
        }
    }
}

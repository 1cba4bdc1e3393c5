//! Every error that a client sees, with its HTTP status, in one place.
//!
//! A [`Problem`] is made from what went wrong and rendered in the dialect of
//! the request: the status is chosen once, the shape is the dialect's. Its message is public: it names the field and the mend, and
//! neither secrets nor content.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::explain::{Explanation, Refusal, Verdict};
use nearfar_domain::ids::{DecisionId, TargetId};
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::limits::Quotas;
use super::refusal;
use crate::guard::Blocked;
use crate::limits::Denied;
use crate::road::RoadError;

/// An error on its way to a client. Boxed, because it is the rare half of many
/// results.
#[derive(Clone, Debug)]
pub struct Problem(Box<Told>);

#[derive(Clone, Debug)]
struct Told {
    status: StatusCode,
    /// OpenAI's `type`.
    kind: &'static str,
    /// OpenAI's `code`: machine-readable.
    code: String,
    message: String,
    /// The field at fault.
    param: Option<String>,
    retry_after_ms: Option<u64>,
    /// The decision that led here, where there was one.
    explanation: Option<Box<Explanation>>,
    /// The decision and the leg that failed, where there was one.
    leg: Option<(DecisionId, TargetId)>,
    /// The provider's own status, so that its errors can be told from ours.
    upstream_status: Option<u16>,
    /// The limit that is reached.
    limit: Option<Box<Denied>>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, code: &str, message: String) -> Self {
        Self(Box::new(Told {
            status,
            kind,
            code: code.to_owned(),
            message,
            param: None,
            retry_after_ms: None,
            explanation: None,
            leg: None,
            upstream_status: None,
            limit: None,
        }))
    }

    /// A field of the request is wrong. `message` says how to mend it.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "invalid_value",
            message.into(),
        );
        problem.0.param = Some(param.into());
        problem
    }

    /// The body cannot be read as JSON, or a header is wrong.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            code,
            message.into(),
        )
    }

    /// No such path or model.
    pub fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            code,
            message.into(),
        )
    }

    /// The guard does not let a request go on.
    pub(crate) fn blocked(blocked: &Blocked) -> Self {
        let (status, param) = match blocked {
            Blocked::TooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Blocked::Model(_) => (StatusCode::FORBIDDEN, Some("model")),
            Blocked::Identifier(_) | Blocked::Pattern(_) => (StatusCode::BAD_REQUEST, None),
        };
        let mut problem = Self::of_request(status, blocked.code(), blocked.message());
        problem.0.param = param.map(str::to_owned);
        problem
    }

    /// No such model. `message` says how to find one.
    pub(crate) fn no_such_model(message: impl Into<String>) -> Self {
        let mut problem = Self::not_found("model_not_found", message);
        problem.0.param = Some("model".to_owned());
        problem
    }

    /// The request cannot be done as it stands, in a way of its own.
    pub(crate) fn of_request(status: StatusCode, code: &str, message: String) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// Something of ours does not work. Only for the control API: `message`
    /// may name files.
    pub(crate) fn of_ours(code: &str, message: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "server_error", code, message)
    }

    /// The path exists, but not with this method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            "method_not_allowed",
            message.into(),
        )
    }

    /// The request came from a web page or name that has no business here.
    pub fn forbidden(code: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            code,
            message.into(),
        )
    }

    /// Nobody is let in with what the request shows. `param` is the header.
    pub(crate) fn unauthorized(code: &str, param: &str, message: &str) -> Self {
        let kind = "invalid_request_error";
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, kind, code, message.to_owned());
        problem.0.param = Some(param.to_owned());
        problem
    }

    /// The key or its tenant may not use the model that was named.
    pub(crate) fn not_this_model() -> Self {
        let message = "This key may not use this model. The list of models has those that it may.";
        Self::out_of_scope("key_scope", "model", message)
    }

    /// The key or its tenant may not do this. `message` says what it may.
    pub(crate) fn out_of_scope(code: &str, param: &str, message: impl Into<String>) -> Self {
        let status = StatusCode::FORBIDDEN;
        let mut problem = Self::new(status, "permission_error", code, message.into());
        problem.0.param = Some(param.to_owned());
        problem
    }

    /// The body is larger than the limit.
    pub fn too_large(limit_bytes: usize) -> Self {
        let mib = limit_bytes as f64 / f64::from(1 << 20);
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            "request_too_large",
            format!(
                "The body is larger than the limit of {mib:.0} MiB. Send less, or raise \
                 server.max_body_bytes."
            ),
        )
    }

    /// The client took too long to send its request.
    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "request_timeout",
            "The body did not arrive in time. Send it faster.".to_owned(),
        )
    }

    /// The body is of a kind that an HTML form can send.
    pub(crate) fn unsupported_media() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "unsupported_media_type",
            "The body must be JSON. Send the header `content-type: application/json`.".to_owned(),
        )
    }

    /// Too many large bodies are being read.
    pub(crate) fn too_many_bodies() -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "too_many_requests",
            "Too many large bodies are being read. Try again shortly.".to_owned(),
        );
        problem.0.retry_after_ms = Some(1_000);
        problem
    }

    /// A mistake of ours. What it was is in the log, not here.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "internal",
            "nearfar made a mistake. Its log says more.".to_owned(),
        )
    }

    /// As many requests as allowed are under way.
    pub fn busy(limit: usize) -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "too_many_requests",
            format!("{limit} requests are under way, which is the limit. Try again shortly."),
        );
        problem.0.retry_after_ms = Some(1_000);
        problem
    }

    /// nearfar is stopping.
    pub fn draining() -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "draining",
            "nearfar is stopping. Try again shortly.".to_owned(),
        );
        problem.0.retry_after_ms = Some(2_000);
        problem
    }

    /// A limit is reached. A rate comes back by itself, and clients wait for it;
    /// a budget does not soon, so it has the code that OpenAI's clients and what
    /// is built on them do not try again.
    pub(crate) fn limited(denied: Box<Denied>, explanation: Option<Box<Explanation>>) -> Self {
        let (kind, code) = if denied.is_final() {
            ("insufficient_quota", "insufficient_quota")
        } else {
            ("rate_limit_error", "rate_limit_exceeded")
        };
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut problem = Self::new(status, kind, code, denied.message());
        problem.0.retry_after_ms = denied.retry_after_ms();
        problem.0.limit = Some(denied);
        problem.0.explanation = explanation;
        problem
    }

    /// Only a kept answer would do, and there is none.
    pub(crate) fn not_cached() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "invalid_request_error",
            "not_cached",
            "The request takes a kept answer only (only-if-cached), and none is kept. Leave \
             only-if-cached out to have it answered."
                .to_owned(),
        )
    }

    /// No allowed target can answer.
    pub fn refused(explanation: Explanation) -> Self {
        let Verdict::Refuse(refusal) = explanation.verdict else {
            // Only a refusal is ever turned into a problem.
            return Self::internal();
        };
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            refusal::code(refusal),
            refusal::message(refusal, &explanation),
        );
        if refusal == Refusal::Health {
            problem.0.retry_after_ms = Some(1_000);
        }
        if refusal == Refusal::Scope {
            problem.0.status = StatusCode::FORBIDDEN;
            problem.0.kind = "permission_error";
            problem.0.param = Some("model".to_owned());
        }
        if refusal::only_too_long(&explanation) {
            // What OpenAI's clients look for to shorten a conversation.
            problem.0.status = StatusCode::BAD_REQUEST;
            problem.0.kind = "invalid_request_error";
            problem.0.code = "context_length_exceeded".to_owned();
            problem.0.param = Some("messages".to_owned());
        }
        problem.0.explanation = Some(Box::new(explanation));
        problem
    }

    /// Every leg failed; this is what the last one said.
    pub fn failed(failure: &Failure) -> Self {
        let (status, kind) = status_of(failure);
        let mut problem = Self::new(status, kind, code_of(failure), failure.message.clone());
        problem.0.param.clone_from(&failure.field);
        problem.0.retry_after_ms = failure.retry_after_ms;
        problem.0.upstream_status = failure.upstream_status;
        // A provider's own code tells more, unless clients look for ours.
        if let Some(code) = &failure.upstream_code
            && failure.kind != FailureKind::ContextLength
        {
            problem.0.code.clone_from(code);
        }
        problem
    }

    /// The same, where the dialect has another name for a field.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        if let Some(param) = &mut self.0.param
            && let Some(rest) = param.strip_prefix(from)
        {
            *param = format!("{to}{rest}");
            self.0.message = self.0.message.replace(from, to);
        }
        self
    }

    /// The same under another code.
    pub(crate) fn coded(mut self, code: &str) -> Self {
        code.clone_into(&mut self.0.code);
        self
    }

    /// The same, with the decision and the leg that it came from.
    pub(crate) fn of_leg(mut self, decision: DecisionId, target: TargetId) -> Self {
        self.0.leg = Some((decision, target));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The error in a dialect's shape. Also used inside a stream that has begun,
    /// where `request_id` is not known.
    pub(crate) fn body(&self, dialect: Dialect, request_id: Option<&str>) -> Value {
        match dialect {
            Dialect::Openai => self.openai_body(),
            Dialect::Anthropic => self.anthropic_body(request_id),
            Dialect::Ollama => super::ollama::error_body(self),
        }
    }

    /// Anthropic's error object, and what it has no place for under `nearfar`.
    fn anthropic_body(&self, request_id: Option<&str>) -> Value {
        let told = &self.0;
        let kind = match told.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 if told.kind == "server_error" && told.explanation.is_none() => "overloaded_error",
            504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        // The message is all that Anthropic's clients show.
        let message = match &told.param {
            Some(param) if !told.message.contains(param.as_str()) => {
                format!("{param}: {}", told.message)
            }
            _ => told.message.clone(),
        };
        let mut nearfar = match &told.explanation {
            Some(explanation) => super::route::explanation_json(explanation),
            None => json!({}),
        };
        if let Some(denied) = &told.limit {
            nearfar["limit"] = limit_json(denied);
        }
        nearfar["code"] = json!(told.code);
        nearfar["param"] = json!(told.param);
        if let Some(status) = told.upstream_status {
            nearfar["upstream_status"] = json!(status);
        }
        json!({
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": request_id,
            "nearfar": nearfar,
        })
    }

    /// OpenAI's error object.
    pub fn openai_body(&self) -> Value {
        let mut body = json!({
            "error": {
                "message": self.0.message,
                "type": self.0.kind,
                "param": self.0.param,
                "code": self.0.code,
            }
        });
        if let Some(explanation) = &self.0.explanation {
            body["nearfar"] = super::route::explanation_json(explanation);
        }
        if let Some(denied) = &self.0.limit {
            body["nearfar"]["limit"] = limit_json(denied);
        }
        if let Some(status) = self.0.upstream_status {
            body["error"]["upstream_status"] = json!(status);
        }
        body
    }
}

/// In OpenAI's shape; [`super::front`] writes the body anew for other dialects.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (
            self.0.status,
            [(header::CONTENT_TYPE, "application/json")],
            self.openai_body().to_string(),
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(ms) = self.0.retry_after_ms {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(ms.div_ceil(1_000).max(1)),
            );
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"nearfar\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        let mut tell = |name: &'static str, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(explanation) = &self.0.explanation {
            tell("x-nearfar-decision", explanation.id.to_string());
            let passes = self.0.limit.is_some()
                || matches!(explanation.verdict, Verdict::Refuse(Refusal::Health));
            if !passes {
                // OpenAI's clients would otherwise try the same thing again.
                tell("x-should-retry", "false".to_owned());
            }
        }
        if self
            .0
            .limit
            .as_ref()
            .is_some_and(|denied| denied.is_final())
        {
            tell("x-should-retry", "false".to_owned());
        }
        if self.0.code == "not_cached" {
            tell("x-nearfar-cache", "miss".to_owned());
            tell("x-should-retry", "false".to_owned());
        }
        if let Some((decision, target)) = &self.0.leg {
            tell("x-nearfar-decision", decision.to_string());
            tell("x-nearfar-target", target.to_string());
        }
        tell("x-nearfar-reason", self.0.code.clone());
        if let Some(denied) = &self.0.limit {
            let quotas = Quotas(vec![denied.quota()]);
            response.extensions_mut().insert(quotas);
        }
        // For the front, which knows the request's dialect.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RoadError> for Problem {
    fn from(error: RoadError) -> Self {
        match error {
            RoadError::Field(field, message) => Self::field(field, message),
            RoadError::NoSuchModel(message) => Self::no_such_model(message),
            RoadError::Blocked(blocked) => Self::blocked(&blocked),
            RoadError::Busy { limit } => Self::busy(limit),
            RoadError::Draining => Self::draining(),
            RoadError::Limited(denied, explanation) => Self::limited(denied, explanation),
            RoadError::NotCached => Self::not_cached(),
            RoadError::Refused(explanation) => Self::refused(*explanation),
            RoadError::Failed {
                decision,
                target,
                failure,
            } => Self::failed(&failure).of_leg(decision, target),
        }
    }
}

fn limit_json(denied: &Denied) -> Value {
    json!({
        "name": denied.limit,
        "of": denied.of,
        "measure": denied.measure,
        "allowed": denied.most,
        "used": denied.figures.used,
        "reserved": denied.figures.reserved,
        "wanted": denied.wanted,
    })
}

fn status_of(failure: &Failure) -> (StatusCode, &'static str) {
    match failure.kind {
        FailureKind::BadRequest
        | FailureKind::Unsupported
        | FailureKind::Refused
        | FailureKind::Blocked
        | FailureKind::ContextLength => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        FailureKind::Forbidden => (StatusCode::FORBIDDEN, "permission_error"),
        FailureKind::ModelMissing => (StatusCode::NOT_FOUND, "invalid_request_error"),
        FailureKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        FailureKind::Overloaded | FailureKind::Crashed | FailureKind::ModelBroken => {
            (StatusCode::SERVICE_UNAVAILABLE, "server_error")
        }
        FailureKind::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "server_error"),
        // A provider that refuses our key is our set-up's fault, not the
        // client's: a 401 would tell the client to change its own key.
        FailureKind::Unauthorized
        | FailureKind::Unreachable
        | FailureKind::Cut
        | FailureKind::TooDear
        | FailureKind::Malformed
        | FailureKind::TargetError => (StatusCode::BAD_GATEWAY, "server_error"),
        FailureKind::Cancelled | FailureKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
        }
    }
}

fn code_of(failure: &Failure) -> &'static str {
    match failure.kind {
        // The code that OpenAI's clients look for.
        FailureKind::ContextLength => "context_length_exceeded",
        FailureKind::ModelMissing => "model_not_found",
        FailureKind::RateLimited => "rate_limit_exceeded",
        // Azure's code, which its clients look for.
        FailureKind::Refused => "content_filter",
        FailureKind::Blocked => "guard_blocked",
        FailureKind::TooDear => "cost_limit_exceeded",
        kind => kind.as_str(),
    }
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;

//! What holds for every request of a listener before and after its route: the
//! checks of `Host` and `Origin`, request ids, `OPTIONS`, errors in the dialect
//! of the request, and a reply even when a handler panics.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::dialect::Dialect;
use super::hosts::Hosts;
use super::limits::Quotas;
use super::problem::Problem;
use super::unread::Noted;
use crate::telemetry::RequestIds;

/// One listener's routes with what surrounds them.
pub(crate) struct Front {
    router: Router,
    hosts: Hosts,
    ids: RequestIds,
}

impl Front {
    pub(crate) fn new(router: Router, hosts: Hosts) -> Arc<Self> {
        let router = router
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method);
        Arc::new(Self {
            router,
            hosts,
            ids: RequestIds::new(),
        })
    }

    /// Answers one request that came in on `local` (`None`: a unix socket,
    /// which no browser can reach and which needs no checks of names).
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        local: Option<IpAddr>,
    ) -> Response<Body> {
        let id = self.ids.draw();
        let options = request.method() == Method::OPTIONS;
        let dialect = Dialect::of(request.uri().path(), request.headers());
        let checked = local.map_or(Ok(()), |local| {
            self.hosts.check(request.uri(), request.headers(), local)
        });
        let (head, body) = request.into_parts();
        let (body, unread) = Noted::new(body);
        let request = Request::from_parts(head, Body::new(body));
        let mut response = match checked {
            Ok(()) => self.route(request).await,
            Err(problem) => problem.into_response(),
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>()
            && dialect != Dialect::Openai
        {
            let body = problem.body(dialect, Some(&id)).to_string();
            response.headers_mut().remove("content-length");
            *response.body_mut() = Body::from(body);
        }
        if let Some(quotas) = response.extensions_mut().remove::<Quotas>() {
            quotas.tell(dialect, response.headers_mut());
        }
        if options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // The path is there; `Allow` tells what may be done with it.
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.body_mut() = Body::empty();
            response.headers_mut().remove("content-type");
            response.headers_mut().remove("content-length");
            response.headers_mut().remove("x-nearfar-reason");
        }
        if unread.get() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            let headers = response.headers_mut();
            if dialect == Dialect::Anthropic {
                // Its clients look here.
                headers.insert(HeaderName::from_static("request-id"), id.clone());
            }
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        response
    }

    async fn route(&self, request: Request<Body>) -> Response<Body> {
        let routed = self.router.clone().oneshot(request);
        match AssertUnwindSafe(routed).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            // The panic hook has told where.
            Err(_) => Problem::internal().into_response(),
        }
    }
}

async fn no_such_path(request: Request<Body>) -> Problem {
    // Paths are the client's text; only their shape is told.
    let path = request.uri().path();
    let mend = if path.starts_with("/v1") {
        "The paths are POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, \
         /v1/messages, /v1/prefill, /v1/route and GET /v1/models."
    } else if path.starts_with("/api") {
        "The paths are POST /api/chat, /api/generate, /api/embed, /api/show and GET /api/tags, \
         /api/ps, /api/version."
    } else {
        "The API's paths begin with /v1, or with /api for Ollama's."
    };
    Problem::not_found("unknown_path", format!("There is no such path. {mend}"))
}

async fn no_such_method() -> Problem {
    Problem::method_not_allowed(
        "The path exists, but not with this method. The header `allow` tells which it takes.",
    )
}

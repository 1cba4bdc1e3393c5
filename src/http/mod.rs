//! What clients speak: listeners, routes, dialects and errors.
//!
//! In reading order: [`listener`] accepts connections within limits, [`front`]
//! is what holds for every request, [`hosts`] keeps web pages out, [`body`]
//! reads bodies within bounds, [`caller`] says who asks, [`dialect`] says what a dialect is and
//! [`openai`], [`anthropic`] and [`ollama`] are such, [`tags`] and [`asked`] make a question for the road out
//! of a request, [`reply`] sends the answer, [`problem`] is every error. [`api`] and [`admin`] are the routes of
//! the data and the control API. Nothing here decides where a request goes.

mod admin;
mod anthropic;
mod api;
mod asked;
mod body;
mod cache;
mod caller;
mod collect;
mod dialect;
mod fields;
mod front;
mod hosts;
pub(crate) mod keys;
mod limits;
mod listener;
mod memory;
pub(crate) mod ollama;
pub mod openai;
mod prefill;
mod probes;
pub mod problem;
mod query;
mod refusal;
mod reply;
pub mod route;
mod stall;
pub mod tags;
mod unread;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::gate::Gate;
use crate::handover::ListenerKind;

/// How long a client may leave its reply unread.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// Serves one listening socket until `drain` turns true, and then until what is
/// under way on it has ended. Dropping the future ends its connections at once.
pub async fn serve_listener(
    gate: Arc<Gate>,
    kind: ListenerKind,
    fd: OwnedFd,
    drain: watch::Receiver<bool>,
) {
    let socket = match kind {
        ListenerKind::Tcp => listener::Socket::tcp(fd),
        ListenerKind::Unix | ListenerKind::Control => listener::Socket::unix(fd),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = ?kind, %error, "a listening socket cannot be used");
            return;
        }
    };
    let server = &gate.config().server;
    let address = socket.address();
    let requires_key = kind != ListenerKind::Control
        && match (kind, address) {
            // Of what cannot be told the worst is assumed.
            (ListenerKind::Tcp, None) => true,
            (_, address) => gate.config().access.requires_key(address),
        };
    let limits = listener::ConnectionLimits {
        max_connections: server.max_connections,
        header_timeout: server.header_timeout,
        write_stall: WRITE_STALL,
    };
    let mut hosts = hosts::Hosts::new(server.listen.iter().map(|addr| addr.ip()));
    if requires_key {
        // A page that a re-bound name lets in has no key.
        hosts = hosts.of_any_name();
    }
    let bodies = body::Bodies::new(server.max_body_bytes, server.body_timeout);
    let mut routes = api::routes();
    if kind == ListenerKind::Control {
        routes = routes.merge(admin::routes()).merge(keys::routes());
    }
    let api = api::Api {
        gate,
        bodies,
        requires_key,
    };
    let router = routes.with_state(Arc::new(api));
    let front = front::Front::new(router, hosts);
    let answer = move |request, local| Arc::clone(&front).answer(request, local);
    listener::serve(socket, limits, answer, drain).await;
}

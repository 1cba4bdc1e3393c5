//! One job: a request out, its answer back as events.
//!
//! Dropping the future closes the connection (HTTP/1) or resets its stream
//! (HTTP/2): that is how a job is cancelled. Nothing is read ahead of what the
//! gate takes, beyond one piece and the connection's own window.

use std::time::Duration;

use bytes::Bytes;
use nearfar_domain::chat::Prompt;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::EgressJob;
use reqwest::StatusCode;
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};

use crate::client::Clients;
use crate::codec::{self, Decoder, Encoded};
use crate::emit::Emitter;
use crate::exchange::{Upstream, error_of, headers, late, send, url};
use crate::prefill;
use crate::reading::{Reading, Stopped};
use crate::upstream::scrub;

/// Runs a job to its last event.
pub(crate) async fn run(job: EgressJob, upstream: &Upstream, clients: &Clients, emit: &Emitter) {
    let deadline = Instant::now() + Duration::from_millis(job.limits.total_ms);
    let provider = upstream.provider.name.as_str();
    let total_ms = job.limits.total_ms;
    let stopped = match timeout_at(deadline, answer(job, upstream, clients, emit)).await {
        Ok(Ok(())) | Ok(Err(Stopped::Gone)) => return,
        Ok(Err(Stopped::Failed(failure))) => failure,
        Err(_) => late(format!(
            "{provider} did not finish its answer within {total_ms} ms"
        )),
    };
    let mut failure = stopped;
    let key = upstream.key.get();
    scrub(&mut failure, key.as_ref().map(|key| key.expose_secret()));
    tracing::info!(
        provider,
        kind = failure.kind.as_str(),
        status = failure.upstream_status,
        "a provider's answer failed"
    );
    // A gate that is gone needs no last event.
    let _ = emit.event(Event::Failed(failure)).await;
}

async fn answer(
    job: EgressJob,
    upstream: &Upstream,
    clients: &Clients,
    emit: &Emitter,
) -> Result<(), Stopped> {
    let provider = &upstream.provider;
    let (model, limits) = (job.model, job.limits);
    let mut chat = job.chat.into_chat();
    prefill::go_on(&mut chat, &job.partial, job.partial_tokens, provider);
    let inputs = match &chat.prompt {
        Prompt::Inputs(inputs) => Some(inputs.items.len()),
        Prompt::Turns(_) | Prompt::Text(_) => None,
    };
    // Vectors come whole.
    let stream = job.stream && inputs.is_none();
    let encoded = codec::encode(provider, &chat, &model, stream).map_err(Failure::from)?;
    drop(chat);
    let client = clients.get(limits.connect_ms).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            format!("the HTTP client cannot be set up: {error}"),
        )
    })?;
    let body = Bytes::from(encoded.body);
    let outline = Encoded {
        body: Vec::new(),
        ..encoded
    };
    let address = url(provider, outline.path, &model)?;
    let mut tried_again = false;
    let (response, first_by) = loop {
        let key = upstream.shown(&client).await?;
        let headers = headers(upstream, &outline, key.as_ref(), &address, &body, stream)?;
        let request = client.post(address.clone()).headers(headers);
        let sent = send(request, body.clone(), provider, limits).await?;
        let refused = sent.0.status() == StatusCode::UNAUTHORIZED;
        // The key may have been replaced on disk since it was read.
        if refused && !std::mem::replace(&mut tried_again, true) && upstream.refused().await {
            continue;
        }
        break sent;
    };
    drop(body);
    if !response.status().is_success() {
        return Err(error_of(response, upstream, limits).await.into());
    }
    let nonce = emit.job.0 ^ u64::from(std::process::id());
    let decoder = match inputs {
        Some(inputs) => Decoder::embeddings(&provider.name, &model, inputs),
        None => Decoder::new(provider.dialect, &provider.name, &model, nonce),
    };
    let reading = Reading {
        provider: &provider.name,
        decoder,
        limits,
        joined: job.joined,
        emit,
    };
    reading.read(response, first_by, stream).await
}

//! An answer on its way past: written down event by event, kept when it is whole.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use nearfar_domain::events::{Event, FinishReason};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;

use super::flight::Lead;
use super::near::Vector;
use super::shelf::Entry;
use super::{Cache, Plan};

/// A whole answer's events, one after another, as compact bytes (postcard).
#[derive(Clone)]
pub struct Tape(Bytes);

impl Tape {
    /// Its bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing on it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Option<Event> {
        let (event, rest) = postcard::take_from_bytes(&self.0).ok()?;
        self.0 = self.0.slice_ref(rest);
        Some(event)
    }
}

/// What is known of an answer beside its events.
pub struct About {
    /// See [`Entry::tenant`].
    pub tenant: Arc<str>,
    /// See [`Entry::ceiling`].
    pub ceiling: Zone,
    /// See [`Entry::target`].
    pub target: TargetId,
    /// See [`Entry::zone`].
    pub zone: Zone,
    /// See [`Entry::weights`].
    pub weights: String,
    /// What it cost, there once the request is settled.
    pub cost_micro: Arc<OnceLock<Option<u64>>>,
    /// What every placeholder of the request ends in, where identifiers were
    /// replaced in it.
    pub nonce: Option<String>,
}

type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// An answer's events, unchanged; they are kept when the answer is whole.
pub struct Recorder {
    events: Events,
    taking: Option<Taking>,
}

struct Taking {
    cache: Arc<Cache>,
    plan: Plan,
    vector: Option<Vector>,
    about: About,
    bytes: Vec<u8>,
    /// Whether there is anything that a client would see.
    shown: bool,
    /// Held until the answer is kept or will not be.
    _lead: Option<Lead>,
}

impl Recorder {
    /// Writes these events down for that place in the cache.
    pub fn new(
        events: Events,
        cache: Arc<Cache>,
        plan: Plan,
        vector: Option<Vector>,
        about: About,
        lead: Option<Lead>,
    ) -> Self {
        let taking = Taking {
            cache,
            plan,
            vector,
            about,
            bytes: Vec::new(),
            shown: false,
            _lead: lead,
        };
        Self {
            events,
            taking: Some(taking),
        }
    }

    fn see(&mut self, event: &Event) {
        let Some(mut taking) = self.taking.take() else {
            return;
        };
        taking.shown |= event.is_visible();
        let whole = match event {
            // In the middle of an answer: it broke off and another leg goes on.
            Event::Started { .. } | Event::Failed(_) => return,
            Event::Finished { reason, .. } => Some(*reason),
            _ => None,
        };
        if !taking.write(event) {
            return;
        }
        match whole {
            None => self.taking = Some(taking),
            Some(FinishReason::Stop | FinishReason::ToolCalls) if taking.shown => taking.keep(),
            // A limit or a filter cut it: the next try may fare better.
            Some(_) => {}
        }
    }
}

impl Taking {
    /// Tells whether there was room.
    fn write(&mut self, event: &Event) -> bool {
        let bytes = std::mem::take(&mut self.bytes);
        match postcard::to_extend(event, bytes) {
            Ok(bytes) if bytes.len() <= self.cache.most_bytes() => {
                self.bytes = bytes;
                true
            }
            _ => false,
        }
    }

    fn keep(self) {
        let now = Instant::now();
        let tape = Tape(Bytes::from(self.bytes.into_boxed_slice()));
        let about = self.about;
        if about.nonce.is_some_and(|nonce| mentions(&tape, &nonce)) {
            return;
        }
        let entry = Entry {
            tenant: about.tenant,
            ceiling: about.ceiling,
            target: about.target,
            zone: about.zone,
            weights: about.weights,
            cost_micro: about.cost_micro.get().copied().flatten(),
            tape,
            made: now,
            expires: now + self.plan.ttl,
        };
        self.cache.put(&self.plan, self.vector, entry, now);
    }
}

/// Whether an answer holds what is left of a placeholder that could not be
/// replaced. The next request's would end otherwise.
fn mentions(tape: &Tape, nonce: &str) -> bool {
    let mut tape = tape.clone();
    let (mut texts, mut calls) = (String::new(), String::new());
    while let Some(event) = tape.next_event() {
        match event {
            Event::Content(text) | Event::Reasoning(text) => texts.push_str(&text),
            Event::ToolCall(call) => calls.push_str(&call.arguments),
            _ => {}
        }
    }
    let nonce = nonce.to_ascii_lowercase();
    let has = |text: String| text.to_ascii_lowercase().contains(&nonce);
    has(texts) || has(calls)
}

impl Stream for Recorder {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.events.as_mut().poll_next(context);
        if let Poll::Ready(Some(event)) = &polled {
            self.see(event);
        }
        polled
    }
}

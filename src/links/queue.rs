//! The pieces of one job that arrived and were not read yet.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::{DownloadEvent, LedgerEnd, SharedEnd};

use super::locked;

/// The most bytes that may wait for one job's reader. An answer is a few
/// kilobytes; a mebibyte waits only for a client that has stopped reading.
pub(crate) const MAX_WAITING_BYTES: usize = 1 << 20;

/// From this many waiting pieces on, text is joined to the piece before it.
const JOIN_FROM: usize = 16;

/// What a queue must know of its pieces.
pub trait Piece: Sized + Send + 'static {
    /// Bytes that it occupies, roughly.
    fn bytes(&self) -> usize;
    /// Joins `next` to this piece, or gives it back.
    fn join(&mut self, next: Self) -> Option<Self>;
    /// Whether nothing follows.
    fn is_last(&self) -> bool;
    /// The last piece of a job whose process went away.
    fn lost() -> Self;
    /// The last piece of a job whose reader fell behind.
    fn overrun() -> Self;
}

impl Piece for Event {
    fn bytes(&self) -> usize {
        let content = match self {
            Event::Started { model } => model.len(),
            Event::Content(text) | Event::Reasoning(text) | Event::StoppedBy(text) => text.len(),
            Event::Signature { signature, .. } => signature.data.len(),
            Event::ToolCall(delta) => {
                delta.arguments.len()
                    + delta.id.as_ref().map_or(0, String::len)
                    + delta.name.as_ref().map_or(0, String::len)
            }
            Event::Logprobs(tokens) => tokens
                .iter()
                .map(|t| {
                    let top: usize = t.top.iter().map(|(s, b, _)| s.len() + b.len() + 56).sum();
                    t.token.len() + t.bytes.len() + top + 80
                })
                .sum(),
            // All of a request's vectors may come at once. What bounds them is
            // the request's own number of inputs, so they weigh little here.
            Event::Vectors(vectors) => vectors.len(),
            Event::Finished { .. } | Event::Failed(_) => 0,
        };
        content + size_of::<Event>()
    }

    fn join(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Event::Content(text), Event::Content(more))
            | (Event::Reasoning(text), Event::Reasoning(more)) => {
                text.push_str(&more);
                None
            }
            (Event::ToolCall(call), Event::ToolCall(more))
                if call.index == more.index && more.id.is_none() && more.name.is_none() =>
            {
                call.arguments.push_str(&more.arguments);
                None
            }
            (_, next) => Some(next),
        }
    }

    fn is_last(&self) -> bool {
        Event::is_last(self)
    }

    fn lost() -> Self {
        Event::Failed(super::lost())
    }

    fn overrun() -> Self {
        Event::Failed(Failure::new(
            FailureKind::Cancelled,
            "The answer was stopped: more than 1 MiB of it waited for the client to read on.",
        ))
    }
}

impl Piece for DownloadEvent {
    fn bytes(&self) -> usize {
        size_of::<DownloadEvent>()
    }

    fn join(&mut self, next: Self) -> Option<Self> {
        if matches!(self, DownloadEvent::Progress { .. })
            && matches!(next, DownloadEvent::Progress { .. })
        {
            *self = next;
            None
        } else {
            Some(next)
        }
    }

    fn is_last(&self) -> bool {
        !matches!(self, DownloadEvent::Progress { .. })
    }

    fn lost() -> Self {
        DownloadEvent::Failed {
            message: "The egress process went away. It is being restarted; the download goes on \
                      from where it was when it is asked for again."
                .to_owned(),
            retryable: true,
        }
    }

    fn overrun() -> Self {
        DownloadEvent::Failed {
            message: "Progress of the download was not read.".to_owned(),
            retryable: true,
        }
    }
}

impl Piece for LedgerEnd {
    fn bytes(&self) -> usize {
        size_of::<LedgerEnd>()
    }

    fn join(&mut self, next: Self) -> Option<Self> {
        Some(next)
    }

    fn is_last(&self) -> bool {
        true
    }

    fn lost() -> Self {
        LedgerEnd::Failed {
            message: "the egress process is not there; it is being restarted".to_owned(),
        }
    }

    fn overrun() -> Self {
        Self::lost()
    }
}

impl Piece for SharedEnd {
    fn bytes(&self) -> usize {
        size_of::<SharedEnd>()
    }

    fn join(&mut self, next: Self) -> Option<Self> {
        Some(next)
    }

    fn is_last(&self) -> bool {
        true
    }

    fn lost() -> Self {
        SharedEnd::Failed {
            message: "the egress process is not there; it is being restarted".to_owned(),
        }
    }

    fn overrun() -> Self {
        Self::lost()
    }
}

/// Pieces between a link's reader, which never waits, and the job's reader.
pub(crate) struct Queue<P> {
    inner: Mutex<Inner<P>>,
}

struct Inner<P> {
    pieces: VecDeque<P>,
    bytes: usize,
    /// When the last piece came in; later ones are ignored.
    ended: Option<Instant>,
    waker: Option<Waker>,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, and more may come.
    More,
    /// It was the last one.
    Last,
    /// The reader is too far behind: the job is to be stopped.
    Overrun,
}

impl<P: Piece> Queue<P> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                pieces: VecDeque::new(),
                bytes: 0,
                ended: None,
                waker: None,
            }),
        }
    }

    /// Adds a piece. Never waits.
    pub(crate) fn push(&self, piece: P) -> Pushed {
        let mut inner = locked(&self.inner);
        if inner.ended.is_some() {
            return Pushed::Last;
        }
        let bytes = piece.bytes();
        let mut pushed = Pushed::More;
        if piece.is_last() {
            inner.ended = Some(Instant::now());
            pushed = Pushed::Last;
            inner.pieces.push_back(piece);
        } else if inner.bytes.saturating_add(bytes) > MAX_WAITING_BYTES {
            inner.ended = Some(Instant::now());
            pushed = Pushed::Overrun;
            inner.pieces.push_back(P::overrun());
        } else {
            let crowded = inner.pieces.len() >= JOIN_FROM;
            let before = inner.pieces.back_mut().filter(|_| crowded);
            let (rest, was, is) = match before {
                Some(last) => {
                    let was = last.bytes();
                    let rest = last.join(piece);
                    (rest, was, last.bytes())
                }
                None => (Some(piece), 0, 0),
            };
            inner.bytes = inner.bytes + is - was;
            if let Some(piece) = rest {
                inner.bytes += piece.bytes();
                inner.pieces.push_back(piece);
            }
        }
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        pushed
    }

    /// The next piece; `None` after the last one.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<P>> {
        let mut inner = locked(&self.inner);
        if let Some(piece) = inner.pieces.pop_front() {
            inner.bytes = inner.bytes.saturating_sub(piece.bytes());
            return Poll::Ready(Some(piece));
        }
        if inner.ended.is_some() {
            return Poll::Ready(None);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// When the last piece came in, read or not.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        locked(&self.inner).ended
    }
}

//! Lets a request in, or turns it away before it costs anything.
//!
//! [`Keys`] says who asks, as an [`Identity`]; [`Admission`] is the door.
//!
//! What is not here: the size of a body and how long it may take to arrive
//! ([`crate::http`]), and privacy, which is a matter of the decision.

mod identity;
mod keys;
mod token;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use identity::{DEFAULT_TENANT, Identity, WrongFeature};
pub use keys::{DEFAULT_GRACE_MS, Denied, KeyProblem, Keys, NewKey};
pub use token::Token;

/// The door.
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: usize,
    draining: watch::Sender<bool>,
}

/// The right to one request. Gives its place back when dropped.
pub struct Ticket {
    identity: Arc<Identity>,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    /// Who asks.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// As many requests as allowed are under way.
    Busy {
        /// The limit.
        limit: usize,
    },
    /// nearfar is stopping.
    Draining,
}

impl TurnedAway {
    /// The word in metrics and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnedAway::Busy { .. } => "busy",
            TurnedAway::Draining => "draining",
        }
    }
}

impl Admission {
    /// A door for this many requests at a time.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            draining: watch::Sender::new(false),
        }
    }

    /// One more request.
    ///
    /// # Errors
    /// When there are too many, or nearfar is stopping.
    pub fn admit(&self, identity: &Arc<Identity>) -> Result<Ticket, TurnedAway> {
        if self.is_draining() {
            return Err(TurnedAway::Draining);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let limit = self.limit;
        Ok(Ticket {
            identity: Arc::clone(identity),
            _permit: permit.map_err(|_| TurnedAway::Busy { limit })?,
        })
    }

    /// From now on nobody is let in.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether nearfar is stopping.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Follows whether nearfar is stopping.
    pub fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.limit - self.permits.available_permits().min(self.limit)
    }

    /// Waits until no request is under way. Meant for draining, when none comes in.
    pub async fn idle(&self) {
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        // The semaphore is never closed; were it, nothing would be under way.
        let _ = self.permits.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_limit_holds_and_a_dropped_ticket_makes_room() {
        let door = Admission::new(2);
        let first = door.admit(&Arc::default()).unwrap();
        let _second = door.admit(&Arc::default()).unwrap();
        assert_eq!(
            door.admit(&Arc::default()).err(),
            Some(TurnedAway::Busy { limit: 2 })
        );
        assert_eq!(door.under_way(), 2);
        drop(first);
        assert!(door.admit(&Arc::default()).is_ok());
    }

    #[tokio::test]
    async fn draining_turns_all_away_and_waits_for_those_inside() {
        let door = Admission::new(2);
        let inside = door.admit(&Arc::default()).unwrap();
        door.drain();
        assert_eq!(
            door.admit(&Arc::default()).err(),
            Some(TurnedAway::Draining)
        );
        let mut idle = Box::pin(door.idle());
        let waiting = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(Future::poll(idle.as_mut(), cx).is_pending())
        });
        assert!(waiting.await);
        drop(inside);
        idle.await;
    }
}

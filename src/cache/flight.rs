//! Requests that ask what is being answered already: they wait for that answer
//! in place of asking for it once more.
//!
//! Whoever answers holds a [`Lead`]. When it is dropped, whether the answer was
//! kept or its client went away, those who waited look again: they find it, or
//! one of them leads next. Nobody depends on another client's patience.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::key::Key;
use super::locked;

/// What is being answered now.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Key, watch::Receiver<()>>>);

/// A request's part in it.
pub enum Flight {
    /// It is the first: hold this until its answer is kept.
    Lead(Lead),
    /// Another one is being answered; ends when that one's lead does.
    Follow(watch::Receiver<()>),
}

/// The first of several requests that are the same.
pub struct Lead {
    flights: Arc<Flights>,
    key: Key,
    /// Dropped after the key was removed, so that who wakes can lead.
    _done: watch::Sender<()>,
}

impl Flights {
    pub(super) fn join(self: &Arc<Self>, key: Key) -> Flight {
        let mut flights = locked(&self.0);
        if let Some(other) = flights.get(&key) {
            return Flight::Follow(other.clone());
        }
        let (done, waiting) = watch::channel(());
        flights.insert(key, waiting);
        Flight::Lead(Lead {
            flights: Arc::clone(self),
            key,
            _done: done,
        })
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        locked(&self.flights.0).remove(&self.key);
    }
}

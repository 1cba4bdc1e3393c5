//! Whether the processes behind the links are there, or soon will be.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::handover::{PartState, Role};

/// A restart that is farther away than this is not worth waiting for.
const WORTH_WAITING: Duration = Duration::from_secs(5);
/// Between a process's start and its hello.
const START_MS: f64 = 300.0;
/// A process that is said to run and has not said hello for this long is down.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// A process as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Presence {
    /// Its link is live.
    Up,
    /// Its link should be live in this many milliseconds.
    Starting(f64),
    /// Not there, and not soon.
    Down,
}

/// What the supervisor last said of the engine and of egress.
pub struct PartBoard {
    engine: Mutex<Heard>,
    egress: Mutex<Heard>,
}

#[derive(Clone, Copy)]
struct Heard {
    state: PartState,
    at: Instant,
}

impl PartBoard {
    /// Both are being started.
    pub fn new(now: Instant) -> Self {
        let starting = Heard {
            state: PartState::Starting,
            at: now,
        };
        Self {
            engine: Mutex::new(starting),
            egress: Mutex::new(starting),
        }
    }

    fn of(&self, role: Role) -> Option<&Mutex<Heard>> {
        match role {
            Role::Engine => Some(&self.engine),
            Role::Egress => Some(&self.egress),
            // This is the gate.
            Role::Gate => None,
        }
    }

    /// The supervisor says that a process came or went.
    pub fn hear(&self, role: Role, state: PartState, now: Instant) {
        if let Some(part) = self.of(role) {
            *part.lock().unwrap_or_else(PoisonError::into_inner) = Heard { state, at: now };
        }
    }

    /// The process's state for people: up once its link is live.
    pub fn state(&self, role: Role, linked: bool) -> PartState {
        if linked {
            return PartState::Up;
        }
        match self.heard(role) {
            // It runs, but has not said hello to us.
            Some(heard) if heard.state == PartState::Up => PartState::Starting,
            Some(heard) => heard.state,
            None => PartState::Up,
        }
    }

    /// The process as the decision sees it. `gone_since` is when its link went
    /// away, or `None` while it is live.
    pub fn presence(&self, role: Role, gone_since: Option<Instant>, now: Instant) -> Presence {
        let Some(gone) = gone_since else {
            return Presence::Up;
        };
        let Some(heard) = self.heard(role) else {
            return Presence::Up;
        };
        let since = now.saturating_duration_since(heard.at.max(gone));
        match heard.state {
            PartState::Down { restart_in_ms } => {
                let elapsed = now.saturating_duration_since(heard.at);
                let left = Duration::from_millis(restart_in_ms).saturating_sub(elapsed);
                if left <= WORTH_WAITING {
                    Presence::Starting(left.as_secs_f64() * 1e3 + START_MS)
                } else {
                    Presence::Down
                }
            }
            PartState::Starting | PartState::Up if since < HELLO_PATIENCE => {
                Presence::Starting(START_MS)
            }
            PartState::Starting | PartState::Up => Presence::Down,
        }
    }

    fn heard(&self, role: Role) -> Option<Heard> {
        self.of(role)
            .map(|part| *part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_comes_back_soon_is_starting_and_one_that_does_not_is_down() {
        let now = Instant::now();
        let board = PartBoard::new(now);
        assert_eq!(board.presence(Role::Engine, None, now), Presence::Up);
        let soon = PartState::Down { restart_in_ms: 200 };
        board.hear(Role::Engine, soon, now);
        assert_eq!(
            board.presence(Role::Engine, Some(now), now),
            Presence::Starting(500.0)
        );
        let late = PartState::Down {
            restart_in_ms: 30_000,
        };
        board.hear(Role::Engine, late, now);
        assert_eq!(board.presence(Role::Engine, Some(now), now), Presence::Down);
    }

    #[test]
    fn a_link_that_just_broke_is_waited_for_though_the_supervisor_is_silent() {
        let now = Instant::now();
        let board = PartBoard::new(now);
        board.hear(Role::Engine, PartState::Up, now);
        let later = now + Duration::from_secs(3600);
        let presence = board.presence(Role::Engine, Some(later), later);
        assert!(matches!(presence, Presence::Starting(_)));
        let much_later = later + HELLO_PATIENCE;
        let presence = board.presence(Role::Engine, Some(later), much_later);
        assert_eq!(presence, Presence::Down);
    }
}

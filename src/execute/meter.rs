//! What one leg takes of the limits: settled with its last event, or when it
//! is dropped.

use nearfar_domain::events::{Event, Failure, FailureKind};

use super::leg::Brief;
use super::{Errand, Links};
use crate::limits::{Denied, Reservation, Wanted};

/// Reserves a leg's worst case, `part_tokens` of an answer that has begun
/// included.
///
/// # Errors
/// The limit that it could pass.
pub(super) async fn reserve(
    links: &Links,
    errand: &Errand,
    brief: &Brief,
    part_tokens: u32,
) -> Result<Reservation, Box<Denied>> {
    if links.use_limits.is_empty() {
        return Ok(Reservation::default());
    }
    let states = &errand.snapshot.targets;
    let state = states.iter().find(|state| state.target.id == brief.target);
    let context = state.and_then(|state| state.target.capabilities.context_tokens);
    let mut sizes = errand.facts.sizes(context);
    sizes.prompt = sizes.prompt.saturating_add(u64::from(part_tokens));
    sizes.most_prompt = sizes.most_prompt.saturating_add(u64::from(part_tokens));
    let wanted = Wanted {
        target: &brief.target,
        price: brief.price,
        sizes,
    };
    links.use_limits.reserve(&errand.who, &wanted).await
}

/// Watches one leg's events for what they take.
pub(super) struct Meter {
    /// `None` once it is settled.
    reservation: Option<Reservation>,
    local: bool,
    pieces: u64,
}

impl Meter {
    /// The leg has begun.
    pub(super) fn new(mut reservation: Reservation, local: bool) -> Self {
        reservation.begin();
        if local {
            reservation.wrote(0);
        }
        Self {
            reservation: Some(reservation),
            local,
            pieces: 0,
        }
    }

    /// An event as the leg sent it.
    pub(super) fn see(&mut self, event: &Event) {
        let Some(reservation) = &mut self.reservation else {
            return;
        };
        match event {
            Event::Content(_) | Event::Reasoning(_) | Event::ToolCall(_) => {
                self.pieces += 1;
                if self.local {
                    reservation.wrote(self.pieces);
                }
            }
            Event::Finished { usage, .. } => {
                reservation.told(usage);
                self.reservation = None;
            }
            Event::Failed(failure) => {
                if self.pieces == 0 && (self.local || costs_nothing(failure)) {
                    reservation.free();
                }
                self.reservation = None;
            }
            _ => {}
        }
    }
}

/// Whether a provider that failed so before it wrote anything computed nothing:
/// it was not reached, or it answered with an error. One that was silent, or
/// closed the connection, may have computed and may ask for money.
fn costs_nothing(failure: &Failure) -> bool {
    failure.upstream_status.is_some_and(|status| status >= 400)
        || matches!(
            failure.kind,
            FailureKind::Unreachable | FailureKind::Unauthorized | FailureKind::Unsupported
        )
}

//! A reservation: the worst case of a request or leg, held of every limit that
//! applies, until it is known what was really used. Dropping it settles it.

use std::sync::Arc;

use nearfar_domain::events::Usage;
use nearfar_domain::limit::Unit;
use nearfar_domain::price::{Price, Sizes};

use super::Limits;
use super::book::Claim;

/// What a leg took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    tokens: u64,
    cost_micro: Option<u64>,
    estimated: bool,
}

/// A hold on limits. One that is dropped before it [began](Reservation::begin)
/// gives everything back; afterwards it settles at what is known of its use,
/// and at all that it held where nothing is.
#[derive(Debug, Default)]
pub struct Reservation {
    /// `None` where no limit applies.
    of: Option<Arc<Limits>>,
    claims: Vec<Claim>,
    price: Option<Price>,
    sizes: Sizes,
    begun: bool,
    taken: Option<Taken>,
    /// Tokens that were seen, where each one is.
    written: Option<u64>,
}

impl Reservation {
    pub(super) fn new(of: Arc<Limits>, claims: Vec<Claim>) -> Self {
        Self {
            of: Some(of),
            claims,
            ..Self::default()
        }
    }

    /// Holds what another one holds, too.
    pub(super) fn join(&mut self, mut other: Reservation) {
        self.of = self.of.take().or(other.of.take());
        self.claims.append(&mut other.claims);
        other.of = None;
    }

    pub(super) fn of_leg(mut self, price: Option<Price>, sizes: Sizes) -> Self {
        self.price = price;
        self.sizes = sizes;
        self
    }

    /// Something may be used from now on.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// The leg told what it took. A count that it left out is not nothing.
    pub fn told(&mut self, usage: &Usage) {
        self.taken = self.of_usage(usage, false);
    }

    fn of_usage(&self, usage: &Usage, estimated: bool) -> Option<Taken> {
        // What makes vectors writes nothing, and says nothing of it.
        let nothing = self.sizes.most_completion == Some(0);
        let usage = Usage {
            completion: usage.completion.or(nothing.then_some(0)),
            ..*usage
        };
        Some(Taken {
            tokens: usage.prompt?.saturating_add(usage.completion?),
            cost_micro: self.price.and_then(|price| price.cost(&usage)),
            estimated,
        })
    }

    /// The leg ended without having been billed: it never came to compute.
    pub fn free(&mut self) {
        self.taken = Some(Taken {
            tokens: 0,
            cost_micro: Some(0),
            estimated: false,
        });
    }

    /// The leg has written so many tokens so far, each of which was seen: true
    /// of this device's engine, of which nothing is unknown but the prompt's
    /// exact length.
    pub fn wrote(&mut self, tokens: u64) {
        self.written = Some(tokens);
    }

    /// What is known of its use.
    fn known(&self) -> Option<Taken> {
        let written = || {
            let usage = Usage {
                prompt: Some(self.sizes.prompt),
                completion: Some(self.written?),
                ..Usage::default()
            };
            self.of_usage(&usage, true)
        };
        self.taken.or_else(written)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(limits) = self.of.take() else {
            return;
        };
        let (begun, taken) = (self.begun, self.known());
        limits.settle(&self.claims, |unit, held| {
            if !begun {
                return (0, false);
            }
            let known = taken.and_then(|taken| match unit {
                Unit::Requests => None,
                Unit::Tokens => Some((taken.tokens, taken.estimated)),
                Unit::Micro => taken.cost_micro.map(|cost| (cost, taken.estimated)),
            });
            known.unwrap_or((held, unit != Unit::Requests))
        });
    }
}

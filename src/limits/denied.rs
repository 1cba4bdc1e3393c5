//! Why a limit says no, in figures; and how much of one is left.

use nearfar_domain::calendar::date_time;
use nearfar_domain::limit::{Bar, Barred, Measure, Span, Unit};

use super::book::{Figures, Shortfall};
use super::rules::is_budget;
use super::window::Moment;

/// What a client is told to wait when only requests under way are in its way.
const SHORTLY_MS: u64 = 1_000;

/// A limit said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Its name.
    pub limit: String,
    /// What it counts.
    pub measure: Measure,
    /// Whose it is: `tenant acme`; `everything`.
    pub of: String,
    /// How much it allows.
    pub most: u64,
    /// What is used and held.
    pub figures: Figures,
    /// What was wanted; the most that the request may take.
    pub wanted: u64,
    /// Why there is too little; `None` where the target's price is not known.
    pub shortfall: Option<Shortfall>,
    /// When it was.
    pub at: Moment,
    /// Until what is used now counts no more.
    pub resets_in_ms: u64,
}

impl Denied {
    /// How long a client is to wait; `None` where waiting is no help.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self.shortfall? {
            Shortfall::TooLarge => None,
            Shortfall::UsedUp { for_ms } => Some(for_ms),
            Shortfall::Held => Some(SHORTLY_MS),
        }
    }

    /// Whether a budget is used up, or can never be enough: trying again soon
    /// is of no use.
    pub fn is_final(&self) -> bool {
        match self.shortfall {
            None | Some(Shortfall::TooLarge) => true,
            Some(Shortfall::UsedUp { .. }) => is_budget(self.measure),
            Some(Shortfall::Held) => false,
        }
    }

    /// Why the target is out, for the decision.
    pub fn barred(&self) -> Barred {
        let bar = match self.shortfall {
            None => Bar::PriceUnknown,
            Some(Shortfall::TooLarge) => Bar::TooLarge,
            Some(Shortfall::Held) => Bar::Held,
            Some(Shortfall::UsedUp { for_ms }) => Bar::UsedUp {
                until_ms: self.later(for_ms),
            },
        };
        Barred {
            limit: self.limit.clone(),
            measure: self.measure,
            bar,
        }
    }

    /// How much is left.
    pub fn quota(&self) -> Quota {
        Quota {
            unit: self.measure.unit(),
            most: self.most,
            left: self.most.saturating_sub(self.figures.taken()),
            resets_in_ms: self.resets_in_ms,
        }
    }

    /// For people: which limit, its figures, and the mend.
    pub fn message(&self) -> String {
        let (limit, words, of) = (&self.limit, self.measure.words(), &self.of);
        let show = |figure| self.measure.show(figure);
        let (most, used) = (show(self.most), show(self.figures.used));
        let (held, wanted) = (show(self.figures.reserved), show(self.wanted));
        let name = format!("Limit `{limit}` ({words}, {of})");
        match self.shortfall {
            None => format!(
                "{name} counts money, and the price of the target is not known. Name one whose \
                 price is known, or have the price entered."
            ),
            Some(Shortfall::TooLarge) => format!(
                "{name} allows {most}, and this request may take up to {wanted}. Send less, lower \
                 max_tokens, or have the limit raised."
            ),
            Some(Shortfall::Held) if self.measure.span() == Span::Held => format!(
                "{name} allows {most}, and as many are under way. Try again when one has ended."
            ),
            Some(Shortfall::Held) => format!(
                "{name} allows {most}: {used} are used and requests under way hold {held}, which \
                 leaves too little for the {wanted} that this request may take. Try again shortly, \
                 or lower max_tokens."
            ),
            Some(Shortfall::UsedUp { for_ms }) => {
                let mend = if self.measure.unit() == Unit::Requests {
                    "wait"
                } else {
                    "wait, lower max_tokens"
                };
                format!(
                    "{name} is used up: {used} of {most} are used, and this request may take up \
                     to {wanted}. There is room again at {}: {mend}, or have the limit raised.",
                    date_time(self.later(for_ms))
                )
            }
        }
    }

    fn later(&self, ms: u64) -> i64 {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        self.at.unix_ms.saturating_add(ms)
    }
}

/// How much of a limit is left, for the headers of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What is counted.
    pub unit: Unit,
    /// How much is allowed.
    pub most: u64,
    /// How much is left.
    pub left: u64,
    /// Until all of it is there again.
    pub resets_in_ms: u64,
}

//! A request's limit on its cost, while it runs.
//!
//! The decision left out whom the limit does not pay for. Here each leg at a
//! provider is bounded by the tokens that are still paid for, what failed legs
//! cost is counted, and an answer that passes the limit all the same is a fault
//! of its leg's.

use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::price::Sizes;

use super::leg::Brief;
use crate::account::Account;

/// What a request may cost, and how large it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Purse {
    /// In micro-units; `None` is no limit.
    pub(crate) limit_micro: Option<u64>,
    /// What prices are reckoned from.
    pub(crate) sizes: Sizes,
}

impl Purse {
    /// How many tokens a leg may write; `None` where nothing bounds it. `begun`
    /// is for the rest of an answer, which may be short.
    ///
    /// # Errors
    /// The money that is left does not pay for the leg. Where nobody knows what
    /// a failed leg cost, nothing is taken to be left.
    pub(super) fn bound(
        &self,
        brief: &Brief,
        account: &Account,
        begun: bool,
    ) -> Result<Option<u32>, Failure> {
        let Some(limit) = self.limit_micro else {
            return Ok(None);
        };
        let price = brief.price.ok_or_else(too_dear)?;
        if price.is_free() {
            return Ok(None);
        }
        let spent = account.spent().unwrap_or(u64::MAX);
        let left = limit.saturating_sub(spent);
        let paid = price.affordable(left, &self.sizes).ok_or_else(too_dear)?;
        let needed = match (begun, self.sizes.most_completion) {
            (true, _) => 1,
            (false, Some(most)) => most,
            (false, None) => self.sizes.completion,
        };
        if paid < needed {
            return Err(too_dear());
        }
        Ok(u32::try_from(paid).ok())
    }

    /// Whether so much is over the limit.
    pub(super) fn is_over(&self, micro: Option<u64>) -> bool {
        self.limit_micro
            .zip(micro)
            .is_some_and(|(limit, micro)| micro > limit)
    }
}

/// The leg is not begun, or not gone on with.
pub(super) fn too_dear() -> Failure {
    Failure::new(
        FailureKind::TooDear,
        "The answer would cost more than the request allows (x-nearfar-max-cost). Allow more, \
         ask for a shorter answer, or use a cheaper or a local model.",
    )
}

/// The leg wrote more than was asked for and paid.
pub(super) fn passed() -> Failure {
    Failure::new(
        FailureKind::TooDear,
        "The provider wrote more than it was asked for, and more than the request's limit on its \
         cost pays for.",
    )
}

//! How many of a draft's proposals pay.
//!
//! A step that checks `k` proposals of an answer gives `1 + a + … + a^k` tokens
//! on average, where `a` is the share of proposals that the model chooses
//! (Leviathan et al. 2023, section 3), and takes the draft's `k` steps and a
//! longer one of the model. All of these were measured. Answers that share the
//! step wait for it too: what counts is the tokens of all of them per second.
//!
//! Pure arithmetic; nothing here reads a clock.

use super::pace::{Pace, STEP_WHILE_SPEAKING};

/// The most tokens proposed at once.
pub(super) const MOST: usize = 8;
/// Proposals must promise to be faster by this factor.
const WORTH: f64 = 1.05;

/// A step without proposals, and what the two models cost.
pub(super) struct Step<'a> {
    pub(super) model: &'a Pace,
    /// Milliseconds of a draft's step of so many tokens.
    pub(super) draft_ms: &'a dyn Fn(usize) -> f64,
    /// Tokens that it computes.
    pub(super) rows: usize,
    /// Answers that write in it: tokens that come out.
    pub(super) answers: usize,
}

/// An answer for which the draft could propose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Share of proposals that the model chose.
    pub(super) share: f64,
    /// Tokens that the draft has to read first.
    pub(super) behind: usize,
    /// The most tokens that there is room for.
    pub(super) most: usize,
}

/// What is best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// For how many of the offers, from the first on.
    pub(super) count: usize,
    /// Tokens to be proposed for each.
    pub(super) length: usize,
    /// Tokens per second over those without; 1 where none pay.
    pub(super) gain: f64,
}

/// The best for `offers`, which begin with the largest share.
pub(super) fn plan(step: &Step<'_>, offers: &[Offer]) -> Plan {
    let mut best = Plan {
        count: 0,
        length: 0,
        gain: 1.0,
    };
    let alone = step.model.step_ms(step.rows);
    if alone <= 0.0 || step.answers == 0 {
        return best;
    }
    // The gap before the next token, and the time to a cancel, stay bounded.
    let longest = 2.0 * alone + STEP_WHILE_SPEAKING.as_secs_f64() * 1e3;
    let mut least = WORTH;
    for count in 1..=offers.len() {
        let offers = &offers[..count];
        let behind = offers.iter().map(|offer| offer.behind).sum();
        let mut draft = (step.draft_ms)(behind);
        for length in 1..=MOST {
            let checked: usize = offers.iter().map(|offer| offer.most.min(length)).sum();
            let took = draft + step.model.step_ms(step.rows + checked);
            if took > longest {
                break;
            }
            let more: f64 = offers.iter().map(|offer| right(offer, length)).sum();
            let tokens = 1.0 + more / step.answers as f64;
            let gain = tokens * alone / took.max(1e-9);
            if gain > least {
                least = gain;
                best = Plan {
                    count,
                    length,
                    gain,
                };
            }
            draft += (step.draft_ms)(count);
        }
    }
    best
}

/// How many of `length` proposals are right, on average.
fn right(offer: &Offer, length: usize) -> f64 {
    let mut chance = 1.0;
    (0..length.min(offer.most))
        .map(|_| {
            chance *= offer.share;
            chance
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pace(fixed: f64, each: f64) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..50 {
            for tokens in [1usize, 16] {
                let ms = fixed + each * tokens as f64;
                pace.measured(tokens, Duration::from_secs_f64(ms / 1e3));
            }
        }
        pace
    }

    fn offers(shares: &[f64]) -> Vec<Offer> {
        let of = |share: &f64| Offer {
            share: *share,
            behind: 2,
            most: 100,
        };
        shares.iter().map(of).collect()
    }

    fn best(model: &Pace, draft: &Pace, answers: usize, shares: &[f64]) -> Plan {
        let step = Step {
            model,
            draft_ms: &|tokens| draft.step_ms(tokens),
            rows: answers,
            answers,
        };
        plan(&step, &offers(shares))
    }

    #[test]
    fn a_good_cheap_draft_proposes_more_than_a_poor_or_dear_one() {
        let (model, cheap, dear) = (pace(100.0, 2.0), pace(8.0, 0.2), pace(60.0, 1.0));
        let good = best(&model, &cheap, 1, &[0.85]);
        let fair = best(&model, &cheap, 1, &[0.6]);
        assert!(
            good.length > fair.length && fair.length > 0,
            "{good:?} {fair:?}"
        );
        assert!(good.gain > fair.gain && fair.gain > 1.05);
        assert!(good.length <= MOST);
        assert_eq!(best(&model, &cheap, 1, &[0.05]).count, 0);
        assert_eq!(best(&model, &dear, 1, &[0.6]).count, 0);
        assert_eq!(best(&model, &cheap, 1, &[]).gain, 1.0);
        assert_eq!(best(&Pace::default(), &cheap, 1, &[0.9]).count, 0);
    }

    #[test]
    fn where_rows_cost_as_much_as_steps_no_batch_pays() {
        let (model, draft) = (pace(30.0, 20.0), pace(3.0, 2.0));
        let alone = best(&model, &draft, 1, &[0.8]);
        let crowd = best(&model, &draft, 8, &[0.8; 8]);
        assert!(alone.count == 1 && alone.gain > 1.05, "{alone:?}");
        assert_eq!(crowd.count, 0, "{crowd:?}");
    }

    #[test]
    fn only_the_answers_that_gain_take_part() {
        let (model, draft) = (pace(100.0, 4.0), pace(5.0, 0.5));
        let mixed = best(&model, &draft, 3, &[0.9, 0.85, 0.02]);
        assert_eq!(mixed.count, 2, "{mixed:?}");
    }

    #[test]
    fn a_step_does_not_become_a_long_one() {
        // Steps of the draft that would take four of the model's.
        let (model, draft) = (pace(100.0, 0.1), pace(40.0, 0.1));
        let plan = best(&model, &draft, 1, &[0.99]);
        assert!(plan.length <= 3, "{plan:?}");
    }
}

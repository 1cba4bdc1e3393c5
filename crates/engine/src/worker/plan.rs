//! Who takes part in the next step of a model, and with how much.
//!
//! Every answer that writes takes part: its token costs next to nothing once
//! the weights are read. What the step's time leaves goes to prompts. Batch
//! jobs get what interactive ones leave, and prompts that nobody waits for yet
//! come last. Among the prompts of one rank, half goes to the one whose turn it
//! is (the share of the device that had least, then the one that came first), a
//! quarter to the oldest, and the rest to the shortest ones: a short question
//! does not wait for a long document, and the document cannot be put off for
//! ever.
//!
//! Pure arithmetic; nothing here reads a clock.

use nearfar_domain::frames::{Priority, Purpose, Terms};

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Somebody waits.
    Interactive,
    /// Nobody waits.
    Batch,
    /// Nobody has asked yet.
    Ahead,
}

impl Rank {
    pub(super) fn of(terms: &Terms) -> Self {
        match (terms.purpose, terms.priority) {
            (Purpose::Prefill { .. } | Purpose::Look | Purpose::Unpin, _) => Self::Ahead,
            (Purpose::Answer, Priority::Interactive) => Self::Interactive,
            (Purpose::Answer, Priority::Batch) => Self::Batch,
        }
    }
}

/// An answer that could take part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) rank: Rank,
    /// What its share of the device was given so far, in tokens.
    pub(super) served: u64,
    /// Which one came first.
    pub(super) order: u64,
    /// Tokens that it has still to compute before it writes on.
    pub(super) pending: usize,
    /// Whether it is at its prompt.
    pub(super) prefilling: bool,
}

/// Tokens for each candidate, 0 for one that does not take part. At least one
/// takes part when there is one. `budget` is the most tokens of the step.
pub(super) fn plan(candidates: &[Candidate], budget: usize) -> Vec<usize> {
    let mut given: Vec<usize> = candidates
        .iter()
        .map(|candidate| usize::from(!candidate.prefilling))
        .collect();
    let writing: usize = given.iter().sum();
    let mut left = budget.saturating_sub(writing);
    if left == 0 && writing == 0 {
        left = 1;
    }
    // Prompts move on however many write: at this rate at least.
    left = left.max(budget / 4);
    for rank in [Rank::Interactive, Rank::Batch, Rank::Ahead] {
        let mut prompts: Vec<usize> = (0..candidates.len())
            .filter(|index| candidates[*index].prefilling && candidates[*index].rank == rank)
            .collect();
        prompts.sort_by_key(|index| (candidates[*index].served, candidates[*index].order));
        let Some(first) = prompts.first().copied() else {
            continue;
        };
        let mut give = |index: usize, most: usize, left: &mut usize| {
            // One whose prompt is known whole still needs its turn to say so.
            let wanted = candidates[index].pending.max(1) - given[index];
            let more = wanted.min(most).min(*left);
            given[index] += more;
            *left -= more;
        };
        give(first, left.div_ceil(2), &mut left);
        // However many come and go, the oldest moves on.
        let oldest = prompts
            .iter()
            .copied()
            .min_by_key(|index| candidates[*index].order);
        if let Some(oldest) = oldest.filter(|oldest| *oldest != first) {
            give(oldest, left.div_ceil(2), &mut left);
        }
        prompts.sort_by_key(|index| (candidates[*index].pending, candidates[*index].order));
        for index in prompts {
            give(index, usize::MAX, &mut left);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(pending: usize, order: u64) -> Candidate {
        Candidate {
            rank: Rank::Interactive,
            served: 0,
            order,
            pending,
            prefilling: true,
        }
    }

    fn writing() -> Candidate {
        Candidate {
            prefilling: false,
            ..prompt(1, 0)
        }
    }

    /// Steps until each prompt is whole.
    fn steps(mut candidates: Vec<Candidate>, budget: usize) -> Vec<usize> {
        let mut ended = vec![0; candidates.len()];
        for step in 1..10_000 {
            let given = plan(&candidates, budget);
            for (index, given) in given.into_iter().enumerate() {
                let candidate = &mut candidates[index];
                candidate.pending -= given.min(candidate.pending);
                candidate.served += given as u64;
                if candidate.pending == 0 && ended[index] == 0 {
                    ended[index] = step;
                    candidate.prefilling = false;
                }
            }
        }
        ended
    }

    #[test]
    fn all_that_write_take_part_in_every_step() {
        let mut candidates = vec![writing(); 8];
        candidates.push(prompt(2_000, 1));
        let given = plan(&candidates, 40);
        assert_eq!(given[..8], [1; 8]);
        assert_eq!(given[8], 32);
    }

    #[test]
    fn prompts_move_on_however_many_write() {
        let mut candidates = vec![writing(); 16];
        candidates.push(prompt(100, 1));
        assert_eq!(plan(&candidates, 8)[16], 2);
        assert_eq!(plan(&[prompt(9, 1)], 0), [1]);
    }

    #[test]
    fn a_short_prompt_does_not_wait_for_a_long_one_and_both_end() {
        let ended = steps(vec![prompt(2_000, 1), prompt(40, 2)], 40);
        assert_eq!(ended[1], 2);
        assert!(ended[0] <= 2_040 / 39 + 1, "nothing is wasted: {ended:?}");
    }

    #[test]
    fn a_long_prompt_moves_on_under_short_ones_without_end() {
        let mut long = prompt(400, 0);
        for step in 1..100 {
            long.served += 1_000; // short ones of new shares come first in turn
            let given = plan(&[long, prompt(39, step)], 40);
            long.pending -= given[0].min(long.pending);
            if long.pending == 0 {
                return;
            }
        }
        panic!("{} tokens are left", long.pending);
    }

    #[test]
    fn batch_takes_what_interactive_leaves() {
        let batch = Candidate {
            rank: Rank::Batch,
            ..prompt(500, 0)
        };
        let ahead = Candidate {
            rank: Rank::Ahead,
            ..prompt(500, 0)
        };
        assert_eq!(plan(&[ahead, batch, prompt(500, 9)], 40), [0, 0, 40]);
        assert_eq!(plan(&[ahead, batch, prompt(10, 9)], 40), [0, 30, 10]);
        assert_eq!(plan(&[ahead, writing()], 40), [39, 1]);
    }

    #[test]
    fn the_share_that_had_least_has_its_turn() {
        let rich = Candidate {
            served: 5_000,
            ..prompt(1_000, 1)
        };
        let poor = Candidate {
            served: 10,
            ..prompt(1_200, 2)
        };
        assert_eq!(plan(&[rich, poor], 40), [20, 20]);
        let ended = steps(vec![rich, poor, rich, rich], 40);
        assert!(ended[1] <= 61, "half of every step: {ended:?}");
    }

    #[test]
    fn a_prompt_that_is_known_whole_still_has_its_turn() {
        assert_eq!(plan(&[prompt(0, 1), prompt(0, 2)], 40), [1, 1]);
    }
}

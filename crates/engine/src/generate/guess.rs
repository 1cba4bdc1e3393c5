//! Guesses at the next tokens, looked up in what was said before.
//!
//! Answers repeat: names, quotes, code, the words of the question. Where the
//! last tokens stood once before, what followed them then is guessed to follow
//! now ("prompt lookup decoding", Saxena 2023). A step checks several guesses
//! for little more than the price of one token, because it reads the weights
//! once. The answer stays what it would have been: at each place the sampler
//! makes its own choice, with its own draw, and a guess is kept only where the
//! choice is that very token.

use super::pace::Pace;

/// The most tokens guessed at once.
const MOST: usize = 8;
/// Tokens that must have stood together before: the longer ones are tried first.
const CONTEXT: std::ops::RangeInclusive<usize> = 2..=4;
/// How far back is looked, in tokens.
const REACH: usize = 8192;
/// Share of guesses that is assumed right before any was seen.
const FIRST_SHARE: f64 = 0.5;
/// Weight of a new observation.
const WEIGHT: f64 = 0.1;
/// A guess must promise to be faster by this factor.
const WORTH: f64 = 1.05;

/// One answer's guesses, and how they fared.
pub(super) struct Guesser {
    /// Share of guessed tokens that the model chose.
    share: f64,
    guesses: Vec<u32>,
}

impl Default for Guesser {
    fn default() -> Self {
        Self {
            share: FIRST_SHARE,
            guesses: Vec::new(),
        }
    }
}

impl Guesser {
    /// Looks for what may follow `tokens`, and says how many of the guesses are
    /// worth checking, at most `most`, in a step that `sharing` answers share.
    /// The others are only compared with what comes, which costs nothing.
    pub(super) fn guess(
        &mut self,
        tokens: &[u32],
        most: usize,
        pace: &Pace,
        sharing: usize,
    ) -> usize {
        self.guesses.clear();
        if let Some(at) = look_up(tokens) {
            let end = tokens.len().min(at + MOST);
            self.guesses.extend_from_slice(&tokens[at..end]);
        }
        let count = self.guesses.len().min(most);
        if count == 0 || !pace.is_known() {
            return 0;
        }
        let alone = pace.step_ms(sharing);
        let (mut best, mut best_gain) = (0, WORTH);
        let (mut tokens, mut chance) = (1.0, 1.0);
        for extra in 1..=count {
            chance *= self.share;
            tokens += chance;
            let gain = tokens * alone / pace.step_ms(sharing + extra).max(1e-9);
            if gain > best_gain {
                (best, best_gain) = (extra, gain);
            }
        }
        best
    }

    /// The tokens guessed last, the next one first.
    pub(super) fn guesses(&self) -> &[u32] {
        &self.guesses
    }

    /// The token at place `index` of the last guesses turned out to be `token`.
    /// Returns whether it was guessed.
    pub(super) fn came(&mut self, index: usize, token: u32) -> bool {
        let Some(guess) = self.guesses.get(index) else {
            return false;
        };
        let right = *guess == token;
        self.share += WEIGHT * (f64::from(u8::from(right)) - self.share);
        right
    }
}

/// Where the tokens that followed the same context before begin; the latest
/// place wins.
fn look_up(tokens: &[u32]) -> Option<usize> {
    let (last, before) = tokens.split_last()?;
    let from = before.len().saturating_sub(REACH);
    let (mut found, mut longest) = (None, *CONTEXT.start() - 1);
    for (at, token) in before.iter().enumerate().skip(from).rev() {
        if token != last {
            continue;
        }
        let same = before[..at]
            .iter()
            .rev()
            .zip(before.iter().rev())
            .take(*CONTEXT.end() - 1)
            .take_while(|(a, b)| a == b)
            .count()
            + 1;
        if same > longest {
            (found, longest) = (Some(at + 1), same);
            if longest == *CONTEXT.end() {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A device that reads its weights for most of a step.
    fn slow_weights() -> Pace {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.measured(1, Duration::from_micros(20_500));
            pace.measured(20, Duration::from_micros(30_000));
        }
        pace
    }

    #[test]
    fn the_latest_of_the_longest_contexts_is_taken() {
        assert_eq!(look_up(&[1, 2, 3, 9, 1, 2, 3]), Some(3));
        assert_eq!(look_up(&[7, 2, 3, 5, 1, 2, 3, 6, 2, 3]), Some(7));
        assert_eq!(look_up(&[8, 1, 2, 3, 5, 4, 2, 3, 6, 1, 2, 3]), Some(4));
        for nothing in [&[][..], &[1], &[1, 2, 3], &[3, 1, 3]] {
            assert_eq!(look_up(nothing), None);
        }
    }

    #[test]
    fn a_repetition_is_guessed_while_it_pays() {
        let tokens: Vec<u32> = (0..20).chain(0..10).collect();
        let mut guesser = Guesser::default();
        let count = guesser.guess(&tokens, 100, &slow_weights(), 1);
        assert!((1..=MOST).contains(&count));
        assert_eq!(guesser.guesses()[..2], [10, 11]);
        assert_eq!(guesser.guess(&tokens, 1, &slow_weights(), 1), 1);
        for _ in 0..100 {
            assert!(!guesser.came(0, 99));
        }
        assert_eq!(guesser.guess(&tokens, 100, &slow_weights(), 1), 0);
        for _ in 0..100 {
            assert!(guesser.came(0, 10));
        }
        assert_eq!(guesser.guess(&tokens, 100, &slow_weights(), 1), MOST);
    }

    #[test]
    fn where_each_token_costs_the_same_nothing_is_checked() {
        let tokens: Vec<u32> = (0..20).chain(0..10).collect();
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.measured(1, Duration::from_millis(1));
            pace.measured(20, Duration::from_millis(20));
        }
        assert_eq!(Guesser::default().guess(&tokens, 100, &pace, 1), 0);
        assert_eq!(
            Guesser::default().guess(&tokens, 100, &Pace::default(), 1),
            0
        );
    }
}

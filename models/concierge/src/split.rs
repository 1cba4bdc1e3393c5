//! What belongs to training and what is kept out, decided by the generator itself.
//!
//! Two rules, so that `eval` can rebuild the held-out set from a seed and nothing leaks:
//! a *value* (venue name, price, password, schedule, person …) is held out when a hash of its text
//! falls in one class of eight; a *phrasing* is held out when its table entry begins with `!`.

use crate::rng::Rng;

/// The side of the split a dialogue is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Seen by the trainer.
    Train,
    /// Never seen by the trainer.
    HeldOut,
}

const CLASSES: u64 = 8;

/// FNV-1a, 64 bit, over the lower-cased text.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a value's text is on this side of the split.
pub fn owns(split: Split, value: &str) -> bool {
    // The low bits of FNV mix poorly on short strings, hence the fold.
    let h = hash(value);
    (((h >> 32) ^ h) % CLASSES == 0) == (split == Split::HeldOut)
}

/// Draws values until one lies on this side of the split.
///
/// `make` must be able to produce values on both sides; every caller draws from at least dozens.
pub fn draw(split: Split, rng: &mut Rng, mut make: impl FnMut(&mut Rng) -> String) -> String {
    loop {
        let value = make(rng);
        if owns(split, &value) {
            return value;
        }
    }
}

/// One phrasing of a table on this side of the split, without its mark.
///
/// A table without held-out entries serves both sides.
pub fn phrase(split: Split, rng: &mut Rng, table: &[&'static str]) -> &'static str {
    let any_held = table.iter().any(|t| t.starts_with('!'));
    loop {
        let entry = *rng.pick(table);
        let held = entry.starts_with('!');
        if !any_held || held == (split == Split::HeldOut) {
            return entry.trim_start_matches('!');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_value_in_eight_is_held_out() {
        let held = (0..4000).filter(|n| owns(Split::HeldOut, &format!("{n} EUR"))).count();
        assert!((350..650).contains(&held), "{held}");
    }

    #[test]
    fn the_sides_never_meet() {
        let table = ["a", "!b", "c"];
        let mut rng = Rng::new(3);
        for _ in 0..100 {
            assert_ne!(phrase(Split::Train, &mut rng, &table), "b");
            assert_eq!(phrase(Split::HeldOut, &mut rng, &table), "b");
        }
    }
}

//! Vectors of questions, small enough to keep: one byte a number.

use super::key::Key;

/// A question's vector. Scaling to bytes moves a cosine by less than 0.005.
#[derive(Clone)]
pub struct Vector {
    numbers: Box<[i8]>,
    /// 1 over the length of `numbers` as a vector.
    scale: f32,
}

/// A question's words as two numbers: vectors hardly know their order, and the
/// way from A to B is not the one from B to A.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Words {
    pub(super) in_any_order: u64,
    pub(super) in_order: u64,
}

impl Words {
    /// Whether both say the same words in another order.
    pub(super) fn are_turned(self, other: Self) -> bool {
        self.in_any_order == other.in_any_order && self.in_order != other.in_order
    }
}

/// Where a question lies among those that may mean the same.
#[derive(Clone, Copy)]
pub struct Near {
    /// Where they lie.
    pub(super) bucket: Key,
    /// Its words.
    pub(super) words: Words,
    /// The least cosine.
    pub(super) least: f32,
}

/// The longest vector that is kept.
const MAX_NUMBERS: usize = 8_192;

impl Vector {
    /// `None` for a vector without direction, or an overlong one.
    pub fn of(numbers: &[f32]) -> Option<Self> {
        let largest = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let sound = numbers.iter().all(|x| x.is_finite());
        if !sound || largest <= f32::MIN_POSITIVE || numbers.len() > MAX_NUMBERS {
            return None;
        }
        let bytes = numbers.iter().map(|x| (x / largest * 127.0).round() as i8);
        let mut vector = Self {
            numbers: bytes.collect(),
            scale: 1.0,
        };
        vector.scale = (vector.dot(&vector) as f32).sqrt().recip();
        Some(vector)
    }

    /// The cosine of the angle between two; -1 for vectors of different lengths,
    /// which are of different models.
    pub fn cosine(&self, other: &Self) -> f32 {
        if self.numbers.len() != other.numbers.len() {
            return -1.0;
        }
        self.dot(other) as f32 * self.scale * other.scale
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.numbers.len() + size_of::<Self>()
    }

    /// Fits: 8,192 products of at most 127 by 127.
    fn dot(&self, other: &Self) -> i32 {
        let pairs = self.numbers.iter().zip(&*other.numbers);
        pairs.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn exact(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    proptest! {
        #[test]
        fn bytes_are_near_enough(
            a in proptest::collection::vec(-1.0f32..1.0, 64),
            b in proptest::collection::vec(-1.0f32..1.0, 64),
        ) {
            let (x, y) = (Vector::of(&a).unwrap(), Vector::of(&b).unwrap());
            prop_assert!((x.cosine(&y) - exact(&a, &b)).abs() < 0.02);
            prop_assert!((x.cosine(&x) - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn what_has_no_direction_is_no_vector() {
        assert!(Vector::of(&[]).is_none());
        assert!(Vector::of(&[0.0; 8]).is_none());
        assert!(Vector::of(&[1.0, f32::NAN]).is_none());
        assert!(Vector::of(&vec![1.0; MAX_NUMBERS + 1]).is_none());
        let (long, short) = (
            Vector::of(&[1.0; 8]).unwrap(),
            Vector::of(&[1.0; 4]).unwrap(),
        );
        assert_eq!(long.cosine(&short), -1.0);
        let largest = Vector::of(&vec![1.0; MAX_NUMBERS]).unwrap();
        assert!((largest.cosine(&largest) - 1.0).abs() < 1e-3);
    }
}

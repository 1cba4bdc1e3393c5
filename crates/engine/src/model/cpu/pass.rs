//! Which rows are computed together.

use std::ops::Range;

use crate::model::Part;

/// Consecutive tokens of one part, computed in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Index of the part.
    pub(super) part: usize,
    /// Index of its first token among the part's.
    start: usize,
    /// Position of its first row in the sequence.
    pub(super) first: usize,
    /// Rows.
    pub(super) count: usize,
    /// How many of them are wanted; they are the last ones.
    pub(super) wanted: usize,
}

impl Segment {
    /// Which of the part's tokens.
    pub(super) fn tokens(&self) -> Range<usize> {
        self.start..self.start + self.count
    }

    /// Positions of its rows in the sequence.
    pub(super) fn positions(&self) -> Range<usize> {
        self.first..self.end()
    }

    /// The position behind its last row.
    pub(super) fn end(&self) -> usize {
        self.first + self.count
    }

    /// Drops the rows that are not wanted, and says how many those are.
    pub(super) fn keep_wanted(&mut self) -> usize {
        let dropped = self.count - self.wanted;
        self.start += dropped;
        self.first += dropped;
        self.count = self.wanted;
        dropped
    }
}

/// Cuts the parts into passes of at most `most` rows, in the order of the parts.
pub(super) fn passes(parts: &[Part<'_>], most: usize) -> Vec<Vec<Segment>> {
    let mut passes = vec![Vec::new()];
    let mut room = most;
    for (part, given) in parts.iter().enumerate() {
        let all = given.tokens.len();
        let unwanted = all - given.logits.rows(all);
        let mut start = 0;
        while start < all {
            if room == 0 {
                passes.push(Vec::new());
                room = most;
            }
            let count = room.min(all - start);
            room -= count;
            let segment = Segment {
                part,
                start,
                first: given.cache.len() + start,
                count,
                wanted: count - unwanted.saturating_sub(start).min(count),
            };
            start += count;
            if let Some(last) = passes.last_mut() {
                last.push(segment);
            }
        }
    }
    passes
}

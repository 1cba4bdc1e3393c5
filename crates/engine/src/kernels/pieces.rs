//! One slice, handed to all threads piece by piece.

use super::Team;
use super::disjoint::Disjoint;

impl Team {
    /// Calls `work(index, piece)` once for each run of `size` items (the last
    /// may be shorter), on all threads; a thread takes `chunk` pieces at a time.
    ///
    /// # Panics
    /// When `work` panics.
    pub(crate) fn share_mut<T: Send>(
        &self,
        items: &mut [T],
        size: usize,
        chunk: usize,
        work: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let (len, size) = (items.len(), size.max(1));
        let items = Disjoint::new(items);
        self.share(len.div_ceil(size), chunk, &|index| {
            let start = index * size;
            // SAFETY: pieces do not overlap, and each is one item of the job,
            // which one thread takes.
            let piece = unsafe { items.part(start..(start + size).min(len)) };
            work(index, piece);
        });
    }
}

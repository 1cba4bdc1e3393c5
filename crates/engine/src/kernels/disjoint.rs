//! One slice, written by several threads, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that may be handed to several threads.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: threads reach the elements only through `part`, whose caller promises
// that no two parts held at once overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }

    /// Where an element lies, for prefetching.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn at(&self, index: usize) -> *const T {
        self.start.wrapping_add(index)
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other part that overlaps it may be held.
    ///
    /// # Panics
    /// When the range does not lie inside the slice.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the caller promises disjoint parts")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice that `new` was given; not aliased, by the
        // caller's promise.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start)
        }
    }
}

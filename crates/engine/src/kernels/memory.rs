//! Memory for packed weights: zeroed, aligned, in huge pages if possible.
//!
//! A token reads every weight once, so page walks count. Matrices are cut one
//! after another from large mappings that start at a huge page: a mapping for
//! each would leave its ends, and small matrices wholly, in small pages.

use std::sync::{Arc, Mutex, PoisonError};

use crate::gguf::LoadError;

/// Every region starts at a page.
const PAGE: usize = 4096;
/// What huge pages are on most systems.
const HUGE: usize = 2 << 20;
/// The size of a mapping, unless a matrix needs more. Only what is written
/// takes memory.
const MAPPING: usize = 64 << 20;

/// The mapping that new regions are cut from, and how much of it is used.
static CURRENT: Mutex<Option<(Arc<Mapping>, usize)>> = Mutex::new(None);

/// A block of bytes of its own within a mapping.
pub(super) struct Region {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
}

impl Region {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When the system has no more memory to give.
    pub(super) fn zeroed(len: usize) -> Result<Self, LoadError> {
        let size = len
            .checked_next_multiple_of(PAGE)
            .ok_or_else(out_of_memory)?;
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((mapping, used)) = &mut *current
            && size <= mapping.len - *used
        {
            let start = *used;
            *used += size;
            let mapping = Arc::clone(mapping);
            return Ok(Self {
                mapping,
                start,
                len,
            });
        }
        let mapping = Arc::new(Mapping::new(size.max(MAPPING))?);
        if size < mapping.len {
            *current = Some((Arc::clone(&mapping), size));
        }
        Ok(Self {
            mapping,
            start: 0,
            len,
        })
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes of the mapping are this region's alone, zeroed or
        // written since, and the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.mapping.start.add(self.start), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start.add(self.start), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Another model's matrices may keep the mapping, but not this memory.
        self.mapping.forget(self.start, self.len);
    }
}

fn out_of_memory() -> std::io::Error {
    std::io::Error::from(std::io::ErrorKind::OutOfMemory)
}

/// A private, anonymous mapping.
#[cfg(unix)]
struct Mapping {
    /// At a huge page.
    start: *mut u8,
    len: usize,
    /// What was mapped, to be unmapped.
    whole: (*mut std::ffi::c_void, usize),
}

#[cfg(unix)]
impl Mapping {
    fn new(len: usize) -> Result<Self, LoadError> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let size = len.checked_add(HUGE).ok_or_else(out_of_memory)?;
        // SAFETY: a new private mapping, which nothing else refers to.
        let whole =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size, protection, MapFlags::PRIVATE) }
                .map_err(std::io::Error::from)?;
        let start: *mut u8 = whole.cast();
        // SAFETY: less than `HUGE` on, and so within the mapping.
        let start = unsafe { start.add(start.align_offset(HUGE)) };
        #[cfg(target_os = "linux")]
        // SAFETY: within the mapping made above. Only advice: a kernel without
        // huge pages works all the same.
        let _ =
            unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxHugepage) };
        Ok(Self {
            start,
            len,
            whole: (whole, size),
        })
    }

    /// Gives the memory of whole pages back; nobody reads it any more.
    fn forget(&self, start: usize, len: usize) {
        #[cfg(target_os = "linux")]
        // SAFETY: within the mapping, at a page, and of a region that has just
        // ended: its pages are its own, as regions are cut at pages.
        let _ = unsafe {
            rustix::mm::madvise(
                self.start.add(start).cast(),
                len.next_multiple_of(PAGE),
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
        #[cfg(not(target_os = "linux"))]
        let _ = (start, len);
    }
}

#[cfg(unix)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of which no region is left.
        let _ = unsafe { rustix::mm::munmap(self.whole.0, self.whole.1) };
    }
}

/// Plain memory, where there is no `mmap`.
#[cfg(not(unix))]
struct Mapping {
    start: *mut u8,
    len: usize,
    layout: std::alloc::Layout,
}

#[cfg(not(unix))]
impl Mapping {
    fn new(len: usize) -> Result<Self, LoadError> {
        let layout =
            std::alloc::Layout::from_size_align(len.max(1), PAGE).map_err(|_| out_of_memory())?;
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return Err(out_of_memory().into());
        }
        Ok(Self { start, len, layout })
    }

    fn forget(&self, _: usize, _: usize) {}
}

#[cfg(not(unix))]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; no region is left.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}

// SAFETY: bytes are reached only through regions, which do not overlap and
// follow the rules of borrowing.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn regions_are_zeroed_aligned_and_their_own() {
        let sizes = [1, 64, PAGE, PAGE + 1, 3 << 20, MAPPING, MAPPING + 1, 5];
        let mut regions: Vec<Region> = sizes.iter().map(|n| Region::zeroed(*n).unwrap()).collect();
        for (index, region) in regions.iter_mut().enumerate() {
            assert_eq!(region.bytes().len(), sizes[index]);
            assert_eq!(region.bytes().as_ptr().addr() % PAGE, 0);
            assert!(region.bytes().iter().all(|byte| *byte == 0));
            region.bytes_mut().fill(index as u8 + 1);
        }
        // Every other one goes; the rest stay as they are.
        let mut index = 0;
        regions.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        for (at, region) in regions.iter().enumerate() {
            assert!(
                region
                    .bytes()
                    .iter()
                    .all(|byte| *byte as usize == at * 2 + 2)
            );
        }
        assert!(Region::zeroed(usize::MAX).is_err());
        assert!(Region::zeroed(usize::MAX / 2).is_err());
    }
}

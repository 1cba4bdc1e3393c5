//! Memory for packed weights: page-aligned, zeroed, in huge pages if possible.

use crate::gguf::LoadError;

/// A block of bytes, aligned to a page.
pub(super) struct Region {
    #[cfg(unix)]
    start: *mut u8,
    #[cfg(not(unix))]
    lines: Vec<Line>,
    len: usize,
}

/// Keeps the alignment that the kernels rely on where there is no `mmap`.
#[cfg(not(unix))]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: the bytes belong to this value alone, like those of a `Vec`.
#[cfg(unix)]
unsafe impl Send for Region {}
// SAFETY: as above.
#[cfg(unix)]
unsafe impl Sync for Region {}

#[cfg(unix)]
impl Region {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When the system has no more memory to give.
    pub(super) fn zeroed(len: usize) -> Result<Self, LoadError> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping, which nothing else refers to.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len.max(1),
                protection,
                MapFlags::PRIVATE,
            )
        }
        .map_err(std::io::Error::from)?;
        // Fewer page walks when a whole matrix is read per token. Only advice:
        // a kernel without it works all the same. The length stays as asked,
        // so that no huge page holds mostly padding.
        #[cfg(target_os = "linux")]
        // SAFETY: exactly the mapping made above.
        let _ =
            unsafe { rustix::mm::madvise(start, len.max(1), rustix::mm::Advice::LinuxHugepage) };
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes, zeroed or written since, and
        // lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(unix)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping of `zeroed`, to which no borrow is left.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len.max(1)) };
    }
}

#[cfg(not(unix))]
impl Region {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When the system has no more memory to give.
    pub(super) fn zeroed(len: usize) -> Result<Self, LoadError> {
        let count = len.div_ceil(64);
        let mut lines = Vec::new();
        lines
            .try_reserve_exact(count)
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        lines.resize(count, Line([0; 64]));
        Ok(Self { lines, len })
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

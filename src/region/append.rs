//! Appends that are filled in place.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr;

use super::write::Way;
use super::{Region, CLOSED};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Ordering;

/// Room at the end of a region that is being filled; see
/// [`Region::append_begin`]. Dropping it abandons the append.
pub struct AppendBuffer {
    region: Region,
    first: *mut u8,
    len: usize,
    /// With guarded writes the room is here, and `first` points into it.
    heap: Vec<u8>,
}

// SAFETY: the buffer is the only way to its bytes: they lie behind the published length, where no
// view reaches, and no writer works while `appending` is set.
unsafe impl Send for AppendBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for AppendBuffer {}

impl AppendBuffer {
    /// See [`Region::append_begin`].
    pub(super) fn begin(region: Region, len: usize) -> Result<AppendBuffer> {
        let inner = &region.inner;
        let mut writer = inner.lock_for_change()?;
        let offset = inner.len.load(Ordering::Relaxed);
        let end = inner.end_of(offset, len)?;
        inner.engine.change(|| {
            inner.touch(&mut writer)?;
            if end > writer.allocated {
                inner.make_room(&mut writer, end)?;
            }
            // Views may still hold bytes that a truncation has left behind the end.
            if offset < inner.pins.viewed_end() && inner.pins.lock_all().overlap(offset, end) {
                inner.relocate(&mut writer, end, offset, offset, &mut |_, _| Ok(()))?;
            }
            Ok(())
        })?;
        let mut heap = Vec::new();
        let first = if inner.engine.guarded {
            heap.try_reserve_exact(len).map_err(|_| inner.engine.no_memory(len as u64))?;
            heap.resize(len, 0);
            heap.as_mut_ptr()
        } else {
            inner.place.first.load(Ordering::Relaxed).wrapping_add(offset as usize)
        };
        let first = if len == 0 { ptr::NonNull::dangling().as_ptr() } else { first };
        writer.appending = true;
        drop(writer);
        Ok(AppendBuffer { region, first, len, heap })
    }

    /// Publishes the first `written` bytes and returns the offset of the first.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` for more than the buffer has; otherwise as [`Region::write`].
    pub fn end(self, written: usize) -> Result<u64> {
        self.publish(written)
    }

    /// [`end`](AppendBuffer::end) for a caller that keeps the buffer if it fails.
    pub(crate) fn publish(&self, written: usize) -> Result<u64> {
        let inner = &self.region.inner;
        inner.engine.check_process()?;
        if written > self.len {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("end of an append: {written} bytes written to a buffer of {}", self.len),
            ));
        }
        let mut writer = inner.lock_live()?;
        inner.engine.check_not_stopped()?;
        inner.engine.change(|| {
            let offset = inner.len.load(Ordering::Relaxed);
            if written > 0 {
                inner.touch(&mut writer)?;
                let end = offset + written as u64;
                let publish = || {
                    if inner.engine.guarded {
                        let destination = inner.destination(Way::Write);
                        inner.engine.store(&destination, offset, &self.heap[..written])?;
                    }
                    inner.set_len(&writer, end)
                };
                let published = match publish() {
                    Err(error) if inner.engine.made_space(&error) => publish(),
                    published => published,
                };
                published.inspect_err(|_| inner.give_back_unwritten(&mut writer))?;
                inner.pins.raise_viewed_end(end);
            }
            Ok(offset)
        })
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.first
    }
}

impl Drop for AppendBuffer {
    fn drop(&mut self) {
        let inner = &self.region.inner;
        if inner.engine.check_process().is_err() {
            return;
        }
        let mut writer = inner.writer.lock();
        writer.appending = false;
        let closed = inner.pins.region_state.load(Ordering::Relaxed) == CLOSED;
        drop(writer);
        if closed {
            inner.engine.let_go();
        }
    }
}

impl Deref for AppendBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `first` are mapped (or in `heap`) and have blocks, they hold some
        // bytes (zeros, or what somebody left there), and only this buffer reaches them.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl DerefMut for AppendBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl fmt::Debug for AppendBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendBuffer")
            .field("region", &self.region)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

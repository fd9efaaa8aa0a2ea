//! How bytes get into a region: by stores or by system calls, over what views may see or beside it.

use std::ptr;
use std::sync::Arc;

use super::{RegionInner, Writer};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::MAX_FILE_LEN;
use crate::growth;
use crate::sync::{self, Ordering};

/// Where bytes of a place go.
pub(super) struct Destination {
    pub first: *mut u8,
    pub start: u64,
    pub way: Way,
}

/// How they get there.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    /// By a store through the mapping.
    Store,
    /// By a system call. See [`RegionInner::prepare`].
    Write,
}

/// How many changes of a region go through system calls after each flush before stores begin. A store
/// is the faster by a microsecond, but makes all of the folio that caches the page dirty, up to 2 MiB,
/// for the next flush to write. Fewer on a simulated disk, where programs are short and are to meet both
/// ways.
const FIRST_CHANGES: u8 = if cfg!(feature = "simulation") { 1 } else { 4 };

/// From this length on the time of a system call no longer matters, and new pages need not be zeroed.
const LARGE_WRITE: usize = 64 << 10;

impl RegionInner {
    /// The place, to be written in this way.
    pub(super) fn destination(&self, way: Way) -> Destination {
        Destination {
            first: self.place.first.load(Ordering::Relaxed),
            start: self.place.start.load(Ordering::Relaxed),
            way,
        }
    }

    /// The bytes from `start` to `end`, which are published. For a holder of the writer lock, as
    /// only that may change them.
    pub(super) fn published(&self, start: u64, end: u64) -> &[u8] {
        assert!(start <= end && end <= self.len.load(Ordering::Relaxed));
        if start == end {
            return &[];
        }
        let first = self.place.first.load(Ordering::Relaxed);
        // SAFETY: published bytes are mapped and initialised, and no one but the holder of the
        // writer lock, who is the caller, stores to them.
        unsafe {
            std::slice::from_raw_parts(first.wrapping_add(start as usize), (end - start) as usize)
        }
    }

    /// The end of a write of `len` bytes at `offset`, if there can be one.
    #[inline]
    pub(super) fn end_of(&self, offset: u64, len: usize) -> Result<u64> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= MAX_FILE_LEN => Ok(end),
            _ => Err(self.too_large(offset, len as u64)),
        }
    }

    #[cold]
    pub(super) fn too_large(&self, offset: u64, len: u64) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "{len} bytes at {offset}: region {:?} can grow to {MAX_FILE_LEN} bytes",
                self.name()
            ),
        )
    }

    /// Writes `data` at `offset`, which is at most the length, and makes the length `new_len`.
    #[inline(always)]
    pub(super) fn put(
        self: &Arc<Self>,
        writer: &mut Writer,
        offset: u64,
        data: &[u8],
        new_len: u64,
    ) -> Result<()> {
        match self.put_once(writer, offset, data, new_len) {
            Ok(()) => Ok(()),
            Err(error) => self.put_again(writer, offset, data, new_len, error),
        }
    }

    #[cold]
    fn put_again(
        self: &Arc<Self>,
        writer: &mut Writer,
        offset: u64,
        data: &[u8],
        new_len: u64,
        error: Error,
    ) -> Result<()> {
        let result = match self.engine.made_space(&error) {
            true => self.put_once(writer, offset, data, new_len),
            false => Err(error),
        };
        result.inspect_err(|_| self.give_back_unwritten(writer))
    }

    #[inline(always)]
    fn put_once(
        self: &Arc<Self>,
        writer: &mut Writer,
        offset: u64,
        data: &[u8],
        new_len: u64,
    ) -> Result<()> {
        let end = offset + data.len() as u64;
        self.touch(writer)?;
        let way = match end <= writer.storable {
            true => Way::Store,
            false => self.prepare(writer, end, 1, data.len())?,
        };
        if offset >= self.pins.viewed_end() {
            // The common case: an append where no view has ever been. No view can come here until
            // the new length is published.
            self.engine.store(&self.destination(way), offset, data)?;
            self.set_len(writer, new_len)?;
        } else {
            let stripes = self.pins.lock_all();
            if stripes.overlap(offset, end) {
                drop(stripes);
                return self.put_elsewhere(writer, offset, data, new_len);
            }
            // Also where it fails: what is put back may have reached the disk as it was written.
            writer.bytes_changed = true;
            self.overwrite(writer, way, &[offset], data, data.len(), new_len)?;
        }
        self.pins.raise_viewed_end(new_len);
        Ok(())
    }

    #[cold]
    fn put_elsewhere(
        self: &Arc<Self>,
        writer: &mut Writer,
        offset: u64,
        data: &[u8],
        new_len: u64,
    ) -> Result<()> {
        let keep = self.len.load(Ordering::Relaxed).min(new_len);
        self.relocate(writer, new_len, keep, new_len, &mut |engine, destination| {
            engine.store(destination, offset, data)
        })
    }

    /// Publishes a length, and records it first: who has seen it and done something for that reason
    /// must not be remembered when it is not.
    #[inline]
    pub(super) fn set_len(&self, writer: &Writer, len: u64) -> Result<()> {
        self.engine.mirror_len(writer.record, len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Stores one value of equal length at each offset and sets the length, all or none, where room
    /// and views allow.
    #[inline(always)] // for one value nothing is left of the loop and its arithmetic
    pub(super) fn overwrite(
        &self,
        writer: &Writer,
        way: Way,
        offsets: &[u64],
        values: &[u8],
        value_len: usize,
        new_len: u64,
    ) -> Result<()> {
        if self.engine.guarded {
            return self.overwrite_guarded(writer, offsets, values, value_len, new_len);
        }
        self.store_values(writer, way, offsets, values, value_len, new_len)
    }

    #[inline(always)]
    fn store_values(
        &self,
        writer: &Writer,
        way: Way,
        offsets: &[u64],
        values: &[u8],
        value_len: usize,
        new_len: u64,
    ) -> Result<()> {
        let destination = self.destination(way);
        for (value, &offset) in values.chunks_exact(value_len).zip(offsets) {
            self.engine.store(&destination, offset, value)?;
        }
        match new_len == self.len.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.set_len(writer, new_len),
        }
    }

    /// The same by system calls, which can fail half-way.
    #[cold]
    fn overwrite_guarded(
        &self,
        writer: &Writer,
        offsets: &[u64],
        values: &[u8],
        value_len: usize,
        new_len: u64,
    ) -> Result<()> {
        let old = self.overwritten(offsets, value_len)?;
        let way = Way::Write;
        let result = self.store_values(writer, way, offsets, values, value_len, new_len);
        if result.is_err() {
            self.put_back(offsets, value_len, &old);
        }
        result
    }

    /// The published bytes that values of this length at these offsets overwrite.
    fn overwritten(&self, offsets: &[u64], value_len: usize) -> Result<Vec<u8>> {
        let len = self.len.load(Ordering::Relaxed);
        let mut old = Vec::new();
        for &offset in offsets {
            let range = self.published(offset.min(len), (offset + value_len as u64).min(len));
            old.try_reserve(range.len()).map_err(|_| self.engine.no_memory(range.len() as u64))?;
            old.extend_from_slice(range);
        }
        Ok(old)
    }

    /// Puts back what a call that failed has overwritten, in pages that have their space, unless the
    /// file system copies on write.
    fn put_back(&self, offsets: &[u64], value_len: usize, old: &[u8]) {
        let len = self.len.load(Ordering::Relaxed);
        let mut rest = old;
        for &offset in offsets {
            let end = (offset + value_len as u64).min(len);
            let (first, others) = rest.split_at((end - offset.min(end)) as usize);
            rest = others;
            // On a copy-on-write file system even this may fail. Then each page is as it was or as
            // it was to be.
            let _ = self.engine.store(&self.destination(Way::Write), offset, first);
        }
    }

    /// Makes sure that the place can be written up to `end`, moving the region if it must, and says how
    /// the next `len` bytes, in `count` changes, should be.
    ///
    /// A store into a page that is not in memory has the kernel choose the folio for it, and what it
    /// chooses is good for large files that are read in order. To a flush it can mean that an append of
    /// a few bytes writes 2 MiB. So pages of the file are only brought into memory by system calls: for
    /// a region that is changed a little between flushes just those that it needs, for one that grows
    /// fast many at a time, which is faster than to fault them in one by one. So it is where a flush has
    /// made pages read-only again to see which are stored to.
    #[cold]
    pub(super) fn prepare(
        self: &Arc<Self>,
        writer: &mut Writer,
        end: u64,
        count: usize,
        len: usize,
    ) -> Result<Way> {
        if end > writer.allocated {
            self.make_room(writer, end)?;
        }
        let first = count <= usize::from(FIRST_CHANGES - writer.first_changes);
        if self.engine.guarded || first || len / count >= LARGE_WRITE {
            let changes = usize::from(writer.first_changes).saturating_add(count);
            writer.first_changes = changes.min(FIRST_CHANGES.into()) as u8;
            return Ok(Way::Write);
        }
        let known = self.unneeded_from(writer).max(writer.storable);
        if end <= known {
            writer.storable = known.min(writer.allocated);
            return Ok(Way::Store);
        }
        let place = self.place.extent();
        let grown = end.saturating_sub(writer.cut_len).max(1 << writer.grown_before);
        let step = growth::preparation(grown);
        // To a multiple of the step in the file, as folios are aligned.
        let ahead = (place.start + end).next_multiple_of(step) - place.start;
        let ahead = ahead.min(writer.allocated);
        let storage = &self.engine.storage;
        // Where either fails, the stores bring the pages in, or meet the faults.
        let _ = storage.write_zeros(place.start + known, ahead - known);
        if writer.storable == 0 {
            // The last epoch may have left some of them mapped.
            let first = self.place.first.load(Ordering::Relaxed).wrapping_add(known as usize);
            let _ = storage.make_writable(first, (ahead - known) as usize);
        }
        writer.storable = ahead;
        Ok(Way::Store)
    }
}

impl Engine {
    /// Stores `data` at `offset` of a place. The range lies within the place, has blocks, and is
    /// seen by no one: no view covers it, or all stripes are locked.
    #[inline]
    pub(super) fn store(&self, destination: &Destination, offset: u64, data: &[u8]) -> Result<()> {
        if destination.way == Way::Write {
            let written = self.write_data(destination.start + offset, data);
            // What the system would not write can be stored all the same: it has its blocks.
            if self.guarded || written.is_ok() {
                return written;
            }
        }
        let to = destination.first.wrapping_add(offset as usize);
        // SAFETY: the place is mapped writable and has blocks for the range, so the store cannot
        // fault; the caller holds the writer lock and no view covers the range, so no one else
        // accesses it. `data` does not overlap it: a `&[u8]` that does would be a view's.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        sync::stored(to, data.len());
        Ok(())
    }
}

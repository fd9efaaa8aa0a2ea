//! The handle of a region, and all that can be done with one.

use std::fmt;
use std::sync::Arc;

use super::write::Way;
use super::{AppendBuffer, RegionInner, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::format::MAX_FILE_LEN;
use crate::sync::{unlock, Ordering};
use crate::view::{Reader, View};

/// A region of a database: a named, growable run of bytes.
///
/// This is a handle; cloning it is cheap and gives another handle of the same region. Handles may
/// be used from any thread. One writer works on a region at a time, and others wait for it; views
/// and different regions do not wait. A write is visible to every later read as soon as it has
/// returned, and durable with the next completed flush. After the region has been removed its
/// handles answer [`ErrorKind::Removed`], after the database was closed [`ErrorKind::Closed`].
#[derive(Clone)]
pub struct Region {
    pub(crate) inner: Arc<RegionInner>,
}

/// Where a region lies in `data`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Offset of its first byte in `data`; 0 for a region that never held a byte.
    pub start: u64,
    /// Its length.
    pub len: u64,
    /// Address space set aside for it in `data`. It can grow so far without moving.
    pub reserved: u64,
}

impl Region {
    /// Appends `data` and returns the offset at which it landed.
    ///
    /// # Errors
    ///
    /// `NoSpace` and `NoMemory` where the disk or the address space is exhausted, `TooLarge`,
    /// `Busy` while an [`AppendBuffer`] is out, `ReadOnly`, `Removed`, `Closed`, `Forked`, `Io`
    /// after a failed sync. A failed call has changed nothing.
    #[inline]
    pub fn write(&self, data: &[u8]) -> Result<u64> {
        let mut writer = self.inner.lock_for_change()?;
        let offset = self.inner.len.load(Ordering::Relaxed);
        if !data.is_empty() {
            let end = self.inner.end_of(offset, data.len())?;
            self.inner.engine.change(|| self.inner.put(&mut writer, offset, data, end))?;
        }
        unlock(writer);
        Ok(offset)
    }

    /// Writes `data` at `offset`, which is at most the length. A write past the end extends the
    /// region.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` for an offset behind the end; otherwise as [`write`](Region::write). One
    /// exception to "has changed nothing": on a copy-on-write file system (btrfs, zfs) `NoSpace`
    /// can come in the middle of an overwrite, and leave some of its pages overwritten.
    #[inline]
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut writer = self.inner.lock_for_change()?;
        let len = self.inner.len.load(Ordering::Relaxed);
        if offset > len {
            return Err(self.inner.out_of_bounds("write", offset, data.len() as u64, len));
        }
        if data.is_empty() {
            return Ok(());
        }
        let end = self.inner.end_of(offset, data.len())?;
        self.inner.engine.change(|| self.inner.put(&mut writer, offset, data, len.max(end)))?;
        unlock(writer);
        Ok(())
    }

    /// Writes values of `value_len` bytes each, which lie one after the other in `values`, at the
    /// given offsets, in order. All of them lie within the present length; if one does not, none
    /// is written.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where `values` does not hold one value per offset, `OutOfBounds` naming
    /// the first offset that is; otherwise as [`write`](Region::write).
    pub fn write_batch(&self, offsets: &[u64], values: &[u8], value_len: usize) -> Result<()> {
        if offsets.len().checked_mul(value_len) != Some(values.len()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} values of {value_len} bytes do not take {} bytes",
                    offsets.len(),
                    values.len()
                ),
            ));
        }
        let mut writer = self.inner.lock_for_change()?;
        let engine = &self.inner.engine;
        engine.change(|| self.write_values(&mut writer, offsets, values, value_len))
    }

    fn write_values(
        &self,
        writer: &mut Writer,
        offsets: &[u64],
        values: &[u8],
        value_len: usize,
    ) -> Result<()> {
        let inner = &self.inner;
        let len = inner.len.load(Ordering::Relaxed);
        let end_of = |offset: u64| offset.checked_add(value_len as u64).filter(|&end| end <= len);
        if let Some(&offset) = offsets.iter().find(|&&offset| end_of(offset).is_none()) {
            return Err(inner.out_of_bounds("write", offset, value_len as u64, len));
        }
        if values.is_empty() {
            return Ok(());
        }
        inner.touch(writer)?;
        let last = offsets.iter().max().expect("there is a value") + value_len as u64;
        let way = match last <= writer.storable {
            true => Way::Store,
            false => inner.prepare(writer, last, offsets.len(), values.len())?,
        };
        let stripes = inner.pins.lock_all();
        if offsets.iter().any(|&offset| stripes.overlap(offset, offset + value_len as u64)) {
            drop(stripes);
            return inner.relocate(writer, len, len, len, &mut |engine, destination| {
                values
                    .chunks_exact(value_len)
                    .zip(offsets)
                    .try_for_each(|(value, &offset)| engine.store(destination, offset, value))
            });
        }
        // Also where it fails: what is put back may have reached the disk as it was written.
        writer.bytes_changed = true;
        let result = inner.overwrite(writer, way, offsets, values, value_len, len);
        drop(stripes);
        match result {
            Err(error) if inner.engine.made_space(&error) => {
                self.write_values(writer, offsets, values, value_len)
            }
            result => result,
        }
    }

    /// Shortens the region to `len` bytes.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` where the region is shorter than that; otherwise as [`write`](Region::write).
    pub fn truncate(&self, len: u64) -> Result<()> {
        let inner = &self.inner;
        let mut writer = inner.lock_for_change()?;
        let present = inner.len.load(Ordering::Relaxed);
        if len > present {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("truncate to {len} bytes: region {:?} has {present}", inner.name()),
            ));
        }
        if len == present {
            return Ok(());
        }
        inner.engine.change(|| {
            inner.touch(&mut writer)?;
            let stripes = inner.pins.lock_all();
            inner.set_len(&writer, len)?;
            if !stripes.overlap(len, u64::MAX) {
                inner.pins.set_viewed_end(len);
            }
            writer.entry_changed = true;
            writer.synced_len = writer.synced_len.min(len);
            Ok(())
        })
    }

    /// Writes `data` at `offset`, which is at most the length, and makes that the end of the
    /// region, in one step.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Region::write_at).
    pub fn truncate_write(&self, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return self.truncate(offset);
        }
        let mut writer = self.inner.lock_for_change()?;
        let len = self.inner.len.load(Ordering::Relaxed);
        if offset > len {
            return Err(self.inner.out_of_bounds("write", offset, data.len() as u64, len));
        }
        let end = self.inner.end_of(offset, data.len())?;
        self.inner.engine.change(|| {
            self.inner.touch(&mut writer)?;
            writer.synced_len = writer.synced_len.min(end);
            self.inner.put(&mut writer, offset, data, end)
        })
    }

    /// Gives out `len` bytes of room at the end of the region, to be filled in place. Until the
    /// buffer is ended or dropped, other writers of this region get `Busy`; views and other
    /// regions are not affected.
    ///
    /// # Errors
    ///
    /// As [`write`](Region::write).
    pub fn append_begin(&self, len: usize) -> Result<AppendBuffer> {
        AppendBuffer::begin(self.clone(), len)
    }

    /// Makes room for `capacity` bytes in all: until the database is compacted, the region grows up
    /// to there without running out of disk space, and moves only to leave viewed bytes behind.
    /// (With guarded writes only the second holds.)
    ///
    /// # Errors
    ///
    /// As [`write`](Region::write).
    pub fn reserve(&self, capacity: u64) -> Result<()> {
        let mut writer = self.inner.lock_for_change()?;
        if capacity > MAX_FILE_LEN {
            return Err(self.inner.too_large(0, capacity));
        }
        self.inner.engine.change(|| {
            // First, as it may have to forget what it knows of its blocks.
            self.inner.touch(&mut writer)?;
            if capacity > writer.allocated {
                self.inner.make_room(&mut writer, capacity)?;
            }
            writer.promised = writer.promised.max(capacity);
            Ok(())
        })
    }

    /// Copies bytes from `offset` on into `buffer`, filling it.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, `Removed`, `Closed`, `Forked`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let view = View::open(&self.inner, offset, buffer.len() as u64)?;
        buffer.copy_from_slice(&view);
        Ok(())
    }

    /// Opens a view of `len` bytes from `offset` on, or of all up to the end where `len` is
    /// `u64::MAX`.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, `Removed`, `Closed`, `Forked`.
    #[inline(always)]
    pub fn view(&self, offset: u64, len: u64) -> Result<View> {
        View::open(&self.inner, offset, len)
    }

    /// A reader of the region as it is now.
    pub fn create_reader(&self) -> Reader {
        Reader::new(self.view(0, u64::MAX))
    }

    /// The length in bytes; 0 once the region is removed or the database closed, and in a forked
    /// child.
    #[inline]
    pub fn len(&self) -> u64 {
        if self.inner.is_live() && self.inner.engine.check_process().is_ok() {
            self.inner.len.load(Ordering::Acquire)
        } else {
            0
        }
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The region's name, or the last one it had; empty in a forked child.
    pub fn name(&self) -> String {
        // The lock may be held by a thread that the child does not have.
        self.inner
            .engine
            .check_process()
            .map_or_else(|_| String::new(), |()| self.inner.name().to_string())
    }

    /// Where the region lies in `data`.
    ///
    /// # Errors
    ///
    /// `Removed`, `Closed`, `Forked`.
    pub fn info(&self) -> Result<RegionInfo> {
        self.inner.engine.check_process()?;
        let _table = self.inner.engine.lock_table();
        if !self.inner.is_live() {
            return Err(self.inner.gone());
        }
        Ok(self.inner.info())
    }

    /// Makes the region durable as it is now. Costs nothing where it has not changed since the
    /// last flush; otherwise this is a flush of the database.
    ///
    /// # Errors
    ///
    /// As [`Database::flush`](crate::Database::flush), and `Removed`, `Closed`.
    pub fn flush(&self) -> Result<()> {
        self.inner.engine.check_process()?;
        let engine = &self.inner.engine;
        let writer = self.inner.lock_live()?;
        if writer.epoch <= engine.durable_epoch() {
            return engine.check_usable();
        }
        // The database may be closed from now on, but the files must stay this process's until the
        // flush is done with them. A close needs the writer lock first.
        let _holding = engine.hold_meanwhile();
        drop(writer);
        engine.flush()
    }

    /// Removes the region. Its bytes stay good for the views that are open.
    ///
    /// # Errors
    ///
    /// As [`Database::remove`](crate::Database::remove).
    pub fn remove(self) -> Result<()> {
        self.inner.engine.remove_region(&self.inner)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

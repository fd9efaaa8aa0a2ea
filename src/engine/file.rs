//! The files as a whole: how long they are, and which parts of `data` have blocks.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, PAGE_SIZE};
use crate::pieces::Pieces;
use crate::space::Extent;
use crate::steps::Step;
use crate::storage::File;

impl Engine {
    /// Gives a place blocks for its first `need` bytes, better `want`, of which the first `from`
    /// have theirs. Returns how many have them then. If that fails, nothing that `unneeded` or a
    /// later byte of the place got is kept from others.
    pub fn allocate(
        &self,
        place: Extent,
        from: u64,
        need: u64,
        want: u64,
        unneeded: u64,
    ) -> Result<u64> {
        if self.guarded {
            // A write through the system can say that there is no space. But what lies behind a region
            // that nobody had asked for may be being punched.
            drop(self.pieces.lock());
            return Ok(place.len);
        }
        let want = want.min(place.len);
        if !Step::AllocateFirst.taken() {
            return Ok(want);
        }
        assert!(from < need && need <= want);
        let attempt = |to: u64| {
            let mut pieces = self.pieces.lock();
            let runs = pieces.missing(Extent { start: place.start + from, len: to - from });
            for (number, run) in runs.iter().enumerate() {
                if let Err(error) = self.storage.allocate(File::Data, run.start, run.len) {
                    // Of the runs before it, nobody needs bytes behind `unneeded`, and nobody relies on
                    // pieces that are not known to have their blocks.
                    for run in &runs[..number] {
                        let start = run.start.max(place.start + unneeded);
                        let len = run.end().min(place.end()).saturating_sub(start);
                        let whole = Extent { start, len }.whole(self.piece);
                        if whole.len > 0 {
                            let _ = self.storage.punch(whole.start, whole.len);
                        }
                    }
                    return Err(error);
                }
            }
            runs.iter().for_each(|&run| pieces.set_allocated(run));
            // The last piece may reach further than what was asked for.
            let end = (place.start + to).next_multiple_of(self.piece);
            Ok((end - place.start).min(place.len))
        };
        let full = |error: &std::io::Error| {
            matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
        };
        let mut result = attempt(want);
        if result.as_ref().is_err_and(full) && need < want {
            result = attempt(need);
        }
        if result.as_ref().is_err_and(full) && self.reclaim_occupied() {
            result = attempt(need);
        }
        result
            .map_err(|error| Error::io("allocate space in", self.storage.path(File::Data), &error))
    }

    /// Gives the blocks of whole pieces back that nobody uses.
    pub fn punch(&self, whole: Extent) -> Result<()> {
        self.pieces.lock().forget(whole);
        self.punch_range(whole)
    }

    /// Gives blocks of a range back that nobody uses, as far as they are in pieces that nobody
    /// relies on.
    pub fn punch_unreliable(&self, range: Extent) -> Result<()> {
        // Held while punching, so that nobody comes to rely on a piece meanwhile.
        self.punch_parts(&self.pieces.lock(), range)
    }

    /// The same for what a region has behind its bytes that nobody has asked for (see
    /// [`Resting::with_room`](crate::resting::Resting::with_room)).
    pub fn punch_behind_resting(&self, place: u32) -> Result<()> {
        let table = self.lock_table_for_change()?;
        let Some(range) = table.resting.room(place) else { return Ok(()) };
        // Whoever opens the region from here on, or is given its place, has to allocate before there is
        // anything in the range, and that takes this lock.
        let pieces = self.pieces.lock();
        drop(table);
        self.punch_parts(&pieces, range)
    }

    fn punch_parts(&self, pieces: &Pieces, range: Extent) -> Result<()> {
        let parts = match Step::SparePiecesInUse.taken() {
            true => pieces.unreliable_parts(range),
            false => vec![range],
        };
        parts.into_iter().try_for_each(|part| self.punch_range(part))
    }

    pub(super) fn punch_range(&self, range: Extent) -> Result<()> {
        self.storage
            .punch(range.start, range.len)
            .map_err(|error| Error::io("free space in", self.storage.path(File::Data), &error))
    }

    /// Writes to `data` through the system.
    pub fn write_data(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.storage
            .write(File::Data, offset, bytes)
            .map_err(|error| Error::io("write", self.storage.path(File::Data), &error))
    }

    /// Makes `data` at least `min_len` long.
    pub fn reserve_file(&self, min_len: u64) -> Result<()> {
        self.lock_table_for_change()?.grow_file(&*self.storage, !self.guarded, min_len)
    }

    /// Makes room in `regions` for `count` regions in all.
    pub fn reserve_regions(&self, count: u64) -> Result<()> {
        self.check_writable()?;
        if count > format::MAX_FILE_LEN / (2 * PAGE_SIZE) - 1 {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{count} regions are more than a database can hold"),
            ));
        }
        let mut table = self.lock_table_for_change()?;
        table.slots.grow(&*self.storage, count)?;
        let more = count.saturating_sub(table.names.len() as u64);
        self.live.as_ref().map_or(Ok(()), |live| live.reserve(more))
    }

    /// Cuts the free end off `data`, in whole pieces.
    pub fn cut_file(&self) -> Result<()> {
        let mut table = self.lock_table_for_change()?;
        let len = table.space.free_end().max(self.min_file_len.min(format::MAX_FILE_LEN));
        let len = len.next_multiple_of(self.piece);
        if len < table.space.file_len() {
            self.storage
                .set_len(File::Data, len)
                .map_err(|error| Error::io("cut", self.storage.path(File::Data), &error))?;
            let end = Extent { start: len, len: table.space.file_len() - len };
            self.pieces.lock().forget(end);
            table.space.cut(len);
        }
        Ok(())
    }
}

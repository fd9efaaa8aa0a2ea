//! Where a region's bytes lie: room in the file, blocks on the disk, moving, and giving back.

use std::sync::Arc;

use super::write::{Destination, Way};
use super::{RegionInner, Writer};
use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::format::{round_up, RegionEntry};
use crate::growth;
use crate::space::Extent;
use crate::steps::Step;
use crate::sync::Ordering;
use crate::table::Table;
use crate::view::{AllStripes, Retired};

impl RegionInner {
    /// No byte of the place from here on is needed: not by the region, nor by a table that may be
    /// read after a crash, nor by a view.
    pub(super) fn unneeded_from(&self, writer: &mut Writer) -> u64 {
        let len = self.len.load(Ordering::Relaxed);
        if !self.pins.lock_all().overlap(len, u64::MAX) {
            self.pins.set_viewed_end(len);
        }
        let mut needed = len;
        if Step::KeepViewedTails.taken() {
            needed = needed.max(self.pins.viewed_end());
        }
        if writer.in_table && Step::KeepDurableTails.taken() {
            needed = needed.max(writer.cut_len);
            if writer.cut_epoch > self.engine.durable_epoch() && Step::KeepEarlierTails.taken() {
                needed = needed.max(writer.earlier_len);
            }
        }
        round_up(needed)
    }

    /// Makes sure that the place has blocks for `end` bytes, moving the region if it must.
    pub(super) fn make_room(self: &Arc<Self>, writer: &mut Writer, end: u64) -> Result<()> {
        let place = self.place.extent();
        if end <= place.len {
            return self.allocate(writer, end);
        }
        let len = self.len.load(Ordering::Relaxed);
        let piece = self.engine.piece;
        let relocate =
            |writer: &mut Writer| self.relocate(writer, end, len, len, &mut |_, _| Ok(()));
        if growth::is_large(end, piece) && !growth::is_large(place.len, piece) {
            // Not in place, even where it could: at the start of a piece what is written with one call
            // makes large folios. Where there is no space for that, it can still be had beside it.
            match relocate(writer) {
                Err(error) if error.kind() == ErrorKind::NoSpace => {}
                relocated => return relocated,
            }
        }
        if let Some(window) = &writer.window {
            let wishes = [
                growth::reservation(end, piece),
                growth::modest_reservation(end, piece),
                round_up(end),
            ];
            let need = round_up(end) - place.len;
            let extension = self.engine.lock_table().extend_extent(
                &*self.engine.storage,
                !self.engine.guarded,
                place.end(),
                wishes.map(|len| len.saturating_sub(place.len).max(need)),
                window,
            );
            if let Some(extension) = extension {
                let set_reserved = |len| {
                    let _table = self.engine.lock_table();
                    self.place.reserved.store(len, Ordering::Relaxed);
                };
                set_reserved(place.len + extension.len);
                let extended = self.allocate(writer, end).and_then(|()| self.mirror(writer));
                if extended.is_err() {
                    set_reserved(place.len);
                    writer.allocated = writer.allocated.min(place.len);
                    let _ = self.engine.punch_hole(extension);
                } else {
                    writer.entry_changed = true;
                }
                return extended;
            }
        }
        relocate(writer)
    }

    /// Gives the place blocks for `end` bytes, which it has reserved.
    fn allocate(&self, writer: &mut Writer, end: u64) -> Result<()> {
        let place = self.place.extent();
        let unneeded = self.unneeded_from(writer).max(writer.allocated);
        // Neither are the blocks safe before a sync, and a tail has to have where to go.
        writer.bytes_changed = true;
        writer.allocated = self.engine.allocate(
            place,
            writer.allocated,
            round_up(end),
            growth::allocation(end),
            unneeded,
        )?;
        Ok(())
    }

    /// Moves the region to a place with room for `capacity` bytes, with its first `keep` bytes and
    /// what `patch` adds, and makes its length `new_len`. Views stay where they are.
    pub(super) fn relocate(
        self: &Arc<Self>,
        writer: &mut Writer,
        capacity: u64,
        keep: u64,
        new_len: u64,
        patch: &mut dyn FnMut(&Engine, &Destination) -> Result<()>,
    ) -> Result<()> {
        let engine = &self.engine;
        let capacity = capacity.max(writer.promised).max(1);
        // Also where this fails: it may have left blocks for others to use, see `allocate`.
        writer.bytes_changed = true;
        let (extent, window) =
            engine.lock_table().take_extent(&*engine.storage, !engine.guarded, capacity)?;
        // All of its pages are new to memory.
        let (first, way) = (window.at(extent.start), Way::Write);
        let destination = Destination { first, start: extent.start, way };
        let name = self.name();
        let mut prepare = || {
            let want = growth::allocation(capacity);
            let allocated = engine.allocate(extent, 0, round_up(capacity), want, 0)?;
            engine.store(&destination, 0, self.published(0, keep))?;
            patch(engine, &destination)?;
            let Extent { start, len: reserved } = extent;
            let entry = RegionEntry { name: &name, start, len: new_len, reserved, tail: &[] };
            let mut change = [self.change(writer, Some(entry))];
            engine.mirror(&mut change)?;
            Ok((allocated, change[0].record))
        };
        let prepared = match prepare() {
            Err(error) if engine.made_space(&error) => prepare(),
            prepared => prepared,
        };
        let (allocated, record) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = engine.punch_hole(extent);
                return Err(error);
            }
        };

        let mut table = engine.lock_table();
        let mut stripes = self.pins.lock_all();
        self.leave_place(writer, &mut table, &mut stripes);
        self.place.set(destination.first, extent);
        self.len.store(new_len, Ordering::Release);
        drop(stripes);
        writer.window = Some(window);
        writer.storable = 0;
        writer.allocated = allocated;
        writer.record = record;
        self.pins.set_viewed_end(new_len);
        writer.entry_changed = true;
        writer.in_table = false;
        writer.cut_len = 0;
        writer.earlier_len = 0;
        writer.synced_len = 0;
        Ok(())
    }

    /// After a guarded write behind the end has failed: gives back what it got of the disk.
    #[cold]
    pub(super) fn give_back_unwritten(&self, writer: &mut Writer) {
        if self.engine.guarded {
            let (from, place) = (self.unneeded_from(writer), self.place.extent());
            let behind = Extent { start: place.start + from, len: place.len.saturating_sub(from) };
            if behind.len > 0 {
                let _ = self.engine.punch(behind);
            }
        }
    }

    /// Gives the place up, at once or with its last view. The caller sets another.
    pub(super) fn leave_place(
        &self,
        writer: &mut Writer,
        table: &mut Table,
        stripes: &mut AllStripes<'_>,
    ) {
        let extent = self.place.extent();
        let Some(window) = writer.window.take() else { return };
        let in_table = std::mem::take(&mut writer.in_table) && Step::KeepDurableExtents.taken();
        // A flush in progress may be writing it; only the next one will not.
        let epoch = in_table.then(|| match Step::KeepExtentsInFlight.taken() {
            true => self.engine.epoch(),
            false => self.engine.epoch() - 1,
        });
        let views = if Step::KeepViewedExtents.taken() { stripes.pinned() } else { 0 };
        match views {
            0 => table.give_up(extent, epoch),
            views => {
                table.pinned_bytes += extent.len;
                let first = self.place.first.load(Ordering::Relaxed);
                stripes.retire(Retired { first, extent, epoch, views, _window: window });
            }
        }
    }

    /// Gives back all blocks that the region does not need now, promised ones included.
    pub fn compact(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.engine.check_not_stopped()?;
        if !self.is_live() || writer.appending {
            return Ok(());
        }
        self.engine.change(|| {
            writer.promised = 0;
            let place = self.place.extent();
            let from = self.unneeded_from(&mut writer);
            if from < place.len {
                writer.storable = writer.storable.min(from);
                let tail = Extent { start: place.start + from, len: place.len - from };
                self.engine.punch_unreliable(tail)?;
            }
            Ok(())
        })
    }

    /// After a flush: gives back whole pieces that a truncation has left, where they are at least
    /// `threshold` bytes more than the region would be given ahead of its growth.
    pub fn reclaim_tail(&self, threshold: u64) -> Result<()> {
        let mut writer = self.writer.lock();
        self.engine.check_not_stopped()?;
        if !self.is_live() || writer.appending {
            return Ok(());
        }
        self.engine.change(|| {
            let place = self.place.extent();
            let from = growth::allocation(self.unneeded_from(&mut writer).max(writer.promised));
            if writer.allocated.saturating_sub(from) < threshold {
                return Ok(());
            }
            let start = place.start + from;
            let whole = Extent { start, len: place.len - from }.whole(self.engine.piece);
            if whole.len > 0 {
                self.engine.punch(whole)?;
                writer.allocated = writer.allocated.min(whole.start - place.start);
                writer.storable = writer.storable.min(writer.allocated);
            }
            Ok(())
        })
    }
}

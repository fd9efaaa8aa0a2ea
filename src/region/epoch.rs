//! Epochs: each flush ends one, and takes every region that has changed in it as it was then.

use std::sync::Arc;

use super::{RegionInner, Writer, CLOSED, LIVE, REMOVED};
use crate::error::{ErrorKind, Result};
use crate::format::{max_tail_len, RegionEntry, SECTOR};
use crate::recovery;
use crate::space::Extent;
use crate::steps::Step;
use crate::sync::Ordering;
use crate::table::Table;

/// What a flush takes of a region: its state at the end of an epoch.
pub(crate) struct Cut {
    /// `data` has to be synced: bytes changed, and not such that a tail will do.
    pub needs_sync: bool,
    pub change: Change,
}

/// What becomes of a slot in the next table.
pub(crate) enum Change {
    /// Nothing.
    None,
    Vacate,
    Entry {
        name: Arc<str>,
        extent: Extent,
        len: u64,
        /// The bytes that have been appended since they were last synced, where nothing else has
        /// happened and the entry's page has room for them.
        tail: Box<[u8]>,
    },
}

impl Change {
    pub fn has_tail(&self) -> bool {
        matches!(self, Change::Entry { tail, .. } if !tail.is_empty())
    }
}

impl RegionInner {
    /// Makes the change that is about to happen part of the present flush epoch, and has the region in
    /// the mirror.
    #[inline]
    pub(super) fn touch(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        // A flush ends an epoch by counting it up. So a change is part of the flush, or not, by
        // what is read here; who sees a change of another thread before making one reads the same
        // or a later epoch. This makes the flushed state one moment of all regions together,
        // although no lock ever holds them all.
        if writer.epoch != self.engine.epoch() {
            self.touch_first(writer)?;
        }
        Ok(())
    }

    #[cold]
    fn touch_first(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        if writer.record.is_none() {
            match self.mirror(writer) {
                Err(error)
                    if error.kind() == ErrorKind::NoSpace && self.engine.reclaim_occupied() =>
                {
                    self.mirror(writer)?;
                }
                entered => entered?,
            }
        }
        self.touch_in_new_epoch(writer, &mut self.engine.lock_table());
        Ok(())
    }

    /// The same for a change that the mirror has already, with the table lock held.
    #[cold]
    pub fn touch_in_new_epoch(self: &Arc<Self>, writer: &mut Writer, table: &mut Table) {
        let epoch = self.engine.epoch();
        if writer.epoch == epoch {
            return;
        }
        if writer.cut_epoch < writer.epoch && Step::CutAtEndOfEpoch.taken() {
            // A flush has ended the epoch of the last change and not been here yet. It wants the
            // region as it is now.
            writer.cut = Some(Box::new(self.cut(writer)));
        }
        if writer.epoch <= table.forgotten {
            writer.allocated = 0;
        }
        if writer.cut_epoch <= self.engine.synced_epoch.load(Ordering::Acquire) {
            // Of a region that recovery has found it may be longer than the region.
            writer.synced_len = writer.cut_len.min(self.len.load(Ordering::Relaxed));
        }
        writer.storable = 0;
        writer.first_changes = 0;
        writer.epoch = epoch;
        writer.entry_changed = false;
        writer.bytes_changed = false;
        table.dirty.push(self.clone());
    }

    /// Marks what the next flush has to record of a region that recovery has found: its entry, where
    /// that is not as the durable table has it, or in any case if `rewrite`.
    pub fn enter_recovered(
        self: &Arc<Self>,
        found: &recovery::Region,
        rewrite: bool,
    ) -> Result<()> {
        let RegionEntry { start, len, reserved, .. } = self.entry("");
        let same = found.durable.is_some_and(|durable| {
            let place = (durable.start, durable.len, durable.reserved);
            durable.name == found.region.name && place == (start, len, reserved)
        });
        let mut writer = self.writer.lock();
        self.touch(&mut writer)?;
        writer.entry_changed = rewrite || !same;
        writer.bytes_changed = found.mirrored && Step::SyncMirroredBytes.taken();
        Ok(())
    }

    /// A new region, which the next flush must write.
    pub fn enter_dirty(self: &Arc<Self>, table: &mut Table) {
        let mut writer = self.writer.lock();
        self.touch_in_new_epoch(&mut writer, table);
        writer.entry_changed = true;
    }

    /// What the flush that ended `epoch` has to write of this region.
    pub fn collect(&self, epoch: u64) -> Cut {
        let mut writer = self.writer.lock();
        self.engine.change(|| {
            if writer.cut_epoch < epoch {
                assert_eq!(writer.epoch, epoch, "a dirty region changed in the epoch that ended");
                return self.cut(&mut writer);
            }
            *writer.cut.take().expect("who touches a region before its flush leaves it a cut")
        })
    }

    /// The flush that collected this region failed: the next one must write it again.
    pub fn collect_again(self: &Arc<Self>, cut: &Cut) {
        let mut writer = self.writer.lock();
        let mut table = self.engine.lock_table();
        self.touch_in_new_epoch(&mut writer, &mut table);
        writer.entry_changed |= !matches!(cut.change, Change::None);
        writer.bytes_changed |= cut.needs_sync;
    }

    /// Records the region at the end of the epoch of its last change.
    fn cut(&self, writer: &mut Writer) -> Cut {
        let len = self.len.load(Ordering::Relaxed);
        assert!(writer.synced_len <= len, "what is cut off is not synced when it comes back");
        let only_appended = !writer.entry_changed && !writer.bytes_changed && len > writer.cut_len;
        // With a tail that is still there, a power loss would undo what has been stored to its bytes.
        let stale_tail = writer.tailed && writer.bytes_changed && Step::DropStaleTails.taken();
        let change = match self.pins.region_state.load(Ordering::Relaxed) {
            // A closed database still flushes its regions.
            LIVE | CLOSED if writer.entry_changed || len != writer.cut_len || stale_tail => {
                let (name, extent) = (self.name(), self.place.extent());
                // Whole sectors, or what it leaves of one would be a mixture.
                let start = writer.synced_len / SECTOR * SECTOR;
                let fits = len.saturating_sub(start) <= max_tail_len(name.len()) as u64;
                let tail = match only_appended && fits {
                    true => self.published(start, len).into(),
                    false => Box::default(),
                };
                Change::Entry { name, extent, len, tail }
            }
            REMOVED if writer.slot_in_table => Change::Vacate,
            _ => Change::None,
        };
        let durable = writer.cut_epoch <= self.engine.durable_epoch();
        writer.earlier_len =
            if durable { writer.cut_len } else { writer.earlier_len.max(writer.cut_len) };
        let grown = len.saturating_sub(writer.cut_len);
        writer.grown_before = grown.next_power_of_two().trailing_zeros() as u8;
        writer.cut_len = len;
        writer.cut_epoch = writer.epoch;
        let mut needs_sync = writer.bytes_changed;
        if matches!(change, Change::Entry { .. }) {
            writer.in_table = true;
            writer.slot_in_table = true;
            writer.tailed = change.has_tail();
            needs_sync |= len > writer.synced_len && !writer.tailed;
        }
        Cut { needs_sync, change }
    }
}

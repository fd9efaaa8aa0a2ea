//! Regions: appending, writing, moving.
//!
//! A region's bytes lie in one extent of `data`, its *place*. One writer at a time holds the
//! region's writer lock; views do not need it (see [`view`](crate::view)). What the hot path of a
//! write touches is this region's alone, except for a few words of the engine that hardly ever
//! change.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{max_tail_len, round_up, RegionEntry, MAX_FILE_LEN, SECTOR};
use crate::growth;
use crate::live::{self, Record};
use crate::recovery;
use crate::space::Extent;
use crate::steps::Step;
use crate::storage::Window;
use crate::sync::{self, AtomicPtr, AtomicU64, BiasedGuard, BiasedMutex, Mutex, Ordering};
use crate::table::Table;
use crate::view::{Pins, Reader, Retired, View};

const LIVE: u8 = 0;
const REMOVED: u8 = 1;
const CLOSED: u8 = 2;

/// Where the region's bytes are. Changes under the writer lock, the table lock and all stripes,
/// and so is stable under any one of these. (Under the stripes alone `reserved` may grow.)
pub(crate) struct Place {
    /// The address of the first byte; null for a region that never held one.
    pub first: AtomicPtr<u8>,
    pub start: AtomicU64,
    pub reserved: AtomicU64,
}

impl Place {
    fn extent(&self) -> Extent {
        Extent {
            start: self.start.load(Ordering::Relaxed),
            len: self.reserved.load(Ordering::Relaxed),
        }
    }

    fn set(&self, first: *mut u8, extent: Extent) {
        self.first.store(first, Ordering::Relaxed);
        self.start.store(extent.start, Ordering::Relaxed);
        self.reserved.store(extent.len, Ordering::Relaxed);
    }
}

/// A region, shared by its handles, its views and the table. What threads that work on it write to lies
/// so far inside that it has no cache line in common with another region, though regions lie side by
/// side in memory: aligning them to lines would take as much again as is at both ends.
#[repr(C)]
pub(crate) struct RegionInner {
    pub engine: Arc<Engine>,
    pub slot: u64,
    /// Changes under the writer lock and the table lock.
    name: Mutex<Arc<str>>,
    /// Published length: every byte below it has been stored. Changes under the writer lock, and
    /// shrinks only with all stripes locked.
    pub len: AtomicU64,
    pub place: Place,
    pub writer: BiasedMutex<Writer>,
    pub pins: Pins,
}

/// Of a line that two regions share, one has this much at most: allocations are aligned to 16.
#[cfg(all(target_pointer_width = "64", not(all(test, loom))))]
pub(crate) const MAX_SHARED_LINE: usize = 64 - 16;

#[cfg(all(target_pointer_width = "64", not(all(test, loom))))]
const _: () = {
    // There may be millions.
    assert!(size_of::<RegionInner>() <= 376);
    // The two counts of the `Arc` lie before.
    assert!(2 * size_of::<usize>() + std::mem::offset_of!(RegionInner, len) >= MAX_SHARED_LINE);
    // What lies at the end is its own affair, see there.
    assert!(
        std::mem::offset_of!(RegionInner, pins) + size_of::<Pins>() == size_of::<RegionInner>()
    );
};

/// What only the writer of a region needs.
pub(crate) struct Writer {
    /// Keeps the place mapped.
    window: Option<Arc<Window>>,
    /// So many bytes from the start of the place can be stored to just so: never more than
    /// `allocated`. 0 at the beginning of a flush epoch, and wherever writes go through system calls.
    storable: u64,
    /// So many bytes from the start of the place lie in pieces that have all their blocks.
    allocated: u64,
    /// Changes that the present epoch has seen go through system calls for being the first.
    first_changes: u8,
    /// By how much the region grew in the epoch before: the next power of two is 2 to the power of this.
    grown_before: u8,
    /// What [`Region::reserve`] was asked for. Kept across moves, until the database is compacted.
    promised: u64,
    /// Where the mirror has the region; nowhere until it is changed for the first time since the
    /// database was opened.
    record: Record,
    /// An [`AppendBuffer`] is out.
    appending: bool,
    /// The flush epoch of the last change, 0 for none since the database was opened. While it is
    /// the present epoch, the region is in the table's list of dirty ones.
    epoch: u64,
    /// In that epoch, apart from appends: the region's entry changed, its bytes changed.
    entry_changed: bool,
    bytes_changed: bool,
    /// The last epoch whose end has been recorded by `cut`.
    cut_epoch: u64,
    /// The record, where it was made by the writer and the flush has yet to collect it.
    cut: Option<Box<Cut>>,
    /// The place is part of a table that is durable or on its way to the disk.
    in_table: bool,
    /// The same for the slot.
    slot_in_table: bool,
    /// The length in the table of `cut_epoch`, and the largest in tables that may be durable until
    /// that one is. Both as far as they speak of this place.
    cut_len: u64,
    earlier_len: u64,
    /// The bytes of the place up to here are on the disk, but for what `bytes_changed` tells.
    synced_len: u64,
    /// The region's entry in tables that may be durable has, or had, a tail.
    tailed: bool,
}

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

/// Where bytes of a place go.
struct Destination {
    first: *mut u8,
    start: u64,
    way: Way,
}

/// How they get there.
#[derive(Clone, Copy, PartialEq)]
enum Way {
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
    /// A region without bytes, whose slot the mirror has. The caller enters it into the table.
    pub fn new(engine: Arc<Engine>, slot: u64, name: Arc<str>, record: Record) -> Arc<RegionInner> {
        RegionInner::with_place(engine, slot, name, None, 0, |writer| writer.record = record)
    }

    /// A region as recovery has found it; `place` is in `window`.
    pub fn recovered(
        engine: Arc<Engine>,
        name: Arc<str>,
        found: &recovery::Region,
        place: Option<Extent>,
        window: Arc<Window>,
    ) -> Arc<RegionInner> {
        let record = match engine.live().filter(|_| found.mirrored) {
            Some(live) => live.take_record(found.slot),
            None => Record::NONE,
        };
        let place = place.map(|extent| (extent, window));
        RegionInner::with_place(engine, found.slot, name, place, found.region.len, |writer| {
            writer.record = record;
            writer.slot_in_table = found.durable.is_some();
            writer.in_table = found.is_in_place();
            let durable_len = found.durable.filter(|_| writer.in_table).map_or(0, |it| it.len);
            writer.cut_len = durable_len;
            writer.earlier_len = durable_len;
            writer.synced_len = durable_len.min(found.region.len);
            writer.tailed = found.tailed;
        })
    }

    fn with_place(
        engine: Arc<Engine>,
        slot: u64,
        name: Arc<str>,
        place: Option<(Extent, Arc<Window>)>,
        len: u64,
        complete: impl FnOnce(&mut Writer),
    ) -> Arc<RegionInner> {
        let (first, extent, window) = match place {
            Some((extent, window)) => (window.at(extent.start), extent, Some(window)),
            None => (ptr::null_mut(), Extent { start: 0, len: 0 }, None),
        };
        let mut writer = Writer {
            window,
            // A backup may have come back with holes in it.
            storable: 0,
            allocated: 0,
            first_changes: 0,
            grown_before: 0,
            promised: 0,
            record: Record::NONE,
            appending: false,
            epoch: 0,
            entry_changed: false,
            bytes_changed: false,
            cut_epoch: 0,
            cut: None,
            in_table: false,
            slot_in_table: false,
            cut_len: 0,
            earlier_len: 0,
            synced_len: 0,
            tailed: false,
        };
        complete(&mut writer);
        let region = Arc::new(RegionInner {
            engine,
            slot,
            len: AtomicU64::new(len),
            place: Place {
                first: AtomicPtr::new(first),
                start: AtomicU64::new(extent.start),
                reserved: AtomicU64::new(extent.len),
            },
            name: Mutex::new(name),
            writer: BiasedMutex::new(writer),
            pins: Pins::new(LIVE, len),
        });
        region.pins.attach(Arc::as_ptr(&region));
        region
    }

    pub fn name(&self) -> Arc<str> {
        self.name.lock().clone()
    }

    /// With writer and table lock held. The mirror has the name already.
    pub fn set_name(&self, writer: &mut Writer, name: Arc<str>, record: Record) {
        *self.name.lock() = name;
        writer.record = record;
        writer.entry_changed = true;
    }

    pub fn is_live(&self) -> bool {
        self.pins.region_state.load(Ordering::Relaxed) == LIVE
    }

    /// Why the region cannot be used.
    #[cold]
    pub fn gone(&self) -> Error {
        match self.pins.region_state.load(Ordering::Relaxed) {
            REMOVED => {
                Error::new(ErrorKind::Removed, format!("region {:?} has been removed", self.name()))
            }
            _ => Error::new(
                ErrorKind::Closed,
                format!("the database of region {:?} is closed", self.name()),
            ),
        }
    }

    #[cold]
    pub fn out_of_bounds(&self, what: &str, offset: u64, len: u64, region_len: u64) -> Error {
        let range = match len {
            u64::MAX => format!("from {offset} to the end"),
            _ => format!("of {len} bytes at {offset}"),
        };
        Error::new(
            ErrorKind::OutOfBounds,
            format!("{what} {range}: region {:?} has {region_len} bytes", self.name()),
        )
    }

    #[cold]
    pub fn busy(&self) -> Error {
        Error::new(ErrorKind::Busy, format!("region {:?} has an append in progress", self.name()))
    }

    /// The writer lock of a live region, or the reason why there is none.
    #[inline(always)]
    pub fn lock_live(&self) -> Result<BiasedGuard<'_, Writer>> {
        let writer = self.writer.lock();
        if self.is_live() {
            return Ok(writer);
        }
        drop(writer);
        Err(self.gone())
    }

    /// The same for a change of the region's bytes.
    #[inline(always)]
    fn lock_for_change(&self) -> Result<BiasedGuard<'_, Writer>> {
        // Before any lock: after a fork it may never be let go.
        self.engine.check_writable()?;
        let writer = self.lock_live()?;
        if writer.appending {
            drop(writer);
            return Err(self.busy());
        }
        Ok(writer)
    }

    /// The region as it is, under `name`. For the holder of the writer lock.
    pub fn entry<'a>(&self, name: &'a str) -> RegionEntry<'a> {
        let Extent { start, len: reserved } = self.place.extent();
        RegionEntry { name, start, len: self.len.load(Ordering::Relaxed), reserved, tail: &[] }
    }

    /// Makes the change that is about to happen part of the present flush epoch, and has the region in
    /// the mirror.
    #[inline]
    fn touch(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
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
        self.touch_in_new_epoch(writer, &mut self.engine.table.lock());
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
        if writer.cut_epoch < epoch {
            assert_eq!(writer.epoch, epoch, "a dirty region changed in the epoch that ended");
            return self.cut(&mut writer);
        }
        *writer.cut.take().expect("who touches a region before its flush leaves it a cut")
    }

    /// The flush that collected this region failed: the next one must write it again.
    pub fn collect_again(self: &Arc<Self>, cut: &Cut) {
        let mut writer = self.writer.lock();
        let mut table = self.engine.table.lock();
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

    /// No byte of the place from here on is needed: not by the region, nor by a table that may be
    /// read after a crash, nor by a view.
    fn unneeded_from(&self, writer: &mut Writer) -> u64 {
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

    /// The place, to be written in this way.
    fn destination(&self, way: Way) -> Destination {
        Destination {
            first: self.place.first.load(Ordering::Relaxed),
            start: self.place.start.load(Ordering::Relaxed),
            way,
        }
    }

    /// The bytes from `start` to `end`, which are published. For a holder of the writer lock, as
    /// only that may change them.
    fn published(&self, start: u64, end: u64) -> &[u8] {
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
    fn end_of(&self, offset: u64, len: usize) -> Result<u64> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= MAX_FILE_LEN => Ok(end),
            _ => Err(self.too_large(offset, len as u64)),
        }
    }

    #[cold]
    fn too_large(&self, offset: u64, len: u64) -> Error {
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
    fn put(
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
        match self.engine.made_space(&error) {
            true => self.put_once(writer, offset, data, new_len),
            false => Err(error),
        }
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
    fn set_len(&self, writer: &Writer, len: u64) -> Result<()> {
        self.engine.mirror_len(writer.record, len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Stores one value of equal length at each offset and sets the length, all or none, where room
    /// and views allow.
    #[inline(always)] // for one value nothing is left of the loop and its arithmetic
    fn overwrite(
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
    fn prepare(
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

    /// Makes sure that the place has blocks for `end` bytes, moving the region if it must.
    fn make_room(self: &Arc<Self>, writer: &mut Writer, end: u64) -> Result<()> {
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
            let extension = self.engine.table.lock().extend_extent(
                &*self.engine.storage,
                !self.engine.guarded,
                place.end(),
                wishes.map(|len| len.saturating_sub(place.len).max(need)),
                window,
            );
            if let Some(extension) = extension {
                let set_reserved = |len| {
                    let _table = self.engine.table.lock();
                    self.place.reserved.store(len, Ordering::Relaxed);
                };
                set_reserved(place.len + extension.len);
                let extended = self.allocate(writer, end).and_then(|()| self.mirror(writer));
                if extended.is_err() {
                    set_reserved(place.len);
                    writer.allocated = writer.allocated.min(place.len);
                    self.engine.table.lock().space.give_back(extension, 0);
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

    /// Records the region as it is.
    fn mirror(&self, writer: &mut Writer) -> Result<()> {
        let name = self.name();
        let mut change = [self.change(writer, Some(self.entry(&name)))];
        self.engine.mirror(&mut change)?;
        writer.record = change[0].record;
        Ok(())
    }

    /// What the slot holds from now on, for the mirror. For the holder of the writer lock.
    pub fn change<'a>(&self, writer: &Writer, region: Option<RegionEntry<'a>>) -> live::Change<'a> {
        match writer.record.is_none() {
            true => live::Change::entering(self.slot, &self.name(), region),
            false => live::Change::of(self.slot, writer.record, region),
        }
    }

    /// Moves the region to a place with room for `capacity` bytes, with its first `keep` bytes and
    /// what `patch` adds, and makes its length `new_len`. Views stay where they are.
    fn relocate(
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
            engine.table.lock().take_extent(&*engine.storage, !engine.guarded, capacity)?;
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
                engine.table.lock().space.give_back(extent, 0);
                return Err(error);
            }
        };

        let mut table = engine.table.lock();
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

    /// Gives the place up, at once or with its last view. The caller sets another.
    fn leave_place(
        &self,
        writer: &mut Writer,
        table: &mut Table,
        stripes: &mut crate::view::AllStripes<'_>,
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

    /// Takes the region out of use as removed. The caller has taken its name out of the table and
    /// touched it.
    pub fn set_removed(self: &Arc<Self>, writer: &mut Writer, table: &mut Table) {
        let mut stripes = self.pins.lock_all();
        self.leave_place(writer, table, &mut stripes);
        self.place.set(ptr::null_mut(), Extent { start: 0, len: 0 });
        self.go(REMOVED, stripes);
        writer.entry_changed = true;
        if !writer.slot_in_table || !Step::KeepDurableSlots.taken() {
            table.slots.free.push(self.slot);
        }
    }

    /// Takes the region out of use because its database closes.
    pub fn set_closed(self: &Arc<Self>) {
        let writer = self.writer.lock();
        if self.is_live() {
            if writer.appending {
                // The buffer can still be stored to, so the files stay locked until it is dropped.
                self.engine.hold();
            }
            self.go(CLOSED, self.pins.lock_all());
        }
    }

    fn go(self: &Arc<Self>, state: u8, mut stripes: crate::view::AllStripes<'_>) {
        self.pins.region_state.store(state, Ordering::Relaxed);
        let (draining, references) = stripes.close();
        // Before a view can be released, and with it the last reason to keep the files locked.
        for _ in 0..draining {
            self.engine.hold();
        }
        drop(stripes);
        for _ in 0..references {
            // SAFETY: each is a count that a stripe took with `increment_strong_count` and has
            // handed over. The caller's reference keeps the region alive.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(self)) };
        }
    }

    /// The last view of a stripe that was closed with views has been released.
    pub fn stripe_drained(&self) {
        self.engine.let_go();
    }

    /// The pieces that an append in progress relies on. Waits for other writers.
    pub fn being_appended(&self) -> Option<Extent> {
        let writer = self.writer.lock();
        let place = self.place.extent();
        writer.appending.then_some(Extent { start: place.start, len: writer.allocated })
    }

    /// Gives back all blocks that the region does not need now, promised ones included.
    pub fn compact(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        if !self.is_live() || writer.appending {
            return Ok(());
        }
        writer.promised = 0;
        let place = self.place.extent();
        let from = self.unneeded_from(&mut writer);
        if from < place.len {
            writer.storable = writer.storable.min(from);
            let tail = Extent { start: place.start + from, len: place.len - from };
            self.engine.punch_unreliable(tail)?;
        }
        Ok(())
    }

    /// After a flush: gives back whole pieces that a truncation has left, where they are at least
    /// `threshold` bytes more than the region would be given ahead of its growth.
    pub fn reclaim_tail(&self, threshold: u64) -> Result<()> {
        let mut writer = self.writer.lock();
        if !self.is_live() || writer.appending {
            return Ok(());
        }
        let place = self.place.extent();
        let from = growth::allocation(self.unneeded_from(&mut writer).max(writer.promised));
        if writer.allocated.saturating_sub(from) < threshold {
            return Ok(());
        }
        let whole =
            Extent { start: place.start + from, len: place.len - from }.whole(self.engine.piece);
        if whole.len > 0 {
            self.engine.punch(whole)?;
            writer.allocated = writer.allocated.min(whole.start - place.start);
            writer.storable = writer.storable.min(writer.allocated);
        }
        Ok(())
    }
}

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
            self.inner.put(&mut writer, offset, data, end)?;
        }
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
        self.inner.put(&mut writer, offset, data, len.max(end))
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
        let inner = &self.inner;
        let mut writer = inner.lock_for_change()?;
        let len = inner.len.load(Ordering::Relaxed);
        let end_of = |offset: u64| offset.checked_add(value_len as u64).filter(|&end| end <= len);
        if let Some(&offset) = offsets.iter().find(|&&offset| end_of(offset).is_none()) {
            return Err(inner.out_of_bounds("write", offset, value_len as u64, len));
        }
        if values.is_empty() {
            return Ok(());
        }
        inner.touch(&mut writer)?;
        let last = offsets.iter().max().expect("there is a value") + value_len as u64;
        let way = match last <= writer.storable {
            true => Way::Store,
            false => inner.prepare(&mut writer, last, offsets.len(), values.len())?,
        };
        let stripes = inner.pins.lock_all();
        if offsets.iter().any(|&offset| stripes.overlap(offset, offset + value_len as u64)) {
            drop(stripes);
            return inner.relocate(&mut writer, len, len, len, &mut |engine, destination| {
                values
                    .chunks_exact(value_len)
                    .zip(offsets)
                    .try_for_each(|(value, &offset)| engine.store(destination, offset, value))
            });
        }
        // Also where it fails: what is put back may have reached the disk as it was written.
        writer.bytes_changed = true;
        let result = inner.overwrite(&writer, way, offsets, values, value_len, len);
        drop(stripes);
        match result {
            Err(error) if inner.engine.made_space(&error) => {
                drop(writer);
                self.write_batch(offsets, values, value_len)
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
        if len < present {
            inner.touch(&mut writer)?;
            let stripes = inner.pins.lock_all();
            inner.set_len(&writer, len)?;
            if !stripes.overlap(len, u64::MAX) {
                inner.pins.set_viewed_end(len);
            }
            writer.entry_changed = true;
            writer.synced_len = writer.synced_len.min(len);
        }
        Ok(())
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
        self.inner.touch(&mut writer)?;
        writer.synced_len = writer.synced_len.min(end);
        self.inner.put(&mut writer, offset, data, end)
    }

    /// Gives out `len` bytes of room at the end of the region, to be filled in place. Until the
    /// buffer is ended or dropped, other writers of this region get `Busy`; views and other
    /// regions are not affected.
    ///
    /// # Errors
    ///
    /// As [`write`](Region::write).
    pub fn append_begin(&self, len: usize) -> Result<AppendBuffer> {
        let inner = &self.inner;
        let mut writer = inner.lock_for_change()?;
        let offset = inner.len.load(Ordering::Relaxed);
        let end = inner.end_of(offset, len)?;
        inner.touch(&mut writer)?;
        if end > writer.allocated {
            inner.make_room(&mut writer, end)?;
        }
        // Views may still hold bytes that a truncation has left behind the end.
        if offset < inner.pins.viewed_end() && inner.pins.lock_all().overlap(offset, end) {
            inner.relocate(&mut writer, end, offset, offset, &mut |_, _| Ok(()))?;
        }
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
        Ok(AppendBuffer { region: self.clone(), first, len, heap })
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
        // First, as it may have to forget what it knows of its blocks.
        self.inner.touch(&mut writer)?;
        if capacity > writer.allocated {
            self.inner.make_room(&mut writer, capacity)?;
        }
        writer.promised = writer.promised.max(capacity);
        Ok(())
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
        let _table = self.inner.engine.table.lock();
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
        engine.hold();
        drop(writer);
        let result = engine.flush();
        engine.let_go();
        result
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

impl RegionInner {
    /// With the table lock held.
    pub fn info(&self) -> RegionInfo {
        let place = self.place.extent();
        RegionInfo {
            start: place.start,
            len: self.len.load(Ordering::Acquire),
            reserved: place.len,
        }
    }
}

impl Writer {
    /// Whether an [`AppendBuffer`] is out, so that the region cannot go away.
    pub fn is_appending(&self) -> bool {
        self.appending
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

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
        inner.engine.check_writable()?;
        if written > self.len {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("end of an append: {written} bytes written to a buffer of {}", self.len),
            ));
        }
        let mut writer = inner.lock_live()?;
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
            match publish() {
                Err(error) if inner.engine.made_space(&error) => publish()?,
                published => published?,
            }
            inner.pins.raise_viewed_end(end);
        }
        Ok(offset)
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

impl Engine {
    /// Stores `data` at `offset` of a place. The range lies within the place, has blocks, and is
    /// seen by no one: no view covers it, or all stripes are locked.
    #[inline]
    fn store(&self, destination: &Destination, offset: u64, data: &[u8]) -> Result<()> {
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

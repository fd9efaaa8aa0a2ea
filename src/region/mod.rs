//! Regions: appending, writing, moving.
//!
//! A region's bytes lie in one extent of `data`, its *place*. One writer at a time holds the
//! region's writer lock; views do not need it (see [`view`](crate::view)). What the hot path of a
//! write touches is this region's alone, except for a few words of the engine that hardly ever
//! change.
//!
//! Here is what a region is, and its life until it is removed or its database closed. How bytes get
//! into it is in [`write`], where they lie in [`place`], and what a flush takes of it in [`epoch`].

mod append;
mod epoch;
mod handle;
mod place;
mod write;

use std::ptr;
use std::sync::Arc;

pub use append::AppendBuffer;
pub(crate) use epoch::{Change, Cut};
pub use handle::{Region, RegionInfo};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::RegionEntry;
use crate::live::{self, Record};
use crate::recovery;
use crate::space::Extent;
use crate::steps::Step;
use crate::storage::Window;
use crate::sync::{AtomicPtr, AtomicU64, BiasedGuard, BiasedMutex, Mutex, Ordering};
use crate::table::Table;
use crate::view::{AllStripes, Closed, Pins};

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
    pub place: Place,
    /// Published length: every byte below it has been stored. Changes under the writer lock, and
    /// shrinks only with all stripes locked.
    pub len: AtomicU64,
    pub writer: BiasedMutex<Writer>,
    pub pins: Pins,
    /// Changes under the writer lock and the table lock.
    name: Mutex<Arc<str>>,
}

#[cfg(all(target_pointer_width = "64", not(all(test, loom))))]
const _: () = {
    use std::mem::offset_of;
    // There may be millions.
    assert!(size_of::<RegionInner>() <= 368);
    // Of a line that two regions share, one has this much at most: allocations are aligned to 16.
    const MAX_SHARED_LINE: usize = 64 - 16;
    // What comes before the length hardly ever changes, nor do the two counts of the `Arc` before that.
    assert!(2 * size_of::<usize>() + offset_of!(RegionInner, len) >= MAX_SHARED_LINE);
    // From the state on nothing is written to but when views meet, or the region moves or goes away.
    let state = offset_of!(RegionInner, pins) + offset_of!(Pins, region_state);
    assert!(size_of::<RegionInner>() - state >= MAX_SHARED_LINE);
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
        self.engine.check_process()?;
        let writer = self.writer.lock();
        // Under the lock, or who has waited for a call that panicked would go on where it has ended.
        if let Err(error) = self.engine.check_not_stopped() {
            drop(writer);
            return Err(error);
        }
        if !self.is_live() {
            drop(writer);
            return Err(self.gone());
        }
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

    fn go(self: &Arc<Self>, state: u8, mut stripes: AllStripes<'_>) {
        self.pins.region_state.store(state, Ordering::Relaxed);
        let Closed { draining, views, references } = stripes.close();
        // Before a view can be released, and with it the last reason to keep the files locked.
        self.engine.storage.holding().keep(views as u64);
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

    /// A view of a stripe that was closed has been released.
    pub fn view_ended(&self) {
        self.engine.storage.holding().release();
    }

    /// And it was the stripe's last one.
    pub fn stripe_drained(&self) {
        self.engine.let_go();
    }

    /// The pieces that an append in progress relies on. Waits for other writers.
    pub fn being_appended(&self) -> Option<Extent> {
        let writer = self.writer.lock();
        let place = self.place.extent();
        writer.appending.then_some(Extent { start: place.start, len: writer.allocated })
    }

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

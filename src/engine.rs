//! What the handles of one open database share.
//!
//! Locks, in the order in which they are taken; a thread that holds one takes only later ones:
//!
//! 1. the committer (a flush),
//! 2. writer locks of regions, of several in the order of their slots,
//! 3. the table,
//! 4. the stripes of a region,
//! 5. its retired places, its name; the pieces; the mirror.
//!
//! Those of 2 and 4 are [biased](crate::biased): the mutex within one is taken and let go on the way
//! in, or stands for it.
//!
//! The system is called for something slow (sync, punch, copying a region) under no lock but the
//! one that serialises just that: the committer's for a sync, the region's own for its bytes and
//! blocks.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::flush::Committer;
use crate::fork;
use crate::format::{self, round_up, Header, Identity, RegionEntry, PAGE_SIZE};
use crate::growth;
use crate::live::{self, Change, Live, Mirror, Record};
use crate::options::Options;
use crate::pieces::Pieces;
use crate::recovery::{self, recover, Recovered, Region};
use crate::region::{RegionInner, Writer};
use crate::resting::NoMemory;
use crate::space::{Extent, Space};
use crate::steps::Step;
use crate::storage::file::{check_address_space, map_generously};
use crate::storage::{File, Storage};
use crate::sync::{
    Apart, AtomicBool, AtomicU64, AtomicUsize, BiasedGuard, Mutex, MutexGuard, OnceLock, Ordering,
};
use crate::table::{Slots, Table};
use crate::view::Retired;

/// Read by every write of every region; written by flushes and failures only.
struct HotWords {
    /// The present flush epoch. Changes with the table lock held.
    epoch: AtomicU64,
    /// The last epoch that is durable.
    durable_epoch: AtomicU64,
    /// No change is possible: opened for reading only, or a sync has failed.
    stopped: AtomicBool,
    /// Of the process that opened the database.
    process_mark: u32,
}

pub(crate) struct Engine {
    hot: Apart<HotWords>,
    pub storage: Arc<dyn Storage>,
    /// `data` is written by system calls.
    pub guarded: bool,
    read_only: bool,
    /// The unit in which blocks are taken and given back.
    pub piece: u64,
    min_file_len: u64,
    pub reclaim_threshold: u64,
    /// The first failed sync.
    failure: OnceLock<Error>,
    pub table: Apart<Mutex<Table>>,
    pub pieces: Mutex<Pieces>,
    /// Where the table is kept for whoever opens the database after the death of this process.
    live: Option<Live>,
    pub committer: Apart<Mutex<Committer>>,
    /// The last epoch at whose end a flush has synced `data`.
    pub synced_epoch: AtomicU64,
    /// How many flushes have begun.
    pub flushes: AtomicU64,
    /// Of the last durable table.
    pub generation: AtomicU64,
    /// What keeps the files locked: the open database, and beyond its end stripes with views and
    /// append buffers.
    holders: AtomicUsize,
}

impl Engine {
    /// Opens the database in `storage`, or creates one there if the options allow.
    pub fn open(storage: Arc<dyn Storage>, options: &Options) -> Result<Arc<Engine>> {
        let (mut recovered, mirror) = match find(&*storage)? {
            Some(_) if options.create_new => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{} is a database already", place(&*storage)),
                ))
            }
            Some(recovered) => {
                let mirror = find_mirror(&*storage, &recovered)?;
                (recovered, mirror)
            }
            None if options.read_only || options.no_create => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{} holds no database yet", place(&*storage)),
                ))
            }
            None => {
                // What cannot be opened afterwards is better not created.
                let least = storage.piece_len().max(options.min_file_len);
                check_address_space(&*storage, least, options.max_address_space)?;
                create(&*storage)?;
                match find(&*storage)? {
                    Some(recovered) => (recovered, None),
                    None => {
                        return Err(Error::new(
                            ErrorKind::Io,
                            format!("{} does not keep what is written to it", place(&*storage)),
                        ))
                    }
                }
            }
        };

        let data = storage.path(File::Data);
        let file_len =
            storage.len(File::Data).map_err(|error| Error::io("examine", data, &error))?;
        let mirror = mirror.as_ref();
        let limit = match (options.max_address_space, options.read_only) {
            (0, true) => round_up(file_len),
            (limit, true) => limit.min(round_up(file_len)),
            (limit, false) => limit,
        };
        // Before anything is done to the files, asking included.
        check_address_space(&*storage, file_len, limit)?;
        let guarded = options.guarded || options.read_only || !storage.keeps_allocated();
        // A database that was not mapped may end anywhere. Recovery has checked that the file
        // covers all regions.
        let piece = if guarded { PAGE_SIZE } else { storage.piece_len() };
        let whole_pieces = file_len % piece == 0;
        let file_len = file_len.next_multiple_of(piece);
        let limit = if options.read_only { file_len } else { limit };
        let window = map_generously(&*storage, file_len, limit, !guarded)?;
        if storage.holes_take_space() {
            fill_holes(&*storage, &recovered, mirror)?;
        }
        if options.read_only {
            for (start, tail) in recovered.tails(mirror) {
                storage.cover(&window, start, tail).map_err(|error| {
                    Error::io("map", data, &error).with_kind(ErrorKind::NoMemory)
                })?;
            }
        }
        let mut committer = Committer::new(&mut recovered, mirror);
        let grow = || match whole_pieces || options.read_only {
            true => Ok(()),
            false => storage
                .set_len(File::Data, file_len)
                .map_err(|error| Error::io("extend", data, &error)),
        };
        if !Step::GrowAfterSettling.taken() {
            grow()?;
        }
        if !options.read_only {
            committer.settle(&*storage, &recovered, mirror)?;
        }
        // Not before the identity is durable: a file that is longer than it, without it, is damaged.
        grow()?;
        // Not before the table is durable: whoever finds a mirror does not sync what it goes beyond.
        let live = match options.read_only {
            true => None,
            false => Live::begin(&storage, !guarded, &recovered, mirror)?,
        };
        let (header, capacity) = (recovered.header, recovered.capacity);
        let slots = Slots { free: Vec::new(), vacant: Vec::new(), next: header.slots, capacity };
        let space = Space::new(file_len, piece, options.effective_reclaim_threshold());
        let table = Table::new(space, Arc::new(window), slots, options.max_address_space);
        let engine = Arc::new(Engine {
            hot: Apart(HotWords {
                epoch: AtomicU64::new(1),
                durable_epoch: AtomicU64::new(0),
                stopped: AtomicBool::new(options.read_only),
                process_mark: fork::process_mark(),
            }),
            storage,
            guarded,
            read_only: options.read_only,
            piece,
            min_file_len: options.min_file_len,
            reclaim_threshold: options.effective_reclaim_threshold(),
            failure: OnceLock::new(),
            table: Apart(Mutex::new(table)),
            pieces: Mutex::new(Pieces::new(piece)),
            live,
            committer: Apart(Mutex::new(committer)),
            synced_epoch: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            generation: AtomicU64::new(header.generation),
            holders: AtomicUsize::new(1),
        });
        let entered = engine
            .enter_recovered(&recovered, mirror)
            .map_err(|NoMemory| recovery::no_memory(&place(&*engine.storage)));
        let complete = entered.and_then(|unrecorded| match options.read_only {
            true => Ok(()),
            false => engine.enter_unrecorded(&unrecorded),
        });
        let complete = complete.and_then(|()| match options.min_file_len {
            len if len > 0 && !options.read_only => engine.reserve_file(len),
            _ => Ok(()),
        });
        if let Err(error) = complete {
            // Without a flush: it would make a part durable of what belongs together.
            engine.part();
            return Err(error);
        }
        let mut table = engine.table.lock();
        let entered = table.names.values().map(|region| region.slot);
        table.resting = recovered.into_resting(mirror, entered);
        drop(table);
        Ok(engine)
    }

    /// Fills the table with what recovery found. Returns what the next flush has to record of that.
    fn enter_recovered<'a>(
        self: &Arc<Self>,
        recovered: &'a Recovered,
        mirror: Option<&'a Mirror>,
    ) -> std::result::Result<Vec<Region<'a>>, NoMemory> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let file_len = table.space.file_len();
        let most = recovered.resting.slots().len() + mirror.map_or(0, |it| it.slots.len());
        let (mut unrecorded, mut used, mut used_slots) = (Vec::new(), Vec::new(), Vec::new());
        used.try_reserve(most).map_err(|_| NoMemory)?;
        used_slots.try_reserve(most).map_err(|_| NoMemory)?;
        used.push(Extent { start: 0, len: PAGE_SIZE });
        recovered.regions(mirror).try_for_each(|found| {
            let place = found.region.place(file_len);
            used.extend(place);
            used_slots.push(found.slot);
            // What is reserved beyond the file may be given to another region.
            let clipped = place.map_or(0, |place| place.len) < found.region.reserved;
            if found.mirrored || clipped || is_abandoned(&found) {
                unrecorded.try_reserve(1).map_err(|_| NoMemory)?;
                table.enter(self, &found, place);
                unrecorded.push(found);
            }
            Ok(())
        })?;
        used_slots.sort_unstable();
        let behind = used_slots.last().map_or(0, |slot| slot + 1);
        table.slots.next = table.slots.next.max(behind);
        table.slots.vacant = vacant_runs(&used_slots, table.slots.next);
        for extent in mirror.iter().flat_map(|mirror| recovered.left_extents(mirror, file_len)) {
            used.push(extent);
            // Until a flush has recorded that it is given up, a power loss brings its region back.
            let epoch = Step::KeepDurableExtentsAtOpen.taken().then(|| self.epoch());
            table.give_up(extent, epoch);
        }
        used.sort_unstable_by_key(|extent| extent.start);
        used.push(Extent { start: file_len, len: 0 });
        for pair in used.windows(2) {
            let (start, end) = (pair[0].end(), pair[1].start);
            if start < end {
                // Nobody knows what blocks free space has from before.
                table.space.give_back(Extent { start, len: end - start }, 0);
            }
        }
        Ok(unrecorded)
    }

    /// Marks as changed what the next flush has to record of what recovery found.
    fn enter_unrecorded(self: &Arc<Self>, unrecorded: &[Region]) -> Result<()> {
        for found in unrecorded {
            self.find_region(found.region.name)?.enter_recovered(found, is_abandoned(found))?;
        }
        Ok(())
    }

    /// Records what slots hold from now on, all of them at once, for the case that this process dies.
    /// What it gives up may be used again from then on, and not before.
    pub fn mirror(&self, changes: &mut [Change]) -> Result<()> {
        self.live.as_ref().map_or(Ok(()), |live| live.record(changes))
    }

    /// Records the length of a region that is recorded there.
    #[inline]
    pub fn mirror_len(&self, record: Record, len: u64) -> Result<()> {
        match &self.live {
            Some(live) => live.store_len(record, len),
            None => Ok(()),
        }
    }

    /// The mirror, if there is one.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// The present flush epoch.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.hot.epoch.load(Ordering::Acquire)
    }

    /// Ends the present epoch; returns it. With the table lock held.
    pub fn end_epoch(&self, _table: &mut MutexGuard<'_, Table>) -> u64 {
        self.hot.epoch.fetch_add(1, Ordering::AcqRel)
    }

    #[inline]
    pub fn durable_epoch(&self) -> u64 {
        self.hot.durable_epoch.load(Ordering::Acquire)
    }

    /// With the table lock held.
    pub fn set_durable(&self, table: &mut Table, epoch: u64) {
        table.set_durable(epoch);
        self.hot.durable_epoch.store(epoch, Ordering::Release);
    }

    /// Refuses a call in a forked child. To be asked before any lock is taken.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.is_own_process() {
            return Ok(());
        }
        Err(self.forked())
    }

    #[inline]
    pub fn is_own_process(&self) -> bool {
        fork::is_same_process(self.hot.process_mark)
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Forked,
            format!("{} was opened before a fork, by the parent process", place(&*self.storage)),
        )
    }

    /// Refuses everything after a failed sync.
    pub fn check_usable(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Refuses a change that cannot be made.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if self.hot.stopped.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        Ok(())
    }

    #[cold]
    fn stopped(&self) -> Error {
        match self.failure.get() {
            Some(failure) => failure.clone(),
            None => Error::new(
                ErrorKind::ReadOnly,
                format!("{} is open for reading only", place(&*self.storage)),
            ),
        }
    }

    /// A sync has failed. What was dirty may be gone from memory without having reached the disk,
    /// so no later sync proves anything: the database accepts no change until it is opened again.
    pub fn fail(&self, error: Error) -> Error {
        if !Step::StopAfterFailedSync.taken() {
            return error;
        }
        // What a dead process leaves in the page cache may not be all there either.
        if let Some(live) = self.live.as_ref().filter(|_| Step::DistrustAfterFailedSync.taken()) {
            live.distrust();
        }
        let first = self.failure.get_or_init(|| error);
        // Who sees this sees the failure as well.
        self.hot.stopped.store(true, Ordering::Release);
        first.clone()
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    #[cold]
    pub fn no_memory(&self, bytes: u64) -> Error {
        Error::new(ErrorKind::NoMemory, format!("no memory for a buffer of {bytes} bytes"))
    }

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
            // A write through the system can say that there is no space.
            return Ok(place.len);
        }
        let want = want.min(place.len);
        if !Step::AllocateFirst.taken() {
            return Ok(want);
        }
        assert!(from < need && need <= want);
        let attempt = |to: u64| {
            let mut pieces = self.pieces.lock();
            let range = Extent { start: place.start + from, len: to - from };
            for run in pieces.missing(range) {
                if let Err(error) = self.storage.allocate(File::Data, run.start, run.len) {
                    // A failed allocation may have taken what was left of the disk. Behind
                    // `unneeded` nobody needs these bytes, and whole pieces nobody shares.
                    let start = run.start.max(place.start + unneeded);
                    let len = run.end().min(place.end()).saturating_sub(start);
                    let whole = Extent { start, len }.whole(self.piece);
                    if whole.len > 0 {
                        let _ = self.storage.punch(whole.start, whole.len);
                    }
                    return Err(error);
                }
                pieces.set_allocated(run);
            }
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
        let pieces = self.pieces.lock();
        let parts = match Step::SparePiecesInUse.taken() {
            true => pieces.unreliable_parts(range),
            false => vec![range],
        };
        parts.into_iter().try_for_each(|part| self.punch_range(part))
    }

    fn punch_range(&self, range: Extent) -> Result<()> {
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

    /// The last view of a retired place has been released.
    pub fn release_pinned(&self, retired: &Retired) {
        let mut table = self.table.lock();
        table.pinned_bytes -= retired.extent.len;
        table.give_up(retired.extent, retired.epoch);
    }

    /// One more reason to keep the files locked.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// One reason less.
    pub fn let_go(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 && self.check_process().is_ok() {
            self.storage.unlock();
        }
    }

    /// The region of this name, created if there is none.
    pub fn create_region(self: &Arc<Self>, name: &str) -> Result<Arc<RegionInner>> {
        self.check_process()?;
        format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        let mut table = self.table.lock();
        if let Some(region) = table.find(self, name) {
            return Ok(region);
        }
        self.check_writable()?;
        let slot = table.slots.take(&*self.storage)?;
        let entry = RegionEntry { name, start: 0, len: 0, reserved: 0, tail: &[] };
        let mut change = [Change::of(slot, Record::NONE, Some(entry))];
        self.mirror(&mut change).inspect_err(|_| table.slots.free.push(slot))?;
        let name: Arc<str> = name.into();
        let region = RegionInner::new(self.clone(), slot, name.clone(), change[0].record);
        // Takes the writer lock after the table's, which no one else can want yet.
        region.enter_dirty(&mut table);
        table.names.insert(name, region.clone());
        Ok(region)
    }

    /// The region of this name.
    pub fn find_region(self: &Arc<Self>, name: &str) -> Result<Arc<RegionInner>> {
        self.check_process()?;
        format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        self.table.lock().find(self, name).ok_or_else(|| not_found(name))
    }

    pub fn remove(self: &Arc<Self>, name: &str) -> Result<()> {
        self.check_writable()?;
        loop {
            let region = self.find_region(name)?;
            match self.remove_region(&region) {
                // Removed by another thread since it was found; there may be a new one.
                Err(error) if error.kind() == ErrorKind::Removed => {}
                // Renamed by another thread: removed under its new name, which is as if the
                // removal had come first.
                result => return result,
            }
        }
    }

    pub fn remove_region(&self, region: &Arc<RegionInner>) -> Result<()> {
        self.check_writable()?;
        let mut writer = region.lock_live()?;
        if writer.is_appending() {
            drop(writer);
            return Err(region.busy());
        }
        let mut table = self.table.lock();
        self.mirror(&mut [region.change(&writer, None)])?;
        take_out(&mut table, region, &mut writer);
        Ok(())
    }

    /// Gives the region `from` the name `to`, in the place of the region that has it if `replace`.
    pub fn rename(self: &Arc<Self>, from: &str, to: &str, replace: bool) -> Result<()> {
        self.check_writable()?;
        format::check_name(to).map_err(|reason| invalid_name(to, reason))?;
        let new_name: Arc<str> = to.into();
        loop {
            let region = self.find_region(from)?;
            if from == to {
                return Ok(());
            }
            let target = self.table.lock().find(self, to);
            if same(target.as_ref(), Some(&region)) {
                // Another thread has renamed it just so, and locking it twice would be for ever.
                continue;
            }
            let mut involved: Vec<_> = target.iter().chain([&region]).collect();
            let Some((mut table, mut writers)) = self.lock_regions(&mut involved, |table| {
                same(table.names.get(from), Some(&region))
                    && same(table.names.get(to), target.as_ref())
            }) else {
                continue;
            };
            let index = |region: &Arc<RegionInner>| {
                let index = involved.iter().position(|it| Arc::ptr_eq(it, region));
                index.expect("the region is involved")
            };
            if let Some(target) = &target {
                if !replace {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("cannot rename {from:?}: there is a region {to:?}"),
                    ));
                }
                if writers[index(target)].is_appending() {
                    return Err(target.busy());
                }
            }
            let removed = target.iter().map(|target| target.change(&writers[index(target)], None));
            let renamed = region.change(&writers[index(&region)], Some(region.entry(to)));
            let mut changes: Vec<_> = [renamed].into_iter().chain(removed).collect();
            self.mirror(&mut changes)?;
            let record = changes[0].record;
            if let Some(target) = &target {
                take_out(&mut table, target, &mut writers[index(target)]);
            }
            let writer = &mut writers[index(&region)];
            region.touch_in_new_epoch(writer, &mut table);
            table.names.remove(from);
            region.set_name(writer, new_name.clone(), record);
            table.names.insert(new_name, region.clone());
            return Ok(());
        }
    }

    /// Removes every region that is not named.
    pub fn retain(self: &Arc<Self>, names: &[&str]) -> Result<()> {
        self.check_writable()?;
        for name in names {
            format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        }
        // The caller chose the size.
        let mut kept = std::collections::HashSet::new();
        kept.try_reserve(names.len()).map_err(|_| self.no_memory(size_of_val(names) as u64))?;
        kept.extend(names.iter().copied());
        loop {
            let victims = self.table.lock().find_all(self, |name| !kept.contains(name));
            let mut involved: Vec<_> = victims.iter().collect();
            let Some((mut table, mut writers)) = self.lock_regions(&mut involved, |table| {
                let others = table.names.keys().filter(|name| !kept.contains(&***name)).count();
                others == victims.len()
                    && victims.iter().all(|it| same(table.names.get(&it.name()), Some(it)))
            }) else {
                continue;
            };
            let mut pairs = involved.iter().zip(&writers);
            if let Some((region, _)) = pairs.find(|(_, writer)| writer.is_appending()) {
                return Err(region.busy());
            }
            let pairs = involved.iter().zip(&writers);
            let mut changes: Vec<_> =
                pairs.map(|(region, writer)| region.change(writer, None)).collect();
            self.mirror(&mut changes)?;
            for (region, writer) in involved.iter().zip(&mut writers) {
                take_out(&mut table, region, writer);
            }
            return Ok(());
        }
    }

    /// Locks the writers of `regions`, which it sorts into lock order, and the table. `None` where
    /// the table has changed meanwhile so that `unchanged` no longer holds.
    #[allow(clippy::type_complexity)]
    fn lock_regions<'a>(
        &'a self,
        regions: &mut Vec<&'a Arc<RegionInner>>,
        unchanged: impl FnOnce(&Table) -> bool,
    ) -> Option<(MutexGuard<'a, Table>, Vec<BiasedGuard<'a, Writer>>)> {
        regions.sort_unstable_by_key(|region| region.slot);
        let writers = regions.iter().map(|region| region.writer.lock()).collect();
        let table = self.table.lock();
        unchanged(&table).then_some((table, writers))
    }

    /// Makes `data` at least `min_len` long.
    pub fn reserve_file(&self, min_len: u64) -> Result<()> {
        self.check_writable()?;
        self.table.lock().grow_file(&*self.storage, !self.guarded, min_len)
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
        let mut table = self.table.lock();
        table.slots.grow(&*self.storage, count)?;
        let more = count.saturating_sub(table.names.len() as u64);
        self.live.as_ref().map_or(Ok(()), |live| live.reserve(more))
    }

    /// Flushes and takes every handle out of use. The files stay locked while views are open.
    pub fn close(&self) -> Result<()> {
        // In a forked child nothing is freed: the locks cannot be trusted, and the files are the
        // parent's.
        self.check_process()?;
        let regions: Vec<_> = self.table.lock().names.values().cloned().collect();
        for region in &regions {
            region.set_closed();
        }
        // Nothing changes a region from here on, so this flush is complete.
        let result = if self.read_only {
            Ok(())
        } else {
            self.flush()
                .and_then(|()| self.committer.lock().finish(self))
                .and_then(|()| self.cut_file())
                .and_then(|()| self.punch_last_piece())
        };
        if let (Some(live), Ok(())) = (&self.live, &result) {
            live.remove();
        }
        self.part();
        result
    }

    /// Regions and engine refer to each other until this parts them.
    fn part(&self) {
        let mut table = self.table.lock();
        table.dirty.clear();
        let names = std::mem::take(&mut table.names);
        let resting = std::mem::take(&mut table.resting);
        drop(table);
        drop((names, resting));
        self.let_go();
    }

    /// For a database at rest: gives back what is free of the last piece, too. Nothing is stored any
    /// more but to append buffers that are still out, and these rely on their pieces.
    fn punch_last_piece(&self) -> Result<()> {
        let (start, end) = {
            let space = &self.table.lock().space;
            (space.free_end(), space.file_len())
        };
        let is_alone = self.holders.load(Ordering::Acquire) == 1;
        if start < end && is_alone {
            self.punch_range(Extent { start, len: end - start })?;
        }
        Ok(())
    }

    /// Cuts the free end off `data`, in whole pieces.
    pub fn cut_file(&self) -> Result<()> {
        let mut table = self.table.lock();
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

/// Takes a region out of the table.
fn take_out(table: &mut Table, region: &Arc<RegionInner>, writer: &mut Writer) {
    region.touch_in_new_epoch(writer, table);
    let removed = table.names.remove(&region.name());
    assert!(same(removed.as_ref(), Some(region)), "a live region is in the table by its name");
    region.set_removed(writer, table);
}

fn same(a: Option<&Arc<RegionInner>>, b: Option<&Arc<RegionInner>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn invalid_name(name: &str, reason: &str) -> Error {
    // Names that are too long are not repeated in full.
    let shown: String = name.chars().take(64).collect();
    let dots = if shown.len() < name.len() { "..." } else { "" };
    Error::new(
        ErrorKind::InvalidName,
        format!("{shown:?}{dots} ({} bytes) cannot name a region: {reason}", name.len()),
    )
}

fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no region {name:?}"))
}

/// How messages name the database: by the directory of its files.
fn place(storage: &dyn Storage) -> String {
    let path = storage.path(File::Data);
    path.parent().unwrap_or(path).display().to_string()
}

/// Looks for a database.
fn find(storage: &dyn Storage) -> Result<Option<Recovered>> {
    let (data, regions) = (storage.path(File::Data), storage.path(File::Regions));
    let identity = storage.read_identity().map_err(|error| Error::io("read", data, &error))?;
    let data_len = storage.len(File::Data).map_err(|error| Error::io("examine", data, &error))?;
    let table = storage.read(File::Regions).map_err(|error| Error::io("read", regions, &error))?;
    recover(&place(storage), &identity, data_len, (*table.bytes).as_ref(), &table.written)
}

/// See [`RestingSlot::abandoned`](crate::resting::RestingSlot::abandoned).
fn is_abandoned(found: &Region) -> bool {
    found.abandoned && Step::RewriteAbandoned.taken()
}

/// Looks for a mirror that goes beyond the table that was found.
fn find_mirror(storage: &dyn Storage, recovered: &Recovered) -> Result<Option<Mirror>> {
    let Some(mirror) = live::read(storage, recovered)? else { return Ok(None) };
    let data = storage.path(File::Data);
    let data_len = storage.len(File::Data).map_err(|error| Error::io("examine", data, &error))?;
    let fits = recovered.fits(&mirror, data_len);
    let fits = fits.map_err(|NoMemory| recovery::no_memory(&place(storage)))?;
    Ok((fits || !Step::CheckMirroredPlaces.taken()).then_some(mirror))
}

/// The slots below `next` that hold no region, the lowest run last. There are such: a region that
/// is removed before its first flush leaves a slot that was never written. `used` are the others.
fn vacant_runs(used: &[u64], next: u64) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    let mut end = next;
    for &slot in used.iter().rev() {
        if slot + 1 < end {
            runs.push(slot + 1..end);
        }
        end = slot;
    }
    if end > 0 {
        runs.push(0..end);
    }
    runs
}

/// Gives all bytes of all regions blocks, so that looking at them takes none. A backup may have
/// come back with holes in it.
fn fill_holes(storage: &dyn Storage, recovered: &Recovered, mirror: Option<&Mirror>) -> Result<()> {
    for region in recovered.regions(mirror).map(|it| it.region) {
        if region.len > 0 {
            storage
                .allocate(File::Data, region.start, region.len)
                .map_err(|error| Error::io("fill holes in", storage.path(File::Data), &error))?;
        }
    }
    Ok(())
}

/// Makes an empty database of two empty files, or of what an interrupted creation left.
fn create(storage: &dyn Storage) -> Result<()> {
    let failed = |action: &'static str, file: File| {
        move |error: std::io::Error| Error::io(action, storage.path(file), &error)
    };
    // The names come first: once `data` has an identity, `regions` must be there.
    if Step::SyncDirectory.taken() {
        storage.sync_directory().map_err(failed("sync the directory of", File::Data))?;
    }
    storage.set_len(File::Regions, 0).map_err(failed("create", File::Regions))?;
    storage.set_len(File::Data, 0).map_err(failed("create", File::Data))?;
    let uuid = storage.new_uuid().map_err(failed("make an identity for", File::Data))?;
    let header = Header { uuid, generation: 1, slots: 0, regions: 0, digest: 0, closed: false };
    let page = format::encode_header(&header);
    let capacity = growth::slots(0);
    storage
        .allocate(File::Regions, 0, format::slot_offset(capacity, 0))
        .map_err(failed("make room for regions in", File::Regions))?;
    for side in 0..2 {
        storage
            .write(File::Regions, format::header_offset(side), page.sectors())
            .map_err(failed("write", File::Regions))?;
    }
    if Step::SyncNewTable.taken() {
        storage.sync(File::Regions).map_err(failed("sync", File::Regions))?;
    }
    // The identity comes last: without it there is no database. See `recovery`.
    let page = format::encode_identity(&Identity { uuid });
    storage.set_len(File::Data, PAGE_SIZE).map_err(failed("create", File::Data))?;
    storage.write(File::Data, 0, page.bytes()).map_err(failed("write", File::Data))
}

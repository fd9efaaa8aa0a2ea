//! Opening and closing: creating a database, filling the table with what recovery found, and the
//! last flush.

use std::ops::Range;
use std::sync::Arc;

use super::{place, Engine, HotWords};
use crate::error::{Error, ErrorKind, Result};
use crate::flush::{write_headers, Committer};
use crate::fork;
use crate::format::{self, round_up, Header, Identity, PAGE_SIZE};
use crate::growth;
use crate::live::{self, Live, Mirror};
use crate::options::Options;
use crate::pieces::Pieces;
use crate::recovery::{self, recover, Recovered, Region};
use crate::resting::NoMemory;
use crate::space::{Extent, Space};
use crate::steps::Step;
use crate::storage::window::{check_address_space, map_generously};
use crate::storage::{File, Storage};
use crate::sync::{
    Apart, AtomicBool, AtomicU64, AtomicUsize, Mutex, OnceLock, Ordering, ReentrantMutex,
};
use crate::table::{Slots, Table};

/// What an open that fails has to take back.
enum Undo {
    /// It has changed nothing, or what needs no taking back.
    Nothing,
    /// It has created the database.
    Creation,
    /// It has taken the mark of a closed database away, whose `data` was that long.
    Mark { header: Header, data_len: u64 },
}

impl Engine {
    /// Opens the database in `storage`, or creates one there if the options allow. Where that fails, what
    /// was there is as it was.
    pub fn open(storage: Arc<dyn Storage>, options: &Options) -> Result<Arc<Engine>> {
        let mut undo = Undo::Nothing;
        Engine::try_open(storage.clone(), options, &mut undo).inspect_err(|_| {
            // What cannot be taken back does no harm: it is what a crash could leave.
            if undo.carry_out(&*storage).is_ok() {
                storage.remove_created();
            }
            storage.unlock();
        })
    }

    fn try_open(
        storage: Arc<dyn Storage>,
        options: &Options,
        undo: &mut Undo,
    ) -> Result<Arc<Engine>> {
        if options.min_file_len > format::MAX_FILE_LEN {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("a file of {} bytes is more than can be had", options.min_file_len),
            ));
        }
        let (mut recovered, mirror) = find_or_create(&*storage, options, undo)?;
        let data = storage.path(File::Data);
        let process_mark = fork::process_mark(data)?;
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
        let found_len = file_len;
        let whole_pieces = found_len % piece == 0;
        let file_len = found_len.next_multiple_of(piece);
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
            if let (true, Undo::Nothing) = (recovered.clean, &undo) {
                *undo = Undo::Mark { header: recovered.header, data_len: found_len };
            }
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
                process_mark,
            }),
            storage,
            guarded,
            read_only: options.read_only,
            piece,
            min_file_len: options.min_file_len,
            reclaim_threshold: options.effective_reclaim_threshold(),
            failure: OnceLock::new(),
            opened: AtomicBool::new(false),
            table: Apart(Mutex::new(table)),
            pieces: Mutex::new(Pieces::new(piece)),
            live,
            committer: Apart(Mutex::new(committer)),
            compaction: ReentrantMutex::new(()),
            synced_epoch: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            generation: AtomicU64::new(header.generation),
            holders: AtomicUsize::new(1),
        });
        // Also where it panics, or nobody could open the database before this process ends.
        let parting = Parting(&engine);
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
        // If not, without a flush: it would make a part durable of what belongs together.
        complete?;
        let mut table = engine.lock_table();
        let entered = table.names.values().map(|region| region.slot);
        table.resting = recovered.into_resting(mirror, entered);
        drop(table);
        std::mem::forget(parting);
        engine.opened.store(true, Ordering::Relaxed);
        Ok(engine)
    }

    /// Fills the table with what recovery found. Returns what the next flush has to record of that.
    fn enter_recovered<'a>(
        self: &Arc<Self>,
        recovered: &'a Recovered,
        mirror: Option<&'a Mirror>,
    ) -> std::result::Result<Vec<Region<'a>>, NoMemory> {
        let mut table = self.lock_table();
        let table = &mut *table;
        let file_len = table.space.file_len();
        let most = recovered.resting.slots().len() + mirror.map_or(0, |it| it.slots.len());
        let (mut unrecorded, mut used, mut used_slots) = (Vec::new(), Vec::new(), Vec::new());
        // Besides, there are the page of the identity, and the end of the file.
        used.try_reserve(most + 2).map_err(|_| NoMemory)?;
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

    /// Flushes and takes every handle out of use. The files stay locked while views are open.
    pub fn close(&self) -> Result<()> {
        if !self.is_own_process() {
            // The locks cannot be trusted, and the files are the parent's.
            self.storage.leave_to_parent();
            return Err(self.forked());
        }
        let _parting = Parting(self);
        let regions: Vec<_> = self.lock_table().names.values().cloned().collect();
        for region in &regions {
            region.set_closed();
        }
        // Nothing changes a region from here on, so this flush is complete.
        let result = if self.read_only {
            Ok(())
        } else {
            self.change(|| {
                self.flush()?;
                self.committer.lock().finish(self)?;
                self.cut_file()?;
                self.punch_last_piece()
            })
        };
        if let (Some(live), Ok(())) = (&self.live, &result) {
            live.remove();
        }
        result
    }

    /// Regions and engine refer to each other until this parts them.
    fn part(&self) {
        let mut table = self.lock_table();
        table.dirty.clear();
        let names = std::mem::take(&mut table.names);
        let resting = std::mem::take(&mut table.resting);
        drop(table);
        drop((names, resting));
    }

    /// For a database at rest: gives back what is free of the last piece, too. Nothing is stored any
    /// more but to append buffers that are still out, and these rely on their pieces.
    fn punch_last_piece(&self) -> Result<()> {
        let (start, end) = {
            let space = &self.lock_table().space;
            (space.free_end(), space.file_len())
        };
        let is_alone = self.holders.load(Ordering::Acquire) == 1;
        if start < end && is_alone {
            self.punch_range(Extent { start, len: end - start })?;
        }
        Ok(())
    }
}

impl Undo {
    fn carry_out(self, storage: &dyn Storage) -> std::io::Result<()> {
        match self {
            Undo::Nothing => Ok(()),
            Undo::Creation => {
                // A mirror without a database would pass for somebody else's file.
                storage.remove_live()?;
                storage.sync_directory()?;
                // Longer than that and without an identity, it would be damaged.
                if storage.len(File::Data)? > PAGE_SIZE {
                    storage.set_len(File::Data, PAGE_SIZE)?;
                    storage.sync(File::Data)?;
                }
                // Without an identity there is no database, whatever of the rest reaches the disk.
                storage.set_len(File::Data, 0)?;
                storage.sync(File::Data)?;
                storage.set_len(File::Regions, 0)
            }
            Undo::Mark { header, data_len } => {
                storage.remove_live()?;
                storage.set_len(File::Data, data_len)?;
                write_headers(storage, &header)?;
                storage.sync(File::Regions)
            }
        }
    }
}

/// Takes engine and regions apart at the end, however that comes, and lets go of the files.
struct Parting<'a>(&'a Engine);

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        self.0.part();
        self.0.storage.holding().close();
        self.0.let_go();
    }
}

/// The database in `storage`, and the mirror that goes beyond it; an empty one if there is none and
/// the options allow.
fn find_or_create(
    storage: &dyn Storage,
    options: &Options,
    undo: &mut Undo,
) -> Result<(Recovered, Option<Mirror>)> {
    match find(storage)? {
        Some(_) if options.create_new => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} is a database already", place(storage)),
        )),
        Some(recovered) => {
            let mirror = find_mirror(storage, &recovered)?;
            Ok((recovered, mirror))
        }
        None if !options.may_create() => Err(Error::new(
            ErrorKind::NotFound,
            format!("{} holds no database yet", place(storage)),
        )),
        None => {
            // What cannot be opened afterwards is better not created.
            let least = storage.piece_len().max(options.min_file_len);
            check_address_space(storage, least, options.max_address_space)?;
            *undo = Undo::Creation;
            create(storage)?;
            let recovered = find(storage)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::Io,
                    format!("{} does not keep what is written to it", place(storage)),
                )
            })?;
            Ok((recovered, None))
        }
    }
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
    let believed = fits || !Step::CheckMirroredPlaces.taken();
    if believed && !mirror.is_known {
        // To go by it may mix two states, and to go on without it loses what was not flushed.
        return Err(Error::new(
            ErrorKind::Io,
            format!(
                "cannot tell whether {} is of this disk: either its writer or this process was not \
                 told the number of the disk (diskseq) or when the files were created; open it as \
                 its writer did, or remove it, and with it what was not flushed",
                storage.path(File::Live).display()
            ),
        ));
    }
    Ok(believed.then_some(mirror))
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
    let mut filled = Vec::new();
    for region in recovered.regions(mirror).map(|it| it.region).filter(|it| it.len > 0) {
        let holes = storage.holes(region.start, region.len);
        if let Err(error) = storage.allocate(File::Data, region.start, region.len) {
            // What fails leaves what it has found.
            for Range { start, end } in filled {
                let _ = storage.punch(start, end - start);
            }
            return Err(Error::io("fill holes in", storage.path(File::Data), &error));
        }
        filled.extend(holes);
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
    storage.set_len(File::Data, 0).map_err(failed("create", File::Data))?;
    if storage.len(File::Regions).map_err(failed("examine", File::Regions))? > 0 {
        // A process may have died while it took a creation back: the disk has the identity still, and must
        // not have it without a table.
        storage.sync(File::Data).map_err(failed("sync", File::Data))?;
    }
    storage.set_len(File::Regions, 0).map_err(failed("create", File::Regions))?;
    storage.prepare_table();
    let uuid = storage.new_uuid().map_err(failed("make an identity for", File::Data))?;
    let header = Header { uuid, generation: 1, slots: 0, regions: 0, digest: 0, closed: false };
    let capacity = growth::slots(0);
    storage
        .allocate(File::Regions, 0, format::slot_offset(capacity, 0))
        .map_err(failed("make room for regions in", File::Regions))?;
    write_headers(storage, &header).map_err(failed("write", File::Regions))?;
    if Step::SyncNewTable.taken() {
        storage.sync(File::Regions).map_err(failed("sync", File::Regions))?;
    }
    // The identity comes last: without it there is no database. See `recovery`.
    let page = format::encode_identity(&Identity { uuid });
    storage.set_len(File::Data, PAGE_SIZE).map_err(failed("create", File::Data))?;
    storage.write(File::Data, 0, page.bytes()).map_err(failed("write", File::Data))
}

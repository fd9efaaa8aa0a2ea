//! The mirror: the region table as it is in memory, kept in a third file, `live`, as long as a
//! database is open for writing. The page cache outlives the process, so the next open finds there
//! what no flush has recorded (P11). It is never synced, and worth nothing once the system has been
//! started anew.
//!
//! It is an overlay: it holds the slots that have changed since it was begun, and every other slot
//! is as `regions` has it. A slot has a *cell* with two *copies* of its entry. A change writes the
//! copies that are not in use, of all slots that it is about, and then counts up one word, which
//! brings them into use together. So it is there as a whole or not at all, wherever the process dies.
//! A region's length is a word of its own in the copy, and all that an append stores here.
//!
//! Cells lie one behind the other, whatever slots they are for, and are as large as a name needs. A
//! slot whose name has become too long for its cell gets another one. What it leaves counts less than
//! the new copy, for ever, as stamps only grow and a slot never loses its newest copy: so its cell is
//! free as it is.
//!
//! `docs/format.md` has the layout.

use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::ops::Range;
use std::sync::atomic::{compiler_fence, AtomicU64};
use std::sync::Arc;

use crate::engine::defect;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Entry, MirrorIdentity, RegionEntry, MAX_NAME_LEN, PAGE_SIZE};
use crate::growth;
use crate::recovery::Recovered;
use crate::steps::Step;
use crate::storage::{File, Storage, Window};
use crate::sync::{HashMap, Mutex, Ordering};

// Words of the first page, apart from what is written once.
const AT_TRUSTED: u64 = 2048;
const AT_COMMITTED: u64 = 2056;
const AT_DURABLE: u64 = 2064;
const AT_ATTEMPTED: u64 = 2072;

/// What a page of zeros is not.
const TRUSTED: u64 = 1;

/// What cells are multiples of. No two of them meet in a cache line, or in a pair that is fetched
/// together: threads store to the lengths of their regions.
pub(crate) const UNIT: u64 = 256;
/// A cell has two halves, each with a copy behind its first word.
const HALF_UNIT: u64 = UNIT / 2;
/// The word of the first half, times the number of its units: each byte says it, so that no bit of it
/// can be wrong.
const HEAD: u64 = 0x0101_0101_0101_0101;
const AT_STAMP: u64 = 8;
const AT_LEN: u64 = 16;
const AT_ENTRY: u64 = 24;

/// Of the largest cell, that of the longest name.
const MAX_UNITS: u64 = units(MAX_NAME_LEN);

/// How many units a cell for such a name has.
const fn units(name_len: usize) -> u64 {
    (AT_ENTRY + format::entry_len(name_len) as u64).div_ceil(HALF_UNIT)
}

/// A copy of an entry in `live`: the offset of its cell, and in the bits that are free there, the
/// number of the cell's units and which copy it is of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
struct At(u64);

impl At {
    fn new(cell: u64, units: u64, side: u64) -> At {
        assert!(cell % UNIT == 0 && units <= MAX_UNITS && side < 2);
        At(cell | units << 1 | side)
    }

    fn cell(self) -> u64 {
        self.0 / UNIT * UNIT
    }

    fn units(self) -> u64 {
        self.0 % UNIT / 2
    }

    fn other(self) -> At {
        At(self.0 ^ 1)
    }

    /// Where its half begins.
    fn offset(self) -> u64 {
        self.cell() + self.0 % 2 * self.units() * HALF_UNIT
    }
}

/// Where the mirror has a slot: its copy in use.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// The word with the length; null where `live` is written by system calls.
    len: *mut u8,
    at: At,
}

// SAFETY: the address is only used by `Live`, whose windows it lies in, and all access is atomic.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl Record {
    /// Of a slot that is not in the mirror.
    pub const NONE: Record = Record { len: std::ptr::null_mut(), at: At(0) };

    pub fn is_none(&self) -> bool {
        self.at == At(0)
    }
}

/// What a slot holds from now on.
pub(crate) struct Change<'a> {
    slot: u64,
    region: Option<RegionEntry<'a>>,
    /// Where the mirror has the slot.
    pub record: Record,
    /// Room that has been kept for the slot to enter the mirror, in units.
    kept: u64,
    /// Where it will have the slot.
    next: At,
}

impl<'a> Change<'a> {
    /// Of a slot that the mirror has, if it does, there.
    pub fn of(slot: u64, record: Record, region: Option<RegionEntry<'a>>) -> Change<'a> {
        Change { slot, region, record, kept: 0, next: At(0) }
    }

    /// Of a slot with a region of this name that the mirror does not have yet.
    pub fn entering(slot: u64, name: &str, region: Option<RegionEntry<'a>>) -> Change<'a> {
        Change { kept: units(name.len()), ..Change::of(slot, Record::NONE, region) }
    }
}

/// A word of `live`.
#[derive(Clone, Copy)]
struct Word {
    /// Null where `live` is written by system calls.
    address: *mut u8,
    /// In the file.
    offset: u64,
}

// SAFETY: as of `Record`.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

/// The mirror of an open database.
pub(crate) struct Live {
    storage: Arc<dyn Storage>,
    /// Whether it is stored to through a mapping.
    mapped: bool,
    /// What is mapped at a time. No cell lies in two.
    piece: u64,
    /// The beginning of the first page.
    header: Word,
    state: Mutex<State>,
}

struct State {
    /// Of the first pieces.
    windows: Vec<Window>,
    /// The file is that long.
    len: u64,
    /// And up to here it has all of its blocks.
    allocated: u64,
    /// Where the next cell begins, if it fits into the piece.
    end: u64,
    /// Units that are kept for regions which are not in the mirror.
    kept: u64,
    /// Cells in which no copy is in use, by the number of their units.
    free: [Vec<u64>; MAX_UNITS as usize + 1],
    /// The last stamp that counts.
    committed: u64,
    /// Changes are being recorded. A panic leaves it so, and with it copies that are neither in use nor
    /// erased.
    recording: bool,
    /// Where the slots are that have no region to remember it.
    without_region: HashMap<u64, Record>,
    /// Copies with a later stamp, of changes that failed or that a process did not complete. They
    /// must be gone before the stamp is used again.
    uncommitted: Vec<At>,
    /// For a copy from its length on.
    buffer: Vec<u8>,
}

/// What a process has left in `live`, checked as far as that goes without `regions`.
pub(crate) struct Mirror {
    /// Whether all that tells its files from others was known to its writer and is known here.
    pub is_known: bool,
    /// What each slot holds that is not as `regions` has it.
    pub slots: BTreeMap<u64, MirroredSlot>,
    committed: u64,
    uncommitted: Vec<At>,
    /// Cells without a copy in use, as their first copies.
    free: Vec<At>,
    /// Behind the last cell.
    end: u64,
}

pub(crate) struct MirroredSlot {
    stamp: u64,
    at: At,
    region: Option<MirroredRegion>,
}

struct MirroredRegion {
    name: Box<str>,
    start: u64,
    len: u64,
    reserved: u64,
}

impl MirroredSlot {
    pub fn region(&self) -> Option<RegionEntry<'_>> {
        let &MirroredRegion { ref name, start, len, reserved } = self.region.as_ref()?;
        Some(RegionEntry { name, start, len, reserved, tail: &[] })
    }
}

/// What the mirror of this database belongs to; `None` where the system does not say when it was
/// started, so that no mirror could be told from an outdated one.
fn identity(storage: &dyn Storage, uuid: [u8; 16]) -> Result<Option<MirrorIdentity>> {
    let examine = |file: File| {
        let error = move |error| Error::io("examine", storage.path(file), &error);
        storage.file_id(file).map_err(error)
    };
    let boot_id = storage.boot_id().map_err(|error| {
        Error::io("find out when the system was started, for", storage.path(File::Live), &error)
    })?;
    let Some(boot_id) = boot_id else { return Ok(None) };
    let files = [examine(File::Data)?, examine(File::Regions)?];
    Ok(Some(MirrorIdentity { uuid, boot_id, files }))
}

/// Looks for a mirror that goes with the table in `regions`. One that does not, in whatever respect,
/// is none at all: half of it would be a mixture of two states.
pub(crate) fn read(storage: &dyn Storage, recovered: &Recovered) -> Result<Option<Mirror>> {
    // A database that was closed is as `regions` says.
    if recovered.clean {
        return Ok(None);
    }
    let Some(identity) = identity(storage, recovered.header.uuid)? else { return Ok(None) };
    let live = storage
        .read(File::Live)
        .map_err(|error| Error::io("read", storage.path(File::Live), &error))?;
    let generation = recovered.header.generation;
    Ok(decode((*live.bytes).as_ref(), &live.written, &identity, generation))
}

fn decode(
    bytes: &[u8],
    written: &[Range<usize>],
    identity: &MirrorIdentity,
    generation: u64,
) -> Option<Mirror> {
    let header = bytes.get(..PAGE_SIZE as usize)?;
    let found = format::decode_mirror(header).ok()?;
    let trusted = word_in(header, AT_TRUSTED) == TRUSTED;
    let files_may_be = found.files.iter().zip(&identity.files).all(|(a, b)| a.may_be(b));
    // Tables that the process itself has written. Another one is somebody else's, who did not know
    // of the mirror.
    let generations = word_in(header, AT_DURABLE)..=word_in(header, AT_ATTEMPTED);
    if found.uuid != identity.uuid
        || (found.boot_id != identity.boot_id && Step::CheckBootId.taken())
        || (!files_may_be && Step::CheckMirroredFiles.taken())
        || (!generations.contains(&generation) && Step::CheckMirroredTable.taken())
        || !trusted
    {
        return None;
    }
    let mut mirror = Mirror {
        is_known: found.files == identity.files,
        slots: BTreeMap::new(),
        committed: word_in(header, AT_COMMITTED),
        uncommitted: Vec::new(),
        free: Vec::new(),
        end: PAGE_SIZE,
    };
    // The newest copy without a stamp.
    let mut unstamped: BTreeMap<u64, u64> = BTreeMap::new();
    let mut cells = Vec::new();
    while let Some((cell, head)) = next_cell(bytes, written, mirror.end)? {
        let units = head % UNIT;
        if head != units * HEAD || !(1..=MAX_UNITS).contains(&units) {
            return None;
        }
        mirror.end = cell + units * UNIT;
        let bytes = bytes.get(cell as usize..mirror.end as usize)?;
        let first = At::new(cell, units, 0);
        cells.push(first);
        for (at, copy) in [first, first.other()].into_iter().zip(bytes.chunks(bytes.len() / 2)) {
            decode_copy(at, copy, &mut mirror, &mut unstamped)?;
        }
    }
    // The copy that is being written is not the newest.
    let stamp = |slot: &u64| mirror.slots.get(slot).map_or(0, |slot| slot.stamp);
    if unstamped.iter().any(|(slot, &generation)| generation > stamp(slot)) {
        return None;
    }
    let mut used: Vec<u64> = mirror.slots.values().map(|slot| slot.at.cell()).collect();
    used.sort_unstable();
    // A change of one slot would write over the copy of the other.
    if used.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    cells.retain(|cell| used.binary_search(&cell.cell()).is_err());
    mirror.free = cells;
    // What was changed last is still as that change left it.
    let newest = mirror.slots.values().map(|slot| slot.stamp).max().unwrap_or(0);
    (newest == mirror.committed).then_some(mirror)
}

/// The first word of the next cell, and where it is: where the last one ends, or, as none lies in two
/// pieces, fewer units further than the largest has. `None` inside where there is none, and outside
/// where bytes are that belong to no cell.
fn next_cell(bytes: &[u8], written: &[Range<usize>], end: u64) -> Option<Option<(u64, u64)>> {
    let starts = (0..MAX_UNITS).map(|units| end + units * UNIT);
    let starts = starts.take_while(|start| start + UNIT <= bytes.len() as u64);
    let mut heads = starts.map(|start| (start, word_in(bytes, start)));
    let next = heads.find(|&(_, head)| head != 0);
    let gap = end as usize..next.map_or(bytes.len(), |(cell, _)| cell as usize);
    let is_blank = |range: &Range<usize>| {
        let range = range.start.clamp(gap.start, gap.end)..range.end.clamp(gap.start, gap.end);
        bytes[range].chunks(64).all(|bytes| bytes.iter().fold(0, |all, byte| all | byte) == 0)
    };
    let first = written.partition_point(|range| range.end <= gap.start);
    let in_gap = written[first..].iter().take_while(|range| range.start < gap.end);
    in_gap.into_iter().all(is_blank).then_some(next)
}

/// Enters a copy, if it is in use; `None` where it is not as a process leaves it, wherever it dies.
fn decode_copy(
    at: At,
    copy: &[u8],
    mirror: &mut Mirror,
    unstamped: &mut BTreeMap<u64, u64>,
) -> Option<()> {
    let stamp = word_in(copy, AT_STAMP);
    let entry = match format::decode_entry(&copy[AT_ENTRY as usize..]) {
        Ok(entry) if [0, entry.generation].contains(&stamp) => entry,
        // Never used, or being written.
        _ if stamp == 0 => return Some(()),
        _ => return None,
    };
    let Entry { slot, generation, region } = entry;
    if generation > mirror.committed {
        mirror.uncommitted.push(at);
        return (generation == mirror.committed + 1).then_some(());
    }
    if stamp == 0 {
        let newest = unstamped.entry(slot).or_default();
        *newest = generation.max(*newest);
        return Some(());
    }
    let region = match region {
        Some(RegionEntry { name, start, reserved, tail, .. }) => {
            let len = word_in(copy, AT_LEN);
            if len > reserved || !tail.is_empty() {
                return None;
            }
            Some(MirroredRegion { name: name.into(), start, len, reserved })
        }
        None => None,
    };
    let found = MirroredSlot { stamp, at, region };
    match mirror.slots.entry(slot) {
        MapEntry::Vacant(slot) => drop(slot.insert(found)),
        MapEntry::Occupied(other) if other.get().stamp == stamp => return None,
        MapEntry::Occupied(other) if other.get().stamp > stamp => {}
        MapEntry::Occupied(mut other) => drop(other.insert(found)),
    }
    Some(())
}

fn word_in(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..][..8].try_into().expect("eight bytes"))
}

impl Live {
    /// Goes on with a mirror that was found, or begins one, with room for the regions of `regions`.
    /// `None` where there can be none.
    pub fn begin(
        storage: &Arc<dyn Storage>,
        mapped: bool,
        recovered: &Recovered,
        mirror: Option<&Mirror>,
    ) -> Result<Option<Live>> {
        let Some(identity) = identity(&**storage, recovered.header.uuid)? else {
            // What lies there is not kept up from now on.
            storage.remove_live().map_err(failed(&**storage, "remove"))?;
            return Ok(None);
        };
        if mirror.is_none() {
            storage.create_live().map_err(failed(&**storage, "create"))?;
        }
        // Whatever is done to a region that is there needs no space in here, but for a longer name.
        let outside = recovered.regions(mirror).filter(|found| !found.mirrored);
        let mut live = Live {
            storage: storage.clone(),
            mapped,
            piece: storage.piece_len(),
            header: Word { address: std::ptr::null_mut(), offset: 0 },
            state: Mutex::new(State {
                windows: Vec::new(),
                len: storage.len(File::Live).map_err(failed(&**storage, "examine"))?,
                allocated: 0,
                end: mirror.map_or(PAGE_SIZE, |mirror| mirror.end),
                kept: outside.map(|found| units(found.region.name.len())).sum(),
                free: Default::default(),
                committed: mirror.map_or(0, |mirror| mirror.committed),
                recording: false,
                without_region: HashMap::default(),
                uncommitted: mirror.map_or(Vec::new(), |mirror| mirror.uncommitted.clone()),
                buffer: Vec::new(),
            }),
        };
        let mut state = live.state.lock();
        live.make_room(&mut state, 0)?;
        let end = state.end;
        live.map(&mut state, end - 1)?;
        if let Some(mirror) = mirror {
            for at in &mirror.free {
                state.free[at.units() as usize].push(at.cell());
            }
            for (&slot, found) in &mirror.slots {
                let record = live.record_at(&state, found.at);
                state.without_region.insert(slot, record);
            }
        }
        let header = live.word(&state, 0);
        drop(state);
        live.header = header;
        if mirror.is_none() {
            live.store(live.header, format::encode_mirror(&identity).used())?;
            live.store_word(live.header.plus(AT_ATTEMPTED), recovered.header.generation)?;
        }
        live.set_durable(recovered.header.generation)?;
        if mirror.is_none() {
            live.store_word(live.header.plus(AT_TRUSTED), TRUSTED)?;
        }
        Ok(Some(live))
    }

    /// Makes room for so many more regions, whose names fit the smallest cell (40 bytes).
    pub fn reserve(&self, regions: u64) -> Result<()> {
        self.make_room(&mut self.state.lock(), regions)
    }

    /// Where a region that was found in the mirror is.
    pub fn take_record(&self, slot: u64) -> Record {
        let record = self.state.lock().without_region.remove(&slot);
        record.expect("a region is found once")
    }

    /// Records what slots hold from now on, all of them at once, and where. For the holders of their
    /// regions' writer locks.
    pub fn record(&self, changes: &mut [Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.recording, true) {
            return Err(defect(&*self.storage));
        }
        let result = self.record_in(&mut state, changes);
        state.recording = false;
        result
    }

    fn record_in(&self, state: &mut State, changes: &mut [Change]) -> Result<()> {
        while let Some(&at) = state.uncommitted.last() {
            if Step::ClearUncommitted.taken() {
                let copy = self.word(state, at.offset());
                self.store_word(copy.plus(AT_STAMP), 0)?;
                self.store_word(copy.plus(AT_ENTRY), 0)?;
            }
            state.uncommitted.pop();
        }
        let kept: u64 = changes.iter().map(|change| change.kept).sum();
        state.kept -= kept;
        let result = self.write_changes(state, changes);
        for change in changes {
            let (unused, used) = match result {
                Ok(()) => (change.record.at, change.next),
                Err(_) => (change.next, change.record.at),
            };
            if unused != At(0) && unused.cell() != used.cell() {
                state.free[unused.units() as usize].push(unused.cell());
            }
            if result.is_err() {
                state.kept += change.kept;
                state.uncommitted.extend((unused != At(0)).then_some(unused));
                continue;
            }
            change.record = self.record_at(state, used);
            if change.region.is_none() {
                state.without_region.insert(change.slot, change.record);
            } else if !state.without_region.is_empty() {
                state.without_region.remove(&change.slot);
            }
        }
        result
    }

    fn write_changes(&self, state: &mut State, changes: &mut [Change]) -> Result<()> {
        for change in &mut *changes {
            if change.record.is_none() && !state.without_region.is_empty() {
                let known = state.without_region.get(&change.slot);
                change.record = known.copied().unwrap_or(Record::NONE);
            }
            let units = units(change.region.as_ref().map_or(0, |region| region.name.len()));
            change.next = match change.record.at.units() >= units {
                true => change.record.at.other(),
                false => self.take_cell(state, units)?,
            };
        }
        let stamp = state.committed + 1;
        let commit = || self.store_word(self.header.plus(AT_COMMITTED), stamp);
        if !Step::CommitAfterWriting.taken() {
            commit()?;
        }
        for change in changes {
            let copy = self.word(state, change.next.offset());
            // The entry is mutilated before it is whole, and must not count meanwhile.
            if Step::ClearCopyFirst.taken() {
                self.store_word(copy.plus(AT_STAMP), 0)?;
            }
            let len = change.region.as_ref().map_or(0, |region| region.len);
            // The length is not part of what the checksum covers.
            let region = change.region.map(|region| RegionEntry { len: 0, ..region });
            let entry_len = format::entry_len(region.as_ref().map_or(0, |it| it.name.len()));
            let entry = Entry { slot: change.slot, generation: stamp, region };
            // From the length on to the end of the entry.
            let bytes = &mut state.buffer;
            bytes.clear();
            bytes.extend(len.to_le_bytes());
            bytes.resize((AT_ENTRY - AT_LEN) as usize + entry_len, 0);
            format::encode_entry_to(&mut bytes[(AT_ENTRY - AT_LEN) as usize..], &entry);
            self.store(copy.plus(AT_LEN), bytes)?;
            self.store_word(copy.plus(AT_STAMP), stamp)?;
        }
        if Step::CommitAfterWriting.taken() {
            commit()?;
        }
        state.committed = stamp;
        Ok(())
    }

    /// Records a region's length. For the holder of its writer lock.
    #[inline]
    pub fn store_len(&self, record: Record, len: u64) -> Result<()> {
        self.store_word(Word { address: record.len, offset: record.at.offset() + AT_LEN }, len)
    }

    /// A flush is about to write the table of this generation, which may be found from now on.
    pub fn set_attempted(&self, generation: u64) -> Result<()> {
        self.store_word(self.header.plus(AT_ATTEMPTED), generation)
    }

    /// No older table is found from now on.
    pub fn set_durable(&self, generation: u64) -> Result<()> {
        self.store_word(self.header.plus(AT_DURABLE), generation)
    }

    /// Nobody is to go by this mirror any more.
    pub fn distrust(&self) {
        if self.store_word(self.header.plus(AT_TRUSTED), 0).is_err() {
            // It can fail where `live` is not mapped; so nobody stores beyond its end.
            let _ = self.storage.set_len(File::Live, 0);
        }
    }

    /// The database is closed, and is as `regions` says, whether this can be removed or not.
    pub fn remove(&self) {
        let _ = self.storage.remove_live();
    }

    /// The first copy of a cell in which none is in use.
    fn take_cell(&self, state: &mut State, units: u64) -> Result<At> {
        for (units, free) in (0..).zip(&mut state.free).skip(units as usize) {
            if let Some(cell) = free.pop() {
                return Ok(At::new(cell, units, 0));
            }
        }
        let (mut cell, len) = (state.end, units * UNIT);
        if cell % self.piece + len > self.piece {
            cell = cell.next_multiple_of(self.piece);
        }
        let need = self.room(cell + len, state.kept);
        self.grow(state, need)?;
        self.map(state, cell)?;
        self.store_word(self.word(state, cell), units * HEAD)?;
        state.end = cell + len;
        Ok(At::new(cell, units, 0))
    }

    /// Makes room for cells of so many units beside those that are kept.
    fn make_room(&self, state: &mut State, units: u64) -> Result<()> {
        let need = self.room(state.end, state.kept + units);
        self.grow(state, need)
    }

    /// Where the last one of cells of so many units ends at most that begin at `start`. In each piece
    /// that is full, less than the largest cell is left over.
    fn room(&self, start: u64, units: u64) -> u64 {
        let (piece, lost) = (self.piece / UNIT, MAX_UNITS - 1);
        let full = (start / UNIT % piece + units) / (piece - lost);
        start + (units + full * lost) * UNIT
    }

    /// Gives `live` blocks for its first `need` bytes, so that a store into it cannot run out of space.
    /// It has none behind its end, and no hole before it: no folio of the page cache reaches one (see
    /// [`pieces`](crate::pieces)).
    #[inline]
    fn grow(&self, state: &mut State, need: u64) -> Result<()> {
        if need <= state.allocated {
            return Ok(());
        }
        self.allocate(state, growth::live_len(need))
            .or_else(|_| self.allocate(state, need.next_multiple_of(PAGE_SIZE)))
    }

    #[cold]
    fn allocate(&self, state: &mut State, len: u64) -> Result<()> {
        let len = len.max(state.len);
        let result = self.storage.allocate(File::Live, state.allocated, len - state.allocated);
        if result.is_err() {
            // A part of it may have been had, and nobody needs it.
            let _ = self.storage.set_len(File::Live, state.len);
        }
        result.map_err(failed(&*self.storage, "make room in"))?;
        (state.len, state.allocated) = (len, len);
        Ok(())
    }

    /// Maps what is stored to up to `offset`.
    fn map(&self, state: &mut State, offset: u64) -> Result<()> {
        while self.mapped && state.windows.len() as u64 <= offset / self.piece {
            let start = state.windows.len() as u64 * self.piece;
            let window = self.storage.map_live(start, self.piece).map_err(|error| {
                failed(&*self.storage, "map")(error).with_kind(ErrorKind::NoMemory)
            })?;
            state.windows.push(window);
        }
        Ok(())
    }

    fn record_at(&self, state: &State, at: At) -> Record {
        Record { len: self.word(state, at.offset()).plus(AT_LEN).address, at }
    }

    fn word(&self, state: &State, offset: u64) -> Word {
        assert!(offset < state.allocated, "room has been made");
        let address = match self.mapped {
            true => state.windows[(offset / self.piece) as usize].at(offset % self.piece),
            false => std::ptr::null_mut(),
        };
        Word { address, offset }
    }

    #[inline]
    fn store_word(&self, word: Word, value: u64) -> Result<()> {
        if word.address.is_null() {
            return self.write(word.offset, &value.to_le_bytes());
        }
        // SAFETY: `word` was made of a window of this mirror, which it keeps, at a multiple of 8 that
        // lies in blocks of the file. All stores to words are atomic.
        let word = unsafe { AtomicU64::from_ptr(word.address.cast()) };
        // Stores of one thread reach the file in their order, as a process does not die in the
        // middle of them: it is enough to keep the compiler from exchanging them.
        word.store(value.to_le(), Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        self.stored();
        Ok(())
    }

    fn store(&self, word: Word, bytes: &[u8]) -> Result<()> {
        if word.address.is_null() {
            return self.write(word.offset, bytes);
        }
        // SAFETY: as in `store_word`; and these bytes are only written under the lock of `state`, or
        // before there is another thread. The one that others store to, the length, belongs to a
        // copy that is not in use.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), word.address, bytes.len()) };
        compiler_fence(Ordering::SeqCst);
        self.stored();
        Ok(())
    }

    #[cold]
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(!self.mapped, "a region is recorded before it is changed");
        self.storage.write(File::Live, offset, bytes).map_err(failed(&*self.storage, "write"))
    }

    #[inline(always)]
    fn stored(&self) {
        #[cfg(feature = "simulation")]
        self.storage.stored_live();
    }
}

impl Word {
    fn plus(self, offset: u64) -> Word {
        let address = if self.address.is_null() {
            self.address
        } else {
            self.address.wrapping_add(offset as usize)
        };
        Word { address, offset: self.offset + offset }
    }
}

fn failed<'a>(
    storage: &'a dyn Storage,
    action: &'static str,
) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| Error::io(action, storage.path(File::Live), &error)
}

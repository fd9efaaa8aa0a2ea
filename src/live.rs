//! The mirror: the region table as it is in memory, kept in a third file, `live`, as long as a
//! database is open for writing. The page cache outlives the process, so the next open finds there
//! what no flush has recorded (P11). It is never synced, and worth nothing once the system has been
//! started anew.
//!
//! It is an overlay: it holds the slots that have changed since it was begun, and every other slot
//! is as `regions` has it. A slot has two *copies* of its entry. A change writes the copies that are
//! not in use, of all slots that it is about, and then counts up one word, which brings them into
//! use together. So it is there as a whole or not at all, wherever the process dies. A region's
//! length is a word of its own in the copy, and all that an append stores here.
//!
//! `docs/format.md` has the layout.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{compiler_fence, AtomicU64};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Entry, MirrorIdentity, RegionEntry, MAX_NAME_LEN, PAGE_SIZE};
use crate::recovery::{Recovered, RecoveredRegion};
use crate::steps::Step;
use crate::storage::{File, Storage, Window};
use crate::sync::{Mutex, Ordering};

// Words of the first page, apart from what is written once.
const AT_TRUSTED: u64 = 2048;
const AT_COMMITTED: u64 = 2056;
const AT_DURABLE: u64 = 2064;
const AT_ATTEMPTED: u64 = 2072;

/// What a page of zeros is not.
const TRUSTED: u64 = 1;

// A copy of an entry. The words have a cache line of their own.
const COPY: u64 = PAGE_SIZE / 2;
const AT_STAMP: u64 = 0;
const AT_LEN: u64 = 8;
const AT_ENTRY: u64 = 64;

/// As many pages as a mirror has at least; a small database gets no more.
const LEAST_PAGES: u64 = 16;

/// A word of `live`.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    /// Null where `live` is written by system calls.
    address: *mut u8,
    /// In the file. 0 is no word's.
    offset: u64,
}

// SAFETY: the address is only used by `Live`, whose windows it lies in, and all access is atomic.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    /// The length of a region that is not in the mirror.
    pub const NONE: Word = Word { address: std::ptr::null_mut(), offset: 0 };

    pub fn is_none(&self) -> bool {
        self.offset == 0
    }
}

/// The mirror of an open database.
pub(crate) struct Live {
    storage: Arc<dyn Storage>,
    /// Whether it is stored to through a mapping.
    mapped: bool,
    piece: u64,
    /// The beginning of the first page.
    header: Word,
    state: Mutex<State>,
}

struct State {
    /// By number; see [`Pieces`](crate::pieces::Pieces). Sparse as the slots of a database can be.
    pieces: HashMap<u64, Piece>,
    /// No piece has a block from here on.
    len: u64,
    /// The last stamp that counts.
    committed: u64,
    /// The side in use of every slot that the mirror has.
    sides: HashMap<u64, u8>,
    /// Copies with a later stamp, of changes that failed or that a process did not complete. They
    /// must be gone before the stamp is used again.
    uncommitted: Vec<(u64, u8)>,
}

struct Piece {
    window: Option<Window>,
    /// So much of it has blocks.
    allocated: u64,
}

/// What a process has left in `live`, checked as far as that goes without `regions`.
pub(crate) struct Mirror {
    /// What each slot holds that is not as `regions` has it.
    pub slots: BTreeMap<u64, MirroredSlot>,
    committed: u64,
    uncommitted: Vec<(u64, u8)>,
}

pub(crate) struct MirroredSlot {
    stamp: u64,
    side: u8,
    pub region: Option<RecoveredRegion>,
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
    // Tables that the process itself has written. Another one is somebody else's, who did not know
    // of the mirror.
    let generations = word_in(header, AT_DURABLE)..=word_in(header, AT_ATTEMPTED);
    if found.uuid != identity.uuid
        || (found.boot_id != identity.boot_id && Step::CheckBootId.taken())
        || (found.files != identity.files && Step::CheckMirroredFiles.taken())
        || (!generations.contains(&generation) && Step::CheckMirroredTable.taken())
        || !trusted
    {
        return None;
    }
    let committed = word_in(header, AT_COMMITTED);
    let mut mirror = Mirror { slots: BTreeMap::new(), committed, uncommitted: Vec::new() };
    let mut next = 1;
    for range in written {
        let pages = (range.start as u64 / PAGE_SIZE).max(next)..range.end as u64 / PAGE_SIZE;
        next = pages.end.max(next);
        for page in pages {
            let slot = page - 1;
            let bytes = &bytes[(page * PAGE_SIZE) as usize..][..PAGE_SIZE as usize];
            if let Some(found) = decode_slot(bytes, slot, &mut mirror)? {
                mirror.slots.insert(slot, found);
            }
        }
    }
    // What was changed last is still as that change left it.
    let newest = mirror.slots.values().map(|slot| slot.stamp).max().unwrap_or(0);
    (newest == committed).then_some(mirror)
}

/// The copy in use of a slot, if there is one; `None` where the page is not as a process leaves it,
/// wherever it dies.
fn decode_slot(page: &[u8], slot: u64, mirror: &mut Mirror) -> Option<Option<MirroredSlot>> {
    let mut newest: Option<MirroredSlot> = None;
    let mut unstamped = 0;
    for side in 0..2u8 {
        let copy = &page[(u64::from(side) * COPY) as usize..][..COPY as usize];
        let stamp = word_in(copy, AT_STAMP);
        let entry = match format::decode_entry(&copy[AT_ENTRY as usize..]) {
            Ok(entry) if entry.slot == slot && [0, entry.generation].contains(&stamp) => entry,
            // Never used, or being written.
            _ if stamp == 0 => continue,
            _ => return None,
        };
        if entry.generation > mirror.committed {
            if entry.generation > mirror.committed + 1 {
                return None;
            }
            mirror.uncommitted.push((slot, side));
            continue;
        }
        if stamp == 0 {
            unstamped = unstamped.max(entry.generation);
            continue;
        }
        let region = match entry.region {
            Some(region) => {
                let len = word_in(copy, AT_LEN);
                if len > region.reserved {
                    return None;
                }
                let RegionEntry { name, start, reserved, .. } = region;
                Some(RecoveredRegion { name: name.into(), start, len, reserved })
            }
            None => None,
        };
        match &newest {
            Some(other) if other.stamp == stamp => return None,
            Some(other) if other.stamp > stamp => {}
            _ => newest = Some(MirroredSlot { stamp, side, region }),
        }
    }
    // The copy that is being written is the older one.
    let stamp = newest.as_ref().map_or(0, |newest| newest.stamp);
    (unstamped <= stamp).then_some(newest)
}

fn word_in(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..][..8].try_into().expect("eight bytes"))
}

impl Live {
    /// Goes on with a mirror that was found, or begins one, with room for the slots of `regions`.
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
        let mut live = Live {
            storage: storage.clone(),
            mapped,
            piece: storage.piece_len(),
            header: Word::NONE,
            state: Mutex::new(State {
                pieces: HashMap::new(),
                len: storage.len(File::Live).map_err(failed(&**storage, "examine"))?,
                committed: mirror.map_or(0, |mirror| mirror.committed),
                sides: HashMap::new(),
                uncommitted: mirror.map_or(Vec::new(), |mirror| mirror.uncommitted.clone()),
            }),
        };
        {
            let mut state = live.state.lock();
            live.make_room(&mut state, 0)?;
            // Whatever is done to a region that is there needs no space in here.
            for slot in recovered.slots.iter().filter(|slot| slot.region.is_some()) {
                live.make_room(&mut state, page_of(slot.number))?;
            }
            if let Some(mirror) = mirror {
                let uncommitted = mirror.uncommitted.iter().map(|(slot, _)| slot);
                for &slot in mirror.slots.keys().chain(uncommitted) {
                    live.make_room(&mut state, page_of(slot))?;
                }
                state.sides.extend(mirror.slots.iter().map(|(&slot, found)| (slot, found.side)));
            }
            let header = live.word(&state, 0);
            drop(state);
            live.header = header;
        }
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

    /// Makes room for the first `slots` slots.
    pub fn reserve(&self, slots: u64) -> Result<()> {
        let mut state = self.state.lock();
        (0..=slots)
            .step_by((self.piece / PAGE_SIZE) as usize)
            .chain([slots])
            .try_for_each(|page| self.make_room(&mut state, page))
    }

    /// Records what slots hold from now on, all of them at once.
    pub fn record(&self, changes: &[(u64, Option<RegionEntry>)]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        for &(slot, _) in changes {
            self.make_room(state, page_of(slot))?;
        }
        while let Some(&(slot, side)) = state.uncommitted.last() {
            if Step::ClearUncommitted.taken() {
                let copy = self.copy(state, slot, side);
                self.store_word(copy.plus(AT_STAMP), 0)?;
                self.store_word(copy.plus(AT_ENTRY), 0)?;
            }
            state.uncommitted.pop();
        }
        let stamp = state.committed + 1;
        let commit = || self.store_word(self.header.plus(AT_COMMITTED), stamp);
        if !Step::CommitAfterWriting.taken() {
            commit()?;
        }
        for (slot, region) in changes {
            let side = state.sides.get(slot).map_or(0, |side| 1 - side);
            let copy = self.copy(state, *slot, side);
            state.uncommitted.push((*slot, side));
            // The entry is mutilated before it is whole, and must not count meanwhile.
            if Step::ClearCopyFirst.taken() {
                self.store_word(copy.plus(AT_STAMP), 0)?;
            }
            // From the length on to the end of the entry.
            let mut bytes = [0; (AT_ENTRY - AT_LEN) as usize + 64 + MAX_NAME_LEN];
            let len = region.as_ref().map_or(0, |region| region.len);
            bytes[..8].copy_from_slice(&len.to_le_bytes());
            // The length is not part of what the checksum covers.
            let region = region.as_ref().map(|region| RegionEntry { len: 0, ..region.clone() });
            let entry = format::encode_entry(&Entry { slot: *slot, generation: stamp, region });
            let end = (AT_ENTRY - AT_LEN) as usize + entry.used().len();
            bytes[(AT_ENTRY - AT_LEN) as usize..end].copy_from_slice(entry.used());
            self.store(copy.plus(AT_LEN), &bytes[..end])?;
            self.store_word(copy.plus(AT_STAMP), stamp)?;
        }
        if Step::CommitAfterWriting.taken() {
            commit()?;
        }
        state.committed = stamp;
        for (slot, side) in state.uncommitted.drain(..) {
            state.sides.insert(slot, side);
        }
        Ok(())
    }

    /// The length of the region in a slot that has been recorded.
    pub fn len_of(&self, slot: u64) -> Word {
        let state = self.state.lock();
        let side = *state.sides.get(&slot).expect("the slot has been recorded");
        self.copy(&state, slot, side).plus(AT_LEN)
    }

    /// Records a region's length. For the holder of its writer lock.
    #[inline]
    pub fn store_len(&self, word: Word, len: u64) -> Result<()> {
        self.store_word(word, len)
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

    /// Gives a page blocks, and with it all of its piece, so that a store into it cannot run out of
    /// space (see [`Pieces`](crate::pieces::Pieces)). The first piece may end early, as long as the
    /// file ends there, too.
    fn make_room(&self, state: &mut State, page: u64) -> Result<()> {
        let pages = self.piece / PAGE_SIZE;
        let (piece, least) = (page / pages, page % pages + 1);
        if piece > 0 {
            self.allocate(state, 0, pages)?;
            return self.allocate(state, piece, pages);
        }
        let wish = least.next_power_of_two().max(LEAST_PAGES).min(pages);
        self.allocate(state, 0, wish).or_else(|_| self.allocate(state, 0, least))
    }

    fn allocate(&self, state: &mut State, number: u64, pages: u64) -> Result<()> {
        let allocated = state.pieces.get(&number).map_or(0, |piece| piece.allocated);
        let (start, len) = (number * self.piece, pages * PAGE_SIZE);
        if len <= allocated {
            return Ok(());
        }
        let result = self.storage.allocate(File::Live, start + allocated, len - allocated);
        if result.is_err() && start + allocated >= state.len {
            // A part of it may have been had, and nobody needs it.
            let _ = self.storage.set_len(File::Live, state.len);
        }
        result.map_err(failed(&*self.storage, "make room in"))?;
        state.len = state.len.max(start + len);
        if let Some(piece) = state.pieces.get_mut(&number) {
            piece.allocated = len;
            return Ok(());
        }
        let map = || {
            self.storage.map_live(start, self.piece).map_err(|error| {
                failed(&*self.storage, "map")(error).with_kind(ErrorKind::NoMemory)
            })
        };
        let window = if self.mapped { Some(map()?) } else { None };
        state.pieces.insert(number, Piece { window, allocated: len });
        Ok(())
    }

    /// The beginning of one side of a slot.
    fn copy(&self, state: &State, slot: u64, side: u8) -> Word {
        self.word(state, page_of(slot) * PAGE_SIZE + u64::from(side) * COPY)
    }

    fn word(&self, state: &State, offset: u64) -> Word {
        let piece = state.pieces.get(&(offset / self.piece)).expect("room has been made");
        assert!(offset % self.piece < piece.allocated);
        let window = piece.window.as_ref();
        let address = window.map_or(std::ptr::null_mut(), |it| it.at(offset % self.piece));
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

/// The page of a slot; the first is the header.
fn page_of(slot: u64) -> u64 {
    1 + slot
}

fn failed<'a>(
    storage: &'a dyn Storage,
    action: &'static str,
) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| Error::io(action, storage.path(File::Live), &error)
}

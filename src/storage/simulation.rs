//! A disk that forgets, tears and fails like a real one, for tests.
//!
//! For both files it keeps, per sector of 512 bytes, what the disk has and every value written
//! since the last sync. A crash picks for each sector, each file length and each name, one by one,
//! any of these. Pieces that lack a block are write-protected, so that a store which the real
//! kernel could answer with SIGBUS is caught as SIGSEGV. A failed sync does what Linux does: it
//! calls the pages clean, whatever of them has reached the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use super::{Contents, File, FileId, Holding, Storage, Window};

/// What a drive writes whole or not at all.
pub const SECTOR: usize = 512;

/// The page size of the simulated memory protection.
const PAGE: usize = 4096;

const SECTORS_PER_PAGE: u64 = (PAGE / SECTOR) as u64;

/// Smaller than the real one, so that programs of a few kilobytes meet all its cases. In pages.
const PIECE: u64 = 4;

/// More than the programs of the tests need; it is address space only.
const MEMORY: u64 = 1 << 31;
const LIVE_MEMORY: u64 = 1 << 24;

type Sector = [u8; SECTOR];

const ZEROS: [u8; PAGE] = [0; PAGE];

/// Pages of a file that are not all zero, shared between snapshots.
#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, Arc<[u8; PAGE]>>);

impl Pages {
    fn of(bytes: &[u8]) -> Pages {
        let mut pages = Pages::default();
        for (number, bytes) in (0..).zip(bytes.chunks(PAGE)) {
            if *bytes != ZEROS[..bytes.len()] {
                let mut page = ZEROS;
                page[..bytes.len()].copy_from_slice(bytes);
                pages.0.insert(number, Arc::new(page));
            }
        }
        pages
    }

    fn page(&self, number: u64) -> &[u8; PAGE] {
        self.0.get(&number).map_or(&ZEROS, |page| page)
    }

    fn sector(&self, number: u64) -> &Sector {
        let at = (number % SECTORS_PER_PAGE) as usize * SECTOR;
        let page = self.page(number / SECTORS_PER_PAGE);
        page[at..at + SECTOR].try_into().expect("a sector lies in one page")
    }

    fn set_sector(&mut self, number: u64, sector: &Sector) {
        if self.sector(number) != sector {
            let page = self.0.entry(number / SECTORS_PER_PAGE).or_insert_with(|| Arc::new(ZEROS));
            let at = (number % SECTORS_PER_PAGE) as usize * SECTOR;
            Arc::make_mut(page)[at..at + SECTOR].copy_from_slice(sector);
        }
    }

    fn read(&self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        for (&number, page) in self.0.range(..len.div_ceil(PAGE as u64)) {
            let at = number as usize * PAGE;
            let len = PAGE.min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&page[..len]);
        }
        bytes
    }
}

/// One file: as the page cache has it, as the disk has it, and what the disk may have after a crash.
#[derive(Clone, Default)]
struct Disk {
    present: Pages,
    present_len: u64,
    durable: Pages,
    durable_len: u64,
    /// The dirty sectors, with every value written since the last sync, oldest first.
    versions: BTreeMap<u64, Vec<Arc<Sector>>>,
    /// Lengths since the last sync, oldest first.
    lens: Vec<u64>,
    /// A sync has failed: sectors that are not dirty may differ from the disk.
    stale: bool,
    name_is_durable: bool,
}

impl Disk {
    fn of(bytes: &[u8]) -> Disk {
        let pages = Pages::of(bytes);
        Disk {
            present: pages.clone(),
            present_len: bytes.len() as u64,
            durable: pages,
            durable_len: bytes.len() as u64,
            name_is_durable: true,
            ..Disk::default()
        }
    }

    /// A sector is written to, perhaps with what it holds already.
    fn write_sector(&mut self, number: u64, sector: &Sector) {
        let versions = self.versions.entry(number).or_default();
        if versions.last().is_none_or(|last| **last != *sector) {
            versions.push(Arc::new(*sector));
        }
        self.present.set_sector(number, sector);
    }

    fn set_len(&mut self, len: u64) {
        let end = len.div_ceil(SECTOR as u64);
        let beyond = self.present.0.range(end / SECTORS_PER_PAGE..);
        let beyond: Vec<u64> = beyond.map(|(&page, _)| page).collect();
        for page in beyond {
            self.clear(page * SECTORS_PER_PAGE..(page + 1) * SECTORS_PER_PAGE, end);
        }
        self.present_len = len;
        self.lens.push(len);
    }

    /// Makes those of the sectors zero that are not, from number `from` on.
    fn clear(&mut self, sectors: std::ops::Range<u64>, from: u64) {
        for number in sectors.start.max(from)..sectors.end {
            if self.present.sector(number) != &[0; SECTOR] {
                self.write_sector(number, &[0; SECTOR]);
            }
        }
    }

    fn sync(&mut self) {
        for (number, _) in std::mem::take(&mut self.versions) {
            if self.stale {
                self.durable.set_sector(number, self.present.sector(number));
            } else if let Some(page) = self.present.0.get(&(number / SECTORS_PER_PAGE)) {
                self.durable.0.insert(number / SECTORS_PER_PAGE, page.clone());
            }
        }
        self.durable_len = self.present_len;
        self.lens.clear();
    }

    /// A failed sync: anything may have reached the disk, and all pages pass for clean.
    fn fail_sync(&mut self, rng: &mut Rng) {
        let disk = self.after_crash(rng);
        self.durable = disk.durable;
        self.durable_len = disk.durable_len;
        self.versions.clear();
        self.lens.clear();
        self.stale = true;
    }

    /// Clean pages leave the cache and come back as the disk has them.
    fn drop_clean(&mut self) {
        if !self.stale {
            return;
        }
        let mut present = self.durable.clone();
        for &number in self.versions.keys() {
            present.set_sector(number, self.present.sector(number));
        }
        self.present = present;
        self.stale = false;
    }

    /// The file as it may be found after a power loss.
    fn after_crash(&self, rng: &mut Rng) -> Disk {
        // Whether nearly all that was written is there, or next to nothing, finds other mistakes
        // than the fair coin alone.
        let eighths = [0, 1, 4, 4, 7, 8][rng.below(6) as usize];
        let mut written = |versions: usize| {
            if versions == 0 || rng.below(8) >= eighths {
                None
            } else if rng.below(2) == 0 {
                Some(versions - 1)
            } else {
                Some(rng.below(versions as u64) as usize)
            }
        };
        let mut pages = self.durable.clone();
        for (&number, versions) in &self.versions {
            if let Some(choice) = written(versions.len()) {
                pages.set_sector(number, &versions[choice]);
            }
        }
        let len = written(self.lens.len()).map_or(self.durable_len, |choice| self.lens[choice]);
        if !self.name_is_durable && rng.below(2) == 0 {
            return Disk { name_is_durable: true, ..Disk::default() };
        }
        let end = len.div_ceil(SECTOR as u64);
        let beyond = pages.0.range(end / SECTORS_PER_PAGE..);
        let beyond: Vec<u64> = beyond.map(|(&page, _)| page).collect();
        for page in beyond {
            for number in end.max(page * SECTORS_PER_PAGE)..(page + 1) * SECTORS_PER_PAGE {
                pages.set_sector(number, &[0; SECTOR]);
            }
        }
        Disk {
            present: pages.clone(),
            present_len: len,
            durable: pages,
            durable_len: len,
            name_is_durable: true,
            ..Disk::default()
        }
    }
}

/// SplitMix64. The crate has no random numbers outside its tests.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// The file `live`, as long as there is one.
#[derive(Clone, Default)]
struct LiveFile {
    disk: Disk,
    exists: bool,
    /// Creating or removing it may not have reached the disk.
    name_changed: bool,
    /// Pages that have blocks.
    allocated: BTreeSet<u64>,
}

/// What tells one time of the system being up, and one pair of files, from others.
#[derive(Clone, Copy)]
struct Ids {
    /// `None` where the system does not tell.
    boot: Option<u64>,
    files: u64,
    /// 0 where the system does not tell.
    disk: u64,
}

/// All files at one moment, from which crashed ones can be made.
#[derive(Clone)]
pub struct Snapshot {
    data: Disk,
    regions: Disk,
    live: LiveFile,
    allocated: BTreeSet<u64>,
    ids: Ids,
}

impl Snapshot {
    /// The disk as the next process finds it where only this one dies at this moment: what was
    /// written is there, and what was not synced still has to be.
    pub fn restart(&self) -> Arc<Simulation> {
        let Snapshot { data, regions, live, allocated, ids } = self.clone();
        Simulation::new(data, regions, live, allocated, ids)
    }

    /// The same, where nobody can go by the mirror.
    pub fn restart_without_mirror(&self) -> Arc<Simulation> {
        Snapshot { live: LiveFile::default(), ..self.clone() }.restart()
    }

    /// The same, but the two files are copies of those that the mirror belongs to.
    pub fn restart_as_copy(&self) -> Arc<Simulation> {
        let ids = Ids { files: self.ids.files + 1, ..self.ids };
        Snapshot { ids, ..self.clone() }.restart()
    }

    /// The same, but the system says that the disk has this number; with 0, it does not say.
    pub fn restart_with_disk(&self, disk: u64) -> Arc<Simulation> {
        Snapshot { ids: Ids { disk, ..self.ids }, ..self.clone() }.restart()
    }

    /// The same, but `regions` is as it was in another snapshot.
    pub fn restart_with_regions_of(&self, other: &Snapshot) -> Arc<Simulation> {
        Snapshot { regions: other.regions.clone(), ..self.clone() }.restart()
    }

    /// A disk as it may be found after a crash at this moment; `seed` chooses.
    pub fn crash(&self, seed: u64) -> Arc<Simulation> {
        let mut rng = Rng(seed);
        let (data, regions) = (self.data.after_crash(&mut rng), self.regions.after_crash(&mut rng));
        // Blocks that were taken and hold nothing may be there or not.
        let kept = rng.below(3);
        let allocated = self.allocated.iter().copied().filter(|_| rng.below(2) < kept).collect();
        let exists = self.live.exists != (self.live.name_changed && rng.below(2) == 0);
        let live = LiveFile {
            disk: self.live.disk.after_crash(&mut rng),
            exists,
            name_changed: false,
            allocated: self.live.allocated.clone(),
        };
        // As little to be guessed as a real one.
        let ids = Ids { boot: self.ids.boot.map(|_| rng.below(u64::MAX)), ..self.ids };
        Simulation::new(data, regions, live, allocated, ids)
    }
}

/// Which call is to fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The number of the call, counted from the last [`Simulation::inject`].
    pub call: u64,
    /// The error number it answers with.
    pub errno: i32,
    /// Before that, a part of the bytes is written, a part of the blocks taken.
    pub partial: bool,
    /// All later calls fail too.
    pub lasting: bool,
}

/// Where a call panics.
#[derive(Clone, Copy, Debug)]
pub struct Panic {
    /// The number of the call, or store to `live`, counted from the last [`Simulation::inject_panic`].
    pub step: u64,
    /// It has its effect before.
    pub done: bool,
}

struct State {
    data: Disk,
    regions: Disk,
    live: LiveFile,
    /// Pages of `data` that have blocks.
    allocated: BTreeSet<u64>,
    ids: Ids,
    calls: u64,
    fault: Option<Fault>,
    panic: Option<Panic>,
    failed_call: Option<&'static str>,
    has_failed_sync: bool,
    /// Snapshots, one before each call since the last that found anything changed.
    recorded: Option<Vec<Snapshot>>,
    /// And one after each store into the mapping of `live`.
    record_stores: bool,
    /// Pages of which the memory shows what the disk does not have, until the database is closed.
    covered: BTreeSet<u64>,
    changed: bool,
    rng: Rng,
    unlocked: bool,
}

/// What a test does while a call of the library waits for the disk; it is told which.
type Meanwhile = Box<dyn FnMut(&'static str, File) + Send>;

/// What a test does before space is given back.
type BeforePunch = Box<dyn FnOnce() + Send>;

/// A simulated disk with one database.
pub struct Simulation {
    memory: Arc<MmapRaw>,
    live_memory: Arc<MmapRaw>,
    state: Mutex<State>,
    meanwhile: Mutex<Option<Meanwhile>>,
    holding: Holding,
    before_punch: Mutex<Option<(u64, BeforePunch)>>,
    paths: [PathBuf; 3],
}

impl Simulation {
    /// A disk with nothing on it.
    pub fn empty() -> Arc<Simulation> {
        Simulation::of(Disk::default(), Disk::default())
    }

    /// The same, of a system that does not say when it was started.
    pub fn empty_without_boot_id() -> Arc<Simulation> {
        let simulation = Simulation::empty();
        simulation.state.lock().ids.boot = None;
        simulation
    }

    /// A disk on which the two files have long been.
    pub fn with_files(data: &[u8], regions: &[u8]) -> Arc<Simulation> {
        assert!(data.len() as u64 <= MEMORY);
        Simulation::of(Disk::of(data), Disk::of(regions))
    }

    /// The same with a third file, left by a process since the system was started.
    pub fn with_mirror(data: &[u8], regions: &[u8], live: &[u8]) -> Arc<Simulation> {
        let (data, regions, disk) = (Disk::of(data), Disk::of(regions), Disk::of(live));
        let allocated = (0..live.len().div_ceil(PAGE) as u64).collect();
        let live = LiveFile { disk, exists: true, name_changed: false, allocated };
        Simulation::new(
            data,
            regions,
            live,
            BTreeSet::new(),
            Ids { boot: Some(0), files: 0, disk: 0 },
        )
    }

    fn of(data: Disk, regions: Disk) -> Arc<Simulation> {
        let ids = Ids { boot: Some(0), files: 0, disk: 0 };
        Simulation::new(data, regions, LiveFile::default(), BTreeSet::new(), ids)
    }

    fn new(
        data: Disk,
        regions: Disk,
        mut live: LiveFile,
        mut allocated: BTreeSet<u64>,
        ids: Ids,
    ) -> Arc<Simulation> {
        live.allocated.extend(live.disk.present.0.keys());
        let memory_with = |pages: &Pages, len: u64| {
            let memory = MmapOptions::new().len(len as usize).no_reserve_swap().map_anon();
            let memory: MmapRaw = memory.expect("address space for a simulated disk").into();
            for (&number, page) in &pages.0 {
                let to = memory.as_mut_ptr().wrapping_add(number as usize * PAGE);
                // SAFETY: the page lies in the mapping, which nobody else has yet.
                unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), to, PAGE) };
            }
            memory
        };
        let memory = memory_with(&data.present, MEMORY);
        let live_memory = memory_with(&live.disk.present, LIVE_MEMORY);
        allocated.extend(data.present.0.keys());
        allocated.retain(|&page| page < data.present_len.div_ceil(PAGE as u64));
        let simulation = Simulation {
            memory: Arc::new(memory),
            live_memory: Arc::new(live_memory),
            state: Mutex::new(State {
                data,
                regions,
                live,
                allocated,
                ids,
                calls: 0,
                fault: None,
                panic: None,
                failed_call: None,
                has_failed_sync: false,
                recorded: None,
                record_stores: false,
                covered: BTreeSet::new(),
                changed: true,
                rng: Rng(0),
                unlocked: false,
            }),
            meanwhile: Mutex::new(None),
            holding: Holding::new(),
            before_punch: Mutex::new(None),
            paths: [File::Data, File::Regions, File::Live]
                .map(|file| Path::new("simulation").join(file.name())),
        };
        {
            let state = simulation.state.lock();
            simulation.protect(0, MEMORY / PAGE as u64, false);
            let pieces: BTreeSet<u64> = state.allocated.iter().map(|page| page / PIECE).collect();
            for piece in pieces {
                simulation.protect_piece(&state, piece * PIECE);
            }
            simulation.protect_live(0, LIVE_MEMORY / PAGE as u64, false);
            for &page in &state.live.allocated {
                simulation.protect_live(page, 1, true);
            }
        }
        Arc::new(simulation)
    }

    /// Takes snapshots from now on: before the effect of every call.
    pub fn record(&self) {
        let mut state = self.state.lock();
        state.changed = true;
        state.recorded = Some(Vec::new());
    }

    /// Takes snapshots after every store into the mapping of `live`, too.
    pub fn record_stores(&self) {
        self.record();
        self.state.lock().record_stores = true;
    }

    /// The snapshots since `record`, or since this was last asked, and one of now. Those of
    /// neighbouring calls between which nothing changed are one.
    pub fn recorded(&self) -> Vec<Snapshot> {
        let mut state = self.state.lock();
        self.take_snapshot(&mut state);
        std::mem::take(state.recorded.as_mut().expect("snapshots are being recorded"))
    }

    /// A snapshot of now.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state.lock();
        self.look(&mut state);
        state.snapshot()
    }

    /// Notices what has been stored through the mapping, as the kernel may at any moment: each
    /// value noticed is one that a crash may leave.
    pub fn write_back(&self) {
        self.look(&mut self.state.lock());
    }

    /// Counts calls from now on and fails as `fault` says.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.fault = fault;
        state.failed_call = None;
        state.has_failed_sync = false;
    }

    /// Counts calls and stores to `live` from now on and panics as `panic` says, once. Nothing is printed.
    pub fn inject_panic(&self, panic: Option<Panic>) {
        self.inject(None);
        self.state.lock().panic = panic;
    }

    /// The name of the call that the last fault injected has hit first.
    pub fn failed_call(&self) -> Option<&'static str> {
        self.state.lock().failed_call
    }

    /// Whether a sync was among the calls that the last fault injected has hit.
    pub fn has_failed_sync(&self) -> bool {
        self.state.lock().has_failed_sync
    }

    /// How many calls there were since the last `inject`, or `inject_panic`.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Runs `meanwhile` while a flush is in a sync, or in a write to `regions`: at each of these
    /// calls, before it has its effect. What it calls itself is not interrupted.
    pub fn set_meanwhile(&self, meanwhile: Option<Meanwhile>) {
        *self.meanwhile.lock() = meanwhile;
    }

    /// Runs `body` once, when space of `data` from this offset on is about to be given back.
    pub fn before_punch(&self, offset: u64, body: impl FnOnce() + Send + 'static) {
        *self.before_punch.lock() = Some((offset, Box::new(body)));
    }

    fn run_meanwhile(&self, call: &'static str, file: File) {
        let taken = self.meanwhile.lock().take();
        if let Some(mut meanwhile) = taken {
            meanwhile(call, file);
            self.meanwhile.lock().get_or_insert(meanwhile);
        }
    }

    /// Whether the owner of the database has let it go.
    pub fn is_unlocked(&self) -> bool {
        self.state.lock().unlocked
    }

    /// What a file holds at present.
    pub fn contents(&self, file: File) -> Vec<u8> {
        let mut state = self.state.lock();
        self.look(&mut state);
        let disk = state.disk(file);
        disk.present.read(disk.present_len)
    }

    fn address(&self, page: u64) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(page as usize * PAGE)
    }

    fn protect(&self, page: u64, pages: u64, writable: bool) {
        protect(self.address(page), pages, writable);
    }

    fn protect_live(&self, page: u64, pages: u64, writable: bool) {
        protect(self.live_address(page), pages, writable);
    }

    fn live_address(&self, page: u64) -> *mut u8 {
        self.live_memory.as_mut_ptr().wrapping_add(page as usize * PAGE)
    }

    /// Makes the piece of `page` writable if it has all its blocks, and takes that away if not.
    fn protect_piece(&self, state: &State, page: u64) {
        let first = page / PIECE * PIECE;
        let whole = state.allocated.range(first..first + PIECE).count() as u64 == PIECE;
        self.protect(first, PIECE, whole);
    }

    /// Changes a page in memory, whatever its protection.
    fn overwrite(&self, state: &State, page: u64, at: usize, bytes: &[u8]) {
        self.protect(page, 1, true);
        // SAFETY: inside a page of the mapping that is writable since the line above.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address(page).add(at), bytes.len());
        }
        self.protect_piece(state, page);
    }

    fn look(&self, state: &mut State) {
        let end = state.data.present_len.div_ceil(PAGE as u64);
        for &page in state.allocated.range(..end).filter(|page| !state.covered.contains(page)) {
            state.changed |= look_at(self.address(page), page, &mut state.data);
        }
        for &page in &state.live.allocated {
            state.changed |= look_at(self.live_address(page), page, &mut state.live.disk);
        }
    }

    fn take_snapshot(&self, state: &mut State) {
        if state.recorded.is_some() {
            self.look(state);
            if std::mem::take(&mut state.changed) {
                let snapshot = state.snapshot();
                state.recorded.as_mut().expect("asked above").push(snapshot);
            }
        }
    }

    /// What all calls have in common. `failed` is what happens if the call fails after a part of
    /// its work.
    fn call<T>(
        &self,
        name: &'static str,
        failed: impl FnOnce(&mut State),
        effect: impl FnOnce(&mut State) -> T,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        self.take_snapshot(&mut state);
        let number = state.calls;
        state.calls += 1;
        let panic = state.panic.take_if(|panic| panic.step == number);
        if let Some(panic) = panic {
            if panic.done {
                effect(&mut state);
            }
            resume_unwind(Box::new("a test asked for a panic"));
        }
        match state.fault {
            Some(fault) if number == fault.call || (fault.lasting && number > fault.call) => {
                state.failed_call.get_or_insert(name);
                state.has_failed_sync |= name == "sync";
                if fault.partial || name == "sync" {
                    failed(&mut state);
                    state.changed = true;
                }
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(effect(&mut state)),
        }
    }

    /// A call that only asks, and fails without a trace.
    fn question<T>(
        &self,
        name: &'static str,
        answer: impl FnOnce(&mut State) -> T,
    ) -> io::Result<T> {
        self.call(name, |_| {}, answer)
    }

    fn allocate_now(&self, state: &mut State, file: File, offset: u64, end: u64) {
        state.changed = true;
        let disk = state.disk(file);
        if end > disk.present_len {
            disk.set_len(end);
        }
        for page in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            match file {
                File::Data if state.allocated.insert(page) => self.protect_piece(state, page),
                File::Live if state.live.allocated.insert(page) => self.protect_live(page, 1, true),
                _ => {}
            }
        }
    }

    /// Takes the blocks away of the whole pages from byte `from` to byte `to`.
    fn discard(&self, state: &mut State, from: u64, to: u64) {
        self.look(state);
        state.changed = true;
        let (from, to) = (from.div_ceil(PAGE as u64), to.div_ceil(PAGE as u64));
        let pages: Vec<u64> = state.allocated.range(from..to.max(from)).copied().collect();
        for page in pages {
            state.allocated.remove(&page);
            self.overwrite(state, page, 0, &ZEROS);
            state.data.clear(page * SECTORS_PER_PAGE..(page + 1) * SECTORS_PER_PAGE, 0);
        }
    }

    fn write_now(&self, state: &mut State, file: File, offset: u64, bytes: &[u8]) {
        state.changed = true;
        let end = offset + bytes.len() as u64;
        match file {
            File::Data => {
                self.look(state);
                self.allocate_now(state, file, offset, end);
                let mut at = offset;
                while at < end {
                    let within = (at % PAGE as u64) as usize;
                    let len = (PAGE - within).min((end - at) as usize);
                    let part = &bytes[(at - offset) as usize..][..len];
                    self.overwrite(state, at / PAGE as u64, within, part);
                    at += len as u64;
                }
                self.look(state);
                // What is written may be what was there, and is dirty all the same.
                for number in offset / SECTOR as u64..end.div_ceil(SECTOR as u64) {
                    let sector = *state.data.present.sector(number);
                    state.data.write_sector(number, &sector);
                }
            }
            File::Regions => {
                if end > state.regions.present_len {
                    state.regions.set_len(end);
                }
                assert!(offset % SECTOR as u64 == 0, "the table is written in whole sectors");
                for (number, sector) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
                    let sector = sector.try_into().expect("the table is written in whole sectors");
                    state.regions.write_sector(number, sector);
                }
            }
            File::Live => {
                self.allocate_now(state, file, offset, end);
                let to = self.live_memory.as_mut_ptr().wrapping_add(offset as usize);
                // SAFETY: inside the mapping, in pages that are writable since the line above.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
                self.look(state);
            }
        }
    }

    /// The file ends at page `from` now; the pages behind are blank when it grows again.
    fn cut_live(&self, state: &mut State, from: u64) {
        for page in state.live.allocated.split_off(&from) {
            // SAFETY: a page of the mapping that is writable as long as it has its block.
            unsafe { std::ptr::write_bytes(self.live_address(page), 0, PAGE) };
            self.protect_live(page, 1, false);
        }
    }
}

fn protect(address: *mut u8, pages: u64, writable: bool) {
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: a range of a simulation's mapping; taking the right to write away is what it is for.
    let status = unsafe { libc::mprotect(address.cast(), pages as usize * PAGE, protection) };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}

/// Notices what has been stored into a page. Whether it was anything.
fn look_at(address: *const u8, page: u64, disk: &mut Disk) -> bool {
    let mut bytes = ZEROS;
    // SAFETY: the address of a page in a mapping. Another thread may store to it meanwhile, as it may
    // while a real kernel writes a page back: then any mixture is a possible outcome.
    unsafe { std::ptr::copy_nonoverlapping(address, bytes.as_mut_ptr(), PAGE) };
    if bytes == *disk.present.page(page) {
        return false;
    }
    for (number, sector) in (page * SECTORS_PER_PAGE..).zip(bytes.chunks_exact(SECTOR)) {
        let sector = sector.try_into().expect("a whole sector");
        if disk.present.sector(number) != sector {
            disk.write_sector(number, sector);
        }
    }
    true
}

impl State {
    fn disk(&mut self, file: File) -> &mut Disk {
        match file {
            File::Data => &mut self.data,
            File::Regions => &mut self.regions,
            File::Live => &mut self.live.disk,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            data: self.data.clone(),
            regions: self.regions.clone(),
            live: self.live.clone(),
            allocated: self.allocated.clone(),
            ids: self.ids,
        }
    }
}

impl Storage for Simulation {
    fn path(&self, file: File) -> &Path {
        match file {
            File::Data => &self.paths[0],
            File::Regions => &self.paths[1],
            File::Live => &self.paths[2],
        }
    }

    fn len(&self, file: File) -> io::Result<u64> {
        self.question("len", |state| state.disk(file).present_len)
    }

    fn set_len(&self, file: File, len: u64) -> io::Result<()> {
        if file == File::Data && len > MEMORY {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let effect = |state: &mut State| {
            self.look(state);
            state.changed = true;
            match file {
                File::Data => self.discard(state, len, MEMORY),
                File::Live => self.cut_live(state, len.div_ceil(PAGE as u64)),
                File::Regions => {}
            }
            state.disk(file).set_len(len);
        };
        self.call("set_len", |_| {}, effect)
    }

    fn allocate(&self, file: File, offset: u64, len: u64) -> io::Result<()> {
        self.call(
            "allocate",
            |state| {
                let pages = len.div_ceil(PAGE as u64);
                let part = (state.rng.below(pages) * PAGE as u64).min(len);
                if part > 0 {
                    self.allocate_now(state, file, offset, offset + part);
                }
            },
            |state| self.allocate_now(state, file, offset, offset + len),
        )
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let before = self.before_punch.lock().take_if(|(at, _)| *at == offset);
        if let Some((_, before)) = before {
            before();
        }
        let effect = |state: &mut State| self.discard(state, offset, offset + len);
        self.call("punch", |_| {}, effect)
    }

    fn write(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if file == File::Regions {
            self.run_meanwhile("write", file);
        }
        self.call(
            "write",
            |state| {
                let unit = match file {
                    File::Regions => SECTOR,
                    File::Data => 1,
                    // The system copies a word at once.
                    File::Live => 8,
                };
                let part =
                    state.rng.below(bytes.len().div_ceil(unit).max(1) as u64) as usize * unit;
                self.write_now(state, file, offset, &bytes[..part]);
            },
            |state| self.write_now(state, file, offset, bytes),
        )
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write(File::Data, offset, &vec![0; len as usize])
    }

    fn sync(&self, file: File) -> io::Result<()> {
        self.run_meanwhile("sync", file);
        self.call(
            "sync",
            |state| {
                self.look(state);
                let mut rng = Rng(state.rng.below(u64::MAX));
                state.disk(file).fail_sync(&mut rng);
            },
            |state| {
                assert!(file != File::Live, "it is never synced");
                if file == File::Data {
                    self.look(state);
                }
                state.changed = true;
                state.disk(file).sync();
            },
        )
    }

    fn sync_directory(&self) -> io::Result<()> {
        let effect = |state: &mut State| {
            state.changed = true;
            state.data.name_is_durable = true;
            state.regions.name_is_durable = true;
        };
        self.call("sync_directory", |_| {}, effect)
    }

    fn reread_data(&self) -> io::Result<()> {
        self.question("reread_data", |state| {
            self.look(state);
            let before = state.data.present.clone();
            state.data.drop_clean();
            let now = state.data.present.clone();
            for &page in before.0.keys().chain(now.0.keys()) {
                if before.page(page) != now.page(page) {
                    self.overwrite(state, page, 0, now.page(page));
                }
            }
        })
    }

    fn map_data(&self, least: u64, most: u64) -> io::Result<Window> {
        if least > MEMORY {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.question("map_data", |_| {
            let len = most.min(MEMORY);
            Window::new(self.memory.as_mut_ptr(), len, Box::new(self.memory.clone()))
        })
    }

    fn open_window(&self, _window: &Window, _len: u64, _writable: bool) -> io::Result<()> {
        self.question("open_window", |_| {})
    }

    fn cover(&self, _window: &Window, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.question("cover", |state| {
            for (at, byte) in (offset..).zip(bytes) {
                let (page, within) = (at / PAGE as u64, at as usize % PAGE);
                state.covered.insert(page);
                self.overwrite(state, page, within, std::slice::from_ref(byte));
            }
        })
    }

    fn make_writable(&self, _first: *mut u8, _len: usize) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, file: File) -> io::Result<Contents> {
        self.question("read", |state| {
            self.look(state);
            if file == File::Live && !state.live.exists {
                return Contents::of(Vec::new());
            }
            let disk = state.disk(file);
            Contents::of(disk.present.read(disk.present_len))
        })
    }

    fn read_identity(&self) -> io::Result<Vec<u8>> {
        self.question("read_identity", |state| {
            state.data.present.read(state.data.present_len.min(PAGE as u64))
        })
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        self.question("disk_bytes", |state| state.allocated.len() as u64 * PAGE as u64)
    }

    fn keeps_allocated(&self) -> bool {
        true
    }

    fn holes_take_space(&self) -> bool {
        false
    }

    fn piece_len(&self) -> u64 {
        PIECE * PAGE as u64
    }

    fn new_uuid(&self) -> io::Result<[u8; 16]> {
        self.question("new_uuid", |_| [7; 16])
    }

    fn create_live(&self) -> io::Result<()> {
        let effect = |state: &mut State| {
            self.look(state);
            state.changed = true;
            self.cut_live(state, 0);
            state.live.disk.set_len(0);
            state.live.name_changed |= !state.live.exists;
            state.live.exists = true;
        };
        self.call("create_live", |_| {}, effect)
    }

    fn map_live(&self, offset: u64, len: u64) -> io::Result<Window> {
        if offset + len > LIVE_MEMORY {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let base = self.live_memory.as_mut_ptr().wrapping_add(offset as usize);
        self.question("map_live", |_| Window::new(base, len, Box::new(self.live_memory.clone())))
    }

    fn remove_live(&self) -> io::Result<()> {
        let effect = |state: &mut State| {
            state.changed = true;
            state.live.name_changed |= state.live.exists;
            state.live.exists = false;
        };
        self.call("remove_live", |_| {}, effect)
    }

    fn stored_live(&self) {
        let mut state = self.state.lock();
        if state.record_stores {
            self.take_snapshot(&mut state);
        }
        if let Some(panic) = state.panic {
            let number = state.calls;
            state.calls += 1;
            if panic.step == number {
                state.panic = None;
                resume_unwind(Box::new("a test asked for a panic"));
            }
        }
    }

    fn file_id(&self, file: File) -> io::Result<FileId> {
        let inode = file as u64;
        self.question("file_id", |state| FileId {
            device: state.ids.files,
            disk: state.ids.disk,
            inode,
            born: 0,
        })
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        self.question("boot_id", |state| state.ids.boot.map(|boot| u128::from(boot).to_le_bytes()))
    }

    fn holding(&self) -> &Holding {
        &self.holding
    }

    fn unlock(&self) {
        let mut state = self.state.lock();
        state.unlocked = true;
        for page in std::mem::take(&mut state.covered) {
            self.overwrite(&state, page, 0, state.data.present.page(page));
        }
    }
}

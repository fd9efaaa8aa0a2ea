//! A disk that forgets, tears and fails like a real one, for tests.
//!
//! For both files it keeps, per sector of 512 bytes, what the last sync made durable and every
//! value written since. A crash picks, for each sector and for each file length independently, any
//! of these. Pieces that lack a block are write-protected, so that a store which the real kernel
//! could answer with SIGBUS is caught as SIGSEGV.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use super::{File, Storage, Window};

/// What a drive writes whole or not at all.
pub const SECTOR: usize = 512;

/// The page size of the simulated memory protection.
const PAGE: u64 = 4096;

/// Smaller than the real one, so that programs of a few kilobytes meet all its cases.
const PIECE: u64 = 4 * PAGE;

/// More than the programs of the tests need; it is address space only.
const MEMORY: u64 = 1 << 31;

type Sector = [u8; SECTOR];

/// One file as the disk has it, and as it may have it after a crash.
#[derive(Clone, Default)]
struct Disk {
    /// Sectors that are not all zero, as of the last sync.
    durable: BTreeMap<u64, Sector>,
    durable_len: u64,
    /// The present contents, as far as they have been looked at.
    present: BTreeMap<u64, Sector>,
    present_len: u64,
    /// What was written since the last sync, oldest first.
    versions: BTreeMap<u64, Vec<Sector>>,
    lens: Vec<u64>,
    name_is_durable: bool,
}

impl Disk {
    fn write_sector(&mut self, number: u64, sector: Sector) {
        let zero = [0; SECTOR];
        if *self.present.get(&number).unwrap_or(&zero) == sector {
            return;
        }
        self.versions.entry(number).or_default().push(sector);
        if sector == zero {
            self.present.remove(&number);
        } else {
            self.present.insert(number, sector);
        }
    }

    fn set_len(&mut self, len: u64) {
        let end = len.div_ceil(SECTOR as u64);
        let beyond: Vec<u64> = self.present.range(end..).map(|(&number, _)| number).collect();
        for number in beyond {
            self.write_sector(number, [0; SECTOR]);
        }
        self.present_len = len;
        self.lens.push(len);
    }

    fn sync(&mut self) {
        self.durable = self.present.clone();
        self.durable_len = self.present_len;
        self.versions.clear();
        self.lens.clear();
    }

    fn read(&self, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![0; (to - from) as usize];
        let first = from / SECTOR as u64;
        for (&number, sector) in self.present.range(first..to.div_ceil(SECTOR as u64)) {
            let at = (number - first) as usize * SECTOR;
            let len = SECTOR.min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&sector[..len]);
        }
        bytes
    }

    /// The file as it may be found after a power loss.
    fn after_crash(&self, rng: &mut fastrand_like::Rng) -> Disk {
        if !self.name_is_durable && rng.below(2) == 0 {
            return Disk::default();
        }
        let mut disk = Disk { name_is_durable: true, ..Disk::default() };
        disk.present = self.durable.clone();
        for (&number, versions) in &self.versions {
            // One of the values, the durable one included.
            let choice = rng.below(versions.len() as u64 + 1) as usize;
            if let Some(sector) = versions.get(choice) {
                disk.present.insert(number, *sector);
            }
        }
        let choice = rng.below(self.lens.len() as u64 + 1) as usize;
        disk.present_len = self.lens.get(choice).copied().unwrap_or(self.durable_len);
        let end = disk.present_len.div_ceil(SECTOR as u64);
        disk.present.retain(|&number, sector| number < end && *sector != [0; SECTOR]);
        disk.sync();
        disk
    }
}

/// A small generator of its own: the crate has no random numbers outside its tests.
mod fastrand_like {
    /// SplitMix64.
    pub struct Rng(pub u64);

    impl Rng {
        pub fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % limit
        }
    }
}

/// Both files at one moment, from which crashed ones can be made.
#[derive(Clone)]
pub struct Snapshot {
    data: Disk,
    regions: Disk,
}

impl Snapshot {
    /// The disk as the next process finds it where only this one dies at this moment: what was
    /// written is there, and what was not synced still has to be.
    pub fn restart(&self) -> Arc<Simulation> {
        Simulation::new(self.data.clone(), self.regions.clone())
    }

    /// A disk as it may be found after a crash at this moment; `seed` chooses.
    pub fn crash(&self, seed: u64) -> Arc<Simulation> {
        let mut rng = fastrand_like::Rng(seed);
        Simulation::new(self.data.after_crash(&mut rng), self.regions.after_crash(&mut rng))
    }
}

/// Which call is to fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The number of the call, counted from the last [`Simulation::inject`].
    pub call: u64,
    /// The error number it answers with.
    pub errno: i32,
    /// All later calls fail too.
    pub lasting: bool,
}

struct State {
    data: Disk,
    regions: Disk,
    /// Pages of `data` that have blocks.
    allocated: BTreeSet<u64>,
    calls: u64,
    capture_at: Option<u64>,
    captured: Option<Snapshot>,
    fault: Option<Fault>,
    unlocked: bool,
}

/// A simulated disk with one database.
pub struct Simulation {
    memory: Arc<MmapRaw>,
    state: Mutex<State>,
    paths: [PathBuf; 2],
}

impl Simulation {
    /// A disk with nothing on it.
    pub fn empty() -> Arc<Simulation> {
        Simulation::new(Disk::default(), Disk::default())
    }

    fn new(data: Disk, regions: Disk) -> Arc<Simulation> {
        let memory = MmapOptions::new().len(MEMORY as usize).no_reserve_swap().map_anon();
        let memory: MmapRaw = memory.expect("address space for a simulated disk").into();
        let allocated = data.present.keys().map(|number| number * SECTOR as u64 / PAGE).collect();
        for (&number, sector) in &data.present {
            let to = memory.as_mut_ptr().wrapping_add(number as usize * SECTOR);
            // SAFETY: the sector lies in the mapping, which nobody else has yet.
            unsafe { std::ptr::copy_nonoverlapping(sector.as_ptr(), to, SECTOR) };
        }
        let simulation = Simulation {
            memory: Arc::new(memory),
            state: Mutex::new(State {
                data,
                regions,
                allocated,
                calls: 0,
                capture_at: None,
                captured: None,
                fault: None,
                unlocked: false,
            }),
            paths: ["simulation/data".into(), "simulation/regions".into()],
        };
        {
            let state = simulation.state.lock();
            simulation.protect(0, MEMORY, false);
            for &page in &state.allocated {
                simulation.protect_piece(&state, page);
            }
        }
        Arc::new(simulation)
    }

    /// Takes a snapshot just before the `call`-th call from now on has its effect.
    pub fn capture_at(&self, call: u64) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.captured = None;
        state.capture_at = Some(call);
    }

    /// The snapshot, if the call has come.
    pub fn captured(&self) -> Option<Snapshot> {
        self.state.lock().captured.take()
    }

    /// A snapshot of now.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state.lock();
        self.look(&mut state);
        Snapshot { data: state.data.clone(), regions: state.regions.clone() }
    }

    /// Counts calls from now on and fails as `fault` says.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.fault = fault;
    }

    /// How many calls there were since the last `inject` or `capture_at`.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Whether the owner of the database has let it go.
    pub fn is_unlocked(&self) -> bool {
        self.state.lock().unlocked
    }

    fn protect(&self, offset: u64, len: u64, writable: bool) {
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let address = self.memory.as_mut_ptr().wrapping_add(offset as usize);
        // SAFETY: a range of this mapping; taking the right to write away is what the simulation
        // is for.
        let status = unsafe { libc::mprotect(address.cast(), len as usize, protection) };
        assert_eq!(status, 0, "{}", io::Error::last_os_error());
    }

    /// Makes the piece of `page` writable if it has all its blocks, and takes that away if not.
    fn protect_piece(&self, state: &State, page: u64) {
        let pages = PIECE / PAGE;
        let first = page / pages * pages;
        let whole = state.allocated.range(first..first + pages).count() as u64 == pages;
        self.protect(first * PAGE, PIECE, whole);
    }

    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let from = self.memory.as_mut_ptr().wrapping_add(offset as usize);
        // SAFETY: inside the mapping. Another thread may store to it meanwhile, as it may while a
        // real kernel writes a page back: then any mixture is a possible outcome.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        bytes
    }

    /// Notices what was stored through the mapping.
    fn look(&self, state: &mut State) {
        for page in state.allocated.clone() {
            let bytes = self.bytes(page * PAGE, PAGE);
            for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                let number = page * PAGE / SECTOR as u64 + index as u64;
                if number < state.data.present_len.div_ceil(SECTOR as u64) {
                    state.data.write_sector(number, sector.try_into().expect("a whole sector"));
                }
            }
        }
    }

    /// The part that all calls have in common.
    fn call<T>(&self, effect: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let mut state = self.state.lock();
        self.look(&mut state);
        let number = state.calls;
        state.calls += 1;
        if state.capture_at == Some(number) {
            state.captured =
                Some(Snapshot { data: state.data.clone(), regions: state.regions.clone() });
        }
        match state.fault {
            Some(fault) if number == fault.call || (fault.lasting && number > fault.call) => {
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(effect(&mut state)),
        }
    }

    fn allocate_data(&self, state: &mut State, from: u64, to: u64) {
        for page in from / PAGE..to.div_ceil(PAGE) {
            if state.allocated.insert(page) {
                self.protect_piece(state, page);
            }
        }
    }

    fn discard_data(&self, state: &mut State, from: u64, to: u64) {
        let (from, to) = (from.div_ceil(PAGE), to.div_ceil(PAGE));
        let pages: Vec<u64> = state.allocated.range(from..to.max(from)).copied().collect();
        for page in pages {
            state.allocated.remove(&page);
            let to = self.memory.as_mut_ptr().wrapping_add((page * PAGE) as usize);
            self.protect(page * PAGE, PAGE, true);
            // SAFETY: an allocated page of the mapping, which the caller of `punch` has given up.
            unsafe { std::ptr::write_bytes(to, 0, PAGE as usize) };
            self.protect_piece(state, page);
            for number in 0..PAGE / SECTOR as u64 {
                let number = page * PAGE / SECTOR as u64 + number;
                state.data.write_sector(number, [0; SECTOR]);
            }
        }
    }
}

impl State {
    fn disk(&mut self, file: File) -> &mut Disk {
        match file {
            File::Data => &mut self.data,
            File::Regions => &mut self.regions,
        }
    }
}

impl Storage for Simulation {
    fn path(&self, file: File) -> &Path {
        match file {
            File::Data => &self.paths[0],
            File::Regions => &self.paths[1],
        }
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.state.lock().disk(file).present_len)
    }

    fn set_len(&self, file: File, len: u64) -> io::Result<()> {
        if file == File::Data && len > MEMORY {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        self.call(|state| {
            if file == File::Data {
                self.discard_data(state, len, MEMORY);
            }
            state.disk(file).set_len(len);
        })
    }

    fn allocate(&self, file: File, offset: u64, len: u64) -> io::Result<()> {
        self.call(|state| {
            let end = offset + len;
            if end > state.disk(file).present_len {
                state.disk(file).set_len(end);
            }
            if file == File::Data {
                self.allocate_data(state, offset, end);
            }
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(|state| self.discard_data(state, offset, offset + len))
    }

    fn write(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(|state| {
            let end = offset + bytes.len() as u64;
            if end > state.disk(file).present_len {
                state.disk(file).set_len(end);
            }
            match file {
                File::Data => {
                    self.allocate_data(state, offset, end);
                    let to = self.memory.as_mut_ptr().wrapping_add(offset as usize);
                    let pages = offset / PAGE..end.div_ceil(PAGE);
                    for page in pages.clone() {
                        self.protect(page * PAGE, PAGE, true);
                    }
                    // SAFETY: inside the mapping and writable since the lines above.
                    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
                    for page in pages {
                        self.protect_piece(state, page);
                    }
                    self.look(state);
                }
                File::Regions => {
                    assert!(offset % SECTOR as u64 == 0, "the table is written in whole pages");
                    for (number, sector) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
                        let sector =
                            sector.try_into().expect("the table is written in whole pages");
                        state.regions.write_sector(number, sector);
                    }
                }
            }
        })
    }

    fn sync(&self, file: File) -> io::Result<()> {
        self.call(|state| state.disk(file).sync())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.call(|state| {
            state.data.name_is_durable = true;
            state.regions.name_is_durable = true;
        })
    }

    fn map_data(&self, len: u64) -> io::Result<Window> {
        if len > MEMORY {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(Window::new(self.memory.as_mut_ptr(), len, Box::new(self.memory.clone())))
    }

    fn open_window(&self, _window: &Window, _len: u64, _writable: bool) -> io::Result<()> {
        Ok(())
    }

    fn read_regions(&self) -> io::Result<Box<dyn AsRef<[u8]>>> {
        let state = self.state.lock();
        Ok(Box::new(state.regions.read(0, state.regions.present_len)))
    }

    fn read_identity(&self) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        Ok(state.data.read(0, state.data.present_len.min(PAGE)))
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().allocated.len() as u64 * PAGE)
    }

    fn keeps_allocated(&self) -> bool {
        true
    }

    fn holes_take_space(&self) -> bool {
        false
    }

    fn piece_len(&self) -> u64 {
        PIECE
    }

    fn new_uuid(&self) -> io::Result<[u8; 16]> {
        Ok([7; 16])
    }

    fn unlock(&self) {
        self.state.lock().unlocked = true;
    }
}

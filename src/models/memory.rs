//! Files in memory, and what loom has to know of their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use loom::cell::{ConstPtr, UnsafeCell};

use crate::storage::{Contents, File, FileId, Holding, Storage, Window};
use crate::sync::{AtomicUsize, Ordering};

const PAGE: u64 = 4096;

/// Smaller than the real one, so that a few kilobytes meet all its cases.
const PIECE: u64 = 4 * PAGE;

/// The longest that `data` can be.
const CAPACITY: u64 = 1 << 20;

/// The bytes that loom takes for one location. The models write records of this length.
pub const GRAIN: usize = 8;

/// Both files as a power loss would leave them.
#[derive(Clone)]
pub struct Snapshot {
    /// As of its last sync, and as it is, for the kernel may have written any of that.
    pub data: [Vec<u8>; 2],
    pub regions: Vec<u8>,
}

struct State {
    data_len: u64,
    regions: Vec<u8>,
    synced_data: Vec<u8>,
    /// One for each sync of `regions`.
    snapshots: Vec<Snapshot>,
    /// Pages of `data` that have blocks.
    allocated: BTreeSet<u64>,
    /// By offset in `data` divided by `GRAIN`, from the first store on.
    grains: BTreeMap<u64, UnsafeCell<()>>,
    syncs_fail: bool,
    unlocks: u32,
}

pub struct Memory {
    bytes: Arc<Bytes>,
    state: Mutex<State>,
    /// Counts calls, stores and looks, and so makes loom try these in every order. It is accessed
    /// relaxed, in order to order nothing else.
    steps: AtomicUsize,
    holding: Holding,
}

struct Bytes(*mut u8);

// SAFETY: an allocation as any; what is done to it is the business of the code under test.
unsafe impl Send for Bytes {}
// SAFETY: as above. The threads of a model are coroutines of one thread.
unsafe impl Sync for Bytes {}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: made by `Memory::new` of a box of this length.
        drop(unsafe {
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.0, CAPACITY as usize))
        });
    }
}

impl Memory {
    pub fn new(data: &[u8], regions: Vec<u8>) -> Arc<Memory> {
        let mut bytes = vec![0; CAPACITY as usize].into_boxed_slice();
        bytes[..data.len()].copy_from_slice(data);
        Arc::new(Memory {
            bytes: Arc::new(Bytes(Box::into_raw(bytes).cast())),
            state: Mutex::new(State {
                data_len: data.len() as u64,
                regions,
                synced_data: data.to_vec(),
                snapshots: Vec::new(),
                allocated: BTreeSet::new(),
                grains: BTreeMap::new(),
                syncs_fail: false,
                unlocks: 0,
            }),
            steps: AtomicUsize::new(0),
            holding: Holding::new(),
        })
    }

    /// Lets other threads come first, and locks the state; the threads of a model never wait for
    /// this lock.
    fn step(&self) -> MutexGuard<'_, State> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.state.try_lock().expect("no thread is switched to while this is locked")
    }

    /// The same for who needs to own the files.
    fn step_of_owner(&self) -> MutexGuard<'_, State> {
        let state = self.step();
        assert_eq!(state.unlocks, 0, "the files were let go");
        state
    }

    /// The offset in `data` of an address that a window has given out.
    pub fn offset_of(&self, address: *const u8) -> Option<u64> {
        let offset = (address as usize).wrapping_sub(self.bytes.0 as usize) as u64;
        (offset < CAPACITY).then_some(offset)
    }

    /// Notes a store through the window.
    pub fn stored(&self, offset: u64, len: usize) {
        let mut state = self.step_of_owner();
        self.changed(&mut state, offset, len);
    }

    fn changed(&self, state: &mut State, offset: u64, len: usize) {
        for page in offset / PAGE..(offset + len as u64).div_ceil(PAGE) {
            let first = page / (PIECE / PAGE) * (PIECE / PAGE);
            let whole = (first..first + PIECE / PAGE).all(|page| state.allocated.contains(&page));
            assert!(whole, "a store into page {page}, whose piece lacks blocks");
        }
        for grain in grains(offset, len as u64) {
            state.grains.entry(grain).or_default().with_mut(|_| ());
        }
    }

    /// Has loom watch the bytes for stores, as long as the result lives.
    pub fn watch(&self, offset: u64, len: usize) -> Vec<ConstPtr<()>> {
        let state = self.step_of_owner();
        grains(offset, len as u64)
            .map(|grain| state.grains.get(&grain).expect("a view of bytes never stored").get())
            .collect()
    }

    /// Lets other threads come first.
    pub fn pause(&self) {
        drop(self.step());
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.step().snapshots.clone()
    }

    pub fn fail_syncs(&self) {
        self.step().syncs_fail = true;
    }

    pub fn unlocks(&self) -> u32 {
        self.step().unlocks
    }

    fn present_data(&self, state: &State) -> Vec<u8> {
        // SAFETY: within the allocation, and no other thread of the model runs meanwhile.
        unsafe { std::slice::from_raw_parts(self.bytes.0, state.data_len as usize) }.to_vec()
    }

    /// Takes the blocks of whole and parts of pages, and with them their bytes.
    fn discard(&self, state: &mut State, from: u64, to: u64) {
        state.allocated.retain(|page| !(from.div_ceil(PAGE)..to.div_ceil(PAGE)).contains(page));
        for (_, cell) in state.grains.range(grains(from, to - from)) {
            cell.with_mut(|_| ());
        }
        let at = self.bytes.0.wrapping_add(from as usize);
        // SAFETY: within the allocation; loom has seen that nobody looks at these bytes.
        unsafe { std::ptr::write_bytes(at, 0, (to - from) as usize) };
    }
}

fn grains(offset: u64, len: u64) -> std::ops::Range<u64> {
    offset / GRAIN as u64..(offset + len).div_ceil(GRAIN as u64)
}

impl Storage for Memory {
    fn path(&self, file: File) -> &Path {
        Path::new(file.name())
    }

    fn len(&self, file: File) -> io::Result<u64> {
        let state = self.step();
        Ok(match file {
            File::Data => state.data_len,
            File::Regions => state.regions.len() as u64,
            File::Live => unreachable!("there is no mirror"),
        })
    }

    fn set_len(&self, file: File, len: u64) -> io::Result<()> {
        let mut state = self.step_of_owner();
        match file {
            File::Data => {
                if len < state.data_len {
                    let end = state.data_len;
                    self.discard(&mut state, len, end);
                }
                state.data_len = len;
            }
            File::Regions => state.regions.resize(len as usize, 0),
            File::Live => unreachable!("there is no mirror"),
        }
        Ok(())
    }

    fn allocate(&self, file: File, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.step_of_owner();
        let end = offset + len;
        match file {
            File::Data => {
                assert!(end <= state.data_len, "`data` grows before it is given blocks");
                state.allocated.extend(offset / PAGE..end.div_ceil(PAGE));
            }
            File::Regions => {
                let len = state.regions.len().max(end as usize);
                state.regions.resize(len, 0);
            }
            File::Live => unreachable!("there is no mirror"),
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.discard(&mut self.step_of_owner(), offset, offset + len);
        Ok(())
    }

    fn write(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step_of_owner();
        let end = offset as usize + bytes.len();
        match file {
            File::Data => {
                state.data_len = state.data_len.max(end as u64);
                let to = self.bytes.0.wrapping_add(offset as usize);
                // SAFETY: within the allocation; loom sees below that nobody looks at these bytes, and
                // nobody looks at the identity.
                unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
                if offset > 0 {
                    self.changed(&mut state, offset, bytes.len());
                }
            }
            File::Regions => {
                let len = state.regions.len().max(end);
                state.regions.resize(len, 0);
                state.regions[offset as usize..end].copy_from_slice(bytes);
            }
            File::Live => unreachable!("there is no mirror"),
        }
        Ok(())
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write(File::Data, offset, &vec![0; len as usize])
    }

    fn sync(&self, file: File) -> io::Result<()> {
        let mut state = self.step_of_owner();
        if state.syncs_fail {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let present = self.present_data(&state);
        match file {
            File::Data => state.synced_data = present,
            File::Regions => {
                let snapshot = Snapshot {
                    data: [state.synced_data.clone(), present],
                    regions: state.regions.clone(),
                };
                state.snapshots.push(snapshot);
            }
            File::Live => unreachable!("there is no mirror"),
        }
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn reread_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn map_data(&self, least: u64, most: u64) -> io::Result<Window> {
        if least > CAPACITY {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(Window::new(self.bytes.0, most.min(CAPACITY), Box::new(self.bytes.clone())))
    }

    fn open_window(&self, _window: &Window, _len: u64, _writable: bool) -> io::Result<()> {
        Ok(())
    }

    fn cover(&self, window: &Window, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: within the window, whose memory is written only while nobody reads a region yet.
        unsafe { std::ptr::copy(bytes.as_ptr(), window.at(offset), bytes.len()) };
        Ok(())
    }

    fn make_writable(&self, _first: *mut u8, _len: usize) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, _file: File) -> io::Result<Contents> {
        Ok(Contents::of(self.step().regions.clone()))
    }

    fn read_identity(&self) -> io::Result<Vec<u8>> {
        let mut data = self.present_data(&self.step());
        data.truncate(PAGE as usize);
        Ok(data)
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.step().allocated.len() as u64 * PAGE)
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

    // The models do without a mirror: its words belong to the holder of a lock, and nobody reads them.

    fn create_live(&self) -> io::Result<()> {
        unreachable!("there is no mirror")
    }

    fn map_live(&self, _offset: u64, _len: u64) -> io::Result<Window> {
        unreachable!("there is no mirror")
    }

    fn remove_live(&self) -> io::Result<()> {
        Ok(())
    }

    fn file_id(&self, _file: File) -> io::Result<FileId> {
        unreachable!("there is no mirror")
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        Ok(None)
    }

    fn holding(&self) -> &Holding {
        &self.holding
    }

    fn unlock(&self) {
        let mut state = self.step();
        state.unlocks += 1;
        // A new owner may store anywhere.
        let end = state.data_len;
        for (_, cell) in state.grains.range(grains(0, end)) {
            cell.with_mut(|_| ());
        }
    }
}

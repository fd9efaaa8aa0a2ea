//! What the workloads are run on: rawdb through its C interface, its peers with regions, files, and
//! the limits. All are reached by static dispatch, so that only rawdb pays for crossing a boundary.

use std::ffi::{c_char, c_void, CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many regions of how many bytes a workload makes at most; only the limits need to know.
#[derive(Clone, Copy)]
pub struct Shape {
    pub regions: u64,
    pub capacity: u64,
}

pub trait Engine: Sync + 'static {
    type Region: Send + Sync;
    const NAME: &'static str;
    /// Whether `flush` makes anything durable.
    const SYNCS: bool = true;

    fn open(dir: &Path, shape: Shape) -> Self;
    fn create(&self, name: &str) -> Self::Region;
    /// One that is there.
    fn find(&self, name: &str) -> Self::Region {
        self.create(name)
    }
    /// `at` is the length of the region; not all engines want to hear it.
    fn append(region: &Self::Region, at: u64, bytes: &[u8]);
    fn overwrite(region: &Self::Region, at: u64, bytes: &[u8]);
    /// Values of 64 bytes, each at its offset: one after the other, unless there is a call for it.
    fn overwrite_batch(region: &Self::Region, offsets: &[u64], values: &[[u8; 64]]) {
        for (at, value) in offsets.iter().zip(values) {
            Self::overwrite(region, *at, value);
        }
    }
    fn view<T>(region: &Self::Region, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T;
    /// `changed` is the one region that may have changed, where that is known.
    fn flush(&self, changed: Option<&Self::Region>);
    fn compact(&self) {}
}

type RawDb = c_void;
type RawRegion = c_void;

#[repr(C)]
struct RawView {
    data: *const u8,
    len: usize,
    pin: *const c_void,
}

// As in include/rawdb.h.
extern "C" {
    fn rawdb_last_error() -> *const c_char;
    fn rawdb_open(path: *const c_char, options: *const c_void, db_out: *mut *mut RawDb) -> i32;
    fn rawdb_close(db: *mut RawDb) -> i32;
    fn rawdb_flush(db: *mut RawDb) -> i32;
    fn rawdb_compact(db: *mut RawDb, progress: *const c_void, context: *mut c_void) -> i32;
    fn rawdb_region_create(db: *mut RawDb, name: *const c_char, out: *mut *mut RawRegion) -> i32;
    fn rawdb_region_open(db: *mut RawDb, name: *const c_char, out: *mut *mut RawRegion) -> i32;
    fn rawdb_region_close(region: *mut RawRegion);
    fn rawdb_region_append(
        region: *mut RawRegion,
        data: *const u8,
        len: usize,
        offset_out: *mut u64,
    ) -> i32;
    fn rawdb_region_write_at(
        region: *mut RawRegion,
        offset: u64,
        data: *const u8,
        len: usize,
    ) -> i32;
    fn rawdb_region_write_batch(
        region: *mut RawRegion,
        offsets: *const u64,
        values: *const u8,
        value_len: usize,
        count: usize,
    ) -> i32;
    fn rawdb_region_view(region: *mut RawRegion, offset: u64, len: u64, out: *mut RawView) -> i32;
    fn rawdb_view_release(view: *mut RawView);
}

#[inline(always)]
fn check(status: i32) {
    if status != 0 {
        fail(status);
    }
}

#[cold]
fn fail(status: i32) -> ! {
    // SAFETY: the string is valid until the next failure on this thread.
    panic!("status {status}: {}", unsafe { CStr::from_ptr(rawdb_last_error()) }.to_string_lossy());
}

pub struct Rawdb(*mut RawDb);

pub struct RawdbRegion(*mut RawRegion);

// SAFETY: the header allows any number of threads on a database.
unsafe impl Send for Rawdb {}
// SAFETY: as above.
unsafe impl Sync for Rawdb {}
// SAFETY: as above, for a region.
unsafe impl Send for RawdbRegion {}
// SAFETY: as above, for a region.
unsafe impl Sync for RawdbRegion {}

impl Drop for Rawdb {
    fn drop(&mut self) {
        // SAFETY: it is open, and this is its last use.
        check(unsafe { rawdb_close(self.0) });
    }
}

impl Drop for RawdbRegion {
    fn drop(&mut self) {
        // SAFETY: it is open, and this is its last use.
        unsafe { rawdb_region_close(self.0) };
    }
}

impl Engine for Rawdb {
    type Region = RawdbRegion;
    const NAME: &'static str = "rawdb (C interface)";

    fn open(dir: &Path, _: Shape) -> Self {
        let path = CString::new(dir.to_str().unwrap()).unwrap();
        let mut db = ptr::null_mut();
        // SAFETY: a path that ends with NUL, no options, a place for the result.
        check(unsafe { rawdb_open(path.as_ptr(), ptr::null(), &mut db) });
        Rawdb(db)
    }

    fn create(&self, name: &str) -> RawdbRegion {
        let name = CString::new(name).unwrap();
        let mut region = ptr::null_mut();
        // SAFETY: an open database, a name that ends with NUL, a place for the result.
        check(unsafe { rawdb_region_create(self.0, name.as_ptr(), &mut region) });
        RawdbRegion(region)
    }

    fn find(&self, name: &str) -> RawdbRegion {
        let name = CString::new(name).unwrap();
        let mut region = ptr::null_mut();
        // SAFETY: an open database, a name that ends with NUL, a place for the result.
        check(unsafe { rawdb_region_open(self.0, name.as_ptr(), &mut region) });
        RawdbRegion(region)
    }

    #[inline(always)]
    fn append(region: &RawdbRegion, _: u64, bytes: &[u8]) {
        // SAFETY: an open region and bytes of that length.
        check(unsafe {
            rawdb_region_append(region.0, bytes.as_ptr(), bytes.len(), ptr::null_mut())
        });
    }

    #[inline(always)]
    fn overwrite(region: &RawdbRegion, at: u64, bytes: &[u8]) {
        // SAFETY: an open region and bytes of that length.
        check(unsafe { rawdb_region_write_at(region.0, at, bytes.as_ptr(), bytes.len()) });
    }

    fn overwrite_batch(region: &RawdbRegion, offsets: &[u64], values: &[[u8; 64]]) {
        assert_eq!(offsets.len(), values.len());
        // SAFETY: an open region, and as many offsets and values as that.
        check(unsafe {
            let values = values.as_ptr().cast();
            rawdb_region_write_batch(region.0, offsets.as_ptr(), values, 64, offsets.len())
        });
    }

    #[inline(always)]
    fn view<T>(region: &RawdbRegion, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        let mut view = RawView { data: ptr::null(), len: 0, pin: ptr::null() };
        // SAFETY: an open region and a place for the view.
        check(unsafe { rawdb_region_view(region.0, at, len as u64, &mut view) });
        // SAFETY: the view is not empty, and is released after the last use of its bytes.
        let result = read(unsafe { std::slice::from_raw_parts(view.data, view.len) });
        // SAFETY: a view that has been opened.
        unsafe { rawdb_view_release(&mut view) };
        result
    }

    fn flush(&self, _: Option<&RawdbRegion>) {
        // SAFETY: an open database.
        check(unsafe { rawdb_flush(self.0) });
    }

    fn compact(&self) {
        // SAFETY: an open database; no function to report progress to.
        check(unsafe { rawdb_compact(self.0, ptr::null(), ptr::null_mut()) });
    }
}

pub struct Rawdb05(rawdb_0_5::Database);

impl Engine for Rawdb05 {
    type Region = rawdb_0_5::Region;
    const NAME: &'static str = "rawdb 0.5.10";

    fn open(dir: &Path, _: Shape) -> Self {
        Rawdb05(rawdb_0_5::Database::open(dir).unwrap())
    }

    fn create(&self, name: &str) -> Self::Region {
        self.0.create_region_if_needed(name).unwrap()
    }

    fn find(&self, name: &str) -> Self::Region {
        self.0.get_region(name).unwrap()
    }

    #[inline(always)]
    fn append(region: &Self::Region, _: u64, bytes: &[u8]) {
        region.write(bytes).unwrap();
    }

    #[inline(always)]
    fn overwrite(region: &Self::Region, at: u64, bytes: &[u8]) {
        region.write_at(bytes, at as usize).unwrap();
    }

    fn overwrite_batch(region: &Self::Region, offsets: &[u64], values: &[[u8; 64]]) {
        let pairs = offsets.iter().map(|at| *at as usize).zip(values);
        region.batch_write_each(pairs, 64, |value, bytes| bytes.copy_from_slice(*value));
    }

    #[inline(always)]
    fn view<T>(region: &Self::Region, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        read(region.create_reader().read(at as usize, len))
    }

    fn flush(&self, _: Option<&Self::Region>) {
        self.0.flush().unwrap();
    }

    fn compact(&self) {
        self.0.compact().unwrap();
    }
}

/// `SCOPED`: views by `with_read_range`, which is faster than `create_reader`, but gives nothing
/// that could be kept.
pub struct Rawdb13<const SCOPED: bool>(rawdb_0_13::Database);

impl<const SCOPED: bool> Engine for Rawdb13<SCOPED> {
    type Region = rawdb_0_13::Region;
    const NAME: &'static str = if SCOPED { "rawdb 0.13.0, closure" } else { "rawdb 0.13.0" };
    const SYNCS: bool = false;

    fn open(dir: &Path, _: Shape) -> Self {
        Rawdb13(rawdb_0_13::Database::open(dir).unwrap())
    }

    fn create(&self, name: &str) -> Self::Region {
        self.0.create_region_if_needed(name).unwrap()
    }

    fn find(&self, name: &str) -> Self::Region {
        self.0.region(name).unwrap()
    }

    #[inline(always)]
    fn append(region: &Self::Region, at: u64, bytes: &[u8]) {
        region.write_at(bytes, at as usize).unwrap();
    }

    #[inline(always)]
    fn overwrite(region: &Self::Region, at: u64, bytes: &[u8]) {
        region.write_at(bytes, at as usize).unwrap();
    }

    #[inline(always)]
    fn view<T>(region: &Self::Region, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        if SCOPED {
            region.with_read_range(at as usize, len, read).unwrap()
        } else {
            read(region.create_reader().read(at as usize, len))
        }
    }

    fn flush(&self, _: Option<&Self::Region>) {
        self.0.flush();
    }

    fn compact(&self) {
        self.0.compact().unwrap();
    }
}

fn read_file<T>(file: &File, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    read(&bytes)
}

fn new_file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// One file for each region, appended to by `write`.
pub struct Files(std::path::PathBuf);

impl Engine for Files {
    type Region = File;
    const NAME: &'static str = "files, write";

    fn open(dir: &Path, _: Shape) -> Self {
        fs::create_dir_all(dir).unwrap();
        Files(dir.to_owned())
    }

    fn create(&self, name: &str) -> File {
        new_file(&self.0.join(name))
    }

    #[inline(always)]
    fn append(mut file: &File, _: u64, bytes: &[u8]) {
        file.write_all(bytes).unwrap();
    }

    #[inline(always)]
    fn overwrite(file: &File, at: u64, bytes: &[u8]) {
        file.write_all_at(bytes, at).unwrap();
    }

    fn view<T>(file: &File, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        read_file(file, at, len, read)
    }

    fn flush(&self, changed: Option<&File>) {
        changed.expect("files are synced one by one").sync_data().unwrap();
    }
}

fn allocate(file: &File, len: u64) {
    // SAFETY: an open file.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as i64) };
    assert_eq!(result, 0, "fallocate: {}", std::io::Error::last_os_error());
}

/// `pwrite` into one file whose blocks are there.
pub struct Pwrite(File);

impl Engine for Pwrite {
    type Region = File;
    const NAME: &'static str = "limit: pwrite, allocated";

    fn open(dir: &Path, shape: Shape) -> Self {
        assert_eq!(shape.regions, 1);
        fs::create_dir_all(dir).unwrap();
        let file = new_file(&dir.join("data"));
        allocate(&file, shape.capacity);
        Pwrite(file)
    }

    fn create(&self, _: &str) -> File {
        self.0.try_clone().unwrap()
    }

    #[inline(always)]
    fn append(file: &File, at: u64, bytes: &[u8]) {
        file.write_all_at(bytes, at).unwrap();
    }

    #[inline(always)]
    fn overwrite(file: &File, at: u64, bytes: &[u8]) {
        file.write_all_at(bytes, at).unwrap();
    }

    fn view<T>(file: &File, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        read_file(file, at, len, read)
    }

    fn flush(&self, _: Option<&File>) {
        self.0.sync_data().unwrap();
    }
}

/// Stores into a mapping of one file whose blocks are there, and if `POPULATED` whose pages are
/// mapped for writing as well. What it cannot have: a length, a second view of things, growth.
pub struct Limit<const POPULATED: bool> {
    base: *mut u8,
    shape: Shape,
    created: AtomicU64,
    file: File,
}

pub struct LimitRegion(*mut u8);

// SAFETY: the mapping is shared memory; the workloads give each thread a region of its own.
unsafe impl<const POPULATED: bool> Send for Limit<POPULATED> {}
// SAFETY: as above.
unsafe impl<const POPULATED: bool> Sync for Limit<POPULATED> {}
// SAFETY: as above.
unsafe impl Send for LimitRegion {}
// SAFETY: as above.
unsafe impl Sync for LimitRegion {}

impl<const POPULATED: bool> Drop for Limit<POPULATED> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; workloads drop regions first.
        unsafe {
            libc::munmap(self.base.cast(), (self.shape.regions * self.shape.capacity) as usize)
        };
    }
}

impl<const POPULATED: bool> Engine for Limit<POPULATED> {
    type Region = LimitRegion;
    const NAME: &'static str =
        if POPULATED { "limit: stores, populated" } else { "limit: stores, allocated" };

    fn open(dir: &Path, shape: Shape) -> Self {
        fs::create_dir_all(dir).unwrap();
        let file = new_file(&dir.join("data"));
        let len = shape.regions * shape.capacity;
        allocate(&file, len);
        // SAFETY: a new mapping of a file that is that long.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | if POPULATED { libc::MAP_POPULATE } else { 0 },
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Limit { base: base.cast(), shape, created: AtomicU64::new(0), file }
    }

    fn create(&self, _: &str) -> LimitRegion {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        assert!(number < self.shape.regions);
        // SAFETY: within the mapping, as just seen.
        LimitRegion(unsafe { self.base.add((number * self.shape.capacity) as usize) })
    }

    #[inline(always)]
    fn append(region: &LimitRegion, at: u64, bytes: &[u8]) {
        // SAFETY: workloads keep to the shape that they have given.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), region.0.add(at as usize), bytes.len()) };
    }

    #[inline(always)]
    fn overwrite(region: &LimitRegion, at: u64, bytes: &[u8]) {
        Self::append(region, at, bytes);
    }

    #[inline(always)]
    fn view<T>(region: &LimitRegion, at: u64, len: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: as above; nothing is written while it is read.
        read(unsafe { std::slice::from_raw_parts(region.0.add(at as usize), len) })
    }

    fn flush(&self, _: Option<&LimitRegion>) {
        self.file.sync_data().unwrap();
    }
}

//! The conventions of the interface: NULL, outputs, sizes of structs, the last error, panics.

use std::ffi::{c_char, c_void, CStr, CString};
use std::mem::{offset_of, zeroed};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{dangling_mut, null, null_mut};

use super::database::*;
use super::library::*;
use super::names::*;
use super::region::*;
use super::status::*;
use super::view::*;
use super::Growable;

fn text<'a>(ptr: *const c_char) -> &'a str {
    // SAFETY: the library gives strings that end with NUL; tests look at them at once.
    unsafe { CStr::from_ptr(ptr) }.to_str().unwrap()
}

fn last_error<'a>() -> &'a str {
    text(rawdb_last_error())
}

fn init<T: Growable>() -> T {
    // SAFETY: zeros are a value of every `Growable`, which begins with its size.
    unsafe {
        let mut value: T = zeroed();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn open(path: &Path, options: *const rawdb_options) -> (rawdb_status, *mut rawdb) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut db = dangling_mut();
    // SAFETY: all pointers are valid.
    let status = unsafe { rawdb_open(path.as_ptr(), options, &mut db) };
    (status, db)
}

/// A database with one region in it.
struct Fixture {
    dir: tempfile::TempDir,
    db: *mut rawdb,
    region: *mut rawdb_region,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let (status, db) = open(&dir.path().join("db"), null());
        assert_eq!(status, RAWDB_OK, "{}", last_error());
        let mut region = null_mut();
        // SAFETY: all pointers are valid.
        unsafe {
            assert_eq!(rawdb_region_create(db, c"region".as_ptr(), &mut region), RAWDB_OK);
            assert_eq!(rawdb_region_append(region, c"12345".as_ptr().cast(), 5, null_mut()), 0);
        }
        Fixture { dir, db, region }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: both are open, and this is the last use of them.
        unsafe {
            rawdb_region_close(self.region);
            assert_eq!(rawdb_close(self.db), RAWDB_OK);
        }
    }
}

#[test]
fn every_status_has_a_name_and_a_message() {
    for status in RAWDB_E_PANIC..=RAWDB_DONE {
        assert!(text(rawdb_status_name(status)).starts_with("RAWDB_"), "{status}");
        assert_ne!(text(rawdb_status_name(status)), "RAWDB_E_UNKNOWN", "{status}");
        assert_ne!(text(rawdb_status_message(status)), "unknown status", "{status}");
    }
    for status in [RAWDB_E_PANIC - 1, RAWDB_DONE + 1, i32::MIN, i32::MAX] {
        assert_eq!(text(rawdb_status_name(status)), "RAWDB_E_UNKNOWN");
        assert_eq!(text(rawdb_status_message(status)), "unknown status");
    }
    assert_eq!(text(rawdb_status_name(RAWDB_E_NOT_FOUND)), "RAWDB_E_NOT_FOUND");
}

#[test]
fn version_is_that_of_the_crate() {
    assert_eq!(text(rawdb_version_string()), env!("CARGO_PKG_VERSION"));
    let number = rawdb_version_number();
    let string = format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
    assert_eq!(string, env!("CARGO_PKG_VERSION"));
}

#[test]
fn last_error_is_the_last_failure_of_its_thread() {
    let fixture = Fixture::new();
    let (dir, db) = (fixture.dir.path(), fixture.db);
    // Whatever the harness ran on this thread before: here is a new one.
    std::thread::scope(|threads| {
        threads.spawn(|| {
            assert_eq!((last_error(), rawdb_last_os_error()), ("", 0));

            let (status, _) = open(&dir.join("missing/db"), null());
            assert_eq!((status, rawdb_last_os_error()), (RAWDB_E_NOT_FOUND, libc::ENOENT));
            assert!(last_error().contains("missing/db"), "{}", last_error());
            let first = last_error().to_owned();

            let (status, other) = open(&dir.join("other"), null());
            assert_eq!(status, RAWDB_OK);
            // SAFETY: `other` is open, and this is the last use of it.
            assert_eq!(unsafe { rawdb_close(other) }, RAWDB_OK);
            assert_eq!((last_error(), rawdb_last_os_error()), (&*first, libc::ENOENT));

            // SAFETY: NULL is allowed to be passed.
            assert_eq!(unsafe { rawdb_flush(null_mut()) }, RAWDB_E_INVALID_ARGUMENT);
            assert_eq!((last_error(), rawdb_last_os_error()), ("db is NULL", 0));
        });
    });
    let mut region = null_mut();
    // SAFETY: all pointers are valid.
    let status = unsafe { rawdb_region_open(db, c"nobody".as_ptr(), &mut region) };
    assert_eq!(status, RAWDB_E_NOT_FOUND);
    assert!(last_error().contains("nobody"), "{}", last_error());
}

#[test]
fn panic_becomes_a_status() {
    assert_eq!(call(|| panic!("boom {}", 1)), RAWDB_E_PANIC);
    assert_eq!(last_error(), "panic in the library: boom 1");
    assert_eq!(call_or(7, || panic!("boom\0")), 7);
    assert_eq!(last_error(), "panic in the library: boom\\0");
    assert_eq!(call(|| std::panic::panic_any(1)), RAWDB_E_PANIC);
    assert_eq!(last_error(), "panic in the library: no message");
}

/// A panic in the middle of a change, which is caught: nothing is changed any more, what is out can be
/// looked at and given back, and closing says that it has not flushed.
#[cfg(feature = "simulation")]
#[test]
fn panic_stops_the_database() {
    use crate::storage::simulation::{Panic, Simulation};
    use crate::{Database, Options};
    let disk = Simulation::empty();
    let open = || Database::open_storage(disk.clone(), &Options::default()).unwrap();
    let db = Box::into_raw(Box::new(rawdb { database: open() }));
    let [mut region, mut other] = [null_mut(); 2];
    let mut room = null_mut();
    // SAFETY: all pointers are valid.
    unsafe {
        let mut view = zeroed();
        assert_eq!(rawdb_region_create(db, c"region".as_ptr(), &mut region), RAWDB_OK);
        assert_eq!(rawdb_region_create(db, c"other".as_ptr(), &mut other), RAWDB_OK);
        assert_eq!(rawdb_region_append(region, c"12345".as_ptr().cast(), 5, null_mut()), 0);
        assert_eq!(rawdb_flush(db), RAWDB_OK);
        assert_eq!(rawdb_region_append(region, c"6".as_ptr().cast(), 1, null_mut()), 0);
        assert_eq!(rawdb_region_view(region, 0, RAWDB_TO_END, &mut view), RAWDB_OK);
        assert_eq!(rawdb_region_append_begin(other, 100, &mut room), RAWDB_OK);

        // As the view is in the way the region moves, and is recorded at its new place first.
        disk.inject_panic(Some(Panic { step: u64::MAX, done: true }));
        assert_eq!(rawdb_region_write_at(region, 0, c"abc".as_ptr().cast(), 3), RAWDB_OK);
        let last = disk.calls() - 1;
        rawdb_view_release(&mut view);
        assert_eq!(rawdb_region_view(region, 0, RAWDB_TO_END, &mut view), RAWDB_OK);
        disk.inject_panic(Some(Panic { step: last, done: true }));
        assert_eq!(rawdb_region_write_at(region, 0, c"xyz".as_ptr().cast(), 3), RAWDB_E_PANIC);
        assert!(last_error().starts_with("panic in the library: "), "{}", last_error());

        let statuses = [
            rawdb_region_append(region, c"7".as_ptr().cast(), 1, null_mut()),
            rawdb_region_append(other, c"7".as_ptr().cast(), 1, null_mut()),
            rawdb_region_append_end(other, 50),
            rawdb_remove(db, c"region".as_ptr()),
            rawdb_compact(db, None, null_mut()),
            rawdb_flush(db),
            rawdb_region_flush(region),
        ];
        assert_eq!(statuses, [RAWDB_E_PANIC; 7]);
        assert!(last_error().contains("a defect in the library"), "{}", last_error());
        let text = std::slice::from_raw_parts(view.data.cast::<u8>(), view.len);
        assert_eq!(text, b"abc456");
        rawdb_view_release(&mut view);
        assert_eq!(rawdb_region_view(region, 0, RAWDB_TO_END, &mut view), RAWDB_OK);
        rawdb_view_release(&mut view);

        assert_eq!(rawdb_close(db), RAWDB_E_PANIC);
        assert!(!disk.is_unlocked(), "an append is open");
        rawdb_region_close(other);
        assert!(disk.is_unlocked());
        assert_eq!(rawdb_region_len(region), 0);
        rawdb_region_close(region);
    }
    let view = open().region("region").unwrap().view(0, u64::MAX).unwrap();
    assert!(view.len() == 5 && view.ends_with(b"45"), "what was flushed");
}

#[test]
fn null_is_an_invalid_argument_and_outputs_are_set() {
    let Fixture { db, region, .. } = &Fixture::new();
    let (db, region) = (*db, *region);
    let name = c"region".as_ptr();
    let byte = c"1".as_ptr().cast::<c_void>();
    // SAFETY: every pointer is valid or NULL, which is what this is about.
    unsafe {
        macro_rules! refused {
            ($($call:expr,)*) => {
                $(
                    assert_eq!($call, RAWDB_E_INVALID_ARGUMENT, stringify!($call));
                    assert!(last_error().contains("NULL"), "{}", last_error());
                )*
            };
        }
        refused! {
            rawdb_open(name, null(), null_mut()),
            rawdb_flush(null_mut()),
            rawdb_compact(null_mut(), None, null_mut()),
            rawdb_reserve_file(null_mut(), 1),
            rawdb_reserve_regions(null_mut(), 1),
            rawdb_get_stats(db, null_mut()),
            rawdb_remove(null_mut(), name),
            rawdb_remove(db, null()),
            rawdb_rename(null_mut(), name, name, 0),
            rawdb_rename(db, null(), name, 0),
            rawdb_rename(db, name, null(), 0),
            rawdb_retain(null_mut(), null(), 0),
            rawdb_retain(db, null(), 1),
            rawdb_retain(db, [name, null()].as_ptr(), 2),
            rawdb_list(db, null_mut()),
            rawdb_region_create(db, name, null_mut()),
            rawdb_region_open(db, name, null_mut()),
            rawdb_region_append(region, null(), 1, null_mut()),
            rawdb_region_write_at(null_mut(), 0, byte, 1),
            rawdb_region_write_at(region, 0, null(), 1),
            rawdb_region_write_batch(null_mut(), [0].as_ptr(), byte, 1, 1),
            rawdb_region_write_batch(region, null(), byte, 1, 1),
            rawdb_region_write_batch(region, [0].as_ptr(), null(), 1, 1),
            rawdb_region_truncate(null_mut(), 0),
            rawdb_region_truncate_write(null_mut(), 0, byte, 1),
            rawdb_region_truncate_write(region, 0, null(), 1),
            rawdb_region_append_begin(region, 1, null_mut()),
            rawdb_region_append_end(null_mut(), 0),
            rawdb_region_reserve(null_mut(), 1),
            rawdb_region_read(null_mut(), 0, null_mut(), 0),
            rawdb_region_read(region, 0, null_mut(), 1),
            rawdb_region_view(region, 0, 0, null_mut()),
            rawdb_region_get_info(region, null_mut()),
            rawdb_region_flush(null_mut()),
        }

        let mut db_out = dangling_mut();
        let mut iter = dangling_mut();
        let mut offset = 7;
        let mut buffer = dangling_mut();
        let mut bytes = [7_u8; 2];
        let mut view = rawdb_view { data: dangling_mut(), len: 7, pin_: dangling_mut() };
        refused! {
            rawdb_open(null(), null(), &mut db_out),
            rawdb_list(null_mut(), &mut iter),
            rawdb_region_append(null_mut(), byte, 1, &mut offset),
            rawdb_region_append_begin(null_mut(), 1, &mut buffer),
            rawdb_region_read(null_mut(), 0, (&raw mut bytes).cast(), 2),
            rawdb_region_view(null_mut(), 0, 0, &mut view),
        }
        assert!(db_out.is_null() && iter.is_null() && buffer.is_null());
        assert_eq!((offset, bytes), (0, [0, 0]));
        assert!(view.data.is_null() && view.len == 0 && view.pin_.is_null());
        for create in [rawdb_region_create, rawdb_region_open] {
            for (db, name) in [(null_mut(), name), (db, null())] {
                let mut region_out = dangling_mut();
                refused! { create(db, name, &mut region_out), }
                assert!(region_out.is_null());
            }
        }

        let mut name_out = dangling_mut::<c_char>().cast_const();
        let mut info = rawdb_region_info { len: 7, ..init() };
        refused! { rawdb_region_iter_next(null_mut(), &mut name_out, &mut info), }
        assert!(name_out.is_null() && info.len == 0);
        info.len = 7;
        refused! { rawdb_region_get_info(null(), &mut info), }
        assert_eq!((info.len, info.struct_size), (0, size_of::<rawdb_region_info>()));
        let mut stats = rawdb_stats { generation: 7, ..init() };
        refused! { rawdb_get_stats(null_mut(), &mut stats), }
        assert_eq!(stats.generation, 0);

        assert_eq!(rawdb_close(null_mut()), RAWDB_OK);
        rawdb_region_close(null_mut());
        rawdb_region_iter_free(null_mut());
        rawdb_view_release(null_mut());
        assert_eq!(rawdb_region_len(null()), 0);
        let mut cut = [7 as c_char; 2];
        assert_eq!(rawdb_region_name(null(), cut.as_mut_ptr(), 2), 0);
        assert_eq!(cut[0], 0);
    }
}

#[test]
fn empty_buffers_may_be_null_and_impossible_ones_are_refused() {
    let Fixture { region, .. } = &Fixture::new();
    let region = *region;
    // Too large for the size of an object, too large for a size at all.
    let (large, huge) = (isize::MAX as usize + 1, usize::MAX);
    let mut offset = 7;
    // SAFETY: every pointer is valid for what is looked at; the impossible lengths must not be.
    unsafe {
        let byte = (&raw mut offset).cast::<c_void>();
        assert_eq!(rawdb_region_append(region, null(), 0, &mut offset), RAWDB_OK);
        assert_eq!(offset, 5);
        assert_eq!(rawdb_region_write_at(region, 5, null(), 0), RAWDB_OK);
        assert_eq!(rawdb_region_write_batch(region, null(), null(), 8, 0), RAWDB_OK);
        assert_eq!(rawdb_region_read(region, 5, null_mut(), 0), RAWDB_OK);
        assert_eq!(rawdb_region_truncate_write(region, 5, null(), 0), RAWDB_OK);
        assert_eq!(rawdb_region_len(region), 5);
        for len in [large, huge] {
            let refused = [
                rawdb_region_append(region, byte, len, null_mut()),
                rawdb_region_write_at(region, 0, byte, len),
                rawdb_region_truncate_write(region, 0, byte, len),
                rawdb_region_read(region, 0, byte, len),
                rawdb_region_write_batch(region, [0, 0].as_ptr(), byte, len / 2 + 1, 2),
                rawdb_region_write_batch(region, byte.cast(), byte, 0, len),
            ];
            assert_eq!(refused, [RAWDB_E_INVALID_ARGUMENT; 6]);
        }
        assert_eq!(rawdb_region_len(region), 5);
    }
}

#[test]
fn options_of_other_versions_are_taken_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");

    #[repr(C)]
    struct Newer {
        options: rawdb_options,
        more: u64,
    }
    let newer = |size, more| {
        let mut newer = Newer { options: init(), more };
        newer.options.struct_size = size;
        newer
    };
    let full = size_of::<rawdb_options>();
    for (size, more, expected) in [
        (full, 7, RAWDB_OK),
        (full + 8, 0, RAWDB_OK),
        (full + 8, 7, RAWDB_E_INVALID_ARGUMENT),
        (0, 0, RAWDB_E_INVALID_ARGUMENT),
        (15, 0, RAWDB_E_INVALID_ARGUMENT),
        (16, 0, RAWDB_OK),
        (usize::MAX, 0, RAWDB_E_INVALID_ARGUMENT),
    ] {
        let (status, db) = open(&path, &newer(size, more).options);
        assert_eq!(status, expected, "struct_size {size}: {}", last_error());
        assert_eq!(db.is_null(), status != RAWDB_OK);
        // SAFETY: open or NULL, and this is the last use of it.
        assert_eq!(unsafe { rawdb_close(db) }, RAWDB_OK);
    }
    open(&path, &newer(0, 0).options);
    assert!(last_error().contains("RAWDB_OPTIONS_INIT"), "{}", last_error());

    // What lies behind a shorter struct is not looked at.
    let mut short: rawdb_options = init();
    short.struct_size = offset_of!(rawdb_options, max_address_space);
    short.reclaim_threshold = u64::MAX;
    // SAFETY: valid for struct_size bytes.
    let read = unsafe { super::read_struct(&short, "options") }.unwrap();
    assert_eq!((read.max_address_space, read.reclaim_threshold), (0, 0));

    for (flags, reserved) in [
        (1 << 31, 0),
        (RAWDB_OPEN_CREATE_NEW | RAWDB_OPEN_NO_CREATE, 0),
        (RAWDB_OPEN_CREATE_NEW | RAWDB_OPEN_READ_ONLY, 0),
        (0, 1),
    ] {
        let options = rawdb_options { flags, reserved, ..init() };
        let (status, _) = open(&path, &options);
        assert_eq!(status, RAWDB_E_INVALID_ARGUMENT, "{flags:#x} {reserved}");
    }
    let options = rawdb_options { flags: RAWDB_OPEN_CREATE_NEW, ..init() };
    assert_eq!(open(&path, &options).0, RAWDB_E_ALREADY_EXISTS);
}

#[test]
fn output_structs_of_other_versions_are_filled_as_far_as_they_go() {
    #[repr(C)]
    struct Newer {
        stats: rawdb_stats,
        more: u64,
    }
    let Fixture { db, .. } = &Fixture::new();
    let full = size_of::<rawdb_stats>();
    let fill = |size| {
        let stats = rawdb_stats { struct_size: size, generation: 99, ..init() };
        let mut newer = Newer { stats, more: 99 };
        // SAFETY: valid for struct_size bytes where that is not refused.
        let status = unsafe { rawdb_get_stats(*db, (&raw mut newer).cast()) };
        assert_eq!(newer.stats.struct_size, size);
        (status, newer.stats.region_count, newer.stats.generation, newer.more)
    };
    let (status, regions, generation, more) = fill(full);
    assert_eq!((status, regions, more), (RAWDB_OK, 1, 99));
    assert_ne!(generation, 99);
    assert_eq!(fill(full + 8), (RAWDB_OK, 1, generation, 0));
    assert_eq!(fill(full - 8), (RAWDB_OK, 1, 99, 99));
    for size in [0, 15, 5000] {
        assert_eq!(fill(size), (RAWDB_E_INVALID_ARGUMENT, 0, 99, 99), "{size}");
        assert!(last_error().contains("RAWDB_STATS_INIT"), "{}", last_error());
    }
}

#[test]
fn names_are_checked_and_flags_too() {
    let Fixture { db, .. } = &Fixture::new();
    // SAFETY: all pointers are valid.
    unsafe {
        assert_eq!(rawdb_remove(*db, c"\xff".as_ptr()), RAWDB_E_INVALID_NAME);
        assert!(last_error().contains("\\xff"), "{}", last_error());
        let names = [c"region".as_ptr(), c"\xff".as_ptr()];
        assert_eq!(rawdb_retain(*db, names.as_ptr(), 2), RAWDB_E_INVALID_NAME);
        let (from, to) = (c"region".as_ptr(), c"to".as_ptr());
        assert_eq!(rawdb_rename(*db, from, to, 2), RAWDB_E_INVALID_ARGUMENT);
        assert_eq!(rawdb_rename(*db, from, to, RAWDB_RENAME_REPLACE), RAWDB_OK);
    }
}

#[test]
fn name_is_cut_as_by_snprintf() {
    let Fixture { region, .. } = &Fixture::new();
    for (capacity, expected) in [(0, "xxxxxxx"), (1, ""), (4, "reg"), (7, "region"), (9, "region")]
    {
        let mut buffer = *b"xxxxxxx\0xx";
        // SAFETY: the buffer has ten bytes.
        let len = unsafe { rawdb_region_name(*region, buffer.as_mut_ptr().cast(), capacity) };
        assert_eq!((len, text(buffer.as_ptr().cast())), (6, expected));
    }
    // SAFETY: NULL is allowed to be passed.
    assert_eq!(unsafe { rawdb_region_name(*region, null_mut(), 0) }, 6);
}

#[test]
fn iterator_goes_through_a_snapshot() {
    let Fixture { db, .. } = &Fixture::new();
    let mut iter = null_mut();
    let mut name = null();
    let mut info: rawdb_region_info = init();
    // SAFETY: all pointers are valid.
    unsafe {
        assert_eq!(rawdb_list(*db, &mut iter), RAWDB_OK);
        assert_eq!(rawdb_retain(*db, null(), 0), RAWDB_OK);
        assert_eq!(rawdb_region_iter_next(iter, null_mut(), &mut info), RAWDB_E_INVALID_ARGUMENT);
        assert_eq!(rawdb_region_iter_next(iter, &mut name, &mut info), RAWDB_OK);
        let first = name;
        assert_eq!((text(first), info.len), ("region", 5));
        for _ in 0..2 {
            assert_eq!(rawdb_region_iter_next(iter, &mut name, &mut info), RAWDB_DONE);
            assert!(name.is_null());
            assert_eq!((info.struct_size, info.len), (size_of::<rawdb_region_info>(), 0));
        }
        assert_eq!(text(first), "region");
        rawdb_region_iter_free(iter);
    }
}

#[test]
fn append_is_open_from_begin_to_a_successful_end() {
    let Fixture { db, region, .. } = &Fixture::new();
    let region = *region;
    let mut buffer = null_mut();
    let mut other = null_mut();
    // SAFETY: all pointers are valid, and the room for as long as the append is open.
    unsafe {
        assert_eq!(rawdb_region_append_end(region, 0), RAWDB_E_INVALID_ARGUMENT);
        assert_eq!(rawdb_region_append_begin(region, 8, &mut buffer), RAWDB_OK);
        buffer.cast::<u8>().write_bytes(b'6', 8);

        assert_eq!(rawdb_region_open(*db, c"region".as_ptr(), &mut other), RAWDB_OK);
        for handle in [region, other] {
            let mut none = dangling_mut();
            assert_eq!(rawdb_region_append_begin(handle, 1, &mut none), RAWDB_E_BUSY);
            assert!(none.is_null());
        }
        assert_eq!(rawdb_region_append_end(other, 0), RAWDB_E_INVALID_ARGUMENT);
        assert_eq!(rawdb_region_append_end(region, 9), RAWDB_E_OUT_OF_BOUNDS);
        assert_eq!(rawdb_region_append(region, buffer, 1, null_mut()), RAWDB_E_BUSY);
        assert_eq!(rawdb_region_append_end(region, 2), RAWDB_OK);
        assert_eq!(rawdb_region_append_end(region, 2), RAWDB_E_INVALID_ARGUMENT);

        // Closing the handle abandons its append.
        assert_eq!(rawdb_region_append_begin(other, 8, &mut buffer), RAWDB_OK);
        rawdb_region_close(other);
        assert_eq!(rawdb_region_append(region, c"8".as_ptr().cast(), 1, null_mut()), RAWDB_OK);
        let mut bytes = [0_u8; 8];
        assert_eq!(rawdb_region_read(region, 0, (&raw mut bytes).cast(), 8), RAWDB_OK);
        assert_eq!(&bytes, b"12345668");
    }
}

#[test]
fn view_outlives_everything_and_is_released_once() {
    let fixture = Fixture::new();
    let mut view = rawdb_view { data: null(), len: 0, pin_: null() };
    // SAFETY: all pointers are valid; the view is released after its last use.
    unsafe {
        assert_eq!(rawdb_region_view(fixture.region, 1, RAWDB_TO_END, &mut view), RAWDB_OK);
        assert_eq!(rawdb_remove(fixture.db, c"region".as_ptr()), RAWDB_OK);
        let mut none = rawdb_view { data: null(), len: 0, pin_: null() };
        assert_eq!(rawdb_region_view(fixture.region, 0, 0, &mut none), RAWDB_E_REMOVED);
        drop(fixture);
        assert_eq!(std::slice::from_raw_parts(view.data, view.len), b"2345");
        for _ in 0..2 {
            rawdb_view_release(&mut view);
            assert!(view.data.is_null() && view.len == 0 && view.pin_.is_null());
        }
    }
}

#[test]
fn read_that_fails_leaves_zeros() {
    let Fixture { region, .. } = &Fixture::new();
    let mut bytes = [7_u8; 8];
    // SAFETY: all pointers are valid.
    let status = unsafe { rawdb_region_read(*region, 0, (&raw mut bytes).cast(), 8) };
    assert_eq!((status, bytes), (RAWDB_E_OUT_OF_BOUNDS, [0; 8]));
}

#[test]
fn callback_can_stop_the_work() {
    /// Counts the calls, and stops at the first.
    unsafe extern "C" fn stop(context: *mut c_void, done: u64, total: u64) -> i32 {
        assert!(done <= total);
        // SAFETY: the test passes its counter.
        unsafe { *context.cast::<u32>() += 1 };
        1
    }
    let Fixture { db, .. } = &Fixture::new();
    let mut calls = 0_u32;
    // SAFETY: all pointers are valid.
    unsafe {
        // Something to give back to the file system.
        assert_eq!(rawdb_remove(*db, c"region".as_ptr()), RAWDB_OK);
        let status = rawdb_compact(*db, Some(stop), (&raw mut calls).cast());
        assert_eq!((status, calls), (RAWDB_E_CANCELLED, 1));
        assert_eq!(rawdb_compact(*db, None, null_mut()), RAWDB_OK);
    }
}

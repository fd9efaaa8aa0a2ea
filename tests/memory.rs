//! How much memory regions take that nobody has asked for. In a process of its own, as it counts what
//! is allocated by whomever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rawdb::Database;

struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REGIONS: usize = 5_000;
/// So many of them have room behind their bytes.
const WITH_ROOM: u64 = 500;

/// What `work` needs at most, and leaves, in bytes for each region.
fn per_region(work: impl FnOnce()) -> (usize, usize) {
    let before = USED.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    let (most, after) = (MOST.load(Ordering::Relaxed), USED.load(Ordering::Relaxed));
    (most.saturating_sub(before) / REGIONS, after.saturating_sub(before) / REGIONS)
}

#[test]
fn regions_that_nobody_asks_for_are_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    db.reserve_regions(REGIONS as u64).unwrap();
    for number in 0..REGIONS as u64 {
        let region = db.create_region_if_needed(&format!("region {number}")).unwrap();
        if number < WITH_ROOM {
            // A place of 16 KiB, of which the last page is not needed.
            region.write(&[1; 9000]).unwrap();
        }
    }
    db.close().unwrap();

    let mut db = None;
    let opening = per_region(|| db = Some(Database::open(dir.path()).unwrap()));
    let db = db.unwrap();
    let before = db.stats().unwrap();
    let compacting = per_region(|| db.compact().unwrap());
    println!("bytes per region, at most and then: opening {opening:?}, compacting {compacting:?}");
    assert!(opening.1 < 120, "{opening:?}");
    assert!(compacting.0 < 16 && compacting.1 == 0, "{compacting:?}");
    let after = db.stats().unwrap();
    let given_back = before.disk_bytes - after.disk_bytes;
    assert!(given_back >= WITH_ROOM * 4096, "{given_back} bytes");
    for number in 0..WITH_ROOM {
        let region = db.region(&format!("region {number}")).unwrap();
        assert!(*region.view(0, u64::MAX).unwrap() == [1; 9000]);
    }
    db.close().unwrap();
}

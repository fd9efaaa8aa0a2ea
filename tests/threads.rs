//! Everything at once: appenders, overwriters, viewers, flushers, compacters, and regions that
//! come and go.
//!
//! A record says by itself which one it is and whether it is whole, so any reader can judge what
//! it sees. `RAWDB_SEED` repeats the choices, though not the interleaving.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rawdb::{Database, ErrorKind, Options, Region, Result, View};

mod seed;

const RECORD: usize = 64;
const LOGS: u64 = 3;
/// A log that has grown so far is replaced by a new one.
const LOG_LEN: u64 = 4 << 20;
/// Enough for tens of thousands of meetings on two cores.
const DURATION: Duration = Duration::from_secs(6);

fn record(number: u64, version: u8) -> [u8; RECORD] {
    let mut record = [version; RECORD];
    record[..8].copy_from_slice(&number.to_le_bytes());
    record
}

/// Whole records, numbered from `first` on: an overwrite is seen whole or not at all.
fn check(bytes: &[u8], first: u64) {
    assert_eq!(bytes.len() % RECORD, 0);
    for (record, number) in bytes.chunks_exact(RECORD).zip(first..) {
        assert_eq!(record[..8], number.to_le_bytes());
        assert!(record[8..].iter().all(|&byte| byte == record[8]), "record {number} is torn");
    }
}

/// What a thread does over and over.
type Work<'a> = Box<dyn FnMut(&mut fastrand::Rng) + Send + 'a>;

/// Another thread may replace a region between two calls.
fn unless_removed<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| assert_eq!(error.kind(), ErrorKind::Removed, "{error}")).ok()
}

fn log(db: &Database, number: u64) -> Region {
    db.region(&format!("log {number}")).unwrap()
}

fn append(db: &Database, number: u64, rng: &mut fastrand::Rng) {
    let region = log(db, number);
    let next = region.len() / RECORD as u64;
    if next * RECORD as u64 >= LOG_LEN {
        // Anyone finds the old log or the new one, never none.
        let aside = db.create_region_if_needed(&format!("aside {number}")).unwrap();
        aside.write(&record(0, 1)).unwrap();
        return db.rename(&format!("aside {number}"), &format!("log {number}"), true).unwrap();
    }
    let count = if rng.u32(..50) == 0 { rng.u64(1..3_000) } else { rng.u64(1..4) };
    let bytes: Vec<u8> = (next..next + count).flat_map(|number| record(number, 0)).collect();
    if rng.bool() {
        assert_eq!(region.write(&bytes).unwrap(), next * RECORD as u64);
    } else {
        // Overwriters get `Busy` meanwhile.
        let mut buffer = region.append_begin(bytes.len()).unwrap();
        buffer.copy_from_slice(&bytes);
        buffer.end(bytes.len()).unwrap();
    }
}

fn overwrite(db: &Database, rng: &mut fastrand::Rng) {
    let region = log(db, rng.u64(..LOGS));
    let records = region.len() / RECORD as u64;
    if records == 0 {
        return;
    }
    let numbers = [rng.u64(..records), rng.u64(..records)];
    let version = rng.u8(..);
    let values: Vec<u8> = numbers.iter().flat_map(|&number| record(number, version)).collect();
    let offsets = numbers.map(|number| number * RECORD as u64);
    let result = if rng.bool() {
        region.write_batch(&offsets, &values, RECORD)
    } else {
        region.write_at(&values[..RECORD], offsets[0])
    };
    if let Err(error) = result {
        assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Removed), "{error}");
    }
}

/// Opens views and looks at them twice, some time apart.
fn view(db: &Database, held: &mut Vec<(View, Vec<u8>, u64)>, rng: &mut fastrand::Rng) {
    let region = log(db, rng.u64(..LOGS));
    let records = region.len() / RECORD as u64;
    let first = rng.u64(..=records);
    let count = rng.u64(..=(records - first).min(500));
    if let Some(view) = unless_removed(region.view(first * RECORD as u64, count * RECORD as u64)) {
        check(&view, first);
        let copy = view.to_vec();
        held.push((view, copy, first));
    }
    if held.len() > 20 {
        let (view, copy, first) = held.swap_remove(rng.usize(..20));
        assert!(*view == copy[..], "a view changed");
        check(&view, first);
    }
}

/// A region of this thread's own comes, is filled, shortened, renamed, and goes.
fn come_and_go(db: &Database, thread: u64, rng: &mut fastrand::Rng) {
    let (name, other) = (format!("own {thread}"), format!("own {thread} renamed"));
    let region = db.create_region_if_needed(&name).unwrap();
    let records = rng.u64(1..2_000);
    let bytes: Vec<u8> = (0..records).flat_map(|number| record(number, 3)).collect();
    region.write(&bytes).unwrap();
    let view = region.view(0, u64::MAX).unwrap();
    region.truncate(records / 2 * RECORD as u64).unwrap();
    region.write(&bytes).unwrap();
    db.rename(&name, &other, true).unwrap();
    assert_eq!(region.name(), other);
    db.remove(&other).unwrap();
    assert_eq!(region.write(b"x").unwrap_err().kind(), ErrorKind::Removed);
    check(&view, 0);
}

fn run(guarded: bool) {
    let seed = seed::seed();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { guarded, reclaim_threshold: 64 << 10, ..Options::default() };
    let db = Database::open_with(dir.path(), &options).unwrap();
    for number in 0..LOGS {
        db.create_region_if_needed(&format!("log {number}")).unwrap();
    }
    let shared = db.create_region_if_needed("shared").unwrap();
    let shared_records = AtomicU64::new(0);
    let stop = AtomicBool::new(false);

    let mut threads: Vec<Work> = Vec::new();
    for number in 0..LOGS {
        let db = &db;
        threads.push(Box::new(move |rng| append(db, number, rng)));
    }
    for thread in 0..2 {
        let (db, shared, shared_records) = (&db, &shared, &shared_records);
        threads.push(Box::new(move |rng| overwrite(db, rng)));
        let mut held = Vec::new();
        threads.push(Box::new(move |rng| view(db, &mut held, rng)));
        threads.push(Box::new(move |rng| come_and_go(db, thread, rng)));
        // Two appenders of one region: every record whole, none lost, in whatever order.
        threads.push(Box::new(move |_| {
            if shared.len() < LOG_LEN {
                shared.write(&record(thread, 9)).unwrap();
                shared_records.fetch_add(1, Ordering::Relaxed);
            } else {
                std::thread::yield_now();
            }
        }));
        threads.push(Box::new(move |_| db.flush().unwrap()));
    }
    for _ in 0..2 {
        threads.push(Box::new(|_| db.compact().unwrap()));
    }
    threads.push(Box::new(|_| {
        let list = db.list().unwrap();
        assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let stats = db.stats().unwrap();
        // Holes that are being punched are nobody's for a moment, so this is a bound only.
        let known = stats.reserved_bytes + stats.free_bytes + stats.pending_bytes;
        assert!(4096 + known + stats.pinned_bytes <= stats.file_len, "{stats:?}");
    }));

    std::thread::scope(|scope| {
        for (number, mut work) in (0..).zip(threads) {
            let stop = &stop;
            scope.spawn(move || {
                let mut calls = 0;
                let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number));
                while !stop.load(Ordering::Relaxed) {
                    work(&mut rng);
                    calls += 1;
                }
                println!("thread {number}: {calls} rounds");
                assert!(calls > 0);
            });
        }
        // A panic in a thread is reported when the others have ended, which this makes them.
        std::thread::sleep(DURATION);
        stop.store(true, Ordering::Relaxed);
    });

    let verify = |db: &Database| {
        for number in 0..LOGS {
            check(&log(db, number).view(0, u64::MAX).unwrap(), 0);
        }
        let shared = db.region("shared").unwrap().view(0, u64::MAX).unwrap();
        assert_eq!(shared.len() as u64, shared_records.load(Ordering::Relaxed) * RECORD as u64);
        for record in shared.chunks_exact(RECORD) {
            assert!(record[0] < 2 && record[8..].iter().all(|&byte| byte == 9));
        }
        assert_eq!(db.list().unwrap().len() as u64, LOGS + 1);
    };
    verify(&db);
    assert_eq!(db.stats().unwrap().pinned_bytes, 0, "all views are released");
    db.compact().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(
        4096 + stats.reserved_bytes + stats.free_bytes,
        stats.file_len,
        "every byte of the file is somebody's: {stats:?}"
    );
    db.close().unwrap();
    verify(&Database::open_with(dir.path(), &options).unwrap());
}

/// Compactions come to the ends of regions while others ask for these regions and write there.
fn compact_beside_opening(guarded: bool) {
    const REGIONS: u64 = 400;
    // Behind their bytes they have as much room again as they have bytes.
    const RECORDS: u64 = 130;
    let seed = seed::seed();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { guarded, ..Options::default() };
    let db = Database::open_with(dir.path(), &options).unwrap();
    let records = |range: std::ops::Range<u64>| range.flat_map(|number| record(number, 1));
    for number in 0..REGIONS {
        let region = db.create_region_if_needed(&number.to_string()).unwrap();
        region.write(&records(0..RECORDS).collect::<Vec<_>>()).unwrap();
        region.reserve(16_384).unwrap();
    }
    db.close().unwrap();
    for round in 0..10 {
        let db = Database::open_with(dir.path(), &options).unwrap();
        let writing = AtomicU64::new(2);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (db, writing) = (&db, &writing);
                scope.spawn(move || {
                    let mut numbers: Vec<u64> =
                        (0..REGIONS / 2).map(|it| it * 2 + thread).collect();
                    fastrand::Rng::with_seed(seed.wrapping_add(round * 2 + thread))
                        .shuffle(&mut numbers);
                    for number in numbers {
                        let region = db.region(&number.to_string()).unwrap();
                        let next = region.len() / RECORD as u64;
                        for part in [next..next + 3, next + 3..next + 4, next + 4..next + 12] {
                            region.write(&records(part).collect::<Vec<_>>()).unwrap();
                        }
                    }
                    writing.fetch_sub(1, Ordering::Relaxed);
                });
                scope.spawn(move || {
                    while writing.load(Ordering::Relaxed) > 0 {
                        db.compact().unwrap();
                    }
                });
            }
        });
        for number in 0..REGIONS {
            let view = db.region(&number.to_string()).unwrap().view(0, u64::MAX).unwrap();
            assert_eq!(view.len() as u64 / RECORD as u64, RECORDS + 12 * (round + 1));
            check(&view, 0);
        }
        db.close().unwrap();
    }
}

#[test]
fn compactions_beside_opening_through_the_mapping() {
    compact_beside_opening(false);
}

#[test]
fn compactions_beside_opening_guarded() {
    compact_beside_opening(true);
}

#[test]
fn everything_at_once_through_the_mapping() {
    run(false);
}

#[test]
fn everything_at_once_guarded() {
    run(true);
}

//! What is measured. A workload has contenders, which take turns, and metrics, of which each round
//! of a contender gives one sample each. What was written is read back outside of the timed part.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::engines::{Engine, Files, Limit, Pwrite, Rawdb, Rawdb05, Rawdb13, Shape};
use crate::stores::{record, Lmdb, LmdbNames, Redb, Sqlite, Store};
use crate::{memory, MIB};

const GIB: u64 = 1 << 30;

pub const OURS: &str = Rawdb::NAME;
const OLD: &str = Rawdb05::NAME;
type New = Rawdb13<false>;
const NEW: &str = New::NAME;
type NewScoped = Rawdb13<true>;
type Stores = Limit<false>;
type Populated = Limit<true>;
const PWRITE: &str = Pwrite::NAME;

#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    Seconds,
    Bytes,
    Times,
}

pub struct Metric {
    pub name: String,
    pub unit: Unit,
}

pub enum Target {
    /// The best of these peers takes at least `by` times as long as rawdb.
    Speedup {
        metric: usize,
        peers: &'static [&'static str],
        by: f64,
    },
    AtLeast {
        metric: usize,
        value: f64,
    },
    AtMost {
        metric: usize,
        value: f64,
    },
    /// The first metric is at most `factor` times the second.
    Within {
        metric: usize,
        of: usize,
        factor: f64,
    },
}

/// One round in a directory of its own: a sample for each metric, NaN where there is none.
type Round = Box<dyn FnMut(&Path) -> Vec<f64>>;

pub struct Contender {
    pub name: &'static str,
    /// What is prepared once, in a directory that stays.
    pub setup: Box<dyn FnOnce(PathBuf) -> Round>,
}

/// A curve over several metrics: its title, and x for each metric from `first` on.
pub struct Curve {
    pub title: &'static str,
    pub x: &'static str,
    pub first: usize,
    pub values: Vec<u64>,
}

pub struct Workload {
    pub id: &'static str,
    pub title: &'static str,
    pub how: &'static str,
    /// What is known about why a target is missed; printed only if one is.
    pub causes: &'static str,
    /// MiB of memory that a round needs, to be touched before each.
    pub touched: usize,
    pub metrics: Vec<Metric>,
    pub contenders: Vec<Contender>,
    pub targets: Vec<Target>,
    pub curves: Vec<Curve>,
}

pub struct Scale {
    pub divisor: u64,
}

impl Scale {
    fn count(&self, full: u64) -> u64 {
        full.div_ceil(self.divisor)
    }

    fn bytes(&self, full: u64) -> u64 {
        (full / self.divisor).next_multiple_of(8192)
    }
}

fn fresh(name: &'static str, round: impl FnMut(&Path) -> Vec<f64> + 'static) -> Contender {
    Contender { name, setup: Box::new(move |_| Box::new(round)) }
}

fn prepared<S: 'static>(
    name: &'static str,
    setup: impl FnOnce(&Path) -> S + 'static,
    mut round: impl FnMut(&mut S) -> Vec<f64> + 'static,
) -> Contender {
    let setup = move |dir: PathBuf| -> Round {
        let mut state = setup(&dir);
        Box::new(move |_| round(&mut state))
    };
    Contender { name, setup: Box::new(setup) }
}

fn seconds(name: impl Into<String>) -> Metric {
    Metric { name: name.into(), unit: Unit::Seconds }
}

pub fn count_name(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

pub fn size_name(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..MIB => format!("{} KiB", bytes >> 10),
        MIB..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

fn stamp(bytes: &mut [u8], number: u64) {
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

/// Of 64 bytes, so that all of them have to be read.
#[inline(always)]
fn sum64(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0, |sum, bytes| sum.wrapping_add(word(bytes)))
}

/// A multiplicative hash: an access pattern that no prefetcher follows, the same for everybody.
#[inline(always)]
fn scatter(number: u64, slots: u64) -> u64 {
    ((u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) * u128::from(slots)) >> 64) as u64
}

/// Appends records that begin with their number.
#[inline(always)]
fn fill<E: Engine>(region: &E::Region, from: u64, to: u64, record: u64) {
    let mut bytes = vec![7; record as usize];
    for number in from / record..to / record {
        stamp(&mut bytes, number);
        E::append(region, number * record, black_box(&bytes));
    }
}

/// How often peers gave back what had not been written: the report has to name it. From rawdb it
/// ends the run.
pub static WRONG: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// How many rounds of peers a panic of theirs has ended: the report has to name them.
pub static PANICKED: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());

fn wrong<E: Engine>() {
    assert_ne!(E::NAME, OURS, "what was read back is not what had been written");
    *WRONG.lock().unwrap().entry(E::NAME).or_default() += 1;
}

fn verify<E: Engine>(region: &E::Region, len: u64, record: u64) {
    let step = record.max(MIB / record * record);
    let mut number = 0;
    for at in (0..len).step_by(step as usize) {
        let part = step.min(len - at) as usize;
        let right = E::view(region, at, part, |bytes| {
            bytes.chunks_exact(record as usize).all(|bytes| {
                number += 1;
                (word(bytes), bytes[record as usize - 1]) == (number - 1, 7)
            })
        });
        if !right {
            return wrong::<E>();
        }
    }
    assert_eq!(number, len / record);
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn append<E: Engine>(dir: &Path, total: u64, record: u64, flush: bool) -> f64 {
    let db = E::open(dir, Shape { regions: 1, capacity: total.next_multiple_of(4096) });
    let region = db.create("region");
    let time = timed(|| {
        fill::<E>(&region, 0, total, record);
        if flush {
            db.flush(Some(&region));
        }
    });
    verify::<E>(&region, total, record);
    drop(region);
    time
}

fn append_small(scale: &Scale) -> Workload {
    const BATCH: u64 = 10_000;
    let count = scale.count(10_000_000);
    fn engine<E: Engine>(count: u64) -> Contender {
        fresh(E::NAME, move |dir| vec![append::<E>(dir, count * 64, 64, false) / count as f64])
    }
    fn store<S: Store>(count: u64) -> Contender {
        fresh(S::NAME, move |dir| {
            let mut store = S::open(dir, false);
            let time = timed(|| {
                for first in (0..count).step_by(BATCH as usize) {
                    store.append(first, BATCH.min(count - first));
                }
            });
            assert_eq!(store.check(), (count, (0..count).sum()));
            vec![time / count as f64]
        })
    }
    Workload {
        id: "append-64",
        title: "Append 64 B to one region, no flush",
        how: "10,000,000 appends, time of each. LMDB (WRITEMAP, NOSYNC), redb (Durability::None) \
              and SQLite (synchronous = OFF, prepared) append under ascending keys, 10,000 a \
              transaction; redb, SQLite and `write` get a tenth of the records, which is to their \
              advantage.",
        touched: 1024,
        causes: "the limit shows what new pages cost; what a call adds is its checks of pointers, \
                 process and views, and the length in the mirror (tests/instructions/table.txt \
                 counts it).",
        metrics: vec![seconds("append 64 B")],
        contenders: vec![
            engine::<Rawdb>(count),
            engine::<Rawdb05>(count),
            engine::<New>(count),
            store::<Lmdb>(count),
            store::<Redb>(count / 10),
            store::<Sqlite>(count / 10),
            engine::<Files>(count / 10),
            engine::<Stores>(count),
            engine::<Populated>(count),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 7.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 1.6 },
            Target::Speedup { metric: 0, peers: &[Lmdb::NAME], by: 3.0 },
        ],
        curves: vec![],
    }
}

const LIMITS: &str = "The limit of an append is the faster of stores into a mapping of allocated \
    blocks and `pwrite` to allocated blocks: new bytes need new pages of memory. Populated, the \
    mapping had its pages before the clock started, which no append can have; it is shown to tell \
    what the pages cost.";

fn append_pages(scale: &Scale) -> Workload {
    let total = scale.bytes(GIB);
    fn engine<E: Engine>(total: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let without = append::<E>(&dir.join("without"), total, 4096, false);
            fs::remove_dir_all(dir.join("without")).unwrap();
            if !E::SYNCS {
                return vec![without, f64::NAN];
            }
            // What has just been freed may not have been left alone.
            memory::warm_huge((total + total / 4) as usize);
            vec![without, append::<E>(&dir.join("with"), total, 4096, true)]
        })
    }
    Workload {
        id: "append-4k",
        title: "Append 4 KiB up to 1 GiB",
        how: "Time for all of it. rawdb 0.13.0 never syncs, so it has no time with a flush.",
        touched: 1280,
        causes: "new pages are written full of zeros, up to 2 MiB at a time, and then stored to: \
                 memory is gone over twice, as it is where the kernel does it in a fault. With a \
                 flush all wait for the disk.",
        metrics: vec![seconds("without flush"), seconds("with flush")],
        contenders: vec![
            engine::<Rawdb>(total),
            engine::<Rawdb05>(total),
            engine::<New>(total),
            engine::<Files>(total),
            engine::<Pwrite>(total),
            engine::<Stores>(total),
            engine::<Populated>(total),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 1.7 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 2.0 },
            Target::Speedup { metric: 0, peers: &[Stores::NAME, PWRITE], by: 0.9 },
            Target::Speedup { metric: 1, peers: &[OLD], by: 1.2 },
        ],
        curves: vec![],
    }
}

fn append_large(scale: &Scale) -> Workload {
    let total = scale.bytes(GIB).max(2 * MIB);
    fn engine<E: Engine>(total: u64) -> Contender {
        fresh(E::NAME, move |dir| vec![append::<E>(dir, total, MIB, false)])
    }
    Workload {
        id: "append-1m",
        title: "Append 1 MiB up to 1 GiB",
        how: "Time for all of it, without a flush.",
        touched: 1280,
        causes: "each is a `pwrite`, as for files and the limit, and what differs is the memory that \
                 the kernel has for it: the calls for blocks, an eighth of the length at a time, are \
                 few.",
        metrics: vec![seconds("without flush")],
        contenders: vec![
            engine::<Rawdb>(total),
            engine::<Rawdb05>(total),
            engine::<New>(total),
            engine::<Files>(total),
            engine::<Pwrite>(total),
            engine::<Stores>(total),
            engine::<Populated>(total),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 1.8 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 1.5 },
            Target::Speedup { metric: 0, peers: &[Stores::NAME, PWRITE], by: 0.95 },
            Target::Speedup { metric: 0, peers: &[Files::NAME], by: 1.0 },
        ],
        curves: vec![],
    }
}

fn disk_bytes(dir: &Path) -> f64 {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().blocks() as f64 * 512.0)
        .sum()
}

fn growing(scale: &Scale) -> Workload {
    const REGIONS: u64 = 64;
    let capacity = scale.bytes(16 * MIB);
    fn engine<E: Engine>(capacity: u64, mut measure_space: bool) -> Contender {
        fresh(E::NAME, move |dir| {
            let db = E::open(dir, Shape { regions: REGIONS, capacity });
            let regions: Vec<E::Region> =
                (0..REGIONS).map(|number| db.create(&number.to_string())).collect();
            let time = timed(|| {
                for at in (0..capacity).step_by(4096) {
                    for region in &regions {
                        fill::<E>(region, at, at + 4096, 4096);
                    }
                }
            });
            for region in &regions {
                verify::<E>(region, capacity, 4096);
            }
            let mut samples = vec![time, f64::NAN, f64::NAN, f64::NAN];
            // It is the same each time, and takes the disk long.
            if std::mem::take(&mut measure_space) {
                let payload = (REGIONS * capacity) as f64;
                samples[1] = disk_bytes(dir) / payload;
                db.flush(None);
                samples[2] = disk_bytes(dir) / payload;
                db.compact();
                samples[3] = disk_bytes(dir) / payload;
                for region in &regions {
                    verify::<E>(region, capacity, 4096);
                }
            }
            samples
        })
    }
    let times = |name: &str| Metric { name: name.into(), unit: Unit::Times };
    Workload {
        id: "growing",
        title: "64 regions growing in turn by 4 KiB to 16 MiB each",
        how: "Time for all of it; then the disk space that all files of the database occupy, \
              divided by the bytes in regions. Space is measured in the first round only.",
        touched: 1536,
        causes: "a region that has outgrown its place is moved, which copies it, and blocks are \
                 taken an eighth ahead of the length.",
        metrics: vec![
            seconds("growing"),
            times("allocated / payload"),
            times("allocated / payload, flushed"),
            times("allocated / payload, compacted"),
        ],
        contenders: vec![
            engine::<Rawdb>(capacity, true),
            engine::<Rawdb05>(capacity, true),
            engine::<New>(capacity, true),
            engine::<Files>(capacity, false),
            engine::<Stores>(capacity, false),
            engine::<Populated>(capacity, false),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 4.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 2.7 },
            Target::Speedup { metric: 0, peers: &[Stores::NAME], by: 0.9 },
            Target::Speedup { metric: 0, peers: &[Files::NAME], by: 1.0 },
            Target::AtMost { metric: 1, value: 1.15 },
            Target::AtMost { metric: 3, value: 1.01 },
        ],
        curves: vec![],
    }
}

/// A database of one region of `len` bytes, filled.
fn one_region<E: Engine>(dir: &Path, len: u64) -> (E::Region, E) {
    let db = E::open(dir, Shape { regions: 1, capacity: len });
    let region = db.create("region");
    fill::<E>(&region, 0, len, 64);
    (region, db)
}

fn overwrite(scale: &Scale) -> Workload {
    const BATCH: usize = 1000;
    let calls = scale.count(4_000_000);
    fn check<E: Engine>(region: &E::Region, calls: u64) {
        let slots = MIB / 64;
        let mut last = vec![None; slots as usize];
        (0..calls).for_each(|number| last[scatter(number, slots) as usize] = Some(number));
        for (slot, number) in last.into_iter().enumerate() {
            let Some(number) = number else { continue };
            E::view(region, slot as u64 * 64, 64, |bytes| assert_eq!(word(bytes), number));
        }
    }
    fn run<E: Engine>(region: &E::Region, calls: u64) -> Vec<f64> {
        let slots = MIB / 64;
        let mut bytes = [7; 64];
        let single = timed(|| {
            for number in 0..calls {
                stamp(&mut bytes, number);
                E::overwrite(region, scatter(number, slots) * 64, black_box(&bytes));
            }
        });
        check::<E>(region, calls);
        let (mut offsets, mut values) = (vec![], vec![]);
        let batches = timed(|| {
            for first in (0..calls).step_by(BATCH) {
                let numbers = first..calls.min(first + BATCH as u64);
                offsets.clear();
                offsets.extend(numbers.clone().map(|number| scatter(number, slots) * 64));
                values.clear();
                values.extend(numbers.map(record));
                E::overwrite_batch(region, black_box(&offsets), black_box(&values));
            }
        });
        check::<E>(region, calls);
        vec![single / calls as f64, batches / calls as f64]
    }
    fn engine<E: Engine>(calls: u64) -> Contender {
        prepared(
            E::NAME,
            |dir| {
                let (region, db) = one_region::<E>(dir, MIB);
                // Or all of it would count as changed before the first overwrite.
                db.flush(Some(&region));
                (region, db)
            },
            move |(region, _)| run::<E>(region, calls),
        )
    }
    Workload {
        id: "overwrite",
        title: "Overwrite 64 B at random, 1 MiB hot",
        how: "4,000,000 overwrites of what had been flushed, time of each: call by call, and \
              in batches of 1,000, the time for putting them together included \
              (`rawdb_region_write_batch`, 0.5.10 `batch_write_each`; 0.13.0 takes a map instead \
              of a list, and like the others is given single calls).",
        touched: 0,
        causes: "a tenth of what the other versions take for an overwrite is less than the \
                 processor takes for the store alone, which the limit shows. What is above that are \
                 the checks, and a look for views of what is overwritten.",
        metrics: vec![seconds("one call each"), seconds("batches of 1,000")],
        contenders: vec![
            engine::<Rawdb>(calls),
            engine::<Rawdb05>(calls),
            engine::<New>(calls),
            engine::<Files>(calls / 10),
            engine::<Populated>(calls),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 10.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 10.0 },
        ],
        curves: vec![],
    }
}

/// Checks that `sum` is that of `sum64` over the slots that were read.
fn check_reads(sum: u64, calls: u64, slots: u64) {
    let rest = 7 * u64::from_ne_bytes([7; 8]) as u128;
    let expected = (0..calls).fold(0u64, |sum, number| {
        sum.wrapping_add(scatter(number, slots)).wrapping_add(rest as u64)
    });
    assert_eq!(sum, expected);
}

fn view(scale: &Scale) -> Workload {
    let calls = scale.count(4_000_000);
    let sizes = [MIB, scale.bytes(256 * MIB)];
    fn engine<E: Engine>(calls: u64, sizes: [u64; 2]) -> Contender {
        prepared(
            E::NAME,
            move |dir| {
                ["hot", "large"]
                    .into_iter()
                    .zip(sizes)
                    .map(|(name, len)| (one_region::<E>(&dir.join(name), len), len / 64))
                    .collect::<Vec<_>>()
            },
            move |regions| {
                regions
                    .iter()
                    .map(|((region, _), slots)| {
                        let mut sum = 0u64;
                        let time = timed(|| {
                            for number in 0..calls {
                                let at = scatter(number, *slots) * 64;
                                sum = sum.wrapping_add(E::view(region, at, 64, sum64));
                            }
                        });
                        check_reads(sum, calls, *slots);
                        time / calls as f64
                    })
                    .collect()
            },
        )
    }
    Workload {
        id: "view",
        title: "Open a view, read 64 B, release it",
        how: "4,000,000 times at random, time of each. rawdb 0.13.0 by `create_reader`, whose \
              result can be kept as a view can, and by `with_read_range`, which holds a lock while \
              a closure runs; the limit is the loads alone.",
        touched: 0,
        causes:
            "opening and releasing each enter a lock, by plain stores while one thread uses it, \
                 and keep a record of what is viewed, so that an overwrite need not wait; 0.13.0 \
                 counts readers in one word, and its writers wait for them. At random in 256 MiB a \
                 call has so many instructions that the processor looks no more than two calls \
                 ahead, and so waits for each second miss.",
        metrics: sizes.map(|size| seconds(size_name(size))).into(),
        contenders: vec![
            engine::<Rawdb>(calls, sizes),
            engine::<Rawdb05>(calls, sizes),
            engine::<New>(calls, sizes),
            engine::<NewScoped>(calls, sizes),
            engine::<Populated>(calls, sizes),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 2.5 },
            Target::Speedup { metric: 1, peers: &[OLD], by: 5.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 1.1 },
            Target::Speedup { metric: 0, peers: &[NewScoped::NAME], by: 1.1 },
            Target::Speedup { metric: 1, peers: &[NEW], by: 2.0 },
            Target::Speedup { metric: 1, peers: &[NewScoped::NAME], by: 2.0 },
        ],
        curves: vec![],
    }
}

fn held_view(scale: &Scale) -> Workload {
    let len = scale.bytes(GIB);
    let calls = scale.count(4_000_000);
    fn engine<E: Engine>(len: u64, calls: u64) -> Contender {
        let run = move |(region, _): &mut (E::Region, E)| {
            let slots = len / 64;
            E::view(region, 0, len as usize, |bytes| {
                let mut random = 0u64;
                let random_time = timed(|| {
                    for number in 0..calls {
                        let at = scatter(number, slots) as usize * 64;
                        random = random.wrapping_add(sum64(&bytes[at..at + 64]));
                    }
                });
                check_reads(random, calls, slots);
                let mut sum = 0;
                let sum_time = timed(|| sum = sum64(black_box(bytes)));
                let rest = (7 * slots).wrapping_mul(u64::from_ne_bytes([7; 8]));
                assert_eq!(sum, (slots * (slots - 1) / 2).wrapping_add(rest));
                vec![random_time / calls as f64, sum_time]
            })
        };
        prepared(
            E::NAME,
            move |dir| {
                let (region, db) = one_region::<E>(dir, len);
                db.flush(Some(&region));
                (region, db)
            },
            run,
        )
    }
    Workload {
        id: "held-view",
        title: "Reads of 1 GiB through one held view",
        how: "4,000,000 reads of 64 B at random, time of each; the sum of all its words, time for \
              all. Written through the contender, flushed, then read in the same process.",
        touched: 0,
        causes: "the bytes are read without the library; what differs is the pages that the \
                 kernel has mapped, and noise.",
        metrics: vec![seconds("read 64 B at random"), seconds("sum")],
        contenders: vec![
            engine::<Rawdb>(len, calls),
            engine::<Rawdb05>(len, calls),
            engine::<New>(len, calls),
            engine::<Populated>(len, calls),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 1.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 1.0 },
            Target::Speedup { metric: 0, peers: &[Populated::NAME], by: 0.97 },
            Target::Speedup { metric: 1, peers: &[OLD], by: 1.0 },
            Target::Speedup { metric: 1, peers: &[NEW], by: 1.0 },
            Target::Speedup { metric: 1, peers: &[Populated::NAME], by: 0.97 },
        ],
        curves: vec![],
    }
}

/// A database of `count` regions of 64 bytes each, and one region in the middle.
fn many_regions<E: Engine>(dir: &Path, count: u64) -> (E::Region, E) {
    let db = E::open(dir, Shape { regions: count, capacity: 4096 });
    let mut middle = None;
    for number in 0..count {
        let region = db.create(&format!("region {number}"));
        E::append(&region, 0, &record(0));
        if number == count / 2 {
            middle = Some(region);
        }
    }
    db.flush(middle.as_ref());
    (middle.unwrap(), db)
}

fn region_count(scale: &Scale) -> Workload {
    const FLUSHES: u64 = 30;
    const CREATED: u64 = 100;
    let counts = [10, 1_000, 10_000, 50_000, 100_000].map(|count| 10 + scale.count(count - 10));
    let calls = scale.count(100_000);

    struct State<E: Engine> {
        region: E::Region,
        db: E,
        len: u64,
        created: u64,
    }
    fn engine<E: Engine>(counts: [u64; 5], calls: u64) -> Contender {
        fn run<E: Engine>(state: &mut State<E>, calls: u64) -> [f64; 4] {
            let State { region, db, len, created } = state;
            let appends = timed(|| fill::<E>(region, *len, *len + calls * 64, 64));
            *len += calls * 64;
            let slots = *len / 64;
            let mut sum = 0u64;
            let views = timed(|| {
                for number in 0..calls {
                    let at = scatter(number, slots) * 64;
                    sum = sum.wrapping_add(E::view(region, at, 64, sum64));
                }
            });
            check_reads(sum, calls, slots);
            // What the appends above have left to write is not what one append costs to flush.
            db.flush(Some(region));
            let flushes = timed(|| {
                for _ in 0..FLUSHES {
                    fill::<E>(region, *len, *len + 64, 64);
                    db.flush(Some(region));
                    *len += 64;
                }
            });
            verify::<E>(region, *len, 64);
            let names: Vec<String> =
                (*created..*created + CREATED).map(|number| format!("created {number}")).collect();
            *created += CREATED;
            let creates = timed(|| names.iter().for_each(|name| drop(db.create(name))));
            let flushes = if E::SYNCS { flushes / FLUSHES as f64 } else { f64::NAN };
            [flushes, appends / calls as f64, views / calls as f64, creates / CREATED as f64]
        }
        prepared(
            E::NAME,
            move |dir| {
                counts.map(|count| {
                    let (region, db) = many_regions::<E>(&dir.join(count.to_string()), count);
                    State { region, db, len: 64, created: 0 }
                })
            },
            move |states| {
                let runs: Vec<[f64; 4]> =
                    states.iter_mut().map(|state| run::<E>(state, calls)).collect();
                (0..4)
                    .flat_map(|what| runs.iter().map(move |run| run[what]).collect::<Vec<_>>())
                    .collect()
            },
        )
    }
    fn files(counts: Vec<u64>) -> Contender {
        prepared(
            "files, write + fdatasync",
            move |dir| {
                counts
                    .into_iter()
                    .map(|count| many_regions::<Files>(&dir.join(count.to_string()), count))
                    .collect::<Vec<_>>()
            },
            |states| {
                let mut samples = vec![f64::NAN; 20];
                for ((region, db), sample) in states.iter().zip(&mut samples) {
                    let time = timed(|| {
                        for _ in 0..FLUSHES {
                            Files::append(region, 0, &record(0));
                            db.flush(Some(region));
                        }
                    });
                    *sample = time / FLUSHES as f64;
                }
                samples
            },
        )
    }
    fn store<S: Store>(counts: [u64; 5]) -> Contender {
        prepared(
            S::NAME,
            move |dir| {
                counts.map(|count| {
                    let mut store = S::open(&dir.join(count.to_string()), true);
                    store.append(0, count);
                    (store, count)
                })
            },
            |states| {
                let mut samples = vec![f64::NAN; 20];
                for ((store, next), sample) in states.iter_mut().zip(&mut samples) {
                    let time = timed(|| {
                        for _ in 0..FLUSHES {
                            store.append(*next, 1);
                            *next += 1;
                        }
                    });
                    assert_eq!(store.check(), (*next, (0..*next).sum()));
                    *sample = time / FLUSHES as f64;
                }
                samples
            },
        )
    }
    let titles = ["append 64 B + flush", "append 64 B", "view 64 B", "create"];
    let metrics = titles
        .iter()
        .flat_map(|title| {
            counts.map(|count| seconds(format!("{title}, {} regions", count_name(count))))
        })
        .collect();
    let curve = |index: usize| Curve {
        title: titles[index],
        x: "regions",
        first: index * 5,
        values: counts.to_vec(),
    };
    Workload {
        id: "region-count",
        title: "Against the number of regions",
        how: "Databases of 10 to 100,000 regions of 64 B each, open, in which one region in the \
              middle gets 100,000 appends of 64 B, as many views at random are opened, read and \
              released, 64 B are appended and flushed 30 times, and 100 regions are created. \
              rawdb 0.13.0 never syncs, so it has no time for a flush. LMDB (default: synced \
              commits), redb (Durability::Immediate) and SQLite (synchronous = FULL) have as many \
              records as the others have regions, and commit one more each time. There \
              are 10,000 files at most.",
        touched: 512,
        causes: "a flush of little is one sync of one file, and that is nearly all of its time.",
        metrics,
        contenders: vec![
            engine::<Rawdb>(counts, calls),
            engine::<Rawdb05>(counts, calls),
            engine::<New>(counts, calls),
            store::<Lmdb>(counts),
            store::<Redb>(counts),
            store::<Sqlite>(counts),
            files(counts[..3].into()),
        ],
        targets: [1.4, 1.6, 2.7, 20.0]
            .into_iter()
            .enumerate()
            .map(|(metric, by)| Target::Speedup { metric, peers: &[OLD], by })
            .chain((0..4).map(|metric| Target::Speedup { metric, peers: &[Lmdb::NAME], by: 1.1 }))
            .chain([Target::Within { metric: 3, of: 0, factor: 1.3 }])
            .collect(),
        curves: (0..4).map(curve).collect(),
    }
}

fn region_size(scale: &Scale) -> Workload {
    let sizes = [MIB, 16 * MIB, 256 * MIB, GIB, 3 * GIB].map(|size| scale.bytes(size).max(MIB));
    let calls = scale.count(100_000);
    fn engine<E: Engine>(sizes: [u64; 5], calls: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let db = E::open(dir, Shape { regions: 1, capacity: sizes[4] + 5 * calls * 64 });
            let region = db.create("region");
            let large = vec![7; 65536];
            let mut len = 0;
            let samples = sizes
                .iter()
                .map(|size| {
                    while len < *size {
                        E::append(&region, len, &large);
                        len += 65536;
                    }
                    // To a whole page, so that everybody begins on a new one.
                    let time = timed(|| fill::<E>(&region, len, len + calls * 64, 64));
                    E::view(&region, len, (calls * 64) as usize, |bytes| {
                        let first = len / 64;
                        assert!((first..).zip(bytes.chunks(64)).all(|(n, bytes)| word(bytes) == n));
                    });
                    len += calls * 64;
                    time / calls as f64
                })
                .collect();
            drop(region);
            samples
        })
    }
    Workload {
        id: "region-size",
        title: "Append 64 B against the length of the region",
        how: "100,000 appends of 64 B to a region that is that long, time of each.",
        touched: 3584,
        causes: "",
        metrics: sizes.map(|size| seconds(size_name(size))).into(),
        contenders: vec![
            engine::<Rawdb>(sizes, calls),
            engine::<Rawdb05>(sizes, calls),
            engine::<New>(sizes, calls),
        ],
        targets: vec![],
        curves: vec![Curve {
            title: "append 64 B",
            x: "MiB in the region",
            first: 0,
            values: sizes.map(|size| size / MIB).into(),
        }],
    }
}

fn open(scale: &Scale) -> Workload {
    let counts = [10_000, 100_000].map(|count| scale.count(count));
    fn engine<E: Engine>(counts: [u64; 2]) -> Contender {
        prepared(
            E::NAME,
            move |dir| {
                counts.map(|count| {
                    let dir = dir.join(count.to_string());
                    let (region, db) = many_regions::<E>(&dir, count);
                    drop(region);
                    drop(db);
                    (dir, count)
                })
            },
            |databases| {
                databases
                    .iter()
                    .map(|(dir, count)| {
                        let start = Instant::now();
                        let db = E::open(dir, Shape { regions: *count, capacity: 4096 });
                        let time = start.elapsed().as_secs_f64();
                        for number in (0..*count).step_by(101) {
                            let region = db.create(&format!("region {number}"));
                            E::view(&region, 0, 64, |bytes| assert_eq!(bytes, record(0)));
                        }
                        time
                    })
                    .collect()
            },
        )
    }
    Workload {
        id: "open",
        title: "Open a database of many regions",
        how: "Closed before, its files in the page cache. Every region has 64 B.",
        touched: 0,
        causes: "both copies of each entry are checked, in pages of their own (8 KiB a region), \
                 which is most of the time: each page has to be mapped and comes from memory, not \
                 from the processor's caches. And there is a sync, which the other versions do not \
                 do. A packed copy of the table, written by each close, would be faster to read; but \
                 whoever reads it does not notice what has become of the entries themselves, and \
                 closing would take longer.",
        metrics: counts.map(|count| seconds(format!("{} regions", count_name(count)))).into(),
        contenders: vec![engine::<Rawdb>(counts), engine::<Rawdb05>(counts), engine::<New>(counts)],
        targets: (0..2)
            .flat_map(|metric| {
                [
                    Target::Speedup { metric, peers: &[OLD], by: 3.0 },
                    Target::Speedup { metric, peers: &[NEW], by: 3.0 },
                ]
            })
            .collect(),
        curves: vec![],
    }
}

fn create(scale: &Scale) -> Workload {
    let counts = [10_000, 50_000].map(|count| scale.count(count));
    fn engine<E: Engine>(counts: Vec<u64>) -> Contender {
        fresh(E::NAME, move |dir| {
            counts
                .iter()
                .map(|count| {
                    let names: Vec<String> =
                        (0..*count).map(|number| format!("region {number}")).collect();
                    let dir = dir.join(count.to_string());
                    let db = E::open(&dir, Shape { regions: *count, capacity: 4096 });
                    let time = timed(|| names.iter().for_each(|name| drop(db.create(name))));
                    let last = db.create(names.last().unwrap());
                    E::append(&last, 0, &record(1));
                    E::view(&last, 0, 64, |bytes| assert_eq!(bytes, record(1)));
                    time
                })
                .chain([f64::NAN])
                .take(2)
                .collect()
        })
    }
    Workload {
        id: "create",
        title: "Create regions",
        how: "In a new database, without a flush; time for all of them. 50,000 files \
              would take minutes.",
        touched: 512,
        causes: "each region is recorded in `live`, apart from the table, so that it survives the \
                 death of the process; the other versions wait for a flush, or do without. Then come \
                 the hash of the name and the memory for the region.",
        metrics: counts.map(|count| seconds(format!("{} regions", count_name(count)))).into(),
        contenders: vec![
            engine::<Rawdb>(counts.into()),
            engine::<Rawdb05>(counts.into()),
            engine::<New>(counts.into()),
            engine::<Files>(counts[..1].into()),
        ],
        targets: vec![
            Target::Speedup { metric: 0, peers: &[OLD], by: 10.0 },
            Target::Speedup { metric: 1, peers: &[OLD], by: 14.0 },
            Target::Speedup { metric: 0, peers: &[NEW], by: 3.0 },
            Target::Speedup { metric: 1, peers: &[NEW], by: 3.0 },
        ],
        curves: vec![],
    }
}

/// Has the file system write all it has, so that what is timed next does not wait for what was left
/// by others before it.
fn settle(dir: &Path) {
    let dir = fs::File::open(dir).unwrap();
    // SAFETY: an open directory.
    assert_eq!(unsafe { libc::syncfs(dir.as_raw_fd()) }, 0, "{}", io::Error::last_os_error());
}

fn flush_many(scale: &Scale) -> Workload {
    const UNSYNCED: &str = "rawdb 0.13.0, no sync";
    let counts = [1_000, 10_000, 50_000].map(|count| scale.count(count));
    // So long that their order is that of their numbers: LMDB likes that best.
    fn names(count: u64) -> Vec<String> {
        (0..count).map(|number| format!("region {number:06}")).collect()
    }
    /// What is appended to each.
    fn values(count: u64) -> Vec<[u8; 16]> {
        let value = |number| {
            let mut bytes = [7; 16];
            stamp(&mut bytes, number);
            bytes
        };
        (0..count).map(value).collect()
    }
    fn samples(counts: [u64; 3], run: impl FnMut(u64) -> [f64; 4]) -> Vec<f64> {
        let runs = counts.map(run);
        (0..4).flat_map(|what| runs.map(|run| run[what])).collect()
    }
    fn engine<E: Engine>(name: &'static str, counts: [u64; 3]) -> Contender {
        fn run<E: Engine>(dir: &Path, count: u64) -> [f64; 4] {
            let (names, values) = (names(count), values(count));
            let db = E::open(dir, Shape { regions: count, capacity: 4096 });
            settle(dir);
            let mut regions = Vec::with_capacity(names.len());
            let creates = timed(|| regions.extend(names.iter().map(|name| db.create(name))));
            let created = timed(|| db.flush(None));
            regions.iter().for_each(|region| E::append(region, 0, &record(0)));
            db.flush(None);
            settle(dir);
            let appends = timed(|| {
                for (region, value) in regions.iter().zip(&values) {
                    E::append(region, 64, black_box(value));
                }
            });
            let appended = timed(|| db.flush(None));
            for (region, value) in regions.iter().zip(&values) {
                if !E::view(region, 64, 16, |bytes| bytes == value) {
                    wrong::<E>();
                }
            }
            [created, creates + created, appended, appends + appended]
        }
        fresh(name, move |dir| {
            samples(counts, |count| run::<E>(&dir.join(count.to_string()), count))
        })
    }
    fn lmdb(counts: [u64; 3]) -> Contender {
        fn run(dir: &Path, count: u64) -> [f64; 4] {
            let (names, values) = (names(count), values(count));
            let [first, second] = [0, 1].map(|append| {
                names.iter().map(|name| LmdbNames::key(name, append)).collect::<Vec<_>>()
            });
            let old = record(0);
            let created = || names.iter().map(|name| (name.as_bytes(), &[][..]));
            let existing = || first.iter().map(|key| (&key[..], &old[..]));
            let appended = || second.iter().zip(&values).map(|(key, value)| (&key[..], &value[..]));
            let db = LmdbNames::open(dir);
            settle(dir);
            let [creates, create] = db.put(true, created());
            db.put(false, existing());
            settle(dir);
            let [appends, append] = db.put(false, appended());
            db.check(created().chain(existing()).chain(appended()));
            [create, creates + create, append, appends + append]
        }
        fresh(Lmdb::NAME, move |dir| {
            samples(counts, |count| run(&dir.join(count.to_string()), count))
        })
    }
    let titles = [
        "flush of new regions",
        "create + flush",
        "flush of 16 B appended to each",
        "append 16 B to each + flush",
    ];
    let metrics = titles
        .iter()
        .flat_map(|title| {
            counts.map(|count| seconds(format!("{title}, {} regions", count_name(count))))
        })
        .collect();
    let curve = |index: usize| Curve {
        title: titles[index],
        x: "regions",
        first: index * 3,
        values: counts.to_vec(),
    };
    Workload {
        id: "flush-many",
        title: "Flush a change in each of many regions",
        how: "Regions are created and flushed; each gets 64 B, flushed outside of the timed part, \
              and then 16 B more, and all is flushed again. Time of the flush alone, and together \
              with the calls that made the changes. LMDB (default: synced commits) puts an empty \
              record under each name in one transaction, with MDB_APPEND, and in another one 16 B \
              more under each name and a number; its flush is the commit. rawdb 0.13.0 never \
              syncs: its flushes make nothing durable. rawdb 0.5.10 syncs nothing of regions that \
              are still empty.",
        touched: 1024,
        causes: "",
        metrics,
        contenders: vec![
            engine::<Rawdb>(OURS, counts),
            engine::<Rawdb05>(OLD, counts),
            engine::<New>(UNSYNCED, counts),
            lmdb(counts),
        ],
        targets: vec![
            Target::AtMost { metric: 2, value: 0.020 },
            Target::AtMost { metric: 8, value: 0.040 },
        ],
        curves: (0..4).map(curve).collect(),
    }
}

fn open_small(scale: &Scale) -> Workload {
    let calls = scale.count(200);
    fn engine<E: Engine>(calls: u64) -> Contender {
        prepared(
            E::NAME,
            |dir| {
                let (region, db) = one_region::<E>(dir, 64);
                db.flush(Some(&region));
                drop(region);
                drop(db);
                dir.to_owned()
            },
            move |dir| {
                settle(dir);
                let time = timed(|| {
                    for _ in 0..calls {
                        let db = E::open(dir, Shape { regions: 1, capacity: 64 });
                        let region = db.find("region");
                        E::view(&region, 0, 64, |bytes| assert_eq!(bytes, record(0)));
                    }
                });
                vec![time / calls as f64]
            },
        )
    }
    fn lmdb(calls: u64) -> Contender {
        prepared(
            Lmdb::NAME,
            |dir| {
                Lmdb::open(dir, true).append(0, 1);
                dir.to_owned()
            },
            move |dir| {
                settle(dir);
                let time = timed(|| {
                    for _ in 0..calls {
                        Lmdb::open_and_read(dir, 0, |bytes| assert_eq!(bytes, record(0)));
                    }
                });
                vec![time / calls as f64]
            },
        )
    }
    Workload {
        id: "open-small",
        title: "Open a small database, read 64 B, close it",
        how: "200 times, time of each. One region of 64 B, closed before, its files in the page \
              cache. LMDB: mdb_env_open, a get in a transaction for reading, mdb_env_close.",
        touched: 0,
        causes: "",
        metrics: vec![seconds("open, read, close")],
        contenders: vec![
            engine::<Rawdb>(calls),
            engine::<Rawdb05>(calls),
            engine::<New>(calls),
            lmdb(calls),
        ],
        targets: vec![Target::AtMost { metric: 0, value: 0.000_3 }],
        curves: vec![],
    }
}

fn removal(scale: &Scale) -> Workload {
    let count = scale.count(50_000);
    /// Of whatever files are there.
    fn remove(dir: &Path) -> Vec<f64> {
        settle(dir);
        vec![timed(|| fs::remove_dir_all(dir).unwrap())]
    }
    fn engine<E: Engine>(count: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let dir = dir.join("database");
            drop(many_regions::<E>(&dir, count));
            remove(&dir)
        })
    }
    fn lmdb(count: u64) -> Contender {
        fresh(Lmdb::NAME, move |dir| {
            let dir = dir.join("database");
            Lmdb::open(&dir, true).append(0, count);
            remove(&dir)
        })
    }
    Workload {
        id: "removal",
        title: "Remove the files of a database of many regions",
        how: "50,000 regions of 64 B, for LMDB as many records; closed, and synced with the whole \
              file system. Time to unlink all files of the directory, whatever they are called, \
              and the directory.",
        touched: 0,
        causes: "",
        metrics: vec![seconds("unlink")],
        contenders: vec![
            engine::<Rawdb>(count),
            engine::<Rawdb05>(count),
            engine::<New>(count),
            lmdb(count),
        ],
        targets: vec![Target::AtMost { metric: 0, value: 0.1 }],
        curves: vec![],
    }
}

/// Time from the start of the first thread to the end of the last, of `threads` that each do `work`
/// with their number.
fn parallel(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let ready = AtomicUsize::new(0);
    let times: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|number| {
                let (ready, work) = (&ready, &work);
                scope.spawn(move || {
                    // The scheduler needs a moment to find out that both cores have work.
                    let moment = Instant::now();
                    while moment.elapsed() < Duration::from_millis(50) {}
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < threads {}
                    let start = Instant::now();
                    work(number);
                    (start, Instant::now())
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    let start = times.iter().map(|time| time.0).min().unwrap();
    let end = times.iter().map(|time| time.1).max().unwrap();
    (end - start).as_secs_f64()
}

fn threads(scale: &Scale) -> Workload {
    let calls = scale.count(2_000_000);
    fn engine<E: Engine>(calls: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let slots = MIB / 64;
            let capacity = (calls * 64).next_multiple_of(4096).max(MIB);
            let db = E::open(dir, Shape { regions: 5, capacity });
            // One for the thread that is alone, two for those that are not.
            let regions = [0, 1, 2].map(|number| db.create(&format!("appended {number}")));
            let throughput = |one: f64, two: f64| 2.0 * one / two;
            let fill = |region| fill::<E>(region, 0, calls * 64, 64);
            let one = parallel(1, |_| fill(&regions[0]));
            let two = parallel(2, |number| fill(&regions[1 + number]));
            let (appends, append) = (throughput(one, two), two / (2 * calls) as f64);
            regions.iter().for_each(|region| verify::<E>(region, calls * 64, 64));

            let hot = [0, 1].map(|number| db.create(&format!("hot {number}")));
            hot.iter().for_each(|region| self::fill::<E>(region, 0, MIB, 64));
            let view = |region| {
                let mut sum = 0u64;
                for number in 0..calls {
                    let at = scatter(number, slots) * 64;
                    sum = sum.wrapping_add(E::view(region, at, 64, sum64));
                }
                check_reads(black_box(sum), calls, slots);
            };
            let one = parallel(1, |_| view(&hot[0]));
            let views = throughput(one, parallel(2, |number| view(&hot[number])));
            let same = throughput(one, parallel(2, |_| view(&hot[0])));

            let overwrite = |region| {
                let mut bytes = [7; 64];
                for number in 0..calls {
                    let slot = scatter(number, slots);
                    stamp(&mut bytes, slot);
                    E::overwrite(region, slot * 64, black_box(&bytes));
                }
            };
            let one = parallel(1, |_| overwrite(&hot[0]));
            let overwrites = throughput(one, parallel(2, |number| overwrite(&hot[number])));
            hot.iter().for_each(|region| verify::<E>(region, MIB, 64));
            vec![appends, views, overwrites, same, append]
        })
    }
    let metric = |name: &str| Metric { name: name.into(), unit: Unit::Times };
    Workload {
        id: "threads",
        title: "Two threads against one",
        how: "2,000,000 appends of 64 B; as many views at random in 1 MiB, opened, read and \
              released; as many overwrites of 64 B there. How much more two threads do in a time \
              than one: 2 where they do not get into each other's way. The limit shows what the \
              machine itself has to give.",
        touched: 512,
        causes: "half the time of an append goes into new pages, full of zeros, and the kernel lets \
                 one thread at a time write them to a file. Each thread could fault them in instead, \
                 as the stores of the limit do: that takes one thread half as long again, and two \
                 together as long as this does, as the last table shows.",
        metrics: vec![
            metric("appends, a region each"),
            metric("views, a region each"),
            metric("overwrites, a region each"),
            metric("views of the same region"),
            seconds("time of each append, two threads together"),
        ],
        contenders: vec![
            engine::<Rawdb>(calls),
            engine::<Rawdb05>(calls),
            engine::<New>(calls),
            engine::<NewScoped>(calls),
            engine::<Stores>(calls),
            engine::<Populated>(calls),
        ],
        targets: vec![
            Target::AtLeast { metric: 0, value: 1.8 },
            Target::AtLeast { metric: 1, value: 1.8 },
            Target::AtLeast { metric: 2, value: 1.8 },
            Target::AtLeast { metric: 3, value: 1.0 },
        ],
        curves: vec![],
    }
}

fn latency(scale: &Scale) -> Workload {
    let calls = scale.count(2_000_000).max(100_000);
    fn engine<E: Engine>(calls: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let db = E::open(dir, Shape { regions: 1, capacity: calls * 64 });
            let region = db.create("region");
            let mut times = vec![0u32; calls as usize];
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(50));
                        db.flush(Some(&region));
                    }
                });
                let mut bytes = [7; 64];
                let begin = Instant::now();
                for (number, time) in (0..).zip(&mut times) {
                    while begin.elapsed() < Duration::from_micros(number) {}
                    stamp(&mut bytes, number);
                    let start = Instant::now();
                    E::append(&region, number * 64, black_box(&bytes));
                    *time = start.elapsed().as_nanos().try_into().unwrap_or(u32::MAX);
                }
                done.store(true, Ordering::Relaxed);
            });
            verify::<E>(&region, calls * 64, 64);
            times.sort_unstable();
            let at = |share: f64| f64::from(times[(calls as f64 * share) as usize]) / 1e9;
            vec![at(0.5), at(0.999), f64::from(*times.last().unwrap()) / 1e9]
        })
    }
    Workload {
        id: "latency",
        title: "Appends of 64 B while another thread flushes every 50 ms",
        how: "2,000,000 appends, one per microsecond at most, each timed by itself, the clock's \
              tens of nanoseconds included; then the median, the 99.9th percentile and the \
              slowest. The flushes of rawdb 0.13.0 sync nothing.",
        touched: 256,
        causes: "interrupts while the other thread has pages made read-only, and calls that bring \
                 pages into memory, which wait for the file system's journal while a flush commits it.",
        metrics: vec![seconds("median"), seconds("99.9 %"), seconds("slowest")],
        contenders: vec![
            engine::<Rawdb>(calls),
            engine::<Rawdb05>(calls),
            engine::<New>(calls),
            engine::<Populated>(calls),
        ],
        targets: vec![
            Target::Speedup { metric: 1, peers: &[OLD], by: 10.0 },
            Target::Speedup { metric: 1, peers: &[NEW], by: 1.5 },
            Target::AtMost { metric: 2, value: 0.010 },
        ],
        curves: vec![],
    }
}

fn memory_use(scale: &Scale) -> Workload {
    let count = scale.count(10_000);
    fn engine<E: Engine>(count: u64) -> Contender {
        fresh(E::NAME, move |dir| {
            let before = memory::used();
            let db = E::open(dir, Shape { regions: count, capacity: 4096 });
            let open = memory::used();
            for number in 0..count {
                E::append(&db.create(&format!("region {number}")), 0, &record(0));
            }
            db.flush(None);
            let full = memory::used();
            let [heap, resident] = [0, 1].map(|kind| {
                [(open[kind] - before[kind]), (full[kind] - open[kind]) / count as f64]
            });
            vec![heap[0], resident[0], heap[1], resident[1]]
        })
    }
    let metric = |name: &str| Metric { name: name.into(), unit: Unit::Bytes };
    Workload {
        id: "memory",
        title: "Memory",
        how: "What an open database takes, and each of 10,000 regions of 64 B, flushed, whose \
              handles are closed again: from the heap, and as resident anonymous memory, which the heap is in. \
              Pages of the mapped files belong to the page cache.",
        touched: 0,
        causes: "a region has locks, a name, and entries in the maps of names, of extents and of \
                 what is durable.",
        metrics: vec![
            metric("database, heap"),
            metric("database, resident"),
            metric("region, heap"),
            metric("region, resident"),
        ],
        contenders: vec![engine::<Rawdb>(count), engine::<Rawdb05>(count), engine::<New>(count)],
        targets: vec![
            Target::AtMost { metric: 0, value: MIB as f64 },
            Target::AtMost { metric: 1, value: MIB as f64 },
            Target::AtMost { metric: 2, value: 512.0 },
            Target::AtMost { metric: 3, value: 512.0 },
        ],
        curves: vec![],
    }
}

pub fn all(scale: &Scale) -> Vec<Workload> {
    [
        append_small,
        append_pages,
        append_large,
        growing,
        overwrite,
        view,
        held_view,
        open,
        open_small,
        create,
        flush_many,
        removal,
        threads,
        latency,
        region_count,
        region_size,
        memory_use,
    ]
    .map(|workload| workload(scale))
    .into()
}

pub fn limits_note() -> &'static str {
    LIMITS
}

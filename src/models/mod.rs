//! Models: threads that meet, in every order that loom knows.
//!
//! Each runs the real engine on files in memory, with loom's locks and atomics in the place of the
//! usual ones (see [`sync`](crate::sync)). loom sees no plain memory; so every store through a
//! window is told to it ([`stored`]), and the models tell it how long they look at the bytes of a
//! view. A store to viewed bytes, a load of bytes whose store it does not come after in the memory
//! model, a store into a piece without blocks, and a punch under a view all end the run.
//!
//! `scripts/models` runs them. Each is run in every order with at most so many *preemptions*:
//! switches away from a thread that could have gone on. Most errors need one or two, and one more
//! makes ten times as many orders. There is nothing random in it.
//!
//! The mutex that leans ([`biased`](crate::biased)) has models of its own, where a full fence on both
//! sides stands for `membarrier`; in all others a plain mutex stands for it.
//!
//! What they do not show: loom lets loads return old values, but not values of stores that are yet
//! to come; and reference counts are the standard library's, in sequence with everything.

mod biased;
mod memory;
mod scenarios;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Instant;

use loom::cell::ConstPtr;
use loom::thread::JoinHandle;

use crate::region::{Region, RegionInner};
use crate::sync::{Ordering, THREAD_NUMBER};
use crate::{Database, Options, Result, View};
use memory::{Memory, Snapshot};

/// What a model's threads run on, in words. The engine has whole pages on its stack.
const STACK: usize = 1 << 15;

thread_local! {
    /// The files of this execution. (The threads of a model are coroutines of one thread.)
    static MEMORIES: RefCell<Vec<Arc<Memory>>> = const { RefCell::new(Vec::new()) };
    static THREADS_ALWAYS_MEET: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn threads_always_meet() -> bool {
    THREADS_ALWAYS_MEET.get()
}

/// A store through a window.
pub(crate) fn stored(to: *mut u8, len: usize) {
    let memories = MEMORIES.with_borrow(Vec::clone);
    let hit = memories.iter().find_map(|it| it.offset_of(to).map(|offset| (it, offset)));
    let (memory, offset) = hit.expect("stores go to a window");
    memory.stored(offset, len);
}

/// Runs `body` in every order with at most so many preemptions.
fn check(name: &str, preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    let (start, executions) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let (count, body) = (executions.clone(), Arc::new(body));
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        // loom runs this function on a small stack.
        let body = body.clone();
        spawn(0, move || body()).join().expect("the model has reported its failure");
        MEMORIES.with_borrow_mut(Vec::clear);
        THREADS_ALWAYS_MEET.set(false);
    });
    println!(
        "{name}: {} executions, {:.1} s",
        executions.load(Ordering::Relaxed),
        start.elapsed().as_secs_f32()
    );
}

/// Starts a thread. The number decides which stripe it uses.
fn spawn<T: Send + 'static>(
    number: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let numbered = move || {
        THREAD_NUMBER.with(|it| it.set(number));
        body()
    };
    loom::thread::Builder::new().stack_size(STACK).spawn(numbered).expect("loom has threads left")
}

type Thread = Box<dyn FnOnce() + Send>;

fn thread(body: impl FnOnce() + Send + 'static) -> Thread {
    Box::new(body)
}

/// Runs the threads, numbered from 0 on, to their ends.
fn run<const N: usize>(threads: [Thread; N]) {
    let handles: Vec<_> = (0..).zip(threads).map(|(number, body)| spawn(number, body)).collect();
    for handle in handles {
        handle.join().expect("the model has reported its failure");
    }
}

/// A database in memory.
struct World {
    memory: Arc<Memory>,
    db: Arc<Database>,
    /// Every region that was made, to see that it is freed.
    regions: Vec<Weak<RegionInner>>,
}

impl World {
    fn new() -> World {
        World::with(&Options::default())
    }

    fn with(options: &Options) -> World {
        let memory = Memory::new(&[], Vec::new());
        MEMORIES.with_borrow_mut(|memories| memories.push(memory.clone()));
        let db = Database::open_storage(memory.clone(), options).unwrap();
        World { memory, db: Arc::new(db), regions: Vec::new() }
    }

    fn region(&mut self, name: &str, records: &[u64]) -> Region {
        let region = self.db.create_region_if_needed(name).unwrap();
        region.write(&bytes(records)).unwrap();
        self.regions.push(Arc::downgrade(&region.inner));
        region
    }

    /// Every byte has one owner, closing lets the files go once, and nothing is leaked. The caller
    /// has no handle and no view left.
    fn finish(self) {
        self.db.flush().unwrap();
        let stats = self.db.stats().unwrap();
        assert_eq!((stats.pending_bytes, stats.pinned_bytes), (0, 0));
        assert_eq!(4096 + stats.reserved_bytes + stats.free_bytes, stats.file_len);
        assert_eq!(self.memory.unlocks(), 0);
        Arc::into_inner(self.db).expect("threads have dropped theirs").close().unwrap();
        self.regions.iter().for_each(assert_freed);
        assert_eq!(self.memory.unlocks(), 1);
    }

    /// Looks at `count` records from number `first` on, or at all from there on.
    fn look(&self, region: &Region, first: u64, count: Option<u64>) -> Look {
        look(&self.memory, region, first, count).unwrap()
    }
}

fn assert_freed(region: &Weak<RegionInner>) {
    assert_eq!(region.strong_count(), 0, "a region is leaked");
}

fn bytes(records: &[u64]) -> Vec<u8> {
    records.iter().flat_map(|record| record.to_le_bytes()).collect()
}

fn records(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(memory::GRAIN)
        .map(|record| u64::from_le_bytes(record.try_into().expect("a whole record")))
        .collect()
}

/// The regions and their records, as recovery finds them: if the kernel has written nothing but
/// what was synced, and if it has written everything.
fn recovered(snapshot: &Snapshot) -> [BTreeMap<String, Vec<u64>>; 2] {
    let options = Options { read_only: true, ..Options::default() };
    snapshot.data.each_ref().map(|data| {
        let memory = Memory::new(data, snapshot.regions.clone());
        let db = Database::open_storage(memory, &options).unwrap();
        let list = db.list().unwrap().into_iter().map(|(name, _)| {
            let view = db.region(&name).unwrap().view(0, u64::MAX).unwrap();
            (name, records(&view))
        });
        list.collect()
    })
}

/// A view that is being looked at.
struct Look {
    memory: Arc<Memory>,
    records: Vec<u64>,
    watched: Vec<ConstPtr<()>>,
    view: View,
}

// SAFETY: the threads of a model are coroutines of one thread.
unsafe impl Send for Look {}

/// Looks at `count` records from number `first` on, or at all from there on.
fn look(memory: &Arc<Memory>, region: &Region, first: u64, count: Option<u64>) -> Result<Look> {
    let grain = memory::GRAIN as u64;
    let view = region.view(first * grain, count.map_or(u64::MAX, |count| count * grain))?;
    let watched = match memory.offset_of(view.as_ptr()) {
        Some(offset) => memory.watch(offset, view.len()),
        None => Vec::new(),
    };
    Ok(Look { memory: memory.clone(), records: records(&view), watched, view })
}

impl Look {
    /// Looks again, some time later, and for the last time.
    fn end(self) {
        self.memory.pause();
        assert_eq!(records(&self.view), self.records, "a view changed");
        drop(self.watched);
        drop(self.view);
    }
}

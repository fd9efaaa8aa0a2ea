//! What the handles of one open database share.
//!
//! Locks, in the order in which they are taken; a thread that holds one takes only later ones:
//!
//! 1. the compaction,
//! 2. the committer (a flush),
//! 3. writer locks of regions, of several in the order of their slots,
//! 4. the table,
//! 5. the stripes of a region,
//! 6. its retired places, its name; the pieces; the mirror.
//!
//! Those of 3 and 5 are [biased](crate::biased): the mutex within one is taken and let go on the way
//! in, or stands for it.
//!
//! The system is called for something slow (sync, punch, copying a region) under no lock but the
//! one that serialises just that: the committer's for a sync, the region's own for its bytes and
//! blocks.

mod file;
mod names;
mod open;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::flush::Committer;
use crate::fork;
use crate::live::{Change, Live, Record};
use crate::pieces::Pieces;
use crate::steps::Step;
use crate::storage::{File, Storage};
use crate::sync::{
    Apart, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering,
    ReentrantMutex,
};
use crate::table::Table;
use crate::view::Retired;

/// Read by every write of every region; written by flushes and failures only.
struct HotWords {
    /// The present flush epoch. Changes with the table lock held.
    epoch: AtomicU64,
    /// The last epoch that is durable.
    durable_epoch: AtomicU64,
    /// No change is possible: opened for reading only, or a sync has failed, or a call has panicked.
    stopped: AtomicBool,
    /// Of the process that opened the database.
    process_mark: u32,
}

pub(crate) struct Engine {
    hot: Apart<HotWords>,
    pub storage: Arc<dyn Storage>,
    /// `data` is written by system calls.
    pub guarded: bool,
    read_only: bool,
    /// The unit in which blocks are taken and given back.
    pub piece: u64,
    min_file_len: u64,
    pub reclaim_threshold: u64,
    /// The first failed sync, or panic.
    failure: OnceLock<Error>,
    /// Opening is complete.
    opened: AtomicBool,
    table: Apart<Mutex<Table>>,
    pub pieces: Mutex<Pieces>,
    /// Where the table is kept for whoever opens the database after the death of this process.
    live: Option<Live>,
    pub committer: Apart<Mutex<Committer>>,
    /// Held by a compaction.
    pub compaction: ReentrantMutex<()>,
    /// The last epoch at whose end a flush has synced `data`.
    pub synced_epoch: AtomicU64,
    /// How many flushes have begun.
    pub flushes: AtomicU64,
    /// Of the last durable table.
    pub generation: AtomicU64,
    /// What keeps the files locked: the open database, and beyond its end stripes with views and
    /// append buffers.
    holders: AtomicUsize,
}

impl Engine {
    /// Records what slots hold from now on, all of them at once, for the case that this process dies.
    /// What it gives up may be used again from then on, and not before.
    pub fn mirror(&self, changes: &mut [Change]) -> Result<()> {
        self.live.as_ref().map_or(Ok(()), |live| live.record(changes))
    }

    /// Records the length of a region that is recorded there.
    #[inline]
    pub fn mirror_len(&self, record: Record, len: u64) -> Result<()> {
        match &self.live {
            Some(live) => live.store_len(record, len),
            None => Ok(()),
        }
    }

    /// The mirror, if there is one.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// The present flush epoch.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.hot.epoch.load(Ordering::Acquire)
    }

    pub fn lock_table(&self) -> TableGuard<'_> {
        let table = self.table.lock();
        TableGuard { table, engine: self, was_panicking: std::thread::panicking() }
    }

    /// The table, if it can be changed.
    pub fn lock_table_for_change(&self) -> Result<TableGuard<'_>> {
        // Before any lock: after a fork it may never be let go.
        self.check_process()?;
        let table = self.lock_table();
        self.check_not_stopped()?;
        Ok(table)
    }

    /// Runs a part of a call that changes something. If it panics the change may be half done, and
    /// nothing is changed any more. The caller holds the locks for it, so that this is known before
    /// anybody else has them.
    #[inline(always)]
    pub fn change<T>(&self, body: impl FnOnce() -> T) -> T {
        let unwinding = Unwinding(self);
        let result = body();
        std::mem::forget(unwinding);
        result
    }

    /// Ends the present epoch; returns it. With the table lock held.
    pub fn end_epoch(&self, _table: &mut TableGuard<'_>) -> u64 {
        self.hot.epoch.fetch_add(1, Ordering::AcqRel)
    }

    #[inline]
    pub fn durable_epoch(&self) -> u64 {
        self.hot.durable_epoch.load(Ordering::Acquire)
    }

    /// With the table lock held.
    pub fn set_durable(&self, table: &mut Table, epoch: u64) {
        table.set_durable(epoch);
        self.hot.durable_epoch.store(epoch, Ordering::Release);
    }

    /// Refuses a call in a forked child. To be asked before any lock is taken.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.is_own_process() {
            return Ok(());
        }
        Err(self.forked())
    }

    #[inline]
    pub fn is_own_process(&self) -> bool {
        fork::is_same_process(self.hot.process_mark)
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Forked,
            format!("{} was opened before a fork, by the parent process", place(&*self.storage)),
        )
    }

    /// Refuses everything after a failed sync or a panic.
    pub fn check_usable(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Refuses a change that cannot be made.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        self.check_not_stopped()
    }

    /// The same in the process that opened the database.
    #[inline]
    pub fn check_not_stopped(&self) -> Result<()> {
        if self.hot.stopped.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        Ok(())
    }

    #[cold]
    fn stopped(&self) -> Error {
        match self.failure.get() {
            Some(failure) => failure.clone(),
            None => Error::new(
                ErrorKind::ReadOnly,
                format!("{} is open for reading only", place(&*self.storage)),
            ),
        }
    }

    /// A sync has failed. What was dirty may be gone from memory without having reached the disk,
    /// so no later sync proves anything: the database accepts no change until it is opened again.
    pub fn fail(&self, error: Error) -> Error {
        if !Step::StopAfterFailedSync.taken() {
            return error;
        }
        // What a dead process leaves in the page cache may not be all there either.
        self.stop(error, Step::DistrustAfterFailedSync)
    }

    /// A call that changes something is panicking, with locks held for what it may have half done.
    #[cold]
    fn panicked(&self) {
        if !Step::StopAfterPanic.taken() {
            return;
        }
        let error = defect(&*self.storage);
        if self.opened.load(Ordering::Relaxed) {
            // A flush has not recorded what it is made of.
            self.stop(error, Step::DistrustAfterPanic);
        }
    }

    fn stop(&self, error: Error, distrust: Step) -> Error {
        if let Some(live) = self.live.as_ref().filter(|_| distrust.taken()) {
            live.distrust();
        }
        let first = self.failure.get_or_init(|| error);
        // Who sees this sees the failure as well.
        self.hot.stopped.store(true, Ordering::Release);
        first.clone()
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    #[cold]
    pub fn no_memory(&self, bytes: u64) -> Error {
        Error::new(ErrorKind::NoMemory, format!("no memory for a buffer of {bytes} bytes"))
    }

    /// The last view of a retired place has been released.
    pub fn release_pinned(&self, retired: &Retired) {
        let mut table = self.lock_table();
        table.pinned_bytes -= retired.extent.len;
        table.give_up(retired.extent, retired.epoch);
    }

    /// One more reason to keep the files locked, for a while.
    pub fn hold_meanwhile(&self) -> Hold<'_> {
        self.hold();
        Hold(self)
    }

    /// One more reason to keep the files locked.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// One reason less.
    pub fn let_go(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 && self.check_process().is_ok() {
            self.storage.unlock();
        }
    }
}

/// The table, locked.
pub(crate) struct TableGuard<'a> {
    table: MutexGuard<'a, Table>,
    engine: &'a Engine,
    was_panicking: bool,
}

impl Deref for TableGuard<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl DerefMut for TableGuard<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

impl Drop for TableGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.engine.panicked();
        }
    }
}

/// Dropped by a panic only, and before the locks that the caller holds.
struct Unwinding<'a>(&'a Engine);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.panicked();
    }
}

pub(crate) struct Hold<'a>(&'a Engine);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Why a database is not changed any more after a panic.
#[cold]
pub(crate) fn defect(storage: &dyn Storage) -> Error {
    Error::new(
        ErrorKind::Panic,
        format!(
            "a defect in the library (a panic in an earlier call) has stopped {}: it accepts no \
             change and no flush until it is opened again",
            place(storage)
        ),
    )
}

/// How messages name the database: by the directory of its files.
fn place(storage: &dyn Storage) -> String {
    let path = storage.path(File::Data);
    path.parent().unwrap_or(path).display().to_string()
}

//! The database, as its users see it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::region::{Region, RegionInfo};
use crate::storage::uncancelled::UncancelledStorage;
use crate::storage::{File, Storage};
use crate::sync::Ordering;

/// An open database: a directory with the files `data` and `regions`, locked.
///
/// All calls may be made from any thread. Dropping it closes it as [`close`](Database::close)
/// does, but tells nobody whether the last flush succeeded.
pub struct Database {
    engine: Arc<Engine>,
    closed: bool,
}

/// What a database holds and occupies. Lengths are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Regions.
    pub region_count: u64,
    /// Sum of their lengths.
    pub live_bytes: u64,
    /// Address space in `data` that is set aside for them, used or not.
    pub reserved_bytes: u64,
    /// Address space in `data` that is free.
    pub free_bytes: u64,
    /// Given up by regions, and waiting for the next flush.
    pub pending_bytes: u64,
    /// Given up by regions, and held by views.
    pub pinned_bytes: u64,
    /// Length of `data`, which is sparse.
    pub file_len: u64,
    /// Storage that `data` occupies.
    pub disk_bytes: u64,
    /// Grows with every flush that had a change of the region table to write.
    pub generation: u64,
}

impl Database {
    /// Opens the database in the directory `path`, creating both if they are not there.
    ///
    /// # Errors
    ///
    /// `Locked` where the database is open already, in this process or another; `Corrupt` and
    /// `Incompatible` for what the files hold; `NoSpace`, `NoMemory`, `Io` with the operating
    /// system's reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Database::open_with(path, &Options::default())
    }

    /// Opens the database in the directory `path` as `options` say.
    ///
    /// # Errors
    ///
    /// As [`open`](Database::open); `NotFound` and `AlreadyExists` as the options ask for;
    /// `InvalidArgument` for options that contradict each other.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Database> {
        options.check()?;
        let storage = UncancelledStorage::open(path.as_ref(), options)?;
        Database::open_storage(Arc::new(storage), options)
    }

    /// Opens the database in `storage`.
    #[doc(hidden)]
    pub fn open_storage(storage: Arc<dyn Storage>, options: &Options) -> Result<Database> {
        Ok(Database { engine: Engine::open(storage, options)?, closed: false })
    }

    /// The region `name`, which is created, empty, if there is none.
    ///
    /// A name has 1 to [`MAX_NAME_LEN`](crate::MAX_NAME_LEN) bytes of UTF-8 and no control
    /// characters.
    ///
    /// # Errors
    ///
    /// `InvalidName`, `ReadOnly`, `NoSpace`, `Forked`, `Io`.
    pub fn create_region_if_needed(&self, name: &str) -> Result<Region> {
        Ok(Region { inner: self.engine.create_region(name)? })
    }

    /// The region `name`.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidName`, `Forked`.
    pub fn region(&self, name: &str) -> Result<Region> {
        Ok(Region { inner: self.engine.find_region(name)? })
    }

    /// Removes the region `name`. Its handles answer `Removed` from then on; its bytes stay good
    /// for the views that are open. Durable with the next flush, and its space free after that and
    /// after its last view.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidName`, `Busy` while an append is in progress, `ReadOnly`, `Forked`,
    /// `Io` after a failed sync; `NoSpace` only on file systems that need space to overwrite.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.engine.remove(name)
    }

    /// Gives the region `from` the name `to`. With `replace`, a region that has this name is
    /// removed in the same step, so that "write the new version aside, rename over, flush" swaps
    /// contents at once, also across a power loss.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` without `replace`; `NotFound`, `InvalidName`, `Busy` where the region to be
    /// replaced has an append in progress, `ReadOnly`, `Forked`, `Io` after a failed sync; `NoSpace`
    /// only on file systems that need space to overwrite.
    pub fn rename(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        self.engine.rename(from, to, replace)
    }

    /// Removes every region that is not named, in one step. Names without a region do not matter.
    ///
    /// # Errors
    ///
    /// As [`remove`](Database::remove), except `NotFound`; then no region has been removed.
    pub fn retain(&self, names: &[&str]) -> Result<()> {
        self.engine.retain(names)
    }

    /// All regions as of now, sorted by the bytes of their names.
    ///
    /// # Errors
    ///
    /// `Forked`.
    pub fn list(&self) -> Result<Vec<(String, RegionInfo)>> {
        self.engine.check_process()?;
        let mut list: Vec<_> = {
            let table = self.engine.lock_table();
            table.list().map(|(name, info)| (name.to_string(), info)).collect()
        };
        list.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(list)
    }

    /// Makes everything that happened before the call durable, all regions together: after a power
    /// loss the database opens as it stood at the last completed flush, or at one that was in
    /// progress. Writers do not wait for it. Callers that flush at once share the work, and where
    /// nothing has changed there is none.
    ///
    /// One exception: bytes below a region's last flushed length that are overwritten in place
    /// *after* a flush are, per sector of 512 bytes, one of the values written there.
    ///
    /// # Errors
    ///
    /// `Io` where a sync failed. That is final: the database accepts no change and no flush, and
    /// answers with the first failure, until it is opened again. `NoSpace` on a file system that
    /// needs space to overwrite; then nothing is lost, and flush can be called again. `Forked`.
    pub fn flush(&self) -> Result<()> {
        self.engine.flush()
    }

    /// Flushes, gives all free space back to the file system, and cuts the free end off `data`.
    /// Other calls go on meanwhile; another compaction waits for this one.
    ///
    /// # Errors
    ///
    /// As [`flush`](Database::flush); `ReadOnly`.
    pub fn compact(&self) -> Result<()> {
        self.compact_with(&mut |_, _| true)
    }

    /// [`compact`](Database::compact), calling `progress` with the steps done and their total
    /// before each one. Where it returns false the work stops; what is done stays done.
    ///
    /// # Errors
    ///
    /// As [`compact`](Database::compact); `Cancelled`; `Busy` from within `progress`.
    pub fn compact_with(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<()> {
        self.engine.compact(progress)
    }

    /// Makes `data` at least `min_len` bytes long. The length is sparse: it keeps the file from
    /// having to grow, and takes no storage.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `NoMemory`, `ReadOnly`, `Forked`, `Io`.
    pub fn reserve_file(&self, min_len: u64) -> Result<()> {
        self.engine.reserve_file(min_len)
    }

    /// Takes the storage that the table needs for `count` regions in all, with names of up to 40 bytes.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `TooLarge`, `ReadOnly`, `Forked`, `Io`.
    pub fn reserve_regions(&self, count: u64) -> Result<()> {
        self.engine.reserve_regions(count)
    }

    /// What the database holds and occupies. Looks at every region.
    ///
    /// # Errors
    ///
    /// `Forked`, `Io`.
    pub fn stats(&self) -> Result<Stats> {
        self.engine.check_process()?;
        let storage = &self.engine.storage;
        let disk_bytes = storage
            .disk_bytes()
            .map_err(|error| Error::io("examine", storage.path(File::Data), &error))?;
        let table = self.engine.lock_table();
        let mut stats = Stats {
            region_count: (table.names.len() + table.resting.len()) as u64,
            free_bytes: table.space.free(),
            pending_bytes: table.pending_bytes,
            pinned_bytes: table.pinned_bytes,
            file_len: table.space.file_len(),
            disk_bytes,
            generation: self.engine.generation.load(Ordering::Relaxed),
            ..Stats::default()
        };
        for (_, info) in table.list() {
            stats.live_bytes += info.len;
            stats.reserved_bytes += info.reserved;
        }
        Ok(stats)
    }

    /// Flushes and closes. Handles of regions answer `Closed` from then on; open views stay good,
    /// and the files stay locked until the last of them is dropped.
    ///
    /// # Errors
    ///
    /// As [`flush`](Database::flush). The database is closed in any case.
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        self.engine.close()
    }
}

impl Database {
    /// In a forked child that is about to close an inherited database: unmaps it. Views that Rust has would
    /// still have to be good; for C the header says that they are not.
    pub(crate) fn unmap_if_forked(&self) {
        if !self.engine.is_own_process() {
            self.engine.storage.unmap();
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.closed {
            let _ = self.engine.close();
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("data", &self.engine.storage.path(File::Data)).finish()
    }
}

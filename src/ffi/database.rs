//! `rawdb`: an open database.

use std::ffi::{c_char, c_void, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::status::{call, rawdb_status, RAWDB_OK};
use super::{c_str, invalid, object, read_struct, Growable, Out, StructOut};
use crate::cancel::Uncancelled;
use crate::{Database, Options, Result, Stats};

/// An open database: made by rawdb_open(), ended by rawdb_close(). Any number of threads may use it
/// at once.
pub struct rawdb {
    pub(super) database: Database,
}

/// Open for reading only: the database must exist, nothing is written to it, and every call that
/// would change it answers RAWDB_E_READ_ONLY. It can be open so any number of times at once, in one
/// process or several, while nobody has it open for writing.
pub const RAWDB_OPEN_READ_ONLY: u32 = 1;
/// Do not create the database: RAWDB_E_NOT_FOUND if there is none.
pub const RAWDB_OPEN_NO_CREATE: u32 = 2;
/// Only create the database: RAWDB_E_ALREADY_EXISTS if there is one.
pub const RAWDB_OPEN_CREATE_NEW: u32 = 4;
/// Map the region bytes read-only and write them with pwrite(): a stray pointer of the program then
/// faults instead of corrupting the database, for a system call per write.
pub const RAWDB_OPEN_GUARDED: u32 = 8;
/// Create the database in a directory that holds other files, too. Without this flag such a directory is
/// refused: the path may be a mistake.
pub const RAWDB_OPEN_SHARE_DIRECTORY: u32 = 16;

const OPEN_FLAGS: u32 = RAWDB_OPEN_READ_ONLY
    | RAWDB_OPEN_NO_CREATE
    | RAWDB_OPEN_CREATE_NEW
    | RAWDB_OPEN_GUARDED
    | RAWDB_OPEN_SHARE_DIRECTORY;

/// How rawdb_open() opens. Begin with RAWDB_OPTIONS_INIT, which asks for the defaults, and change
/// what you need:
///
///   rawdb_options options = RAWDB_OPTIONS_INIT;
///   options.flags = RAWDB_OPEN_NO_CREATE;
///
/// Later versions may append members; struct_size tells which of them a program knows.
#[repr(C)]
pub struct rawdb_options {
    /// sizeof(rawdb_options), set by RAWDB_OPTIONS_INIT.
    pub struct_size: usize,
    /// RAWDB_OPEN_* flags, or-ed. READ_ONLY or NO_CREATE cannot be together with CREATE_NEW.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Let the data file never be shorter than so many bytes. It is sparse: this costs no disk
    /// space, and spares growing it step by step. 0: as long as needed.
    pub min_file_len: u64,
    /// Take at most so many bytes of address space for mapping the data file. A database that needs
    /// more does not open, and growing beyond it fails: RAWDB_E_NO_MEMORY. 0: the library's choice:
    /// four times the file, and 1 TiB at first; less where many databases are open in the process, and
    /// half of what ulimit -v leaves at most, as long as the file fits.
    pub max_address_space: u64,
    /// Return disk space without being asked: after a flush, stretches of freed space of at least
    /// so many bytes become holes in the data file, as far as they are whole pieces (see DISK
    /// SPACE). 0: 1 MiB. UINT64_MAX: never, rawdb_compact() does.
    pub reclaim_threshold: u64,
}

// SAFETY: integers only, without padding, `struct_size` first.
unsafe impl Growable for rawdb_options {
    const INIT: &'static str = "RAWDB_OPTIONS_INIT";
}

impl rawdb_options {
    fn to_options(&self) -> Result<Options> {
        let unknown = self.flags & !OPEN_FLAGS;
        if unknown != 0 {
            return Err(invalid(format!("options.flags has unknown bits {unknown:#x}")));
        }
        if self.reserved != 0 {
            return Err(invalid(format!("options.reserved is {}, not 0", self.reserved)));
        }
        let has = |flag| self.flags & flag != 0;
        Ok(Options {
            read_only: has(RAWDB_OPEN_READ_ONLY),
            no_create: has(RAWDB_OPEN_NO_CREATE),
            create_new: has(RAWDB_OPEN_CREATE_NEW),
            share_directory: has(RAWDB_OPEN_SHARE_DIRECTORY),
            guarded: has(RAWDB_OPEN_GUARDED),
            min_file_len: self.min_file_len,
            max_address_space: self.max_address_space,
            reclaim_threshold: self.reclaim_threshold,
        })
    }
}

/// What a database consists of at one moment. Begin with RAWDB_STATS_INIT. Later versions may
/// append members; struct_size tells which of them a program knows.
#[repr(C)]
pub struct rawdb_stats {
    /// sizeof(rawdb_stats), set by RAWDB_STATS_INIT and left as it is.
    pub struct_size: usize,
    /// Regions.
    pub region_count: u64,
    /// Bytes in regions: the sum of their lengths.
    pub live_bytes: u64,
    /// Bytes of the data file set aside for regions to grow into, their lengths included.
    pub reserved_bytes: u64,
    /// Bytes of the data file that are free for use by any region.
    pub free_bytes: u64,
    /// Bytes that were given up and become free with the next flush.
    pub pending_bytes: u64,
    /// Bytes that were given up and become free when the views of them are released.
    pub pinned_bytes: u64,
    /// Length of the data file, most of which may be holes.
    pub file_len: u64,
    /// Bytes of disk that the data file occupies (see DISK SPACE).
    pub disk_bytes: u64,
    /// Grows with every flush that had a change of the region table to write: of a length, a name
    /// or a place. Overwriting in place is none.
    pub generation: u64,
}

// SAFETY: integers only, without padding, `struct_size` first.
unsafe impl Growable for rawdb_stats {
    const INIT: &'static str = "RAWDB_STATS_INIT";
}

impl From<Stats> for rawdb_stats {
    fn from(stats: Stats) -> rawdb_stats {
        rawdb_stats {
            struct_size: size_of::<rawdb_stats>(),
            region_count: stats.region_count,
            live_bytes: stats.live_bytes,
            reserved_bytes: stats.reserved_bytes,
            free_bytes: stats.free_bytes,
            pending_bytes: stats.pending_bytes,
            pinned_bytes: stats.pinned_bytes,
            file_len: stats.file_len,
            disk_bytes: stats.disk_bytes,
            generation: stats.generation,
        }
    }
}

/// What rawdb_compact() calls before each of its steps: `done` of `total` are behind it. Anything
/// but 0 stops the work.
///
/// It runs on the thread that called rawdb_compact(), before that call returns. It may call
/// anything but rawdb_close() on this database; rawdb_compact() on it answers RAWDB_E_BUSY, and by
/// another thread waits for this one to return. It must return: no exception, no longjmp() and no
/// pthread_exit() may leave it; pthread_cancel() takes effect after rawdb_compact(). (In the child of
/// a fork() that it makes, rawdb_compact() answers RAWDB_E_FORKED.)
pub type rawdb_progress_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, done: u64, total: u64) -> i32>;

/// Opens the database in the directory `path`, creating it if it does not exist.
///
/// A database is a directory of its own, which is made here, or is empty, with a few files in it.
/// (Files of other programs in it are refused, see RAWDB_OPEN_SHARE_DIRECTORY, and never overwritten
/// or removed.) It is open once at a time, in one process, unless it is for reading only. After the
/// death of the process that had it open it is found as that left it, after a restart of the system as
/// last flushed (see DURABILITY), and at once: there is nothing to repair or to wait for. Opening takes
/// as long as it takes to read the region table, and after a restart to sync the files. For writing it
/// takes 4 KiB of disk space per region, and at least 64 KiB, which rawdb_close() gives back.
///
///   path     the directory, as the operating system takes it, in any encoding. Its parent must
///            exist. It is looked up once: later the process may change its working directory, and
///            the directory may be renamed. To open a directory by a descriptor n, use the path
///            "/proc/self/fd/n". Links in the path are followed; the files in it must not be links.
///   options  or NULL for the defaults.
///   db_out   the database, to be closed with rawdb_close(). NULL on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  path or db_out is NULL; options has a struct_size that was not set,
///                             unknown flags or members, or flags that contradict each other.
///   RAWDB_E_NOT_FOUND         no database there, and READ_ONLY or NO_CREATE forbids to create it;
///                             or the parent directory does not exist.
///   RAWDB_E_ALREADY_EXISTS    a database is there, and CREATE_NEW was given; or no database is
///                             there, but files of other programs.
///   RAWDB_E_LOCKED            it is open already, here or in another process, or was closed here
///                             with views that are still not released; rawdb_last_error() tells.
///   RAWDB_E_CORRUPT           its files are damaged, or not a database's (also: links, or special
///                             files). They are left as they are.
///   RAWDB_E_INCOMPATIBLE      they were written by a version with a newer format.
///   RAWDB_E_TOO_LARGE         min_file_len exceeds what a file can be.
///   RAWDB_E_NO_MEMORY         memory is exhausted, or max_address_space is not enough.
///   RAWDB_E_NO_SPACE, RAWDB_E_IO, RAWDB_E_PANIC
///
/// A database that this call created is on disk, empty, when it returns. A call that fails leaves
/// directory and files as it found them. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_open(
    path: *const c_char,
    options: *const rawdb_options,
    db_out: *mut *mut rawdb,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer.
        let db_out = unsafe { Out::needed(db_out, "db_out") }?;
        // SAFETY: pointer contract.
        let path = OsStr::from_bytes(unsafe { c_str(path, "path") }?.to_bytes());
        let options = if options.is_null() {
            Options::default()
        } else {
            // SAFETY: pointer contract.
            unsafe { read_struct(options, "options") }?.to_options()?
        };
        let database = Database::open_with(path, &options)?;
        db_out.put(Box::into_raw(Box::new(rawdb { database })));
        Ok(RAWDB_OK)
    })
}

/// Flushes, then closes the database and frees the handle, in any case: also when this fails, `db`
/// must not be used again. NULL is RAWDB_OK and does nothing.
///
/// Region handles and views need not be closed first. Handles then answer RAWDB_E_CLOSED, and are
/// still to be freed with rawdb_region_close(); views stay good until they are released, and the
/// directory stays locked until the last of them is.
///
/// RAWDB_OK: everything is durable. Otherwise what was written since the last completed flush is
/// lost:
///   RAWDB_E_IO        a sync failed, now or earlier; see rawdb_flush().
///   RAWDB_E_FORKED    the database belongs to the parent process, which is not affected, nor are
///                     the files. This process has let go of them: its descriptors are closed, and
///                     the mapping is gone, and with it the bytes of inherited views. When the
///                     parent has ended, this process may open the database.
///   RAWDB_E_PANIC     a defect was met, now or earlier; see there.
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY
///
/// Where that matters, call rawdb_flush() first: after it has failed one can still do something.
///
/// Any thread, but it is the last call with `db`: no other may be running.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_close(db: *mut rawdb) -> rawdb_status {
    call(|| {
        if !db.is_null() {
            // SAFETY: pointer contract: `rawdb_open` made the box, and this is the last use of it.
            let db = unsafe { Box::from_raw(db) };
            db.database.unmap_if_forked();
            db.database.close()?;
        }
        Ok(RAWDB_OK)
    })
}

/// Makes durable, atomically, everything in all regions that happened before: contents, lengths,
/// creations, renamings and removals. See DURABILITY for what that promises and what it does not.
///
/// Flushes from several threads at once are one flush; writers and views go on meanwhile. It costs
/// up to two device syncs: one where a few KiB were appended to regions and nothing else happened,
/// none when nothing has changed. That does not depend on how many regions there are. On a database
/// opened READ_ONLY it is RAWDB_OK and does nothing.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db is NULL.
///   RAWDB_E_FORKED            the database belongs to the parent process.
///   RAWDB_E_IO                a sync failed, now or earlier. What had not been flushed may be lost
///                             already, so every write and flush answers this, with the details
///                             of the first failure, until the database is reopened; reads go on.
///   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite. Nothing is lost,
///                             and flushing can be tried again.
///   RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_flush(db: *mut rawdb) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(db, "db") }?.database.flush()?;
        Ok(RAWDB_OK)
    })
}

/// Flushes, then returns to the file system what space it can: free space and unused tails of
/// regions (also what rawdb_region_reserve() set aside) become holes in the data file, within
/// pieces in use as well (see DISK SPACE), and a free end is cut off. Regions are not moved,
/// contents and views not touched; other threads go on, but for another rawdb_compact(), which waits
/// for this one to end.
///
///   progress  called as the work proceeds, or NULL.
///   context   passed on to it.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db is NULL.
///   RAWDB_E_CANCELLED         progress asked to stop. What was returned until then stays returned;
///                             nothing is lost, and another call takes up the rest.
///   RAWDB_E_BUSY              called by progress itself.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_IO, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
///                             as with rawdb_flush(), or making a hole failed.
///
/// Durable when it returns RAWDB_OK, as after rawdb_flush(). Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_compact(
    db: *mut rawdb,
    progress: rawdb_progress_fn,
    context: *mut c_void,
) -> rawdb_status {
    // The progress function is full of cancellation points.
    let _uncancelled = Uncancelled::begin();
    call(|| {
        // SAFETY: pointer contract.
        let database = &unsafe { object(db, "db") }?.database;
        match progress {
            None => database.compact()?,
            Some(progress) => database.compact_with(&mut |done, total| {
                // SAFETY: pointer contract, for a function that the header forbids to unwind.
                unsafe { progress(context, done, total) == 0 }
            })?,
        }
        Ok(RAWDB_OK)
    })
}

/// Makes the data file at least `min_len` bytes long, to spare growing it step by step when much
/// data is about to come. The file is sparse: this takes no disk space, and so is no protection
/// against RAWDB_E_NO_SPACE; rawdb_region_reserve() is about a region. Never shortens.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db is NULL.
///   RAWDB_E_TOO_LARGE         a file cannot be that long here.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
///   RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_reserve_file(db: *mut rawdb, min_len: u64) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(db, "db") }?.database.reserve_file(min_len)?;
        Ok(RAWDB_OK)
    })
}

/// Makes room in the region table for `count` regions altogether, so that creating them is faster
/// and does not need disk space for the table, where names have up to 40 bytes. Never takes room
/// away.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db is NULL.
///   RAWDB_E_TOO_LARGE         a table cannot be that large.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
///   RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_reserve_regions(db: *mut rawdb, count: u64) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(db, "db") }?.database.reserve_regions(count)?;
        Ok(RAWDB_OK)
    })
}

/// Tells what the database consists of at this moment. It looks at every region, so it is for
/// monitoring, not for the way of a request.
///
///   stats_out  begun with RAWDB_STATS_INIT. Zero on failure, but for struct_size.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db or stats_out is NULL, or struct_size was not set (the struct is
///                             then left as it is).
///   RAWDB_E_FORKED, RAWDB_E_IO, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_get_stats(
    db: *mut rawdb,
    stats_out: *mut rawdb_stats,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let stats_out = unsafe { StructOut::needed(stats_out, "stats_out") }?;
        // SAFETY: pointer contract.
        stats_out.put(unsafe { object(db, "db") }?.database.stats()?.into());
        Ok(RAWDB_OK)
    })
}

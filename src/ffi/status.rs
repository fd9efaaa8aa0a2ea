//! Status codes, their names, and the calling thread's last error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, CStr, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::{Error, ErrorKind, Result};

/// What a call answers: RAWDB_OK, RAWDB_DONE (rawdb_region_iter_next only), or one of the negative
/// RAWDB_E_* constants. The numbers are never changed or used again for something else; later
/// versions may add some, so treat every negative value as a failure. rawdb_last_error() has the
/// details of a failure.
pub type rawdb_status = i32;

/// The call did what it was asked to do.
pub const RAWDB_OK: rawdb_status = 0;
/// There is nothing more to iterate over. Not an error.
pub const RAWDB_DONE: rawdb_status = 1;
/// An argument is NULL, out of range, or contradicts another.
pub const RAWDB_E_INVALID_ARGUMENT: rawdb_status = -1;
/// There is no region, or no database, of that name.
pub const RAWDB_E_NOT_FOUND: rawdb_status = -2;
/// There is a region, or a database, of that name already, or files of other programs where a database is
/// to be created.
pub const RAWDB_E_ALREADY_EXISTS: rawdb_status = -3;
/// An offset or a length reaches beyond the region, or beyond the buffer that was asked for.
pub const RAWDB_E_OUT_OF_BOUNDS: rawdb_status = -4;
/// The size asked for exceeds what a file, or a limit on files, or this format allows.
pub const RAWDB_E_TOO_LARGE: rawdb_status = -5;
/// The name is empty, longer than RAWDB_MAX_NAME_LEN bytes, not UTF-8, or has control characters.
pub const RAWDB_E_INVALID_NAME: rawdb_status = -6;
/// The database is open already, in this process or in another.
pub const RAWDB_E_LOCKED: rawdb_status = -7;
/// The region has an append open (rawdb_region_append_begin), or rawdb_compact() is called by its own
/// callback.
pub const RAWDB_E_BUSY: rawdb_status = -8;
/// The region has been removed; this handle is of no more use than to be closed.
pub const RAWDB_E_REMOVED: rawdb_status = -9;
/// The database has been closed; this handle is of no more use than to be closed.
pub const RAWDB_E_CLOSED: rawdb_status = -10;
/// The database is open for reading only.
pub const RAWDB_E_READ_ONLY: rawdb_status = -11;
/// The handle was inherited through fork() or clone(); it belongs to the parent process.
pub const RAWDB_E_FORKED: rawdb_status = -12;
/// The disk, or the user's quota on it, is full.
pub const RAWDB_E_NO_SPACE: rawdb_status = -13;
/// Memory or address space is exhausted.
pub const RAWDB_E_NO_MEMORY: rawdb_status = -14;
/// The operating system reported a failure; rawdb_last_os_error() has its errno. After a failed
/// sync this is also the answer to every later write and flush, until the database is reopened.
pub const RAWDB_E_IO: rawdb_status = -15;
/// The files are damaged, or do not belong together; rawdb_last_error() names file, page and
/// reason.
pub const RAWDB_E_CORRUPT: rawdb_status = -16;
/// The files were written by a version with a newer format.
pub const RAWDB_E_INCOMPATIBLE: rawdb_status = -17;
/// A callback asked to stop.
pub const RAWDB_E_CANCELLED: rawdb_status = -18;
/// A defect in the library, caught before it could reach the caller; rawdb_last_error() says what
/// was noticed, and stderr where. If it was in a call that changes something, this is also the answer
/// to every later change and flush, and to rawdb_close(): nothing that may be half done becomes
/// durable. Reads go on. The next rawdb_open() finds what the last completed flush has made durable,
/// or one that was under way. Report it.
pub const RAWDB_E_PANIC: rawdb_status = -19;

/// Every status with its name and its message; the header promises that these are static.
macro_rules! statuses {
    ($($status:ident: $message:literal,)*) => {
        &[$(($status, c_str(concat!(stringify!($status), "\0")), $message)),*]
    };
}

const fn c_str(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("the name ends with its only NUL"),
    }
}

const STATUSES: &[(rawdb_status, &CStr, &CStr)] = statuses![
    RAWDB_OK: c"success",
    RAWDB_DONE: c"nothing more to iterate over",
    RAWDB_E_INVALID_ARGUMENT: c"an argument is NULL, out of range, or contradicts another",
    RAWDB_E_NOT_FOUND: c"no such region or database",
    RAWDB_E_ALREADY_EXISTS: c"the name is taken already",
    RAWDB_E_OUT_OF_BOUNDS: c"offset or length out of bounds",
    RAWDB_E_TOO_LARGE: c"larger than can be held",
    RAWDB_E_INVALID_NAME: c"not a valid region name",
    RAWDB_E_LOCKED: c"the database is open already",
    RAWDB_E_BUSY: c"an append to the region, or this compaction, is under way",
    RAWDB_E_REMOVED: c"the region has been removed",
    RAWDB_E_CLOSED: c"the database has been closed",
    RAWDB_E_READ_ONLY: c"the database is open for reading only",
    RAWDB_E_FORKED: c"the handle belongs to the parent process",
    RAWDB_E_NO_SPACE: c"no space left on the disk",
    RAWDB_E_NO_MEMORY: c"out of memory or address space",
    RAWDB_E_IO: c"the operating system reported an error",
    RAWDB_E_CORRUPT: c"the database files are damaged",
    RAWDB_E_INCOMPATIBLE: c"the files have a newer format",
    RAWDB_E_CANCELLED: c"cancelled by the callback",
    RAWDB_E_PANIC: c"a defect in the library was caught",
];

/// Name and message; also of numbers that a newer library, or nobody, has given out.
pub(super) fn describe(status: rawdb_status) -> (&'static CStr, &'static CStr) {
    STATUSES
        .iter()
        .find(|(code, ..)| *code == status)
        .map_or((c"RAWDB_E_UNKNOWN", c"unknown status"), |&(_, name, message)| (name, message))
}

fn status_of(kind: ErrorKind) -> rawdb_status {
    match kind {
        ErrorKind::InvalidArgument => RAWDB_E_INVALID_ARGUMENT,
        ErrorKind::NotFound => RAWDB_E_NOT_FOUND,
        ErrorKind::AlreadyExists => RAWDB_E_ALREADY_EXISTS,
        ErrorKind::OutOfBounds => RAWDB_E_OUT_OF_BOUNDS,
        ErrorKind::TooLarge => RAWDB_E_TOO_LARGE,
        ErrorKind::InvalidName => RAWDB_E_INVALID_NAME,
        ErrorKind::Locked => RAWDB_E_LOCKED,
        ErrorKind::Busy => RAWDB_E_BUSY,
        ErrorKind::Removed => RAWDB_E_REMOVED,
        ErrorKind::Closed => RAWDB_E_CLOSED,
        ErrorKind::ReadOnly => RAWDB_E_READ_ONLY,
        ErrorKind::Forked => RAWDB_E_FORKED,
        ErrorKind::NoSpace => RAWDB_E_NO_SPACE,
        ErrorKind::NoMemory => RAWDB_E_NO_MEMORY,
        ErrorKind::Io => RAWDB_E_IO,
        ErrorKind::Corrupt => RAWDB_E_CORRUPT,
        ErrorKind::Incompatible => RAWDB_E_INCOMPATIBLE,
        ErrorKind::Cancelled => RAWDB_E_CANCELLED,
        ErrorKind::Panic => RAWDB_E_PANIC,
    }
}

thread_local! {
    static LAST_MESSAGE: RefCell<Option<CString>> = const { RefCell::new(None) };
    static LAST_OS_ERROR: Cell<i32> = const { Cell::new(0) };
}

/// The text is the thread's until it fails again. A thread that is ending has lost its record,
/// hence `try_with` here and below: a C++ destructor may still call in then.
pub(super) fn last_message() -> *const c_char {
    LAST_MESSAGE
        .try_with(|last| last.borrow().as_ref().map(|message| message.as_ptr()))
        .ok()
        .flatten()
        .unwrap_or(c"".as_ptr())
}

pub(super) fn last_os_error() -> i32 {
    LAST_OS_ERROR.try_with(Cell::get).unwrap_or(0)
}

fn record(message: String, os_error: i32) {
    let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    let _ = LAST_MESSAGE.try_with(|last| last.replace(Some(message)));
    let _ = LAST_OS_ERROR.try_with(|last| last.set(os_error));
}

#[cold]
fn failed(error: &Error) -> rawdb_status {
    record(error.to_string(), error.os_error().unwrap_or(0));
    status_of(error.kind())
}

#[cold]
fn panicked(payload: &(dyn Any + Send)) -> rawdb_status {
    let what = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    record(format!("panic in the library: {what}"), 0);
    RAWDB_E_PANIC
}

/// Going on after a panic is sound (`AssertUnwindSafe`): the engine lets go of its locks as it unwinds,
/// and changes nothing any more where something may be half changed.
fn guarded<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    catch_unwind(AssertUnwindSafe(|| {
        // So that tests see what a panic becomes, in every function, on its way to C.
        #[cfg(feature = "simulation")]
        assert!(std::env::var_os("RAWDB_TEST_PANIC").is_none(), "a test asked for a panic");
        body()
    }))
}

/// Runs the body of a function that answers a status.
pub(super) fn call(body: impl FnOnce() -> Result<rawdb_status>) -> rawdb_status {
    match guarded(body) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => failed(&error),
        Err(payload) => panicked(&*payload),
    }
}

/// As [`call`], for a function that has no status to answer: `otherwise` stands for a panic.
pub(super) fn call_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    guarded(body).unwrap_or_else(|payload| {
        panicked(&*payload);
        otherwise
    })
}

//! The one error type of the crate.

use std::fmt;
use std::io;
use std::path::Path;

/// What went wrong, as a program tells it apart. Each kind is one `RAWDB_E_*` status of the C
/// interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument makes no sense: options that contradict each other, lengths that do not match.
    InvalidArgument,
    /// No region has this name, or no database is there and none was to be created.
    NotFound,
    /// A region of this name, or a database, is there already.
    AlreadyExists,
    /// An offset or range lies outside the region.
    OutOfBounds,
    /// The result would be larger than the library or the file system can hold.
    TooLarge,
    /// A name is empty, longer than [`MAX_NAME_LEN`](crate::MAX_NAME_LEN), or has control
    /// characters.
    InvalidName,
    /// Another handle, in this process or another, has the database open.
    Locked,
    /// The region has an append in progress, or a compaction the callback that asks for another.
    Busy,
    /// The region was removed.
    Removed,
    /// The database was closed.
    Closed,
    /// The database is open for reading only.
    ReadOnly,
    /// The handle was made before a `fork` and is used in the child.
    Forked,
    /// The disk is full, or a quota or size limit is reached.
    NoSpace,
    /// Memory or address space ran out.
    NoMemory,
    /// The operating system refused a file operation; after a failed sync, every later write.
    Io,
    /// The files hold something that a database cannot hold.
    Corrupt,
    /// The files were written by a newer version of the format.
    Incompatible,
    /// A progress callback asked to stop.
    Cancelled,
    /// An earlier call that changes something has panicked: a defect in the library. The database
    /// accepts no change any more.
    Panic,
}

/// What failed, where, with which numbers, and the operating system's reason if it has one.
///
/// [`Display`](fmt::Display) gives it as one sentence.
#[derive(Debug, Clone)]
pub struct Error(Box<Failure>);

/// Apart, so that a result that is no error is passed in registers.
#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    message: Box<str>,
    os_error: Option<i32>,
}

/// The result of every fallible call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Failure { kind, message: message.into().into_boxed_str(), os_error: None }))
    }

    /// An operating-system error met while doing `action` ("extend", "sync", ...) on `path`.
    pub(crate) fn io(action: &str, path: &Path, error: &io::Error) -> Error {
        let os_error = error.raw_os_error();
        let kind = match os_error {
            Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
            Some(libc::ENOMEM) => ErrorKind::NoMemory,
            Some(libc::EFBIG) => ErrorKind::TooLarge,
            Some(libc::EWOULDBLOCK) => ErrorKind::Locked,
            Some(libc::ENOENT) => ErrorKind::NotFound,
            None if error.kind() == io::ErrorKind::OutOfMemory => ErrorKind::NoMemory,
            _ => ErrorKind::Io,
        };
        Error(Box::new(Failure {
            kind,
            message: format!("cannot {action} {}: {error}", path.display()).into_boxed_str(),
            os_error,
        }))
    }

    /// The same error as another kind: a failed sync is `Io` whatever the reason.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operating system's error number, where it gave one.
    pub fn os_error(&self) -> Option<i32> {
        self.0.os_error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

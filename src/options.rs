//! How to open a database.

use crate::error::{Error, ErrorKind, Result};

/// How to open a database. The default opens it for reading and writing and creates it if there
/// is none.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Open for reading only. Several processes may do so at once, with no writer beside them.
    pub read_only: bool,
    /// Fail with `NotFound` where there is no database.
    pub no_create: bool,
    /// Fail with `AlreadyExists` where there is one.
    pub create_new: bool,
    /// Create the database in a directory that holds other files, too. Without, that is refused with
    /// `AlreadyExists`: the path may be a mistake.
    pub share_directory: bool,
    /// Map `data` read-only and write it through system calls, so that a stray pointer in the
    /// program cannot damage it. Chosen without being asked on file systems that cannot promise
    /// space for a store into the mapping.
    pub guarded: bool,
    /// Make `data` at least so long, in bytes. The length is sparse and takes no blocks.
    pub min_file_len: u64,
    /// Use at most so many bytes of address space for the mapping. 0 leaves it to the library: four times
    /// the file, and 1 TiB at first; less where many databases are open in the process, and half of what
    /// `RLIMIT_AS` leaves at most, as long as the file fits.
    pub max_address_space: u64,
    /// After a flush, give freed space back to the file system where at least so many bytes of it
    /// lie together. 0 means 1 MiB, `u64::MAX` never.
    pub reclaim_threshold: u64,
}

/// A punch costs about 100 us. Below a mebibyte that buys little, and the space is likely to be
/// used again soon.
const DEFAULT_RECLAIM_THRESHOLD: u64 = 1 << 20;

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        let contradiction = if self.read_only && self.create_new {
            "a database cannot be created and opened for reading only"
        } else if self.no_create && self.create_new {
            "a database cannot be new and not be created"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, contradiction))
    }

    pub(crate) fn may_create(&self) -> bool {
        !self.read_only && !self.no_create
    }

    pub(crate) fn effective_reclaim_threshold(&self) -> u64 {
        match self.reclaim_threshold {
            0 => DEFAULT_RECLAIM_THRESHOLD,
            threshold => threshold,
        }
    }
}

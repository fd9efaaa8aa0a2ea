//! Everything that touches a file goes through [`Storage`], so that tests can put a disk that
//! fails and crashes in the place of the operating system.
//!
//! The one thing that does not is a load or store through a [`Window`]: it is a plain memory
//! access, and the hot path of the library.

mod descriptor;
mod directory;
pub(crate) mod file;
mod holding;
mod list;
mod mappings;
#[cfg(feature = "simulation")]
pub mod simulation;
pub(crate) mod uncancelled;
pub(crate) mod window;

use std::any::Any;
use std::io;
use std::iter;
use std::ops::Range;
use std::path::Path;

pub use holding::Holding;

/// The files of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum File {
    /// The identity page and the bytes of the regions.
    Data,
    /// Headers and slots of the region table.
    Regions,
    /// The mirror of the table in memory, which is there while the database is open.
    Live,
}

impl File {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            File::Data => "data",
            File::Regions => "regions",
            File::Live => "live",
        }
    }
}

/// A mapping of a file. That of `data` begins with its first byte and is longer than the file, so
/// that the file can grow into it. The address never changes while the window lives.
pub struct Window {
    base: *mut u8,
    len: u64,
    /// Whatever keeps the mapping alive.
    _mapping: Box<dyn Any + Send + Sync>,
}

// SAFETY: a window is an address range. Who may touch which bytes of it when is the business of
// the region layer; the mapping itself may be used from any thread and is immutable.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    pub(crate) fn new(base: *mut u8, len: u64, mapping: Box<dyn Any + Send + Sync>) -> Window {
        Window { base, len, _mapping: mapping }
    }

    /// How many bytes of the file can be reached through this window.
    pub fn reach(&self) -> u64 {
        self.len
    }

    /// The address of the byte `offset` bytes behind the window's first.
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        assert!(offset <= self.len, "offset {offset} is beyond the window of {}", self.len);
        // `len` bytes are mapped, so `offset` fits the address space and the result is inside.
        self.base.wrapping_add(offset as usize)
    }
}

/// The bytes of a file, holes included.
pub struct Contents {
    pub(crate) bytes: Box<dyn AsRef<[u8]>>,
    /// In ascending order, where they may be other than zero. A file that is sparse elsewhere has
    /// cost nothing, and is not to cost its reader time or memory.
    pub(crate) written: Vec<Range<usize>>,
}

impl Contents {
    /// Bytes that may be anything.
    pub(crate) fn of(bytes: Vec<u8>) -> Contents {
        Contents { written: iter::once(0..bytes.len()).collect(), bytes: Box::new(bytes) }
    }
}

/// Which file a name stands for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    pub(crate) device: u64,
    /// How often the system had got a disk when it got this one, which tells it from one that was taken
    /// away and came back without what had not been written to it; 0 where the system does not say.
    pub(crate) disk: u64,
    pub(crate) inode: u64,
    /// When it was created, in nanoseconds since 1970; 0 where the file system does not say. Inodes
    /// are used again.
    pub(crate) born: u64,
}

impl FileId {
    /// Whether it may be the same file: what is known of one of them only, tells nothing.
    pub(crate) fn may_be(&self, other: &FileId) -> bool {
        let may_be = |a, b| a == b || a == 0 || b == 0;
        (self.device, self.inode) == (other.device, other.inode)
            && may_be(self.disk, other.disk)
            && may_be(self.born, other.born)
    }
}

/// The files of one open, locked database. All offsets and lengths are bytes.
pub trait Storage: Send + Sync {
    /// Where `file` lies, for messages.
    fn path(&self, file: File) -> &Path;
    /// The length of `file`.
    fn len(&self, file: File) -> io::Result<u64>;
    /// Makes `file` exactly `len` long; new bytes are zero and sparse.
    fn set_len(&self, file: File, len: u64) -> io::Result<()>;
    /// `regions` is empty and about to be created. May ask the file system to overwrite it in place.
    fn prepare_table(&self) {}
    /// Gives the range blocks of its own, extending the file if need be. Bytes that were there
    /// keep their values, new ones are zero. If it fails, what it got within the file is given back; where
    /// the file has become longer, the caller cuts it.
    fn allocate(&self, file: File, offset: u64, len: u64) -> io::Result<()>;
    /// The parts of a range of `data` that have no blocks; none where the system does not say.
    fn holes(&self, _offset: u64, _len: u64) -> Vec<Range<u64>> {
        Vec::new()
    }
    /// Takes the blocks of the range in `data` away; its bytes become zero.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes zeros to whole pages of `data` that have their blocks, which brings the pages into memory.
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes every byte written to `file` so far, and its length, durable.
    fn sync(&self, file: File) -> io::Result<()>;
    /// Makes the names of the two files durable, and that of their directory.
    fn sync_directory(&self) -> io::Result<()>;
    /// Has the next loads from `data` come from the disk, where no page of it is dirty. After a failed
    /// sync the kernel calls pages clean that the disk does not have.
    fn reread_data(&self) -> io::Result<()>;
    /// Maps `data` in a window of at least `least` bytes, for the file to grow in, and at most `most`.
    /// None of them can be accessed yet.
    fn map_data(&self, least: u64, most: u64) -> io::Result<Window>;
    /// Makes the first `len` bytes of a window accessible. The part beyond the file stays closed:
    /// a stray pointer there is told from a truncated file, and tools that walk through a process's
    /// memory, as valgrind's search for leaks, need not walk through all of it.
    fn open_window(&self, window: &Window, len: u64, writable: bool) -> io::Result<()>;
    /// Has a window of a database that is open for reading only show these bytes where the file has others.
    fn cover(&self, window: &Window, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Takes the faults of the first stores into pages of a window, all at once. Their bytes stay.
    fn make_writable(&self, first: *mut u8, len: usize) -> io::Result<()>;
    /// The whole of `regions` or `live`, to be read; nothing where there is no `live`.
    fn read(&self, file: File) -> io::Result<Contents>;
    /// A range of `regions` is about to be written, a few bytes of each page, for the first time. Has the
    /// page cache keep it in large parts, which is what mapping it costs when it is read.
    fn cache_table(&self, _offset: u64, _len: u64) {}
    /// The first page of `data`, or less where the file is shorter.
    fn read_identity(&self) -> io::Result<Vec<u8>>;
    /// Bytes of storage that `data` occupies.
    fn disk_bytes(&self) -> io::Result<u64>;
    /// Whether a store into allocated pieces of the mapping cannot run out of space.
    fn keeps_allocated(&self) -> bool;
    /// Whether even a load from a hole in the mapping takes space, and so can run out of it.
    fn holes_take_space(&self) -> bool;
    /// The largest, aligned part of `data` whose blocks one store may make the system look for.
    fn piece_len(&self) -> u64;
    /// Sixteen bytes that no other database has.
    fn new_uuid(&self) -> io::Result<[u8; 16]>;
    /// Makes `live` an empty file, whether it was there or not.
    fn create_live(&self) -> io::Result<()>;
    /// Maps a range of `live`, readable and writable.
    fn map_live(&self, offset: u64, len: u64) -> io::Result<Window>;
    /// Removes `live`, if it is there and still the file that was opened.
    fn remove_live(&self) -> io::Result<()>;
    /// A store into a mapping of `live` has happened. Only a simulation wants to know.
    #[cfg(feature = "simulation")]
    fn stored_live(&self) {}
    /// Which file `data` or `regions` is.
    fn file_id(&self, file: File) -> io::Result<FileId>;
    /// A number that changes whenever the system starts, and with it everything that the page cache
    /// has and the disk has not is gone. `None` where the system does not tell.
    fn boot_id(&self) -> io::Result<Option<[u8; 16]>>;
    /// Removes what has been made since the files were opened, of a database that was not created after all.
    fn remove_created(&self) {}
    /// What others are told who want to open the database.
    fn holding(&self) -> &Holding;
    /// Lets another process open the database.
    fn unlock(&self);
    /// In a forked child: closes its descriptors, so that the lock goes with the parent. Nothing but `unmap`
    /// may be called after it.
    fn leave_to_parent(&self) {}
    /// In a forked child: unmaps all windows. Nobody looks at a view any more.
    fn unmap(&self) {}
}

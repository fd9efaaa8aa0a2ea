//! The real files, for threads that may be cancelled.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::path::Path;

use super::file::FileStorage;
use super::{Contents, File, FileId, Holding, Storage, Window};
use crate::cancel::Uncancelled;
use crate::error::Result;
use crate::options::Options;

/// [`FileStorage`], during whose calls no thread is cancelled.
pub(crate) struct UncancelledStorage(ManuallyDrop<FileStorage>);

impl UncancelledStorage {
    /// See [`FileStorage::open`].
    pub fn open(directory: &Path, options: &Options) -> Result<UncancelledStorage> {
        let _uncancelled = Uncancelled::begin();
        FileStorage::open(directory, options).map(|it| UncancelledStorage(ManuallyDrop::new(it)))
    }
}

impl Drop for UncancelledStorage {
    fn drop(&mut self) {
        let _uncancelled = Uncancelled::begin();
        // SAFETY: it is not used after this.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

macro_rules! uncancelled {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $answer {
            let _uncancelled = Uncancelled::begin();
            self.0.$name($($argument),*)
        })*
    };
}

impl Storage for UncancelledStorage {
    fn path(&self, file: File) -> &Path {
        self.0.path(file)
    }

    fn holding(&self) -> &Holding {
        self.0.holding()
    }

    uncancelled! {
        len(file: File) -> io::Result<u64>;
        set_len(file: File, len: u64) -> io::Result<()>;
        allocate(file: File, offset: u64, len: u64) -> io::Result<()>;
        holes(offset: u64, len: u64) -> Vec<Range<u64>>;
        punch(offset: u64, len: u64) -> io::Result<()>;
        write(file: File, offset: u64, bytes: &[u8]) -> io::Result<()>;
        write_zeros(offset: u64, len: u64) -> io::Result<()>;
        sync(file: File) -> io::Result<()>;
        sync_directory() -> io::Result<()>;
        reread_data() -> io::Result<()>;
        map_data(least: u64, most: u64) -> io::Result<Window>;
        open_window(window: &Window, len: u64, writable: bool) -> io::Result<()>;
        cover(window: &Window, offset: u64, bytes: &[u8]) -> io::Result<()>;
        make_writable(first: *mut u8, len: usize) -> io::Result<()>;
        read(file: File) -> io::Result<Contents>;
        cache_table(offset: u64, len: u64) -> ();
        read_identity() -> io::Result<Vec<u8>>;
        disk_bytes() -> io::Result<u64>;
        keeps_allocated() -> bool;
        holes_take_space() -> bool;
        piece_len() -> u64;
        new_uuid() -> io::Result<[u8; 16]>;
        create_live() -> io::Result<()>;
        map_live(offset: u64, len: u64) -> io::Result<Window>;
        remove_live() -> io::Result<()>;
        file_id(file: File) -> io::Result<FileId>;
        boot_id() -> io::Result<Option<[u8; 16]>>;
        prepare_table() -> ();
        remove_created() -> ();
        unlock() -> ();
        leave_to_parent() -> ();
        unmap() -> ();
    }
}

//! The real files, by way of the operating system.

use std::fs;
use std::io;
use std::iter;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use super::descriptor::{check, park, read_front, read_text, Descriptor, SHORT};
use super::directory::{is_same, Directory};
use super::holding::{holder_of, Holding};
use super::mappings::Mappings;
use super::window::{map_ahead, page_size, MappedBytes, Mapping, Source};
use super::{Contents, File, FileId, Storage, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::format::PAGE_SIZE;
use crate::options::Options;

/// File systems on which a block, once allocated, stays where it is until it is given up, so that
/// a store into it needs no space. On copy-on-write file systems (btrfs, zfs, bcachefs, and xfs
/// once a file shares extents with a copy) an overwrite takes a fresh block, and the kernel reports
/// its absence as SIGBUS. What is not listed is written through system calls, which report errors.
const KEEPS_ALLOCATED: [i64; 2] = [0xEF53 /* ext2, ext3, ext4 */, TMPFS];
const TMPFS: i64 = 0x0102_1994;
const BTRFS: i64 = 0x9123_683E;

/// `FS_NOCOW_FL` of linux/fs.h.
const NO_COPY_ON_WRITE: libc::c_long = 0x0080_0000;

/// Tells the running system from those before and after it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How often to begin anew where another process removes and makes the database meanwhile.
const ATTEMPTS: u32 = 100;

/// `data`, `regions` and `live` in a directory, locked.
#[derive(Debug)]
pub(crate) struct FileStorage {
    directory: Directory,
    /// `data` once more, to lock it: a mapping keeps what it was made by open, and would keep the lock in
    /// a forked child.
    lock: Descriptor,
    data: Descriptor,
    regions: Descriptor,
    /// Where there is one.
    live: OnceLock<Descriptor>,
    data_path: PathBuf,
    regions_path: PathBuf,
    live_path: PathBuf,
    mappings: Arc<Mappings>,
    holding: &'static Holding,
    is_unlocked: AtomicBool,
    file_system: i64,
    read_only: bool,
    /// `RLIMIT_FSIZE` when it was looked at last; 0 has the next write look.
    size_limit: AtomicU64,
    process_mark: u32,
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // In a forked child the lock is the parent's.
        if fork::is_same_process(self.process_mark) {
            self.unlock();
        }
    }
}

/// What is found, or made, when `data` is locked.
struct Others {
    data: Descriptor,
    regions: Descriptor,
    live: OnceLock<Descriptor>,
    file_system: i64,
    holding: &'static Holding,
}

impl FileStorage {
    /// Opens and locks the files, creating directory and files as the options allow. Whether they
    /// hold a database is for the caller to see; created files are empty.
    pub fn open(path: &Path, options: &Options) -> Result<FileStorage> {
        let process_mark = fork::process_mark(path)?;
        for _ in 0..ATTEMPTS {
            if let Some(storage) = FileStorage::try_open(path, options, process_mark)? {
                return Ok(storage);
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("{} is removed and made anew all the time", path.display()),
        ))
    }

    /// `None` where another process has removed or made something meanwhile.
    fn try_open(path: &Path, options: &Options, process_mark: u32) -> Result<Option<FileStorage>> {
        let directory = Directory::open(path, options.may_create())?;
        let opened = FileStorage::lock_data(&directory, options);
        let Ok(Some((lock, made))) = opened else {
            directory.remove_made();
            return opened.map(|_| None);
        };
        let opened = FileStorage::open_others(&directory, &lock, made, options);
        let others = opened.inspect_err(|_| {
            directory.remove_made();
            unlock(&lock);
        })?;
        let Others { data, regions, live, file_system, holding } = others;
        Ok(Some(FileStorage {
            data_path: directory.path(File::Data),
            regions_path: directory.path(File::Regions),
            live_path: directory.path(File::Live),
            directory,
            lock,
            data,
            regions,
            live,
            mappings: Mappings::new(),
            holding,
            is_unlocked: AtomicBool::new(false),
            file_system,
            read_only: options.read_only,
            size_limit: AtomicU64::new(0),
            process_mark,
        }))
    }

    /// Opens `data` and locks it, and tells whether it was made. The lock comes before the first look at
    /// any file, so that two processes that create the same database do so one after the other.
    fn lock_data(directory: &Directory, options: &Options) -> Result<Option<(Descriptor, bool)>> {
        let path = directory.path(File::Data);
        let (data, made) = match directory.open_file(File::Data, options.read_only)? {
            Some(data) => (data, None),
            None if options.may_create() => {
                directory.check_creatable(options.share_directory, false)?;
                match directory.create_file(File::Data) {
                    Ok(Some((data, inode))) => (data, Some(inode)),
                    Ok(None) => return Ok(None),
                    // The directory has been removed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(Error::io("create", &path, &error)),
                }
            }
            None => return Err(not_there(&path)),
        };
        let examine = |error| Error::io("examine", &path, &error);
        let locked = lock(&data, options.read_only);
        if locked.as_ref().is_err_and(|it| it.raw_os_error() == Some(libc::EWOULDBLOCK)) {
            let holder = holder_of(&data.metadata().map_err(examine)?);
            let message = format!("{} {holder}", directory.database().display());
            return Err(Error::new(ErrorKind::Locked, message));
        }
        // Nobody else has locked it, so that it may go again.
        if let Some(inode) = made {
            directory.made(File::Data, inode);
        }
        locked.map_err(|error| Error::io("lock", &path, &error))?;
        // Before the lock was had, its owner may have removed the file, and a database made since has
        // another one of its name.
        if !directory.has(File::Data, &data).map_err(examine)? {
            unlock(&data);
            return Ok(None);
        }
        Ok(Some((data, made.is_some())))
    }

    fn open_others(
        directory: &Directory,
        lock: &Descriptor,
        made: bool,
        options: &Options,
    ) -> Result<Others> {
        let path = directory.path(File::Data);
        let examine = |error| Error::io("examine", &path, &error);
        let data = match directory.open_file(File::Data, options.read_only)? {
            Some(data) if is_same(&data, lock).map_err(examine)? => data,
            _ => return Err(not_there(&path)),
        };
        let metadata = data.metadata().map_err(examine)?;
        let identity = read_front(&data, PAGE_SIZE as usize).map_err(examine)?;
        let len = metadata.len();
        // Creation makes both files before it writes to `data`. So where that holds something,
        // `regions` was there once, and an empty one in its place would say "no regions".
        let holds_something = len > PAGE_SIZE || identity.iter().any(|&byte| byte != 0);
        if options.may_create() && !holds_something && !made {
            directory.check_creatable(options.share_directory, true)?;
        }
        let path = directory.path(File::Regions);
        let regions = match directory.open_file(File::Regions, options.read_only)? {
            Some(regions) => regions,
            None if holds_something => {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "{} is there, but {} is missing",
                        directory.path(File::Data).display(),
                        path.display()
                    ),
                ))
            }
            None if options.may_create() => {
                let failed = |error| Error::io("create", &path, &error);
                let taken = || failed(io::ErrorKind::AlreadyExists.into());
                let created = directory.create_file(File::Regions).map_err(failed)?;
                let (regions, inode) = created.ok_or_else(taken)?;
                directory.made(File::Regions, inode);
                regions
            }
            None => return Err(not_there(&path)),
        };
        let live = OnceLock::new();
        if let Some(file) = directory.open_file(File::Live, options.read_only)? {
            if !options.read_only {
                directory.check_mirror(&file)?;
            }
            drop(live.set(file));
        }
        let file_system = file_system(&data).map_err(|error| {
            Error::io("examine the file system of", &directory.path(File::Data), &error)
        })?;
        let holding = Holding::begin(&metadata);
        Ok(Others { data, regions, live, file_system, holding })
    }

    fn file(&self, file: File) -> io::Result<&fs::File> {
        match file {
            File::Data => Ok(&self.data),
            File::Regions => Ok(&self.regions),
            File::Live => match self.live.get() {
                Some(live) => Ok(live),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    /// Beyond `RLIMIT_FSIZE` the kernel sends SIGXFSZ, which ends the host program. This answers
    /// first, with the error that the kernel gives where the signal is ignored.
    #[cold]
    fn check_size_limit(&self, end: u64) -> io::Result<()> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for the result.
        check(|| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) })?;
        #[allow(clippy::unnecessary_cast)] // 32 bits wide on some architectures
        let limit = match limit.rlim_cur {
            libc::RLIM_INFINITY => u64::MAX,
            bytes => bytes as u64,
        };
        self.size_limit.store(limit, Ordering::Relaxed);
        match end > limit {
            true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
            false => Ok(()),
        }
    }

    /// The same for a write to bytes that a file has, by the limit as it was seen last: asking each
    /// time would double the calls of a guarded append.
    fn check_write_limit(&self, end: u64) -> io::Result<()> {
        match end > self.size_limit.load(Ordering::Relaxed) {
            true => self.check_size_limit(end),
            false => Ok(()),
        }
    }

    /// Gives a range of `data` blocks without a descriptor that may write, where a load from a hole
    /// takes a page: the kernel makes the loads, and answers where one would end in SIGBUS.
    fn load_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        let start = offset / page_size() * page_size();
        let mapping = Mapping::new(Source::File(&self.data), start, offset + len - start)?;
        mapping.open(libc::PROT_READ)?;
        mapping.advise(libc::MADV_POPULATE_READ).or_else(|error| match error.raw_os_error() {
            Some(libc::EFAULT) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            // Linux before 5.14 cannot be asked.
            Some(libc::EINVAL) => Ok(()),
            _ => Err(error),
        })
    }
}

fn not_there(path: &Path) -> Error {
    Error::io("open", path, &io::Error::from_raw_os_error(libc::ENOENT))
}

fn lock(file: &fs::File, shared: bool) -> io::Result<()> {
    let operation = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: a system call on a file descriptor that `file` keeps open.
    check(|| unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) })
}

/// Closing the descriptor would not do while a child of a fork by another thread still has a copy of it,
/// if only until its exec.
fn unlock(file: &fs::File) {
    // A failure leaves the lock until the descriptor is closed.
    // SAFETY: a system call on an open descriptor.
    let _ = check(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) });
}

/// The magic number of the file system that `data` is on.
fn file_system(data: &fs::File) -> io::Result<i64> {
    // SAFETY: all-zero bytes are a valid `statfs`, a plain C struct of integers.
    let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `statfs` is a valid place for the result.
    check(|| unsafe { libc::fstatfs(data.as_raw_fd(), &mut statfs) })?;
    // The field's type differs between architectures; the magic numbers fit 32 bits.
    Ok(statfs.f_type as i64 & 0xFFFF_FFFF)
}

/// `fallocate` gets so much done between two signals, however fast they come: in some 20 us.
const SHORTEST_STEP: u64 = 64 << 10;
/// So many signals in a row that each interrupt such a step are too many.
const MOST_INTERRUPTIONS: u32 = 1000;

/// Gives a range of a file blocks, or takes them away. On some file systems (tmpfs of many kernels,
/// FUSE) a signal undoes what the call has done so far: a program with a fast timer would wait for ever
/// for a call that takes long. So one that is interrupted is made for half as much, and one that is not
/// for twice as much. Without signals it is a single call, which lets the file system see the whole.
///
/// What fails may be done in part, as with a single call.
fn fallocate(fd: RawFd, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let (mut at, mut step, mut interruptions) = (offset, len, 0);
    while at < offset + len {
        let now = step.min(offset + len - at);
        // SAFETY: a system call on an open descriptor, which the callers answer for.
        let answer =
            unsafe { libc::fallocate64(fd, mode, at as libc::off64_t, now as libc::off64_t) };
        if answer == 0 {
            (at, step, interruptions) = (at + now, step.saturating_mul(2), 0);
            continue;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted || interruptions == MOST_INTERRUPTIONS {
            return Err(error);
        }
        interruptions += u32::from(now <= SHORTEST_STEP);
        step = (now / 2).next_multiple_of(SHORTEST_STEP);
    }
    Ok(())
}

/// Asks for a file whose pages are overwritten where they are, which a file system can grant as
/// long as it is empty. Without, a disk that is full of regions could not take the flush that frees
/// some. The table has checksums of its own; nothing is lost where this is refused.
fn overwrite_in_place(file: &fs::File) {
    let mut flags: libc::c_long = 0;
    // SAFETY: a system call on an open descriptor, with a valid place for the result.
    let known = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) };
    if known == 0 && flags & NO_COPY_ON_WRITE == 0 {
        flags |= NO_COPY_ON_WRITE;
        // SAFETY: as above; the flags are only read.
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags) };
    }
}

/// Where a range of `file` may hold something else than zeros.
fn written(file: &fs::File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let seek = |from: u64, whence| {
        // SAFETY: a system call on an open descriptor, whose position nobody relies on.
        match unsafe { libc::lseek64(file.as_raw_fd(), from as libc::off64_t, whence) } {
            -1 => Err(io::Error::last_os_error()),
            offset => Ok(offset as u64),
        }
    };
    let mut find = || {
        let mut end = range.start;
        while end < range.end {
            let start = match seek(end, libc::SEEK_DATA) {
                Ok(start) => start,
                // Nothing is behind.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(()),
                Err(error) => return Err(error),
            };
            end = seek(start, libc::SEEK_HOLE)?;
            if start < range.end {
                ranges.push(start..end.min(range.end));
            }
        }
        Ok(())
    };
    let found = find();
    park(file);
    found.map(|()| ranges)
}

/// The parts of a range of `file` that have no blocks. That is not what [`written`] tells: blocks that
/// were never written are none to that question, and holes that somebody has read may be there to it.
fn holes(file: &fs::File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    const EXTENTS: usize = 32;
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Extent {
        logical: u64,
        physical: u64,
        len: u64,
        reserved: [u64; 2],
        flags: u32,
        reserved_too: [u32; 3],
    }
    /// `struct fiemap` of linux/fiemap.h.
    #[repr(C)]
    struct Map {
        start: u64,
        len: u64,
        flags: u32,
        mapped: u32,
        count: u32,
        reserved: u32,
        extents: [Extent; EXTENTS],
    }
    /// `_IOWR('f', 11, struct fiemap)`, without the extents.
    const FS_IOC_FIEMAP: u64 = 3 << 30 | 32 << 16 | (b'f' as u64) << 8 | 11;
    const LAST: u32 = 1;
    // SAFETY: all-zero bytes are a valid value, as it consists of integers.
    let mut map: Map = unsafe { mem::zeroed() };
    let (mut holes, mut end) = (Vec::new(), range.start);
    let mut is_last = false;
    while end < range.end && !is_last {
        (map.start, map.len, map.count) = (end, range.end - end, EXTENTS as u32);
        // SAFETY: an open descriptor, and a struct with room for as many extents as it says.
        check(|| unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &mut map) })?;
        is_last = map.mapped == 0;
        for extent in map.extents.iter().take(map.mapped as usize) {
            // What follows is punched where it is called a hole: an answer that makes no sense is none.
            let extent_end = extent.logical.checked_add(extent.len).filter(|&it| it > end);
            let Some(extent_end) = extent_end else { return Ok(Vec::new()) };
            if end < extent.logical {
                holes.push(end..extent.logical.min(range.end));
            }
            end = extent_end;
            is_last |= extent.flags & LAST != 0;
        }
    }
    if end < range.end {
        holes.push(end..range.end);
    }
    Ok(holes)
}

/// The number of the disk that `device` is, or is a part of, in the order in which the system got them;
/// 0 where there is none, or a sandbox hides it. What may be otherwise the next time, as where there is
/// no descriptor left, is an error: the mirror would be taken for another disk's.
fn disk_sequence(device: u64) -> io::Result<u64> {
    let directory = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    for path in [format!("{directory}/diskseq"), format!("{directory}/../diskseq")] {
        match read_text(&path, SHORT) {
            Ok(text) => {
                if let Ok(number) = text.trim().parse() {
                    return Ok(number);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {}
                _ => return Err(error),
            },
        }
    }
    Ok(0)
}

impl Storage for FileStorage {
    fn path(&self, file: File) -> &Path {
        match file {
            File::Data => &self.data_path,
            File::Regions => &self.regions_path,
            File::Live => &self.live_path,
        }
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.file(file)?.metadata()?.len())
    }

    fn prepare_table(&self) {
        if self.file_system == BTRFS {
            overwrite_in_place(&self.regions);
        }
    }

    fn set_len(&self, file: File, len: u64) -> io::Result<()> {
        // A file that is longer than the limit already may be shortened.
        if len > self.len(file)? {
            self.check_size_limit(len)?;
        }
        self.file(file)?.set_len(len)
    }

    fn allocate(&self, file: File, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return self.load_ahead(offset, len);
        }
        self.check_size_limit(offset + len)?;
        let fd = self.file(file)?.as_raw_fd();
        // A full disk is full for ever where a failed allocation keeps what it got, as on ext4.
        let holes = match file {
            File::Data => self.holes(offset, len),
            _ => Vec::new(),
        };
        let allocated = fallocate(fd, 0, offset, len);
        if allocated.is_err() {
            for hole in holes {
                let _ = self.punch(hole.start, hole.end - hole.start);
            }
        }
        match allocated {
            // Without the call, zeros take space too, behind the end of the file, where nothing is yet.
            // Before it `live` may have holes then, as it is written through system calls, like `data`.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && file != File::Data => {
                let zeros = vec![0; 1 << 16];
                let mut at = offset.max(self.len(file)?);
                while at < offset + len {
                    let n = (offset + len - at).min(zeros.len() as u64);
                    self.write(file, at, &zeros[..n as usize])?;
                    at += n;
                }
                Ok(())
            }
            other => other,
        }
    }

    fn holes(&self, offset: u64, len: u64) -> Vec<Range<u64>> {
        let range = offset..offset + len;
        if !self.holes_take_space() {
            return holes(&self.data, range).unwrap_or_default();
        }
        // tmpfs has no map of extents, and no page that was not written but those that an allocation has
        // made, which are as good as none.
        let Ok(written) = written(&self.data, range.clone()) else { return Vec::new() };
        let starts = iter::once(range.start).chain(written.iter().map(|part| part.end));
        let ends = written.iter().map(|part| part.start).chain(iter::once(range.end));
        starts.zip(ends).map(|(start, end)| start..end).filter(|hole| !hole.is_empty()).collect()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let fd = self.data.as_raw_fd();
        // That no one needs the bytes of the range is the caller's knowledge; a mapping of it stays
        // valid and reads zeros.
        match fallocate(fd, mode, offset, len) {
            // Nothing is lost where a file system cannot do it, only space.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn write(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_write_limit(offset + bytes.len() as u64)?;
        self.file(file)?.write_all_at(bytes, offset)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write_limit(offset + len)?;
        // The page of zeros stays in the processor's cache.
        static PAGE: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        let page = libc::iovec { iov_base: PAGE.as_ptr().cast_mut().cast(), iov_len: PAGE.len() };
        // The largest folio is filled by one call; the system takes up to 1024 parts.
        let pages = [page; 512];
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let count = ((end - at).div_ceil(PAGE_SIZE) as usize).min(pages.len());
            let (fd, at_now) = (self.data.as_raw_fd(), at as libc::off64_t);
            // SAFETY: the descriptor is open, and the parts are all the page above, which is only read.
            match unsafe { libc::pwritev64(fd, pages.as_ptr(), count as libc::c_int, at_now) } {
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => at += written as u64,
            }
        }
        Ok(())
    }

    fn sync(&self, file: File) -> io::Result<()> {
        // Beside a sync it costs nothing to notice with the next write that the limit has changed.
        self.size_limit.store(0, Ordering::Relaxed);
        self.file(file)?.sync_data()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn reread_data(&self) -> io::Result<()> {
        // SAFETY: a system call on an open descriptor; it changes no byte of the file.
        let status =
            unsafe { libc::posix_fadvise(self.data.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        match status {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn map_data(&self, least: u64, most: u64) -> io::Result<Window> {
        // What `cover` does is not for the file.
        let source =
            if self.read_only { Source::Copy(&self.data) } else { Source::File(&self.data) };
        Ok(self.mappings.window(map_ahead(source, least, most)?))
    }

    fn open_window(&self, window: &Window, len: u64, writable: bool) -> io::Result<()> {
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let (first, end) = (window.at(0), window.at(len));
        let len = end as usize - first as usize;
        // SAFETY: a range inside the window, which is only made more accessible than it was.
        check(|| unsafe { libc::mprotect(first.cast(), len, protection) })
    }

    fn cover(&self, window: &Window, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(self.read_only, "the window is a private copy");
        let start = offset / PAGE_SIZE * PAGE_SIZE;
        let (first, end) = (window.at(start), window.at(offset + bytes.len() as u64));
        let len = end as usize - first as usize;
        let protect = |protection| {
            // SAFETY: a range inside the window, which nobody has a reference into yet.
            check(|| unsafe { libc::mprotect(first.cast(), len, protection) })
        };
        protect(libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: inside the window, which is writable here since the line above.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), window.at(offset), bytes.len()) };
        protect(libc::PROT_READ)
    }

    fn make_writable(&self, first: *mut u8, len: usize) -> io::Result<()> {
        // Linux before 5.14 does not know it.
        // SAFETY: it does what a store would, and changes nothing. That the range lies in a writable
        // window is the caller's knowledge, and otherwise an error.
        check(|| unsafe { libc::madvise(first.cast(), len, libc::MADV_POPULATE_WRITE) })
    }

    fn read(&self, file: File) -> io::Result<Contents> {
        if file == File::Live && self.live.get().is_none() {
            return Ok(Contents::of(Vec::new()));
        }
        // As the library makes it, `regions` has all of its blocks (counted in units of 512 bytes),
        // many of them for pages that were never written. To ask for each of these takes longer than
        // to look at it.
        let metadata = self.file(file)?.metadata()?;
        let whole = file == File::Regions && metadata.blocks() * 512 >= metadata.len();
        let (file, len) = (self.file(file)?, metadata.len());
        if len == 0 {
            return Ok(Contents::of(Vec::new()));
        }
        let written: Vec<_> = match whole {
            true => iter::once(0..len as usize).collect(),
            false => {
                let ranges = written(file, 0..len)?.into_iter();
                ranges.map(|range| range.start as usize..range.end as usize).collect()
            }
        };
        if self.holes_take_space() {
            let bytes = MappedBytes::filled(len, |memory| {
                written.iter().try_for_each(|range| {
                    file.read_exact_at(&mut memory[range.clone()], range.start as u64)
                })
            })?;
            return Ok(Contents { bytes: Box::new(bytes), written });
        }
        // Mapped, because recovery looks at the front of each page only. Nobody changes the file while
        // the map is read: the lock keeps other owners of the database away, and this one writes only
        // after recovery has let go of the map.
        let bytes = MappedBytes::of(file, len)?;
        if whole {
            // What has to come from the disk comes in folios of 2 MiB, each mapped by one fault. Not where
            // there are holes, of which as much would be made zeros in memory.
            let _ = bytes.advise(libc::MADV_HUGEPAGE);
        }
        Ok(Contents { bytes: Box::new(bytes), written })
    }

    fn cache_table(&self, offset: u64, len: u64) {
        // The kernel makes the larger folios the more is read in a row. Nothing comes from the disk, as
        // these blocks have never been written; and nothing depends on it.
        let mut buffer = vec![0; 1 << 16];
        let mut at = offset;
        while at + buffer.len() as u64 <= offset + len {
            match self.regions.read_at(&mut buffer, at) {
                Ok(read @ 1..) => at += read as u64,
                _ => return,
            }
        }
    }

    fn read_identity(&self) -> io::Result<Vec<u8>> {
        read_front(&self.data, PAGE_SIZE as usize)
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        // `st_blocks` counts units of 512 bytes on every file system.
        Ok(self.data.metadata()?.blocks() * 512)
    }

    fn keeps_allocated(&self) -> bool {
        // The kernel makes a whole page of the machine writable at once, and where that is larger,
        // its other blocks may be missing.
        if page_size() != PAGE_SIZE || !KEEPS_ALLOCATED.contains(&self.file_system) {
            return false;
        }
        // A file may be of a kind that does not know the call, such as one without extents. The
        // identity page has its block, so nothing changes where it does.
        let fd = self.data.as_raw_fd();
        let asked = fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, 0, PAGE_SIZE);
        // A full disk is no reason to distrust the file system; the caller meets it soon enough.
        !asked.is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP))
    }

    fn holes_take_space(&self) -> bool {
        // There, a page that is looked at is made, blank or not.
        self.file_system == TMPFS
    }

    fn piece_len(&self) -> u64 {
        // The largest folio of the page cache, `1 << MAX_PAGECACHE_ORDER` pages, with the pages of
        // 4 KiB that `keeps_allocated` insists on.
        2 << 20
    }

    fn new_uuid(&self) -> io::Result<[u8; 16]> {
        let mut uuid = [0_u8; 16];
        // So few bytes come at once, or not at all.
        check(|| {
            // SAFETY: a valid place for the result.
            let read = unsafe { libc::getrandom(uuid.as_mut_ptr().cast(), uuid.len(), 0) };
            if read == -1 {
                -1
            } else {
                0
            }
        })?;
        Ok(uuid)
    }

    fn create_live(&self) -> io::Result<()> {
        if let Some(live) = self.live.get() {
            return live.set_len(0);
        }
        let created = self.directory.create_file(File::Live)?;
        let (live, inode) = created.ok_or(io::ErrorKind::AlreadyExists)?;
        self.directory.made(File::Live, inode);
        if self.file_system == BTRFS {
            overwrite_in_place(&live);
        }
        drop(self.live.set(live));
        Ok(())
    }

    fn map_live(&self, offset: u64, len: u64) -> io::Result<Window> {
        let mapping = Mapping::new(Source::File(self.file(File::Live)?), offset, len)?;
        mapping.open(libc::PROT_READ | libc::PROT_WRITE)?;
        // A page is wanted for the regions that change, not the megabytes of zeros around it that a
        // disk's read-ahead may be set to. Without the advice it is only slower.
        let _ = mapping.advise(libc::MADV_RANDOM);
        Ok(self.mappings.window(mapping))
    }

    fn remove_live(&self) -> io::Result<()> {
        self.live.get().map_or(Ok(()), |live| self.directory.remove_file(File::Live, live))
    }

    fn remove_created(&self) {
        self.directory.remove_made();
    }

    fn file_id(&self, file: File) -> io::Result<FileId> {
        let metadata = self.file(file)?.metadata()?;
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(FileId {
            device: metadata.dev(),
            disk: disk_sequence(metadata.dev())?,
            inode: metadata.ino(),
            born: born.map_or(0, |time| time.as_nanos() as u64),
        })
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        match read_text(BOOT_ID, SHORT) {
            Ok(text) => {
                let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
                Ok(u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes))
            }
            // There need not be a /proc.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn holding(&self) -> &Holding {
        self.holding
    }

    fn unlock(&self) {
        if !self.is_unlocked.swap(true, Ordering::AcqRel) {
            unlock(&self.lock);
            self.holding.end();
        }
    }

    fn unmap(&self) {
        self.mappings.unmap_all();
    }

    fn leave_to_parent(&self) {
        let live = self.live.get();
        [&self.lock, &self.data, &self.regions].into_iter().chain(live).for_each(Descriptor::close);
        self.directory.close();
    }
}

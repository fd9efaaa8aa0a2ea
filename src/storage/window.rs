//! How files are mapped, and in how much address space.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::descriptor::{check, read_text, SHORT};
use super::{File, Storage, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{round_up, PAGE_SIZE};

/// A quarter of the address space that a process has on the common machines: 128 TiB, or 4 GiB with
/// pointers of 32 bits.
const QUARTER: u64 = if cfg!(target_pointer_width = "64") { 32 << 40 } else { 1 << 30 };

/// A window has so many bytes at least, where they can be had: few files outgrow it, and thousands of
/// such windows are little of what there is.
const SMALLEST: u64 = if cfg!(target_pointer_width = "64") { 4 << 30 } else { 128 << 20 };

/// What is left to the heap of an address space that is limited. An allocation that finds nothing ends
/// the process, be it the library's or its host's. No call of the library takes so much of the heap,
/// unless it can fail for want of it.
const HEAP: u64 = 16 << 20;

/// The process that sees how much is left and takes of it, one thread at a time: two at once might take it
/// all. 0 where none does. The child of a fork may find its parent there.
static TAKING: AtomicU32 = AtomicU32::new(0);

/// Nobody waits for another thread longer than so many milliseconds.
const LONGEST_WAIT: u32 = 100;

/// The right to take address space, or none after a long wait.
struct Taking(bool);

impl Taking {
    fn begin() -> Taking {
        let own = std::process::id();
        let take =
            |from| TAKING.compare_exchange(from, own, Ordering::Acquire, Ordering::Relaxed).is_ok();
        for _ in 0..LONGEST_WAIT {
            match TAKING.load(Ordering::Relaxed) {
                other if other == own => thread::sleep(Duration::from_millis(1)),
                other if take(other) => return Taking(true),
                _ => {}
            }
        }
        Taking(false)
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if self.0 {
            TAKING.store(0, Ordering::Release);
        }
    }
}

/// How long all mappings of the library in this process are together.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// A range of address space that shows a part of a file. Every mapping of the library is one.
pub(super) struct Mapping {
    first: *mut u8,
    len: usize,
}

// SAFETY: an address range; who touches its bytes when is as with `Window`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// What a mapping shows.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    File(&'a fs::File),
    /// The file, but where something is stored to the mapping, which the file does not get.
    Copy(&'a fs::File),
    Zeros,
}

impl Mapping {
    /// Maps `len` bytes from `offset` on, which cannot be accessed yet.
    ///
    /// It is never locked in memory, and not in core dumps. A mapping is longer than what has bytes, and
    /// the kernel would fill all of it with pages, or store it all; what has bytes is in the file.
    pub fn new(source: Source, offset: u64, len: u64) -> io::Result<Mapping> {
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        if left_by_limit().is_some_and(|left| left < len.saturating_add(HEAP)) {
            return Err(no_memory());
        }
        // No more than a pointer can be moved by: half of a 32-bit address space.
        let len = isize::try_from(len).map_err(|_| no_memory())? as usize;
        let (flags, fd) = match source {
            Source::File(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            Source::Copy(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
            Source::Zeros => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let (flags, offset) = (flags | libc::MAP_NORESERVE, offset as libc::off64_t);
        let map = |len: usize| {
            // SAFETY: the system chooses addresses that nobody uses.
            match unsafe { libc::mmap64(ptr::null_mut(), len, libc::PROT_NONE, flags, fd, offset) }
            {
                libc::MAP_FAILED => Err(io::Error::last_os_error()),
                first => Ok(first),
            }
        };
        let is_limit = |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
        // After mlockall(MCL_FUTURE) every new mapping is locked, or refused if it is longer than
        // RLIMIT_MEMLOCK allows. Nothing is filled as long as nothing can be accessed, and a mapping that
        // is unlocked stays so when it becomes longer.
        let first = match map(len) {
            Err(error) if is_limit(&error) => {
                let page = PAGE_SIZE as usize;
                let first = map(page).map_err(|error| match is_limit(&error) {
                    true => io::Error::new(
                        io::ErrorKind::OutOfMemory,
                        "mlockall(MCL_FUTURE) locks every new page, and RLIMIT_MEMLOCK allows no more",
                    ),
                    false => error,
                })?;
                // SAFETY: the page that has just been mapped, which nobody knows yet. Where it cannot be
                // unlocked it cannot become longer either.
                let longer = unsafe {
                    libc::munlock(first, page);
                    libc::mremap(first, page, len, libc::MREMAP_MAYMOVE)
                };
                if longer == libc::MAP_FAILED {
                    let error = io::Error::last_os_error();
                    // SAFETY: as above.
                    unsafe { libc::munmap(first, page) };
                    return Err(error);
                }
                longer
            }
            mapped => mapped?,
        };
        // SAFETY: the range that has just been mapped, which nobody knows yet. It may fail where nothing is
        // locked.
        unsafe { libc::munlock(first, len) };
        MAPPED.fetch_add(len as u64, Ordering::Relaxed);
        let mapping = Mapping { first: first.cast(), len };
        // A dump can do with it, too.
        let _ = mapping.advise(libc::MADV_DONTDUMP);
        Ok(mapping)
    }

    pub fn first(&self) -> *mut u8 {
        self.first
    }

    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Lets all of it be read, or written as well.
    pub fn open(&self, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is mapped, and becomes more accessible than it was.
        check(|| unsafe { libc::mprotect(self.first.cast(), self.len, protection) })
    }

    pub fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is mapped, and the advice that is given here changes no byte of it.
        check(|| unsafe { libc::madvise(self.first.cast(), self.len, advice) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's, and whoever has a reference into it keeps the mapping.
        unsafe { libc::munmap(self.first.cast(), self.len) };
        MAPPED.fetch_sub(self.len as u64, Ordering::Relaxed);
    }
}

/// A mapping to be read as bytes that nobody changes meanwhile.
pub(super) struct MappedBytes(Mapping);

impl MappedBytes {
    /// The first `len` bytes of a file.
    pub fn of(file: &fs::File, len: u64) -> io::Result<MappedBytes> {
        let mapping = Mapping::new(Source::File(file), 0, len)?;
        mapping.open(libc::PROT_READ)?;
        Ok(MappedBytes(mapping))
    }

    /// Zeros, and what `fill` makes of them.
    pub fn filled(
        len: u64,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<MappedBytes> {
        let mapping = Mapping::new(Source::Zeros, 0, len)?;
        mapping.open(libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the mapping is writable memory of this length, which nobody else knows.
        fill(unsafe { std::slice::from_raw_parts_mut(mapping.first, mapping.len) })?;
        Ok(MappedBytes(mapping))
    }

    pub fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        self.0.advise(advice)
    }
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping can be read since it was made, is as long as the file or memory behind
        // it, and nobody changes the bytes as long as this is there.
        unsafe { std::slice::from_raw_parts(self.0.first, self.0.len) }
    }
}

/// How much RLIMIT_AS leaves; `None` where it is not set, or the system does not say what is in use.
fn left_by_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    if asked != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    // Its first field is the size of the address space, in pages of the machine.
    let text = read_text("/proc/self/statm", SHORT).ok()?;
    let pages: u64 = text.split(' ').next()?.parse().ok()?;
    #[allow(clippy::unnecessary_cast)] // 32 bits wide on some architectures
    Some((limit.rlim_cur as u64).saturating_sub(pages * page_size()))
}

/// Of the machine.
pub(super) fn page_size() -> u64 {
    // SAFETY: a question without arguments that could be wrong.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// Maps a file from its first byte on, and at least `least` bytes of address space, at most `most`.
/// What is beyond the file now is for it to grow: four times what it needs, so that windows are few,
/// and the less the more are open in the process. Of what a limit leaves, or the machine, it takes half
/// at most, unless that is less than `least`.
pub(super) fn map_ahead(source: Source, least: u64, most: u64) -> io::Result<Mapping> {
    let _taking = Taking::begin();
    let share = (QUARTER.saturating_sub(MAPPED.load(Ordering::Relaxed)) / 32).max(SMALLEST);
    let mut len = share.max(least.saturating_mul(4)).min(most);
    if let Some(left) = left_by_limit() {
        len = len.min(left / 2 / PAGE_SIZE * PAGE_SIZE).max(least);
    }
    let mut result = Mapping::new(source, 0, len);
    // More than there is, though no limit is known to say so. Trying says how much there is.
    while let (Err(error), true) = (&result, len > least) {
        if !matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EINVAL)) {
            break;
        }
        len = round_up(len / 2).max(least);
        let wanted = if len > least { len.saturating_mul(2) } else { least.saturating_add(HEAP) };
        result = Mapping::new(source, 0, wanted).and_then(|probe| {
            drop(probe);
            Mapping::new(source, 0, len)
        });
    }
    result
}

/// Checks whether `least` bytes of address space are allowed, and says how many are. 0 allows any
/// number.
pub(crate) fn check_address_space(storage: &dyn Storage, least: u64, limit: u64) -> Result<u64> {
    let limit = if limit == 0 { u64::MAX } else { limit / PAGE_SIZE * PAGE_SIZE };
    if limit < least {
        return Err(Error::new(
            ErrorKind::NoMemory,
            format!(
                "{} needs {least} bytes of address space, and the options allow {limit}",
                storage.path(File::Data).display()
            ),
        ));
    }
    Ok(limit)
}

/// Maps `data` in a window of at least `least` bytes, as far as the options allow, and makes these
/// accessible.
pub(crate) fn map_generously(
    storage: &dyn Storage,
    least: u64,
    limit: u64,
    writable: bool,
) -> Result<Window> {
    let least = round_up(least);
    let limit = check_address_space(storage, least, limit)?;
    let failed = |error: io::Error| {
        Error::io("map", storage.path(File::Data), &error).with_kind(ErrorKind::NoMemory)
    };
    let window = storage.map_data(least, limit).map_err(failed)?;
    storage.open_window(&window, least, writable).map_err(failed)?;
    Ok(window)
}

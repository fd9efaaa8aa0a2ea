//! Descriptors that nobody else writes through by mistake, and what is done with any of them.
//!
//! A program may run with its standard streams closed, and the system gives out the lowest number that
//! is free. A database that got number 2 would be overwritten by the next message to stderr. So no
//! descriptor of ours is below 3, not even one that is open for a moment: another thread may write.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The first number that is not one of the standard streams.
const FIRST: libc::c_int = libc::STDERR_FILENO + 1;

/// Runs a system call that answers -1 with `errno`, again when a signal interrupts it.
pub(super) fn check(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        if call() != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Opens `name` in the directory `at`, or `name` as the process sees it where that is `AT_FDCWD`.
pub(super) fn open_at(
    at: RawFd,
    name: &Path,
    flags: libc::c_int,
    mode: libc::mode_t,
) -> io::Result<fs::File> {
    let name = CString::new(name.as_os_str().as_bytes())?;
    let mut fd = -1;
    check(|| {
        // SAFETY: a system call with a string that outlives it.
        fd = unsafe { libc::openat64(at, name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        fd
    })?;
    // SAFETY: it has just been opened, and nobody else knows it.
    let file = unsafe { fs::File::from_raw_fd(fd) };
    if fd >= FIRST {
        return Ok(file);
    }
    check(|| {
        // SAFETY: a system call on an open descriptor.
        fd = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST) };
        fd
    })?;
    // SAFETY: as above; the lower number is closed with `file`.
    Ok(unsafe { fs::File::from_raw_fd(fd) })
}

/// What the system says in a file of `/proc` or `/sys`, its first `most` bytes.
pub(super) fn read_text(path: &str, most: usize) -> io::Result<String> {
    let file = open_at(libc::AT_FDCWD, path.as_ref(), libc::O_RDONLY, 0)?;
    Ok(String::from_utf8_lossy(&read_front(&file, most)?).into_owned())
}

/// More than the system says in most of these files.
pub(super) const SHORT: usize = 4096;

/// The first `len` bytes of `file`, or all where it is shorter.
pub(super) fn read_front(file: &fs::File, len: usize) -> io::Result<Vec<u8>> {
    let mut front = vec![0; len];
    let mut at = 0;
    while at < len {
        match file.read_at(&mut front[at..], at as u64) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    front.truncate(at);
    Ok(front)
}

/// Has the file keep no position that could be written at: whoever writes to this number by mistake gets
/// an error. It is the largest that the file system knows, where a write has no room for a byte.
pub(super) fn park(file: &fs::File) {
    /// That of the last file, most likely also of this one.
    static LARGEST: AtomicI64 = AtomicI64::new(i64::MAX);
    let seek = |to: i64| {
        // SAFETY: a system call on an open descriptor, whose position nobody relies on.
        unsafe { libc::lseek64(file.as_raw_fd(), to, libc::SEEK_SET) != -1 }
    };
    let is_largest =
        |position: i64| seek(position) && position.checked_add(1).is_none_or(|it| !seek(it));
    if is_largest(LARGEST.load(Ordering::Relaxed)) || is_largest(i64::MAX) {
        return;
    }
    let largest = (0..i64::BITS - 1).rev().fold(0, |known, bit| match seek(known | 1 << bit) {
        true => known | 1 << bit,
        false => known,
    });
    LARGEST.store(largest, Ordering::Relaxed);
}

/// A descriptor that a forked child can close while other parts of the library still refer to it.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: ManuallyDrop<fs::File>,
    is_closed: AtomicBool,
}

impl Descriptor {
    pub fn new(file: fs::File) -> Descriptor {
        Descriptor { file: ManuallyDrop::new(file), is_closed: AtomicBool::new(false) }
    }

    /// Nothing uses it from now on.
    pub fn close(&self) {
        if !self.is_closed.swap(true, Ordering::AcqRel) {
            // SAFETY: the one place that closes it, once.
            unsafe { libc::close(self.file.as_raw_fd()) };
        }
    }
}

impl Deref for Descriptor {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        &self.file
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

//! The directory of a database, held open.
//!
//! All files are found through its descriptor. So it does not matter where the path leads later, when
//! the program has changed its working directory or somebody has put another directory in its place.
//! And what is not ours is neither followed, nor overwritten, nor removed. Locking, and what the files
//! hold, is for [`file`](super::file).

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::descriptor::{check, open_at, park, read_front, Descriptor};
use super::File;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{MAGIC, PAGE_SIZE};

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    descriptor: Descriptor,
    /// Whether this process made the directory.
    made: bool,
    /// The files that it made in there, which go again where opening fails.
    made_files: Mutex<Vec<(File, Inode)>>,
}

/// Tells files from each other.
pub(super) type Inode = (u64, u64);

fn inode(file: &fs::File) -> io::Result<Inode> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

pub(super) fn is_same(one: &fs::File, other: &fs::File) -> io::Result<bool> {
    Ok(inode(one)? == inode(other)?)
}

impl Directory {
    /// Opens the directory, creating it if `create`.
    pub fn open(path: &Path, create: bool) -> Result<Directory> {
        let mut made = false;
        if create {
            match fs::create_dir(path) {
                Ok(()) => made = true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path, &error)),
            }
        }
        let open = |flags| open_at(libc::AT_FDCWD, path, libc::O_DIRECTORY | flags, 0);
        let opened = match open(libc::O_RDONLY) {
            // Who may not list it can still reach the files in it.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => open(libc::O_PATH),
            opened => opened,
        };
        let file = opened.map_err(|error| {
            if made {
                let _ = fs::remove_dir(path);
            }
            Error::io("open", path, &error)
        })?;
        let descriptor = Descriptor::new(file);
        Ok(Directory { path: path.to_owned(), descriptor, made, made_files: Mutex::default() })
    }

    /// As the caller has named it, for messages.
    pub fn database(&self) -> &Path {
        &self.path
    }

    pub fn path(&self, file: File) -> PathBuf {
        self.path.join(file.name())
    }

    fn open_in(&self, file: File, flags: libc::c_int) -> io::Result<fs::File> {
        // No link is followed: it would lead to somebody else's file. And a FIFO must not hang the open.
        let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        // Less the umask, as usual.
        open_at(self.descriptor.as_raw_fd(), Path::new(file.name()), flags, 0o666)
    }

    /// Opens one of the files, if it is there.
    pub fn open_file(&self, file: File, read_only: bool) -> Result<Option<Descriptor>> {
        let access = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
        let failed = |error| Error::io("open", &self.path(file), &error);
        let opened = match self.open_in(file, access) {
            Ok(opened) => opened,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT) => Ok(None),
                    Some(libc::ELOOP) => Err(self.foreign(file, "a symbolic link")),
                    Some(libc::EISDIR) => Err(self.foreign(file, "a directory")),
                    // A socket, or a device without a driver.
                    Some(libc::ENXIO | libc::ENODEV) => Err(self.foreign(file, "a special file")),
                    _ => Err(failed(error)),
                };
            }
        };
        let kind = opened.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(self.foreign(file, "a directory"));
        }
        if !kind.is_file() {
            return Err(self.foreign(file, "a special file"));
        }
        park(&opened);
        Ok(Some(Descriptor::new(opened)))
    }

    /// Creates one of the files; `None` where there is one by now. Who has the lock says that it is
    /// [`made`](Directory::made).
    pub fn create_file(&self, file: File) -> io::Result<Option<(Descriptor, Inode)>> {
        let created = match self.open_in(file, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            created => created?,
        };
        let inode = inode(&created).inspect_err(|_| {
            let _ = unlink_in(&self.descriptor, &name_of(file), 0);
        })?;
        park(&created);
        Ok(Some((Descriptor::new(created), inode)))
    }

    /// Notes that this process has made a file, which goes again if opening fails.
    pub fn made(&self, file: File, inode: Inode) {
        self.made_files().push((file, inode));
    }

    fn made_files(&self) -> MutexGuard<'_, Vec<(File, Inode)>> {
        self.made_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is still the file of that name.
    pub fn has(&self, file: File, descriptor: &fs::File) -> io::Result<bool> {
        Ok(self.inode_of(&name_of(file))? == Some(inode(descriptor)?))
    }

    fn inode_of(&self, name: &CStr) -> io::Result<Option<Inode>> {
        inode_in(&self.descriptor, name)
    }

    /// Removes a file, if it is still this one.
    pub fn remove_file(&self, file: File, descriptor: &fs::File) -> io::Result<()> {
        self.remove(file, inode(descriptor)?)
    }

    fn remove(&self, file: File, inode: Inode) -> io::Result<()> {
        let name = name_of(file);
        match self.inode_of(&name)? {
            Some(found) if found == inode => unlink_in(&self.descriptor, &name, 0),
            _ => Ok(()),
        }
    }

    /// Removes what this process has made, for an open that fails. With the lock held.
    pub fn remove_made(&self) {
        // `data` last: whoever waits for the lock on it finds the name gone, or the other one.
        for (file, inode) in self.made_files().drain(..).rev() {
            let _ = self.remove(file, inode);
        }
        if self.made {
            let _ = self.remove_itself();
        }
    }

    /// Fails where it is not empty.
    fn remove_itself(&self) -> io::Result<()> {
        let Some(name) = self.path.file_name() else { return Ok(()) };
        let (parent, name) = (self.open_parent()?, CString::new(name.as_bytes())?);
        match inode_in(&parent, &name)? {
            Some(found) if found == inode(&self.descriptor)? => {
                unlink_in(&parent, &name, libc::AT_REMOVEDIR)
            }
            _ => Ok(()),
        }
    }

    /// Where the directory really is, whatever links the path led through.
    fn open_parent(&self) -> io::Result<fs::File> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        open_at(self.descriptor.as_raw_fd(), Path::new(".."), flags, 0)
    }

    /// Makes the names in it durable, and its own.
    pub fn sync(&self) -> io::Result<()> {
        self.descriptor.sync_all()?;
        // It may be new itself, whoever made it.
        match self.open_parent().and_then(|parent| parent.sync_all()) {
            // It was not this user who made it in there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }

    /// Refuses to create a database among files that are not its own. `data` is not there, or empty, or
    /// what an interrupted creation has left.
    pub fn check_creatable(&self, shared: bool, data_is_there: bool) -> Result<()> {
        if self.exists(File::Live)? {
            // An open database has had its identity on the disk before there was this.
            return Err(self.foreign(File::Live, "there without a database"));
        }
        if let Some(regions) = self.open_file(File::Regions, true)? {
            let failed = |error| Error::io("read", &self.path(File::Regions), &error);
            let len = regions.metadata().map_err(failed)?.len();
            if len > 0 && !data_is_there {
                return Err(self.foreign(File::Regions, "there without a data file"));
            }
            // It gets its whole length before it gets a header.
            let is_short = len < 2 * PAGE_SIZE;
            let looked_at = if is_short { len as usize } else { MAGIC.len() };
            if !may_be_ours(&regions, looked_at).map_err(failed)? {
                return Err(self.foreign(File::Regions, "not a region table"));
            }
        }
        if shared {
            return Ok(());
        }
        let ours = |name: &[u8]| {
            [File::Data, File::Regions].iter().any(|file| file.name().as_bytes() == name)
                // The last is what mkfs makes, where the directory is that of a file system.
                || matches!(name, b"." | b".." | b"lost+found")
        };
        let other = self.find_name(|name| !ours(name));
        match other.map_err(|error| Error::io("list", &self.path, &error))? {
            Some(name) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "cannot create a database in {}: it holds other files ({:?})",
                    self.path.display(),
                    String::from_utf8_lossy(&name)
                ),
            )),
            None => Ok(()),
        }
    }

    fn exists(&self, file: File) -> Result<bool> {
        let found = self.inode_of(&name_of(file));
        Ok(found.map_err(|error| Error::io("examine", &self.path(file), &error))?.is_some())
    }

    /// The first name in the directory that is wanted.
    fn find_name(&self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Option<Vec<u8>>> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let directory = open_at(self.descriptor.as_raw_fd(), Path::new("."), flags, 0)?;
        let fd = directory.into_raw_fd();
        // SAFETY: an open descriptor, which the stream owns from here on.
        let stream = unsafe { libc::fdopendir(fd) };
        if stream.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: it is still this function's.
            unsafe { libc::close(fd) };
            return Err(error);
        }
        let result = loop {
            // SAFETY: the stream is open and this function's alone; errno is the thread's own.
            let entry = unsafe {
                *libc::__errno_location() = 0;
                libc::readdir64(stream)
            };
            if entry.is_null() {
                let error = io::Error::last_os_error();
                break if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
            }
            // SAFETY: the entry is valid until the next call on the stream, and its name ends with NUL.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
            if wanted(name) {
                break Ok(Some(name.to_vec()));
            }
        };
        // SAFETY: nobody uses the stream after this.
        unsafe { libc::closedir(stream) };
        result
    }

    /// Refuses a file that the library would overwrite or remove and that it has not made.
    pub fn check_mirror(&self, live: &fs::File) -> Result<()> {
        let ours = may_be_ours(live, MAGIC.len());
        match ours.map_err(|error| Error::io("read", &self.path(File::Live), &error))? {
            true => Ok(()),
            false => Err(self.foreign(File::Live, "not a mirror")),
        }
    }

    fn foreign(&self, file: File, what: &str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} is {what}: not a file of a database, and left as it is",
                self.path(file).display()
            ),
        )
    }

    /// In a forked child.
    pub fn close(&self) {
        self.descriptor.close();
    }
}

/// Whether the first `len` bytes of a file begin as ours do, or are as the disk leaves one of ours that
/// was not synced.
fn may_be_ours(file: &fs::File, len: usize) -> io::Result<bool> {
    let front = read_front(file, len)?;
    Ok(front.starts_with(&MAGIC) || front.iter().all(|&byte| byte == 0))
}

fn name_of(file: File) -> CString {
    CString::new(file.name()).expect("no name of ours has a NUL")
}

fn inode_in(directory: &fs::File, name: &CStr) -> io::Result<Option<Inode>> {
    // SAFETY: all-zero bytes are a valid `stat64`, a plain C struct of integers.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    let (fd, flags) = (directory.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: an open descriptor, a string that outlives the call, and a valid place for the result.
    match check(|| unsafe { libc::fstatat64(fd, name.as_ptr(), &mut stat, flags) }) {
        #[allow(clippy::unnecessary_cast)] // of other types on some architectures
        Ok(()) => Ok(Some((stat.st_dev as u64, stat.st_ino as u64))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unlink_in(directory: &fs::File, name: &CStr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an open descriptor and a string that outlives the call.
    check(|| unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

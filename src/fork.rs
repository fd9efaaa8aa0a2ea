//! Noticing that a handle has crossed a fork.
//!
//! In the child the locks of the library may be held by threads that do not exist there, and the
//! parent goes on writing to the same files. So the child's calls have to be refused before they
//! take a lock.
//!
//! A process that opens a database *marks* itself, in a page that the kernel wipes in every child,
//! however that is made. Handles keep the mark, and the child finds none. One that opens a database
//! of its own gets a mark that no ancestor has had.

use std::io;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::error::{Error, Result};
use crate::sync::{asymmetric, HashMap};

/// A page of its own, as only whole ones are wiped; where machines have larger pages, the largest.
#[cfg_attr(
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x"),
    repr(align(4096))
)]
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x")),
    repr(align(65536))
)]
struct Page {
    mark: AtomicU32,
}

/// Zero, and so in memory without a file behind it, which is the only memory that can be wiped.
static PAGE: Page = Page { mark: AtomicU32::new(UNMARKED) };

/// What a wiped page says.
const UNMARKED: u32 = 0;
/// A thread is about to mark the process. Marks are larger.
const BEGUN: u32 = 1;

/// The last mark of this process or an ancestor.
static LAST_MARK: AtomicU32 = AtomicU32::new(BEGUN);

extern "C" fn before_fork() {
    // The first map of a process makes a seed, under a spin lock. The child must not find it taken.
    drop(HashMap::<(), ()>::default());
}

extern "C" fn in_child() {
    PAGE.mark.store(UNMARKED, Ordering::Relaxed);
}

/// Has every later fork wipe the mark. Nothing comes of doing it twice.
fn watch_forks() -> io::Result<()> {
    let (page, len) = (ptr::from_ref(&PAGE).cast_mut(), size_of::<Page>());
    // SAFETY: the page holds nothing but the mark, for which zero is a value at any time.
    if unsafe { libc::madvise(page.cast(), len, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        if let Some(libc::ENOMEM | libc::EAGAIN) = error.raw_os_error() {
            return Err(error);
        }
    }
    // Linux before 4.14 does not know the advice, and emulators take it and do nothing: there, at
    // least `fork` is noticed, which runs handlers. A child inherits them.
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Ordering::Relaxed) {
        // SAFETY: the handlers may run at any time, and that in the child is async-signal-safe, as a
        // child of a threaded process needs it.
        match unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) } {
            0 => REGISTERED.store(true, Ordering::Relaxed),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
    Ok(())
}

/// The mark of the present process, to be compared later. It is for a database at `path`.
pub(crate) fn process_mark(path: &Path) -> Result<u32> {
    loop {
        match PAGE.mark.load(Ordering::Acquire) {
            // Not a `Once`: a child might wait for a thread that it does not have.
            UNMARKED => {}
            BEGUN => {
                thread::yield_now();
                continue;
            }
            mark => return Ok(mark),
        }
        // Before there is anything that a fork could copy.
        watch_forks().map_err(|error| Error::io("have forks noticed for", path, &error))?;
        let mark = &PAGE.mark;
        if mark.compare_exchange(UNMARKED, BEGUN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            break;
        }
    }
    asymmetric::begin();
    let mark = LAST_MARK.fetch_add(1, Ordering::Relaxed) + 1;
    PAGE.mark.store(mark, Ordering::Release);
    Ok(mark)
}

/// Whether this is still the process that got `mark`.
#[inline]
pub(crate) fn is_same_process(mark: u32) -> bool {
    PAGE.mark.load(Ordering::Relaxed) == mark
}

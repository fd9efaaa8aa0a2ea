//! Noticing that a handle has crossed a `fork`.
//!
//! In the child the locks of the library may be held by threads that do not exist there, and the
//! parent goes on writing to the same files. So the child's calls have to be refused before they
//! take a lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;

use crate::sync::asymmetric;

/// How many forks lie between this process and the one that registered the handler.
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    asymmetric::forked();
}

/// A mark of the present process, to be compared later.
pub(crate) fn process_mark() -> u32 {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler is async-signal-safe, as a child of a threaded process needs it.
        let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(status, 0, "no memory for a fork handler");
    });
    // Each time, and so in a child, too, that opens a database of its own.
    asymmetric::register();
    FORKS.load(Ordering::Relaxed)
}

/// Whether this is still the process that got `mark`.
#[inline]
pub(crate) fn is_same_process(mark: u32) -> bool {
    FORKS.load(Ordering::Relaxed) == mark
}

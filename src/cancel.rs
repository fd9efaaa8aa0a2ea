//! Keeping a thread from being cancelled in the middle of a call.
//!
//! `pthread_cancel` ends a thread at the next function of the C library that is a cancellation point,
//! by unwinding its stack. Code in Rust cannot be unwound so, and what it was about to do would be
//! left half done. What the library calls that is one lies behind
//! [`Storage`](crate::storage::Storage).

use std::ffi::c_int;
use std::marker::PhantomData;

/// As long as it lives, the thread is not cancelled; a request waits.
pub(crate) struct Uncancelled {
    before: c_int,
    /// It is about the thread.
    _not_send: PhantomData<*const ()>,
}

/// Of pthread.h.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

impl Uncancelled {
    #[must_use]
    pub fn begin() -> Uncancelled {
        let mut before = 0;
        // SAFETY: a state that there is, and a place for the other. This cannot fail.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        Uncancelled { before, _not_send: PhantomData }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut disabled = 0;
        // SAFETY: the state that this thread was in, and a place for the other. Changing it is no
        // cancellation point.
        unsafe { pthread_setcancelstate(self.before, &mut disabled) };
    }
}

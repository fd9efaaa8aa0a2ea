//! A list that is only ever added to, and needs no lock: a child may have been forked while another thread
//! held it, which the child does not have.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[derive(Debug)]
pub(super) struct List<T> {
    newest: AtomicPtr<Node<T>>,
}

struct Node<T> {
    value: T,
    /// Added before it; null behind the first.
    older: *mut Node<T>,
}

// SAFETY: values are handed out as shared references only, and dropped with the list.
unsafe impl<T: Send + Sync> Send for List<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for List<T> {}

impl<T> List<T> {
    pub const fn new() -> List<T> {
        List { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    pub fn add(&self, value: T) -> &T {
        let node = Box::into_raw(Box::new(Node { value, older: ptr::null_mut() }));
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows the node before it is in the list.
            unsafe { (*node).older = newest };
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            match self.newest.compare_exchange(newest, node, success, failure) {
                // SAFETY: it lives as long as the list, and is not changed any more.
                Ok(_) => return unsafe { &(*node).value },
                Err(other) => newest = other,
            }
        }
    }

    /// All values, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: nodes live as long as the list, and are not changed once they are in it.
        let at = |node: *mut Node<T>| unsafe { node.as_ref() };
        let newest = at(self.newest.load(Ordering::Acquire));
        std::iter::successors(newest, move |node| at(node.older)).map(|node| &node.value)
    }
}

impl<T> Drop for List<T> {
    fn drop(&mut self) {
        let mut next = *self.newest.get_mut();
        while !next.is_null() {
            // SAFETY: made by `Box::into_raw` in `add`, and nobody refers to it any more.
            let node = unsafe { Box::from_raw(next) };
            next = node.older;
        }
    }
}

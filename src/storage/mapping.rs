//! The mappings of one database.
//!
//! A forked child that lets go of the database unmaps them all, and can take no lock for that: its owner
//! may be a thread that the child does not have. So they are in a list that is only ever added to.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

/// All that have been made, also those that are gone.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    newest: AtomicPtr<Node>,
}

#[derive(Debug)]
struct Node {
    /// Null once it is unmapped.
    base: AtomicPtr<u8>,
    len: usize,
    /// Made before it; null behind the first.
    older: *const Node,
}

/// A mapping, until it is dropped or the process lets go of the database.
pub(super) struct Mapping {
    node: NonNull<Node>,
    /// Keeps the node.
    _mappings: Arc<Mappings>,
}

// SAFETY: the node is immutable but for an atomic, and lives as long as the list.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mappings {
    /// Takes over a range that has been mapped.
    pub fn add(self: &Arc<Self>, base: *mut u8, len: usize) -> Mapping {
        let node = Box::new(Node { base: AtomicPtr::new(base), len, older: ptr::null() });
        let node = NonNull::from(Box::leak(node));
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows the node before it is in the list.
            unsafe { (*node.as_ptr()).older = newest };
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            match self.newest.compare_exchange(newest, node.as_ptr(), success, failure) {
                Ok(_) => return Mapping { node, _mappings: self.clone() },
                Err(other) => newest = other,
            }
        }
    }

    /// Unmaps what is still mapped. For a process that looks at none of it any more.
    pub fn unmap_all(&self) {
        let mut next = self.newest.load(Ordering::Acquire).cast_const();
        // SAFETY: nodes live as long as the list.
        while let Some(node) = unsafe { next.as_ref() } {
            node.unmap();
            next = node.older;
        }
    }
}

impl Node {
    fn unmap(&self) {
        let base = self.base.swap(ptr::null_mut(), Ordering::AcqRel);
        if !base.is_null() {
            // SAFETY: mapped by whoever added it, and unmapped by the one who finds it here.
            unsafe { libc::munmap(base.cast(), self.len) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the node lives as long as the list, which this keeps.
        unsafe { self.node.as_ref() }.unmap();
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        let mut next = *self.newest.get_mut();
        while !next.is_null() {
            // SAFETY: made by `Box::leak` in `add`, and nobody refers to it any more, as each
            // `Mapping` keeps the list.
            let node = unsafe { Box::from_raw(next) };
            next = node.older.cast_mut();
        }
    }
}

//! The mappings of one database.
//!
//! A forked child that lets go of the database unmaps them all, and can take no lock for that: its owner
//! may be a thread that the child does not have. So they are in a list that is only ever added to.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use super::window::Mapping;
use super::Window;

/// All that have been made, also those that are gone.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    newest: AtomicPtr<Node>,
}

struct Node {
    /// In a box; null once it is unmapped.
    mapping: AtomicPtr<Mapping>,
    /// Made before it; null behind the first.
    older: *const Node,
}

/// A mapping, until it is dropped or the process lets go of the database.
struct Listed {
    node: NonNull<Node>,
    /// Keeps the node.
    _mappings: Arc<Mappings>,
}

// SAFETY: the node is immutable but for an atomic, and lives as long as the list.
unsafe impl Send for Listed {}
// SAFETY: as above.
unsafe impl Sync for Listed {}

impl Mappings {
    /// A window that is all of a mapping.
    pub fn window(self: &Arc<Self>, mapping: Mapping) -> Window {
        let (first, len) = (mapping.first(), mapping.len());
        Window::new(first, len, Box::new(self.add(mapping)))
    }

    fn add(self: &Arc<Self>, mapping: Mapping) -> Listed {
        let mapping = AtomicPtr::new(Box::into_raw(Box::new(mapping)));
        let node = NonNull::from(Box::leak(Box::new(Node { mapping, older: ptr::null() })));
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows the node before it is in the list.
            unsafe { (*node.as_ptr()).older = newest };
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            match self.newest.compare_exchange(newest, node.as_ptr(), success, failure) {
                Ok(_) => return Listed { node, _mappings: self.clone() },
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
        let mapping = self.mapping.swap(ptr::null_mut(), Ordering::AcqRel);
        if !mapping.is_null() {
            // SAFETY: the box that `add` has made, for the one who finds it here.
            drop(unsafe { Box::from_raw(mapping) });
        }
    }
}

impl Drop for Listed {
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
            // `Listed` keeps the list.
            let node = unsafe { Box::from_raw(next) };
            next = node.older.cast_mut();
        }
    }
}

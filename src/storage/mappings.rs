//! The mappings of one database, for a forked child that lets go of the database to unmap them all.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use super::list::List;
use super::window::Mapping;
use super::Window;

/// Where a mapping is, in a box; null once it is unmapped.
type Place = AtomicPtr<Mapping>;

/// All that have been made, also those that are gone.
#[derive(Debug)]
pub(super) struct Mappings(List<Place>);

/// A mapping, until it is dropped or the process lets go of the database.
struct Listed {
    place: NonNull<Place>,
    /// Keeps the place.
    _mappings: Arc<Mappings>,
}

// SAFETY: the place is atomic, and lives as long as the list.
unsafe impl Send for Listed {}
// SAFETY: as above.
unsafe impl Sync for Listed {}

impl Mappings {
    pub fn new() -> Arc<Mappings> {
        Arc::new(Mappings(List::new()))
    }

    /// A window that is all of a mapping.
    pub fn window(self: &Arc<Self>, mapping: Mapping) -> Window {
        let (first, len) = (mapping.first(), mapping.len());
        let place = self.0.add(AtomicPtr::new(Box::into_raw(Box::new(mapping)))).into();
        Window::new(first, len, Box::new(Listed { place, _mappings: self.clone() }))
    }

    /// Unmaps what is still mapped. For a process that looks at none of it any more.
    pub fn unmap_all(&self) {
        self.0.iter().for_each(unmap);
    }
}

fn unmap(place: &Place) {
    let mapping = place.swap(ptr::null_mut(), Ordering::AcqRel);
    if !mapping.is_null() {
        // SAFETY: the box that `window` has made, for the one who finds it here.
        drop(unsafe { Box::from_raw(mapping) });
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // SAFETY: the place lives as long as the list, which this keeps.
        unmap(unsafe { self.place.as_ref() });
    }
}

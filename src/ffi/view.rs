//! `rawdb_view`: bytes of a region that stay as they are.

use std::ffi::c_void;
use std::ptr;

use super::status::call_or;
use crate::view::RawView;
use crate::View;

/// Bytes of a region as they were when rawdb_region_view() was called. They never change, move or
/// vanish until rawdb_view_release(), whatever happens to region and database meanwhile; and no
/// call waits or fails because of a view. What it costs: space that was given up stays occupied,
/// and an overwrite of viewed bytes moves the region instead, so release views that are no longer
/// needed.
///
/// The struct belongs to the caller. A copy of it is the same view: release one of them, once.
#[repr(C)]
pub struct rawdb_view {
    /// The bytes, for reading only; any number of threads may read them. Must not be looked at when
    /// len is 0, and may be NULL then.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
    /// The library's own.
    pub pin_: *const c_void,
}

impl From<View> for rawdb_view {
    fn from(view: View) -> rawdb_view {
        let RawView { data, len, pin } = view.into_raw();
        rawdb_view { data, len, pin_: pin }
    }
}

/// Length of a view that goes from its offset to the end of the region.
#[allow(dead_code, reason = "the engine's views take the same number to say the same")]
pub const RAWDB_TO_END: u64 = u64::MAX;

/// Gives a view back and sets the struct to zero, so that releasing it twice is harmless, as is
/// releasing NULL or a struct that is zero. The bytes must not be looked at any more.
///
/// Any thread, not only the one that made the view, also after rawdb_region_close() and
/// rawdb_close(); but one struct is for one thread at a time.
///
/// Since 0.1.0.
#[no_mangle]
pub unsafe extern "C" fn rawdb_view_release(view: *mut rawdb_view) {
    call_or((), || {
        if view.is_null() {
            return;
        }
        const RELEASED: rawdb_view = rawdb_view { data: ptr::null(), len: 0, pin_: ptr::null() };
        // SAFETY: pointer contract.
        let rawdb_view { data, len, pin_: pin } = unsafe { ptr::replace(view, RELEASED) };
        if !pin.is_null() {
            // SAFETY: `From<View>` took these from `into_raw`, and the struct that held them has
            // been zeroed, so that they are used once.
            unsafe { View::drop_raw(RawView { data, len, pin }) };
        }
    });
}

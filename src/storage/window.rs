//! How much of the address space `data` is mapped in.

use std::io;

use super::{File, Storage, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{round_up, PAGE_SIZE};

/// The largest window worth asking for: big enough that hardly any database outgrows it, small
/// enough for the 47 bits of address space of the common 64-bit machines.
const LARGEST_WINDOW: u64 = 1 << 40;

/// Checks whether `least` bytes of address space are allowed, and says how many are. 0 allows any
/// number.
pub(crate) fn check_address_space(storage: &dyn Storage, least: u64, limit: u64) -> Result<u64> {
    let limit = if limit == 0 { u64::MAX } else { limit / PAGE_SIZE * PAGE_SIZE };
    if limit < least {
        return Err(Error::new(
            ErrorKind::NoMemory,
            format!(
                "{} needs {least} bytes of address space, and the options allow {limit}",
                storage.path(File::Data).display()
            ),
        ));
    }
    Ok(limit)
}

/// Maps `data` in the largest window that can be had between `least` and what the options and the
/// address space allow, and makes its first `least` bytes accessible.
pub(crate) fn map_generously(
    storage: &dyn Storage,
    least: u64,
    limit: u64,
    writable: bool,
) -> Result<Window> {
    let least = round_up(least);
    let limit = check_address_space(storage, least, limit)?;
    let failed = |error: io::Error| {
        Error::io("map", storage.path(File::Data), &error).with_kind(ErrorKind::NoMemory)
    };
    let mut len = LARGEST_WINDOW.max(least.saturating_mul(4)).min(limit);
    loop {
        match storage.map_data(len) {
            Ok(window) => {
                storage.open_window(&window, least, writable).map_err(failed)?;
                return Ok(window);
            }
            Err(error)
                if len > least
                    && matches!(
                        error.raw_os_error(),
                        Some(libc::ENOMEM | libc::EINVAL | libc::EAGAIN)
                    ) =>
            {
                len = round_up(len / 2).max(least);
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

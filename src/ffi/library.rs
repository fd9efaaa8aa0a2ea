//! What belongs to no handle: version, statuses, the last error.

use std::ffi::c_char;

use super::status::{describe, last_message, last_os_error, rawdb_status};

/// The longest name of a region in bytes, without the NUL that ends it.
#[allow(dead_code, reason = "the engine has a constant of its own, which the next line compares")]
pub const RAWDB_MAX_NAME_LEN: usize = 1024;

const _: () = assert!(RAWDB_MAX_NAME_LEN == crate::MAX_NAME_LEN);

/// As the header counts it; the header's own macros are made from the same Cargo.toml.
const VERSION_NUMBER: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
    + number(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
    + number(env!("CARGO_PKG_VERSION_PATCH"));

const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("Cargo gives each part of the version as a number"),
    }
}

/// The version of the library in use, as RAWDB_VERSION_NUMBER counts. Cannot fail; any thread.
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_version_number() -> u32 {
    VERSION_NUMBER
}

/// The version of the library in use, as "major.minor.patch". Cannot fail; any thread. The string
/// is static.
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The name of a status: "RAWDB_E_NOT_FOUND" for RAWDB_E_NOT_FOUND. A number that this version does
/// not know is "RAWDB_E_UNKNOWN". Never NULL; any thread. The string is static.
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_status_name(status: rawdb_status) -> *const c_char {
    describe(status).0.as_ptr()
}

/// A status in a few words, without a full stop: "no space left on the disk". What a particular
/// call met is told by rawdb_last_error(). Never NULL, also for unknown numbers; any thread. The
/// string is static.
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_status_message(status: rawdb_status) -> *const c_char {
    describe(status).1.as_ptr()
}

/// The calling thread's last failure in words: what was tried, with path, region, numbers and the
/// operating system's reason. Only a call that fails changes it, a success leaves it as it is: look
/// at the status first. Never NULL; "" when no call of this thread has failed.
///
/// The string belongs to the library and is valid until the next call that fails on this thread, or
/// the thread ends. It is meant for people; its wording may change.
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_last_error() -> *const c_char {
    last_message()
}

/// The errno behind the calling thread's last failure, 0 when the operating system had no part in
/// it. Set and kept together with rawdb_last_error().
///
/// Since 0.1.0.
#[no_mangle]
pub extern "C" fn rawdb_last_os_error() -> i32 {
    last_os_error()
}

//! Another Rust library with a C interface, with a standard library of its own.

use std::panic::catch_unwind;

/// How many digits it has; -1 if counting them panics, which negative numbers are made to do.
#[no_mangle]
pub extern "C" fn other_digits(number: i32) -> i32 {
    catch_unwind(|| {
        assert!(number >= 0, "{number} is negative");
        number.to_string().len() as i32
    })
    .unwrap_or(-1)
}

//! Files that somebody has changed on purpose; see `harness`. To run it, which needs
//! `cargo install cargo-fuzz`, and to keep of the corpus what reaches something of its own:
//!
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run files
//!     RUSTC_BOOTSTRAP=1 cargo fuzz cmin files

#![no_main]

#[path = "../harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    harness::run(bytes);
});

//! Gives `librawdb.so` its SONAME, which Cargo has no setting for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The number is the ABI's own: it grows when a program linked to the library would have to be
    // compiled anew, and only then.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librawdb.so.0");
}

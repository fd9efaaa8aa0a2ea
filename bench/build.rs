//! Links `librawdb.so`, as `make` has built it, and lets the program find it by its SONAME.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=RAWDB_LIBRARY_DIR");
    let built = env::var_os("RAWDB_LIBRARY_DIR").map_or_else(
        || Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../target/release"),
        PathBuf::from,
    );
    let dir = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    for name in ["librawdb.so", "librawdb.so.0"] {
        let link = dir.join(name);
        let _ = fs::remove_file(&link);
        symlink(built.join("librawdb.so"), link).unwrap();
    }
    println!("cargo:rustc-link-search=native={}", dir.display());
    println!("cargo:rustc-link-lib=dylib=rawdb");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
}

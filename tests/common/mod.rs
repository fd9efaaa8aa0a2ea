//! What tests of the C interface share: running tools, and the library as it is installed.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// What the command printed, or what went wrong.
pub fn attempt(command: &mut Command) -> Result<String, String> {
    // A `make` that runs the tests has nothing to say to one that a test runs.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"] {
        command.env_remove(variable);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        format!("{command:?}: {error}; scripts/setup installs what the tests need")
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
}

#[track_caller]
pub fn run(command: &mut Command) -> String {
    attempt(command).unwrap_or_else(|error| panic!("{error}"))
}

/// `make install` with the Cargo that runs this test; `variables` come on top.
pub fn make_install(prefix: &Path, variables: &[&str]) {
    run(Command::new("make")
        .args(["--silent", "install"])
        .arg(format!("PREFIX={}", prefix.display()))
        .arg(format!("CARGO={}", env!("CARGO")))
        .arg(format!("dist={}", dist().display()))
        .args(variables)
        .current_dir(root()));
}

/// Where `make_install` builds.
pub fn dist() -> PathBuf {
    scratch().join("dist")
}

/// Where the library is installed, for all tests that only use it.
pub fn installation() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch().join("prefix");
        make_install(&prefix, &[]);
        prefix
    })
}

pub fn shared_library() -> PathBuf {
    installation().join("lib/librawdb.so")
}

pub fn static_library() -> PathBuf {
    installation().join("lib/librawdb.a")
}

/// What a program that `librawdb.a` is linked into needs besides.
pub fn system_libs() -> Vec<String> {
    let libs = run(Command::new("pkg-config")
        .args(["--static", "--libs-only-l", "rawdb"])
        .env("PKG_CONFIG_PATH", installation().join("lib/pkgconfig")));
    libs.split_whitespace().filter(|lib| *lib != "-lrawdb").map(str::to_owned).collect()
}

pub fn header() -> String {
    std::fs::read_to_string(root().join("include/rawdb.h")).unwrap()
}

/// A header without its comments.
pub fn code(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code + rest
}

/// The functions that a header declares: every name before a parenthesis, outside of comments.
pub fn functions(header: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code(header)
        .split('(')
        .map(|before| &before[before.rfind(|c| !is_name(c)).map_or(0, |i| i + 1)..])
        .filter(|name| name.starts_with("rawdb_"))
        .map(str::to_owned)
        .collect()
}

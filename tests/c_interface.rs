//! The C programs in `c_tests`: each as C99 and as C++17, linked to the shared and to the static
//! library, and once more under valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod common;
use common::{attempt, root, scratch, shared_library, static_library, system_libs, WARNINGS};

/// Not run under valgrind: it needs more address space itself than these leave to the process.
const NATIVE_ONLY: [&str; 1] = ["limits"];

/// A program that takes longer hangs.
const TIMEOUT: &str = "600";

/// What valgrind has to do with less of; it makes the programs about thirty times slower.
const VALGRIND_SCALE: &str = "20";

fn programs() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root().join("c_tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// Compiles and links `c_tests/<name>.c`.
fn compile(name: &str, dialect: &str, linkage: &str) -> Result<PathBuf, String> {
    let cxx = dialect.starts_with("c++");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .cpp(cxx)
        .host(&host)
        .target(&host)
        .opt_level(2)
        .debug(true)
        .out_dir(scratch())
        .cargo_metadata(false)
        .get_compiler();
    let program = scratch().join(format!("{name}-{dialect}-{linkage}"));

    let mut command = compiler.to_command();
    command.args(WARNINGS).arg(format!("-std={dialect}"));
    command.arg("-I").arg(root().join("include")).arg("-o").arg(&program);
    command.args(["-x", if cxx { "c++" } else { "c" }]);
    command.arg(root().join(format!("c_tests/{name}.c"))).args(["-x", "none"]);
    if linkage == "shared" {
        let library = shared_library();
        command.arg(&library).arg("-lpthread");
        command.arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()));
    } else {
        command.arg(static_library()).args(system_libs());
    }
    attempt(&mut command).map(|_| program)
}

/// Runs the programs, each in an empty directory, by what `command` makes of their paths.
fn run_all(names: &[String], dialect: &str, linkage: &str, command: impl Fn(&Path) -> Command) {
    let mut failures = String::new();
    for name in names {
        let result = compile(name, dialect, linkage).and_then(|program| {
            let dir = tempfile::tempdir_in(scratch()).unwrap();
            attempt(command(&program).env("TMPDIR", dir.path()))
        });
        match result {
            Ok(output) => println!("{name}:\n{output}"),
            Err(error) => failures += &format!("\n{error}"),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn run_natively(dialect: &str, linkage: &str) {
    run_all(&programs(), dialect, linkage, |program| {
        let mut command = Command::new("timeout");
        command.arg(TIMEOUT).arg(program);
        command
    });
}

#[test]
fn c99_with_shared_library() {
    run_natively("c99", "shared");
}

#[test]
fn c99_with_static_library() {
    run_natively("c99", "static");
}

#[test]
fn cxx17_with_shared_library() {
    run_natively("c++17", "shared");
}

#[test]
fn cxx17_with_static_library() {
    run_natively("c++17", "static");
}

/// No invalid access, no use of undefined bytes, no leak.
#[test]
fn under_valgrind() {
    let mut names = programs();
    names.retain(|name| !NATIVE_ONLY.contains(&name.as_str()));
    // C11, so that the programs are others than those that the tests beside this one link.
    run_all(&names, "c11", "shared", |program| {
        let mut command = Command::new("timeout");
        command
            .args([TIMEOUT, "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"])
            .args(["--show-leak-kinds=all", "--errors-for-leak-kinds=definite,possible,indirect"])
            .arg(program)
            .env("RAWDB_TEST_SCALE", VALGRIND_SCALE);
        command
    });
}

//! The programs in `c_tests`: those in C as C99 and as C++17, linked to the shared and to the
//! static library, and once more each under valgrind and with sanitizers; the one in C++ likewise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod common;
use common::{attempt, root, scratch, shared_library, static_library, system_libs, WARNINGS};

/// `limits.c` leaves less address space to the process than valgrind and sanitizers need themselves, and
/// `stack.c` less stack; valgrind does not know the system call of `filter.c`.
const NATIVE_ONLY: [&str; 3] = ["filter.c", "limits.c", "stack.c"];

/// Tests `rawdb.hpp`.
const CXX: &str = "cxx.cpp";

const SANITIZE: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

/// A program that takes longer hangs.
const TIMEOUT: &str = "600";

/// What valgrind has to do with less of; it makes the programs about thirty times slower.
const VALGRIND_SCALE: &str = "20";

fn programs() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root().join("c_tests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".c"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn programs_with_tools() -> Vec<String> {
    let mut names = programs();
    names.retain(|name| !NATIVE_ONLY.contains(&name.as_str()));
    names
}

/// How a program is made.
struct Build {
    compiler: &'static str,
    dialect: &'static str,
    linkage: &'static str,
    options: &'static [&'static str],
}

/// Compiles and links `c_tests/<name>`.
fn compile(name: &str, build: &Build) -> Result<PathBuf, String> {
    let Build { compiler, dialect, linkage, options } = build;
    let kind = if options.is_empty() { *linkage } else { "sanitized" };
    let program = scratch().join(format!("{name}-{compiler}-{dialect}-{kind}"));
    let mut command = Command::new(compiler);
    command.args(["-O2", "-g"]).args(WARNINGS).args(*options).arg(format!("-std={dialect}"));
    command.arg("-I").arg(root().join("include")).arg("-o").arg(&program);
    command.args(["-x", if dialect.starts_with("c++") { "c++" } else { "c" }]);
    command.arg(root().join("c_tests").join(name)).args(["-x", "none"]);
    if *linkage == "shared" {
        let library = shared_library();
        command.arg(&library).arg("-lpthread");
        command.arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()));
    } else {
        command.arg(static_library()).args(system_libs());
    }
    attempt(&mut command).map(|_| program)
}

/// Runs the programs, each in an empty directory, by what `command` makes of their paths.
fn run_all(names: &[String], build: &Build, command: impl Fn(&Path) -> Command) {
    let mut failures = String::new();
    for name in names {
        let result = compile(name, build).and_then(|program| {
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

fn natively(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(TIMEOUT).arg(program);
    command
}

fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .args([TIMEOUT, "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"])
        .args(["--show-leak-kinds=all", "--errors-for-leak-kinds=definite,possible,indirect"])
        .arg(program)
        .env("RAWDB_TEST_SCALE", VALGRIND_SCALE);
    command
}

#[test]
fn c99_with_shared_library() {
    let build = Build { compiler: "gcc", dialect: "c99", linkage: "shared", options: &[] };
    run_all(&programs(), &build, natively);
}

#[test]
fn c99_with_static_library() {
    let build = Build { compiler: "gcc", dialect: "c99", linkage: "static", options: &[] };
    run_all(&programs(), &build, natively);
}

#[test]
fn cxx17_with_shared_library() {
    let build = Build { compiler: "g++", dialect: "c++17", linkage: "shared", options: &[] };
    run_all(&programs(), &build, natively);
}

#[test]
fn cxx17_with_static_library() {
    let build = Build { compiler: "g++", dialect: "c++17", linkage: "static", options: &[] };
    run_all(&programs(), &build, natively);
}

/// No invalid access, no use of undefined bytes, no leak.
#[test]
fn programs_under_valgrind() {
    // C11, so that the programs are others than those that the tests beside this one link.
    let build = Build { compiler: "gcc", dialect: "c11", linkage: "shared", options: &[] };
    run_all(&programs_with_tools(), &build, under_valgrind);
}

/// The C side under AddressSanitizer and UndefinedBehaviorSanitizer: what the library is given, and
/// what it gives, is used as the header says.
#[test]
fn programs_with_sanitizers() {
    let build = Build { compiler: "gcc", dialect: "c99", linkage: "shared", options: &SANITIZE };
    run_all(&programs_with_tools(), &build, natively);
}

#[test]
fn cxx_header() {
    let name = [CXX.to_owned()];
    for compiler in ["g++", "clang++"] {
        for dialect in ["c++17", "c++20"] {
            for linkage in ["shared", "static"] {
                run_all(&name, &Build { compiler, dialect, linkage, options: &[] }, natively);
            }
        }
    }
    for dialect in ["c++17", "c++20"] {
        let build = Build { compiler: "g++", dialect, linkage: "static", options: &SANITIZE };
        run_all(&name, &build, natively);
    }
    let build = Build { compiler: "g++", dialect: "c++17", linkage: "static", options: &[] };
    run_all(&name, &build, under_valgrind);
}

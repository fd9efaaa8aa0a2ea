//! The binary interface: it is the committed one (`include/rawdb.abi`, by libabigail), and every
//! function of it answers NULL and survives a panic. Sizes, offsets and constants are compared with
//! Rust's in `src/ffi/layout.rs`.
//!
//! After an intended change of the interface: `make abi`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

mod common;
use common::{code, functions, header, root, run, scratch, shared_library, system_libs, WARNINGS};

const UPDATE: &str = "RAWDB_UPDATE_ABI";

/// A function as the header declares it: what it returns, its name, its parameters.
struct Function {
    result: String,
    name: String,
    parameters: Vec<String>,
}

fn declarations() -> Vec<Function> {
    let header = header();
    let found: Vec<_> = code(&header)
        .split(';')
        .filter_map(|declaration| declaration.split_once("RAWDB_API"))
        .filter_map(|(_, declaration)| declaration.split_once('('))
        // Not the definitions of the macro.
        .filter(|(before, _)| before.contains("rawdb_"))
        .map(|(before, parameters)| {
            let before = before.replace("RAWDB_NODISCARD", "");
            let (result, name) = before.trim().split_at(before.trim().rfind("rawdb_").unwrap());
            let parameters = parameters.trim_end().strip_suffix(')').unwrap();
            let parameters = parameters.split(',').map(|it| it.trim().to_owned());
            Function {
                result: result.trim().to_owned(),
                name: name.to_owned(),
                parameters: parameters.filter(|it| it != "void").collect(),
            }
        })
        .collect();
    let mut names: Vec<_> = found.iter().map(|it| &it.name).collect();
    names.sort();
    assert!(names.into_iter().eq(&functions(&header)), "a declaration has been overlooked");
    found
}

/// The library with the switch that makes every call panic.
fn library_that_panics() -> PathBuf {
    let out = scratch().join("panics");
    run(Command::new(root().join("scripts/libraries"))
        .arg(format!("out={}", out.display()))
        .arg(format!("target_dir={}", scratch().join("panics-cargo").display()))
        .arg(format!("cargo={}", env!("CARGO")))
        .arg("cargo_flags=--features simulation"));
    out
}

/// Calls every function of the header with nothing but NULL and 0, first as it is, then with a panic
/// in it; so a function that is new, or that lets a panic through, is found here. From C, with
/// both libraries, as it is there that the panic must not arrive.
#[test]
fn every_function_answers_null_and_a_panic() {
    let mut calls = String::new();
    for Function { result, name, parameters } in declarations() {
        let arguments: Vec<_> =
            parameters
                .iter()
                .map(|it| {
                    if it.contains('*') || it.starts_with("rawdb_progress_fn") {
                        "NULL"
                    } else {
                        "0"
                    }
                })
                .collect();
        let call = format!("{name}({})", arguments.join(", "));
        match result.as_str() {
            // Those that close and free accept NULL; rawdb_close() with a status.
            "rawdb_status" => {
                let status = if name == "rawdb_close" { "OK" } else { "E_INVALID_ARGUMENT" };
                writeln!(calls, "    answers({call}, RAWDB_{status}, \"{name}\");").unwrap();
            }
            "void" => writeln!(calls, "    {call}; returns(\"{name}\");").unwrap(),
            "const char *" => {
                writeln!(calls, "    if ({call} == NULL) failed(\"{name}\", \"NULL\");").unwrap();
            }
            _ => writeln!(calls, "    (void){call}; returns(\"{name}\");").unwrap(),
        }
    }
    let program = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rawdb.h>

static int panics, failures;

static void failed(const char *name, const char *what)
{
    printf("%s, %s a panic: %s\n", name, panics ? "with" : "without", what);
    failures++;
}

/* What answers no status may be too simple to panic. */
static void returns(const char *name)
{
    if (!panics && strstr(rawdb_last_error(), "panic") != NULL)
        failed(name, rawdb_last_error());
}

static void answers(rawdb_status status, rawdb_status wanted, const char *name)
{
    const char *message = panics ? "panic in the library: a test asked for a panic" : "NULL";
    if (status != (panics ? RAWDB_E_PANIC : wanted))
        failed(name, rawdb_status_name(status));
    else if (status != RAWDB_OK && strstr(rawdb_last_error(), message) == NULL)
        failed(name, rawdb_last_error());
}

static void call_all(void)
{
@CALLS@}

int main(void)
{
    call_all();
    panics = 1;
    if (setenv("RAWDB_TEST_PANIC", "1", 1) != 0)
        return 2;
    call_all();
    return failures != 0;
}
"#;
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    fs::write(dir.path().join("calls.c"), program.replace("@CALLS@", &calls)).unwrap();
    let libraries = library_that_panics();
    for library in ["librawdb.so", "librawdb.a"] {
        run(Command::new("gcc")
            .args(WARNINGS)
            .args(["-std=c99", "-D_XOPEN_SOURCE=700", "-o", "calls", "calls.c", "-I"])
            .arg(root().join("include"))
            .arg(libraries.join(library))
            .args(system_libs())
            .arg(format!("-Wl,-rpath,{}", libraries.display()))
            .current_dir(dir.path()));
        run(&mut Command::new(dir.path().join("calls")));
    }
}

/// The interface as C has it, without what Rust has behind it: a library of empty functions, with
/// the constants as an enum, so that a change of one of them is seen as well.
fn stub() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let mut source = String::from("#include <rawdb.h>\n");
    for Function { result, name, parameters } in declarations() {
        let parameters =
            if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        let body = if result == "void" { "" } else { " return 0; " };
        writeln!(source, "{result} {name}({parameters}) {{{body}}}").unwrap();
    }
    // Of the constants only what is the interface's for good: not the version, and what an enum of
    // int can hold.
    source += "enum rawdb_constants {\n";
    for line in header().lines() {
        let Some((name, value)) = line.strip_prefix("#define ").and_then(|it| it.split_once(' '))
        else {
            continue;
        };
        if !name.starts_with("RAWDB_VERSION") && value.parse::<i32>().is_ok() {
            writeln!(source, "  constant_{name} = {name},").unwrap();
        }
    }
    source += "};\nvoid rawdb_constants(enum rawdb_constants c) { (void)c; }\n";
    fs::write(dir.path().join("stub.c"), source).unwrap();
    let dynamic = run(Command::new("readelf").arg("-d").arg(shared_library()));
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).unwrap();
    let soname = soname.split(['[', ']']).nth(1).unwrap();
    run(Command::new("gcc")
        .args(["-std=c99", "-g", "-shared", "-fPIC", "-o", "stub.so", "stub.c", "-I"])
        .arg(root().join("include"))
        .arg(format!("-Wl,-soname,{soname}"))
        .current_dir(dir.path()));
    let library = dir.path().join("stub.so");
    (dir, library)
}

#[test]
fn abi_is_the_committed_one() {
    let (_dir, library) = stub();
    let committed = root().join("include/rawdb.abi");
    if std::env::var_os(UPDATE).is_some() {
        run(Command::new("abidw")
            .args(["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file"])
            .arg(&committed)
            .arg(&library));
    }
    let output = Command::new("abidiff").arg(&committed).arg(&library).output();
    let output =
        output.unwrap_or_else(|error| panic!("abidiff: {error}; scripts/setup installs it"));
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "the binary interface has changed. If that is intended, `make abi`; and if programs have \
         to be compiled anew (what was there has changed or is gone), the SONAME in build.rs has to \
         change first\n{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! `include/rawdb.h` and the symbol list are what the sources and the built library say, and the
//! header holds up in every dialect it promises.
//!
//! After a change of the C interface: `RAWDB_UPDATE_HEADER=1 cargo test --test header`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

mod common;
use common::{functions, root, run, shared_library, static_library, WARNINGS};

const UPDATE: &str = "RAWDB_UPDATE_HEADER";

/// In the order in which the header presents them.
const SOURCES: [&str; 6] =
    ["library.rs", "status.rs", "database.rs", "names.rs", "region.rs", "view.rs"];

fn generate() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let after_includes = config.after_includes.as_mut().unwrap();
    for (mark, value) in [
        ("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR")),
        ("@MINOR@", env!("CARGO_PKG_VERSION_MINOR")),
        ("@PATCH@", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        *after_includes = after_includes.replace(mark, value);
    }
    // Not the whole crate: cbindgen would take every public constant of the engine for C's.
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join("src/ffi").join(source));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

fn check_or_update(path: &str, expected: &str) {
    let path = root().join(path);
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        let line = found.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count() + 1;
        panic!(
            "{} differs from the sources from line {line} on; \
             to renew it: {UPDATE}=1 cargo test --test header",
            path.display()
        );
    }
}

#[test]
fn header_and_symbol_list_are_current() {
    let header = generate();
    let symbols: String = functions(&header).iter().map(|name| format!("{name}\n")).collect();
    check_or_update("include/rawdb.h", &header);
    check_or_update("include/rawdb.symbols", &symbols);
}

/// The names that nm prints.
fn symbols(nm: &mut Command) -> BTreeSet<String> {
    let names = run(nm);
    let names = names.lines().filter(|line| !line.is_empty() && !line.ends_with(".o:"));
    names.map(|line| line.split(' ').next_back().unwrap().to_owned()).collect()
}

#[test]
fn libraries_have_the_functions_of_the_header_and_nothing_else() {
    let functions = functions(&generate());
    let exported = symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(shared_library()));
    assert_eq!(exported, functions);
    let global = symbols(Command::new("nm").args(["-g", "--defined-only"]).arg(static_library()));
    assert_eq!(global, functions);
}

#[test]
fn library_has_its_soname() {
    let dynamic = run(Command::new("readelf").arg("-d").arg(shared_library()));
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).unwrap_or_default();
    assert!(soname.ends_with("[librawdb.so.0]"), "{soname}");
}

/// Compiles `source`, which includes the header, as the promise of the header has it.
fn compile(compiler: &[&str], dialect: &str, source: &str) -> io::Result<Output> {
    let language = if dialect.contains("++") { "c++" } else { "c" };
    let mut child = Command::new(compiler[0])
        .args(WARNINGS)
        .args(&compiler[1..])
        .arg(format!("-std={dialect}"))
        .arg("-I")
        .arg(root().join("include"))
        .args(["-c", "-o", "/dev/null", "-x", language, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(source.as_bytes())?;
    child.wait_with_output()
}

const EVERY_MACRO: &str = "
#include <rawdb.h>
#include <rawdb.h>
#if RAWDB_VERSION_NUMBER != \\
    RAWDB_VERSION_MAJOR * 1000000 + RAWDB_VERSION_MINOR * 1000 + RAWDB_VERSION_PATCH
#error
#endif
int use(const rawdb_options *, const rawdb_stats *, const rawdb_region_info *, const rawdb_view *);
int test(void);
int test(void) {
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb_stats stats = RAWDB_STATS_INIT;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    rawdb_view view = RAWDB_VIEW_INIT;
    options.flags = RAWDB_OPEN_READ_ONLY | RAWDB_OPEN_NO_CREATE | RAWDB_OPEN_CREATE_NEW;
    options.reclaim_threshold = RAWDB_TO_END;
    return use(&options, &stats, &info, &view);
}
";

const IGNORED_STATUS: &str = "
#include <rawdb.h>
void test(rawdb *db);
void test(rawdb *db) { rawdb_flush(db); }
";

#[test]
fn header_compiles_everywhere_without_warnings() {
    let c = ["c99", "c11", "c17"];
    let cxx = ["c++11", "c++17", "c++20"];
    for (compiler, dialects) in [("gcc", c), ("g++", cxx), ("clang", c), ("clang++", cxx)] {
        for dialect in dialects {
            let output = compile(&[compiler], dialect, EVERY_MACRO)
                .unwrap_or_else(|error| panic!("{compiler}: {error}"));
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{compiler} -std={dialect}: {message}");

            let output = compile(&[compiler], dialect, IGNORED_STATUS).unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{compiler} -std={dialect}: an ignored status");
            assert!(message.contains("unused-result"), "{compiler} -std={dialect}: {message}");
        }
    }
}

/// Alone, twice, without exceptions, and with what a strict user warns about.
#[test]
fn cxx_header_compiles_everywhere_without_warnings() {
    let source = "#include <rawdb.hpp>\n#include <rawdb.hpp>\n";
    for compiler in ["g++", "clang++"] {
        for dialect in ["c++17", "c++20"] {
            for option in ["-fexceptions", "-fno-exceptions"] {
                let output = compile(&[compiler, option, "-Wshadow"], dialect, source).unwrap();
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{compiler} {option} {dialect}: {message}");
            }
        }
    }
}

/// C++ has all of the interface; what takes no handle and cannot fail needs no wrapper.
#[test]
fn cxx_header_has_every_function() {
    let header = fs::read_to_string(root().join("include/rawdb.hpp")).unwrap();
    let calls = functions(&header);
    let mut missing: Vec<_> = functions(&generate()).difference(&calls).cloned().collect();
    missing.retain(|name| !name.starts_with("rawdb_version") && name != "rawdb_status_message");
    assert!(missing.is_empty(), "{missing:?}");
}

/// The examples in the headers are what people begin with: they compile and do what they look like.
#[test]
fn examples_in_the_headers_run() {
    let cxx = fs::read_to_string(root().join("include/rawdb.hpp")).unwrap();
    run_example(&generate(), "rawdb.h", "gcc", "c99");
    run_example(&cxx, "rawdb.hpp", "g++", "c++17");
}

fn run_example(header: &str, name: &str, compiler: &str, dialect: &str) {
    let include = format!("#include <{name}>");
    let example: String = header
        .lines()
        .skip_while(|line| !line.ends_with(&include))
        .map(|line| line.strip_prefix(" *").unwrap())
        .map(|line| format!("{}\n", line.strip_prefix("     ").unwrap_or(line)))
        .scan(false, |ended, line| {
            let take = !*ended;
            *ended = line == "}\n";
            take.then_some(line)
        })
        .collect();

    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("example");
    let language = if dialect.contains("++") { "c++" } else { "c" };
    fs::write(dir.path().join("example.source"), example).unwrap();
    let library = shared_library();
    run(Command::new(compiler)
        .args(["-o", "example", "-x", language, "example.source", "-x", "none"])
        .arg(format!("-std={dialect}"))
        .args(WARNINGS)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .arg("-I")
        .arg(root().join("include"))
        .current_dir(dir.path()));
    assert_eq!(run(Command::new(program).current_dir(dir.path())), "hello\n");
}

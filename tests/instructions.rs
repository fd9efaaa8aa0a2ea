//! How many instructions the hot calls take, through the C interface in the release build, against
//! `instructions/table.txt`. Unlike times they are the same on a busy machine.
//!
//! After a change that is worth its instructions: `RAWDB_UPDATE_INSTRUCTIONS=1 cargo test --test
//! instructions`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const UPDATE: &str = "RAWDB_UPDATE_INSTRUCTIONS";

const CALLS: [&str; 3] = ["append", "overwrite", "view"];

/// In percent. Another compiler or C library moves a few instructions; a lock more on the way is
/// more than this.
const TOLERANCE: f64 = 4.0;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Standard output and error.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; scripts/setup installs what the tests need")
    });
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let text = format!("{out}{errors}");
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The program of `instructions/hot_calls.c`, linked to the library as it is shipped.
fn program() -> PathBuf {
    let messages = run(Command::new(env!("CARGO"))
        // Beside a Rust library, which `cargo build` makes as well, Cargo does not optimise the whole.
        .args(["rustc", "--release", "--lib", "--crate-type=cdylib"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root()));
    let built = messages.split('"').find(|text| text.ends_with("/librawdb.so"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    fs::create_dir_all(&dir).unwrap();
    let library = dir.join("librawdb.so.0");
    fs::copy(built.expect("Cargo names the library it built"), &library).unwrap();
    let program = dir.join("hot_calls");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .host(&host)
        .target(&host)
        .opt_level(2)
        .out_dir(&dir)
        .cargo_metadata(false)
        .get_compiler();
    run(compiler
        .to_command()
        .arg("-I")
        .arg(root().join("include"))
        .arg(root().join("tests/instructions/hot_calls.c"))
        .arg(library)
        .arg(format!("-Wl,-rpath,{}", dir.display()))
        .arg("-o")
        .arg(&program));
    program
}

fn instructions(program: &Path, call: &str, count: u64) -> u64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let text = run(Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([call, &count.to_string()])
        .current_dir(dir.path()));
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    collected.expect("callgrind says what it has counted").1.trim().parse().unwrap()
}

#[test]
fn hot_calls_take_no_more_instructions_than_the_table_says() {
    let program = program();
    // The difference of two runs is free of what surrounds the calls.
    let (few, many) = (10_000, 30_000);
    let counted = CALLS.map(|call| {
        let [few, many] = [few, many].map(|count| instructions(&program, call, count) as f64);
        (call, (many - few) / 20_000.0)
    });
    let path = root().join("tests/instructions/table.txt");
    if std::env::var_os(UPDATE).is_some() {
        let lines = counted.map(|(call, count)| format!("{call} {count:.0}\n"));
        fs::write(&path, lines.concat()).unwrap();
    }
    let table = fs::read_to_string(&path).unwrap();
    let mut failures = String::new();
    for (call, count) in counted {
        let line = table.lines().find_map(|line| line.strip_prefix(call));
        let expected: f64 = line.expect("the table has each call").trim().parse().unwrap();
        println!("{call}: {count:.1} instructions, {expected} in the table");
        // Fewer as well: the next slip would not be noticed.
        if (count / expected - 1.0).abs() * 100.0 > TOLERANCE {
            failures += &format!("\n{call}: {count:.1} instructions, but {expected} in the table");
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}\nto renew it: {UPDATE}=1 cargo test --test instructions"
    );
}

//! When the heap is exhausted: which functions of the C interface answer `RAWDB_E_NO_MEMORY`, which
//! take nothing from the heap, and which end the process, is what the header says.
//!
//! `faults/allocations.c` lets every allocation of every function of the shared library fail, and
//! tells what was seen; see there. `faults/fork_in_free.c` forks while memory is freed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

mod common;
use common::{root, run, scratch, shared_library};

/// A program that takes longer hangs.
const TIMEOUT: &str = "600";

/// Builds the library as it is shipped, and a program of `tests/faults` with it.
fn program(name: &str) -> std::path::PathBuf {
    let scratch = scratch().join("allocations");
    fs::create_dir_all(&scratch).unwrap();
    let library = shared_library();
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .host(&host)
        .target(&host)
        .opt_level(2)
        .out_dir(&scratch)
        .cargo_metadata(false)
        .get_compiler();
    let program = scratch.join(name);
    run(compiler
        .to_command()
        .args(["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(root().join("include"))
        .arg("-I")
        .arg(root().join("c_tests"))
        .arg(root().join("tests/faults").join(name).with_extension("c"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .arg("-o")
        .arg(&program));
    program
}

/// The three lists of functions in the header's section about memory.
fn lists() -> [BTreeSet<String>; 3] {
    let header = fs::read_to_string(root().join("include/rawdb.h")).unwrap();
    let (_, section) = header.split_once(" * MEMORY\n").expect("the header has the section");
    let (section, _) = section.split_once(" * CAVEATS\n").expect("which ends there");
    let mut lists = Vec::new();
    for paragraph in section.split("\n *\n") {
        if paragraph.trim_start_matches('\n').starts_with(" *   ") {
            let words = paragraph.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            lists.push(words.filter(|it| it.starts_with("rawdb_")).map(str::to_owned).collect());
        }
    }
    lists.try_into().expect("three lists")
}

#[test]
fn exhausted_heap() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let output = run(Command::new("timeout")
        .arg(TIMEOUT)
        .arg(program("allocations"))
        .env("TMPDIR", dir.path()));
    println!("{output}");
    // function -> (situation, size of the allocations) -> what was seen
    let mut seen = BTreeMap::<&str, BTreeMap<(&str, &str), BTreeSet<&str>>>::new();
    for line in output.lines() {
        let (call, outcomes) = line.split_once(": ").unwrap();
        let [function, situation, size] = call.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let outcomes = outcomes.split(' ').collect();
        seen.entry(function).or_default().insert((situation, size), outcomes);
    }

    let symbols = fs::read_to_string(root().join("include/rawdb.symbols")).unwrap();
    let symbols: Vec<&str> = symbols.lines().collect();
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), symbols.into_iter().collect());

    let [no_memory, never, with_room] = lists();
    let nothing = BTreeSet::from(["nothing"]);
    for (&function, situations) in &seen {
        let aborts = situations.values().any(|outcomes| outcomes.contains("abort"));
        let outcomes = |situation, size| situations.get(&(situation, size)).cloned();
        if never.contains(function) {
            assert!(situations.values().all(|it| *it == nothing), "{function}: {situations:?}");
        }
        if with_room.contains(function) {
            let with_room = outcomes("room", "any").or(outcomes("appending", "any"));
            assert_eq!(with_room.as_ref(), Some(&nothing), "{function}");
        }
        for (&(situation, size), outcomes) in situations {
            let answers = outcomes.contains("no-memory");
            if size == "large" && no_memory.contains(function) {
                assert!(!outcomes.contains("abort"), "{function}, {situation}: {outcomes:?}");
            }
            if size == "large" && !no_memory.contains(function) {
                assert!(!answers, "the header does not say that {function} answers so");
            }
        }
        if no_memory.contains(function) {
            let answered = BTreeSet::from(["no-memory"]);
            assert!(situations.values().any(|it| *it == answered), "{function}: {situations:?}");
        }
        // Nothing that the header warns of is in truth safe, except for calls that take from the
        // heap only what growing tables need.
        let grows = ["rawdb_reserve_file", "rawdb_reserve_regions"].contains(&function);
        let listed = never.contains(function) || with_room.contains(function) || grows;
        assert!(aborts || listed, "{function} could be listed: {situations:?}");
    }
}

/// A forked child does not free what another thread was freeing.
#[test]
fn fork_while_memory_is_freed() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let program = program("fork_in_free");
    run(Command::new("timeout").arg(TIMEOUT).arg(program).env("TMPDIR", dir.path()));
}

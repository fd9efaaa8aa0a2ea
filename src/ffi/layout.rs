//! Sizes, offsets and constants as a C compiler has them from `include/rawdb.h` are those of Rust.
//! What is compared is taken from the header, so that nothing can be left out here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::mem::{align_of, offset_of};
use std::process::Command;

use super::database::*;
use super::names::*;
use super::region::*;
use super::status::*;
use super::view::*;

const HEADER: &str = include_str!("../../include/rawdb.h");

/// Macros that are no constants, and those made from the version, which `tests.rs` looks at.
const OTHER_MACROS: [&str; 12] = [
    "RAWDB_H",
    "RAWDB_API",
    "RAWDB_NODISCARD",
    "RAWDB_OPTIONS_INIT",
    "RAWDB_STATS_INIT",
    "RAWDB_REGION_INFO_INIT",
    "RAWDB_VIEW_INIT",
    "RAWDB_VERSION_MAJOR",
    "RAWDB_VERSION_MINOR",
    "RAWDB_VERSION_PATCH",
    "RAWDB_VERSION_STRING",
    "RAWDB_VERSION_NUMBER",
];

fn size_of_member<S, M>(_: impl FnOnce(&S) -> &M) -> usize {
    size_of::<M>()
}

/// Of every struct and constant of the interface, what Rust says.
fn rust() -> BTreeMap<String, i128> {
    let mut facts = BTreeMap::new();
    macro_rules! layout {
        ($($struct:ident { $($member:ident),* $(,)? })*) => {$(
            let name = stringify!($struct);
            facts.insert(format!("size {name}"), size_of::<$struct>() as i128);
            facts.insert(format!("align {name}"), align_of::<$struct>() as i128);
            // Names all members, or does not compile.
            let _ = |it: $struct| { let $struct { $($member: _),* } = it; };
            $(
                let name = concat!(stringify!($struct), ".", stringify!($member));
                facts.insert(format!("offset {name}"), offset_of!($struct, $member) as i128);
                let size = size_of_member(|it: &$struct| &it.$member);
                facts.insert(format!("size {name}"), size as i128);
            )*
        )*};
    }
    layout! {
        rawdb_options {
            struct_size, flags, reserved, min_file_len, max_address_space, reclaim_threshold,
        }
        rawdb_stats {
            struct_size, region_count, live_bytes, reserved_bytes, free_bytes, pending_bytes,
            pinned_bytes, file_len, disk_bytes, generation,
        }
        rawdb_region_info { struct_size, start, len, reserved }
        rawdb_view { data, len, pin_ }
    }
    for (name, size, align) in [
        ("rawdb_status", size_of::<rawdb_status>(), align_of::<rawdb_status>()),
        ("rawdb_progress_fn", size_of::<rawdb_progress_fn>(), align_of::<rawdb_progress_fn>()),
    ] {
        facts.insert(format!("size {name}"), size as i128);
        facts.insert(format!("align {name}"), align as i128);
    }
    macro_rules! constants {
        ($($constant:path),* $(,)?) => {$(
            let name = stringify!($constant).rsplit(':').next().unwrap();
            facts.insert(format!("constant {}", name.trim()), $constant as i128);
        )*};
    }
    constants![
        super::library::RAWDB_MAX_NAME_LEN,
        RAWDB_OPEN_READ_ONLY,
        RAWDB_OPEN_NO_CREATE,
        RAWDB_OPEN_CREATE_NEW,
        RAWDB_OPEN_GUARDED,
        RAWDB_OPEN_SHARE_DIRECTORY,
        RAWDB_RENAME_REPLACE,
        RAWDB_TO_END,
        RAWDB_OK,
        RAWDB_DONE,
        RAWDB_E_INVALID_ARGUMENT,
        RAWDB_E_NOT_FOUND,
        RAWDB_E_ALREADY_EXISTS,
        RAWDB_E_OUT_OF_BOUNDS,
        RAWDB_E_TOO_LARGE,
        RAWDB_E_INVALID_NAME,
        RAWDB_E_LOCKED,
        RAWDB_E_BUSY,
        RAWDB_E_REMOVED,
        RAWDB_E_CLOSED,
        RAWDB_E_READ_ONLY,
        RAWDB_E_FORKED,
        RAWDB_E_NO_SPACE,
        RAWDB_E_NO_MEMORY,
        RAWDB_E_IO,
        RAWDB_E_CORRUPT,
        RAWDB_E_INCOMPATIBLE,
        RAWDB_E_CANCELLED,
        RAWDB_E_PANIC,
    ];
    facts
}

/// The same of everything in the header, by a C program.
fn c() -> BTreeMap<String, i128> {
    let mut prints = String::new();
    // With its sign: -1 and UINT64_MAX are different.
    let mut print = |fact: &str, expression: &str| {
        writeln!(
            prints,
            "    printf(\"{fact} %s%\" PRIu64 \"\\n\", ({expression}) < 0 ? \"-\" : \"\", \
             (uint64_t)(({expression}) < 0 ? -({expression}) : ({expression})));"
        )
        .unwrap();
    };
    let mut name = None;
    for line in HEADER.lines() {
        if let Some(defined) = line.strip_prefix("#define ") {
            let defined = defined.split(' ').next().unwrap();
            if !OTHER_MACROS.contains(&defined) {
                print(&format!("constant {defined}"), defined);
            }
        } else if let Some(rest) = line.strip_prefix("typedef struct ") {
            name = rest.strip_suffix(" {");
        } else if let Some(rest) = line.strip_prefix("typedef ") {
            let defined = rest.split_once("(*").map_or_else(
                || rest.rsplit(' ').next().unwrap().trim_end_matches(';'),
                |(_, rest)| rest.split(')').next().unwrap(),
            );
            print(&format!("size {defined}"), &format!("sizeof({defined})"));
            print(&format!("align {defined}"), &format!("_Alignof({defined})"));
        } else if let Some(name_of) = name.filter(|_| line.starts_with("  ") && line.ends_with(';'))
        {
            let member = line.rsplit([' ', '*']).next().unwrap().trim_end_matches(';');
            let place = format!("offsetof({name_of}, {member})");
            print(&format!("offset {name_of}.{member}"), &place);
            let size = format!("sizeof((({name_of} *)0)->{member})");
            print(&format!("size {name_of}.{member}"), &size);
        } else if line.starts_with('}') {
            if let Some(name) = name.take() {
                print(&format!("size {name}"), &format!("sizeof({name})"));
                print(&format!("align {name}"), &format!("_Alignof({name})"));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "#include <inttypes.h>\n#include <stdio.h>\n#include <rawdb.h>\n\
         int main(void) {{\n{prints}    return 0;\n}}\n"
    );
    fs::write(dir.path().join("facts.c"), source).unwrap();
    let compiled = Command::new("gcc")
        .args(["-std=c11", "-o", "facts", "facts.c", "-I"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/include"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(dir.path().join("facts")).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(fact, value)| (fact.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn layouts_and_constants_are_the_same_in_c() {
    let (c, rust) = (c(), rust());
    assert!(c.len() > 60, "{c:?}");
    assert_eq!(c, rust);
}

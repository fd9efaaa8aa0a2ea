//! Opens files that a hostile input has changed, and judges the answer: it must be that of
//! [`reader`], and a database that opens must work.
//!
//! Shared by the fuzz target and `tests/hostile_files.rs`.

mod files;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use rawdb::storage::simulation::Simulation;
use rawdb::{Database, Error, ErrorKind, Options};

use files::{lives, Files, Input};
use reader::{Found, PAGE};

/// What became of an input, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Opened,
    /// And found by the mirror.
    Mirrored,
    Unfinished,
    Incompatible,
    /// With what [`reader`] calls the reason.
    Corrupt(&'static str),
    Undecided,
}

type Contents = BTreeMap<String, Vec<u8>>;

/// More changes make files that are refused for the first of them.
const MOST_CHANGES: usize = 24;

/// Makes files of an input and tries them. Panics where the library breaks a promise.
pub fn run(bytes: &[u8]) -> Outcome {
    let mut input = Input(bytes);
    let life = &lives()[input.below(lives().len())];
    let mut files = life[input.below(life.len())].clone();
    let (finish, how) = (input.byte(), input.byte());
    for _ in 0..MOST_CHANGES {
        if input.0.is_empty() {
            break;
        }
        input.change(&mut files, life);
    }
    input.finish(&mut files, finish);
    let (guarded, thorough) = (how & 1 > 0, how & 6 == 0);
    let rng = fastrand::Rng::with_seed(xxhash_rust::xxh3::xxh3_64(bytes));
    check(&files, guarded, thorough, rng)
}

fn options(read_only: bool, guarded: bool) -> Options {
    Options { read_only, guarded, ..files::options() }
}

fn open(disk: &Arc<Simulation>, options: &Options) -> Result<Database, Error> {
    Database::open_storage(disk.clone(), options)
}

fn check(files: &Files, guarded: bool, thorough: bool, mut rng: fastrand::Rng) -> Outcome {
    let found = reader::read(&files.data, &files.regions, &files.live);
    let disk = files.disk();
    let reading = open(&disk, &options(true, false));
    let outcome = match (&found, &reading) {
        (Found::Table(table), Ok(db)) => {
            check_table(db, table, files, PAGE);
            if table.flushed.is_some() {
                Outcome::Mirrored
            } else {
                Outcome::Opened
            }
        }
        (Found::Unfinished, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            Outcome::Unfinished
        }
        (Found::Incompatible, Err(error)) => {
            check_refusal(error, ErrorKind::Incompatible);
            Outcome::Incompatible
        }
        (Found::Corrupt(reason), Err(error)) => {
            check_refusal(error, ErrorKind::Corrupt);
            Outcome::Corrupt(reason)
        }
        (Found::Undecided, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("cannot tell whether"), "{error}");
            Outcome::Undecided
        }
        (found, opened) => panic!("the files are {found:?}, the library says {opened:?}"),
    };
    drop(reading);
    assert!(Files::of(&disk) == *files, "reading changes nothing");

    let writing = open(&disk, &options(false, guarded));
    let contents = match (&found, &writing) {
        (Found::Table(table), Ok(db)) => {
            let piece = if guarded { PAGE } else { 4 * PAGE };
            check_table(db, table, files, piece)
        }
        (Found::Unfinished, Ok(_)) => Contents::new(),
        (Found::Table(_) | Found::Unfinished, Err(error)) => panic!("cannot be written: {error}"),
        (_, Ok(_)) => panic!("refused to readers only"),
        (_, Err(error)) => {
            assert_eq!(error.to_string(), reading_error(&disk), "one file, one reason");
            assert!(Files::of(&disk) == *files, "a refusal changes nothing");
            return outcome;
        }
    };
    // Each flush takes a generation, and there are only so many.
    let last = matches!(&found, Found::Table(table) if table.newest >= (1 << 62) - 16);
    let db = writing.expect("judged above");
    let ambiguous = matches!(&found, Found::Table(table) if table.ambiguous);
    // Takes ten times as long as to open the files, which is where they can differ most.
    if thorough && !ambiguous {
        let flushed = match found {
            Found::Table(reader::Table { flushed: Some(flushed), .. }) => bytes_of(files, &flushed),
            _ => contents.clone(),
        };
        work(&disk, db, guarded, contents, flushed, last, &mut rng);
    }
    outcome
}

fn bytes_of(files: &Files, regions: &BTreeMap<String, reader::Region>) -> Contents {
    let bytes = |region: &reader::Region| {
        let mut bytes = files.data[region.start as usize..][..region.len as usize].to_vec();
        let from = bytes.len() - region.tail.len();
        bytes[from..].copy_from_slice(&region.tail);
        bytes
    };
    regions.iter().map(|(name, region)| (name.clone(), bytes(region))).collect()
}

fn reading_error(disk: &Arc<Simulation>) -> String {
    open(disk, &options(true, false)).expect_err("was refused before").to_string()
}

/// A refusal says which page of which file it is about, and why.
fn check_refusal(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(["data page ", "regions page "].iter().any(|it| message.contains(it)), "{message}");
    assert!(["field ", "digest", "blank"].iter().any(|it| message.contains(it)), "{message}");
}

/// Whether an open database is what the files say. Returns what it holds.
fn check_table(db: &Database, table: &reader::Table, files: &Files, piece: usize) -> Contents {
    let file_len = files.data.len().next_multiple_of(piece) as u64;
    let list = db.list().unwrap();
    assert_eq!(list.len(), table.regions.len());
    for (name, info) in &list {
        let region = &table.regions[name];
        // What is reserved beyond the end of the file is given up.
        let reserved = region.reserved.min(file_len.saturating_sub(region.start));
        let start = if reserved > 0 { region.start } else { 0 };
        assert_eq!((info.start, info.len, info.reserved), (start, region.len, reserved), "{name}");
    }
    let stats = db.stats().unwrap();
    assert_eq!(stats.generation, table.generation);
    assert_eq!(stats.file_len, file_len);
    let contents = contents(db);
    assert!(contents == bytes_of(files, &table.regions), "every byte is where the table says");
    contents
}

/// All bytes of all regions. Nobody must share any.
fn contents(db: &Database) -> Contents {
    let list = db.list().unwrap();
    let mut contents = Contents::new();
    let mut places = vec![(0, PAGE as u64)];
    for (name, info) in &list {
        let region = db.region(name).unwrap();
        let view = region.view(0, u64::MAX).unwrap();
        assert_eq!(view.len() as u64, info.len);
        assert!(info.start % PAGE as u64 == 0 && info.len <= info.reserved);
        assert!(!name.is_empty() && !name.contains(char::is_control));
        contents.insert(name.clone(), view.to_vec());
        if info.reserved > 0 {
            places.push((info.start, info.start + info.reserved));
        }
    }
    assert_eq!(contents.len(), list.len(), "a name is listed once");
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:?}");
    let stats = db.stats().unwrap();
    let known = stats.reserved_bytes + stats.free_bytes + stats.pending_bytes + stats.pinned_bytes;
    assert_eq!(PAGE as u64 + known, stats.file_len, "every byte is one thing");
    assert!(places.iter().all(|place| place.1 <= stats.file_len), "{places:?}");
    assert_eq!(stats.region_count, list.len() as u64);
    contents
}

/// Whether the files say the same, to a reader of the format, with the mirror and without.
fn check_files(disk: &Arc<Simulation>, expected: &Contents) {
    let files = Files::of(disk);
    for live in [&files.live[..], &[]] {
        match reader::read(&files.data, &files.regions, live) {
            Found::Table(table) => {
                let found = bytes_of(&files, &table.regions);
                assert!(found == *expected, "the files are as was flushed");
            }
            found => panic!("after a flush the files are {found:?}"),
        }
    }
}

/// Uses the database, and looks for what was done in it and in what a crash leaves.
fn work(
    disk: &Arc<Simulation>,
    db: Database,
    guarded: bool,
    mut expected: Contents,
    flushed: Contents,
    last_generations: bool,
    rng: &mut fastrand::Rng,
) {
    let out_of_generations =
        |error: &Error| last_generations && error.kind() == ErrorKind::TooLarge;
    // Before the first flush there is no overwriting: a crash may leave either state of a byte. But where
    // a mirror has a shorter region than was flushed, appending to it overwrites.
    let overwrites = flushed != expected;
    for _ in 0..rng.u32(..6) {
        change(&db, &mut expected, rng, false);
    }
    assert!(contents(&db) == expected);
    let dead = open(&disk.snapshot().restart(), &options(rng.bool(), guarded));
    assert!(contents(&dead.expect("the process dies")) == expected, "death loses nothing");
    disk.record();
    match db.flush() {
        Ok(()) => check_files(disk, &expected),
        Err(error) if out_of_generations(&error) => return,
        Err(error) => panic!("cannot flush: {error}"),
    }
    // At any moment of the flush a crash leaves one table or the other, and after it the new one.
    let moments = disk.recorded();
    let at = rng.usize(..moments.len());
    let crashed = moments[at].crash(rng.u64(..));
    let after_crash = open(&crashed, &options(false, guarded)).expect("a crash destroys nothing");
    let found = contents(&after_crash);
    let done = at + 1 == moments.len();
    let shape = |it: &Contents| it.iter().map(|it| (it.0.clone(), it.1.len())).collect::<Vec<_>>();
    let as_before = found == flushed || (overwrites && shape(&found) == shape(&flushed));
    assert!(found == expected || (!done && as_before), "a crash leaves a flushed state");
    drop(after_crash);

    for _ in 0..rng.u32(..6) {
        change(&db, &mut expected, rng, true);
    }
    if rng.bool() {
        db.compact().unwrap_or_else(|error| assert!(out_of_generations(&error), "{error}"));
    }
    assert!(contents(&db) == expected);
    match db.close() {
        Ok(()) => check_files(disk, &expected),
        Err(error) if out_of_generations(&error) => return,
        Err(error) => panic!("cannot close: {error}"),
    }
    let db = open(disk, &options(rng.bool(), guarded)).expect("it was closed");
    assert!(contents(&db) == expected, "what was closed is there");
}

/// One change to the database and to what is expected of it.
fn change(db: &Database, expected: &mut Contents, rng: &mut fastrand::Rng, overwrite: bool) {
    let old = expected.keys().nth(rng.usize(..expected.len().max(1))).cloned();
    let new = format!("new {}", rng.u32(..4));
    let bytes: Vec<u8> = (0..rng.usize(..6000)).map(|at| at as u8).collect();
    match (rng.u32(..6), old) {
        (0, Some(name)) => {
            db.remove(&name).unwrap();
            expected.remove(&name);
        }
        (1, Some(name)) => {
            db.rename(&name, &new, true).unwrap();
            let bytes = expected.remove(&name).unwrap();
            expected.insert(new, bytes);
        }
        (2, Some(name)) if overwrite => {
            let bytes_now = expected.get_mut(&name).unwrap();
            let at = rng.usize(..=bytes_now.len());
            db.region(&name).unwrap().write_at(&bytes, at as u64).unwrap();
            bytes_now.resize(bytes_now.len().max(at + bytes.len()), 0);
            bytes_now[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        (3, Some(name)) if overwrite => {
            let bytes_now = expected.get_mut(&name).unwrap();
            let len = rng.usize(..=bytes_now.len());
            db.region(&name).unwrap().truncate(len as u64).unwrap();
            bytes_now.truncate(len);
        }
        (4, Some(name)) => {
            db.region(&name).unwrap().write(&bytes).unwrap();
            expected.get_mut(&name).unwrap().extend(&bytes);
        }
        _ => {
            db.create_region_if_needed(&new).unwrap().write(&bytes).unwrap();
            expected.entry(new).or_default().extend(&bytes);
        }
    }
}

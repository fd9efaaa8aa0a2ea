//! The death of the process: the next open finds the effect of every call that had returned (P11),
//! on real files. `crash/` does the same on a simulated disk, after every store.
//!
//! Processes work with a database until they are killed, and say by a pipe which of their calls have
//! returned. `RAWDB_KILLS` says how many are killed, for each kind of place; `RAWDB_SEED` repeats
//! their programs, but not the moments of their deaths.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rawdb::{Database, ErrorKind, Options};

mod random_program;
mod reboot;
mod seed;

use random_program::{Operation, Program};

/// What a process is told by its environment: which database, as what, from which seed, and how many
/// operations of each thread have been done.
const DATABASE: &str = "RAWDB_TEST_DATABASE";
const ROLE: &str = "RAWDB_TEST_ROLE";
const SEED: &str = "RAWDB_SEED";
const DONE: &str = "RAWDB_TEST_DONE";

/// What a test kills together, if the environment says nothing else. There are four.
const KILLS: u64 = 75;

/// As many processes work with a database, one after the other.
const GENERATIONS: u64 = 15;

/// A worker writes with several threads, which have regions of their own.
const PREFIXES: [&str; 2] = ["a ", "b "];

type Contents = BTreeMap<String, Vec<u8>>;

fn contents(db: &Database) -> Contents {
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

fn read_only() -> Options {
    Options { read_only: true, ..Options::default() }
}

fn programs(seed: u64) -> [Program; 2] {
    [0, 1].map(|thread| Program::new(seed.wrapping_add(thread as u64), PREFIXES[thread]))
}

/// The process that works until it is killed. Each thread runs its program from where the process
/// before was, and says what it has done, on the standard error output, which nobody else writes to as
/// long as all is well; another one flushes, compacts and lets space be reused. Now
/// and then the database is closed and opened again.
fn work(path: &Path, seed: u64, guarded: bool, done: [u64; 2]) {
    let mut rng = fastrand::Rng::new();
    let mut programs = programs(seed);
    for (program, done) in programs.iter_mut().zip(done) {
        while program.done < done {
            program.step();
        }
    }
    // Punches often.
    let options = Options { guarded, reclaim_threshold: 64 << 10, ..Options::default() };
    let report = |thread: u8, operation: u64| {
        let mut record = [thread; 9];
        record[1..].copy_from_slice(&operation.to_le_bytes());
        std::io::stderr().write_all(&record).unwrap();
    };
    loop {
        let db = Database::open_with(path, &options).unwrap();
        let stop = AtomicBool::new(false);
        let rounds = rng.u64(1..400);
        let mut pauses = rng.fork();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(pauses.u64(..5_000)));
                    match pauses.u32(..8) {
                        0 => db.compact().unwrap(),
                        _ => db.flush().unwrap(),
                    }
                }
            });
            let writers = programs.iter_mut().zip(0..).map(|(program, thread)| {
                let db = &db;
                scope.spawn(move || {
                    let mut views = Vec::new();
                    for round in 0..rounds {
                        program.step().run(db).unwrap();
                        report(thread, program.done);
                        // Open when the process dies.
                        if round % 16 == 0 {
                            views.clear();
                        }
                        let name = program.regions.keys().nth(round as usize % 8);
                        views.extend(name.map(|it| db.region(it).unwrap().view(0, u64::MAX)));
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            stop.store(true, Ordering::Relaxed);
        });
        db.close().unwrap();
    }
}

/// This program once more.
fn process(test: &str, role: &str, path: &Path) -> Command {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", test, "--nocapture", "--quiet"]);
    process.env(ROLE, role).env(DATABASE, path).stdin(Stdio::null());
    process
}

/// Kills the process when the test ends early.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of a thread, how many operations had returned, and the state in which its regions are found: a
/// whole number of operations, or one more of which a part is done.
fn judge(program: &mut Program, returned: u64, found: &Contents) -> &'static str {
    while program.done < returned {
        program.step();
    }
    let is = |program: &Program| {
        let expected = program.regions.iter().map(|(name, it)| (name, &it.bytes));
        expected.eq(found.iter())
    };
    let mut next = program.clone();
    let operation = next.step();
    // An operation may change nothing.
    if is(&next) {
        *program = next;
        return "done";
    }
    if is(program) {
        return "not done";
    }
    let Operation::Write(stores) = operation else {
        panic!("after {returned} operations there is {:?}", lengths(found));
    };
    let stores = [(next.done, stores)];
    let alike = program.regions.len() == found.len()
        && program.regions.iter().all(|(name, region)| {
            found.get(name).is_some_and(|found| {
                found.len() == region.bytes.len() && region.may_become(found, &stores)
            })
        });
    assert!(alike, "after {returned} operations there is {:?}", lengths(found));
    "overwritten in part"
}

fn lengths(contents: &Contents) -> Vec<(&str, usize)> {
    contents.iter().map(|(name, it)| (&name[..name.len().min(12)], it.len())).collect()
}

/// Has processes killed that work with a database in `directory`.
fn kill(test: &str, directory: &Path, guarded: bool) {
    if let Ok(path) = std::env::var(DATABASE) {
        let number = |name: &str| std::env::var(name).unwrap();
        let done = number(DONE);
        let (a, b) = done.split_once(' ').unwrap();
        let done = [a.parse().unwrap(), b.parse().unwrap()];
        return work(Path::new(&path), number(SEED).parse().unwrap(), guarded, done);
    }
    let seed = seed::seed();
    let kills = std::env::var("RAWDB_KILLS").map_or(KILLS, |it| it.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut seen = BTreeMap::new();
    let (mut killed, mut slowest) = (0, Duration::ZERO);
    while killed < kills {
        let scratch = tempfile::tempdir_in(directory).unwrap();
        let path = scratch.path().join("db");
        let seed = rng.u64(..);
        let mut programs = programs(seed);
        // There is something to be killed from the first moment on.
        Database::open(&path).unwrap().close().unwrap();
        for _ in 0..GENERATIONS.min(kills - killed) {
            let done = programs.each_ref().map(|program| program.done);
            let worker = process(test, "work", &path)
                .env(SEED, seed.to_string())
                .env(DONE, format!("{} {}", done[0], done[1]))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut worker = Worker(worker);
            let mut pipe = worker.0.stderr.take().unwrap();
            let reports = std::thread::spawn(move || {
                let mut reports = Vec::new();
                pipe.read_to_end(&mut reports).map(|_| reports)
            });
            std::thread::sleep(Duration::from_micros(match rng.u32(..4) {
                // While it starts, and opens the database.
                0 => rng.u64(..8_000),
                1 => rng.u64(..100_000),
                _ => rng.u64(..30_000),
            }));
            worker.0.kill().unwrap();
            let status = worker.0.wait().unwrap();
            let reports = reports.join().unwrap().unwrap();
            let text = String::from_utf8_lossy(&reports);
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}: {text}");
            killed += 1;
            let mut returned = done;
            for record in reports.chunks_exact(9) {
                let operation = u64::from_le_bytes(record[1..].try_into().unwrap());
                returned[usize::from(record[0])] = operation;
            }

            // A reader leaves everything as it is. Its lock is there at once.
            let start = Instant::now();
            let db = Database::open_with(&path, &read_only()).unwrap();
            slowest = slowest.max(start.elapsed());
            let found = contents(&db);
            drop(db);
            for (thread, program) in programs.iter_mut().enumerate() {
                let mine = |name: &str| name.starts_with(PREFIXES[thread]);
                let found = found.clone().into_iter().filter(|(name, _)| mine(name)).collect();
                *seen.entry(judge(program, returned[thread], &found)).or_insert(0) += 1;
            }
        }
        let operations: u64 = programs.iter().map(|program| program.done).sum();
        *seen.entry("operations").or_insert(0) += operations;
        // The next process finds the same, and when it has closed the database nothing is left to do.
        let found = contents(&Database::open_with(&path, &read_only()).unwrap());
        let db = Database::open(&path).unwrap();
        assert!(contents(&db) == found);
        db.close().unwrap();
        assert!(!path.join("live").exists());
        assert!(contents(&Database::open_with(&path, &read_only()).unwrap()) == found);
    }
    println!("{test}: {killed} killed, {seen:?}; the slowest open took {slowest:?}");
}

fn on_disk() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn killed_on_disk() {
    kill("killed_on_disk", &on_disk(), false);
}

#[test]
fn killed_on_disk_guarded() {
    kill("killed_on_disk_guarded", &on_disk(), true);
}

#[test]
fn killed_in_memory() {
    kill("killed_in_memory", Path::new("/dev/shm"), false);
}

#[test]
fn killed_in_memory_guarded() {
    kill("killed_in_memory_guarded", Path::new("/dev/shm"), true);
}

/// A database in a directory of its own, left by a process that died: "a" has been flushed with 5000
/// bytes, and grown since; "b" has not been flushed.
struct Left {
    scratch: tempfile::TempDir,
}

impl Left {
    fn new() -> Left {
        let scratch = tempfile::tempdir_in(on_disk()).unwrap();
        let left = Left { scratch };
        let status = process("leave", "leave", &left.path()).status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
        left
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("db")
    }

    fn live(&self) -> PathBuf {
        self.path().join("live")
    }
}

/// Leaves a database in a hurry, and two views.
#[test]
fn leave() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let db = Database::open(path).unwrap();
    let a = db.create_region_if_needed("a").unwrap();
    a.write(&[1; 5000]).unwrap();
    db.flush().unwrap();
    a.write(&[2; 5000]).unwrap();
    let b = db.create_region_if_needed("b").unwrap();
    b.write(&[3; 5000]).unwrap();
    let _views = (a.view(0, 10).unwrap(), b.view(0, 10).unwrap());
    std::process::abort();
}

fn names_and_lengths(path: &Path) -> Vec<(String, u64)> {
    let db = Database::open_with(path, &read_only()).unwrap();
    db.list().unwrap().into_iter().map(|(name, info)| (name, info.len)).collect()
}

fn all() -> Vec<(String, u64)> {
    vec![("a".into(), 10_000), ("b".into(), 5000)]
}

fn flushed() -> Vec<(String, u64)> {
    vec![("a".into(), 5000)]
}

#[test]
fn a_directory_that_is_moved_loses_nothing() {
    let left = Left::new();
    let moved = left.scratch.path().join("moved");
    fs::rename(left.path(), &moved).unwrap();
    assert_eq!(names_and_lengths(&moved), all());
}

#[test]
fn a_copy_is_as_of_the_last_flush() {
    let left = Left::new();
    let copy = left.scratch.path().join("copy");
    let cp = Command::new("cp").arg("-a").arg(left.path()).arg(&copy).status().unwrap();
    assert!(cp.success());
    assert!(copy.join("live").exists());
    assert_eq!(names_and_lengths(&copy), flushed());
    assert_eq!(names_and_lengths(&left.path()), all());
    // Whoever works with the copy has a mirror of its own.
    Database::open(&copy).unwrap().create_region_if_needed("c").unwrap();
}

/// The files of another database, in the place of these.
#[test]
fn a_mirror_of_another_database_is_none() {
    let (left, other) = (Left::new(), Left::new());
    for file in ["data", "regions"] {
        // The same files, with other bytes.
        fs::write(left.path().join(file), fs::read(other.path().join(file)).unwrap()).unwrap();
    }
    assert_eq!(names_and_lengths(&left.path()), flushed());
}

#[test]
fn what_is_no_mirror_is_ignored_and_replaced() {
    let left = Left::new();
    let whole = fs::read(left.live()).unwrap();
    let cut = |len: usize| whole[..len].to_vec();
    let scribbled = |at: usize| {
        let mut live = whole.clone();
        live[at..at + 16].fill(0xA5);
        live
    };
    let marked = {
        let mut live = whole.clone();
        live[2048] = 0;
        live
    };
    let candidates =
        [Vec::new(), cut(1), cut(4095), vec![0; whole.len()], scribbled(30), scribbled(70), marked];
    for live in candidates {
        fs::write(left.live(), &live).unwrap();
        assert_eq!(names_and_lengths(&left.path()), flushed());
    }
    // What does not even begin as a mirror is somebody else's, who may want to keep it.
    for live in [vec![0xFF; whole.len()], scribbled(0)] {
        fs::write(left.live(), &live).unwrap();
        let error = Database::open(left.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(fs::read(left.live()).unwrap() == live);
    }
    // Garbage does not come back either.
    fs::write(left.live(), scribbled(30)).unwrap();
    let db = Database::open(left.path()).unwrap();
    db.create_region_if_needed("c").unwrap();
    std::mem::forget(db);
    let found = fs::read(left.live()).unwrap();
    assert_ne!(found[30..46], [0xA5; 16]);
}

/// A system that has been started anew has lost what was in memory only.
#[test]
fn after_a_restart_of_the_system_there_is_the_last_flush() {
    let Ok(path) = std::env::var(DATABASE) else {
        let left = Left::new();
        let test = "after_a_restart_of_the_system_there_is_the_last_flush";
        let process = process(test, "restart", &left.path());
        let status = reboot::unshared(&process).status().unwrap();
        assert!(status.success(), "{status}");
        return;
    };
    let path = Path::new(&path);
    let system = reboot::System::new(path.parent().unwrap());
    assert_eq!(names_and_lengths(path), all());
    system.restart(&mut fastrand::Rng::new());
    assert_eq!(names_and_lengths(path), flushed());
    let db = Database::open(path).unwrap();
    db.create_region_if_needed("c").unwrap().write(&[4; 100]).unwrap();
    std::mem::forget(db);
}

/// Nobody can say what a mirror is worth where the system does not say when it was started.
#[test]
fn without_a_boot_id_there_is_no_mirror() {
    let Ok(path) = std::env::var(DATABASE) else {
        let left = Left::new();
        let process = process("without_a_boot_id_there_is_no_mirror", "hide", &left.path());
        let status = reboot::unshared(&process).status().unwrap();
        assert!(status.success(), "{status}");
        // It was removed by who could not keep it up.
        assert_eq!(names_and_lengths(&left.path()), flushed());
        return;
    };
    let mount = Command::new("mount").args(["-t", "tmpfs", "none", "/proc/sys/kernel"]).status();
    assert!(mount.unwrap().success());
    assert_eq!(names_and_lengths(Path::new(&path)), flushed());
    let db = Database::open(&path).unwrap();
    assert!(!Path::new(&path).join("live").exists());
    db.create_region_if_needed("c").unwrap().write(&[4; 100]).unwrap();
    db.flush().unwrap();
    db.remove("c").unwrap();
    db.close().unwrap();
}

/// Makes a file system in a file of `directory`, by mkfs.ext4 with these arguments. Returns where it is
/// to be mounted, and what mounts and unmounts it; for a process that has its mounts for itself.
fn file_system(directory: &Path, arguments: &[&str]) -> (PathBuf, impl Fn(), impl Fn()) {
    let (image, mount) = (directory.join("image"), directory.join("mount"));
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let status = Command::new(program).env("PATH", path).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}: {status} (this test needs root)");
    };
    let mut mkfs: Vec<_> = ["-q"].iter().chain(arguments).map(|it| it.as_ref()).collect();
    mkfs.push(image.as_ref());
    run("mkfs.ext4", &mkfs);
    let at = mount.clone();
    let attach =
        move || run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()]);
    let at = mount.clone();
    (mount, attach, move || run("umount", &[at.as_ref()]))
}

/// Runs `test` once more with its mounts for itself. Returns a directory to the process that has them,
/// and nothing to the one that has waited for it.
fn with_mounts(test: &str) -> Option<PathBuf> {
    if let Ok(path) = std::env::var(DATABASE) {
        return Some(path.into());
    }
    let scratch = tempfile::tempdir_in(on_disk()).unwrap();
    let process = process(test, "mounts", scratch.path());
    let status = reboot::unshared(&process).status().unwrap();
    assert!(status.success(), "{status}");
    None
}

/// A disk that was taken away may have lost what was in memory, whatever the system has it for.
#[test]
fn a_disk_that_was_away_is_as_of_the_last_flush() {
    let directory = with_mounts("a_disk_that_was_away_is_as_of_the_last_flush");
    let Some(directory) = directory else { return };
    let (mount, attach, detach) = file_system(&directory, &[]);
    attach();
    let db = mount.join("db");
    process("leave", "leave", &db).status().unwrap();
    assert_eq!(names_and_lengths(&db), all());
    detach();
    attach();
    assert_eq!(names_and_lengths(&db), flushed());
    detach();
}

/// Where blocks cannot be had ahead, the mirror takes its space by zeros, and not over what is there.
#[test]
fn without_fallocate_nothing_is_lost_either() {
    let directory = with_mounts("without_fallocate_nothing_is_lost_either");
    let Some(directory) = directory else { return };
    let (mount, attach, detach) = file_system(&directory, &["-t", "ext3"]);
    attach();
    let db = mount.join("db");
    process("leave", "leave", &db).status().unwrap();
    for _ in 0..3 {
        process("open_and_die", "open", &db).status().unwrap();
        assert_eq!(names_and_lengths(&db), all());
    }
    detach();
}

/// Opens a database for writing, and does nothing with it.
#[test]
fn open_and_die() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let _db = Database::open(path).unwrap();
    std::process::abort();
}

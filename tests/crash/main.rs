//! Power loss on a simulated disk: after any crash the database opens as it stood at the last
//! completed flush, or at one that was in progress. And the death of the process: nothing is lost.
//!
//! Programs run in worker processes, so that one which ends its process is found and cut down like
//! one that panics. `RAWDB_SEED` repeats a run, `RAWDB_CRASH_STATES` sets its length.

mod bits;
mod mirror;
mod program;
mod run;
#[path = "../seed/mod.rs"]
mod seed;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use program::Program;
use rawdb::steps::Step;
use rawdb::storage::simulation::{Fault, Panic, Simulation};
use rawdb::storage::{File, Storage};
use rawdb::{Database, ErrorKind, Options};
use run::Test;

/// How many crashed states are looked at, unless the environment says otherwise.
const STATES: u64 = 500_000;
const DEATHS: u64 = 200_000;

/// Of so many moments of a program, one is looked at: several programs find more than one in which no
/// moment is left out.
const ONE_MOMENT_IN: u32 = 4;

/// A simpler program meets other outcomes, so one that is being cut down is tried with several seeds, in
/// all its moments.
const SEEDS_WHEN_SHRINKING: u64 = 20;

/// No program runs so long.
const HANGS: Duration = Duration::from_secs(60);

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// A part of the work in a process of its own: this test binary, told to run one ignored test.
struct Worker {
    child: Child,
    files: PathBuf,
}

impl Worker {
    fn start(test: &str, directory: &Path, variables: &[(&str, String)]) -> Worker {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--include-ignored", "--nocapture"]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.env("RAWDB_WORKER_FILES", directory).env("RUST_BACKTRACE", "0");
        let output = std::fs::File::create(directory.join("output")).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output).stdin(Stdio::null());
        Worker { child: command.spawn().unwrap(), files: directory.to_owned() }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.files.join("output")).unwrap()).into_owned()
    }

    /// How many states it has looked at, if nothing was wrong.
    fn wait(&mut self, limit: Duration) -> Option<u64> {
        let end = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => {
                    self.child.kill().unwrap();
                    break self.child.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let output = self.output();
        let states = output.lines().find_map(|line| line.strip_prefix("states: "));
        status.success().then(|| states.map_or(0, |states| states.parse().unwrap()))
    }

    /// The seed of the program that it has begun last.
    fn program(&self) -> u64 {
        let seed = std::fs::read(self.files.join("seed")).unwrap();
        u64::from_le_bytes(seed.try_into().unwrap())
    }
}

/// Leaves out the step that the environment names.
fn omit_a_step() {
    if let Ok(name) = std::env::var("RAWDB_OMIT") {
        let step = Step::ALL.iter().find(|step| format!("{step:?}") == name);
        step.unwrap_or_else(|| panic!("no step is called {name}")).omit();
    }
}

/// Runs programs until so many states have been looked at.
#[test]
#[ignore = "run by the others"]
fn crash_worker() {
    work(Test::Crash, variable("RAWDB_CRASH_STATES").unwrap());
}

/// The same, for processes that die.
#[test]
#[ignore = "run by the others"]
fn death_worker() {
    work(Test::Death, variable("RAWDB_DEATH_STATES").unwrap());
}

fn work(test: Test, target: u64) {
    omit_a_step();
    let files = PathBuf::from(std::env::var("RAWDB_WORKER_FILES").unwrap());
    let (mut seed, stride) = (variable("RAWDB_SEED").unwrap(), variable("RAWDB_STRIDE").unwrap());
    let begun = std::fs::File::create(files.join("seed")).unwrap();
    let mut states = 0;
    while states < target {
        begun.write_all_at(&seed.to_le_bytes(), 0).unwrap();
        states += run::run(&Program::random(seed), test, ONE_MOMENT_IN);
        seed = seed.wrapping_add(stride);
    }
    println!("\nstates: {states}");
}

/// Runs the program that the file `RAWDB_PROGRAM` holds.
#[test]
#[ignore = "run by the others, or by hand with a program that failed"]
fn program_from_file() {
    omit_a_step();
    let text = std::fs::read_to_string(std::env::var("RAWDB_PROGRAM").unwrap()).unwrap();
    let program: Program = text.parse().unwrap();
    let test = match std::env::var("RAWDB_DEATHS") {
        Ok(_) => Test::Death,
        Err(_) => Test::Crash,
    };
    let states: u64 = (0..SEEDS_WHEN_SHRINKING)
        .map(|number| {
            let seed = program.seed.wrapping_add(number);
            run::run(&Program { seed, ..program.clone() }, test, 1)
        })
        .sum();
    println!("\nstates: {states}");
}

/// Whether the program still fails; and what it says.
fn fails(program: &Program, test: Test, directory: &Path, limit: Duration) -> Option<String> {
    let path = directory.join("program");
    std::fs::write(&path, program.to_string()).unwrap();
    let mut variables = vec![("RAWDB_PROGRAM", path.to_str().unwrap().to_owned())];
    variables.extend((test == Test::Death).then(|| ("RAWDB_DEATHS", "1".to_owned())));
    let mut worker = Worker::start("program_from_file", directory, &variables);
    worker.wait(limit).is_none().then(|| worker.output())
}

/// The smallest program that still fails, as far as a minute or so finds it.
fn shrink(seed: u64, test: Test) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::random(seed);
    let Some(mut output) = fails(&program, test, directory.path(), HANGS) else {
        return format!("not met again in program {seed}:\n{program}");
    };
    let end = Instant::now() + HANGS;
    'simpler: while Instant::now() < end {
        for candidate in program.simpler() {
            if let Some(it) = fails(&candidate, test, directory.path(), HANGS / 4) {
                (program, output) = (candidate, it);
                continue 'simpler;
            }
        }
        break;
    }
    let path = std::env::temp_dir().join(format!("rawdb-crash-{seed}"));
    let mut file = std::fs::File::create(&path).unwrap();
    write!(file, "{program}").unwrap();
    format!(
        "{output}\n\n{program}\nto run it again: {}RAWDB_PROGRAM={} cargo test --all-features \
         --test crash -- --ignored program_from_file",
        if test == Test::Death { "RAWDB_DEATHS=1 " } else { "" },
        path.display()
    )
}

#[test]
fn a_crash_at_any_call_leaves_a_flushed_state() {
    let states = variable("RAWDB_CRASH_STATES").unwrap_or(STATES);
    println!("{} crashed states", run_programs("crash_worker", Test::Crash, states));
}

/// P11
#[test]
fn a_death_at_any_store_loses_nothing() {
    let states = variable("RAWDB_DEATH_STATES").unwrap_or(DEATHS);
    println!("{} deaths", run_programs("death_worker", Test::Death, states));
}

/// Has workers look at so many states.
fn run_programs(worker: &str, test: Test, states: u64) -> u64 {
    let seed = seed::seed();
    let count = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
    let directories: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut workers: Vec<Worker> = (0u64..)
        .zip(&directories)
        .map(|(number, directory)| {
            let variables = [
                ("RAWDB_SEED", seed.wrapping_add(number).to_string()),
                ("RAWDB_STRIDE", count.to_string()),
                ("RAWDB_CRASH_STATES", states.div_ceil(count).to_string()),
                ("RAWDB_DEATH_STATES", states.div_ceil(count).to_string()),
            ];
            Worker::start(worker, directory.path(), &variables)
        })
        .collect();
    let mut sum = 0;
    for worker in &mut workers {
        match worker.wait(Duration::from_secs(24 * 3600)) {
            Some(states) => sum += states,
            None => panic!("{}\n{}", worker.output(), shrink(worker.program(), test)),
        }
    }
    assert!(sum >= states);
    sum
}

/// The tests above, with one protective step of the library left out at a time: they must fail, in
/// less time than they are given otherwise.
#[test]
fn no_protective_step_can_be_left_out() {
    let seed = seed::seed();
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(step) = Step::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match killed_by(&format!("{step:?}"), seed) {
                        Some(killer) => println!("{step:?}: killed: {killer}"),
                        None => {
                            println!("{step:?}: SURVIVED");
                            survivors.lock().unwrap().push(step);
                        }
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    println!("{} of {} killed", Step::ALL.len() - survivors.len(), Step::ALL.len());
    assert!(survivors.is_empty(), "can be left out: {survivors:?}");
}

/// What says that the step is missing, if anything does.
fn killed_by(step: &str, seed: u64) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    // The quick ones first; the random ones twice, with other programs. Threads that meet in one moment
    // of a flush do so on a busy processor in every second run.
    let moment = "a_flush_is_one_moment_of_all_regions";
    let tests = [
        "a_creation_that_failed_is_made_good",
        "a_panic_is_final",
        "what_an_open_shows_after_a_failed_sync_is_kept",
        "mirror::a_mirror_of_other_files_is_none",
        "mirror::a_mirror_beside_another_table_is_none",
        "mirror::a_mirror_with_impossible_places_is_none",
        "a_tail_is_kept_as_long_as_a_table_may_need_it",
        "a_tail_is_kept_as_long_as_a_view_is_on_it",
        "a_tail_does_not_undo_what_is_overwritten",
        "a_piece_in_use_is_spared",
        "crash_worker",
        "death_worker",
        "bits::every_flipped_bit_is_noticed_or_harmless",
        moment,
        moment,
        moment,
        moment,
        moment,
        moment,
        "crash_worker",
        "death_worker",
    ];
    (0u64..).zip(tests).find_map(|(number, test)| {
        let seed = seed.wrapping_add(number << 32);
        let variables = [
            ("RAWDB_OMIT", step.to_owned()),
            ("RAWDB_SEED", seed.to_string()),
            ("RAWDB_STRIDE", "1".to_owned()),
            ("RAWDB_CRASH_STATES", (STATES / 10).to_string()),
            ("RAWDB_DEATH_STATES", (DEATHS / 10).to_string()),
        ];
        let mut worker = Worker::start(test, directory.path(), &variables);
        if worker.wait(4 * HANGS).is_some() {
            return None;
        }
        let output = worker.output();
        let mut lines = output.lines().skip_while(|line| !line.contains("panicked"));
        Some(lines.nth(1).unwrap_or("the process died").chars().take(120).collect())
    })
}

fn open(disk: &Arc<Simulation>) -> rawdb::Result<Database> {
    Database::open_storage(disk.clone() as Arc<dyn Storage>, &Options::default())
}

/// P7: after a failed sync nothing is accepted any more, and what was flushed before is kept.
#[test]
fn a_failed_sync_is_final() {
    // Each flush syncs `data`, writes an entry and a header and syncs `regions`; without the first where
    // the entry has a tail.
    for (more, calls) in
        [(5000, &["sync", "write", "write", "sync"][..]), (8, &["write", "write", "sync"])]
    {
        for (call, name) in (0..).zip(calls) {
            fail_a_call_of_a_flush(more, call, *name == "sync");
        }
    }
}

fn fail_a_call_of_a_flush(more: usize, call: u64, is_sync: bool) {
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(b"flushed").unwrap();
    db.flush().unwrap();
    region.write(&vec![b'n'; more]).unwrap();
    disk.inject(Some(Fault { call, errno: libc::EIO, partial: false, lasting: false }));
    let error = db.flush().unwrap_err();
    assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(libc::EIO)), "{error}");
    let sync_failed = error.to_string().contains("sync");
    let again = db.flush();
    let view = region.view(0, u64::MAX).unwrap();
    assert_eq!(view.len(), 7 + more, "reads go on");
    assert_eq!(sync_failed, is_sync, "{error}");
    if sync_failed {
        for refused in [
            again.unwrap_err(),
            region.write(b"x").unwrap_err(),
            region.truncate(0).unwrap_err(),
            db.create_region_if_needed("b").unwrap_err(),
            db.remove("a").unwrap_err(),
            db.rename("a", "b", false).unwrap_err(),
            db.compact().unwrap_err(),
            region.flush().unwrap_err(),
        ] {
            assert_eq!(refused.to_string(), error.to_string());
            assert_eq!(refused.kind(), ErrorKind::Io);
        }
        drop(view);
        db.close().unwrap_err();
    } else {
        again.unwrap();
        drop(view);
        db.close().unwrap();
    }
    assert!(disk.is_unlocked());
    let db = open(&disk.snapshot().crash(1)).unwrap();
    let bytes = db.region("a").unwrap().view(0, u64::MAX).unwrap();
    if sync_failed {
        assert!(bytes.starts_with(b"flushed"));
    } else {
        assert_eq!(bytes.len(), 7 + more);
    }
}

/// P10: after a panic, at whatever step of a move, nothing is accepted any more, and the next process
/// finds what was flushed.
#[test]
fn a_panic_is_final() {
    omit_a_step();
    for step in 0.. {
        let disk = Simulation::empty();
        let db = open(&disk).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(b"flushed").unwrap();
        db.flush().unwrap();
        region.write(b", not flushed").unwrap();
        disk.inject_panic(Some(Panic { step, done: true }));
        let written = catch_unwind(AssertUnwindSafe(|| region.write(&[1; 5000])));
        disk.inject_panic(None);
        if written.is_ok() {
            assert!(step > 5, "only {step} steps");
            break;
        }
        for refused in [region.truncate(0), db.flush(), db.remove("a"), db.close()] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Panic);
        }
        let db = open(&disk.snapshot().restart()).unwrap();
        assert_eq!(&*db.region("a").unwrap().view(0, u64::MAX).unwrap(), b"flushed");
    }
}

/// An open that fails takes back what it has created. Wherever that is cut short, by a power loss or by
/// the death of the process, and the next creation by another, the one after that succeeds.
#[test]
fn a_creation_may_be_cut_short_while_it_is_taken_back() {
    omit_a_step();
    let open_new = |disk: &Arc<Simulation>, what: &str| {
        let db = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(db.list().unwrap().is_empty());
    };
    let (mut call, mut taken_back) = (0, 0);
    loop {
        let disk = Simulation::empty();
        disk.inject(Some(Fault { call, errno: libc::EIO, partial: false, lasting: false }));
        disk.record();
        let opened = open(&disk);
        let Some(failed) = disk.failed_call() else { break };
        if opened.is_err() {
            taken_back += 1;
            for (moment, snapshot) in disk.recorded().into_iter().enumerate() {
                let what = format!("{failed}, call {call}, failed; cut short at moment {moment}");
                (0..4).for_each(|seed| open_new(&snapshot.crash(seed), &what));
                let disk = snapshot.restart();
                disk.record();
                open_new(&disk, &what);
                for (next, snapshot) in disk.recorded().into_iter().enumerate() {
                    let what = format!("{what}, and again at moment {next}");
                    (0..4).for_each(|seed| open_new(&snapshot.crash(seed), &what));
                }
            }
        }
        call += 1;
    }
    assert!(taken_back > 10, "{taken_back}");
}

/// Whatever call of the first open fails, the next one succeeds, and what it says is there is there
/// after a power loss.
#[test]
fn a_creation_that_failed_is_made_good() {
    omit_a_step();
    for call in 0.. {
        let mut failed = None;
        for seed in 0..20 {
            let disk = Simulation::empty();
            let partial = seed % 2 == 0;
            disk.inject(Some(Fault { call, errno: libc::EIO, partial, lasting: false }));
            drop(open(&disk));
            failed = disk.failed_call();
            let disk = disk.snapshot().restart();
            let db = open(&disk).unwrap();
            let region = db.create_region_if_needed("a").unwrap();
            region.write(b"bytes").unwrap();
            db.flush().unwrap();
            let db = open(&disk.snapshot().crash(seed)).unwrap();
            assert_eq!(&*db.region("a").unwrap().view(0, u64::MAX).unwrap(), b"bytes");
        }
        if failed.is_none() {
            break;
        }
    }
}

/// After a failed sync the page cache may have bytes that the disk has not, and calls them clean. The
/// next process shows none that it does not keep.
#[test]
fn what_an_open_shows_after_a_failed_sync_is_kept() {
    omit_a_step();
    for number in 0..40 {
        let disk = Simulation::empty();
        let db = open(&disk).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(&[1; 40_000]).unwrap();
        db.flush().unwrap();
        // Other failures, so that another part of the sync has its effect.
        for call in 0..number {
            let (call, partial) = (call % 4, true);
            disk.inject(Some(Fault { call, errno: libc::ENOSPC, partial, lasting: false }));
            let _ = region.reserve(200_000 + 10_000 * number);
        }
        region.write_at(&[2; 30_000], 5_000).unwrap();
        disk.inject(Some(Fault { call: 0, errno: libc::EIO, partial: true, lasting: false }));
        db.flush().unwrap_err();
        assert_eq!(disk.failed_call(), Some("sync"));

        let disk = disk.snapshot().restart();
        let db = open(&disk).unwrap();
        let shown = db.region("a").unwrap().view(0, u64::MAX).unwrap().to_vec();
        db.flush().unwrap();
        let db = open(&disk.snapshot().crash(number)).unwrap();
        let kept = db.region("a").unwrap().view(0, u64::MAX).unwrap();
        assert!(*kept == shown, "what has been shown is not what is kept");
    }
}

/// A compaction comes to a region whose end has been cut off in a flush that is not complete yet, so
/// that the table before may still be what is found.
#[test]
fn a_tail_is_kept_as_long_as_a_table_may_need_it() {
    omit_a_step();
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 50_000]).unwrap();
    db.flush().unwrap();
    let (entered, in_flush) = channel();
    let (go_on, told) = channel::<()>();
    let mut meanwhile: Option<Box<dyn FnMut(&'static str, File) + Send>> =
        Some(Box::new(move |_, _| {
            // Both ends are let go when the flush may go on.
            let _ = (entered.send(()), told.recv());
        }));
    let crashed = std::thread::scope(|scope| {
        db.compact_with(&mut |_, _| {
            if let Some(meanwhile) = meanwhile.take() {
                region.truncate(10).unwrap();
                disk.set_meanwhile(Some(meanwhile));
                scope.spawn(|| db.flush().unwrap());
                in_flush.recv().unwrap();
            }
            true
        })
        .unwrap();
        let crashed = disk.snapshot();
        drop(go_on);
        crashed
    });
    for seed in 0..20 {
        let db = open(&crashed.crash(seed)).unwrap();
        let found = db.region("a").unwrap().view(0, u64::MAX).unwrap();
        assert!(*found == [1; 50_000], "{} bytes", found.len());
    }
}

/// P2: what a flush has made durable is not undone by the tail of an entry from before, whether this
/// process has written the entry or found it.
#[test]
fn a_tail_does_not_undo_what_is_overwritten() {
    omit_a_step();
    for found in [false, true] {
        let mut disk = Simulation::empty();
        let mut db = open(&disk).unwrap();
        db.create_region_if_needed("a").unwrap().write(&[1; 100]).unwrap();
        db.flush().unwrap();
        // In a place that a sync has covered: this one is in the entry.
        db.region("a").unwrap().write(&[1; 100]).unwrap();
        db.flush().unwrap();
        if found {
            disk = disk.snapshot().crash(0);
            db = open(&disk).unwrap();
        }
        db.region("a").unwrap().write_at(&[2; 10], 150).unwrap();
        db.flush().unwrap();
        for seed in 0..20 {
            let db = open(&disk.snapshot().crash(seed)).unwrap();
            let view = db.region("a").unwrap().view(0, u64::MAX).unwrap();
            assert!(view.len() == 200 && view[150..160] == [2; 10], "found: {found}, seed {seed}");
        }
    }
}

/// P2, where a region has become shorter, by this process or by one that died, and grows again while a
/// flush syncs it: what the sync before had covered behind its end is not what is there now.
#[test]
fn what_grows_again_is_synced_again() {
    for dead in [false, true] {
        let mut disk = Simulation::empty();
        let mut db = open(&disk).unwrap();
        let mut region = db.create_region_if_needed("a").unwrap();
        region.write(&[1; 1000]).unwrap();
        db.flush().unwrap();
        region.truncate_write(90, &[2; 10]).unwrap();
        if dead {
            disk = disk.snapshot().restart();
            db = open(&disk).unwrap();
            region = db.region("a").unwrap();
        }
        let appender = region.clone();
        disk.set_meanwhile(Some(Box::new(move |call, file| {
            if (call, file) == ("sync", File::Data) {
                appender.write(&[3; 10]).unwrap();
            }
        })));
        db.flush().unwrap();
        // Finds that nothing is needed behind the end, so that appending is nothing else from then on.
        db.compact().unwrap();
        db.flush().unwrap();
        disk.set_meanwhile(None);
        db.flush().unwrap();
        let expected = [&[1; 90][..], &[2; 10], &[3; 30]].concat();
        for seed in 0..20 {
            let db = open(&disk.snapshot().crash(seed)).unwrap();
            let view = db.region("a").unwrap().view(0, u64::MAX).unwrap();
            assert!(*view == expected, "dead: {dead}, seed {seed}");
        }
    }
}

/// P2, P11: an open that fails, at whatever call, has flushed nothing. What a flush that was cut short has
/// left beside two entries is as it was, and not half of it cleared away for a table with the other half.
#[test]
fn an_open_that_fails_flushes_nothing() {
    omit_a_step();
    // Then every record of a region in the mirror is a call.
    let options = Options { guarded: true, ..Options::default() };
    let open = |disk: &Arc<Simulation>| Database::open_storage(disk.clone(), &options);
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let regions = ["a", "b"].map(|name| db.create_region_if_needed(name).unwrap());
    regions.iter().for_each(|region| assert_eq!(region.write(&[1; 100]).unwrap(), 0));
    db.flush().unwrap();
    regions.iter().for_each(|region| assert_eq!(region.write(&[2; 1000]).unwrap(), 100));
    disk.record();
    db.flush().unwrap();
    let in_flush = disk.recorded();
    let check = |disk: Arc<Simulation>, what: &str| {
        let db = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let lens = ["a", "b"].map(|name| db.region(name).unwrap().len());
        assert!(lens == [100; 2] || lens == [1100; 2], "{what}: {lens:?}");
    };
    for (number, snapshot) in in_flush.iter().enumerate() {
        // What is written is on the disk, and nobody knows of it.
        for call in 0.. {
            let disk = snapshot.restart_without_mirror();
            disk.inject(Some(Fault { call, errno: libc::EIO, partial: false, lasting: false }));
            let opened = open(&disk);
            if opened.is_ok() && disk.failed_call().is_none() {
                break;
            }
            let what = format!("moment {number}, {:?} failed", disk.failed_call());
            disk.inject(None);
            drop(opened);
            let snapshot = disk.snapshot();
            check(snapshot.restart(), &what);
            check(snapshot.restart_without_mirror(), &what);
            (0..4).for_each(|seed| check(snapshot.crash(seed), &what));
        }
    }
}

/// P3, where the bytes viewed have been cut off and the table does not have them either.
#[test]
fn a_tail_is_kept_as_long_as_a_view_is_on_it() {
    omit_a_step();
    let db = open(&Simulation::empty()).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 50_000]).unwrap();
    let view = region.view(0, u64::MAX).unwrap();
    region.truncate(10).unwrap();
    db.compact().unwrap();
    assert!(*view == [1; 50_000]);
}

/// P6: a compaction gives back no part of a piece that somebody has come to rely on meanwhile.
#[test]
fn a_piece_in_use_is_spared() {
    omit_a_step();
    let db = open(&Simulation::empty()).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 10_000]).unwrap();
    // The first time, all that was known of blocks has just been forgotten.
    db.compact_with(&mut |_, _| region.write(&[2; 100]).is_ok()).unwrap();
    // One of them is a store, which needs the blocks of the whole piece.
    for _ in 0..3 {
        region.write(&[3; 100]).unwrap();
    }
    assert!(region.view(10_000, u64::MAX).unwrap().ends_with(&[3; 300]));
}

/// P6: of two compactions the second begins when the first has ended. Otherwise it would make all forget
/// once more, with the first past the moment at which it has waited for those who do not know.
#[test]
fn a_compaction_waits_for_the_one_before() {
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 100]).unwrap();
    region.reserve(8192).unwrap();
    let (entered, in_flush) = channel();
    let (go_on, told) = channel::<()>();
    let mut meanwhile: Option<Box<dyn FnMut(&'static str, File) + Send>> =
        Some(Box::new(move |_, _| {
            // Both ends are let go when the flush may go on.
            let _ = (entered.send(()), told.recv());
        }));
    std::thread::scope(|scope| {
        db.compact_with(&mut |_, _| {
            if let Some(meanwhile) = meanwhile.take() {
                // A flush has ended the epoch, and keeps the next one from doing so.
                disk.set_meanwhile(Some(meanwhile));
                region.write(&[2; 100]).unwrap();
                scope.spawn(|| db.flush().unwrap());
                in_flush.recv().unwrap();
                region.write(&[3; 100]).unwrap();
                scope.spawn(|| db.compact().unwrap());
                // Without the rule it would come as far as that flush meanwhile.
                std::thread::sleep(Duration::from_millis(200));
            }
            true
        })
        .unwrap();
        // What comes first after a flush is a system call, and this is a store.
        region.write(&[4; 100]).unwrap();
        drop(go_on);
    });
    assert!(region.view(200, u64::MAX).unwrap()[..] == [[3; 100], [4; 100]].concat());
}

/// P3, P6: a compaction comes to the end of a region that nobody had asked for when somebody does, and
/// needs that end.
#[test]
fn what_is_written_behind_a_region_is_kept() {
    for guarded in [false, true] {
        let disk = Simulation::empty();
        let options = Options { guarded, ..Options::default() };
        let open = || Arc::new(Database::open_storage(disk.clone(), &options).unwrap());
        let db = open();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(&[1; 10_000]).unwrap();
        region.reserve(50_000).unwrap();
        let behind = region.info().unwrap().start + 12_288;
        drop(region);
        Arc::into_inner(db).unwrap().close().unwrap();

        let db = open();
        let writer = db.clone();
        let (done, written) = channel();
        disk.before_punch(behind, move || {
            std::thread::spawn(move || {
                let region = writer.region("a").unwrap();
                // One by the system, others by stores.
                (0..4).for_each(|_| assert!(region.write(&[2; 5000]).is_ok()));
                drop((region, writer));
                done.send(()).unwrap();
            });
            // If it need not wait for the punch, it does not.
            std::thread::sleep(Duration::from_millis(200));
        });
        db.compact().unwrap();
        written.recv().unwrap();
        let view = db.region("a").unwrap().view(0, u64::MAX).unwrap();
        assert!(view[..10_000] == [1; 10_000] && view[10_000..] == [2; 20_000], "{guarded}");
        drop(view);
        Arc::into_inner(db).unwrap().close().unwrap();
    }
}

/// A compaction cannot wait for the one whose callback begins it.
#[test]
fn a_compaction_in_a_compaction_is_refused() {
    let db = open(&Simulation::empty()).unwrap();
    let mut refused = 0;
    db.compact_with(&mut |_, _| {
        let error = db.compact().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        refused += 1;
        true
    })
    .unwrap();
    assert!(refused > 0);
    // Where the callback does not come back, either.
    let stopped = catch_unwind(AssertUnwindSafe(|| db.compact_with(&mut |_, _| panic!("told to"))));
    stopped.unwrap_err();
    db.compact().unwrap();
}

/// P2 with threads: what one thread wrote first is never missing where what it wrote next is there.
#[test]
fn a_flush_is_one_moment_of_all_regions() {
    omit_a_step();
    let seed = seed::seed();
    for number in 0..20 {
        let disk = Simulation::empty();
        let db = Arc::new(open(&disk).unwrap());
        let regions: Vec<_> = (0..8)
            .map(|number| db.create_region_if_needed(&format!("r{number}")).unwrap())
            .collect();
        db.flush().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (regions, stop) = (regions.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) && count < 3000 {
                    for region in &regions {
                        region.write(&[1; 16]).unwrap();
                    }
                    count += 1;
                }
            })
        };
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number));
        for _ in 0..10 {
            disk.record();
            db.flush().unwrap();
            let snapshots = disk.recorded();
            for snapshot in [&snapshots[rng.usize(..snapshots.len())], &snapshots[0]] {
                let db = open(&snapshot.crash(rng.u64(..))).unwrap();
                let lens: Vec<u64> =
                    (0..8).map(|it| db.region(&format!("r{it}")).unwrap().len()).collect();
                // The writer goes round: every region is as long as the first, or one write behind
                // from some region on.
                assert!(
                    lens.windows(2).all(|pair| pair[0] >= pair[1]) && lens[0] - lens[7] <= 16,
                    "{lens:?}"
                );
                for number in 0..8 {
                    let view = db.region(&format!("r{number}")).unwrap().view(0, u64::MAX).unwrap();
                    assert!(view.iter().all(|&byte| byte == 1), "a length without its bytes");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

//! Storage that fails, on the simulated disk: every call of random programs, one after the other,
//! with some kinds of error, and every sort of call with every kind: for once or from then on, with
//! a part of its work done or none.
//!
//! Whatever fails: the call of the database comes back with an error that says so and has changed
//! nothing, or has done all of its work. After a failed sync no change is accepted; after anything
//! else the database goes on. What a completed flush promised is there after a power loss and after
//! the death of the process, and what was found then is not lost in the next power loss.
//!
//! `RAWDB_SEED` repeats a run, `RAWDB_PROGRAMS` sets its length.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use rawdb::storage::simulation::{Fault, Panic, Simulation, Snapshot};
use rawdb::storage::Storage;
use rawdb::{Database, Error, ErrorKind, Options};

#[path = "faults/program.rs"]
mod program;
mod seed;

use program::{Model, Program, Step};

/// Unless the environment says otherwise.
const PROGRAMS: u64 = 32;
const STEPS: usize = 24;

/// A lasting fault ends after so many steps.
const STEPS_OF_A_LASTING_FAULT: usize = 6;

/// A way for a call to fail: error, with a part done, lasting.
type Kind = (i32, bool, bool);

/// In an order in which neighbours have little in common: they may be all that a call fails with.
const KINDS: [Kind; 8] = [
    (libc::EIO, false, false),
    (libc::ENOSPC, true, false),
    (libc::EIO, false, true),
    (libc::ENOSPC, false, false),
    (libc::EIO, true, false),
    (libc::ENOSPC, true, true),
    (libc::ENOMEM, false, false),
    (libc::EDQUOT, true, false),
];

/// Every call fails with so many kinds, which take turns. A mistake that shows after a certain call
/// hardly ever needs a certain kind, so more programs find more than all kinds of fewer would.
const KINDS_PER_CALL: usize = 2;

/// A sort of call that is rare fails with every kind so often nevertheless.
const TIMES_OF_A_KIND: u64 = 8;

fn random_step(rng: &mut fastrand::Rng) -> Step {
    fn name(rng: &mut fastrand::Rng) -> String {
        // The name of one region makes its entry cross a sector.
        match rng.usize(..5) {
            0 => "long".repeat(150),
            number => format!("r{number}"),
        }
    }
    fn len(rng: &mut fastrand::Rng) -> usize {
        1 + if rng.u32(..6) == 0 { rng.usize(..60_000) } else { rng.usize(..3_000) }
    }
    let region = name(rng);
    match rng.u32(..100) {
        0..=17 => Step::Create(region),
        18..=34 => Step::Append(region, len(rng)),
        35..=39 => {
            let room = len(rng);
            Step::AppendInPlace(region, room, 1 + rng.usize(..room))
        }
        40..=49 => Step::WriteAt(region, rng.usize(..=1000), len(rng)),
        50..=53 => Step::TruncateWrite(region, rng.usize(..=1000), len(rng)),
        54..=57 => Step::WriteBatch(region, 1 + rng.usize(..6), 1 + rng.usize(..2_000)),
        58..=62 => Step::Truncate(region, rng.usize(..=1000)),
        63..=65 => Step::Reserve(region, rng.u64(..150_000)),
        66..=69 => Step::Rename(region, name(rng)),
        70..=73 => Step::Remove(region),
        74 => Step::Retain((0..4).map(|_| name(rng)).collect()),
        75 => Step::ReserveFile(rng.u64(..300 << 20)),
        76 => Step::ReserveRegions(rng.u64(..30)),
        77..=85 => Step::Flush,
        86..=87 => Step::FlushRegion(region),
        88..=90 => Step::Compact,
        91 => Step::Stats,
        92..=96 => {
            let from = rng.usize(..=1000);
            Step::View(region, from, rng.usize(from..=1000))
        }
        _ => Step::ReleaseViews,
    }
}

fn random_steps(rng: &mut fastrand::Rng, count: usize) -> Vec<Step> {
    (0..count).map(|_| random_step(rng)).collect()
}

/// Runs steps of which some may find no region of the name.
fn run_steps(db: &Database, steps: &[Step], program: &mut Program) {
    for step in steps {
        if let Err(error) = program.step(db, step, &|_| ()) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{step:?}: {error}");
        }
    }
}

fn open(disk: &Arc<Simulation>, options: &Options) -> Result<Database, Error> {
    Database::open_storage(disk.clone() as Arc<dyn Storage>, options)
}

/// What a program begins with, and what it does.
struct Case {
    disk: Snapshot,
    model: Model,
    /// Whether the process before has died, and left a mirror.
    mirrored: bool,
    options: Options,
    steps: Vec<Step>,
}

impl Case {
    fn random(seed: u64, guarded: bool) -> Case {
        let rng = &mut fastrand::Rng::with_seed(seed);
        // A threshold of one page brings punching into every flush.
        let options = Options { guarded, reclaim_threshold: 4096, ..Options::default() };
        let mut steps = random_steps(rng, STEPS);
        // No other step asks for the disk's bytes, or notices that space has been lost.
        steps.push(Step::Stats);
        let disk = Simulation::empty();
        let mut program = Program::new(Model::new());
        // By turns, because some calls are made after one of these ends only.
        let end = seed % 6;
        if end > 0 {
            let db = open(&disk, &options).unwrap();
            let count = rng.usize(..30);
            run_steps(&db, &random_steps(rng, count), &mut program);
            program.release_views();
            let snapshot = match end {
                4 | 5 => {
                    // In the middle of a flush, which may leave a part of its table.
                    program.model.may_be_flushed();
                    disk.record();
                    db.flush().unwrap();
                    rng.choice(disk.recorded()).expect("there is one of now at least")
                }
                _ => disk.snapshot(),
            };
            db.close().unwrap();
            let disk = match end {
                1 => {
                    program.model.flushed();
                    disk.snapshot()
                }
                2 | 5 => snapshot,
                3 => snapshot.restart_without_mirror().snapshot(),
                _ => snapshot.crash(rng.u64(..)).snapshot(),
            };
            let mirrored = matches!(end, 2 | 5);
            return Case { disk, model: program.model, mirrored, options, steps };
        }
        Case { disk: disk.snapshot(), model: program.model, mirrored: false, options, steps }
    }
}

/// Which call of a run is to fail. Told step by step, so that what a step has met is known.
struct Injector<'a> {
    disk: &'a Simulation,
    kind: Kind,
    /// The call, counted from now on. `None` once it has failed or can fail no more.
    call: Option<u64>,
    has_hit: bool,
    /// Whether the last step has met a failed sync, be it after another call that failed.
    has_failed_sync: bool,
}

impl Injector<'_> {
    fn begin(&self) {
        let (errno, partial, lasting) = self.kind;
        self.disk.inject(self.call.map(|call| Fault { call, errno, partial, lasting }));
    }

    /// How many calls there were, and which was hit first.
    fn end(&mut self) -> (u64, Option<&'static str>) {
        let (calls, hit) = (self.disk.calls(), self.disk.failed_call());
        self.has_failed_sync = self.disk.has_failed_sync();
        self.disk.inject(None);
        self.has_hit |= hit.is_some();
        self.call = match self.call {
            Some(_) if hit.is_some() => self.kind.2.then_some(0),
            Some(call) => Some(call - calls),
            None => None,
        };
        (calls, hit)
    }

    /// Whether the error says what went wrong.
    fn explains(&self, error: &Error, hit: Option<&str>) -> bool {
        let by_number = match self.kind.0 {
            libc::ENOSPC | libc::EDQUOT => ErrorKind::NoSpace,
            libc::ENOMEM => ErrorKind::NoMemory,
            _ => ErrorKind::Io,
        };
        error.os_error() == Some(self.kind.0)
            && hit.is_some()
            && match error.kind() {
                ErrorKind::Io => self.has_failed_sync || by_number == ErrorKind::Io,
                kind => kind == by_number || (kind == ErrorKind::NoMemory && hit != Some("sync")),
            }
    }
}

struct Run<'a> {
    case: &'a Case,
    rng: fastrand::Rng,
    /// Where every call fails, so does marking the mirror when it is written by calls.
    cannot_mark: bool,
}

impl Run<'_> {
    fn open(&self, disk: &Arc<Simulation>) -> Database {
        open(disk, &self.case.options).unwrap_or_else(|error| panic!("opening again: {error}"))
    }

    fn must(result: Result<(), String>, what: &str) {
        if let Err(reason) = result {
            panic!("{what}: {reason}");
        }
    }

    /// What was promised is there after the process has died now, and after a power loss. `flushed` says
    /// that there is nothing but what was flushed.
    fn check_snapshot(&mut self, snapshot: &Snapshot, model: &Model, flushed: bool) {
        if flushed && self.cannot_mark {
            self.check_recovered(&snapshot.restart_without_mirror(), model, "without a mirror");
        } else if flushed {
            self.check_recovered(&snapshot.restart(), model, "after a restart");
        } else {
            self.check_mirrored(snapshot, model);
            self.check_recovered(&snapshot.restart_without_mirror(), model, "without a mirror");
        }
        for _ in 0..2 {
            let seed = self.rng.u64(..);
            self.check_recovered(&snapshot.crash(seed), model, "after a crash");
        }
    }

    /// The process dies, and the next one too.
    fn check_mirrored(&mut self, snapshot: &Snapshot, model: &Model) {
        let disk = snapshot.restart();
        let db = self.open(&disk);
        Self::must(model.check(&db), "after a death");
        let mut program = Program::new(model.clone());
        let steps = random_steps(&mut self.rng, 4);
        run_steps(&db, &steps, &mut program);
        program.release_views();
        let disk = disk.snapshot().restart();
        let db = self.open(&disk);
        Self::must(program.model.check(&db), "after another death");
        let crashed = disk.snapshot().crash(self.rng.u64(..));
        Self::must(program.model.check_recovered(&self.open(&crashed)), "deaths, then a crash");
        db.flush().unwrap();
        program.model.flushed();
        let crashed = disk.snapshot().crash(self.rng.u64(..));
        Self::must(program.model.check_recovered(&self.open(&crashed)), "flushed by another");
    }

    fn check_recovered(&mut self, disk: &Arc<Simulation>, model: &Model, when: &str) {
        let db = self.open(disk);
        Self::must(model.check_recovered(&db), when);
        let mut program = Program::new(Model::new());
        program.model.adopt(&db);
        // What an open has shown is durable.
        let crashed = disk.snapshot().crash(self.rng.u64(..));
        Self::must(program.model.check_recovered(&self.open(&crashed)), "found, then a crash");
        let steps = random_steps(&mut self.rng, 6);
        run_steps(&db, &steps, &mut program);
        db.flush().unwrap();
        program.model.flushed();
        let steps = random_steps(&mut self.rng, 3);
        run_steps(&db, &steps, &mut program);
        let crashed = disk.snapshot().crash(self.rng.u64(..));
        Self::must(program.model.check_recovered(&self.open(&crashed)), "flushed, then a crash");
    }

    /// Lets call number `call` fail. Returns which it was, or how many there were.
    fn run(&mut self, kind: Kind, call: Option<u64>) -> Result<&'static str, u64> {
        let case = self.case;
        let disk = case.disk.restart();
        let mut program = Program::new(case.model.clone());
        let mut faults =
            Injector { disk: &disk, kind, call, has_hit: false, has_failed_sync: false };
        let (mut calls, mut first_hit) = (0, None);

        faults.begin();
        let opened = open(&disk, &case.options);
        let (made, hit) = faults.end();
        calls += made;
        first_hit = first_hit.or(hit);
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                assert!(faults.explains(&error, hit), "open, {hit:?} failed: {error:?}");
                self.check_snapshot(&disk.snapshot(), &program.model, !case.mirrored);
                return first_hit.ok_or(calls);
            }
        };
        assert!(!faults.has_failed_sync, "open: a failed sync was not noticed");
        if case.mirrored {
            Self::must(program.model.check(&db), "opened");
        } else {
            Self::must(program.model.check_recovered(&db), "opened");
            program.model.adopt(&db);
        }

        let mut failure: Option<Error> = None;
        let mut steps_since = 0;
        for step in &case.steps {
            if steps_since == STEPS_OF_A_LASTING_FAULT {
                faults.call = None;
            }
            let before = program.model.clone();
            faults.begin();
            let result = program.step(&db, step, &|_| ());
            let (made, hit) = faults.end();
            calls += made;
            first_hit = first_hit.or(hit);
            steps_since += usize::from(faults.has_hit);
            let missing = matches!(&result, Err(error) if error.kind() == ErrorKind::NotFound && hit.is_none());
            match (&failure, &result) {
                _ if missing => {}
                (Some(_), _) if !step.is_change() => {}
                (Some(_), Ok(())) => {
                    assert!(matches!(step, Step::Create(_) | Step::WriteBatch(..)), "{step:?}");
                }
                (Some(failure), Err(error)) => {
                    assert_eq!(error.to_string(), failure.to_string());
                    assert_eq!(made, 0, "{step:?} after a failed sync");
                }
                (None, Ok(())) => {
                    assert!(!faults.has_failed_sync, "{step:?}: a failed sync was not noticed");
                }
                (None, Err(error)) => {
                    assert!(faults.explains(error, hit), "{step:?}, {hit:?} failed: {error:?}");
                    if faults.has_failed_sync {
                        assert_eq!(error.kind(), ErrorKind::Io);
                        failure = Some(error.clone());
                    }
                    // What a guarded overwrite has changed is put back, unless that fails as well.
                    if let (true, true, Some(name)) =
                        (kind.2, case.options.guarded, step.overwritten())
                    {
                        Self::must(program.model.adopt_torn(&db, &before, name), "torn");
                    }
                }
            }
            if hit.is_some() || result.is_err() {
                Self::must(program.model.check(&db), &format!("after {step:?}"));
                program.check_views();
            }
            if hit.is_some() && steps_since == 1 {
                self.check_snapshot(&disk.snapshot(), &program.model, failure.is_some());
            }
        }
        Self::must(program.model.check(&db), "at the end");
        program.release_views();
        if first_hit.is_some() && self.rng.bool() {
            self.check_snapshot(&disk.snapshot(), &program.model, failure.is_some());
        }

        program.model.may_be_flushed();
        faults.begin();
        let closed = db.close();
        let (made, hit) = faults.end();
        calls += made;
        first_hit = first_hit.or(hit);
        assert!(disk.is_unlocked());
        match (&closed, &failure) {
            (Ok(()), None) => {
                assert!(!faults.has_failed_sync, "close: a failed sync was not noticed");
                program.model.flushed();
            }
            (Ok(()), Some(_)) => panic!("close after a failed sync says nothing"),
            (Err(error), None) => {
                assert!(faults.explains(error, hit), "close, {hit:?} failed: {error:?}");
            }
            (Err(error), Some(failure)) => {
                assert_eq!(error.to_string(), failure.to_string());
                assert_eq!(made, 0, "close after a failed sync");
            }
        }
        let flushed = failure.is_some() || faults.has_failed_sync;
        self.check_snapshot(&disk.snapshot(), &program.model, flushed);
        first_hit.ok_or(calls)
    }
}

/// Held by a sweep: two at once take longer than one after the other. Simulated disks map memory and
/// change its protection all the time, and threads share an address space.
static ALONE: Mutex<()> = Mutex::new(());

fn programs() -> u64 {
    std::env::var("RAWDB_PROGRAMS").map_or(PROGRAMS, |it| it.parse().unwrap())
}

fn sweep(guarded: bool) {
    let _alone = ALONE.lock();
    let seed = seed::seed();
    let programs = programs();
    let mut faults = BTreeMap::<(&str, Kind), u64>::new();
    for number in 0..programs {
        let seed = seed.wrapping_add(number);
        let case = Case::random(seed, guarded);
        let run = |kind: Kind, call| {
            let rng = fastrand::Rng::with_seed(seed);
            let mut it = Run { case: &case, rng, cannot_mark: guarded && kind.2 };
            let result = catch_unwind(AssertUnwindSafe(|| it.run(kind, call)));
            result.unwrap_or_else(|_| {
                let steps = &case.steps;
                panic!("RAWDB_SEED={seed} alone does it: {kind:?} at call {call:?}, {steps:?}")
            })
        };
        let calls = run(KINDS[0], None).expect_err("no call fails");
        for call in 0..calls {
            let mut kinds = KINDS;
            // Whose turn it is depends on nothing that is different where this program runs alone.
            kinds.rotate_left(seed.wrapping_add(call) as usize % KINDS.len());
            let mut sort = "";
            for (place, kind) in kinds.into_iter().enumerate() {
                let times = faults.get(&(sort, kind)).copied().unwrap_or(0);
                if place < KINDS_PER_CALL || times < TIMES_OF_A_KIND {
                    sort = run(kind, Some(call)).expect("what was called is called again");
                    *faults.entry((sort, kind)).or_default() += 1;
                }
            }
        }
    }
    let total: u64 = faults.values().sum();
    println!("{total} faults, guarded {guarded}");
    for ((call, (errno, partial, lasting)), count) in &faults {
        let name = std::io::Error::from_raw_os_error(*errno);
        println!("{count:8} {call}: {name}, partial {partial}, lasting {lasting}");
    }
    // All that `Storage` has, but for mapping the mirror, which guarded writes do not.
    let sorts = if guarded { 18 } else { 19 };
    assert_eq!(faults.len(), sorts * KINDS.len(), "a sort of call has not failed with every kind");
}

/// A program in which one step of a call panics.
struct PanicRun<'a> {
    case: &'a Case,
    rng: fastrand::Rng,
}

impl PanicRun<'_> {
    /// What another process finds: what a flush was about, whole.
    fn check_flushed(&mut self, disk: &Simulation, model: &Model) {
        let snapshot = disk.snapshot();
        for disk in [snapshot.restart(), snapshot.crash(self.rng.u64(..))] {
            let db = open(&disk, &self.case.options).unwrap();
            Run::must(model.check_recovered(&db), "after a panic");
            // It is a database as any.
            db.create_region_if_needed("after").unwrap().write(&[1; 5000]).unwrap();
            db.flush().unwrap();
        }
    }

    /// After a panic in a call: nothing can be changed, everything can be read and let go.
    fn check_stopped(&mut self, disk: &Arc<Simulation>, db: Database, mut program: Program) {
        let snapshot = disk.snapshot();
        disk.inject(None);
        let names: Vec<String> = db.list().unwrap().into_iter().map(|(name, _)| name).collect();
        let calls = disk.calls();
        let mut refused = vec![
            db.flush(),
            db.compact(),
            db.retain(&[]),
            db.reserve_file(1 << 30),
            db.reserve_regions(1000),
            db.create_region_if_needed("other").map(drop),
        ];
        for name in &names {
            let region = db.region(name).unwrap();
            region.view(0, u64::MAX).unwrap();
            refused.extend([
                region.write(b"x").map(drop),
                region.write_at(b"x", 0),
                region.truncate(0),
                region.reserve(100_000),
                region.append_begin(1).map(drop),
                db.rename(name, "renamed", true),
                db.remove(name),
            ]);
        }
        for result in refused {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
        }
        program.release_views();
        assert_eq!(disk.calls(), calls, "a change was tried");
        let error = db.close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
        assert!(disk.is_unlocked());
        // Closing has added nothing.
        self.check_flushed(&snapshot.restart(), &program.model);
        self.check_flushed(disk, &program.model);
    }

    /// Has the step panic. Says which kind of call that was, or how many steps there are.
    fn run(&mut self, panic: Panic) -> Result<String, u64> {
        fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
            catch_unwind(AssertUnwindSafe(body)).ok()
        }
        let case = self.case;
        let disk = case.disk.restart();
        let mut program = Program::new(case.model.clone());
        disk.inject_panic(Some(panic));
        let Some(db) = caught(|| open(&disk, &case.options).unwrap()) else {
            let opened = open(&disk.snapshot().restart(), &case.options).unwrap();
            // It has changed nothing, and the mirror of another process is still good.
            match case.mirrored {
                true => Run::must(program.model.check(&opened), "after a panic in opening"),
                false => {
                    Run::must(program.model.check_recovered(&opened), "after a panic in opening")
                }
            }
            return Ok("Open".to_owned());
        };
        if !case.mirrored {
            program.model.adopt(&db);
        }
        let mut only_asked = None;
        for step in &case.steps {
            match caught(|| program.step(&db, step, &|_| ())) {
                Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                Some(Ok(())) => {}
                None => {
                    let name = format!("{step:?}").split('(').next().unwrap().to_owned();
                    if step.is_change() {
                        self.check_stopped(&disk, db, program);
                        return Ok(name);
                    }
                    only_asked = Some(name);
                }
            }
        }
        program.release_views();
        program.model.may_be_flushed();
        match caught(|| db.close()) {
            Some(closed) => closed.unwrap(),
            None => {
                assert!(disk.is_unlocked());
                self.check_flushed(&disk, &program.model);
                return Ok("Close".to_owned());
            }
        }
        only_asked.ok_or(disk.calls())
    }
}

/// A defect, wherever it is met: every step of random programs panics, one after the other, before its
/// effect and after it. What was flushed is found again, whole, and nothing of what was not.
fn sweep_panics(guarded: bool) {
    let _alone = ALONE.lock();
    let (seed, programs) = (seed::seed(), programs());
    let mut panics = BTreeMap::<String, u64>::new();
    for number in 0..programs {
        let seed = seed.wrapping_add(number);
        let case = Case::random(seed, guarded);
        let run = |panic: Panic| {
            let rng = fastrand::Rng::with_seed(seed);
            let result =
                catch_unwind(AssertUnwindSafe(|| PanicRun { case: &case, rng }.run(panic)));
            result.unwrap_or_else(|_| {
                panic!("RAWDB_SEED={seed} alone does it: {panic:?}, {:?}", case.steps)
            })
        };
        let steps = run(Panic { step: u64::MAX, done: false }).unwrap_err();
        for step in 0..steps {
            for done in [false, true] {
                let call = run(Panic { step, done }).expect("every step is met again");
                *panics.entry(call).or_default() += 1;
            }
        }
    }
    println!("guarded {guarded}: {panics:?}");
    // All calls that change something.
    assert_eq!(panics.len(), 19, "a sort of call has not panicked");
}

#[test]
fn a_panic_through_the_mapping() {
    sweep_panics(false);
}

#[test]
fn a_panic_guarded() {
    sweep_panics(true);
}

/// Who waits for a call that panics is refused, and waits no longer.
#[test]
fn a_panic_beside_other_calls() {
    for step in (0..200).step_by(5) {
        let disk = Simulation::empty();
        let db = open(&disk, &Options::default()).unwrap();
        let regions = ["a", "b"].map(|name| db.create_region_if_needed(name).unwrap());
        // An overwrite is none that extends the region.
        regions[0].write(&[1; 700]).unwrap();
        db.flush().unwrap();
        disk.inject_panic(Some(Panic { step, done: step % 2 == 0 }));
        let has_panicked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (db, regions, has_panicked) = (&db, &regions, &has_panicked);
                scope.spawn(move || loop {
                    let call = || match thread {
                        0 | 1 => regions[0].write(&[1; 700]).map(drop),
                        2 => regions[thread % 2].write_at(&[2; 100], 0),
                        3 => db.rename("b", "b", true).and_then(|()| {
                            db.create_region_if_needed("c")?.write(&[1; 100])?;
                            db.rename("c", "d", true)
                        }),
                        4 => db.flush(),
                        _ => db.compact(),
                    };
                    let must_refuse = has_panicked.load(Ordering::Relaxed);
                    match catch_unwind(AssertUnwindSafe(call)) {
                        Ok(Ok(())) => assert!(!must_refuse, "a change after a panic"),
                        Ok(Err(error)) => {
                            return assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
                        }
                        Err(_) => return has_panicked.store(true, Ordering::Relaxed),
                    }
                });
            }
        });
        assert_eq!(db.close().unwrap_err().kind(), ErrorKind::Panic);
        assert!(disk.is_unlocked());
        let db = open(&disk.snapshot().restart(), &Options::default()).unwrap();
        let region = db.region("a").unwrap();
        assert!(region.view(0, u64::MAX).unwrap().iter().all(|&byte| [1, 2].contains(&byte)));
        assert_eq!(region.len() % 700, 0);
    }
}

/// A flush that waits for a region when the call that has it panics records nothing of it, and a writer
/// that waits for it changes nothing.
#[test]
fn a_panic_before_those_who_wait() {
    let disk = Simulation::empty();
    let db = Arc::new(open(&disk, &Options::default()).unwrap());
    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 10_000]).unwrap();
    region.reserve(50_000).unwrap();
    // The first piece is in use.
    let behind = region.info().unwrap().start + 16_384;
    let (flusher, writer) = (db.clone(), region.clone());
    let (sender, waiting) = std::sync::mpsc::channel();
    // The compaction has the region's lock then.
    disk.before_punch(behind, move || {
        sender.send(std::thread::spawn(move || flusher.flush())).unwrap();
        sender.send(std::thread::spawn(move || writer.write(&[3; 100]).map(drop))).unwrap();
        // If they come later, they are refused for another reason.
        std::thread::sleep(std::time::Duration::from_millis(200));
        std::panic::resume_unwind(Box::new("a test asked for a panic"));
    });
    let compact = || db.compact_with(&mut |_, _| region.write(&[2; 10]).is_ok());
    catch_unwind(AssertUnwindSafe(compact)).unwrap_err();
    for thread in waiting.iter() {
        assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Panic);
    }
    assert_eq!(Arc::into_inner(db).unwrap().close().unwrap_err().kind(), ErrorKind::Panic);
    let db = open(&disk.snapshot().restart(), &Options::default()).unwrap();
    assert_eq!(db.region("a").unwrap().len(), 10_000);
}

#[test]
fn through_the_mapping() {
    sweep(false);
}

#[test]
fn guarded() {
    sweep(true);
}

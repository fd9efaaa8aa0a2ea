//! System calls that fail, are interrupted, or transfer less than asked for, one after the other.
//!
//! A library stands before the C library and lets the n-th call fail that the database makes, for
//! every n; see `faults/interpose.c`. Whatever fails: the call of the database comes back with an
//! error that says so and has changed nothing, or has done all of its work. After a failed sync no
//! change is accepted; after anything else the database goes on. And what a completed flush
//! promised is found by whoever opens the files then.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rawdb::{Database, Error, ErrorKind, Options};

#[path = "faults/program.rs"]
mod program;

use program::{Model, Program, Step};

/// What a child process is told: where to work.
const DIRECTORY: &str = "RAWDB_TEST_DIRECTORY";

/// Set to what a failure names, has only that one repeated.
const ONLY: &str = "RAWDB_FAULT";

/// A child that takes longer hangs.
const TIMEOUT: &str = "600";

/// The calls by their numbers in `interpose.c`, as bits.
mod call {
    pub const OPEN: u32 = 1 << 0;
    pub const MKDIR: u32 = 1 << 1;
    pub const READ: u32 = 1 << 2;
    pub const STAT: u32 = 1 << 3;
    pub const STATFS: u32 = 1 << 4;
    pub const LOCK: u32 = 1 << 5;
    pub const IOCTL: u32 = 1 << 6;
    pub const WRITE: u32 = 1 << 7;
    pub const SYNC_DATA: u32 = 1 << 8;
    pub const SYNC_DIRECTORY: u32 = 1 << 9;
    pub const SET_LEN: u32 = 1 << 10;
    pub const ALLOCATE: u32 = 1 << 11;
    pub const PUNCH: u32 = 1 << 12;
    pub const MAP: u32 = 1 << 13;
    pub const PROTECT: u32 = 1 << 14;
    pub const ADVISE: u32 = 1 << 15;
    pub const UNLINK: u32 = 1 << 16;

    pub const SYNCS: u32 = SYNC_DATA | SYNC_DIRECTORY;
    pub const CHANGES: u32 = MKDIR | WRITE | SYNCS | SET_LEN | ALLOCATE | PUNCH;
}

const FAIL: i32 = 0;
const SHORT: i32 = 1;
const SHORT_THEN_FAIL: i32 = 2;
const NOTHING: i32 = 3;
const PART_THEN_FAIL: i32 = 4;

/// `struct faults` of `interpose.c`.
#[repr(C)]
struct Faults {
    armed: i32,
    action: i32,
    error: i32,
    calls: u32,
    lasting: i32,
    at: libc::c_long,
    file_system: libc::c_long,
    largest_map: libc::c_ulong,
    longest_step: libc::c_ulong,
    counted: libc::c_long,
    trace: [u8; 4096],
    seen: u32,
    hit: u32,
    fails_next: i32,
    interrupted: libc::c_ulong,
}

/// The library that stands before the C library in this process.
struct Interposed(*mut Faults);

impl Interposed {
    fn find() -> Interposed {
        // SAFETY: a question, with a string that ends with NUL.
        let faults = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"faults".as_ptr()) };
        assert!(!faults.is_null(), "the interposed library is loaded");
        Interposed(faults.cast())
    }

    /// Looks at the struct, or changes it.
    fn with<T>(&self, use_it: impl FnOnce(&mut Faults) -> T) -> T {
        // SAFETY: the struct lives as long as the process. No other thread makes calls that the
        // library interposes, and `use_it` makes none.
        use_it(unsafe { &mut *self.0 })
    }

    fn set_armed(&self, armed: bool) {
        self.with(|faults| faults.armed = armed.into());
    }
}

/// A way for a call to fail.
struct Kind {
    name: &'static str,
    action: i32,
    error: i32,
    lasting: bool,
    calls: u32,
}

const fn kind(name: &'static str, action: i32, error: i32, lasting: bool, calls: u32) -> Kind {
    Kind { name, action, error, lasting, calls }
}

use call::*;

const EIO_CALLS: u32 = OPEN | READ | STAT | STATFS | IOCTL | ADVISE | UNLINK | CHANGES;
const SPACE_CALLS: u32 = OPEN | IOCTL | CHANGES;
const MEMORY_CALLS: u32 = EIO_CALLS | MAP | PROTECT;
/// Those that a signal can interrupt.
const INTERRUPTED: u32 = OPEN | READ | STATFS | LOCK | WRITE | SYNCS | SET_LEN | ALLOCATE | PUNCH;

const KINDS: [Kind; 19] = [
    kind("EIO", FAIL, libc::EIO, false, EIO_CALLS),
    kind("EIO lasting", FAIL, libc::EIO, true, EIO_CALLS),
    kind("ENOSPC", FAIL, libc::ENOSPC, false, SPACE_CALLS),
    kind("ENOSPC lasting", FAIL, libc::ENOSPC, true, SPACE_CALLS),
    kind("ENOSPC after a part", PART_THEN_FAIL, libc::ENOSPC, false, ALLOCATE),
    kind("ENOSPC after a part, lasting", PART_THEN_FAIL, libc::ENOSPC, true, ALLOCATE),
    kind("EDQUOT", FAIL, libc::EDQUOT, false, WRITE | SYNC_DATA | SET_LEN | ALLOCATE),
    kind("ENOMEM", FAIL, libc::ENOMEM, false, MEMORY_CALLS),
    kind("ENOMEM lasting", FAIL, libc::ENOMEM, true, MEMORY_CALLS),
    kind("EINTR", FAIL, libc::EINTR, false, INTERRUPTED),
    kind("EMFILE", FAIL, libc::EMFILE, false, OPEN),
    kind("ENOLCK", FAIL, libc::ENOLCK, false, LOCK),
    kind("EACCES", FAIL, libc::EACCES, false, OPEN | MKDIR | STAT),
    kind("short", SHORT, 0, false, READ | WRITE),
    kind("short lasting", SHORT, 0, true, READ | WRITE),
    kind("short, then EIO", SHORT_THEN_FAIL, libc::EIO, false, WRITE),
    kind("short, then ENOSPC", SHORT_THEN_FAIL, libc::ENOSPC, false, WRITE),
    kind("short, then ENOSPC lasting", SHORT_THEN_FAIL, libc::ENOSPC, true, WRITE),
    kind("nothing written", NOTHING, 0, false, WRITE),
];

impl Kind {
    /// Whether nobody may notice.
    fn is_invisible(&self) -> bool {
        self.action == SHORT || self.error == libc::EINTR
    }

    /// The syncs that it lets fail so that the caller has to know.
    fn failing_syncs(&self) -> u32 {
        if self.is_invisible() {
            0
        } else {
            self.calls & SYNCS
        }
    }

    /// Whether `error` says what went wrong, where the calls `hit` were.
    fn explains(&self, error: &Error, hit: u32, opening: bool) -> bool {
        let by_number = match self.error {
            libc::ENOSPC | libc::EDQUOT => ErrorKind::NoSpace,
            libc::ENOMEM => ErrorKind::NoMemory,
            _ => ErrorKind::Io,
        };
        let os_error = (self.error != 0).then_some(self.error);
        let sync_failed = hit & SYNCS != 0;
        error.os_error() == os_error
            && match error.kind() {
                ErrorKind::Io if sync_failed => true,
                ErrorKind::NoMemory if hit & (MAP | PROTECT) != 0 => true,
                // A flush that fails by its sync is final, whatever the reason was.
                kind => kind == by_number && (!sync_failed || opening || self.lasting),
            }
    }
}

/// What the calls are made on.
struct Setting {
    options: Options,
    /// The file system that there seems to be.
    file_system: libc::c_long,
    /// Which of the cases it makes a difference to.
    cases: &'static [&'static str],
}

const EXT4: libc::c_long = 0xEF53;
const TMPFS: libc::c_long = 0x0102_1994;
const BTRFS: libc::c_long = 0x9123_683E;

impl Setting {
    fn new(file_system: libc::c_long, guarded: bool, cases: &'static [&'static str]) -> Setting {
        // A threshold of one page brings punching into every flush.
        let options = Options { guarded, reclaim_threshold: 4096, ..Options::default() };
        Setting { options, file_system, cases }
    }
}

/// What is there at first, and what it holds.
enum Start {
    Nothing,
    Copy(PathBuf, Model),
    /// What a process has left that ran the steps of `before` and died, in the files themselves.
    Died(Model),
}

impl Start {
    fn prepare(&self, db: &Path, options: &Options) {
        match self {
            Start::Nothing => drop(fs::remove_dir_all(db)),
            Start::Copy(template, _) => copy(template, db),
            Start::Died(_) => {
                let _ = fs::remove_dir_all(db);
                die_after_steps(db, options);
            }
        }
    }

    fn model(&self) -> Model {
        match self {
            Start::Nothing => Model::new(),
            Start::Copy(_, model) | Start::Died(model) => model.clone(),
        }
    }
}

/// In another process, which holds no lock in the end.
fn die_after_steps(db: &Path, options: &Options) {
    // SAFETY: the other threads of this process wait for this one, so none of them holds a lock that
    // the child needs.
    match unsafe { libc::fork() } {
        0 => {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let db = Database::open_with(db, options).unwrap();
                let mut program = Program::new(Model::new());
                let (flushed, unflushed) = before();
                run_steps(&db, &flushed, &mut program);
                run_steps(&db, &unflushed, &mut program);
                std::mem::forget(db);
            }));
            // SAFETY: ends the process.
            unsafe { libc::_exit(result.is_err().into()) };
        }
        child => {
            let mut status = 0;
            // SAFETY: a system call; `status` is a valid place for the result.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the process that was to die has failed");
        }
    }
}

struct Case {
    name: &'static str,
    start: Start,
    /// As long as the window that is mapped first may be, 0 for any length.
    largest_map: libc::c_ulong,
    steps: Vec<Step>,
}

fn s(name: &str) -> String {
    name.to_owned()
}

/// Every call there is, on a few regions of a new database.
fn everything() -> Vec<Step> {
    use Step::*;
    vec![
        Create(s("a")),
        Append(s("a"), 100),
        Create(s("b")),
        Append(s("b"), 5_000),
        Flush,
        Append(s("a"), 9_000),
        WriteAt(s("b"), 500, 2_000),
        View(s("a"), 100, 900),
        WriteAt(s("a"), 200, 3_000),
        WriteBatch(s("b"), 5, 700),
        View(s("b"), 0, 1000),
        WriteBatch(s("b"), 3, 1_000),
        Truncate(s("b"), 300),
        FlushRegion(s("b")),
        Append(s("b"), 6_000),
        TruncateWrite(s("a"), 500, 1_000),
        AppendInPlace(s("b"), 20_000, 15_000),
        Reserve(s("a"), 100_000),
        Flush,
        ReleaseViews,
        Append(s("a"), 60_000),
        Create(s("c")),
        Append(s("c"), 1_300_000),
        WriteAt(s("c"), 0, 10_000),
        Flush,
        Truncate(s("c"), 10),
        Rename(s("c"), s("b")),
        Flush,
        Remove(s("a")),
        Append(s("b"), 50_000),
        Compact,
        Create(s("a")),
        Append(s("a"), 3_000),
        WriteAt(s("b"), 100, 100),
        Stats,
    ]
}

/// Many regions, in a database that was not closed.
fn names() -> Vec<Step> {
    use Step::*;
    let mut steps: Vec<Step> = (0..12)
        .flat_map(|number| [Create(format!("n{number}")), Append(format!("n{number}"), 300)])
        .collect();
    steps.extend([
        Flush,
        ReserveRegions(40),
        Rename(s("n3"), s("n4")),
        Remove(s("n5")),
        Retain(vec![s("n4"), s("n7"), s("x"), s("y")]),
        Append(s("x"), 10_000),
        Flush,
        Create(s("n5")),
        Append(s("n5"), 7_000),
        Stats,
        Compact,
    ]);
    steps
}

/// A file that outgrows its window, with views of the old one.
fn windows() -> Vec<Step> {
    use Step::*;
    vec![
        Create(s("a")),
        Append(s("a"), 50_000),
        Flush,
        View(s("a"), 0, 1000),
        ReserveFile(90 << 20),
        Append(s("a"), 2_000_000),
        WriteAt(s("a"), 10, 1_000),
        Flush,
        ReserveFile(700 << 20),
        Append(s("a"), 2_300_000),
        Flush,
    ]
}

/// What the templates hold: one flush, and after it what only the page cache has.
fn before() -> (Vec<Step>, Vec<Step>) {
    use Step::*;
    (
        vec![
            Create(s("x")),
            Append(s("x"), 20_000),
            Create(s("y")),
            Append(s("y"), 700),
            Flush,
            Create(s("z")),
            Append(s("z"), 5_000),
            Truncate(s("x"), 900),
            Flush,
        ],
        vec![WriteAt(s("x"), 0, 600), Append(s("y"), 900), Remove(s("z"))],
    )
}

fn run_steps(db: &Database, steps: &[Step], program: &mut Program) {
    for step in steps {
        program.step(db, step, &|_| ()).unwrap();
    }
}

/// Copies a database, as it is in the page cache: what is found if its process dies now.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for name in ["data", "regions"] {
        let Ok(source) = fs::File::open(from.join(name)) else { continue };
        let target = fs::File::create(to.join(name)).unwrap();
        let len = source.metadata().unwrap().len();
        target.set_len(len).unwrap();
        let seek = |at: u64, whence| {
            // SAFETY: a system call on an open descriptor.
            let at = unsafe { libc::lseek64(source.as_raw_fd(), at as i64, whence) };
            u64::try_from(at).ok()
        };
        let mut at = 0;
        while let Some(start) = seek(at, libc::SEEK_DATA) {
            at = seek(start, libc::SEEK_HOLE).unwrap();
            let mut bytes = vec![0; (at - start) as usize];
            source.read_exact_at(&mut bytes, start).unwrap();
            target.write_all_at(&bytes, start).unwrap();
        }
    }
}

/// One run of a case with a fault, from an empty directory.
struct Run<'a> {
    faults: &'a Interposed,
    kind: &'a Kind,
    options: &'a Options,
    db: PathBuf,
    copy: PathBuf,
}

impl Run<'_> {
    /// Which calls there were and which were hit since this was asked last.
    fn calls(&self) -> (u32, u32) {
        self.faults
            .with(|faults| (std::mem::take(&mut faults.seen), std::mem::take(&mut faults.hit)))
    }

    fn open(&self, path: &Path) -> Result<Database, Error> {
        Database::open_with(path, self.options)
    }

    /// What was promised is there, and a database can be worked with that shows it.
    fn check_recovered(&self, path: &Path, model: &Model) {
        let db = self.open(path).unwrap_or_else(|error| panic!("opening again: {error}"));
        if let Err(reasons) = model.check_recovered(&db) {
            panic!("opened again: {reasons}");
        }
        self.go_on(path, db);
    }

    /// The same where a process has died, so that nothing is lost but what a failed sync has cost.
    fn check_after_death(&self, path: &Path, model: &Model, sync_failed: bool) {
        let db = self.open(path).unwrap_or_else(|error| panic!("opening again: {error}"));
        let found = if sync_failed { model.check_recovered(&db) } else { model.check(&db) };
        if let Err(reasons) = found {
            panic!("opened again: {reasons}");
        }
        self.go_on(path, db);
    }

    /// Works with a database, closes it, and looks whether it is found so.
    fn go_on(&self, path: &Path, db: Database) {
        let mut program = Program::new(Model::new());
        program.model.adopt(&db);
        let steps = [Step::Create(s("last")), Step::Append(s("last"), 40_000), Step::Flush];
        run_steps(&db, &steps, &mut program);
        db.close().unwrap();
        let db = self.open(path).unwrap();
        program.model.check(&db).unwrap();
    }

    /// An open that has failed leaves a database that it has created not behind, and one that was closed
    /// as it was.
    fn check_left_as_found(&self, start: &Start) {
        let read = |db: &Path, name| fs::read(db.join(name)).unwrap();
        match start {
            Start::Nothing => assert!(!self.db.exists(), "a failed open leaves a database"),
            Start::Copy(template, _) if !template.join("live").exists() => {
                assert!(!self.db.join("live").exists(), "a failed open leaves a mirror");
                assert!(read(template, "regions") == read(&self.db, "regions"));
                assert!(read(template, "data") == read(&self.db, "data"));
            }
            _ => {}
        }
    }

    /// Runs the case, and says whether a call was hit.
    fn run(&self, case: &Case) -> bool {
        let storage = |armed| self.faults.set_armed(armed);
        let mut program = Program::new(case.start.model());
        let has_died = matches!(case.start, Start::Died(_));
        self.calls();

        self.faults.with(|faults| faults.largest_map = case.largest_map);
        storage(true);
        let opened = self.open(&self.db);
        storage(false);
        self.faults.with(|faults| faults.largest_map = 0);
        let (_, hit) = self.calls();
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                // Where the number of the disk is hidden, it is not the system that refuses.
                let undecided =
                    has_died && self.kind.error == libc::EACCES && error.os_error().is_none();
                assert!(
                    undecided || self.kind.explains(&error, hit, true),
                    "open, {hit:#x} hit: {error:?}"
                );
                assert!(!self.kind.is_invisible(), "{error}");
                if !self.kind.lasting {
                    self.check_left_as_found(&case.start);
                }
                if self.kind.lasting {
                    storage(true);
                    let again = self.open(&self.db);
                    storage(false);
                    let (_, hit) = self.calls();
                    if let Err(error) = again {
                        assert!(self.kind.explains(&error, hit, true), "open again: {error:?}");
                    }
                }
                match has_died {
                    true => {
                        let sync_failed = hit & self.kind.failing_syncs() != 0;
                        program.model.may_be_flushed();
                        self.check_after_death(&self.db, &program.model, sync_failed);
                    }
                    false => self.check_recovered(&self.db, &program.model),
                }
                return true;
            }
        };
        assert_eq!(hit & self.kind.failing_syncs(), 0, "a failed sync was not noticed");
        let found = match has_died {
            true => program.model.check(&db),
            false => program.model.check_recovered(&db),
        };
        if let Err(reasons) = found {
            panic!("opened: {reasons}");
        }
        if !has_died {
            program.model.adopt(&db);
        }

        let mut failure: Option<Error> = None;
        let mut steps_since_hit = 0;
        let mut was_hit = hit != 0;
        for step in &case.steps {
            // Until here a lasting fault lasts.
            if steps_since_hit == 10 {
                self.faults.with(|faults| faults.calls = 0);
            }
            let before = program.model.clone();
            let result = program.step(&db, step, &storage);
            let (seen, hit) = self.calls();
            was_hit |= hit != 0;
            steps_since_hit += u32::from(was_hit);
            if let Some(failure) = &failure {
                if step.is_change() {
                    match result {
                        Ok(()) => assert!(matches!(step, Step::Create(_) | Step::WriteBatch(..))),
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => assert_eq!(error.to_string(), failure.to_string()),
                    }
                }
                assert_eq!(seen & CHANGES, 0, "{step:?} after a failed sync");
            } else if let Err(error) = result {
                if hit == 0 && error.kind() == ErrorKind::NotFound {
                    // Its creation has failed.
                    assert!(was_hit, "{step:?}: {error}");
                    continue;
                }
                assert!(
                    self.kind.explains(&error, hit, false),
                    "{step:?}, {hit:#x} hit: {error:?}"
                );
                assert!(!self.kind.is_invisible(), "{step:?}: {error}");
                if hit & SYNC_DATA != 0 {
                    failure = Some(error);
                }
                // What a guarded overwrite has changed is put back, unless that fails as well.
                if let (true, Some(name)) =
                    (hit & WRITE != 0 && self.kind.lasting, step.overwritten())
                {
                    program.model.adopt_torn(&db, &before, name).unwrap();
                }
            } else {
                assert_eq!(
                    hit & self.kind.failing_syncs(),
                    0,
                    "{step:?}: a failed sync was not noticed"
                );
            }
            if hit != 0 || failure.is_some() {
                program.model.check(&db).unwrap_or_else(|error| panic!("{step:?}: {error}"));
                program.check_views();
            }
        }
        program.model.check(&db).unwrap();
        program.check_views();
        if was_hit {
            copy(&self.db, &self.copy);
            self.check_recovered(&self.copy, &program.model);
        }

        program.model.may_be_flushed();
        storage(true);
        let closed = db.close();
        storage(false);
        let (seen, hit) = self.calls();
        program.release_views();
        match (&closed, &failure) {
            (Ok(()), None) => {
                assert_eq!(
                    hit & self.kind.failing_syncs(),
                    0,
                    "close: a failed sync was not noticed"
                );
                let db = self.open(&self.db).unwrap();
                program.model.check(&db).unwrap();
            }
            (Ok(()), Some(_)) => panic!("close after a failed sync says nothing"),
            (Err(error), None) => {
                assert!(self.kind.explains(error, hit, false), "close, {hit:#x} hit: {error:?}");
                assert!(!self.kind.is_invisible(), "close: {error}");
                let sync_failed = hit & self.kind.failing_syncs() != 0;
                self.check_after_death(&self.db, &program.model, sync_failed);
            }
            (Err(error), Some(failure)) => {
                assert_eq!(error.to_string(), failure.to_string());
                assert_eq!(seen & CHANGES, 0, "close after a failed sync");
                self.check_after_death(&self.db, &program.model, true);
            }
        }
        was_hit || hit != 0
    }
}

/// Lets every call of the case fail in every way.
fn sweep(
    faults: &Interposed,
    setting: &Setting,
    case: &Case,
    dir: &Path,
    runs: &mut BTreeMap<&str, u64>,
    failures: &mut Vec<String>,
) {
    let prepare = || {
        let db = dir.join("db");
        case.start.prepare(&db, &setting.options);
        db
    };
    let set = |kind: &Kind, at: i64| {
        faults.with(|faults| {
            faults.action = kind.action;
            faults.error = kind.error;
            faults.calls = kind.calls;
            faults.lasting = kind.lasting.into();
            faults.at = at;
            faults.counted = 0;
            faults.fails_next = 0;
            faults.file_system = setting.file_system;
        });
    };
    let run_one = |kind: &Kind, at: i64| -> bool {
        let run =
            Run { faults, kind, options: &setting.options, db: prepare(), copy: dir.join("copy") };
        set(kind, at);
        let hit = run.run(case);
        faults.with(|faults| faults.file_system = 0);
        hit
    };
    let none = kind("none", FAIL, 0, false, 0);
    assert!(!run_one(&none, -1));
    let trace: Vec<u8> = faults.with(|faults| {
        assert!(faults.counted as usize <= faults.trace.len());
        faults.trace[..faults.counted as usize].to_vec()
    });
    for kind in &KINDS {
        for (at, &call) in trace.iter().enumerate() {
            if kind.calls >> call & 1 == 0 {
                continue;
            }
            // Found by whoever looks for the reason of a signal, or of a hang.
            let what = format!("{}: {} at call {at}", case.name, kind.name);
            if std::env::var(ONLY).is_ok_and(|only| only != what) {
                continue;
            }
            fs::write(dir.join("running"), &what).unwrap();
            let hit = catch_unwind(AssertUnwindSafe(|| run_one(kind, at as i64)));
            match hit {
                Ok(hit) => *runs.entry(kind.name).or_default() += u64::from(hit),
                Err(_) => failures.push(what),
            }
            assert!(failures.len() < 20, "{failures:#?}");
        }
    }
}

/// `interpose.c`, compiled.
fn interposed_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let compiler = cc::Build::new()
            .host(&host)
            .target(&host)
            .opt_level(2)
            .out_dir(scratch)
            .cargo_metadata(false)
            .get_compiler();
        let library = scratch.join("interpose.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/interpose.c");
        let status = compiler
            .to_command()
            .args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(status.unwrap().success());
        library
    })
}

/// Runs all cases on a setting.
fn on(test: &str, setting: Setting) {
    in_child(test, |dir| run_cases(test, &setting, dir));
}

/// Runs a part of a test in a process that has the library in it.
fn in_child(test: &str, part: impl FnOnce(&Path)) {
    if let Ok(dir) = std::env::var(DIRECTORY) {
        return part(Path::new(&dir));
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let status = Command::new("timeout")
        .arg(TIMEOUT)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--quiet"])
        .env(DIRECTORY, dir.path())
        .env("LD_PRELOAD", interposed_library())
        .status()
        .unwrap();
    let running = fs::read_to_string(dir.path().join("running")).unwrap_or_default();
    assert!(status.success(), "{test}: {status}, {running}");
}

fn run_cases(test: &str, setting: &Setting, dir: &Path) {
    let (closed, abandoned) = (dir.join("closed"), dir.join("abandoned"));
    let (flushed, unflushed) = before();
    let db = Database::open_with(dir.join("made"), &setting.options).unwrap();
    let mut program = Program::new(Model::new());
    run_steps(&db, &flushed, &mut program);
    let closed_model = program.model.clone();
    run_steps(&db, &unflushed, &mut program);
    copy(&dir.join("made"), &abandoned);
    drop(db);
    let db = Database::open_with(&closed, &setting.options).unwrap();
    run_steps(&db, &flushed, &mut Program::new(Model::new()));
    db.close().unwrap();

    let cases = [
        Case { name: "everything", start: Start::Nothing, largest_map: 0, steps: everything() },
        Case {
            name: "names",
            start: Start::Copy(abandoned, program.model.clone()),
            largest_map: 0,
            steps: names(),
        },
        Case {
            name: "windows",
            start: Start::Copy(closed, closed_model),
            largest_map: 80 << 20,
            steps: windows(),
        },
        Case {
            name: "death",
            start: Start::Died(program.model),
            largest_map: 0,
            steps: vec![Step::Append(s("y"), 700), Step::Flush],
        },
    ];
    let faults = Interposed::find();
    let (mut runs, mut failures) = (BTreeMap::new(), Vec::new());
    for case in cases.iter().filter(|case| setting.cases.contains(&case.name)) {
        sweep(&faults, setting, case, dir, &mut runs, &mut failures);
    }
    let total: u64 = runs.values().sum();
    println!("{test}: {total} faults");
    for (kind, runs) in &runs {
        println!("{runs:8} {kind}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(total > 1000);
}

#[test]
fn mapped() {
    on("mapped", Setting::new(EXT4, false, &["everything", "names", "windows", "death"]));
}

#[test]
fn guarded() {
    on("guarded", Setting::new(EXT4, true, &["everything", "names", "windows", "death"]));
}

/// Where holes are filled before they are looked at.
#[test]
fn on_tmpfs() {
    on("on_tmpfs", Setting::new(TMPFS, false, &["names", "windows"]));
}

/// Where nothing can be stored to through the mapping.
#[test]
fn on_btrfs() {
    on("on_btrfs", Setting::new(BTRFS, false, &["everything"]));
}

/// Signals that come faster than a long range gets its blocks, where that starts over each time.
#[test]
fn signals_during_allocations() {
    in_child("signals_during_allocations", |dir| {
        let faults = Interposed::find();
        let interrupt = |longest| faults.with(|faults| faults.longest_step = longest);
        let db = Database::open(dir.join("db")).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(b"abc").unwrap();
        let before = db.stats().unwrap().disk_bytes;
        let mut reserved = 64 << 20;
        for longest in [64 << 10, 2 << 20, 3 << 20, 40 << 20] {
            interrupt(longest);
            region.reserve(reserved).unwrap();
            let full = db.stats().unwrap().disk_bytes;
            assert!(full >= reserved, "{full} of {reserved} bytes");
            db.compact().unwrap();
            let punched = db.stats().unwrap().disk_bytes;
            assert!(punched <= before, "{punched} bytes, {before} before");
            reserved += 64 << 20;
        }
        let interrupted = faults.with(|faults| std::mem::take(&mut faults.interrupted));
        assert!((1..10_000).contains(&interrupted), "{interrupted} interruptions");

        // Nothing can be done in so short a time.
        interrupt(1);
        let error = region.reserve(reserved).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(libc::EINTR)), "{error}");
        let error = db.create_region_if_needed("b").unwrap().write(&[1; 3 << 20]).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EINTR), "{error}");
        interrupt(0);
        assert!(db.stats().unwrap().disk_bytes <= before, "what has failed has left something");
        assert_eq!(*region.view(0, u64::MAX).unwrap(), *b"abc");
        region.reserve(reserved).unwrap();
        db.close().unwrap();
    });
}

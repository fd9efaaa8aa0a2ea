//! Power loss below real file systems: after any of them the file system mounts, and the database
//! opens as it stood at the last completed flush, or at one that was in progress.
//!
//! The disk is a file that a thread of this program serves by FUSE, with a loop device on it. It
//! keeps what has been flushed, and in a volatile cache every write since. A process works with a
//! database on it, and at random moments the power goes: a second disk begins with what was flushed
//! and some of what was in the cache. Needs root.
//!
//! `RAWDB_SNAPSHOTS` says how many times the power goes, for each file system.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufWriter, Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use parking_lot::{Condvar, Mutex};
use rawdb::{Database, Options};

mod random_program;
mod reboot;
mod seed;

use random_program::{Operation, Program, Stores};
use reboot::System;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// mkfs.xfs makes none smaller than 300 MiB.
const DISK_LEN: u64 = 320 << 20;

/// What the processes of a test are told by their environment: where to work, as what, from which
/// seed.
const DIRECTORY: &str = "RAWDB_TEST_DIRECTORY";
const ROLE: &str = "RAWDB_TEST_ROLE";
const SEED: &str = "RAWDB_SEED";

/// The bytes of a disk. What is not there is zero. A copy shares its blocks.
#[derive(Clone, Default)]
struct Image(HashMap<u64, Arc<[u8; BLOCK]>>);

impl Image {
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (number, at, range) in blocks(offset, len) {
            if let Some(block) = self.0.get(&number) {
                let len = range.len();
                bytes[range].copy_from_slice(&block[at..at + len]);
            }
        }
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, at, range) in blocks(offset, bytes.len()) {
            let block = self.0.entry(number).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[at..at + range.len()].copy_from_slice(&bytes[range]);
        }
    }
}

/// The blocks of `offset..offset + len`: number, where in the block, and which of the bytes.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let now = offset + done as u64;
        let at = (now % BLOCK as u64) as usize;
        let range = done..len.min(done + BLOCK - at);
        done = range.end;
        (!range.is_empty()).then_some((now / BLOCK as u64, at, range))
    })
}

/// A disk with a volatile cache.
#[derive(Default)]
struct Disk {
    /// What a power loss leaves.
    flushed: Image,
    /// What is read.
    current: Image,
    /// What was written since the last flush, in order.
    cache: Vec<(u64, Vec<u8>)>,
    trigger: Option<Trigger>,
    captured: Option<Captured>,
    flushes: u64,
}

/// When to capture the disk: when so many flushes have arrived, and then so many writes.
struct Trigger {
    flushes: u32,
    writes: u32,
    /// Whether the last of these has its effect before.
    done: bool,
    /// What the working process reports.
    report: PathBuf,
}

/// A disk at one moment, with the report just before that and just after.
struct Captured {
    flushed: Image,
    cache: Vec<(u64, Vec<u8>)>,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Disk {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.capture(false, false);
        self.current.write(offset, bytes);
        self.cache.push((offset, bytes.to_vec()));
        self.capture(false, true);
    }

    fn flush(&mut self) {
        self.capture(true, false);
        for (offset, bytes) in self.cache.drain(..) {
            self.flushed.write(offset, &bytes);
        }
        self.flushes += 1;
        self.capture(true, true);
    }

    /// Is called before and after (`done`) a write or flush.
    fn capture(&mut self, flush: bool, done: bool) {
        let Some(trigger) = self.trigger.as_mut().filter(|it| it.done == done) else { return };
        match trigger.flushes {
            1.. if flush => trigger.flushes -= 1,
            0 if !flush => trigger.writes -= 1,
            _ => return,
        }
        if trigger.flushes == 0 && trigger.writes == 0 {
            let report = || fs::read(&trigger.report).unwrap();
            let before = report();
            let (flushed, cache) = (self.flushed.clone(), self.cache.clone());
            let after = report();
            self.captured = Some(Captured { flushed, cache, before, after });
            self.trigger = None;
        }
    }
}

/// What a power loss may leave: what was flushed, and some of what was written since.
fn lose_power(flushed: &Image, cache: &[(u64, Vec<u8>)], rng: &mut fastrand::Rng) -> Image {
    let mut left = flushed.clone();
    let first = rng.usize(..=cache.len());
    let share = *rng.choice(&[0.0, 0.1, 0.5, 0.9, 0.99, 1.0]).unwrap();
    match rng.u32(..3) {
        // The first ones.
        0 => cache[..first].iter().for_each(|(offset, bytes)| left.write(*offset, bytes)),
        // Whole ones.
        1 => {
            for (offset, bytes) in cache {
                if rng.f64() < share {
                    left.write(*offset, bytes);
                }
            }
        }
        // Any sectors.
        _ => {
            for (offset, bytes) in cache {
                for (number, sector) in (0..).zip(bytes.chunks(SECTOR)) {
                    if rng.f64() < share {
                        left.write(offset + number * SECTOR as u64, sector);
                    }
                }
            }
        }
    }
    left
}

/// A disk, as the file `disk` of a directory.
struct Drive {
    shared: Arc<Shared>,
    directory: PathBuf,
    session: Option<BackgroundSession>,
}

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    captured: Condvar,
}

impl Shared {
    fn capture(&self, trigger: Trigger, worker: &mut Worker) -> Captured {
        let mut disk = self.disk.lock();
        disk.trigger = Some(trigger);
        loop {
            if let Some(captured) = disk.captured.take() {
                return captured;
            }
            self.captured.wait_for(&mut disk, Duration::from_secs(1));
            assert!(worker.0.try_wait().unwrap().is_none(), "the working process has ended");
        }
    }
}

impl Drive {
    fn new(directory: PathBuf, image: Image) -> Drive {
        let file = directory.join("disk");
        fs::create_dir_all(&directory).unwrap();
        fs::write(&file, "").unwrap();
        let disk = Disk { flushed: image.clone(), current: image, ..Disk::default() };
        let shared = Arc::new(Shared { disk: Mutex::new(disk), ..Shared::default() });
        let session = fuser::spawn_mount(Server(shared.clone()), &file, &Config::default());
        let session = Some(session.expect("mounting needs root and /dev/fuse"));
        Drive { shared, directory, session }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("disk")
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Lazily, because the loop device may take a moment to let go of the file; FUSE stops serving
        // it when that has happened.
        let _ = command("umount").arg("--lazy").arg(self.file()).status();
        if !std::thread::panicking() {
            self.session.take().unwrap().join().unwrap();
        }
    }
}

/// Serves a disk. Mounted on a file, the file system has just that one.
struct Server(Arc<Shared>);

impl Filesystem for Server {
    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = FileAttr {
            ino,
            size: DISK_LEN,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        };
        reply.attr(&Duration::MAX, &attr);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Every write of the loop device is to arrive at once.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = u64::from(len).min(DISK_LEN.saturating_sub(offset));
        reply.data(&self.0.disk.lock().current.read(offset, len as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.0.disk.lock().write(offset, bytes);
        self.0.captured.notify_all();
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.disk.lock().flush();
        self.0.captured.notify_all();
        reply.ok();
    }
}

/// A command that is found where only root looks for it, too.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed (this test needs root, loop devices and FUSE): {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A file system on a drive, mounted while this lives.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(drive: &Drive, options: &str) -> Mounted {
        let at = drive.directory.join("mount");
        fs::create_dir_all(&at).unwrap();
        run(command("mount").args(["-o", options]).arg(drive.file()).arg(&at));
        Mounted { at }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = command("umount").arg("--lazy").arg(&self.at).status();
        } else {
            run(command("umount").arg(&self.at));
        }
    }
}

/// The report of the working process: records of a byte that says what it is, and a number.
struct Report(fs::File);

/// An operation begins, and so many have begun by now.
const OPERATION: u8 = b'o';
/// A flush begins, and so many operations had returned.
const FLUSH: u8 = b'f';
/// A flush has returned, and so many operations have begun by now.
const FLUSHED: u8 = b'F';

const RECORD_LEN: usize = 9;

impl Report {
    fn write(&self, what: u8, operations: u64) {
        let mut record = [what; RECORD_LEN];
        record[1..].copy_from_slice(&operations.to_le_bytes());
        (&self.0).write_all(&record).unwrap();
    }
}

/// What a report says.
#[derive(Default)]
struct Reported {
    /// Operations that have begun.
    operations: u64,
    /// For each flush, how many operations it had to contain at least, and at most if it returned.
    flushes: Vec<(u64, Option<u64>)>,
}

impl Reported {
    fn read(report: &[u8]) -> Reported {
        let mut reported = Reported::default();
        for record in report.chunks_exact(RECORD_LEN) {
            let number = u64::from_le_bytes(record[1..].try_into().unwrap());
            match record[0] {
                OPERATION => reported.operations = number,
                FLUSH => reported.flushes.push((number, None)),
                FLUSHED => reported.flushes.last_mut().unwrap().1 = Some(number),
                other => panic!("the report has a {other}"),
            }
        }
        reported
    }

    fn completed(&self) -> usize {
        self.flushes.iter().filter(|flush| flush.1.is_some()).count()
    }
}

/// The process that works with the database until it is killed: one thread runs the program, another
/// one flushes.
fn work(directory: &Path, seed: u64) {
    let report = fs::OpenOptions::new().append(true).open(directory.join("report")).unwrap();
    let report = Report(report);
    let mut rng = fastrand::Rng::with_seed(!seed);
    let mut program = Program::new(seed, "");
    let (begun, returned) = (AtomicU64::new(0), AtomicU64::new(0));
    loop {
        let options = Options {
            guarded: rng.bool(),
            // Punches often.
            reclaim_threshold: 64 << 10,
            ..Options::default()
        };
        let db = Database::open_with(directory.join("mount/db"), &options).unwrap();
        let stop = AtomicBool::new(false);
        let mut pauses = rng.fork();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(pauses.u64(..20_000)));
                    report.write(FLUSH, returned.load(Ordering::SeqCst));
                    let mut flushed = false;
                    let mut completed = || {
                        if !std::mem::replace(&mut flushed, true) {
                            report.write(FLUSHED, begun.load(Ordering::SeqCst));
                        }
                    };
                    if pauses.u32(..8) == 0 {
                        // Flushes first, and then it gives space back.
                        let mut progress = |_, _| {
                            completed();
                            true
                        };
                        db.compact_with(&mut progress).unwrap();
                    } else {
                        db.flush().unwrap();
                    }
                    completed();
                }
            });
            for _ in 0..rng.u32(..2000) {
                begun.store(program.done + 1, Ordering::SeqCst);
                report.write(OPERATION, program.done + 1);
                program.step().run(&db).unwrap();
                returned.store(program.done, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(rng.u64(..300)));
            }
            stop.store(true, Ordering::Relaxed);
        });
        report.write(FLUSH, program.done);
        db.close().unwrap();
        report.write(FLUSHED, program.done);
    }
}

/// The names and bytes of all regions.
type Contents = BTreeMap<String, Vec<u8>>;

fn store_contents(db: &Database, path: &Path) {
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    for (name, info) in db.list().unwrap() {
        let view = db.region(&name).unwrap().view(0, u64::MAX).unwrap();
        assert_eq!(view.len() as u64, info.len);
        for bytes in [name.as_bytes(), &view] {
            file.write_all(&(bytes.len() as u64).to_le_bytes()).unwrap();
            file.write_all(bytes).unwrap();
        }
    }
    file.flush().unwrap();
}

fn load_contents(path: &Path) -> Contents {
    let stored = fs::read(path).unwrap();
    let mut rest = &stored[..];
    let mut next = || {
        let (len, behind) = rest.split_first_chunk()?;
        let (bytes, behind) = behind.split_at(u64::from_le_bytes(*len) as usize);
        rest = behind;
        Some(bytes.to_vec())
    };
    let mut contents = Contents::new();
    while let Some(name) = next() {
        contents.insert(String::from_utf8(name).unwrap(), next().unwrap());
    }
    contents
}

/// The process that looks at the database after a power loss: stores what it finds, goes on working
/// with it, stores what it has flushed, and dies.
fn examine(directory: &Path, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let options = Options { guarded: rng.bool(), ..Options::default() };
    let db = Database::open_with(directory.join("mount/db"), &options).unwrap();
    store_contents(&db, &directory.join("found"));
    db.create_region_if_needed("after").unwrap().write(&[1; 5000]).unwrap();
    let (name, _) = db.list().unwrap().swap_remove(0);
    db.remove(&name).unwrap();
    let region = db.create_region_if_needed("after all").unwrap();
    region.write(&vec![2; rng.usize(..100_000)]).unwrap();
    db.flush().unwrap();
    store_contents(&db, &directory.join("flushed"));
    region.write(&[3; 5000]).unwrap();
    db.create_region_if_needed("not flushed").unwrap();
    std::process::exit(0);
}

/// What has been found after a power loss, and what could be there.
struct Outcome<'a> {
    found: Contents,
    /// As it was at the beginning of the last completed flush.
    base: &'a Program,
    /// How many operations the flushes in question may contain.
    flushes: &'a [RangeInclusive<u64>],
    operations: u64,
}

impl Outcome<'_> {
    /// The numbers of operations after which the database may have been flushed as it was found.
    fn states(&self) -> Vec<u64> {
        let mut program = self.base.clone();
        let mut stores = Vec::new();
        while program.done < self.operations {
            if let Operation::Write(write) = program.step() {
                stores.push((program.done, write));
            }
        }
        let mut program = self.base.clone();
        let mut states = Vec::new();
        loop {
            let later = stores.partition_point(|&(number, _)| number <= program.done);
            if self.flushes.iter().any(|flush| flush.contains(&program.done))
                && self.agrees(&program, &stores[later..])
            {
                states.push(program.done);
            }
            if program.done >= self.operations {
                return states;
            }
            program.step();
        }
    }

    fn agrees(&self, program: &Program, later: &[(u64, Stores)]) -> bool {
        let lengths = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), bytes.len());
        let regions = program.regions.iter();
        regions
            .clone()
            .map(|(name, it)| (name, &it.bytes))
            .map(lengths)
            .eq(self.found.iter().map(lengths))
            && regions.clone().all(|(name, region)| region.may_become(&self.found[name], later))
    }
}

/// How to make and mount a file system.
struct Kind {
    test: &'static str,
    mkfs: &'static [&'static str],
    /// For a copy of a file system that is mounted as well.
    mount: &'static str,
}

/// Kills the working process when the test is over.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Kind {
    /// This program once more, for the same test.
    fn process(&self, role: &str, directory: &Path, seed: u64) -> Command {
        let mut process = command(std::env::current_exe().unwrap());
        process.args(["--exact", self.test, "--nocapture", "--quiet"]);
        process.env(ROLE, role).env(DIRECTORY, directory).env(SEED, seed.to_string());
        process.stdout(Stdio::null());
        process
    }

    /// Has the database on a disk examined, and loses power again. Returns what was found, what was
    /// flushed then, and what the disk is left with.
    fn examine(
        &self,
        directory: &Path,
        image: Image,
        system: &System,
        rng: &mut fastrand::Rng,
    ) -> (Contents, Contents, Image) {
        system.restart(rng);
        let drive = Drive::new(directory.to_owned(), image);
        let _mounted = Mounted::new(&drive, self.mount);
        let status = self.process("examine", directory, rng.u64(..)).status().unwrap();
        assert!(status.success(), "after a power loss: {status}");
        let disk = drive.shared.disk.lock();
        let left = lose_power(&disk.flushed, &disk.cache, rng);
        drop(disk);
        let contents = |name| load_contents(&directory.join(name));
        (contents("found"), contents("flushed"), left)
    }

    fn lose_power(&self, directory: &Path, seed: u64) {
        let snapshots =
            std::env::var("RAWDB_SNAPSHOTS").map_or(6, |number| number.parse::<u64>().unwrap());
        let mut rng = fastrand::Rng::with_seed(seed);
        let system = System::new(directory);
        let drive = Drive::new(directory.join("main"), Image::default());
        run(command(self.mkfs[0]).args(&self.mkfs[1..]).arg(drive.file()));
        drive.shared.disk.lock().flush();
        let mounted = Mounted::new(&drive, "loop");
        let report = drive.directory.join("report");
        fs::write(&report, "").unwrap();
        let program_seed = rng.u64(..);
        let worker = self.process("work", &drive.directory, program_seed).spawn().unwrap();
        let mut worker = Worker(worker);

        let mut base = Program::new(program_seed, "");
        let (mut inside, mut earlier) = (0, 0);
        for number in 1..=snapshots {
            let (flushes, writes) = match rng.u32(..4) {
                0 => (0, rng.u32(1..300)),
                1 => (rng.u32(1..10), rng.u32(1..8)),
                _ => (rng.u32(1..10), 0),
            };
            let trigger = Trigger { flushes, writes, done: rng.bool(), report: report.clone() };
            let captured = drive.shared.capture(trigger, &mut worker);
            let reported = Reported::read(&captured.before);
            let after = Reported::read(&captured.after);
            let completed = reported.completed();
            let mut flushes = vec![0..=0];
            if let Some((first, Some(last))) =
                completed.checked_sub(1).map(|it| reported.flushes[it])
            {
                flushes = vec![first..=last];
            }
            for (first, last) in &after.flushes[completed..] {
                flushes.push(*first..=last.unwrap_or(after.operations));
            }
            while base.done < *flushes[0].start() {
                base.step();
            }
            let in_progress = reported.flushes.len() > completed;
            inside += u64::from(in_progress);

            let left = lose_power(&captured.flushed, &captured.cache, &mut rng);
            let second = directory.join("second");
            let (found, flushed, left) = self.examine(&second, left, &system, &mut rng);
            let outcome =
                Outcome { found, base: &base, flushes: &flushes, operations: after.operations };
            let states = outcome.states();
            assert!(
                !states.is_empty(),
                "power loss {number}, flush in progress: {in_progress}; none of the flushes after \
                 {flushes:?} operations left {:?}",
                outcome.found.iter().map(|(name, it)| (name, it.len())).collect::<Vec<_>>()
            );
            earlier += u64::from(in_progress && states.iter().all(|it| flushes[0].contains(it)));
            let (found, ..) = self.examine(&second, left, &system, &mut rng);
            assert!(found == flushed, "what was flushed after power loss {number} is there");
        }
        let flushes = drive.shared.disk.lock().flushes;
        drop(worker);
        drop(mounted);
        println!(
            "{}: the power went {snapshots} times, {inside} of them in a flush, of which {earlier} \
             left the database as it was before; {flushes} flushes of the disk",
            self.test
        );
    }

    fn test(&self) {
        let seed = seed::seed();
        if let Ok(role) = std::env::var(ROLE) {
            let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
            return match &role[..] {
                "work" => work(&directory, seed),
                "examine" => examine(&directory, seed),
                _ => {
                    // Ends when the test is killed.
                    std::thread::spawn(|| {
                        let _ = std::io::stdin().read(&mut [0]);
                        std::process::exit(1);
                    });
                    self.lose_power(&directory, seed)
                }
            };
        }
        let directory = tempfile::tempdir().unwrap();
        // In a mount namespace of its own nothing stays mounted, however this ends, and the loop
        // devices go with the mounts. It is the process `unshare` that unmounts last, because the
        // one that serves the disks cannot unmount what is on them while it dies.
        let process = self.process("serve", directory.path(), seed);
        let mut unshare = reboot::unshared(&process).stdin(Stdio::piped()).spawn().unwrap();
        let _stdin = unshare.stdin.take();
        let status = unshare.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.test);
    }
}
#[test]
fn ext4() {
    Kind { test: "ext4", mkfs: &["mkfs.ext4", "-q", "-F", "-b", "4096"], mount: "loop" }.test();
}

#[test]
fn ext4_small_blocks() {
    Kind {
        test: "ext4_small_blocks",
        mkfs: &["mkfs.ext4", "-q", "-F", "-b", "1024"],
        mount: "loop",
    }
    .test();
}

#[test]
fn xfs() {
    Kind { test: "xfs", mkfs: &["mkfs.xfs", "-q", "-f"], mount: "loop,nouuid" }.test();
}

#[test]
fn btrfs() {
    Kind { test: "btrfs", mkfs: &["mkfs.btrfs", "-q", "-f"], mount: "loop" }.test();
}

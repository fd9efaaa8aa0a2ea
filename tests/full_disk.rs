//! A full disk is an error and never a signal, and a call that fails has changed nothing.
//!
//! Every case runs on small file systems of its own, in a child process, so that a signal fails
//! the case with its number. Mounting needs root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rawdb::{Database, Error, ErrorKind, Options, Region, Stats, View};
use tempfile::TempDir;

mod seed;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a child process is told by its environment: where, and with which writes.
const DISK: &str = "RAWDB_TEST_DISK";
const GUARDED: &str = "RAWDB_TEST_GUARDED";
/// What it is to fill, if that is all it does.
const FILL: &str = "RAWDB_TEST_FILL";

type Model = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ext4,
    /// With blocks smaller than a page.
    Ext4SmallBlocks,
    /// Which cannot allocate ahead.
    Ext3,
    Tmpfs,
    /// Which can share blocks between files, though it does not here.
    Xfs,
    /// Which needs fresh blocks to overwrite.
    Btrfs,
    /// In a directory whose files do without (`chattr +C`).
    BtrfsInPlace,
}

const KINDS: [Kind; 7] = [
    Kind::Ext4,
    Kind::Ext4SmallBlocks,
    Kind::Ext3,
    Kind::Tmpfs,
    Kind::Xfs,
    Kind::Btrfs,
    Kind::BtrfsInPlace,
];

/// A small file system, mounted while this lives.
struct Mounted {
    at: PathBuf,
    _dir: TempDir,
}

fn run(command: &mut Command) {
    // In a shell without them in its path, mkfs and mount are still there.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", path).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed (these tests need root, loop devices and mkfs of ext4, xfs and btrfs): {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Mounted {
    fn new(kind: Kind) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        let (at, image) = (dir.path().join("disk"), dir.path().join("image"));
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        if kind == Kind::Tmpfs {
            run(mount.args(["-t", "tmpfs", "-o", "size=28m", "none"]).arg(&at));
            return Mounted { at, _dir: dir };
        }
        // Less than about 110 MiB is too small for btrfs.
        let is_btrfs = matches!(kind, Kind::Btrfs | Kind::BtrfsInPlace);
        let len = if is_btrfs { 128 } else { 32 } * MIB as u64;
        fs::File::create(&image).unwrap().set_len(len).unwrap();
        let (program, args): (_, &[&str]) = match kind {
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096"]),
            Kind::Ext4SmallBlocks => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "1024"]),
            Kind::Ext3 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-t", "ext3"]),
            // Smaller than what xfs is for, which makes no difference here.
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f", "--unsupported"]),
            Kind::Btrfs | Kind::BtrfsInPlace => ("mkfs.btrfs", &["-q", "-f"]),
            Kind::Tmpfs => unreachable!(),
        };
        run(Command::new(program).args(args).arg(&image));
        run(mount.args(["-o", "loop"]).arg(&image).arg(&at));
        let mounted = Mounted { at, _dir: dir };
        if kind == Kind::BtrfsInPlace {
            run(Command::new("chattr").arg("+C").arg(&mounted.at));
        }
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that was killed may keep the mount busy for a moment; lazily it always works.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// Runs `case` on a fresh file system of each of `kinds`, with and without guarded writes.
fn on_disks(test: &str, kinds: &[Kind], case: fn(&Disk)) {
    if let Ok(path) = std::env::var(DISK) {
        let guarded = std::env::var(GUARDED).unwrap() == "true";
        let mut disk = Disk { path: path.into(), guarded, writes_guarded: guarded };
        disk.writes_guarded |= disk.guards_by_itself();
        case(&disk);
        return;
    }
    let mut failures = Vec::new();
    for &kind in kinds {
        for guarded in [false, true] {
            let mounted = Mounted::new(kind);
            let status = child(test)
                .env(DISK, &mounted.at)
                .env(GUARDED, guarded.to_string())
                .status()
                .unwrap();
            println!("{test} on {kind:?}, guarded {guarded}: {status}");
            if !status.success() {
                let signal = status.signal();
                failures.push(format!("{kind:?}, guarded {guarded}: {status} (signal {signal:?})"));
            }
        }
    }
    assert!(failures.is_empty(), "{test} failed on {failures:#?}");
}

/// This program once more, for one test.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1", "--quiet"]);
    command
}

/// The file system of a case, in the child.
struct Disk {
    path: PathBuf,
    /// Whether guarded writes are asked for.
    guarded: bool,
    /// Whether they are used.
    writes_guarded: bool,
}

impl Disk {
    fn options(&self) -> Options {
        Options { guarded: self.guarded, ..Options::default() }
    }

    fn db(&self) -> PathBuf {
        self.path.join("db")
    }

    fn open(&self) -> Database {
        Database::open_with(self.db(), &self.options()).unwrap()
    }

    fn is(&self, magic: i64) -> bool {
        let file = fs::File::open(&self.path).unwrap();
        // SAFETY: all-zero bytes are a valid `statfs`.
        let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a valid place for the result.
        assert_eq!(unsafe { libc::fstatfs(file.as_raw_fd(), &mut statfs) }, 0);
        statfs.f_type as i64 == magic
    }

    fn is_btrfs(&self) -> bool {
        self.is(0x9123_683E)
    }

    fn is_xfs(&self) -> bool {
        self.is(0x5846_5342)
    }

    fn is_tmpfs(&self) -> bool {
        self.is(0x0102_1994)
    }

    /// Whether an overwrite needs fresh blocks.
    fn copies_on_write(&self) -> bool {
        let file = fs::File::open(&self.path).unwrap();
        let mut flags: libc::c_long = 0;
        // SAFETY: an open descriptor and a valid place for the result.
        let known = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) };
        let in_place = known == 0 && flags & 0x0080_0000 != 0;
        self.is_btrfs() && !in_place
    }

    /// Whether blocks cannot be had ahead of the writes.
    fn guards_by_itself(&self) -> bool {
        let file = fs::File::create(self.path.join("asks")).unwrap();
        // SAFETY: a system call on an open descriptor.
        let refused = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 4096) } == -1
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP);
        refused || self.is_btrfs() || self.is_xfs()
    }

    fn sync(&self) {
        let file = fs::File::open(&self.path).unwrap();
        // SAFETY: a system call on an open descriptor.
        assert_eq!(unsafe { libc::syncfs(file.as_raw_fd()) }, 0);
    }

    fn free(&self) -> u64 {
        self.sync();
        free(&self.path)
    }

    /// What the files of the database take.
    fn taken(&self) -> u64 {
        let files = fs::read_dir(self.db()).into_iter().flatten();
        files.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
    }

    /// Fills the disk to the last block.
    fn fill(&self) {
        let open = fs::OpenOptions::new().append(true).create(true).open(self.path.join("filler"));
        // The disk may be too full for another file.
        let Ok(mut file) = open else { return };
        let bytes = vec![0xF1; MIB];
        // What is written back may turn out smaller than what was reserved for it.
        for _ in 0..3 {
            for len in [MIB, 64 * KIB, 4 * KIB, KIB] {
                while file.write_all(&bytes[..len]).is_ok() {}
            }
            let _ = file.sync_all();
            self.sync();
        }
    }

    /// Removes what fills the disk, if it is still there.
    fn make_room(&self) {
        let _ = fs::remove_file(self.path.join("filler"));
        self.sync();
    }

    /// Takes the filler's last bytes away.
    fn free_a_little(&self, bytes: u64) {
        let filler = fs::OpenOptions::new().write(true).open(self.path.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
        self.sync();
    }
}

/// As `df` has it.
fn free(path: &Path) -> u64 {
    let file = fs::File::open(path).unwrap();
    // SAFETY: all-zero bytes are a valid `statvfs`.
    let mut statvfs: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a valid place for the result.
    assert_eq!(unsafe { libc::fstatvfs(file.as_raw_fd(), &mut statvfs) }, 0);
    statvfs.f_bavail * statvfs.f_frsize
}

/// Another process fills the disk, so what is free says nothing.
static SHARED: AtomicBool = AtomicBool::new(false);

/// What was free on the disk of this case before a call, and what its files took.
struct Free {
    disk: Disk,
    free: u64,
    taken: u64,
}

impl Free {
    fn now() -> Free {
        let path = std::env::var(DISK).unwrap().into();
        let disk = Disk { path, guarded: false, writes_guarded: false };
        let (free, taken) = (free(&disk.path), disk.taken());
        Free { disk, free, taken }
    }

    /// A call that has failed has given back what it got.
    fn check_not_lost(&self, error: &Error) {
        if SHARED.load(Ordering::Relaxed) {
            return;
        }
        // What btrfs sets aside for a tree in the attempt is gone as well to `df`.
        let lost = || match self.disk.is_btrfs() {
            true => self.disk.taken().saturating_sub(self.taken),
            false => self.free.saturating_sub(free(&self.disk.path)),
        };
        if lost() > 64 * KIB as u64 {
            // Some free it a little later.
            self.disk.sync();
        }
        let lost = lost();
        assert!(lost <= 64 * KIB as u64, "{lost} of {} bytes are gone after {error}", self.free);
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// A database and what it should hold.
struct Both {
    db: Database,
    model: Model,
}

type Seen = (Vec<(String, u64)>, Stats);

impl Both {
    fn new(db: Database) -> Both {
        let mut both = Both { db, model: Model::new() };
        for (name, _) in both.db.list().unwrap() {
            let bytes = both.db.region(&name).unwrap().view(0, u64::MAX).unwrap().to_vec();
            both.model.insert(name, bytes);
        }
        both
    }

    fn region(&self, name: &str) -> Region {
        self.db.region(name).unwrap()
    }

    fn create(&mut self, name: &str) {
        self.db.create_region_if_needed(name).unwrap();
        self.model.entry(name.to_owned()).or_default();
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.region(name).write(bytes)?;
        self.model.get_mut(name).unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, name: &str, bytes: &[u8], offset: usize) -> Result<(), Error> {
        self.region(name).write_at(bytes, offset as u64)?;
        let model = self.model.get_mut(name).unwrap();
        model.resize(model.len().max(offset + bytes.len()), 0);
        model[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        self.db.remove(name).unwrap();
        self.model.remove(name);
    }

    /// Everything that a failed call leaves as it was. Address space in the sparse file is not part
    /// of it: it takes nothing from anybody.
    fn seen(&self) -> Seen {
        let mut stats = self.db.stats().unwrap();
        (stats.disk_bytes, stats.file_len) = (0, 0);
        (stats.free_bytes, stats.reserved_bytes) = (0, 0);
        (stats.pending_bytes, stats.pinned_bytes) = (0, 0);
        let list = self.db.list().unwrap();
        (list.into_iter().map(|(name, info)| (name, info.len)).collect(), stats)
    }

    fn check(&self) {
        let list = self.db.list().unwrap();
        let names: Vec<&String> = list.iter().map(|(name, _)| name).collect();
        assert_eq!(names, self.model.keys().collect::<Vec<_>>());
        for (name, bytes) in &self.model {
            let view = self.region(name).view(0, u64::MAX).unwrap();
            assert!(*view == bytes[..], "the bytes of {name}");
        }
    }

    /// Runs what may meet the full disk: it succeeds, or fails with `NoSpace` and has changed
    /// nothing. Says whether it succeeded.
    fn attempt(&mut self, call: impl FnOnce(&mut Both) -> Result<(), Error>) -> bool {
        let (before, free) = (self.seen(), Free::now());
        match call(self) {
            Ok(()) => true,
            Err(error) => {
                free.check_not_lost(&error);
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(
                    matches!(error.os_error(), Some(libc::ENOSPC | libc::EDQUOT)),
                    "{error:?} has the system's reason"
                );
                let now = self.seen();
                for (then, now) in before.0.iter().zip(&now.0) {
                    assert_eq!(now, then, "after {error}");
                }
                assert_eq!(now.1, before.1, "after {error}");
                self.check();
                false
            }
        }
    }

    /// On a copy-on-write file system an overwrite of several pages may fail between them, and what
    /// was written before cannot be put back, because that takes space as well.
    fn overwrite_on_btrfs(&mut self, name: &str, bytes: &[u8], at: usize) -> bool {
        let free = Free::now();
        let Err(error) = self.write_at(name, bytes, at) else { return true };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        free.check_not_lost(&error);
        let old = self.model[name].clone();
        let mut new = old.clone();
        new.resize(old.len().max(at + bytes.len()), 0);
        new[at..at + bytes.len()].copy_from_slice(bytes);
        let found = self.region(name).view(0, u64::MAX).unwrap().to_vec();
        assert_eq!(found.len(), old.len());
        for (number, page) in found.chunks(4096).enumerate() {
            let range = number * 4096..number * 4096 + page.len();
            assert!(*page == old[range.clone()] || *page == new[range], "page {number} is torn");
        }
        self.model.insert(name.to_owned(), found);
        self.check();
        false
    }

    /// The same for any call that overwrites bytes of a region.
    fn overwrite_torn(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut Both) -> Result<(), Error>,
    ) -> bool {
        let (before, free) = (self.seen(), Free::now());
        let Err(error) = call(self) else { return true };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        free.check_not_lost(&error);
        assert_eq!(self.seen(), before);
        let found = self.region(name).view(0, u64::MAX).unwrap().to_vec();
        self.model.insert(name.to_owned(), found);
        self.check();
        false
    }

    fn must_fail(&mut self, call: impl FnOnce(&mut Both) -> Result<(), Error>) {
        assert!(!self.attempt(call), "there was space");
    }

    /// Flushes. Where overwriting takes space, that may be refused, and then nothing is lost.
    fn flush(&self, disk: &Disk) {
        if let Err(error) = self.db.flush() {
            assert!(disk.is_btrfs(), "{error}");
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            self.check();
            disk.make_room();
            self.db.flush().unwrap();
        }
    }

    fn reopen(self, disk: &Disk) -> Both {
        let model = self.model;
        self.db.close().unwrap();
        let both = Both { db: disk.open(), model };
        both.check();
        both
    }
}

/// A view and what it showed at first.
struct Held(View, Vec<u8>);

impl Held {
    fn of(region: &Region) -> Held {
        let view = region.view(0, u64::MAX).unwrap();
        let bytes = view.to_vec();
        Held(view, bytes)
    }

    fn check(&self) {
        assert!(*self.0 == self.1[..], "a view has changed");
    }
}

#[test]
fn appends_small() {
    on_disks("appends_small", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        let names: Vec<String> = (0..40).map(|number| format!("region {number}")).collect();
        for (number, name) in names.iter().enumerate() {
            both.create(name);
            both.append(name, &noise(100 * number + 1, number as u64)).unwrap();
        }
        both.db.flush().unwrap();
        let views: Vec<Held> = names.iter().map(|name| Held::of(&both.region(name))).collect();
        // All but a little, which the appends are to use up. It is not the filler's end that gets free
        // for them: on btrfs that can be a part of a large extent, which is freed as a whole.
        let spare = disk.path.join("spare");
        fs::write(&spare, noise(MIB, 0)).unwrap();
        disk.sync();
        disk.fill();
        fs::remove_file(&spare).unwrap();
        disk.sync();

        let (mut failed, mut succeeded) = (0, 0);
        for round in 0.. {
            let name = &names[round % names.len()];
            let bytes = noise(300, round as u64);
            let before = both.region(name).len();
            match both.append(name, &bytes) {
                Ok(()) => succeeded += 1,
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    assert_eq!(both.region(name).len(), before);
                }
            }
            if failed == 400 {
                break;
            }
        }
        println!("{succeeded} appends succeeded, {failed} failed");
        assert!(succeeded > 500);
        both.check();
        for name in &names {
            let bytes = noise(5000, 1);
            both.attempt(|both| both.append(name, &bytes));
        }
        views.iter().for_each(Held::check);
        drop(views);

        // The space of what is removed can be used after a flush.
        for name in &names[..20] {
            both.remove(name);
        }
        both.flush(disk);
        for name in &names[20..] {
            let bytes = noise(1000, 2);
            // On btrfs a part of an extent becomes free with the rest of it.
            assert!(both.attempt(|both| both.append(name, &bytes)) || disk.is_btrfs());
        }
        both.check();
        let mut both = both.reopen(disk);
        disk.make_room();
        both.append(&names[30], &noise(MIB, 3)).unwrap();
        both.reopen(disk);
    });
}

#[test]
fn appends_large() {
    on_disks("appends_large", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        both.create("a");
        both.create("b");
        let piece = noise(700 * KIB, 1);
        while both.attempt(|both| both.append("a", &piece)) {
            assert!(both.region("a").len() < (200 * MIB) as u64, "the disk is small");
        }
        let view = Held::of(&both.region("a"));
        both.flush(disk);
        disk.fill();

        // What a failed call got before it failed, it gives back.
        let small = if disk.is_btrfs() { MIB } else { 256 * KIB } as u64;
        let huge = noise(160 * MIB, 2);
        type Call<'a> = &'a dyn Fn(&mut Both) -> Result<(), Error>;
        let calls: [(&str, Call); 5] = [
            ("append", &|both| both.append("a", &huge)),
            ("append to an empty region", &|both| both.append("b", &huge)),
            ("write_at", &|both| {
                let end = both.region("a").len() as usize;
                both.write_at("a", &huge, end - 10)
            }),
            ("truncate_write", &|both| both.region("a").truncate_write(5, &huge)),
            ("append_begin and end", &|both| {
                let mut buffer = both.region("a").append_begin(huge.len())?;
                buffer.copy_from_slice(&huge);
                buffer.end(huge.len()).map(drop)
            }),
        ];
        for (name, call) in calls {
            let free = disk.free();
            both.must_fail(call);
            let lost = free.saturating_sub(disk.free());
            assert!(lost <= small, "{name}: {lost} bytes of {free} are gone");
            view.check();
        }
        if !disk.writes_guarded {
            let free = disk.free();
            both.must_fail(|both| both.region("b").reserve(huge.len() as u64));
            assert!(free.saturating_sub(disk.free()) <= small);
        }
        drop(view);
        both.check();
        both.remove("a");
        both.flush(disk);
        both.create("c");
        for _ in 0..5 {
            both.append("c", &piece).unwrap();
        }
        both.check();
        both.reopen(disk);
    });
}

#[test]
fn creates() {
    on_disks("creates", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        both.create("first");
        both.append("first", &noise(10_000, 1)).unwrap();
        both.db.flush().unwrap();
        // The disk has space for a part of that, which is not to be kept.
        both.must_fail(|both| both.db.reserve_regions(100_000));
        disk.fill();
        let mut created = 0;
        while both.attempt(|both| {
            let name = format!("region {created}");
            both.db.create_region_if_needed(&name)?;
            both.model.insert(name, Vec::new());
            Ok(())
        }) {
            created += 1;
            assert!(created < 10_000, "a slot takes space");
        }
        println!("{created} regions created on a full disk");
        both.must_fail(|both| both.db.reserve_regions(100_000));
        // What has a slot can be flushed.
        both.flush(disk);
        disk.make_room();
        both.create("after");
        both.append("after", &noise(10_000, 2)).unwrap();
        let mut both = both.reopen(disk);
        both.create("later");
        both.reopen(disk);
    });
}

#[test]
fn flushes() {
    on_disks("flushes", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        for number in 0..30 {
            let name = format!("region {number}");
            both.create(&name);
            both.append(&name, &noise(3000 * number, number as u64)).unwrap();
        }
        both.db.flush().unwrap();
        for number in 0..30 {
            let name = format!("region {number}");
            both.append(&name, &noise(900, number as u64)).unwrap();
            if number % 5 == 0 {
                both.remove(&name);
            }
        }
        disk.fill();
        // Everything that a flush needs is there beforehand.
        both.flush(disk);
        both.check();
        disk.make_room();
        both.db.flush().unwrap();
        both.append("region 1", &noise(900, 1)).unwrap();
        disk.fill();
        both.check();
        disk.make_room();
        both.reopen(disk);
    });
}

#[test]
fn overwrites_after_compaction() {
    on_disks("overwrites_after_compaction", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        both.create("a");
        both.append("a", &noise(4 * MIB, 1)).unwrap();
        both.db.flush().unwrap();
        both.region("a").truncate(100_000).unwrap();
        both.model.get_mut("a").unwrap().truncate(100_000);
        both.db.compact().unwrap();
        disk.fill();
        both.attempt(|both| both.write_at("a", &noise(100_000, 2), 0));
        let more = noise(2 * MIB, 3);
        both.must_fail(|both| both.append("a", &more));
        both.must_fail(|both| both.write_at("a", &more, 50_000));
        both.must_fail(|both| both.region("a").truncate_write(50_000, &more));
        // On a full disk, too, compaction only gives back.
        both.db.compact().unwrap();
        both.check();
        disk.make_room();
        both.append("a", &more).unwrap();
        both.reopen(disk);
    });
}

/// An append that does not fit the region's place, and has no other to go to.
#[test]
fn moves() {
    on_disks("moves", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        for number in 0..20 {
            let name = format!("region {number}");
            both.create(&name);
            both.append(&name, &noise(20_000, number)).unwrap();
        }
        both.db.flush().unwrap();
        let views: Vec<Held> =
            (0..20).map(|number| Held::of(&both.region(&format!("region {number}")))).collect();
        disk.fill();
        // Some may find room next to others.
        let mut failed = 0;
        for number in 0..20 {
            let name = format!("region {number}");
            let reserved = both.region(&name).info().unwrap().reserved as usize;
            let more = noise(reserved + 500_000, 1);
            failed += u32::from(!both.attempt(|both| both.append(&name, &more)));
        }
        println!("{failed} of 20 moves failed");
        assert!(failed > 10);
        views.iter().for_each(Held::check);
        disk.make_room();
        for number in 0..20 {
            both.append(&format!("region {number}"), &noise(100_000, 2)).unwrap();
        }
        views.iter().for_each(Held::check);
        drop(views);
        both.reopen(disk);
    });
}

/// Overwriting viewed bytes takes a copy of the region.
#[test]
fn copies_on_write() {
    on_disks("copies_on_write", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        both.create("a");
        both.append("a", &noise(3_000_000, 1)).unwrap();
        both.db.flush().unwrap();
        disk.fill();
        let view = Held::of(&both.region("a"));
        let bytes = noise(5000, 2);
        both.must_fail(|both| both.write_at("a", &bytes, 10));
        both.must_fail(|both| both.region("a").write_batch(&[7, 100_000], &bytes[..800], 400));
        both.must_fail(|both| both.region("a").truncate_write(2_000_000, &bytes));
        both.must_fail(|both| both.write_at("a", &bytes, 2_999_999));
        view.check();
        drop(view);
        let in_place = both.attempt(|both| both.write_at("a", &bytes, 10));
        assert!(in_place || disk.copies_on_write());
        let view = Held::of(&both.region("a"));
        disk.make_room();
        both.write_at("a", &bytes, 200_000).unwrap();
        view.check();
        drop(view);
        both.reopen(disk);
    });
}

/// A copy made by a tool that leaves out blocks of zeros has holes where a region has bytes.
#[test]
fn sparse_copies() {
    on_disks("sparse_copies", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        for number in 0..8 {
            let name = format!("region {number}");
            both.create(&name);
            let zeros = vec![0; 200_000 + number];
            both.append(&name, &zeros).unwrap();
            both.append(&name, b"the end").unwrap();
        }
        both.create("punched");
        both.append("punched", &noise(300_000, 1)).unwrap();
        let start = both.region("punched").info().unwrap().start;
        let mut model = both.model.clone();
        both.db.close().unwrap();
        let copy = disk.path.join("copy");
        run(Command::new("cp").args(["-r", "--sparse=always"]).arg(disk.db()).arg(&copy));
        let data = fs::OpenOptions::new().write(true).open(copy.join("data")).unwrap();
        let (mode, at) = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 16 * 4096);
        // SAFETY: a system call on an open descriptor.
        let punched =
            unsafe { libc::fallocate(data.as_raw_fd(), mode, start as i64 + at as i64, 8 * 4096) };
        if punched == 0 {
            model.get_mut("punched").unwrap()[at..at + 8 * 4096].fill(0);
        }
        disk.fill();

        // On tmpfs even a load from a hole takes a page.
        if disk.is_tmpfs() {
            // There is space for the holes of one region, which an open that fails gives back.
            disk.free_a_little(300 * KIB as u64);
            let free = Free::now();
            let error = Database::open_with(&copy, &disk.options()).unwrap_err();
            free.check_not_lost(&error);
            disk.fill();
        }
        let read_only = Options { read_only: true, ..Options::default() };
        match Database::open_with(&copy, &read_only) {
            Ok(db) => Both { db, model: model.clone() }.check(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(disk.is_tmpfs());
                disk.make_room();
                Both { db: Database::open_with(&copy, &read_only).unwrap(), model: model.clone() }
                    .check();
                disk.fill();
            }
        }
        let db = match Database::open_with(&copy, &disk.options()) {
            Ok(db) => db,
            // Opening for writing writes to the table, which may have holes as well.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                disk.make_room();
                let db = Database::open_with(&copy, &disk.options()).unwrap();
                disk.fill();
                db
            }
        };
        let mut both = Both { db, model };
        both.check();
        let mut failed = 0;
        for number in 0..8 {
            let name = format!("region {number}");
            let bytes = noise(70_000, number as u64);
            failed += i32::from(!both.attempt(|both| both.write_at(&name, &bytes, 100_000)));
            failed += i32::from(!both.attempt(|both| both.append(&name, &bytes)));
            failed += i32::from(!both.attempt(|both| {
                let region = both.region(&name);
                region.write_batch(&[0, 50_000], &bytes[..2000], 1000)?;
                let model = both.model.get_mut(&name).unwrap();
                model[..1000].copy_from_slice(&bytes[..1000]);
                model[50_000..51_000].copy_from_slice(&bytes[1000..2000]);
                Ok(())
            }));
        }
        println!("{failed} of 24 writes failed");
        assert!(failed > 0);
        both.check();
        disk.make_room();
        for number in 0..8 {
            both.write_at(&format!("region {number}"), &noise(70_000, number), 100_000).unwrap();
        }
        both.db.flush().unwrap();
        both.check();
    });
}

/// Regions whose blocks lie between holes. The kernel keeps such a file in the page cache in large
/// pieces, blocks and holes together, the more so after another program has read all of it.
fn store_between_holes(disk: &Disk, read_by_others: bool) {
    let mut both = Both::new(disk.open());
    let names: Vec<String> = (0..400).map(|number| format!("region {number}")).collect();
    for (number, name) in names.iter().enumerate() {
        both.create(name);
        both.append(name, &noise(1000, number as u64)).unwrap();
    }
    let Both { db, model } = both;
    db.close().unwrap();
    let data = fs::File::open(disk.db().join("data")).unwrap();
    disk.sync();
    // What nobody has mapped leaves the page cache.
    // SAFETY: a system call on an open descriptor.
    unsafe { libc::posix_fadvise(data.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let mut both = Both { db: disk.open(), model };
    for name in &names {
        both.region(name).reserve(2000).unwrap();
    }
    if read_by_others {
        assert!(std::io::copy(&mut &data, &mut std::io::sink()).unwrap() > 0);
    }
    disk.fill();
    let (mut succeeded, mut round) = (0, 0u64);
    for name in &names {
        round += 1;
        let bytes = noise(200, round);
        succeeded += u32::from(both.attempt(|both| both.append(name, &bytes)));
        succeeded += u32::from(both.attempt(|both| both.write_at(name, &bytes, 17)));
    }
    println!("{succeeded} of 800 writes succeeded");
    assert!(disk.writes_guarded || succeeded == 800, "all of them have their blocks");
    both.check();
    both.flush(disk);
    disk.make_room();
    both.reopen(disk);
}

#[test]
fn stores_between_holes() {
    on_disks("stores_between_holes", &KINDS, |disk| store_between_holes(disk, false));
}

#[test]
fn stores_between_holes_that_others_have_read() {
    on_disks("stores_between_holes_that_others_have_read", &KINDS, |disk| {
        store_between_holes(disk, true)
    });
}

/// Fills the disk and frees some of it, again and again, as long as the parent process lives.
fn keep_filling(path: &str) {
    let parent = std::os::unix::process::parent_id();
    let mut rng = fastrand::Rng::new();
    let open = fs::OpenOptions::new().append(true).create(true).open(path);
    let mut file = open.unwrap();
    while std::os::unix::process::parent_id() == parent {
        for len in [64 * KIB, KIB] {
            while file.write_all(&vec![0xF2; len]).is_ok() {}
        }
        std::thread::sleep(Duration::from_millis(rng.u64(..20)));
        file.set_len(rng.u64(..=file.metadata().unwrap().len())).unwrap();
        std::thread::sleep(Duration::from_millis(rng.u64(..20)));
    }
}

/// A process that keeps filling the disk.
struct Filler(Child);

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Anything in any order on a disk that is mostly full, read by others now and then so that the
/// page cache holds it in large pieces. `RAWDB_SEED` repeats a run.
#[test]
fn random_programs() {
    on_disks("random_programs", &KINDS, |disk| {
        let both = random_program(disk, Both::new(disk.open()), 600, false);
        disk.make_room();
        both.reopen(disk);
    });
}

/// The same on a disk that another process fills.
#[test]
fn random_programs_on_a_shared_disk() {
    let name = "random_programs_on_a_shared_disk";
    if let Ok(path) = std::env::var(FILL) {
        return keep_filling(&path);
    }
    on_disks(name, &KINDS, |disk| {
        SHARED.store(true, Ordering::Relaxed);
        let both = Both::new(disk.open());
        let path = disk.path.join("other");
        let filler = child("random_programs_on_a_shared_disk").env(FILL, &path).spawn();
        let filler = Filler(filler.unwrap());
        let both = random_program(disk, both, 500, true);
        drop(filler);
        fs::remove_file(path).unwrap();
        disk.sync();
        both.reopen(disk);
    });
}

/// Runs so many operations, on a disk that another process fills if it is `shared`.
fn random_program(disk: &Disk, mut both: Both, operations: u32, shared: bool) -> Both {
    let seed = seed::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let copies_on_write = disk.copies_on_write();
    let mut views: Vec<Held> = Vec::new();
    let (mut succeeded, mut failed) = (0, 0);
    for _ in 0..operations {
        let name = format!("region {}", rng.u32(..30));
        let live = both.model.contains_key(&name);
        let len = match rng.u32(..10) {
            0..=5 => rng.usize(1..3000),
            6..=8 => rng.usize(1..100_000),
            _ => rng.usize(1..2 * MIB),
        };
        let call: Option<bool> = match rng.u32(..100) {
            0..=39 if live => {
                let bytes = noise(len, rng.u64(..));
                Some(both.attempt(|both| both.append(&name, &bytes)))
            }
            40..=59 if live => {
                let bytes = noise(len, rng.u64(..));
                let at = rng.usize(..=both.model[&name].len());
                Some(if copies_on_write {
                    both.overwrite_on_btrfs(&name, &bytes, at)
                } else {
                    both.attempt(|both| both.write_at(&name, &bytes, at))
                })
            }
            60..=64 if live => {
                let to = rng.usize(..=both.model[&name].len());
                both.region(&name).truncate(to as u64).unwrap();
                both.model.get_mut(&name).unwrap().truncate(to);
                None
            }
            65..=69 if live => {
                both.remove(&name);
                None
            }
            0..=69 => Some(both.attempt(|both| {
                both.db.create_region_if_needed(&name)?;
                both.model.insert(name, Vec::new());
                Ok(())
            })),
            70..=79 => {
                if live {
                    views.push(Held::of(&both.region(&name)));
                }
                if views.len() > 8 {
                    views.swap_remove(rng.usize(..views.len())).check();
                }
                None
            }
            80..=86 => {
                let flushed = both.db.flush();
                let refused = |error: &Error| error.kind() == ErrorKind::NoSpace;
                assert!(flushed.is_ok() || disk.is_btrfs() && refused(&flushed.unwrap_err()));
                None
            }
            87..=88 => {
                if let Err(error) = both.db.compact() {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                }
                None
            }
            89..=91 => {
                let data = fs::File::open(disk.db().join("data")).unwrap();
                let advice = libc::POSIX_FADV_DONTNEED;
                // SAFETY: a system call on an open descriptor.
                unsafe { libc::posix_fadvise(data.as_raw_fd(), 0, 0, advice) };
                std::io::copy(&mut &data, &mut std::io::sink()).unwrap();
                None
            }
            // The other process fills, and a database may not open or close on a full disk.
            92.. if shared => None,
            92..=96 => {
                disk.fill();
                None
            }
            97..=98 => {
                if disk.path.join("filler").exists() {
                    disk.free_a_little(rng.u64(..4 * MIB as u64));
                }
                None
            }
            _ => {
                views.drain(..).for_each(|view| view.check());
                disk.make_room();
                both = both.reopen(disk);
                None
            }
        };
        succeeded += u32::from(call == Some(true));
        failed += u32::from(call == Some(false));
    }
    println!("{succeeded} calls succeeded, {failed} found no space");
    views.iter().for_each(Held::check);
    drop(views);
    both.check();
    both
}

/// What may need space, one thing after the other: on a full disk it is done or has changed nothing,
/// and afterwards, with space, it is done.
#[test]
fn stages() {
    on_disks("stages", &KINDS, |disk| run_stages(disk, false));
}

/// With a copy beside it that shares its blocks, so that every overwrite needs fresh ones.
#[test]
fn stages_with_a_copy_that_shares_blocks() {
    let kinds = [Kind::Xfs, Kind::Btrfs, Kind::BtrfsInPlace];
    on_disks("stages_with_a_copy_that_shares_blocks", &kinds, |disk| run_stages(disk, true));
}

fn run_stages(disk: &Disk, shared: bool) {
    type Call = fn(&mut Both) -> Result<(), Error>;
    /// Whether it overwrites `large`.
    struct Stage(&'static str, bool, Call);
    const STAGES: [Stage; 15] = [
        Stage("create a region", false, |both| {
            both.db.create_region_if_needed("new")?;
            both.model.entry("new".to_owned()).or_default();
            Ok(())
        }),
        Stage("reserve slots", false, |both| both.db.reserve_regions(300)),
        Stage("append a little", false, |both| both.append("small", &noise(300, 2))),
        Stage("move", false, |both| both.append("small", &noise(600 * KIB, 3))),
        Stage("append much", false, |both| both.append("large", &noise(3 * MIB, 4))),
        Stage("append after a punch", false, |both| both.append("cut", &noise(3 * MIB, 5))),
        Stage("append in place", false, |both| {
            let bytes = noise(MIB, 6);
            let mut buffer = both.region("cut").append_begin(bytes.len())?;
            buffer.copy_from_slice(&bytes);
            buffer.end(bytes.len())?;
            both.model.get_mut("cut").unwrap().extend_from_slice(&bytes);
            Ok(())
        }),
        Stage("overwrite a page", true, |both| both.write_at("large", &noise(300, 7), 40_000)),
        Stage("overwrite", true, |both| both.write_at("large", &noise(200_000, 8), 50_001)),
        Stage("overwrite across the end", true, |both| {
            both.write_at("large", &noise(9000, 9), both.model["large"].len() - 4500)
        }),
        Stage("write a batch", true, |both| {
            let (offsets, bytes) = ([7, 100_000, 1_000_000], noise(3 * 5000, 10));
            both.region("large").write_batch(&offsets, &bytes, 5000)?;
            let model = both.model.get_mut("large").unwrap();
            for (value, at) in bytes.chunks(5000).zip(offsets.map(|offset| offset as usize)) {
                model[at..at + 5000].copy_from_slice(value);
            }
            Ok(())
        }),
        Stage("truncate and write", true, |both| {
            let bytes = noise(MIB, 11);
            both.region("large").truncate_write(500_000, &bytes)?;
            let model = both.model.get_mut("large").unwrap();
            model.truncate(500_000);
            model.extend_from_slice(&bytes);
            Ok(())
        }),
        Stage("reserve", false, |both| both.region("small").reserve(4 * MIB as u64)),
        Stage("flush", false, |both| both.db.flush()),
        Stage("compact", false, |both| both.db.compact()),
    ];
    let mut both = Both::new(disk.open());
    for (name, len) in [("small", 3000), ("large", MIB), ("cut", 3 * MIB)] {
        both.create(name);
        both.append(name, &noise(len, 1)).unwrap();
    }
    both.db.flush().unwrap();
    both.region("cut").truncate(100_000).unwrap();
    both.model.get_mut("cut").unwrap().truncate(100_000);
    both.db.compact().unwrap();
    if shared {
        let Both { db, model } = both;
        db.close().unwrap();
        let copy = disk.path.join("copy");
        // Not always: a file of btrfs that is overwritten in place shares with no other kind.
        run(Command::new("cp").args(["-r", "--reflink=auto"]).arg(disk.db()).arg(copy));
        both = Both { db: disk.open(), model };
    }

    let mut failed = Vec::new();
    for Stage(name, overwrites, call) in STAGES {
        for viewed in [true, false] {
            let names: Vec<String> = both.model.keys().cloned().collect();
            let held = |name: &String| Held::of(&both.region(name));
            let views: Vec<Held> = names.iter().filter(|_| viewed).map(held).collect();
            disk.fill();
            let done = if overwrites && (shared || disk.copies_on_write()) {
                both.overwrite_torn("large", call)
            } else {
                both.attempt(call)
            };
            if !done {
                failed.push(if viewed { format!("{name}, viewed") } else { name.to_owned() });
            }
            views.iter().for_each(Held::check);
        }
        disk.make_room();
        call(&mut both).unwrap_or_else(|error| panic!("{name} with space: {error}"));
        both.check();
    }
    println!("no space: {failed:?}");
    assert!(failed.iter().any(|name| name.starts_with("append much")), "the disk was full");
    both.reopen(disk);
}

/// What a flush has made durable can be closed and opened on a full disk.
#[test]
fn closes_and_opens() {
    on_disks("closes_and_opens", &KINDS, |disk| {
        let mut both = Both::new(disk.open());
        for number in 0..10 {
            let name = format!("region {number}");
            both.create(&name);
            both.append(&name, &noise(1000 << number, number)).unwrap();
        }
        both.db.flush().unwrap();
        let flushed = both.model.clone();
        both.append("region 1", &noise(100, 20)).unwrap();
        both.remove("region 2");
        disk.fill();
        let Both { db, mut model } = both;
        if let Err(error) = db.close() {
            assert!(disk.is_btrfs(), "{error}");
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            model = flushed;
        }
        let read_only = Options { read_only: true, ..Options::default() };
        let db = Database::open_with(disk.db(), &read_only).unwrap();
        Both { db, model: model.clone() }.check();
        match Database::open_with(disk.db(), &disk.options()) {
            Ok(db) => Both { db, model: model.clone() }.check(),
            // It takes another file, and xfs needs space to make an inode.
            Err(error) => {
                assert!(disk.is_btrfs() || disk.is_xfs(), "{error}");
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            }
        }
        disk.make_room();
        let both = Both { db: disk.open(), model };
        both.check();
        both.reopen(disk);
    });
}

#[test]
fn creates_databases() {
    on_disks("creates_databases", &KINDS, |disk| {
        for kib in (0..200u64).step_by(20) {
            disk.fill();
            disk.free_a_little(kib << 10);
            let new = disk.path.join(format!("new {kib}"));
            match Database::open_with(&new, &disk.options()) {
                Ok(db) => assert!(db.list().unwrap().is_empty()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
            }
            // Whatever was left of a failed attempt, it does not matter when there is room.
            disk.make_room();
            let db = Database::open_with(&new, &disk.options()).unwrap();
            let mut both = Both::new(db);
            assert!(both.model.is_empty());
            both.create("a");
            both.append("a", b"bytes").unwrap();
            let model = both.model.clone();
            both.db.close().unwrap();
            let db = Database::open_with(&new, &disk.options()).unwrap();
            Both { db, model }.check();
        }
    });
}

/// How `data` is mapped: where an overwrite may need space it is not writable, without anyone
/// having asked for that.
#[test]
fn chooses_guarded_writes() {
    on_disks("chooses_guarded_writes", &KINDS, |disk| {
        let db = disk.open();
        db.create_region_if_needed("a").unwrap().write(b"bytes").unwrap();
        let data = disk.db().join("data");
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        // Beyond the file there is no access at all.
        let mappings: Vec<&str> = maps
            .lines()
            .filter(|line| line.ends_with(data.to_str().unwrap()) && !line.contains(" ---s "))
            .collect();
        assert!(!mappings.is_empty(), "{maps}");
        for mapping in mappings {
            let rights = mapping.split_whitespace().nth(1).unwrap();
            assert_eq!(rights, if disk.writes_guarded { "r--s" } else { "rw-s" }, "{mapping}");
        }
    });
}

/// Runs `case` in a child process of its own, with an empty directory.
fn in_child(test: &str, case: fn(&Path)) {
    if let Ok(path) = std::env::var(DISK) {
        return case(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let status = child(test).env(DISK, dir.path()).status().unwrap();
    assert!(status.success(), "{test}: {status}");
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the result.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limit) }, 0);
    limit.rlim_cur = bytes;
    // SAFETY: a valid argument.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

#[test]
fn file_size_limit() {
    in_child("file_size_limit", |dir| {
        for guarded in [false, true] {
            let options = Options { guarded, ..Options::default() };
            let path = dir.join(format!("guarded {guarded}"));
            limit(libc::RLIMIT_FSIZE, 4 * MIB as u64);
            let mut both = Both::new(Database::open_with(&path, &options).unwrap());
            both.create("a");
            let bytes = noise(100_000, 1);
            let error = loop {
                let before = both.seen();
                if let Err(error) = both.append("a", &bytes) {
                    assert_eq!(both.seen(), before);
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            assert_eq!(error.os_error(), Some(libc::EFBIG));
            assert!(both.region("a").len() > 500_000, "the limit is used");
            let error = both.region("a").reserve(8 * MIB as u64).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            let error = both.db.reserve_file(8 * MIB as u64).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            let error = both.db.reserve_regions(10_000).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            both.check();
            both.write_at("a", b"in place", 1000).unwrap();
            both.db.flush().unwrap();
            both.check();

            // A file that is longer than the limit already can be read, and perhaps written.
            limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
            both.append("a", &noise(6 * MIB, 2)).unwrap();
            both.create("behind");
            both.append("behind", &noise(6 * MIB, 3)).unwrap();
            let Both { db, mut model } = both;
            db.close().unwrap();
            limit(libc::RLIMIT_FSIZE, 4 * MIB as u64);
            match Database::open_with(&path, &options) {
                Ok(db) => {
                    let mut both = Both { db, model };
                    both.check();
                    // It can be shortened, if not so far.
                    both.remove("behind");
                    both.db.compact().unwrap();
                    let error = both.append("a", &bytes).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
                    both.check();
                    both.db.close().unwrap();
                    model = both.model;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
            }
            let read_only = Options { read_only: true, ..Options::default() };
            let db = Database::open_with(&path, &read_only).unwrap();
            Both { db, model: model.clone() }.check();
            limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
            Both { db: Database::open_with(&path, &options).unwrap(), model }.check();
        }
    });
}

#[test]
fn address_space_limit() {
    in_child("address_space_limit", |dir| {
        limit(libc::RLIMIT_AS, 8_000_000 * KIB as u64);
        let mut both = Both::new(Database::open(dir.join("db")).unwrap());
        both.create("a");
        for number in 0..20 {
            both.append("a", &noise(3 * MIB, number)).unwrap();
        }
        both.check();
        let model = both.model.clone();
        both.db.close().unwrap();
        Both { db: Database::open(dir.join("db")).unwrap(), model }.check();
    });
}

//! Power loss on a simulated disk: after any crash the database opens as it stood at the last
//! completed flush, or at one that was in progress.
//!
//! `RAWDB_SEED` repeats a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rawdb::storage::simulation::{Fault, Simulation, Snapshot, SECTOR};
use rawdb::storage::Storage;
use rawdb::{Database, ErrorKind, Options};

const PROGRAMS: u64 = 300;
const STEPS: u64 = 60;
const CRASHES_PER_SNAPSHOT: u64 = 4;

/// A region's bytes, and what may stand in their place after a crash.
#[derive(Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// What lies in the file: a truncation leaves it there.
    raw: Vec<u8>,
    /// Every value that a sector of `raw` has had since the last flush.
    earlier: BTreeMap<usize, Vec<Vec<u8>>>,
}

type Model = BTreeMap<String, Contents>;

fn seed() -> u64 {
    let seed =
        std::env::var("RAWDB_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    println!("RAWDB_SEED={seed}");
    seed
}

fn open(disk: &Arc<Simulation>) -> rawdb::Result<Database> {
    // A threshold of one page brings punching into every flush.
    let options = Options { reclaim_threshold: 4096, ..Options::default() };
    Database::open_storage(disk.clone() as Arc<dyn Storage>, &options)
}

impl Contents {
    fn write(&mut self, offset: usize, data: &[u8], new_len: usize) {
        let end = offset + data.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(data);
        self.bytes.truncate(new_len);
        self.raw.resize(self.raw.len().max(end), 0);
        self.raw[offset..end].copy_from_slice(data);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let end = ((sector + 1) * SECTOR).min(self.raw.len());
            let value = self.raw[sector * SECTOR..end].to_vec();
            self.earlier.entry(sector).or_default().push(value);
        }
    }

    /// Whether a crash may leave `found` where this was flushed and `later` written since: below
    /// the flushed length, each sector is one of the values that it has had.
    fn may_become(&self, found: &[u8], later: &[Contents]) -> bool {
        found.len() == self.bytes.len()
            && found.chunks(SECTOR).enumerate().all(|(number, sector)| {
                let values = later.iter().flat_map(|it| it.earlier.get(&number)).flatten();
                sector == &self.bytes[number * SECTOR..number * SECTOR + sector.len()]
                    || values.into_iter().any(|value| value.starts_with(sector))
            })
    }
}

struct Program {
    rng: fastrand::Rng,
    /// The model as it was at the last completed flush.
    flushed: Model,
    now: Model,
    /// What has been removed since: a crash may bring it back, as it was overwritten until then.
    removed: Vec<Contents>,
}

impl Program {
    fn name(&mut self) -> String {
        let number = self.rng.usize(..6);
        // The name of one region makes its entry cross a sector.
        if number == 0 {
            "long ".repeat(150)
        } else {
            format!("r{number}")
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let len = if self.rng.u32(..10) == 0 {
            self.rng.usize(..40_000)
        } else {
            self.rng.usize(..1_500)
        };
        let mut data = vec![self.rng.u8(1..); len];
        data.iter_mut().step_by(97).for_each(|byte| *byte = self.rng.u8(1..));
        data
    }

    /// Everything that has been written to since the last flush.
    fn later(&self) -> Vec<Contents> {
        self.now.values().chain(&self.removed).cloned().collect()
    }

    /// Runs one operation on the database and the model. Says whether it was a flush.
    fn step(&mut self, db: &Database) -> bool {
        match self.rng.u32(..100) {
            0..=8 => {
                db.flush().unwrap();
                self.flush_completed();
                true
            }
            9..=11 => {
                // Regions change while their tails are being punched.
                let mut flushed = false;
                db.compact_with(&mut |_, _| {
                    if !std::mem::replace(&mut flushed, true) {
                        self.flush_completed();
                    }
                    self.change(db);
                    true
                })
                .unwrap();
                true
            }
            _ => {
                self.change(db);
                false
            }
        }
    }

    fn flush_completed(&mut self) {
        self.now.values_mut().for_each(|contents| contents.earlier.clear());
        self.flushed = self.now.clone();
        self.removed.clear();
    }

    fn change(&mut self, db: &Database) {
        let name = self.name();
        let region = db.region(&name).ok();
        match (self.rng.u32(12..100), region) {
            (12..=17, Some(_)) => {
                db.remove(&name).unwrap();
                self.removed.extend(self.now.remove(&name));
            }
            (18..=25, Some(_)) => {
                let to = self.name();
                db.rename(&name, &to, true).unwrap();
                let contents = self.now.remove(&name).unwrap();
                self.removed.extend(self.now.insert(to, contents));
            }
            (26..=35, Some(region)) => {
                let contents = self.now.get_mut(&name).unwrap();
                let len = self.rng.usize(..=contents.bytes.len());
                region.truncate(len as u64).unwrap();
                contents.bytes.truncate(len);
            }
            (36..=55, Some(region)) => {
                let data = self.data();
                let contents = self.now.get_mut(&name).unwrap();
                let offset = self.rng.usize(..=contents.bytes.len());
                // A view makes the region move.
                let view = self.rng.bool().then(|| region.view(0, u64::MAX).unwrap());
                if self.rng.bool() {
                    region.write_at(&data, offset as u64).unwrap();
                    let len = contents.bytes.len().max(offset + data.len());
                    contents.write(offset, &data, len);
                } else {
                    region.truncate_write(offset as u64, &data).unwrap();
                    contents.write(offset, &data, offset + data.len());
                }
                drop(view);
            }
            (_, Some(region)) => {
                let data = self.data();
                let offset = region.write(&data).unwrap() as usize;
                self.now.get_mut(&name).unwrap().write(offset, &data, offset + data.len());
            }
            (_, None) => {
                db.create_region_if_needed(&name).unwrap();
                self.now.insert(name, Contents::default());
            }
        }
    }
}

/// Opens a crashed disk, which must hold one of the `flushed` states, and returns the database.
fn recover(disk: &Arc<Simulation>, flushed: &[&Model], later: &[Contents]) -> Database {
    let db = open(disk).unwrap_or_else(|error| panic!("after a crash: {error}"));
    let found = contents(&db);
    let agrees = flushed.iter().any(|flushed| {
        found.keys().eq(flushed.keys())
            && found.iter().all(|(name, bytes)| flushed[name].may_become(bytes, later))
    });
    if !agrees {
        let found: Vec<_> = found.iter().map(|(name, bytes)| (name, bytes.len())).collect();
        let flushed: Vec<Vec<_>> = flushed
            .iter()
            .map(|model| model.iter().map(|(name, it)| (name, it.bytes.len())).collect())
            .collect();
        panic!("found {found:?}, flushed {flushed:?}");
    }
    let stats = db.stats().unwrap();
    let sum = 4096 + stats.reserved_bytes + stats.free_bytes;
    assert_eq!(sum, stats.file_len, "regions and holes make up the file: {stats:?}");
    db
}

/// Works with a recovered database, crashes it again, and looks whether that flush was kept.
fn use_after_recovery(disk: &Arc<Simulation>, db: Database, seed: u64) {
    let region = db.create_region_if_needed("after").unwrap();
    region.write(&[1; 5000]).unwrap();
    if let Some((name, _)) = db.list().unwrap().first() {
        db.remove(name).unwrap();
    }
    db.create_region_if_needed("after all").unwrap().write(&[2; 100]).unwrap();
    db.flush().unwrap();
    let names: Vec<_> = db.list().unwrap();
    let crashed = disk.snapshot().crash(seed);
    let again = open(&crashed).unwrap();
    let found = again.list().unwrap();
    let lengths = |list: &[(String, rawdb::RegionInfo)]| -> Vec<(String, u64)> {
        list.iter().map(|(name, info)| (name.clone(), info.len)).collect()
    };
    assert_eq!(lengths(&found), lengths(&names));
    assert!(again.region("after all").unwrap().view(0, u64::MAX).unwrap().iter().all(|&b| b == 2));
}

fn contents(db: &Database) -> BTreeMap<String, Vec<u8>> {
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

/// First only the process dies. What the next one finds is in the page cache, and perhaps nowhere
/// else; what that one does before its first flush must not cost any of it in a power loss.
fn restart_then_crash(snapshot: &Snapshot, flushed: &[&Model], later: &[Contents], seed: u64) {
    let disk = snapshot.restart();
    let db = recover(&disk, flushed, later);
    let found = contents(&db);
    for number in 0..6 {
        let region = db.create_region_if_needed(&format!("unflushed {number}")).unwrap();
        region.write(&[9; 9_000]).unwrap();
    }
    let db = open(&disk.snapshot().crash(seed)).unwrap();
    assert!(contents(&db) == found, "what an open found is durable");
}

#[test]
fn a_crash_at_any_call_leaves_a_flushed_state() {
    let seed = seed();
    let mut states = 0;
    for number in 0..PROGRAMS {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let mut program = Program {
            rng: rng.fork(),
            flushed: Model::new(),
            now: Model::new(),
            removed: Vec::new(),
        };
        let mut crash = |disk: &Simulation, flushed: &[&Model], later: &[Contents]| {
            let Some(snapshot) = disk.captured() else { return };
            for _ in 0..CRASHES_PER_SNAPSHOT {
                let crashed = snapshot.crash(rng.u64(..));
                let db = recover(&crashed, flushed, later);
                use_after_recovery(&crashed, db, rng.u64(..));
                states += 1;
            }
            restart_then_crash(&snapshot, flushed, later, rng.u64(..));
            disk.capture_at(rng.u64(..8));
        };
        let disk = Simulation::empty();
        disk.capture_at(program.rng.u64(..10));
        let db = open(&disk).unwrap();
        // As long as `open` has not returned there may be nothing, which opens as empty.
        crash(&disk, &[&Model::new()], &[]);
        for _ in 0..STEPS {
            let (flushed, then) = (program.flushed.clone(), program.now.clone());
            let mut later = program.later();
            let is_flush = program.step(&db);
            later.extend(program.later());
            let acceptable: &[&Model] = if is_flush { &[&flushed, &then] } else { &[&flushed] };
            crash(&disk, acceptable, &later);
        }
        let (flushed, then) = (program.flushed.clone(), program.now.clone());
        db.close().unwrap();
        crash(&disk, &[&flushed, &then], &program.later());
        assert!(disk.is_unlocked());
        recover(&disk, &[&then], &[]);
    }
    println!("{states} crashes");
    assert!(states > PROGRAMS * CRASHES_PER_SNAPSHOT);
}

/// P7: after a failed sync nothing is accepted any more, and what was flushed before is kept.
#[test]
fn a_failed_sync_is_final() {
    for call in 0..4 {
        let disk = Simulation::empty();
        let db = open(&disk).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(b"flushed").unwrap();
        db.flush().unwrap();
        region.write(b" and not").unwrap();
        disk.inject(Some(Fault { call, errno: libc::EIO, lasting: false }));
        let error = db.flush().unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(libc::EIO)), "{error}");
        let sync_failed = error.to_string().contains("sync");
        let again = db.flush();
        let view = region.view(0, u64::MAX).unwrap();
        assert_eq!(&*view, b"flushed and not", "reads go on");
        // Calls 0 and 3 are the syncs of the two files; 1 and 2 write an entry and a header.
        assert_eq!(sync_failed, call == 0 || call == 3, "{error}");
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
            assert_eq!(&*bytes, b"flushed and not");
        }
    }
}

/// P2 with threads: what one thread wrote first is never missing where what it wrote next is there.
#[test]
fn a_flush_is_one_moment_of_all_regions() {
    let seed = seed();
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
            disk.capture_at(rng.u64(..10));
            db.flush().unwrap();
            if let Some(snapshot) = disk.captured() {
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

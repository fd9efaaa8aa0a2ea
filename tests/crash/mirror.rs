//! When the mirror that a dead process has left is believed, and when not.

use std::collections::BTreeMap;
use std::sync::Arc;

use rawdb::storage::simulation::{Fault, Simulation, Snapshot, SECTOR};
use rawdb::storage::File;
use rawdb::{Database, ErrorKind, Options};

use crate::seed::seed;
use crate::{omit_a_step, open};

const PAGE: usize = 4096;

/// The names and bytes that are found.
fn found(disk: &Arc<Simulation>) -> BTreeMap<String, Vec<u8>> {
    let db = open(disk).unwrap();
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

fn names(disk: &Arc<Simulation>) -> Vec<String> {
    found(disk).into_keys().collect()
}

/// "flushed" is, and "not flushed" is not.
fn unflushed() -> Snapshot {
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    db.create_region_if_needed("flushed").unwrap().write(b"flushed").unwrap();
    db.flush().unwrap();
    db.create_region_if_needed("not flushed").unwrap().write(b"not flushed").unwrap();
    disk.snapshot()
}

#[test]
fn a_mirror_is_believed_by_writers_and_readers() {
    let disk = unflushed().restart();
    let options = Options { read_only: true, ..Options::default() };
    let before = disk.contents(File::Live);
    let db = Database::open_storage(disk.clone(), &options).unwrap();
    assert_eq!(&*db.region("not flushed").unwrap().view(0, u64::MAX).unwrap(), b"not flushed");
    drop(db);
    assert!(disk.contents(File::Live) == before, "reading changes nothing");
    assert_eq!(names(&disk), ["flushed", "not flushed"]);
}

#[test]
fn a_mirror_from_before_the_system_was_started_is_none() {
    omit_a_step();
    for seed in 0..50 {
        assert_eq!(names(&unflushed().crash(seed)), ["flushed"]);
    }
}

#[test]
fn a_mirror_of_other_files_is_none() {
    omit_a_step();
    assert_eq!(names(&unflushed().restart_as_copy()), ["flushed"]);
}

/// Nothing is lost where it cannot be decided, and nothing mixed up.
#[test]
fn a_mirror_of_a_disk_that_is_not_known_to_both_is_an_error() {
    for read_only in [false, true] {
        let disk = unflushed().restart_with_disk(1);
        let options = Options { read_only, ..Options::default() };
        let error = Database::open_storage(disk.clone(), &options).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("cannot tell whether"), "{error}");
        let disk = disk.snapshot().restart_with_disk(0);
        assert_eq!(names(&disk), ["flushed", "not flushed"]);
    }
}

/// Someone brings back an older `regions`.
#[test]
fn a_mirror_beside_another_table_is_none() {
    omit_a_step();
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(b"old").unwrap();
    db.flush().unwrap();
    let old = disk.snapshot();
    region.write(b" and new").unwrap();
    db.flush().unwrap();
    let mixed = disk.snapshot().restart_with_regions_of(&old);
    assert_eq!(found(&mixed)["a"], b"old");
}

/// Two histories with as many flushes, in which different slots have the same place.
#[test]
fn a_mirror_with_impossible_places_is_none() {
    omit_a_step();
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    db.create_region_if_needed("a").unwrap();
    db.flush().unwrap();
    let start = disk.snapshot();
    db.create_region_if_needed("b").unwrap().write(&[1; 5000]).unwrap();
    db.flush().unwrap();

    let other = start.restart();
    let db = open(&other).unwrap();
    db.create_region_if_needed("empty").unwrap();
    db.create_region_if_needed("c").unwrap().write(&[2; 5000]).unwrap();
    db.flush().unwrap();
    let mixed = disk.snapshot().restart_with_regions_of(&other.snapshot());
    assert_eq!(names(&mixed), ["a", "c", "empty"]);
}

/// A database that was closed has none, and needs none.
#[test]
fn a_closed_database_leaves_no_mirror() {
    let disk = unflushed().restart();
    open(&disk).unwrap().close().unwrap();
    let disk = disk.snapshot().restart_without_mirror();
    assert_eq!(names(&disk), ["flushed", "not flushed"]);
}

/// Where the halves of the cells begin.
fn halves(live: &[u8]) -> Vec<usize> {
    let (mut halves, mut at) = (Vec::new(), PAGE);
    while at < live.len() {
        let units = usize::from(live[at]);
        if units > 0 {
            halves.extend([at, at + 128 * units]);
        }
        at += 256 * units.max(1);
    }
    halves
}

/// Every bit of the mirror, one at a time: all of it is believed or nothing. Words that are changed
/// alone are covered by nothing: a length, which stays within the region's place, and the last change
/// that counts, which can make it an earlier moment.
#[test]
fn every_flipped_bit_of_a_mirror_spoils_all_of_it_or_nothing() {
    omit_a_step();
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    for name in ["stays", "removed", "renamed", "moved"] {
        db.create_region_if_needed(name).unwrap().write(name.as_bytes()).unwrap();
    }
    db.flush().unwrap();
    db.create_region_if_needed(&"new".repeat(200)).unwrap().write(b"new").unwrap();
    db.remove("removed").unwrap();
    db.rename("renamed", "other", false).unwrap();
    db.region("moved").unwrap().write(&[1; 20_000]).unwrap();
    let dead = disk.snapshot();
    let now = found(&dead.restart());
    let flushed = found(&dead.restart_without_mirror());
    assert!(now != flushed);

    let disk = dead.restart();
    let [mut data, regions, live] =
        [File::Data, File::Regions, File::Live].map(|file| disk.contents(file));
    data.truncate(1 << 19);
    let halves = halves(&live);
    let is_len = |at: usize| halves.iter().any(|start| (start + 16..start + 24).contains(&at));
    let is_last_change = |at: usize| (2056..2064).contains(&at);
    let (mut believed, mut ignored, mut other) = (0, 0, 0);
    let mut damaged = live.clone();
    for at in 0..live.len() {
        let sector = at / SECTOR * SECTOR;
        if live[sector..sector + SECTOR].iter().all(|&byte| byte == 0) {
            continue;
        }
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            let found = found(&Simulation::with_mirror(&data, &regions, &damaged));
            damaged[at] = live[at];
            if found == now {
                believed += 1;
            } else if found == flushed {
                ignored += 1;
            } else {
                assert!(is_len(at) || is_last_change(at), "byte {at}, bit {bit}");
                assert!(is_last_change(at) || found.keys().eq(now.keys()));
                other += 1;
            }
        }
    }
    println!("{believed} made no difference, {ignored} spoiled the mirror, {other} a word");
    assert!(believed > 1000 && ignored > 1000);
}

/// Names of all lengths, so that cells of all sizes are needed.
fn name_of(rng: &mut fastrand::Rng) -> String {
    let len = if rng.bool() { rng.usize(1..60) } else { rng.usize(1..=rawdb::MAX_NAME_LEN) };
    (0..len).map(|_| rng.alphanumeric()).collect()
}

/// Regions come, go, and change their names, in one process after the other, and the mirror has room
/// for them all the time.
#[test]
fn cells_are_used_again() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut disk = Simulation::empty();
    let mut db = open(&disk).unwrap();
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..3000 {
        let name = name_of(&mut rng);
        let other = model.keys().nth(rng.usize(..8)).cloned();
        match (rng.u32(..6), other) {
            (0..=1, Some(other)) => {
                db.rename(&other, &name, true).unwrap();
                let bytes = model.remove(&other).unwrap();
                model.insert(name, bytes);
            }
            (2, Some(other)) => {
                db.remove(&other).unwrap();
                model.remove(&other);
            }
            (3, Some(other)) => {
                db.rename(&other, &name, false).unwrap();
                db.remove(&name).unwrap();
                model.remove(&other);
            }
            _ if model.len() < 8 => {
                let bytes = [round as u8; 3].to_vec();
                db.create_region_if_needed(&name).unwrap().write(&bytes).unwrap();
                model.insert(name, bytes);
            }
            _ => db.flush().unwrap(),
        }
        if round % 16 == 0 {
            assert_eq!(found(&disk.snapshot().restart()), model);
        }
        if rng.u32(..64) == 0 {
            disk = disk.snapshot().restart();
            db = open(&disk).unwrap();
        }
        // Of each size there are cells for every slot at most. Twice as many slots as regions are in
        // use between two flushes, or some more.
        let len = disk.contents(File::Live).len();
        assert!(len <= 40 * 45 * 256, "{len} bytes in round {round}");
    }
}

/// What is done to a region that was there when the database was opened takes no room in the mirror,
/// however full the disk was then and whatever was created since.
#[test]
fn room_is_kept_for_the_regions_that_are_there() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let mut names: Vec<String> = (0..500).map(|_| name_of(&mut rng)).collect();
    names.sort();
    names.dedup();
    for name in &names {
        db.create_region_if_needed(name).unwrap().write(name.as_bytes()).unwrap();
    }
    db.close().unwrap();
    let closed = disk.snapshot();
    let open_on_full = |call| {
        let disk = closed.restart();
        disk.inject(Some(Fault { call, errno: libc::ENOSPC, partial: false, lasting: false }));
        (open(&disk), disk)
    };
    let full = (0..).find(|&call| {
        let (db, disk) = open_on_full(call);
        db.is_ok() && disk.failed_call() == Some("allocate")
    });
    for round in 0..12 {
        let (db, disk) = open_on_full(full.unwrap());
        let db = db.unwrap();
        for _ in 0..rng.usize(1..200) * (round % 3) {
            db.create_region_if_needed(&name_of(&mut rng)).unwrap();
        }
        let before = disk.contents(File::Live).len();
        rng.shuffle(&mut names);
        for name in &names {
            // A vacant slot takes less than its region would.
            match rng.usize(..4) < round % 4 {
                true => db.remove(name).unwrap(),
                false => db.region(name).unwrap().truncate(0).unwrap(),
            }
        }
        assert_eq!(disk.contents(File::Live).len(), before);
    }
}

/// What is too small for one slot is large enough for another.
#[test]
fn a_cell_that_was_too_small_is_used_again() {
    let disk = Simulation::empty();
    let db = open(&disk).unwrap();
    let lengths: Vec<usize> = (0..9).map(|units| (40 + 128 * units).min(1024)).collect();
    let name = |len: usize, letter: &str| letter.repeat(len);
    db.create_region_if_needed(&name(lengths[0], "a")).unwrap();
    for pair in lengths.windows(2) {
        db.rename(&name(pair[0], "a"), &name(pair[1], "a"), false).unwrap();
    }
    let cells = || halves(&disk.contents(File::Live)).len() / 2;
    assert_eq!(cells(), 9);
    for len in &lengths[..8] {
        db.create_region_if_needed(&name(*len, "b")).unwrap();
    }
    assert_eq!(cells(), 9);
    assert_eq!(found(&disk.snapshot().restart()).len(), 9);
}

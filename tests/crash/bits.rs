//! Every bit of the table and of the identity, one at a time: an open finds what was there, or says
//! which page is damaged.

use std::collections::BTreeMap;

use rawdb::storage::simulation::{Simulation, SECTOR};
use rawdb::storage::File;
use rawdb::{Database, ErrorKind, Options};

const PAGE: usize = 4096;

fn contents(db: &Database) -> BTreeMap<String, Vec<u8>> {
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

/// Regions that have come, grown and gone in several flushes. A closed database may have names of
/// any length. In one that is open, damage to a long one looks like what a crash leaves.
fn database(closed: bool) -> (Vec<u8>, Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let disk = Simulation::empty();
    let db = Database::open_storage(disk.clone(), &Options::default()).unwrap();
    let names = ["a", "b", "c", "d"].map(|it| it.repeat(if closed { 300 } else { 3 }));
    for round in 0..4 {
        for (number, name) in names.iter().enumerate() {
            let region = db.create_region_if_needed(name).unwrap();
            region.write(&vec![round; 100 * number]).unwrap();
        }
        db.flush().unwrap();
        db.remove(&names[round as usize]).unwrap();
        if round % 2 == 0 {
            db.flush().unwrap();
        }
    }
    db.flush().unwrap();
    let found = contents(&db);
    if closed {
        db.close().unwrap();
    } else {
        std::mem::forget(db);
    }
    // The rest of the file is sparse, and many copies are made of it.
    let mut data = disk.contents(File::Data);
    data.truncate(1 << 18);
    (data, disk.contents(File::Regions), found)
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    crate::omit_a_step();
    for closed in [true, false] {
        let (data, regions, whole) = database(closed);
        let mut noticed = 0;
        let mut check = |data: &[u8], regions: &[u8], page: &str| {
            let disk = Simulation::with_files(data, regions);
            match Database::open_storage(disk, &Options::default()) {
                Ok(db) => assert!(contents(&db) == whole, "{page}: another table"),
                Err(error) => {
                    let kinds = [ErrorKind::Corrupt, ErrorKind::Incompatible];
                    assert!(kinds.contains(&error.kind()), "{page}: {error}");
                    assert!(error.to_string().contains(page), "{page}: {error}");
                    noticed += 1;
                }
            }
        };
        check(&data, &regions, "nothing is damaged");
        let mut damaged = regions.clone();
        for at in 0..regions.len() {
            // What is written of a page is its first sectors.
            let sector = at / SECTOR * SECTOR;
            if regions[sector..sector + SECTOR].iter().all(|&byte| byte == 0) {
                continue;
            }
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                check(&data, &damaged, &format!("regions page {}", at / PAGE));
                damaged[at] = regions[at];
            }
        }
        let mut damaged = data.clone();
        for at in 0..PAGE {
            damaged[at] ^= 1;
            check(&damaged, &regions, "data page 0");
            damaged[at] = data[at];
        }
        println!("{noticed} noticed");
        assert!(noticed > 1000);
    }
}

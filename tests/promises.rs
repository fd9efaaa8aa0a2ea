//! The promises of `docs/design.md`, each by its number. Those that need more than one test have a
//! file of their own, named here.
//!
//! P2 and P7: `crash/`. P6: `full_disk.rs`. P8: `damage.rs`. P10: `src/ffi/tests.rs`, `abi.rs`. P11:
//! `crash/`, `process_death.rs`.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

use rawdb::storage::simulation::Simulation;
use rawdb::storage::File;
use rawdb::{Database, ErrorKind, Options, Region};

/// Both ways of writing.
fn both(test: impl Fn(&Path, Options)) {
    for guarded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path(), Options { guarded, ..Options::default() });
    }
}

fn all(region: &Region) -> Vec<u8> {
    region.view(0, u64::MAX).unwrap().to_vec()
}

#[test]
fn p1_a_write_is_visible_at_once() {
    both(|path, options| {
        let db = Database::open_with(path, &options).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        let other_handle = db.region("a").unwrap();
        let (to_reader, from_writer) = channel::<usize>();
        let (to_writer, from_reader) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for len in from_writer {
                    assert_eq!(other_handle.len(), len as u64);
                    assert_eq!(all(&other_handle), vec![len as u8; len]);
                    to_writer.send(()).unwrap();
                }
            });
            // Grows through several places, and is overwritten whole each time.
            for len in (1..200).map(|step: usize| step * 997) {
                region.truncate_write(0, &vec![len as u8; len]).unwrap();
                to_reader.send(len).unwrap();
                from_reader.recv().unwrap();
            }
            drop(to_reader);
        });
    });
}

#[test]
fn p3_a_view_is_stable_whatever_happens() {
    both(|path, options| {
        let db = Database::open_with(path, &options).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(&[1; 10_000]).unwrap();
        let view = region.view(100, 9_000).unwrap();
        let same = || assert!(view.iter().all(|&byte| byte == 1));

        region.write(&[2; 100_000]).unwrap(); // grows and moves
        same();
        region.write_at(&[3; 10_000], 0).unwrap();
        same();
        let second = region.view(0, 10_000).unwrap();
        region.write_batch(&[0, 5_000], &[4; 20], 10).unwrap();
        region.truncate_write(50, &[5; 10]).unwrap();
        region.truncate(0).unwrap();
        region.write(&[6; 20_000]).unwrap();
        let mut buffer = region.append_begin(30_000).unwrap();
        buffer.fill(7);
        buffer.end(30_000).unwrap();
        same();
        db.flush().unwrap();
        db.compact().unwrap();
        same();
        db.rename("a", "b", false).unwrap();
        region.remove().unwrap();
        // What takes the freed space must not land in viewed bytes.
        for number in 0..50 {
            let other = db.create_region_if_needed(&format!("other {number}")).unwrap();
            other.write(&[8; 20_000]).unwrap();
        }
        db.flush().unwrap();
        db.compact().unwrap();
        same();
        db.close().unwrap();
        same();
        assert!(second.iter().all(|&byte| byte == 3));
        assert_eq!(Database::open(path).unwrap_err().kind(), ErrorKind::Locked);
        drop(second);
        assert_eq!(Database::open(path).unwrap_err().kind(), ErrorKind::Locked);
        same();
        drop(view);
        Database::open(path).unwrap();
    });
}

#[test]
fn p4_nobody_waits_for_a_view_and_only_viewed_bytes_move() {
    both(|path, options| {
        let db = Database::open_with(path, &options).unwrap();
        let region = db.create_region_if_needed("a").unwrap();
        region.write(&[1; 30_000]).unwrap();
        db.flush().unwrap();
        let start = region.info().unwrap().start;
        let views = [region.view(1_000, 10).unwrap(), region.view(20_000, 10).unwrap()];
        // One thread holds the views and makes every call: a wait would be for ever.
        region.write_at(&[2; 500], 10_000).unwrap();
        region.write_at(&[2; 10], 990).unwrap();
        region.write_at(&[2; 10], 1_010).unwrap();
        assert_eq!(region.info().unwrap().start, start, "no viewed byte was written to");
        region.write_at(&[2; 1], 1_009).unwrap();
        assert_ne!(region.info().unwrap().start, start, "a viewed byte was written to");
        let stats = db.stats().unwrap();
        assert!(stats.pinned_bytes >= 30_000, "{stats:?}");
        let start = region.info().unwrap().start;
        region.write_at(&[3; 30_000], 0).unwrap();
        assert_eq!(region.info().unwrap().start, start, "the views are of the old place");
        drop(views);
        assert_eq!(db.stats().unwrap().pinned_bytes, 0);
        db.flush().unwrap();
        assert_eq!(db.stats().unwrap().pending_bytes, 0);
    });
}

/// P6: a buffer that was given out before a compaction can be stored to after it, and so can what
/// comes after the buffer. The simulated disk makes a fault of every store that could lack a block.
#[test]
fn p6_an_append_buffer_outlives_a_compaction() {
    let db = Database::open_storage(Simulation::empty(), &Options::default()).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    let neighbour = db.create_region_if_needed("b").unwrap();
    region.write(&[1; 20_000]).unwrap();
    neighbour.write(&[1; 3_000]).unwrap();
    let mut buffer = region.append_begin(10_000).unwrap();
    db.compact().unwrap();
    buffer.fill(2);
    neighbour.write(&[2; 3_000]).unwrap();
    db.compact().unwrap();
    buffer.fill(3);
    buffer.end(10_000).unwrap();
    region.write(&[4; 60_000]).unwrap();
    db.compact().unwrap();
    region.write_at(&[5; 100], 0).unwrap();
    region.write(&[6; 60_000]).unwrap();
    let bytes = all(&region);
    assert_eq!(
        (bytes[0], bytes[100], bytes[20_000], bytes[30_000], bytes[90_000]),
        (5, 1, 3, 4, 6)
    );
}

#[test]
fn p5_writers_do_not_wait_for_the_disk() {
    let (entered, syncs) = channel();
    let (allow, go_on) = channel();
    // Syncs wait until they are told to go on.
    let disk = Simulation::empty();
    disk.set_meanwhile(Some(Box::new(move |call, file| {
        if call == "sync" {
            entered.send(file).unwrap();
            let allowed = go_on.recv_timeout(Duration::from_secs(60));
            allowed.expect("a sync that the test does not expect");
        }
    })));
    (0..3).for_each(|_| allow.send(()).unwrap()); // creation, and settling on what it made
    let db = Database::open_storage(disk, &Options::default()).unwrap();
    let at_open: Vec<File> = syncs.iter().take(3).collect();
    assert_eq!(at_open, [File::Regions, File::Data, File::Regions]);
    let region = db.create_region_if_needed("a").unwrap();
    region.write(b"before").unwrap();
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| db.flush());
        for file in [File::Data, File::Regions] {
            assert_eq!(syncs.recv_timeout(Duration::from_secs(60)).unwrap(), file);
            // The flush stands in the sync, and this thread does everything else.
            region.write(b"x").unwrap();
            region.write_at(b"B", 0).unwrap();
            region.write(&[0; 100_000]).unwrap();
            region.truncate(7).unwrap();
            region.view(0, u64::MAX).unwrap();
            let other = db.create_region_if_needed("b").unwrap();
            other.write(b"new").unwrap();
            db.rename("b", "c", true).unwrap();
            db.remove("c").unwrap();
            db.stats().unwrap();
            db.list().unwrap();
            allow.send(()).unwrap();
        }
        flush.join().unwrap().unwrap();

        // Callers that come during a flush share the next one.
        region.write(b"y").unwrap();
        let mut callers = vec![scope.spawn(|| db.flush())];
        syncs.recv_timeout(Duration::from_secs(60)).unwrap();
        // More than an entry has room for.
        region.write(&[b'z'; 5000]).unwrap();
        callers.extend((0..8).map(|_| scope.spawn(|| db.flush())));
        // They have to have called before the first flush ends. There is no telling from outside
        // whether they have; a late one makes more syncs, and they are counted below.
        std::thread::sleep(Duration::from_millis(300));
        (0..4).for_each(|_| allow.send(()).unwrap());
        callers.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    });
    assert_eq!(syncs.try_iter().count(), 3, "one sync of the first flush, two of the shared one");
    (0..9).for_each(|_| allow.send(()).unwrap());
    db.close().unwrap();
}

/// A flush of a few appended bytes syncs one file, until they no longer fit the entry.
#[test]
fn p2_a_flush_of_little_is_one_sync() {
    const FLUSHES: usize = 200;
    let (synced, syncs) = channel();
    let disk = Simulation::empty();
    let db = Database::open_storage(disk.clone(), &Options::default()).unwrap();
    let region = db.create_region_if_needed("log").unwrap();
    region.write(&[0; 64]).unwrap();
    // A place that grows is another entry, and new blocks.
    region.reserve(1 << 16).unwrap();
    db.flush().unwrap();
    disk.set_meanwhile(Some(Box::new(move |call, file| {
        if call == "sync" {
            synced.send(file).unwrap();
        }
    })));
    for _ in 0..FLUSHES {
        region.write(&[1; 64]).unwrap();
        db.flush().unwrap();
    }
    let syncs: Vec<File> = syncs.try_iter().collect();
    let of_data = syncs.iter().filter(|&&file| file == File::Data).count();
    assert_eq!(syncs.len(), FLUSHES + of_data);
    // The entry's page has 4096 - 64 - 3 bytes for a tail, of which up to 511 are before the new ones.
    assert!((FLUSHES / 63..=FLUSHES / 54 + 1).contains(&of_data), "{of_data} syncs of data");
    let found = Database::open_storage(disk.snapshot().crash(1), &Options::default()).unwrap();
    assert_eq!(all(&found.region("log").unwrap()).len(), 64 * (1 + FLUSHES));
}

/// Opening costs the disk nothing for each region after a clean close, which has synced them all.
#[test]
fn p2_opening_settles_entries_unless_the_database_was_closed() {
    const REGIONS: u64 = 20;
    let written_by_opening = |disk: Arc<Simulation>| {
        let (written, pages) = channel();
        disk.set_meanwhile(Some(Box::new(move |call, file| {
            if (call, file) == ("write", File::Regions) {
                let _ = written.send(());
            }
        })));
        let db = Database::open_storage(disk.clone(), &Options::default()).unwrap();
        disk.set_meanwhile(None);
        (db, pages.iter().count() as u64)
    };
    let disk = Simulation::empty();
    let db = Database::open_storage(disk.clone(), &Options::default()).unwrap();
    for number in 0..REGIONS {
        db.create_region_if_needed(&number.to_string()).unwrap().write(b"x").unwrap();
    }
    db.close().unwrap();
    let (db, written) = written_by_opening(disk.snapshot().restart());
    assert_eq!(written, 1, "the header alone");
    db.close().unwrap();

    // Opened, and never closed.
    let disk = disk.snapshot().restart();
    let db = Database::open_storage(disk.clone(), &Options::default()).unwrap();
    let open = disk.snapshot();
    db.close().unwrap();
    let (db, written) = written_by_opening(open.restart());
    assert_eq!(written, REGIONS + 1, "the header and all entries");
    db.close().unwrap();
}

#[test]
fn p9_a_database_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let read_only = Options { read_only: true, ..Options::default() };
    let db = Database::open(dir.path()).unwrap();
    for options in [&Options::default(), &read_only] {
        let error = Database::open_with(dir.path(), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
    }
    let data = dir.path().join("data");
    let lock = |flag| Command::new("flock").args(["-n", flag]).arg(&data).arg("true").status();
    assert!(!lock("-s").unwrap().success(), "another process sees the lock");
    db.close().unwrap();

    let readers: Vec<_> =
        (0..3).map(|_| Database::open_with(dir.path(), &read_only).unwrap()).collect();
    assert_eq!(Database::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    assert!(lock("-s").unwrap().success());
    assert!(!lock("-x").unwrap().success());
    drop(readers);
    assert!(lock("-x").unwrap().success());
}

#[test]
fn p9_a_handle_refuses_to_work_after_a_fork() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    region.write(b"parent").unwrap();
    let view = region.view(0, u64::MAX).unwrap();
    // SAFETY: the child does nothing but calls that are made for it, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let kind = |error: rawdb::Error| error.kind() == ErrorKind::Forked;
        let refused = [
            region.write(b"child").is_err_and(kind),
            region.write_at(b"child", 0).is_err_and(kind),
            region.truncate(0).is_err_and(kind),
            region.view(0, 1).is_err_and(kind),
            region.flush().is_err_and(kind),
            db.flush().is_err_and(kind),
            db.remove("a").is_err_and(kind),
            db.create_region_if_needed("b").is_err_and(kind),
            db.list().is_err_and(kind),
            db.close().is_err_and(kind),
            *view == *b"parent",
        ];
        drop((region, view));
        let wrong = refused.iter().filter(|&&refused| !refused).count();
        // SAFETY: ends the child without running what belongs to the parent's test.
        unsafe { libc::_exit(wrong as i32) };
    }
    let mut status = 0;
    // SAFETY: waits for the child of this call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "in the child, so many calls went wrong: {}", status >> 8);
    assert_eq!(Database::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    region.write(b" goes on").unwrap();
    drop(view);
    db.close().unwrap();
    let db = Database::open(dir.path()).unwrap();
    assert_eq!(all(&db.region("a").unwrap()), b"parent goes on");
}

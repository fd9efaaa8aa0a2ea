//! The models themselves. Each ends with the accounts: every byte of `data` has one owner, the
//! files were let go once, no region is leaked.

use std::sync::Arc;

use super::THREADS_ALWAYS_MEET;
use super::{assert_freed, bytes, check, look, recovered, run, stored, thread, Thread, World};
use crate::region::Region;
use crate::{ErrorKind, Options};

/// Looks at all records of a region, which `allowed` judges; the region may be gone.
fn viewer(world: &World, region: &Region, allowed: fn(&[u64]) -> bool) -> Thread {
    let (memory, region) = (world.memory.clone(), region.clone());
    thread(move || match look(&memory, &region, 0, None) {
        Ok(view) => {
            assert!(allowed(&view.records), "{:?}", view.records);
            view.end();
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Removed | ErrorKind::Closed), "{error}");
        }
    })
}

/// Views have whole records, and an append stores where no view is.
#[test]
fn appends() {
    check("appends", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1]);
        let allowed = |records: &[u64]| [1, 2, 3].starts_with(records);
        let viewers = [(); 2].map(|()| viewer(&world, &region, allowed));
        let [one, other] = viewers;
        let appender = thread(move || {
            region.write(&bytes(&[2])).unwrap();
            region.write(&bytes(&[3])).unwrap();
        });
        run([appender, one, other]);
        world.finish();
    });
}

/// An overwrite is seen whole or not at all, and leaves views alone.
#[test]
fn overwrites() {
    check("overwrites", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1, 2]);
        let allowed = |records: &[u64]| [[1, 2], [8, 9]].contains(&records.try_into().unwrap());
        let viewers = [(); 2].map(|()| viewer(&world, &region, allowed));
        let [one, other] = viewers;
        let writer = thread(move || region.write_at(&bytes(&[8, 9]), 0).unwrap());
        run([writer, one, other]);
        world.finish();
    });
}

/// Bytes that are cut off while they are viewed are not appended over.
#[test]
fn truncations() {
    check("truncations", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1, 2]);
        let allowed = |records: &[u64]| [&[1, 2][..], &[1], &[1, 7]].contains(&records);
        let viewers = [(); 2].map(|()| viewer(&world, &region, allowed));
        let [one, other] = viewers;
        let writer = thread(move || {
            region.truncate(8).unwrap();
            region.write(&bytes(&[7])).unwrap();
        });
        run([writer, one, other]);
        world.finish();
    });
}

/// The place that a region leaves is free after its last view and after the flush, once.
#[test]
fn moves() {
    check("moves", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1, 2]);
        world.db.flush().unwrap();
        let view = world.look(&region, 0, None);
        let second = world.look(&region, 0, Some(1));
        let db = world.db.clone();
        let truncater = region.clone();
        run([
            thread(move || {
                view.end();
                second.end();
            }),
            thread(move || region.write_at(&bytes(&[9]), 0).unwrap()),
            thread(move || {
                truncater.truncate_write(8, &bytes(&[7])).unwrap();
                db.flush().unwrap();
            }),
        ]);
        world.finish();
    });
}

/// A removed region's bytes stay until its views are gone; no view is opened any more.
#[test]
fn removal() {
    check("removal", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1]);
        let view = world.look(&region, 0, None);
        let viewer = viewer(&world, &region, |records| records == [1]);
        let db = world.db.clone();
        let remover = thread(move || {
            region.remove().unwrap();
            // Its space is used again as soon as it is free.
            let other = db.create_region_if_needed("b").unwrap();
            other.write(&bytes(&[7])).unwrap();
        });
        run([thread(move || view.end()), remover, viewer]);
        world.finish();
    });
}

/// The files are let go by the last of the views and the closed database, and once.
#[test]
fn closing() {
    check("closing", 2, || {
        let mut world = World::new();
        let region = world.region("a", &[1]);
        let view = world.look(&region, 0, None);
        let viewer = viewer(&world, &region, |records| records == [1]);
        drop(region);
        let World { memory, db, regions } = world;
        let closer = thread(move || Arc::into_inner(db).unwrap().close().unwrap());
        run([thread(move || view.end()), closer, viewer]);
        assert_eq!(memory.unlocks(), 1);
        regions.iter().for_each(assert_freed);
    });
}

/// An append buffer keeps the files locked as well, and so does a flush of a region.
#[test]
fn closing_under_an_append() {
    check("closing under an append", 3, || {
        let mut world = World::new();
        let region = world.region("a", &[1]);
        let mut buffer = region.append_begin(8).unwrap();
        drop(region);
        let World { memory, db, regions } = world;
        let closer = thread(move || Arc::into_inner(db).unwrap().close().unwrap());
        let appender = thread(move || {
            stored(buffer.as_mut_ptr(), 8);
            buffer.copy_from_slice(&bytes(&[2]));
            if let Err(error) = buffer.end(8) {
                assert_eq!(error.kind(), ErrorKind::Closed);
            }
        });
        run([appender, closer]);
        assert_eq!(memory.unlocks(), 1);
        regions.iter().for_each(assert_freed);
    });
}

#[test]
fn closing_under_a_flush() {
    check("closing under a flush", 3, || {
        let mut world = World::with(&Options { reclaim_threshold: 4096, ..Options::default() });
        let region = world.region("a", &[1]);
        // What a flush does last is to punch what this leaves.
        let other = world.region("b", &[1]);
        other.reserve(10_000).unwrap();
        other.remove().unwrap();
        let World { memory, db, regions } = world;
        let closer = thread(move || Arc::into_inner(db).unwrap().close().unwrap());
        let flusher = {
            let memory = memory.clone();
            thread(move || match region.flush() {
                Ok(()) => {
                    let [synced, present] = recovered(memory.snapshots().last().unwrap());
                    assert!(synced["a"] == [1] && present["a"] == [1]);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            })
        };
        run([flusher, closer]);
        assert_eq!(memory.unlocks(), 1);
        regions.iter().for_each(assert_freed);
    });
}

/// Two threads meet on the first stripe while a writer takes all there are.
#[test]
fn growth_of_stripes() {
    check("growth of stripes", 2, || {
        THREADS_ALWAYS_MEET.set(true);
        let mut world = World::new();
        let region = world.region("a", &[1, 2]);
        let allowed = |records: &[u64]| [[1, 2], [8, 9]].contains(&records.try_into().unwrap());
        let viewers = [(); 2].map(|()| viewer(&world, &region, allowed));
        let [one, other] = viewers;
        let writer = thread(move || region.write_at(&bytes(&[8, 9]), 0).unwrap());
        run([one, other, writer]);
        world.finish();
    });
}

#[test]
fn growth_of_stripes_of_a_removed_region() {
    check("growth of stripes of a removed region", 2, || {
        THREADS_ALWAYS_MEET.set(true);
        let mut world = World::new();
        let region = world.region("a", &[1]);
        let viewers = [(); 2].map(|()| viewer(&world, &region, |records| records == [1]));
        let [one, other] = viewers;
        let remover = thread(move || region.remove().unwrap());
        run([one, other, remover]);
        world.finish();
    });
}

/// A flush is one moment of all regions: what one thread has written first is never missing where
/// its next write is there, and nothing is lost for the flush after.
#[test]
fn one_moment() {
    check("one moment", 3, || {
        let mut world = World::new();
        let (a, b) = (world.region("a", &[1]), world.region("b", &[1]));
        world.db.flush().unwrap();
        let db = world.db.clone();
        let writer = thread(move || {
            a.write(&bytes(&[2])).unwrap();
            b.write(&bytes(&[2])).unwrap();
            a.write(&bytes(&[3])).unwrap();
        });
        run([writer, thread(move || db.flush().unwrap())]);
        assert_moments(&world, &[(1, 1), (2, 1), (2, 2), (3, 2)]);
    });
}

/// The same where the second write is another thread's, which has seen the first.
#[test]
fn one_moment_of_two_threads() {
    check("one moment of two threads", 2, || {
        let mut world = World::new();
        let (a, b) = (world.region("a", &[1]), world.region("b", &[1]));
        world.db.flush().unwrap();
        let db = world.db.clone();
        let seen = a.clone();
        run([
            thread(move || assert_eq!(a.write(&bytes(&[2])).unwrap(), 8)),
            thread(move || {
                if seen.len() == 16 {
                    b.write(&bytes(&[2])).unwrap();
                }
            }),
            thread(move || db.flush().unwrap()),
        ]);
        assert_moments(&world, &[(1, 1), (2, 1), (2, 2)]);
    });
}

/// Every flush has recorded one of these pairs of lengths, with their bytes, and the next one
/// records what there is.
fn assert_moments(world: &World, moments: &[(usize, usize)]) {
    world.db.flush().unwrap();
    let snapshots = world.memory.snapshots();
    // The first two are of the empty database.
    for snapshot in &snapshots[2..] {
        for found in recovered(snapshot) {
            let moment = (found["a"].len(), found["b"].len());
            assert!(moments.contains(&moment), "{found:?}");
            assert!([1, 2, 3].starts_with(&found["a"]) && [1, 2].starts_with(&found["b"]));
        }
    }
    let [last, _] = recovered(snapshots.last().unwrap());
    for name in ["a", "b"] {
        assert_eq!(last[name].len() as u64 * 8, world.db.region(name).unwrap().len());
    }
}

/// A flush that has returned has recorded what came before it, whoever did the work.
#[test]
fn group_commit() {
    check("group commit", 2, || {
        let mut world = World::new();
        let regions = [world.region("a", &[1]), world.region("b", &[1])];
        world.db.flush().unwrap();
        let writers = regions.map(|region| {
            let (db, memory) = (world.db.clone(), world.memory.clone());
            thread(move || {
                region.write(&bytes(&[2])).unwrap();
                db.flush().unwrap();
                for found in recovered(memory.snapshots().last().unwrap()) {
                    assert_eq!(found[&region.name()], [1, 2]);
                }
            })
        });
        run(writers);
        world.finish();
    });
}

/// Compaction never takes blocks that a writer relies on.
#[test]
fn compaction() {
    check("compaction", 2, || {
        let mut world = World::new();
        let (a, b) = (world.region("a", &[1]), world.region("b", &[1]));
        a.reserve(8192).unwrap();
        let db = world.db.clone();
        run([
            thread(move || {
                a.write(&bytes(&[2])).unwrap();
                a.write(&bytes(&[3])).unwrap();
            }),
            thread(move || assert_eq!(b.write(&bytes(&[2])).unwrap(), 8)),
            thread(move || db.compact().unwrap()),
        ]);
        world.finish();
    });
}

/// A second compaction does not have all forgotten while the first one is at work.
#[test]
fn two_compactions() {
    check("two compactions", 2, || {
        let mut world = World::new();
        let a = world.region("a", &[1]);
        a.reserve(8192).unwrap();
        let (db, other) = (world.db.clone(), world.db.clone());
        let compacter = thread(move || {
            let mut is_first = true;
            db.compact_with(&mut |_, _| {
                if std::mem::take(&mut is_first) {
                    db.flush().unwrap();
                    a.write(&bytes(&[2])).unwrap();
                }
                true
            })
            .unwrap();
            a.write(&bytes(&[3])).unwrap();
        });
        run([compacter, thread(move || other.compact().unwrap())]);
        world.finish();
    });
}

#[test]
fn compaction_under_an_append() {
    check("compaction under an append", 3, || {
        let mut world = World::new();
        let a = world.region("a", &[1]);
        a.reserve(8192).unwrap();
        let mut buffer = a.append_begin(8).unwrap();
        let db = world.db.clone();
        let appender = thread(move || {
            stored(buffer.as_mut_ptr(), 8);
            buffer.copy_from_slice(&bytes(&[2]));
            buffer.end(8).unwrap();
            a.write(&bytes(&[3])).unwrap();
        });
        run([appender, thread(move || db.compact().unwrap())]);
        world.finish();
    });
}

/// Blocks that are given back after a flush are nobody's when they go.
#[test]
fn reclamation() {
    check("reclamation", 2, || {
        let mut world = World::with(&Options { reclaim_threshold: 4096, ..Options::default() });
        let region = world.region("a", &[1]);
        // Large enough for pieces of its own.
        region.reserve(10_000).unwrap();
        world.db.flush().unwrap();
        region.remove().unwrap();
        let (db, flusher) = (world.db.clone(), world.db.clone());
        let writer = thread(move || {
            let region = db.create_region_if_needed("b").unwrap();
            region.reserve(10_000).unwrap();
            region.write(&bytes(&[2])).unwrap();
        });
        run([writer, thread(move || flusher.flush().unwrap())]);
        world.finish();
    });
}

/// A region that replaces another: whoever asks by name finds one of them, and so does recovery.
#[test]
fn replacement() {
    check("replacement", 2, || {
        let mut world = World::new();
        let (a, b) = (world.region("a", &[1]), world.region("b", &[2]));
        world.db.flush().unwrap();
        drop((a, b));
        let (renamer, flusher) = (world.db.clone(), world.db.clone());
        let (finder, memory) = (world.db.clone(), world.memory.clone());
        run([
            thread(move || renamer.rename("b", "a", true).unwrap()),
            thread(move || flusher.flush().unwrap()),
            thread(move || match look(&memory, &finder.region("a").unwrap(), 0, None) {
                Ok(view) => {
                    assert!([[1], [2]].contains(&view.records[..].try_into().unwrap()));
                    view.end();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Removed),
            }),
        ]);
        for snapshot in &world.memory.snapshots()[2..] {
            for found in recovered(snapshot) {
                let found: Vec<_> = found.into_iter().collect();
                let (a, b) = (("a".into(), vec![1]), ("b".into(), vec![2]));
                assert!(found == [a, b] || found == [("a".into(), vec![2])], "{found:?}");
            }
        }
        world.finish();
    });
}

/// After a failed sync every change is refused with its reason.
#[test]
fn failed_sync() {
    check("failed sync", 3, || {
        let mut world = World::new();
        let region = world.region("a", &[1]);
        world.memory.fail_syncs();
        let db = world.db.clone();
        run([
            thread(move || assert_eq!(db.flush().unwrap_err().kind(), ErrorKind::Io)),
            thread(move || {
                if let Err(error) = region.write(&bytes(&[2])) {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                }
            }),
        ]);
        assert_eq!(Arc::into_inner(world.db).unwrap().close().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(world.memory.unlocks(), 1);
        world.regions.iter().for_each(assert_freed);
    });
}

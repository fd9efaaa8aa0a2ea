//! Random programs against a map in memory, through the public interface.
//!
//! `RAWDB_SEED` repeats a run, `RAWDB_OPERATIONS` sets its length.

use std::collections::BTreeMap;
use std::path::Path;

use rawdb::{Database, ErrorKind, Options, Region, View};

mod seed;

const OPERATIONS: u64 = 200_000;
/// Few names, so that creation, removal and renaming meet each other.
const NAMES: usize = 12;
/// Keeps a run's memory small, and still lets regions cross every step of growth up to 1 MiB.
const MAX_LEN: usize = 3 << 20;

type Model = BTreeMap<String, Vec<u8>>;

struct HeldView {
    view: View,
    expected: Vec<u8>,
}

struct Run<'a> {
    rng: fastrand::Rng,
    path: &'a Path,
    options: Options,
    db: Option<Database>,
    model: Model,
    /// Handles are kept and used again, so that stale ones are met too.
    handles: Vec<(Region, String, u64)>,
    /// How often each name was created, to tell a stale handle from a live one of the same name.
    births: BTreeMap<String, u64>,
    views: Vec<HeldView>,
    generation: u64,
}

fn operations() -> u64 {
    std::env::var("RAWDB_OPERATIONS").map_or(OPERATIONS, |it| it.parse().unwrap())
}

#[test]
fn agrees_with_a_map_when_written_through_the_mapping() {
    run(false);
}

#[test]
fn agrees_with_a_map_when_writes_are_guarded() {
    run(true);
}

fn run(guarded: bool) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        guarded,
        // Small enough that automatic reclamation takes part.
        reclaim_threshold: 64 << 10,
        ..Options::default()
    };
    let seed = seed::seed();
    let mut run = Run {
        rng: fastrand::Rng::with_seed(seed),
        path: dir.path(),
        db: Some(Database::open_with(dir.path(), &options).unwrap()),
        options,
        model: Model::new(),
        handles: Vec::new(),
        births: BTreeMap::new(),
        views: Vec::new(),
        generation: 0,
    };
    for operation in 0..operations() {
        run.step();
        if operation % 5_000 == 4_999 {
            run.check_all();
        }
    }
    run.check_all();
    run.reopen();
    run.check_all();
}

impl Run<'_> {
    fn db(&self) -> &Database {
        self.db.as_ref().unwrap()
    }

    fn name(&mut self) -> String {
        let number = self.rng.usize(..NAMES);
        // Long names reach over several sectors of their page.
        match number {
            0 => "n".repeat(1024),
            1 => "ü".to_owned(),
            _ => format!("region {number}"),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.u32(..100) {
            0..=59 => self.rng.usize(..200),
            60..=89 => self.rng.usize(..9_000),
            90..=98 => self.rng.usize(..70_000),
            _ => self.rng.usize(..900_000),
        };
        let mut bytes = vec![self.rng.u8(..); len];
        // Mostly equal bytes are quick to make; the marks catch what lands in the wrong place.
        for at in (0..len).step_by(61) {
            bytes[at] = self.rng.u8(..);
        }
        bytes
    }

    /// A handle that may be stale, its name, and whether the model says it is live.
    fn handle(&mut self) -> Option<(Region, String)> {
        if self.handles.is_empty() {
            return None;
        }
        let index = self.rng.usize(..self.handles.len());
        let (region, name, birth) = self.handles[index].clone();
        if self.births.get(&name) != Some(&birth) || !self.model.contains_key(&name) {
            assert_eq!(region.write(b"x").unwrap_err().kind(), ErrorKind::Removed);
            assert_eq!(region.view(0, 0).unwrap_err().kind(), ErrorKind::Removed);
            assert_eq!(region.info().unwrap_err().kind(), ErrorKind::Removed);
            assert_eq!(region.len(), 0);
            self.handles.swap_remove(index);
            return None;
        }
        Some((region, name))
    }

    fn forget_name(&mut self, name: &str) {
        *self.births.entry(name.to_owned()).or_default() += 1;
    }

    fn step(&mut self) {
        match self.rng.u32(..1000) {
            0..=99 => self.create(),
            100..=124 => self.remove(),
            125..=149 => self.rename(),
            150..=152 => self.retain(),
            153..=172 => self.flush(),
            173..=175 => {
                let db = self.db.as_ref().unwrap();
                db.compact().unwrap();
                let stats = db.stats().unwrap();
                assert_eq!(stats.pending_bytes, 0, "compact flushes");
            }
            176..=177 => self.reopen(),
            178..=379 => self.append(),
            380..=579 => self.write_at(),
            580..=629 => self.write_batch(),
            630..=679 => self.truncate(),
            680..=709 => self.truncate_write(),
            710..=749 => self.append_in_place(),
            750..=759 => self.reserve(),
            760..=889 => self.open_view(),
            890..=959 => self.drop_view(),
            _ => self.read(),
        }
    }

    fn create(&mut self) {
        let name = self.name();
        let existed = self.model.contains_key(&name);
        assert_eq!(self.db().region(&name).is_ok(), existed);
        let region = self.db().create_region_if_needed(&name).unwrap();
        if !existed {
            self.forget_name(&name);
            self.model.insert(name.clone(), Vec::new());
            assert!(region.is_empty());
        }
        let birth = self.births[&name];
        self.handles.push((region, name, birth));
        if self.handles.len() > 40 {
            self.handles.swap_remove(0);
        }
    }

    fn remove(&mut self) {
        let name = self.name();
        let removed = self.db().remove(&name);
        match self.model.remove(&name) {
            Some(_) => removed.unwrap(),
            None => assert_eq!(removed.unwrap_err().kind(), ErrorKind::NotFound),
        }
    }

    fn rename(&mut self) {
        let (from, to, replace) = (self.name(), self.name(), self.rng.bool());
        let renamed = self.db().rename(&from, &to, replace);
        if !self.model.contains_key(&from) {
            assert_eq!(renamed.unwrap_err().kind(), ErrorKind::NotFound);
        } else if from == to {
            renamed.unwrap();
        } else if self.model.contains_key(&to) && !replace {
            assert_eq!(renamed.unwrap_err().kind(), ErrorKind::AlreadyExists);
        } else {
            renamed.unwrap();
            let bytes = self.model.remove(&from).unwrap();
            self.model.insert(to.clone(), bytes);
            // Handles follow the region, not the name.
            self.forget_name(&to);
            let (old, new) = (self.births[&from], self.births[&to]);
            for (region, name, birth) in &mut self.handles {
                if *name == from && *birth == old {
                    assert_eq!(region.name(), to);
                    *name = to.clone();
                    *birth = new;
                }
            }
        }
    }

    fn retain(&mut self) {
        let kept: Vec<String> = (0..8).map(|_| self.name()).collect();
        let names: Vec<&str> = kept.iter().map(String::as_str).collect();
        self.db().retain(&names).unwrap();
        self.model.retain(|name, _| kept.contains(name));
    }

    fn flush(&mut self) {
        match self.handle() {
            Some((region, _)) if self.rng.bool() => region.flush().unwrap(),
            _ => self.db().flush().unwrap(),
        }
        let generation = self.db().stats().unwrap().generation;
        assert!(generation >= self.generation);
        self.generation = generation;
    }

    fn reopen(&mut self) {
        let by_drop = self.rng.bool();
        if by_drop {
            self.db = None;
        } else {
            self.db.take().unwrap().close().unwrap();
        }
        for (region, _, _) in self.handles.drain(..) {
            let kind = region.write(b"x").unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Removed), "{kind:?}");
        }
        // An empty view pins nothing, not even the lock.
        if self.views.iter().any(|held| !held.view.is_empty()) {
            let error = Database::open_with(self.path, &self.options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "views keep the lock");
        }
        for held in self.views.drain(..) {
            assert!(*held.view == held.expected, "a view changed");
        }
        self.options.guarded ^= self.rng.u32(..10) == 0;
        self.db = Some(Database::open_with(self.path, &self.options).unwrap());
    }

    fn append(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let bytes = self.bytes();
        let model = self.model.get_mut(&name).unwrap();
        if model.len() + bytes.len() > MAX_LEN {
            return;
        }
        assert_eq!(region.write(&bytes).unwrap(), model.len() as u64);
        model.extend_from_slice(&bytes);
    }

    fn append_in_place(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let bytes = self.bytes();
        let (len, written) = (self.model[&name].len(), self.rng.usize(..=bytes.len()));
        if len + bytes.len() > MAX_LEN {
            return;
        }
        let mut buffer = region.append_begin(bytes.len()).unwrap();
        assert_eq!(buffer.len(), bytes.len());
        buffer.copy_from_slice(&bytes);
        for busy in [
            region.write(b"x").unwrap_err(),
            region.truncate(0).unwrap_err(),
            region.append_begin(1).unwrap_err(),
            self.db().remove(&name).unwrap_err(),
            self.db().retain(&[]).unwrap_err(),
        ] {
            assert_eq!(busy.kind(), ErrorKind::Busy);
        }
        assert_eq!(region.len(), len as u64);
        match self.rng.u32(..4) {
            0 => drop(buffer),
            1 => {
                let too_many = buffer.len() + 1;
                assert_eq!(buffer.end(too_many).unwrap_err().kind(), ErrorKind::OutOfBounds);
            }
            _ => {
                assert_eq!(buffer.end(written).unwrap(), len as u64);
                self.model.get_mut(&name).unwrap().extend_from_slice(&bytes[..written]);
            }
        }
    }

    fn write_at(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let bytes = self.bytes();
        let model = self.model.get_mut(&name).unwrap();
        let offset = self.rng.usize(..=model.len() + 1);
        let written = region.write_at(&bytes, offset as u64);
        if offset > model.len() {
            assert_eq!(written.unwrap_err().kind(), ErrorKind::OutOfBounds);
            return;
        }
        written.unwrap();
        let end = offset + bytes.len();
        if end > model.len() {
            model.resize(end, 0);
        }
        model[offset..end].copy_from_slice(&bytes);
    }

    fn write_batch(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let model = self.model.get_mut(&name).unwrap();
        let (count, value_len) = (self.rng.usize(..20), self.rng.usize(..70));
        let values: Vec<u8> = (0..count * value_len).map(|_| self.rng.u8(..)).collect();
        let room = (model.len() + 1).saturating_sub(value_len);
        // Once in a while one offset is out of bounds, and then nothing must be written.
        let spoil = self.rng.u32(..4) == 0;
        let offsets: Vec<u64> = (0..count)
            .map(|_| {
                if spoil {
                    self.rng.u64(..=model.len() as u64 + 1)
                } else if room > 0 {
                    self.rng.u64(..room as u64)
                } else {
                    0
                }
            })
            .collect();
        let result = region.write_batch(&offsets, &values, value_len);
        if offsets.iter().any(|&at| at + value_len as u64 > model.len() as u64) {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::OutOfBounds);
            return;
        }
        result.unwrap();
        if value_len > 0 {
            for (value, &at) in values.chunks_exact(value_len).zip(&offsets) {
                model[at as usize..at as usize + value_len].copy_from_slice(value);
            }
        }
    }

    fn truncate(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let model = self.model.get_mut(&name).unwrap();
        let len = match self.rng.u32(..3) {
            0 => 0,
            1 => self.rng.usize(..=model.len() + 1),
            _ => model.len().saturating_sub(self.rng.usize(..100)),
        };
        let truncated = region.truncate(len as u64);
        if len > model.len() {
            assert_eq!(truncated.unwrap_err().kind(), ErrorKind::OutOfBounds);
        } else {
            truncated.unwrap();
            model.truncate(len);
        }
    }

    fn truncate_write(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let bytes = self.bytes();
        let model = self.model.get_mut(&name).unwrap();
        let offset = self.rng.usize(..=model.len());
        region.truncate_write(offset as u64, &bytes).unwrap();
        model.truncate(offset);
        model.extend_from_slice(&bytes);
    }

    fn reserve(&mut self) {
        let Some((region, _)) = self.handle() else { return };
        let capacity = self.rng.u64(..4 << 20);
        region.reserve(capacity).unwrap();
        assert!(region.info().unwrap().reserved >= capacity);
    }

    fn open_view(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let model = &self.model[&name];
        let offset = self.rng.usize(..=model.len());
        let (len, end) = if self.rng.bool() {
            (u64::MAX, model.len())
        } else {
            let len = self.rng.usize(..=(model.len() - offset).min(300));
            (len as u64, offset + len)
        };
        let view = region.view(offset as u64, len).unwrap();
        assert!(*view == model[offset..end], "a view shows something else");
        self.views.push(HeldView { view, expected: model[offset..end].to_vec() });
        if self.views.len() > 30 {
            self.drop_view();
        }
    }

    fn drop_view(&mut self) {
        if !self.views.is_empty() {
            let held = self.views.swap_remove(self.rng.usize(..self.views.len()));
            assert!(*held.view == held.expected, "a view changed");
        }
    }

    fn read(&mut self) {
        let Some((region, name)) = self.handle() else { return };
        let model = &self.model[&name];
        let offset = self.rng.usize(..=model.len());
        let mut buffer = vec![0; self.rng.usize(..2_000)];
        let result = region.read(offset as u64, &mut buffer);
        if offset + buffer.len() > model.len() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::OutOfBounds);
        } else {
            result.unwrap();
            assert!(buffer == model[offset..offset + buffer.len()]);
        }
    }

    /// Everything at once: names, lengths, contents, places, sums.
    fn check_all(&mut self) {
        for held in &self.views {
            assert!(*held.view == held.expected, "a view changed");
        }
        let list = self.db().list().unwrap();
        let names: Vec<&String> = list.iter().map(|(name, _)| name).collect();
        assert_eq!(names, self.model.keys().collect::<Vec<_>>());
        let mut places = Vec::new();
        for (name, info) in &list {
            let region = self.db().region(name).unwrap();
            assert_eq!(region.info().unwrap(), *info);
            assert_eq!(info.len, self.model[name].len() as u64);
            assert!(
                info.len <= info.reserved && info.start % 4096 == 0 && info.reserved % 4096 == 0
            );
            assert!(*region.create_reader().read_all().unwrap() == self.model[name][..], "{name}");
            if info.reserved > 0 {
                places.push((info.start, info.start + info.reserved));
            }
        }
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "places overlap");
        let stats = self.db().stats().unwrap();
        assert_eq!(stats.region_count, self.model.len() as u64);
        assert_eq!(
            stats.live_bytes,
            self.model.values().map(|bytes| bytes.len() as u64).sum::<u64>()
        );
        assert_eq!(
            4096 + stats.reserved_bytes
                + stats.free_bytes
                + stats.pending_bytes
                + stats.pinned_bytes,
            stats.file_len,
            "every byte of the file is somebody's: {stats:?}"
        );
    }
}

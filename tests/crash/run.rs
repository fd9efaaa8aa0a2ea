//! Runs a program on a simulated disk beside a model of what the database promises, crashes it at
//! every call that changes the disk, and looks at what is found then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use rawdb::storage::simulation::{Fault, Simulation, Snapshot, SECTOR};
use rawdb::{AppendBuffer, Database, ErrorKind, Options, View};

use crate::program::{name, Kind, Operation, Program};

/// A region as the database must have it.
#[derive(Clone, Default)]
struct Contents {
    /// The same region, whatever its name.
    id: u64,
    bytes: Vec<u8>,
    /// What lies in the file: a truncation leaves it there.
    raw: Vec<u8>,
}

/// All regions as they were at one moment.
#[derive(Clone, Default)]
struct State {
    /// Of [`Model::time`].
    time: u64,
    regions: BTreeMap<String, (u64, Vec<u8>)>,
}

/// When a sector was written to, and what it has been since.
type Written = (u64, Vec<u8>);

/// What may be found after a crash, and what is there now.
#[derive(Clone, Default)]
struct Model {
    now: BTreeMap<String, Contents>,
    /// A crash leaves one of these, but for sectors overwritten since.
    durable: Vec<State>,
    /// Per region and sector, what has been written there, and when.
    history: BTreeMap<(u64, usize), Vec<Written>>,
    time: u64,
    ids: u64,
}

impl Model {
    fn state(&mut self) -> State {
        self.time += 1;
        let regions = self.now.iter();
        let regions = regions.map(|(name, it)| (name.clone(), (it.id, it.bytes.clone()))).collect();
        State { time: self.time, regions }
    }

    /// Only `states` can be found from now on.
    fn set_durable(&mut self, states: Vec<State>) {
        let oldest = states.iter().map(|state| state.time).min().expect("there is a state");
        self.durable = states;
        self.history.values_mut().for_each(|values| values.retain(|(time, _)| *time >= oldest));
        self.history.retain(|_, values| !values.is_empty());
    }

    /// Bytes get into the file where `name` is, whether they belong to it or not yet.
    fn store(&mut self, name: &str, offset: usize, data: &[u8]) {
        let contents = self.now.get_mut(name).expect("a region of the model");
        let end = offset + data.len();
        contents.raw.resize(contents.raw.len().max(end), 0);
        contents.raw[offset..end].copy_from_slice(data);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let end = ((sector + 1) * SECTOR).min(contents.raw.len());
            let value = contents.raw[sector * SECTOR..end].to_vec();
            self.history.entry((contents.id, sector)).or_default().push((self.time, value));
        }
    }

    fn write(&mut self, name: &str, offset: usize, data: &[u8], new_len: usize) {
        self.store(name, offset, data);
        let contents = self.now.get_mut(name).expect("a region of the model");
        contents.bytes.resize(contents.bytes.len().max(offset + data.len()), 0);
        contents.bytes[offset..offset + data.len()].copy_from_slice(data);
        contents.bytes.truncate(new_len);
    }

    /// Which of the durable states this is. Below a region's flushed length, each sector may be one
    /// of the values that it has had since.
    fn recognise(&self, found: &BTreeMap<String, Vec<u8>>) -> Option<&State> {
        let may_become = |state: &State, id: u64, flushed: &[u8], found: &[u8]| {
            flushed.len() == found.len()
                && found.chunks(SECTOR).zip(flushed.chunks(SECTOR)).enumerate().all(
                    |(number, (found, flushed))| {
                        found == flushed
                            || self.history.get(&(id, number)).is_some_and(|values| {
                                let mut later = values.iter().filter(|it| it.0 >= state.time);
                                later.any(|(_, value)| value.starts_with(found))
                            })
                    },
                )
        };
        self.durable.iter().find(|state| {
            found.keys().eq(state.regions.keys())
                && found
                    .iter()
                    .zip(state.regions.values())
                    .all(|((_, found), (id, flushed))| may_become(state, *id, flushed, found))
        })
    }

    /// Whether this is what there is now.
    fn is_now(&self, found: &BTreeMap<String, Vec<u8>>) -> bool {
        let now = self.now.iter().map(|(name, it)| (name, &it.bytes));
        found.iter().eq(now)
    }

    /// Whether this is what there is now, but for sectors that a change which was to become `to` has
    /// overwritten in place already.
    fn is_nearly(&self, found: &BTreeMap<String, Vec<u8>>, to: &Model) -> bool {
        let written = |id: u64, number: usize, found: &[u8]| {
            let values = to.history.get(&(id, number));
            values.is_some_and(|it| it.iter().any(|(_, value)| value.starts_with(found)))
        };
        found.keys().eq(self.now.keys())
            && found.values().zip(self.now.values()).all(|(found, now)| {
                let mut sectors = found.chunks(SECTOR).zip(now.bytes.chunks(SECTOR)).enumerate();
                found.len() == now.bytes.len()
                    && sectors.all(|(number, (found, now_here))| {
                        found == now_here || written(now.id, number, found)
                    })
            })
    }

    /// Whether the same bytes have been written to the file, of regions that are in both.
    fn has_written_the_same(&self, other: &Model) -> bool {
        self.now.values().all(|it| {
            other.now.values().find(|next| next.id == it.id).is_none_or(|next| next.raw == it.raw)
        })
    }

    /// The model of a database that has just been opened, at first for a process that came after
    /// another one had died: nothing is lost.
    fn after_death(&self, found: &BTreeMap<String, Vec<u8>>) -> Model {
        let lengths = |regions: Vec<(&String, usize)>| format!("{regions:?}");
        assert!(
            self.is_now(found),
            "the process had {}, and the next one finds {}, or other bytes of these",
            lengths(self.now.iter().map(|(name, it)| (name, it.bytes.len())).collect()),
            lengths(found.iter().map(|(name, it)| (name, it.len())).collect()),
        );
        self.clone()
    }

    /// The model of a database that has just been opened and found to be so.
    fn after_open(&self, found: &BTreeMap<String, Vec<u8>>) -> Model {
        let state = self.recognise(found).unwrap_or_else(|| {
            let lengths = |name: &String, len: usize| format!("{:.8} {len}", name);
            let found: Vec<_> = found.iter().map(|(name, it)| lengths(name, it.len())).collect();
            let states: Vec<Vec<_>> = self
                .durable
                .iter()
                .map(|state| {
                    state.regions.iter().map(|(name, (_, it))| lengths(name, it.len())).collect()
                })
                .collect();
            panic!("found {found:?}, and only {states:?} can be, or other bytes of these");
        });
        let now = found.iter().zip(state.regions.values()).map(|((name, bytes), (id, _))| {
            let contents = Contents { id: *id, bytes: bytes.clone(), raw: bytes.clone() };
            (name.clone(), contents)
        });
        let mut model =
            Model { now: now.collect(), time: self.time, ids: self.ids, ..Model::default() };
        let state = model.state();
        model.set_durable(vec![state]);
        model
    }
}

/// A database at work, and its model.
struct Running {
    disk: Arc<Simulation>,
    db: Arc<Database>,
    options: Options,
    model: Model,
    views: Vec<(View, Vec<u8>)>,
    buffer: Option<(String, AppendBuffer, usize)>,
}

/// Snapshots, and the model that each must fit: that of before a change and that of after it.
type Checks = Vec<(Vec<Snapshot>, Model, Model)>;

/// What becomes of a database between two processes that have it open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// The first has died, and the system goes on.
    Death,
    /// What the first has not flushed is lost.
    Loss,
}

fn contents(db: &Database) -> BTreeMap<String, Vec<u8>> {
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

/// Regions lie side by side and make up the file together with the holes.
fn check_space(db: &Database) {
    let stats = db.stats().unwrap();
    let mut places: Vec<_> = db.list().unwrap().into_iter().map(|(_, info)| info).collect();
    places.retain(|place| place.reserved > 0);
    places.sort_unstable_by_key(|place| place.start);
    let mut end = 4096;
    for place in places {
        assert!(place.start >= end && place.len <= place.reserved, "overlap: {place:?}");
        end = place.start + place.reserved;
    }
    assert!(end <= stats.file_len, "a region ends at {end}: {stats:?}");
    let given_up = stats.pending_bytes + stats.pinned_bytes;
    let sum = 4096 + stats.reserved_bytes + given_up + stats.free_bytes;
    assert_eq!(sum, stats.file_len, "regions and holes make up the file: {stats:?}");
}

impl Running {
    /// Opens what a crash, or the death of a process, has left, which must be what `model` says.
    fn open(disk: Arc<Simulation>, options: &Options, model: &Model, between: Between) -> Running {
        let db = Database::open_storage(disk.clone(), options)
            .unwrap_or_else(|error| panic!("cannot open: {error}"));
        let db = Arc::new(db);
        check_space(&db);
        let found = contents(&db);
        let model = match between {
            Between::Death => model.after_death(&found),
            Between::Loss => model.after_open(&found),
        };
        Running { disk, db, options: options.clone(), model, views: Vec::new(), buffer: None }
    }

    /// Changes regions of the database and of the model.
    fn change(&mut self, operation: &Operation) {
        let Running { db, options, model, views, buffer, .. } = self;
        let (id, other) = (name(operation.region), name(operation.other));
        let busy = buffer.as_ref().is_some_and(|(it, _, _)| *it == id);
        let data = operation.data();
        let region = match db.region(&id) {
            Ok(region) => region,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(!model.now.contains_key(&id));
                if matches!(operation.kind, Kind::Create | Kind::Append | Kind::Write) {
                    db.create_region_if_needed(&id).unwrap();
                    model.ids += 1;
                    let contents = Contents { id: model.ids, ..Contents::default() };
                    model.now.insert(id, contents);
                }
                return;
            }
        };
        let len = model.now[&id].bytes.len();
        assert_eq!(region.len(), len as u64);
        let offset = operation.share_of(len);
        let result = match operation.kind {
            Kind::Create => Ok(()),
            Kind::Append => region.write(&data).map(|at| {
                assert_eq!(at, len as u64);
                model.write(&id, len, &data, len + data.len());
            }),
            Kind::Write => region.write_at(&data, offset as u64).map(|()| {
                model.write(&id, offset, &data, len.max(offset + data.len()));
            }),
            Kind::TruncateWrite => region.truncate_write(offset as u64, &data).map(|()| {
                model.write(&id, offset, &data, offset + data.len());
            }),
            Kind::Batch if data.is_empty() || len == 0 => Ok(()),
            Kind::Batch => {
                // Three values that fit, two of them perhaps in one place.
                let value = &data[..(data.len().min(len) / 3).max(1)];
                let places = [offset, 0, len].map(|at| at.min(len - value.len()));
                let values = value.repeat(3);
                region.write_batch(&places.map(|at| at as u64), &values, value.len()).map(|()| {
                    places.iter().for_each(|&at| model.write(&id, at, value, len));
                })
            }
            Kind::Truncate => region.truncate(offset as u64).map(|()| {
                let contents = model.now.get_mut(&id).expect("looked up above");
                contents.bytes.truncate(offset);
            }),
            Kind::Reserve => region.reserve(u64::from(operation.len)),
            Kind::Rename => db.rename(&id, &other, true).map(|()| {
                let contents = model.now.remove(&id).expect("looked up above");
                model.now.insert(other.clone(), contents);
                if let Some((name, _, _)) = buffer.as_mut().filter(|it| it.0 == id) {
                    name.clone_from(&other);
                }
            }),
            Kind::Remove => db.remove(&id).map(|()| {
                model.now.remove(&id);
            }),
            Kind::Retain => db.retain(&[&id, &other]).map(|()| {
                model.now.retain(|name, _| *name == id || *name == other);
            }),
            Kind::View => region.view(offset as u64, u64::MAX).map(|view| {
                assert_eq!(*view, model.now[&id].bytes[offset..]);
                let bytes = view.to_vec();
                views.push((view, bytes));
            }),
            Kind::Release => {
                views.clear();
                Ok(())
            }
            Kind::BufferBegin if buffer.is_some() => Ok(()),
            Kind::BufferBegin => region.append_begin(data.len()).map(|mut taken| {
                taken.copy_from_slice(&data);
                if !options.guarded {
                    // Nobody's bytes yet, but they may lie where a truncated region's were.
                    model.store(&id, len, &data);
                }
                *buffer = Some((id.clone(), taken, data.len()));
            }),
            Kind::BufferEnd => match buffer.take() {
                Some((id, taken, room)) => {
                    let len = model.now[&id].bytes.len();
                    let written = operation.share_of(room);
                    let data = taken[..written].to_vec();
                    taken.end(written).map(|at| {
                        assert_eq!(at, len as u64);
                        model.write(&id, len, &data, len + written);
                    })
                }
                None => Ok(()),
            },
            _ => unreachable!("{:?} does not change regions", operation.kind),
        };
        if let Err(error) = result {
            let replaced = buffer
                .as_ref()
                .is_some_and(|(it, _, _)| *it == other || operation.kind == Kind::Retain);
            assert!(error.kind() == ErrorKind::Busy && (busy || replaced), "{operation}: {error}");
        }
        self.disk.write_back();
        self.check_views();
    }

    fn check_views(&self) {
        for (view, bytes) in &self.views {
            assert!(**view == **bytes, "a view has changed");
        }
    }
}

/// A program at work.
struct Runner {
    /// Locked by whoever changes something, and by nobody while the database works on its own.
    running: Mutex<Option<Running>>,
    inside: Mutex<VecDeque<Operation>>,
    checks: Mutex<Checks>,
    /// Each change is looked at by itself, and each store to the mirror.
    every_store: bool,
    mirrored: bool,
}

impl Runner {
    fn change(&self, operation: &Operation) {
        if !self.every_store {
            self.running.lock().as_mut().expect("a database is open").change(operation);
            return;
        }
        self.end_phase();
        let mut running = self.running.lock();
        let running = running.as_mut().expect("a database is open");
        let before = running.model.clone();
        running.change(operation);
        let during = running.disk.recorded();
        self.checks.lock().push((during, before, running.model.clone()));
    }

    /// These belong to a model.
    fn check(&self, snapshots: Vec<Snapshot>, model: &Model) {
        self.checks.lock().push((snapshots, model.clone(), model.clone()));
    }

    fn change_inside(&self) {
        let next = self.inside.lock().pop_front();
        if let Some(operation) = next {
            self.change(&operation);
        }
    }

    /// What has been recorded so far belongs to the model as it is.
    fn end_phase(&self) {
        let mut running = self.running.lock();
        let running = running.as_mut().expect("a database is open");
        self.check(running.disk.recorded(), &running.model);
    }

    /// A flush begins: it may be found, or what was there before.
    fn flush_begins(&self) -> State {
        self.end_phase();
        let mut running = self.running.lock();
        let model = &mut running.as_mut().expect("a database is open").model;
        let state = model.state();
        model.durable.push(state.clone());
        state
    }

    /// A flush is complete: what it has written is what will be found.
    fn flush_ended(&self, state: State) {
        let mut running = self.running.lock();
        let running = running.as_mut().expect("a database is open");
        let mut during = running.disk.recorded();
        let now = during.pop();
        self.check(during, &running.model);
        running.model.set_durable(vec![state]);
        self.check(now.into_iter().collect(), &running.model);
    }

    fn db(&self) -> Arc<Database> {
        self.running.lock().as_ref().expect("a database is open").db.clone()
    }

    fn step(self: &Arc<Self>, operation: &Operation, inside: &[Operation]) {
        self.inside.lock().extend(inside);
        match operation.kind {
            Kind::Flush => {
                let state = self.flush_begins();
                let disk = self.running.lock().as_ref().expect("a database is open").disk.clone();
                let runner = self.clone();
                disk.set_meanwhile(Some(Box::new(move |_, _| runner.change_inside())));
                self.db().flush().unwrap();
                disk.set_meanwhile(None);
                self.flush_ended(state);
            }
            Kind::FlushRegion => {
                let state = self.flush_begins();
                let id = name(operation.region);
                let region = self.db().region(&id);
                if let Ok(region) = &region {
                    region.flush().unwrap();
                }
                let running = self.running.lock();
                let model = &running.as_ref().expect("a database is open").model;
                let earlier = &model.durable[..model.durable.len() - 1];
                // It may not have had anything to flush, but then it is as one of them has it.
                let changed =
                    earlier.iter().all(|it| it.regions.get(&id) != state.regions.get(&id));
                drop(running);
                if region.is_ok() && changed {
                    self.flush_ended(state);
                }
            }
            Kind::FailFlush => self.fail_flush(operation),
            Kind::Compact => {
                let mut state = Some(self.flush_begins());
                let step = &mut |_, _| {
                    if let Some(state) = state.take() {
                        self.flush_ended(state);
                    }
                    self.change_inside();
                    true
                };
                self.db().compact_with(step).unwrap();
            }
            Kind::Reopen => {
                let state = self.flush_begins();
                let running = self.running.lock().take().expect("a database is open");
                let Running { disk, db, options, mut model, views, buffer } = running;
                drop((views, buffer));
                Arc::into_inner(db).expect("nobody else uses it").close().unwrap();
                assert!(disk.is_unlocked());
                self.check(disk.recorded(), &model);
                model.set_durable(vec![state]);
                self.reopen(disk, &options, &model, None, Between::Loss);
            }
            Kind::Die | Kind::DieForgotten => {
                self.end_phase();
                let running = self.running.lock().take().expect("a database is open");
                let fail = (operation.fill < 128).then_some(u64::from(operation.at % 40));
                let snapshot = running.disk.snapshot();
                let (disk, between) = match operation.kind == Kind::Die && self.mirrored {
                    true => (snapshot.restart(), Between::Death),
                    false => (snapshot.restart_without_mirror(), Between::Loss),
                };
                self.reopen(disk, &running.options, &running.model, fail, between);
            }
            _ => self.change(operation),
        }
        while !self.inside.lock().is_empty() {
            self.change_inside();
        }
        self.running.lock().as_ref().expect("a database is open").check_views();
        self.end_phase();
    }

    /// After a failed sync the database refuses every change, and its process dies.
    fn fail_flush(&self, operation: &Operation) {
        let state = self.flush_begins();
        let disk = self.running.lock().as_ref().expect("a database is open").disk.clone();
        let db = self.db();
        disk.inject(Some(Fault {
            // The sync of `data` comes first.
            call: u64::from(operation.at % 8).saturating_sub(3),
            errno: if operation.fill & 1 == 0 { libc::EIO } else { libc::ENOSPC },
            partial: operation.fill & 2 == 0,
            lasting: false,
        }));
        let result = db.flush();
        let failed = disk.failed_call();
        disk.inject(None);
        match result {
            // What may fail after it costs nothing but space.
            Ok(()) => self.flush_ended(state),
            Err(error) if failed == Some("sync") => {
                assert_eq!(error.kind(), ErrorKind::Io);
                for refused in [db.flush(), db.create_region_if_needed("new").map(drop)] {
                    assert_eq!(refused.unwrap_err().to_string(), error.to_string());
                }
                drop(db);
                self.end_phase();
                let running = self.running.lock().take().expect("a database is open");
                let Running { db, options, model, views, buffer, .. } = running;
                drop((views, buffer));
                // Another process would find the same files.
                Arc::into_inner(db).expect("nobody else uses it").close().unwrap_err();
                self.reopen(disk.snapshot().restart(), &options, &model, None, Between::Loss);
            }
            // It may be found all the same, and can be repeated.
            Err(error) => assert!(failed.is_some(), "{error}"),
        }
    }

    /// Opens the database, after a failure at call number `fail` if there is one.
    fn reopen(
        &self,
        disk: Arc<Simulation>,
        options: &Options,
        model: &Model,
        fail: Option<u64>,
        between: Between,
    ) {
        let record = |disk: &Simulation| match self.every_store {
            true => disk.record_stores(),
            false => disk.record(),
        };
        let (mut disk, mut model) = (disk, model.clone());
        record(&disk);
        if let Some(call) = fail {
            let fault = Fault { call, errno: libc::EIO, partial: call % 2 == 0, lasting: false };
            disk.inject(Some(fault));
            let result = Database::open_storage(disk.clone(), options);
            assert!(result.is_ok() || disk.failed_call().is_some());
            let flushed = (result.is_ok() && between == Between::Death).then(|| {
                // Closing it flushes what was not.
                disk.inject(None);
                let state = model.state();
                model.durable.push(state.clone());
                state
            });
            drop(result);
            self.check(disk.recorded(), &model);
            if let Some(flushed) = flushed {
                model.set_durable(vec![flushed]);
            }
            disk = disk.snapshot().restart();
            record(&disk);
        }
        let running = Running::open(disk, options, &model, between);
        self.check(running.disk.recorded(), &model);
        *self.running.lock() = Some(running);
    }
}

/// Power fails at the snapshot, or the process dies; what is found must be what the model says, and
/// work.
struct Crasher<'a> {
    options: &'a Options,
    rng: fastrand::Rng,
    mirrored: bool,
    states: u64,
}

impl Crasher<'_> {
    fn open(&mut self, disk: Arc<Simulation>, model: &Model, between: Between) -> Running {
        self.states += 1;
        Running::open(disk, self.options, model, between)
    }

    fn crash(&mut self, snapshot: &Snapshot, model: &Model) {
        let disk = snapshot.crash(self.rng.u64(..));
        match self.rng.u32(..16) {
            0 => self.crash_in_recovery(&disk, model),
            1 => {
                // First only the process dies, and nobody goes by its mirror. What the next one finds
                // is in the page cache, and perhaps nowhere else.
                let disk = snapshot.restart_without_mirror();
                self.crash_in_recovery(&disk, model);
                self.use_and_crash(disk, model, Between::Loss);
            }
            2..=3 => self.use_and_crash(disk, model, Between::Loss),
            4 => {
                // Who only reads sees the same, and leaves it as it is.
                let options = Options { read_only: true, ..Options::default() };
                let reading = Database::open_storage(disk.clone(), &options).ok();
                let seen = reading.map(|db| contents(&db));
                let found = self.open(disk, model, Between::Loss).model;
                // Where a creation was cut short there is nothing to be read yet.
                assert!(seen.map_or(found.now.is_empty(), |seen| found.is_now(&seen)));
            }
            _ => drop(self.open(disk, model, Between::Loss)),
        }
    }

    /// The process dies, somewhere between `before` and `after`.
    fn die(&mut self, snapshot: &Snapshot, before: &Model, after: &Model) {
        let disk = snapshot.restart();
        disk.record_stores();
        let db = Database::open_storage(disk.clone(), self.options)
            .unwrap_or_else(|error| panic!("cannot open: {error}"));
        self.states += 1;
        check_space(&db);
        let found = contents(&db);
        drop(db);
        let model = [after, before].into_iter().find(|model| model.is_now(&found));
        let Some(model) = model else {
            // An overwrite in place that was not complete.
            assert!(before.is_nearly(&found, after), "found {found:?}");
            return;
        };
        match self.rng.u32(..16) {
            0 => {
                // Again, and in the middle of opening what the first has left.
                let mut states = disk.recorded();
                states.truncate(40);
                for snapshot in states {
                    self.open(snapshot.restart(), model, Between::Death);
                }
            }
            // Of a change that may not have taken place, but may have written to the file, the model
            // does not know what is there.
            1..=3 if before.has_written_the_same(after) || !before.is_now(&found) => {
                self.use_and_crash(snapshot.restart(), model, Between::Death);
            }
            _ => {}
        }
    }

    /// Power fails at every call of an open, and again right after it.
    fn crash_in_recovery(&mut self, disk: &Arc<Simulation>, model: &Model) {
        let disk = disk.snapshot().restart();
        disk.record();
        let found = self.open(disk.clone(), model, Between::Loss).model;
        let mut snapshots = disk.recorded();
        let after = snapshots.pop();
        for snapshot in snapshots {
            let crashed = snapshot.crash(self.rng.u64(..));
            self.open(crashed, model, Between::Loss);
        }
        // What an open has found is durable.
        if let Some(after) = after {
            let crashed = after.crash(self.rng.u64(..));
            self.open(crashed, &found, Between::Loss);
        }
    }

    /// Works with what a crash or a death has left, unflushed and flushed, and has the process die and
    /// the power fail again.
    fn use_and_crash(&mut self, disk: Arc<Simulation>, model: &Model, between: Between) {
        let mut running = self.open(disk, model, between);
        for flush in [false, true] {
            for operation in Program::random(self.rng.u64(..)).operations.iter().take(8) {
                if operation.kind.changes_regions() {
                    running.change(operation);
                }
            }
            if flush {
                running.db.flush().unwrap();
                let state = running.model.state();
                running.model.set_durable(vec![state]);
            }
            let snapshot = running.disk.snapshot();
            let crashed = snapshot.crash(self.rng.u64(..));
            self.open(crashed, &running.model, Between::Loss);
            if self.mirrored && self.rng.bool() {
                running = self.open(snapshot.restart(), &running.model, Between::Death);
            }
        }
    }
}

/// What is done with a program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Power fails at a call.
    Crash,
    /// The process dies at a call or after a store to the mirror.
    Death,
}

/// Runs the program and looks at what would be found after one in so many of its moments. Returns how
/// many states that was; panics at one that is not as it must be.
pub fn run(program: &Program, test: Test, one_in: u32) -> u64 {
    // A threshold of one page brings punching into every flush.
    let reclaim_threshold = if program.eager { 4096 } else { 0 };
    let options = Options { guarded: program.guarded, reclaim_threshold, ..Options::default() };
    let rng = fastrand::Rng::with_seed(program.seed);
    let mirrored = program.mirrored || test == Test::Death;
    let mut crasher = Crasher { options: &options, rng, mirrored, states: 0 };

    // As long as `open` has not returned there may be nothing, which opens as empty.
    let mut nothing = Model::default();
    let state = nothing.state();
    nothing.set_durable(vec![state]);
    let runner = Arc::new(Runner {
        running: Mutex::default(),
        inside: Mutex::default(),
        checks: Mutex::default(),
        every_store: test == Test::Death,
        mirrored,
    });
    let disk = if mirrored { Simulation::empty() } else { Simulation::empty_without_boot_id() };
    runner.reopen(disk, &options, &nothing, program.fail, Between::Loss);
    for (operation, inside) in program.steps().chain([(Operation::of(Kind::Reopen), &[][..])]) {
        // What becomes of a process after these is not what it had.
        let loses = matches!(operation.kind, Kind::FailFlush | Kind::DieForgotten);
        if loses && test == Test::Death {
            continue;
        }
        runner.step(&operation, inside);
        for (snapshots, before, after) in std::mem::take(&mut *runner.checks.lock()) {
            for snapshot in snapshots {
                if crasher.rng.u32(..one_in) > 0 {
                    continue;
                }
                match test {
                    Test::Crash => crasher.crash(&snapshot, &before),
                    Test::Death => crasher.die(&snapshot, &before, &after),
                }
            }
        }
    }
    crasher.states
}

//! Programs over the public interface, for `system_faults.rs` and `faults.rs`, and a model of what
//! they have done: a call that succeeded did all of it, a call that failed did nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use rawdb::{Database, Error, Region, View};

/// One call, as far as files are concerned.
#[derive(Clone, Debug)]
pub enum Step {
    Create(String),
    Append(String, usize),
    /// Room for so many bytes is asked for, and so many are published.
    AppendInPlace(String, usize, usize),
    /// At so many thousandths of the length.
    WriteAt(String, usize, usize),
    TruncateWrite(String, usize, usize),
    /// So many values of this length.
    WriteBatch(String, usize, usize),
    Truncate(String, usize),
    Reserve(String, u64),
    /// In the place of the region that has the second name.
    Rename(String, String),
    Remove(String),
    /// Removes all but these.
    Retain(Vec<String>),
    ReserveFile(u64),
    ReserveRegions(u64),
    Flush,
    FlushRegion(String),
    Compact,
    Stats,
    /// Opens a view of a part of the region, in thousandths, and keeps it.
    View(String, usize, usize),
    ReleaseViews,
}

impl Step {
    /// Whether a database that has met a failed sync must refuse it. (A step that finds nothing to
    /// do may come back before it is refused.)
    pub fn is_change(&self) -> bool {
        !matches!(self, Step::Stats | Step::View(..) | Step::ReleaseViews)
    }

    /// The region whose bytes it changes where they are.
    pub fn overwritten(&self) -> Option<&str> {
        match self {
            Step::WriteAt(name, ..)
            | Step::TruncateWrite(name, ..)
            | Step::WriteBatch(name, ..) => Some(name),
            _ => None,
        }
    }
}

/// A view and what it showed at first.
struct Held(View, Vec<u8>);

/// What a region has been given to hold, by whatever names.
#[derive(Clone)]
struct Contents {
    id: u64,
    len: usize,
    /// What lies in the file, behind the length too: a truncation leaves it there.
    bytes: Arc<Vec<u8>>,
}

/// The state that a flush was to make durable.
#[derive(Clone)]
struct Moment {
    regions: BTreeMap<String, Contents>,
    /// How many of a region's writes it contains.
    written: HashMap<u64, usize>,
}

/// What a database must hold now, and what it may hold after a crash or a restart.
#[derive(Clone, Default)]
pub struct Model {
    regions: BTreeMap<String, Contents>,
    next_id: u64,
    /// The last completed flush, and those since that failed: they may have got far enough.
    moments: Vec<Moment>,
    /// All writes since the last completed flush, also of calls that failed, which may have changed
    /// bytes that only that flush speaks of.
    written: HashMap<u64, Vec<(usize, &'static [u8])>>,
    /// Regions that have changed since a flush was tried, and are to be flushed for certain.
    changed: HashSet<u64>,
}

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut bytes = vec![0; 8 << 20];
        fastrand::Rng::with_seed(0).fill(&mut bytes);
        bytes
    })
}

impl Model {
    /// Of an empty database.
    pub fn new() -> Model {
        let mut model = Model::default();
        model.flushed();
        model
    }

    fn moment(&self) -> Moment {
        let written = self.written.iter().map(|(&id, writes)| (id, writes.len())).collect();
        Moment { regions: self.regions.clone(), written }
    }

    /// A flush has completed.
    pub fn flushed(&mut self) {
        self.written.clear();
        self.changed.clear();
        for contents in self.regions.values_mut() {
            if contents.bytes.len() > contents.len {
                Arc::make_mut(&mut contents.bytes).truncate(contents.len);
            }
        }
        self.moments = vec![self.moment()];
    }

    /// A flush has failed, or may have: what it was about may be found.
    pub fn may_be_flushed(&mut self) {
        self.changed.clear();
        let moment = self.moment();
        self.moments.push(moment);
    }

    fn len(&self, name: &str) -> usize {
        self.regions.get(name).map_or(0, |contents| contents.len)
    }

    /// The bytes may be there from now on, whether or not the region says so.
    fn may_be_written(&mut self, name: &str, offset: usize, data: &'static [u8]) {
        let id = self.regions[name].id;
        self.written.entry(id).or_default().push((offset, data));
    }

    fn write(&mut self, name: &str, offset: usize, data: &[u8], len: usize) {
        let contents = self.regions.get_mut(name).unwrap();
        let bytes = Arc::make_mut(&mut contents.bytes);
        bytes.resize(bytes.len().max(offset + data.len()), 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
        contents.len = len;
        self.changed.insert(contents.id);
    }

    /// Takes what a recovered database shows for what it has to keep.
    pub fn adopt(&mut self, db: &Database) {
        self.regions.clear();
        for (name, bytes) in contents(db) {
            self.next_id += 1;
            let len = bytes.len();
            let contents = Contents { id: self.next_id, len, bytes: Arc::new(bytes) };
            self.regions.insert(name, contents);
        }
        self.flushed();
    }

    /// Whether `db` holds exactly this.
    pub fn check(&self, db: &Database) -> Result<(), String> {
        self.check_moment(
            db,
            &Moment { regions: self.regions.clone(), written: HashMap::new() },
            false,
        )
    }

    /// Whether `db`, which has been opened after a crash or a restart, holds what the last completed
    /// flush promised, or one after it.
    pub fn check_recovered(&self, db: &Database) -> Result<(), String> {
        let mut reasons = String::new();
        for moment in &self.moments {
            match self.check_moment(db, moment, true) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons += &format!("\n  not as flushed: {reason}"),
            }
        }
        Err(reasons)
    }

    /// After a failed write that could not be taken back: each byte of `name` is as it was, or as one
    /// of the writes since `earlier` was to make it. Takes it as it is.
    pub fn adopt_torn(&mut self, db: &Database, earlier: &Model, name: &str) -> Result<(), String> {
        let contents = &self.regions[name];
        let written = earlier.written.get(&contents.id).map_or(0, Vec::len);
        let moment = Moment {
            regions: self.regions.clone(),
            written: HashMap::from([(contents.id, written)]),
        };
        self.check_moment(db, &moment, true)?;
        let view = db.region(name).and_then(|region| region.view(0, u64::MAX)).unwrap();
        let contents = self.regions.get_mut(name).unwrap();
        Arc::make_mut(&mut contents.bytes)[..view.len()].copy_from_slice(&view);
        Ok(())
    }

    fn check_moment(&self, db: &Database, moment: &Moment, later: bool) -> Result<(), String> {
        let list = db.list().map_err(|error| error.to_string())?;
        let found: Vec<(&str, usize)> =
            list.iter().map(|(name, info)| (name.as_str(), info.len as usize)).collect();
        let wanted: Vec<(&str, usize)> =
            moment.regions.iter().map(|(name, it)| (name.as_str(), it.len)).collect();
        if found != wanted {
            return Err(format!("found {found:?}, wanted {wanted:?}"));
        }
        for (name, contents) in &moment.regions {
            let view = db.region(name).and_then(|region| region.view(0, u64::MAX));
            let view = view.map_err(|error| error.to_string())?;
            let wanted = &contents.bytes[..contents.len];
            if *view == *wanted {
                continue;
            }
            let first = moment.written.get(&contents.id).copied().unwrap_or(0);
            let writes = match self.written.get(&contents.id) {
                Some(writes) if later => &writes[first..],
                _ => &[],
            };
            for (at, (&byte, &wanted)) in view.iter().zip(wanted).enumerate() {
                let written = |&(offset, data): &(usize, &'static [u8])| {
                    at.checked_sub(offset).and_then(|at| data.get(at)) == Some(&byte)
                };
                if byte != wanted && !writes.iter().any(written) {
                    return Err(format!("byte {at} of {name:?} has never been {byte}"));
                }
            }
        }
        Ok(())
    }
}

fn contents(db: &Database) -> Vec<(String, Vec<u8>)> {
    let bytes = |name: &str| db.region(name).unwrap().view(0, u64::MAX).unwrap().to_vec();
    db.list().unwrap().into_iter().map(|(name, _)| (name.clone(), bytes(&name))).collect()
}

/// A program at work.
pub struct Program {
    pub model: Model,
    views: Vec<Held>,
    /// Chooses the bytes that are written.
    writes: usize,
}

impl Program {
    pub fn new(model: Model) -> Program {
        Program { model, views: Vec::new(), writes: 0 }
    }

    fn data(&mut self, len: usize) -> &'static [u8] {
        let noise = noise();
        self.writes += 1;
        let start = self.writes * 104_729 % (noise.len() - len);
        &noise[start..start + len]
    }

    /// One write, which is `call`, and leaves the region `new_len` long.
    fn write(
        &mut self,
        name: &str,
        offset: usize,
        data: &'static [u8],
        new_len: usize,
        call: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.model.may_be_written(name, offset, data);
        call()?;
        self.model.write(name, offset, data, new_len);
        Ok(())
    }

    /// Runs one step. `storage` is told when the call begins and ends that may touch files, which
    /// nothing else does.
    pub fn step(
        &mut self,
        db: &Database,
        step: &Step,
        storage: &dyn Fn(bool),
    ) -> Result<(), Error> {
        fn during<T>(storage: &dyn Fn(bool), call: impl FnOnce() -> T) -> T {
            storage(true);
            let result = call();
            storage(false);
            result
        }
        let region = |name: &str| -> Result<Region, Error> { db.region(name) };
        match step {
            Step::Create(name) => {
                during(storage, || db.create_region_if_needed(name))?;
                if !self.model.regions.contains_key(name) {
                    self.model.next_id += 1;
                    let id = self.model.next_id;
                    let contents = Contents { id, len: 0, bytes: Arc::default() };
                    self.model.regions.insert(name.clone(), contents);
                    self.model.changed.insert(id);
                }
            }
            Step::Append(name, len) => {
                let (region, data, at) = (region(name)?, self.data(*len), self.model.len(name));
                self.write(name, at, data, at + len, || {
                    let offset = during(storage, || region.write(data))?;
                    assert_eq!(offset, at as u64);
                    Ok(())
                })?;
            }
            Step::AppendInPlace(name, room, len) => {
                let (region, data, at) = (region(name)?, self.data(*len), self.model.len(name));
                let mut buffer = during(storage, || region.append_begin(*room))?;
                self.write(name, at, data, at + len, || {
                    buffer[..*len].copy_from_slice(data);
                    let offset = during(storage, || buffer.end(*len))?;
                    assert_eq!(offset, at as u64);
                    Ok(())
                })?;
            }
            Step::WriteAt(name, at, len) => {
                let (region, data, old) = (region(name)?, self.data(*len), self.model.len(name));
                let at = old * at / 1000;
                self.write(name, at, data, old.max(at + len), || {
                    during(storage, || region.write_at(data, at as u64))
                })?;
            }
            Step::TruncateWrite(name, at, len) => {
                let (region, data) = (region(name)?, self.data(*len));
                let at = self.model.len(name) * at / 1000;
                self.write(name, at, data, at + len, || {
                    during(storage, || region.truncate_write(at as u64, data))
                })?;
            }
            Step::WriteBatch(name, count, len) => {
                let (region, data, old) =
                    (region(name)?, self.data(count * len), self.model.len(name));
                if old < *len {
                    return Ok(());
                }
                let offsets: Vec<usize> =
                    (0..*count).map(|number| (number * 7919 * len) % (old - len + 1)).collect();
                for (&offset, value) in offsets.iter().zip(data.chunks_exact(*len)) {
                    self.model.may_be_written(name, offset, value);
                }
                let places: Vec<u64> = offsets.iter().map(|&offset| offset as u64).collect();
                during(storage, || region.write_batch(&places, data, *len))?;
                for (&offset, value) in offsets.iter().zip(data.chunks_exact(*len)) {
                    self.model.write(name, offset, value, old);
                }
            }
            Step::Truncate(name, to) => {
                let region = region(name)?;
                let old = self.model.len(name);
                let len = old * to / 1000;
                during(storage, || region.truncate(len as u64))?;
                if len < old {
                    let contents = self.model.regions.get_mut(name).unwrap();
                    contents.len = len;
                    self.model.changed.insert(contents.id);
                }
            }
            Step::Reserve(name, capacity) => {
                let region = region(name)?;
                during(storage, || region.reserve(*capacity))?;
            }
            Step::Rename(from, to) => {
                during(storage, || db.rename(from, to, true))?;
                let contents = self.model.regions.remove(from).unwrap();
                if from != to {
                    self.model.changed.insert(contents.id);
                }
                self.model.regions.insert(to.clone(), contents);
            }
            Step::Remove(name) => {
                during(storage, || db.remove(name))?;
                self.model.regions.remove(name).unwrap();
            }
            Step::Retain(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                during(storage, || db.retain(&names))?;
                self.model.regions.retain(|name, _| names.contains(&name.as_str()));
            }
            Step::ReserveFile(len) => during(storage, || db.reserve_file(*len))?,
            Step::ReserveRegions(count) => during(storage, || db.reserve_regions(*count))?,
            // An error of these may come before the flush is complete or after it.
            Step::Flush | Step::Compact => {
                self.model.may_be_flushed();
                match step {
                    Step::Flush => during(storage, || db.flush())?,
                    _ => during(storage, || db.compact())?,
                }
                self.model.flushed();
            }
            Step::FlushRegion(name) => {
                let region = region(name)?;
                // Where this region has nothing to flush, it is no flush of the others.
                let flushes = self.model.changed.contains(&self.model.regions[name].id);
                self.model.may_be_flushed();
                during(storage, || region.flush())?;
                if flushes {
                    self.model.flushed();
                }
            }
            Step::Stats => {
                let stats = during(storage, || db.stats())?;
                let lens: usize = self.model.regions.values().map(|it| it.len).sum();
                assert_eq!(stats.live_bytes, lens as u64);
                assert_eq!(
                    4096 + stats.reserved_bytes
                        + stats.free_bytes
                        + stats.pending_bytes
                        + stats.pinned_bytes,
                    stats.file_len,
                    "{stats:?}"
                );
            }
            Step::View(name, from, to) => {
                let (region, len) = (region(name)?, self.model.len(name));
                let (from, to) = (len * from / 1000, len * to / 1000);
                let view = during(storage, || region.view(from as u64, (to - from) as u64))?;
                let bytes = view.to_vec();
                self.views.push(Held(view, bytes));
            }
            Step::ReleaseViews => during(storage, || self.release_views()),
        }
        Ok(())
    }

    /// No view has changed.
    pub fn check_views(&self) {
        for Held(view, bytes) in &self.views {
            assert!(**view == bytes[..], "a view has changed");
        }
    }

    pub fn release_views(&mut self) {
        self.check_views();
        self.views.clear();
    }
}

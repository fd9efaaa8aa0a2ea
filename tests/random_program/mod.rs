//! Random programs for tests in which the process that runs them ends before its time: the same
//! program can be run again beside what is found, as a model.

use std::collections::BTreeMap;

use rawdb::Database;

/// A region as the program has it.
#[derive(Clone)]
pub struct Region {
    /// Which region this is, whatever its name.
    pub id: u64,
    pub bytes: Vec<u8>,
}

impl Region {
    /// Whether this, once flushed, may be found as `found`. What has been overwritten in place may
    /// have either value, byte by byte, because a disk may be given half of a store.
    pub fn may_become(&self, found: &[u8], later: &[(u64, Stores)]) -> bool {
        let stored = |at: usize| {
            later.iter().any(|(_, stores)| {
                let byte = at.checked_sub(stores.offset).and_then(|at| stores.bytes.get(at));
                stores.id == self.id && byte == Some(&found[at])
            })
        };
        self.bytes == found || (0..found.len()).all(|at| self.bytes[at] == found[at] || stored(at))
    }
}

/// A program of random operations: the same from the same seed, whatever happens to the database.
#[derive(Clone)]
pub struct Program {
    rng: fastrand::Rng,
    /// What the names of its regions begin with.
    prefix: &'static str,
    /// How many operations there have been.
    pub done: u64,
    pub regions: BTreeMap<String, Region>,
}

pub enum Operation {
    Create { name: String },
    Remove { name: String },
    Rename { from: String, to: String },
    Retain { names: Vec<String> },
    Truncate { name: String, len: u64 },
    Write(Stores),
}

/// Bytes that are written to a region.
pub struct Stores {
    name: String,
    /// The region's.
    id: u64,
    offset: usize,
    bytes: Vec<u8>,
    how: How,
    /// While somebody views the region.
    viewed: bool,
}

#[derive(Clone, Copy)]
enum How {
    Append,
    WriteAt,
    TruncateWrite,
    /// In values of a quarter of the bytes.
    WriteBatch,
    /// Of which so many bytes are published.
    AppendBuffer(usize),
}

impl Program {
    /// A program whose regions have names that begin with `prefix`. With any but the empty one it can
    /// run beside others.
    pub fn new(seed: u64, prefix: &'static str) -> Program {
        let rng = fastrand::Rng::with_seed(seed);
        Program { rng, prefix, done: 0, regions: BTreeMap::new() }
    }

    fn name(&mut self) -> String {
        // The name of one region makes its entry longer than a sector.
        match self.rng.u32(..8) {
            0 => format!("{}{}", self.prefix, "long ".repeat(150)),
            number => format!("{}r{number}", self.prefix),
        }
    }

    /// The next operation, which has been applied to `regions`.
    pub fn step(&mut self) -> Operation {
        self.done += 1;
        let name = self.name();
        let id = self.done;
        let Some(region) = self.regions.get_mut(&name) else {
            self.regions.insert(name.clone(), Region { id, bytes: Vec::new() });
            return Operation::Create { name };
        };
        let len = region.bytes.len();
        let kind = if len > 4 << 20 { 20 } else { self.rng.u32(..100) };
        match kind {
            0..=4 => {
                self.regions.remove(&name);
                return Operation::Remove { name };
            }
            5..=9 => {
                let to = self.name();
                let region = self.regions.remove(&name).unwrap();
                self.regions.insert(to.clone(), region);
                return Operation::Rename { from: name, to };
            }
            10 if self.prefix.is_empty() => {
                let rng = &mut self.rng;
                self.regions.retain(|_, _| rng.u32(..4) > 0);
                return Operation::Retain { names: self.regions.keys().cloned().collect() };
            }
            11..=20 => {
                let len = self.rng.usize(..=len);
                region.bytes.truncate(len);
                return Operation::Truncate { name, len: len as u64 };
            }
            _ => {}
        }
        let mut bytes = vec![
            0;
            match self.rng.u32(..60) {
                0 => self.rng.usize(1..3 << 20),
                1..=6 => self.rng.usize(1..40_000),
                _ => self.rng.usize(1..1_500),
            }
        ];
        self.rng.fill(&mut bytes);
        let (how, offset) = match kind {
            21..=35 => (How::WriteAt, self.rng.usize(..=len)),
            36..=45 => (How::TruncateWrite, self.rng.usize(..=len)),
            46..=55 if len >= 1000 => {
                bytes.truncate(len.min(bytes.len()) / 4 * 4);
                (How::WriteBatch, self.rng.usize(..=len - bytes.len()))
            }
            56..=65 => (How::AppendBuffer(self.rng.usize(..=bytes.len())), len),
            _ => (How::Append, len),
        };
        let published =
            if let How::AppendBuffer(published) = how { published } else { bytes.len() };
        let end = offset + published;
        region.bytes.resize(len.max(end), 0);
        region.bytes[offset..end].copy_from_slice(&bytes[..published]);
        if let How::TruncateWrite = how {
            region.bytes.truncate(end);
        }
        let (id, viewed) = (region.id, self.rng.u32(..4) == 0);
        Operation::Write(Stores { name, id, offset, bytes, how, viewed })
    }
}

impl Operation {
    pub fn run(&self, db: &Database) -> rawdb::Result<()> {
        match self {
            Operation::Create { name } => db.create_region_if_needed(name).map(drop),
            Operation::Remove { name } => db.remove(name),
            Operation::Rename { from, to } => db.rename(from, to, true),
            Operation::Retain { names } => {
                db.retain(&names.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Operation::Truncate { name, len } => db.region(name)?.truncate(*len),
            Operation::Write(stores) => stores.run(db),
        }
    }
}

impl Stores {
    fn run(&self, db: &Database) -> rawdb::Result<()> {
        let Stores { bytes, .. } = self;
        let offset = self.offset as u64;
        let region = db.region(&self.name)?;
        let _view = if self.viewed { Some(region.view(0, u64::MAX)?) } else { None };
        match self.how {
            How::Append => region.write(bytes).map(drop),
            How::WriteAt => region.write_at(bytes, offset),
            How::TruncateWrite => region.truncate_write(offset, bytes),
            How::WriteBatch => {
                let quarter = bytes.len() / 4;
                // Backwards, because the order is nobody's business.
                let offsets = [3, 2, 1, 0].map(|number| offset + number * quarter as u64);
                let mut values = Vec::with_capacity(bytes.len());
                bytes.rchunks(quarter.max(1)).for_each(|value| values.extend_from_slice(value));
                region.write_batch(&offsets, &values, quarter)
            }
            How::AppendBuffer(published) => {
                let mut buffer = region.append_begin(bytes.len())?;
                buffer.copy_from_slice(bytes);
                buffer.end(published).map(drop)
            }
        }
    }
}

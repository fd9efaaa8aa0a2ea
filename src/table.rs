//! The region table in memory: which names and slots are in use, and whose each part of `data` is.
//! One lock guards it all.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, MAX_FILE_LEN};
use crate::growth;
use crate::recovery::Region;
use crate::region::{RegionInfo, RegionInner};
use crate::resting::Resting;
use crate::space::{Extent, Space};
use crate::storage::window::map_generously;
use crate::storage::{File, Storage, Window};
use crate::sync::HashMap;

/// An extent that was given up and may still be part of the durable table.
struct Pending {
    /// The extent is free when the flush that ends this epoch is complete.
    epoch: u64,
    extent: Extent,
}

pub(crate) struct Table {
    /// The regions that somebody has asked for since the database was opened, and new ones.
    pub names: HashMap<Arc<str>, Arc<RegionInner>>,
    /// All others.
    pub resting: Resting,
    /// Regions that changed in the present flush epoch.
    pub dirty: Vec<Arc<RegionInner>>,
    pub space: Space,
    /// The newest and largest window on `data`.
    pub window: Arc<Window>,
    pub slots: Slots,
    pending: Vec<Pending>,
    pub pending_bytes: u64,
    /// Bytes that were given up and are held by views.
    pub pinned_bytes: u64,
    /// Every flush epoch up to this one is durable.
    pub durable_epoch: u64,
    /// The flush epoch in which the knowledge of allocated pieces was given up last. A region that has
    /// not changed since it ended must not rely on what it knows of its blocks.
    pub forgotten: u64,
    /// See [`Options::max_address_space`](crate::Options::max_address_space).
    max_address_space: u64,
}

/// Which slots of `regions` are free.
pub(crate) struct Slots {
    /// Given back since the database was opened.
    pub free: Vec<u64>,
    /// Runs that were vacant when it was opened, the lowest last. As runs they take memory for
    /// each region at most, however many slots a sparse file has.
    pub vacant: Vec<Range<u64>>,
    /// No slot from here on is in use.
    pub next: u64,
    /// How many slots the file has room for.
    pub capacity: u64,
}

impl Slots {
    /// A slot for a new region, with blocks in the file, so that no flush can run out of them.
    pub fn take(&mut self, storage: &dyn Storage) -> Result<u64> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        while let Some(run) = self.vacant.last_mut() {
            match run.next() {
                Some(slot) => return Ok(slot),
                None => self.vacant.pop(),
            };
        }
        if self.next == self.capacity {
            self.grow(storage, growth::slots(self.next + 1))
                .or_else(|_| self.grow(storage, self.next + 1))?;
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Makes room for `capacity` slots in the file.
    pub fn grow(&mut self, storage: &dyn Storage, capacity: u64) -> Result<()> {
        if capacity > self.capacity {
            let from = format::slot_offset(self.capacity, 0);
            let to = format::slot_offset(capacity, 0);
            storage.allocate(File::Regions, from, to - from).map_err(|error| {
                // A part of it may have been had.
                let _ = storage.set_len(File::Regions, from);
                Error::io("make room for regions in", storage.path(File::Regions), &error)
            })?;
            self.capacity = capacity;
        }
        Ok(())
    }
}

impl Table {
    pub fn new(space: Space, window: Arc<Window>, slots: Slots, max_address_space: u64) -> Table {
        Table {
            names: HashMap::default(),
            resting: Resting::default(),
            dirty: Vec::new(),
            space,
            window,
            slots,
            pending: Vec::new(),
            pending_bytes: 0,
            pinned_bytes: 0,
            durable_epoch: 0,
            forgotten: 0,
            max_address_space,
        }
    }

    /// The region of this name.
    pub fn find(&mut self, engine: &Arc<Engine>, name: &str) -> Option<Arc<RegionInner>> {
        if let Some(region) = self.names.get(name) {
            return Some(region.clone());
        }
        let slot = self.resting.remove(name)?;
        let region = slot.region(name);
        let place = region.place(self.space.file_len());
        let (abandoned, mirrored) = (false, false);
        let (slot, durable, tailed) = (slot.number, Some(region), slot.tailed);
        let found = Region { slot, region, durable, abandoned, mirrored, tailed };
        Some(self.enter(engine, &found, place))
    }

    /// Makes an object for a region that recovery has found.
    pub fn enter(
        &mut self,
        engine: &Arc<Engine>,
        found: &Region,
        place: Option<Extent>,
    ) -> Arc<RegionInner> {
        let (name, window) = (Arc::<str>::from(found.region.name), self.window.clone());
        let region = RegionInner::recovered(engine.clone(), name.clone(), found, place, window);
        self.names.insert(name, region.clone());
        region
    }

    /// All regions whose names are wanted.
    pub fn find_all(
        &mut self,
        engine: &Arc<Engine>,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Arc<RegionInner>> {
        let resting = self.resting.list().map(|region| region.name).filter(|name| wanted(name));
        let resting: Vec<_> = resting.map(str::to_owned).collect();
        for name in resting {
            self.find(engine, &name);
        }
        let regions = self.names.iter().filter(|(name, _)| wanted(name));
        regions.map(|(_, region)| region.clone()).collect()
    }

    /// The names of all regions, and where they lie.
    pub fn list(&self) -> impl Iterator<Item = (&str, RegionInfo)> {
        let file_len = self.space.file_len();
        let resting = self.resting.list().map(move |it| {
            let place = it.place(file_len).unwrap_or(Extent { start: 0, len: 0 });
            (it.name, RegionInfo { start: place.start, len: it.len, reserved: place.len })
        });
        self.names.iter().map(|(name, region)| (&**name, region.info())).chain(resting)
    }

    /// Takes an extent for a region that must hold `need` bytes, and a window that reaches it.
    pub fn take_extent(
        &mut self,
        storage: &dyn Storage,
        writable_window: bool,
        need: u64,
    ) -> Result<(Extent, Arc<Window>)> {
        let piece = self.space.piece();
        let (least, want) =
            (growth::least_reservation(need, piece), growth::reservation(need, piece));
        // A hole that is a little small is better used than left for ever, but one without room
        // to grow only puts off the move.
        let acceptable = (least * 2).max(want / 4).min(want);
        let hole = self.space.take(want).or_else(|| self.space.take_between(acceptable, want));
        if let Some(extent) = hole {
            return Ok((extent, self.window.clone()));
        }
        let mut result = Ok(());
        // Near a limit of the file system or of the address space less has to do, so that other
        // regions find something too.
        for len in [want, growth::modest_reservation(need, piece), least] {
            result = self.grow_free_end(storage, writable_window, len);
            if let Some(extent) = self.space.take(len) {
                return Ok((extent, self.window.clone()));
            }
        }
        Err(result.expect_err("a free end of the needed length can be taken"))
    }

    /// Lets the reservation that ends at `end` grow in place until it holds `need` bytes more, and
    /// further if `want` is more, without leaving the window that it is in. Returns what it has
    /// grown by.
    pub fn extend_extent(
        &mut self,
        storage: &dyn Storage,
        writable_window: bool,
        end: u64,
        [want, modest, need]: [u64; 3],
        window: &Arc<Window>,
    ) -> Option<Extent> {
        if !Arc::ptr_eq(window, &self.window) {
            // An outgrown window is open only as far as the file went then.
            return None;
        }
        let room = window.reach().saturating_sub(end);
        if self.space.free_end() != end {
            return (need <= room).then(|| self.space.take_at(end, need, want.min(room)))?;
        }
        [want, modest, need].into_iter().filter(|&len| len <= room).find_map(|len| {
            // If the file cannot grow, its free end may still do.
            let _ = self.grow_free_end(storage, writable_window, len);
            // Growing the file further than needed may have replaced the window.
            let same_window = Arc::ptr_eq(window, &self.window);
            same_window.then(|| self.space.take_at(end, len, len))?
        })
    }

    /// Makes the free end of the file at least `len` bytes long.
    fn grow_free_end(
        &mut self,
        storage: &dyn Storage,
        writable_window: bool,
        len: u64,
    ) -> Result<()> {
        let need = self.space.free_end() + len;
        if need <= self.space.file_len() {
            return Ok(());
        }
        let generous = growth::file_len(self.space.file_len(), need);
        self.grow_file(storage, writable_window, generous)
            .or_else(|_| self.grow_file(storage, writable_window, need))
    }

    /// Makes `data` at least `len` bytes long, and reachable through the window.
    pub fn grow_file(
        &mut self,
        storage: &dyn Storage,
        writable_window: bool,
        len: u64,
    ) -> Result<()> {
        let path = storage.path(File::Data);
        if len > MAX_FILE_LEN {
            let error = std::io::Error::from_raw_os_error(libc::EFBIG);
            return Err(Error::io("extend", path, &error));
        }
        let len = len.next_multiple_of(self.space.piece());
        if len <= self.space.file_len() {
            return Ok(());
        }
        if len > self.window.reach() {
            let window = map_generously(storage, len, self.max_address_space, writable_window)?;
            self.window = Arc::new(window);
        }
        storage.set_len(File::Data, len).map_err(|error| Error::io("extend", path, &error))?;
        storage
            .open_window(&self.window, len, writable_window)
            .map_err(|error| Error::io("map", path, &error).with_kind(ErrorKind::NoMemory))?;
        self.space.grow(len);
        Ok(())
    }

    /// Gives up an extent that no view pins. `epoch` is the first flush epoch whose table does not
    /// have it, or `None` where no table ever had it.
    pub fn give_up(&mut self, extent: Extent, epoch: Option<u64>) {
        match epoch {
            Some(epoch) if epoch > self.durable_epoch => {
                self.pending_bytes += extent.len;
                self.pending.push(Pending { epoch, extent });
            }
            _ => self.space.give_back(extent, 0),
        }
    }

    /// The table of `epoch` is durable: what it does not have is free.
    pub fn set_durable(&mut self, epoch: u64) {
        assert!(epoch > self.durable_epoch);
        self.durable_epoch = epoch;
        let (durable, later): (Vec<Pending>, _) =
            std::mem::take(&mut self.pending).into_iter().partition(|it| it.epoch <= epoch);
        self.pending = later;
        for Pending { extent, .. } in durable {
            self.pending_bytes -= extent.len;
            self.space.give_back(extent, 0);
        }
    }
}

//! The durable table in memory. A region stays in here until somebody asks for it: opening a database
//! makes no object for each of its regions, and one that nobody asks for takes a fraction of the memory.

use std::hash::BuildHasher;

use hashbrown::hash_table::{Entry, HashTable};

use crate::format::{round_up, RegionEntry};
use crate::space::Extent;
use crate::sync::{HashMap, RandomState};

/// Memory that could not be had. What is reserved here grows with what the files hold.
pub(crate) struct NoMemory;

/// A slot with an entry on one side at least.
#[derive(Clone, Copy)]
pub(crate) struct RestingSlot {
    pub number: u64,
    start: u64,
    len: u64,
    reserved: u64,
    /// Where its name is in those of all.
    name: usize,
    /// 0 where it holds no region.
    name_len: u16,
    /// The side that holds the durable entry.
    pub side: u8,
    /// That entry has the generation of the header.
    pub newest: bool,
    /// A flush that did not complete has left something on the other side, which would pass for
    /// part of a later table if it were not overwritten.
    pub abandoned: bool,
    /// The durable entry has a tail.
    pub tailed: bool,
}

impl RestingSlot {
    /// One without a durable entry. It is first written to side 0.
    pub fn vacant(number: u64) -> RestingSlot {
        RestingSlot {
            number,
            start: 0,
            len: 0,
            reserved: 0,
            name: 0,
            name_len: 0,
            side: 1,
            newest: false,
            abandoned: false,
            tailed: false,
        }
    }

    pub fn is_vacant(&self) -> bool {
        self.name_len == 0
    }

    /// The pages of its place behind its bytes. (All of the place is in the file: a region of which that
    /// is not true is none of the resting ones.)
    fn room(&self) -> Option<Extent> {
        let used = round_up(self.len);
        (used < self.reserved)
            .then(|| Extent { start: self.start + used, len: self.reserved - used })
    }

    fn name<'a>(&self, names: &'a str) -> Option<&'a str> {
        let end = self.name + usize::from(self.name_len);
        (!self.is_vacant()).then(|| &names[self.name..end])
    }

    /// The region in it, which has this name, without a tail.
    pub fn region<'a>(&self, name: &'a str) -> RegionEntry<'a> {
        let RestingSlot { start, len, reserved, .. } = *self;
        RegionEntry { name, start, len, reserved, tail: &[] }
    }
}

/// The slots of the durable table, in the order of their numbers. Those without an entry on either side
/// are left out: memory is needed for what the file holds, not for its length, which costs whoever made
/// it nothing.
#[derive(Default)]
pub(crate) struct Resting {
    slots: Vec<RestingSlot>,
    names: String,
    /// By their slots, as long as `data` may not have their bytes; none of a closed database.
    tails: HashMap<u64, Box<[u8]>>,
    /// The regions by their names, as places in `slots`.
    by_name: HashTable<u32>,
    hasher: RandomState,
}

impl Resting {
    /// Adds a slot behind the others, with the region that it holds.
    pub fn push(
        &mut self,
        mut slot: RestingSlot,
        region: Option<&RegionEntry>,
        keep_tail: bool,
    ) -> Result<(), NoMemory> {
        assert!(self.slots.last().is_none_or(|last| last.number < slot.number));
        if let Some(&RegionEntry { name, start, len, reserved, tail }) = region {
            self.names.try_reserve(name.len()).map_err(|_| NoMemory)?;
            (slot.name, slot.name_len) = (self.names.len(), name.len() as u16);
            (slot.start, slot.len, slot.reserved) = (start, len, reserved);
            slot.tailed = !tail.is_empty();
            self.names.push_str(name);
            if slot.tailed && keep_tail {
                self.tails.try_reserve(1).map_err(|_| NoMemory)?;
                self.tails.insert(slot.number, tail.into());
            }
        }
        // Nor is there for as many as a place in 32 bits can tell apart.
        u32::try_from(self.slots.len()).map_err(|_| NoMemory)?;
        self.slots.try_reserve(1).map_err(|_| NoMemory)?;
        self.slots.push(slot);
        Ok(())
    }

    /// All slots, vacant ones included.
    pub fn slots(&self) -> &[RestingSlot] {
        &self.slots
    }

    pub fn slot(&self, number: u64) -> Option<&RestingSlot> {
        let place = self.slots.binary_search_by_key(&number, |slot| slot.number).ok()?;
        Some(&self.slots[place])
    }

    /// The region in a slot.
    pub fn region(&self, slot: &RestingSlot) -> Option<RegionEntry<'_>> {
        let tail = match slot.tailed {
            true => self.tails.get(&slot.number).map_or(&[][..], |tail| tail),
            false => &[],
        };
        Some(RegionEntry { tail, ..slot.region(slot.name(&self.names)?) })
    }

    /// Makes the regions known by their names. Returns two slots whose regions have the same, if there
    /// are such.
    pub fn index(&mut self) -> Result<Option<[u64; 2]>, NoMemory> {
        let mut by_name = HashTable::new();
        by_name.try_reserve(self.slots.len(), |_| 0).map_err(|_| NoMemory)?;
        for (slot, place) in self.slots.iter().zip(0..) {
            let Some(name) = slot.name(&self.names) else { continue };
            let is_same = |&other: &u32| self.slots[other as usize].name(&self.names) == Some(name);
            // There is room for all, so nothing is hashed again.
            match by_name.entry(self.hasher.hash_one(name), is_same, |_| unreachable!()) {
                Entry::Vacant(free) => drop(free.insert(place)),
                Entry::Occupied(other) => {
                    return Ok(Some([slot.number, self.slots[*other.get() as usize].number]))
                }
            }
        }
        self.by_name = by_name;
        Ok(None)
    }

    /// The regions that have room behind their bytes, as places in `slots`.
    pub fn with_room(&self) -> Vec<u32> {
        let places = self.by_name.iter().copied();
        let mut places: Vec<_> =
            places.filter(|&place| self.slots[place as usize].room().is_some()).collect();
        places.sort_unstable();
        places
    }

    /// What one of them has, unless somebody has asked for it since. The durable table needs nothing of
    /// it, and no view is on it.
    pub fn room(&self, place: u32) -> Option<Extent> {
        let slot = self.slots.get(place as usize)?;
        let hash = self.hasher.hash_one(slot.name(&self.names)?);
        self.by_name.find(hash, |&other| other == place)?;
        slot.room()
    }

    /// Takes out the region of this name.
    pub fn remove(&mut self, name: &str) -> Option<RestingSlot> {
        let is_it = |&place: &u32| self.slots[place as usize].name(&self.names) == Some(name);
        let found = self.by_name.find_entry(self.hasher.hash_one(name), is_it).ok()?;
        let slot = self.slots[found.remove().0 as usize];
        if self.by_name.is_empty() {
            *self = Resting::default();
        }
        Some(slot)
    }

    /// Takes out the region in a slot, if there is one.
    pub fn remove_slot(&mut self, number: u64) {
        if let Some(name) = self.slot(number).and_then(|slot| slot.name(&self.names)) {
            let name = name.to_owned();
            self.remove(&name);
        }
    }

    /// For when `data` has their bytes.
    pub fn drop_tails(&mut self) {
        self.tails = HashMap::default();
    }

    /// How many regions there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The regions, in no order.
    pub fn list(&self) -> impl Iterator<Item = RegionEntry<'_>> {
        self.by_name.iter().filter_map(|&place| self.region(&self.slots[place as usize]))
    }
}

//! Free space in `data`: holes, best fit, coalescing. A pure data structure without I/O.
//!
//! Every byte of `data` behind the identity page belongs to exactly one of: a region's
//! reservation, an extent that waits for a flush or a view, or a hole in here. The free end of the
//! file is a hole like any other.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::PAGE_SIZE;

/// A run of whole pages in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub start: u64,
    pub len: u64,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    len: u64,
    /// At most so many bytes of it may still occupy blocks of the file system.
    occupied: u64,
}

/// The holes of `data`.
#[derive(Debug)]
pub(crate) struct Space {
    file_len: u64,
    by_start: BTreeMap<u64, Hole>,
    by_len: BTreeSet<(u64, u64)>,
    /// Starts of the holes whose blocks are worth giving back.
    reclaimable: BTreeSet<u64>,
    reclaim_threshold: u64,
    free: u64,
}

impl Space {
    /// Space of a file of `file_len` bytes in which nothing is free yet.
    pub fn new(file_len: u64, reclaim_threshold: u64) -> Space {
        assert!(file_len >= PAGE_SIZE && file_len % PAGE_SIZE == 0);
        Space {
            file_len,
            by_start: BTreeMap::new(),
            by_len: BTreeSet::new(),
            reclaimable: BTreeSet::new(),
            reclaim_threshold,
            free: 0,
        }
    }

    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Bytes in holes.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Starts of all holes, in order.
    pub fn holes(&self) -> Vec<u64> {
        self.by_start.keys().copied().collect()
    }

    /// Starts of the holes that may occupy blocks, in order.
    pub fn occupied_holes(&self) -> Vec<u64> {
        let occupied = self.by_start.iter().filter(|(_, hole)| hole.occupied > 0);
        occupied.map(|(&start, _)| start).collect()
    }

    /// The file has grown to `file_len`: the new end is a hole without blocks.
    pub fn grow(&mut self, file_len: u64) {
        assert!(file_len > self.file_len && file_len % PAGE_SIZE == 0);
        let new = Extent { start: self.file_len, len: file_len - self.file_len };
        self.file_len = file_len;
        self.give_back(new, 0);
    }

    /// The start of the free end of the file (the file's length where the end is in use).
    pub fn free_end(&self) -> u64 {
        match self.by_start.last_key_value() {
            Some((&start, hole)) if start + hole.len == self.file_len => start,
            _ => self.file_len,
        }
    }

    /// The file has been cut to `file_len`, which lies in its free end.
    pub fn cut(&mut self, file_len: u64) {
        let start = self.free_end();
        assert!(start <= file_len && file_len <= self.file_len && file_len % PAGE_SIZE == 0);
        if file_len < self.file_len {
            let hole = self.remove(start);
            self.file_len = file_len;
            if file_len > start {
                self.insert(start, file_len - start, hole.occupied);
            }
        }
    }

    /// Takes `len` bytes from the smallest hole that has them.
    pub fn take(&mut self, len: u64) -> Option<Extent> {
        self.take_between(len, len)
    }

    /// Takes as much as it can, but at most `most`, from the smallest hole of at least `least`.
    pub fn take_between(&mut self, least: u64, most: u64) -> Option<Extent> {
        assert!(least > 0 && least % PAGE_SIZE == 0 && most >= least && most % PAGE_SIZE == 0);
        let &(_, start) = self.by_len.range((least, 0)..).next()?;
        Some(self.take_front(start, most))
    }

    /// Takes up to `len` bytes that begin exactly at `start`, but nothing if fewer than `least`
    /// are free there.
    pub fn take_at(&mut self, start: u64, least: u64, len: u64) -> Option<Extent> {
        let hole = self.by_start.get(&start)?;
        (hole.len >= least).then(|| self.take_front(start, len))
    }

    /// Takes the whole hole that begins at `start`, if there still is one.
    pub fn take_hole(&mut self, start: u64) -> Option<Extent> {
        let hole = *self.by_start.get(&start)?;
        self.remove(start);
        Some(Extent { start, len: hole.len })
    }

    /// Takes a whole hole whose blocks are worth giving back.
    pub fn take_reclaimable(&mut self) -> Option<Extent> {
        let start = *self.reclaimable.first()?;
        self.take_hole(start)
    }

    /// Gives `extent` back, of which at most `occupied` bytes hold blocks.
    pub fn give_back(&mut self, extent: Extent, occupied: u64) {
        let Extent { mut start, mut len } = extent;
        let mut occupied = occupied.min(len);
        assert!(len > 0 && start >= PAGE_SIZE && extent.end() <= self.file_len);
        if let Some((&before, hole)) = self.by_start.range(..start).next_back() {
            assert!(before + hole.len <= start, "an extent is freed twice");
            if before + hole.len == start {
                let hole = self.remove(before);
                start = before;
                len += hole.len;
                occupied += hole.occupied;
            }
        }
        if let Some((&after, _)) = self.by_start.range(start + 1..).next() {
            assert!(start + len <= after, "an extent is freed twice");
            if start + len == after {
                let hole = self.remove(after);
                len += hole.len;
                occupied += hole.occupied;
            }
        }
        self.insert(start, len, occupied);
    }

    fn take_front(&mut self, start: u64, most: u64) -> Extent {
        let hole = self.remove(start);
        let len = hole.len.min(most);
        if hole.len > len {
            let rest = hole.len - len;
            self.insert(start + len, rest, hole.occupied.min(rest));
        }
        Extent { start, len }
    }

    fn insert(&mut self, start: u64, len: u64, occupied: u64) {
        self.by_start.insert(start, Hole { len, occupied });
        self.by_len.insert((len, start));
        if occupied >= self.reclaim_threshold {
            self.reclaimable.insert(start);
        }
        self.free += len;
    }

    fn remove(&mut self, start: u64) -> Hole {
        let hole = self.by_start.remove(&start).expect("a hole begins here");
        self.by_len.remove(&(hole.len, start));
        self.reclaimable.remove(&start);
        self.free -= hole.len;
        hole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_SIZE;

    fn space(pages: u64) -> Space {
        let mut space = Space::new(P, 4 * P);
        space.grow((pages + 1) * P);
        space
    }

    /// Random takes and frees against a map of single pages.
    #[test]
    fn agrees_with_a_bitmap() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let pages = 200;
        let mut space = space(pages);
        let mut free = vec![true; pages as usize];
        let mut taken: Vec<Extent> = Vec::new();
        let page = |address: u64| (address / P - 1) as usize;
        for _ in 0..20_000 {
            if rng.bool() {
                let want = rng.u64(1..20) * P;
                let longest =
                    free.split(|&free| !free).map(|run| run.len() as u64 * P).max().unwrap();
                match space.take(want) {
                    Some(extent) => {
                        assert_eq!(extent.len, want);
                        for slot in &mut free[page(extent.start)..page(extent.end())] {
                            assert!(std::mem::replace(slot, false));
                        }
                        taken.push(extent);
                    }
                    None => assert!(longest < want, "a run of {longest} was not found"),
                }
            } else if !taken.is_empty() {
                let extent = taken.swap_remove(rng.usize(..taken.len()));
                space.give_back(extent, extent.len);
                free[page(extent.start)..page(extent.end())].fill(true);
            }
            let runs = free.split(|&free| !free).filter(|run| !run.is_empty()).count();
            assert_eq!(space.holes().len(), runs, "neighbouring holes are one");
            assert_eq!(space.free(), free.iter().filter(|&&free| free).count() as u64 * P);
        }
    }

    #[test]
    fn takes_the_smallest_hole_that_fits() {
        let mut space = space(100);
        let all: Vec<_> = (0..10).map(|_| space.take(10 * P).unwrap()).collect();
        space.give_back(Extent { start: all[1].start, len: 8 * P }, 0);
        space.give_back(Extent { start: all[5].start, len: 3 * P }, 0);
        assert_eq!(space.take(3 * P).unwrap().start, all[5].start);
        assert_eq!(space.take(3 * P).unwrap().start, all[1].start);
        assert_eq!(space.take(6 * P), None);
    }

    #[test]
    fn knows_what_is_worth_reclaiming_and_where_the_file_ends() {
        let mut space = space(20);
        let a = space.take(4 * P).unwrap();
        let b = space.take(4 * P).unwrap();
        assert_eq!(space.free_end(), b.end());
        space.give_back(a, 3 * P);
        assert_eq!(space.take_reclaimable(), None);
        space.give_back(b, 4 * P);
        assert_eq!(space.free_end(), P);
        let hole = space.take_reclaimable().unwrap();
        assert_eq!(hole, Extent { start: P, len: 20 * P });
        space.give_back(hole, 0);
        assert_eq!(space.take_reclaimable(), None);
        space.cut(5 * P);
        assert_eq!((space.file_len(), space.free()), (5 * P, 4 * P));
        space.cut(P);
        assert_eq!((space.file_len(), space.free()), (P, 0));
    }
}

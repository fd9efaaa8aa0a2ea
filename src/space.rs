//! Free space in `data`: holes, best fit, coalescing. A pure data structure without I/O.
//!
//! Every byte of `data` behind the identity page belongs to exactly one of: a region's
//! reservation, an extent that waits for a flush or a view, or a hole in here. The free end of the
//! file is a hole like any other.
//!
//! Blocks are given back in whole pieces (see [`Pieces`](crate::pieces::Pieces)), so a hole also
//! knows how many bytes of the whole pieces in it have no blocks.

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

    /// The whole pieces in it; of length 0 if there are none.
    pub fn whole(&self, piece: u64) -> Extent {
        let start = self.start.next_multiple_of(piece);
        let end = self.end() / piece * piece;
        Extent { start, len: end.saturating_sub(start) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    len: u64,
    /// At least so many bytes of its whole pieces have no blocks.
    punched: u64,
}

/// The holes of `data`.
#[derive(Debug)]
pub(crate) struct Space {
    file_len: u64,
    piece: u64,
    by_start: BTreeMap<u64, Hole>,
    by_len: BTreeSet<(u64, u64)>,
    /// Starts of the holes whose blocks are worth giving back.
    reclaimable: BTreeSet<u64>,
    reclaim_threshold: u64,
    free: u64,
}

impl Space {
    /// Space of a file of `file_len` bytes in which nothing is free yet.
    pub fn new(file_len: u64, piece: u64, reclaim_threshold: u64) -> Space {
        assert!(file_len >= PAGE_SIZE && file_len % piece == 0 && piece % PAGE_SIZE == 0);
        Space {
            file_len,
            piece,
            by_start: BTreeMap::new(),
            by_len: BTreeSet::new(),
            reclaimable: BTreeSet::new(),
            reclaim_threshold: reclaim_threshold.max(1),
            free: 0,
        }
    }

    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    pub fn piece(&self) -> u64 {
        self.piece
    }

    /// Bytes in holes.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Starts of all holes, in order.
    pub fn holes(&self) -> Vec<u64> {
        self.by_start.keys().copied().collect()
    }

    /// Starts of the holes with whole pieces that may have blocks, in order.
    pub fn occupied_holes(&self) -> Vec<u64> {
        let holes = self.by_start.iter();
        holes.filter(|(&start, hole)| self.occupied(start, hole) > 0).map(|(&it, _)| it).collect()
    }

    /// The file has grown to `file_len`: the new end is a hole without blocks.
    pub fn grow(&mut self, file_len: u64) {
        assert!(file_len > self.file_len && file_len % self.piece == 0);
        let new = Extent { start: self.file_len, len: file_len - self.file_len };
        self.file_len = file_len;
        self.give_back(new, new.len);
    }

    /// The start of the free end of the file (the file's length where the end is in use).
    pub fn free_end(&self) -> u64 {
        match self.by_start.last_key_value() {
            Some((&start, hole)) if start + hole.len == self.file_len => start,
            _ => self.file_len,
        }
    }

    /// The file has been cut to `file_len`, in whole pieces of its free end.
    pub fn cut(&mut self, file_len: u64) {
        let start = self.free_end();
        assert!(start <= file_len && file_len <= self.file_len && file_len % self.piece == 0);
        if file_len < self.file_len {
            self.remove(start);
            self.file_len = file_len;
            if file_len > start {
                self.insert(start, Hole { len: file_len - start, punched: 0 });
            }
        }
    }

    /// Takes `len` bytes from the smallest hole that has them; whole pieces of it, where `len` is
    /// in whole pieces.
    pub fn take(&mut self, len: u64) -> Option<Extent> {
        self.take_between(len, len)
    }

    /// Takes as much as it can, but at most `most`, from the smallest hole of at least `least`.
    pub fn take_between(&mut self, least: u64, most: u64) -> Option<Extent> {
        assert!(least > 0 && least % PAGE_SIZE == 0 && most >= least && most % PAGE_SIZE == 0);
        let aligned = least % self.piece == 0 && most % self.piece == 0;
        let usable = |&(len, start): &(u64, u64)| {
            let hole = Extent { start, len };
            if aligned {
                hole.whole(self.piece)
            } else {
                hole
            }
        };
        let mut holes = self.by_len.range((least, 0)..);
        let found = holes.find(|hole| usable(hole).len >= least)?;
        let (hole, usable) = (found.1, usable(found));
        Some(self.take_part(hole, Extent { start: usable.start, len: usable.len.min(most) }))
    }

    /// Takes up to `most` bytes that begin exactly at `start`, but nothing if fewer than `least`
    /// are free there.
    pub fn take_at(&mut self, start: u64, least: u64, most: u64) -> Option<Extent> {
        let len = self.by_start.get(&start)?.len;
        (len >= least).then(|| self.take_part(start, Extent { start, len: len.min(most) }))
    }

    /// Takes the whole hole that begins at `start`, if there still is one.
    pub fn take_hole(&mut self, start: u64) -> Option<Extent> {
        self.by_start.contains_key(&start).then(|| {
            let hole = self.remove(start);
            Extent { start, len: hole.len }
        })
    }

    /// Takes a whole hole whose blocks are worth giving back.
    pub fn take_reclaimable(&mut self) -> Option<Extent> {
        let start = *self.reclaimable.first()?;
        self.take_hole(start)
    }

    /// Gives `extent` back. At least `punched` bytes of its whole pieces have no blocks.
    pub fn give_back(&mut self, extent: Extent, punched: u64) {
        let Extent { mut start, mut len } = extent;
        let mut punched = punched.min(extent.whole(self.piece).len);
        assert!(len > 0 && start >= PAGE_SIZE && extent.end() <= self.file_len);
        if let Some((&before, hole)) = self.by_start.range(..start).next_back() {
            assert!(before + hole.len <= start, "an extent is freed twice");
            if before + hole.len == start {
                let hole = self.remove(before);
                start = before;
                len += hole.len;
                punched += hole.punched;
            }
        }
        if let Some((&after, _)) = self.by_start.range(start + 1..).next() {
            assert!(start + len <= after, "an extent is freed twice");
            if start + len == after {
                let hole = self.remove(after);
                len += hole.len;
                punched += hole.punched;
            }
        }
        self.insert(start, Hole { len, punched });
    }

    /// Takes `part` of the hole that begins at `start`.
    fn take_part(&mut self, start: u64, part: Extent) -> Extent {
        let hole = self.remove(start);
        let end = start + hole.len;
        let whole = Extent { start, len: hole.len }.whole(self.piece).len;
        for (start, end) in [(start, part.start), (part.end(), end)] {
            if start < end {
                let rest = Extent { start, len: end - start };
                // Whatever is not in the rest may have been the punched part.
                let elsewhere = whole - rest.whole(self.piece).len;
                let punched = hole.punched.saturating_sub(elsewhere);
                self.insert(start, Hole { len: rest.len, punched });
            }
        }
        part
    }

    fn occupied(&self, start: u64, hole: &Hole) -> u64 {
        Extent { start, len: hole.len }.whole(self.piece).len - hole.punched
    }

    fn insert(&mut self, start: u64, hole: Hole) {
        if self.occupied(start, &hole) >= self.reclaim_threshold {
            self.reclaimable.insert(start);
        }
        self.by_start.insert(start, hole);
        self.by_len.insert((hole.len, start));
        self.free += hole.len;
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
    const PIECE: u64 = 4 * P;

    /// A file of so many pages, the first in use.
    fn space(pages: u64) -> Space {
        let mut space = Space::new(PIECE, PIECE, PIECE);
        space.give_back(Extent { start: P, len: PIECE - P }, 0);
        space.grow(pages * P);
        space
    }

    /// Random takes and frees against a map of single pages.
    #[test]
    fn agrees_with_a_bitmap() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut space = space(200);
        let mut free = [true; 200];
        free[0] = false;
        let mut taken: Vec<Extent> = Vec::new();
        let pages = |extent: Extent| (extent.start / P) as usize..(extent.end() / P) as usize;
        for _ in 0..20_000 {
            if rng.bool() {
                let want = rng.u64(1..20) * P;
                let fits = |start: usize| {
                    let extent = Extent { start: start as u64 * P, len: want };
                    (want % PIECE != 0 || extent.start % PIECE == 0)
                        && extent.end() <= 200 * P
                        && free[pages(extent)].iter().all(|&free| free)
                };
                match space.take(want) {
                    Some(extent) => {
                        assert_eq!(extent.len, want);
                        assert!(want % PIECE != 0 || extent.start % PIECE == 0);
                        for slot in &mut free[pages(extent)] {
                            assert!(std::mem::replace(slot, false));
                        }
                        taken.push(extent);
                    }
                    None => assert!(!(1..200).any(fits), "a run of {want} was not found"),
                }
            } else if !taken.is_empty() {
                let extent = taken.swap_remove(rng.usize(..taken.len()));
                space.give_back(extent, 0);
                free[pages(extent)].fill(true);
            }
            let runs = free.split(|&free| !free).filter(|run| !run.is_empty()).count();
            assert_eq!(space.holes().len(), runs, "neighbouring holes are one");
            assert_eq!(space.free(), free.iter().filter(|&&free| free).count() as u64 * P);
        }
    }

    #[test]
    fn takes_the_smallest_hole_that_fits() {
        let mut space = space(120);
        let all: Vec<_> = (0..10).map(|_| space.take(10 * P).unwrap()).collect();
        space.give_back(Extent { start: all[1].start, len: 9 * P }, 0);
        space.give_back(Extent { start: all[5].start, len: 3 * P }, 0);
        assert_eq!(space.take(3 * P).unwrap().start, all[5].start);
        assert_eq!(space.take(3 * P).unwrap().start, all[1].start);
        assert_eq!(space.take_at(all[1].start + 3 * P, 7 * P, 9 * P), None);
        assert_eq!(space.take_at(all[1].start + 3 * P, 2 * P, 5 * P).unwrap().len, 5 * P);
    }

    #[test]
    fn knows_what_is_worth_reclaiming_and_where_the_file_ends() {
        let mut space = space(20);
        // Pages 1 to 9 and 10 to 15; pages 16 to 19 are the free end.
        let (a, b) = (space.take(9 * P).unwrap(), space.take(6 * P).unwrap());
        assert_eq!((a.start, b.start, space.free_end()), (P, 10 * P, 16 * P));
        // Pages 1 to 3 are no whole piece.
        space.give_back(Extent { start: P, len: 3 * P }, 0);
        assert_eq!(space.take_reclaimable(), None);
        space.give_back(Extent { start: 4 * P, len: 6 * P }, 0);
        let hole = space.take_reclaimable().unwrap();
        assert_eq!(hole, Extent { start: P, len: 9 * P });
        space.give_back(hole, hole.whole(PIECE).len);
        assert_eq!(space.take_reclaimable(), None);
        // What was no whole piece on either side is one now: pages 8 to 11, and 12 to 15.
        space.give_back(b, 0);
        assert_eq!(space.free_end(), P);
        assert_eq!(space.occupied_holes(), [P]);
        let hole = space.take_reclaimable().unwrap();
        space.give_back(hole, hole.whole(PIECE).len);
        assert!(space.occupied_holes().is_empty());
        space.cut(8 * P);
        assert_eq!((space.file_len(), space.free()), (8 * P, 7 * P));
        space.cut(4 * P);
        assert_eq!((space.file_len(), space.free()), (4 * P, 3 * P));
    }
}

//! Which parts of `data` can be stored to without needing space.
//!
//! A store through the mapping into a page that the kernel has not made writable yet makes it look
//! for blocks: not of the 4 KiB stored to, but of the whole folio that caches them, which on
//! current kernels and file systems is up to 2 MiB, aligned. Were there a hole anywhere in it and
//! the disk full, the host program would get SIGBUS. Nor can the library choose the folios: a
//! backup that reads the file makes large ones.
//!
//! So blocks are taken and given back in *pieces* of that size, and nothing is stored into a piece
//! that does not have all of its blocks. Small regions share pieces; large ones have their own.

use std::collections::BTreeSet;

use crate::space::Extent;

/// Knows the pieces that have all their blocks, as far as this process has seen to it.
///
/// Its lock is held while blocks are taken, and while parts of pieces are given back.
#[derive(Debug)]
pub(crate) struct Pieces {
    len: u64,
    /// By number: offset in `data` divided by `len`.
    allocated: BTreeSet<u64>,
}

impl Pieces {
    pub fn new(len: u64) -> Pieces {
        Pieces { len, allocated: BTreeSet::new() }
    }

    /// The numbers of the pieces that `extent` touches.
    fn numbers(&self, extent: Extent) -> std::ops::Range<u64> {
        match extent.len {
            0 => 0..0,
            _ => extent.start / self.len..extent.end().div_ceil(self.len),
        }
    }

    /// Runs of pieces that `extent` touches and that may lack blocks.
    pub fn missing(&self, extent: Extent) -> Vec<Extent> {
        let mut runs: Vec<Extent> = Vec::new();
        for number in self.numbers(extent) {
            if self.allocated.contains(&number) {
                continue;
            }
            let start = number * self.len;
            match runs.last_mut() {
                Some(run) if run.end() == start => run.len += self.len,
                _ => runs.push(Extent { start, len: self.len }),
            }
        }
        runs
    }

    /// All pieces that `extent` touches have their blocks now.
    pub fn set_allocated(&mut self, extent: Extent) {
        self.allocated.extend(self.numbers(extent));
    }

    /// No piece that `extent` touches can be relied on any more.
    pub fn forget(&mut self, extent: Extent) {
        for number in self.numbers(extent) {
            self.allocated.remove(&number);
        }
    }

    /// Nothing can be relied on any more.
    pub fn forget_all(&mut self) {
        self.allocated.clear();
    }

    /// The parts of `extent` that lie in pieces nobody relies on.
    pub fn unreliable_parts(&self, extent: Extent) -> Vec<Extent> {
        let clip = |run: Extent| {
            let start = run.start.max(extent.start);
            Extent { start, len: run.end().min(extent.end()) - start }
        };
        self.missing(extent).into_iter().map(clip).collect()
    }
}

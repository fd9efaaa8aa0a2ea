//! Giving free space back to the file system.
//!
//! A hole is taken out of the free space while it is punched, so that nobody is given it meanwhile
//! and the table need not be locked.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::region::RegionInner;
use crate::space::Extent;
use crate::steps::Step;

impl Engine {
    /// After a flush of `changed` regions: punches what they have left, and large holes. A failure
    /// costs nothing but the space.
    pub fn reclaim_large(&self, changed: &[Arc<RegionInner>]) {
        for region in changed {
            if region.reclaim_tail(self.reclaim_threshold).is_err() {
                return;
            }
        }
        loop {
            let Ok(mut table) = self.lock_table_for_change() else { return };
            let hole = table.space.take_reclaimable();
            drop(table);
            let Some(hole) = hole else { return };
            if self.punch_hole(hole).is_err() {
                return;
            }
        }
    }

    /// On a full disk: punches every hole that may have blocks. Says whether there was any.
    pub fn reclaim_occupied(&self) -> bool {
        let mut punched = false;
        let holes = self.lock_table().space.occupied_holes();
        for start in holes {
            let Ok(mut table) = self.lock_table_for_change() else { break };
            let hole = table.space.take_hole(start);
            drop(table);
            punched |= hole.is_some_and(|hole| self.punch_hole(hole).is_ok());
        }
        punched
    }

    /// After a guarded write has failed: whether there is space now that was not there then. (Through
    /// the mapping, [`Engine::allocate`] has tried this.)
    #[cold]
    pub fn made_space(&self, error: &Error) -> bool {
        self.guarded && error.kind() == ErrorKind::NoSpace && self.reclaim_occupied()
    }

    /// Punches the whole pieces of a hole that has been taken out, and puts it back.
    pub fn punch_hole(&self, hole: Extent) -> Result<()> {
        let whole = hole.whole(self.piece);
        let punched = if whole.len > 0 { self.punch(whole) } else { Ok(()) };
        // Counted as given back in either case: a file system that refuses now would be asked
        // after every flush. `compact` asks again.
        self.lock_table().space.give_back(hole, whole.len);
        punched
    }

    /// Flushes, punches everything that can be punched, and cuts the free end off the file.
    ///
    /// Parts of pieces can be given back only while no writer relies on the rest of the piece. So
    /// this makes every region forget what it knows of its blocks, and it is asked for again with
    /// the next write; what is asked for before its turn has come stays. So only one can be under way:
    /// another one would forget what has come to be relied on during the first.
    pub fn compact(self: &Arc<Self>, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<()> {
        self.check_writable()?;
        if self.compaction.is_owned_by_current_thread() {
            return Err(Error::new(
                ErrorKind::Busy,
                "a compaction is under way, and waits for the callback that asks for this one",
            ));
        }
        let _alone = self.compaction.lock();
        if Step::ForgetAllocated.taken() {
            let mut table = self.lock_table();
            table.forgotten = self.epoch();
        }
        self.pieces.lock().forget_all();
        // Ends the flush epoch, and the first change in a new one is where a region notices that
        // it has to forget.
        self.flush()?;
        let (holes, regions, resting) = {
            let table = self.lock_table();
            let regions: Vec<_> = table.names.values().cloned().collect();
            (table.space.holes(), regions, table.resting.with_room())
        };
        for region in &regions {
            // Waits for a change that began in the old epoch. A buffer that was given out then is
            // relied on until it is given back.
            if let Some(extent) = region.being_appended() {
                self.pieces.lock().set_allocated(extent);
            }
        }
        let total = (holes.len() + regions.len() + resting.len()) as u64;
        let mut done = 0;
        let mut step = || {
            let go_on = progress(done, total);
            // It may have forked, and this be the child.
            self.check_process()?;
            done += 1;
            if go_on {
                Ok(())
            } else {
                Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("compaction was stopped after {} of {total} steps", done - 1),
                ))
            }
        };
        for start in holes {
            step()?;
            self.change(|| self.punch_parts_of_hole(start))?;
        }
        for region in regions {
            step()?;
            region.compact()?;
        }
        for place in resting {
            step()?;
            self.change(|| self.punch_behind_resting(place))?;
        }
        step()?;
        self.cut_file()
    }

    /// Punches what nobody relies on of the hole that begins at `start`, if there still is one.
    fn punch_parts_of_hole(&self, start: u64) -> Result<()> {
        let hole = self.lock_table_for_change()?.space.take_hole(start);
        hole.map_or(Ok(()), |hole| {
            let punched = self.punch_unreliable(hole);
            self.lock_table().space.give_back(hole, 0);
            punched
        })
    }
}

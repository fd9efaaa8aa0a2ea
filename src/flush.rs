//! Flush: one moment of all regions, made durable.
//!
//! A flush ends the present epoch, collects every region that changed in it as it was at that
//! moment, syncs `data`, and then writes the changed slots and a header to `regions` and syncs
//! that. Writers go on meanwhile, in the next epoch. Where little was appended and nothing else
//! changed, the slots have the bytes as *tails*, and `data` is synced by a later flush.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::durable::{DurableSlot, DurableSlots};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Entry, Header, Identity, RegionEntry, MAX_GENERATION, PAGE_SIZE};
use crate::live::Mirror;
use crate::recovery::Recovered;
use crate::region::{Change, Cut, RegionInner};
use crate::steps::Step;
use crate::storage::{File, Storage};
use crate::sync::{HashSet, MutexGuard, Ordering};

/// What is known of the durable table. Whoever holds it is the one who flushes.
pub(crate) struct Committer {
    header: Header,
    /// The header page that holds the durable header.
    header_page: u8,
    slots: DurableSlots,
    /// Slots to be recorded as vacant: on whose other side an interrupted flush has left an entry that
    /// the next header would bring to life, or whose region was removed by a process that died before
    /// its flush.
    vacated: BTreeSet<u64>,
    /// Slots of regions beside whose entries an interrupted flush has left newer ones. The next table has
    /// new entries for all of them, or it would be found with these.
    abandoned: Vec<u64>,
    next_generation: u64,
    /// Entries have tails that no sync of `data` has covered.
    unsynced_tails: bool,
    /// The number of the last flush that succeeded, as counted by [`Engine::flushes`].
    succeeded: u64,
}

impl Committer {
    pub fn new(recovered: &mut Recovered, mirror: Option<&Mirror>) -> Committer {
        let slots = std::mem::take(&mut recovered.durable);
        let resting = recovered.resting.slots();
        let haunted = resting.iter().filter(|slot| slot.abandoned && slot.is_vacant());
        let haunted = haunted.filter(|_| Step::VacateAbandoned.taken()).map(|slot| slot.number);
        let abandoned = resting.iter().filter(|slot| slot.abandoned && !slot.is_vacant());
        let abandoned = abandoned.filter(|_| Step::RewriteAbandoned.taken());
        let removed = mirror.into_iter().flat_map(|mirror| recovered.removed(mirror));
        Committer {
            header: recovered.header,
            header_page: recovered.header_page,
            slots,
            vacated: haunted.chain(removed).collect(),
            abandoned: abandoned.map(|slot| slot.number).collect(),
            next_generation: recovered.newest_generation + 1,
            unsynced_tails: false,
            succeeded: 0,
        }
    }

    /// Makes sure that what recovery found is on the disk. It may be in the page cache only: of a
    /// process that died before a sync, or whose sync failed, after which the kernel calls pages
    /// clean that it has not written. Until this is done nothing may be reused or overwritten that
    /// an older table needs. Also takes the mark of a closed database away.
    ///
    /// Where there is a mirror, the next flush syncs what the last process has written, and whoever
    /// began the mirror has settled what was before.
    pub fn settle(
        &mut self,
        storage: &dyn Storage,
        recovered: &Recovered,
        mirror: Option<&Mirror>,
    ) -> Result<()> {
        for (start, tail) in recovered.tails(mirror).filter(|_| Step::StoreTails.taken()) {
            write(storage, File::Data, start, tail)?;
        }
        if !recovered.clean && mirror.is_none() {
            // The last process may have created the database, and overwritten bytes without a flush.
            let identity = format::encode_identity(&Identity { uuid: self.header.uuid });
            if Step::SettleIdentity.taken() {
                write(storage, File::Data, 0, identity.bytes())?;
            }
            if Step::SettleData.taken() {
                sync(storage, File::Data)?;
            }
            // If its last sync had failed, bytes may be in the cache only that no sync will write.
            // Nobody is to see them who could not keep them.
            if Step::RereadData.taken() {
                storage
                    .reread_data()
                    .map_err(|error| Error::io("reread", storage.path(File::Data), &error))?;
            }
        }
        // What lies behind the last whole slot must not become an entry when the file grows.
        let end = format::slot_offset(recovered.capacity, 0);
        let path = storage.path(File::Regions);
        let len = storage.len(File::Regions).map_err(|error| Error::io("examine", path, &error))?;
        if len != end {
            storage.set_len(File::Regions, end).map_err(|error| Error::io("cut", path, &error))?;
        }
        // A crash inside a later flush is told from damage by there being none. And what is torn has
        // a generation that may be used again: half overwritten, it could become whole.
        for page in &recovered.invalid {
            write(storage, File::Regions, page * PAGE_SIZE, &[0; PAGE_SIZE as usize])?;
        }
        // Whoever wrote an entry of an older generation has also synced it, or settled it. And whoever
        // closed the database had synced all of them before it wrote that, whether that has been
        // synced or not.
        let settle_entries = !recovered.clean && Step::SettleEntries.taken();
        let generation = self.header.generation;
        let newest = recovered.resting.slots().iter().filter(|slot| slot.newest);
        for slot in newest.filter(|_| settle_entries) {
            let region = recovered.resting.region(slot);
            let entry = Entry { slot: slot.number, generation, region };
            let offset = format::slot_offset(slot.number, slot.side);
            write(storage, File::Regions, offset, format::encode_entry(&entry).sectors())?;
        }
        self.header.closed = false;
        if Step::SettleHeader.taken() {
            self.write_header(storage, self.header_page)?;
            if recovered.header_damaged {
                self.write_header(storage, 1 - self.header_page)?;
            }
        }
        if Step::SettleRegions.taken() {
            sync(storage, File::Regions)?;
        }
        Ok(())
    }

    fn write_header(&self, storage: &dyn Storage, page: u8) -> Result<()> {
        let offset = format::header_offset(page);
        write(storage, File::Regions, offset, format::encode_header(&self.header).sectors())
    }

    /// Makes the table durable as the cuts say, with their tails where `data` is not synced before.
    fn commit(&mut self, engine: &Engine, cuts: &[(u64, Cut)], with_tails: bool) -> Result<()> {
        let mut changes: Vec<(u64, &Change)> = cuts
            .iter()
            .filter(|(_, cut)| !matches!(cut.change, Change::None))
            .map(|(slot, cut)| (*slot, &cut.change))
            .collect();
        if changes.is_empty() && self.vacated.is_empty() {
            return Ok(());
        }
        let taken: HashSet<u64> = changes.iter().map(|&(slot, _)| slot).collect();
        self.vacated.retain(|slot| !taken.contains(slot));
        assert!(
            self.abandoned.iter().all(|slot| taken.contains(slot) || self.vacated.contains(slot)),
            "an abandoned entry would become part of the table"
        );
        changes.extend(self.vacated.iter().map(|&slot| (slot, &Change::Vacate)));

        let storage = &*engine.storage;
        // Whatever becomes of this flush, its generation is not used again: what it leaves on the
        // disk must not pass for part of a later one.
        let generation = self.next_generation;
        if generation >= MAX_GENERATION {
            // Not in the life of any disk, but a file can claim it.
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{}: no generation is left", storage.path(File::Regions).display()),
            ));
        }
        self.next_generation += 1;
        // New slots lie in a row behind the others, or a file says something strange.
        let (first, last) = (self.header.slots, changes.iter().map(|&(slot, _)| slot).max());
        let new = last.map_or(0, |last| (last + 1).saturating_sub(first));
        if new <= changes.len() as u64 {
            let (start, end) = (format::slot_offset(first, 0), format::slot_offset(first + new, 0));
            storage.cache_table(start, end - start);
        }
        let mut header = Header { generation, ..self.header };
        let mut written = Vec::with_capacity(changes.len());
        for (slot, change) in changes {
            let durable = self.slots.get(slot);
            let region = match change {
                Change::Entry { name, extent, len, tail } => Some(RegionEntry {
                    name,
                    start: extent.start,
                    len: *len,
                    reserved: extent.len,
                    tail: if with_tails { tail } else { &[] },
                }),
                _ => None,
            };
            let is_region = region.is_some();
            let page = format::encode_entry(&Entry { slot, generation, region });
            let side = if Step::AlternateSides.taken() { 1 - durable.side } else { durable.side };
            write(storage, File::Regions, format::slot_offset(slot, side), page.sectors())?;

            let digest = if is_region { page.digest() } else { 0 };
            header.digest = header.digest.wrapping_sub(durable.digest()).wrapping_add(digest);
            header.regions -= u64::from(durable.digest() != 0);
            header.regions += u64::from(is_region);
            header.slots = header.slots.max(slot + 1);
            written.push((slot, DurableSlot::new(side, digest)));
        }
        let header_page = match Step::AlternateHeaders.taken() {
            true => 1 - self.header_page,
            false => self.header_page,
        };
        if let Some(live) = engine.live() {
            live.set_attempted(generation)?;
        }
        let offset = format::header_offset(header_page);
        write(storage, File::Regions, offset, format::encode_header(&header).sectors())?;
        if Step::SyncRegions.taken() {
            sync(storage, File::Regions).map_err(|error| engine.fail(error))?;
        }

        for (slot, durable) in written {
            self.slots.set(slot, durable);
        }
        self.header = header;
        self.header_page = header_page;
        self.vacated.clear();
        self.abandoned.clear();
        engine.generation.store(generation, Ordering::Relaxed);
        if let Some(live) = engine.live() {
            // Without, it is only trusted in more cases.
            let _ = live.set_durable(generation);
        }
        Ok(())
    }

    /// Writes the durable header to both pages, marked as that of a closed database. At rest they
    /// are equal, so that damage to one is noticed and does no harm.
    pub fn finish(&mut self, engine: &Engine) -> Result<()> {
        let storage = &*engine.storage;
        if self.unsynced_tails && Step::SyncTailsAtClose.taken() {
            sync(storage, File::Data).map_err(|error| engine.fail(error))?;
        }
        self.header.closed = true;
        write_headers(storage, &self.header)
            .map_err(|error| Error::io("write", storage.path(File::Regions), &error))?;
        sync(storage, File::Regions).map_err(|error| engine.fail(error))
    }
}

/// Writes the same header to both pages, as it is in a database at rest.
pub(crate) fn write_headers(storage: &dyn Storage, header: &Header) -> std::io::Result<()> {
    let page = format::encode_header(header);
    [0, 1].into_iter().try_for_each(|side| {
        storage.write(File::Regions, format::header_offset(side), page.sectors())
    })
}

fn write(storage: &dyn Storage, file: File, offset: u64, bytes: &[u8]) -> Result<()> {
    storage
        .write(file, offset, bytes)
        .map_err(|error| Error::io("write", storage.path(file), &error))
}

/// Whatever the reason of a failed sync, it is an error of the device to those who wait for it.
fn sync(storage: &dyn Storage, file: File) -> Result<()> {
    storage
        .sync(file)
        .map_err(|error| Error::io("sync", storage.path(file), &error).with_kind(ErrorKind::Io))
}

impl Engine {
    /// Makes everything durable that happened before the call. Callers that wait for a flush in
    /// progress share the next one.
    pub fn flush(&self) -> Result<()> {
        self.check_process()?;
        if self.is_read_only() {
            return Ok(());
        }
        // A flush that had begun by now may have missed what happened before this call.
        let begun = self.flushes.load(Ordering::Acquire);
        let mut committer = self.committer.lock();
        if committer.succeeded <= begun {
            let changed = self.change(|| self.flush_once(&mut committer))?;
            drop(committer);
            self.change(|| self.reclaim_large(&changed));
        }
        Ok(())
    }

    /// Returns the regions that had changed.
    fn flush_once(
        &self,
        committer: &mut MutexGuard<'_, Committer>,
    ) -> Result<Vec<Arc<RegionInner>>> {
        self.check_usable()?;
        let number = self.flushes.fetch_add(1, Ordering::AcqRel) + 1;
        let (epoch, dirty) = {
            let mut table = self.lock_table();
            (self.end_epoch(&mut table), std::mem::take(&mut table.dirty))
        };
        let cuts: Vec<(u64, Cut)> =
            dirty.iter().map(|region| (region.slot, region.collect(epoch))).collect();
        // One of them may be of a region that a call which has panicked meanwhile has half changed.
        self.check_usable()?;

        let sync_data = cuts.iter().any(|(_, cut)| cut.needs_sync);
        let mut result = Ok(());
        if !Step::SyncDataFirst.taken() {
            result = committer.commit(self, &cuts, !sync_data);
        }
        if sync_data && Step::SyncData.taken() {
            result = sync(&*self.storage, File::Data).map_err(|error| self.fail(error));
        }
        let result = result.and_then(|()| committer.commit(self, &cuts, !sync_data));
        if let Err(error) = result {
            for (region, (_, cut)) in dirty.iter().zip(&cuts) {
                if Step::CollectAgain.taken() {
                    region.collect_again(cut);
                }
            }
            return Err(error);
        }

        let mut table = self.lock_table_for_change()?;
        self.set_durable(&mut table, epoch);
        let vacated = cuts.iter().filter(|(_, cut)| matches!(cut.change, Change::Vacate));
        if Step::KeepDurableSlots.taken() {
            table.slots.free.extend(vacated.map(|(slot, _)| slot));
        }
        committer.succeeded = number;
        if sync_data {
            committer.unsynced_tails = false;
            self.synced_epoch.store(epoch, Ordering::Release);
        } else {
            committer.unsynced_tails |= cuts.iter().any(|(_, cut)| cut.change.has_tail());
        }
        Ok(dirty)
    }
}

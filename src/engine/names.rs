//! The names of regions: they come, go and change in one step each.

use std::sync::Arc;

use super::{Engine, TableGuard};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, RegionEntry};
use crate::live::{Change, Record};
use crate::region::{RegionInner, Writer};
use crate::sync::{BiasedGuard, HashSet};
use crate::table::Table;

impl Engine {
    /// The region of this name, created if there is none.
    pub fn create_region(self: &Arc<Self>, name: &str) -> Result<Arc<RegionInner>> {
        self.check_process()?;
        format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        let mut table = self.lock_table();
        if let Some(region) = table.find(self, name) {
            return Ok(region);
        }
        self.check_writable()?;
        let slot = table.slots.take(&*self.storage)?;
        let entry = RegionEntry { name, start: 0, len: 0, reserved: 0, tail: &[] };
        let mut change = [Change::of(slot, Record::NONE, Some(entry))];
        self.mirror(&mut change).inspect_err(|_| table.slots.free.push(slot))?;
        let name: Arc<str> = name.into();
        let region = RegionInner::new(self.clone(), slot, name.clone(), change[0].record);
        // Takes the writer lock after the table's, which no one else can want yet.
        region.enter_dirty(&mut table);
        table.names.insert(name, region.clone());
        Ok(region)
    }

    /// The region of this name.
    pub fn find_region(self: &Arc<Self>, name: &str) -> Result<Arc<RegionInner>> {
        self.check_process()?;
        format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        self.lock_table().find(self, name).ok_or_else(|| not_found(name))
    }

    pub fn remove(self: &Arc<Self>, name: &str) -> Result<()> {
        self.check_writable()?;
        loop {
            let region = self.find_region(name)?;
            match self.remove_region(&region) {
                // Removed by another thread since it was found; there may be a new one.
                Err(error) if error.kind() == ErrorKind::Removed => {}
                // Renamed by another thread: removed under its new name, which is as if the
                // removal had come first.
                result => return result,
            }
        }
    }

    pub fn remove_region(&self, region: &Arc<RegionInner>) -> Result<()> {
        self.check_writable()?;
        let mut writer = region.lock_live()?;
        if writer.is_appending() {
            drop(writer);
            return Err(region.busy());
        }
        let mut table = self.lock_table_for_change()?;
        self.mirror(&mut [region.change(&writer, None)])?;
        take_out(&mut table, region, &mut writer);
        Ok(())
    }

    /// Gives the region `from` the name `to`, in the place of the region that has it if `replace`.
    pub fn rename(self: &Arc<Self>, from: &str, to: &str, replace: bool) -> Result<()> {
        self.check_writable()?;
        format::check_name(to).map_err(|reason| invalid_name(to, reason))?;
        let new_name: Arc<str> = to.into();
        loop {
            let region = self.find_region(from)?;
            if from == to {
                return Ok(());
            }
            let target = self.lock_table().find(self, to);
            if same(target.as_ref(), Some(&region)) {
                // Another thread has renamed it just so, and locking it twice would be for ever.
                continue;
            }
            let mut involved: Vec<_> = target.iter().chain([&region]).collect();
            let Some((mut writers, mut table)) = self.lock_regions(&mut involved, |table| {
                same(table.names.get(from), Some(&region))
                    && same(table.names.get(to), target.as_ref())
            })?
            else {
                continue;
            };
            let index = |region: &Arc<RegionInner>| {
                let index = involved.iter().position(|it| Arc::ptr_eq(it, region));
                index.expect("the region is involved")
            };
            if let Some(target) = &target {
                if !replace {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("cannot rename {from:?}: there is a region {to:?}"),
                    ));
                }
                if writers[index(target)].is_appending() {
                    return Err(target.busy());
                }
            }
            let removed = target.iter().map(|target| target.change(&writers[index(target)], None));
            let renamed = region.change(&writers[index(&region)], Some(region.entry(to)));
            let mut changes: Vec<_> = [renamed].into_iter().chain(removed).collect();
            self.mirror(&mut changes)?;
            let record = changes[0].record;
            if let Some(target) = &target {
                take_out(&mut table, target, &mut writers[index(target)]);
            }
            let writer = &mut writers[index(&region)];
            region.touch_in_new_epoch(writer, &mut table);
            table.names.remove(from);
            region.set_name(writer, new_name.clone(), record);
            table.names.insert(new_name, region.clone());
            return Ok(());
        }
    }

    /// Removes every region that is not named.
    pub fn retain(self: &Arc<Self>, names: &[&str]) -> Result<()> {
        self.check_writable()?;
        for name in names {
            format::check_name(name).map_err(|reason| invalid_name(name, reason))?;
        }
        // The caller chose the size.
        let mut kept = HashSet::default();
        kept.try_reserve(names.len()).map_err(|_| self.no_memory(size_of_val(names) as u64))?;
        kept.extend(names.iter().copied());
        loop {
            let victims = self.lock_table().find_all(self, |name| !kept.contains(name));
            let mut involved: Vec<_> = victims.iter().collect();
            let Some((mut writers, mut table)) = self.lock_regions(&mut involved, |table| {
                let others = table.names.keys().filter(|name| !kept.contains(&***name)).count();
                others == victims.len()
                    && victims.iter().all(|it| same(table.names.get(&it.name()), Some(it)))
            })?
            else {
                continue;
            };
            let mut pairs = involved.iter().zip(&writers);
            if let Some((region, _)) = pairs.find(|(_, writer)| writer.is_appending()) {
                return Err(region.busy());
            }
            let pairs = involved.iter().zip(&writers);
            let mut changes: Vec<_> =
                pairs.map(|(region, writer)| region.change(writer, None)).collect();
            self.mirror(&mut changes)?;
            for (region, writer) in involved.iter().zip(&mut writers) {
                take_out(&mut table, region, writer);
            }
            return Ok(());
        }
    }

    /// Locks the writers of `regions`, which it sorts into lock order, and the table. `None` where
    /// the table has changed meanwhile so that `unchanged` no longer holds.
    #[allow(clippy::type_complexity)]
    fn lock_regions<'a>(
        &'a self,
        regions: &mut Vec<&'a Arc<RegionInner>>,
        unchanged: impl FnOnce(&Table) -> bool,
    ) -> Result<Option<(Vec<BiasedGuard<'a, Writer>>, TableGuard<'a>)>> {
        regions.sort_unstable_by_key(|region| region.slot);
        let writers = regions.iter().map(|region| region.writer.lock()).collect();
        let table = self.lock_table_for_change()?;
        Ok(unchanged(&table).then_some((writers, table)))
    }
}

/// Takes a region out of the table.
fn take_out(table: &mut Table, region: &Arc<RegionInner>, writer: &mut Writer) {
    region.touch_in_new_epoch(writer, table);
    let removed = table.names.remove(&region.name());
    assert!(same(removed.as_ref(), Some(region)), "a live region is in the table by its name");
    region.set_removed(writer, table);
}

fn same(a: Option<&Arc<RegionInner>>, b: Option<&Arc<RegionInner>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn invalid_name(name: &str, reason: &str) -> Error {
    // Names that are too long are not repeated in full.
    let shown: String = name.chars().take(64).collect();
    let dots = if shown.len() < name.len() { "..." } else { "" };
    Error::new(
        ErrorKind::InvalidName,
        format!("{shown:?}{dots} ({} bytes) cannot name a region: {reason}", name.len()),
    )
}

fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no region {name:?}"))
}

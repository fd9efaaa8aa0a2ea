//! From the bytes of two files to a table that can be trusted, or to a reason why not.
//!
//! Nothing in here writes. What comes out has been checked as a whole: the rest of the library
//! does arithmetic on it without looking back.

use std::collections::{HashMap, TryReserveError};
use std::fmt::Write;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    self, decode_entry, decode_header, decode_identity, round_up, Header, PageError, MAX_FILE_LEN,
    PAGE_SIZE,
};
use crate::steps::Step;

/// How many damaged pages a message names.
const PAGES_NAMED: usize = 4;

/// What the two files hold.
pub(crate) enum Found {
    /// No database: the files are new, or their creation was cut short before any `open` returned.
    Nothing,
    /// A database.
    Table(Recovered),
}

/// The region table of the last durable flush.
pub(crate) struct Recovered {
    pub header: Header,
    /// The header page that holds it; the other one may be overwritten.
    pub header_page: u8,
    /// The other one is not a header, or its table is not whole.
    pub header_damaged: bool,
    /// Pages of slots that are neither blank nor an entry: damaged, or torn by a crash.
    pub invalid: Vec<u64>,
    /// Both header pages are this header, of a closed database: nothing has happened since.
    pub clean: bool,
    /// In the order of their numbers. Slots without an entry on either side are left out: memory is
    /// needed for what the file holds, not for its length, which costs whoever made it nothing.
    pub slots: Vec<RecoveredSlot>,
    /// How many slots the file has room for, used or not.
    pub capacity: u64,
    /// No page of the file has a larger generation.
    pub newest_generation: u64,
}

/// A slot with an entry on one side at least.
pub(crate) struct RecoveredSlot {
    pub number: u64,
    /// The side that holds the durable entry.
    pub side: u8,
    /// Its generation, where there is one.
    pub generation: Option<u64>,
    /// A flush that did not complete has left something on the other side, which would pass for
    /// part of a later table if it were not overwritten.
    pub abandoned: bool,
    pub digest: u128,
    pub region: Option<RecoveredRegion>,
}

pub(crate) struct RecoveredRegion {
    pub name: String,
    pub start: u64,
    pub len: u64,
    pub reserved: u64,
}

/// Reads the first page of `data` and what is `written` of `regions`, which is zero elsewhere;
/// `data_len` is the length of `data`.
/// `place` names the database in messages.
pub(crate) fn recover(
    place: &str,
    identity: &[u8],
    data_len: u64,
    regions: &[u8],
    written: &[Range<usize>],
) -> Result<Found> {
    let corrupt = |what: String| corrupt(place, what);
    let no_memory = |_| no_memory(place);
    let newer = |file: &str, page: u64, reason: &PageError| {
        Error::new(ErrorKind::Incompatible, format!("{place}: {file} page {page}: {reason}"))
    };

    if data_len > MAX_FILE_LEN {
        return Err(corrupt(format!(
            "data page 0: field length: the file has {data_len} bytes, and none can have more than \
             {MAX_FILE_LEN}"
        )));
    }
    let headers = [read_header(regions, 0), read_header(regions, 1)];
    if Step::ForgiveUnfinishedCreation.taken()
        && is_unfinished_creation(identity, data_len, regions, written, &headers)
    {
        return Ok(Found::Nothing);
    }

    let identity = match identity.len() as u64 {
        PAGE_SIZE => decode_identity(identity),
        _ => Err(PageError::Blank),
    }
    .map_err(|reason| match reason {
        PageError::Version(_) => newer("data", 0, &reason),
        _ => corrupt(format!("data page 0: {reason}")),
    })?;

    for (page, header) in headers.iter().enumerate() {
        if let Err(reason @ PageError::Version(_)) = header {
            return Err(newer("regions", page as u64, reason));
        }
    }
    for (page, header) in headers.iter().enumerate() {
        if header.as_ref().is_ok_and(|header| header.uuid != identity.uuid) {
            return Err(corrupt(format!(
                "regions page {page}: field uuid: the page belongs to another database than \
                 data page 0"
            )));
        }
    }

    let sides = Sides::read(regions, written).map_err(no_memory)?;
    let mut candidates: Vec<(u8, Header)> = headers
        .iter()
        .enumerate()
        .filter_map(|(page, header)| Some((page as u8, *header.as_ref().ok()?)))
        .collect();
    candidates.sort_by_key(|(_, header)| std::cmp::Reverse(header.generation));
    let clean =
        candidates.len() == 2 && candidates[0].1 == candidates[1].1 && candidates[0].1.closed;
    if clean || !Step::FallBack.taken() {
        candidates.truncate(1);
    }

    let mut rejected = String::new();
    for (number, (page, header)) in candidates.iter().enumerate() {
        if header.slots > sides.slots {
            let _ = write!(
                rejected,
                "; regions page {page}: field slots: {}, but the file ends after {}",
                header.slots, sides.slots
            );
            continue;
        }
        let table = sides.table(header).map_err(no_memory)?;
        let is_whole = table.digest == header.digest && table.regions == header.regions;
        if is_whole || !Step::CheckDigest.taken() {
            // A header fits one 512-byte sector, so a crash leaves an old one or a new one. One
            // that does not decode is damage, and it may have been the newer. It was not, if no
            // entry is newer than the header that is left: each flush writes an entry.
            if let Some((damaged, reason)) = first_error(&headers) {
                if sides.newest_generation > header.generation && Step::RefuseDamagedHeader.taken()
                {
                    return Err(corrupt(format!(
                        "regions page {damaged}: {reason}; the other header is older than the \
                         entries"
                    )));
                }
            }
            // Falling back to an older table is for a crash inside the flush of the newer one. It
            // may have freed what the older one needs, if it did complete and was damaged later.
            let damage = sides.damage.as_ref().filter(|_| Step::RefuseImpossibleDamage.taken());
            if let (1.., Some((damaged, reason))) = (number, damage) {
                return Err(corrupt(format!(
                    "regions page {damaged}: {reason}; no crash leaves it so{rejected}"
                )));
            }
            check_table(place, &table, data_len)?;
            let newest_header = candidates[0].1.generation;
            return Ok(Found::Table(Recovered {
                header: *header,
                header_page: *page,
                header_damaged: number > 0 || headers.iter().any(std::result::Result::is_err),
                invalid: sides.invalid,
                clean,
                slots: table.slots,
                capacity: sides.slots,
                newest_generation: newest_header.max(sides.newest_generation),
            }));
        }
        let _ = write!(
            rejected,
            "; the table of regions page {page} (generation {}, {} regions) does not have its \
             digest",
            header.generation, header.regions
        );
    }
    for (page, header) in headers.iter().enumerate() {
        if let Err(reason) = header {
            let _ = write!(rejected, "; regions page {page}: {reason}");
        }
    }
    sides.describe_damage(&mut rejected);
    Err(corrupt(format!("no header has a whole table{rejected}")))
}

fn corrupt(place: &str, what: String) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{place} is damaged: {what}"))
}

/// The files say how much memory their table takes, so not to have it is an error like others.
pub(crate) fn no_memory(place: &str) -> Error {
    Error::new(ErrorKind::NoMemory, format!("no memory for the region table of {place}"))
}

/// The identity page is written and synced last of all when a database is created, and no region
/// exists before. So as long as it is missing and nothing speaks of a region, no `open` has
/// returned yet, and nobody can miss anything.
fn is_unfinished_creation(
    identity: &[u8],
    data_len: u64,
    regions: &[u8],
    written: &[Range<usize>],
    headers: &[std::result::Result<Header, PageError>; 2],
) -> bool {
    let empty_table = headers.iter().all(|header| match header {
        Ok(header) => header.slots == 0,
        Err(reason) => *reason == PageError::Blank,
    });
    data_len <= PAGE_SIZE
        && identity.iter().all(|&byte| byte == 0)
        && empty_table
        && written.iter().all(|range| {
            let start = range.start.max(2 * PAGE_SIZE as usize).min(range.end);
            regions[start..range.end].iter().all(|&byte| byte == 0)
        })
}

fn read_header(regions: &[u8], page: usize) -> std::result::Result<Header, PageError> {
    let at = page * PAGE_SIZE as usize;
    match regions.get(at..at + PAGE_SIZE as usize) {
        Some(bytes) => decode_header(bytes),
        None => Err(PageError::Blank),
    }
}

fn first_error(
    headers: &[std::result::Result<Header, PageError>; 2],
) -> Option<(usize, &PageError)> {
    headers.iter().enumerate().find_map(|(page, header)| Some((page, header.as_ref().err()?)))
}

/// Both sides of every slot in the file, as far as they decode.
struct Sides<'a> {
    regions: &'a [u8],
    /// How many slots the file has room for.
    slots: u64,
    /// Slots with an entry, and what their sides hold.
    entries: Vec<(u64, [Option<format::Entry<'a>>; 2])>,
    newest_generation: u64,
    /// Pages that are neither blank nor an entry.
    invalid: Vec<u64>,
    /// The first of them that cannot be what a crash leaves.
    damage: Option<(u64, PageError)>,
}

/// The table that belongs to one header.
struct Table {
    slots: Vec<RecoveredSlot>,
    digest: u128,
    regions: u64,
}

impl<'a> Sides<'a> {
    fn read(
        regions: &'a [u8],
        written: &[Range<usize>],
    ) -> std::result::Result<Sides<'a>, TryReserveError> {
        let mut newest_generation = 0;
        let (mut invalid, mut damage) = (Vec::new(), None);
        let mut entries = Vec::new();
        let slots = format::slots_in(regions.len() as u64);
        let mut next = 0;
        let numbers = written.iter().flat_map(|range| {
            // A slot is looked at once, also where two ranges touch it.
            let first = format::slots_in(range.start as u64).max(next);
            next = format::slots_in((range.end as u64).next_multiple_of(2 * PAGE_SIZE)).min(slots);
            first..next
        });
        for slot in numbers {
            let sides = [0, 1].map(|side| match decode_slot(regions, slot, side) {
                Ok(entry) => {
                    newest_generation = newest_generation.max(entry.generation);
                    Some(entry)
                }
                Err(reason) => {
                    if reason != PageError::Blank {
                        let number = 2 + 2 * slot + side as u64;
                        invalid.push(number);
                        if !format::may_be_torn(page_of(regions, slot, side), slot) {
                            damage.get_or_insert((number, reason));
                        }
                    }
                    None
                }
            });
            if sides.iter().any(Option::is_some) {
                entries.try_reserve(1)?;
                entries.push((slot, sides));
            }
        }
        Ok(Sides { regions, slots, entries, newest_generation, invalid, damage })
    }

    /// For every slot, the side with the largest generation that is not above the header's.
    fn table(&self, header: &Header) -> std::result::Result<Table, TryReserveError> {
        let mut table = Table { slots: Vec::new(), digest: 0, regions: 0 };
        table.slots.try_reserve_exact(self.entries.len())?;
        for &(number, ref sides) in &self.entries {
            // Slots behind the header's last have no entry in this table, whatever lies there.
            let known = number < header.slots;
            let generation = |side: usize| {
                let entry = sides[side].as_ref().filter(|_| known)?;
                (entry.generation <= header.generation).then_some(entry.generation)
            };
            let side = match (generation(0), generation(1)) {
                (Some(a), Some(b)) => Some(if a >= b { 0 } else { 1 }),
                (Some(_), None) => Some(0),
                (None, Some(_)) => Some(1),
                (None, None) => None,
            };
            let abandoned = (0..2).any(|other| {
                sides[other]
                    .as_ref()
                    .is_some_and(|entry| !known || entry.generation > header.generation)
            });
            let entry = side.and_then(|side| sides[side].as_ref());
            let mut recovered = RecoveredSlot {
                number,
                // A slot without an entry is first written to side 0.
                side: side.unwrap_or(1) as u8,
                generation: entry.map(|entry| entry.generation),
                abandoned,
                digest: 0,
                region: None,
            };
            if let Some(region) = entry.and_then(|entry| entry.region.as_ref()) {
                recovered.digest = format::digest(page_of(self.regions, number, recovered.side));
                recovered.region = Some(RecoveredRegion {
                    name: region.name.to_owned(),
                    start: region.start,
                    len: region.len,
                    reserved: region.reserved,
                });
                table.digest = table.digest.wrapping_add(recovered.digest);
                table.regions += 1;
            }
            table.slots.push(recovered);
        }
        Ok(table)
    }

    fn describe_damage(&self, message: &mut String) {
        for &page in self.invalid.iter().take(PAGES_NAMED) {
            let (slot, side) = ((page - 2) / 2, (page % 2) as u8);
            if let Err(reason) = decode_slot(self.regions, slot, side) {
                let _ = write!(message, "; regions page {page}: {reason}");
            }
        }
        if let Some(more @ 1..) = self.invalid.len().checked_sub(PAGES_NAMED) {
            let _ = write!(message, "; and {more} more damaged pages");
        }
    }
}

/// The entry on a side of a slot. That of another slot is none: pages have changed places.
fn decode_slot(
    regions: &[u8],
    slot: u64,
    side: u8,
) -> std::result::Result<format::Entry<'_>, PageError> {
    let entry = decode_entry(page_of(regions, slot, side))?;
    if entry.slot != slot {
        return Err(PageError::Field { name: "slot", value: entry.slot });
    }
    Ok(entry)
}

fn page_of(regions: &[u8], slot: u64, side: u8) -> &[u8] {
    let at = format::slot_offset(slot, side) as usize;
    &regions[at..at + PAGE_SIZE as usize]
}

/// What only the table as a whole can show: places inside the file, none of them shared, and names
/// that are used once.
fn check_table(place: &str, table: &Table, data_len: u64) -> Result<()> {
    type Found<'a> = (&'a RecoveredSlot, &'a RecoveredRegion);
    let page = |(slot, _): Found| 2 + 2 * slot.number + slot.side as u64;
    let corrupt = |what: String| Err(corrupt(place, what));
    let count = table.regions as usize;
    let mut names: HashMap<&str, Found> = HashMap::new();
    let mut places: Vec<(u64, u64, Found)> = Vec::new();
    names.try_reserve(count).map_err(|_| no_memory(place))?;
    places.try_reserve_exact(count).map_err(|_| no_memory(place))?;
    for slot in &table.slots {
        let Some(region) = &slot.region else { continue };
        let found = (slot, region);
        if let Some(other) = names.insert(&region.name, found) {
            return corrupt(format!(
                "regions page {}: field name: {:?} is also the name on page {}",
                page(found),
                region.name,
                page(other)
            ));
        }
        if region.reserved == 0 {
            continue;
        }
        // The format limits every number to 1 EiB, so these sums fit.
        let needed = region.start + round_up(region.len);
        if needed > data_len {
            return corrupt(format!(
                "regions page {}: field len: region {:?} ends at {needed}, and data at {data_len}",
                page(found),
                region.name
            ));
        }
        places.push((region.start, region.start + region.reserved, found));
    }
    places.sort_unstable_by_key(|&(start, end, (slot, _))| (start, end, slot.number));
    for pair in places.windows(2) {
        let [(_, end, first), (start, _, second)] = [pair[0], pair[1]];
        if start < end {
            return corrupt(format!(
                "regions page {}: field start: region {:?} overlaps {:?} of page {}",
                page(second),
                second.1.name,
                first.1.name,
                page(first)
            ));
        }
    }
    Ok(())
}

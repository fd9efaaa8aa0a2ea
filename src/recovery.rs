//! From the bytes of two files to a table that can be trusted, or to a reason why not.
//!
//! Nothing in here writes. What comes out has been checked as a whole: the rest of the library
//! does arithmetic on it without looking back.

use std::fmt::Write;
use std::ops::Range;

use crate::durable::{DurableSlot, DurableSlots};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    self, decode_entry, decode_header, decode_identity, round_up, Header, PageError, RegionEntry,
    MAX_FILE_LEN, PAGE_SIZE,
};
use crate::live::Mirror;
use crate::prefetch::prefetch;
use crate::resting::{NoMemory, Resting, RestingSlot};
use crate::space::Extent;
use crate::steps::Step;
use crate::sync::HashSet;

/// How many damaged pages a message names.
const PAGES_NAMED: usize = 4;

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
    pub resting: Resting,
    /// For the committer.
    pub durable: DurableSlots,
    /// How many slots the file has room for, used or not.
    pub capacity: u64,
    /// No page of the file has a larger generation.
    pub newest_generation: u64,
}

/// Reads the first page of `data` and what is `written` of `regions`, which is zero elsewhere;
/// `data_len` is the length of `data`.
/// `place` names the database in messages. There is none where the files are new, or their creation was
/// cut short before any `open` returned.
pub(crate) fn recover(
    place: &str,
    identity: &[u8],
    data_len: u64,
    regions: &[u8],
    written: &[Range<usize>],
) -> Result<Option<Recovered>> {
    let corrupt = |what: String| corrupt(place, what);
    let no_memory = |NoMemory| no_memory(place);
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
        return Ok(None);
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

    let capacity = format::slots_in(regions.len() as u64);
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
        if header.slots > capacity {
            let _ = write!(
                rejected,
                "; regions page {page}: field slots: {}, but the file ends after {capacity}",
                header.slots
            );
            continue;
        }
        let mut table = Table::read(regions, written, header.generation, header.slots, clean)
            .map_err(no_memory)?;
        let is_whole = table.digest == header.digest && table.regions == header.regions;
        if is_whole || !Step::CheckDigest.taken() {
            // A header fits one 512-byte sector, so a crash leaves an old one or a new one. One
            // that does not decode is damage, and it may have been the newer. It was not, if no
            // entry is newer than the header that is left: each flush writes an entry.
            if let Some((damaged, reason)) = first_error(&headers) {
                if table.newest_generation > header.generation && Step::RefuseDamagedHeader.taken()
                {
                    return Err(corrupt(format!(
                        "regions page {damaged}: {reason}; the other header is older than the \
                         entries"
                    )));
                }
            }
            // Falling back to an older table is for a crash inside the flush of the newer one. It
            // may have freed what the older one needs, if it did complete and was damaged later.
            let damage = table.damage.as_ref().filter(|_| Step::RefuseImpossibleDamage.taken());
            if let (1.., Some((damaged, reason))) = (number, damage) {
                return Err(corrupt(format!(
                    "regions page {damaged}: {reason}; no crash leaves it so{rejected}"
                )));
            }
            check_table(place, &mut table.resting, data_len)?;
            let newest_header = candidates[0].1.generation;
            return Ok(Some(Recovered {
                header: *header,
                header_page: *page,
                header_damaged: number > 0 || headers.iter().any(std::result::Result::is_err),
                invalid: table.invalid,
                clean,
                resting: table.resting,
                durable: table.durable,
                capacity,
                newest_generation: newest_header.max(table.newest_generation),
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
    let pages = Table::read(regions, written, 0, 0, true).map_err(no_memory)?.invalid;
    describe_damage(regions, &pages, &mut rejected);
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

/// The table of one generation, and what lies beside it.
struct Table {
    /// Everything has been synced since it was written.
    closed: bool,
    resting: Resting,
    durable: DurableSlots,
    digest: u128,
    regions: u64,
    /// Of all entries, whether they are part of the table or not.
    newest_generation: u64,
    /// Pages that are neither blank nor an entry.
    invalid: Vec<u64>,
    /// The first of them that cannot be what a crash leaves.
    damage: Option<(u64, PageError)>,
}

impl Table {
    /// Looks at both sides of every slot in the file. In the table is, of each of the first
    /// `known` slots, the side with the largest generation that is not above `generation`.
    fn read(
        regions: &[u8],
        written: &[Range<usize>],
        generation: u64,
        known: u64,
        closed: bool,
    ) -> std::result::Result<Table, NoMemory> {
        let mut table = Table {
            closed,
            resting: Resting::default(),
            durable: DurableSlots::default(),
            digest: 0,
            regions: 0,
            newest_generation: 0,
            invalid: Vec::new(),
            damage: None,
        };
        let end = format::slots_in(regions.len() as u64);
        let mut next = 0;
        for range in written {
            // A slot is looked at once, also where two ranges touch it.
            let first = format::slots_in(range.start as u64).max(next);
            next = format::slots_in((range.end as u64).next_multiple_of(2 * PAGE_SIZE)).min(end);
            for number in first..next {
                if number + AHEAD < next {
                    prefetch_slot(regions, number + AHEAD);
                }
                table.read_slot(regions, number, generation, known)?;
            }
        }
        Ok(table)
    }

    fn read_slot(
        &mut self,
        regions: &[u8],
        number: u64,
        generation: u64,
        known: u64,
    ) -> std::result::Result<(), NoMemory> {
        let sides = [0, 1].map(|side| match decode_slot(regions, number, side) {
            Ok(entry) => {
                self.newest_generation = self.newest_generation.max(entry.generation);
                Some(entry)
            }
            Err(reason) => {
                if reason != PageError::Blank {
                    let page = page_number(number, side);
                    self.invalid.push(page);
                    if !format::may_be_torn(page_of(regions, number, side), number) {
                        self.damage.get_or_insert((page, reason));
                    }
                }
                None
            }
        });
        if sides.iter().all(Option::is_none) {
            return Ok(());
        }
        // Slots from `known` on have no entry in this table, whatever lies there.
        let is_in_table = |entry: &&format::Entry| number < known && entry.generation <= generation;
        let generations = [0, 1].map(|side: usize| {
            sides[side].as_ref().filter(is_in_table).map(|entry| entry.generation)
        });
        let side = match generations {
            [Some(a), Some(b)] => Some(if a >= b { 0 } else { 1 }),
            [Some(_), None] => Some(0),
            [None, Some(_)] => Some(1),
            [None, None] => None,
        };
        let mut slot = RestingSlot::vacant(number);
        slot.abandoned = sides.iter().flatten().any(|entry| !is_in_table(&entry));
        let mut region = None;
        if let Some((side, entry)) = side.and_then(|side| Some((side, sides[side].as_ref()?))) {
            slot.side = side as u8;
            slot.newest = entry.generation == generation;
            region = entry.region.as_ref();
        }
        let mut digest = 0;
        if region.is_some() {
            digest = format::digest(page_of(regions, number, slot.side));
            self.digest = self.digest.wrapping_add(digest);
            self.regions += 1;
        }
        self.durable.set(number, DurableSlot::new(slot.side, digest));
        self.resting.push(slot, region, !self.closed)
    }
}

/// So many slots are on their way from memory while one is read: that takes some 100 ns, and to wait for
/// memory about as long for each of a slot's pages.
const AHEAD: u64 = 4;

/// Most entries take two cache lines.
fn prefetch_slot(regions: &[u8], number: u64) {
    for side in [0, 1] {
        let page = page_of(regions, number, side).as_ptr();
        prefetch(page);
        prefetch(page.wrapping_add(64));
    }
}

fn describe_damage(regions: &[u8], pages: &[u64], message: &mut String) {
    for &page in pages.iter().take(PAGES_NAMED) {
        let (slot, side) = ((page - 2) / 2, (page % 2) as u8);
        if let Err(reason) = decode_slot(regions, slot, side) {
            let _ = write!(message, "; regions page {page}: {reason}");
        }
    }
    if let Some(more @ 1..) = pages.len().checked_sub(PAGES_NAMED) {
        let _ = write!(message, "; and {more} more damaged pages");
    }
}

/// The entry on a side of a slot. That of another slot is none: pages have changed places.
// See `decode_entry`.
#[inline(always)]
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

fn page_number(slot: u64, side: u8) -> u64 {
    2 + 2 * slot + u64::from(side)
}

/// Whether a durable table is possible as a whole. From then on its regions are known by their names.
fn check_table(place: &str, resting: &mut Resting, data_len: u64) -> Result<()> {
    let same_name = resting.index().map_err(|NoMemory| no_memory(place))?;
    let page_and_name = |number| {
        let slot = resting.slot(number).expect("a slot of the table");
        (page_number(number, slot.side), resting.region(slot).expect("a region is there").name)
    };
    if let Some([number, other]) = same_name {
        let ((page, name), (other, _)) = (page_and_name(number), page_and_name(other));
        let what =
            format!("regions page {page}: field name: {name:?} is also the name on page {other}");
        return Err(corrupt(place, what));
    }
    let slots = resting.slots();
    let regions = slots.iter().filter(|slot| !slot.is_vacant());
    let regions = regions.map(|slot| (slot.number, slot.region("")));
    check_places(regions, slots.len(), data_len).map_err(|misplaced| match misplaced {
        Misplaced::NoMemory => no_memory(place),
        Misplaced::Beyond { slot, end } => {
            let (page, name) = page_and_name(slot);
            let what = format!(
                "regions page {page}: field len: region {name:?} ends at {end}, and data at \
                 {data_len}"
            );
            corrupt(place, what)
        }
        Misplaced::Overlap { slot, other } => {
            let ((page, name), (other_page, other)) = (page_and_name(slot), page_and_name(other));
            let what = format!(
                "regions page {page}: field start: region {name:?} overlaps {other:?} of page \
                 {other_page}"
            );
            corrupt(place, what)
        }
    })
}

enum Misplaced {
    NoMemory,
    /// The region in `slot` ends behind the end of `data`.
    Beyond {
        slot: u64,
        end: u64,
    },
    /// The places of two regions do.
    Overlap {
        slot: u64,
        other: u64,
    },
}

/// What only all regions together can show: places inside the file, none of them shared. Each region
/// comes with its slot.
fn check_places<'a>(
    regions: impl Iterator<Item = (u64, RegionEntry<'a>)>,
    most: usize,
    data_len: u64,
) -> std::result::Result<(), Misplaced> {
    let mut places: Vec<(u64, u64, u64)> = Vec::new();
    places.try_reserve_exact(most).map_err(|_| Misplaced::NoMemory)?;
    for (slot, region) in regions.filter(|(_, region)| region.reserved > 0) {
        // The format limits every number to 1 EiB, so these sums fit.
        let end = region.needed().end();
        if end > data_len {
            return Err(Misplaced::Beyond { slot, end });
        }
        places.push((region.start, region.start + region.reserved, slot));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let [(_, end, other), (start, _, slot)] = [pair[0], pair[1]];
        if start < end {
            return Err(Misplaced::Overlap { slot, other });
        }
    }
    Ok(())
}
impl RegionEntry<'_> {
    /// The pages that its bytes are on.
    fn needed(&self) -> Extent {
        Extent { start: self.start, len: round_up(self.len) }
    }

    /// Its place, if it has one, as far as a file of `file_len` bytes goes. A crash may have cost the
    /// file a reserved end, which holds nothing and may be given to another region.
    pub fn place(&self, file_len: u64) -> Option<Extent> {
        let len = self.reserved.min(file_len.saturating_sub(self.start));
        (len > 0).then_some(Extent { start: self.start, len })
    }
}

/// A region as it is, and as the durable table has the slot that it is in.
pub(crate) struct Region<'a> {
    pub slot: u64,
    pub region: RegionEntry<'a>,
    pub durable: Option<RegionEntry<'a>>,
    /// See [`RestingSlot::abandoned`].
    pub abandoned: bool,
    /// It is in the mirror: its bytes may have changed since the last flush.
    pub mirrored: bool,
    /// The durable entry has a tail, which must not outlive the bytes that it stands for.
    pub tailed: bool,
}

impl Region<'_> {
    /// Whether the durable table has its bytes where they are.
    pub fn is_in_place(&self) -> bool {
        self.durable.is_some_and(|it| it.reserved > 0 && it.start == self.region.start)
    }
}

/// Whether there is a mirror, and it has the slot.
fn in_mirror(mirror: Option<&Mirror>, slot: u64) -> bool {
    mirror.is_some_and(|mirror| mirror.slots.contains_key(&slot))
}

impl Recovered {
    /// What the durable table has in a slot.
    fn durable(&self, slot: u64) -> Option<RegionEntry<'_>> {
        self.resting.region(self.resting.slot(slot)?)
    }

    /// All regions: those of the mirror, and of the durable table those whose slots the mirror does
    /// not have.
    pub fn regions<'a>(
        &'a self,
        mirror: Option<&'a Mirror>,
    ) -> impl Iterator<Item = Region<'a>> + Clone + 'a {
        let slots = self.resting.slots().iter();
        let unchanged = slots.filter(move |slot| !in_mirror(mirror, slot.number));
        let unchanged = unchanged.filter_map(|slot| {
            let region = self.resting.region(slot)?;
            let RestingSlot { number, abandoned, tailed, .. } = *slot;
            let durable = Some(region);
            Some(Region { slot: number, region, durable, abandoned, mirrored: false, tailed })
        });
        let mirrored = mirror.into_iter().flat_map(|mirror| &mirror.slots);
        let mirrored = mirrored.filter_map(|(&slot, found)| {
            let (region, known) = (found.region()?, self.resting.slot(slot));
            let durable = known.and_then(|known| self.resting.region(known));
            let abandoned = known.is_some_and(|it| it.abandoned);
            let tailed = known.is_some_and(|it| it.tailed);
            Some(Region { slot, region, durable, abandoned, mirrored: true, tailed })
        });
        unchanged.chain(mirrored)
    }

    /// The regions that nobody has asked for yet: neither the mirror has their slots, nor are they
    /// among `entered`.
    pub fn into_resting(
        self,
        mirror: Option<&Mirror>,
        entered: impl Iterator<Item = u64>,
    ) -> Resting {
        let mut resting = self.resting;
        resting.drop_tails();
        let mirrored = mirror.into_iter().flat_map(|mirror| mirror.slots.keys().copied());
        for slot in mirrored.chain(entered) {
            resting.remove_slot(slot);
        }
        resting
    }

    /// The bytes that entries have, and where in `data` they belong: what a power loss may have kept
    /// from it, and has not where there is a mirror, which the region may have changed since.
    pub fn tails<'a>(
        &'a self,
        mirror: Option<&'a Mirror>,
    ) -> impl Iterator<Item = (u64, &'a [u8])> + 'a {
        let slots = self.resting.slots().iter().filter(|slot| slot.tailed);
        slots.filter(move |slot| !in_mirror(mirror, slot.number)).filter_map(|slot| {
            let region = self.resting.region(slot).filter(|region| !region.tail.is_empty())?;
            Some((region.start + region.len - region.tail.len() as u64, region.tail))
        })
    }

    /// Slots of the durable table whose regions have been removed since.
    pub fn removed<'a>(&'a self, mirror: &'a Mirror) -> impl Iterator<Item = u64> + 'a {
        let vacant = mirror.slots.iter().filter(|(_, found)| found.region().is_none());
        vacant.map(|(&slot, _)| slot).filter(|&slot| self.durable(slot).is_some())
    }

    /// Places of the durable table where no region is any more, and the regions that were there: of
    /// slots that the mirror says otherwise about.
    fn left_places<'a>(&'a self, mirror: &'a Mirror) -> impl Iterator<Item = RegionEntry<'a>> + 'a {
        mirror.slots.iter().filter_map(|(&slot, found)| {
            let durable = self.durable(slot).filter(|it| it.reserved > 0)?;
            let left = found.region().is_none_or(|it| it.start != durable.start);
            left.then_some(durable)
        })
    }

    /// Whether the mirror's regions are possible, and leave what the durable table needs alone. It is
    /// as strict as the checks of `regions`: what a mirror is wrong about, it may be wrong about
    /// everywhere. Not to have the memory to find out is no answer: what the mirror alone knows would be
    /// lost.
    pub fn fits(&self, mirror: &Mirror, data_len: u64) -> std::result::Result<bool, NoMemory> {
        let most = self.resting.slots().len() + mirror.slots.len();
        let regions = || self.regions(Some(mirror));
        let mut names = HashSet::default();
        names.try_reserve(most).map_err(|_| NoMemory)?;
        // The next flush needs room in `regions`; and only a power loss costs a place its end.
        let is_whole = mirror.slots.iter().all(|(&slot, found)| {
            slot < self.capacity
                && found.region().is_none_or(|it| it.start + it.reserved <= data_len)
        });
        if !is_whole || !regions().all(|it| names.insert(it.region.name)) {
            return Ok(false);
        }
        match check_places(regions().map(|it| (it.slot, it.region)), most, data_len) {
            Ok(()) => {}
            Err(Misplaced::NoMemory) => return Err(NoMemory),
            Err(Misplaced::Beyond { .. } | Misplaced::Overlap { .. }) => return Ok(false),
        }
        let durable_fits = |it: Region| match it.durable.filter(|_| it.is_in_place()) {
            Some(durable) => durable.len <= it.region.reserved,
            None => true,
        };
        let places = self.places(mirror, data_len);
        let is_left =
            |needed: Extent| needed.len == 0 || outside(needed, &places).next() == Some(needed);
        Ok(regions().all(durable_fits)
            && self.left_places(mirror).all(|durable| is_left(durable.needed())))
    }

    /// The places of all regions, in order.
    fn places(&self, mirror: &Mirror, file_len: u64) -> Vec<Extent> {
        let regions = self.regions(Some(mirror));
        let mut places: Vec<_> = regions.filter_map(|it| it.region.place(file_len)).collect();
        places.sort_unstable_by_key(|place| place.start);
        places
    }

    /// Extents that the durable table has, and no region any more.
    pub fn left_extents(&self, mirror: &Mirror, file_len: u64) -> Vec<Extent> {
        let places = self.places(mirror, file_len);
        let left = self.left_places(mirror).filter_map(|it| it.place(file_len));
        left.flat_map(|left| outside(left, &places).collect::<Vec<_>>()).collect()
    }
}

/// The parts of `extent` that are in none of `places`, which are in order.
fn outside(extent: Extent, places: &[Extent]) -> impl Iterator<Item = Extent> + '_ {
    let first = places.partition_point(|place| place.end() <= extent.start);
    let after = Extent { start: extent.end(), len: 0 };
    let mut start = extent.start;
    places[first..]
        .iter()
        .copied()
        .take_while(move |it| it.start < extent.end())
        .chain([after])
        .filter_map(move |place| {
            let part = Extent { start, len: place.start.saturating_sub(start) };
            start = place.end();
            (part.len > 0).then_some(part)
        })
}

//! A second reader of the format, from the text of `docs/format.md` and not from `src/`: what it
//! says of the files, the library must say. Plain, and quadratic where that is shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

pub const PAGE: usize = 4096;
const MAX_LEN: u64 = 1 << 60;
const GENERATIONS: Range<u64> = 0..1 << 62;

const IDENTITY: u16 = 1;
const HEADER: u16 = 2;
const SLOT: u16 = 3;
const MIRROR: u16 = 5;

/// What tells the simulated system and its files from others, in a mirror: the boot id, and device,
/// disk, inode and birth of the two files.
const SYSTEM: [u64; 10] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Which of them the simulated system does not tell, and says 0: the disks and the births.
const UNKNOWN: [usize; 4] = [3, 5, 7, 9];

#[derive(Debug)]
pub enum Found {
    Unfinished,
    Incompatible,
    Corrupt(&'static str),
    /// A mirror that is to be believed if it is of this disk, which cannot be told.
    Undecided,
    Table(Table),
}

#[derive(Debug)]
pub struct Table {
    pub generation: u64,
    /// The largest generation of any valid header or side.
    pub newest: u64,
    pub regions: BTreeMap<String, Region>,
    /// As of the last flush, where a mirror says something else.
    pub flushed: Option<BTreeMap<String, Region>>,
    /// The database was closed, and yet has tails that are not what `data` has. Which it is depends on
    /// whether it is closed again.
    pub ambiguous: bool,
}

/// A region with its slot and its name.
type Row = (u64, String, Region);

#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    pub start: u64,
    pub len: u64,
    pub reserved: u64,
    /// Bytes at the end that `data` may lack.
    pub tail: Vec<u8>,
}

/// What is wrong with a page.
#[derive(Debug, PartialEq)]
enum Bad {
    Blank,
    Newer,
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub generation: u64,
    uuid: [u8; 16],
    pub slots: u64,
    pub regions: u64,
    pub digest: u128,
    closed: u32,
}

struct Entry {
    slot: u64,
    generation: u64,
    region: Option<(String, Region)>,
}

fn number(page: &[u8], at: Range<usize>) -> u64 {
    page[at].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn used(page: &[u8]) -> usize {
    number(page, 12..14) as usize
}

/// The sum that belongs at bytes 8 to 11 of a page of which `used` bytes are used.
pub fn checksum(page: &[u8], used: usize) -> u32 {
    let mut bytes = page[..used].to_vec();
    bytes[8..12].fill(0);
    crc32c::crc32c(&bytes)
}

fn page(file: &[u8], number: usize) -> Option<&[u8]> {
    file.get(number * PAGE..(number + 1) * PAGE)
}

pub fn slots_in(regions: &[u8]) -> u64 {
    (regions.len() / PAGE).saturating_sub(2) as u64 / 2
}

/// The checks from the magic number to the length.
fn check(page: Option<&[u8]>, kind: u16, lengths: Range<usize>) -> Result<&[u8], Bad> {
    let page = page.ok_or(Bad::Blank)?;
    let good = |it: bool| if it { Ok(()) } else { Err(Bad::Other) };
    if page[..64].iter().all(|&byte| byte == 0) {
        return Err(Bad::Blank);
    }
    good(page[..8] == [0x72, 0x61, 0x77, 0x64, 0x62, 0x0D, 0x0A, 0x1A])?;
    good((32..page.len() + 1).contains(&used(page)))?;
    good(number(page, 8..12) == checksum(page, used(page)).into())?;
    good(number(page, 14..16) == kind.into())?;
    if kind != SLOT {
        match number(page, 24..28) {
            0 => return Err(Bad::Other),
            1 => {}
            _ => return Err(Bad::Newer),
        }
        good(number(page, 28..32) == 4096)?;
    }
    good(lengths.contains(&used(page)))?;
    Ok(page)
}

fn uuid(page: &[u8]) -> [u8; 16] {
    page[32..48].try_into().unwrap()
}

fn header(file: &[u8], at: usize) -> Result<Header, Bad> {
    let page = check(page(file, at), HEADER, 84..85)?;
    let header = Header {
        generation: number(page, 16..24),
        uuid: uuid(page),
        slots: number(page, 48..56),
        regions: number(page, 56..64),
        digest: u128::from_le_bytes(page[64..80].try_into().unwrap()),
        closed: number(page, 80..84) as u32,
    };
    let good = GENERATIONS.contains(&header.generation)
        && header.slots <= 1 << 48
        && header.regions <= header.slots
        && header.closed <= 1;
    good.then_some(header).ok_or(Bad::Other)
}

fn entry(file: &[u8], slot: u64, side: u64) -> Result<Entry, Bad> {
    let entry = entry_of(page(file, (2 + 2 * slot + side) as usize))?;
    if entry.slot == slot {
        Ok(entry)
    } else {
        Err(Bad::Other)
    }
}

fn entry_of(page: Option<&[u8]>) -> Result<Entry, Bad> {
    let page = check(page, SLOT, 64..4097)?;
    let generation = number(page, 16..24);
    let (name_len, tail_len) = (number(page, 36..38), number(page, 38..40));
    let [start, len, reserved] = [40, 48, 56].map(|at| number(page, at..at + 8));
    let mut good =
        GENERATIONS.contains(&generation) && used(page) as u64 == 64 + name_len + tail_len;
    let region = match number(page, 32..36) {
        0 => {
            good &= [name_len, tail_len, start, len, reserved] == [0; 5];
            None
        }
        1 => {
            let whole = |it: u64| it % 4096 == 0 && it <= MAX_LEN;
            good &= whole(start) && whole(reserved) && (start == 0) == (reserved == 0);
            good &= len <= reserved && (1..=1024).contains(&name_len);
            good &= tail_len == 0 || (tail_len <= len && (len - tail_len) % 512 == 0);
            let end = (64 + name_len as usize).min(page.len());
            let name = String::from_utf8(page[64..end].to_vec()).map_err(|_| Bad::Other)?;
            let tail = page[end..used(page).max(end)].to_vec();
            let control = |it: char| matches!(it, '\0'..='\x1F' | '\x7F'..='\u{9F}');
            good &= !name.chars().any(control);
            Some((name, Region { start, len, reserved, tail }))
        }
        _ => return Err(Bad::Other),
    };
    let slot = number(page, 24..32);
    good.then_some(Entry { slot, generation, region }).ok_or(Bad::Other)
}

fn may_be_torn(page: &[u8], slot: u64) -> bool {
    page[..8] == *b"rawdb\r\n\x1a"
        && number(page, 14..16) == SLOT.into()
        && GENERATIONS.contains(&number(page, 16..24))
        && number(page, 24..32) == slot
        && number(page, 32..36) == 1
        && (513..4097).contains(&used(page))
        && number(page, 36..38) <= 1024
        && number(page, 36..38) + number(page, 38..40) == used(page) as u64 - 64
}

/// Digest and regions of the table at a generation.
pub fn table(file: &[u8], slots: u64, generation: u64) -> (u128, Vec<Row>) {
    let (mut digest, mut regions) = (0u128, Vec::new());
    for slot in 0..slots.min(slots_in(file)) {
        let mut best: Option<(u64, Entry)> = None;
        for side in 0..2 {
            let Ok(entry) = entry(file, slot, side) else { continue };
            let newer = best.as_ref().is_none_or(|(_, it)| it.generation < entry.generation);
            if newer && entry.generation <= generation {
                best = Some((side, entry));
            }
        }
        if let Some((side, Entry { region: Some((name, region)), .. })) = best {
            let page = page(file, (2 + 2 * slot + side) as usize).unwrap();
            digest = digest.wrapping_add(xxh3_128(&page[..used(page)]));
            regions.push((slot, name, region));
        }
    }
    (digest, regions)
}

/// What makes regions impossible, if anything does.
fn impossible(regions: &[Row], data: &[u8]) -> Option<&'static str> {
    for (index, (_, name, a)) in regions.iter().enumerate() {
        if a.reserved > 0 && a.start + a.needed() > data.len() as u64 {
            return Some("beyond the end");
        }
        for (_, other, b) in &regions[..index] {
            if name == other {
                return Some("same name");
            }
            if a.start < b.start + b.reserved && b.start < a.start + a.reserved {
                return Some("overlap");
            }
        }
    }
    None
}

impl Region {
    /// The pages with its bytes.
    fn needed(&self) -> u64 {
        self.len.div_ceil(4096) * 4096
    }
}

/// Where the halves of cells are in a mirror, if nothing else is there.
pub fn halves(live: &[u8]) -> Option<Vec<Range<usize>>> {
    let (mut halves, mut end) = (Vec::new(), PAGE);
    loop {
        let rest = &live[end..];
        let Some(byte) = rest.iter().position(|&byte| byte != 0) else { return Some(halves) };
        // A cell begins with its head, which has no byte that is zero.
        if byte % 256 != 0 || byte / 256 > 8 {
            return None;
        }
        let (start, units) = (end + byte, usize::from(rest[byte]));
        end = start + 256 * units;
        if !(1..=9).contains(&units)
            || end > live.len()
            || live[start..start + 8] != [units as u8; 8]
        {
            return None;
        }
        let middle = start + 128 * units;
        halves.extend([start..middle, middle..end]);
    }
}

/// The newest copies that count, by slot, with their stamps.
fn copies_in_use(live: &[u8], committed: u64) -> Option<BTreeMap<u64, (u64, Option<Row>)>> {
    let (mut newest, mut unstamped) = (BTreeMap::new(), Vec::new());
    let mut cells = BTreeMap::new();
    for (at, half) in halves(live)?.into_iter().enumerate() {
        let half = &live[half];
        let (stamp, len) = (number(half, 8..16), number(half, 16..24));
        let Entry { slot, generation, region } = match entry_of(Some(&half[24..])) {
            Ok(entry) if stamp == 0 || entry.generation == stamp => entry,
            _ if stamp == 0 => continue,
            _ => return None,
        };
        if generation > committed {
            if generation > committed.wrapping_add(1) {
                return None;
            }
            continue;
        }
        if stamp == 0 {
            unstamped.push((slot, generation));
            continue;
        }
        let row = match region {
            Some((_, region)) if len > region.reserved || !region.tail.is_empty() => return None,
            Some((name, region)) => Some((slot, name, Region { len, ..region })),
            None => None,
        };
        match newest.get(&slot) {
            Some((other, _)) if *other == stamp => return None,
            Some((other, _)) if *other > stamp => {}
            _ => {
                newest.insert(slot, (stamp, row));
                cells.insert(slot, at / 2);
            }
        }
    }
    if BTreeSet::from_iter(cells.values()).len() < cells.len() {
        return None;
    }
    let is_older = |(slot, it): &(u64, u64)| newest.get(slot).is_some_and(|(stamp, _)| it <= stamp);
    unstamped.iter().filter(|it| it.1 > 0).all(is_older).then_some(newest)
}

/// The regions that a mirror beside a flushed table has, if it is to be believed.
fn mirror(
    data: &[u8],
    live: &[u8],
    identity: [u8; 16],
    generation: u64,
    slots: u64,
    flushed: &[Row],
) -> Option<Vec<Row>> {
    let header = check(page(live, 0), MIRROR, 128..129).ok()?;
    let words = |at: usize| number(header, at..at + 8);
    let mut system: Vec<u64> = (48..128).step_by(8).map(words).collect();
    UNKNOWN.iter().for_each(|&word| system[word] = 0);
    let generations = words(2064)..=words(2072);
    if uuid(header) != identity
        || system != SYSTEM
        || words(2048) != 1
        || !generations.contains(&generation)
    {
        return None;
    }
    let (mut regions, mut last) = (flushed.to_vec(), 0);
    for (slot, (stamp, row)) in copies_in_use(live, words(2056))? {
        let end = row.as_ref().map_or(0, |(_, _, it)| it.start + it.reserved);
        if slot >= slots || end > data.len() as u64 {
            return None;
        }
        last = last.max(stamp);
        regions.retain(|it| it.0 != slot);
        regions.extend(row);
    }
    if last != words(2056) {
        return None;
    }
    let leaves_alone = |(slot, _, old): &Row| {
        let stayed = regions.iter().find(|(it, _, new)| it == slot && new.start == old.start);
        match stayed {
            _ if old.reserved == 0 => true,
            Some((_, _, new)) => old.len <= new.reserved,
            None => regions.iter().all(|(_, _, new)| {
                old.start + old.needed() <= new.start
                    || new.start + new.reserved <= old.start
                    || old.needed() == 0
                    || new.reserved == 0
            }),
        }
    };
    let good = impossible(&regions, data).is_none() && flushed.iter().all(leaves_alone);
    good.then_some(regions)
}

/// Whether a mirror says no more of its files than the simulated system does.
fn says_unknown(live: &[u8]) -> bool {
    UNKNOWN.iter().all(|word| number(live, 48 + 8 * word..56 + 8 * word) == 0)
}

/// What the files are.
pub fn read(data: &[u8], file: &[u8], live: &[u8]) -> Found {
    use Found::{Corrupt, Incompatible, Undecided, Unfinished};
    let headers = [header(file, 0), header(file, 1)];
    let blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    let empty = |header: &Result<Header, Bad>| match header {
        Ok(header) => header.slots == 0,
        Err(bad) => *bad == Bad::Blank,
    };
    if data.len() <= PAGE
        && blank(data)
        && headers.iter().all(empty)
        && file.get(2 * PAGE..).is_none_or(blank)
    {
        return Unfinished;
    }
    let identity = match check(page(data, 0), IDENTITY, 48..49) {
        Ok(page) => uuid(page),
        Err(Bad::Newer) => return Incompatible,
        Err(_) => return Corrupt("identity"),
    };
    if headers.contains(&Err(Bad::Newer)) {
        return Incompatible;
    }
    let all_valid = headers.iter().all(Result::is_ok);
    let mut candidates: Vec<Header> = headers.into_iter().flatten().collect();
    if candidates.iter().any(|header| header.uuid != identity) {
        return Corrupt("uuid");
    }
    candidates.sort_by_key(|header| std::cmp::Reverse(header.generation));
    let closed = matches!(&candidates[..], [a, b] if a == b && a.closed == 1);
    if closed {
        candidates.pop();
    }

    let (mut newest_side, mut damaged) = (0, false);
    for slot in 0..slots_in(file) {
        for side in 0..2 {
            match entry(file, slot, side) {
                Ok(entry) => newest_side = newest_side.max(entry.generation),
                Err(Bad::Blank) => {}
                Err(_) => {
                    let page = page(file, (2 + 2 * slot + side) as usize).unwrap();
                    damaged |= !may_be_torn(page, slot);
                }
            }
        }
    }
    let found = candidates.iter().enumerate().find_map(|(number, header)| {
        let (digest, regions) = table(file, header.slots, header.generation);
        let whole = header.slots <= slots_in(file)
            && header.digest == digest
            && header.regions == regions.len() as u64;
        whole.then_some((number, header, regions))
    });
    let Some((number, header, regions)) = found else { return Corrupt("no table") };
    if !all_valid && newest_side > header.generation {
        return Corrupt("the other header");
    }
    if number == 1 && damaged {
        return Corrupt("damaged");
    }
    if let Some(reason) = impossible(&regions, data) {
        return Corrupt(reason);
    }
    let slots = slots_in(file);
    let mirror = match closed {
        true => None,
        false => mirror(data, live, identity, header.generation, slots, &regions),
    };
    if mirror.is_some() && !says_unknown(live) {
        return Undecided;
    }
    let differs = |(_, _, region): &Row| {
        let end = (region.start + region.len) as usize;
        data[end - region.tail.len()..end] != region.tail[..]
    };
    let ambiguous = closed && regions.iter().any(differs);
    let map = |rows: Vec<Row>| -> BTreeMap<String, Region> {
        rows.into_iter().map(|(_, name, it)| (name, it)).collect()
    };
    let no_tails = |mut regions: BTreeMap<String, Region>| {
        regions.values_mut().for_each(|region| region.tail.clear());
        regions
    };
    let (regions, flushed) = match mirror {
        Some(mirror) => (map(mirror), Some(map(regions))),
        None if closed => (no_tails(map(regions)), None),
        None => (map(regions), None),
    };
    Found::Table(Table {
        generation: header.generation,
        newest: newest_side.max(candidates[0].generation),
        regions,
        flushed,
        ambiguous,
    })
}

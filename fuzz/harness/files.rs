//! The files of databases: those of real ones in all states of their lives, and what the input of the
//! fuzzer makes of them.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rawdb::storage::simulation::Simulation;
use rawdb::storage::File;
use rawdb::{Database, Options};

use super::reader::{self, PAGE};

#[derive(Clone, PartialEq)]
pub struct Files {
    pub data: Vec<u8>,
    pub regions: Vec<u8>,
    /// Empty where there is none.
    pub live: Vec<u8>,
}

/// As many moments in the life of a database as are kept.
const MOMENTS: usize = 16;

/// Real databases, each at several moments, the last one first.
pub fn lives() -> &'static [Vec<Files>] {
    static LIVES: OnceLock<Vec<Vec<Files>>> = OnceLock::new();
    LIVES.get_or_init(|| {
        let long = |at: usize| format!("{at}{}", "n".repeat(rawdb::MAX_NAME_LEN - 1));
        let programs: [&dyn Fn(&Database); 9] = [
            &|_| {},
            &|db| write(db, "log", 6),
            &|db| {
                for at in 0..12 {
                    write(db, &format!("region {at}"), at * 500);
                }
                db.flush().unwrap();
                for at in [1, 2, 5, 11] {
                    db.remove(&format!("region {at}")).unwrap();
                }
                db.flush().unwrap();
                write(db, "region 5", 3000);
            },
            &|db| {
                for at in 0..3 {
                    write(db, &long(at), 5000);
                    db.flush().unwrap();
                }
                db.rename(&long(0), &"m".repeat(449), false).unwrap();
            },
            &|db| {
                for round in 0..3 {
                    for name in ["a", "b", "c", "d"] {
                        write(db, name, 1500);
                    }
                    write(db, &format!("round {round}"), 1);
                    db.flush().unwrap();
                }
            },
            &|db| {
                for name in ["removed at once", "also", "kept"] {
                    write(db, name, 4097);
                }
                db.remove("removed at once").unwrap();
                db.remove("also").unwrap();
                db.flush().unwrap();
                db.rename("kept", "renamed", false).unwrap();
                write(db, "large", 50_000);
            },
            &|db| {
                for name in ["empty", "no place", "é", "\u{1F600}"] {
                    db.create_region_if_needed(name).unwrap();
                }
                write(db, "truncated", 30_000);
                db.flush().unwrap();
                db.region("truncated").unwrap().truncate(10).unwrap();
                write(db, "empty", 1);
                db.region("empty").unwrap().truncate(0).unwrap();
            },
            &|db| {
                write(db, "x", 9000);
                db.flush().unwrap();
                db.rename("x", "y", false).unwrap();
                write(db, "x", 100);
                db.flush().unwrap();
                db.rename("y", "x", true).unwrap();
                db.flush().unwrap();
                db.remove("x").unwrap();
            },
            &|db| {
                for (name, len) in [("log", 700), ("log", 64), ("note", 3), ("note", 2), ("log", 1)]
                {
                    write(db, name, len);
                    db.flush().unwrap();
                }
                write(db, "log", 3000);
                write(db, "note", 300);
                db.flush().unwrap();
                db.region("log").unwrap().write_at(b"overwritten", 3700).unwrap();
                db.flush().unwrap();
            },
        ];
        programs.iter().map(|program| live(program)).collect()
    })
}

/// For small files: without address space for more, they do not grow ahead.
pub fn options() -> Options {
    Options { max_address_space: 4 << 20, reclaim_threshold: 1, ..Options::default() }
}

fn write(db: &Database, name: &str, len: usize) {
    // No zeros: what follows the last other byte of `data` is cut off below.
    let bytes: Vec<u8> = (0..len).map(|at| (at % 255) as u8 + 1).collect();
    db.create_region_if_needed(name).unwrap().write(&bytes).unwrap();
}

/// The files before every call that a program makes the library make.
fn live(program: impl Fn(&Database)) -> Vec<Files> {
    let disk = Simulation::empty();
    disk.record();
    let db = Database::open_storage(disk.clone(), &options()).unwrap();
    program(&db);
    db.close().unwrap();
    let mut all: Vec<Files> = Vec::new();
    for snapshot in disk.recorded().iter().rev() {
        let files = Files::of(&snapshot.restart()).without_free_end();
        if all.last() != Some(&files) {
            all.push(files);
        }
    }
    let step = all.len().div_ceil(MOMENTS);
    all.into_iter().step_by(step).collect()
}

impl Files {
    pub fn of(disk: &Arc<Simulation>) -> Files {
        let [data, regions, live] =
            [File::Data, File::Regions, File::Live].map(|file| disk.contents(file));
        Files { data, regions, live }
    }

    pub fn disk(&self) -> Arc<Simulation> {
        match &self.live[..] {
            [] => Simulation::with_files(&self.data, &self.regions),
            live => Simulation::with_mirror(&self.data, &self.regions, live),
        }
    }

    /// Few bytes are tried faster. One slot that was never written stays.
    fn without_free_end(mut self) -> Files {
        let used =
            |file: &[u8]| file.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if self.live.is_empty() {
            let data = used(&self.data).next_multiple_of(PAGE).min(self.data.len());
            self.data.truncate(data);
        }
        // The last cell is whole with a page more.
        let live = (used(&self.live) + PAGE).next_multiple_of(PAGE).min(self.live.len());
        self.live.truncate(live);
        let slots = (used(&self.regions).div_ceil(PAGE)).saturating_sub(2).div_ceil(2);
        let slot = |half: &Range<usize>| number(&self.live[half.clone()], HALF_SLOT) as usize + 1;
        let slots = slots.max(self.parts()[1..].iter().map(slot).max().unwrap_or(0)) + 1;
        self.regions.truncate((2 + 2 * slots) * PAGE);
        self
    }

    /// The first page of the mirror and the halves of its cells, or as much as there is of that.
    fn parts(&self) -> Vec<Range<usize>> {
        let first = 0..PAGE.min(self.live.len());
        let halves = (self.live.len() >= PAGE).then(|| reader::halves(&self.live)).flatten();
        [first].into_iter().chain(halves.unwrap_or_default()).collect()
    }

    /// Page 0 of `data` under the number 0, then those of `regions`.
    fn pages(&self) -> usize {
        1 + self.regions.len() / PAGE
    }

    fn page(&self, number: usize) -> Option<&[u8]> {
        match number.checked_sub(1) {
            None => self.data.get(..PAGE),
            Some(number) => self.regions.get(number * PAGE..(number + 1) * PAGE),
        }
    }

    fn page_mut(&mut self, number: usize) -> Option<&mut [u8]> {
        match number.checked_sub(1) {
            None => self.data.get_mut(..PAGE),
            Some(number) => self.regions.get_mut(number * PAGE..(number + 1) * PAGE),
        }
    }

    fn is_written(&self, number: usize) -> bool {
        self.page(number).is_some_and(|page| page.iter().any(|&byte| byte != 0))
    }

    fn field(&self, page: usize, (at, len): Field) -> u64 {
        self.page(page).map_or(0, |page| number(page, (at, len)))
    }

    fn set_field(&mut self, page: usize, (at, len): Field, value: u64) {
        if let Some(page) = self.page_mut(page) {
            page[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }

    /// Makes the checksum of a page right.
    fn seal(&mut self, page: usize) {
        let Some(page) = self.page_mut(page) else { return };
        let used = u16::from_le_bytes([page[12], page[13]]) as usize;
        if (12..=PAGE).contains(&used) {
            let checksum = reader::checksum(page, used);
            page[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Makes a header say what its table amounts to.
    fn count(&mut self, header: usize) {
        let (slots, generation) = (self.field(header, SLOTS), self.field(header, GENERATION));
        let (digest, regions) = reader::table(&self.regions, slots, generation);
        self.set_field(header, REGIONS, regions.len() as u64);
        self.set_field(header, DIGEST, digest as u64);
        self.set_field(header, (72, 8), (digest >> 64) as u64);
        self.seal(header);
    }
}

type Field = (usize, usize);

fn number(bytes: &[u8], (at, len): Field) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// In a half of a cell: where the entry begins, and its slot.
const HALF_ENTRY: usize = 24;
const HALF_SLOT: Field = (HALF_ENTRY + SLOT.0, SLOT.1);

const USED: Field = (12, 2);
const KIND: Field = (14, 2);
const GENERATION: Field = (16, 8);
const SLOTS: Field = (48, 8);
const REGIONS: Field = (56, 8);
const DIGEST: Field = (64, 8); // its lower half
const SLOT: Field = (24, 8);
const STATE: Field = (32, 4);
const NAME_LEN: Field = (36, 2);
const TAIL_LEN: Field = (38, 2);
const START: Field = (40, 8);
const LEN: Field = (48, 8);
const RESERVED: Field = (56, 8);

const OF_HEADERS: [Field; 12] = [
    SLOTS,
    REGIONS,
    GENERATION,
    USED,
    KIND,
    (24, 4), // version
    (28, 4), // page_size
    (32, 8), // uuid
    (40, 8),
    DIGEST,
    (72, 8),
    (80, 4), // closed
];
const OF_SLOTS: [Field; 12] = [
    START,
    LEN,
    RESERVED,
    GENERATION,
    STATE,
    SLOT,
    NAME_LEN,
    TAIL_LEN,
    USED,
    KIND,    //
    (64, 4), // name
    (68, 8),
];

/// The bytes that the fuzzer makes up. Behind their end are zeros.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    fn number(&mut self, len: usize) -> u64 {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        let len = if limit > 256 { 2 } else { 1 };
        self.number(len) as usize % limit.max(1)
    }

    /// A page that holds something, with `first` or a later number.
    fn written(&mut self, files: &Files, first: usize) -> usize {
        let written: Vec<usize> =
            (first..files.pages()).filter(|&it| files.is_written(it)).collect();
        if written.is_empty() {
            return first;
        }
        written[self.below(written.len())]
    }

    /// A value for a field that has `now`; `same` is what the same field holds on other pages.
    fn value(&mut self, files: &Files, now: u64, field: Field) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            1 << 12,
            (1 << 16) - 1,
            1 << 31,
            1 << 32,
            (1 << 48) + 1,
            1 << 48,
            1 << 60,
            (1 << 60) + (1 << 12),
            (1 << 62) - 1,
            1 << 62,
            1 << 63,
            u64::MAX - 4095,
            u64::MAX,
            (1 << 62) - 2,
        ];
        match self.below(10) {
            0 => self.number(1),
            1 => self.number(1) * PAGE as u64,
            2 => EDGES[self.below(EDGES.len())],
            3 => now.wrapping_add(self.byte() as i8 as u64),
            4 => now.wrapping_add((self.byte() as i8 as u64).wrapping_mul(PAGE as u64)),
            5 => {
                let other = self.written(files, 1);
                files.field(other, field).wrapping_add(self.below(3) as u64).wrapping_sub(1)
            }
            6 => {
                // What lies at the end of a place, or near it.
                let other = self.written(files, 3);
                let end = files.field(other, START).wrapping_add(files.field(other, RESERVED));
                end.wrapping_add((self.byte() as i8 as u64).wrapping_mul(PAGE as u64))
            }
            7 => (files.data.len() as u64).wrapping_add(self.byte() as i8 as u64),
            8 => reader::slots_in(&files.regions).wrapping_add(self.byte() as i8 as u64),
            _ => self.number(8),
        }
    }

    fn name(&mut self, files: &Files) -> Vec<u8> {
        const ODD: [&[u8]; 10] = [
            b"\0",
            b"a\x1F",
            b"\x7F",
            "\u{9F}".as_bytes(),
            "\u{A0}".as_bytes(),
            b"\xFF",
            b"\xC3",
            b"\xED\xA0\x80",
            b"",
            b"/../",
        ];
        match self.below(4) {
            0 => {
                let other = self.written(files, 3);
                let len = files.field(other, NAME_LEN).min(PAGE as u64 - 64) as usize;
                files.page(other).map_or(Vec::new(), |page| page[64..64 + len].to_vec())
            }
            1 => ODD[self.below(ODD.len())].to_vec(),
            2 => vec![b'n'; [448, 449, 1023, 1024, 1025, 4031, 4032][self.below(7)]],
            _ => (0..self.below(12)).map(|_| self.byte()).collect(),
        }
    }

    /// One change to the files. `life` has the same database at other moments.
    pub fn change(&mut self, files: &mut Files, life: &[Files]) {
        let what = self.byte();
        // Most changes are followed by a new checksum.
        let sealed = what < 224;
        let page = match what % 20 {
            0 | 1 => {
                let page = self.below(3);
                let field = OF_HEADERS[self.below(OF_HEADERS.len())];
                let now = files.field(page, field);
                let value = self.value(files, now, field);
                files.set_field(page, field, value);
                page
            }
            2..=5 => {
                let page = self.written(files, 3);
                let field = OF_SLOTS[self.below(OF_SLOTS.len())];
                let now = files.field(page, field);
                let value = self.value(files, now, field);
                files.set_field(page, field, value);
                page
            }
            6 => {
                let page = self.written(files, 3);
                let name = self.name(files);
                files.set_field(page, NAME_LEN, name.len() as u64);
                files.set_field(page, USED, 64 + name.len() as u64);
                if let Some(page) = files.page_mut(page) {
                    page[64..64 + name.len()].copy_from_slice(&name);
                }
                page
            }
            7 => {
                // A copy of an entry, in a slot of its own.
                let from = self.written(files, 3);
                let to = 3 + self.below(files.pages().saturating_sub(3));
                let copy = files.page(from).map(|page| page.to_vec());
                if let (Some(copy), Some(page)) = (copy, files.page_mut(to)) {
                    page.copy_from_slice(&copy);
                    if self.below(4) > 0 {
                        files.set_field(to, SLOT, (to as u64 - 3) / 2);
                    }
                }
                to
            }
            8 => {
                let (a, b) = (self.below(files.pages()), self.below(files.pages()));
                let [first, second] = [a, b].map(|it| files.page(it).map(|page| page.to_vec()));
                if let (Some(first), Some(second)) = (first, second) {
                    files.page_mut(a).unwrap().copy_from_slice(&second);
                    if self.below(2) > 0 {
                        files.page_mut(b).unwrap().copy_from_slice(&first);
                    }
                }
                return;
            }
            9 => {
                let page = self.below(files.pages());
                let at = [self.below(40), self.below(128), self.below(PAGE)][self.below(3)];
                let with = self.byte();
                if let Some(page) = files.page_mut(page) {
                    page[at] ^= with;
                }
                page
            }
            10 => {
                let page = self.below(files.pages());
                let at = self.below(PAGE - 16);
                let bytes: Vec<u8> = (0..self.below(16)).map(|_| self.byte()).collect();
                if let Some(page) = files.page_mut(page) {
                    page[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                page
            }
            11 => {
                let unit = [1, 512, PAGE as isize, 2 * PAGE as isize][self.below(4)];
                let by = self.byte() as i8 as isize % 32 * unit;
                let written = self.written(files, 3);
                let (file, end) = match self.below(3) {
                    0 => (&mut files.data, None),
                    1 => (&mut files.regions, None),
                    // Inside a slot that holds something.
                    _ => (&mut files.regions, Some(written * PAGE)),
                };
                let len = end.unwrap_or(file.len()).saturating_add_signed(by);
                file.resize(len, 0);
                return;
            }
            12 => {
                // A page, or a sector of it, of another moment.
                let other = &life[self.below(life.len())];
                let page = self.below(files.pages());
                let sector = self.below(9);
                let range = if sector == 8 { 0..PAGE } else { sector * 512..(sector + 1) * 512 };
                if let (Some(from), Some(page)) = (other.page(page), files.page_mut(page)) {
                    page[range.clone()].copy_from_slice(&from[range]);
                }
                return;
            }
            13 => {
                let page = self.below(files.pages());
                if let Some(page) = files.page_mut(page) {
                    page.fill(0);
                }
                return;
            }
            14 => {
                // All of one file, from another database or from another time.
                let lives = lives();
                let other = match self.below(2) {
                    0 => life,
                    _ => &lives[self.below(lives.len())],
                };
                let other = &other[self.below(other.len())];
                match self.below(2) {
                    0 => files.data.clone_from(&other.data),
                    _ => files.regions.clone_from(&other.regions),
                }
                return;
            }
            15 => {
                let page = 1 + self.below(2);
                files.count(page);
                return;
            }
            16 => {
                // All of the mirror, from another database or from another time.
                let lives = lives();
                let other = match self.below(4) {
                    0 => &lives[self.below(lives.len())],
                    _ => life,
                };
                files.live.clone_from(&other[self.below(other.len())].live);
                return;
            }
            _ => return self.change_mirror(files, life, sealed),
        };
        if sealed {
            files.seal(page);
        }
    }

    /// One change to the mirror.
    fn change_mirror(&mut self, files: &mut Files, life: &[Files], sealed: bool) {
        const HEADER: [Field; 12] = [
            (2048, 8), // trusted
            (2056, 8), // committed
            (2064, 8), // durable
            (2072, 8), // attempted
            (32, 8),   // uuid
            (48, 8),   // boot_id
            (56, 8),
            (64, 8), // device and disk of `data`
            (72, 8),
            (112, 8), // inode of `regions`
            USED,
            (24, 4), // version
        ];
        if files.live.len() < PAGE {
            return;
        }
        let parts = files.parts();
        let what = self.below(13);
        let of_header = what == 0 || parts.len() == 1;
        let part = if of_header { 0 } else { 1 + self.below(parts.len() - 1) };
        let (part, from) = (parts[part].clone(), parts[self.below(parts.len())].clone());
        let other = &life[self.below(life.len())];
        let (at, len) = match what {
            _ if of_header => HEADER[self.below(HEADER.len())],
            1 => (8, 8),
            2 => (16, 8),
            3 => (0, 8),
            _ => {
                let (at, len) = OF_SLOTS[self.below(OF_SLOTS.len())];
                (HALF_ENTRY + at, len)
            }
        };
        let now = number(&files.live[part.clone()], (at, len));
        let value = self.value(files, now, START);
        let (stamp, byte) = (self.number(1), self.byte());
        let copied = files.live[from].to_vec();
        let bytes = &mut files.live[part.clone()];
        match what {
            9 => bytes[at] ^= byte,
            10 => {
                // The entry of another slot, perhaps as if it were this one's.
                let slot = number(bytes, HALF_SLOT);
                let len = copied.len().min(bytes.len());
                bytes[8..len].copy_from_slice(&copied[8..len]);
                if byte % 2 == 0 {
                    bytes[HALF_SLOT.0..][..8].copy_from_slice(&slot.to_le_bytes());
                }
            }
            11 => {
                if let Some(old) = other.live.get(part) {
                    bytes.copy_from_slice(old);
                }
                return;
            }
            12 => return bytes.fill(0),
            _ => bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]),
        }
        if (4..7).contains(&what) && !of_header {
            // Another change than before.
            bytes[8..16].copy_from_slice(&stamp.to_le_bytes());
            bytes[HALF_ENTRY + GENERATION.0..][..8].copy_from_slice(&stamp.to_le_bytes());
        }
        let sealed_at = if of_header { 0 } else { HALF_ENTRY };
        let used = u16::from_le_bytes([bytes[sealed_at + 12], bytes[sealed_at + 13]]) as usize;
        if sealed && (12..=bytes.len() - sealed_at).contains(&used) {
            let checksum = reader::checksum(&bytes[sealed_at..], used);
            bytes[sealed_at + 8..sealed_at + 12].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Makes what the headers say fit the changed slots, as far as the input asks for it.
    pub fn finish(&mut self, files: &mut Files, how: u8) {
        for header in [1, 2] {
            if how & 8 > 0 {
                let slots = reader::slots_in(&files.regions);
                files.set_field(header, SLOTS, files.field(header, SLOTS).min(slots));
                files.seal(header);
            }
            if how & header as u8 > 0 {
                files.count(header);
            }
        }
        if how & 16 > 0 {
            // The table of the newer header is incomplete, as after a crash.
            let [a, b] = [1, 2].map(|header| files.field(header, GENERATION));
            let newer = if a >= b { 1 } else { 2 };
            files.set_field(newer, DIGEST, !files.field(newer, DIGEST));
            files.seal(newer);
        }
        if how & 4 > 0 {
            if let Some(header) = files.page(1).map(|page| page.to_vec()) {
                if let Some(page) = files.page_mut(2) {
                    page.copy_from_slice(&header);
                }
            }
        }
    }
}

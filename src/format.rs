//! Pages to bytes and back: the on-disk format, and nothing else. No I/O happens here.
//!
//! What `decode` returns has been checked against everything that one page can tell by itself.
//! Whether pages fit together is the business of [`recovery`](crate::recovery).
//! `docs/format.md` has the same layout in prose.

use std::fmt;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

use crate::steps::Step;
use crate::storage::FileId;

/// The unit of allocation in both files and the size of every page of metadata. Fixed in the
/// format, whatever the machine's page size is.
pub const PAGE_SIZE: u64 = 4096;
const PAGE: usize = PAGE_SIZE as usize;

/// The longest name of a region, in bytes. It keeps an entry well inside its page.
pub const MAX_NAME_LEN: usize = 1024;

/// The largest offset that the library computes with: 1 EiB. Twice that, and sums of two such
/// numbers, still fit both `u64` and the kernel's signed 64-bit offsets.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 60;

/// Generations stay below this, so that adding one never overflows.
pub(crate) const MAX_GENERATION: u64 = 1 << 62;

/// What a drive writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

const FORMAT_VERSION: u32 = 1;

// Every page begins alike, in this and all later versions, so that an older library can tell
// "newer" from "damaged".
pub(crate) const MAGIC: [u8; 8] = *b"rawdb\r\n\x1a";
const AT_MAGIC: Range<usize> = 0..8;
const AT_CHECKSUM: Range<usize> = 8..12; // CRC32C of the used bytes, this field as zero
const AT_USED: Range<usize> = 12..14; // how many bytes from the start of the page are used
const AT_KIND: Range<usize> = 14..16;
const AT_GENERATION: Range<usize> = 16..24;

// Identity and header pages.
const AT_VERSION: Range<usize> = 24..28;
const AT_PAGE_SIZE: Range<usize> = 28..32;
const AT_UUID: Range<usize> = 32..48;
const IDENTITY_USED: usize = 48;
const AT_SLOTS: Range<usize> = 48..56;
const AT_REGIONS: Range<usize> = 56..64;
const AT_DIGEST: Range<usize> = 64..80;
const AT_CLOSED: Range<usize> = 80..84; // 1 or 0
const HEADER_USED: usize = 84;

// Slot pages.
const AT_SLOT: Range<usize> = 24..32;
const AT_STATE: Range<usize> = 32..36;
const AT_NAME_LEN: Range<usize> = 36..38;
const AT_TAIL_LEN: Range<usize> = 38..40;
const AT_START: Range<usize> = 40..48;
const AT_LEN: Range<usize> = 48..56;
const AT_RESERVED: Range<usize> = 56..64;
const ENTRY_USED: usize = 64; // and after it the name, and the tail

const KIND_IDENTITY: u16 = 1;
const KIND_HEADER: u16 = 2;
const KIND_SLOT: u16 = 3;
const KIND_MIRROR: u16 = 5; // 4 was another layout of it

// First page of `live`.
const AT_BOOT_ID: Range<usize> = 48..64;
const AT_FILE_IDS: Range<usize> = 64..128; // of `data`, then of `regions`
const FILE_ID_LEN: usize = 32;
const MIRROR_USED: usize = 128;

const STATE_VACANT: u32 = 0;
const STATE_REGION: u32 = 1;

/// The first page of `data`: which database this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uuid: [u8; 16],
}

/// Pages 0 and 1 of `regions`: the table as of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub uuid: [u8; 16],
    pub generation: u64,
    pub slots: u64,
    pub regions: u64,
    /// Sum, modulo 2^128, of the [`digest`] of every region's entry.
    pub digest: u128,
    /// Whether a writer has closed the database since this was its table, with everything synced.
    /// As long as one has it open, at most one header says so.
    pub closed: bool,
}

/// The first page of `live`: what its mirror belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MirrorIdentity {
    pub uuid: [u8; 16],
    pub boot_id: [u8; 16],
    pub files: [FileId; 2],
}

/// One side of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub slot: u64,
    pub generation: u64,
    pub region: Option<RegionEntry<'a>>,
}

/// Where a region lies in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionEntry<'a> {
    pub name: &'a str,
    pub start: u64,
    pub len: u64,
    pub reserved: u64,
    /// The region's last bytes, where `data` may not have them yet. They count more than what it has.
    pub tail: &'a [u8],
}

/// A page of metadata on its way to or from the disk.
pub(crate) struct Page(Box<[u8; PAGE]>);

impl Page {
    fn new(kind: u16, generation: u64) -> Page {
        let mut page = Page(Box::new([0; PAGE]));
        set_prefix(&mut page.0[..], kind, generation);
        page
    }

    fn set(&mut self, at: Range<usize>, bytes: &[u8]) {
        self.0[at].copy_from_slice(bytes);
    }

    fn seal(mut self, used: usize) -> Page {
        seal(&mut self.0[..used]);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    pub fn used(&self) -> &[u8] {
        &self.0[..used(&self.0[..])]
    }

    /// The sectors with used bytes. Nothing reads the others, and in a copy of a file they may be
    /// holes, so that writing them could take space.
    pub fn sectors(&self) -> &[u8] {
        &self.0[..used(&self.0[..]).next_multiple_of(SECTOR as usize)]
    }

    /// The sum that this entry adds to the table's digest.
    pub fn digest(&self) -> u128 {
        digest(self.bytes())
    }
}

fn set_prefix(page: &mut [u8], kind: u16, generation: u64) {
    page[AT_MAGIC].copy_from_slice(&MAGIC);
    page[AT_KIND].copy_from_slice(&kind.to_le_bytes());
    page[AT_GENERATION].copy_from_slice(&generation.to_le_bytes());
}

/// To be called last and once, with all of the used bytes and no others.
fn seal(used: &mut [u8]) {
    let len = used.len() as u16;
    used[AT_USED].copy_from_slice(&len.to_le_bytes());
    // Of the checksum itself as zero, which it still is.
    let checksum = crc32c::crc32c(used);
    used[AT_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// The offset in `regions` of the header page `page` (0 or 1).
pub(crate) fn header_offset(page: u8) -> u64 {
    page as u64 * PAGE_SIZE
}

/// The offset in `regions` of side `side` (0 or 1) of slot `slot`.
pub(crate) fn slot_offset(slot: u64, side: u8) -> u64 {
    (2 + 2 * slot + side as u64) * PAGE_SIZE
}

/// How many slots a `regions` file of `len` bytes has room for.
pub(crate) fn slots_in(len: u64) -> u64 {
    (len / PAGE_SIZE).saturating_sub(2) / 2
}

/// `len` rounded up to whole pages. `len` is at most [`MAX_FILE_LEN`].
pub(crate) fn round_up(len: u64) -> u64 {
    len.next_multiple_of(PAGE_SIZE)
}

pub(crate) fn encode_identity(identity: &Identity) -> Page {
    let mut page = Page::new(KIND_IDENTITY, 0);
    page.set(AT_VERSION, &FORMAT_VERSION.to_le_bytes());
    page.set(AT_PAGE_SIZE, &(PAGE as u32).to_le_bytes());
    page.set(AT_UUID, &identity.uuid);
    page.seal(IDENTITY_USED)
}

pub(crate) fn encode_header(header: &Header) -> Page {
    let mut page = Page::new(KIND_HEADER, header.generation);
    page.set(AT_VERSION, &FORMAT_VERSION.to_le_bytes());
    page.set(AT_PAGE_SIZE, &(PAGE as u32).to_le_bytes());
    page.set(AT_UUID, &header.uuid);
    page.set(AT_SLOTS, &header.slots.to_le_bytes());
    page.set(AT_REGIONS, &header.regions.to_le_bytes());
    page.set(AT_DIGEST, &header.digest.to_le_bytes());
    page.set(AT_CLOSED, &u32::from(header.closed).to_le_bytes());
    page.seal(HEADER_USED)
}

pub(crate) fn encode_mirror(identity: &MirrorIdentity) -> Page {
    let mut page = Page::new(KIND_MIRROR, 0);
    page.set(AT_VERSION, &FORMAT_VERSION.to_le_bytes());
    page.set(AT_PAGE_SIZE, &(PAGE as u32).to_le_bytes());
    page.set(AT_UUID, &identity.uuid);
    page.set(AT_BOOT_ID, &identity.boot_id);
    let fields =
        identity.files.iter().flat_map(|file| [file.device, file.disk, file.inode, file.born]);
    let fields: Vec<u8> = fields.flat_map(u64::to_le_bytes).collect();
    page.set(AT_FILE_IDS, &fields);
    page.seal(MIRROR_USED)
}

pub(crate) fn encode_entry(entry: &Entry) -> Page {
    let mut page = Page(Box::new([0; PAGE]));
    let used = match &entry.region {
        Some(region) => entry_len(region.name.len()) + region.tail.len(),
        None => entry_len(0),
    };
    encode_entry_to(&mut page.0[..used], entry);
    page
}

/// How many bytes an entry without a tail uses; that of a vacant slot has no name.
pub(crate) const fn entry_len(name_len: usize) -> usize {
    ENTRY_USED + name_len
}

/// The longest tail of a region with such a name.
pub(crate) const fn max_tail_len(name_len: usize) -> usize {
    PAGE - entry_len(name_len)
}

/// The used bytes of an entry, where there are just as many zeros.
pub(crate) fn encode_entry_to(bytes: &mut [u8], entry: &Entry) {
    set_prefix(bytes, KIND_SLOT, entry.generation);
    let mut set = |at: Range<usize>, value: &[u8]| bytes[at].copy_from_slice(value);
    set(AT_SLOT, &entry.slot.to_le_bytes());
    match &entry.region {
        None => set(AT_STATE, &STATE_VACANT.to_le_bytes()),
        Some(RegionEntry { name, start, len, reserved, tail }) => {
            set(AT_STATE, &STATE_REGION.to_le_bytes());
            set(AT_NAME_LEN, &(name.len() as u16).to_le_bytes());
            set(AT_TAIL_LEN, &(tail.len() as u16).to_le_bytes());
            set(AT_START, &start.to_le_bytes());
            set(AT_LEN, &len.to_le_bytes());
            set(AT_RESERVED, &reserved.to_le_bytes());
            let end = entry_len(name.len());
            set(ENTRY_USED..end, name.as_bytes());
            set(end..end + tail.len(), tail);
        }
    }
    seal(bytes);
}

/// The contribution of a sealed region entry to the table's digest: a 128-bit hash of its used
/// bytes. It includes slot and generation, so no other entry, and no older version of this one,
/// can stand in for it.
pub(crate) fn digest(page: &[u8]) -> u128 {
    xxh3_128(&page[..used(page)])
}

/// Why a page is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageError {
    /// All bytes that matter are zero: never written.
    Blank,
    Magic,
    Checksum {
        stored: u32,
        computed: u32,
    },
    /// A well-formed page of a newer format.
    Version(u32),
    Field {
        name: &'static str,
        value: u64,
    },
    Name(&'static str),
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageError::Blank => write!(f, "the page is blank"),
            PageError::Magic => write!(f, "field magic: not a rawdb page"),
            PageError::Checksum { stored, computed } => {
                write!(f, "field checksum: is {stored:#010x}, should be {computed:#010x}")
            }
            PageError::Version(version) => {
                write!(f, "field version: {version}, and this library reads up to {FORMAT_VERSION}")
            }
            PageError::Field { name, value } => write!(f, "field {name}: {value} is not possible"),
            PageError::Name(reason) => write!(f, "field name: {reason}"),
        }
    }
}

type Decoded<T> = std::result::Result<T, PageError>;

pub(crate) fn decode_identity(page: &[u8]) -> Decoded<Identity> {
    check_prefix(page, KIND_IDENTITY, IDENTITY_USED..=IDENTITY_USED)?;
    check_version(page)?;
    Ok(Identity { uuid: array(page, AT_UUID) })
}

pub(crate) fn decode_header(page: &[u8]) -> Decoded<Header> {
    check_prefix(page, KIND_HEADER, HEADER_USED..=HEADER_USED)?;
    check_version(page)?;
    let generation = generation(page)?;
    let slots = u64_at(page, AT_SLOTS);
    let regions = u64_at(page, AT_REGIONS);
    if slots > MAX_FILE_LEN / PAGE_SIZE {
        return Err(PageError::Field { name: "slots", value: slots });
    }
    if regions > slots {
        return Err(PageError::Field { name: "regions", value: regions });
    }
    let closed = u32_at(page, AT_CLOSED);
    if closed > 1 {
        return Err(PageError::Field { name: "closed", value: closed.into() });
    }
    Ok(Header {
        uuid: array(page, AT_UUID),
        generation,
        slots,
        regions,
        digest: u128::from_le_bytes(array(page, AT_DIGEST)),
        closed: closed == 1,
    })
}

pub(crate) fn decode_mirror(page: &[u8]) -> Decoded<MirrorIdentity> {
    check_prefix(page, KIND_MIRROR, MIRROR_USED..=MIRROR_USED)?;
    check_version(page)?;
    let file_id = |at: usize| FileId {
        device: u64_at(page, at..at + 8),
        disk: u64_at(page, at + 8..at + 16),
        inode: u64_at(page, at + 16..at + 24),
        born: u64_at(page, at + 24..at + 32),
    };
    Ok(MirrorIdentity {
        uuid: array(page, AT_UUID),
        boot_id: array(page, AT_BOOT_ID),
        files: [file_id(AT_FILE_IDS.start), file_id(AT_FILE_IDS.start + FILE_ID_LEN)],
    })
}

// Opening calls it twice for each slot, and would copy what it returns from function to function.
#[inline(always)]
pub(crate) fn decode_entry(page: &[u8]) -> Decoded<Entry<'_>> {
    check_prefix(page, KIND_SLOT, ENTRY_USED..=PAGE)?;
    let generation = generation(page)?;
    let slot = u64_at(page, AT_SLOT);
    let (name_len, tail_len) = (u16_at(page, AT_NAME_LEN), u16_at(page, AT_TAIL_LEN));
    let (start, len, reserved) =
        (u64_at(page, AT_START), u64_at(page, AT_LEN), u64_at(page, AT_RESERVED));
    let name_end = entry_len(name_len.into());
    if name_end + usize::from(tail_len) != used(page) {
        return Err(PageError::Field { name: "name_len", value: name_len.into() });
    }
    match u32_at(page, AT_STATE) {
        STATE_VACANT => {
            for (name, value) in [
                ("name_len", name_len.into()),
                ("tail_len", tail_len.into()),
                ("start", start),
                ("len", len),
                ("reserved", reserved),
            ] {
                if value != 0 {
                    return Err(PageError::Field { name, value });
                }
            }
            return Ok(Entry { slot, generation, region: None });
        }
        STATE_REGION => {}
        other => return Err(PageError::Field { name: "state", value: other as u64 }),
    }
    let name = std::str::from_utf8(&page[ENTRY_USED..name_end])
        .map_err(|_| PageError::Name("not UTF-8"))?;
    check_name(name).map_err(PageError::Name)?;
    // A region that never held a byte has no place; every other place is whole pages behind the
    // identity page.
    if start > MAX_FILE_LEN || start % PAGE_SIZE != 0 || (start == 0) != (reserved == 0) {
        return Err(PageError::Field { name: "start", value: start });
    }
    if reserved > MAX_FILE_LEN || reserved % PAGE_SIZE != 0 {
        return Err(PageError::Field { name: "reserved", value: reserved });
    }
    if len > reserved {
        return Err(PageError::Field { name: "len", value: len });
    }
    // A tail begins with a whole sector of the region.
    let has_tail = tail_len > 0;
    if has_tail && len.checked_sub(tail_len.into()).is_none_or(|start| start % SECTOR != 0) {
        return Err(PageError::Field { name: "tail_len", value: tail_len.into() });
    }
    let tail = &page[name_end..used(page)];
    Ok(Entry { slot, generation, region: Some(RegionEntry { name, start, len, reserved, tail }) })
}

/// Whether a page that does not decode can be what a crash has left of an entry of `slot`. The
/// drive writes sectors of 512 bytes whole, so only an entry with a long name or a tail can be torn, and
/// its first sector is one that was written.
pub(crate) fn may_be_torn(page: &[u8], slot: u64) -> bool {
    let used = used(page);
    page[AT_MAGIC] == MAGIC
        && u16_at(page, AT_KIND) == KIND_SLOT
        && (SECTOR as usize + 1..=PAGE).contains(&used)
        && usize::from(u16_at(page, AT_NAME_LEN)) <= MAX_NAME_LEN
        && usize::from(u16_at(page, AT_NAME_LEN)) + usize::from(u16_at(page, AT_TAIL_LEN))
            == used - ENTRY_USED
        && u32_at(page, AT_STATE) == STATE_REGION
        && u64_at(page, AT_SLOT) == slot
        && generation(page).is_ok()
}

/// Whether `name` may name a region; if not, why.
pub(crate) fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    // To look at bytes takes a third of what it takes to look at characters.
    let is_ascii_text = || name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if name.is_empty() {
        Err("a name has at least one byte")
    } else if name.len() > MAX_NAME_LEN {
        Err("a name has at most 1024 bytes")
    } else if !is_ascii_text() && name.chars().any(char::is_control) {
        Err("a name has no control characters")
    } else {
        Ok(())
    }
}

/// The checks that every page must pass, whatever it holds. Of an entry in the mirror there is less
/// than a page.
fn check_prefix(page: &[u8], kind: u16, lengths: std::ops::RangeInclusive<usize>) -> Decoded<()> {
    assert!(page.len() >= *lengths.start(), "what is always used of a page is read");
    if page[..ENTRY_USED] == [0; ENTRY_USED] {
        return Err(PageError::Blank);
    }
    if page[AT_MAGIC] != MAGIC {
        return Err(PageError::Magic);
    }
    let used = used(page);
    // The bound comes before the checksum, which reads that many bytes. A newer format may use
    // more bytes than this one; it is still told by its version.
    if !(AT_PAGE_SIZE.end..=page.len()).contains(&used) {
        return Err(PageError::Field { name: "used", value: used as u64 });
    }
    let (stored, computed) = (u32_at(page, AT_CHECKSUM), checksum(&page[..used]));
    let check = if kind == KIND_SLOT { Step::CheckEntry } else { Step::CheckHeader };
    if stored != computed && check.taken() {
        return Err(PageError::Checksum { stored, computed });
    }
    let found = u16_at(page, AT_KIND);
    if found != kind {
        return Err(PageError::Field { name: "kind", value: found as u64 });
    }
    if kind != KIND_SLOT {
        check_version(page)?;
    }
    if !lengths.contains(&used) {
        return Err(PageError::Field { name: "used", value: used as u64 });
    }
    Ok(())
}

fn check_version(page: &[u8]) -> Decoded<()> {
    let version = u32_at(page, AT_VERSION);
    if version > FORMAT_VERSION {
        return Err(PageError::Version(version));
    }
    if version != FORMAT_VERSION {
        return Err(PageError::Field { name: "version", value: version as u64 });
    }
    let page_size = u32_at(page, AT_PAGE_SIZE);
    if page_size != PAGE as u32 {
        return Err(PageError::Field { name: "page_size", value: page_size as u64 });
    }
    Ok(())
}

fn generation(page: &[u8]) -> Decoded<u64> {
    match u64_at(page, AT_GENERATION) {
        generation if generation < MAX_GENERATION => Ok(generation),
        value => Err(PageError::Field { name: "generation", value }),
    }
}

fn checksum(used: &[u8]) -> u32 {
    // A call costs more than the bytes of most entries, so there is one where a short copy will do.
    const COPIED: usize = 128;
    let (start, rest) = used.split_at(used.len().min(COPIED));
    let mut copy = [0; COPIED];
    copy[..start.len()].copy_from_slice(start);
    copy[AT_CHECKSUM].fill(0);
    let checksum = crc32c::crc32c(&copy[..start.len()]);
    if rest.is_empty() {
        return checksum;
    }
    crc32c::crc32c_append(checksum, rest)
}

fn used(page: &[u8]) -> usize {
    u16_at(page, AT_USED).into()
}

fn u16_at(page: &[u8], at: Range<usize>) -> u16 {
    u16::from_le_bytes(array(page, at))
}

fn u32_at(page: &[u8], at: Range<usize>) -> u32 {
    u32::from_le_bytes(array(page, at))
}

fn u64_at(page: &[u8], at: Range<usize>) -> u64 {
    u64::from_le_bytes(array(page, at))
}

fn array<const N: usize>(page: &[u8], at: Range<usize>) -> [u8; N] {
    page[at].try_into().expect("the field's constant has its type's length")
}

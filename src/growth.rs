//! How far ahead of its length a region is given address space and blocks, and the file its
//! length. Pure arithmetic. `piece` is the unit in which blocks are taken; see
//! [`pieces`](crate::pieces).

use crate::format::{MAX_FILE_LEN, PAGE_SIZE};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Whether a region of `need` bytes has pieces of its own. Below half a piece it shares one.
pub(crate) fn is_large(need: u64, piece: u64) -> bool {
    need > piece / 2
}

/// `len` bytes in the units in which a region that must hold `need` bytes is placed.
fn round(len: u64, need: u64, piece: u64) -> u64 {
    len.next_multiple_of(if is_large(need, piece) { piece } else { PAGE_SIZE })
}

/// How many bytes of address space to reserve for a region that must hold `need` bytes.
///
/// A small region lies in a piece that has blocks throughout, so its reservation occupies storage:
/// it gets the next power of two. A large one gets four times that, sparse, and 16 pieces at least, so
/// that it rarely moves: growing to 32 MiB it is copied while it is small only, and beyond that a
/// seventh of its final size in all. Powers of two also let the place that one region leaves fit
/// another. Very large regions get less, so that files stay within what file systems address.
pub(crate) fn reservation(need: u64, piece: u64) -> u64 {
    assert!(need <= MAX_FILE_LEN);
    let reservation = if !is_large(need, piece) {
        need.next_power_of_two()
    } else if need <= 64 * MIB {
        (need.next_power_of_two() * 4).max(16 * piece)
    } else if need <= GIB {
        need.next_power_of_two() * 2
    } else {
        (need + need / 2).next_multiple_of(GIB)
    };
    round(reservation, need, piece)
}

/// How many bytes to reserve where there is not room for everything that one would like: an eighth
/// more than needed.
pub(crate) fn modest_reservation(need: u64, piece: u64) -> u64 {
    round(need + need / 8, need, piece)
}

/// The least that a region which must hold `need` bytes can be placed in.
pub(crate) fn least_reservation(need: u64, piece: u64) -> u64 {
    round(need, need, piece)
}

/// How many bytes of a region to have blocks for when it must hold `need` bytes: up to an eighth
/// more. Steps of more than 64 MiB save nothing further and keep other files from the space.
pub(crate) fn allocation(need: u64) -> u64 {
    (need + (need / 8).min(64 * MIB)).next_multiple_of(PAGE_SIZE)
}

/// How many bytes of new pages to bring into memory at once for a region that grows by so many between
/// flushes: no more than that, as the next flush writes them all. A whole folio of 2 MiB takes one
/// entry in the page tables, and with it one fault, and one interrupt where a flush makes it read-only
/// again. Smaller steps than 64 KiB cost more than they keep from the disk.
pub(crate) fn preparation(grown: u64) -> u64 {
    (grown / 2).next_power_of_two().clamp(64 * KIB, 2 * MIB)
}

/// How long to make a file of `len` bytes that must hold `need` bytes.
///
/// The kernel builds large folios only inside the file, so a length far ahead of the data makes
/// fresh pages cheaper; being sparse, it costs nothing.
pub(crate) fn file_len(len: u64, need: u64) -> u64 {
    need.max(len + len.clamp(64 * MIB, GIB)).min(MAX_FILE_LEN)
}

/// How many slots to have room for when `need` are needed: at least 64 KiB of them, at most 8 MiB
/// ahead, or an eighth, so that the calls to the system for many regions are few.
pub(crate) fn slots(need: u64) -> u64 {
    need + (need / 2).clamp(8, 1024.max(need / 8))
}

/// How long to make `live` when `need` bytes of it are needed: at least 64 KiB longer, at most 8 MiB,
/// which is room for 32,768 regions.
pub(crate) fn live_len(need: u64) -> u64 {
    (need + (need / 2).clamp(64 * KIB, 8 * MIB)).next_multiple_of(PAGE_SIZE)
}

//! How far ahead of its length a region is given address space and blocks, and the file its
//! length. Pure arithmetic.

use crate::format::{round_up, MAX_FILE_LEN, PAGE_SIZE};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The smallest reservation. Address space in the sparse file costs nothing, moving does.
const MIN_RESERVATION: u64 = 32 * KIB;

/// How many bytes of address space to reserve for a region that must hold `need` bytes.
///
/// Four times the next power of two, which is 4 to 8 times the need, makes a growing region move
/// rarely: it copies a seventh of its final size in all. Powers of two also let the place that one
/// region leaves fit another. Large regions get less, so that files stay within what file systems
/// address.
pub(crate) fn reservation(need: u64) -> u64 {
    assert!(need <= MAX_FILE_LEN);
    let reservation = if need <= 64 * MIB {
        need.next_power_of_two() * 4
    } else if need <= GIB {
        need.next_power_of_two() * 2
    } else {
        (need + need / 2).next_multiple_of(GIB)
    };
    reservation.max(MIN_RESERVATION)
}

/// How many bytes to reserve where there is not room for everything that one would like: an eighth
/// more than needed.
pub(crate) fn modest_reservation(need: u64) -> u64 {
    round_up(need + need / 8)
}

/// How many bytes of a region to have blocks for when it must hold `need` bytes.
///
/// A page at first, then a quarter and later an eighth more than needed. Steps of less than a
/// mebibyte make a large region spend its time in the kernel, steps of more than 64 MiB save
/// nothing further and keep other files from the space.
pub(crate) fn allocation(need: u64) -> u64 {
    let step = if need <= PAGE_SIZE {
        0
    } else if need <= MIB {
        need / 4
    } else {
        (need / 8).min(64 * MIB)
    };
    round_up(need + step)
}

/// How long to make a file of `len` bytes that must hold `need` bytes.
///
/// The kernel builds large folios only inside the file, so a length far ahead of the data makes
/// fresh pages cheaper; being sparse, it costs nothing.
pub(crate) fn file_len(len: u64, need: u64) -> u64 {
    need.max(len + len.clamp(64 * MIB, GIB)).min(MAX_FILE_LEN)
}

/// How many slots to have room for when `need` are needed: at least 64 KiB of them, at most 8 MiB
/// ahead.
pub(crate) fn slots(need: u64) -> u64 {
    need + (need / 2).clamp(8, 1024)
}

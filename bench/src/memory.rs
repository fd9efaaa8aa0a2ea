//! The memory of this process, and of the machine.

use std::fs;
use std::ptr;

use crate::MIB;

/// Bytes of the heap in use, and of resident anonymous memory. Both libraries and peers allocate
/// with malloc.
pub fn used() -> [f64; 2] {
    // SAFETY: neither has a precondition.
    let info = unsafe {
        libc::malloc_trim(0);
        libc::mallinfo2()
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    [(info.uordblks + info.hblkhd) as f64, kib * 1024.0]
}

fn map(bytes: usize, advice: i32) -> *mut u8 {
    // SAFETY: a new anonymous mapping.
    unsafe {
        let base = libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        assert_ne!(base, libc::MAP_FAILED);
        libc::madvise(base, bytes, advice);
        base.cast()
    }
}

fn touch(base: *mut u8, bytes: usize) {
    for offset in (0..bytes).step_by(4096) {
        // SAFETY: within the caller's mapping.
        unsafe { base.add(offset).write_volatile(1) };
    }
}

/// A hypervisor takes back free memory of the guest, in blocks of 2 MiB, and touching it again is
/// an exit for each page: that would be paid by whoever comes first. So all that the workloads will
/// need is touched and freed, but for one page in each block, which keeps it from being taken.
pub fn warm(bytes: usize) {
    const BLOCK: usize = 2 * MIB as usize;
    // Of a huge page nothing is freed before all of it is.
    let base = map(bytes, libc::MADV_NOHUGEPAGE);
    touch(base, bytes);
    for block in (0..bytes).step_by(BLOCK) {
        // SAFETY: within the mapping, which nobody else knows.
        unsafe { libc::madvise(base.add(block + 4096).cast(), BLOCK - 4096, libc::MADV_DONTNEED) };
    }
}

/// As `warm`, for what is taken in huge pages: just before it is needed, as whole blocks are not
/// left alone for long.
pub fn warm_huge(bytes: usize) {
    if bytes == 0 {
        return;
    }
    let base = map(bytes, libc::MADV_HUGEPAGE);
    touch(base, bytes);
    // SAFETY: the mapping just made.
    unsafe { libc::munmap(base.cast(), bytes) };
}

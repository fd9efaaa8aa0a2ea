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

/// A hypervisor takes back free memory of the guest, in blocks of 2 MiB, and touching it again is
/// an exit for each page: that would be paid by whoever comes first. So all that the workloads will
/// need is touched and freed, but for one page in each block, which keeps it from being taken.
pub fn warm(bytes: usize) {
    const BLOCK: usize = 2 * MIB as usize;
    // SAFETY: a new anonymous mapping; only its own pages are touched and freed.
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
        // Of a huge page nothing is freed before all of it is.
        libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE);
        for offset in (0..bytes).step_by(4096) {
            base.cast::<u8>().add(offset).write(1);
        }
        for block in (0..bytes).step_by(BLOCK) {
            libc::madvise(base.add(block + 4096), BLOCK - 4096, libc::MADV_DONTNEED);
        }
    }
}

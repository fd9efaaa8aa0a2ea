//! Fetching memory ahead of its use.

/// Has the processor fetch what lies there, and does not wait. A processor has no more under way than a
/// few hundred instructions, so that what a load far behind these needs is asked for too late.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may be given for any address.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack));
    }
    // Elsewhere there is no way to say it.
    let _ = address;
}

//! What the allocator keeps after large pieces of work, and giving it back; and emptying caches.

use std::hint::black_box;
use std::sync::OnceLock;

/// Larger than the second cache of any core; the third is shared by many, and keeps what it has.
const OTHER_WORK_BYTES: usize = 4 << 20;

/// Reads through memory that has nothing to do with any session, so that the core's own caches hold that.
pub(super) fn displace_caches() {
    static OTHER_WORK: OnceLock<Vec<u64>> = OnceLock::new();
    // Written, since pages that were never written to are all one.
    let words = OTHER_WORK.get_or_init(|| (1..).take(OTHER_WORK_BYTES / size_of::<u64>()).collect());
    black_box(words.iter().fold(0, |sum: u64, word| sum ^ word));
}

/// Gives freed memory back to the system. Building a session leaves much garbage behind that glibc
/// keeps for itself: for SqueezeNet (5 MB of weights) 14 of 48 MB of the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back_freed() {
    // SAFETY: `malloc_trim` may be called at any time from any thread; it touches only free memory.
    #[allow(unsafe_code, reason = "glibc offers this through C only")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back_freed() {}

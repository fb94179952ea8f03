//! What the allocator keeps after large pieces of work, and giving it back.

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

//! The system calls around processes and signals. The only other `unsafe` of this crate is about network
//! devices, in `ground/namespace.rs`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// What is done to a node from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Please end (SIGTERM).
    End,
    /// Stand still (SIGSTOP).
    Freeze,
    /// Go on (SIGCONT).
    Thaw,
    /// End at once (SIGKILL).
    Kill,
}

/// Sends a signal to a process whose number is still its own: a child that was not waited for yet, or
/// one that was just seen in a control group of ours.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::End => libc::SIGTERM,
        Signal::Freeze => libc::SIGSTOP,
        Signal::Thaw => libc::SIGCONT,
        Signal::Kill => libc::SIGKILL,
    };
    // SAFETY: `kill` takes two numbers and touches no memory of ours.
    let sent = unsafe { libc::kill(as_pid(pid), number) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn as_pid(pid: u32) -> libc::pid_t {
    // Linux keeps process numbers below 2^22, so this never saturates; 0 and negative numbers would
    // mean whole groups of processes.
    libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX)
}

/// The end of the pipe that the handler writes to; -1 before it is there.
static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_interrupt(number: libc::c_int) {
    let _ = number;
    let wake = WAKE.load(Ordering::Relaxed);
    // SAFETY: `write` may be called in a signal handler; the byte lives in static memory, and the
    // descriptor is never closed.
    unsafe { libc::write(wake, c"!".as_ptr().cast(), 1) };
}

/// Lets Ctrl-C, SIGTERM and a closed terminal write a byte to the pipe returned. Only the first of
/// each kind: a second one ends the process at once, and its nodes with it.
pub(crate) fn interrupts() -> io::Result<OwnedFd> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that `pipe2` writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    WAKE.store(ends[1], Ordering::Relaxed);
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: all zero is a valid `sigaction`, and the handler does only what handlers may do.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_interrupt as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(number, &action, std::ptr::null_mut())
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the descriptor is open, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(ends[0]) })
}

/// Whether there is a byte to read, waiting for it at most this long.
pub(crate) fn is_readable(pipe: &OwnedFd, within: Duration) -> bool {
    let mut asked = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let within_ms = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `asked` is one `pollfd`, as the count says.
    let ready = unsafe { libc::poll(&mut asked, 1, within_ms) };
    ready > 0 && asked.revents & libc::POLLIN != 0
}

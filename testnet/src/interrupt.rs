//! Ctrl-C, asked for instead of acted upon: whoever works looks here and lets go, so that every
//! mesh is ended by its owner. Not for libraries: it changes the signal handling of the process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use crate::signals;

static PIPE: OnceLock<OwnedFd> = OnceLock::new();

/// From here on the first Ctrl-C (SIGTERM, closed terminal) is only noted; a second one ends the
/// process as usual. Call it once, first thing in `main`.
///
/// # Errors
/// When the system refuses the pipe or the handler.
pub fn note_instead_of_ending() -> io::Result<()> {
    let pipe = signals::interrupts()?;
    // A second call would leave the first pipe without a writer; `main` calls once.
    let _ = PIPE.set(pipe);
    Ok(())
}

/// Whether an interrupt was noted.
pub fn is_noted() -> bool {
    within(Duration::ZERO)
}

/// Waits for an interrupt, at most this long; whether one was noted. Without
/// [`note_instead_of_ending`] there is none, and no waiting either.
pub fn within(time: Duration) -> bool {
    PIPE.get().is_some_and(|pipe| signals::is_readable(pipe, time))
}

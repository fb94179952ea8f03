//! Processor time of the calling thread: it stands still while other processes have the core.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What this thread has used since it began.
pub(super) fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

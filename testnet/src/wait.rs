//! Waiting for a condition, with a bound: the only place of this crate that sleeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::interrupt;

/// Between two looks: short beside what is waited for, long beside the cost of a look.
const POLL: Duration = Duration::from_millis(20);

/// Why something waited for did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Time is over.
    #[error("waited {} s for {what}; at last: {seen}", within.as_secs_f64())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// What was missing at the last look.
        seen: String,
    },
    /// Ctrl-C.
    #[error("interrupted while waiting for {what}")]
    Interrupted {
        /// What was waited for.
        what: String,
    },
}

/// Looks until `look` finds something; its error says what is missing yet.
///
/// # Errors
/// When it is not there in time, or on Ctrl-C.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, WaitError> {
    let end = Instant::now() + within;
    loop {
        let seen = match look() {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        if interrupt::is_noted() {
            return Err(WaitError::Interrupted { what: what.to_owned() });
        }
        if Instant::now() >= end {
            return Err(WaitError::Late { what: what.to_owned(), within, seen });
        }
        sleep(POLL);
    }
}

/// Looks until it is so; whether it was, in time. For cleaning up, which goes on after Ctrl-C.
pub fn even_if_interrupted(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        sleep(POLL);
    }
    true
}

/// Sleeps until a time, to some ten microseconds; false if Ctrl-C or `is_over` ended it before.
pub fn until_instant(at: Instant, is_over: impl Fn() -> bool) -> bool {
    loop {
        if interrupt::is_noted() || is_over() {
            return false;
        }
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        sleep(left.min(POLL));
    }
}

/// Processor time that the calling thread has taken.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_again_until_it_is_there() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
        });
        assert_eq!(found, Ok(3));
    }

    #[test]
    fn says_what_was_missing_at_last() {
        let late = until::<()>("a thing", Duration::ZERO, || Err("nothing".to_owned())).unwrap_err();
        assert_eq!(late.to_string(), "waited 0 s for a thing; at last: nothing");
    }
}

//! Lines of the log that a flood of requests could make a flood too: the first is written, then one a second that
//! says how many were left out.

/// Between two lines of one kind, milliseconds: of what each request may cause, and of what stays as it is.
const PAUSE_MS: [u64; 2] = [1_000, 60_000];

/// What is written of one kind.
#[derive(Debug)]
pub(super) struct Sparing {
    pause_ms: u64,
    /// None before.
    next_ms: u64,
    left_out: u64,
}

impl Default for Sparing {
    fn default() -> Self {
        Self::each(PAUSE_MS[0])
    }
}

impl Sparing {
    fn each(pause_ms: u64) -> Self {
        Self { pause_ms, next_ms: 0, left_out: 0 }
    }

    /// Whether a line may be written now; if so, how many were left out before it.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.next_ms {
            self.left_out += 1;
            return None;
        }
        self.next_ms = now_ms + self.pause_ms;
        Some(std::mem::take(&mut self.left_out))
    }

    /// How many were left out and not told of, once it is time to; else nobody would hear of the last ones.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<u64> {
        if self.left_out == 0 || now_ms < self.next_ms { None } else { self.next(now_ms) }
    }
}

/// The kinds of lines that requests make.
#[derive(Debug)]
pub(super) struct Log {
    /// Requests that entered here and got no answer.
    pub(super) requests: Sparing,
    /// Runs of parts here.
    pub(super) runs: Sparing,
    /// Parts that have no room here.
    pub(super) hosting: Sparing,
    /// Peers of other versions.
    pub(super) foreign: Sparing,
    /// Deployments that could not be written to disk.
    pub(super) stored: Sparing,
    /// An own record that is none.
    pub(super) record: Sparing,
}

impl Default for Log {
    fn default() -> Self {
        let rare = || Sparing::each(PAUSE_MS[1]);
        Self {
            requests: Sparing::default(),
            runs: Sparing::default(),
            hosting: Sparing::default(),
            foreign: rare(),
            stored: rare(),
            record: rare(),
        }
    }
}

impl Log {
    /// Tells how many lines were left out since the last.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let kinds = [
            (&mut self.requests, "more requests failed"),
            (&mut self.runs, "more runs failed"),
            (&mut self.hosting, "more times it was refused to host what does not fit"),
        ];
        for (kind, what) in kinds {
            if let Some(count) = kind.overdue(now_ms) {
                tracing::warn!(count, "{what}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_written_then_one_a_second_and_none_is_lost() {
        let mut sparing = Sparing::default();
        assert_eq!(sparing.overdue(0), None);
        assert_eq!(sparing.next(0), Some(0));
        assert_eq!((1..1000).filter_map(|ms| sparing.next(ms)).count(), 0);
        assert_eq!(sparing.overdue(999), None);
        assert_eq!(sparing.next(1000), Some(1000 - 1));
        assert_eq!(sparing.next(1500), None);
        assert_eq!(sparing.overdue(1999), None, "one a second");
        assert_eq!(sparing.overdue(2000), Some(1));
        assert_eq!(sparing.overdue(9000), None);
        assert_eq!(sparing.next(9000), Some(0));
    }
}

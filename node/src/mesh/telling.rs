//! How many records this node tells those who ask: whoever is known to all, as the address that a thousand nodes
//! join at, would else send each of them all that it knows, at once. They hear the rest from each other.

/// Records told in the long run, each second: about 50 kB.
const EACH_SECOND: u64 = 128;
/// Records told at once, after a while without questions.
const AT_ONCE: u64 = 1_024;
/// Told whatever was told before: enough for one who knows nobody to find others to ask.
const ALWAYS: usize = 16;

/// What is left to tell.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// When the records told so far are paid for, in parts of a millisecond: one record is 1,000 parts times
    /// milliseconds by records a second (GCRA, as ATM's traffic management has it).
    paid: u64,
}

impl Telling {
    /// How many of so many records may be told now.
    pub(super) fn allows(&mut self, now_ms: u64, records: usize) -> usize {
        let now = now_ms.saturating_mul(EACH_SECOND);
        let paid = self.paid.max(now);
        let left = (AT_ONCE * 1_000).saturating_sub(paid - now) / 1_000;
        let told = (left as usize).max(ALWAYS).min(records);
        self.paid = paid.saturating_add(1_000 * told as u64);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_at_once_then_few_and_later_again() {
        let mut telling = Telling::default();
        assert_eq!(telling.allows(0, 500), 500);
        assert_eq!(telling.allows(0, 600), 524);
        assert_eq!(telling.allows(0, 600), ALWAYS);
        assert_eq!(telling.allows(0, 3), 3);
        // What was told beyond is paid for too.
        assert_eq!(telling.allows(2_000, 600), 256 - ALWAYS - 3);
        assert_eq!(telling.allows(60_000, 2_000), AT_ONCE as usize);
    }
}

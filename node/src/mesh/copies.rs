//! Whether a copy of this node's data folder runs elsewhere. Two processes with one identity outdo each other's records in
//! turn: whoever hears a newer one of itself speaks louder, and so does the other. Nobody can tell the two apart, so answers
//! meant for one reach the other, and one of them has to end.

/// How often it was outdone counts over this time, milliseconds.
const WITHIN_MS: u64 = 10_000;
/// Who runs for less than this is the copy, for all that one can tell.
const YOUNG_MS: u64 = 60_000;
/// A folder that was put back from a backup is outdone when its node begins, once, or twice where neighbours know different
/// starts of it; who has just begun and is outdone again has a twin.
const YOUNG_MAX: usize = 2;
/// One that runs for long ends later, so that the newcomer is the one that ends, also one that is started again and again.
const OLD_MAX: usize = 7;

/// When this node was outdone by itself, milliseconds.
#[derive(Debug, Default)]
pub(super) struct Copies {
    begun_ms: Option<u64>,
    outdone_ms: Vec<u64>,
}

impl Copies {
    /// The node runs, from now on if it did not before.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.begun_ms.get_or_insert(now_ms);
    }

    /// Others know a newer record of this node than it ever said; `true` if so often that a copy of it must run.
    pub(super) fn outdone(&mut self, now_ms: u64) -> bool {
        self.outdone_ms.retain(|at_ms| now_ms.saturating_sub(*at_ms) < WITHIN_MS);
        self.outdone_ms.push(now_ms);
        let ran_ms = self.begun_ms.map_or(0, |begun_ms| now_ms.saturating_sub(begun_ms));
        self.outdone_ms.len() > if ran_ms < YOUNG_MS { YOUNG_MAX } else { OLD_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(now_ms: u64) -> Copies {
        let mut copies = Copies::default();
        copies.begin(now_ms);
        copies
    }

    #[test]
    fn a_folder_put_back_from_a_backup_is_outdone_and_stays() {
        let mut copies = begun(0);
        assert!(!copies.outdone(500) && !copies.outdone(900), "of two neighbours, one knew an earlier start");
        assert!(!copies.outdone(500 + WITHIN_MS), "long after: another backup, not a twin");
    }

    #[test]
    fn of_two_the_one_that_has_just_begun_ends() {
        let (mut old, mut copy) = (begun(0), begun(YOUNG_MS));
        let mut now_ms = YOUNG_MS + 1_000;
        while !copy.outdone(now_ms) {
            assert!(!old.outdone(now_ms), "the one that ran before stays");
            now_ms += 1_000;
        }
    }

    #[test]
    fn a_copy_that_is_started_again_and_again_does_not_end_the_first() {
        let mut old = begun(0);
        for start in 0..100 {
            let now_ms = YOUNG_MS + start * 5_000;
            assert!(!old.outdone(now_ms) && !old.outdone(now_ms + 500), "start {start}");
        }
    }

    #[test]
    fn of_two_that_ran_for_long_in_two_halves_of_a_mesh_one_ends() {
        let mut old = begun(0);
        let outdone = (1..60).map(|second| old.outdone(YOUNG_MS + second * 1_000));
        assert!(outdone.into_iter().any(|ends| ends));
    }
}

//! Whole requests through real origins and stages, in virtual time: hosts crash and stall, messages are late, overtake
//! each other and come twice, and in half of the schedules late frames are sent to a second host. Each seed gives a plan with a fork (or a chain) and one schedule of faults.
//!
//! A tensor is a hash of all that it was computed from, the attempt included, so that a mixture is seen.

mod host;
mod world;

use std::collections::BTreeMap;

use world::{Account, run};

/// Seeds of the test.
const SEEDS: u64 = 2000;

/// A small generator: splitmix64.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Once in so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[test]
fn whatever_happens_a_request_with_a_fork_ends_once_right_and_leaves_nothing_behind() {
    let mut all = Account::default();
    let mut failed = BTreeMap::new();
    for seed in 0..SEEDS {
        match run(seed) {
            Ok(account) => all.add(&account),
            Err(why) => drop(failed.insert(seed, why)),
        }
    }
    let first = failed.first_key_value();
    let told = first.map(|(seed, why)| format!("{} of {SEEDS} seeds; seed {seed}: {why}", failed.len()));
    assert!(failed.is_empty(), "{}", told.unwrap_or_default());
    println!("{all:?}");
    // The faults reached what they were to test.
    let met =
        [all.answered, all.failed, all.rejoins, all.takeovers, all.tried_again, all.duplicates, all.hedges];
    assert!(met.iter().all(|count| *count > SEEDS as usize / 100), "{all:?}");
}

#[test]
fn equal_seeds_give_equal_schedules() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

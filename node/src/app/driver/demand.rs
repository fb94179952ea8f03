//! How much is asked at this node, for the stewards of what is asked: smoothed, and told in steps.

use std::collections::BTreeMap;

use stormo_protocol::ids::DeploymentId;
use stormo_protocol::limits::DEMANDS_MAX;
use stormo_protocol::state::Demand;

/// Requests longer ago than this count for less than 37 %, milliseconds: one camera that is off for a moment is
/// no change of demand, one that is off for minutes is.
const MEMORY_MS: f64 = 60_000.0;
/// Below this it is nothing, requests a minute.
const LEAST_PER_MINUTE: f64 = 1.0;

/// Requests that entered here, by the version that they went to.
#[derive(Debug, Default)]
pub(super) struct Asked {
    rates: BTreeMap<DeploymentId, Rate>,
    looked_ms: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    /// Requests a minute, smoothed.
    per_minute: f64,
    /// As it was told last.
    told: u32,
}

impl Asked {
    /// A request entered.
    pub(super) fn note(&mut self, deployment: DeploymentId) {
        self.rates.entry(deployment).or_default().per_minute += 60_000.0 / MEMORY_MS;
    }

    /// Time passes; each second or so.
    pub(super) fn look(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.looked_ms) as f64;
        self.looked_ms = now_ms;
        let left = (-passed_ms / MEMORY_MS).exp();
        for rate in self.rates.values_mut() {
            rate.per_minute *= left;
            rate.told = stepped(rate.per_minute, rate.told);
        }
        self.rates.retain(|_, rate| rate.per_minute >= LEAST_PER_MINUTE / 2.0);
    }

    /// For this node's record, the most asked ones.
    pub(super) fn told(&self) -> Vec<Demand> {
        let asked = self.rates.iter().filter(|(_, rate)| rate.told > 0);
        let mut all: Vec<Demand> =
            asked.map(|(id, rate)| Demand { deployment: *id, per_minute: rate.told }).collect();
        all.sort_by_key(|demand| (std::cmp::Reverse(demand.per_minute), demand.deployment));
        all.truncate(DEMANDS_MAX);
        all
    }
}

/// The power of two nearest below; the one told before stays while the rate is within half and three times it, so
/// that a steady demand is told once.
fn stepped(per_minute: f64, told: u32) -> u32 {
    let before = f64::from(told);
    if told > 0 && per_minute >= before * 0.6 && per_minute < before * 3.0 {
        return told;
    }
    if per_minute < LEAST_PER_MINUTE {
        return 0;
    }
    1 << (per_minute.log2() as u32).min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DeploymentId = DeploymentId([1; 16]);

    /// So many requests a minute, evenly, for so many minutes; what was told each second.
    fn asked(asked: &mut Asked, from_ms: u64, per_minute: u64, minutes: u64) -> Vec<u32> {
        let mut told = vec![];
        for second in 0..minutes * 60 {
            let (before, now) = (second * per_minute / 60, (second + 1) * per_minute / 60);
            (before..now).for_each(|_| asked.note(ID));
            asked.look(from_ms + (second + 1) * 1000);
            told.push(asked.told().first().map_or(0, |demand| demand.per_minute));
        }
        told
    }

    #[test]
    fn a_steady_rate_is_told_once_it_is_known_and_forgotten_when_it_ends() {
        for per_minute in [2, 60, 100, 600, 6000] {
            let mut of = Asked::default();
            let told = asked(&mut of, 0, per_minute, 10);
            let late = &told[300..];
            assert!(late.iter().all(|one| *one == late[0]), "{per_minute}: {late:?}");
            let is_near =
                f64::from(late[0]) <= per_minute as f64 * 1.7 && f64::from(late[0]) * 3.1 > per_minute as f64;
            assert!(is_near, "{per_minute} was told as {}", late[0]);
            let told = asked(&mut of, 600_000, 0, 20);
            assert_eq!((told.last(), of.rates.len()), (Some(&0), 0));
        }
    }

    #[test]
    fn as_many_are_told_as_a_record_holds_the_most_asked_first() {
        let mut of = Asked::default();
        for number in 0..40u8 {
            (0..=number).for_each(|_| of.note(DeploymentId([number; 16])));
        }
        of.look(1);
        let told = of.told();
        assert_eq!(told.len(), DEMANDS_MAX);
        assert!(told.iter().all(|demand| demand.per_minute >= 16), "{told:?}");
    }
}

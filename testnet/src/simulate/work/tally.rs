//! What became of the requests, and what must never become of one.

use serde::Serialize;

use crate::simulate::Spread;

/// Violations that are told in words; more are only counted.
const TOLD_MAX: usize = 20;

/// How requests ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tally {
    /// That entered at a live node.
    pub asked: usize,
    /// With an answer.
    pub answered: usize,
    /// With an error that says why.
    pub failed: usize,
    /// Of those, some where each stage had a live host when the request ended.
    pub failed_with_hosts_alive: usize,
    /// Whose origin died.
    pub unknown: usize,
    /// Answered after more than one try.
    pub tried_again: usize,
    /// From entering to the answer.
    pub latency_ms: Spread,
    /// What must never happen: ended twice, late, never, or something left behind.
    pub violations: usize,
    /// Some of them in words.
    pub violated: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    None,
    Answered(u64),
    Failed,
    Unknown,
}

/// How each request ended, by its number.
#[derive(Debug, Default)]
pub(super) struct Ends {
    ends: Vec<End>,
    failed_with_hosts_alive: usize,
    tried_again: usize,
    violations: usize,
    violated: Vec<String>,
}

impl Ends {
    /// A request enters; its number.
    pub(super) fn asked(&mut self) -> usize {
        self.ends.push(End::None);
        self.ends.len() - 1
    }

    fn end(&mut self, number: usize, end: End) {
        if !matches!(self.ends[number], End::None) {
            self.violated(format!("request {number} ended twice: {:?}, then {end:?}", self.ends[number]));
        }
        self.ends[number] = end;
    }

    pub(super) fn answered(&mut self, number: usize, latency_us: u64, attempts: u16) {
        self.tried_again += usize::from(attempts > 1);
        self.end(number, End::Answered(latency_us));
    }

    pub(super) fn failed(&mut self, number: usize, hosts_alive: bool) {
        self.failed_with_hosts_alive += usize::from(hosts_alive);
        self.end(number, End::Failed);
    }

    pub(super) fn unknown(&mut self, number: usize) {
        self.end(number, End::Unknown);
    }

    pub(super) fn violated(&mut self, what: String) {
        self.violations += 1;
        if self.violated.len() < TOLD_MAX {
            self.violated.push(what);
        }
    }

    pub(super) fn tally(&mut self) -> Tally {
        for number in 0..self.ends.len() {
            if matches!(self.ends[number], End::None) {
                self.violated(format!("request {number} never ended"));
            }
        }
        let latencies: Vec<Option<u64>> = self
            .ends
            .iter()
            .filter_map(|end| match end {
                End::Answered(latency_us) => Some(Some(*latency_us)),
                _ => None,
            })
            .collect();
        let count = |of: fn(&End) -> bool| self.ends.iter().filter(|end| of(end)).count();
        Tally {
            asked: self.ends.len(),
            answered: latencies.len(),
            failed: count(|end| matches!(end, End::Failed)),
            failed_with_hosts_alive: self.failed_with_hosts_alive,
            unknown: count(|end| matches!(end, End::Unknown)),
            tried_again: self.tried_again,
            latency_ms: Spread::of(&latencies),
            violations: self.violations,
            violated: self.violated.clone(),
        }
    }
}

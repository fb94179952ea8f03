//! What a stream is told by: how many frames a second, how late, what was dropped, how often plans changed.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::app::commands::table::ms;

/// Latencies of the last frames that percentiles are taken over.
const REMEMBERED_MAX: usize = 10_000;
/// Plans that are told apart.
const PLANS_MAX: usize = 1_024;
/// The rate of now is that of so long.
const LATELY: Duration = Duration::from_secs(2);

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Figures {
    begun: Instant,
    answered: u64,
    late: u64,
    failed: u64,
    latencies_ms: VecDeque<f64>,
    lately: VecDeque<Instant>,
    last_answer: Option<Instant>,
    plans: BTreeSet<String>,
    last_plan: Option<String>,
    plan_changes: u64,
    energy_j: Option<f64>,
}

/// Figures of a whole stream; stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Frames whose answers were shown.
    pub(super) answered: u64,
    /// Frames without an answer.
    pub(super) failed: u64,
    /// Frames that newer ones replaced before they were asked about.
    pub(super) dropped: u64,
    /// Answers that were left out, since those of newer frames had been shown.
    pub(super) outrun: u64,
    /// Shown answers that came later than wished (`--max-latency`).
    pub(super) late: u64,
    /// From the first frame to the last answer, seconds.
    pub(super) seconds: f64,
    /// Answers a second in that time.
    pub(super) rate_per_s: f64,
    /// Latency that half of the last ten thousand answers keep within.
    pub(super) p50_ms: Option<f64>,
    /// And 99 of 100.
    pub(super) p99_ms: Option<f64>,
    /// Different plans that ran.
    pub(super) plans: usize,
    /// Times that a frame ran by another plan than the one before.
    pub(super) plan_changes: u64,
    /// What the machine of the node that was asked drew for them, as far as the answers tell, joules.
    pub(super) energy_j: Option<f64>,
}

impl Figures {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            answered: 0,
            late: 0,
            failed: 0,
            latencies_ms: VecDeque::new(),
            lately: VecDeque::new(),
            last_answer: None,
            plans: BTreeSet::new(),
            last_plan: None,
            plan_changes: 0,
            energy_j: None,
        }
    }

    /// An answer was shown.
    pub(super) fn answered(&mut self, latency: Duration, plan: &str, energy_j: Option<f64>) {
        let now = Instant::now();
        self.answered += 1;
        self.last_answer = Some(now);
        if self.latencies_ms.len() == REMEMBERED_MAX {
            self.latencies_ms.pop_front();
        }
        self.latencies_ms.push_back(latency.as_secs_f64() * 1000.0);
        self.lately.push_back(now);
        self.forget(now);
        if self.plans.len() < PLANS_MAX {
            self.plans.insert(plan.to_owned());
        }
        if self.last_plan.as_deref() != Some(plan) {
            self.plan_changes += u64::from(self.last_plan.is_some());
            self.last_plan = Some(plan.to_owned());
        }
        if let Some(energy_j) = energy_j {
            *self.energy_j.get_or_insert(0.0) += energy_j;
        }
    }

    /// An answer that was shown came later than wished.
    pub(super) fn late(&mut self) {
        self.late += 1;
    }

    /// A frame had no answer.
    pub(super) fn failed(&mut self) {
        self.failed += 1;
    }

    pub(super) fn answered_so_far(&self) -> u64 {
        self.answered
    }

    fn forget(&mut self, now: Instant) {
        while self.lately.front().is_some_and(|at| now - *at > LATELY) {
            self.lately.pop_front();
        }
    }

    fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted: Vec<f64> = self.latencies_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let index = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(index.saturating_sub(1)).copied()
    }

    /// How it goes now, in a line.
    pub(super) fn now(&mut self, dropped: u64) -> String {
        let now = Instant::now();
        self.forget(now);
        let over = (now - self.begun).min(LATELY).as_secs_f64();
        let rate = if over > 0.0 { self.lately.len() as f64 / over } else { 0.0 };
        let latency = match (self.percentile(0.5), self.percentile(0.99)) {
            (Some(p50), Some(p99)) => format!(", latency {} ms (half), {} ms (99 of 100)", ms(p50), ms(p99)),
            _ => String::new(),
        };
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let dropped = if dropped > 0 { format!(", {dropped} dropped") } else { String::new() };
        format!("{} answered, {rate:.1} a second{latency}{dropped}{failed}", self.answered)
    }

    /// How it went.
    pub(super) fn summary(&self, dropped: u64, outrun: u64) -> Summary {
        let seconds = self.last_answer.map_or(0.0, |last| (last - self.begun).as_secs_f64());
        Summary {
            answered: self.answered,
            failed: self.failed,
            dropped,
            outrun,
            late: self.late,
            seconds,
            rate_per_s: if seconds > 0.0 { self.answered as f64 / seconds } else { 0.0 },
            p50_ms: self.percentile(0.5),
            p99_ms: self.percentile(0.99),
            plans: self.plans.len(),
            plan_changes: self.plan_changes,
            energy_j: self.energy_j,
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} answered in {:.1} s, {:.1} a second", self.answered, self.seconds, self.rate_per_s)?;
        if let (Some(p50), Some(p99)) = (self.p50_ms, self.p99_ms) {
            write!(out, "; latency {} ms (half), {} ms (99 of 100)", ms(p50), ms(p99))?;
        }
        let plans = if self.plans == 1 { "1 plan".to_owned() } else { format!("{} plans", self.plans) };
        write!(out, "; {plans}, changed {} times", self.plan_changes)?;
        if let Some(energy_j) = self.energy_j {
            write!(out, "; {energy_j:.2} J")?;
        }
        for (count, what) in [
            (self.dropped, "dropped for newer ones"),
            (self.outrun, "outrun by newer ones"),
            (self.late, "later than wished"),
            (self.failed, "failed"),
        ] {
            if count > 0 {
                write!(out, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_plans_and_their_changes() {
        let mut figures = Figures::begin();
        for (index, plan) in ["a", "a", "b", "a"].into_iter().enumerate() {
            figures.answered(Duration::from_millis(10 * (index as u64 + 1)), plan, Some(0.5));
        }
        figures.failed();
        figures.late();
        let summary = figures.summary(3, 2);
        assert_eq!(
            (summary.answered, summary.failed, summary.dropped, summary.outrun, summary.late),
            (4, 1, 3, 2, 1)
        );
        assert_eq!((summary.p50_ms, summary.p99_ms), (Some(20.0), Some(40.0)));
        assert_eq!((summary.plans, summary.plan_changes, summary.energy_j), (2, 2, Some(2.0)));
    }

    #[test]
    fn nothing_answered_has_no_latency() {
        let mut figures = Figures::begin();
        assert_eq!(figures.summary(0, 0).p50_ms, None);
        assert!(figures.now(0).starts_with("0 answered"));
    }
}

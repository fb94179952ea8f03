//! How far told times are from measured ones.

use serde::Serialize;

use crate::median::median;

/// A range's time as measured, and as told in several ways, microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) measured_us: f64,
    /// By the ranges measured in turns with it.
    pub(super) told_us: f64,
    /// By the manifest, whose ranges were measured before.
    pub(super) before_us: f64,
    /// For a node that hosts little.
    pub(super) other_node_us: f64,
    pub(super) by_shares_us: f64,
    /// In another session.
    pub(super) again_us: f64,
}

/// Ranges told and measured, and others that were measured twice.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ranges: Vec<Range>,
    /// Measured now and before, microseconds: what the machine itself is off by in between.
    pub(super) now_and_before_us: Vec<(f64, f64)>,
}

/// Errors as shares of the measured time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Error {
    pub(super) median: f64,
    pub(super) p95: f64,
    /// Half of the ranges were told to be longer than measured by more than this, or shorter by less.
    pub(super) bias: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Errors {
    pub(super) ranges: usize,
    pub(super) told: Error,
    pub(super) before: Error,
    pub(super) other_node: Error,
    pub(super) by_shares: Error,
    pub(super) again: Error,
    pub(super) again_before: Error,
}

impl Error {
    fn of(shares: impl Iterator<Item = f64> + Clone) -> Self {
        let bias = median(shares.clone());
        let mut shares: Vec<f64> = shares.map(f64::abs).collect();
        shares.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            shares.get((shares.len() * percent / 100).min(shares.len().saturating_sub(1))).copied()
        };
        Self { median: at(50).unwrap_or(f64::NAN), p95: at(95).unwrap_or(f64::NAN), bias }
    }

    pub(super) fn is_within(self, (median, p95): (f64, f64)) -> bool {
        self.median <= median && self.p95 <= p95
    }
}

impl Told {
    pub(super) fn extend(&mut self, other: Self) {
        self.ranges.extend(other.ranges);
        self.now_and_before_us.extend(other.now_and_before_us);
    }

    pub(super) fn errors(&self) -> Errors {
        let error = |told: fn(&Range) -> f64| {
            Error::of(self.ranges.iter().map(move |range| told(range) / range.measured_us - 1.0))
        };
        Errors {
            ranges: self.ranges.len(),
            told: error(|range| range.told_us),
            before: error(|range| range.before_us),
            other_node: error(|range| range.other_node_us),
            by_shares: error(|range| range.by_shares_us),
            again: error(|range| range.again_us),
            again_before: Error::of(self.now_and_before_us.iter().map(|(now, before)| before / now - 1.0)),
        }
    }
}

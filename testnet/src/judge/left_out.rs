//! How long healthy nodes stood outside of others' plans.

use std::collections::BTreeMap;

use serde::Serialize;

use super::faults::{AFTERMATH_US, covered_us};
use crate::history::History;

/// A node that an entry left out of its plans while nothing was the matter with either.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// Label of the node.
    pub node: String,
    /// Label of the entry.
    pub by: String,
    /// For how long in all, seconds; each time may be off by the time between two looks.
    pub total_s: f64,
    /// The longest at once.
    pub longest_s: f64,
    /// How many times.
    pub times: u64,
}

/// Every pair of an entry and a node of which that is so, the longest first. A fault on either, or a cut anywhere, is a
/// reason, for as long as it acts and [`AFTERMATH_US`].
pub(super) fn all(history: &History, entries: &[u16]) -> Vec<LeftOut> {
    let mut since: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    let mut spans: BTreeMap<(u16, u16), Vec<u64>> = BTreeMap::new();
    let mut end = |pair: (u16, u16), from_us: u64, until_us: u64| {
        let span_us = unexcused_us(history, pair, [from_us, until_us]);
        if span_us > 0 {
            spans.entry(pair).or_default().push(span_us);
        }
    };
    let changes = history.states.iter().filter(|state| state.by != state.of && entries.contains(&state.by));
    for state in changes {
        let pair = (state.by, state.of);
        match state.is_usable {
            false => {
                since.entry(pair).or_insert(state.at_us);
            }
            true => {
                if let Some(from_us) = since.remove(&pair) {
                    end(pair, from_us, state.at_us);
                }
            }
        }
    }
    since.into_iter().for_each(|(pair, from_us)| end(pair, from_us, history.load_ended_us));
    let seconds = |us: u64| us as f64 / 1e6;
    let told = |((by, of), spans): ((u16, u16), Vec<u64>)| LeftOut {
        node: history.label(of).to_owned(),
        by: history.label(by).to_owned(),
        total_s: seconds(spans.iter().sum()),
        longest_s: seconds(spans.iter().copied().max().unwrap_or(0)),
        times: spans.len() as u64,
    };
    let mut all: Vec<LeftOut> = spans.into_iter().map(told).collect();
    all.sort_by(|one, other| other.total_s.total_cmp(&one.total_s));
    all
}

/// How much of a stretch of time no fault explains.
fn unexcused_us(history: &History, (by, of): (u16, u16), [from_us, until_us]: [u64; 2]) -> u64 {
    let until_us = until_us.min(history.load_ended_us);
    let reasons = history
        .faults
        .iter()
        .filter(|fault| fault.is_split || fault.nodes.contains(&by) || fault.nodes.contains(&of));
    let reasons = reasons.map(|fault| {
        let end_us = fault.healed_us.map_or(u64::MAX, |healed_us| healed_us.saturating_add(AFTERMATH_US));
        [fault.begun_us, end_us]
    });
    until_us.saturating_sub(from_us).saturating_sub(covered_us(reasons, [from_us, until_us]))
}

//! Figures over time: the run in slices, and which plans answered when.

use serde::Serialize;

use crate::history::{History, Request};
use crate::judge::{Verdict, percentile};

/// Slices of a run at most, and at least.
const BINS: (u64, u64) = (120, 30);
/// Requests in a slice, on average: fewer jump about.
const BIN_REQUESTS: u64 = 12;
/// No slice is shorter.
const BIN_US_MIN: u64 = 100_000;
/// Plans that are told apart; the rest is one.
const PLANS_MAX: usize = 12;

/// A slice of the run. Requests count where they were to be sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Its beginning.
    pub from_s: f64,
    /// Requests that were to be sent.
    pub sent: u64,
    /// Of these, those that an answer came to, right or wrong.
    pub answered: u64,
    /// And those that none came to.
    pub unanswered: u64,
    /// Latency of the answers: half were faster.
    pub p50_ms: Option<f64>,
    /// Ninety-nine in a hundred were faster.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
    /// Answers by plan, in the order of [`Timeline::plans`]; the last place is all others.
    pub by_plan: Vec<u64>,
}

/// A plan that answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanUse {
    /// Labels of its hosts, in order.
    pub hosts: Vec<String>,
    /// Label of the variant.
    pub variant: String,
    /// Codecs.
    pub codecs: String,
    /// Answers.
    pub answers: u64,
}

/// A node's usage in a slice: highest values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsageLine {
    /// Label.
    pub node: String,
    /// Seconds, resident MiB, descriptors, threads, processor time so far in seconds.
    pub looks: Vec<[f64; 5]>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Length of a slice.
    pub bin_s: f64,
    /// The slices.
    pub bins: Vec<Bin>,
    /// Those who answered, most answers first.
    pub plans: Vec<PlanUse>,
    /// When an entry began or ceased to leave a node out: seconds, by whom, of whom, usable.
    pub states: Vec<(f64, String, String, bool)>,
    /// What nodes took.
    pub usage: Vec<UsageLine>,
}

impl Timeline {
    /// Of a run.
    pub fn of(history: &History, verdict: &Verdict) -> Self {
        debug_assert!(verdict.counts.begun as usize >= history.requests.len().min(1));
        let bins = (history.requests.len() as u64 / BIN_REQUESTS).clamp(BINS.1, BINS.0);
        let bin_us = history.load_ended_us.div_ceil(bins).max(BIN_US_MIN);
        let count = history.load_ended_us.div_ceil(bin_us).max(1) as usize;
        let plans = plans(history);
        let place = |request: &Request| {
            let answer = request.answer()?;
            let key = (answer.nodes, answer.variant, answer.codecs);
            Some(plans.iter().position(|(other, _)| *other == key).unwrap_or(PLANS_MAX).min(PLANS_MAX))
        };
        let mut bins =
            vec![Bin { by_plan: vec![0; plans.len().min(PLANS_MAX) + 1], ..Bin::default() }; count];
        let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); count];
        for request in &history.requests {
            let at = ((request.intended_us / bin_us) as usize).min(count - 1);
            let bin = &mut bins[at];
            bin.sent += 1;
            match place(request) {
                Some(plan) => {
                    bin.answered += 1;
                    let last = bin.by_plan.len() - 1;
                    bin.by_plan[plan.min(last)] += 1;
                    latencies[at].push(request.latency_us());
                }
                None => bin.unanswered += 1,
            }
        }
        for (at, (bin, mut latencies)) in bins.iter_mut().zip(latencies).enumerate() {
            latencies.sort_unstable();
            let ms = |share| percentile(&latencies, share).map(|us| us as f64 / 1000.0);
            bin.from_s = (at as u64 * bin_us) as f64 / 1e6;
            (bin.p50_ms, bin.p99_ms, bin.max_ms) = (ms(0.5), ms(0.99), ms(1.0));
        }
        let told = plans.iter().take(PLANS_MAX).map(|((nodes, variant, codecs), answers)| PlanUse {
            hosts: hosts(history, *nodes),
            variant: history.names.text(*variant).to_owned(),
            codecs: history.names.text(*codecs).to_owned(),
            answers: *answers,
        });
        let states = history.states.iter().map(|state| {
            let (by, of) = (history.label(state.by).to_owned(), history.label(state.of).to_owned());
            (state.at_us as f64 / 1e6, by, of, state.is_usable)
        });
        Self {
            bin_s: bin_us as f64 / 1e6,
            bins,
            plans: told.collect(),
            states: states.collect(),
            usage: usage(history),
        }
    }
}

type PlanKey = (u32, u32, u32);

/// Plans by who ran, what and how, most answers first. (An id says the same and tells nobody anything.)
fn plans(history: &History) -> Vec<(PlanKey, u64)> {
    let mut counted: std::collections::BTreeMap<PlanKey, u64> = std::collections::BTreeMap::new();
    for answer in history.requests.iter().filter_map(Request::answer) {
        *counted.entry((answer.nodes, answer.variant, answer.codecs)).or_default() += 1;
    }
    let mut plans: Vec<(PlanKey, u64)> = counted.into_iter().collect();
    plans.sort_by_key(|(_, answers)| std::cmp::Reverse(*answers));
    plans
}

fn hosts(history: &History, nodes: u32) -> Vec<String> {
    let label = |peer: &str| history.peers.get(peer).map_or("?", |node| history.label(*node)).to_owned();
    history.names.text(nodes).split(',').map(label).collect()
}

fn usage(history: &History) -> Vec<UsageLine> {
    let line = |(place, label): (usize, &String)| {
        let own = history.usage.iter().filter(|usage| usize::from(usage.node) == place);
        let look = |usage: &crate::history::Usage| {
            [
                usage.at_us as f64 / 1e6,
                usage.resident_bytes as f64 / 1_048_576.0,
                f64::from(usage.descriptors),
                f64::from(usage.threads),
                usage.cpu_us as f64 / 1e6,
            ]
        };
        UsageLine { node: label.clone(), looks: own.map(look).collect() }
    };
    history.nodes.iter().enumerate().map(line).collect()
}

//! The judge: from what happened in a run, and what the undivided models answer, to what was demanded and
//! what was got. Pure: the same history gives the same verdict, and nothing in here reads a clock or asks a
//! node.

mod classes;
mod compare;
mod demands;
mod faults;
pub(crate) use faults::{AFTERMATH_US, covered_us};
mod figures;
mod growth;
mod left_out;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;

use crate::history::{History, Output};
pub use crate::judge::classes::{Class, Classified};
pub use crate::judge::compare::{DIFFERENCE_MAX, Expected};
pub use crate::judge::figures::{Latency, percentile};
pub use crate::judge::left_out::LeftOut;
use crate::scenario::Expectations;

/// Requests whose fate a verdict tells one by one.
const TOLD_MAX: usize = 20;

/// What the undivided models answer, and what else the judge must know of the loads.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// By load and label of the variant: the outputs for each input, and the losses that the manifest records.
    pub variants: HashMap<(u16, String), Expected>,
    /// Places of the nodes where requests enter, by load.
    pub entries: Vec<Vec<u16>>,
    /// What each load asks for.
    pub wishes: Vec<Wish>,
}

/// What a load asks of each answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// The variant that must answer.
    pub variant: Option<String>,
    /// Accuracy that is enough; without it, nothing may be rounded on the way.
    pub min_accuracy: Option<f64>,
}

impl Truth {
    /// What a load asks for; nothing, of one that is not known.
    fn wish(&self, load: u16) -> Wish {
        self.wishes.get(usize::from(load)).cloned().unwrap_or_default()
    }

    /// Places of all nodes where requests enter.
    fn all_entries(&self) -> Vec<u16> {
        let mut entries: Vec<u16> = self.entries.iter().flatten().copied().collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    fn outputs(&self, load: u16, variant: &str, input: u16) -> Option<&[Output]> {
        let expected = self.variants.get(&(load, variant.to_owned()))?;
        expected.outputs.get(usize::from(input)).map(Vec::as_slice)
    }
}

/// Something demanded, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// What was demanded.
    pub wanted: String,
    /// What was found.
    pub got: String,
    /// Whether that is enough.
    pub holds: bool,
}

impl Check {
    fn new(what: impl Into<String>, wanted: impl Into<String>, got: impl Into<String>, holds: bool) -> Self {
        Self { what: what.into(), wanted: wanted.into(), got: got.into(), holds }
    }
}

/// How many requests came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Begun.
    pub begun: u64,
    /// Their bodies left this machine's hands.
    pub sent: u64,
    /// Answered rightly.
    pub right: u64,
    /// Answered wrongly.
    pub wrong: u64,
    /// Told an error.
    pub failed: u64,
    /// Refused for overload.
    pub rejected: u64,
    /// Neither answered nor told, their entry alive.
    pub lost: u64,
    /// Neither answered nor told, their entry dead or standing still.
    pub unknown: u64,
    /// Answered more than once.
    pub answered_twice: u64,
}

/// How many requests of one load there were, in the order of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LoadCounts {
    /// That ended.
    pub ended: u64,
    /// Answered rightly.
    pub right: u64,
}

/// A request that is worth telling of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// Its number.
    pub serial: u32,
    /// Label of the node where it entered.
    pub entry: String,
    /// Intended time, seconds since the load began.
    pub at_s: f64,
    /// Until its end.
    pub latency_ms: f64,
    /// What became of it.
    pub class: Class,
    /// In words.
    pub why: String,
}

/// What the judge says.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Everything that was demanded.
    pub checks: Vec<Check>,
    /// Ends of requests.
    pub counts: Counts,
    /// Of each load.
    pub loads: Vec<LoadCounts>,
    /// Latency of right answers.
    pub latency: Option<Latency>,
    /// Latency of those that a fault met, less the median before the first fault.
    pub added: Option<Latency>,
    /// Requests that a fault met.
    pub affected: u64,
    /// By fault: requests that ran at its node, or passed over its link, in the second before or while it acted.
    #[serde(skip)]
    pub in_use: Vec<u64>,
    /// Right answers a second while load was sent.
    pub right_per_s: f64,
    /// Share of the answers that ran on more than one node.
    pub divided_share: f64,
    /// Healthy nodes that entries left out of their plans, those that were so for longest first.
    pub left_out: Vec<LeftOut>,
    /// Errors by their texts, the most frequent first.
    pub errors: Vec<(String, u64)>,
    /// Requests that did not end rightly, the first ones.
    pub bad: Vec<Told>,
    /// The slowest that did.
    pub slow: Vec<Told>,
}

impl Verdict {
    /// Whether all that was demanded holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }
}

/// Judges a run.
pub fn judge(expect: &Expectations, history: &History, truth: &Truth) -> Verdict {
    let classified = classes::classify(history, truth);
    let counts = classes::counts(history, &classified);
    let right = || history.requests.iter().zip(&classified).filter(|(_, of)| of.class == Class::Right);
    let latency = Latency::of(right().map(|(request, _)| request.latency_us()));
    let affected = faults::affected(history, &classified);
    let seconds = history.load_ended_us as f64 / 1e6;
    let (divided, answers) = classes::divided(history);
    let mut verdict = Verdict {
        checks: Vec::new(),
        counts,
        loads: classes::by_load(history, &classified, truth.entries.len()),
        latency,
        added: affected.added,
        affected: affected.count,
        in_use: faults::in_use(history),
        right_per_s: if seconds > 0.0 { counts.right as f64 / seconds } else { 0.0 },
        divided_share: if answers > 0 { divided as f64 / answers as f64 } else { 0.0 },
        left_out: left_out::all(history, &truth.all_entries()),
        errors: classes::errors(history, &classified),
        bad: classes::bad(history, &classified, TOLD_MAX),
        slow: classes::slow(history, &classified, TOLD_MAX),
    };
    verdict.checks = demands::all(expect, history, truth, &classified, &verdict);
    verdict
}

//! What a run leaves to read: one JSON document, and one page for people. Both are made of the history and
//! the verdict alone.

mod charts;
mod page;
mod timeline;

use serde::Serialize;
use stormo::serve::json::DeploymentView;

use crate::ground::GroundKind;
use crate::history::{BatteryUse, FaultEvent, History, Strain};
use crate::judge::Verdict;
use crate::machine::Machine;
pub use crate::report::page::page;
pub use crate::report::timeline::{Bin, PlanUse, Timeline};
use crate::scenario::Scenario;

/// Later than so much, the testnet's own times are no measure.
const STARVED_LATE_MS: f64 = 250.0;
/// Above this, another guest of the host takes what figures are made of.
const STARVED_STOLEN_SHARE: f64 = 0.1;
/// Above this, other programs of this machine take them.
const STARVED_OTHERS_SHARE: f64 = 0.2;
/// Runnable tasks for each processor; a mesh of many nodes has one or two of its own.
const STARVED_LOAD: f64 = 4.0;

/// The JSON document of a run. Units are in the names.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// Name of the scenario's file, without folder.
    pub scenario: String,
    /// What it is for.
    pub about: String,
    /// Its text.
    pub scenario_text: String,
    /// The seed.
    pub seed: u64,
    /// Where it ran.
    pub machine: Machine,
    /// What it stood on: `loopback`, or `emulated` links and machines.
    pub ground: &'static str,
    /// What its topology asked for, in words.
    pub mesh: Vec<String>,
    /// When it began, seconds since 1970.
    pub began_unix_s: u64,
    /// Whether all held.
    pub holds: bool,
    /// Labels of the nodes.
    pub nodes: Vec<String>,
    /// Who hosted what when the load began.
    pub deployed: Vec<DeploymentView>,
    /// Answers a second in a closed loop before the load, by load, where that was measured.
    pub capacities_per_s: Vec<Option<f64>>,
    /// What else the machine did, and how late the testnet itself was.
    pub strain: Strain,
    /// Whether that was so much that figures tell of the machine instead of the mesh, in words.
    pub starved: Option<String>,
    /// Processor time of the load generator, as a share of one core.
    pub generator_share: f64,
    /// What was demanded, what was got.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The faults.
    pub faults: Vec<FaultTold>,
    /// What batteries gave.
    pub batteries: Vec<BatteryTold>,
    /// Figures over time.
    pub timeline: Timeline,
}

/// What a battery gave while the load was on.
#[derive(Debug, Clone, Serialize)]
pub struct BatteryTold {
    /// Label of its node.
    pub node: String,
    /// Drawn, joules.
    pub drawn_j: f64,
    /// The same for each right answer of the whole mesh; `null` without one.
    pub j_per_answer: Option<f64>,
    /// How full it was at the end, 0 to 1.
    pub level: f64,
    /// When it was empty, and its machine off.
    pub emptied_s: Option<f64>,
}

impl BatteryTold {
    fn of(history: &History, used: &BatteryUse, answers: u64) -> Self {
        Self {
            node: history.label(used.node).to_owned(),
            drawn_j: used.drawn_j,
            j_per_answer: (answers > 0).then(|| used.drawn_j / answers as f64),
            level: used.level,
            emptied_s: used.emptied_us.map(|us| us as f64 / 1e6),
        }
    }
}

/// In words, that the machine had too much to do for its figures to be the mesh's.
fn starved(strain: &Strain) -> Option<String> {
    let Strain { processors, load_average, stolen_share, others_share, late_ms_max, sent_late_ms_max } =
        strain;
    let is_starved = *late_ms_max > STARVED_LATE_MS
        || *sent_late_ms_max > STARVED_LATE_MS
        || *stolen_share > STARVED_STOLEN_SHARE
        || *others_share > STARVED_OTHERS_SHARE
        || *load_average > STARVED_LOAD * *processors as f64;
    is_starved.then(|| {
        format!(
            "This machine was starved: load {load_average:.1} on {processors} processors, {:.1} % of their time \
             stolen and {:.0} % taken by other programs, the testnet itself up to {late_ms_max:.0} ms late and requests up to {sent_late_ms_max:.0} ms. \
             What does not hold may be no fault of the mesh.",
            stolen_share * 100.0,
            others_share * 100.0
        )
    })
}

/// A fault in the document.
#[derive(Debug, Clone, Serialize)]
pub struct FaultTold {
    /// In words.
    pub what: String,
    /// Labels of the nodes that it is done to.
    pub nodes: Vec<String>,
    /// When it was there.
    pub begun_s: f64,
    /// When it was undone.
    pub healed_s: Option<f64>,
    /// Why it could not be.
    pub failed: Option<String>,
    /// Requests that ran at its node, or passed over its link, in the second before or while it acted.
    pub requests: u64,
}

impl FaultTold {
    fn of(history: &History, fault: &FaultEvent, requests: u64) -> Self {
        Self {
            what: fault.what.clone(),
            nodes: fault.nodes.iter().map(|node| history.label(*node).to_owned()).collect(),
            begun_s: fault.begun_us as f64 / 1e6,
            healed_s: fault.healed_us.map(|us| us as f64 / 1e6),
            failed: fault.failed.clone(),
            requests,
        }
    }
}

impl Document {
    /// Of a run.
    pub fn new(
        scenario: &Scenario,
        ground: GroundKind,
        seed: u64,
        began_unix_s: u64,
        history: &History,
        deployed: &[DeploymentView],
        verdict: Verdict,
    ) -> Self {
        let name = scenario.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            scenario: name,
            about: scenario.about.clone(),
            scenario_text: scenario.text.clone(),
            seed,
            machine: Machine::here(),
            ground: match ground {
                GroundKind::Loopback => "loopback",
                GroundKind::Emulated { .. } => "emulated",
            },
            mesh: scenario.topology.told(),
            began_unix_s,
            holds: verdict.holds(),
            nodes: history.nodes.clone(),
            deployed: deployed.to_vec(),
            capacities_per_s: history.capacities_per_s.clone(),
            strain: history.strain,
            starved: starved(&history.strain),
            generator_share: history.generator_share,
            faults: history
                .faults
                .iter()
                .zip(&verdict.in_use)
                .map(|(fault, requests)| FaultTold::of(history, fault, *requests))
                .collect(),
            batteries: history
                .batteries
                .iter()
                .map(|used| {
                    BatteryTold::of(history, used, verdict.latency.map_or(0, |latency| latency.count))
                })
                .collect(),
            timeline: Timeline::of(history, &verdict),
            verdict,
        }
    }
}

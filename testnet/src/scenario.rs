//! Scenarios as data: the files under `testnet/scenarios/`, read and checked against their topology. How
//! they are played lives in `play`, what they are judged by in `judge`. The format: `testnet/scenarios/README.md`.

mod check;
pub mod clash;
mod entries;
mod faults;
mod idle;
mod shown;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{self, Path, PathBuf};

use stormo_protocol::frame::Redundancy;

use crate::binary::workspace_root;
use crate::ground::GroundKind;
use crate::rules;
pub use crate::scenario::faults::{FaultKind, LinkChange, Scheduled, Target};
pub use crate::scenario::idle::Idle;
pub use crate::scenario::shown::Unshown;
use crate::topology::{Topology, TopologyError};

/// Where the committed ones are.
const FOLDER: &str = "testnet/scenarios";

/// A scenario, checked.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where it came from.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it is for.
    pub about: String,
    /// The mesh as its file names it.
    pub topology_name: String,
    /// The mesh.
    pub topology: Topology,
    /// Where its chance begins, unless the command says otherwise.
    pub seed: u64,
    /// How long load is sent.
    pub duration_us: u64,
    /// What is deployed, in order.
    pub deploys: Vec<Deploy>,
    /// Who asks.
    pub loads: Vec<LoadSpec>,
    /// What goes wrong, by time.
    pub faults: Vec<Scheduled>,
    /// What must hold.
    pub expect: Expectations,
}

/// A model to deploy.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
    /// Name to ask for it by.
    pub name: String,
    /// Its file.
    pub model: PathBuf,
    /// Place of the node that deploys it.
    pub at: usize,
    /// Divide into so many parts.
    pub parts: Option<u16>,
    /// Nodes that host each part.
    pub replicas: Option<u16>,
    /// Exactly who hosts what: label of the node, first block, one past the last.
    pub placement: Vec<(String, [u16; 2])>,
    /// ONNX Runtime's level, by the command line's word.
    pub ort_level: String,
    /// Share of right answers.
    pub accuracy: Option<f64>,
    /// What its output means, so that what rounding costs can be measured.
    pub card: Option<PathBuf>,
    /// Folder of inputs that this is measured on.
    pub samples: Option<PathBuf>,
    /// Further variants: label, file, accuracy.
    pub variants: Vec<(String, PathBuf, Option<f64>)>,
}

/// Callers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSpec {
    /// Name of the deployment.
    pub deploy: String,
    /// Places of the nodes that requests enter at, in turns.
    pub at: Vec<usize>,
    /// When they call.
    pub pace: Pace,
    /// When it begins.
    pub from_us: u64,
    /// When it ends.
    pub until_us: u64,
    /// Distinct inputs.
    pub inputs: u16,
    /// Deadline of each request.
    pub timeout_ms: u32,
    /// Latency that is wished for.
    pub max_latency_ms: Option<f64>,
    /// Accuracy that is enough.
    pub min_accuracy: Option<f64>,
    /// The variant that must answer.
    pub variant: Option<String>,
    /// When a backup is sent the same; as the node does, if it is not said.
    pub redundancy: Option<Redundancy>,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many callers, each as soon as it has its answer.
    Closed {
        /// How many.
        clients: u16,
    },
    /// At times that nothing delays.
    Open {
        /// How often.
        rate: Rate,
        /// Whether gaps are those of chance (Poisson) instead of equal.
        is_poisson: bool,
    },
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Requests a second.
    PerSecond(f64),
    /// Of what a closed loop of eight callers was answered, a moment before.
    OfCapacity(f64),
}

/// What must hold; `None` where the scenario demands nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expectations {
    /// Where in the text they begin.
    pub at: usize,
    /// Accepted requests without answer and without error, their entry alive.
    pub lost_max: u64,
    /// Answers that differ from the undivided model's.
    pub wrong_max: u64,
    /// Requests with more than one answer, or another one's.
    pub answered_twice_max: u64,
    /// Share of requests that were told an error, refusals for overload apart.
    pub failed_share_max: f64,
    /// Share of requests refused for overload.
    pub rejected_share_max: f64,
    /// Share of requests whose entry died under them, or could not be reached since it was dead.
    pub unknown_share_max: f64,
    /// Right answers, at least.
    pub answers_min: u64,
    /// Half of the answers are faster.
    pub p50_ms_max: Option<f64>,
    /// Ninety-nine in a hundred answers are faster.
    pub p99_ms_max: Option<f64>,
    /// 99th percentile of the latency of requests that a fault met, less the median before the first.
    pub added_p99_ms_max: Option<f64>,
    /// Requests that a fault met, at least.
    pub affected_min: Option<u64>,
    /// After the last fault or healing (or, without any, the load's beginning) and this time, every request is
    /// answered.
    pub progress_within_ms: Option<f64>,
    /// And within this time each.
    pub progress_latency_ms_max: Option<f64>,
    /// A lost node is left out of the entries' plans within.
    pub left_out_within_ms: Option<f64>,
    /// It is used again after its return within.
    pub back_within_ms: Option<f64>,
    /// After the last fault or healing all deployments have all their replicas, warm, within.
    pub restored_within_ms: Option<f64>,
    /// Every node knows all others, from the start of the last one.
    pub formed_within_ms: Option<f64>,
    /// What a process holds at the end beyond its models and ONNX Runtime's library.
    pub own_memory_mib_max: Option<f64>,
    /// A host that got slow, or whose link did, runs nothing that is sent later than this after.
    pub avoided_within_ms: Option<f64>,
    /// Times that a node was taken for lost without a fault on it, or on a link.
    pub false_losses_max: Option<u64>,
    /// For how long in all an entry may leave a node out of its plans without a fault on either, or a cut.
    pub healthy_left_out_ms_max: Option<f64>,
    /// Share of the capacity (or of the rate sent, where that is less) that is answered rightly and in time
    /// while faults act, or throughout where there are none.
    pub goodput_share_min: Option<f64>,
    /// Ninety-nine in a hundred refusals for overload come within.
    pub reject_within_ms_max: Option<f64>,
    /// Share of the answers that ran on more than one node.
    pub divided_share_min: Option<f64>,
    /// Growth of a node's memory after warming up.
    pub memory_growth_mib_per_h_max: Option<f64>,
    /// Growth of a node's open descriptors after warming up.
    pub descriptors_growth_max: Option<u64>,
    /// Growth of a node's threads after warming up.
    pub threads_growth_max: Option<u64>,
    /// How long nodes warm up, for the growths.
    pub warm_up_us: u64,
    /// Processor time of the generator, as a share of one core.
    pub generator_share_max: Option<f64>,
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("scenario {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file says something that cannot be meant.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// Its topology is at fault.
    #[error("{}:{line}: `topology`: {cause}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        cause: Box<TopologyError>,
    },
}

/// What of a scenario asks for more than plain processes have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its line, from 1.
    pub line: usize,
    /// What it is, in words.
    pub what: String,
}

impl Need {
    fn of(fault: &Scheduled) -> Self {
        Self { line: fault.line, what: format!("the fault `{}`", fault.kind.name()) }
    }
}

impl Scenario {
    /// Reads a file. A bare name (`steady`) means one of the workspace's `testnet/scenarios/`.
    ///
    /// # Errors
    /// When it or its topology cannot be read, or does not describe a scenario.
    pub fn load(named: &Path) -> Result<Self, ScenarioError> {
        let path = rules::locate(named, FOLDER);
        let unreadable = |cause| ScenarioError::Unreadable {
            path: path.clone(),
            cause: rules::unread(named, FOLDER, cause),
        };
        let text = rules::read(&path).map_err(unreadable)?;
        Self::parse(&path, text)
    }

    /// Reads a text as if it stood in this file.
    ///
    /// # Errors
    /// As [`Scenario::load`].
    pub fn parse(path: &Path, text: String) -> Result<Self, ScenarioError> {
        let parsed = check::read(path, &text, &|name, path| Topology::load(&topology_path(name, path)));
        parsed.map_err(|wrong| match wrong {
            check::Wrong::Here { at, message } => {
                ScenarioError::Invalid { path: path.to_owned(), line: rules::line_of(&text, at), message }
            }
            check::Wrong::Topology { at, cause } => {
                ScenarioError::Topology { path: path.to_owned(), line: rules::line_of(&text, at), cause }
            }
        })
    }

    /// Its `topology` as a scenario in any other folder has to name it.
    pub fn topology_elsewhere(&self) -> String {
        let path = topology_path(&self.topology_name, &self.path);
        let absolute = || path::absolute(&path).unwrap_or_else(|_| path.clone());
        let path = if rules::is_bare(&path) { path.clone() } else { absolute() };
        path.to_string_lossy().into_owned()
    }

    /// Where in the list of nodes a label is.
    pub fn place(&self, label: &str) -> Option<usize> {
        self.topology.nodes.iter().position(|node| node.label == label)
    }

    /// The line of a field of `[expect]`; that of the table, or 1, where it is not given.
    pub fn line_of_demand(&self, field: &str) -> usize {
        self.line_of_key(self.expect.at, field)
    }

    /// The line of a key from a place of the text on; that of the place, where it is not given.
    fn line_of_key(&self, from: usize, field: &str) -> usize {
        let table = self.text.get(from..).unwrap_or_default();
        let is_field = |line: &&str| {
            line.trim_start().strip_prefix(field).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let lines = table.lines().position(|line| is_field(&line)).unwrap_or(0);
        rules::line_of(&self.text, from) + lines
    }

    /// Its mesh, each node with what the faults on it need.
    pub fn mesh(&self) -> Topology {
        let mut mesh = self.topology.clone();
        let has_clock_fault = |label: &str| {
            let is_on_it = |target: &Target| matches!(target, Target::Node(node) if node == label);
            let mut clocks = self.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Clock(..)));
            clocks.any(|fault| fault.kind.target().is_some_and(is_on_it))
        };
        mesh.nodes.iter_mut().for_each(|node| node.has_own_clock = has_clock_fault(&node.label));
        mesh
    }

    /// Why it cannot be played where clocks cannot be moved.
    pub fn needs_clocks(&self) -> Option<Need> {
        self.faults.iter().find(|fault| matches!(fault.kind, FaultKind::Clock(..))).map(Need::of)
    }

    /// What it stands on: emulated links and machines where it needs them.
    pub fn ground(&self, seed: u64) -> GroundKind {
        match self.needs_emulation() {
            Some(_) => GroundKind::Emulated { seed },
            None => GroundKind::Loopback,
        }
    }

    /// What of it needs links, processors or memory that are not simply this machine's.
    pub fn needs_emulation(&self) -> Option<Need> {
        if self.topology.is_shaped() {
            let what = format!("the topology `{}`", self.topology_name);
            return Some(Need { line: self.line_of_key(0, "topology"), what });
        }
        self.fault_that_needs_emulation()
    }

    /// The fault that plain processes cannot be done.
    pub fn fault_that_needs_emulation(&self) -> Option<Need> {
        self.faults.iter().find(|fault| fault.kind.needs_emulation()).map(Need::of)
    }
}

/// A bare name is one of the workspace's; another path is relative to the scenario's folder.
fn topology_path(name: &str, scenario: &Path) -> PathBuf {
    let named = Path::new(name);
    let beside = scenario.parent().unwrap_or(Path::new("")).join(named);
    if rules::is_bare(named) || named.is_absolute() { named.to_owned() } else { beside }
}

/// Names of the committed scenarios, in order.
pub fn names() -> Vec<String> {
    rules::names(FOLDER)
}

/// The committed scenarios.
pub fn folder() -> PathBuf {
    workspace_root().join(FOLDER)
}

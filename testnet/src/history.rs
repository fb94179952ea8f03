//! What happened in a run, as seen from outside of the nodes: every request, every fault, what nodes
//! thought of each other, what they used. Plain data: whoever judges it needs nothing else.
//!
//! Times are microseconds since the load began; what came before (warming up) is negative nowhere, it
//! is simply not in here.

mod output;

use std::collections::{BTreeMap, HashMap};

pub use crate::history::output::{Output, Values};

/// Place of a text in [`Names`].
pub type Name = u32;

/// Texts that come again and again, kept once.
#[derive(Debug, Clone, Default)]
pub struct Names {
    texts: Vec<String>,
    places: HashMap<String, Name>,
}

impl Names {
    /// The place of a text, a new one if it is new.
    pub fn place(&mut self, text: &str) -> Name {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = Name::try_from(self.texts.len()).unwrap_or(Name::MAX);
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.texts.len()
    }

    /// The text at a place; empty where there is none.
    pub fn text(&self, place: Name) -> &str {
        self.texts.get(place as usize).map_or("", String::as_str)
    }
}

/// A request and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Number; its id on the wire is made of it, and no other request has it.
    pub serial: u32,
    /// Which load of the scenario sent it.
    pub load: u16,
    /// Place of the node it entered at, among the scenario's nodes.
    pub entry: u16,
    /// Which input of the model it carried.
    pub input: u16,
    /// When the schedule wanted it to be sent. Latency counts from here, so that a generator (or a node) that
    /// is behind hides nothing.
    pub intended_us: u64,
    /// When its last byte was with this machine's kernel; `None` when it never was.
    pub sent_us: Option<u64>,
    /// When it ended.
    pub ended_us: u64,
    /// How.
    pub outcome: Outcome,
}

impl Request {
    /// From the intended time to the end.
    pub fn latency_us(&self) -> u64 {
        self.ended_us.saturating_sub(self.intended_us)
    }

    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// Whether it was under way at a time.
    pub fn is_under_way(&self, at_us: u64) -> bool {
        self.intended_us <= at_us && at_us < self.ended_us
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With an answer of the model, right or wrong.
    Answered(Answer),
    /// The node said no, or that it failed.
    Refused {
        /// HTTP status.
        status: u16,
        /// The node's words.
        error: Name,
    },
    /// The connection died before the whole answer was there.
    Broken {
        /// What the system says.
        error: Name,
    },
    /// Nothing came for longer than the deadline and a grace.
    Silent,
    /// No connection to the node, so nothing was sent.
    NotConnected {
        /// What the system says.
        error: Name,
    },
    /// Something came that is no answer of this API.
    Malformed {
        /// What does not fit.
        error: Name,
    },
    /// The generator had as many requests under way as it may; nothing was sent.
    Shed,
}

/// An answer of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether it carries the id of its own request.
    pub has_own_id: bool,
    /// Label of the variant that it says it is of.
    pub variant: Name,
    /// The plan.
    pub plan: Name,
    /// Peer ids of those who ran it, with commas between.
    pub nodes: Name,
    /// Codecs on the way, with commas between.
    pub codecs: Name,
    /// Attempts that the origin made.
    pub attempts: u16,
    /// Stages that a backup ran.
    pub failovers: u16,
    /// Whether the node says that it is later than wished.
    pub is_late: bool,
    /// Place among [`History::outputs`].
    pub outputs: u32,
}

/// A fault that was done to the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultEvent {
    /// What, in words.
    pub what: String,
    /// Nodes that it is done to (places among the scenario's nodes).
    pub nodes: Vec<u16>,
    /// Whether those nodes can neither hear nor answer anybody meanwhile.
    pub is_loss: bool,
    /// Whether some nodes cannot hear some others meanwhile.
    pub is_split: bool,
    /// Whether it is done to the link between its two nodes, rather than to them.
    pub is_link: bool,
    /// When it was there.
    pub begun_us: u64,
    /// When it was undone, completely; `None`: never.
    pub healed_us: Option<u64>,
    /// Why it could not be done or undone.
    pub failed: Option<String>,
    /// When it was to be done, and was; `None` of what follows from another one, such as an empty battery.
    pub times: Option<FaultTimes>,
}

/// When a fault was to be done and undone, and was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultTimes {
    /// When the scenario has it done.
    pub due_us: u64,
    /// When it had been done.
    pub done_us: u64,
    /// When the scenario has it undone; `None`: never, or by itself.
    pub undo_due_us: Option<u64>,
    /// When its undoing had been done; of a node that is started again, when it was started.
    pub undone_us: Option<u64>,
}

impl FaultEvent {
    /// From when on its nodes may be as before: one that is started again is, before it has said so.
    pub fn let_go_us(&self) -> Option<u64> {
        self.times.and_then(|times| times.undone_us).or(self.healed_us)
    }

    /// Of a link that is cut: whom a node at one of its ends cannot talk with meanwhile.
    pub fn cut_off(&self, node: u16) -> Option<u16> {
        let is_cut = self.is_link && self.is_split;
        self.nodes.iter().copied().find(|other| is_cut && *other != node && self.nodes.contains(&node))
    }

    /// Whether it acts on a node at a time.
    pub fn acts_on(&self, node: u16, at_us: u64) -> bool {
        self.nodes.contains(&node) && self.begun_us <= at_us && self.healed_us.is_none_or(|end| at_us < end)
    }
}

/// A node that begins, or ceases, to leave another one out of its plans, or to take it for lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// When it was seen; up to one look later than it was so.
    pub at_us: u64,
    /// Who thinks so.
    pub by: u16,
    /// Of whom.
    pub of: u16,
    /// Whether plans may use it.
    pub is_usable: bool,
    /// Whether it is taken for lost: suspected, or told of as lost.
    pub is_lost: bool,
}

/// A deployment that begins, or ceases, to be hosted as it was when the load began: as many hosts, all warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostingChange {
    /// When an entry said so.
    pub at_us: u64,
    /// Whether all of them are.
    pub is_whole: bool,
}

/// How much the machine had to do besides, and how late the testnet itself was.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Strain {
    /// Processors.
    pub processors: usize,
    /// Load average of the last minute, at the end.
    pub load_average: f64,
    /// Share of the processors' time that the host of this virtual machine gave to others.
    pub stolen_share: f64,
    /// Share of it that other programs of this machine took than the testnet and its nodes.
    pub others_share: f64,
    /// By how much the testnet itself was woken too late, at most, milliseconds.
    pub late_ms_max: f64,
    /// By how much an arrival was handed out too late, at most, milliseconds.
    pub sent_late_ms_max: f64,
}

/// What a node's process used at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// When.
    pub at_us: u64,
    /// The node.
    pub node: u16,
    /// Which of its lives: a restarted node begins anew.
    pub life: u32,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors, without connections of those who call its API.
    pub descriptors: u32,
    /// Threads.
    pub threads: u32,
    /// Processor time so far.
    pub cpu_us: u64,
}

/// What a node's battery gave while the load was on.
#[derive(Debug, Clone, PartialEq)]
pub struct BatteryUse {
    /// The node.
    pub node: u16,
    /// Drawn, joules.
    pub drawn_j: f64,
    /// How full it was at the end, 0 to 1.
    pub level: f64,
    /// When it was empty, and its machine off.
    pub emptied_us: Option<u64>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Labels of the nodes, in the scenario's order.
    pub nodes: Vec<String>,
    /// Peer ids that they had (a node that comes back keeps its own).
    pub peers: HashMap<String, u16>,
    /// Texts of the requests.
    pub names: Names,
    /// Requests that were begun: numbers from 1 to this.
    pub begun: u32,
    /// Requests, in the order of their ends.
    pub requests: Vec<Request>,
    /// Distinct answers; many requests share one.
    pub outputs: Vec<Vec<Output>>,
    /// Bytes that came where no answer was waited for: an answer given twice.
    pub unasked: u32,
    /// Faults, in the order of their beginnings.
    pub faults: Vec<FaultEvent>,
    /// What nodes thought of each other, in order.
    pub states: Vec<StateChange>,
    /// Whether all deployments together had all their replicas, as the first entry says.
    pub hosting: Vec<HostingChange>,
    /// When each entry said what it thinks of the others, in order. What changed in between shows no sooner.
    pub looks: BTreeMap<u16, Vec<u64>>,
    /// When the first entry said who hosts what.
    pub hosting_looks: Vec<u64>,
    /// Between two looks, as meant.
    pub look_every_us: u64,
    /// What else the machine did.
    pub strain: Strain,
    /// What they used, in order.
    pub usage: Vec<Usage>,
    /// What each process held at the end beyond its models and ONNX Runtime's library, bytes: proportional set size.
    pub own_memory: Vec<(u16, u64)>,
    /// From the start of the last node until each knew all others, milliseconds.
    pub formed_ms: f64,
    /// What the batteries gave, of nodes that have one.
    pub batteries: Vec<BatteryUse>,
    /// When the load ended: requests intended later there are none.
    pub load_ended_us: u64,
    /// Answers a second in a closed loop before the load, of each load that this was measured for.
    pub capacities_per_s: Vec<Option<f64>>,
    /// What each load's requests may take, from when they were meant to be sent; none where they say nothing of it.
    pub latencies_us_max: Vec<Option<u64>>,
    /// What each load's requests may take before their callers give up; none known, none late.
    pub timeouts_us: Vec<u64>,
    /// What was left behind when all had ended, in words.
    pub leftovers: Vec<String>,
    /// What the generator itself could not keep, in words.
    pub generator_faults: Vec<String>,
    /// Processor time of the generator, as a share of one core.
    pub generator_share: f64,
}

impl History {
    /// Places of those who ran an answer, in order; unknown ids are left out.
    pub fn hosts(&self, answer: &Answer) -> Vec<u16> {
        self.names.text(answer.nodes).split(',').filter_map(|peer| self.peers.get(peer).copied()).collect()
    }

    /// A node's label.
    pub fn label(&self, node: u16) -> &str {
        self.nodes.get(usize::from(node)).map_or("?", String::as_str)
    }
}

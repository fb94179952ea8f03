//! What the front asks of the driver, and what it may be told.

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::frame::Redundancy;
use stormo_protocol::ids::{PlanId, RequestId};
use stormo_protocol::tensor::Tensor;
use tokio::sync::oneshot;

use crate::plan::{Goal, Objective};
use crate::serve::json::{
    DeployBody, DeploymentView, DeploymentsView, ModelView, ModelsView, NodeView, NodesView, PlansView,
    RequestView, RequestsView,
};
use crate::traces::TraceParent;

/// Requests under way that entered at one node; more are refused at once. While a host falls silent those that went to it wait
/// for a third of a second: these many let a thousand enter in a second meanwhile.
pub const REQUESTS_MAX: usize = 352;
/// Time until a request ends in any case, unless its caller says otherwise, milliseconds.
pub const TIMEOUT_MS_DEFAULT: u32 = 30_000;
/// Digits of a plan's id that tables show.
pub const PLAN_DIGITS_MIN: usize = 8;

/// What a plan must keep to, and what it is to be best at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PlanLimits {
    /// The first block of the graph must run where the request entered.
    pub force_first: bool,
    /// Likewise the last.
    pub force_last: bool,
    /// Accuracy that is enough, 0 to 1; if absent, nothing is lost on the way.
    pub min_accuracy: Option<f64>,
    /// Latency wished for; a request that no plan can answer so soon is answered as soon as possible, and marked late.
    pub max_latency_ms: Option<f64>,
    /// Most that the machine where the request entered may draw for it, J; what no plan can keep to is refused.
    pub max_energy_j: Option<f64>,
    /// What is to be least within these limits.
    pub objective: Objective,
}

impl PlanLimits {
    /// The same to a planner.
    pub fn goal(&self) -> Goal {
        Goal {
            objective: self.objective,
            latency_ms_max: self.max_latency_ms,
            energy_mj_max: self.max_energy_j.map(|most_j| most_j * 1000.0),
        }
    }

    /// Whether a plan's energy has to be known.
    pub fn needs_energy(&self) -> bool {
        self.objective == Objective::Energy || self.max_energy_j.is_some()
    }
}

/// Who looks for plans.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PlannerName {
    /// What requests are planned by: the most promising nodes, few partial plans remembered.
    #[default]
    Greedy,
    /// All nodes and partial plans that may matter.
    Exact,
    /// An integer linear programme for an independent solver; small meshes and few blocks only.
    Ilp,
}

/// A plan's id, or at least its first eight digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanName(String);

impl PlanName {
    /// The digits that were given.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PlanName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digits && (PLAN_DIGITS_MIN..=2 * size_of::<PlanId>()).contains(&text.len()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("this is no plan id: these have 32 hexadecimal digits, of which the first 8 are enough")
        }
    }
}

/// Limits and wishes of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferOptions {
    /// Run exactly this plan, by its id or the beginning of it.
    pub plan: Option<PlanName>,
    /// Time until the request ends in any case, milliseconds; 30 s if absent.
    pub timeout_ms: Option<u32>,
    /// What its plan must keep to.
    pub limits: PlanLimits,
    /// Label of the variant; if absent, the most accurate one that can run.
    pub variant: Option<String>,
    /// When backups are sent the same.
    pub redundancy: Redundancy,
    /// The span of its caller that it belongs to.
    pub trace_parent: Option<TraceParent>,
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct Answer {
    /// Request id, for `/v1/requests`.
    pub request: RequestId,
    /// Attempts made, each by a plan of its own.
    pub attempts: u16,
    /// Stages of the last attempt that a backup ran, since those before it were lost or refused.
    pub failovers: u16,
    /// Version of the deployment.
    pub version: u64,
    /// Label of the variant.
    pub variant: String,
    /// The plan that gave it.
    pub plan: PlanId,
    /// Peer ids of the stages' hosts.
    pub nodes: Vec<String>,
    /// How tensors were coded before each stage, and behind the last.
    pub codecs: Vec<Codec>,
    /// The model's outputs, in its order; or their meaning alone, by its own name.
    pub outputs: Vec<Tensor>,
    /// From the request's arrival to its result.
    pub latency_ms: f64,
    /// What the machine of this node drew for it, J, by the times that were measured and the watts that its owner said;
    /// `None` where that was not said.
    pub energy_j: Option<f64>,
    /// The same as its plan foretold it, J.
    pub predicted_energy_j: Option<f64>,
    /// Whether the latency was longer than wished.
    pub late: bool,
}

/// Why a call is not answered as wished; each kind is one HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// The call itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// It contradicts how things are now.
    #[error("{0}")]
    Conflict(String),
    /// Nobody can do it now.
    #[error("{0}")]
    Unavailable(String),
    /// Too much at once.
    #[error("{0}")]
    Overloaded(String),
    /// The time is over.
    #[error("{0}")]
    Deadline(String),
    /// It went wrong on a machine.
    #[error("{0}")]
    Failed(String),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// Which plans are to be listed.
#[derive(Debug, Clone)]
pub struct PlansAsked {
    /// Name of the model.
    pub model: String,
    /// Label of the variant; all of them if absent.
    pub variant: Option<String>,
    /// All kinds, or the best only.
    pub all: bool,
    /// For an encoded image, or for tensors; if absent, for an image where the model has a card.
    pub image: Option<bool>,
    /// Limits of the request that they are for.
    pub limits: PlanLimits,
    /// The same plans with this codec wherever it is possible, instead of the best codecs.
    pub codec: Option<Codec>,
    /// Who looks for the best.
    pub planner: PlannerName,
    /// As if all parts were loaded wherever they fit.
    pub warm: bool,
    /// Nodes that have no part in them, by peer id or label.
    pub without: Vec<String>,
}

/// What the front asks.
#[derive(Debug)]
pub enum Call {
    /// Run a model.
    Infer {
        /// Name.
        model: String,
        /// Version of the deployment, if a certain one is wanted.
        version: Option<u64>,
        /// One tensor per input, in any order; or the encoded image alone, by its own name.
        inputs: Vec<Tensor>,
        /// Limits and wishes.
        options: InferOptions,
        /// Where the answer goes.
        reply: Reply<Answer>,
    },
    /// So many requests for each of these models were refused, as many as can be answered being under way.
    TurnedAway(Vec<(String, u32)>),
    /// List plans.
    Plans(PlansAsked, Reply<PlansView>),
    /// What plans are made of, as a planning instance.
    Instance(PlansAsked, Reply<serde_json::Value>),
    /// Deploy what was uploaded.
    Deploy(DeployBody, Reply<DeploymentView>),
    /// Take a deployment back.
    Undeploy {
        /// Its name.
        name: String,
        /// Also where another published it who is gone.
        take_over: bool,
        /// Where it goes as it was.
        reply: Reply<DeploymentView>,
    },
    /// One model.
    Model {
        /// Name.
        name: String,
        /// Label of the variant to show; the most accurate one if absent.
        variant: Option<String>,
        /// Where the answer goes.
        reply: Reply<ModelView>,
    },
    /// All models.
    Models(Reply<ModelsView>),
    /// This node.
    Node {
        /// Whether its load is looked at now, not within the last second.
        fresh: bool,
        /// Where the answer goes.
        reply: Reply<NodeView>,
    },
    /// The owner has this node take work of others, or none until it is told otherwise.
    TakeWork {
        /// Whether it takes some.
        take: bool,
        /// Where the answer goes.
        reply: Reply<NodeView>,
    },
    /// One node.
    NodeNamed {
        /// Its peer id, the end of it that tables show, or its label.
        name: String,
        /// Whether it is asked now how it is.
        fresh: bool,
        /// Where the answer goes.
        reply: Reply<NodeView>,
    },
    /// All nodes.
    Nodes {
        /// Whether each is asked now how it is.
        fresh: bool,
        /// Where the answer goes.
        reply: Reply<NodesView>,
    },
    /// All deployments.
    Deployments(Reply<DeploymentsView>),
    /// One of the last requests.
    Request(RequestId, Reply<RequestView>),
    /// How requests go.
    Requests(Reply<RequestsView>),
}

//! What the front asks of the driver, and what it may be told.

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{PlanId, RequestId};
use stormo_protocol::tensor::Tensor;
use tokio::sync::oneshot;

use crate::serve::json::{
    DeployBody, DeploymentView, DeploymentsView, ModelView, ModelsView, NodeView, NodesView, PlansView,
    RequestView, RequestsView,
};

/// What a plan must keep to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PlanLimits {
    /// The first blocks must run where the request entered.
    pub force_first: bool,
    /// Likewise the last.
    pub force_last: bool,
    /// Accuracy that is enough, 0 to 1; if absent, nothing is lost on the way.
    pub min_accuracy: Option<f64>,
}

/// Limits and wishes of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferOptions {
    /// Run exactly this plan.
    pub plan: Option<PlanId>,
    /// Time until the request ends in any case, milliseconds; 30 s if absent.
    pub timeout_ms: Option<u32>,
    /// Latency wished for; a later answer is marked late.
    pub max_latency_ms: Option<f64>,
    /// What its plan must keep to.
    pub limits: PlanLimits,
    /// Label of the variant; if absent, the most accurate one that can run.
    pub variant: Option<String>,
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct Answer {
    /// Request id, for `/v1/requests`.
    pub request: RequestId,
    /// Attempts made, each by a plan of its own.
    pub attempts: u16,
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
    /// Whether that was longer than wished.
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
    /// List plans.
    Plans {
        /// Name of the model.
        model: String,
        /// Label of the variant; all of them if absent.
        variant: Option<String>,
        /// All kinds, or the best only.
        all: bool,
        /// For an encoded image, or for tensors; if absent, for an image where the model has a card.
        image: Option<bool>,
        /// Limits of the request that they are for.
        limits: PlanLimits,
        /// The same plans with this codec wherever it is possible, instead of the best codecs.
        codec: Option<Codec>,
        /// Where the answer goes.
        reply: Reply<PlansView>,
    },
    /// Deploy what was uploaded.
    Deploy(DeployBody, Reply<DeploymentView>),
    /// Take a deployment back.
    Undeploy(String, Reply<DeploymentView>),
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

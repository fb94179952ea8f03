//! How requests went, told to a collector of OpenTelemetry traces: what the driver knows of a request when it ends,
//! that as spans, and the way to the collector. Nothing here is waited for by a request.

mod endpoint;
mod export;
mod otlp;
mod parent;
mod post;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::frame::StageTrace;
use stormo_protocol::ids::{NodeId, PlanId, RequestId};
use stormo_protocol::plan::Plan;

pub use endpoint::{BadEndpoint, Endpoint};
pub use export::{Exporting, Traces, start};
pub use parent::TraceParent;

/// Who exports: what a collector tells nodes apart by.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// Where the collector is.
    pub endpoint: Endpoint,
    /// Peer id.
    pub instance: String,
    /// Label.
    pub label: String,
}

/// A request that entered here and has ended. Times are since it came, unless they say otherwise.
#[derive(Debug)]
pub struct RequestTrace {
    /// Its id; of a request without a parent that of its trace, too.
    pub request: RequestId,
    /// What its caller calls it, if it said so.
    pub parent: Option<TraceParent>,
    /// Name of the model.
    pub model: String,
    /// Version of the deployment.
    pub version: u64,
    /// When it ended, since 1970, by this machine's clock.
    pub ended_unix: Duration,
    /// How long it took.
    pub took: Duration,
    /// Until there was a plan for the first attempt, if there ever was.
    pub planning: Option<Duration>,
    /// In their order.
    pub attempts: Vec<Attempt>,
    /// What answered it, or why nothing did.
    pub outcome: Result<Answered, String>,
}

/// An attempt at a request.
#[derive(Debug)]
pub struct Attempt {
    /// Its plan.
    pub plan: PlanId,
    /// Label of the variant.
    pub variant: String,
    /// When its input was sent.
    pub began: Duration,
    /// When it was over.
    pub ended: Duration,
    /// Why, if it gave no answer.
    pub failed: Option<String>,
}

/// The attempt that gave the answer, as its stages measured it.
#[derive(Debug)]
pub struct Answered {
    /// Which: the first is 1.
    pub attempt: u16,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Who ran each stage: peer id and label.
    pub hosts: Vec<(NodeId, String)>,
    /// What the stages took.
    pub traces: Vec<StageTrace>,
    /// Bytes of tensors that each stage was sent, before they were coded.
    pub input_bytes: Vec<u64>,
    /// The same of what came back.
    pub result_bytes: u64,
    /// From the result's first byte to its last, and decoding it.
    pub result_times: [Duration; 2],
}

//! Outputs that a run sends itself. Small tensors are on their way to the next stage before the node's loop is
//! woken: that saves a thread's wake per hop, which takes longer than the rest of a small frame's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::frame::{DeliveryKey, Edge, StageTrace};
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::tensor::{Tensor, total_bytes};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Driver;
use super::stages::{StageKey, frame, note_run, of_these};
use crate::ends::Described;
use crate::engine::{AtOnce, Ran};
use crate::net::{Begun, Net, OutgoingFrame, Patience};

/// Larger outputs are sent by a task, so that the session's thread goes on with its next run.
const AHEAD_BYTES_MAX: u64 = 256 << 10;

/// A delivery that a run began.
pub(super) struct Ahead {
    to: NodeId,
    edge: Edge,
    begun: Begun,
}

impl Ahead {
    /// The delivery, if it is this one.
    pub(super) fn to(self, to: NodeId, edge: Edge) -> Option<Begun> {
        ((self.to, self.edge) == (to, edge)).then_some(self.begun)
    }
}

/// All that is needed to send the output of a run.
struct Sending {
    net: Net,
    runtime: Handle,
    to: NodeId,
    patience: Patience,
    key: DeliveryKey,
    plan: Arc<EncodedPlan>,
    traces: Vec<StageTrace>,
    received: Instant,
    deadline: Instant,
    described: Arc<Described>,
    /// What is sent, as indices into the manifest's tensors.
    tensors: Vec<u32>,
    input: Vec<Tensor>,
}

impl Driver {
    /// What a stage's run is to do with its output at once, and where it tells of that. Nothing if the next stage is on
    /// this node, or its host is to be avoided.
    pub(super) fn send_ahead(&mut self, key: StageKey) -> Option<(AtOnce, oneshot::Receiver<Ahead>)> {
        let hosted = self.stages.get(&key)?;
        let (to, edge) = hosted.machine.first_receiver()?;
        if to == self.own() || self.suspects.is_out(to) || self.is_quiet(to) {
            return None;
        }
        let delivery = DeliveryKey { request: key.request, attempt: key.attempt, edge };
        let (plan, traces) = (hosted.plan.clone(), hosted.traces.clone());
        let late_after = self.late_after(delivery, to, (plan.plan(), &traces));
        let hosted = self.stages.get(&key)?;
        let sending = Sending {
            net: self.parts.net.clone(),
            runtime: Handle::current(),
            to,
            patience: Patience { late_after, ..self.patience_with(to) },
            key: delivery,
            plan,
            traces,
            received: hosted.received,
            deadline: Instant::now()
                + Duration::from_millis(hosted.deadline_ms.saturating_sub(self.now_ms())),
            described: hosted.manifest.clone(),
            tensors: hosted.ways.to(edge.to)?.to_vec(),
            input: hosted.gathered(),
        };
        let (tell, told) = oneshot::channel();
        let at_once = move |ran: &Ran| {
            if let Some(ahead) = sending.begin(ran) {
                // A stage that is over needs no delivery.
                let _ = tell.send(ahead);
            }
        };
        Some((Box::new(at_once), told))
    }
}

impl Sending {
    fn begin(self, ran: &Ran) -> Option<Ahead> {
        let (to, edge) = (self.to, self.key.edge);
        let (net, runtime, patience) = (self.net.clone(), self.runtime.clone(), self.patience);
        let frame = self.frame(ran)?;
        Some(Ahead { to, edge, begun: net.begin_delivery(&runtime, to, frame, patience) })
    }

    fn frame(mut self, ran: &Ran) -> Option<OutgoingFrame> {
        let tensors = of_these(&self.described, &self.tensors, &self.input, &ran.outputs);
        if total_bytes(&tensors) > AHEAD_BYTES_MAX {
            return None;
        }
        note_run(&mut self.traces, ran, self.received.elapsed());
        let remaining_ms = self.deadline.saturating_duration_since(Instant::now()).as_millis() as u32;
        Some(frame(&self.plan, self.key, remaining_ms, self.traces, tensors))
    }
}

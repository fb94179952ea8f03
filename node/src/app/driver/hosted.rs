//! A stage that this node hosts, with all that it owns.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::frame::{Edge, Sign, StageTrace};
use stormo_protocol::ids::NodeId;
use stormo_protocol::model::Ways;
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::tensor::{Tensor, total_bytes};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::ahead::Ahead;
use super::hosting::PartitionKey;
use crate::ends::Described;
use crate::flow::Stage;
use crate::net::{Begun, Received, SignWriter};

/// A stage with all that it owns.
pub(super) struct HostedStage {
    pub(super) machine: Stage,
    pub(super) index: u16,
    /// This node's place among the stage's hosts.
    pub(super) host: u16,
    pub(super) plan: Arc<EncodedPlan>,
    /// The graph's part of its blocks; empty when it only decodes or reads.
    pub(super) key: PartitionKey,
    pub(super) manifest: Arc<Described>,
    pub(super) deadline_ms: u64,
    /// Whoever sent the input, or a copy of it.
    pub(super) signs: Vec<SignWriter>,
    /// Which tensors come from where, and which go where.
    pub(super) ways: Ways,
    /// Bytes that were accepted and are on their way, by the stage that they come from.
    pub(super) expected: Vec<(u16, u64)>,
    /// What came, and from which stage.
    pub(super) inputs: Vec<(u16, Vec<Tensor>)>,
    /// What goes to each stage, or to the origin.
    pub(super) outputs: Vec<(u16, Vec<Tensor>)>,
    pub(super) traces: Vec<StageTrace>,
    pub(super) received: Instant,
    pub(super) running: Option<AbortHandle>,
    /// The run sends its output itself, and says here how.
    pub(super) ahead: Option<oneshot::Receiver<Ahead>>,
    pub(super) delivering: Vec<AbortHandle>,
    /// Some of its output was sent to two hosts.
    pub(super) has_hedged: bool,
}

impl Drop for HostedStage {
    fn drop(&mut self) {
        for task in self.running.take().into_iter().chain(self.delivering.drain(..)) {
            task.abort();
        }
    }
}

impl HostedStage {
    /// A stage that its plan names this node for, at that place among its hosts.
    pub(super) fn of(
        machine: Stage,
        plan: Arc<EncodedPlan>,
        (index, host): (u16, u16),
        key: PartitionKey,
        manifest: Arc<Described>,
        ways: Ways,
        deadline_ms: u64,
    ) -> Self {
        Self {
            machine,
            index,
            host,
            plan,
            key,
            manifest,
            deadline_ms,
            signs: Vec::new(),
            ways,
            expected: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            traces: Vec::new(),
            received: Instant::now(),
            running: None,
            ahead: None,
            delivering: Vec::new(),
            has_hedged: false,
        }
    }

    /// What is said of the stage from now on, one more hears.
    pub(super) fn heard_by(&mut self, signs: SignWriter) {
        self.signs.retain(|signs| !signs.is_closed());
        self.signs.push(signs);
    }

    /// So many bytes are on their way from a stage.
    pub(super) fn awaits(&mut self, from: u16, bytes: u64) {
        self.expected.retain(|(of, _)| *of != from);
        if bytes > 0 {
            self.expected.push((from, bytes));
        }
    }

    /// Bytes of tensors that it holds, or is about to.
    pub(super) fn held_bytes(&self) -> u64 {
        let tensors = self.inputs.iter().chain(&self.outputs).map(|(_, tensors)| total_bytes(tensors));
        tensors.chain(self.expected.iter().map(|(_, bytes)| *bytes)).fold(0, u64::saturating_add)
    }

    /// The trace of its work, with what receiving took.
    pub(super) fn trace(&self, receive_time: Duration, decode_time: Duration) -> StageTrace {
        let [receive_us, decode_us] =
            [receive_time, decode_time].map(|time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        StageTrace { stage: self.index, host: self.host, receive_us, decode_us, ..StageTrace::default() }
    }

    /// Whether it waits for several inputs.
    pub(super) fn is_join(&self) -> bool {
        self.ways.inputs.len() > 1
    }

    /// An input that was waited for is here.
    pub(super) fn take_in(&mut self, received: Received) {
        let Received { header, traces, tensors, receive_time, decode_time, .. } = received;
        let own = self.trace(receive_time, decode_time);
        // Those of the stages before, each once, then its own by the last input.
        self.traces.retain(|trace| trace.stage != own.stage);
        let is_known =
            |known: &[StageTrace], trace: &StageTrace| known.iter().any(|k| k.stage == trace.stage);
        for trace in traces {
            if !is_known(&self.traces, &trace) {
                self.traces.push(trace);
            }
        }
        self.traces.push(own);
        self.awaits(header.key.edge.from, 0);
        self.inputs.push((header.key.edge.from, tensors));
        self.received = Instant::now();
    }

    /// All inputs, in the order of the ways that they took.
    pub(super) fn gathered(&self) -> Vec<Tensor> {
        let from = |other: u16| self.inputs.iter().find(|(from, _)| *from == other);
        let ways = self.ways.inputs.iter().filter_map(|way| from(way.other));
        ways.flat_map(|(_, tensors)| tensors.iter().cloned()).collect()
    }

    /// What the run sent already, if that is what is to be sent.
    pub(super) fn ahead_to(&mut self, to: NodeId, edge: Edge) -> Option<Begun> {
        self.ahead.take()?.try_recv().ok()?.to(to, edge)
    }

    pub(super) fn blocks(&self) -> Range<u16> {
        let stage = usize::from(self.index);
        self.machine.plan().stages.get(stage).map_or(0..0, |stage| stage.blocks())
    }

    /// Only the last sign is news; the others are read when it is time to show life.
    pub(super) fn say(&self, sign: Sign) {
        for signs in &self.signs {
            signs.send_if_modified(|newest| {
                *newest = sign;
                sign.is_last()
            });
        }
    }
}

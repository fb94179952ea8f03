//! Stages that this node hosts: runs, and frames out, as `flow` decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::frame::{DeliveryKey, Descriptor, Edge, Header, ORIGIN, Sign, StageTrace};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::Tensor;
use tokio::task::AbortHandle;

use super::hosting::PartitionKey;
use super::{Driver, Event};
use crate::ends::{Work, WorkError};
use crate::engine::{Ran, RunError};
use crate::flow::{OriginEvent, StageAction, StageEvent};
use crate::mesh::MemberEvent;
use crate::net::{NetEvent, OutgoingFrame, Patience, Progress, Received, Sent, SignReader, SignWriter};

/// Telling an origin of a failure takes no longer than this, or its deadline tells.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A stage of an attempt at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageKey {
    pub request: RequestId,
    pub attempt: u16,
    pub stage: u16,
}

impl Driver {
    /// How a delivery of ours goes on: the input of a request, or the output of a stage.
    pub(super) fn on_delivery(&mut self, key: DeliveryKey, to: NodeId, progress: Progress) {
        if let Progress::Late(so_far) = progress {
            return self.on_late(key, to, so_far);
        }
        if let Progress::Passed(sent) = progress
            && to != self.own()
        {
            self.note_passed(key, to, sent);
            let round_trip_us = self.member.links().round_trip_us(to).unwrap_or(0.0);
            let micros = sent.transfer_time.as_micros() as f64 + round_trip_us;
            self.on_member(MemberEvent::Transferred { peer: to, bytes: sent.bytes, micros });
        }
        if !matches!(progress, Progress::Lost | Progress::Avoided) {
            self.suspects.answered(self.now_ms(), to);
        }
        if key.edge.from == ORIGIN {
            return self.on_input_delivery(key, to, progress);
        }
        let stage = StageKey { request: key.request, attempt: key.attempt, stage: key.edge.from };
        if matches!(progress, Progress::Lost) && !self.stages.contains_key(&stage) {
            // Another host did it meanwhile.
            self.accuse(to);
        }
        let event = match progress {
            Progress::Taken => StageEvent::Taken(key.edge, to),
            Progress::Passed(_) => StageEvent::Passed(key.edge, to),
            Progress::Refused(stage, reason) => StageEvent::Refused(key.edge, to, stage, reason),
            Progress::Lost => StageEvent::Lost(key.edge, to),
            Progress::Avoided => StageEvent::Avoided(key.edge, to),
            Progress::Late(_) => return,
        };
        self.on_stage(stage, event);
    }

    pub(super) fn on_ran(&mut self, key: StageKey, result: Result<Ran, WorkError>) {
        let Some(hosted) = self.stages.get_mut(&key) else { return };
        let event = match result {
            Ok(ran) => {
                note_run(&mut hosted.traces, &ran, hosted.received.elapsed());
                let input = hosted.gathered();
                hosted.inputs.clear();
                let there = |tensors: &[u32]| of_these(&hosted.manifest, tensors, &input, &ran.outputs);
                let outputs = hosted.ways.outputs.iter().map(|way| (way.other, there(&way.tensors)));
                hosted.outputs = outputs.collect();
                // With an end beside it, the time is not the session's alone, and a batch takes its own.
                if hosted.blocks() == hosted.key.blocks() && ran.items <= 1 {
                    self.hosting.ran(hosted.key, ran.ran);
                }
                StageEvent::Ran
            }
            Err(error) => {
                if let Some(left_out) = self.log.runs.next(self.started.elapsed().as_millis() as u64) {
                    let model = &hosted.manifest.model;
                    tracing::warn!(model, stage = key.stage, %error, left_out, "a run failed");
                }
                StageEvent::RunFailed(match error {
                    WorkError::Image(_) => Refusal::BadImage,
                    WorkError::Run(RunError::QueueFull) => Refusal::Overloaded,
                    WorkError::Run(RunError::WrongInputs(_)) => Refusal::WrongTensors,
                    WorkError::Run(RunError::BadValues(_)) => Refusal::BadValue,
                    WorkError::Run(_) | WorkError::Read(_) => Refusal::RunFailed,
                })
            }
        };
        self.on_stage(key, event);
    }

    /// A partition is ready, or will not be: told to all stages that wait for it.
    pub(super) fn stages_ready(&mut self, partition: PartitionKey, event: StageEvent) {
        let waiting: Vec<StageKey> =
            self.stages.iter().filter(|(_, hosted)| hosted.key == partition).map(|(key, _)| *key).collect();
        waiting.into_iter().for_each(|key| self.on_stage(key, event));
    }

    pub(super) fn partitions_in_use(&self) -> BTreeSet<PartitionKey> {
        self.stages.values().map(|hosted| hosted.key).collect()
    }

    pub(super) fn on_cancel(&mut self, from: NodeId, request: RequestId, attempt: u16) -> Response {
        self.stages.retain(|key, hosted| {
            let is_it =
                (key.request, key.attempt) == (request, attempt) && hosted.machine.plan().origin == from;
            if is_it {
                hosted.say(Sign::Refused { stage: key.stage, reason: Refusal::Cancelled });
            }
            !is_it
        });
        // By whom: only the origin's word counts.
        self.cancelled.insert((request, attempt, from), ());
        Response::Done
    }

    pub(super) fn expire_stages(&mut self) {
        let now_ms = self.now_ms();
        self.stages.retain(|key, hosted| {
            let is_over = hosted.deadline_ms <= now_ms;
            if is_over {
                hosted.say(Sign::Refused { stage: key.stage, reason: Refusal::DeadlinePassed });
            }
            !is_over
        });
    }

    pub(super) fn on_stage(&mut self, key: StageKey, event: StageEvent) {
        if let Some(hosted) = self.stages.get_mut(&key) {
            let actions = hosted.machine.handle(event);
            self.act_on_stage(key, actions);
        }
    }

    pub(super) fn act_on_stage(&mut self, key: StageKey, actions: Vec<StageAction>) {
        for action in actions {
            match action {
                StageAction::Load => match self.stages.get(&key).map(|hosted| hosted.key) {
                    Some(partition) if partition.blocks().is_empty() => self.on_stage(key, StageEvent::Ready),
                    Some(partition) => self.load(partition, false),
                    None => {}
                },
                StageAction::Run => self.run_stage(key),
                StageAction::Send { to, edge } => self.send_output(key, to, edge),
                StageAction::Say(sign) => self.tell_senders(key, sign),
                StageAction::Report(stage, reason) => self.report(key, stage, reason),
                StageAction::ReportJoin { stage, host, reason } => self.report_join(key, stage, host, reason),
                StageAction::Suspect(node) => self.report_lost(key, node),
                StageAction::Done => {
                    let done = self.stages.remove(&key);
                    if let Some(mut hosted) = done.filter(|hosted| hosted.has_hedged) {
                        // What the slower host takes is to be known.
                        hosted.delivering.clear();
                    }
                    self.ended.insert(key, ());
                }
                StageAction::Forget => {
                    self.stages.remove(&key);
                }
            }
        }
    }

    /// Says it to whoever sent an input. A refusal that none of them is there to hear is told to the origin.
    fn tell_senders(&mut self, key: StageKey, sign: Sign) {
        let Some(hosted) = self.stages.get(&key) else { return };
        hosted.say(sign);
        if let Sign::Refused { stage, reason } = sign
            && hosted.signs.iter().all(SignWriter::is_closed)
        {
            self.report(key, stage, reason);
        }
    }

    fn run_stage(&mut self, key: StageKey) {
        let now_ms = self.now_ms();
        let Some(hosted) = self.stages.get_mut(&key) else { return };
        let partition = self.hosting.ready(hosted.key, now_ms);
        if partition.is_none() && !hosted.key.blocks().is_empty() {
            // Dropped for another one between its loading and this frame.
            return self.on_stage(key, StageEvent::RunFailed(Refusal::NoMemory));
        }
        let work = Work {
            described: hosted.manifest.clone(),
            blocks: hosted.blocks(),
            partition,
            input: hosted.gathered(),
        };
        let (at_once, ahead) = self.send_ahead(key).unzip();
        let ran = work.begin(at_once);
        let running = self.beside(async move { Event::Ran(key, ran.await) });
        if let Some(hosted) = self.stages.get_mut(&key) {
            (hosted.running, hosted.ahead) = (Some(running), ahead);
        }
    }

    fn send_output(&mut self, key: StageKey, to: NodeId, edge: Edge) {
        let now_ms = self.now_ms();
        let Some(hosted) = self.stages.get(&key) else { return };
        let encoded = hosted.plan.clone();
        // It is not for the senders to say where a join is.
        let has_others = || !encoded.plan().is_join(edge.to) && hosted.machine.has_others(edge, to);
        let delivery = DeliveryKey { request: key.request, attempt: key.attempt, edge };
        if (self.suspects.is_out(to) || self.has_livelier(delivery, to)) && has_others() {
            // It fell silent a moment ago, or is about to, and there is another one.
            return self.on_stage(key, StageEvent::Avoided(edge, to));
        }
        let ahead = self.stages.get_mut(&key).and_then(|hosted| hosted.ahead_to(to, edge));
        if let (Some(ahead), Some(hosted)) = (ahead, self.stages.get_mut(&key)) {
            hosted.delivering.push(ahead.go_on());
            return self.duplicate(delivery, to);
        }
        let Some(hosted) = self.stages.get(&key) else { return };
        let remaining_ms = hosted.deadline_ms.saturating_sub(now_ms) as u32;
        let Some((_, tensors)) = hosted.outputs.iter().find(|(to, _)| *to == edge.to) else { return };
        let frame = frame(&encoded, delivery, remaining_ms, hosted.traces.clone(), tensors.clone());
        let delivering = self.deliver(to, &encoded, frame);
        if let (Some(hosted), Some(delivering)) = (self.stages.get_mut(&key), delivering) {
            hosted.delivering.retain(|delivering| !delivering.is_finished());
            hosted.delivering.push(delivering);
        }
        self.duplicate(delivery, to);
    }

    /// Sends a frame, to another node or to this one.
    pub(super) fn deliver(
        &mut self,
        to: NodeId,
        plan: &Arc<EncodedPlan>,
        frame: OutgoingFrame,
    ) -> Option<AbortHandle> {
        if to != self.own() {
            let key = frame.header.key;
            let late_after = self.late_after(key, to, (plan.plan(), &frame.traces));
            let has_others = !self.may_hedge(key, to).is_empty();
            let quiet = has_others.then(|| self.quiet_after(to));
            let patience = Patience { late_after, quiet, ..self.patience_with(to) };
            return Some(self.parts.net.deliver(to, frame, patience).abort_handle());
        }
        let OutgoingFrame { header, traces, tensors, .. } = frame;
        let described: Vec<Descriptor> = tensors.iter().map(Descriptor::raw).collect();
        let key = header.key;
        match self.accept(to, &header, Some(plan), &described) {
            Ok(signs) => {
                let watching = self.watch_own_delivery(key, signs);
                let [receive_time, decode_time] = [Duration::ZERO; 2];
                let received = Received { from: to, header, traces, tensors, receive_time, decode_time };
                self.on_received(received);
                Some(watching)
            }
            Err(reason) => {
                let progress = Progress::Refused(key.edge.to, reason);
                Some(self.beside(async move { Event::Net(NetEvent::Delivery { key, to, progress }) }))
            }
        }
    }

    /// Turns the signs of a stage on this node into the events that a stream would give. That it took its input is none of
    /// them: while both are on one machine, whoever sent to the first of them is to keep what it sent.
    fn watch_own_delivery(&self, key: DeliveryKey, mut signs: SignReader) -> AbortHandle {
        let (events, to) = (self.events.clone(), self.own());
        let tell = move |progress| Event::Net(NetEvent::Delivery { key, to, progress });
        tokio::spawn(async move {
            let last = loop {
                match *signs.borrow_and_update() {
                    Sign::Passed => break Progress::Passed(Sent::default()),
                    Sign::Refused { stage, reason } => break Progress::Refused(stage, reason),
                    _ => {}
                }
                if signs.changed().await.is_err() && !signs.borrow().is_last() {
                    break Progress::Lost;
                }
            };
            let _ = events.send(tell(last)).await;
        })
        .abort_handle()
    }

    fn report(&mut self, key: StageKey, stage: u16, reason: Refusal) {
        let Some(origin) = self.stages.get(&key).map(|hosted| hosted.machine.plan().origin) else { return };
        // The last stage's successor is the origin itself, which knows best.
        let stage = if stage == ORIGIN { key.stage } else { stage };
        tracing::debug!(request = %key.request, attempt = key.attempt, stage, %reason, "no host of a stage is left");
        if origin == self.own() {
            return self.origin_failed(key.request, key.attempt, stage, reason);
        }
        self.tell_origin(
            origin,
            Request::Failed { request: key.request, attempt: key.attempt, stage, reason },
        );
    }

    /// A host fell silent, and another one of its stage is sent the same: plans of this node and of the request's origin
    /// leave it out at once.
    fn report_lost(&mut self, key: StageKey, node: NodeId) {
        let own = self.own();
        tracing::debug!(
            request = %key.request, attempt = key.attempt, stage = key.stage + 1, peer = %node.short(),
            "a host fell silent; another one takes its stage over"
        );
        self.accuse(node);
        let origin = self.stages.get(&key).map(|hosted| hosted.machine.plan().origin);
        let (request, attempt) = (key.request, key.attempt);
        match origin {
            Some(origin) if origin != own => {
                self.tell_origin(origin, Request::Lost { request, attempt, node });
            }
            Some(_) => self.on_origin(request, OriginEvent::HostLost { attempt }),
            None => {}
        }
    }

    pub(super) fn tell_origin(&self, origin: NodeId, request: Request) {
        let net = self.parts.net.clone();
        tokio::spawn(async move {
            if let Err(error) = net.ask(origin, &request, REPORT_TIMEOUT).await {
                tracing::debug!(%error, "a failure could not be reported; the deadline will tell");
            }
        });
    }
}

/// A frame of a plan's.
pub(super) fn frame(
    plan: &EncodedPlan,
    key: DeliveryKey,
    remaining_ms: u32,
    traces: Vec<StageTrace>,
    tensors: Vec<Tensor>,
) -> OutgoingFrame {
    OutgoingFrame {
        header: Header::of(key, plan.id(), remaining_ms, &traces, &tensors),
        plan: if key.edge.to == ORIGIN { Arc::default() } else { plan.bytes().clone() },
        traces,
        tensors,
        codec: plan.plan().codec_of(key.edge),
    }
}

/// Notes in the last trace what a run took since its input was there.
pub(super) fn note_run(traces: &mut [StageTrace], ran: &Ran, since: Duration) {
    let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    if let Some(trace) = traces.last_mut() {
        (trace.run_us, trace.wait_us) = (us(ran.ran), us(since.saturating_sub(ran.ran)));
    }
}

/// These tensors of the manifest, in this order: what the partition made, and what passed it by.
pub(super) fn of_these(
    manifest: &Manifest,
    tensors: &[u32],
    input: &[Tensor],
    made: &[Tensor],
) -> Vec<Tensor> {
    let all = || made.iter().chain(input);
    let found = |index: &u32| all().find(|tensor| manifest.is_of(*index, tensor.spec())).cloned();
    tensors.iter().filter_map(found).collect()
}

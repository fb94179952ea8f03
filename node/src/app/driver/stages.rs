//! Stages that this node hosts: frames in, runs, frames out, as `flow` decides.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::control::{Prepare, Request, Response};
use stormo_protocol::frame::{DeliveryKey, Descriptor, Edge, Header, ORIGIN, Sign, StageTrace};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::limits::DEADLINE_MS_MAX;
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::Tensor;
use tokio::task::AbortHandle;

use super::hosting::PartitionKey;
use super::{Driver, Event};
use crate::ends::{Described, Work, WorkError};
use crate::engine::{Ran, RunError};
use crate::flow::{Stage, StageAction, StageEvent, patience_ms};
use crate::mesh::MemberEvent;
use crate::net::{
    NetEvent, Offer, OutgoingFrame, Patience, Progress, Received, Sent, SignReader, SignWriter, Verdict,
    signs,
};

/// Stages under way at once, announced ones included.
const STAGES_MAX: usize = 2048;
/// Frames that came before their plan.
const EARLY_OFFERS_MAX: usize = 256;
/// A plan is announced at the moment its first frame is sent; it cannot be much later.
const EARLY_MS_MAX: u64 = 1_000;
/// Telling an origin of a failure takes no longer than this, or its deadline tells.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A stage of an attempt at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageKey {
    pub request: RequestId,
    pub attempt: u16,
    pub stage: u16,
}

/// A frame whose plan has not come yet.
pub(super) struct EarlyOffer {
    offer: Offer,
    until_ms: u64,
}

/// A stage with all that it owns.
pub(super) struct HostedStage {
    machine: Stage,
    index: u16,
    /// The graph's part of its blocks; empty when it only decodes or reads.
    key: PartitionKey,
    manifest: Arc<Described>,
    deadline_ms: u64,
    signs: Option<SignWriter>,
    input: Vec<Tensor>,
    /// What of the work goes to the origin, as indices into the manifest's tensors.
    results: Vec<u32>,
    /// For the next stage.
    output: Vec<Tensor>,
    /// For the origin.
    result: Vec<Tensor>,
    traces: Vec<StageTrace>,
    received_ms: f64,
    running: Option<AbortHandle>,
    delivering: Vec<AbortHandle>,
}

impl Drop for HostedStage {
    fn drop(&mut self) {
        for task in self.running.take().into_iter().chain(self.delivering.drain(..)) {
            task.abort();
        }
    }
}

impl Driver {
    /// A plan with a part for this node. The answer says no only.
    pub(super) fn on_prepare(&mut self, from: NodeId, prepare: Prepare) -> Response {
        if prepare.plan.origin != from {
            return Response::Refused(Refusal::BadFrame);
        }
        if let Some(reason) = self.refuses_work() {
            return Response::Refused(reason);
        }
        match self.announce_stages(&prepare) {
            Ok(()) => Response::Done,
            Err(reason) => Response::Refused(reason),
        }
    }

    /// Makes the stages of a plan that are this node's.
    pub(super) fn announce_stages(&mut self, prepare: &Prepare) -> Result<(), Refusal> {
        let Prepare { request, attempt, plan, remaining_ms } = prepare;
        let manifest = self.manifests.get(&plan.variant).cloned().ok_or(Refusal::UnknownDeployment)?;
        let covered = plan.check().map_err(|_| Refusal::BadFrame)?;
        if !manifest.is_whole(&covered) {
            return Err(Refusal::BadFrame);
        }
        let plan = Arc::new(plan.clone());
        let deadline_ms = self.now_ms() + u64::from((*remaining_ms).min(DEADLINE_MS_MAX));
        let own = self.own();
        let mine = plan.stages.iter().enumerate().filter(|(_, stage)| stage.node == own);
        let mut announced = Vec::new();
        for (index, stage) in mine {
            let key = StageKey { request: *request, attempt: *attempt, stage: index as u16 };
            if self.stages.contains_key(&key) {
                continue;
            }
            if self.stages.len() >= STAGES_MAX {
                return Err(Refusal::Overloaded);
            }
            let results = manifest.results_of(&stage.blocks(), &covered);
            let announced_stage = Stage::announced(plan.clone(), index as u16, !results.is_empty());
            let Some((machine, actions)) = announced_stage else { continue };
            let graph = manifest.graph_part(stage.blocks());
            let partition = PartitionKey { variant: plan.variant, first: graph.start, end: graph.end };
            let hosted = HostedStage {
                machine,
                index: key.stage,
                key: partition,
                manifest: manifest.clone(),
                deadline_ms,
                signs: None,
                input: Vec::new(),
                results,
                output: Vec::new(),
                result: Vec::new(),
                traces: Vec::new(),
                received_ms: 0.0,
                running: None,
                delivering: Vec::new(),
            };
            self.stages.insert(key, hosted);
            announced.push((key, actions));
        }
        if announced.is_empty() && plan.stages.iter().all(|stage| stage.node != own) {
            return Err(Refusal::NotMyStage);
        }
        announced.into_iter().for_each(|(key, actions)| self.act_on_stage(key, actions));
        self.admit_early_offers(*request, *attempt);
        Ok(())
    }

    /// Somebody offers tensors: a frame for a stage here, or the result of a request that entered here.
    pub(super) fn on_offered(&mut self, offer: Offer) {
        let key = offer.header.key;
        let known = key.edge.to == ORIGIN || self.stages.contains_key(&stage_key(key));
        if known {
            return self.decide(offer);
        }
        if self.early_offers.len() >= EARLY_OFFERS_MAX {
            let _ = offer.verdict.send(Verdict::Refuse(Refusal::Overloaded));
            return;
        }
        self.early_offers.push(EarlyOffer { offer, until_ms: self.now_ms() + EARLY_MS_MAX });
    }

    fn admit_early_offers(&mut self, request: RequestId, attempt: u16) {
        let waiting = std::mem::take(&mut self.early_offers);
        let (ready, later) = waiting.into_iter().partition(|early: &EarlyOffer| {
            let key = early.offer.header.key;
            (key.request, key.attempt) == (request, attempt)
        });
        self.early_offers = later;
        for early in ready {
            self.on_offered(early.offer);
        }
    }

    pub(super) fn expire_offers(&mut self) {
        let now_ms = self.now_ms();
        let waiting = std::mem::take(&mut self.early_offers);
        let (late, waiting) = waiting.into_iter().partition(|early: &EarlyOffer| early.until_ms <= now_ms);
        self.early_offers = waiting;
        for EarlyOffer { offer, .. } in late {
            let _ = offer.verdict.send(Verdict::Refuse(Refusal::UnknownPlan));
        }
    }

    fn decide(&mut self, offer: Offer) {
        let verdict = match self.accept(offer.from, &offer.header, &offer.described) {
            Ok(signs) => Verdict::Take(signs),
            Err(reason) => Verdict::Refuse(reason),
        };
        // The sender may have gone; the stage then waits for another one or its deadline.
        let _ = offer.verdict.send(verdict);
    }

    /// Whether these tensors, from there, are wanted now.
    fn accept(
        &mut self,
        from: NodeId,
        header: &Header,
        described: &[Descriptor],
    ) -> Result<SignReader, Refusal> {
        if header.key.edge.to == ORIGIN {
            return self.accept_result(from, header, described);
        }
        let key = stage_key(header.key);
        let hosted = self.stages.get_mut(&key).ok_or(Refusal::UnknownPlan)?;
        let plan = hosted.machine.plan();
        let (sender, expected) = sender_of(plan, key.stage);
        if header.plan != plan.id() || sender != from || header.key.edge != expected {
            return Err(Refusal::NotMyStage);
        }
        let codec = plan.codec_of(expected);
        hosted.machine.may_arrive()?;
        let cut = &hosted.manifest.cuts[usize::from(hosted.blocks().start)];
        check_tensors(&hosted.manifest, &cut.tensors, codec, described)?;
        let (writer, reader) = signs();
        hosted.signs = Some(writer);
        self.on_stage(key, StageEvent::Offered);
        Ok(reader)
    }

    /// Tensors that were accepted are here.
    pub(super) fn on_received(&mut self, received: Received) {
        if received.header.key.edge.to == ORIGIN {
            return self.on_result(received);
        }
        let Received { header, mut traces, tensors, receive_time, decode_time, .. } = received;
        let key = stage_key(header.key);
        let received_ms = self.started.elapsed().as_secs_f64() * 1000.0;
        if let Some(hosted) = self.stages.get_mut(&key) {
            let [receive_us, decode_us] =
                [receive_time, decode_time].map(|time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
            traces.push(StageTrace { stage: key.stage, receive_us, decode_us, ..StageTrace::default() });
            hosted.traces = traces;
            hosted.input = tensors;
            hosted.received_ms = received_ms;
            self.on_stage(key, StageEvent::Received);
        }
    }

    pub(super) fn on_broken(&mut self, key: DeliveryKey) {
        if key.edge.to != ORIGIN {
            self.on_stage(stage_key(key), StageEvent::Broken);
        }
    }

    /// How a delivery of ours goes on: the input of a request, or the output of a stage.
    pub(super) fn on_delivery(&mut self, key: DeliveryKey, to: NodeId, progress: Progress) {
        if let Progress::Taken(sent) = progress
            && to != self.own()
        {
            let micros = sent.transfer_time.as_micros() as f64;
            self.on_member(MemberEvent::Transferred { peer: to, bytes: sent.bytes, micros });
        }
        if key.edge.from == ORIGIN {
            return self.on_input_delivery(key, progress);
        }
        let event = match progress {
            Progress::Taken(_) => StageEvent::Taken(key.edge),
            Progress::Passed => StageEvent::Passed(key.edge),
            Progress::Refused(stage, reason) => StageEvent::Refused(key.edge, stage, reason),
            Progress::Lost => StageEvent::Lost(key.edge),
        };
        let stage = StageKey { request: key.request, attempt: key.attempt, stage: key.edge.from };
        self.on_stage(stage, event);
    }

    pub(super) fn on_ran(&mut self, key: StageKey, result: Result<Ran, WorkError>) {
        let Some(hosted) = self.stages.get_mut(&key) else { return };
        let event = match result {
            Ok(ran) => {
                let since_ms = self.started.elapsed().as_secs_f64() * 1000.0 - hosted.received_ms;
                if let Some(trace) = hosted.traces.last_mut() {
                    trace.run_us = u32::try_from(ran.ran.as_micros()).unwrap_or(u32::MAX);
                    trace.wait_us = ((since_ms * 1000.0) as u32).saturating_sub(trace.run_us);
                }
                let input = std::mem::take(&mut hosted.input);
                let cut = &hosted.manifest.cuts[usize::from(hosted.blocks().start)];
                let items = hosted.manifest.items(&cut.tensors, input.iter().map(Tensor::spec));
                let there = |tensors: &[u32]| of_these(&hosted.manifest, tensors, &input, &ran.outputs);
                let cut = &hosted.manifest.cuts[usize::from(hosted.blocks().end)];
                let output = if hosted.is_last() { Vec::new() } else { there(&cut.tensors) };
                (hosted.result, hosted.output) = (there(&hosted.results), output);
                // With an end beside it, the time is not the session's alone, and a batch takes its own.
                if hosted.blocks() == hosted.key.blocks() && items.is_none_or(|items| items == 1) {
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

    fn on_stage(&mut self, key: StageKey, event: StageEvent) {
        if let Some(hosted) = self.stages.get_mut(&key) {
            let actions = hosted.machine.handle(event);
            self.act_on_stage(key, actions);
        }
    }

    fn act_on_stage(&mut self, key: StageKey, actions: Vec<StageAction>) {
        for action in actions {
            match action {
                StageAction::Load => match self.stages.get(&key).map(|hosted| hosted.key) {
                    Some(partition) if partition.blocks().is_empty() => self.on_stage(key, StageEvent::Ready),
                    Some(partition) => self.load(partition, false),
                    None => {}
                },
                StageAction::Run => self.run_stage(key),
                StageAction::Send { to, edge } => self.send_output(key, to, edge),
                StageAction::Say(sign) => {
                    if let Some(hosted) = self.stages.get(&key) {
                        hosted.say(sign);
                    }
                }
                StageAction::Report(stage, reason) => self.report(key, stage, reason),
                StageAction::Forget => {
                    self.stages.remove(&key);
                }
            }
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
            input: hosted.input.clone(),
        };
        let running = self.beside(async move { Event::Ran(key, work.run().await) });
        if let Some(hosted) = self.stages.get_mut(&key) {
            hosted.running = Some(running);
        }
    }

    fn send_output(&mut self, key: StageKey, to: NodeId, edge: Edge) {
        let now_ms = self.now_ms();
        let Some(hosted) = self.stages.get(&key) else { return };
        let delivery = DeliveryKey { request: key.request, attempt: key.attempt, edge };
        let remaining_ms = hosted.deadline_ms.saturating_sub(now_ms) as u32;
        let plan = hosted.machine.plan();
        let tensors = if edge.to == ORIGIN { &hosted.result } else { &hosted.output };
        let header = Header::of(delivery, plan.id(), remaining_ms, &hosted.traces, tensors);
        let (traces, tensors, codec) = (hosted.traces.clone(), tensors.clone(), plan.codec_of(edge));
        let frame = OutgoingFrame { header, traces, tensors, codec };
        let delivering = self.deliver(to, frame);
        if let (Some(hosted), Some(delivering)) = (self.stages.get_mut(&key), delivering) {
            hosted.delivering.push(delivering);
        }
    }

    /// Sends a frame, to another node or to this one.
    pub(super) fn deliver(&mut self, to: NodeId, frame: OutgoingFrame) -> Option<AbortHandle> {
        if to != self.own() {
            let round_trip_ms = self.member.links().round_trip_us(to).unwrap_or(0.0) / 1000.0;
            let silence = Duration::from_millis(patience_ms(round_trip_ms));
            let patience = Patience { silence, is_connected: self.member.connected().contains(&to) };
            return Some(self.parts.net.deliver(to, frame, patience).abort_handle());
        }
        let OutgoingFrame { header, traces, tensors, .. } = frame;
        let described: Vec<Descriptor> = tensors.iter().map(Descriptor::raw).collect();
        let key = header.key;
        match self.accept(to, &header, &described) {
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

    /// Turns the signs of a stage on this node into the events that a stream would give.
    fn watch_own_delivery(&self, key: DeliveryKey, mut signs: SignReader) -> AbortHandle {
        let (events, to) = (self.events.clone(), self.own());
        let tell = move |progress| Event::Net(NetEvent::Delivery { key, to, progress });
        tokio::spawn(async move {
            let _ = events.send(tell(Progress::Taken(Sent::default()))).await;
            let last = loop {
                match *signs.borrow_and_update() {
                    Sign::Passed => break Progress::Passed,
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
        if origin == self.own() {
            self.origin_failed(key.request, key.attempt, stage, reason);
            return;
        }
        let net = self.parts.net.clone();
        let request = Request::Failed { request: key.request, attempt: key.attempt, stage, reason };
        tokio::spawn(async move {
            if let Err(error) = net.ask(origin, &request, REPORT_TIMEOUT).await {
                tracing::debug!(%error, "a failure could not be reported; the deadline will tell");
            }
        });
    }
}

impl HostedStage {
    fn is_last(&self) -> bool {
        usize::from(self.index) + 1 == self.machine.plan().stages.len()
    }

    fn blocks(&self) -> Range<u16> {
        let stage = usize::from(self.index);
        self.machine.plan().stages.get(stage).map_or(0..0, |stage| stage.blocks())
    }

    /// Only the last sign is news; the others are read when it is time to show life.
    fn say(&self, sign: Sign) {
        if let Some(signs) = &self.signs {
            signs.send_if_modified(|newest| {
                *newest = sign;
                sign.is_last()
            });
        }
    }
}

fn stage_key(key: DeliveryKey) -> StageKey {
    StageKey { request: key.request, attempt: key.attempt, stage: key.edge.to }
}

/// Who sends a stage its input, and over which edge.
fn sender_of(plan: &Plan, stage: u16) -> (NodeId, Edge) {
    match stage.checked_sub(1).and_then(|before| plan.stages.get(usize::from(before))) {
        Some(before) => (before.node, Edge { from: stage - 1, to: stage }),
        None => (plan.origin, Edge { from: ORIGIN, to: stage }),
    }
}

/// Whether tensors are these of the manifest, coded as a plan says or more simply.
///
/// # Errors
/// The reason to refuse with.
pub(super) fn check_tensors(
    manifest: &Manifest,
    tensors: &[u32],
    codec: Codec,
    described: &[Descriptor],
) -> Result<(), Refusal> {
    if !manifest.are(tensors, described.iter().map(|descriptor| &descriptor.spec)) {
        return Err(Refusal::WrongTensors);
    }
    let is_named = |descriptor: &Descriptor| codec.may_become(descriptor.codec);
    if described.iter().all(is_named) { Ok(()) } else { Err(Refusal::WrongCodec) }
}

/// These tensors of the manifest, in this order: what the partition made, and what passed it by.
fn of_these(manifest: &Manifest, tensors: &[u32], input: &[Tensor], made: &[Tensor]) -> Vec<Tensor> {
    let all = || made.iter().chain(input);
    let found = |index: &u32| all().find(|tensor| manifest.is_of(*index, tensor.spec())).cloned();
    tensors.iter().filter_map(found).collect()
}

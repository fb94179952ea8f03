//! Frames that come in: the stage that each is for, and whether its tensors are wanted now.

use std::sync::Arc;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::control::{Prepare, Response};
use stormo_protocol::frame::{DeliveryKey, Descriptor, Header, ORIGIN};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::limits::DEADLINE_MS_MAX;
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::refusal::Refusal;

use super::hosted::HostedStage;
use super::hosting::PartitionKey;
use super::stages::StageKey;
use super::{Driver, held};
use crate::flow::{OriginEvent, Stage, StageEvent};
use crate::net::{Offer, Received, SignReader, Verdict, signs};

/// Stages under way at once, announced ones included.
const STAGES_MAX: usize = 2048;
/// Of these, for requests that entered at one node.
const STAGES_PER_ORIGIN_MAX: usize = STAGES_MAX / 2;
/// Ended stages and cancelled attempts that are remembered: those of some seconds at a thousand requests a second.
pub(super) const RECENT_MAX: usize = 4096;

impl Driver {
    /// A plan with a part for this node, which has something to load for it. The answer says no only.
    pub(super) fn on_prepare(&mut self, from: NodeId, prepare: Prepare) -> Response {
        if prepare.plan.origin != from {
            return Response::Refused(Refusal::BadFrame);
        }
        match self.announce(prepare) {
            Ok(()) => Response::Done,
            Err(reason) => Response::Refused(reason),
        }
    }

    /// Makes the stages of a plan that are this node's before anyone else's.
    ///
    /// # Errors
    /// The reason to refuse with.
    pub(super) fn announce(&mut self, prepare: Prepare) -> Result<(), Refusal> {
        let Prepare { request, attempt, plan, remaining_ms } = prepare;
        let own = self.own();
        let mine = (0u16..).zip(&plan.stages).filter(|(_, stage)| stage.node == own);
        let mine: Vec<u16> = mine.map(|(stage, _)| stage).collect();
        if mine.is_empty() {
            return Err(Refusal::NotMyStage);
        }
        let plan = Arc::new(EncodedPlan::of(Arc::new(plan)));
        mine.into_iter()
            .try_for_each(|stage| self.host(StageKey { request, attempt, stage }, &plan, remaining_ms))
    }

    /// Makes a stage of a plan that names this node among its hosts, unless it is there.
    fn host(&mut self, key: StageKey, encoded: &Arc<EncodedPlan>, remaining_ms: u32) -> Result<(), Refusal> {
        if self.stages.contains_key(&key) {
            return Ok(());
        }
        let plan = encoded.plan();
        // A late copy of an input begins nothing anew.
        if self.ended.get(&key).is_some() {
            return Err(Refusal::Duplicate);
        }
        if self.cancelled.get(&(key.request, key.attempt, plan.origin)).is_some() {
            return Err(Refusal::Cancelled);
        }
        let own = self.own();
        if let Some(reason) = self.refuses_work().filter(|_| plan.origin != own) {
            return Err(reason);
        }
        let of_origin = self.stages.values().filter(|hosted| hosted.machine.plan().origin == plan.origin);
        if self.stages.len() >= STAGES_MAX || of_origin.count() >= STAGES_PER_ORIGIN_MAX {
            return Err(Refusal::Overloaded);
        }
        let manifest = self.manifests.get(&plan.variant).cloned().ok_or(Refusal::UnknownDeployment)?;
        let covered = plan.check().map_err(|_| Refusal::BadFrame)?;
        if !manifest.is_whole(&covered) {
            return Err(Refusal::BadFrame);
        }
        let stage = plan.stages.get(usize::from(key.stage)).ok_or(Refusal::NotMyStage)?;
        let host = stage.host_index(own).ok_or(Refusal::NotMyStage)?;
        let ways = manifest.ways(plan, key.stage).ok_or(Refusal::BadFrame)?;
        let [inputs, outputs] = [&ways.inputs, &ways.outputs].map(|ways| ways.iter().map(|way| way.other));
        let announced = Stage::announced(plan.clone(), key.stage, inputs, outputs);
        let (mut machine, actions) = announced.ok_or(Refusal::NotMyStage)?;
        self.tell_of_moved_joins(&mut machine, key);
        let graph = manifest.graph_part(stage.blocks());
        let partition = PartitionKey { variant: plan.variant, first: graph.start, end: graph.end };
        let deadline_ms = self.now_ms() + u64::from(remaining_ms.min(DEADLINE_MS_MAX));
        let place = (key.stage, host as u16);
        let hosted = HostedStage::of(machine, encoded.clone(), place, partition, manifest, ways, deadline_ms);
        self.stages.insert(key, hosted);
        self.act_on_stage(key, actions);
        Ok(())
    }

    /// Somebody offers tensors: a frame for a stage here, or the result of a request that entered here.
    pub(super) fn on_offered(&mut self, offer: Offer) {
        let Offer { from, header, plan, described, whole, verdict } = offer;
        match self.accept(from, &header, plan.as_ref(), &described) {
            Ok(signs) => {
                // The run first: whoever shows life has time.
                if let Some(received) = whole {
                    self.on_received(received);
                }
                // The sender may have gone; the stage then waits for another one or its deadline.
                let _ = verdict.send(Verdict::Take(signs));
            }
            Err(reason) => {
                let _ = verdict.send(Verdict::Refuse(reason));
            }
        }
    }

    /// Whether these tensors, from there, are wanted now.
    ///
    /// # Errors
    /// The reason to refuse with.
    pub(super) fn accept(
        &mut self,
        from: NodeId,
        header: &Header,
        plan: Option<&Arc<EncodedPlan>>,
        described: &[Descriptor],
    ) -> Result<SignReader, Refusal> {
        if header.key.edge.to == ORIGIN {
            return self.accept_result(from, header, described);
        }
        let key = stage_key(header.key);
        if let Some(plan) = plan {
            if !plan.plan().is_sent_by(header.key.edge, from) {
                return Err(Refusal::NotMyStage);
            }
            self.host(key, plan, header.remaining_ms)?;
        }
        let hosted = self.stages.get_mut(&key).ok_or(Refusal::UnknownPlan)?;
        let plan = hosted.machine.plan();
        if header.plan != hosted.plan.id() || !plan.is_sent_by(header.key.edge, from) {
            return Err(Refusal::NotMyStage);
        }
        let codec = plan.codec_of(header.key.edge);
        let from_stage = header.key.edge.from;
        hosted.machine.may_arrive(from_stage)?;
        let tensors = hosted.ways.from(from_stage).ok_or(Refusal::NotMyStage)?;
        check_tensors(&hosted.manifest, tensors, codec, described)?;
        if hosted.is_join() {
            self.may_join(key, from_stage, described)?;
        }
        let bytes = held::described_bytes(described);
        self.may_hold(key, bytes)?;
        let (writer, reader) = signs();
        if let Some(hosted) = self.stages.get_mut(&key) {
            hosted.heard_by(writer);
            hosted.awaits(from_stage, bytes);
        }
        self.on_stage(key, StageEvent::Offered(from_stage));
        Ok(reader)
    }

    /// Whether a stage here may take in so many bytes beside what all of them hold.
    ///
    /// # Errors
    /// The reason to refuse with.
    fn may_hold(&self, key: StageKey, bytes: u64) -> Result<(), Refusal> {
        let hosted = self.stages.get(&key).ok_or(Refusal::UnknownPlan)?;
        let held = self.stages.values().map(|hosted| (hosted.machine.plan().origin, hosted.held_bytes()));
        let bytes_max = held::bytes_max(self.parts.memory_budget_bytes);
        let fits = held::fits(held, (hosted.machine.plan().origin, bytes), bytes_max);
        if fits { Ok(()) } else { Err(Refusal::Overloaded) }
    }

    /// Tensors that were accepted are here.
    pub(super) fn on_received(&mut self, received: Received) {
        if received.header.key.edge.to == ORIGIN {
            return self.on_result(received);
        }
        let key = stage_key(received.header.key);
        let from = received.header.key.edge.from;
        if let Some(hosted) = self.stages.get_mut(&key).filter(|hosted| hosted.machine.is_waiting_for(from)) {
            hosted.take_in(received);
            self.on_stage(key, StageEvent::Received(from));
        }
    }

    pub(super) fn on_broken(&mut self, key: DeliveryKey) {
        if key.edge.to != ORIGIN {
            if let Some(hosted) = self.stages.get_mut(&stage_key(key)) {
                hosted.awaits(key.edge.from, 0);
            }
            self.on_stage(stage_key(key), StageEvent::Broken(key.edge.from));
        }
    }

    /// A host of a request that entered here fell silent; plans leave it out for now.
    pub(super) fn on_told_lost(
        &mut self,
        from: NodeId,
        request: RequestId,
        attempt: u16,
        node: NodeId,
    ) -> Response {
        if !self.take_part(request, attempt, &[from, node]) {
            return Response::Refused(Refusal::NotWaiting);
        }
        self.accuse(node);
        self.on_origin(request, OriginEvent::HostLost { attempt });
        Response::Done
    }
}

fn stage_key(key: DeliveryKey) -> StageKey {
    StageKey { request: key.request, attempt: key.attempt, stage: key.edge.to }
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

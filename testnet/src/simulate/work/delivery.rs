//! Frames on their way: the sender's watch over the receiver's signs of life, and the receiver's verdicts.

use std::sync::Arc;

use stormo::flow::{OriginEvent, StageEvent, patience_ms};
use stormo_protocol::control::{Request, Response};
use stormo_protocol::frame::{DeliveryKey, HEADER_BYTES, ORIGIN, SIGN_BYTES, Sign};
use stormo_protocol::plan::{EncodedPlan, Plan};
use stormo_protocol::refusal::Refusal;

use super::stage::StageKey;
use super::{CUT_BYTES, Local, WorkMessage};
use crate::simulate::pipes::HostIndex;
use crate::simulate::wire;
use crate::simulate::world::World;

/// Signs of life come this often, microseconds.
const SIGN_US: u64 = 100_000;
/// One descriptor of a tensor with four dimensions and a name.
const DESCRIPTOR_BYTES: u64 = 60;
/// Between two rooms of one host, microseconds.
const HERE_US: u64 = 10;

/// A frame that this host sends.
#[derive(Debug)]
pub(super) struct Delivery {
    heard_us: u64,
    patience_us: u64,
}

/// A frame that this host receives, from its acceptance to its last sign.
#[derive(Debug)]
pub(super) struct Incoming {
    sign: Sign,
    here: bool,
}

/// Bytes of the tensors on an edge.
fn payload_bytes(key: DeliveryKey) -> u64 {
    let place = if key.edge.to == ORIGIN { CUT_BYTES.len() - 1 } else { usize::from(key.edge.to) };
    CUT_BYTES[place.min(CUT_BYTES.len() - 1)]
}

/// Bytes of a message about requests on its connection.
pub(super) fn bytes_of(message: &WorkMessage) -> u64 {
    let asked = |request: Request| wire::asked(request.to_bytes().len() as u64);
    match message {
        WorkMessage::Prepare(prepare) => asked(Request::Prepare(prepare.as_ref().clone())),
        WorkMessage::Prepared(_, _, told) => {
            let answer = told.map_or_else(Response::Refused, |()| Response::Done);
            wire::asked(answer.to_bytes().len() as u64)
        }
        WorkMessage::Failed(request, attempt, stage, reason) => {
            asked(Request::Failed { request: *request, attempt: *attempt, stage: *stage, reason: *reason })
        }
        WorkMessage::Cancel(request, attempt) => {
            asked(Request::Cancel { request: *request, attempt: *attempt })
        }
        WorkMessage::JoinFailed(request, attempt, stage, host, reason) => asked(Request::JoinFailed {
            request: *request,
            attempt: *attempt,
            stage: *stage,
            host: *host,
            reason: *reason,
        }),
        WorkMessage::Rejoin(request, attempt, stage, host) => {
            asked(Request::Rejoin { request: *request, attempt: *attempt, stage: *stage, host: *host })
        }
        WorkMessage::Offer(key, plan, _) => {
            let plan_bytes =
                if key.edge.to == ORIGIN { 0 } else { EncodedPlan::of(plan.clone()).bytes().len() as u64 };
            wire::framed(HEADER_BYTES as u64 + plan_bytes + DESCRIPTOR_BYTES)
        }
        WorkMessage::Body(key) => wire::framed(payload_bytes(*key)),
        WorkMessage::Sign(..) => wire::framed(SIGN_BYTES as u64),
        WorkMessage::Broken(_) => wire::framed(0),
    }
}

fn stage_key(key: DeliveryKey) -> StageKey {
    StageKey { request: key.request, attempt: key.attempt, stage: key.edge.to }
}

fn sending_stage(key: DeliveryKey) -> StageKey {
    StageKey { stage: key.edge.from, ..stage_key(key) }
}

impl World {
    /// Sends a frame, to another host or to a stage here.
    pub(super) fn deliver(
        &mut self,
        now_us: u64,
        own: HostIndex,
        to: HostIndex,
        key: DeliveryKey,
        plan: &Arc<Plan>,
        remaining_ms: u32,
    ) {
        let peer = self.host_of(to).id;
        let round_trip_ms = self.host_of(own).member.links().round_trip_us(peer).unwrap_or(0.0) / 1_000.0;
        let patience_us = patience_ms(round_trip_ms) * 1_000;
        self.work_of(own).deliveries.insert((key, to), Delivery { heard_us: now_us, patience_us });
        if to == own {
            return self.deliver_here(now_us, own, key, plan, remaining_ms);
        }
        if self.say(now_us, own, to, WorkMessage::Offer(key, plan.clone(), remaining_ms)) {
            self.say(now_us, own, to, WorkMessage::Body(key));
            self.later(now_us + patience_us, own, Local::Watch(key, to));
        } else {
            self.later(now_us + HERE_US, own, Local::Lost(key, to));
        }
    }

    fn deliver_here(
        &mut self,
        now_us: u64,
        own: HostIndex,
        key: DeliveryKey,
        plan: &Arc<Plan>,
        remaining_ms: u32,
    ) {
        match self.accept(now_us, own, own, key, plan, remaining_ms) {
            Ok(()) => self.body(now_us, own, own, key),
            Err(reason) => {
                let refused = Sign::Refused { stage: key.edge.to, reason };
                self.later(now_us + HERE_US, own, Local::Sign(key, refused));
            }
        }
    }

    pub(super) fn watch(&mut self, now_us: u64, own: HostIndex, key: DeliveryKey, to: HostIndex) {
        let Some(delivery) = self.work_of(own).deliveries.get(&(key, to)) else { return };
        let until_us = delivery.heard_us + delivery.patience_us;
        if now_us >= until_us {
            self.delivery_lost(now_us, own, key, to);
        } else {
            self.later(until_us, own, Local::Watch(key, to));
        }
    }

    /// The receiver of a frame shows life, or ends it.
    pub(super) fn signed(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        key: DeliveryKey,
        sign: Sign,
    ) {
        let work = self.work_of(own);
        let Some(delivery) = work.deliveries.get_mut(&(key, from)) else { return };
        delivery.heard_us = now_us;
        if sign.is_last() {
            work.deliveries.remove(&(key, from));
        }
        if key.edge.from == ORIGIN {
            match sign {
                Sign::Passed => {
                    let passed = OriginEvent::InputPassed { attempt: key.attempt, stage: key.edge.to };
                    self.on_origin(now_us, own, key.request, passed);
                }
                Sign::Refused { stage, reason } if stage == key.edge.to => {
                    let to = self.host_of(from).id;
                    let failed = OriginEvent::InputFailed { attempt: key.attempt, stage, to, reason };
                    self.on_origin(now_us, own, key.request, failed);
                }
                Sign::Refused { stage, reason } => {
                    self.origin_failed(now_us, own, key.request, key.attempt, stage, reason);
                }
                _ => {}
            }
            return;
        }
        let node = self.host_of(from).id;
        let event = match sign {
            // Said once the tensors are there.
            Sign::Queued(_) | Sign::Waiting(_) | Sign::Working | Sign::Sending => {
                StageEvent::Taken(key.edge, node)
            }
            Sign::Passed => StageEvent::Passed(key.edge, node),
            Sign::Refused { stage, reason } => StageEvent::Refused(key.edge, node, stage, reason),
            Sign::Receiving(_) | Sign::Taken(_) => return,
        };
        self.on_stage(now_us, own, sending_stage(key), event);
    }

    pub(super) fn delivery_lost(&mut self, now_us: u64, own: HostIndex, key: DeliveryKey, to: HostIndex) {
        if self.work_of(own).deliveries.remove(&(key, to)).is_none() {
            return;
        }
        if key.edge.from == ORIGIN {
            let (attempt, stage, reason) = (key.attempt, key.edge.to, Refusal::SuccessorLost);
            let failed = OriginEvent::InputFailed { attempt, stage, to: self.host_of(to).id, reason };
            self.on_origin(now_us, own, key.request, failed);
        } else {
            let node = self.host_of(to).id;
            self.on_stage(now_us, own, sending_stage(key), StageEvent::Lost(key.edge, node));
        }
    }

    /// The head of a frame is here.
    pub(super) fn offered(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        key: DeliveryKey,
        plan: &Arc<Plan>,
        remaining_ms: u32,
    ) {
        match self.accept(now_us, own, from, key, plan, remaining_ms) {
            Ok(()) => self.later(now_us + SIGN_US, own, Local::SignDue(key, from)),
            Err(reason) => {
                let refused = Sign::Refused { stage: key.edge.to, reason };
                self.say(now_us, own, from, WorkMessage::Sign(key, refused));
            }
        }
    }

    /// Whether a frame from there is wanted now.
    fn accept(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        key: DeliveryKey,
        plan: &Arc<Plan>,
        remaining_ms: u32,
    ) -> Result<(), Refusal> {
        let sender = self.host_of(from).id;
        let incoming = Incoming { sign: Sign::Receiving(0), here: false };
        let work = self.work_of(own);
        if key.edge.to == ORIGIN {
            let pending = work.origins.get_mut(&key.request).ok_or(Refusal::NotWaiting)?;
            let known = pending.plan_of(key.attempt).ok_or(Refusal::NotWaiting)?;
            let stage = known.stages.get(usize::from(key.edge.from)).ok_or(Refusal::NotMyStage)?;
            if stage.host_index(sender).is_none() || known.id() != plan.id() {
                return Err(Refusal::NotMyStage);
            }
            if pending.arrived.contains(&(key.attempt, key.edge.from)) {
                return Err(Refusal::Duplicate);
            }
            pending.begun.insert((key.attempt, key.edge.from));
            work.incoming.insert((key, from), incoming);
            return Ok(());
        }
        if !plan.is_sent_by(key.edge, sender) {
            return Err(Refusal::NotMyStage);
        }
        self.host_stage(now_us, own, stage_key(key), plan, remaining_ms)?;
        let work = self.work_of(own);
        let hosted = work.stages.get(&stage_key(key)).ok_or(Refusal::UnknownPlan)?;
        if hosted.machine.plan().id() != plan.id() {
            return Err(Refusal::NotMyStage);
        }
        hosted.machine.may_arrive(key.edge.from)?;
        work.incoming.insert((key, from), incoming);
        self.on_stage(now_us, own, stage_key(key), StageEvent::Offered(key.edge.from));
        Ok(())
    }

    /// The payload of a frame is here.
    pub(super) fn body(&mut self, now_us: u64, own: HostIndex, from: HostIndex, key: DeliveryKey) {
        let Some(incoming) = self.work_of(own).incoming.get_mut(&(key, from)) else { return };
        incoming.here = true;
        if key.edge.to != ORIGIN {
            return self.on_stage(now_us, own, stage_key(key), StageEvent::Received(key.edge.from));
        }
        let part = (key.attempt, key.edge.from);
        let pending = self.work_of(own).origins.get_mut(&key.request);
        let complete = pending.is_some_and(|pending| {
            pending.begun.contains(&part) && pending.arrived.insert(part) && pending.is_complete(key.attempt)
        });
        self.say_of_input(now_us, own, key, Sign::Passed);
        if complete {
            self.on_origin(now_us, own, key.request, OriginEvent::Result(key.attempt));
        }
    }

    /// A sign to a sender, here or elsewhere.
    fn tell(&mut self, now_us: u64, own: HostIndex, to: HostIndex, key: DeliveryKey, sign: Sign) {
        if to == own {
            self.later(now_us + HERE_US, own, Local::Sign(key, sign));
        } else {
            self.say(now_us, own, to, WorkMessage::Sign(key, sign));
        }
    }

    /// Who sends a frame, or copies of it.
    fn senders_of(&self, own: HostIndex, key: DeliveryKey) -> Vec<HostIndex> {
        let incoming = &self.work.hosts[usize::from(own)].incoming;
        incoming.range((key, 0)..=(key, HostIndex::MAX)).map(|((_, from), _)| *from).collect()
    }

    /// The newest sign of a stage; the last one is told at once, others when it is time to show life.
    pub(super) fn say_of_input(&mut self, now_us: u64, own: HostIndex, key: DeliveryKey, sign: Sign) {
        for from in self.senders_of(own, key) {
            let incoming = &mut self.work_of(own).incoming;
            if sign.is_last() {
                incoming.remove(&(key, from));
                self.tell(now_us, own, from, key, sign);
            } else if let Some(incoming) = incoming.get_mut(&(key, from)) {
                incoming.sign = sign;
            }
        }
    }

    /// A stage vanished without a last sign.
    pub(super) fn break_incoming(&mut self, now_us: u64, own: HostIndex, key: DeliveryKey) {
        for from in self.senders_of(own, key) {
            self.work_of(own).incoming.remove(&(key, from));
            if from == own {
                self.later(now_us + HERE_US, own, Local::Lost(key, own));
            } else {
                self.say(now_us, own, from, WorkMessage::Broken(key));
            }
        }
    }

    pub(super) fn sign_due(&mut self, now_us: u64, own: HostIndex, from: HostIndex, key: DeliveryKey) {
        let Some(incoming) = self.work_of(own).incoming.get(&(key, from)) else { return };
        // A copy that is not whole yet is no news of the work.
        let sign = if incoming.here { incoming.sign } else { Sign::Receiving(0) };
        self.say(now_us, own, from, WorkMessage::Sign(key, sign));
        self.later(now_us + SIGN_US, own, Local::SignDue(key, from));
    }

    /// A connection broke: what was sent over it is lost, what was coming breaks off.
    pub(in crate::simulate) fn work_disconnected(&mut self, now_us: u64, own: HostIndex, peer: HostIndex) {
        let work = self.work_of(own);
        let lost: Vec<DeliveryKey> =
            work.deliveries.keys().filter(|(_, to)| *to == peer).map(|(key, _)| *key).collect();
        let broken: Vec<(DeliveryKey, bool)> = work
            .incoming
            .iter()
            .filter(|((_, from), _)| *from == peer)
            .map(|((key, _), incoming)| (*key, incoming.here))
            .collect();
        for (key, here) in broken {
            self.work_of(own).incoming.remove(&(key, peer));
            if !here && key.edge.to != ORIGIN {
                self.on_stage(now_us, own, stage_key(key), StageEvent::Broken(key.edge.from));
            }
        }
        for key in lost {
            self.delivery_lost(now_us, own, key, peer);
        }
    }
}

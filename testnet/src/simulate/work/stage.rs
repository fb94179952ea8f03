//! Stages at their hosts: what `flow::Stage` decides, carried out; runs take the time that they are given.

use std::sync::Arc;

use stormo::flow::{Stage, StageAction, StageEvent};
use stormo_protocol::control::Prepare;
use stormo_protocol::frame::{DeliveryKey, Edge, ORIGIN, Sign};
use stormo_protocol::ids::RequestId;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;

use super::origin::{inputs_of, outputs_of};
use super::{Local, RUN_US, WorkMessage};
use crate::simulate::host;
use crate::simulate::pipes::HostIndex;
use crate::simulate::world::World;

/// Loading a stage that is not loaded, microseconds.
const LOAD_US: u64 = 50_000;
/// Work that waits at a host, in time, microseconds; more is refused.
const QUEUE_US_MAX: u64 = 1_000_000;

/// A stage of an attempt at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::simulate) struct StageKey {
    pub(super) request: RequestId,
    pub(super) attempt: u16,
    pub(super) stage: u16,
}

/// A stage at its host.
#[derive(Debug)]
pub(super) struct HostedStage {
    pub(super) machine: Stage,
    deadline_us: u64,
}

/// The frames that bring a stage its inputs.
fn frames_of(key: StageKey, plan: &Plan) -> Vec<DeliveryKey> {
    let frame = |from| {
        let edge = Edge { from, to: key.stage };
        DeliveryKey { request: key.request, attempt: key.attempt, edge }
    };
    inputs_of(plan, key.stage).into_iter().map(frame).collect()
}

impl World {
    /// Makes the stages of a plan that are this host's.
    pub(super) fn announce_stages(
        &mut self,
        now_us: u64,
        own: HostIndex,
        prepare: &Prepare,
    ) -> Result<(), Refusal> {
        let Prepare { request, attempt, plan, remaining_ms } = prepare;
        let id = self.host_of(own).id;
        let mine = (0u16..).zip(&plan.stages).filter(|(_, stage)| stage.node == id).map(|(stage, _)| stage);
        let mine: Vec<u16> = mine.collect();
        if mine.is_empty() {
            return Err(Refusal::NotMyStage);
        }
        let plan = Arc::new(plan.clone());
        mine.into_iter().try_for_each(|stage| {
            let key = StageKey { request: *request, attempt: *attempt, stage };
            self.host_stage(now_us, own, key, &plan, *remaining_ms)
        })
    }

    /// Makes a stage of a plan that names this host, unless it is there.
    pub(super) fn host_stage(
        &mut self,
        now_us: u64,
        own: HostIndex,
        key: StageKey,
        plan: &Arc<Plan>,
        remaining_ms: u32,
    ) -> Result<(), Refusal> {
        let id = self.host_of(own).id;
        let work = self.work_of(own);
        if work.stages.contains_key(&key) {
            return Ok(());
        }
        if work.ended.contains(&key) || work.ended.contains(&StageKey { stage: ORIGIN, ..key }) {
            return Err(Refusal::Duplicate);
        }
        let stage = plan.stages.get(usize::from(key.stage)).ok_or(Refusal::NotMyStage)?;
        stage.host_index(id).ok_or(Refusal::NotMyStage)?;
        let (inputs, outputs) = (inputs_of(plan, key.stage), outputs_of(key.request, plan, key.stage));
        let announced = Stage::announced(plan.clone(), key.stage, inputs, outputs);
        let (mut machine, actions) = announced.ok_or(Refusal::NotMyStage)?;
        let joins = (key.request, key.attempt, 0)..=(key.request, key.attempt, u16::MAX);
        for ((.., join), host) in work.rejoined.range(joins) {
            machine.handle(StageEvent::Rejoin { stage: *join, host: *host });
        }
        let deadline_us = now_us + u64::from(remaining_ms) * 1_000;
        work.stages.insert(key, HostedStage { machine, deadline_us });
        self.act_on_stage(now_us, own, key, actions);
        Ok(())
    }

    pub(super) fn on_stage(&mut self, now_us: u64, own: HostIndex, key: StageKey, event: StageEvent) {
        if let Some(hosted) = self.work_of(own).stages.get_mut(&key) {
            let actions = hosted.machine.handle(event);
            self.act_on_stage(now_us, own, key, actions);
        }
    }

    fn act_on_stage(&mut self, now_us: u64, own: HostIndex, key: StageKey, actions: Vec<StageAction>) {
        for action in actions {
            match action {
                StageAction::Load => self.load(now_us, own, key),
                StageAction::Run => self.run_stage(now_us, own, key),
                StageAction::Send { to, edge } => {
                    let Some(hosted) = self.work_of(own).stages.get(&key) else { continue };
                    let plan = hosted.machine.plan().clone();
                    let remaining_ms = (hosted.deadline_us.saturating_sub(now_us) / 1_000) as u32;
                    let delivery = DeliveryKey { request: key.request, attempt: key.attempt, edge };
                    self.deliver(now_us, own, host::index_of(to), delivery, &plan, remaining_ms);
                }
                StageAction::Say(sign) => self.say_of_inputs(now_us, own, key, sign),
                StageAction::Report(stage, reason) => self.report(now_us, own, key, stage, reason),
                StageAction::ReportJoin { stage, host, reason } => {
                    self.report_join(now_us, own, key, (stage, host), reason);
                }
                // The simulated origin plans by its view alone.
                StageAction::Suspect(_) => {}
                StageAction::Done => {
                    self.work_of(own).ended.insert(key);
                    self.forget_stage(now_us, own, key);
                }
                StageAction::Forget => self.forget_stage(now_us, own, key),
            }
        }
    }

    /// Drops a stage with its deliveries. A sender that has not heard a last sign sees its stream end.
    fn forget_stage(&mut self, now_us: u64, own: HostIndex, key: StageKey) {
        let work = self.work_of(own);
        let Some(hosted) = work.stages.remove(&key) else { return };
        work.deliveries.retain(|(delivery, _), _| {
            (delivery.request, delivery.attempt, delivery.edge.from) != (key.request, key.attempt, key.stage)
        });
        for frame in frames_of(key, hosted.machine.plan()) {
            self.break_incoming(now_us, own, frame);
        }
    }

    fn load(&mut self, now_us: u64, own: HostIndex, key: StageKey) {
        let work = self.work_of(own);
        let Some(hosted) = work.stages.get(&key) else { return };
        let first = hosted.machine.plan().stages[usize::from(key.stage)].first;
        if work.loaded.contains(&first) {
            self.on_stage(now_us, own, key, StageEvent::Ready);
        } else {
            self.later(now_us + LOAD_US, own, Local::Loaded(key));
        }
    }

    fn run_stage(&mut self, now_us: u64, own: HostIndex, key: StageKey) {
        let work = self.work_of(own);
        let begins_us = work.free_us.max(now_us);
        if begins_us > now_us + QUEUE_US_MAX {
            return self.on_stage(now_us, own, key, StageEvent::RunFailed(Refusal::Overloaded));
        }
        work.free_us = begins_us + RUN_US[usize::from(key.stage) % RUN_US.len()];
        let done_us = work.free_us;
        self.later(done_us, own, Local::Ran(key));
    }

    fn report(&mut self, now_us: u64, own: HostIndex, key: StageKey, stage: u16, reason: Refusal) {
        let Some(hosted) = self.work_of(own).stages.get(&key) else { return };
        let origin = host::index_of(hosted.machine.plan().origin);
        let stage = if stage == ORIGIN { key.stage } else { stage };
        if origin == own {
            self.origin_failed(now_us, own, key.request, key.attempt, stage, reason);
        } else {
            self.say(now_us, own, origin, WorkMessage::Failed(key.request, key.attempt, stage, reason));
        }
    }

    /// Says something of a stage to all who sent it inputs.
    fn say_of_inputs(&mut self, now_us: u64, own: HostIndex, key: StageKey, sign: Sign) {
        let Some(hosted) = self.work_of(own).stages.get(&key) else { return };
        for frame in frames_of(key, hosted.machine.plan()) {
            self.say_of_input(now_us, own, frame, sign);
        }
    }

    fn report_join(
        &mut self,
        now_us: u64,
        own: HostIndex,
        key: StageKey,
        (join, at): (u16, u16),
        reason: Refusal,
    ) {
        let Some(hosted) = self.work_of(own).stages.get(&key) else { return };
        let origin = host::index_of(hosted.machine.plan().origin);
        if origin == own {
            self.join_failed(now_us, own, (key.request, key.attempt, join), at, reason);
        } else {
            let message = WorkMessage::JoinFailed(key.request, key.attempt, join, at, reason);
            self.say(now_us, own, origin, message);
        }
    }

    /// The origin moved a join: what is sent to it from here goes to this host now.
    pub(super) fn rejoined(
        &mut self,
        now_us: u64,
        own: HostIndex,
        (request, attempt, join): (RequestId, u16, u16),
        at: u16,
    ) {
        let work = self.work_of(own);
        let known = work.rejoined.entry((request, attempt, join)).or_default();
        *known = at.max(*known);
        let stages = work.stages.keys().filter(|key| (key.request, key.attempt) == (request, attempt));
        for key in stages.copied().collect::<Vec<_>>() {
            self.on_stage(now_us, own, key, StageEvent::Rejoin { stage: join, host: at });
        }
    }

    /// The origin no longer wants an attempt.
    pub(super) fn cancelled(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        request: RequestId,
        attempt: u16,
    ) {
        let origin = self.host_of(from).id;
        let of_it = self.work_of(own).stages.iter().filter(|(key, hosted)| {
            (key.request, key.attempt) == (request, attempt) && hosted.machine.plan().origin == origin
        });
        let of_it: Vec<StageKey> = of_it.map(|(key, _)| *key).collect();
        self.work_of(own).ended.insert(StageKey { request, attempt, stage: ORIGIN });
        self.drop_stages(now_us, own, of_it, Refusal::Cancelled);
    }

    pub(super) fn expire_stages(&mut self, now_us: u64, own: HostIndex) {
        let over = self.work_of(own).stages.iter().filter(|(_, hosted)| hosted.deadline_us <= now_us);
        let over: Vec<StageKey> = over.map(|(key, _)| *key).collect();
        self.drop_stages(now_us, own, over, Refusal::DeadlinePassed);
    }

    fn drop_stages(&mut self, now_us: u64, own: HostIndex, stages: Vec<StageKey>, reason: Refusal) {
        for key in stages {
            self.say_of_inputs(now_us, own, key, Sign::Refused { stage: key.stage, reason });
            self.forget_stage(now_us, own, key);
        }
    }
}

//! Requests at the host where they entered: what `flow::Origin` decides, carried out.

use std::collections::BTreeSet;
use std::sync::Arc;

use stormo::flow::{Origin, OriginAction, OriginEvent};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::control::Prepare;
use stormo_protocol::frame::{DeliveryKey, Edge, ORIGIN};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::refusal::Refusal;

use super::{Local, RUN_US, TICK_US, TIMEOUT_US, WorkEvent, WorkMessage, is_possible, variant};
use crate::simulate::host;
use crate::simulate::pipes::HostIndex;
use crate::simulate::world::{What, World};

/// Planning takes this long, microseconds.
const PLANNING_US: u64 = 1_000;
/// Backups of each stage, as far as there are others.
const BACKUPS: usize = 2;
/// One of so many requests announces its plan, as if its hosts had something to load.
const ANNOUNCED_EVERY: u8 = 8;
/// Announcing a plan is given up after this, microseconds.
const PREPARE_US_MAX: u64 = 5_000_000;
/// A request may end so much after its deadline, microseconds: one look at the deadlines, and a pause of its host.
const LATE_US_MAX: u64 = TICK_US + 1_700_000;

/// A request that entered at a host.
#[derive(Debug)]
pub(super) struct Pending {
    machine: Origin,
    request: RequestId,
    pub(super) number: usize,
    asked_us: u64,
    deadline_us: u64,
    tried: Vec<Arc<Plan>>,
    /// Parts of the result on their way, and those that are here: by attempt and stage.
    pub(super) begun: BTreeSet<(u16, u16)>,
    pub(super) arrived: BTreeSet<(u16, u16)>,
}

impl Pending {
    pub(super) fn plan_of(&self, attempt: u16) -> Option<&Arc<Plan>> {
        self.tried.get(usize::from(attempt.checked_sub(1)?))
    }

    pub(super) fn is_complete(&self, attempt: u16) -> bool {
        let Some(plan) = self.plan_of(attempt) else { return false };
        let gives = |stage: &u16| outputs_of(self.request, plan, *stage).contains(&ORIGIN);
        (0..plan.stages.len() as u16).filter(gives).all(|stage| self.arrived.contains(&(attempt, stage)))
    }
}

/// Whether the first stage of a request has an early output, so that all hosts know it alike.
fn has_early(request: RequestId) -> bool {
    request.0[0].is_multiple_of(2)
}

/// The first of two stages that are branches; the origin, or the stage before, forks, and the stage behind, or the
/// origin, joins. One of four requests has a plan with a fork.
fn first_branch(request: RequestId) -> Option<usize> {
    let is_forked = request.0[0] % 8 / 2 == 1;
    is_forked.then_some(usize::from(request.0[0].is_multiple_of(2)))
}

/// Where the inputs of a stage come from.
pub(super) fn inputs_of(plan: &Plan, stage: u16) -> Vec<u16> {
    let before = plan.before(stage);
    if plan.is_join(stage) { plan.beside(before).collect() } else { vec![before] }
}

/// Where the outputs of a stage, or of the origin, go.
pub(super) fn outputs_of(request: RequestId, plan: &Plan, stage: u16) -> Vec<u16> {
    let next = if stage == ORIGIN { 0 } else { plan.behind(stage) };
    let early = (stage == 0 && next != ORIGIN && has_early(request)).then_some(ORIGIN);
    let next = if next == ORIGIN { next..=next } else { plan.beside(next).start..=plan.beside(next).end - 1 };
    next.chain(early).collect()
}

impl World {
    /// A request enters at any host that lives, and the next one is on its way.
    pub(super) fn ask(&mut self, now_us: u64) {
        let Some(between_us) = self.work.between_us else { return };
        let next_us = now_us + (-(1.0 - self.work.random.unit()).ln() * between_us) as u64;
        if next_us < self.work.until_us {
            self.queue.push(next_us, What::Work(Box::new(WorkEvent::Ask)));
        }
        let own = (self.work.random.bits() % self.hosts.len() as u64) as HostIndex;
        if !self.host_of(own).alive || self.host_of(own).paused_until_us > now_us {
            return;
        }
        self.work.asked += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.work.asked.to_le_bytes());
        id[8..].copy_from_slice(&self.work.random.bits().to_le_bytes());
        let request = RequestId(id);
        let pending = Pending {
            machine: Origin::new(false),
            request,
            number: self.work.ends.asked(),
            asked_us: now_us,
            deadline_us: now_us + TIMEOUT_US,
            tried: Vec::new(),
            begun: BTreeSet::new(),
            arrived: BTreeSet::new(),
        };
        self.work_of(own).origins.insert(request, pending);
        self.plan(now_us, own, request, &[]);
    }

    /// Any usable host for each stage, as the origin sees the mesh.
    fn plan(&mut self, now_us: u64, own: HostIndex, request: RequestId, without: &[NodeId]) {
        let host = &self.hosts[usize::from(own)];
        let (view, clock_ms) = (host.member.view(), host.clock_ms(now_us));
        let mut stages = Vec::new();
        for first in 0..RUN_US.len() as u16 {
            let others = view.iter().filter(|known| {
                let has = known
                    .record
                    .hosted
                    .iter()
                    .any(|hosted| hosted.variant == variant() && hosted.first == first);
                has && view.is_usable(clock_ms, known.record.node)
            });
            let mut able: Vec<NodeId> = others.map(|known| known.record.node).collect();
            able.extend(self.work.hosts[usize::from(own)].loaded.contains(&first).then_some(host.id));
            able.retain(|node| !without.contains(node));
            if able.is_empty() {
                let why = format!("no usable host has stage {first}");
                return self.later(
                    now_us + PLANNING_US,
                    own,
                    Local::Origin(request, OriginEvent::NoPlan(why)),
                );
            }
            let chosen = (self.work.random.bits() % able.len() as u64) as usize;
            able.rotate_left(chosen);
            let node = able[0];
            let backups = able.into_iter().skip(1).take(BACKUPS).collect();
            let turn = first_branch(request).and_then(|branch| usize::from(first).checked_sub(branch));
            let branch = turn.filter(|turn| *turn < 2).map(|turn| turn as u16);
            stages.push(Stage { node, first, end: first + 1, codec: Codec::Raw, backups, branch });
        }
        let plan = Plan { variant: variant(), origin: host.id, stages, result_codec: Codec::Raw };
        self.later(now_us + PLANNING_US, own, Local::Origin(request, OriginEvent::Planned(plan)));
    }

    pub(super) fn on_origin(&mut self, now_us: u64, own: HostIndex, request: RequestId, event: OriginEvent) {
        let Some(pending) = self.work_of(own).origins.get_mut(&request) else { return };
        for action in pending.machine.handle(event) {
            match action {
                OriginAction::Begin { attempt, plan } => self.begin(now_us, own, request, attempt, plan),
                OriginAction::Send { attempt, stage, to } => {
                    self.send_input(now_us, own, (request, attempt, stage), to);
                }
                OriginAction::Rejoin { attempt, stage, host } => {
                    self.rejoin(now_us, own, (request, attempt, stage), host);
                }
                OriginAction::Plan { without, after_ms } => {
                    self.plan(now_us + after_ms * 1_000, own, request, &without);
                }
                OriginAction::Cancel { attempt, plan } => self.cancel(now_us, own, request, attempt, &plan),
                OriginAction::Answer { attempt } => self.end(now_us, own, request, Some(attempt)),
                OriginAction::Fail(_) => self.end(now_us, own, request, None),
            }
        }
    }

    fn begin(&mut self, now_us: u64, own: HostIndex, request: RequestId, attempt: u16, plan: Plan) {
        let Some(pending) = self.work_of(own).origins.get_mut(&request) else { return };
        let plan = Arc::new(plan);
        pending.tried.push(plan.clone());
        let remaining_ms = (pending.deadline_us.saturating_sub(now_us) / 1_000) as u32;
        if request.0[0].is_multiple_of(ANNOUNCED_EVERY) {
            let prepare = Arc::new(Prepare { request, attempt, plan: Plan::clone(&plan), remaining_ms });
            if let Err((stage, reason)) = self.announce(now_us, own, &prepare) {
                return self.origin_failed(now_us, own, request, attempt, stage, reason);
            }
        }
        for stage in outputs_of(request, &plan, ORIGIN) {
            let to = plan.stages[usize::from(stage)].node;
            self.send_input(now_us, own, (request, attempt, stage), to);
        }
    }

    fn announce(
        &mut self,
        now_us: u64,
        own: HostIndex,
        prepare: &Arc<Prepare>,
    ) -> Result<(), (u16, Refusal)> {
        let Prepare { request, attempt, plan, .. } = prepare.as_ref();
        let hosts: BTreeSet<NodeId> = plan.stages.iter().map(|stage| stage.node).collect();
        for node in hosts {
            let (to, stage) = (host::index_of(node), stage_on(plan, node));
            if to == own {
                self.announce_stages(now_us, own, prepare).map_err(|reason| (stage, reason))?;
            } else {
                let said = self.say(now_us, own, to, WorkMessage::Prepare(prepare.clone()));
                let late_us = now_us + if said { PREPARE_US_MAX } else { PLANNING_US };
                self.later(late_us, own, Local::PrepareLate(*request, *attempt, stage, to));
            }
        }
        Ok(())
    }

    fn send_input(
        &mut self,
        now_us: u64,
        own: HostIndex,
        (request, attempt, stage): (RequestId, u16, u16),
        to: NodeId,
    ) {
        let Some(pending) = self.work_of(own).origins.get(&request) else { return };
        let Some(plan) = pending.plan_of(attempt).cloned() else { return };
        if !outputs_of(request, &plan, ORIGIN).contains(&stage) {
            return;
        }
        let remaining_ms = (pending.deadline_us.saturating_sub(now_us) / 1_000) as u32;
        let key = DeliveryKey { request, attempt, edge: Edge { from: ORIGIN, to: stage } };
        self.deliver(now_us, own, host::index_of(to), key, &plan, remaining_ms);
    }

    /// A host could not be told of a plan, or refused: whoever sends it its input hears the same, and turns to a
    /// backup.
    pub(super) fn not_prepared(
        &mut self,
        now_us: u64,
        own: HostIndex,
        (request, attempt, stage): (RequestId, u16, u16),
        reason: Refusal,
    ) {
        let plan = self.work_of(own).origins.get(&request).and_then(|pending| pending.plan_of(attempt));
        let stage_of = plan.and_then(|plan| plan.stages.get(usize::from(stage)));
        if stage_of.is_some_and(|stage| stage.backups.is_empty()) {
            self.origin_failed(now_us, own, request, attempt, stage, reason);
        }
    }

    pub(super) fn prepared(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        request: RequestId,
        attempt: u16,
        told: Result<(), Refusal>,
    ) {
        let work = self.work_of(own);
        let Some(plan) = work.origins.get(&request).and_then(|pending| pending.plan_of(attempt)).cloned()
        else {
            return;
        };
        work.prepared.insert((request, attempt, from));
        if let Err(reason) = told {
            let stage = stage_on(&plan, self.host_of(from).id);
            self.not_prepared(now_us, own, (request, attempt, stage), reason);
        }
    }

    fn cancel(&mut self, now_us: u64, own: HostIndex, request: RequestId, attempt: u16, plan: &Plan) {
        self.work_of(own)
            .deliveries
            .retain(|(key, _), _| (key.request, key.attempt, key.edge.from) != (request, attempt, ORIGIN));
        self.cancelled(now_us, own, own, request, attempt);
        let others: BTreeSet<HostIndex> =
            plan.stages.iter().flat_map(Stage::hosts).map(host::index_of).collect();
        for to in others.into_iter().filter(|to| *to != own) {
            self.say(now_us, own, to, WorkMessage::Cancel(request, attempt));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a report, and who hears it from whom when")]
    pub(super) fn reported(
        &mut self,
        now_us: u64,
        own: HostIndex,
        from: HostIndex,
        request: RequestId,
        attempt: u16,
        stage: u16,
        reason: Refusal,
    ) {
        let node = self.host_of(from).id;
        let plan = self.work_of(own).origins.get(&request).and_then(|pending| pending.plan_of(attempt));
        if plan.is_some_and(|plan| plan.stages.iter().any(|stage| stage.host_index(node).is_some())) {
            self.origin_failed(now_us, own, request, attempt, stage, reason);
        }
    }

    pub(super) fn origin_failed(
        &mut self,
        now_us: u64,
        own: HostIndex,
        request: RequestId,
        attempt: u16,
        stage: u16,
        reason: Refusal,
    ) {
        self.on_origin(now_us, own, request, OriginEvent::Failed { attempt, stage, reason });
    }

    pub(super) fn join_failed(
        &mut self,
        now_us: u64,
        own: HostIndex,
        (request, attempt, stage): (RequestId, u16, u16),
        host: u16,
        reason: Refusal,
    ) {
        self.on_origin(now_us, own, request, OriginEvent::JoinFailed { attempt, stage, host, reason });
    }

    /// Tells all who send to a join where it is. Who cannot be told may send elsewhere, so the attempt is over then.
    fn rejoin(
        &mut self,
        now_us: u64,
        own: HostIndex,
        (request, attempt, stage): (RequestId, u16, u16),
        at: u16,
    ) {
        let pending = self.work_of(own).origins.get(&request);
        let Some(plan) = pending.and_then(|pending| pending.plan_of(attempt)).cloned() else { return };
        let senders = inputs_of(&plan, stage).into_iter();
        let senders = senders.filter_map(|from| plan.stages.get(usize::from(from)));
        let told: BTreeSet<NodeId> = senders.flat_map(Stage::hosts).collect();
        for node in told {
            let to = host::index_of(node);
            if to == own {
                self.rejoined(now_us, own, (request, attempt, stage), at);
            } else if !self.say(now_us, own, to, WorkMessage::Rejoin(request, attempt, stage, at)) {
                let not_told = Local::Origin(request, OriginEvent::PeerLost(node));
                self.later(now_us + PLANNING_US, own, not_told);
            }
        }
    }

    pub(super) fn expire_origins(&mut self, now_us: u64, own: HostIndex) {
        let over = self.work_of(own).origins.iter().filter(|(_, pending)| pending.deadline_us <= now_us);
        let over: Vec<RequestId> = over.map(|(request, _)| *request).collect();
        for request in over {
            self.on_origin(now_us, own, request, OriginEvent::Deadline);
        }
    }

    fn end(&mut self, now_us: u64, own: HostIndex, request: RequestId, attempt: Option<u16>) {
        let work = self.work_of(own);
        let Some(pending) = work.origins.remove(&request) else { return };
        work.prepared.retain(|(of, ..)| *of != request);
        let number = pending.number;
        if now_us > pending.deadline_us + LATE_US_MAX {
            self.work
                .ends
                .violated(format!("request {number} ended {} us late", now_us - pending.deadline_us));
        }
        // Between two looks at the deadlines, an answer that comes too late is an error, as in the driver.
        let in_time = attempt.filter(|_| now_us <= pending.deadline_us);
        match in_time {
            Some(attempt) => {
                if !pending.is_complete(attempt) {
                    self.work.ends.violated(format!("request {number} was answered with parts missing"));
                }
                self.work.ends.answered(number, now_us - pending.asked_us, pending.machine.attempts());
            }
            None => {
                let stage = |first| Stage {
                    node: NodeId([0; 32]),
                    first,
                    end: first + 1,
                    codec: Codec::Raw,
                    backups: vec![],
                    branch: None,
                };
                let stages = (0..RUN_US.len() as u16).map(stage).collect();
                let any =
                    Plan { variant: variant(), origin: NodeId([0; 32]), stages, result_codec: Codec::Raw };
                let possible = is_possible(&self.hosts, &self.work.hosts, &any);
                self.work.ends.failed(number, possible);
            }
        }
    }
}

/// The first stage of a plan on a node.
fn stage_on(plan: &Plan, node: NodeId) -> u16 {
    plan.stages.iter().position(|stage| stage.node == node).unwrap_or(0) as u16
}

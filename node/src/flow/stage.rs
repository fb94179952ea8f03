//! A stage at its host: from the announcement of its plan to the moment its output is safe.
//!
//! ```text
//! Announced -> Arriving -> Waiting -> Running -> Sending -> Kept -> (forgotten)
//! ```
//! The host keeps its output until the next stage's own output is safe (`Passed`), and sends it to the next of that
//! stage's hosts when the one before is lost or refuses: the origin hears of it, and acts only when none is left.
//! What the model gives before its last stage goes straight to the origin, beside what goes to the next stage;
//! the stage has passed when both are there.
//!
//! A stage may be sent its input more than once, by several hosts of the stage before of which each took the other
//! for lost: the first copy that is whole is used.

use std::sync::Arc;

use stormo_protocol::frame::{Edge, ORIGIN, Sign};
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::{self, Plan};
use stormo_protocol::refusal::Refusal;

/// Copies of one input on their way at once: of a primary that may be lost, and of two backups.
const ARRIVING_MAX: u8 = 3;

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The plan is known, nothing has come.
    Announced,
    /// Tensors are coming in.
    Arriving,
    /// Tensors are here, the partition is not loaded yet.
    Waiting,
    /// The partition runs, or waits in its queue.
    Running,
    /// The output is on its way.
    Sending,
    /// All who were sent some of the output have it, but not all have passed on their own.
    Kept,
}

/// How far some of the output is on its way to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Not taken yet.
    Sent,
    /// Taken; the receiver's own output is not safe yet.
    Taken,
    /// Needed here no longer.
    Passed,
}

/// What happens to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageEvent {
    /// Its partition is loaded.
    Ready,
    /// Its partition cannot be loaded.
    NotReady(Refusal),
    /// Its input begins to arrive.
    Offered,
    /// Its input broke off.
    Broken,
    /// Its input is here.
    Received,
    /// It ran.
    Ran,
    /// It failed to run.
    RunFailed(Refusal),
    /// Who was sent some of the output over this edge has it.
    Taken(Edge),
    /// Their own output is safe.
    Passed(Edge),
    /// They, or a later stage, refused.
    Refused(Edge, u16, Refusal),
    /// They are unreachable or silent.
    Lost(Edge),
    /// They were so a moment ago, in another request; nothing was sent.
    Avoided(Edge),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageAction {
    /// Load the partition (and tell when it is ready).
    Load,
    /// Run it on the input.
    Run,
    /// Send the output.
    Send {
        /// To whom.
        to: NodeId,
        /// Over which edge.
        edge: Edge,
    },
    /// Say this upstream.
    Say(Sign),
    /// Tell the origin that no host of a stage does it.
    Report(u16, Refusal),
    /// This node fell silent; the origin is told, and another one has the output now.
    Suspect(NodeId),
    /// Nothing of it is needed any more: all that was sent is safe. No copy of its input is wanted again.
    Done,
    /// It ends here, undone; its input may come again.
    Forget,
}

/// One stage of one attempt at a request.
#[derive(Debug)]
pub struct Stage {
    plan: Arc<Plan>,
    index: u16,
    phase: Phase,
    /// Copies of the input on their way here.
    arriving: u8,
    ready: bool,
    failed: Option<Refusal>,
    next: Delivery,
    /// Which host of the next stage has the output, or is sent it.
    next_host: usize,
    /// Of the model's outputs that leave here although later stages follow, if there are some.
    early: Option<Delivery>,
}

impl Stage {
    /// A stage as announced; `has_early` if some of the model's outputs leave here although later stages
    /// follow. `None` if the plan has no such stage.
    pub fn announced(plan: Arc<Plan>, index: u16, has_early: bool) -> Option<(Self, Vec<StageAction>)> {
        plan.stages.get(usize::from(index))?;
        let is_last = usize::from(index) + 1 == plan.stages.len();
        let stage = Self {
            plan,
            index,
            phase: Phase::Announced,
            arriving: 0,
            ready: false,
            failed: None,
            next: Delivery::Sent,
            next_host: 0,
            early: (has_early && !is_last).then_some(Delivery::Sent),
        };
        Some((stage, vec![StageAction::Load]))
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Whether an input may begin to arrive, and if not, why.
    ///
    /// # Errors
    /// The reason to refuse with.
    pub fn may_arrive(&self) -> Result<(), Refusal> {
        match (self.failed, self.phase) {
            (Some(reason), _) => Err(reason),
            (None, Phase::Announced) => Ok(()),
            // Who sends the copy that is coming may be lost before it is whole.
            (None, Phase::Arriving) if self.arriving < ARRIVING_MAX => Ok(()),
            (None, _) => Err(Refusal::Duplicate),
        }
    }

    /// Whether no input is whole yet.
    pub fn is_waiting_for_input(&self) -> bool {
        self.phase == Phase::Arriving
    }

    /// The stage behind this one, if it is not the last.
    fn stage_behind(&self) -> Option<&plan::Stage> {
        self.plan.stages.get(usize::from(self.index) + 1)
    }

    /// Who is sent the output.
    fn receiver(&self) -> NodeId {
        self.stage_behind().and_then(|stage| stage.hosts().nth(self.next_host)).unwrap_or(self.plan.origin)
    }

    /// The edge that the output takes.
    fn next_edge(&self) -> Edge {
        let to = if self.stage_behind().is_some() { self.index + 1 } else { ORIGIN };
        Edge { from: self.index, to }
    }

    /// The edge that early outputs take.
    fn early_edge(&self) -> Edge {
        Edge { from: self.index, to: ORIGIN }
    }

    /// Takes an event; out of place, it changes nothing.
    pub fn handle(&mut self, event: StageEvent) -> Vec<StageAction> {
        use StageAction::{Report, Say};
        match (event, self.phase) {
            (StageEvent::Ready, phase) => {
                self.ready = true;
                if phase == Phase::Waiting { self.run() } else { vec![] }
            }
            (StageEvent::NotReady(reason), Phase::Announced) => {
                self.failed = Some(reason);
                // Who sends the input will hear it, and has others to turn to.
                if self.has_backups() { vec![] } else { vec![Report(self.index, reason)] }
            }
            (StageEvent::NotReady(reason), Phase::Arriving | Phase::Waiting) => self.refuse(reason),
            (StageEvent::Offered, Phase::Announced | Phase::Arriving) => {
                self.arriving += 1;
                self.enter(Phase::Arriving, vec![])
            }
            (StageEvent::Broken, Phase::Arriving) => {
                self.arriving = self.arriving.saturating_sub(1);
                if self.arriving == 0 {
                    self.phase = Phase::Announced;
                }
                vec![]
            }
            (StageEvent::Received, Phase::Arriving) if self.ready => self.run(),
            (StageEvent::Received, Phase::Arriving) => self.enter(Phase::Waiting, vec![Say(Sign::Queued(0))]),
            (StageEvent::Ran, Phase::Running) => self.send(),
            (StageEvent::RunFailed(reason), Phase::Running) => self.refuse(reason),
            (StageEvent::Taken(edge), Phase::Sending | Phase::Kept) => self.delivered(edge, Delivery::Taken),
            (StageEvent::Passed(edge), Phase::Sending | Phase::Kept) => {
                self.delivered(edge, Delivery::Passed)
            }
            (StageEvent::Refused(edge, stage, reason), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, stage, reason)
            }
            (StageEvent::Lost(edge), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, edge.to, Refusal::SuccessorLost)
            }
            (StageEvent::Avoided(edge), Phase::Sending | Phase::Kept) => {
                let mut actions = self.receiver_failed(edge, edge.to, Refusal::SuccessorLost);
                // That is no news.
                actions.retain(|action| !matches!(action, StageAction::Suspect(_)));
                actions
            }
            _ => vec![],
        }
    }

    fn has_backups(&self) -> bool {
        self.plan.stages.get(usize::from(self.index)).is_some_and(|stage| !stage.backups.is_empty())
    }

    fn enter(&mut self, phase: Phase, actions: Vec<StageAction>) -> Vec<StageAction> {
        self.phase = phase;
        actions
    }

    fn run(&mut self) -> Vec<StageAction> {
        self.enter(Phase::Running, vec![StageAction::Say(Sign::Working), StageAction::Run])
    }

    /// This stage will not do it. Whoever sent the input hears it and tells the origin.
    fn refuse(&mut self, reason: Refusal) -> Vec<StageAction> {
        self.failed = Some(reason);
        vec![StageAction::Say(Sign::Refused { stage: self.index, reason }), StageAction::Forget]
    }

    fn send(&mut self) -> Vec<StageAction> {
        let (to, edge) = (self.receiver(), self.next_edge());
        let mut actions = vec![StageAction::Say(Sign::Sending), StageAction::Send { to, edge }];
        if self.early.is_some() {
            actions.push(StageAction::Send { to: self.plan.origin, edge: self.early_edge() });
        }
        self.enter(Phase::Sending, actions)
    }

    /// Some of the output got further. Once all is taken, the sender of the input may let go of it.
    fn delivered(&mut self, edge: Edge, progress: Delivery) -> Vec<StageAction> {
        if edge == self.next_edge() {
            self.next = progress;
        } else if let Some(early) = self.early.as_mut().filter(|_| edge.to == ORIGIN) {
            *early = progress;
        }
        let deliveries = [Some(self.next), self.early];
        let mut deliveries = deliveries.iter().flatten();
        let mut actions = Vec::new();
        if self.phase == Phase::Sending && deliveries.clone().all(|delivery| *delivery != Delivery::Sent) {
            self.phase = Phase::Kept;
            actions.push(StageAction::Say(Sign::Passed));
        }
        if deliveries.all(|delivery| *delivery == Delivery::Passed) {
            actions.push(StageAction::Done);
        }
        actions
    }

    /// A receiver, or a stage behind it, will not. The next host of its stage is sent the output; when there is none,
    /// its sender tells the origin, once.
    fn receiver_failed(&mut self, edge: Edge, stage: u16, reason: Refusal) -> Vec<StageAction> {
        let is_own = stage == edge.to;
        if is_own && reason.is_of_the_unneeded() {
            return self.delivered(edge, Delivery::Passed);
        }
        if is_own && edge == self.next_edge() && reason.may_succeed_elsewhere() {
            let before = self.receiver();
            let count = self.stage_behind().map_or(0, |stage| stage.hosts().count());
            if self.next_host + 1 < count {
                (self.next_host, self.next) = (self.next_host + 1, Delivery::Sent);
                let lost = (reason == Refusal::SuccessorLost).then_some(StageAction::Suspect(before));
                return lost.into_iter().chain([StageAction::Send { to: self.receiver(), edge }]).collect();
            }
        }
        let mut actions = Vec::new();
        if is_own {
            actions.push(StageAction::Report(stage, reason));
        }
        if self.phase == Phase::Sending {
            actions.push(StageAction::Say(Sign::Refused { stage, reason }));
        }
        actions.push(StageAction::Forget);
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StageAction::{Done, Forget, Load, Report, Run, Say, Send};
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::ids::{DeploymentId, VariantId};

    fn plan() -> Arc<Plan> {
        let stage = |node, first, end| stormo_protocol::plan::Stage {
            node: NodeId([node; 32]),
            first,
            end,
            codec: Codec::Raw,
            backups: vec![],
        };
        Arc::new(Plan {
            variant: VariantId { deployment: DeploymentId([1; 16]), index: 0 },
            origin: NodeId([9; 32]),
            stages: vec![stage(1, 0, 2), stage(2, 2, 3)],
            result_codec: Codec::Raw,
        })
    }

    fn stage(index: u16) -> Stage {
        let (stage, actions) = Stage::announced(plan(), index, false).unwrap();
        assert_eq!(actions, vec![Load]);
        stage
    }

    #[test]
    fn the_plain_path_keeps_its_output_until_it_is_safe() {
        let mut stage = stage(0);
        assert_eq!(stage.handle(StageEvent::Ready), vec![]);
        assert_eq!(stage.may_arrive(), Ok(()));
        assert_eq!(stage.handle(StageEvent::Offered), vec![]);
        assert_eq!(stage.handle(StageEvent::Received), vec![Say(Sign::Working), Run]);
        let edge = NEXT;
        let send = Send { to: NodeId([2; 32]), edge };
        assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), send]);
        assert_eq!(stage.handle(StageEvent::Taken(edge)), vec![Say(Sign::Passed)]);
        assert_eq!(stage.handle(StageEvent::Passed(edge)), vec![Done]);
    }

    /// A stage that has run and has an early output.
    fn sending_early() -> Stage {
        let (mut stage, _) = Stage::announced(plan(), 0, true).unwrap();
        for event in [StageEvent::Ready, StageEvent::Offered, StageEvent::Received] {
            stage.handle(event);
        }
        let sends = [(NodeId([2; 32]), NEXT), (NodeId([9; 32]), EARLY)].map(|(to, edge)| Send { to, edge });
        assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), sends[0], sends[1]]);
        stage
    }

    const NEXT: Edge = Edge { from: 0, to: 1 };
    const EARLY: Edge = Edge { from: 0, to: ORIGIN };

    #[test]
    fn a_stage_with_an_early_output_passes_when_both_receivers_have_theirs() {
        for [first, second] in [[NEXT, EARLY], [EARLY, NEXT]] {
            let mut stage = sending_early();
            assert_eq!(stage.handle(StageEvent::Taken(first)), vec![]);
            assert_eq!(stage.handle(StageEvent::Passed(first)), vec![]);
            assert_eq!(stage.handle(StageEvent::Taken(second)), vec![Say(Sign::Passed)]);
            assert_eq!(stage.handle(StageEvent::Passed(second)), vec![Done]);
        }
    }

    #[test]
    fn an_early_output_that_does_not_arrive_fails_the_stage_that_made_it() {
        let mut stage = sending_early();
        stage.handle(StageEvent::Taken(NEXT));
        let refused = Sign::Refused { stage: ORIGIN, reason: Refusal::SuccessorLost };
        let expected = vec![Report(ORIGIN, Refusal::SuccessorLost), Say(refused), Forget];
        assert_eq!(stage.handle(StageEvent::Lost(EARLY)), expected);
    }

    #[test]
    fn the_last_stage_has_no_early_output() {
        let (mut stage, _) = Stage::announced(plan(), 1, true).unwrap();
        for event in [StageEvent::Ready, StageEvent::Offered, StageEvent::Received] {
            stage.handle(event);
        }
        let edge = Edge { from: 1, to: ORIGIN };
        assert_eq!(
            stage.handle(StageEvent::Ran),
            vec![Say(Sign::Sending), Send { to: NodeId([9; 32]), edge }]
        );
        assert_eq!(stage.handle(StageEvent::Taken(edge)), vec![Say(Sign::Passed)]);
    }

    /// A plan whose second stage has two backups.
    fn plan_with_backups() -> Arc<Plan> {
        let mut plan = Plan::clone(&plan());
        plan.stages[1].backups = vec![NodeId([3; 32]), NodeId([4; 32])];
        Arc::new(plan)
    }

    fn sending(plan: Arc<Plan>) -> Stage {
        let (mut stage, _) = Stage::announced(plan, 0, false).unwrap();
        for event in [StageEvent::Ready, StageEvent::Offered, StageEvent::Received, StageEvent::Ran] {
            stage.handle(event);
        }
        stage
    }

    #[test]
    fn a_lost_or_refusing_receiver_is_followed_by_its_backups() {
        let mut stage = sending(plan_with_backups());
        let to = |node| Send { to: NodeId([node; 32]), edge: NEXT };
        let lost = StageEvent::Lost(NEXT);
        assert_eq!(stage.handle(lost), vec![StageAction::Suspect(NodeId([2; 32])), to(3)]);
        // Even when it has the tensors: its own output may not be safe.
        assert_eq!(stage.handle(StageEvent::Taken(NEXT)), vec![Say(Sign::Passed)]);
        assert_eq!(stage.handle(StageEvent::Refused(NEXT, 1, Refusal::Overloaded)), vec![to(4)]);
        assert_eq!(stage.handle(StageEvent::Taken(NEXT)), vec![]);
        assert_eq!(stage.handle(lost), vec![Report(1, Refusal::SuccessorLost), Forget]);
    }

    #[test]
    fn a_receiver_that_is_avoided_is_not_accused_again() {
        let mut stage = sending(plan_with_backups());
        let to = Send { to: NodeId([3; 32]), edge: NEXT };
        assert_eq!(stage.handle(StageEvent::Avoided(NEXT)), vec![to]);
    }

    #[test]
    fn what_every_host_would_refuse_goes_to_no_backup() {
        let mut stage = sending(plan_with_backups());
        let refused = Sign::Refused { stage: 1, reason: Refusal::BadValue };
        let expected = vec![Report(1, Refusal::BadValue), Say(refused), Forget];
        assert_eq!(stage.handle(StageEvent::Refused(NEXT, 1, Refusal::BadValue)), expected);
    }

    #[test]
    fn who_has_it_already_or_needs_it_no_longer_has_passed() {
        for reason in [Refusal::Duplicate, Refusal::NotWaiting, Refusal::Cancelled] {
            let mut stage = sending(plan_with_backups());
            let done = vec![Say(Sign::Passed), Done];
            assert_eq!(stage.handle(StageEvent::Refused(NEXT, 1, reason)), done);
        }
    }

    #[test]
    fn a_second_copy_may_come_while_the_first_is_not_whole() {
        let mut stage = stage(1);
        stage.handle(StageEvent::Ready);
        for _ in 0..ARRIVING_MAX {
            assert_eq!(stage.may_arrive(), Ok(()));
            stage.handle(StageEvent::Offered);
        }
        assert_eq!(stage.may_arrive(), Err(Refusal::Duplicate));
        assert_eq!(stage.handle(StageEvent::Broken), vec![]);
        assert_eq!(stage.handle(StageEvent::Received), vec![Say(Sign::Working), Run]);
        assert_eq!(stage.handle(StageEvent::Received), vec![], "the other copy");
        assert_eq!(stage.may_arrive(), Err(Refusal::Duplicate));
    }

    #[test]
    fn a_host_with_backups_that_cannot_load_waits_to_be_asked() {
        let (mut stage, _) = Stage::announced(plan_with_backups(), 1, false).unwrap();
        assert_eq!(stage.handle(StageEvent::NotReady(Refusal::NoMemory)), vec![]);
        assert_eq!(stage.may_arrive(), Err(Refusal::NoMemory));
    }

    #[test]
    fn tensors_wait_for_a_partition_that_loads() {
        let mut stage = stage(1);
        stage.handle(StageEvent::Offered);
        assert_eq!(stage.handle(StageEvent::Received), vec![Say(Sign::Queued(0))]);
        assert_eq!(stage.handle(StageEvent::Ready), vec![Say(Sign::Working), Run]);
        let edge = Edge { from: 1, to: ORIGIN };
        let send = Send { to: NodeId([9; 32]), edge };
        assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), send]);
    }

    #[test]
    fn a_broken_input_may_come_again() {
        let mut stage = stage(0);
        stage.handle(StageEvent::Offered);
        assert_eq!(stage.handle(StageEvent::Broken), vec![]);
        assert_eq!(stage.may_arrive(), Ok(()));
    }

    #[test]
    fn failures_are_said_upstream_and_reported_by_one() {
        let mut failing = stage(1);
        failing.handle(StageEvent::Ready);
        failing.handle(StageEvent::Offered);
        failing.handle(StageEvent::Received);
        let refused = Sign::Refused { stage: 1, reason: Refusal::RunFailed };
        assert_eq!(failing.handle(StageEvent::RunFailed(Refusal::RunFailed)), vec![Say(refused), Forget]);

        let mut before = stage(0);
        for event in [StageEvent::Ready, StageEvent::Offered, StageEvent::Received, StageEvent::Ran] {
            before.handle(event);
        }
        let edge = Edge { from: 0, to: 1 };
        assert_eq!(before.handle(StageEvent::Taken(edge)), vec![Say(Sign::Passed)]);
        let heard = StageEvent::Refused(edge, 1, Refusal::RunFailed);
        assert_eq!(before.handle(heard), vec![Report(1, Refusal::RunFailed), Forget]);
    }

    #[test]
    fn a_lost_successor_is_reported() {
        let mut stage = stage(0);
        for event in [StageEvent::Ready, StageEvent::Offered, StageEvent::Received, StageEvent::Ran] {
            stage.handle(event);
        }
        let refused = Sign::Refused { stage: 1, reason: Refusal::SuccessorLost };
        let expected = vec![Report(1, Refusal::SuccessorLost), Say(refused), Forget];
        assert_eq!(stage.handle(StageEvent::Lost(Edge { from: 0, to: 1 })), expected);
    }

    #[test]
    fn what_cannot_load_is_reported_at_once_and_refuses_later_tensors() {
        let mut stage = stage(0);
        let reason = Refusal::NoMemory;
        assert_eq!(stage.handle(StageEvent::NotReady(reason)), vec![Report(0, reason)]);
        assert_eq!(stage.may_arrive(), Err(reason));
    }
}

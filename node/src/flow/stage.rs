//! A stage at its host: from the announcement of its plan to the moment its output is safe.
//!
//! ```text
//! Announced -> Arriving -> Waiting -> Running -> Sending -> Kept -> (forgotten)
//! ```
//! The host keeps its output until the next stage's own output is safe (`Passed`). What the model gives
//! before its last stage goes straight to the origin, beside what goes to the next stage; the stage has
//! passed when both are there.

use std::sync::Arc;

use stormo_protocol::frame::{Edge, ORIGIN, Sign};
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;

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
    /// Tell the origin that a stage failed.
    Report(u16, Refusal),
    /// Nothing of it is needed any more.
    Forget,
}

/// One stage of one attempt at a request.
#[derive(Debug)]
pub struct Stage {
    plan: Arc<Plan>,
    index: u16,
    phase: Phase,
    ready: bool,
    failed: Option<Refusal>,
    next: Delivery,
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
            ready: false,
            failed: None,
            next: Delivery::Sent,
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
            // A second copy of an input that is here, or coming: one is enough.
            (None, _) => Err(Refusal::Duplicate),
        }
    }

    fn next(&self) -> (NodeId, Edge) {
        let next = self.index + 1;
        match self.plan.stages.get(usize::from(next)) {
            Some(stage) => (stage.node, Edge { from: self.index, to: next }),
            None => (self.plan.origin, Edge { from: self.index, to: ORIGIN }),
        }
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
                vec![Report(self.index, reason)]
            }
            (StageEvent::NotReady(reason), Phase::Arriving | Phase::Waiting) => self.refuse(reason),
            (StageEvent::Offered, Phase::Announced) => self.enter(Phase::Arriving, vec![]),
            (StageEvent::Broken, Phase::Arriving) => self.enter(Phase::Announced, vec![]),
            (StageEvent::Received, Phase::Arriving) if self.ready => self.run(),
            (StageEvent::Received, Phase::Arriving) => self.enter(Phase::Waiting, vec![Say(Sign::Queued(0))]),
            (StageEvent::Ran, Phase::Running) => self.send(),
            (StageEvent::RunFailed(reason), Phase::Running) => self.refuse(reason),
            (StageEvent::Taken(edge), Phase::Sending) => self.delivered(edge, Delivery::Taken),
            (StageEvent::Passed(edge), Phase::Sending | Phase::Kept) => {
                self.delivered(edge, Delivery::Passed)
            }
            (StageEvent::Refused(edge, stage, reason), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, stage, reason)
            }
            (StageEvent::Lost(edge), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, edge.to, Refusal::SuccessorLost)
            }
            _ => vec![],
        }
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
        let (to, edge) = self.next();
        let mut actions = vec![StageAction::Say(Sign::Sending), StageAction::Send { to, edge }];
        if self.early.is_some() {
            actions.push(StageAction::Send { to: self.plan.origin, edge: self.early_edge() });
        }
        self.enter(Phase::Sending, actions)
    }

    /// Some of the output got further. Once all is taken, the sender of the input may let go of it.
    fn delivered(&mut self, edge: Edge, progress: Delivery) -> Vec<StageAction> {
        if edge == self.next().1 {
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
            actions.push(StageAction::Forget);
        }
        actions
    }

    /// A receiver, or a stage behind it, will not. Its sender tells the origin, once.
    fn receiver_failed(&mut self, edge: Edge, stage: u16, reason: Refusal) -> Vec<StageAction> {
        let mut actions = Vec::new();
        if stage == edge.to {
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
    use StageAction::{Forget, Load, Report, Run, Say, Send};
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
        assert_eq!(stage.may_arrive(), Err(Refusal::Duplicate));
        assert_eq!(stage.handle(StageEvent::Received), vec![Say(Sign::Working), Run]);
        let edge = Edge { from: 0, to: 1 };
        let send = Send { to: NodeId([2; 32]), edge };
        assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), send]);
        assert_eq!(stage.handle(StageEvent::Taken(edge)), vec![Say(Sign::Passed)]);
        assert_eq!(stage.handle(StageEvent::Passed(edge)), vec![Forget]);
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
            assert_eq!(stage.handle(StageEvent::Passed(second)), vec![Forget]);
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

//! A request at the node where it entered: which plan is tried, when another one is, how it ends.
//! The origin keeps the input until then, so that a broken chain costs a new try, not the request. Before that, the
//! hosts of a plan help themselves: whoever holds a tensor sends it to the next host of the stage that needs it, the
//! origin its input likewise.

use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;

/// Tries at one request whose plan is free, when hosts refuse or fail.
const ATTEMPTS_MAX: u16 = 3;
/// The same when hosts are lost, or messages late: that passes, and the deadline bounds it.
const ATTEMPTS_LOST_MAX: u16 = 8;
/// Tries that are made at once; before each further one comes a pause, the first so long, each next
/// twice as long.
const ATTEMPTS_AT_ONCE: u16 = 3;
const PAUSE_MS: u64 = 50;
/// Tries at a fixed plan: one more, where the loss may have been a moment's.
const ATTEMPTS_FIXED_MAX: u16 = 2;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A stage failed, and there is no other plan or no further try.
    Stage {
        /// Which stage.
        stage: u16,
        /// Its host.
        node: NodeId,
        /// Its blocks.
        blocks: [u16; 2],
        /// What was said of it.
        reason: Refusal,
        /// Tries made.
        attempts: u16,
    },
    /// No plan is possible; the planner's words.
    NoPlan(String),
    /// The time is over; the stage that was last heard of, if any.
    Deadline {
        /// Tries made.
        attempts: u16,
    },
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginEvent {
    /// A plan for the next try.
    Planned(Plan),
    /// There is none.
    NoPlan(String),
    /// The first stage's output is safe.
    FirstPassed(u16),
    /// The host that was sent the input refuses it, or is lost.
    InputFailed {
        /// The try.
        attempt: u16,
        /// Why.
        reason: Refusal,
    },
    /// A host of a try fell silent; another one does its stage.
    HostLost {
        /// The try.
        attempt: u16,
    },
    /// No host of a stage of a try does it.
    Failed {
        /// The try.
        attempt: u16,
        /// The stage.
        stage: u16,
        /// Why.
        reason: Refusal,
    },
    /// The connection to a node is gone.
    PeerLost(NodeId),
    /// The result of a try is here.
    Result(u16),
    /// The time is over.
    Deadline,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginAction {
    /// Announce the plan to its hosts and send the input to the first.
    Begin {
        /// The try.
        attempt: u16,
        /// Its plan.
        plan: Plan,
    },
    /// Send the input to this host, instead of the one before.
    Send {
        /// The try.
        attempt: u16,
        /// To whom.
        to: NodeId,
    },
    /// Plan anew, without these nodes.
    Plan {
        /// Hosts that failed.
        without: Vec<NodeId>,
        /// Not before this time has passed.
        after_ms: u64,
    },
    /// Tell the hosts of a try to drop it.
    Cancel {
        /// The try.
        attempt: u16,
        /// Its plan.
        plan: Plan,
    },
    /// The request ends with the result of this try.
    Answer {
        /// The try.
        attempt: u16,
    },
    /// The request ends without a result.
    Fail(Failure),
}

/// A request that entered here.
#[derive(Debug)]
pub struct Origin {
    /// Whether the caller asked for exactly one plan.
    fixed: bool,
    attempt: u16,
    current: Option<Plan>,
    first_passed: bool,
    /// Which host of the first stage has the input.
    first_host: usize,
    /// Who was lost during the current try.
    lost: Vec<NodeId>,
    /// Whether a host was lost in any try: then the hosts that are left have the work of others on top for a moment.
    has_met_loss: bool,
    suspects: Vec<NodeId>,
    last_failure: Option<Failure>,
    ended: bool,
}

impl Origin {
    /// A new request; `fixed` when the caller asked for exactly one plan.
    pub fn new(fixed: bool) -> Self {
        Self {
            fixed,
            attempt: 0,
            current: None,
            first_passed: false,
            first_host: 0,
            lost: Vec::new(),
            has_met_loss: false,
            suspects: Vec::new(),
            last_failure: None,
            ended: false,
        }
    }

    /// Tries made so far.
    pub fn attempts(&self) -> u16 {
        self.attempt
    }

    /// The plan of the try under way.
    pub fn plan(&self) -> Option<&Plan> {
        self.current.as_ref()
    }

    /// Takes an event; out of place or after the end, it changes nothing.
    pub fn handle(&mut self, event: OriginEvent) -> Vec<OriginAction> {
        if self.ended {
            return vec![];
        }
        match event {
            OriginEvent::Planned(plan) => self.begin(plan),
            OriginEvent::NoPlan(why) => self.no_plan(why),
            OriginEvent::FirstPassed(attempt) => {
                self.first_passed |= attempt == self.attempt;
                vec![]
            }
            OriginEvent::Failed { attempt, stage, reason } if attempt == self.attempt => {
                self.failed(stage, reason)
            }
            OriginEvent::InputFailed { attempt, reason } if attempt == self.attempt => {
                self.input_failed(reason)
            }
            OriginEvent::PeerLost(node) => self.peer_lost(node),
            OriginEvent::HostLost { attempt } => {
                self.has_met_loss |= attempt == self.attempt;
                vec![]
            }
            // Whole answers come from one attempt; that of an earlier one is as right.
            OriginEvent::Result(attempt) if attempt >= 1 && attempt <= self.attempt => {
                let mut actions = self.cancel(attempt != self.attempt);
                actions.extend(self.end(OriginAction::Answer { attempt }));
                actions
            }
            OriginEvent::Deadline => {
                let mut actions = self.cancel(true);
                let failure =
                    self.last_failure.take().unwrap_or(Failure::Deadline { attempts: self.attempt });
                actions.extend(self.end(OriginAction::Fail(failure)));
                actions
            }
            OriginEvent::InputFailed { .. } | OriginEvent::Failed { .. } | OriginEvent::Result(_) => vec![],
        }
    }

    fn begin(&mut self, plan: Plan) -> Vec<OriginAction> {
        if self.current.is_some() {
            return vec![];
        }
        self.attempt += 1;
        (self.first_passed, self.first_host) = (false, 0);
        self.lost.clear();
        self.current = Some(plan.clone());
        vec![OriginAction::Begin { attempt: self.attempt, plan }]
    }

    /// Nobody is left but those who failed before: whoever was lost may be back, so all count again. What they
    /// refused they would refuse again.
    fn no_plan(&mut self, why: String) -> Vec<OriginAction> {
        let was_lost =
            |failure: &Failure| matches!(failure, Failure::Stage { reason, .. } if is_momentary(*reason));
        let may_be_back = !self.suspects.is_empty() && self.last_failure.as_ref().is_some_and(was_lost);
        if may_be_back && self.attempt < ATTEMPTS_LOST_MAX {
            self.suspects.clear();
            return vec![self.plan_again()];
        }
        let failure = self.last_failure.take().unwrap_or(Failure::NoPlan(why));
        self.end(OriginAction::Fail(failure))
    }

    fn plan_again(&self) -> OriginAction {
        self.plan_after(0)
    }

    /// After so long at least.
    fn plan_after(&self, least_ms: u64) -> OriginAction {
        let paused = self.attempt.checked_sub(ATTEMPTS_AT_ONCE);
        let after_ms = paused.map_or(0, |times| PAUSE_MS << times);
        OriginAction::Plan { without: self.suspects.clone(), after_ms: after_ms.max(least_ms) }
    }

    /// The input goes to the next host of the first stage; with none left, the stage failed.
    fn input_failed(&mut self, reason: Refusal) -> Vec<OriginAction> {
        let Some(first) = self.current.as_ref().and_then(|plan| plan.stages.first()) else { return vec![] };
        if reason.is_of_the_unneeded() {
            return vec![];
        }
        self.has_met_loss |= reason == Refusal::SuccessorLost;
        let next = first.hosts().nth(self.first_host + 1).filter(|_| reason.may_succeed_elsewhere());
        match next {
            Some(to) => {
                if reason == Refusal::SuccessorLost {
                    self.suspects.extend(first.hosts().nth(self.first_host));
                }
                self.first_host += 1;
                vec![OriginAction::Send { attempt: self.attempt, to }]
            }
            None => self.failed(0, reason),
        }
    }

    /// The connection to a host is gone. Who sent it its input sees the same and turns to a backup, unless there is none
    /// or the sender was lost before.
    fn peer_lost(&mut self, node: NodeId) -> Vec<OriginAction> {
        let Some(plan) = &self.current else { return vec![] };
        self.lost.push(node);
        let is_lost = |host| self.lost.contains(&host);
        let safe = usize::from(self.first_passed);
        // The first stage on that node whose output is not known to be safe.
        let place = plan.stages.iter().skip(safe).position(|stage| stage.node == node);
        let Some(index) = place.map(|place| place + safe) else { return vec![] };
        let sender_is_there = index.checked_sub(1).is_none_or(|before| !is_lost(plan.stages[before].node));
        let is_helped = sender_is_there && plan.stages[index].hosts().any(|host| !is_lost(host));
        match u16::try_from(index) {
            Ok(stage) if !is_helped => self.failed(stage, Refusal::SuccessorLost),
            _ => vec![],
        }
    }

    fn failed(&mut self, stage: u16, reason: Refusal) -> Vec<OriginAction> {
        let Some(plan) = self.current.as_ref() else { return vec![] };
        let Some(failing) = plan.stages.get(usize::from(stage)) else { return vec![] };
        let failure = Failure::Stage {
            stage,
            node: failing.node,
            blocks: [failing.first, failing.end],
            reason,
            attempts: self.attempt,
        };
        self.has_met_loss |= reason == Refusal::SuccessorLost;
        let is_momentary = is_momentary(reason) || (reason == Refusal::Overloaded && self.has_met_loss);
        // A late announcement is not the host's fault, nor that it has to do what others were to.
        if !is_momentary || reason == Refusal::SuccessorLost {
            self.suspects
                .extend(failing.hosts().filter(|host| !self.suspects.contains(host)).collect::<Vec<_>>());
        }
        let plan = plan.clone();
        let mut actions = self.cancel(true);
        self.current = None;
        let attempts_max = match (self.fixed, is_momentary) {
            (true, _) => ATTEMPTS_FIXED_MAX,
            (false, true) => ATTEMPTS_LOST_MAX,
            (false, false) => ATTEMPTS_MAX,
        };
        let may_help = if self.fixed { is_momentary } else { reason.may_succeed_elsewhere() };
        if self.attempt >= attempts_max || !may_help {
            actions.extend(self.end(OriginAction::Fail(failure)));
        } else {
            self.last_failure = Some(failure);
            actions.extend(match self.fixed {
                true => self.begin(plan),
                false if reason == Refusal::Overloaded && is_momentary => vec![self.plan_after(PAUSE_MS)],
                false => vec![self.plan_again()],
            });
        }
        actions
    }

    fn cancel(&self, needed: bool) -> Vec<OriginAction> {
        match &self.current {
            Some(plan) if needed => {
                vec![OriginAction::Cancel { attempt: self.attempt, plan: plan.clone() }]
            }
            _ => vec![],
        }
    }

    fn end(&mut self, action: OriginAction) -> Vec<OriginAction> {
        self.ended = true;
        vec![action]
    }
}

/// Whether the same plan may well succeed at once: a busy host fell silent, a message was late.
fn is_momentary(reason: Refusal) -> bool {
    matches!(reason, Refusal::SuccessorLost | Refusal::UnknownPlan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::ids::{DeploymentId, VariantId};
    use stormo_protocol::plan::Stage;

    const NODES: [NodeId; 3] = [NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];

    fn plan(hosts: &[NodeId]) -> Plan {
        let stages = hosts
            .iter()
            .enumerate()
            .map(|(index, node)| Stage {
                node: *node,
                first: index as u16,
                end: index as u16 + 1,
                codec: Codec::Raw,
                backups: vec![],
            })
            .collect();
        let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
        Plan { variant, origin: NodeId([9; 32]), stages, result_codec: Codec::Raw }
    }

    fn failed(attempt: u16, stage: u16) -> OriginEvent {
        OriginEvent::Failed { attempt, stage, reason: Refusal::RunFailed }
    }

    #[test]
    fn a_failed_stage_leads_to_another_plan_without_its_host() {
        let mut origin = Origin::new(false);
        let first = plan(&NODES[..2]);
        let begun = origin.handle(OriginEvent::Planned(first.clone()));
        assert_eq!(begun, vec![OriginAction::Begin { attempt: 1, plan: first.clone() }]);
        let expected = vec![
            OriginAction::Cancel { attempt: 1, plan: first },
            OriginAction::Plan { without: vec![NODES[1]], after_ms: 0 },
        ];
        assert_eq!(origin.handle(failed(1, 1)), expected);
        assert_eq!(origin.handle(failed(1, 0)), vec![], "the same try does not fail twice");
        origin.handle(OriginEvent::Planned(plan(&NODES[2..])));
        assert_eq!(origin.handle(OriginEvent::Result(2)), vec![OriginAction::Answer { attempt: 2 }]);
        assert_eq!(origin.handle(OriginEvent::Result(2)), vec![], "answered once");
    }

    #[test]
    fn a_fixed_plan_fails_with_its_stage() {
        let mut origin = Origin::new(true);
        origin.handle(OriginEvent::Planned(plan(&NODES)));
        let actions = origin.handle(failed(1, 2));
        let Some(OriginAction::Fail(Failure::Stage { stage: 2, node, .. })) = actions.last() else {
            panic!("{actions:?}")
        };
        assert_eq!(*node, NODES[2]);
    }

    #[test]
    fn a_fixed_plan_is_tried_once_more_after_a_momentary_loss() {
        let mut origin = Origin::new(true);
        origin.handle(OriginEvent::Planned(plan(&NODES)));
        let lost = |attempt| OriginEvent::Failed { attempt, stage: 1, reason: Refusal::SuccessorLost };
        let again = OriginAction::Begin { attempt: 2, plan: plan(&NODES) };
        assert_eq!(origin.handle(lost(1)).last(), Some(&again));
        assert!(matches!(origin.handle(lost(2)).last(), Some(OriginAction::Fail(Failure::Stage { .. }))));
    }

    #[test]
    fn without_another_plan_the_failure_is_told_not_the_planning() {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
        origin.handle(failed(1, 0));
        let actions = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
        assert!(matches!(actions[..], [OriginAction::Fail(Failure::Stage { stage: 0, .. })]), "{actions:?}");
    }

    #[test]
    fn while_hosts_are_lost_it_goes_on_with_growing_pauses() {
        let mut origin = Origin::new(false);
        let mut pauses_ms = Vec::new();
        let mut all = vec![];
        for attempt in 1..=ATTEMPTS_LOST_MAX {
            origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
            let lost = OriginEvent::Failed { attempt, stage: 0, reason: Refusal::SuccessorLost };
            all = origin.handle(lost);
            if let Some(OriginAction::Plan { without, after_ms }) = all.last() {
                assert!(without.contains(&NODES[0]));
                pauses_ms.push(*after_ms);
                // Nobody else is there.
                let again = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
                assert_eq!(again, vec![OriginAction::Plan { without: vec![], after_ms: *after_ms }]);
            }
        }
        assert_eq!(pauses_ms, [0, 0, 50, 100, 200, 400, 800]);
        let failure = Failure::Stage {
            stage: 0,
            node: NODES[0],
            blocks: [0, 1],
            reason: Refusal::SuccessorLost,
            attempts: ATTEMPTS_LOST_MAX,
        };
        assert_eq!(all.last(), Some(&OriginAction::Fail(failure)));
    }

    #[test]
    fn what_a_host_refuses_is_not_asked_of_all_again() {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
        origin.handle(failed(1, 0));
        let ended = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
        assert!(matches!(ended[..], [OriginAction::Fail(Failure::Stage { attempts: 1, .. })]), "{ended:?}");
    }

    #[test]
    fn a_lost_peer_matters_only_while_its_output_may_be_lost() {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan(&NODES)));
        origin.handle(OriginEvent::FirstPassed(1));
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
        assert_eq!(origin.handle(OriginEvent::PeerLost(NodeId([7; 32]))), vec![]);
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2);
    }

    fn plan_with_backups() -> Plan {
        let mut plan = plan(&NODES[..2]);
        plan.stages.iter_mut().for_each(|stage| stage.backups = vec![NODES[2]]);
        plan
    }

    #[test]
    fn the_input_goes_to_a_backup_before_another_plan_is_made() {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        let failed = OriginEvent::InputFailed { attempt: 1, reason: Refusal::SuccessorLost };
        let expected = vec![OriginAction::Send { attempt: 1, to: NODES[2] }];
        assert_eq!(origin.handle(failed.clone()), expected);
        let Some(OriginAction::Plan { without, .. }) = origin.handle(failed).pop() else { panic!() };
        assert!(without.contains(&NODES[0]) && without.contains(&NODES[2]));
    }

    #[test]
    fn a_lost_host_is_left_to_its_sender_if_that_lives_and_there_are_backups() {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])), vec![]);
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[2])), vec![], "no primary here");

        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2, "its sender is lost, too");

        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        origin.handle(OriginEvent::PeerLost(NODES[2]));
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2, "the backup is lost, too");
    }

    #[test]
    fn hosts_that_are_full_for_the_loss_of_others_are_asked_again_after_a_pause() {
        let full = OriginEvent::Failed { attempt: 1, stage: 1, reason: Refusal::Overloaded };
        let after = |loss: &[OriginEvent]| {
            let mut origin = Origin::new(false);
            origin.handle(OriginEvent::Planned(plan_with_backups()));
            loss.iter().for_each(|event| drop(origin.handle(event.clone())));
            match origin.handle(full.clone()).pop() {
                Some(OriginAction::Plan { without, after_ms }) => (without.contains(&NODES[1]), after_ms),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after(&[]), (true, 0), "nobody was lost: others may have room");
        assert_eq!(after(&[OriginEvent::HostLost { attempt: 1 }]), (false, PAUSE_MS));
        assert_eq!(after(&[OriginEvent::HostLost { attempt: 7 }]), (true, 0));

        // The same of the first stage, whose hosts the origin turns to itself.
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        let input = |reason| OriginEvent::InputFailed { attempt: 1, reason };
        origin.handle(input(Refusal::SuccessorLost));
        let again = OriginAction::Plan { without: vec![NODES[0]], after_ms: PAUSE_MS };
        assert_eq!(origin.handle(input(Refusal::Overloaded)).pop(), Some(again));
    }

    fn event() -> impl Strategy<Value = OriginEvent> {
        prop_oneof![
            Just(OriginEvent::Planned(plan(&NODES))),
            Just(OriginEvent::NoPlan(String::new())),
            (0..5u16).prop_map(OriginEvent::FirstPassed),
            (0..5u16, 0..4u16).prop_map(|(attempt, stage)| failed(attempt, stage)),
            (0..3usize).prop_map(|node| OriginEvent::PeerLost(NODES[node])),
            (0..5u16).prop_map(|attempt| OriginEvent::HostLost { attempt }),
            (0..5u16)
                .prop_map(|attempt| OriginEvent::InputFailed { attempt, reason: Refusal::SuccessorLost }),
            (0..5u16).prop_map(OriginEvent::Result),
            Just(OriginEvent::Deadline),
        ]
    }

    proptest! {
        #[test]
        fn every_schedule_ends_at_most_once_and_a_deadline_ends_it(
            events in proptest::collection::vec(event(), 0..40),
            fixed: bool,
        ) {
            let mut origin = Origin::new(fixed);
            let mut ends = 0;
            for event in events.into_iter().chain([OriginEvent::Deadline]) {
                for action in origin.handle(event) {
                    prop_assert!(ends == 0, "an action after the end");
                    ends += usize::from(matches!(
                        action,
                        OriginAction::Answer { .. } | OriginAction::Fail(_)
                    ));
                }
            }
            prop_assert_eq!(ends, 1);
            prop_assert!(origin.attempts() <= ATTEMPTS_LOST_MAX);
        }
    }
}

//! A request at the node where it entered: which plan is tried, when another one is, how it ends.
//! The origin keeps the input until then, so that a broken chain costs a new try, not the request. Before that, the
//! hosts of a plan help themselves: whoever holds a tensor sends it to the next host of the stage that needs it, the
//! origin its input likewise.

use super::copies::Copies;
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::{self, Plan};
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
    /// The output of a stage that is sent input from here is safe.
    InputPassed {
        /// The try.
        attempt: u16,
        /// The stage.
        stage: u16,
    },
    /// A host that was sent input from here refuses it, or is lost.
    InputFailed {
        /// The try.
        attempt: u16,
        /// The stage.
        stage: u16,
        /// The host.
        to: NodeId,
        /// Why.
        reason: Refusal,
    },
    /// A host that was sent input from here takes long: this other host of its stage is sent it, too.
    Hedge {
        /// The try.
        attempt: u16,
        /// The stage.
        stage: u16,
        /// The other host.
        to: NodeId,
    },
    /// A host of a join refuses, or is lost.
    JoinFailed {
        /// The try.
        attempt: u16,
        /// The join.
        stage: u16,
        /// Which of its hosts, 0 the primary.
        host: u16,
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
    /// Send the input of a stage to this host, instead of the one before, or beside it; nothing, if it has none from here.
    Send {
        /// The try.
        attempt: u16,
        /// The stage.
        stage: u16,
        /// To whom.
        to: NodeId,
    },
    /// Tell all hosts of the stages that send to a join where it is now.
    Rejoin {
        /// The try.
        attempt: u16,
        /// The join.
        stage: u16,
        /// Which of its hosts, 0 the primary.
        host: u16,
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
    /// Stages of the current try that are sent input from here and whose output is safe.
    passed: Vec<u16>,
    /// Which hosts have the input, of the stages that are sent theirs from here, and of the joins, where it is not the
    /// primary alone.
    hosts: Vec<(u16, Copies)>,
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
            passed: Vec::new(),
            hosts: Vec::new(),
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
            OriginEvent::InputPassed { attempt, stage } => {
                self.passed.extend((attempt == self.attempt).then_some(stage));
                vec![]
            }
            OriginEvent::Failed { attempt, stage, reason } if attempt == self.attempt => {
                self.failed(stage, reason)
            }
            OriginEvent::InputFailed { attempt, stage, to, reason } if attempt == self.attempt => {
                self.input_failed(stage, to, reason)
            }
            OriginEvent::Hedge { attempt, stage, to } if attempt == self.attempt => self.hedge(stage, to),
            OriginEvent::JoinFailed { attempt, stage, host, reason } if attempt == self.attempt => {
                self.join_failed(stage, host.into(), reason)
            }
            OriginEvent::PeerLost(node) => self.peer_lost(node),
            OriginEvent::HostLost { attempt } => {
                self.has_met_loss |= attempt == self.attempt;
                vec![]
            }
            // Whole answers come from one attempt; that of an earlier one is as right.
            OriginEvent::Result(attempt) if attempt >= 1 && attempt <= self.attempt => {
                // A join that was moved may wait somewhere for what will not come.
                let mut actions = self.cancel(attempt != self.attempt || self.has_moved_join());
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
            OriginEvent::InputFailed { .. }
            | OriginEvent::Hedge { .. }
            | OriginEvent::JoinFailed { .. }
            | OriginEvent::Failed { .. }
            | OriginEvent::Result(_) => vec![],
        }
    }

    fn begin(&mut self, plan: Plan) -> Vec<OriginAction> {
        if self.current.is_some() {
            return vec![];
        }
        self.attempt += 1;
        self.passed.clear();
        self.hosts.clear();
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

    /// Who has a stage's input, as far as the origin decides that.
    fn copies_of(&self, stage: u16) -> Copies {
        self.hosts.iter().find(|(of, _)| *of == stage).map_or(Copies::at(0), |(_, copies)| *copies)
    }

    /// Which of a join's hosts is its host now.
    fn host_of(&self, join: u16) -> usize {
        self.copies_of(join).first().unwrap_or(0)
    }

    fn set_copies(&mut self, stage: u16, copies: Copies) {
        self.hosts.retain(|(of, _)| *of != stage);
        self.hosts.push((stage, copies));
    }

    fn has_moved_join(&self) -> bool {
        let is_join = |stage: u16| self.current.as_ref().is_some_and(|plan| plan.is_join(stage));
        self.hosts.iter().any(|(stage, _)| is_join(*stage))
    }

    /// The input goes to the next host of its stage, unless another one has it as well; with none left, the stage failed.
    fn input_failed(&mut self, stage: u16, to: NodeId, reason: Refusal) -> Vec<OriginAction> {
        let Some(plan) = &self.current else { return vec![] };
        let Some(failing) = plan.stages.get(usize::from(stage)) else { return vec![] };
        let (hosts, mut copies): (Vec<NodeId>, _) = (failing.hosts().collect(), self.copies_of(stage));
        let host = copies.hosts().find(|host| hosts.get(*host) == Some(&to));
        // What is heard of a host before is late.
        let Some(host) = host.filter(|_| !reason.is_of_the_unneeded()) else { return vec![] };
        if plan.is_join(stage) {
            return self.join_failed(stage, host, reason);
        }
        // The other copy's output is safe.
        if self.passed.contains(&stage) {
            return vec![];
        }
        self.has_met_loss |= reason == Refusal::SuccessorLost;
        copies.failed(host);
        let goes_on = copies.first().is_some();
        let next = copies.untried(hosts.len()).next();
        let next = next.filter(|_| !goes_on && reason.may_succeed_elsewhere());
        if !goes_on && next.is_none() {
            return self.failed(stage, reason);
        }
        if reason == Refusal::SuccessorLost {
            self.suspects.push(to);
        }
        if let Some(next) = next {
            copies.send(next);
        }
        self.set_copies(stage, copies);
        let send = next.map(|next| OriginAction::Send { attempt: self.attempt, stage, to: hosts[next] });
        send.into_iter().collect()
    }

    /// Who may be sent the input of a stage beside this host, which takes long: its hosts that were not sent it yet, in their
    /// order. Nobody, where that is a join.
    pub fn may_hedge(&self, attempt: u16, stage: u16, behind: NodeId) -> Vec<NodeId> {
        let plan = self.current.as_ref().filter(|plan| attempt == self.attempt && !plan.is_join(stage));
        let Some(of) = plan.and_then(|plan| plan.stages.get(usize::from(stage))) else { return vec![] };
        let (hosts, copies): (Vec<NodeId>, _) = (of.hosts().collect(), self.copies_of(stage));
        let has_it = copies.hosts().any(|host| hosts.get(host) == Some(&behind));
        if self.ended || !has_it || !copies.may_hedge() || self.passed.contains(&stage) {
            return vec![];
        }
        copies.untried(hosts.len()).map(|host| hosts[host]).collect()
    }

    fn hedge(&mut self, stage: u16, to: NodeId) -> Vec<OriginAction> {
        let Some(of) = self.current.as_ref().and_then(|plan| plan.stages.get(usize::from(stage))) else {
            return vec![];
        };
        let mut copies = self.copies_of(stage);
        let hosts: Vec<NodeId> = of.hosts().collect();
        let Some(behind) = copies.first().and_then(|host| hosts.get(host)) else { return vec![] };
        let place = hosts.iter().position(|host| *host == to);
        let Some(place) = place.filter(|_| self.may_hedge(self.attempt, stage, *behind).contains(&to)) else {
            return vec![];
        };
        copies.send(place);
        self.set_copies(stage, copies);
        vec![OriginAction::Send { attempt: self.attempt, stage, to }]
    }

    /// A join goes to its next host, and all who send to it are told; with none left, it failed. Who reports the host
    /// before did not hear of the move: all are told again.
    fn join_failed(&mut self, stage: u16, host: usize, reason: Refusal) -> Vec<OriginAction> {
        let Some(plan) = &self.current else { return vec![] };
        let Some(join) = plan.stages.get(usize::from(stage)).filter(|_| plan.is_join(stage)) else {
            return vec![];
        };
        let now = self.host_of(stage);
        if reason.is_of_the_unneeded() || host > now {
            return vec![];
        }
        let hosts: Vec<NodeId> = join.hosts().collect();
        if host < now {
            return vec![self.rejoin(stage, now)];
        }
        if let Some(actions) =
            self.input_lost(stage, (reason == Refusal::SuccessorLost).then_some(hosts[now]))
        {
            return actions;
        }
        self.has_met_loss |= reason == Refusal::SuccessorLost;
        let is_there = |host: &usize| !self.lost.contains(&hosts[*host]);
        let next = (now + 1..hosts.len()).find(is_there).filter(|_| reason.may_succeed_elsewhere());
        let Some(next) = next else { return self.failed(stage, reason) };
        if reason == Refusal::SuccessorLost {
            self.suspects.push(hosts[now]);
        }
        self.set_copies(stage, Copies::at(next));
        let send = OriginAction::Send { attempt: self.attempt, stage, to: hosts[next] };
        vec![self.rejoin(stage, next), send]
    }

    fn rejoin(&self, stage: u16, host: usize) -> OriginAction {
        let host = u16::try_from(host).unwrap_or(u16::MAX);
        OriginAction::Rejoin { attempt: self.attempt, stage, host }
    }

    /// Ends the try if what a join needs again may be lost: who sent to it let go of its own input once the join had
    /// taken the output, so a sender that is gone as well has nobody to do its work again.
    fn input_lost(&mut self, join: u16, gone_now: Option<NodeId>) -> Option<Vec<OriginAction>> {
        let plan = self.current.as_ref()?;
        let gone: Vec<NodeId> = self.lost.iter().copied().chain(gone_now).collect();
        let senders =
            plan.senders(join).into_iter().filter_map(|sender| plan.stages.get(usize::from(sender)));
        let has_gone = senders.flat_map(plan::Stage::hosts).any(|host| gone.contains(&host));
        has_gone.then(|| self.ended_by(join, Refusal::SuccessorLost, &gone))
    }

    /// The connection to a host is gone. Who sent it its input sees the same and turns to a backup, unless there is none
    /// or the sender was lost before. A join is moved from here.
    fn peer_lost(&mut self, node: NodeId) -> Vec<OriginAction> {
        let Some(plan) = &self.current else { return vec![] };
        self.lost.push(node);
        let is_lost = |host| self.lost.contains(&host);
        let (mut failed, mut moved) = (None, vec![]);
        for (stage, of) in (0u16..).zip(&plan.stages) {
            // Its output is known to be safe.
            if self.passed.contains(&stage) {
                continue;
            }
            if plan.is_join(stage) {
                let host = self.host_of(stage);
                let sends = || {
                    let senders = plan.senders(stage).into_iter();
                    let mut hosts = senders.filter_map(|sender| plan.stages.get(usize::from(sender)));
                    hosts.any(|sender| sender.host_index(node).is_some())
                };
                // Where it was moved to, the node may not have sent its input yet.
                let is_needed = of.hosts().nth(host) == Some(node) || host > 0 && sends();
                moved.extend(is_needed.then_some(stage));
                continue;
            }
            // A loss matters where it leaves a stage to its sender, or takes that sender from a stage that was left to it.
            let sender = plan.stages.get(usize::from(plan.before(stage)));
            let sends = || sender.is_some_and(|sender| sender.host_index(node).is_some());
            if !is_lost(of.node) || !(of.host_index(node).is_some() || sends()) {
                continue;
            }
            // Which of its hosts sent is not known here.
            let sender_is_there = sender.is_none_or(|sender| sender.hosts().all(|host| !is_lost(host)));
            if !(sender_is_there && of.hosts().any(|host| !is_lost(host))) {
                failed = failed.or(Some(stage));
            }
        }
        if let Some(stage) = failed {
            return self.failed(stage, Refusal::SuccessorLost);
        }
        let mut actions = vec![];
        for stage in moved {
            // None is moved any more once one of them has ended the try.
            if self.current.is_some() {
                let gone = self.input_lost(stage, None);
                let host = self.host_of(stage);
                actions.extend(gone.unwrap_or_else(|| self.join_failed(stage, host, Refusal::SuccessorLost)));
            }
        }
        actions
    }

    fn failed(&mut self, stage: u16, reason: Refusal) -> Vec<OriginAction> {
        let failing = self.current.as_ref().and_then(|plan| plan.stages.get(usize::from(stage)));
        let hosts: Vec<NodeId> = failing.into_iter().flat_map(plan::Stage::hosts).collect();
        self.ended_by(stage, reason, &hosts)
    }

    /// A stage failed, by these nodes.
    fn ended_by(&mut self, stage: u16, reason: Refusal, by: &[NodeId]) -> Vec<OriginAction> {
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
            let new: Vec<NodeId> = by.iter().copied().filter(|host| !self.suspects.contains(host)).collect();
            self.suspects.extend(new);
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
mod tests;

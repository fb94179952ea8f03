//! A stage at its host: from the announcement of its plan to the moment its output is safe.
//!
//! ```text
//! Gathering -> Waiting -> Running -> Sending -> Kept -> (forgotten)
//! ```
//! A join gathers the outputs of all its branches, and what its fork sent past them; another stage has one input.
//!
//! The host keeps its output until the next stages' own output is safe (`Passed`), and sends it to the next of a
//! stage's hosts when the one before is lost or refuses: the origin hears of it, and acts only when none is left. A join
//! is moved by the origin alone, so that all who send to it turn to the same host: its senders report, keep what they
//! have, and wait for its word. What the model gives before its last stage goes straight to the origin, beside what goes
//! to the next stages; the stage has passed when all are there.
//!
//! A stage may be sent an input more than once, by several hosts of the stage before of which each took the other
//! for lost: the first copy that is whole is used. Where the receiver of an output takes long, another host of its stage may be
//! sent it too (*hedging*): the first that passes it on makes it safe, the other one's failures are nobody's concern.

use std::sync::Arc;

use super::copies::{Copies, Delivery};
use stormo_protocol::frame::{Edge, ORIGIN, Sign};
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;

/// Copies of one input on their way at once: of a primary that may be lost, and of two backups.
const ARRIVING_MAX: u8 = 3;

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The plan is known; inputs are missing, or coming in.
    Gathering,
    /// All tensors are here, the partition is not loaded yet.
    Waiting,
    /// The partition runs, or waits in its queue.
    Running,
    /// The output is on its way.
    Sending,
    /// All who were sent some of the output have it, but not all have passed on their own.
    Kept,
}

/// What comes over one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Input {
    from: u16,
    /// Copies on their way here.
    arriving: u8,
    is_here: bool,
}

/// What goes over one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Output {
    to: u16,
    /// Which hosts of that stage have it, or are sent it.
    copies: Copies,
}

impl Output {
    /// How far it is. Whoever took it and is lost, or will not, has taken nothing.
    fn delivery(&self) -> Delivery {
        self.copies.furthest().unwrap_or(Delivery::Sent)
    }
}

/// What happens to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageEvent {
    /// Its partition is loaded.
    Ready,
    /// Its partition cannot be loaded.
    NotReady(Refusal),
    /// An input begins to arrive from this stage, or the origin.
    Offered(u16),
    /// An input from there broke off.
    Broken(u16),
    /// An input from there is here.
    Received(u16),
    /// It ran.
    Ran,
    /// It failed to run.
    RunFailed(Refusal),
    /// This node, which was sent some of the output over this edge, has it.
    Taken(Edge, NodeId),
    /// Its own output is safe.
    Passed(Edge, NodeId),
    /// It, or a later stage, refused.
    Refused(Edge, NodeId, u16, Refusal),
    /// It is unreachable or silent.
    Lost(Edge, NodeId),
    /// It was so a moment ago, in another request; nothing was sent.
    Avoided(Edge, NodeId),
    /// Whoever has some of the output takes long: this other host of its stage is sent it, too.
    Hedge(Edge, NodeId),
    /// The origin moved a join to this one of its hosts.
    Rejoin {
        /// The join.
        stage: u16,
        /// Its host, 0 the primary.
        host: u16,
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageAction {
    /// Load the partition (and tell when it is ready).
    Load,
    /// Run it on the inputs.
    Run,
    /// Send the output.
    Send {
        /// To whom.
        to: NodeId,
        /// Over which edge.
        edge: Edge,
    },
    /// Say this to all who sent inputs.
    Say(Sign),
    /// Tell the origin that no host of a stage does it.
    Report(u16, Refusal),
    /// Tell the origin that a join's host is lost or refuses; it is for the origin to move it.
    ReportJoin {
        /// The join.
        stage: u16,
        /// Which of its hosts, 0 the primary.
        host: u16,
        /// Why.
        reason: Refusal,
    },
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
    inputs: Vec<Input>,
    ready: bool,
    failed: Option<Refusal>,
    outputs: Vec<Output>,
}

impl Stage {
    /// A stage as announced: from which stages (or the origin) it waits for inputs, and to which it sends, in this
    /// order. `None` if the plan has no such stage.
    pub fn announced(
        plan: Arc<Plan>,
        index: u16,
        inputs: impl IntoIterator<Item = u16>,
        outputs: impl IntoIterator<Item = u16>,
    ) -> Option<(Self, Vec<StageAction>)> {
        plan.stages.get(usize::from(index))?;
        let inputs = inputs.into_iter().map(|from| Input { from, arriving: 0, is_here: false }).collect();
        let outputs = outputs.into_iter().map(|to| Output { to, copies: Copies::at(0) }).collect();
        let stage =
            Self { plan, index, phase: Phase::Gathering, inputs, ready: false, failed: None, outputs };
        Some((stage, vec![StageAction::Load]))
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Whether an input may begin to arrive from there, and if not, why.
    ///
    /// # Errors
    /// The reason to refuse with.
    pub fn may_arrive(&self, from: u16) -> Result<(), Refusal> {
        if let Some(reason) = self.failed {
            return Err(reason);
        }
        match self.inputs.iter().find(|input| input.from == from) {
            None => Err(Refusal::NotMyStage),
            // Who sends the copy that is coming may be lost before it is whole.
            Some(input) if !input.is_here && input.arriving < ARRIVING_MAX => Ok(()),
            Some(_) => Err(Refusal::Duplicate),
        }
    }

    /// Whether no copy of the input from there is whole yet.
    pub fn is_waiting_for(&self, from: u16) -> bool {
        self.phase == Phase::Gathering
            && self.inputs.iter().any(|input| input.from == from && !input.is_here && input.arriving > 0)
    }

    /// Whether all inputs but the one from there are here.
    pub fn lacks_only(&self, from: u16) -> bool {
        self.inputs.iter().all(|input| input.is_here != (input.from == from))
    }

    /// Whether some inputs are here, and others are not.
    pub fn has_joined_in_part(&self) -> bool {
        self.phase == Phase::Gathering && self.inputs.iter().any(|input| input.is_here)
    }

    /// Where the first of the output is sent to, over which edge, unless that is to be avoided.
    pub fn first_receiver(&self) -> Option<(NodeId, Edge)> {
        let first = self.outputs.first()?;
        Some((self.receivers(*first).next()?, Edge { from: self.index, to: first.to }))
    }

    /// Whether some of the output has another receiver than this one, or may have: it is under way there, or a host of that
    /// stage was not sent it yet.
    pub fn has_others(&self, edge: Edge, node: NodeId) -> bool {
        let output = self.outputs.iter().find(|output| output.to == edge.to && edge.to != ORIGIN);
        output.is_some_and(|output| {
            let are_untried = output.copies.untried(self.hosts(output.to).count()).next().is_some();
            are_untried || self.receivers(*output).any(|receiver| receiver != node)
        })
    }

    /// Who may be sent some of the output beside this node, which takes long: the hosts of that stage that were not sent it
    /// yet, in their order. Nobody may of what goes to a join, which the origin alone moves, or to the origin.
    pub fn may_hedge(&self, edge: Edge, behind: NodeId) -> Vec<NodeId> {
        let is_sending = matches!(self.phase, Phase::Sending | Phase::Kept);
        let found = self.copy_of(edge, behind).filter(|_| is_sending && edge.to != ORIGIN);
        let output = found.map(|(place, _)| self.outputs[place]);
        match output.filter(|output| output.copies.may_hedge() && !self.plan.is_join(edge.to)) {
            Some(output) => {
                let hosts: Vec<NodeId> = self.hosts(edge.to).collect();
                output.copies.untried(hosts.len()).map(|host| hosts[host]).collect()
            }
            None => vec![],
        }
    }

    /// Which output this node is sent, or has, over an edge, and its place among the hosts. What others say of it is late.
    fn copy_of(&self, edge: Edge, node: NodeId) -> Option<(usize, usize)> {
        let place = self.outputs.iter().position(|output| output.to == edge.to)?;
        let copies = self.outputs[place].copies.hosts();
        let mut sent = copies.zip(self.receivers(self.outputs[place]));
        sent.find(|(_, receiver)| *receiver == node).map(|(host, _)| (place, host))
    }

    /// Who may have what goes to a stage, or to the origin.
    fn hosts(&self, to: u16) -> impl Iterator<Item = NodeId> {
        let stage = self.plan.stages.get(usize::from(to));
        let origin = stage.is_none().then_some(self.plan.origin);
        stage.into_iter().flat_map(|stage| stage.hosts()).chain(origin)
    }

    /// Who is sent some of the output.
    fn receivers(&self, output: Output) -> impl Iterator<Item = NodeId> {
        output.copies.hosts().filter_map(move |host| self.hosts(output.to).nth(host))
    }

    fn send_to(&self, output: Output, host: usize) -> Option<StageAction> {
        let to = self.hosts(output.to).nth(host)?;
        Some(StageAction::Send { to, edge: Edge { from: self.index, to: output.to } })
    }

    /// Takes an event; out of place, it changes nothing.
    pub fn handle(&mut self, event: StageEvent) -> Vec<StageAction> {
        match (event, self.phase) {
            (StageEvent::Ready, phase) => {
                self.ready = true;
                if phase == Phase::Waiting { self.run() } else { vec![] }
            }
            (StageEvent::NotReady(reason), Phase::Gathering | Phase::Waiting) => self.not_ready(reason),
            (StageEvent::Offered(from), Phase::Gathering) => {
                self.change_input(from, |input| input.arriving = input.arriving.saturating_add(1));
                vec![]
            }
            (StageEvent::Broken(from), Phase::Gathering) => {
                self.change_input(from, |input| input.arriving = input.arriving.saturating_sub(1));
                vec![]
            }
            (StageEvent::Received(from), Phase::Gathering) if self.is_waiting_for(from) => {
                self.change_input(from, |input| input.is_here = true);
                self.gathered()
            }
            (StageEvent::Ran, Phase::Running) => self.send(),
            (StageEvent::RunFailed(reason), Phase::Running) => self.refuse(reason),
            (StageEvent::Taken(edge, node), Phase::Sending | Phase::Kept) => {
                self.delivered(edge, node, Delivery::Taken)
            }
            (StageEvent::Passed(edge, node), Phase::Sending | Phase::Kept) => {
                self.delivered(edge, node, Delivery::Passed)
            }
            (StageEvent::Refused(edge, node, stage, reason), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, node, stage, reason)
            }
            (StageEvent::Lost(edge, node), Phase::Sending | Phase::Kept) => {
                self.receiver_failed(edge, node, edge.to, Refusal::SuccessorLost)
            }
            (StageEvent::Avoided(edge, node), Phase::Sending | Phase::Kept) => {
                let mut actions = self.receiver_failed(edge, node, edge.to, Refusal::SuccessorLost);
                // That is no news.
                actions.retain(|action| !matches!(action, StageAction::Suspect(_)));
                actions
            }
            (StageEvent::Hedge(edge, node), _) => self.hedge(edge, node),
            (StageEvent::Rejoin { stage, host }, phase) => self.rejoin(stage, host.into(), phase),
            _ => vec![],
        }
    }

    fn change_input(&mut self, from: u16, change: impl Fn(&mut Input)) {
        self.inputs.iter_mut().filter(|input| input.from == from).for_each(change);
    }

    fn has_backups(&self) -> bool {
        self.plan.stages.get(usize::from(self.index)).is_some_and(|stage| !stage.backups.is_empty())
    }

    fn enter(&mut self, phase: Phase, actions: Vec<StageAction>) -> Vec<StageAction> {
        self.phase = phase;
        actions
    }

    fn not_ready(&mut self, reason: Refusal) -> Vec<StageAction> {
        if self.inputs.iter().any(|input| input.is_here || input.arriving > 0) {
            return self.refuse(reason);
        }
        self.failed = Some(reason);
        // Who sends an input will hear it; others can turn to a backup.
        if self.has_backups() { vec![] } else { vec![StageAction::Report(self.index, reason)] }
    }

    fn gathered(&mut self) -> Vec<StageAction> {
        match self.inputs.iter().filter(|input| !input.is_here).count() {
            0 if self.ready => self.run(),
            0 => self.enter(Phase::Waiting, vec![StageAction::Say(Sign::Queued(0))]),
            missing => vec![StageAction::Say(Sign::Waiting(u16::try_from(missing).unwrap_or(u16::MAX)))],
        }
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
        let first = |output: &Output| self.send_to(*output, output.copies.first()?);
        let sends = self.outputs.iter().filter_map(first);
        let actions = [StageAction::Say(Sign::Sending)].into_iter().chain(sends).collect();
        self.enter(Phase::Sending, actions)
    }

    /// Some of the output got further. Once all is taken, the senders of the inputs may let go of them. Of two copies the
    /// one that is further counts.
    fn delivered(&mut self, edge: Edge, node: NodeId, progress: Delivery) -> Vec<StageAction> {
        let Some((place, host)) = self.copy_of(edge, node) else { return vec![] };
        self.outputs[place].copies.reached(host, progress);
        let mut deliveries = self.outputs.iter().map(Output::delivery);
        let mut actions = Vec::new();
        if self.phase == Phase::Sending && deliveries.clone().all(|delivery| delivery != Delivery::Sent) {
            self.phase = Phase::Kept;
            actions.push(StageAction::Say(Sign::Passed));
        }
        if deliveries.all(|delivery| delivery == Delivery::Passed) {
            actions.push(StageAction::Done);
        }
        actions
    }

    /// A receiver, or a stage behind it, will not. If another one has a copy, it goes on with that; else the next host of its
    /// stage is sent the output; when there is none, its sender tells the origin, once.
    fn receiver_failed(&mut self, edge: Edge, node: NodeId, stage: u16, reason: Refusal) -> Vec<StageAction> {
        let Some((place, host)) = self.copy_of(edge, node) else { return vec![] };
        let is_own = stage == edge.to;
        if is_own && reason.is_of_the_unneeded() {
            return self.delivered(edge, node, Delivery::Passed);
        }
        if is_own && edge.to != ORIGIN {
            if self.plan.is_join(stage) {
                let host = u16::try_from(host).unwrap_or(u16::MAX);
                return vec![StageAction::ReportJoin { stage, host, reason }];
            }
            let mut copies = self.outputs[place].copies;
            copies.failed(host);
            let goes_on = copies.first().is_some();
            let next = copies.untried(self.hosts(stage).count()).next();
            let next = next.filter(|_| !goes_on && reason.may_succeed_elsewhere());
            if let Some(next) = next {
                copies.send(next);
            }
            if goes_on || next.is_some() {
                self.outputs[place].copies = copies;
                let lost = (reason == Refusal::SuccessorLost).then_some(StageAction::Suspect(node));
                let send = next.and_then(|next| self.send_to(self.outputs[place], next));
                return lost.into_iter().chain(send).collect();
            }
        }
        let mut actions = Vec::new();
        if is_own {
            actions.push(StageAction::Report(stage, reason));
        }
        if self.phase == Phase::Sending {
            // Where this host does not reach the origin, another host of the stage may; what the origin refused stays refused.
            let is_cut_off = stage == ORIGIN && reason == Refusal::SuccessorLost;
            let stage = if is_cut_off { self.index } else { stage };
            actions.push(StageAction::Say(Sign::Refused { stage, reason }));
        }
        actions.push(StageAction::Forget);
        actions
    }

    fn hedge(&mut self, edge: Edge, node: NodeId) -> Vec<StageAction> {
        let Some(place) = self.outputs.iter().position(|output| output.to == edge.to) else { return vec![] };
        let Some(behind) = self.receivers(self.outputs[place]).next() else { return vec![] };
        if !self.may_hedge(edge, behind).contains(&node) {
            return vec![];
        }
        let Some(host) = self.hosts(edge.to).position(|host| host == node) else { return vec![] };
        self.outputs[place].copies.send(host);
        self.send_to(self.outputs[place], host).into_iter().collect()
    }

    /// A join is elsewhere now. What its host before passed on is safe all the same.
    fn rejoin(&mut self, stage: u16, host: usize, phase: Phase) -> Vec<StageAction> {
        let is_join = self.plan.is_join(stage);
        let hosts = self.plan.stages.get(usize::from(stage)).map_or(0, |stage| stage.hosts().count());
        let is_later = |output: &Output| {
            output.to == stage
                && output.copies.first().is_none_or(|before| before < host)
                && output.delivery() != Delivery::Passed
        };
        let place = self.outputs.iter().position(is_later).filter(|_| is_join && host < hosts);
        let Some(place) = place else { return vec![] };
        self.outputs[place].copies = Copies::at(host);
        let is_sending = matches!(phase, Phase::Sending | Phase::Kept);
        let send = self.send_to(self.outputs[place], host).filter(|_| is_sending);
        send.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;

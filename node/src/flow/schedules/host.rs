//! One node of a schedule: what its driver and its streams do around the stages, in little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stormo_protocol::frame::{Edge, ORIGIN, Sign};
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;

use super::world::{Frame, Message, PATIENCE_MS, SIGN_MS, What, World, computed, id};
use crate::flow::{OriginEvent, Stage, StageAction, StageEvent};

/// A stage of an attempt.
type Key = (u16, u16);

struct Hosted {
    machine: Stage,
    remaining_until_ms: u64,
    inputs: BTreeMap<u16, u64>,
    /// What it sent is watched to its end: what the slower host takes is to be known.
    has_hedged: bool,
}

/// A frame that comes in, until its last sign.
struct Incoming {
    sign: Sign,
    is_here: bool,
}

#[derive(Default)]
pub(super) struct Host {
    pub(super) is_dead: bool,
    /// It died with a word to its peers: their connections are reset.
    pub(super) is_clean: bool,
    pub(super) stalled_until_ms: u64,
    stages: BTreeMap<Key, Hosted>,
    ended: BTreeSet<Key>,
    cancelled: BTreeSet<u16>,
    rejoined: BTreeMap<Key, u16>,
    /// What it sends, to whom, and when it last heard of it.
    pub(super) sending: BTreeMap<(Frame, usize), u64>,
    incoming: BTreeMap<(Frame, usize), Incoming>,
}

impl Host {
    pub(super) fn dead(is_clean: bool) -> Self {
        Self { is_dead: true, is_clean, ..Self::default() }
    }

    /// What is left of requests.
    pub(super) fn holds(&self) -> Option<String> {
        let is_empty = self.stages.is_empty() && self.sending.is_empty() && self.incoming.is_empty();
        let frames: Vec<_> = self.sending.keys().chain(self.incoming.keys()).collect();
        (!is_empty).then(|| format!("stages {:?}, frames {frames:?}", self.stages.keys()))
    }
}

impl World {
    pub(super) fn hear(&mut self, node: usize, from: usize, message: Message) {
        match message {
            Message::Prepare(attempt, plan, remaining_ms) => {
                for stage in
                    (0..plan.stages.len() as u16).filter(|s| plan.stages[usize::from(*s)].node == id(node))
                {
                    // A refusal is heard by who sends the input.
                    let _ = self.host((node, (attempt, stage)), &plan, remaining_ms);
                }
            }
            Message::Offer(frame, plan, remaining_ms) => {
                match self.accept(node, from, frame, &plan, remaining_ms) {
                    Ok(()) => {
                        // On one node it is known at once.
                        let after_ms = if from == node { 0 } else { SIGN_MS };
                        self.push(self.now_ms + after_ms, node, What::SignDue(frame, from));
                    }
                    Err(reason) => {
                        self.account.duplicates += usize::from(reason == Refusal::Duplicate);
                        self.say(
                            node,
                            from,
                            Message::Sign(frame, Sign::Refused { stage: frame.edge.to, reason }),
                        );
                    }
                }
            }
            Message::Body(frame, tensor) => self.body(node, from, frame, tensor),
            Message::Sign(frame, sign) => self.signed(node, from, frame, sign),
            Message::Broken(frame) => self.lost(node, frame, from),
            Message::Aborted(frame) => self.broken(node, frame, from),
            Message::Failed(attempt, stage, reason) => {
                self.on_origin(OriginEvent::Failed { attempt, stage, reason });
            }
            Message::JoinFailed(attempt, stage, host, reason) => {
                self.on_origin(OriginEvent::JoinFailed { attempt, stage, host, reason });
            }
            Message::Lost(attempt) => self.on_origin(OriginEvent::HostLost { attempt }),
            Message::Cancel(attempt) => {
                self.hosts[node].cancelled.insert(attempt);
                let of_it = self.hosts[node].stages.keys().filter(|key| key.0 == attempt);
                for key in of_it.copied().collect::<Vec<_>>() {
                    self.drop_stage(node, key, Refusal::Cancelled);
                }
            }
            Message::Rejoin(attempt, join, host) => {
                let known = self.hosts[node].rejoined.entry((attempt, join)).or_default();
                *known = host.max(*known);
                let stages: Vec<Key> =
                    self.hosts[node].stages.keys().filter(|key| key.0 == attempt).copied().collect();
                for key in stages {
                    self.on_stage(node, key, StageEvent::Rejoin { stage: join, host });
                }
            }
        }
    }

    fn host(
        &mut self,
        (node, key): (usize, Key),
        plan: &Arc<Plan>,
        remaining_ms: u64,
    ) -> Result<(), Refusal> {
        let host = &self.hosts[node];
        if host.stages.contains_key(&key) {
            return Ok(());
        }
        if host.ended.contains(&key) {
            return Err(Refusal::Duplicate);
        }
        if host.cancelled.contains(&key.0) {
            return Err(Refusal::Cancelled);
        }
        let (inputs, outputs) = (self.inputs(plan, key.1), self.outputs(plan, key.1));
        let (mut machine, actions) =
            Stage::announced(plan.clone(), key.1, inputs, outputs).ok_or(Refusal::NotMyStage)?;
        for ((_, stage), host) in
            self.hosts[node].rejoined.iter().filter(|((attempt, _), _)| *attempt == key.0)
        {
            machine.handle(StageEvent::Rejoin { stage: *stage, host: *host });
        }
        let until_ms = self.now_ms + remaining_ms;
        let hosted =
            Hosted { machine, remaining_until_ms: until_ms, inputs: BTreeMap::new(), has_hedged: false };
        self.hosts[node].stages.insert(key, hosted);
        self.push(until_ms, node, What::Expire(key));
        self.act(node, key, actions);
        Ok(())
    }

    fn accept(
        &mut self,
        node: usize,
        from: usize,
        frame: Frame,
        plan: &Arc<Plan>,
        remaining_ms: u64,
    ) -> Result<(), Refusal> {
        let Frame { attempt, edge, .. } = frame;
        if edge.to == ORIGIN {
            self.accept_result(frame)?;
        } else {
            if !plan.is_sent_by(edge, id(from)) {
                return Err(Refusal::NotMyStage);
            }
            let key = (attempt, edge.to);
            self.host((node, key), plan, remaining_ms)?;
            let hosted = self.hosts[node].stages.get(&key).ok_or(Refusal::UnknownPlan)?;
            hosted.machine.may_arrive(edge.from)?;
            self.on_stage(node, key, StageEvent::Offered(edge.from));
        }
        let incoming = Incoming { sign: Sign::Receiving(0), is_here: false };
        self.hosts[node].incoming.insert((frame, from), incoming);
        Ok(())
    }

    fn body(&mut self, node: usize, from: usize, frame: Frame, tensor: u64) {
        let Some(incoming) = self.hosts[node].incoming.get_mut(&(frame, from)) else { return };
        incoming.is_here = true;
        let Frame { attempt, edge, .. } = frame;
        if edge.to == ORIGIN {
            self.hosts[node].incoming.remove(&(frame, from));
            self.say(node, from, Message::Sign(frame, Sign::Passed));
            return self.result(frame, tensor);
        }
        let key = (attempt, edge.to);
        if let Some(hosted) = self.hosts[node].stages.get_mut(&key)
            && hosted.machine.is_waiting_for(edge.from)
        {
            hosted.inputs.insert(edge.from, tensor);
            self.on_stage(node, key, StageEvent::Received(edge.from));
        }
    }

    pub(super) fn on_stage(&mut self, node: usize, key: Key, event: StageEvent) {
        if let Some(hosted) = self.hosts[node].stages.get_mut(&key) {
            let actions = hosted.machine.handle(event);
            self.act(node, key, actions);
        }
    }

    fn act(&mut self, node: usize, key: Key, actions: Vec<StageAction>) {
        for action in actions {
            match action {
                StageAction::Load => {
                    let refuses = self.are_refusing && self.random.one_in(20);
                    let after_ms = if self.random.one_in(5) { self.random.below(60) } else { 0 };
                    let event =
                        if refuses { StageEvent::NotReady(Refusal::NoMemory) } else { StageEvent::Ready };
                    self.push(self.now_ms + after_ms, node, What::Stage(key, event));
                }
                StageAction::Run => {
                    let refuses = self.are_refusing && self.random.one_in(20);
                    let event =
                        if refuses { StageEvent::RunFailed(Refusal::Overloaded) } else { StageEvent::Ran };
                    // Some branches take much longer than others.
                    let longest_ms = if self.random.one_in(6) { 900 } else { 60 };
                    let run_ms = 2 + self.random.below(longest_ms);
                    self.push(self.now_ms + run_ms, node, What::Stage(key, event));
                }
                StageAction::Send { to, edge } => self.send(node, key, usize::from(to.0[0]), edge),
                StageAction::Say(sign) => self.say_of(node, key, sign),
                StageAction::Report(stage, reason) => {
                    let stage = if stage == ORIGIN { key.1 } else { stage };
                    self.say(node, 0, Message::Failed(key.0, stage, reason));
                }
                StageAction::ReportJoin { stage, host, reason } => {
                    self.say(node, 0, Message::JoinFailed(key.0, stage, host, reason));
                }
                StageAction::Suspect(_) => {
                    self.account.takeovers += 1;
                    self.say(node, 0, Message::Lost(key.0));
                }
                StageAction::Done => {
                    self.hosts[node].ended.insert(key);
                    self.forget(node, key, true);
                }
                StageAction::Forget => self.forget(node, key, false),
            }
        }
    }

    fn send(&mut self, node: usize, key: Key, to: usize, edge: Edge) {
        let Some(hosted) = self.hosts[node].stages.get(&key) else { return };
        let tensor =
            computed(key.0, key.1, edge.to, hosted.inputs.iter().map(|(from, tensor)| (*from, *tensor)));
        let (plan, until_ms) = (hosted.machine.plan().clone(), hosted.remaining_until_ms);
        let frame = Frame { attempt: key.0, edge, copy: 0 };
        self.deliver(node, to, frame, &plan, tensor, until_ms.saturating_sub(self.now_ms));
    }

    /// Sends a frame and watches over it. Some come twice.
    pub(super) fn deliver(
        &mut self,
        node: usize,
        to: usize,
        frame: Frame,
        plan: &Arc<Plan>,
        tensor: u64,
        remaining_ms: u64,
    ) {
        self.hosts[node].sending.insert((frame, to), self.now_ms);
        self.push(self.now_ms + PATIENCE_MS, node, What::Watch(frame, to));
        if self.are_hedging && frame.edge.to != ORIGIN {
            let late_ms = 5 + self.random.below(200);
            self.push(self.now_ms + late_ms, node, What::Late(frame, to));
        }
        let copies = if self.random.one_in(10) { 2 } else { 1 };
        for copy in 0..copies {
            let frame = Frame { copy, ..frame };
            self.say(node, to, Message::Offer(frame, plan.clone(), remaining_ms));
            self.say(node, to, Message::Body(frame, tensor));
        }
    }

    pub(super) fn watch(&mut self, node: usize, frame: Frame, to: usize) {
        let Some(heard_ms) = self.hosts[node].sending.get(&(frame, to)).copied() else { return };
        if self.now_ms >= heard_ms + PATIENCE_MS {
            self.lost(node, frame, to);
        } else {
            self.push(heard_ms + PATIENCE_MS, node, What::Watch(frame, to));
        }
    }

    fn lost(&mut self, node: usize, frame: Frame, to: usize) {
        if self.hosts[node].sending.remove(&(frame, to)).is_some() {
            self.say(node, to, Message::Aborted(frame));
            self.told(node, frame, to, StageEvent::Lost(frame.edge, id(to)), Some(Refusal::SuccessorLost));
        }
    }

    fn signed(&mut self, node: usize, from: usize, frame: Frame, sign: Sign) {
        let Some(heard_ms) = self.hosts[node].sending.get_mut(&(frame, from)) else { return };
        *heard_ms = self.now_ms;
        if sign.is_last() {
            self.hosts[node].sending.remove(&(frame, from));
        }
        match sign {
            Sign::Receiving(_) | Sign::Taken(_) => {}
            // On one machine it is no safer for that.
            Sign::Queued(_) | Sign::Working | Sign::Sending | Sign::Waiting(_) if from == node => {}
            Sign::Queued(_) | Sign::Working | Sign::Sending | Sign::Waiting(_) => {
                self.told(node, frame, from, StageEvent::Taken(frame.edge, id(from)), None);
            }
            Sign::Passed => self.told(node, frame, from, StageEvent::Passed(frame.edge, id(from)), None),
            Sign::Refused { stage, reason } => {
                let reason_here = Some(reason).filter(|_| stage == frame.edge.to);
                if frame.edge.from == ORIGIN && reason_here.is_none() {
                    return self.on_origin(OriginEvent::Failed { attempt: frame.attempt, stage, reason });
                }
                self.told(
                    node,
                    frame,
                    from,
                    StageEvent::Refused(frame.edge, id(from), stage, reason),
                    reason_here,
                );
            }
        }
    }

    /// What a sender hears of its frame.
    fn told(&mut self, node: usize, frame: Frame, to: usize, event: StageEvent, failed: Option<Refusal>) {
        let Frame { attempt, edge, .. } = frame;
        if edge.from == ORIGIN {
            match (event, failed) {
                (StageEvent::Passed(..), _) => {
                    self.on_origin(OriginEvent::InputPassed { attempt, stage: edge.to });
                }
                (_, Some(reason)) => {
                    let stage = edge.to;
                    self.on_origin(OriginEvent::InputFailed { attempt, stage, to: id(to), reason });
                }
                _ => {}
            }
            return;
        }
        self.on_stage(node, (attempt, edge.from), event);
    }

    /// A frame is late: another host of its stage is sent the same, if one may be.
    pub(super) fn late(&mut self, node: usize, frame: Frame, to: usize) {
        if !self.hosts[node].sending.contains_key(&(frame, to)) {
            return;
        }
        let Frame { attempt, edge, .. } = frame;
        let stage = self.hosts[node].stages.get(&(attempt, edge.from));
        let others = match edge.from {
            ORIGIN => self.origin_may_hedge(attempt, edge.to, id(to)),
            _ => stage.map(|hosted| hosted.machine.may_hedge(edge, id(to))).unwrap_or_default(),
        };
        // Some are busy, or suspects.
        let Some(other) = others.into_iter().find(|_| !self.random.one_in(4)) else { return };
        self.account.hedges += 1;
        if edge.from == ORIGIN {
            return self.on_origin(OriginEvent::Hedge { attempt, stage: edge.to, to: other });
        }
        if let Some(hosted) = self.hosts[node].stages.get_mut(&(attempt, edge.from)) {
            hosted.has_hedged = true;
        }
        self.on_stage(node, (attempt, edge.from), StageEvent::Hedge(edge, other));
    }

    /// The frames of a stage's inputs.
    fn incoming_of(&self, node: usize, key: Key) -> Vec<(Frame, usize)> {
        let is_its = |(frame, _): &&(Frame, usize)| (frame.attempt, frame.edge.to) == key;
        self.hosts[node].incoming.keys().filter(is_its).copied().collect()
    }

    fn say_of(&mut self, node: usize, key: Key, sign: Sign) {
        for of in self.incoming_of(node, key) {
            if sign.is_last() {
                self.hosts[node].incoming.remove(&of);
                self.say(node, of.1, Message::Sign(of.0, sign));
            } else if let Some(incoming) = self.hosts[node].incoming.get_mut(&of) {
                incoming.sign = sign;
            }
        }
    }

    pub(super) fn sign_due(&mut self, node: usize, frame: Frame, from: usize) {
        let Some(incoming) = self.hosts[node].incoming.get(&(frame, from)) else { return };
        let sign = if incoming.is_here { incoming.sign } else { Sign::Receiving(0) };
        self.say(node, from, Message::Sign(frame, sign));
        self.push(self.now_ms + SIGN_MS, node, What::SignDue(frame, from));
    }

    pub(super) fn drop_stage(&mut self, node: usize, key: Key, reason: Refusal) {
        if self.hosts[node].stages.contains_key(&key) {
            self.say_of(node, key, Sign::Refused { stage: key.1, reason });
            self.forget(node, key, false);
        }
    }

    /// A stage goes: its streams end, in both directions; of one that is done and sent two copies those of its inputs only.
    fn forget(&mut self, node: usize, key: Key, is_done: bool) {
        let gone = self.hosts[node].stages.remove(&key);
        for (frame, from) in self.incoming_of(node, key) {
            self.hosts[node].incoming.remove(&(frame, from));
            self.say(node, from, Message::Broken(frame));
        }
        if is_done && gone.is_some_and(|hosted| hosted.has_hedged) {
            return;
        }
        let is_its = |(frame, _): &&(Frame, usize)| (frame.attempt, frame.edge.from) == key;
        let sent: Vec<(Frame, usize)> = self.hosts[node].sending.keys().filter(is_its).copied().collect();
        for (frame, to) in sent {
            self.hosts[node].sending.remove(&(frame, to));
            self.say(node, to, Message::Aborted(frame));
        }
    }

    fn broken(&mut self, node: usize, frame: Frame, from: usize) {
        let gone = self.hosts[node].incoming.remove(&(frame, from));
        if gone.is_some_and(|incoming| !incoming.is_here) && frame.edge.to != ORIGIN {
            self.on_stage(node, (frame.attempt, frame.edge.to), StageEvent::Broken(frame.edge.from));
        }
    }

    /// Nothing comes from a peer any more, nor goes there.
    pub(super) fn streams_lost(&mut self, node: usize, peer: usize) {
        let incoming = self.hosts[node].incoming.keys().filter(|(_, from)| *from == peer);
        for (frame, from) in incoming.copied().collect::<Vec<_>>() {
            self.broken(node, frame, from);
        }
        let sending = self.hosts[node].sending.keys().filter(|(_, to)| *to == peer);
        for (frame, to) in sending.copied().collect::<Vec<_>>() {
            self.lost(node, frame, to);
        }
    }
}

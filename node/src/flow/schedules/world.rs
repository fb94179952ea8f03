//! The mesh of one schedule: who hosts what, when messages come, who dies; and the request's origin, on node 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::frame::{Edge, ORIGIN, Sign};
use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::refusal::Refusal;

use super::Random;
use super::host::Host;
use crate::flow::{Origin, OriginAction, OriginEvent, StageEvent};

/// A request ends by then, ms.
pub(super) const DEADLINE_MS: u64 = 8_000;
/// Whatever began by its deadline is over by then, also on a node that stood still twice, ms.
const END_MS: u64 = 5 * DEADLINE_MS;
/// Signs of life come this often, and silence of so long is a loss, ms.
pub(super) const SIGN_MS: u64 = 100;
pub(super) const PATIENCE_MS: u64 = 300;
/// A question to a node without power is given up after this, ms.
const UNANSWERED_MS: u64 = 5_000;
/// A node without power is noticed by its peers after this, ms.
const NOTICED_MS: u64 = 2_000;
/// A node that stands still for longer than this was asked whether it lives, by an origin whose request takes long, and has
/// left that unanswered, ms.
const SILENT_MS: u64 = 2_000;
/// Events of a schedule, at the most.
const EVENTS_MAX: u64 = 200_000;

/// A frame: of which attempt, over which edge; and which copy, of which only the first is watched by its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Frame {
    pub(super) attempt: u16,
    pub(super) edge: Edge,
    pub(super) copy: u8,
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Prepare(u16, Arc<Plan>, u64),
    Offer(Frame, Arc<Plan>, u64),
    Body(Frame, u64),
    Sign(Frame, Sign),
    /// The receiver's end of a stream closed without a last sign; or the sender's before all was sent.
    Broken(Frame),
    Aborted(Frame),
    Failed(u16, u16, Refusal),
    JoinFailed(u16, u16, u16, Refusal),
    Lost(u16),
    Cancel(u16),
    Rejoin(u16, u16, u16),
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Origin(OriginEvent),
    NotTold(u16, usize),
    Stage((u16, u16), StageEvent),
    Message(usize, Message),
    SignDue(Frame, usize),
    Watch(Frame, usize),
    Late(Frame, usize),
    Expire((u16, u16)),
    Disconnected(usize),
    Crash {
        is_clean: bool,
    },
    Stall(u64),
    /// This node left the origin's question unanswered.
    Unanswered(usize),
}

/// What came of schedules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) answered: usize,
    pub(super) failed: usize,
    /// Joins moved, stages taken over by backups, further attempts, inputs refused as there already.
    pub(super) rejoins: usize,
    pub(super) takeovers: usize,
    pub(super) tried_again: usize,
    pub(super) duplicates: usize,
    /// Frames that were sent to another host, too, since the first was late.
    pub(super) hedges: usize,
}

impl Account {
    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.rejoins += other.rejoins;
        self.takeovers += other.takeovers;
        self.tried_again += other.tried_again;
        self.duplicates += other.duplicates;
        self.hedges += other.hedges;
    }
}

/// What every plan of a schedule has: which stages are branches, in which turn, who can host each.
#[derive(Debug)]
struct Shape {
    branches: Vec<Option<u16>>,
    hosts: Vec<Vec<usize>>,
    /// The fork sends something past the branches.
    bypass: bool,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now_ms: u64,
    queue: BTreeMap<(u64, u64), (usize, What)>,
    pushed: u64,
    pub(super) hosts: Vec<Host>,
    shape: Shape,
    /// When the last message of a stream comes, so that those behind it come later.
    streams: BTreeMap<(usize, usize, Frame), u64>,
    origin: Origin,
    plans: Vec<Arc<Plan>>,
    results: BTreeMap<(u16, u16), u64>,
    known_lost: BTreeSet<usize>,
    ends: Vec<Result<u16, String>>,
    /// Hosts that nothing happens to, and whether some refuse.
    untouched: BTreeSet<usize>,
    pub(super) are_refusing: bool,
    pub(super) are_hedging: bool,
    pub(super) account: Account,
    log: Vec<String>,
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId([node as u8; 32])
}

fn node_of(id: NodeId) -> usize {
    usize::from(id.0[0])
}

/// A hash of some numbers.
pub(super) fn mix(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, |hash, number| Random(hash ^ number.wrapping_mul(0x9e37_79b9)).next())
}

/// Plays one schedule.
///
/// # Errors
/// What went wrong, with the last events.
pub(super) fn run(seed: u64) -> Result<Account, String> {
    let mut world = World::new(seed);
    world.play().map_err(|why| {
        let from = world.log.len().saturating_sub(120);
        format!("{why}; {:?}\n{}", world.shape, world.log[from..].join("\n"))
    })?;
    Ok(world.account)
}

impl Shape {
    fn drawn(random: &mut Random, nodes: u64) -> Self {
        let mut branches = vec![None; random.below(3) as usize];
        // One of eight schedules is of a chain.
        if !random.one_in(8) {
            let count = 2 + random.below(2) as u16;
            let first = random.below(count.into()) as u16;
            branches.extend((0..count).map(|turn| Some((turn + first) % count)));
        }
        branches.extend(vec![None; random.below(3) as usize]);
        if branches.is_empty() {
            branches.push(None);
        }
        let is_whole = branches.iter().all(Option::is_some);
        let mut host = || {
            let mut hosts: Vec<usize> =
                (0..1 + random.below(3)).map(|_| random.below(nodes) as usize).collect();
            hosts.sort_unstable();
            hosts.dedup();
            hosts
        };
        let hosts = branches.iter().map(|_| host()).collect();
        Self { branches, hosts, bypass: !is_whole && random.one_in(2) }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(mix([seed, 7]));
        let nodes = 4 + random.below(5);
        let shape = Shape::drawn(&mut random, nodes);
        let mut world = Self {
            are_refusing: random.one_in(4),
            are_hedging: random.one_in(2),
            random,
            now_ms: 0,
            queue: BTreeMap::new(),
            pushed: 0,
            hosts: (0..nodes).map(|_| Host::default()).collect(),
            shape,
            streams: BTreeMap::new(),
            origin: Origin::new(false),
            plans: vec![],
            results: BTreeMap::new(),
            known_lost: BTreeSet::new(),
            ends: vec![],
            untouched: (0..nodes as usize).collect(),
            account: Account::default(),
            log: vec![],
        };
        // Most faults come while the request is under way.
        for _ in 0..world.random.below(4) {
            let (node, at_ms) = (1 + world.random.below(nodes - 1) as usize, 1 + world.random.below(400));
            let is_clean = world.random.one_in(2);
            // One of four stands still beyond the deadline.
            let for_good = if world.random.one_in(4) { DEADLINE_MS } else { 0 };
            let stall_ms = 50 + world.random.below(1_500) + for_good;
            let what = if world.random.one_in(2) { What::Crash { is_clean } } else { What::Stall(stall_ms) };
            world.untouched.remove(&node);
            world.push(at_ms, node, what);
        }
        world
    }

    pub(super) fn push(&mut self, at_ms: u64, node: usize, what: What) {
        self.pushed += 1;
        self.queue.insert((at_ms, self.pushed), (node, what));
    }

    fn play(&mut self) -> Result<(), String> {
        self.plan(vec![], 0);
        self.push(DEADLINE_MS, 0, What::Origin(OriginEvent::Deadline));
        for _ in 0..EVENTS_MAX {
            let Some(((at_ms, _), (node, what))) = self.queue.pop_first() else { return self.judge() };
            self.now_ms = at_ms;
            let host = &self.hosts[node];
            if host.is_dead {
                continue;
            }
            if host.stalled_until_ms > at_ms {
                let until_ms = host.stalled_until_ms;
                self.push(until_ms, node, what);
                continue;
            }
            if !matches!(what, What::SignDue(..) | What::Watch(..)) {
                self.log.push(format!("{at_ms} at {node}: {what:?}"));
            }
            self.happens(node, what);
            if at_ms > END_MS {
                return Err("it goes on for ever".to_owned());
            }
        }
        Err("too many events".to_owned())
    }

    fn happens(&mut self, node: usize, what: What) {
        match what {
            What::Origin(event) => self.on_origin(event),
            What::NotTold(attempt, node) => {
                if self.origin.attempts() == attempt {
                    self.on_origin(OriginEvent::PeerLost(id(node)));
                }
            }
            What::Stage(key, event) => self.on_stage(node, key, event),
            What::Message(from, message) => self.hear(node, from, message),
            What::SignDue(frame, from) => self.sign_due(node, frame, from),
            What::Watch(frame, to) => self.watch(node, frame, to),
            What::Late(frame, to) => self.late(node, frame, to),
            What::Expire(key) => self.drop_stage(node, key, Refusal::DeadlinePassed),
            What::Disconnected(peer) => self.disconnected(node, peer),
            What::Crash { is_clean } => self.crash(node, is_clean),
            What::Stall(for_ms) => {
                self.hosts[node].stalled_until_ms = self.now_ms + for_ms;
                if for_ms > SILENT_MS {
                    self.push(self.now_ms + SILENT_MS, 0, What::Unanswered(node));
                }
            }
            What::Unanswered(node) => {
                self.known_lost.insert(node);
                self.on_origin(OriginEvent::PeerLost(id(node)));
            }
        }
    }

    /// Ended once, right, in time, with nothing left; and answered, if nothing happened to one host of each stage.
    fn judge(&mut self) -> Result<(), String> {
        let [end] = &self.ends[..] else { return Err(format!("{} ends", self.ends.len())) };
        for (node, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.is_dead) {
            if let Some(held) = host.holds() {
                return Err(format!("node {node} still holds {held}"));
            }
        }
        match end {
            Ok(attempt) => {
                let plan = &self.plans[usize::from(*attempt) - 1];
                for stage in self.finals(plan) {
                    if self.results.get(&(*attempt, stage))
                        != Some(&self.expected(plan, *attempt, stage, ORIGIN))
                    {
                        return Err(format!("stage {stage} of attempt {attempt} gave a wrong result"));
                    }
                }
                self.account.answered += 1;
            }
            Err(why) => {
                let stages = &self.shape.hosts;
                let is_safe = |hosts: &Vec<usize>| hosts.iter().any(|host| self.untouched.contains(host));
                if stages.iter().all(is_safe) && !self.are_refusing {
                    return Err(format!("not answered, though each stage had a host that lives: {why}"));
                }
                self.account.failed += 1;
            }
        }
        self.account.tried_again += usize::from(self.origin.attempts().saturating_sub(1));
        Ok(())
    }

    /// The stages that give parts of the result.
    fn finals(&self, plan: &Plan) -> Vec<u16> {
        (0..plan.stages.len() as u16).filter(|stage| self.outputs(plan, *stage).contains(&ORIGIN)).collect()
    }

    pub(super) fn inputs(&self, plan: &Plan, stage: u16) -> Vec<u16> {
        let before = plan.before(stage);
        if !plan.is_join(stage) {
            return vec![before];
        }
        let bypass = self.shape.bypass.then(|| plan.before(before));
        plan.beside(before).chain(bypass).collect()
    }

    pub(super) fn outputs(&self, plan: &Plan, stage: u16) -> Vec<u16> {
        let next = if stage == ORIGIN { 0 } else { plan.behind(stage) };
        if next == ORIGIN {
            return vec![ORIGIN];
        }
        let mut next: Vec<u16> = plan.beside(next).collect();
        next.sort_by_key(|stage| plan.stages[usize::from(*stage)].branch);
        if next.len() > 1 && self.shape.bypass {
            // Past branches that end the plan it goes to the origin, too.
            next.push(plan.behind(next[0]));
        }
        next
    }

    /// What a tensor is when all is right.
    fn expected(&self, plan: &Plan, attempt: u16, stage: u16, to: u16) -> u64 {
        if stage == ORIGIN {
            return mix([attempt.into(), to.into()]);
        }
        let mut inputs = self.inputs(plan, stage);
        inputs.sort_unstable();
        let inputs = inputs.into_iter().map(|from| (from, self.expected(plan, attempt, from, stage)));
        computed(attempt, stage, to, inputs)
    }

    /// Hosts for each stage, none of those without, and none that is known to be lost while there are others.
    fn plan(&mut self, without: Vec<NodeId>, after_ms: u64) {
        let at_ms = self.now_ms + after_ms + 1;
        let mut stages = vec![];
        for (index, hosts) in self.shape.hosts.clone().into_iter().enumerate() {
            let mut hosts: Vec<usize> =
                hosts.into_iter().filter(|host| !without.contains(&id(*host))).collect();
            if hosts.iter().any(|host| !self.known_lost.contains(host)) {
                hosts.retain(|host| !self.known_lost.contains(host));
            }
            if hosts.is_empty() {
                let event = OriginEvent::NoPlan(format!("nobody has stage {index}"));
                return self.push(at_ms, 0, What::Origin(event));
            }
            let first = self.random.below(hosts.len() as u64) as usize;
            hosts.rotate_left(first);
            stages.push(Stage {
                node: id(hosts[0]),
                first: index as u16,
                end: index as u16 + 1,
                codec: Codec::Raw,
                backups: hosts[1..].iter().map(|host| id(*host)).collect(),
                branch: self.shape.branches[index],
            });
        }
        let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
        let plan = Plan { variant, origin: id(0), stages, result_codec: Codec::Raw };
        assert!(plan.check().is_ok(), "{plan:?}");
        self.push(at_ms, 0, What::Origin(OriginEvent::Planned(plan)));
    }

    pub(super) fn origin_may_hedge(&self, attempt: u16, stage: u16, behind: NodeId) -> Vec<NodeId> {
        self.origin.may_hedge(attempt, stage, behind)
    }

    pub(super) fn on_origin(&mut self, event: OriginEvent) {
        for action in self.origin.handle(event) {
            match action {
                OriginAction::Begin { attempt, plan } => self.begin(attempt, plan),
                OriginAction::Send { attempt, stage, to } => {
                    let plan = self.plans[usize::from(attempt) - 1].clone();
                    if self.outputs(&plan, ORIGIN).contains(&stage) {
                        self.send_input(attempt, &plan, stage, node_of(to));
                    }
                }
                OriginAction::Rejoin { attempt, stage, host } => {
                    self.account.rejoins += 1;
                    self.tell_of_rejoin(attempt, stage, host);
                }
                OriginAction::Plan { without, after_ms } => self.plan(without, after_ms),
                OriginAction::Cancel { attempt, plan } => {
                    self.hosts[0]
                        .sending
                        .retain(|(frame, _), _| frame.attempt != attempt || frame.edge.from != ORIGIN);
                    let hosts: BTreeSet<usize> =
                        plan.stages.iter().flat_map(Stage::hosts).map(node_of).chain([0]).collect();
                    for host in hosts {
                        self.say(0, host, Message::Cancel(attempt));
                    }
                }
                OriginAction::Answer { attempt } => self.ends.push(Ok(attempt)),
                OriginAction::Fail(failure) => self.ends.push(Err(format!("{failure:?}"))),
            }
        }
    }

    fn begin(&mut self, attempt: u16, plan: Plan) {
        let plan = Arc::new(plan);
        self.plans.push(plan.clone());
        if self.random.one_in(4) {
            for stage in &plan.stages {
                let prepare = Message::Prepare(attempt, plan.clone(), self.remaining_ms());
                self.say(0, node_of(stage.node), prepare);
            }
        }
        for stage in self.outputs(&plan, ORIGIN) {
            self.send_input(attempt, &plan, stage, node_of(plan.stages[usize::from(stage)].node));
        }
    }

    fn remaining_ms(&self) -> u64 {
        DEADLINE_MS.saturating_sub(self.now_ms)
    }

    fn send_input(&mut self, attempt: u16, plan: &Arc<Plan>, stage: u16, to: usize) {
        let frame = Frame { attempt, edge: Edge { from: ORIGIN, to: stage }, copy: 0 };
        let tensor = self.expected(plan, attempt, ORIGIN, stage);
        self.deliver(0, to, frame, plan, tensor, self.remaining_ms());
    }

    /// As the driver: who cannot be told of it may send to another host than the rest, so the try is over.
    fn tell_of_rejoin(&mut self, attempt: u16, stage: u16, host: u16) {
        let plan = self.plans[usize::from(attempt) - 1].clone();
        let senders = self.inputs(&plan, stage).into_iter().filter(|from| *from != ORIGIN);
        let told: BTreeSet<NodeId> =
            senders.flat_map(|from| plan.stages[usize::from(from)].hosts().collect::<Vec<_>>()).collect();
        for node in told.into_iter().map(node_of) {
            self.say(0, node, Message::Rejoin(attempt, stage, host));
            if self.hosts[node].is_dead {
                let after_ms = if self.hosts[node].is_clean { 5 } else { UNANSWERED_MS };
                self.push(self.now_ms + after_ms, 0, What::NotTold(attempt, node));
            }
        }
    }

    /// A part of the result is here, whole. Whether it was wanted.
    pub(super) fn result(&mut self, frame: Frame, tensor: u64) {
        let Frame { attempt, edge, .. } = frame;
        self.results.insert((attempt, edge.from), tensor);
        let plan = &self.plans[usize::from(attempt) - 1];
        if self.finals(plan).iter().all(|stage| self.results.contains_key(&(attempt, *stage))) {
            self.on_origin(OriginEvent::Result(attempt));
        }
    }

    /// Whether a part of the result is wanted.
    pub(super) fn accept_result(&self, frame: Frame) -> Result<(), Refusal> {
        if !self.ends.is_empty() {
            return Err(Refusal::NotWaiting);
        }
        let is_here = self.results.contains_key(&(frame.attempt, frame.edge.from));
        if is_here { Err(Refusal::Duplicate) } else { Ok(()) }
    }

    /// A message on its way, not before those of the same stream.
    pub(super) fn say(&mut self, from: usize, to: usize, message: Message) {
        let mut delay_ms = 1 + self.random.below(20);
        if self.random.one_in(40) {
            delay_ms += self.random.below(450);
        }
        if from == to {
            delay_ms = 0;
        }
        let mut at_ms = self.now_ms + delay_ms;
        if let Message::Offer(frame, ..)
        | Message::Body(frame, _)
        | Message::Sign(frame, _)
        | Message::Broken(frame)
        | Message::Aborted(frame) = &message
        {
            let last_ms = self.streams.entry((from, to, *frame)).or_default();
            at_ms = at_ms.max(*last_ms);
            *last_ms = at_ms;
        }
        self.push(at_ms, to, What::Message(from, message));
    }

    fn crash(&mut self, node: usize, is_clean: bool) {
        self.hosts[node] = Host::dead(is_clean);
        for peer in (0..self.hosts.len()).filter(|peer| *peer != node) {
            let after_ms = if is_clean { 2 + self.random.below(5) } else { NOTICED_MS };
            self.push(self.now_ms + after_ms, peer, What::Disconnected(node));
        }
    }

    fn disconnected(&mut self, node: usize, peer: usize) {
        self.streams_lost(node, peer);
        if node == 0 {
            self.known_lost.insert(peer);
            self.on_origin(OriginEvent::PeerLost(id(peer)));
        }
    }
}

/// A tensor of a stage's output.
pub(super) fn computed(attempt: u16, stage: u16, to: u16, inputs: impl Iterator<Item = (u16, u64)>) -> u64 {
    let inputs: Vec<u64> = inputs.flat_map(|(from, tensor)| [from.into(), tensor]).collect();
    mix([attempt.into(), stage.into(), to.into()].into_iter().chain(inputs))
}

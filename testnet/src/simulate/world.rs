//! All hosts and what lies between them, moved from event to event.

mod receiving;
mod sending;

use std::collections::BTreeMap;

use stormo::mesh::{MemberAction, MemberEvent};
use stormo_protocol::ids::MeshId;

use super::faults::Fault;
use super::figures::Figures;
use super::gossip::{self, Rpc};
use super::host::{self, Host, Kind};
use super::joining::Shake;
use super::messages::Messages;
use super::pipes::{HostIndex, NetworkSpec, PipeIndex, Pipes};
use super::talk::{Payload, Talk};
use super::wire::{self, GossipSizes};
use super::work::{Work, WorkEvent};
use crate::random::Random;

/// `net/swarm.rs`: round trips are measured this often, microseconds; a ping carries 32 bytes each way.
const PING_US: u64 = 1_000_000;
const PING_BYTES: u64 = 32;
/// gossipsub drops what waits for longer in its own queues: what is passed on, and what is published.
const FORWARD_US: u64 = 1_000_000;
/// What a node takes for a message that it is sent, seen before or not, microseconds of a core: gossipsub checks a
/// signature, the node another one. Measured on meshes of 10 and 20 nodes, all their work over all their messages.
const MESSAGE_US: u64 = 150;
/// The same for a message about messages: a guess, small beside that.
const CONTROL_US: u64 = 5;
/// The load of a host is another one after this, microseconds, by up to 29 % of its cores: always worth a record that
/// can wait, never an urgent one.
const LOAD_US: u64 = 1_000_000;
/// `app/driver/gossip.rs`: a connection is closed on purpose once the other end has heard of it; one that carries nothing,
/// though perhaps in one direction only, after this at the latest, microseconds.
const STALLED_TELL_US: u64 = 1_000_000;
/// How often figures are taken, microseconds.
const OBSERVE_US: u64 = 100_000;

/// What can happen.
#[derive(Debug)]
pub(super) enum What {
    /// A host starts.
    Start(HostIndex),
    /// Something arrives.
    Arrive(PipeIndex, Payload),
    /// Something that arrived is looked at.
    Serve(PipeIndex, Payload),
    /// TCP repeats what was lost.
    Repeat(PipeIndex),
    /// The sender's end hears that the other end is gone.
    Reset(PipeIndex),
    /// A connection is closed on purpose, whether or not the other end has heard of it.
    Shut(PipeIndex),
    /// A step of a handshake.
    Shake(Box<Shake>),
    /// A host's driver looks at its member.
    Tick(HostIndex, u32),
    /// gossipsub's clock.
    Heartbeat(HostIndex, u32),
    /// libp2p's ping.
    Ping(PipeIndex),
    /// A fault begins, or ends.
    Fault(Fault),
    /// Figures are taken.
    Observe,
    /// Something about requests.
    Work(Box<WorkEvent>),
}

/// What waits for a connection: until when, what, and its bytes.
type Waiting = (u64, Talk, u64);

/// The simulated mesh.
#[derive(Debug)]
pub(super) struct World {
    pub(super) queue: super::queue::Queue<What>,
    pub(super) pipes: Pipes<Payload>,
    pub(super) hosts: Vec<Host>,
    pub(super) messages: Messages,
    pub(super) figures: Figures,
    pub(super) random: Random,
    pub(super) work: Work,
    /// Whether the load of each host is another one every second.
    pub(super) loads_change: bool,
    /// When each core that all hosts share is free; none if each has its own.
    pub(super) cores_free_us: Vec<u64>,
    /// Times that a stream of gossip was refused, by connection.
    refused: Vec<u32>,
    /// What waits for a connection, until when.
    waiting: BTreeMap<(HostIndex, HostIndex), Vec<Waiting>>,
    sizes: GossipSizes,
    events: u64,
    trace: u64,
}

impl World {
    pub(super) fn new(
        network: NetworkSpec,
        hosts: Vec<Host>,
        figures: Figures,
        work: Work,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let pipes = Pipes::new(network, hosts.len(), random.bits());
        let messages = Messages::new(hosts.len());
        let sizes = GossipSizes::of(MeshId([7; 16]));
        let mut queue = super::queue::Queue::new();
        queue.push(OBSERVE_US, What::Observe);
        let (refused, waiting, events, trace) = (Vec::new(), BTreeMap::new(), 0, seed);
        Self {
            queue,
            pipes,
            hosts,
            messages,
            figures,
            random,
            work,
            loads_change: true,
            cores_free_us: Vec::new(),
            refused,
            waiting,
            sizes,
            events,
            trace,
        }
    }

    /// Events so far, and a hash of them all: equal for equal seeds.
    pub(super) fn trace(&self) -> (u64, u64) {
        (self.events, self.trace)
    }

    /// Runs until a time, microseconds.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while let Some((now_us, what)) = self.queue.pop(until_us) {
            self.note(now_us, &what);
            if let Some(until_us) = self.paused_until(now_us, &what) {
                self.queue.push(until_us, what);
            } else {
                self.happen(now_us, what);
            }
        }
    }

    fn note(&mut self, now_us: u64, what: &What) {
        let what = match what {
            What::Arrive(pipe, _) => 1 << 40 | u64::from(*pipe),
            What::Repeat(pipe) => 2 << 40 | u64::from(*pipe),
            What::Reset(pipe) => 3 << 40 | u64::from(*pipe),
            What::Ping(pipe) => 4 << 40 | u64::from(*pipe),
            What::Tick(host, _) => 5 << 40 | u64::from(*host),
            What::Heartbeat(host, _) => 6 << 40 | u64::from(*host),
            What::Start(host) => 7 << 40 | u64::from(*host),
            What::Shake(shake) => 8 << 40 | u64::from(shake.from) << 16 | u64::from(shake.to),
            What::Fault(_) => 9 << 40,
            What::Observe => 10 << 40,
            What::Serve(pipe, _) => 12 << 40 | u64::from(*pipe),
            What::Shut(pipe) => 13 << 40 | u64::from(*pipe),
            What::Work(event) => 11 << 40 | event.trace(),
        };
        self.events += 1;
        self.trace = Random::new(self.trace ^ now_us.rotate_left(20) ^ what).bits();
    }

    /// Until when an event has to wait because its host gets no processor. Kernels repeat and reset all the same.
    fn paused_until(&self, now_us: u64, what: &What) -> Option<u64> {
        let host = match what {
            What::Arrive(pipe, _) | What::Serve(pipe, _) => self.pipes.pipe(*pipe).to,
            What::Ping(pipe) | What::Shut(pipe) => self.pipes.pipe(*pipe).from,
            What::Tick(host, _) | What::Heartbeat(host, _) => *host,
            What::Work(event) => event.host()?,
            _ => return None,
        };
        let host = &self.hosts[usize::from(host)];
        (host.alive && host.paused_until_us > now_us).then_some(host.paused_until_us)
    }

    fn happen(&mut self, now_us: u64, what: What) {
        match what {
            What::Arrive(pipe, payload) => match self.waits_until(now_us, pipe, &payload) {
                Some(at_us) => self.queue.push(at_us, What::Serve(pipe, payload)),
                None => self.arrive(now_us, pipe, payload),
            },
            What::Serve(pipe, payload) => self.arrive(now_us, pipe, payload),
            What::Repeat(pipe) => self.repeat(now_us, pipe),
            What::Reset(pipe) => self.disconnect(now_us, pipe),
            What::Shut(pipe) => self.shut(now_us, pipe),
            What::Ping(pipe) => self.ping(now_us, pipe),
            What::Tick(host, life) => self.tick(now_us, host, life),
            What::Heartbeat(host, life) => self.heartbeat(now_us, host, life),
            What::Start(host) => self.start(now_us, host),
            What::Shake(shake) => self.shake(now_us, *shake),
            What::Fault(fault) => self.fault(now_us, fault),
            What::Observe => {
                self.figures.observe(now_us, &self.hosts);
                self.queue.push(now_us + OBSERVE_US, What::Observe);
            }
            What::Work(event) => self.work_event(now_us, *event),
        }
    }

    /// Gossip is looked at one after the other: until when this waits for those before it, if it does.
    fn waits_until(&mut self, now_us: u64, pipe: PipeIndex, payload: &Payload) -> Option<u64> {
        let Payload::Rpc(rpc) = payload else { return None };
        let host = &mut self.hosts[usize::from(self.pipes.pipe(pipe).to)];
        let takes_us = if matches!(rpc, Rpc::Publish(_)) { MESSAGE_US } else { CONTROL_US };
        let mut begins_us = host.busy_until_us.max(now_us);
        if let Some(free_us) = self.cores_free_us.iter_mut().min() {
            begins_us = begins_us.max(*free_us);
            *free_us = begins_us + takes_us;
        }
        host.busy_until_us = begins_us + takes_us;
        (begins_us > now_us).then_some(begins_us)
    }

    fn start(&mut self, now_us: u64, index: HostIndex) {
        let host = &mut self.hosts[usize::from(index)];
        if host.alive {
            return;
        }
        host.start(now_us);
        let life = host.life;
        self.pipes.set_dark(index, false);
        self.messages.forget(index);
        let spread_us = self.random.bits() % gossip::HEARTBEAT_US;
        self.queue.push(now_us + gossip::HEARTBEAT_FIRST_US + spread_us, What::Heartbeat(index, life));
        self.is(now_us, index);
        self.member_event(now_us, index, MemberEvent::Started);
        let tick_us = self.hosts[usize::from(index)].tick_us(now_us);
        self.queue.push(tick_us, What::Tick(index, life));
        self.work_started(now_us, index);
    }

    fn tick(&mut self, now_us: u64, index: HostIndex, life: u32) {
        let host = &self.hosts[usize::from(index)];
        if host.alive && host.life == life {
            if self.loads_change && now_us >= host.looked_us + LOAD_US {
                let (utilisation_permille, looked_us) = ((self.random.bits() % 300) as u16, now_us);
                let host = &mut self.hosts[usize::from(index)];
                (host.utilisation_permille, host.looked_us) = (utilisation_permille, looked_us);
                self.is(now_us, index);
            }
            self.look_at_quiet(now_us, index);
            self.member_event(now_us, index, MemberEvent::Tick);
            self.queue.push(self.hosts[usize::from(index)].tick_us(now_us), What::Tick(index, life));
        }
    }

    /// As `app/driver/gossip.rs` has it: who is about to be given up is not if bytes came.
    fn look_at_quiet(&mut self, now_us: u64, index: HostIndex) {
        let host = &self.hosts[usize::from(index)];
        for peer in host.member.quiet(host.clock_ms(now_us)) {
            let pipe = self.hosts[usize::from(index)].peers.get(&host::index_of(peer)).copied();
            let back = pipe.map(|pipe| self.pipes.pipe(Pipes::<Payload>::back(pipe)));
            if let Some(came_us) = back.and_then(|back| back.came_us(now_us)) {
                let ago_ms = (now_us - came_us) / 1_000;
                self.member_event(now_us, index, MemberEvent::Carried { peer, ago_ms });
            }
        }
    }

    fn heartbeat(&mut self, now_us: u64, index: HostIndex, life: u32) {
        let host = &mut self.hosts[usize::from(index)];
        if host.alive && host.life == life {
            let sends = host.gossip.heartbeat(now_us);
            self.queue.push(now_us + gossip::HEARTBEAT_US, What::Heartbeat(index, life));
            self.gossip(now_us, sends, FORWARD_US);
        }
    }

    fn ping(&mut self, now_us: u64, pipe: PipeIndex) {
        if self.pipes.pipe(pipe).open {
            self.send(now_us, pipe, Payload::Ping(now_us), wire::framed(PING_BYTES), Kind::Ping);
            self.queue.push(now_us + PING_US, What::Ping(pipe));
        }
    }

    /// A host's member hears how the host is.
    pub(super) fn is(&mut self, now_us: u64, index: HostIndex) {
        let about = self.hosts[usize::from(index)].about();
        self.member_event(now_us, index, MemberEvent::Is(about));
    }

    /// A member's event, and what it wants done.
    pub(super) fn member_event(&mut self, now_us: u64, index: HostIndex, event: MemberEvent) {
        let host = &mut self.hosts[usize::from(index)];
        let clock_ms = host.clock_ms(now_us);
        for action in host.member.handle(clock_ms, event) {
            self.act(now_us, index, action);
        }
    }

    fn act(&mut self, now_us: u64, index: HostIndex, action: MemberAction) {
        match action {
            MemberAction::Sign => {
                let host = &mut self.hosts[usize::from(index)];
                let clock_ms = host.clock_ms(now_us);
                if let Some(heard) = host.next_record() {
                    host.member.signed(clock_ms, heard);
                }
            }
            MemberAction::Gossip => self.publish(now_us, index),
            MemberAction::Exchange { peer, exchange } => {
                let bytes = wire::asked(wire::exchange(&exchange));
                self.talk(now_us, index, host::index_of(peer), Talk::Exchange(now_us, exchange), bytes);
            }
            MemberAction::Tell { peer, wanted } => {
                let host = &mut self.hosts[usize::from(index)];
                let news = host.member.told(host.clock_ms(now_us), &wanted);
                let bytes = wire::asked(wire::news(&news));
                self.talk(now_us, index, host::index_of(peer), Talk::Tell(news), bytes);
            }
            MemberAction::Part(peer) => self.part(now_us, index, host::index_of(peer), None),
            MemberAction::Close(peer) => {
                self.part(now_us, index, host::index_of(peer), Some(STALLED_TELL_US));
            }
            MemberAction::Dial(address) => self.dial(now_us, index, address),
            MemberAction::Probe(peer) => {
                let bytes = wire::framed(Talk::PROBE_ASKED_BYTES);
                self.talk(now_us, index, host::index_of(peer), Talk::Probe, bytes);
            }
            MemberAction::Lost(peer) => self.work_peer_lost(now_us, index, host::index_of(peer)),
            MemberAction::Wished
            | MemberAction::Reachable { .. }
            | MemberAction::CannotJoin { .. }
            | MemberAction::Outdone
            | MemberAction::NameTaken { .. }
            | MemberAction::Copied => {}
        }
    }

    fn publish(&mut self, now_us: u64, index: HostIndex) {
        let host = &mut self.hosts[usize::from(index)];
        let Some(heard) = host.member.own_record().cloned() else { return };
        let data_bytes = wire::signed_bytes(heard.signed());
        let id = self.messages.publish(now_us, index, heard, data_bytes);
        let sends = host.gossip.publish(id);
        // What is published waits five times as long as what is passed on.
        self.gossip(now_us, sends, 5 * FORWARD_US);
    }
}

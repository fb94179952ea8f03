//! The switch between all nodes: frames in with the time, frames out when they are due. It reads no
//! clock and no device; `pump` does.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;

use super::frame::{self, End, OFFLOAD_BYTES};
use super::nat::Nat;
use super::route::{self, Station, Ways};
use crate::link::{Counts, Delivery, Link, LinkSpec};
use crate::random::Random;
use crate::topology::Topology;

/// Packets under way, with what the switch needs for each, bytes: a second of 2 Gbit/s.
const UNDER_WAY_BYTES_MAX: usize = 256 << 20;
/// What a packet takes beside its bytes, about.
const PACKET_BYTES: usize = 128;

/// A packet that is due at the end of one of its links.
#[derive(Debug)]
struct Due {
    number: u64,
    from: usize,
    to: usize,
    /// Place of the link on the way.
    hop: usize,
    delivery: Delivery,
    frame: Vec<u8>,
}

impl Due {
    fn key(&self) -> (u64, u64) {
        (self.delivery.at_us, self.number)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Takes what has arrived at a node.
pub(super) trait Arrivals {
    fn arrived(&mut self, node: usize, frame: &[u8]);
}

impl<F: FnMut(usize, &[u8])> Arrivals for F {
    fn arrived(&mut self, node: usize, frame: &[u8]) {
        self(node, frame);
    }
}

/// What the switch itself dropped, packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// For nobody, or not of IPv4.
    pub unroutable: u64,
    /// Of a node without power, or for one.
    pub unpowered: u64,
    /// Too much was under way.
    pub overflow: u64,
}

#[derive(Debug)]
pub(super) struct Switch {
    links: Vec<Link>,
    ways: Ways,
    stations: Vec<Station>,
    places: BTreeMap<Ipv4Addr, usize>,
    nats: Vec<Nat>,
    has_power: Vec<bool>,
    due: BinaryHeap<Reverse<Due>>,
    under_way_bytes: usize,
    next_number: u64,
    random: Random,
    dropped: Dropped,
}

impl Switch {
    pub(super) fn new(topology: &Topology, seed: u64) -> Self {
        let ways = Ways::new(topology);
        let stations = route::stations(topology);
        let mut random = Random::new(seed);
        let nats = topology.nats.iter().enumerate();
        Self {
            links: ways.links.iter().map(|spec| Link::new(*spec, random.bits())).collect(),
            ways,
            places: stations.iter().enumerate().map(|(place, station)| (station.address, place)).collect(),
            has_power: vec![true; stations.len()],
            stations,
            nats: nats
                .map(|(place, spec)| Nat::new(route::nat_address(place), spec.mapping, spec.filtering))
                .collect(),
            due: BinaryHeap::new(),
            under_way_bytes: 0,
            next_number: 0,
            random,
            dropped: Dropped::default(),
        }
    }

    /// Takes a frame that a node has sent. What [`Switch::deliver_due`] has to deliver at that time goes
    /// before it. May change the frame.
    pub(super) fn take(&mut self, now_us: u64, from: usize, frame: &mut [u8], arrivals: &mut dyn Arrivals) {
        let Some(to) = self.route(now_us, from, frame) else {
            self.dropped.unroutable += 1;
            return;
        };
        if !self.has_power[from] || !self.has_power[to] {
            self.dropped.unpowered += 1;
            return;
        }
        let links = self.ways.hops(from, to).iter().map(|link| &self.links[*link]);
        // On the way nothing looks at single packets then.
        let may_stay_together = links.into_iter().all(|link| link.spec().is_plain());
        if frame::is_train(frame) && !may_stay_together {
            for packet in frame::packets_of(frame) {
                self.pass(now_us, (from, to), 0, packet.into(), arrivals);
            }
        } else {
            self.pass(now_us, (from, to), 0, (&*frame).into(), arrivals);
        }
    }

    /// Delivers what is due by a time.
    pub(super) fn deliver_due(&mut self, now_us: u64, arrivals: &mut dyn Arrivals) {
        while self.next_due_us().is_some_and(|due_us| due_us <= now_us) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            self.under_way_bytes -= due.frame.len() + PACKET_BYTES;
            let Due { from, to, hop, delivery, mut frame, .. } = due;
            if !self.links[self.ways.hops(from, to)[hop]].arrives(&delivery) {
                continue;
            }
            if !self.has_power[from] || !self.has_power[to] {
                self.dropped.unpowered += 1;
                continue;
            }
            if delivery.corrupted {
                frame::damage(&mut frame, self.random.bits());
            }
            self.pass(delivery.at_us, (from, to), hop + 1, frame.into(), arrivals);
        }
    }

    /// When something is due next.
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.due.peek().map(|Reverse(due)| due.delivery.at_us)
    }

    /// Brings a frame on from the begin of a link, through those that let it pass at once.
    fn pass(
        &mut self,
        at_us: u64,
        (from, to): (usize, usize),
        first_hop: usize,
        frame: Cow<'_, [u8]>,
        arrivals: &mut dyn Arrivals,
    ) {
        let bytes = (frame.len() - OFFLOAD_BYTES) as u64;
        for hop in first_hop..self.ways.hops(from, to).len() {
            let link = self.ways.hops(from, to)[hop];
            let mut deliveries = self.links[link].offer(at_us, bytes).deliveries();
            let Some(first) = deliveries.next() else { return };
            let second = deliveries.next();
            if first.at_us <= at_us && !first.corrupted && second.is_none() {
                continue;
            }
            if let Some(delivery) = second {
                self.hold(Due { number: 0, from, to, hop, delivery, frame: frame.to_vec() });
            }
            self.hold(Due { number: 0, from, to, hop, delivery: first, frame: frame.into_owned() });
            return;
        }
        arrivals.arrived(to, &frame);
    }

    fn hold(&mut self, mut due: Due) {
        let bytes = due.frame.len() + PACKET_BYTES;
        if self.under_way_bytes + bytes > UNDER_WAY_BYTES_MAX {
            self.dropped.overflow += 1;
            return;
        }
        self.under_way_bytes += bytes;
        due.number = self.next_number;
        self.next_number += 1;
        self.due.push(Reverse(due));
    }

    /// The node that a frame is for, addresses being translated on the way.
    fn route(&mut self, now_us: u64, from: usize, frame: &mut [u8]) -> Option<usize> {
        let layout = frame::layout(frame)?;
        let to = frame::address(frame, End::Destination)?;
        let sender = self.stations[from];
        if let Some(place) = self.places.get(&to).copied() {
            let receiver = self.stations[place];
            if receiver.nat == sender.nat {
                return Some(place);
            }
            // An address behind a translation means something else outside.
            if receiver.nat.is_some() {
                return None;
            }
        }
        // An echo has one number where others have two ports: it stands for the inner end's.
        let is_echo = layout.protocol == frame::ICMP;
        let mut source = (sender.address, frame::port(frame, &layout, End::Source)?);
        let destination_port = frame::port(frame, &layout, End::Destination)?;
        if let Some(nat) = sender.nat {
            let destination = (to, if is_echo { 0 } else { destination_port });
            source = self.nats[nat].outwards(now_us, layout.protocol, source, destination);
            frame::rewrite(frame, &layout, End::Source, source)?;
        }
        if let Some(place) = self.places.get(&to).copied() {
            return Some(place);
        }
        let nat = self.nats.iter().find(|nat| nat.address == to)?;
        let (port, source) = if is_echo { (source.1, (source.0, 0)) } else { (destination_port, source) };
        let inside = nat.inwards(now_us, layout.protocol, source, port)?;
        frame::rewrite(frame, &layout, End::Destination, inside)?;
        self.places.get(&inside.0).copied()
    }

    /// The link that only packets from one node to another go through.
    pub(super) fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[self.ways.pair(from, to)]
    }

    pub(super) fn set_link(&mut self, now_us: u64, from: usize, to: usize, spec: LinkSpec) {
        let pair = self.ways.pair(from, to);
        self.links[pair].set(now_us, spec);
    }

    /// Mends all cut links.
    pub(super) fn heal(&mut self, now_us: u64) {
        for &pair in self.ways.pairs() {
            let spec = LinkSpec { cut: false, ..*self.links[pair].spec() };
            self.links[pair].set(now_us, spec);
        }
    }

    pub(super) fn set_rates(&mut self, now_us: u64, node: usize, up: Option<u64>, down: Option<u64>) {
        let access = self.ways.access(node);
        for (link, rate_bits_per_s) in [(access.0, up), (access.1, down)] {
            let spec = LinkSpec { rate_bits_per_s, ..*self.links[link].spec() };
            self.links[link].set(now_us, spec);
        }
    }

    /// Gives a node power, or takes it: then nothing of it or for it is delivered, not even what is
    /// under way.
    pub(super) fn set_power(&mut self, node: usize, has_power: bool) {
        self.has_power[node] = has_power;
    }

    /// What the link of a pair has done. A batch of a sender's packets that nothing on the way looks
    /// into counts as one.
    pub(super) fn counts(&self, from: usize, to: usize) -> Counts {
        self.link(from, to).counts()
    }

    /// Time in which a node's uplink and downlink were busy, nanoseconds; `None` while it has no power.
    pub(super) fn busy_ns(&self, node: usize) -> Option<(u64, u64)> {
        let (up, down) = self.ways.access(node);
        let busy_ns = |link: usize| self.links[link].counts().busy_ns;
        self.has_power[node].then(|| (busy_ns(up), busy_ns(down)))
    }

    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }
}

#[cfg(test)]
mod tests;

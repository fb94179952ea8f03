//! Connections as their users see TCP: what is lost on a link arrives later, in order, or not at all.
//!
//! Each host has an uplink (a rate with a queue), each pair of hosts a way in each direction (latency,
//! jitter, loss, cuts). No congestion window is modelled, so long messages arrive sooner than after TCP's slow
//! start; a packet that is on its way when its link is cut still arrives.

use std::collections::{HashMap, VecDeque};

use super::wire;
use crate::link::{Fate, Link, LinkSpec};
use crate::random::Random;

/// A host, by its place.
pub(super) type HostIndex = u16;
/// One direction of a connection; the other one has the last bit turned.
pub(super) type PipeIndex = u32;

/// Packets behind a lost one that tell of the loss (RFC 5681).
const FOLLOWERS: usize = 3;
/// Without them Linux repeats after two round trips and this time, microseconds (tail loss probe, RFC 8985).
const REPEAT_US_MIN: u64 = 200_000;
/// Longest pause between two repetitions: as `TCP_RTO_MAX` of Linux.
const REPEAT_US_MAX: u64 = 120_000_000;
/// A connection that gets nothing through is given up after a time in between, microseconds: measured on
/// libp2p 0.57 over TCP.
const GIVE_UP_US: (u64, u64) = (12_000_000, 53_000_000);
/// A long message is offered to a link in so many pieces.
const PIECES_MAX: u64 = 16;

/// What is sent over a connection, with its bytes on it.
#[derive(Debug)]
pub(super) struct Parcel<T> {
    pub(super) bytes: u64,
    pub(super) payload: T,
    /// Not worth sending after this time, as gossipsub's queues have it.
    pub(super) until_us: u64,
}

/// What comes of sending.
#[derive(Debug)]
pub(super) enum Sent<T> {
    /// It arrives then.
    Arrives(u64, T),
    /// Something has to be repeated then.
    Repeat(u64),
    /// It waits behind what has to be repeated.
    Waits,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe<T> {
    pub(super) from: HostIndex,
    pub(super) to: HostIndex,
    /// Whether `from` holds it.
    pub(super) open: bool,
    way: u32,
    last_us: u64,
    /// When pieces arrive at `to`: the last that has, and those under way.
    arrivals: VecDeque<u64>,
    /// Something was lost and is to be repeated; when the connection is given up if that does not help.
    stalled: Option<u64>,
    /// When to repeat next.
    repeat_us: u64,
    tries: u32,
    waiting: VecDeque<Parcel<T>>,
}

impl<T> Pipe<T> {
    fn note(&mut self, now_us: u64, arrives_us: u64) {
        while self.arrivals.get(1).is_some_and(|next_us| *next_us <= now_us) {
            self.arrivals.pop_front();
        }
        if self.arrivals.back().is_none_or(|last_us| *last_us < arrives_us) {
            self.arrivals.push_back(arrives_us);
        }
    }

    /// When the last bytes came over it, whether or not they make a whole message; `None` if none did.
    pub(super) fn came_us(&self, now_us: u64) -> Option<u64> {
        self.arrivals.iter().rev().find(|at_us| **at_us <= now_us).copied()
    }
}

/// What a network is like where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetworkSpec {
    /// Of each host, bits a second.
    pub(super) rate_bits_per_s: Option<u64>,
    /// One way, between the nearest and the furthest hosts, microseconds.
    pub(super) latency_us: (u64, u64),
    /// Share of packets lost.
    pub(super) loss: f64,
}

/// All hosts' links and connections.
#[derive(Debug)]
pub(super) struct Pipes<T> {
    spec: NetworkSpec,
    seed: u64,
    random: Random,
    uplinks: Vec<Link>,
    ways: Vec<Link>,
    way_of: HashMap<(HostIndex, HostIndex), u32>,
    pipes: Vec<Pipe<T>>,
    /// Hosts whose machine is off: what is sent there goes nowhere.
    dark: Vec<bool>,
    /// Nothing passes between hosts below this one and the others.
    parted: Option<HostIndex>,
    packets: u64,
    repeated: u64,
}

impl<T> Pipes<T> {
    pub(super) fn new(spec: NetworkSpec, hosts: usize, seed: u64) -> Self {
        let uplink = LinkSpec { rate_bits_per_s: spec.rate_bits_per_s, ..LinkSpec::default() };
        let mut random = Random::new(seed);
        Self {
            spec,
            seed,
            uplinks: (0..hosts).map(|_| Link::new(uplink, random.bits())).collect(),
            random,
            ways: Vec::new(),
            way_of: HashMap::new(),
            pipes: Vec::new(),
            dark: vec![false; hosts],
            parted: None,
            packets: 0,
            repeated: 0,
        }
    }

    /// A way between two hosts. It is as it is whenever it is used for the first time.
    fn way(&mut self, from: HostIndex, to: HostIndex) -> u32 {
        if let Some(way) = self.way_of.get(&(from, to)) {
            return *way;
        }
        let pair = u64::from(from.min(to)) << 16 | u64::from(from.max(to));
        let (near, far) = self.spec.latency_us;
        let latency_us = near + ((far - near) as f64 * crate::random::unit_at(self.seed, pair)) as u64;
        let spec =
            LinkSpec { latency_us, jitter_us: latency_us / 10, loss: self.spec.loss, ..LinkSpec::default() };
        let way = self.ways.len() as u32;
        let seed = self.seed ^ (u64::from(from) << 32 | u64::from(to) << 1 | 1);
        self.ways.push(Link::new(spec, seed));
        self.way_of.insert((from, to), way);
        way
    }

    /// Cuts, or mends, one direction.
    pub(super) fn set_cut(&mut self, now_us: u64, from: HostIndex, to: HostIndex, cut: bool) {
        let way = self.way(from, to) as usize;
        let spec = LinkSpec { cut, ..*self.ways[way].spec() };
        self.ways[way].set(now_us, spec);
    }

    /// Parts hosts below this one from the others, or lets all pass.
    pub(super) fn part(&mut self, first: Option<HostIndex>) {
        self.parted = first;
    }

    /// From one host to another, without strays, microseconds.
    pub(super) fn latency_us(&mut self, from: HostIndex, to: HostIndex) -> u64 {
        let way = self.way(from, to) as usize;
        self.ways[way].spec().latency_us
    }

    /// Switches a machine off or on.
    pub(super) fn set_dark(&mut self, host: HostIndex, dark: bool) {
        self.dark[usize::from(host)] = dark;
    }

    /// Packets sent, and how many of them because others were lost.
    pub(super) fn packets(&self) -> (u64, u64) {
        (self.packets, self.repeated)
    }

    pub(super) fn pipe(&self, pipe: PipeIndex) -> &Pipe<T> {
        &self.pipes[pipe as usize]
    }

    /// The same connection the other way.
    pub(super) fn back(pipe: PipeIndex) -> PipeIndex {
        pipe ^ 1
    }

    /// A connection that stands; its first direction is the one from who dialled.
    pub(super) fn open(&mut self, from: HostIndex, to: HostIndex) -> PipeIndex {
        let first = self.pipes.len() as PipeIndex;
        for (from, to) in [(from, to), (to, from)] {
            let way = self.way(from, to);
            let pipe = Pipe {
                from,
                to,
                open: true,
                way,
                last_us: 0,
                arrivals: VecDeque::new(),
                stalled: None,
                repeat_us: 0,
                tries: 0,
                waiting: VecDeque::new(),
            };
            self.pipes.push(pipe);
        }
        first
    }

    /// The end of `from` lets go of a connection; what waits there is gone.
    pub(super) fn close(&mut self, pipe: PipeIndex) {
        let pipe = &mut self.pipes[pipe as usize];
        pipe.open = false;
        pipe.waiting = VecDeque::new();
    }

    /// When one packet outside of connections, such as of a handshake, arrives, if it does.
    pub(super) fn datagram(
        &mut self,
        now_us: u64,
        from: HostIndex,
        to: HostIndex,
        bytes: u64,
    ) -> Option<u64> {
        let way = self.way(from, to);
        self.offer(now_us, from, to, way, bytes)
    }

    fn offer(&mut self, now_us: u64, from: HostIndex, to: HostIndex, way: u32, bytes: u64) -> Option<u64> {
        self.packets += wire::packets(bytes);
        let parted = self.parted.is_some_and(|first| (from < first) != (to < first));
        if parted || self.dark[usize::from(from)] || self.dark[usize::from(to)] {
            return None;
        }
        let uplink = &mut self.uplinks[usize::from(from)];
        let bytes = wire::in_packets(bytes);
        let sent_us = match uplink.spec().rate_bits_per_s {
            None => now_us,
            Some(rate) => match uplink.offer(now_us, bytes) {
                Fate::Once(delivery) => delivery.at_us,
                // The sender's own queue: it waits until there is room, as a socket's buffer does.
                _ => now_us + uplink.backlog_bytes(now_us) * 8_000_000 / rate,
            },
        };
        // Both halves of a double, or a damaged packet, change nothing for who reads the stream.
        let delivery = self.ways[way as usize].offer(sent_us, bytes).deliveries().next()?;
        (!delivery.corrupted).then_some(delivery.at_us)
    }

    /// Sends a parcel over an open connection.
    pub(super) fn send(&mut self, now_us: u64, pipe: PipeIndex, parcel: Parcel<T>) -> Sent<T> {
        let round_trip_us = self.round_trip_us(pipe);
        let state = &mut self.pipes[pipe as usize];
        if state.stalled.is_none() {
            return self.send_first(now_us, pipe, parcel);
        }
        state.waiting.push_back(parcel);
        // Those that follow a lost one arrive, and their receipts tell what is missing.
        let told_us = now_us + round_trip_us;
        if state.tries == 1 && state.waiting.len() == 1 + FOLLOWERS && told_us < state.repeat_us {
            state.repeat_us = told_us;
            return Sent::Repeat(told_us);
        }
        Sent::Waits
    }

    fn round_trip_us(&self, pipe: PipeIndex) -> u64 {
        2 * self.ways[self.pipes[pipe as usize].way as usize].spec().latency_us
    }

    fn send_first(&mut self, now_us: u64, pipe: PipeIndex, mut parcel: Parcel<T>) -> Sent<T> {
        let &Pipe { from, to, way, last_us, .. } = &self.pipes[pipe as usize];
        let mut arrives_us = last_us;
        let piece_bytes = parcel.bytes.div_ceil(PIECES_MAX).max(wire::in_packets(1_000));
        while parcel.bytes > 0 {
            let bytes = parcel.bytes.min(piece_bytes);
            match self.offer(now_us, from, to, way, bytes) {
                Some(at_us) => {
                    arrives_us = arrives_us.max(at_us);
                    self.pipes[pipe as usize].note(now_us, arrives_us);
                }
                None => return self.stall(now_us, pipe, parcel, bytes, arrives_us),
            }
            parcel.bytes -= bytes;
            self.pipes[pipe as usize].tries = 0;
        }
        self.pipes[pipe as usize].last_us = arrives_us;
        Sent::Arrives(arrives_us, parcel.payload)
    }

    /// A piece is lost: it is repeated a round trip later if enough behind it arrive and tell, else after a
    /// pause that doubles.
    fn stall(
        &mut self,
        now_us: u64,
        pipe: PipeIndex,
        parcel: Parcel<T>,
        lost_bytes: u64,
        last_us: u64,
    ) -> Sent<T> {
        self.repeated += wire::packets(lost_bytes);
        let give_up_us = now_us + GIVE_UP_US.0 + self.random.bits() % (GIVE_UP_US.1 - GIVE_UP_US.0);
        let round_trip_us = self.round_trip_us(pipe);
        let state = &mut self.pipes[pipe as usize];
        let behind = state.waiting.len() + (parcel.bytes / lost_bytes - 1) as usize;
        let pause_us = if state.tries == 0 && behind >= FOLLOWERS {
            round_trip_us
        } else {
            ((2 * round_trip_us + REPEAT_US_MIN) << state.tries.min(16)).min(REPEAT_US_MAX)
        };
        state.last_us = last_us;
        state.tries += 1;
        state.stalled = state.stalled.or(Some(give_up_us));
        state.repeat_us = now_us + pause_us;
        state.waiting.push_front(parcel);
        Sent::Repeat(state.repeat_us)
    }

    /// It may be time to repeat: what gets through is given to `arrives`. The answer is when to repeat next, if
    /// something was lost again; or that the connection is given up.
    ///
    /// # Errors
    /// When nothing got through for too long.
    pub(super) fn repeat(
        &mut self,
        now_us: u64,
        pipe: PipeIndex,
        mut arrives: impl FnMut(u64, T),
    ) -> Result<Option<u64>, GivenUp> {
        let state = &self.pipes[pipe as usize];
        if !state.open || state.stalled.is_none() || state.repeat_us != now_us {
            return Ok(None);
        }
        if state.stalled.is_some_and(|give_up_us| now_us >= give_up_us) {
            return Err(GivenUp);
        }
        while let Some(parcel) = self.pipes[pipe as usize].waiting.pop_front() {
            // The one that was begun goes on in any case.
            let begun = self.pipes[pipe as usize].tries > 0;
            if !begun && parcel.until_us < now_us {
                continue;
            }
            match self.send_first(now_us, pipe, parcel) {
                Sent::Arrives(at_us, payload) => arrives(at_us, payload),
                Sent::Repeat(at_us) => {
                    // Something got through before: the patience with it begins anew.
                    if self.pipes[pipe as usize].tries == 1 {
                        let give_up_us =
                            now_us + GIVE_UP_US.0 + self.random.bits() % (GIVE_UP_US.1 - GIVE_UP_US.0);
                        self.pipes[pipe as usize].stalled = Some(give_up_us);
                    }
                    return Ok(Some(at_us));
                }
                Sent::Waits => {}
            }
        }
        self.pipes[pipe as usize].stalled = None;
        Ok(None)
    }
}

/// Nothing got through for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GivenUp;

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection between two hosts without a limit to the rate.
    fn pipes(loss: f64) -> (Pipes<u8>, PipeIndex) {
        let spec = NetworkSpec { rate_bits_per_s: None, latency_us: (1_000, 1_000), loss };
        let mut pipes = Pipes::new(spec, 2, 1);
        let pipe = pipes.open(0, 1);
        (pipes, pipe)
    }

    /// In four pieces.
    fn parcel() -> Parcel<u8> {
        Parcel { bytes: 4 * wire::in_packets(1_000), payload: 0, until_us: u64::MAX }
    }

    #[test]
    fn each_piece_that_arrives_counts_though_the_whole_does_not() {
        let (mut pipes, pipe) = pipes(0.3);
        assert_eq!(pipes.pipe(pipe).came_us(0), None);
        let mut now_us = 0;
        let Sent::Repeat(mut next_us) = (loop {
            now_us += 100_000;
            let before_us = pipes.pipe(pipe).came_us(now_us);
            let sent = pipes.send(now_us, pipe, parcel());
            assert_eq!(pipes.pipe(pipe).came_us(now_us), before_us, "what is under way has not come");
            let came = pipes.pipe(pipe).came_us(now_us + 50_000) > before_us;
            // The first of one whose first piece was not lost.
            if came && matches!(sent, Sent::Repeat(_)) {
                break sent;
            }
            if let Sent::Repeat(at_us) = sent {
                let mut next_us = Some(at_us);
                while let Some(at_us) = next_us {
                    now_us = at_us;
                    next_us = pipes.repeat(at_us, pipe, |_, _| {}).unwrap();
                }
            }
        }) else {
            unreachable!()
        };
        let mut arrived = Vec::new();
        while let Some(at_us) = pipes.repeat(next_us, pipe, |at_us, _| arrived.push(at_us)).unwrap() {
            next_us = at_us;
        }
        assert_eq!(arrived, [pipes.pipe(pipe).came_us(u64::MAX).unwrap()]);
    }
}

//! Translation of addresses and ports as RFC 4787 speaks of it: which public port a node's packets get,
//! and whose packets come in by it. A table and arithmetic; it reads no clock and moves no packets.
//!
//! The kernel's own translation (nftables) would need one more namespace for each router, and knows
//! only mappings that depend on the endpoint.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::topology::NatReach;

/// Mappings of one translation: more connections than the nodes of a mesh hold among themselves.
const MAPPINGS_MAX: usize = 4_096;
/// First of the public ports; those below are not given out by real ones either.
const PORT_FIRST: u16 = 1_024;
/// Of UDP and echoes, after the last packet from inside (RFC 4787, REQ-5), microseconds.
const IDLE_US_MAX: u64 = 120_000_000;
/// Of TCP (RFC 5382, REQ-5), microseconds.
const IDLE_TCP_US_MAX: u64 = 7_440_000_000;

pub(super) type Endpoint = (Ipv4Addr, u16);

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Inside {
    protocol: u8,
    private: Endpoint,
    /// The one other end, where the mapping depends on it.
    towards: Option<Endpoint>,
}

#[derive(Debug)]
struct Mapping {
    inside: Inside,
    /// Whom packets went to.
    spoken_to: Vec<Endpoint>,
    used_us: u64,
}

/// One translation.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) address: Ipv4Addr,
    mapping: NatReach,
    filtering: NatReach,
    ports: BTreeMap<Inside, u16>,
    mappings: BTreeMap<(u8, u16), Mapping>,
    next_port: u16,
}

impl Nat {
    pub(super) fn new(address: Ipv4Addr, mapping: NatReach, filtering: NatReach) -> Self {
        let (ports, mappings) = (BTreeMap::new(), BTreeMap::new());
        Self { address, mapping, filtering, ports, mappings, next_port: PORT_FIRST }
    }

    /// The public end of a packet that leaves.
    pub(super) fn outwards(&mut self, now_us: u64, protocol: u8, from: Endpoint, to: Endpoint) -> Endpoint {
        let towards = (self.mapping == NatReach::EndpointDependent).then_some(to);
        let inside = Inside { protocol, private: from, towards };
        let known = self.ports.get(&inside).copied();
        let port = match known.filter(|port| self.is_alive(protocol, *port, now_us)) {
            Some(port) => port,
            None => self.open(now_us, inside),
        };
        if let Some(mapping) = self.mappings.get_mut(&(protocol, port)) {
            mapping.used_us = now_us;
            // As bounded as the table itself: a node that speaks to more forgets the first of them.
            if !mapping.spoken_to.contains(&to) {
                mapping.spoken_to.truncate(MAPPINGS_MAX - 1);
                mapping.spoken_to.insert(0, to);
            }
        }
        (self.address, port)
    }

    /// Who inside gets a packet that arrives at a public port, if anyone.
    pub(super) fn inwards(&self, now_us: u64, protocol: u8, from: Endpoint, port: u16) -> Option<Endpoint> {
        let mapping = self.mappings.get(&(protocol, port))?;
        let lets_in = match self.filtering {
            NatReach::EndpointIndependent => true,
            NatReach::EndpointDependent => mapping.spoken_to.contains(&from),
        };
        (lets_in && self.is_alive(protocol, port, now_us)).then_some(mapping.inside.private)
    }

    fn is_alive(&self, protocol: u8, port: u16, now_us: u64) -> bool {
        let idle_us_max = if protocol == super::frame::TCP { IDLE_TCP_US_MAX } else { IDLE_US_MAX };
        let mapping = self.mappings.get(&(protocol, port));
        mapping.is_some_and(|mapping| now_us.saturating_sub(mapping.used_us) <= idle_us_max)
    }

    fn open(&mut self, now_us: u64, inside: Inside) -> u16 {
        if let Some(old) = self.ports.remove(&inside) {
            self.mappings.remove(&(inside.protocol, old));
        }
        if self.mappings.len() >= MAPPINGS_MAX {
            self.forget_oldest();
        }
        // Fewer mappings than ports: one is free.
        while self.mappings.contains_key(&(inside.protocol, self.next_port)) {
            self.next_port = following(self.next_port);
        }
        let port = self.next_port;
        self.next_port = following(port);
        self.ports.insert(inside, port);
        self.mappings
            .insert((inside.protocol, port), Mapping { inside, spoken_to: Vec::new(), used_us: now_us });
        port
    }

    fn forget_oldest(&mut self) {
        let oldest = self.mappings.iter().min_by_key(|(_, mapping)| mapping.used_us).map(|(key, _)| *key);
        if let Some(mapping) = oldest.and_then(|key| self.mappings.remove(&key)) {
            self.ports.remove(&mapping.inside);
        }
    }
}

fn following(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(PORT_FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use NatReach::{EndpointDependent, EndpointIndependent};

    const UDP: u8 = super::super::frame::UDP;
    const NODE: Endpoint = (Ipv4Addr::new(10, 128, 0, 1), 4001);
    const ONE: Endpoint = (Ipv4Addr::new(10, 1, 0, 1), 4001);
    const OTHER: Endpoint = (Ipv4Addr::new(10, 1, 0, 2), 4001);

    fn nat(mapping: NatReach, filtering: NatReach) -> Nat {
        Nat::new(Ipv4Addr::new(10, 2, 0, 1), mapping, filtering)
    }

    #[test]
    fn a_mapping_is_one_for_all_or_one_for_each() {
        let mut one = nat(EndpointIndependent, EndpointDependent);
        assert_eq!(one.outwards(0, UDP, NODE, ONE), one.outwards(1, UDP, NODE, OTHER));
        let mut each = nat(EndpointDependent, EndpointDependent);
        assert_ne!(each.outwards(0, UDP, NODE, ONE), each.outwards(1, UDP, NODE, OTHER));
        assert_eq!(each.outwards(2, UDP, NODE, ONE), each.outwards(3, UDP, NODE, ONE));
    }

    #[test]
    fn a_filter_lets_in_everyone_or_those_spoken_to() {
        let mut open = nat(EndpointIndependent, EndpointIndependent);
        let (_, port) = open.outwards(0, UDP, NODE, ONE);
        assert_eq!(open.inwards(1, UDP, OTHER, port), Some(NODE));
        let mut closed = nat(EndpointIndependent, EndpointDependent);
        let (_, port) = closed.outwards(0, UDP, NODE, ONE);
        assert_eq!(closed.inwards(1, UDP, ONE, port), Some(NODE));
        assert_eq!(closed.inwards(1, UDP, OTHER, port), None);
        closed.outwards(2, UDP, NODE, OTHER);
        assert_eq!(closed.inwards(3, UDP, OTHER, port), Some(NODE));
    }

    #[test]
    fn nobody_comes_in_unasked() {
        let nat = nat(EndpointIndependent, EndpointIndependent);
        assert_eq!(nat.inwards(0, UDP, ONE, 4001), None);
    }

    #[test]
    fn idle_mappings_end_those_of_tcp_later() {
        let mut nat = nat(EndpointIndependent, EndpointIndependent);
        let (_, udp) = nat.outwards(0, UDP, NODE, ONE);
        let (_, tcp) = nat.outwards(0, super::super::frame::TCP, NODE, ONE);
        let later_us = IDLE_US_MAX + 1;
        assert_eq!(nat.inwards(later_us, UDP, ONE, udp), None);
        assert_eq!(nat.inwards(later_us, super::super::frame::TCP, ONE, tcp), Some(NODE));
        assert_ne!(nat.outwards(later_us, UDP, NODE, ONE).1, udp, "a new one is opened");
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let mut nat = nat(EndpointDependent, EndpointIndependent);
        let to = |number: usize| (Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8), 1);
        let ports: Vec<u16> =
            (0..=MAPPINGS_MAX).map(|number| nat.outwards(number as u64, UDP, NODE, to(number)).1).collect();
        assert_eq!(nat.mappings.len(), MAPPINGS_MAX);
        assert_eq!(nat.ports.len(), MAPPINGS_MAX);
        assert_eq!(nat.inwards(5_000, UDP, ONE, ports[0]), None);
        assert_eq!(nat.inwards(5_000, UDP, ONE, ports[1]), Some(NODE));
    }

    #[test]
    fn ports_wrap_around() {
        let mut nat = nat(EndpointDependent, EndpointIndependent);
        nat.next_port = u16::MAX;
        assert_eq!(nat.outwards(0, UDP, NODE, ONE).1, u16::MAX);
        assert_eq!(nat.outwards(0, UDP, NODE, OTHER).1, PORT_FIRST);
    }
}

//! The switch without devices and clock: who gets what, when, and by which way.

use super::super::frame::UDP;
use super::*;
use crate::topology::{DomainKind, DomainSpec, NatReach, NatSpec, NodeSpec};
use stormo_protocol::state::Class;

fn nodes(count: usize) -> Topology {
    let node = |number: usize| NodeSpec::new(&format!("n{number}"), Class::Edge, 1);
    Topology::plain("a test", (0..count).map(node).collect())
}

fn datagram(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; OFFLOAD_BYTES + bytes];
    let packet = &mut frame[OFFLOAD_BYTES..];
    packet[0] = 0x45;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..22].copy_from_slice(&ports.0.to_be_bytes());
    packet[22..24].copy_from_slice(&ports.1.to_be_bytes());
    frame
}

struct Bench {
    switch: Switch,
    /// When what arrived where, with its source and destination.
    arrived: Arrived,
}

impl Bench {
    fn new(topology: &Topology) -> Self {
        Self { switch: Switch::new(topology, 1), arrived: Vec::new() }
    }

    fn address(&self, node: usize) -> Ipv4Addr {
        self.switch.stations[node].address
    }

    fn send(&mut self, now_us: u64, from: usize, to: Ipv4Addr, ports: (u16, u16)) {
        let mut frame = datagram(self.address(from), to, ports, 1_000);
        let arrived = &mut self.arrived;
        self.switch.take(now_us, from, &mut frame, &mut |node: usize, frame: &[u8]| {
            note(arrived, now_us, node, frame);
        });
    }

    /// Lets time pass, microsecond by microsecond of what is due.
    fn run(&mut self) -> Vec<(u64, usize)> {
        while let Some(due_us) = self.switch.next_due_us() {
            let arrived = &mut self.arrived;
            self.switch
                .deliver_due(due_us, &mut |node: usize, frame: &[u8]| note(arrived, due_us, node, frame));
        }
        self.arrived.iter().map(|(at_us, node, ..)| (*at_us, *node)).collect()
    }
}

type Arrived = Vec<(u64, usize, Option<Ipv4Addr>, Option<u16>)>;

fn note(arrived: &mut Arrived, now_us: u64, node: usize, frame: &[u8]) {
    let layout = frame::layout(frame).unwrap();
    let source = (frame::address(frame, End::Source), frame::port(frame, &layout, End::Source));
    arrived.push((now_us, node, source.0, source.1));
}

#[test]
fn a_packet_goes_through_uplink_link_and_downlink() {
    let mut topology = nodes(2);
    topology.nodes[0].uplink_bits_per_s = Some(8_000_000);
    topology.nodes[1].downlink_bits_per_s = Some(4_000_000);
    topology.default_link = LinkSpec { latency_us: 5_000, ..LinkSpec::default() };
    let mut bench = Bench::new(&topology);
    let to = bench.address(1);
    bench.send(0, 0, to, (1, 2));
    bench.send(0, 0, to, (1, 2));
    // 1 ms up and 2 ms down for each: the second waits for the first in both places.
    assert_eq!(bench.run(), [(8_000, 1), (10_000, 1)]);
}

#[test]
fn a_domain_shares_its_uplink() {
    let mut topology = nodes(3);
    topology.domains.push(DomainSpec {
        name: "home".to_owned(),
        kind: DomainKind::Uplink,
        within: None,
        uplink_bits_per_s: Some(8_000_000),
        downlink_bits_per_s: None,
    });
    topology.nodes[0].domains.push("home".to_owned());
    topology.nodes[1].domains.push("home".to_owned());
    let mut bench = Bench::new(&topology);
    let (inside, outside) = (bench.address(1), bench.address(2));
    bench.send(0, 0, outside, (1, 2));
    bench.send(0, 1, outside, (1, 2));
    bench.send(0, 0, inside, (1, 2));
    assert_eq!(bench.run(), [(0, 1), (1_000, 2), (2_000, 2)]);
}

#[test]
fn cuts_are_of_one_direction_and_of_what_is_under_way() {
    let mut topology = nodes(2);
    topology.default_link = LinkSpec { latency_us: 100, ..LinkSpec::default() };
    let mut bench = Bench::new(&topology);
    let (one, other) = (bench.address(0), bench.address(1));
    bench.send(0, 0, other, (1, 2));
    bench.switch.set_link(50, 0, 1, LinkSpec { cut: true, ..topology.default_link });
    bench.send(60, 0, other, (1, 2));
    bench.send(60, 1, one, (1, 2));
    assert_eq!(bench.run(), [(160, 0)]);
    bench.switch.heal(200);
    bench.send(200, 0, other, (1, 2));
    assert_eq!(bench.run(), [(160, 0), (300, 1)]);
}

#[test]
fn without_power_nothing_leaves_or_arrives() {
    let mut topology = nodes(2);
    topology.default_link = LinkSpec { latency_us: 100, ..LinkSpec::default() };
    let mut bench = Bench::new(&topology);
    let (one, other) = (bench.address(0), bench.address(1));
    bench.send(0, 1, one, (1, 2));
    bench.switch.set_power(1, false);
    bench.send(1, 0, other, (1, 2));
    bench.send(1, 1, one, (1, 2));
    assert_eq!(bench.run(), []);
    assert_eq!(bench.switch.dropped().unpowered, 3);
    bench.switch.set_power(1, true);
    bench.send(200, 0, other, (1, 2));
    assert_eq!(bench.run(), [(300, 1)]);
}

#[test]
fn what_is_for_nobody_is_dropped_and_counted() {
    let mut bench = Bench::new(&nodes(1));
    bench.send(0, 0, Ipv4Addr::new(10, 9, 9, 9), (1, 2));
    let mut ipv6 = vec![0x60; 60];
    bench.switch.take(0, 0, &mut ipv6, &mut |_: usize, _: &[u8]| panic!("it is for nobody"));
    assert_eq!(bench.run(), []);
    assert_eq!(bench.switch.dropped().unroutable, 2);
}

#[test]
fn a_translation_lets_answers_in_and_nothing_else() {
    let mut topology = nodes(3);
    let both = NatReach::EndpointDependent;
    topology.nats.push(NatSpec { name: "router".to_owned(), mapping: both, filtering: both });
    topology.nodes[0].behind = Some("router".to_owned());
    let mut bench = Bench::new(&topology);
    let (inside, server, stranger) = (bench.address(0), 1, 2);
    let to = bench.address(server);
    bench.send(0, server, inside, (4_001, 4_001));
    assert_eq!(bench.run(), [], "an address behind it means nothing outside");
    bench.send(1, 0, to, (4_001, 4_001));
    assert_eq!(bench.run(), [(1, server)]);
    let (_, _, source, port) = bench.arrived[0];
    assert_eq!(source, Some(route::nat_address(0)));
    bench.send(2, server, source.unwrap(), (4_001, port.unwrap()));
    bench.send(3, stranger, source.unwrap(), (4_001, port.unwrap()));
    assert_eq!(bench.run(), [(1, server), (2, 0)]);
    assert_eq!(bench.arrived[1].2, Some(to), "the answer comes from whom it was asked of");
}

#[test]
fn equal_seeds_lose_the_same_packets() {
    let mut topology = nodes(2);
    let chances = LinkSpec { loss: 0.3, duplicate: 0.2, corrupt: 0.2, reorder: 0.2, ..LinkSpec::default() };
    topology.default_link = chances;
    let run = || {
        let mut bench = Bench::new(&topology);
        let to = bench.address(1);
        let mut seen = Vec::new();
        for number in 0..200_u64 {
            let mut frame = datagram(bench.address(0), to, (1, number as u16), 100);
            let mut arrived = |_: usize, frame: &[u8]| seen.push(frame.to_vec());
            bench.switch.deliver_due(number * 100, &mut arrived);
            bench.switch.take(number * 100, 0, &mut frame, &mut arrived);
        }
        seen
    };
    let seen = run();
    assert!(seen.len() > 100 && seen.len() < 200, "{}", seen.len());
    assert_eq!(seen, run());
}

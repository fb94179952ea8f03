//! Addresses of nodes, and which links a packet from one node to another goes through.

use std::net::Ipv4Addr;

use crate::link::LinkSpec;
use crate::topology::{NodeSpec, Topology};

/// All addresses are of one network, so that no node needs a route.
pub(super) const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 0, 0, 0);

/// The address of a node that is behind nothing, by its place in the topology.
fn public_address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, (place / 250) as u8, (place % 250 + 1) as u8)
}

/// The address of a translation towards others.
pub(super) fn nat_address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, (place / 250) as u8, (place % 250 + 1) as u8)
}

/// The address of a node behind a translation.
fn private_address(nat: usize, place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 128 + (nat % 120) as u8, (nat / 120) as u8, (place % 250 + 1) as u8)
}

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) address: Ipv4Addr,
    /// Which translation it is behind.
    pub(super) nat: Option<usize>,
}

pub(super) fn stations(topology: &Topology) -> Vec<Station> {
    let nat_of =
        |node: &NodeSpec| topology.nats.iter().position(|nat| node.behind.as_ref() == Some(&nat.name));
    let station = |(place, node)| match nat_of(node) {
        Some(nat) => Station { address: private_address(nat, place), nat: Some(nat) },
        None => Station { address: public_address(place), nat: None },
    };
    topology.nodes.iter().enumerate().map(station).collect()
}

/// All links of a mesh, and the way between each two nodes through them.
#[derive(Debug)]
pub(super) struct Ways {
    /// What each link is like at first.
    pub(super) links: Vec<LinkSpec>,
    nodes: usize,
    /// Links of the way from `i` to `j`, at `i * nodes + j`.
    hops: Vec<Vec<usize>>,
    /// Of each node: the links of its uplink and its downlink.
    access: Vec<(usize, usize)>,
    /// Of each pair: the link that is only theirs.
    pairs: Vec<usize>,
}

impl Ways {
    pub(super) fn new(topology: &Topology) -> Self {
        let mut links = Vec::new();
        let mut link = |spec: LinkSpec| {
            links.push(spec);
            links.len() - 1
        };
        let limited = |rate_bits_per_s| LinkSpec { rate_bits_per_s, ..LinkSpec::default() };
        let mut both = |up: Option<u64>, down: Option<u64>| (link(limited(up)), link(limited(down)));
        let access: Vec<(usize, usize)> = topology
            .nodes
            .iter()
            .map(|node| both(node.uplink_bits_per_s, node.downlink_bits_per_s))
            .collect();
        let domains: Vec<(usize, usize)> = topology
            .domains
            .iter()
            .map(|domain| both(domain.uplink_bits_per_s, domain.downlink_bits_per_s))
            .collect();
        // The places of a node's domains; in the order of the file, which is all the same for a queue.
        let domains_of: Vec<Vec<usize>> = topology
            .nodes
            .iter()
            .map(|node| {
                let around = topology.domains_of(node);
                (0..domains.len()).filter(|place| around.contains(&&topology.domains[*place])).collect()
            })
            .collect();
        let (mut hops, mut pairs) = (Vec::new(), Vec::new());
        for (i, from) in topology.nodes.iter().enumerate() {
            for (j, to) in topology.nodes.iter().enumerate() {
                let pair = link(topology.link(from, to));
                pairs.push(pair);
                let left = domains_of[i].iter().filter(|domain| !domains_of[j].contains(domain));
                let entered = domains_of[j].iter().filter(|domain| !domains_of[i].contains(domain));
                let mut way = vec![access[i].0];
                way.extend(left.map(|domain| domains[*domain].0));
                way.push(pair);
                way.extend(entered.map(|domain| domains[*domain].1));
                way.push(access[j].1);
                hops.push(way);
            }
        }
        Self { links, nodes: topology.nodes.len(), hops, access, pairs }
    }

    /// The links of a way, in order.
    pub(super) fn hops(&self, from: usize, to: usize) -> &[usize] {
        &self.hops[from * self.nodes + to]
    }

    /// The link that only packets from one node to another go through.
    pub(super) fn pair(&self, from: usize, to: usize) -> usize {
        self.pairs[from * self.nodes + to]
    }

    /// All such links.
    pub(super) fn pairs(&self) -> &[usize] {
        &self.pairs
    }

    /// Uplink and downlink of a node.
    pub(super) fn access(&self, node: usize) -> (usize, usize) {
        self.access[node]
    }
}

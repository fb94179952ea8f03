//! Worlds of two sites, where those of one site ask: what plans cost there, in a simple way, and what is to hold of moves.

use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::state::{Demand, Division, NodeRecord, Place};

use super::super::random::Random;
use super::node::Node;
use super::{World, bytes, id};
use crate::mesh::{Costs, Origin, Part, propose};

/// From one node to another at its site, and to one elsewhere, milliseconds.
const WAYS_MS: (f64, f64) = (1.0, 30.0);
/// A part's run.
const RUN_MS: f64 = 5.0;
/// Bringing a part somewhere.
const MOVE_MS: f64 = 3_000.0;
const PER_MINUTE: u32 = 64;

pub(super) fn site(node: NodeId) -> u8 {
    node.0[0] % 2
}

fn way_ms(one: NodeId, other: NodeId) -> f64 {
    match (one == other, site(one) == site(other)) {
        (true, _) => 0.0,
        (false, true) => WAYS_MS.0,
        (false, false) => WAYS_MS.1,
    }
}

struct Ways<'a> {
    random: &'a mut Random,
    noise: f64,
    /// Nodes with the memory that they have left.
    free: Vec<(NodeId, u64)>,
}

impl Ways<'_> {
    /// The best way through hosts of the parts in their order: all of them are tried.
    fn best(&self, from: NodeId, parts: &[Vec<NodeId>], apart: bool) -> Option<(f64, Vec<NodeId>)> {
        let mut ways: Vec<(f64, Vec<NodeId>)> = vec![(0.0, vec![from])];
        for hosts in parts {
            let further = ways.iter().flat_map(|(ms, way)| {
                let may = |host: &&NodeId| !apart || !way[1..].contains(host);
                hosts.iter().filter(may).map(move |host| {
                    let last = way[way.len() - 1];
                    (ms + way_ms(last, *host) + RUN_MS, [&way[..], &[*host]].concat())
                })
            });
            ways = further.collect();
        }
        let home = |(ms, way): (f64, Vec<NodeId>)| (ms + way_ms(way[way.len() - 1], from), way);
        let best = ways.into_iter().map(home).min_by(|one, other| one.0.total_cmp(&other.0))?;
        Some((best.0, best.1[1..].to_vec()))
    }
}

impl Costs for Ways<'_> {
    fn latency_ms(&mut self, from: NodeId, places: &[Place]) -> Option<f64> {
        let mut parts: Vec<(u16, u16)> = places.iter().map(|place| (place.first, place.end)).collect();
        parts.sort_unstable();
        parts.dedup();
        let hosts = |(first, end): &(u16, u16)| {
            let of_it = places.iter().filter(|place| (place.first, place.end) == (*first, *end));
            of_it.map(|place| place.node).collect()
        };
        let hosts: Vec<Vec<NodeId>> = parts.iter().map(hosts).collect();
        let (ms, _) = self.best(from, &hosts, false)?;
        let off = (self.random.below(2001) as f64 / 1000.0 - 1.0) * self.noise;
        Some(ms * (1.0 + off))
    }

    fn ideal(&mut self, from: NodeId, parts: &[Place], apart: bool) -> Option<Vec<Place>> {
        let fitting = |part: &Place| {
            let fits = |free: u64| free >= bytes(part.first..part.end);
            self.free.iter().filter(|(_, free)| fits(*free)).map(|(node, _)| *node).collect()
        };
        let hosts: Vec<Vec<NodeId>> = parts.iter().map(fitting).collect();
        let (_, way) = self.best(from, &hosts, apart)?;
        Some(parts.iter().zip(way).map(|(part, node)| Place { node, ..*part }).collect())
    }

    fn anywhere(&mut self, from: NodeId, taken: &[Place], enough: &[Part]) -> Option<Vec<Place>> {
        let whole = Place { node: from, variant: 0, first: 0, end: super::BLOCKS };
        let fits = |node: NodeId, free: u64| {
            let used: u64 = taken
                .iter()
                .filter(|place| place.node == node && **place != Place { node, ..whole })
                .map(|place| bytes(place.first..place.end))
                .sum();
            let place = Place { node, ..whole };
            taken.contains(&place) || (enough.is_empty() && free >= used + bytes(0..super::BLOCKS))
        };
        let hosts = self.free.iter().filter(|(node, free)| fits(*node, *free)).map(|(node, _)| *node);
        let (_, way) = self.best(from, &[hosts.collect()], false)?;
        way.first().map(|node| vec![Place { node: *node, ..whole }])
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.free.iter().map(|(node, _)| *node).collect()
    }

    fn move_ms(&mut self, _: &Place) -> f64 {
        MOVE_MS
    }

    fn fits(&mut self, before: &[Place], after: &[Place]) -> bool {
        self.free.iter().all(|(node, free)| {
            let new = after.iter().filter(|place| place.node == *node && !before.contains(place));
            new.map(|place| bytes(place.first..place.end)).sum::<u64>() <= *free
        })
    }
}

impl World {
    /// What a node says of itself, with what is asked there.
    pub(super) fn asking(&self, index: usize) -> NodeRecord {
        let node = &self.nodes[index];
        let mut record = node.record(self.now_ms);
        if let Some(known) = node.deployments.by_name("a").filter(|_| self.asks_at == Some(site(record.node)))
        {
            record.demands = vec![Demand { deployment: known.id(), per_minute: PER_MINUTE }];
        }
        record
    }

    /// What the driver does when it is to compare.
    pub(super) fn compare(&mut self, index: usize, deployment: DeploymentId) {
        let now_ms = self.now_ms;
        let own = self.asking(index);
        let node = &self.nodes[index];
        let Some(order) = node.stewardship.order(deployment).cloned() else { return };
        let others = node.view.iter().filter(|known| node.view.is_usable(now_ms, known.record.node));
        let records: Vec<&NodeRecord> = others.map(|known| known.record.as_ref()).chain([&own]).collect();
        let origins: Vec<Origin> = records
            .iter()
            .flat_map(|record| record.demands.iter().map(|demand| (record.node, demand)))
            .filter(|(_, demand)| demand.deployment == deployment)
            .map(|(node, demand)| Origin { node, per_s: f64::from(demand.per_minute) / 60.0 })
            .collect();
        let free = records.iter().map(|record| {
            (record.node, record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes))
        });
        let free = free.collect();
        let mut ways = Ways { random: &mut self.random, noise: self.options.noise, free };
        let proposal =
            propose(&mut ways, &origins, &order.places, &self.wished, node.stewardship.favoured(deployment));
        let node = &mut self.nodes[index];
        let of = (deployment, order.sequence);
        if let Some(order) = node.stewardship.proposed(now_ms, &node.deployments, of, proposal) {
            self.moves += 1;
            self.give(index, &order);
        }
    }

    /// Where those who ask have able nodes enough at their site, some host of each part is there; and parts moved
    /// once for each time that the demand did, at the most.
    pub(super) fn check_moved(&self, alive: &[&Node], places: &[Place]) {
        if !self.options.asks {
            return;
        }
        self.check(self.moves <= 2, &format!("{} moves for two demands", self.moves));
        let Some(asks_at) = self.asks_at else { return };
        let able =
            alive.iter().filter(|node| site(id(node.number)) == asks_at && !node.refuses && !node.hangs);
        let parts = super::ranges(&self.wished.division);
        let is_apart = matches!(self.wished.division, Division::Parts(_));
        // Nodes at the site that host other replicas are not free for a part of their own.
        let needed = if is_apart { parts.len() * usize::from(self.wished.replicas) } else { 1 };
        if able.count() < needed {
            return;
        }
        for (first, end) in parts {
            let is_near =
                |place: &&Place| (place.first, place.end) == (first, end) && site(place.node) == asks_at;
            self.check(places.iter().any(|place| is_near(&place)), "those who ask have a part far away");
        }
    }
}

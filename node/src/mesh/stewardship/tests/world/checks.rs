//! What must hold in a world all along, and once the faults are over.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::state::Division;

use super::node::Node;
use super::{BLIND_MS, BLOCKS, CALM_MS, World, id, ranges};
use crate::mesh::PartitionKey;

/// A range is on more nodes than are wanted for so long at most, milliseconds.
const DOUBLED_MS_MAX: u64 = 60_000;
/// Once halves are one mesh again all name one steward within this, milliseconds: heartbeats come each second.
const AGREE_MS_MAX: u64 = 5_000;

impl World {
    pub(super) fn told(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let order =
                    node.deployments.by_name("a").and_then(|known| node.stewardship.order(known.id()));
                let order = order.map(|order| (order.sequence, order.steward.0[0]));
                let slots: Vec<(u16, u16)> = node.slots.keys().map(|key| (key.first, key.end)).collect();
                format!(
                    "{}{}{} {:?} steward {:?} order {order:?} slots {slots:?}",
                    node.number,
                    if node.alive { "" } else { " (dead)" },
                    match (node.refuses, node.hangs) {
                        (true, _) => " (refuses)",
                        (false, true) => " (hangs)",
                        (false, false) => "",
                    },
                    node.class,
                    node.stewardship.steward("a").map(|steward| steward.node.0[0]),
                )
            })
            .collect();
        format!(
            "seed {} at {} ms, {:?}, {:?}\n{}",
            self.seed,
            self.now_ms,
            self.wished,
            self.options,
            nodes.join("\n")
        )
    }

    pub(super) fn check(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.told());
    }

    /// Whoever lets go of a part knows others that have it, or had it until just now.
    pub(super) fn check_made_before_broken(&self, index: usize, key: PartitionKey) {
        let node = &self.nodes[index];
        if node.deployments.by_id(key.variant.deployment).is_none() {
            return;
        }
        for block in key.blocks() {
            let has = |other: &Node| {
                let lately = other.alive || self.now_ms - other.died_ms < BLIND_MS;
                lately && (other.has(self.now_ms, key.variant, block) || self.options.partitions > 0)
            };
            self.check(
                self.nodes.iter().any(has),
                &format!("{} broke {key:?} before it was made", node.number),
            );
        }
    }

    pub(super) fn is_served(&self, version: u64, at: &Node) -> bool {
        let Some(known) = at.deployments.live().find(|known| known.name == "a" && known.version == version)
        else {
            return false;
        };
        let variant = VariantId { deployment: known.id(), index: 0 };
        let has = |block| self.nodes.iter().any(|node| node.alive && node.has(self.now_ms, variant, block));
        (0..BLOCKS).all(has)
    }

    /// Once a version serves, the name serves on while it rolls, unless every host of a part was killed.
    pub(super) fn check_serving(&mut self) {
        if !self.options.rolls || self.options.kills > 0 {
            return;
        }
        for node in self.nodes.iter().filter(|node| node.alive) {
            let Some(serving) = node.deployments.serving("a") else { continue };
            let is_served = self.is_served(serving.version, node);
            if is_served {
                self.served_ms.get_or_insert(self.now_ms);
            }
            let since_ms = self.served_ms.map_or(0, |served_ms| self.now_ms - served_ms);
            let holds = is_served || self.served_ms.is_none() || since_ms < 5_000;
            self.check(
                holds,
                &format!(
                    "node {} has version {} serve, which is hosted nowhere",
                    node.number, serving.version
                ),
            );
        }
    }

    /// Nothing is on more nodes than are wanted for long: not when a steward dies in the middle, nor when parts move.
    pub(super) fn check_doubled(&mut self) {
        let mut hosts: BTreeMap<PartitionKey, u16> = BTreeMap::new();
        let is_parted = self.groups.iter().any(|group| *group != self.groups[0]);
        for node in self.nodes.iter().filter(|node| node.alive && !is_parted) {
            let ready = node.slots.iter().filter(|(_, slot)| slot.ready_ms <= self.now_ms);
            ready.for_each(|(key, _)| *hosts.entry(*key).or_default() += 1);
        }
        hosts.retain(|_, count| *count > self.wished.replicas);
        self.doubled_ms.retain(|key, _| hosts.contains_key(key));
        for key in hosts.into_keys() {
            let since_ms = *self.doubled_ms.entry(key).or_insert(self.now_ms);
            let holds = self.now_ms - since_ms <= DOUBLED_MS_MAX;
            self.check(holds, &format!("{key:?} is on more nodes than are wanted since {since_ms} ms"));
        }
    }

    fn stewards(&self) -> BTreeSet<Option<NodeId>> {
        let alive = self.nodes.iter().filter(|node| node.alive);
        alive.map(|node| node.stewardship.steward("a").map(|steward| steward.node)).collect()
    }

    /// Since when all name one steward again.
    pub(super) fn note_agreement(&mut self) {
        if self.joined_ms.is_some() {
            let agree = self.stewards().len() == 1;
            self.agreed_ms = if agree { self.agreed_ms.or(Some(self.now_ms)) } else { None };
        }
    }

    pub(super) fn check_end(&self) {
        if self.options.halves {
            let took_ms =
                self.joined_ms.zip(self.agreed_ms).map(|(joined_ms, agreed_ms)| agreed_ms - joined_ms);
            let holds = took_ms.is_some_and(|ms| ms <= AGREE_MS_MAX);
            self.check(holds, &format!("they name one steward {took_ms:?} ms after the halves were joined"));
        }
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.alive).collect();
        self.check(self.stewards().len() == 1, "they do not agree who is steward");
        if self.removed {
            let is_gone = |node: &&Node| node.deployments.by_name("a").is_none() && node.slots.is_empty();
            self.check(alive.iter().all(is_gone), "what was removed is back");
            return;
        }
        let order = |node: &Node| {
            let known = node.deployments.by_name("a")?;
            node.stewardship.order(known.id()).cloned()
        };
        let orders: Vec<_> = alive.iter().map(|node| order(node)).collect();
        self.check(
            orders.iter().all(|order| *order == orders[0] && order.is_some()),
            "they do not follow one order",
        );
        let Some(order) = &orders[0] else { return };
        let late = self
            .orders_given
            .iter()
            .filter(|(at_ms, _)| *at_ms > self.options.faults_ms + CALM_MS - 50_000)
            .count();
        // Nodes that refused are asked again in growing pauses.
        let asked_again = self.options.refusers + self.options.hangers;
        self.check(late <= asked_again, &format!("{late} orders long after all faults"));
        for node in &alive {
            let listed: BTreeSet<(u16, u16)> = order
                .places
                .iter()
                .filter(|place| place.node == id(node.number))
                .map(|place| (place.first, place.end))
                .collect();
            let slots: BTreeSet<(u16, u16)> = node.slots.keys().map(|key| (key.first, key.end)).collect();
            let is_able = !node.refuses && !node.hangs;
            let holds = slots == listed || (!is_able && slots.is_subset(&listed));
            self.check(holds, &format!("node {} does not host what is ordered: {listed:?}", node.number));
            self.check(node.deployments.live().count() == 1, "an old version is still held");
        }
        self.check_replicas(&alive);
        self.check_sites(&alive);
        self.check_moved(&alive, &order.places);
    }

    pub(super) fn check_replicas(&self, alive: &[&Node]) {
        let able = alive.iter().filter(|node| !node.refuses && !node.hangs).count();
        for (first, end) in ranges(&self.wished.division) {
            let has = |node: &&&Node| {
                node.slots
                    .iter()
                    .any(|(key, slot)| (key.first, key.end) == (first, end) && slot.ready_ms <= self.now_ms)
            };
            let hosts = alive.iter().filter(has).count();
            // Every node has memory for all parts of two versions.
            let wanted = usize::from(self.wished.replicas).min(able);
            self.check(
                hosts == wanted,
                &format!("blocks {first} to {end} are on {hosts} nodes, not {wanted}"),
            );
        }
    }

    /// Parts are on nodes of their own, and replicas of a model that is not divided at as many sites as there are, once
    /// better places have stayed.
    fn check_sites(&self, alive: &[&Node]) {
        if !self.options.is_sited {
            return;
        }
        let wanted = usize::from(self.wished.replicas);
        if let Division::Parts(parts) = self.wished.division {
            let is_enough = alive.len() >= wanted * usize::from(parts);
            let crowded = alive.iter().find(|node| node.slots.len() > 1).filter(|_| is_enough);
            self.check(crowded.is_none(), "two parts are on one node, though there are others");
            return;
        }
        let sites = |nodes: &mut dyn Iterator<Item = &&Node>| -> BTreeSet<String> {
            nodes.flat_map(|node| &node.domains).map(ToString::to_string).collect()
        };
        let all = sites(&mut alive.iter()).len();
        let hosts = sites(&mut alive.iter().filter(|node| !node.slots.is_empty())).len();
        let wanted = all.min(wanted);
        self.check(hosts == wanted, &format!("replicas are at {hosts} sites, not {wanted}"));
    }
}

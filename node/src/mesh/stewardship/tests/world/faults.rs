//! What happens to a world, and when.

use stormo_protocol::ids::DeploymentId;
use stormo_protocol::state::Wished;

use super::super::random::Random;
use super::{FAULTS_MS, LOAD_MS_MAX, World, id, site, wish};
use crate::mesh::Said;

/// What is to happen.
#[derive(Debug, Clone)]
pub(in crate::mesh::stewardship::tests) struct Options {
    pub(in crate::mesh::stewardship::tests) kills: usize,
    pub(in crate::mesh::stewardship::tests) partitions: usize,
    /// Eight nodes are parted into halves for 30 s.
    pub(in crate::mesh::stewardship::tests) halves: bool,
    /// Nodes that cannot load anything.
    pub(in crate::mesh::stewardship::tests) refusers: usize,
    /// Nodes whose loads never end.
    pub(in crate::mesh::stewardship::tests) hangers: usize,
    /// The steward dies while hosts load for the first time.
    pub(in crate::mesh::stewardship::tests) kills_steward_early: bool,
    pub(in crate::mesh::stewardship::tests) restart_all: bool,
    pub(in crate::mesh::stewardship::tests) removes: bool,
    pub(in crate::mesh::stewardship::tests) rolls: bool,
    pub(in crate::mesh::stewardship::tests) load_ms_max: u64,
    /// Faults happen until then.
    pub(in crate::mesh::stewardship::tests) faults_ms: u64,
    /// Nodes are at sites, and those of one site ask; it is another one halfway.
    pub(in crate::mesh::stewardship::tests) asks: bool,
    /// By how much foretold times are off, at the most.
    pub(in crate::mesh::stewardship::tests) noise: f64,
    /// Nodes are at three sites, of which one is away for a while; replicas are to lie at different ones in the end.
    pub(in crate::mesh::stewardship::tests) is_sited: bool,
    /// Share of messages that are lost.
    pub(in crate::mesh::stewardship::tests) loss: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kills: 0,
            partitions: 0,
            halves: false,
            refusers: 0,
            hangers: 0,
            kills_steward_early: false,
            restart_all: false,
            removes: false,
            rolls: false,
            load_ms_max: LOAD_MS_MAX,
            loss: 0.1,
            faults_ms: FAULTS_MS,
            asks: false,
            noise: 0.0,
            is_sited: false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Deploy,
    Remove,
    Kill(u64),
    KillSteward,
    KillAll,
    /// All nodes of one site, not that of the publisher.
    KillSite(u8),
    StartAll,
    Part(u64),
    Join,
    AskAt(u8),
}

impl World {
    pub(super) fn schedule(&mut self) -> Vec<(u64, Fault)> {
        let mut all = vec![(2_000 + self.random.below(8_000), Fault::Deploy)];
        let within = |random: &mut Random| 15_000 + random.below(FAULTS_MS - 45_000);
        for _ in 0..self.options.kills {
            let at_ms = within(&mut self.random);
            all.push((at_ms, Fault::Kill(self.random.bits())));
            if self.random.happens(0.5) {
                let after_ms = 1_000 + self.random.below(25_000);
                all.push((at_ms + after_ms, Fault::StartAll));
            }
        }
        for _ in 0..self.options.partitions {
            let at_ms = within(&mut self.random);
            let until_ms = at_ms + 5_000 + self.random.below(25_000);
            all.push((at_ms, Fault::Part(self.random.bits())));
            all.push((until_ms, Fault::Join));
        }
        if self.options.halves {
            all.push((30_000, Fault::Part(0b1111_0000)));
            all.push((60_000, Fault::Join));
        }
        if self.options.kills_steward_early {
            all.push((all[0].0 + 1_000 + self.random.below(4_000), Fault::KillSteward));
        }
        if self.options.restart_all {
            let at_ms = 50_000 + self.random.below(20_000);
            all.push((at_ms, Fault::KillAll));
            all.push((at_ms + 1_000 + self.random.below(5_000), Fault::StartAll));
        }
        if self.options.is_sited {
            let at_ms = within(&mut self.random);
            let number = 2 + self.random.below(2) as u8;
            all.push((at_ms, Fault::KillSite(number)));
            all.push((at_ms + 15_000 + self.random.below(15_000), Fault::StartAll));
        }
        if self.options.removes {
            all.push((35_000 + self.random.below(10_000), Fault::Remove));
        }
        if self.options.rolls {
            all.push((30_000 + self.random.below(30_000), Fault::Deploy));
        }
        if self.options.asks {
            all.push((40_000, Fault::AskAt(0)));
            all.push((self.options.faults_ms / 2, Fault::AskAt(1)));
        }
        all.sort_by_key(|(at_ms, _)| *at_ms);
        all
    }

    pub(super) fn act(&mut self, publisher: usize, fault: Fault) {
        match fault {
            Fault::Deploy => self.deploy(publisher),
            Fault::Remove => {
                self.removed = true;
                self.publish(publisher, true);
            }
            // The publisher has all objects, and is the one who may remove: it stays.
            Fault::Kill(bits) => {
                let index = 1 + bits as usize % (self.nodes.len() - 1);
                self.kill(index);
            }
            Fault::KillSteward => {
                let steward = self.nodes[publisher].stewardship.steward("a").map(|steward| steward.node);
                let index = self.nodes.iter().position(|node| Some(id(node.number)) == steward);
                if let Some(index) = index.filter(|index| *index != publisher) {
                    self.kill(index);
                }
            }
            Fault::KillAll => {
                (0..self.nodes.len()).for_each(|index| self.kill(index));
                // One comes back without its disk: all that it knows it hears from others.
                let last = self.nodes.len() - 1;
                self.nodes[last].stored.clear();
            }
            Fault::KillSite(number) => {
                let is_there = |index: &usize| self.nodes[*index].domains == [site(number)];
                let there: Vec<usize> = (0..self.nodes.len()).filter(is_there).collect();
                there.into_iter().for_each(|index| self.kill(index));
            }
            Fault::StartAll => {
                let now_ms = self.now_ms;
                self.nodes.iter_mut().filter(|node| !node.alive).for_each(|node| node.begin(now_ms));
            }
            Fault::Part(bits) => {
                self.groups = (0..self.nodes.len()).map(|index| (bits >> index & 1) as u8).collect();
            }
            Fault::AskAt(site) => self.asks_at = Some(site),
            Fault::Join => {
                self.groups = vec![0; self.nodes.len()];
                (self.joined_ms, self.agreed_ms) = (Some(self.now_ms), None);
            }
        }
    }

    pub(super) fn kill(&mut self, index: usize) {
        let now_ms = self.now_ms;
        if !std::mem::replace(&mut self.nodes[index].alive, false) {
            return;
        }
        self.nodes[index].died_ms = now_ms;
        // Those connected to it see its connections break, or do not.
        let node = id(self.nodes[index].number);
        for other in 0..self.nodes.len() {
            if self.groups[other] == self.groups[index] && self.random.happens(0.7) {
                self.nodes[other].view.lost(now_ms, node);
            }
        }
    }

    pub(super) fn publish(&mut self, publisher: usize, removed: bool) -> DeploymentId {
        let Wished { replicas, division } = self.wished.clone();
        let heard = wish("a", self.nodes[publisher].number, self.version, replicas, division, removed);
        let Said::Deployment(deployment) = heard.said() else { unreachable!("a wish") };
        let id = deployment.id();
        self.nodes[publisher].deployments.apply(&heard);
        self.spread(publisher, &heard);
        id
    }

    /// What `stormo deploy` does.
    pub(super) fn deploy(&mut self, publisher: usize) {
        self.version += 1;
        let deployment = self.publish(publisher, false);
        let places = self.find_places(publisher, deployment);
        let node = &self.nodes[publisher];
        let order = node.stewardship.next_order(&node.deployments, deployment, places);
        assert_eq!(order.sequence, 1);
        self.give(publisher, &order);
    }
}

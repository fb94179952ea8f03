//! Whether other hosts would serve those who ask better, by the planner, beside the loop.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::state::{Division, NodeRecord, Place, shared};

use super::{Driver, Event};
use crate::app::planning::{Candidate, Posed, Question};
use crate::ends::Described;
use crate::mesh::{Costs, LinkQuality, Origin, Proposal, propose};
use crate::plan::{self, EXPANSIONS_DEFAULT, KnownRange};

/// Nodes beyond the hosts that are looked at for each who asks, the nearest: what is far away is hardly better.
const NEAREST_MAX: usize = 24;
/// Who ask most.
const ORIGINS_MAX: usize = 4;
/// What nobody waits for, ms: plans may use only what is said to be loaded.
const NEVER_MS: f64 = 1e8;

/// What a comparison is about, as it was when it began.
struct Scene {
    deployment: DeploymentId,
    sequence: u64,
    division: Division,
    places: Vec<Place>,
    origins: Vec<Origin>,
    /// All nodes that can be used, and whether they take work.
    nodes: BTreeMap<NodeId, (Arc<NodeRecord>, bool)>,
    manifests: BTreeMap<u8, Arc<Described>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Compared {
    deployment: DeploymentId,
    sequence: u64,
    proposal: Option<Proposal>,
}

impl Driver {
    /// As the steward of a deployment that is well.
    pub(super) fn compare(&mut self, id: DeploymentId) {
        let Some(scene) = self.scene(id) else { return };
        let (deployment, sequence) = (id, scene.sequence);
        self.beside(async move {
            let proposal = tokio::task::spawn_blocking(move || scene.propose()).await.ok().flatten();
            Event::Compared(Compared { deployment, sequence, proposal })
        });
    }

    fn scene(&self, id: DeploymentId) -> Option<Scene> {
        let deployment = self.member.deployments().by_id(id)?;
        let order = self.stewardship.order(id)?;
        let described =
            deployment.variants().map(|(id, _)| Some((id.index, self.manifests.get(&id)?.clone())));
        let own = Arc::new(self.record());
        let others = self.member.view().iter().filter(|known| self.is_usable(known.record.node));
        let others = others.map(|known| known.record.clone());
        let all = std::iter::once(own).chain(others);
        let nodes: BTreeMap<NodeId, (Arc<NodeRecord>, bool)> =
            all.map(|record| (record.node, (record.clone(), record.offer.takes_work()))).collect();
        let asked = nodes.values().filter_map(|(record, _)| {
            let demand = record.demands.iter().find(|demand| demand.deployment == id)?;
            Some(Origin { node: record.node, per_s: f64::from(demand.per_minute) / 60.0 })
        });
        let mut origins: Vec<Origin> = asked.collect();
        origins.sort_by(|one, other| other.per_s.total_cmp(&one.per_s).then(one.node.cmp(&other.node)));
        origins.truncate(ORIGINS_MAX);
        if origins.is_empty() {
            return None;
        }
        Some(Scene {
            deployment: id,
            sequence: order.sequence,
            division: deployment.wished.division.clone(),
            places: order.places.clone(),
            origins,
            nodes,
            manifests: described.collect::<Option<_>>()?,
        })
    }

    pub(super) fn on_compared(&mut self, compared: Compared) {
        let Compared { deployment, sequence, proposal } = compared;
        let worth = proposal.as_ref().map(|proposal| {
            let percent = (proposal.gain() * 100.0).round() as u64;
            (percent, proposal.move_ms.round() as u64)
        });
        let (now_ms, deployments) = (self.now_ms(), self.member.deployments());
        let order = self.stewardship.proposed(now_ms, deployments, (deployment, sequence), proposal);
        let (Some(order), Some((gain_percent, move_ms))) = (order, worth) else { return };
        tracing::info!(%deployment, gain_percent, move_ms, "parts move nearer to those who ask");
        self.try_to_give(order);
    }
}

impl Scene {
    /// The best other hosts of one variant, with the places of the others as they are.
    fn propose(&self) -> Option<Proposal> {
        self.manifests.iter().find_map(|(index, described)| {
            let (mine, others): (Vec<Place>, Vec<Place>) =
                self.places.iter().partition(|place| place.variant == *index);
            let mut costs = self.costs(VariantId { deployment: self.deployment, index: *index }, described);
            let mut proposal = propose(&mut costs, &self.origins, &mine, &self.division)?;
            proposal.places.extend(others);
            proposal.places.sort_unstable();
            Some(proposal)
        })
    }

    fn costs<'a>(&'a self, variant: VariantId, described: &'a Described) -> Planner<'a> {
        let posed =
            self.origins.iter().map(|origin| (origin.node, self.pose(origin.node, variant, described)));
        Planner { scene: self, variant, described, posed: posed.collect() }
    }

    fn pose(&self, origin: NodeId, variant: VariantId, described: &Described) -> Posed {
        let way_ms = |node: NodeId| {
            let records = self.nodes.get(&origin).zip(self.nodes.get(&node));
            records.map_or(NEVER_MS, |((one, _), (other, _))| LinkQuality::between(one, other).latency_ms)
        };
        let is_host = |node: &NodeId| self.places.iter().any(|place| place.node == *node);
        let (hosts, mut others): (Vec<NodeId>, Vec<NodeId>) =
            self.nodes.keys().copied().filter(|node| *node != origin).partition(is_host);
        others.sort_by(|one, other| way_ms(*one).total_cmp(&way_ms(*other)).then(one.cmp(other)));
        others.truncate(NEAREST_MAX);
        let all = std::iter::once(origin).chain(hosts).chain(others);
        let candidates = all.filter_map(|node| self.nodes.get(&node));
        let candidates = candidates.map(|(record, takes_work)| Candidate { record, takes_work: *takes_work });
        let mut posed = Question {
            manifest: &described.manifest,
            variant,
            blocks: described.manifest.graph_blocks(),
            candidates: candidates.collect(),
            force_first: false,
            force_last: false,
            accuracy: 1.0,
            min_accuracy: None,
            power: None,
        }
        .pose();
        for node in &mut posed.problem.nodes {
            // Who is busy with these requests would not be elsewhere, and the other way round.
            (node.queue_wait_ms, node.cold_fixed_ms) = (0.0, NEVER_MS);
        }
        posed
    }
}

/// Plans from each who asks.
struct Planner<'a> {
    scene: &'a Scene,
    variant: VariantId,
    described: &'a Described,
    posed: BTreeMap<NodeId, Posed>,
}

impl Planner<'_> {
    fn bytes(&self, blocks: Range<u16>) -> u64 {
        self.described.manifest.range_memory_bytes(blocks)
    }

    fn free_bytes(&self, node: NodeId) -> u64 {
        self.scene.nodes.get(&node).map_or(0, |(record, _)| {
            record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes)
        })
    }

    fn hosts(&self, place: &Place) -> bool {
        self.scene.nodes.get(&place.node).is_some_and(|(record, _)| {
            let is_it = |variant, first, end| (variant, first, end) == (self.variant, place.first, place.end);
            record.hosted.iter().any(|hosted| is_it(hosted.variant, hosted.first, hosted.end))
        })
    }

    /// The best plan from there on these places, as if they were loaded: its latency, and who runs which blocks.
    fn best(&self, from: NodeId, places: &[Place]) -> Option<(f64, Vec<Place>)> {
        let posed = self.posed.get(&from)?;
        let mut problem = posed.problem.clone();
        for (node, id) in problem.nodes.iter_mut().zip(&posed.nodes) {
            let measured = std::mem::take(&mut node.known);
            let mine = places.iter().filter(|place| place.node == *id);
            let time_ms = |first, end| {
                let of_it = measured.iter().find(|known| (known.first, known.end) == (first, end));
                of_it.and_then(|known| known.time_ms)
            };
            let as_loaded = |place: &Place| {
                let (first, end) = (place.first - posed.first, place.end - posed.first);
                let time_ms = time_ms(first, end);
                KnownRange { first, end, time_ms, is_loaded: true, has_memory: true }
            };
            node.known = mine.map(as_loaded).collect();
            node.known.dedup();
            node.can_compute &= !node.known.is_empty();
        }
        let best = plan::best(&problem, EXPANSIONS_DEFAULT).ok()?;
        let plan = posed.plan(&best.priced.shape);
        let index = self.variant.index;
        let place = |stage: &stormo_protocol::plan::Stage| Place {
            node: stage.node,
            variant: index,
            first: stage.first,
            end: stage.end,
        };
        let latency_ms = best.priced.latency_ms;
        (latency_ms < NEVER_MS).then(|| (latency_ms, plan.stages.iter().map(place).collect()))
    }
}

impl Costs for Planner<'_> {
    fn latency_ms(&mut self, from: NodeId, places: &[Place]) -> Option<f64> {
        self.best(from, places).map(|(latency_ms, _)| latency_ms)
    }

    fn ideal(&mut self, from: NodeId, parts: &[Place], apart: bool) -> Option<Vec<Place>> {
        let nodes = &self.posed.get(&from)?.nodes;
        let mut all: Vec<Place> = Vec::new();
        for node in nodes {
            let of_part = parts.iter().map(|part| Place { node: *node, ..*part });
            all.extend(of_part.filter(|place| {
                self.hosts(place) || self.free_bytes(*node) >= self.bytes(place.first..place.end)
            }));
        }
        let mut best = self.best(from, &all)?.1;
        let twice = |best: &[Place]| {
            let is_twice = |index: &usize| best[..*index].iter().any(|other| other.node == best[*index].node);
            (0..best.len()).find(is_twice).map(|index| best[index])
        };
        // A node keeps the first of its parts; each round takes one place away, so this ends.
        while let Some(second) = twice(&best).filter(|_| apart) {
            all.retain(|place| *place != second);
            best = self.best(from, &all)?.1;
        }
        Some(best)
    }

    fn move_ms(&mut self, to: &Place) -> f64 {
        if self.hosts(to) {
            return 0.0;
        }
        let Some((target, _)) = self.scene.nodes.get(&to.node) else { return NEVER_MS };
        let bytes = self.bytes(to.first..to.end) as f64;
        let hosts = self.scene.places.iter().filter(|place| (place.first, place.end) == (to.first, to.end));
        let ways = hosts.filter_map(|place| {
            let (source, _) = self.scene.nodes.get(&place.node)?;
            let way = LinkQuality::between(source, target);
            Some(way.latency_ms + way.ms_per_byte * bytes)
        });
        let way_ms = ways.min_by(f64::total_cmp).unwrap_or(NEVER_MS);
        let load = target.load;
        way_ms + load.cold_us as f64 / 1000.0 + load.cold_us_per_mb as f64 / 1000.0 * bytes / 1e6
    }

    fn fits(&mut self, before: &[Place], after: &[Place]) -> bool {
        let mut new_bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
        for place in after.iter().filter(|place| !before.contains(place) && !self.hosts(place)) {
            let sum = new_bytes.entry(place.node).or_default();
            *sum = sum.saturating_add(self.bytes(place.first..place.end));
        }
        let has_room = new_bytes.iter().all(|(node, bytes)| *bytes <= self.free_bytes(*node));
        has_room && self.shared(after) <= self.shared(before)
    }
}

impl Planner<'_> {
    /// Failure domains that hosts of the same part have in common, all together.
    fn shared(&self, places: &[Place]) -> usize {
        let domains =
            |place: &Place| self.scene.nodes.get(&place.node).map(|(record, _)| &record.domains[..]);
        let pairs = places.iter().enumerate().flat_map(|(index, one)| {
            let alike = |other: &&Place| (one.first, one.end) == (other.first, other.end);
            places[index + 1..].iter().filter(alike).map(move |other| (one, other))
        });
        pairs
            .map(|(one, other)| shared(domains(one).unwrap_or_default(), domains(other).unwrap_or_default()))
            .sum()
    }
}

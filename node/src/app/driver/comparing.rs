//! Whether other hosts would serve those who ask better, by the planner, beside the loop.

mod pricing;

use std::collections::BTreeMap;
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::state::{NodeRecord, Place, Wished};

use super::plan_kinds::NEVER_MS;
use super::{Driver, Event};
use crate::app::planning::{Candidate, Posed, Question};
use crate::ends::Described;
use crate::mesh::{LinkQuality, Origin, Proposal, propose};
use pricing::Planner;

/// Nodes beyond the hosts that are looked at for each who asks, the nearest: what is far away is hardly better.
const NEAREST_MAX: usize = 24;
/// Who ask most.
const ORIGINS_MAX: usize = 4;

/// What a comparison is about, as it was when it began.
struct Scene {
    deployment: DeploymentId,
    sequence: u64,
    wished: Wished,
    places: Vec<Place>,
    /// What the last comparison found.
    found: Option<Vec<Place>>,
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
            wished: deployment.wished.clone(),
            places: order.places.clone(),
            found: self.stewardship.favoured(id).map(<[Place]>::to_vec),
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
            let is_of_it = |place: &&Place| place.variant == *index;
            let (mine, others): (Vec<Place>, Vec<Place>) = self.places.iter().partition(is_of_it);
            let found = self.found.as_ref();
            let found: Option<Vec<Place>> = found.map(|all| all.iter().filter(is_of_it).copied().collect());
            let mut costs = self.costs(VariantId { deployment: self.deployment, index: *index }, described);
            let mut proposal = propose(&mut costs, &self.origins, &mine, &self.wished, found.as_deref())?;
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
        let candidates = candidates.map(|(record, takes_work)| Candidate {
            record,
            takes_work: *takes_work,
            late_ms: 0.0,
        });
        let mut posed = Question {
            manifest: &described.manifest,
            variant,
            // With a card, those who ask bring images, and any node decodes.
            blocks: 0..described.manifest.block_count(),
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

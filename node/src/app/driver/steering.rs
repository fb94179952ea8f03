//! Deployments kept alive: what `mesh::Stewardship` and `mesh::Keeping` decide is carried out here. Orders are
//! signed and spread, parts loaded and freed; who hosts what is chosen in `placing` and in the pure room.

use std::collections::BTreeSet;
use std::ops::Range;

use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{NodeRecord, Order, Place, Topic};

use super::Driver;
use super::hosting::PartitionKey;
use super::suspecting::{is_lost, is_there};
use super::variants::Choice;
use crate::app::calls::CallError;
use crate::mesh::{Around, KeepAction, Situation, StewardAction, is_hosted};
use crate::monitor;

impl Driver {
    /// Looks after all deployments: which orders count, what this node owes as steward and as host.
    pub(super) fn look_after_deployments(&mut self) {
        let now_ms = self.now_ms();
        self.member.settling().0.note_time(now_ms, monitor::unix_s());
        self.want_manifests();
        self.settle_versions();
        self.steer();
        self.keep_ordered();
        self.drop_unwanted();
        self.store();
    }

    /// Which of two versions of a name serves.
    pub(super) fn settle_versions(&mut self) {
        let (now_ms, own) = (self.now_ms(), self.record());
        let (deployments, view) = self.member.settling();
        let suspects = &self.suspects;
        let is_usable = |node| is_there(view, suspects, now_ms, node);
        let usable = view.iter().filter(|known| is_usable(known.record.node));
        let records: Vec<&NodeRecord> =
            usable.map(|known| known.record.as_ref()).chain(std::iter::once(&own)).collect();
        let manifests = &self.manifests;
        let blocks = |id: VariantId| manifests.get(&id).map(|described| described.manifest.graph_blocks());
        deployments.settle(now_ms, |deployment| is_hosted(deployment, &records, blocks));
    }

    /// An order that is given here is heard here too, so it counts, and is followed, before this ends.
    fn steer(&mut self) {
        let own = self.record();
        let manifests = &self.manifests;
        let memory_bytes = |variant: VariantId, blocks: Range<u16>| {
            let manifest = &manifests.get(&variant)?.manifest;
            let is_within = blocks.start < blocks.end && blocks.end <= manifest.block_count();
            is_within.then(|| manifest.range_memory_bytes(blocks))
        };
        let now_ms = self.started.elapsed().as_millis() as u64;
        let (deployments, view) = self.member.settling();
        let suspects = &self.suspects;
        let is_suspect = |node| is_lost(view, suspects, now_ms, node);
        let situation =
            Situation { now_ms, own: &own, view, memory_bytes: &memory_bytes, is_suspect: &is_suspect };
        let actions = self.stewardship.look(deployments, &situation);
        for action in actions {
            self.act_as_steward(action);
        }
    }

    fn act_as_steward(&mut self, action: StewardAction) {
        match action {
            StewardAction::Counts(id) => {
                if let Some(order) = self.stewardship.order(id) {
                    tracing::debug!(
                        deployment = %id, sequence = order.sequence, steward = %order.steward.short(),
                        places = order.places.len(), "an order counts"
                    );
                }
            }
            StewardAction::Give(order) => self.try_to_give(order),
            StewardAction::Place(id) => self.place_again(id),
            StewardAction::Compare(id) => self.compare(id),
        }
    }

    /// Signs an order of this node's and tells the mesh.
    pub(super) fn give(&mut self, order: Order) -> Result<(), CallError> {
        tracing::info!(
            deployment = %order.deployment, sequence = order.sequence, places = order.places.len(),
            "this node orders who hosts what"
        );
        self.say(Topic::Order, order.to_bytes()).map(drop)
    }

    pub(super) fn try_to_give(&mut self, order: Order) {
        if let Err(error) = self.give(order) {
            tracing::warn!(%error, "an order was not given");
        }
    }

    /// As the steward of a deployment that nobody placed, or that has lost all hosts of a part.
    fn place_again(&mut self, id: DeploymentId) {
        let Some(deployment) = self.member.deployments().by_id(id).cloned() else { return };
        let choices: Option<Vec<Choice>> = deployment
            .variants()
            .map(|(id, variant)| Some(Choice::new(id, self.manifests.get(&id)?.clone(), variant.accuracy)))
            .collect();
        let Some(choices) = choices else {
            tracing::warn!(name = deployment.name, "its description is not here, so it cannot be placed yet");
            return;
        };
        match self.place_somehow(&deployment.wished, &choices) {
            // It is so ordered already.
            Ok(places) if self.order_of(id).is_some_and(|order| are_same(&order.places, &places)) => {}
            Ok(places) => {
                let order = self.stewardship.next_order(self.member.deployments(), id, places);
                self.try_to_give(order);
            }
            Err(error) => {
                tracing::warn!(name = deployment.name, %error, "this node is its steward and finds no hosts; trying again");
            }
        }
    }

    /// Loads what orders list for this node, frees what they do not list any more.
    fn keep_ordered(&mut self) {
        let (now_ms, own, held) = (self.now_ms(), self.record(), self.hosting.held());
        let around = Around {
            now_ms,
            own: &own,
            view: self.member.view(),
            deployments: self.member.deployments(),
            stewardship: &self.stewardship,
        };
        let actions = self.keeping.look(&around, &held);
        let in_use = self.partitions_in_use();
        for action in actions {
            match action {
                KeepAction::Load(key) => self.load(key, true),
                KeepAction::Drop(key) if in_use.contains(&key) => {}
                KeepAction::Drop(key) => self.hosting.drop(key),
            }
        }
        if self.keeping.goals(&self.hosting.held()) != own.goals {
            self.on_changed();
        }
    }

    /// A partition could not be loaded: those who plan hear of it by this node's record.
    pub(super) fn refuse_to_keep(&mut self, key: PartitionKey, reason: Refusal) {
        self.keeping.refused(self.now_ms(), key, reason);
        self.on_changed();
    }

    /// The order that counts for a version.
    pub(super) fn order_of(&self, id: DeploymentId) -> Option<&Order> {
        self.stewardship.order(id).map(|order| &**order)
    }
}

/// Whether these are the same places, in whatever order.
fn are_same(some: &[Place], others: &[Place]) -> bool {
    let set = |places: &[Place]| places.iter().copied().collect::<BTreeSet<_>>();
    set(some) == set(others)
}

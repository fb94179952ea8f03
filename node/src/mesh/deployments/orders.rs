//! Orders that were heard, by version: a few of each, and of few versions. Whether one counts is for `stewardship` to
//! say; here only room is kept for those that may.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::state::Order;

use super::Given;
use crate::mesh::Applied;

/// Stewards of one version whose orders are held: views may differ for a while.
pub(super) const ORDERS_PER_VERSION_MAX: usize = 8;
/// Versions of which orders are held before the wish itself was heard.
pub(super) const UNKNOWN_VERSIONS_MAX: usize = 64;

/// All orders that are held.
#[derive(Debug, Default)]
pub(super) struct Orders {
    by_version: BTreeMap<DeploymentId, Vec<Given>>,
    /// Who may give orders for a version, as seen from here.
    stewards: BTreeMap<DeploymentId, BTreeSet<NodeId>>,
}

impl Orders {
    /// Takes in an order of a version that is not over. `publisher` is that of its wish, if that was heard; `known` are
    /// the versions that were.
    pub(super) fn apply(
        &mut self,
        given: Given,
        publisher: Option<NodeId>,
        known: impl Iterator<Item = DeploymentId>,
    ) -> Applied {
        let id = given.order.deployment;
        if publisher.is_none() && !self.by_version.contains_key(&id) {
            self.forget_an_unknown_version(&known.collect());
        }
        let held = self.by_version.entry(id).or_default();
        if let Some(known) = held.iter_mut().find(|known| known.order.steward == given.order.steward) {
            if known.order.sequence >= given.order.sequence {
                return Applied::Old;
            }
            *known = given;
            return Applied::News;
        }
        if held.len() >= ORDERS_PER_VERSION_MAX {
            // Any member can sign any sequence; what cannot count makes room for what may.
            let stewards = self.stewards.get(&id);
            let may_count = |order: &Order| {
                stewards.is_some_and(|stewards| stewards.contains(&order.steward))
                    || (order.sequence == 1 && publisher == Some(order.steward))
            };
            let merit = |given: &Given| (may_count(&given.order), given.order.rank());
            let lowest = (0..held.len()).min_by_key(|index| merit(&held[*index]));
            match lowest.filter(|index| merit(&held[*index]) < merit(&given)) {
                Some(index) => held.swap_remove(index),
                None => return Applied::Refused,
            };
        }
        held.push(given);
        Applied::News
    }

    /// Makes room for the orders of a version whose wish was not heard.
    fn forget_an_unknown_version(&mut self, known: &BTreeSet<DeploymentId>) {
        let unknown: Vec<DeploymentId> =
            self.by_version.keys().filter(|id| !known.contains(id)).copied().collect();
        if unknown.len() >= UNKNOWN_VERSIONS_MAX {
            self.by_version.remove(&unknown[0]);
        }
    }

    /// Who may give orders for a version now.
    pub(super) fn note_stewards(&mut self, id: DeploymentId, stewards: BTreeSet<NodeId>) {
        self.stewards.insert(id, stewards);
    }

    /// Forgets those of all versions but these.
    pub(super) fn keep(&mut self, known: &BTreeSet<DeploymentId>) {
        self.by_version.retain(|id, _| known.contains(id));
        self.stewards.retain(|id, _| known.contains(id));
    }

    pub(super) fn forget_below(&mut self, id: DeploymentId, rank: (u64, NodeId)) {
        if let Some(held) = self.by_version.get_mut(&id) {
            held.retain(|given| given.order.rank() >= rank);
        }
    }

    pub(super) fn of(&self, id: DeploymentId) -> &[Given] {
        self.by_version.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Given> {
        self.by_version.values().flatten()
    }

    #[cfg(test)]
    pub(super) fn versions(&self) -> usize {
        self.by_version.len()
    }
}

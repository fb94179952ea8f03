//! What this node hosts, by the orders that count: it loads what they list for it, tries again what it had to
//! refuse, and lets go of the rest once others have it. Pure: slots, orders and the time in; what to load and
//! to drop out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::limits::GOALS_MAX;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Deployment, GoalProgress, HostingGoal, NodeRecord, Order, Place};

use super::{Deployments, Stewardship, View};

/// What is not ordered any more stays so long after all that is ordered is ready: plans that name it are
/// under way.
const PLANS_MS: u64 = 5_000;
/// And so long at the most, if those that are ordered have its blocks; a part that only a plan asked for is dropped after as
/// long without use.
const SURPLUS_MS: u64 = 60_000;
/// Pauses between attempts to load what was refused, first and longest.
const TRY_AGAIN_MS: (u64, u64) = (5_000, 60_000);

/// A range of blocks of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    /// Whose blocks.
    pub variant: VariantId,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
}

impl PartitionKey {
    /// Its blocks.
    pub fn blocks(self) -> Range<u16> {
        self.first..self.end
    }

    fn of(deployment: DeploymentId, place: &Place) -> Self {
        let variant = VariantId { deployment, index: place.variant };
        Self { variant, first: place.first, end: place.end }
    }
}

/// A partition that this node has, or is loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub key: PartitionKey,
    /// Whether it is loaded; if not, the share of its objects that is here, thousandths.
    pub progress: Result<(), u16>,
    /// Whether an order asked for it, not only a plan.
    pub is_ordered: bool,
    /// When it was used last, milliseconds.
    pub used_ms: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAction {
    /// Load it and keep it.
    Load(PartitionKey),
    /// Free it, once no request uses it; if it still loads, load it no further.
    Drop(PartitionKey),
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    reason: Refusal,
    again_ms: u64,
    pause_ms: u64,
}

/// What this node keeps loaded.
#[derive(Debug, Default)]
pub struct Keeping {
    /// What orders list for this node.
    ordered: BTreeSet<PartitionKey>,
    refused: BTreeMap<PartitionKey, Refused>,
    surplus_since_ms: BTreeMap<PartitionKey, u64>,
    /// Since when all that the order of a version lists is ready.
    ready_since_ms: BTreeMap<DeploymentId, u64>,
}

/// What a look is at.
pub struct Around<'a> {
    /// Now.
    pub now_ms: u64,
    /// This node as it would describe itself.
    pub own: &'a NodeRecord,
    /// The others.
    pub view: &'a View,
    /// What is wished.
    pub deployments: &'a Deployments,
    /// Which orders count.
    pub stewardship: &'a Stewardship,
}

impl Around<'_> {
    /// Whether a range is ready on a node that can be used.
    fn is_ready(&self, deployment: DeploymentId, place: &Place) -> bool {
        let key = PartitionKey::of(deployment, place);
        let record = if place.node == self.own.node {
            Some(self.own)
        } else {
            let usable = self.view.is_usable(self.now_ms, place.node);
            self.view.get(place.node).filter(|_| usable).map(|known| known.record.as_ref())
        };
        record.is_some_and(|record| has(record, key))
    }

    /// Whether those that an order lists, and have ready what it lists for them, have all blocks of a range. Whatever else is
    /// hosted is surplus as well, and may go at the same moment.
    fn is_covered(&self, order: &Order, key: PartitionKey) -> bool {
        let of_it = order.places.iter().filter(|place| place.variant == key.variant.index);
        let ready: Vec<&Place> = of_it.filter(|place| self.is_ready(order.deployment, place)).collect();
        key.blocks().all(|block| ready.iter().any(|place| (place.first..place.end).contains(&block)))
    }
}

fn has(record: &NodeRecord, key: PartitionKey) -> bool {
    let is_it = |variant, first, end| PartitionKey { variant, first, end } == key;
    record.hosted.iter().any(|hosted| is_it(hosted.variant, hosted.first, hosted.end))
}

/// Whether every block of every variant is hosted by some node that can be used.
pub fn is_hosted(
    deployment: &Deployment,
    records: &[&NodeRecord],
    blocks: impl Fn(VariantId) -> Option<Range<u16>>,
) -> bool {
    deployment.variants().all(|(id, _)| {
        let of_it = |record: &NodeRecord, block| {
            let mut hosted = record.hosted.iter().filter(|hosted| hosted.variant == id);
            hosted.any(|hosted| (hosted.first..hosted.end).contains(&block))
        };
        blocks(id).is_some_and(|mut all| all.all(|block| records.iter().any(|record| of_it(record, block))))
    })
}

impl Keeping {
    /// A partition could not be loaded.
    pub fn refused(&mut self, now_ms: u64, key: PartitionKey, reason: Refusal) {
        if !self.ordered.contains(&key) {
            return;
        }
        let before = self.refused.get(&key).map(|refused| refused.pause_ms * 2);
        let pause_ms = before.unwrap_or(TRY_AGAIN_MS.0).min(TRY_AGAIN_MS.1);
        self.refused.insert(key, Refused { reason, again_ms: now_ms + pause_ms, pause_ms });
    }

    /// For the node's record: what is ordered of it and not loaded.
    pub fn goals(&self, held: &[Held]) -> Vec<HostingGoal> {
        let of = |key: &PartitionKey| held.iter().find(|held| held.key == *key).map(|held| held.progress);
        let goals = self.ordered.iter().filter_map(|key| {
            let progress = match (of(key), self.refused.get(key)) {
                (Some(Ok(())), _) => return None,
                // Even while it tries again: it failed until it did not.
                (_, Some(refused)) => GoalProgress::Refused(refused.reason as u16),
                (Some(Err(done_permille)), None) => GoalProgress::Loading { done_permille },
                (None, None) => GoalProgress::Loading { done_permille: 0 },
            };
            let PartitionKey { variant, first, end } = *key;
            Some(HostingGoal { variant, first, end, progress })
        });
        goals.take(GOALS_MAX).collect()
    }

    /// Looks at all there is.
    pub fn look(&mut self, around: &Around<'_>, held: &[Held]) -> Vec<KeepAction> {
        let orders: Vec<&Order> = around
            .deployments
            .live()
            .filter_map(|known| around.stewardship.order(known.id()))
            .map(|order| &**order)
            .collect();
        let own = around.own.node;
        self.ordered = orders
            .iter()
            .flat_map(|order| order.places.iter().map(|place| (order.deployment, place)))
            .filter(|(_, place)| place.node == own)
            .map(|(deployment, place)| PartitionKey::of(deployment, place))
            .collect();
        let is_loaded =
            |key: &PartitionKey| held.iter().any(|held| held.key == *key && held.progress.is_ok());
        let ordered = &self.ordered;
        self.refused.retain(|key, _| ordered.contains(key) && !is_loaded(key));
        self.note_ready(around, &orders);
        let mut actions: Vec<KeepAction> = self.loads(around.now_ms, held).map(KeepAction::Load).collect();
        actions.extend(self.drops(around, held).into_iter().map(KeepAction::Drop));
        actions
    }

    fn note_ready(&mut self, around: &Around<'_>, orders: &[&Order]) {
        let is_ready =
            |order: &Order| order.places.iter().all(|place| around.is_ready(order.deployment, place));
        let ready: BTreeSet<DeploymentId> =
            orders.iter().filter(|order| is_ready(order)).map(|order| order.deployment).collect();
        self.ready_since_ms.retain(|id, _| ready.contains(id));
        for id in ready {
            self.ready_since_ms.entry(id).or_insert(around.now_ms);
        }
    }

    fn loads<'a>(&'a self, now_ms: u64, held: &'a [Held]) -> impl Iterator<Item = PartitionKey> + 'a {
        let is_kept = move |key: &PartitionKey| held.iter().any(|held| held.key == *key && held.is_ordered);
        let may =
            move |key: &PartitionKey| self.refused.get(key).is_none_or(|refused| refused.again_ms <= now_ms);
        self.ordered.iter().filter(move |key| !is_kept(key) && may(key)).copied()
    }

    fn drops(&mut self, around: &Around<'_>, held: &[Held]) -> Vec<PartitionKey> {
        let now_ms = around.now_ms;
        let surplus: Vec<Held> =
            held.iter().filter(|held| !self.ordered.contains(&held.key)).copied().collect();
        self.surplus_since_ms.retain(|key, _| surplus.iter().any(|held| held.key == *key));
        let mut drops = Vec::new();
        for Held { key, progress, is_ordered, used_ms } in surplus {
            let id = key.variant.deployment;
            let since_ms = *self.surplus_since_ms.entry(key).or_insert(now_ms);
            let goes = if around.deployments.by_id(id).is_none() {
                true
            } else if let Some(order) = around.stewardship.order(id) {
                let is_covered = || around.is_covered(order, key);
                if progress.is_err() {
                    // It serves nobody yet, and what is ordered waits for its turn. What a plan asked for is for the next try.
                    is_ordered
                } else if is_ordered {
                    let is_replaced = self
                        .ready_since_ms
                        .get(&id)
                        .is_some_and(|ready_ms| now_ms - (*ready_ms).max(since_ms) >= PLANS_MS);
                    is_replaced || (now_ms - since_ms >= SURPLUS_MS && is_covered())
                } else {
                    now_ms.saturating_sub(used_ms.max(since_ms)) >= SURPLUS_MS && is_covered()
                }
            } else {
                // Nobody has said who hosts it instead.
                false
            };
            if goes {
                drops.push(key);
            }
        }
        drops
    }
}

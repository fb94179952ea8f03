//! What the mesh was asked to run: the newest version of each name, taken-back ones included; the version
//! before, as long as the newest is not ready; and the orders that were heard for them. Which of these count
//! is for `stewardship` to say.
//!
//! What was taken back is remembered (a tombstone), so that a part of the mesh that was away, for up to
//! `REMEMBERED_MS`, does not bring it back: as many as `TOMBSTONES_MAX`, those that were taken back last. Which of
//! them were is told by their publishers' clocks, so that all nodes keep the same ones; how long by each node's own.

mod named;
mod orders;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::limits::{DEPLOYMENTS_MAX, TOMBSTONES_MAX};
use stormo_protocol::state::{Deployment, Order, Variant};

use super::{Applied, Heard, Said};
use named::Named;
use orders::Orders;

/// What was taken back is remembered for so long, milliseconds: a week. A part of the mesh that was away longer may
/// bring it back.
const REMEMBERED_MS: u64 = 7 * 24 * 3_600_000;

/// A deployment as its publisher signed it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What is wished.
    pub deployment: Arc<Deployment>,
    /// The same as it was heard, for passing on.
    pub heard: Heard,
}

/// An order as its steward signed it.
#[derive(Debug, Clone)]
pub struct Given {
    /// What is ordered.
    pub order: Arc<Order>,
    /// The same as it was heard, for passing on.
    pub heard: Heard,
}

/// All deployments that are known, by name, and orders by version.
#[derive(Debug, Default)]
pub struct Deployments {
    by_name: BTreeMap<String, Named>,
    orders: Orders,
    /// Now, as this node's own clock and its wall clock say.
    now_ms: u64,
    unix_s: u64,
}

/// Of two wishes for one name, the one that counts is the greater: the one whose publisher claimed the name last (the smaller
/// id, where two did so at the same moment), of one publisher's the higher version, taken back before still wished. By what was
/// signed alone, to the last byte and without a look at any clock, so that all nodes say the same whatever they heard first.
fn rank(wish: &Wish) -> (u64, Reverse<[u8; 32]>, u64, bool, &[u8]) {
    let Deployment { publisher, begun_unix_s, version, removed, .. } = &*wish.deployment;
    (*begun_unix_s, Reverse(publisher.0), *version, *removed, &wish.heard.signed().body)
}

/// Of more live names than there is room for, the greatest go.
fn place(wish: &Wish) -> (u64, &str) {
    (wish.deployment.begun_unix_s, &wish.deployment.name)
}

/// How a publisher deploys a name next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The version.
    pub version: u64,
    /// Since when the name is the publisher's then, by its clock, seconds since 1970.
    pub begun_unix_s: u64,
}

/// Of two deployments that were taken back, the lesser one was so earlier.
fn burial(deployment: &Deployment) -> (u64, DeploymentId) {
    (deployment.removed_unix_s, deployment.id())
}

/// The name under which an exchange lists a deployment: what differs in a byte has another one.
fn wish_id(heard: &Heard) -> DeploymentId {
    listed_as("stormo 1 wish", &[&heard.signed().body])
}

/// As the version of this program before listed it.
fn wish_id_before(deployment: &Deployment) -> DeploymentId {
    if deployment.begun_unix_s == 0 {
        return deployment.id();
    }
    listed_as("stormo 1 wish id", &[&deployment.id().0, &deployment.begun_unix_s.to_le_bytes()])
}

/// The name under which an exchange lists an order: it stands beside the ids of deployments.
fn order_id(heard: &Heard) -> DeploymentId {
    listed_as("stormo 1 order id", &[&heard.signed().body])
}

fn listed_as(context: &str, of: &[&[u8]]) -> DeploymentId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for bytes in of {
        hasher.update(bytes);
    }
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    DeploymentId(id)
}

impl Deployments {
    /// Takes in a deployment or an order.
    pub fn apply(&mut self, heard: &Heard) -> Applied {
        match heard.said() {
            Said::Node(_) => Applied::Refused,
            Said::Deployment(deployment) => {
                self.apply_wish(Wish { deployment: deployment.clone(), heard: heard.clone() })
            }
            Said::Order(order) => self.apply_order(Given { order: order.clone(), heard: heard.clone() }),
        }
    }

    fn apply_wish(&mut self, wish: Wish) -> Applied {
        let now_ms = self.now_ms;
        let is_new = match self.by_name.get(&wish.deployment.name) {
            None => true,
            Some(known) if rank(&wish) <= rank(&known.newest) => return self.apply_previous(wish),
            Some(known) => known.newest.deployment.removed && !wish.deployment.removed,
        };
        if is_new && !self.has_room_for(&wish) {
            return if wish.deployment.removed { Applied::Old } else { Applied::Refused };
        }
        let buries = wish.deployment.removed;
        match self.by_name.get_mut(&wish.deployment.name) {
            Some(known) => known.replace(now_ms, wish),
            None => drop(self.by_name.insert(wish.deployment.name.clone(), Named::of(now_ms, wish))),
        }
        if buries {
            self.forget_oldest_removals();
        } else {
            self.drop_what_has_no_room();
        }
        self.forget_orders_of_replaced();
        Applied::News
    }

    /// Whoever hears of the newest version first, and of none before, needs the one that serves until that is ready.
    fn apply_previous(&mut self, wish: Wish) -> Applied {
        let known = self.by_name.get_mut(&wish.deployment.name);
        let Some(known) = known.filter(|known| known.lacks(&wish.deployment)) else { return Applied::Old };
        (known.previous, known.serves_previous) = (Some(wish), true);
        self.forget_orders_of_replaced();
        Applied::News
    }

    /// How `publisher`, whose clock is so far, deploys a name next; it takes it over if it is another's.
    pub fn next(&self, name: &str, publisher: NodeId, unix_s: u64) -> Next {
        let Some(known) = self.known(name) else { return Next { version: 1, begun_unix_s: unix_s } };
        let begun_unix_s = match known.publisher == publisher {
            true if !known.removed => known.begun_unix_s,
            true => known.begun_unix_s.max(unix_s),
            false => known.begun_unix_s.saturating_add(1).max(unix_s),
        };
        Next { version: known.version.saturating_add(1), begun_unix_s }
    }

    /// Whether a name that was not held, or only as taken back, can be taken in.
    fn has_room_for(&self, wish: &Wish) -> bool {
        let deployment = &wish.deployment;
        if !deployment.removed {
            let last = self.last_live().map(place);
            return self.has_room() || last.is_some_and(|last| place(wish) < last);
        }
        // What all others forget is not told round for ever.
        let has_room = self.removals().count() < TOMBSTONES_MAX;
        let is_later = |known: &Deployment| burial(known) < burial(deployment);
        !self.is_forgotten(deployment) && (has_room || self.removals().any(is_later))
    }

    fn last_live(&self) -> Option<&Wish> {
        let newest = self.by_name.values().map(|named| &named.newest);
        newest.filter(|wish| !wish.deployment.removed).max_by(|one, other| place(one).cmp(&place(other)))
    }

    /// Two halves of a mesh may together have more names than there is room for: all nodes keep the same ones.
    fn drop_what_has_no_room(&mut self) {
        while self.newest().count() > DEPLOYMENTS_MAX {
            let Some(name) = self.last_live().map(|wish| wish.deployment.name.clone()) else { return };
            self.by_name.remove(&name);
        }
    }

    /// Whether one more name can be deployed.
    pub fn has_room(&self) -> bool {
        self.newest().count() < DEPLOYMENTS_MAX
    }

    /// Whether a removal is so long ago that others forget it.
    fn is_forgotten(&self, wish: &Deployment) -> bool {
        let ago_s = self.unix_s.saturating_sub(wish.removed_unix_s);
        wish.removed && wish.removed_unix_s > 0 && ago_s >= REMEMBERED_MS / 1000
    }

    fn removals(&self) -> impl Iterator<Item = &Deployment> {
        self.by_name.values().map(|named| &*named.newest.deployment).filter(|newest| newest.removed)
    }

    /// When what a node takes back now is said to be taken back, by its clock: later than all that was before it, though
    /// the clocks of others may be ahead. Of too many removals the earliest are forgotten, by all nodes the same.
    pub fn next_removal_s(&self, unix_s: u64) -> u64 {
        let last_s = self.removals().map(|wish| wish.removed_unix_s).max();
        last_s.map_or(unix_s, |last_s| last_s.saturating_add(1).max(unix_s))
    }

    fn forget_oldest_removals(&mut self) {
        while self.removals().count() > TOMBSTONES_MAX {
            let oldest = self.removals().min_by_key(|wish| burial(wish)).map(|wish| wish.name.clone());
            let Some(name) = oldest else { return };
            self.by_name.remove(&name);
        }
    }

    /// Time passes, by this node's own clock and by its wall clock; what was taken back long ago is forgotten. Both
    /// clocks have to say so: a wall clock may be wrong, and a node may have heard of it late.
    pub fn note_time(&mut self, now_ms: u64, unix_s: u64) {
        (self.now_ms, self.unix_s) = (now_ms, unix_s);
        let is_over = |named: &Named| {
            let newest = &named.newest.deployment;
            newest.removed
                && now_ms.saturating_sub(named.heard_ms) >= REMEMBERED_MS
                && unix_s.saturating_sub(newest.removed_unix_s) >= REMEMBERED_MS / 1000
        };
        self.by_name.retain(|_, named| !is_over(named));
    }

    fn apply_order(&mut self, given: Given) -> Applied {
        let id = given.order.deployment;
        if self.is_over(id) {
            return Applied::Old;
        }
        let publisher = self.by_id(id).map(|deployment| deployment.publisher);
        let known = live(&self.by_name).map(Deployment::id);
        self.orders.apply(given, publisher, known)
    }

    fn is_over(&self, id: DeploymentId) -> bool {
        let wishes = self.by_name.values().map(|named| &named.newest.deployment);
        wishes.filter(|wish| wish.removed).any(|wish| wish.id() == id)
    }

    /// Which versions are over can be told only of those whose wish is still held, so all orders go that are
    /// of none.
    fn forget_orders_of_replaced(&mut self) {
        let known: BTreeSet<DeploymentId> = self.live().map(Deployment::id).collect();
        self.orders.keep(&known);
    }

    /// The live deployment of a name in its newest version.
    pub fn by_name(&self, name: &str) -> Option<&Deployment> {
        self.known(name).filter(|deployment| !deployment.removed)
    }

    /// The live deployment of a name in the version that requests go to.
    pub fn serving(&self, name: &str) -> Option<&Deployment> {
        self.by_name.get(name).and_then(Named::serving)
    }

    /// As [`Self::serving`], of all names.
    pub fn all_serving(&self) -> impl Iterator<Item = &Deployment> {
        self.by_name.values().filter_map(Named::serving)
    }

    /// The newest deployment of a name, taken back or not.
    pub fn known(&self, name: &str) -> Option<&Deployment> {
        self.by_name.get(name).map(|named| &*named.newest.deployment)
    }

    /// The live deployment of an id, the newest of its name or the one before.
    pub fn by_id(&self, id: DeploymentId) -> Option<&Deployment> {
        self.live().find(|deployment| deployment.id() == id)
    }

    /// Live versions of a name: two while one takes over from the other.
    pub fn versions(&self, name: &str) -> usize {
        self.live().filter(|deployment| deployment.name == name).count()
    }

    /// A variant of a live deployment.
    pub fn variant(&self, id: VariantId) -> Option<(&Deployment, &Variant)> {
        let deployment = self.by_id(id.deployment)?;
        Some((deployment, deployment.variants.get(usize::from(id.index))?))
    }

    /// The newest live deployments, by name.
    pub fn newest(&self) -> impl Iterator<Item = &Deployment> {
        let newest = self.by_name.values().map(|named| &*named.newest.deployment);
        newest.filter(|deployment| !deployment.removed)
    }

    /// All live deployments, by name; where the newest version is not ready yet, the one before it too.
    pub fn live(&self) -> impl Iterator<Item = &Deployment> {
        live(&self.by_name)
    }

    /// Looks which of two versions serves; `is_ready` says whether all blocks of one are hosted.
    pub fn settle(&mut self, now_ms: u64, is_ready: impl Fn(&Deployment) -> bool) {
        let mut replaced = false;
        for named in self.by_name.values_mut() {
            replaced |= named.settle(now_ms, &is_ready);
        }
        if replaced {
            self.forget_orders_of_replaced();
        }
    }

    /// The orders that were heard for a version.
    pub fn orders(&self, id: DeploymentId) -> &[Given] {
        self.orders.of(id)
    }

    /// What is below an order that counts is not passed on any more.
    pub fn forget_orders_below(&mut self, id: DeploymentId, rank: (u64, NodeId)) {
        self.orders.forget_below(id, rank);
    }

    /// Whose orders for a version may count, as seen from here: there is always room for those.
    pub fn note_stewards(&mut self, id: DeploymentId, stewards: impl IntoIterator<Item = NodeId>) {
        self.orders.note_stewards(id, stewards.into_iter().collect());
    }

    /// All wishes as they were signed, each version before the one that replaces it.
    pub fn wishes(&self) -> impl Iterator<Item = &Heard> {
        let named = self.by_name.values();
        named.flat_map(|named| named.previous.iter().chain([&named.newest]).map(|wish| &wish.heard))
    }

    /// Which versions and orders are held: what a sync exchange asks with.
    pub fn digest(&self) -> Vec<(DeploymentId, bool)> {
        let named = self.by_name.values();
        let wishes = named.flat_map(|named| named.previous.iter().chain([&named.newest]));
        let orders = self.orders.all().map(|given| (order_id(&given.heard), false));
        let listed = |wish: &Wish| (wish_id(&wish.heard), wish.deployment.removed);
        wishes.map(listed).chain(orders).collect()
    }

    /// Deployments and orders held here that the asker does not hold in this state.
    pub fn unknown_to(&self, digest: &[(DeploymentId, bool)]) -> Vec<Heard> {
        let theirs: BTreeSet<(DeploymentId, bool)> = digest.iter().copied().collect();
        let told = self.by_name.values().flat_map(|named| {
            let serving = named.previous.as_ref().filter(|_| named.serves_previous);
            serving.into_iter().chain([&named.newest])
        });
        let is_held = |id, removed| theirs.contains(&(id, removed));
        let wishes = told.filter(|Wish { deployment, heard }| {
            let ids = [wish_id(heard), wish_id_before(deployment), deployment.id()];
            !ids.into_iter().any(|id| is_held(id, deployment.removed))
        });
        let orders = self.orders.all().filter(|given| !is_held(order_id(&given.heard), false));
        wishes.map(|wish| &wish.heard).chain(orders.map(|given| &given.heard)).cloned().collect()
    }
}

/// As [`Deployments::live`].
fn live(by_name: &BTreeMap<String, Named>) -> impl Iterator<Item = &Deployment> {
    by_name.values().flat_map(|named| {
        let newest = Some(&named.newest).filter(|newest| !newest.deployment.removed);
        newest.into_iter().chain(&named.previous).map(|wish| &*wish.deployment)
    })
}

#[cfg(test)]
mod tests;

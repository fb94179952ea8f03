//! What the mesh was asked to run: the newest version of each name, taken-back ones included; the version
//! before, as long as the newest is not ready; and the orders that were heard for them. Which of these count
//! is for `stewardship` to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::limits::DEPLOYMENTS_MAX;
use stormo_protocol::state::{Deployment, Order, Variant};

use super::{Applied, Heard, Said};

/// A version that was replaced stays for so long after the newer one was ready, milliseconds: requests that
/// began with it end with it.
const REPLACED_MS: u64 = 60_000;
/// Stewards of one version whose orders are held: views may differ for a while.
const ORDERS_PER_VERSION_MAX: usize = 8;
/// Versions of which orders are held before the wish itself was heard.
const UNKNOWN_VERSIONS_MAX: usize = 64;

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

/// All versions of one name that matter.
#[derive(Debug)]
struct Named {
    newest: Wish,
    /// Serves until the newest is ready.
    previous: Option<Wish>,
    serves_previous: bool,
    /// Since when the newest is ready, while there is a previous one.
    ready_ms: Option<u64>,
}

/// All deployments that are known, by name, and orders by version.
#[derive(Debug, Default)]
pub struct Deployments {
    by_name: BTreeMap<String, Named>,
    orders: BTreeMap<DeploymentId, Vec<Given>>,
}

/// Of two wishes for one name, the one that counts: a name belongs to one publisher (the smaller
/// id, where two took it at the same moment), and of one publisher's versions the highest counts,
/// taken back before still wished.
fn rank(deployment: &Deployment) -> (std::cmp::Reverse<[u8; 32]>, u64, bool) {
    (std::cmp::Reverse(deployment.publisher.0), deployment.version, deployment.removed)
}

/// The name under which an exchange lists an order: it stands beside the ids of deployments.
fn order_id(heard: &Heard) -> DeploymentId {
    let mut hasher = blake3::Hasher::new_derive_key("stormo 1 order id");
    hasher.update(&heard.signed().body);
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
        let name = wish.deployment.name.clone();
        let Some(known) = self.by_name.get_mut(&name) else {
            if self.by_name.len() >= DEPLOYMENTS_MAX {
                return Applied::Refused;
            }
            let named = Named { newest: wish, previous: None, serves_previous: false, ready_ms: None };
            self.by_name.insert(name, named);
            return Applied::News;
        };
        if rank(&known.newest.deployment) >= rank(&wish.deployment) {
            return Applied::Old;
        }
        known.replace(wish);
        self.forget_orders_of_replaced();
        Applied::News
    }

    fn apply_order(&mut self, given: Given) -> Applied {
        let id = given.order.deployment;
        if self.is_over(id) {
            return Applied::Old;
        }
        if !self.orders.contains_key(&id) && self.by_id(id).is_none() {
            self.forget_an_unknown_version();
        }
        let held = self.orders.entry(id).or_default();
        if let Some(known) = held.iter_mut().find(|known| known.order.steward == given.order.steward) {
            if known.order.sequence >= given.order.sequence {
                return Applied::Old;
            }
            *known = given;
            return Applied::News;
        }
        if held.len() >= ORDERS_PER_VERSION_MAX {
            let lowest = (0..held.len()).min_by_key(|index| held[*index].order.rank());
            match lowest.filter(|index| held[*index].order.rank() < given.order.rank()) {
                Some(index) => held.swap_remove(index),
                None => return Applied::Refused,
            };
        }
        held.push(given);
        Applied::News
    }

    fn is_over(&self, id: DeploymentId) -> bool {
        let wishes = self.by_name.values().map(|named| &named.newest.deployment);
        wishes.filter(|wish| wish.removed).any(|wish| wish.id() == id)
    }

    /// Makes room for the orders of a version whose wish was not heard.
    fn forget_an_unknown_version(&mut self) {
        let known: BTreeSet<DeploymentId> = self.live().map(Deployment::id).collect();
        let unknown: Vec<DeploymentId> =
            self.orders.keys().filter(|id| !known.contains(id)).copied().collect();
        if unknown.len() >= UNKNOWN_VERSIONS_MAX {
            self.orders.remove(&unknown[0]);
        }
    }

    /// Which versions are over can be told only of those whose wish is still held, so all orders go that are
    /// of none.
    fn forget_orders_of_replaced(&mut self) {
        let known: BTreeSet<DeploymentId> = self.live().map(Deployment::id).collect();
        self.orders.retain(|id, _| known.contains(id));
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
        self.by_name.values().flat_map(|named| {
            let newest = Some(&named.newest).filter(|newest| !newest.deployment.removed);
            newest.into_iter().chain(&named.previous).map(|wish| &*wish.deployment)
        })
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
        self.orders.get(&id).map_or(&[], Vec::as_slice)
    }

    /// What is below an order that counts is not passed on any more.
    pub fn forget_orders_below(&mut self, id: DeploymentId, rank: (u64, NodeId)) {
        if let Some(held) = self.orders.get_mut(&id) {
            held.retain(|given| given.order.rank() >= rank);
        }
    }

    /// All wishes as they were signed, each version before the one that replaces it.
    pub fn wishes(&self) -> impl Iterator<Item = &Heard> {
        let named = self.by_name.values();
        named.flat_map(|named| named.previous.iter().chain([&named.newest]).map(|wish| &wish.heard))
    }

    /// Which versions and orders are held: what a sync exchange asks with.
    pub fn digest(&self) -> Vec<(DeploymentId, bool)> {
        let newest = self.by_name.values().map(|named| &named.newest.deployment);
        let orders = self.orders.values().flatten().map(|given| (order_id(&given.heard), false));
        newest.map(|wish| (wish.id(), wish.removed)).chain(orders).collect()
    }

    /// Deployments and orders held here that the asker does not hold in this state.
    pub fn unknown_to(&self, digest: &[(DeploymentId, bool)]) -> Vec<Heard> {
        let theirs: BTreeSet<(DeploymentId, bool)> = digest.iter().copied().collect();
        let newest = self.by_name.values().map(|named| &named.newest);
        let wishes = newest.map(|wish| ((wish.deployment.id(), wish.deployment.removed), &wish.heard));
        let orders =
            self.orders.values().flatten().map(|given| ((order_id(&given.heard), false), &given.heard));
        let all = wishes.chain(orders);
        all.filter(|(id, _)| !theirs.contains(id)).map(|(_, heard)| heard.clone()).collect()
    }
}

impl Named {
    fn replace(&mut self, wish: Wish) {
        let is_next = !wish.deployment.removed
            && !self.newest.deployment.removed
            && wish.deployment.publisher == self.newest.deployment.publisher;
        let before = std::mem::replace(&mut self.newest, wish);
        if !is_next {
            self.previous = None;
        } else if self.previous.is_none() || !self.serves_previous {
            // Otherwise the version before never took over from the one before that.
            self.previous = Some(before);
        }
        (self.serves_previous, self.ready_ms) = (self.previous.is_some(), None);
    }

    fn serving(&self) -> Option<&Deployment> {
        let previous = self.previous.as_ref().filter(|_| self.serves_previous);
        let serving = &previous.unwrap_or(&self.newest).deployment;
        (!serving.removed).then_some(serving)
    }

    /// Says whether a version went.
    fn settle(&mut self, now_ms: u64, is_ready: &impl Fn(&Deployment) -> bool) -> bool {
        let Some(previous) = &self.previous else { return false };
        if !is_ready(&self.newest.deployment) {
            self.ready_ms = None;
            self.serves_previous = is_ready(&previous.deployment);
            return false;
        }
        self.serves_previous = false;
        let since_ms = *self.ready_ms.get_or_insert(now_ms);
        let is_over = now_ms.saturating_sub(since_ms) >= REPLACED_MS;
        if is_over {
            self.previous = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::ids::ObjectId;
    use stormo_protocol::model::ObjectRef;
    use stormo_protocol::state::{Division, Place, Signed, Topic, Wished};

    fn heard(name: &str, publisher: u8, version: u64, removed: bool) -> Heard {
        let manifest = ObjectRef { id: ObjectId([version as u8; 32]), bytes: 1 };
        let variant = Variant { label: "base".into(), manifest, accuracy: None };
        let deployment = Deployment {
            name: name.into(),
            version,
            publisher: NodeId([publisher; 32]),
            variants: vec![variant],
            removed,
            wished: Wished { replicas: 1, division: Division::Whole },
        };
        let (author, body) = (deployment.publisher, deployment.to_bytes());
        Heard::read(Signed { topic: Topic::Deployment, author, signature: vec![], body }).unwrap()
    }

    #[test]
    fn the_highest_version_counts_and_removal_stays() {
        let mut deployments = Deployments::default();
        assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::Old);
        assert_eq!(deployments.apply(&heard("a", 1, 2, true)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::Old);
        assert!(deployments.by_name("a").is_none());
        assert_eq!(deployments.apply(&heard("a", 1, 3, false)), Applied::News);
        assert_eq!(deployments.by_name("a").unwrap().version, 3);
    }

    #[test]
    fn two_publishers_of_a_name_end_alike_everywhere() {
        for order in [[1, 2], [2, 1]] {
            let mut deployments = Deployments::default();
            for publisher in order {
                deployments.apply(&heard("a", publisher, u64::from(publisher), false));
            }
            assert_eq!(deployments.by_name("a").unwrap().publisher, NodeId([1; 32]));
        }
    }

    #[test]
    fn what_another_lacks_is_told() {
        let (mut a, mut b) = (Deployments::default(), Deployments::default());
        a.apply(&heard("x", 1, 1, false));
        b.apply(&heard("x", 1, 1, false));
        a.apply(&heard("x", 1, 1, true));
        let news = a.unknown_to(&b.digest());
        assert_eq!(news.len(), 1);
        assert_eq!(b.apply(&news[0]), Applied::News);
        assert!(a.unknown_to(&b.digest()).is_empty());
    }

    fn order(of: &Heard, sequence: u64, steward: u8) -> Heard {
        let Said::Deployment(deployment) = of.said() else { panic!("a wish") };
        let steward = NodeId([steward; 32]);
        let places = vec![Place { node: steward, variant: 0, first: 0, end: 1 }];
        let body = Order { deployment: deployment.id(), sequence, steward, places }.to_bytes();
        Heard::read(Signed { topic: Topic::Order, author: steward, signature: vec![], body }).unwrap()
    }

    fn version(deployments: &Deployments) -> Option<u64> {
        deployments.serving("a").map(|serving| serving.version)
    }

    #[test]
    fn the_version_before_serves_until_the_newest_is_ready_and_stays_a_while() {
        let mut deployments = Deployments::default();
        deployments.apply(&heard("a", 1, 1, false));
        deployments.settle(0, |_| true);
        deployments.apply(&heard("a", 1, 2, false));
        assert_eq!(version(&deployments), Some(1));
        deployments.settle(1, |known| known.version == 1);
        assert_eq!((version(&deployments), deployments.live().count()), (Some(1), 2));
        // One that never got ready does not push out the one that serves.
        deployments.apply(&heard("a", 1, 3, false));
        assert_eq!((version(&deployments), deployments.live().count()), (Some(1), 2));
        deployments.settle(2, |_| true);
        assert_eq!((version(&deployments), deployments.live().count()), (Some(3), 2));
        // The newest loses its hosts for a moment.
        deployments.settle(3, |known| known.version == 1);
        assert_eq!(version(&deployments), Some(1));
        deployments.settle(4, |_| true);
        deployments.settle(4 + REPLACED_MS, |_| true);
        assert_eq!((version(&deployments), deployments.live().count()), (Some(3), 1));
        deployments.apply(&heard("a", 1, 4, false));
        deployments.apply(&heard("a", 1, 4, true));
        assert_eq!((version(&deployments), deployments.live().count()), (None, 0));
    }

    #[test]
    fn where_neither_version_is_ready_the_newest_counts() {
        let mut deployments = Deployments::default();
        deployments.apply(&heard("a", 1, 1, false));
        deployments.apply(&heard("a", 1, 2, false));
        deployments.settle(0, |_| false);
        assert_eq!(version(&deployments), Some(2));
    }

    #[test]
    fn orders_are_held_by_steward_passed_on_and_go_with_their_version() {
        let (mut a, mut b) = (Deployments::default(), Deployments::default());
        let wish = heard("a", 1, 1, false);
        // Before the wish itself.
        assert_eq!(a.apply(&order(&wish, 2, 7)), Applied::News);
        assert_eq!(a.apply(&order(&wish, 2, 7)), Applied::Old);
        assert_eq!(a.apply(&order(&wish, 3, 7)), Applied::News);
        assert_eq!(a.apply(&order(&wish, 2, 8)), Applied::News);
        a.apply(&wish);
        for heard in a.unknown_to(&b.digest()) {
            assert_eq!(b.apply(&heard), Applied::News);
        }
        assert!(a.unknown_to(&b.digest()).is_empty());
        let id = b.by_name("a").unwrap().id();
        assert_eq!(b.orders(id).len(), 2);
        b.forget_orders_below(id, (3, NodeId([7; 32])));
        assert_eq!(b.orders(id).len(), 1);
        b.apply(&heard("a", 1, 1, true));
        assert!(b.orders(id).is_empty());
        assert_eq!(b.apply(&order(&wish, 9, 7)), Applied::Old, "its version is over");
    }

    #[test]
    fn orders_are_bounded() {
        let mut deployments = Deployments::default();
        let wish = heard("a", 1, 1, false);
        deployments.apply(&wish);
        for steward in 1..=20 {
            deployments.apply(&order(&wish, u64::from(steward), steward));
        }
        let id = deployments.by_name("a").unwrap().id();
        let held: Vec<u64> = deployments.orders(id).iter().map(|given| given.order.sequence).collect();
        assert!(
            held.len() == ORDERS_PER_VERSION_MAX && held.iter().all(|sequence| *sequence > 12),
            "{held:?}"
        );
        for version in 0..1000 {
            deployments.apply(&order(&heard("b", 1, version, false), 1, 1));
        }
        assert!(deployments.orders.len() <= UNKNOWN_VERSIONS_MAX + 1);
    }
}

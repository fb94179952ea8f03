//! Who looks after a deployment, whose orders for it count, and when a new one is due. Pure: records, wishes
//! and the time in; orders to give out.
//!
//! Each deployment has a *steward*: of the nodes that are there, not on battery and running for a while, the
//! one that wins a rendezvous hash over (name, node). All who see the same nodes name the same one, and only
//! its deployments move when a node comes or goes. The steward's order lists who hosts which blocks; hosts
//! follow it by themselves (`keeping`) and tell in their records how far they are. An order counts here if
//! who gave it may: the publisher the first, after that the one that is steward as seen from here, or was
//! moments ago. Others are held, in case views converge to that. So two stewards who do not see each other
//! are each obeyed by those who see them; when views are one again, one of them is nobody's steward any more,
//! and the other one gives an order above both.

mod choosing;
mod moving;
mod replacing;
mod seats;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::state::NodeRecord;
use stormo_protocol::state::{Deployment, Division, Order, Place};

use super::deployments::Given;
use super::{Deployments, Heard, Said, View};
pub use moving::{Costs, Origin, Part, Proposal, propose};

use moving::Moving;
use replacing::Replacing;
use seats::Seats;
pub use seats::{Steward, Tier};

/// An order by who was steward until this long ago still counts: it was given before the mesh knew.
const PAST_STEWARD_MS: u64 = 10_000;
/// A steward for so long confirms what another one ordered, so that those who come later can tell that it counts.
const CONFIRM_MS: u64 = 10_000;
/// Between two orders of one steward for one version.
const ORDER_GAP_MS: u64 = 2_000;
/// A version without any order that counts is placed by its steward: the publisher's first order may be under
/// way for so long.
const FIRST_ORDER_MS: u64 = 10_000;
/// Pauses between attempts to place what fits nowhere, first and longest.
const PLACE_AGAIN_MS: (u64, u64) = (10_000, 60_000);
/// Sequences beyond the known one that a steward outbids. Nobody who errs gets this far ahead, and whoever
/// lies cannot use the numbers up.
const OUTBID_MAX: u64 = 1 << 20;

/// What a stewardship looks at.
pub struct Situation<'a> {
    /// Now.
    pub now_ms: u64,
    /// This node as it would describe itself.
    pub own: &'a NodeRecord,
    /// The others.
    pub view: &'a View,
    /// Memory that a range of a variant takes, bytes; `None` while that is not known here.
    pub memory_bytes: &'a dyn Fn(VariantId, Range<u16>) -> Option<u64>,
    /// Whether a node fell silent in a request here: nothing new is given to it.
    pub is_suspect: &'a dyn Fn(NodeId) -> bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StewardAction {
    /// Another order counts for this version now.
    Counts(DeploymentId),
    /// Sign and spread this order: this node is the steward.
    Give(Order),
    /// Find hosts for all of this version from its wish: no order counts, or nothing that it divides into fits
    /// anywhere. [`Stewardship::next_order`] makes the order of what was found.
    Place(DeploymentId),
    /// Look whether other hosts would serve those who ask better ([`propose`]), and say so
    /// ([`Stewardship::proposed`]).
    Compare(DeploymentId),
}

/// What is known of one version.
#[derive(Debug, Default)]
struct Course {
    /// Since when this version is known here.
    known_ms: u64,
    counts: Option<Given>,
    counts_since_ms: u64,
    steward: Option<NodeId>,
    steward_since_ms: u64,
    /// Who was steward before, and until when.
    before: Option<(NodeId, u64)>,
    replacing: Replacing,
    moving: Moving,
    /// No order of ours before.
    next_order_ms: u64,
    next_place_ms: u64,
    place_pause_ms: u64,
}

/// This node's belief about the stewards of all deployments, and its own duties as one.
#[derive(Debug)]
pub struct Stewardship {
    seats: Seats,
    courses: BTreeMap<DeploymentId, Course>,
}

impl Stewardship {
    /// Of a node that starts now.
    pub fn new(own: NodeId, now_ms: u64) -> Self {
        Self { seats: Seats::new(own, now_ms), courses: BTreeMap::new() }
    }

    /// Takes up an order that counted when this node last ran.
    pub fn restore(&mut self, heard: &Heard) {
        if let Said::Order(order) = heard.said() {
            let counts = Some(Given { order: order.clone(), heard: heard.clone() });
            self.courses.entry(order.deployment).or_insert_with(|| Course::begun(0)).counts = counts;
        }
    }

    /// The order that counts for a version.
    pub fn order(&self, id: DeploymentId) -> Option<&Arc<Order>> {
        self.courses.get(&id)?.counts.as_ref().map(|given| &given.order)
    }

    /// All orders that count, as they were signed.
    pub fn orders(&self) -> impl Iterator<Item = &Heard> {
        self.courses.values().filter_map(|course| course.counts.as_ref().map(|given| &given.heard))
    }

    /// Who is steward of a name, as this node saw it at its last look; `None` while nobody is there.
    pub fn steward(&self, name: &str) -> Option<Steward> {
        self.seats.steward(name)
    }

    /// The order that is next for a version.
    pub fn next_order(&self, deployments: &Deployments, id: DeploymentId, places: Vec<Place>) -> Order {
        let known = self.order(id).map_or(0, |order| order.sequence);
        let heard = deployments.orders(id).iter().map(|given| given.order.sequence);
        let highest = heard.filter(|sequence| *sequence <= known.saturating_add(OUTBID_MAX)).max();
        let sequence = highest.unwrap_or(0).max(known).saturating_add(1);
        // 1 is the publisher's.
        let is_publisher = deployments.by_id(id).is_some_and(|known| known.publisher == self.seats.own());
        let sequence = if is_publisher { sequence } else { sequence.max(2) };
        Order { deployment: id, sequence, steward: self.seats.own(), places }
    }

    /// Which nodes failed lately with which parts (variant, first block, one past the last) of a version, as its steward
    /// saw it: these are not to be asked of them, nor larger ones.
    pub fn refusals(&self, id: DeploymentId) -> impl Iterator<Item = (NodeId, (u8, u16, u16))> {
        self.courses.get(&id).into_iter().flat_map(|course| course.replacing.refusals())
    }

    /// The places that the last comparison found, if they were worth it.
    pub fn favoured(&self, id: DeploymentId) -> Option<&[Place]> {
        self.courses.get(&id)?.moving.favoured()
    }

    /// What a comparison found for an order that counted then. Gives the order that is due, if that is still how
    /// things are, and it was found before.
    pub fn proposed(
        &mut self,
        now_ms: u64,
        deployments: &Deployments,
        of: (DeploymentId, u64),
        proposal: Option<Proposal>,
    ) -> Option<Order> {
        let (id, sequence) = of;
        let name = &deployments.by_id(id)?.name;
        let is_steward = self.seats.steward(name).is_some_and(|steward| steward.node == self.seats.own());
        let course = self.courses.get_mut(&id)?;
        let counts = course.counts.as_ref().filter(|given| given.order.sequence == sequence && is_steward)?;
        let before = counts.order.places.clone();
        let places = course.moving.found(now_ms, &before, proposal)?;
        course.next_order_ms = now_ms + ORDER_GAP_MS;
        Some(self.next_order(deployments, id, places))
    }

    /// Looks at all there is: which orders count, and what this node has to do as steward.
    pub fn look(&mut self, deployments: &mut Deployments, situation: &Situation<'_>) -> Vec<StewardAction> {
        self.seats.look(situation);
        let live: Vec<Deployment> = deployments.live().cloned().collect();
        self.courses.retain(|id, _| live.iter().any(|known| known.id() == *id));
        let mut actions = Vec::new();
        for deployment in &live {
            let id = deployment.id();
            let steward = self.seats.steward(&deployment.name);
            let course = self.courses.entry(id).or_insert_with(|| Course::begun(situation.now_ms));
            course.note_steward(situation.now_ms, steward.map(|steward| steward.node));
            let before = course.before.map(|(before, _)| before);
            deployments.note_stewards(id, course.steward.into_iter().chain(before));
            if course.accept(situation.now_ms, deployment, deployments.orders(id)) {
                actions.push(StewardAction::Counts(id));
            }
            if let Some(counts) = &course.counts {
                deployments.forget_orders_below(id, counts.order.rank());
            }
        }
        let mut promised = self.promised(situation);
        for deployment in &live {
            actions.extend(self.duty(deployments, deployment, situation, &mut promised));
        }
        actions
    }

    /// Memory that orders take of nodes whose records do not show it yet, bytes.
    fn promised(&self, situation: &Situation<'_>) -> BTreeMap<NodeId, u64> {
        let mut promised: BTreeMap<NodeId, u64> = BTreeMap::new();
        for order in self.courses.values().filter_map(|course| course.counts.as_ref()) {
            let order = &order.order;
            for place in &order.places {
                let Some(record) = self.seats.record(situation, place.node) else { continue };
                if replacing::shows(record, order.deployment, place) {
                    continue;
                }
                let variant = VariantId { deployment: order.deployment, index: place.variant };
                let bytes = (situation.memory_bytes)(variant, place.first..place.end).unwrap_or(0);
                let sum = promised.entry(place.node).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        promised
    }

    /// What this node owes a deployment as its steward.
    fn duty(
        &mut self,
        deployments: &Deployments,
        deployment: &Deployment,
        situation: &Situation<'_>,
        promised: &mut BTreeMap<NodeId, u64>,
    ) -> Option<StewardAction> {
        let (id, now_ms) = (deployment.id(), situation.now_ms);
        let steward = self.seats.steward(&deployment.name)?;
        let course = self.courses.get_mut(&id)?;
        if steward.node != self.seats.own() || !steward.tier.acts() {
            course.replacing = Replacing::default();
            return None;
        }
        if now_ms < course.next_order_ms {
            return None;
        }
        let Some(given) = course.counts.clone() else {
            let is_due = now_ms.saturating_sub(course.known_ms) >= FIRST_ORDER_MS;
            return (is_due && course.is_place_due(now_ms)).then_some(StewardAction::Place(id));
        };
        let order_age_ms = now_ms.saturating_sub(course.counts_since_ms);
        let look =
            replacing::Look { seats: &self.seats, deployment, order: &given.order, order_age_ms, situation };
        let looked = course.replacing.look(&look, promised);
        let is_changed = looked.places.is_some();
        let confirms =
            course.is_confirmation_due(now_ms, self.seats.own(), deployment, deployments.orders(id));
        let is_told = matches!(deployment.wished.division, Division::Told(_));
        if looked.is_stranded && !is_told && course.is_place_due(now_ms) {
            return Some(StewardAction::Place(id));
        }
        if !is_changed && !confirms {
            let may_move = looked.is_whole && !is_told && deployments.versions(&deployment.name) == 1;
            let is_due = may_move && course.moving.is_due(now_ms, order_age_ms);
            return is_due.then_some(StewardAction::Compare(id));
        }
        course.next_order_ms = now_ms + if is_changed { ORDER_GAP_MS } else { CONFIRM_MS };
        let places = looked.places.unwrap_or_else(|| given.order.places.clone());
        Some(StewardAction::Give(self.next_order(deployments, id, places)))
    }
}

impl Course {
    fn begun(now_ms: u64) -> Self {
        Self {
            known_ms: now_ms,
            counts_since_ms: now_ms,
            place_pause_ms: PLACE_AGAIN_MS.0,
            ..Self::default()
        }
    }

    fn note_steward(&mut self, now_ms: u64, steward: Option<NodeId>) {
        if self.steward != steward {
            self.before = self.steward.map(|before| (before, now_ms));
            (self.steward, self.steward_since_ms) = (steward, now_ms);
        }
    }

    /// Whether an order is by somebody who may give it.
    fn may_give(&self, now_ms: u64, order: &Order, publisher: NodeId) -> bool {
        let was = |(before, until_ms): (NodeId, u64)| {
            before == order.steward && now_ms.saturating_sub(until_ms) < PAST_STEWARD_MS
        };
        self.steward == Some(order.steward)
            || self.before.is_some_and(was)
            || (order.sequence == 1 && order.steward == publisher)
    }

    /// Takes the highest order that may be given; says whether that is another one than before.
    fn accept(&mut self, now_ms: u64, deployment: &Deployment, heard: &[Given]) -> bool {
        let known = self.counts.as_ref().map(|given| given.order.rank());
        let newer = heard.iter().filter(|given| Some(given.order.rank()) > known);
        let given = newer
            .filter(|given| self.may_give(now_ms, &given.order, deployment.publisher))
            .max_by_key(|given| given.order.rank());
        let Some(given) = given.cloned() else { return false };
        (self.counts, self.counts_since_ms) = (Some(given), now_ms);
        self.place_pause_ms = PLACE_AGAIN_MS.0;
        true
    }

    /// Whether a steward should repeat what counts: it was ordered by another one, or somebody holds an order
    /// that is above it and that does not count.
    fn is_confirmation_due(
        &self,
        now_ms: u64,
        own: NodeId,
        deployment: &Deployment,
        heard: &[Given],
    ) -> bool {
        let Some(given) = &self.counts else { return false };
        let order = &given.order;
        let is_first = order.sequence == 1 && order.steward == deployment.publisher;
        let is_outbid = heard.iter().any(|other| {
            other.order.rank() > order.rank()
                && other.order.sequence <= order.sequence.saturating_add(OUTBID_MAX)
        });
        let is_settled = now_ms.saturating_sub(self.steward_since_ms) >= CONFIRM_MS;
        is_settled && ((order.steward != own && !is_first) || is_outbid)
    }

    fn is_place_due(&mut self, now_ms: u64) -> bool {
        if now_ms < self.next_place_ms {
            return false;
        }
        self.next_place_ms = now_ms + self.place_pause_ms;
        self.place_pause_ms = (self.place_pause_ms * 2).min(PLACE_AGAIN_MS.1);
        true
    }
}

#[cfg(test)]
mod tests;

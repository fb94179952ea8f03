//! Which places of an order are lost, and which nodes take them up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::limits::PLACES_MAX;
use stormo_protocol::profile::WorkClass;
use stormo_protocol::state::{Class, Deployment, Division, GoalProgress, NodeRecord, Order, Place, shared};

use super::Situation;
use super::seats::Seats;

/// A host that cannot be used for so long is replaced: a connection that broke and is back is no loss.
const LOST_MS: u64 = 3_000;
/// A host that can be used and neither hosts nor loads what it was ordered to is replaced after this.
const SILENT_MS: u64 = 30_000;
/// A host that loads and gets no further for so long is replaced, at least and at the most: between them it is
/// [`STALLED_LOADS`] times what its own last loads took. A host loads one part after the other, so it gets further
/// with those that wait, up to the most, while it does with any.
const STALLED_MS: (u64, u64) = (60_000, 600_000);
const STALLED_LOADS: u64 = 4;
/// A node that refused a range is not asked for it again for so long, at first and at the most: it doubles with each
/// refusal, so that nodes without room for a part do not get it in turns for ever.
const REFUSED_MS: (u64, u64) = (120_000, 3_600_000);
/// A host that refuses for so long, or says nothing of it, does so for good as far as placing goes: by itself it has
/// tried five times (`keeping`).
const FOR_GOOD_MS: u64 = 75_000;
/// Replicas beyond those that an order could place are added no sooner after it: several nodes may join at once. A
/// machine that joins is to be used, so it need not have been here for long.
const ADD_MS: u64 = 500;
/// What is hosted well and could lie better (replicas that share failure domains, two parts on one node, a part whose host
/// was told by name and came back) moves no sooner after an order, and only onto a node that has run for so long: one that comes and
/// goes is not followed.
const BETTER_MS: u64 = 60_000;
/// Between two looks for that: each is over all nodes.
const BETTER_LOOK_MS: u64 = 5_000;
/// Refusals that are remembered.
const REFUSALS_MAX: usize = 1024;

/// The range of a place, wherever it is.
pub(super) type Part = (u8, u16, u16);

fn part(place: &Place) -> Part {
    (place.variant, place.first, place.end)
}

/// What one deployment's places lacked so far.
#[derive(Debug, Default)]
pub(super) struct Replacing {
    ailing: BTreeMap<Place, u64>,
    /// How far those are that load.
    loading: BTreeMap<Place, Reached>,
    /// Nodes that are not asked again for a while.
    refused: BTreeMap<(NodeId, Part), Refusal>,
    /// No look for better places before.
    next_better_ms: u64,
}

/// The furthest that a load came, and since when it is there: what falls back and rises again gets nowhere.
#[derive(Debug, Clone, Copy)]
struct Reached {
    done_permille: u16,
    since_ms: u64,
    /// What else its host has loaded and loads, and since when that is so.
    others: (usize, u64),
    others_since_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    until_ms: u64,
    pause_ms: u64,
}

pub(super) struct Look<'a, 'b> {
    pub seats: &'b Seats,
    pub deployment: &'b Deployment,
    pub order: &'b Order,
    pub order_age_ms: u64,
    pub situation: &'b Situation<'a>,
}

impl Look<'_, '_> {
    /// Whether a node has been there for long enough to move something to it that is hosted well.
    fn stays(&self, node: NodeId) -> bool {
        self.seats.age_ms(node).is_some_and(|age_ms| age_ms >= BETTER_MS)
    }

    fn bytes(&self, place: &Place) -> Option<u64> {
        (self.situation.memory_bytes)(variant_of(self.deployment.id(), place), place.first..place.end)
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// The places that a new order should have, if others than before.
    pub places: Option<Vec<Place>>,
    /// Whether some part is hosted nowhere, and fits nowhere, or only where it is refused for good.
    pub is_stranded: bool,
    /// Whether every place is hosted.
    pub is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Gone,
    Refused,
    /// It pulls and loads; the share of the objects that is there, thousandths.
    Loading(u16),
    Silent,
}

fn variant_of(id: DeploymentId, place: &Place) -> VariantId {
    VariantId { deployment: id, index: place.variant }
}

fn hosts(record: &NodeRecord, variant: VariantId, part: Part) -> bool {
    let of_it =
        |variant_of: VariantId, first, end| variant_of == variant && (variant.index, first, end) == part;
    record.hosted.iter().any(|hosted| of_it(hosted.variant, hosted.first, hosted.end))
}

/// Whether a record shows the memory of a place as taken: it is hosted, or about to be.
pub(super) fn shows(record: &NodeRecord, id: DeploymentId, place: &Place) -> bool {
    let variant = variant_of(id, place);
    let is_goal = record
        .goals
        .iter()
        .any(|goal| goal.variant == variant && (goal.first, goal.end) == (place.first, place.end));
    hosts(record, variant, part(place)) || is_goal
}

impl Replacing {
    /// `promised` is memory that is taken soon, by node, bytes; what is given out here is added.
    pub(super) fn look(&mut self, look: &Look<'_, '_>, promised: &mut BTreeMap<NodeId, u64>) -> Looked {
        let now_ms = look.situation.now_ms;
        self.refused.retain(|_, refusal| refusal.until_ms + REFUSED_MS.1 > now_ms);
        self.ailing.retain(|place, _| look.order.places.contains(place));
        self.loading.retain(|place, _| look.order.places.contains(place));
        let (lost, mut places): (Vec<Place>, Vec<Place>) =
            look.order.places.iter().partition(|place| self.is_lost(look, place));
        let mut lost = lost;
        // A place in an order twice is one place.
        let mut seen = BTreeSet::new();
        places.retain(|place| seen.insert(*place));
        let is_whole = look.order.places.iter().all(|place| state(look, place) == State::Well);
        let mut looked = Looked { is_whole, ..Looked::default() };
        let mut is_changed = false;
        let parts: BTreeSet<Part> = look.order.places.iter().map(part).collect();
        for wanted_part in parts {
            let wanted = wanted(look.deployment, wanted_part);
            while places.iter().filter(|place| part(place) == wanted_part).count() < wanted {
                let replaced = lost.iter().position(|place| part(place) == wanted_part);
                let is_addition = replaced.is_none();
                let waits = is_addition && look.order_age_ms < ADD_MS;
                let found = if waits || places.len() >= PLACES_MAX {
                    None
                } else {
                    self.choose(look, promised, wanted_part, &places, |_| true)
                };
                match (found, replaced) {
                    (Some(place), replaced) => {
                        replaced.map(|index| lost.remove(index));
                        is_changed = true;
                        promise(look, promised, &place);
                        places.push(place);
                    }
                    // It stays listed: should it come back, it is welcome.
                    (None, Some(index)) => {
                        let place = lost.remove(index);
                        let is_hosted = places.iter().any(|place| part(place) == wanted_part);
                        looked.is_stranded |= !is_hosted && self.is_for_good(look, &place);
                        places.push(place);
                    }
                    (None, None) => break,
                }
            }
        }
        if is_whole && !is_changed {
            is_changed = self.improve(look, promised, &mut places);
        }
        if is_changed {
            places.sort_unstable();
            looked.places = Some(places);
        }
        looked
    }

    /// Whether a place has been without its host for longer than is waited.
    fn is_lost(&mut self, look: &Look<'_, '_>, place: &Place) -> bool {
        let now_ms = look.situation.now_ms;
        let state = state(look, place);
        let State::Loading(done_permille) = state else {
            self.loading.remove(place);
            return self.is_given_up(look, place, state);
        };
        self.ailing.remove(place);
        let others = others(look, place);
        let begun = Reached { done_permille, since_ms: now_ms, others, others_since_ms: now_ms };
        let reached = self.loading.entry(*place).or_insert(begun);
        if done_permille > reached.done_permille {
            (reached.done_permille, reached.since_ms) = (done_permille, now_ms);
        }
        if others != reached.others {
            (reached.others, reached.others_since_ms) = (others, now_ms);
        }
        let since_ms = reached.since_ms.max(reached.others_since_ms);
        let is_stalled = now_ms.saturating_sub(since_ms) >= stalled_ms(look, place)
            || now_ms.saturating_sub(reached.since_ms) >= STALLED_MS.1;
        if is_stalled {
            // As one that refused: it is not asked again at once, wherever the part goes meanwhile.
            self.note_refusal(now_ms, place);
        }
        is_stalled
    }

    /// Whether a place that is lost is not to be hoped for, though nobody else could take it.
    fn is_for_good(&self, look: &Look<'_, '_>, place: &Place) -> bool {
        match state(look, place) {
            State::Gone | State::Loading(_) => true,
            State::Well => false,
            State::Refused | State::Silent => {
                let since_ms = self.ailing.get(place).copied().unwrap_or(look.situation.now_ms);
                look.situation.now_ms.saturating_sub(since_ms) >= FOR_GOOD_MS
            }
        }
    }

    /// Who failed with which part lately.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (NodeId, Part)> {
        self.refused.keys().copied()
    }

    /// Whether a place that nobody loads has been without its host for too long.
    fn is_given_up(&mut self, look: &Look<'_, '_>, place: &Place, state: State) -> bool {
        let now_ms = look.situation.now_ms;
        if state == State::Well {
            self.ailing.remove(place);
            return false;
        }
        let since_ms = *self.ailing.entry(*place).or_insert(now_ms);
        let ails_ms = now_ms.saturating_sub(since_ms);
        let is_starting = look.seats.may_be_starting(look.situation, place.node);
        match state {
            State::Well | State::Loading(_) => false,
            State::Gone => ails_ms >= LOST_MS && !is_starting,
            State::Silent if ails_ms < SILENT_MS => false,
            // Otherwise it would be its own successor, at each look.
            State::Silent | State::Refused => {
                self.note_refusal(now_ms, place);
                true
            }
        }
    }

    /// While a node refuses, its pause begins anew at each look; it is longer once it was over.
    fn note_refusal(&mut self, now_ms: u64, place: &Place) {
        let key = (place.node, part(place));
        let known = self.refused.get(&key).copied();
        if known.is_none() && self.refused.len() >= REFUSALS_MAX {
            return;
        }
        let pause_ms = match known {
            None => REFUSED_MS.0,
            Some(known) if known.until_ms > now_ms => known.pause_ms,
            Some(known) => (known.pause_ms * 2).min(REFUSED_MS.1),
        };
        self.refused.insert(key, Refusal { until_ms: now_ms + pause_ms, pause_ms });
    }

    /// Moves what is hosted well to where it lies better, all in one order; says whether anything moves. It ends: a move to a
    /// told host is one less to make, and the others crowd no node, and make fewer of them crowded or, with as many, share
    /// fewer domains.
    fn improve(
        &mut self,
        look: &Look<'_, '_>,
        promised: &mut BTreeMap<NodeId, u64>,
        places: &mut [Place],
    ) -> bool {
        let now_ms = look.situation.now_ms;
        if look.order_age_ms < BETTER_MS || now_ms < self.next_better_ms {
            return false;
        }
        self.next_better_ms = now_ms + BETTER_LOOK_MS;
        let mut moves = false;
        loop {
            let better = match &look.deployment.wished.division {
                Division::Told(told) => self.returned(look, promised, told, places),
                Division::Whole | Division::Parts(_) => self.spread(look, promised, places),
            };
            let Some((index, place)) = better else { return moves };
            promise(look, promised, &place);
            places[index] = place;
            moves = true;
        }
    }

    /// The host of a part, by its index, that should go to a node that has no other part, where each is to have its own, or
    /// shares fewer failure domains with the other hosts: after a loss parts and replicas may have come to lie together, and a
    /// better place has come back.
    fn spread(
        &self,
        look: &Look<'_, '_>,
        promised: &BTreeMap<NodeId, u64>,
        places: &[Place],
    ) -> Option<(usize, Place)> {
        let harm = |place: &Place, others: &[Place]| {
            let record = look.seats.record(look.situation, place.node)?;
            Some((is_crowded(look, place, others), shared_with(look, record, part(place), others)))
        };
        let moved = places.iter().enumerate().filter_map(|(index, place)| {
            let others = [&places[..index], &places[index + 1..]].concat();
            let before = harm(place, &others).filter(|before| *before > (false, 0))?;
            let found = self.choose(look, promised, part(place), &others, |node| look.stays(node))?;
            let after @ (is_crowded, _) = harm(&found, &others)?;
            (!is_crowded && after < before).then_some((before, Reverse(after), index, found))
        });
        moved.max().map(|(_, _, index, found)| (index, found))
    }

    /// The place that stands in for one that was told by name, by its index, and the one told: its host has come back.
    fn returned(
        &self,
        look: &Look<'_, '_>,
        promised: &BTreeMap<NodeId, u64>,
        told: &[Place],
        places: &[Place],
    ) -> Option<(usize, Place)> {
        let mut away = told.iter().filter(|place| !places.contains(place) && look.stays(place.node));
        away.find_map(|place| {
            let stands_in = |other: &Place| part(other) == part(place) && !told.contains(other);
            let index = places.iter().position(stands_in)?;
            self.merit(look, promised, part(place), places, place.node)?;
            Some((index, *place))
        })
    }

    /// The node that takes up a part, of those that may, which has it loaded already or memory for it: one that did not fail
    /// with it lately, has no other part where each is to have its own node, and shares the fewest failure domains with its
    /// other hosts, then one that has it loaded, has no other part of the deployment and is not on battery, then the faster.
    fn choose(
        &self,
        look: &Look<'_, '_>,
        promised: &BTreeMap<NodeId, u64>,
        wanted: Part,
        places: &[Place],
        may: impl Fn(NodeId) -> bool,
    ) -> Option<Place> {
        let candidates = look.seats.nodes().filter(|node| may(*node));
        let candidates =
            candidates.filter_map(|node| Some((self.merit(look, promised, wanted, places, node)?, node)));
        let (_, node) = candidates.max()?;
        let (variant, first, end) = wanted;
        Some(Place { node, variant, first, end })
    }

    /// What is said for a node as one more host of a part, the most important first; `None` if it cannot be one.
    fn merit(
        &self,
        look: &Look<'_, '_>,
        promised: &BTreeMap<NodeId, u64>,
        wanted: Part,
        places: &[Place],
        node: NodeId,
    ) -> Option<impl Ord + use<>> {
        let (variant, first, end) = wanted;
        let id = VariantId { deployment: look.deployment.id(), index: variant };
        let need_bytes = (look.situation.memory_bytes)(id, first..end)?;
        let record = look.seats.record(look.situation, node)?;
        let has_it = places.iter().any(|place| place.node == node && part(place) == wanted);
        let refusal = self.refused.get(&(node, wanted));
        let is_refusing = refusal.is_some_and(|refusal| refusal.until_ms > look.situation.now_ms);
        if has_it || (look.situation.is_suspect)(node) || !record.offer.takes_work() || is_refusing {
            return None;
        }
        let is_loaded = hosts(record, id, wanted);
        let promised_bytes = promised.get(&node).copied().unwrap_or(0);
        let free_bytes = record.free_bytes().saturating_sub(promised_bytes);
        if !is_loaded && (free_bytes < need_bytes || record.is_full()) {
            return None;
        }
        let has_other = places.iter().any(|place| place.node == node);
        let is_alone = !is_crowded(look, &Place { node, variant, first, end }, places);
        let speed = record.machine.speeds.of(WorkClass::Convolution);
        // Speeds are measured, so equal machines differ by some per cent: halves count.
        let speed = (speed.max(1.0).log2() * 2.0) as u32;
        let is_device = record.machine.class == Class::Device;
        let apart = Reverse(shared_with(look, record, wanted, places));
        Some((refusal.is_none(), is_alone, apart, is_loaded, !has_other, !is_device, speed, free_bytes))
    }
}

fn promise(look: &Look<'_, '_>, promised: &mut BTreeMap<NodeId, u64>, place: &Place) {
    let sum = promised.entry(place.node).or_default();
    *sum = sum.saturating_add(look.bytes(place).unwrap_or(0));
}

/// Whether a place is on a node with another part of its variant, where each part is to be on a node of its own.
fn is_crowded(look: &Look<'_, '_>, place: &Place, others: &[Place]) -> bool {
    let is_other_part = |other: &Place| {
        (other.node, other.variant) == (place.node, place.variant) && part(other) != part(place)
    };
    matches!(look.deployment.wished.division, Division::Parts(_)) && others.iter().any(is_other_part)
}

/// Failure domains that a node has in common with the other hosts of a part, all together.
fn shared_with(look: &Look<'_, '_>, record: &NodeRecord, wanted: Part, places: &[Place]) -> usize {
    let others = places.iter().filter(|place| part(place) == wanted && place.node != record.node);
    let others = others.filter_map(|place| look.seats.record(look.situation, place.node));
    others.map(|other| shared(&record.domains, &other.domains)).sum()
}

/// Nodes that should host a part.
fn wanted(deployment: &Deployment, of: Part) -> usize {
    match &deployment.wished.division {
        Division::Told(places) if places.iter().any(|place| place.variant == of.0) => {
            places.iter().filter(|place| part(place) == of).count().max(1)
        }
        // Also of a variant that no place is told for.
        Division::Told(_) | Division::Whole | Division::Parts(_) => {
            usize::from(deployment.wished.replicas.max(1))
        }
    }
}

fn state(look: &Look<'_, '_>, place: &Place) -> State {
    let Some(record) = look.seats.record(look.situation, place.node) else { return State::Gone };
    let variant = variant_of(look.deployment.id(), place);
    if hosts(record, variant, part(place)) {
        return State::Well;
    }
    let goal = record
        .goals
        .iter()
        .find(|goal| goal.variant == variant && (goal.first, goal.end) == (place.first, place.end));
    match goal.map(|goal| goal.progress) {
        Some(GoalProgress::Loading { done_permille }) => State::Loading(done_permille),
        Some(GoalProgress::Refused(_)) => State::Refused,
        None => State::Silent,
    }
}

/// How much else the host of a place has loaded, and how far it is with what it loads, thousandths together.
fn others(look: &Look<'_, '_>, place: &Place) -> (usize, u64) {
    let Some(record) = look.seats.record(look.situation, place.node) else { return (0, 0) };
    let variant = variant_of(look.deployment.id(), place);
    let goals = record
        .goals
        .iter()
        .filter(|goal| (goal.variant, goal.first, goal.end) != (variant, place.first, place.end));
    let done = goals.map(|goal| match goal.progress {
        GoalProgress::Loading { done_permille } => u64::from(done_permille),
        GoalProgress::Refused(_) => 0,
    });
    (record.hosted.len(), done.sum())
}

/// How long a host may load without getting further. What it says of its own loads makes it patience, not for ever.
fn stalled_ms(look: &Look<'_, '_>, place: &Place) -> u64 {
    let Some(record) = look.seats.record(look.situation, place.node) else { return STALLED_MS.0 };
    let megabytes = look.bytes(place).unwrap_or(0) / 1_000_000;
    let loads_us = record.load.cold_us_per_mb.saturating_mul(megabytes).saturating_add(record.load.cold_us);
    (loads_us / 1000).saturating_mul(STALLED_LOADS).clamp(STALLED_MS.0, STALLED_MS.1)
}

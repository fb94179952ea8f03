//! Whether other hosts would serve those who ask better, by how much, and whether that pays for the move. What plans
//! cost is told by whoever has a planner.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Division, Place, Wished};

use super::choosing::choose;

/// Between two looks at one version: each takes some hundred plans.
const LOOK_MS: u64 = 20_000;
/// After an order of any kind nothing is moved for so long: one move at a time, and its effect is seen first.
const CALM_MS: u64 = 120_000;
/// Looks in a row that must find the same move: a camera that asks for a moment moves nothing.
const LOOKS: u32 = 2;
/// Share of the time of all who ask that a move must save, and a move back to where parts were lately.
const GAIN_MIN: (f64, f64) = (0.10, 0.25);
/// What "lately" is.
const LEFT_MS: u64 = 1_800_000;
/// A move must save more waiting within this time than it takes, seconds.
const HORIZON_S: f64 = 600.0;
/// Places that are remembered as left.
const LEFT_MAX: usize = 64;
/// What is found later must save so much more than what was found before: times drift from look to look, and two looks
/// are to agree.
const PREFERENCE: f64 = 0.02;
/// Who ask most; what is best for others is not looked for.
const ORIGINS_MAX: usize = 4;

/// Who asks, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Origin {
    /// Who.
    pub node: NodeId,
    /// Requests a second.
    pub per_s: f64,
}

/// What plans cost, as somebody with a planner tells.
pub trait Costs {
    /// Latency of the best plan from there when these places, and nothing else, host the variant; `None` if there is
    /// no plan.
    fn latency_ms(&mut self, from: NodeId, places: &[Place]) -> Option<f64>;

    /// Where each of these parts would be best for one who asks there, on a node of its own if `apart`, wherever there
    /// is memory for it.
    fn ideal(&mut self, from: NodeId, parts: &[Place], apart: bool) -> Option<Vec<Place>>;

    /// The best plan from there if every node may host any range of blocks that its memory has room for beside
    /// these, but nobody else than now a part that has hosts enough: who runs what in it.
    fn anywhere(&mut self, from: NodeId, taken: &[Place], enough: &[Part]) -> Option<Vec<Place>>;

    /// Who may host anything.
    fn nodes(&self) -> Vec<NodeId>;

    /// Time to bring a part to a node and load it there.
    fn move_ms(&mut self, to: &Place) -> f64;

    /// Whether these places fit: memory, and failure domains no more shared than before.
    fn fits(&mut self, before: &[Place], after: &[Place]) -> bool;
}

/// Other hosts, and what they are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// All places of the version.
    pub places: Vec<Place>,
    /// Time of all requests of a second, summed, as it is, milliseconds.
    pub before_ms: f64,
    /// The same with these places.
    pub after_ms: f64,
    /// Bringing and loading what is moved, milliseconds.
    pub move_ms: f64,
}

impl Proposal {
    /// Share of the time that is saved.
    pub fn gain(&self) -> f64 {
        1.0 - self.after_ms / self.before_ms.max(f64::MIN_POSITIVE)
    }

    fn is_worth(&self, gain_min: f64) -> bool {
        let saved_ms = (self.before_ms - self.after_ms) * HORIZON_S;
        self.gain() >= gain_min && saved_ms > self.move_ms
    }
}

/// The range of a place, wherever it is.
pub type Part = (u8, u16, u16);

pub(super) fn part(place: &Place) -> Part {
    (place.variant, place.first, place.end)
}

/// Time of all requests of a second; those that no plan serves, now or then, count for nothing, but a plan that would
/// be lost is no proposal.
pub(super) fn total_ms(costs: &mut impl Costs, origins: &[Origin], places: &[Place]) -> Option<f64> {
    let mut sum = 0.0;
    for origin in origins {
        sum += origin.per_s * costs.latency_ms(origin.node, places)?;
    }
    Some(sum)
}

/// The best other hosts for one variant's places, if any are worth it. For each who asks, the hosts that are best for
/// it take the places of those that are missed least; where the division is free, the parts may be others as well
/// ([`choose`]). What was `found` by an earlier look stays it, unless something is clearly better.
pub fn propose(
    costs: &mut impl Costs,
    origins: &[Origin],
    places: &[Place],
    wished: &Wished,
    found: Option<&[Place]>,
) -> Option<Proposal> {
    let mut heaviest: Vec<Origin> = origins.iter().filter(|origin| origin.per_s > 0.0).copied().collect();
    heaviest.sort_by(|one, other| other.per_s.total_cmp(&one.per_s).then(one.node.cmp(&other.node)));
    heaviest.truncate(ORIGINS_MAX);
    heaviest.retain(|origin| costs.latency_ms(origin.node, places).is_some());
    let before_ms = total_ms(costs, &heaviest, places)?;
    let parts: BTreeMap<Part, Place> = places.iter().map(|place| (part(place), *place)).collect();
    let parts: Vec<Place> = parts.into_values().collect();
    let apart = matches!(wished.division, Division::Parts(_));
    let mut candidates: Vec<Vec<Place>> = found.map(<[Place]>::to_vec).into_iter().collect();
    for origin in &heaviest {
        if let Some(ideal) = costs.ideal(origin.node, &parts, apart) {
            candidates.push(exchanged(costs, &heaviest, places, &ideal, apart));
        }
    }
    if wished.division == Division::Whole {
        candidates.extend(choose(costs, &heaviest, places, wished.replicas));
    }
    let mut best: Option<Proposal> = None;
    for after in candidates {
        if after.as_slice() == places || !costs.fits(places, &after) {
            continue;
        }
        let Some(after_ms) = total_ms(costs, &heaviest, &after) else { continue };
        let moved = after.iter().filter(|place| !places.contains(place));
        let move_ms = moved.map(|place| costs.move_ms(place)).sum();
        let proposal = Proposal { places: after, before_ms, after_ms, move_ms };
        let is_better =
            best.as_ref().is_none_or(|best| proposal.after_ms < best.after_ms * (1.0 - PREFERENCE));
        if is_better && proposal.is_worth(GAIN_MIN.0) {
            best = Some(proposal);
        }
    }
    best
}

/// Each ideal host takes the place of that host of its part which all who ask miss least.
fn exchanged(
    costs: &mut impl Costs,
    origins: &[Origin],
    places: &[Place],
    ideal: &[Place],
    apart: bool,
) -> Vec<Place> {
    let mut after = places.to_vec();
    for wanted in ideal {
        let is_taken =
            apart && after.iter().any(|place| place.node == wanted.node && part(place) != part(wanted));
        if after.contains(wanted) || is_taken {
            continue;
        }
        let all_others: Vec<Place> = [&after[..], ideal].concat();
        let replaceable = (0..after.len()).filter(|index| part(&after[*index]) == part(wanted));
        let missed = replaceable.filter(|index| !ideal.contains(&after[*index])).map(|index| {
            let without: Vec<Place> =
                all_others.iter().filter(|place| **place != after[index]).copied().collect();
            (total_ms(costs, origins, &without).unwrap_or(f64::INFINITY), index)
        });
        let least = missed.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        if let Some((_, index)) = least {
            after[index] = *wanted;
        }
    }
    after.sort_unstable();
    after
}

/// What was found of one version so far.
#[derive(Debug, Default)]
pub(super) struct Moving {
    next_look_ms: u64,
    /// The places that the last looks found, and how many of them in a row.
    found: Option<(Vec<Place>, u32)>,
    /// Where parts were lately, and when they went from there.
    left: BTreeMap<(NodeId, Part), u64>,
}

impl Moving {
    /// Whether it is time to look; if so, the next time is set.
    pub(super) fn is_due(&mut self, now_ms: u64, order_age_ms: u64) -> bool {
        if order_age_ms < CALM_MS || now_ms < self.next_look_ms {
            return false;
        }
        self.next_look_ms = now_ms + LOOK_MS;
        true
    }

    /// The places that the last look found, if it found any.
    pub(super) fn favoured(&self) -> Option<&[Place]> {
        self.found.as_ref().map(|(places, _)| places.as_slice())
    }

    /// What a look found; the places that are now to be ordered, if any.
    pub(super) fn found(
        &mut self,
        now_ms: u64,
        before: &[Place],
        proposal: Option<Proposal>,
    ) -> Option<Vec<Place>> {
        self.left.retain(|_, since_ms| now_ms.saturating_sub(*since_ms) < LEFT_MS);
        let returns = |proposal: &Proposal| {
            let new = proposal.places.iter().filter(|place| !before.contains(place));
            new.map(|place| (place.node, part(place))).any(|key| self.left.contains_key(&key))
        };
        let worth = proposal
            .filter(|proposal| proposal.is_worth(if returns(proposal) { GAIN_MIN.1 } else { GAIN_MIN.0 }));
        let Some(Proposal { places, .. }) = worth else {
            self.found = None;
            return None;
        };
        let times = match &self.found {
            Some((same, times)) if *same == places => times + 1,
            _ => 1,
        };
        if times < LOOKS {
            self.found = Some((places, times));
            return None;
        }
        self.found = None;
        let kept: BTreeSet<&Place> = places.iter().collect();
        for gone in before.iter().filter(|place| !kept.contains(place)).take(LEFT_MAX) {
            self.left.insert((gone.node, part(gone)), now_ms);
        }
        Some(places)
    }
}

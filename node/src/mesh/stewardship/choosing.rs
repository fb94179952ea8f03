//! Which ranges of blocks should be hosted where, when the division is free: the union of what is best for each who
//! asks, each part of it on as many nodes as wished, within memory. A search by steps, no proof: tests hold it against
//! all choices of small meshes.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::PLACES_MAX;
use stormo_protocol::state::Place;

use super::moving::{Costs, Origin, Part, part, total_ms};

/// Choices that are priced at most, each by a plan for every node that asks.
const PRICED_MAX: usize = 250;
/// What another division, for one more who asks, must save of the time of all: it takes memory everywhere.
const JOIN_GAIN_MIN: f64 = 0.02;
/// What the loss of a part's other hosts weighs beside the time while all are there: hosts are seldom lost.
const LOSS_WEIGHT: f64 = 0.01;
/// Less of a gain is rounding.
const STEP_GAIN_MIN: f64 = 1e-6;

/// Other divisions and hosts than those before, the best that were found first begun for each who asks; `None` where no
/// division fits with all its replicas, or nothing is asked.
pub(super) fn choose(
    costs: &mut impl Costs,
    origins: &[Origin],
    before: &[Place],
    replicas: u16,
) -> Option<Vec<Place>> {
    let nodes = costs.nodes();
    let mut search = Search {
        costs,
        origins,
        before,
        replicas: usize::from(replicas.max(1)),
        nodes,
        priced: BTreeMap::new(),
    };
    let mut best: Option<(f64, Vec<Place>)> = None;
    let begun: Vec<Vec<Place>> = (0..origins.len()).filter_map(|first| search.begun_for(first)).collect();
    for places in begun.into_iter().chain([before.to_vec()]) {
        let Some(before_ms) = search.total_ms(&places) else { continue };
        let (total_ms, places) = search.improved(before_ms, places);
        if best.as_ref().is_none_or(|(best_ms, _)| total_ms < best_ms * (1.0 - STEP_GAIN_MIN)) {
            best = Some((total_ms, places));
        }
    }
    best.map(|(_, places)| search.without_unused(places))
}

struct Search<'a, C> {
    costs: &'a mut C,
    origins: &'a [Origin],
    before: &'a [Place],
    replicas: usize,
    /// Who may host anything.
    nodes: Vec<NodeId>,
    /// What was priced already.
    priced: BTreeMap<Vec<Place>, Option<f64>>,
}

fn parts_of(places: &[Place]) -> BTreeSet<Part> {
    places.iter().map(part).collect()
}

fn sorted(mut places: Vec<Place>) -> Vec<Place> {
    places.sort_unstable();
    places.dedup();
    places
}

impl<C: Costs> Search<'_, C> {
    /// Time of all requests of a second with these places, which are sorted; `None` if somebody finds no plan, and when
    /// enough was priced.
    fn total_ms(&mut self, places: &[Place]) -> Option<f64> {
        if let Some(known) = self.priced.get(places) {
            return *known;
        }
        if self.priced.len() >= PRICED_MAX {
            return None;
        }
        let total_ms = total_ms(self.costs, self.origins, places);
        self.priced.insert(places.to_vec(), total_ms);
        total_ms
    }

    /// The best division for one of those who ask, then those of the others, as far as they save anything.
    fn begun_for(&mut self, first: usize) -> Option<Vec<Place>> {
        let mut chosen: Option<(f64, Vec<Place>)> = None;
        for step in 0..self.origins.len() {
            let origin = self.origins[(first + step) % self.origins.len()];
            let so_far = chosen.as_ref().map_or_else(Vec::new, |(_, places)| places.clone());
            for (total_ms, places) in self.joined(origin.node, &so_far) {
                if chosen.as_ref().is_none_or(|(so_far_ms, _)| total_ms < so_far_ms * (1.0 - JOIN_GAIN_MIN)) {
                    chosen = Some((total_ms, places));
                }
            }
        }
        chosen.map(|(_, places)| places)
    }

    /// With what is best for one more who asks beside these places: with any parts, and with others than those that have
    /// hosts enough, as hosts of a part are no more than wished.
    fn joined(&mut self, origin: NodeId, places: &[Place]) -> Vec<(f64, Vec<Place>)> {
        let enough: Vec<Part> = parts_of(places).into_iter().collect();
        let mut joined = vec![];
        for enough in [&[][..], &enough] {
            let Some(wanted) = self.costs.anywhere(origin, places, enough) else { continue };
            let Some(filled) = self.filled(sorted([places, &wanted].concat())) else { continue };
            joined.extend(self.total_ms(&filled).map(|total_ms| (total_ms, filled)));
        }
        joined
    }

    /// With hosts added or left out until each part has as many as wished: added where most is saved, left out where
    /// least is missed; `None` if they do not fit.
    fn filled(&mut self, mut places: Vec<Place>) -> Option<Vec<Place>> {
        for wanted in parts_of(&places) {
            while places.iter().filter(|place| part(place) == wanted).count() > self.replicas {
                places = self.without_least(wanted, &places)?;
            }
        }
        if !self.costs.fits(self.before, &places) {
            return None;
        }
        for wanted in parts_of(&places) {
            while places.iter().filter(|place| part(place) == wanted).count() < self.replicas {
                let added = self.best_addition(wanted, &places)?;
                places = sorted([&places[..], &[added]].concat());
                if places.len() > PLACES_MAX {
                    return None;
                }
            }
        }
        Some(places)
    }

    /// Without that host of a part which is missed least.
    fn without_least(&mut self, of: Part, places: &[Place]) -> Option<Vec<Place>> {
        let mut best: Option<(f64, Vec<Place>)> = None;
        for gone in places.iter().filter(|place| part(place) == of) {
            let kept: Vec<Place> = places.iter().filter(|place| *place != gone).copied().collect();
            let total_ms = self.total_ms(&kept).unwrap_or(f64::INFINITY);
            if best.as_ref().is_none_or(|(least_ms, _)| total_ms < *least_ms) {
                best = Some((total_ms, kept));
            }
        }
        best.map(|(_, kept)| kept)
    }

    fn best_addition(&mut self, wanted: Part, places: &[Place]) -> Option<Place> {
        let (variant, first, end) = wanted;
        let mut best: Option<((f64, bool), Place)> = None;
        for index in 0..self.nodes.len() {
            let place = Place { node: self.nodes[index], variant, first, end };
            if places.contains(&place) {
                continue;
            }
            let with = sorted([places, &[place]].concat());
            if !self.costs.fits(self.before, &with) {
                continue;
            }
            let alone: Vec<Place> =
                with.iter().filter(|other| **other == place || part(other) != wanted).copied().collect();
            let total_ms = self.total_ms(&with).unwrap_or(f64::INFINITY);
            let lost_ms = self.total_ms(&alone).unwrap_or(f64::INFINITY);
            // Of equals one that is there already: nothing has to move.
            let merit = (total_ms + LOSS_WEIGHT * lost_ms, !self.before.contains(&place));
            if best.as_ref().is_none_or(|(least, _)| merit < *least) {
                best = Some((merit, place));
            }
        }
        best.map(|(_, place)| place)
    }

    /// Hosts exchanged, one after the other, and divisions left out, as long as that saves anything.
    fn improved(&mut self, mut total_ms: f64, mut places: Vec<Place>) -> (f64, Vec<Place>) {
        while let Some((less_ms, better)) = self.step(total_ms, &places) {
            (total_ms, places) = (less_ms, better);
        }
        (total_ms, places)
    }

    /// The first exchange that saves anything; or a division left out, if its memory then serves for what saves.
    fn step(&mut self, total_ms: f64, places: &[Place]) -> Option<(f64, Vec<Place>)> {
        for index in 0..places.len() {
            for node in 0..self.nodes.len() {
                let place = Place { node: self.nodes[node], ..places[index] };
                if places.contains(&place) {
                    continue;
                }
                let kept = places.iter().filter(|other| **other != places[index]).copied();
                let after = sorted(kept.chain([place]).collect());
                if let Some(less_ms) = self.saving(total_ms, &after) {
                    return Some((less_ms, after));
                }
            }
        }
        for gone in parts_of(places) {
            let kept: Vec<Place> = places.iter().filter(|place| part(place) != gone).copied().collect();
            if let Some(better) = self.step_with(total_ms * (1.0 - STEP_GAIN_MIN), &kept) {
                return Some(better);
            }
        }
        self.step_with(total_ms * (1.0 - JOIN_GAIN_MIN), places)
    }

    /// What is best for one more who asks, beside these, if that is below a time.
    fn step_with(&mut self, below_ms: f64, places: &[Place]) -> Option<(f64, Vec<Place>)> {
        for origin in 0..self.origins.len() {
            let joined = self.joined(self.origins[origin].node, places);
            if let Some(better) = joined.into_iter().find(|(total_ms, _)| *total_ms < below_ms) {
                return Some(better);
            }
        }
        None
    }

    fn saving(&mut self, total_ms: f64, after: &[Place]) -> Option<f64> {
        if !self.costs.fits(self.before, after) {
            return None;
        }
        self.total_ms(after).filter(|after_ms| *after_ms < total_ms * (1.0 - STEP_GAIN_MIN))
    }

    /// Without the parts that no plan of those who ask needs.
    fn without_unused(&mut self, mut places: Vec<Place>) -> Vec<Place> {
        for unused in parts_of(&places) {
            let kept: Vec<Place> = places.iter().filter(|place| part(place) != unused).copied().collect();
            if kept.is_empty() {
                continue;
            }
            let with_ms = self.total_ms(&places);
            let is_missed = self
                .total_ms(&kept)
                .zip(with_ms)
                .is_none_or(|(kept_ms, with_ms)| kept_ms > with_ms * (1.0 + STEP_GAIN_MIN));
            if !is_missed {
                places = kept;
            }
        }
        places
    }
}

#[cfg(test)]
#[path = "choosing/tests.rs"]
mod tests;

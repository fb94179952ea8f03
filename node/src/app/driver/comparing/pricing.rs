//! What plans cost with parts elsewhere, by the planner.

use std::collections::BTreeMap;
use std::ops::Range;

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::state::{Place, shared};

use super::{NEVER_MS, Scene};
use crate::app::planning::Posed;
use crate::ends::Described;
use crate::mesh::{Costs, LinkQuality, Part};
use crate::plan::{self, EXPANSIONS_DEFAULT, KnownRange, Links, Problem, StageShape};

/// Plans from each who asks.
pub(super) struct Planner<'a> {
    pub(super) scene: &'a Scene,
    pub(super) variant: VariantId,
    pub(super) described: &'a Described,
    pub(super) posed: BTreeMap<NodeId, Posed>,
}

impl Planner<'_> {
    fn bytes(&self, blocks: Range<u16>) -> u64 {
        self.described.manifest.range_memory_bytes(blocks)
    }

    fn free_bytes(&self, node: NodeId) -> u64 {
        self.scene.nodes.get(&node).map_or(0, |(record, _)| record.free_bytes())
    }

    fn hosts(&self, place: &Place) -> bool {
        self.scene.nodes.get(&place.node).is_some_and(|(record, _)| {
            let is_it = |variant, first, end| (variant, first, end) == (self.variant, place.first, place.end);
            record.hosted.iter().any(|hosted| is_it(hosted.variant, hosted.first, hosted.end))
        })
    }

    /// Whether a node has memory for a place, or the place itself.
    fn has_room(&self, place: &Place) -> bool {
        self.hosts(place) || self.free_bytes(place.node) >= self.bytes(place.first..place.end)
    }

    /// The best plan from there on these places, as if they were loaded: its latency, and who runs which blocks.
    fn best(&self, from: NodeId, places: &[Place]) -> Option<(f64, Vec<Place>)> {
        let posed = self.posed.get(&from)?;
        // Whoever hosts nothing would only be looked at in vain, and by far the most do.
        let is_seen = |node: NodeId| node == from || places.iter().any(|place| place.node == node);
        let seen: Vec<usize> = (0..posed.nodes.len()).filter(|index| is_seen(posed.nodes[*index])).collect();
        let mut problem = with_nodes(&posed.problem, &seen);
        for (node, index) in problem.nodes.iter_mut().zip(&seen) {
            let mine = places.iter().filter(|place| place.node == posed.nodes[*index]);
            node.known = self.known(posed, &node.known, mine, false);
            node.can_compute &= !node.known.is_empty();
        }
        self.planned(posed, &seen, &problem)
    }

    /// What a plan uses of a problem over some of the nodes; `None` if it waits for a part that is not there.
    fn planned(&self, posed: &Posed, seen: &[usize], problem: &Problem) -> Option<(f64, Vec<Place>)> {
        let best = plan::best(problem, EXPANSIONS_DEFAULT).ok()?;
        let graph_part = |stage: &StageShape| {
            let blocks = posed.blocks(stage.first, stage.end);
            let Range { start: first, end } = self.described.manifest.graph_part(blocks);
            let place =
                Place { node: posed.nodes[seen[stage.node]], variant: self.variant.index, first, end };
            (first < end).then_some(place)
        };
        let latency_ms = best.priced.latency_ms;
        (latency_ms < NEVER_MS)
            .then(|| (latency_ms, best.priced.shape.stages.iter().filter_map(graph_part).collect()))
    }

    /// What a node has with these places: them, as a session needs no part of the ends with the ends beside them as
    /// well, and the ends; with `measured`, what it hosts now, too.
    fn known<'b>(
        &self,
        posed: &Posed,
        measured: &[KnownRange],
        places: impl Iterator<Item = &'b Place>,
        with_measured: bool,
    ) -> Vec<KnownRange> {
        let manifest = &self.described.manifest;
        let (graph, last) = (manifest.graph_blocks(), manifest.block_count());
        let is_end = |known: &&KnownRange| {
            let blocks = posed.blocks(known.first, known.end);
            with_measured || manifest.graph_part(blocks).is_empty()
        };
        let mut all: BTreeMap<(u16, u16), KnownRange> = BTreeMap::new();
        for known in measured.iter().filter(is_end) {
            all.insert((known.first, known.end), *known);
        }
        for place in places {
            let firsts = [Some(place.first), (place.first == graph.start).then_some(0)];
            let ends = [Some(place.end), (place.end == graph.end).then_some(last)];
            for first in firsts.into_iter().flatten().filter_map(|first| posed.place(first)) {
                for end in ends.into_iter().flatten().filter_map(|end| posed.place(end)) {
                    let of_it = measured.iter().find(|known| (known.first, known.end) == (first, end));
                    let time_ms = of_it.and_then(|known| known.time_ms);
                    let known = KnownRange { first, end, time_ms, is_loaded: true, has_memory: true };
                    all.insert((first, end), known);
                }
            }
        }
        all.into_values().collect()
    }
}

/// A range that no plan takes.
fn never(known: KnownRange) -> KnownRange {
    KnownRange { time_ms: Some(NEVER_MS), ..known }
}

/// A problem over some of its nodes, the origin first.
fn with_nodes(problem: &Problem, seen: &[usize]) -> Problem {
    let mut links = Links::new(seen.len());
    for (from, one) in seen.iter().enumerate() {
        for (to, other) in seen.iter().enumerate() {
            if let Some(link) = problem.links.get(*one, *other) {
                links.set(from, to, link);
            }
        }
    }
    let nodes = seen.iter().map(|index| problem.nodes[*index].clone()).collect();
    Problem {
        cut_bytes: problem.cut_bytes.clone(),
        codings: problem.codings.clone(),
        block_weights_bytes: problem.block_weights_bytes.clone(),
        block_peak_bytes: problem.block_peak_bytes.clone(),
        extra: problem.extra.clone(),
        nodes,
        links,
        ..*problem
    }
}

impl Costs for Planner<'_> {
    fn latency_ms(&mut self, from: NodeId, places: &[Place]) -> Option<f64> {
        self.best(from, places).map(|(latency_ms, _)| latency_ms)
    }

    fn ideal(&mut self, from: NodeId, parts: &[Place], apart: bool) -> Option<Vec<Place>> {
        let nodes = &self.posed.get(&from)?.nodes;
        let mut all: Vec<Place> = Vec::new();
        for node in nodes {
            let of_part = parts.iter().map(|part| Place { node: *node, ..*part });
            all.extend(of_part.filter(|place| self.has_room(place)));
        }
        let mut best = self.best(from, &all)?.1;
        let twice = |best: &[Place]| {
            let is_twice = |index: &usize| best[..*index].iter().any(|other| other.node == best[*index].node);
            (0..best.len()).find(is_twice).map(|index| best[index])
        };
        // A node keeps the first of its parts; each round takes one place away, so this ends.
        while let Some(second) = twice(&best).filter(|_| apart) {
            all.retain(|place| *place != second);
            best = self.best(from, &all)?.1;
        }
        Some(best)
    }

    fn anywhere(&mut self, from: NodeId, taken: &[Place], enough: &[Part]) -> Option<Vec<Place>> {
        let posed = self.posed.get(&from)?;
        let mut problem = posed.problem.clone();
        for (node, id) in problem.nodes.iter_mut().zip(&posed.nodes) {
            let mine = || taken.iter().filter(|place| place.node == *id);
            let new = mine().filter(|place| !self.hosts(place));
            let taken_bytes =
                new.fold(0_u64, |sum, place| sum.saturating_add(self.bytes(place.first..place.end)));
            node.memory_free_bytes = node.memory_free_bytes.saturating_sub(taken_bytes);
            let is_barred = |known: &KnownRange| {
                let blocks = posed.blocks(known.first, known.end);
                let Range { start, end } = self.described.manifest.graph_part(blocks);
                let is_mine = mine().any(|place| (place.first, place.end) == (start, end));
                enough.contains(&(self.variant.index, start, end)) && !is_mine
            };
            let barred = enough.iter().map(|(variant, first, end)| Place {
                node: *id,
                variant: *variant,
                first: *first,
                end: *end,
            });
            let barred: Vec<Place> = barred.collect();
            let all = self.known(posed, &node.known, barred.iter().chain(mine()), true);
            node.known =
                all.into_iter().map(|known| if is_barred(&known) { never(known) } else { known }).collect();
            // Bringing it there is counted once, with the move.
            (node.cold_fixed_ms, node.cold_ms_per_byte) = (0.0, 0.0);
        }
        let all: Vec<usize> = (0..posed.nodes.len()).collect();
        let mut places = self.planned(posed, &all, &problem)?.1;
        places.sort_unstable();
        Some(places)
    }

    fn nodes(&self) -> Vec<NodeId> {
        let takes_work = self.scene.nodes.iter().filter(|(_, (_, takes_work))| *takes_work);
        let is_near = |node: &NodeId| self.posed.values().any(|posed| posed.nodes.contains(node));
        takes_work.map(|(node, _)| *node).filter(is_near).collect()
    }

    fn move_ms(&mut self, to: &Place) -> f64 {
        if self.hosts(to) {
            return 0.0;
        }
        let Some((target, _)) = self.scene.nodes.get(&to.node) else { return NEVER_MS };
        let bytes = self.bytes(to.first..to.end) as f64;
        // Whoever has some of the blocks has some of the weights; the publisher has all of them.
        let overlaps = |place: &&Place| place.first < to.end && to.first < place.end;
        let hosts = self.scene.places.iter().filter(overlaps);
        let ways = hosts.filter_map(|place| {
            let (source, _) = self.scene.nodes.get(&place.node)?;
            let way = LinkQuality::between(source, target);
            Some(way.latency_ms + way.ms_per_byte * bytes)
        });
        let way_ms = ways.min_by(f64::total_cmp).unwrap_or(NEVER_MS);
        let load = target.load;
        way_ms + load.cold_us as f64 / 1000.0 + load.cold_us_per_mb as f64 / 1000.0 * bytes / 1e6
    }

    fn fits(&mut self, before: &[Place], after: &[Place]) -> bool {
        let mut new_bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
        for place in after.iter().filter(|place| !before.contains(place) && !self.hosts(place)) {
            let sum = new_bytes.entry(place.node).or_default();
            *sum = sum.saturating_add(self.bytes(place.first..place.end));
        }
        let has_room = new_bytes.iter().all(|(node, bytes)| *bytes <= self.free_bytes(*node));
        has_room && self.shared(after) <= self.shared(before)
    }
}

impl Planner<'_> {
    /// Failure domains that hosts of the same part have in common, all together.
    fn shared(&self, places: &[Place]) -> usize {
        let domains =
            |place: &Place| self.scene.nodes.get(&place.node).map(|(record, _)| &record.domains[..]);
        let pairs = places.iter().enumerate().flat_map(|(index, one)| {
            let alike = |other: &&Place| (one.first, one.end) == (other.first, other.end);
            places[index + 1..].iter().filter(alike).map(move |other| (one, other))
        });
        pairs
            .map(|(one, other)| shared(domains(one).unwrap_or_default(), domains(other).unwrap_or_default()))
            .sum()
    }
}

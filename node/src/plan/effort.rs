//! What a plan costs beside time: the origin's energy, and the period of a stream of requests. And problems
//! whose times are such costs, so that whatever finds the least time finds the least of these.

use std::collections::HashMap;

use super::costs::Member;
use super::price::{PlanShape, PricedEdge, PricedStage};
use super::problem::{Link, Node, Problem, Watts};

/// What each millisecond and each millijoule counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weights {
    pub(super) per_ms: f64,
    pub(super) per_mj: f64,
}

impl Weights {
    /// Energy in the place of time.
    pub(super) const ENERGY: Self = Self { per_ms: 0.0, per_mj: 1.0 };
}

/// A problem over the members of another one, with weighed costs in the place of times.
pub(super) struct Weighed {
    pub(super) problem: Problem,
    /// In the same order; but its nodes are these alone.
    pub(super) members: Vec<Member>,
}

/// Who or what is busy with a request for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    /// A node that runs, encodes and decodes.
    Node(usize),
    /// One direction between two nodes.
    Link(usize, usize),
    /// A node's way out, whomever it sends to.
    Uplink(usize),
}

impl Problem {
    /// The origin computes for the time of its runs, their loading and its coding, sends and receives while bytes
    /// are on its links, and idles for the rest of the latency; the radio's tail comes once if anything moves.
    pub(super) fn energy_mj(
        &self,
        shape: &PlanShape,
        stages: &[PricedStage],
        edges: &[PricedEdge],
        latency_ms: f64,
    ) -> f64 {
        let here = &self.nodes[0];
        let at_origin = shape.stages.iter().zip(stages).filter(|(shape, _)| shape.node == 0);
        let runs_ms: f64 = at_origin.map(|(_, stage)| stage.cold_ms + stage.compute_ms).sum();
        let moved = || edges.iter().filter(|edge| edge.from != edge.to);
        let leaving = || moved().filter(|edge| edge.from == 0);
        let coming = || moved().filter(|edge| edge.to == 0);
        let coding_ms = leaving().map(|edge| edge.encode_ms).sum::<f64>()
            + coming().map(|edge| edge.decode_ms).sum::<f64>();
        let compute_ms = runs_ms + coding_ms;
        let send_ms: f64 = leaving().map(|edge| edge.wire_ms).sum();
        let receive_ms: f64 = coming().map(|edge| edge.wire_ms).sum();
        let idle_ms = (latency_ms - compute_ms - send_ms - receive_ms).max(0.0);
        let Watts { idle, compute, send, receive } = here.watts;
        let tail_mj = if moved().next().is_some() { here.tail_mj } else { 0.0 };
        idle * idle_ms + compute * compute_ms + send * send_ms + receive * receive_ms + tail_mj
    }

    /// How long a request keeps each resource busy. Loading is done once and waiting is for others: neither counts.
    pub(super) fn busy(
        &self,
        shape: &PlanShape,
        stages: &[PricedStage],
        edges: &[PricedEdge],
    ) -> HashMap<Resource, f64> {
        let mut busy: HashMap<Resource, f64> = HashMap::new();
        for (shape, stage) in shape.stages.iter().zip(stages) {
            *busy.entry(Resource::Node(shape.node)).or_default() += stage.compute_ms;
        }
        for edge in edges {
            for (resource, busy_ms) in self.busy_for(edge) {
                *busy.entry(resource).or_default() += busy_ms;
            }
        }
        busy
    }

    /// What the busiest resource does for each request.
    pub(super) fn period_ms(&self, shape: &PlanShape, stages: &[PricedStage], edges: &[PricedEdge]) -> f64 {
        self.busy(shape, stages, edges).into_values().fold(0.0, f64::max)
    }

    fn busy_for(&self, edge: &PricedEdge) -> [(Resource, f64); 4] {
        let PricedEdge { from, to, .. } = *edge;
        let uplink_ms = self.nodes[from].uplink_ms_per_byte * edge.bytes as f64;
        [
            (Resource::Node(from), edge.encode_ms),
            (Resource::Node(to), edge.decode_ms),
            (Resource::Link(from, to), edge.wire_ms),
            (Resource::Uplink(from), uplink_ms),
        ]
    }

    /// This problem over some members with time and energy, but for the radio's tail, in the place of time: latency
    /// in it is `per_ms` times latency here and `per_mj` times energy here, for every plan. The first must be the origin.
    pub(super) fn weighed(&self, members: &[Member], weights: Weights) -> Weighed {
        let of = |watts: f64| weights.per_ms + weights.per_mj * watts;
        let Watts { idle, compute, send, receive } = self.nodes[0].watts;
        let nodes: Vec<usize> = members.iter().map(|member| member.node).collect();
        let mut weighed = self.over(&nodes);
        for (index, node) in weighed.nodes.iter_mut().enumerate() {
            node.weigh(of(if index == 0 { compute } else { idle }), of(idle));
        }
        weighed.links.change(|from, to, link| {
            let on_the_wire = match (from, to) {
                (0, _) => send,
                (_, 0) => receive,
                _ => idle,
            };
            Link { latency_ms: link.latency_ms * of(idle), ms_per_byte: link.ms_per_byte * of(on_the_wire) }
        });
        let renamed = members.iter().enumerate().map(|(node, member)| Member { node, ..*member });
        Weighed { problem: weighed, members: renamed.collect() }
    }
}

impl Node {
    fn weigh(&mut self, computing: f64, waiting: f64) {
        self.queue_wait_ms *= waiting;
        let times = [
            &mut self.overhead_ms,
            &mut self.extra_factor,
            &mut self.cold_fixed_ms,
            &mut self.cold_ms_per_byte,
        ];
        times.into_iter().chain(&mut self.block_ms).for_each(|time_ms| *time_ms *= computing);
        self.encode_factors.scale(computing);
        self.decode_factors.scale(computing);
        let known_ms = self.known.iter_mut().filter_map(|range| range.time_ms.as_mut());
        known_ms.for_each(|time_ms| *time_ms *= computing);
    }
}

//! What a plan costs: the one function that prices a given plan, stage by stage and edge by edge,
//! straight from the problem. Not how a good plan is found.

use stormo_protocol::codec::payload::Codec;

use super::coding::Hop;
use super::problem::{KnownRange, Problem};

/// Which node runs which blocks, in order, and how tensors are coded between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanShape {
    /// Stages that together cover all blocks, one after the other.
    pub stages: Vec<StageShape>,
    /// How each stage's input is coded, and last the result; raw where nothing moves.
    pub codecs: Vec<Codec>,
}

/// Blocks that run as one session on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StageShape {
    /// Index into [`Problem::nodes`].
    pub node: usize,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
}

/// A plan with its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// What was priced.
    pub shape: PlanShape,
    /// As many as the shape has.
    pub stages: Vec<PricedStage>,
    /// One before each stage, and last the result's way to the origin.
    pub edges: Vec<PricedEdge>,
    /// All waits, cold starts, computation and transfers.
    pub latency_ms: f64,
    /// The part of it that loading takes.
    pub cold_ms: f64,
    /// What goes over links, as coded.
    pub bytes: u64,
    /// Share of agreement that all its codings lose together, at most: losses add up.
    pub loss: f64,
    /// What the origin draws from the request to its result, mJ.
    pub energy_mj: f64,
    /// Time from one answer to the next when requests follow each other as fast as can be: what the busiest
    /// node, link or uplink does for each.
    pub period_ms: f64,
}

/// What a stage costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PricedStage {
    /// Wait for its turn.
    pub wait_ms: f64,
    /// Loading, if the range is not loaded.
    pub cold_ms: f64,
    /// The run itself.
    pub compute_ms: f64,
    /// Memory that it takes: weights and peak activation; none if it has its memory already.
    pub memory_bytes: u64,
}

/// What moving a cut's tensors costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PricedEdge {
    /// Who has the tensors.
    pub from: usize,
    /// Who needs them; nothing moves if the same.
    pub to: usize,
    /// Which cut.
    pub cut: u16,
    /// How they are coded.
    pub codec: Codec,
    /// Bytes on the link, as coded.
    pub bytes: u64,
    /// Time from the sender's last byte computed to the receiver's start, coding included.
    pub transfer_ms: f64,
    /// The part of it in which the sender encodes.
    pub encode_ms: f64,
    /// The part of it in which bytes are on the link, its latency apart.
    pub wire_ms: f64,
    /// The part of it in which the receiver decodes.
    pub decode_ms: f64,
    /// Share of agreement that the coding loses.
    pub loss: f64,
}

/// Why a plan cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Infeasible {
    /// The stages leave blocks out, overlap, or run past the last block.
    #[error("the stages do not cover the model's blocks one after the other")]
    Coverage,
    /// A stage is on a node that is not there or takes no stages.
    #[error("node {node} takes no stages")]
    Node { node: usize },
    /// The first or last stage must be at the origin and is not.
    #[error("the first or last stage must run where the request entered")]
    Forced,
    /// Tensors would have to go where no link leads.
    #[error("node {from} cannot reach node {to}")]
    Unreachable { from: usize, to: usize },
    /// A codec is named for each hop, and must be possible there.
    #[error("the codec named for cut {cut} is not possible there, or nothing moves")]
    Codec { cut: u16 },
    /// A fork that no stage joins before the next one.
    #[error("two forks meet at cut {cut}: a stage must join the first one")]
    Join { cut: u16 },
    /// Routes without a share, or shares that do not add up to one.
    #[error("the routes' shares must be above zero and add up to one")]
    Shares,
    /// A node's stages together want more than is free.
    #[error("node {node} would need {need_bytes} bytes for its stages and has {free_bytes} free")]
    Memory { node: usize, need_bytes: u64, free_bytes: u64 },
}

impl PricedEdge {
    fn nothing(Hop { from, to, cut }: Hop) -> Self {
        let (bytes, codec) = (0, Codec::Raw);
        let [transfer_ms, encode_ms, wire_ms, decode_ms, loss] = [0.0; 5];
        Self { from, to, cut, codec, bytes, transfer_ms, encode_ms, wire_ms, decode_ms, loss }
    }
}

impl Problem {
    fn known(&self, stage: StageShape) -> Option<&KnownRange> {
        let known = &self.nodes[stage.node].known;
        known.iter().find(|range| (range.first, range.end) == (stage.first, stage.end))
    }

    /// Whether exactly this range is loaded on a node.
    pub(super) fn is_loaded(&self, stage: StageShape) -> bool {
        self.known(stage).is_some_and(|range| range.is_loaded)
    }

    /// Whether a range takes none of a node's free memory.
    fn has_memory(&self, stage: StageShape) -> bool {
        self.known(stage).is_some_and(|range| range.has_memory)
    }

    /// Time that a range runs on a node: as measured, or as estimated.
    pub(super) fn range_ms(&self, stage: StageShape) -> f64 {
        let node = &self.nodes[stage.node];
        self.known(stage).and_then(|range| range.time_ms).unwrap_or_else(|| {
            node.estimate_ms(&self.extra, usize::from(stage.first), usize::from(stage.end))
        })
    }

    /// Time that loading a range on a node takes; none if it is loaded.
    pub(super) fn cold_ms(&self, stage: StageShape) -> f64 {
        if self.is_loaded(stage) {
            return 0.0;
        }
        let node = &self.nodes[stage.node];
        node.cold_fixed_ms + node.cold_ms_per_byte * self.weights_bytes(stage) as f64
    }

    /// What a plan costs, part by part. Any shape may be asked for; the problem itself must have
    /// passed [`Problem::check`].
    ///
    /// # Errors
    /// Why it cannot run.
    pub fn price(&self, shape: &PlanShape) -> Result<Priced, Infeasible> {
        self.check_shape(shape)?;
        self.check_memory(&shape.stages)?;
        self.price_parts(shape)
    }

    /// The same for nodes that hold whatever is asked of them.
    pub(super) fn price_in_ample_memory(&self, shape: &PlanShape) -> Result<Priced, Infeasible> {
        self.check_shape(shape)?;
        self.price_parts(shape)
    }

    fn price_parts(&self, shape: &PlanShape) -> Result<Priced, Infeasible> {
        let stages: Vec<PricedStage> = shape.stages.iter().map(|stage| self.price_stage(*stage)).collect();
        let coded_hops = self.hops(&shape.stages).zip(&shape.codecs);
        let edges = coded_hops.map(|(hop, codec)| self.price_edge(hop, *codec));
        let edges: Vec<PricedEdge> = edges.collect::<Result<_, _>>()?;
        let stages_ms: f64 =
            stages.iter().map(|stage| stage.wait_ms + stage.cold_ms + stage.compute_ms).sum();
        let latency_ms = stages_ms + edges.iter().map(|edge| edge.transfer_ms).sum::<f64>();
        Ok(Priced {
            shape: shape.clone(),
            energy_mj: self.energy_mj(shape, &stages, &edges, latency_ms),
            period_ms: self.period_ms(shape, &stages, &edges),
            latency_ms,
            cold_ms: stages.iter().map(|stage| stage.cold_ms).sum(),
            bytes: edges.iter().fold(0, |sum, edge| edge.bytes.saturating_add(sum)),
            loss: edges.iter().map(|edge| edge.loss).sum(),
            stages,
            edges,
        })
    }

    fn weights_bytes(&self, stage: StageShape) -> u64 {
        self.block_weights_bytes[usize::from(stage.first)..usize::from(stage.end)].iter().sum()
    }

    fn peak_bytes(&self, stage: StageShape) -> u64 {
        let peaks = &self.block_peak_bytes[usize::from(stage.first)..usize::from(stage.end)];
        peaks.iter().copied().max().unwrap_or(0)
    }

    fn price_stage(&self, stage: StageShape) -> PricedStage {
        PricedStage {
            wait_ms: self.nodes[stage.node].queue_wait_ms,
            cold_ms: self.cold_ms(stage),
            compute_ms: self.range_ms(stage),
            memory_bytes: self.memory_bytes(stage),
        }
    }

    /// What a stage takes of its node's free memory.
    pub(super) fn memory_bytes(&self, stage: StageShape) -> u64 {
        if self.has_memory(stage) { 0 } else { self.weights_bytes(stage) + self.peak_bytes(stage) }
    }

    fn price_edge(&self, hop: Hop, codec: Codec) -> Result<PricedEdge, Infeasible> {
        let Hop { from, to, cut } = hop;
        let not_possible = Infeasible::Codec { cut };
        if from == to {
            return if codec == Codec::Raw { Ok(PricedEdge::nothing(hop)) } else { Err(not_possible) };
        }
        let link = self.links.get(from, to).ok_or(Infeasible::Unreachable { from, to })?;
        let coding = self.codings(cut).find(|coding| coding.codec == codec).ok_or(not_possible)?;
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        Ok(PricedEdge {
            from,
            to,
            cut,
            codec,
            bytes: coding.bytes,
            transfer_ms: coding.transfer_ms(sender, link, receiver),
            encode_ms: coding.encode_ms * sender.encode_factors.of(codec),
            wire_ms: link.ms_per_byte * coding.bytes as f64,
            decode_ms: coding.decode_ms * receiver.decode_factors.of(codec),
            loss: coding.loss,
        })
    }

    fn check_shape(&self, shape: &PlanShape) -> Result<(), Infeasible> {
        let mut next = 0;
        for stage in &shape.stages {
            if stage.first != next || stage.end <= stage.first || usize::from(stage.end) > self.block_count()
            {
                return Err(Infeasible::Coverage);
            }
            if !self.nodes.get(stage.node).is_some_and(|node| node.can_compute) {
                return Err(Infeasible::Node { node: stage.node });
            }
            next = stage.end;
        }
        if usize::from(next) != self.block_count() {
            return Err(Infeasible::Coverage);
        }
        if shape.codecs.len() != shape.stages.len() + 1 {
            return Err(Infeasible::Codec { cut: next });
        }
        let is_at_origin = |stage: Option<&StageShape>| stage.is_some_and(|stage| stage.node == 0);
        if self.force_first && !is_at_origin(shape.stages.first()) {
            return Err(Infeasible::Forced);
        }
        if self.force_last && !is_at_origin(shape.stages.last()) {
            return Err(Infeasible::Forced);
        }
        Ok(())
    }

    /// A node's new ranges are all there at once, but run one after the other: weights add up,
    /// activations do not. What is loaded has its memory already.
    pub(super) fn check_memory(&self, stages: &[StageShape]) -> Result<(), Infeasible> {
        let mut cold: Vec<StageShape> =
            stages.iter().copied().filter(|stage| !self.has_memory(*stage)).collect();
        cold.sort_unstable_by_key(|stage| stage.node);
        for runs in cold.chunk_by(|a, b| a.node == b.node) {
            let node = runs[0].node;
            let peak_bytes = runs.iter().map(|stage| self.peak_bytes(*stage)).max().unwrap_or(0);
            let need_bytes = runs.iter().map(|stage| self.weights_bytes(*stage)).sum::<u64>() + peak_bytes;
            let free_bytes = self.nodes[node].memory_free_bytes;
            if need_bytes > free_bytes {
                return Err(Infeasible::Memory { node, need_bytes, free_bytes });
            }
        }
        Ok(())
    }
}

//! From what a node believes about the mesh to a planner's problem, and from its answer to a plan.

mod forced;
mod foremost;
mod forks;
mod regions;
mod whole;

use std::collections::BTreeMap;
use std::ops::Range;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::model::{Block, CodecFigures, Manifest};
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::profile::{Speeds, WorkClass};
use stormo_protocol::state::{Domain, Hosted, NodeRecord};

pub(super) use self::forced::end_elsewhere;
pub(super) use self::foremost::{Wanted, foremost, roomiest};
use crate::app::power::Power;
use crate::mesh::LinkQuality;
use crate::plan::{
    Coding, Extra, Factors, KnownRange, Link, Links, Node, PlanShape, Problem, Region, Watts, backups,
};
use crate::profile::{Measured, Predictor};

/// What a run costs beyond its blocks: hand-over to the session's thread, signs, bookkeeping.
/// Measured as the difference between a pass through a tiny partition and its session's own time.
const RUN_OVERHEAD_MS: f64 = 0.05;
/// What encoding or decoding takes beyond the work: buffers, and another thread for large frames. On
/// digits in three parts over loopback, requests with two coded edges took 0.03 ms more than without, the
/// coding itself apart.
const HAND_OVER_MS: f64 = 0.01;
/// Longest time that a planner is given, ms.
const TIME_MS_MAX: f64 = 1e9;

/// A candidate as the planner may use it: the newest record, and whether it takes work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub record: &'a NodeRecord,
    pub takes_work: bool,
    /// What deliveries to it took lately beyond the usual.
    pub late_ms: f64,
}

/// A problem together with who its nodes are. Losses in it are of accuracy, not shares of agreement.
#[derive(Debug, Clone)]
pub(super) struct Posed {
    pub problem: Problem,
    pub nodes: Vec<NodeId>,
    /// What may take each of them away together with others.
    pub domains: Vec<Vec<Domain>>,
    pub variant: VariantId,
    /// The variant's label.
    pub label: String,
    /// As it counts, see [`Question::accuracy`].
    pub accuracy: f64,
    /// The manifest's cuts that are the problem's: its blocks are what lies between them.
    pub cuts: Vec<u16>,
    /// Parallel regions whose branches can run beside each other, in the problem's blocks.
    pub regions: Vec<Region>,
}

/// What a planner is asked.
pub(super) struct Question<'a> {
    pub manifest: &'a Manifest,
    pub variant: VariantId,
    /// The blocks to run: all, or without the ends.
    pub blocks: Range<u16>,
    /// This node first.
    pub candidates: Vec<Candidate<'a>>,
    pub force_first: bool,
    pub force_last: bool,
    /// Accuracy of the variant's answers when nothing is lost on the way; 0 if nobody knows.
    pub accuracy: f64,
    /// Accuracy that is enough: codecs may then round, be it at no measured loss, and lose what that leaves.
    pub min_accuracy: Option<f64>,
    /// What the machine of this node draws, if its owner said so.
    pub power: Option<Power>,
}

impl Question<'_> {
    pub(super) fn pose(&self) -> Posed {
        self.pose_with(links(&self.candidates))
    }

    /// With the links between the candidates, which are the same for all variants.
    pub(super) fn pose_with(&self, links: Links) -> Posed {
        let cuts = forced::cuts(self.manifest, &self.blocks, [self.force_first, self.force_last]);
        let is_allowed = |codec: Codec| self.min_accuracy.is_some() || codec.is_lossless();
        let unit = accuracy_unit(self.accuracy);
        let predictor = Predictor::new(self.manifest);
        let extra_ms = |range: Range<usize>| {
            let [first, end] = [range.start, range.end].map(|cut| usize::from(cuts[cut]));
            (predictor.extra_us(first..end) / 1000.0).min(TIME_MS_MAX)
        };
        let weights_bytes = |blocks: &[Block]| {
            let all = blocks.iter().map(|block| self.weights_bytes(block));
            all.fold(0, u64::saturating_add).min(1 << 47)
        };
        let peak_bytes =
            |blocks: &[Block]| blocks.iter().map(|block| block.peak_activation_bytes).max().unwrap_or(0);
        Posed {
            problem: Problem {
                cut_bytes: cuts.iter().map(|cut| self.manifest.cut_bytes(*cut)).collect(),
                codings: cuts.iter().map(|cut| codings(self.manifest, *cut, unit, is_allowed)).collect(),
                loss_max: self.min_accuracy.map_or(0.0, |enough| (self.accuracy - enough).max(0.0)),
                block_weights_bytes: self.between(&cuts).map(weights_bytes).collect(),
                block_peak_bytes: self.between(&cuts).map(peak_bytes).collect(),
                extra: Extra::of(cuts.len() - 1, extra_ms),
                nodes: self.nodes(&predictor, &cuts),
                links,
                force_first: self.force_first,
                force_last: self.force_last,
            },
            nodes: self.candidates.iter().map(|candidate| candidate.record.node).collect(),
            domains: self.candidates.iter().map(|candidate| candidate.record.domains.clone()).collect(),
            variant: self.variant,
            label: self.manifest.variant.clone(),
            accuracy: self.accuracy,
            regions: regions::regions(self.manifest, &cuts),
            cuts,
        }
    }

    /// The origin draws what its owner said; what others draw is nothing to it.
    fn nodes(&self, predictor: &Predictor, cuts: &[u16]) -> Vec<Node> {
        let mut nodes: Vec<Node> =
            self.candidates.iter().map(|candidate| self.node(candidate, predictor, cuts)).collect();
        if let (Some(origin), Some(power)) = (nodes.first_mut(), self.power) {
            (origin.watts, origin.tail_mj) = (power.watts, power.tail_mj);
        }
        nodes
    }

    /// The blocks between each two cuts.
    fn between(&self, cuts: &[u16]) -> impl Iterator<Item = &[Block]> {
        cuts.windows(2).map(|ends| &self.manifest.blocks[usize::from(ends[0])..usize::from(ends[1])])
    }

    /// Bytes that a block adds. A weight that several blocks read counts at each: an upper bound.
    fn weights_bytes(&self, block: &Block) -> u64 {
        let weights = block.weights.iter().map(|index| self.manifest.weights[*index as usize].bytes);
        weights.fold(block.inline_bytes, u64::saturating_add).min(1 << 47)
    }

    /// Ranges that are ready on a node, in the problem's blocks. A session holds a part of the graph; the
    /// ends need none, so a session with or without an end beside it is ready, and so is an end alone.
    fn loaded(&self, hosted: &[Hosted], block_ms: &[f64], cuts: &[u16]) -> Vec<KnownRange> {
        let graph = self.manifest.graph_blocks();
        let end_ms = |from: u16, to: u16| -> f64 {
            block_ms.get(usize::from(from)..usize::from(to)).into_iter().flatten().sum()
        };
        let before_ms = end_ms(self.blocks.start, graph.start.max(self.blocks.start));
        let behind_ms = end_ms(graph.end.min(self.blocks.end), self.blocks.end);
        let mut loaded: BTreeMap<(u16, u16), f64> = BTreeMap::new();
        for hosted in hosted.iter().filter(|hosted| hosted.variant == self.variant) {
            let (first, end) = (hosted.first, hosted.end);
            if first < graph.start || end > graph.end || first >= end {
                continue;
            }
            let time_ms = RUN_OVERHEAD_MS + micros_to_ms(hosted.time_us as f64);
            let firsts = [(first, 0.0), (self.blocks.start, before_ms)];
            let ends = [(end, 0.0), (self.blocks.end, behind_ms)];
            for (first, before_ms) in &firsts[..if first == graph.start { 2 } else { 1 }] {
                for (end, behind_ms) in &ends[..if end == graph.end { 2 } else { 1 }] {
                    loaded.insert((*first, *end), time_ms + before_ms + behind_ms);
                }
            }
        }
        for (first, end) in [(self.blocks.start, graph.start), (graph.end, self.blocks.end)] {
            if first < end {
                loaded.insert((first, end), RUN_OVERHEAD_MS + end_ms(first, end));
            }
        }
        let known = |((first, end), time_ms): ((u16, u16), f64)| {
            Some(KnownRange {
                first: place(cuts, first)?,
                end: place(cuts, end)?,
                time_ms: Some(time_ms.min(TIME_MS_MAX)),
                is_loaded: true,
                has_memory: true,
            })
        };
        loaded.into_iter().filter_map(known).collect()
    }

    fn node(&self, candidate: &Candidate<'_>, predictor: &Predictor, cuts: &[u16]) -> Node {
        let record = candidate.record;
        let hosted = record.hosted.iter().filter(|hosted| hosted.variant == self.variant);
        let measured: Vec<Measured> = hosted
            .map(|hosted| Measured { blocks: hosted.first..hosted.end, time_us: hosted.time_us as f64 })
            .collect();
        let estimate = predictor.on_node(&record.machine.speeds, &measured);
        let block_ms: Vec<f64> = estimate.block_us.into_iter().map(micros_to_ms).collect();
        // Coding is plain arithmetic over memory.
        let memory = |speeds: &Speeds| speeds.of(WorkClass::Memory);
        let coding_factor = memory(&self.manifest.reference.speeds) / memory(&record.machine.speeds);
        let queue_wait_us = record.hosted.iter().map(|hosted| hosted.queue_wait_us).max().unwrap_or(0);
        let free = record.free_bytes();
        Node {
            can_compute: candidate.takes_work,
            queue_wait_ms: micros_to_ms(queue_wait_us as f64) + candidate.late_ms,
            memory_free_bytes: free.min(1 << 47),
            overhead_ms: RUN_OVERHEAD_MS,
            known: self.loaded(&record.hosted, &block_ms, cuts),
            block_ms: cuts
                .windows(2)
                .map(|ends| block_ms[usize::from(ends[0])..usize::from(ends[1])].iter().sum())
                .collect(),
            extra_factor: estimate.extra_factor.min(TIME_MS_MAX),
            cold_fixed_ms: micros_to_ms(record.load.cold_us as f64),
            cold_ms_per_byte: micros_to_ms(record.load.cold_us_per_mb as f64) / 1e6,
            encode_factors: Factors::same(coding_factor.min(TIME_MS_MAX)),
            decode_factors: Factors::same(coding_factor.min(TIME_MS_MAX)),
            watts: Watts::default(),
            tail_mj: 0.0,
            uplink_ms_per_byte: 0.0,
        }
    }
}

/// Between all candidates.
pub(super) fn links(candidates: &[Candidate<'_>]) -> Links {
    let mut links = Links::new(candidates.len());
    for (from, one) in candidates.iter().enumerate() {
        for (to, other) in candidates.iter().enumerate().filter(|(to, _)| *to != from) {
            let LinkQuality { latency_ms, ms_per_byte } = LinkQuality::between(one.record, other.record);
            links.set(from, to, Link { latency_ms, ms_per_byte });
        }
    }
    links
}

/// What loading a part counts in a plan that is to do without, milliseconds: longer than any plan that may.
const LOADING_AVOIDED_MS: f64 = 60_000.0;

/// What all agreement is worth in accuracy: of a variant of which nothing is known, losses stay shares.
fn accuracy_unit(accuracy: f64) -> f64 {
    if accuracy > 0.0 { accuracy } else { 1.0 }
}

/// Codecs of a cut whose loss is known; losing all agreement loses `unit`.
fn codings(manifest: &Manifest, cut: u16, unit: f64, is_allowed: impl Fn(Codec) -> bool) -> Vec<Coding> {
    let of = |figures: &CodecFigures| {
        let coding_ms = |micros: u32| HAND_OVER_MS + micros_to_ms(f64::from(micros));
        Some(Coding {
            codec: figures.codec,
            bytes: figures.coded_bytes.min(1 << 47),
            encode_ms: coding_ms(figures.encode_us),
            decode_ms: coding_ms(figures.decode_us),
            loss: unit * figures.loss()?,
        })
    };
    let figures = manifest.cuts[usize::from(cut)].codecs.iter();
    figures.filter(|figures| is_allowed(figures.codec)).filter_map(of).collect()
}

/// Accuracy of a variant's answers when codecs lose a share of agreement.
pub(super) fn accuracy(variant: f64, loss: f64) -> f64 {
    variant * (1.0 - loss).max(0.0)
}

/// Share of agreement that a plan's codecs lose; `None` if one was not measured there.
pub(super) fn loss_of(plan: &Plan, manifest: &Manifest) -> Option<f64> {
    let ends = plan.stages.iter().map(|stage| stage.first).chain(plan.stages.last().map(|stage| stage.end));
    let losses = plan.codecs().zip(ends).map(|(codec, cut)| match codec {
        codec if codec.is_lossless() => Some(0.0),
        codec => manifest.cuts.get(usize::from(cut))?.figures(codec)?.loss(),
    });
    losses.sum()
}

/// A number that came from a peer, kept below what a planner takes.
fn micros_to_ms(micros: f64) -> f64 {
    (micros / 1000.0).min(TIME_MS_MAX)
}

/// Where one of the manifest's cuts is among these, if it is there.
fn place(cuts: &[u16], cut: u16) -> Option<u16> {
    cuts.binary_search(&cut).ok().map(|place| place as u16)
}

impl Posed {
    /// The manifest's cut that is one of the problem's.
    pub(super) fn cut(&self, cut: u16) -> u16 {
        self.cuts[usize::from(cut)]
    }

    /// The manifest's blocks that are these of the problem.
    pub(super) fn blocks(&self, first: u16, end: u16) -> Range<u16> {
        self.cut(first)..self.cut(end)
    }

    /// The problem's cut that is one of the manifest's, if it is there.
    pub(super) fn place(&self, cut: u16) -> Option<u16> {
        place(&self.cuts, cut)
    }

    /// Leaves nodes so much of the memory that each has free.
    pub(super) fn leave(&mut self, left_bytes: impl Fn(NodeId, u64) -> u64) {
        for (node, id) in self.problem.nodes.iter_mut().zip(&self.nodes) {
            node.memory_free_bytes = left_bytes(*id, node.memory_free_bytes);
        }
    }

    /// Makes plans do with what is loaded, wherever that is possible: loading takes time, and may be refused.
    pub(super) fn prefer_loaded(&mut self) {
        for node in &mut self.problem.nodes {
            node.cold_fixed_ms = (node.cold_fixed_ms + LOADING_AVOIDED_MS).min(TIME_MS_MAX);
        }
    }

    /// Leaves only this codec to choose, wherever its loss is known, be it one that rounds.
    pub(super) fn leave_only(&mut self, codec: Codec, manifest: &Manifest) {
        for (cut, left) in self.cuts.iter().zip(&mut self.problem.codings) {
            *left = codings(manifest, *cut, accuracy_unit(self.accuracy), |other| other == codec);
        }
    }

    /// What a loss in the problem has to be divided by to be a share of agreement.
    pub(super) fn loss_unit(&self) -> f64 {
        accuracy_unit(self.accuracy)
    }

    /// A shape in terms of nodes, with those named who can take a stage over at once.
    pub(super) fn plan(&self, shape: &PlanShape) -> Plan {
        let backups = backups(&self.problem, shape, true, |one, other| self.share_domain(one, other));
        let stages = shape
            .stages
            .iter()
            .zip(&shape.codecs)
            .zip(backups)
            .map(|((stage, codec), backups)| Stage {
                node: self.nodes[stage.node],
                first: self.cut(stage.first),
                end: self.cut(stage.end),
                codec: *codec,
                backups: backups.into_iter().map(|node| self.nodes[node]).collect(),
                branch: None,
            })
            .collect();
        let result_codec = shape.codecs.last().copied().unwrap_or_default();
        Plan { variant: self.variant, origin: self.nodes[0], stages, result_codec }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plan::{self, Watts};
    use stormo_protocol::ids::{DeploymentId, ObjectId};
    use stormo_protocol::model::{BlockKind, Cut, ObjectRef, OrtLevel};
    use stormo_protocol::profile::{Reference, Work};
    use stormo_protocol::tensor::{DType, TensorSpec};

    /// A node with these times of blocks and another one, three times as fast and 10 ms away, to which bytes go
    /// for nothing. All is loaded.
    pub(in crate::app) fn two_nodes(label: &str, accuracy: f64, block_ms: &[f64]) -> Posed {
        let blocks = block_ms.len();
        let node = |slower: f64| Node {
            can_compute: true,
            queue_wait_ms: 0.0,
            memory_free_bytes: 1 << 30,
            overhead_ms: 0.0,
            block_ms: block_ms.iter().map(|time_ms| time_ms * slower).collect(),
            extra_factor: 1.0,
            known: vec![],
            cold_fixed_ms: 0.0,
            cold_ms_per_byte: 0.0,
            encode_factors: Factors::same(1.0),
            decode_factors: Factors::same(1.0),
            watts: Watts { idle: 0.4, compute: 3.0, send: 1.6, receive: 0.9 },
            tail_mj: 0.0,
            uplink_ms_per_byte: 0.0,
        };
        let mut links = Links::new(2);
        links.set(0, 1, Link { latency_ms: 10.0, ms_per_byte: 0.0 });
        links.set(1, 0, Link { latency_ms: 10.0, ms_per_byte: 0.0 });
        Posed {
            problem: Problem {
                cut_bytes: vec![100; blocks + 1],
                codings: vec![vec![]; blocks + 1],
                loss_max: 0.0,
                block_weights_bytes: vec![10; blocks],
                block_peak_bytes: vec![10; blocks],
                extra: Extra::none(),
                nodes: vec![node(1.0), node(1.0 / 3.0)],
                links,
                force_first: false,
                force_last: false,
            },
            nodes: vec![NodeId([1; 32]), NodeId([2; 32])],
            variant: variant(),
            label: label.to_owned(),
            accuracy,
            domains: vec![vec![]; 2],
            cuts: (0..=blocks as u16).collect(),
            regions: vec![],
        }
    }

    /// Two blocks; at the cut between them one lossless codec, one measured and one not.
    pub(in crate::app) fn manifest() -> Manifest {
        let block = |node| Block {
            kind: BlockKind::Graph,
            first_node: node,
            end_node: node + 1,
            weights: vec![],
            inline_bytes: 1,
            flops: 1,
            peak_activation_bytes: 1,
            work: Work::default(),
            time_ns: 1_000_000,
        };
        let figures = |codec, loss_ppm| CodecFigures {
            codec,
            coded_bytes: 100,
            encode_us: 2000,
            decode_us: 1000,
            loss_ppm,
        };
        let codecs = vec![
            figures(Codec::ShuffleLz4, Some(0)),
            figures(Codec::F16, Some(0)),
            figures(Codec::Int8, Some(50_000)),
            figures(Codec::Int8Lz4, None),
        ];
        let cut = |codecs| Cut { codecs, ..Cut::crossed_by(vec![0]) };
        let manifest = Manifest {
            model: "m".into(),
            variant: "base".into(),
            ort_level: OrtLevel::All,
            skeleton: ObjectRef { id: ObjectId([1; 32]), bytes: 1 },
            weights: vec![],
            card: None,
            variable: vec![],
            tensors: vec![TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![100] }],
            inputs: vec![0],
            outputs: vec![0],
            blocks: vec![block(0), block(1)],
            cuts: vec![cut(vec![]), cut(codecs), cut(vec![])],
            regions: vec![],
            batch: None,
            loss_samples: 16,
            reference: Reference {
                range_ns: vec![1_000_000, 2_000_000, 1_000_000],
                ..Reference::unmeasured(2)
            },
        };
        manifest.check().unwrap();
        manifest
    }

    pub(in crate::app) fn variant() -> VariantId {
        VariantId { deployment: DeploymentId([1; 16]), index: 0 }
    }

    fn plan(codec: Codec) -> Plan {
        let stage = |first, codec| Stage {
            node: NodeId([first as u8; 32]),
            first,
            end: first + 1,
            codec,
            backups: vec![],
            branch: None,
        };
        let stages = vec![stage(0, Codec::Raw), stage(1, codec)];
        let origin = NodeId([9; 32]);
        Plan { variant: variant(), origin, stages, result_codec: Codec::Raw }
    }

    #[test]
    fn only_a_limit_of_accuracy_lets_codecs_round_and_only_where_the_loss_is_known() {
        let manifest = manifest();
        let allowed = |min_accuracy| {
            let question = Question {
                manifest: &manifest,
                variant: variant(),
                blocks: 0..2,
                candidates: vec![],
                force_first: false,
                force_last: false,
                accuracy: 0.5,
                min_accuracy,
                power: None,
            };
            let codings = question.pose().problem.codings;
            assert!(codings[1].iter().all(|coding| coding.loss == 0.0 || coding.loss == 0.5 * 0.05));
            codings[1].iter().map(|coding| coding.codec).collect::<Vec<_>>()
        };
        assert_eq!(allowed(None), [Codec::ShuffleLz4]);
        assert_eq!(allowed(Some(0.4)), [Codec::ShuffleLz4, Codec::F16, Codec::Int8]);
    }

    #[test]
    fn plans_that_prefer_what_is_loaded_load_only_where_nobody_has_it() {
        let host = |posed: &Posed| {
            let best = plan::best(&posed.problem, plan::EXPANSIONS_DEFAULT).unwrap();
            best.priced.shape.stages.iter().map(|stage| stage.node).collect::<Vec<_>>()
        };
        let mut posed = two_nodes("m", 0.5, &[30.0, 30.0]);
        posed.problem.nodes.iter_mut().for_each(|node| node.cold_fixed_ms = 1.0);
        let loaded = KnownRange { first: 0, end: 2, time_ms: None, is_loaded: true, has_memory: true };
        posed.problem.nodes[0].known = vec![loaded];
        assert_eq!(host(&posed), [1], "20 ms there, 20 ms of way and 1 ms of loading");
        posed.prefer_loaded();
        assert_eq!(host(&posed), [0]);
        posed.problem.nodes[0].known.clear();
        assert_eq!(host(&posed), [1], "all have to load it");
    }

    #[test]
    fn losses_are_shares_of_agreement_and_cost_accuracy() {
        let manifest = manifest();
        assert_eq!(accuracy(0.5, 0.25), 0.375);
        let loss = |codec| loss_of(&plan(codec), &manifest);
        assert_eq!([Codec::Raw, Codec::F16, Codec::Int8].map(loss), [Some(0.0), Some(0.0), Some(0.05)]);
        assert_eq!([Codec::Int8Lz4, Codec::Int8Zstd].map(loss), [None, None]);
    }
}

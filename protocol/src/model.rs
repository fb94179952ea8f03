//! A divided variant as all nodes agree on it: tensors, cuts, blocks, weights, reference profile.
//! The graph itself is an object of the pool; how it is divided and extracted is not said here.

mod cut;
mod fit;
mod ways;

use std::ops::Range;

pub use cut::{CodecFigures, Cut};
pub use fit::Batch;
use serde::{Deserialize, Serialize};
pub use ways::{Way, Ways};

use crate::ids::ObjectId;
use crate::limits::{
    BLOCKS_MAX, FRAME_TENSORS_MAX, GRAPH_NODES_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX, TENSORS_MAX,
    VARIABLE_MAX,
};
use crate::profile::{Reference, Work};
use crate::tensor::{BadTensor, TensorSpec};

/// How much ONNX Runtime may rewrite a graph. `Off` makes every fp32 cut bit-exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrtLevel {
    /// No rewriting.
    Off,
    /// Redundant nodes removed, constants folded.
    Basic,
    /// Fusions too.
    Extended,
    /// Layout changes too: ONNX Runtime's own default.
    #[default]
    All,
}

/// Bytes of the pool, by name and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// BLAKE3 of the bytes.
    pub id: ObjectId,
    /// Their length.
    pub bytes: u64,
}

/// The tensor that an encoded image travels as: its bytes, as many as it has.
pub const ENCODED_IMAGE: &str = "encoded_image";
/// The tensor that says how the image was laid into the model's input; it goes along to the end.
pub const IMAGE_FRAME: &str = "image_frame";
/// The tensor that the answer's meaning travels as: JSON.
pub const MEANING: &str = "meaning";

/// What a block does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// Turns an encoded image into the model's inputs, as the card says. Only the first block may.
    Decode,
    /// Runs nodes of the graph.
    Graph,
    /// Turns the model's outputs into their meaning, as the card says. Only the last block may.
    Read,
}

/// The finest piece of a divided variant: a range of the skeleton's nodes, or one of the ends that the
/// model's card describes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// What it does. An end has no nodes.
    pub kind: BlockKind,
    /// First node in the skeleton's order.
    pub first_node: u32,
    /// One past the last node.
    pub end_node: u32,
    /// Weights read, as ascending indices into [`Manifest::weights`].
    pub weights: Vec<u32>,
    /// Memory of small weights and constants that travel inside the skeleton, and of what is computed from
    /// constants alone, bytes.
    pub inline_bytes: u64,
    /// Multiply-adds times two, for the sample input.
    pub flops: u64,
    /// The same and all other work by class, for the sample input.
    pub work: Work,
    /// Largest sum of bytes of live activations while the block runs.
    pub peak_activation_bytes: u64,
    /// What it adds to the time of a range on the reference node, nanoseconds; an end's whole time. A
    /// range takes more than its blocks add: see [`Reference`].
    pub time_ns: u64,
}

/// Blocks that depend on nothing another branch of their region makes: a range that can run beside the
/// others, on what was there when the region began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// What it reads of the cut before the region, as ascending indices into [`Manifest::tensors`]. Empty
    /// if it computes from constants alone.
    pub reads: Vec<u32>,
}

/// A parallel region: two or more branches that follow each other in the order of blocks, between the cut
/// before the first and the cut behind the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its branches; each begins where the one before ends.
    pub branches: Vec<Branch>,
}

/// A tensor whose dimensions, though not their number, differ from request to request: as many as values of
/// the input ask for. Its description in the manifest is that of a typical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableTensor {
    /// Index into [`Manifest::tensors`].
    pub tensor: u32,
    /// Largest that is accepted.
    pub bytes_max: u64,
}

/// What describes a divided variant. Small: tensors' names, shapes and numbers, no data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the model family, as deployed.
    pub model: String,
    /// Label of this variant.
    pub variant: String,
    /// ONNX Runtime's level, the same on every node.
    pub ort_level: OrtLevel,
    /// The graph without its large weights, nodes in the order that blocks refer to.
    pub skeleton: ObjectRef,
    /// The large weights, one object each.
    pub weights: Vec<ObjectRef>,
    /// The model's card (TOML), if it has one.
    pub card: Option<ObjectRef>,
    /// Tensors without a fixed shape: an end's bytes, and outputs that hold what was found. None enters the
    /// graph or crosses a cut within it.
    pub variable: Vec<VariableTensor>,
    /// The open first axis, if the model keeps one; `tensors` are of one item.
    pub batch: Option<Batch>,
    /// Every tensor that is an input, an output or crosses a cut.
    pub tensors: Vec<TensorSpec>,
    /// The model's inputs, as indices into `tensors`, in the model's order.
    pub inputs: Vec<u32>,
    /// The model's outputs, likewise.
    pub outputs: Vec<u32>,
    /// Blocks in order of execution; at least one.
    pub blocks: Vec<Block>,
    /// `cuts[i]` lies before block `i`; the first holds the inputs (or the encoded image), the last the
    /// outputs (or their meaning).
    pub cuts: Vec<Cut>,
    /// Parallel regions, from the first to the last; they do not overlap.
    pub regions: Vec<Region>,
    /// Images that the codecs' losses were measured on; 0 if they were not.
    pub loss_samples: u16,
    /// How long the graph took where it was profiled.
    pub reference: Reference,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// A name is empty, too long, or has characters beyond letters, digits, `.`, `_` and `-`.
    #[error("`{0}` is no valid name: use 1 to 64 letters, digits, dots, dashes or underscores")]
    Name(String),
    /// A count is beyond its limit, or zero where something is needed.
    #[error("{0}")]
    Count(&'static str),
    /// The reference times are not those of the blocks, or contradict themselves.
    #[error("the reference times contradict themselves")]
    Reference,
    /// An index points outside its list, or a list that ascends does not.
    #[error("an index of {0} points nowhere")]
    Index(&'static str),
    /// A tensor is out of bounds.
    #[error(transparent)]
    Tensor(#[from] BadTensor),
}

/// Whether a name may stand for a model or variant: it appears in URLs, file names and tables.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl Manifest {
    /// Checks everything that the other methods, and the nodes, rely on.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), BadManifest> {
        for name in [&self.model, &self.variant] {
            if !is_valid_name(name) {
                return Err(BadManifest::Name(name.chars().take(80).collect()));
            }
        }
        if self.blocks.is_empty() || self.blocks.len() > BLOCKS_MAX {
            return Err(BadManifest::Count("a variant has 1 to 64 blocks"));
        }
        if self.cuts.len() != self.blocks.len() + 1 {
            return Err(BadManifest::Count("there must be one cut more than blocks"));
        }
        if std::iter::once(&self.skeleton).chain(&self.weights).any(|object| object.bytes > OBJECT_BYTES_MAX)
        {
            return Err(BadManifest::Count("an object is above the size limit"));
        }
        if self.tensors.len() > TENSORS_MAX {
            return Err(BadManifest::Count("too many tensors"));
        }
        let mut tensor_bytes = 0u64;
        for tensor in &self.tensors {
            tensor_bytes = tensor_bytes.saturating_add(tensor.byte_length()?);
        }
        for list in [&self.inputs, &self.outputs].into_iter().chain(self.cuts.iter().map(|cut| &cut.tensors))
        {
            if list.is_empty() || list.len() > FRAME_TENSORS_MAX {
                return Err(BadManifest::Count("1 to 64 tensors may cross a cut"));
            }
            if list.iter().any(|index| *index as usize >= self.tensors.len()) {
                return Err(BadManifest::Index("tensors"));
            }
        }
        self.check_settled()?;
        let mut next_node = 0;
        for block in &self.blocks {
            if block.first_node != next_node || block.end_node < block.first_node {
                return Err(BadManifest::Index("nodes"));
            }
            next_node = block.end_node;
            if block.weights.iter().any(|index| *index as usize >= self.weights.len()) {
                return Err(BadManifest::Index("weights"));
            }
        }
        if next_node as usize > GRAPH_NODES_MAX {
            return Err(BadManifest::Count("too many nodes"));
        }
        for (index, cut) in self.cuts.iter().enumerate() {
            cut.check_codecs(self.cut_bytes(index as u16))?;
        }
        self.check_ends()?;
        self.check_batch()?;
        self.check_regions()?;
        self.check_reference()
    }

    fn check_reference(&self) -> Result<(), BadManifest> {
        let graph = self.graph_blocks();
        let graph = &self.blocks[usize::from(graph.start)..usize::from(graph.end)];
        let block_ns: Vec<u64> = graph.iter().map(|block| block.time_ns).collect();
        if self.reference.is_sound(&block_ns) { Ok(()) } else { Err(BadManifest::Reference) }
    }

    /// What is settled is an output, stays settled, and crosses no more before the end.
    fn check_settled(&self) -> Result<(), BadManifest> {
        let mut before: &[u32] = &[];
        let (last, inner) = self.cuts.split_last().ok_or(BadManifest::Count("there is no cut"))?;
        for cut in inner {
            let is_sound = |tensor: &u32| self.outputs.contains(tensor) && !cut.tensors.contains(tensor);
            let stays = before.iter().all(|tensor| cut.settled.contains(tensor));
            if !stays || cut.settled.len() > FRAME_TENSORS_MAX || !cut.settled.iter().all(is_sound) {
                return Err(BadManifest::Index("settled outputs"));
            }
            before = &cut.settled;
        }
        let starts_settled = self.cuts.first().is_some_and(|cut| !cut.settled.is_empty());
        let ends_there = before.iter().all(|tensor| last.tensors.contains(tensor));
        if starts_settled || !last.settled.is_empty() || !ends_there {
            return Err(BadManifest::Index("settled outputs"));
        }
        Ok(())
    }

    /// Regions are ranges of graph blocks in their order, and branches read what is there.
    fn check_regions(&self) -> Result<(), BadManifest> {
        let graph = self.graph_blocks();
        let mut next = graph.start;
        for region in &self.regions {
            let [first, _, ..] = region.branches.as_slice() else {
                return Err(BadManifest::Count("a parallel region has at least two branches"));
            };
            let mut follows = first.first;
            for branch in &region.branches {
                if branch.first != follows || branch.end <= branch.first || branch.end > graph.end {
                    return Err(BadManifest::Index("branches"));
                }
                follows = branch.end;
                let there = &self.cuts[usize::from(first.first)].tensors;
                if !branch.reads.is_sorted() || branch.reads.iter().any(|tensor| !there.contains(tensor)) {
                    return Err(BadManifest::Index("a branch's tensors"));
                }
            }
            if first.first < next {
                return Err(BadManifest::Index("parallel regions"));
            }
            next = follows;
        }
        Ok(())
    }

    /// Ends are at the ends, and come with a card.
    fn check_ends(&self) -> Result<(), BadManifest> {
        let last = self.blocks.len() - 1;
        let mut graph_blocks = 0;
        for (index, block) in self.blocks.iter().enumerate() {
            match block.kind {
                BlockKind::Graph => graph_blocks += 1,
                BlockKind::Decode if index == 0 => {}
                BlockKind::Read if index == last => {}
                BlockKind::Decode | BlockKind::Read => {
                    return Err(BadManifest::Count("an end of the model lies in its middle"));
                }
            }
            if block.kind != BlockKind::Graph && (self.card.is_none() || block.first_node != block.end_node) {
                return Err(BadManifest::Count("an end of the model has no card, or has nodes"));
            }
        }
        if graph_blocks == 0 {
            return Err(BadManifest::Count("a variant has at least one block of its graph"));
        }
        let is_sound = |variable: &VariableTensor| {
            (variable.tensor as usize) < self.tensors.len() && variable.bytes_max <= OBJECT_BYTES_MAX
        };
        if self.variable.len() > VARIABLE_MAX {
            return Err(BadManifest::Count("too many variable tensors"));
        }
        let graph = self.graph_blocks();
        let within = &self.cuts[usize::from(graph.start)..usize::from(graph.end)];
        let crosses = within.iter().flat_map(|cut| &cut.tensors).any(|tensor| self.is_variable(*tensor));
        if self.variable.iter().all(is_sound) && !crosses {
            Ok(())
        } else {
            Err(BadManifest::Index("variable tensors"))
        }
    }

    /// Time of the whole graph as one session on the reference node, microseconds.
    pub fn whole_us(&self) -> u64 {
        let graph = self.graph_blocks();
        let blocks = usize::from(graph.end - graph.start);
        let whole_ns = self.reference.range_ns.get(blocks.saturating_sub(1)).copied().unwrap_or(0);
        whole_ns / 1000
    }

    /// The blocks that are parts of the graph: all but the ends.
    pub fn graph_blocks(&self) -> Range<u16> {
        let is_end = |block: Option<&Block>| block.is_some_and(|block| block.kind != BlockKind::Graph);
        u16::from(is_end(self.blocks.first()))..self.block_count() - u16::from(is_end(self.blocks.last()))
    }

    /// Of a range of blocks, those that are parts of the graph; empty if none is.
    pub fn graph_part(&self, blocks: Range<u16>) -> Range<u16> {
        let graph = self.graph_blocks();
        let first = blocks.start.clamp(graph.start, graph.end);
        first..blocks.end.clamp(first, graph.end)
    }

    /// Whether a request may enter at the first and leave behind the last of these blocks.
    pub fn is_whole(&self, blocks: &Range<u16>) -> bool {
        let graph = self.graph_blocks();
        (blocks.start == 0 || blocks.start == graph.start)
            && (blocks.end == self.block_count() || blocks.end == graph.end)
    }

    /// Number of blocks.
    pub fn block_count(&self) -> u16 {
        self.blocks.len() as u16
    }

    /// The tensors of a cut.
    pub fn cut_specs(&self, cut: u16) -> impl Iterator<Item = &TensorSpec> {
        self.cuts[usize::from(cut)].tensors.iter().map(|index| &self.tensors[*index as usize])
    }

    /// Bytes that cross a cut, uncompressed.
    pub fn cut_bytes(&self, cut: u16) -> u64 {
        self.cut_specs(cut).map(|spec| spec.byte_length().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
    }

    /// The model's inputs.
    pub fn input_specs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.inputs.iter().map(|index| &self.tensors[*index as usize])
    }

    /// The model's outputs.
    pub fn output_specs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.outputs.iter().map(|index| &self.tensors[*index as usize])
    }

    /// What a range of blocks makes for those behind it, and the model's outputs among it: the tensors at
    /// the cut behind it that were not there before it. Ascending indices into `tensors`.
    pub fn made_by(&self, blocks: Range<u16>) -> Vec<u32> {
        let before = &self.cuts[usize::from(blocks.start)];
        let behind = self.cuts[usize::from(blocks.end)].there();
        let mut made: Vec<u32> =
            behind.filter(|tensor| before.there().all(|before| before != *tensor)).collect();
        made.sort_unstable();
        made
    }

    /// What a stage of a plan over `plan` sends to the origin: of the last stage all that is there and has
    /// not left before, of the others what is settled behind them and was not before them.
    pub fn results_of(&self, stage: &Range<u16>, plan: &Range<u16>) -> Vec<u32> {
        let gone = &self.cuts[usize::from(stage.start)].settled;
        let behind = &self.cuts[usize::from(stage.end)];
        let there: Vec<u32> =
            if stage.end == plan.end { behind.there().collect() } else { behind.settled.clone() };
        there.into_iter().filter(|tensor| !gone.contains(tensor)).collect()
    }

    /// Weights that a range of blocks reads, each once, as ascending indices into `weights`.
    pub fn range_weights(&self, blocks: Range<u16>) -> Vec<u32> {
        let mut weights: Vec<u32> = self.blocks[usize::from(blocks.start)..usize::from(blocks.end)]
            .iter()
            .flat_map(|block| block.weights.iter().copied())
            .collect();
        weights.sort_unstable();
        weights.dedup();
        weights
    }

    /// Objects that a range needs: the skeleton, and the weights that its blocks read.
    pub fn range_objects(&self, blocks: Range<u16>) -> Vec<ObjectRef> {
        let weights = self.range_weights(blocks).into_iter().map(|index| self.weights[index as usize]);
        std::iter::once(self.skeleton).chain(weights).collect()
    }

    /// Weights that loading a range takes, bytes.
    pub fn range_weights_bytes(&self, blocks: Range<u16>) -> u64 {
        let weights =
            self.range_weights(blocks.clone()).into_iter().map(|index| self.weights[index as usize].bytes);
        let blocks = &self.blocks[usize::from(blocks.start)..usize::from(blocks.end)];
        let inline = blocks.iter().map(|block| block.inline_bytes);
        weights.chain(inline).fold(0, u64::saturating_add)
    }

    /// Memory that a range needs while it runs: its weights and its largest activations, bytes.
    pub fn range_memory_bytes(&self, blocks: Range<u16>) -> u64 {
        let within = &self.blocks[usize::from(blocks.start)..usize::from(blocks.end)];
        let peak = within.iter().map(|block| block.peak_activation_bytes).max().unwrap_or(0);
        self.range_weights_bytes(blocks).saturating_add(peak)
    }
}

#[cfg(test)]
mod tests;

//! A divided variant as all nodes agree on it: tensors, cuts, blocks, weights, reference profile.
//! The graph itself is an object of the pool; how it is divided and extracted is not said here.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::ObjectId;
use crate::limits::{BLOCKS_MAX, FRAME_TENSORS_MAX, GRAPH_NODES_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX};
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

/// The tensors that cross a frontier between blocks: all that was computed (or given) before it
/// and is read after it, the model's outputs that are already there among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Indices into [`Manifest::tensors`], ascending.
    pub tensors: Vec<u32>,
}

/// The finest piece of a divided variant: a range of the skeleton's nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// First node in the skeleton's order.
    pub first_node: u32,
    /// One past the last node.
    pub end_node: u32,
    /// Weights read, as ascending indices into [`Manifest::weights`].
    pub weights: Vec<u32>,
    /// Bytes of small weights and constants that travel inside the skeleton.
    pub inline_bytes: u64,
    /// Multiply-adds times two, for the sample input.
    pub flops: u64,
    /// Largest sum of bytes of live activations while the block runs.
    pub peak_activation_bytes: u64,
    /// Share of the whole model's time on the reference node, microseconds. The blocks' times add
    /// up to the whole model's, so that what fusion across their borders saves is counted.
    pub time_us: u64,
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
    /// Every tensor that is an input, an output or crosses a cut.
    pub tensors: Vec<TensorSpec>,
    /// The model's inputs, as indices into `tensors`, in the model's order.
    pub inputs: Vec<u32>,
    /// The model's outputs, likewise.
    pub outputs: Vec<u32>,
    /// Blocks in order of execution; at least one.
    pub blocks: Vec<Block>,
    /// `cuts[i]` lies before block `i`; the first holds the inputs, the last the outputs.
    pub cuts: Vec<Cut>,
    /// Speed of the node that measured `time_us`, in millions of floating-point operations a second.
    pub reference_mflops: f64,
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
        if !self.reference_mflops.is_finite() || self.reference_mflops <= 0.0 {
            return Err(BadManifest::Count("the reference speed must be positive"));
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
        Ok(())
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

    /// Memory that a range needs while it runs: its weights and its largest activations, bytes.
    pub fn range_memory_bytes(&self, blocks: Range<u16>) -> u64 {
        let weights =
            self.range_weights(blocks.clone()).into_iter().map(|index| self.weights[index as usize].bytes);
        let blocks = &self.blocks[usize::from(blocks.start)..usize::from(blocks.end)];
        let inline = blocks.iter().map(|block| block.inline_bytes);
        let peak = blocks.iter().map(|block| block.peak_activation_bytes).max().unwrap_or(0);
        weights.chain(inline).fold(peak, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn manifest() -> Manifest {
        let object = |seed: u8, bytes| ObjectRef { id: ObjectId([seed; 32]), bytes };
        let block = |first_node, weights: &[u32]| Block {
            first_node,
            end_node: first_node + 2,
            weights: weights.to_vec(),
            inline_bytes: 1,
            flops: 10,
            peak_activation_bytes: 8,
            time_us: 5,
        };
        Manifest {
            model: "digits".into(),
            variant: "base".into(),
            ort_level: OrtLevel::All,
            skeleton: object(1, 100),
            weights: vec![object(2, 1000), object(3, 2000)],
            tensors: ["x", "a", "y"]
                .map(|name| TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![1, 2] })
                .to_vec(),
            inputs: vec![0],
            outputs: vec![2],
            blocks: vec![block(0, &[0, 1]), block(2, &[1])],
            cuts: [0, 1, 2].map(|index| Cut { tensors: vec![index] }).to_vec(),
            reference_mflops: 1000.0,
        }
    }

    #[test]
    fn a_sound_manifest_passes_and_shared_weights_count_once() {
        let manifest = manifest();
        assert_eq!(manifest.check(), Ok(()));
        assert_eq!(manifest.range_weights(0..2), vec![0, 1]);
        assert_eq!(manifest.range_memory_bytes(0..2), 3000 + 2 + 8);
        assert_eq!(manifest.cut_bytes(1), 8);
    }

    #[test]
    fn what_points_nowhere_is_refused() {
        let mut bad = manifest();
        bad.cuts[1].tensors = vec![9];
        assert_eq!(bad.check(), Err(BadManifest::Index("tensors")));
        let mut bad = manifest();
        bad.blocks[1].first_node = 3;
        assert_eq!(bad.check(), Err(BadManifest::Index("nodes")));
        let mut bad = manifest();
        bad.model = "../etc".into();
        assert!(matches!(bad.check(), Err(BadManifest::Name(_))));
    }
}

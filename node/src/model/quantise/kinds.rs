//! How each node takes to small integers: which multiply with stored weights, which hand numbers on,
//! which go along with their neighbours. What ONNX Runtime's processor kernels can do, no more.

use std::collections::HashMap;

use stormo_protocol::tensor::DType;

use super::super::data;
use super::super::graph::Graph;
use super::super::messages::{NodeProto, TensorProto};
use super::attributes::{float, integer};

/// Channels of an image. Convolutions over so few are slower on small integers: ONNX Runtime has a
/// kernel of its own for them on floats (measured: 1.5 to 2.2 times as fast as the one for integers).
const IMAGE_CHANNELS_MAX: u64 = 4;

/// How a node can be computed on small integers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Multiplies with stored weights: what small integers are wanted for.
    Weighted(Weighted),
    /// Hands numbers on unchanged: the outputs have the scale of the first input.
    Moves,
    /// Computes on small integers where its neighbours do; the output has a scale of its own.
    Follows,
    /// A concatenation: likewise, and cheapest where its parts have one scale.
    Joins,
    /// Cuts off what is below or above; before a small integer that is what the range does.
    Clamps,
    /// Everything else.
    Float,
}

impl Kind {
    /// Whether it computes on small integers where its neighbours do, with a scale of its own.
    pub(super) fn follows(&self) -> bool {
        matches!(self, Self::Follows | Self::Joins)
    }
}

/// Where a weighted node keeps its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weighted {
    /// Initialiser of the weights.
    pub weights: usize,
    /// Initialiser of what is added, one number per output channel or one for all.
    pub bias: Option<usize>,
    /// Axis of the weights that counts the output channels.
    pub output_axis: usize,
    /// Axis of the activations that counts the input channels, where their means are of use.
    pub input_axis: Option<usize>,
    /// Groups of channels.
    pub groups: usize,
    /// Factors of weights and bias.
    pub alpha: f32,
    /// See `alpha`.
    pub beta: f32,
    /// Whether the result can be had as floats at once, without rounding it to small integers.
    pub floats_out: bool,
    /// Whether the node has a third input for a bias.
    pub takes_bias: bool,
    /// Whether it is known to be slower on small integers.
    pub slower: bool,
}

/// Stored tensors of a graph by name.
pub(super) struct Stored<'a> {
    tensors: &'a [TensorProto],
    index: HashMap<&'a str, usize>,
}

impl<'a> Stored<'a> {
    pub(super) fn of(graph: &'a Graph) -> Self {
        let tensors = graph.model.graph.initializer.as_slice();
        let index = tensors.iter().enumerate().map(|(index, tensor)| (tensor.name(), index)).collect();
        Self { tensors, index }
    }

    /// A stored FP32 tensor of at least one element.
    pub(super) fn floats(&self, name: &str) -> Option<(usize, &'a TensorProto)> {
        let index = *self.index.get(name)?;
        let tensor = &self.tensors[index];
        let spec = data::spec_of(tensor)?;
        (spec.dtype == DType::F32 && spec.byte_length().is_ok_and(|bytes| bytes > 0))
            .then_some((index, tensor))
    }

    fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }
}

/// The kind of a node.
pub(super) fn kind_of(node: &NodeProto, stored: &Stored) -> Kind {
    if !matches!(node.domain(), "" | "ai.onnx") {
        return Kind::Float;
    }
    let input = |index: usize| node.input.get(index).map_or("", String::as_str);
    match node.op_type() {
        "Conv" => convolution(node, stored).map_or(Kind::Float, Kind::Weighted),
        "Gemm" => product(node, stored).map_or(Kind::Float, Kind::Weighted),
        "MatMul" => match stored.floats(input(1)) {
            Some((weights, tensor)) if tensor.dims.len() == 2 => Kind::Weighted(Weighted {
                weights,
                bias: None,
                output_axis: 1,
                input_axis: None,
                groups: 1,
                alpha: 1.0,
                beta: 1.0,
                floats_out: true,
                takes_bias: false,
                slower: false,
            }),
            _ => Kind::Float,
        },
        "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice" | "Split" => Kind::Moves,
        "Gather" if !stored.has(input(0)) => Kind::Moves,
        // With its second output it tells where the largest were, which no 8-bit kernel does.
        "MaxPool" if node.output.len() == 1 => Kind::Moves,
        "Resize" => Kind::Moves,
        "Concat" => Kind::Joins,
        "Add" | "Mul" | "LeakyRelu" | "Sigmoid" | "GlobalAveragePool" => Kind::Follows,
        "Relu" => Kind::Clamps,
        "Clip" if clip_holds_zero(node, stored) => Kind::Clamps,
        _ => Kind::Float,
    }
}

fn convolution(node: &NodeProto, stored: &Stored) -> Option<Weighted> {
    let (weights, tensor) = stored.floats(node.input.get(1)?)?;
    let groups = usize::try_from(integer(node, "group", 1)).ok().filter(|groups| *groups > 0)?;
    let [outputs, channels, ..] = tensor.dims.as_slice() else { return None };
    // Groups that do not divide the outputs are no convolution; ONNX Runtime says so.
    if usize::try_from(*outputs).ok()? % groups != 0 {
        return None;
    }
    Some(Weighted {
        weights,
        bias: bias(node, stored)?,
        output_axis: 0,
        input_axis: Some(1),
        groups,
        alpha: 1.0,
        beta: 1.0,
        floats_out: false,
        takes_bias: true,
        slower: groups == 1 && u64::try_from(*channels).ok()? <= IMAGE_CHANNELS_MAX,
    })
}

fn product(node: &NodeProto, stored: &Stored) -> Option<Weighted> {
    let (weights, tensor) = stored.floats(node.input.get(1)?)?;
    if integer(node, "transA", 0) != 0 || tensor.dims.len() != 2 {
        return None;
    }
    Some(Weighted {
        weights,
        bias: bias(node, stored)?,
        output_axis: if integer(node, "transB", 0) != 0 { 0 } else { 1 },
        input_axis: Some(1),
        groups: 1,
        alpha: float(node, "alpha", 1.0),
        beta: float(node, "beta", 1.0),
        floats_out: true,
        takes_bias: true,
        slower: false,
    })
}

/// The third input: none, a stored one, or (`None`) one that is computed.
fn bias(node: &NodeProto, stored: &Stored) -> Option<Option<usize>> {
    match node.input.get(2).map(String::as_str) {
        None | Some("") => Some(None),
        Some(name) => stored.floats(name).map(|(index, _)| Some(index)),
    }
}

/// Whether a `Clip` is between stored bounds that have zero between them, as every range has.
fn clip_holds_zero(node: &NodeProto, stored: &Stored) -> bool {
    let bound = |index: usize, absent: f32| match node.input.get(index).map(String::as_str) {
        None | Some("") => Some(absent),
        Some(name) => {
            let (_, tensor) = stored.floats(name)?;
            let bytes = data::raw_bytes(tensor, DType::F32);
            bytes.try_into().ok().map(f32::from_le_bytes)
        }
    };
    let (low, high) = (bound(1, f32::NEG_INFINITY), bound(2, f32::INFINITY));
    low.is_some_and(|low| low <= 0.0) && high.is_some_and(|high| high >= 0.0)
}

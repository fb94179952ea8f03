//! Floating-point operations of a node, for the shapes of the sample run: exact for what multiplies
//! matrices, one per output element for the rest; and of which class its work is.

use std::collections::HashMap;

use stormo_protocol::profile::WorkClass;
use stormo_protocol::tensor::{DType, TensorSpec};

use super::constants::value_of;
use super::data;
use super::links::Links;
use super::messages::{GraphProto, NodeProto, TensorProto};

/// Longest chain of copies and casts from a weight to where it is used.
const HOPS_MAX: usize = 8;
/// What a text counts as, which has a length of its own: about a word.
const TEXT_BYTES: u64 = 8;

/// Shapes of everything: measured ones, and those of stored tensors.
pub(super) struct Shapes<'a> {
    graph: &'a GraphProto,
    links: &'a Links,
    sizes: &'a HashMap<String, TensorSpec>,
    stored: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(
        graph: &'a GraphProto,
        links: &'a Links,
        sizes: &'a HashMap<String, TensorSpec>,
    ) -> Self {
        let stored = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        Self { graph, links, sizes, stored }
    }

    /// Shape of a tensor; that of a computed weight is looked up at what it is computed from.
    fn of(&self, name: &str) -> Option<Vec<u64>> {
        let mut name = name;
        for _ in 0..HOPS_MAX {
            if let Some(spec) = self.sizes.get(name) {
                return Some(spec.shape.clone());
            }
            if let Some(tensor) = self.stored.get(name) {
                return unsigned(&tensor.dims);
            }
            let node = &self.graph.node[self.links.maker[self.links.find(name)?]?];
            name = match node.op_type() {
                "Constant" => return unsigned(&value_of(node)?.dims),
                "ConstantOfShape" => {
                    return unsigned(&data::integers(self.stored.get(node.input.first()?.as_str())?)?);
                }
                "DequantizeLinear" | "QuantizeLinear" | "Identity" | "Cast" => node.input.first()?,
                _ => return None,
            };
        }
        None
    }

    /// Elements of a tensor, 0 when unknown.
    pub(super) fn elements(&self, name: &str) -> u64 {
        self.of(name).map_or(0, |shape| product(&shape))
    }

    /// Operations of one node: a multiply-add counts as two.
    pub(super) fn flops(&self, node: &NodeProto) -> u64 {
        let made = node.output.iter().filter(|name| !name.is_empty()).map(|name| self.elements(name));
        let elements = made.fold(0, u64::saturating_add);
        self.multiply_adds(node).map_or(elements, |count| count.saturating_mul(2))
    }

    /// What a node mostly does, and how much of it.
    pub(super) fn work(&self, node: &NodeProto) -> (WorkClass, u64) {
        let Some(class) = self.multiplies(node).filter(|_| self.multiply_adds(node).is_some()) else {
            let names = node.input.iter().chain(&node.output);
            let bytes = names.map(|name| self.elements(name).saturating_mul(self.element_bytes(name)));
            return (WorkClass::Memory, bytes.fold(0, u64::saturating_add));
        };
        (class, self.flops(node))
    }

    /// The class of a node that multiplies and adds.
    fn multiplies(&self, node: &NodeProto) -> Option<WorkClass> {
        let is_convolution = match node.op_type() {
            "QLinearConv" | "ConvInteger" | "QLinearMatMul" | "MatMulInteger" => {
                return Some(WorkClass::Integer);
            }
            "Conv" | "FusedConv" | "ConvTranspose" => true,
            "Gemm" | "MatMul" | "FusedMatMul" | "MatMulNBits" | "LSTM" | "GRU" | "RNN" => false,
            _ => return None,
        };
        // Between dequantised and quantised tensors ONNX Runtime computes with the integers.
        let reads = node.input.first().and_then(|name| self.links.find(name));
        let maker = reads.and_then(|tensor| self.links.maker[tensor]);
        if maker.is_some_and(|maker| self.graph.node[maker].op_type() == "DequantizeLinear") {
            return Some(WorkClass::Integer);
        }
        let channels_of_a_filter = || node.input.get(1).and_then(|name| self.of(name)?.get(1).copied());
        Some(match is_convolution {
            false => WorkClass::Matrix,
            true if has_groups(node) && channels_of_a_filter() == Some(1) => WorkClass::Depthwise,
            true => WorkClass::Convolution,
        })
    }

    fn element_bytes(&self, name: &str) -> u64 {
        let dtype = self.sizes.get(name).map_or(DType::F32, |spec| spec.dtype);
        dtype.bytes().unwrap_or(TEXT_BYTES)
    }

    fn multiply_adds(&self, node: &NodeProto) -> Option<u64> {
        let input = |position: usize| self.of(node.input.get(position)?);
        let made = || node.output.first().map(|name| self.elements(name));
        Some(match node.op_type() {
            "Conv" | "ConvInteger" | "FusedConv" => made()?.saturating_mul(product(input(1)?.get(1..)?)),
            "QLinearConv" => made()?.saturating_mul(product(input(3)?.get(1..)?)),
            "ConvTranspose" => product(&input(0)?).saturating_mul(product(input(1)?.get(1..)?)),
            "Gemm" => made()?.saturating_mul(*input(0)?.get(usize::from(!is_set(node, "transA")))?),
            "MatMul" | "MatMulInteger" | "QLinearMatMul" | "FusedMatMul" | "MatMulNBits" => {
                made()?.saturating_mul(*input(0)?.last()?)
            }
            "LSTM" | "GRU" | "RNN" => {
                let steps = product(input(0)?.get(..2)?);
                steps.saturating_mul(product(&input(1)?).saturating_add(product(&input(2)?)))
            }
            _ => return None,
        })
    }
}

fn unsigned(dims: &[i64]) -> Option<Vec<u64>> {
    dims.iter().map(|dim| u64::try_from(*dim).ok()).collect()
}

fn is_set(node: &NodeProto, name: &str) -> bool {
    node.attribute.iter().any(|attribute| attribute.name() == name && attribute.i() != 0)
}

fn has_groups(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name() == "group" && attribute.i() > 1)
}

fn product(shape: &[u64]) -> u64 {
    shape.iter().fold(1, |count, dim| count.saturating_mul(*dim))
}

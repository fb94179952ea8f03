//! A float model -> the same model on 8-bit integers: static, weights per channel, as pairs of
//! QuantizeLinear and DequantizeLinear. Pure: what its tensors hold is told by whoever runs it.

mod attributes;
mod choose;
mod error;
mod kinds;
mod observe;
mod opset;
mod range;
mod scales;
#[cfg(test)]
mod tests;
mod weights;
mod write;

use std::collections::{HashMap, HashSet};

use stormo_protocol::tensor::{DType, TensorSpec};

use self::choose::{Net, small_nodes};
use self::kinds::{Kind, Stored, kind_of};
use self::range::Range;
use self::scales::Scales;
use self::write::Written;
use super::flops::Shapes;
use super::graph::{Graph, encode, named};
use super::messages::ModelProto;
use super::scan::{bodies, node_name};

pub use self::error::QuantiseError;
pub use self::observe::Observed;
pub use self::range::RangeMethod;

/// A tensor whose values are to be observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What it is on the sample.
    pub spec: TensorSpec,
    /// Where its channels lie, if their means are wanted.
    pub channel_axis: Option<usize>,
}

/// A node that may compute on small integers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, or that of what it makes.
    pub name: String,
    /// What it does.
    pub op_type: String,
    /// Multiply-adds times two, for the sample.
    pub flops: u64,
    /// Whether its kind is known to be slower on small integers.
    pub slower: bool,
}

/// A model that can be made small in different ways.
pub struct Quantiser {
    graph: Graph,
    specs: HashMap<String, TensorSpec>,
    kinds: Vec<Kind>,
    /// The weighted nodes, in order of execution.
    weighted: Vec<usize>,
}

/// Raises a model to the opset that is needed; `specs` as in [`Quantiser::new`].
///
/// # Errors
/// When it is quantised already, or a node stands in the way.
pub fn raise_opset(graph: &Graph, specs: &HashMap<String, TensorSpec>) -> Result<Vec<u8>, QuantiseError> {
    let is_small =
        |op: &str| op.starts_with("QLinear") || matches!(op, "QuantizeLinear" | "DequantizeLinear");
    if let Some(node) = graph.model.graph.node.iter().find(|node| is_small(node.op_type())) {
        return Err(QuantiseError::AlreadyQuantised { node: node_name(node) });
    }
    let mut model = graph.model.clone();
    opset::raise(&mut model, |name| specs.get(name).map(|spec| spec.shape.len()))?;
    Ok(encode(&model)?)
}

impl Quantiser {
    /// Takes a model of opset 13 or later, and what its tensors are on a sample.
    ///
    /// # Errors
    /// When there is nothing in it to make small.
    pub fn new(graph: Graph, specs: HashMap<String, TensorSpec>) -> Result<Self, QuantiseError> {
        let stored = Stored::of(&graph);
        let mut kinds: Vec<Kind> = graph.model.graph.node.iter().map(|node| kind_of(node, &stored)).collect();
        let links = &graph.links;
        for (node, kind) in kinds.iter_mut().enumerate() {
            let computed =
                |tensor: &usize| links.constant[*tensor] && stored.floats(&links.names[*tensor]).is_none();
            if links.free[node] || (kind.follows() && links.reads[node].iter().any(computed)) {
                *kind = Kind::Float;
            }
        }
        let is_weighted = |node: &usize| matches!(kinds[*node], Kind::Weighted(_));
        let weighted: Vec<usize> = links.order.iter().copied().filter(is_weighted).collect();
        if weighted.is_empty() {
            let halves =
                graph.model.graph.initializer.iter().any(|tensor| tensor.data_type() == DType::F16 as i32);
            let hint = if halves { " (its weights are FP16: give the FP32 model)" } else { "" };
            return Err(QuantiseError::NothingToDo { hint: hint.to_owned() });
        }
        drop(stored);
        Ok(Self { graph, specs, kinds, weighted })
    }

    /// The nodes to choose from, in order of execution.
    pub fn candidates(&self) -> Vec<Candidate> {
        let proto = &self.graph.model.graph;
        let shapes = Shapes::new(proto, &self.graph.links, &self.specs);
        let candidate = |node: &usize| {
            let of = &proto.node[*node];
            let slower = matches!(&self.kinds[*node], Kind::Weighted(weighted) if weighted.slower);
            let name = if of.name().is_empty() { of.output[0].as_str() } else { of.name() };
            Candidate {
                name: name.to_owned(),
                op_type: of.op_type().to_owned(),
                flops: shapes.flops(of),
                slower,
            }
        };
        self.weighted.iter().map(candidate).collect()
    }

    /// Candidates that begin with one of these prefixes, by their own name or that of what they make.
    ///
    /// # Errors
    /// When a prefix fits nothing at all in the model.
    pub fn with_prefix(&self, prefixes: &[String]) -> Result<HashSet<usize>, QuantiseError> {
        let nodes = &self.graph.model.graph.node;
        let fits = |node: usize, prefix: &str| {
            nodes[node].name().starts_with(prefix)
                || nodes[node].output.iter().any(|name| name.starts_with(prefix))
        };
        for prefix in prefixes {
            if !(0..nodes.len()).any(|node| fits(node, prefix)) {
                return Err(QuantiseError::NoSuchPrefix { prefix: prefix.clone() });
            }
        }
        let kept = |index: &usize| prefixes.iter().any(|prefix| fits(self.weighted[*index], prefix));
        Ok((0..self.weighted.len()).filter(kept).collect())
    }

    /// The tensors to observe.
    pub fn watched(&self) -> Vec<Watched> {
        let links = &self.graph.links;
        let mut axes: HashMap<usize, Option<usize>> = HashMap::new();
        for (node, kind) in self.kinds.iter().enumerate().filter(|(_, kind)| **kind != Kind::Float) {
            for tensor in links.reads[node].iter().chain(&links.writes[node]) {
                axes.entry(*tensor).or_default();
            }
            if let (Kind::Weighted(weighted), Some(input)) = (kind, links.reads[node].first()) {
                axes.insert(*input, weighted.input_axis);
            }
        }
        let watched = |(tensor, channel_axis): (usize, Option<usize>)| {
            Some(Watched { spec: self.activation(tensor)?.clone(), channel_axis })
        };
        let mut axes: Vec<_> = axes.into_iter().collect();
        axes.sort_unstable();
        axes.into_iter().filter_map(watched).collect()
    }

    /// An FP32 tensor that depends on the inputs.
    fn activation(&self, tensor: usize) -> Option<&TensorSpec> {
        let links = &self.graph.links;
        let spec = self.specs.get(&links.names[tensor])?;
        (spec.dtype == DType::F32 && !links.constant[tensor]).then_some(spec)
    }

    /// The model with these tensors as its outputs.
    ///
    /// # Errors
    /// When it no longer fits one protobuf file.
    pub fn watching_model(&self, watched: &[Watched]) -> Result<Vec<u8>, QuantiseError> {
        let mut model = self.graph.model.clone();
        let given: HashSet<&str> = self.graph.inputs().iter().map(|input| input.name.as_str()).collect();
        let made = watched.iter().map(|watched| watched.spec.name.as_str());
        model.graph.mut_or_insert_default().output =
            made.filter(|name| !given.contains(name)).map(named).collect();
        Ok(encode(&model)?)
    }

    /// The model made small, but for the candidates whose numbers are in `floats`.
    ///
    /// # Errors
    /// When a tensor was never observed, or nothing is left to make small.
    pub fn quantise(
        &self,
        observed: &HashMap<String, Observed>,
        method: RangeMethod,
        floats: &HashSet<usize>,
    ) -> Result<Vec<u8>, QuantiseError> {
        let links = &self.graph.links;
        let is_activation = (0..links.names.len()).map(|tensor| self.activation(tensor).is_some()).collect();
        let net = Net::new(links, &self.kinds, is_activation);
        let kept: HashSet<usize> =
            floats.iter().filter_map(|index| self.weighted.get(*index).copied()).collect();
        let small = small_nodes(&net, |node| !kept.contains(&node));
        if !small.iter().any(|small| *small) {
            return Err(QuantiseError::NothingToDo { hint: " outside what stays in floats".to_owned() });
        }
        let seen = |tensor: usize| observed.get(&links.names[tensor]);
        let mut ranges = HashMap::new();
        for node in (0..small.len()).filter(|node| small[*node]) {
            for tensor in net.data_inputs(node).chain(net.made(node).iter().copied()) {
                let unseen = || QuantiseError::Unseen { tensor: links.names[tensor].clone() };
                let histogram = &seen(tensor).ok_or_else(unseen)?.histogram;
                ranges.entry(tensor).or_insert_with(|| Range::of(histogram, method));
            }
        }
        let scales = Scales::choose(&net, &small, ranges);
        let means = |tensor: usize| seen(tensor).map_or_else(Vec::new, Observed::means);
        let proto = &self.graph.model.graph;
        let written = Written { graph: proto, net: &net, small: &small, scales: &scales, means: &means };
        let graph = written.write();
        let mut model = self.graph.model.clone();
        model.graph = protobuf::MessageField::some(graph);
        keep_used_domains(&mut model);
        Ok(encode(&model)?)
    }
}

/// ONNX Runtime lists every domain it knows in a model that it has written; those that no node uses go.
fn keep_used_domains(model: &mut ModelProto) {
    fn collect<'a>(graph: &'a super::messages::GraphProto, into: &mut HashSet<&'a str>) {
        for node in &graph.node {
            into.insert(node.domain());
            bodies(node).for_each(|body| collect(body, into));
        }
    }
    let mut used = HashSet::from(["", "ai.onnx"]);
    collect(&model.graph, &mut used);
    used.extend(model.functions.iter().flat_map(|function| &function.node).map(|node| node.domain()));
    let used: HashSet<String> = used.into_iter().map(str::to_owned).collect();
    model.opset_import.retain(|import| used.contains(import.domain()));
}

//! The small graph: weights replaced, pairs of QuantizeLinear and DequantizeLinear put where ONNX
//! Runtime fuses them with the node between into one on small integers. Numbers are made elsewhere.

use std::collections::{HashMap, HashSet};

use protobuf::Enum;
use stormo_protocol::limits::TENSOR_NAME_BYTES_MAX;
use stormo_protocol::tensor::DType;

use super::super::data;
use super::super::links::reads_of;
use super::super::messages::tensor_proto::DataType;
use super::super::messages::{GraphProto, NodeProto, TensorProto};
use super::attributes::{set_integer, take};
use super::choose::Net;
use super::kinds::{Kind, Weighted};
use super::range::{Range, Steps};
use super::scales::Scales;
use super::weights::{SmallWeights, make_small};

/// What a graph is written from.
pub(super) struct Written<'a> {
    pub graph: &'a GraphProto,
    pub net: &'a Net<'a>,
    pub small: &'a [bool],
    pub scales: &'a Scales,
    /// Means of a tensor's channels, where they are known.
    pub means: &'a dyn Fn(usize) -> Vec<f64>,
}

/// Nodes and stored tensors of the new graph while they come together.
struct Draft<'a> {
    from: &'a Written<'a>,
    nodes: Vec<NodeProto>,
    stored: Vec<TensorProto>,
    names: HashSet<String>,
    /// Group of scales -> names of the stored scale and zero point.
    scale_names: HashMap<usize, (String, String)>,
    /// Tensor -> its name after the way through small integers.
    dequantised: HashMap<usize, String>,
    /// Tensors that a small node makes: everyone reads what is left of them.
    made_small: HashSet<usize>,
}

impl Written<'_> {
    /// Whether a small node makes small integers, not floats at once.
    pub(super) fn rounds(&self, node: usize) -> bool {
        let is_read_small =
            |tensor: &usize| self.net.readers[*tensor].iter().any(|reader| self.small[*reader]);
        match &self.net.kinds[node] {
            Kind::Weighted(weighted) if weighted.floats_out => self.net.made(node).iter().any(is_read_small),
            _ => true,
        }
    }

    /// The graph on small integers.
    pub(super) fn write(&self) -> GraphProto {
        let links = self.net.links;
        let names = links.names.iter().cloned().collect();
        let mut draft = Draft {
            from: self,
            nodes: Vec::new(),
            stored: self.graph.initializer.clone(),
            names,
            scale_names: HashMap::new(),
            dequantised: HashMap::new(),
            made_small: HashSet::new(),
        };
        for input in &links.inputs {
            draft.dequantise_for_readers(*input);
        }
        let clamps = |node: usize| self.small[node].then(|| self.net.clamp[node]).flatten();
        let folded: HashSet<usize> = (0..self.small.len()).filter_map(clamps).collect();
        for node in links.order.iter().copied().filter(|node| !folded.contains(node)) {
            if self.small[node] {
                draft.small_node(node);
            } else {
                draft.float_node(node);
            }
        }
        let Draft { nodes, mut stored, .. } = draft;
        let mut graph = self.graph.clone();
        let outputs = graph.output.iter().map(|info| info.name());
        let read: HashSet<&str> = nodes.iter().flat_map(reads_of).chain(outputs).collect();
        stored.retain(|tensor| read.contains(tensor.name()));
        graph.initializer = stored;
        graph.node = nodes;
        // Shapes noted in the file speak of tensors that are gone, and hold nothing that is needed.
        graph.value_info.clear();
        graph
    }
}

impl Draft<'_> {
    /// A node that stays as it is, reading what small nodes made.
    fn float_node(&mut self, node: usize) {
        let mut proto = self.from.graph.node[node].clone();
        let links = self.from.net.links;
        for input in &mut proto.input {
            let made_small = links.find(input).filter(|tensor| self.made_small.contains(tensor));
            if let Some(name) = made_small.and_then(|tensor| self.dequantised.get(&tensor)) {
                input.clone_from(name);
            }
        }
        self.nodes.push(proto);
        for made in &links.writes[node] {
            self.dequantise_for_readers(*made);
        }
    }

    fn small_node(&mut self, node: usize) {
        let (from, links) = (self.from, self.from.net.links);
        let mut proto = from.graph.node[node].clone();
        if let Kind::Weighted(weighted) = &from.net.kinds[node] {
            self.give_small_weights(&mut proto, node, weighted);
        } else {
            for input in &mut proto.input {
                let Some(tensor) = links.find(input) else { continue };
                if let Some(name) = self.small_input(node, tensor) {
                    *input = name;
                }
            }
        }
        if !from.rounds(node) {
            self.nodes.push(proto);
            // No range does its work.
            self.nodes.extend(from.net.clamp[node].map(|clamp| from.graph.node[clamp].clone()));
            return;
        }
        let made = from.net.made(node).to_vec();
        // A folded Relu or Clip: the node writes what that would have written.
        for (output, tensor) in proto.output.iter_mut().zip(&made) {
            output.clone_from(&links.names[*tensor]);
        }
        let is_output = |tensor: &usize| links.outputs.contains(tensor);
        for (output, tensor) in proto.output.iter_mut().zip(&made).filter(|(_, tensor)| is_output(tensor)) {
            *output = self.fresh(&links.names[*tensor], "float");
        }
        let floats = proto.output.clone();
        self.nodes.push(proto);
        for (tensor, float) in made.into_iter().zip(floats) {
            let name = links.names[tensor].clone();
            let to = if is_output(&tensor) { name } else { self.fresh(&name, "dequantised") };
            self.made_small.insert(tensor);
            self.through_small(tensor, &float, to);
        }
    }

    /// What a small node reads in the place of a tensor; `None` for shapes, indices and the like.
    fn small_input(&mut self, node: usize, tensor: usize) -> Option<String> {
        let net = self.from.net;
        if net.data_inputs(node).any(|input| input == tensor) {
            return self.dequantised.get(&tensor).cloned();
        }
        let is_operand = net.kinds[node].follows() && net.links.constant[tensor];
        is_operand.then(|| self.small_constant(tensor)).flatten()
    }

    /// A tensor made by a float node or given as input, for the small nodes that read it.
    fn dequantise_for_readers(&mut self, tensor: usize) {
        let net = self.from.net;
        let reads =
            |node: &usize| self.from.small[*node] && net.data_inputs(*node).any(|input| input == tensor);
        if net.readers[tensor].iter().any(reads) {
            let name = net.links.names[tensor].clone();
            let to = self.fresh(&name, "dequantised");
            self.through_small(tensor, &name, to);
        }
    }

    /// Floats -> small integers -> floats named `to`.
    fn through_small(&mut self, tensor: usize, float: &str, to: String) {
        let links = self.from.net.links;
        let Some(steps) = self.from.scales.steps(tensor) else { return };
        let (scale, zero) = self.steps_of_group(self.from.scales.group(tensor), steps);
        let small = self.fresh(&links.names[tensor], "int8");
        self.nodes.push(node("QuantizeLinear", [float.to_owned(), scale.clone(), zero.clone()], &small));
        self.nodes.push(node("DequantizeLinear", [small, scale, zero], &to));
        self.dequantised.insert(tensor, to);
    }

    fn steps_of_group(&mut self, group: usize, steps: Steps) -> (String, String) {
        if let Some(names) = self.scale_names.get(&group) {
            return names.clone();
        }
        let base = self.from.net.links.names[group].clone();
        let scale = self.store(&base, "scale", DType::F32, &[], steps.scale.to_le_bytes().to_vec());
        let zero = self.store(&base, "zero", DType::U8, &[], vec![steps.zero]);
        self.scale_names.insert(group, (scale.clone(), zero.clone()));
        (scale, zero)
    }

    /// A stored operand of an `Add` or `Mul`.
    fn small_constant(&mut self, tensor: usize) -> Option<String> {
        let name = &self.from.net.links.names[tensor];
        let stored = self.from.graph.initializer.iter().find(|stored| stored.name() == name)?;
        let values = floats(stored);
        let ends = values.iter().fold((0f32, 0f32), |(low, high), value| (low.min(*value), high.max(*value)));
        let steps = Range::new(ends.0, ends.1).steps();
        let small = values.iter().map(|value| steps.quantise(*value)).collect();
        let base = name.clone();
        let small = self.store(&base, "int8", DType::U8, &stored.dims, small);
        let scale = self.store(&base, "scale", DType::F32, &[], steps.scale.to_le_bytes().to_vec());
        let zero = self.store(&base, "zero", DType::U8, &[], vec![steps.zero]);
        let to = self.fresh(&base, "dequantised");
        self.nodes.push(node("DequantizeLinear", [small, scale, zero], &to));
        Some(to)
    }

    fn give_small_weights(&mut self, proto: &mut NodeProto, index: usize, weighted: &Weighted) {
        let from = self.from;
        let Some(input) = from.net.data_inputs(index).next() else { return };
        let Some(steps) = from.scales.steps(input) else { return };
        let stored = &from.graph.initializer[weighted.weights];
        let dims: Vec<usize> = stored.dims.iter().map(|dim| *dim as usize).collect();
        let bias = weighted.bias.map_or_else(Vec::new, |bias| floats(&from.graph.initializer[bias]));
        let means = (from.means)(input);
        let made = make_small(weighted, &dims, &floats(stored), &bias, steps.scale, &means);
        if let Some(name) = self.dequantised.get(&input) {
            proto.input[0].clone_from(name);
        }
        let SmallWeights { weights, scales, bias } = made;
        let name = stored.name().to_owned();
        let small = weights.iter().map(|weight| *weight as u8).collect();
        proto.input[1] = self.dequantised_per_channel(
            &name,
            (DType::I8, &stored.dims, small),
            &scales,
            weighted.output_axis,
        );
        proto.input.truncate(2);
        if let Some(bias) = bias {
            let name = weighted.bias.map_or(name, |bias| from.graph.initializer[bias].name().to_owned());
            let bytes = bias.iter().flat_map(|value| value.to_le_bytes()).collect();
            let scales: Vec<f32> = scales.iter().map(|scale| scale * steps.scale).collect();
            let dims = [bias.len() as i64];
            let bias =
                self.dequantised_per_channel(&format!("{name}/bias"), (DType::I32, &dims, bytes), &scales, 0);
            proto.input.push(bias);
        }
        // They are in the numbers now.
        take(proto, "alpha");
        take(proto, "beta");
    }

    fn dequantised_per_channel(
        &mut self,
        base: &str,
        (dtype, dims, bytes): (DType, &[i64], Vec<u8>),
        scales: &[f32],
        axis: usize,
    ) -> String {
        let channels = [scales.len() as i64];
        let zeros = vec![0; scales.len() * dtype.bytes().unwrap_or(1) as usize];
        let small = self.store(base, "int8", dtype, dims, bytes);
        let scale_bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let scale = self.store(base, "scale", DType::F32, &channels, scale_bytes);
        let zero = self.store(base, "zero", dtype, &channels, zeros);
        let to = self.fresh(base, "dequantised");
        let mut made = node("DequantizeLinear", [small, scale, zero], &to);
        set_integer(&mut made, "axis", axis as i64);
        self.nodes.push(made);
        to
    }

    fn store(&mut self, base: &str, suffix: &str, dtype: DType, dims: &[i64], bytes: Vec<u8>) -> String {
        let name = self.fresh(base, suffix);
        let mut tensor = TensorProto { dims: dims.to_vec(), ..TensorProto::default() };
        tensor.set_name(name.clone());
        tensor.set_data_type(DataType::from_i32(dtype as i32).unwrap_or(DataType::UNDEFINED).value());
        tensor.set_raw_data(bytes);
        self.stored.push(tensor);
        name
    }

    /// A name that nothing else has.
    fn fresh(&mut self, base: &str, suffix: &str) -> String {
        let short = base.len() + suffix.len() + 16 <= TENSOR_NAME_BYTES_MAX;
        let base = if short { base } else { "stormo/quantised" };
        let plain = std::iter::once(format!("{base}/{suffix}"));
        let mut candidates = plain.chain((2..).map(|number: u32| format!("{base}/{suffix}/{number}")));
        let name = candidates.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    let bytes = data::raw_bytes(tensor, DType::F32);
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn node(op_type: &str, input: [String; 3], output: &str) -> NodeProto {
    let mut node =
        NodeProto { input: input.to_vec(), output: vec![output.to_owned()], ..NodeProto::default() };
    node.set_op_type(op_type.to_owned());
    node.set_name(output.to_owned());
    node
}

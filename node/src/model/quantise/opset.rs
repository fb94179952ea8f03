//! Raises a model to opset 13, the first with scales per channel, where every node means the same there
//! once some attributes have become inputs.

use stormo_protocol::tensor::DType;

use super::super::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use super::super::scan::{bodies, node_name};
use super::attributes::{integer, set_integer, set_text, take};
use super::error::QuantiseError;

/// The first opset with `axis` in `DequantizeLinear`.
pub(super) const OPSET_MIN: i64 = 13;
/// The first one whose operators broadcast as later ones do.
const OPSET_OLDEST: i64 = 7;
/// The first IR version that may go with it.
const IR_VERSION_MIN: i64 = 7;

/// Operators that have meant the same from opset 7 (or since they came) to 13.
const UNCHANGED: &str = "
    Abs Acos Add And ArgMax ArgMin Asin Atan Atanh AveragePool Cast Ceil Concat Constant ConstantOfShape
    Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Elu Equal Erf Exp Expand EyeLike Flatten Floor
    GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    HardSigmoid Identity InstanceNormalization IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log
    LpNormalization MatMul Max MaxPool Mean Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
    PRelu Pow RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Selu Shape Sigmoid
    Sign Sin Sinh Size Softplus Softsign SpaceToDepth Sqrt Sub Sum Tan Tanh Tile Transpose Where
";

/// The opset of ONNX's own operators.
pub(super) fn opset_of(model: &ModelProto) -> i64 {
    let own = model.opset_import.iter().find(|import| matches!(import.domain(), "" | "ai.onnx"));
    own.map_or(0, |import| import.version())
}

/// Raises the model, if it needs that. `rank` tells how many dimensions a tensor has, if known.
///
/// # Errors
/// The first node that stands in the way.
pub(super) fn raise(
    model: &mut ModelProto,
    rank: impl Fn(&str) -> Option<usize>,
) -> Result<(), QuantiseError> {
    let opset = opset_of(model);
    if opset >= OPSET_MIN {
        return Ok(());
    }
    let graph = model.graph.mut_or_insert_default();
    let mut raising = Raising { opset, added: Vec::new(), fresh: 0 };
    let mut nodes = std::mem::take(&mut graph.node);
    for node in &mut nodes {
        let why = raising.node(node, &rank);
        why.map_err(|why| QuantiseError::Opset { opset, node: node_name(node), why })?;
    }
    graph.node = nodes;
    raising.keep_names_apart(graph);
    graph.initializer.append(&mut raising.added);
    for import in model.opset_import.iter_mut().filter(|import| matches!(import.domain(), "" | "ai.onnx")) {
        import.set_version(OPSET_MIN);
    }
    model.set_ir_version(model.ir_version().max(IR_VERSION_MIN));
    Ok(())
}

struct Raising {
    opset: i64,
    /// Stored tensors that stand for what were attributes.
    added: Vec<TensorProto>,
    fresh: usize,
}

/// How names of added tensors begin.
const ADDED: &str = "stormo/attribute";

impl Raising {
    fn node(
        &mut self,
        node: &mut NodeProto,
        rank: &impl Fn(&str) -> Option<usize>,
    ) -> Result<(), &'static str> {
        if !matches!(node.domain(), "" | "ai.onnx") {
            return Ok(());
        }
        if self.opset < OPSET_OLDEST {
            return Err("operators broadcast otherwise before opset 7");
        }
        if bodies(node).next().is_some() {
            return Err("it has graphs inside");
        }
        match node.op_type() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" => self.integers_to_input(node, "axes", 1),
            "Split" => self.integers_to_input(node, "split", 1),
            "Softmax" | "LogSoftmax" | "Hardmax" => return softmax(node, rank),
            "Clip" if self.opset < 11 => {
                for (index, name, absent) in [(1, "min", f32::MIN), (2, "max", f32::MAX)] {
                    let value = take(node, name).map_or(absent, |attribute| attribute.f());
                    self.put(node, index, DType::F32, &[], value.to_le_bytes().to_vec());
                }
            }
            "Dropout" => return dropout(node),
            "Slice" if self.opset < 10 => {
                for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
                    self.integers_to_input(node, name, index);
                }
            }
            "Pad" if self.opset < 11 => {
                self.integers_to_input(node, "pads", 1);
                let value = take(node, "value").map_or(0.0, |attribute| attribute.f());
                self.put(node, 2, DType::F32, &[], value.to_le_bytes().to_vec());
            }
            "BatchNormalization" => {
                if take(node, "spatial").is_some_and(|attribute| attribute.i() == 0) {
                    return Err("it is not spatial");
                }
            }
            "Upsample" => self.upsample(node),
            "TopK" if self.opset < 10 => {
                let count = take(node, "k").map_or(0, |attribute| attribute.i());
                self.put(node, 1, DType::I64, &[1], count.to_le_bytes().to_vec());
            }
            "Resize" if self.opset < 11 => return Err("Resize samples otherwise before opset 11"),
            "TopK" | "Slice" | "Clip" | "Pad" | "Resize" | "Einsum" | "Celu" | "ReverseSequence" => {}
            other if UNCHANGED.split_ascii_whitespace().any(|known| known == other) => {}
            _ => return Err("the operator is not known to mean the same"),
        }
        Ok(())
    }

    /// An attribute of integers becomes the input at this place.
    fn integers_to_input(&mut self, node: &mut NodeProto, attribute: &str, index: usize) {
        if let Some(AttributeProto { ints, .. }) = take(node, attribute) {
            let bytes = ints.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.put(node, index, DType::I64, &[ints.len() as i64], bytes);
        }
    }

    fn put(&mut self, node: &mut NodeProto, index: usize, dtype: DType, dims: &[i64], bytes: Vec<u8>) {
        let mut tensor = TensorProto { dims: dims.to_vec(), ..TensorProto::default() };
        tensor.set_name(format!("{ADDED}/{}", self.fresh));
        tensor.set_data_type(dtype as i32);
        tensor.set_raw_data(bytes);
        self.fresh += 1;
        node.input.resize(node.input.len().max(index + 1), String::new());
        node.input[index] = tensor.name().to_owned();
        self.added.push(tensor);
    }

    /// `Upsample` is a `Resize` that takes the pixel to the upper left.
    fn upsample(&mut self, node: &mut NodeProto) {
        node.set_op_type("Resize".to_owned());
        set_text(node, "coordinate_transformation_mode", "asymmetric");
        set_text(node, "nearest_mode", "floor");
        if let Some(AttributeProto { floats, .. }) = take(node, "scales") {
            let bytes = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.put(node, 2, DType::F32, &[floats.len() as i64], bytes);
        } else if node.input.len() == 2 {
            node.input.insert(1, String::new());
        }
    }

    /// Renames what was added where the model has a tensor of that name already.
    fn keep_names_apart(&mut self, graph: &mut GraphProto) {
        let taken = |name: &str| {
            let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
            let given = graph.initializer.iter().map(|tensor| tensor.name());
            made.chain(given)
                .chain(graph.input.iter().map(|info| info.name()))
                .any(|other| other.starts_with(name))
        };
        let mut prefix = ADDED.to_owned();
        while taken(&prefix) {
            prefix.push('\'');
        }
        if prefix == ADDED {
            return;
        }
        let renamed = |name: &str| name.strip_prefix(ADDED).map(|rest| format!("{prefix}{rest}"));
        let added: Vec<String> = self.added.iter().map(|tensor| tensor.name().to_owned()).collect();
        let inputs = graph.node.iter_mut().flat_map(|node| &mut node.input);
        for input in inputs.filter(|input| added.contains(input)) {
            *input = renamed(input).unwrap_or_default();
        }
        for tensor in &mut self.added {
            let name = renamed(tensor.name()).unwrap_or_default();
            tensor.set_name(name);
        }
    }
}

/// Before opset 13 everything from the axis on was one row; now only the axis is.
fn softmax(node: &mut NodeProto, rank: &impl Fn(&str) -> Option<usize>) -> Result<(), &'static str> {
    let rank =
        node.input.first().and_then(|name| rank(name)).ok_or("the rank of its input is not known")? as i64;
    let axis = integer(node, "axis", 1);
    let axis = if axis < 0 { axis + rank } else { axis };
    if axis != rank - 1 {
        return Err("it normalises several axes together");
    }
    set_integer(node, "axis", axis);
    Ok(())
}

/// Does nothing outside training.
fn dropout(node: &mut NodeProto) -> Result<(), &'static str> {
    if node.output.get(1).is_some_and(|mask| !mask.is_empty()) {
        return Err("its mask is asked for");
    }
    node.set_op_type("Identity".to_owned());
    node.attribute.clear();
    node.input.truncate(1);
    node.output.truncate(1);
    Ok(())
}

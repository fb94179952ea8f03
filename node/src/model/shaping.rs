//! Which operators make outputs whose shapes follow from the shapes of their inputs, and which values they
//! look at besides (ONNX operator documentation). What is not listed here may look at everything.

use std::collections::HashMap;

use super::messages::{FunctionProto, NodeProto};
use super::scan::bodies;

/// Functions call functions; deeper is not looked.
const DEPTH_MAX: usize = 8;

/// What decides the shapes of a node's outputs, besides the shapes of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShapedBy {
    /// The values of the inputs at these positions; often of none.
    Operands(&'static [usize]),
    /// The same, and which branch is taken.
    Branch,
    /// Values of any input.
    Anything,
}

/// Functions of a model, by name. Domains are not told apart: a name that is used twice is looked at as if
/// either were meant.
pub(super) struct Functions<'a>(HashMap<&'a str, Vec<&'a FunctionProto>>);

impl<'a> Functions<'a> {
    pub(super) fn of(functions: &'a [FunctionProto]) -> Self {
        let mut named: HashMap<&str, Vec<&FunctionProto>> = HashMap::new();
        for function in functions {
            named.entry(function.name()).or_default().push(function);
        }
        Self(named)
    }

    /// What decides the shapes of what a node makes.
    pub(super) fn shaped_by(&self, node: &NodeProto) -> ShapedBy {
        self.shaped_by_at(node, DEPTH_MAX)
    }

    fn shaped_by_at(&self, node: &NodeProto, depth: usize) -> ShapedBy {
        if let Some(functions) = self.0.get(node.op_type()) {
            let bodies = functions.iter().map(|function| function.node.as_slice());
            let is_tame = depth > 0 && bodies.into_iter().all(|body| self.is_tame(body, depth - 1));
            return if is_tame { ShapedBy::Operands(&[]) } else { ShapedBy::Anything };
        }
        let has_tame_bodies = || depth > 0 && bodies(node).all(|body| self.is_tame(&body.node, depth - 1));
        match (node.domain(), node.op_type()) {
            ("" | "ai.onnx", "If") if has_tame_bodies() => ShapedBy::Branch,
            ("" | "ai.onnx", "Scan") if has_tame_bodies() => ShapedBy::Operands(&[]),
            _ if bodies(node).next().is_some() || leaves_words_out(node) => ShapedBy::Anything,
            ("" | "ai.onnx", op_type) => of_onnx(op_type),
            (domain, op_type) if is_plain(domain, op_type) => ShapedBy::Operands(&[]),
            _ => ShapedBy::Anything,
        }
    }

    /// Whether no value decides a shape in these nodes, but constants of their own.
    fn is_tame(&self, nodes: &[NodeProto], depth: usize) -> bool {
        let is_constant = |name: &String| {
            let made = |node: &&NodeProto| node.op_type() == "Constant" && node.output.contains(name);
            name.is_empty() || nodes.iter().find(made).is_some()
        };
        nodes.iter().all(|node| match self.shaped_by_at(node, depth) {
            ShapedBy::Operands(positions) => {
                positions.iter().all(|position| node.input.get(*position).is_none_or(is_constant))
            }
            ShapedBy::Branch | ShapedBy::Anything => false,
        })
    }
}

/// Whether it gives only those of its texts that are not among the words it is told to leave out.
fn leaves_words_out(node: &NodeProto) -> bool {
    let stopwords = node.attribute.iter().find(|attribute| attribute.name() == "stopwords");
    node.op_type() == "StringNormalizer" && stopwords.is_some_and(|words| !words.strings.is_empty())
}

fn of_onnx(op_type: &str) -> ShapedBy {
    let positions: &[usize] = match op_type {
        "AffineGrid" | "CenterCropPad" | "Expand" | "OneHot" | "Reshape" | "Split" | "Squeeze" | "TopK"
        | "Unsqueeze" | "Upsample" => &[1],
        "BlackmanWindow" | "ConstantOfShape" | "HammingWindow" | "HannWindow" => &[0],
        "Col2Im" | "DFT" | "Tile" => &[1, 2],
        "MaxUnpool" => &[2],
        "MelWeightMatrix" => &[0, 1],
        "Pad" | "STFT" => &[1, 3],
        "Range" => &[0, 1, 2],
        "Resize" => &[1, 2, 3],
        "Slice" => &[1, 2, 3, 4],
        op_type if op_type.starts_with("Reduce") => &[1],
        op_type if PLAIN.contains(&op_type) => &[],
        _ => return ShapedBy::Anything,
    };
    ShapedBy::Operands(positions)
}

/// Operators of ONNX itself that look at shapes and attributes only.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNormalization", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace", "DequantizeLinear", "Det", "Div", "Dropout",
    "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "EyeLike", "Flatten", "Floor", "GRU", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "MaxRoiPool", "Mean",
    "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Multinomial", "Neg", "NegativeLogLikelihoodLoss", "Not",
    "Or", "PRelu", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "RandomNormal",
    "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Reciprocal", "RegexFullMatch", "Relu", "ReverseSequence",
    "RoiAlign", "RotaryEmbedding", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Softmax", "SoftmaxCrossEntropyLoss", "Softplus", "Softsign",
    "SpaceToDepth", "Sqrt", "StringConcat", "StringNormalizer", "Sub", "Sum", "Swish", "Tan", "Tanh", "TensorScatter",
    "TfIdfVectorizer", "ThresholdedRelu", "Transpose", "Trilu", "Where", "Xor",
];

/// The same for operators beside ONNX's own: of classical learning, and of ONNX Runtime.
#[rustfmt::skip]
fn is_plain(domain: &str, op_type: &str) -> bool {
    match domain {
        "ai.onnx.ml" => matches!(
            op_type,
            "ArrayFeatureExtractor" | "Binarizer" | "CategoryMapper" | "FeatureVectorizer" | "Imputer" | "LabelEncoder"
                | "LinearClassifier" | "LinearRegressor" | "Normalizer" | "OneHotEncoder" | "SVMClassifier"
                | "SVMRegressor" | "Scaler" | "TreeEnsemble" | "TreeEnsembleClassifier" | "TreeEnsembleRegressor"
        ),
        "com.microsoft" => matches!(
            op_type,
            "Attention" | "BiasAdd" | "BiasGelu" | "BiasSoftmax" | "BiasSplitGelu" | "DequantizeLinear"
                | "DynamicQuantizeLSTM" | "DynamicQuantizeMatMul" | "EmbedLayerNormalization" | "FastGelu" | "FusedConv"
                | "FusedGemm" | "FusedMatMul" | "FusedMatMulActivation" | "Gelu" | "GroupNorm" | "GroupQueryAttention"
                | "Inverse" | "MatMulInteger16" | "MatMulIntegerToFloat" | "MatMulNBits" | "MultiHeadAttention"
                | "NhwcConv" | "NhwcFusedConv" | "NhwcMaxPool" | "QAttention" | "QGemm" | "QLinearAdd"
                | "QLinearAveragePool" | "QLinearConcat" | "QLinearConv" | "QLinearGlobalAveragePool" | "QLinearLeakyRelu"
                | "QLinearMul" | "QLinearReduceMean" | "QLinearSigmoid" | "QLinearSoftmax" | "QLinearWhere"
                | "QOrderedMatMul" | "QuantizeLinear" | "QuickGelu" | "RotaryEmbedding" | "SimplifiedLayerNormalization"
                | "SkipGroupNorm" | "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization"
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::messages::attribute_proto::AttributeType;
    use crate::model::messages::{AttributeProto, GraphProto};
    use crate::model::testing::node;
    use protobuf::MessageField;

    fn with_body(op_type: &str, inner: NodeProto) -> NodeProto {
        let mut outer = node(op_type, &["c"], &["y"]);
        let body = GraphProto { node: vec![inner], ..GraphProto::default() };
        let mut attribute = AttributeProto { g: MessageField::some(body), ..AttributeProto::default() };
        attribute.set_name("then_branch".into());
        attribute.set_type(AttributeType::GRAPH);
        outer.attribute.push(attribute);
        outer
    }

    #[test]
    fn what_is_not_known_may_look_at_everything() {
        let functions = Functions::of(&[]);
        let of = |op_type: &str, domain: &str| {
            let mut node = node(op_type, &["x"], &["y"]);
            node.set_domain(domain.into());
            functions.shaped_by(&node)
        };
        assert_eq!(of("Relu", ""), ShapedBy::Operands(&[]));
        assert_eq!(of("HannWindow", "ai.onnx"), ShapedBy::Operands(&[0]));
        assert_eq!(of("ReduceSum", ""), ShapedBy::Operands(&[1]));
        assert_eq!(of("FusedConv", "com.microsoft"), ShapedBy::Operands(&[]));
        for (op_type, domain) in [("NonZero", ""), ("Relu", "mine"), ("Unheard", ""), ("Loop", "")] {
            assert_eq!(of(op_type, domain), ShapedBy::Anything, "{domain} {op_type}");
        }
    }

    #[test]
    fn bodies_and_functions_are_looked_into() {
        let function = |name: &str, inner: NodeProto| {
            let mut function = FunctionProto { node: vec![inner], ..FunctionProto::default() };
            function.set_name(name.into());
            function
        };
        let all = [
            function("Tame", node("Relu", &["x"], &["y"])),
            function("Wild", node("NonZero", &["x"], &["y"])),
            function("Calls", node("Wild", &["x"], &["y"])),
            function("Again", node("Again", &["x"], &["y"])),
            function("Relu", node("NonZero", &["x"], &["y"])),
        ];
        let functions = Functions::of(&all);
        let of = |op_type: &str| functions.shaped_by(&node(op_type, &["x"], &["y"]));
        assert_eq!(of("Tame"), ShapedBy::Anything, "a function of the model stands for `Relu`");
        assert_eq!(Functions::of(&all[..1]).shaped_by(&node("Tame", &[], &[])), ShapedBy::Operands(&[]));
        for name in ["Wild", "Calls", "Again", "Relu"] {
            assert_eq!(of(name), ShapedBy::Anything, "{name}");
        }
        let none = Functions::of(&[]);
        assert_eq!(none.shaped_by(&with_body("If", node("Exp", &["x"], &["y"]))), ShapedBy::Branch);
        assert_eq!(none.shaped_by(&with_body("If", node("NonZero", &["x"], &["y"]))), ShapedBy::Anything);
        let reshape = node("Reshape", &["x", "given"], &["y"]);
        assert_eq!(none.shaped_by(&with_body("Scan", reshape)), ShapedBy::Anything);
    }
}

//! Small ONNX files written field by field, sound or not. Numbers are those of ONNX's `onnx.proto`.

/// The first opset in which texts are put together.
const OPSET: u64 = 20;

/// A message: fields one after the other.
pub type Message = Vec<u8>;

/// 32-bit floats.
pub const FLOAT: u64 = 1;
const INT64: u64 = 7;
const BOOL: u64 = 9;
/// Texts.
pub const STRING: u64 = 8;
/// 64-bit complex numbers.
pub const COMPLEX: u64 = 14;
/// 8-bit floats (E4M3FN).
pub const FLOAT8: u64 = 17;
const INT_ATTRIBUTE: u64 = 2;
const GRAPH_ATTRIBUTE: u64 = 5;
const EXTERNAL: u64 = 1;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Message {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Message {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn text(field: u64, value: &str) -> Message {
    bytes(field, value.as_bytes())
}

fn texts(field: u64, values: &[&str]) -> Message {
    values.iter().flat_map(|value| text(field, value)).collect()
}

/// A node of the default domain.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    bytes(1, &node_with(op_type, inputs, outputs, &[]))
}

fn node_with(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[u8]) -> Message {
    [texts(1, inputs), texts(2, outputs), text(4, op_type), attributes.to_vec()].concat()
}

/// Nodes inside nodes, as deep as wished: each an `If` with the next one as its branch.
pub fn nested(levels: usize) -> Message {
    let mut inner = node("Identity", &["x"], &["y"]);
    for _ in 0..levels {
        let body = [inner, bytes(12, &text(1, "y"))].concat();
        let attribute = [text(1, "then_branch"), bytes(6, &body), number(20, GRAPH_ATTRIBUTE)].concat();
        inner = bytes(1, &node_with("If", &["x"], &["y"], &bytes(5, &attribute)));
    }
    inner
}

/// A loop without a trip count or a condition.
pub fn endless() -> Message {
    let typed = |(name, element, dims): &(&str, u64, &[u64])| {
        let dims: Vec<u8> = dims.iter().flat_map(|dim| bytes(1, &number(1, *dim))).collect();
        let tensor = [number(1, *element), bytes(2, &dims)].concat();
        let tensor = bytes(1, &tensor);
        bytes(11, &[text(1, name), bytes(2, &tensor)].concat())
    };
    let body = [
        node("Identity", &["going"], &["still"]),
        node("Relu", &["value"], &["next"]),
        text(2, "body"),
        [("turn", INT64, &[][..]), ("going", BOOL, &[]), ("value", FLOAT, &[1, 3])]
            .iter()
            .flat_map(typed)
            .collect(),
        ["still", "next"].iter().flat_map(|name| bytes(12, &text(1, name))).collect(),
    ];
    let attribute = [text(1, "body"), bytes(6, &body.concat()), number(20, GRAPH_ATTRIBUTE)].concat();
    bytes(1, &node_with("Loop", &["", "", "x"], &["y"], &bytes(5, &attribute)))
}

/// An initialiser of 32-bit floats.
pub fn weight(name: &str, dims: &[u64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    weight_of_bytes(name, dims, &raw)
}

/// The same, its elements as they are stored.
pub fn weight_of_bytes(name: &str, dims: &[u64], raw: &[u8]) -> Message {
    bytes(5, &tensor(name, dims, FLOAT, &bytes(9, raw)))
}

/// An initialiser of 64-bit integers.
pub fn integers(name: &str, values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes(5, &tensor(name, &[values.len() as u64], INT64, &bytes(9, &raw)))
}

/// An initialiser of 32-bit floats whose data lies in a file.
pub fn external(name: &str, dims: &[u64], entries: &[(&str, &str)]) -> Message {
    let entries = entries.iter().flat_map(|(key, value)| bytes(13, &texts_of(key, value)));
    let place: Vec<u8> = entries.chain(number(14, EXTERNAL)).collect();
    bytes(5, &tensor(name, dims, FLOAT, &place))
}

fn texts_of(key: &str, value: &str) -> Message {
    [text(1, key), text(2, value)].concat()
}

fn tensor(name: &str, dims: &[u64], data_type: u64, data: &[u8]) -> Message {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    [dims, number(2, data_type), text(8, name), data.to_vec()].concat()
}

/// One tensor's elements as those of another type.
pub fn cast(from: &str, to: &str, element: u64) -> Message {
    let attribute = [text(1, "to"), number(3, element), number(20, INT_ATTRIBUTE)].concat();
    bytes(1, &node_with("Cast", &[from], &[to], &bytes(5, &attribute)))
}

/// An initialiser of texts.
pub fn words(name: &str, values: &[&str]) -> Message {
    bytes(5, &tensor(name, &[values.len() as u64], STRING, &texts(6, values)))
}

/// How an input is declared; `None` is an open axis.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'a> {
    /// The number of its elements' type.
    pub element: u64,
    /// Its axes.
    pub dims: &'a [Option<u64>],
}

/// A model from these nodes and initialisers, with input `x` of `[1, 3]` and output `y`, both of floats.
pub fn model(contents: &[Message]) -> Message {
    model_of(Declared { element: FLOAT, dims: &[Some(1), Some(3)] }, FLOAT, contents)
}

/// The same with another input, and an output of another element type.
pub fn model_of(input: Declared<'_>, output_element: u64, contents: &[Message]) -> Message {
    model_giving(input, &[("y", output_element)], contents)
}

/// The same with outputs of these names and element types.
pub fn model_giving(input: Declared<'_>, outputs: &[(&str, u64)], contents: &[Message]) -> Message {
    let dim = |dim: &Option<u64>| match dim {
        Some(size) => bytes(1, &number(1, *size)),
        None => bytes(1, &text(2, "batch")),
    };
    let dims: Vec<u8> = input.dims.iter().flat_map(dim).collect();
    let declared = [number(1, input.element), bytes(2, &dims)].concat();
    let input = [text(1, "x"), bytes(2, &bytes(1, &declared))].concat();
    let output = |(name, element): &(&str, u64)| {
        bytes(12, &[text(1, name), bytes(2, &bytes(1, &number(1, *element)))].concat())
    };
    let outputs: Vec<u8> = outputs.iter().flat_map(output).collect();
    let graph = [contents.concat(), text(2, "test"), bytes(11, &input), outputs].concat();
    [number(1, 8), bytes(8, &number(2, OPSET)), bytes(7, &graph)].concat()
}

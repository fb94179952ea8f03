//! What is refused, with which error; what is brought into form.

use super::*;
use crate::model::messages::TensorProto;
use crate::model::messages::tensor_proto::DataLocation;
use crate::model::testing::{Builder, chain, constant, node, weight, with_body};

fn refusal(model: &Builder) -> ModelError {
    Graph::parse(&model.bytes()).expect_err("must be refused")
}

#[test]
fn a_sound_model_tells_its_ends() {
    let graph = chain(3).parse();
    let expected = InputDecl { name: "x".into(), dtype: DType::F32, dims: Some(vec![Some(1), Some(4)]) };
    assert_eq!(graph.inputs(), [expected]);
    assert_eq!(graph.outputs(), ["t3"]);
    assert!(graph.inputs()[0].accepts(&[1, 4]));
    assert!(!graph.inputs()[0].accepts(&[1, 5]) && !graph.inputs()[0].accepts(&[4]));
}

#[test]
fn graphs_that_do_not_hang_together_are_refused() {
    let missing =
        |reader: &str, tensor: &str| ModelError::NobodyMakes { reader: reader.into(), tensor: tensor.into() };
    let lost = Builder::new().input("x", &[1]).node("Add", &["x", "y"], &["z"]).output("z");
    assert_eq!(refusal(&lost), missing("z (Add)", "y"));
    assert_eq!(refusal(&chain(2).output("nothing")), missing("the model's outputs", "nothing"));
    let twice = chain(2).node("Relu", &["x"], &["t1"]);
    assert_eq!(refusal(&twice), ModelError::MadeTwice { tensor: "t1".into() });
    assert_eq!(refusal(&chain(2).output("t2")), ModelError::MadeTwice { tensor: "t2".into() });
    let circle =
        Builder::new().input("x", &[1]).node("Add", &["x", "b"], &["a"]).node("Relu", &["a"], &["b"]);
    assert_eq!(refusal(&circle.output("b")), ModelError::Cycle { node: "a (Add)".into() });
}

#[test]
fn what_has_no_ends_or_no_middle_is_refused() {
    assert_eq!(refusal(&Builder::new().input("x", &[1]).output("y")), ModelError::EmptyGraph);
    assert_eq!(Builder::new().input("x", &[1]).output("x").parse().outputs(), ["x"], "it passes it on");
    assert_eq!(
        refusal(&Builder::new().weight("w", 1).node("Relu", &["w"], &["y"]).output("y")),
        ModelError::NoInputs
    );
    assert_eq!(refusal(&Builder::new().input("x", &[1]).node("Relu", &["x"], &["y"])), ModelError::NoOutputs);
    let many = (0..65).fold(chain(1), |model, index| model.input(&format!("i{index}"), &[1]));
    assert_eq!(refusal(&many), ModelError::TooManyTensors { what: "inputs", count: 66 });
}

#[test]
fn operators_that_nobody_has_are_refused() {
    let mut model = chain(1);
    model.model.opset_import.clear();
    assert_eq!(refusal(&model), ModelError::NoOpset { domain: "ai.onnx".into() });
    let mut model = chain(1);
    model.graph().node[0].set_domain("acme".into());
    assert_eq!(refusal(&model), ModelError::NoOpset { domain: "acme".into() });
    let mut import = model.model.opset_import[0].clone();
    import.set_domain("acme".into());
    model.model.opset_import.push(import);
    assert_eq!(
        refusal(&model),
        ModelError::UnknownDomain { node: "t1 (Relu)".into(), domain: "acme".into() }
    );
}

#[test]
fn data_in_other_files_is_refused_at_any_depth() {
    let mut external = weight("w", 1);
    external.set_data_location(DataLocation::EXTERNAL);
    let mut model = chain(1);
    model.graph().initializer.push(external.clone());
    assert_eq!(refusal(&model), ModelError::ExternalData { tensor: "w".into() });
    let mut inner = constant("c", 1);
    inner.attribute[0].t = protobuf::MessageField::some(external);
    let mut model = chain(1);
    model.graph().node.push(with_body(node("If", &["t1"], &["y"]), inner));
    assert_eq!(refusal(&model), ModelError::ExternalData { tensor: "c (Constant)".into() });
}

#[test]
fn names_and_depth_are_bounded() {
    let long = Builder::new().input(&"n".repeat(513), &[1]);
    assert_eq!(refusal(&long), ModelError::LongName { start: "n".repeat(40) });
    let nested = |levels: usize| {
        let inner = (0..levels)
            .fold(node("Relu", &["x"], &["y"]), |inner, _| with_body(node("If", &["x"], &["y"]), inner));
        let mut model = chain(1);
        model.graph().node.push(inner);
        model
    };
    assert!(Graph::parse(&nested(60).bytes()).is_ok());
    assert_eq!(refusal(&nested(66)), ModelError::TooDeep);
    assert_eq!(refusal(&nested(70)), ModelError::TooDeep);
    assert_eq!(Graph::parse(&nested_bytes(20_000)).err(), Some(ModelError::TooDeep));
}

/// A model with so many levels of subgraphs, written without the recursion that it provokes.
fn nested_bytes(levels: usize) -> Vec<u8> {
    // Graph inside attribute (6), attribute inside node (5), node inside graph (1); built back to front.
    let mut reversed: Vec<u8> = Vec::new();
    let mut wrap = |field: u8| {
        let mut length = reversed.len();
        let mut varint = Vec::new();
        while length >= 0x80 {
            varint.push(length as u8 | 0x80);
            length >>= 7;
        }
        varint.push(length as u8);
        reversed.extend(varint.into_iter().rev());
        reversed.push(field << 3 | 2);
    };
    (0..levels).for_each(|_| [6, 5, 1].into_iter().for_each(&mut wrap));
    wrap(7);
    let ir_version = [0x08, 0x08];
    ir_version.into_iter().chain(reversed.into_iter().rev()).collect()
}

#[test]
fn inputs_that_are_no_tensors_are_refused() {
    let mut model = chain(1);
    model.graph().input[0].type_ = protobuf::MessageField::none();
    assert!(matches!(refusal(&model), ModelError::UnsupportedInput { .. }));
    let mut complex = type_proto::Tensor::new();
    complex.set_elem_type(14);
    model.graph().input[0].type_.mut_or_insert_default().set_tensor_type(complex);
    let what = "of element type 14".to_owned();
    assert_eq!(refusal(&model), ModelError::UnsupportedInput { input: "x".into(), what });
}

#[test]
fn initialisers_leave_the_inputs_and_dead_nodes_the_graph() {
    let mut model = Builder::new().weight("w", 4).input("w", &[4]).input("x", &[4]);
    model.model.set_ir_version(3);
    let graph = model.node("Add", &["x", "w"], &["y"]).node("Relu", &["y"], &["dead"]).output("y").parse();
    assert_eq!(graph.inputs().len(), 1);
    assert_eq!(graph.node_count(), 1);
    assert_eq!(graph.model.ir_version(), 4);
    assert_eq!(graph.model.graph.input.len(), 1);
}

#[test]
fn a_file_out_of_order_is_sorted_and_unknown_fields_survive() {
    let mut model =
        Builder::new().input("x", &[1]).node("Relu", &["a"], &["y"]).node("Relu", &["x"], &["a"]).output("y");
    model.graph().special_fields.mut_unknown_fields().add_varint(999, 7);
    let graph = Graph::parse(&model.parse().whole_model().expect("small")).expect("sound");
    assert_eq!(graph.model.graph.node[0].output, ["a"]);
    assert!(graph.model.graph.special_fields.unknown_fields().get(999).is_some());
}

#[test]
fn large_constants_become_initialisers_and_keep_their_name() {
    let mut model = Builder::new().input("x", &[1]);
    model.graph().node.extend([constant("big", 20_000), constant("small", 2)]);
    let graph = model.node("Sum", &["x", "big", "small"], &["y"]).output("y").parse();
    let stored: Vec<&str> = graph.model.graph.initializer.iter().map(TensorProto::name).collect();
    assert_eq!(stored, ["big"]);
    assert_eq!(graph.node_count(), 2);
}

#[test]
fn the_probe_asks_for_what_is_read_and_not_constant() {
    let mut model =
        chain(2).weight("w", 1).node("Neg", &["w"], &["n"]).node("Dropout", &["t1"], &["d", "mask"]);
    model = model.node("Sum", &["d", "n", "t2"], &["z"]).output("z");
    let probe = model.parse().probe_model().expect("small");
    assert_eq!(probe.outputs, ["t2", "z", "t1", "d"]);
    assert_eq!(Graph::parse(&probe.model).expect("sound").outputs(), probe.outputs);
}

//! Parts of hand-built graphs: what they hold, read and make.

use std::collections::HashMap;

use super::*;
use crate::model::DivideOptions;
use crate::model::messages::AttributeProto;
use crate::model::testing::{
    Builder, Divided, chain, constant, node, run_chain, run_on_symbols, weight, with_body,
};
use stormo_protocol::tensor::DType;

fn names(specs: &[TensorSpec]) -> Vec<&str> {
    specs.iter().map(|spec| spec.name.as_str()).collect()
}

fn ops(part: &Partition) -> Vec<String> {
    let model = decode(&part.model).expect("a part is a model");
    model.graph.node.iter().map(|node| node.op_type().to_owned()).collect()
}

/// Divides as finely as possible, 16 bytes a tensor, and checks the chain of all blocks against the
/// whole.
fn divided(model: &Builder) -> Divided {
    let graph = model.parse();
    let divided = Divided::new(&graph, |_| 16, 64);
    let inputs: HashMap<String, u64> = graph.inputs().iter().map(|input| (input.name.clone(), 7)).collect();
    let mut expected = inputs.clone();
    run_on_symbols(&graph.whole_model().expect("small"), &mut expected);
    let bounds: Vec<u16> = (0..=divided.manifest.block_count()).collect();
    let got = run_chain(&divided, &bounds, &inputs);
    for output in graph.outputs() {
        assert_eq!(got[output], expected[output], "{output}");
    }
    divided
}

#[test]
fn a_chain_is_cut_between_its_nodes() {
    let divided = divided(&chain(4));
    assert_eq!(divided.manifest.block_count(), 4);
    let part = divided.part(1, 3);
    assert_eq!((names(&part.inputs), names(&part.outputs)), (vec!["t1"], vec!["t3"]));
    let error = extract(&divided.skeleton, &divided.manifest, 3..3).expect_err("empty");
    assert_eq!(error, ModelError::BadRange { first: 3, end: 3, blocks: 4 });
    let backwards = std::ops::Range { start: 3, end: 1 };
    assert!(extract(&divided.skeleton, &divided.manifest, backwards).is_err());
    assert!(extract(&divided.skeleton, &divided.manifest, 0..9).is_err());
}

#[test]
fn a_residual_crosses_beside_the_branch() {
    let model = Builder::new().input("x", &[4]).node("Relu", &["x"], &["a"]).node("Neg", &["a"], &["b"]);
    let divided = divided(&model.node("Exp", &["b"], &["c"]).node("Add", &["a", "c"], &["y"]).output("y"));
    assert_eq!(divided.cut(2), ["a", "b"]);
    // `a` passes the third block by.
    let part = divided.part(2, 3);
    assert_eq!((names(&part.inputs), names(&part.outputs)), (vec!["b"], vec!["c"]));
}

fn with_an_early_output() -> Builder {
    let model =
        Builder::new().input("x", &[4]).node("Relu", &["x"], &["early"]).node("Neg", &["early"], &["l"]);
    let model = model.node("Exp", &["early"], &["r"]).node("Concat", &["l", "r"], &["j"]);
    model.node("Sqrt", &["j"], &["y"]).output("early").output("y")
}

#[test]
fn branches_join_and_an_early_output_crosses_only_while_it_is_read() {
    let divided = divided(&with_an_early_output());
    let manifest = &divided.manifest;
    let crosses = |cut| divided.cut(cut).contains(&"early");
    assert_eq!((0..=5).map(crosses).collect::<Vec<_>>(), [false, true, true, false, false, true]);
    assert_eq!(manifest.output_specs().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["early", "y"]);
    // Read until the third block has run, it leaves from there, though the first made it.
    let results = (0..5).map(|block| manifest.results_of(&(block..block + 1), &(0..5)));
    assert_eq!(results.map(|results| results.len()).collect::<Vec<_>>(), [0, 0, 1, 0, 1]);
}

#[test]
fn outputs_that_a_card_reads_cross_to_the_end() {
    let graph = with_an_early_output().parse();
    let options = DivideOptions { keeps_outputs: true, ..DivideOptions::default() };
    let divided = Divided::with(&graph, |_| 16, options);
    let last = divided.manifest.block_count();
    for cut in 1..=last {
        assert!(divided.cut(cut).contains(&"early"), "cut {cut}");
    }
}

#[test]
fn an_input_that_is_an_output_leaves_at_once_and_a_constant_output_comes_last() {
    let mut model = chain(3).weight("w", 4).output("x").output("c").output("w");
    model.graph().node.push(constant("c", 2));
    let graph = model.parse();
    let divided = Divided::new(&graph, |_| 16, 64);
    let last = divided.manifest.block_count();
    let first = divided.manifest.results_of(&(0..1), &(0..last));
    assert_eq!(
        first.iter().map(|tensor| &divided.manifest.tensors[*tensor as usize].name).collect::<Vec<_>>(),
        ["x"]
    );
    assert_eq!(names(&divided.part(last - 1, last).outputs), ["t3", "c", "w"]);
    assert_eq!(names(&divided.part(0, last).outputs), ["t3", "c", "w"]);
}

#[test]
fn weights_are_objects_once_and_go_with_each_part_that_reads_them() {
    let mut model = chain(1);
    let large = 20_000;
    model.graph().initializer.extend([weight("w", large), weight("same", large), weight("small", 3)]);
    model = model.node("Add", &["t1", "w"], &["a"]).node("Mul", &["a", "small"], &["b"]);
    let divided =
        divided(&model.node("Add", &["b", "same"], &["c"]).node("Add", &["c", "w"], &["y"]).output("y"));
    assert_eq!(divided.division.weights.len(), 1);
    assert_eq!(divided.division.weights[0].0.bytes, 4 * large as u64);
    let end = divided.manifest.block_count();
    let whole = divided.part(0, end);
    assert_eq!(whole.weights.iter().map(|weight| weight.name.as_str()).collect::<Vec<_>>(), ["w", "same"]);
    assert_eq!(divided.part(end - 1, end).weights[0].name, "w");
    assert!(divided.part(0, 1).weights.is_empty());
    let weights = divided.division.weights_by_id();
    let inlined = whole.inlined(|id| weights.get(&id).copied()).expect("all there");
    assert!(crate::model::Graph::parse(&inlined).is_ok());
    let object = divided.division.weights[0].0.id;
    assert_eq!(whole.inlined(|_| None), Err(ModelError::WeightMissing { object }));
}

#[test]
fn constants_are_copied_into_each_part_and_cross_nothing() {
    let mut model = Builder::new().input("x", &[4]).node("Relu", &["x"], &["t1"]);
    model.graph().node.push(constant("c", 2));
    model =
        model.node("Neg", &["c"], &["n"]).node("Add", &["t1", "n"], &["a"]).node("Mul", &["a", "n"], &["y"]);
    let divided = divided(&model.output("y"));
    assert_eq!(divided.manifest.block_count(), 3);
    assert_eq!(ops(&divided.part(0, 1)), ["Relu"]);
    assert_eq!(ops(&divided.part(1, 2)), ["Constant", "Neg", "Add"]);
    assert_eq!(ops(&divided.part(2, 3)), ["Constant", "Neg", "Mul"]);
    assert_eq!(divided.cut(2), ["a"]);
}

#[test]
fn a_tensor_filled_by_a_node_counts_as_memory_and_is_not_stored() {
    let mut shape = weight("shape", 0);
    (shape.dims, shape.float_data) = (vec![2], Vec::new());
    shape.set_data_type(DType::I64 as i32);
    shape.int64_data = vec![4096, 25_000];
    let mut model = chain(2);
    model.graph().initializer.push(shape);
    model = model.node("ConstantOfShape", &["shape"], &["w"]).node("MatMul", &["t2", "w"], &["y"]);
    model = model.output("y");
    let divided = divided(&model);
    assert!(divided.division.skeleton.len() < 1000);
    let memory = |block: usize| divided.manifest.blocks[block].inline_bytes;
    assert_eq!((memory(0), memory(2)), (0, 4 * 4096 * 25_000 + 16));
    model.graph().initializer[0].int64_data[1] = 25_000_000;
    let refused = crate::model::Graph::parse(&model.bytes()).expect_err("409 GB");
    assert_eq!(refused, ModelError::HugeConstant { tensor: "w".into(), bytes: 4 * 4096 * 25_000_000 });
}

#[test]
fn random_nodes_are_never_copied() {
    let model = chain(1).node("RandomNormal", &[], &["r"]).node("Add", &["t1", "r"], &["a"]);
    let divided = divided(&model.node("Mul", &["a", "r"], &["y"]).output("y"));
    let last = divided.manifest.block_count();
    let count: usize = (0..last)
        .map(|block| ops(&divided.part(block, block + 1)).iter().filter(|op| *op == "RandomNormal").count())
        .sum();
    assert_eq!(count, 1);
}

#[test]
fn captures_of_a_subgraph_are_inputs_of_its_node() {
    let mut model = chain(3).weight("w", 3);
    let inner = node("Add", &["t1", "w"], &["inner"]);
    model.graph().node.push(with_body(node("If", &["t3"], &["y"]), inner));
    // Both branches are needed for a fixed shape; one is enough to see what is captured.
    let graph = model.output("y").parse();
    let divided = Divided::new(&graph, |_| 16, 64);
    let last = divided.manifest.block_count();
    assert_eq!(divided.cut(last - 1), ["t1", "t3"]);
    let part = divided.part(last - 1, last);
    assert_eq!(names(&part.inputs), ["t1", "t3"]);
    assert_eq!(decode(&part.model).expect("a part").graph.initializer.len(), 1);
}

#[test]
fn no_cut_goes_where_the_sample_does_not_hold() {
    let model = chain(1).node("NonZero", &["t1"], &["found"]).node("Neg", &["found"], &["n"]);
    let divided = divided(&model.node("ReduceSum", &["n"], &["y"]).output("y"));
    assert_eq!(divided.manifest.block_count(), 2);
    assert_eq!(ops(&divided.part(1, 2)), ["NonZero", "Neg", "ReduceSum"]);
    // The words that are left out are others next time.
    let mut some_words = node("StringNormalizer", &["t1"], &["some"]);
    let words = AttributeProto { strings: vec![b"the".to_vec()], ..AttributeProto::default() };
    some_words.attribute.push(AttributeProto { name: Some("stopwords".to_owned()), ..words });
    for (normaliser, blocks) in [(some_words, 2), (node("StringNormalizer", &["t1"], &["some"]), 4)] {
        let mut model = chain(1);
        model.graph().node.push(normaliser);
        let model = model.node("Neg", &["some"], &["n"]).node("ReduceSum", &["n"], &["y"]).output("y");
        assert_eq!(self::divided(&model).manifest.block_count(), blocks);
    }
    // A shape computed from a shape holds for every input of the same shape.
    let model = chain(1).node("Shape", &["t1"], &["s"]).node("Reshape", &["x", "s"], &["r"]);
    let fixed = self::divided(&model.node("Relu", &["r"], &["y"]).output("y"));
    assert!(fixed.cut(fixed.manifest.block_count() - 1).contains(&"r"));
}

#[test]
fn quantised_graphs_are_cut_at_small_integers_only() {
    let mut model = Builder::new().input("x", &[4]).weight("s", 1);
    for (from, to) in [("x", "a"), ("a_y", "b"), ("b_y", "c")] {
        let [quantised, real, result] = ["q", "d", "y"].map(|end| format!("{to}_{end}"));
        model = model.node("QuantizeLinear", &[from, "s"], &[&quantised]);
        model =
            model.node("DequantizeLinear", &[&quantised, "s"], &[&real]).node("Relu", &[&real], &[&result]);
    }
    // The dequantised `a_d` has a second reader far away: each gets its own.
    let divided = divided(&model.node("Add", &["c_y", "a_d"], &["y"]).output("y"));
    let inner = 1..divided.manifest.block_count();
    assert!(!inner.is_empty());
    for cut in inner {
        assert!(divided.cut(cut).iter().all(|name| name.ends_with("_q")), "{:?}", divided.cut(cut));
    }
    assert!(divided.cut(2).contains(&"a_q"), "{:?}", divided.cut(2));
}

#[test]
fn a_tensor_of_unknown_size_crosses_nothing_and_an_unknown_end_is_an_error() {
    let graph = chain(3).parse();
    let mut sizes = crate::model::testing::sizes(&graph, |_| 16);
    sizes.remove("t1");
    let options = crate::model::DivideOptions::default();
    let division = crate::model::divide(&graph, &sizes, &options).expect("still one cut");
    assert_eq!(division.blocks.len(), 2);
    sizes.remove("t3");
    let error = crate::model::divide(&graph, &sizes, &options).expect_err("no size");
    assert_eq!(error, ModelError::SizeUnknown { tensor: "t3".into() });
}

#[test]
fn a_skeleton_that_does_not_fit_its_manifest_is_refused() {
    let divided = divided(&chain(4).weight("w", 20_000).node("Add", &["t4", "w"], &["y"]).output("y"));
    let mut other = divided.manifest.clone();
    other.weights.clear();
    assert!(matches!(Skeleton::parse(&divided.division.skeleton, &other), Err(ModelError::Mismatch { .. })));
    let mut other = divided.manifest.clone();
    other.blocks.pop();
    assert!(matches!(Skeleton::parse(&divided.division.skeleton, &other), Err(ModelError::Mismatch { .. })));
    let mut other = divided.manifest.clone();
    other.cuts[1].tensors = vec![0];
    assert!(matches!(extract(&divided.skeleton, &other, 1..2), Err(ModelError::Mismatch { .. })));
}

#[test]
fn a_batch_axis_that_everything_at_the_cuts_follows_is_kept() {
    let graph = chain(3).parse();
    let sizes = |rows: &dyn Fn(&str) -> u64| {
        let names = &graph.links.names;
        let spec =
            |name: &String| TensorSpec { name: name.clone(), dtype: DType::F32, shape: vec![rows(name), 4] };
        names.iter().map(|name| (name.clone(), spec(name))).collect::<HashMap<_, _>>()
    };
    let one = sizes(&|name| if name == "t2" { 7 } else { 1 });
    let two = sizes(&|name| if name == "t2" { 14 } else { 2 });
    let mut division = crate::model::divide(&graph, &one, &DivideOptions::default()).expect("divisible");
    assert_eq!(
        division.keep_batch(&[(2, sizes(&|name| if name == "t1" { 3 } else { 2 }))]),
        Err("t1".into())
    );
    assert_eq!(division.batch, None);
    assert_eq!(division.keep_batch(&[(2, one)]), Ok(()));
    assert_eq!(division.batch, None, "no input tells");
    // As much for one and two as if it were padded to eight.
    let padded = |items| {
        sizes(&|name| {
            if name == "t1" {
                1
            } else if name == "t2" {
                7 * items
            } else {
                items
            }
        })
    };
    let nine = sizes(&|name| if name == "t2" { 63 } else { 9 });
    assert_eq!(division.keep_batch(&[(2, padded(2)), (9, nine.clone())]), Err("t1".into()));
    assert_eq!(division.keep_batch(&[(2, two), (9, nine)]), Ok(()));
    assert_eq!(division.batch.as_ref().map(|batch| batch.items_max), Some(9));
    let manifest = division.manifest("m", "v", stormo_protocol::model::OrtLevel::Off);
    assert_eq!(manifest.check(), Ok(()));
    assert_eq!(manifest.batch.as_ref().map(|batch| batch.tensors.len()), Some(4));
    let skeleton = Skeleton::parse(&division.skeleton, &manifest).expect("own skeleton");
    let axis = |block: u16| {
        let part = extract(&skeleton, &manifest, block..block + 1).expect("own block");
        assert_eq!(part.batched.len(), 2);
        let model = decode(&part.model).expect("a part");
        model.graph.input[0].type_.tensor_type().shape.dim[0].clone()
    };
    assert_eq!(axis(0).dim_param(), "batch");
    // `t2` has seven rows for each item, so its axis is no number of items.
    assert_eq!(axis(2).value, None);
}

#[test]
fn opsets_metadata_and_node_attributes_are_carried_along() {
    let mut model = chain(2);
    let mut attribute = AttributeProto::new();
    attribute.set_name("alpha".into());
    model.graph().node[1].attribute.push(attribute);
    model.model.set_producer_name("somebody".into());
    let divided = divided(&model);
    let part = decode(&divided.part(1, 2).model).expect("a part");
    assert_eq!((part.producer_name(), part.opset_import[0].version()), ("somebody", 13));
    assert_eq!(part.graph.node[0].attribute[0].name(), "alpha");
}

#[test]
fn a_model_whose_output_depends_on_no_input_is_one_block() {
    let mut model = Builder::new().input("x", &[4]);
    model.graph().node.push(constant("c", 2));
    let divided = divided(&model.node("Neg", &["c"], &["y"]).output("y"));
    assert_eq!(divided.manifest.block_count(), 1);
    let part = divided.part(0, 1);
    assert_eq!((names(&part.inputs), names(&part.outputs)), (vec![], vec!["y"]));
    assert_eq!(ops(&part), ["Constant", "Neg"]);
}

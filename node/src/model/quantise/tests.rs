//! What the rewritten graph is like, over generated networks: which nodes run on small integers, and
//! what stands around them. That the numbers are right is tested where ONNX Runtime is at hand.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use stormo_protocol::tensor::{DType, TensorSpec};

use super::super::graph::decode;
use super::super::messages::{ModelProto, NodeProto};
use super::super::testing::{Builder, node, weight};
use super::attributes::set_integer;
use super::*;

/// What every activation is here.
const SHAPE: [u64; 4] = [1, 8, 3, 3];

/// A step of a generated network; each reads the newest tensor, some an older one too.
#[derive(Debug, Clone)]
enum Step {
    Convolution,
    Relu,
    Pool,
    Float,
    Add(prop::sample::Index),
    Join(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let older = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Step::Convolution),
        2 => Just(Step::Relu),
        1 => Just(Step::Pool),
        1 => Just(Step::Float),
        1 => older().prop_map(Step::Add),
        1 => older().prop_map(Step::Join),
    ]
}

/// Shapes matter to nobody but `Conv`'s weights; a concatenation is taken for as wide as its parts.
fn build(steps: &[Step]) -> Builder {
    let mut model = Builder::new().input("x", &SHAPE);
    let mut made = vec!["x".to_owned()];
    for (index, step) in steps.iter().enumerate() {
        let (newest, output) = (made[made.len() - 1].clone(), format!("t{index}"));
        let weights = format!("w{index}");
        model = match step {
            Step::Convolution => {
                let mut stored = weight(&weights, 8 * 8);
                stored.dims = vec![8, 8, 1, 1];
                model.graph().initializer.push(stored);
                model.node("Conv", &[&newest, &weights], &[&output])
            }
            Step::Relu => model.node("Relu", &[&newest], &[&output]),
            Step::Pool => model.node("MaxPool", &[&newest], &[&output]),
            Step::Float => model.node("Exp", &[&newest], &[&output]),
            Step::Add(older) => model.node("Add", &[&newest, older.get(&made).as_str()], &[&output]),
            Step::Join(older) => model.node("Concat", &[&newest, older.get(&made).as_str()], &[&output]),
        };
        made.push(output);
    }
    model.output(&made[made.len() - 1])
}

fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: DType::F32, shape: SHAPE.to_vec() }
}

fn quantiser(model: &Builder) -> Result<Quantiser, QuantiseError> {
    let graph = model.parse();
    let stored: Vec<&str> = graph.model.graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let names = graph.links.names.iter().filter(|name| !stored.contains(&name.as_str()));
    let specs = names.map(|name| (name.clone(), spec(name))).collect();
    Quantiser::new(graph, specs)
}

/// Every tensor from -1 to a number of its own.
fn observed(quantiser: &Quantiser) -> HashMap<String, Observed> {
    let seen = |(index, watched): (usize, Watched)| {
        let mut observed = Observed::default();
        let mut values = vec![-1.0; 72];
        values[0] = 1.0 + index as f32;
        observed.add("t", &values, &SHAPE, watched.channel_axis).expect("finite");
        (watched.spec.name, observed)
    };
    quantiser.watched().into_iter().enumerate().map(seen).collect()
}

fn is_nothing_to_do(error: &QuantiseError) -> bool {
    matches!(error, QuantiseError::NothingToDo { .. })
}

struct Net<'a> {
    makers: HashMap<&'a str, &'a NodeProto>,
    model: &'a ModelProto,
}

impl<'a> Net<'a> {
    fn of(model: &'a ModelProto) -> Self {
        let makers =
            model.graph.node.iter().flat_map(|node| node.output.iter().map(move |made| (made, node)));
        Self { makers: makers.map(|(made, node)| (made.as_str(), node)).collect(), model }
    }

    fn maker(&self, tensor: &str) -> &str {
        self.makers.get(tensor).map_or("", |node| node.op_type())
    }

    fn readers(&self, tensor: &str) -> Vec<&'a NodeProto> {
        let nodes = self.model.graph.node.iter();
        nodes.filter(|node| node.input.iter().any(|input| input == tensor)).collect()
    }
}

proptest! {
    #[test]
    fn what_runs_on_small_integers_has_them_all_around(
        steps in prop::collection::vec(step(), 1..25),
        kept in prop::collection::hash_set(0usize..8, 0..4),
    ) {
        let model = build(&steps);
        let products = steps.iter().filter(|step| matches!(step, Step::Convolution)).count();
        let quantiser = match quantiser(&model) {
            Ok(quantiser) => quantiser,
            Err(error) => {
                prop_assert!(products == 0 && is_nothing_to_do(&error), "{}", error);
                return Ok(());
            }
        };
        let candidates = quantiser.candidates();
        prop_assert_eq!(candidates.len(), products);
        let kept: HashSet<usize> = kept.into_iter().filter(|index| *index < products).collect();
        let made = quantiser.quantise(&observed(&quantiser), RangeMethod::MinMax, &kept);
        let made = match made {
            Ok(made) => decode(&made).expect("a model"),
            Err(error) => {
                prop_assert!(kept.len() == products && is_nothing_to_do(&error), "{}", error);
                return Ok(());
            }
        };
        let net = Net::of(&made);
        let mut there: HashSet<&str> = made.graph.initializer.iter().map(|tensor| tensor.name()).collect();
        there.insert("x");
        let in_floats: HashSet<&str> = kept.iter().map(|index| candidates[*index].name.as_str()).collect();
        for node in &made.graph.node {
            for input in &node.input {
                prop_assert!(there.contains(input.as_str()), "{} is read before it is made", input);
            }
            for output in &node.output {
                prop_assert!(there.insert(output), "{} is made twice", output);
            }
            if node.op_type() != "Conv" {
                continue;
            }
            let by_integers = net.maker(&node.input[1]) == "DequantizeLinear";
            if by_integers {
                for input in &node.input {
                    prop_assert_eq!(net.maker(input), "DequantizeLinear");
                }
                let readers = net.readers(&node.output[0]);
                prop_assert!(readers.len() == 1 && readers[0].op_type() == "QuantizeLinear");
            }
        }
        // As many as were wanted, and those left out still read their own weights.
        let convolutions = || made.graph.node.iter().filter(|node| node.op_type() == "Conv");
        let floats = convolutions().filter(|node| net.maker(&node.input[1]).is_empty());
        let names: HashSet<&str> = floats.map(|node| node.output[0].as_str()).collect();
        prop_assert_eq!(names, in_floats);
        prop_assert_eq!(convolutions().count(), products);
        let result = made.graph.output[0].name();
        prop_assert!(there.contains(result), "{} is made", result);
        prop_assert_eq!(result, format!("t{}", steps.len() - 1));
    }

    #[test]
    fn what_only_moves_numbers_keeps_their_scale(steps in prop::collection::vec(step(), 1..25)) {
        let Ok(quantiser) = quantiser(&build(&steps)) else { return Ok(()) };
        let Ok(made) = quantiser.quantise(&observed(&quantiser), RangeMethod::MinMax, &HashSet::new()) else {
            return Ok(());
        };
        let made = decode(&made).expect("a model");
        let net = Net::of(&made);
        for node in made.graph.node.iter().filter(|node| node.op_type() == "MaxPool") {
            let readers = net.readers(&node.output[0]);
            let before = net.makers.get(node.input[0].as_str());
            if let (Some(before), [after]) = (before, readers.as_slice())
                && before.op_type() == "DequantizeLinear" && after.op_type() == "QuantizeLinear"
            {
                prop_assert_eq!(&before.input[1..], &after.input[1..]);
            }
        }
    }
}

#[test]
fn a_relu_behind_a_convolution_is_its_range() {
    let relu = [Step::Convolution, Step::Relu, Step::Convolution];
    let quantiser = quantiser(&build(&relu)).expect("fine");
    let made = quantiser.quantise(&observed(&quantiser), RangeMethod::MinMax, &HashSet::new());
    let made = decode(&made.expect("fine")).expect("a model");
    let ops: Vec<&str> = made.graph.node.iter().map(|node| node.op_type()).collect();
    assert_eq!(ops.iter().filter(|op| **op == "Conv").count(), 2);
    assert!(!ops.contains(&"Relu"), "{ops:?}");
}

#[test]
fn a_relu_behind_a_product_whose_result_is_not_rounded_stays() {
    for last in ["Exp", "Relu"] {
        let mut model = Builder::new().input("x", &SHAPE);
        let mut stored = weight("w", 3 * 3);
        stored.dims = vec![3, 3];
        model.graph().initializer.push(stored);
        let model = model.node("MatMul", &["x", "w"], &["t"]);
        let model = if last == "Relu" { model } else { model.node("Relu", &["t"], &["r"]) };
        let reads = if last == "Relu" { "t" } else { "r" };
        let quantiser = quantiser(&model.node(last, &[reads], &["y"]).output("y")).expect("fine");
        let made = quantiser.quantise(&observed(&quantiser), RangeMethod::MinMax, &HashSet::new());
        let made = decode(&made.expect("fine")).expect("a model");
        let ops: Vec<&str> = made.graph.node.iter().map(|node| node.op_type()).collect();
        assert!(ops.contains(&"QuantizeLinear") && ops.contains(&"MatMul"), "{ops:?}");
        assert_eq!(ops.iter().filter(|op| **op == "Relu").count(), 1, "{ops:?}");
    }
}

#[test]
fn nothing_to_do_and_done_already_are_told_apart() {
    let nothing = quantiser(&build(&[Step::Relu])).map(drop).expect_err("no weights");
    assert!(nothing.to_string().contains("nothing to quantise"), "{nothing}");
    let done = build(&[Step::Convolution]).node("QuantizeLinear", &["x", "s"], &["q"]).output("q");
    let done = raise_opset(&done.weight("s", 1).parse(), &HashMap::new()).expect_err("done");
    assert!(matches!(done, QuantiseError::AlreadyQuantised { .. }), "{done}");
    let fine = quantiser(&build(&[Step::Convolution])).expect("fine");
    let error = fine.with_prefix(&["t0".to_owned(), "decode/".to_owned()]).expect_err("no such node");
    assert_eq!(error, QuantiseError::NoSuchPrefix { prefix: "decode/".to_owned() });
    assert_eq!(fine.with_prefix(&["t".to_owned()]), Ok(HashSet::from([0])));
}

fn raised(opset: i64, model: Builder) -> Result<ModelProto, QuantiseError> {
    let mut model = model;
    model.model.opset_import[0].set_version(opset);
    let specs = [("x".to_owned(), spec("x"))].into();
    raise_opset(&model.parse(), &specs).map(|bytes| decode(&bytes).expect("a model"))
}

#[test]
fn attributes_that_became_inputs_do() {
    let mut clip = node("Clip", &["x"], &["y"]);
    set_integer(&mut clip, "unrelated", 1);
    let mut model = Builder::new().input("x", &SHAPE).output("y");
    model.graph().node.push(clip);
    let made = raised(9, model).expect("fine");
    let node = &made.graph.node[0];
    assert_eq!(node.input.len(), 3);
    let bounds: Vec<f32> = made
        .graph
        .initializer
        .iter()
        .map(|tensor| f32::from_le_bytes(tensor.raw_data().try_into().expect("one float")))
        .collect();
    assert_eq!(bounds, [f32::MIN, f32::MAX]);
    assert_eq!(made.opset_import[0].version(), 13);
}

#[test]
fn what_means_something_else_later_stands_in_the_way() {
    let softmax = |axis| {
        let mut node = node("Softmax", &["x"], &["y"]);
        set_integer(&mut node, "axis", axis);
        let mut model = Builder::new().input("x", &SHAPE).output("y");
        model.graph().node.push(node);
        model
    };
    assert!(raised(11, softmax(3)).is_ok());
    // Over channels and places together, which opset 13 has no word for.
    let error = raised(11, softmax(1)).expect_err("several axes");
    assert!(error.to_string().contains("opset 11"), "{error}");
    // Opset 13 is left alone.
    assert!(raised(13, softmax(1)).is_ok());
    let old = raised(6, Builder::new().input("x", &SHAPE).node("Relu", &["x"], &["y"]).output("y"));
    assert!(matches!(old, Err(QuantiseError::Opset { opset: 6, .. })), "{old:?}");
}

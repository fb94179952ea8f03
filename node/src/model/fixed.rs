//! Shapes that never change become constants: what is computed from them alone is then free, so that each
//! part has its own copy and nothing of it crosses a cut.

use std::collections::HashMap;

use protobuf::{Enum, MessageField};
use stormo_protocol::tensor::TensorSpec;

use super::error::ModelError;
use super::graph::{Graph, tidy};
use super::links::Links;
use super::messages::attribute_proto::AttributeType;
use super::messages::tensor_proto::DataType;
use super::messages::{AttributeProto, NodeProto, TensorProto};
use super::shaping::Functions;
use super::varying::{is_shape, varying_shapes};

impl Graph {
    /// Replaces each `Shape` and `Size` of a tensor in `sizes` by its value. `sizes` holds what is the same
    /// for every input that will come.
    ///
    /// # Errors
    /// None that a parsed graph could cause; those of reading links.
    pub fn fix_shapes(&mut self, sizes: &HashMap<String, TensorSpec>) -> Result<(), ModelError> {
        let functions = Functions::of(&self.model.functions);
        let varying = varying_shapes(&self.model.graph, &self.model.functions, &self.links);
        let mut is_changed = false;
        for node in &mut self.model.graph.mut_or_insert_default().node {
            if !is_shape(node, &functions) {
                continue;
            }
            let Some(spec) = node.input.first().and_then(|name| sizes.get(name)) else { continue };
            let holds = self.links.find(&spec.name).is_some_and(|tensor| !varying[tensor]);
            if let Some(value) = value(node, &spec.shape).filter(|_| holds) {
                *node = constant(node, value);
                is_changed = true;
            }
        }
        if is_changed {
            let links = Links::of(&self.model.graph, &self.model.functions)?;
            // What was computed for its shape alone is needed no more.
            tidy(&mut self.model, &links);
            self.links = Links::of(&self.model.graph, &self.model.functions)?;
        }
        Ok(())
    }
}

/// What a `Shape` or `Size` gives for a tensor of this shape.
fn value(node: &NodeProto, shape: &[u64]) -> Option<TensorProto> {
    let dims: Vec<i64> = shape.iter().map(|dim| i64::try_from(*dim).ok()).collect::<Option<_>>()?;
    let mut tensor = TensorProto::new();
    tensor.set_data_type(DataType::INT64.value());
    match node.op_type() {
        "Shape" => {
            let rank = dims.len() as i64;
            let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name);
            // Counted from the end if negative, and cut to what there is (ONNX, `Shape` since opset 15).
            let place = |name: &str, absent: i64| {
                let place = attribute(name).map_or(absent, AttributeProto::i);
                let counted = if place < 0 { place.saturating_add(rank) } else { place };
                usize::try_from(counted.clamp(0, rank)).unwrap_or(0)
            };
            let (start, end) = (place("start", 0), place("end", rank));
            tensor.int64_data = dims.get(start..end).unwrap_or_default().to_vec();
            tensor.dims = vec![tensor.int64_data.len() as i64];
        }
        "Size" => tensor.int64_data = vec![dims.iter().try_fold(1i64, |size, dim| size.checked_mul(*dim))?],
        _ => return None,
    }
    Some(tensor)
}

/// A constant in the place of a node.
fn constant(node: &NodeProto, value: TensorProto) -> NodeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name("value".to_owned());
    attribute.set_type(AttributeType::TENSOR);
    attribute.t = MessageField::some(value);
    let mut constant = NodeProto { output: node.output.clone(), ..NodeProto::default() };
    constant.set_name(node.name().to_owned());
    constant.set_op_type("Constant".to_owned());
    constant.attribute.push(attribute);
    constant
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{Builder, Divided, node, sizes};

    fn shape_of(attributes: &[(&str, i64)], shape: &[u64]) -> Vec<i64> {
        let mut node = node("Shape", &["x"], &["s"]);
        for (name, at) in attributes {
            let mut attribute = AttributeProto::new();
            attribute.set_name((*name).into());
            attribute.set_i(*at);
            node.attribute.push(attribute);
        }
        value(&node, shape).expect("a value").int64_data
    }

    #[test]
    fn a_shape_may_be_a_slice_of_it() {
        assert_eq!(shape_of(&[], &[2, 3, 4]), [2, 3, 4]);
        assert_eq!(shape_of(&[("start", 1)], &[2, 3, 4]), [3, 4]);
        assert_eq!(shape_of(&[("start", -1)], &[2, 3, 4]), [4]);
        assert_eq!(shape_of(&[("end", -1)], &[2, 3, 4]), [2, 3]);
        assert_eq!(shape_of(&[("start", -9), ("end", 9)], &[2, 3, 4]), [2, 3, 4]);
        assert_eq!(shape_of(&[("start", 2), ("end", 1)], &[2, 3, 4]), [0i64; 0]);
        let size = value(&node("Size", &["x"], &["s"]), &[2, 3, 4]).expect("a value");
        assert_eq!((size.dims.len(), size.int64_data), (0, vec![24]));
    }

    #[test]
    fn what_is_computed_from_fixed_shapes_crosses_no_cut() {
        let model = Builder::new().input("x", &[1, 4]).node("Relu", &["x"], &["a"]);
        let model = model.node("Shape", &["a"], &["s"]).node("Gather", &["s", "s"], &["g"]);
        let model = model.node("Exp", &["a"], &["b"]).node("Reshape", &["b", "g"], &["c"]);
        let model = model.node("Neg", &["c"], &["d"]).node("Reshape", &["d", "g"], &["y"]).output("y");
        let crossing = |graph: &Graph| {
            let divided = Divided::new(graph, |_| 16, 64);
            let cuts = 1..divided.manifest.block_count();
            cuts.map(|cut| divided.cut(cut).len()).max()
        };
        let mut graph = model.parse();
        assert_eq!(crossing(&graph), Some(2));
        let known = sizes(&graph, |_| 16);
        graph.fix_shapes(&HashMap::new()).expect("sound");
        assert_eq!(crossing(&graph), Some(2));
        graph.fix_shapes(&known).expect("sound");
        assert_eq!(crossing(&graph), Some(1));
    }

    #[test]
    fn what_was_computed_for_its_shape_alone_goes() {
        let model = Builder::new().input("x", &[4]).node("Relu", &["x"], &["a"]).node("Exp", &["x"], &["b"]);
        let model = model.node("Shape", &["b"], &["s"]).node("Reshape", &["a", "s"], &["y"]).output("y");
        let mut graph = model.parse();
        let known = sizes(&graph, |_| 16);
        graph.fix_shapes(&known).expect("sound");
        let left: Vec<&str> = graph.model.graph.node.iter().map(|node| node.op_type()).collect();
        assert_eq!(left, ["Relu", "Constant", "Reshape"]);
    }

    #[test]
    fn a_shape_that_depends_on_values_stays() {
        let model = Builder::new().input("x", &[4]).node("NonZero", &["x"], &["n"]);
        let mut graph = model.node("Shape", &["n"], &["y"]).output("y").parse();
        let known = sizes(&graph, |_| 16);
        graph.fix_shapes(&known).expect("sound");
        assert_eq!(graph.model.graph.node[1].op_type(), "Shape");
    }
}

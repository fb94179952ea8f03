//! How many nodes a model has once its functions are written out, as ONNX Runtime does before it runs it: seven functions of
//! ten calls each are 70 nodes in the file, and ten million there.

use std::collections::HashMap;

use stormo_protocol::limits::GRAPH_NODES_MAX;

use super::error::ModelError;
use super::messages::{ModelProto, NodeProto};
use super::scan::{bodies, domain_name};

type Names<'a> = HashMap<(&'a str, &'a str), usize>;

/// What is written in one place, bodies included.
#[derive(Default)]
struct Written {
    /// Nodes that call no function.
    nodes: usize,
    /// Calls, by function.
    calls: HashMap<usize, usize>,
}

impl Written {
    fn note(&mut self, nodes: &[NodeProto], names: &Names<'_>) {
        for node in nodes {
            match names.get(&(domain_name(node.domain()), node.op_type())) {
                Some(function) => *self.calls.entry(*function).or_default() += 1,
                None => self.nodes += 1,
            }
            bodies(node).for_each(|body| self.note(&body.node, names));
        }
    }

    fn count(&self, of_functions: &[usize]) -> usize {
        let of_call = |(function, times): (&usize, &usize)| of_functions[*function].saturating_mul(*times);
        self.calls.iter().map(of_call).fold(self.nodes, usize::saturating_add)
    }
}

/// Checks that a model stays within the limit of nodes when its functions are written out. Bodies nest no deeper than the
/// pre-scan allows.
///
/// # Errors
/// Too many nodes, or a function that calls itself.
pub(super) fn check(model: &ModelProto) -> Result<(), ModelError> {
    let keyed = model.functions.iter().enumerate();
    let names: Names<'_> =
        keyed.map(|(index, function)| ((domain_name(function.domain()), function.name()), index)).collect();
    let written = |nodes: &[NodeProto]| {
        let mut written = Written::default();
        written.note(nodes, &names);
        written
    };
    let functions: Vec<Written> = model.functions.iter().map(|function| written(&function.node)).collect();
    // From those that call nobody upwards (Kahn): chains of calls may be as long as the file.
    let mut callers: Vec<Vec<usize>> = vec![Vec::new(); functions.len()];
    for (caller, function) in functions.iter().enumerate() {
        function.calls.keys().for_each(|called| callers[*called].push(caller));
    }
    let mut missing: Vec<usize> = functions.iter().map(|function| function.calls.len()).collect();
    let mut open: Vec<usize> = (0..functions.len()).filter(|index| missing[*index] == 0).collect();
    let mut counts = vec![0; functions.len()];
    while let Some(done) = open.pop() {
        counts[done] = functions[done].count(&counts);
        for caller in &callers[done] {
            missing[*caller] -= 1;
            if missing[*caller] == 0 {
                open.push(*caller);
            }
        }
    }
    if let Some(function) = missing.iter().position(|missing| *missing > 0) {
        let name = model.functions[function].name().chars().take(100).collect();
        return Err(ModelError::RecursiveFunction { name });
    }
    let nodes = written(&model.graph.node).count(&counts);
    if nodes > GRAPH_NODES_MAX { Err(ModelError::TooManyNodes { nodes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::messages::FunctionProto;

    fn call(function: &str) -> NodeProto {
        NodeProto { op_type: Some(function.into()), domain: Some("own".into()), ..NodeProto::default() }
    }

    /// `f0` has ten nodes, each next one calls the one before so many times; the graph calls the last.
    fn nested(functions: usize, calls: usize) -> ModelProto {
        let relu = NodeProto { op_type: Some("Relu".into()), ..NodeProto::default() };
        let function = |index: usize| FunctionProto {
            name: Some(format!("f{index}")),
            domain: Some("own".into()),
            node: match index {
                0 => vec![relu.clone(); 10],
                _ => vec![call(&format!("f{}", index - 1)); calls],
            },
            ..FunctionProto::default()
        };
        let mut model =
            ModelProto { functions: (0..functions).map(function).collect(), ..ModelProto::default() };
        model.graph.mut_or_insert_default().node = vec![call(&format!("f{}", functions - 1))];
        model
    }

    #[test]
    fn functions_count_as_often_as_they_are_called() {
        assert!(check(&nested(1, 0)).is_ok());
        assert!(check(&nested(4, 10)).is_ok());
        let bomb = check(&nested(8, 10));
        assert!(matches!(bomb, Err(ModelError::TooManyNodes { nodes: 100_000_000 })), "{bomb:?}");
        let bomb = check(&nested(100_000, 2));
        assert!(matches!(bomb, Err(ModelError::TooManyNodes { nodes: usize::MAX })), "{bomb:?}");
    }

    #[test]
    fn a_function_that_calls_itself_is_named() {
        let mut model = nested(3, 2);
        model.functions[0].node.push(call("f2"));
        assert!(matches!(check(&model), Err(ModelError::RecursiveFunction { .. })));
    }
}

//! The pre-scan: everything about a parsed model that must hold before any of it is trusted, at every
//! depth of subgraphs and functions. How nodes hang together is checked in `links`.

use std::collections::HashSet;

use stormo_protocol::limits::{GRAPH_NODES_MAX, TENSOR_NAME_BYTES_MAX};

use super::data;
use super::error::{ModelError, SUBGRAPH_DEPTH_MAX};
use super::expanded;
use super::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

/// Domains whose operators ONNX Runtime's CPU build has.
const DOMAINS: [&str; 6] = [
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "com.microsoft",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
];

/// The default domain has two names.
pub(super) fn domain_name(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

/// What a node is called in errors.
pub(super) fn node_name(node: &NodeProto) -> String {
    let name =
        if node.name().is_empty() { node.output.first().map_or("", String::as_str) } else { node.name() };
    format!("{} ({})", name.chars().take(100).collect::<String>(), node.op_type())
}

/// The graphs inside a node.
pub(super) fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// Whether large weights may be references into the pool, as in a skeleton, or nothing may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum References {
    /// A model from outside: all data inside.
    Refused,
    /// A skeleton: initialisers of the main graph may refer to objects; whoever reads them checks them.
    OfInitialisers,
}

/// Domains that a model or a function says it uses.
type Imported<'a> = HashSet<&'a str>;

/// Checks a model before use, and counts its nodes, those in subgraphs and functions too.
///
/// # Errors
/// The first thing found wrong.
pub(super) fn scan(model: &ModelProto, references: References) -> Result<usize, ModelError> {
    let imported = imported(&model.opset_import);
    if imported.is_empty() {
        return Err(ModelError::NoOpset { domain: "ai.onnx".into() });
    }
    let functions =
        model.functions.iter().map(|function| (domain_name(function.domain()), function.name())).collect();
    let mut scan = Scan { functions, nodes: 0, references };
    for function in &model.functions {
        let imported = self::imported(&function.opset_import);
        names(function.input.iter().chain(&function.output))?;
        scan.attributes(function.name(), &function.attribute_proto, 1, &imported)?;
        function.node.iter().try_for_each(|node| scan.node(node, 1, &imported))?;
    }
    scan.graph(&model.graph, 0, &imported)?;
    expanded::check(model)?;
    Ok(scan.nodes)
}

fn imported(imports: &[OperatorSetIdProto]) -> Imported<'_> {
    imports.iter().map(|import| domain_name(import.domain())).collect()
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), ModelError> {
    match names.into_iter().find(|name| name.len() > TENSOR_NAME_BYTES_MAX) {
        Some(name) => Err(ModelError::LongName { start: name.chars().take(40).collect() }),
        None => Ok(()),
    }
}

struct Scan<'a> {
    functions: HashSet<(&'a str, &'a str)>,
    nodes: usize,
    references: References,
}

impl Scan<'_> {
    fn graph(&mut self, graph: &GraphProto, depth: usize, imported: &Imported) -> Result<(), ModelError> {
        if depth > SUBGRAPH_DEPTH_MAX {
            return Err(ModelError::TooDeep);
        }
        names(graph.input.iter().chain(&graph.output).filter_map(|info| info.name.as_ref()))?;
        for tensor in &graph.initializer {
            names(tensor.name.as_ref())?;
            if depth > 0 || self.references == References::Refused || !data::is_external(tensor) {
                data::check(tensor, tensor.name())?;
            }
        }
        for sparse in &graph.sparse_initializer {
            names(sparse.values.name.as_ref())?;
            data::check_sparse(sparse, sparse.values.name())?;
        }
        graph.node.iter().try_for_each(|node| self.node(node, depth, imported))
    }

    fn node(&mut self, node: &NodeProto, depth: usize, imported: &Imported) -> Result<(), ModelError> {
        self.nodes += 1;
        if self.nodes > GRAPH_NODES_MAX {
            return Err(ModelError::TooManyNodes { nodes: self.nodes });
        }
        names(node.input.iter().chain(&node.output))?;
        let domain = domain_name(node.domain());
        if !imported.contains(domain) {
            return Err(ModelError::NoOpset { domain: domain.chars().take(100).collect() });
        }
        if !DOMAINS.contains(&domain) && !self.functions.contains(&(domain, node.op_type())) {
            let domain = domain.chars().take(100).collect();
            return Err(ModelError::UnknownDomain { node: node_name(node), domain });
        }
        self.attributes(&node_name(node), &node.attribute, depth, imported)
    }

    fn attributes(
        &mut self,
        owner: &str,
        attributes: &[AttributeProto],
        depth: usize,
        imported: &Imported,
    ) -> Result<(), ModelError> {
        for attribute in attributes {
            attribute.t.iter().chain(&attribute.tensors).try_for_each(|tensor| data::check(tensor, owner))?;
            let mut sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            sparse.try_for_each(|sparse| data::check_sparse(sparse, owner))?;
            let mut bodies = attribute.g.iter().chain(&attribute.graphs);
            bodies.try_for_each(|body| self.graph(body, depth + 1, imported))?;
        }
        Ok(())
    }
}

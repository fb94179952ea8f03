//! Who makes and who reads each tensor of a graph, which nodes depend on constants alone, and a
//! topological order. Names become numbers here; everything after this works on numbers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::error::ModelError;
use super::messages::{FunctionProto, GraphProto, NodeProto};
use super::scan::{bodies, node_name};

/// Operators whose result differs from run to run: a copy in each part would not agree.
const RANDOM: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// A graph as numbers. Tensors and nodes are indices.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Tensor -> name.
    pub names: Vec<String>,
    /// Name -> tensor.
    numbers: HashMap<String, usize>,
    /// Node -> tensors it reads, each once: its inputs, then what its subgraphs capture from outside.
    pub reads: Vec<Vec<usize>>,
    /// Node -> tensors it makes.
    pub writes: Vec<Vec<usize>>,
    /// Tensor -> node that makes it; inputs and initialisers have none.
    pub maker: Vec<Option<usize>>,
    /// Tensor -> known without any input: an initialiser, or made by a free node.
    pub constant: Vec<bool>,
    /// Node -> reads only constants, so that every part may have its own copy.
    pub free: Vec<bool>,
    /// The graph's inputs.
    pub inputs: Vec<usize>,
    /// The graph's outputs.
    pub outputs: Vec<usize>,
    /// Nodes in a topological order that keeps the file's own wherever it can.
    pub order: Vec<usize>,
}

/// What a set of nodes needs besides its activations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Constants {
    /// Free nodes, ascending.
    pub nodes: Vec<usize>,
    /// Initialisers, ascending.
    pub stored: Vec<usize>,
}

impl Links {
    /// Reads the links out of a graph whose inputs no longer list initialisers.
    ///
    /// # Errors
    /// When a name stands for two tensors, a tensor comes from nowhere, or the graph has a circle.
    pub(super) fn of(graph: &GraphProto, functions: &[FunctionProto]) -> Result<Self, ModelError> {
        let mut links = Self::default();
        for name in stored_names(graph) {
            let tensor = links.make(name, None)?;
            links.constant[tensor] = true;
        }
        for info in &graph.input {
            let tensor = links.make(info.name(), None)?;
            links.inputs.push(tensor);
        }
        for (index, node) in graph.node.iter().enumerate() {
            let made = node.output.iter().filter(|name| !name.is_empty());
            let writes = made.map(|name| links.make(name, Some(index))).collect::<Result<_, _>>()?;
            links.writes.push(writes);
        }
        let missing =
            |reader: String, name: &str| ModelError::NobodyMakes { reader, tensor: name.to_owned() };
        for node in &graph.node {
            let find = |name| links.find(name).ok_or_else(|| missing(node_name(node), name));
            let reads = reads_of(node).into_iter().map(find).collect::<Result<_, _>>()?;
            links.reads.push(reads);
        }
        for info in &graph.output {
            let tensor =
                links.find(info.name()).ok_or_else(|| missing("the model's outputs".into(), info.name()))?;
            if links.outputs.contains(&tensor) {
                return Err(ModelError::MadeTwice { tensor: info.name().to_owned() });
            }
            links.outputs.push(tensor);
        }
        links.sort(graph)?;
        links.mark_free(graph, functions);
        Ok(links)
    }

    /// The tensor of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    fn make(&mut self, name: &str, maker: Option<usize>) -> Result<usize, ModelError> {
        let tensor = self.names.len();
        if self.numbers.insert(name.to_owned(), tensor).is_some() {
            return Err(ModelError::MadeTwice { tensor: name.to_owned() });
        }
        self.names.push(name.to_owned());
        self.maker.push(maker);
        self.constant.push(false);
        Ok(tensor)
    }

    /// Nodes whose readings are all there, the one earliest in the file first.
    fn sort(&mut self, graph: &GraphProto) -> Result<(), ModelError> {
        let mut readers = vec![Vec::new(); graph.node.len()];
        let mut waits_for = vec![0usize; graph.node.len()];
        for (node, reads) in self.reads.iter().enumerate() {
            for maker in reads.iter().filter_map(|tensor| self.maker[*tensor]) {
                readers[maker].push(node);
                waits_for[node] += 1;
            }
        }
        let mut ready: BinaryHeap<_> =
            (0..graph.node.len()).filter(|node| waits_for[*node] == 0).map(Reverse).collect();
        while let Some(Reverse(node)) = ready.pop() {
            self.order.push(node);
            for reader in &readers[node] {
                waits_for[*reader] -= 1;
                if waits_for[*reader] == 0 {
                    ready.push(Reverse(*reader));
                }
            }
        }
        match waits_for.iter().position(|count| *count > 0) {
            Some(node) => Err(ModelError::Cycle { node: node_name(&graph.node[node]) }),
            None => Ok(()),
        }
    }

    fn mark_free(&mut self, graph: &GraphProto, functions: &[FunctionProto]) {
        let functions: HashSet<&str> = functions.iter().map(FunctionProto::name).collect();
        self.free = vec![false; graph.node.len()];
        for node in &self.order {
            let repeatable = is_repeatable(&graph.node[*node], &functions);
            if repeatable && self.reads[*node].iter().all(|tensor| self.constant[*tensor]) {
                self.free[*node] = true;
                self.writes[*node].iter().for_each(|tensor| self.constant[*tensor] = true);
            }
        }
    }

    /// Everything constant that these nodes and tensors rest on.
    pub(super) fn constants_of(
        &self,
        nodes: impl IntoIterator<Item = usize>,
        tensors: impl IntoIterator<Item = usize>,
    ) -> Constants {
        let read = nodes.into_iter().flat_map(|node| &self.reads[node]).copied();
        let mut open: Vec<usize> = read.chain(tensors).filter(|tensor| self.constant[*tensor]).collect();
        let mut seen = HashSet::new();
        let mut constants = Constants::default();
        while let Some(tensor) = open.pop() {
            match self.maker[tensor] {
                None if seen.insert(Err(tensor)) => constants.stored.push(tensor),
                Some(node) if seen.insert(Ok(node)) => {
                    constants.nodes.push(node);
                    open.extend(&self.reads[node]);
                }
                _ => {}
            }
        }
        constants.nodes.sort_unstable();
        constants.stored.sort_unstable();
        constants
    }

    /// Nodes on which the given tensors depend.
    pub(super) fn needed_by(&self, tensors: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.reads.len()];
        let mut open: Vec<usize> = tensors.iter().filter_map(|tensor| self.maker[*tensor]).collect();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut needed[node], true) {
                open.extend(self.reads[node].iter().filter_map(|tensor| self.maker[*tensor]));
            }
        }
        needed
    }
}

/// Names of the initialisers of a graph, sparse ones too.
pub(super) fn stored_names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter().map(|sparse| sparse.values.name());
    graph.initializer.iter().map(|tensor| tensor.name()).chain(sparse)
}

/// Whether a second run of a node gives the same result as the first.
fn is_repeatable(node: &NodeProto, functions: &HashSet<&str>) -> bool {
    // What a function does inside is not looked at.
    !RANDOM.contains(&node.op_type())
        && !functions.contains(node.op_type())
        && bodies(node).all(|body| body.node.iter().all(|inner| is_repeatable(inner, functions)))
}

/// Names that a node reads from the graph around it, each once.
pub(super) fn reads_of(node: &NodeProto) -> Vec<&str> {
    let mut seen = HashSet::new();
    let captured = bodies(node).flat_map(captured).collect::<Vec<_>>();
    let inputs = node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
    inputs.chain(captured).filter(|name| seen.insert(*name)).collect()
}

/// Names that a subgraph takes from outside.
fn captured(body: &GraphProto) -> Vec<&str> {
    let inputs = body.input.iter().map(|info| info.name());
    let made = body.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let own: HashSet<&str> = stored_names(body).chain(inputs).chain(made).collect();
    let outputs = body.output.iter().map(|info| info.name());
    let read = body.node.iter().flat_map(reads_of).chain(outputs);
    let mut seen = HashSet::new();
    read.filter(|name| !own.contains(name) && !name.is_empty() && seen.insert(*name)).collect()
}

//! A graph and its measured sizes -> order, cuts, blocks, skeleton and weights: all that a manifest
//! says, and the objects that it names.

use std::collections::{BTreeMap, HashMap, HashSet};

use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::{BLOCKS_MAX, FRAME_PAYLOAD_BYTES_MAX, VARIABLE_OUTPUTS_BYTES_MAX};
use stormo_protocol::model::{
    Batch, Block, BlockKind, Branch, Cut, Manifest, ObjectRef, OrtLevel, Region, VariableTensor,
};
use stormo_protocol::profile::{Reference, Work};
use stormo_protocol::tensor::TensorSpec;

use super::choose::{Chosen, choose, least_share};
use super::computing::Computing;
use super::constants::constant_bytes;
use super::dag::Frontier;
use super::error::ModelError;
use super::graph::Graph;
use super::order::best_order;
use super::parallel::{Parallel, arrange};
use super::skeleton::{self, Written};
use super::varying::varying_shapes;

/// Most bytes of activations alive at once in a batch: what a frame may carry, so that every cut of it
/// fits one, and no host is asked for more.
const BATCH_BYTES_MAX: u64 = FRAME_PAYLOAD_BYTES_MAX;

/// How fine to divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DivideOptions {
    /// Most blocks to make; the protocol allows 64.
    pub blocks_max: usize,
    /// Whether all outputs are wanted together behind the last block, because a card reads them there.
    /// Else each leaves from the block that makes it, and crosses no cut that nothing behind needs it for.
    pub keeps_outputs: bool,
}

impl Default for DivideOptions {
    fn default() -> Self {
        Self { blocks_max: BLOCKS_MAX, keeps_outputs: false }
    }
}

/// A divided model: what its manifest will say, and its objects.
#[derive(Debug, Clone)]
pub struct Division {
    /// The graph without its large weights, serialised.
    pub skeleton: Vec<u8>,
    /// The large weights as raw little-endian bytes, each once.
    pub weights: Vec<(ObjectRef, Vec<u8>)>,
    /// Every tensor that is an input, an output or crosses a cut.
    pub tensors: Vec<TensorSpec>,
    /// The model's inputs, as indices into `tensors`.
    pub inputs: Vec<u32>,
    /// The model's outputs, likewise.
    pub outputs: Vec<u32>,
    /// Blocks in order of execution, their times not known.
    pub blocks: Vec<Block>,
    /// `cuts[i]` lies before block `i`.
    pub cuts: Vec<Cut>,
    /// Stretches of blocks whose branches do not depend on each other.
    pub regions: Vec<Region>,
    /// Outputs that hold as much as is found: what the sizes say of their dimensions is a sample.
    pub variable: Vec<VariableTensor>,
    /// The open first axis, once [`Division::keep_batch`] found that it can be kept.
    pub batch: Option<Batch>,
}

/// Divides a graph. `sizes` holds element type and shape of the inputs and of everything that the
/// probe model gave out; what is missing there cannot cross a cut.
///
/// # Errors
/// When the size of an input or output is unknown, or the skeleton is too large.
pub fn divide(
    graph: &Graph,
    sizes: &HashMap<String, TensorSpec>,
    options: &DivideOptions,
) -> Result<Division, ModelError> {
    let names = graph.inputs().iter().map(|input| &input.name).chain(graph.outputs());
    for name in names {
        let known = sizes.get(name).is_some_and(|spec| spec.byte_length().is_ok());
        if !known {
            return Err(ModelError::SizeUnknown { tensor: name.clone() });
        }
    }
    let computing = Computing::of(graph, sizes, options.keeps_outputs);
    let mut order = best_order(&computing.dag);
    let blocks_max = options.blocks_max.clamp(1, BLOCKS_MAX);
    let regions = arrange(&computing.dag, &mut order, least_share(blocks_max));
    let input_bytes = computing.dag.inputs.iter().map(|edge| computing.dag.edges[*edge].bytes).sum();
    let Chosen { cuts, regions } = choose(&computing.dag, &order, regions, input_bytes, blocks_max);
    let bounds = [&[0], cuts.as_slice(), &[order.len()]].concat();

    // Constants come first, so that each part can take those that it needs and stay in order.
    let links = &graph.links;
    let mut nodes: Vec<usize> = links.order.iter().copied().filter(|node| links.free[*node]).collect();
    let free = nodes.len();
    nodes.extend(order.iter().map(|node| computing.nodes[*node]));
    let written = skeleton::write(graph, &nodes)?;

    let mut tensors = Tensors { graph, sizes, specs: Vec::new(), index_of: HashMap::new() };
    let inputs: Vec<u32> = links.inputs.iter().filter_map(|tensor| tensors.index(*tensor)).collect();
    let outputs =
        |tensors: &mut Tensors| links.outputs.iter().filter_map(|tensor| tensors.index(*tensor)).collect();
    let inner = cuts_at(&computing, &order, &bounds[1..bounds.len() - 1], &mut tensors);
    let outputs: Vec<u32> = outputs(&mut tensors);
    let sorted = |mut tensors: Vec<u32>| {
        tensors.sort_unstable();
        Cut::crossed_by(tensors)
    };
    let variable = variable(graph, &tensors);
    let first_cut = sorted(inputs.clone());
    let last_cut = sorted(outputs.clone());
    let cuts = std::iter::once(first_cut).chain(inner).chain([last_cut]).collect();

    let regions = regions.iter().map(|region| self::region(&computing, &order, &bounds, region, &tensors));
    let regions = regions.collect();
    let blocks = blocks(graph, &computing, &order, &bounds, free, &written);
    let Written { skeleton, weights, .. } = written;
    Ok(Division {
        skeleton,
        weights,
        tensors: tensors.specs,
        inputs,
        outputs,
        blocks,
        cuts,
        regions,
        variable,
        batch: None,
    })
}

/// The outputs whose shape depends on values.
fn variable(graph: &Graph, tensors: &Tensors) -> Vec<VariableTensor> {
    let varying = varying_shapes(&graph.model.graph, &graph.model.functions, &graph.links);
    let outputs = graph.links.outputs.iter().filter(|tensor| varying[**tensor]);
    let mut indices: Vec<u32> = outputs.filter_map(|tensor| tensors.index_of.get(tensor)).copied().collect();
    indices.sort_unstable();
    indices.dedup();
    let variable = |tensor| VariableTensor { tensor, bytes_max: VARIABLE_OUTPUTS_BYTES_MAX };
    indices.into_iter().map(variable).collect()
}

/// Numbers tensors as the manifest will list them.
struct Tensors<'a> {
    graph: &'a Graph,
    sizes: &'a HashMap<String, TensorSpec>,
    specs: Vec<TensorSpec>,
    index_of: HashMap<usize, u32>,
}

impl Tensors<'_> {
    /// Index of a tensor whose size is known, listing it if it is new.
    fn index(&mut self, tensor: usize) -> Option<u32> {
        if let Some(index) = self.index_of.get(&tensor) {
            return Some(*index);
        }
        let name = &self.graph.links.names[tensor];
        let TensorSpec { dtype, shape, .. } = self.sizes.get(name)?;
        let index = self.specs.len() as u32;
        self.specs.push(TensorSpec { name: name.clone(), dtype: *dtype, shape: shape.clone() });
        self.index_of.insert(tensor, index);
        Some(index)
    }
}

/// The cuts at these positions of the order.
fn cuts_at(computing: &Computing, order: &[usize], positions: &[usize], tensors: &mut Tensors) -> Vec<Cut> {
    let dag = &computing.dag;
    let links = &tensors.graph.links;
    let is_output: Vec<bool> =
        computing.tensors.iter().map(|tensor| links.outputs.contains(tensor)).collect();
    let mut frontier = Frontier::new(dag);
    let mut made = vec![false; dag.edges.len()];
    dag.inputs.iter().for_each(|edge| made[*edge] = true);
    let mut cuts = Vec::with_capacity(positions.len());
    for (index, node) in order.iter().enumerate() {
        if positions.get(cuts.len()) == Some(&index) {
            let live = frontier.live(&made);
            let is_settled =
                |edge: &usize| made[*edge] && is_output[*edge] && live.binary_search(edge).is_err();
            let settled: Vec<usize> = (0..made.len()).filter(is_settled).collect();
            let mut listed = |edges: Vec<usize>| {
                let indices = edges.iter().filter_map(|edge| tensors.index(computing.tensors[*edge]));
                let mut indices: Vec<u32> = indices.collect();
                indices.sort_unstable();
                indices
            };
            cuts.push(Cut { settled: listed(settled), ..Cut::crossed_by(listed(live)) });
        }
        frontier.run(*node);
        dag.writes[*node].iter().for_each(|edge| made[*edge] = true);
    }
    cuts
}

/// A region in terms of the blocks between these bounds of the order.
fn region(
    computing: &Computing,
    order: &[usize],
    bounds: &[usize],
    region: &Parallel,
    tensors: &Tensors,
) -> Region {
    let dag = &computing.dag;
    let block = |position: usize| bounds.partition_point(|bound| *bound < position) as u16;
    let branch = |first: usize, end: usize| {
        let nodes = &order[first..end];
        let made: HashSet<usize> = nodes.iter().flat_map(|node| &dag.writes[*node]).copied().collect();
        let read = nodes.iter().flat_map(|node| &dag.reads[*node]).filter(|edge| !made.contains(edge));
        let mut reads: Vec<u32> =
            read.filter_map(|edge| tensors.index_of.get(&computing.tensors[*edge])).copied().collect();
        reads.sort_unstable();
        reads.dedup();
        Branch { first: block(first), end: block(end), reads }
    };
    let branches = region.bounds.windows(2).map(|bounds| branch(bounds[0], bounds[1])).collect();
    Region { branches }
}

/// The blocks between these bounds of the order, which begins behind the `free` nodes.
fn blocks(
    graph: &Graph,
    computing: &Computing,
    order: &[usize],
    bounds: &[usize],
    free: usize,
    written: &Written,
) -> Vec<Block> {
    let links = &graph.links;
    let bytes = constant_bytes(&graph.model.graph, links);
    let constant_outputs = || links.outputs.iter().copied().filter(|tensor| links.constant[*tensor]);
    let mut frontier = Frontier::new(&computing.dag);
    let mut blocks = Vec::with_capacity(bounds.len() - 1);
    for (first, end) in bounds.iter().zip(&bounds[1..]) {
        let nodes = &order[*first..*end];
        let is_last = *end == order.len();
        let results = constant_outputs().filter(|_| is_last);
        let constants = links.constants_of(nodes.iter().map(|node| computing.nodes[*node]), results);
        let mut weights: Vec<u32> = Vec::new();
        let mut inline_bytes = 0u64;
        let made = constants.nodes.iter().flat_map(|node| &links.writes[*node]);
        for tensor in constants.stored.iter().chain(made) {
            match written.weight_of.get(&links.names[*tensor]) {
                Some(weight) => weights.push(*weight),
                None => inline_bytes = inline_bytes.saturating_add(bytes[*tensor]),
            }
        }
        weights.sort_unstable();
        weights.dedup();
        let mut peak_activation_bytes = frontier.position().bytes;
        for node in nodes {
            peak_activation_bytes = peak_activation_bytes.max(frontier.bytes_while(*node));
            frontier.run(*node);
        }
        blocks.push(Block {
            kind: BlockKind::Graph,
            first_node: if *first == 0 { 0 } else { (free + first) as u32 },
            end_node: (free + end) as u32,
            weights,
            inline_bytes,
            flops: nodes.iter().map(|node| computing.flops[*node]).fold(0, u64::saturating_add),
            work: nodes.iter().fold(Work::default(), |sum, node| sum.with(computing.work[*node])),
            peak_activation_bytes,
            time_ns: 0,
        });
    }
    blocks
}

impl Division {
    /// Floating-point operations of the whole model.
    pub fn flops(&self) -> u64 {
        self.blocks.iter().map(|block| block.flops).fold(0, u64::saturating_add)
    }

    /// Keeps the first axis open for up to as many items as were tried, given the sizes of runs on so many where
    /// the division was made of one. That is possible if every tensor at a cut is as it was in all of them, or
    /// so many times as long in its first axis alone. An output that holds what is found
    /// tells nothing: it may have any length anyway.
    ///
    /// # Errors
    /// The tensor that is neither.
    pub fn keep_batch(&mut self, tried: &[(u64, HashMap<String, TensorSpec>)]) -> Result<(), String> {
        let mut tensors = Vec::new();
        let is_variable = |index: u32| self.variable.iter().any(|variable| variable.tensor == index);
        for (index, of_one) in (0u32..).zip(&self.tensors).filter(|(index, _)| !is_variable(*index)) {
            let all = || tried.iter().map(|(items, sizes)| (*items, sizes.get(&of_one.name)));
            let follows = |(items, of_all): (u64, Option<&TensorSpec>)| {
                of_all.is_some_and(|of_all| of_one.items_of(of_all) == Some(items))
            };
            if all().all(follows) {
                tensors.push(index);
            } else if !all().all(|(_, of_all)| of_all == Some(of_one)) {
                return Err(of_one.name.clone());
            }
        }
        let peaks = self.blocks.iter().map(|block| block.peak_activation_bytes);
        let widest = peaks.max().unwrap_or(0).max(1);
        let most = tried.iter().map(|(items, _)| *items).max().unwrap_or(1);
        let items_max = (BATCH_BYTES_MAX / widest).min(most);
        let tells = self.inputs.iter().any(|input| tensors.contains(input));
        self.batch = (tells && items_max >= 2).then_some(Batch { tensors, items_max });
        Ok(())
    }

    /// The manifest of this division, no time measured yet.
    pub fn manifest(&self, model: &str, variant: &str, ort_level: OrtLevel) -> Manifest {
        Manifest {
            model: model.to_owned(),
            variant: variant.to_owned(),
            ort_level,
            skeleton: ObjectRef { id: ObjectId::of(&self.skeleton), bytes: self.skeleton.len() as u64 },
            weights: self.weights.iter().map(|(object, _)| *object).collect(),
            tensors: self.tensors.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            blocks: self.blocks.clone(),
            cuts: self.cuts.clone(),
            card: None,
            variable: self.variable.clone(),
            batch: self.batch.clone(),
            regions: self.regions.clone(),
            loss_samples: 0,
            reference: Reference::unmeasured(self.blocks.len()),
        }
    }

    /// The weights by name, for those who look them up.
    pub fn weights_by_id(&self) -> BTreeMap<ObjectId, &[u8]> {
        self.weights.iter().map(|(object, bytes)| (object.id, bytes.as_slice())).collect()
    }
}

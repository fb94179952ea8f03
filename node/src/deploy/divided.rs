//! A divided variant as it is measured: any part of it as a session, and what crosses its cuts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Block, Cut, Manifest};
use stormo_protocol::tensor::Tensor;

use super::{PrepareError, partition_source};
use crate::engine::{Engine, Partition};
use crate::model::Skeleton;

/// Tensors by name.
pub(super) type Tensors = HashMap<String, Tensor>;

/// A divided variant and the engine that runs it.
pub(super) struct Divided<'a> {
    pub(super) engine: &'a Engine,
    pub(super) manifest: &'a Manifest,
    pub(super) skeleton: &'a Skeleton,
    pub(super) weights: &'a HashMap<ObjectId, Arc<[u8]>>,
}

impl Divided<'_> {
    /// Loads a range of the graph's blocks.
    pub(super) async fn load(&self, blocks: Range<u16>) -> Result<Arc<Partition>, PrepareError> {
        self.load_by(self.manifest, blocks).await
    }

    /// Loads the whole graph so that it gives what crosses these cuts, and its outputs.
    pub(super) async fn load_open(&self, cuts: &[u16]) -> Result<Arc<Partition>, PrepareError> {
        let graph = self.manifest.graph_blocks();
        let blocks = &self.manifest.blocks[usize::from(graph.start)..usize::from(graph.end)];
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Err(PrepareError::Runtime("the variant has no blocks".to_owned()));
        };
        let weights = self.manifest.range_weights(graph.clone());
        let whole = Block { end_node: last.end_node, weights, ..first.clone() };
        let crossing = cuts.iter().chain([&graph.end]).map(|cut| &self.manifest.cuts[usize::from(*cut)]);
        let mut tensors: Vec<u32> = crossing.flat_map(|cut| cut.tensors.iter().copied()).collect();
        tensors.sort_unstable();
        tensors.dedup();
        let inputs = self.manifest.cuts[usize::from(graph.start)].clone();
        let open = Manifest {
            blocks: vec![whole],
            cuts: vec![inputs, Cut::crossed_by(tensors)],
            regions: Vec::new(),
            ..self.manifest.clone()
        };
        self.load_by(&open, 0..1).await
    }

    async fn load_by(&self, manifest: &Manifest, blocks: Range<u16>) -> Result<Arc<Partition>, PrepareError> {
        let weight = |id| self.weights.get(&id).cloned();
        let source = partition_source(self.skeleton, manifest, blocks, weight)?;
        Ok(self.engine.load("measured".into(), source).await?)
    }
}

/// Runs a part; what it was given and what it made.
pub(super) async fn run(part: &Partition, given: &Tensors) -> Result<Tensors, PrepareError> {
    let inputs = part.inputs().iter().filter_map(|spec| given.get(&spec.name).cloned()).collect();
    let mut tensors = given.clone();
    tensors.extend(by_name(part.run(inputs).await?.outputs));
    Ok(tensors)
}

/// Tensors by their names.
pub(super) fn by_name(tensors: impl IntoIterator<Item = Tensor>) -> Tensors {
    tensors.into_iter().map(|tensor| (tensor.spec().name.clone(), tensor)).collect()
}

//! Which tensors go into a session of some blocks and come out of it.

use stormo_protocol::model::Manifest;

use super::choice::BlockRange;

/// The graph of a divided variant as a profiler sees it: blocks, cuts, and the tensors of these.
#[derive(Debug, Clone)]
pub struct Structure {
    /// Bytes of each tensor.
    pub(super) tensor_bytes: Vec<u64>,
    /// Tensors that are there at each cut, settled outputs included: one cut more than blocks.
    cuts: Vec<Vec<usize>>,
    /// Tensors that each block reads from before it, ascending.
    reads: Vec<Vec<usize>>,
}

impl Structure {
    /// Of a manifest's graph, whose blocks read these tensors (indices into the manifest's) from outside
    /// themselves. Ends are no part of it.
    pub fn new(manifest: &Manifest, block_reads: &[Vec<usize>]) -> Self {
        let graph = manifest.graph_blocks();
        let cuts = &manifest.cuts[usize::from(graph.start)..=usize::from(graph.end)];
        Self {
            tensor_bytes: manifest.tensors.iter().map(|spec| spec.byte_length().unwrap_or(0)).collect(),
            cuts: cuts.iter().map(|cut| cut.there().map(|index| index as usize).collect()).collect(),
            reads: block_reads.to_vec(),
        }
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.cuts.len() - 1
    }

    /// What a session of these blocks is given.
    pub(super) fn inputs(&self, range: BlockRange) -> Vec<usize> {
        let before = &self.cuts[range.first];
        let reads = self.reads.get(range.first..range.end).into_iter().flatten().flatten();
        let mut inputs: Vec<usize> = reads.copied().filter(|tensor| before.contains(tensor)).collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// What it gives.
    pub(super) fn outputs(&self, range: BlockRange) -> impl Iterator<Item = usize> {
        let before = &self.cuts[range.first];
        self.cuts[range.end].iter().copied().filter(|tensor| !before.contains(tensor))
    }

    #[cfg(test)]
    pub(super) fn chain(tensor_bytes: &[u64]) -> Self {
        let cuts: Vec<Vec<usize>> = (0..tensor_bytes.len()).map(|tensor| vec![tensor]).collect();
        let reads = cuts[..cuts.len() - 1].to_vec();
        Self { tensor_bytes: tensor_bytes.to_vec(), cuts, reads }
    }
}

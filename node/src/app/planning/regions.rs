//! A model's parallel regions, as planners know them.

use std::ops::Range;

use stormo_protocol::model::Manifest;

use crate::plan::{Branch, Region};

/// Those that lie within these blocks, counted from the first of them, and whose branches can be run beside each other.
pub(super) fn regions(manifest: &Manifest, blocks: &Range<u16>) -> Vec<Region> {
    let bytes_of = |tensors: &[u32]| {
        let bytes = tensors.iter().map(|index| manifest.tensors[*index as usize].byte_length());
        bytes.fold(0_u64, |sum, bytes| sum.saturating_add(bytes.unwrap_or(u64::MAX)))
    };
    let is_within = |region: &&stormo_protocol::model::Region| {
        region.branches.iter().all(|branch| blocks.start <= branch.first && branch.end <= blocks.end)
    };
    let branch = |branch: &stormo_protocol::model::Branch| Branch {
        first: branch.first - blocks.start,
        end: branch.end - blocks.start,
        in_bytes: bytes_of(&branch.reads),
        out_bytes: bytes_of(&manifest.made_by(branch.first..branch.end)),
    };
    let region = |region: &stormo_protocol::model::Region| Region {
        branches: region.branches.iter().map(branch).collect(),
    };
    let can_fork = |region: &&stormo_protocol::model::Region| manifest.can_fork(region, blocks);
    manifest.regions.iter().filter(is_within).filter(can_fork).map(region).collect()
}

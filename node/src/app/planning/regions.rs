//! A model's parallel regions, as planners know them.

use stormo_protocol::model::Manifest;

use super::place;
use crate::plan::{Branch, Region};

/// Those that lie between these cuts, each branch between two of them, and whose branches can be run beside each other.
pub(super) fn regions(manifest: &Manifest, cuts: &[u16]) -> Vec<Region> {
    let (Some(start), Some(end)) = (cuts.first(), cuts.last()) else { return vec![] };
    let bytes_of = |tensors: &[u32]| {
        let bytes = tensors.iter().map(|index| manifest.tensors[*index as usize].byte_length());
        bytes.fold(0_u64, |sum, bytes| sum.saturating_add(bytes.unwrap_or(u64::MAX)))
    };
    let branch = |branch: &stormo_protocol::model::Branch| {
        Some(Branch {
            first: place(cuts, branch.first)?,
            end: place(cuts, branch.end)?,
            in_bytes: bytes_of(&branch.reads),
            out_bytes: bytes_of(&manifest.made_by(branch.first..branch.end)),
        })
    };
    let region = |region: &stormo_protocol::model::Region| {
        let branches = region.branches.iter().map(branch).collect::<Option<_>>()?;
        manifest.can_fork(region, &(*start..*end)).then_some(Region { branches })
    };
    manifest.regions.iter().filter_map(region).collect()
}

//! Whether the branches that a manifest promises are branches of the skeleton's graph: a plan runs them
//! apart, each on what it is said to read.

use std::collections::HashSet;

use stormo_protocol::model::{Branch, Manifest};

use super::error::ModelError;
use super::links::Links;

/// Checks every branch. The manifest must have passed its own check.
///
/// # Errors
/// `Mismatch`, when a branch reads something else.
pub(super) fn check(links: &Links, manifest: &Manifest) -> Result<(), ModelError> {
    let branches = manifest.regions.iter().flat_map(|region| &region.branches);
    for Branch { first, end, reads } in branches {
        let blocks = &manifest.blocks[usize::from(*first)..usize::from(*end)];
        let (start, stop) = (blocks[0].first_node as usize, blocks[blocks.len() - 1].end_node as usize);
        let nodes = || (start..stop).filter(|node| links.free.get(*node) == Some(&false));
        let made: HashSet<usize> = nodes().flat_map(|node| &links.writes[node]).copied().collect();
        let read = nodes().flat_map(|node| &links.reads[node]).copied();
        let found: HashSet<usize> =
            read.filter(|tensor| !made.contains(tensor) && !links.constant[*tensor]).collect();
        let names = reads.iter().map(|tensor| &manifest.tensors[*tensor as usize].name);
        let promised: Option<HashSet<usize>> = names.map(|name| links.find(name)).collect();
        if promised.as_ref() != Some(&found) {
            return Err(ModelError::Mismatch { what: format!("blocks {first}..{end} are no branch") });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

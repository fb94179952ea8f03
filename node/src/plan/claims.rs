//! What a partial plan has taken of the nodes' memory: kept while it may still matter.

use super::bounds::Last;
use super::costs::Costs;

/// What a partial plan has taken of one member's memory.
#[derive(Debug, Clone, Copy)]
struct Claim {
    member: usize,
    weights_bytes: u64,
    peak_bytes: u64,
}

/// Claims by member, only where the rest of the model might not fit as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    pub(super) fn uses_no_more_than(&self, other: &Self) -> bool {
        let covers = |claim: &Claim| {
            other.0.iter().any(|more| {
                more.member == claim.member
                    && more.weights_bytes >= claim.weights_bytes
                    && more.peak_bytes >= claim.peak_bytes
            })
        };
        self.0.iter().all(covers)
    }

    /// With a run more; none if the member cannot hold it beside what it holds.
    pub(super) fn after_run(&self, costs: &Costs, member: usize, first: usize, end: usize) -> Option<Self> {
        let ranges = costs.ranges;
        let mut claims = self.0.clone();
        if costs.last_after(member, first, end) == Last::Cold {
            let (weights_bytes, peak_bytes) =
                (ranges.weights_bytes(first, end), ranges.peak_bytes(first, end));
            match claims.iter_mut().find(|claim| claim.member == member) {
                Some(claim) => {
                    claim.weights_bytes += weights_bytes;
                    claim.peak_bytes = claim.peak_bytes.max(peak_bytes);
                    if claim.weights_bytes + claim.peak_bytes > costs.memory_free_bytes(member) {
                        return None;
                    }
                }
                None => claims.push(Claim { member, weights_bytes, peak_bytes }),
            }
        }
        // Where all the rest would fit too, what was used no longer matters.
        let blocks = costs.block_count();
        let (rest_weights, rest_peak) = (ranges.weights_bytes(end, blocks), ranges.peak_bytes(end, blocks));
        claims.retain(|claim| {
            claim.weights_bytes + rest_weights + claim.peak_bytes.max(rest_peak)
                > costs.memory_free_bytes(claim.member)
        });
        Some(Self(claims))
    }
}

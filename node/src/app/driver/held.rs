//! What the stages of a node hold of tensors, and whether more fits: a receiver that is slow, or gone, may not make this
//! node hold without end, nor one origin take it all.

use std::cmp::max;

use stormo_protocol::frame::Descriptor;
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;

/// However large the machine.
const BYTES_MAX: u64 = 4 * FRAME_PAYLOAD_BYTES_MAX;

/// Bytes that stages hold at most: a quarter of what partitions may take, one frame of the largest in any case.
pub(super) fn bytes_max(memory_budget_bytes: u64) -> u64 {
    (memory_budget_bytes / 4).clamp(FRAME_PAYLOAD_BYTES_MAX, BYTES_MAX)
}

/// Whether so many bytes more of this origin's fit beside what stages hold already (of whom, how much): within all, and
/// one origin within half unless it holds nothing yet.
pub(super) fn fits(
    held: impl IntoIterator<Item = (NodeId, u64)>,
    (origin, bytes): (NodeId, u64),
    bytes_max: u64,
) -> bool {
    let (mut all, mut own) = (0u64, 0u64);
    for (of, held) in held {
        all = all.saturating_add(held);
        own = own.saturating_add(if of == origin { held } else { 0 });
    }
    let is_within = |held: u64, max: u64| held == 0 || held.saturating_add(bytes) <= max;
    is_within(all, bytes_max) && is_within(own, max(bytes_max / 2, 1))
}

/// Bytes of what is described, once it is decoded.
pub(super) fn described_bytes(described: &[Descriptor]) -> u64 {
    let lengths = described.iter().map(|descriptor| descriptor.spec.byte_length().unwrap_or(u64::MAX));
    lengths.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_frame_of_the_largest_fits_a_node_that_holds_nothing() {
        for budget in [0, MIB, u64::MAX] {
            let most = bytes_max(budget);
            assert!((FRAME_PAYLOAD_BYTES_MAX..=4 * FRAME_PAYLOAD_BYTES_MAX).contains(&most));
            assert!(fits([], (NodeId([1; 32]), FRAME_PAYLOAD_BYTES_MAX), most));
        }
    }

    #[test]
    fn no_origin_takes_the_share_of_others_and_all_together_stay_within_the_bound() {
        let [busy, other, third] = [1, 2, 3].map(|index| NodeId([index; 32]));
        let held = |sizes: &[(NodeId, u64)]| sizes.to_vec();
        let most = 100 * MIB;
        assert!(fits(held(&[(busy, 30 * MIB), (busy, 10 * MIB)]), (busy, 10 * MIB), most));
        assert!(!fits(held(&[(busy, 30 * MIB), (busy, 10 * MIB)]), (busy, 10 * MIB + 1), most));
        assert!(fits(held(&[(busy, 50 * MIB)]), (other, 50 * MIB), most));
        assert!(fits(held(&[(busy, 40 * MIB), (third, 10 * MIB)]), (other, 50 * MIB), most));
        assert!(!fits(held(&[(busy, 50 * MIB), (third, 10 * MIB)]), (other, 50 * MIB), most));
        assert!(!fits(held(&[(busy, u64::MAX), (third, u64::MAX)]), (other, 1), most), "no overflow");
    }
}

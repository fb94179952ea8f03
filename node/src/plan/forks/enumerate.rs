//! Every way to hand the parts of a fork out, as far as the work reaches and what is placed so far may still matter.

use super::search::{Ends, Keep};

/// What may be handed out, piece by piece.
pub(super) trait HandOut {
    /// A piece on a member.
    type Placed: Copy;

    /// Pieces that may be placed next; none if all are.
    fn next(&self, placed: &[Self::Placed]) -> Vec<Self::Placed>;

    /// From the fork's input to the join's of what is placed: more makes none of it sooner.
    fn join_ms(&self, ends: Ends, placed: &[Self::Placed]) -> f64;

    /// Tells of what is placed, if that is all.
    fn tell(&self, ends: Ends, placed: &[Self::Placed], keep: &mut dyn Keep);
}

/// Tells all that may matter, every piece tried behind what is placed.
pub(super) fn try_all<H: HandOut>(
    parts: &H,
    ends: Ends,
    placed: &mut Vec<H::Placed>,
    work_left: &mut usize,
    keep: &mut dyn Keep,
) {
    let next = parts.next(placed);
    if next.is_empty() {
        parts.tell(ends, placed, keep);
    }
    for piece in next {
        if *work_left == 0 {
            return;
        }
        *work_left -= 1;
        placed.push(piece);
        if parts.join_ms(ends, placed) < keep.below_ms() {
            try_all(parts, ends, placed, work_left, keep);
        }
        placed.pop();
    }
}

//! A model divided into so many parts of about equal time, where dividing costs little. Which node gets which part is
//! decided elsewhere.

use std::ops::Range;

/// The slowest part may take so many percent of what it takes in the best balanced division, where that
/// saves time at the cuts. A guess: a full pipeline loses as much of its rate at most.
const SLOWEST_PERCENT_MAX: u64 = 125;
/// What a byte across a cut is taken to cost, nanoseconds: that of 1 Gbit/s. Nodes are not chosen yet.
const BYTE_NS: u64 = 8;

/// Divides so many blocks into `count` ranges. `range_ns` tells how long a range takes as one session, which is more than
/// its blocks in a longer one where a cut parts what runs fused, or asks for another layout; `cut_bytes[i]` crosses the
/// cut before block `i`. Of all divisions that are balanced well enough, one that takes least time from end to end; `None`
/// when there are fewer blocks than parts, or no parts.
pub fn parts(
    blocks: usize,
    range_ns: impl Fn(Range<usize>) -> u64,
    cut_bytes: &[u64],
    count: usize,
) -> Option<Vec<Range<usize>>> {
    let (slowest_ns, _) = best(blocks, count, |part| Some(range_ns(part)), u64::max)?;
    let limit_ns = slowest_ns.saturating_mul(SLOWEST_PERCENT_MAX) / 100;
    let cost_ns = |part: Range<usize>| {
        let crossing = if part.start == 0 { 0 } else { cut_bytes[part.start] };
        let run_ns = range_ns(part);
        (run_ns <= limit_ns).then(|| run_ns.saturating_add(crossing.saturating_mul(BYTE_NS)))
    };
    best(blocks, count, cost_ns, u64::saturating_add).map(|(_, parts)| parts)
}

/// The division of least cost, and its cost: that of its parts, joined. A part without cost may not be.
fn best(
    blocks: usize,
    count: usize,
    cost: impl Fn(Range<usize>) -> Option<u64>,
    join: impl Fn(u64, u64) -> u64,
) -> Option<(u64, Vec<Range<usize>>)> {
    // `steps[parts][end]`: the least cost of so many parts up to there, and where the last begins.
    let mut steps: Vec<Vec<Option<(u64, usize)>>> = vec![vec![None; blocks + 1]];
    steps[0][0] = Some((0, 0));
    for parts in 1..=count {
        let last_part = |end: usize| {
            let begun = (0..end).filter_map(|start| {
                let (before, _) = steps[parts - 1][start]?;
                Some((join(before, cost(start..end)?), start))
            });
            begun.min()
        };
        let step = (0..=blocks).map(last_part).collect();
        steps.push(step);
    }
    let (least, _) = steps[count][blocks].filter(|_| count > 0)?;
    let mut end = blocks;
    let mut ranges = Vec::new();
    for step in steps.iter().skip(1).rev() {
        let (_, start) = step[end]?;
        ranges.push(start..end);
        end = start;
    }
    ranges.reverse();
    Some((least, ranges))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every division into so many ranges.
    fn all(blocks: usize, count: usize) -> Vec<Vec<Range<usize>>> {
        if count == 1 {
            return if blocks == 0 { vec![] } else { vec![vec![0..blocks]] };
        }
        let with_last = |start: usize| {
            let before = all(start, count - 1).into_iter();
            before.map(move |mut ranges| {
                ranges.push(start..blocks);
                ranges
            })
        };
        (1..blocks).flat_map(with_last).collect()
    }

    /// The time of a range, and what all of a division takes.
    struct Times {
        block_ns: Vec<u64>,
        enter_ns: Vec<u64>,
        cut_bytes: Vec<u64>,
    }

    impl Times {
        fn range_ns(&self, part: Range<usize>) -> u64 {
            self.enter_ns[part.start] + self.block_ns[part].iter().sum::<u64>()
        }

        fn slowest_ns(&self, division: &[Range<usize>]) -> u64 {
            division.iter().map(|part| self.range_ns(part.clone())).max().unwrap()
        }

        fn all_ns(&self, division: &[Range<usize>]) -> u64 {
            let runs: u64 = division.iter().map(|part| self.range_ns(part.clone())).sum();
            runs + division.iter().skip(1).map(|part| self.cut_bytes[part.start] * BYTE_NS).sum::<u64>()
        }

        fn parts(&self, count: usize) -> Option<Vec<Range<usize>>> {
            parts(self.block_ns.len(), |part| self.range_ns(part), &self.cut_bytes, count)
        }
    }

    proptest! {
        #[test]
        fn no_balanced_division_takes_less(
            blocks in prop::collection::vec((1u64..500, 0u64..100, 0u64..50), 1..10),
            count in 1usize..6,
        ) {
            let block_ns = blocks.iter().map(|block| block.0).collect();
            let enter_ns = blocks.iter().map(|block| block.1).collect();
            let times = Times { block_ns, enter_ns, cut_bytes: blocks.iter().map(|block| block.2).collect() };
            let every = all(blocks.len(), count);
            let found = times.parts(count);
            prop_assert_eq!(found.is_some(), !every.is_empty());
            let Some(found) = found else { return Ok(()) };
            prop_assert!(every.contains(&found));
            let limit_ns = every.iter().map(|division| times.slowest_ns(division)).min().unwrap() * 125 / 100;
            prop_assert!(times.slowest_ns(&found) <= limit_ns);
            let balanced = every.iter().filter(|division| times.slowest_ns(division) <= limit_ns);
            prop_assert_eq!(times.all_ns(&found), balanced.map(|division| times.all_ns(division)).min().unwrap());
        }
    }

    fn found(
        block_ns: &[u64],
        enter_ns: &[u64],
        cut_bytes: &[u64],
        count: usize,
    ) -> Option<Vec<Range<usize>>> {
        let [block_ns, enter_ns, cut_bytes] = [block_ns, enter_ns, cut_bytes].map(<[u64]>::to_vec);
        Times { block_ns, enter_ns, cut_bytes }.parts(count)
    }

    #[test]
    fn a_thin_cut_is_worth_a_little_balance() {
        let flat = [0; 4];
        assert_eq!(found(&[4, 1, 4], &flat, &[9, 50, 10, 9], 2), Some(vec![0..2, 2..3]));
        assert_eq!(found(&[4, 1, 4], &flat, &[9, 10, 50, 9], 2), Some(vec![0..1, 1..3]));
        assert_eq!(found(&[9, 1, 1, 1], &flat, &[0, 50, 1, 1, 0], 2), Some(vec![0..2, 2..4]));
        assert_eq!(found(&[4, 4, 4, 4], &flat, &[0, 1, 50, 1, 0], 2), Some(vec![0..2, 2..4]));
        assert_eq!(found(&[4, 4], &flat, &[0, 1, 0], 3), None);
        assert_eq!(found(&[4, 4], &flat, &[0, 1, 0], 0), None);
    }

    #[test]
    fn of_cuts_as_thin_the_one_that_parts_nothing_fused_is_taken() {
        assert_eq!(found(&[400, 10, 400], &[0, 60, 5], &[0, 9, 9, 0], 2), Some(vec![0..2, 2..3]));
        assert_eq!(found(&[400, 10, 400], &[0, 5, 60], &[0, 9, 9, 0], 2), Some(vec![0..1, 1..3]));
    }
}

//! A model divided into so many parts of about equal time, at thin cuts. Which node gets which part is
//! decided elsewhere.

use std::ops::Range;

/// The slowest part may take so many percent of what it takes in the best balanced division, where that
/// saves bytes at the cuts. A guess: a full pipeline loses as much of its rate at most.
const SLOWEST_PERCENT_MAX: u64 = 125;

/// Divides blocks of these times into `count` ranges. `cut_bytes[i]` crosses the cut before block `i`. Of
/// all divisions that are balanced well enough, one with the fewest bytes at its cuts; `None` when there
/// are fewer blocks than parts, or no parts.
pub fn parts(times_us: &[u64], cut_bytes: &[u64], count: usize) -> Option<Vec<Range<usize>>> {
    let mut before_us = vec![0];
    for time_us in times_us {
        before_us.push(before_us[before_us.len() - 1] + time_us);
    }
    let time_us = |part: &Range<usize>| before_us[part.end] - before_us[part.start];
    let (slowest_us, _) = best(times_us.len(), count, |part| Some(time_us(&part)), u64::max)?;
    let limit_us = slowest_us.saturating_mul(SLOWEST_PERCENT_MAX) / 100;
    let bytes = |part: Range<usize>| {
        let crossing = if part.start == 0 { 0 } else { cut_bytes[part.start] };
        (time_us(&part) <= limit_us).then_some(crossing)
    };
    best(times_us.len(), count, bytes, u64::saturating_add).map(|(_, parts)| parts)
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

    fn slowest(times_us: &[u64], division: &[Range<usize>]) -> u64 {
        division.iter().map(|part| times_us[part.clone()].iter().sum()).max().unwrap()
    }

    fn crossing(cut_bytes: &[u64], division: &[Range<usize>]) -> u64 {
        division.iter().skip(1).map(|part| cut_bytes[part.start]).sum()
    }

    proptest! {
        #[test]
        fn no_balanced_division_is_thinner(
            blocks in prop::collection::vec((1u64..50, 0u64..50), 1..10),
            count in 1usize..6,
        ) {
            let (times_us, mut cut_bytes): (Vec<u64>, Vec<u64>) = blocks.into_iter().unzip();
            cut_bytes.push(0);
            let every = all(times_us.len(), count);
            let found = parts(&times_us, &cut_bytes, count);
            prop_assert_eq!(found.is_some(), !every.is_empty());
            let Some(found) = found else { return Ok(()) };
            prop_assert!(every.contains(&found));
            let limit_us = every.iter().map(|division| slowest(&times_us, division)).min().unwrap() * 125 / 100;
            prop_assert!(slowest(&times_us, &found) <= limit_us);
            let balanced = every.iter().filter(|division| slowest(&times_us, division) <= limit_us);
            let thinnest = balanced.map(|division| crossing(&cut_bytes, division)).min().unwrap();
            prop_assert_eq!(crossing(&cut_bytes, &found), thinnest);
        }
    }

    #[test]
    fn a_thin_cut_is_worth_a_little_balance() {
        assert_eq!(parts(&[4, 1, 4], &[9, 50, 10, 9], 2), Some(vec![0..2, 2..3]));
        assert_eq!(parts(&[4, 1, 4], &[9, 10, 50, 9], 2), Some(vec![0..1, 1..3]));
        assert_eq!(parts(&[9, 1, 1, 1], &[0, 50, 1, 1, 0], 2), Some(vec![0..2, 2..4]));
        assert_eq!(parts(&[4, 4, 4, 4], &[0, 1, 50, 1, 0], 2), Some(vec![0..2, 2..4]));
        assert_eq!(parts(&[4, 4], &[0, 1, 0], 3), None);
        assert_eq!(parts(&[4, 4], &[0, 1, 0], 0), None);
    }
}

//! Which ranges of blocks are worth measuring, the most telling first.

use std::collections::HashSet;

/// The shortest of the ranges that overlap by half.
const NESTED_BLOCKS_MIN: usize = 8;
/// Ranges so long are measured wherever they begin, in this order, after single blocks and pairs: what ONNX
/// Runtime fuses, or fails to, shows within few blocks, and eight hold what skips some of them, too.
const LENGTHS: [usize; 3] = [3, 4, 8];

/// A block that takes longer by itself than its part of the whole by more than this share of the whole
/// depends on its neighbours.
const DEPENDS_SHARE: f64 = 0.1;
/// The most blocks whose neighbours are looked at.
const DEPENDENT_BLOCKS_MAX: usize = 6;
/// Neighbours of such a block to either side.
const NEIGHBOURS: usize = 4;

/// Blocks that run as one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    /// First block.
    pub first: usize,
    /// One past the last block.
    pub end: usize,
}

impl BlockRange {
    /// How many blocks; at least one.
    pub fn blocks(self) -> usize {
        self.end - self.first
    }
}

/// Ranges of a graph of so many blocks, in families, none twice, each of which adds to what those before
/// it tell: the whole, each block by itself, pairs, ranges of 8, 16, 32 ... blocks that overlap by half, those
/// around blocks that depend on their neighbours, and all of three, four and eight blocks.
pub fn families(blocks: usize, dependent: &[usize]) -> Vec<Vec<BlockRange>> {
    if blocks == 0 {
        return Vec::new();
    }
    let all_of = |len: usize| {
        (0..(blocks + 1).saturating_sub(len)).map(move |first| BlockRange { first, end: first + len })
    };
    let lengths = std::iter::successors(Some(NESTED_BLOCKS_MIN), |len| Some(len * 2));
    let nested = lengths.take_while(|len| *len < blocks).flat_map(|len| {
        (0..blocks).step_by(len / 2).map(move |first| BlockRange { first, end: (first + len).min(blocks) })
    });
    let around = dependent.iter().flat_map(|block| {
        let ends = block + 1..=(block + 1 + NEIGHBOURS).min(blocks);
        (block.saturating_sub(NEIGHBOURS)..=*block)
            .flat_map(move |first| ends.clone().map(move |end| BlockRange { first, end }))
    });
    let mut families: Vec<Vec<BlockRange>> = vec![
        all_of(blocks).collect(),
        all_of(1).collect(),
        all_of(2).collect(),
        nested.collect(),
        around.collect(),
    ];
    families.extend(LENGTHS.map(|len| all_of(len).collect()));
    let mut seen = HashSet::new();
    for family in &mut families {
        family.retain(|range| seen.insert(*range));
    }
    families
}

/// The blocks that depend most on their neighbours, by the time of each alone and of the whole, which is less
/// than the sum.
pub fn dependent(alone_us: &[f64], whole_us: f64) -> Vec<usize> {
    let part = whole_us / alone_us.iter().sum::<f64>();
    let mut longer: Vec<(usize, f64)> =
        alone_us.iter().map(|alone_us| alone_us * (1.0 - part)).enumerate().collect();
    longer.retain(|(_, longer_us)| *longer_us > DEPENDS_SHARE * whole_us);
    longer.sort_by(|one, other| other.1.total_cmp(&one.1));
    longer.into_iter().take(DEPENDENT_BLOCKS_MAX).map(|(block, _)| block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_within_the_graph_and_there_once() {
        for blocks in 1..=70 {
            let all: Vec<BlockRange> = families(blocks, &[0, blocks / 2, blocks - 1]).concat();
            let distinct: HashSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
            assert!(all.iter().all(|range| range.first < range.end && range.end <= blocks));
            let singles = all.iter().filter(|range| range.blocks() == 1).count();
            assert_eq!(singles, blocks, "every block by itself");
            assert!(all[0] == BlockRange { first: 0, end: blocks }, "the whole comes first");
            assert!(all.len() <= 6 * blocks + 75);
        }
    }

    #[test]
    fn a_block_depends_on_its_neighbours_if_the_whole_spares_most_of_its_time() {
        assert_eq!(dependent(&[100.0, 2500.0, 100.0], 300.0), [1, 0, 2]);
        assert_eq!(dependent(&[100.0, 2500.0, 1.0], 2000.0), [1]);
        assert_eq!(dependent(&[100.0, 100.0, 100.0], 290.0), [0; 0]);
        assert_eq!(dependent(&[0.0, f64::NAN], 290.0), [0; 0]);
        assert_eq!(dependent(&[], 0.0), [0; 0]);
    }
}

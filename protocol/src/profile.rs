//! Times as nodes tell them each other: classes of work, how fast a node does each, and how long every
//! range of a variant's blocks took where it was profiled. How that is measured, fitted and carried over
//! to another node is not said here.

use serde::{Deserialize, Serialize};

/// Classes of work that machines differ in, relative to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkClass {
    /// Convolutions, counted in operations: a multiply-add is two.
    Convolution,
    /// Convolutions of each channel by itself, counted likewise.
    Depthwise,
    /// Products of matrices, counted likewise.
    Matrix,
    /// Convolutions and products of 8-bit integers, counted likewise.
    Integer,
    /// All else, counted in bytes read and written.
    Memory,
}

impl WorkClass {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in the order of [`Work`] and [`Speeds`].
    pub const ALL: [Self; Self::COUNT] =
        [Self::Convolution, Self::Depthwise, Self::Matrix, Self::Integer, Self::Memory];

    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Depthwise => "depthwise",
            Self::Matrix => "matrix",
            Self::Integer => "integer",
            Self::Memory => "memory",
        }
    }
}

/// An amount of work of each class: operations, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Work([u64; WorkClass::COUNT]);

impl Work {
    /// The amount of one class.
    pub fn of(&self, class: WorkClass) -> u64 {
        self.0[class as usize]
    }

    /// The same and more of one class.
    #[must_use]
    pub fn with(mut self, (class, amount): (WorkClass, u64)) -> Self {
        self.0[class as usize] = self.of(class).saturating_add(amount);
        self
    }
}

/// Speed of one core at each class of work, in millions of operations (or bytes) a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speeds([f64; WorkClass::COUNT]);

impl Speeds {
    /// Slowest and fastest that is believed.
    pub const RANGE: (f64, f64) = (1e-3, 1e9);

    /// Brought into range; what is no number becomes the slowest.
    pub fn new(millions: [f64; WorkClass::COUNT]) -> Self {
        let (slowest, fastest) = Self::RANGE;
        Self(millions.map(|speed| if speed.is_nan() { slowest } else { speed.clamp(slowest, fastest) }))
    }

    /// The speed at one class.
    pub fn of(&self, class: WorkClass) -> f64 {
        self.0[class as usize]
    }

    /// All of them times a factor.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self::new(self.0.map(|speed| speed * factor))
    }

    /// The same, brought into range after it came from elsewhere.
    #[must_use]
    pub fn sane(self) -> Self {
        Self::new(self.0)
    }
}

/// Longest time that a profile may name, nanoseconds: eleven days.
const TIME_NS_MAX: u64 = 1_000_000_000_000_000;

/// How long a variant's graph took on the node that profiled it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// That node's speeds.
    pub speeds: Speeds,
    /// For each range of the graph's blocks its time as one session, nanoseconds, by [`range_index`]; no
    /// less than its blocks add.
    pub range_ns: Vec<u64>,
}

impl Reference {
    /// Of a graph that nobody has measured.
    pub fn unmeasured(graph_blocks: usize) -> Self {
        Self { speeds: Speeds::new([1.0; WorkClass::COUNT]), range_ns: vec![0; range_count(graph_blocks)] }
    }

    /// Whether it describes a graph of blocks that add these times, and names none that breaks arithmetic.
    pub fn is_sound(&self, block_ns: &[u64]) -> bool {
        let blocks = block_ns.len();
        if self.range_ns.len() != range_count(blocks)
            || self.range_ns.iter().any(|time_ns| *time_ns > TIME_NS_MAX)
            || self.speeds != self.speeds.sane()
        {
            return false;
        }
        let mut ranges_ns = self.range_ns.iter();
        (0..blocks).all(|first| {
            let sums_ns = block_ns[first..].iter().scan(0u64, |sum_ns, time_ns| {
                *sum_ns = sum_ns.saturating_add(*time_ns);
                Some(*sum_ns)
            });
            sums_ns.zip(&mut ranges_ns).all(|(blocks_ns, range_ns)| blocks_ns <= *range_ns)
        })
    }
}

/// How many ranges so many blocks have.
pub fn range_count(blocks: usize) -> usize {
    blocks * (blocks + 1) / 2
}

/// Where a range of blocks `first..end` stands: those that begin with block 0 come first, by their ends,
/// then those that begin with block 1. `first < end <= blocks`.
pub fn range_index(blocks: usize, first: usize, end: usize) -> usize {
    debug_assert!(first < end && end <= blocks);
    first * (2 * blocks - first + 1) / 2 + end - first - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_numbered_without_gap() {
        for blocks in 1..9 {
            let ranges = (0..blocks).flat_map(|first| (first + 1..=blocks).map(move |end| (first, end)));
            let indices: Vec<usize> = ranges.map(|(first, end)| range_index(blocks, first, end)).collect();
            assert_eq!(indices, (0..range_count(blocks)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn speeds_are_brought_into_range() {
        let speeds = Speeds::new([f64::NAN, f64::INFINITY, -1.0, 0.0, 5.0]);
        assert_eq!(speeds.0, [1e-3, 1e9, 1e-3, 1e-3, 5.0]);
    }

    #[test]
    fn a_reference_that_contradicts_itself_is_refused() {
        let sound = Reference { range_ns: vec![5, 8, 4], ..Reference::unmeasured(2) };
        assert!(sound.is_sound(&[5, 3]));
        assert!(!sound.is_sound(&[6, 3]), "the blocks take longer than the range");
        assert!(!sound.is_sound(&[5]), "of another graph");
        let short = Reference { range_ns: vec![5, 8], ..Reference::unmeasured(2) };
        assert!(!short.is_sound(&[5, 3]), "a range is missing");
        let nothing = Speeds([f64::NAN; WorkClass::COUNT]);
        assert!(!Reference { speeds: nothing, ..sound.clone() }.is_sound(&[5, 3]));
        let endless = Reference { range_ns: vec![u64::MAX, 8, 4], ..Reference::unmeasured(2) };
        assert!(!endless.is_sound(&[5, 3]));
    }
}

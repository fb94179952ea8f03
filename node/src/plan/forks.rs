//! Plans that fork as often as they like: into branches of parallel regions, into strips of an image's rows, into shares
//! of a batch. What such a plan is; what it costs is said in `forks/price.rs`, and how a good one is found in
//! `forks/search.rs`.
//!
//! A fork is the node that has what the parts need, the join the next stage, or the origin where the plan ends. Two forks
//! have a stage between them.

mod branches;
mod candidates;
mod enumerate;
mod lanes;
mod price;
mod search;
mod shares;
mod tables;

use super::price::StageShape;
use super::split::{Region, SplitRun};

pub use search::{Forked, Scope, best_forked};

pub(super) use search::{Count, best_of};

/// Nodes that one stretch is divided over. A guess: each further one saves less, and takes its turn at the fork's way out.
pub(super) const SHARES_MAX: usize = 8;

/// The most rows or items that a stretch may be divided by.
pub(super) const UNITS_MAX: u32 = 65_536;

/// What of a model may run beside itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forks {
    /// Blocks that fall into branches.
    pub regions: Vec<Region>,
    /// Blocks whose rows may be divided.
    pub strips: Vec<Strips>,
    /// Items of a batch: any stretch of blocks may divide them; up to 1, none does.
    pub items: u32,
}

/// Blocks whose input and output are images that can be cut into strips of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Strips {
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// Rows that are shared out: each takes its part of the blocks' time and of what crosses their ends.
    pub rows: u32,
    /// Further input that a strip needs at each border to another.
    pub halo_bytes: u64,
    /// What computing that takes on each node.
    pub halo_ms: Vec<f64>,
}

/// A plan that may fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkedShape {
    /// One after the other.
    pub parts: Vec<Part>,
}

/// A piece of a plan that may fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Blocks on one node.
    Stage(StageShape),
    /// A region's branches, in the order that the fork serves them.
    Branches {
        /// Index into [`Forks::regions`].
        region: usize,
        /// All of them.
        branches: Vec<StageShape>,
    },
    /// Strips from the first row to the last, in the order that the fork serves them.
    Rows {
        /// Index into [`Forks::strips`].
        strips: usize,
        /// At least two, each on another node.
        shares: Vec<Share>,
    },
    /// Shares of a batch, in the order that the fork serves them.
    Items {
        /// First block.
        first: u16,
        /// One past the last block.
        end: u16,
        /// At least two, each on another node.
        shares: Vec<Share>,
    },
}

/// Part of a stretch's rows or items on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index into [`Problem::nodes`](super::Problem::nodes).
    pub node: usize,
    /// How many; at least one.
    pub units: u32,
}

/// A plan that may fork, and its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct PricedForked {
    /// What was priced.
    pub shape: ForkedShape,
    /// From request to result.
    pub latency_ms: f64,
    /// What each fork takes, from its input to the join's.
    pub forks_ms: Vec<f64>,
    /// What goes over links, as coded.
    pub bytes: u64,
    /// When its stages run, part by part in the order of the shape.
    pub runs: Vec<SplitRun>,
}

/// A stretch that is divided in equal units, whether rows or items.
#[derive(Clone, Copy)]
struct Division<'a> {
    first: u16,
    end: u16,
    units: u32,
    halo_bytes: u64,
    /// By node; empty: none.
    halo_ms: &'a [f64],
}

impl Strips {
    /// Whether these are blocks of a model, with rows to divide, for so many nodes.
    pub fn is_valid(&self, blocks: usize, nodes: usize) -> bool {
        self.first < self.end
            && usize::from(self.end) <= blocks
            && (2..=UNITS_MAX).contains(&self.rows)
            && self.halo_ms.len() == nodes
    }
}

impl Forks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.strips.is_empty() && self.items < 2
    }

    fn of_rows(&self, strips: usize) -> Option<Division<'_>> {
        let Strips { first, end, rows, halo_bytes, ref halo_ms } = *self.strips.get(strips)?;
        Some(Division { first, end, units: rows, halo_bytes, halo_ms })
    }

    fn of_items(&self, first: u16, end: u16) -> Division<'_> {
        Division { first, end, units: self.items, halo_bytes: 0, halo_ms: &[] }
    }
}

impl ForkedShape {
    /// Whether any part is one.
    pub fn has_fork(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Stage(_)))
    }

    /// The node that goes on behind a part: its own, or the one that joins.
    fn goes_on(&self, part: usize) -> usize {
        match (self.parts.get(part), self.parts.get(part + 1)) {
            (Some(Part::Stage(stage)), _) | (_, Some(Part::Stage(stage))) => stage.node,
            _ => 0,
        }
    }
}

impl Division<'_> {
    /// What a share of the input is, with the borders' halo.
    fn in_bytes(&self, cut_bytes: u64, units: u32, borders: u64) -> u64 {
        self.bytes(cut_bytes, units).saturating_add(self.halo_bytes.saturating_mul(borders))
    }

    /// What a share of so many bytes is.
    fn bytes(&self, cut_bytes: u64, units: u32) -> u64 {
        let all = u128::from(self.units.max(1));
        // At most the cut's own bytes, since a share is at most all.
        (u128::from(cut_bytes) * u128::from(units.min(self.units))).div_ceil(all) as u64
    }

    fn halo_ms(&self, node: usize, borders: u64) -> f64 {
        self.halo_ms.get(node).copied().unwrap_or(0.0) * borders as f64
    }
}

/// Borders of a strip to others, of so many from the first row to the last.
fn borders(place: usize, strips: usize) -> u64 {
    match (place, strips) {
        (_, 0 | 1) => 0,
        (place, strips) if place == 0 || place + 1 == strips => 1,
        _ => 2,
    }
}

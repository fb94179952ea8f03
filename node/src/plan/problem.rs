//! What a planner may know: the model's sizes, the nodes, the links between them. Not where these
//! numbers come from, and not how a plan is priced by them.

use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::profile::range_index;

use super::coding::Coding;

/// The longest time that a problem may name, ms: thirty years, so that no sum can overflow.
const TIME_MS_MAX: f64 = 1e12;

/// The largest size that a problem may name, bytes: 128 TiB, so that no sum over 65,535 blocks
/// can overflow.
const SIZE_BYTES_MAX: u64 = 1 << 47;

/// A model to be run and the mesh that may run it. Times in ms, sizes in bytes.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Bytes that cross each cut: one more than blocks, the input first, the result last.
    pub cut_bytes: Vec<u64>,
    /// Ways to send each cut coded; sending it as it is needs no mention.
    pub codings: Vec<Vec<Coding>>,
    /// Share of agreement that a plan's codings may lose in all; at 0, all are lossless.
    pub loss_max: f64,
    /// Weights of each block.
    pub block_weights_bytes: Vec<u64>,
    /// Largest sum of live activations while each block runs.
    pub block_peak_bytes: Vec<u64>,
    /// What a range takes beyond its blocks, on some machine.
    pub extra: Extra,
    /// Who may run them. The first is the origin, where the input is and the result is wanted.
    pub nodes: Vec<Node>,
    /// How bytes get from one to another.
    pub links: Links,
    /// Whether the first stage must run at the origin.
    pub force_first: bool,
    /// Whether the last stage must run at the origin.
    pub force_last: bool,
}

/// What each range of blocks takes beyond its blocks: conversions where a session begins and ends, and
/// what it cannot fuse there. Planners take it that one session is no slower than two beside each other on
/// the same node; where numbers say otherwise, a plan of these two is not found.
#[derive(Debug, Clone, PartialEq)]
pub struct Extra {
    blocks: usize,
    /// By [`range_index`]; empty if there is none. Copies of a problem share them.
    ms: Arc<[f64]>,
}

impl Extra {
    /// Ranges take what their blocks take.
    pub fn none() -> Self {
        Self { blocks: 0, ms: Arc::default() }
    }

    /// As told for each `first..end`, in milliseconds.
    pub fn of(blocks: usize, extra_ms: impl Fn(Range<usize>) -> f64) -> Self {
        let ranges = (0..blocks).flat_map(|first| (first + 1..=blocks).map(move |end| first..end));
        Self { blocks, ms: ranges.map(extra_ms).collect() }
    }

    /// For one range, which is not empty.
    pub fn ms(&self, first: usize, end: usize) -> f64 {
        self.from(first).get(end - first - 1).copied().unwrap_or(0.0)
    }

    /// For all ranges from this block on, by their ends; empty if there is none.
    pub(super) fn from(&self, first: usize) -> &[f64] {
        if self.ms.is_empty() {
            return &[];
        }
        let start = range_index(self.blocks, first, first + 1);
        &self.ms[start..start + self.blocks - first]
    }
}

/// A machine as the planner sees it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Whether it may be given stages; false if stale or draining. The origin takes part as the
    /// place of input and result in any case.
    pub can_compute: bool,
    /// Time that a new stage waits for its turn.
    pub queue_wait_ms: f64,
    /// Free memory, for ranges that are not loaded yet.
    pub memory_free_bytes: u64,
    /// What running a range costs beyond its blocks.
    pub overhead_ms: f64,
    /// Estimated time of each block here.
    pub block_ms: Vec<f64>,
    /// How many times as long the problem's [`Extra`] takes here.
    pub extra_factor: f64,
    /// Ranges that are loaded, or whose time is known otherwise. A part of a known range is not itself known.
    pub known: Vec<KnownRange>,
    /// Price of loading a range, whatever its size.
    pub cold_fixed_ms: f64,
    /// Price of loading a range, per byte of its weights.
    pub cold_ms_per_byte: f64,
    /// What encoding takes here, in parts of a [`Coding`]'s time.
    pub encode_factors: Factors,
    /// Likewise decoding.
    pub decode_factors: Factors,
    /// What it draws; of interest at the origin only.
    pub watts: Watts,
    /// Once for every request that sends or receives anything, mJ: a radio stays awake for a while.
    pub tail_mj: f64,
    /// What a byte takes on the way out of this machine, wherever it goes: flows that leave it together share
    /// this. A link is no quicker, see [`Link::ms_per_byte`]; zero: only links matter.
    pub uplink_ms_per_byte: f64,
}

/// A factor for each codec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors([f64; Codec::ALL.len()]);

impl Factors {
    /// The same for all.
    pub fn same(factor: f64) -> Self {
        Self([factor; Codec::ALL.len()])
    }

    /// Sets one codec's.
    pub fn set(&mut self, codec: Codec, factor: f64) {
        self.0[codec as usize] = factor;
    }

    /// One codec's.
    pub fn of(&self, codec: Codec) -> f64 {
        self.0[codec as usize]
    }

    /// All times as much.
    pub(super) fn scale(&mut self, by: f64) {
        self.0.iter_mut().for_each(|factor| *factor *= by);
    }

    pub(super) fn are_same(&self) -> bool {
        self.0.iter().all(|factor| *factor == self.0[0])
    }
}

/// What a machine draws, W.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watts {
    /// While it waits.
    pub idle: f64,
    /// While it runs, loads, encodes or decodes.
    pub compute: f64,
    /// While its bytes go out.
    pub send: f64,
    /// While bytes come in.
    pub receive: f64,
}

/// Blocks that may run on a node as one session, of which something is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownRange {
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// Its measured time, which then stands for overhead and blocks' estimates.
    pub time_ms: Option<f64>,
    /// Whether it is ready to run: then loading it has no price.
    pub is_loaded: bool,
    /// Whether its memory is no part of what is free: it has it already.
    pub has_memory: bool,
}

/// One direction between two nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time of the first byte on the way.
    pub latency_ms: f64,
    /// Inverse of the rate.
    pub ms_per_byte: f64,
}

/// Links by direction; a pair without one cannot reach each other that way. Copies share them until one is changed.
#[derive(Debug, Clone)]
pub struct Links {
    node_count: usize,
    dense: Arc<Vec<Option<Link>>>,
    /// Whether one was ever set that a problem must not have: only then all are looked at again.
    is_suspect: bool,
}

impl Links {
    /// No links yet between this many nodes.
    pub fn new(node_count: usize) -> Self {
        let dense = Arc::new(vec![None; node_count.saturating_mul(node_count)]);
        Self { node_count, dense, is_suspect: false }
    }

    /// Sets one direction. A node outside the count, or its link to itself, is ignored.
    pub fn set(&mut self, from: usize, to: usize, link: Link) {
        if from < self.node_count && to < self.node_count && from != to {
            self.is_suspect |= link.check().is_err();
            Arc::make_mut(&mut self.dense)[from * self.node_count + to] = Some(link);
        }
    }

    /// The link of one direction.
    pub fn get(&self, from: usize, to: usize) -> Option<Link> {
        if from >= self.node_count || to >= self.node_count {
            return None;
        }
        self.dense[from * self.node_count + to]
    }

    /// The links from one node, by where they lead.
    pub(super) fn from(&self, from: usize) -> &[Option<Link>] {
        &self.dense[from * self.node_count..][..self.node_count]
    }

    /// Replaces every link by another.
    pub(super) fn change(&mut self, new: impl Fn(usize, usize, Link) -> Link) {
        for (index, link) in Arc::make_mut(&mut self.dense).iter_mut().enumerate() {
            let (from, to) = (index / self.node_count, index % self.node_count);
            *link = link.map(|link| new(from, to, link));
            self.is_suspect |= link.is_some_and(|link| link.check().is_err());
        }
    }

    /// How many nodes these links may join.
    pub fn node_count(&self) -> usize {
        self.node_count
    }
}

/// What is wrong with a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// No block, or more than a range can name.
    #[error("a model to plan has 1 to 65535 blocks")]
    BlockCount,
    /// A list has the wrong length.
    #[error("{what} has {found} entries, not {expected}")]
    Length { what: &'static str, found: usize, expected: usize },
    /// There is no origin.
    #[error("there must be at least one node, the origin")]
    NoNodes,
    /// A time or factor is no number, negative or out of bounds.
    #[error("{what} must be between 0 and {TIME_MS_MAX:e}")]
    Number { what: &'static str },
    /// A size is out of bounds.
    #[error("{what} must be at most {SIZE_BYTES_MAX} bytes")]
    Size { what: &'static str },
    /// A known range is empty, ends after the last block or is listed twice.
    #[error("node {node} lists a range that is empty, too long or there twice")]
    KnownRange { node: usize },
}

impl Coding {
    fn check(&self) -> Result<(), ProblemError> {
        number("a coding's encoding time", self.encode_ms)?;
        number("a coding's decoding time", self.decode_ms)?;
        number("a coding's loss", self.loss)?;
        sizes("a coded cut", &[self.bytes])
    }
}

fn number(what: &'static str, value: f64) -> Result<(), ProblemError> {
    if (0.0..=TIME_MS_MAX).contains(&value) { Ok(()) } else { Err(ProblemError::Number { what }) }
}

fn length(what: &'static str, found: usize, expected: usize) -> Result<(), ProblemError> {
    if found == expected { Ok(()) } else { Err(ProblemError::Length { what, found, expected }) }
}

fn sizes(what: &'static str, values: &[u64]) -> Result<(), ProblemError> {
    if values.iter().all(|value| *value <= SIZE_BYTES_MAX) {
        Ok(())
    } else {
        Err(ProblemError::Size { what })
    }
}

impl Problem {
    /// How many blocks the model has.
    pub fn block_count(&self) -> usize {
        self.block_weights_bytes.len()
    }

    /// This problem over some nodes alone, in this order; the first must be the origin.
    pub(super) fn over(&self, nodes: &[usize]) -> Self {
        let mut links = Links::new(nodes.len());
        for (from, sender) in nodes.iter().enumerate() {
            for (to, receiver) in nodes.iter().enumerate() {
                if let Some(link) = self.links.get(*sender, *receiver) {
                    links.set(from, to, link);
                }
            }
        }
        Self {
            cut_bytes: self.cut_bytes.clone(),
            codings: self.codings.clone(),
            block_weights_bytes: self.block_weights_bytes.clone(),
            block_peak_bytes: self.block_peak_bytes.clone(),
            extra: self.extra.clone(),
            nodes: nodes.iter().map(|node| self.nodes[*node].clone()).collect(),
            links,
            ..*self
        }
    }

    /// Checks everything that the planner relies on.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), ProblemError> {
        let blocks = self.block_count();
        if blocks == 0 || blocks > usize::from(u16::MAX) {
            return Err(ProblemError::BlockCount);
        }
        if self.nodes.is_empty() {
            return Err(ProblemError::NoNodes);
        }
        length("the list of cuts", self.cut_bytes.len(), blocks + 1)?;
        length("the list of codings", self.codings.len(), blocks + 1)?;
        length("the list of peaks", self.block_peak_bytes.len(), blocks)?;
        length("the table of links", self.links.node_count, self.nodes.len())?;
        if !self.extra.ms.is_empty() {
            length("the table of ranges", self.extra.blocks, blocks)?;
        }
        self.extra.ms.iter().try_for_each(|time_ms| number("a range's extra time", *time_ms))?;
        sizes("a cut", &self.cut_bytes)?;
        sizes("a block's weights", &self.block_weights_bytes)?;
        sizes("a block's activations", &self.block_peak_bytes)?;
        number("the loss allowed", self.loss_max)?;
        self.codings.iter().flatten().try_for_each(Coding::check)?;
        for (index, node) in self.nodes.iter().enumerate() {
            node.check(index, blocks)?;
        }
        match self.links.is_suspect {
            true => self.links.dense.iter().flatten().try_for_each(Link::check),
            false => Ok(()),
        }
    }
}

impl Node {
    /// Time of a range that nobody has measured here.
    pub(super) fn estimate_ms(&self, extra: &Extra, first: usize, end: usize) -> f64 {
        let blocks_ms: f64 = self.block_ms[first..end].iter().sum();
        self.overhead_ms + blocks_ms + self.extra_factor * extra.ms(first, end)
    }

    fn check(&self, index: usize, blocks: usize) -> Result<(), ProblemError> {
        length("a node's list of block times", self.block_ms.len(), blocks)?;
        self.block_ms.iter().try_for_each(|time_ms| number("a block's time", *time_ms))?;
        number("a factor of extra times", self.extra_factor)?;
        number("a queue's wait", self.queue_wait_ms)?;
        number("a session's overhead", self.overhead_ms)?;
        number("a cold start's price", self.cold_fixed_ms)?;
        number("a cold start's price per byte", self.cold_ms_per_byte)?;
        let factors = self.encode_factors.0.iter().chain(&self.decode_factors.0);
        factors.copied().try_for_each(|factor| number("a node's factor for coding", factor))?;
        let mut ranges: Vec<(u16, u16)> = self.known.iter().map(|range| (range.first, range.end)).collect();
        ranges.sort_unstable();
        let twice = ranges.windows(2).any(|pair| pair[0] == pair[1]);
        if twice || ranges.iter().any(|&(first, end)| first >= end || usize::from(end) > blocks) {
            return Err(ProblemError::KnownRange { node: index });
        }
        let Watts { idle, compute, send, receive } = self.watts;
        [idle, compute, send, receive].into_iter().try_for_each(|watts| number("a node's watts", watts))?;
        number("a radio's tail", self.tail_mj)?;
        number("an uplink's time per byte", self.uplink_ms_per_byte)?;
        self.known
            .iter()
            .filter_map(|range| range.time_ms)
            .try_for_each(|time_ms| number("a range's time", time_ms))
    }
}

impl Link {
    fn check(&self) -> Result<(), ProblemError> {
        number("a link's latency", self.latency_ms)?;
        number("a link's time per byte", self.ms_per_byte)
    }
}

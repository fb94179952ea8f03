//! A planning instance as it is written: every field that there may be, and nothing else. What the numbers mean
//! together is not said here.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::plan::Objective;

/// A list with one entry for each block or cut.
pub(super) type List<T> = Vec<T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub requester: String,
    #[serde(default)]
    pub objective: Objective,
    #[serde(default)]
    pub force_first: bool,
    #[serde(default)]
    pub force_last: bool,
    #[serde(default)]
    pub limits: Limits,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub variants: Vec<Variant>,
    #[serde(default)]
    pub codecs: Vec<Codec>,
    #[serde(default = "one")]
    pub expected_requests: f64,
    /// Items that a request has, which blocks' times and cuts' bytes are of together.
    #[serde(default = "one_item")]
    pub batch: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub max_latency_ms: Option<f64>,
    pub max_energy_j: Option<f64>,
    pub min_accuracy: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub name: String,
    /// Whether it runs anything; the requester may be one that does not.
    #[serde(default = "yes")]
    pub computes: bool,
    pub block_ms: ByVariant<List<f64>>,
    #[serde(default)]
    pub range_overhead_ms: f64,
    #[serde(default)]
    pub ranges: Vec<RangeTime>,
    #[serde(default)]
    pub wait_ms: f64,
    #[serde(default = "one")]
    pub slowdown: f64,
    /// Times each variant's `extra_ms`.
    #[serde(default = "one_for_all")]
    pub extra_factor: ByVariant<f64>,
    #[serde(default)]
    pub memory_bytes: Option<Bytes>,
    /// Beside what is loaded, which then takes none of it.
    #[serde(default)]
    pub memory_free_bytes: Option<Bytes>,
    #[serde(default)]
    pub domains: Vec<String>,
    #[serde(default)]
    pub loaded: Option<Vec<Loaded>>,
    #[serde(default)]
    pub load_ms: f64,
    #[serde(default)]
    pub load_ms_per_mb: f64,
    /// Times what each variant's `codings` take.
    #[serde(default = "one_for_all")]
    pub coding_factor: ByVariant<f64>,
    #[serde(default)]
    pub uplink_ms_per_mb: Option<f64>,
    #[serde(default)]
    pub watts: Watts,
    #[serde(default)]
    pub tail_j: f64,
}

/// One for all variants, or one for each by its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ByVariant<T> {
    All(T),
    Each(BTreeMap<String, T>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeTime {
    pub blocks: [u16; 2],
    pub ms: f64,
    /// Of this variant only.
    #[serde(default)]
    pub variant: Option<String>,
}

/// Blocks that are loaded: `[first, end]`, or with the variant they are of.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Loaded {
    Blocks([u16; 2]),
    OfVariant { blocks: [u16; 2], variant: String },
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Watts {
    pub idle: f64,
    pub compute: f64,
    pub send: f64,
    pub receive: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub latency_ms: f64,
    #[serde(default)]
    pub ms_per_mb: f64,
    #[serde(default)]
    pub both_ways: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    pub name: String,
    #[serde(default)]
    pub accuracy: Option<f64>,
    pub cut_bytes: List<Bytes>,
    #[serde(default)]
    pub weights_bytes: Option<List<Bytes>>,
    #[serde(default)]
    pub peak_bytes: Option<List<Bytes>>,
    /// What ranges take beyond their blocks, by first block, then by last.
    #[serde(default)]
    pub extra_ms: List<List<f64>>,
    /// What each cut was measured to be by stormo's own codecs, in the place of `codecs`.
    #[serde(default)]
    pub codings: List<List<MeasuredCoding>>,
    #[serde(default)]
    pub regions: Vec<Region>,
    #[serde(default)]
    pub strips: Vec<Strip>,
}

/// A cut by one of stormo's own codecs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeasuredCoding {
    pub codec: stormo_protocol::codec::payload::Codec,
    pub bytes: Bytes,
    #[serde(default)]
    pub encode_ms: f64,
    #[serde(default)]
    pub decode_ms: f64,
    #[serde(default)]
    pub loss: f64,
}

/// Blocks that form branches beside each other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Region {
    pub branches: Vec<Branch>,
    /// What crosses its end and no branch makes.
    #[serde(default)]
    pub past_bytes: Bytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Branch {
    pub blocks: [u16; 2],
    pub in_bytes: Bytes,
    pub out_bytes: Bytes,
}

/// Blocks whose rows may be divided.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Strip {
    pub blocks: [u16; 2],
    pub rows: u32,
    #[serde(default)]
    pub halo_bytes: Bytes,
    #[serde(default)]
    pub halo_ms: ByNode,
}

/// One for all nodes, or one for each by its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ByNode {
    All(f64),
    Each(BTreeMap<String, f64>),
}

impl Default for ByNode {
    fn default() -> Self {
        Self::All(0.0)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Codec {
    pub name: String,
    pub ratio: PerCut,
    #[serde(default)]
    pub loss: PerCut,
    #[serde(default)]
    pub encode_ms_per_mb: BTreeMap<String, f64>,
    #[serde(default)]
    pub decode_ms_per_mb: BTreeMap<String, f64>,
}

/// One for all cuts, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum PerCut {
    All(f64),
    Each(List<f64>),
}

impl Default for PerCut {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl PerCut {
    /// For one cut; zero beyond the list.
    pub(super) fn at(&self, cut: usize) -> f64 {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values.get(cut).copied().unwrap_or(0.0),
        }
    }
}

impl<T> ByVariant<T> {
    /// Of one variant, if it is there.
    pub(super) fn of(&self, variant: &str) -> Option<&T> {
        match self {
            Self::All(value) => Some(value),
            Self::Each(values) => values.get(variant),
        }
    }
}

/// A whole number of bytes, which may be written as 1e6 or 1000000.0 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            ((0.0..=9e15).contains(&float) && float.fract() == 0.0).then_some(float as u64)
        });
        whole.map(Self).ok_or_else(|| {
            D::Error::custom(format!("a number of bytes, whole and not negative, not {number}"))
        })
    }
}

fn yes() -> bool {
    true
}

fn one_item() -> u32 {
    1
}

fn one() -> f64 {
    1.0
}

fn one_for_all() -> ByVariant<f64> {
    ByVariant::All(1.0)
}

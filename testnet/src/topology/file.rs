//! The shape of a topology file, before anything in it is checked. Each text remembers its place.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use stormo_protocol::state::Class;
use toml::Spanned;

use super::{DomainKind, NatReach};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) about: Spanned<String>,
    pub(super) node: Spanned<Vec<NodeEntry>>,
    #[serde(default)]
    pub(super) domain: Vec<DomainEntry>,
    #[serde(default)]
    pub(super) nat: Vec<NatEntry>,
    pub(super) links: Option<Spanned<LinkEntry>>,
    #[serde(default)]
    pub(super) link: Vec<Spanned<LinkEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeEntry {
    pub(super) label: Spanned<String>,
    pub(super) class: Class,
    pub(super) memory_budget: Spanned<Written>,
    pub(super) cpu: Option<Spanned<f64>>,
    pub(super) memory: Option<Spanned<Written>>,
    pub(super) disk: Option<Spanned<Written>>,
    pub(super) battery: Option<Spanned<BatteryEntry>>,
    pub(super) uplink: Option<Spanned<Written>>,
    pub(super) downlink: Option<Spanned<Written>>,
    #[serde(default)]
    pub(super) domains: Vec<Spanned<String>>,
    pub(super) behind: Option<Spanned<String>>,
}

/// Of a node; powers are watts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatteryEntry {
    pub(super) capacity: Spanned<Written>,
    pub(super) level: Option<Spanned<f64>>,
    pub(super) idle: Spanned<f64>,
    pub(super) compute: Spanned<f64>,
    pub(super) send: Option<Spanned<f64>>,
    pub(super) receive: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainEntry {
    pub(super) name: Spanned<String>,
    pub(super) kind: DomainKind,
    pub(super) within: Option<Spanned<String>>,
    pub(super) uplink: Option<Spanned<Written>>,
    pub(super) downlink: Option<Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NatEntry {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) mapping: NatReach,
    #[serde(default)]
    pub(super) filtering: NatReach,
}

/// Of `[links]`, which has no ends, and of each `[[link]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkEntry {
    pub(super) between: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<String>>,
    pub(super) rate: Option<Spanned<Written>>,
    pub(super) queue: Option<Spanned<Written>>,
    pub(super) latency: Option<Spanned<Written>>,
    pub(super) jitter: Option<Spanned<Written>>,
    pub(super) loss: Option<Spanned<f64>>,
    pub(super) reorder: Option<Spanned<f64>>,
    pub(super) duplicate: Option<Spanned<f64>>,
    pub(super) corrupt: Option<Spanned<f64>>,
}

/// A quantity as it is written, not read yet.
pub(super) struct Written(pub(super) String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text with a unit, like \"64 MiB\", \"20 Mbit/s\" or \"5 ms\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<Written, E> {
        Ok(Written(text.to_owned()))
    }
}

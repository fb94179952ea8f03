//! Faults that would be done and change nothing, as far as the topology tells: a run of them shows nothing.

use super::faults::{FaultKind, LinkChange, Target};
use crate::link::LinkSpec;
use crate::topology::{NodeSpec, Topology};

/// From here on a rate is no limit: no switch made of a process carries as much, bit/s.
const NO_LIMIT_BITS_PER_S: u64 = 100_000_000_000;

/// Why a fault changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// Its first field that says so.
    pub field: &'static str,
    /// What it says, and what is so without it.
    pub why: String,
}

impl FaultKind {
    /// Whether it changes nothing of what a topology says. Whom `@busiest` or `@host` will be is not known.
    pub fn idle(&self, topology: &Topology) -> Option<Idle> {
        let named = |target: &Target| match target {
            Target::Node(label) => topology.node(label),
            _ => None,
        };
        match self {
            Self::Cpu(target, share) => cpu(named(target)?, *share),
            Self::Memory(target, bytes) => memory(named(target)?, *bytes),
            Self::Clock(_, 0.0) => Some(idle("offset_s", "0 puts no clock wrong".to_owned())),
            Self::Uplink { node, up_bits_per_s, down_bits_per_s } => {
                uplink(named(node)?, [*up_bits_per_s, *down_bits_per_s])
            }
            Self::Link { from, to, both_ways, change } => {
                let (from, to) = (topology.node(from)?, topology.node(to)?);
                let is_same = |from, to| is_same(change, topology.link(from, to));
                if !is_same(from, to) || (*both_ways && !is_same(to, from)) {
                    return None;
                }
                let (field, _) = change.fields().into_iter().next()?;
                let (from, to) = (&from.label, &to.label);
                Some(idle(field, format!("the link from `{from}` to `{to}` is so in the topology")))
            }
            _ => None,
        }
    }
}

fn idle(field: &'static str, why: String) -> Idle {
    Idle { field, why }
}

fn cpu(node: &NodeSpec, share: f64) -> Option<Idle> {
    let has = node.cpu_share.filter(|has| share >= *has)?;
    let why = format!("{share} takes nothing from `{}`, which has {has} in the topology", node.label);
    Some(idle("cpu_share", why))
}

fn memory(node: &NodeSpec, bytes: u64) -> Option<Idle> {
    let has = node.memory_bytes.filter(|has| bytes >= *has)?;
    let why = format!("{bytes} takes nothing from `{}`, which has {has} in the topology", node.label);
    Some(idle("memory_bytes", why))
}

fn limit(rate_bits_per_s: Option<u64>) -> Option<u64> {
    rate_bits_per_s.filter(|rate| *rate < NO_LIMIT_BITS_PER_S)
}

/// Sent, then received.
fn uplink(node: &NodeSpec, then: [Option<u64>; 2]) -> Option<Idle> {
    let now = [node.uplink_bits_per_s, node.downlink_bits_per_s];
    let field = if then[0].is_some() { "up_bits_per_s" } else { "down_bits_per_s" };
    let told = now.map(|rate| limit(rate).map_or("no limit".to_owned(), |rate| format!("{rate} bit/s")));
    (then.map(limit) == now.map(limit)).then(|| {
        let [up, down] = told;
        idle(field, format!("`{}` sends ({up}) and receives ({down}) so without it", node.label))
    })
}

fn is_same(change: &LinkChange, before: LinkSpec) -> bool {
    // A queue waits for a rate.
    let plain = |link: LinkSpec| {
        let rate_bits_per_s = limit(link.rate_bits_per_s);
        let queue_bytes = if rate_bits_per_s.is_some() { link.queue_bytes } else { 0 };
        LinkSpec { rate_bits_per_s, queue_bytes, ..link }
    };
    plain(change.of(&before)) == plain(before)
}

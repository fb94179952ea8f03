//! Who is there to be a steward, and who wins.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Class, NodeRecord};

use super::Situation;
use crate::mesh::life::BEAT_MS;

/// A node that runs for so long, as it says itself, is trusted to stay: one that is started again and again is no steward while
/// others stay.
/// It says the same to all, so those who were parted from each other, or join, name the same steward as all others.
const SETTLED_MS: u64 = 30_000;
/// One that has just begun sees only some of the others, and is no steward before this heartbeat, its third. Nor is it
/// waited for, so that a machine that joins gets its parts at once.
const BEGUN_MS: u64 = 3 * BEAT_MS;
/// A host that was not heard since this node began may still be starting, as after a power cut: so long it is not lost.
const STARTING_MS: u64 = 30_000;

/// How good the best are that there are: first those that stay, then those that are not on battery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Not on battery, and running for half a minute.
    Settled,
    /// A device, which may be on battery, running for half a minute.
    Device,
    /// Not on battery, and running for some seconds.
    Begun,
    /// A device that runs for some seconds.
    BegunDevice,
    /// All have just begun: nobody acts yet.
    New,
}

impl Tier {
    /// Whether a steward of this tier gives orders.
    pub(super) fn acts(self) -> bool {
        self != Self::New
    }
}

/// Who is steward, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steward {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub tier: Tier,
    /// How many nodes are of that tier; among them the hash chose.
    pub of: usize,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    class: Class,
    age_ms: u64,
}

impl Seat {
    fn tier(&self) -> Tier {
        let is_settled = self.age_ms >= SETTLED_MS;
        match self.class {
            _ if self.age_ms < BEGUN_MS => Tier::New,
            Class::Device if is_settled => Tier::Device,
            Class::Device => Tier::BegunDevice,
            Class::Edge | Class::Cloud if is_settled => Tier::Settled,
            Class::Edge | Class::Cloud => Tier::Begun,
        }
    }
}

/// The nodes that can be used now, this one included, each with the time for which it runs.
#[derive(Debug)]
pub(super) struct Seats {
    own: NodeId,
    started_ms: u64,
    seats: BTreeMap<NodeId, Seat>,
}

/// A node's lot in a name: the highest wins. Another name gives other lots, so stewardships spread, and a node
/// that goes changes only those that it had.
fn lot(name: &str, node: NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("stormo 1 steward");
    hasher.update(&node.0);
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

impl Seats {
    pub(super) fn new(own: NodeId, now_ms: u64) -> Self {
        Self { own, started_ms: now_ms, seats: BTreeMap::new() }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    pub(super) fn look(&mut self, situation: &Situation<'_>) {
        let Situation { now_ms, own, view, .. } = *situation;
        let others = view.iter().filter(|known| view.is_usable(now_ms, known.record.node));
        let others = others.map(|known| (known.record.as_ref(), known.age_s().saturating_mul(BEAT_MS)));
        // As others hear it.
        let beat = 1 + now_ms.saturating_sub(self.started_ms) / BEAT_MS;
        let own = (!own.load.leaving).then_some((own, beat * BEAT_MS));
        let seat = |record: &NodeRecord, age_ms| Seat { class: record.machine.class, age_ms };
        self.seats = others.chain(own).map(|(record, age_ms)| (record.node, seat(record, age_ms))).collect();
    }

    /// All nodes that can be used.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.seats.keys().copied()
    }

    /// What a node that can be used says of itself.
    pub(super) fn record<'a>(&self, situation: &Situation<'a>, node: NodeId) -> Option<&'a NodeRecord> {
        self.seats.get(&node)?;
        if node == self.own {
            return Some(situation.own);
        }
        situation.view.get(node).map(|known| known.record.as_ref())
    }

    /// How long a node that can be used runs, as it says itself.
    pub(super) fn age_ms(&self, node: NodeId) -> Option<u64> {
        self.seats.get(&node).map(|seat| seat.age_ms)
    }

    /// Whether a node that cannot be used may only be slower to start than this one.
    pub(super) fn may_be_starting(&self, situation: &Situation<'_>, node: NodeId) -> bool {
        situation.now_ms.saturating_sub(self.started_ms) < STARTING_MS
            && node != self.own
            && situation.view.get(node).is_none()
    }

    pub(super) fn steward(&self, name: &str) -> Option<Steward> {
        let tier = self.seats.values().map(Seat::tier).min()?;
        let best = self.seats.iter().filter(|(_, seat)| seat.tier() == tier).map(|(node, _)| *node);
        let of = best.clone().count();
        let node = best.max_by_key(|node| lot(name, *node))?;
        Some(Steward { node, tier, of })
    }
}

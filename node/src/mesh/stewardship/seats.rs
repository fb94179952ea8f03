//! Who is there to be a steward, and who wins.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Class, NodeRecord};

use super::Situation;
use crate::mesh::life::BEAT_MS;

/// A node that runs for so long, as it says itself, is trusted to stay: one that is started again and again is nobody's steward.
/// It says the same to all, so those who were parted from each other, or join, name the same steward as all others.
const SETTLED_MS: u64 = 30_000;
/// A node that has just begun sees only some of the others; where nobody is settled it does nothing as a steward
/// before this.
const YOUNG_MS: u64 = 10_000;
/// Nor before who is there has not changed for so long.
const CALM_MS: u64 = 3_000;

/// How good the best are that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Not on battery, and running for half a minute.
    Settled,
    /// Not on battery, just begun.
    New,
    /// Nobody else is there than devices, which may be on battery.
    Device,
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

/// The nodes that can be used now, this one included, each with the time for which it runs.
#[derive(Debug)]
pub(super) struct Seats {
    own: NodeId,
    started_ms: u64,
    changed_ms: u64,
    now_ms: u64,
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
        Self { own, started_ms: now_ms, changed_ms: now_ms, now_ms, seats: BTreeMap::new() }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    pub(super) fn look(&mut self, situation: &Situation<'_>) {
        let Situation { now_ms, own, view, .. } = *situation;
        self.now_ms = now_ms;
        let others = view.iter().filter(|known| view.is_usable(now_ms, known.record.node));
        let own = Some(own).filter(|own| !own.load.leaving);
        let others = others.map(|known| (known.record.as_ref(), known.age_s().saturating_mul(BEAT_MS)));
        let own = own.map(|own| (own, now_ms.saturating_sub(self.started_ms)));
        let seats = others.chain(own);
        let seats: BTreeMap<NodeId, Seat> = seats
            .map(|(record, age_ms)| (record.node, Seat { class: record.machine.class, age_ms }))
            .collect();
        let is_changed = !self.seats.keys().eq(seats.keys());
        self.seats = seats;
        if is_changed {
            self.changed_ms = now_ms;
        }
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

    fn tier(&self, seat: Seat) -> Tier {
        match seat.class {
            Class::Device => Tier::Device,
            Class::Edge | Class::Cloud if seat.age_ms >= SETTLED_MS => Tier::Settled,
            Class::Edge | Class::Cloud => Tier::New,
        }
    }

    pub(super) fn steward(&self, name: &str) -> Option<Steward> {
        let tier = self.seats.values().map(|seat| self.tier(*seat)).min()?;
        let best = self.seats.iter().filter(|(_, seat)| self.tier(**seat) == tier).map(|(node, _)| *node);
        let of = best.clone().count();
        let node = best.max_by_key(|node| lot(name, *node))?;
        Some(Steward { node, tier, of })
    }

    /// Whether a steward is sure enough of it to give orders.
    pub(super) fn may_act(&self, steward: Steward, now_ms: u64) -> bool {
        steward.tier == Tier::Settled
            || (now_ms.saturating_sub(self.started_ms) >= YOUNG_MS
                && now_ms.saturating_sub(self.changed_ms) >= CALM_MS)
    }
}

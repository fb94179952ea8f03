//! One node of a world: what `app/driver` does around the pure rooms.

use std::collections::BTreeMap;

use stormo_protocol::ids::VariantId;
use stormo_protocol::state::{Class, Domain, Hosted, NodeRecord, Stamp};

use super::{bytes, id, record};
use crate::mesh::{Deployments, Heard, Held, Keeping, PartitionKey, Stewardship, View};

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) ready_ms: u64,
    pub(super) ordered: bool,
    pub(super) used_ms: u64,
}

/// A node.
pub(super) struct Node {
    pub(super) number: u8,
    pub(super) class: Class,
    pub(super) domains: Vec<Domain>,
    pub(super) budget_bytes: u64,
    pub(super) refuses: bool,
    pub(super) hangs: bool,
    pub(super) alive: bool,
    pub(super) begun_ms: u64,
    pub(super) died_ms: u64,
    pub(super) stamp: Stamp,
    pub(super) view: View,
    pub(super) deployments: Deployments,
    pub(super) stewardship: Stewardship,
    pub(super) keeping: Keeping,
    pub(super) slots: BTreeMap<PartitionKey, Slot>,
    /// On its disk.
    pub(super) stored: Vec<Heard>,
}

impl Node {
    pub(super) fn begin(&mut self, now_ms: u64) {
        let own = id(self.number);
        (self.alive, self.begun_ms) = (true, now_ms);
        self.stamp = Stamp { generation: self.stamp.generation + 1, sequence: 0 };
        (self.view, self.deployments) = (View::new(own), Deployments::default());
        (self.stewardship, self.keeping) = (Stewardship::new(own, now_ms), Keeping::default());
        self.slots.clear();
        for heard in &self.stored {
            self.stewardship.restore(heard);
            self.deployments.apply(heard);
        }
    }

    /// How long it has run, or had when it died.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        (if self.alive { now_ms } else { self.died_ms }).saturating_sub(self.begun_ms)
    }

    pub(super) fn held(&self, now_ms: u64) -> Vec<Held> {
        let held = self.slots.iter().map(|(key, slot)| Held {
            key: *key,
            progress: if slot.ready_ms <= now_ms { Ok(()) } else { Err(500) },
            is_ordered: slot.ordered,
            used_ms: slot.used_ms,
        });
        held.collect()
    }

    pub(super) fn record(&self, now_ms: u64) -> NodeRecord {
        let hosted = self.slots.iter().filter(|(_, slot)| slot.ready_ms <= now_ms);
        let hosted = hosted.map(|(key, _)| Hosted {
            variant: key.variant,
            first: key.first,
            end: key.end,
            time_us: 1,
            p95_us: 1,
            queue_wait_us: 0,
        });
        let mut record = record(self.number, self.stamp.sequence, self.class);
        record.stamp = self.stamp;
        record.domains.clone_from(&self.domains);
        record.hosted = hosted.collect();
        record.goals = self.keeping.goals(&self.held(now_ms));
        record.machine.memory_budget_bytes = self.budget_bytes;
        record.load.memory_used_bytes = self.slots.keys().map(|key| bytes(key.blocks())).sum();
        record
    }

    pub(super) fn has(&self, now_ms: u64, variant: VariantId, block: u16) -> bool {
        self.slots.iter().any(|(key, slot)| {
            slot.ready_ms <= now_ms && key.variant == variant && key.blocks().contains(&block)
        })
    }
}

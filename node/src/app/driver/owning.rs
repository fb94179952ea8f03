//! The owner's limits, held at this node whatever others ask: what it takes of their work, and when.

use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::Offer;

use super::Driver;
use crate::monitor;

/// The budget is told in steps of this: programs come and go, and each change goes to all.
const BUDGET_STEP_BYTES: u64 = 16 << 20;

impl Driver {
    /// Looks at clock and memory, and what follows from them.
    pub(super) fn look_after_owner(&mut self) {
        let before = self.offer;
        self.offer = self.parts.owner.offer(monitor::minute_of_day());
        self.offer.open &= !self.is_paused;
        self.look_at_limit();
        let used_bytes = self.hosting.memory_used_bytes();
        let free_for_all = self.parts.owner.keep_free_memory_bytes == 0;
        let available_bytes = if free_for_all { 0 } else { monitor::memory_available_bytes() };
        let budget_bytes =
            self.parts.owner.memory_budget_bytes(self.parts.memory_budget_bytes, used_bytes, available_bytes);
        if !free_for_all {
            let rounded = budget_bytes / BUDGET_STEP_BYTES * BUDGET_STEP_BYTES;
            self.parts.machine.memory_budget_bytes = rounded.max(used_bytes).min(budget_bytes);
            if available_bytes < self.parts.owner.keep_free_memory_bytes && self.drop_one_idle() {
                tracing::info!(
                    "dropped a part that was not in use: the memory is kept free for other programs"
                );
            }
        }
        if self.offer != before {
            let hours = self.parts.owner.hours.as_ref().map(ToString::to_string).unwrap_or_default();
            let open = self.offer.open;
            tracing::info!(open, hours, "it changes whether this node works for others");
            self.on_changed();
        }
        // What runs ends; what is idle goes, and what is in use as soon as it is not.
        if !self.offer.takes_work() {
            self.drop_what_is_kept_for_others();
        }
    }

    /// A limit of memory may be put on a process that runs, and changed.
    fn look_at_limit(&mut self) {
        let (wished_bytes, before_bytes) = (self.parts.memory_wished_bytes, self.parts.memory_budget_bytes);
        let budget_bytes = monitor::memory_budget_bytes(wished_bytes);
        if budget_bytes == before_bytes {
            return;
        }
        self.parts.memory_budget_bytes = budget_bytes;
        self.parts.machine.memory_budget_bytes = budget_bytes;
        tracing::info!(
            wished_bytes,
            budget_bytes,
            before_bytes,
            "the control group's limit of memory changed"
        );
        self.on_changed();
    }

    /// The owner has the node take work of others, or none until it is told otherwise or started again.
    pub(super) fn take_work(&mut self, take: bool) {
        self.is_paused = !take;
        self.look_after_owner();
    }

    /// What others may have of this node now.
    pub(super) fn offer(&self) -> Offer {
        self.offer
    }

    /// Why work of others is not taken, if it is not.
    pub(super) fn refuses_work(&self) -> Option<Refusal> {
        match self.offer {
            Offer { computes: false, .. } => Some(Refusal::NotOffered),
            Offer { open: false, .. } => Some(Refusal::Closed),
            _ => None,
        }
    }

    /// Why there is no room for a partition.
    pub(super) fn no_room(&self) -> Refusal {
        let is_less = self.parts.machine.memory_budget_bytes < self.parts.memory_budget_bytes;
        if is_less { Refusal::KeptFree } else { Refusal::NoMemory }
    }
}

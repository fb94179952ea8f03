//! Questions about a model whose description is on its way: they wait for it, for a few seconds. A description follows the
//! announcement of a version by moments, and comes a round trip or two after a node has started.

use super::Driver;
use crate::app::calls::Call;

/// Questions that wait at once; others are told to try again.
const PARKED_MAX: usize = 64;
/// They wait so long, milliseconds.
const PARKED_MS_MAX: u64 = 5_000;

/// A question that waits.
pub(super) struct Parked {
    call: Call,
    until_ms: u64,
}

impl Driver {
    /// Gives the question back, unless it is to wait.
    pub(super) fn park(&mut self, call: Call) -> Option<Call> {
        let waits = self.waits(&call) && self.parked.len() < PARKED_MAX;
        if !waits {
            return Some(call);
        }
        self.parked.push(Parked { call, until_ms: self.now_ms() + PARKED_MS_MAX });
        None
    }

    /// Takes up those whose description is here, and those for whom it does not come.
    pub(super) fn try_parked(&mut self) {
        let now_ms = self.now_ms();
        for Parked { call, until_ms } in std::mem::take(&mut self.parked) {
            if until_ms > now_ms && self.waits(&call) {
                self.parked.push(Parked { call, until_ms });
            } else {
                self.take_up(call);
            }
        }
    }

    fn waits(&self, call: &Call) -> bool {
        let model = match call {
            Call::Infer { model, .. } => model,
            Call::Plans(asked, _) | Call::Instance(asked, _) => &asked.model,
            Call::Model { name, .. } => name,
            _ => return false,
        };
        self.is_description_on_its_way(model)
    }
}

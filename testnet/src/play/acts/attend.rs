//! What faults lead to while others are done: nodes that start again, nodes that end for want of memory.

use std::time::Duration;

use super::{Acts, Stage};
use crate::history::FaultEvent;

/// Between two looks.
pub(super) const ATTEND: Duration = Duration::from_millis(20);

/// A node that starts again.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) label: String,
}

impl Acts {
    /// That the node of a fault starts again.
    pub(super) fn note_start(&mut self, index: usize, event: &FaultEvent, on: &Stage<'_>) {
        if let Some(node) = event.nodes.first() {
            let label = on.scenario.topology.nodes[usize::from(*node)].label.clone();
            self.starting.insert(index, Start { label });
        }
    }

    pub(super) fn has_to_attend(&self) -> bool {
        !(self.starting.is_empty() && self.squeezed.is_empty())
    }

    pub(super) fn attend(&mut self, on: &mut Stage<'_>, tell: &mut dyn FnMut(&str)) {
        for index in self.starting.keys().copied().collect::<Vec<_>>() {
            self.attend_start(index, on, tell);
        }
        for place in self.squeezed.clone() {
            self.attend_squeezed(place, on, tell);
        }
    }

    fn attend_start(&mut self, index: usize, on: &mut Stage<'_>, tell: &mut dyn FnMut(&str)) {
        let Some(label) = self.starting.get(&index).map(|start| start.label.clone()) else { return };
        let Some(started) = on.mesh.restarted(&label) else { return };
        self.starting.remove(&index);
        let now_us = self.now_us();
        if let Some(event) = &mut self.events[index] {
            match started {
                Ok(()) => {
                    is_back(&label, on);
                    event.healed_us = Some(now_us);
                }
                Err(error) => event.failed = Some(format!("not undone: {error}")),
            }
        }
        self.tell(index, "over: ", tell);
    }

    /// One that ended since the kernel gave it no more memory is lost from then on, as by any other fault.
    fn attend_squeezed(&mut self, place: u16, on: &mut Stage<'_>, tell: &mut dyn FnMut(&str)) {
        let label = &on.scenario.topology.nodes[usize::from(place)].label;
        let Some(status) = on.mesh.node_mut(label).ended() else { return };
        self.squeezed.remove(&place);
        if !on.mesh.was_out_of_memory(label) {
            return;
        }
        on.generator.set_address(place, None);
        let what = format!("{label} ended for want of memory ({status})");
        tell(&format!("{:7.2} s  {what}", self.now_us() as f64 / 1e6));
        self.consequences.push(FaultEvent {
            what,
            nodes: vec![place],
            is_loss: true,
            is_split: false,
            is_link: false,
            begun_us: self.now_us(),
            healed_us: None,
            failed: None,
            times: None,
        });
    }
}

/// A node that was started again has another API address and another process.
fn is_back(label: &str, on: &Stage<'_>) {
    let Some(place) = on.scenario.place(label) else { return };
    let node = on.mesh.node(label);
    let address = node.client.base().trim_start_matches("http://").parse().ok();
    on.generator.set_address(place as u16, address);
    on.observers.is_back(place, node.client.base(), node.pid());
}

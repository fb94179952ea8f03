//! Faults done to a running mesh on time, and undone.

mod attend;
mod doing;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::attend::{ATTEND, Start};
use self::doing::{Undo, do_it, undo_it};
use super::observe::Observers;
use crate::generator::Generator;
use crate::history::{FaultEvent, FaultTimes};
use crate::mesh::Mesh;
use crate::scenario::{FaultKind, Scenario};
use crate::wait;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Heal,
    Begin,
}

/// The faults of a scenario, done and to do.
#[derive(Debug)]
pub(super) struct Acts {
    begun: Instant,
    steps: Vec<(u64, Step, usize)>,
    events: Vec<Option<FaultEvent>>,
    undo: BTreeMap<usize, Undo>,
    entries: Vec<usize>,
    /// By fault: nodes that start again.
    starting: BTreeMap<usize, Start>,
    /// Places of nodes that were left less memory, and have not ended since.
    squeezed: BTreeSet<u16>,
    /// What followed from faults.
    consequences: Vec<FaultEvent>,
}

/// What faults are done to.
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) mesh: &'a mut Mesh,
    pub(super) generator: &'a Generator,
    pub(super) observers: &'a Observers,
}

impl Acts {
    pub(super) fn new(scenario: &Scenario, begun: Instant) -> Self {
        let mut steps = Vec::new();
        for (index, fault) in scenario.faults.iter().enumerate() {
            steps.push((fault.at_us, Step::Begin, index));
            // A restart heals itself, as fast as it can.
            if let Some(for_us) = fault.for_us {
                steps.push((fault.at_us + for_us, Step::Heal, index));
            }
        }
        steps.sort_unstable();
        let entries = scenario.loads.iter().flat_map(|load| load.at.iter().copied()).collect();
        let events = vec![None; scenario.faults.len()];
        Self {
            begun,
            steps,
            events,
            undo: BTreeMap::new(),
            entries,
            starting: BTreeMap::new(),
            squeezed: BTreeSet::new(),
            consequences: Vec::new(),
        }
    }

    /// Does them all, each at its time or as soon after as those before allow, and sees to what they lead to
    /// until a time; false on Ctrl-C. Nobody waits for a node that starts again.
    pub(super) fn all(&mut self, on: &mut Stage<'_>, until: Instant, tell: &mut dyn FnMut(&str)) -> bool {
        for (at_us, step, index) in self.steps.clone() {
            if !self.wait_until(self.begun + Duration::from_micros(at_us), on, tell) {
                return false;
            }
            match step {
                Step::Begin => self.begin(index, on),
                // What was not done need not be undone.
                Step::Heal if !self.undo.contains_key(&index) => continue,
                Step::Heal => self.heal(index, on),
            }
            self.tell(index, if step == Step::Begin { "" } else { "undone: " }, tell);
        }
        self.wait_until(until, on, tell)
    }

    fn wait_until(&mut self, at: Instant, on: &mut Stage<'_>, tell: &mut dyn FnMut(&str)) -> bool {
        while self.has_to_attend() && Instant::now() < at {
            if !wait::until_instant(at.min(Instant::now() + ATTEND), || false) {
                return false;
            }
            self.attend(on, tell);
        }
        wait::until_instant(at, || false)
    }

    fn tell(&self, index: usize, how: &str, tell: &mut dyn FnMut(&str)) {
        if let Some(event) = &self.events[index] {
            let failed = event.failed.as_ref().map_or(String::new(), |why| format!(" FAILED: {why}"));
            tell(&format!("{:7.2} s  {how}{}{failed}", self.now_us() as f64 / 1e6, event.what));
        }
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn begin(&mut self, index: usize, on: &mut Stage<'_>) {
        let fault = &on.scenario.faults[index];
        let kind = &fault.kind;
        let target = self.target(index, on.scenario, on.mesh, on.generator);
        let label = target.as_ref().ok().and_then(Option::as_deref);
        let mut event = FaultEvent {
            what: kind.told(label),
            nodes: nodes_of(kind, label, on.scenario),
            is_loss: kind.is_loss(),
            is_split: kind.is_split(),
            is_link: matches!(kind, FaultKind::Link { .. } | FaultKind::Cut { .. }),
            begun_us: self.now_us(),
            healed_us: None,
            failed: None,
            times: None,
        };
        let done = target.and_then(|label| {
            let label = label.as_deref().unwrap_or_default();
            let is_killed =
                matches!(kind, FaultKind::Kill(_) | FaultKind::PowerLoss(_) | FaultKind::Restart(_));
            if is_killed {
                self.runs_or_is_meant_not_to(label, kind, on)?;
            }
            // Nobody may be sent to a port that another process might take meanwhile.
            if let Some(place) = on.scenario.place(label).filter(|_| is_killed) {
                on.generator.set_address(place as u16, None);
            }
            do_it(on.mesh, kind, Some(label)).map_err(|error| error.to_string())
        });
        match done {
            Ok(undo) => {
                event.times = Some(FaultTimes {
                    due_us: fault.at_us,
                    done_us: self.now_us(),
                    undo_due_us: fault.for_us.map(|for_us| fault.at_us + for_us),
                    undone_us: None,
                });
                match kind {
                    FaultKind::Restart(_) => self.note_start(index, &event, on),
                    FaultKind::Memory(..) => self.squeezed.extend(event.nodes.first()),
                    _ => {}
                }
                self.undo.insert(index, undo);
            }
            Err(why) => event.failed = Some(why),
        }
        self.events[index] = Some(event);
    }

    /// A node that is to be taken down must run, or it would hide that it had ended by itself; but one may be
    /// started again whose battery was empty.
    fn runs_or_is_meant_not_to(
        &self,
        label: &str,
        kind: &FaultKind,
        on: &mut Stage<'_>,
    ) -> Result<(), String> {
        if on.mesh.is_starting(label) {
            return Err(format!("it met nothing: {label} has not yet started again"));
        }
        let Some(status) = on.mesh.node_mut(label).ended() else { return Ok(()) };
        let had_no_power = on.scenario.topology.nodes.iter().any(|node| {
            node.label == label && node.battery.is_some() && matches!(kind, FaultKind::Restart(_))
        });
        let is_by_itself = on.mesh.node_mut(label).ended_by_itself().is_some();
        if had_no_power && is_by_itself && on.mesh.was_without_power(label) {
            return Ok(());
        }
        let by_itself =
            if is_by_itself { format!(", it had ended by itself ({status})") } else { String::new() };
        Err(format!("it met nothing: {label} was down already{by_itself}"))
    }

    fn heal(&mut self, index: usize, on: &mut Stage<'_>) {
        let Some(undo) = self.undo.remove(&index) else { return };
        let done = undo_it(on.mesh, &undo).map_err(|error| error.to_string());
        let now_us = self.now_us();
        let Some(mut event) = self.events[index].take() else { return };
        match done {
            Ok(()) => {
                if let Some(times) = &mut event.times {
                    times.undone_us = Some(now_us);
                }
                match undo {
                    Undo::Start(_) => self.note_start(index, &event, on),
                    _ => event.healed_us = Some(now_us),
                }
            }
            Err(why) => event.failed = Some(format!("not undone: {why}")),
        }
        self.events[index] = Some(event);
    }

    /// Lets every node go on that stands still, once the load is over.
    pub(super) fn thaw_all(&mut self, mesh: &mut Mesh) {
        for undo in self.undo.values() {
            if let Undo::Thaw(label) = undo {
                // Whatever hinders it shows when the mesh ends.
                let _ = mesh.thaw(label);
            }
        }
    }

    /// All that was done, and what followed from it.
    pub(super) fn done(mut self) -> Vec<FaultEvent> {
        for (index, start) in std::mem::take(&mut self.starting) {
            if let Some(event) = &mut self.events[index] {
                let label = start.label;
                event.failed = Some(format!("not undone: {label} was not ready when the load ended"));
            }
        }
        self.events.extend(self.consequences.into_iter().map(Some));
        let mut events: Vec<FaultEvent> = self.events.into_iter().flatten().collect();
        events.sort_by_key(|event| event.begun_us);
        events
    }
}

fn nodes_of(kind: &FaultKind, target: Option<&str>, scenario: &Scenario) -> Vec<u16> {
    let labels: Vec<&str> = match kind {
        FaultKind::Link { from, to, .. } | FaultKind::Cut { from, to, .. } => vec![from, to],
        FaultKind::Partition(groups) => groups.iter().flatten().map(String::as_str).collect(),
        _ => target.into_iter().collect(),
    };
    labels.into_iter().filter_map(|label| scenario.place(label)).map(|place| place as u16).collect()
}

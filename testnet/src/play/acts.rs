//! Faults done to a running mesh on time, and undone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::observe::Observers;
use crate::generator::Generator;
use crate::history::FaultEvent;
use crate::link::LinkSpec;
use crate::mesh::{FaultError, Mesh};
use crate::scenario::{FaultKind, Scenario, Target, clash};
use crate::wait;

/// Whoever ran most of the answers of so long before is the busiest.
const BUSIEST_OF_US: u64 = 1_000_000;

/// What undoes a fault.
#[derive(Debug, Clone)]
enum Undo {
    /// Nothing is left to undo.
    Nothing,
    Start(String),
    Thaw(String),
    /// Links as they were.
    Links(Vec<(String, String, LinkSpec)>),
    /// Every cut goes.
    Heal,
    Cpu(String, Option<f64>),
    Memory(String, Option<u64>),
    FreeDisk(String),
    Clock(String),
    /// Rates of all that is sent and received.
    Uplink(String, Option<u64>, Option<u64>),
}

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
        Self { begun, steps, events, undo: BTreeMap::new(), entries }
    }

    /// Does them all, each at its time or as soon after as those before allow; false on Ctrl-C.
    pub(super) fn all(
        &mut self,
        scenario: &Scenario,
        mesh: &mut Mesh,
        generator: &Generator,
        observers: &Observers,
        tell: &mut dyn FnMut(&str),
    ) -> bool {
        for (at_us, step, index) in self.steps.clone() {
            if !wait::until_instant(self.begun + Duration::from_micros(at_us), || false) {
                return false;
            }
            match step {
                Step::Begin => self.begin(index, scenario, mesh, generator, observers),
                // What was not done need not be undone.
                Step::Heal if !self.undo.contains_key(&index) => continue,
                Step::Heal => self.heal(index, scenario, mesh, generator, observers),
            }
            if let Some(event) = &self.events[index] {
                let what = if step == Step::Begin { "" } else { "undone: " };
                let failed = event.failed.as_ref().map_or(String::new(), |why| format!(" FAILED: {why}"));
                tell(&format!("{:7.2} s  {what}{}{failed}", self.now_us() as f64 / 1e6, event.what));
            }
        }
        true
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn begin(
        &mut self,
        index: usize,
        scenario: &Scenario,
        mesh: &mut Mesh,
        generator: &Generator,
        observers: &Observers,
    ) {
        let kind = &scenario.faults[index].kind;
        let target = match kind.target() {
            None => Ok(None),
            Some(Target::Node(label)) => Ok(Some(label.clone())),
            Some(Target::Busiest) => {
                self.busiest(scenario, mesh, generator, &self.chosen_from(index, scenario)).map(Some)
            }
            Some(Target::Host) => self.host(scenario, mesh, &self.chosen_from(index, scenario)).map(Some),
        };
        let label = target.as_ref().ok().and_then(Option::as_deref);
        let mut event = FaultEvent {
            what: kind.told(label),
            nodes: nodes_of(kind, label, scenario),
            is_loss: kind.is_loss(),
            is_split: kind.is_split(),
            begun_us: self.now_us(),
            healed_us: None,
            failed: None,
        };
        let done = target.and_then(|label| {
            let place = label.as_deref().and_then(|label| scenario.place(label)).map(|place| place as u16);
            let is_killed = matches!(kind, FaultKind::Kill(_) | FaultKind::PowerLoss(_));
            let label_of = || label.as_deref().unwrap_or_default();
            if is_killed && mesh.node_mut(label_of()).ended().is_some() {
                return Err(format!("it met nothing: {} was down already", label_of()));
            }
            // Nobody may be sent to a port that another process might take meanwhile.
            if let Some(place) = place.filter(|_| is_killed) {
                generator.set_address(place, None);
            }
            do_it(mesh, kind, label.as_deref()).map_err(|error| error.to_string())
        });
        match done {
            Ok(undo) => {
                if matches!(kind, FaultKind::Restart(_)) {
                    event.healed_us = Some(self.now_us());
                    if let Some(label) = event
                        .nodes
                        .first()
                        .map(|node| scenario.topology.nodes[usize::from(*node)].label.clone())
                    {
                        is_back(&label, scenario, mesh, generator, observers);
                    }
                }
                self.undo.insert(index, undo);
            }
            Err(why) => event.failed = Some(why),
        }
        self.events[index] = Some(event);
    }

    fn heal(
        &mut self,
        index: usize,
        scenario: &Scenario,
        mesh: &mut Mesh,
        generator: &Generator,
        observers: &Observers,
    ) {
        let Some(undo) = self.undo.remove(&index) else { return };
        let done = undo_it(mesh, &undo).map_err(|error| error.to_string());
        if let (Ok(()), Undo::Start(label)) = (&done, &undo) {
            is_back(label, scenario, mesh, generator, observers);
        }
        let now_us = self.now_us();
        if let Some(event) = &mut self.events[index] {
            match done {
                Ok(()) => event.healed_us = Some(now_us),
                Err(why) => event.failed = Some(format!("not undone: {why}")),
            }
        }
    }

    /// Places of those that a fault may choose from: no load enters there, and no other fault acts on them or will
    /// do so meanwhile.
    fn chosen_from(&self, index: usize, scenario: &Scenario) -> Vec<usize> {
        let now_us = self.now_us();
        let named = clash::named_meanwhile(&scenario.faults, index);
        let is_free = |place: &usize| {
            !self.entries.contains(place)
                && !named.contains(scenario.topology.nodes[*place].label.as_str())
                && !self.events.iter().flatten().any(|event| event.acts_on(*place as u16, now_us))
        };
        (0..scenario.topology.nodes.len()).filter(is_free).collect()
    }

    /// Who ran most.
    fn busiest(
        &self,
        scenario: &Scenario,
        mesh: &Mesh,
        generator: &Generator,
        from: &[usize],
    ) -> Result<String, String> {
        let now_us = self.now_us();
        let mut runs: BTreeMap<usize, usize> = BTreeMap::new();
        for peer in generator.ran_since(now_us.saturating_sub(BUSIEST_OF_US)) {
            let node = mesh.nodes().iter().find(|node| node.id().to_string() == peer);
            let place = node.and_then(|node| scenario.place(node.label()));
            if let Some(place) = place.filter(|place| from.contains(place)) {
                *runs.entry(place).or_default() += 1;
            }
        }
        let busiest = runs.into_iter().max_by_key(|(place, runs)| (*runs, std::cmp::Reverse(*place)));
        let label = busiest.map(|(place, _)| scenario.topology.nodes[place].label.clone());
        label.ok_or_else(|| {
            "no node ran an answer in the last second but those where requests enter or faults act".to_owned()
        })
    }

    /// A host of some block.
    fn host(&self, scenario: &Scenario, mesh: &Mesh, from: &[usize]) -> Result<String, String> {
        let entry = self.entries.first().ok_or_else(|| "no load enters anywhere".to_owned())?;
        let asked = &scenario.topology.nodes[*entry].label;
        let told = mesh.node(asked).client.deployments().map_err(|error| error.to_string())?;
        let hosts = told.deployments.iter().flat_map(|deployment| &deployment.hosts);
        let places =
            hosts.filter_map(|host| scenario.place(&host.label)).filter(|place| from.contains(place));
        let label = places.map(|place| &scenario.topology.nodes[place].label).min();
        let nobody = "no node hosts anything but those where requests enter or faults act";
        label.cloned().ok_or_else(|| nobody.to_owned())
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

    pub(super) fn done(self) -> Vec<FaultEvent> {
        let mut events: Vec<FaultEvent> = self.events.into_iter().flatten().collect();
        events.sort_by_key(|event| event.begun_us);
        events
    }
}

/// A node that was started again has another API address and another process.
fn is_back(label: &str, scenario: &Scenario, mesh: &Mesh, generator: &Generator, observers: &Observers) {
    let Some(place) = scenario.place(label) else { return };
    let node = mesh.node(label);
    let address = node.client.base().trim_start_matches("http://").parse().ok();
    generator.set_address(place as u16, address);
    observers.is_back(place, node.client.base(), node.pid());
}

fn nodes_of(kind: &FaultKind, target: Option<&str>, scenario: &Scenario) -> Vec<u16> {
    let labels: Vec<&str> = match kind {
        FaultKind::Link { from, to, .. } | FaultKind::Cut { from, to, .. } => vec![from, to],
        FaultKind::Partition(groups) => groups.iter().flatten().map(String::as_str).collect(),
        _ => target.into_iter().collect(),
    };
    labels.into_iter().filter_map(|label| scenario.place(label)).map(|place| place as u16).collect()
}

fn do_it(mesh: &mut Mesh, kind: &FaultKind, target: Option<&str>) -> Result<Undo, FaultError> {
    let label = target.unwrap_or_default();
    let spec = mesh.nodes().iter().find(|node| node.label() == label).map(|node| node.spec.clone());
    match kind {
        FaultKind::Kill(_) => mesh.kill(label).map(|()| Undo::Start(label.to_owned())),
        FaultKind::PowerLoss(_) => mesh.power_loss(label).map(|()| Undo::Start(label.to_owned())),
        FaultKind::Restart(_) => mesh.restart(label).map(|()| Undo::Nothing),
        FaultKind::Freeze(_) => mesh.freeze(label).map(|()| Undo::Thaw(label.to_owned())),
        FaultKind::Cpu(_, share) => {
            let before = spec.and_then(|spec| spec.cpu_share);
            mesh.set_cpu(label, Some(*share)).map(|()| Undo::Cpu(label.to_owned(), before))
        }
        FaultKind::Memory(_, bytes) => {
            let before = spec.and_then(|spec| spec.memory_bytes);
            mesh.set_memory(label, Some(*bytes)).map(|()| Undo::Memory(label.to_owned(), before))
        }
        FaultKind::Disk(_) => mesh.fill_disk(label).map(|()| Undo::FreeDisk(label.to_owned())),
        FaultKind::Battery(_, level) => mesh.set_battery(label, *level).map(|()| Undo::Nothing),
        FaultKind::Clock(_, offset_s) => {
            mesh.set_clock(label, *offset_s).map(|()| Undo::Clock(label.to_owned()))
        }
        FaultKind::Uplink { up_bits_per_s, down_bits_per_s, .. } => {
            let before = spec.map(|spec| (spec.uplink_bits_per_s, spec.downlink_bits_per_s));
            let (up, down) = before.unwrap_or_default();
            let done = mesh.set_uplink(label, *up_bits_per_s, *down_bits_per_s);
            done.map(|()| Undo::Uplink(label.to_owned(), up, down))
        }
        FaultKind::Partition(groups) => {
            let groups: Vec<Vec<&str>> =
                groups.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
            let groups: Vec<&[&str]> = groups.iter().map(Vec::as_slice).collect();
            mesh.partition(&groups).map(|()| Undo::Heal)
        }
        FaultKind::Link { from, to, both_ways, change } => {
            change_links(mesh, from, to, *both_ways, |spec| change.of(&spec))
        }
        FaultKind::Cut { from, to, both_ways } => {
            change_links(mesh, from, to, *both_ways, |spec| LinkSpec { cut: true, ..spec })
        }
    }
}

fn change_links(
    mesh: &mut Mesh,
    from: &str,
    to: &str,
    both_ways: bool,
    change: impl Fn(LinkSpec) -> LinkSpec,
) -> Result<Undo, FaultError> {
    let mut before = Vec::new();
    let ways = [(from, to), (to, from)];
    for (from, to) in ways.into_iter().take(if both_ways { 2 } else { 1 }) {
        let spec = mesh.link(from, to)?;
        mesh.set_link(from, to, &change(spec))?;
        before.push((from.to_owned(), to.to_owned(), spec));
    }
    Ok(Undo::Links(before))
}

fn undo_it(mesh: &mut Mesh, undo: &Undo) -> Result<(), FaultError> {
    match undo {
        Undo::Nothing => Ok(()),
        Undo::Start(label) => mesh.restart(label),
        Undo::Thaw(label) => mesh.thaw(label),
        Undo::Links(before) => before.iter().try_for_each(|(from, to, spec)| mesh.set_link(from, to, spec)),
        Undo::Heal => mesh.heal(),
        Undo::Cpu(label, share) => mesh.set_cpu(label, *share),
        Undo::Memory(label, bytes) => mesh.set_memory(label, *bytes),
        Undo::Clock(label) => mesh.set_clock(label, 0.0),
        Undo::FreeDisk(label) => mesh.free_disk(label),
        Undo::Uplink(label, up, down) => mesh.set_uplink(label, *up, *down),
    }
}

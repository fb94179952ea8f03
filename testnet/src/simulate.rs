//! Meshes in virtual time: the real `mesh` and `flow` of the node as pure code under a simulated network, many
//! nodes on one thread, everything from one seed. Links are those of `link`; TCP, gossipsub and the work of a
//! driver around `flow` are models (`simulate/pipes.rs`, `gossip.rs`, `work.rs`).

mod faults;
mod figures;
mod gossip;
mod host;
mod joining;
mod measured;
mod messages;
mod pipes;
mod queue;
mod talk;
mod wire;
mod work;
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

pub use measured::{Busiest, Delays, FalseDeath, Measured, Rate, Spread};
use serde::Serialize;
pub use work::Tally;

use crate::memory;
use crate::random::Random;
use figures::Figures;
use host::Host;
use pipes::{HostIndex, NetworkSpec};
use work::{Work, WorkEvent};
use world::{What, World};

/// Nodes of a simulated mesh.
pub const NODES_MAX: u16 = 10_000;
/// Addresses that a node is told to join at.
const JOINS: usize = 3;

/// Longest virtual time, before and while it is measured, seconds: four hours, as scenarios have at most.
pub const TIME_S_MAX: u32 = 14_400;
/// Deaths that find time to be measured one after the other.
const CRASHES_MAX: u32 = 20;
/// More is not what such meshes are for, and only fills this one's memory.
const CHANGES_PER_MINUTE_MAX: u32 = 60_000;
const REQUESTS_PER_S_MAX: f64 = 10_000.0;
/// Half way round the world and back some times.
pub const LATENCY_US_MAX: u64 = 10_000_000;
/// Virtual time between two looks at whether to go on, microseconds.
const LOOK_US: u64 = 10_000;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spec {
    /// Nodes.
    pub nodes: u16,
    /// From which everything is drawn.
    pub seed: u64,
    /// Between the starts of two nodes, milliseconds; 0 for all at random within the first two seconds.
    pub apart_ms: u32,
    /// Virtual time that is measured, seconds.
    pub measured_s: u32,
    /// Virtual time before that, seconds: in it nodes join and probe each other.
    pub warm_up_s: u32,
    /// Share of packets that each way loses, 0 to 1.
    pub loss: f64,
    /// One way between the nearest and the furthest nodes, microseconds.
    pub latency_us: (u64, u64),
    /// Of each node's uplink, bits a second; absent for no limit.
    pub rate_bits_per_s: Option<u64>,
    /// Changes in the whole mesh that are worth telling at once, a minute.
    pub changes_per_minute: u32,
    /// Nodes that die, every second one with its machine; each starts again.
    pub crashes: u32,
    /// Share of nodes that get no processor for 0.2 to 1.5 s each 2 to 8 s, 0 to 1.
    pub starved: f64,
    /// Whether the monotonic clock of one node is put forward by an hour: more than any real one does.
    pub clock_jump: bool,
    /// How long the way between two nodes is cut in one direction, seconds.
    pub one_way_s: u32,
    /// How long the two halves of the mesh are parted, seconds.
    pub partition_s: u32,
    /// Requests in the whole mesh, a second.
    pub requests_per_s: f64,
    /// Whether the load of each host is another one every second, which is worth a record.
    pub loads_change: bool,
    /// Cores of one machine that all hosts share, as processes of a test mesh do; absent if each has its own.
    pub shared_cores: Option<u16>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            nodes: 100,
            seed: 1,
            apart_ms: 0,
            measured_s: 300,
            warm_up_s: 30,
            loss: 0.0,
            latency_us: (500, 20_000),
            rate_bits_per_s: Some(100_000_000),
            changes_per_minute: 30,
            crashes: 3,
            starved: 0.1,
            clock_jump: false,
            one_way_s: 20,
            partition_s: 30,
            requests_per_s: 0.0,
            loads_change: true,
            shared_cores: None,
        }
    }
}

/// What cannot be simulated, by the option of `cargo mesh simulate` that asks for it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Not a share.
    #[error("{option} {given}: a share, from 0 to 1")]
    Share {
        /// Which option.
        option: &'static str,
        /// As asked for.
        given: f64,
    },
    /// It never ends.
    #[error(
        "--partition {partition_s}: halves that are parted so long are not one again for the last third of the \
         {measured_s} s that are measured; at most {}, or a larger --minutes", measured_s / 3
    )]
    Partition {
        /// As asked for.
        partition_s: u32,
        /// What is measured.
        measured_s: u32,
    },
    /// Too little, or too much.
    #[error("{option}: {given}; it must be from {least} to {most} {unit}")]
    Bounds {
        /// Which option.
        option: &'static str,
        /// As asked for.
        given: f64,
        /// At least.
        least: f64,
        /// At most.
        most: f64,
        /// Of what.
        unit: &'static str,
    },
    /// The last nodes would start when all is measured.
    #[error(
        "--apart {apart_ms}: nodes that start so many ms apart are not all there after {warm_up_s} s of joining; a \
         longer --warm-up, or fewer --nodes"
    )]
    Apart {
        /// As asked for.
        apart_ms: u32,
        /// The time in which nodes join.
        warm_up_s: u32,
    },
}

impl Spec {
    /// Whether it can be simulated.
    ///
    /// # Errors
    /// What it asks for too much.
    pub fn check(&self) -> Result<(), SpecError> {
        for (option, given) in [("--loss", self.loss), ("--starved", self.starved)] {
            if !(0.0..=1.0).contains(&given) {
                return Err(SpecError::Share { option, given });
            }
        }
        let time_s_max = f64::from(TIME_S_MAX);
        let bounds = [
            ("--nodes", f64::from(self.nodes), 2.0, f64::from(NODES_MAX), "nodes"),
            ("--minutes", f64::from(self.measured_s), 10.0, time_s_max, "s that are measured"),
            ("--warm-up", f64::from(self.warm_up_s), 0.0, time_s_max, "s"),
            ("--crash", f64::from(self.crashes), 0.0, f64::from(CRASHES_MAX), "deaths"),
            (
                "--changes",
                f64::from(self.changes_per_minute),
                0.0,
                f64::from(CHANGES_PER_MINUTE_MAX),
                "a minute",
            ),
            ("--requests", self.requests_per_s, 0.0, REQUESTS_PER_S_MAX, "a second"),
            ("--latency", self.latency_us.1 as f64 / 1e3, 0.0, LATENCY_US_MAX as f64 / 1e3, "ms"),
        ];
        // Written so that what is no number is outside, too.
        let outside = bounds.into_iter().find(|(_, given, least, most, _)| !(*least..=*most).contains(given));
        if let Some((option, given, least, most, unit)) = outside {
            return Err(SpecError::Bounds { option, given, least, most, unit });
        }
        if u64::from(self.apart_ms) * u64::from(self.nodes) > u64::from(self.warm_up_s) * 1000 {
            return Err(SpecError::Apart { apart_ms: self.apart_ms, warm_up_s: self.warm_up_s });
        }
        if self.partition_s.saturating_mul(3) > self.measured_s {
            return Err(SpecError::Partition { partition_s: self.partition_s, measured_s: self.measured_s });
        }
        Ok(())
    }

    fn warm_up_us(&self) -> u64 {
        u64::from(self.warm_up_s) * 1_000_000
    }

    fn end_us(&self) -> u64 {
        self.warm_up_us() + u64::from(self.measured_s) * 1_000_000
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What was asked for.
    pub spec: Spec,
    /// What was measured.
    pub measured: Measured,
    /// What became of the requests.
    pub requests: Tally,
    /// Events that the simulation took.
    pub events: u64,
    /// A hash of them all in their order: the same for the same spec.
    pub trace: String,
    /// Packets sent, and how many of them because others were lost.
    pub packets: (u64, u64),
    /// Virtual time over real time.
    pub speed_up: f64,
    /// The most memory that this process ever held, where the kernel says so.
    pub peak_bytes: Option<u64>,
}

/// Simulates a mesh.
///
/// # Errors
/// When the spec asks for what cannot be.
pub fn run(spec: &Spec) -> Result<Outcome, SpecError> {
    spec.check()?;
    let began = Instant::now();
    let mut world = set_up(spec);
    world.run_until(spec.end_us());
    Ok(outcome(spec, world, began))
}

/// The same as long as `goes_on`, which is asked every few virtual milliseconds with the virtual seconds so
/// far; `None` when it does not.
///
/// # Errors
/// As [`run`].
pub fn run_while(spec: &Spec, goes_on: &mut dyn FnMut(f64) -> bool) -> Result<Option<Outcome>, SpecError> {
    spec.check()?;
    let began = Instant::now();
    let mut world = set_up(spec);
    let mut now_us = 0;
    while now_us < spec.end_us() {
        now_us = (now_us + LOOK_US).min(spec.end_us());
        world.run_until(now_us);
        if !goes_on(now_us as f64 / 1e6) {
            return Ok(None);
        }
    }
    Ok(Some(outcome(spec, world, began)))
}

/// What came of a world at its end.
fn outcome(spec: &Spec, mut world: World, began: Instant) -> Outcome {
    let work_s = began.elapsed().as_secs_f64();
    let measured = world.figures.report(spec.end_us(), &world.hosts, work_s);
    let requests = world.settle_work(spec.end_us());
    let (events, trace) = world.trace();
    Outcome {
        spec: *spec,
        measured,
        requests,
        events,
        trace: format!("{trace:016x}"),
        packets: world.pipes.packets(),
        speed_up: (spec.end_us() as f64 / 1e6) / work_s,
        peak_bytes: memory::own_peak_bytes(),
    }
}

fn set_up(spec: &Spec) -> World {
    set_up_with(spec, |index, random| match (index, u64::from(spec.apart_ms)) {
        (0, _) => 0,
        (_, 0) => random.bits() % 2_000_000,
        (_, apart_ms) => u64::from(index) * apart_ms * 1_000,
    })
}

/// The same, with the times at which hosts start, microseconds.
fn set_up_with(spec: &Spec, starts_us: impl Fn(HostIndex, &mut Random) -> u64) -> World {
    let mut random = Random::new(spec.seed);
    let hosts = (0..spec.nodes).map(|index| {
        let joins = if index == 0 { 0 } else { JOINS };
        // The first one is there before all others, so that no two of them end up with only each other.
        let any = |join| if join == 0 { 0 } else { (random.bits() % u64::from(index)) as HostIndex };
        let earlier: BTreeSet<HostIndex> = (0..joins).map(any).collect();
        let join = earlier.into_iter().map(host::address).collect();
        Host::new(index, random.bits(), join)
    });
    let hosts: Vec<Host> = hosts.collect();
    let network =
        NetworkSpec { rate_bits_per_s: spec.rate_bits_per_s, latency_us: spec.latency_us, loss: spec.loss };
    let figures = Figures::new(hosts.len(), spec.warm_up_us());
    let work = Work::new(spec, random.bits());
    let mut hosts = hosts;
    hosts.iter_mut().for_each(|host| host.hosted = work.hosted(host.index));
    let first_us = work.first_us(spec.warm_up_us());
    let mut world = World::new(network, hosts, figures, work, random.bits());
    world.loads_change = spec.loads_change;
    world.cores_free_us = vec![0; usize::from(spec.shared_cores.unwrap_or(0))];
    for index in 0..spec.nodes {
        world.queue.push(starts_us(index, &mut random), What::Start(index));
    }
    if let Some(first_us) = first_us {
        world.queue.push(first_us, What::Work(Box::new(WorkEvent::Ask)));
    }
    for (at_us, fault) in faults::schedule(spec, &mut random) {
        world.queue.push(at_us, What::Fault(fault));
    }
    world
}

#[cfg(test)]
mod tests;

//! What goes wrong, and when: drawn from the seed before the run.

use stormo_protocol::state::Stamp;

use super::Spec;
use super::figures::OBSERVERS_MAX;
use super::pipes::{HostIndex, Pipes};
use super::talk::Payload;
use super::world::{What, World};
use crate::random::Random;

const SECOND_US: u64 = 1_000_000;
/// A dead host starts again after this, microseconds.
const RESTART_US: u64 = 25 * SECOND_US;
/// Between two pauses of a starved host, and how long they are, microseconds.
const STARVED_EACH_US: (u64, u64) = (2 * SECOND_US, 8 * SECOND_US);
const STARVED_US: (u64, u64) = (200_000, 1_500_000);
/// How far the clock of one host is put forward, milliseconds.
const JUMP_MS: u64 = 3_600_000;

/// A fault, or its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The process ends at once; its kernel says so to the others.
    Kill(HostIndex),
    /// The machine loses its power: it says nothing any more.
    PowerOff(HostIndex),
    /// It gets no processor for so long.
    Pause(HostIndex, u64),
    /// Its clock is put forward.
    Jump(HostIndex),
    /// Nothing passes from the first to the second, or passes again.
    OneWay(HostIndex, HostIndex, bool),
    /// Nothing passes between hosts below this one and the others, or passes again.
    Partition(HostIndex, bool),
    /// A host has something to say.
    Change(HostIndex),
}

fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.bits() % (most - least).max(1)
}

fn any(random: &mut Random, nodes: u16) -> HostIndex {
    (random.bits() % u64::from(nodes)) as HostIndex
}

/// All faults with their times, microseconds. Hosts die in the first half of what is measured, then a way is cut,
/// then the mesh is parted.
pub(super) fn schedule(spec: &Spec, random: &mut Random) -> Vec<(u64, Fault)> {
    let (from_us, end_us) = (spec.warm_up_us(), spec.end_us());
    let measured_us = end_us - from_us;
    let at = |share: f64| from_us + (measured_us as f64 * share) as u64;
    let mut faults = Vec::new();
    let changes = u64::from(spec.changes_per_minute) * measured_us / (60 * SECOND_US);
    for _ in 0..changes {
        faults.push((between(random, (from_us, end_us)), Fault::Change(any(random, spec.nodes))));
    }
    // The first one is whom others join at.
    let (mortal, first_victim) = (u32::from(spec.nodes - 1), u32::from(any(random, spec.nodes)));
    for crash in 0..spec.crashes {
        let at_us = at(0.05 + 0.4 * f64::from(crash) / f64::from(spec.crashes));
        let victim = 1 + ((first_victim + crash) % mortal) as HostIndex;
        let fault = if crash.is_multiple_of(2) { Fault::Kill(victim) } else { Fault::PowerOff(victim) };
        faults.push((at_us, fault));
    }
    let starved = (f64::from(spec.nodes) * spec.starved).round() as u16;
    for host in 0..starved {
        let mut at_us = from_us;
        while at_us < end_us {
            at_us += between(random, STARVED_EACH_US);
            faults.push((at_us, Fault::Pause(host, between(random, STARVED_US))));
        }
    }
    if spec.clock_jump {
        faults.push((at(0.3), Fault::Jump(any(random, spec.nodes))));
    }
    if spec.one_way_s > 0 {
        // Both are of those whose views are looked at.
        let nodes = spec.nodes.min(OBSERVERS_MAX as u16);
        let (from, to) = (any(random, nodes), any(random, nodes - 1));
        let to = if to >= from { to + 1 } else { to };
        faults.push((at(0.5), Fault::OneWay(from, to, true)));
        faults.push((at(0.5) + u64::from(spec.one_way_s) * SECOND_US, Fault::OneWay(from, to, false)));
    }
    if spec.partition_s > 0 {
        faults.push((at(0.65), Fault::Partition(spec.nodes / 2, true)));
        faults.push((
            at(0.65) + u64::from(spec.partition_s) * SECOND_US,
            Fault::Partition(spec.nodes / 2, false),
        ));
    }
    faults
}

impl World {
    pub(super) fn fault(&mut self, now_us: u64, fault: Fault) {
        match fault {
            Fault::Kill(host) => self.die(now_us, host, false),
            Fault::PowerOff(host) => self.die(now_us, host, true),
            Fault::Pause(host, length_us) => {
                self.hosts[usize::from(host)].paused_until_us = now_us + length_us;
            }
            Fault::Jump(host) => self.hosts[usize::from(host)].jump_ms += JUMP_MS,
            Fault::OneWay(from, to, cut) => {
                let to = self.one_way_to(from, to, cut);
                self.pipes.set_cut(now_us, from, to, cut);
                let [one, other] = [from, to].map(|host| &self.hosts[usize::from(host)]);
                self.figures.one_way(now_us, one, other, cut);
            }
            Fault::Partition(first, cut) => {
                self.pipes.part(cut.then_some(first));
                self.figures.partition(now_us, cut);
            }
            Fault::Change(index) => self.change(now_us, index),
        }
    }

    /// Which way is cut: one that carries a connection, where there is one.
    fn one_way_to(&self, from: HostIndex, to: HostIndex, cut: bool) -> HostIndex {
        if !cut {
            return self.figures.cut_to().unwrap_or(to);
        }
        let near = |peer: &&HostIndex| usize::from(**peer) < OBSERVERS_MAX;
        self.hosts[usize::from(from)]
            .peers
            .keys()
            .filter(near)
            .max_by_key(|peer| **peer <= to)
            .copied()
            .unwrap_or(to)
    }

    fn change(&mut self, now_us: u64, index: HostIndex) {
        let host = &mut self.hosts[usize::from(index)];
        if host.alive && host.paused_until_us <= now_us {
            host.change();
            // It is said by the next record, whenever that is made.
            let before = host.stamp();
            let stamp = Stamp { sequence: before.sequence + 1, ..before };
            self.figures.changed(now_us, index, stamp, &self.hosts);
            self.is(now_us, index);
        }
    }

    fn die(&mut self, now_us: u64, index: HostIndex, power: bool) {
        let host = &mut self.hosts[usize::from(index)];
        if !host.alive {
            return;
        }
        host.alive = false;
        let pipes: Vec<u32> = std::mem::take(&mut host.peers).into_values().collect();
        for pipe in pipes {
            self.pipes.close(pipe);
            if !power {
                self.reset(now_us, Pipes::<Payload>::back(pipe));
            }
        }
        self.pipes.set_dark(index, power);
        self.work_died(now_us, index);
        self.figures.died(now_us, index, &self.hosts);
        self.queue.push(now_us + RESTART_US, What::Start(index));
    }
}

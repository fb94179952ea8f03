//! Schedules from a seed.

use crate::random::Random;
use crate::scenario::{FaultKind, LinkChange, Scenario, Scheduled, Target};

/// Before the first fault: what is healthy must be seen first.
const QUIET_BEFORE_US: u64 = 3_000_000;
/// Behind the last one: progress must be seen.
pub const QUIET_AFTER_US: u64 = 10_000_000;
/// Between two faults, on average.
const GAP_US: f64 = 1_500_000.0;
/// A fault acts at least and at most so long.
const FOR_US: (f64, f64) = (300_000.0, 5_000_000.0);
/// After its end a fault counts for so long as if it still acted: a node that is back has to load first.
const REST_US: u64 = 3_000_000;
/// Draws that found no room, one after the other, before a schedule counts as full.
const TRIES_MAX: usize = 200;

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Whether links and machines are emulated.
    pub is_emulated: bool,
    /// Faults that act at once.
    pub at_once_max: usize,
    /// Length of the run.
    pub duration_us: u64,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// The faults, by time.
    pub faults: Vec<Scheduled>,
}

impl Bounds {
    /// As many faults at once as every part of every deployment has nodes to spare.
    pub fn at_once_of(scenario: &Scenario) -> usize {
        let spare = scenario.deploys.iter().map(|deploy| {
            // The command's own defaults: two, or one where the model is divided.
            let replicas = deploy.replicas.unwrap_or(if deploy.parts.is_some() { 1 } else { 2 });
            let placed = deploy.placement.iter().map(|(_, [first, end])| {
                let hosts = |block: u16| {
                    deploy
                        .placement
                        .iter()
                        .filter(|(_, [first, end])| (*first..*end).contains(&block))
                        .count()
                };
                (*first..*end).map(hosts).min().unwrap_or(0)
            });
            placed.min().unwrap_or(usize::from(replicas)).saturating_sub(1)
        });
        spare.min().unwrap_or(0)
    }
}

/// Draws a schedule. Nodes where requests enter are spared: what their death means for callers is known, and
/// told from what it means for others by a scenario of its own.
pub fn draw(scenario: &Scenario, seed: u64, bounds: &Bounds) -> Drawing {
    let mut random = Random::of(seed, "chaos");
    let entries: Vec<usize> = scenario.loads.iter().flat_map(|load| load.at.iter().copied()).collect();
    let labels = scenario.topology.nodes.iter().enumerate();
    let hosts: Vec<&str> =
        labels.filter(|(place, _)| !entries.contains(place)).map(|(_, node)| node.label.as_str()).collect();
    let all: Vec<&str> = scenario.topology.nodes.iter().map(|node| node.label.as_str()).collect();
    let mut faults: Vec<Scheduled> = Vec::new();
    let last_us = bounds.duration_us.saturating_sub(QUIET_AFTER_US);
    let mut at_us = QUIET_BEFORE_US;
    let mut tries = 0;
    while at_us < last_us && tries < TRIES_MAX && bounds.at_once_max > 0 && !hosts.is_empty() {
        let kind = kind(&mut random, bounds.is_emulated, &hosts, &all);
        let for_us = random.between(FOR_US.0, FOR_US.1) as u64;
        let is_instant = matches!(kind, FaultKind::Restart(_));
        let fault =
            Scheduled { line: 0, kind, at_us: milli(at_us), for_us: (!is_instant).then_some(milli(for_us)) };
        let acts = |other: &&Scheduled| end_us(other).saturating_add(REST_US) > fault.at_us;
        let acting: Vec<&Scheduled> = faults.iter().filter(acts).collect();
        let is_free = acting.len() < bounds.at_once_max
            && !acting.iter().any(|other| other.kind.shares_with(&fault.kind))
            && end_us(&fault) <= last_us;
        if is_free {
            faults.push(fault);
            tries = 0;
        } else {
            tries += 1;
        }
        at_us += random.exponential(GAP_US) as u64;
    }
    Drawing { faults }
}

/// Whole milliseconds: what a file says then is what was played.
fn milli(us: u64) -> u64 {
    us / 1000 * 1000
}

/// When a fault is over; a restart takes about a second.
fn end_us(fault: &Scheduled) -> u64 {
    fault.at_us + fault.for_us.unwrap_or(1_000_000)
}

fn kind(random: &mut Random, is_emulated: bool, hosts: &[&str], all: &[&str]) -> FaultKind {
    // By name: who is the busiest differs from play to play.
    let target = Target::Node(hosts[random.below(hosts.len())].to_owned());
    let (from, to) = two(random, all);
    match random.below(if is_emulated { 9 } else { 3 }) {
        0 => FaultKind::Kill(target),
        1 => FaultKind::Freeze(target),
        2 => FaultKind::Restart(target),
        3 => FaultKind::PowerLoss(target),
        4 => FaultKind::Cut { from, to, both_ways: false },
        5 => FaultKind::Cut { from, to, both_ways: true },
        6 => FaultKind::Cpu(target, percent(random.between(0.05, 0.3))),
        7 => {
            let alone = hosts[random.below(hosts.len())].to_owned();
            let rest = all.iter().filter(|label| **label != alone).map(|label| (*label).to_owned());
            let rest = rest.collect();
            FaultKind::Partition(vec![vec![alone], rest])
        }
        _ => FaultKind::Link { from, to, both_ways: true, change: change(random) },
    }
}

fn two(random: &mut Random, all: &[&str]) -> (String, String) {
    let first = random.below(all.len());
    let second = (first + 1 + random.below(all.len().saturating_sub(1))) % all.len();
    (all[first].to_owned(), all[second].to_owned())
}

fn change(random: &mut Random) -> LinkChange {
    let none = LinkChange::default();
    match random.below(5) {
        0 => LinkChange { loss: Some(percent(random.between(0.01, 0.1))), ..none },
        1 => LinkChange { corrupt: Some(percent(random.between(0.01, 0.05))), ..none },
        2 => LinkChange { rate_bits_per_s: Some(1_000_000), ..none },
        3 => {
            let latency_us = milli(random.between(20_000.0, 200_000.0) as u64);
            LinkChange { latency_us: Some(latency_us), jitter_us: Some(latency_us / 4), ..none }
        }
        _ => LinkChange {
            reorder: Some(percent(random.between(0.01, 0.2))),
            duplicate: Some(percent(random.between(0.01, 0.2))),
            ..none
        },
    }
}

/// To whole hundredths.
fn percent(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}

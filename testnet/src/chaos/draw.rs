//! Schedules from a seed.

use super::stretch::{Stretch, end_us, quiet_after_us};
use crate::random::Random;
use crate::scenario::{FaultKind, LinkChange, Scenario, Scheduled, Target, clash};
use crate::topology::NodeSpec;

/// Before the first fault: what is healthy must be seen first.
const QUIET_BEFORE_US: u64 = 3_000_000;
/// Between two faults, on average.
const GAP_US: f64 = 1_500_000.0;
/// A fault acts at least and at most so long.
const FOR_US: (f64, f64) = (300_000.0, 5_000_000.0);
/// After its end a fault counts for so long as if it still acted: a node that is back has to load first.
const REST_US: u64 = 3_000_000;
/// A clock is off by at most an hour.
const CLOCK_S_MAX: f64 = 3600.0;
/// A link, or an uplink, that got slow.
const RATE_BITS_PER_S: u64 = 1_000_000;
/// Draws that found no room, one after the other, before a schedule counts as full.
const TRIES_MAX: usize = 200;

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Whether links and machines are emulated.
    pub is_emulated: bool,
    /// Whether clocks can be put wrong.
    pub has_clocks: bool,
    /// Faults that act at once.
    pub at_once_max: usize,
    /// Length of the run.
    pub stretch: Stretch,
}

/// Why nothing can be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NothingToDisturb {
    /// Those where requests enter are spared, and there are no others.
    #[error(
        "requests enter at every node that may host something, and chaos spares these: leave a node out of the loads' \
         `at`"
    )]
    OnlyEntries,
    /// No part is hosted twice.
    #[error(
        "a part of a deployment is on one node only, so that any fault there takes it away: deploy with `replicas` \
         or a `placement` of two nodes each, or say --at-once"
    )]
    NothingToSpare,
    /// The time is too short.
    #[error(
        "no fault fits between {from_s} s, when the load has shown that all is well, and {until_s} s, behind which \
         progress must be seen: a larger --minutes"
    )]
    NoRoom {
        /// From here on.
        from_s: f64,
        /// Up to here.
        until_s: f64,
    },
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
///
/// # Errors
/// When there is nothing to disturb.
pub fn draw(scenario: &Scenario, seed: u64, bounds: &Bounds) -> Result<Drawing, NothingToDisturb> {
    let mut random = Random::of(seed, "chaos");
    let entries: Vec<usize> = scenario.loads.iter().flat_map(|load| load.at.iter().copied()).collect();
    let nodes = || scenario.topology.nodes.iter().enumerate();
    let is_entry = |place: &usize| entries.contains(place);
    let hosts: Vec<&NodeSpec> = nodes()
        .filter(|(place, node)| !is_entry(place) && may_host(scenario, node))
        .map(|(_, node)| node)
        .collect();
    if hosts.is_empty() {
        return Err(NothingToDisturb::OnlyEntries);
    }
    if bounds.at_once_max == 0 {
        return Err(NothingToDisturb::NothingToSpare);
    }
    let label = |node: &NodeSpec| node.label.clone();
    let around = Around {
        used: hosts
            .iter()
            .map(|host| label(host))
            .chain(nodes().filter(|(place, _)| is_entry(place)).map(|(_, node)| label(node)))
            .collect(),
        all: nodes().map(|(_, node)| label(node)).collect(),
        hosts,
    };
    let mut faults: Vec<Scheduled> = Vec::new();
    let loaded_us = bounds.stretch.loaded_us(scenario);
    let first_us = loaded_us.start + QUIET_BEFORE_US;
    let last_us = loaded_us.end.saturating_sub(quiet_after_us(scenario));
    let mut at_us = first_us;
    let mut tries = 0;
    while at_us < last_us && tries < TRIES_MAX {
        let kind = kind(&mut random, bounds, &around);
        let for_us = random.between(FOR_US.0, FOR_US.1) as u64;
        let is_instant = matches!(kind, FaultKind::Restart(_));
        let fault =
            Scheduled { line: 0, kind, at_us: milli(at_us), for_us: (!is_instant).then_some(milli(for_us)) };
        let acts = |other: &&Scheduled| end_us(other).saturating_add(REST_US) > fault.at_us;
        let acting: Vec<&Scheduled> = faults.iter().filter(acts).collect();
        let is_free = acting.len() < bounds.at_once_max
            && !acting.iter().any(|other| other.kind.shares_with(&fault.kind))
            && !faults.iter().any(|other| clash::between(other, &fault).is_some())
            && end_us(&fault) <= last_us
            && fault.kind.idle(&scenario.topology).is_none();
        if is_free {
            faults.push(fault);
            tries = 0;
        } else {
            tries += 1;
        }
        at_us += random.exponential(GAP_US) as u64;
    }
    if faults.is_empty() {
        let seconds = |us: u64| us as f64 / 1e6;
        return Err(NothingToDisturb::NoRoom { from_s: seconds(first_us), until_s: seconds(last_us) });
    }
    Ok(Drawing { faults })
}

/// Whom faults are drawn for.
struct Around<'a> {
    /// Nodes that may host something, and where no request enters.
    hosts: Vec<&'a NodeSpec>,
    /// The same, and behind them those where requests enter: requests pass between no others.
    used: Vec<String>,
    /// All nodes.
    all: Vec<String>,
}

/// Whether a part of a deployment may be on a node: where all are placed by name, on no others.
fn may_host(scenario: &Scenario, node: &NodeSpec) -> bool {
    let mut deploys = scenario.deploys.iter();
    deploys.any(|deploy| {
        deploy.placement.is_empty() || deploy.placement.iter().any(|(label, _)| *label == node.label)
    })
}

/// Whole milliseconds: what a file says then is what was played.
fn milli(us: u64) -> u64 {
    us / 1000 * 1000
}

/// What can be drawn of a host, by name: an empty battery never comes back, and where memory is short the
/// kernel ends what runs, so neither is drawn.
fn kinds(bounds: &Bounds, host: &NodeSpec) -> Vec<&'static str> {
    let mut kinds = vec!["kill", "freeze", "restart"];
    if bounds.has_clocks {
        kinds.push("clock");
    }
    if bounds.is_emulated {
        kinds.extend(["power_loss", "cut", "cut both ways", "cpu", "partition", "link", "uplink"]);
    }
    if bounds.is_emulated && host.disk_bytes.is_some() {
        kinds.push("disk");
    }
    kinds
}

fn kind(random: &mut Random, bounds: &Bounds, around: &Around<'_>) -> FaultKind {
    let Around { hosts, used, all } = around;
    let host = hosts[random.below(hosts.len())];
    // By name: who is the busiest differs from play to play.
    let target = Target::Node(host.label.clone());
    let (from, to) = two(random, used, hosts.len());
    let kinds = kinds(bounds, host);
    match kinds[random.below(kinds.len())] {
        "kill" => FaultKind::Kill(target),
        "freeze" => FaultKind::Freeze(target),
        "restart" => FaultKind::Restart(target),
        "clock" => FaultKind::Clock(target, random.between(-CLOCK_S_MAX, CLOCK_S_MAX).round()),
        "power_loss" => FaultKind::PowerLoss(target),
        "cut" => FaultKind::Cut { from, to, both_ways: false },
        "cut both ways" => FaultKind::Cut { from, to, both_ways: true },
        "cpu" => FaultKind::Cpu(target, percent(random.between(0.05, 0.3))),
        "disk" => FaultKind::Disk(target),
        "partition" => {
            let rest = all.iter().filter(|label| **label != host.label).cloned();
            FaultKind::Partition(vec![vec![host.label.clone()], rest.collect()])
        }
        "uplink" => FaultKind::Uplink {
            node: target,
            up_bits_per_s: Some(RATE_BITS_PER_S),
            down_bits_per_s: Some(RATE_BITS_PER_S),
        },
        _ => FaultKind::Link { from, to, both_ways: true, change: change(random) },
    }
}

/// The ends of a link, of which one at least is among the first of these.
fn two(random: &mut Random, used: &[String], hosts: usize) -> (String, String) {
    let host = random.below(hosts);
    let other = (host + 1 + random.below(used.len().saturating_sub(1))) % used.len();
    let (host, other) = (used[host].clone(), used[other].clone());
    if random.below(2) == 0 { (host, other) } else { (other, host) }
}

fn change(random: &mut Random) -> LinkChange {
    let none = LinkChange::default();
    match random.below(5) {
        0 => LinkChange { loss: Some(percent(random.between(0.01, 0.1))), ..none },
        1 => LinkChange { corrupt: Some(percent(random.between(0.01, 0.05))), ..none },
        2 => LinkChange { rate_bits_per_s: Some(RATE_BITS_PER_S), ..none },
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

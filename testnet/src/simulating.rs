//! `cargo mesh simulate`: a mesh in virtual time, and its figures beside those that are aimed at.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use stormo_testnet::counted::counted;
use stormo_testnet::interrupt;
use stormo_testnet::simulate::{self, FalseDeath, Measured, Outcome, Spec, Spread, Tally};

use crate::options::{self, Misuse};
use crate::run::Ended;
use crate::told::{self, tell};

/// Seconds of a minute, as `--minutes` counts.
const MINUTE_S: f64 = 60.0;
/// What the simulation bounds, in the units of the options.
const LATENCY_MS_MAX: f64 = simulate::LATENCY_US_MAX as f64 / 1e3;
const MINUTES_MIN: f64 = 0.2;
const MINUTES_MAX: f64 = simulate::TIME_S_MAX as f64 / MINUTE_S;
/// Between two words on how far it is.
const TOLD_EACH: Duration = Duration::from_secs(2);

/// What to simulate.
// A negative number is a wrong value, not an option.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct SimulateArgs {
    /// Nodes
    #[arg(long, default_value_t = Spec::default().nodes)]
    nodes: u16,
    /// Everything is drawn from it: the same seed gives the same run
    #[arg(long, default_value_t = Spec::default().seed)]
    seed: u64,
    /// One run for each of these seeds (`1..20` are twenty), one line for each, with --json one document of all
    #[arg(long, value_name = "FIRST..LAST")]
    seeds: Option<Seeds>,
    /// Between the starts of two nodes, milliseconds; 0 for all at random within two seconds
    #[arg(long, default_value_t = 0)]
    apart: u32,
    /// Virtual time that is measured, minutes
    #[arg(long, default_value_t = 5.0, value_parser = options::number(MINUTES_MIN..=MINUTES_MAX, "minutes"))]
    minutes: f64,
    /// Virtual time before that, in which nodes join, seconds
    #[arg(long, default_value_t = Spec::default().warm_up_s)]
    warm_up: u32,
    /// Share of packets lost on each way, 0 to 1
    #[arg(long, default_value_t = Spec::default().loss)]
    loss: f64,
    /// One way between the furthest nodes, milliseconds
    #[arg(long, default_value_t = 20.0, value_parser = options::number(0.0..=LATENCY_MS_MAX, "milliseconds"))]
    latency: f64,
    /// Each node's uplink, Mbit/s; 0 for no limit
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Changes worth telling at once, a minute in the whole mesh
    #[arg(long, default_value_t = Spec::default().changes_per_minute)]
    changes: u32,
    /// Nodes that die (every second one with its machine) and start again
    #[arg(long, default_value_t = Spec::default().crashes)]
    crash: u32,
    /// Share of nodes that get no processor for 0.2 to 1.5 s each 2 to 8 s, 0 to 1
    #[arg(long, default_value_t = Spec::default().starved)]
    starved: f64,
    /// Put the monotonic clock of one node forward by an hour
    #[arg(long)]
    clock_jump: bool,
    /// How long one way between two nodes is cut, seconds
    #[arg(long, default_value_t = Spec::default().one_way_s)]
    one_way: u32,
    /// How long the two halves of the mesh are parted, seconds [default: 30, or a quarter of what is measured, if that is less]
    #[arg(long)]
    partition: Option<u32>,
    /// Requests through simulated stages, a second in the whole mesh
    #[arg(long, default_value_t = 5.0)]
    requests: f64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Seeds from a first to a last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seeds(u64, u64);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text.split_once("..").and_then(|(first, last)| {
            Some(Self(first.parse().ok()?, last.trim_start_matches('=').parse().ok()?))
        });
        bounds
            .filter(|Self(first, last)| first <= last)
            .ok_or_else(|| "write `1..20`, the first and the last".into())
    }
}

impl SimulateArgs {
    fn spec(&self) -> Result<Spec> {
        let far_us = (self.latency * 1_000.0) as u64;
        let measured_s = (self.minutes * MINUTE_S) as u32;
        let spec = Spec {
            nodes: self.nodes,
            seed: self.seed,
            apart_ms: self.apart,
            measured_s,
            warm_up_s: self.warm_up,
            loss: self.loss,
            latency_us: (Spec::default().latency_us.0.min(far_us), far_us),
            rate_bits_per_s: (self.rate > 0).then(|| self.rate.saturating_mul(1_000_000)),
            changes_per_minute: self.changes,
            crashes: self.crash,
            starved: self.starved,
            clock_jump: self.clock_jump,
            one_way_s: self.one_way,
            partition_s: self.partition.unwrap_or(Spec::default().partition_s.min(measured_s / 4)),
            requests_per_s: self.requests,
            ..Spec::default()
        };
        spec.check().map_err(Misuse::of)?;
        Ok(spec)
    }
}

/// Simulates, and prints what came of it.
///
/// # Errors
/// When the arguments cannot be simulated, or what must never happen did: then the seed is in the error.
pub(crate) fn run(arguments: &SimulateArgs) -> Result<Ended> {
    let spec = arguments.spec()?;
    if let Some(seeds) = arguments.seeds {
        return sweep(&spec, seeds, arguments.json);
    }
    let whole_s = f64::from(spec.warm_up_s) + f64::from(spec.measured_s);
    let mut told = Instant::now();
    let mut goes_on = |virtual_s: f64| {
        if told.elapsed() >= TOLD_EACH {
            told = Instant::now();
            note!("{virtual_s:.1} of {whole_s} virtual seconds");
        }
        !interrupt::is_noted()
    };
    let Some(outcome) = simulate::run_while(&spec, &mut goes_on)? else { bail!("interrupted") };
    let judged = Judged::of(outcome);
    if arguments.json {
        told::document(&serde_json::to_string_pretty(&judged)?);
    } else {
        print(&judged.outcome);
    }
    let outcome = &judged.outcome;
    let requests = &outcome.requests;
    ensure!(
        requests.violations == 0,
        "{} that must never happen to a request, with seed {}: {}",
        counted(requests.violations, "thing"),
        outcome.spec.seed,
        requests.violated.join("; ")
    );
    Ok(if judged.holds { Ended::Well } else { Ended::Badly })
}

/// A run with what came of its aims.
#[derive(Serialize)]
struct Judged {
    /// Whether all aims are reached, and nothing happened that must not.
    holds: bool,
    /// What does not hold, in words.
    missed: Vec<String>,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Judged {
    fn of(outcome: Outcome) -> Self {
        let figures = figures(&outcome.spec, &outcome.measured).into_iter();
        let missed = figures.filter(|figure| figure.holds == Some(false)).map(|figure| figure.text);
        let missed: Vec<String> = missed.chain(outcome.requests.violated.iter().cloned()).collect();
        Self { holds: missed.is_empty(), missed, outcome }
    }
}

/// All runs of a sweep.
#[derive(Serialize)]
struct Sweep {
    holds: bool,
    /// Those of which something does not hold.
    seeds_missed: Vec<u64>,
    runs: Vec<Judged>,
}

/// One run for each seed: what each missed, and in the end which ones missed something.
fn sweep(spec: &Spec, Seeds(first, last): Seeds, is_json: bool) -> Result<Ended> {
    let mut sweep = Sweep { holds: true, seeds_missed: Vec::new(), runs: Vec::new() };
    for seed in first..=last {
        let spec = Spec { seed, ..*spec };
        let Some(outcome) = simulate::run_while(&spec, &mut |_| !interrupt::is_noted())? else {
            bail!("interrupted")
        };
        let judged = Judged::of(outcome);
        let verdict = if judged.holds { "all aims reached".to_owned() } else { judged.missed.join("; ") };
        let work_s = judged.outcome.measured.work_s;
        let line = format!("seed {seed}, {}, {work_s:.0} s of work: {verdict}", counted(spec.nodes, "node"));
        if !judged.holds {
            sweep.holds = false;
            sweep.seeds_missed.push(seed);
        }
        if is_json {
            note!("{line}");
            sweep.runs.push(judged);
        } else {
            tell!("{line}");
        }
    }
    let ended = if sweep.holds { Ended::Well } else { Ended::Badly };
    if is_json {
        told::document(&serde_json::to_string_pretty(&sweep)?);
        return Ok(ended);
    }
    let (seeds, missed) = (last - first + 1, &sweep.seeds_missed);
    if missed.is_empty() {
        tell!("{}, all aims reached", counted(seeds, "seed"));
    } else {
        let listed: Vec<String> = missed.iter().map(u64::to_string).collect();
        tell!("{} of {} missed an aim: {}", missed.len(), counted(seeds, "seed"), listed.join(", "));
    }
    Ok(ended)
}

/// A line of the report.
struct Figure {
    text: String,
    /// Whether the aim is reached, if there is one.
    holds: Option<bool>,
    /// The aim with that, as it ends the text; empty without one.
    aim: String,
}

impl Figure {
    /// Takes its verdict away.
    fn leave_unjudged(&mut self) {
        self.text.truncate(self.text.len() - self.aim.len());
        self.holds = None;
    }
}

impl From<String> for Figure {
    fn from(text: String) -> Self {
        Self { text, holds: None, aim: String::new() }
    }
}

fn print(outcome: &Outcome) {
    let Outcome { spec, measured, .. } = outcome;
    tell!(
        "{}, seed {}, {} s after {} s of joining; {} % loss, {} to {} ms one way",
        counted(spec.nodes, "node"),
        spec.seed,
        spec.measured_s,
        spec.warm_up_s,
        spec.loss * 100.0,
        spec.latency_us.0 as f64 / 1_000.0,
        spec.latency_us.1 as f64 / 1_000.0,
    );
    for figure in figures(spec, measured) {
        tell!("  {}", figure.text);
    }
    if outcome.requests.asked > 0 {
        tell!("  {}", requests(&outcome.requests));
    }
    let busiest = &measured.busiest;
    tell!(
        "  sent by a node, in the mean and by the busiest one (node {}, {} at the end), by what it is for:",
        busiest.node,
        counted(busiest.connections, "connection")
    );
    for ((name, mean), (_, most)) in measured.sent_by_kind.iter().zip(&busiest.sent_by_kind) {
        tell!("    {:>9.1} {:>9.1} kB/s  {name}", mean / 1_000.0, most / 1_000.0);
    }
    tell!(
        "{:.1} s of work for {:.0} s of virtual time: {:.1} times as fast; {}, {} ({} repeated), trace {}{}",
        measured.work_s,
        measured.work_s * outcome.speed_up,
        outcome.speed_up,
        counted(outcome.events, "event"),
        counted(outcome.packets.0, "packet"),
        outcome.packets.1,
        outcome.trace,
        outcome.peak_bytes.map_or(String::new(), |bytes| format!(", {} MiB at most", bytes >> 20)),
    );
}

/// How many nodes were taken for dead that were not, and the first of them.
fn told_deaths(measured: &Measured) -> String {
    let mut told = measured.false_deaths.to_string();
    for one in &measured.wrongly_dropped {
        let FalseDeath { at_s, by, of, silent_s, connection_lost } = one;
        let why = if *connection_lost { ", its connection broke" } else { "" };
        told += &format!("; node {of} by node {by} at {at_s:.1} s, silent for {silent_s:.1} s{why}");
    }
    told
}

/// Each figure with its aim (10, 100 and 1,000 nodes have aims of their own; others that of the next larger).
fn figures(spec: &Spec, measured: &Measured) -> Vec<Figure> {
    let size = [10, 100].iter().position(|nodes| spec.nodes <= *nodes).unwrap_or(2);
    let [known_ms, suspected_ms, sent_bytes] =
        [[1_000.0, 2_000.0, 3_000.0], [5_000.0, 8_000.0, 12_000.0], [15e3, 120e3, 120e3]]
            .map(|aims| aims[size]);
    let mut lines = vec![
        format!("all know all after {}", time(measured.formed_ms)).into(),
        format!(
            "{}; known to 50 %: {}",
            counted(measured.changes, "change"),
            spread(measured.known_to_half_ms)
        )
        .into(),
        line(
            "known to 99 %",
            spread(measured.known_to_99_percent_ms),
            meets(measured.known_to_99_percent_ms.worst, known_ms),
            known_ms,
            "ms",
        ),
        format!("known to all: {}", spread(measured.known_to_all_ms)).into(),
    ];
    if measured.deaths > 0 {
        let dead = measured.dead_suspected_by_all_ms;
        let what = format!("{}; suspected by all", counted(measured.deaths, "death"));
        lines.push(line(&what, spread(dead), meets(dead.worst, suspected_ms), suspected_ms, "ms"));
    }
    let formed = measured.formed_ms.is_some();
    let alive = measured.false_deaths == 0;
    lines.push(line("false deaths", told_deaths(measured), alive, 0.0, ""));
    if spec.one_way_s > 0 {
        let most = measured.flips_in_a_minute;
        let flips = format!(
            "{}, in a minute by one node at most {}",
            measured.flips_under_one_way_cut,
            most.map_or("not known: the two did not use each other".to_owned(), |most| most.to_string())
        );
        let holds = most.is_some_and(|most| most <= 1);
        lines.push(line("flips under a one-way cut", flips, holds, 1.0, "a minute"));
    }
    if let Some(healed) = measured.views_equal_after_heal_ms {
        lines.push(line(
            "views equal after the partition",
            time(healed),
            meets(healed, 5_000.0),
            5_000.0,
            "ms",
        ));
    }
    let sent = measured.sent_bytes_per_s;
    let rates = format!("{:.1} kB/s in the mean, {:.1} at most", sent.mean / 1e3, sent.most / 1e3);
    lines.push(line(
        "sent by a node beside requests",
        rates,
        sent.most <= sent_bytes,
        sent_bytes / 1e3,
        "kB/s",
    ));
    lines.extend(traffic(measured));
    if !formed {
        // Who knows nobody loses nobody, misses nobody and sends little.
        let judged = lines.iter_mut().filter(|line| line.holds.is_some());
        judged.for_each(Figure::leave_unjudged);
        let text =
            "nothing could be judged: there was no time at which every node knew all others".to_owned();
        lines.insert(1, Figure { text, holds: Some(false), aim: String::new() });
    }
    lines
}

/// What no aim is set for.
fn traffic(measured: &Measured) -> Vec<Figure> {
    let mut lines: Vec<Figure> = Vec::new();
    let received = measured.received_bytes_per_s;
    lines.push(
        format!(
            "received by a node, requests included: {:.1} kB/s in the mean, {:.1} at most",
            received.mean / 1e3,
            received.most / 1e3
        )
        .into(),
    );
    lines.push(
        format!(
            "at the end {:.1} connections and {:.1} peers in gossip's mesh",
            measured.connections, measured.gossip_degree
        )
        .into(),
    );
    if measured.gossip_streams_refused > 0 {
        lines.push(
            format!(
                "gossip longer than its receiver takes: {}; connections that carry none any more: {}",
                counted(measured.gossip_streams_refused, "time"),
                measured.connections_without_gossip
            )
            .into(),
        );
    }
    lines
}

fn requests(tally: &Tally) -> String {
    format!(
        "{}: {} answered ({} after another try; {}), {} failed ({} though every stage had a host that ran, within reach or not), {} unknown since their origin died; {}",
        counted(tally.asked, "request"),
        tally.answered,
        tally.tried_again,
        spread(tally.latency_ms),
        tally.failed,
        tally.failed_with_hosts_alive,
        tally.unknown,
        counted(tally.violations, "violation"),
    )
}

fn meets(ms: Option<f64>, aim_ms: f64) -> bool {
    ms.is_some_and(|ms| ms <= aim_ms)
}

fn line(what: &str, is: String, holds: bool, aim: f64, unit: &str) -> Figure {
    let verdict = if holds { "reached" } else { "MISSED" };
    let aim = match unit {
        "" => format!(" (aim {aim}: {verdict})"),
        unit => format!(" (aim {aim} {unit}: {verdict})"),
    };
    Figure { text: format!("{what}: {is}{aim}"), holds: Some(holds), aim }
}

fn time(ms: Option<f64>) -> String {
    ms.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"))
}

fn spread(of: Spread) -> String {
    format!("{} (median), {} (worst)", time(of.median), time(of.worst))
}

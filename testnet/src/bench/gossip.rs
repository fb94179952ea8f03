//! The simulation's model of gossip and exchanges beside real nodes: how soon a change is known to all, and what the mesh
//! costs, from the same run. Real nodes stand on emulated links of one latency where that can be had, else on loopback.

mod seen;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use stormo_testnet::counted::counted;
use stormo_testnet::ground::{EMULATION, GroundKind, network};
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::random::Random;
use stormo_testnet::simulate::{self, Delays, Measured, Spec};
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{SOON, edge};
use stormo_testnet::{binary, interrupt};

use crate::options::{self, Misuse};
use crate::table::{Align, Table};
use crate::told::tell;

/// What is measured.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Options {
    /// Real nodes, and simulated ones
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=200))]
    nodes: u16,
    /// One way between two nodes, milliseconds: long beside what fifty nodes wait for their turn at two cores; 0 for plain processes on loopback, without root
    #[arg(long, default_value_t = 100.0, value_parser = options::number(0.0..=1_000.0, "milliseconds"))]
    latency: f64,
    /// Changes in the whole mesh, a minute
    #[arg(long, default_value_t = 30)]
    changes: u32,
    /// How long is measured, seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=3_600))]
    seconds: u32,
    /// Of the times of changes, of links' chances, and of the simulation
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Until nodes have their neighbours and know their links: then the mesh is calm, and the simulation has as much.
const WARM_UP_S: u32 = 60;
/// A change is known everywhere long before this.
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// The model may be so far off.
const OFF_MAX: f64 = 0.2;

#[derive(Debug, Serialize)]
struct Report {
    nodes: u16,
    latency_ms: f64,
    seconds: u32,
    seed: u64,
    /// Changes that real nodes gossiped, and of all pairs of one and another node how many never heard of it.
    changes: usize,
    unheard: usize,
    simulated_changes: usize,
    delays: Vec<Row>,
    bytes: Vec<Row>,
    simulated_by_kind: Vec<(&'static str, f64)>,
    simulated_connections: f64,
    connections: f64,
}

/// A figure of real nodes beside that of the model.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    unit: &'static str,
    real: f64,
    model: f64,
    /// Model by real.
    ratio: f64,
    /// Within a fifth of it; what is only shown has no aim.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
}

impl Row {
    fn new(what: &'static str, unit: &'static str, real: f64, model: f64) -> Self {
        let ratio = model / real;
        Self { what, unit, real, model, ratio, holds: Some((ratio - 1.0).abs() <= OFF_MAX) }
    }
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let (nodes, latency_us) = (options.nodes, (options.latency * 1_000.0) as u64);
    let spec = Spec {
        nodes,
        seed: options.seed,
        measured_s: options.seconds,
        warm_up_s: WARM_UP_S,
        latency_us: (latency_us, latency_us),
        rate_bits_per_s: None,
        changes_per_minute: options.changes,
        crashes: 0,
        starved: 0.0,
        one_way_s: 0,
        partition_s: 0,
        loads_change: false,
        shared_cores: std::thread::available_parallelism()
            .ok()
            .and_then(|cores| u16::try_from(cores.get()).ok()),
        ..Spec::default()
    };
    spec.check().map_err(Misuse::of)?;
    seen::look_for_tools()?;
    let (topology, ground) = place(options)?;
    let real = real(options, &topology, ground)?;
    note!("the same in virtual time");
    let model = simulate::run(&spec)?.measured;
    super::kept::show("gossip", options.json, &report(options, real, &model), print)
}

/// What real nodes did.
struct Real {
    delays: Delays,
    changes: usize,
    unheard: usize,
    /// Bytes a second that each node sent.
    sent: Vec<f64>,
    connections: f64,
}

fn real(options: &Options, topology: &Topology, ground: GroundKind) -> Result<Real> {
    let binary = binary::build()?;
    note!("{} nodes start, then {WARM_UP_S} s of calm", options.nodes);
    let mut mesh = Mesh::start_on(ground, &binary, topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_views(topology.nodes.len(), SOON)?;
    rest(Duration::from_secs(u64::from(WARM_UP_S)))?;
    let mut random = Random::of(options.seed, "gossip");
    let changes = (f64::from(options.changes) * f64::from(options.seconds) / 60.0).round() as usize;
    let mut times: Vec<f64> = (0..changes).map(|_| random.unit() * f64::from(options.seconds)).collect();
    times.sort_by(f64::total_cmp);
    let before = seen::sent(&mesh)?;
    let (since, began) = (seen::now(), Instant::now());
    note!("{} within {} s", counted(changes, "change"), options.seconds);
    let mut takes = vec![true; topology.nodes.len()];
    for at_s in times {
        rest(Duration::from_secs_f64(at_s).saturating_sub(began.elapsed()))?;
        let node = random.below(takes.len());
        takes[node] = !takes[node];
        let body = format!("{{\"take\": {}}}", takes[node]);
        let answer = mesh.nodes()[node].client.put_raw("/v1/node/work", body.as_bytes())?;
        ensure!(answer.status == 200, "/v1/node/work: {}", String::from_utf8_lossy(&answer.body));
    }
    rest(Duration::from_secs(u64::from(options.seconds)).saturating_sub(began.elapsed()))?;
    let until = seen::now();
    let (after, measured_s) = (seen::sent(&mesh)?, began.elapsed().as_secs_f64());
    rest(SPREAD_MAX)?;
    let spread = seen::spread(&mesh, since, until)?;
    let sent = after.bytes.iter().zip(&before.bytes);
    let sent = sent.map(|(after, before)| after.saturating_sub(*before) as f64 / measured_s).collect();
    let (changes, unheard) = (spread.changes, spread.unheard);
    ensure!(changes > 0, "no node gossiped anything");
    let connections = after.connections as f64 / topology.nodes.len() as f64;
    Ok(Real { delays: Delays::of(spread.times_us), changes, unheard, sent, connections })
}

fn place(options: &Options) -> Result<(Topology, GroundKind)> {
    let node = |index| NodeSpec {
        log_filter: Some("warn,stormo::spread=trace".to_owned()),
        ..edge(&format!("node-{index}"))
    };
    let mut topology = Topology::plain("nodes that gossip", (0..options.nodes).map(node).collect());
    if options.latency == 0.0 {
        return Ok((topology, GroundKind::Loopback));
    }
    if let Err(why) = network::is_possible() {
        bail!("--latency {} needs {EMULATION}: {why} (--latency 0 measures on loopback)", options.latency);
    }
    let latency_us = (options.latency * 1_000.0) as u64;
    topology.default_link = LinkSpec { latency_us, jitter_us: latency_us / 10, ..LinkSpec::default() };
    Ok((topology, GroundKind::Emulated { seed: options.seed }))
}

fn rest(length: Duration) -> Result<()> {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        ensure!(!interrupt::is_noted(), "interrupted");
        sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

fn report(options: &Options, real: Real, model: &Measured) -> Report {
    let mean = real.sent.iter().sum::<f64>() / real.sent.len().max(1) as f64;
    let most = real.sent.iter().copied().fold(0.0, f64::max);
    let modelled = model.sent_bytes_per_s;
    Report {
        nodes: options.nodes,
        latency_ms: options.latency,
        seconds: options.seconds,
        seed: options.seed,
        changes: real.changes,
        unheard: real.unheard,
        simulated_changes: model.changes,
        delays: vec![
            Row::new("a change is known, median", "ms", real.delays.p50_ms, model.delays.p50_ms),
            Row::new("a change is known, 99 of 100", "ms", real.delays.p99_ms, model.delays.p99_ms),
        ],
        bytes: vec![
            Row::new("sent by a node, mean", "kB/s", mean / 1e3, modelled.mean / 1e3),
            Row { holds: None, ..Row::new("by the busiest", "kB/s", most / 1e3, modelled.most / 1e3) },
        ],
        simulated_by_kind: model.sent_by_kind.clone(),
        simulated_connections: model.connections,
        connections: real.connections,
    }
}

fn print(report: &Report) {
    tell!(
        "{} nodes, {} ms one way, {} s, seed {}: {} changes ({} simulated), {} not heard of; {:.1} connections of a node ({:.1})",
        report.nodes,
        report.latency_ms,
        report.seconds,
        report.seed,
        report.changes,
        report.simulated_changes,
        report.unheard,
        report.connections,
        report.simulated_connections,
    );
    let columns = [
        ("", Align::Left),
        ("unit", Align::Left),
        ("real", Align::Right),
        ("model", Align::Right),
        ("ratio", Align::Right),
        ("within 20 %", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for Row { what, unit, real, model, ratio, holds } in report.delays.iter().chain(&report.bytes) {
        let verdict = holds.map_or("", |holds| if holds { "yes" } else { "NO" });
        table.row([
            (*what).to_owned(),
            (*unit).to_owned(),
            format!("{real:.2}"),
            format!("{model:.2}"),
            format!("{ratio:.2}"),
            verdict.to_owned(),
        ]);
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    tell!("the model's bytes by what they are for:");
    for (name, bytes) in &report.simulated_by_kind {
        tell!("  {:>7.2} kB/s  {name}", bytes / 1e3);
    }
}

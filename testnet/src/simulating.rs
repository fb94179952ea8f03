//! `cargo mesh simulate`: a mesh in virtual time, and its figures beside those that are aimed at.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use stormo_testnet::interrupt;
use stormo_testnet::simulate::{self, Measured, Outcome, Spec, Spread, Tally};

/// Seconds of a minute, as `--minutes` counts.
const MINUTE_S: f64 = 60.0;
/// Between two words on how far it is.
const TOLD_EACH: Duration = Duration::from_secs(2);

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Nodes
    #[arg(long, default_value_t = Spec::default().nodes)]
    nodes: u16,
    /// Everything is drawn from it: the same seed gives the same run
    #[arg(long, default_value_t = Spec::default().seed)]
    seed: u64,
    /// Between the starts of two nodes, milliseconds; 0 for all at random within two seconds
    #[arg(long, default_value_t = 0)]
    apart: u32,
    /// Virtual time that is measured, minutes
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Virtual time before that, in which nodes join, seconds
    #[arg(long, default_value_t = Spec::default().warm_up_s)]
    warm_up: u32,
    /// Share of packets lost on each way, 0 to 1
    #[arg(long, default_value_t = Spec::default().loss)]
    loss: f64,
    /// One way between the furthest nodes, milliseconds
    #[arg(long, default_value_t = 20.0)]
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
    /// How long the two halves of the mesh are parted, seconds
    #[arg(long, default_value_t = Spec::default().partition_s)]
    partition: u32,
    /// Requests through simulated stages, a second in the whole mesh
    #[arg(long, default_value_t = 5.0)]
    requests: f64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl SimulateArgs {
    fn spec(&self) -> Result<Spec> {
        ensure!(self.latency >= 0.0, "--latency {}: milliseconds, 0 or more", self.latency);
        ensure!(self.minutes >= 0.0, "--minutes {}: a number above 0", self.minutes);
        let far_us = (self.latency * 1_000.0) as u64;
        Ok(Spec {
            nodes: self.nodes,
            seed: self.seed,
            apart_ms: self.apart,
            measured_s: (self.minutes * MINUTE_S) as u32,
            warm_up_s: self.warm_up,
            loss: self.loss,
            latency_us: (Spec::default().latency_us.0.min(far_us), far_us),
            rate_bits_per_s: (self.rate > 0).then(|| self.rate.saturating_mul(1_000_000)),
            changes_per_minute: self.changes,
            crashes: self.crash,
            starved: self.starved,
            clock_jump: self.clock_jump,
            one_way_s: self.one_way,
            partition_s: self.partition,
            requests_per_s: self.requests,
        })
    }
}

/// Simulates, and prints what came of it.
///
/// # Errors
/// When the arguments cannot be simulated, or what must never happen did: then the seed is in the error.
pub(crate) fn run(arguments: &SimulateArgs) -> Result<()> {
    let spec = arguments.spec()?;
    let whole_s = f64::from(spec.warm_up_s) + f64::from(spec.measured_s);
    let mut told = Instant::now();
    let mut goes_on = |virtual_s: f64| {
        if told.elapsed() >= TOLD_EACH {
            told = Instant::now();
            eprintln!("{virtual_s:.1} of {whole_s} virtual seconds");
        }
        !interrupt::is_noted()
    };
    let Some(outcome) = simulate::run_while(&spec, &mut goes_on)? else { bail!("interrupted") };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print(&outcome);
    }
    let requests = &outcome.requests;
    ensure!(
        requests.violations == 0,
        "{} things that must never happen to a request, with seed {}: {}",
        requests.violations,
        outcome.spec.seed,
        requests.violated.join("; ")
    );
    Ok(())
}

fn print(outcome: &Outcome) {
    let Outcome { spec, measured, .. } = outcome;
    println!(
        "{} nodes, seed {}, {} s after {} s of joining; {} % loss, {} to {} ms one way",
        spec.nodes,
        spec.seed,
        spec.measured_s,
        spec.warm_up_s,
        spec.loss * 100.0,
        spec.latency_us.0 as f64 / 1_000.0,
        spec.latency_us.1 as f64 / 1_000.0,
    );
    for line in figures(spec, measured) {
        println!("  {line}");
    }
    if outcome.requests.asked > 0 {
        println!("  {}", requests(&outcome.requests));
    }
    println!("  bytes a second of a node, by what they are for:");
    for (name, bytes) in &measured.sent_by_kind {
        println!("    {:>9.1} kB/s  {name}", bytes / 1_000.0);
    }
    println!(
        "{:.1} s of work for {:.0} s of virtual time: {:.1} times as fast; {} events, {} packets ({} repeated), trace {}{}",
        measured.work_s,
        measured.work_s * outcome.speed_up,
        outcome.speed_up,
        outcome.events,
        outcome.packets.0,
        outcome.packets.1,
        outcome.trace,
        outcome.peak_bytes.map_or(String::new(), |bytes| format!(", {} MiB at most", bytes >> 20)),
    );
}

/// Each figure with its aim (10, 100 and 1,000 nodes have aims of their own; others that of the next larger).
fn figures(spec: &Spec, measured: &Measured) -> Vec<String> {
    let size = [10, 100].iter().position(|nodes| spec.nodes <= *nodes).unwrap_or(2);
    let [known_ms, suspected_ms, sent_bytes] =
        [[1_000.0, 2_000.0, 3_000.0], [5_000.0, 8_000.0, 12_000.0], [15e3, 120e3, 120e3]]
            .map(|aims| aims[size]);
    let mut lines = vec![
        format!("all know all after {}", time(measured.formed_ms)),
        format!("{} changes; known to 50 %: {}", measured.changes, spread(measured.known_to_half_ms)),
        line(
            "known to 99 %",
            spread(measured.known_to_99_percent_ms),
            meets(measured.known_to_99_percent_ms.worst, known_ms),
            known_ms,
            "ms",
        ),
        format!("known to all: {}", spread(measured.known_to_all_ms)),
    ];
    if measured.deaths > 0 {
        let dead = measured.dead_suspected_by_all_ms;
        let what = format!("{} deaths; suspected by all", measured.deaths);
        lines.push(line(&what, spread(dead), meets(dead.worst, suspected_ms), suspected_ms, "ms"));
    }
    lines.push(line("false deaths", measured.false_deaths.to_string(), measured.false_deaths == 0, 0.0, ""));
    lines.push(format!("flips under a one-way cut: {}", measured.flips_under_one_way_cut));
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
    lines.push(line("sent by a node", rates, sent.most <= sent_bytes, sent_bytes / 1e3, "kB/s"));
    let received = measured.received_bytes_per_s;
    lines.push(format!(
        "received by a node: {:.1} kB/s in the mean, {:.1} at most",
        received.mean / 1e3,
        received.most / 1e3
    ));
    lines.push(format!(
        "at the end {:.1} connections and {:.1} peers in gossip's mesh",
        measured.connections, measured.gossip_degree
    ));
    if measured.gossip_streams_refused > 0 {
        lines.push(format!(
            "gossip longer than its receiver takes: {} times; {} connections carry none any more",
            measured.gossip_streams_refused, measured.connections_without_gossip
        ));
    }
    lines
}

fn requests(tally: &Tally) -> String {
    format!(
        "{} requests: {} answered ({} after another try; {}), {} failed ({} though every stage had a host that ran, within reach or not), {} unknown since their origin died; {} violations",
        tally.asked,
        tally.answered,
        tally.tried_again,
        spread(tally.latency_ms),
        tally.failed,
        tally.failed_with_hosts_alive,
        tally.unknown,
        tally.violations,
    )
}

fn meets(ms: Option<f64>, aim_ms: f64) -> bool {
    ms.is_some_and(|ms| ms <= aim_ms)
}

fn line(what: &str, is: String, meets: bool, aim: f64, unit: &str) -> String {
    let verdict = if meets { "reached" } else { "MISSED" };
    format!("{what}: {is} (aim {aim} {unit}: {verdict})")
}

fn time(ms: Option<f64>) -> String {
    ms.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"))
}

fn spread(of: Spread) -> String {
    format!("{} (median), {} (worst)", time(of.median), time(of.worst))
}

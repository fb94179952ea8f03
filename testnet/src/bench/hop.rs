//! What a stage on another node adds to a request when it computes nothing: the way there and back beside
//! the same bytes over bare libp2p streams between as many processes, in turns.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use stormo_testnet::binary::{self, workspace_root};
use stormo_testnet::client::Client;
use stormo_testnet::interrupt;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::InferRequest;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::{self, SOON, edge};

use super::ring::Ring;
use crate::median::quantile;
use crate::table::{Align, Table};
use crate::told::tell;

/// Gives its input back: a stage of it has nothing to compute, and no session.
const MODEL: &str = "testnet/models/pass.onnx";
/// Crossing tensors, bytes: what a classifier answers, thin cuts, and wide cuts of small detectors.
const SIZES: [u64; 3] = [64, 200_000, 1_600_000];
/// Requests that only warm up.
const ROUNDS_BEFORE: usize = 20;
/// Requests of each size are measured for this long, but at most so many.
const MEASURED_FOR: Duration = Duration::from_secs(8);
const ROUNDS_MAX: usize = 1_000;
/// Wanted of the median, in times of bare streams.
const RATIO_MAX: f64 = 1.3;

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    sizes: Vec<Measured>,
}

/// A size of crossing tensors.
#[derive(Debug, Serialize)]
struct Measured {
    /// Of the tensor that goes there, and of the one that comes back.
    bytes: u64,
    rounds: usize,
    stage: Quantiles,
    bare_streams: Quantiles,
    /// Stage by bare streams, medians.
    ratio: f64,
    ratio_p99: f64,
    holds: bool,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
}

impl Quantiles {
    fn of(times_ms: &[f64]) -> Self {
        let at = |share| quantile(times_ms.iter().copied(), share);
        Self { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// Measures and prints.
pub(super) fn run(is_json: bool) -> Result<()> {
    let binary = binary::build()?;
    let topology = Topology::plain("a hop", vec![edge("origin"), edge("stage")]);
    let mut mesh = Mesh::start(&binary, &topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(topology.nodes.len(), SOON)?;
    let mut sizes = Vec::new();
    for bytes in SIZES {
        note!("{bytes} bytes there and back");
        sizes.push(measure(&mesh, bytes)?);
    }
    let report = Report { sizes };
    super::kept::show("hop", is_json, &report, print)
}

fn measure(mesh: &Mesh, bytes: u64) -> Result<Measured> {
    let name = format!("pass-{bytes}");
    let length = bytes / size_of::<f32>() as u64;
    let placement = mesh.folder().join("on-the-other.toml");
    fs::write(&placement, "[[place]]\nnode = \"stage\"\nblocks = [0, 1]\n")?;
    let shape = format!("x=1x{length}");
    let options = ["--sample-shape", &shape, "--placement", &placement.to_string_lossy()];
    trial::deploy(mesh, "origin", &name, &workspace_root().join(MODEL), &options)?;
    let client = &mesh.node("origin").client;
    let plan = trial::loaded_plan(client, &name, "remote")?;
    // Digits: numbers whose text is short, since it is the crossing that is measured.
    let data = (0..length).map(|index| (index * 7 % 10) as f32).collect();
    let request = InferRequest::new("x", &[1, length], data).by_plan(plan.id);
    let mut ring = Ring::start(&[bytes, bytes])?;
    let (mut stage, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS_BEFORE {
        ask(client, &name, &request)?;
        ring.round()?;
    }
    let started = Instant::now();
    while stage.len() < ROUNDS_MAX && started.elapsed() < MEASURED_FOR {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        stage.push(ask(client, &name, &request)?);
        bare.push(ring.round()?.as_secs_f64() * 1000.0);
    }
    let [of_stage, of_bare] = [&stage, &bare].map(|times_ms| Quantiles::of(times_ms));
    let ratio = of_stage.p50_ms / of_bare.p50_ms;
    Ok(Measured {
        bytes,
        rounds: stage.len(),
        ratio,
        ratio_p99: of_stage.p99_ms / of_bare.p99_ms,
        holds: ratio <= RATIO_MAX,
        stage: of_stage,
        bare_streams: of_bare,
    })
}

/// From the request's arrival at the node to its result there, milliseconds.
fn ask(client: &Client, name: &str, request: &InferRequest) -> Result<f64> {
    let answer = client.infer(name, request)?;
    let output = answer.outputs.first().context("an answer without an output")?;
    if Some(&output.data) != request.inputs.first().map(|input| &input.data) {
        bail!("the stage changed what it passes on");
    }
    Ok(answer.parameters.latency_ms)
}

fn print(report: &Report) {
    tell!(
        "A request through one stage on another process that computes nothing and needs no ONNX Runtime, beside \
         the same\nbytes there and back over bare libp2p streams, in turns; ms.\n"
    );
    let titles = ["rounds", "stage p50", "p99", "bare streams p50", "p99", "ratio p50", "p99", "target"];
    let titles = titles.map(|title| (title, Align::Right));
    let mut table = Table::new(&[&[("bytes", Align::Right)], &titles[..]].concat());
    for Measured { bytes, rounds, stage, bare_streams, ratio, ratio_p99, holds } in &report.sizes {
        let times =
            [stage.p50_ms, stage.p99_ms, bare_streams.p50_ms, bare_streams.p99_ms, *ratio, *ratio_p99];
        let [stage, stage_p99, bare, bare_p99, ratio, ratio_p99] = times.map(|figure| format!("{figure:.2}"));
        let verdict = if *holds { "holds" } else { "missed" }.to_owned();
        table.row([
            bytes.to_string(),
            rounds.to_string(),
            stage,
            stage_p99,
            bare,
            bare_p99,
            ratio,
            ratio_p99,
            verdict,
        ]);
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\nstage: from the request's arrival at its node to the result there; target: at most {RATIO_MAX} x bare \
         streams, medians.\nFrames go over Unix sockets within one machine."
    );
}

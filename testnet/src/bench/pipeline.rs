//! Requests through a chain of nodes that each get a share of one core: how many a second, beside what the busiest node's
//! share would allow if all that a stage took were its run, its codecs and bare libp2p streams of the same bytes.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use stormo::serve::json::{PlanView, RequestView};
use stormo_testnet::ground::GroundKind;
use stormo_testnet::load::Load;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, InferRequest};
use stormo_testnet::onnx_files::{Declared, FLOAT, Message, model_of, node, weight};
use stormo_testnet::random::Random;
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::{binary, interrupt};

use super::ring::Ring;
use crate::median::quantile;
use crate::options;
use crate::table::{Align, Table};
use crate::told::tell;

/// Stages of the chains.
const STAGES: [usize; 2] = [2, 3];
/// Convolutions of the network, all alike; channels, and rows and columns of its input. About 0.3 GMAC each.
const LAYERS: usize = 12;
const CHANNELS: usize = 64;
const SIDE: usize = 96;
const KERNEL: usize = 3;
/// Of the deployment.
const NAME: &str = "layers";
/// Of the last answers, so many tell how long runs took. A node's share holds most of them up; those of the quickest quarter it
/// does not, so these are what a run takes beside the others.
const RUNS_TOLD: usize = 100;
const NOT_HELD_UP: f64 = 0.25;
/// Rounds of the bare streams: the processor time of a process is told in steps of 10 ms.
const STREAM_ROUNDS: usize = 300;
/// Callers for each stage: there is always a request that waits.
const CALLERS_PER_STAGE: usize = 3;
/// Wanted of the rate, of what the bound allows.
const RATIO_MIN: f64 = 0.95;

/// What to measure, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Share of one core that each stage's node gets
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = options::number(0.1..=0.5, "a share of a core"))]
    cpu: f64,
    /// How long answers are counted, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = options::number(2.0..=600.0, "seconds"))]
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    cpu_share: f64,
    chains: Vec<Chain>,
}

/// One chain, whose stages are on as many nodes.
#[derive(Debug, Serialize)]
struct Chain {
    stages: Vec<Stage>,
    /// Bytes from node to node, the input first.
    hops_bytes: Vec<u64>,
    answers_per_s: f64,
    /// What the busiest stage's run, codecs and bare streams allow.
    bound_per_s: f64,
    /// What the planner foretold: one by the period of its plan.
    foretold_per_s: f64,
    ratio: f64,
    holds: bool,
}

/// Processor time of a stage's node for each request, milliseconds.
#[derive(Debug, Serialize)]
struct Stage {
    node: String,
    run_ms: f64,
    codecs_ms: f64,
    bare_streams_ms: f64,
    /// All that its process took under load.
    all_ms: f64,
}

impl Stage {
    fn bound_ms(&self) -> f64 {
        self.run_ms + self.codecs_ms + self.bare_streams_ms
    }
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let binary = binary::build()?;
    let mut chains = Vec::new();
    for stages in STAGES {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        note!("{stages} stages");
        chains.push(measure(&binary, stages, options)?);
    }
    let report = Report { cpu_share: options.cpu, chains };
    super::kept::show("pipeline", options.json, &report, print)
}

fn measure(binary: &Path, stages: usize, options: &Options) -> Result<Chain> {
    let limited =
        |number: usize| NodeSpec { cpu_share: Some(options.cpu), ..edge(&format!("stage-{number}")) };
    let nodes = std::iter::once(asker("origin")).chain((1..=stages).map(limited));
    let topology = Topology::plain("a pipeline", nodes.collect());
    let ground = GroundKind::for_topology(&topology, 1).map_err(anyhow::Error::msg)?;
    let mut mesh = Mesh::start_on(ground, binary, &topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(stages + 1, SOON)?;
    let path = mesh.folder().join("layers.onnx");
    fs::write(&path, network()).with_context(|| path.display().to_string())?;
    trial::deploy(&mesh, "origin", NAME, &path, &["--parts", &stages.to_string(), "--replicas", "1"])?;
    let client = &mesh.node("origin").client;
    let plan = trial::loaded_plan(client, NAME, &format!("chain-{stages}"))?;
    let mut labels: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
    labels.dedup();
    ensure!(labels.len() == stages, "{} stages on the nodes {labels:?}", plan.stages.len());
    let request = request().by_plan(plan.id);
    let hops_bytes: Vec<u64> = plan.edges.iter().map(|edge| edge.bytes).collect();
    let streams_ms = bare_streams_ms(&hops_bytes)?;
    let expected = client.infer(NAME, &request)?.outputs;
    let used_us = |label: &str| anyhow::Ok(mesh.spent(label)?.compute_us);
    let load = Load::begin(client, NAME, std::slice::from_ref(&request), CALLERS_PER_STAGE * stages);
    load.wait_for_more(2 * CALLERS_PER_STAGE * stages, SOON)?;
    let before: Vec<u64> = labels.iter().map(|label| used_us(label)).collect::<Result<_>>()?;
    let (began, done) = (Instant::now(), load.count());
    sleep(Duration::from_secs_f64(options.seconds));
    let (answered, took) = (load.count() - done, began.elapsed());
    let after: Vec<u64> = labels.iter().map(|label| used_us(label)).collect::<Result<_>>()?;
    let mut ids = Vec::new();
    for outcome in load.end() {
        let answer = outcome.result?;
        ensure!(Difference::between(&expected, &answer.outputs) == Some(Difference::NONE), "a wrong answer");
        ids.push(answer.parameters.request_id);
    }
    let last = ids.iter().rev().take(RUNS_TOLD);
    let runs: Vec<RequestView> = last.map(|id| Ok(client.request(id)?)).collect::<Result<_>>()?;
    let of_stages = labels.iter().enumerate().map(|(place, label)| {
        let of = |figure: &dyn Fn(&RequestView) -> f64| quantile(runs.iter().map(figure), NOT_HELD_UP);
        Stage {
            node: (*label).to_owned(),
            run_ms: of(&|request| request.stages[place].run_ms),
            codecs_ms: of(&|request| request.stages[place].decode_ms + request.stages[place].encode_ms),
            bare_streams_ms: streams_ms[place + 1],
            all_ms: (after[place] - before[place]) as f64 / 1_000.0 / answered.max(1) as f64,
        }
    });
    Ok(Chain::of(of_stages.collect(), hops_bytes, answered as f64 / took.as_secs_f64(), &plan, options.cpu))
}

impl Chain {
    fn of(stages: Vec<Stage>, hops_bytes: Vec<u64>, answers_per_s: f64, plan: &PlanView, cpu: f64) -> Self {
        let busiest_ms = stages.iter().map(Stage::bound_ms).fold(0.0, f64::max);
        let bound_per_s = 1_000.0 * cpu / busiest_ms;
        let ratio = answers_per_s / bound_per_s;
        let foretold_per_s = 1_000.0 / plan.period_ms;
        let holds = ratio >= RATIO_MIN;
        Self { stages, hops_bytes, answers_per_s, bound_per_s, foretold_per_s, ratio, holds }
    }
}

/// Processor time of each process of a ring for each round, milliseconds: the origin's first.
fn bare_streams_ms(hops_bytes: &[u64]) -> Result<Vec<f64>> {
    let mut ring = Ring::start(hops_bytes)?;
    ring.round()?;
    let before = ring.processor_us()?;
    for _ in 0..STREAM_ROUNDS {
        ring.round()?;
    }
    let used = ring.processor_us()?.into_iter().zip(before).map(|(after, before)| after - before);
    Ok(used.map(|us| us as f64 / 1_000.0 / STREAM_ROUNDS as f64).collect())
}

/// Convolutions one after the other, then the sum of each channel.
fn network() -> Message {
    let scale = (2.0 / (CHANNELS * KERNEL * KERNEL) as f64).sqrt();
    let mut random = Random::new(1);
    let mut contents = Vec::new();
    let mut before = "x".to_owned();
    for layer in 0..LAYERS {
        let inputs = if layer == 0 { 1 } else { CHANNELS };
        let count = CHANNELS * inputs * KERNEL * KERNEL;
        let values: Vec<f32> = (0..count).map(|_| random.between(-scale, scale) as f32).collect();
        let dims = [CHANNELS, inputs, KERNEL, KERNEL].map(|size| size as u64);
        let [name, product, after] = ["w", "c", "x"].map(|kind| format!("{kind}{layer}"));
        contents.push(weight(&name, &dims, &values));
        contents.push(node("Conv", &[&before, &name], &[&product]));
        contents.push(node("Relu", &[&product], &[&after]));
        before = after;
    }
    contents.push(node("GlobalAveragePool", &[&before], &["y"]));
    let dims = [1, 1, SIDE as u64, SIDE as u64].map(Some);
    model_of(Declared { element: FLOAT, dims: &dims }, FLOAT, &contents)
}

/// Digits: numbers whose text is short, since it is the stages that are measured.
fn request() -> InferRequest {
    let side = SIDE as u64;
    let data = (0..SIDE * SIDE).map(|place| (place * 7 % 10) as f32).collect();
    InferRequest::new("x", &[1, 1, side, side], data)
}

fn print(report: &Report) {
    tell!(
        "Requests through chains of nodes that each get {} of a core, always some of them waiting, beside what the busiest \
         node's\nshare allows if its stage takes no more than its run, its codecs and bare libp2p streams of the same bytes.\n",
        report.cpu_share
    );
    let figures = ["answers/s", "bound", "ratio", "wanted", "foretold"];
    let mut table = Table::new(
        &std::iter::once(("stages", Align::Right))
            .chain(figures.map(|title| (title, Align::Right)))
            .collect::<Vec<_>>(),
    );
    for chain in &report.chains {
        let verdict = if chain.holds { "holds" } else { "missed" };
        table.row([
            chain.stages.len().to_string(),
            format!("{:.2}", chain.answers_per_s),
            format!("{:.2}", chain.bound_per_s),
            format!("{:.3}", chain.ratio),
            format!("{RATIO_MIN} {verdict}"),
            format!("{:.2}", chain.foretold_per_s),
        ]);
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    let titles = ["run", "codecs", "bare streams", "all under load"].map(|title| (title, Align::Right));
    let columns = [("of", Align::Right), ("stage", Align::Left)].into_iter().chain(titles);
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    for chain in &report.chains {
        for stage in &chain.stages {
            let figures = [stage.run_ms, stage.codecs_ms, stage.bare_streams_ms, stage.all_ms];
            let [run, codecs, streams, all] = figures.map(|figure| format!("{figure:.2}"));
            table.row([chain.stages.len().to_string(), stage.node.clone(), run, codecs, streams, all]);
        }
    }
    tell!("\nProcessor time of each request at each stage, ms:");
    table.lines().iter().for_each(|line| tell!("{line}"));
}

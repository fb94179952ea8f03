//! What requests of several callers gain by running together: a node whose owner lets them, beside one that runs each
//! alone, on the same network and in turns; and what one caller gets who puts several items into each request.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use stormo_protocol::ids::PlanId;
use stormo_testnet::client::{ApiError, Client};
use stormo_testnet::load::{Load, Outcome};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, InferAnswer, InferRequest};
use stormo_testnet::onnx_files::{Declared, FLOAT, model_of, node, weight};
use stormo_testnet::random::Random;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::{binary, interrupt};

use crate::median::{median, quantile};
use crate::options;
use crate::table::{Align, Table};
use crate::told::tell;

/// Layers of the network, and numbers of each: one item reads 67 MB of weights, and so do eight that run together.
const LAYERS: usize = 4;
const WIDTH: usize = 2048;
/// Numbers of an answer.
const CLASSES: usize = 10;
/// Different inputs, whose answers are known from one caller who asked the node that runs each alone.
const INPUTS: usize = 16;
/// Sums over several rows may be added up in another order, relative to the largest value.
const DIFFERENCE_MAX: f64 = 1e-4;
/// Items that a node lets run together at most.
const ITEMS: u64 = 8;
/// Of the deployments.
const NAME: &str = "layers";

/// What to measure, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Callers at once, each with one request after the other; may be repeated [default: 1, 8, 16]
    #[arg(long, value_name = "COUNT", value_parser = options::count(1..=256))]
    callers: Vec<usize>,
    /// How long a request waits for others at most (`--batch-within`), milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    within: u16,
    /// Turns of each
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = options::count(1..=100))]
    rounds: usize,
    /// How long each turn is, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0, value_parser = options::number(0.5..=600.0, "seconds"))]
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    network: String,
    within_ms: u16,
    callers: Vec<OfCallers>,
    /// One caller whose requests have as many items as may run together, at the node that runs each request alone.
    items_at_once: Way,
}

#[derive(Debug, Serialize)]
struct OfCallers {
    callers: usize,
    alone: Way,
    together: Way,
    /// Answers a second, together by alone: medians over the turns.
    ratio: f64,
}

/// One way to be asked, over all its turns.
#[derive(Debug, Default, Serialize)]
struct Way {
    /// Items answered a second, of each turn.
    items_per_s: Vec<f64>,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    refused: usize,
    #[serde(skip)]
    latencies_ms: Vec<f64>,
}

/// A node, and what is asked of it.
struct Host<'a> {
    client: &'a Client,
    plan: PlanId,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let binary = binary::build()?;
    let start = |label: &str, how: &[&str]| {
        // Who asks has no memory for the network: it lies where it is measured.
        let topology = Topology::plain("batching", vec![asker("asks")]);
        let mut mesh = Mesh::start(&binary, &topology, &mut |log| note_part!("{log}"))?;
        trial::add_with(&mut mesh, &edge(label), how)?;
        mesh.wait_for_nodes(2, SOON)?;
        anyhow::Ok(mesh)
    };
    let within = options.within.to_string();
    let alone = start("alone", &[])?;
    let together = start("together", &["--batch-within", &within])?;
    let path = alone.folder().join(format!("{NAME}.onnx"));
    fs::write(&path, network()).with_context(|| format!("writing {}", path.display()))?;
    let report = measure(&host(&alone, "alone", &path)?, &host(&together, "together", &path)?, options)?;
    super::kept::show("batching", options.json, &report, print)
}

/// A node with the whole network loaded.
fn host<'a>(mesh: &'a Mesh, label: &str, path: &Path) -> Result<Host<'a>> {
    trial::deploy(mesh, label, NAME, path, &["--parts", "1", "--replicas", "1"])?;
    let client = &mesh.node(label).client;
    let plan = trial::loaded_plan(client, NAME, "local")?;
    Ok(Host { client, plan: plan.id })
}

/// Layers of a perceptron, one after the other: each item needs all weights, which is what several share.
fn network() -> Vec<u8> {
    let scale = (2.0 / WIDTH as f32).sqrt();
    let values = |count: usize, seed: usize| -> Vec<f32> {
        let mut random = Random::new(seed as u64);
        (0..count).map(|_| scale * random.between(-1.0, 1.0) as f32).collect()
    };
    let mut contents = Vec::new();
    let mut before = "x".to_owned();
    for layer in 0..=LAYERS {
        let width = if layer == LAYERS { CLASSES } else { WIDTH };
        let (name, product) = (format!("w{layer}"), format!("m{layer}"));
        contents.push(weight(&name, &[WIDTH as u64, width as u64], &values(WIDTH * width, layer)));
        let after = if layer == LAYERS { "y".to_owned() } else { format!("x{layer}") };
        contents.push(node("MatMul", &[&before, &name], &[&product]));
        contents.push(node(if layer == LAYERS { "Softmax" } else { "Relu" }, &[&product], &[&after]));
        before = after;
    }
    model_of(Declared { element: FLOAT, dims: &[None, Some(WIDTH as u64)] }, FLOAT, &contents)
}

/// Digits: numbers whose text is short, since it is the running that is measured.
fn request(items: u64, number: usize) -> InferRequest {
    let digit = |place: usize| ((place * (7 + number) + number * 31) % 10) as f32;
    InferRequest::new("x", &[items, WIDTH as u64], (0..items as usize * WIDTH).map(digit).collect())
}

fn measure(alone: &Host<'_>, together: &Host<'_>, options: &Options) -> Result<Report> {
    let requests: Vec<InferRequest> = (0..INPUTS).map(|number| request(1, number)).collect();
    let expected: Vec<InferAnswer> =
        requests.iter().map(|request| alone.ask(request)).collect::<Result<_>>()?;
    let counts = if options.callers.is_empty() { &[1, 8, 16] } else { options.callers.as_slice() };
    let mut callers: Vec<OfCallers> = counts.iter().map(|callers| OfCallers::new(*callers)).collect();
    let mut items_at_once = Way::default();
    let turn = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.rounds {
        for of in &mut callers {
            note!("round {round} of {}: {} at once", options.rounds, of.callers);
            for (host, way) in [(alone, &mut of.alone), (together, &mut of.together)] {
                way.take_turn(host, &requests, of.callers, turn, |outcome| right(outcome, &expected))?;
            }
        }
        // The same rows in one request: what a caller gets who gathers by itself.
        let many = [request(ITEMS, round)];
        items_at_once.take_turn(alone, &many, 1, turn, |_| Ok(()))?;
    }
    items_at_once.items_per_s.iter_mut().for_each(|rate| *rate *= ITEMS as f64);
    items_at_once.finish();
    callers.iter_mut().for_each(OfCallers::finish);
    let network = format!("{LAYERS} layers of {WIDTH} x {WIDTH}, {CLASSES} classes");
    Ok(Report { network, within_ms: options.within, callers, items_at_once })
}

/// That an answer is what the same request got that ran alone.
fn right(outcome: &Outcome, expected: &[InferAnswer]) -> Result<()> {
    let Ok(answer) = &outcome.result else { return Ok(()) };
    let apart = Difference::between(&expected[outcome.index].outputs, &answer.outputs);
    let apart = apart.context("an answer with other names or shapes")?;
    ensure!(apart.relative <= DIFFERENCE_MAX, "a wrong answer to request {}: {apart:?}", outcome.index);
    Ok(())
}

impl Host<'_> {
    fn ask(&self, request: &InferRequest) -> Result<InferAnswer> {
        Ok(self.client.infer(NAME, &request.clone().by_plan(self.plan))?)
    }
}

impl OfCallers {
    fn new(callers: usize) -> Self {
        Self { callers, alone: Way::default(), together: Way::default(), ratio: f64::NAN }
    }

    fn finish(&mut self) {
        self.alone.finish();
        self.together.finish();
        self.ratio = self.together.rate() / self.alone.rate();
    }
}

impl Way {
    fn take_turn(
        &mut self,
        host: &Host<'_>,
        requests: &[InferRequest],
        callers: usize,
        turn: Duration,
        check: impl Fn(&Outcome) -> Result<()>,
    ) -> Result<()> {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        let requests: Vec<InferRequest> =
            requests.iter().map(|request| request.clone().by_plan(host.plan)).collect();
        let began = Instant::now();
        let load = Load::begin(host.client, NAME, &requests, callers);
        sleep(turn);
        let (answered, took) = (load.count(), began.elapsed());
        let outcomes = load.end();
        let mut right = 0;
        for (place, outcome) in outcomes.iter().enumerate() {
            check(outcome)?;
            match &outcome.result {
                Ok(answer) => {
                    self.latencies_ms.push(answer.parameters.latency_ms);
                    right += usize::from(place < answered);
                }
                Err(ApiError::Refused { status: 429 | 503, .. }) => self.refused += 1,
                Err(error) => bail!("a request failed: {error}"),
            }
        }
        self.items_per_s.push(right as f64 / took.as_secs_f64());
        Ok(())
    }

    fn finish(&mut self) {
        let at = |share| quantile(self.latencies_ms.iter().copied(), share);
        (self.latency_p50_ms, self.latency_p99_ms) = (at(0.5), at(0.99));
    }

    fn rate(&self) -> f64 {
        median(self.items_per_s.iter().copied())
    }
}

fn print(report: &Report) {
    tell!(
        "Requests of one item each from several callers at once to a network of {}: each alone, and those\ntogether that \
         wait for the same, the first of them at most {} ms for others (`--batch-within`), by turns.\n",
        report.network,
        report.within_ms
    );
    let figures = ["answers/s", "ms (50 %)", "(99 %)", "refused", "ratio"];
    let columns = [("callers", Align::Right), ("requests run", Align::Left)];
    let columns = columns.into_iter().chain(figures.map(|title| (title, Align::Right)));
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    let mut row = |callers: usize, how: &str, way: &Way, ratio: f64| {
        let ratio = if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") };
        let [rate, p50, p99] =
            [way.rate(), way.latency_p50_ms, way.latency_p99_ms].map(|figure| format!("{figure:.1}"));
        table.row([callers.to_string(), how.to_owned(), rate, p50, p99, way.refused.to_string(), ratio]);
    };
    for of in &report.callers {
        row(of.callers, "alone", &of.alone, f64::NAN);
        row(of.callers, "together", &of.together, of.ratio);
    }
    row(1, &format!("{ITEMS} items in each"), &report.items_at_once, f64::NAN);
    table.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\nThe last row counts items. Ratios are of answers a second, medians over the turns, to those that ran alone."
    );
}

//! What the planner's choice is worth on real meshes: fixed ways to run a network and the free choice, measured in turns
//! on the machines and links of a topology: latency, and what the device draws.

mod cases;
mod turns;
mod ways;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use stormo_testnet::ground::{EMULATION, GroundKind};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::SOON;
use stormo_testnet::{binary, interrupt};

use crate::median::median;
use crate::options;
use crate::table::{Align, Table};
use cases::{Case, Input};
use turns::Measured;

/// The free choice may be so much slower than the best fixed way.
const FREE_MAX: f64 = 1.03;
/// And than the best of all candidates, in the median of topologies and networks.
const BEST_MAX: f64 = 1.05;
/// What the thesis that first built such a system reports: device and edge, and with the cloud, beside the device
/// alone; the device's energy; how far off its predictions are.
const THESIS: &str = "1.46x and 3.08x sooner, device energy -73 %, predictions within 4.5 %";

/// What to measure, and how thoroughly.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Only on this topology; may be repeated [default: thesis]
    #[arg(long, value_name = "NAME")]
    topology: Vec<PathBuf>,
    /// Only this network; may be repeated
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Every candidate plan in turn, instead of device, device and edge, and all three
    #[arg(long)]
    candidates: bool,
    /// Times that it is each way's turn
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = options::count(1..=10_000))]
    rounds: usize,
    /// Requests in a turn, the first of which does not count
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = options::count(2..=10_000))]
    requests: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Run>,
    /// What was not measured, and why.
    left_out: Vec<String>,
}

/// One network on one topology, asked in one form.
#[derive(Debug, Serialize)]
struct Run {
    topology: String,
    model: String,
    input: Input,
    ways: Vec<Measured>,
    /// The free choice's latency by that of the best fixed way.
    free_by_best: f64,
    /// Whether it chose just what that way is: two measurements of one plan.
    same_plan: bool,
    /// Median over all ways of how far a prediction is off, as a share of what was measured.
    prediction_error: f64,
    /// Median over all ways of how far a turn is from its way's median: what one measurement tells at best.
    noise: f64,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let (cases, mut left_out) = cases::all();
    super::ensure_known(&options.model, &cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>())?;
    let mut runs = Vec::new();
    let named = match options.topology.is_empty() {
        true => vec![PathBuf::from("thesis")],
        false => options.topology.clone(),
    };
    let places = places(&named, &mut left_out)?;
    let binary = binary::build()?;
    for Place { shown, topology, ground } in &places {
        let is_wanted = |case: &&Case| options.model.is_empty() || options.model.contains(&case.name);
        for case in cases.iter().filter(is_wanted) {
            if interrupt::is_noted() {
                break;
            }
            note!("{} on {shown}", case.name);
            match on_mesh(&binary, *ground, topology, shown, case, options) {
                Ok(measured) => runs.extend(measured),
                Err(error) => left_out.push(format!("{} on {shown}: {error:#}", case.name)),
            }
        }
    }
    ensure!(!runs.is_empty(), "nothing was measured: {}", left_out.join("; "));
    super::kept::show("choice", options.json, &Report { runs, left_out }, print)
}

/// A mesh to measure on.
struct Place {
    shown: String,
    topology: Topology,
    ground: GroundKind,
}

/// The topologies that can be had here, one at least; others are left out.
fn places(named: &[PathBuf], left_out: &mut Vec<String>) -> Result<Vec<Place>> {
    let (mut places, mut lacking) = (Vec::new(), Vec::new());
    for name in named {
        let topology = Topology::load(name)?;
        let shown = name.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match GroundKind::for_topology(&topology, 1) {
            Ok(ground) => places.push(Place { shown, topology, ground }),
            Err(why) => lacking.push(format!("topology `{shown}` needs {EMULATION}: {why}")),
        }
    }
    ensure!(!places.is_empty(), "{}", lacking.join("; "));
    left_out.extend(lacking);
    Ok(places)
}

fn on_mesh(
    binary: &Path,
    ground: GroundKind,
    topology: &Topology,
    shown: &str,
    case: &Case,
    options: &Options,
) -> Result<Vec<Run>> {
    let mut mesh = Mesh::start_on(ground, binary, topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(topology.nodes.len(), SOON)?;
    let deployed = ways::deploy(&mesh, topology, case)?;
    let mut runs = Vec::new();
    for input in case.inputs() {
        let asked = ways::Asked::new(&mesh, &deployed, case, input)?;
        let ways = ways::find(&asked, options.candidates).with_context(|| format!("{input:?}"))?;
        let ways = turns::measure(&asked, ways, options.rounds, options.requests)?;
        runs.push(judged(shown, case, input, ways));
    }
    Ok(runs)
}

fn judged(topology: &str, case: &Case, input: Input, ways: Vec<Measured>) -> Run {
    let fixed = ways.iter().filter(|way| !way.is_free);
    let best = fixed.min_by(|one, other| one.latency_ms.total_cmp(&other.latency_ms));
    let free = ways.iter().find(|way| way.is_free);
    let latency_ms = |way: Option<&Measured>| way.map_or(f64::NAN, |way| way.latency_ms);
    Run {
        topology: topology.to_owned(),
        model: case.name.clone(),
        input,
        free_by_best: latency_ms(free) / latency_ms(best),
        same_plan: free.zip(best).is_some_and(|(free, best)| free.plans == best.plans),
        prediction_error: median(ways.iter().map(|way| (way.predicted_ms / way.latency_ms - 1.0).abs())),
        noise: median(ways.iter().map(|way| way.noise)),
        ways,
    }
}

fn print(report: &Report) {
    for run in &report.runs {
        print_run(run);
    }
    if !report.runs.is_empty() {
        println!(
            "\nms: from a request's arrival at its node to the result there, the median of turns; J: what that node's\n\
             machine draws in the time, by its processor time, the busy time of its links and the watts of the topology's\n\
             file, idle power included; x: sooner than the first way. The thesis's figures: {THESIS}."
        );
        let ratios = median(report.runs.iter().map(|run| run.free_by_best));
        let errors = median(report.runs.iter().map(|run| run.prediction_error));
        println!(
            "All of it: the free choice takes {ratios:.3} times the best of the others in the median (wanted: \
             {BEST_MAX} beside all\ncandidates, {FREE_MAX} beside the best fixed way); predictions are {:.1} % off in \
             the median.",
            100.0 * errors
        );
    }
    report.left_out.iter().for_each(|why| println!("left out: {why}"));
}

fn print_run(run: &Run) {
    let form = match run.input {
        Input::Floats => "floats, sent as they are",
        Input::Photo => "a photo as it is, int8 and rounding allowed",
    };
    println!("\n{} on {}: {form}", run.model, run.topology);
    let figures = ["predicted ms", "loading", "ms", "x", "predicted J", "J", "energy", "sent"];
    let columns = [("way", Align::Left)].into_iter().chain(figures.map(|title| (title, Align::Right)));
    let columns: Vec<(&str, Align)> = columns.chain([("stages", Align::Left)]).collect();
    let mut table = Table::new(&columns);
    let first = &run.ways[0];
    let joules = |joules: Option<f64>| joules.map_or_else(|| "-".to_owned(), |joules| format!("{joules:.4}"));
    for way in &run.ways {
        let energy = way.energy_j.zip(first.energy_j);
        let energy =
            energy.map_or(String::new(), |(here, there)| format!("{:+.0} %", 100.0 * (here / there - 1.0)));
        table.row([
            way.name.clone(),
            format!("{:.1}", way.predicted_ms),
            format!("{:.1}", way.predicted_cold_ms),
            format!("{:.1}", way.latency_ms),
            format!("{:.2}", first.latency_ms / way.latency_ms),
            joules(way.predicted_j),
            joules(way.energy_j),
            energy,
            way.bytes.to_string(),
            way.stages.clone(),
        ]);
    }
    table.lines().iter().for_each(|line| println!("  {line}"));
    let verdict = match () {
        () if run.free_by_best <= FREE_MAX => "holds",
        () if run.same_plan => "the same plan, measured twice",
        () => "missed",
    };
    println!(
        "  free choice by the best other way: {:.3} ({verdict}); predictions {:.1} % off, a turn {:.1} % from its median",
        run.free_by_best,
        100.0 * run.prediction_error,
        100.0 * run.noise
    );
}

//! What a request pays for its plan: one that is at hand, beside one that is made for it, in turns on the same mesh.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use stormo::serve::json::RequestsView;
use stormo_testnet::counted::counted;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::{binary, digits, interrupt};

use crate::median::quantile;
use crate::options;
use crate::table::{Align, Table};

/// What no two requests that are planned for have in common: a latency that all of them reach, ms.
const WISHED_MS: f64 = 20_000.0;

/// What to measure, and how thoroughly.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Nodes of the mesh, plain processes of this machine
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    /// Requests of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = options::count(1..=100_000))]
    requests: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    nodes: u8,
    at_hand: Times,
    made: Times,
    /// Share of the requests whose plan could be at hand that found it: the mesh was as it had been.
    found: f64,
}

/// Times of one kind of requests, ms.
#[derive(Debug, Serialize)]
struct Times {
    requests: usize,
    /// From a request's arrival until it had its plan.
    planning_p50_ms: f64,
    planning_p99_ms: f64,
    /// From its arrival to its result.
    latency_p50_ms: f64,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let labels: Vec<String> = (1..=options.nodes).map(|number| format!("node-{number}")).collect();
    let topology = Topology::plain("look-ups", labels.iter().map(|label| edge(label)).collect());
    let mut mesh = Mesh::start(&binary::build()?, &topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(labels.len(), SOON)?;
    trial::deploy(&mesh, &labels[0], "digits", &digits::model(), &[])?;
    let report = measure(&mesh, &labels[0], options)?;
    super::kept::show("lookup", options.json, &report, print)
}

fn measure(mesh: &Mesh, at: &str, options: &Options) -> Result<Report> {
    let client = mesh.node(at).client.clone();
    let input = trial::digits_input(&client)?;
    let image = digits::load()?.into_iter().next().context("an image")?;
    let bytes: Vec<u8> = image.pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
    let described = json!({
        "name": input.name, "shape": input.shape, "datatype": input.datatype,
        "parameters": { "binary_data_size": bytes.len() },
    });
    let (mut at_hand, mut made, mut found) = (Vec::new(), Vec::new(), 0);
    for number in 0..options.requests {
        if interrupt::is_noted() {
            break;
        }
        for is_new in [false, true] {
            let wished_ms = if is_new { WISHED_MS + (number + 1) as f64 / 1_000.0 } else { WISHED_MS };
            let head = json!({ "inputs": [described], "parameters": { "max_latency_ms": wished_ms } });
            let before: RequestsView = client.get("/v1/requests")?;
            let answer = client.infer_binary("digits", &head, &bytes)?;
            let after: RequestsView = client.get("/v1/requests")?;
            let request = client.request(&answer.request_id)?;
            let times = (request.planning_ms, request.latency_ms);
            if is_new {
                made.push(times);
            } else if after.plans_looked_up > before.plans_looked_up {
                found += 1;
                at_hand.push(times);
            }
        }
    }
    let found = f64::from(found) / made.len().max(1) as f64;
    Ok(Report { nodes: options.nodes, at_hand: Times::of(&at_hand), made: Times::of(&made), found })
}

impl Times {
    fn of(times: &[(f64, f64)]) -> Self {
        let planning = |share| quantile(times.iter().map(|(planning_ms, _)| *planning_ms), share);
        Self {
            requests: times.len(),
            planning_p50_ms: planning(0.5),
            planning_p99_ms: planning(0.99),
            latency_p50_ms: quantile(times.iter().map(|(_, latency_ms)| *latency_ms), 0.5),
        }
    }
}

fn print(report: &Report) {
    let figures = ["requests", "plan, ms (50 %)", "(99 %)", "whole, ms (50 %)"];
    let columns = [("plan", Align::Left)].into_iter().chain(figures.map(|title| (title, Align::Right)));
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    for (name, times) in [("at hand", &report.at_hand), ("made for the request", &report.made)] {
        table.row([
            name.to_owned(),
            times.requests.to_string(),
            format!("{:.4}", times.planning_p50_ms),
            format!("{:.4}", times.planning_p99_ms),
            format!("{:.3}", times.latency_p50_ms),
        ]);
    }
    println!(
        "A mesh of {}, requests one after the other, of both kinds in turns.\n",
        counted(report.nodes, "node")
    );
    table.lines().iter().for_each(|line| println!("{line}"));
    println!(
        "\nplan: from a request's arrival at its node until it has its plan; whole: until its result is there.\n\
         {:.1} % of the requests that asked as others before found their plan at hand; for the rest the mesh had changed.",
        100.0 * report.found
    );
}

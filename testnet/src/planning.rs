//! `cargo mesh plan`: what the planner makes of a mesh that is only written down.

mod written_down;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use stormo::app::calls::PlanLimits;
use stormo::files;
use stormo::plan::instance::{Instance, PartOf, PlacedOf, PlanOf, ReplicatedOf, Reply, SplitOf};
use stormo::plan::{EXPANSIONS_DEFAULT, Ilp, Method, Objective, Search};

use crate::table::{Align, Table};
use stormo_testnet::counted::counted;

/// Larger files are no instances: thousands of nodes and links take less.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Partial plans that the exact planner looks at; beyond that it answers with the best so far and its bound. About
/// half a minute.
const EXPANSIONS_EXACT: usize = 200_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The instance: nodes, links, a model's variants and what is asked, as `topologies/README.md` describes;
    /// `-` reads standard input
    #[arg(required_unless_present = "topology", conflicts_with = "topology")]
    instance: Option<PathBuf>,
    /// Instead: the mesh of a topology's file (`thesis`, or a path), with --model
    #[arg(long, value_name = "NAME", requires = "model")]
    topology: Option<PathBuf>,
    /// The model's ONNX file, which is divided and profiled on this machine for that
    #[arg(long, value_name = "FILE", requires = "topology")]
    model: Option<PathBuf>,
    /// The node where requests enter [default: the first device]
    #[arg(long, value_name = "LABEL", requires = "topology")]
    from: Option<String>,
    /// What is to be least: latency, throughput or energy
    #[arg(long, value_name = "OBJECTIVE", requires = "topology", default_value = "latency", value_parser = objective)]
    objective: Objective,
    /// Write the instance to this file too, to change it
    #[arg(long, value_name = "FILE", requires = "topology")]
    export: Option<PathBuf>,
    /// How to look for the plan
    #[arg(long, value_enum, default_value_t = PlannerName::Greedy)]
    planner: PlannerName,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PlannerName {
    /// What nodes use: the most promising nodes, few partial plans remembered
    Greedy,
    /// All nodes and partial plans that may matter
    Exact,
    /// An integer linear programme for an independent solver; small instances only
    Ilp,
}

pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let (text, named) = instance(args)?;
    let instance = Instance::parse(&text).with_context(|| format!("{}", named.display()))?;
    let began = Instant::now();
    let (method, expansions_max) = match args.planner {
        PlannerName::Greedy => (Method::Greedy, EXPANSIONS_DEFAULT),
        PlannerName::Exact | PlannerName::Ilp => (Method::Exact, EXPANSIONS_EXACT),
    };
    let answer = match args.planner {
        PlannerName::Ilp => instance.question.answer(&Ilp),
        _ => instance.question.answer(&Search { method, expansions_max }),
    };
    let took = began.elapsed();
    let mut reply = instance.reply(answer, method, EXPANSIONS_DEFAULT);
    reply.planning_ms = took.as_secs_f64() * 1000.0;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reply)?);
    } else {
        show(&reply);
    }
    Ok(())
}

/// The instance's text, and what it is called.
fn instance(args: &PlanArgs) -> Result<(String, PathBuf)> {
    let (Some(topology), Some(model)) = (&args.topology, &args.model) else {
        let path = args.instance.clone().context("an instance, or --topology and --model")?;
        return Ok((read(&path)?, path));
    };
    let limits = PlanLimits { objective: args.objective, ..PlanLimits::default() };
    let instance = written_down::instance(topology, model, args.from.as_deref(), &limits)?;
    let text = serde_json::to_string_pretty(&instance)?;
    if let Some(path) = &args.export {
        files::write_whole(path, text.as_bytes()).with_context(|| path.display().to_string())?;
    }
    Ok((text, topology.clone()))
}

fn objective(text: &str) -> Result<Objective, String> {
    serde_json::from_value(text.into()).map_err(|_| "use latency, throughput or energy".to_owned())
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    let bytes = files::read(path, FILE_BYTES_MAX).with_context(|| {
        format!("{} cannot be read: give the path of an instance, or `-`", path.display())
    })?;
    String::from_utf8(bytes).with_context(|| format!("{} is no UTF-8 text", path.display()))
}

fn show(reply: &Reply) {
    if !reply.feasible {
        let reason = reply.reason.as_deref().unwrap_or("no plan meets the limits");
        println!("  no plan: {reason} (binding: {})", reply.binding.as_deref().unwrap_or("unknown"));
        if reply.plan.is_some() {
            println!("  the closest:");
        }
    }
    if let Some(plan) = &reply.plan {
        show_plan(plan);
    }
    if let Some(bound) = reply.lower_bound_ms.or(reply.lower_bound) {
        let proof = if reply.proven { "no plan is better" } else { "a better one may be found" };
        println!("  lower bound {bound:.4}: {proof}; planned in {:.2} ms", reply.planning_ms);
    }
    if reply.nodes_left_out > 0 {
        println!(
            "  not looked at: {} of little promise (`--planner exact` does)",
            counted(reply.nodes_left_out, "node")
        );
    }
    if let Some(split) = &reply.split {
        show_split(split);
    }
    if let Some(stream) = &reply.replicated {
        show_replicated(stream);
    }
    for field in &reply.not_considered {
        println!(
            "  `{field}` counts for the least latency without a limit of energy: this is the best plan without"
        );
    }
    if !reply.runners_up.is_empty() {
        println!("\n  others:");
    }
    for plan in &reply.runners_up {
        let stages: Vec<String> =
            plan.stages.iter().map(|stage| format!("{} {}", stage.node, blocks_of(stage.blocks))).collect();
        println!("  {:>10.3} ms  {}  {}", plan.latency_ms, energy_of(plan.energy_j), stages.join(" → "));
    }
}

/// Blocks as tables show them, the last one included.
fn blocks_of([first, end]: [u16; 2]) -> String {
    if end == first + 1 { first.to_string() } else { format!("{first}-{}", end.saturating_sub(1)) }
}

/// What the requester draws; where the instance says no watts, nobody knows.
fn energy_of(energy_j: f64) -> String {
    if energy_j > 0.0 { format!("energy {energy_j:.5} J") } else { "energy unknown".to_owned() }
}

fn show_split(split: &SplitOf) {
    let way: Vec<String> = split.parts.iter().map(part_of).collect();
    println!(
        "  with work beside each other: {:.4} ms (at least {:.4}), {} bytes moved: {}",
        split.latency_ms,
        split.lower_bound_ms,
        split.bytes,
        way.join(" → ")
    );
    if !split.runnable {
        println!("  no mesh can run that yet: plans that run fork once, into branches");
    }
}

/// A stage, or what is beside each other in brackets.
fn part_of(part: &PartOf) -> String {
    let place = |place: &PlacedOf| {
        let rows = place.rows.map(|rows| format!(": {}", counted(rows, "row")));
        let items = place.items.map(|items| format!(": {items} of the batch"));
        let share = rows.or(items).unwrap_or_default();
        format!("{} {}{share}", place.node, blocks_of(place.blocks))
    };
    let places = part.on.iter().map(place).collect::<Vec<_>>().join(" | ");
    if part.kind == "stage" { places } else { format!("({places})") }
}

fn show_replicated(stream: &ReplicatedOf) {
    println!("\n  a stream over several routes:");
    let columns = [("blocks", Align::Left), ("node", Align::Left), ("of the requests", Align::Right)];
    let mut table = Table::new(&columns);
    for replica in &stream.replicas {
        table.row([
            blocks_of(replica.blocks),
            replica.node.clone(),
            format!("{:.2} %", replica.weight * 100.0),
        ]);
    }
    table.lines().iter().for_each(|line| println!("  {line}"));
    let proof = if stream.proven { "no stream is better" } else { "a better one may be found" };
    println!(
        "  period {:.4} ms (at least {:.4}: {proof}) on {} routes; filling: {:.4} ms on average, {:.4} by the slowest",
        stream.period_ms,
        stream.lower_bound_ms,
        stream.routes.len(),
        stream.latency_ms,
        stream.latency_max_ms
    );
    if !stream.runnable {
        println!("  each route is a plan that a mesh can run; no node deals requests out among several yet");
    }
}

fn show_plan(plan: &PlanOf) {
    let columns =
        [("node", Align::Left), ("blocks", Align::Left), ("input as", Align::Left), ("then", Align::Left)];
    let mut table = Table::new(&columns);
    for stage in &plan.stages {
        table.row([
            stage.node.clone(),
            blocks_of(stage.blocks),
            stage.codec.clone(),
            stage.backups.join(", "),
        ]);
    }
    table.lines().iter().for_each(|line| println!("  {line}"));
    let accuracy = plan.accuracy.map_or(String::new(), |accuracy| format!(", accuracy {accuracy:.4}"));
    println!(
        "  `{}`: latency {:.4} ms, period {:.4} ms, {}, {} bytes moved{accuracy}",
        plan.variant,
        plan.latency_ms,
        plan.period_ms,
        energy_of(plan.energy_j),
        plan.bytes
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_shown_with_their_last_one() {
        assert_eq!(blocks_of([0, 5]), "0-4");
        assert_eq!(blocks_of([3, 4]), "3");
    }

    #[test]
    fn what_is_beside_each_other_stands_in_brackets() {
        let on = |node: &str, rows| PlacedOf {
            node: node.to_owned(),
            blocks: [0, 3],
            rows,
            items: None,
            start_ms: 0.0,
            takes_ms: 1.0,
        };
        let part = |kind, on| PartOf { kind, on };
        assert_eq!(part_of(&part("stage", vec![on("edge", None)])), "edge 0-2");
        let strips = part("strips", vec![on("device", Some(2)), on("edge", Some(8))]);
        assert_eq!(part_of(&strips), "(device 0-2: 2 rows | edge 0-2: 8 rows)");
    }

    #[test]
    fn no_watts_are_no_zero_joules() {
        assert_eq!(energy_of(0.0), "energy unknown");
        assert_eq!(energy_of(0.25), "energy 0.25000 J");
    }
}

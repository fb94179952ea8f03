//! `cargo mesh scenarios`: those that come with the testnet.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stormo_testnet::scenario::{self, Scenario};

use crate::table::{Align, Table};
use crate::told::{self, tell};

/// How to list them.
#[derive(Debug, Args)]
pub(crate) struct ScenariosArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    scenarios: Vec<Told>,
}

/// A scenario in the list.
#[derive(Serialize)]
struct Told {
    name: String,
    about: String,
    /// How long load is sent; starting, deploying and ending come on top.
    duration_s: f64,
    nodes: usize,
    /// Whether it takes emulated links and machines, and so root.
    needs_emulation: bool,
}

/// Lists them.
pub(crate) fn run(args: &ScenariosArgs) -> Result<()> {
    let told = |name: String| -> Result<Told> {
        let scenario = Scenario::load(Path::new(&name))?;
        Ok(Told {
            name,
            about: scenario.about.clone(),
            duration_s: scenario.duration_us as f64 / 1e6,
            nodes: scenario.topology.nodes.len(),
            needs_emulation: scenario.needs_emulation().is_some(),
        })
    };
    let scenarios = scenario::names().into_iter().map(told).collect::<Result<Vec<_>>>()?;
    if args.json {
        told::document(&serde_json::to_string_pretty(&Listed { scenarios })?);
        return Ok(());
    }
    let mut table = Table::new(&[
        ("scenario", Align::Left),
        ("load for", Align::Right),
        ("nodes", Align::Right),
        ("needs", Align::Left),
        ("shows", Align::Left),
    ]);
    for Told { name, about, duration_s, nodes, needs_emulation } in scenarios {
        let needs = if needs_emulation { "root" } else { "" };
        table.row([name, format!("{duration_s} s"), nodes.to_string(), needs.to_owned(), about]);
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    Ok(())
}

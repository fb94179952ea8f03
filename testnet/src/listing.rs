//! `cargo mesh scenarios`: those that come with the testnet.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stormo_testnet::counted::counted;
use stormo_testnet::printable::printable;
use stormo_testnet::scenario::{self, Scenario};

use crate::run::Ended;
use crate::table::{Align, Table};
use crate::told::{self, tell};

/// How to list them.
#[derive(Debug, Args)]
pub(crate) struct ScenariosArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Listed {
    scenarios: Vec<Told>,
    /// Those whose files cannot be meant.
    unusable: Vec<Unusable>,
}

/// A scenario in the list.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    about: String,
    /// How long load is sent; starting, deploying and ending come on top.
    duration_s: f64,
    nodes: usize,
    /// Whether it takes emulated links and machines, and so root.
    needs_emulation: bool,
}

/// A file that is no scenario, or whose topology is none.
#[derive(Debug, Serialize)]
struct Unusable {
    name: String,
    /// With file, line and field.
    error: String,
}

/// Lists them; one that cannot be meant hides no other.
pub(crate) fn run(args: &ScenariosArgs) -> Result<Ended> {
    let mut listed = Listed::default();
    scenario::names().into_iter().for_each(|name| listed.add(Path::new(&name)));
    if args.json {
        told::document(&serde_json::to_string_pretty(&listed)?);
    } else {
        listed.table().lines().iter().for_each(|line| tell!("{line}"));
    }
    for Unusable { name, error } in &listed.unusable {
        note!("error: {}: {}", printable(name), printable(error));
    }
    match listed.unusable.len() {
        0 => Ok(Ended::Well),
        unusable => {
            note!("{} cannot be played", counted(unusable, "scenario"));
            Ok(Ended::Badly)
        }
    }
}

impl Listed {
    fn add(&mut self, named: &Path) {
        let name = named.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match Scenario::load(named) {
            Ok(scenario) => self.scenarios.push(Told {
                name,
                about: scenario.about.clone(),
                duration_s: scenario.duration_us as f64 / 1e6,
                nodes: scenario.topology.nodes.len(),
                needs_emulation: scenario.needs_emulation().is_some(),
            }),
            Err(error) => self.unusable.push(Unusable { name, error: error.to_string() }),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("scenario", Align::Left),
            ("load for", Align::Right),
            ("nodes", Align::Right),
            ("needs", Align::Left),
            ("shows", Align::Left),
        ]);
        for Told { name, about, duration_s, nodes, needs_emulation } in &self.scenarios {
            let needs = if *needs_emulation { "root" } else { "" };
            table.row([
                name.clone(),
                format!("{duration_s} s"),
                nodes.to_string(),
                needs.to_owned(),
                about.clone(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_bad_file_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let good = fs::read_to_string(scenario::folder().join("short-steady.toml")).unwrap();
        let mut listed = Listed::default();
        for (name, text) in [("one", good.clone()), ("two", format!("{good}\nspeed = 1\n")), ("zed", good)] {
            let path = folder.path().join(name).with_extension("toml");
            fs::write(&path, text).unwrap();
            listed.add(&path);
        }
        let names: Vec<&str> = listed.scenarios.iter().map(|told| told.name.as_str()).collect();
        assert_eq!((names, listed.table().lines().len()), (vec!["one", "zed"], 3));
        let [bad] = &listed.unusable[..] else { panic!("{listed:?}") };
        assert!(bad.name == "two" && bad.error.contains("two.toml:"), "{bad:?}");
        assert!(bad.error.contains("unknown field `speed`"), "{bad:?}");
    }
}

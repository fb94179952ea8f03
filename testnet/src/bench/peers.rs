//! Today's mesh beside what a user would run instead, on the same network, machine and clients. The others
//! and the load come from a folder of scripts that may lie beside the checkout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use stormo_testnet::counted::counted;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::{binary, surroundings};

use crate::median::median;
use crate::options;
use crate::table::{Align, Table};
use crate::told::tell;

/// What runs the others, in the folder of scripts.
const DRIVER: &str = "run_all.py";
/// Where they are installed, and their models.
const VENVS: &str = "PEERS_VENVS";
const MODELS: &str = "PEERS_MODELS";
/// How the driver calls an endpoint that it did not start.
const OURS: &str = "ours-http";
const FLOOR: &str = "floor";
/// Lines of what a peer said that tell why it did not answer.
const LOG_LINES_SHOWN: usize = 3;

/// What is compared with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds; each goes through all once, so that a slow minute hits all alike
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = options::count(1..=1_000))]
    rounds: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Our network in so many parts, and those who run it in as many.
struct Group {
    name: &'static str,
    parts: usize,
    peers: &'static [&'static str],
}

const GROUPS: [Group; 2] = [
    Group { name: "whole", parts: 1, peers: &["triton1-http", "triton1", "bento1"] },
    Group { name: "halves", parts: 2, peers: &["tcp2", "zmq2", "grpc2", "triton2", "bento2"] },
];

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    groups: Vec<GroupReport>,
}

#[derive(Debug, Serialize)]
struct GroupReport {
    name: &'static str,
    peers: Vec<PeerReport>,
    /// Peers that answered nothing, and what they said.
    left_out: Vec<String>,
}

/// Medians over the rounds.
#[derive(Debug, Serialize)]
struct PeerReport {
    peer: String,
    rounds: usize,
    /// One request at a time, in turns with the same network in one session of the client's process.
    latency_ms: f64,
    /// What that adds to the session's own run; median of the differences of neighbours in time.
    added_ms: f64,
    /// Latency by that of the session.
    by_session: f64,
    /// Answers a second with eight clients.
    answers_per_s: f64,
    /// That, in times of what one session gives.
    answers_by_session: f64,
    errors: u64,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let place = Place::find()?;
    let binary = binary::build()?;
    let topology = Topology::plain("beside others", vec![edge("one"), edge("two")]);
    let mut mesh = Mesh::start(&binary, &topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(topology.nodes.len(), SOON)?;
    let mut groups = Vec::new();
    for group in &GROUPS {
        note!("{}: {}, each some 15 s for every peer", group.name, counted(options.rounds, "round"));
        groups.push(measure(&mesh, &place, group, options.rounds)?);
    }
    super::kept::show("peers", options.json, &Report { groups }, print)
}

/// Where the scripts, their Python and their models are.
struct Place {
    scripts: PathBuf,
    python: PathBuf,
    model: PathBuf,
}

impl Place {
    fn find() -> Result<Self> {
        let scripts = surroundings::shared().join("peers");
        ensure!(
            scripts.join(DRIVER).is_file(),
            "no {DRIVER} in {}: set {} to the folder that holds `peers`",
            scripts.display(),
            surroundings::SHARED
        );
        let (Some(venvs), Some(models)) = (surroundings::folder(VENVS), surroundings::folder(MODELS)) else {
            bail!(
                "set {VENVS} and {MODELS} to folders outside the checkout, and run {} once with them",
                scripts.join("install.sh").display()
            );
        };
        let (python, model) = (venvs.join("venv/bin/python"), models.join("whole.onnx"));
        for file in [&python, &model] {
            let install = scripts.join("install.sh");
            ensure!(file.is_file(), "no {}: run {} first", file.display(), install.display());
        }
        Ok(Self { scripts, python, model })
    }
}

fn measure(mesh: &Mesh, place: &Place, group: &Group, rounds: usize) -> Result<GroupReport> {
    let parts = group.parts.to_string();
    let options = ["--parts", &parts, "--replicas", "1"];
    let deployed = trial::deploy(mesh, "one", group.name, &place.model, &options)?;
    let first =
        deployed.hosts.iter().find(|host| host.blocks[0] == 0).context("nobody has the first part")?;
    let base = mesh.node(&first.label).client.base();
    let address = base.strip_prefix("http://").unwrap_or(base);
    let out = mesh.folder().join(format!("peers-{}", group.name));
    let only = [&[FLOOR], group.peers, &[OURS]].concat().join(",");
    let mut driver = Command::new(&place.python);
    driver.arg(place.scripts.join(DRIVER)).args([
        "--reps",
        &rounds.to_string(),
        "--only",
        &only,
        "--no-xfer",
    ]);
    driver.args(["--url-http", address, "--url-model", group.name]).arg("--out").arg(&out);
    // Its own table has columns that only some have figures for.
    let status = driver.stdin(Stdio::null()).stdout(Stdio::null()).status().context("the driver")?;
    ensure!(status.success(), "{DRIVER} ended with {status}");
    let (mut peers, left_out) = answered(&out, group.peers);
    peers.push(peer(&out, OURS)?);
    Ok(GroupReport { name: group.name, peers, left_out })
}

/// Those that answered, and why others did not: a peer that cannot be installed costs no other's figures.
fn answered(out: &Path, names: &[&str]) -> (Vec<PeerReport>, Vec<String>) {
    let (mut peers, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        match peer(out, name) {
            Ok(peer) => peers.push(peer),
            Err(error) => left_out.push(format!("{name}: {error:#}")),
        }
    }
    (peers, left_out)
}

/// The medians of what the driver noted of a peer, a JSON object on each line.
fn peer(out: &Path, name: &str) -> Result<PeerReport> {
    // Without a file it did not start.
    let text = fs::read_to_string(out.join(format!("{name}.jsonl"))).unwrap_or_default();
    let mut found: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let noted: BTreeMap<String, Value> = serde_json::from_str(line).context("a line of the driver")?;
        let Some(case) = noted.get("case").and_then(Value::as_str) else { continue };
        for (key, value) in &noted {
            if let Some(figure) = value.as_f64() {
                found.entry((case.to_owned(), key.clone())).or_default().push(figure);
            }
        }
    }
    let figures =
        |case: &str, key: &str| found.get(&(case.to_owned(), key.to_owned())).cloned().unwrap_or_default();
    let middle = |case: &str, key: &str| median(figures(case, key).into_iter());
    let errors = ["paired1", "thr8"].iter().flat_map(|case| figures(case, "err")).sum::<f64>();
    let rounds = figures("paired1", "peer_p50").len();
    ensure!(rounds > 0, "it answered nothing ({})", last_words(&out.join(format!("{name}.log"))));
    Ok(PeerReport {
        peer: if name == OURS { "stormo".to_owned() } else { name.to_owned() },
        rounds,
        latency_ms: middle("paired1", "peer_p50"),
        added_ms: middle("paired1", "added_p50"),
        by_session: middle("paired1", "ratio_p50"),
        answers_per_s: middle("thr8", "rps"),
        answers_by_session: middle("thr8", "rps_x_floor"),
        errors: errors as u64,
    })
}

/// The end of what a peer said; its folder goes with the mesh.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
        [] => "and said nothing: is it installed?".to_owned(),
        last => last.join(" / "),
    }
}

fn print(report: &Report) {
    tell!(
        "One network (a ResNet-18's shape) behind each of these, one thread a session, clients of the same kind.\n"
    );
    let titles = ["latency, ms", "added, ms", "by session", "answers/s of 8", "by session", "errors"];
    let titles = titles.map(|title| (title, Align::Right));
    for group in &report.groups {
        tell!("{}:", group.name);
        let mut table = Table::new(&[&[("peer", Align::Left)], &titles[..]].concat());
        for peer in &group.peers {
            let figures = [
                peer.latency_ms,
                peer.added_ms,
                peer.by_session,
                peer.answers_per_s,
                peer.answers_by_session,
            ];
            let figures = figures.map(|figure| format!("{figure:.2}"));
            table.row(
                [peer.peer.clone()]
                    .into_iter()
                    .chain(figures)
                    .chain([peer.errors.to_string()])
                    .collect::<Vec<_>>(),
            );
        }
        table.lines().iter().for_each(|line| tell!("{line}"));
        group.left_out.iter().for_each(|why| tell!("left out: {why}"));
        tell!("");
    }
    tell!(
        "latency: one client, medians; added, by session: to and by one session in the client's process, in turns;\n\
         answers: eight clients at once. Names ending in 2 run the network in two processes."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_installed_is_left_out_and_named() {
        let out = tempfile::tempdir().unwrap();
        let noted = "{\"case\":\"paired1\",\"peer_p50\":2.0,\"added_p50\":1.0,\"ratio_p50\":2.0}\n";
        fs::write(out.path().join("grpc2.jsonl"), noted).unwrap();
        fs::write(out.path().join("bento2.jsonl"), "").unwrap();
        fs::write(out.path().join("bento2.log"), "Traceback\n\nModuleNotFoundError: bentoml\n").unwrap();
        let (peers, left_out) = answered(out.path(), &["grpc2", "bento2", "zmq2"]);
        let names: Vec<&str> = peers.iter().map(|peer| peer.peer.as_str()).collect();
        assert_eq!((names, peers[0].latency_ms), (vec!["grpc2"], 2.0));
        assert_eq!(
            left_out,
            [
                "bento2: it answered nothing (Traceback / ModuleNotFoundError: bentoml)",
                "zmq2: it answered nothing (and said nothing: is it installed?)"
            ]
        );
    }
}

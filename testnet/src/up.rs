//! `cargo mesh up`: a mesh that stays until Ctrl-C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use stormo_testnet::counted::counted;
use stormo_testnet::ground::{EMULATION, GroundKind};
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::process::{Node, class_name};
use stormo_testnet::topology::Topology;
use stormo_testnet::wait::WaitError;
use stormo_testnet::{binary, interrupt};

use crate::narrator::Narrator;
use crate::run::{self, Ended};
use crate::table::{Align, Table};

/// Between two looks at whether all nodes still run.
const LOOK: Duration = Duration::from_millis(500);
/// Pairs of nodes that are named for links that are alike.
const PAIRS_SHOWN: usize = 6;
/// Between two words on how far a start is.
const TELL_EACH: Duration = Duration::from_secs(3);
/// Until all know each other: some exchanges of a second each.
const KNOWN_MAX: Duration = Duration::from_secs(60);

/// `cargo mesh up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A file, or the name of one in `topologies/` (`loopback`)
    topology: PathBuf,
    /// Plain processes, without the links and limits that the file asks for
    #[arg(long)]
    loopback: bool,
    /// Seed of what links do by chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the mesh shall stand on; said where that is less than its file asks for.
fn ground(args: &UpArgs, topology: &Topology, narrator: &Narrator) -> GroundKind {
    if args.loopback {
        if let Some(lacking) = run::lacking(topology, args.loopback) {
            narrator.say(lacking);
        }
        return GroundKind::Loopback;
    }
    GroundKind::for_topology(topology, args.seed).unwrap_or_else(|why| {
        narrator.say(&format!(
            "On loopback: {EMULATION} cannot be had: {why}. None of the links and limits of the topology's file hold."
        ));
        GroundKind::Loopback
    })
}

/// Starts the mesh, says how to use it, and ends it on Ctrl-C.
pub(crate) fn run(args: &UpArgs) -> Result<Ended> {
    let narrator = Narrator::new(false);
    let topology = Topology::load(&args.topology)?;
    let ground = ground(args, &topology, &narrator);
    narrator.say(&topology.about);
    narrator.say("Building the node; then each of its processes starts.");
    let binary = binary::build()?;
    narrator.say(&format!("Starting {}.", counted(topology.nodes.len(), "node")));
    let mut mesh = Mesh::start_on(ground, &binary, &topology, &mut |log| note_part!("{log}"))?;
    wait_until_all_know(&mut mesh, topology.nodes.len(), &narrator)?;
    show(&narrator, &mesh, &binary);
    let mut gone = vec![false; mesh.nodes().len()];
    while !interrupt::within(LOOK) {
        for (node, was_gone) in mesh.nodes_mut().iter_mut().zip(&mut gone) {
            if let Some(status) = node.ended().filter(|_| !*was_gone) {
                *was_gone = true;
                let log = node.log_end();
                let how = if log.trim().is_empty() { "its log is empty" } else { "its log ends:" };
                narrator.say(&format!("{} has ended ({status}); {how}", node.label()));
                narrator.say(&log);
            }
        }
    }
    narrator.gap();
    narrator.say("Ending all nodes.");
    let bad = mesh.end();
    let gone: Vec<String> = mesh
        .nodes()
        .iter()
        .zip(gone)
        .filter(|(_, gone)| *gone)
        .map(|(node, _)| node.label().to_owned())
        .collect();
    if bad.is_empty() && gone.is_empty() {
        return Ok(Ended::Well);
    }
    let kept = mesh.end_and_keep_folder();
    if !gone.is_empty() {
        narrator.say(&format!("{} had ended before.", gone.join(", ")));
    }
    if !bad.is_empty() {
        let labels: Vec<&str> = bad.iter().map(|end| end.label.as_str()).collect();
        narrator.say(&format!("{} did not end by itself.", labels.join(", ")));
    }
    narrator.say(&format!("logs are kept in {}", kept.display()));
    Ok(Ended::Badly)
}

/// Waits until every node knows all others; says how far that is when it takes long.
fn wait_until_all_know(mesh: &mut Mesh, count: usize, narrator: &Narrator) -> Result<()> {
    let (began, mut told, mut told_at) = (Instant::now(), 0, Instant::now());
    while began.elapsed() < KNOWN_MAX {
        let knowing = mesh.knowing(count);
        if knowing == count {
            return Ok(());
        }
        if knowing != told && told_at.elapsed() >= TELL_EACH {
            narrator.say(&format!("{knowing} of {} know all others.", counted(count, "node")));
            (told, told_at) = (knowing, Instant::now());
        }
        if interrupt::within(LOOK) {
            bail!("interrupted");
        }
    }
    // Says who knows how many.
    let (what, seen) = match mesh.wait_for_views(count, Duration::ZERO) {
        Err(WaitError::Late { what, seen, .. }) => (what, seen),
        others => return Ok(others?),
    };
    bail!(
        "waited {} s for {what}; at last: {seen}. Can the nodes reach each other, or where they join, over the links of the \
         topology's file? (Behind a `nat` nobody is reached from outside; `loss` and cuts may be too much.)",
        began.elapsed().as_secs()
    )
}

fn show(narrator: &Narrator, mesh: &Mesh, binary: &Path) {
    let mut table = Table::new(&[
        ("node", Align::Left),
        ("class", Align::Left),
        ("API", Align::Left),
        ("log", Align::Left),
    ]);
    for node in mesh.nodes() {
        table.row([
            node.label().to_owned(),
            class_name(node.spec.class).to_owned(),
            node.ready.api.clone(),
            node.log().display().to_string(),
        ]);
    }
    narrator.title("the mesh is up");
    narrator.table(&table);
    show_machines(narrator, mesh);
    show_links(narrator, mesh);
    let Some(first) = mesh.nodes().first() else { return };
    let stormo = binary.display();
    let api = &first.ready.api;
    narrator.title("to use it, at any of these addresses");
    narrator.say(&format!("{stormo} status --api {api}"));
    narrator.say(&format!(
        "{stormo} deploy digits testnet/models/digits.onnx --card testnet/models/digits.toml --replicas 2 --api {api}"
    ));
    narrator.say(&format!("{stormo} infer digits testnet/models/digits/held-out-03-truth-3.png --api {api}"));
    if mesh.network().is_none() {
        narrator.say("a ticket for more nodes (`stormo node --join TICKET`):");
        narrator.say(&format!("{stormo} invite --data {} --api {api}", mesh.key_folder().display()));
    }
    narrator.gap();
    narrator.say("Ctrl-C ends all of them.");
}

/// What nodes are asked to have, where their file says so.
fn show_machines(narrator: &Narrator, mesh: &Mesh) {
    let asked = mesh.nodes().iter().map(|node| (node.label(), node.spec.asked()));
    let asked: Vec<(&str, Vec<String>)> = asked.filter(|(_, asked)| !asked.is_empty()).collect();
    if asked.is_empty() {
        return;
    }
    let is_emulated = mesh.network().is_some();
    narrator.title(if is_emulated {
        "machines"
    } else {
        "machines as asked for; here all of them have all there is"
    });
    let mut table = Table::new(&[("node", Align::Left), ("asked for", Align::Left)]);
    for (label, asked) in asked {
        table.row([label.to_owned(), asked.join(", ")]);
    }
    narrator.table(&table);
}

/// The emulated links that are not as all others, each pair of nodes once for both directions where
/// these are alike.
fn show_links(narrator: &Narrator, mesh: &Mesh) {
    if mesh.network().is_none() {
        return;
    }
    let labels: Vec<&str> = mesh.nodes().iter().map(Node::label).collect();
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (at, one) in labels.iter().enumerate() {
        for other in &labels[at + 1..] {
            let (Ok(there), Ok(back)) = (mesh.link(one, other), mesh.link(other, one)) else { continue };
            let mut add =
                |what: String, spec: &LinkSpec| alike.entry(spec.to_string()).or_default().push(what);
            if there == back {
                add(format!("{one} - {other}"), &there);
            } else {
                add(format!("{one} -> {other}"), &there);
                add(format!("{other} -> {one}"), &back);
            }
        }
    }
    narrator.title("links");
    for (spec, pairs) in alike {
        let shown = pairs[..pairs.len().min(PAIRS_SHOWN)].join(", ");
        let more = pairs.len().saturating_sub(PAIRS_SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        narrator.say(&format!("{spec}: {shown}{more}"));
    }
    narrator.say("Uplinks and downlinks of nodes and domains come on top.");
}

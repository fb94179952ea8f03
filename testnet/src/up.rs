//! `cargo mesh up`: a mesh that stays until Ctrl-C.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::process::class_name;
use stormo_testnet::topology::Topology;
use stormo_testnet::{binary, interrupt};

use crate::narrator::Narrator;
use crate::table::{Align, Table};

/// Between two looks at whether all nodes still run.
const LOOK: Duration = Duration::from_millis(500);
/// Until all know each other: some exchanges of a second each.
const KNOWN_MAX: Duration = Duration::from_secs(60);

/// Starts the mesh, says how to use it, and ends it on Ctrl-C.
pub(crate) fn run(file: &Path) -> Result<()> {
    let narrator = Narrator::new(false);
    let topology = Topology::load(file)?;
    narrator.say(&topology.about);
    narrator.say("Building the node; then each of its processes starts.");
    let binary = binary::build()?;
    let mut mesh = Mesh::start(&binary, &topology, &mut |log| eprint!("{log}"))?;
    mesh.wait_for_nodes(topology.nodes.len(), KNOWN_MAX)?;
    show(&narrator, &mesh, &binary);
    let mut gone = vec![false; mesh.nodes().len()];
    while !interrupt::within(LOOK) {
        for (node, was_gone) in mesh.nodes_mut().iter_mut().zip(&mut gone) {
            if let Some(status) = node.ended().filter(|_| !*was_gone) {
                *was_gone = true;
                narrator.say(&format!("{} has ended ({status}); its log ends:", node.label()));
                narrator.say(&node.log_end());
            }
        }
    }
    narrator.gap();
    narrator.say("Ending all nodes.");
    let bad = mesh.end();
    if bad.is_empty() {
        return Ok(());
    }
    let kept = mesh.end_and_keep_folder();
    let labels: Vec<&str> = bad.iter().map(|end| end.label.as_str()).collect();
    bail!("{} did not end by itself; logs are kept in {}", labels.join(", "), kept.display())
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
    let Some(first) = mesh.nodes().first() else { return };
    let stormo = binary.display();
    let api = &first.ready.api;
    narrator.title("to use it, at any of these addresses");
    narrator.say(&format!("{stormo} status --api {api}"));
    narrator.say(&format!("{stormo} deploy digits testnet/models/digits.onnx --replicas 2 --api {api}"));
    narrator.say(&format!("{stormo} infer digits testnet/models/digits/held-out-03-truth-3.png --api {api}"));
    narrator.say("a ticket for more nodes (`stormo node --join TICKET`):");
    narrator.say(&format!("{stormo} invite --data {} --api {api}", mesh.key_folder().display()));
    narrator.gap();
    narrator.say("Ctrl-C ends all of them.");
}

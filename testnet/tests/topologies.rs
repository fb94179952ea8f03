//! Every file under `topologies/` starts: its nodes get to know each other on the ground that it asks
//! for. As root; otherwise those that ask for links or limits are left out, and named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::ground::GroundKind;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial;

/// Of the links' chances.
const SEED: u64 = 23;
/// Fifty nodes on two cores take a while to start, and more to know each other.
const KNOWN_MAX: Duration = Duration::from_secs(240);

fn start_and_know(name: &str, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    start(name, |mesh| {
        mesh.wait_for_views(mesh.nodes().len(), KNOWN_MAX)?;
        test(mesh)
    })
}

fn start(name: &str, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let topology = Topology::load(Path::new(name))?;
    match GroundKind::for_topology(&topology, SEED) {
        Ok(ground) => trial::run_on(ground, &topology, |mesh| {
            for from in &topology.nodes {
                for to in
                    topology.nodes.iter().filter(|to| to.label != from.label && mesh.network().is_some())
                {
                    ensure!(mesh.link(&from.label, &to.label)? == topology.link(from, to));
                }
            }
            test(mesh)
        })
        .with_context(|| format!("topology {name}")),
        Err(why) => {
            trial::skipped(&format!("topology {name}: emulated links: {why}"));
            Ok(())
        }
    }
}

#[test]
fn every_small_topology_starts() -> Result<()> {
    let files = fs::read_dir(workspace_root().join("topologies"))?;
    let mut names: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    ensure!(names.len() >= 8, "the search for topologies went astray: {names:?}");
    for path in names {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a file has a name")?;
        // Tests of their own, below.
        if !["nat", "wide"].contains(&name) {
            start_and_know(name, |_| Ok(()))?;
        }
    }
    Ok(())
}

#[test]
fn nodes_behind_translations_meet_where_they_can() -> Result<()> {
    start_and_know("nat", |mesh| {
        let connected = |from: &str, to: &str| -> Result<bool> {
            let id = mesh.node(to).id();
            let own = mesh.node(from).client.node()?;
            Ok(own.links.iter().any(|link| link.peer == id))
        };
        stormo_testnet::wait::until("links to the server", trial::SOON, || {
            let all = ["strict-pc", "strict-tablet", "easy-pc"]
                .iter()
                .all(|node| connected(node, "server").unwrap_or(false));
            if all { Ok(()) } else { Err("not all".to_owned()) }
        })?;
        ensure!(!connected("strict-pc", "easy-pc")?, "nothing lets different homes dial each other");
        Ok(())
    })
}

#[test]
fn fifty_nodes_start() -> Result<()> {
    start("wide", |mesh| {
        for node in mesh.nodes() {
            ensure!(node.client.node()?.label == node.label(), "another node answers for {}", node.label());
        }
        Ok(())
    })
}

#[test]
#[ignore = "a minute and a half of two quiet cores; beside other work four did not do"]
fn fifty_nodes_know_each_other() -> Result<()> {
    start_and_know("wide", |_| Ok(()))
}

//! Tensors go from peer to peer: the node where a request entered moves only the input and the result.

use std::fs;

use anyhow::{Context, Result, ensure};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::traffic::{Moved, moved, settled, since};
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::{digits, wait};

#[test]
fn the_origin_moves_only_input_and_result() -> Result<()> {
    let nodes = [asker("origin"), edge("first"), edge("second"), edge("third")];
    trial::run(&nodes, |mesh| {
        let placement = mesh.folder().join("placement.toml");
        let blocks = block_count(mesh)?;
        fs::write(&placement, thirds(blocks))?;
        let placement = placement.to_string_lossy().into_owned();
        trial::deploy(mesh, "origin", "digits", &digits::model(), &["--placement", &placement])?;
        check(mesh)
    })
}

/// A first deployment tells into how many blocks the network is divided.
fn block_count(mesh: &Mesh) -> Result<usize> {
    trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "1"])?;
    let models = mesh.node("origin").client.models()?.models;
    Ok(models.first().context("it is listed")?.blocks.len())
}

fn thirds(blocks: usize) -> String {
    let place = |(node, first, end): (&str, usize, usize)| {
        format!("[[place]]\nnode = \"{node}\"\nblocks = [{first}, {end}]\n")
    };
    let (one, two) = (blocks / 3, 2 * blocks / 3);
    [("first", 0, one), ("second", one, two), ("third", two, blocks)].map(place).concat()
}

fn check(mesh: &Mesh) -> Result<()> {
    let client = &mesh.node("origin").client;
    let plan = trial::loaded_plan(client, "digits", "chain-3")?;
    let hosts: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
    ensure!(hosts == ["first", "second", "third"], "the stages are on {hosts:?}");
    let models = client.models()?.models;
    let model = models.first().context("it is listed")?;
    let images = digits::load()?;
    let image = images.first().context("there are images")?;
    let request = image.request(&model.inputs[0]).by_plan(plan.id);
    // The first one opens what the others use.
    client.infer("digits", &request)?;
    let labels = ["origin", "first", "second", "third"];
    let before = settled(mesh, &labels)?;
    client.infer("digits", &request)?;
    let edges: Vec<u64> = plan.edges.iter().map(|edge| edge.bytes).collect();
    ensure!(edges[0] == 64 * 4 && edges[3] == 10 * 4, "the plan's edges carry {edges:?}");
    let expected: Vec<Moved> = (0..4)
        .map(|at| {
            let id = |label: &str| mesh.node(label).id();
            let (from, to) = (labels[(at + 3) % 4], labels[(at + 1) % 4]);
            [(id(from), (0, edges[(at + 3) % 4])), (id(to), (edges[at], 0))].into()
        })
        .collect();
    wait::until("every hop to be counted, and nothing else", SOON, || {
        let now = moved(mesh, &labels).map_err(|error| error.to_string())?;
        let grown: Vec<Moved> = now.iter().zip(&before).map(|(now, before)| since(before, now)).collect();
        if grown == expected { Ok(()) } else { Err(format!("{grown:?}, not {expected:?}")) }
    })?;
    Ok(())
}

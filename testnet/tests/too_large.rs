//! A model whose weights no node may hold in memory, by the kernel's word: divided because it must be, spread over the
//! nodes, and answered as the undivided model answers. As root; otherwise said to be left out.

use std::fs;

use anyhow::{Context, Result, ensure};
use stormo_testnet::ground::{GroundKind, network};
use stormo_testnet::oip::InferRequest;
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;
use stormo_testnet::whole::Whole;

#[path = "onnx_files/onnx.rs"]
#[allow(dead_code, reason = "other tests write other files")]
mod onnx;

/// Of the links' chances; there are none.
const SEED: u64 = 1;
/// Products one after the other, each with a square matrix: 32 times 16.8 MB are 537 MB.
const LAYERS: usize = 32;
const WIDTH: u64 = 2048;
/// What the kernel lets a node have in all, and what it is told that partitions may take: while one loads, its weights
/// are there up to three times (as read, as given to ONNX Runtime, and as that packs them).
const MEMORY_BYTES: u64 = 448 << 20;
const BUDGET_BYTES: u64 = 96 << 20;
const NODES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The model, and an input for it.
fn made() -> (Vec<u8>, Vec<f32>) {
    // As if drawn from -1 to 1 (SplitMix64, Steele, Lea and Flood 2014): in anything more regular the answer vanishes.
    let unit = |index: u64| {
        let mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let matrix: Vec<u8> = (0..WIDTH * WIDTH).flat_map(|index| (unit(index) * 0.045).to_le_bytes()).collect();
    let mut contents = Vec::new();
    for layer in 0..LAYERS {
        // Equal weights would be stored once.
        let mut matrix = matrix.clone();
        matrix.rotate_left(layer * 4 * 4_099);
        contents.push(onnx::weight_of_bytes(&format!("w{layer}"), &[WIDTH, WIDTH], &matrix));
        let before = if layer == 0 { "x".to_owned() } else { format!("h{}", layer - 1) };
        let after = if layer + 1 == LAYERS { "y".to_owned() } else { format!("h{layer}") };
        contents.push(onnx::node("MatMul", &[&before, &format!("w{layer}")], &[&format!("m{layer}")]));
        contents.push(onnx::node("Tanh", &[&format!("m{layer}")], &[&after]));
    }
    let input = onnx::Declared { element: onnx::FLOAT, dims: &[Some(1), Some(WIDTH)] };
    (onnx::model_of(input, onnx::FLOAT, &contents), (0..WIDTH).map(unit).collect())
}

/// Takes a minute on two quiet cores: dividing, uploading and spreading half a gigabyte.
#[test]
#[ignore = "a minute and more; run it with `cargo test -p stormo-testnet --test too_large -- --ignored --nocapture`"]
fn what_fits_no_node_is_spread_and_answers_rightly() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("a model that fits no node: limits of memory need emulated machines: {why}"));
        return Ok(());
    }
    let (bytes, input) = made();
    ensure!(bytes.len() as u64 > MEMORY_BYTES, "the model would fit a node");
    let node = |label: &str| NodeSpec {
        memory_budget_bytes: BUDGET_BYTES,
        memory_bytes: Some(MEMORY_BYTES),
        ..edge(label)
    };
    let topology = Topology::plain("eight that are too small", NODES.map(node).to_vec());
    trial::run_on(GroundKind::Emulated { seed: SEED }, &topology, |mesh| {
        mesh.wait_for_nodes(NODES.len(), SOON)?;
        let file = mesh.folder().join("large.onnx");
        fs::write(&file, &bytes)?;
        drop(bytes);
        let deployed = trial::deploy(mesh, "a", "large", &file, &["--replicas", "1"])?;
        let mut hosts: Vec<&str> = deployed.hosts.iter().map(|host| host.label.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        ensure!(hosts.len() > 2, "{} MB on {hosts:?} alone", WIDTH * WIDTH * 4 * LAYERS as u64 / 1_000_000);
        let client = &mesh.node("h").client;
        let model = wait::until("the network to be known", SOON, || {
            let models = client.models().map_err(|error| error.to_string())?.models;
            models.into_iter().find(|model| model.name == "large").ok_or_else(|| "it is not".to_owned())
        })?;
        let request = InferRequest::new("x", &[1, WIDTH], input);
        let answers = (0..3).map(|_| client.infer("large", &request)).collect::<Result<Vec<_>, _>>()?;
        let expected = Whole::load(&file, &model.inputs, &model.outputs)?.answer(&request.inputs)?;
        let expected = &expected.first().context("it has an output")?.data;
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        ensure!(largest > 0.1, "an answer of nothing proves nothing: {largest}");
        for answer in &answers {
            let given = &answer.outputs.first().context("an output")?.data;
            let apart = given.iter().zip(expected).map(|(one, other)| (one - other).abs());
            let apart = apart.fold(0.0, f32::max);
            ensure!(given.len() == expected.len() && apart <= 1e-4 * largest, "{apart} apart of {largest}");
            ensure!(answer.parameters.nodes.split(',').count() > 2, "by {} alone", answer.parameters.nodes);
        }
        // Whoever had taken too much would have been killed.
        let running = mesh.nodes_mut().iter_mut().all(|node| node.ended().is_none());
        ensure!(running, "a node was killed");
        let most = mesh
            .nodes()
            .iter()
            .filter_map(|node| node.memory().ok().map(|used| used.own_pss_bytes + used.library_pss_bytes))
            .max();
        trial::told(&format!(
            "{} MB of weights on {}, the largest of which has {} MB in use and may have {} MB; answers in {:.0} ms",
            WIDTH * WIDTH * 4 * LAYERS as u64 / 1_000_000,
            hosts.join(", "),
            most.unwrap_or_default() / 1_000_000,
            MEMORY_BYTES / 1_000_000,
            answers[answers.len() - 1].parameters.latency_ms,
        ));
        Ok(())
    })
}

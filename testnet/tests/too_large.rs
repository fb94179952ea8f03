//! A model whose weights no node may hold in memory, by the kernel's word: divided because it must be, spread over the
//! nodes, and answered as the undivided model answers. As root; otherwise said to be left out.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{DeploymentView, ModelView};
use stormo_testnet::ground::{GroundKind, network};
use stormo_testnet::memory;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::InferRequest;
use stormo_testnet::onnx_files as onnx;
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;
use stormo_testnet::whole::Whole;

/// Of the links' chances; there are none.
const SEED: u64 = 1;
/// Products one after the other, each with a square matrix: 32 times 16.8 MB are 537 MB.
const LAYERS: usize = 32;
const WIDTH: u64 = 2048;
const LAYER_BYTES: u64 = WIDTH * WIDTH * 4;
/// What the kernel lets a node have in all. Nodes are told that partitions may take more than there is, and have to find
/// out by themselves what they can hold.
const MEMORY_BYTES: u64 = 256 << 20;
const WISHED_BYTES: u64 = 1 << 40;
/// What a node holds before it loads anything, generously: built without optimisation its own code is larger.
const PROCESS_BYTES: u64 = 96 << 20;
const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

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

/// What each host holds of the model, bytes by label.
fn hosted(deployed: &DeploymentView, model: &ModelView) -> BTreeMap<String, u64> {
    let mut hosted = BTreeMap::new();
    for host in &deployed.hosts {
        let blocks = &model.blocks[usize::from(host.blocks[0])..usize::from(host.blocks[1])];
        let bytes: u64 = blocks.iter().map(|block| block.weights_bytes).sum();
        *hosted.entry(host.label.clone()).or_default() += bytes;
    }
    hosted
}

/// While a part is loaded its weights are in memory once, in the form that ONNX Runtime makes for itself, beside one that
/// is mapped from its file at a time; and what building a session takes besides.
fn check_peaks(mesh: &Mesh, hosted: &BTreeMap<String, u64>) -> Result<()> {
    for (label, weights_bytes) in hosted {
        let peak_bytes = memory::peak_bytes(mesh.node(label).pid()).context("a node's peak")?;
        trial::told(&format!(
            "`{label}` hosts {} MB of weights, held {} MB at the most, and may have {} MB",
            weights_bytes / 1_000_000,
            peak_bytes / 1_000_000,
            MEMORY_BYTES / 1_000_000
        ));
        let most_bytes = PROCESS_BYTES + weights_bytes / 10 * 11 + LAYER_BYTES;
        ensure!(peak_bytes <= most_bytes, "`{label}` held {peak_bytes} bytes, more than {most_bytes}");
        ensure!(!mesh.was_out_of_memory(label), "`{label}` was killed");
    }
    Ok(())
}

#[test]
fn what_fits_no_node_is_spread_and_answers_rightly() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("a model that fits no node: limits of memory need emulated machines: {why}"));
        return Ok(());
    }
    let (bytes, input) = made();
    ensure!(bytes.len() as u64 > MEMORY_BYTES, "the model would fit a node");
    let node = |label: &str| NodeSpec {
        memory_budget_bytes: WISHED_BYTES,
        memory_bytes: Some(MEMORY_BYTES),
        ..edge(label)
    };
    let topology = Topology::plain("nodes that are too small", NODES.map(node).to_vec());
    trial::run_on(GroundKind::Emulated { seed: SEED }, &topology, |mesh| {
        mesh.wait_for_nodes(NODES.len(), SOON)?;
        // A node is in its control group a moment after it has begun, and tells what it found there.
        let client = &mesh.node("a").client;
        wait::until("all nodes to know what they may have", SOON, || {
            let nodes = client.nodes().map_err(|error| error.to_string())?;
            let budgets: Vec<u64> = nodes.iter().map(|node| node.memory_budget_bytes).collect();
            let known = budgets.len() == NODES.len() && budgets.iter().all(|bytes| *bytes <= MEMORY_BYTES);
            known.then_some(()).ok_or_else(|| format!("{budgets:?}"))
        })?;
        let file = mesh.folder().join("large.onnx");
        fs::write(&file, &bytes)?;
        drop(bytes);
        let deployed = trial::deploy(mesh, "a", "large", &file, &["--replicas", "1"])?;
        let client = &mesh.node("e").client;
        let model = wait::until("the network to be known", SOON, || {
            let models = client.models().map_err(|error| error.to_string())?.models;
            models.into_iter().find(|model| model.name == "large").ok_or_else(|| "it is not".to_owned())
        })?;
        let hosted = hosted(&deployed, &model);
        ensure!(hosted.values().sum::<u64>() >= LAYER_BYTES * LAYERS as u64, "not all of it: {hosted:?}");
        ensure!(hosted.len() > 2, "on {hosted:?} alone");
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
        check_peaks(mesh, &hosted)?;
        let last = answers.last().context("an answer")?;
        trial::told(&format!("answers in {:.0} ms", last.parameters.latency_ms));
        Ok(())
    })
}

//! A network that leaves its first axis open, divided over three processes: several items in one request.

use std::fs;
use std::sync::Barrier;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::arrays;
use stormo_testnet::commands::Progress;
use stormo_testnet::oip::{Difference, InferRequest};
use stormo_testnet::onnx_files::{Declared, FLOAT, integers, model_of, node, weight};
use stormo_testnet::reference::Reference;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, edge};

/// Numbers of one item.
const WIDTH: u64 = 3;
/// A sum over the rows of several requests may be added up in another order, relative to the largest value.
const TOGETHER_DIFFERENCE_MAX: f64 = 1e-5;

/// Layers with something to cut between, flattened and unfolded by the batch in the middle.
fn layers(width: Option<u64>) -> Vec<u8> {
    let weights = |name: &str, inputs: u64, outputs: u64, seed: f32| {
        let values: Vec<f32> =
            (0..inputs * outputs).map(|index| ((index as f32 + seed) * 0.7).sin()).collect();
        weight(name, &[inputs, outputs], &values)
    };
    model_of(
        Declared { element: FLOAT, dims: &[None, width] },
        FLOAT,
        &[
            weights("a", WIDTH, 32, 1.0),
            weights("b", 16, 16, 2.0),
            weights("c", 32, 5, 3.0),
            integers("rows", &[-1, 16]),
            integers("items", &[-1, 32]),
            node("MatMul", &["x", "a"], &["t1"]),
            node("Tanh", &["t1"], &["t2"]),
            // Two rows for each item from here to there.
            node("Reshape", &["t2", "rows"], &["t3"]),
            node("MatMul", &["t3", "b"], &["t4"]),
            node("Tanh", &["t4"], &["t5"]),
            node("Reshape", &["t5", "items"], &["t6"]),
            node("MatMul", &["t6", "c"], &["t7"]),
            node("Softmax", &["t7"], &["y"]),
        ],
    )
}

fn request(items: u64) -> InferRequest {
    request_of(items, 0)
}

/// Other numbers for each seed.
fn request_of(items: u64, seed: u64) -> InferRequest {
    let values = (0..items * WIDTH).map(|index| (index as f32 + seed as f32 * 0.1).cos()).collect();
    InferRequest::new("x", &[items, WIDTH], values)
}

#[test]
fn several_items_through_three_processes_are_what_one_session_gives() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        let path = mesh.folder().join("layers.onnx");
        fs::write(&path, layers(Some(WIDTH)))?;
        let options = ["--parts", "3", "--replicas", "1", "--ort-level", "off"];
        trial::deploy(mesh, "one", "layers", &path, &options)?;
        let client = &mesh.node("one").client;
        let plan = trial::loaded_plan(client, "layers", "chain-3")?;
        let reference = Reference::of("layers", &path, OrtLevel::Off)?;
        for items in [1, 4, 7] {
            let answer = client.infer("layers", &request(items).by_plan(plan.id))?;
            let whole = reference.whole(&request(items).inputs)?;
            ensure!(answer.outputs[0].shape == [items, 5], "{:?}", answer.outputs[0].shape);
            let apart = Difference::between(&whole, &answer.outputs).context("other names or shapes")?;
            ensure!(apart.is_identical, "{items} items: {apart:?}");
        }
        // JSON that is too long to be read by a task that has life to show.
        let mut long = serde_json::to_vec(&json!({ "inputs": request(7).inputs }))?;
        long.resize(100_000, b' ');
        let answer = client.post_raw("/v2/models/layers/infer", "application/json", &long)?;
        ensure!(answer.status == 200, "{} {}", answer.status, String::from_utf8_lossy(&answer.body));
        let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
        ensure!(answer["outputs"][0]["shape"] == json!([7, 5]), "{answer}");
        let items_max = reference.manifest().batch.as_ref().context("the axis is kept")?.items_max;
        let too_many = request(items_max + 1);
        let body = serde_json::to_vec(&json!({ "inputs": too_many.inputs }))?;
        let answer = client.post_raw("/v2/models/layers/infer", "application/json", &body)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 400 && said.contains("times the first axis"), "{} {said}", answer.status);
        let described = client.get_raw("/v2/models/layers")?;
        let described: serde_json::Value = serde_json::from_slice(&described.body)?;
        ensure!(described["inputs"][0]["shape"] == json!([-1, WIDTH]), "{described}");
        Ok(())
    })
}

/// Requests of one to four items, so many at once at a node whose owner lets them run together.
const AT_ONCE: u64 = 24;

#[test]
fn requests_of_many_callers_that_run_together_get_what_is_theirs() -> Result<()> {
    trial::run(&[edge("stores")], |mesh| {
        trial::add_with(mesh, &edge("joins"), &["--batch-within", "20"])?;
        mesh.wait_for_nodes(2, SOON)?;
        let path = mesh.folder().join("layers.onnx");
        fs::write(&path, layers(Some(WIDTH)))?;
        trial::deploy(
            mesh,
            "joins",
            "layers",
            &path,
            &["--parts", "1", "--replicas", "1", "--ort-level", "off"],
        )?;
        let client = &mesh.node("joins").client;
        let plan = trial::loaded_plan(client, "layers", "local")?;
        let reference = Reference::of("layers", &path, OrtLevel::Off)?;
        let asked: Vec<InferRequest> =
            (0..AT_ONCE).map(|number| request_of(1 + number % 4, number)).collect();
        let start = Barrier::new(asked.len());
        let ask = |request: &InferRequest| {
            start.wait();
            client.infer("layers", &request.clone().by_plan(plan.id))
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = asked.iter().map(|request| scope.spawn(|| ask(request))).collect();
            asking.into_iter().map(|one| one.join()).collect()
        });
        for (request, answer) in asked.iter().zip(answers) {
            let answer = answer.map_err(|_| anyhow!("a caller panicked"))??;
            let whole = reference.whole(&request.inputs)?;
            let apart = Difference::between(&whole, &answer.outputs).context("other names or shapes")?;
            ensure!(apart.relative <= TOGETHER_DIFFERENCE_MAX, "{:?}: {apart:?}", request.inputs[0].shape);
        }
        Ok(())
    })
}

#[test]
fn a_sample_tells_the_axes_that_nothing_else_does() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let folder = mesh.folder();
        let (path, samples) = (folder.join("layers.onnx"), folder.join("samples"));
        fs::write(&path, layers(None))?;
        fs::create_dir_all(&samples)?;
        let sample = request(1).inputs.swap_remove(0);
        arrays::write_npy(&samples.join("sample.npy"), &sample)?;
        let client = &mesh.node("one").client;
        let samples = samples.display().to_string();
        let deploy = |options: &[&str]| {
            let path = path.display().to_string();
            let words = [&["deploy", "layers", &path, "--api", client.base()], options].concat();
            mesh.stormo().run(&trial::arguments(&words), Progress::Kept, COMMAND_MAX)
        };
        let refusals: [(&[&str], &str); 2] = [
            (&[], "or give --samples DIR"),
            (&["--sample-shape", "x=1x4", "--samples", &samples], "leave that option out"),
        ];
        for (options, says) in refusals {
            let refused = deploy(options)?;
            let stderr = refused.stderr;
            ensure!(refused.status.code() == Some(1) && stderr.contains(says), "{stderr}");
        }
        let deployed = deploy(&["--samples", &samples, "--ort-level", "off"])?;
        ensure!(deployed.status.success(), "{}", deployed.stderr);
        fs::write(&path, layers(Some(WIDTH)))?;
        let reference = Reference::of("layers", &path, OrtLevel::Off)?;
        let answer = client.infer("layers", &request(2))?;
        let apart = Difference::between(&reference.whole(&request(2).inputs)?, &answer.outputs);
        ensure!(apart == Some(Difference::NONE), "{apart:?}");
        Ok(())
    })
}

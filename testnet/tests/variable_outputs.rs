//! Networks that give as many rows as they find, whole and divided over several processes: nothing, few and
//! much, from the last stage and from one before it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stormo_protocol::model::OrtLevel;
use stormo_testnet::arrays;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, InferRequest};
use stormo_testnet::onnx_files::{Declared, FLOAT, cast, integers, model_giving, node, weight};
use stormo_testnet::reference::Reference;
use stormo_testnet::trial::{self, edge};

/// Numbers of one item of the first network.
const WIDTH: u64 = 8;
/// Boxes that the detector chooses from.
const BOXES: u64 = 6;

/// A matrix that changes nothing.
fn identity(name: &str, size: u64) -> Vec<u8> {
    let values: Vec<f32> = (0..size * size).map(|index| f32::from(index % (size + 1) == 0)).collect();
    weight(name, &[size, size], &values)
}

/// Gives the places of all positive numbers early on, and late those of its results that are positive.
fn finder() -> Vec<u8> {
    let weights = |name: &str, seed: f32| {
        let values: Vec<f32> = (0..WIDTH * WIDTH).map(|index| ((index as f32 + seed) * 0.7).sin()).collect();
        weight(name, &[WIDTH, WIDTH], &values)
    };
    model_giving(
        Declared { element: FLOAT, dims: &[None, Some(WIDTH)] },
        &[("early", FLOAT), ("y", FLOAT), ("late", FLOAT)],
        &[
            identity("a", WIDTH),
            weights("b", 1.0),
            weights("c", 2.0),
            node("MatMul", &["x", "a"], &["t1"]),
            node("Relu", &["t1"], &["t2"]),
            node("NonZero", &["t2"], &["places"]),
            cast("places", "early", FLOAT),
            node("MatMul", &["t2", "b"], &["t3"]),
            node("Tanh", &["t3"], &["t4"]),
            node("MatMul", &["t4", "c"], &["t5"]),
            node("Relu", &["t5"], &["t6"]),
            node("Tanh", &["t6"], &["y"]),
            node("NonZero", &["y"], &["columns"]),
            node("Transpose", &["columns"], &["rows"]),
            node("GatherND", &["y", "rows"], &["late"]),
        ],
    )
}

/// Boxes and scores in, those that suppression leaves out.
fn detector() -> Vec<u8> {
    model_giving(
        Declared { element: FLOAT, dims: &[Some(1), Some(BOXES), Some(5)] },
        &[("selected", FLOAT), ("kept", FLOAT)],
        &[
            identity("a", 5),
            identity("b", 5),
            integers("zero", &[0]),
            integers("two", &[2]),
            integers("three", &[3]),
            integers("four", &[4]),
            integers("five", &[5]),
            integers("one", &[1]),
            integers("by class", &[1, 1, BOXES as i64]),
            integers("by row", &[BOXES as i64, 4]),
            integers("most", &[BOXES as i64]),
            weight("overlap", &[1], &[0.5]),
            weight("least score", &[1], &[0.25]),
            node("MatMul", &["x", "a"], &["t1"]),
            node("Relu", &["t1"], &["t2"]),
            node("MatMul", &["t2", "b"], &["t3"]),
            node("Relu", &["t3"], &["t4"]),
            node("Slice", &["t4", "zero", "four", "two"], &["boxes"]),
            node("Slice", &["t4", "four", "five", "two"], &["column"]),
            node("Reshape", &["column", "by class"], &["scores"]),
            node("NonMaxSuppression", &["boxes", "scores", "most", "overlap", "least score"], &["found"]),
            node("Slice", &["found", "two", "three", "one"], &["which"]),
            node("Reshape", &["boxes", "by row"], &["rows"]),
            node("GatherND", &["rows", "which"], &["kept"]),
            cast("found", "selected", FLOAT),
        ],
    )
}

/// An item for each list of the numbers above zero.
fn numbers(items: &[&[usize]]) -> InferRequest {
    let number = |item: &[usize], index| if item.contains(&index) { 0.5 + index as f32 } else { -1.0 };
    let item = |item: &&[usize]| (0..WIDTH as usize).map(|index| number(item, index)).collect::<Vec<_>>();
    InferRequest::new("x", &[items.len() as u64, WIDTH], items.iter().flat_map(item).collect())
}

/// Boxes of these scores beside each other, the second upon the first.
fn boxes(scores: [f32; BOXES as usize]) -> InferRequest {
    let row = |(index, score): (usize, f32)| {
        let corner = if index == 1 { 0.5 } else { 10.0 * index as f32 };
        [corner, corner, corner + 8.0, corner + 8.0, score]
    };
    InferRequest::new("x", &[1, BOXES, 5], scores.into_iter().enumerate().flat_map(row).collect())
}

/// Deploys a network in so many parts, and compares its answers with those of one session; asked each of
/// these, the first output has that shape. Gives the model's description.
fn check(
    mesh: &Mesh,
    network: (&str, &Path),
    parts: usize,
    options: &[&str],
    asked: &[(InferRequest, [u64; 2])],
) -> Result<Value> {
    let (name, path) = network;
    let name = format!("{name}-{parts}");
    let reference = Reference::of(&name, path, OrtLevel::Off)?;
    let parts_text = parts.to_string();
    let options = [&["--parts", &parts_text, "--replicas", "1", "--ort-level", "off"], options].concat();
    trial::deploy(mesh, "one", &name, path, &options)?;
    let client = &mesh.node("one").client;
    let plan = match parts {
        1 => None,
        parts => Some(trial::loaded_plan(client, &name, &format!("chain-{parts}"))?.id),
    };
    for (request, found) in asked {
        let request = request.clone();
        let whole = reference.whole(&request.inputs)?;
        let answer = client.infer(&name, &plan.map_or(request.clone(), |plan| request.by_plan(plan)))?;
        let apart = Difference::between(&whole, &answer.outputs).context("other names or shapes")?;
        ensure!(apart.is_identical, "{name}: {apart:?}");
        let shape = &answer.outputs[0].shape;
        ensure!(shape == found, "{name}: {shape:?}, not {found:?}");
    }
    let described = client.get_raw(&format!("/v2/models/{name}"))?;
    Ok(serde_json::from_slice(&described.body)?)
}

#[test]
fn what_is_found_early_and_late_comes_in_its_own_size() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        let path = mesh.folder().join("finder.onnx");
        fs::write(&path, finder())?;
        let reference = Reference::of("finder", &path, OrtLevel::Off)?;
        let manifest = reference.manifest();
        let leaves_early = manifest.cuts.iter().flat_map(|cut| &cut.settled);
        ensure!(leaves_early.into_iter().any(|tensor| manifest.is_variable(*tensor)), "{:?}", manifest.cuts);
        let all: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7];
        let asked = [
            (numbers(&[&[]]), [2, 0]),
            (numbers(&[&[1, 6]]), [2, 2]),
            (numbers(&[all]), [2, 8]),
            (numbers(&[&[3], &[], all]), [2, 9]),
        ];
        for parts in [1, 2, 3] {
            let described = check(mesh, ("finder", &path), parts, &[], &asked)?;
            let shapes = described["outputs"].as_array().context("outputs")?.iter();
            let shapes: Vec<&Value> = shapes.map(|output| &output["shape"]).collect();
            ensure!(shapes == [&json!([-1, -1]), &json!([-1, WIDTH]), &json!([-1])], "{described}");
        }
        Ok(())
    })
}

#[test]
fn a_detector_that_suppresses_by_itself_finds_nothing_few_and_all() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        let folder = mesh.folder();
        let (path, samples) = (folder.join("detector.onnx"), folder.join("samples"));
        fs::write(&path, detector())?;
        fs::create_dir_all(&samples)?;
        // What everything is measured on has nothing to find.
        let nothing = boxes([0.0; BOXES as usize]);
        arrays::write_npy(&samples.join("nothing.npy"), &nothing.inputs[0])?;
        let samples = samples.display().to_string();
        let asked = [
            (nothing, [0, 3]),
            (boxes([0.9, 0.8, 0.0, 0.0, 0.0, 0.0]), [1, 3]),
            (boxes([0.3, 0.0, 0.4, 0.5, 0.6, 0.7]), [5, 3]),
        ];
        for (parts, options) in [(1, &[][..]), (2, &["--samples", &samples]), (3, &[])] {
            check(mesh, ("detector", &path), parts, options, &asked)?;
        }
        Ok(())
    })
}

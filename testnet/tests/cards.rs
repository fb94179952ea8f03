//! Encoded images through models with a card: decoded and read on whichever node the plan says, with
//! the same answer everywhere, and the same as the tensors give.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stormo::serve::json::PlansView;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::digits;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, edge};

fn card() -> PathBuf {
    workspace_root().join("testnet/models/digits.toml")
}

#[test]
fn images_are_decoded_and_read_wherever_the_plan_says() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        let card = card().to_string_lossy().into_owned();
        let options = ["--card", &card, "--parts", "3"];
        trial::deploy(mesh, "one", "digits", &digits::model(), &options)?;
        trial::loaded_plan(&mesh.node("one").client, "digits", "chain-3")?;
        every_image_by_every_plan(mesh)?;
        bad_images(mesh)
    })
}

fn every_image_by_every_plan(mesh: &Mesh) -> Result<()> {
    let client = &mesh.node("one").client;
    let plans: PlansView = client.get("/v1/plans?model=digits&all=true")?;
    let input = trial::digits_input(client)?;
    let images = digits::load()?;
    for (index, image) in images.iter().enumerate() {
        let plan = &plans.plans[index % plans.plans.len()];
        let by_tensor = client.infer("digits", &image.request(&input))?;
        let expected = digits::read(&by_tensor.outputs).context("no digit in the answer")?;
        let meaning = ask(mesh, &digits::folder().join(&image.name), &["--plan-id", &plan.id.to_string()])?;
        let first = &meaning["found"][0];
        ensure!(meaning["kind"] == "classes", "{meaning}");
        ensure!(first["index"] == expected, "{} by {}: {first}, not {expected}", image.name, plan.kind);
        let score = first["score"].as_f64().context("a score")?;
        let largest = by_tensor.outputs[0].data.iter().copied().fold(0.0, f32::max);
        ensure!((score - f64::from(largest)).abs() < 1e-6, "{}: {score}, not {largest}", image.name);
    }
    let kinds: Vec<&str> = plans.plans.iter().map(|plan| plan.kind.as_str()).collect();
    ensure!(["local", "remote", "chain-3"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    Ok(())
}

/// Asks at node one with an image, for what it means.
fn ask(mesh: &Mesh, image: &Path, options: &[&str]) -> Result<Value> {
    let words = [words(mesh, image), arguments(options)].concat();
    let answer: Value = mesh.stormo().json(&words, Progress::Kept, COMMAND_MAX)?;
    let meaning = &answer["outputs"][0];
    ensure!(meaning["name"] == "meaning" && meaning["datatype"] == "BYTES", "{answer}");
    Ok(serde_json::from_str(meaning["data"][0].as_str().context("the meaning is a text")?)?)
}

fn words(mesh: &Mesh, image: &Path) -> Vec<OsString> {
    let asked = arguments(&["infer", "digits", "--api", mesh.node("one").client.base()]);
    [asked, vec![image.into()]].concat()
}

fn bad_images(mesh: &Mesh) -> Result<()> {
    let stormo: &Stormo = mesh.stormo();
    let good = std::fs::read(digits::folder().join(&digits::load()?[0].name))?;
    let cases: [(&str, &[u8]); 3] =
        [("empty.png", b""), ("text.jpg", b"no image at all"), ("cut.png", &good[..good.len() / 2])];
    for (name, bytes) in cases {
        let path = mesh.folder().join(name);
        std::fs::write(&path, bytes)?;
        let ran = stormo.run(&words(mesh, &path), Progress::Kept, COMMAND_MAX)?;
        let told = ran.stderr.contains("the image cannot be read");
        ensure!(ran.status.code() == Some(1) && told, "{name}: {} {}", ran.status, ran.stderr);
    }
    let drawn = mesh.folder().join("drawn.png").to_string_lossy().into_owned();
    let image = digits::folder().join(&digits::load()?[0].name);
    let ran = stormo.run(
        &[words(mesh, &image), arguments(&["--draw", &drawn])].concat(),
        Progress::Kept,
        COMMAND_MAX,
    )?;
    ensure!(ran.stderr.contains("reads `classes`"), "{}", ran.stderr);
    let other = arguments(&["plan", "digits", "--tensors", "--api", mesh.node("one").client.base()]);
    let plans: PlansView = stormo.json(&other, Progress::Kept, COMMAND_MAX)?;
    let id = plans.plans.first().context("a plan for tensors")?.id.to_string();
    let by_other = [words(mesh, &image), arguments(&["--plan-id", &id])].concat();
    let ran = stormo.run(&by_other, Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.stderr.contains("is not for this kind of input"), "{}", ran.stderr);
    trial::check_reads(&mesh.node("one").client)
}

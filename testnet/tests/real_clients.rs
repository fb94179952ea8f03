//! Programs written for other servers of the Open Inference Protocol work unchanged.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stormo::serve::json::PlanView;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::onnx_files::{Declared, model_of, node};
use stormo_testnet::trial::{self, arguments, asker, edge};
use stormo_testnet::{digits, surroundings};

/// ONNX's number of FP16.
const HALF: u64 = 10;

#[test]
fn tritonclient_over_http() -> Result<()> {
    let Some(python) = python_with("http") else { return Ok(()) };
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        deployed_digits(mesh)?;
        let client = &mesh.node("one").client;
        let address = client.base().trim_start_matches("http://");
        run(&python, "triton.py", &[address.into(), images(mesh)?.into()])?;
        trial::check_reads(client)
    })
}

#[test]
fn tritonclient_over_grpc() -> Result<()> {
    let Some(python) = python_with("grpc") else { return Ok(()) };
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        let plan = deployed_digits(mesh)?.id.to_string();
        let shape = [Some(1), Some(4)];
        let half = Declared { element: HALF, dims: &shape };
        let file = mesh.folder().join("half.onnx");
        fs::write(&file, model_of(half, HALF, &[node("Identity", &["x"], &["y"])]))?;
        trial::deploy(mesh, "one", "half", &file, &[])?;
        let token = mesh.folder().join("token");
        fs::write(&token, "a secret")?;
        let options = ["--grpc", "127.0.0.1:0", "--api-token", &token.to_string_lossy()];
        trial::add_with(mesh, &edge("guarded"), &options)?;
        let grpc = |label| mesh.node(label).ready.grpc.clone().context("it serves gRPC");
        let client = &mesh.node("one").client;
        let http = client.base().trim_start_matches("http://");
        let mut words = arguments(&[&grpc("one")?, http, &plan]);
        words.push(images(mesh)?.into());
        words.extend(arguments(&[&grpc("guarded")?, "a secret"]));
        run(&python, "triton_grpc.py", &words)?;
        trial::check_reads(client)
    })
}

fn python_with(front: &str) -> Option<OsString> {
    let python = surroundings::python_with(&format!("tritonclient.{front}, tritonclient.http"));
    if python.is_none() {
        trial::skipped(&format!(
            "no Python with tritonclient. `pip install 'tritonclient[http,grpc]'`, or set {} to the \
             Python of an environment that has it.",
            surroundings::PYTHON
        ));
    }
    python
}

fn deployed_digits(mesh: &Mesh) -> Result<PlanView> {
    trial::deploy(mesh, "one", "digits", &digits::model(), &["--parts", "2", "--replicas", "1"])?;
    trial::loaded_plan(&mesh.node("one").client, "digits", "chain-2")
}

/// A file of images and what they show, as the clients read it.
fn images(mesh: &Mesh) -> Result<PathBuf> {
    let images = digits::load()?;
    let images: Vec<_> =
        images.iter().map(|image| json!({ "pixels": image.pixels, "truth": image.truth })).collect();
    let file = mesh.folder().join("images.json");
    fs::write(&file, serde_json::to_vec(&images)?)?;
    Ok(file)
}

fn run(python: &OsString, script: &str, words: &[OsString]) -> Result<()> {
    let mut command = Command::new(python);
    command.arg(workspace_root().join("testnet/tests/clients").join(script)).args(words);
    let ran = command.output().with_context(|| format!("{}", python.display()))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "the client ended with {}: {said}", ran.status);
    Ok(())
}

//! Programs written for other servers of the Open Inference Protocol work unchanged.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::trial::{self, asker, edge};
use stormo_testnet::{digits, surroundings};

#[test]
fn tritonclient_over_http() -> Result<()> {
    let Some(python) = surroundings::python_with("tritonclient.http") else {
        trial::skipped(&format!(
            "no Python with tritonclient. `pip install 'tritonclient[http]'`, or set {} to the \
             Python of an environment that has it.",
            surroundings::PYTHON
        ));
        return Ok(());
    };
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--parts", "2", "--replicas", "1"])?;
        let client = &mesh.node("one").client;
        trial::loaded_plan(client, "digits", "chain-2")?;
        let images = digits::load()?;
        let images: Vec<_> =
            images.iter().map(|image| json!({ "pixels": image.pixels, "truth": image.truth })).collect();
        let file = mesh.folder().join("images.json");
        fs::write(&file, serde_json::to_vec(&images)?)?;
        let script = workspace_root().join("testnet/tests/clients/triton.py");
        let mut command = Command::new(&python);
        command.arg(script).arg(client.base().trim_start_matches("http://")).arg(file);
        let ran = command.output().with_context(|| format!("{}", python.display()))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "the client ended with {}: {said}", ran.status);
        trial::check_reads(client)
    })
}

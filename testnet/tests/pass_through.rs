//! A model that gives its input back: its stage has nothing to compute, and no session.

use std::fs;

use anyhow::{Result, ensure};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::oip::InferRequest;
use stormo_testnet::trial::{self, edge};

#[test]
fn what_goes_there_comes_back() -> Result<()> {
    trial::run(&[edge("origin"), edge("stage")], |mesh| {
        let placement = mesh.folder().join("placement.toml");
        fs::write(&placement, "[[place]]\nnode = \"stage\"\nblocks = [0, 1]\n")?;
        let model = workspace_root().join("testnet/models/pass.onnx");
        let options = ["--sample-shape", "x=1x4", "--placement", &placement.to_string_lossy()];
        trial::deploy(mesh, "origin", "pass", &model, &options)?;
        let (origin, stage) = (mesh.node("origin"), mesh.node("stage"));
        let plan = trial::loaded_plan(&origin.client, "pass", "remote")?;
        let numbers = vec![1.0, -2.0, 0.5, 4.0];
        let request = InferRequest::new("x", &[1, 4], numbers.clone()).by_plan(plan.id);
        let answer = origin.client.infer("pass", &request)?;
        ensure!(answer.outputs.len() == 1 && answer.outputs[0].data == numbers, "{:?}", answer.outputs);
        ensure!(answer.parameters.nodes == stage.id().to_string(), "{:?}", answer.parameters.nodes);
        Ok(())
    })
}

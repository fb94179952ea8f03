//! Values that a model does not take: refused once, as the caller's, wherever the model runs.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stormo_testnet::client::Client;
use stormo_testnet::onnx_files::{Declared, FLOAT, STRING, cast, model, model_of, node, weight};
use stormo_testnet::trial::{self, asker, edge};

/// The number that stands at a place of three.
fn looks_up() -> Vec<u8> {
    let table = weight("table", &[3], &[10.0, 20.0, 30.0]);
    model(&[table, cast("x", "places", 7), node("Gather", &["table", "places"], &["y"])])
}

/// A number from a text.
fn reads() -> Vec<u8> {
    model_of(
        Declared { element: STRING, dims: &[Some(1), Some(3)] },
        FLOAT,
        &[cast("x", "number", FLOAT), node("Relu", &["number"], &["y"])],
    )
}

fn asked(client: &Client, name: &str, datatype: &str, data: &Value) -> Result<(u16, Value)> {
    let input = json!({ "name": "x", "shape": [1, 3], "datatype": datatype, "data": data });
    let body = serde_json::to_vec(&json!({ "inputs": [input] }))?;
    let answer = client.post_raw(&format!("/v2/models/{name}/infer"), "application/json", &body)?;
    Ok((answer.status, serde_json::from_slice(&answer.body)?))
}

#[test]
fn values_that_a_model_does_not_take_are_refused_at_once_with_the_reason() -> Result<()> {
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        let all = [
            ("lookup", looks_up(), "FP32", json!([0, 1, 2]), json!([0, 1, 7]), json!([10.0, 20.0, 30.0])),
            (
                "reader",
                reads(),
                "BYTES",
                json!(["1", "2", "3"]),
                json!(["1", "2", "x"]),
                json!([1.0, 2.0, 3.0]),
            ),
        ];
        let client = &mesh.node("one").client;
        for (name, file, datatype, good, bad, expected) in &all {
            let path = mesh.folder().join(format!("{name}.onnx"));
            fs::write(&path, file)?;
            trial::deploy(mesh, "one", name, &path, &["--replicas", "2"])?;
            for _ in 0..3 {
                let (status, said) = asked(client, name, datatype, bad)?;
                let text = said["error"].as_str().unwrap_or_default();
                ensure!(status == 400, "{name}: {status}, {said}");
                ensure!(text.contains("does not take these values"), "{name}: {text}");
                ensure!(!text.contains("tried"), "{name}: {text}");
            }
            // Whoever was asked for them serves on.
            let (status, said) = asked(client, name, datatype, good)?;
            ensure!(status == 200 && said["outputs"][0]["data"] == *expected, "{name}: {status}, {said}");
        }
        let said: String = mesh.nodes().iter().map(|node| node.logged()).collect();
        ensure!(said.contains("the model does not take these values"), "no node's log says why:\n{said}");
        Ok(())
    })
}

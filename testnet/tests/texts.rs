//! A model of texts, divided over two processes: asked in JSON, in bytes and by the command, with texts
//! crossing between.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stormo::serve::json::PlanView;
use stormo_protocol::limits::TEXTS_MAX;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::client::{Client, RawAnswer};
use stormo_testnet::commands::Progress;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::onnx_files::{Declared, STRING, model_of, node, words};
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, asker, edge};
use stormo_testnet::{raw_http, surroundings};

const INFER: &str = "/v2/models/greet/infer";

/// `hello, NAME!`, and `nobody` where it greets the world; item by item.
fn greeter() -> Vec<u8> {
    model_of(
        Declared { element: STRING, dims: &[None, Some(2)] },
        STRING,
        &[
            words("hello", &["hello, "]),
            words("end", &["!"]),
            words("the world", &["hello, world!"]),
            words("nobody", &["nobody"]),
            node("StringConcat", &["hello", "x"], &["begun"]),
            node("StringConcat", &["begun", "end"], &["greeted"]),
            node("Equal", &["greeted", "the world"], &["is world"]),
            node("Where", &["is world", "nobody", "greeted"], &["y"]),
        ],
    )
}

#[test]
fn texts_through_two_processes_as_json_and_as_bytes() -> Result<()> {
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        let plan = deployed_in_two(mesh)?;
        let client = &mesh.node("one").client;
        let models = client.models()?.models;
        let model = models.first().context("the model is known")?;
        let cut = &model.cuts[usize::from(plan.stages[1].blocks[0])];
        ensure!(cut.tensors.iter().any(|name| name == "begun" || name == "greeted"), "{cut:?}");
        let described = client.get_raw("/v2/models/greet")?;
        let described: Value = serde_json::from_slice(&described.body)?;
        let expected = json!([{ "name": "x", "datatype": "BYTES", "shape": [-1, 2] }]);
        ensure!(described["inputs"] == expected, "{described}");
        for names in [&["world", "Ada"][..], &["", "世界 \"\\\n", "é", "world"]] {
            as_json(client, names)?;
            as_bytes(client, names)?;
        }
        wrong_texts(client)?;
        as_lines(mesh)?;
        as_json(client, &["world", "Ada"])
    })
}

#[test]
fn texts_of_tritonclient() -> Result<()> {
    let Some(python) = surroundings::python_with("tritonclient.http, tritonclient.grpc") else {
        trial::skipped(&format!(
            "no Python with tritonclient. `pip install 'tritonclient[http,grpc]'`, or set {} to the Python of an \
             environment that has it.",
            surroundings::PYTHON
        ));
        return Ok(());
    };
    trial::run(&[asker("one"), edge("two"), edge("three")], |mesh| {
        deployed_in_two(mesh)?;
        let script = workspace_root().join("testnet/tests/clients/triton_texts.py");
        let one = mesh.node("one");
        let grpc = one.ready.grpc.as_deref().context("it serves gRPC")?;
        for (front, address) in [("http", one.client.base().trim_start_matches("http://")), ("grpc", grpc)] {
            let ran = Command::new(&python).arg(&script).args([front, address]).output()?;
            let said = String::from_utf8_lossy(&ran.stderr);
            ensure!(ran.status.success(), "over {front} the client ended with {}: {said}", ran.status);
        }
        Ok(())
    })
}

fn deployed_in_two(mesh: &Mesh) -> Result<PlanView> {
    let file = mesh.folder().join("greet.onnx");
    fs::write(&file, greeter())?;
    trial::deploy(mesh, "one", "greet", &file, &["--parts", "2", "--replicas", "1"])?;
    trial::loaded_plan(&mesh.node("one").client, "greet", "chain-2")
}

fn greeted(names: &[&str]) -> Vec<String> {
    let greet = |name: &&str| if *name == "world" { "nobody".to_owned() } else { format!("hello, {name}!") };
    names.iter().map(greet).collect()
}

fn shape(names: &[&str]) -> [usize; 2] {
    [names.len() / 2, 2]
}

fn as_json(client: &Client, names: &[&str]) -> Result<()> {
    let input = json!({ "name": "x", "shape": shape(names), "datatype": "BYTES", "data": names });
    let body = serde_json::to_vec(&json!({ "inputs": [input] }))?;
    let answer = client.post_raw(INFER, "application/json", &body)?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let expected = json!({ "name": "y", "shape": shape(names), "datatype": "BYTES", "data": greeted(names) });
    ensure!(answer["outputs"] == json!([expected]), "{answer}");
    let nodes = answer["parameters"]["nodes"].as_str().context("the nodes that ran it")?;
    ensure!(nodes.split(',').count() == 2, "it was run by {nodes}");
    Ok(())
}

/// Each text as its length and its bytes.
fn laid_out<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let with_length = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    texts.into_iter().flat_map(with_length).collect()
}

fn as_bytes(client: &Client, names: &[&str]) -> Result<()> {
    let answer = send_bytes(client, &shape(names), &laid_out(names.iter().copied()))?;
    ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
    let texts = greeted(names);
    let expected = laid_out(texts.iter().map(String::as_str));
    let head = answer.body.strip_suffix(expected.as_slice()).context("the texts end the answer")?;
    let head: Value = serde_json::from_slice(head)?;
    let output = &head["outputs"][0];
    ensure!(output["datatype"] == "BYTES" && output["shape"] == json!(shape(names)), "{head}");
    ensure!(output["parameters"]["binary_data_size"] == expected.len() && output["data"].is_null(), "{head}");
    Ok(())
}

fn send_bytes(client: &Client, shape: &[usize], data: &[u8]) -> Result<RawAnswer> {
    let parameters = json!({ "binary_data_size": data.len() });
    let input = json!({ "name": "x", "shape": shape, "datatype": "BYTES", "parameters": parameters });
    let head =
        serde_json::to_vec(&json!({ "inputs": [input], "parameters": { "binary_data_output": true } }))?;
    let length = head.len().to_string();
    let body = [head, data.to_vec()].concat();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    Ok(raw_http::exchange(client.base(), &raw_http::post(INFER, &headers, body.len(), &body))?)
}

/// By the command, from a file with one text on each line.
fn as_lines(mesh: &Mesh) -> Result<()> {
    let file = mesh.folder().join("names.txt");
    let asked = arguments(&["infer", "greet", "--api", mesh.node("one").client.base()]);
    let asked = [asked, vec![file.clone().into_os_string()]].concat();
    let names = ["Ada", "é", "", "world"];
    fs::write(&file, names.join("\n"))?;
    let answer: Value = mesh.stormo().json(&asked, Progress::Kept, COMMAND_MAX)?;
    ensure!(answer["outputs"][0]["data"] == json!(greeted(&names)), "{answer}");
    let ran = mesh.stormo().run(&asked, Progress::Kept, COMMAND_MAX)?;
    ensure!(
        ran.stdout.contains("y BYTES [2, 2]") && ran.stdout.contains("first: \"hello, Ada!\""),
        "{}",
        ran.stdout
    );
    fs::write(&file, "Ada\nGrace\nEmmy\n")?;
    let ran = mesh.stormo().run(&asked, Progress::Kept, COMMAND_MAX)?;
    let told = ran.stderr.contains("has 3 lines; `x` takes texts of shape [1, 2], or some times as many");
    ensure!(ran.status.code() == Some(1) && told, "{} {}", ran.status, ran.stderr);
    Ok(())
}

fn wrong_texts(client: &Client) -> Result<()> {
    let many = TEXTS_MAX as usize + 2;
    let cases: [(&[usize], &[u8], &str); 7] = [
        (&[1, 2], b"\x01\0\0\0a", "the data ends before text 1 does"),
        (&[1, 2], b"\x01\0\0\0a\x09\0\0\0b", "the data ends before text 1 does"),
        (&[1, 2], b"\x01\0\0\0a\0\0\0\0b", "1 bytes follow the last text"),
        (&[1, 2], b"\x01\0\0\0a\x02\0\0\0\xc3\x28", "text 1 is not UTF-8"),
        (&[1, 2], b"\x01\0\0\0a\x01\0\0\0\0", "text 1 has a zero byte in it"),
        (&[1, 1], b"\x01\0\0\0\xff", "texts as UTF-8"),
        (&[many / 2, 2], b"", "texts are above the limit"),
    ];
    for (shape, data, says) in cases {
        let answer = send_bytes(client, shape, data)?;
        let told = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 400 && told.contains(says), "{} {told}, not `{says}`", answer.status);
    }
    Ok(())
}

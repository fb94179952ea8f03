//! What cannot be done is refused at once, says what is wrong and what to do, and the node serves on.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stormo_protocol::codec::encode;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::client::{Client, RawAnswer};
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::oip::InferRequest;
use stormo_testnet::reference::Reference;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, edge};
use stormo_testnet::{arrays, detector, digits, raw_http};

const INFER: &str = "/v2/models/digits/infer";

#[test]
fn files_that_are_no_models() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &[])?;
        let client = mesh.node("one").client.clone();
        let folder = mesh.folder().join("files");
        fs::create_dir(&folder)?;
        let whole = fs::read(digits::model())?;
        let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            fs::write(folder.join(name), bytes)?;
            Ok(folder.join(name))
        };
        let png = digits::folder().join("held-out-00-truth-0.png");
        let cases = [
            (png, "no ONNX model"),
            (file("cut.onnx", &whole[..whole.len() / 2])?, "cut off"),
            (file("operator.onnx", &replaced(&whole, b"Relu", b"Rolu"))?, "Rolu"),
            (file("damaged.onnx", &damaged(&whole))?, "damaged.onnx"),
            (file("empty.onnx", b"")?, "no ONNX model"),
            (file("text.onnx", b"a text, and no model at all\n")?, "no ONNX model"),
            (folder.clone(), "irectory"),
            (folder.join("missing.onnx"), "No such file"),
        ];
        all(cases.iter().map(|(model, says)| {
            let words = [&arguments(&["deploy", "bad"])[..], &[model.into()], &at(&client)].concat();
            let said = refused(mesh.stormo(), &words, 1, says)?;
            let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(said.contains(&name), "{name} is not named: {said}");
            Ok(())
        }))?;
        let names: Vec<String> = client.models()?.models.into_iter().map(|model| model.name).collect();
        ensure!(names == ["digits"], "deployed: {names:?}");
        trial::check_reads(&client)
    })
}

#[test]
fn deployments_that_cannot_be() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let client = mesh.node("one").client.clone();
        let model = digits::model();
        let folder = mesh.folder().to_owned();
        let placement = |text: &str| -> Result<OsString> {
            let path = folder.join("placement.toml");
            fs::write(&path, text)?;
            Ok(path.into())
        };
        let deploy = |name: &str, options: &[OsString], code: i32, says: &str| {
            let words = [&arguments(&["deploy", name])[..], &[model.clone().into()], options, &at(&client)];
            refused(mesh.stormo(), &words.concat(), code, says)
        };
        // First of all: later ones leave objects in the pool.
        objects_that_are_not_there(&client)?;
        let places = [
            ("[[place]]\nnode = \"nobody\"\nblocks = [0, 1]\n", "no node is called `nobody`"),
            ("[[place]]\nnode = \"one\"\nblocks = [0, 999]\n", "not within the model's 0 to"),
            ("[[place]]\nnode = \"one\"\nblocks = [3, 3]\n", "not within the model's 0 to"),
            ("[[place]]\nnode = \"one\"\nblocks = [0, -1]\n", "placement.toml"),
            ("[[place]]\nnode = \"one\"\nblock = [0, 1]\n", "unknown field `block`"),
            ("[[place\n", "placement.toml"),
            ("", "placement.toml"),
        ];
        all(places.iter().map(|(text, says)| {
            deploy("digits", &["--placement".into(), placement(text)?], 1, says).map(drop)
        }))?;
        deploy("digits", &["--placement".into(), folder.join("missing.toml").into()], 1, "No such file")?;
        for option in ["--placement", "--card", "--api-token"] {
            deploy("digits", &arguments(&[option, "/dev/zero"]), 1, "`/dev/zero`: is a device or pipe")?;
        }
        let card = detector::card().to_string_lossy().into_owned();
        let sample = ["--card", &card, "--sample-image", "/dev/zero"];
        deploy("digits", &arguments(&sample), 1, "`/dev/zero`: is a device or pipe")?;
        deploy("digits", &arguments(&["--parts", "64", "--replicas", "1"]), 1, "parts, not 64")?;
        deploy("digits", &arguments(&["--parts", "3", "--replicas", "1"]), 1, "3 different nodes")?;
        deploy("digits", &arguments(&["--parts", "0"]), 2, "--parts")?;
        deploy("digits", &arguments(&["--ort-level", "most"]), 2, "--ort-level")?;
        deploy("digits", &arguments(&["--sample-shape", "image=1x3x5x5"]), 1, "image")?;
        deploy("digits", &arguments(&["--sample-shape", "picture=1x1x8x8"]), 1, "input `image`")?;
        deploy("digits", &arguments(&["--sample-shape", "1x1x8x8"]), 2, "--sample-shape")?;
        deploy("a name/with signs", &[], 1, "is no name for a model")?;
        trial::deploy(mesh, "one", "digits", &model, &[])?;
        trial::check_reads(&client)
    })
}

#[test]
fn no_node_has_the_memory() -> Result<()> {
    let small = |label: &str| NodeSpec { memory_budget_bytes: 100_000, ..edge(label) };
    trial::run(&[small("pine"), small("larch")], |mesh| {
        let client = mesh.node("pine").client.clone();
        let deploy =
            [&arguments(&["deploy", "digits"])[..], &[digits::model().into()], &at(&client)].concat();
        let said = refused(mesh.stormo(), &deploy, 1, "no node is able to host `digits`")?;
        for named in ["`pine` has", "`larch` has", "--memory-budget"] {
            ensure!(said.contains(named), "{named} is not in: {said}");
        }
        ensure!(client.models()?.models.is_empty(), "it was deployed all the same");
        // Not for long: a node that can host it comes, and all is well.
        mesh.add(&edge("oak"))?;
        mesh.wait_for_nodes(3, trial::SOON)?;
        trial::deploy(mesh, "pine", "digits", &digits::model(), &["--replicas", "1"])?;
        trial::check_reads(&client)
    })
}

#[test]
fn requests_that_do_not_fit() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &[])?;
        // The node that was not asked to deploy: it knows the model by hearsay.
        let client = mesh.node("two").client.clone();
        trial::check_reads(&client)?;
        all([
            wrong_tensors(&client),
            wrong_calls(&client),
            wrong_framing(&client),
            wrong_commands(mesh.stormo(), &client, mesh.folder()),
        ])?;
        trial::check_reads(&client)
    })
}

#[test]
fn nodes_that_cannot_start() -> Result<()> {
    let stormo = trial::stormo()?;
    let folder = tempfile::tempdir()?;
    let fresh = |name: &str| folder.path().join(name);
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    stormo.init(&fresh("good"))?;
    let node = |data: &Path, options: &[&str], code: i32, says: &str| {
        let words = arguments(&["node", "--die-with-parent", "--data"]);
        // Of an option given twice the last counts.
        let ports = ["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
        let words = [&words[..], &[data.into()], &arguments(&ports), &arguments(options)].concat();
        refused(&stormo, &words, code, says)
    };
    node(&fresh("none"), &[], 1, "stormo init")?;
    node(&fresh("good"), &["--api", &taken], 1, &format!("cannot listen on {taken}"))?;
    node(&fresh("good"), &["--api", "0.0.0.0:0"], 1, "--api-token")?;
    node(&fresh("good"), &["--api", "here"], 2, "--api")?;
    node(&fresh("good"), &["--grpc", &taken], 1, &format!("gRPC API cannot listen on {taken}"))?;
    node(&fresh("good"), &["--grpc", "0.0.0.0:0"], 1, "--grpc 0.0.0.0:0 can be reached from other machines")?;
    node(&fresh("good"), &["--grpc", "none"], 2, "--grpc")?;
    node(&fresh("good"), &["--join", "stormo1abc"], 1, "neither a whole ticket")?;
    node(&fresh("none"), &["--join", "somewhere"], 1, "neither a whole ticket")?;
    node(&fresh("good"), &["--memory-budget", "much"], 2, "--memory-budget")?;
    node(&fresh("good"), &["--class", "mainframe"], 2, "--class")?;
    node(&fresh("good"), &["--label", ""], 1, "--label")?;
    node(&fresh("good"), &["--mesh-key", "/dev/null"], 1, "`/dev/null`: is a device or pipe")?;
    fs::write(fresh("no.key"), b"no key")?;
    let no_key = fresh("no.key").to_string_lossy().into_owned();
    node(&fresh("good"), &["--mesh-key", &no_key], 1, "does not hold a mesh key")?;
    node(&fresh("good"), &["--config", "/dev/zero"], 1, "`/dev/zero`: is a device or pipe")?;
    node(&fresh("good"), &["--api-token", "/dev/zero"], 1, "`/dev/zero`: is a device or pipe")?;
    let config = fresh("node.toml");
    let config_path = config.to_string_lossy().into_owned();
    node(&fresh("good"), &["--config", &config_path], 1, "node.toml")?;
    fs::write(&config, "class = [\n")?;
    node(&fresh("good"), &["--config", &config_path], 1, "node.toml")?;
    fs::write(&config, "colour = \"green\"\n")?;
    node(&fresh("good"), &["--config", &config_path], 1, "--colour")?;
    fs::write(fresh("good").join("node.key"), b"no key")?;
    node(&fresh("good"), &[], 1, "does not hold a node key")?;
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2() -> Result<()> {
    let stormo = trial::stormo()?;
    let lines: [&[&str]; 8] = [
        &[],
        &["fly"],
        &["infer"],
        &["infer", "digits"],
        &["infer", "digits", "a.png", "--timeout", "3"],
        &["infer", "digits", "a.png", "--max-latency", "-5ms"],
        &["deploy", "digits"],
        &["status", "--verbose-please"],
    ];
    all(lines.iter().map(|line| refused(&stormo, &arguments(line), 2, "--help").map(drop)))?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    for line in [&["status"][..], &["plan", "digits"], &["infer", "digits", "a.png"]] {
        refused(&stormo, &arguments(&[line, &["--api", &nobody]].concat()), 1, "no node answers")?;
    }
    Ok(())
}

/// Looks at all cases, so that one failure does not hide the next.
fn all(checks: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let failed: Vec<String> =
        checks.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

fn replaced(bytes: &[u8], from: &[u8; 4], to: &[u8; 4]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(4).position(|window| window == from);
    if let Some(at) = at {
        bytes[at..at + 4].copy_from_slice(to);
    }
    bytes
}

/// Whole in length, with a length inside that points beyond the end.
fn damaged(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let from = bytes.len() / 3;
    bytes[from..from + 64].fill(0xff);
    bytes[..64.min(from)].fill(0x7f);
    bytes
}

fn at(client: &Client) -> Vec<OsString> {
    arguments(&["--api", client.base()])
}

/// Runs a command that must fail with this exit code and say this; gives all that it said.
fn refused(stormo: &Stormo, words: &[OsString], code: i32, says: &str) -> Result<String> {
    let ran = stormo.run(words, Progress::Kept, COMMAND_MAX)?;
    let stderr = ran.stderr;
    ensure!(ran.status.code() == Some(code), "{words:?} ended with {}: {stderr}", ran.status);
    ensure!(stderr.contains(says), "{words:?} does not say `{says}`: {stderr}");
    ensure!(!stderr.contains("panicked"), "{words:?} broke down: {stderr}");
    Ok(stderr)
}

/// A call that must be answered with this status and say this.
fn answered(what: &str, answer: &RawAnswer, status: u16, says: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == status, "{what}: answered {} {text}", answer.status);
    ensure!(text.contains(says), "{what}: does not say `{says}`: {text}");
    let error = serde_json::from_slice::<Value>(&answer.body).ok();
    let error = error.and_then(|body| body["error"].as_str().map(str::len));
    ensure!(error.is_some_and(|length| length > 0), "{what}: no `error` in {text}");
    Ok(())
}

fn input() -> Value {
    json!({ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": vec![0.5; 64] })
}

fn changed(field: &str, to: Value) -> Value {
    let mut input = input();
    input[field] = to;
    json!({ "inputs": [input] })
}

fn wrong_tensors(client: &Client) -> Result<()> {
    let cases = [
        (changed("name", json!("picture")), "input `image` (FP32 [1, 1, 8, 8]) is missing; got: picture"),
        (changed("shape", json!([1, 1, 4, 16])), "input `image` must be FP32 [1, 1, 8, 8]"),
        (changed("shape", json!([64])), "input `image` must be FP32 [1, 1, 8, 8]"),
        (changed("shape", json!([1, 1, 8, 9])), "64 values were given"),
        (changed("shape", json!([1, 1, -8, 8])), "malformed"),
        (changed("shape", json!([1_u64 << 40, 1_u64 << 40])), "image"),
        (changed("shape", json!(vec![1; 40])), "image"),
        (changed("datatype", json!("FP64")), "input `image` must be FP32"),
        (changed("datatype", json!("FP31")), "datatype `FP31` is not supported"),
        (changed("data", json!(vec!["x"; 64])), "is no FP32"),
        (changed("data", json!(vec![0.5; 63])), "63 values were given"),
        (changed("data", Value::Null), "no `data`"),
        (changed("data", json!({ "a": 1 })), "values were given"),
        (json!({ "inputs": [] }), "input `image` (FP32 [1, 1, 8, 8]) is missing"),
        (json!({ "inputs": [input(), input()] }), "image"),
        (
            json!({ "inputs": [input(), { "name": "extra", "shape": [1], "datatype": "FP32", "data": [1] }] }),
            "no input `extra`",
        ),
        (json!({ "inputs": [input()], "outputs": [{ "name": "nothing" }] }), "no output `nothing`"),
    ];
    all(cases.iter().map(|(body, says)| {
        let body = serde_json::to_vec(body)?;
        let what = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        answered(&what, &client.post_raw(INFER, "application/json", &body)?, 400, says)
    }))
}

fn wrong_calls(client: &Client) -> Result<()> {
    let good = serde_json::to_vec(&json!({ "inputs": [input()] }))?;
    let post = |path: &str, body: &[u8]| client.post_raw(path, "application/json", body);
    answered("an unknown model", &post("/v2/models/numerals/infer", &good)?, 404, "there are: digits")?;
    answered("an unknown version", &post("/v2/models/digits/versions/99/infer", &good)?, 404, "version 99")?;
    answered("no version", &post("/v2/models/digits/versions/x/infer", &good)?, 404, "versions are numbers")?;
    answered("cut JSON", &post(INFER, &good[..good.len() / 2])?, 400, "malformed")?;
    answered("no JSON", &post(INFER, b"\x00\xff\x13")?, 400, "malformed")?;
    answered("an empty body", &post(INFER, b"")?, 400, "malformed")?;
    answered("another document", &post(INFER, b"[1, 2]")?, 400, "malformed")?;
    let deep = [r#"{"inputs":"#.as_bytes(), "[".repeat(200_000).as_bytes()].concat();
    answered("nesting", &post(INFER, &deep)?, 400, "malformed")?;
    let parameters = [
        (json!({ "plan_id": "0".repeat(64) }), 404, "plan"),
        (json!({ "plan_id": "no-plan" }), 400, "plan_id"),
        (json!({ "plan_id": 7 }), 400, "plan_id"),
        (json!({ "min_accuracy": 1.5 }), 400, "min_accuracy"),
        (json!({ "min_accuracy": "high" }), 400, "min_accuracy"),
        (json!({ "min_acuracy": 0.2 }), 400, "no parameter `min_acuracy`"),
        (json!({ "plan_id": "0".repeat(7) }), 400, "the first 8 are enough"),
        (json!({ "max_energy_j": 2 }), 409, "--power"),
        (json!({ "max_energy_j": 0 }), 400, "max_energy_j"),
        (json!({ "max_energy_j": "little" }), 400, "max_energy_j"),
        (json!({ "energy_class": "saving" }), 400, "`energy_class` is not supported"),
        (json!({ "redundancy": "triple" }), 400, "warm, hedge or duplicate"),
        (json!({ "redundancy": 2 }), 400, "warm, hedge or duplicate"),
        (json!({ "objective": "energy" }), 409, "--power"),
        (json!({ "objective": "beauty" }), 400, "objective"),
        (json!({ "timeout_ms": -1 }), 400, "timeout_ms"),
        (json!({ "timeout_ms": "soon" }), 400, "timeout_ms"),
        (json!({ "force_first": "yes" }), 400, "force_first"),
    ];
    all(parameters.iter().map(|(parameters, status, says)| {
        let body = serde_json::to_vec(&json!({ "inputs": [input()], "parameters": parameters }))?;
        let answer = post(INFER, &body)?;
        // A plan's id may have another length than was thought here; then it is malformed.
        let status = if *status == 404 && answer.status == 400 { 400 } else { *status };
        answered(&parameters.to_string(), &answer, status, says)
    }))?;
    let lists = [
        ("/v1/plans?model=numerals&all=true", 404, "there are: digits"),
        ("/v1/plans", 400, "model"),
        ("/v1/plans?model=digits&all=perhaps", 400, "all"),
        ("/v1/plans?model=digits&codec=jpeg", 400, "codec"),
        ("/v1/plans?model=digits&codec=int8", 409, "how much was not measured"),
        ("/v1/plans?model=digits&min_accuracy=-1", 400, "min_accuracy"),
        ("/v1/plans?model=digits&max_latency_ms=0", 400, "max_latency_ms"),
        ("/v1/plans?model=digits&max_latency_ms=NaN", 400, "max_latency_ms"),
        ("/v1/plans?model=digits&max_energy_j=1", 409, "--power"),
        ("/v1/plans?model=digits&objective=beauty", 400, "objective"),
        ("/v1/plans?model=digits&planner=oracle", 400, "planner"),
        ("/v1/plans/instance?model=numerals", 404, "there are: digits"),
        ("/v1/requests/nothing", 400, ""),
        ("/v1/models/%FF", 400, "UTF-8"),
        ("/v2/models/%FF", 400, "UTF-8"),
        ("/v1/models/numerals", 404, "there are: digits"),
        ("/v2/models/numerals", 404, "there are: digits"),
        ("/v2/models/digits/versions/99/ready", 404, "version"),
        ("/v1/objects/nothing", 400, ""),
        ("/nowhere", 404, "the API is under"),
    ];
    all(lists.iter().map(|(path, status, says)| answered(path, &client.get_raw(path)?, *status, says)))
}

/// Bodies that are longer or shorter than what is declared of them.
fn wrong_framing(client: &Client) -> Result<()> {
    let binary = |size: usize| {
        let mut input = input();
        input.as_object_mut().map(|input| input.remove("data"));
        input["parameters"] = json!({ "binary_data_size": size });
        serde_json::to_vec(&json!({ "inputs": [input] }))
    };
    let tensor = [0_u8; 256];
    let send = |head: &[u8], declared: &str, tensor: &[u8]| {
        let body = [head, tensor].concat();
        let headers = [("Inference-Header-Content-Length", declared)];
        raw_http::exchange(client.base(), &raw_http::post(INFER, &headers, body.len(), &body))
    };
    let head = binary(256)?;
    let length = head.len().to_string();
    let good = send(&head, &length, &tensor)?;
    ensure!(good.status == 200, "the good one: {} {}", good.status, String::from_utf8_lossy(&good.body));
    let into_the_tensor = (head.len() + 8).to_string();
    let short = binary(255)?;
    let short_length = short.len().to_string();
    let cases: [(&str, &[u8], &str, usize, &str); 9] = [
        ("header beyond the body", &head, "100000", 256, "Inference-Header-Content-Length is 100000"),
        ("header short of the JSON", &head, "10", 256, "malformed"),
        ("header into the tensor", &head, &into_the_tensor, 256, "malformed"),
        ("header that is no number", &head, "many", 256, "is no number"),
        ("negative header", &head, "-1", 256, "is no number"),
        ("fewer bytes than announced", &head, &length, 200, "announces 256 bytes, but 200"),
        ("more bytes than announced", &head, &length, 300, "44 bytes follow"),
        ("size that is not the shape's", &short, &short_length, 255, "255 bytes"),
        ("no binary part", &head, &length, 0, "announces 256 bytes, but 0"),
    ];
    all(cases.iter().map(|(what, head, declared, bytes, says)| {
        answered(what, &send(head, declared, &vec![0; *bytes])?, 400, says)
    }))?;
    // More is announced than comes, and then nothing: an answer or a closed connection, no hang.
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let broken = raw_http::post(INFER, &headers, 10_000, &[&head[..], &tensor].concat());
    if let Some(answer) = raw_http::break_off(client.base(), &broken)? {
        ensure!(answer.status == 400, "a body that breaks off: {}", answer.status);
    }
    raw_http::hang_up(client.base(), &raw_http::post(INFER, &[], 10_000, &head))?;
    let huge = raw_http::exchange(client.base(), &raw_http::post(INFER, &[], usize::MAX / 2, &head))?;
    answered("a huge length", &huge, 413, "at most")
}

fn wrong_commands(stormo: &Stormo, client: &Client, folder: &Path) -> Result<()> {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let npy = |name: &str, tensor: &str, shape: &[u64], count: usize| -> Result<String> {
        let tensor = InferRequest::new(tensor, shape, vec![0.5; count]).inputs;
        arrays::write_npy(Path::new(&file(name)), &tensor[0])?;
        arrays::write_npz(Path::new(&file(&name.replace("npy", "npz"))), &tensor)?;
        Ok(file(name))
    };
    let wide = npy("wide.npy", "other", &[1, 1, 8, 9], 72)?;
    let good = npy("good.npy", "image", &[1, 1, 8, 8], 64)?;
    let cut = file("cut.npy");
    fs::write(&cut, &fs::read(&good)?[..200])?;
    let image = digits::folder().join("held-out-00-truth-0.png").to_string_lossy().into_owned();
    let text = digits::folder().join("truth.json").to_string_lossy().into_owned();
    let named = |name: &str, path: &str| format!("{name}={path}");
    let pipe = file("pipe.npy");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "no pipe could be made");
    let cases: [(&[&str], &str); 18] = [
        (&["digits", "/dev/zero"], "`/dev/zero`: is a device or pipe"),
        (&["digits", "image=/dev/zero"], "`/dev/zero`: is a device or pipe"),
        (&["digits", &pipe], "pipe.npy`: is a device or pipe"),
        (&["numerals", &image], "there are: digits"),
        (&["a b/c?d", &image], "no model"),
        (&["digits", &text], "neither a JPEG"),
        (&["digits", &file("missing.png")], "No such file"),
        (&["digits", &named("image", &wide)], "must be FP32 [1, 1, 8, 8]"),
        (&["digits", &named("picture", &good)], "picture"),
        (&["digits", &named("image", &cut)], "ends early"),
        (&["digits", &file("wide.npz")], "none of the model's inputs (image)"),
        (&["digits", &image, &image], "image"),
        (&["digits", &image, "--plan-id", "nothing"], "plan_id"),
        (&["digits", &image, "--draw", &file("drawn.png")], "has no card"),
        (&["digits", &image, "--draw", &file("drawn.gif")], "of type .png or .jpg"),
        (&["digits", &image, "--draw", &file("missing/drawn.png")], "No such file"),
        (&["digits", &good, "--api", &format!("{}/nowhere", client.base())], "there is nothing here"),
        (&["digits", folder.to_str().unwrap_or_default()], "irectory"),
    ];
    all(cases.iter().map(|(words, says)| {
        let words = [&["infer"][..], words].concat();
        let api = if words.contains(&"--api") { vec![] } else { at(client) };
        refused(stormo, &[arguments(&words), api].concat(), 1, says).map(drop)
    }))?;
    let plan = [arguments(&["plan", "numerals"]), at(client)].concat();
    refused(stormo, &plan, 1, "there are: digits")?;
    Ok(())
}

/// Uploads under a wrong name, and deployments of what was not uploaded.
fn objects_that_are_not_there(client: &Client) -> Result<()> {
    let path = |id: ObjectId| format!("/v1/objects/{id}");
    let wrong = client.put_raw(&path(ObjectId::of(b"one thing")), b"another thing")?;
    answered("a wrong hash", &wrong, 400, "")?;
    let deploy = |manifest: ObjectId| -> Result<RawAnswer> {
        let variant = json!({ "label": "base", "manifest": manifest.to_string() });
        let body = json!({ "name": "digits", "variants": [variant], "replicas": 1 });
        Ok(client.post_raw("/v1/deployments", "application/json", &serde_json::to_vec(&body)?)?)
    };
    answered("no manifest", &deploy(ObjectId::of(b"one thing"))?, 400, "was not uploaded")?;
    let junk = ObjectId::of(b"junk");
    ensure!(client.put_raw(&path(junk), b"junk")?.status == 201, "an upload failed");
    answered("a manifest that is none", &deploy(junk)?, 400, "the manifest is wrong")?;
    let reference = Reference::of("digits", &digits::model(), OrtLevel::All)?;
    let manifest = encode(reference.manifest());
    let id = ObjectId::of(&manifest);
    ensure!(client.put_raw(&path(id), &manifest)?.status == 201, "an upload failed");
    let skeleton = reference.manifest().skeleton.id;
    answered("no skeleton", &deploy(id)?, 400, &format!("object {skeleton} was not uploaded"))?;
    let garbled = client.post_raw("/v1/deployments", "application/json", b"{}")?;
    answered("no deployment", &garbled, 400, "the body is no deployment")?;
    client.models().context("it serves on")?;
    Ok(())
}

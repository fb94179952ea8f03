//! Every command, for people and as JSON, on a real mesh.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::{arrays, digits};

const COMMANDS: [&str; 9] =
    ["init", "invite", "node", "deploy", "undeploy", "infer", "stream", "plan", "status"];

#[test]
fn every_command_explains_itself() -> Result<()> {
    let stormo = trial::stormo()?;
    let all = text(&stormo, &arguments(&["--help"]))?;
    for command in COMMANDS {
        ensure!(all.contains(&format!("\n  {command}")), "`--help` does not list {command}");
        let help = text(&stormo, &arguments(&[command, "--help"]))?;
        ensure!(help.contains("Usage: stormo") && help.contains("--json"), "{command} --help: {help}");
    }
    let version = text(&stormo, &arguments(&["--version"]))?;
    ensure!(version.starts_with("stormo "), "--version: {version}");
    Ok(())
}

#[test]
fn init_for_people_and_as_json() -> Result<()> {
    let stormo = trial::stormo()?;
    let folder = tempfile::tempdir()?;
    let init = |name: &str| {
        [arguments(&["init", "--data"]), vec![folder.path().join(name).into_os_string()]].concat()
    };
    let said = text(&stormo, &init("one"))?;
    ensure!(said.starts_with("mesh ") && said.contains("stormo node"), "{said}");
    let made = json(&stormo, &init("two"))?;
    let file = made["key_file"].as_str().context("it names the file")?;
    ensure!(Path::new(file).is_file() && made["mesh"].is_string(), "{made}");
    Ok(())
}

#[test]
fn commands_on_a_mesh() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let at = arguments(&["--api", mesh.node("one").client.base()]);
        let asked = |words: &[&str]| [arguments(words), at.clone()].concat();
        let stormo = mesh.stormo().clone();
        let empty = text(&stormo, &asked(&["status"]))?;
        ensure!(empty.contains("No model is deployed"), "{empty}");
        invite(mesh, &at)?;
        deploy(&stormo, &at)?;
        plan(&stormo, &asked)?;
        infer(&stormo, mesh.folder(), &asked)?;
        status(&stormo, &asked)?;
        undeploy(&stormo, &asked)
    })
}

#[test]
fn a_node_by_its_configuration_file() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let invited = [
            arguments(&["invite", "--api", mesh.node("one").client.base(), "--data"]),
            vec![mesh.key_folder().into()],
        ];
        let ticket = json(mesh.stormo(), &invited.concat())?;
        let ticket = ticket["ticket"].as_str().context("a ticket")?;
        let config = mesh.folder().join("node.toml");
        let lines = format!(
            "label = \"by-file\"\nclass = \"device\"\napi = \"127.0.0.1:0\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
             join = [\"{ticket}\"]\nmemory_budget = \"300MiB\"\n"
        );
        fs::write(&config, lines)?;
        // The command line wins over the file.
        let told = [arguments(&["--class", "cloud", "--config"]), vec![config.into_os_string()]].concat();
        let node = mesh.add_with(&edge("by-file"), &told)?.client.node()?;
        let seen = (node.label.as_str(), format!("{:?}", node.class), node.memory_budget_bytes);
        ensure!(seen == ("by-file", "Cloud".to_owned(), 300 << 20), "it runs as {seen:?}");
        ensure!(node.addresses.iter().all(|address| address.contains("127.0.0.1")), "{:?}", node.addresses);
        Ok(mesh.wait_for_nodes(2, SOON)?)
    })
}

fn text(stormo: &Stormo, words: &[OsString]) -> Result<String> {
    let ran = stormo.run(words, Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.status.success(), "{words:?} ended with {}: {}", ran.status, ran.stderr);
    Ok(ran.stdout)
}

fn json(stormo: &Stormo, words: &[OsString]) -> Result<Value> {
    Ok(stormo.json(words, Progress::Kept, COMMAND_MAX)?)
}

/// Each of these must be in the text.
fn says(text: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not in:\n{text}");
    Ok(())
}

fn invite(mesh: &Mesh, at: &[OsString]) -> Result<()> {
    let words = [&arguments(&["invite", "--data"])[..], &[mesh.key_folder().into()], at].concat();
    let ticket = text(mesh.stormo(), &words)?;
    ensure!(ticket.starts_with("stormo1") && ticket.lines().count() == 1, "{ticket}");
    ensure!(json(mesh.stormo(), &words)?["ticket"] == ticket.trim(), "two tickets differ");
    Ok(())
}

fn deploy(stormo: &Stormo, at: &[OsString]) -> Result<()> {
    let words = |name: &str, options: &[&str]| {
        [&arguments(&["deploy", name])[..], &[digits::model().into()], &arguments(options), at].concat()
    };
    let parts = ["--parts", "2", "--replicas", "1"];
    let said = text(stormo, &words("digits", &parts))?;
    says(&said, &["`digits` version 1", "HOST", "BLOCKS", "warm", "one", "two"])?;
    let made = json(stormo, &words("digits", &parts))?;
    ensure!(made["version"] == 2 && made["state"] == "ready", "{made}");
    ensure!(made["hosts"].as_array().map(Vec::len) == Some(2), "{made}");
    Ok(())
}

fn plan(stormo: &Stormo, asked: &dyn Fn(&[&str]) -> Vec<OsString>) -> Result<()> {
    let best = json(stormo, &asked(&["plan", "digits"]))?;
    ensure!(best["plans"].as_array().map(Vec::len) == Some(1), "{best}");
    let all = json(stormo, &asked(&["plan", "digits", "--all"]))?;
    let kinds: Vec<&str> =
        all["plans"].as_array().into_iter().flatten().filter_map(|plan| plan["kind"].as_str()).collect();
    ensure!(["local", "remote", "chain-2"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let said = text(stormo, &asked(&["plan", "digits", "--all"]))?;
    says(
        &said,
        &[
            "PLAN",
            "KIND",
            "STAGES",
            "local",
            "remote",
            "chain-2",
            all["plans"][0]["id"].as_str().and_then(|id| id.get(..8)).unwrap_or("?"),
            "moves",
        ],
    )?;
    let forced = json(stormo, &asked(&["plan", "digits", "--all", "--force-first", "--force-last"]))?;
    for plan in forced["plans"].as_array().into_iter().flatten() {
        let stages = plan["stages"].as_array().context("stages")?;
        let ends = [stages.first(), stages.last()].map(|stage| stage.map(|stage| stage["label"].clone()));
        ensure!(ends.iter().all(|label| label.as_ref().is_some_and(|label| label == "one")), "{plan}");
    }
    Ok(())
}

fn infer(stormo: &Stormo, folder: &Path, asked: &dyn Fn(&[&str]) -> Vec<OsString>) -> Result<()> {
    let image = digits::load()?.swap_remove(3);
    let png = digits::folder().join(&image.name);
    let tensor = stormo_testnet::oip::InferRequest::new("image", &[1, 1, 8, 8], image.pixels.clone()).inputs;
    let (npy, npz) = (folder.join("input.npy"), folder.join("input.npz"));
    arrays::write_npy(&npy, &tensor[0])?;
    let expected = stormo_testnet::oip::InferRequest::new("out:other", &[1], vec![0.0]).inputs;
    arrays::write_npz(&npz, &[tensor, expected].concat())?;
    let paths = [png.display().to_string(), format!("image={}", npy.display()), npz.display().to_string()];
    let mut answers = Vec::new();
    for path in [&paths[0], &format!("image={}", paths[0]), &paths[1], &npy.display().to_string(), &paths[2]]
    {
        let answer = json(stormo, &asked(&["infer", "digits", path]))?;
        let output = &answer["outputs"][0];
        ensure!(
            output["name"] == "probabilities" && output["shape"] == serde_json::json!([1, 10]),
            "{answer}"
        );
        answers.push(output["data"].clone());
    }
    let values: Vec<f64> = answers[0].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let read = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]));
    ensure!(read == Some(usize::from(image.truth)), "a {} was read as {read:?}", image.truth);
    let near = |other: &Value| {
        let others: Vec<f64> = other.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        others.len() == values.len() && others.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-4)
    };
    ensure!(answers.iter().all(near), "the forms of the same input give {answers:?}");
    let said =
        text(stormo, &asked(&["infer", "digits", &paths[0], "--max-latency", "10s", "--timeout", "20s"]))?;
    says(
        &said,
        &[
            "probabilities FP32 [1, 10]",
            &format!("largest: [{}]", image.truth),
            " ms, ",
            "variant `base`",
            "plan ",
        ],
    )?;
    let said = text(stormo, &asked(&["infer", "digits", &paths[0], "--trace"]))?;
    says(&said, &["plan ", "request ", "planned, encoded  ", "received  ", "ways, hand-overs  ", "█ runs"])?;
    let trace = &json(stormo, &asked(&["infer", "digits", &paths[0], "--trace"]))?["trace"];
    let run_ms = trace["stages"][0]["run_ms"].as_f64();
    ensure!(run_ms > Some(0.0) && run_ms < trace["latency_ms"].as_f64(), "{trace}");
    let all = json(stormo, &asked(&["plan", "digits", "--all"]))?;
    for plan in all["plans"].as_array().into_iter().flatten() {
        let id = plan["id"].as_str().context("an id")?;
        let beginning = id.get(..8).context("an id has 32 digits")?;
        let answer = json(stormo, &asked(&["infer", "digits", &paths[2], "--plan-id", beginning]))?;
        ensure!(answer["parameters"]["plan_id"] == id, "asked for {id}: {answer}");
        ensure!(near(&answer["outputs"][0]["data"]), "plan {plan} gives {answer}");
        // The image leaves this machine by such a plan, which was forbidden.
        let words = ["infer", "digits", &paths[2], "--plan-id", beginning, "--force-first"];
        let ran = stormo.run(&asked(&words), Progress::Kept, COMMAND_MAX)?;
        let begins_here = plan["stages"][0]["label"] == "one";
        ensure!(ran.status.success() == begins_here, "{plan}: {ran:?}");
        ensure!(begins_here || ran.stderr.contains("force_first"), "{plan}: {ran:?}");
    }
    Ok(())
}

fn status(stormo: &Stormo, asked: &dyn Fn(&[&str]) -> Vec<OsString>) -> Result<()> {
    let said = text(stormo, &asked(&["status"]))?;
    says(
        &said,
        &["NODE", "ROUND TRIP", "one", "two", "itself", "s ago", "usable", "MODEL", "digits", "ready"],
    )?;
    let told = json(stormo, &asked(&["status"]))?;
    let counts = ["nodes", "deployments"].map(|list| told[list].as_array().map(Vec::len));
    ensure!(counts == [Some(2), Some(1)], "{told}");
    // Half a document, and the exit code of a whole one, would be believed.
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let mut command = Command::new(&stormo.binary);
    let ran = command.args(asked(&["status", "--json"])).stdout(full).output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.code() == Some(1) && said.contains("could not be written"), "{ran:?}");
    Ok(())
}

fn undeploy(stormo: &Stormo, asked: &dyn Fn(&[&str]) -> Vec<OsString>) -> Result<()> {
    text(stormo, &asked(&["undeploy", "digits"]))?;
    let told = json(stormo, &asked(&["status"]))?;
    ensure!(told["deployments"].as_array().is_some_and(Vec::is_empty), "{told}");
    Ok(())
}

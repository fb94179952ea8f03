//! Plans of a real mesh: limits held and told, every planner asked, and the mesh written down and planned on paper.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stormo::serve::json::{RequestView, RequestsView};
use stormo_testnet::commands::Progress;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::{digits, wait};

const POWER: &str = "idle=0.5,compute=3,send=1.5,receive=1,tail=0.01";

/// A node that knows what it draws, two others, and a network in two parts on them.
fn with_mesh(test: impl FnOnce(&Mesh) -> Result<()>) -> Result<()> {
    trial::run(&[edge("server"), edge("mini-pc")], |mesh| {
        trial::add_with(mesh, &edge("board"), &["--power", POWER])?;
        mesh.wait_for_nodes(3, SOON)?;
        trial::deploy(mesh, "board", "digits", &digits::model(), &["--parts", "2"])?;
        trial::digits_input(&mesh.node("board").client)?;
        test(mesh)
    })
}

fn at(mesh: &Mesh, label: &str, words: &[&str]) -> Vec<OsString> {
    [arguments(words), arguments(&["--api", mesh.node(label).client.base()])].concat()
}

fn json(mesh: &Mesh, words: &[&str]) -> Result<Value> {
    Ok(mesh.stormo().json(&at(mesh, "board", words), Progress::Kept, COMMAND_MAX)?)
}

/// What a command says that ends with 1.
fn refused(mesh: &Mesh, label: &str, words: &[&str]) -> Result<String> {
    let ran = mesh.stormo().run(&at(mesh, label, words), Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.status.code() == Some(1), "{words:?} ended with {}: {}", ran.status, ran.stdout);
    Ok(ran.stderr)
}

fn says(text: &str, words: &[&str]) -> Result<()> {
    ensure!(words.iter().all(|word| text.contains(word)), "not all of {words:?} are in: {text}");
    Ok(())
}

#[test]
fn limits_are_held_and_what_binds_is_told() -> Result<()> {
    let image = digits::folder().join(&digits::load()?[3].name).display().to_string();
    with_mesh(|mesh| {
        let plan = json(mesh, &["plan", "digits"])?["plans"][0].clone();
        let energy_j = plan["energy_j"].as_f64().with_context(|| format!("no energy: {plan}"))?;
        ensure!(energy_j > 0.0, "{plan}");
        // What its machine draws in no time at all.
        let little = refused(mesh, "board", &["plan", "digits", "--max-energy", "0.001mJ"])?;
        says(&little, &["max_energy_j 0.000001", "the closest plan draws", "ask for it by its id"])?;
        let quick = refused(mesh, "board", &["plan", "digits", "--max-latency", "0.000001ms"])?;
        says(&quick, &["max_latency_ms 0.000001", "the closest plan takes"])?;
        let closest = little.split("(plan ").nth(1).and_then(|rest| rest.get(..32)).context("an id")?;
        let by_id = json(mesh, &["infer", "digits", &image, "--plan-id", closest])?;
        ensure!(by_id["parameters"]["plan_id"] == closest, "{by_id}");
        let image = image.as_str();
        let ask = |options: &[&'static str]| [&["infer", "digits", image][..], options].concat();
        says(&refused(mesh, "board", &ask(&["--max-energy", "0.001mJ"]))?, &["max_energy_j"])?;
        // A plan by its id is held to the same limits; answers tell what was foretold, and what was accounted.
        let both = |most: &'static str| [ask(&["--max-energy", most, "--plan-id"]), vec![closest]].concat();
        says(&refused(mesh, "board", &both("0.001mJ"))?, &["max_energy_j", "is foretold to draw", closest])?;
        let answer = json(mesh, &both("100J"))?;
        let told = &answer["parameters"];
        let [drawn, foretold] = ["energy_j", "predicted_energy_j"].map(|name| told[name].as_f64());
        let (drawn, foretold) = drawn.zip(foretold).with_context(|| format!("no energy: {answer}"))?;
        ensure!(drawn > 0.0 && foretold > 0.0, "{answer}");
        // Idle power over the latency at least, all that this machine can draw at once at most.
        let latency_s = told["latency_ms"].as_f64().context("a latency")? / 1000.0;
        ensure!((0.5 * latency_s..=6.0 * latency_s + 0.01 + 1e-9).contains(&drawn), "{answer}");
        let request = told["request_id"].as_str().context("an id")?;
        let request: RequestView = mesh.node("board").client.get(&format!("/v1/requests/{request}"))?;
        ensure!(
            request.energy_j == Some(drawn) && request.predicted_energy_j == Some(foretold),
            "{request:?}"
        );
        let at_server: Value =
            mesh.stormo().json(&at(mesh, "server", &ask(&[])), Progress::Kept, COMMAND_MAX)?;
        ensure!(at_server["parameters"].get("energy_j").is_none(), "{at_server}");
        let enough = json(mesh, &ask(&["--max-energy", "100J", "--objective", "energy"]))?;
        ensure!(enough["parameters"]["late"] == false, "{enough}");
        // A latency is only wished for.
        let late = json(mesh, &ask(&["--max-latency", "0.000001ms"]))?;
        ensure!(late["parameters"]["late"] == true, "{late}");
        // Who does not know what it draws cannot keep to a limit of it.
        let unknown = refused(mesh, "server", &["plan", "digits", "--max-energy", "1J"])?;
        says(&unknown, &["--power"])?;
        let all = json(mesh, &["plan", "digits", "--all", "--max-latency", "0.000001ms"])?;
        let plans = all["plans"].as_array().context("plans")?;
        let exceeds = |plan: &Value| plan["exceeds"] == serde_json::json!(["max_latency_ms"]);
        ensure!(plans.len() > 2 && plans.iter().all(exceeds), "{all}");
        Ok(())
    })
}

#[test]
fn the_mesh_on_paper_has_the_same_plans() -> Result<()> {
    with_mesh(|mesh| {
        let limits = ["--max-energy", "10J", "--force-first"];
        for objective in ["latency", "energy", "throughput"] {
            let asked = [&["plan", "digits", "--objective", objective], &limits[..]].concat();
            let (live, on_paper) = alike(mesh, &asked)?;
            let (live, on_paper) = (&live["plans"][0], &on_paper["plan"]);
            for figure in ["latency_ms", "energy_j", "period_ms"] {
                let [here, there] = [live, on_paper].map(|plan| plan[figure].as_f64().unwrap_or(f64::NAN));
                ensure!((here - there).abs() <= 1e-9 * here, "{figure}: {live} and {on_paper}");
            }
            let stages = |plan: &Value, name: &str| -> Vec<(Value, Value)> {
                let stages = plan["stages"].as_array().into_iter().flatten();
                stages.map(|stage| (stage[name].clone(), stage["blocks"].clone())).collect()
            };
            ensure!(stages(live, "label") == stages(on_paper, "node"), "{live} and {on_paper}");
        }
        Ok(())
    })
}

/// The live plan and the one on paper, both of the same state: what is exported before and after is the same.
fn alike(mesh: &Mesh, asked: &[&str]) -> Result<(Value, Value)> {
    let file = mesh.folder().join("instance.json").display().to_string();
    let export = || -> Result<String> {
        let words = [asked, &["--export", &file]].concat();
        let ran = mesh.stormo().run(&at(mesh, "board", &words), Progress::Kept, COMMAND_MAX)?;
        ensure!(ran.status.success(), "{words:?}: {}", ran.stderr);
        Ok(std::fs::read_to_string(&file)?)
    };
    let found = wait::until("a mesh that stays as it is for some commands", SOON, || {
        let attempt = || -> Result<Option<Value>> {
            let (before, live, after) = (export()?, json(mesh, asked)?, export()?);
            Ok((before == after).then_some(live))
        };
        attempt().map_err(|error| format!("{error:#}"))?.ok_or_else(|| "it changes all the time".to_owned())
    })?;
    Ok((found, on_paper(Path::new(&file), "greedy")?))
}

fn on_paper(file: &Path, planner: &str) -> Result<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormo-testnet"));
    let ran = command.args(["plan", "--json", "--planner", planner]).arg(file).output()?;
    ensure!(ran.status.success(), "cargo mesh plan: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(serde_json::from_slice(&ran.stdout)?)
}

#[test]
fn every_planner_finds_as_good_a_plan() -> Result<()> {
    with_mesh(|mesh| {
        wait::until("three planners to see the mesh in one state", SOON, || {
            let latency = |planner: &str| -> Result<f64, String> {
                let view = json(mesh, &["plan", "digits", "--planner", planner]);
                let view = view.map_err(|error| format!("{error:#}"))?;
                view["plans"][0]["latency_ms"].as_f64().ok_or_else(|| view.to_string())
            };
            let found = [latency("greedy")?, latency("exact")?, latency("ilp")?];
            let is_same = found.iter().all(|one| (one - found[0]).abs() <= 1e-6 * found[0]);
            if is_same { Ok(()) } else { Err(format!("{found:?}")) }
        })?;
        Ok(())
    })
}

#[test]
fn what_is_asked_again_is_looked_up_and_never_leads_to_a_dead_node() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        mesh.wait_for_nodes(3, SOON)?;
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "3"])?;
        // Who has no part asks others, whoever is nearest.
        trial::add_with(mesh, &trial::asker("asker"), &[])?;
        mesh.wait_for_nodes(4, SOON)?;
        let client = mesh.node("asker").client.clone();
        let input = trial::digits_input(&client)?;
        let image = digits::load()?.swap_remove(0);
        let ask = || client.infer("digits", &image.request(&input));
        // The mesh has to keep still between two requests for one of them to find its plan.
        wait::until("a plan that was ready", SOON, || {
            ask().map_err(|error| error.to_string())?;
            let figures: RequestsView = client.get("/v1/requests").map_err(|error| error.to_string())?;
            if figures.plans_looked_up > 0 { Ok(()) } else { Err(format!("{figures:?}")) }
        })?;
        let host = ask()?.parameters.nodes;
        let label = mesh
            .nodes()
            .iter()
            .find(|node| node.id().to_string() == host)
            .map(|node| node.label().to_owned());
        let label = label.with_context(|| format!("nobody is {host}"))?;
        mesh.node_mut(&label).kill()?;
        trial::wait_until_left_out(&client, &label)?;
        for _ in 0..50 {
            let answer = ask()?.parameters;
            ensure!(!answer.nodes.contains(&host), "{label} is dead, and was planned on: {answer:?}");
            let request = client.request(&answer.request_id)?;
            ensure!(request.attempts == 1, "a plan led to who had gone: {request:?}");
        }
        let figures: RequestsView = client.get("/v1/requests")?;
        ensure!(figures.plans_looked_up + figures.plans_made >= 50, "{figures:?}");
        Ok(())
    })
}

#[test]
fn a_topology_and_a_model_are_planned_on_paper() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("instance.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormo-testnet"));
    command.args(["plan", "--json", "--topology", "thesis", "--objective", "energy", "--model"]);
    let ran = command.arg(digits::model()).arg("--export").arg(&file).output()?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let made: Value = serde_json::from_slice(&ran.stdout)?;
    ensure!(made["feasible"] == true && made["plan"]["energy_j"].as_f64() > Some(0.0), "{made}");
    let written: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    ensure!(written["requester"] == "device" && written["nodes"].as_array().map(Vec::len) == Some(3));
    let link = written["links"].as_array().into_iter().flatten();
    let up = link.clone().find(|link| link["from"] == "device" && link["to"] == "edge").context("a link")?;
    ensure!(up["latency_ms"] == 5.0 && up["ms_per_mb"] == 200.0, "{up}");
    let down = link.clone().find(|link| link["from"] == "cloud" && link["to"] == "edge").context("a link")?;
    ensure!(down["latency_ms"] == 50.0 && down["ms_per_mb"] == 50.0, "{down}");
    let again = on_paper(&file, "exact")?;
    let [one, other] = [&made, &again].map(|told| told["plan"]["energy_j"].as_f64().unwrap_or(f64::NAN));
    ensure!((one - other).abs() <= 1e-9 * one, "{made} and {again}");
    let mut nobody = Command::new(env!("CARGO_BIN_EXE_stormo-testnet"));
    nobody.args(["plan", "--topology", "thesis", "--from", "nobody", "--model"]).arg(digits::model());
    let said = nobody.output()?;
    ensure!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("device, edge, cloud"));
    Ok(())
}

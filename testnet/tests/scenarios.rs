//! Scenarios played by real processes: one that must hold, one whose broken promise the judge must see, and
//! files that nothing is started for.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use stormo_testnet::judge::{self, Verdict};
use stormo_testnet::report::{Document, page};
use stormo_testnet::scenario::Scenario;
use stormo_testnet::{play, trial};

const ONE_HOST: &str = r#"
about = "The only host is killed, and comes back."
topology = "two.toml"
duration_s = 16.0
seed = 5

[[deploy]]
name = "digits"
model = "digits"
at = "asks"
replicas = 1

[[load]]
deploy = "digits"
at = ["asks"]
rate_per_s = 30
timeout_ms = 3000

[[fault]]
kind = "kill"
node = "hosts"
at_s = 2.0
for_s = 1.5

[expect]
progress_within_s = 10.0
"#;

const TWO: &str = r#"
about = "A node that asks, and a host."
[[node]]
label = "asks"
class = "device"
memory_budget = "1 kB"
[[node]]
label = "hosts"
class = "edge"
memory_budget = "1 GiB"
"#;

fn play(scenario: &Scenario) -> Result<(Verdict, Document)> {
    let _turn = trial::turn()?;
    let binary = trial::stormo()?.binary;
    let ground = scenario.ground(scenario.seed);
    let played = play::play(scenario, ground, scenario.seed, &binary, None, &mut |_| {})?;
    let verdict = judge::judge(&scenario.expect, &played.history, &played.truth);
    let document =
        Document::new(scenario, ground, scenario.seed, 0, &played.history, &played.deployed, verdict.clone());
    Ok((verdict, document))
}

fn failed(verdict: &Verdict) -> Vec<&str> {
    verdict.checks.iter().filter(|check| !check.holds).map(|check| check.what.as_str()).collect()
}

#[test]
fn a_replica_makes_good_for_a_killed_host() -> Result<()> {
    let scenario = Scenario::load(Path::new("short-killed"))?;
    let (verdict, document) = play(&scenario)?;
    ensure!(verdict.holds(), "{:#?}\n{:#?}", verdict.checks, verdict.bad);
    ensure!(verdict.counts.begun == verdict.counts.right, "{:?}", verdict.counts);
    // The report says what was done to whom, and needs nothing else to be read.
    let page = page(&document);
    ensure!(page.contains("kill ") && page.contains("<svg") && page.ends_with("</html>\n"));
    ensure!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    Ok(())
}

#[test]
fn a_promise_that_is_broken_is_seen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("two.toml"), TWO)?;
    let path = folder.path().join("one-host.toml");
    fs::write(&path, ONE_HOST)?;
    let (verdict, _) = play(&Scenario::load(&path)?)?;
    // Without another host callers must be told so: that is no loss, but it is an error.
    ensure!(failed(&verdict) == ["requests told an error"], "{:#?}\n{:#?}", verdict.checks, verdict.errors);
    ensure!(verdict.counts.failed > 0 && verdict.counts.right > 0, "{:?}", verdict.counts);
    ensure!(verdict.counts.lost + verdict.counts.wrong == 0, "{:#?}", verdict.bad);
    Ok(())
}

#[test]
fn nothing_starts_for_a_file_that_cannot_be_meant() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("two.toml"), TWO)?;
    let path = folder.path().join("wrong.toml");
    let cases = [
        (ONE_HOST.replace("\"hosts\"", "\"nobody\""), 21, "`node`: the topology has no node `nobody`"),
        (ONE_HOST.replace("\"kill\"", "\"curse\""), 20, "`kind`: there is no fault `curse`"),
        (ONE_HOST.replace("rate_per_s = 30", "rate_per_s = -1"), 16, "`rate_per_s` is -1"),
    ];
    for (text, line, words) in cases {
        fs::write(&path, text)?;
        let ran = mesh(&["run", &path.to_string_lossy()])?;
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        let place = format!("error: {}:{line}: ", path.display());
        ensure!(ran.status.code() == Some(1), "{:?}: {told}", ran.status);
        ensure!(told.starts_with(&place) && told.contains(words), "wanted {place}{words}: {told}");
        ensure!(ran.stdout.is_empty(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
    Ok(())
}

#[test]
fn nothing_starts_for_what_cannot_be_asked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("two.toml"), TWO)?;
    let (quiet, _) = ONE_HOST.split_once("[[fault]]").context("it has a fault")?;
    let file = |name: &str, text: &str| -> Result<String> {
        fs::write(folder.path().join(name), text)?;
        Ok(folder.path().join(name).to_string_lossy().into_owned())
    };
    let quiet_file = file("quiet.toml", quiet)?;
    let everywhere = file("everywhere.toml", &quiet.replace("[\"asks\"]", "[\"asks\", \"hosts\"]"))?;
    let signs = file("signs.toml", &TWO.replace("\"hosts\"", "\"\\u001b[2Jhosts\""))?;
    let cases: [(&[&str], &str); 9] = [
        (
            &["run", "my/nosuch"],
            "my/nosuch: No such file or directory (os error 2); by name there are: battery-empty, ",
        ),
        (&["up", "nosuch"], "there are: campus, demo, "),
        (&["run", "nosuch"], "there are: battery-empty, chaos, "),
        (&["up", &signs], "label `\\u{1b}[2Jhosts`: letters, digits"),
        (&["chaos", "short-killed", "--seed", "1"], "has faults of its own"),
        (
            &["chaos", &quiet_file, "--seed", "1"],
            "nothing to disturb: a part of a deployment is on one node only",
        ),
        (&["chaos", &everywhere, "--seed", "1"], "nothing to disturb: requests enter at every node"),
        (
            &["run", "short-link", "--loopback"],
            "the fault `link` needs emulated links and machines: leave out --loopback",
        ),
        (&["run", "power-loss", "--loopback"], "the fault `power_loss` needs emulated"),
    ];
    for (words, says) in cases {
        let ran = mesh(words)?;
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        ensure!(ran.status.code() == Some(1) && told.contains(says), "{words:?}: wanted `{says}`: {told}");
    }
    Ok(())
}

#[test]
fn a_run_that_fails_keeps_the_report_of_an_earlier_one_aside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let reports = ["report.json", "report.html"].map(|name| folder.path().join(name));
    for report in &reports {
        fs::write(report, "earlier")?;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormo-testnet"));
    // The node cannot be built.
    command.args(["run", "short-steady", "--loopback", "--out"]).arg(folder.path()).env("CARGO", "false");
    let ran = command.output()?;
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    let aside = folder.path().join("earlier-1");
    ensure!(ran.status.code() == Some(1) && told.contains(&aside.display().to_string()), "{ran:?}");
    for report in &reports {
        // It would be taken for this run's.
        ensure!(!report.exists(), "{}", report.display());
        let kept = aside.join(report.file_name().context("a name")?);
        ensure!(fs::read_to_string(&kept)? == "earlier", "{}", kept.display());
    }
    Ok(())
}

#[test]
fn scenarios_are_listed_with_purpose_and_duration() -> Result<()> {
    let told = String::from_utf8(mesh(&["scenarios"])?.stdout)?;
    ensure!(told.lines().any(|line| line.contains("soak") && line.contains("7200 s")), "{told}");
    let listed: serde_json::Value = serde_json::from_slice(&mesh(&["scenarios", "--json"])?.stdout)?;
    let listed = listed["scenarios"].as_array().context("a list")?;
    let files = fs::read_dir(stormo_testnet::scenario::folder())?.flatten();
    let files = files.filter(|entry| entry.path().extension() == Some("toml".as_ref())).count();
    ensure!(listed.len() == files, "{listed:?}");
    for one in listed {
        let is_whole =
            one["name"].is_string() && one["about"].is_string() && one["duration_s"].as_f64() > Some(0.0);
        ensure!(is_whole && one["needs_emulation"].is_boolean(), "{one}");
    }
    Ok(())
}

#[test]
fn simulations_that_miss_an_aim_or_show_nothing_end_with_1() -> Result<()> {
    let asked = [
        "simulate",
        "--nodes",
        "3",
        "--minutes",
        "0.5",
        "--warm-up",
        "5",
        "--partition",
        "5",
        "--requests",
        "0",
    ];
    let run = |more: &[&str]| mesh(&[&asked[..], more].concat());
    let nobody = run(&["--loss", "1"])?;
    let told = String::from_utf8(nobody.stdout)?;
    ensure!(nobody.status.code() == Some(1), "{:?}: {told}", nobody.status);
    let has_verdict = told.contains("reached") || told.contains("MISSED");
    ensure!(told.contains("nothing could be judged") && !has_verdict, "{told}");
    let seeds = run(&["--seeds", "1..2", "--json", "--loss", "1"])?;
    ensure!(seeds.status.code() == Some(1), "{:?}", seeds.status);
    let told: serde_json::Value = serde_json::from_slice(&seeds.stdout)?;
    ensure!(told["holds"] == false && told["seeds_missed"] == serde_json::json!([1, 2]), "{told}");
    let runs = told["runs"].as_array().context("runs")?;
    ensure!(runs.len() == 2 && runs[1]["spec"]["seed"] == 2 && runs[1]["missed"][0].is_string(), "{told}");
    let one = run(&["--json"])?;
    let told: serde_json::Value = serde_json::from_slice(&one.stdout)?;
    ensure!(told["holds"] == (one.status.code() == Some(0)) && told["measured"].is_object(), "{told}");
    Ok(())
}

fn mesh(arguments: &[&str]) -> Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_stormo-testnet")).args(arguments).output().context("cargo mesh")
}

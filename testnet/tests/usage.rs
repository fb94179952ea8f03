//! Exit codes of `cargo mesh`: 2 for values that no command can mean, 1 for what is refused, in one form.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use stormo_testnet::{binary, trial};

const BINARY: &str = env!("CARGO_BIN_EXE_stormo-testnet");

fn mesh(words: &[&str]) -> Result<Output> {
    Command::new(BINARY).args(words).output().context("cargo mesh")
}

/// A command that must end with this code and say this; nothing is started for it.
fn ends(words: &[&str], code: i32, says: &str) -> Result<()> {
    let ran = mesh(words)?;
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.code() == Some(code), "{words:?} ended with {}: {told}", ran.status);
    ensure!(told.starts_with("error: ") && told.contains(says), "{words:?}: wanted `{says}`: {told}");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    let minutes = "'--minutes <MINUTES>': minutes, from 0.5 to 120";
    let chaos = |more: [&'static str; 2]| [&["chaos", "--seed", "1"][..], &more].concat();
    for (more, says) in [
        (["--minutes", "nan"], minutes),
        (["--minutes", "-1"], minutes),
        (["--at-once", "0"], "'--at-once <FAULTS>': a whole number from 1 to 64"),
        (["--repeats", "0"], "'--repeats <COUNT>': a whole number from 1 to 100"),
        (["--tries", "few"], "--tries"),
        (["--seed", "x"], "--seed"),
    ] {
        ends(&chaos(more), 2, says)?;
    }
    let cases: [(&[&str], &str); 32] = [
        (&["fly"], "unrecognized subcommand"),
        (&["demo", "--fast"], "--fast"),
        (&["run"], "<SCENARIO>"),
        (&["run", "steady", "--seed", "-1"], "-1"),
        (&["up"], "<TOPOLOGY>"),
        (&["up", "loopback", "--seed", "one"], "--seed"),
        (&["scenarios", "steady"], "steady"),
        (&["compare", "a.json"], "<SECOND>"),
        (&["compare", "a", "b", "--above", "nan"], "'--above <PERCENT>': percent, from 0 to 1000000"),
        (&["compare", "a", "b", "--above", "-5"], "percent, from 0 to 1000000"),
        (&["plan"], "<INSTANCE>"),
        (&["plan", "--topology", "thesis"], "--model"),
        (&["plan", "x.json", "--planner", "best"], "--planner"),
        (
            &["plan", "--topology", "thesis", "--model", "x", "--objective", "best"],
            "latency, throughput or energy",
        ),
        (&["simulate", "--nodes", "1"], "--nodes: 1; it must be from 2 to 10000 nodes"),
        (&["simulate", "--nodes", "99999"], "--nodes"),
        (&["simulate", "--loss", "2"], "--loss"),
        (&["simulate", "--starved", "nan"], "--starved"),
        (&["simulate", "--minutes", "0"], "minutes, from 0.2 to 240"),
        (&["simulate", "--latency", "-1"], "milliseconds, from 0 to 10000"),
        (&["simulate", "--apart", "60000"], "--apart"),
        (&["simulate", "--partition", "9999"], "--partition"),
        (&["simulate", "--seeds", "5..1"], "write `1..20`"),
        (&["bench"], "Usage"),
        (&["bench", "chain", "--model", "none"], "--model none: no such network; there are digits"),
        (&["bench", "predict", "--ranges", "0"], "a whole number from 1 to"),
        (&["bench", "lookup", "--requests", "0"], "a whole number from 1 to"),
        (&["bench", "choice", "--rounds", "0"], "a whole number from 1 to"),
        (&["bench", "gossip", "--nodes", "1"], "--nodes"),
        (&["bench", "gossip", "--latency", "-1"], "milliseconds, from 0 to 1000"),
        (&["bench", "gossip", "--changes", "100000"], "--changes"),
        (&["bench", "peers", "--rounds", "0"], "a whole number from 1 to"),
    ];
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|(words, says)| {
            // clap prints the commands alone where one is missing.
            if **words == ["bench"] {
                let code = mesh(words).ok()?.status.code();
                return (code != Some(2)).then(|| format!("bench: {code:?}"));
            }
            ends(words, 2, says).err().map(|error| error.to_string())
        })
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[test]
fn what_is_refused_ends_with_1_and_names_file_and_line() -> Result<()> {
    let scenarios = stormo_testnet::scenario::folder();
    let line = |name: &str, of: &str| -> Result<usize> {
        let text = fs::read_to_string(scenarios.join(name).with_extension("toml"))?;
        let faults = text.split("[[fault]]").next().unwrap_or_default().lines().count();
        ensure!(text.contains(of), "{name} has no {of}");
        Ok(faults + 1)
    };
    let refused = |name: &str, fault: &str| -> Result<()> {
        let says = format!(
            "{}:{}: the fault `{fault}` needs emulated links and machines: leave out --loopback",
            scenarios.join(name).with_extension("toml").display(),
            line(name, fault)?
        );
        ends(&["run", name, "--loopback"], 1, &says)
    };
    refused("short-link", "link")?;
    refused("power-loss", "power_loss")?;
    ends(&["run", "nosuch"], 1, "there are: battery-empty")?;
    ends(&["compare", "nosuch.json", "b"], 1, "nosuch.json")?;
    ends(&["plan", "nosuch.json"], 1, "nosuch.json cannot be read")?;
    ends(&["bench", "choice", "--topology", "nosuch"], 1, "there are: campus, demo")
}

/// Runs a copy as a user without rights, which cannot read the workspace everywhere.
fn as_nobody(folder: &Path, words: &[&str]) -> Result<Output> {
    let copy = folder.join("stormo-testnet");
    if !copy.exists() {
        fs::copy(BINARY, &copy)?;
        for path in [folder, &copy] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(words);
    command.current_dir(folder).output().context("setpriv")
}

#[test]
fn without_root_it_is_said_what_is_needed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let is_root = rustix::process::geteuid().is_root();
    let can_read = || {
        let topologies = binary::workspace_root().join("topologies");
        let mut seen = Command::new("setpriv");
        seen.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"]);
        seen.arg(topologies).output().is_ok_and(|seen| seen.status.success())
    };
    if is_root && !can_read() {
        trial::skipped("without root: no `setpriv`, or a workspace that others do not read");
        return Ok(());
    }
    let ran = |words: &[&str]| if is_root { as_nobody(folder.path(), words) } else { mesh(words) };
    let choice = ran(&["bench", "choice"])?;
    let told = String::from_utf8_lossy(&choice.stderr).into_owned();
    let says = "error: topology `thesis` needs emulated links and machines: it takes root";
    ensure!(choice.status.code() == Some(1) && told.contains(says), "{:?}: {told}", choice.status);
    ensure!(choice.stdout.is_empty(), "{}", String::from_utf8_lossy(&choice.stdout));
    let skipped = ran(&["run", "short-link"])?;
    let told = String::from_utf8_lossy(&skipped.stderr).into_owned();
    let path = stormo_testnet::scenario::folder().join("short-link.toml");
    ensure!(told.starts_with(&format!("skipped: {}:", path.display())), "{told}");
    ensure!(
        skipped.status.code() == Some(3)
            && told.contains(" needs emulated links and machines: it takes root"),
        "{told}"
    );
    Ok(())
}

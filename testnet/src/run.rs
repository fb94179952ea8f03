//! `cargo mesh run`: a scenario played and judged.

pub(crate) mod results;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use stormo::files;
use stormo_testnet::counted::counted;
use stormo_testnet::ground::{EMULATION, GroundKind, network};
use stormo_testnet::judge::{self, Check, LoadCounts, Verdict};
use stormo_testnet::play::{self, Played};
use stormo_testnet::printable::printable;
use stormo_testnet::report::{Document, page};
use stormo_testnet::scenario::{Need, Scenario, Unshown};
use stormo_testnet::topology::Topology;
use stormo_testnet::{binary, clock, interrupt};

use crate::narrator::Narrator;
use crate::table::{Align, Table};
use crate::told;
use results::Results;

/// Of the requests that went wrong, those that the terminal shows.
const BAD_SHOWN: usize = 5;
/// Of healthy nodes that were left out of plans, those that the terminal shows.
const LEFT_OUT_SHOWN: usize = 3;
/// Of faults that no request came near, those that the terminal shows.
const ALONE_SHOWN: usize = 5;
/// What a run leaves to read.
const REPORT_JSON: &str = "report.json";
const REPORT_HTML: &str = "report.html";
const LOGS: &str = "logs";

/// What to run, and where its reports go.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A file, or the name of one in `testnet/scenarios/` (`steady`)
    scenario: PathBuf,
    /// Begin chance here instead of where the scenario says
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Plain processes, without the links and limits that the topology asks for
    #[arg(long)]
    loopback: bool,
    /// Where the report and the nodes' logs go; what an earlier run left there is moved to `earlier-1` in it, or the next
    /// number [default: target/scenarios/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the JSON document; what happens is told on standard error
    #[arg(long)]
    json: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All that was demanded holds.
    Well,
    /// Some of it does not.
    Badly,
    /// It needs what this machine, or this user, does not have.
    Skipped,
}

/// Runs it.
pub(crate) fn run(args: &RunArgs) -> Result<Ended> {
    let scenario = Scenario::load(&args.scenario)?;
    let narrator = Narrator::new(args.json);
    narrator.say(&scenario.about);
    if let Some(Need { line, what }) = scenario.fault_that_needs_emulation().filter(|_| args.loopback) {
        bail!("{}:{line}: {what} needs {EMULATION}: leave out --loopback", scenario.path.display());
    }
    if let Some(Unshown { field, why }) = scenario.unshown().first() {
        let (path, line) = (scenario.path.display(), scenario.line_of_demand(field));
        bail!("{path}:{line}: `{field}` cannot hold: {why}");
    }
    if let Some(why) = cannot(&scenario, args.loopback) {
        note!("skipped: {}", printable(&why));
        return Ok(Ended::Skipped);
    }
    let seed = args.seed.unwrap_or(scenario.seed);
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&scenario));
    let ground = ground(&scenario, seed, args.loopback);
    if let Some(lacking) = lacking(&scenario.topology, args.loopback) {
        narrator.say(lacking);
    }
    let ran = ran(&scenario, ground, seed, &folder, &narrator)?;
    if args.json {
        told::document(&serde_json::to_string_pretty(&ran)?);
    }
    Ok(if ran.holds { Ended::Well } else { Ended::Badly })
}

/// Why a scenario cannot be played here.
pub(crate) fn cannot(scenario: &Scenario, is_on_loopback: bool) -> Option<String> {
    let lacks = |needed: Option<Need>, had: fn() -> Result<(), String>, lacking: &str| {
        let (Need { line, what }, why) = (needed?, had().err()?);
        Some(format!("{}:{line}: {what} needs {lacking}: {why}", scenario.path.display()))
    };
    let needed = scenario.needs_emulation().filter(|_| !is_on_loopback);
    let emulated = lacks(needed, network::is_possible, EMULATION).map(|why| {
        match scenario.fault_that_needs_emulation().is_some() {
            true => why,
            false => format!("{why} (--loopback plays without them)"),
        }
    });
    emulated.or_else(|| lacks(scenario.needs_clocks(), clock::is_possible, "clocks that can be put wrong"))
}

/// What a scenario stands on, if it may.
pub(crate) fn ground(scenario: &Scenario, seed: u64, is_on_loopback: bool) -> GroundKind {
    if is_on_loopback { GroundKind::Loopback } else { scenario.ground(seed) }
}

/// What a mesh on loopback has not, in words, if its file asks for it.
pub(crate) fn lacking(topology: &Topology, is_on_loopback: bool) -> Option<&'static str> {
    let is_lacking = is_on_loopback && topology.is_shaped();
    is_lacking
        .then_some("On loopback, as asked for: none of the links and limits of the topology's file hold.")
}

fn default_folder(scenario: &Scenario) -> PathBuf {
    let name = scenario.path.file_stem().unwrap_or_default();
    binary::workspace_root().join("target/scenarios").join(name)
}

/// Plays, judges, writes and tells.
pub(crate) fn ran(
    scenario: &Scenario,
    ground: GroundKind,
    seed: u64,
    folder: &Path,
    narrator: &Narrator,
) -> Result<Document> {
    let results = Results::open(folder, |name| [REPORT_JSON, REPORT_HTML, LOGS].contains(&name))?;
    if let Some(earlier) = &results.earlier {
        narrator.say(&format!("what an earlier run left is in {} now", earlier.display()));
    }
    let logs = folder.join(LOGS);
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let document = judged(scenario, ground, seed, &logs, narrator)?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        files::write_whole(&path, text.as_bytes()).with_context(|| path.display().to_string())
    };
    let html = page(&document);
    let json = serde_json::to_string_pretty(&document)?;
    let written = write(REPORT_JSON, &json).and_then(|()| write(REPORT_HTML, &html));
    // What was found out is told, though there may be no room for it.
    let report = written.is_ok().then(|| folder.join(REPORT_HTML));
    tell_all(&document, report.as_deref(), narrator);
    written.map(|()| document)
}

/// Plays and judges.
fn judged(
    scenario: &Scenario,
    ground: GroundKind,
    seed: u64,
    logs: &Path,
    narrator: &Narrator,
) -> Result<Document> {
    let binary = binary::build()?;
    let began_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Played { history, truth, deployed } =
        play::play(scenario, ground, seed, &binary, Some(logs), &mut |line| narrator.say(line))?;
    if interrupt::is_noted() {
        bail!("interrupted");
    }
    let verdict = judge::judge(&scenario.expect, &history, &truth);
    Ok(Document::new(scenario, ground, seed, began_unix_s, &history, &deployed, verdict))
}

fn tell_all(document: &Document, report: Option<&Path>, narrator: &Narrator) {
    tell(&document.verdict, narrator);
    let alone = || document.faults.iter().filter(|fault| fault.requests == 0 && fault.failed.is_none());
    for fault in alone().take(ALONE_SHOWN) {
        narrator.say(&format!(
            "{:.2} s, {}: no request ran there, so it shows nothing",
            fault.begun_s, fault.what
        ));
    }
    if let Some(more) = alone().count().checked_sub(ALONE_SHOWN).filter(|more| *more > 0) {
        narrator.say(&format!("and {more} more of the kind; the report has them"));
    }
    if let Some(told) = document.starved.as_ref().filter(|_| !document.holds) {
        narrator.say(told);
    }
    for battery in &document.batteries {
        let each =
            battery.j_per_answer.map_or(String::new(), |joules| format!(", {joules:.3} J for each answer"));
        let end = match battery.emptied_s {
            Some(at_s) => format!("empty at {at_s:.1} s"),
            None => format!("{:.1} % left", battery.level * 100.0),
        };
        narrator.say(&format!("battery of {}: {:.1} J drawn{each}; {end}", battery.node, battery.drawn_j));
    }
    let report = report.map_or(String::new(), |report| format!("; report: {}", report.display()));
    narrator.say(&format!("seed {}{report}", document.seed));
}

fn tell(verdict: &Verdict, narrator: &Narrator) {
    narrator.gap();
    narrator.table(&checks(&verdict.checks));
    if let Some(latency) = verdict.latency {
        narrator.gap();
        narrator.say(&format!(
            "{}, {:.1} a second; latency {:.2} ms (median), {:.2} ms (99 of 100), {:.2} ms at most",
            counted(latency.count, "right answer"),
            verdict.right_per_s,
            latency.p50_ms,
            latency.p99_ms,
            latency.max_ms
        ));
    }
    if verdict.loads.len() > 1 {
        let each =
            |(place, of): (usize, &LoadCounts)| format!("load {}: {} of {}", place + 1, of.right, of.ended);
        let loads: Vec<String> = verdict.loads.iter().enumerate().map(each).collect();
        narrator.say(&format!("right answers of each load: {}", loads.join("; ")));
    }
    for of in verdict.left_out.iter().take(LEFT_OUT_SHOWN) {
        narrator.say(&format!(
            "{} left {} out of its plans for {:.2} s in all ({:.2} s at once), and no fault says why",
            of.by, of.node, of.total_s, of.longest_s
        ));
    }
    for told in verdict.bad.iter().take(BAD_SHOWN) {
        narrator.say(&format!(
            "request {} at {:.2} s, {:.1} ms: {}: {}",
            told.serial,
            told.at_s,
            told.latency_ms,
            told.class.name(),
            told.why
        ));
    }
    narrator.gap();
}

fn checks(checks: &[Check]) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("demanded", Align::Left),
        ("wanted", Align::Left),
        ("got", Align::Left),
    ]);
    for check in checks {
        let mark = if check.holds { "✓" } else { "✗" };
        table.row([mark.to_owned(), check.what.clone(), check.wanted.clone(), check.got.clone()]);
    }
    table
}

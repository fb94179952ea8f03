//! Networks in five parts on five processes of this machine: their latency beside that of the same
//! networks in one piece plus what the same bytes take over bare libp2p streams, all from one run.

mod measure;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use stormo_testnet::{binary, digits, interrupt, surroundings};

use crate::table::{Align, Table};
use crate::told::tell;
use measure::Measured;

/// What bare streams take may grow by so much in a chain, all that is not a stage's run included.
const STREAMS_FACTOR_MAX: f64 = 1.15;
/// VGG-19 computes much for each byte that crosses.
const VGG_RATIO_MAX: f64 = 1.10;

/// A network to measure.
struct Case {
    name: &'static str,
    model: PathBuf,
    /// Real inputs; without them, a pattern.
    golden: Option<PathBuf>,
    target: Target,
}

/// What is wanted of a network's chain.
#[derive(Clone, Copy)]
enum Target {
    /// Nothing: it is so small that a chain of it is a matter of round trips.
    None,
    /// At most the undivided latency and what the streams may take.
    Streams,
    /// Besides, at most the undivided latency times this.
    StreamsAndRatio(f64),
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    models: Vec<ModelReport>,
    /// Networks that were not measured, and why.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    #[serde(flatten)]
    measured: Measured,
    /// Undivided latency and the streams' time as far as it may grow.
    allowed_ms: f64,
    /// The runs of the chain's sessions and the bare streams' time: a chain whose frames take what bare streams do.
    /// Within one machine it may take less.
    runs_and_streams_ms: f64,
    /// Latency of the chain by the undivided one.
    ratio: f64,
    /// What dividing adds, in times of the bare streams.
    added_by_streams: f64,
    /// Whether the target holds; `null` where there is none.
    holds: Option<bool>,
}

/// Measures and prints.
pub(super) fn run(is_json: bool, only: &[String]) -> Result<()> {
    let (cases, mut left_out) = cases();
    super::ensure_known(only, &cases.iter().map(|case| case.name).collect::<Vec<_>>())?;
    let binary = binary::build()?;
    let mut models = Vec::new();
    for case in cases.into_iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name))
    {
        if interrupt::is_noted() {
            break;
        }
        note!("{}: dividing it, then sending it inputs in turns", case.name);
        match measure::measure(&binary, &case) {
            Ok(measured) => models.push(judged(&case, measured)),
            Err(error) => left_out.push(format!("{}: {error:#}", case.name)),
        }
    }
    let report = Report { models, left_out };
    super::kept::show("chain", is_json, &report, print)
}

/// What is in the tree, what lies around it, and what of that is missing.
fn cases() -> (Vec<Case>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut cases = vec![Case { name: "digits", model: digits::model(), golden: None, target: Target::None }];
    match surroundings::shared_models() {
        Some(folder) => cases.extend(["squeezenet_fp32", "nanodet_m_416"].map(|name| {
            let golden = Some(folder.join("golden").join(name).with_extension("npz"));
            Case { name, model: folder.join(name).with_extension("onnx"), golden, target: Target::Streams }
        })),
        None => left_out.push(format!(
            "SqueezeNet and NanoDet: no shared models; set {} to the folder that holds `models`",
            surroundings::SHARED
        )),
    }
    match surroundings::light_models() {
        Some(folder) => {
            let networks = [
                ("light_resnet50", Target::Streams),
                ("light_vgg19", Target::StreamsAndRatio(VGG_RATIO_MAX)),
            ];
            cases.extend(networks.map(|(name, target)| Case {
                name,
                model: folder.join(name).with_extension("onnx"),
                golden: None,
                target,
            }));
        }
        None => left_out.push(format!(
            "ResNet-50 and VGG-19: no Python with `onnx` and its light models; `pip install onnx`, or set {} \
             to the Python of an environment that has it",
            surroundings::PYTHON
        )),
    }
    (cases, left_out)
}

fn judged(case: &Case, measured: Measured) -> ModelReport {
    let Measured { whole_ms, bare_streams_ms, chain_ms, runs_ms, .. } = measured;
    let allowed_ms = whole_ms + STREAMS_FACTOR_MAX * bare_streams_ms;
    let runs_and_streams_ms = runs_ms + bare_streams_ms;
    let ratio = chain_ms / whole_ms;
    let holds = match case.target {
        Target::None => None,
        Target::Streams => Some(chain_ms <= allowed_ms),
        Target::StreamsAndRatio(ratio_max) => Some(chain_ms <= allowed_ms && ratio <= ratio_max),
    };
    let added_by_streams = (chain_ms - whole_ms) / bare_streams_ms;
    ModelReport {
        model: case.name.to_owned(),
        measured,
        allowed_ms,
        runs_and_streams_ms,
        ratio,
        added_by_streams,
        holds,
    }
}

fn print(report: &Report) {
    tell!(
        "Networks in one piece and in {} parts on as many processes of this machine; medians of inputs sent in \
         turns, ms.\n",
        measure::PARTS
    );
    let mut target = table(&[
        "rounds",
        "bytes sent",
        "whole",
        "bare streams",
        "allowed",
        "runs+streams",
        "chain",
        "predicted",
        "chain/whole",
        "added/streams",
        "target",
    ]);
    let mut parts = table(&["in one session", "whole: its run", "chain: its runs", "transfers", "all else"]);
    for report in &report.models {
        target.row(against_target(report));
        parts.row(in_detail(report));
    }
    target.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\nwhole, chain: from a request's arrival at a node to its result there; bare streams: the same bytes from\n\
         process to process over libp2p streams, with nothing else; allowed: whole + {STREAMS_FACTOR_MAX} x bare streams,\n\
         and of VGG-19 at most {VGG_RATIO_MAX} x whole; runs+streams: the runs of the chain's sessions and the bare\n\
         streams; added/streams: what dividing adds, in times of the bare streams. Frames themselves go over\n\
         Unix sockets within one machine, so that a chain may take less than runs and streams together.\n"
    );
    parts.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\nin one session: the file run in this process, without a node; transfers: from the first byte to the last\n\
         of each; all else: the way there, signs, hand-overs, the origin's own work."
    );
    report.left_out.iter().for_each(|why| tell!("left out: {why}"));
}

fn table(figures: &[&'static str]) -> Table {
    let figures = figures.iter().map(|title| (*title, Align::Right));
    Table::new(&[("model", Align::Left)].into_iter().chain(figures).collect::<Vec<_>>())
}

fn ms(time_ms: f64) -> String {
    format!("{time_ms:.2}")
}

fn against_target(report: &ModelReport) -> [String; 12] {
    let measured = &report.measured;
    [
        report.model.clone(),
        measured.rounds.to_string(),
        measured.hops_bytes.iter().sum::<u64>().to_string(),
        ms(measured.whole_ms),
        ms(measured.bare_streams_ms),
        ms(report.allowed_ms),
        ms(report.runs_and_streams_ms),
        ms(measured.chain_ms),
        ms(measured.chain_predicted_ms),
        format!("{:.3}", report.ratio),
        ms(report.added_by_streams),
        match report.holds {
            Some(true) => "holds",
            Some(false) => "missed",
            None => "none",
        }
        .to_owned(),
    ]
}

fn in_detail(report: &ModelReport) -> [String; 6] {
    let measured = &report.measured;
    let figures = [
        measured.session_ms,
        measured.whole_run_ms,
        measured.runs_ms,
        measured.transfers_ms,
        measured.rest_ms,
    ];
    let [session, whole_run, runs, transfers, rest] = figures.map(ms);
    [report.model.clone(), session, whole_run, runs, transfers, rest]
}

//! `cargo mesh bench`: measurements, each beside what it is to be compared with, from the same run.

pub(crate) mod bare;
mod batching;
mod chain;
mod choice;
mod codec;
mod gossip;
mod hop;
mod kept;
mod link;
mod lookup;
mod peers;
mod plan;
mod predict;
mod ring;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::options::Misuse;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Requests of several callers that a node runs together, beside the same each alone
    Batching(batching::Options),
    /// Networks in five parts on five processes, beside the same networks in one piece and bare streams
    Chain {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        /// Only this network; may be repeated
        #[arg(long, value_name = "NAME")]
        model: Vec<String>,
    },
    /// Fixed ways to run networks on a topology and the planner's free choice, in turns: latency, and what the device
    /// draws; needs root where the topology has links and limits
    Choice(choice::Options),
    /// Payload codecs on real activations: speed, size, and what coding a cut does to the answers
    Codec {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        /// A folder of models (`NAME.onnx`) and inputs for them (`golden/NAME.npz`); the digits are
        /// always measured
        #[arg(long, value_name = "DIR")]
        models: Option<PathBuf>,
    },
    /// The simulation's model of gossip beside real nodes: delays of changes, and bytes
    Gossip(gossip::Options),
    /// What a stage on another node adds when it computes nothing, beside bare streams
    Hop {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Emulated links: what is asked of them beside what `ping` and `iperf3` find; needs root
    Link {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// What a request pays for its plan: one at hand beside one made for it
    Lookup(lookup::Options),
    /// The mesh beside servers and pipelines that a user would run instead, if their scripts are at hand
    Peers(peers::Options),
    /// The default planner on generated meshes, beside proven optima: how far off, how quick
    Plan(plan::Options),
    /// How well times of ranges that nobody measured are told, and how long dividing and profiling takes
    Predict(predict::Options),
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Batching(options) => batching::run(options),
        Bench::Chain { json, model } => chain::run(*json, model),
        Bench::Choice(options) => choice::run(options),
        Bench::Codec { json, models } => codec::run(*json, models.as_deref()),
        Bench::Gossip(options) => gossip::run(options),
        Bench::Hop { json } => hop::run(*json),
        Bench::Link { json } => link::run(*json),
        Bench::Lookup(options) => lookup::run(options),
        Bench::Peers(options) => peers::run(options),
        Bench::Plan(options) => plan::run(options),
        Bench::Predict(options) => predict::run(options),
    }
}

/// That all names given are among those that can be measured.
fn ensure_known(given: &[String], known: &[&str]) -> Result<()> {
    let unknown: Vec<&str> = given.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let (unknown, known) = (unknown.join(", --model "), known.join(", "));
    Err(Misuse(format!("--model {unknown}: no such network; there are {known}")).into())
}

//! What a benchmark leaves behind: its figures with the machine that they come from, as JSON.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::machine::Machine;

use crate::told;

/// Where results are kept, in the workspace.
const FOLDER: &str = "target/measured";

/// The JSON document of a benchmark.
#[derive(Serialize)]
struct Document<'a, T> {
    benchmark: &'a str,
    /// Version of the testnet, and so of the nodes that it builds.
    version: &'static str,
    measured_unix_s: u64,
    machine: Machine,
    figures: &'a T,
}

/// Prints the figures, as JSON or by `print`, and keeps them.
pub(super) fn show<T: Serialize>(
    benchmark: &str,
    is_json: bool,
    figures: &T,
    print: impl FnOnce(&T),
) -> Result<()> {
    let measured_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let version = env!("CARGO_PKG_VERSION");
    let document = Document { benchmark, version, measured_unix_s, machine: Machine::here(), figures };
    let text = serde_json::to_string_pretty(&document)?;
    if is_json {
        told::document(&text);
    } else {
        print(figures);
    }
    // Last, so that a full disk costs the file alone.
    let file = keep(benchmark, measured_unix_s, &text)?;
    note!("kept in {}; `cargo mesh compare` sets two such files side by side", file.display());
    Ok(())
}

fn keep(benchmark: &str, measured_unix_s: u64, text: &str) -> Result<PathBuf> {
    let folder = workspace_root().join(FOLDER);
    let file = folder.join(format!("{benchmark}-{measured_unix_s}.json"));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, text));
    kept.with_context(|| format!("the figures above could not be kept in {}", file.display()))?;
    Ok(file)
}

//! Thin cuts as the shared models' own tools find them: those that are listed with the models, in the order
//! of their files, and those that no order hides.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stormo_protocol::model::Manifest;
use stormo_testnet::binary::workspace_root;

use crate::models::Model;

/// A place where few bytes cross.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThinPoint {
    /// Share of the floating-point operations before it.
    pub(crate) share: f64,
    pub(crate) bytes: u64,
}

/// Those that are listed with a model.
pub(crate) fn listed(models: &Path, model: &Model) -> Result<Vec<ThinPoint>> {
    let list: Value = serde_json::from_slice(&std::fs::read(models.join("manifest.json"))?)?;
    let file = model.file.file_name().context("a file")?.to_string_lossy();
    let all = list["models"].as_array().context("a list of models")?;
    let described = all.iter().find(|described| described["file"] == *file).context("a listed model")?;
    let points = ["thin_points", "smallest_cut_per_tenth_of_flops"]
        .iter()
        .flat_map(|key| described[key].as_array().into_iter().flatten())
        .map(|point| {
            Some(ThinPoint { share: point["flop_share"].as_f64()?, bytes: point["bytes"].as_u64()? })
        });
    points.collect::<Option<_>>().context("points with `flop_share` and `bytes`")
}

/// Those of the form "all that a tensor needs | the rest".
pub(crate) fn closures(python: &std::ffi::OsString, tools: &Path, model: &Model) -> Result<Vec<ThinPoint>> {
    let script = workspace_root().join("testnet/tests/division/thin_points.py");
    let feed = model.golden.as_ref().context("inputs to measure with")?;
    let ran = Command::new(python).arg(script).args([tools, &model.file, feed]).output()?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout)?;
    let point = |line: &str| {
        let (share, bytes) = line.split_once(' ')?;
        Some(ThinPoint { share: share.parse().ok()?, bytes: bytes.parse().ok()? })
    };
    text.lines().map(point).collect::<Option<_>>().context("lines of two numbers")
}

/// A division's own inner cuts.
pub(crate) fn of_division(manifest: &Manifest) -> Vec<ThinPoint> {
    let total = manifest.blocks.iter().map(|block| block.flops).sum::<u64>().max(1) as f64;
    let mut done = 0;
    let mut points = Vec::new();
    for (cut, block) in (1..manifest.block_count()).zip(&manifest.blocks) {
        done += block.flops;
        points.push(ThinPoint { share: done as f64 / total, bytes: manifest.cut_bytes(cut) });
    }
    points
}

/// How far along the operations the nearest cut is that is as thin as this point.
pub(crate) fn distance(point: ThinPoint, cuts: &[ThinPoint]) -> f64 {
    let as_thin = cuts.iter().filter(|cut| cut.bytes <= point.bytes);
    as_thin.map(|cut| (cut.share - point.share).abs()).fold(1.0, f64::min)
}

/// Fewest bytes within each tenth of the operations, kB; a dash where there is no cut.
pub(crate) fn per_tenth(points: &[ThinPoint]) -> Vec<String> {
    let within = |tenth: usize| {
        points
            .iter()
            .filter(move |point| ((point.share * 10.0) as usize).min(9) == tenth)
            .map(|point| point.bytes)
    };
    let least = |tenth: usize| within(tenth).min();
    (0..10)
        .map(|tenth| least(tenth).map_or("-".into(), |bytes| format!("{:.1}", bytes as f64 / 1e3)))
        .collect()
}

//! `stormo quantize` as a user runs it: what its model still knows, and what it says of models and
//! samples that it can do nothing with.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::binary::{build_once, workspace_root};
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::digits::{self, Image};
use stormo_testnet::oip::{FloatTensor, InferRequest};
use stormo_testnet::reference::Reference;

/// Longest that a small model may take, on a machine that has other work too.
const WITHIN: Duration = Duration::from_secs(240);
/// Difference of outputs, root mean square as a share of their size. Eight bits give 256 steps: an
/// eighth of that, after six layers, is broken.
const ERROR_MAX: f64 = 0.1;

/// What the command prints with `--json`.
#[derive(Debug, Deserialize)]
struct Report {
    output: PathBuf,
    time_ratio: f64,
    answers_same: Option<u64>,
    answers: Option<u64>,
    output_error: f64,
    held_out: bool,
    nodes_int8: usize,
    nodes_float: Vec<String>,
}

fn stormo() -> Result<Stormo> {
    Ok(Stormo { binary: build_once()?.to_path_buf() })
}

fn arguments(words: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

fn card() -> PathBuf {
    workspace_root().join("testnet/models/digits.toml")
}

/// The model's arguments, with samples from a folder and the result elsewhere.
fn on_digits(samples: &Path, out: &Path) -> Vec<OsString> {
    let (model, card) = (digits::model(), card());
    arguments(&[
        &"quantize",
        &model,
        &"--samples",
        &samples,
        &"--card",
        &card,
        &"-o",
        &out,
        &"--search-s",
        &"3",
    ])
}

fn right(model: &Reference, images: &[Image]) -> Result<usize> {
    let mut right = 0;
    for image in images {
        let inputs = InferRequest::new("image", &[1, 1, 8, 8], image.pixels.clone()).inputs;
        right += usize::from(digits::read(&model.whole(&inputs)?) == Some(image.truth));
    }
    Ok(right)
}

#[test]
fn the_small_model_reads_digits_as_well_as_the_one_in_floats() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("digits.int8.onnx");
    let report: Report = stormo()?.json(&on_digits(&digits::folder(), &out), Progress::Kept, WITHIN)?;
    ensure!(report.output == out && report.nodes_int8 > 0, "{report:?}");
    ensure!(report.time_ratio > 0.0 && report.time_ratio.is_finite(), "{report:?}");
    ensure!(report.held_out && report.output_error < ERROR_MAX, "{report:?}");
    ensure!(report.answers_same == report.answers && report.answers > Some(0), "{report:?}");
    let (whole, small) = (fs::metadata(digits::model())?.len(), fs::metadata(&out)?.len());
    ensure!(small * 3 < whole, "{small} bytes instead of {whole}");

    let images = digits::load()?;
    let floats = Reference::of("floats", &digits::model(), OrtLevel::All)?;
    let small = Reference::of("small", &out, OrtLevel::All)?;
    let (by_floats, by_small) = (right(&floats, &images)?, right(&small, &images)?);
    ensure!(by_small >= by_floats, "{by_small} right instead of {by_floats} of {}", images.len());
    Ok(())
}

#[test]
fn arrays_are_samples_too_and_what_is_named_stays_in_floats() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let samples = folder.path().join("samples");
    fs::create_dir(&samples)?;
    for image in digits::load()?.iter().take(3) {
        let input = FloatTensor {
            name: "image".to_owned(),
            shape: vec![1, 1, 8, 8],
            datatype: "FP32".to_owned(),
            data: image.pixels.clone(),
        };
        fs::write(samples.join(format!("{}.npy", image.name)), npy(&input))?;
    }
    let (model, out) = (digits::model(), folder.path().join("out.onnx"));
    let words = arguments(&[&"quantize", &model, &"--samples", &samples, &"-o", &out, &"--search-s", &"0"]);
    let all: Report = stormo()?.json(&words, Progress::Kept, WITHIN)?;
    ensure!(all.answers.is_none() && !all.held_out && all.output_error < ERROR_MAX, "{all:?}");
    let named =
        |report: &Report| report.nodes_float.iter().filter(|name| name.starts_with("block2/")).count();
    let kept: Report = stormo()?.json(
        &[words, arguments(&[&"--keep-float", &"block2/"])].concat(),
        Progress::Kept,
        WITHIN,
    )?;
    ensure!(named(&all) == 0 && named(&kept) == 2, "{all:?} {kept:?}");
    Ok(())
}

/// A version 1 file of the format.
fn npy(tensor: &FloatTensor) -> Vec<u8> {
    let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    let head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", shape.join(", "));
    let padded = format!("{head:<117}\n");
    let length = u16::try_from(padded.len()).unwrap_or_default();
    let mut bytes = [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), padded.as_bytes()].concat();
    bytes.extend(tensor.data.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[test]
fn what_cannot_be_made_small_is_refused_with_the_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.onnx");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty)?;
    let damaged = folder.path().join("damaged");
    fs::create_dir(&damaged)?;
    fs::write(damaged.join("a.png"), b"no image")?;
    let missing = folder.path().join("missing");
    let refused = |words: Vec<OsString>, reason: &str| -> Result<()> {
        let ran = stormo()?.run(&words, Progress::Kept, WITHIN)?;
        ensure!(ran.status.code() == Some(1) && ran.stderr.contains(reason), "{words:?}: {}", ran.stderr);
        ensure!(!out.exists(), "{words:?} wrote a file");
        Ok(())
    };
    refused(on_digits(&empty, &out), "there are no samples in it")?;
    refused(on_digits(&damaged, &out), "a.png")?;
    refused(on_digits(&missing, &out), "missing")?;
    let without_card =
        arguments(&[&"quantize", &digits::model(), &"--samples", &digits::folder(), &"-o", &out]);
    refused(without_card, "--card")?;
    let nothing = [on_digits(&digits::folder(), &out), arguments(&[&"--keep-float", &""])].concat();
    refused(nothing, "nothing to quantise")?;
    let unknown = [on_digits(&digits::folder(), &out), arguments(&[&"--keep-float", &"decode/"])].concat();
    refused(unknown, "--keep-float decode/")?;
    let small = folder.path().join("small.onnx");
    let ran = stormo()?.run(&on_digits(&digits::folder(), &small), Progress::Kept, WITHIN)?;
    ensure!(ran.status.success(), "{}", ran.stderr);
    let (samples, card) = (digits::folder(), card());
    let again = arguments(&[&"quantize", &small, &"--samples", &samples, &"--card", &card, &"-o", &out]);
    refused(again, "quantised already")
}

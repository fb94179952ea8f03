//! Codecs on what really crosses the cuts of real models: rates beside a copy of the same bytes, ratios,
//! and how far answers move when a cut is coded.

mod activations;
mod loss;
mod rates;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::tensor::Tensor;
use stormo_testnet::{arrays, digits, interrupt, oip::FloatTensor, surroundings};

use crate::table::{Align, Table};
use crate::told::tell;
use activations::{Divided, Opened, tensor};
use loss::CutLoss;
use rates::{Rates, Sample};

/// Rates are stated for a tensor of about this size, bytes: the wide cuts of small detectors.
const RATE_BYTES: u64 = 1_600_000;

/// A model and inputs for it.
struct Case {
    name: String,
    model: PathBuf,
    /// One list of inputs for each run, or why they cannot be read.
    samples: Result<Vec<Vec<FloatTensor>>>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    rates: Option<Rates>,
    models: Vec<ModelReport>,
    /// Models that could not be measured, and why.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    cuts: Vec<CutLoss>,
}

/// Measures and prints.
pub(super) fn run(is_json: bool, models: Option<&Path>) -> Result<()> {
    let opened = Opened::new()?;
    let mut report = Report { rates: None, models: Vec::new(), left_out: Vec::new() };
    let mut wide: Option<Sample> = None;
    for case in cases(models)? {
        if interrupt::is_noted() {
            break;
        }
        note!("{}: dividing, and coding its cuts", case.name);
        let Case { name, model, samples } = case;
        match samples.and_then(|samples| measure(&opened, &name, &model, &samples, &mut wide)) {
            Ok(cuts) => report.models.push(ModelReport { model: name, cuts }),
            Err(error) => report.left_out.push(format!("{name}: {error:#}")),
        }
    }
    report.rates = wide.as_ref().map(rates::measure);
    super::kept::show("codec", is_json, &report, print)
}

/// The digits, and what lies in the folder.
fn cases(models: Option<&Path>) -> Result<Vec<Case>> {
    let images = digits::load()?;
    let input = |image: &digits::Image| {
        let shape = vec![1, 1, (image.pixels.len() / image.width) as u64, image.width as u64];
        FloatTensor { name: String::new(), shape, datatype: "FP32".into(), data: image.pixels.clone() }
    };
    let samples = Ok(images.iter().map(|image| vec![input(image)]).collect());
    let mut cases = vec![Case { name: "digits".into(), model: digits::model(), samples }];
    let Some(folder) = models.map(Path::to_owned).or_else(surroundings::shared_models) else {
        return Ok(cases);
    };
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    for model in files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "onnx")) {
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let golden = folder.join("golden").join(&name).with_extension("npz");
        if golden.is_file() {
            let read = arrays::read_golden(&golden).with_context(|| golden.display().to_string());
            cases.push(Case { name, model, samples: read.map(|golden| vec![golden.inputs]) });
        }
    }
    Ok(cases)
}

/// Codes the cuts of a model; keeps in `wide` the activation whose size suits rates best.
fn measure(
    opened: &Opened,
    name: &str,
    model: &Path,
    samples: &[Vec<FloatTensor>],
    wide: &mut Option<Sample>,
) -> Result<Vec<CutLoss>> {
    let file = fs::read(model)?;
    let samples = samples.iter().map(|inputs| inputs.iter().map(tensor).collect());
    let samples = samples.collect::<Result<Vec<Vec<Tensor>>>>()?;
    let divided = Divided::of(opened, name, &file, samples)?;
    let mut losses = Vec::new();
    for cut in divided.cuts() {
        let crossed = divided.cross(cut)?;
        let away = |tensor: &Tensor| (tensor.data().as_bytes().len() as u64).abs_diff(RATE_BYTES);
        let floats = crossed.tensors().filter(|tensor| Codec::Int8.applies_to(tensor.spec()));
        if let Some(tensor) = floats.min_by_key(|tensor| away(tensor))
            && wide.as_ref().is_none_or(|sample| away(tensor) < away(&sample.tensor))
        {
            *wide = Some(Sample { model: name.to_owned(), tensor: tensor.clone() });
        }
        losses.push(loss::measure(&divided, cut, &crossed)?);
    }
    Ok(losses)
}

fn print(report: &Report) {
    if let Some(rates) = &report.rates {
        tell!(
            "one core, `{}` of {}, {:?} ({:.2} MB); copying it: {:.1} GB/s\n",
            rates.tensor,
            rates.model,
            rates.shape,
            rates.bytes as f64 / 1e6,
            rates.copy_gbps
        );
        rates.table().lines().iter().for_each(|line| tell!("{line}"));
    }
    tell!(
        "\nratio of raw to coded bytes at the thinnest cut of each quarter of the work; what f16 and int8 there \
         do\nto the outputs: largest difference in parts of the largest value, and how many of the likeliest \
         classes stay\n"
    );
    let words = [("model", Align::Left), ("work before", Align::Right), ("kB", Align::Right)];
    let codecs = Codec::ALL.iter().skip(1).map(|codec| (codec.name(), Align::Right));
    let losses = ["f16 moves", "same", "int8 moves", "same"].map(|title| (title, Align::Right));
    let columns: Vec<_> = words.into_iter().chain(codecs).chain(losses).collect();
    let mut table = Table::new(&columns);
    for (model, cut) in report.models.iter().flat_map(|model| model.cuts.iter().map(move |cut| (model, cut)))
    {
        table.row(cut.row(&model.model));
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    report.left_out.iter().for_each(|why| tell!("left out: {why}"));
}

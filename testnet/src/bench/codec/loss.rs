//! What coding a cut costs the answers, beside the same two parts with nothing coded between them.

use anyhow::{Context, Result};
use serde::Serialize;
use stormo_protocol::codec::payload::{Codec, CodedTensor, Scratch};
use stormo_protocol::tensor::{DType, Tensor};

use super::activations::{Crossed, Divided, Tensors};

/// One cut of a model under every codec.
#[derive(Debug, Serialize)]
pub(super) struct CutLoss {
    cut: u16,
    /// Share of the floating-point operations before it.
    work_before: f64,
    raw_bytes: u64,
    tensors: Vec<String>,
    codecs: Vec<CodecLoss>,
}

/// A cut under one codec.
#[derive(Debug, Serialize)]
struct CodecLoss {
    codec: &'static str,
    /// Raw bytes in coded ones, mean of the samples.
    ratio: f64,
    /// Largest difference of an output, in parts of that output's largest value.
    difference: f64,
    /// Share of rows of the outputs whose largest element stays the same one.
    agreement: f64,
}

/// Codes a cut by every codec and runs the rest of the model on what comes out.
pub(super) fn measure(divided: &Divided<'_>, cut: u16, crossed: &Crossed) -> Result<CutLoss> {
    let (before, all) = divided.work_before(cut);
    let mut scratch = Scratch::default();
    let codecs = Codec::ALL.into_iter().map(|codec| of_codec(divided, crossed, codec, &mut scratch));
    Ok(CutLoss {
        cut,
        work_before: before as f64 / all.max(1) as f64,
        raw_bytes: divided.manifest.cut_bytes(cut),
        tensors: divided.manifest.cut_specs(cut).map(|spec| spec.name.clone()).collect(),
        codecs: codecs.collect::<Result<_>>()?,
    })
}

fn of_codec(
    divided: &Divided<'_>,
    crossed: &Crossed,
    codec: Codec,
    scratch: &mut Scratch,
) -> Result<CodecLoss> {
    let (mut raw_bytes, mut coded_bytes) = (0, 0);
    let mut compared = Compared::default();
    for sample in &crossed.samples {
        let mut decoded = Tensors::new();
        for (name, tensor) in sample {
            let coded = CodedTensor::encode(codec, tensor, scratch);
            raw_bytes += tensor.data().as_bytes().len();
            coded_bytes += coded.bytes().len();
            decoded.insert(name.clone(), coded.decode(scratch)?);
        }
        let (expected, got) = (answer(divided, crossed, sample)?, answer(divided, crossed, &decoded)?);
        // An output made before the cut left from there, uncoded.
        let behind = divided.manifest.output_specs().filter_map(|spec| expected.get(&spec.name));
        for output in behind {
            let name = &output.spec().name;
            compared.add(output, got.get(name).with_context(|| format!("the output `{name}` is missing"))?);
        }
    }
    Ok(CodecLoss {
        codec: codec.name(),
        ratio: raw_bytes as f64 / coded_bytes.max(1) as f64,
        difference: compared.difference,
        agreement: compared.same_rows as f64 / compared.rows.max(1) as f64,
    })
}

/// What crosses a cut and what is made behind it: all outputs are among them but those made before it.
fn answer(divided: &Divided<'_>, crossed: &Crossed, crossing: &Tensors) -> Result<Tensors> {
    let mut tensors = crossing.clone();
    tensors.extend(divided.run(&crossed.behind, crossing)?);
    Ok(tensors)
}

/// Outputs compared so far.
#[derive(Debug, Default)]
struct Compared {
    difference: f64,
    rows: u64,
    same_rows: u64,
}

impl Compared {
    /// Compares an output; only single precision can be, and other outputs count as equal or not.
    fn add(&mut self, expected: &Tensor, got: &Tensor) {
        let slices = (expected.data().as_slice_of::<f32>(), got.data().as_slice_of::<f32>());
        let (Some(numbers), Some(others), true) = (slices.0, slices.1, expected.spec().dtype == DType::F32)
        else {
            self.rows += 1;
            self.same_rows += u64::from(expected == got);
            return;
        };
        let largest = numbers.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
        for (number, other) in numbers.iter().zip(others) {
            self.difference = self.difference.max(f64::from((number - other).abs() / largest));
        }
        // Classes lie along the last axis that is one.
        let shape = &expected.spec().shape;
        let row = shape.iter().rev().find(|dim| **dim > 1).map_or(1, |dim| *dim as usize);
        for (numbers, others) in numbers.chunks(row).zip(others.chunks(row)) {
            self.rows += 1;
            self.same_rows += u64::from(likeliest(numbers) == likeliest(others));
        }
    }
}

fn likeliest(row: &[f32]) -> Option<usize> {
    row.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

impl CutLoss {
    /// Cells of the table.
    pub(super) fn row(&self, model: &str) -> Vec<String> {
        let head =
            [model.to_owned(), format!("{:.0} %", self.work_before * 100.0), kilobytes(self.raw_bytes)];
        let ratios = self.codecs.iter().skip(1).map(|codec| format!("{:.2}", codec.ratio));
        let losses = [Codec::F16, Codec::Int8].into_iter().flat_map(|codec| {
            let found = self.codecs.iter().find(|of| of.codec == codec.name());
            found.map_or([String::new(), String::new()], |loss| {
                [format!("{:.1e}", loss.difference), format!("{:.2} %", loss.agreement * 100.0)]
            })
        });
        head.into_iter().chain(ratios).chain(losses).collect()
    }
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e3)
}

//! How fast codecs are on one core, beside a copy of the same bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;
use stormo_protocol::codec::payload::{self, Codec, Scratch};
use stormo_protocol::tensor::Tensor;

use crate::table::{Align, Table};

/// Runs of each kind: at least these, and at least this long.
const RUNS_MIN: usize = 50;
const TIME_MIN: Duration = Duration::from_millis(300);

/// What the rates are measured on.
pub(super) struct Sample {
    pub(super) model: String,
    pub(super) tensor: Tensor,
}

/// Rates of all codecs on one tensor. All in raw bytes, 10^9 a second; medians.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    pub(super) model: String,
    pub(super) tensor: String,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: u64,
    /// Copying the tensor into a buffer that is there: the baseline.
    pub(super) copy_gbps: f64,
    /// The first step of shuffle+lz4 alone.
    shuffle_gbps: f64,
    codecs: Vec<CodecRate>,
}

/// Rates of one codec.
#[derive(Debug, Serialize)]
struct CodecRate {
    codec: &'static str,
    /// The simpler codec that served where this one does not shorten.
    used: &'static str,
    encode_gbps: f64,
    /// The buffer of the tensor allocated anew, as each received tensor's is.
    decode_gbps: f64,
    ratio: f64,
    /// In parts of the tensor's largest value.
    error_max: f64,
}

/// Measures all codecs.
pub(super) fn measure(sample: &Sample) -> Rates {
    let Sample { model, tensor } = sample;
    let raw = tensor.data().as_bytes();
    let mut to = vec![0; raw.len()];
    let copy_gbps = rate(raw.len(), || to.copy_from_slice(black_box(raw)));
    let width = tensor.spec().dtype.bytes().unwrap_or(1);
    let shuffle_gbps = rate(raw.len(), || payload::shuffle(black_box(raw), width, &mut to));
    Rates {
        model: model.clone(),
        tensor: tensor.spec().name.clone(),
        shape: tensor.spec().shape.clone(),
        bytes: raw.len() as u64,
        copy_gbps,
        shuffle_gbps,
        // Raw is no work but the copy.
        codecs: Codec::ALL.into_iter().skip(1).map(|codec| of_codec(codec, tensor)).collect(),
    }
}

fn of_codec(codec: Codec, tensor: &Tensor) -> CodecRate {
    let bytes = tensor.data().as_bytes().len();
    let mut scratch = Scratch::default();
    let coded = payload::encode(codec, tensor, &mut scratch);
    let (used, coded) = (coded.codec, coded.bytes.to_vec());
    let encode_gbps = rate(bytes, || {
        black_box(payload::encode(codec, black_box(tensor), &mut scratch));
    });
    let decode_gbps = rate(bytes, || {
        let _ = black_box(payload::decode(used, tensor.spec(), black_box(&coded), &mut scratch));
    });
    let decoded = payload::decode(used, tensor.spec(), &coded, &mut scratch).ok();
    let numbers = tensor.data().as_slice_of::<f32>().unwrap_or_default();
    let others = decoded.as_ref().and_then(|data| data.as_slice_of::<f32>()).unwrap_or_default();
    let largest = numbers.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
    let errors = numbers.iter().zip(others).map(|(number, other)| f64::from((number - other).abs()));
    CodecRate {
        codec: codec.name(),
        used: used.name(),
        encode_gbps,
        decode_gbps,
        ratio: bytes as f64 / coded.len().max(1) as f64,
        error_max: errors.fold(0.0, f64::max) / f64::from(largest),
    }
}

/// Bytes by the median time of a run, 10^9 a second.
fn rate(bytes: usize, mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < RUNS_MIN || start.elapsed() < TIME_MIN {
        let began = Instant::now();
        run();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    bytes as f64 / times[times.len() / 2].as_secs_f64() / 1e9
}

impl Rates {
    /// For people.
    pub(super) fn table(&self) -> Table {
        let titles = ["encode GB/s", "of copy", "decode GB/s", "of copy", "ratio", "largest error"];
        let columns: Vec<_> = std::iter::once(("codec", Align::Left))
            .chain(titles.map(|title| (title, Align::Right)))
            .collect();
        let mut table = Table::new(&columns);
        let of_copy = |gbps: f64| format!("{:.2}", gbps / self.copy_gbps);
        for rate in &self.codecs {
            let served = if rate.used == rate.codec { String::new() } else { format!(" (as {})", rate.used) };
            table.row([
                format!("{}{served}", rate.codec),
                format!("{:.2}", rate.encode_gbps),
                of_copy(rate.encode_gbps),
                format!("{:.2}", rate.decode_gbps),
                of_copy(rate.decode_gbps),
                format!("{:.2}", rate.ratio),
                format!("{:.1e}", rate.error_max),
            ]);
        }
        let shuffle = [format!("{:.2}", self.shuffle_gbps), of_copy(self.shuffle_gbps)];
        let [rate, share] = shuffle;
        table.row(["shuffle alone".to_owned(), rate, share]);
        table
    }
}

//! Whether an answer is the undivided model's.

use std::collections::HashMap;

use stormo_protocol::codec::payload::Codec;

use super::Truth;
use crate::history::{Answer, History, Output, Request};

/// Between an answer that travelled without loss and the undivided model's, of its largest value: how far
/// sessions that fuse across cuts may differ.
pub const DIFFERENCE_MAX: f64 = 1e-4;

/// What a variant of a model should answer.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Outputs of the undivided model, by input.
    pub outputs: Vec<Vec<Output>>,
    /// By codec that rounds: the largest share of answers that the manifest says it makes another reading
    /// of, at any cut.
    pub losses: HashMap<String, f64>,
}

/// Why an answer is wrong; `None` when it is right. One that travelled with loss is right or wrong only
/// together with others: see [`misread`].
pub(super) fn wrong(history: &History, truth: &Truth, request: &Request, answer: &Answer) -> Option<String> {
    let variant = history.names.text(answer.variant);
    let Some(expected) = truth.outputs(request.load, variant, request.input) else {
        return Some(format!("it is of variant `{variant}`, which the deployment has not"));
    };
    let Some(outputs) = history.outputs.get(answer.outputs as usize) else {
        return Some("it was not kept, and so cannot be judged".to_owned());
    };
    if let Some(what) = misshapen(expected, outputs) {
        return Some(what);
    }
    if let Some(unknown) = codecs(history, answer).find(|name| Codec::from_name(name).is_none()) {
        return Some(format!("it names a codec that is none: `{unknown}`"));
    }
    if is_lossless(history, answer) {
        let apart = expected.iter().zip(outputs).map(|(expected, output)| relative(expected, output));
        let apart = apart.fold(0.0, f64::max);
        return (apart > DIFFERENCE_MAX).then(|| format!("it differs by {apart:.1e} of the largest value"));
    }
    let is_finite = outputs.iter().all(|output| output.data.iter().all(|value| value.is_finite()));
    (!is_finite).then(|| "it holds what is no finite number".to_owned())
}

fn codecs<'a>(history: &'a History, answer: &Answer) -> impl Iterator<Item = &'a str> {
    history.names.text(answer.codecs).split(',')
}

pub(super) fn is_lossless(history: &History, answer: &Answer) -> bool {
    codecs(history, answer).all(|name| Codec::from_name(name).is_some_and(Codec::is_lossless))
}

fn misshapen(expected: &[Output], outputs: &[Output]) -> Option<String> {
    if expected.len() != outputs.len() {
        return Some(format!("it has {} outputs instead of {}", outputs.len(), expected.len()));
    }
    let differs = |(one, other): &(&Output, &Output)| {
        one.name != other.name || one.shape != other.shape || one.data.len() != other.data.len()
    };
    let (one, other) = expected.iter().zip(outputs).find(differs)?;
    Some(format!("output `{}` {:?} is `{}` {:?}", one.name, one.shape, other.name, other.shape))
}

/// Largest difference of two elements, of the largest element; what is no number is infinitely far.
fn relative(expected: &Output, output: &Output) -> f64 {
    let pairs = || expected.data.iter().zip(&output.data);
    if pairs().all(|(one, other)| one.to_bits() == other.to_bits()) {
        return 0.0;
    }
    let largest = expected.data.iter().map(|value| f64::from(value.abs())).fold(f64::MIN_POSITIVE, f64::max);
    let apart = pairs().map(|(one, other)| (f64::from(*one) - f64::from(*other)).abs());
    let apart = apart.map(|apart| if apart.is_nan() { f64::INFINITY } else { apart });
    apart.fold(0.0, f64::max) / largest
}

/// Of answers that were rounded on the way: how many, how many of them read otherwise than the undivided
/// model's (in which element is the largest), and how many the manifests' recorded losses allow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Misread {
    pub(super) rounded: u64,
    pub(super) otherwise: u64,
    pub(super) allowed: f64,
}

/// Each input counts once for each plan: the same rounding of the same numbers, a thousand times over, is
/// one case of the manifest's share, not a thousand.
pub(super) fn misread(history: &History, truth: &Truth) -> Misread {
    let mut seen = HashMap::new();
    for request in &history.requests {
        let Some(answer) = request.answer().filter(|answer| !is_lossless(history, answer)) else { continue };
        let variant = history.names.text(answer.variant).to_owned();
        let expected = truth.variants.get(&(request.load, variant));
        let outputs = history.outputs.get(answer.outputs as usize);
        let (Some(expected), Some(outputs)) = (expected, outputs) else { continue };
        let Some(own) = expected.outputs.get(usize::from(request.input)) else { continue };
        let otherwise = own.iter().zip(outputs).any(|(one, other)| largest(one) != largest(other));
        let loss: f64 = codecs(history, answer).filter_map(|name| expected.losses.get(name)).sum();
        let case = seen.entry((request.load, answer.plan, request.input)).or_insert((false, loss));
        case.0 |= otherwise;
    }
    Misread {
        rounded: seen.len() as u64,
        otherwise: seen.values().filter(|(otherwise, _)| *otherwise).count() as u64,
        allowed: seen.values().map(|(_, loss)| loss).sum(),
    }
}

fn largest(output: &Output) -> Option<usize> {
    let values = output.data.iter().enumerate();
    values.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}

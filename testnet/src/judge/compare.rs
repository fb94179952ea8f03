//! Whether an answer is the undivided model's.

use std::collections::HashMap;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::tensor::DType;

use super::Truth;
use crate::counted::counted;
use crate::history::{Answer, History, Output, Request, Values};
use crate::oip::Difference;

/// Between an answer that travelled without loss and the undivided model's, of its largest value: how far
/// sessions that fuse across cuts may differ.
pub const DIFFERENCE_MAX: f64 = 1e-4;
/// The same of types with fewer digits, where the last of them may differ: two of the largest value's last digit.
const HALF_DIFFERENCE_MAX: f64 = 1.0 / 512.0;
const BRAIN_DIFFERENCE_MAX: f64 = 1.0 / 64.0;

/// What a variant of a model should answer.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Outputs of the undivided model, by input.
    pub outputs: Vec<Vec<Output>>,
    /// Its accuracy as plans reckon: 1 of a first variant without a figure, 0 of another one.
    pub accuracy: f64,
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
    if let Some(what) = not_asked_for(truth, request, variant) {
        return Some(what);
    }
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
        return expected.iter().zip(outputs).find_map(|(expected, output)| differs(expected, output));
    }
    if truth.wish(request.load).min_accuracy.is_none() {
        let rounding = codecs(history, answer).filter(|name| !is_exact(name)).collect::<Vec<_>>().join(", ");
        return Some(format!("it was rounded on the way ({rounding}), which no `min_accuracy` allowed"));
    }
    expected.iter().zip(outputs).find_map(|(expected, output)| oddly_different(expected, output))
}

/// Why the variant that answered is none that the load may be answered by.
fn not_asked_for(truth: &Truth, request: &Request, variant: &str) -> Option<String> {
    let wish = truth.wish(request.load);
    if let Some(asked) = wish.variant.filter(|asked| asked != variant) {
        return Some(format!("it is of variant `{variant}`, and `{asked}` was asked for"));
    }
    let enough = wish.min_accuracy?;
    let accuracy = truth.variants.get(&(request.load, variant.to_owned()))?.accuracy;
    let is_enough = accuracy >= enough;
    (!is_enough).then(|| {
        format!("it is of variant `{variant}` with an accuracy of {accuracy}, and {enough} was asked for")
    })
}

/// Rounding makes no finite number of another kind, nor one of what was none.
fn oddly_different(expected: &Output, output: &Output) -> Option<String> {
    let (Values::Floats(ones), Values::Floats(others)) = (&expected.values, &output.values) else {
        return None;
    };
    let is_odd = |(one, other): (&f32, &f32)| {
        let are_finite = one.is_finite() && other.is_finite();
        let are_alike = one == other || (one.is_nan() && other.is_nan());
        !are_finite && !are_alike
    };
    let is_any_odd = ones.iter().zip(others).any(is_odd);
    is_any_odd.then(|| {
        format!("output `{}` holds what is no finite number, unlike the undivided model's", expected.name)
    })
}

fn codecs<'a>(history: &'a History, answer: &Answer) -> impl Iterator<Item = &'a str> {
    history.names.text(answer.codecs).split(',')
}

pub(super) fn is_lossless(history: &History, answer: &Answer) -> bool {
    codecs(history, answer).all(is_exact)
}

fn is_exact(codec: &str) -> bool {
    Codec::from_name(codec).is_some_and(Codec::is_lossless)
}

fn misshapen(expected: &[Output], outputs: &[Output]) -> Option<String> {
    if expected.len() != outputs.len() {
        return Some(format!("it has {} instead of {}", counted(outputs.len(), "output"), expected.len()));
    }
    let differs = |(one, other): &(&Output, &Output)| {
        let is_alike = one.name == other.name && one.shape == other.shape && one.dtype == other.dtype;
        let is_as_long = match (&one.values, &other.values) {
            (Values::Floats(ones), Values::Floats(others)) => ones.len() == others.len(),
            (Values::Exact(ones), Values::Exact(others)) => ones.len() == others.len(),
            _ => false,
        };
        !is_alike || !is_as_long
    };
    let (one, other) = expected.iter().zip(outputs).find(differs)?;
    let told = |output: &Output| format!("`{}` {} {:?}", output.name, output.dtype.oip_name(), output.shape);
    Some(format!("output {} is {}", told(one), told(other)))
}

/// How an output that travelled without loss differs from the undivided model's, if by more than it may.
fn differs(expected: &Output, output: &Output) -> Option<String> {
    let name = &output.name;
    match (&expected.values, &output.values) {
        (Values::Floats(ones), Values::Floats(others)) => {
            let apart = Difference::of_elements(ones, others).relative;
            let most = match expected.dtype {
                DType::F16 => HALF_DIFFERENCE_MAX,
                DType::BF16 => BRAIN_DIFFERENCE_MAX,
                _ => DIFFERENCE_MAX,
            };
            // A difference that is no number is not within the bound either.
            let is_within = apart <= most;
            (!is_within).then(|| format!("output `{name}` differs by {apart:.1e} of the largest value"))
        }
        (ones, others) => (ones != others)
            .then(|| format!("output `{name}` holds other {} values", output.dtype.oip_name())),
    }
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
        let otherwise = own.iter().zip(outputs).any(|(one, other)| !reads_alike(one, other));
        let losses = codecs(history, answer).filter_map(|name| expected.losses.get(name));
        // A sum of nothing is -0.
        let loss = losses.fold(0.0, |sum, loss| sum + loss);
        let case = seen.entry((request.load, answer.plan, request.input)).or_insert((false, loss));
        case.0 |= otherwise;
    }
    Misread {
        rounded: seen.len() as u64,
        otherwise: seen.values().filter(|(otherwise, _)| *otherwise).count() as u64,
        allowed: seen.values().fold(0.0, |sum, (_, loss)| sum + loss),
    }
}

/// Of floats only which one is the largest is read; whole numbers and labels are what they say.
fn reads_alike(one: &Output, other: &Output) -> bool {
    match (&one.values, &other.values) {
        (Values::Floats(ones), Values::Floats(others)) => largest(ones) == largest(others),
        (ones, others) => ones == others,
    }
}

fn largest(values: &[f32]) -> Option<usize> {
    let values = values.iter().enumerate();
    values.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}

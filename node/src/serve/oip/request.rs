//! What an inference asks for, whichever way it came: inputs, limits and wishes, outputs.

use serde_json::{Map, Value};
use stormo_protocol::frame::Redundancy;
use stormo_protocol::model::ENCODED_IMAGE;
use stormo_protocol::tensor::Tensor;

use super::data::read_binary;
use super::{BYTES, bad};
use crate::app::calls::{CallError, InferOptions, PlanLimits};
use crate::ends::bytes_tensor;
use crate::plan::Objective;

/// A request, read.
#[derive(Debug, PartialEq)]
pub(in crate::serve) struct Asked {
    /// Name of the model.
    pub(in crate::serve) model: String,
    /// Version of its deployment, if a certain one is meant.
    pub(in crate::serve) version: Option<u64>,
    /// The caller's name for it.
    pub(in crate::serve) id: Option<String>,
    /// One tensor per input, or an encoded image.
    pub(in crate::serve) inputs: Vec<Tensor>,
    /// Limits and wishes.
    pub(in crate::serve) options: InferOptions,
    /// What is to be answered.
    pub(in crate::serve) outputs: Wanted,
}

/// The outputs that are asked for.
#[derive(Debug, PartialEq)]
pub(in crate::serve) struct Wanted {
    /// Them; all if there is none.
    pub(in crate::serve) named: Vec<WantedOutput>,
    /// Whether all are wanted as bytes, if none is named.
    pub(in crate::serve) as_bytes: bool,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub(in crate::serve) struct WantedOutput {
    /// Its name.
    pub(in crate::serve) name: String,
    /// Whether as bytes, rather than as numbers in JSON.
    pub(in crate::serve) as_bytes: bool,
}

/// An input from its raw bytes: a tensor, or an encoded image if it is the only one and its bytes are no texts.
pub(in crate::serve) fn read_bytes(
    name: String,
    datatype: &str,
    shape: Vec<u64>,
    own: &[u8],
    is_only: bool,
) -> Result<Tensor, CallError> {
    let may_be_image = is_only && datatype == BYTES;
    read_binary(name, datatype, shape.clone(), own)
        .or_else(|error| may_be_image.then(|| read_image(&shape, own)).flatten().ok_or(error))
}

/// One element of BYTES as an encoded image, whatever the input is called. No JPEG or PNG is a text.
fn read_image(shape: &[u64], own: &[u8]) -> Option<Tensor> {
    let (length, image) = own.split_first_chunk()?;
    let is_one = u32::from_le_bytes(*length) as usize == image.len()
        && shape.iter().try_fold(1u64, |count, dim| count.checked_mul(*dim)) == Some(1);
    is_one.then(|| bytes_tensor(ENCODED_IMAGE, image)).flatten()
}

pub(in crate::serve) fn flag(parameters: &Map<String, Value>, name: &str) -> Result<Option<bool>, CallError> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(bad(format!("parameter `{name}` must be true or false, not {other}"))),
    }
}

fn number(parameters: &Map<String, Value>, name: &str) -> Result<Option<f64>, CallError> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_f64().filter(|value| *value > 0.0 && value.is_finite()).map(Some).ok_or_else(|| {
                bad(format!("parameter `{name}` must be a number of milliseconds above 0, not {value}"))
            })
        }
    }
}

/// An accuracy as a limit.
pub(in crate::serve) fn accuracy(given: f64) -> Result<f64, CallError> {
    if given > 0.0 && given <= 1.0 {
        Ok(given)
    } else {
        Err(bad(format!("min_accuracy must be above 0 and at most 1, not {given}")))
    }
}

fn min_accuracy(parameters: &Map<String, Value>) -> Result<Option<f64>, CallError> {
    match parameters.get("min_accuracy") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => accuracy(value.as_f64().unwrap_or(f64::NAN)).map(Some),
    }
}

/// A limit above zero.
pub(in crate::serve) fn above_zero(name: &str, given: f64) -> Result<f64, CallError> {
    if given > 0.0 && given.is_finite() {
        Ok(given)
    } else {
        Err(bad(format!("{name} must be a number above 0, not {given}")))
    }
}

fn energy(parameters: &Map<String, Value>) -> Result<Option<f64>, CallError> {
    match parameters.get("max_energy_j") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => above_zero("max_energy_j", value.as_f64().unwrap_or(f64::NAN)).map(Some),
    }
}

fn objective(parameters: &Map<String, Value>) -> Result<Objective, CallError> {
    match parameters.get("objective") {
        None | Some(Value::Null) => Ok(Objective::Latency),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| bad(format!("objective must be latency, throughput or energy, not {value}"))),
    }
}

/// Who asks for little energy pays for no second run, unless it says so.
fn redundancy(parameters: &Map<String, Value>, objective: Objective) -> Result<Redundancy, CallError> {
    match parameters.get("redundancy") {
        None | Some(Value::Null) if objective == Objective::Energy => Ok(Redundancy::Warm),
        None | Some(Value::Null) => Ok(Redundancy::Hedge),
        Some(value) => value
            .as_str()
            .and_then(Redundancy::named)
            .ok_or_else(|| bad(format!("redundancy must be warm, hedge or duplicate, not {value}"))),
    }
}

/// Parameters that this version does not act on yet: to ignore them would break a promise.
const NOT_YET: [&str; 2] = ["energy_class", "save"];

/// What a request may say besides its tensors.
const KNOWN: [&str; 11] = [
    "binary_data_output",
    "force_first",
    "force_last",
    "max_energy_j",
    "max_latency_ms",
    "min_accuracy",
    "objective",
    "plan_id",
    "redundancy",
    "timeout_ms",
    "variant",
];

/// Reads limits and wishes.
///
/// # Errors
/// When one is none of those that there are, or has no value that it can have.
pub(in crate::serve) fn read_options(parameters: &Map<String, Value>) -> Result<InferOptions, CallError> {
    if let Some(name) = NOT_YET.iter().find(|name| parameters.contains_key(**name)) {
        return Err(bad(format!(
            "parameter `{name}` is not supported by this version of stormo; leave it out"
        )));
    }
    if let Some(name) = parameters.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad(format!("there is no parameter `{name}`; there are {}", KNOWN.join(", "))));
    }
    let plan = match parameters.get("plan_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|error| bad(format!("plan_id: {error}")))?),
        Some(other) => return Err(bad(format!("plan_id must be a text, not {other}"))),
    };
    let variant = match parameters.get("variant") {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) => Some(label.clone()),
        Some(other) => return Err(bad(format!("variant must be a text, not {other}"))),
    };
    let objective = objective(parameters)?;
    Ok(InferOptions {
        variant,
        redundancy: redundancy(parameters, objective)?,
        plan,
        timeout_ms: number(parameters, "timeout_ms")?.map(|ms| ms.min(f64::from(u32::MAX)) as u32),
        limits: PlanLimits {
            force_first: flag(parameters, "force_first")?.unwrap_or(false),
            force_last: flag(parameters, "force_last")?.unwrap_or(false),
            min_accuracy: min_accuracy(parameters)?,
            max_latency_ms: number(parameters, "max_latency_ms")?,
            max_energy_j: energy(parameters)?,
            objective,
        },
        // Said in headers, not in parameters.
        trace_parent: None,
    })
}

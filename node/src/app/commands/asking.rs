//! A request in the form that a node's API takes, and its answer.

use serde_json::{Value, json};
use stormo_protocol::model::{ENCODED_IMAGE, MEANING};
use stormo_protocol::tensor::Tensor;

use super::here;
use crate::app::cli::{AskArgs, ObjectiveArg};
use crate::app::client::{Answered, Client, CommandError, encoded};
use crate::card::Meaning;
use crate::serve::json::ModelView;

/// What a model takes and gives.
pub(super) fn model_of(
    client: &Client,
    name: &str,
    variant: Option<&str>,
) -> Result<ModelView, CommandError> {
    let variant = variant.map(|label| format!("?variant={}", encoded(label)));
    client.get(&format!("/v1/models/{}{}", encoded(name), variant.unwrap_or_default()))
}

/// JSON, then the inputs' bytes; the answer is asked for as JSON.
pub(super) fn request(args: &AskArgs, inputs: &[Tensor]) -> Result<(usize, Vec<u8>), CommandError> {
    let described: Vec<Value> = inputs
        .iter()
        .map(|tensor| {
            if tensor.spec().name == ENCODED_IMAGE {
                let size = 4 + tensor.data().as_bytes().len();
                return json!({
                    "name": "image",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": { "binary_data_size": size },
                });
            }
            json!({
                "name": tensor.spec().name,
                "shape": tensor.spec().shape,
                "datatype": tensor.spec().dtype.oip_name(),
                "parameters": { "binary_data_size": tensor.data().as_bytes().len() },
            })
        })
        .collect();
    let mut parameters = json!({
        "timeout_ms": args.timeout,
        "force_first": args.limits.force_first,
        "force_last": args.limits.force_last,
    });
    if let Some(limit) = args.limits.max_latency {
        parameters["max_latency_ms"] = json!(limit);
    }
    if let Some(limit) = args.limits.max_energy {
        parameters["max_energy_j"] = json!(limit);
    }
    if args.limits.objective != ObjectiveArg::Latency {
        parameters["objective"] = json!(args.limits.objective.name());
    }
    if let Some(enough) = args.limits.min_accuracy {
        parameters["min_accuracy"] = json!(enough);
    }
    if let Some(label) = &args.variant {
        parameters["variant"] = json!(label);
    }
    if let Some(redundancy) = args.redundancy {
        parameters["redundancy"] = json!(redundancy.name());
    }
    if let Some(plan) = &args.plan_id {
        parameters["plan_id"] = json!(plan);
    }
    let mut body =
        serde_json::to_vec(&json!({ "inputs": described, "parameters": parameters })).map_err(here)?;
    let header_length = body.len();
    for tensor in inputs {
        if tensor.spec().name == ENCODED_IMAGE {
            body.extend_from_slice(&(tensor.data().as_bytes().len() as u32).to_le_bytes());
        }
        body.extend_from_slice(tensor.data().as_bytes());
    }
    Ok((header_length, body))
}

/// What the answer says the model saw, where it does and this version understands it.
pub(super) fn meaning_of(answer: &Value) -> Option<Meaning> {
    let output = answer["outputs"].as_array()?.iter().find(|output| output["name"] == MEANING)?;
    serde_json::from_str(output["data"][0].as_str()?).ok()
}

pub(super) fn answer_error(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Answer(error.to_string())
}

/// The JSON of an answer.
pub(super) fn read_answer(answered: &Answered) -> Result<Value, CommandError> {
    let length = answered.header_length.unwrap_or(answered.body.len());
    let head =
        answered.body.get(..length).ok_or_else(|| answer_error(&"the body is shorter than announced"))?;
    serde_json::from_slice(head).map_err(|error| answer_error(&error))
}

//! What an inference answers, whichever way it goes: the outputs that were asked for, and how they came about.

use serde_json::{Map, Value, json};
use stormo_protocol::model::MEANING;
use stormo_protocol::tensor::Tensor;

use super::request::Wanted;
use super::{BYTES, bad};
use crate::app::calls::{Answer, CallError};

/// An output as it is told.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct Output<'a> {
    tensor: &'a Tensor,
    /// Whether as bytes, rather than as numbers in JSON.
    pub(in crate::serve) as_bytes: bool,
}

impl<'a> Output<'a> {
    pub(in crate::serve) fn name(&self) -> &'a str {
        &self.tensor.spec().name
    }

    /// What the answer means, as one element of text, if it is that.
    pub(in crate::serve) fn meaning(&self) -> Option<&'a [u8]> {
        (self.tensor.spec().name == MEANING).then(|| self.tensor.data().as_bytes())
    }

    pub(in crate::serve) fn shape(&self) -> Vec<u64> {
        if self.meaning().is_some() { vec![1] } else { self.tensor.spec().shape.clone() }
    }

    pub(in crate::serve) fn datatype(&self) -> &'static str {
        if self.meaning().is_some() { BYTES } else { self.tensor.spec().dtype.oip_name() }
    }

    pub(in crate::serve) fn tensor(&self) -> &'a Tensor {
        self.tensor
    }

    /// Appends its raw bytes; how many they are.
    pub(in crate::serve) fn write_bytes(&self, to: &mut Vec<u8>) -> usize {
        let before = to.len();
        let bytes = self.tensor.data().as_bytes();
        if self.meaning().is_some() {
            to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        }
        to.extend_from_slice(bytes);
        to.len() - before
    }
}

/// The outputs that were asked for, all if none was.
pub(in crate::serve) fn chosen<'a>(
    outputs: &'a [Tensor],
    wanted: &Wanted,
) -> Result<Vec<Output<'a>>, CallError> {
    if wanted.named.is_empty() {
        return Ok(outputs.iter().map(|tensor| Output { tensor, as_bytes: wanted.as_bytes }).collect());
    }
    let find = |name: &str| {
        outputs.iter().find(|tensor| tensor.spec().name == name).ok_or_else(|| {
            let names: Vec<&str> = outputs.iter().map(|tensor| tensor.spec().name.as_str()).collect();
            bad(format!("the model has no output `{name}`; its outputs: {}", names.join(", ")))
        })
    };
    let wanted = wanted.named.iter();
    wanted.map(|output| Ok(Output { tensor: find(&output.name)?, as_bytes: output.as_bytes })).collect()
}

/// How an answer came about.
pub(in crate::serve) fn parameters(answer: &Answer) -> Map<String, Value> {
    let told = json!({
        "plan_id": answer.plan.to_string(),
        "request_id": answer.request.to_string(),
        "attempts": answer.attempts,
        "failovers": answer.failovers,
        "variant": answer.variant,
        "nodes": answer.nodes.join(","),
        "codecs": answer.codecs.iter().map(|codec| codec.name()).collect::<Vec<_>>().join(","),
        "latency_ms": answer.latency_ms,
        "late": answer.late,
    });
    let mut parameters = match told {
        Value::Object(parameters) => parameters,
        _ => Map::new(),
    };
    // Of a node that does not know what it draws there is nothing to tell.
    for (name, energy_j) in [("energy_j", answer.energy_j), ("predicted_energy_j", answer.predicted_energy_j)]
    {
        if let Some(energy_j) = energy_j {
            parameters.insert(name.to_owned(), json!(energy_j));
        }
    }
    parameters
}

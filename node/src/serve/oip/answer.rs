//! What an inference answers, whichever way it goes: the outputs that were asked for, and how they came about.

use std::collections::BTreeSet;

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
///
/// # Errors
/// When the model has not one of them, or one is named twice: few bytes could ask for any number of answers.
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
    let mut seen = BTreeSet::new();
    let wanted = wanted.named.iter().map(|output| {
        let tensor = find(&output.name)?;
        if !seen.insert(&output.name) {
            return Err(bad(format!("output `{}` is named twice", output.name)));
        }
        Ok(Output { tensor, as_bytes: output.as_bytes })
    });
    wanted.collect()
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

#[cfg(test)]
mod tests {
    use stormo_protocol::tensor::{DType, TensorData, TensorSpec};

    use super::super::request::WantedOutput;
    use super::*;

    #[test]
    fn each_output_is_answered_once() {
        let spec = TensorSpec { name: "y".into(), dtype: DType::U8, shape: vec![1] };
        let outputs = [Tensor::new(spec, TensorData::copied_from(&[1])).unwrap()];
        let wanted = |names: &[&str]| {
            let named = names.iter().map(|name| WantedOutput { name: (*name).into(), as_bytes: true });
            Wanted { named: named.collect(), as_bytes: true }
        };
        assert_eq!(chosen(&outputs, &wanted(&[])).unwrap().len(), 1);
        assert_eq!(chosen(&outputs, &wanted(&["y"])).unwrap().len(), 1);
        for (names, expected) in [(["y", "y"], "output `y` is named twice"), (["y", "z"], "no output `z`")] {
            let error = chosen(&outputs, &wanted(&names)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! Runs the float model on the samples and notes what its tensors hold. A part of the tensors at a time,
//! so that memory stays bounded; what is kept of each is a histogram.

use std::collections::HashMap;

use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::Tensor;

use super::MakeError;
use crate::engine::{Engine, PartitionSource};
use crate::model::{Observed, QuantiseError, Quantiser, Watched};
use crate::sample::Sample;

/// Activations that are in memory at once, bytes. All of a small detector's have some 30 MB.
const BYTES_AT_ONCE: u64 = 256 << 20;

pub(super) async fn calibrate(
    engine: &Engine,
    quantiser: &Quantiser,
    samples: &[&Sample],
    progress: &dyn Fn(&str),
) -> Result<HashMap<String, Observed>, MakeError> {
    let mut observed = HashMap::new();
    let watched = quantiser.watched();
    let is_given = |watched: &Watched| {
        let inputs = samples.first().map(|sample| sample.inputs.as_slice()).unwrap_or_default();
        inputs.iter().any(|input| input.spec().name == watched.spec.name)
    };
    let (given, made): (Vec<Watched>, Vec<Watched>) = watched.into_iter().partition(is_given);
    for sample in samples {
        note(&mut observed, &given, &sample.inputs)?;
    }
    let parts = parts(made);
    for (index, part) in parts.iter().enumerate() {
        let source = PartitionSource {
            model: quantiser.watching_model(part)?,
            weights: Vec::new(),
            inputs: samples.first().map_or_else(Vec::new, |sample| {
                sample.inputs.iter().map(|input| input.spec().clone()).collect()
            }),
            outputs: part.iter().map(|watched| watched.spec.clone()).collect(),
            level: OrtLevel::Basic,
            batch: None,
            variable: Vec::new(),
        };
        let watching = engine.load("calibration".into(), source).await?;
        for (number, sample) in samples.iter().enumerate() {
            progress(&format!(
                "calibrating: sample {} of {}, tensors {} of {}",
                number + 1,
                samples.len(),
                index + 1,
                parts.len()
            ));
            let outputs = watching.run(sample.inputs.clone()).await?.outputs;
            note(&mut observed, part, &outputs)?;
        }
    }
    Ok(observed)
}

fn note(
    observed: &mut HashMap<String, Observed>,
    watched: &[Watched],
    tensors: &[Tensor],
) -> Result<(), QuantiseError> {
    for watched in watched {
        let name = &watched.spec.name;
        let tensor = tensors.iter().find(|tensor| tensor.spec().name == *name);
        let values = tensor.and_then(|tensor| tensor.data().as_slice_of::<f32>());
        let values = values.ok_or_else(|| QuantiseError::Unseen { tensor: name.clone() })?;
        let entry = observed.entry(name.clone()).or_default();
        entry.add(name, values, &watched.spec.shape, watched.channel_axis)?;
    }
    Ok(())
}

/// Tensors in groups of bounded size, at least one in each.
fn parts(watched: Vec<Watched>) -> Vec<Vec<Watched>> {
    let mut parts: Vec<Vec<Watched>> = Vec::new();
    let mut bytes_so_far = u64::MAX;
    for one in watched {
        let bytes = one.spec.byte_length().unwrap_or(BYTES_AT_ONCE);
        if bytes_so_far.saturating_add(bytes) > BYTES_AT_ONCE {
            parts.push(Vec::new());
            bytes_so_far = 0;
        }
        bytes_so_far += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(one);
        }
    }
    parts
}

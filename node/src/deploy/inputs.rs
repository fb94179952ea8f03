//! What a model is run on while it is divided and measured: the user's sample, or one that is made up.

use std::collections::HashMap;

use stormo_protocol::tensor::{Tensor, TensorSpec};

use super::PrepareError;
use crate::model::{Graph, InputDecl};
use crate::sample::{self, Sample};

/// One tensor per input: the sample's if there is one. Otherwise axes that the model leaves open are as long
/// as in `shapes`; a single open first axis is the batch: one item at a time.
///
/// # Errors
/// When a shape is not that of an input, or one is missing.
pub(super) fn of(
    graph: &Graph,
    shapes: &HashMap<String, Vec<u64>>,
    sample: Option<&Sample>,
) -> Result<Vec<Tensor>, PrepareError> {
    for (name, given) in shapes {
        let input = graph.inputs().iter().find(|input| input.name == *name);
        if !input.is_some_and(|input| input.accepts(given)) {
            let all: Vec<String> = graph.inputs().iter().map(declared).collect();
            let declared = input.map_or_else(|| all.join(", "), declared);
            return Err(PrepareError::Shape { input: name.clone(), given: given.clone(), declared });
        }
    }
    let Some(sample) = sample else {
        return graph.inputs().iter().map(|input| made_up(input, shapes.get(&input.name))).collect();
    };
    for tensor in &sample.inputs {
        let TensorSpec { name, shape, .. } = tensor.spec();
        if let Some(fixed) = shapes.get(name).filter(|fixed| *fixed != shape) {
            return Err(PrepareError::SampleShape {
                input: name.clone(),
                given: shape.clone(),
                fixed: fixed.clone(),
            });
        }
    }
    Ok(sample.inputs.clone())
}

/// The same for so many items, where inputs leave their first axis open and nobody fixed it.
pub(super) fn batch(
    graph: &Graph,
    inputs: &[Tensor],
    shapes: &HashMap<String, Vec<u64>>,
    items: u64,
) -> Result<Option<Vec<Tensor>>, PrepareError> {
    // A sample of several items says how many there will be.
    let is_open = |input: &InputDecl, one: &Tensor| {
        let first = input.dims.as_ref().and_then(|dims| dims.first());
        let is_given = shapes.contains_key(&input.name) || one.spec().shape.first() != Some(&1);
        first.is_some_and(Option::is_none) && !is_given
    };
    let with_inputs = || graph.inputs().iter().zip(inputs);
    if !with_inputs().any(|(input, one)| is_open(input, one)) {
        return Ok(None);
    }
    let all = with_inputs().map(|(input, one)| {
        if !is_open(input, one) {
            return Ok(one.clone());
        }
        let mut spec = one.spec().clone();
        if let Some(first) = spec.shape.first_mut() {
            *first = items;
        }
        tensor(spec)
    });
    all.collect::<Result<_, _>>().map(Some)
}

fn made_up(input: &InputDecl, given: Option<&Vec<u64>>) -> Result<Tensor, PrepareError> {
    let shape = match (given, &input.dims) {
        (Some(given), _) => given.clone(),
        (None, Some(dims)) if dims.iter().skip(1).all(Option::is_some) => {
            dims.iter().map(|dim| dim.unwrap_or(1)).collect()
        }
        (None, _) => {
            return Err(PrepareError::OpenShape { input: input.name.clone(), shape: declared(input) });
        }
    };
    tensor(TensorSpec { name: input.name.clone(), dtype: input.dtype, shape })
}

fn tensor(spec: TensorSpec) -> Result<Tensor, PrepareError> {
    sample::tensor(spec).map_err(|error| PrepareError::Manifest(error.into()))
}

fn declared(input: &InputDecl) -> String {
    let dims = input.dims.as_deref().map(|dims| {
        let dims: Vec<String> =
            dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string())).collect();
        dims.join("x")
    });
    format!("input `{}` of shape {}", input.name, dims.unwrap_or_else(|| "unknown".to_owned()))
}

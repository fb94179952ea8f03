//! What a request brings and what it takes away: its tensors in the model's order, or an encoded image.

use std::ops::Range;

use stormo_protocol::model::{ENCODED_IMAGE, Manifest};
use stormo_protocol::tensor::{DType, Tensor};

use super::plans::blocks_of;
use crate::app::calls::CallError;
use crate::ends::{bytes_tensor, no_frame};

/// What a request runs, and the tensors of the cut before: for an image all blocks, for tensors those of
/// the graph.
pub(super) fn what_to_run(
    manifest: &Manifest,
    given: Vec<Tensor>,
) -> Result<(Range<u16>, Vec<Tensor>), CallError> {
    if let [only] = &given[..]
        && let Some(image) = as_image(manifest, only)
    {
        let blocks = blocks_of(manifest, true)?;
        if !manifest.are_the_cut(0, std::iter::once(image.spec())) {
            return Err(CallError::BadRequest("the encoded image is too long".into()));
        }
        return Ok((blocks, vec![image]));
    }
    let mut inputs = in_model_order(manifest, given)?;
    if !manifest.are(&manifest.inputs, inputs.iter().map(Tensor::spec)) {
        return Err(CallError::BadRequest("the inputs are of batches of different sizes".into()));
    }
    // Outputs of a model with a card come with a frame, which tensors do not have.
    if manifest.card.is_some() {
        inputs.extend(no_frame());
    }
    let blocks = blocks_of(manifest, false)?;
    let cut = manifest.cuts[usize::from(blocks.start)].tensors.iter();
    let ordered =
        cut.filter_map(|index| inputs.iter().find(|tensor| manifest.is_of(*index, tensor.spec())).cloned());
    Ok((blocks, ordered.collect()))
}

/// What came as an image, and any text for a model that takes images but no texts: it is for its card to say
/// what is wrong with it.
fn as_image(manifest: &Manifest, given: &Tensor) -> Option<Tensor> {
    if given.spec().name == ENCODED_IMAGE {
        return Some(given.clone());
    }
    let takes_texts = manifest.input_specs().any(|spec| spec.dtype == DType::Text);
    let mut texts = given.texts().filter(|_| manifest.card.is_some() && !takes_texts)?;
    let (only, None) = (texts.next()?, texts.next()) else { return None };
    bytes_tensor(ENCODED_IMAGE, only.as_bytes())
}

/// What a caller wants of a result: the model's outputs in its order, or their meaning.
pub(super) fn outputs_of(manifest: &Manifest, blocks: &Range<u16>, result: &[Tensor]) -> Vec<Tensor> {
    let last = &manifest.cuts[usize::from(blocks.end)].tensors;
    let wanted = if blocks.end == manifest.graph_blocks().end { &manifest.outputs } else { last };
    let found = |index: &u32| result.iter().find(|tensor| manifest.is_of(*index, tensor.spec())).cloned();
    wanted.iter().filter_map(found).collect()
}

/// One tensor per input, as the model declares them.
fn in_model_order(manifest: &Manifest, mut given: Vec<Tensor>) -> Result<Vec<Tensor>, CallError> {
    let mut ordered = Vec::new();
    for index in &manifest.inputs {
        let spec = &manifest.tensors[*index as usize];
        let Some(position) = given.iter().position(|tensor| tensor.spec().name == spec.name) else {
            let names: Vec<&str> = given.iter().map(|tensor| tensor.spec().name.as_str()).collect();
            return Err(CallError::BadRequest(format!(
                "input `{}` ({} {:?}) is missing; got: {}",
                spec.name,
                spec.dtype.oip_name(),
                spec.shape,
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )));
        };
        let tensor = given.swap_remove(position);
        if !manifest.is_of(*index, tensor.spec()) {
            let batch = manifest.batch.as_ref().filter(|_| manifest.is_batched(*index));
            let up_to = batch.map(|batch| format!(" (or up to {} times the first axis)", batch.items_max));
            return Err(CallError::BadRequest(format!(
                "input `{}` must be {} {:?}{}, not {} {:?}",
                spec.name,
                spec.dtype.oip_name(),
                spec.shape,
                up_to.unwrap_or_default(),
                tensor.spec().dtype.oip_name(),
                tensor.spec().shape
            )));
        }
        ordered.push(tensor);
    }
    match given.first() {
        None => Ok(ordered),
        Some(extra) if manifest.input_specs().any(|spec| spec.name == extra.spec().name) => {
            Err(CallError::BadRequest(format!("input `{}` is given twice", extra.spec().name)))
        }
        Some(extra) => {
            let names: Vec<&str> = manifest.input_specs().map(|spec| spec.name.as_str()).collect();
            Err(CallError::BadRequest(format!(
                "the model has no input `{}`; its inputs: {}",
                extra.spec().name,
                names.join(", ")
            )))
        }
    }
}

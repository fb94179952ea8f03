//! Whether one variant may answer in the place of another.

use stormo_protocol::model::Manifest;
use stormo_protocol::tensor::{DType, TensorSpec};

/// Why two variants do not stand for one another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "variant `{variant}` does not take and give what `{first}` does: {what}; variants of one model have the \
     same inputs and outputs (name, type, shape), or all of them a card, which fits an image to any size"
)]
pub struct NotInterchangeable {
    /// The variant.
    pub variant: String,
    /// What it was compared with.
    pub first: String,
    /// Where they differ.
    pub what: String,
}

/// An input or output as a caller sees it.
#[derive(Debug, PartialEq, Eq)]
struct End {
    name: String,
    dtype: DType,
    /// `None` where it is of any length.
    shape: Vec<Option<u64>>,
}

impl End {
    fn of(manifest: &Manifest, tensor: u32) -> Option<Self> {
        let TensorSpec { name, dtype, shape } = manifest.tensors.get(tensor as usize)?;
        let is_fixed = !manifest.is_variable(tensor);
        let shape = shape.iter().map(|dim| is_fixed.then_some(*dim)).collect();
        Some(Self { name: name.clone(), dtype: *dtype, shape })
    }

    fn told(&self) -> String {
        let dims = self.shape.iter().map(|dim| dim.map_or("any".to_owned(), |dim| dim.to_string()));
        format!("{} [{}]", self.dtype.oip_name(), dims.collect::<Vec<_>>().join(", "))
    }
}

/// Variants bind to one signature: to tensors of the same name, type and shape, in whatever order; or, by
/// their cards, to encoded images, whatever size each makes of them.
///
/// # Errors
/// Where they differ.
pub fn interchangeable(first: &Manifest, other: &Manifest) -> Result<(), NotInterchangeable> {
    if first.card.is_some() && other.card.is_some() {
        return Ok(());
    }
    let ends = |manifest: &Manifest, tensors: &[u32]| -> Vec<End> {
        tensors.iter().filter_map(|tensor| End::of(manifest, *tensor)).collect()
    };
    let inputs = difference("input", &ends(first, &first.inputs), &ends(other, &other.inputs));
    let outputs = || difference("output", &ends(first, &first.outputs), &ends(other, &other.outputs));
    match inputs.or_else(outputs) {
        None => Ok(()),
        Some(what) => {
            Err(NotInterchangeable { variant: other.variant.clone(), first: first.variant.clone(), what })
        }
    }
}

fn difference(kind: &str, first: &[End], other: &[End]) -> Option<String> {
    for wanted in first {
        let Some(found) = other.iter().find(|end| end.name == wanted.name) else {
            return Some(format!("it has no {kind} `{}`", wanted.name));
        };
        if found != wanted {
            let (found, told) = (found.told(), wanted.told());
            return Some(format!("its {kind} `{}` is {found}, not {told}", wanted.name));
        }
    }
    (other.len() != first.len()).then(|| format!("it has {} {kind}s, not {}", other.len(), first.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(list: &[(&str, &[Option<u64>])]) -> Vec<End> {
        let end = |(name, shape): &(&str, &[Option<u64>])| End {
            name: (*name).to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
        };
        list.iter().map(end).collect()
    }

    #[test]
    fn names_and_shapes_count_and_order_does_not() {
        let found = |one: &[(&str, &[Option<u64>])], other: &[(&str, &[Option<u64>])]| {
            difference("input", &ends(one), &ends(other))
        };
        let (one, two) = (&[Some(1)], &[Some(2)]);
        assert_eq!(found(&[("a", one), ("b", two)], &[("b", two), ("a", one)]), None);
        assert_eq!(found(&[("a", &[None])], &[("a", &[None])]), None);
        assert_eq!(found(&[("a", one)], &[("b", one)]), Some("it has no input `a`".into()));
        let shapes = found(&[("a", one)], &[("a", two)]);
        assert_eq!(shapes, Some("its input `a` is FP32 [2], not FP32 [1]".into()));
        let ranks = found(&[("a", &[None])], &[("a", &[None, None])]);
        assert_eq!(ranks, Some("its input `a` is FP32 [any, any], not FP32 [any]".into()));
        let more = found(&[("a", one)], &[("a", one), ("b", one)]);
        assert_eq!(more, Some("it has 2 inputs, not 1".into()));
    }
}

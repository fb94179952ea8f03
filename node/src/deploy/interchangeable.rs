//! Whether one variant may answer in the place of another.

use stormo_protocol::model::Manifest;
use stormo_protocol::tensor::TensorSpec;

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

/// Variants bind to one signature: to tensors of the same name, type and shape, in whatever order; or, by
/// their cards, to encoded images, whatever size each makes of them.
///
/// # Errors
/// Where they differ.
pub fn interchangeable(first: &Manifest, other: &Manifest) -> Result<(), NotInterchangeable> {
    if first.card.is_some() && other.card.is_some() {
        return Ok(());
    }
    let inputs = difference("input", first.input_specs(), other.input_specs());
    let what = inputs.or_else(|| difference("output", first.output_specs(), other.output_specs()));
    match what {
        None => Ok(()),
        Some(what) => {
            Err(NotInterchangeable { variant: other.variant.clone(), first: first.variant.clone(), what })
        }
    }
}

fn difference<'a>(
    kind: &str,
    first: impl Iterator<Item = &'a TensorSpec>,
    other: impl Iterator<Item = &'a TensorSpec>,
) -> Option<String> {
    let other: Vec<&TensorSpec> = other.collect();
    let mut count = 0;
    for wanted in first {
        count += 1;
        let Some(found) = other.iter().find(|spec| spec.name == wanted.name) else {
            return Some(format!("it has no {kind} `{}`", wanted.name));
        };
        if *found != wanted {
            let told = |spec: &TensorSpec| format!("{} {:?}", spec.dtype.oip_name(), spec.shape);
            return Some(format!("its {kind} `{}` is {}, not {}", wanted.name, told(found), told(wanted)));
        }
    }
    (other.len() != count).then(|| format!("it has {} {kind}s, not {count}", other.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::tensor::DType;

    fn specs(list: &[(&str, &[u64])]) -> Vec<TensorSpec> {
        let spec = |(name, shape): &(&str, &[u64])| TensorSpec {
            name: (*name).to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
        };
        list.iter().map(spec).collect()
    }

    #[test]
    fn names_and_shapes_count_and_order_does_not() {
        let found = |one: &[(&str, &[u64])], other: &[(&str, &[u64])]| {
            difference("input", specs(one).iter(), specs(other).iter())
        };
        assert_eq!(found(&[("a", &[1]), ("b", &[2])], &[("b", &[2]), ("a", &[1])]), None);
        assert_eq!(found(&[("a", &[1])], &[("b", &[1])]), Some("it has no input `a`".into()));
        let shapes = found(&[("a", &[1])], &[("a", &[2])]);
        assert_eq!(shapes, Some("its input `a` is FP32 [2], not FP32 [1]".into()));
        let more = found(&[("a", &[1])], &[("a", &[1]), ("b", &[1])]);
        assert_eq!(more, Some("it has 2 inputs, not 1".into()));
    }
}

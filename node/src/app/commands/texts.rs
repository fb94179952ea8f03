//! A file with one text on each line, as an input of `stormo infer`.

use std::path::Path;

use stormo_protocol::limits::TEXTS_BYTES_MAX;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

use super::here;
use crate::app::client::CommandError;
use crate::files;
use crate::serve::json::TensorView;

/// Reads as many texts as the input takes, or some times as many where it takes several items.
pub(super) fn read_texts(path: &Path, input: &TensorView) -> Result<Tensor, CommandError> {
    let told = |error: &dyn std::fmt::Display| here(format!("`{}`: {error}", path.display()));
    let file = files::read_text(path, TEXTS_BYTES_MAX).map_err(|error| told(&error))?;
    let lines = file.lines().count() as u64;
    let spec = spec_of(input, lines).ok_or_else(|| {
        let times = if input.is_batched { ", or some times as many" } else { "" };
        told(&format!(
            "has {lines} lines; `{}` takes texts of shape {:?}{times}, one on each line",
            input.name, input.shape
        ))
    })?;
    let data = TensorData::of_texts(file.lines()).map_err(|error| told(&error))?;
    Tensor::new(spec, data).map_err(|error| told(&error))
}

/// The input's description for so many texts, if it takes them.
fn spec_of(input: &TensorView, texts: u64) -> Option<TensorSpec> {
    let mut spec = TensorSpec { name: input.name.clone(), dtype: DType::Text, shape: input.shape.clone() };
    let of_one = spec.elements().ok()?;
    if input.is_batched
        && let (Some(items), Some(first)) = (texts.checked_div(of_one), spec.shape.first_mut())
    {
        *first = first.checked_mul(items.max(1))?;
    }
    (spec.elements() == Ok(texts)).then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_items() {
        let shape = |shape: &[u64], is_batched, texts| {
            let (name, datatype) = ("x".to_owned(), "BYTES".to_owned());
            let input = TensorView { name, datatype, shape: shape.to_vec(), is_batched, is_variable: false };
            spec_of(&input, texts).map(|spec| spec.shape)
        };
        assert_eq!(shape(&[1, 2], false, 2), Some(vec![1, 2]));
        assert_eq!(shape(&[1, 2], true, 6), Some(vec![3, 2]));
        for (is_batched, texts) in [(false, 4), (true, 5), (true, 1), (true, 0)] {
            assert_eq!(shape(&[1, 2], is_batched, texts), None, "{texts}");
        }
        assert_eq!(shape(&[], false, 1), Some(vec![]));
        assert_eq!(shape(&[1, 0], true, 0), Some(vec![1, 0]));
    }
}

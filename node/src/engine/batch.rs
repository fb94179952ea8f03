//! What a partition's tensors look like in a run: as declared, or for several items where the first axis is
//! open.

use std::borrow::Cow;

use stormo_protocol::tensor::{Tensor, TensorSpec};

/// A first axis that some inputs and outputs leave open; they are declared for one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBatch {
    /// Their names.
    pub tensors: Vec<String>,
    /// Most items in one run.
    pub items_max: u64,
}

impl OpenBatch {
    fn contains(&self, spec: &TensorSpec) -> bool {
        self.tensors.contains(&spec.name)
    }
}

/// Items in a run on these inputs, by the first of them that tells; 1 if none does, or makes no sense.
pub(super) fn items(batch: Option<&OpenBatch>, declared: &[TensorSpec], inputs: &[Tensor]) -> u64 {
    let Some(batch) = batch else { return 1 };
    let telling = declared.iter().find(|spec| batch.contains(spec));
    let given = telling.and_then(|spec| inputs.iter().find(|input| input.spec().name == spec.name));
    let items = telling.zip(given).and_then(|(spec, given)| spec.items_of(given.spec()));
    items.filter(|items| *items <= batch.items_max).unwrap_or(1)
}

/// The description of a declared tensor in a run on so many items.
pub(super) fn of_items<'a>(
    batch: Option<&OpenBatch>,
    declared: &'a TensorSpec,
    items: u64,
) -> Cow<'a, TensorSpec> {
    match batch {
        Some(batch) if items > 1 && batch.contains(declared) => {
            let mut spec = declared.clone();
            if let Some(rows) = spec.shape.first_mut() {
                *rows = rows.saturating_mul(items);
            }
            Cow::Owned(spec)
        }
        _ => Cow::Borrowed(declared),
    }
}

#[cfg(test)]
mod tests {
    use stormo_protocol::tensor::{DType, TensorBuffer};

    use super::*;

    fn spec(name: &str, rows: u64) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![rows, 3] }
    }

    fn tensor(name: &str, rows: u64) -> Tensor {
        let spec = spec(name, rows);
        let bytes = spec.byte_length().unwrap() as usize;
        Tensor::new(spec, TensorBuffer::zeroed(bytes).freeze()).unwrap()
    }

    #[test]
    fn the_input_that_follows_the_batch_tells_how_many_items_there_are() {
        let batch = OpenBatch { tensors: vec!["x".into()], items_max: 4 };
        let declared = [spec("fixed", 2), spec("x", 2)];
        let items = |rows| items(Some(&batch), &declared, &[tensor("x", rows), tensor("fixed", 2)]);
        assert_eq!([2, 4, 8, 10, 3].map(items), [1, 2, 4, 1, 1]);
        assert_eq!(*of_items(Some(&batch), &declared[1], 3), spec("x", 6));
        assert_eq!(*of_items(Some(&batch), &declared[0], 3), declared[0]);
        assert_eq!(*of_items(None, &declared[1], 3), declared[1]);
    }
}

//! A model's outputs as numbers, and what may be wrong with them.

use std::borrow::Cow;

use half::f16;
use stormo_protocol::tensor::{DType, Tensor};

/// Why outputs could not be read as their card says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not among the outputs.
    #[error("the card reads the output `{0}`, which did not come")]
    Missing(String),
    /// An element type that holds no scores.
    #[error("the output `{name}` is {}; a card reads FP32 and FP16", dtype.oip_name())]
    ElementType {
        /// The output.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// The shape is not what the card's family makes.
    #[error("the output `{name}` has shape {shape:?}; its card needs {expected}")]
    Shape {
        /// The output.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
        /// What would fit.
        expected: String,
    },
    /// Scores that are not finite.
    #[error("the output `{0}` holds numbers that are not finite")]
    NotFinite(String),
    /// The labels are still in a file.
    #[error("the card's labels are in `{0}` and were not put into the card")]
    LabelsNotEmbedded(String),
}

/// One output as numbers.
pub(super) struct Numbers<'a> {
    pub values: Cow<'a, [f32]>,
    tensor: &'a Tensor,
}

impl<'a> Numbers<'a> {
    /// The output of this name.
    pub(super) fn of(outputs: &'a [Tensor], name: &str) -> Result<Self, ReadError> {
        let tensor = outputs
            .iter()
            .find(|tensor| tensor.spec().name == name)
            .ok_or_else(|| ReadError::Missing(name.to_owned()))?;
        let data = tensor.data();
        let values = match tensor.spec().dtype {
            DType::F32 => data.as_slice_of::<f32>().map(Cow::Borrowed),
            DType::F16 => data
                .as_slice_of::<f16>()
                .map(|values| values.iter().map(|value| value.to_f32()).collect::<Vec<f32>>().into()),
            _ => None,
        };
        let values = values
            .ok_or_else(|| ReadError::ElementType { name: name.to_owned(), dtype: tensor.spec().dtype })?;
        Ok(Self { values, tensor })
    }

    /// The dimensions behind the batch axis, which must be 1; the card's family says how many.
    pub(super) fn dims<const RANK: usize>(&self, expected: &str) -> Result<[usize; RANK], ReadError> {
        let dims = match self.tensor.spec().shape.as_slice() {
            [1, dims @ ..] => <[u64; RANK]>::try_from(dims).ok(),
            _ => None,
        };
        // The tensor holds that many values, so each dimension fits a usize unless another is 0.
        dims.map(|dims| dims.map(|dim| dim as usize)).ok_or_else(|| self.wrong_shape(expected))
    }

    pub(super) fn wrong_shape(&self, expected: impl Into<String>) -> ReadError {
        let spec = self.tensor.spec();
        ReadError::Shape { name: spec.name.clone(), shape: spec.shape.clone(), expected: expected.into() }
    }
}

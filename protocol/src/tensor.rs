//! Tensors: their description, and their bytes in memory that a session can read in place.

mod texts;

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::texts::{BadTexts, Texts};
use crate::limits::{RANK_MAX, TENSOR_NAME_BYTES_MAX};

/// Element type of a tensor that may cross between nodes. A closed list; values are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum DType {
    /// IEEE 754 single precision.
    F32 = 1,
    /// Unsigned 8-bit integer.
    U8 = 2,
    /// Signed 8-bit integer.
    I8 = 3,
    /// Unsigned 16-bit integer.
    U16 = 4,
    /// Signed 16-bit integer.
    I16 = 5,
    /// Signed 32-bit integer.
    I32 = 6,
    /// Signed 64-bit integer.
    I64 = 7,
    /// A text: its length and as many bytes of UTF-8.
    Text = 8,
    /// One byte, 0 or 1.
    Bool = 9,
    /// IEEE 754 half precision.
    F16 = 10,
    /// IEEE 754 double precision.
    F64 = 11,
    /// Unsigned 32-bit integer.
    U32 = 12,
    /// Unsigned 64-bit integer.
    U64 = 13,
    /// Brain floating point, 16 bits.
    BF16 = 16,
}

impl DType {
    /// Every element type.
    pub const ALL: [Self; 14] = [
        Self::F32,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::Text,
        Self::Bool,
        Self::F16,
        Self::F64,
        Self::U32,
        Self::U64,
        Self::BF16,
    ];

    /// From the number on the wire, which is also ONNX's `TensorProto.DataType`.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| *dtype as u8 == number)
    }

    /// Bytes of one element; `None` for texts, each of which has its own length.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => Some(2),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            Self::Text => None,
        }
    }

    /// The Open Inference Protocol's name of this type.
    pub fn oip_name(self) -> &'static str {
        match self {
            Self::F32 => "FP32",
            Self::U8 => "UINT8",
            Self::I8 => "INT8",
            Self::U16 => "UINT16",
            Self::I16 => "INT16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::Text => "BYTES",
            Self::Bool => "BOOL",
            Self::F16 => "FP16",
            Self::F64 => "FP64",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::BF16 => "BF16",
        }
    }

    /// From the Open Inference Protocol's name.
    pub fn from_oip_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.oip_name() == name)
    }
}

/// What is wrong with a tensor's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTensor {
    /// More dimensions than allowed.
    #[error("rank {0} is above the limit of {RANK_MAX}")]
    Rank(usize),
    /// The product of shape and element size does not fit 64 bits.
    #[error("shape {0:?} describes more bytes than any machine holds")]
    Overflow(Vec<u64>),
    /// The name is longer than allowed.
    #[error("a tensor name of {0} bytes is above the limit of {TENSOR_NAME_BYTES_MAX}")]
    Name(usize),
    /// The data does not have the length that the description says.
    #[error("{got} bytes of data where the description says {expected}")]
    Length {
        /// Bytes that dtype and shape ask for.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The data is not the texts that the description says, or they are too many.
    #[error(transparent)]
    Texts(#[from] BadTexts),
}

/// Name, element type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name in the model's graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Items in the batch of a description that is this one but for the first axis, which is so many
    /// times as long; `None` if it differs otherwise.
    pub fn items_of(&self, batched: &Self) -> Option<u64> {
        let ([one, rest @ ..], [all, batched_rest @ ..]) = (&self.shape[..], &batched.shape[..]) else {
            return None;
        };
        let is_alike = (&self.name, self.dtype, rest) == (&batched.name, batched.dtype, batched_rest);
        let items = all.checked_div(*one)?;
        (is_alike && items > 0 && items.checked_mul(*one) == Some(*all)).then_some(items)
    }

    /// Number of elements.
    ///
    /// # Errors
    /// When name or rank exceed [`limits`](crate::limits), or the product overflows.
    pub fn elements(&self) -> Result<u64, BadTensor> {
        if self.name.len() > TENSOR_NAME_BYTES_MAX {
            return Err(BadTensor::Name(self.name.len()));
        }
        if self.shape.len() > RANK_MAX {
            return Err(BadTensor::Rank(self.shape.len()));
        }
        self.times_elements(1)
    }

    /// Bytes of the raw data (row major, no padding). Of texts, whose length only the data tells, what so many
    /// usually take: enough to plan with, but memory is reserved by [`TensorSpec::byte_lengths`].
    ///
    /// # Errors
    /// As [`TensorSpec::elements`], or when there are too many texts.
    pub fn byte_length(&self) -> Result<u64, BadTensor> {
        let lengths = self.byte_lengths()?;
        if self.dtype == DType::Text {
            return self.times_elements(texts::TEXT_BYTES_TYPICAL);
        }
        Ok(*lengths.start())
    }

    /// Bytes that the raw data may have: a single number, except for texts.
    ///
    /// # Errors
    /// As [`TensorSpec::byte_length`].
    pub fn byte_lengths(&self) -> Result<RangeInclusive<u64>, BadTensor> {
        let elements = self.elements()?;
        match self.dtype.bytes() {
            Some(element_bytes) => self.times_elements(element_bytes).map(|bytes| bytes..=bytes),
            None => Ok(texts::byte_lengths(elements)?),
        }
    }

    fn times_elements(&self, factor: u64) -> Result<u64, BadTensor> {
        let product = self.shape.iter().try_fold(factor, |product, dim| product.checked_mul(*dim));
        product.ok_or_else(|| BadTensor::Overflow(self.shape.clone()))
    }
}

/// What every element type needs at most, bytes.
const ALIGNMENT: usize = align_of::<u64>();

/// Bytes being filled, aligned to 8 so that every element type can be read in place.
#[derive(Debug)]
pub struct TensorBuffer {
    words: Vec<u64>,
    bytes: usize,
}

impl TensorBuffer {
    /// A zeroed buffer of this many bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    /// The bytes, to fill.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }

    /// The elements, to fill; `None` when the length is no multiple of the element's.
    pub fn as_mut_slice_of<T: bytemuck::Pod>(&mut self) -> Option<&mut [T]> {
        bytemuck::try_cast_slice_mut(self.as_mut_bytes()).ok()
    }

    /// Ends the filling; the data can then be shared and no longer changed.
    pub fn freeze(self) -> TensorData {
        TensorData { memory: Arc::new(self) }
    }
}

impl AsRef<[u8]> for TensorBuffer {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}

/// Raw data of a tensor: immutable, shared by reference, aligned to 8 bytes.
#[derive(Clone)]
pub struct TensorData {
    memory: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl TensorData {
    /// A copy of these bytes.
    pub fn copied_from(bytes: &[u8]) -> Self {
        let (whole, rest) = bytes.as_chunks();
        let mut words: Vec<u64> = whole.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            words.push(u64::from_ne_bytes(word));
        }
        TensorBuffer { words, bytes: bytes.len() }.freeze()
    }

    /// Bytes that somebody else made and that stay as they are; copied only if they are not aligned.
    pub fn shared(memory: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let bytes = (*memory).as_ref();
        if bytes.as_ptr().addr() % ALIGNMENT == 0 { Self { memory } } else { Self::copied_from(bytes) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        (*self.memory).as_ref()
    }

    /// The elements, read in place; `None` when the length is no multiple of the element's.
    pub fn as_slice_of<T: bytemuck::Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.as_bytes()).ok()
    }
}

impl PartialEq for TensorData {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for TensorData {}

impl std::fmt::Debug for TensorData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorData({} bytes)", self.as_bytes().len())
    }
}

/// A tensor: description and data that agree in length. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    spec: TensorSpec,
    data: TensorData,
}

impl Tensor {
    /// Joins description and data.
    ///
    /// # Errors
    /// When the description is out of bounds, the data has another length, or is not the texts it should be.
    pub fn new(spec: TensorSpec, data: TensorData) -> Result<Self, BadTensor> {
        if spec.dtype == DType::Text {
            texts::check(data.as_bytes(), spec.elements()?)?;
            return Ok(Self { spec, data });
        }
        let (expected, got) = (spec.byte_length()?, data.as_bytes().len() as u64);
        if expected != got {
            return Err(BadTensor::Length { expected, got });
        }
        Ok(Self { spec, data })
    }

    /// Name, element type and shape.
    pub fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    /// The raw data, row major.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Description and data.
    pub fn into_parts(self) -> (TensorSpec, TensorData) {
        (self.spec, self.data)
    }
}

/// Bytes of all these tensors together.
pub fn total_bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.data.as_bytes().len() as u64).sum()
}

#[cfg(test)]
mod tests;

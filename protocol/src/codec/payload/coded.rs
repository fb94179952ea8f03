//! A tensor as a frame carries it: coded, shared by reference.

use super::{BadPayload, Codec, Scratch, check_length, decode, encode};
use crate::tensor::{Tensor, TensorData, TensorSpec};

/// Description, codec and coded bytes that agree in length. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedTensor {
    spec: TensorSpec,
    codec: Codec,
    bytes: TensorData,
}

impl From<Tensor> for CodedTensor {
    /// Uncoded; shares the tensor's data.
    fn from(tensor: Tensor) -> Self {
        let (spec, bytes) = tensor.into_parts();
        Self { spec, codec: Codec::Raw, bytes }
    }
}

impl CodedTensor {
    /// Encodes with this codec or a simpler one (see [`encode`]). A raw result shares the tensor's data.
    pub fn encode(codec: Codec, tensor: &Tensor, scratch: &mut Scratch) -> Self {
        let coded = encode(codec, tensor, scratch);
        match coded.codec {
            Codec::Raw => tensor.clone().into(),
            codec => {
                let bytes = TensorData::copied_from(coded.bytes);
                Self { spec: tensor.spec().clone(), codec, bytes }
            }
        }
    }

    /// Joins what a frame described with the bytes that came.
    ///
    /// # Errors
    /// When the codec does not apply or never gives so many bytes for such a tensor.
    pub fn new(spec: TensorSpec, codec: Codec, bytes: TensorData) -> Result<Self, BadPayload> {
        check_length(codec, &spec, bytes.as_bytes().len() as u64)?;
        Ok(Self { spec, codec, bytes })
    }

    /// The tensor. A raw one shares its data.
    ///
    /// # Errors
    /// When the bytes are not the codec's.
    pub fn decode(self, scratch: &mut Scratch) -> Result<Tensor, BadPayload> {
        let data = match self.codec {
            Codec::Raw => self.bytes,
            codec => decode(codec, &self.spec, self.bytes.as_bytes(), scratch)?,
        };
        Tensor::new(self.spec, data).map_err(|_| BadPayload::Malformed(self.codec))
    }

    /// Name, element type and shape.
    pub fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    /// The codec of the bytes.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }
}

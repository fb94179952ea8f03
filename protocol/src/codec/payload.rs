//! Payloads of tensors on the wire: which codecs there are, and tensor <-> coded bytes.
//!
//! A coded payload is always shorter than the raw one, or it is the raw one: what a codec cannot make
//! smaller, or cannot say honestly (int8 of infinities, f16 of numbers above its range), is sent by the
//! next simpler codec, which the frame names. So a receiver knows before it reads a payload how long it
//! may be at most. Which codec an edge of a plan should use is decided elsewhere.

mod coded;
mod f16;
mod int8;
mod packed;
mod scratch;
mod shuffle;

#[cfg(test)]
mod tests;

pub use coded::CodedTensor;
pub use scratch::Scratch;
pub use shuffle::shuffle;

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::tensor::{DType, Tensor, TensorBuffer, TensorData, TensorSpec};

/// Tensors below this many bytes are never rounded: they are sizes, places and flags as often as
/// activations, and there is nothing to save.
const ROUNDED_BYTES_MIN: u64 = 128;

/// How the data of a tensor is written. A closed list; values are on the wire. All numbers are
/// little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Codec {
    /// The data as it lies in memory, row major.
    #[default]
    #[serde(rename = "raw")]
    Raw = 0,
    /// First bytes of all elements, then all second bytes, ...; then one [LZ4 block]. Floats share their
    /// exponents, so one of the four parts becomes short.
    ///
    /// [LZ4 block]: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
    #[serde(rename = "shuffle+lz4")]
    ShuffleLz4 = 1,
    /// Each element rounded to IEEE 754 half precision, to nearest, ties to even.
    #[serde(rename = "f16")]
    F16 = 2,
    /// [`Codec::F16`], then one LZ4 block.
    #[serde(rename = "f16+lz4")]
    F16Lz4 = 3,
    /// Per channel the smallest value and a step (f32 each), all channels' together; then one byte for
    /// each element: the steps above the smallest value. A channel is a run of the data over the axes
    /// from 2 on; where that is shorter than 32 elements, from 1 on; else the whole tensor.
    #[serde(rename = "int8")]
    Int8 = 4,
    /// [`Codec::Int8`] with its elements' bytes as one LZ4 block.
    #[serde(rename = "int8+lz4")]
    Int8Lz4 = 5,
    /// [`Codec::Int8`] with its elements' bytes as differences, each from the one before it (modulo 256,
    /// the first from 0), and these as one [Zstandard frame](https://www.rfc-editor.org/rfc/rfc8878).
    #[serde(rename = "int8+zstd")]
    Int8Zstd = 6,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 7] =
        [Self::Raw, Self::ShuffleLz4, Self::F16, Self::F16Lz4, Self::Int8, Self::Int8Lz4, Self::Int8Zstd];

    /// From the number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| *codec as u8 == number)
    }

    /// Its name, for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::ShuffleLz4 => "shuffle+lz4",
            Self::F16 => "f16",
            Self::F16Lz4 => "f16+lz4",
            Self::Int8 => "int8",
            Self::Int8Lz4 => "int8+lz4",
            Self::Int8Zstd => "int8+zstd",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Whether decoding gives back every bit.
    pub fn is_lossless(self) -> bool {
        matches!(self, Self::Raw | Self::ShuffleLz4)
    }

    /// Whether a payload of this tensor may be coded so: those that round take single precision only, and
    /// no tensor that is so small that it may be a place or a size. Texts go as they are, since their length
    /// could not be told before they are decoded.
    pub fn applies_to(self, spec: &TensorSpec) -> bool {
        self == Self::Raw
            || (self.is_lossless() && spec.dtype != DType::Text)
            || (spec.dtype == DType::F32 && spec.byte_length().is_ok_and(|bytes| bytes >= ROUNDED_BYTES_MIN))
    }

    /// What serves where this codec does not: the packed forms' plain ones, and for these raw data.
    fn simpler(self) -> Option<Self> {
        match self {
            Self::Raw => None,
            Self::ShuffleLz4 | Self::F16 | Self::Int8 => Some(Self::Raw),
            Self::F16Lz4 => Some(Self::F16),
            Self::Int8Lz4 | Self::Int8Zstd => Some(Self::Int8),
        }
    }

    /// Whether [`encode`] with this codec may have used that one.
    pub fn may_become(self, used: Self) -> bool {
        std::iter::successors(Some(self), |codec| codec.simpler()).any(|codec| codec == used)
    }
}

/// Why a payload is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// The description is out of bounds, or the tensor larger than a frame may carry.
    #[error("the tensor is larger than a frame may carry")]
    AboveLimit,
    /// The codec does not apply to such elements, or never gives so many bytes for them.
    #[error("a payload of this length cannot be {} of such a tensor", .0.name())]
    Announced(Codec),
    /// The bytes do not follow the codec's format.
    #[error("the payload is no {} of this tensor", .0.name())]
    Malformed(Codec),
}

/// A coded payload, lying in the tensor or in the [`Scratch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coded<'a> {
    /// The codec that was used in the end.
    pub codec: Codec,
    /// What goes over the wire.
    pub bytes: &'a [u8],
}

/// Encodes with this codec, or with a simpler one where it does not apply, does not shorten, or would
/// lie about the numbers:
/// - int8 becomes raw when any number is infinite or NaN, or a channel spans more than f32 can hold;
/// - f16 becomes raw when a finite number would become infinite (from 65520 on); infinities stay, and
///   a NaN stays one, without its payload;
/// - the LZ4 and Zstandard forms become the form without, the raw one for [`Codec::ShuffleLz4`].
///
/// Rounding is off by at most half a step for int8 (a step is a 255th of the channel's range), for f16
/// by 2^-11 of the number or 2^-25, whichever is more. Tensors above [`FRAME_PAYLOAD_BYTES_MAX`] stay
/// raw: no frame carries them.
pub fn encode<'a>(codec: Codec, tensor: &'a Tensor, scratch: &'a mut Scratch) -> Coded<'a> {
    let bytes = tensor.data().as_bytes();
    let raw = Coded { codec: Codec::Raw, bytes };
    if !codec.applies_to(tensor.spec()) || bytes.len() as u64 > FRAME_PAYLOAD_BYTES_MAX {
        return raw;
    }
    let Some(element_bytes) = tensor.spec().dtype.bytes() else { return raw };
    let numbers = tensor.data().as_slice_of::<f32>().unwrap_or_default();
    let coded = match codec {
        Codec::Raw => None,
        Codec::ShuffleLz4 => scratch.shuffle_lz4(bytes, element_bytes),
        Codec::F16 | Codec::F16Lz4 => scratch.f16(codec, numbers),
        Codec::Int8 | Codec::Int8Lz4 | Codec::Int8Zstd => {
            int8::channel_elements(tensor.spec()).and_then(|channel| scratch.int8(codec, numbers, channel))
        }
    };
    coded.filter(|coded| coded.bytes.len() < bytes.len()).unwrap_or(raw)
}

/// Bytes of the raw data, if the codec applies to the tensor and may give so many coded bytes. Texts may have
/// any length within their limit; whether the bytes are texts is seen when they are a [`Tensor`].
///
/// # Errors
/// When the tensor is too large or the length impossible.
pub fn check_length(codec: Codec, spec: &TensorSpec, coded_bytes: u64) -> Result<u64, BadPayload> {
    let raw_lengths = spec.byte_lengths().map_err(|_| BadPayload::AboveLimit)?;
    let Some(element_bytes) = spec.dtype.bytes() else {
        let is_possible = codec == Codec::Raw && raw_lengths.contains(&coded_bytes);
        return if is_possible { Ok(coded_bytes) } else { Err(BadPayload::Announced(codec)) };
    };
    let raw_bytes = *raw_lengths.start();
    if raw_bytes > FRAME_PAYLOAD_BYTES_MAX {
        return Err(BadPayload::AboveLimit);
    }
    let elements = raw_bytes / element_bytes;
    let head_bytes = int8::channel_elements(spec).map_or(0, |channel| int8::head_bytes(elements, channel));
    let is_possible = codec.applies_to(spec)
        && match codec {
            Codec::Raw => coded_bytes == raw_bytes,
            Codec::ShuffleLz4 => (1..raw_bytes).contains(&coded_bytes),
            Codec::F16 => coded_bytes == raw_bytes / 2 && coded_bytes > 0,
            Codec::F16Lz4 => (1..raw_bytes / 2).contains(&coded_bytes),
            Codec::Int8 => coded_bytes == head_bytes + elements && coded_bytes < raw_bytes,
            Codec::Int8Lz4 | Codec::Int8Zstd => {
                (head_bytes + 1..head_bytes + elements).contains(&coded_bytes) && coded_bytes < raw_bytes
            }
        };
    if is_possible { Ok(raw_bytes) } else { Err(BadPayload::Announced(codec)) }
}

/// Decodes straight into the buffer that a session reads. Whatever the bytes say, this takes the memory
/// of the tensor as described, and of the scratch at most as much again.
///
/// # Errors
/// When the tensor is too large for a frame, or the bytes are not this codec's for such a tensor.
pub fn decode(
    codec: Codec,
    spec: &TensorSpec,
    coded: &[u8],
    scratch: &mut Scratch,
) -> Result<TensorData, BadPayload> {
    // Within memory, since it is below the limit of a frame.
    let raw_bytes = check_length(codec, spec, coded.len() as u64)? as usize;
    let Some(element_bytes) = spec.dtype.bytes().filter(|_| codec != Codec::Raw) else {
        return Ok(TensorData::copied_from(coded));
    };
    let mut buffer = TensorBuffer::zeroed(raw_bytes);
    let decoded = match codec {
        Codec::Raw => None,
        Codec::ShuffleLz4 => scratch.unshuffle_lz4(coded, element_bytes, buffer.as_mut_bytes()),
        Codec::F16 | Codec::F16Lz4 => {
            buffer.as_mut_slice_of::<f32>().and_then(|to| scratch.restore_f16(codec, coded, to))
        }
        Codec::Int8 | Codec::Int8Lz4 | Codec::Int8Zstd => {
            let channel = int8::channel_elements(spec);
            let to = buffer.as_mut_slice_of::<f32>();
            channel.zip(to).and_then(|(channel, to)| scratch.restore_int8(codec, coded, channel, to))
        }
    };
    decoded.ok_or(BadPayload::Malformed(codec))?;
    Ok(buffer.freeze())
}

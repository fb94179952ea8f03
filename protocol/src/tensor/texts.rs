//! Texts as the data of a tensor: each its length in bytes (u32, little-endian), then as many bytes of
//! UTF-8; row major, nothing between. That is the raw form of BYTES in the Open Inference Protocol.

use std::ops::RangeInclusive;

use super::{BadTensor, DType, Tensor, TensorData};
use crate::limits::{TEXTS_BYTES_MAX, TEXTS_MAX};

/// Bytes of a text's length.
const LENGTH_BYTES: u64 = 4;
/// What a text takes, its length included, where only the shape is known: a label or some words. A guess,
/// which plans and the accounts of memory are made with; ONNX Runtime's own form of a short text takes as
/// many.
pub(super) const TEXT_BYTES_TYPICAL: u64 = 32;

/// What is wrong with the texts of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTexts {
    /// More texts than allowed.
    #[error("{0} texts are above the limit of {TEXTS_MAX}")]
    Many(u64),
    /// More bytes than allowed.
    #[error("{0} bytes of texts are above the limit of {TEXTS_BYTES_MAX}")]
    Long(u64),
    /// The data ends in a text or before it.
    #[error("the data ends before text {0} does")]
    CutShort(u64),
    /// The data goes on behind the last text.
    #[error("{0} bytes follow the last text")]
    Rest(u64),
    /// Bytes that are no text.
    #[error("text {0} is not UTF-8")]
    NotUtf8(u64),
    /// A text that ONNX Runtime would take for a shorter one.
    #[error("text {0} has a zero byte in it, which ONNX Runtime takes for its end")]
    Zero(u64),
}

/// Bytes that so many texts may have together.
pub(super) fn byte_lengths(texts: u64) -> Result<RangeInclusive<u64>, BadTexts> {
    match texts {
        0 => Ok(0..=0),
        1..=TEXTS_MAX => Ok(LENGTH_BYTES * texts..=TEXTS_BYTES_MAX),
        _ => Err(BadTexts::Many(texts)),
    }
}

/// Whether these bytes are so many texts. Allocates nothing.
pub(super) fn check(data: &[u8], texts: u64) -> Result<(), BadTexts> {
    byte_lengths(texts)?;
    if data.len() as u64 > TEXTS_BYTES_MAX {
        return Err(BadTexts::Long(data.len() as u64));
    }
    let mut rest = data;
    for index in 0..texts {
        let (bytes, behind) = split(rest).ok_or(BadTexts::CutShort(index))?;
        let text = std::str::from_utf8(bytes).map_err(|_| BadTexts::NotUtf8(index))?;
        if text.contains('\0') {
            return Err(BadTexts::Zero(index));
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(BadTexts::Rest(rest.len() as u64)) }
}

/// The first element's bytes, and what is behind it.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// Texts of a tensor, in order.
#[derive(Debug, Clone)]
pub struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (text, rest) = split(self.0)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

impl Tensor {
    /// Its texts; `None` if it holds numbers.
    pub fn texts(&self) -> Option<Texts<'_>> {
        (self.spec.dtype == DType::Text).then(|| Texts(self.data.as_bytes()))
    }
}

impl TensorData {
    /// These texts, one after the other.
    ///
    /// # Errors
    /// When they are longer together than a tensor may be; no more than that is allocated.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BadTensor> {
        let mut data = Vec::new();
        for text in texts {
            let bytes = data.len() as u64 + LENGTH_BYTES + text.len() as u64;
            if bytes > TEXTS_BYTES_MAX {
                return Err(BadTexts::Long(bytes).into());
            }
            // Below the limit, so it fits.
            data.extend_from_slice(&(text.len() as u32).to_le_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        Ok(Self::copied_from(&data))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensor::TensorSpec;

    fn tensor(shape: &[u64], data: &[u8]) -> Result<Tensor, BadTensor> {
        let spec = TensorSpec { name: "x".into(), dtype: DType::Text, shape: shape.to_vec() };
        Tensor::new(spec, TensorData::copied_from(data))
    }

    #[test]
    fn texts_are_laid_out_as_the_open_inference_protocol_says() {
        let data = TensorData::of_texts(["ab", "", "é"]).unwrap();
        assert_eq!(data.as_bytes(), b"\x02\0\0\0ab\0\0\0\0\x02\0\0\0\xc3\xa9");
        let tensor = tensor(&[3, 1], data.as_bytes()).unwrap();
        assert_eq!(tensor.texts().unwrap().collect::<Vec<_>>(), ["ab", "", "é"]);
    }

    #[test]
    fn data_that_is_not_so_many_texts_is_refused() {
        let cases: [(&[u64], &[u8], BadTexts); 8] = [
            (&[2], b"\x01\0\0\0a", BadTexts::CutShort(1)),
            (&[1], b"\x02\0\0\0a", BadTexts::CutShort(0)),
            (&[1], b"\xff\xff\xff\xffa", BadTexts::CutShort(0)),
            (&[1], b"\0\0\0", BadTexts::CutShort(0)),
            (&[1], b"\x01\0\0\0abc", BadTexts::Rest(2)),
            (&[0, 7], b"a", BadTexts::Rest(1)),
            (&[2], b"\0\0\0\0\x01\0\0\0\xff", BadTexts::NotUtf8(1)),
            (&[], b"\x02\0\0\0a\0", BadTexts::Zero(0)),
        ];
        for (shape, data, expected) in cases {
            assert_eq!(tensor(shape, data), Err(BadTensor::Texts(expected)), "{shape:?} of {data:?}");
        }
        assert_eq!(tensor(&[1 << 40], b""), Err(BadTexts::Many(1 << 40).into()));
        let long = vec![b'a'; TEXTS_BYTES_MAX as usize];
        let framed = [&(long.len() as u32).to_le_bytes()[..], &long].concat();
        assert_eq!(tensor(&[1], &framed), Err(BadTexts::Long(TEXTS_BYTES_MAX + 4).into()));
        let too_long = std::str::from_utf8(&long).unwrap();
        assert_eq!(TensorData::of_texts([too_long]), Err(BadTexts::Long(TEXTS_BYTES_MAX + 4).into()));
    }

    #[test]
    fn numbers_have_no_texts() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::U8, shape: vec![4] };
        assert!(Tensor::new(spec, TensorData::copied_from(&[0; 4])).unwrap().texts().is_none());
    }

    /// A text without zero bytes, and where one was cut out, something else.
    fn any_text() -> impl Strategy<Value = String> {
        any::<String>().prop_map(|text| text.replace('\0', "-"))
    }

    proptest! {
        #[test]
        fn texts_come_back(texts in prop::collection::vec(any_text(), 0..20)) {
            let data = TensorData::of_texts(texts.iter().map(String::as_str)).unwrap();
            let tensor = tensor(&[texts.len() as u64], data.as_bytes()).unwrap();
            prop_assert_eq!(tensor.texts().unwrap().collect::<Vec<_>>(), texts);
        }

        /// Whatever is taken is what these texts are written as; and a text more or less is not taken.
        #[test]
        fn any_bytes_are_texts_or_refused(
            lengths in prop::collection::vec(prop_oneof![4 => 0u32..6, 1 => any::<u32>()], 0..6),
            bytes in prop::collection::vec(any::<u8>(), 0..30),
            shape in prop::collection::vec(prop_oneof![4 => 0u64..4, 1 => any::<u64>()], 0..4),
        ) {
            let mut data = Vec::new();
            let mut rest = bytes.as_slice();
            for length in lengths {
                data.extend_from_slice(&length.to_le_bytes());
                let (some, behind) = rest.split_at((length as usize).min(rest.len()));
                data.extend_from_slice(some);
                rest = behind;
            }
            if let Ok(tensor) = tensor(&shape, &data) {
                let texts: Vec<&str> = tensor.texts().unwrap().collect();
                prop_assert_eq!(texts.len() as u64, shape.iter().product::<u64>());
                let again = TensorData::of_texts(texts.iter().copied()).unwrap();
                prop_assert_eq!(again.as_bytes(), data.as_slice());
            }
        }
    }
}

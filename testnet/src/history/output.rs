//! Outputs of a model as they are judged: numbers that may differ by rounding, and values that may not.

use half::{bf16, f16};
use stormo_protocol::tensor::DType;

/// An output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub values: Values,
}

/// Elements of an output.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Of a floating point type, as 32-bit floats (which loses digits of 64-bit ones only).
    Floats(Vec<f32>),
    /// Of any other type: whole numbers, labels, truths. Little-endian bytes.
    Exact(Vec<u8>),
}

impl Output {
    /// From its bytes, as they are sent.
    ///
    /// # Errors
    /// When they are not whole elements, or texts, which are not judged.
    pub fn from_bytes(name: &str, dtype: DType, shape: &[u64], bytes: &[u8]) -> Result<Self, String> {
        let width =
            dtype.bytes().ok_or_else(|| format!("output `{name}` holds texts, which are not judged"))?;
        if !(bytes.len() as u64).is_multiple_of(width) {
            return Err(format!("output `{name}` is {} bytes, no whole {}", bytes.len(), dtype.oip_name()));
        }
        let values = match dtype {
            DType::F32 => Values::Floats(elements(bytes, f32::from_le_bytes)),
            DType::F64 => Values::Floats(elements(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
            DType::F16 => Values::Floats(elements(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
            DType::BF16 => Values::Floats(elements(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            _ => Values::Exact(bytes.to_vec()),
        };
        Ok(Self { name: name.to_owned(), dtype, shape: shape.to_vec(), values })
    }
}

fn elements<const BYTES: usize>(bytes: &[u8], element: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|chunk| element(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_as_what_it_is() {
        let read =
            |dtype, bytes: &[u8]| Output::from_bytes("y", dtype, &[1], bytes).map(|output| output.values);
        let half = f16::from_f32(0.5).to_le_bytes();
        assert_eq!(read(DType::F16, &half), Ok(Values::Floats(vec![0.5])));
        assert_eq!(read(DType::BF16, &bf16::from_f32(-2.0).to_le_bytes()), Ok(Values::Floats(vec![-2.0])));
        assert_eq!(read(DType::F64, &0.25f64.to_le_bytes()), Ok(Values::Floats(vec![0.25])));
        let label = 9_007_199_254_740_993i64.to_le_bytes();
        assert_eq!(read(DType::I64, &label), Ok(Values::Exact(label.to_vec())));
        assert_eq!(read(DType::Bool, &[1]), Ok(Values::Exact(vec![1])));
        assert!(read(DType::I64, &label[1..]).unwrap_err().contains("7 bytes, no whole INT64"));
        assert!(read(DType::Text, b"\x01\0\0\0a").unwrap_err().contains("texts"));
    }
}

//! Tensors as the Open Inference Protocol writes them: numbers and texts in JSON, or their raw bytes.

use half::{bf16, f16};
use serde::{Serialize, Serializer};
use serde_json::Value;
use stormo_protocol::tensor::{DType, Tensor, TensorBuffer, TensorData, TensorSpec};

use crate::app::calls::CallError;

fn bad(text: String) -> CallError {
    CallError::BadRequest(text)
}

fn spec(name: String, datatype: &str, shape: Vec<u64>) -> Result<TensorSpec, CallError> {
    let dtype = DType::from_oip_name(datatype).ok_or_else(|| {
        let known: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.oip_name()).collect();
        bad(format!("input `{name}`: datatype `{datatype}` is not supported; known: {}", known.join(", ")))
    })?;
    Ok(TensorSpec { name, dtype, shape })
}

/// A tensor from its raw bytes.
pub(in crate::serve) fn read_binary(
    name: String,
    datatype: &str,
    shape: Vec<u64>,
    bytes: &[u8],
) -> Result<Tensor, CallError> {
    let spec = spec(name, datatype, shape)?;
    let name = spec.name.clone();
    Tensor::new(spec, TensorData::copied_from(bytes)).map_err(|error| bad(format!("input `{name}`: {error}")))
}

/// A tensor from numbers or texts, flat or nested.
pub(in crate::serve) fn read_json(
    name: String,
    datatype: &str,
    shape: Vec<u64>,
    data: &Value,
) -> Result<Tensor, CallError> {
    let spec = spec(name, datatype, shape)?;
    let name = spec.name.clone();
    let wrong = |what: String| bad(format!("input `{name}`: {what}"));
    let expected = spec.elements().map_err(|error| wrong(error.to_string()))?;
    let mut values = Vec::new();
    flatten(data, &mut values);
    if values.len() as u64 != expected {
        return Err(wrong(format!(
            "{} values were given, shape {:?} has {expected}",
            values.len(),
            spec.shape
        )));
    }
    let no = |value: &Value| wrong(format!("{value} is no {}", spec.dtype.oip_name()));
    let data = match spec.dtype.bytes() {
        Some(element_bytes) => {
            let element_bytes = element_bytes as usize;
            let mut buffer = TensorBuffer::zeroed(values.len() * element_bytes);
            for (to, value) in buffer.as_mut_bytes().chunks_exact_mut(element_bytes).zip(values) {
                write_value(spec.dtype, value, to).ok_or_else(|| no(value))?;
            }
            buffer.freeze()
        }
        None => {
            let texts = values.into_iter().map(|value| value.as_str().ok_or_else(|| no(value)));
            let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
            TensorData::of_texts(texts).map_err(|error| wrong(error.to_string()))?
        }
    };
    Tensor::new(spec, data).map_err(|error| wrong(error.to_string()))
}

/// The JSON reader bounds the depth of nesting.
fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        other => into.push(other),
    }
}

fn write_value(dtype: DType, value: &Value, to: &mut [u8]) -> Option<()> {
    fn put<const N: usize>(to: &mut [u8], bytes: [u8; N]) -> Option<()> {
        to.copy_from_slice(&bytes);
        Some(())
    }
    match dtype {
        DType::F32 => put(to, (value.as_f64()? as f32).to_le_bytes()),
        DType::F64 => put(to, value.as_f64()?.to_le_bytes()),
        DType::F16 => put(to, f16::from_f64(value.as_f64()?).to_le_bytes()),
        DType::BF16 => put(to, bf16::from_f64(value.as_f64()?).to_le_bytes()),
        DType::I8 => put(to, i8::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I16 => put(to, i16::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I32 => put(to, i32::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I64 => put(to, value.as_i64()?.to_le_bytes()),
        DType::U8 => put(to, u8::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        DType::U16 => put(to, u16::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        DType::U32 => put(to, u32::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        DType::U64 => put(to, value.as_u64()?.to_le_bytes()),
        DType::Bool => put(to, [u8::from(value.as_bool().or_else(|| value.as_u64().map(|bit| bit != 0))?)]),
        DType::Text => None,
    }
}

/// A tensor's numbers or texts, flat. Not-a-number and infinity are `null`, as JSON has neither.
pub(in crate::serve) struct OutputData<'a>(pub(in crate::serve) &'a Tensor);

impl Serialize for OutputData<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.data().as_bytes();
        macro_rules! numbers {
            ($type:ty) => {
                to.collect_seq(bytes.as_chunks().0.iter().map(|chunk| <$type>::from_le_bytes(*chunk)))
            };
        }
        match self.0.spec().dtype {
            DType::F32 => numbers!(f32),
            DType::F64 => numbers!(f64),
            DType::F16 => {
                to.collect_seq(bytes.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()))
            }
            DType::BF16 => {
                to.collect_seq(bytes.as_chunks().0.iter().map(|chunk| bf16::from_le_bytes(*chunk).to_f32()))
            }
            DType::I8 => numbers!(i8),
            DType::I16 => numbers!(i16),
            DType::I32 => numbers!(i32),
            DType::I64 => numbers!(i64),
            DType::U8 => numbers!(u8),
            DType::U16 => numbers!(u16),
            DType::U32 => numbers!(u32),
            DType::U64 => numbers!(u64),
            DType::Bool => to.collect_seq(bytes.iter().map(|byte| *byte != 0)),
            DType::Text => to.collect_seq(self.0.texts().into_iter().flatten()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_comes_back_from_json() {
        for dtype in DType::ALL {
            let data = match dtype {
                DType::Bool => json!([true, false]),
                DType::Text => json!([["one"], ["\"é\n"]]),
                _ => json!([[1], [0]]),
            };
            let tensor = read_json("x".into(), dtype.oip_name(), vec![2, 1], &data).unwrap();
            let back = serde_json::to_value(OutputData(&tensor)).unwrap();
            let again = read_json("x".into(), dtype.oip_name(), vec![2, 1], &back).unwrap();
            assert_eq!(again, tensor, "{dtype:?}");
        }
    }

    #[test]
    fn numbers_survive_exactly() {
        let values = [0.1f32, f32::MIN_POSITIVE, -3.402_823_5e38, 1e-7];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = read_binary("x".into(), "FP32", vec![4], &bytes).unwrap();
        let text = serde_json::to_string(&OutputData(&tensor)).unwrap();
        let again = read_json("x".into(), "FP32", vec![4], &serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(again, tensor);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let wrong = [
            (read_json("x".into(), "INT8", vec![1], &json!([300])), "300 is no INT8"),
            (read_json("x".into(), "FP32", vec![2], &json!([1])), "1 values were given, shape [2] has 2"),
            (read_json("x".into(), "FP32", vec![1], &json!(["a"])), "\"a\" is no FP32"),
            (read_json("x".into(), "BYTES", vec![1], &json!([1])), "1 is no BYTES"),
            (read_json("x".into(), "BYTES", vec![2], &json!(["a"])), "1 values were given, shape [2] has 2"),
            (read_json("x".into(), "BYTES", vec![1], &json!(["a\u{0}b"])), "text 0 has a zero byte in it"),
            (read_json("x".into(), "TEXT", vec![1], &json!(["a"])), "`TEXT` is not supported"),
            (read_binary("x".into(), "BYTES", vec![1], b"\x02\0\0\0a"), "ends before text 0 does"),
            (read_json("x".into(), "FP32", vec![u64::MAX, 8], &json!([1])), "more bytes than any machine"),
            (read_binary("x".into(), "FP32", vec![2], &[0; 4]), "4 bytes of data"),
        ];
        for (result, expected) in wrong {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

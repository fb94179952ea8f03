//! The data of a stored tensor: does its length agree with its shape, and its raw little-endian bytes.

use protobuf::Enum;
use stormo_protocol::limits::RANK_MAX;
use stormo_protocol::tensor::{DType, TensorSpec};

use super::error::ModelError;
use super::messages::tensor_proto::{DataLocation, DataType};
use super::messages::{SparseTensorProto, TensorProto};

/// Element type of a tensor that may travel, from ONNX's number.
pub(super) fn dtype_of(number: i32) -> Option<DType> {
    u8::try_from(number).ok().and_then(DType::from_number)
}

/// Whether the data lies outside the message.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::EXTERNAL || !tensor.external_data.is_empty()
}

/// Number of elements that the dimensions describe.
fn element_count(tensor: &TensorProto, owner: &str) -> Result<u64, ModelError> {
    let bad = || ModelError::BadStored {
        tensor: owner.to_owned(),
        what: format!("{:.200}", format!("{:?}", tensor.dims)),
    };
    tensor.dims.iter().try_fold(1u64, |count, dim| {
        u64::try_from(*dim).ok().and_then(|dim| count.checked_mul(dim)).ok_or_else(bad)
    })
}

/// Bits of one element in `raw_data`; `None` for strings and for types unknown here.
fn element_bits(data_type: DataType) -> Option<u64> {
    use DataType as T;
    Some(match data_type {
        T::UINT2 | T::INT2 => 2,
        T::UINT4 | T::INT4 | T::FLOAT4E2M1 => 4,
        T::FLOAT8E4M3FN | T::FLOAT8E4M3FNUZ | T::FLOAT8E5M2 | T::FLOAT8E5M2FNUZ | T::FLOAT8E8M0 => 8,
        T::UINT8 | T::INT8 | T::BOOL => 8,
        T::UINT16 | T::INT16 | T::FLOAT16 | T::BFLOAT16 => 16,
        T::FLOAT | T::INT32 | T::UINT32 => 32,
        T::DOUBLE | T::INT64 | T::UINT64 | T::COMPLEX64 => 64,
        T::COMPLEX128 => 128,
        _ => return None,
    })
}

/// Bytes that the raw data of a tensor must have, wherever it is. `owner` names it in errors.
///
/// # Errors
/// `BadStored`, when shape or element type make no sense, or it has no raw form.
pub(super) fn raw_length(tensor: &TensorProto, owner: &str) -> Result<u64, ModelError> {
    let bad = |what: String| ModelError::BadStored { tensor: owner.to_owned(), what };
    let bits = DataType::from_i32(tensor.data_type()).and_then(element_bits);
    let bits = bits.ok_or_else(|| bad(format!("element type {}", tensor.data_type())))?;
    let elements = element_count(tensor, owner)?;
    let bits_in_all = elements.checked_mul(bits).ok_or_else(|| bad(format!("{elements} elements")))?;
    Ok(bits_in_all.div_ceil(8))
}

/// Checks that a tensor holds the data that its shape asks for. `owner` names it in errors.
///
/// # Errors
/// `BadStored`, `StoredLength` or `ExternalData`.
pub(super) fn check(tensor: &TensorProto, owner: &str) -> Result<(), ModelError> {
    if is_external(tensor) {
        return Err(ModelError::ExternalData { tensor: owner.to_owned() });
    }
    let bad = |what: String| ModelError::BadStored { tensor: owner.to_owned(), what };
    let data_type = DataType::from_i32(tensor.data_type())
        .filter(|data_type| *data_type != DataType::UNDEFINED)
        .ok_or_else(|| bad(format!("element type {}", tensor.data_type())))?;
    let elements = element_count(tensor, owner)?;
    let length = |expected: u64, got: usize| {
        if expected == got as u64 {
            return Ok(());
        }
        Err(ModelError::StoredLength { tensor: owner.to_owned(), expected, got: got as u64 })
    };
    if data_type == DataType::STRING {
        return length(elements, tensor.string_data.len());
    }
    let Some(bits) = element_bits(data_type) else { return Ok(()) };
    let bits_in_all = elements.checked_mul(bits).ok_or_else(|| bad(format!("{elements} elements")))?;
    if !tensor.raw_data().is_empty() {
        return length(bits_in_all.div_ceil(8), tensor.raw_data().len());
    }
    use DataType as T;
    match data_type {
        T::FLOAT => length(elements, tensor.float_data.len()),
        T::COMPLEX64 => length(elements.saturating_mul(2), tensor.float_data.len()),
        T::DOUBLE => length(elements, tensor.double_data.len()),
        T::COMPLEX128 => length(elements.saturating_mul(2), tensor.double_data.len()),
        T::INT64 => length(elements, tensor.int64_data.len()),
        T::UINT32 | T::UINT64 => length(elements, tensor.uint64_data.len()),
        // Types below one byte are packed, a byte's worth in each entry.
        _ if bits < 8 => length(bits_in_all.div_ceil(8), tensor.int32_data.len()),
        _ => length(elements, tensor.int32_data.len()),
    }
}

/// Checks values and indices of a sparse tensor.
///
/// # Errors
/// As [`check`].
pub(super) fn check_sparse(sparse: &SparseTensorProto, owner: &str) -> Result<(), ModelError> {
    let shape = TensorProto { dims: sparse.dims.clone(), ..TensorProto::default() };
    element_count(&shape, owner)?;
    sparse.values.iter().chain(sparse.indices.iter()).try_for_each(|part| check(part, owner))
}

/// Bytes that the data of a tensor takes in a message, whichever field holds it.
pub(super) fn stored_bytes(tensor: &TensorProto) -> u64 {
    let typed = 4 * (tensor.float_data.len() + tensor.int32_data.len())
        + 8 * (tensor.int64_data.len() + tensor.uint64_data.len() + tensor.double_data.len())
        + tensor.string_data.iter().map(Vec::len).sum::<usize>();
    (typed + tensor.raw_data().len()) as u64
}

/// The numbers of a tensor of 64-bit integers, as shapes are.
pub(super) fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    match dtype_of(tensor.data_type())? {
        DType::I64 if tensor.raw_data().is_empty() => Some(tensor.int64_data.clone()),
        DType::I64 => {
            let (numbers, _) = tensor.raw_data().as_chunks::<8>();
            Some(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        _ => None,
    }
}

/// Name, element type and shape, when the tensor can be an object of the pool. Texts cannot: ONNX Runtime
/// reads none from external data.
pub(super) fn spec_of(tensor: &TensorProto) -> Option<TensorSpec> {
    let dtype = dtype_of(tensor.data_type()).filter(|dtype| *dtype != DType::Text)?;
    let shape: Option<Vec<u64>> = tensor.dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let spec = TensorSpec {
        name: tensor.name().to_owned(),
        dtype,
        shape: shape.filter(|dims| dims.len() <= RANK_MAX)?,
    };
    spec.byte_length().is_ok().then_some(spec)
}

/// The data as raw little-endian bytes. The tensor must have passed [`check`] and have a [`spec_of`].
pub(super) fn raw_bytes(tensor: &TensorProto, dtype: DType) -> Vec<u8> {
    if !tensor.raw_data().is_empty() {
        return tensor.raw_data().to_vec();
    }
    let ints = &tensor.int32_data;
    match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect(),
        DType::I32 => ints.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U8 | DType::I8 => ints.iter().map(|value| *value as u8).collect(),
        DType::Bool => ints.iter().map(|value| u8::from(*value != 0)).collect(),
        // Half-precision numbers lie in the lower bits, as their bit pattern.
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => {
            ints.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect()
        }
        // They have no `spec_of`.
        DType::Text => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data_type: DataType, dims: &[i64]) -> TensorProto {
        let mut tensor = TensorProto { dims: dims.to_vec(), ..TensorProto::default() };
        tensor.set_data_type(data_type.value());
        tensor.set_name("w".into());
        tensor
    }

    #[test]
    fn shapes_that_claim_more_than_is_there_are_refused() {
        let mut claims = tensor(DataType::FLOAT, &[1 << 20, 1 << 20]);
        claims.set_raw_data(vec![0; 8]);
        let expected = ModelError::StoredLength { tensor: "w".into(), expected: 1 << 42, got: 8 };
        assert_eq!(check(&claims, "w"), Err(expected));
        for dims in [[1 << 30, 1 << 30], [i64::MAX, 3], [-1, 3]] {
            assert!(matches!(check(&tensor(DataType::FLOAT, &dims), "w"), Err(ModelError::BadStored { .. })));
        }
        assert!(matches!(check(&tensor(DataType::FLOAT, &[2]), "w"), Err(ModelError::StoredLength { .. })));
        assert_eq!(check(&tensor(DataType::FLOAT, &[0]), "w"), Ok(()));
    }

    #[test]
    fn typed_fields_become_the_bytes_that_raw_data_would_hold() {
        let mut halves = tensor(DataType::FLOAT16, &[2]);
        halves.int32_data = vec![0x3c00, 0xc000];
        assert_eq!(check(&halves, "w"), Ok(()));
        assert_eq!(raw_bytes(&halves, DType::F16), [0x00, 0x3c, 0x00, 0xc0]);
        let mut signed = tensor(DataType::INT8, &[2]);
        signed.int32_data = vec![-1, 2];
        assert_eq!(raw_bytes(&signed, DType::I8), [0xff, 2]);
        let mut wide = tensor(DataType::UINT32, &[1]);
        wide.uint64_data = vec![7];
        assert_eq!(raw_bytes(&wide, DType::U32), [7, 0, 0, 0]);
    }

    #[test]
    fn small_integers_are_counted_packed() {
        let mut nibbles = tensor(DataType::INT4, &[3]);
        nibbles.set_raw_data(vec![0; 2]);
        assert_eq!(check(&nibbles, "w"), Ok(()));
        assert_eq!(spec_of(&nibbles), None);
    }

    #[test]
    fn data_elsewhere_is_refused() {
        let mut external = tensor(DataType::FLOAT, &[1]);
        external.set_data_location(DataLocation::EXTERNAL);
        assert_eq!(check(&external, "w"), Err(ModelError::ExternalData { tensor: "w".into() }));
    }
}

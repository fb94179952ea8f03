//! Tensors as ONNX Runtime's values and back: numbers are read where they are, texts are copied.

use std::sync::Arc;

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, TensorValueType, ValueType,
};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

/// Why a value could not be handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    /// A boolean that is neither 0 nor 1; to read it as one would be undefined behaviour.
    #[error("`{0}` holds bytes other than 0 and 1, which are no booleans")]
    NoBoolean(String),
    /// No tensor, or one whose elements cannot cross between nodes.
    #[error("`{name}` is {what}, which cannot cross between nodes")]
    Unsupported { name: String, what: String },
    /// Name, rank or size beyond the protocol's limits.
    #[error("`{name}`: {source}")]
    OutOfBounds { name: String, source: stormo_protocol::tensor::BadTensor },
    /// ONNX Runtime's own words.
    #[error("`{name}`: {text}")]
    Refused { name: String, text: String },
}

/// Calls a generic function with the Rust type of an element type; does something else with texts.
macro_rules! with_element {
    ($dtype:expr, $call:ident ( $($argument:expr),* ), texts: $texts:expr) => {
        match $dtype {
            DType::F32 => $call::<f32>($($argument),*),
            DType::F64 => $call::<f64>($($argument),*),
            DType::F16 => $call::<f16>($($argument),*),
            DType::BF16 => $call::<bf16>($($argument),*),
            DType::U8 => $call::<u8>($($argument),*),
            DType::U16 => $call::<u16>($($argument),*),
            DType::U32 => $call::<u32>($($argument),*),
            DType::U64 => $call::<u64>($($argument),*),
            DType::I8 => $call::<i8>($($argument),*),
            DType::I16 => $call::<i16>($($argument),*),
            DType::I32 => $call::<i32>($($argument),*),
            DType::I64 => $call::<i64>($($argument),*),
            DType::Bool => $call::<bool>($($argument),*),
            DType::Text => $texts,
        }
    };
}

/// What an element type of ONNX Runtime is here; `None` for those that never cross (complex numbers,
/// packed 4-bit numbers and the like).
pub(super) fn dtype_of(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float64 => DType::F64,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::BF16,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Uint16 => DType::U16,
        TensorElementType::Uint32 => DType::U32,
        TensorElementType::Uint64 => DType::U64,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Int16 => DType::I16,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Bool => DType::Bool,
        TensorElementType::String => DType::Text,
        _ => return None,
    })
}

/// A view of a tensor's bytes that a session reads in place, or its own copy of the texts.
pub(super) fn input_value(tensor: &Tensor) -> Result<SessionInputValue<'_>, ValueError> {
    with_element!(tensor.spec().dtype, view(tensor), texts: copied(tensor))
}

fn view<T>(tensor: &Tensor) -> Result<SessionInputValue<'_>, ValueError>
where
    T: bytemuck::CheckedBitPattern + PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    // Length and alignment fit by construction of `Tensor`, so only a boolean can be wrong here.
    let elements: &[T] = bytemuck::checked::try_cast_slice(tensor.data().as_bytes())
        .map_err(|_| ValueError::NoBoolean(tensor.spec().name.clone()))?;
    match TensorRef::from_array_view((dimensions(tensor.spec())?, elements)) {
        Ok(value) => Ok(value.into()),
        Err(error) => Err(refused(&tensor.spec().name, &error)),
    }
}

fn copied(tensor: &Tensor) -> Result<SessionInputValue<'_>, ValueError> {
    let texts: Vec<String> = tensor.texts().into_iter().flatten().map(str::to_owned).collect();
    match ort::value::Tensor::from_string_array((dimensions(tensor.spec())?, texts.as_slice())) {
        Ok(value) => Ok(value.into()),
        Err(error) => Err(refused(&tensor.spec().name, &error)),
    }
}

fn dimensions(spec: &TensorSpec) -> Result<Vec<i64>, ValueError> {
    let dimensions = spec.shape.iter().map(|dimension| i64::try_from(*dimension));
    let fit: Result<_, _> = dimensions.collect();
    fit.map_err(|error| ValueError::Refused { name: spec.name.clone(), text: error.to_string() })
}

fn refused(name: &str, error: &ort::Error) -> ValueError {
    ValueError::Refused { name: name.into(), text: bounded(error.message()) }
}

/// Name, element type and shape of what a session gave.
pub(super) fn spec_of(name: &str, value: &DynValue) -> Result<TensorSpec, ValueError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ValueError::Unsupported { name: name.into(), what: value.dtype().to_string() });
    };
    let Some(dtype) = dtype_of(*ty) else {
        return Err(ValueError::Unsupported { name: name.into(), what: format!("a tensor of {ty}") });
    };
    let shape = shape.iter().map(|dimension| dimension.unsigned_abs()).collect();
    let spec = TensorSpec { name: name.into(), dtype, shape };
    match spec.byte_length() {
        Ok(_) => Ok(spec),
        Err(source) => Err(ValueError::OutOfBounds { name: bounded(name), source }),
    }
}

/// What a session gave for these inputs.
pub(super) fn tensor_of(name: &str, value: DynValue, inputs: &[Tensor]) -> Result<Tensor, ValueError> {
    let spec = spec_of(name, &value)?;
    let data = with_element!(spec.dtype, in_place(name, value, inputs), texts: texts_of(name, &value))?;
    Tensor::new(spec, data).map_err(|source| ValueError::OutOfBounds { name: name.into(), source })
}

fn texts_of(name: &str, value: &DynValue) -> Result<TensorData, ValueError> {
    let (_, texts) = value.try_extract_strings().map_err(|error| refused(name, &error))?;
    let data = TensorData::of_texts(texts.iter().map(String::as_str));
    data.map_err(|source| ValueError::OutOfBounds { name: name.into(), source })
}

/// The numbers in the memory that they were written to. That memory belongs to the value alone, except where
/// a model passes an input on: then it is the caller's, and copied.
fn in_place<T>(name: &str, value: DynValue, inputs: &[Tensor]) -> Result<TensorData, ValueError>
where
    T: bytemuck::NoUninit + PrimitiveTensorElementType + Send + Sync + std::fmt::Debug + 'static,
{
    let value = value.downcast::<TensorValueType<T>>().map_err(|error| refused(name, &error))?;
    let written = Arc::new(Written(value));
    let bytes = (*written).as_ref();
    let is_input = inputs.iter().any(|input| overlap(input.data().as_bytes(), bytes));
    Ok(if is_input { TensorData::copied_from(bytes) } else { TensorData::shared(written) })
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.as_ptr_range(), other.as_ptr_range());
    one.start < other.end && other.start < one.end
}

/// An output; its memory is freed with it, be the session there or not.
struct Written<T>(ort::value::Tensor<T>)
where
    T: PrimitiveTensorElementType + std::fmt::Debug;

impl<T> AsRef<[u8]> for Written<T>
where
    T: bytemuck::NoUninit + PrimitiveTensorElementType + std::fmt::Debug,
{
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.extract_tensor().1)
    }
}

/// Longest text of ONNX Runtime's that goes into an error or a log, characters. Its messages quote
/// names from the model, which may be as long as a stranger likes.
const TEXT_CHARS_MAX: usize = 400;

/// The beginning of a text.
pub(super) fn bounded(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

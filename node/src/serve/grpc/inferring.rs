//! An inference over gRPC: the request and its answer as the protocol's messages.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Number, Value};
use stormo_protocol::tensor::{DType, Tensor, TensorData};

use super::framing::Written;
use super::messages::{
    Choice, InferInputTensor, InferOutputTensor, InferParameter, InferRequestedOutputTensor,
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, parsed_bytes,
};
use crate::app::calls::{Answer, CallError, TIMEOUT_MS_DEFAULT};
use crate::serve::Shared;
use crate::serve::admission::Admitted;
use crate::serve::oip::answer::{Output, chosen, parameters};
use crate::serve::oip::request::{Asked, Wanted, WantedOutput, flag, read_bytes, read_options};
use crate::serve::oip::{self, bad};
use crate::traces::TraceParent;

/// Asks Triton to say of a stream's answer whether it is the last to its request.
const WANTS_FINAL: &str = "triton_enable_empty_final_response";
/// Where it is said; here each request has one answer.
const IS_FINAL: &str = "triton_final_response";

/// Asks for outputs as bytes, over HTTP.
const BINARY: &str = "binary_data_output";
/// Longest name of a model, and longest id of a request, bytes: they are told again in answers and errors.
const NAME_BYTES_MAX: usize = 1 << 10;

/// A request that came.
pub(super) struct Received {
    /// A `ModelInferRequest`.
    pub(super) bytes: Bytes,
    /// Its place among the requests of this node.
    pub(super) place: Option<Arc<Admitted>>,
    /// When its call is over.
    pub(super) deadline: Option<Instant>,
    /// The span of its caller that its call belongs to.
    pub(super) trace_parent: Option<TraceParent>,
    /// Whether it is one of a stream.
    pub(super) is_stream: bool,
}

/// Runs a request and writes its answer; who drops this ends it. What is read or written beside the tasks goes on then,
/// and keeps the request's place so long.
///
/// # Errors
/// With the caller's name for the request, if that could be read.
pub(super) async fn infer(shared: &Shared, received: Received) -> Result<Written, (String, CallError)> {
    let Received { bytes, place, deadline, trace_parent, is_stream } = received;
    let named = Arc::new(OnceLock::new());
    let parsed_bytes = parsed_bytes(&bytes).map_err(|error| (String::new(), bad(error.to_string())))?;
    let bytes_of = (parsed_bytes, bytes.len());
    let (naming, reading) = (named.clone(), place.clone());
    let read = move || {
        let _place = reading;
        let request = ModelInferRequest::decode(bytes);
        let request =
            request.map_err(|error| bad(format!("the request is no ModelInferRequest: {error}")))?;
        if request.id.len() <= NAME_BYTES_MAX {
            naming.get_or_init(|| request.id.clone());
        }
        let mut asked = asked(request, is_stream)?;
        asked.options.trace_parent = trace_parent;
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let left_ms = u32::try_from(left).unwrap_or(u32::MAX);
            if left_ms == 0 {
                return Err(CallError::Deadline("the time of the call is over".into()));
            }
            asked.options.timeout_ms = Some(timeout_ms(asked.options.timeout_ms, left_ms, is_stream));
        }
        Ok(asked)
    };
    let write = move |asked, answer: &Answer| {
        let response = response(asked, answer, is_stream)?;
        if !is_stream {
            return Written::new(&response, place);
        }
        let response =
            ModelStreamInferResponse { infer_response: Some(response), error_message: String::new() };
        Written::new(&response, place)
    };
    let answered = oip::infer(shared, bytes_of, read, write).await;
    answered.map_err(|error| (named.get().cloned().unwrap_or_default(), error))
}

/// How long a request is tried, if its call has so much time left: that of a stream is not meant for one request in it.
fn timeout_ms(given: Option<u32>, left_ms: u32, is_stream: bool) -> u32 {
    let given = given.or(is_stream.then_some(TIMEOUT_MS_DEFAULT));
    given.map_or(left_ms, |ms| ms.min(left_ms))
}

/// The same request as it would have been read from HTTP.
fn asked(request: ModelInferRequest, is_stream: bool) -> Result<Asked, CallError> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } =
        request;
    for (what, name) in [("name of the model", &model_name), ("id", &id)] {
        if name.len() > NAME_BYTES_MAX {
            return Err(bad(format!(
                "the {what} has {} bytes; at most {NAME_BYTES_MAX} are taken",
                name.len()
            )));
        }
    }
    let version = if model_version.is_empty() { None } else { Some(oip::version_number(&model_version)?) };
    let mut limits: Map<String, Value> =
        parameters.into_iter().map(|(name, parameter)| (name, value(parameter))).collect();
    if is_stream {
        limits.remove(WANTS_FINAL);
    }
    if flag(&limits, BINARY)? == Some(false) {
        return Err(bad(format!(
            "over gRPC outputs are always bytes, so `{BINARY}` cannot be false; leave it out"
        )));
    }
    Ok(Asked {
        model: model_name,
        version,
        id: Some(id).filter(|id| !id.is_empty()),
        inputs: tensors(inputs, &raw_input_contents)?,
        options: read_options(&limits)?,
        outputs: wanted(outputs)?,
    })
}

fn value(parameter: InferParameter) -> Value {
    match parameter.choice {
        None => Value::Null,
        Some(Choice::Bool(value)) => value.into(),
        Some(Choice::Int64(value)) => value.into(),
        Some(Choice::Uint64(value)) => value.into(),
        Some(Choice::Text(value)) => value.into(),
        // What is no number is refused by its name where a number is wanted.
        Some(Choice::Double(value)) => {
            Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
        }
    }
}

/// Outputs are always answered as bytes, as Triton does it.
fn wanted(outputs: Vec<InferRequestedOutputTensor>) -> Result<Wanted, CallError> {
    let named = outputs.into_iter().map(|InferRequestedOutputTensor { name, parameters }| {
        match parameters.keys().next() {
            Some(parameter) => {
                Err(bad(format!("output `{name}`: there is no parameter `{parameter}`; leave it out")))
            }
            None => Ok(WantedOutput { name, as_bytes: true }),
        }
    });
    Ok(Wanted { named: named.collect::<Result<_, _>>()?, as_bytes: true })
}

fn tensors(inputs: Vec<InferInputTensor>, raw: &[Bytes]) -> Result<Vec<Tensor>, CallError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (inputs, raw) = (inputs.len(), raw.len());
        return Err(bad(format!(
            "the request has {inputs} inputs and {raw} raw_input_contents; there must be one for each, or none"
        )));
    }
    let is_only = inputs.len() == 1;
    let inputs = inputs.into_iter().enumerate().map(|(index, input)| {
        let InferInputTensor { name, datatype, shape, parameters, contents } = input;
        if let Some(parameter) = parameters.keys().next() {
            return Err(bad(format!("input `{name}`: there is no parameter `{parameter}`; leave it out")));
        }
        let shape: Option<Vec<u64>> = shape.iter().map(|dim| u64::try_from(*dim).ok()).collect();
        let shape = shape.ok_or_else(|| bad(format!("input `{name}`: a dimension is below 0")))?;
        let own = match (raw.get(index), contents) {
            (Some(raw), None) => raw.clone(),
            (None, Some(contents)) => contents_bytes(&name, &datatype, &contents)?.into(),
            (Some(_), Some(_)) => {
                return Err(bad(format!("input `{name}` has both contents and raw_input_contents")));
            }
            (None, None) => {
                return Err(bad(format!("input `{name}` has neither contents nor raw_input_contents")));
            }
        };
        read_bytes(name, &datatype, shape, &own, is_only)
    });
    inputs.collect()
}

/// Values as the bytes that they would be in `raw_input_contents`.
fn contents_bytes(name: &str, datatype: &str, contents: &InferTensorContents) -> Result<Vec<u8>, CallError> {
    fn bytes<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
        numbers.flatten().collect()
    }
    fn smaller<T: Copy, S: TryFrom<T>, const N: usize>(
        numbers: &[T],
        to: impl Fn(S) -> [u8; N],
    ) -> Option<Vec<u8>> {
        let small: Option<Vec<[u8; N]>> =
            numbers.iter().map(|number| S::try_from(*number).ok().map(&to)).collect();
        Some(small?.into_flattened())
    }
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let read = match DType::from_oip_name(datatype) {
        Some(DType::Bool) => Some(bool_contents.iter().map(|value| u8::from(*value)).collect()),
        Some(DType::I8) => smaller(int_contents, i8::to_le_bytes),
        Some(DType::I16) => smaller(int_contents, i16::to_le_bytes),
        Some(DType::I32) => Some(bytes(int_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::I64) => Some(bytes(int64_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::U8) => smaller(uint_contents, u8::to_le_bytes),
        Some(DType::U16) => smaller(uint_contents, u16::to_le_bytes),
        Some(DType::U32) => Some(bytes(uint_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::U64) => Some(bytes(uint64_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::F32) => Some(bytes(fp32_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::F64) => Some(bytes(fp64_contents.iter().map(|value| value.to_le_bytes()))),
        Some(DType::Text) => Some(bytes_contents.iter().fold(Vec::new(), |mut all, text| {
            all.extend_from_slice(&(text.len() as u32).to_le_bytes());
            all.extend_from_slice(text);
            all
        })),
        Some(DType::F16 | DType::BF16) => {
            return Err(bad(format!("input `{name}`: {datatype} has no contents; send raw_input_contents")));
        }
        // The reader knows which types there are.
        None => Some(vec![]),
    };
    read.ok_or_else(|| bad(format!("input `{name}`: a value is no {datatype}")))
}

fn response(asked: Asked, answer: &Answer, is_stream: bool) -> Result<ModelInferResponse, CallError> {
    let outputs = chosen(&answer.outputs, &asked.outputs)?;
    let told = parameters(answer).into_iter().map(|(name, value)| (name, parameter(value)));
    let mut parameters: BTreeMap<String, InferParameter> = told.collect();
    if is_stream {
        parameters.insert(IS_FINAL.into(), parameter(Value::Bool(true)));
    }
    Ok(ModelInferResponse {
        model_name: asked.model,
        model_version: answer.version.to_string(),
        id: asked.id.unwrap_or_default(),
        parameters,
        raw_output_contents: outputs.iter().map(raw).collect(),
        outputs: outputs.iter().map(described).collect(),
    })
}

fn parameter(value: Value) -> InferParameter {
    let choice = match value {
        Value::Null => return InferParameter::default(),
        Value::Bool(value) => Choice::Bool(value),
        Value::String(value) => Choice::Text(value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Choice::Int64(value),
            (None, Some(value)) => Choice::Double(value),
            (None, None) => Choice::Text(number.to_string()),
        },
        other => Choice::Text(other.to_string()),
    };
    InferParameter { choice: Some(choice) }
}

fn described(output: &Output<'_>) -> InferOutputTensor {
    let shape = output.shape().into_iter().map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
    InferOutputTensor {
        name: output.name().to_owned(),
        datatype: output.datatype().to_owned(),
        shape: shape.collect(),
    }
}

struct Memory(TensorData);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn raw(output: &Output<'_>) -> Bytes {
    if output.meaning().is_none() {
        return Bytes::from_owner(Memory(output.tensor().data().clone()));
    }
    let mut bytes = Vec::new();
    output.write_bytes(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests;

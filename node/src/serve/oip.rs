//! The Open Inference Protocol, version 2, over HTTP: health, metadata, `infer` with JSON and binary
//! tensors. Source: github.com/kserve/open-inference-protocol, and its binary tensor data extension.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stormo_protocol::frame::Redundancy;
use stormo_protocol::model::{ENCODED_IMAGE, MEANING};
use stormo_protocol::tensor::{Tensor, total_bytes};

use super::oip_data::{OutputData, read_binary, read_json};
use super::windows::Ended;
use super::{Shared, refusal};
use crate::app::calls::{Answer, Call, CallError, InferOptions, PlanLimits};
use crate::ends::bytes_tensor;
use crate::plan::Objective;
use crate::serve::json::TensorView;

/// The protocol's type of texts and of images.
const BYTES: &str = "BYTES";
/// Up to this many bytes of JSON, or of outputs, are read or written at once: it takes less than a millisecond (numbers
/// in JSON, some 120 MB/s).
const AT_ONCE_BYTES_MAX: usize = 64 << 10;
/// Length of the JSON before binary tensors.
const HEADER_LENGTH: &str = "inference-header-content-length";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { Json(json!({ "live": true })) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(metadata_of_version))
        .route("/v2/models/{model}/versions/{version}/ready", get(ready_of_version))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer_version))
}

async fn server() -> Response {
    Json(json!({
        "name": "stormo",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    }))
    .into_response()
}

/// Ready when the loop answers.
async fn ready(State(shared): State<Shared>) -> Response {
    match shared.call(Call::Models).await {
        Ok(_) => Json(json!({ "ready": true })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn metadata(State(shared): State<Shared>, Path(model): Path<String>) -> Response {
    described(&shared, model, None).await
}

async fn metadata_of_version(
    State(shared): State<Shared>,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    described(&shared, model, Some(version)).await
}

async fn described(shared: &Shared, name: String, version: Option<String>) -> Response {
    let view = match shared.call(|reply| Call::Model { name, variant: None, reply }).await {
        Ok(view) => view,
        Err(error) => return error.into_response(),
    };
    if version.is_some_and(|version| version != view.version.to_string()) {
        let text = format!("the deployed version of `{}` is {}", view.name, view.version);
        return refusal(StatusCode::NOT_FOUND, text);
    }
    Json(json!({
        "name": view.name,
        "versions": [view.version.to_string()],
        "platform": "onnxruntime_onnx",
        "inputs": view.inputs.iter().map(tensor_metadata).collect::<Vec<_>>(),
        "outputs": view.outputs.iter().map(tensor_metadata).collect::<Vec<_>>(),
    }))
    .into_response()
}

/// As the protocol describes tensors: an axis of any length is -1.
fn tensor_metadata(tensor: &TensorView) -> Value {
    let mut shape: Vec<i64> = tensor.shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(-1)).collect();
    if tensor.is_variable {
        shape.fill(-1);
    } else if let Some(items) = shape.first_mut().filter(|_| tensor.is_batched) {
        *items = -1;
    }
    json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": shape })
}

async fn model_ready(State(shared): State<Shared>, Path(model): Path<String>) -> Response {
    ready_if_known(&shared, model, None).await
}

async fn ready_of_version(
    State(shared): State<Shared>,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    ready_if_known(&shared, model, Some(version)).await
}

async fn ready_if_known(shared: &Shared, model: String, version: Option<String>) -> Response {
    let described = described(shared, model.clone(), version).await;
    if described.status() == StatusCode::OK {
        Json(json!({ "name": model, "ready": true })).into_response()
    } else {
        described
    }
}

async fn infer(State(shared): State<Shared>, Path(model): Path<String>, request: Request) -> Response {
    answered(&shared, model, None, request).await
}

async fn infer_version(
    State(shared): State<Shared>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    match version.parse() {
        Ok(version) => answered(&shared, model, Some(version), request).await,
        Err(_) => refusal(StatusCode::NOT_FOUND, format!("`{version}` is no version; versions are numbers")),
    }
}

async fn answered(shared: &Shared, model: String, version: Option<u64>, request: Request) -> Response {
    let entered = match shared.admission.enter(&model) {
        Ok(entered) => entered,
        Err(error) => {
            shared.skip_body(request).await;
            return error.into_response();
        }
    };
    let headers = request.headers().clone();
    let body = match shared.body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    // Held until it is answered.
    let _admitted = match shared.admission.admit(body.len()) {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let is_short = json_length(&headers).unwrap_or(body.len()) <= AT_ONCE_BYTES_MAX;
    // The body is gone when it has been read.
    let read = move || parse(&headers, &body);
    let parsed = match if is_short { read() } else { apart(read).await } {
        Ok(parsed) => parsed,
        Err(error) => return error.into_response(),
    };
    let Parsed { id, inputs, options, outputs, binary_output } = parsed;
    let name = model.clone();
    let call = |reply| Call::Infer { model, version, inputs, options, reply };
    let result = shared.call(call).await;
    if let Some(ended) = ended(&result) {
        entered.ended(ended);
    }
    let response = match result {
        Ok(answer) if total_bytes(&answer.outputs) <= AT_ONCE_BYTES_MAX as u64 => {
            respond(&name, id, answer, &outputs, binary_output)
        }
        Ok(answer) => apart(move || respond(&name, id, answer, &outputs, binary_output)).await,
        Err(error) => Err(error),
    };
    response.unwrap_or_else(IntoResponse::into_response)
}

/// What a request's end says of how many there is room for.
fn ended(result: &Result<Answer, CallError>) -> Option<Ended> {
    match result {
        Ok(answer) => Some(if answer.late { Ended::TooMuch } else { Ended::InTime }),
        Err(CallError::Overloaded(_) | CallError::Deadline(_)) => Some(Ended::TooMuch),
        Err(_) => None,
    }
}

/// Does work of milliseconds beside the tasks, which have signs of life to show meanwhile. How much of it there is at
/// once is bounded by admission.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(CallError::Unavailable(format!("the node is ending: {error}"))))
}

/// Bytes of JSON before binary tensors, as announced.
fn json_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(HEADER_LENGTH)?.to_str().ok()?.parse().ok()
}

#[derive(Deserialize)]
struct InferBody {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<InputBody>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

#[derive(Deserialize)]
struct InputBody {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct WantedOutput {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

struct Parsed {
    id: Option<String>,
    inputs: Vec<Tensor>,
    options: InferOptions,
    outputs: Vec<WantedOutput>,
    binary_output: bool,
}

fn bad(text: impl Into<String>) -> CallError {
    CallError::BadRequest(text.into())
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Parsed, CallError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(bad("compressed requests are not taken; send the body as it is"));
    }
    let (head, mut binary) = match headers.get(HEADER_LENGTH) {
        None => (body, &[][..]),
        Some(_) => {
            let length = json_length(headers);
            let length = length.ok_or_else(|| bad("Inference-Header-Content-Length is no number"))?;
            body.split_at_checked(length).ok_or_else(|| {
                bad(format!(
                    "Inference-Header-Content-Length is {length}, but the body has {} bytes",
                    body.len()
                ))
            })?
        }
    };
    let parsed: InferBody =
        serde_json::from_slice(head).map_err(|error| bad(format!("the request is malformed: {error}")))?;
    let mut inputs = Vec::with_capacity(parsed.inputs.len());
    let is_only = parsed.inputs.len() == 1;
    for input in parsed.inputs {
        inputs.push(read_input(input, is_only, &mut binary)?);
    }
    if !binary.is_empty() {
        return Err(bad(format!("{} bytes follow the last input's data", binary.len())));
    }
    let options = read_options(&parsed.parameters)?;
    let binary_output = flag(&parsed.parameters, "binary_data_output")?.unwrap_or(false);
    Ok(Parsed { id: parsed.id, inputs, options, outputs: parsed.outputs, binary_output })
}

fn read_input(input: InputBody, is_only: bool, binary: &mut &[u8]) -> Result<Tensor, CallError> {
    let InputBody { name, shape, datatype, parameters, data } = input;
    match (parameters.get("binary_data_size"), data) {
        (Some(size), None) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let size = size.ok_or_else(|| bad(format!("input `{name}`: binary_data_size is no number")))?;
            let (own, rest) = binary.split_at_checked(size).ok_or_else(|| {
                bad(format!(
                    "input `{name}` announces {size} bytes, but {} are left in the body",
                    binary.len()
                ))
            })?;
            *binary = rest;
            let may_be_image = is_only && datatype == BYTES;
            read_binary(name, &datatype, shape.clone(), own)
                .or_else(|error| may_be_image.then(|| read_image(&shape, own)).flatten().ok_or(error))
        }
        (None, Some(data)) => read_json(name, &datatype, shape, &data),
        (Some(_), Some(_)) => Err(bad(format!("input `{name}` has both `data` and binary data"))),
        (None, None) => Err(bad(format!("input `{name}` has no `data`"))),
    }
}

/// One element of BYTES as an encoded image, whatever the input is called. No JPEG or PNG is a text.
fn read_image(shape: &[u64], own: &[u8]) -> Option<Tensor> {
    let (length, image) = own.split_first_chunk()?;
    let is_one = u32::from_le_bytes(*length) as usize == image.len()
        && shape.iter().try_fold(1u64, |count, dim| count.checked_mul(*dim)) == Some(1);
    is_one.then(|| bytes_tensor(ENCODED_IMAGE, image)).flatten()
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Result<Option<bool>, CallError> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(bad(format!("parameter `{name}` must be true or false, not {other}"))),
    }
}

fn number(parameters: &Map<String, Value>, name: &str) -> Result<Option<f64>, CallError> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_f64().filter(|value| *value > 0.0 && value.is_finite()).map(Some).ok_or_else(|| {
                bad(format!("parameter `{name}` must be a number of milliseconds above 0, not {value}"))
            })
        }
    }
}

/// An accuracy as a limit.
pub(super) fn accuracy(given: f64) -> Result<f64, CallError> {
    if given > 0.0 && given <= 1.0 {
        Ok(given)
    } else {
        Err(bad(format!("min_accuracy must be above 0 and at most 1, not {given}")))
    }
}

fn min_accuracy(parameters: &Map<String, Value>) -> Result<Option<f64>, CallError> {
    match parameters.get("min_accuracy") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => accuracy(value.as_f64().unwrap_or(f64::NAN)).map(Some),
    }
}

/// A limit above zero.
pub(super) fn above_zero(name: &str, given: f64) -> Result<f64, CallError> {
    if given > 0.0 && given.is_finite() {
        Ok(given)
    } else {
        Err(bad(format!("{name} must be a number above 0, not {given}")))
    }
}

fn energy(parameters: &Map<String, Value>) -> Result<Option<f64>, CallError> {
    match parameters.get("max_energy_j") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => above_zero("max_energy_j", value.as_f64().unwrap_or(f64::NAN)).map(Some),
    }
}

fn objective(parameters: &Map<String, Value>) -> Result<Objective, CallError> {
    match parameters.get("objective") {
        None | Some(Value::Null) => Ok(Objective::Latency),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| bad(format!("objective must be latency, throughput or energy, not {value}"))),
    }
}

/// Who asks for little energy pays for no second run, unless it says so.
fn redundancy(parameters: &Map<String, Value>, objective: Objective) -> Result<Redundancy, CallError> {
    match parameters.get("redundancy") {
        None | Some(Value::Null) if objective == Objective::Energy => Ok(Redundancy::Warm),
        None | Some(Value::Null) => Ok(Redundancy::Hedge),
        Some(value) => value
            .as_str()
            .and_then(Redundancy::named)
            .ok_or_else(|| bad(format!("redundancy must be warm, hedge or duplicate, not {value}"))),
    }
}

/// Parameters that this version does not act on yet: to ignore them would break a promise.
const NOT_YET: [&str; 2] = ["energy_class", "save"];

/// What a request may say besides its tensors.
const KNOWN: [&str; 11] = [
    "binary_data_output",
    "force_first",
    "force_last",
    "max_energy_j",
    "max_latency_ms",
    "min_accuracy",
    "objective",
    "plan_id",
    "redundancy",
    "timeout_ms",
    "variant",
];

fn read_options(parameters: &Map<String, Value>) -> Result<InferOptions, CallError> {
    if let Some(name) = NOT_YET.iter().find(|name| parameters.contains_key(**name)) {
        return Err(bad(format!(
            "parameter `{name}` is not supported by this version of stormo; leave it out"
        )));
    }
    if let Some(name) = parameters.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad(format!("there is no parameter `{name}`; there are {}", KNOWN.join(", "))));
    }
    let plan = match parameters.get("plan_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|error| bad(format!("plan_id: {error}")))?),
        Some(other) => return Err(bad(format!("plan_id must be a text, not {other}"))),
    };
    let variant = match parameters.get("variant") {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) => Some(label.clone()),
        Some(other) => return Err(bad(format!("variant must be a text, not {other}"))),
    };
    let objective = objective(parameters)?;
    Ok(InferOptions {
        variant,
        redundancy: redundancy(parameters, objective)?,
        plan,
        timeout_ms: number(parameters, "timeout_ms")?.map(|ms| ms.min(f64::from(u32::MAX)) as u32),
        limits: PlanLimits {
            force_first: flag(parameters, "force_first")?.unwrap_or(false),
            force_last: flag(parameters, "force_last")?.unwrap_or(false),
            min_accuracy: min_accuracy(parameters)?,
            max_latency_ms: number(parameters, "max_latency_ms")?,
            max_energy_j: energy(parameters)?,
            objective,
        },
    })
}

#[derive(Serialize)]
struct InferAnswer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Value,
    outputs: Vec<OutputBody<'a>>,
}

#[derive(Serialize)]
struct OutputBody<'a> {
    name: &'a str,
    shape: Vec<u64>,
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<OutputValues<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutputValues<'a> {
    Numbers(OutputData<'a>),
    Text([String; 1]),
}

fn respond(
    model: &str,
    id: Option<String>,
    answer: Answer,
    wanted: &[WantedOutput],
    binary_output: bool,
) -> Result<Response, CallError> {
    let mut outputs = Vec::new();
    let mut binary = Vec::new();
    for (tensor, as_binary) in chosen(&answer.outputs, wanted, binary_output)? {
        if tensor.spec().name == MEANING {
            outputs.push(meaning(tensor, as_binary, &mut binary));
            continue;
        }
        let bytes = tensor.data().as_bytes();
        if as_binary {
            binary.extend_from_slice(bytes);
        }
        outputs.push(OutputBody {
            name: &tensor.spec().name,
            shape: tensor.spec().shape.clone(),
            datatype: tensor.spec().dtype.oip_name(),
            parameters: as_binary.then(|| json!({ "binary_data_size": bytes.len() })),
            data: (!as_binary).then_some(OutputValues::Numbers(OutputData(tensor))),
        });
    }
    let mut parameters = json!({
        "plan_id": answer.plan.to_string(),
        "request_id": answer.request.to_string(),
        "attempts": answer.attempts,
        "failovers": answer.failovers,
        "variant": answer.variant,
        "nodes": answer.nodes.join(","),
        "codecs": answer.codecs.iter().map(|codec| codec.name()).collect::<Vec<_>>().join(","),
        "latency_ms": answer.latency_ms,
        "late": answer.late,
    });
    // Of a node that does not know what it draws there is nothing to tell.
    for (name, energy_j) in [("energy_j", answer.energy_j), ("predicted_energy_j", answer.predicted_energy_j)]
    {
        if let Some(energy_j) = energy_j {
            parameters[name] = json!(energy_j);
        }
    }
    let body =
        InferAnswer { model_name: model, model_version: answer.version.to_string(), id, parameters, outputs };
    let mut bytes = match serde_json::to_vec(&body) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    };
    if binary.is_empty() {
        return Ok(
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
        );
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(bytes.len())),
    ];
    bytes.append(&mut binary);
    Ok((headers, bytes).into_response())
}

/// What the answer means, as one element of text.
fn meaning<'a>(tensor: &'a Tensor, as_binary: bool, binary: &mut Vec<u8>) -> OutputBody<'a> {
    let bytes = tensor.data().as_bytes();
    if as_binary {
        binary.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        binary.extend_from_slice(bytes);
    }
    OutputBody {
        name: &tensor.spec().name,
        shape: vec![1],
        datatype: BYTES,
        parameters: as_binary.then(|| json!({ "binary_data_size": bytes.len() + 4 })),
        data: (!as_binary).then(|| OutputValues::Text([String::from_utf8_lossy(bytes).into_owned()])),
    }
}

/// The outputs that were asked for, all if none was, and whether each is wanted as bytes.
fn chosen<'a>(
    outputs: &'a [Tensor],
    wanted: &[WantedOutput],
    binary_output: bool,
) -> Result<Vec<(&'a Tensor, bool)>, CallError> {
    if wanted.is_empty() {
        return Ok(outputs.iter().map(|tensor| (tensor, binary_output)).collect());
    }
    wanted
        .iter()
        .map(|output| {
            let tensor =
                outputs.iter().find(|tensor| tensor.spec().name == output.name).ok_or_else(|| {
                    let names: Vec<&str> = outputs.iter().map(|tensor| tensor.spec().name.as_str()).collect();
                    bad(format!(
                        "the model has no output `{}`; its outputs: {}",
                        output.name,
                        names.join(", ")
                    ))
                })?;
            Ok((tensor, flag(&output.parameters, "binary_data")?.unwrap_or(binary_output)))
        })
        .collect()
}

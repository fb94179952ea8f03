//! The Open Inference Protocol over HTTP: health, metadata, `infer` with JSON and binary tensors. Source:
//! github.com/kserve/open-inference-protocol, and its binary tensor data extension.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stormo_protocol::tensor::Tensor;

use super::answer::{Output, chosen, parameters};
use super::data::{OutputData, read_json};
use super::request::{Asked, Wanted, WantedOutput, flag, read_bytes, read_options};
use super::{PLATFORM, SERVER, bad};
use crate::app::calls::{Answer, CallError, InferOptions};
use crate::serve::json::TensorView;
use crate::serve::named::Named;
use crate::serve::{Shared, refusal};
use crate::traces::TraceParent;

/// Length of the JSON before binary tensors.
const HEADER_LENGTH: &str = "inference-header-content-length";

pub(in crate::serve) fn routes() -> Router<Shared> {
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
        "name": SERVER,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    }))
    .into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    match super::ready(&shared).await {
        Ok(()) => Json(json!({ "ready": true })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn metadata(State(shared): State<Shared>, Named(model): Named<String>) -> Response {
    described(&shared, model, None).await
}

async fn metadata_of_version(
    State(shared): State<Shared>,
    Named((model, version)): Named<(String, String)>,
) -> Response {
    described(&shared, model, Some(version)).await
}

async fn described(shared: &Shared, name: String, version: Option<String>) -> Response {
    let view = match super::described(shared, name, version.as_deref()).await {
        Ok(view) => view,
        Err(error) => return error.into_response(),
    };
    Json(json!({
        "name": view.name,
        "versions": [view.version.to_string()],
        "platform": PLATFORM,
        "inputs": view.inputs.iter().map(tensor_metadata).collect::<Vec<_>>(),
        "outputs": view.outputs.iter().map(tensor_metadata).collect::<Vec<_>>(),
    }))
    .into_response()
}

fn tensor_metadata(tensor: &TensorView) -> Value {
    json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": super::shape_of(tensor) })
}

async fn model_ready(State(shared): State<Shared>, Named(model): Named<String>) -> Response {
    ready_if_known(&shared, model, None).await
}

async fn ready_of_version(
    State(shared): State<Shared>,
    Named((model, version)): Named<(String, String)>,
) -> Response {
    ready_if_known(&shared, model, Some(version)).await
}

async fn ready_if_known(shared: &Shared, model: String, version: Option<String>) -> Response {
    match super::described(shared, model.clone(), version.as_deref()).await {
        Ok(view) if !view.ready => {
            let text = format!(
                "parts of `{model}` are loaded nowhere yet; try again in a second, or see `stormo status`"
            );
            CallError::Unavailable(text).into_response()
        }
        Ok(_) => Json(json!({ "name": model, "ready": true })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn infer(State(shared): State<Shared>, Named(model): Named<String>, request: Request) -> Response {
    answered(&shared, model, None, request).await
}

async fn infer_version(
    State(shared): State<Shared>,
    Named((model, version)): Named<(String, String)>,
    request: Request,
) -> Response {
    match super::version_number(&version) {
        Ok(version) => answered(&shared, model, Some(version), request).await,
        Err(error) => error.into_response(),
    }
}

async fn answered(shared: &Shared, model: String, version: Option<u64>, request: Request) -> Response {
    if let Err(error) = shared.look(&model) {
        shared.skip_body(request).await;
        return error.into_response();
    }
    let headers = request.headers().clone();
    let body = match shared.body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    // Held until it is answered, and by work that goes on beside the tasks when its caller has gone.
    let place = match shared.admission.admit(body.len()) {
        Ok(admitted) => Arc::new(admitted),
        Err(error) => return error.into_response(),
    };
    let bytes = (json_length(&headers).unwrap_or(body.len()), body.len());
    let place_of_read = place.clone();
    // The body is gone when it has been read.
    let read = move || {
        let _place = place_of_read;
        parse(model, version, &headers, &body)
    };
    let write = move |asked, answer: &Answer| {
        let _place = place;
        respond(asked, answer)
    };
    super::infer(shared, bytes, read, write).await.unwrap_or_else(IntoResponse::into_response)
}

/// While it is read, a number of one digit takes many times its bytes in memory.
const JSON_BYTES_MAX: usize = 64 << 20;

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
    outputs: Vec<WantedBody>,
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
struct WantedBody {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

pub(in crate::serve) fn parse(
    model: String,
    version: Option<u64>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Asked, CallError> {
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
    if head.len() > JSON_BYTES_MAX {
        return Err(bad(format!(
            "a request has at most {JSON_BYTES_MAX} bytes of JSON, not {}; send tensors as bytes behind it \
             (Inference-Header-Content-Length and binary_data_size, which Triton's clients do by themselves)",
            head.len()
        )));
    }
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
    let options =
        InferOptions { trace_parent: TraceParent::of(headers), ..read_options(&parsed.parameters)? };
    let as_bytes = flag(&parsed.parameters, "binary_data_output")?.unwrap_or(false);
    let named = parsed.outputs.into_iter().map(|output| {
        only(&output.parameters, &["binary_data"], || format!("output `{}`", output.name))?;
        let as_bytes = flag(&output.parameters, "binary_data")?.unwrap_or(as_bytes);
        Ok(WantedOutput { name: output.name, as_bytes })
    });
    let outputs = Wanted { named: named.collect::<Result<_, CallError>>()?, as_bytes };
    Ok(Asked { model, version, id: parsed.id, inputs, options, outputs })
}

/// Refuses parameters that mean nothing here: to ignore them would break a promise.
fn only(
    parameters: &Map<String, Value>,
    known: &[&str],
    whose: impl FnOnce() -> String,
) -> Result<(), CallError> {
    match parameters.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(bad(format!("{}: there is no parameter `{unknown}`; leave it out", whose()))),
        None => Ok(()),
    }
}

fn read_input(input: InputBody, is_only: bool, binary: &mut &[u8]) -> Result<Tensor, CallError> {
    let InputBody { name, shape, datatype, parameters, data } = input;
    only(&parameters, &["binary_data_size"], || format!("input `{name}`"))?;
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
            read_bytes(name, &datatype, shape, own, is_only)
        }
        (None, Some(data)) => read_json(name, &datatype, shape, &data),
        (Some(_), Some(_)) => Err(bad(format!("input `{name}` has both `data` and binary data"))),
        (None, None) => Err(bad(format!("input `{name}` has no `data`"))),
    }
}

#[derive(Serialize)]
struct InferAnswer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Map<String, Value>,
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

impl<'a> From<Output<'a>> for OutputValues<'a> {
    fn from(output: Output<'a>) -> Self {
        match output.meaning() {
            Some(text) => Self::Text([String::from_utf8_lossy(text).into_owned()]),
            None => Self::Numbers(OutputData(output.tensor())),
        }
    }
}

fn respond(asked: Asked, answer: &Answer) -> Result<Response, CallError> {
    let Asked { model, id, outputs: wanted, .. } = asked;
    let mut binary = Vec::new();
    let outputs = chosen(&answer.outputs, &wanted)?;
    let outputs = outputs.into_iter().map(|output| OutputBody {
        name: output.name(),
        shape: output.shape(),
        datatype: output.datatype(),
        parameters: output.as_bytes.then(|| json!({ "binary_data_size": output.write_bytes(&mut binary) })),
        data: (!output.as_bytes).then(|| output.into()),
    });
    let body = InferAnswer {
        model_name: &model,
        model_version: answer.version.to_string(),
        id,
        outputs: outputs.collect(),
        parameters: parameters(answer),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_beyond_its_limit_is_refused_unread() {
        let told = |length: usize| {
            let body = vec![b' '; length];
            parse("m".to_owned(), None, &HeaderMap::new(), &body).err().map(|error| error.to_string())
        };
        assert!(told(JSON_BYTES_MAX + 1).is_some_and(|text| text.contains("bytes of JSON")));
        assert!(told(100).is_some_and(|text| text.contains("malformed")));
    }

    #[test]
    fn parameters_of_inputs_and_outputs_that_mean_nothing_here_are_refused() {
        let told = |input: Value, output: Value| {
            let body = json!({
                "inputs": [{ "name": "x", "shape": [1], "datatype": "FP32", "data": [1.0], "parameters": input }],
                "outputs": [{ "name": "y", "parameters": output }],
            });
            let body = serde_json::to_vec(&body).unwrap();
            parse("m".to_owned(), None, &HeaderMap::new(), &body).err().map(|error| error.to_string())
        };
        assert_eq!(told(json!({}), json!({ "binary_data": true })), None);
        let classes = told(json!({}), json!({ "classification": 3 })).unwrap();
        assert!(classes.contains("`y`") && classes.contains("`classification`"), "{classes}");
        let shared = told(json!({ "shared_memory_region": "r" }), json!({})).unwrap();
        assert!(shared.contains("`x`") && shared.contains("`shared_memory_region`"), "{shared}");
    }
}

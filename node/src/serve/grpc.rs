//! The gRPC front of a node: the Open Inference Protocol's service with Triton's stream of requests, for clients that
//! were written for these. What is asked and answered is the HTTP front's; only the wire is another.

mod connections;
mod framing;
mod inferring;
mod messages;
mod status;
mod streaming;

use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prost::Message;

use self::connections::OpenCall;
use self::framing::{Answers, Reader, Written};
use self::messages::{
    ModelIndex, ModelMetadataResponse, ModelRequest, ReadyResponse, RepositoryIndexResponse,
    ServerLiveResponse, ServerMetadataResponse, TensorMetadata,
};
use self::status::{Code, Status};
use super::json::TensorView;
use super::oip::{self, PLATFORM, SERVER, shape_of};
use super::{Shared, TOKEN_WANTED};
use crate::app::calls::{Call, CallError};
use crate::traces::TraceParent;

pub(super) use connections::serve;

/// Where the service is.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// What is called with tensors: once, and as often as the caller likes.
const INFER: &str = "ModelInfer";
const STREAM: &str = "ModelStreamInfer";
/// The other calls that are answered.
const SMALL: [&str; 6] =
    ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "RepositoryIndex"];
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ENCODINGS: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

/// Answers a call.
async fn answered(shared: Shared, request: Request<Incoming>, open: OpenCall) -> Response<Answers> {
    let wrong = if request.method() != Method::POST {
        Some(StatusCode::METHOD_NOT_ALLOWED)
    } else if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
        Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    } else {
        None
    };
    if let Some(status) = wrong {
        let mut response = Response::new(Answers::none(open));
        *response.status_mut() = status;
        return response;
    }
    let begun = begin(shared, request).await;
    let (headers, body) = match begun {
        Ok(Begun::One(message)) => (HeaderMap::new(), Answers::one(message, open)),
        Ok(Begun::Stream(streamed)) => (HeaderMap::new(), streamed.answers(open)),
        Err(status) => (status.headers(), Answers::none(open)),
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().extend([(CONTENT_TYPE, GRPC), (ENCODINGS, PLAIN)]);
    response
}

/// The type as it is, or with a format or parameters.
fn is_grpc(kind: &HeaderValue) -> bool {
    let after = kind.as_bytes().strip_prefix(GRPC.as_bytes());
    after.is_some_and(|after| matches!(after.first(), None | Some(b'+' | b';')))
}

/// A call that was taken.
enum Begun {
    One(Written),
    Stream(Box<streaming::Streaming>),
}

async fn begin(shared: Shared, request: Request<Incoming>) -> Result<Begun, Status> {
    let (head, body) = request.into_parts();
    if !shared.lets_in(&head.headers) {
        return Err(Status::new(Code::Unauthenticated, TOKEN_WANTED));
    }
    if head.headers.get(ENCODING).is_some_and(|encoding| *encoding != PLAIN) {
        return Err(Status::new(
            Code::Unimplemented,
            "compressed messages are not taken; send them as they are",
        ));
    }
    let deadline = deadline(&head.headers, Instant::now())?;
    let trace_parent = TraceParent::of(&head.headers);
    let method = head.uri.path().strip_prefix(SERVICE).unwrap_or_default();
    if method == STREAM {
        let window = streaming::window(&head.headers)?;
        let reader = Reader::of_requests(body, shared.admission.clone());
        let streamed = streaming::Streaming::new(shared, reader, (deadline, trace_parent), window);
        return Ok(Begun::Stream(Box::new(streamed)));
    }
    if method == INFER {
        let (bytes, place) = Reader::of_request(body, shared.admission.clone()).only(deadline).await?;
        let received = inferring::Received { bytes, place, deadline, trace_parent, is_stream: false };
        return Ok(Begun::One(inferring::infer(&shared, received).await.map_err(|(_, error)| error)?));
    }
    if !SMALL.contains(&method) {
        let text = format!(
            "there is no call {}; there are {INFER}, {STREAM}, {} of inference.GRPCInferenceService",
            head.uri.path(),
            SMALL.join(", ")
        );
        return Err(Status::new(Code::Unimplemented, text));
    }
    let (bytes, _) = Reader::of_small(body).only(deadline).await?;
    Ok(Begun::One(small(&shared, method, &bytes).await?))
}

/// The calls without tensors.
async fn small(shared: &Shared, method: &str, request: &[u8]) -> Result<Written, Status> {
    let written = match method {
        "ServerLive" => Written::new(&ServerLiveResponse { live: true }, None),
        "ServerReady" => Written::new(&ReadyResponse { ready: oip::ready(shared).await.is_ok() }, None),
        "ServerMetadata" => Written::new(
            &ServerMetadataResponse {
                name: SERVER.into(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: vec![],
            },
            None,
        ),
        "ModelReady" => {
            let ready = match described(shared, request).await {
                Ok(view) => view.ready,
                Err(CallError::NotFound(_) | CallError::Unavailable(_)) => false,
                Err(error) => return Err(error.into()),
            };
            Written::new(&ReadyResponse { ready }, None)
        }
        "ModelMetadata" => {
            let view = described(shared, request).await?;
            let metadata = ModelMetadataResponse {
                name: view.name,
                versions: vec![view.version.to_string()],
                platform: PLATFORM.into(),
                inputs: view.inputs.iter().map(tensor_metadata).collect(),
                outputs: view.outputs.iter().map(tensor_metadata).collect(),
            };
            Written::new(&metadata, None)
        }
        _ => {
            let known = shared.call(Call::Models).await?.models.into_iter();
            let index = |model: crate::serve::json::ModelView| ModelIndex {
                name: model.name,
                version: model.version.to_string(),
                state: if model.ready { "READY" } else { "UNAVAILABLE" }.into(),
            };
            Written::new(&RepositoryIndexResponse { models: known.map(index).collect() }, None)
        }
    };
    Ok(written?)
}

async fn described(shared: &Shared, request: &[u8]) -> Result<super::json::ModelView, CallError> {
    let request = ModelRequest::decode(request);
    let ModelRequest { name, version } =
        request.map_err(|error| CallError::BadRequest(format!("the request is malformed: {error}")))?;
    oip::described(shared, name, Some(version.as_str()).filter(|version| !version.is_empty())).await
}

fn tensor_metadata(tensor: &TensorView) -> TensorMetadata {
    TensorMetadata { name: tensor.name.clone(), datatype: tensor.datatype.clone(), shape: shape_of(tensor) }
}

/// When a call is over, if its caller says so: up to eight digits and a unit.
fn deadline(headers: &HeaderMap, now: Instant) -> Result<Option<Instant>, Status> {
    let Some(given) = headers.get(TIMEOUT) else { return Ok(None) };
    let timeout = given.to_str().ok().and_then(timeout);
    let timeout =
        timeout.ok_or_else(|| Status::new(Code::InvalidArgument, "grpc-timeout is no number with a unit"))?;
    Ok(now.checked_add(timeout))
}

fn timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u32 = digits.parse().ok()?;
    let of = match unit {
        'H' => Duration::from_secs(3600),
        'M' => Duration::from_secs(60),
        'S' => Duration::from_secs(1),
        'm' => Duration::from_millis(1),
        'u' => Duration::from_micros(1),
        'n' => Duration::from_nanos(1),
        _ => return None,
    };
    of.checked_mul(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_types_are_not_taken_for_grpc() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(&HeaderValue::from_static(good)), "{good}");
        }
        for wrong in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!is_grpc(&HeaderValue::from_static(wrong)), "{wrong}");
        }
    }

    #[test]
    fn timeouts_have_a_number_and_a_unit() {
        assert_eq!(timeout("15S"), Some(Duration::from_secs(15)));
        assert_eq!(timeout("99999999H").map(|timeout| timeout.as_secs()), Some(99_999_999 * 3600));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "1", "1s", "100000000S", "-1S", "1 S", "1é", "٣S"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }
}

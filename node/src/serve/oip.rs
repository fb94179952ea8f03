//! The Open Inference Protocol, version 2: what is asked of models and answered, whichever way it comes. How it is
//! written on the wire is the fronts' own. Source: github.com/kserve/open-inference-protocol.

pub(super) mod answer;
pub(super) mod data;
pub(super) mod http;
pub(super) mod request;

use std::mem;
use std::time::{Duration, Instant};

use stormo_protocol::tensor::total_bytes;

use super::Shared;
use super::json::{ModelView, TensorView};
use super::windows::Entered;
use crate::app::calls::{Answer, Call, CallError, InferOptions};
use request::Asked;

pub(super) use http::routes;

/// The protocol's type of texts and of images.
const BYTES: &str = "BYTES";
/// What the server calls itself.
pub(super) const SERVER: &str = "stormo";
/// What runs models.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";
/// Up to this many bytes of JSON, or of outputs, are read or written at once: it takes less than a millisecond (numbers
/// in JSON, some 120 MB/s).
const AT_ONCE_BYTES_MAX: usize = 64 << 10;
/// Up to this many bytes of tensors are copied at once: some hundred microseconds.
const COPIED_AT_ONCE_BYTES_MAX: usize = 1 << 20;

pub(super) fn bad(text: impl Into<String>) -> CallError {
    CallError::BadRequest(text.into())
}

/// Ready when the loop answers.
pub(super) async fn ready(shared: &Shared) -> Result<(), CallError> {
    shared.call(Call::Models).await.map(|_| ())
}

/// A model, by name, and by version if a certain one is meant.
pub(super) async fn described(
    shared: &Shared,
    name: String,
    version: Option<&str>,
) -> Result<ModelView, CallError> {
    let view = shared.call(|reply| Call::Model { name, variant: None, reply }).await?;
    if version.is_some_and(|version| version != view.version.to_string()) {
        let text = format!("the deployed version of `{}` is {}", view.name, view.version);
        return Err(CallError::NotFound(text));
    }
    Ok(view)
}

/// A version as it is asked for.
pub(super) fn version_number(text: &str) -> Result<u64, CallError> {
    text.parse().map_err(|_| CallError::NotFound(format!("`{text}` is no version; versions are numbers")))
}

/// As the protocol describes shapes: an axis of any length is -1.
pub(super) fn shape_of(tensor: &TensorView) -> Vec<i64> {
    let mut shape: Vec<i64> = tensor.shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(-1)).collect();
    if tensor.is_variable {
        shape.fill(-1);
    } else if let Some(items) = shape.first_mut().filter(|_| tensor.is_batched) {
        *items = -1;
    }
    shape
}

/// Reads a request of so many bytes, some of which are parsed one by one, runs it and writes its answer. To write, the
/// request is there without its inputs and options. Whoever drops this ends the request.
pub(super) async fn infer<T: Send + 'static>(
    shared: &Shared,
    (parsed_bytes, all_bytes): (usize, usize),
    read: impl FnOnce() -> Result<Asked, CallError> + Send + 'static,
    write: impl FnOnce(Asked, &Answer) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let is_short = parsed_bytes <= AT_ONCE_BYTES_MAX && all_bytes <= COPIED_AT_ONCE_BYTES_MAX;
    let mut asked = if is_short { read() } else { apart(read).await }?;
    let entered = shared.enter(&asked.model)?;
    let (since, allowed) = (Instant::now(), Allowed::by(&asked.options));
    let (model, version) = (asked.model.clone(), asked.version);
    let (inputs, options) = (mem::take(&mut asked.inputs), mem::take(&mut asked.options));
    let result = shared.call(|reply| Call::Infer { model, version, inputs, options, reply }).await;
    allowed.tell(&entered, &result, since.elapsed());
    // Writing the answer is not what others wait for.
    drop(entered);
    let answer = result?;
    if total_bytes(&answer.outputs) <= AT_ONCE_BYTES_MAX as u64 {
        write(asked, &answer)
    } else {
        apart(move || write(asked, &answer)).await
    }
}

/// How long a request may take.
struct Allowed {
    /// `None` where it asks for a plan that may be any slow.
    latency: Option<Duration>,
    timeout: Duration,
}

impl Allowed {
    fn by(options: &InferOptions) -> Self {
        let latency_ms = options.limits.max_latency_ms.filter(|_| options.plan.is_none());
        Self {
            latency: latency_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
            timeout: options.timeout_ms.map_or(Duration::MAX, |ms| Duration::from_millis(u64::from(ms))),
        }
    }

    /// Tells what its end says of how many there is room for.
    fn tell(&self, entered: &Entered, result: &Result<Answer, CallError>, took: Duration) {
        match result {
            Ok(_) => entered.answered(took, self.latency),
            Err(CallError::Overloaded(_)) => entered.refused(),
            Err(CallError::Deadline(_)) => entered.expired(self.timeout),
            Err(_) => {}
        }
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

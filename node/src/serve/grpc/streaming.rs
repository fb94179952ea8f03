//! `ModelStreamInfer`: requests of one stream, several under way at once, their answers in order.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::stream::{self, FuturesOrdered, StreamExt};
use hyper::header::HeaderMap;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::connections::OpenCall;
use super::framing::{Answers, Read, Reader, Written};
use super::inferring::{Received, infer};
use super::messages::{ModelInferResponse, ModelStreamInferResponse};
use super::status::{Code, Status};
use crate::serve::Shared;
use crate::traces::TraceParent;

/// Header that says how many requests of a stream may be under way at once.
const WINDOW: &str = "stormo-window";
/// Requests of a stream that are under way at once unless it says otherwise: as many as `stormo stream` has.
const WINDOW_DEFAULT: usize = 4;
/// Most of them.
const WINDOW_MAX: usize = 64;

/// How many requests the caller wants to be under way at once.
pub(super) fn window(headers: &HeaderMap) -> Result<usize, Status> {
    let Some(given) = headers.get(WINDOW) else { return Ok(WINDOW_DEFAULT) };
    let window = given.to_str().ok().and_then(|text| text.parse().ok());
    window.filter(|window| (1..=WINDOW_MAX).contains(window)).ok_or_else(|| {
        Status::new(Code::InvalidArgument, format!("{WINDOW} must be a number from 1 to {WINDOW_MAX}"))
    })
}

/// A stream. While no answer is taken no further request is read; who drops this ends all that are under way.
pub(super) struct Streaming {
    shared: Shared,
    reader: Reader,
    deadline: Option<Instant>,
    trace_parent: Option<TraceParent>,
    window: usize,
    under_way: FuturesOrdered<Running>,
    /// How the requests ended, once they did.
    ended: Option<Result<(), Status>>,
}

impl Streaming {
    pub(super) fn new(
        shared: Shared,
        reader: Reader,
        (deadline, trace_parent): (Option<Instant>, Option<TraceParent>),
        window: usize,
    ) -> Self {
        Self { shared, reader, deadline, trace_parent, window, under_way: FuturesOrdered::new(), ended: None }
    }

    pub(super) fn answers(self, open: OpenCall) -> Answers {
        let answers = stream::unfold(self, |mut streaming| async move {
            streaming.next().await.map(|answer| (answer, streaming))
        });
        Answers::new(answers, open)
    }

    /// The next answer, in order. When the time of the stream is over it ends, whatever is under way.
    async fn next(&mut self) -> Option<Result<Written, Status>> {
        let Some(deadline) = self.deadline else { return self.answer().await };
        // Answers that are there would go on being given.
        if Instant::now() < deadline
            && let Ok(answer) = timeout_at(deadline.into(), self.answer()).await
        {
            return answer;
        }
        self.under_way.clear();
        self.ended = Some(Ok(()));
        Some(Err(Status::new(Code::DeadlineExceeded, "the time of the call is over")))
    }

    async fn answer(&mut self) -> Option<Result<Written, Status>> {
        loop {
            let is_room = self.ended.is_none() && self.under_way.len() < self.window;
            tokio::select! {
                biased;
                Some(answer) = self.under_way.next() => return Some(answer),
                read = self.reader.next(), if is_room => match read {
                    Ok(Some(read)) => self.begin(read),
                    Ok(None) => self.ended = Some(Ok(())),
                    Err(status) => self.ended = Some(Err(status)),
                },
                // What was under way is answered before the stream ends, for whatever reason.
                else => return match self.ended.replace(Ok(())) {
                    Some(Err(status)) => Some(Err(status)),
                    _ => None,
                },
            }
        }
    }

    /// What is wrong with one request does not end the stream.
    fn begin(&mut self, read: Read) {
        let (shared, deadline, trace_parent) = (self.shared.clone(), self.deadline, self.trace_parent);
        self.under_way.push_back(Running(tokio::spawn(async move {
            let (answer, place) = match read {
                Read::Message { bytes, place } => {
                    let place_of_read = place.clone();
                    let received =
                        Received { bytes, place: place_of_read, deadline, trace_parent, is_stream: true };
                    (infer(&shared, received).await, place)
                }
                Read::Refused(error) => (Err((String::new(), error)), None),
            };
            let written = answer.or_else(|(id, error)| Written::new(&failed(id, error.to_string()), place));
            Ok(written?)
        })));
    }
}

/// A request of a stream: a task, as nobody looks at a stream whose answers are not taken, and the request has to end
/// nevertheless. Ended when dropped.
struct Running(JoinHandle<Result<Written, Status>>);

impl Future for Running {
    type Output = Result<Written, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let failed = |error| Status::new(Code::Unavailable, format!("the node is ending: {error}"));
        Pin::new(&mut self.0).poll(cx).map(|ended| ended.unwrap_or_else(|error| Err(failed(error))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Of a request without an answer; its name is where clients look for it.
fn failed(id: String, error_message: String) -> ModelStreamInferResponse {
    let infer_response = Some(ModelInferResponse { id, ..Default::default() });
    ModelStreamInferResponse { error_message, infer_response }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn requests_end_with_their_stream_and_go_on_without_a_reader() {
        let (answer, answered) = oneshot::channel();
        let _unread = Running(tokio::spawn(async move {
            let _ = answer.send(());
            pending().await
        }));
        answered.await.unwrap();
        let (held, ended) = oneshot::channel::<()>();
        drop(Running(tokio::spawn(async move {
            let _held = held;
            pending().await
        })));
        assert!(ended.await.is_err());
    }
}

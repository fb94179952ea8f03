//! `ModelStreamInfer`: requests of one stream, several under way at once, their answers in order.

use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesOrdered, StreamExt};
use hyper::header::HeaderMap;

use super::connections::OpenCall;
use super::framing::{Answers, Read, Reader, Written};
use super::inferring::{Received, infer};
use super::messages::{ModelInferResponse, ModelStreamInferResponse};
use super::status::{Code, Status};
use crate::serve::Shared;

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
    window: usize,
    under_way: FuturesOrdered<BoxFuture<'static, Result<Written, Status>>>,
    /// How the requests ended, once they did.
    ended: Option<Result<(), Status>>,
}

impl Streaming {
    pub(super) fn new(shared: Shared, reader: Reader, deadline: Option<Instant>, window: usize) -> Self {
        Self { shared, reader, deadline, window, under_way: FuturesOrdered::new(), ended: None }
    }

    pub(super) fn answers(self, open: OpenCall) -> Answers {
        let answers = stream::unfold(self, |mut streaming| async move {
            streaming.next().await.map(|answer| (answer, streaming))
        });
        Answers::new(answers, open)
    }

    async fn next(&mut self) -> Option<Result<Written, Status>> {
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
        let (shared, deadline) = (self.shared.clone(), self.deadline);
        self.under_way.push_back(Box::pin(async move {
            let answer = match read {
                Read::Message { bytes, place } => {
                    let received = Received { bytes, deadline, is_stream: true };
                    infer(&shared, received).await.map(|response| (response, place))
                }
                Read::Refused(error) => Err((String::new(), error)),
            };
            let (message, place) = match answer {
                Ok((response, place)) => {
                    (ModelStreamInferResponse { infer_response: Some(response), ..Default::default() }, place)
                }
                Err((id, error)) => (failed(id, error.to_string()), None),
            };
            Ok(Written::new(&message, place)?)
        }));
    }
}

/// Of a request without an answer; its name is where clients look for it.
fn failed(id: String, error_message: String) -> ModelStreamInferResponse {
    let infer_response = Some(ModelInferResponse { id, ..Default::default() });
    ModelStreamInferResponse { error_message, infer_response }
}

//! Messages of a call: read from its body in bounded time and memory, and written as fast as they are taken. Source:
//! github.com/grpc/grpc, `doc/PROTOCOL-HTTP2.md`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::HeaderMap;
use prost::Message;
use tokio::time::{Instant, timeout_at};

use super::connections::{self, OpenCall};
use super::status::{self, Code, Status};
use crate::app::calls::CallError;
use crate::serve::admission::{Admission, Admitted};
use crate::serve::{BODY_BYTES_MAX, BODY_TIMEOUT};

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Longest message of a call that brings no tensors, bytes.
const SMALL_BYTES_MAX: usize = 16 << 10;
/// So much of a message is handed over at once, bytes; the next when this was taken.
const CHUNK_BYTES: usize = 64 << 10;

/// A message of a caller.
#[derive(Debug)]
pub(super) enum Read {
    /// Whole.
    Message {
        bytes: Bytes,
        /// Its place among the requests of this node, if it takes one: kept by whatever works with its bytes.
        place: Option<Arc<Admitted>>,
    },
    /// It was skipped, since there is no room for it; so only in a stream.
    Refused(CallError),
}

/// The messages that a caller sends.
pub(super) struct Reader<B = Incoming> {
    body: B,
    /// Who has room for messages; small ones need none.
    admission: Option<Admission>,
    /// Whether others follow a message that there is no room for.
    is_stream: bool,
    /// What came and is not read.
    come: Bytes,
    state: Reading,
}

enum Reading {
    /// The beginning of a message.
    Prefix { bytes: BytesMut, until: Option<Instant> },
    /// Its payload.
    Payload { bytes: BytesMut, length: usize, place: Option<Arc<Admitted>>, until: Instant },
    /// The payload of one that is not wanted: this much is left of it.
    Skipping { left: usize, why: CallError, until: Instant },
}

impl Reading {
    fn next() -> Self {
        Self::Prefix { bytes: BytesMut::new(), until: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Reader<B> {
    /// Of one message that brings tensors.
    pub(super) fn of_request(body: B, admission: Admission) -> Self {
        Self { admission: Some(admission), ..Self::of_small(body) }
    }

    /// Of many.
    pub(super) fn of_requests(body: B, admission: Admission) -> Self {
        Self { is_stream: true, ..Self::of_request(body, admission) }
    }

    /// Of a message that brings names only.
    pub(super) fn of_small(body: B) -> Self {
        Self { body, admission: None, is_stream: false, come: Bytes::new(), state: Reading::next() }
    }

    /// The only message of a call, which may be over at a certain time.
    pub(super) async fn only(
        &mut self,
        deadline: Option<std::time::Instant>,
    ) -> Result<(Bytes, Option<Arc<Admitted>>), Status> {
        let until = Instant::now() + BODY_TIMEOUT;
        let until = deadline.map_or(until, |deadline| until.min(deadline.into()));
        match timeout_at(until, self.next()).await.unwrap_or_else(|_| Err(late()))? {
            Some(Read::Message { bytes, place }) => Ok((bytes, place)),
            Some(Read::Refused(error)) => Err(error.into()),
            None => Err(Status::new(Code::InvalidArgument, "the call ended without a message")),
        }
    }

    /// The next message; none at the end. What was read of it is kept if this is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Read>, Status> {
        loop {
            if let Some(read) = self.take()? {
                return Ok(Some(read));
            }
            let until = match &self.state {
                Reading::Prefix { until, .. } => *until,
                Reading::Payload { until, .. } | Reading::Skipping { until, .. } => Some(*until),
            };
            let more = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let more = match until {
                Some(until) => timeout_at(until, more).await.map_err(|_| late())?,
                None => more.await,
            };
            match more {
                Some(Ok(frame)) => self.come = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Err(Status::new(Code::Cancelled, "the call was given up")),
                None if until.is_none() => return Ok(None),
                None => {
                    return Err(Status::new(Code::InvalidArgument, "the call ended amid a message"));
                }
            }
        }
    }

    /// Takes what came; the message if it is whole.
    fn take(&mut self) -> Result<Option<Read>, Status> {
        if let Reading::Prefix { bytes, until } = &mut self.state {
            let wanted = (PREFIX_BYTES - bytes.len()).min(self.come.len());
            bytes.put(self.come.split_to(wanted));
            if !bytes.is_empty() {
                until.get_or_insert_with(|| Instant::now() + BODY_TIMEOUT);
            }
            if bytes.len() < PREFIX_BYTES {
                return Ok(None);
            }
            let (is_compressed, length) = (bytes.get_u8(), bytes.get_u32() as usize);
            self.state = self.begin(is_compressed, length)?;
        }
        match &mut self.state {
            Reading::Prefix { .. } => Ok(None),
            Reading::Payload { bytes, length, place, .. } => {
                let left = *length - bytes.len();
                let whole = if bytes.is_empty() && self.come.len() >= left {
                    self.come.split_to(left)
                } else {
                    bytes.put(self.come.split_to(left.min(self.come.len())));
                    if bytes.len() < *length {
                        return Ok(None);
                    }
                    bytes.split().freeze()
                };
                let place = place.take();
                self.state = Reading::next();
                Ok(Some(Read::Message { bytes: whole, place }))
            }
            Reading::Skipping { left, why, .. } => {
                let skipped = (*left).min(self.come.len());
                self.come.advance(skipped);
                *left -= skipped;
                if *left > 0 {
                    return Ok(None);
                }
                let why = why.clone();
                self.state = Reading::next();
                Ok(Some(Read::Refused(why)))
            }
        }
    }

    /// Looks for room before any of the payload is kept.
    fn begin(&self, is_compressed: u8, length: usize) -> Result<Reading, Status> {
        if is_compressed != 0 {
            return Err(Status::new(
                Code::Unimplemented,
                "compressed messages are not taken; send them as they are",
            ));
        }
        let length_max = if self.admission.is_some() { BODY_BYTES_MAX } else { SMALL_BYTES_MAX };
        if length > length_max {
            let text = format!("a message has at most {length_max} bytes; {length} were announced");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        let until = Instant::now() + BODY_TIMEOUT;
        Ok(match self.admission.as_ref().map(|admission| admission.admit(length)).transpose() {
            Ok(place) => {
                // A message that is here whole is not copied.
                let room = if self.come.len() < length { length } else { 0 };
                let (bytes, place) = (BytesMut::with_capacity(room), place.map(Arc::new));
                Reading::Payload { bytes, length, place, until }
            }
            Err(why) if self.is_stream => Reading::Skipping { left: length, why, until },
            Err(why) => return Err(why.into()),
        })
    }
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "the message did not come in time")
}

/// A message to a caller, as it is written.
pub(super) struct Written {
    bytes: Bytes,
    /// Free again when all was taken.
    _place: Option<Arc<Admitted>>,
}

impl Written {
    pub(super) fn new(message: &impl Message, place: Option<Arc<Admitted>>) -> Result<Self, CallError> {
        let length = message.encoded_len();
        let announced = u32::try_from(length);
        let announced = announced.map_err(|_| CallError::Failed("the answer is above 4 GiB".into()))?;
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
        bytes.put_u8(0);
        bytes.put_u32(announced);
        message.encode(&mut bytes).map_err(|error| CallError::Failed(error.to_string()))?;
        Ok(Self { bytes: bytes.freeze(), _place: place })
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Written, Status>> + Send>>;

/// The body of an answer: messages, then how the call ended. The next message is asked for when the last was taken, so
/// who reads slowly is answered slowly.
pub(super) struct Answers {
    messages: Messages,
    now: Option<Written>,
    is_over: bool,
    _open: OpenCall,
}

impl Answers {
    pub(super) fn new(
        messages: impl Stream<Item = Result<Written, Status>> + Send + 'static,
        open: OpenCall,
    ) -> Self {
        Self { messages: Box::pin(messages), now: None, is_over: false, _open: open }
    }

    pub(super) fn one(message: Written, open: OpenCall) -> Self {
        Self::new(stream::iter([Ok(message)]), open)
    }

    /// Nothing: all is said in the headers.
    pub(super) fn none(open: OpenCall) -> Self {
        Self { is_over: true, ..Self::new(stream::empty(), open) }
    }
}

impl Answers {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            if let Some(message) = &mut self.now {
                if !message.bytes.is_empty() {
                    let length = CHUNK_BYTES.min(message.bytes.len());
                    return Poll::Ready(Some(Frame::data(message.bytes.split_to(length))));
                }
                self.now = None;
            }
            let end: HeaderMap = match std::task::ready!(self.messages.poll_next_unpin(cx)) {
                Some(Ok(message)) => {
                    self.now = Some(message);
                    continue;
                }
                Some(Err(status)) => status.headers(),
                None => status::good(),
            };
            self.is_over = true;
            return Poll::Ready(Some(Frame::trailers(end)));
        }
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.poll_next(cx);
        connections::waits(matches!(&next, Poll::Ready(Some(frame)) if frame.is_data()));
        next.map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests;

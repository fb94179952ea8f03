//! Questions and answers between nodes, one after the other on kept streams: length first, then the
//! message.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use stormo_protocol::codec::DecodeError;
use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::CONTROL_BYTES_MAX;
use stormo_protocol::refusal::Refusal;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::places::Places;
use super::{Net, NetEvent, Tries, identity, swarm::NetError};

/// Streams for questions of peers at once, idle ones included.
const STREAMS_MAX: usize = 1024;
/// Of them from one peer.
const STREAMS_PER_PEER_MAX: usize = 256;
/// Questions of peers under way at once.
const QUESTIONS_MAX: usize = 256;
/// Of them from one peer: who asks for what takes long, or does not read answers, leaves room for others.
const QUESTIONS_PER_PEER_MAX: usize = 128;
/// An idle stream is closed after this; askers stop using it earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A question is small: it comes at once, or the stream is closed.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time an answer may take: loading a large model over a slow link.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not connected, reset, or no answer in time.
    #[error("the node cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// What came is no answer.
    #[error("the node's answer makes no sense: {0}")]
    Malformed(#[from] DecodeError),
    /// The node refuses.
    #[error("{0}")]
    Refused(Refusal),
}

impl Net {
    /// Asks a node and waits for the answer; a refusal is an error.
    ///
    /// # Errors
    /// When the node is unreachable, answers nonsense, or refuses.
    pub async fn ask(&self, to: NodeId, request: &Request, within: Duration) -> Result<Response, AskError> {
        let question = request.to_bytes();
        let exchange = async {
            // Every question may be put twice: it says what shall be so, not what to add.
            if let Some(stream) = self.asking.take(to)
                && let Ok(answered) = self.put(to, stream, &question).await
            {
                return Ok(answered);
            }
            let mut tries = Tries::default();
            loop {
                let stream = self.open(to, &self.protocols.ask).await?;
                match self.put(to, stream, &question).await {
                    Err(error) if tries.another_after(&error).await => {}
                    answered => return answered,
                }
            }
        };
        let answer = timeout(within, exchange).await.map_err(io::Error::from)??;
        match Response::from_bytes(&answer)? {
            Response::Refused(reason) => Err(AskError::Refused(reason)),
            response => Ok(response),
        }
    }

    async fn put(&self, to: NodeId, mut stream: Stream, question: &[u8]) -> io::Result<Vec<u8>> {
        write_message(&mut stream, question).await?;
        let answer = read_message(&mut stream).await?;
        self.asking.put(to, stream);
        Ok(answer)
    }
}

async fn write_message(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let mut message = (bytes.len() as u32).to_le_bytes().to_vec();
    message.extend_from_slice(bytes);
    stream.write_all(&message).await?;
    stream.flush().await
}

/// Reads a message. Memory grows with what arrives, not with what the length claims.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = read_length(stream).await?;
    read_rest(stream, length).await
}

async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length);
    if length as usize > CONTROL_BYTES_MAX { Err(io::ErrorKind::InvalidData.into()) } else { Ok(length) }
}

async fn read_rest(stream: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() == length as usize { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub(super) fn serve(net: &Net) -> Result<(), NetError> {
    let mut streams = net.streams.clone();
    let mut incoming = streams.accept(net.protocols.ask.clone()).map_err(|_| NetError::AlreadyServing)?;
    let net = net.clone();
    tokio::spawn(async move {
        let places = Places::new(STREAMS_MAX, STREAMS_PER_PEER_MAX);
        let questions = Places::new(QUESTIONS_MAX, QUESTIONS_PER_PEER_MAX);
        let mut tasks = JoinSet::new();
        while let Some((peer, stream)) = incoming.next().await {
            while tasks.try_join_next().is_some() {}
            let Some(from) = identity::node_id(&peer) else { continue };
            let Some(place) = places.take(from) else { continue };
            let (net, questions) = (net.clone(), questions.clone());
            tasks.spawn(async move {
                if let Err(error) = answer_all(&net, from, stream, &questions).await {
                    tracing::debug!(peer = %from.short(), %error, "a stream of questions ended");
                }
                drop(place);
            });
        }
    });
    Ok(())
}

/// Answers until the asker has closed the stream or let it lie idle.
async fn answer_all(net: &Net, from: NodeId, mut stream: Stream, questions: &Places) -> io::Result<()> {
    loop {
        let length = timeout(IDLE_TIMEOUT, read_length(&mut stream)).await??;
        // Closing the stream is the quickest way to say that this node has too much to do.
        let place = questions.take(from).ok_or(io::ErrorKind::WouldBlock)?;
        let question = timeout(QUESTION_TIMEOUT, read_rest(&mut stream, length)).await??;
        let Some(response) = answer(net, from, &question).await? else { return Ok(()) };
        drop(place);
        // Who asks and does not read gives the place back to others.
        timeout(QUESTION_TIMEOUT, write_message(&mut stream, &response.to_bytes())).await??;
    }
}

/// `None` once this node has ended.
async fn answer(net: &Net, from: NodeId, question: &[u8]) -> io::Result<Option<Response>> {
    let Ok(request) = Request::from_bytes(question) else {
        return Ok(Some(Response::Refused(Refusal::BadFrame)));
    };
    let (answer, answered) = oneshot::channel();
    if net.events.send(NetEvent::Asked { from, request, answer }).await.is_err() {
        return Ok(None);
    }
    let answered = timeout(ANSWER_TIMEOUT, answered).await?;
    Ok(Some(answered.unwrap_or(Response::Refused(Refusal::Leaving))))
}

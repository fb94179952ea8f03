//! Objects of the pool on their way from peer to peer: a stream carries questions for parts of
//! objects, one after the other, and their answers. Whether the bytes are the right ones is for the
//! pool to check; here they are only moved, within the announced length.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::limits::PROBE_BYTES_MAX;
use stormo_protocol::object::{AnswerHead, ObjectRequest, Part};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::places::Places;
use super::{Net, Tries, identity, swarm::NetError};

/// Streams on which peers may ask for objects at once.
const STREAMS_MAX: usize = 128;
/// Of them from one peer: two pulls at once. A slow or hostile peer leaves room for others.
const STREAMS_PER_PEER_MAX: usize = 8;
/// Parts of objects sent at once; others wait.
const SENDING_MAX: usize = 32;
/// A question that waits for longer is told that this node is busy: less than [`SILENCE_MAX`].
const BUSY_AFTER: Duration = Duration::from_secs(3);
/// A peer that sends or takes nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// One piece that is read whole (a group, an outline) comes within this time, or not at all: 1 MiB at
/// 17 kB/s, an eighth of a link of 1 Mbit/s.
const PIECE_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes moved between two looks at the clock.
const CHUNK_BYTES: usize = 128 << 10;
/// Asks for zeros, to measure the rate of a link. No object hashes to this.
const PROBE: ObjectId = ObjectId([0; 32]);

/// Where objects lie on this node. Its methods may wait for the disk.
pub trait ObjectSource: Send + Sync + 'static {
    /// An object that is here whole, and its length.
    fn open(&self, id: ObjectId) -> Option<(File, u64)>;
    /// The length of an object that is here whole, and its outline as sent.
    fn outline(&self, id: ObjectId) -> Option<(u64, Vec<u8>)>;
}

/// Peers that can be asked for objects.
pub trait ObjectPeers: Clone + Send + Sync + 'static {
    /// What questions and answers travel on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Opens a stream to a peer.
    fn open_objects(&self, peer: NodeId) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl ObjectPeers for Net {
    type Stream = libp2p::Stream;

    async fn open_objects(&self, peer: NodeId) -> io::Result<Self::Stream> {
        self.open(peer, &self.protocols.objects).await
    }
}

/// Why a part of an object did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The peer does not have it.
    #[error("the peer does not have the object")]
    NotThere,
    /// The peer sends too much already.
    #[error("the peer is busy sending to others")]
    Busy,
    /// The peer's object has another length than the manifest says.
    #[error("the peer offers {got} bytes where {expected} were expected")]
    Length {
        /// As the manifest says.
        expected: u64,
        /// As the peer says.
        got: u64,
    },
    /// The connection broke or fell silent.
    #[error("the transfer broke: {0}")]
    Broken(#[from] io::Error),
}

/// A stream on which a peer is asked for parts of objects.
#[derive(Debug)]
pub struct ObjectStream<S> {
    stream: S,
    left: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ObjectStream<S> {
    /// Asks a peer on the stream that is kept, or on a new one that is kept then.
    ///
    /// # Errors
    /// As those of [`ObjectStream::ask`], and when the peer is unreachable.
    pub async fn ask_peer<P: ObjectPeers<Stream = S>>(
        kept: &mut Option<Self>,
        door: &P,
        peer: NodeId,
        request: ObjectRequest,
        object_bytes: u64,
    ) -> Result<(), FetchError> {
        let mut tries = Tries::default();
        loop {
            let stream = match kept {
                Some(stream) => stream,
                None => kept.insert(Self { stream: door.open_objects(peer).await?, left: 0 }),
            };
            match stream.ask(request, object_bytes).await {
                // A stream that was dropped before it was served, or is no longer: another is.
                Err(FetchError::Broken(error)) if tries.another_after(&error).await => *kept = None,
                answered => return answered,
            }
        }
    }

    /// Whether the last answer was read to its end, so that the next question can be put.
    pub fn is_idle(&self) -> bool {
        self.left == 0
    }

    /// Asks for a part of an object of known length; its bytes can be read after that.
    ///
    /// # Errors
    /// When the peer does not have it, has it in another length, is busy, or falls silent.
    async fn ask(&mut self, request: ObjectRequest, object_bytes: u64) -> Result<(), FetchError> {
        let answer_bytes =
            request.part.answer_bytes(object_bytes).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut head = [0; 8];
        timeout(SILENCE_MAX, async {
            self.stream.write_all(&request.to_bytes()).await?;
            self.stream.flush().await?;
            self.stream.read_exact(&mut head).await
        })
        .await
        .map_err(io::Error::from)??;
        match AnswerHead::from_bytes(head) {
            AnswerHead::NotHere => Err(FetchError::NotThere),
            AnswerHead::Busy => Err(FetchError::Busy),
            AnswerHead::Here(got) if got != object_bytes => {
                Err(FetchError::Length { expected: object_bytes, got })
            }
            AnswerHead::Here(_) => {
                self.left = answer_bytes;
                Ok(())
            }
        }
    }

    /// Fills a buffer with the next bytes of the answer.
    ///
    /// # Errors
    /// When the answer is shorter, the peer falls silent, or it is too slow.
    pub async fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() as u64 > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        timeout(PIECE_TIME_MAX, async {
            let mut filled = 0;
            while filled < buffer.len() {
                match timeout(SILENCE_MAX, self.stream.read(&mut buffer[filled..])).await?? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => filled += read,
                }
            }
            self.left -= buffer.len() as u64;
            Ok(())
        })
        .await?
    }
}

impl Net {
    /// Measures the rate from a peer to here with one short transfer, bytes a second.
    ///
    /// # Errors
    /// When the peer is unreachable.
    pub async fn probe(&self, from: NodeId) -> Result<u64, FetchError> {
        let mut stream = None;
        let request = ObjectRequest { id: PROBE, part: Part::Groups { first: 0, count: 1 } };
        ObjectStream::ask_peer(&mut stream, self, from, request, PROBE_BYTES_MAX).await?;
        let Some(mut incoming) = stream else {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let started = Instant::now();
        incoming.fill(&mut vec![0; PROBE_BYTES_MAX as usize]).await?;
        Ok((PROBE_BYTES_MAX as f64 / started.elapsed().as_secs_f64().max(1e-6)) as u64)
    }
}

pub(super) fn serve(net: &Net, source: Arc<dyn ObjectSource>) -> Result<(), NetError> {
    let mut streams = net.streams.clone();
    let mut incoming = streams.accept(net.protocols.objects.clone()).map_err(|_| NetError::AlreadyServing)?;
    tokio::spawn(async move {
        let places = Places::new(STREAMS_MAX, STREAMS_PER_PEER_MAX);
        let sending = Arc::new(Semaphore::new(SENDING_MAX));
        let mut tasks = JoinSet::new();
        while let Some((peer, stream)) = incoming.next().await {
            while tasks.try_join_next().is_some() {}
            let Some(to) = identity::node_id(&peer) else { continue };
            let Some(place) = places.take(to) else { continue };
            let (source, sending) = (source.clone(), sending.clone());
            tasks.spawn(async move {
                if let Err(error) = answer_all(&source, &sending, stream).await {
                    tracing::debug!(peer = %to.short(), %error, "questions for objects ended early");
                }
                drop(place);
            });
        }
    });
    Ok(())
}

/// Answers the questions of one stream until the peer closes it or falls silent.
async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(
    source: &Arc<dyn ObjectSource>,
    sending: &Semaphore,
    mut stream: S,
) -> io::Result<()> {
    loop {
        let mut request = [0; ObjectRequest::BYTES];
        match timeout(SILENCE_MAX, stream.read_exact(&mut request)).await? {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return stream.close().await,
            Err(error) => return Err(error),
        }
        let request = ObjectRequest::from_bytes(&request);
        match timeout(BUSY_AFTER, sending.acquire()).await {
            Ok(_permit) => answer(source, request, &mut stream).await?,
            Err(_) => send(&mut stream, &AnswerHead::Busy.to_bytes()).await?,
        }
        timeout(SILENCE_MAX, stream.flush()).await??;
    }
}

async fn answer<S: AsyncWrite + Unpin>(
    source: &Arc<dyn ObjectSource>,
    request: ObjectRequest,
    stream: &mut S,
) -> io::Result<()> {
    let ObjectRequest { id, part } = request;
    if id == PROBE {
        let mut message = AnswerHead::Here(PROBE_BYTES_MAX).to_bytes().to_vec();
        message.resize(8 + PROBE_BYTES_MAX as usize, 0);
        return send(stream, &message).await;
    }
    let source = source.clone();
    match part {
        Part::Outline => match spawn_blocking(move || source.outline(id)).await? {
            Some((object_bytes, outline)) => {
                send(stream, &AnswerHead::Here(object_bytes).to_bytes()).await?;
                send(stream, &outline).await
            }
            None => send(stream, &AnswerHead::NotHere.to_bytes()).await,
        },
        Part::Groups { first, .. } => match spawn_blocking(move || source.open(id)).await? {
            Some((file, object_bytes)) => {
                let bytes = part.answer_bytes(object_bytes).ok_or(io::ErrorKind::InvalidInput)?;
                send(stream, &AnswerHead::Here(object_bytes).to_bytes()).await?;
                let start = stormo_protocol::object::group_range(object_bytes, first).start;
                send_file(stream, file, start, bytes).await
            }
            None => send(stream, &AnswerHead::NotHere.to_bytes()).await,
        },
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(CHUNK_BYTES) {
        timeout(SILENCE_MAX, stream.write_all(chunk)).await??;
    }
    Ok(())
}

async fn send_file<S: AsyncWrite + Unpin>(
    stream: &mut S,
    file: File,
    start: u64,
    bytes: u64,
) -> io::Result<()> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(io::SeekFrom::Start(start)).await?;
    let mut file = file.take(bytes);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= read as u64;
        send(stream, &buffer[..read]).await?;
    }
    Ok(())
}

//! Objects of the pool on their way from peer to peer. Whether the bytes are the right ones is for
//! the pool to check; here they are only moved, within the announced length.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::limits::PROBE_BYTES_MAX;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Net, Tries, identity, swarm::NetError};

/// Objects sent at once.
const SENDING_MAX: usize = 32;
/// A peer that sends or takes nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes moved between two looks at the clock.
const CHUNK_BYTES: usize = 256 << 10;
/// Announced instead of a length when the object is not there.
const NOT_HERE: u64 = u64::MAX;
/// Asks for zeros, to measure the rate of a link. No object hashes to this.
const PROBE: ObjectId = ObjectId([0; 32]);

/// Where objects lie on this node.
pub trait ObjectSource: Send + Sync + 'static {
    /// The file of an object, if it is here whole.
    fn path(&self, id: ObjectId) -> Option<PathBuf>;
}

/// Why an object did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The peer does not have it.
    #[error("the peer does not have the object")]
    NotThere,
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

/// An object that is coming in.
pub struct ObjectStream {
    stream: Stream,
    left: u64,
}

impl ObjectStream {
    /// The next bytes, at most as many as fit; 0 at the end.
    ///
    /// # Errors
    /// When the peer falls silent or the stream ends early.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = timeout(SILENCE_MAX, self.stream.read(&mut buffer[..wanted])).await??;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Net {
    /// Asks a peer for an object of known length.
    ///
    /// # Errors
    /// When the peer does not have it, has it in another length, or is unreachable.
    pub async fn fetch(&self, from: NodeId, id: ObjectId, bytes: u64) -> Result<ObjectStream, FetchError> {
        let mut tries = Tries::default();
        let (stream, length) = loop {
            let stream = self.open(from, &self.protocols.objects).await?;
            match timeout(SILENCE_MAX, ask_for(id, stream)).await.map_err(io::Error::from)? {
                Err(error) if tries.another_after(&error).await => {}
                answered => break answered?,
            }
        };
        match length {
            NOT_HERE => Err(FetchError::NotThere),
            got if got != bytes => Err(FetchError::Length { expected: bytes, got }),
            _ => Ok(ObjectStream { stream, left: bytes }),
        }
    }

    /// Measures the rate from a peer to here with one short transfer, bytes a second.
    ///
    /// # Errors
    /// When the peer is unreachable.
    pub async fn probe(&self, from: NodeId) -> Result<u64, FetchError> {
        let mut incoming = self.fetch(from, PROBE, PROBE_BYTES_MAX).await?;
        let started = Instant::now();
        let mut buffer = vec![0; CHUNK_BYTES];
        while incoming.read(&mut buffer).await? > 0 {}
        Ok((PROBE_BYTES_MAX as f64 / started.elapsed().as_secs_f64().max(1e-6)) as u64)
    }
}

async fn ask_for(id: ObjectId, mut stream: Stream) -> io::Result<(Stream, u64)> {
    let mut length = [0; 8];
    stream.write_all(&id.0).await?;
    stream.flush().await?;
    stream.read_exact(&mut length).await?;
    Ok((stream, u64::from_le_bytes(length)))
}

pub(super) fn serve(net: &Net, source: Arc<dyn ObjectSource>) -> Result<(), NetError> {
    let mut streams = net.streams.clone();
    let mut incoming = streams.accept(net.protocols.objects.clone()).map_err(|_| NetError::AlreadyServing)?;
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(SENDING_MAX));
        let mut tasks = JoinSet::new();
        while let Some((peer, stream)) = incoming.next().await {
            while tasks.try_join_next().is_some() {}
            let Some(to) = identity::node_id(&peer) else { continue };
            let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
            let source = source.clone();
            tasks.spawn(async move {
                if let Err(error) = send(source.as_ref(), stream).await {
                    tracing::debug!(peer = %to.short(), %error, "an object was not sent whole");
                }
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn send(source: &dyn ObjectSource, mut stream: Stream) -> io::Result<()> {
    let mut id = [0; 32];
    timeout(SILENCE_MAX, stream.read_exact(&mut id)).await??;
    let id = ObjectId(id);
    if id == PROBE {
        let mut message = PROBE_BYTES_MAX.to_le_bytes().to_vec();
        message.resize(8 + PROBE_BYTES_MAX as usize, 0);
        timeout(SILENCE_MAX, stream.write_all(&message)).await??;
        return stream.close().await;
    }
    let file = match source.path(id) {
        Some(path) => tokio::fs::File::open(path).await.ok(),
        None => None,
    };
    let Some(mut file) = file else {
        stream.write_all(&NOT_HERE.to_le_bytes()).await?;
        return stream.close().await;
    };
    stream.write_all(&file.metadata().await?.len().to_le_bytes()).await?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return stream.close().await;
        }
        timeout(SILENCE_MAX, stream.write_all(&buffer[..read])).await??;
    }
}

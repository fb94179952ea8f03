//! When bytes last came over the connections to each peer, be they part of a message that takes long: a connection that
//! is full carries much, and one that is stalled nothing.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::{PeerId, noise};
use stormo_protocol::ids::NodeId;

use super::identity;

/// The last arrival of each connection that stands, by peer.
pub(super) struct Arrivals {
    began: Instant,
    of: Mutex<HashMap<NodeId, Vec<Weak<AtomicU64>>>>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { began: Instant::now(), of: Mutex::default() }
    }
}

impl Arrivals {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long nothing came over any connection to a peer; `None` if there is none.
    pub(super) fn ago(&self, peer: NodeId) -> Option<Duration> {
        let last_ms = self.last_ms(peer)?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(last_ms)))
    }

    fn last_ms(&self, peer: NodeId) -> Option<u64> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = of.get(&peer)?.iter().filter_map(Weak::upgrade);
        connections.map(|last_ms| last_ms.load(Ordering::Relaxed)).max()
    }

    fn add(&self, peer: &PeerId, last_ms: &Arc<AtomicU64>) {
        let Some(node) = identity::node_id(peer) else { return };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, connections| {
            connections.retain(|last_ms| last_ms.strong_count() > 0);
            !connections.is_empty()
        });
        of.entry(node).or_default().push(Arc::downgrade(last_ms));
    }
}

/// Noise over a connection of which arrivals are noted.
#[derive(Clone)]
pub(super) struct Noted {
    pub(super) noise: noise::Config,
    pub(super) arrivals: Arc<Arrivals>,
}

type Secured<T> = (PeerId, noise::Output<NotedStream<T>>);
type Securing<T> = Pin<Box<dyn Future<Output = Result<Secured<T>, noise::Error>> + Send>>;

impl Noted {
    fn over<T>(&self, stream: T) -> NotedStream<T> {
        let last_ms = Arc::new(AtomicU64::new(self.arrivals.now_ms()));
        NotedStream { stream, last_ms, arrivals: self.arrivals.clone() }
    }

    /// The peer is known once it has shown its key.
    fn note<T: Send + 'static>(
        arrivals: Arc<Arrivals>,
        last_ms: Arc<AtomicU64>,
        securing: impl Future<Output = Result<Secured<T>, noise::Error>> + Send + 'static,
    ) -> Securing<T> {
        Box::pin(async move {
            let (peer, stream) = securing.await?;
            arrivals.add(&peer, &last_ms);
            Ok((peer, stream))
        })
    }
}

impl UpgradeInfo for Noted {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for Noted {
    type Output = Secured<T>;
    type Error = noise::Error;
    type Future = Securing<T>;

    fn upgrade_inbound(self, stream: T, info: Self::Info) -> Self::Future {
        let stream = self.over(stream);
        let last_ms = stream.last_ms.clone();
        Self::note(self.arrivals, last_ms, self.noise.upgrade_inbound(stream, info))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for Noted {
    type Output = Secured<T>;
    type Error = noise::Error;
    type Future = Securing<T>;

    fn upgrade_outbound(self, stream: T, info: Self::Info) -> Self::Future {
        let stream = self.over(stream);
        let last_ms = stream.last_ms.clone();
        Self::note(self.arrivals, last_ms, self.noise.upgrade_outbound(stream, info))
    }
}

/// A connection that notes when bytes come over it.
pub(super) struct NotedStream<T> {
    stream: T,
    last_ms: Arc<AtomicU64>,
    arrivals: Arc<Arrivals>,
}

impl<T: AsyncRead + Unpin> AsyncRead for NotedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if read.as_ref().is_ok_and(|bytes| *bytes > 0) {
            self.last_ms.store(self.arrivals.now_ms(), Ordering::Relaxed);
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for NotedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt;
    use futures::io::Cursor;

    use super::*;
    use crate::net::Identity;

    fn identity() -> Identity {
        Identity::from_secret(vec![7; 32]).unwrap()
    }

    #[tokio::test]
    async fn each_byte_of_a_message_counts_and_its_end_is_none() {
        let began = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let arrivals = Arc::new(Arrivals { began, of: Mutex::default() });
        let noise = noise::Config::new(&identity().keypair()).unwrap();
        let mut stream = Noted { noise, arrivals }.over(Cursor::new([1, 2]));
        for byte in [1, 2] {
            stream.last_ms.store(0, Ordering::Relaxed);
            let mut read = [0];
            stream.read_exact(&mut read).await.unwrap();
            assert!(read == [byte] && stream.last_ms.load(Ordering::Relaxed) >= 10_000);
        }
        stream.last_ms.store(0, Ordering::Relaxed);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(stream.last_ms.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_latest_of_several_connections_counts_as_long_as_it_stands() {
        let (arrivals, node) = (Arrivals::default(), identity().node());
        assert_eq!(arrivals.ago(node), None);
        let peer = identity().keypair().public().to_peer_id();
        let [early, late] = [1, 2].map(|last_ms| Arc::new(AtomicU64::new(last_ms)));
        arrivals.add(&peer, &late);
        arrivals.add(&peer, &early);
        assert_eq!(arrivals.last_ms(node), Some(2));
        drop(late);
        assert_eq!(arrivals.last_ms(node), Some(1));
        drop(early);
        assert!(arrivals.last_ms(node).is_none() && arrivals.ago(node).is_none());
    }
}

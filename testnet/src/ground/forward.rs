//! Ways from this process's own network to the APIs of nodes, which listen on the loopback of their
//! namespaces. They are no links: nothing slows or cuts them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::namespace::Namespace;

/// Connections to one node at once: as many as its API takes, so that what is refused is refused there.
const CONNECTIONS_MAX: usize = 512;
/// Held for each direction of a connection: long enough for an image, or a tensor in a few pieces.
const BUFFER_BYTES: usize = 64 << 10;
/// After an accept that fails (no descriptors are left), until the next.
const PAUSE: Duration = Duration::from_millis(100);

/// All ways into the nodes of one mesh; they end with it.
pub(super) struct Forwards {
    /// `None` while ending.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Forwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwards")
    }
}

impl Forwards {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("forward").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Opens a way to a port on the loopback of a namespace; says where it begins.
    pub(super) fn open(&self, namespace: Arc<Namespace>, port: u16) -> io::Result<SocketAddr> {
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("the ways have ended"))?;
        let listener = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        runtime.spawn(accept(listener, namespace, port));
        Ok(address)
    }
}

impl Drop for Forwards {
    fn drop(&mut self) {
        // Without waiting: a connection may have nothing to say for ever.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, namespace: Arc<Namespace>, port: u16) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((outer, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let namespace = namespace.clone();
        tokio::spawn(async move {
            let _place = place;
            // Whoever called sees the connection end, as it would without a way in between.
            let _ = forward(outer, &namespace, port).await;
        });
    }
}

async fn forward(mut outer: TcpStream, namespace: &Namespace, port: u16) -> io::Result<()> {
    let socket = namespace.enter(TcpSocket::new_v4)??;
    let mut inner = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    outer.set_nodelay(true)?;
    inner.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut outer, &mut inner, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

//! Frames between nodes of one machine: over a Unix socket instead of TCP, encryption and multiplexing, which would
//! take longer than many a stage runs. Who is who the nodes tell each other over libp2p: there a node is asked for its
//! door, an abstract socket (it leaves nothing behind, and is seen in its own network namespace only), and for the
//! pass that is good for the asker alone. Only processes of the same user are let in, or trusted. Where any of
//! this fails, frames go over libp2p.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use stormo_protocol::ids::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::receive::{Doorman, Reading};
use super::swarm::NetError;
use super::{Net, identity};

/// Bytes of a door's random name.
const NAME_BYTES: usize = 16;
/// Bytes of a node's id.
const NODE_BYTES: usize = 32;
/// Bytes of a pass.
const PASS_BYTES: usize = 32;
/// What is sent is in this machine's memory already, and nothing fills buffers before it is read.
const WITHIN_MACHINE: Reading = Reading { unasked_bytes_max: 1 << 20, step_bytes: 1 << 20 };
/// All that is said before the first frame comes at once.
const SAID_WITHIN: Duration = Duration::from_secs(1);
/// After a failure to let somebody in: this process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a node needs to be let in at another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Invitation {
    door: [u8; NAME_BYTES],
    pass: [u8; PASS_BYTES],
}

impl Invitation {
    fn to_bytes(self) -> [u8; NAME_BYTES + PASS_BYTES] {
        let mut bytes = [0; NAME_BYTES + PASS_BYTES];
        bytes[..NAME_BYTES].copy_from_slice(&self.door);
        bytes[NAME_BYTES..].copy_from_slice(&self.pass);
        bytes
    }

    async fn read(stream: &mut Stream) -> io::Result<Self> {
        let mut invitation = Self { door: [0; NAME_BYTES], pass: [0; PASS_BYTES] };
        stream.read_exact(&mut invitation.door).await?;
        stream.read_exact(&mut invitation.pass).await?;
        Ok(invitation)
    }
}

/// What is known of a connected peer of the same machine.
#[derive(Debug, Clone, Copy)]
enum Neighbour {
    /// It was not asked for its door yet.
    Unasked,
    /// It lets this node in.
    Invites(Invitation),
}

/// The connected peers of the same machine.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    by_node: Mutex<HashMap<NodeId, Neighbour>>,
}

impl Neighbours {
    /// A peer is connected from an address of this machine.
    pub(super) fn moved_in(&self, node: NodeId) {
        self.lock().entry(node).or_insert(Neighbour::Unasked);
    }

    /// A peer is not connected any more, or not reached at its door.
    pub(super) fn moved_out(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Neighbour>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way that frames take to a peer, over libp2p or within this machine.
pub(super) type FrameStream = Box<dyn BothWays>;

/// What is read and written.
pub(super) trait BothWays: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> BothWays for S {}

impl Net {
    /// A way to a peer of this machine; none if it has no door, or does not let this node in.
    ///
    /// # Errors
    /// When it says nothing for so long.
    pub(super) async fn open_local(&self, to: NodeId, within: Duration) -> io::Result<Option<FrameStream>> {
        let known = self.neighbours.lock().get(&to).copied();
        let Some(known) = known else { return Ok(None) };
        let opened = timeout(within, async {
            let invitation = match known {
                Neighbour::Invites(invitation) => invitation,
                Neighbour::Unasked => self.ask_for_door(to).await?,
            };
            enter(invitation, self.own).await
        });
        match opened.await? {
            Ok(stream) => Ok(Some(Box::new(stream))),
            // Whoever is silent is not asked again in another way: that would take the patience twice.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            Err(error) => {
                tracing::debug!(peer = %to.short(), %error, "no way within this machine; frames go over libp2p");
                self.neighbours.moved_out(to);
                Ok(None)
            }
        }
    }

    async fn ask_for_door(&self, to: NodeId) -> io::Result<Invitation> {
        let mut stream = self.open(to, &self.protocols.local).await?;
        let invitation = Invitation::read(&mut stream).await?;
        if let Some(known) = self.neighbours.lock().get_mut(&to) {
            *known = Neighbour::Invites(invitation);
        }
        Ok(invitation)
    }
}

async fn enter(invitation: Invitation, own: NodeId) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path_of(invitation.door)).await?;
    ensure_same_user(&stream)?;
    let mut said = own.0.to_vec();
    said.extend_from_slice(&invitation.pass);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &said).await?;
    Ok(stream)
}

/// Invites peers, and lets in who has a pass. Without such sockets nobody is invited.
pub(super) fn serve(net: &Net, doorman: Doorman) -> Result<(), NetError> {
    let mut asking = net.streams.clone();
    let mut asking = asking.accept(net.protocols.local.clone()).map_err(|_| NetError::AlreadyServing)?;
    let door =
        Door::open().map_err(|error| tracing::debug!(%error, "no door for nodes of this machine")).ok();
    tokio::spawn(async move {
        let Some(door) = door else { return };
        loop {
            tokio::select! {
                asked = asking.next() => {
                    let Some((peer, stream)) = asked else { return };
                    if let Some(node) = identity::node_id(&peer) {
                        tokio::spawn(invite(stream, door.invitation(node)));
                    }
                }
                accepted = door.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(let_in_or_not(stream, doorman.clone(), door.secret.clone()));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "nobody of this machine can be let in for a moment");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    });
    Ok(())
}

async fn let_in_or_not(stream: UnixStream, doorman: Doorman, secret: Arc<[u8; PASS_BYTES]>) {
    match let_in(stream, &secret).await {
        Ok((node, stream)) => doorman.let_in(node, Box::new(stream), WITHIN_MACHINE),
        Err(error) => tracing::debug!(%error, "somebody without a pass was not let in"),
    }
}

async fn invite(mut stream: Stream, invitation: Invitation) {
    let said = async {
        stream.write_all(&invitation.to_bytes()).await?;
        stream.close().await
    };
    // Who went away needs no invitation.
    let _ = timeout(SAID_WITHIN, said).await;
}

async fn let_in(mut stream: UnixStream, secret: &[u8; PASS_BYTES]) -> io::Result<(NodeId, UnixStream)> {
    ensure_same_user(&stream)?;
    let mut said = [0; NODE_BYTES + PASS_BYTES];
    timeout(SAID_WITHIN, tokio::io::AsyncReadExt::read_exact(&mut stream, &mut said)).await??;
    let (node, pass) = said.split_at(NODE_BYTES);
    let node = NodeId(node.try_into().map_err(io::Error::other)?);
    // Compared in constant time.
    let is_his = pass_of(secret, node) == <[u8; PASS_BYTES]>::try_from(pass).map_err(io::Error::other)?;
    if is_his { Ok((node, stream)) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Where nodes of this machine come in.
struct Door {
    listener: UnixListener,
    name: [u8; NAME_BYTES],
    /// Passes are made of it.
    secret: Arc<[u8; PASS_BYTES]>,
}

impl Door {
    fn open() -> io::Result<Self> {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; PASS_BYTES]);
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let listener = UnixListener::bind(path_of(name))?;
        Ok(Self { listener, name, secret: Arc::new(secret) })
    }

    fn invitation(&self, node: NodeId) -> Invitation {
        Invitation { door: self.name, pass: *pass_of(&self.secret, node).as_bytes() }
    }
}

fn pass_of(secret: &[u8; PASS_BYTES], node: NodeId) -> blake3::Hash {
    blake3::keyed_hash(secret, &node.0)
}

/// An abstract socket's name, as tokio takes it: after a zero byte.
fn path_of(door: [u8; NAME_BYTES]) -> String {
    use std::fmt::Write;
    let mut path = "\0stormo-".to_owned();
    door.iter().for_each(|byte| _ = write!(path, "{byte:02x}"));
    path
}

/// # Errors
/// When the other side runs as another user: it is neither shown a pass nor listened to.
fn ensure_same_user(stream: &UnixStream) -> io::Result<()> {
    let own = UnixStream::pair()?.0.peer_cred()?.uid();
    if stream.peer_cred()?.uid() == own { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests;

//! Played peers: honest ones, liars, and those that break off or fall silent.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::{AsyncReadExt, AsyncWriteExt};
use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::object::{AnswerHead, ObjectRequest, OutlineHasher, Part, group_range};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::net::ObjectPeers;

type Stream = Compat<DuplexStream>;

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Honest,
    /// One bit of each group is wrong.
    Flips,
    /// Sends another group than was asked for, or the outline in another order.
    Swaps,
    /// Says that the object is shorter than it is.
    Shortens,
    /// Ends in the middle of each group.
    Cuts,
    /// Takes questions and says nothing.
    Stalls,
    /// The same after so many groups.
    StallsAfter(u32),
    /// Has nothing.
    Lacks,
    /// Cannot be reached.
    Gone,
    /// Breaks for good after so many groups.
    BreaksAfter(u32),
}

#[derive(Debug)]
struct Played {
    nature: Nature,
    opened: AtomicU32,
    sent_groups: AtomicU32,
}

/// The peers of one test; all have the same objects.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    objects: Arc<BTreeMap<ObjectId, Vec<u8>>>,
    peers: Arc<BTreeMap<NodeId, Played>>,
}

pub(super) fn node(index: usize) -> NodeId {
    NodeId([index as u8; 32])
}

impl Peers {
    pub(super) fn new(objects: &[Vec<u8>], natures: &[Nature]) -> Self {
        let objects = objects.iter().map(|bytes| (ObjectId::of(bytes), bytes.clone())).collect();
        let played = |nature: &Nature| Played {
            nature: *nature,
            opened: AtomicU32::new(0),
            sent_groups: AtomicU32::new(0),
        };
        let peers = natures.iter().enumerate().map(|(index, nature)| (node(index), played(nature)));
        Self { objects: Arc::new(objects), peers: Arc::new(peers.collect()) }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    pub(super) fn opened(&self, index: usize) -> u32 {
        self.peers[&node(index)].opened.load(Ordering::Relaxed)
    }

    pub(super) fn sent_groups(&self, index: usize) -> u32 {
        self.peers[&node(index)].sent_groups.load(Ordering::Relaxed)
    }

    async fn play(self, peer: NodeId, mut stream: Stream) -> io::Result<()> {
        let played = &self.peers[&peer];
        loop {
            let mut request = [0; ObjectRequest::BYTES];
            stream.read_exact(&mut request).await?;
            let ObjectRequest { id, part } = ObjectRequest::from_bytes(&request);
            let (nature, object) = (played.nature, self.objects.get(&id));
            let Some(object) = object.filter(|_| nature != Nature::Lacks) else {
                stream.write_all(&AnswerHead::NotHere.to_bytes()).await?;
                continue;
            };
            if nature == Nature::Stalls {
                return std::future::pending().await;
            }
            let shorter = u64::from(nature == Nature::Shortens);
            stream.write_all(&AnswerHead::Here(object.len() as u64 - shorter).to_bytes()).await?;
            match part {
                Part::Outline => {
                    let mut hasher = OutlineHasher::default();
                    hasher.update(object);
                    let mut outline = hasher.finish().1.to_bytes();
                    // A swapped outline is noticed at once; to send swapped groups, be honest here.
                    if nature == Nature::Swaps && object.len().is_multiple_of(2) {
                        outline.rotate_left(32);
                    }
                    stream.write_all(&outline).await?;
                }
                Part::Groups { first, count } => {
                    for group in first..first + count {
                        self.send_group(played, object, group, &mut stream).await?;
                    }
                }
            }
            stream.flush().await?;
        }
    }

    async fn send_group(
        &self,
        played: &Played,
        object: &[u8],
        group: u32,
        stream: &mut Stream,
    ) -> io::Result<()> {
        let range = group_range(object.len() as u64, group);
        let mut bytes = object[range.start as usize..range.end as usize].to_vec();
        match played.nature {
            Nature::Flips => bytes[0] ^= 1,
            Nature::Swaps => bytes.reverse(),
            Nature::Cuts => {
                stream.write_all(&bytes[..bytes.len() / 2]).await?;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Nature::BreaksAfter(groups) if played.sent_groups.load(Ordering::Relaxed) >= groups => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            _ => {}
        }
        let sent_groups = played.sent_groups.fetch_add(1, Ordering::Relaxed);
        if matches!(played.nature, Nature::StallsAfter(groups) if sent_groups >= groups) {
            return std::future::pending().await;
        }
        stream.write_all(&bytes).await
    }
}

impl ObjectPeers for Peers {
    type Stream = Stream;

    async fn open_objects(&self, peer: NodeId) -> io::Result<Stream> {
        let played = &self.peers[&peer];
        played.opened.fetch_add(1, Ordering::Relaxed);
        if played.nature == Nature::Gone {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (here, there) = tokio::io::duplex(256 << 10);
        tokio::spawn(self.clone().play(peer, there.compat()));
        Ok(here.compat())
    }
}

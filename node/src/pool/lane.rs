//! One question to one peer: asked, and its answer read, verified and written piece by piece.

use std::io;
use std::sync::Arc;

use stormo_protocol::limits::OBJECT_GROUP_BYTES;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{ObjectRequest, Part, group_range, outline_bytes};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::PoolError;
use super::partial::Partial;
use super::pull::Order;
use crate::net::{FetchError, ObjectPeers, ObjectStream};

/// A question on its way, and its answer.
pub(super) struct Lane<S> {
    pub(super) order: Order,
    pub(super) partial: Arc<Partial>,
    pub(super) stream: Option<ObjectStream<S>>,
    pub(super) writing: mpsc::Sender<()>,
    /// Groups that came.
    pub(super) done: u32,
    pub(super) buffer: Vec<u8>,
}

/// What one step of a lane brought.
pub(super) enum Stepped {
    Outline,
    Group(u32),
    Wrong,
    Failed(FetchError),
}

pub(super) type Step<S> = (Lane<S>, Result<Stepped, PoolError>);

impl<S: futures::AsyncRead + futures::AsyncWrite + Unpin + Send> Lane<S> {
    /// Asks, and makes the first step.
    pub(super) async fn ask_and_step<P: ObjectPeers<Stream = S>>(mut self, door: P) -> Step<S> {
        let ObjectRef { id, bytes } = self.partial.object();
        let request = ObjectRequest { id, part: self.order.part };
        match ObjectStream::ask_peer(&mut self.stream, &door, self.order.peer, request, bytes).await {
            Ok(()) => self.step().await,
            Err(error) => (self, Ok(Stepped::Failed(error))),
        }
    }

    /// Reads, verifies and writes the next piece.
    pub(super) async fn step(mut self) -> Step<S> {
        if let Err(error) = self.read_piece().await {
            return (self, Ok(Stepped::Failed(error)));
        }
        let (partial, part, done) = (self.partial.clone(), self.order.part, self.done);
        let (buffer, writing) = (std::mem::take(&mut self.buffer), self.writing.clone());
        let taken = spawn_blocking(move || {
            let stepped = match part {
                Part::Outline if partial.take_outline(&buffer) => Ok(Stepped::Outline),
                Part::Outline => Ok(Stepped::Wrong),
                Part::Groups { first, .. } => match partial.take_group(first + done, &buffer) {
                    Ok(true) => Ok(Stepped::Group(first + done)),
                    Ok(false) => Ok(Stepped::Wrong),
                    Err(error) => Err(error),
                },
            };
            // In this order: who waits for the last writer finds the object free.
            drop(partial);
            drop(writing);
            (buffer, stepped)
        });
        match taken.await {
            Ok((buffer, stepped)) => {
                self.buffer = buffer;
                self.done += 1;
                (self, stepped)
            }
            Err(error) => (self, Err(error.into())),
        }
    }

    async fn read_piece(&mut self) -> Result<(), FetchError> {
        let bytes = self.partial.object().bytes;
        let Some(stream) = &mut self.stream else {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let piece_bytes = match self.order.part {
            Part::Outline => outline_bytes(bytes),
            Part::Groups { first, .. } => {
                let range = group_range(bytes, first + self.done);
                range.end - range.start
            }
        };
        debug_assert!(piece_bytes <= OBJECT_GROUP_BYTES);
        self.buffer.resize(piece_bytes as usize, 0);
        Ok(stream.fill(&mut self.buffer).await?)
    }
}

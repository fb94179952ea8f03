//! Wishes and the orders that count, on disk: a mesh that starts whole again has its deployments, and what was
//! taken back stays so. They lie there as they were signed, and are checked again when read.

use std::path::PathBuf;

use stormo_protocol::codec::{decode, encode};
use stormo_protocol::limits::{DEPLOYMENT_BYTES_MAX, DEPLOYMENTS_MAX, ORDER_BYTES_MAX, TOMBSTONES_MAX};
use stormo_protocol::state::{Signed, Topic};
use tokio::task::spawn_blocking;

use super::{Driver, Event};
use crate::app::calls::{CallError, Reply};
use crate::files;
use crate::mesh::Heard;
use crate::serve::json::DeploymentView;

/// Longest file that is read, bytes: two versions of each deployment, an order for each, and what was taken back.
const FILE_BYTES_MAX: usize = 2 * DEPLOYMENTS_MAX * (DEPLOYMENT_BYTES_MAX + ORDER_BYTES_MAX + 256)
    + TOMBSTONES_MAX * (DEPLOYMENT_BYTES_MAX + 128);

/// What lies on disk.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Of all signatures.
    fingerprint: Option<blake3::Hash>,
    is_writing: bool,
    /// Callers whose deed is being written, and those whose deed came after that was begun.
    written_now: Vec<Waiting>,
    written_next: Vec<Waiting>,
}

/// A caller, and what it hears once its deed would outlive this process.
type Waiting = (Reply<DeploymentView>, DeploymentView);

fn fingerprint<'a>(all: impl Iterator<Item = &'a Heard>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    all.for_each(|heard| {
        hasher.update(&heard.signed().signature);
    });
    hasher.finalize()
}

impl Driver {
    /// Takes up what counted when this node last ran.
    pub(super) fn restore(&mut self) {
        let path = self.parts.deployments.clone();
        let bytes = match files::read(&path, FILE_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return cannot_read(&path, &error),
        };
        let signed = match decode::<Vec<Signed>, FILE_BYTES_MAX>(&bytes) {
            Ok(signed) => signed,
            Err(error) => return cannot_read(&path, &error),
        };
        let (mut kept, count) = (0, signed.len());
        for heard in
            signed.into_iter().filter(|signed| self.parts.net.is_valid(signed)).filter_map(Heard::read)
        {
            kept += 1;
            if heard.signed().topic == Topic::Order {
                self.stewardship.restore(&heard);
            }
            // Orders too, for those who come later and ask for them.
            self.member.settling().0.apply(&heard);
        }
        if kept < count {
            tracing::warn!(
                path = %path.display(), left_out = count - kept,
                "some stored deployments are not validly signed; others in the mesh tell them again"
            );
        }
        self.stored.fingerprint = Some(self.fingerprint());
        // Most descriptions are on this machine's disk, and callers may be there already.
        self.want_manifests();
    }

    fn fingerprint(&self) -> blake3::Hash {
        fingerprint(self.member.deployments().wishes().chain(self.stewardship.orders()))
    }

    /// Writes what changed, beside the loop; the file is there whole or as it was.
    pub(super) fn store(&mut self) {
        let now = self.fingerprint();
        let is_empty = self.member.deployments().wishes().next().is_none();
        if self.stored.is_writing || self.stored.fingerprint == Some(now) || is_empty {
            return;
        }
        let all = self.member.deployments().wishes().chain(self.stewardship.orders());
        let signed: Vec<Signed> = all.map(|heard| heard.signed().as_ref().clone()).collect();
        let path = self.parts.deployments.clone();
        (self.stored.is_writing, self.stored.fingerprint) = (true, Some(now));
        self.stored.written_now = std::mem::take(&mut self.stored.written_next);
        self.beside(async move {
            let written = spawn_blocking(move || write(path, &signed)).await;
            Event::Stored(written.unwrap_or_else(|error| Err(error.to_string())))
        });
    }

    /// Answers once what was done is on disk, so that no power cut takes back what somebody was told; at once if nothing was.
    pub(super) fn answer_once_stored(
        &mut self,
        done: Result<DeploymentView, CallError>,
        reply: Reply<DeploymentView>,
    ) {
        match done {
            Ok(view) => self.stored.written_next.push((reply, view)),
            Err(error) => drop(reply.send(Err(error))),
        }
        self.store_for_waiting();
    }

    fn store_for_waiting(&mut self) {
        self.store();
        if !self.stored.is_writing {
            answer(std::mem::take(&mut self.stored.written_next), Ok(()));
        }
    }

    pub(super) fn on_stored(&mut self, written: Result<(), String>) {
        self.stored.is_writing = false;
        answer(std::mem::take(&mut self.stored.written_now), written.as_ref().copied());
        if let Err(error) = written {
            // Tried again at the next look.
            self.stored.fingerprint = None;
            if let Some(left_out) = self.log.stored.next(self.now_ms()) {
                tracing::warn!(
                    error,
                    left_out,
                    "deployments are not stored, which is tried again each second; a restart would have to hear them from \
                     others"
                );
            }
        }
        if !self.stored.written_next.is_empty() {
            self.store_for_waiting();
        }
    }
}

/// What could not be written is done in the mesh all the same, but its caller must know that it may be forgotten.
fn answer(waiting: Vec<Waiting>, written: Result<(), &String>) {
    for (reply, view) in waiting {
        let answer = match written {
            Ok(()) => Ok(view),
            Err(error) => Err(CallError::Failed(format!(
                "`{}` is told to the mesh, but this node cannot keep it on its disk ({error}): a restart would have to \
                 hear it from others. Make room; it is written as soon as there is some",
                view.name
            ))),
        };
        // Its caller may have gone.
        let _ = reply.send(answer);
    }
}

fn write(path: PathBuf, signed: &[Signed]) -> Result<(), String> {
    files::write_whole(&path, &encode(&signed)).map_err(|error| format!("`{}`: {error}", path.display()))
}

fn cannot_read(path: &std::path::Path, error: &dyn std::fmt::Display) {
    tracing::warn!(
        path = %path.display(), %error,
        "stored deployments cannot be read, so this node begins without; others in the mesh tell them again"
    );
}

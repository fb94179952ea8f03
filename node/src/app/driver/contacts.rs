//! Where others were last reached, on disk: a node that starts again finds its mesh though it is not told where to join.

use std::path::PathBuf;
use std::time::Duration;

use stormo_protocol::codec::{decode, encode};
use stormo_protocol::limits::CONTACTS_BYTES_MAX;
use tokio::task::spawn_blocking;

use super::{Driver, Event};
use crate::files;

/// Others that start at the same time are found by then.
const FOUND_WITHIN: Duration = Duration::from_secs(15);

/// What lies on disk.
#[derive(Debug, Default)]
pub(super) struct StoredContacts {
    written: Vec<String>,
    is_writing: bool,
    /// Whether it was told that none of them answers.
    is_told: bool,
}

impl Driver {
    /// Takes up the addresses that this node knew when it last ran.
    pub(super) fn restore_contacts(&mut self) {
        let path = &self.parts.contacts;
        let read = match files::read(path, CONTACTS_BYTES_MAX as u64) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => Err(error.to_string()),
            Ok(bytes) => decode::<Vec<String>, CONTACTS_BYTES_MAX>(&bytes).map_err(|error| error.to_string()),
        };
        match read {
            Ok(addresses) => {
                self.contacts.written.clone_from(&addresses);
                self.member.remember(addresses);
            }
            Err(error) => tracing::warn!(
                path = %path.display(), error,
                "the addresses of others cannot be read, so this node joins only where --join says; the file is written anew"
            ),
        }
    }

    /// The owner hears, once, that none of those who were there is found: a node alone serves on, and looks like a mesh.
    pub(super) fn look_at_contacts(&mut self) {
        let is_alone = self.member.view().iter().next().is_none();
        let is_due = self.started.elapsed() >= FOUND_WITHIN && !self.contacts.written.is_empty();
        if is_alone && is_due && !std::mem::replace(&mut self.contacts.is_told, true) {
            tracing::warn!(
                addresses = ?self.contacts.written.iter().take(3).collect::<Vec<_>>(),
                "none of the nodes that this one knew answers at its last addresses, so it is alone; it tries them on. \
                 If they have new ones, start it with --join and a ticket (`stormo invite` on one of them)"
            );
        }
    }

    /// Writes them if they are others than before, beside the loop; the file is there whole or as it was. Who knows nobody
    /// leaves what was written.
    pub(super) fn store_contacts(&mut self) {
        let addresses = self.member.memorable();
        if self.contacts.is_writing || addresses.is_empty() || addresses == self.contacts.written {
            return;
        }
        let (path, bytes) = (self.parts.contacts.clone(), encode(&addresses));
        (self.contacts.is_writing, self.contacts.written) = (true, addresses);
        self.beside(async move {
            let written = spawn_blocking(move || write(path, &bytes)).await;
            Event::ContactsStored(written.unwrap_or_else(|error| Err(error.to_string())))
        });
    }

    pub(super) fn on_contacts_stored(&mut self, written: Result<(), String>) {
        self.contacts.is_writing = false;
        if let Err(error) = written {
            self.contacts.written.clear();
            tracing::warn!(
                error,
                "the addresses of others are not stored; after a restart, --join must name one"
            );
        }
    }
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<(), String> {
    files::write_whole(&path, bytes).map_err(|error| format!("`{}`: {error}", path.display()))
}

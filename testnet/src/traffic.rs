//! How many bytes of tensors nodes moved, as they count them themselves.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;

use crate::client::{ApiError, Client};
use crate::mesh::Mesh;
use crate::trial::SOON;
use crate::wait::{self, WaitError};

/// Bytes sent and received by peer.
pub type Moved = BTreeMap<NodeId, (u64, u64)>;

/// Counters once each node has sent what the others received from it: a sender counts a moment after
/// the receiver, and so perhaps after the answer is there.
///
/// # Errors
/// When they do not agree in time.
pub fn settled(mesh: &Mesh, labels: &[&str]) -> Result<Vec<Moved>, WaitError> {
    let ids: Vec<NodeId> = labels.iter().map(|label| mesh.node(label).id()).collect();
    wait::until("senders to have counted what receivers have", SOON, || {
        let now = moved(mesh, labels).map_err(|error| error.to_string())?;
        let with = |at: usize, peer: usize| now[at].get(&ids[peer]).copied().unwrap_or_default();
        let agree = |from: usize, to: usize| with(from, to).0 == with(to, from).1;
        let all = (0..ids.len()).all(|from| (0..ids.len()).all(|to| agree(from, to)));
        if all { Ok(now) } else { Err(format!("{now:?}")) }
    })
}

/// All counters now.
///
/// # Errors
/// When a node does not answer.
pub fn moved(mesh: &Mesh, labels: &[&str]) -> Result<Vec<Moved>, ApiError> {
    let of = |client: &Client| {
        let traffic = client.node()?.traffic;
        Ok(traffic.iter().map(|with| (with.peer, (with.sent_bytes, with.received_bytes))).collect())
    };
    labels.iter().map(|label| of(&mesh.node(label).client)).collect()
}

/// What was moved between two looks at a node's counters.
pub fn since(before: &Moved, now: &Moved) -> Moved {
    let grown = now.iter().map(|(peer, (sent, received))| {
        let (sent_before, received_before) = before.get(peer).copied().unwrap_or_default();
        (*peer, (sent - sent_before, received - received_before))
    });
    grown.filter(|(_, moved)| *moved != (0, 0)).collect()
}

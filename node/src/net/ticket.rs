//! Tickets: all that a new node needs to join, as one line of text. A ticket holds the mesh key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stormo_protocol::codec::{decode, encode};
use stormo_protocol::ids::MeshKey;
use stormo_protocol::limits::ADDRESSES_MAX;

const PREFIX: &str = "stormo1";
const TICKET_BYTES_MAX: usize = 2048;

/// Key and addresses of a mesh.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The secret of the mesh.
    pub mesh: MeshKey,
    /// Multiaddresses of a node that is there.
    pub addresses: Vec<String>,
}

/// A text that is no ticket. It may hold a secret, so it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no ticket, or not a whole one: copy all that `stormo invite` printed")]
pub struct BadTicket;

#[derive(Serialize, Deserialize)]
struct Content {
    key: [u8; 32],
    addresses: Vec<String>,
    /// First bytes of the key's hash: a mistyped ticket is told at once.
    check: [u8; 4],
}

fn check(key: &MeshKey) -> [u8; 4] {
    let [a, b, c, d, ..] = key.mesh_id().0;
    [a, b, c, d]
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content =
            Content { key: self.mesh.0, addresses: self.addresses.clone(), check: check(&self.mesh) };
        write!(f, "{PREFIX}{}", bs58::encode(encode(&content)).into_string())
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim();
        if text.len() > 2 * TICKET_BYTES_MAX {
            return Err(BadTicket);
        }
        let bytes = bs58::decode(text.strip_prefix(PREFIX).ok_or(BadTicket)?).into_vec();
        let content = decode::<Content, TICKET_BYTES_MAX>(&bytes.map_err(|_| BadTicket)?);
        let Content { key, addresses, check: expected } = content.map_err(|_| BadTicket)?;
        let mesh = MeshKey(key);
        if check(&mesh) != expected || addresses.len() > ADDRESSES_MAX {
            return Err(BadTicket);
        }
        Ok(Self { mesh, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_round_trip_and_damage_is_told() {
        let ticket = Ticket { mesh: MeshKey([5; 32]), addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()] };
        let text = ticket.to_string();
        assert!(text.parse::<Ticket>() == Ok(ticket));
        assert!(text[..text.len() - 3].parse::<Ticket>().is_err());
        let mut damaged = text.into_bytes();
        damaged[9] = if damaged[9] == b'z' { b'y' } else { b'z' };
        assert!(String::from_utf8(damaged).unwrap().parse::<Ticket>().is_err());
        assert!("".parse::<Ticket>().is_err());
    }
}

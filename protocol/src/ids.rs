//! Names of things that nodes speak about: nodes, meshes, objects, requests and plans.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Protobuf framing of an Ed25519 public key inside an identity multihash: the bytes that come
/// before the key in a libp2p peer id (libp2p specification, `peer-ids`).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct BadId {
    /// The text as given.
    pub text: String,
    /// What it should have been.
    pub expected: &'static str,
}

/// A node: its Ed25519 public key. Written as the libp2p peer id that holds this key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The bytes of the libp2p peer id (38: prefix and key).
    pub fn to_peer_id_bytes(self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The node behind a libp2p peer id, if that id holds an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }

    /// The last characters of the written form, for tables: enough to tell the nodes of one mesh
    /// apart, where the whole would fill the line.
    pub fn short(self) -> String {
        let text = self.to_string();
        text[text.len() - 6..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.chars().take(80).collect(), expected: "a peer id (12D3Koo...)" };
        // 38 bytes are 52 characters; do not decode what cannot be one.
        if text.len() > 64 {
            return Err(bad());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad())?;
        Self::from_peer_id_bytes(&bytes).ok_or_else(bad)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.chars().take(80).collect(), expected: $expected };
                if text.len() != 2 * $bytes || !text.is_ascii() {
                    return Err(bad());
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let digits = std::str::from_utf8(pair).map_err(|_| bad())?;
                    *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

hex_id!(
    /// A mesh. Derived from its key, so that the two cannot disagree.
    MeshId, 16, "a mesh id (32 hexadecimal digits)"
);
hex_id!(
    /// What the pool stores: the BLAKE3 hash of the object's bytes.
    ObjectId, 32, "an object id (64 hexadecimal digits)"
);
hex_id!(
    /// One request, chosen by its origin (or derived from the caller's idempotency key).
    RequestId, 16, "a request id (32 hexadecimal digits)"
);
hex_id!(
    /// A plan: a hash of deployment version, variant, division, codecs and hosts.
    PlanId, 16, "a plan id (32 hexadecimal digits)"
);
hex_id!(
    /// One version of a deployment: a hash of its name, version and manifests.
    DeploymentId, 16, "a deployment id (32 hexadecimal digits)"
);

/// One variant of one version of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VariantId {
    /// The version.
    pub deployment: DeploymentId,
    /// Its place among the deployment's variants.
    pub index: u8,
}

impl fmt::Display for VariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.index)
    }
}

impl ObjectId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// The secret of a mesh, 32 random bytes: whoever holds it may join.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshKey(pub [u8; 32]);

impl MeshKey {
    /// The public name of the mesh that this key opens (BLAKE3, key derivation mode).
    pub fn mesh_id(&self) -> MeshId {
        MeshId(self.derive("stormo 1 mesh id"))
    }

    /// What both sides mix into their handshake. Knowing it proves knowledge of the key.
    pub fn handshake_secret(&self) -> [u8; 32] {
        self.derive("stormo 1 handshake")
    }

    fn derive<const N: usize>(&self, context: &str) -> [u8; N] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        let mut out = [0; N];
        hasher.finalize_xof().fill(&mut out);
        out
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshKey(of mesh {})", self.mesh_id())
    }
}

impl fmt::Display for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl FromStr for MeshKey {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        // The text is a secret: it never appears in the error.
        let bad = || BadId { text: "(hidden)".into(), expected: "a mesh key (base58, 32 bytes)" };
        let mut bytes = [0; 32];
        let length = bs58::decode(text).onto(&mut bytes).map_err(|_| bad())?;
        if length == 32 { Ok(Self(bytes)) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_is_written_as_its_libp2p_peer_id() {
        let id = NodeId([7; 32]);
        assert!(id.to_string().starts_with("12D3KooW"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("12D3KooWnonsense".parse::<NodeId>().is_err());
    }

    #[test]
    fn hex_ids_round_trip_and_refuse_other_lengths() {
        let id = PlanId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("ab".parse::<PlanId>().is_err());
        assert!("zz".repeat(16).parse::<PlanId>().is_err());
        assert!("é".repeat(16).parse::<PlanId>().is_err());
    }

    #[test]
    fn keys_open_their_own_mesh_only_and_hide() {
        let (a, b) = (MeshKey([1; 32]), MeshKey([2; 32]));
        assert_ne!(a.mesh_id(), b.mesh_id());
        assert_ne!(a.handshake_secret(), b.handshake_secret());
        assert_eq!(a.to_string().parse(), Ok(a.clone()));
        assert!(!format!("{a:?}").contains(&a.to_string()));
    }
}

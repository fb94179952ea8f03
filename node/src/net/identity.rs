//! Who this node is: an Ed25519 key kept in the data directory, and what it signs.

use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use stormo_protocol::ids::{MeshId, NodeId};
use stormo_protocol::state::{Signed, Topic};

/// Longest file of a key that is read, bytes; a key has 32.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// A node's key pair.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    node: NodeId,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there but holds no key.
    #[error("`{0}` does not hold a node key; restore it, or remove it to start as a new node")]
    Damaged(PathBuf),
    /// The file could not be read or written.
    #[error("cannot keep the node key in `{path}`: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Identity {
    /// The identity of a data directory: read from the file, or made and written to it.
    ///
    /// # Errors
    /// When the file is damaged or cannot be read or written.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::File { path: path.to_owned(), source };
        match crate::files::read(path, KEY_BYTES_MAX) {
            Ok(bytes) => Self::from_secret(bytes).ok_or_else(|| IdentityError::Damaged(path.to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secret = ed25519::SecretKey::generate().as_ref().to_vec();
                crate::files::write_secret(path, &secret).map_err(failed)?;
                Self::from_secret(secret).ok_or_else(|| IdentityError::Damaged(path.to_owned()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// From the 32 bytes of a secret key.
    pub fn from_secret(mut secret: Vec<u8>) -> Option<Self> {
        let keypair = Keypair::ed25519_from_bytes(&mut secret).ok()?;
        let node = NodeId(keypair.public().try_into_ed25519().ok()?.to_bytes());
        Some(Self { keypair, node })
    }

    /// The public name.
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn keypair(&self) -> Keypair {
        self.keypair.clone()
    }

    /// Signs a record for one mesh. `None` only if the key type cannot sign, which ours can.
    pub fn sign(&self, topic: Topic, mesh: MeshId, body: Vec<u8>) -> Option<Signed> {
        let signature = self.keypair.sign(&Signed::covered(topic, mesh, &body)).ok()?;
        Some(Signed { topic, author: self.node, signature, body })
    }
}

/// Whether the author really signed this, for this mesh.
pub(super) fn is_valid(signed: &Signed, mesh: MeshId) -> bool {
    let Ok(key) = ed25519::PublicKey::try_from_bytes(&signed.author.0) else { return false };
    key.verify(&Signed::covered(signed.topic, mesh, &signed.body), &signed.signature)
}

/// The libp2p name of a node; `None` if its bytes are no key.
pub(super) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// Our name of a libp2p peer; `None` if its key is of another type.
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_persists_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(Identity::load_or_create(&path).unwrap().node(), first.node());
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Damaged(_))));
    }

    #[test]
    fn names_convert_both_ways() {
        let identity = Identity::from_secret(vec![7; 32]).unwrap();
        let peer = peer_id(identity.node()).unwrap();
        assert_eq!(node_id(&peer), Some(identity.node()));
        assert_eq!(peer.to_string(), identity.node().to_string());
    }

    #[test]
    fn a_signature_holds_for_its_mesh_and_topic_only() {
        let identity = Identity::from_secret(vec![7; 32]).unwrap();
        let (mesh, other) = (MeshId([1; 16]), MeshId([2; 16]));
        let signed = identity.sign(Topic::Node, mesh, b"record".to_vec()).unwrap();
        assert!(is_valid(&signed, mesh));
        assert!(!is_valid(&signed, other));
        assert!(!is_valid(&Signed { topic: Topic::Deployment, ..signed.clone() }, mesh));
        assert!(!is_valid(&Signed { body: b"recorD".to_vec(), ..signed }, mesh));
    }
}

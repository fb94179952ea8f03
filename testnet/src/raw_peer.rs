//! Members of a mesh by its key that are no nodes: tests say through them what no node says.

use std::sync::Arc;

use anyhow::{Context, Result};
use stormo::app::config::read_mesh_key;
use stormo::net::{Identity, NetConfig, ObjectSource};
use stormo_protocol::ids::ObjectId;

use crate::mesh::Mesh;

/// Has no objects.
#[derive(Debug)]
struct Nothing;

impl ObjectSource for Nothing {
    fn open(&self, _: ObjectId) -> Option<(std::fs::File, u64)> {
        None
    }

    fn outline(&self, _: ObjectId) -> Option<(u64, Vec<u8>)> {
        None
    }
}

/// How one joins a mesh on loopback, with an identity out of this byte.
///
/// # Errors
/// When the mesh's key cannot be read.
pub fn config(mesh: &Mesh, secret: u8) -> Result<NetConfig> {
    Ok(NetConfig {
        identity: Identity::from_secret(vec![secret; 32]).context("32 bytes are a key")?,
        mesh: read_mesh_key(&mesh.key_folder().join("mesh.key"))?,
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        objects: Arc::new(Nothing),
    })
}

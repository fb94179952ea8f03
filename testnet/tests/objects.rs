//! Objects between real nodes: a peer whose disk is damaged is found out, another one gives what is
//! missing, and nothing wrong gets a name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use stormo_protocol::ids::ObjectId;
use stormo_testnet::digits;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, asker, edge};

#[test]
fn wrong_bytes_from_a_peer_are_found_out_and_another_one_gives_the_rest() -> Result<()> {
    let nodes = [asker("publisher"), edge("one"), edge("other")];
    trial::run(&nodes, |mesh| {
        let first = trial::deploy(mesh, "publisher", "digits", &digits::model(), &["--replicas", "1"])?;
        let host = first.hosts.first().context("it has a host")?;
        let next = if host.label == "one" { "other" } else { "one" };
        flip_a_bit_of_each(&objects(mesh, "publisher"))?;
        let placement = mesh.folder().join("placement.toml");
        fs::write(&placement, format!("[[place]]\nnode = \"{next}\"\nblocks = {:?}\n", host.blocks))?;
        let placement = placement.to_string_lossy().into_owned();
        trial::deploy(mesh, "publisher", "digits", &digits::model(), &["--placement", &placement])?;
        let log = mesh.node(next).logged();
        ensure!(log.contains("a peer sent wrong bytes"), "`{next}` noticed nothing:\n{log}");
        let whole = check_names(&objects(mesh, next))?;
        ensure!(whole >= 2, "only {whole} objects came");
        trial::check_reads(&mesh.node(next).client)
    })
}

fn objects(mesh: &Mesh, label: &str) -> PathBuf {
    mesh.node(label).data().join("objects")
}

/// The objects in a pool's folder, with their names.
fn named(pool: &Path) -> Result<Vec<(PathBuf, ObjectId)>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(pool)? {
        let folder = folder?.path();
        if folder.ends_with("partial") {
            continue;
        }
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                found.push((path, id));
            }
        }
    }
    Ok(found)
}

/// Another deployment of the same network has another manifest, since it measures anew, but all else again.
fn flip_a_bit_of_each(pool: &Path) -> Result<()> {
    let files = named(pool)?;
    ensure!(!files.is_empty(), "the pool is empty");
    for (path, _) in files {
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// Reads all objects; each must be what its name says.
fn check_names(pool: &Path) -> Result<usize> {
    let all = named(pool)?;
    for (path, id) in &all {
        ensure!(ObjectId::of(&fs::read(path)?) == *id, "`{}` is not what its name says", path.display());
    }
    Ok(all.len())
}

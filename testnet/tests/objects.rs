//! Objects between real nodes and on their disks: a peer whose disk is damaged is found out, another one gives
//! what is missing, nothing wrong gets a name, and deploying again mends what was damaged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use stormo::serve::json::DeploymentState;
use stormo_protocol::codec::decode;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::MANIFEST_BYTES_MAX;
use stormo_protocol::model::Manifest;
use stormo_testnet::commands::Progress;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::onnx_files::{self as onnx, Declared, FLOAT, model_of, node, weight};
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, asker, edge};
use stormo_testnet::{digits, wait};

/// Weights of the model that is damaged.
const WEIGHTS: usize = 12;
/// Numbers in each: more than what stays inside the graph.
const WIDTH: usize = 2000;

#[test]
fn wrong_bytes_from_a_peer_are_found_out_and_another_one_gives_the_rest() -> Result<()> {
    let nodes = [asker("publisher"), edge("one"), edge("other")];
    trial::run(&nodes, |mesh| {
        let first = trial::deploy(mesh, "publisher", "digits", &digits::model(), &["--replicas", "1"])?;
        let host = first.hosts.first().context("it has a host")?;
        let next = if host.label == "one" { "other" } else { "one" };
        let pool = objects(mesh, "publisher");
        let manifest = manifest(&pool)?;
        spoil_all(&pool, |path| if path.ends_with(&manifest) { Ok(()) } else { flip_a_bit(path) })?;
        // Not by the command, which would find the damage and upload those objects again.
        let variant = json!({ "label": "base", "manifest": manifest });
        let place = json!({ "node": next, "blocks": host.blocks });
        let body = json!({ "name": "digits", "variants": [variant], "replicas": 1, "placement": [place] });
        let client = &mesh.node("publisher").client;
        let posted = client.post_raw("/v1/deployments", "application/json", &serde_json::to_vec(&body)?)?;
        ensure!(posted.status == 202, "{}", String::from_utf8_lossy(&posted.body));
        wait::until("the other host to be warm", SOON, || {
            let deployments = client.deployments().map_err(|error| error.to_string())?.deployments;
            let ready = |state| state == DeploymentState::Ready;
            if deployments.iter().all(|view| ready(view.state)) {
                Ok(())
            } else {
                Err(format!("{deployments:?}"))
            }
        })?;
        let log = mesh.node(next).logged();
        ensure!(log.contains("a peer sent wrong bytes"), "`{next}` noticed nothing:\n{log}");
        let whole = check_names(&objects(mesh, next))?;
        ensure!(whole >= 2, "only {whole} objects came");
        trial::check_reads(&mesh.node(next).client)
    })
}

#[test]
fn deploying_again_mends_the_node_that_it_is_deployed_at() -> Result<()> {
    trial::run(&[edge("only")], |mesh| {
        let model = sums(mesh)?;
        trial::deploy(mesh, "only", "sums", &model, &[])?;
        let pool = objects(mesh, "only");
        for spoil in [flip_a_bit, |path: &Path| Ok(fs::remove_file(path)?), replace_by_a_folder] {
            undeploy(mesh, "only")?;
            ensure!(spoil_all(&pool, spoil)? > WEIGHTS, "the weights are no objects of their own");
            trial::deploy(mesh, "only", "sums", &model, &[])?;
            weights_are_whole(&pool)?;
        }
        Ok(())
    })
}

#[test]
fn deploying_again_mends_hosts_from_their_peers() -> Result<()> {
    let nodes = [asker("publisher"), edge("one"), edge("two")];
    trial::run(&nodes, |mesh| {
        let model = sums(mesh)?;
        trial::deploy(mesh, "publisher", "sums", &model, &["--replicas", "2"])?;
        undeploy(mesh, "publisher")?;
        let pool = objects(mesh, "two");
        ensure!(spoil_all(&pool, flip_a_bit)? > WEIGHTS, "`two` did not have all");
        let again = trial::deploy(mesh, "publisher", "sums", &model, &["--replicas", "2"])?;
        ensure!(again.hosts.iter().any(|host| host.label == "two"), "{again:?}");
        weights_are_whole(&pool)
    })
}

fn weights() -> impl Iterator<Item = Vec<f32>> {
    (0..WEIGHTS).map(|index| vec![index as f32; WIDTH])
}

/// The weights are read one by one: other objects, such as a first manifest, may be needed no more.
fn weights_are_whole(pool: &Path) -> Result<()> {
    for values in weights() {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let id = ObjectId::of(&bytes).to_string();
        let path = pool.join(&id[..2]).join(&id);
        let found = fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(found == bytes, "`{}` is not what its name says", path.display());
    }
    Ok(())
}

/// A model whose weights are all objects of their own.
fn sums(mesh: &Mesh) -> Result<PathBuf> {
    let name = |index: usize| if index == WEIGHTS { "y".to_owned() } else { format!("s{index}") };
    let sum = |index: usize| {
        let from = if index == 0 { "x".to_owned() } else { name(index) };
        node("Add", &[&from, &format!("w{index}")], &[&name(index + 1)])
    };
    let weight =
        |(index, values): (usize, Vec<f32>)| weight(&format!("w{index}"), &[1, WIDTH as u64], &values);
    let contents: Vec<onnx::Message> =
        weights().enumerate().map(weight).chain((0..WEIGHTS).map(sum)).collect();
    let input = Declared { element: FLOAT, dims: &[Some(1), Some(WIDTH as u64)] };
    let path = mesh.folder().join("sums.onnx");
    fs::write(&path, model_of(input, FLOAT, &contents))?;
    Ok(path)
}

fn undeploy(mesh: &Mesh, at: &str) -> Result<()> {
    let words = arguments(&["undeploy", "sums", "--api", mesh.node(at).client.base()]);
    let ran = mesh.stormo().run(&words, Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.status.success(), "{}", ran.stderr);
    Ok(())
}

/// The only manifest in a pool.
fn manifest(pool: &Path) -> Result<String> {
    const LIMIT: usize = MANIFEST_BYTES_MAX as usize;
    for (path, id) in named(pool)? {
        if decode::<Manifest, LIMIT>(&fs::read(path)?).is_ok_and(|manifest| manifest.check().is_ok()) {
            return Ok(id.to_string());
        }
    }
    Err(anyhow!("there is no manifest in `{}`", pool.display()))
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

fn flip_a_bit(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn replace_by_a_folder(path: &Path) -> Result<()> {
    fs::remove_file(path)?;
    Ok(fs::create_dir(path)?)
}

/// Does something bad to all objects; how many there were.
fn spoil_all(pool: &Path, spoil: impl Fn(&Path) -> Result<()>) -> Result<usize> {
    let all = named(pool)?;
    all.iter().try_for_each(|(path, _)| spoil(path))?;
    Ok(all.len())
}

/// Reads all objects; each must be what its name says.
fn check_names(pool: &Path) -> Result<usize> {
    let all = named(pool)?;
    for (path, id) in &all {
        ensure!(ObjectId::of(&fs::read(path)?) == *id, "`{}` is not what its name says", path.display());
    }
    Ok(all.len())
}

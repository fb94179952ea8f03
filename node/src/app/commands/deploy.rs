//! `stormo deploy` and `undeploy`: divides a model here, uploads its objects, waits until it is warm.

mod preparing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::is_valid_name;

use super::local::Progress;
use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::{DeployArgs, UndeployArgs};
use crate::app::client::{Client, CommandError, encoded};
use crate::app::names::{self, Called, Deed, Publisher};
use crate::deploy::Prepared;
use crate::files;
use crate::serve::json::{
    DeployBody, DeploymentState, DeploymentView, DeploymentsView, NodeView, NodesView, OfferView,
    PlacementEntry, VariantBody,
};
use crate::serve::mesh_api::NO_STORE;
use preparing::{Ready, prepare_all};

/// How often the deployment is looked at.
const POLL: Duration = Duration::from_millis(100);
/// A host that refuses, or is gone, is replaced within this, if another one has room: a mesh that has just begun
/// waits up to 10 s until it is sure who its stewards are.
const REPLACED_MAX: Duration = Duration::from_secs(30);
/// Longest placement file that is read, bytes: some thousand places.
const PLACEMENT_BYTES_MAX: u64 = 1 << 20;

/// What `--json` prints: the deployment, and what it took to bring it in.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    view: &'a DeploymentView,
    objects_bytes: u64,
    uploaded_bytes: u64,
    notes: &'a [String],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementFile {
    place: Vec<PlacementEntry>,
}

pub(super) fn run(args: DeployArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    if !is_valid_name(&args.name) {
        return Err(CommandError::Here(format!(
            "`{}` is no name for a model: use 1 to 64 letters, digits, dots, dashes or underscores",
            args.name
        )));
    }
    let placement = args.placement.as_deref().map(read_placement).transpose()?.unwrap_or_default();
    ensure_possible(&client, &args, &placement)?;
    let progress = Progress::begin();
    let (variants, notes) = prepare_all(&args, &progress)?;
    let uploaded = upload(&client, &variants, &progress)?;
    let bodies = variants.iter().map(|variant| VariantBody {
        label: variant.label.clone(),
        manifest: variant.prepared.manifest_object.id,
        accuracy: variant.accuracy,
    });
    let body = DeployBody {
        name: args.name.clone(),
        variants: bodies.collect(),
        replicas: args.replicas.unwrap_or_else(|| replicas(args.parts, &placement)),
        parts: args.parts,
        placement,
        take_over: args.take_over,
    };
    let view: DeploymentView = client.post("/v1/deployments", &body)?;
    let view = wait_until_warm(&client, view, &progress)?;
    progress.end();
    if args.api.json {
        let Uploaded { objects_bytes, uploaded_bytes } = uploaded;
        say_json(&Answer { view: &view, objects_bytes, uploaded_bytes, notes: &notes })?;
    } else {
        show(&view, &variants, &uploaded, progress.elapsed());
        notes.iter().for_each(say);
    }
    match view.state {
        DeploymentState::Failed => Err(CommandError::Refused(failures(&view))),
        DeploymentState::Ready | DeploymentState::Loading => Ok(()),
    }
}

pub(super) fn take_back(args: &UndeployArgs) -> Result<(), CommandError> {
    let query = if args.take_over { "?take_over=true" } else { "" };
    let path = format!("/v1/deployments/{}{query}", encoded(&args.name));
    let view: DeploymentView = Client::new(&args.api)?.delete(&path)?;
    if args.api.json {
        return say_json(&view);
    }
    say(format!("`{}` version {} is taken back; its hosts free its memory.", view.name, view.version));
    Ok(())
}

/// A node that is not there or takes no work, a name that is another's, and one that nobody has, are told before the
/// work, not after it.
fn ensure_possible(
    client: &Client,
    args: &DeployArgs,
    placement: &[PlacementEntry],
) -> Result<(), CommandError> {
    let name = &args.name;
    let own: NodeView = client.get("/v1/node")?;
    if !own.offer.stores {
        return Err(CommandError::Refused(NO_STORE.to_owned()));
    }
    let NodesView { nodes } = client.get("/v1/nodes")?;
    let DeploymentsView { deployments } = client.get("/v1/deployments")?;
    let known = deployments.iter().find(|known| known.name == *name);
    if let Some(known) = known.filter(|known| known.publisher != own.id) {
        let publisher = nodes.iter().find(|node| node.id == known.publisher);
        let publisher = Publisher {
            node: known.publisher,
            label: publisher.map_or("?", |node| &node.label),
            is_there: publisher.is_some_and(|node| names::is_there(node.state, node.age_ms)),
        };
        if let Some(refused) = names::why_not(name, publisher, Deed::Deploy, args.take_over) {
            return Err(CommandError::Refused(refused));
        }
    }
    for PlacementEntry { node: named, .. } in placement {
        let all =
            nodes.iter().map(|node| Called { node: node.id, label: &node.label, is_usable: node.usable });
        let found = names::called(named, all).map_err(CommandError::Refused)?;
        let offer = nodes.iter().find(|node| node.id == found).map(|node| node.offer);
        if offer.is_some_and(|OfferView { computes, open, .. }| !(computes && open)) {
            return Err(CommandError::Refused(names::takes_no_work(named)));
        }
    }
    Ok(())
}

/// As many as were told where each part is placed, else one with parts, two without.
fn replicas(parts: Option<u16>, placement: &[PlacementEntry]) -> u16 {
    let hosts = |block: u16, variant: &Option<String>| {
        let here = placement.iter().filter(|entry| {
            (entry.blocks[0]..entry.blocks[1]).contains(&block)
                && (entry.variant.is_none() || variant.is_none() || entry.variant == *variant)
        });
        here.map(|entry| &entry.node).collect::<BTreeSet<_>>().len()
    };
    // Between these no block is on fewer or more.
    let counts = placement.iter().flat_map(|entry| entry.blocks.map(|block| hosts(block, &entry.variant)));
    let told = counts.filter(|hosts| *hosts > 0).min().and_then(|hosts| u16::try_from(hosts).ok());
    told.unwrap_or(if parts.is_some() { 1 } else { 2 })
}

fn read_placement(path: &Path) -> Result<Vec<PlacementEntry>, CommandError> {
    let told = |error: &dyn std::fmt::Display| CommandError::Here(format!("`{}`: {error}", path.display()));
    let text = files::read_text(path, PLACEMENT_BYTES_MAX).map_err(|error| told(&error))?;
    let file: PlacementFile = toml::from_str(&text).map_err(|error| told(&error))?;
    if file.place.is_empty() {
        return Err(told(&"there is no [[place]] in it"));
    }
    Ok(file.place)
}

/// What the node has now of all that was prepared.
struct Uploaded {
    /// Objects, equal ones counted once.
    objects_bytes: u64,
    /// Of these, what the node did not have.
    uploaded_bytes: u64,
}

fn upload(client: &Client, variants: &[Ready], progress: &Progress) -> Result<Uploaded, CommandError> {
    let all: BTreeMap<ObjectId, &Arc<[u8]>> = variants
        .iter()
        .flat_map(|variant| &variant.prepared.objects)
        .map(|(object, content)| (object.id, content))
        .collect();
    let mut uploaded = Uploaded { objects_bytes: 0, uploaded_bytes: 0 };
    for (index, (id, content)) in all.iter().enumerate() {
        let length = content.len() as u64;
        progress.step(&format!("object {} of {} ({})", index + 1, all.len(), bytes(length)));
        uploaded.objects_bytes += length;
        if !client.has_object(&id.to_string())? {
            client.put_object(&id.to_string(), content)?;
            uploaded.uploaded_bytes += length;
        }
    }
    Ok(uploaded)
}

/// Waits until all that was ordered is warm. A host that refuses is replaced by the deployment's steward, where
/// another one has room: it fails only if it stays so.
fn wait_until_warm(
    client: &Client,
    mut view: DeploymentView,
    progress: &Progress,
) -> Result<DeploymentView, CommandError> {
    let mut failed: Option<Instant> = None;
    loop {
        let is = |state| view.hosts.iter().filter(|host| host.state == state).count();
        let (ready, loading) = (is(DeploymentState::Ready), is(DeploymentState::Loading));
        failed = (is(DeploymentState::Failed) > 0).then(|| failed.unwrap_or_else(Instant::now));
        let is_loading = loading > 0 || view.hosts.is_empty() || view.serving != view.version;
        match failed {
            Some(since) if loading == 0 && since.elapsed() >= REPLACED_MAX => return Ok(view),
            None if !is_loading => return Ok(view),
            _ => {}
        }
        progress.step(&format!("{ready} of {} hosts are warm{}", view.hosts.len(), pulled(&view)));
        std::thread::sleep(POLL);
        view = look_again(client, &view)?;
    }
}

fn pulled(view: &DeploymentView) -> String {
    let pulled = view.hosts.iter().find_map(|host| host.loading).filter(|pulled| pulled.bytes_total > 0);
    let of_this_node = pulled.map(|pulled| {
        format!(
            ", {} of {} of this node's part are here",
            bytes(pulled.bytes_done),
            bytes(pulled.bytes_total)
        )
    });
    let of_others = || {
        let other = view.hosts.iter().find(|host| host.state != DeploymentState::Ready)?;
        Some(format!(", `{}`: {}", other.label, other.message.as_deref()?))
    };
    of_this_node.or_else(of_others).unwrap_or_default()
}

fn look_again(client: &Client, view: &DeploymentView) -> Result<DeploymentView, CommandError> {
    let DeploymentsView { deployments } = client.get("/v1/deployments")?;
    let found = deployments.into_iter().find(|found| found.name == view.name);
    match found {
        Some(found) if found.id == view.id => Ok(found),
        Some(found) if found.publisher != view.publisher => Err(CommandError::Refused(format!(
            "`{}` was published at the same moment by another node ({}), and a name belongs to one; choose another \
             name, or deploy there",
            view.name, found.publisher
        ))),
        Some(_) | None => {
            Err(CommandError::Refused(format!("`{}` was replaced or taken back meanwhile", view.name)))
        }
    }
}

fn failures(view: &DeploymentView) -> String {
    let failed = view.hosts.iter().filter_map(|host| {
        let why = host.message.as_deref()?;
        let [first, end] = host.blocks;
        Some(format!(
            "`{}` does not host blocks {first} to {} of `{}`: {why}",
            host.label,
            end - 1,
            host.variant
        ))
    });
    let failed: Vec<String> = failed.collect();
    format!("`{}` is not hosted as wished:\n{}", view.name, failed.join("\n"))
}

fn show(view: &DeploymentView, variants: &[Ready], uploaded: &Uploaded, took: Duration) {
    say(format!(
        "`{}` version {}: {} of objects, {} of them new at the node; deployed in {:.1} s",
        view.name,
        view.version,
        bytes(uploaded.objects_bytes),
        bytes(uploaded.uploaded_bytes),
        took.as_secs_f64()
    ));
    for Ready { label, accuracy, prepared: Prepared { manifest, whole_us, .. } } in variants {
        let weights: u64 = manifest.weights.iter().map(|weight| weight.bytes).sum();
        let accuracy = accuracy.map(|share| format!(", accuracy {share:.3}")).unwrap_or_default();
        say(format!(
            "variant `{label}`: {} blocks, {} of weights and graph, {} ms whole{accuracy}",
            manifest.blocks.len(),
            bytes(weights + manifest.skeleton.bytes),
            ms(*whole_us as f64 / 1000.0)
        ));
    }
    if let Some(message) = &view.message {
        say(message);
    }
    let rows: Vec<Vec<String>> = view
        .hosts
        .iter()
        .map(|host| {
            let state = match host.state {
                DeploymentState::Ready => "warm",
                DeploymentState::Loading => "loading",
                DeploymentState::Failed => "failed",
            };
            let [first, end] = host.blocks;
            let time = host.time_ms.map(|time| format!("{} ms", ms(time))).unwrap_or_default();
            vec![
                host.label.clone(),
                host.variant.clone(),
                format!("{first}-{}", end - 1),
                state.to_owned(),
                time,
            ]
        })
        .collect();
    say(table(&["HOST", "VARIANT", "BLOCKS", "STATE", "RUN"], &rows));
}

//! `stormo deploy` and `undeploy`: divides a model here, uploads its objects, waits until it is warm.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use stormo_protocol::model::is_valid_name;

use super::local::{Progress, engine_here, read_card, read_file, read_model};
use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::{DeployArgs, UndeployArgs};
use crate::app::client::{Client, CommandError, encoded};
use crate::deploy::{Prepared, Source, SourceCard, prepare};
use crate::serve::json::{
    DeployBody, DeploymentState, DeploymentView, DeploymentsView, NodeView, PlacementEntry,
};

/// How often the deployment is looked at.
const POLL: Duration = Duration::from_millis(100);

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
    // A node that is not there is told before the work, not after it.
    let _: NodeView = client.get("/v1/node")?;
    let progress = Progress::begin();
    let prepared = divide(&args, &progress)?;
    upload(&client, &prepared, &progress)?;
    let body = DeployBody {
        name: args.name.clone(),
        manifest: prepared.manifest_object.id,
        replicas: args.replicas.unwrap_or(if args.parts.is_some() { 1 } else { 2 }),
        parts: args.parts,
        placement,
    };
    let view: DeploymentView = client.post("/v1/deployments", &body)?;
    let view = wait_until_warm(&client, view, &progress)?;
    progress.end();
    if args.api.json {
        say_json(&view)?;
    } else {
        show(&view, &prepared, progress.elapsed());
    }
    match view.state {
        DeploymentState::Failed => Err(CommandError::Refused(failures(&view))),
        DeploymentState::Ready | DeploymentState::Loading => Ok(()),
    }
}

pub(super) fn take_back(args: &UndeployArgs) -> Result<(), CommandError> {
    let view: DeploymentView =
        Client::new(&args.api)?.delete(&format!("/v1/deployments/{}", encoded(&args.name)))?;
    if args.api.json {
        return say_json(&view);
    }
    say(format!("`{}` version {} is taken back; its hosts free its memory.", view.name, view.version));
    Ok(())
}

fn read_placement(path: &Path) -> Result<Vec<PlacementEntry>, CommandError> {
    let told = |error: &dyn std::fmt::Display| CommandError::Here(format!("`{}`: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    let file: PlacementFile = toml::from_str(&text).map_err(|error| told(&error))?;
    if file.place.is_empty() {
        return Err(told(&"there is no [[place]] in it"));
    }
    Ok(file.place)
}

fn source_card(path: &Path, args: &DeployArgs) -> Result<SourceCard, CommandError> {
    let sample = args.sample_image.as_deref().map(read_file).transpose()?;
    Ok(SourceCard { text: read_card(path, &args.model.path)?, sample })
}

fn divide(args: &DeployArgs, progress: &Progress) -> Result<Prepared, CommandError> {
    let source = Source {
        bytes: read_model(&args.model)?,
        name: args.name.clone(),
        variant: "base".to_owned(),
        level: args.ort_level.into(),
        shapes: args.sample_shape.iter().cloned().collect(),
        card: args.card.as_deref().map(|path| source_card(path, args)).transpose()?,
    };
    let (engine, runtime) = engine_here(progress)?;
    let prepared = runtime.block_on(prepare(&engine, source, &|step| progress.step(step)));
    prepared.map_err(|error| {
        progress.end();
        CommandError::Here(format!("`{}`: {error}", args.model.path.display()))
    })
}

fn upload(client: &Client, prepared: &Prepared, progress: &Progress) -> Result<(), CommandError> {
    let count = prepared.objects.len();
    for (index, (object, content)) in prepared.objects.iter().enumerate() {
        progress.step(&format!("object {} of {count} ({})", index + 1, bytes(object.bytes)));
        let id = object.id.to_string();
        if !client.has_object(&id)? {
            client.put_object(&id, content)?;
        }
    }
    Ok(())
}

fn wait_until_warm(
    client: &Client,
    mut view: DeploymentView,
    progress: &Progress,
) -> Result<DeploymentView, CommandError> {
    while view.state == DeploymentState::Loading
        || view.hosts.iter().any(|host| host.state == DeploymentState::Loading)
    {
        let ready = view.hosts.iter().filter(|host| host.state == DeploymentState::Ready).count();
        let pulled = view.hosts.iter().find_map(|host| host.loading).filter(|pulled| pulled.bytes_total > 0);
        let pulled = pulled.map(|pulled| {
            format!(
                ", {} of {} of this node's part are here",
                bytes(pulled.bytes_done),
                bytes(pulled.bytes_total)
            )
        });
        progress.step(&format!(
            "{ready} of {} hosts are warm{}",
            view.hosts.len(),
            pulled.unwrap_or_default()
        ));
        std::thread::sleep(POLL);
        let all: DeploymentsView = client.get("/v1/deployments")?;
        let found = all.deployments.into_iter().find(|found| found.id == view.id);
        view = found.ok_or_else(|| {
            CommandError::Refused(format!("`{}` was replaced or taken back meanwhile", view.name))
        })?;
    }
    Ok(view)
}

fn failures(view: &DeploymentView) -> String {
    let failed = view.hosts.iter().filter_map(|host| {
        let why = host.message.as_deref()?;
        let [first, end] = host.blocks;
        Some(format!("`{}` does not host blocks {first} to {}: {why}", host.label, end - 1))
    });
    let failed: Vec<String> = failed.collect();
    format!("`{}` is not hosted as wished:\n{}", view.name, failed.join("\n"))
}

fn show(view: &DeploymentView, prepared: &Prepared, took: Duration) {
    let manifest = &prepared.manifest;
    let weights: u64 = manifest.weights.iter().map(|weight| weight.bytes).sum();
    say(format!(
        "`{}` version {}: {} blocks, {} of weights, {} ms whole; deployed in {:.1} s",
        view.name,
        view.version,
        manifest.blocks.len(),
        bytes(weights + manifest.skeleton.bytes),
        ms(prepared.whole_us as f64 / 1000.0),
        took.as_secs_f64()
    ));
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
            vec![host.label.clone(), format!("{first}-{}", end - 1), state.to_owned(), time]
        })
        .collect();
    say(table(&["HOST", "BLOCKS", "STATE", "RUN"], &rows));
}

//! Deployments published here: checked, signed, their hosts asked, and how far they are.

use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::limits::VARIANTS_MAX;
use stormo_protocol::model::{ObjectRef, is_valid_name};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Accuracy, Deployment, Signed, Topic, Variant};
use tokio::sync::oneshot;

use super::hosting::PartitionKey;
use super::loading::{describe, read_manifest};
use super::placing::{Wish, Wishes};
use super::variants::Choice;
use super::{Driver, Event};
use crate::app::calls::CallError;
use crate::deploy::interchangeable;
use crate::ends::Described;
use crate::net::AskError;
use crate::serve::json::{DeployBody, DeploymentState, DeploymentView, HostView, LoadingView, VariantBody};

/// A host may load for so long: a large model over a slow link.
const HOST_TIMEOUT: Duration = Duration::from_secs(3_000);

/// Times that a host is asked while it cannot be reached, and the pause between: 5 s in all.
const HOST_TRIES_MAX: u32 = 20;
const HOST_TRY_PAUSE: Duration = Duration::from_millis(250);

/// A wish and how far it is.
struct Placed {
    wish: Wish,
    state: DeploymentState,
    time_us: u64,
    refused: Option<String>,
}

/// What this node asked of others for one deployment.
pub(super) struct Placement {
    deployment: DeploymentId,
    note: Option<String>,
    placed: Vec<Placed>,
}

/// The end of one wish.
#[derive(Debug)]
pub struct HostAnswer {
    name: String,
    deployment: DeploymentId,
    index: usize,
    result: Result<u64, String>,
}

impl Driver {
    pub(super) fn on_deploy(&mut self, body: DeployBody) -> Result<DeploymentView, CallError> {
        if !is_valid_name(&body.name) {
            return Err(CallError::BadRequest(format!(
                "`{}` is no name for a model: use 1 to 64 letters, digits, dots, dashes or underscores",
                body.name
            )));
        }
        let version = self.next_version(&body.name)?;
        if body.variants.is_empty() || body.variants.len() > VARIANTS_MAX {
            let count = body.variants.len();
            return Err(CallError::BadRequest(format!(
                "a deployment has 1 to {VARIANTS_MAX} variants, not {count}"
            )));
        }
        let described = body.variants.iter().map(|variant| self.uploaded(&body.name, variant));
        let described: Vec<(Variant, Described)> = described.collect::<Result<_, _>>()?;
        refuse_strangers(&described)?;
        let deployment = Deployment {
            name: body.name.clone(),
            version,
            publisher: self.own(),
            variants: described.iter().map(|(variant, _)| variant.clone()).collect(),
            removed: false,
        };
        let choices = deployment
            .variants()
            .zip(described)
            .map(|((id, variant), (_, manifest))| Choice::new(id, Arc::new(manifest), variant.accuracy));
        let choices: Vec<Choice> = choices.collect();
        let Wishes { all: wishes, notes, .. } = self.place(&body, &choices)?;
        self.manifests.extend(choices.into_iter().map(|choice| (choice.id, choice.manifest)));
        let signed = self.publish_deployment(&deployment)?;
        self.keep_needed();
        let placed = wishes
            .iter()
            .map(|wish| Placed { wish: *wish, state: DeploymentState::Loading, time_us: 0, refused: None })
            .collect();
        let note = (!notes.is_empty()).then(|| notes.join("\n"));
        let placement = Placement { deployment: deployment.id(), note, placed };
        self.placements.insert(body.name.clone(), placement);
        for (index, wish) in wishes.into_iter().enumerate() {
            self.ask_to_host(&deployment, &signed, index, wish);
        }
        self.deployment_view(&body.name)
    }

    /// Signs a deployment of this node's and tells the mesh.
    fn publish_deployment(&mut self, deployment: &Deployment) -> Result<Signed, CallError> {
        let signed = self
            .parts
            .identity
            .sign(Topic::Deployment, self.parts.mesh, deployment.to_bytes())
            .ok_or_else(|| CallError::Failed("this node's key cannot sign".into()))?;
        self.on_records(vec![signed.clone()]);
        let (net, gossiped) = (self.parts.net.clone(), signed.clone());
        tokio::spawn(async move { net.publish(&gossiped).await });
        Ok(signed)
    }

    /// Takes a deployment back, everywhere; gives it as it was.
    pub(super) fn on_undeploy(&mut self, name: &str) -> Result<DeploymentView, CallError> {
        let view = self.deployment_view(name)?;
        let known = self.member.deployments().by_name(name).cloned();
        match known.filter(|deployment| deployment.publisher == self.own()) {
            Some(deployment) => {
                self.publish_deployment(&Deployment { removed: true, ..deployment })?;
                self.placements.remove(name);
                Ok(view)
            }
            None => Err(CallError::Conflict(format!(
                "`{name}` was published by `{}` ({}); take it back there",
                self.label_of(view.publisher),
                view.publisher
            ))),
        }
    }

    fn next_version(&self, name: &str) -> Result<u64, CallError> {
        match self.member.deployments().known(name) {
            None => Ok(1),
            Some(known) if known.publisher == self.own() => Ok(known.version + 1),
            Some(known) => Err(CallError::Conflict(format!(
                "`{name}` was published by `{}` ({}); deploy there, or choose another name",
                self.label_of(known.publisher),
                known.publisher
            ))),
        }
    }

    /// A variant of a call, if its manifest and all its objects were uploaded.
    fn uploaded(&self, model: &str, body: &VariantBody) -> Result<(Variant, Described), CallError> {
        let VariantBody { label, manifest: id, accuracy } = body;
        let bad = |what: String| CallError::BadRequest(format!("variant `{label}`: {what}"));
        let bytes =
            self.parts.pool.read(*id).map_err(|_| {
                bad(format!("the manifest {id} was not uploaded; PUT it to /v1/objects first"))
            })?;
        let manifest =
            read_manifest(&bytes).map_err(|error| bad(format!("the manifest is wrong: {error}")))?;
        let objects = std::iter::once(&manifest.skeleton).chain(&manifest.weights).chain(&manifest.card);
        if let Some(missing) = objects.into_iter().find(|object| !self.parts.pool.has(**object)) {
            return Err(bad(format!("object {} was not uploaded; PUT it to /v1/objects first", missing.id)));
        }
        if manifest.model != model || manifest.variant != *label {
            let (model_there, label_there) = (&manifest.model, &manifest.variant);
            return Err(bad(format!("the manifest is of `{model_there}`, variant `{label_there}`")));
        }
        let wrong = || bad("the accuracy is a share between 0 and 1".to_owned());
        let accuracy = accuracy.map(|share| Accuracy::of(share).ok_or_else(wrong)).transpose()?;
        let manifest_object = ObjectRef { id: *id, bytes: bytes.len() as u64 };
        let described = describe(&self.parts.pool, manifest)
            .map_err(|error| bad(format!("the card is wrong: {error}")))?;
        Ok((Variant { label: label.clone(), manifest: manifest_object, accuracy }, described))
    }

    fn ask_to_host(&mut self, deployment: &Deployment, signed: &Signed, index: usize, wish: Wish) {
        let (name, id) = (deployment.name.clone(), deployment.id());
        let answered = move |result| Event::Hosted(HostAnswer { name, deployment: id, index, result });
        let Wish { node, variant, first, end } = wish;
        if node == self.own() {
            let (answer, loaded) = oneshot::channel();
            let variant = VariantId { deployment: id, index: variant };
            self.load(PartitionKey { variant, first, end }, true, Some(answer));
            self.beside(async move {
                answered(match loaded.await {
                    Ok(Response::Hosting { time_us }) => Ok(time_us),
                    Ok(Response::Refused(reason)) => Err(reason.to_string()),
                    Ok(_) | Err(_) => Err(Refusal::Leaving.to_string()),
                })
            });
            return;
        }
        let net = self.parts.net.clone();
        let request = Request::Host { deployment: signed.clone(), variant, first, end };
        self.beside(async move {
            let mut tries = 1;
            let answer = loop {
                match net.ask(node, &request, HOST_TIMEOUT).await {
                    // A node that has just joined is known before it is connected.
                    Err(AskError::Unreachable(_)) if tries < HOST_TRIES_MAX => {
                        tries += 1;
                        tokio::time::sleep(HOST_TRY_PAUSE).await;
                    }
                    answer => break answer,
                }
            };
            answered(match answer {
                Ok(Response::Hosting { time_us }) => Ok(time_us),
                Ok(_) => Err("it answered something else than was asked".into()),
                Err(AskError::Refused(reason)) => Err(reason.to_string()),
                Err(error) => Err(error.to_string()),
            })
        });
    }

    pub(super) fn on_host_answer(&mut self, answer: HostAnswer) {
        let Some(placement) = self.placements.get_mut(&answer.name) else { return };
        if placement.deployment != answer.deployment {
            return;
        }
        if let Some(placed) = placement.placed.get_mut(answer.index) {
            match answer.result {
                Ok(time_us) => (placed.state, placed.time_us) = (DeploymentState::Ready, time_us),
                Err(why) => (placed.state, placed.refused) = (DeploymentState::Failed, Some(why)),
            }
        }
    }

    pub(super) fn deployment_view(&self, name: &str) -> Result<DeploymentView, CallError> {
        let deployment = self
            .member
            .deployments()
            .by_name(name)
            .ok_or_else(|| CallError::NotFound(format!("no model `{name}` is deployed")))?;
        let placement = self.placements.get(name).filter(|placement| placement.deployment == deployment.id());
        let (hosts, note) = match placement {
            Some(placement) => (
                placement.placed.iter().map(|placed| self.placed_view(deployment, placed)).collect(),
                placement.note.clone(),
            ),
            None => (self.hosts_seen(deployment), None),
        };
        Ok(DeploymentView {
            name: name.to_owned(),
            version: deployment.version,
            id: deployment.id(),
            publisher: deployment.publisher,
            state: state_of(&hosts),
            message: note,
            hosts,
        })
    }

    fn placed_view(&self, deployment: &Deployment, placed: &Placed) -> HostView {
        HostView {
            variant: label_of(deployment, placed.wish.variant),
            node: placed.wish.node,
            label: self.label_of(placed.wish.node),
            blocks: [placed.wish.first, placed.wish.end],
            state: placed.state,
            time_ms: (placed.state == DeploymentState::Ready).then_some(placed.time_us as f64 / 1000.0),
            message: placed.refused.clone(),
            loading: self.loading_view(deployment.id(), placed),
        }
    }

    /// How far the objects are that this node itself is loading.
    fn loading_view(&self, deployment: DeploymentId, placed: &Placed) -> Option<LoadingView> {
        let Wish { node, variant: index, first, end } = placed.wish;
        let wanted = PartitionKey { variant: VariantId { deployment, index }, first, end };
        let (_, progress) = self.hosting.loading().find(|(key, _)| node == self.own() && *key == wanted)?;
        Some(LoadingView { bytes_done: progress.bytes_done, bytes_total: progress.bytes_total })
    }

    /// What the mesh says of a deployment that was placed elsewhere.
    fn hosts_seen(&self, deployment: &Deployment) -> Vec<HostView> {
        let (own, id) = (self.record(), deployment.id());
        std::iter::once(&own)
            .chain(self.member.view().iter().map(|known| known.record.as_ref()))
            .flat_map(|record| record.hosted.iter().map(move |hosted| (record, hosted)))
            .filter(|(_, hosted)| hosted.variant.deployment == id)
            .map(|(record, hosted)| HostView {
                variant: label_of(deployment, hosted.variant.index),
                node: record.node,
                label: record.machine.label.clone(),
                blocks: [hosted.first, hosted.end],
                state: DeploymentState::Ready,
                time_ms: Some(hosted.time_us as f64 / 1000.0),
                message: None,
                loading: None,
            })
            .collect()
    }
}

fn label_of(deployment: &Deployment, index: u8) -> String {
    deployment.variants.get(usize::from(index)).map(|variant| variant.label.clone()).unwrap_or_default()
}

/// Variants stand for one another, so all must take and give the same.
fn refuse_strangers(all: &[(Variant, Described)]) -> Result<(), CallError> {
    let Some(((_, first), others)) = all.split_first() else { return Ok(()) };
    for (index, (variant, other)) in others.iter().enumerate() {
        if all[..=index].iter().any(|(earlier, _)| earlier.label == variant.label) {
            let text = format!("two variants are labelled `{}`; give each its own label", variant.label);
            return Err(CallError::BadRequest(text));
        }
        interchangeable(first, other).map_err(|error| CallError::BadRequest(error.to_string()))?;
    }
    Ok(())
}

/// Failed if any host failed, ready when all are.
fn state_of(hosts: &[HostView]) -> DeploymentState {
    if hosts.iter().any(|host| host.state == DeploymentState::Failed) {
        DeploymentState::Failed
    } else if hosts.is_empty() || hosts.iter().any(|host| host.state == DeploymentState::Loading) {
        DeploymentState::Loading
    } else {
        DeploymentState::Ready
    }
}

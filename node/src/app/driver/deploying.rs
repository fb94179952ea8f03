//! Deployments published here: checked, signed, placed for the first time; and how far any deployment is.

use std::collections::BTreeSet;
use std::sync::Arc;

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::limits::{DEPLOYMENTS_MAX, VARIANTS_MAX};
use stormo_protocol::model::{ObjectRef, is_valid_name};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{
    Accuracy, Deployment, Division, GoalProgress, NodeRecord, Place, Signed, Topic, Variant, Wished,
};

use super::Driver;
use super::hosting::PartitionKey;
use super::loading::{describe, read_manifest};
use super::variants::Choice;
use crate::app::calls::CallError;
use crate::app::names::{self, Deed, Publisher};
use crate::deploy::interchangeable;
use crate::ends::Described;
use crate::mesh::{Next, Steward, Tier};
use crate::monitor;
use crate::serve::json::{
    DeployBody, DeploymentState, DeploymentView, HostView, LoadingView, StewardView, VariantBody,
};

impl Driver {
    pub(super) fn on_deploy(&mut self, body: DeployBody) -> Result<DeploymentView, CallError> {
        if !is_valid_name(&body.name) {
            return Err(CallError::BadRequest(format!(
                "`{}` is no name for a model: use 1 to 64 letters, digits, dots, dashes or underscores",
                body.name
            )));
        }
        let Next { version, begun_unix_s } = self.next_of(&body)?;
        if body.variants.is_empty() || body.variants.len() > VARIANTS_MAX {
            let count = body.variants.len();
            return Err(CallError::BadRequest(format!(
                "a deployment has 1 to {VARIANTS_MAX} variants, not {count}"
            )));
        }
        let described = body.variants.iter().map(|variant| self.uploaded(&body.name, variant));
        let described: Vec<(Variant, Described)> = described.collect::<Result<_, _>>()?;
        refuse_strangers(&described)?;
        let mut deployment = Deployment {
            name: body.name.clone(),
            version,
            publisher: self.own(),
            variants: described.iter().map(|(variant, _)| variant.clone()).collect(),
            removed: false,
            removed_unix_s: 0,
            begun_unix_s,
            wished: Wished { replicas: 1, division: Division::Whole },
        };
        let choices = deployment
            .variants()
            .zip(described)
            .map(|((id, variant), (_, manifest))| Choice::new(id, Arc::new(manifest), variant.accuracy));
        let choices: Vec<Choice> = choices.collect();
        deployment.wished = self.wished(&body, &choices)?;
        let places = self
            .place(&deployment.wished, &choices)
            .map_err(|error| self.beside_before(&body.name, error))?;
        self.manifests.extend(choices.into_iter().map(|choice| (choice.id, choice.manifest)));
        self.say(Topic::Deployment, deployment.to_bytes())?;
        // The first order is the publisher's: hosts begin at once, whoever is steward.
        self.give(self.stewardship.next_order(self.member.deployments(), deployment.id(), places))?;
        self.look_after_deployments();
        self.deployment_view(&body.name)
    }

    /// What does not fit beside the version before may fit without it.
    fn beside_before(&self, name: &str, error: CallError) -> CallError {
        match (error, self.member.deployments().by_name(name)) {
            (CallError::Conflict(text), Some(before)) => CallError::Conflict(format!(
                "{text}\nVersion {} keeps its memory until the new one is ready; `stormo undeploy {name}` frees it, \
                 with a gap.",
                before.version
            )),
            (error, _) => error,
        }
    }

    /// Signs something of this node's and tells the mesh.
    pub(super) fn say(&mut self, topic: Topic, body: Vec<u8>) -> Result<Signed, CallError> {
        let signed = self
            .parts
            .identity
            .sign(topic, self.parts.mesh, body)
            .ok_or_else(|| CallError::Failed("this node's key cannot sign".into()))?;
        let (net, gossiped) = (self.parts.net.clone(), signed.clone());
        tokio::spawn(async move { net.publish(&gossiped).await });
        self.on_records(vec![signed.clone()]);
        Ok(signed)
    }

    /// Takes a deployment back, everywhere; gives it as it was.
    pub(super) fn on_undeploy(&mut self, name: &str, take_over: bool) -> Result<DeploymentView, CallError> {
        let view = self.deployment_view(name)?;
        let Some(known) = self.member.deployments().by_name(name) else { return Ok(view) };
        self.ensure_ours(known, Deed::Undeploy, take_over)?;
        let now_s = monitor::unix_s();
        let removed_unix_s = self.member.deployments().next_removal_s(now_s);
        let removed = Deployment { removed: true, removed_unix_s, ..known.clone() };
        let removed = if known.publisher == self.own() {
            removed
        } else {
            let Next { version, begun_unix_s } = self.member.deployments().next(name, self.own(), now_s);
            Deployment { publisher: self.own(), version, begun_unix_s, ..removed }
        };
        self.say(Topic::Deployment, removed.to_bytes())?;
        Ok(DeploymentView { message: Some("taken back: this is how it was".to_owned()), ..view })
    }

    /// Refuses what only the publisher of a live name may do, if that is another node, unless it is to be taken over.
    fn ensure_ours(&self, known: &Deployment, deed: Deed, take_over: bool) -> Result<(), CallError> {
        let node = known.publisher;
        if node == self.own() || known.removed {
            return Ok(());
        }
        let publisher = Publisher { node, label: &self.label_of(node), is_there: self.is_there(node) };
        match names::why_not(&known.name, publisher, deed, take_over) {
            Some(refused) => Err(CallError::Conflict(refused)),
            None => Ok(()),
        }
    }

    fn has_room_for(&self, name: &str) -> bool {
        self.member.deployments().by_name(name).is_some() || self.member.deployments().has_room()
    }

    /// How a name is deployed next, if this node may deploy it.
    fn next_of(&self, body: &DeployBody) -> Result<Next, CallError> {
        let DeployBody { name, take_over, .. } = body;
        if !self.has_room_for(name) {
            return Err(CallError::Conflict(format!(
                "the mesh runs {DEPLOYMENTS_MAX} models, as many as it can; take one back first (`stormo undeploy`)"
            )));
        }
        if let Some(known) = self.member.deployments().known(name) {
            self.ensure_ours(known, Deed::Deploy, *take_over)?;
        }
        Ok(self.member.deployments().next(name, self.own(), monitor::unix_s()))
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

    pub(super) fn deployment_view(&self, name: &str) -> Result<DeploymentView, CallError> {
        let deployment = self.member.deployments().by_name(name).ok_or_else(|| self.none_of(name))?;
        let order = self.order_of(deployment.id());
        let own = self.record();
        let hosts: Vec<HostView> = order.map_or_else(Vec::new, |order| {
            order.places.iter().map(|place| self.host_view(&own, deployment, place)).collect()
        });
        let serving = self.member.deployments().serving(name).map(|serving| serving.version);
        let steward = self.stewardship.steward(name).map(|steward| StewardView {
            node: steward.node,
            label: self.label_of(steward.node),
            why: why(steward),
        });
        Ok(DeploymentView {
            name: name.to_owned(),
            version: deployment.version,
            id: deployment.id(),
            publisher: deployment.publisher,
            state: state_of(&hosts),
            message: self.shortfalls(deployment, &hosts, serving),
            health: None,
            hosts,
            replicas: deployment.wished.replicas,
            serving: serving.unwrap_or(deployment.version),
            steward,
            sequence: order.map(|order| order.sequence),
        })
    }

    fn host_view(&self, own: &NodeRecord, deployment: &Deployment, place: &Place) -> HostView {
        let Place { node, variant, first, end } = *place;
        let key =
            PartitionKey { variant: VariantId { deployment: deployment.id(), index: variant }, first, end };
        let known = self.member.view().get(node);
        let usable = node == own.node || self.is_usable(node);
        let record = if node == own.node { Some(own) } else { known.map(|known| known.record.as_ref()) };
        let (state, time_us, message) = match record {
            Some(record) if usable => told_of(record, key),
            _ => (DeploymentState::Failed, None, Some("it is not there now".to_owned())),
        };
        HostView {
            variant: label_of(deployment, variant),
            node,
            label: self.label_of(node),
            blocks: [first, end],
            state,
            time_ms: time_us.map(|time_us| time_us as f64 / 1000.0),
            message,
            loading: self.loading_view(node, key),
        }
    }

    /// How far the objects are that this node itself is loading.
    fn loading_view(&self, node: NodeId, wanted: PartitionKey) -> Option<LoadingView> {
        let (_, progress) = self.hosting.loading().find(|(key, _)| node == self.own() && *key == wanted)?;
        Some(LoadingView { bytes_done: progress.bytes_done, bytes_total: progress.bytes_total })
    }

    /// What a node says of itself, if it is in the mesh and plans may use it.
    pub(super) fn record_there(&self, node: NodeId) -> Option<NodeRecord> {
        if node == self.own() {
            return Some(self.record());
        }
        let known = self.member.view().get(node).filter(|_| self.is_usable(node))?;
        Some((*known.record).clone())
    }

    /// Whether a node is in the mesh, though plans may leave it out for a while.
    fn is_there(&self, node: NodeId) -> bool {
        let age_ms = |heard_ms| self.now_ms().saturating_sub(heard_ms);
        let known = self.member.view().get(node);
        known.is_some_and(|known| names::is_there(self.state_of_other(known), age_ms(known.heard_ms)))
    }

    /// Which parts are not where they were placed by name: their hosts are gone, or refused them.
    fn elsewhere(&self, deployment: &Deployment, hosts: &[HostView]) -> Vec<String> {
        let Division::Told(told) = &deployment.wished.division else { return vec![] };
        if hosts.is_empty() {
            return vec![];
        }
        let unmet =
            unmet(told, hosts, deployment).map(|place| {
                let (variant, node) = (label_of(deployment, place.variant), self.label_of(place.node));
                let key = PartitionKey {
                    variant: VariantId { deployment: deployment.id(), index: place.variant },
                    first: place.first,
                    end: place.end,
                };
                let why = match self.record_there(place.node) {
                None => "is not there now".to_owned(),
                Some(record) => match told_of(&record, key) {
                    (DeploymentState::Failed, _, Some(reason)) => format!("refused them: {reason}"),
                    _ if !record.offer.takes_work() => format!("refused them: {}", Refusal::Closed),
                    _ => "is there, and gets them back a minute after it came or others took them, if it has \
                          memory for them"
                        .to_owned(),
                },
            };
                let blocks = blocks_in_words([place.first, place.end]);
                let covers = |host: &&HostView| {
                    let is_of_it = host.variant == variant && host.state == DeploymentState::Ready;
                    is_of_it && host.blocks[0] <= place.first && place.end <= host.blocks[1]
                };
                let who = hosts.iter().find(covers);
                let stands_in = who.map_or(String::new(), |host| format!("; `{}` stands in", host.label));
                format!("{blocks} of `{variant}` were placed on `{node}`, which {why}{stands_in}")
            });
        unmet.collect()
    }

    /// What nobody else may be able to load: parts on one node each, while the publisher, which keeps all of the model, is
    /// not there. Disks may still hold objects that nothing there needs, until the room is needed.
    fn last_copies(&self, deployment: &Deployment, hosts: &[HostView]) -> Option<String> {
        let publisher = deployment.publisher;
        if publisher == self.own() || self.is_there(publisher) {
            return None;
        }
        let ready = || hosts.iter().filter(|host| host.state == DeploymentState::Ready);
        let part = |host: &HostView| (host.variant.clone(), host.blocks);
        let is_last = |host: &&HostView| ready().filter(|other| part(other) == part(host)).count() == 1;
        let last: BTreeSet<&str> = ready().filter(is_last).map(|host| host.label.as_str()).collect();
        if last.is_empty() {
            return None;
        }
        let last = last.into_iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        Some(format!(
            "its publisher `{}` is not there, and of what {last} host{} there may be no other copy: deploy it again, with \
             --take-over and --replicas 2, or start the publisher",
            self.label_of(publisher),
            if last.contains(',') { "" } else { "s" },
        ))
    }

    /// What is less than wished, or other.
    fn shortfalls(
        &self,
        deployment: &Deployment,
        hosts: &[HostView],
        serving: Option<u64>,
    ) -> Option<String> {
        let mut told = Vec::new();
        for (id, variant) in deployment.variants() {
            let of_it = hosts.iter().filter(|host| host.variant == variant.label);
            let ranges: BTreeSet<[u16; 2]> = of_it.clone().map(|host| host.blocks).collect();
            let whole = self.manifests.get(&id).map(|described| described.manifest.graph_blocks());
            let is_whole = whole.is_some_and(|whole| ranges.contains(&[whole.start, whole.end]));
            let hosts = |range: &[u16; 2]| {
                of_it
                    .clone()
                    .filter(|host| host.blocks == *range && host.state != DeploymentState::Failed)
                    .count()
            };
            let fewest = ranges.iter().map(hosts).min().unwrap_or(0);
            let replicas = usize::from(deployment.wished.replicas);
            let is_told = matches!(deployment.wished.division, Division::Told(_));
            if deployment.wished.division == Division::Whole && !is_whole && ranges.len() > 1 {
                told.push(format!(
                    "the whole of variant `{}` fits on no node, so it is divided over {}",
                    variant.label,
                    ranges.len()
                ));
            }
            if fewest > 0 && fewest < replicas && !is_told {
                let what = if is_whole { "the whole of" } else { "a part of" };
                told.push(format!(
                    "{replicas} replicas were wished; {what} variant `{}` fits on {fewest} node{}{}",
                    variant.label,
                    if fewest == 1 { "" } else { "s" },
                    failures(of_it.clone()),
                ));
            }
            let missing = ranges.iter().filter(|range| hosts(range) == 0);
            told.extend(missing.map(|range| {
                let of_them = of_it.clone().filter(|host| host.blocks == *range);
                format!("no node has {} of `{}`{}", blocks_in_words(*range), variant.label, failures(of_them))
            }));
        }
        told.extend(self.elsewhere(deployment, hosts));
        told.extend(self.last_copies(deployment, hosts));
        if let Some(version) = serving.filter(|version| *version != deployment.version) {
            told.push(format!("version {version} serves until version {} is ready", deployment.version));
        }
        (!told.is_empty()).then(|| told.join("\n"))
    }
}

/// Blocks as sentences have them: the last one included.
fn blocks_in_words([first, end]: [u16; 2]) -> String {
    match end.saturating_sub(1) {
        last if last > first => format!("blocks {first} to {last}"),
        _ => format!("block {first}"),
    }
}

/// Which hosts failed, and why, as the end of a sentence.
fn failures<'a>(hosts: impl Iterator<Item = &'a HostView>) -> String {
    let failed = hosts.filter(|host| host.state == DeploymentState::Failed);
    let told =
        failed.map(|host| format!("; `{}`: {}", host.label, host.message.as_deref().unwrap_or("it failed")));
    told.collect()
}

/// Places that were told by name and are not hosted there, or not yet by any.
fn unmet<'a>(
    told: &'a [Place],
    hosts: &'a [HostView],
    deployment: &'a Deployment,
) -> impl Iterator<Item = &'a Place> {
    told.iter().filter(move |place| {
        let label = label_of(deployment, place.variant);
        let blocks = [place.first, place.end];
        !hosts.iter().any(|host| host.node == place.node && host.variant == label && host.blocks == blocks)
    })
}

/// What a host says of a part that it was ordered to host.
fn told_of(record: &NodeRecord, key: PartitionKey) -> (DeploymentState, Option<u64>, Option<String>) {
    let is_it = |variant, first, end| PartitionKey { variant, first, end } == key;
    let hosted = record.hosted.iter().find(|hosted| is_it(hosted.variant, hosted.first, hosted.end));
    if let Some(hosted) = hosted {
        return (DeploymentState::Ready, Some(hosted.time_us), None);
    }
    let goal = record.goals.iter().find(|goal| is_it(goal.variant, goal.first, goal.end));
    match goal.and_then(|goal| goal.progress.refusal()) {
        Some(reason) => (DeploymentState::Failed, None, Some(reason.to_string())),
        None => (DeploymentState::Loading, None, loading_text(goal.map(|goal| goal.progress))),
    }
}

fn loading_text(progress: Option<GoalProgress>) -> Option<String> {
    match progress {
        Some(GoalProgress::Loading { done_permille }) if done_permille > 0 => {
            Some(format!("{} % of its part are there", done_permille / 10))
        }
        _ => None,
    }
}

/// Why a node is a steward.
fn why(steward: Steward) -> String {
    let Steward { tier, of, .. } = steward;
    let what = match tier {
        Tier::Settled => "of class edge or cloud and running for half a minute",
        Tier::Device => "running for half a minute, as all of those are devices",
        Tier::Begun => "of class edge or cloud, as none has run for half a minute",
        Tier::BegunDevice => "running for some seconds, as all of those are devices",
        Tier::New => {
            return "all that are there have just begun; who is steward is settled in some seconds"
                .to_owned();
        }
    };
    if of == 1 {
        return format!("it is the only node that is {what}");
    }
    format!("of the {of} nodes that are {what}, its hash with the name is the highest")
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

//! Deployments published here: who should host what, and how far they are.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::limits::BLOCKS_MAX;
use stormo_protocol::model::{Manifest, ObjectRef, is_valid_name};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Class, Deployment, Signed, Topic};
use tokio::sync::oneshot;

use super::hosting::PartitionKey;
use super::loading::{describe, read_manifest};
use super::{Driver, Event};
use crate::app::calls::CallError;
use crate::app::planning::Posed;
use crate::net::AskError;
use crate::plan::{self, EXPANSIONS_DEFAULT, PlanShape, StageShape};
use crate::serve::json::{
    DeployBody, DeploymentState, DeploymentView, HostView, LoadingView, PlacementEntry,
};

/// A host may load for so long: a large model over a slow link.
const HOST_TIMEOUT: Duration = Duration::from_secs(3_000);

/// Times that a host is asked while it cannot be reached, and the pause between: 5 s in all.
const HOST_TRIES_MAX: u32 = 20;
const HOST_TRY_PAUSE: Duration = Duration::from_millis(250);

/// One wish: these blocks on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    node: NodeId,
    first: u16,
    end: u16,
}

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
        let (manifest, object) = self.uploaded_manifest(&body)?;
        let manifest = describe(&self.parts.pool, manifest)
            .map_err(|error| CallError::BadRequest(format!("the card is wrong: {error}")))?;
        let deployment = Deployment {
            name: body.name.clone(),
            version,
            publisher: self.own(),
            manifest: object,
            removed: false,
        };
        let (wishes, note) = self.place(&body, &manifest, deployment.id())?;
        self.manifests.insert(deployment.id(), std::sync::Arc::new(manifest));
        let signed = self.publish_deployment(&deployment)?;
        self.keep_needed();
        let placed = wishes
            .iter()
            .map(|wish| Placed { wish: *wish, state: DeploymentState::Loading, time_us: 0, refused: None })
            .collect();
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
        let known = self.deployments.by_name(name).cloned();
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
        match self.deployments.known(name) {
            None => Ok(1),
            Some(known) if known.publisher == self.own() => Ok(known.version + 1),
            Some(known) => Err(CallError::Conflict(format!(
                "`{name}` was published by `{}` ({}); deploy there, or choose another name",
                self.label_of(known.publisher),
                known.publisher
            ))),
        }
    }

    /// The manifest of a call, if it and all its objects were uploaded.
    fn uploaded_manifest(&self, body: &DeployBody) -> Result<(Manifest, ObjectRef), CallError> {
        let bad = |what: String| CallError::BadRequest(what);
        let bytes = self.parts.pool.read(body.manifest).map_err(|_| {
            bad(format!("the manifest {} was not uploaded; PUT it to /v1/objects first", body.manifest))
        })?;
        let manifest =
            read_manifest(&bytes).map_err(|error| bad(format!("the manifest is wrong: {error}")))?;
        let objects = std::iter::once(&manifest.skeleton).chain(&manifest.weights).chain(&manifest.card);
        match objects.into_iter().find(|object| !self.parts.pool.has(**object)) {
            Some(missing) => {
                Err(bad(format!("object {} was not uploaded; PUT it to /v1/objects first", missing.id)))
            }
            None if manifest.model != body.name => {
                Err(bad(format!("the manifest is of `{}`, not of `{}`", manifest.model, body.name)))
            }
            None => {
                let object = ObjectRef { id: body.manifest, bytes: bytes.len() as u64 };
                Ok((manifest, object))
            }
        }
    }

    fn place(
        &self,
        body: &DeployBody,
        manifest: &Manifest,
        deployment: DeploymentId,
    ) -> Result<(Vec<Wish>, Option<String>), CallError> {
        let posed = self.pose(deployment, manifest, manifest.graph_blocks(), &[], (false, false));
        if !body.placement.is_empty() {
            return self.place_as_told(&body.placement, manifest).map(|wishes| (wishes, None));
        }
        match body.parts {
            Some(parts) => self.place_parts(manifest, parts, body.replicas).map(|wishes| (wishes, None)),
            None => self.place_whole(&posed, manifest, body.replicas),
        }
    }

    fn place_as_told(&self, entries: &[PlacementEntry], manifest: &Manifest) -> Result<Vec<Wish>, CallError> {
        let wish = |entry: &PlacementEntry| {
            let [first, end] = entry.blocks;
            let graph = manifest.graph_blocks();
            if first >= end || first < graph.start || end > graph.end {
                return Err(CallError::BadRequest(format!(
                    "placement on `{}`: blocks {first} to {end} are not within the model's {} to {}",
                    entry.node, graph.start, graph.end
                )));
            }
            let node = self.node_named(&entry.node)?;
            Ok(Wish { node, first, end })
        };
        let wishes: BTreeSet<Wish> = entries.iter().map(wish).collect::<Result<_, _>>()?;
        let nowhere = (0..manifest.block_count())
            .find(|block| !wishes.iter().any(|wish| (wish.first..wish.end).contains(block)));
        if let Some(block) = nowhere {
            return Err(CallError::BadRequest(format!(
                "the placement hosts block {block} nowhere; `blocks = [A, B]` means A up to, not including, B"
            )));
        }
        self.refuse_what_does_not_fit(&wishes, manifest)?;
        Ok(wishes.into_iter().collect())
    }

    fn refuse_what_does_not_fit(
        &self,
        wishes: &BTreeSet<Wish>,
        manifest: &Manifest,
    ) -> Result<(), CallError> {
        for (node, free_bytes) in self.nodes_by_class() {
            let ranges = wishes.iter().filter(|wish| wish.node == node);
            let need_bytes = ranges
                .map(|wish| manifest.range_memory_bytes(wish.first..wish.end))
                .fold(0, u64::saturating_add);
            if need_bytes > free_bytes {
                return Err(CallError::Conflict(format!(
                    "the placement asks `{}` for {need_bytes} bytes\n{}",
                    self.label_of(node),
                    self.memory_table()
                )));
            }
        }
        Ok(())
    }

    fn node_named(&self, name: &str) -> Result<NodeId, CallError> {
        let all = std::iter::once(self.own()).chain(self.view.iter().map(|known| known.record.node));
        let named: Vec<NodeId> =
            all.filter(|node| node.to_string() == name || self.label_of(*node) == name).collect();
        match named[..] {
            [node] => Ok(node),
            [] => Err(CallError::BadRequest(format!("no node is called `{name}`; see `stormo status`"))),
            _ => Err(CallError::BadRequest(format!("several nodes are called `{name}`; give the peer id"))),
        }
    }

    /// The whole model on the nodes that answer soonest; where it fits on none, the best division.
    fn place_whole(
        &self,
        posed: &Posed,
        manifest: &Manifest,
        replicas: u16,
    ) -> Result<(Vec<Wish>, Option<String>), CallError> {
        let Range { start, end } = manifest.graph_blocks();
        let mut whole: Vec<(f64, NodeId)> = (0..posed.nodes.len())
            .filter_map(|node| {
                let shape = PlanShape { stages: vec![StageShape { node, first: 0, end: end - start }] };
                let priced = posed.problem.price(&shape).ok()?;
                Some((priced.latency_ms - priced.cold_ms, posed.nodes[node]))
            })
            .collect();
        whole.sort_by(|one, other| one.0.total_cmp(&other.0));
        whole.truncate(usize::from(replicas.max(1)));
        if !whole.is_empty() {
            let short = whole.len() < usize::from(replicas);
            let note = short.then(|| {
                format!("{replicas} replicas were wished; the whole model fits on {} nodes", whole.len())
            });
            return Ok((whole.into_iter().map(|(_, node)| Wish { node, first: start, end }).collect(), note));
        }
        let best = plan::best(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| {
            CallError::Conflict(format!(
                "no node is able to host `{}`: {none}\n{}",
                manifest.model,
                self.memory_table()
            ))
        })?;
        let plan = posed.plan(&best.priced.shape);
        let wishes: Vec<Wish> = plan
            .stages
            .iter()
            .map(|stage| Wish { node: stage.node, first: stage.first, end: stage.end })
            .collect();
        let note = format!("the whole model fits on no node, so it is divided over {}", wishes.len());
        Ok((wishes, Some(note)))
    }

    /// Parts of about equal time, on different nodes, devices first as data usually flows.
    fn place_parts(&self, manifest: &Manifest, parts: u16, replicas: u16) -> Result<Vec<Wish>, CallError> {
        let ranges = equal_parts(manifest, parts)?;
        let mut nodes = self.nodes_by_class();
        let wanted = ranges.len() * usize::from(replicas.max(1));
        let mut wishes = Vec::with_capacity(wanted);
        for _ in 0..replicas.max(1) {
            for &(first, end) in &ranges {
                let need_bytes = manifest.range_memory_bytes(first..end);
                let position = nodes.iter().position(|(_, free_bytes)| *free_bytes >= need_bytes);
                let Some(position) = position else {
                    let copies = replicas.max(1);
                    return Err(CallError::Conflict(format!(
                        "no free node for blocks {first} to {} ({need_bytes} bytes): {} parts in {copies} \
                         cop{} (--replicas {copies}) take {wanted} different nodes with memory for them\n{}",
                        end - 1,
                        ranges.len(),
                        if copies == 1 { "y" } else { "ies" },
                        self.memory_table()
                    )));
                };
                let (node, _) = nodes.remove(position);
                wishes.push(Wish { node, first, end });
            }
        }
        Ok(wishes)
    }

    /// Usable nodes with their free memory: this one first, then devices, edges, clouds.
    fn nodes_by_class(&self) -> Vec<(NodeId, u64)> {
        let now_ms = self.now_ms();
        let rank = |class: Class| match class {
            Class::Device => 1,
            Class::Edge => 2,
            Class::Cloud => 3,
        };
        let own = self.record();
        let others = self.view.iter().filter(|known| self.view.is_usable(now_ms, known.record.node));
        let mut nodes: Vec<(i32, NodeId, u64)> = std::iter::once((0, &own))
            .chain(others.map(|known| (rank(known.record.machine.class), &known.record)))
            .map(|(rank, record)| {
                let free = record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes);
                (rank, record.node, free)
            })
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node, free_bytes)| (node, free_bytes)).collect()
    }

    fn memory_table(&self) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let line = |(node, free_bytes): (NodeId, u64)| {
            format!("  `{}` has {:.2} MiB free", self.label_of(node), mebibytes(free_bytes))
        };
        let lines: Vec<String> = self.nodes_by_class().into_iter().map(line).collect();
        format!("{}\nGive a node more (--memory-budget), add nodes, or ask for less.", lines.join("\n"))
    }

    fn ask_to_host(&mut self, deployment: &Deployment, signed: &Signed, index: usize, wish: Wish) {
        let (name, id) = (deployment.name.clone(), deployment.id());
        let answered = move |result| Event::Hosted(HostAnswer { name, deployment: id, index, result });
        let Wish { node, first, end } = wish;
        if node == self.own() {
            let (answer, loaded) = oneshot::channel();
            self.load(PartitionKey { deployment: id, first, end }, true, Some(answer));
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
        let request = Request::Host { deployment: signed.clone(), first, end };
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
            .deployments
            .by_name(name)
            .ok_or_else(|| CallError::NotFound(format!("no model `{name}` is deployed")))?;
        let placement = self.placements.get(name).filter(|placement| placement.deployment == deployment.id());
        let (hosts, note) = match placement {
            Some(placement) => (
                placement.placed.iter().map(|placed| self.placed_view(deployment.id(), placed)).collect(),
                placement.note.clone(),
            ),
            None => (self.hosts_seen(deployment.id()), None),
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

    fn placed_view(&self, deployment: DeploymentId, placed: &Placed) -> HostView {
        HostView {
            node: placed.wish.node,
            label: self.label_of(placed.wish.node),
            blocks: [placed.wish.first, placed.wish.end],
            state: placed.state,
            time_ms: (placed.state == DeploymentState::Ready).then_some(placed.time_us as f64 / 1000.0),
            message: placed.refused.clone(),
            loading: self.loading_view(deployment, placed),
        }
    }

    /// How far the objects are that this node itself is loading.
    fn loading_view(&self, deployment: DeploymentId, placed: &Placed) -> Option<LoadingView> {
        let Wish { node, first, end } = placed.wish;
        let wanted = PartitionKey { deployment, first, end };
        let (_, progress) = self.hosting.loading().find(|(key, _)| node == self.own() && *key == wanted)?;
        Some(LoadingView { bytes_done: progress.bytes_done, bytes_total: progress.bytes_total })
    }

    /// What the mesh says of a deployment that was placed elsewhere.
    fn hosts_seen(&self, deployment: DeploymentId) -> Vec<HostView> {
        let own = self.record();
        std::iter::once(&own)
            .chain(self.view.iter().map(|known| &known.record))
            .flat_map(|record| record.hosted.iter().map(move |hosted| (record, hosted)))
            .filter(|(_, hosted)| hosted.deployment == deployment)
            .map(|(record, hosted)| HostView {
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

/// Contiguous ranges of the graph's blocks, about equal in time and cut where little crosses.
fn equal_parts(manifest: &Manifest, parts: u16) -> Result<Vec<(u16, u16)>, CallError> {
    let graph = manifest.graph_blocks();
    let blocks = &manifest.blocks[usize::from(graph.start)..usize::from(graph.end)];
    let times_us: Vec<u64> = blocks.iter().map(|block| block.time_us.max(1)).collect();
    let cut_bytes: Vec<u64> = (graph.start..=graph.end).map(|cut| manifest.cut_bytes(cut)).collect();
    let ranges = plan::parts(&times_us, &cut_bytes, usize::from(parts)).ok_or_else(|| {
        let blocks = blocks.len();
        CallError::BadRequest(format!(
            "the model has {blocks} blocks, so it can be divided into 1 to {blocks} parts, not {parts} \
             (at most {BLOCKS_MAX} for any model)"
        ))
    })?;
    let of_model = |block: usize| graph.start + block as u16;
    Ok(ranges.into_iter().map(|range| (of_model(range.start), of_model(range.end))).collect())
}

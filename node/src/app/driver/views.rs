//! What this node knows, as the mesh API shows it.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::coordinate::Coordinate;
use stormo_protocol::ids::{NodeId, ObjectId, RequestId};
use stormo_protocol::model::{Block, BlockKind, Branch, CodecFigures, Manifest, Region};
use stormo_protocol::profile::{Speeds, WorkClass};
use stormo_protocol::state::{Deployment, Hosted, NodeRecord, Offer};

use super::Driver;
use super::variants::Choice;
use crate::app::calls::CallError;
use crate::mesh::{Belief, Known};
use crate::serve::json::{
    BlockView, BranchView, CodecView, CoordinateView, CutView, DeploymentView, DeploymentsView, Health,
    HostedView, HostingView, LinkView, LoadingView, ModelView, ModelsView, NodeState, NodeView, NodesView,
    OfferView, RegionView, RequestView, TensorView, TrafficView, VariantView,
};

fn micros_to_ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl Driver {
    pub(super) fn own_view(&self) -> NodeView {
        let traffic = self.parts.net.traffic().by_peer().into_iter().map(|(peer, traffic)| TrafficView {
            peer,
            sent_bytes: traffic.sent_bytes,
            received_bytes: traffic.received_bytes,
        });
        NodeView {
            traffic: traffic.collect(),
            loading: self.loading_views(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            onnxruntime: self.parts.engine.version().map(|version| version.to_string()),
            mesh: Some(self.parts.mesh.to_string()),
            ..self.node_view(&self.record(), self.own_state_now(), 0)
        }
    }

    pub(super) fn nodes_view(&self) -> NodesView {
        let now_ms = self.now_ms();
        let others = self.member.view().iter().map(|known| self.other_view(now_ms, known));
        let own = self.node_view(&self.record(), self.own_state_now(), 0);
        NodesView { nodes: std::iter::once(own).chain(others).collect() }
    }

    /// Another node as it is known.
    pub(super) fn known_view(&self, node: NodeId) -> Result<NodeView, CallError> {
        let gone = || CallError::NotFound(format!("node {node} was forgotten"));
        Ok(self.other_view(self.now_ms(), self.member.view().get(node).ok_or_else(gone)?))
    }

    fn other_view(&self, now_ms: u64, known: &Known) -> NodeView {
        let state = self.state_of_other(known);
        self.node_view(&known.record, state, now_ms.saturating_sub(known.heard_ms))
    }

    pub(super) fn state_of_other(&self, known: &Known) -> NodeState {
        if self.is_usable(known.record.node) {
            NodeState::Usable
        } else if known.record.load.leaving {
            NodeState::Leaving
        } else if known.belief() == Belief::Lost {
            NodeState::Lost
        } else {
            NodeState::Suspected
        }
    }

    pub(super) fn own_state_now(&self) -> NodeState {
        if self.leaving { NodeState::Leaving } else { NodeState::Usable }
    }

    fn node_view(&self, record: &NodeRecord, state: NodeState, age_ms: u64) -> NodeView {
        let machine = &record.machine;
        NodeView {
            id: record.node,
            label: machine.label.clone(),
            class: machine.class,
            is_self: record.node == self.own(),
            state,
            usable: state == NodeState::Usable && !self.suspects.is_out(record.node),
            leaving: record.load.leaving,
            age_ms,
            offer: offer_view(record.offer),
            domains: record.domains.iter().map(ToString::to_string).collect(),
            asked_per_minute: self.demands_view(record),
            generation: record.stamp.generation,
            sequence: record.stamp.sequence,
            addresses: machine.addresses.iter().map(|address| with_peer(address, record.node)).collect(),
            cores: machine.cores,
            mflops: machine.speeds.of(WorkClass::Convolution),
            speeds: speeds_view(&machine.speeds),
            cold_ms: micros_to_ms(record.load.cold_us),
            cold_ms_per_mb: micros_to_ms(record.load.cold_us_per_mb),
            memory_budget_bytes: machine.memory_budget_bytes,
            memory_used_bytes: record.load.memory_used_bytes,
            utilisation: f64::from(record.load.utilisation_permille) / 1000.0,
            hosted: record.hosted.iter().map(|hosted| self.hosted_view(hosted)).collect(),
            coordinate: record.coordinate.map(coordinate_view),
            round_trip_ms: self.round_trip_ms(record.node),
            links: record
                .links
                .iter()
                .map(|link| LinkView {
                    peer: link.peer,
                    round_trip_ms: micros_to_ms(u64::from(link.round_trip_us)),
                    bytes_per_second: (link.bytes_per_second > 0).then_some(link.bytes_per_second),
                })
                .collect(),
            loading: Vec::new(),
            traffic: Vec::new(),
            version: None,
            onnxruntime: None,
            mesh: None,
        }
    }

    fn demands_view(&self, record: &NodeRecord) -> BTreeMap<String, u32> {
        let named = record.demands.iter().filter_map(|demand| {
            let known = self.member.deployments().by_id(demand.deployment)?;
            Some((known.name.clone(), demand.per_minute))
        });
        named.collect()
    }

    fn round_trip_ms(&self, node: NodeId) -> Option<f64> {
        let (links, view) = (self.member.links(), self.member.view());
        links.foretold_us(view, node).filter(|_| node != self.own()).map(|us| us / 1_000.0)
    }

    fn loading_views(&self) -> Vec<HostingView> {
        let named = |id| {
            self.member.deployments().variant(id).map(|(known, of)| (known.name.clone(), of.label.clone()))
        };
        let loading = self.hosting.loading().map(|(key, progress)| (named(key.variant), key, progress));
        let loading = loading.map(|(named, key, progress)| HostingView {
            model: named.as_ref().map(|(model, _)| model.clone()).unwrap_or_default(),
            variant: named.map(|(_, variant)| variant).unwrap_or_default(),
            blocks: [key.first, key.end],
            loading: LoadingView { bytes_done: progress.bytes_done, bytes_total: progress.bytes_total },
        });
        loading.collect()
    }

    fn hosted_view(&self, hosted: &Hosted) -> HostedView {
        let deployment = self.member.deployments().by_id(hosted.variant.deployment);
        let variant =
            self.member.deployments().variant(hosted.variant).map(|(_, variant)| variant.label.clone());
        HostedView {
            model: deployment.map_or_else(|| "(removed)".to_owned(), |deployment| deployment.name.clone()),
            version: deployment.map_or(0, |deployment| deployment.version),
            variant: variant.unwrap_or_default(),
            blocks: [hosted.first, hosted.end],
            time_ms: micros_to_ms(hosted.time_us),
            p95_ms: micros_to_ms(hosted.p95_us),
            queue_wait_ms: micros_to_ms(hosted.queue_wait_us),
        }
    }

    pub(super) fn model_view(&self, name: &str, label: Option<&str>) -> Result<ModelView, CallError> {
        self.view_of(self.find_deployment(name, None)?, label)
    }

    pub(super) fn models_view(&self) -> ModelsView {
        let models =
            self.member.deployments().all_serving().filter_map(|serving| self.view_of(serving, None).ok());
        ModelsView { models: models.collect() }
    }

    /// A deployment by one of its variants: the one of this label, or the most accurate.
    fn view_of(&self, deployment: &Deployment, label: Option<&str>) -> Result<ModelView, CallError> {
        let shown = self.variants_of(deployment, label)?;
        let all = self.variants_of(deployment, None)?;
        let mut seen = BTreeSet::new();
        let mut by_name: Vec<&Choice> = all.iter().collect();
        by_name.sort_by_key(|choice| choice.id.index);
        let variants = by_name.into_iter().map(|choice| variant_view(choice, &mut seen)).collect();
        let none = || CallError::Unavailable(format!("`{}` has no variants here", deployment.name));
        let shown = shown.first().ok_or_else(none)?;
        let ready = matches!(self.health_of(deployment).state, Some(Health::Degraded | Health::Ready));
        Ok(ModelView { ready, variants, ..model_view(deployment.version, shown) })
    }

    pub(super) fn deployments_view(&self) -> DeploymentsView {
        let all = self.member.deployments().newest().filter_map(|deployment| {
            let view = self.deployment_view(&deployment.name).ok()?;
            // A new version is nobody's outage: the one before serves until it is ready.
            let serving = self.member.deployments().serving(&deployment.name).unwrap_or(deployment);
            Some(DeploymentView { health: Some(self.health_of(serving)), ..view })
        });
        DeploymentsView { deployments: all.collect() }
    }

    pub(super) fn request_view(&self, id: RequestId) -> Result<RequestView, CallError> {
        let text = id.to_string();
        self.finished.iter().find(|view| view.id == text).cloned().ok_or_else(|| {
            CallError::NotFound(format!("request {id} is none of the last that were answered at this node"))
        })
    }
}

fn offer_view(Offer { computes, stores, open }: Offer) -> OfferView {
    OfferView { computes, stores, open }
}

fn speeds_view(speeds: &Speeds) -> BTreeMap<String, f64> {
    WorkClass::ALL.into_iter().map(|class| (class.name().to_owned(), speeds.of(class))).collect()
}

fn with_peer(address: &str, node: NodeId) -> String {
    if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{node}") }
}

fn tensor_view(manifest: &Manifest, index: u32) -> TensorView {
    let spec = &manifest.tensors[index as usize];
    TensorView {
        is_batched: manifest.is_batched(index),
        is_variable: manifest.is_variable(index),
        name: spec.name.clone(),
        datatype: spec.dtype.oip_name().to_owned(),
        shape: spec.shape.clone(),
    }
}

fn block_view(manifest: &Manifest, block: &Block) -> BlockView {
    let weights = block.weights.iter().map(|index| manifest.weights[*index as usize].bytes);
    BlockView {
        kind: block.kind,
        time_ms: block.time_ns as f64 / 1e6,
        mflop: block.flops as f64 / 1e6,
        weights_bytes: weights.sum::<u64>() + block.inline_bytes,
        peak_activation_bytes: block.peak_activation_bytes,
    }
}

fn codec_view(figures: &CodecFigures) -> CodecView {
    CodecView {
        codec: figures.codec,
        bytes: figures.coded_bytes,
        encode_ms: micros_to_ms(u64::from(figures.encode_us)),
        decode_ms: micros_to_ms(u64::from(figures.decode_us)),
        loss: figures.loss(),
    }
}

fn cut_view(manifest: &Manifest, tensors: &[u32], codecs: &[CodecFigures]) -> CutView {
    let specs = || tensors.iter().map(|index| &manifest.tensors[*index as usize]);
    CutView {
        bytes: specs().map(|spec| spec.byte_length().unwrap_or(u64::MAX)).fold(0, u64::saturating_add),
        codecs: codecs.iter().map(codec_view).collect(),
        tensors: specs().map(|spec| spec.name.clone()).collect(),
    }
}

fn region_view(manifest: &Manifest, region: &Region) -> RegionView {
    let branch = |branch: &Branch| BranchView {
        blocks: [branch.first, branch.end],
        reads: cut_view(manifest, &branch.reads, &[]),
        makes: cut_view(manifest, &manifest.made_by(branch.first..branch.end), &[]),
    };
    RegionView { branches: region.branches.iter().map(branch).collect() }
}

/// Time of a variant in one go on the node that profiled it, its ends included.
fn whole_ms(manifest: &Manifest) -> f64 {
    let ends = manifest.blocks.iter().filter(|block| block.kind != BlockKind::Graph);
    micros_to_ms(manifest.whole_us()) + ends.map(|end| end.time_ns as f64 / 1e6).sum::<f64>()
}

/// `seen` are the objects of the variants before: what those have too is stored and sent once.
fn variant_view(choice: &Choice, seen: &mut BTreeSet<ObjectId>) -> VariantView {
    let manifest = &choice.manifest.manifest;
    let objects = std::iter::once(&manifest.skeleton).chain(&manifest.weights);
    let (mut bytes, mut own_bytes) = (0, 0);
    for object in objects {
        bytes += object.bytes;
        own_bytes += if seen.insert(object.id) { object.bytes } else { 0 };
    }
    VariantView {
        label: manifest.variant.clone(),
        accuracy: choice.accuracy,
        blocks: manifest.block_count(),
        time_ms: whole_ms(manifest),
        bytes,
        own_bytes,
    }
}

fn model_view(version: u64, choice: &Choice) -> ModelView {
    let manifest = &choice.manifest.manifest;
    let cuts = manifest.cuts.iter().map(|cut| cut_view(manifest, &cut.tensors, &cut.codecs));
    ModelView {
        name: manifest.model.clone(),
        version,
        variant: manifest.variant.clone(),
        ready: false,
        accuracy: choice.accuracy,
        variants: Vec::new(),
        ort_level: format!("{:?}", manifest.ort_level).to_lowercase(),
        card: choice.manifest.card.as_ref().map(|card| card.reads().to_owned()),
        weights_bytes: manifest.weights.iter().map(|weight| weight.bytes).sum(),
        time_ms: whole_ms(manifest),
        blocks: manifest.blocks.iter().map(|block| block_view(manifest, block)).collect(),
        cuts: cuts.collect(),
        regions: manifest.regions.iter().map(|region| region_view(manifest, region)).collect(),
        loss_samples: manifest.loss_samples,
        batch_items_max: manifest.batch.as_ref().map(|batch| batch.items_max),
        inputs: manifest.inputs.iter().map(|index| tensor_view(manifest, *index)).collect(),
        outputs: manifest.outputs.iter().map(|index| tensor_view(manifest, *index)).collect(),
    }
}

fn coordinate_view(coordinate: Coordinate) -> CoordinateView {
    CoordinateView {
        plane_ms: coordinate.plane_us().map(|us| us / 1_000.0),
        height_ms: coordinate.height_us() / 1_000.0,
        error: coordinate.error(),
    }
}

//! One attempt at a request that entered here: its plan announced where something is to be loaded, its input sent,
//! its stages freed when it is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::control::{Prepare, Request};
use stormo_protocol::frame::{DeliveryKey, Edge, Header, ORIGIN};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::plan::{EncodedPlan, Plan, Stage};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::Hosted;

use super::hosting::PartitionKey;
use super::{Driver, Event};
use crate::flow::OriginEvent;
use crate::net::{OutgoingFrame, Progress};

/// Announcing a plan, or its end, takes one round trip.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn begin_attempt(&mut self, request: RequestId, attempt: u16, plan: Plan) {
        let now_ms = self.now_ms();
        let Some(pending) = self.origins.get_mut(&request) else { return };
        let plan = Arc::new(plan);
        pending.tried.push(plan.clone());
        pending.attempts.begin();
        pending.planning_time.get_or_insert(pending.started.elapsed());
        let remaining_ms = pending.deadline_ms.saturating_sub(now_ms) as u32;
        let own = self.own();
        // Frames bring the plan to whoever is ready; who has to load something begins with it now.
        let mut unready: Vec<NodeId> = (plan.stages.iter().filter(|stage| !self.is_loaded(&plan, stage)))
            .map(|stage| stage.node)
            .collect();
        unready.sort_unstable();
        unready.dedup();
        for host in unready {
            let prepare = Prepare { request, attempt, plan: Plan::clone(&plan), remaining_ms };
            if host != own {
                self.prepare_elsewhere(host, prepare);
            } else if let Err(reason) = self.announce(prepare) {
                return self.origin_failed(request, attempt, stage_on(&plan, own), reason);
            }
        }
        let bound = self.origins.get(&request).and_then(|pending| pending.bound_of(&plan));
        let ways = bound.and_then(|bound| bound.choice.manifest.ways_from_origin(&plan));
        let Some(ways) = ways.filter(|ways| !ways.is_empty()) else {
            return self.origin_failed(request, attempt, 0, Refusal::BadFrame);
        };
        for way in ways {
            if let Some(stage) = plan.stages.get(usize::from(way.other)) {
                self.send_input(request, attempt, way.other, stage.node);
            }
        }
    }

    /// Whether the primary host of a stage has its partition loaded, as far as is known here.
    fn is_loaded(&self, plan: &Plan, stage: &Stage) -> bool {
        let Some(manifest) = self.manifests.get(&plan.variant) else { return false };
        let graph = manifest.graph_part(stage.blocks());
        let key = PartitionKey { variant: plan.variant, first: graph.start, end: graph.end };
        let is_it =
            |hosted: &Hosted| (hosted.variant, hosted.first, hosted.end) == (key.variant, key.first, key.end);
        let says_so = || {
            let known = self.member.view().get(stage.node);
            known.is_some_and(|known| known.record.hosted.iter().any(is_it))
        };
        let is_own = stage.node == self.own();
        graph.is_empty() || if is_own { self.hosting.is_ready(key) } else { says_so() }
    }

    /// Sends what a stage has of a request's input to one of its hosts; nothing, if it has nothing of it.
    pub(super) fn send_input(&mut self, request: RequestId, attempt: u16, stage: u16, to: NodeId) {
        let now_ms = self.now_ms();
        let Some(pending) = self.origins.get(&request) else { return };
        let Some(plan) = pending.plan_of(attempt).cloned() else { return };
        // A plan is always of a variant that it was asked for; an attempt without inputs is refused.
        let tensors = pending.bound_of(&plan).and_then(|bound| bound.inputs_of(&plan, stage));
        let Some(tensors) = tensors else { return };
        let remaining_ms = pending.deadline_ms.saturating_sub(now_ms) as u32;
        let edge = Edge { from: ORIGIN, to: stage };
        let key = DeliveryKey { request, attempt, edge };
        if self.has_livelier(key, to) {
            return self.on_input_delivery(key, to, Progress::Avoided);
        }
        // It comes back with the result, and says what encoding the input took; on its way there, what all stages may do.
        let traces = vec![pending.options.redundancy.trace()];
        let encoded = Arc::new(EncodedPlan::of(plan.clone()));
        let frame = OutgoingFrame {
            header: Header::of(key, encoded.id(), remaining_ms, &traces, &tensors),
            plan: encoded.bytes().clone(),
            traces,
            tensors,
            codec: plan.codec_of(edge),
        };
        let delivering = self.deliver(to, &encoded, frame);
        if let Some(pending) = self.origins.get_mut(&request) {
            pending.delivering.extend(delivering);
        }
        self.duplicate(key, to);
    }

    /// Announces a plan to another host, without waiting; only a refusal comes back.
    fn prepare_elsewhere(&self, host: NodeId, prepare: Prepare) {
        let (net, events) = (self.parts.net.clone(), self.events.clone());
        let (request, attempt, stage) = (prepare.request, prepare.attempt, stage_on(&prepare.plan, host));
        let has_backups =
            prepare.plan.stages.get(usize::from(stage)).is_some_and(|stage| !stage.backups.is_empty());
        let question = Request::Prepare(prepare);
        let own = self.own();
        tokio::spawn(async move {
            let reason = match net.ask(host, &question, PREPARE_TIMEOUT).await {
                Ok(_) => return,
                // Whoever sends it the stage's input will hear the same, and turn to another one.
                Err(_) if has_backups => return,
                Err(crate::net::AskError::Refused(reason)) => reason,
                Err(_) => Refusal::SuccessorLost,
            };
            // As if the host had reported it itself.
            let (answer, _) = tokio::sync::oneshot::channel();
            let failed = Request::Failed { request, attempt, stage, reason };
            let event = crate::net::NetEvent::Asked { from: own, request: failed, answer };
            let _ = events.send(Event::Net(event)).await;
        });
    }

    pub(super) fn cancel_attempt(&mut self, request: RequestId, attempt: u16, plan: &Plan) {
        if let Some(pending) = self.origins.get_mut(&request) {
            pending.delivering.drain(..).for_each(|delivering| delivering.abort());
        }
        let own = self.own();
        self.on_cancel(own, request, attempt);
        let hosts: BTreeSet<NodeId> = plan.stages.iter().flat_map(Stage::hosts).collect();
        for host in hosts.into_iter().filter(|node| *node != own) {
            let net = self.parts.net.clone();
            tokio::spawn(async move {
                // A host that does not hear it drops the stage at its deadline.
                let _ = net.ask(host, &Request::Cancel { request, attempt }, PREPARE_TIMEOUT).await;
            });
        }
    }

    pub(super) fn on_input_delivery(&mut self, key: DeliveryKey, to: NodeId, progress: Progress) {
        let DeliveryKey { request, attempt, edge } = key;
        if let Progress::Refused(..) | Progress::Lost = progress {
            tracing::debug!(%request, attempt, peer = %to.short(), ?progress, "an input was not taken");
        }
        match progress {
            Progress::Taken | Progress::Late(_) => {}
            Progress::Passed(_) => {
                self.on_origin(request, OriginEvent::InputPassed { attempt, stage: edge.to });
            }
            Progress::Refused(stage, reason) if stage == edge.to => {
                self.tell_of_loss(request, attempt, reason);
                self.on_origin(request, OriginEvent::InputFailed { attempt, stage, to, reason });
            }
            Progress::Refused(stage, reason) => self.origin_failed(request, attempt, stage, reason),
            Progress::Lost | Progress::Avoided => {
                if progress == Progress::Lost {
                    self.accuse(to);
                }
                let reason = Refusal::SuccessorLost;
                self.on_origin(request, OriginEvent::InputFailed { attempt, stage: edge.to, to, reason });
            }
        }
    }
}

/// The first stage of a plan on a node.
fn stage_on(plan: &Plan, node: NodeId) -> u16 {
    plan.stages.iter().position(|stage| stage.node == node).unwrap_or(0) as u16
}

//! Joins: stages that wait for several inputs, at their hosts; and where the origin moves them when a host is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::frame::{Descriptor, ORIGIN};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::limits::JOINING_BYTES_MAX;
use stormo_protocol::model::Manifest;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::{Tensor, TensorSpec, total_bytes};

use super::hosted::HostedStage;
use super::origins::Pending;
use super::stages::StageKey;
use super::{Driver, Event};
use crate::flow::{OriginEvent, Stage, StageEvent};

/// Telling a host where a join is takes one round trip.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A join of an attempt, by whose word it was moved.
pub(super) type MovedJoin = (RequestId, u16, NodeId, u16);
/// A join of an attempt at a request.
type Join = (RequestId, u16, u16);

impl Driver {
    /// Whether an input of a join fits what it has, and what joins here hold in all.
    ///
    /// # Errors
    /// The reason to refuse with.
    pub(super) fn may_join(&self, key: StageKey, from: u16, described: &[Descriptor]) -> Result<(), Refusal> {
        let Some(hosted) = self.stages.get(&key) else { return Err(Refusal::UnknownPlan) };
        let specs: Vec<&TensorSpec> = described.iter().map(|descriptor| &descriptor.spec).collect();
        let items = hosted.items_from(from, &specs);
        let others = hosted.inputs.iter().map(|(other, tensors)| {
            hosted.items_from(*other, &tensors.iter().map(Tensor::spec).collect::<Vec<_>>())
        });
        if others.flatten().any(|other| items.is_some_and(|items| items != other)) {
            return Err(Refusal::WrongTensors);
        }
        // The last input that is missing frees the others.
        if hosted.machine.lacks_only(from) {
            return Ok(());
        }
        let joining = self.stages.values().filter(|hosted| hosted.machine.has_joined_in_part());
        let held = joining.flat_map(|hosted| &hosted.inputs).map(|(_, tensors)| total_bytes(tensors));
        let more = specs.iter().map(|spec| spec.byte_length().unwrap_or(u64::MAX));
        let bytes = held.chain(more).fold(0, u64::saturating_add);
        if bytes > JOINING_BYTES_MAX { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    /// A stage that begins late sends where its joins are by then.
    pub(super) fn tell_of_moved_joins(&self, machine: &mut Stage, key: StageKey) {
        let (plan, join) = (machine.plan().clone(), machine.plan().behind(key.stage));
        // A fork's join is behind its branches.
        for join in [join, if join == ORIGIN { ORIGIN } else { plan.behind(join) }] {
            if let Some(host) = self.rejoined.get(&(key.request, key.attempt, plan.origin, join)) {
                machine.handle(StageEvent::Rejoin { stage: join, host: *host });
            }
        }
    }

    /// The origin moved a join; only its word counts.
    pub(super) fn on_rejoin(&mut self, from: NodeId, join: Join, host: u16) -> Response {
        let (request, attempt, stage) = join;
        let key = (request, attempt, from, stage);
        let latest = self.rejoined.get(&key).map_or(host, |known| host.max(*known));
        self.rejoined.insert(key, latest);
        let is_of_it = |(key, hosted): &(&StageKey, &HostedStage)| {
            (key.request, key.attempt) == (request, attempt) && hosted.machine.plan().origin == from
        };
        let stages: Vec<StageKey> = self.stages.iter().filter(is_of_it).map(|(key, _)| *key).collect();
        for key in stages {
            self.on_stage(key, StageEvent::Rejoin { stage, host });
        }
        Response::Done
    }

    /// Tells all who send to a join where it is now. Who cannot be told may send to another host than the rest, so the
    /// attempt is over then.
    pub(super) fn rejoin(&mut self, join: Join, host: u16) {
        let (request, attempt, stage) = join;
        let plan = self.origins.get(&request).and_then(|pending| pending.plan_of(attempt)).cloned();
        let Some(plan) = plan.filter(|plan| plan.is_join(stage)) else { return };
        let hosts = plan.senders(stage).into_iter().filter_map(|sender| plan.stages.get(usize::from(sender)));
        let hosts: BTreeSet<NodeId> = hosts.flat_map(|stage| stage.hosts()).collect();
        let own = self.own();
        for to in hosts {
            if to == own {
                self.on_rejoin(own, join, host);
                continue;
            }
            let (net, events) = (self.parts.net.clone(), self.events.clone());
            tokio::spawn(async move {
                let told =
                    net.ask(to, &Request::Rejoin { request, attempt, stage, host }, REJOIN_TIMEOUT).await;
                if told.is_err() {
                    let _ = events.send(Event::NotTold(request, attempt, to)).await;
                }
            });
        }
    }

    /// A host did not hear where a join is now.
    pub(super) fn on_not_told(&mut self, request: RequestId, attempt: u16, node: NodeId) {
        let is_current = |pending: &Pending| pending.machine.attempts() == attempt;
        if self.origins.get(&request).is_some_and(is_current) {
            self.accuse(node);
            self.on_origin(request, OriginEvent::PeerLost(node));
        }
    }

    /// A host of a join is lost or refuses, as seen by a stage here: told to the origin.
    pub(super) fn report_join(&mut self, key: StageKey, stage: u16, host: u16, reason: Refusal) {
        let Some(origin) = self.stages.get(&key).map(|hosted| hosted.machine.plan().origin) else { return };
        let (request, attempt) = (key.request, key.attempt);
        if origin == self.own() {
            self.join_failed((request, attempt, stage), host, reason);
        } else {
            self.tell_origin(origin, Request::JoinFailed { request, attempt, stage, host, reason });
        }
    }

    pub(super) fn on_join_reported(
        &mut self,
        from: NodeId,
        join: Join,
        host: u16,
        reason: Refusal,
    ) -> Response {
        if !self.take_part(join.0, join.1, &[from]) {
            return Response::Refused(Refusal::NotWaiting);
        }
        self.join_failed(join, host, reason);
        Response::Done
    }

    fn join_failed(&mut self, (request, attempt, stage): Join, host: u16, reason: Refusal) {
        tracing::debug!(%request, attempt, stage, host, %reason, "a join's host failed");
        let plan = self.origins.get(&request).and_then(|pending| pending.plan_of(attempt));
        let join = plan.and_then(|plan| plan.stages.get(usize::from(stage)));
        let node = join.and_then(|join| join.hosts().nth(usize::from(host)));
        if let Some(node) = node.filter(|_| reason == Refusal::SuccessorLost) {
            self.accuse(node);
        }
        self.tell_of_loss(request, attempt, reason);
        self.on_origin(request, OriginEvent::JoinFailed { attempt, stage, host, reason });
    }
}

impl HostedStage {
    /// Items in the batch of what comes from a stage, if that tells.
    fn items_from(&self, from: u16, specs: &[&TensorSpec]) -> Option<u64> {
        let manifest: &Manifest = &self.manifest;
        manifest.items(self.ways.from(from)?, specs.iter().copied())
    }
}

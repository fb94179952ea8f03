//! What is told of a request to a collector of traces, once it has ended. How it becomes spans is `traces`' business.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::total_bytes;

use super::Driver;
use super::origins::Pending;
use super::variants::Bound;
use crate::app::calls::CallError;
use crate::flow::OriginEvent;
use crate::net::Received;
use crate::traces::{Answered, Attempt, RequestTrace};

/// When the attempts at a request were under way.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The first at 0.
    under_way: Vec<UnderWay>,
    /// What was heard last that may end one.
    heard: Option<Heard>,
}

#[derive(Debug)]
struct UnderWay {
    began: Instant,
    failed: Option<(Instant, Option<Heard>)>,
}

#[derive(Debug, Clone, Copy)]
enum Heard {
    Stage(u16, Refusal),
    PeerLost(NodeId),
}

impl Attempts {
    pub(super) fn begin(&mut self) {
        self.under_way.push(UnderWay { began: Instant::now(), failed: None });
    }

    /// Notes what may end an attempt.
    pub(super) fn hear(&mut self, event: &OriginEvent) {
        self.heard = match event {
            OriginEvent::InputFailed { stage, reason, .. }
            | OriginEvent::JoinFailed { stage, reason, .. }
            | OriginEvent::Failed { stage, reason, .. } => Some(Heard::Stage(*stage, *reason)),
            OriginEvent::PeerLost(node) => Some(Heard::PeerLost(*node)),
            _ => return,
        };
    }

    fn fail(&mut self) {
        if let Some(last) = self.under_way.last_mut().filter(|last| last.failed.is_none()) {
            last.failed = Some((Instant::now(), self.heard));
        }
    }
}

impl Driver {
    /// The attempt under way is over, and there will be another one.
    pub(super) fn note_failed_attempt(&mut self, request: RequestId) {
        if let Some(pending) = self.origins.get_mut(&request) {
            pending.attempts.fail();
        }
    }

    pub(super) fn trace_answer(
        &self,
        request: RequestId,
        pending: &Pending,
        (plan, hosts): (&Arc<Plan>, &[NodeId]),
        result: &Received,
    ) {
        self.trace(request, pending, || {
            let bound = pending.bound_of(plan);
            let hosts = hosts.iter().map(|node| (*node, self.label_of(*node)));
            Ok(Answered {
                attempt: result.header.key.attempt,
                plan: plan.clone(),
                hosts: hosts.collect(),
                traces: result.traces.clone(),
                input_bytes: bound.map(|bound| input_bytes(bound, plan)).unwrap_or_default(),
                result_bytes: total_bytes(&result.tensors),
                result_times: [result.receive_time, result.decode_time],
            })
        });
    }

    pub(super) fn trace_failure(&self, request: RequestId, pending: &Pending, error: &CallError) {
        self.trace(request, pending, || Err(error.to_string()));
    }

    /// Tells a collector, if there is one; what it is told is put together only then.
    fn trace(
        &self,
        request: RequestId,
        pending: &Pending,
        outcome: impl FnOnce() -> Result<Answered, String>,
    ) {
        let parent = pending.options.trace_parent;
        let Some(traces) = self.parts.traces.as_ref().filter(|_| parent.is_none_or(|caller| caller.sampled))
        else {
            return;
        };
        let outcome = outcome();
        traces.tell(RequestTrace {
            request,
            parent,
            model: pending.model.clone(),
            version: pending.version,
            ended_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            took: pending.started.elapsed(),
            planning: pending.planning_time,
            attempts: self.attempts_of(pending, outcome.as_ref().map(|answered| answered.attempt)),
            outcome,
        });
    }

    fn attempts_of(&self, pending: &Pending, outcome: Result<u16, &String>) -> Vec<Attempt> {
        let took = pending.started.elapsed();
        let all = (1u16..).zip(pending.attempts.under_way.iter().zip(&pending.tried));
        let attempts = all.map(|(number, (under_way, plan))| {
            let is_answer = outcome == Ok(number);
            let failed = under_way.failed.filter(|_| !is_answer);
            let why = || match failed.and_then(|(_, heard)| heard) {
                Some(Heard::Stage(stage, reason)) => format!("stage {stage}: {reason}"),
                Some(Heard::PeerLost(node)) => format!("the connection to `{}` is gone", self.label_of(node)),
                // The last one ends with its request.
                None => outcome.map_or_else(Clone::clone, |_| "another attempt answered".to_owned()),
            };
            Attempt {
                plan: plan.id(),
                variant: pending
                    .bound_of(plan)
                    .map(|bound| bound.choice.manifest.variant.clone())
                    .unwrap_or_default(),
                began: under_way.began.saturating_duration_since(pending.started),
                ended: failed.map_or(took, |(at, _)| at.saturating_duration_since(pending.started)),
                failed: (!is_answer).then(why),
            }
        });
        attempts.collect()
    }
}

/// Bytes of tensors that each stage of a plan is sent, as its description has them; what differs from request to
/// request counts as in the sample.
fn input_bytes(bound: &Bound, plan: &Plan) -> Vec<u64> {
    let manifest = &bound.choice.manifest;
    let items = bound.items().unwrap_or(1);
    let bytes = |tensor: u32| {
        let spec = manifest.tensors.get(tensor as usize);
        let of_one = spec.and_then(|spec| spec.byte_lengths().ok()).map_or(0, |lengths| *lengths.start());
        if manifest.is_batched(tensor) { of_one.saturating_mul(items) } else { of_one }
    };
    let of_stage = |stage: u16| {
        let given = bound.inputs_of(plan, stage).map(|tensors| total_bytes(&tensors));
        let read = || manifest.ways(plan, stage).map(|ways| ways.read().into_iter().map(bytes).sum());
        given.or_else(read).unwrap_or(0)
    };
    (0..plan.stages.len() as u16).map(of_stage).collect()
}

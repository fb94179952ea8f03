//! Requests that entered at this node: planned, sent out, tried again, answered once.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::control::Response;
use stormo_protocol::frame::{DeliveryKey, Descriptor, Header, ORIGIN, StageTrace};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::limits::DEADLINE_MS_MAX;
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::Tensor;
use tokio::task::AbortHandle;

use super::arriving::check_tensors;
use super::energy::{Measured, accounted_j};
use super::plans::Made;
use super::result::Collection;
use super::signature::outputs_of;
use super::traced::Attempts;
use super::variants::{Bound, Choice, accurate_enough, bound};
use super::{Driver, Event};
use crate::app::calls::{
    Answer, CallError, InferOptions, PlanLimits, PlanName, REQUESTS_MAX, Reply, TIMEOUT_MS_DEFAULT,
};
use crate::app::planning::{accuracy, end_elsewhere, loss_of};
use crate::flow::{Failure, Origin, OriginAction, OriginEvent};
use crate::net::{Received, SignReader};
use crate::serve::json::{RequestView, StageTraceView, What};

/// A request as the front hands it over.
pub(super) struct Asked {
    pub model: String,
    pub version: Option<u64>,
    pub inputs: Vec<Tensor>,
    pub options: InferOptions,
    pub reply: Reply<Answer>,
}

/// A request that entered here and is not answered yet.
pub(super) struct Pending {
    pub(super) machine: Origin,
    pub(super) model: String,
    pub(super) version: u64,
    /// The variants that may run it, the most accurate first.
    pub(super) variants: Vec<Bound>,
    pub(super) options: InferOptions,
    pub(super) started: Instant,
    pub(super) deadline_ms: u64,
    /// The plans of all attempts, the first at 0: a late result may be an earlier attempt's.
    pub(super) tried: Vec<Arc<Plan>>,
    /// From its arrival until there was a plan for the first attempt.
    pub(super) planning_time: Option<Duration>,
    /// When each attempt was under way, and what became of it.
    pub(super) attempts: Attempts,
    result: Collection,
    pub(super) delivering: Vec<AbortHandle>,
    reply: Reply<Answer>,
}

impl Pending {
    pub(super) fn fail(self, error: CallError) {
        let _ = self.reply.send(Err(error));
    }

    pub(super) fn plan_of(&self, attempt: u16) -> Option<&Arc<Plan>> {
        self.tried.get(usize::from(attempt.checked_sub(1)?))
    }

    /// What a plan is of.
    pub(super) fn bound_of(&self, plan: &Plan) -> Option<&Bound> {
        self.variants.iter().find(|bound| bound.choice.id == plan.variant)
    }

    /// Whether all parts of an attempt's result are here.
    fn is_complete(&self, attempt: u16) -> bool {
        let Some(plan) = self.plan_of(attempt) else { return false };
        let Some(bound) = self.bound_of(plan) else { return false };
        let mut stages = 0..plan.stages.len() as u16;
        stages.all(|stage| bound.results_of(plan, stage).is_empty() || self.result.has(attempt, stage))
    }
}

impl Driver {
    /// What is not answered is wanted all the same, and is counted with what failed.
    pub(super) fn on_turned_away(&mut self, counts: &[(String, u32)]) {
        for (model, count) in counts {
            let deployment = self.find_deployment(model, None).map(|deployment| deployment.id());
            for _ in 0..*count {
                self.watching.count(None);
                if let Ok(deployment) = deployment {
                    self.demand.note(deployment);
                }
            }
        }
    }

    pub(super) fn begin_request(&mut self, asked: Asked) {
        let Asked { model, version, inputs, options, reply } = asked;
        let found = self.find_deployment(&model, version).and_then(|deployment| {
            self.check_energy(&options.limits)?;
            let choices = self.variants_of(deployment, options.variant.as_deref())?;
            let variants = bound(accurate_enough(choices, options.limits)?, &inputs)?;
            let fixed = options
                .plan
                .as_ref()
                .map(|name| self.fixed_plan(name, &variants, options.limits))
                .transpose()?;
            if self.origins.len() >= REQUESTS_MAX {
                return Err(CallError::Overloaded(format!(
                    "{REQUESTS_MAX} requests are under way at this node; try again shortly, or another node"
                )));
            }
            Ok((deployment.id(), deployment.version, variants, fixed))
        });
        let (deployment, version, variants, fixed) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let mut id = [0; 16];
        if getrandom::fill(&mut id).is_err() {
            let _ = reply.send(Err(CallError::Failed("this machine has no random numbers".into())));
            return;
        }
        let request = RequestId(id);
        let timeout_ms = options.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT).clamp(1, DEADLINE_MS_MAX);
        let pending = Pending {
            machine: Origin::new(fixed.is_some()),
            model,
            version,
            variants,
            options,
            started: Instant::now(),
            deadline_ms: self.now_ms() + u64::from(timeout_ms),
            tried: Vec::new(),
            planning_time: None,
            attempts: Attempts::default(),
            result: Collection::default(),
            delivering: Vec::new(),
            reply,
        };
        let named = &pending.model;
        self.watching.tell(|| What::RequestBegun { id: request.to_string(), model: named.clone() });
        self.origins.insert(request, pending);
        self.demand.note(deployment);
        match fixed {
            Some(plan) => self.on_origin(request, OriginEvent::Planned(plan)),
            None => self.plan_without(request, Vec::new()),
        }
    }

    /// A plan asked for by its id, if all its hosts are there.
    fn fixed_plan(&self, name: &PlanName, variants: &[Bound], limits: PlanLimits) -> Result<Plan, CallError> {
        let id = name.digits();
        let of_plan = |plan: &&Plan| variants.iter().find(|bound| bound.choice.id == plan.variant);
        let found = self.plans.get(name).and_then(|plan| Some((plan, of_plan(&plan)?)));
        let (plan, bound) = found.ok_or_else(|| {
            CallError::NotFound(format!(
                "plan {id} is not known here, or of a variant that was not asked for; list the plans of this \
                 node with `stormo plan NAME --all`"
            ))
        })?;
        check_accuracy(plan, &bound.choice, limits)?;
        if let Some(most_j) = limits.max_energy_j {
            self.foretold.check(plan.id(), most_j)?;
        }
        if plan.check().as_ref() != Ok(&bound.blocks) || !bound.choice.manifest.has_ways(plan) {
            return Err(CallError::BadRequest(format!(
                "plan {id} is not for this kind of input; `stormo plan NAME --all` lists those for images of \
                 a model with a card, with --tensors those for tensors"
            )));
        }
        self.check_forced(plan, &bound.choice.manifest.graph_blocks(), limits)?;
        let now_ms = self.now_ms();
        let dead =
            plan.stages.iter().enumerate().find(|(_, stage)| {
                stage.node != self.own() && !self.member.view().is_usable(now_ms, stage.node)
            });
        match dead {
            // Exactly this plan: nobody else takes a stage over.
            None => Ok(plan.without_backups()),
            Some((index, stage)) => Err(CallError::Conflict(format!(
                "stage {index} of plan {id} is on `{}` ({}), which is not there now; list the plans again",
                self.label_of(stage.node),
                stage.node
            ))),
        }
    }

    /// Whether a plan begins and ends at this node where that is demanded.
    fn check_forced(&self, plan: &Plan, graph: &Range<u16>, limits: PlanLimits) -> Result<(), CallError> {
        let ends = [
            (limits.force_first, true, "begins", "force_first"),
            (limits.force_last, false, "ends", "force_last"),
        ];
        let refused = ends
            .into_iter()
            .filter(|(is_forced, ..)| *is_forced)
            .find_map(|(_, is_first, does, by)| Some((end_elsewhere(plan, graph, is_first)?, does, by)));
        let Some((node, does, by)) = refused else { return Ok(()) };
        Err(CallError::Conflict(format!(
            "plan {} {does} at `{}`, though {by} demands a block that computes here (decoding an image and reading an \
             answer are none): list plans with {by}",
            plan.id(),
            self.label_of(node)
        )))
    }

    pub(super) fn on_origin(&mut self, request: RequestId, event: OriginEvent) {
        if let Some(pending) = self.origins.get_mut(&request) {
            pending.attempts.hear(&event);
            let actions = pending.machine.handle(event);
            for action in actions {
                self.act_on_origin(request, action);
            }
        }
    }

    fn act_on_origin(&mut self, request: RequestId, action: OriginAction) {
        match action {
            OriginAction::Begin { attempt, plan } => self.begin_attempt(request, attempt, plan),
            OriginAction::Send { attempt, stage, to } => self.send_input(request, attempt, stage, to),
            OriginAction::Rejoin { attempt, stage, host } => {
                self.rejoin((request, attempt, stage), host);
            }
            OriginAction::Plan { without, after_ms: 0 } => {
                self.note_failed_attempt(request);
                self.plan_without(request, without);
            }
            OriginAction::Plan { without, after_ms } => {
                self.note_failed_attempt(request);
                self.beside(async move {
                    // A crowd that failed together does not come back together.
                    let spread_ms = after_ms * u64::from(request.0[0]) / 256;
                    tokio::time::sleep(Duration::from_millis(after_ms + spread_ms)).await;
                    Event::PlanAgain(request, without)
                });
            }
            OriginAction::Cancel { attempt, plan } => self.cancel_attempt(request, attempt, &plan),
            OriginAction::Answer { attempt } => self.answer(request, attempt),
            OriginAction::Fail(failure) => {
                if let Some(pending) = self.origins.remove(&request) {
                    let error = self.explain(&pending, failure);
                    if let Some(left_out) = self.log.requests.next(self.now_ms()) {
                        tracing::info!(%request, model = %pending.model, %error, left_out, "a request failed");
                    }
                    self.end_badly(request, pending, error);
                }
            }
        }
    }

    /// Whether an attempt at a request that entered here is under way, and all of these have a part in it.
    pub(super) fn take_part(&self, request: RequestId, attempt: u16, nodes: &[NodeId]) -> bool {
        let plan = self.origins.get(&request).and_then(|pending| pending.plan_of(attempt));
        let own = self.own();
        let has_part = |plan: &Plan, node: &NodeId| {
            *node == own || plan.stages.iter().any(|stage| stage.host_index(*node).is_some())
        };
        plan.is_some_and(|plan| nodes.iter().all(|node| has_part(plan, node)))
    }

    pub(super) fn on_reported(
        &mut self,
        from: NodeId,
        request: RequestId,
        attempt: u16,
        stage: u16,
        reason: Refusal,
    ) -> Response {
        if self.take_part(request, attempt, &[from]) {
            self.origin_failed(request, attempt, stage, reason);
            Response::Done
        } else {
            Response::Refused(Refusal::NotWaiting)
        }
    }

    pub(super) fn origin_failed(&mut self, request: RequestId, attempt: u16, stage: u16, reason: Refusal) {
        tracing::debug!(%request, attempt, stage, %reason, "an attempt failed");
        let plan = self.origins.get(&request).and_then(|pending| pending.plan_of(attempt));
        let failing = plan.and_then(|plan| Some(plan.stages.get(usize::from(stage))?.node));
        if let Some(node) = failing.filter(|_| reason == Refusal::SuccessorLost) {
            self.accuse(node);
        }
        self.tell_of_loss(request, attempt, reason);
        self.on_origin(request, OriginEvent::Failed { attempt, stage, reason });
    }

    /// While a host is out, those that are left have its work on top: that they are full will pass.
    pub(super) fn tell_of_loss(&mut self, request: RequestId, attempt: u16, reason: Refusal) {
        if reason == Refusal::Overloaded && !self.suspects.out().is_empty() {
            self.on_origin(request, OriginEvent::HostLost { attempt });
        }
    }

    pub(super) fn peer_lost(&mut self, node: NodeId) {
        let requests: Vec<RequestId> = self.origins.keys().copied().collect();
        tracing::debug!(peer = %node.short(), requests = requests.len(), "a peer is lost");
        for request in requests {
            self.on_origin(request, OriginEvent::PeerLost(node));
        }
    }

    pub(super) fn expire_origins(&mut self) {
        let now_ms = self.now_ms();
        let over = self.origins.iter().filter(|(_, pending)| pending.deadline_ms <= now_ms);
        let over: Vec<RequestId> = over.map(|(request, _)| *request).collect();
        for request in over {
            self.on_origin(request, OriginEvent::Deadline);
        }
        // A caller that hung up wants no answer: its stages are freed.
        let gone = self.origins.iter().filter(|(_, pending)| pending.reply.is_closed());
        let gone: Vec<RequestId> = gone.map(|(request, _)| *request).collect();
        for request in gone {
            self.on_origin(request, OriginEvent::Deadline);
        }
    }

    /// Whether a result is wanted from there.
    pub(super) fn accept_result(
        &mut self,
        from: NodeId,
        header: &Header,
        described: &[Descriptor],
    ) -> Result<SignReader, Refusal> {
        let pending = self.origins.get_mut(&header.key.request).ok_or(Refusal::NotWaiting)?;
        let plan = pending.plan_of(header.key.attempt).ok_or(Refusal::NotWaiting)?;
        let from_stage = header.key.edge.from;
        let stage = plan.stages.get(usize::from(from_stage)).ok_or(Refusal::NotMyStage)?;
        if stage.host_index(from).is_none() || header.plan != plan.id() {
            return Err(Refusal::NotMyStage);
        }
        let bound = pending.bound_of(plan).ok_or(Refusal::NotWaiting)?;
        let (manifest, results) = (&bound.choice.manifest, bound.results_of(plan, from_stage));
        if results.is_empty() {
            return Err(Refusal::WrongTensors);
        }
        check_tensors(manifest, &results, plan.codec_of(header.key.edge), described)?;
        // An answer is for as many items as were asked about.
        let specs = described.iter().map(|descriptor| &descriptor.spec);
        if manifest.items(&results, specs).is_some_and(|items| Some(items) != bound.items()) {
            return Err(Refusal::WrongTensors);
        }
        pending.result.begin(header.key.attempt, from_stage)
    }

    pub(super) fn on_result(&mut self, received: Received) {
        let DeliveryKey { request, attempt, edge } = received.header.key;
        let Some(pending) = self.origins.get_mut(&request) else { return };
        pending.result.arrived(attempt, edge.from, received);
        if pending.is_complete(attempt) {
            self.on_origin(request, OriginEvent::Result(attempt));
        }
    }

    fn answer(&mut self, request: RequestId, attempt: u16) {
        let Some(mut pending) = self.origins.remove(&request) else { return };
        let (Some(plan), Some(result)) = (pending.plan_of(attempt).cloned(), pending.result.take(attempt))
        else {
            let error = CallError::Failed("the result was lost inside this node".into());
            return self.end_badly(request, pending, error);
        };
        self.learn_from((request, attempt), &plan, &result.traces);
        let latency_ms = pending.started.elapsed().as_secs_f64() * 1000.0;
        // Between two looks at the deadlines; the caller was promised an end.
        if self.now_ms() > pending.deadline_ms {
            let failure = Failure::Deadline { attempts: pending.machine.attempts() };
            let error = self.explain(&pending, failure);
            return self.end_badly(request, pending, error);
        }
        let mut view = RequestView {
            id: request.to_string(),
            model: pending.model.clone(),
            plan_id: plan.id(),
            attempts: pending.machine.attempts(),
            latency_ms,
            energy_j: None,
            predicted_energy_j: None,
            planning_ms: pending.planning_time.unwrap_or_default().as_secs_f64() * 1000.0,
            input_encode_ms: input_encode_ms(&result.traces),
            result_receive_ms: result.receive_time.as_secs_f64() * 1000.0,
            result_decode_ms: result.decode_time.as_secs_f64() * 1000.0,
            stages: stage_traces(&plan, &result.traces),
        };
        let Some(Bound { choice, blocks, .. }) = pending.bound_of(&plan) else {
            let error = CallError::Failed("the plan was of no variant that was asked for".into());
            return self.end_badly(request, pending, error);
        };
        let hosts: Vec<NodeId> = hosts_of(&plan, &result.traces).collect();
        let measured = Measured {
            hosts: &hosts,
            traces: &result.traces,
            result_receive_ms: view.result_receive_ms,
            result_decode_ms: view.result_decode_ms,
            latency_ms,
        };
        let own = self.own();
        // Of a plan with a fork it is not known how long this node sent to whom.
        let power = self.parts.power.filter(|_| !plan.is_forked());
        view.energy_j = power.map(|power| accounted_j(power, own, &plan, &measured));
        view.predicted_energy_j = self.foretold.energy_j(plan.id());
        let variant = choice.manifest.variant.clone();
        let outputs = outputs_of(&choice.manifest, blocks, &result.tensors);
        let answer = Answer {
            request,
            attempts: pending.machine.attempts(),
            failovers: result.traces.iter().filter(|trace| trace.stage != ORIGIN && trace.host > 0).count()
                as u16,
            version: pending.version,
            variant,
            plan: plan.id(),
            nodes: hosts.iter().map(ToString::to_string).collect(),
            codecs: plan.codecs().collect(),
            outputs,
            latency_ms,
            energy_j: view.energy_j,
            predicted_energy_j: view.predicted_energy_j,
            late: pending.options.limits.max_latency_ms.is_some_and(|limit_ms| latency_ms > limit_ms),
        };
        self.trace_answer(request, &pending, (&plan, &hosts), &result);
        self.tell_ended(&view);
        // The caller may have gone; the request is over all the same.
        let _ = pending.reply.send(Ok(answer));
        self.finish(view);
    }

    fn tell_ended(&mut self, view: &RequestView) {
        self.watching.count(Some(view.latency_ms));
        self.watching.tell(|| What::RequestEnded {
            id: view.id.clone(),
            model: view.model.clone(),
            latency_ms: view.latency_ms,
            attempts: view.attempts,
        });
    }

    fn end_badly(&mut self, request: RequestId, pending: Pending, error: CallError) {
        self.trace_failure(request, &pending, &error);
        self.watching.count(None);
        self.watching.tell(|| What::RequestFailed {
            id: request.to_string(),
            model: pending.model.clone(),
            latency_ms: pending.started.elapsed().as_secs_f64() * 1000.0,
            error: error.to_string(),
        });
        pending.fail(error);
    }

    /// No plan keeps to what the caller allows; the closest can be asked for.
    pub(super) fn refuse_by_limit(&mut self, request: RequestId, why: String, closest: &Made) {
        self.remember(&closest.plan, closest.energy_mj);
        if let Some(pending) = self.origins.remove(&request) {
            self.end_badly(request, pending, CallError::Conflict(why));
        }
    }

    fn explain(&self, pending: &Pending, failure: Failure) -> CallError {
        match failure {
            Failure::Stage { stage, node, blocks: [first, end], reason, attempts } => {
                let what = format!(
                    "stage {stage} of `{}` (blocks {first} to {}) on `{}` ({node}) failed: {reason}",
                    pending.model,
                    end - 1,
                    self.label_of(node),
                );
                let text = format!("{what}; tried {attempts} time{}", if attempts == 1 { "" } else { "s" });
                match reason {
                    // Nobody else would take it either, so there is one try.
                    Refusal::BadImage | Refusal::BadValue => CallError::BadRequest(what),
                    Refusal::Overloaded => CallError::Overloaded(text),
                    Refusal::DeadlinePassed => CallError::Deadline(text),
                    Refusal::WrongTensors | Refusal::BadFrame | Refusal::RunFailed => CallError::Failed(text),
                    _ => CallError::Unavailable(text),
                }
            }
            Failure::NoPlan(why) => {
                CallError::Unavailable(format!("no node can run `{}`: {why}", pending.model))
            }
            Failure::Deadline { attempts } => CallError::Deadline(format!(
                "`{}` gave no answer within {} ms ({attempts} attempt{}); raise --timeout (timeout_ms), or look at `stormo status`",
                pending.model,
                pending.started.elapsed().as_millis(),
                if attempts == 1 { "" } else { "s" },
            )),
        }
    }
}

/// A plan that was asked for by its id must reach the accuracy that was asked for beside it.
fn check_accuracy(plan: &Plan, choice: &Choice, limits: PlanLimits) -> Result<(), CallError> {
    let reached = loss_of(plan, &choice.manifest).map(|loss| accuracy(choice.accuracy_known(), loss));
    match (limits.min_accuracy, reached) {
        (Some(enough), Some(reached)) if reached < enough => Err(CallError::Conflict(format!(
            "plan {} reaches an accuracy of {reached}, not {enough}; list others with `stormo plan NAME --all \
             --min-accuracy {enough}`",
            plan.id()
        ))),
        _ => Ok(()),
    }
}

/// Who ran the stages of a plan: of each the primary, unless a trace says which backup.
fn hosts_of<'a>(plan: &'a Plan, traces: &'a [StageTrace]) -> impl Iterator<Item = NodeId> + 'a {
    (0u16..).zip(&plan.stages).map(|(index, stage)| {
        let trace = traces.iter().find(|trace| trace.stage == index);
        trace.and_then(|trace| stage.hosts().nth(usize::from(trace.host))).unwrap_or(stage.node)
    })
}

fn input_encode_ms(traces: &[StageTrace]) -> f64 {
    let trace = traces.iter().find(|trace| trace.stage == ORIGIN);
    trace.map_or(0.0, |trace| f64::from(trace.encode_us) / 1000.0)
}

fn stage_traces(plan: &Plan, traces: &[StageTrace]) -> Vec<StageTraceView> {
    let ms = |micros: u32| f64::from(micros) / 1000.0;
    traces
        .iter()
        .filter_map(|trace| {
            let stage = plan.stages.get(usize::from(trace.stage))?;
            Some(StageTraceView {
                id: trace.stage,
                node: stage.hosts().nth(usize::from(trace.host)).unwrap_or(stage.node),
                blocks: [stage.first, stage.end],
                receive_ms: ms(trace.receive_us),
                decode_ms: ms(trace.decode_us),
                wait_ms: ms(trace.wait_us),
                run_ms: ms(trace.run_us),
                encode_ms: ms(trace.encode_us),
            })
        })
        .collect()
}

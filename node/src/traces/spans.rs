//! A request as spans: one for it, one for each attempt, and of the one that answered one for each stage, with what
//! it spent its time on. Pure.
//!
//! Nodes have no common clock, so each stage tells how long things took, not when. They are laid out here, at the
//! origin: a stage begins when the last of those that send to it has encoded, and what nobody measured (the ways
//! between nodes, hand-overs) is shared out evenly among the ways, as the first part of `send`. So children always lie
//! within their parents. Where what was measured is longer than the attempt, since some of it went on at once, it is
//! drawn that much shorter; `stormo.measured_us` tells what it was.

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::frame::{ORIGIN, StageTrace};
use stormo_protocol::ids::RequestId;

use super::{Answered, Attempt, RequestTrace};

/// Longest text of an error that is told, characters.
const ERROR_CHARS_MAX: usize = 512;

/// Whether somebody waits for it who called from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Internal,
    Server,
}

/// What is told of a span beside its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

/// A stretch of time in which something was done. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<String>,
}

fn text(text: impl ToString) -> Value {
    Value::Text(text.to_string())
}

/// All spans of a request, the one for itself first.
pub(super) fn of(told: &RequestTrace) -> Vec<Span> {
    let took_ns = ns(told.took);
    let mut spans = Spans { told, start_ns: ns(told.ended_unix).saturating_sub(took_ns), spans: Vec::new() };
    let mut attributes = vec![
        ("stormo.request", text(told.request)),
        ("stormo.model", text(&told.model)),
        ("stormo.version", Value::Number(told.version)),
        ("stormo.attempts", Value::Number(told.attempts.len() as u64)),
    ];
    if let Some(Attempt { plan, variant, .. }) = answering(told).or(told.attempts.last()) {
        attributes.extend([("stormo.plan", text(plan)), ("stormo.variant", text(variant))]);
    }
    let root = spans.add(None, format!("infer {}", told.model), [0, took_ns], attributes);
    if let Err(error) = &told.outcome {
        spans.fail(error);
    }
    if let Some(planning) = told.planning {
        spans.add(Some(root), "plan".into(), [0, ns(planning).min(took_ns)], vec![]);
    }
    for (number, attempt) in (1u16..).zip(&told.attempts) {
        spans.add_attempt(root, number, attempt);
    }
    spans.spans
}

fn answering(told: &RequestTrace) -> Option<&Attempt> {
    let answered = told.outcome.as_ref().ok()?;
    told.attempts.get(usize::from(answered.attempt.checked_sub(1)?))
}

struct Spans<'a> {
    told: &'a RequestTrace,
    start_ns: u64,
    spans: Vec<Span>,
}

impl Spans<'_> {
    /// Adds a span from here to there, nanoseconds since the request came.
    fn add(
        &mut self,
        parent: Option<[u8; 8]>,
        name: String,
        [from_ns, to_ns]: [u64; 2],
        attributes: Vec<(&'static str, Value)>,
    ) -> [u8; 8] {
        let RequestTrace { request, parent: caller, .. } = self.told;
        let id = span_id(*request, self.spans.len());
        let kind = if parent.is_none() { Kind::Server } else { Kind::Internal };
        self.spans.push(Span {
            trace: caller.map_or(request.0, |caller| caller.trace),
            id,
            parent: parent.or(caller.map(|caller| caller.span)),
            name,
            kind,
            start_ns: self.start_ns + from_ns,
            end_ns: self.start_ns + to_ns.max(from_ns),
            attributes,
            error: None,
        });
        id
    }

    /// Says of the last span that it failed.
    fn fail(&mut self, why: &str) {
        if let Some(span) = self.spans.last_mut() {
            span.error = Some(why.chars().take(ERROR_CHARS_MAX).collect());
        }
    }

    fn add_attempt(&mut self, root: [u8; 8], number: u16, attempt: &Attempt) {
        let took_ns = ns(self.told.took);
        let began_ns = ns(attempt.began).min(took_ns);
        let ended_ns = ns(attempt.ended).clamp(began_ns, took_ns);
        let attributes = vec![
            ("stormo.attempt", Value::Number(number.into())),
            ("stormo.plan", text(attempt.plan)),
            ("stormo.variant", text(&attempt.variant)),
        ];
        let id = self.add(Some(root), format!("attempt {number}"), [began_ns, ended_ns], attributes);
        if let Some(why) = &attempt.failed {
            self.fail(why);
        }
        let told = self.told;
        if let Some(answered) = told.outcome.as_ref().ok().filter(|answered| answered.attempt == number) {
            self.add_stages(id, answered, [began_ns, ended_ns]);
        }
    }

    fn add_stages(&mut self, attempt: [u8; 8], answered: &Answered, [began_ns, ended_ns]: [u64; 2]) {
        let laid = Laid::out(answered, ended_ns - began_ns);
        let at = |ns: u64| (began_ns + ns).min(ended_ns);
        if laid.encoded_ns > 0 {
            let of_input = trace_of(answered, ORIGIN).map_or(0, |trace| trace.encode_us);
            self.add_part(attempt, "encode", [began_ns, at(laid.encoded_ns)], of_input, vec![]);
        }
        for (index, bounds) in (0u16..).zip(&laid.stages) {
            let (Some(stage), Some(trace)) =
                (answered.plan.stages.get(usize::from(index)), trace_of(answered, index))
            else {
                continue;
            };
            let (node, label) = &answered.hosts[usize::from(index)];
            let attributes = vec![
                ("stormo.stage", Value::Number(index.into())),
                ("stormo.node", text(node)),
                ("stormo.node.label", text(label)),
                ("stormo.blocks", text(format_args!("{}-{}", stage.first, stage.end - 1))),
                ("stormo.host", text(if trace.host == 0 { "primary" } else { "backup" })),
            ];
            let bounds = bounds.map(at);
            let id = self.add(Some(attempt), format!("stage {index}"), [bounds[0], bounds[5]], attributes);
            let bytes = answered.input_bytes.get(usize::from(index)).copied().unwrap_or(0);
            let sent = sent(senders(answered, index), stage.codec, bytes);
            let took = [trace.receive_us, trace.decode_us, trace.wait_us, trace.run_us, trace.encode_us];
            let parts = ["send", "decode", "queue", "run", "encode"];
            let mut sent = Some(sent);
            for ((name, took_us), part) in parts.into_iter().zip(took).zip(bounds.windows(2)) {
                if part[0] < part[1] || name == "run" {
                    self.add_part(id, name, [part[0], part[1]], took_us, sent.take().unwrap_or_default());
                }
                sent = None;
            }
        }
        self.add_result(attempt, answered, laid.result.map(at));
    }

    fn add_result(
        &mut self,
        attempt: [u8; 8],
        answered: &Answered,
        [begin_ns, received_ns, decoded_ns]: [u64; 3],
    ) {
        let id = self.add(Some(attempt), "result".into(), [begin_ns, decoded_ns], vec![]);
        let last = answered.plan.beside(answered.plan.stages.len().saturating_sub(1) as u16);
        let sent = sent(last.collect(), answered.plan.result_codec, answered.result_bytes);
        let [receive_us, decode_us] = answered.result_times.map(|time| time.as_micros() as u32);
        self.add_part(id, "send", [begin_ns, received_ns], receive_us, sent);
        if decode_us > 0 {
            self.add_part(id, "decode", [received_ns, decoded_ns], decode_us, vec![]);
        }
    }

    fn add_part(
        &mut self,
        parent: [u8; 8],
        name: &str,
        bounds_ns: [u64; 2],
        measured_us: u32,
        mut attributes: Vec<(&'static str, Value)>,
    ) {
        attributes.push(("stormo.measured_us", Value::Number(measured_us.into())));
        self.add(Some(parent), name.to_owned(), bounds_ns, attributes);
    }
}

/// What is told of tensors on their way.
fn sent(from: Vec<u16>, codec: Codec, bytes: u64) -> Vec<(&'static str, Value)> {
    let name = |stage: &u16| if *stage == ORIGIN { "origin".to_owned() } else { stage.to_string() };
    let from: Vec<String> = from.iter().map(name).collect();
    vec![
        ("stormo.from", text(from.join(","))),
        ("stormo.codec", text(codec.name())),
        ("stormo.bytes", Value::Number(bytes)),
    ]
}

/// When things of an attempt were, nanoseconds since it began.
struct Laid {
    /// The input is encoded.
    encoded_ns: u64,
    /// Of each stage: it begins, has received, decoded, waited, run, encoded.
    stages: Vec<[u64; 6]>,
    /// The result is sent, received, decoded.
    result: [u64; 3],
}

impl Laid {
    /// What was measured, within so long.
    fn out(answered: &Answered, whole_ns: u64) -> Self {
        let tight = Self::with_ways(answered, 0, &|measured_ns| measured_ns);
        let measured_ns = tight.result[2];
        if measured_ns > whole_ns {
            let shorter = |ns: u64| (u128::from(ns) * u128::from(whole_ns) / u128::from(measured_ns)) as u64;
            return Self::with_ways(answered, 0, &shorter);
        }
        let ways = ways_behind_each_other(answered);
        Self::with_ways(answered, (whole_ns - measured_ns) / ways, &|measured_ns| measured_ns)
    }

    fn with_ways(answered: &Answered, way_ns: u64, as_drawn: &dyn Fn(u64) -> u64) -> Self {
        let of_us = |micros: u32| as_drawn(u64::from(micros) * 1000);
        let encoded_ns = trace_of(answered, ORIGIN).map_or(0, |trace| of_us(trace.encode_us));
        let mut stages: Vec<[u64; 6]> = Vec::with_capacity(answered.plan.stages.len());
        for index in 0..answered.plan.stages.len() as u16 {
            let end_of = |stage: u16| stages.get(usize::from(stage)).map_or(encoded_ns, |bounds| bounds[5]);
            let begin = senders(answered, index).into_iter().map(end_of).max().unwrap_or(encoded_ns);
            let empty = StageTrace::default();
            let trace = trace_of(answered, index).unwrap_or(&empty);
            let received = begin + way_ns + of_us(trace.receive_us);
            let decoded = received + of_us(trace.decode_us);
            let waited = decoded + of_us(trace.wait_us);
            let ran = waited + of_us(trace.run_us);
            stages.push([begin, received, decoded, waited, ran, ran + of_us(trace.encode_us)]);
        }
        let begin = stages.iter().map(|bounds| bounds[5]).max().unwrap_or(encoded_ns);
        let [receive, decode] = answered.result_times.map(ns).map(as_drawn);
        Self {
            encoded_ns,
            stages,
            result: [begin, begin + way_ns + receive, begin + way_ns + receive + decode],
        }
    }
}

/// Ways between nodes, or within one, that follow each other from the input to the result; one at least.
fn ways_behind_each_other(answered: &Answered) -> u64 {
    let mut ways: Vec<u64> = Vec::with_capacity(answered.plan.stages.len());
    for index in 0..answered.plan.stages.len() as u16 {
        let before = senders(answered, index).into_iter();
        ways.push(1 + before.filter_map(|stage| ways.get(usize::from(stage)).copied()).max().unwrap_or(0));
    }
    1 + ways.into_iter().max().unwrap_or(0)
}

fn senders(answered: &Answered, stage: u16) -> Vec<u16> {
    if answered.plan.is_join(stage) {
        answered.plan.senders(stage)
    } else {
        vec![answered.plan.before(stage)]
    }
}

fn trace_of(answered: &Answered, stage: u16) -> Option<&StageTrace> {
    answered.traces.iter().find(|trace| trace.stage == stage)
}

/// Another one for each place of each request, so that requests of one trace do not meet.
fn span_id(request: RequestId, place: usize) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_derive_key("stormo 1 span id");
    hasher.update(&request.0).update(&(place as u64).to_le_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    id
}

fn ns(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

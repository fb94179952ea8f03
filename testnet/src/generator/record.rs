//! What the generator notes while it sends: each request's end, each distinct answer once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stormo::serve::json::ErrorView;

use super::answer;
use super::arrivals::Arrival;
use super::connection::Response;
use crate::history::{Answer, Name, Names, Outcome, Output, Request};

/// Bytes of distinct answers that are kept for the judge.
const OUTPUTS_BYTES_MAX: usize = 256 << 20;
/// Place of outputs that found no room: none is there.
const NOT_KEPT: u32 = u32::MAX;
/// Of an error's text, what is kept: the words that matter come first.
const ERROR_CHARS_MAX: usize = 300;
/// Distinct texts; further errors are told as one.
const TEXTS_MAX: usize = 10_000;

/// How an exchange went.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) sent_us: Option<u64>,
    pub(super) ended_us: u64,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    Response(Response),
    Outcome(Outcome),
}

impl Exchange {
    /// One that nothing was sent for.
    pub(super) fn unsent(begun: Instant, outcome: Outcome) -> Self {
        let ended_us = begun.elapsed().as_micros() as u64;
        Self { sent_us: None, ended_us, end: End::Outcome(outcome) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Recorder {
    serial: u32,
    names: Names,
    requests: Vec<Request>,
    places: HashMap<Box<[u8]>, u32>,
    outputs: Vec<Vec<Output>>,
    outputs_bytes: usize,
    /// Bytes that came where no answer was waited for.
    pub(super) unasked: u32,
    faults: Vec<String>,
    /// By how much an arrival was handed out too late.
    pub(super) late_max: Duration,
}

/// All that was noted.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Requests that were begun.
    pub begun: u32,
    /// Texts.
    pub names: Names,
    /// Requests in the order of their ends.
    pub requests: Vec<Request>,
    /// Distinct answers.
    pub outputs: Vec<Vec<Output>>,
    /// Bytes that came where no answer was waited for.
    pub unasked: u32,
    /// What the generator could not keep to.
    pub faults: Vec<String>,
    /// Processor time that it took.
    pub busy: Duration,
    /// By how much an arrival was handed out too late, at most.
    pub late_max: Duration,
}

impl Recorder {
    pub(super) fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn fault(&mut self, what: String) {
        if !self.faults.contains(&what) {
            self.faults.push(what);
        }
    }

    /// The place of an error's text.
    pub(super) fn name(&mut self, error: &str) -> Name {
        // Errors may name ids, so that each is another text.
        if self.names.count() > TEXTS_MAX {
            return self.names.place("(one of many more errors)");
        }
        let kept: String = error.chars().take(ERROR_CHARS_MAX).collect();
        self.names.place(&kept)
    }

    pub(super) fn ran_since(&self, since_us: u64) -> Vec<String> {
        let recent = self.requests.iter().rev().take_while(|request| request.ended_us >= since_us);
        let answers = recent.filter_map(Request::answer);
        answers.flat_map(|answer| self.names.text(answer.nodes).split(',').map(str::to_owned)).collect()
    }

    /// Notes how a request ended.
    pub(super) fn end(&mut self, serial: u32, ids: &str, course: u16, arrival: Arrival, exchange: Exchange) {
        let outcome = match exchange.end {
            End::Outcome(outcome) => outcome,
            End::Response(response) => self.outcome(&response, &format!("{ids}-{serial}")),
        };
        self.requests.push(Request {
            serial,
            load: course,
            entry: arrival.entry,
            input: arrival.input,
            intended_us: arrival.at_us,
            sent_us: exchange.sent_us,
            ended_us: exchange.ended_us,
            outcome,
        });
    }

    fn outcome(&mut self, response: &Response, own_id: &str) -> Outcome {
        if response.status != 200 {
            let said = serde_json::from_slice::<ErrorView>(&response.body).map(|view| view.error);
            let error = said.unwrap_or_else(|_| String::from_utf8_lossy(&response.body).into_owned());
            return Outcome::Refused { status: response.status, error: self.name(&error) };
        }
        match self.answer(response, own_id) {
            Ok(answer) => Outcome::Answered(answer),
            Err(what) => Outcome::Malformed { error: self.name(&what) },
        }
    }

    fn answer(&mut self, response: &Response, own_id: &str) -> Result<Answer, String> {
        let (head, tensors) = answer::read(&response.body, response.json_bytes)?;
        let key = answer::key(&head, tensors);
        let outputs = match self.places.get(&key) {
            Some(place) => *place,
            None if self.outputs_bytes + 2 * key.len() > OUTPUTS_BYTES_MAX => {
                self.fault(format!(
                    "more than {OUTPUTS_BYTES_MAX} bytes of distinct answers; the rest is unjudged"
                ));
                NOT_KEPT
            }
            None => {
                let outputs = answer::outputs(&head, tensors)?;
                let place = u32::try_from(self.outputs.len()).unwrap_or(NOT_KEPT);
                self.outputs_bytes += 2 * key.len();
                self.outputs.push(outputs);
                self.places.insert(key, place);
                place
            }
        };
        let parameters = &head.parameters;
        Ok(Answer {
            has_own_id: head.id.as_deref() == Some(own_id),
            variant: self.names.place(&parameters.variant),
            plan: self.names.place(&parameters.plan_id),
            nodes: self.names.place(&parameters.nodes),
            codecs: self.names.place(&parameters.codecs),
            attempts: parameters.attempts,
            failovers: parameters.failovers,
            is_late: parameters.late,
            outputs,
        })
    }

    pub(super) fn told(self, busy: Duration, mut faults: Vec<String>) -> Recorded {
        faults.extend(self.faults);
        let Self { serial, names, requests, outputs, unasked, late_max, .. } = self;
        Recorded { begun: serial, names, requests, outputs, unasked, faults, busy, late_max }
    }
}

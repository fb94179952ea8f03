//! From a file's entries to a scenario: every name resolved, every figure within its bounds, each error
//! at its place and with its field.

mod deploys;
mod expect;
mod faults;
mod loads;

use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::Scenario;
use super::entries::{ExpectEntry, File};
use crate::rules;
use crate::topology::{Topology, TopologyError};

/// A longer one is refused: two hours of steady load are the longest that is asked for.
const DURATION_S_MAX: f64 = 4.0 * 3600.0;
/// Deployments and loads, each.
const ENTRIES_MAX: usize = 64;

/// What is wrong, and where in the text.
#[derive(Debug)]
pub(super) enum Wrong {
    Here { at: usize, message: String },
    Topology { at: usize, cause: Box<TopologyError> },
}

impl Wrong {
    fn at(span: &Range<usize>, message: impl Into<String>) -> Self {
        Self::Here { at: span.start, message: message.into() }
    }
}

/// What entries are checked against.
struct Around<'a> {
    text: &'a str,
    topology: &'a Topology,
    duration_us: u64,
}

impl Around<'_> {
    /// The place of a node.
    fn node(&self, field: &str, label: &Spanned<String>) -> Result<usize, Wrong> {
        let nodes = &self.topology.nodes;
        nodes.iter().position(|node| node.label == *label.get_ref()).ok_or_else(|| {
            let known: Vec<&str> = nodes.iter().map(|node| node.label.as_str()).collect();
            let known = known.join(", ");
            let message =
                format!("`{field}`: the topology has no node `{}`; its nodes: {known}", label.get_ref());
            Wrong::at(&label.span(), message)
        })
    }

    /// The line of a place in the text.
    fn line(&self, span: &Range<usize>) -> usize {
        rules::line_of(self.text, span.start)
    }
}

pub(super) fn read(
    path: &Path,
    text: &str,
    load_topology: &dyn Fn(&str, &Path) -> Result<Topology, TopologyError>,
) -> Result<Scenario, Wrong> {
    let file: File = toml::from_str(text).map_err(|error| {
        let (at, message) = rules::misread(text, &error);
        Wrong::Here { at, message }
    })?;
    if file.about.get_ref().trim().is_empty() {
        let message = "`about` says nothing; write what this scenario shows";
        return Err(Wrong::at(&file.about.span(), message));
    }
    let topology = load_topology(file.topology.get_ref(), path)
        .map_err(|cause| Wrong::Topology { at: file.topology.span().start, cause: Box::new(cause) })?;
    let duration_s = within("duration_s", &file.duration_s, 0.1, DURATION_S_MAX)?;
    let around = Around { text, topology: &topology, duration_us: micros(duration_s) };
    if file.deploy.len() > ENTRIES_MAX || file.load.len() > ENTRIES_MAX || file.load.is_empty() {
        let message =
            format!("a scenario has at most {ENTRIES_MAX} of `deploy` and 1 to {ENTRIES_MAX} of `load`");
        return Err(Wrong::at(&(0..0), message));
    }
    let deploys = deploys::read(&around, file.deploy)?;
    let loads = loads::read(&around, &deploys, file.load)?;
    let faults = faults::read(&around, &loads, file.fault)?;
    let nothing = || Spanned::new(0..0, ExpectEntry::default());
    let expect = expect::read(&around, &file.expect.unwrap_or_else(nothing), &loads, &faults)?;
    let duration_us = around.duration_us;
    Ok(Scenario {
        path: path.to_owned(),
        text: text.to_owned(),
        about: file.about.into_inner(),
        topology_name: file.topology.into_inner(),
        topology,
        seed: file.seed.unwrap_or(1),
        duration_us,
        deploys,
        loads,
        faults,
        expect,
    })
}

/// A number within bounds, which not-a-number is not.
fn within(field: &str, value: &Spanned<f64>, low: f64, high: f64) -> Result<f64, Wrong> {
    let given = *value.get_ref();
    if given >= low && given <= high {
        return Ok(given);
    }
    let given = rules::short(given);
    Err(Wrong::at(&value.span(), format!("`{field}` is {given}; it must be from {low} to {high}")))
}

/// The same where it may be absent.
fn within_if(field: &str, value: Option<&Spanned<f64>>, low: f64, high: f64) -> Result<Option<f64>, Wrong> {
    value.map(|value| within(field, value, low, high)).transpose()
}

/// Microseconds of checked seconds.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

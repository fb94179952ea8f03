//! What `stormo top` knows, and what news and keys make of it. No terminal, no clock.

use std::collections::VecDeque;

use crate::serve::json::{DeploymentView, EventView, NodeView, RequestsView, What};

/// Events that are kept to be shown.
const EVENTS_MAX: usize = 200;

/// The mesh at one moment, as the node saw it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub nodes: Vec<NodeView>,
    pub deployments: Vec<DeploymentView>,
    pub requests: RequestsView,
    pub own: NodeView,
}

/// What the node brings.
#[derive(Debug)]
pub(super) enum News {
    Snapshot(Box<Snapshot>),
    /// It does not answer.
    Silent(String),
    Event(EventView),
    /// Events were dropped before they were read.
    Missed(u64),
    /// A signal ends the program.
    End,
}

/// What the user presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Sort,
    Help,
}

/// What nodes are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Load,
    Memory,
    Age,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Load => "load",
            Self::Memory => "memory",
            Self::Age => "age",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Name => Self::Load,
            Self::Load => Self::Memory,
            Self::Memory => Self::Age,
            Self::Age => Self::Name,
        }
    }
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Top {
    pub api: String,
    pub snapshot: Option<Snapshot>,
    /// Why the node does not answer, while it does not.
    pub silent: Option<String>,
    /// The newest first.
    pub events: VecDeque<String>,
    pub sort: Sort,
    selected: usize,
    help: bool,
}

impl Top {
    pub(super) fn new(api: &str) -> Self {
        Self {
            api: api.to_owned(),
            snapshot: None,
            silent: None,
            events: VecDeque::new(),
            sort: Sort::Name,
            selected: 0,
            help: false,
        }
    }

    pub(super) fn shows_help(&self) -> bool {
        self.help
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Snapshot(snapshot) => {
                self.snapshot = Some(*snapshot);
                if self.silent.take().is_some() {
                    self.note("the node answers again".to_owned());
                }
                self.order();
            }
            News::Silent(why) => {
                if self.silent.is_none() {
                    self.note("the node does not answer".to_owned());
                }
                self.silent = Some(why);
            }
            News::Event(event) if is_of_note(&event) => self.note(in_words(&event)),
            News::Event(_) => {}
            News::Missed(missed) => self.note(format!("{missed} events were not read in time")),
            News::End => {}
        }
    }

    pub(super) fn press(&mut self, key: Key) {
        match key {
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(self.nodes().len().saturating_sub(1)),
            Key::Sort => {
                self.sort = self.sort.next();
                self.order();
            }
            Key::Help => self.help = !self.help,
        }
    }

    /// Nodes in their order.
    pub(super) fn nodes(&self) -> &[NodeView] {
        self.snapshot.as_ref().map_or(&[], |snapshot| &snapshot.nodes)
    }

    /// Place of the node that the user is at.
    pub(super) fn selected(&self) -> usize {
        self.selected.min(self.nodes().len().saturating_sub(1))
    }

    fn order(&mut self) {
        let sort = self.sort;
        let Some(snapshot) = &mut self.snapshot else { return };
        let most_first = |one: f64, other: f64| other.total_cmp(&one);
        snapshot.nodes.sort_by(|one, other| {
            let by_value = match sort {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::Load => most_first(one.utilisation, other.utilisation),
                Sort::Memory => other.memory_used_bytes.cmp(&one.memory_used_bytes),
                Sort::Age => other.age_ms.cmp(&one.age_ms),
            };
            by_value.then_with(|| (&one.label, one.id).cmp(&(&other.label, other.id)))
        });
    }

    fn note(&mut self, text: String) {
        self.events.push_front(text);
        self.events.truncate(EVENTS_MAX);
    }
}

/// Requests that went well would leave no line for anything else.
fn is_of_note(event: &EventView) -> bool {
    !matches!(event.what, What::RequestBegun { .. } | What::RequestEnded { attempts: 0..=1, .. })
}

/// An event in a line, with its time of day in UTC.
fn in_words(event: &EventView) -> String {
    let second = event.unix_ms / 1000 % 86_400;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    let what = match &event.what {
        What::NodeJoined(of) => format!("{} joined", of.label),
        What::NodeChanged(of) => format!("{} changed", of.label),
        What::NodeSuspected(of) => format!("{} is suspected: not heard of", of.label),
        What::NodeLost(of) => format!("{} is lost", of.label),
        What::NodeReturned(of) => format!("{} is back", of.label),
        What::NodeLeft(of) => format!("{} left", of.label),
        What::Deployed { model, version } => format!("{model} version {version} is deployed"),
        What::Undeployed { model } => format!("{model} was taken back"),
        What::NameTaken { model, publisher } => format!("{model} belongs to {} now", publisher.label),
        What::HealthChanged { model, before, now } => {
            format!("{model} was {before:?}, is {now:?}").to_lowercase()
        }
        What::RequestBegun { model, id } => format!("request {} to {model} begins", short(id)),
        What::RequestEnded { model, id, latency_ms, attempts } => {
            let again = if *attempts > 1 { format!(", {attempts} attempts") } else { String::new() };
            format!("request {} to {model}: {latency_ms:.1} ms{again}", short(id))
        }
        What::RequestFailed { model, id, error, .. } => {
            format!("request {} to {model} failed: {error}", short(id))
        }
    };
    format!("{hours:02}:{minutes:02}:{seconds:02}Z {what}")
}

fn short(id: &str) -> String {
    id.chars().take(6).collect()
}

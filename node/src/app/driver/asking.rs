//! Other nodes asked directly how they are, instead of waiting for what they tell everybody.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::NodeId;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Signed, Stamp, Topic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Driver, Event};
use crate::app::calls::{CallError, Reply};
use crate::mesh::{Heard, MemberEvent, Said};
use crate::net::{AskError, Net};
use crate::serve::json::{NodeView, NodesView};

/// A node's answer about itself takes a round trip; what takes longer than this tells of its state too.
const STATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes that one caller's question goes to at once; the others' turn comes as answers do.
const ASKED_AT_ONCE_MAX: usize = 32;
/// Callers' questions under way; more are refused at once.
const QUESTIONS_MAX: usize = 32;
/// Between two looks at this machine's load: what it counts in are hundredths of a second.
const LOAD_LOOK_MS_MIN: u64 = 200;

/// Why a node did not say how it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StateError {
    /// No answer in time.
    #[error("it gave no answer within {} s", STATE_TIMEOUT.as_secs())]
    Silent,
    /// No way to it.
    #[error("{0}")]
    Unreachable(String),
    /// It will not say.
    #[error("it refused: {0}")]
    Refused(Refusal),
    /// Its answer is not a record that it signed.
    #[error("its answer is no record of its own; is it another version of stormo?")]
    Strange,
    /// Its answer is older than what it said before.
    #[error("its answer is older than what it said before; does a copy of its data folder run?")]
    Old,
}

/// What one node said when asked, and the stamp of what was known of it until then.
#[derive(Debug)]
struct Stated {
    node: NodeId,
    known: Option<Stamp>,
    said: Result<Signed, StateError>,
}

/// What is done once the nodes have been asked.
#[derive(Debug)]
pub(super) enum Then {
    /// One of them is shown.
    ShowNode(NodeId, Reply<NodeView>),
    /// All that are known are shown.
    ShowNodes(Reply<NodesView>),
}

/// What nodes said when asked how they are.
#[derive(Debug)]
pub struct States {
    answers: Vec<Stated>,
    then: Then,
    _turn: OwnedSemaphorePermit,
}

/// Whose turn it is to ask.
#[derive(Debug)]
pub(super) struct Asking(Arc<Semaphore>);

impl Default for Asking {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(QUESTIONS_MAX)))
    }
}

impl Driver {
    /// Asks several nodes at once how they are, all within the same time; goes on when all have answered or
    /// the time is over.
    ///
    /// # Errors
    /// When too many such questions are under way; `then` comes back.
    pub(super) fn ask_states(&self, nodes: Vec<NodeId>, then: Then) -> Result<(), Then> {
        let Ok(turn) = self.asking.0.clone().try_acquire_owned() else { return Err(then) };
        let known = |node| self.member.view().get(node).map(|known| known.record.stamp);
        let asked: Vec<_> = nodes.into_iter().map(|node| (node, known(node))).collect();
        let net = self.parts.net.clone();
        self.beside(async move {
            let until = tokio::time::Instant::now() + STATE_TIMEOUT;
            let answers = futures::stream::iter(asked)
                .map(|(node, known)| {
                    let net = net.clone();
                    async move { Stated { node, known, said: ask_state(&net, node, until).await } }
                })
                .buffer_unordered(ASKED_AT_ONCE_MAX);
            Event::States(States { answers: answers.collect().await, then, _turn: turn })
        });
        Ok(())
    }

    pub(super) fn on_states(&mut self, States { answers, then, .. }: States) {
        let mut failed = Vec::new();
        for answer in answers {
            let node = answer.node;
            if let Err(error) = self.take_in(answer) {
                tracing::debug!(peer = %node.short(), %error, "asked how it is, without success");
                failed.push((node, error));
            }
        }
        match then {
            Then::ShowNode(node, reply) => {
                let shown = match failed.into_iter().find(|(asked, _)| *asked == node) {
                    Some((_, error)) => Err(self.no_state(node, &error)),
                    None => self.known_view(node),
                };
                let _ = reply.send(shown);
            }
            Then::ShowNodes(reply) => {
                let _ = reply.send(Ok(self.nodes_view()));
            }
        }
    }

    /// What a node said of itself counts like what it tells everybody.
    fn take_in(&mut self, Stated { node, known, said }: Stated) -> Result<(), StateError> {
        let heard = of_itself(node, known, said?)?;
        self.on_member(MemberEvent::Heard(vec![heard]));
        Ok(())
    }

    fn no_state(&self, node: NodeId, error: &StateError) -> CallError {
        let text = format!("`{}` ({node}) was asked how it is: {error}", self.label_of(node));
        match error {
            StateError::Silent => CallError::Deadline(text),
            _ => CallError::Unavailable(text),
        }
    }

    /// `/v1/node`.
    pub(super) fn show_own(&mut self, fresh: bool) -> NodeView {
        if fresh {
            self.look_at_load();
        }
        self.own_view()
    }

    /// `/v1/nodes`; fresh: each is asked first, and who gives no answer is shown as it was known.
    pub(super) fn show_nodes(&mut self, fresh: bool, reply: Reply<NodesView>) {
        if !fresh {
            let _ = reply.send(Ok(self.nodes_view()));
            return;
        }
        self.look_at_load();
        let others = self.member.view().iter().map(|known| known.record.node).collect();
        self.ask_or_refuse(others, Then::ShowNodes(reply));
    }

    /// `/v1/nodes/NAME`; fresh: it is asked first.
    pub(super) fn show_node(&mut self, name: &str, fresh: bool, reply: Reply<NodeView>) {
        match self.node_called(name) {
            Err(error) => {
                let _ = reply.send(Err(error));
            }
            Ok(node) if node == self.own() => {
                let _ = reply.send(Ok(self.show_own(fresh)));
            }
            Ok(node) if fresh => self.ask_or_refuse(vec![node], Then::ShowNode(node, reply)),
            Ok(node) => {
                let _ = reply.send(self.known_view(node));
            }
        }
    }

    fn ask_or_refuse(&self, nodes: Vec<NodeId>, then: Then) {
        let text = || {
            let why = "questions to other nodes are under way; try again shortly";
            CallError::Overloaded(format!("{QUESTIONS_MAX} {why}"))
        };
        match self.ask_states(nodes, then) {
            Ok(()) => {}
            Err(Then::ShowNode(_, reply)) => {
                let _ = reply.send(Err(text()));
            }
            Err(Then::ShowNodes(reply)) => {
                let _ = reply.send(Err(text()));
            }
        }
    }

    /// A node by its peer id, the end of it that tables show, or its label.
    pub(super) fn node_called(&self, name: &str) -> Result<NodeId, CallError> {
        let others = self.member.view().iter().map(|known| known.record.node);
        let all: Vec<NodeId> = std::iter::once(self.own()).chain(others).collect();
        if let Some(node) = all.iter().find(|node| node.to_string() == name) {
            return Ok(*node);
        }
        let called = |node: &&NodeId| self.label_of(**node) == name || node.short() == name;
        let found: Vec<NodeId> = all.iter().filter(called).copied().collect();
        match found.as_slice() {
            [node] => Ok(*node),
            [] => Err(CallError::NotFound(format!(
                "no node `{name}` is known here; `stormo status` lists those that are"
            ))),
            several => {
                let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(CallError::Conflict(format!(
                    "{} nodes are called `{name}`; name one by its peer id: {}",
                    several.len(),
                    ids.join(", ")
                )))
            }
        }
    }

    /// Another node asks how this one is: the answer is newer than all that it said before.
    pub(super) fn own_state(&mut self) -> Response {
        self.look_at_load();
        self.on_changed();
        self.sign();
        let signed = self.member.own_record().map(|heard| heard.signed().as_ref().clone());
        signed.map_or(Response::Refused(Refusal::Leaving), Response::State)
    }

    /// Looks at how busy this machine is, unless it just did.
    pub(super) fn look_at_load(&mut self) {
        let now_ms = self.now_ms();
        if now_ms >= self.load_looked_ms + LOAD_LOOK_MS_MIN {
            self.load_looked_ms = now_ms;
            self.utilisation_permille = self.utilisation.permille();
        }
    }
}

async fn ask_state(net: &Net, node: NodeId, until: tokio::time::Instant) -> Result<Signed, StateError> {
    let within = until.saturating_duration_since(tokio::time::Instant::now());
    match net.ask(node, &Request::State, within).await {
        Ok(Response::State(signed)) => {
            let is_its_own = signed.topic == Topic::Node && signed.author == node && net.is_valid(&signed);
            if is_its_own { Ok(signed) } else { Err(StateError::Strange) }
        }
        Ok(_) | Err(AskError::Malformed(_)) => Err(StateError::Strange),
        Err(AskError::Refused(reason)) => Err(StateError::Refused(reason)),
        Err(AskError::Unreachable(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err(StateError::Silent)
        }
        Err(error @ AskError::Unreachable(_)) => Err(StateError::Unreachable(error.to_string())),
    }
}

/// An answer whose signature was checked, if it is what a node says of itself and not older than what was
/// known of it.
fn of_itself(node: NodeId, known: Option<Stamp>, said: Signed) -> Result<Heard, StateError> {
    let heard = Heard::read(said).ok_or(StateError::Strange)?;
    match heard.said() {
        Said::Node(record) if record.node == node && known.is_some_and(|known| record.stamp < known) => {
            Err(StateError::Old)
        }
        Said::Node(record) if record.node == node => Ok(heard),
        Said::Node(_) | Said::Deployment(_) | Said::Order(_) => Err(StateError::Strange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::profile::Speeds;
    use stormo_protocol::state::{Class, Load, Machine, NodeRecord, Offer};

    const NODE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([2; 32]);

    fn record(node: NodeId, generation: u64, sequence: u64) -> Signed {
        let machine = Machine {
            label: "n".into(),
            class: Class::Edge,
            addresses: vec![],
            cores: 1,
            speeds: Speeds::new([1000.0; 5]),
            memory_budget_bytes: 0,
        };
        let load = Load {
            memory_used_bytes: 0,
            utilisation_permille: 0,
            cold_us: 0,
            cold_us_per_mb: 0,
            leaving: false,
        };
        let stamp = Stamp { generation, sequence };
        let (offer, hosted, links, goals) = (Offer::default(), vec![], vec![], vec![]);
        let record = NodeRecord {
            node,
            stamp,
            machine,
            load,
            offer,
            hosted,
            links,
            coordinate: None,
            goals,
            domains: vec![],
            demands: vec![],
        };
        Signed { topic: Topic::Node, author: node, signature: vec![], body: record.to_bytes() }
    }

    #[test]
    fn only_what_is_its_own_and_not_older_counts() {
        let known = Some(Stamp { generation: 3, sequence: 5 });
        let stamp_of = |said| match of_itself(NODE, known, said).map(|heard| heard.said().clone()) {
            Ok(Said::Node(record)) => Ok(record.stamp.sequence),
            Ok(_) => unreachable!("nothing else is taken for a record"),
            Err(error) => Err(error),
        };
        assert_eq!(stamp_of(record(NODE, 3, 6)), Ok(6));
        // What it said just before comes twice from a node that does not renew its record for an answer.
        assert_eq!(stamp_of(record(NODE, 3, 5)), Ok(5));
        assert_eq!(stamp_of(record(NODE, 4, 1)), Ok(1));
        assert_eq!(stamp_of(record(NODE, 3, 4)), Err(StateError::Old));
        assert_eq!(stamp_of(record(NODE, 2, 9)), Err(StateError::Old));
        assert_eq!(stamp_of(record(OTHER, 3, 6)), Err(StateError::Strange));
        assert_eq!(stamp_of(Signed { author: OTHER, ..record(NODE, 3, 6) }), Err(StateError::Strange));
        assert_eq!(stamp_of(Signed { body: vec![7; 40], ..record(NODE, 3, 6) }), Err(StateError::Strange));
        assert!(of_itself(NODE, None, record(NODE, 1, 0)).is_ok());
    }
}

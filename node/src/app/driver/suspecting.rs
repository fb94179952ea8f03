//! Hosts that owe signs of life: those that fell silent, which plans leave out until they answer; and those that are only
//! quiet so far, which nothing more is sent to while there are others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stormo_protocol::control::Request;
use stormo_protocol::frame::DeliveryKey;
use stormo_protocol::ids::NodeId;

use super::{Driver, Event};
use crate::flow::{Suspects, patience_ms};
use crate::mesh::{MemberEvent, View};
use crate::net::{AskError, Patience};

/// A question to a suspect may take this long at least: it may lie behind tensors in a link that turned slow.
const ANSWER_WITHIN_MIN: Duration = Duration::from_millis(500);
/// The hosts of a request that takes longer are asked whether they live, each of them once in a second at most.
const LONG_REQUEST: Duration = Duration::from_secs(1);

/// Whether a node is there, for all that is no request.
pub(super) fn is_there(view: &View, suspects: &Suspects, now_ms: u64, node: NodeId) -> bool {
    view.is_usable(now_ms, node) && !is_lost(view, suspects, now_ms, node)
}

/// Whether a node is taken for lost because requests found it silent, sooner than its heartbeats are missed.
pub(super) fn is_lost(view: &View, suspects: &Suspects, now_ms: u64, node: NodeId) -> bool {
    view.get(node).is_some_and(|known| suspects.is_lost(now_ms, node, known.heard_ms))
}

impl Driver {
    /// How long another node is waited for.
    pub(super) fn patience_with(&self, to: NodeId) -> Patience {
        let silence = Duration::from_millis(self.patience_ms(to));
        Patience { silence, is_connected: self.is_connected(to), late_after: None, quiet: None }
    }

    fn patience_ms(&self, node: NodeId) -> u64 {
        patience_ms(self.member.links().round_trip_us(node).unwrap_or(0.0) / 1000.0)
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.member.connected().contains(&node)
    }

    /// For how long a node may owe a sign before it is quiet: half of what makes it silent, so that one sign that is late
    /// is none that is missing.
    pub(super) fn quiet_after(&self, node: NodeId) -> Duration {
        Duration::from_millis(self.patience_ms(node) / 2)
    }

    /// Whether a node owes a sign to deliveries that are under way. One that is being dialled owes none.
    pub(super) fn is_quiet(&self, node: NodeId) -> bool {
        let quiet_for = self.parts.net.quiet_for(node);
        !quiet_for.is_zero() && quiet_for >= self.quiet_after(node) && self.is_connected(node)
    }

    /// Whether a delivery is better made to another host of its stage, since the one that it is for is quiet. What is under way
    /// there already waits on: it is sent to others when silence is certain.
    pub(super) fn has_livelier(&self, key: DeliveryKey, to: NodeId) -> bool {
        let is_lively = |other: &NodeId| !self.suspects.is_out(*other) && !self.is_quiet(*other);
        self.is_quiet(to) && self.may_hedge(key, to).iter().any(is_lively)
    }

    /// A node leaves requests waiting, which others did in its place, so that nobody waits for its silence: it is asked whether
    /// it lives.
    pub(super) fn doubt(&mut self, node: NodeId) {
        if node != self.own() {
            self.suspects.doubt(self.now_ms(), node);
            self.ask_suspects();
        }
    }

    /// A node fell silent in the middle of a request, or its stream broke.
    pub(super) fn accuse(&mut self, node: NodeId) {
        if node != self.own() {
            if !self.suspects.is_out(node) {
                tracing::debug!(peer = %node.short(), "a host fell silent; plans leave it out until it answers");
            }
            self.suspects.accuse(self.now_ms(), node);
            self.ask_suspects();
        }
    }

    /// Doubts the hosts of requests that take long. Who sent something there hears of their silence, unless it is silent as
    /// well: then nobody but the origin is left to find out.
    pub(super) fn doubt_long_requests(&mut self) {
        let long = self.origins.values().filter(|pending| pending.started.elapsed() >= LONG_REQUEST);
        let stages = long.filter_map(|pending| pending.machine.plan()).flat_map(|plan| &plan.stages);
        let hosts: BTreeSet<NodeId> = stages.flat_map(|stage| stage.hosts()).collect();
        hosts.into_iter().for_each(|host| self.doubt(host));
    }

    /// Asks those who fell silent whether they live: their own front, not their partitions.
    pub(super) fn ask_suspects(&mut self) {
        // One that is gone for good would be a suspect for ever, and plans be made as after a fresh loss.
        let view = self.member.view();
        self.suspects.keep(|node| view.get(node).is_some());
        for node in self.suspects.to_ask(self.now_ms()) {
            let within = Duration::from_millis(self.patience_ms(node)).max(ANSWER_WITHIN_MIN);
            let net = self.parts.net.clone();
            self.beside(async move {
                let asked = Instant::now();
                // Who refuses to tell lives as well.
                let is_silent =
                    matches!(net.ask(node, &Request::State, within).await, Err(AskError::Unreachable(_)));
                Event::Asked(node, (!is_silent).then(|| asked.elapsed()))
            });
        }
    }

    pub(super) fn on_suspect_asked(&mut self, node: NodeId, answered_after: Option<Duration>) {
        match answered_after {
            Some(after) => {
                self.suspects.answered(self.now_ms(), node);
                // The link may have turned long: the next time it is waited for longer.
                self.on_member(MemberEvent::RoundTrip { peer: node, micros: after.as_secs_f64() * 1e6 });
            }
            None => {
                tracing::debug!(peer = %node.short(), "a suspect left its question unanswered");
                let was_silent = self.suspects.is_silent(node);
                self.suspects.unanswered(self.now_ms(), node);
                if self.suspects.is_silent(node) && !was_silent {
                    // Its connections may stay open for a minute.
                    self.peer_lost(node);
                }
            }
        }
    }
}

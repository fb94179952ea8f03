//! That names stand for something: links have two nodes at their ends, domains and translations have nodes, and the
//! first node can be reached by those that join it.

use std::ops::Range;

use toml::Spanned;

use super::super::file::{File, LinkEntry};
use super::super::{LinkRule, Topology, Wrong};

/// Where in the text the entries are that this is about.
pub(super) struct Places {
    first_behind: Range<usize>,
    domains: Vec<Range<usize>>,
    nats: Vec<Range<usize>>,
    links: Vec<Range<usize>>,
}

impl Places {
    pub(super) fn of(file: &File) -> Self {
        let first = file.node.get_ref().first().and_then(|node| node.behind.as_ref());
        Self {
            first_behind: first.map_or(0..0, Spanned::span),
            domains: file.domain.iter().map(|entry| entry.name.span()).collect(),
            nats: file.nat.iter().map(|entry| entry.name.span()).collect(),
            links: file
                .link
                .iter()
                .map(|entry| {
                    let LinkEntry { between, from, .. } = entry.get_ref();
                    let ends = between.as_ref().map(Spanned::span).or(from.as_ref().map(Spanned::span));
                    ends.unwrap_or_else(|| entry.span())
                })
                .collect(),
        }
    }

    pub(super) fn check(&self, topology: &Topology) -> Result<(), Wrong> {
        self.first_is_reached(topology)?;
        for (rule, at) in topology.link_rules.iter().zip(&self.links) {
            links_some(topology, rule).map_err(|message| Wrong::at(at, &message))?;
        }
        for (domain, at) in topology.domains.iter().zip(&self.domains) {
            let name = &domain.name;
            if topology.members(name).is_empty() {
                let message =
                    format!("name `{name}`: no node is in this domain; name it in a node's `domains`");
                return Err(Wrong::at(at, &message));
            }
        }
        for (nat, at) in topology.nats.iter().zip(&self.nats) {
            let name = &nat.name;
            if topology.nodes.iter().all(|node| node.behind.as_ref() != Some(name)) {
                let message =
                    format!("name `{name}`: no node is behind this nat; name it as a node's `behind`");
                return Err(Wrong::at(at, &message));
            }
        }
        Ok(())
    }

    fn first_is_reached(&self, topology: &Topology) -> Result<(), Wrong> {
        let Some(first) = topology.nodes.first() else { return Ok(()) };
        let outside = topology.nodes.iter().find(|node| node.behind != first.behind);
        let (Some(behind), Some(outside)) = (&first.behind, outside) else { return Ok(()) };
        let message = format!(
            "behind `{behind}`: all others join the first node, and `{}` cannot reach it there; begin with a node that is \
             behind nothing",
            outside.label
        );
        Err(Wrong::at(&self.first_behind, &message))
    }
}

/// That a link has different nodes at its ends.
fn links_some(topology: &Topology, rule: &LinkRule) -> Result<(), String> {
    let LinkRule { from, to, .. } = rule;
    let ends = [from, to].map(|name| topology.members(name));
    if let Some(empty) =
        [from, to].into_iter().zip(&ends).find_map(|(name, nodes)| nodes.is_empty().then_some(name))
    {
        return Err(format!("a link between `{from}` and `{to}`: no node is in the domain `{empty}`"));
    }
    let [ones, others] = &ends;
    // The links within a domain may wait for more nodes.
    if from != to && ones.iter().all(|one| others.iter().all(|other| other == one)) {
        return Err(format!(
            "a link between `{from}` and `{to}`: both are `{}` alone, which has no link to itself",
            ones[0]
        ));
    }
    Ok(())
}

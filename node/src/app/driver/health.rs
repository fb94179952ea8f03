//! How well deployments are served by the nodes that are there.

use std::collections::BTreeSet;
use std::ops::Range;

use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Deployment, NodeRecord};

use super::Driver;
use crate::serve::json::{CoverView, Health, HealthView};

impl Driver {
    pub(super) fn health_of(&self, deployment: &Deployment) -> HealthView {
        let replicas = deployment.wished.replicas;
        let own = self.record();
        let others = self.member.view().iter().map(|known| known.record.as_ref());
        let there = others.filter(|record| self.is_usable(record.node));
        // A copy on a node that takes no work of others serves nobody else.
        let records = std::iter::once(&own).chain(there).filter(|record| record.offer.takes_work());
        let records: Vec<&NodeRecord> = records.collect();
        let mut variants = Vec::new();
        for (id, variant) in deployment.variants() {
            let Some(manifest) = self.manifests.get(&id) else {
                return HealthView { state: None, replicas, cover: Vec::new() };
            };
            let hosted = records.iter().flat_map(|record| {
                let of_it = record.hosted.iter().filter(|hosted| hosted.variant == id);
                of_it.map(|hosted| (record.node, hosted.first..hosted.end))
            });
            let blocks = manifest.graph_part(0..manifest.block_count());
            variants.push((variant.label.as_str(), cover(blocks, &hosted.collect::<Vec<_>>())));
        }
        let counts: Vec<&[(Range<u16>, u16)]> = variants.iter().map(|(_, cover)| cover.as_slice()).collect();
        let state = Some(health(&counts, replicas));
        let cover = variants.iter().flat_map(|(label, cover)| {
            cover.iter().map(|(blocks, nodes)| CoverView {
                variant: (*label).to_owned(),
                blocks: [blocks.start, blocks.end],
                nodes: *nodes,
            })
        });
        HealthView { state, replicas, cover: cover.collect() }
    }
}

/// On how many nodes each block is; neighbours on equally many are one range.
fn cover(blocks: Range<u16>, hosted: &[(NodeId, Range<u16>)]) -> Vec<(Range<u16>, u16)> {
    let mut cover: Vec<(Range<u16>, u16)> = Vec::new();
    for block in blocks {
        let hosts = hosted.iter().filter(|(_, range)| range.contains(&block)).map(|(node, _)| *node);
        let nodes = hosts.collect::<BTreeSet<NodeId>>().len() as u16;
        match cover.last_mut() {
            Some((range, count)) if *count == nodes => range.end = block + 1,
            _ => cover.push((block..block + 1, nodes)),
        }
    }
    cover
}

/// Of all variants together. A variant of which nothing is loaded anywhere does not make the others worse:
/// it was too large for the nodes that there are.
fn health(variants: &[&[(Range<u16>, u16)]], replicas: u16) -> Health {
    let least = |cover: &[(Range<u16>, u16)]| cover.iter().map(|(_, nodes)| *nodes).min().unwrap_or(u16::MAX);
    let is_anywhere = |cover: &[(Range<u16>, u16)]| cover.iter().any(|(_, nodes)| *nodes > 0);
    let loaded: Vec<u16> = variants
        .iter()
        .filter(|cover| is_anywhere(cover) || cover.is_empty())
        .map(|cover| least(cover))
        .collect();
    if loaded.iter().all(|nodes| *nodes == 0) {
        Health::Down
    } else if loaded.iter().any(|nodes| *nodes < replicas.max(1)) {
        Health::Degraded
    } else {
        Health::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn blocks_are_counted_by_nodes_not_by_copies() {
        let hosted = [(node(1), 0..3), (node(2), 0..2), (node(1), 0..2), (node(3), 4..5)];
        assert_eq!(cover(0..5, &hosted), [(0..2, 2), (2..3, 1), (3..4, 0), (4..5, 1)]);
        assert_eq!(cover(0..0, &hosted), []);
    }

    #[test]
    fn one_word_for_all() {
        let (twice, once) = ([(0..5, 2)], [(0..2, 2), (2..5, 1)]);
        let (gap, nothing) = ([(0..4, 3), (4..5, 0)], [(0..5, 0)]);
        let none: [(Range<u16>, u16); 0] = [];
        assert_eq!(health(&[&twice], 2), Health::Ready);
        assert_eq!(health(&[&once], 2), Health::Degraded);
        assert_eq!(health(&[&once], 1), Health::Ready);
        assert_eq!(health(&[&gap], 1), Health::Down);
        assert_eq!(health(&[&nothing], 1), Health::Down);
        assert_eq!(health(&[&twice, &gap], 2), Health::Degraded);
        assert_eq!(health(&[&twice, &nothing], 2), Health::Ready);
        assert_eq!(health(&[&none], 2), Health::Ready, "a model without nodes needs no host");
    }
}

//! Which nodes of a large mesh a request's problem is posed over. Links are posed between each two of them, on the
//! driver's loop, so there is a limit.

use std::collections::BTreeMap;
use std::ops::Range;

use stormo_protocol::ids::VariantId;
use stormo_protocol::model::Manifest;

use super::Candidate;
use crate::mesh::LinkQuality;
use crate::profile::Predictor;

/// Nodes that a problem is posed over: several times what the planner looks at closely. A guess.
const FOREMOST_MAX: usize = 128;
/// Of these, at most so many for what they have loaded. A guess, as the next one.
const HOSTS_MAX: usize = 80;
/// So many each for being near, quick, and roomy, whatever else they are.
const BEST_OF_A_KIND: usize = 15;

/// A variant, and its blocks that are to run.
pub(in crate::app) struct Wanted<'a> {
    pub manifest: &'a Manifest,
    pub variant: VariantId,
    pub blocks: Range<u16>,
}

/// What is known of a candidate alone.
struct Rank {
    /// Half a round trip from the first.
    latency_ms: f64,
    /// Waiting and running all there.
    run_ms: f64,
    free_bytes: u64,
    /// Sending the input, running all and bringing the result home.
    whole_ms: f64,
}

/// The first candidate, and of the others that take work the foremost: hosts of what is wanted, rare parts first, the
/// nearest, the quickest, those with most memory, then those that would have all done soonest. In their order; all of them
/// if they are few.
pub(in crate::app) fn foremost<'a>(
    wanted: &[Wanted<'_>],
    candidates: Vec<Candidate<'a>>,
) -> Vec<Candidate<'a>> {
    if candidates.len() <= FOREMOST_MAX || wanted.is_empty() {
        return candidates;
    }
    let ranks = ranks(wanted, &candidates);
    let by_whole = |one: &usize, other: &usize| ranks[*one].whole_ms.total_cmp(&ranks[*other].whole_ms);
    let mut rest: Vec<usize> = (1..candidates.len()).filter(|index| candidates[*index].takes_work).collect();
    rest.sort_by(by_whole);
    let mut is_chosen = vec![false; candidates.len()];
    is_chosen[0] = true;
    for host in hosts(wanted, &candidates, &rest) {
        is_chosen[host] = true;
    }
    let mut by = |key: &dyn Fn(&Rank) -> f64, count: usize| {
        let mut left: Vec<usize> = rest.iter().copied().filter(|index| !is_chosen[*index]).collect();
        left.sort_by(|one, other| key(&ranks[*one]).total_cmp(&key(&ranks[*other])));
        left.into_iter().take(count).for_each(|index| is_chosen[index] = true);
        is_chosen.iter().filter(|is_chosen| **is_chosen).count()
    };
    by(&|rank| rank.latency_ms, BEST_OF_A_KIND);
    by(&|rank| rank.run_ms, BEST_OF_A_KIND);
    let chosen = by(&|rank| -(rank.free_bytes as f64), BEST_OF_A_KIND);
    by(&|rank| rank.whole_ms, FOREMOST_MAX.saturating_sub(chosen));
    let kept = candidates.into_iter().zip(is_chosen).filter(|(_, is_chosen)| *is_chosen);
    kept.map(|(candidate, _)| candidate).collect()
}

/// The first candidate, and of the others that take work those with most memory left: for what the foremost cannot hold. More
/// of them than a plan has stages.
pub(in crate::app) fn roomiest<'a>(
    candidates: Vec<Candidate<'a>>,
    left_bytes: impl Fn(&Candidate<'a>) -> u64,
) -> Vec<Candidate<'a>> {
    let Some((own, others)) = candidates.split_first() else { return candidates };
    let mut others: Vec<Candidate<'a>> = others.iter().copied().filter(|other| other.takes_work).collect();
    others.sort_by_key(|other| std::cmp::Reverse(left_bytes(other)));
    others.truncate(FOREMOST_MAX - 1);
    std::iter::once(*own).chain(others).collect()
}

/// By the first variant: others of a model do the same work.
fn ranks(wanted: &[Wanted<'_>], candidates: &[Candidate<'_>]) -> Vec<Rank> {
    let Some(Wanted { manifest, blocks: Range { start, end }, .. }) = wanted.first() else { return vec![] };
    let alone_us = Predictor::new(manifest).unmeasured_us(usize::from(*start)..usize::from(*end));
    let bytes = manifest.cut_bytes(*start).saturating_add(manifest.cut_bytes(*end));
    let rank = |candidate: &Candidate<'_>| {
        let record = candidate.record;
        let LinkQuality { latency_ms, ms_per_byte } = LinkQuality::between(candidates[0].record, record);
        let wait_us = record.hosted.iter().map(|hosted| hosted.queue_wait_us).max().unwrap_or(0);
        let run_ms = (alone_us(&record.machine.speeds) + wait_us as f64) / 1000.0 + candidate.late_ms;
        Rank {
            latency_ms,
            run_ms,
            free_bytes: record.free_bytes(),
            whole_ms: 2.0 * latency_ms + ms_per_byte * bytes as f64 + run_ms,
        }
    };
    candidates.iter().map(rank).collect()
}

/// Of those listed, the best first, hosts of each part in turn; parts that few have come first.
fn hosts(wanted: &[Wanted<'_>], candidates: &[Candidate<'_>], listed: &[usize]) -> Vec<usize> {
    let mut hosts_of: BTreeMap<(VariantId, u16, u16), Vec<usize>> = BTreeMap::new();
    for index in listed {
        for hosted in &candidates[*index].record.hosted {
            let overlaps = |of: &Wanted<'_>| {
                of.variant == hosted.variant && hosted.first < of.blocks.end && of.blocks.start < hosted.end
            };
            if wanted.iter().any(overlaps) {
                hosts_of.entry((hosted.variant, hosted.first, hosted.end)).or_default().push(*index);
            }
        }
    }
    let mut parts: Vec<Vec<usize>> = hosts_of.into_values().collect();
    parts.sort_by_key(Vec::len);
    let (mut chosen, mut is_chosen) = (vec![], vec![false; candidates.len()]);
    let rounds = parts.last().map_or(0, Vec::len);
    for round in 0..rounds {
        for host in parts.iter().filter_map(|hosts| hosts.get(round)) {
            if chosen.len() < HOSTS_MAX && !std::mem::replace(&mut is_chosen[*host], true) {
                chosen.push(*host);
            }
        }
    }
    chosen
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use stormo_protocol::ids::NodeId;
    use stormo_protocol::profile::Speeds;
    use stormo_protocol::state::{Class, Hosted, LinkEstimate, Load, Machine, NodeRecord, Offer, Stamp};

    use super::super::tests::{manifest, variant};
    use super::super::{Posed, Question, links};
    use super::*;
    use crate::plan;

    pub(in super::super) const MEMORY_BYTES: u64 = 1 << 20;

    fn id(node: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(node as u64).to_be_bytes());
        NodeId(id)
    }

    fn record(node: usize, speed: f64) -> NodeRecord {
        let machine = Machine {
            label: format!("node-{node}"),
            class: Class::Edge,
            addresses: vec![],
            cores: 2,
            speeds: Speeds::new([speed; 5]),
            memory_budget_bytes: MEMORY_BYTES,
        };
        let load = Load {
            memory_used_bytes: 0,
            utilisation_permille: 0,
            cold_us: 0,
            cold_us_per_mb: 0,
            leaving: false,
        };
        NodeRecord {
            node: id(node),
            stamp: Stamp { generation: 1, sequence: 1 },
            machine,
            load,
            offer: Offer::default(),
            hosted: vec![],
            links: vec![],
            coordinate: None,
            goals: vec![],
            domains: vec![],
            demands: vec![],
        }
    }

    /// So many nodes; those further on are further away from the first, and all but the first are as quick.
    pub(in super::super) fn mesh(nodes: usize) -> Vec<NodeRecord> {
        let speed = manifest().reference.speeds.of(stormo_protocol::profile::WorkClass::Memory);
        let mut records: Vec<NodeRecord> =
            (0..nodes).map(|node| record(node, speed * if node == 0 { 1.0 } else { 4.0 })).collect();
        let link = |node: usize| LinkEstimate {
            peer: id(node),
            round_trip_us: 100 + node as u32,
            bytes_per_second: 100_000_000,
        };
        records[0].links = (1..nodes).map(link).collect();
        records
    }

    fn hosted(first: u16, end: u16) -> Hosted {
        Hosted { variant: variant(), first, end, time_us: 1000, p95_us: 1000, queue_wait_us: 0 }
    }

    fn candidates(records: &[NodeRecord]) -> Vec<Candidate<'_>> {
        records.iter().map(|record| Candidate { record, takes_work: true, late_ms: 0.0 }).collect()
    }

    fn chosen(candidates: Vec<Candidate<'_>>) -> Vec<NodeId> {
        let manifest = manifest();
        let wanted = Wanted { manifest: &manifest, variant: variant(), blocks: 0..2 };
        foremost(&[wanted], candidates).iter().map(|candidate| candidate.record.node).collect()
    }

    fn posed(candidates: Vec<Candidate<'_>>) -> Posed {
        let manifest = manifest();
        let links = links(&candidates);
        let question = Question {
            manifest: &manifest,
            variant: variant(),
            blocks: 0..2,
            candidates,
            force_first: false,
            force_last: false,
            accuracy: 1.0,
            min_accuracy: None,
            power: None,
        };
        question.pose_with(links)
    }

    #[test]
    fn a_small_mesh_is_taken_whole() {
        let records = mesh(FOREMOST_MAX);
        let mut all = candidates(&records);
        all[5].takes_work = false;
        let nodes: Vec<NodeId> = records.iter().map(|record| record.node).collect();
        assert_eq!(chosen(all), nodes);
    }

    #[test]
    fn of_a_large_mesh_those_are_taken_that_have_something_for_them() {
        let mut records = mesh(1000);
        // The only hosts of one part are far and slow; many have the other.
        (records[990].machine.speeds, records[990].hosted) = (Speeds::new([0.001; 5]), vec![hosted(0, 1)]);
        records[300..900].iter_mut().for_each(|record| record.hosted = vec![hosted(1, 2)]);
        records[995].machine.speeds = Speeds::new([1e9; 5]);
        records[996].machine.memory_budget_bytes = 1 << 40;
        let mut all = candidates(&records);
        all[0].takes_work = false;
        all[1].takes_work = false;
        let nodes = chosen(all);
        assert_eq!(nodes.len(), FOREMOST_MAX);
        assert_eq!(nodes[0], id(0), "the requester, be it that it takes no work");
        assert!(nodes.windows(2).all(|pair| pair[0] < pair[1]), "in their order");
        for node in [2, 300, 990, 995, 996] {
            assert!(nodes.contains(&id(node)), "{node}");
        }
        assert!(!nodes.contains(&id(1)), "it takes no work");
        let hosts = nodes.iter().filter(|node| (id(300)..id(900)).contains(node)).count();
        assert_eq!(hosts, HOSTS_MAX - 1);
    }

    #[test]
    fn what_is_left_out_is_no_loss_to_a_plan() {
        for nodes in [50, 200, 1000] {
            let records = mesh(nodes);
            let all = candidates(&records);
            let took = |pose: &dyn Fn() -> Posed| {
                let began = Instant::now();
                let posed = pose();
                (posed, began.elapsed().as_secs_f64() * 1000.0)
            };
            let (whole, whole_ms) = took(&|| posed(all.clone()));
            let manifest = manifest();
            let wanted = [Wanted { manifest: &manifest, variant: variant(), blocks: 0..2 }];
            let (fore, fore_ms) = took(&|| posed(foremost(&wanted, all.clone())));
            println!(
                "{nodes} nodes: posing over all {whole_ms:.2} ms, over the foremost {fore_ms:.2} ms: {:.1} times as quick",
                whole_ms / fore_ms
            );
            let best_ms = |posed: &Posed| {
                plan::best(&posed.problem, plan::EXPANSIONS_DEFAULT).unwrap().priced.latency_ms
            };
            assert!(fore.nodes.len() <= FOREMOST_MAX);
            assert!((best_ms(&fore) - best_ms(&whole)).abs() < 1e-9);
        }
    }
}

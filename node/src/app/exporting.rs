//! What a node plans with, as a planning instance (`topologies/README.md`) that others can change and plan again.

use serde_json::{Map, Value, json};
use stormo_protocol::codec::payload::Codec;

use crate::app::calls::PlanLimits;
use crate::app::planning::Posed;
use crate::plan::{Branch, Coding, Link, Node, Region, Watts};

const BYTES_PER_MB: f64 = 1e6;

/// An instance of these variants' problems, which have the same nodes, under these names.
pub(super) fn instance(posed: &[Posed], names: &[String], limits: &PlanLimits) -> Value {
    let nodes: Vec<Value> = (0..names.len())
        .filter(|node| computes(posed, *node))
        .map(|node| of_node(posed, names, node))
        .collect();
    json!({
        "requester": names.first(),
        "objective": limits.objective,
        "force_first": limits.force_first,
        "force_last": limits.force_last,
        "limits": {
            "max_latency_ms": limits.max_latency_ms,
            "max_energy_j": limits.max_energy_j,
            "min_accuracy": limits.min_accuracy,
        },
        "nodes": nodes,
        "links": links(posed, names),
        "variants": posed.iter().map(of_variant).collect::<Vec<_>>(),
    })
}

/// The origin is there in any case: input and result are.
fn computes(posed: &[Posed], node: usize) -> bool {
    node == 0 || posed.iter().any(|posed| posed.problem.nodes[node].can_compute)
}

/// One for each variant, by its label.
fn by_variant(posed: &[Posed], value: impl Fn(&Posed) -> Value) -> Value {
    Value::Object(posed.iter().map(|posed| (posed.label.clone(), value(posed))).collect::<Map<_, _>>())
}

fn of_node(posed: &[Posed], names: &[String], index: usize) -> Value {
    let of = |posed: &Posed| posed.problem.nodes[index].clone();
    let Some(node) = posed.first().map(of) else { return Value::Null };
    let Node { queue_wait_ms, memory_free_bytes, overhead_ms, cold_fixed_ms, cold_ms_per_byte, .. } = node;
    let Watts { idle, compute, send, receive } = node.watts;
    let known = |posed: &Posed| {
        let label = posed.label.clone();
        of(posed).known.into_iter().map(move |range| (label.clone(), range))
    };
    let timed = posed.iter().flat_map(known).filter_map(|(variant, range)| {
        Some(json!({ "blocks": [range.first, range.end], "ms": range.time_ms?, "variant": variant }))
    });
    let loaded = posed.iter().flat_map(known).filter(|(_, range)| range.is_loaded);
    let loaded =
        loaded.map(|(variant, range)| json!({ "blocks": [range.first, range.end], "variant": variant }));
    let domains: Option<Vec<String>> =
        posed.first().map(|posed| posed.domains[index].iter().map(ToString::to_string).collect());
    let mut told = json!({
        "name": names[index],
        "computes": node.can_compute,
        "block_ms": by_variant(posed, |posed| json!(of(posed).block_ms)),
        "range_overhead_ms": overhead_ms,
        "extra_factor": by_variant(posed, |posed| json!(of(posed).extra_factor)),
        "ranges": timed.collect::<Vec<_>>(),
        "wait_ms": queue_wait_ms,
        "memory_free_bytes": memory_free_bytes,
        "domains": domains.unwrap_or_default(),
        "loaded": loaded.collect::<Vec<_>>(),
        "load_ms": cold_fixed_ms,
        "load_ms_per_mb": cold_ms_per_byte * BYTES_PER_MB,
        "coding_factor": by_variant(posed, |posed| json!(of(posed).encode_factors.of(Codec::Raw))),
    });
    if node.watts != Watts::default() {
        told["watts"] = json!({ "idle": idle, "compute": compute, "send": send, "receive": receive });
        told["tail_j"] = json!(node.tail_mj / 1000.0);
    }
    told
}

fn links(posed: &[Posed], names: &[String]) -> Vec<Value> {
    let Some(first) = posed.first() else { return Vec::new() };
    let all = (0..names.len()).filter(|node| computes(posed, *node));
    let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
    let link = |(from, to): (usize, usize)| {
        let Link { latency_ms, ms_per_byte } = first.problem.links.get(from, to)?;
        Some(json!({
            "from": names[from],
            "to": names[to],
            "latency_ms": latency_ms,
            "ms_per_mb": ms_per_byte * BYTES_PER_MB,
        }))
    };
    pairs.filter_map(link).collect()
}

fn of_variant(posed: &Posed) -> Value {
    let problem = &posed.problem;
    let blocks = problem.block_count();
    let extra =
        |first: usize| (first + 1..=blocks).map(|end| problem.extra.ms(first, end)).collect::<Vec<_>>();
    json!({
        "name": posed.label,
        "accuracy": posed.accuracy,
        "cut_bytes": problem.cut_bytes,
        "weights_bytes": problem.block_weights_bytes,
        "peak_bytes": problem.block_peak_bytes,
        "extra_ms": (0..blocks).map(extra).collect::<Vec<_>>(),
        "regions": posed.regions.iter().map(region).collect::<Vec<_>>(),
        "codings": problem.codings.iter().map(|cut| cut.iter().map(coding).collect()).collect::<Vec<Vec<Value>>>(),
    })
}

fn region(region: &Region) -> Value {
    let branch = |branch: &Branch| {
        json!({
            "blocks": [branch.first, branch.end],
            "in_bytes": branch.in_bytes,
            "out_bytes": branch.out_bytes,
        })
    };
    json!({
        "branches": region.branches.iter().map(branch).collect::<Vec<_>>(),
        "past_bytes": region.past_bytes,
    })
}

fn coding(coding: &Coding) -> Value {
    json!({
        "codec": coding.codec.name(),
        "bytes": coding.bytes,
        "encode_ms": coding.encode_ms,
        "decode_ms": coding.decode_ms,
        "loss": coding.loss,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::app::calls::PlannerName;
    use crate::app::choosing::{Chosen, choose};
    use crate::app::planning::tests::two_nodes;
    use crate::plan::instance::Instance;
    use crate::plan::{EXPANSIONS_DEFAULT, Extra, KnownRange, Method, Search};

    fn number() -> impl Strategy<Value = f64> {
        0.0..50.0_f64
    }

    /// Variants on the same two nodes, with everything that a live mesh may bring.
    fn any_posed() -> impl Strategy<Value = Vec<Posed>> {
        let shape = (
            proptest::collection::vec(number(), 4),
            proptest::collection::vec(number(), 10),
            proptest::collection::vec((1_u64..5_000, number(), number(), 0.0..0.2_f64), 5),
            (0_u16..4, 1_u16..5, number(), any::<bool>()),
            (number(), 10_u64..200, 0.0..2.0_f64),
        );
        let posed =
            shape.prop_map(|(block_ms, extra, codings, (first, length, time_ms, has_time), of_node)| {
                let mut posed = two_nodes("", 0.8, &block_ms);
                let problem = &mut posed.problem;

                problem.extra = Extra::of(4, |range| extra[(4 * range.start + range.end) % extra.len()]);
                problem.codings = (codings.into_iter())
                    .map(|(bytes, encode_ms, decode_ms, loss)| {
                        vec![Coding { codec: Codec::Int8, bytes, encode_ms, decode_ms, loss }]
                    })
                    .collect();
                let end = (first + length).min(4);
                let time_ms = has_time.then_some(time_ms);
                problem.nodes[1].known.push(KnownRange {
                    first,
                    end,
                    time_ms,
                    is_loaded: true,
                    has_memory: true,
                });
                let (wait_ms, free_bytes, factor) = of_node;
                let node = &mut problem.nodes[1];
                (node.queue_wait_ms, node.memory_free_bytes, node.extra_factor) =
                    (wait_ms, free_bytes, factor);
                (node.cold_fixed_ms, node.cold_ms_per_byte) = (1.5, 0.25);
                node.decode_factors = crate::plan::Factors::same(factor);
                node.encode_factors = node.decode_factors;
                posed
            });
        (proptest::collection::vec(posed, 1..3), any::<bool>()).prop_map(|(mut variants, computes)| {
            // Waits, links and what loading takes are the nodes', whatever they run.
            let nodes = variants[0].problem.nodes.clone();
            for (index, posed) in variants.iter_mut().enumerate() {
                posed.problem.nodes[0].can_compute = computes;
                posed.label = format!("v{index}");
                for (node, first) in posed.problem.nodes.iter_mut().zip(&nodes) {
                    node.queue_wait_ms = first.queue_wait_ms;
                    node.memory_free_bytes = first.memory_free_bytes;
                }
            }
            variants
        })
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_planned_the_same(posed in any_posed(), min_accuracy in proptest::option::of(0.5..0.8_f64)) {
            let limits = PlanLimits { min_accuracy, max_energy_j: Some(0.3), ..PlanLimits::default() };
            let names = ["a".to_owned(), "b".to_owned()];
            let text = instance(&posed, &names, &limits).to_string();
            let read = Instance::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let search = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
            match (choose(&posed, &limits, PlannerName::Greedy), read.question.answer(&search)) {
                (Ok(Chosen { posed: index, found }), Ok(answer)) => {
                    prop_assert_eq!(index, answer.variant);
                    let (here, there) = (found.priced, answer.found.priced);
                    prop_assert!((here.latency_ms - there.latency_ms).abs() <= 1e-9 * here.latency_ms, "{:?} {:?}", here, there);
                    prop_assert!((here.energy_mj - there.energy_mj).abs() <= 1e-9 * here.energy_mj);
                    prop_assert_eq!(here.shape, there.shape);
                }
                (here, there) => prop_assert!(here.is_err() && there.is_err(), "{:?} {:?}", here, there),
            }
        }
    }

    #[test]
    fn who_does_not_compute_is_left_out() {
        let mut posed = two_nodes("base", 1.0, &[1.0, 2.0]);
        posed.problem.nodes[1].can_compute = false;
        let told = instance(&[posed], &["here".to_owned(), "gone".to_owned()], &PlanLimits::default());
        assert_eq!(told["nodes"].as_array().map(Vec::len), Some(1));
        assert!(told["links"].as_array().is_some_and(Vec::is_empty));
        assert!(Instance::parse(&told.to_string()).is_ok());
    }
}

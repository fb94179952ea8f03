//! Optima worked out by hand: three blocks on a device, an edge box and a cloud server.

use stormo_protocol::codec::payload::Codec;

use crate::plan::tests::{is_close, link, node, shape};
use crate::plan::{Coding, EXPANSIONS_DEFAULT, Extra, Kind, Links, PlanShape, Problem, alternatives, best};

const DEVICE: usize = 0;
const EDGE: usize = 1;
const CLOUD: usize = 2;

/// The hand case of the design, unless changed.
pub(super) fn problem() -> Problem {
    let mut links = Links::new(3);
    for (a, b, latency_ms, ms_per_mb) in
        [(DEVICE, EDGE, 1.0, 80.0), (EDGE, CLOUD, 20.0, 8.0), (DEVICE, CLOUD, 25.0, 160.0)]
    {
        links.set(a, b, link(latency_ms, ms_per_mb / 1e6));
        links.set(b, a, link(latency_ms, ms_per_mb / 1e6));
    }
    Problem {
        cut_bytes: vec![1_000_000, 500_000, 100_000, 10_000],
        codings: vec![vec![]; 4],
        loss_max: 0.0,
        block_weights_bytes: vec![40; 3],
        block_peak_bytes: vec![0; 3],
        extra: Extra::none(),
        nodes: vec![node(&[10.0, 20.0, 30.0]), node(&[2.0, 4.0, 6.0]), node(&[1.0, 1.0, 1.0])],
        links,
        force_first: false,
        force_last: false,
    }
}

/// Twenty times the compute.
fn heavy(memory: [u64; 3]) -> Problem {
    let mut problem = problem();
    for (node, memory_free_bytes) in problem.nodes.iter_mut().zip(memory) {
        node.block_ms.iter_mut().for_each(|time_ms| *time_ms *= 20.0);
        node.memory_free_bytes = memory_free_bytes;
    }
    problem
}

fn without_cloud(mut problem: Problem) -> Problem {
    problem.nodes[CLOUD].can_compute = false;
    problem
}

#[track_caller]
fn assert_best(problem: &Problem, latency_ms: f64, expected: Option<PlanShape>) {
    let best = best(problem, EXPANSIONS_DEFAULT).unwrap();
    assert!(is_close(best.priced.latency_ms, latency_ms), "{best:?}");
    assert!(is_close(best.bound_ms, latency_ms), "{best:?}");
    assert_eq!(problem.price(&best.priced.shape), Ok(best.priced.clone()));
    if let Some(expected) = expected {
        assert_eq!(best.priced.shape, expected);
    }
}

#[test]
fn free_choice_hands_over_at_the_thin_cut() {
    assert_best(&problem(), 46.8, Some(shape(&[(DEVICE, 0, 2), (EDGE, 2, 3)])));
}

#[test]
fn first_and_last_forced_stay_at_home() {
    let problem = Problem { force_first: true, force_last: true, ..problem() };
    assert_best(&problem, 60.0, Some(shape(&[(DEVICE, 0, 3)])));
}

#[test]
fn a_wait_is_paid_once_per_stage() {
    let mut problem = problem();
    problem.nodes[EDGE].queue_wait_ms = 10.0;
    assert_best(&problem, 56.8, None);
}

#[test]
fn a_codec_moves_the_cut_forward() {
    let mut problem = problem();
    for (codings, bytes) in problem.codings.iter_mut().zip(&problem.cut_bytes) {
        let half_ms = *bytes as f64 * 2e-6;
        codings.push(Coding {
            codec: Codec::ShuffleLz4,
            bytes: bytes / 4,
            encode_ms: half_ms,
            decode_ms: half_ms,
            loss: 0.0,
        });
    }
    let mut expected = shape(&[(DEVICE, 0, 1), (EDGE, 1, 3)]);
    expected.codecs = vec![Codec::Raw, Codec::ShuffleLz4, Codec::ShuffleLz4];
    assert_best(&problem, 34.24, Some(expected));
    let edges = best(&problem, EXPANSIONS_DEFAULT).unwrap().priced.edges;
    assert_eq!(edges.iter().map(|edge| edge.bytes).collect::<Vec<_>>(), [0, 125_000, 2_500]);
    // On an edge ten times slower at coding, the result goes home as it is: 1.8 instead of 1.62 ms.
    problem.nodes[EDGE].encode_factors = crate::plan::Factors::same(100.0);
    let edges = best(&problem, EXPANSIONS_DEFAULT).unwrap().priced.edges;
    assert_eq!(edges.last().map(|edge| (edge.codec, edge.bytes)), Some((Codec::Raw, 10_000)));
}

#[test]
fn losses_are_bought_where_they_save_most() {
    let mut problem = problem();
    // A tenth of the bytes, at a loss that only one hop may take.
    for (codings, bytes) in problem.codings.iter_mut().zip(&problem.cut_bytes) {
        let (codec, bytes) = (Codec::Int8, bytes / 10);
        codings.push(Coding { codec, bytes, encode_ms: 0.0, decode_ms: 0.0, loss: 0.01 });
    }
    assert_best(&problem, 46.8, None);
    problem.loss_max = 0.01;
    // All on the edge, the input coded: 9 in, 12 there, 1.8 home.
    let mut expected = shape(&[(EDGE, 0, 3)]);
    expected.codecs = vec![Codec::Int8, Codec::Raw];
    let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(found.priced.shape, expected);
    assert!(is_close(found.priced.latency_ms, 22.8) && is_close(found.priced.loss, 0.01), "{found:?}");
    problem.loss_max = 0.02;
    assert_best(&problem, 22.08, None);
}

#[test]
fn heavy_compute_travels_to_the_cloud_through_the_edge() {
    let expected = shape(&[(EDGE, 0, 1), (CLOUD, 1, 3)]);
    assert_best(&heavy([u64::MAX; 3]), 211.6, Some(expected.clone()));
    assert_best(&heavy([40, 80, 200]), 211.6, Some(expected));
    assert_best(&without_cloud(heavy([u64::MAX; 3])), 322.8, Some(shape(&[(EDGE, 0, 3)])));
}

#[test]
fn memory_that_two_runs_share_is_counted_together() {
    // Run by run, the edge could hold blocks 0-1 and then block 2; together it cannot.
    assert_best(&without_cloud(heavy([40, 80, 200])), 442.8, Some(shape(&[(DEVICE, 0, 1), (EDGE, 1, 3)])));
}

#[test]
fn ranges_loaded_apart_run_one_after_the_other_without_a_transfer() {
    let mut problem = heavy([0, 0, 200]);
    problem.nodes[DEVICE].can_compute = false;
    problem.nodes[CLOUD].can_compute = false;
    problem.nodes[EDGE].known = [(0, 2, None), (2, 3, Some(100.0))]
        .map(|(first, end, time_ms)| crate::plan::KnownRange {
            first,
            end,
            time_ms,
            is_loaded: true,
            has_memory: true,
        })
        .to_vec();
    // 81 in, 40 + 80 estimated, 100 measured where 120 was estimated, 1.8 home.
    assert_best(&problem, 302.8, Some(shape(&[(EDGE, 0, 2), (EDGE, 2, 3)])));
}

#[test]
fn alternatives_list_every_kind_and_the_best_first() {
    let found = alternatives(&problem(), EXPANSIONS_DEFAULT).unwrap();
    assert!(is_close(found[0].priced.latency_ms, 46.8));
    assert!(found.is_sorted_by_key(|alternative| alternative.priced.latency_ms));
    let least = |kind| {
        let of_kind = found.iter().filter(|alternative| alternative.kind == kind);
        of_kind.map(|alternative| alternative.priced.latency_ms).next().unwrap()
    };
    assert!(is_close(least(Kind::Local), 60.0));
    // To the edge and back: 81 + 12 + 1.8.
    assert!(is_close(least(Kind::RemoteWhole), 94.8));
    assert!(is_close(least(Kind::Chain(2)), 46.8));
    // Device, edge, cloud: 10 + 41 + 4 + 20.8 + 1 + 26.6.
    assert!(is_close(least(Kind::Chain(3)), 103.4));
}

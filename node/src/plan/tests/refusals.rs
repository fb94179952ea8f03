//! What the planner refuses: problems that make no sense, plans that cannot run, and, when there
//! is no plan, what it says binds.

use stormo_protocol::codec::payload::Codec;

use crate::plan::tests::{link, node, shape};
use crate::plan::{
    Coding, EXPANSIONS_DEFAULT, Extra, Infeasible, KnownRange, Links, NoPlan, Problem, ProblemError,
    alternatives, best,
};

/// Two blocks of 10 bytes on an origin and two others, all joined.
fn problem() -> Problem {
    let mut links = Links::new(3);
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
        links.set(from, to, link(1.0, 0.0));
    }
    Problem {
        cut_bytes: vec![4; 3],
        codings: vec![vec![]; 3],
        loss_max: 0.0,
        block_weights_bytes: vec![10; 2],
        block_peak_bytes: vec![1; 2],
        extra: Extra::none(),
        nodes: vec![node(&[5.0, 5.0]), node(&[1.0, 1.0]), node(&[2.0, 2.0])],
        links,
        force_first: false,
        force_last: false,
    }
}

#[test]
fn wrong_problems_are_named() {
    type Change = fn(&mut Problem);
    let cases: [(Change, ProblemError); 12] = [
        (|problem| problem.block_weights_bytes.clear(), ProblemError::BlockCount),
        (|problem| problem.nodes.clear(), ProblemError::NoNodes),
        (
            |problem| problem.cut_bytes.truncate(2),
            ProblemError::Length { what: "the list of cuts", found: 2, expected: 3 },
        ),
        (
            |problem| problem.codings.truncate(2),
            ProblemError::Length { what: "the list of codings", found: 2, expected: 3 },
        ),
        (
            |problem| problem.codings[1].push(Coding { loss: -1.0, ..Coding::raw(4) }),
            ProblemError::Number { what: "a coding's loss" },
        ),
        (
            |problem| problem.links = Links::new(2),
            ProblemError::Length { what: "the table of links", found: 2, expected: 3 },
        ),
        (
            |problem| problem.extra = Extra::of(3, |_| 0.0),
            ProblemError::Length { what: "the table of ranges", found: 3, expected: 2 },
        ),
        (
            |problem| problem.extra = Extra::of(2, |_| f64::INFINITY),
            ProblemError::Number { what: "a range's extra time" },
        ),
        (|problem| problem.nodes[1].block_ms[0] = f64::NAN, ProblemError::Number { what: "a block's time" }),
        (|problem| problem.nodes[1].queue_wait_ms = -1.0, ProblemError::Number { what: "a queue's wait" }),
        (
            |problem| problem.block_peak_bytes[0] = u64::MAX,
            ProblemError::Size { what: "a block's activations" },
        ),
        (
            |problem| {
                let range = KnownRange { first: 1, end: 3, time_ms: None, is_loaded: true, has_memory: true };
                problem.nodes[2].known = vec![range];
            },
            ProblemError::KnownRange { node: 2 },
        ),
    ];
    for (change, error) in cases {
        let mut wrong = problem();
        change(&mut wrong);
        assert_eq!(wrong.check(), Err(error));
        assert_eq!(best(&wrong, EXPANSIONS_DEFAULT), Err(NoPlan::Problem(error)));
        assert_eq!(alternatives(&wrong, EXPANSIONS_DEFAULT), Err(NoPlan::Problem(error)));
    }
}

#[test]
fn plans_that_cannot_run_are_refused() {
    let mut problem = problem();
    problem.nodes[1].memory_free_bytes = 20;
    problem.nodes[2].can_compute = false;
    for gaps in [&[][..], &[(0, 0, 1)], &[(0, 1, 2)], &[(0, 0, 3)], &[(0, 0, 2), (0, 2, 2)]] {
        assert_eq!(problem.price(&shape(gaps)), Err(Infeasible::Coverage), "{gaps:?}");
    }
    assert_eq!(problem.price(&shape(&[(9, 0, 2)])), Err(Infeasible::Node { node: 9 }));
    assert_eq!(problem.price(&shape(&[(2, 0, 2)])), Err(Infeasible::Node { node: 2 }));
    let memory = Infeasible::Memory { node: 1, need_bytes: 21, free_bytes: 20 };
    assert_eq!(problem.price(&shape(&[(1, 0, 1), (1, 1, 2)])), Err(memory));
    let mut coded = shape(&[(0, 0, 1), (1, 1, 2)]);
    coded.codecs[1] = Codec::Int8;
    assert_eq!(problem.price(&coded), Err(Infeasible::Codec { cut: 1 }));
    problem.codings[0].push(Coding { codec: Codec::F16, ..Coding::raw(2) });
    let mut unmoved = shape(&[(0, 0, 2)]);
    unmoved.codecs[0] = Codec::F16;
    assert_eq!(problem.price(&unmoved), Err(Infeasible::Codec { cut: 0 }));
    unmoved.codecs.pop();
    assert_eq!(problem.price(&unmoved), Err(Infeasible::Codec { cut: 2 }));
    problem.force_last = true;
    assert_eq!(problem.price(&shape(&[(0, 0, 1), (1, 1, 2)])), Err(Infeasible::Forced));
    problem.links = Links::new(3);
    assert_eq!(
        problem.price(&shape(&[(1, 0, 1), (0, 1, 2)])),
        Err(Infeasible::Unreachable { from: 0, to: 1 })
    );
}

#[test]
fn what_binds_is_said() {
    let reason = |change: fn(&mut Problem)| {
        let mut problem = problem();
        change(&mut problem);
        best(&problem, EXPANSIONS_DEFAULT).unwrap_err()
    };
    let nobody = reason(|problem| problem.nodes.iter_mut().for_each(|node| node.can_compute = false));
    assert_eq!(nobody, NoPlan::NobodyComputes);
    let block = reason(|problem| problem.nodes.iter_mut().for_each(|node| node.memory_free_bytes = 10));
    assert_eq!(block, NoPlan::BlockMemory { block: 0, need_bytes: 11, free_bytes_max: 10 });
    let forced = reason(|problem| {
        problem.force_last = true;
        problem.nodes[0].memory_free_bytes = 3;
    });
    assert_eq!(forced, NoPlan::Forced { block: 1, need_bytes: 11, free_bytes: 3 });
    let unreachable = reason(|problem| {
        problem.nodes[0].can_compute = false;
        problem.links = Links::new(3);
    });
    assert_eq!(unreachable, NoPlan::Unreachable);
    let total = reason(|problem| {
        problem.nodes[0].can_compute = false;
        problem.nodes[1].can_compute = false;
        problem.nodes[2].memory_free_bytes = 20;
    });
    assert_eq!(total, NoPlan::TotalMemory { need_bytes: 20, free_bytes: 20 });
}

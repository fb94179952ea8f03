//! Requests as spans: trees, times, failures.

use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::ids::{DeploymentId, NodeId, PlanId, VariantId};
use stormo_protocol::plan::{Plan, Stage};

use super::*;
use crate::traces::TraceParent;

const MS: u32 = 1000;

fn plan(branches: &[Option<u16>]) -> Plan {
    let stage = |(index, branch): (usize, &Option<u16>)| Stage {
        node: NodeId([1; 32]),
        first: index as u16,
        end: index as u16 + 1,
        codec: Codec::Raw,
        backups: vec![],
        branch: *branch,
    };
    Plan {
        variant: VariantId { deployment: DeploymentId([1; 16]), index: 0 },
        origin: NodeId([1; 32]),
        stages: branches.iter().enumerate().map(stage).collect(),
        result_codec: Codec::Raw,
    }
}

/// A request of 100 ms, planned for 10 ms, whose stages ran for so long each.
fn told(branches: &[Option<u16>], runs_ms: &[u32]) -> RequestTrace {
    let ran = (0u16..).zip(runs_ms).map(|(stage, run_ms)| StageTrace {
        stage,
        receive_us: MS,
        wait_us: MS,
        run_us: run_ms * MS,
        encode_us: MS,
        ..StageTrace::default()
    });
    let input = StageTrace { stage: ORIGIN, encode_us: MS, ..StageTrace::default() };
    let [took, began, ended] = [100, 10, 100].map(Duration::from_millis);
    let attempt = Attempt { plan: PlanId([2; 16]), variant: "base".into(), began, ended, failed: None };
    RequestTrace {
        request: RequestId([7; 16]),
        parent: None,
        model: "m".into(),
        version: 1,
        ended_unix: Duration::from_secs(1000),
        took,
        planning: Some(began),
        attempts: vec![attempt],
        outcome: Ok(Answered {
            attempt: 1,
            plan: Arc::new(plan(branches)),
            hosts: vec![(NodeId([1; 32]), "box".into()); branches.len()],
            traces: [input].into_iter().chain(ran).collect(),
            input_bytes: vec![64; branches.len()],
            result_bytes: 40,
            result_times: [Duration::from_millis(1), Duration::ZERO],
        }),
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap()
}

fn check_tree(spans: &[Span]) {
    let mut ids: Vec<_> = spans.iter().map(|span| span.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "ids are unique");
    for span in &spans[1..] {
        let parent = spans.iter().find(|other| Some(other.id) == span.parent).unwrap();
        assert!(span.start_ns <= span.end_ns, "{span:?}");
        assert!(parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns, "{span:?} in {parent:?}");
        assert_eq!((span.trace, span.kind), (spans[0].trace, Kind::Internal));
    }
}

#[test]
fn stages_stand_behind_each_other_and_what_nobody_measured_is_on_the_ways() {
    let spans = of(&told(&[None, None], &[20, 30]));
    check_tree(&spans);
    assert_eq!((spans[0].name.as_str(), spans[0].kind, spans[0].parent), ("infer m", Kind::Server, None));
    assert_eq!(spans[0].trace, [7; 16], "a trace without a parent is called as the request");
    assert_eq!(spans[0].end_ns, 1_000_000_000_000);
    let [first, second] = ["stage 0", "stage 1"].map(|name| named(&spans, name));
    assert_eq!(first.end_ns, second.start_ns);
    // Of 90 ms 1 are for the input, 23 and 33 in the stages, 1 for the result: 32 on three ways.
    assert_eq!((first.end_ns - first.start_ns) / 1_000_000, 23 + 10);
    let runs: Vec<_> = spans.iter().filter(|span| span.name == "run").collect();
    assert_eq!(runs.iter().map(|run| (run.end_ns - run.start_ns) / 1_000_000).collect::<Vec<_>>(), [20, 30]);
    assert!(runs[0].attributes.contains(&("stormo.measured_us", Value::Number(20_000))));
    let of_first: Vec<&str> =
        spans.iter().filter(|span| span.parent == Some(first.id)).map(|span| span.name.as_str()).collect();
    assert_eq!(of_first, ["send", "queue", "run", "encode"], "what took no time is left out");
    assert!(named(&spans, "send").attributes.contains(&("stormo.bytes", Value::Number(64))));
}

#[test]
fn branches_stand_beside_each_other_and_the_join_behind_the_longest() {
    let spans = of(&told(&[None, Some(0), Some(1), None], &[5, 10, 20, 5]));
    check_tree(&spans);
    let stages = ["stage 0", "stage 1", "stage 2", "stage 3"].map(|name| named(&spans, name));
    assert_eq!([stages[1].start_ns, stages[2].start_ns], [stages[0].end_ns; 2]);
    assert_eq!(stages[3].start_ns, stages[2].end_ns);
}

#[test]
fn what_went_on_at_once_is_drawn_shorter() {
    let spans = of(&told(&[None, None], &[200, 300]));
    check_tree(&spans);
    assert!(named(&spans, "run").attributes.contains(&("stormo.measured_us", Value::Number(200_000))));
}

#[test]
fn a_failed_attempt_and_a_failed_request_say_why() {
    let mut told = told(&[None], &[20]);
    let [began, ended] = [10, 40].map(Duration::from_millis);
    let failed = Some("stage 0: the host is lost".to_owned());
    let first = Attempt { plan: PlanId([3; 16]), variant: "base".into(), began, ended, failed };
    told.attempts[0].began = Duration::from_millis(45);
    told.attempts.insert(0, first);
    told.outcome.as_mut().unwrap().attempt = 2;
    let spans = of(&told);
    check_tree(&spans);
    let attempts = ["attempt 1", "attempt 2"].map(|name| named(&spans, name));
    assert_eq!(attempts[0].error.as_deref(), Some("stage 0: the host is lost"));
    assert_eq!((&attempts[1].error, &spans[0].error), (&None, &None));
    assert_eq!(named(&spans, "stage 0").parent, Some(attempts[1].id));
    told.outcome = Err("x".repeat(ERROR_CHARS_MAX + 1));
    let spans = of(&told);
    check_tree(&spans);
    assert_eq!(spans[0].error.as_ref().map(String::len), Some(ERROR_CHARS_MAX));
    assert!(spans.iter().all(|span| !span.name.starts_with("stage")));
}

#[test]
fn a_caller_is_the_parent_of_the_whole() {
    let mut told = told(&[None], &[20]);
    told.parent = Some(TraceParent { trace: [9; 16], span: [8; 8], sampled: true });
    let spans = of(&told);
    check_tree(&spans);
    assert_eq!((spans[0].trace, spans[0].parent, spans[0].kind), ([9; 16], Some([8; 8]), Kind::Server));
}

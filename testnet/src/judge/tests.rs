//! The judge finds what was planted, and nothing where nothing was.

mod answers;
mod run;
mod unshown;

use proptest::prelude::*;
use stormo_protocol::tensor::DType;

use super::*;
use crate::history::{
    Answer, FaultEvent, FaultTimes, HostingChange, Outcome, Request, StateChange, Usage, Values,
};

const INPUTS: u16 = 4;

fn output(dtype: DType, values: Values) -> Output {
    Output { name: "y".into(), dtype, shape: vec![2], values }
}

fn floats(output: &mut Output) -> &mut Vec<f32> {
    match &mut output.values {
        Values::Floats(values) => values,
        Values::Exact(_) => panic!("these are floats"),
    }
}

/// A healthy run of so many requests, one each 10 ms, entered at node 0 and run on nodes 1 and 2.
fn healthy(count: u32) -> (History, Truth) {
    let mut history = History {
        nodes: ["origin", "a", "b"].map(str::to_owned).to_vec(),
        peers: [("A".to_owned(), 1), ("B".to_owned(), 2)].into(),
        begun: count,
        load_ended_us: u64::from(count) * 10_000,
        looks: [(0, (0..=u64::from(count) / 10).map(|look| look * 100_000).collect())].into(),
        hosting_looks: (0..=u64::from(count) / 10).map(|look| look * 100_000).collect(),
        look_every_us: 100_000,
        ..History::default()
    };
    let outputs: Vec<Vec<Output>> = (0..INPUTS)
        .map(|input| vec![output(DType::F32, Values::Floats(vec![1.0, f32::from(input)]))])
        .collect();
    history.outputs = outputs.clone();
    let mut name = |text: &str| history.names.place(text);
    let (variant, plan, nodes, codecs) = (name("base"), name("p"), name("A,B"), name("raw,raw,raw"));
    history.requests = (1..=count)
        .map(|serial| {
            let input = (serial % u32::from(INPUTS)) as u16;
            let intended_us = u64::from(serial - 1) * 10_000;
            Request {
                serial,
                load: 0,
                entry: 0,
                input,
                intended_us,
                sent_us: Some(intended_us + 10),
                ended_us: intended_us + 2000,
                outcome: Outcome::Answered(Answer {
                    has_own_id: true,
                    variant,
                    plan,
                    nodes,
                    codecs,
                    attempts: 1,
                    failovers: 0,
                    is_late: false,
                    outputs: u32::from(input),
                }),
            }
        })
        .collect();
    let expected = Expected { outputs, accuracy: 1.0, losses: HashMap::new() };
    let variants = [((0, "base".to_owned()), expected)].into();
    (history, Truth { variants, entries: vec![vec![0]], wishes: vec![Wish::default()] })
}

fn demands() -> Expectations {
    Expectations { answers_min: 1, ..Expectations::default() }
}

fn failed(verdict: &Verdict) -> Vec<&str> {
    verdict.checks.iter().filter(|check| !check.holds).map(|check| check.what.as_str()).collect()
}

fn answer(history: &mut History, at: usize) -> &mut Answer {
    match &mut history.requests[at].outcome {
        Outcome::Answered(answer) => answer,
        other => panic!("not answered: {other:?}"),
    }
}

#[test]
fn a_healthy_run_is_well() {
    let (history, truth) = healthy(100);
    let verdict = judge(&demands(), &history, &truth);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    assert_eq!((verdict.counts.right, verdict.counts.begun, verdict.divided_share), (100, 100, 1.0));
    assert_eq!(verdict.latency.map(|latency| latency.p99_ms), Some(2.0));
}

#[test]
fn a_run_without_answers_is_not() {
    let (mut history, truth) = healthy(3);
    history.requests.clear();
    history.begun = 0;
    let verdict = judge(&demands(), &history, &truth);
    assert_eq!(failed(&verdict), ["right answers", "the load itself"]);
}

proptest! {
    /// One planted defect, anywhere, is found, and named as what it is.
    #[test]
    fn planted_defects_are_found(count in 2u32..60, at in any::<prop::sample::Index>(), defect in 0usize..10) {
        let (mut history, truth) = healthy(count);
        let at = at.index(history.requests.len());
        let death = FaultEvent {
            what: "kill origin".into(), nodes: vec![0], is_loss: true, is_split: false, is_link: false,
            begun_us: history.requests[at].intended_us + 100, healed_us: None, failed: None, times: None,
        };
        let error = history.names.place("planted");
        let other = history.names.place("strange");
        let wanted = match defect {
            0 => {
                history.requests.remove(at);
                "accepted requests lost"
            }
            1 => {
                history.requests[at].outcome = Outcome::Silent;
                "accepted requests lost"
            }
            2 => {
                history.requests[at].outcome = Outcome::Broken { error };
                "accepted requests lost"
            }
            3 => {
                // An answer to another input.
                answer(&mut history, at).outputs = u32::from((history_input(&truth, at) + 1) % INPUTS);
                "wrong answers"
            }
            4 => {
                // An element that is off by little more than may be.
                let mut altered = history.outputs[0].clone();
                floats(&mut altered[0])[0] = 1.0 + 4e-3;
                history.outputs.push(altered);
                answer(&mut history, at).outputs = u32::from(INPUTS);
                "wrong answers"
            }
            5 => {
                answer(&mut history, at).variant = other;
                "wrong answers"
            }
            6 => {
                let double = history.requests[at].clone();
                history.requests.push(double);
                "answered twice"
            }
            7 => {
                answer(&mut history, at).has_own_id = false;
                "answered twice"
            }
            8 => {
                history.requests[at].outcome = Outcome::Refused { status: 503, error };
                "requests told an error"
            }
            _ => {
                history.requests[at].outcome = Outcome::Broken { error };
                history.faults.push(death);
                "requests whose entry was gone"
            }
        };
        let verdict = judge(&demands(), &history, &truth);
        prop_assert_eq!(failed(&verdict), [wanted]);
        // What is demanded less strictly holds again.
        let lenient = Expectations {
            lost_max: 1, wrong_max: 1, answered_twice_max: 1, failed_share_max: 1.0, unknown_share_max: 1.0,
            answers_min: 1, ..Expectations::default()
        };
        prop_assert!(judge(&lenient, &history, &truth).holds());
    }

    /// Whatever a lossless answer is off by, it is wrong exactly above the bound.
    #[test]
    fn the_bound_of_lossless_answers_is_kept(off in 0.0f32..4e-4) {
        let (mut history, truth) = healthy(4);
        // Input 3 has the largest value 3.
        let mut altered = history.outputs[3].clone();
        floats(&mut altered[0])[0] += off;
        let apart = f64::from(floats(&mut altered[0])[0] - 1.0) / 3.0;
        history.outputs[3] = altered;
        let verdict = judge(&demands(), &history, &truth);
        prop_assert_eq!(verdict.counts.wrong > 0, apart > DIFFERENCE_MAX);
    }
}

fn history_input(truth: &Truth, at: usize) -> u16 {
    assert!(truth.variants.len() == 1);
    ((at as u32 + 1) % u32::from(INPUTS)) as u16
}

fn kill(begun_us: u64, healed_us: Option<u64>) -> FaultEvent {
    FaultEvent {
        what: "kill a".into(),
        nodes: vec![1],
        is_loss: true,
        is_split: false,
        is_link: false,
        begun_us,
        healed_us,
        failed: None,
        times: None,
    }
}

#[test]
fn progress_is_demanded_after_the_last_change() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, Some(3_000_000)));
    let demands =
        Expectations { progress_within_ms: Some(2000.0), progress_latency_ms_max: Some(100.0), ..demands() };
    assert!(judge(&demands, &history, &truth).holds());
    // Slow just before the bound, then just behind it.
    history.requests[498].ended_us += 200_000;
    assert!(judge(&demands, &history, &truth).holds());
    history.requests[501].ended_us += 200_000;
    assert_eq!(failed(&judge(&demands, &history, &truth)), ["progress after the last fault or healing"]);
    // Without a fault, from the beginning.
    let (mut calm, truth) = healthy(1000);
    assert!(judge(&demands, &calm, &truth).holds());
    calm.requests[501].ended_us += 200_000;
    assert_eq!(failed(&judge(&demands, &calm, &truth)), ["progress from the beginning, without a fault"]);
    // Nothing sent later shows nothing.
    let (mut short, truth) = healthy(400);
    short.faults.push(kill(1_000_000, Some(3_000_000)));
    assert_eq!(failed(&judge(&demands, &short, &truth)), ["progress after the last fault or healing"]);
}

#[test]
fn affected_requests_are_those_that_the_fault_met() {
    let (mut history, truth) = healthy(100);
    // Under way at 501 ms: request 51, which ran on node 1; planned anew: request 52.
    history.faults.push(kill(501_000, None));
    history.requests[50].ended_us += 98_000;
    answer(&mut history, 51).attempts = 2;
    history.requests[51].ended_us += 48_000;
    // A backup took over in request 53.
    answer(&mut history, 52).failovers = 1;
    let demands = Expectations { added_p99_ms_max: Some(97.0), affected_min: Some(2), ..demands() };
    let verdict = judge(&demands, &history, &truth);
    assert_eq!((verdict.affected, verdict.added.map(|added| added.max_ms)), (3, Some(98.0)));
    assert_eq!(failed(&verdict), ["latency that a fault adds, 99th percentile"]);
    let enough = Expectations { added_p99_ms_max: Some(98.0), ..demands.clone() };
    assert!(judge(&enough, &history, &truth).holds());
    let too_few = Expectations { affected_min: Some(4), ..enough };
    assert!(!judge(&too_few, &history, &truth).holds());
    let alone = |least| Expectations { affected_min: Some(least), added_p99_ms_max: None, ..demands.clone() };
    assert!(judge(&alone(3), &history, &truth).holds());
    assert_eq!(failed(&judge(&alone(4), &history, &truth)), ["requests that a fault met"]);
    // A second later it is known who is lost: who begins then waits for nobody.
    let (mut later, truth) = healthy(300);
    later.faults.push(kill(501_000, None));
    let counted = |later: &History| judge(&alone(0), later, &truth).affected;
    assert_eq!(counted(&later), 1, "one was under way");
    answer(&mut later, 140).failovers = 1;
    assert_eq!(counted(&later), 2);
    answer(&mut later, 160).failovers = 1;
    assert_eq!(counted(&later), 2);
    // Long before the fault, and refused at its time.
    answer(&mut history, 10).failovers = 1;
    let error = history.names.place("overloaded");
    history.requests[50].outcome = Outcome::Refused { status: 429, error };
    assert_eq!(judge(&alone(2), &history, &truth).affected, 2);
}

#[test]
fn replicas_are_missed_until_they_are_there_again() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, None));
    let within = |ms| Expectations { restored_within_ms: Some(ms), ..demands() };
    let what = ["all replicas are there again after the last fault or healing"];
    let hosting = |at_us, is_whole| HostingChange { at_us, is_whole };
    history.hosting = vec![hosting(0, true)];
    assert_eq!(failed(&judge(&within(9000.0), &history, &truth)), what, "nothing was lost");
    history.hosting.push(hosting(1_500_000, false));
    assert_eq!(failed(&judge(&within(9000.0), &history, &truth)), what);
    history.hosting.push(hosting(4_000_000, true));
    assert_eq!(failed(&judge(&within(2999.0), &history, &truth)), what);
    assert!(judge(&within(3000.0), &history, &truth).holds());
}

#[test]
fn reactions_are_timed_and_false_losses_counted() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, Some(4_000_000)));
    let seen = |at_us, of, is_usable| StateChange { at_us, by: 0, of, is_usable, is_lost: !is_usable };
    history.states = vec![seen(1_600_000, 1, false), seen(4_900_000, 1, true)];
    let within = |out, back| Expectations {
        left_out_within_ms: Some(out),
        back_within_ms: Some(back),
        false_losses_max: Some(0),
        ..demands()
    };
    assert!(judge(&within(600.0, 900.0), &history, &truth).holds());
    assert_eq!(failed(&judge(&within(599.0, 900.0), &history, &truth)), ["a lost node is left out of plans"]);
    assert_eq!(
        failed(&judge(&within(600.0, 899.0), &history, &truth)),
        ["a node that is back is used again"]
    );
    history.states.push(StateChange { is_lost: false, ..seen(4_930_000, 2, false) });
    assert!(judge(&within(600.0, 900.0), &history, &truth).holds(), "left out of plans, but not for lost");
    history.states.push(seen(4_950_000, 2, false));
    history.states.push(seen(4_960_000, 2, false));
    assert_eq!(
        failed(&judge(&within(600.0, 900.0), &history, &truth)),
        ["nodes taken for lost that were not"]
    );
    // Used again as soon as it is started, before that is known to whoever started it.
    history.states = vec![seen(1_600_000, 1, false), seen(3_950_000, 1, true)];
    assert_eq!(failed(&judge(&within(600.0, 900.0), &history, &truth)), ["a lost node is left out of plans"]);
    history.faults[0].times = Some(FaultTimes {
        due_us: 1_000_000,
        done_us: 1_000_000,
        undo_due_us: Some(3_900_000),
        undone_us: Some(3_900_000),
    });
    assert!(judge(&within(600.0, 900.0), &history, &truth).holds());
    // Used again while it is dead.
    history.states.insert(1, seen(1_900_000, 1, true));
    assert_eq!(failed(&judge(&within(600.0, 900.0), &history, &truth)), ["a lost node is left out of plans"]);
    // Never seen at all.
    history.states.clear();
    assert_eq!(failed(&judge(&within(600.0, 900.0), &history, &truth)), ["a lost node is left out of plans"]);
}

#[test]
fn a_slow_host_is_to_be_avoided() {
    let (mut history, truth) = healthy(600);
    let slow = FaultEvent {
        what: "link".into(),
        nodes: vec![0, 1],
        is_loss: false,
        ..kill(2_000_000, Some(5_000_000))
    };
    history.faults.push(slow);
    let elsewhere = history.names.place("B");
    // From 2.5 s on requests run elsewhere.
    (250..500).for_each(|at| answer(&mut history, at).nodes = elsewhere);
    let within = |ms| Expectations { avoided_within_ms: Some(ms), ..demands() };
    assert!(judge(&within(490.0), &history, &truth).holds());
    assert_eq!(failed(&judge(&within(489.0), &history, &truth)), ["a slow host or link is avoided"]);
    // What a backup ran at last, or a second attempt, may have waited there first.
    for redone in [|answer: &mut Answer| answer.failovers = 1, |answer: &mut Answer| answer.attempts = 2] {
        let mut blind = history.clone();
        redone(answer(&mut blind, 399));
        assert!(judge(&within(1990.0), &blind, &truth).holds());
        assert_eq!(failed(&judge(&within(1989.0), &blind, &truth)), ["a slow host or link is avoided"]);
    }
    // A host that was not in use shows nothing.
    (0..250).for_each(|at| answer(&mut history, at).nodes = elsewhere);
    assert!(!judge(&within(490.0), &history, &truth).holds());
}

#[test]
fn growth_is_found() {
    let (mut history, truth) = healthy(10);
    let look = |second: u64| Usage {
        at_us: second * 1_000_000,
        node: 1,
        life: 0,
        resident_bytes: (100 << 20) + second * 1024,
        descriptors: 20 + (second / 20) as u32,
        threads: 9,
        cpu_us: 0,
    };
    history.usage = (0..100).map(look).collect();
    // 1 KiB a second are 3.5 MiB an hour.
    let demands = |memory, descriptors| Expectations {
        memory_growth_mib_per_h_max: Some(memory),
        descriptors_growth_max: Some(descriptors),
        threads_growth_max: Some(0),
        ..demands()
    };
    assert!(judge(&demands(3.6, 4), &history, &truth).holds());
    let failed_of =
        |demands: &Expectations| judge(demands, &history, &truth).checks.iter().filter(|c| !c.holds).count();
    assert_eq!(failed_of(&demands(3.5, 4)), 1);
    assert_eq!(failed_of(&demands(3.6, 2)), 1);
    history.usage.truncate(3);
    assert!(!judge(&demands(3.6, 4), &history, &truth).holds(), "too few looks tell nothing");
}

#[test]
fn a_mesh_that_comes_up_late_or_holds_much_is_told() {
    let expect =
        Expectations { formed_within_ms: Some(10_000.0), own_memory_mib_max: Some(40.0), ..demands() };
    let told = |formed_ms: f64, memory_mib: u64| {
        let (mut history, truth) = healthy(1_000);
        history.own_memory = vec![(0, 1 << 20), (2, memory_mib << 20)];
        history.formed_ms = formed_ms;
        let verdict = judge(&expect, &history, &truth);
        failed(&verdict).len()
    };
    assert_eq!([told(9_000.0, 40), told(11_000.0, 40), told(9_000.0, 41), told(11_000.0, 41)], [0, 1, 1, 2]);
}

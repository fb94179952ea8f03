//! What a run has not shown does not hold, however little went wrong.

use super::*;

const LEFT_OUT: [&str; 1] = ["a lost node is left out of plans"];
const BACK: [&str; 1] = ["a node that is back is used again"];
const PROGRESS: [&str; 1] = ["progress after the last fault or healing"];

fn seen(at_us: u64, is_usable: bool) -> StateChange {
    StateChange { at_us, by: 0, of: 1, is_usable, is_lost: !is_usable }
}

/// A second load, which every second request is of.
fn two_loads(count: u32) -> (History, Truth) {
    let (mut history, mut truth) = healthy(count);
    history.requests.iter_mut().step_by(2).for_each(|request| request.load = 1);
    let answers = truth.variants[&(0, "base".to_owned())].clone();
    truth.variants.insert((1, "base".to_owned()), answers);
    truth.entries.push(vec![0]);
    truth.wishes.push(Wish::default());
    (history, truth)
}

#[test]
fn who_uses_a_dead_node_again_has_not_left_it_out() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, None));
    let demands = Expectations { left_out_within_ms: Some(600.0), ..demands() };
    // Out of plans for another reason just before, and throughout.
    history.states = vec![seen(900_000, false)];
    assert!(judge(&demands, &history, &truth).holds());
    history.states.push(seen(1_200_000, true));
    assert_eq!(failed(&judge(&demands, &history, &truth)), LEFT_OUT);
    history.states.push(seen(1_600_000, false));
    assert!(judge(&demands, &history, &truth).holds());
    history.states[2].at_us = 1_601_000;
    assert_eq!(failed(&judge(&demands, &history, &truth)), LEFT_OUT);
}

#[test]
fn who_leaves_out_what_came_back_has_not_used_it_again() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, Some(3_000_000)));
    let demands = Expectations { back_within_ms: Some(900.0), ..demands() };
    // Its loss was never seen; it is left out 50 ms after its return.
    history.states = vec![seen(3_050_000, false)];
    assert_eq!(failed(&judge(&demands, &history, &truth)), BACK);
    history.states.push(seen(3_900_000, true));
    assert!(judge(&demands, &history, &truth).holds());
    // Long after is another matter.
    history.states.push(seen(6_000_000, false));
    assert!(judge(&demands, &history, &truth).holds());
    history.states[1].at_us = 3_901_000;
    assert_eq!(failed(&judge(&demands, &history, &truth)), BACK);
}

#[test]
fn a_node_behind_a_cut_is_left_out_by_the_entry_at_its_other_end() {
    let (mut history, mut truth) = healthy(1000);
    truth.entries = vec![vec![0, 2]];
    let cut = FaultEvent {
        what: "cut a → origin".into(),
        nodes: vec![1, 0],
        is_loss: false,
        is_split: true,
        is_link: true,
        ..kill(1_000_000, Some(4_000_000))
    };
    history.faults.push(cut);
    let demands = Expectations { left_out_within_ms: Some(500.0), back_within_ms: Some(900.0), ..demands() };
    assert_eq!(failed(&judge(&demands, &history, &truth)), LEFT_OUT);
    history.states = vec![seen(1_500_000, false), seen(4_900_000, true)];
    assert!(judge(&demands, &history, &truth).holds());
    // A slow link is no loss.
    history.faults[0].is_split = false;
    assert_eq!(failed(&judge(&demands, &history, &truth)), [LEFT_OUT[0], BACK[0]]);
}

#[test]
fn one_load_does_not_make_good_for_another() {
    let (mut history, truth) = two_loads(1000);
    let error = history.names.place("no");
    let second = history.requests.iter_mut().step_by(2);
    second.for_each(|request| request.outcome = Outcome::Refused { status: 429, error });
    // 50 a second of each are sent; of the first one, twice its capacity is answered.
    history.capacities_per_s = vec![Some(25.0), Some(25.0)];
    let share = |least| Expectations { goodput_share_min: Some(least), rejected_share_max: 1.0, ..demands() };
    assert!(judge(&share(0.5), &history, &truth).holds());
    assert_eq!(
        failed(&judge(&share(0.51), &history, &truth)),
        ["right answers in time, of what is possible"]
    );
}

#[test]
fn what_was_missing_before_the_first_fault_was_not_lost_by_it() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, None));
    let demands = Expectations { restored_within_ms: Some(5000.0), ..demands() };
    let hosting = |at_us, is_whole| HostingChange { at_us, is_whole };
    history.hosting = vec![hosting(0, true), hosting(500_000, false), hosting(600_000, true)];
    let what = ["all replicas are there again after the last fault or healing"];
    assert_eq!(failed(&judge(&demands, &history, &truth)), what);
    history.hosting.extend([hosting(1_500_000, false), hosting(2_000_000, true)]);
    assert!(judge(&demands, &history, &truth).holds());
}

#[test]
fn requests_that_fail_do_not_show_that_a_slow_host_is_avoided() {
    let (mut history, truth) = healthy(600);
    let slow = FaultEvent { is_loss: false, ..kill(2_000_000, Some(5_000_000)) };
    history.faults.push(slow);
    let elsewhere = history.names.place("B");
    let error = history.names.place("no");
    let demands = Expectations {
        avoided_within_ms: Some(490.0),
        failed_share_max: 0.9,
        rejected_share_max: 0.9,
        ..demands()
    };
    let end = |outcome: Outcome, places: std::ops::Range<usize>| {
        let mut history = history.clone();
        (250..500).for_each(|at| answer(&mut history, at).nodes = elsewhere);
        places.for_each(|at| history.requests[at].outcome = outcome.clone());
        let demands = Expectations { progress_within_ms: None, ..demands.clone() };
        failed(&judge(&demands, &history, &truth)).len()
    };
    let refused = |status| Outcome::Refused { status, error };
    // All of them, refused or failed; one that failed late; one that was refused at the door.
    assert_eq!(end(refused(503), 200..500), 1);
    assert_eq!(end(refused(429), 200..500), 1);
    assert_eq!(end(refused(503), 400..401), 1);
    assert_eq!(end(refused(429), 400..401), 0);
}

#[test]
fn refusals_alone_are_no_progress() {
    let (mut history, truth) = two_loads(1000);
    history.faults.push(kill(1_000_000, Some(3_000_000)));
    let demands = Expectations {
        progress_within_ms: Some(2000.0),
        progress_latency_ms_max: Some(100.0),
        rejected_share_max: 0.99,
        ..demands()
    };
    let error = history.names.place("no");
    let refused = Outcome::Refused { status: 429, error };
    let mut second: Vec<&mut Request> = history.requests.iter_mut().skip(300).step_by(2).collect();
    second.iter_mut().for_each(|request| request.outcome = refused.clone());
    let verdict = judge(&demands, &history, &truth);
    assert_eq!(failed(&verdict), PROGRESS);
    let told = |check: &Check| check.got.starts_with("load 2 of the file: of 250 requests later none");
    assert!(verdict.checks.iter().any(told), "{:?}", verdict.checks);
    // Of each load, one answer that is right shows it.
    history.requests[998].outcome = history.requests[2].outcome.clone();
    history.requests[998].input = history.requests[2].input;
    assert!(judge(&demands, &history, &truth).holds());
}

#[test]
fn a_load_that_sends_nothing_is_told() {
    let (history, mut truth) = healthy(100);
    truth.entries.push(vec![0]);
    let verdict = judge(&demands(), &history, &truth);
    assert_eq!(failed(&verdict), ["the load itself"]);
    assert_eq!(verdict.loads, [LoadCounts { ended: 100, right: 100 }, LoadCounts::default()]);
    assert!(verdict.checks.iter().any(|check| check.got == "load 2 of the file sent nothing"));
}

#[test]
fn an_answer_well_after_its_deadline_is_none() {
    let (mut history, truth) = healthy(100);
    history.timeouts_us = vec![500_000];
    let late =
        |history: &mut History, us| history.requests[50].ended_us = history.requests[50].intended_us + us;
    late(&mut history, 1_500_000);
    assert!(judge(&demands(), &history, &truth).holds());
    late(&mut history, 1_500_100);
    assert_eq!(failed(&judge(&demands(), &history, &truth)), ["requests told an error"]);
    // Its entry stood still, and its caller could not know.
    history.faults.push(FaultEvent { nodes: vec![0], ..kill(600_000, Some(900_000)) });
    assert_eq!(failed(&judge(&demands(), &history, &truth)), ["requests whose entry was gone"]);
}

#[test]
fn faults_that_no_request_came_near_are_known() {
    let (mut history, truth) = healthy(1000);
    let link =
        |nodes| FaultEvent { nodes, is_loss: false, is_link: true, ..kill(2_000_000, Some(3_000_000)) };
    let on = |node| FaultEvent { nodes: vec![node], ..kill(2_000_000, Some(3_000_000)) };
    // Answers ran on 1, then 2.
    history.faults =
        vec![on(1), link(vec![0, 1]), link(vec![2, 1]), link(vec![0, 2]), link(vec![1, 3]), on(3)];
    history.nodes.push("c".into());
    let met: Vec<bool> = judge(&demands(), &history, &truth).in_use.iter().map(|used| *used > 0).collect();
    assert_eq!(met, [true, true, true, true, false, false]);
}

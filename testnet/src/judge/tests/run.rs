//! The run was what was written, and what was not seen is not taken for good.

use super::*;
use crate::history::FaultTimes;

const FAULTS: &str = "faults done and undone as written";

#[test]
fn faults_that_are_late_or_too_short_are_not_those_that_were_written() {
    let (mut history, truth) = healthy(1000);
    let mut holds = |times| {
        history.faults = vec![FaultEvent { times: Some(times), ..kill(1_000_000, Some(3_000_000)) }];
        let verdict = judge(&demands(), &history, &truth);
        assert!(failed(&verdict).iter().all(|what| *what == FAULTS));
        verdict.holds()
    };
    let times =
        |due_us, done_us, undo_due_us, undone_us| FaultTimes { due_us, done_us, undo_due_us, undone_us };
    let second = 1_000_000;
    assert!(holds(times(second, second + 400_000, Some(3 * second), Some(3 * second))));
    assert!(holds(times(second, second, None, None)));
    assert!(!holds(times(second, second + 500_001, None, None)), "done late");
    assert!(!holds(times(second, second, Some(3 * second), Some(3 * second + 500_001))), "undone late");
    assert!(!holds(times(second, second, Some(3 * second), None)), "never undone");
    let short = |done_us| times(second, done_us, Some(second + 200_000), Some(second + 300_000));
    assert!(holds(short(second + 200_000)));
    assert!(!holds(short(second + 300_000)), "there for no time at all");
}

#[test]
fn what_nobody_looked_at_does_not_hold() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, Some(4_000_000)));
    let back = Expectations { back_within_ms: Some(900.0), ..demands() };
    let false_losses = Expectations { false_losses_max: Some(0), ..demands() };
    assert!(judge(&back, &history, &truth).holds() && judge(&false_losses, &history, &truth).holds());
    // It looked just before the return, and again when time was over.
    history.looks.insert(0, (0..=3900).chain(4_901..10_000).map(|ms| ms * 1000).collect());
    let verdict = judge(&back, &history, &truth);
    assert_eq!(failed(&verdict), ["a node that is back is used again"]);
    assert!(verdict.checks.iter().any(|check| check.got.starts_with("not observed in 1 of 1")));
    assert!(judge(&false_losses, &history, &truth).holds(), "a second is no gap");
    history.looks.clear();
    assert_eq!(failed(&judge(&false_losses, &history, &truth)), ["nodes taken for lost that were not"]);
    // Half a second of being frozen does not excuse ten of silence.
    history.faults = vec![FaultEvent { nodes: vec![0], ..kill(1_000_000, Some(1_500_000)) }];
    history.looks.insert(0, vec![0, 1_000_000]);
    let verdict = judge(&Expectations { unknown_share_max: 1.0, ..false_losses.clone() }, &history, &truth);
    assert_eq!(failed(&verdict), ["nodes taken for lost that were not"]);
    // An entry that was lost could not say anything.
    history.faults = vec![FaultEvent { nodes: vec![0], ..kill(100_000, None) }];
    history.looks.insert(0, vec![0, 100_000]);
    assert!(judge(&Expectations { unknown_share_max: 1.0, ..false_losses }, &history, &truth).holds());
}

#[test]
fn replicas_that_nobody_asked_for_are_not_there_again() {
    let (mut history, truth) = healthy(1000);
    history.faults.push(kill(1_000_000, None));
    let hosting = |at_us, is_whole| HostingChange { at_us, is_whole };
    history.hosting = vec![hosting(0, true), hosting(1_500_000, false), hosting(4_000_000, true)];
    let demands = Expectations { restored_within_ms: Some(5000.0), ..demands() };
    assert!(judge(&demands, &history, &truth).holds());
    history.hosting_looks.retain(|look| *look < 5_000_000);
    assert!(!judge(&demands, &history, &truth).holds());
}

#[test]
fn each_load_is_held_to_its_own_capacity() {
    let (mut history, truth) = healthy(1000);
    // Every second request is of another load, and 100 a second are sent by both together.
    history.requests.iter_mut().step_by(2).for_each(|request| request.load = 1);
    let answers = |of: &str| ((1, of.to_owned()), truth.variants[&(0, of.to_owned())].clone());
    let mut truth = truth.clone();
    truth.variants.extend([answers("base")]);
    // Of the second load, half is answered.
    let error = history.names.place("no");
    let second = history.requests.iter_mut().step_by(4);
    second.for_each(|request| request.outcome = Outcome::Refused { status: 429, error });
    let share = |least| Expectations { goodput_share_min: Some(least), rejected_share_max: 1.0, ..demands() };
    // 25 a second are all that it can be answered, 50 the other one.
    history.capacities_per_s = vec![Some(1000.0), Some(25.0)];
    assert!(judge(&share(0.99), &history, &truth).holds());
    history.capacities_per_s = vec![None, None];
    assert!(judge(&share(0.74), &history, &truth).holds());
    assert!(!judge(&share(0.76), &history, &truth).holds());
}

#[test]
fn what_is_possible_counts_only_while_a_load_sends() {
    // 100 a second for 10 s of 40; three of four are refused.
    let (mut history, truth) = healthy(1000);
    history.load_ended_us = 40_000_000;
    let error = history.names.place("no");
    let refused = history.requests.iter_mut().enumerate().filter(|(place, _)| place % 4 != 0);
    refused.for_each(|(_, request)| request.outcome = Outcome::Refused { status: 429, error });
    history.capacities_per_s = vec![Some(50.0)];
    let share = |least| Expectations { goodput_share_min: Some(least), rejected_share_max: 1.0, ..demands() };
    assert!(judge(&share(0.49), &history, &truth).holds());
    assert_eq!(
        failed(&judge(&share(0.51), &history, &truth)),
        ["right answers in time, of what is possible"]
    );
    // What its caller has waited for too long does not count, whatever the node says of its own part.
    history.latencies_us_max = vec![Some(1999)];
    assert!(!judge(&share(0.01), &history, &truth).holds());
    history.latencies_us_max = vec![Some(2000)];
    assert!(judge(&share(0.49), &history, &truth).holds());
    // The answers to what was sent last come after the load's end, and do not count.
    history.requests.iter_mut().skip(500).for_each(|request| request.ended_us += 10_000_000);
    assert_eq!(
        failed(&judge(&share(0.26), &history, &truth)),
        ["right answers in time, of what is possible"]
    );
}

#[test]
fn healthy_nodes_that_are_left_out_of_plans_are_told_with_the_time() {
    let (mut history, truth) = healthy(2000);
    let seen = |at_us, by, of, is_usable| StateChange { at_us, by, of, is_usable, is_lost: false };
    let demands = |most_ms| Expectations { healthy_left_out_ms_max: Some(most_ms), ..demands() };
    let what = ["healthy nodes left out of plans"];
    assert!(judge(&demands(0.0), &history, &truth).holds());
    // Twice, of which the second never ends; what nodes think where nobody asks does not matter.
    history.states = vec![
        seen(1_000_000, 0, 2, false),
        seen(1_400_000, 0, 2, true),
        seen(2_000_000, 1, 2, false),
        seen(19_000_000, 0, 2, false),
    ];
    let verdict = judge(&demands(1_400.0), &history, &truth);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    let left_out = LeftOut { node: "b".into(), by: "origin".into(), total_s: 1.4, longest_s: 1.0, times: 2 };
    assert_eq!(verdict.left_out, [left_out]);
    assert_eq!(failed(&judge(&demands(1_399.0), &history, &truth)), what);
    // Of a slow host, or one that was lost, only what lasts longer than the time after its end.
    history.faults = vec![FaultEvent { nodes: vec![2], is_loss: false, ..kill(500_000, Some(700_000)) }];
    let verdict = judge(&demands(1_000.0), &history, &truth);
    assert_eq!(verdict.left_out.iter().map(|of| (of.total_s, of.times)).collect::<Vec<_>>(), [(1.0, 1)]);
    history.states = vec![seen(600_000, 0, 2, false), seen(6_000_000, 0, 2, true)];
    assert_eq!(judge(&demands(300.0), &history, &truth).left_out[0].total_s, 0.3);
    // A cut anywhere explains it, a fault on another node does not.
    history.faults[0].nodes = vec![1];
    assert_eq!(judge(&demands(300.0), &history, &truth).left_out[0].total_s, 5.4);
    history.faults[0].is_split = true;
    assert_eq!(judge(&demands(300.0), &history, &truth).left_out[0].total_s, 0.3);
    // Who did not look has not seen that all was well.
    history.states.clear();
    assert!(judge(&demands(0.0), &history, &truth).holds());
    history.looks.clear();
    assert_eq!(failed(&judge(&demands(0.0), &history, &truth)), what);
}

//! Requests at their origin: one event after the other, and every schedule of them.

use super::*;
use proptest::prelude::*;
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::plan::Stage;

const NODES: [NodeId; 3] = [NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];

fn plan(hosts: &[NodeId]) -> Plan {
    let stages = hosts
        .iter()
        .enumerate()
        .map(|(index, node)| Stage {
            node: *node,
            first: index as u16,
            end: index as u16 + 1,
            codec: Codec::Raw,
            backups: vec![],
            branch: None,
        })
        .collect();
    let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
    Plan { variant, origin: NodeId([9; 32]), stages, result_codec: Codec::Raw }
}

fn failed(attempt: u16, stage: u16) -> OriginEvent {
    OriginEvent::Failed { attempt, stage, reason: Refusal::RunFailed }
}

#[test]
fn a_failed_stage_leads_to_another_plan_without_its_host() {
    let mut origin = Origin::new(false);
    let first = plan(&NODES[..2]);
    let begun = origin.handle(OriginEvent::Planned(first.clone()));
    assert_eq!(begun, vec![OriginAction::Begin { attempt: 1, plan: first.clone() }]);
    let expected = vec![
        OriginAction::Cancel { attempt: 1, plan: first },
        OriginAction::Plan { without: vec![NODES[1]], after_ms: 0 },
    ];
    assert_eq!(origin.handle(failed(1, 1)), expected);
    assert_eq!(origin.handle(failed(1, 0)), vec![], "the same try does not fail twice");
    origin.handle(OriginEvent::Planned(plan(&NODES[2..])));
    assert_eq!(origin.handle(OriginEvent::Result(2)), vec![OriginAction::Answer { attempt: 2 }]);
    assert_eq!(origin.handle(OriginEvent::Result(2)), vec![], "answered once");
}

#[test]
fn a_fixed_plan_fails_with_its_stage() {
    let mut origin = Origin::new(true);
    origin.handle(OriginEvent::Planned(plan(&NODES)));
    let actions = origin.handle(failed(1, 2));
    let Some(OriginAction::Fail(Failure::Stage { stage: 2, node, .. })) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(*node, NODES[2]);
}

#[test]
fn a_fixed_plan_is_tried_once_more_after_a_momentary_loss() {
    let mut origin = Origin::new(true);
    origin.handle(OriginEvent::Planned(plan(&NODES)));
    let lost = |attempt| OriginEvent::Failed { attempt, stage: 1, reason: Refusal::SuccessorLost };
    let again = OriginAction::Begin { attempt: 2, plan: plan(&NODES) };
    assert_eq!(origin.handle(lost(1)).last(), Some(&again));
    assert!(matches!(origin.handle(lost(2)).last(), Some(OriginAction::Fail(Failure::Stage { .. }))));
}

#[test]
fn without_another_plan_the_failure_is_told_not_the_planning() {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
    origin.handle(failed(1, 0));
    let actions = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
    assert!(matches!(actions[..], [OriginAction::Fail(Failure::Stage { stage: 0, .. })]), "{actions:?}");
}

#[test]
fn while_hosts_are_lost_it_goes_on_with_growing_pauses() {
    let mut origin = Origin::new(false);
    let mut pauses_ms = Vec::new();
    let mut all = vec![];
    for attempt in 1..=ATTEMPTS_LOST_MAX {
        origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
        let lost = OriginEvent::Failed { attempt, stage: 0, reason: Refusal::SuccessorLost };
        all = origin.handle(lost);
        if let Some(OriginAction::Plan { without, after_ms }) = all.last() {
            assert!(without.contains(&NODES[0]));
            pauses_ms.push(*after_ms);
            // Nobody else is there.
            let again = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
            assert_eq!(again, vec![OriginAction::Plan { without: vec![], after_ms: *after_ms }]);
        }
    }
    assert_eq!(pauses_ms, [0, 0, 50, 100, 200, 400, 800]);
    let failure = Failure::Stage {
        stage: 0,
        node: NODES[0],
        blocks: [0, 1],
        reason: Refusal::SuccessorLost,
        attempts: ATTEMPTS_LOST_MAX,
    };
    assert_eq!(all.last(), Some(&OriginAction::Fail(failure)));
}

#[test]
fn what_a_host_refuses_is_not_asked_of_all_again() {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan(&NODES[..1])));
    origin.handle(failed(1, 0));
    let ended = origin.handle(OriginEvent::NoPlan("nobody is left".into()));
    assert!(matches!(ended[..], [OriginAction::Fail(Failure::Stage { attempts: 1, .. })]), "{ended:?}");
}

#[test]
fn a_lost_peer_matters_only_while_its_output_may_be_lost() {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan(&NODES)));
    origin.handle(OriginEvent::InputPassed { attempt: 1, stage: 0 });
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
    assert_eq!(origin.handle(OriginEvent::PeerLost(NodeId([7; 32]))), vec![]);
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2);
}

fn plan_with_backups() -> Plan {
    let mut plan = plan(&NODES[..2]);
    plan.stages.iter_mut().for_each(|stage| stage.backups = vec![NODES[2]]);
    plan
}

#[test]
fn the_input_goes_to_a_backup_before_another_plan_is_made() {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan_with_backups()));
    let failed = |to| OriginEvent::InputFailed { attempt: 1, stage: 0, to, reason: Refusal::SuccessorLost };
    let expected = vec![OriginAction::Send { attempt: 1, stage: 0, to: NODES[2] }];
    assert_eq!(origin.handle(failed(NODES[0])), expected);
    assert_eq!(origin.handle(failed(NODES[0])), vec![], "that is heard late");
    let Some(OriginAction::Plan { without, .. }) = origin.handle(failed(NODES[2])).pop() else { panic!() };
    assert!(without.contains(&NODES[0]) && without.contains(&NODES[2]));
}

#[test]
fn a_lost_host_is_left_to_its_sender_if_that_lives_and_there_are_backups() {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan_with_backups()));
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])), vec![]);
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[2])).len(), 2, "nor has it a host left");

    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan_with_backups()));
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2, "its sender is lost, too");

    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan_with_backups()));
    origin.handle(OriginEvent::PeerLost(NODES[2]));
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2, "the backup is lost, too");
}

#[test]
fn in_whatever_order_a_host_and_its_sender_are_lost_another_plan_is_made() {
    let backup = NodeId([7; 32]);
    let mut plan = plan(&NODES[..3]);
    plan.stages.iter_mut().for_each(|stage| stage.backups = vec![backup]);
    for lost in [[0, 1], [1, 0], [1, 2], [2, 1]] {
        let mut origin = begun(plan.clone());
        // The first stage's output is safe at the second.
        origin.handle(OriginEvent::InputPassed { attempt: 1, stage: 0 });
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[lost[0]])), vec![], "{lost:?}");
        assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[lost[1]])).len(), 2, "{lost:?}");
    }
    // Those that are no neighbours are left to their senders.
    let mut origin = begun(plan);
    origin.handle(OriginEvent::InputPassed { attempt: 1, stage: 0 });
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[2])), vec![]);
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
}

#[test]
fn hosts_that_are_full_for_the_loss_of_others_are_asked_again_after_a_pause() {
    let full = OriginEvent::Failed { attempt: 1, stage: 1, reason: Refusal::Overloaded };
    let after = |loss: &[OriginEvent]| {
        let mut origin = Origin::new(false);
        origin.handle(OriginEvent::Planned(plan_with_backups()));
        loss.iter().for_each(|event| drop(origin.handle(event.clone())));
        match origin.handle(full.clone()).pop() {
            Some(OriginAction::Plan { without, after_ms }) => (without.contains(&NODES[1]), after_ms),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(after(&[]), (true, 0), "nobody was lost: others may have room");
    assert_eq!(after(&[OriginEvent::HostLost { attempt: 1 }]), (false, PAUSE_MS));
    assert_eq!(after(&[OriginEvent::HostLost { attempt: 7 }]), (true, 0));

    // The same of the first stage, whose hosts the origin turns to itself.
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan_with_backups()));
    let input = |to, reason| OriginEvent::InputFailed { attempt: 1, stage: 0, to, reason };
    origin.handle(input(NODES[0], Refusal::SuccessorLost));
    let again = OriginAction::Plan { without: vec![NODES[0]], after_ms: PAUSE_MS };
    assert_eq!(origin.handle(input(NODES[2], Refusal::Overloaded)).pop(), Some(again));
}

/// A request whose input is under way to two hosts.
fn hedged() -> (Origin, [NodeId; 3]) {
    let hosts = [NODES[0], NODES[2], NODES[1]];
    let mut plan = plan_with_backups();
    plan.stages[0].backups = hosts[1..].to_vec();
    let mut origin = begun(plan);
    let hedge = |attempt, to| OriginEvent::Hedge { attempt, stage: 0, to };
    assert_eq!(origin.may_hedge(1, 0, hosts[0]), hosts[1..]);
    assert_eq!(origin.may_hedge(2, 0, hosts[0]), []);
    assert_eq!(origin.handle(hedge(2, hosts[1])), vec![], "another try");
    let sent = OriginAction::Send { attempt: 1, stage: 0, to: hosts[1] };
    assert_eq!(origin.handle(hedge(1, hosts[1])), vec![sent]);
    assert_eq!(origin.may_hedge(1, 0, hosts[0]), []);
    assert_eq!(origin.handle(hedge(1, hosts[2])), vec![], "two are enough");
    (origin, hosts)
}

#[test]
fn of_two_copies_of_an_input_one_may_fail() {
    let failed = |to, reason| OriginEvent::InputFailed { attempt: 1, stage: 0, to, reason };
    for [one, other] in [[0, 1], [1, 0]] {
        let (mut origin, hosts) = hedged();
        assert_eq!(origin.handle(failed(hosts[one], Refusal::SuccessorLost)), vec![]);
        assert_eq!(origin.handle(failed(hosts[one], Refusal::SuccessorLost)), vec![], "late");
        let sent = OriginAction::Send { attempt: 1, stage: 0, to: hosts[2] };
        assert_eq!(origin.handle(failed(hosts[other], Refusal::Overloaded)), vec![sent]);
        let ended = origin.handle(failed(hosts[2], Refusal::Overloaded));
        assert!(matches!(ended.last(), Some(OriginAction::Plan { .. })), "{ended:?}");

        let (mut origin, hosts) = hedged();
        origin.handle(OriginEvent::InputPassed { attempt: 1, stage: 0 });
        assert_eq!(origin.may_hedge(1, 0, hosts[other]), [], "it is safe");
        assert_eq!(origin.handle(failed(hosts[one], Refusal::SuccessorLost)), vec![], "it is safe");
    }
}

#[test]
fn nobody_hedges_into_a_join_at_the_origin() {
    let mut origin = begun(forked());
    assert_eq!(origin.may_hedge(1, 2, NODES[2]), []);
    assert_eq!(origin.handle(OriginEvent::Hedge { attempt: 1, stage: 2, to: NODES[0] }), vec![]);
}

/// Stages 0 and 1 are branches that the origin forks into; 2 joins them, and has a backup.
fn forked() -> Plan {
    let mut plan = plan(&NODES);
    (plan.stages[0].branch, plan.stages[1].branch) = (Some(0), Some(1));
    plan.stages[2].backups = vec![NODES[0], NODES[1]];
    assert_eq!(plan.check(), Ok(0..3));
    plan
}

fn begun(plan: Plan) -> Origin {
    let mut origin = Origin::new(false);
    origin.handle(OriginEvent::Planned(plan));
    origin
}

#[test]
fn a_join_is_moved_once_for_all_who_report_it() {
    let mut origin = begun(forked());
    let refused = |host, reason| OriginEvent::JoinFailed { attempt: 1, stage: 2, host, reason };
    let failed = |host| refused(host, Refusal::SuccessorLost);
    let moved = |host| OriginAction::Rejoin { attempt: 1, stage: 2, host };
    let send = |to| OriginAction::Send { attempt: 1, stage: 2, to };
    assert_eq!(origin.handle(failed(0)), vec![moved(1), send(NODES[0])]);
    // The other branch has not heard of it yet.
    assert_eq!(origin.handle(failed(0)), vec![moved(1)]);
    assert_eq!(origin.handle(failed(2)), vec![], "nobody was told of that one");
    assert_eq!(origin.handle(refused(1, Refusal::Overloaded)), vec![moved(2), send(NODES[1])]);
    let Some(OriginAction::Plan { without, .. }) = origin.handle(failed(2)).pop() else { panic!() };
    assert_eq!(without, [NODES[2], NODES[1]], "the first backup was only busy");
    // What waits where the join was before is freed with the answer.
    let mut origin = begun(forked());
    origin.handle(failed(0));
    let ended = [OriginAction::Cancel { attempt: 1, plan: forked() }, OriginAction::Answer { attempt: 1 }];
    assert_eq!(origin.handle(OriginEvent::Result(1)), ended);
}

#[test]
fn a_lost_host_of_a_join_moves_it_and_that_of_a_branch_without_backups_ends_the_try() {
    let mut origin = begun(forked());
    let moved = origin.handle(OriginEvent::PeerLost(NODES[2]));
    assert!(
        matches!(moved[..], [OriginAction::Rejoin { host: 1, .. }, OriginAction::Send { .. }]),
        "{moved:?}"
    );
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[1])).len(), 2, "a branch is lost");

    // Branches whose output is safe are needed no more, nor are they hosts to move to once they are gone.
    let mut origin = begun(forked());
    for stage in [0, 1] {
        origin.handle(OriginEvent::InputPassed { attempt: 1, stage });
    }
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
}

/// Who fed a branch let go of its input when the join had taken the output: with the branch's host gone as well, moving
/// the join would leave it waiting for ever.
#[test]
fn a_join_is_not_moved_when_what_it_took_is_lost_with_its_sender() {
    let is_planned_anew = |actions: Vec<OriginAction>| {
        let plan = actions.last().cloned();
        let Some(OriginAction::Plan { without, .. }) = plan else { panic!("{actions:?}") };
        without
    };
    // One after the other, in both orders.
    let mut origin = begun(forked());
    for stage in [0, 1] {
        origin.handle(OriginEvent::InputPassed { attempt: 1, stage });
    }
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[0])), vec![]);
    assert_eq!(is_planned_anew(origin.handle(OriginEvent::PeerLost(NODES[2]))), [NODES[0], NODES[2]]);
    let mut origin = begun(forked());
    assert_eq!(origin.handle(OriginEvent::PeerLost(NODES[2])).len(), 2, "moved");
    assert!(is_planned_anew(origin.handle(OriginEvent::PeerLost(NODES[1]))).contains(&NODES[1]));
    // At once, since they are on one node.
    let mut plan = forked();
    plan.stages[1].backups = vec![NODES[1]];
    (plan.stages[1].node, plan.stages[2].backups) = (NODES[2], vec![NODES[1]]);
    let reports = [
        OriginEvent::PeerLost(NODES[2]),
        OriginEvent::JoinFailed { attempt: 1, stage: 2, host: 0, reason: Refusal::SuccessorLost },
    ];
    for report in reports {
        let mut origin = begun(plan.clone());
        assert_eq!(is_planned_anew(origin.handle(report)), [NODES[2]]);
    }
}

#[test]
fn what_a_join_refuses_for_good_ends_the_request() {
    let mut origin = begun(forked());
    let refused = OriginEvent::JoinFailed { attempt: 1, stage: 2, host: 0, reason: Refusal::BadValue };
    assert!(matches!(
        origin.handle(refused).last(),
        Some(OriginAction::Fail(Failure::Stage { stage: 2, .. }))
    ));
}

#[test]
fn each_branch_that_the_origin_feeds_goes_to_its_own_backup() {
    let mut plan = forked();
    plan.stages[1].backups = vec![NODES[2]];
    let mut origin = begun(plan);
    let reason = Refusal::SuccessorLost;
    let failed = OriginEvent::InputFailed { attempt: 1, stage: 1, to: NODES[1], reason };
    let send = OriginAction::Send { attempt: 1, stage: 1, to: NODES[2] };
    assert_eq!(origin.handle(failed), vec![send]);
    let other = OriginEvent::InputFailed { attempt: 1, stage: 0, to: NODES[0], reason };
    assert!(matches!(origin.handle(other).last(), Some(OriginAction::Plan { .. })));
}

fn event() -> impl Strategy<Value = OriginEvent> {
    prop_oneof![
        Just(OriginEvent::Planned(plan(&NODES))),
        Just(OriginEvent::Planned(forked())),
        Just(OriginEvent::NoPlan(String::new())),
        (0..5u16, 0..4u16).prop_map(|(attempt, stage)| OriginEvent::InputPassed { attempt, stage }),
        (0..5u16, 0..5u16, 0..4u16).prop_map(|(attempt, stage, host)| OriginEvent::JoinFailed {
            attempt,
            stage,
            host,
            reason: Refusal::SuccessorLost
        }),
        (0..5u16, 0..4u16).prop_map(|(attempt, stage)| failed(attempt, stage)),
        (0..3usize).prop_map(|node| OriginEvent::PeerLost(NODES[node])),
        (0..5u16).prop_map(|attempt| OriginEvent::HostLost { attempt }),
        (0..5u16).prop_map(|attempt| OriginEvent::InputFailed {
            attempt,
            stage: 0,
            to: NODES[0],
            reason: Refusal::SuccessorLost
        }),
        (0..5u16, 0..4u16, 0..3usize).prop_map(|(attempt, stage, node)| OriginEvent::Hedge {
            attempt,
            stage,
            to: NODES[node]
        }),
        (0..5u16).prop_map(OriginEvent::Result),
        Just(OriginEvent::Deadline),
    ]
}

proptest! {
    #[test]
    fn every_schedule_ends_at_most_once_and_a_deadline_ends_it(
        events in proptest::collection::vec(event(), 0..40),
        fixed: bool,
    ) {
        let mut origin = Origin::new(fixed);
        let mut ends = 0;
        for event in events.into_iter().chain([OriginEvent::Deadline]) {
            for action in origin.handle(event) {
                prop_assert!(ends == 0, "an action after the end");
                ends += usize::from(matches!(
                    action,
                    OriginAction::Answer { .. } | OriginAction::Fail(_)
                ));
            }
        }
        prop_assert_eq!(ends, 1);
        prop_assert!(origin.attempts() <= ATTEMPTS_LOST_MAX);
    }
}

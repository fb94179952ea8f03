//! Stages, one event after the other.

use super::*;
use StageAction::{Done, Forget, Load, Report, Run, Say, Send};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{DeploymentId, VariantId};

fn plan() -> Arc<Plan> {
    let stage = |node, first, end| stormo_protocol::plan::Stage {
        node: NodeId([node; 32]),
        first,
        end,
        codec: Codec::Raw,
        backups: vec![],
        branch: None,
    };
    Arc::new(Plan {
        variant: VariantId { deployment: DeploymentId([1; 16]), index: 0 },
        origin: NodeId([9; 32]),
        stages: vec![stage(1, 0, 2), stage(2, 2, 3)],
        result_codec: Codec::Raw,
    })
}

/// A stage of a chain.
fn in_chain(plan: Arc<Plan>, index: u16, has_early: bool) -> (Stage, Vec<StageAction>) {
    let from = index.checked_sub(1).unwrap_or(ORIGIN);
    let next = if usize::from(index) + 1 < plan.stages.len() { index + 1 } else { ORIGIN };
    let early = has_early.then_some(ORIGIN);
    Stage::announced(plan, index, [from], [next].into_iter().chain(early)).unwrap()
}

fn stage(index: u16) -> Stage {
    let (stage, actions) = in_chain(plan(), index, false);
    assert_eq!(actions, vec![Load]);
    stage
}

#[test]
fn the_plain_path_keeps_its_output_until_it_is_safe() {
    let mut stage = stage(0);
    assert_eq!(stage.handle(StageEvent::Ready), vec![]);
    assert_eq!(stage.may_arrive(ORIGIN), Ok(()));
    assert_eq!(stage.handle(StageEvent::Offered(ORIGIN)), vec![]);
    assert_eq!(stage.handle(StageEvent::Received(ORIGIN)), vec![Say(Sign::Working), Run]);
    let edge = NEXT;
    let send = Send { to: NodeId([2; 32]), edge };
    assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), send]);
    assert_eq!(stage.handle(StageEvent::Taken(edge, at(edge))), vec![Say(Sign::Passed)]);
    assert_eq!(stage.handle(StageEvent::Passed(edge, at(edge))), vec![Done]);
}

/// A stage that has run and has an early output.
fn sending_early() -> Stage {
    let (mut stage, _) = in_chain(plan(), 0, true);
    for event in [StageEvent::Ready, StageEvent::Offered(ORIGIN), StageEvent::Received(ORIGIN)] {
        stage.handle(event);
    }
    let sends = [(NodeId([2; 32]), NEXT), (NodeId([9; 32]), EARLY)].map(|(to, edge)| Send { to, edge });
    assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), sends[0], sends[1]]);
    stage
}

/// The primary of the stage behind an edge, or the origin.
fn at(edge: Edge) -> NodeId {
    NodeId([if edge.to == ORIGIN { 9 } else { edge.to as u8 + 1 }; 32])
}

const NEXT: Edge = Edge { from: 0, to: 1 };
const EARLY: Edge = Edge { from: 0, to: ORIGIN };

#[test]
fn a_stage_with_an_early_output_passes_when_both_receivers_have_theirs() {
    for [first, second] in [[NEXT, EARLY], [EARLY, NEXT]] {
        let mut stage = sending_early();
        assert_eq!(stage.handle(StageEvent::Taken(first, at(first))), vec![]);
        assert_eq!(stage.handle(StageEvent::Passed(first, at(first))), vec![]);
        assert_eq!(stage.handle(StageEvent::Taken(second, at(second))), vec![Say(Sign::Passed)]);
        assert_eq!(stage.handle(StageEvent::Passed(second, at(second))), vec![Done]);
    }
}

#[test]
fn what_the_origin_refuses_no_backup_is_asked_for() {
    let mut stage = sending_early();
    stage.handle(StageEvent::Taken(NEXT, at(NEXT)));
    let failed = StageEvent::Refused(EARLY, at(EARLY), ORIGIN, Refusal::Leaving);
    let refused = Sign::Refused { stage: ORIGIN, reason: Refusal::Leaving };
    let expected = vec![Report(ORIGIN, Refusal::Leaving), Say(refused), Forget];
    assert_eq!(stage.handle(failed), expected);
}

#[test]
fn an_early_output_that_does_not_arrive_fails_the_stage_that_made_it() {
    let mut stage = sending_early();
    stage.handle(StageEvent::Taken(NEXT, at(NEXT)));
    let refused = Sign::Refused { stage: 0, reason: Refusal::SuccessorLost };
    let expected = vec![Report(ORIGIN, Refusal::SuccessorLost), Say(refused), Forget];
    assert_eq!(stage.handle(StageEvent::Lost(EARLY, at(EARLY))), expected);
}

#[test]
fn the_last_stage_has_no_early_output() {
    let (mut stage, _) = in_chain(plan(), 1, false);
    for event in [StageEvent::Ready, StageEvent::Offered(0), StageEvent::Received(0)] {
        stage.handle(event);
    }
    let edge = Edge { from: 1, to: ORIGIN };
    assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), Send { to: NodeId([9; 32]), edge }]);
    assert_eq!(stage.handle(StageEvent::Taken(edge, at(edge))), vec![Say(Sign::Passed)]);
}

/// A plan whose second stage has two backups.
fn plan_with_backups() -> Arc<Plan> {
    let mut plan = Plan::clone(&plan());
    plan.stages[1].backups = vec![NodeId([3; 32]), NodeId([4; 32])];
    Arc::new(plan)
}

fn sending(plan: Arc<Plan>) -> Stage {
    let (mut stage, _) = in_chain(plan, 0, false);
    for event in
        [StageEvent::Ready, StageEvent::Offered(ORIGIN), StageEvent::Received(ORIGIN), StageEvent::Ran]
    {
        stage.handle(event);
    }
    stage
}

#[test]
fn a_lost_or_refusing_receiver_is_followed_by_its_backups() {
    let mut stage = sending(plan_with_backups());
    let [second, third] = [3, 4].map(|node| NodeId([node; 32]));
    let to = |node| Send { to: node, edge: NEXT };
    let lost = StageEvent::Lost(NEXT, at(NEXT));
    assert_eq!(stage.handle(lost), vec![StageAction::Suspect(at(NEXT)), to(second)]);
    assert_eq!(stage.handle(lost), vec![], "late");
    // Even when it has the tensors: its own output may not be safe.
    assert_eq!(stage.handle(StageEvent::Taken(NEXT, second)), vec![Say(Sign::Passed)]);
    let refused = StageEvent::Refused(NEXT, second, 1, Refusal::Overloaded);
    assert_eq!(stage.handle(refused), vec![to(third)]);
    assert_eq!(stage.handle(StageEvent::Taken(NEXT, third)), vec![]);
    let report = vec![Report(1, Refusal::SuccessorLost), Forget];
    assert_eq!(stage.handle(StageEvent::Lost(NEXT, third)), report);
}

#[test]
fn a_receiver_that_is_avoided_is_not_accused_again() {
    let mut stage = sending(plan_with_backups());
    let to = Send { to: NodeId([3; 32]), edge: NEXT };
    assert_eq!(stage.handle(StageEvent::Avoided(NEXT, at(NEXT))), vec![to]);
}

#[test]
fn what_every_host_would_refuse_goes_to_no_backup() {
    let mut stage = sending(plan_with_backups());
    let refused = Sign::Refused { stage: 1, reason: Refusal::BadValue };
    let expected = vec![Report(1, Refusal::BadValue), Say(refused), Forget];
    assert_eq!(stage.handle(StageEvent::Refused(NEXT, at(NEXT), 1, Refusal::BadValue)), expected);
}

#[test]
fn who_has_it_already_or_needs_it_no_longer_has_passed() {
    for reason in [Refusal::Duplicate, Refusal::NotWaiting, Refusal::Cancelled] {
        let mut stage = sending(plan_with_backups());
        let done = vec![Say(Sign::Passed), Done];
        assert_eq!(stage.handle(StageEvent::Refused(NEXT, at(NEXT), 1, reason)), done);
    }
}

#[test]
fn a_second_copy_may_come_while_the_first_is_not_whole() {
    let mut stage = stage(1);
    stage.handle(StageEvent::Ready);
    for _ in 0..ARRIVING_MAX {
        assert_eq!(stage.may_arrive(0), Ok(()));
        stage.handle(StageEvent::Offered(0));
    }
    assert_eq!(stage.may_arrive(0), Err(Refusal::Duplicate));
    assert_eq!(stage.handle(StageEvent::Broken(0)), vec![]);
    assert_eq!(stage.handle(StageEvent::Received(0)), vec![Say(Sign::Working), Run]);
    assert_eq!(stage.handle(StageEvent::Received(0)), vec![], "the other copy");
    assert_eq!(stage.may_arrive(0), Err(Refusal::Duplicate));
}

#[test]
fn a_host_with_backups_that_cannot_load_waits_to_be_asked() {
    let (mut stage, _) = in_chain(plan_with_backups(), 1, false);
    assert_eq!(stage.handle(StageEvent::NotReady(Refusal::NoMemory)), vec![]);
    assert_eq!(stage.may_arrive(0), Err(Refusal::NoMemory));
}

#[test]
fn tensors_wait_for_a_partition_that_loads() {
    let mut stage = stage(1);
    stage.handle(StageEvent::Offered(0));
    assert_eq!(stage.handle(StageEvent::Received(0)), vec![Say(Sign::Queued(0))]);
    assert_eq!(stage.handle(StageEvent::Ready), vec![Say(Sign::Working), Run]);
    let edge = Edge { from: 1, to: ORIGIN };
    let send = Send { to: NodeId([9; 32]), edge };
    assert_eq!(stage.handle(StageEvent::Ran), vec![Say(Sign::Sending), send]);
}

#[test]
fn a_broken_input_may_come_again() {
    let mut stage = stage(0);
    stage.handle(StageEvent::Offered(ORIGIN));
    assert_eq!(stage.handle(StageEvent::Broken(ORIGIN)), vec![]);
    assert_eq!(stage.may_arrive(ORIGIN), Ok(()));
}

#[test]
fn failures_are_said_upstream_and_reported_by_one() {
    let mut failing = stage(1);
    failing.handle(StageEvent::Ready);
    failing.handle(StageEvent::Offered(0));
    failing.handle(StageEvent::Received(0));
    let refused = Sign::Refused { stage: 1, reason: Refusal::RunFailed };
    assert_eq!(failing.handle(StageEvent::RunFailed(Refusal::RunFailed)), vec![Say(refused), Forget]);

    let mut before = stage(0);
    for event in
        [StageEvent::Ready, StageEvent::Offered(ORIGIN), StageEvent::Received(ORIGIN), StageEvent::Ran]
    {
        before.handle(event);
    }
    let edge = Edge { from: 0, to: 1 };
    assert_eq!(before.handle(StageEvent::Taken(edge, at(edge))), vec![Say(Sign::Passed)]);
    let heard = StageEvent::Refused(edge, at(edge), 1, Refusal::RunFailed);
    assert_eq!(before.handle(heard), vec![Report(1, Refusal::RunFailed), Forget]);
}

#[test]
fn a_lost_successor_is_reported() {
    let mut stage = stage(0);
    for event in
        [StageEvent::Ready, StageEvent::Offered(ORIGIN), StageEvent::Received(ORIGIN), StageEvent::Ran]
    {
        stage.handle(event);
    }
    let refused = Sign::Refused { stage: 1, reason: Refusal::SuccessorLost };
    let expected = vec![Report(1, Refusal::SuccessorLost), Say(refused), Forget];
    assert_eq!(
        stage.handle(StageEvent::Lost(Edge { from: 0, to: 1 }, at(Edge { from: 0, to: 1 }))),
        expected
    );
}

#[test]
fn what_cannot_load_is_reported_at_once_and_refuses_later_tensors() {
    let mut stage = stage(0);
    let reason = Refusal::NoMemory;
    assert_eq!(stage.handle(StageEvent::NotReady(reason)), vec![Report(0, reason)]);
    assert_eq!(stage.may_arrive(ORIGIN), Err(reason));
}

/// Stage 0 forks into 1 and 2, which 3 joins; what passes them by goes straight from 0 to 3. Joins have a backup.
fn forked() -> Arc<Plan> {
    let mut plan = Plan::clone(&plan());
    let stage = plan.stages[0].clone();
    let of = |(index, branch): (u16, Option<u16>)| stormo_protocol::plan::Stage {
        node: NodeId([index as u8 + 1; 32]),
        first: index,
        end: index + 1,
        branch,
        ..stage.clone()
    };
    plan.stages = [(0, None), (1, Some(0)), (2, Some(1)), (3, None)].map(of).to_vec();
    plan.stages[3].backups = vec![NodeId([5; 32])];
    assert_eq!(plan.check(), Ok(0..4));
    Arc::new(plan)
}

fn fork() -> Stage {
    let (mut fork, _) = Stage::announced(forked(), 0, [ORIGIN], [1, 2, 3]).unwrap();
    for event in [StageEvent::Ready, StageEvent::Offered(ORIGIN), StageEvent::Received(ORIGIN)] {
        fork.handle(event);
    }
    fork
}

fn join() -> Stage {
    let (mut join, _) = Stage::announced(forked(), 3, [1, 2, 0], [ORIGIN]).unwrap();
    join.handle(StageEvent::Ready);
    join
}

#[test]
fn a_join_waits_for_all_its_inputs() {
    let mut join = join();
    for (from, said) in [(2, Sign::Waiting(2)), (0, Sign::Waiting(1))] {
        assert_eq!(join.may_arrive(from), Ok(()));
        join.handle(StageEvent::Offered(from));
        assert_eq!(join.handle(StageEvent::Received(from)), vec![Say(said)]);
        assert_eq!(join.handle(StageEvent::Received(from)), vec![], "twice");
        assert_eq!(join.may_arrive(from), Err(Refusal::Duplicate));
        assert!(join.has_joined_in_part());
        assert_eq!(join.lacks_only(1), from == 0, "the one from 1 is the last");
    }
    assert_eq!((join.may_arrive(1), join.may_arrive(ORIGIN)), (Ok(()), Err(Refusal::NotMyStage)));
    join.handle(StageEvent::Offered(1));
    assert_eq!(join.handle(StageEvent::Received(1)), vec![Say(Sign::Working), Run]);
    assert!(!join.has_joined_in_part());
}

#[test]
fn a_join_that_cannot_load_refuses_what_it_has() {
    let (mut join, _) = Stage::announced(forked(), 3, [1, 2, 0], [ORIGIN]).unwrap();
    join.handle(StageEvent::Offered(2));
    join.handle(StageEvent::Received(2));
    let refused = Say(Sign::Refused { stage: 3, reason: Refusal::NoMemory });
    assert_eq!(join.handle(StageEvent::NotReady(Refusal::NoMemory)), vec![refused, Forget]);
}

#[test]
fn a_fork_has_passed_when_all_have_their_part() {
    let mut fork = fork();
    let edges = [1, 2, 3].map(|to| Edge { from: 0, to });
    let sends = edges.map(|edge| Send { to: NodeId([edge.to as u8 + 1; 32]), edge });
    assert_eq!(fork.handle(StageEvent::Ran), [&[Say(Sign::Sending)], &sends[..]].concat());
    assert_eq!(fork.handle(StageEvent::Taken(edges[2], at(edges[2]))), vec![]);
    assert_eq!(fork.handle(StageEvent::Passed(edges[0], at(edges[0]))), vec![]);
    assert_eq!(fork.handle(StageEvent::Taken(edges[1], at(edges[1]))), vec![Say(Sign::Passed)]);
    assert_eq!(fork.handle(StageEvent::Passed(edges[2], at(edges[2]))), vec![]);
    assert_eq!(fork.handle(StageEvent::Passed(edges[1], at(edges[1]))), vec![Done]);
}

#[test]
fn a_join_is_moved_by_the_origin_alone() {
    let (mut fork, edge) = (fork(), Edge { from: 0, to: 3 });
    fork.handle(StageEvent::Ran);
    let lost = StageAction::ReportJoin { stage: 3, host: 0, reason: Refusal::SuccessorLost };
    assert_eq!(fork.handle(StageEvent::Lost(edge, at(edge))), vec![lost]);
    let rejoin = |host| StageEvent::Rejoin { stage: 3, host };
    assert_eq!(fork.handle(rejoin(1)), vec![Send { to: NodeId([5; 32]), edge }]);
    assert_eq!(fork.handle(StageEvent::Lost(edge, NodeId([4; 32]))), vec![], "late");
    for late in [rejoin(1), rejoin(0), rejoin(2), StageEvent::Rejoin { stage: 1, host: 1 }] {
        assert_eq!(fork.handle(late), vec![], "{late:?}");
    }
    let refused = StageEvent::Refused(edge, NodeId([5; 32]), 3, Refusal::Overloaded);
    let report = StageAction::ReportJoin { stage: 3, host: 1, reason: Refusal::Overloaded };
    assert_eq!(fork.handle(refused), vec![report]);
}

#[test]
fn a_join_that_was_moved_before_the_output_was_there_is_sent_it_at_once() {
    let mut fork = fork();
    assert_eq!(fork.handle(StageEvent::Rejoin { stage: 3, host: 1 }), vec![]);
    let sent = fork.handle(StageEvent::Ran);
    assert_eq!(sent.last(), Some(&Send { to: NodeId([5; 32]), edge: Edge { from: 0, to: 3 } }));
}

#[test]
fn what_a_join_passed_on_is_not_sent_again() {
    let (mut fork, edge) = (fork(), Edge { from: 0, to: 3 });
    fork.handle(StageEvent::Ran);
    fork.handle(StageEvent::Passed(edge, at(edge)));
    assert_eq!(fork.handle(StageEvent::Rejoin { stage: 3, host: 1 }), vec![]);
}

/// A stage whose output is under way to two hosts of the next one, and these.
fn hedged() -> (Stage, [NodeId; 3]) {
    let mut stage = sending(plan_with_backups());
    let hosts = [2, 3, 4].map(|node| NodeId([node; 32]));
    assert_eq!(stage.may_hedge(NEXT, hosts[0]), hosts[1..]);
    assert_eq!(stage.may_hedge(NEXT, hosts[1]), [], "it has none");
    assert_eq!(stage.handle(StageEvent::Hedge(NEXT, hosts[0])), vec![], "it has one");
    let sent = stage.handle(StageEvent::Hedge(NEXT, hosts[2]));
    assert_eq!(sent, vec![Send { to: hosts[2], edge: NEXT }]);
    assert_eq!(stage.may_hedge(NEXT, hosts[0]), [], "two are enough");
    assert_eq!(stage.handle(StageEvent::Hedge(NEXT, hosts[1])), vec![]);
    (stage, hosts)
}

#[test]
fn of_two_copies_the_first_that_is_passed_on_makes_it_safe() {
    for [winner, loser] in [[0, 2], [2, 0]] {
        let (mut stage, hosts) = hedged();
        assert_eq!(stage.handle(StageEvent::Taken(NEXT, hosts[loser])), vec![Say(Sign::Passed)]);
        assert_eq!(stage.handle(StageEvent::Taken(NEXT, hosts[winner])), vec![]);
        assert_eq!(stage.handle(StageEvent::Passed(NEXT, hosts[winner])), vec![Done]);
    }
}

#[test]
fn a_copy_that_fails_leaves_it_to_the_other_one() {
    for [failing, other] in [[0, 2], [2, 0]] {
        let (mut stage, hosts) = hedged();
        let late = [
            StageEvent::Taken(NEXT, hosts[failing]),
            StageEvent::Passed(NEXT, hosts[failing]),
            StageEvent::Lost(NEXT, hosts[failing]),
        ];
        assert_eq!(stage.handle(StageEvent::Refused(NEXT, hosts[failing], 1, Refusal::WrongTensors)), vec![]);
        for late in late {
            assert_eq!(stage.handle(late), vec![], "{late:?}");
        }
        assert_eq!(stage.may_hedge(NEXT, hosts[other]), [hosts[1]]);
        let suspect = StageAction::Suspect(hosts[other]);
        let sent = stage.handle(StageEvent::Lost(NEXT, hosts[other]));
        assert_eq!(sent, vec![suspect, Send { to: hosts[1], edge: NEXT }]);
        assert!(!stage.has_others(NEXT, hosts[1]));
        let expected = vec![
            Report(1, Refusal::SuccessorLost),
            Say(Sign::Refused { stage: 1, reason: Refusal::SuccessorLost }),
            Forget,
        ];
        assert_eq!(stage.handle(StageEvent::Lost(NEXT, hosts[1])), expected);
    }
}

#[test]
fn what_is_kept_for_others_outlives_a_lost_copy() {
    let (mut stage, hosts) = hedged();
    assert_eq!(stage.handle(StageEvent::Taken(NEXT, hosts[0])), vec![Say(Sign::Passed)]);
    assert_eq!(stage.handle(StageEvent::Lost(NEXT, hosts[0])), vec![StageAction::Suspect(hosts[0])]);
    assert_eq!(stage.handle(StageEvent::Passed(NEXT, hosts[2])), vec![Done]);
}

#[test]
fn nobody_hedges_into_a_join_or_to_the_origin() {
    let mut fork = fork();
    fork.handle(StageEvent::Ran);
    let join = Edge { from: 0, to: 3 };
    assert_eq!(fork.may_hedge(join, at(join)), []);
    assert_eq!(fork.handle(StageEvent::Hedge(join, NodeId([5; 32]))), vec![]);
    let mut last = sending_early();
    assert_eq!(last.may_hedge(EARLY, at(EARLY)), []);
    assert_eq!(last.handle(StageEvent::Hedge(EARLY, at(EARLY))), vec![]);
}

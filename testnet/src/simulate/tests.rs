//! Whole simulations, short ones. A failing one names its seed: `cargo mesh simulate --seed S` plays it again.

use stormo::mesh::FORGET_MS;

use super::faults::Fault;
use super::*;

const SECOND_US: u64 = 1_000_000;

/// A calm mesh.
fn calm(nodes: u16, seed: u64) -> Spec {
    Spec {
        nodes,
        seed,
        measured_s: 20,
        warm_up_s: 20,
        crashes: 0,
        starved: 0.0,
        one_way_s: 0,
        partition_s: 0,
        ..Spec::default()
    }
}

#[test]
fn what_cannot_be_simulated_names_its_option() {
    let fine = calm(8, 1);
    assert_eq!(fine.check(), Ok(()));
    let cases = [
        (Spec { nodes: 1, ..fine }, "--nodes: 1; it must be from 2 to 10000 nodes"),
        (Spec { loss: 1.5, ..fine }, "--loss 1.5: a share, from 0 to 1"),
        (Spec { starved: f64::NAN, ..fine }, "--starved NaN: a share, from 0 to 1"),
        (Spec { measured_s: 3, ..fine }, "--minutes: 3; it must be from 10 to 14400"),
        (Spec { measured_s: u32::MAX, ..fine }, "--minutes: 4294967295; "),
        (Spec { warm_up_s: 20_000, ..fine }, "--warm-up: 20000; "),
        (Spec { crashes: 21, ..fine }, "--crash: 21; it must be from 0 to 20 deaths"),
        (
            Spec { changes_per_minute: 70_000, ..fine },
            "--changes: 70000; it must be from 0 to 60000 a minute",
        ),
        (Spec { requests_per_s: f64::INFINITY, ..fine }, "--requests: inf; "),
        (Spec { latency_us: (0, 20_000_000), ..fine }, "--latency: 20000; it must be from 0 to 10000 ms"),
        (Spec { apart_ms: 5_000, ..fine }, "--apart 5000: "),
        (Spec { partition_s: 7, ..fine }, "--partition 7: "),
    ];
    for (spec, says) in cases {
        let told = spec.check().map_err(|error| error.to_string());
        assert!(told.as_ref().is_err_and(|told| told.starts_with(says)), "wanted `{says}`: {told:?}");
    }
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let spec = |seed| Spec { crashes: 1, starved: 0.2, loss: 0.05, requests_per_s: 5.0, ..calm(8, seed) };
    let runs = [1, 1, 2].map(|seed| run(&spec(seed)).unwrap());
    assert_eq!(runs[0].trace, runs[1].trace);
    assert_eq!((runs[0].packets, &runs[0].requests), (runs[1].packets, &runs[1].requests));
    assert_ne!(runs[0].trace, runs[2].trace);
}

#[test]
fn in_a_calm_mesh_all_is_known_at_once_and_nobody_dies() {
    for seed in 1..=3 {
        let outcome = run(&Spec { changes_per_minute: 60, ..calm(12, seed) }).unwrap();
        let measured = &outcome.measured;
        assert!(measured.changes > 0, "seed {seed}: {measured:?}");
        assert!(measured.known_to_all_ms.worst.is_some_and(|ms| ms < 1_000.0), "seed {seed}: {measured:?}");
        assert_eq!((measured.false_deaths, measured.deaths), (0, 0), "seed {seed}: {measured:?}");
    }
}

#[test]
fn every_request_of_a_calm_mesh_is_answered_at_the_first_try() {
    for seed in 1..=3 {
        let requests = run(&Spec { requests_per_s: 10.0, ..calm(10, seed) }).unwrap().requests;
        assert!(requests.asked > 100, "seed {seed}: {requests:?}");
        assert_eq!(
            (requests.answered, requests.tried_again),
            (requests.asked, 0),
            "seed {seed}: {requests:?}"
        );
        assert_eq!(requests.violations, 0, "seed {seed}: {requests:?}");
    }
}

#[test]
fn whatever_happens_each_request_ends_once_and_in_time() {
    for seed in 1..=8 {
        let loss = [0.0, 0.02, 0.1][seed as usize % 3];
        let faults = Spec {
            loss,
            crashes: 6,
            starved: 0.3,
            one_way_s: 8,
            partition_s: 10,
            measured_s: 40,
            ..calm(10, seed)
        };
        let requests = run(&Spec { requests_per_s: 20.0, ..faults }).unwrap().requests;
        assert_eq!(requests.violations, 0, "seed {seed}: {requests:?}");
        assert!(
            requests.answered > 0 && requests.tried_again > 0,
            "nothing was tried, seed {seed}: {requests:?}"
        );
        let ended = requests.answered + requests.failed + requests.unknown;
        assert_eq!(ended, requests.asked, "seed {seed}: {requests:?}");
    }
}

#[test]
fn a_mesh_that_hears_nothing_is_measured_too() {
    for loss in [0.9, 1.0] {
        let spec = Spec { loss, crashes: 3, measured_s: 30, ..calm(5, 1) };
        let measured = run(&spec).unwrap().measured;
        assert_eq!(measured.deaths, 3, "loss {loss}");
    }
}

#[test]
fn the_dead_are_noticed_and_a_parted_mesh_is_one_again() {
    for seed in 1..=3 {
        let spec = Spec { crashes: 3, partition_s: 20, measured_s: 100, ..calm(12, seed) };
        let measured = run(&spec).unwrap().measured;
        assert_eq!(measured.deaths, 3, "seed {seed}");
        assert!(
            measured.dead_suspected_by_all_ms.worst.is_some_and(|ms| ms < 6_000.0),
            "seed {seed}: {measured:?}"
        );
        assert!(measured.views_equal_after_heal_ms.flatten().is_some(), "seed {seed}: {measured:?}");
    }
}

/// The aims of a mesh, as `cargo mesh simulate --seeds FIRST..LAST` judges them for more seeds and nodes.
fn holds_its_aims(nodes: u16, seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let spec = Spec { nodes, seed, measured_s: 240, warm_up_s: 30, ..Spec::default() };
        let measured = run(&spec).unwrap().measured;
        let within = |ms: Option<f64>, most: f64| ms.is_some_and(|ms| ms <= most);
        let bytes_max = if nodes <= 10 { 15e3 } else { 120e3 };
        let holds = [
            ("all know all", measured.formed_ms.is_some()),
            ("changes", within(measured.known_to_99_percent_ms.worst, 1_000.0)),
            ("deaths", within(measured.dead_suspected_by_all_ms.worst, 8_000.0)),
            ("false deaths", measured.false_deaths == 0),
            ("flips", measured.flips_in_a_minute.is_none_or(|flips| flips <= 1)),
            ("healing", within(measured.views_equal_after_heal_ms.flatten(), 5_000.0)),
            ("bytes", measured.sent_bytes_per_s.most <= bytes_max),
        ];
        let missed: Vec<&str> = holds.iter().filter(|(_, holds)| !holds).map(|(aim, _)| *aim).collect();
        assert!(missed.is_empty(), "{nodes} nodes, seed {seed}: {missed:?} of {measured:?}");
    }
}

#[test]
fn a_mesh_of_ten_holds_its_aims() {
    holds_its_aims(10, 1..=4);
}

#[test]
fn a_mesh_of_thirty_holds_its_aims() {
    holds_its_aims(30, 1..=2);
}

#[test]
fn nobody_is_taken_for_dead_though_packets_are_lost_and_nodes_starved() {
    for (nodes, seed) in [(10, 1), (30, 2)] {
        let spec = Spec {
            loss: 0.1,
            starved: 0.3,
            measured_s: 120,
            one_way_s: 0,
            partition_s: 0,
            ..calm(nodes, seed)
        };
        let measured = run(&spec).unwrap().measured;
        assert!(measured.formed_ms.is_some() && measured.false_deaths == 0, "seed {seed}: {measured:?}");
    }
}

/// Its connections stand, and for some seconds nothing comes over them but what was sent again: whoever is about to be
/// left out is asked for.
#[test]
fn nobody_is_taken_for_dead_because_its_packets_were_lost_for_a_while() {
    for seed in [3, 26] {
        let measured = run(&Spec { nodes: 10, seed, loss: 0.1, ..Spec::default() }).unwrap().measured;
        assert_eq!(measured.false_deaths, 0, "seed {seed}: {measured:?}");
    }
}

/// Megabytes wait on connections that lose packets, and answers, and the word that a connection is closed, behind them.
#[test]
fn nobody_is_taken_for_dead_while_requests_fill_connections_that_lose_packets() {
    for seed in [3, 26, 140] {
        let load = Spec { loss: 0.1, requests_per_s: 5.0, measured_s: 600, ..Spec::default() };
        let measured = run(&Spec { nodes: 10, seed, ..load }).unwrap().measured;
        assert_eq!(measured.false_deaths, 0, "seed {seed}: {measured:?}");
    }
}

/// What a node says while it still joins takes as long as joining does.
#[test]
fn changes_are_followed_once_their_node_had_time_to_join() {
    let measured = run(&Spec { nodes: 10, seed: 37, loss: 0.1, ..Spec::default() }).unwrap().measured;
    let known_ms = measured.known_to_99_percent_ms.worst;
    assert!(known_ms.is_some_and(|ms| ms <= 1_000.0), "{measured:?}");
}

/// After a partition that is longer than a view remembers, both halves have connections, and each only knows of the
/// other that it was there.
#[test]
fn halves_that_forgot_each_other_find_together() {
    let long_s = (FORGET_MS / 1_000 + 30) as u32;
    for seed in 1..=2 {
        let spec = Spec { partition_s: long_s, measured_s: 4 * long_s, ..calm(8, seed) };
        let measured = run(&spec).unwrap().measured;
        let healed_ms = measured.views_equal_after_heal_ms.flatten();
        assert!(healed_ms.is_some_and(|ms| ms <= 5_000.0), "seed {seed}: {measured:?}");
    }
}

/// Whether each of these hosts knows the newest record of another one and would use it.
fn all_use(world: &World, hosts: std::ops::Range<usize>, other: usize, now_us: u64) -> bool {
    let (id, stamp) = (world.hosts[other].id, world.hosts[other].stamp());
    hosts.filter(|host| *host != other).all(|host| {
        let (clock_ms, view) = (world.hosts[host].clock_ms(now_us), world.hosts[host].member.view());
        view.is_usable(clock_ms, id)
            && view.get(id).is_some_and(|known| known.record.stamp.generation == stamp.generation)
    })
}

/// Others hold newer records of it than it has ever made: its folder was put back from a backup, or is as it was.
#[test]
fn who_starts_again_with_an_older_or_the_same_generation_is_used_within_seconds() {
    for (seed, back) in [(1, 0), (2, 1), (3, 5)] {
        let mut world = set_up(&calm(8, seed));
        let (victim, killed_us) = (3, 40 * SECOND_US);
        world.hosts[victim].generation = 5;
        world.run_until(killed_us);
        assert_eq!(world.hosts[victim].stamp().generation, 6);
        world.hosts[victim].generation -= back;
        world.fault(killed_us, Fault::Kill(victim as HostIndex));
        world.run_until(killed_us + 3 * SECOND_US);
        let holds = |host: usize| {
            let (clock_ms, view) =
                (world.hosts[host].clock_ms(killed_us + 3 * SECOND_US), world.hosts[host].member.view());
            host != victim && view.is_usable(clock_ms, world.hosts[victim].id)
        };
        assert!(!(0..8).any(holds), "seed {seed}: some count on a dead node");
        // It starts 25 s after it died, and joins anew.
        let back_us = killed_us + (25 + 4) * SECOND_US;
        world.run_until(back_us);
        assert!(world.hosts[victim].stamp().generation > 5, "seed {seed}: {:?}", world.hosts[victim].stamp());
        assert!(all_use(&world, 0..8, victim, back_us), "seed {seed}: some do not use it");
    }
}

/// Two hundred nodes start at one moment and all join at the first of ten that are a mesh: these go on using each
/// other, and soon all know all.
#[test]
fn a_flood_of_joins_leaves_the_mesh_that_is_joined_as_it_was() {
    let (old, all) = (10_u16, 210_u16);
    let spec = Spec { measured_s: 30, ..calm(all, 1) };
    let flood_us = spec.warm_up_us();
    let mut world = set_up_with(&spec, |index, random| {
        if index < old { u64::from(index) * 100_000 } else { flood_us + random.bits() % 100_000 }
    });
    for host in &mut world.hosts[usize::from(old)..] {
        host.join_at(0);
    }
    for step in 0..60 {
        let now_us = flood_us + step * SECOND_US / 2;
        world.run_until(now_us);
        for host in 0..usize::from(old) {
            assert!(
                all_use(&world, 0..usize::from(old), host, now_us),
                "host {host} after {step} half seconds"
            );
        }
        let most = world.hosts[0].peers.len();
        assert!(most < 512, "{most} connections of the one that is joined at");
    }
    let end_us = spec.end_us();
    world.run_until(end_us);
    for host in 0..usize::from(all) {
        assert!(all_use(&world, 0..usize::from(all), host, end_us), "host {host} is not used by all");
    }
    assert!(world.hosts[0].peers.len() <= 32, "{} connections are left", world.hosts[0].peers.len());
}

#[test]
fn a_simulation_ends_when_it_is_to() {
    let mut looks = 0;
    let ended = run_while(&calm(3, 1), &mut |_| {
        looks += 1;
        looks < 5
    });
    assert_eq!((ended, looks), (Ok(None), 5));
}

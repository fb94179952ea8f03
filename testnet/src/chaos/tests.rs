//! Schedules keep within their bounds, come back from their files, and shrink to what matters.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::binary::workspace_root;
use crate::scenario::{FaultKind, Target};

const HEAD: &str = "about = \"a test\"\ntopology = \"replicas\"\nduration_s = 60.0\n";
const ORIGIN: &str = "[[load]]\ndeploy = \"digits\"\nat = [\"origin\"]\nclients = 2\n";

fn scenario(head: &str, replicas: u16, rest: &str) -> Scenario {
    let text = format!(
        "{head}[[deploy]]\nname = \"digits\"\nmodel = \"digits\"\nat = \"origin\"\nparts = 3\nreplicas = {replicas}\n{rest}"
    );
    Scenario::parse(Path::new("a/base.toml"), text).unwrap()
}

fn base(replicas: u16) -> Scenario {
    scenario(HEAD, replicas, ORIGIN)
}

fn bounds(at_once_max: usize, whole_us: u64) -> Bounds {
    Bounds { is_emulated: true, has_clocks: true, at_once_max, stretch: Stretch::to(whole_us) }
}

fn plain(faults: &[Scheduled]) -> Vec<Scheduled> {
    faults.iter().map(|fault| Scheduled { line: 0, ..fault.clone() }).collect()
}

proptest! {
    /// Whatever is drawn is a scenario that can be read back, fault by fault, and keeps its bounds.
    #[test]
    fn what_is_drawn_is_a_scenario(seed in any::<u64>(), is_emulated in any::<bool>(), has_clocks in any::<bool>(), at_once_max in 1usize..4) {
        let scenario = base(2);
        let bounds = Bounds { is_emulated, has_clocks, ..bounds(at_once_max, 60_000_000) };
        let drawn = draw(&scenario, seed, &bounds).unwrap().faults;
        prop_assert_eq!(&draw(&scenario, seed, &bounds).unwrap().faults, &drawn, "the same seed, the same schedule");
        prop_assert!(is_emulated || drawn.iter().all(|fault| !fault.kind.needs_emulation()));
        prop_assert!(has_clocks || !drawn.iter().any(|fault| matches!(fault.kind, FaultKind::Clock(..))));
        for fault in &drawn {
            let end_us = |fault: &Scheduled| fault.at_us + fault.for_us.unwrap_or(0);
            let at_once = drawn.iter().filter(|other| other.at_us <= fault.at_us && end_us(other) > fault.at_us);
            prop_assert!(at_once.count() <= at_once_max);
            prop_assert!(end_us(fault) <= 50_000_000, "ten seconds are left for progress");
            prop_assert!(fault.kind.target() != Some(&Target::Node("origin".to_owned())), "entries are spared");
        }
        let text = written(&scenario, "chaos", seed >> 1, &bounds.stretch, &drawn).unwrap();
        let again = Scenario::parse(Path::new("b/c.toml"), text);
        let again = again.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(again.seed, seed >> 1);
        prop_assert_eq!(plain(&again.faults), plain(&drawn));
    }

    /// Of a schedule that breaks whenever some of its faults are in it, just these are left.
    #[test]
    fn what_matters_is_left(count in 1usize..24, guilty in prop::collection::btree_set(0usize..24, 1..4)) {
        let guilty: BTreeSet<u64> = guilty.into_iter().map(|at| (at % count) as u64).collect();
        let fault = |at: usize| Scheduled {
            line: 0,
            kind: FaultKind::Restart(Target::Busiest),
            at_us: at as u64,
            for_us: None,
        };
        let faults: Vec<Scheduled> = (0..count).map(fault).collect();
        let breaks = |faults: &[Scheduled]| {
            let has: BTreeSet<u64> = faults.iter().map(|fault| fault.at_us).collect();
            Ok::<_, Infallible>(guilty.is_subset(&has))
        };
        let Ok(left) = minimise(&faults, 10_000, breaks);
        prop_assert!(left.is_minimal);
        prop_assert_eq!(left.faults.iter().map(|fault| fault.at_us).collect::<BTreeSet<_>>(), guilty);
    }
}

#[test]
fn what_fails_by_itself_is_left_without_faults() {
    let fault = |at_us| Scheduled { line: 0, kind: FaultKind::Restart(Target::Busiest), at_us, for_us: None };
    for count in [1, 5] {
        let faults: Vec<Scheduled> = (0..count).map(fault).collect();
        let Ok(left) = minimise(&faults, 10, |_| Ok::<_, Infallible>(true));
        assert_eq!(left, Minimised { faults: Vec::new(), tried: 1, is_minimal: true });
        let Ok(left) = minimise(&faults, 100, |faults| Ok::<_, Infallible>(!faults.is_empty()));
        assert_eq!((left.faults.len(), left.is_minimal), (1, true));
    }
}

#[test]
fn a_bound_of_tries_is_kept() {
    let fault = |at_us| Scheduled { line: 0, kind: FaultKind::Restart(Target::Busiest), at_us, for_us: None };
    let faults: Vec<Scheduled> = (0..16).map(fault).collect();
    let mut asked = 0;
    let Ok(left) = minimise(&faults, 3, |_| {
        asked += 1;
        Ok::<_, Infallible>(false)
    });
    assert_eq!((left.faults.len(), left.tried, asked, left.is_minimal), (16, 3, 3, false));
}

#[test]
fn all_that_the_ground_offers_is_drawn() {
    let mut scenario = base(2);
    scenario.topology.nodes.iter_mut().for_each(|node| node.disk_bytes = Some(64 << 20));
    let drawn = |bounds: &Bounds| -> BTreeSet<&'static str> {
        let all = (0..200).flat_map(|seed| draw(&scenario, seed, bounds).unwrap().faults);
        all.map(|fault| fault.kind.name()).collect()
    };
    let everything = bounds(2, 60_000_000);
    let names = [
        "clock",
        "cpu",
        "cut",
        "disk",
        "freeze",
        "kill",
        "link",
        "partition",
        "power_loss",
        "restart",
        "uplink",
    ];
    assert_eq!(drawn(&everything), BTreeSet::from(names));
    let plain = Bounds { is_emulated: false, has_clocks: false, ..everything };
    assert_eq!(drawn(&plain), BTreeSet::from(["freeze", "kill", "restart"]));
}

#[test]
fn faults_are_drawn_where_requests_may_be() {
    // Parts on two nodes of six, by name.
    let placed = "placement = [{ node = \"a-1\", blocks = [0, 15] }, { node = \"b-2\", blocks = [0, 15] }]\n";
    let text = base(2).text.replace("parts = 3\nreplicas = 2\n", placed);
    let scenario = Scenario::parse(Path::new("a/base.toml"), text).unwrap();
    let used = ["a-1", "b-2", "origin"];
    for seed in 0..200 {
        for fault in draw(&scenario, seed, &bounds(1, 60_000_000)).unwrap().faults {
            match &fault.kind {
                FaultKind::Link { from, to, .. } | FaultKind::Cut { from, to, .. } => {
                    assert!(
                        from != to && used.contains(&from.as_str()) && used.contains(&to.as_str()),
                        "{fault:?}"
                    );
                }
                FaultKind::Partition(groups) => {
                    assert!(used[..2].contains(&groups[0][0].as_str()), "{fault:?}");
                }
                kind => {
                    let Some(Target::Node(label)) = kind.target() else { panic!("{fault:?}") };
                    assert!(used[..2].contains(&label.as_str()), "{fault:?}");
                }
            }
        }
    }
}

#[test]
fn what_would_change_nothing_is_not_drawn() {
    let mut scenario = base(2);
    scenario.topology.nodes.iter_mut().for_each(|node| node.cpu_share = Some(0.1));
    for seed in 0..100 {
        let faults = draw(&scenario, seed, &bounds(2, 60_000_000)).unwrap().faults;
        assert!(faults.iter().all(|fault| fault.kind.idle(&scenario.topology).is_none()));
    }
}

#[test]
fn a_topology_is_found_from_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("mine"), folder.path().join("out"));
    fs::create_dir_all(from.join("meshes")).unwrap();
    let mesh = fs::read_to_string(workspace_root().join("topologies/replicas.toml")).unwrap();
    fs::write(from.join("meshes/six.toml"), mesh).unwrap();
    for named in ["meshes/six.toml", "./meshes/six.toml", "meshes/../meshes/six.toml"] {
        let text = base(2).text.replace("\"replicas\"", &format!("\"{named}\""));
        let scenario = Scenario::parse(&from.join("base.toml"), text).unwrap();
        let text = written(&scenario, "chaos", 1, &Stretch::to(60_000_000), &[]).unwrap();
        assert_eq!(Scenario::parse(&to.join("first.toml"), text).unwrap().topology, scenario.topology);
    }
    let text = written(&base(2), "chaos", 1, &Stretch::to(60_000_000), &[]).unwrap();
    assert_eq!(Scenario::parse(&to.join("first.toml"), text).unwrap().topology_name, "replicas");
    // Relative to here, as a command line names it; the scenario that is written lies elsewhere.
    let relative =
        Scenario { topology_name: "six.toml".to_owned(), path: "some/base.toml".into(), ..base(2) };
    assert_eq!(
        Path::new(&relative.topology_elsewhere()),
        std::env::current_dir().unwrap().join("some/six.toml")
    );
}

#[test]
fn loads_with_times_of_their_own_are_stretched_and_cut() {
    let timed = format!("{ORIGIN}from_s = 6\nfor_s = 42.3\n");
    let expect = "[expect]\nanswers_min = 50\nprogress_within_s = 20\n";
    let base = scenario(HEAD, 2, &format!("{timed}{ORIGIN}{expect}"));
    let read = |stretch: &Stretch| {
        Scenario::parse(Path::new("b/c.toml"), written(&base, "chaos", 1, stretch, &[]).unwrap()).unwrap()
    };
    let times = |scenario: &Scenario| -> Vec<(u64, u64)> {
        scenario.loads.iter().map(|load| (load.from_us, load.until_us)).collect()
    };
    let whole = Stretch::to(120_000_000);
    let longer = read(&whole);
    assert_eq!((longer.duration_us, longer.expect.answers_min), (120_000_000, 50));
    assert_eq!(times(&longer), [(12_000_000, 96_600_000), (0, 120_000_000)]);
    // Cut in the middle, and before the first load begins at 12 s.
    let shorter = read(&whole.cut(&base, 30_000_000));
    assert_eq!(
        (times(&shorter), shorter.expect.answers_min),
        (vec![(12_000_000, 30_000_000), (0, 30_000_000)], 25)
    );
    assert_eq!(times(&read(&whole.cut(&base, 3_000_000))), [(12_000_000, 13_000_000), (0, 13_000_000)]);
    // Faults wait for the load, and leave it the time in which progress is demanded.
    let late = scenario(HEAD, 2, &format!("{timed}{expect}"));
    for seed in 0..50 {
        let faults = draw(&late, seed, &bounds(2, 120_000_000)).unwrap().faults;
        assert!(faults.iter().all(|fault| fault.at_us >= 15_000_000));
        assert!(shown_by_us(&late, &faults) <= 96_600_000);
    }
}

#[test]
fn what_the_drawn_faults_cannot_show_is_not_demanded() {
    let expect = "[expect]\nleft_out_within_s = 1\nback_within_s = 5\nanswers_min = 3\n";
    let base = scenario(HEAD, 2, &format!("{ORIGIN}{expect}"));
    let restart = FaultKind::Restart(Target::Node("a-1".to_owned()));
    let faults = [Scheduled { line: 0, kind: restart, at_us: 5_000_000, for_us: None }];
    let text = written(&base, "chaos", 1, &Stretch::to(60_000_000), &faults).unwrap();
    let read = |text: &str| Scenario::parse(Path::new("b/c.toml"), text.to_owned()).unwrap();
    let unshown = read(&text).unshown();
    let fields: Vec<&str> = unshown.iter().map(|demand| demand.field).collect();
    assert_eq!(fields, ["left_out_within_s"], "a restart is over before it could be left out");
    let again = read(&without(&text, &unshown).unwrap());
    assert_eq!(again.expect.left_out_within_ms, None);
    assert_eq!((again.expect.back_within_ms, again.expect.answers_min), (Some(5000.0), 3));
}

#[test]
fn nothing_to_disturb_is_told() {
    let everywhere =
        base(2).topology.nodes.iter().map(|node| format!("\"{}\"", node.label)).collect::<Vec<_>>();
    let entries = ORIGIN.replace("\"origin\"", &everywhere.join(", "));
    let told = |scenario: &Scenario, bounds: &Bounds| draw(scenario, 1, bounds).unwrap_err();
    assert_eq!(told(&scenario(HEAD, 2, &entries), &bounds(2, 60_000_000)), NothingToDisturb::OnlyEntries);
    assert_eq!(told(&base(1), &bounds(0, 60_000_000)), NothingToDisturb::NothingToSpare);
    let short = told(&base(2), &bounds(1, 13_000_000));
    assert_eq!(short, NothingToDisturb::NoRoom { from_s: 3.0, until_s: 3.0 });
}

#[test]
fn replicas_bound_what_may_be_missing() {
    assert_eq!([1, 2].map(|replicas| Bounds::at_once_of(&base(replicas))), [0, 1]);
}

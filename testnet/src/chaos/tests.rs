//! Schedules keep within their bounds, come back from their files, and shrink to what matters.

use std::collections::BTreeSet;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::scenario::{FaultKind, Scenario, Target};

fn base(replicas: u16) -> Scenario {
    let text = format!(
        "about = \"a test\"\ntopology = \"replicas\"\nduration_s = 60.0\n\
         [[deploy]]\nname = \"digits\"\nmodel = \"digits\"\nat = \"origin\"\nparts = 3\nreplicas = {replicas}\n\
         [[load]]\ndeploy = \"digits\"\nat = [\"origin\"]\nclients = 2\n"
    );
    Scenario::parse(Path::new("a/base.toml"), text).unwrap()
}

proptest! {
    /// Whatever is drawn is a scenario that can be read back, fault by fault, and keeps its bounds.
    #[test]
    fn what_is_drawn_is_a_scenario(seed in any::<u64>(), is_emulated in any::<bool>(), at_once_max in 0usize..4) {
        let scenario = base(2);
        let bounds = Bounds { is_emulated, at_once_max, duration_us: 60_000_000 };
        let drawn = draw(&scenario, seed, &bounds).faults;
        prop_assert_eq!(&draw(&scenario, seed, &bounds).faults, &drawn, "the same seed, the same schedule");
        prop_assert!(drawn.is_empty() == (at_once_max == 0));
        prop_assert!(is_emulated || drawn.iter().all(|fault| !fault.kind.needs_emulation()));
        for fault in &drawn {
            let end_us = |fault: &Scheduled| fault.at_us + fault.for_us.unwrap_or(0);
            let at_once = drawn.iter().filter(|other| other.at_us <= fault.at_us && end_us(other) > fault.at_us);
            prop_assert!(at_once.count() <= at_once_max);
            prop_assert!(end_us(fault) <= bounds.duration_us - draw::QUIET_AFTER_US);
            prop_assert!(fault.kind.target() != Some(&Target::Node("origin".to_owned())), "entries are spared");
        }
        let text = written(&scenario.text, Path::new("a"), "chaos", seed >> 1, 60_000_000, &drawn).unwrap();
        let again = Scenario::parse(Path::new("b/c.toml"), text);
        let again = again.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(again.seed, seed >> 1);
        let plain = |faults: &[Scheduled]| -> Vec<Scheduled> {
            faults.iter().map(|fault| Scheduled { line: 0, ..fault.clone() }).collect()
        };
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
fn replicas_bound_what_may_be_missing() {
    assert_eq!([1, 2, 3].map(|replicas| Bounds::at_once_of(&base(replicas))), [0, 1, 2]);
}

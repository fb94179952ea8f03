//! Branches of generated graphs, run apart on what they are said to read.

use std::collections::HashMap;

use proptest::prelude::*;
use stormo_protocol::model::Branch;

use crate::model::Skeleton;
use crate::model::testing::{Builder, Divided, run_on_symbols};

/// Bytes of every tensor: alike, so that all branches count.
const BYTES: u64 = 4096;

/// What the nodes of a branch do, another thing in each: operators whose shapes no value decides.
const OPERATORS: [[&str; 4]; 4] = [
    ["Abs", "Neg", "Exp", "Log"],
    ["Sin", "Cos", "Tan", "Tanh"],
    ["Ceil", "Floor", "Round", "Sign"],
    ["Relu", "Selu", "Elu", "Celu"],
];

/// One module: so many nodes in each branch, and whether a branch also reads the input of the model.
type Module = Vec<(usize, bool)>;

/// Modules one after the other: each forks from what the one before joined.
fn forks(modules: &[Module]) -> Builder {
    let mut model = Builder::new().input("x", &[4]).weight("w", 17_000);
    let mut fork = "x".to_owned();
    for (index, branches) in modules.iter().enumerate() {
        let mut ends = Vec::new();
        for (branch, (length, reads_input)) in branches.iter().enumerate() {
            let mut from = fork.clone();
            for node in 0..*length {
                let to = format!("m{index}b{branch}n{node}");
                let reads =
                    if *reads_input { vec![from.as_str(), "w", "x"] } else { vec![from.as_str(), "w"] };
                model = model.node(OPERATORS[branch % 4][node % 4], &reads, &[&to]);
                from = to;
            }
            ends.push(from);
        }
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        fork = format!("join{index}");
        model = model.node("Sum", &ends, &[&fork]);
    }
    model.output(&fork)
}

fn modules() -> impl Strategy<Value = Vec<Module>> {
    let branch = (1usize..5, any::<bool>());
    prop::collection::vec(prop::collection::vec(branch, 1..5), 1..5)
}

/// Runs a division: what lies in regions branch by branch, in any sequence, each on what it reads alone.
fn run_apart(divided: &Divided, inputs: &HashMap<String, u64>, last_first: bool) -> HashMap<String, u64> {
    let manifest = &divided.manifest;
    let mut values = inputs.clone();
    let mut block = 0;
    let run = |first: u16, end: u16, values: &HashMap<String, u64>| {
        let mut values = values.clone();
        run_on_symbols(&divided.part(first, end).model, &mut values);
        values
    };
    while block < manifest.block_count() {
        let region = manifest.regions.iter().find(|region| region.branches[0].first == block);
        let Some(region) = region else {
            values = run(block, block + 1, &values);
            block += 1;
            continue;
        };
        let mut joined = values.clone();
        let mut branches: Vec<&Branch> = region.branches.iter().collect();
        block = branches[branches.len() - 1].end;
        if last_first {
            branches.reverse();
        }
        for branch in branches {
            let name = |tensor: &u32| manifest.tensors[*tensor as usize].name.clone();
            let read: HashMap<String, u64> =
                branch.reads.iter().map(|tensor| (name(tensor), values[&name(tensor)])).collect();
            let made = run(branch.first, branch.end, &read);
            let names = manifest.made_by(branch.first..branch.end);
            joined.extend(names.iter().map(|tensor| (name(tensor), made[&name(tensor)])));
        }
        let cut = divided.cut(block);
        joined.retain(|name, _| cut.contains(&name.as_str()));
        values = joined;
    }
    values
}

proptest! {
    #[test]
    fn branches_apart_and_joined_are_the_whole(modules in modules(), last_first in any::<bool>()) {
        let graph = forks(&modules).parse();
        let divided = Divided::new(&graph, |_| BYTES, 64);
        let inputs: HashMap<String, u64> = [("x".to_owned(), 1)].into();
        let mut expected = inputs.clone();
        run_on_symbols(&graph.whole_model().expect("small"), &mut expected);
        let got = run_apart(&divided, &inputs, last_first);
        for output in graph.outputs() {
            prop_assert_eq!(got[output], expected[output], "{}", output);
        }
        // As many blocks as wanted: every module of two branches or more is a region of all of them.
        let forking: Vec<usize> = modules.iter().map(Vec::len).filter(|branches| *branches > 1).collect();
        let found: Vec<usize> =
            divided.manifest.regions.iter().map(|region| region.branches.len()).collect();
        prop_assert_eq!(found, forking);
    }

    #[test]
    fn promises_that_do_not_hold_are_noticed(modules in modules(), region in any::<prop::sample::Index>()) {
        let divided = Divided::new(&forks(&modules).parse(), |_| BYTES, 64);
        prop_assume!(!divided.manifest.regions.is_empty());
        let mut other = divided.manifest.clone();
        let region = region.index(other.regions.len());
        let branch = &mut other.regions[region].branches[0];
        branch.reads.clear();
        prop_assert!(Skeleton::parse(&divided.division.skeleton, &other).is_err());
    }
}

#[test]
fn branches_that_read_the_input_may_come_in_any_sequence() {
    // Neither in the graph's order nor by their work do those that read the input come first.
    let modules = [
        vec![(4, false), (4, false)],
        vec![(4, false), (3, false)],
        vec![(4, false), (3, false), (4, false), (2, false)],
        vec![(4, false), (2, false), (1, true), (4, true)],
    ];
    let divided = Divided::new(&forks(&modules).parse(), |_| BYTES, 64);
    let found: Vec<usize> = divided.manifest.regions.iter().map(|region| region.branches.len()).collect();
    assert_eq!(found, [2, 2, 4, 4]);
}

#[test]
fn a_chain_has_no_branches() {
    let divided = Divided::new(&crate::model::testing::chain(9).parse(), |_| BYTES, 64);
    assert_eq!(divided.manifest.regions, []);
}

#[test]
fn what_is_too_small_for_a_block_is_no_branch() {
    // One node beside two hundred: less than a quarter of an even share of 64 blocks.
    let divided = Divided::new(&forks(&[vec![(400, false), (1, false)]]).parse(), |_| BYTES, 64);
    assert_eq!(divided.manifest.regions, []);
    let divided = Divided::new(&forks(&[vec![(100, false), (1, false)]]).parse(), |_| BYTES, 64);
    assert_eq!(divided.manifest.regions.len(), 1);
}

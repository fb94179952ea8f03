//! Properties of division over generated graphs, and of every reader over damaged bytes.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::graph::{Graph, decode};
use super::links::{reads_of, stored_names};
use super::testing::{Builder, Divided, constant, run_chain, run_on_symbols, sizes};
use super::{DivideOptions, Skeleton, divide, extract};

/// What one generated node reads: earlier tensors by number, modulo how many there are.
type Reads = Vec<prop::sample::Index>;

/// A graph of two inputs, a large and a small weight and a constant; each node reads 1 to 3 of what is
/// there and makes one or two tensors; what nobody reads, and some others, are outputs.
fn build(nodes: &[(Reads, bool)], results: &[prop::sample::Index]) -> Builder {
    let mut model = Builder::new().input("x", &[4]).input("y", &[4]).weight("w", 17_000).weight("v", 3);
    model.graph().node.push(constant("c", 2));
    let mut made: Vec<String> = ["x", "y", "w", "v", "c"].map(str::to_owned).to_vec();
    let mut unread: Vec<String> = Vec::new();
    for (index, (reads, makes_two)) in nodes.iter().enumerate() {
        let reads: Vec<String> = reads.iter().map(|read| read.get(&made).clone()).collect();
        unread.retain(|name| !reads.contains(name));
        let outputs: Vec<String> =
            (0..1 + usize::from(*makes_two)).map(|output| format!("t{index}.{output}")).collect();
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        model = model.node(&format!("Op{index}"), &reads, &names);
        made.extend(outputs.clone());
        unread.extend(outputs);
    }
    let chosen = results.iter().map(|result| result.get(&made).clone());
    let mut results: Vec<String> = unread.into_iter().chain(chosen).collect();
    results.sort();
    results.dedup();
    results.truncate(40);
    results.iter().fold(model, |model, name| model.output(name))
}

fn generated() -> impl Strategy<Value = Builder> {
    let reads = prop::collection::vec(any::<prop::sample::Index>(), 1..4);
    let nodes = prop::collection::vec((reads, any::<bool>()), 1..40);
    (nodes, prop::collection::vec(any::<prop::sample::Index>(), 0..3))
        .prop_map(|(nodes, results)| build(&nodes, &results))
}

/// Bytes of a tensor by its name, anything from 4 to 4 KiB.
fn bytes_of(name: &str) -> u64 {
    4 * (1 + name.bytes().fold(7u64, |sum, byte| sum * 31 + u64::from(byte)) % 1000)
}

/// Tensors that cross before each block, found by looking at all readers behind it, of which the caller is
/// one if outputs are kept to the end.
fn crossing(divided: &Divided, cut: u16, keeps_outputs: bool) -> HashSet<String> {
    let graph = &divided.skeleton.graph;
    let blocks = &divided.manifest.blocks;
    let start = blocks.get(usize::from(cut)).map_or(graph.node.len(), |block| block.first_node as usize);
    let mut constant: HashSet<&str> = stored_names(graph).collect();
    for node in &graph.node {
        if reads_of(node).iter().all(|name| constant.contains(name)) {
            constant.extend(node.output.iter().map(String::as_str));
        }
    }
    let kept = graph.output.iter().filter(|_| keeps_outputs);
    let outputs: Vec<&str> = kept.map(|info| info.name()).collect();
    let read_behind: HashSet<&str> =
        graph.node[start..].iter().flat_map(reads_of).chain(outputs.iter().copied()).collect();
    let before = graph.node[..start].iter().flat_map(|node| &node.output).map(String::as_str);
    let there = graph.input.iter().map(|info| info.name()).chain(before);
    there.filter(|name| read_behind.contains(name) && !constant.contains(name)).map(str::to_owned).collect()
}

proptest! {
    #[test]
    fn every_chain_of_parts_computes_what_the_whole_does(
        model in generated(),
        blocks_max in 1usize..20,
        keeps_outputs: bool,
        bounds in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let graph = model.parse();
        let divided = Divided::with(&graph, bytes_of, DivideOptions { blocks_max, keeps_outputs });
        let blocks = divided.manifest.block_count();
        prop_assert!(usize::from(blocks) <= blocks_max);
        let inputs: HashMap<String, u64> = [("x".to_owned(), 1), ("y".to_owned(), 2)].into();
        let mut expected = inputs.clone();
        run_on_symbols(&graph.whole_model().expect("small"), &mut expected);

        let mut bounds: Vec<u16> = bounds.iter().map(|bound| bound.index(usize::from(blocks) + 1) as u16).collect();
        bounds.extend([0, blocks]);
        bounds.sort_unstable();
        bounds.dedup();
        let got = run_chain(&divided, &bounds, &inputs);
        for output in graph.outputs() {
            prop_assert_eq!(got[output], expected[output], "{}", output);
        }

        let mut made: HashMap<String, usize> = HashMap::new();
        for (first, end) in bounds.iter().zip(&bounds[1..]) {
            let part = decode(&divided.part(*first, *end).model).expect("a part");
            part.graph.node.iter().for_each(|node| *made.entry(node.output[0].clone()).or_default() += 1);
        }
        for (node, free) in graph.links.free.iter().enumerate() {
            let name = &graph.model.graph.node[node].output[0];
            prop_assert!(*free || made.get(name) == Some(&1), "{} is made {:?} times", name, made.get(name));
        }
        for cut in 1..blocks {
            let listed: HashSet<String> = divided.cut(cut).into_iter().map(str::to_owned).collect();
            prop_assert_eq!(listed, crossing(&divided, cut, keeps_outputs));
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_model_but_never_a_panic(
        model in generated(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
        cuts_off in any::<bool>(),
    ) {
        let damage = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for (place, byte) in &changes {
                // Near the front and near the end, where the structure is, not inside the large weight.
                let place = place.index(bytes.len().min(4000));
                let place = if byte % 2 == 0 { place } else { bytes.len() - 1 - place };
                bytes[place] = *byte;
            }
            if cuts_off {
                bytes.truncate(length.index(bytes.len()));
            }
            bytes
        };
        if let Ok(graph) = Graph::parse(&damage(&model.bytes())) {
            let sizes = sizes(&graph, bytes_of);
            let _ = divide(&graph, &sizes, &DivideOptions::default());
        }
        let divided = Divided::new(&model.parse(), bytes_of, 64);
        if let Ok(skeleton) = Skeleton::parse(&damage(&divided.division.skeleton), &divided.manifest) {
            for block in 0..divided.manifest.block_count() {
                let _ = extract(&skeleton, &divided.manifest, block..block + 1);
            }
        }
    }

    #[test]
    fn noise_is_no_model(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Graph::parse(&bytes).is_err());
    }
}

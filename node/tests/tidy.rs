//! The invariants of the house that a search can hold: which room may name what, how files are
//! shaped, what may stand at the top. Each finding says where, which rule and what to do.

use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, names};

#[path = "tidy/source.rs"]
mod source;

/// The rooms whose answers depend on nothing but their arguments.
const PURE_ROOMS: [&str; 8] = [
    "protocol/src",
    "node/src/card",
    "node/src/model",
    "node/src/profile",
    "node/src/plan",
    "node/src/mesh",
    "node/src/flow",
    "testnet/src/link",
];

const CRATES: [&str; 3] = ["protocol", "node", "testnet"];

const FILE_LINES_MAX: usize = 600;

/// Words that only some places may use.
struct Door {
    words: &'static [&'static str],
    /// Paths (files, or rooms with and without `.rs`) the rule is about.
    rooms: &'static [&'static str],
    /// Where within `rooms` the words may stand after all, and why.
    open: &'static [(&'static str, &'static str)],
    binds_tests: bool,
    rule: &'static str,
    remedy: &'static str,
}

const DOORS: [Door; 6] = [
    Door {
        words: &["tokio", "futures", "async", ".await", "std::thread", "libp2p", "libp2p_stream", "ort::"],
        rooms: &PURE_ROOMS,
        open: &[],
        binds_tests: false,
        rule: "pure rooms wait for nothing and name neither tokio, libp2p nor ONNX Runtime",
        remedy: "return what is to be done, and let the driver do it",
    },
    Door {
        words: &[
            "Instant",
            "SystemTime",
            "rand",
            "getrandom",
            "fastrand",
            "std::net",
            "std::fs",
            "std::env",
            "std::process",
        ],
        rooms: &PURE_ROOMS,
        open: &[],
        binds_tests: false,
        rule: "pure rooms read no clock, randomness, socket, file or environment",
        remedy: "take the time, a seed or the bytes as an argument",
    },
    Door {
        words: &[
            "crate::app",
            "crate::deploy",
            "crate::engine",
            "crate::files",
            "crate::monitor",
            "crate::net",
            "crate::pool",
            "crate::results",
            "crate::serve",
        ],
        rooms: &["node/src/card", "node/src/model", "node/src/plan", "node/src/mesh", "node/src/flow"],
        open: &[],
        binds_tests: false,
        rule: "pure rooms know none of the rooms that touch the world",
        remedy: "move the type to the pure room, or pass the value in",
    },
    Door {
        words: &["ort::", "ort_sys::"],
        rooms: &CRATES,
        open: &[("node/src/engine", "the door to ONNX Runtime")],
        binds_tests: true,
        rule: "only `node/src/engine` names ONNX Runtime",
        remedy: "give `engine` the function that is missing",
    },
    Door {
        words: &["libp2p", "libp2p_stream"],
        rooms: &CRATES,
        open: &[
            ("node/src/net", "the door to libp2p"),
            ("testnet/src/bench/bare.rs", "what `net` is measured against shares nothing with it"),
        ],
        binds_tests: true,
        rule: "only `node/src/net` names libp2p",
        remedy: "give `net` the function that is missing",
    },
    Door {
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os", "env::set_var", "env::remove_var"],
        rooms: &CRATES,
        open: &[
            ("node/src/app/config.rs", "the reader of the environment"),
            ("node/src/engine/telemetry.rs", "ONNX Runtime heeds nothing but a variable"),
            ("testnet/src/binary.rs", "builds the node with the cargo that runs this"),
            ("testnet/src/surroundings.rs", "what lies around a checkout is named there"),
        ],
        binds_tests: false,
        rule: "the environment is read in `node/src/app/config.rs`",
        remedy: "make it a field of the configuration, and pass it on",
    },
];

/// Calls that end the process if they are wrong: where they cannot be, and why.
const MAY_UNWRAP: [(&str, &str, &str); 1] = [(
    "protocol/src/codec/message.rs",
    ".expect(\"our own types have no encoding that fails\")",
    "encoding into memory fails only for types that are not in this tree",
)];

/// What may stand at the top beside files that begin with a dot.
const TOP: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "node",
    "protocol",
    "rustfmt.toml",
    "testnet",
    "topologies",
];

/// Each crate with those of the workspace it may use.
const CRATE_USES: [(&str, &[&str]); 3] =
    [("protocol", &[]), ("node", &["stormo-protocol"]), ("testnet", &["stormo-protocol", "stormo"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the three crates.
fn tree() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = CRATES.iter().map(|&name| name.to_owned()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                // What a build left is not ours.
                folders.extend((entry.file_name() != "target").then_some(path));
            } else if path.ends_with(".rs") {
                found.push(Source::new(&path, &fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "the search for sources went astray: {} files", found.len());
    found.sort_by(|one, other| one.path.cmp(&other.path));
    mark_test_modules(&mut found);
    found
}

fn mark_test_modules(sources: &mut [Source]) {
    let modules: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |path: &str| modules.iter().any(|module| is_in(path, module));
    sources.iter_mut().filter(|source| is_test(&source.path)).for_each(Source::mark_as_test);
}

/// Whether a file is this file, this room's own file, or in this room.
fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

fn finding(path: &str, line: usize, rule: &str, remedy: &str) -> String {
    format!("{path}:{line}: {rule}; {remedy}")
}

/// Breaches of one door's rule, exceptions that nothing needs included.
fn through_the_door(door: &Door, sources: &[Source]) -> Vec<String> {
    let mut needed = vec![false; door.open.len()];
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| door.rooms.iter().any(|room| is_in(&source.path, room))) {
        let exception = door.open.iter().position(|(place, _)| is_in(&source.path, place));
        for word in door.words {
            for line in source.naming(word).filter(|line| door.binds_tests || !line.is_test) {
                match exception {
                    Some(position) => needed[position] = true,
                    None => {
                        let rule = format!("`{word}`: {}", door.rule);
                        found.push(finding(&source.path, line.number, &rule, door.remedy));
                    }
                }
            }
        }
    }
    for ((place, reason), _) in door.open.iter().zip(needed).filter(|(_, needed)| !needed) {
        found.push(finding(place, 1, &format!("no longer needs its exception ({reason})"), "remove it"));
    }
    found
}

/// Calls outside tests that end the process, unless listed.
fn unwraps(sources: &[Source], listed: &[(&str, &str, &str)]) -> Vec<String> {
    let mut needed = vec![false; listed.len()];
    let mut found = Vec::new();
    let rule = "`unwrap` and `expect` end the node, which others rely on";
    let remedy = "return an error, or list it in node/tests/tidy.rs with the reason why it cannot fail";
    for source in
        sources.iter().filter(|source| is_in(&source.path, "node/src") || is_in(&source.path, "protocol/src"))
    {
        let calls =
            |code: &str| [".unwrap()", ".expect(", ".unwrap_err()"].iter().any(|call| names(code, call));
        for line in source.lines.iter().filter(|line| !line.is_test && calls(&line.code)) {
            let exception =
                listed.iter().position(|(path, call, _)| source.path == *path && line.text.contains(call));
            match exception {
                Some(position) => needed[position] = true,
                None => found.push(finding(&source.path, line.number, rule, remedy)),
            }
        }
    }
    for ((path, call, _), _) in listed.iter().zip(needed).filter(|(_, needed)| !needed) {
        found.push(finding(path, 1, &format!("`{call}` is listed but not there"), "remove it from the list"));
    }
    found
}

/// What was left for later.
fn leftovers(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for line in &source.lines {
            let calls = ["todo!", "unimplemented!", "dbg!"].iter().filter(|word| names(&line.code, word));
            let marks = ["FIXME", "XXX"].iter().filter(|word| names(&line.comment, word));
            let left = |word: &&str| {
                finding(&source.path, line.number, &format!("`{word}`"), "finish it, or take it out")
            };
            found.extend(calls.chain(marks).map(left));
        }
    }
    found
}

/// How a file begins, is called, and how long it is.
fn shapes(sources: &[Source]) -> Vec<String> {
    let length = |source: &Source| source.lines.iter().filter(|line| !line.is_test).count();
    let mut lengths: Vec<_> = sources.iter().map(length).filter(|&length| length > 0).collect();
    lengths.sort_unstable();
    let share = |percent: usize| lengths.get(lengths.len() * percent / 100).copied().unwrap_or(0);
    let (median, p90) = (share(50), share(90));
    let mut found = Vec::new();
    for source in sources {
        let mut breach = |rule: &str, remedy: &str| found.push(finding(&source.path, 1, rule, remedy));
        if !source.lines.first().is_some_and(|line| line.text.starts_with("//! ")) {
            breach("a file opens with `//!`", "say what lives here, and what does not");
        }
        if source.path.ends_with("/mod.rs") {
            breach("no `mod.rs`", "name it as its folder, beside it");
        }
        let length = length(source);
        if length > FILE_LINES_MAX {
            let rule = format!(
                "{length} lines without tests, at most {FILE_LINES_MAX} (the tree: median {median}, p90 {p90})"
            );
            breach(&rule, "divide it along what it is about");
        }
    }
    found
}

/// What stands at the top, and neither belongs there nor is ignored.
fn strangers(entries: &[String], ignored: &str) -> Vec<String> {
    let is_ignored = |name: &str| ignored.lines().any(|line| line.trim_matches('/') == name);
    let is_known = |name: &str| name.starts_with('.') || TOP.contains(&name) || is_ignored(name);
    let stranger = |name: &&String| !is_known(name);
    let say = |name: &String| finding(name, 1, "not of the top level", "move it into a crate or topologies");
    entries.iter().filter(stranger).map(say).collect()
}

/// Uses of workspace crates that go the wrong way.
fn wrong_ways(path: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut tables = vec![&manifest];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    tables.extend(targets.into_iter().flatten().filter_map(|(_, table)| table.as_table()));
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let used = tables.iter().flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    let of_ours = |(name, how): &(&String, &toml::Value)| {
        name.starts_with("stormo") || how.get("path").is_some() || how.get("package").is_some()
    };
    let rule = |name: &str| format!("`{name}` stands to its right, or hides behind another name");
    used.flatten()
        .filter(of_ours)
        .filter(|(name, _)| !allowed.contains(&name.as_str()))
        .map(|(name, _)| finding(path, 1, &rule(name), "protocol <- node <- testnet is the only way"))
        .collect()
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn rooms_name_only_what_they_may() {
    let tree = tree();
    assert_none(&DOORS.iter().flat_map(|door| through_the_door(door, &tree)).collect::<Vec<_>>());
}

#[test]
fn nothing_ends_the_node_by_surprise() {
    assert_none(&unwraps(&tree(), &MAY_UNWRAP));
}

#[test]
fn nothing_is_left_for_later() {
    assert_none(&leftovers(&tree()));
}

#[test]
fn files_have_their_shape() {
    assert_none(&shapes(&tree()));
}

#[test]
fn the_top_holds_what_belongs_there() {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
    let entries: Vec<_> = fs::read_dir(root()).unwrap().map(name).collect();
    assert_none(&strangers(&entries, &fs::read_to_string(root().join(".gitignore")).unwrap()));
}

#[test]
fn crates_use_only_what_stands_left_of_them() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let members =
        workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(toml::Value::as_str);
    assert!(members.eq(CRATES), "a crate came or went: say in node/tests/tidy.rs what it may use");
    let wrong = CRATE_USES.iter().flat_map(|(folder, allowed)| {
        let path = format!("{folder}/Cargo.toml");
        wrong_ways(&path, &read(&path), allowed)
    });
    assert_none(&wrong.collect::<Vec<_>>());
}

mod rules_can_fail {
    use super::*;

    fn one(path: &str, text: &str) -> [Source; 1] {
        [Source::new(path, text)]
    }

    /// Lines that the doors object to, exceptions apart.
    fn objections(path: &str, text: &str) -> Vec<String> {
        let found = DOORS.iter().flat_map(|door| through_the_door(door, &one(path, text)));
        found.filter(|finding| !finding.contains("exception")).collect()
    }

    #[test]
    fn a_pure_room_is_told_file_line_rule_and_remedy() {
        let found = objections("node/src/plan/best.rs", "//! Plans.\n\nuse std::time::Instant;\n");
        assert_eq!(
            found,
            ["node/src/plan/best.rs:3: `Instant`: pure rooms read no clock, randomness, socket, file or \
              environment; take the time, a seed or the bytes as an argument"]
        );
    }

    #[test]
    fn pure_rooms_are_bound() {
        let breaches = [
            "use tokio::sync::mpsc;",
            "async fn a() {}",
            "let x = y.await;",
            "let now = SystemTime::now();",
            "use std::{collections::HashMap, env};",
            "std::fs::read(x)",
            "getrandom::fill(&mut x)",
            "use rand::Rng as _;",
            "use std::net::SocketAddr;",
            "use crate::engine::Engine;",
            "use crate::{flow, net::Net};",
        ];
        for path in ["node/src/flow.rs", "node/src/model/graph.rs", "node/src/mesh/view.rs"] {
            for breach in breaches {
                assert_eq!(objections(path, breach).len(), 1, "{path}: {breach}");
                let in_test = format!("#[cfg(test)]\nmod tests {{\n    {breach}\n}}\n");
                assert_none(&objections(path, &in_test));
            }
        }
        assert_none(&objections("node/src/flow.rs", "/// An Instant of tokio.\nlet operand = \"async\";"));
        assert_none(&objections("node/src/app/node.rs", &breaches[..9].join("\n")));
    }

    #[test]
    fn outside_things_have_one_door() {
        for (breach, door) in [
            ("use ort::session::Session;", "node/src/engine/session.rs"),
            ("let id = libp2p::PeerId::random();", "node/src/net.rs"),
            ("let home = std::env::var_os(\"HOME\");", "node/src/app/config.rs"),
            ("use std::env::{self, var};", "node/src/app/config.rs"),
        ] {
            assert_none(&objections(door, breach));
            assert_eq!(objections("node/src/serve.rs", breach).len(), 1, "{breach}");
            assert_eq!(objections("testnet/src/main.rs", breach).len(), 1, "{breach}");
        }
        assert_eq!(objections("testnet/tests/chain.rs", "use ort::init;").len(), 1);
    }

    #[test]
    fn an_exception_must_be_needed() {
        let environment = DOORS.last().unwrap();
        let found = through_the_door(environment, &one("node/src/app/config.rs", "//! Reads nothing.\n"));
        assert_eq!(found.len(), environment.open.len());
        assert!(found[0].contains("no longer needs its exception"), "{found:?}");
    }

    #[test]
    fn a_module_declared_for_tests_is_test() {
        let mut sources = vec![
            Source::new("node/src/plan.rs", "#[cfg(test)]\npub(crate) mod drawing;\nmod best;\n"),
            Source::new("node/src/plan/drawing.rs", "let x = y.unwrap();\n"),
            Source::new("node/src/plan/best.rs", "let x = y.unwrap();\n"),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(unwraps(&sources, &[]).len(), 1);
    }

    #[test]
    fn unwraps_are_found_unless_listed() {
        let sources = one("protocol/src/a.rs", "let x = y.unwrap();\nlet z = y\n    .expect(\"why\");\n");
        assert_eq!(unwraps(&sources, &[]).len(), 2);
        let listed = [("protocol/src/a.rs", ".expect(\"why\")", ""), ("protocol/src/a.rs", "gone", "")];
        let found = unwraps(&sources, &listed);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("listed but not there"), "{found:?}");
        assert_none(&unwraps(&one("testnet/src/a.rs", "y.unwrap()"), &[]));
        assert_none(&unwraps(&one("node/src/a.rs", "y.unwrap_or(1)"), &[]));
    }

    #[test]
    fn leftovers_are_found() {
        let text = ["let x = to", "do!();\nd", "bg!(x); // FIX", "ME: y\n"].concat();
        assert_eq!(leftovers(&one("node/tests/a.rs", &text)).len(), 3);
        assert_none(&leftovers(&one("node/src/a.rs", "let todo = 1;\n")));
    }

    #[test]
    fn shapes_are_checked() {
        assert_none(&shapes(&one("node/src/a.rs", "//! What lives here.\n")));
        assert_eq!(shapes(&one("node/src/a.rs", "use b;\n")).len(), 1);
        assert_eq!(shapes(&one("node/src/a/mod.rs", "//! Here.\n")).len(), 1);
        let long = format!("//! Here.\n{}", "a();\n".repeat(FILE_LINES_MAX));
        let found = shapes(&one("node/src/a.rs", &long));
        assert!(found[0].contains("601 lines without tests") && found[0].contains("median 601"), "{found:?}");
        let tested =
            format!("//! Here.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "a();\n".repeat(FILE_LINES_MAX));
        assert_none(&shapes(&one("node/src/a.rs", &tested)));
    }

    #[test]
    fn strangers_at_the_top_are_found() {
        let entries = ["node", ".ci", "target", "notes.md"].map(str::to_owned);
        assert_eq!(
            strangers(&entries, "/target\n"),
            ["notes.md:1: not of the top level; move it into a crate or topologies"]
        );
    }

    #[test]
    fn wrong_ways_are_found() {
        let manifest = "[dependencies]\nserde = \"1\"\nstormo.workspace = true\n[target.'cfg(unix)'.dev-dependencies]\n\
                        mesh = { path = \"../node\" }\n";
        assert_eq!(wrong_ways("protocol/Cargo.toml", manifest, &[]).len(), 2);
        assert_eq!(wrong_ways("testnet/Cargo.toml", manifest, &["stormo"]).len(), 1);
    }
}

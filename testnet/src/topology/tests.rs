//! Good and bad topology files.

use std::fs;

use crate::binary::workspace_root;
use proptest::prelude::*;

use super::*;

const GOOD: &str = "about = \"two\"\n\n[[node]]\nlabel = \"a\"\nclass = \"device\"\nmemory_budget = \"64 MiB\"\n\n\
                    [[node]]\nlabel = \"b-2\"\nclass = \"cloud\"\nmemory_budget = \"2 GB\"\n";

fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    fs::write(&path, text).unwrap();
    let said = Topology::load(&path).unwrap_err().to_string();
    said.strip_prefix(&format!("{}:", folder.path().join("bad.toml").display())).unwrap_or(&said).to_owned()
}

#[test]
fn reads_a_mesh() {
    let topology = Topology::parse(GOOD).ok().unwrap();
    assert_eq!(topology.about, "two");
    assert_eq!(topology.nodes.len(), 2);
    let expected = NodeSpec::new("b-2", Class::Cloud, 2_000_000_000);
    assert_eq!(topology.nodes[1], expected);
    assert_eq!(topology.nodes[0].memory_budget_bytes, 64 << 20);
}

#[test]
fn all_files_of_the_workspace_are_good() {
    let folder = workspace_root().join("topologies");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Topology::load(&path).unwrap();
            files += 1;
        }
    }
    assert!(files > 0);
    assert!(Topology::load(Path::new("demo")).is_ok());
}

#[test]
fn names_file_line_and_field() {
    let changed = |from: &str, to: &str| refused(&GOOD.replacen(from, to, 1));
    assert_eq!(
        changed("class = \"cloud\"", "class = \"clowd\""),
        "10: `class`: unknown variant `clowd`, expected one of `device`, `edge`, `cloud`"
    );
    assert_eq!(
        changed("class = \"cloud\"", "clas = \"cloud\""),
        "10: unknown field `clas`, expected one of `label`, `class`, `memory_budget`, \
         `cpu`, `memory`, `disk`, `battery`, `uplink`, `downlink`, `domains`, `behind`"
    );
    assert_eq!(
        changed("\"2 GB\"", "\"2 potatoes\""),
        "11: memory_budget `2 potatoes`: a size from 0.001 kB to 1 TiB, like \"64 MiB\" (kB, MB, GB, KiB, MiB, GiB, TiB)"
    );
    assert_eq!(changed("\"b-2\"", "\"a\""), "9: label `a` is taken by another node");
    for own in ["lock", "placement-digits.toml"] {
        let told = changed("\"b-2\"", &format!("\"{own}\""));
        assert!(told.starts_with(&format!("9: label `{own}`: ")), "{told}");
    }
    assert_eq!(
        changed("\"b-2\"", "\"../b\""),
        "9: label `../b`: letters, digits, `.`, `_` and `-`, not starting with `.` or `-`"
    );
    assert_eq!(
        changed("\"b-2\"", "\"--help\""),
        "9: label `--help`: letters, digits, `.`, `_` and `-`, not starting with `.` or `-`"
    );
    let long = "b".repeat(65);
    assert_eq!(
        changed("\"b-2\"", &format!("\"{long}\"")),
        format!("9: label `{}...`: 65 bytes; a name has at most 64", &long[1..])
    );
    assert_eq!(
        changed("about = \"two\"", "about = 2"),
        "1: `about`: invalid type: integer `2`, expected a string"
    );
    assert_eq!(changed("\"two\"", "\" \""), "1: `about` says nothing; write what this mesh is for");
    assert_eq!(changed("label = \"a\"\n", ""), "3: missing field `label`");
    assert_eq!(refused("about = \"none\"\nnode = []\n"), "2: 0 nodes; a mesh has 1 to 64");
    assert!(changed("[[node]]", "[[node").starts_with("3: "), "{}", changed("[[node]]", "[[node"));
}

#[test]
fn says_which_file_is_not_there() {
    let said = Topology::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(said.starts_with("topology no/such.toml: "), "{said}");
    let said = Topology::load(Path::new("no-such")).unwrap_err().to_string();
    assert!(said.contains("topologies/no-such.toml") && said.contains("there are: campus, demo"), "{said}");
}

/// Two nodes and what may be said beside them.
fn refused_beside(more: &str) -> String {
    refused(&format!("{GOOD}\n{more}"))
}

#[test]
fn reads_machines_domains_and_links() {
    let text = format!(
        "{}cpu = 0.25\nmemory = \"3 GiB\"\ndisk = \"64 MB\"\nuplink = \"8 Mbit/s\"\ndomains = [\"room\"]\nbehind = \"box\"\n\n\
         [links]\nlatency = \"1 ms\"\n\n[[nat]]\nname = \"box\"\nmapping = \"endpoint-independent\"\n\n\
         [[domain]]\nname = \"room\"\nkind = \"site\"\nwithin = \"house\"\n\n\
         [[domain]]\nname = \"house\"\nkind = \"owner\"\nuplink = \"1 MB/s\"\n\n\
         [[link]]\nbetween = [\"house\", \"a\"]\nrate = \"5 MB/s\"\n\n\
         [[link]]\nfrom = \"a\"\nto = \"b-2\"\nlatency = \"2.5 ms\"\njitter = \"500 us\"\nloss = 0.5\n",
        GOOD
    );
    let topology = Topology::parse(&text).unwrap();
    let [a, b] = &topology.nodes[..] else { panic!("two nodes") };
    assert_eq!((b.cpu_share, b.memory_bytes, b.disk_bytes), (Some(0.25), Some(3 << 30), Some(64_000_000)));
    assert_eq!((b.uplink_bits_per_s, b.downlink_bits_per_s), (Some(8_000_000), None));
    assert_eq!(b.behind.as_deref(), Some("box"));
    let names: Vec<&str> = topology.domains_of(b).iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["room", "house"]);
    assert_eq!(topology.members("house"), ["b-2"]);
    let (there, back) = (topology.link(a, b), topology.link(b, a));
    assert_eq!(
        (there.latency_us, there.jitter_us, there.loss, there.rate_bits_per_s),
        (2_500, 500, 0.5, None)
    );
    assert_eq!((back.latency_us, back.rate_bits_per_s), (1_000, Some(40_000_000)));
    assert_eq!(topology.link(a, a).latency_us, 1_000);
    assert!(topology.is_shaped());
    assert!(!Topology::parse(GOOD).unwrap().is_shaped());
}

#[test]
fn links_that_cannot_be_are_refused() {
    let between = "[[link]]\nbetween = [\"a\", \"b-2\"]\n";
    let cases = [
        (
            "[[link]]\nbetween = [\"a\", \"c\"]\n",
            "14: between `c`: no node or domain is called so; there are: a, b-2",
        ),
        ("[[link]]\nbetween = [\"a\", \"a\"]\n", "14: between: a link from node `a` to itself"),
        (
            "[[link]]\nfrom = \"a\"\n",
            "13: a link needs `between = [\"a\", \"b\"]` for both directions, or `from` and `to` for one",
        ),
        ("[links]\nfrom = \"a\"\n", "14: `[links]` is about all links; for two ends write a `[[link]]`"),
        (
            "[links]\nrate = \"-5 Mbit/s\"\n",
            "14: rate `-5 Mbit/s`: a rate from 0.001 kbit/s to 1000 Gbit/s, like \"20 Mbit/s\" (kbit/s, Mbit/s, Gbit/s, \
             kB/s, MB/s, GB/s)",
        ),
        (
            "[links]\nloss = nan\n",
            "14: loss NaN: a share of packets, from 0 to less than 1 (nothing would arrive), like 0.01",
        ),
        (
            "[links]\nloss = 1\n",
            "14: loss 1: a share of packets, from 0 to less than 1 (nothing would arrive), like 0.01",
        ),
        (
            "[links]\ncorrupt = 1.0\n",
            "14: corrupt 1: a share of packets, from 0 to less than 1 (nothing would arrive), like 0.01",
        ),
        ("[links]\nreorder = -0.1\n", "14: reorder -0.1: a share of packets, from 0 to 1, like 0.01"),
        (
            "[links]\nlatency = \"90 s\"\n",
            "14: latency `90 s`: a time from 0 us to 60 s, like \"5 ms\" (us, ms, s)",
        ),
        (
            "[links]\nlatency = 5\n",
            "14: `latency`: invalid type: integer `5`, expected a text with a unit, like \"64 MiB\", \"20 Mbit/s\" \
             or \"5 ms\"",
        ),
        (
            "[links]\nlatency = \"1 ms\"\nqueue = \"2 GiB\"\n",
            "15: queue `2 GiB`: a size from 0.001 kB to 1 GiB, like \"64 KiB\" (kB, MB, GB, KiB, MiB, GiB, TiB)",
        ),
        (
            "[links]\nlatency = \"1 ms\"\njitter = \"2 ms\"\n",
            "15: jitter: a jitter of 2 ms is more than the latency of 1 ms that it strays from",
        ),
    ];
    for (more, said) in cases {
        assert_eq!(refused_beside(more), said);
    }
    let twice = format!("{between}\n[[link]]\nfrom = \"b-2\"\nto = \"a\"\n");
    assert_eq!(
        refused_beside(&twice),
        "16: a link between `b-2` and `a` stands above already; keep one of them"
    );
    let three = "[[link]]\nbetween = [\"a\", \"b\", \"a\"]\n";
    assert_eq!(refused_beside(three), "14: between: two names of nodes or domains, not 3");
    assert!(
        refused_beside(&format!("{between}speed = 4\n"))
            .starts_with("15: unknown field `speed`, expected one of `between`")
    );
}

#[test]
fn domains_and_machines_that_cannot_be_are_refused() {
    let domain = |name: &str, within: &str| {
        format!("[[domain]]\nname = \"{name}\"\nkind = \"site\"\nwithin = \"{within}\"\n\n")
    };
    assert_eq!(
        refused_beside(&(domain("x", "y") + &domain("y", "z") + &domain("z", "x"))),
        "26: within `x`: a domain is within itself: x -> y -> z -> x"
    );
    assert_eq!(refused_beside(&domain("x", "x")), "16: within `x`: a domain is within itself: x -> x");
    assert_eq!(refused_beside(&domain("x", "a")), "16: within `a`: no domain is called so; there are: x");
    assert_eq!(refused_beside(&domain("a", "b")), "14: name `a` is taken by another node");
    let with =
        |more: &str| refused(&GOOD.replacen("class = \"device\"", &format!("class = \"device\"\n{more}"), 1));
    assert_eq!(with("cpu = 0.0"), "6: cpu 0: a share of one core, from 0.01 to 1.5, like 0.25");
    assert_eq!(with("cpu = \"half\""), "6: `cpu`: invalid type: string \"half\", expected a number");
    assert_eq!(
        with("memory = \"1 MiB\""),
        "6: memory `1 MiB`: a size from 32 MiB, with less of which a node does not start, to 1 TiB, like \
         \"256 MiB\" (kB, MB, GB, KiB, MiB, GiB, TiB)"
    );
    assert!(with("disk = \"4 KiB\"").starts_with("6: disk `4 KiB`: a size from 1 MiB, with less"));
    assert!(with("uplink = \"2000 Gbit/s\"").contains("a rate from 0.001 kbit/s to 1000 Gbit/s, like"));
    assert_eq!(with("behind = \"box\""), "6: behind `box`: no nat is called so; there are: none");
    assert_eq!(with("domains = [\"room\"]"), "6: domains `room`: no domain is called so; there are: none");
    assert!(with("clock_offset = \"1 s\"").starts_with("6: unknown field `clock_offset`"));
    let battery =
        |more: &str| with(&format!("battery = {{ capacity = \"2 Wh\", idle = 1.0, compute = 3.0{more} }}"));
    for level in ["1.2", "0.0", "-0.5", "nan"] {
        let said = battery(&format!(", level = {level}"));
        assert!(
            said.ends_with(
                "a share of the capacity, above 0 (without power no node starts) and at most 1, like 0.8"
            ),
            "{said}"
        );
    }
    assert_eq!(
        with(
            "uplink = \"1 Mbit/s\"\nbattery = { capacity = \"2 Wh\", idle = 1.0, compute = 3.0, send = 0.5 }"
        ),
        "7: battery.send 0.5: of the whole machine, so not less than idle, 1"
    );
    assert_eq!(
        with("battery = { capacity = \"2 Wh\", idle = 1.0, compute = 0.2 }"),
        "6: battery.compute 0.2: of the whole machine, so not less than idle, 1"
    );
    assert_eq!(
        battery(", send = 2.0"),
        "6: battery.send: it counts the time that the uplink is busy, so give the node `uplink`"
    );
    assert_eq!(
        with("battery = { capacity = \"2 h\", idle = 1.0, compute = 3.0 }"),
        "6: battery.capacity `2 h`: an energy from 1 J to 1000000 kJ, like \"20 kJ\" (J, kJ, Wh)"
    );
    assert_eq!(
        with("battery = { capacity = \"2 Wh\", idle = -1.0, compute = 3.0 }"),
        "6: battery.idle -1: watts, from 0 to 10000, like 3.5"
    );
    let both = GOOD.replace("memory_budget", "cpu = 0.8\nmemory_budget");
    assert_eq!(
        refused(&both),
        "3: the nodes' cpu shares add up to 1.600; at most 1.5, so that switch and load have the rest"
    );
}

#[test]
fn meshes_that_cannot_work_are_refused() {
    let node = |label: &str, more: &str| {
        format!("[[node]]\nlabel = \"{label}\"\nclass = \"edge\"\nmemory_budget = \"64 MiB\"\n{more}\n")
    };
    let mesh = |nodes: &[String], more: &str| format!("about = \"any\"\n{}{more}", nodes.concat());
    let nat = "[[nat]]\nname = \"box\"\n";
    let inside = "behind = \"box\"\n";
    assert_eq!(
        refused(&mesh(&[node("a", inside), node("b", inside), node("c", "")], nat)),
        "6: behind `box`: all others join the first node, and `c` cannot reach it there; begin with a node that is \
         behind nothing"
    );
    // Who is behind the same one reaches it.
    assert!(Topology::parse(&mesh(&[node("a", inside), node("b", inside)], nat)).is_ok());
    // A node keeps to what its machine has, whatever it is told.
    assert!(Topology::parse(&mesh(&[node("a", "memory = \"63 MiB\"")], "")).is_ok());
    let room = "[[domain]]\nname = \"room\"\nkind = \"site\"\n";
    assert_eq!(
        refused(&mesh(&[node("a", "domains = [\"room\", \"room\"]\n")], room)),
        "6: domains `room`: it stands there twice"
    );
    assert_eq!(
        refused(&mesh(&[node("a", "")], room)),
        "8: name `room`: no node is in this domain; name it in a node's `domains`"
    );
    assert_eq!(
        refused(&mesh(&[node("a", "")], nat)),
        "8: name `box`: no node is behind this nat; name it as a node's `behind`"
    );
    let link = |ends: &str| format!("{room}[[link]]\n{ends}\nlatency = \"1 ms\"\n");
    assert_eq!(
        refused(&mesh(&[node("a", ""), node("b", "")], &link("between = [\"room\", \"a\"]"))),
        "16: a link between `room` and `a`: no node is in the domain `room`"
    );
    assert_eq!(
        refused(&mesh(&[node("a", ""), node("b", "")], &link("from = \"a\"\nto = \"room\""))),
        "16: a link between `a` and `room`: no node is in the domain `room`"
    );
    let alone = [node("a", "domains = [\"room\"]\n"), node("b", "")];
    assert_eq!(
        refused(&mesh(&alone, &link("between = [\"a\", \"room\"]"))),
        "17: a link between `a` and `room`: both are `a` alone, which has no link to itself"
    );
    assert!(Topology::parse(&mesh(&alone, &link("between = [\"room\", \"room\"]"))).is_ok());
    let queue = "queue = \"64 KiB\"\n";
    let unused = "queue: packets wait in it for the link's rate, and there is none; give `rate` as well, or leave \
                  `queue` out";
    assert_eq!(refused_beside(&format!("[links]\n{queue}")), format!("14: {unused}"));
    let between = "[[link]]\nbetween = [\"a\", \"b-2\"]\n";
    assert_eq!(refused_beside(&format!("{between}{queue}")), format!("15: {unused}"));
    let elsewhere = format!("{GOOD}\n[links]\n{queue}\n{between}rate = \"1 Mbit/s\"\n");
    assert!(Topology::parse(&elsewhere).is_ok());
    let inherited = format!("{GOOD}\n[links]\nrate = \"1 Mbit/s\"\n\n{between}{queue}");
    assert!(Topology::parse(&inherited).is_ok());
}

proptest! {
    #[test]
    fn no_text_ends_the_reader(text in ".{0,300}") {
        let _ = Topology::parse(&text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_line(at in 0_usize..4_000, new in "[ -~\n]{0,8}", take in 0_usize..40) {
        let whole = include_str!("../../../topologies/nat.toml");
        let at = at % whole.len();
        let end = (at + take).min(whole.len());
        let text = [&whole[..at], &new, &whole[end..]].concat();
        if let Err(wrong) = Topology::parse(&text) {
            prop_assert!(wrong.at <= text.len() && !wrong.message.is_empty());
        }
    }

    #[test]
    fn every_node_has_a_link_to_every_other(names in proptest::collection::btree_set("[a-z]{1,8}", 1..12), rules in proptest::collection::vec((0_usize..12, 0_usize..12, 0_u64..1_000), 0..20)) {
        let labels: Vec<String> = names.into_iter().collect();
        let nodes = labels.iter().map(|label| NodeSpec::new(label, Class::Edge, 1)).collect();
        let mut topology = Topology::plain("any", nodes);
        for (from, to, latency_us) in rules {
            let name = |place: usize| labels[place % labels.len()].clone();
            let spec = LinkSpec { latency_us, ..LinkSpec::default() };
            topology.link_rules.push(LinkRule { from: name(from), to: name(to), both_ways: latency_us % 2 == 0, spec });
        }
        for from in &topology.nodes {
            for to in &topology.nodes {
                let last = topology.link_rules.iter().rfind(|rule| {
                    (rule.from == from.label && rule.to == to.label)
                        || (rule.both_ways && rule.from == to.label && rule.to == from.label)
                });
                prop_assert_eq!(topology.link(from, to), last.map_or(topology.default_link, |rule| rule.spec));
            }
        }
    }
}

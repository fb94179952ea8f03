//! Faults that cannot be meant, contradict each other or show nothing; and that they come back as they were written.

use super::*;

#[test]
fn faults_that_cannot_be_meant_are_told_with_line_and_field() {
    let fault = |fields: &str| with(&format!("[[fault]]\nat_s = 1\n{fields}"));
    let cases = [
        (fault("kind = \"flood\"\n"), "a/b.toml:14: `kind`", "no fault `flood`; there are kill, restart"),
        (fault("kind = \"kill\"\nnode = \"nine\"\n"), "a/b.toml:15: `node`", "no node `nine`"),
        (fault("kind = \"kill\"\n"), "a/b.toml:12: ", "wants `node`"),
        (fault("kind = \"disk\"\nnode = \"two\"\n"), "a/b.toml:15: `node`", "has no `disk` of its own"),
        (
            fault("kind = \"battery\"\nnode = \"two\"\nlevel = 0.5\n"),
            "a/b.toml:15: `node`",
            "has no `battery` of its own",
        ),
        (
            fault("kind = \"clock\"\nnode = \"@busiest\"\noffset_s = 5\n"),
            "a/b.toml:15: `node`",
            "wants a node by its label",
        ),
        (fault("kind = \"clock\"\nnode = \"two\"\noffset_s = 1e9\n"), "a/b.toml:16: `offset_s`", "86400"),
        (fault("kind = \"uplink\"\nnode = \"two\"\n"), "a/b.toml:12: ", "wants `up_bits_per_s` or"),
        (
            fault("kind = \"kill\"\nnode = \"two\"\ncpu_share = 0.5\n"),
            "a/b.toml:16: `cpu_share`",
            "nothing that the fault `kill` has",
        ),
        (fault("kind = \"link\"\nfrom = \"one\"\nto = \"two\"\n"), "a/b.toml:12: ", "changes nothing"),
        (
            fault("kind = \"link\"\nfrom = \"one\"\nto = \"two\"\nloss = 1.5\n"),
            "a/b.toml:17: `loss` is 1.5",
            "",
        ),
        (fault("kind = \"cut\"\nfrom = \"one\"\nto = \"one\"\n"), "a/b.toml:16: `to`", "no link to itself"),
        (
            fault("kind = \"partition\"\ngroups = [[\"one\"], [\"one\", \"two\"]]\n"),
            "a/b.toml:15: `groups`",
            "in two",
        ),
        (fault("kind = \"kill\"\nnode = \"two\"\nfor_s = 30\n"), "a/b.toml:16: `for_s` is 30", ""),
        (fault("kind = \"kill\"\nnode = \"two\"\ntimes = 3\n"), "a/b.toml:16: ", "`times` wants `every_s`"),
        (
            fault(
                "kind = \"kill\"\nnode = \"two\"\n[[fault]]\nkind = \"freeze\"\nat_s = 2\nnode = \"two\"\n",
            ),
            "a/b.toml:16: `at_s`",
            "line 12 still acts",
        ),
    ];
    assert_told(cases);
}

const SHAPED: &str = "about = \"three\"\n[[node]]\nlabel = \"one\"\nclass = \"edge\"\nmemory_budget = \"1 GiB\"\ncpu = 0.5\n\
    [[node]]\nlabel = \"two\"\nclass = \"edge\"\nmemory_budget = \"1 GiB\"\ncpu = 0.5\n\
    battery = { capacity = \"1 Wh\", idle = 1.0, compute = 2.0 }\n\
    [[node]]\nlabel = \"three\"\nclass = \"edge\"\nmemory_budget = \"1 GiB\"\n\
    [[link]]\nfrom = \"one\"\nto = \"two\"\nlatency = \"10 ms\"\njitter = \"4 ms\"\n";

/// On a topology whose links and machines have limits.
fn shaped(more: &str) -> Parsed {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mesh.toml"), SHAPED).unwrap();
    let text = format!("{}{DEPLOY}{LOAD}{more}", HEAD.replace("loopback", "mesh.toml"));
    let parsed = Scenario::parse(&folder.path().join("b.toml"), text).map(Box::new);
    parsed.map_err(|error| match error {
        ScenarioError::Invalid { line, message, .. } => {
            Box::new(ScenarioError::Invalid { path: "b.toml".into(), line, message })
        }
        other => Box::new(other),
    })
}

#[test]
fn links_and_machines_that_cannot_be_are_told_before_anything_starts() {
    let link = |fields: &str| {
        shaped(&format!("[[fault]]\nkind = \"link\"\nfrom = \"one\"\nto = \"two\"\nat_s = 1\n{fields}\n"))
    };
    let fault = |fields: &str| shaped(&format!("[[fault]]\nat_s = 1\nkind = {fields}\n"));
    let cases = [
        (link("rate_bits_per_s = 0"), "b.toml:17: `rate_bits_per_s`", "cut the link instead"),
        (
            link("rate_bits_per_s = 2000000000000"),
            "b.toml:17: `rate_bits_per_s`",
            "from 1 to 1000000000000, like 20000000, or left out for no limit",
        ),
        (link("queue_bytes = 0"), "b.toml:17: `queue_bytes`", "a queue of 0 bytes"),
        (
            link("queue_bytes = 9000000000000"),
            "b.toml:17: `queue_bytes`",
            "from 1 to 1073741824, like 262144",
        ),
        (
            link("latency_ms = 3"),
            "b.toml:17: `latency_ms`",
            "a jitter of 4 ms is more than the latency of 3 ms",
        ),
        (link("latency_ms = 3"), "b.toml:17: ", "the jitter is the topology's: give `jitter_ms`, too"),
        (
            link("jitter_ms = 11"),
            "b.toml:17: `jitter_ms`",
            "the latency is the topology's: give `latency_ms`, too",
        ),
        (link("latency_ms = 3\njitter_ms = 5"), "b.toml:18: `jitter_ms`", "of 5 ms"),
        (
            shaped(
                "[[fault]]\nkind = \"link\"\nfrom = \"two\"\nto = \"one\"\nboth_ways = true\nat_s = 1\nlatency_ms = 3\n",
            ),
            "b.toml:18: `latency_ms`",
            "link from `one` to `two`: a jitter of 4 ms",
        ),
        (
            fault("\"cpu\"\nnode = \"one\"\ncpu_share = 64"),
            "b.toml:16: `cpu_share` is 64",
            "from 0.01 to 1.5",
        ),
        (
            fault("\"cpu\"\nnode = \"one\"\ncpu_share = 1.2"),
            "b.toml:16: `cpu_share` is 1.2, 1.700 with",
            "at most 1.5",
        ),
        (
            fault("\"memory\"\nnode = \"one\"\nmemory_bytes = 0"),
            "b.toml:16: `memory_bytes` is 0",
            "from 33554432 (32 MiB",
        ),
        (
            fault("\"memory\"\nnode = \"one\"\nmemory_bytes = 9000000000000000000"),
            "b.toml:16: `memory_bytes` is 9",
            "to 1099511627776",
        ),
        (
            fault("\"uplink\"\nnode = \"one\"\nup_bits_per_s = 9000000000000000000"),
            "b.toml:16: `up_bits_per_s` is 9",
            "leave it out",
        ),
    ];
    assert_told(cases);
    assert!(link("latency_ms = 3\njitter_ms = 3").is_ok());
    assert!(fault("\"cpu\"\nnode = \"three\"\ncpu_share = 0.5").is_ok());
}

#[test]
fn faults_that_change_nothing_are_told() {
    let fault = |fields: &str| shaped(&format!("[[fault]]\nat_s = 1\nkind = {fields}\n"));
    let link = |fields: &str| fault(&format!("\"link\"\nfrom = \"one\"\nto = \"two\"\n{fields}"));
    let nothing = "this fault changes nothing";
    let cases = [
        (
            fault("\"cpu\"\nnode = \"one\"\ncpu_share = 0.5"),
            "b.toml:16: `cpu_share`",
            "which has 0.5 in the topology",
        ),
        (fault("\"cpu\"\nnode = \"one\"\ncpu_share = 0.9"), "b.toml:16: `cpu_share`", nothing),
        (fault("\"clock\"\nnode = \"one\"\noffset_s = 0"), "b.toml:16: `offset_s`", nothing),
        (
            fault("\"uplink\"\nnode = \"one\"\nup_bits_per_s = 1000000000000"),
            "b.toml:16: `up_bits_per_s`",
            "sends (no limit)",
        ),
        (link("latency_ms = 10\njitter_ms = 4"), "b.toml:17: `latency_ms`", "is so in the topology"),
        (link("loss = 0"), "b.toml:17: `loss`", nothing),
        (link("rate_bits_per_s = 1000000000000\nloss = 0"), "b.toml:17: `rate_bits_per_s`", nothing),
        (link("queue_bytes = 1000"), "b.toml:17: `queue_bytes`", nothing),
    ];
    assert_told(cases);
    // Some of it changes, or one direction.
    assert!(link("latency_ms = 10\nloss = 0.1").is_ok());
    assert!(link("both_ways = true\nlatency_ms = 10\njitter_ms = 4").is_ok());
    assert!(fault("\"uplink\"\nnode = \"one\"\nup_bits_per_s = 1000000").is_ok());
}

#[test]
fn nodes_that_memory_or_a_cut_takes_show_what_entries_think_of_them() {
    let unshown = |fault: &str, expect: &str| {
        let text = format!("[[fault]]\nat_s = 1\nkind = {fault}\n[expect]\n{expect}\n");
        let unshown = with(&text).unwrap().unshown();
        unshown.into_iter().map(|demand| demand.field).collect::<Vec<_>>()
    };
    let memory = "\"memory\"\nnode = \"two\"\nmemory_bytes = 50000000\nfor_s = 1";
    assert_eq!(unshown(memory, "left_out_within_s = 2"), [""; 0]);
    assert_eq!(unshown(memory, "back_within_s = 2"), ["back_within_s"]);
    let cut = |from: &str, to: &str| format!("\"cut\"\nfrom = \"{from}\"\nto = \"{to}\"\nfor_s = 2");
    let both = "left_out_within_s = 2\nback_within_s = 2";
    assert_eq!(unshown(&cut("one", "two"), both), [""; 0]);
    assert_eq!(unshown(&cut("two", "one"), both), [""; 0]);
    assert_eq!(unshown(&cut("three", "two"), both), ["left_out_within_s", "back_within_s"]);
    // Ten seconds, of which a cut excuses all that follows it, or five seconds after its end.
    let sight = "false_losses_max = 0\nhealthy_left_out_s_max = 1";
    let endless = cut("three", "two").replace("for_s = 2", "");
    assert_eq!(unshown(&endless, sight), ["false_losses_max", "healthy_left_out_s_max"]);
    assert_eq!(unshown(&cut("three", "two").replace("for_s = 2", "for_s = 1"), sight), [""; 0]);
}

#[test]
fn faults_that_contradict_each_other_are_told() {
    let two = |kind: &str, at_s: u64, more: &str| {
        format!("[[fault]]\nkind = \"{kind}\"\nnode = \"two\"\nat_s = {at_s}\n{more}\n")
    };
    let cases = [
        (
            shaped(&(two("kill", 1, "") + &two("cpu", 2, "cpu_share = 0.1"))),
            "b.toml:17: `at_s`: at 2 s this would meet nothing",
            "the fault of line 12 has `two` down or standing still for as long as this one acts",
        ),
        (
            shaped(&(two("battery", 1, "level = 0") + &two("kill", 2, ""))),
            "b.toml:17: `at_s`: at 2 s `two` has no power since its battery was emptied (line 12)",
            "then a `restart`",
        ),
        (
            shaped(
                &(two("battery", 1, "level = 0.0")
                    + &two("battery", 2, "level = 0.5")
                    + &two("freeze", 3, "")),
            ),
            "b.toml:22: `at_s`: at 3 s `two` is charged, but off",
            "give it a `restart` before",
        ),
        (
            shaped(&(two("battery", 1, "level = 0.5") + &two("battery", 1, "level = 0.2"))),
            "b.toml:17: `at_s`",
            "still acts on the same node",
        ),
        (
            shaped(
                &(two("kill", 1, "")
                    + &two("kill", 3, "").replace("two", "three")
                    + &two("freeze", 2, "").replace("two", "@host")),
            ),
            "b.toml:22: `node`: @host is no node where requests enter or that another fault names meanwhile",
            "here all are",
        ),
    ];
    assert_told(cases);
    let back = two("battery", 1, "level = 0")
        + &two("battery", 2, "level = 0.5")
        + &two("restart", 3, "")
        + &two("kill", 5, "");
    assert!(shaped(&back).is_ok());
    let both_chosen = two("cpu", 1, "cpu_share = 0.1") + &two("cpu", 2, "cpu_share = 0.1");
    assert!(shaped(&both_chosen.replace("two", "@busiest")).is_ok(), "each chooses who is under no fault");
}

#[test]
fn demands_that_the_faults_cannot_show_are_known() {
    let kill = |more: &str| format!("[[fault]]\nkind = \"kill\"\nnode = \"two\"\nat_s = 1\n{more}");
    let unshown = |text: &str| {
        let scenario = with(text).unwrap();
        let told = scenario.unshown().into_iter();
        told.map(|demand| (scenario.line_of_demand(demand.field), demand.field)).collect::<Vec<_>>()
    };
    let all = "\n[expect]\nleft_out_within_s = 2\nback_within_s = 3\n avoided_within_s = 1\nrestored_within_s = 1\naffected_min = 2\nadded_p99_ms_max = 5\n";
    let none = [
        (18, "added_p99_ms_max"),
        (17, "affected_min"),
        (16, "restored_within_s"),
        (13, "left_out_within_s"),
        (14, "back_within_s"),
        (15, "avoided_within_s"),
    ];
    assert_eq!(unshown(all.trim_start()), none);
    let slow = "[[fault]]\nkind = \"link\"\nfrom = \"one\"\nto = \"two\"\nat_s = 3\nloss = 0.1\nfor_s = 1\n";
    assert_eq!(unshown(&(kill("for_s = 2\n") + slow + all.trim_start())), []);
    let short = unshown(&(kill("for_s = 1.5\n") + slow + all.trim_start()));
    assert_eq!(short.iter().map(|(_, field)| *field).collect::<Vec<_>>(), ["left_out_within_s"]);
    assert_eq!(unshown(&kill("for_s = 4\n[expect]\nprogress_within_s = 5\n")), [(18, "progress_within_s")]);
    assert_eq!(
        unshown(&kill("for_s = 4.5\n")),
        [(1, "progress_within_s")],
        "it is demanded without being asked for"
    );
    for file in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|end| end == "toml") {
            assert_eq!(Scenario::load(&file).unwrap().unshown(), [], "{}", file.display());
        }
    }
}

#[test]
fn faults_come_back_from_what_they_are_written_as() {
    let text = "[[fault]]\nkind = \"freeze\"\nnode = \"two\"\nat_s = 1\nfor_s = 1\n\
                [[fault]]\nkind = \"link\"\nfrom = \"one\"\nto = \"two\"\nboth_ways = true\nat_s = 2\nfor_s = 1\nloss = 0.1\nlatency_ms = 2.5\nrate_bits_per_s = 1000000\n\
                [[fault]]\nkind = \"partition\"\ngroups = [[\"one\"], [\"two\", \"three\"]]\nat_s = 4\nfor_s = 1\n\
                [[fault]]\nkind = \"cpu\"\nnode = \"three\"\ncpu_share = 0.25\nat_s = 6\n\
                [[fault]]\nkind = \"memory\"\nnode = \"three\"\nmemory_bytes = 100000000\nat_s = 6\n\
                [[fault]]\nkind = \"cut\"\nfrom = \"one\"\nto = \"two\"\nat_s = 7\n\
                [[fault]]\nkind = \"clock\"\nnode = \"one\"\noffset_s = -60.5\nat_s = 7\nfor_s = 2\n\
                [[fault]]\nkind = \"restart\"\nnode = \"two\"\nat_s = 8\n";
    let faults = with(text).unwrap().faults;
    let written: Vec<toml::Value> = faults.iter().map(|fault| fault.table().into()).collect();
    let written = toml::to_string(&toml::Table::from_iter([("fault".to_owned(), written.into())])).unwrap();
    let again = with(&written).unwrap().faults;
    let plain = |faults: &[Scheduled]| -> Vec<Scheduled> {
        faults.iter().map(|fault| Scheduled { line: 0, ..fault.clone() }).collect()
    };
    assert_eq!(plain(&again), plain(&faults));
}

//! What a scenario's file may say, and how it is told what it may not.

use std::fs;

use std::path::Path;

use super::*;

const HEAD: &str = "about = \"a test\"\ntopology = \"loopback\"\nduration_s = 10.0\n";
const DEPLOY: &str = "[[deploy]]\nname = \"digits\"\nmodel = \"digits\"\nat = \"one\"\n";
const LOAD: &str = "[[load]]\ndeploy = \"digits\"\nat = [\"one\"]\nclients = 2\n";

fn parse(text: &str) -> Parsed {
    Scenario::parse(Path::new("a/b.toml"), text.to_owned()).map(Box::new).map_err(Box::new)
}

fn with(more: &str) -> Parsed {
    parse(&format!("{HEAD}{DEPLOY}{LOAD}{more}"))
}

#[test]
fn every_committed_scenario_is_one() {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let scenario = Scenario::load(&file);
        assert!(scenario.is_ok(), "{}", scenario.unwrap_err());
    }
}

#[test]
fn a_small_one_is_read() {
    let scenario =
        with("[[fault]]\nkind = \"kill\"\nnode = \"two\"\nat_s = 1\nfor_s = 2.5\ntimes = 2\nevery_s = 4\n")
            .unwrap();
    assert_eq!(
        (scenario.seed, scenario.duration_us, scenario.loads[0].until_us),
        (1, 10_000_000, 10_000_000)
    );
    let times: Vec<(u64, Option<u64>)> =
        scenario.faults.iter().map(|fault| (fault.at_us, fault.for_us)).collect();
    assert_eq!(times, [(1_000_000, Some(2_500_000)), (5_000_000, Some(2_500_000))]);
    assert_eq!(scenario.faults[0].kind, FaultKind::Kill(Target::Node("two".to_owned())));
    assert_eq!(scenario.expect.progress_within_ms, Some(5000.0));
    assert!(scenario.needs_emulation().is_none());
}

#[test]
fn what_cannot_be_meant_is_told_with_line_and_field() {
    let cases = [
        (parse("about = 1"), "a/b.toml:1: ", "string"),
        (parse(&HEAD.replace("a test", " ")), "a/b.toml:1: ", "missing field"),
        (parse(&format!("{HEAD}{DEPLOY}")), "a/b.toml:", "missing field `load`"),
        (
            parse(&format!("{}{DEPLOY}{LOAD}", HEAD.replace("10.0", "-1.0"))),
            "a/b.toml:3: `duration_s` is -1",
            "",
        ),
        (
            parse(&format!("{}{DEPLOY}{LOAD}", HEAD.replace("10.0", "nan"))),
            "a/b.toml:3: `duration_s` is NaN",
            "",
        ),
        (
            parse(&format!("{HEAD}{}{LOAD}", DEPLOY.replace("one", "nine"))),
            "a/b.toml:7: `at`",
            "no node `nine`; its nodes: one, two, three",
        ),
        (
            parse(&format!("{HEAD}{}{LOAD}", DEPLOY.replace("\"digits\"\nat", "\"diggits\"\nat"))),
            "a/b.toml:6: `model`",
            "no model `diggits`",
        ),
        (
            parse(&format!("{HEAD}{}{LOAD}", DEPLOY.replace("\"digits\"\nat", "\"../digits\"\nat"))),
            "a/b.toml:6: `model`",
            "no name",
        ),
        (
            parse(&format!("{HEAD}{DEPLOY}{}", LOAD.replace("digits", "other"))),
            "a/b.toml:9: `deploy`",
            "nothing is deployed as `other`",
        ),
        (
            parse(&format!("{HEAD}{DEPLOY}{}", LOAD.replace("clients = 2", ""))),
            "a/b.toml:8: ",
            "exactly one of `clients`",
        ),
        (
            parse(&format!("{HEAD}{DEPLOY}{}", LOAD.replace("clients = 2", "rate_per_s = -4"))),
            "a/b.toml:11: `rate_per_s` is -4",
            "",
        ),
        (with("[expect]\nlost_mix = 0\n"), "a/b.toml:13: ", "lost_mix"),
        (with("[expect]\nfailed_share_max = 2\n"), "a/b.toml:13: `failed_share_max` is 2", ""),
    ];
    assert_told(cases);
}

#[test]
fn names_that_cannot_be_are_told() {
    let cases = [
        (
            parse(&format!("{HEAD}{}{LOAD}", DEPLOY.replace("name = \"digits\"", "name = \"-rf\""))),
            "a/b.toml:5: `name`: `-rf`: letters, digits",
            "not starting with `.` or `-`",
        ),
        (
            parse(&format!(
                "{HEAD}{}{LOAD}",
                DEPLOY.replace("name = \"digits\"", &format!("name = \"{}\"", "x".repeat(70)))
            )),
            "a/b.toml:5: `name`: `xxx",
            "70 bytes; a name has at most 64",
        ),
        (
            parse(&format!("{HEAD}{DEPLOY}variant = [{{ label = \"base\", model = \"digits\" }}]\n{LOAD}")),
            "a/b.toml:8: `variant.label`: `base` is taken",
            "",
        ),
        (
            parse(&format!("seed = -1\n{HEAD}{DEPLOY}{LOAD}")),
            "a/b.toml:1: `seed`",
            "a whole number, 0 or more",
        ),
    ];
    assert_told(cases);
}

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

#[test]
fn times_that_cannot_be_are_told() {
    let kill =
        |fields: &str| with(&format!("[[fault]]\nat_s = 1\nkind = \"kill\"\nnode = \"two\"\n{fields}\n"));
    let cases = [
        (kill("every_s = 2"), "a/b.toml:16: `every_s`", "give `times`, 2 or more, or leave it out"),
        (kill("every_s = 2\ntimes = 1"), "a/b.toml:16: `every_s`", "give `times`"),
        (
            kill("every_s = 0.001\ntimes = 2000"),
            "a/b.toml:17: `times` is 2000; it must be from 1 to 1000",
            "",
        ),
        (kill("times = 0"), "a/b.toml:16: `times` is 0; it must be from 1 to 1000", ""),
        (
            kill("times = 3\nevery_s = 4\nfor_s = 2"),
            "a/b.toml:16: `times` is 3",
            "would end at 11 s, behind the scenario's 10 s",
        ),
        (kill("for_s = 9.5"), "a/b.toml:16: `for_s` is 9.5", "behind the scenario's 10 s"),
        (kill("times = 2\nevery_s = 2\nfor_s = 3"), "a/b.toml:12: `every_s`", "at 3 s it still acts"),
        (kill("times = 2\nevery_s = 2"), "a/b.toml:12: `every_s`", "or a shorter `for_s`"),
    ];
    assert_told(cases);
    // Decimal fractions that add up to the whole only as decimals.
    let to_the_end = HEAD.replace("10.0", "0.8") + DEPLOY + LOAD;
    assert!(
        parse(&format!("{to_the_end}[[fault]]\nkind = \"kill\"\nnode = \"two\"\nat_s = 0.1\nfor_s = 0.7\n"))
            .is_ok()
    );
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
            "leave it out for no limit",
        ),
        (link("queue_bytes = 0"), "b.toml:17: `queue_bytes`", "a queue of 0 bytes"),
        (link("queue_bytes = 9000000000000"), "b.toml:17: `queue_bytes`", "at most 1073741824"),
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
    assert!(fault("\"cpu\"\nnode = \"one\"\ncpu_share = 1.0").is_ok());
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
fn demands_that_never_hold_are_told() {
    let expect = |fields: &str| with(&format!("[expect]\n{fields}\n"));
    let even = |rate: &str, expect: &str| {
        let load = LOAD.replace("clients = 2", &format!("rate_per_s = {rate}\narrivals = \"even\""));
        parse(&format!("{HEAD}{DEPLOY}{load}[expect]\n{expect}\n"))
    };
    let cases = [
        (expect("p99_ms_max = 0"), "a/b.toml:13: `p99_ms_max` is 0", "which nothing keeps"),
        (expect("p50_ms_max = 0.0"), "a/b.toml:13: `p50_ms_max` is 0", ""),
        (expect("formed_within_s = 0"), "a/b.toml:13: `formed_within_s` is 0", ""),
        (expect("progress_latency_ms_max = 0"), "a/b.toml:13: `progress_latency_ms_max` is 0", ""),
        (expect("own_memory_mib_max = 0"), "a/b.toml:13: `own_memory_mib_max` is 0", ""),
        (expect("goodput_share_min = 1.5"), "a/b.toml:13: `goodput_share_min` is 1.5", "from 0 to 1"),
        (expect("divided_share_min = nan"), "a/b.toml:13: `divided_share_min` is NaN", "from 0 to 1"),
        (
            expect("reject_within_ms_max = 50"),
            "a/b.toml:13: `reject_within_ms_max`",
            "`rejected_share_max` (0) none",
        ),
        (expect("warm_up_s = 5"), "a/b.toml:13: `warm_up_s` is for", "none is given"),
        (
            expect("threads_growth_max = 1\nwarm_up_s = 10"),
            "a/b.toml:14: `warm_up_s` is 10",
            "nothing is left of the scenario's 10 s",
        ),
        (even("20", "answers_min = 201"), "a/b.toml:14: `answers_min` is 201", "send 200 requests at most"),
        (even("0.05", ""), "a/b.toml:11: `rate_per_s` is 0.05", "in 10 s that sends nothing"),
        (expect("affected_min = -1"), "a/b.toml:13: `affected_min`", "a whole number, 0 or more"),
    ];
    assert_told(cases);
    assert!(even("20", "answers_min = 200").is_ok());
    assert!(expect("reject_within_ms_max = 50\nrejected_share_max = 0.1").is_ok());
}

#[test]
fn progress_is_demanded_by_either_of_its_bounds() {
    let progress = |fields: &str| {
        let expect = with(&format!("[expect]\n{fields}\n")).unwrap().expect;
        (expect.progress_within_ms, expect.progress_latency_ms_max)
    };
    assert_eq!(progress(""), (None, None));
    assert_eq!(progress("progress_within_s = 2"), (Some(2000.0), Some(5000.0)));
    assert_eq!(progress("progress_latency_ms_max = 70"), (Some(5000.0), Some(70.0)));
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
fn placements_and_replicas_that_cannot_be_are_told() {
    let deploy = |fields: &str| parse(&format!("{HEAD}{DEPLOY}{fields}\n{LOAD}"));
    let place = |places: &[(&str, u32, u32)]| {
        let places = places
            .iter()
            .map(|(node, first, end)| format!("{{ node = \"{node}\", blocks = [{first}, {end}] }},\n"));
        deploy(&format!("placement = [\n{}]", places.collect::<String>()))
    };
    let cases = [
        (
            place(&[("one", 0, 5), ("two", 6, 15)]),
            "a/b.toml:10: `placement.blocks`: block 5 is nowhere",
            "[5, ...]",
        ),
        (place(&[("one", 1, 5)]), "a/b.toml:9: `placement.blocks`: block 0 is nowhere", ""),
        (
            place(&[("one", 0, 5), ("one", 4, 15)]),
            "a/b.toml:10: `placement.blocks`: [4, 15] and [0, 5] are both on `one`",
            "",
        ),
        (place(&[("one", 0, 5), ("one", 0, 5)]), "a/b.toml:10: `placement.blocks`", "both on `one`"),
        (place(&[("one", 0, 65)]), "a/b.toml:9: `placement.blocks`: [0, 65]", "64 blocks at most"),
        (place(&[("one", 5, 5)]), "a/b.toml:9: `placement.blocks`: [5, 5] is empty", ""),
        (place(&[("one", 0, 70_000)]), "a/b.toml:9: `blocks`", "from 0 to 65535"),
        (place(&[("nine", 0, 5)]), "a/b.toml:9: `placement.node`", "no node `nine`"),
        (
            deploy("replicas = 2\nplacement = [{ node = \"one\", blocks = [0, 5] }]"),
            "a/b.toml:8: `replicas` and `placement`",
            "as many as places name it",
        ),
        (
            deploy("parts = 2\nplacement = [{ node = \"one\", blocks = [0, 5] }]"),
            "a/b.toml:8: `parts` and `placement`",
            "",
        ),
        (
            deploy("replicas = 4"),
            "a/b.toml:8: `replicas`: 1 part on 4 nodes each take 4",
            "the topology has 3 with memory",
        ),
        (deploy("parts = 2\nreplicas = 2"), "a/b.toml:9: `replicas`: 2 parts on 2 nodes each take 4", ""),
        (deploy("parts = 4"), "a/b.toml:8: `parts`: 4 parts on 1 node each", ""),
        (
            parse(&format!(
                "{}{}{}",
                HEAD.replace("loopback", "replicas"),
                DEPLOY.replace("one", "origin") + "placement = [{ node = \"origin\", blocks = [0, 15] }]\n",
                LOAD.replace("one", "origin")
            )),
            "a/b.toml:8: `placement.node`",
            "`origin` has a `memory_budget` of 1000 bytes",
        ),
    ];
    assert_told(cases);
    assert!(place(&[("one", 0, 5), ("two", 5, 15), ("three", 0, 15)]).is_ok());
}

type Parsed = Result<Box<Scenario>, Box<ScenarioError>>;

fn assert_told<const N: usize>(cases: [(Parsed, &str, &str); N]) {
    for (parsed, place, words) in cases {
        let told = parsed.map(drop).unwrap_err().to_string();
        assert!(told.starts_with(place) && told.contains(words), "wanted `{place}...{words}`: {told}");
    }
}

#[test]
fn a_topology_that_is_none_is_told_with_the_line_that_names_it() {
    let text = format!("{}{DEPLOY}{LOAD}", HEAD.replace("loopback", "nowhere"));
    let told = parse(&text).unwrap_err().to_string();
    assert!(told.starts_with("a/b.toml:2: `topology`: ") && told.contains("nowhere.toml"), "{told}");
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

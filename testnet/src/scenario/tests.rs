//! What a scenario's file may say, and how it is told what it may not.

mod faults;

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
        (expect("goodput_share_min = 0.9"), "a/b.toml:13: `goodput_share_min`", "with `clients`"),
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
fn demands_that_always_hold_are_told() {
    let expect = |fields: &str| with(&format!("[expect]\n{fields}\n"));
    let even = |expect: &str| {
        let load = LOAD.replace("clients = 2", "rate_per_s = 20\narrivals = \"even\"");
        parse(&format!("{HEAD}{DEPLOY}{load}[expect]\n{expect}\n"))
    };
    let always = "which always holds";
    let cases = [
        (
            expect("lost_max = 18446744073709551615"),
            "a/b.toml:13: `lost_max` is 18446744073709551615",
            always,
        ),
        (even("wrong_max = 200"), "a/b.toml:14: `wrong_max` is 200", "send 200 requests at most"),
        (even("answered_twice_max = 201"), "a/b.toml:14: `answered_twice_max`", always),
        (expect("failed_share_max = 1.0"), "a/b.toml:13: `failed_share_max` is 1", always),
        (expect("rejected_share_max = 1"), "a/b.toml:13: `rejected_share_max` is 1", always),
        (expect("unknown_share_max = 1"), "a/b.toml:13: `unknown_share_max` is 1", always),
        (expect("divided_share_min = 0"), "a/b.toml:13: `divided_share_min` is 0", always),
        (even("goodput_share_min = 0.0"), "a/b.toml:14: `goodput_share_min` is 0", always),
        (expect("affected_min = 0"), "a/b.toml:13: `affected_min` is 0", always),
        (expect("answers_min = 0"), "a/b.toml:13: `answers_min` is 0", always),
    ];
    assert_told(cases);
    assert!(even("lost_max = 199\nfailed_share_max = 0.99\ndivided_share_min = 0.01").is_ok());
}

#[test]
fn long_numbers_are_told_shortly() {
    let cases = [
        (with("[expect]\np99_ms_max = 1e308\n"), "a/b.toml:13: `p99_ms_max` is 1e308; ", "from 0 to 1000000"),
        (with("[expect]\np99_ms_max = -0.25\n"), "a/b.toml:13: `p99_ms_max` is -0.25; ", ""),
    ];
    assert_told(cases);
}

#[test]
fn a_variant_that_is_not_there_is_told_at_its_own_line() {
    let parsed = parse(&format!("{HEAD}{DEPLOY}{LOAD}variant = \"small\"\n"));
    assert_told([(parsed, "a/b.toml:12: `variant`", "no variant `small`")]);
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
fn cards_and_samples_go_by_their_names() {
    let deploy = |more: &str| parse(&format!("{HEAD}{DEPLOY}{more}{LOAD}"));
    let read = deploy("card = \"digits\"\nsamples = \"digits\"\n").unwrap();
    let models = workspace_root().join("testnet/models");
    assert_eq!(read.deploys[0].card, Some(models.join("digits.toml")));
    assert_eq!(read.deploys[0].samples, Some(models.join("digits")));
    let from = |first: u16| format!("placement = [{{ node = \"one\", blocks = [{first}, 16] }}]\n");
    assert!(deploy(&format!("card = \"digits\"\n{}", from(1))).is_ok(), "its first block is the card's");
    let cases = [
        (deploy(&from(1)), "a/b.toml:8: `placement.blocks`", "block 0 is nowhere"),
        (deploy("card = \"none\"\n"), "a/b.toml:8: `card`", "there is no `none.toml`"),
        (deploy("card = \"../digits\"\n"), "a/b.toml:8: `card`", ""),
        (deploy("samples = \"digits\"\n"), "a/b.toml:8: `samples` without `card`", ""),
        (
            deploy("card = \"digits\"\nsamples = \"none\"\n"),
            "a/b.toml:9: `samples`",
            "there is no folder `none`",
        ),
    ];
    assert_told(cases);
}

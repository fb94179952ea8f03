//! Planning instances as text: the hand cases of the design, read, planned and answered in names; and texts that
//! are none.

use serde_json::{Value, json};

use crate::plan::instance::{Instance, Reply};
use crate::plan::tests::is_close;
use crate::plan::{EXPANSIONS_DEFAULT, Method, Search};

/// Three blocks on a device, an edge box and a cloud server.
fn hand_case() -> Value {
    let link = |from: &str, to: &str, latency_ms: f64, ms_per_mb: f64| json!({"from": from, "to": to, "latency_ms": latency_ms, "ms_per_mb": ms_per_mb, "both_ways": true});
    json!({
        "requester": "device", "objective": "latency",
        "nodes": [
            {"name": "edge", "block_ms": [2, 4, 6], "memory_bytes": null, "domains": ["home"]},
            {"name": "device", "block_ms": [10, 20, 30], "domains": ["home"],
             "watts": {"idle": 0.5, "compute": 3.0, "send": 1.5, "receive": 1.0}, "tail_j": 0.01},
            {"name": "cloud", "block_ms": [1, 1, 1], "domains": ["far"]}
        ],
        "links": [
            link("device", "edge", 1.0, 80.0), link("edge", "cloud", 20.0, 8.0), link("device", "cloud", 25.0, 160.0)
        ],
        "variants": [{
            "name": "fp32", "accuracy": 0.9, "cut_bytes": [1e6, 500000, 100000, 10000],
            "weights_bytes": [40, 40, 40], "peak_bytes": [0, 0, 0]
        }]
    })
}

fn heavy(memory: [Option<u64>; 3]) -> Value {
    let mut case = hand_case();
    for (node, bytes) in case["nodes"].as_array_mut().unwrap().iter_mut().zip(memory) {
        for time_ms in node["block_ms"].as_array_mut().unwrap() {
            *time_ms = json!(time_ms.as_f64().unwrap() * 20.0);
        }
        node["memory_bytes"] = json!(bytes);
    }
    case
}

fn without_cloud(mut case: Value) -> Value {
    case["nodes"].as_array_mut().unwrap().pop();
    case["links"].as_array_mut().unwrap().drain(1..);
    case
}

fn reply(case: &Value, method: Method) -> Reply {
    let instance = Instance::parse(&case.to_string()).unwrap();
    let search = Search { method, expansions_max: EXPANSIONS_DEFAULT };
    instance.reply(instance.question.answer(&search), method, EXPANSIONS_DEFAULT)
}

fn both(case: &Value) -> [Reply; 2] {
    [Method::Greedy, Method::Exact].map(|method| reply(case, method))
}

#[track_caller]
fn assert_latency(case: &Value, latency_ms: f64) {
    for reply in both(case) {
        let plan = reply.plan.as_ref().unwrap();
        assert!(reply.feasible && is_close(plan.latency_ms, latency_ms), "{reply:?}");
        assert!(is_close(reply.lower_bound_ms.unwrap(), latency_ms), "{reply:?}");
    }
}

fn nodes(reply: &Reply) -> Vec<(&str, [u16; 2])> {
    let stages = &reply.plan.as_ref().unwrap().stages;
    stages.iter().map(|stage| (stage.node.as_str(), stage.blocks)).collect()
}

#[test]
fn a_stream_may_take_several_routes() {
    let mut case = hand_case();
    case["objective"] = json!("throughput");
    for reply in both(&case) {
        let plan = reply.plan.as_ref().unwrap();
        assert!(is_close(plan.period_ms, 30.0), "{reply:?}");
        let stream = reply.replicated.as_ref().unwrap();
        // By hand: at prices of 8/280 for a millisecond of the device, 5/280 for one of its way to the edge and half of
        // that to the cloud, no route costs less than 1, and five cost that. The prices add up to 31/560.
        let least_ms = 560.0 / 31.0;
        assert!(
            stream.period_ms >= least_ms * (1.0 - 1e-9) && stream.period_ms <= least_ms * 1.003,
            "{stream:?}"
        );
        assert!(stream.lower_bound_ms <= least_ms * (1.0 + 1e-9), "{stream:?}");
        let shares: f64 = stream.routes.iter().map(|route| route.share).sum();
        assert!(is_close(shares, 1.0) && stream.routes.len() > 1 && !stream.runnable, "{stream:?}");
        let here = stream.replicas.iter().filter(|replica| replica.blocks[0] == 0);
        assert!(is_close(here.map(|replica| replica.weight).sum(), 1.0), "{stream:?}");
    }
    let [greedy, exact] = both(&case).map(|reply| reply.replicated.unwrap());
    assert!(is_close(exact.period_ms, 560.0 / 31.0) && exact.proven, "{exact:?}");
    assert!(exact.period_ms <= greedy.period_ms * (1.0 + 1e-9), "{exact:?}, {greedy:?}");
    case["limits"] = json!({"max_latency_ms": 50.0});
    let limited = reply(&case, Method::Greedy);
    assert!(limited.replicated.is_none_or(|stream| stream.latency_max_ms <= 50.0));
    assert!(both(&hand_case()).iter().all(|reply| reply.replicated.is_none()));
}

#[test]
fn hand_cases_come_out_to_the_digit() {
    assert_latency(&hand_case(), 46.8);
    for reply in both(&hand_case()) {
        assert_eq!(nodes(&reply), [("device", [0, 2]), ("edge", [2, 3])]);
        let backups: Vec<&[String]> =
            reply.plan.as_ref().unwrap().stages.iter().map(|stage| &stage.backups[..]).collect();
        assert_eq!(backups, [["cloud".to_owned()], ["cloud".to_owned()]]);
    }
    let mut forced = hand_case();
    (forced["force_first"], forced["force_last"]) = (json!(true), json!(true));
    assert_latency(&forced, 60.0);
    let mut waiting = hand_case();
    waiting["nodes"][0]["wait_ms"] = json!(10);
    assert_latency(&waiting, 56.8);
    let mut coded = hand_case();
    // At 4 ms/MB in all; the cloud's links go without.
    let times = json!({"device": 2, "edge": 2, "cloud": 1e6});
    coded["codecs"] =
        json!([{"name": "quarter", "ratio": 0.25, "encode_ms_per_mb": times, "decode_ms_per_mb": times}]);
    assert_latency(&coded, 34.24);
    for reply in both(&coded) {
        assert_eq!(nodes(&reply), [("device", [0, 1]), ("edge", [1, 3])]);
        assert_eq!(reply.plan.as_ref().unwrap().stages[1].codec, "quarter");
    }
    assert_latency(&heavy([None; 3]), 211.6);
    assert_latency(&without_cloud(heavy([None; 3])), 322.8);
    assert_latency(&heavy([Some(80), Some(40), Some(200)]), 211.6);
    assert_latency(&without_cloud(heavy([Some(80), Some(40), Some(200)])), 442.8);
}

#[test]
fn the_best_period_is_that_of_the_busiest() {
    let mut case = hand_case();
    case["objective"] = json!("throughput");
    for reply in both(&case) {
        assert!(is_close(reply.plan.as_ref().unwrap().period_ms, 30.0), "{reply:?}");
        assert!(reply.proven || is_close(reply.lower_bound.unwrap(), 30.0), "{reply:?}");
    }
}

#[test]
fn energy_is_watts_times_the_time_in_each_state() {
    let mut case = hand_case();
    // Computes 30 ms, sends 8, receives 0.8, idles for the other 8 of 46.8; and a tail of 10 mJ.
    let expected_j = (30.0 * 3.0 + 8.0 * 1.5 + 0.8 * 1.0 + 8.0 * 0.5) / 1000.0 + 0.01;
    for reply in both(&case) {
        assert!(is_close(reply.plan.as_ref().unwrap().energy_j, expected_j), "{reply:?}");
    }
    case["objective"] = json!("energy");
    // One block here: computes 10, sends 40, receives 0.8, idles 12.
    let expected_j = (10.0 * 3.0 + 40.0 * 1.5 + 0.8 + 12.0 * 0.5) / 1000.0 + 0.01;
    for reply in both(&case) {
        assert!(is_close(reply.plan.as_ref().unwrap().energy_j, expected_j), "{reply:?}");
        assert!(is_close(reply.lower_bound.unwrap(), expected_j), "{reply:?}");
    }
}

#[test]
fn what_cannot_be_met_says_which_limit_binds_and_what_is_closest() {
    let mut case = hand_case();
    case["limits"] = json!({"max_latency_ms": 40});
    for reply in both(&case) {
        assert_eq!((reply.feasible, reply.binding.as_deref()), (false, Some("max_latency_ms")), "{reply:?}");
        assert!(is_close(reply.plan.unwrap().latency_ms, 46.8));
    }
    case["limits"] = json!({"max_energy_j": 1e-6});
    assert_eq!(reply(&case, Method::Exact).binding.as_deref(), Some("max_energy_j"));
    case["limits"] = json!({"min_accuracy": 0.95});
    assert_eq!(reply(&case, Method::Greedy).binding.as_deref(), Some("min_accuracy"));
    let tight = without_cloud(heavy([Some(40), Some(40), None]));
    let reply = reply(&tight, Method::Exact);
    assert_eq!((reply.binding.as_deref(), reply.plan.is_none()), (Some("memory_bytes"), true), "{reply:?}");
}

#[test]
fn the_variant_is_the_most_accurate_that_meets_the_limits_or_the_best_that_is_accurate_enough() {
    let mut case = hand_case();
    let mut small = case["variants"][0].clone();
    (small["name"], small["accuracy"]) = (json!("int8"), json!(0.88));
    case["variants"].as_array_mut().unwrap().push(small);
    let times = json!([10, 20, 30]);
    case["nodes"][1]["block_ms"] = json!({"fp32": times, "int8": [4, 8, 12]});
    let variant = |case: &Value| {
        let [greedy, exact] = both(case).map(|reply| reply.plan.unwrap());
        assert_eq!(greedy.variant, exact.variant);
        assert!(is_close(greedy.latency_ms, exact.latency_ms));
        (greedy.variant, greedy.latency_ms)
    };
    assert_eq!(variant(&case).0, "fp32");
    case["limits"] = json!({"min_accuracy": 0.8});
    // All here in 24 ms.
    let (name, latency_ms) = variant(&case);
    assert!(name == "int8" && is_close(latency_ms, 24.0));
    case["limits"] = json!({"max_latency_ms": 30});
    assert_eq!(variant(&case).0, "int8");
    // A codec that loses less than the other variant does.
    case["codecs"] = json!([{"name": "tenth", "ratio": 0.1, "loss": 0.005}]);
    let (name, latency_ms) = variant(&case);
    // To the edge: 1 + 8 + 12 + 1.8, one hop coded.
    assert!(name == "fp32" && is_close(latency_ms, 22.8), "{name} {latency_ms}");
}

#[test]
fn loading_is_paid_and_memory_is_what_a_node_has_in_all() {
    let mut case = hand_case();
    case["variants"][0]["weights_bytes"] = json!([1e6, 1e6, 1e6]);
    case["nodes"][0]["loaded"] = json!([[0, 2]]);
    case["nodes"][0]["load_ms_per_mb"] = json!(100);
    assert_latency(&case, 60.0);
    case["expected_requests"] = json!(100);
    assert_latency(&case, 47.8);
    case["nodes"][0]["loaded"] = json!([[0, 2], {"blocks": [2, 3], "variant": "fp32"}]);
    assert_latency(&case, 46.8);
    case["nodes"][0]["memory_bytes"] = json!(999_999);
    assert_latency(&case, 60.0);
    case["nodes"][1]["ranges"] = json!([{"blocks": [0, 3], "ms": 20}]);
    case["nodes"][1]["slowdown"] = json!(1.5);
    assert_latency(&case, 30.0);
}

#[test]
fn who_does_not_compute_runs_nothing_and_may_ask_all_the_same() {
    let mut case = hand_case();
    case["nodes"][1]["computes"] = json!(false);
    // To the edge with the whole input, and the result back.
    assert_latency(&case, 1.0 + 80.0 + 12.0 + 1.0 + 0.8);
    case["nodes"][0]["computes"] = json!(false);
    assert_latency(&case, 25.0 + 160.0 + 3.0 + 25.0 + 1.6);
    case["nodes"][2]["computes"] = json!(false);
    for reply in both(&case) {
        assert!(!reply.feasible && reply.plan.is_none(), "{reply:?}");
        assert_eq!(reply.reason.as_deref(), Some("no node takes stages at the moment"));
    }
}

#[test]
fn a_search_that_would_take_too_long_says_so() {
    let case = json!({
        "requester": "0",
        "nodes": (0..200).map(|node| json!({"name": node.to_string(), "block_ms": vec![1; 4096]})).collect::<Value>(),
        "links": [],
        "variants": [{"name": "fp32", "cut_bytes": vec![1; 4097]}],
    });
    let instance = Instance::parse(&case.to_string()).unwrap();
    for (method, says) in
        [(Method::Exact, "too many for an exact search"), (Method::Greedy, "are too many to plan over")]
    {
        let search = Search { method, expansions_max: EXPANSIONS_DEFAULT };
        let reply = instance.reply(instance.question.answer(&search), method, EXPANSIONS_DEFAULT);
        assert!(!reply.feasible, "{reply:?}");
        assert!(reply.reason.unwrap().contains(says));
    }
}

#[track_caller]
fn assert_refused(change: impl Fn(&mut Value), says: &str) {
    let mut case = hand_case();
    change(&mut case);
    let error = Instance::parse(&case.to_string()).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn what_is_no_instance_is_refused_by_its_field() {
    assert_refused(|case| case["speed"] = json!(1), "unknown field `speed`");
    assert_refused(|case| case["nodes"] = json!([]), "nodes: there must be at least one");
    assert_refused(
        |case| case["requester"] = json!("phone"),
        "requester: `phone` is not listed among the nodes",
    );
    assert_refused(|case| case["nodes"][0]["name"] = json!("cloud"), "`cloud` is listed twice");
    assert_refused(|case| case["links"][1]["to"] = json!("moon"), "links[1]: `moon`");
    assert_refused(
        |case| case["links"][1]["ms_per_mb"] = json!(-1),
        "links[1] edge to cloud: ms_per_mb is -1",
    );
    assert_refused(
        |case| case["nodes"][0]["block_ms"] = json!([1, 2]),
        "node `edge`: block_ms has 2 entries",
    );
    assert_refused(
        |case| case["nodes"][0]["block_ms"] = json!([1, 2, 1e99]),
        "nodes[0] `edge`: block_ms[2] is",
    );
    assert_refused(
        |case| case["nodes"][0]["loaded"] = json!([[2, 4]]),
        "[2, 4] is no range of the model's 3 blocks",
    );
    assert_refused(|case| case["variants"][0]["cut_bytes"] = json!([1]), "cut_bytes has 1 entries");
    assert_refused(|case| case["variants"][0]["cut_bytes"] = json!([1, 1, 1, -1]), "not negative");
    assert_refused(|case| case["limits"] = json!({"max_latency_ms": 0}), "limits.max_latency_ms is 0");
    assert_refused(|case| case["codecs"] = json!([{"name": "q", "ratio": 0}]), "codecs[0] `q`: ratio is 0");
    assert_refused(
        |case| {
            case["limits"] = json!({"min_accuracy": 0.5});
            case["variants"][0]["accuracy"] = json!(null);
        },
        "has no accuracy",
    );
}

#[test]
fn what_is_too_large_to_plan_is_refused() {
    let many = |case: &mut Value| {
        let node = case["nodes"][0].clone();
        case["nodes"] = (0..100_000).map(|_| node.clone()).collect();
    };
    assert_refused(many, "nodes: 100000 are more than are planned over");
    let variants = |case: &mut Value| {
        let named = |index: usize| {
            let mut variant = case["variants"][0].clone();
            variant["name"] = json!(index.to_string());
            variant
        };
        case["variants"] = (0..65).map(named).collect();
    };
    assert_refused(variants, "variants: 65 are more than are planned over, which is 64");
    let large = |case: &mut Value| {
        let cut_bytes = json!(vec![1; 4097]);
        case["variants"][0] = json!({"name": "fp32", "cut_bytes": cut_bytes});
        let node = json!({"block_ms": []});
        let nodes = (0..257).map(|index| {
            let mut node = node.clone();
            node["name"] = json!(if index == 0 { "device".to_owned() } else { index.to_string() });
            node
        });
        case["nodes"] = nodes.collect();
    };
    assert_refused(
        large,
        "nodes times blocks and strips, of all variants: 1052672 are more than are planned",
    );
    let ranges = json!(vec![json!({"blocks": [0, 1], "ms": 1}); 4097]);
    assert_refused(|case| case["nodes"][0]["ranges"] = ranges.clone(), "ranges of a node: 4097 are more");
    let loaded = json!(vec![[0, 1]; 4097]);
    assert_refused(|case| case["nodes"][0]["loaded"] = loaded.clone(), "loaded ranges of a node: 4097");
    let coding = json!({"codec": "int8", "bytes": 1});
    let twice = json!([[], [coding, coding], [], []]);
    assert_refused(
        |case| case["variants"][0]["codings"] = twice.clone(),
        "variants[0] `fp32`: codings[1]: a cut goes by each codec in one way, and as it is in any case: `int8`",
    );
    let raw = json!([[], [{"codec": "raw", "bytes": 1}], [], []]);
    assert_refused(|case| case["variants"][0]["codings"] = raw.clone(), "`raw` is too many");
}

//! Optima published with planning instances of real models. The files are not part of the
//! repository: a folder `shared` beside it, or the one that `STORMO_SHARED` names, may hold them.

use std::path::PathBuf;

use crate::plan::instance::{BadInstance, Instance};
use crate::plan::{EXPANSIONS_DEFAULT, best};

const OPTIMA_MS: [(&str, f64); 5] = [
    ("yolo11x-seg-3.json", 1267.9140),
    ("yolo11x-seg-6.json", 1267.9140),
    ("yolo11n-cls-3.json", 298.3306),
    ("yolo11n-cls-3-fast-uplink.json", 274.5252),
    ("yolo11n-cls-3-codec.json", 275.1984),
];

fn folder() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    std::env::var_os("STORMO_SHARED").map_or_else(beside, PathBuf::from).join("instances")
}

#[test]
fn published_optima_are_met() {
    let folder = folder();
    if !folder.is_dir() {
        println!("skipped: there are no planning instances at {}", folder.display());
        return;
    }
    for (file, optimum_ms) in OPTIMA_MS {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let instance = Instance::parse(&text).unwrap();
        let best = best(&instance.problem, EXPANSIONS_DEFAULT).unwrap();
        assert!((best.priced.latency_ms - optimum_ms).abs() < 1e-4, "{file}: {}", best.priced.latency_ms);
        assert_eq!(instance.node_names[0], "device");
    }
}

#[test]
fn a_small_instance_reads_and_a_wrong_one_says_why() {
    let text = r#"{
        "requester": "b", "nodes": [{"name": "a", "block_ms": [1]}, {"name": "b", "block_ms": [9]}],
        "links": [{"from": "a", "to": "b", "latency_ms": 1, "ms_per_mb": 2, "both_ways": true}],
        "variants": [{"cut_bytes": [1000000, 500000], "weights_bytes": [0], "peak_bytes": [0]}]
    }"#;
    let instance = Instance::parse(text).unwrap();
    assert_eq!(instance.node_names, ["b", "a"]);
    let best = best(&instance.problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(best.priced.latency_ms, 3.0 + 1.0 + 2.0);
    assert!(matches!(Instance::parse("{"), Err(BadInstance::Json(_))));
    let unknown = text.replace(r#""to": "b""#, r#""to": "c""#);
    assert!(matches!(Instance::parse(&unknown), Err(BadInstance::UnknownNode(name)) if name == "c"));
    let wrong = text.replace("[9]", "[9, 9]");
    assert!(matches!(Instance::parse(&wrong), Err(BadInstance::Problem(_))));
}

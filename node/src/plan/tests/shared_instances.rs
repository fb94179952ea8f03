//! Optima published with planning instances of real models. The files are not part of the
//! repository: a folder `shared` beside it, or the one that `STORMO_SHARED` names, may hold them.

use std::path::PathBuf;

use crate::plan::instance::Instance;
use crate::plan::{EXPANSIONS_DEFAULT, Method, Search};

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
        for method in [Method::Greedy, Method::Exact] {
            let search = Search { method, expansions_max: EXPANSIONS_DEFAULT };
            let found = instance.question.answer(&search).unwrap().found;
            let latency_ms = found.priced.latency_ms;
            assert!((latency_ms - optimum_ms).abs() < 1e-4, "{file}, {method:?}: {latency_ms}");
            assert!((found.bound - optimum_ms).abs() < 1e-4, "{file}, {method:?}: bound {}", found.bound);
        }
        assert_eq!(instance.node_names[0], "device");
    }
}

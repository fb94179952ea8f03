//! What two results have to have in common for their figures to be compared, and how each of them ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

/// Parts of a scenario's file, and what they are called.
const ASKED: [(&str, &str); 6] = [
    ("topology", "topologies"),
    ("deploy", "deployments"),
    ("load", "loads"),
    ("fault", "faults"),
    ("duration_s", "durations"),
    ("expect", "warm-ups"),
];

/// How a run ended.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    file: String,
    /// Whether all that was demanded holds; `null` of a benchmark, of which nothing is demanded.
    holds: Option<bool>,
    /// What does not, with what was got.
    missed: Vec<String>,
}

impl Verdict {
    pub(super) fn of(path: &Path, result: &Value) -> Self {
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or("?").to_owned();
        let checks = result.get("checks").and_then(Value::as_array).into_iter().flatten();
        let missed = checks.filter(|check| check["holds"] == false).map(|check| {
            format!("{} (wanted {}, got {})", text(check, "what"), text(check, "wanted"), text(check, "got"))
        });
        let (holds, file) = (result.get("holds").and_then(Value::as_bool), path.display().to_string());
        Self { file, holds, missed: missed.collect() }
    }

    /// For people; nothing where nothing was demanded.
    pub(super) fn line(&self) -> Option<String> {
        let file = &self.file;
        Some(match self.holds? {
            true => format!("{file}: all that was demanded holds"),
            false => format!("{file}: DOES NOT HOLD: {}", self.missed.join("; ")),
        })
    }
}

/// In what two runs were not asked for the same, or were not given the same; nothing of benchmarks.
pub(super) fn unlike(one: &Value, other: &Value) -> Vec<String> {
    let mut found = asked_otherwise(one, other);
    if found.is_empty() && placements(one) != placements(other) {
        found.push("placements (who hosted what when the load began)".to_owned());
    }
    // Runs of other seeds repeat each other, but one beside one may differ for that.
    if let (Some(ones), Some(others)) = (one.get("seed"), other.get("seed"))
        && ones != others
    {
        found.push(format!("seed ({ones} and {others})"));
    }
    found
}

fn asked_otherwise(one: &Value, other: &Value) -> Vec<String> {
    let [ones, others] = [one, other].map(asked);
    let mut found: Vec<String> = Vec::new();
    for (key, name) in ASKED {
        // The text of a topology's file may differ where its name does not.
        let is_mesh = key == "topology" && one.get("mesh") != other.get("mesh");
        let part = |asked: &toml::Table| match key {
            // Bounds change no figure.
            "expect" => asked.get(key).and_then(|expect| expect.get("warm_up_s")).cloned(),
            _ => asked.get(key).cloned(),
        };
        if is_mesh || part(&ones) != part(&others) {
            found.push(name.to_owned());
        }
    }
    if one.get("ground") != other.get("ground") {
        let told =
            |result: &Value| result.get("ground").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        found.push(format!("ground ({} and {})", told(one), told(other)));
    }
    found
}

fn asked(result: &Value) -> toml::Table {
    let text = result.get("scenario_text").and_then(Value::as_str).unwrap_or_default();
    toml::from_str(text).unwrap_or_default()
}

/// Of each deployment, who hosts which blocks of which variant.
fn placements(result: &Value) -> BTreeSet<String> {
    let deployed = result.get("deployed").and_then(Value::as_array).into_iter().flatten();
    let hosts = deployed.flat_map(|deployment| {
        let hosts = deployment["hosts"].as_array().into_iter().flatten();
        hosts.map(|host| {
            format!("{} {} {} {}", deployment["name"], host["variant"], host["label"], host["blocks"])
        })
    });
    hosts.collect()
}

/// That the results of a side repeat each other: a median of unlike ones is of nothing.
pub(super) fn ensure_repeats(side: &[(&Path, Value)]) -> Result<()> {
    let Some(((first, one), others)) = side.split_first() else { return Ok(()) };
    for (path, other) in others {
        let (first, path) = (first.display(), path.display());
        let asked = asked_otherwise(one, other);
        if !asked.is_empty() {
            let asked = asked.join(", ");
            bail!(
                "{first} and {path} differ in their {asked}: no median is made of them, so compare them with each other"
            );
        }
        if let Some(cuts) = other_cuts(one, other) {
            bail!(
                "{first} and {path} are of different chains, {cuts}: no median is made of them; give one side results of \
                 the same cuts only"
            );
        }
    }
    Ok(())
}

/// Where two results of `bench chain` divide a network differently, in words.
pub(super) fn other_cuts(one: &Value, other: &Value) -> Option<String> {
    let (ones, others) = (cuts(one), cuts(other));
    let differ = ones.iter().find_map(|(model, cuts)| {
        let other = others.get(model).filter(|other| *other != cuts)?;
        Some((model, cuts, other))
    });
    let (model, one, other) = differ?;
    Some(format!("`{model}` being cut where {one} and where {other} bytes cross"))
}

/// The bytes of the hops of each network.
fn cuts(result: &Value) -> BTreeMap<String, String> {
    let models = result.pointer("/figures/models").and_then(Value::as_array).into_iter().flatten();
    let cuts = models.filter_map(|model| {
        let hops = model.get("hops_bytes")?.as_array()?;
        let hops: Vec<String> = hops.iter().map(Value::to_string).collect();
        Some((model.get("model")?.as_str()?.to_owned(), hops.join(", ")))
    });
    cuts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(text: &str) -> Value {
        json!({ "scenario": "one.toml", "scenario_text": text, "ground": "loopback", "mesh": ["a: edge"], "holds": true })
    }

    const TEXT: &str = "about = \"a\"\ntopology = \"two\"\n[[load]]\nrate_per_s = 30\n";

    #[test]
    fn runs_that_were_asked_otherwise_are_told_apart() {
        assert!(unlike(&run(TEXT), &run(TEXT)).is_empty());
        assert_eq!(unlike(&run(TEXT), &run(&TEXT.replace("30", "60"))), ["loads"]);
        let more = format!("{TEXT}[[deploy]]\nname = \"x\"\n[[fault]]\nkind = \"kill\"\n");
        assert_eq!(
            unlike(&run(TEXT), &run(&more.replace("two", "three"))),
            ["topologies", "deployments", "faults"]
        );
        // What it is for is no difference; what its topology's file says is one.
        assert!(unlike(&run(TEXT), &run(&TEXT.replace("\"a\"", "\"b\""))).is_empty());
        let mut other = run(TEXT);
        other["mesh"] = json!(["a: edge", "b: edge"]);
        other["ground"] = json!("emulated");
        assert_eq!(unlike(&run(TEXT), &other), ["topologies", "ground (loopback and emulated)"]);
    }

    #[test]
    fn other_hosts_are_told() {
        let on = |label: &str| {
            let mut result = run(TEXT);
            let host = json!({ "label": label, "variant": "base", "blocks": [0, 3], "time_ms": 2.0 });
            result["deployed"] = json!([{ "name": "digits", "hosts": [host] }]);
            result
        };
        assert!(unlike(&on("a"), &on("a")).is_empty());
        assert_eq!(unlike(&on("a"), &on("b")), ["placements (who hosted what when the load began)"]);
    }

    #[test]
    fn runs_of_two_seeds_are_unlike_and_repeat_each_other() {
        let of = |seed: u64| {
            let mut run = run(TEXT);
            run["seed"] = json!(seed);
            run
        };
        assert_eq!(unlike(&of(3), &of(9)), ["seed (3 and 9)"]);
        let [one, other] = ["one.json", "other.json"].map(Path::new);
        ensure_repeats(&[(one, of(3)), (other, of(9))]).unwrap();
    }

    #[test]
    fn verdicts_are_told_with_what_was_missed() {
        let mut result = run(TEXT);
        let line = |result: &Value| Verdict::of(Path::new("a.json"), result).line();
        assert_eq!(line(&result).as_deref(), Some("a.json: all that was demanded holds"));
        result["holds"] = json!(false);
        result["checks"] = json!([
            { "what": "right answers", "wanted": "at least 5", "got": "3", "holds": false },
            { "what": "lost", "wanted": "at most 0", "got": "0", "holds": true }
        ]);
        assert_eq!(
            line(&result).as_deref(),
            Some("a.json: DOES NOT HOLD: right answers (wanted at least 5, got 3)")
        );
        assert_eq!(line(&json!({ "benchmark": "hop" })), None);
    }

    #[test]
    fn no_median_is_made_of_different_chains_or_loads() {
        let chain = |hops: [u32; 2]| json!({ "benchmark": "chain", "figures": { "models": [{ "model": "digits", "hops_bytes": hops }] } });
        let [a, b] = ["a.json", "b.json"].map(Path::new);
        assert!(ensure_repeats(&[(a, chain([1, 2])), (b, chain([1, 2]))]).is_ok());
        let said = ensure_repeats(&[(a, chain([1, 2])), (b, chain([1, 3]))]).unwrap_err().to_string();
        assert_eq!(
            said,
            "a.json and b.json are of different chains, `digits` being cut where 1, 2 and where 1, 3 bytes cross: no \
             median is made of them; give one side results of the same cuts only"
        );
        let said = ensure_repeats(&[(a, run(TEXT)), (b, run(&TEXT.replace("30", "60")))]).unwrap_err();
        assert!(said.to_string().starts_with("a.json and b.json differ in their loads: "), "{said}");
    }
}

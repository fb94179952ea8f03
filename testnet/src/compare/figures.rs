//! The figures of a result, by their names.

use std::collections::BTreeMap;

use serde_json::Value;

/// What tells the elements of a list apart, where they have it.
const NAMES: [&str; 8] = ["name", "model", "codec", "peer", "bytes", "what", "label", "size"];
/// Parts of a document that say where it comes from, not how it went.
const ORIGIN: [&str; 6] = ["measured_unix_s", "began_unix_s", "seed", "version", "machine", "timeline"];
/// Single requests that are told of: those of two runs have nothing to do with each other.
const SINGLE: [&str; 2] = ["bad", "slow"];

/// All numbers of a document by the way to them; the elements of a list go by their name, if they have one.
pub(super) fn figures(document: &Value) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    if let Value::Object(fields) = document {
        for (key, value) in fields
            .iter()
            .filter(|(key, _)| !ORIGIN.contains(&key.as_str()) && !SINGLE.contains(&key.as_str()))
        {
            let way = if key == "figures" { "" } else { key };
            collect(way, value, &mut found);
        }
    }
    found
}

fn collect(way: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    let below = |key: &str| if way.is_empty() { key.to_owned() } else { format!("{way}.{key}") };
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                insert(way, number, found);
            }
        }
        Value::Object(fields) => fields.iter().for_each(|(key, value)| collect(&below(key), value, found)),
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let name = NAMES.iter().find_map(|name| element.get(name)).and_then(text);
                let name = name.unwrap_or_else(|| index.to_string());
                collect(&below(&name), element, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Under its name, or, where that is taken (two of a list are called the same), as the second of it, the third...
fn insert(name: &str, number: f64, found: &mut BTreeMap<String, f64>) {
    let again = (2..).map(|nth| format!("{name} #{nth}"));
    let free = std::iter::once(name.to_owned()).chain(again).find(|name| !found.contains_key(name));
    found.extend(free.map(|name| (name, number)));
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_go_by_their_names() {
        let document = json!({
            "benchmark": "hop",
            "measured_unix_s": 7,
            "machine": { "cores": 2 },
            "slow": [{ "serial": 7, "latency_ms": 3.0 }],
            "figures": { "sizes": [{ "bytes": 64, "p50_ms": 0.5 }, { "bytes": 128, "p50_ms": 1.0, "holds": true }] }
        });
        let found = figures(&document);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["sizes.128.bytes", "sizes.128.p50_ms", "sizes.64.bytes", "sizes.64.p50_ms"]);
        assert_eq!(found["sizes.128.p50_ms"], 1.0);
    }

    #[test]
    fn figures_of_the_same_name_are_all_kept() {
        let document = json!({ "hosts": [{ "name": "a", "p50_ms": 1 }, { "name": "a", "p50_ms": 2 }, { "name": "a", "p50_ms": 3 }] });
        let found = figures(&document);
        let found: Vec<(&str, f64)> = found.iter().map(|(name, figure)| (name.as_str(), *figure)).collect();
        assert_eq!(found, [("hosts.a.p50_ms", 1.0), ("hosts.a.p50_ms #2", 2.0), ("hosts.a.p50_ms #3", 3.0)]);
    }
}

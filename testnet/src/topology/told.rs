//! What a topology asks for, in words: for those who start it, and to tell two runs apart.

use super::{LinkRule, NodeSpec, Topology};
use crate::process::class_name;

impl Topology {
    /// A line for each node, domain and translation, and for each kind of link.
    pub fn told(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.nodes.iter().map(node).collect();
        for domain in &self.domains {
            let mut asked = vec![format!("{:?}", domain.kind).to_lowercase()];
            asked.extend(domain.within.as_ref().map(|outer| format!("within {outer}")));
            asked.extend(rates(domain.uplink_bits_per_s, domain.downlink_bits_per_s));
            lines.push(format!("domain {}: {}", domain.name, asked.join(", ")));
        }
        lines.extend(self.nats.iter().map(|nat| {
            format!("nat {}: mapping {:?}, filtering {:?}", nat.name, nat.mapping, nat.filtering)
        }));
        lines.push(format!("links: {}", self.default_link));
        lines.extend(self.link_rules.iter().map(|LinkRule { from, to, both_ways, spec }| {
            format!("{from} {} {to}: {spec}", if *both_ways { "-" } else { "->" })
        }));
        lines
    }
}

fn node(node: &NodeSpec) -> String {
    let budget = format!("memory budget {}", size(node.memory_budget_bytes));
    let asked = [vec![class_name(node.class).to_owned(), budget], node.asked()].concat();
    format!("{}: {}", node.label, asked.join(", "))
}

impl NodeSpec {
    /// What it asks for of its machine and its place, each in words; nothing where it takes what there is.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = Vec::new();
        asked.extend(self.cpu_share.map(|share| format!("{share} of a core")));
        asked.extend(self.memory_bytes.map(|bytes| format!("{} of memory", size(bytes))));
        asked.extend(self.disk_bytes.map(|bytes| format!("{} of disk", size(bytes))));
        asked.extend(self.battery.as_ref().map(|battery| {
            format!("battery of {} kJ, {} % full", battery.capacity_j / 1e3, round(battery.level * 100.0))
        }));
        asked.extend(rates(self.uplink_bits_per_s, self.downlink_bits_per_s));
        asked.extend(self.behind.as_ref().map(|nat| format!("behind {nat}")));
        if !self.domains.is_empty() {
            asked.push(format!("in {}", self.domains.join(", ")));
        }
        asked
    }
}

fn rates(up: Option<u64>, down: Option<u64>) -> impl Iterator<Item = String> {
    let told =
        |what: &str, rate: Option<u64>| rate.map(|rate| format!("{what} {} Mbit/s", rate as f64 / 1e6));
    told("uplink", up).into_iter().chain(told("downlink", down))
}

/// In the largest unit that leaves few digits.
fn size(bytes: u64) -> String {
    let units =
        [(1 << 30, "GiB"), (1_000_000_000, "GB"), (1 << 20, "MiB"), (1_000_000, "MB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{} kB", bytes as f64 / 1e3),
    }
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_node_tells_what_was_asked_for() {
        let topology = Topology::load(Path::new("wifi-lte")).unwrap();
        let told = topology.told();
        assert!(told.iter().any(|line| line.contains(" % full") && line.contains("uplink ")), "{told:#?}");
        let nat = Topology::load(Path::new("nat")).unwrap();
        let pc = nat.node("strict-pc").unwrap();
        assert_eq!(pc.asked(), ["behind strict-router", "in strict-home"]);
        assert!(
            Topology::load(Path::new("loopback")).unwrap().nodes.iter().all(|node| node.asked().is_empty())
        );
        let told = nat.told();
        assert!(told.contains(
            &"strict-pc: edge, memory budget 512 MiB, behind strict-router, in strict-home".into()
        ));
        assert!(
            told.contains(&"domain strict-home: site, uplink 20 Mbit/s, downlink 100 Mbit/s".into()),
            "{told:#?}"
        );
        let home = Topology::load(Path::new("home")).unwrap().told();
        assert!(home.iter().any(|line| line.contains(" of a core, 1 GiB of memory")), "{home:#?}");
        assert_eq!(
            (size(780_000), size(64 << 20), size(1_000)),
            ("780 kB".into(), "64 MiB".into(), "1 kB".into())
        );
    }
}

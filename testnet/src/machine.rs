//! The machine that figures come from, described so that two results can be told apart.

use std::fs;

use serde::{Deserialize, Serialize};

/// What matters of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor, as the kernel names it; empty where it does not.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Architecture.
    pub architecture: String,
    /// Processes that wanted a core over the last minute, on average, in hundredths: what else went on.
    pub load_hundredths: u64,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load: f64 =
            text("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
        Self {
            processor: field(&text("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: field(&text("/proc/meminfo"), "MemTotal").and_then(|size| kib(&size)).unwrap_or(0),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            load_hundredths: (load * 100.0) as u64,
        }
    }
}

/// The first value of this name in lines of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn kib(size: &str) -> Option<u64> {
    size.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let here = Machine::here();
        assert!(here.cores > 0 && here.memory_bytes > 0 && !here.kernel.is_empty(), "{here:?}");
        assert_eq!(field("a : b\nmodel name\t: X 9\n", "model name").as_deref(), Some("X 9"));
    }
}

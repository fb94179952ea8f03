//! What the control groups of this process allow it, and those around them: the kernel holds it to the least.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the controllers are mounted, and which group of each this process is in.
pub(super) struct Groups<Read> {
    own: String,
    mounts: String,
    read: Read,
}

impl Groups<fn(&Path) -> Option<String>> {
    pub(super) fn of_this_process() -> Self {
        Self {
            own: fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            mounts: fs::read_to_string("/proc/self/mounts").unwrap_or_default(),
            read: |path| fs::read_to_string(path).ok(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl<Read: Fn(&Path) -> Option<String>> Groups<Read> {
    /// Share of one core that a thread gets.
    pub(super) fn core_share(&self) -> f64 {
        // Version 1 has two files and -1 for none, version 2 one file and `max`.
        let of_group = |folder: &Path, version| match version {
            Version::One => {
                let quota_us = self.number::<f64>(folder, "cpu.cfs_quota_us").filter(|quota| *quota > 0.0)?;
                Some(quota_us / self.number::<f64>(folder, "cpu.cfs_period_us")?)
            }
            Version::Two => {
                let text = (self.read)(&folder.join("cpu.max"))?;
                let (quota_us, period_us) = text.trim().split_once(' ')?;
                Some(quota_us.parse::<f64>().ok()? / period_us.parse::<f64>().ok()?)
            }
        };
        let folders = self.folders("cpu");
        let shares = folders.iter().filter_map(|(folder, version)| of_group(folder, *version));
        // A share that no kernel gives would make all times endless.
        shares.fold(1.0, f64::min).max(0.001)
    }

    /// Most memory that the process may have, bytes, its pages of files counted (which the kernel takes back first); `None`
    /// where nothing limits it.
    pub(super) fn memory_limit_bytes(&self) -> Option<u64> {
        // Version 1 says none by a number that no machine has; version 2 by a word. Beyond `high` it slows a group
        // down until it has given back.
        let limits = self.folders("memory").into_iter().flat_map(|(folder, version)| match version {
            Version::One => [self.number(&folder, "memory.limit_in_bytes"), None],
            Version::Two => ["memory.max", "memory.high"].map(|file| self.number(&folder, file)),
        });
        limits.flatten().filter(|bytes| *bytes < NO_LIMIT_BYTES).min()
    }

    fn number<T: std::str::FromStr>(&self, folder: &Path, file: &str) -> Option<T> {
        (self.read)(&folder.join(file))?.trim().parse().ok()
    }

    /// This process's group of a controller, and all around it, by either version.
    fn folders(&self, controller: &str) -> Vec<(PathBuf, Version)> {
        let mut folders = Vec::new();
        for line in self.mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, point, kind, options, ..] = fields[..] else { continue };
            let version = match kind {
                "cgroup" if options.split(',').any(|option| option == controller) => Version::One,
                "cgroup2" => Version::Two,
                _ => continue,
            };
            let group = self.own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                let is_it = match version {
                    Version::One => controllers.split(',').any(|one| one == controller),
                    Version::Two => controllers.is_empty(),
                };
                parts.next().filter(|_| is_it)
            });
            let folder = Path::new(point).join(group.unwrap_or("/").trim_start_matches('/'));
            let around = folder.ancestors().take_while(|around| around.starts_with(point));
            folders.extend(around.map(|around| (around.to_owned(), version)));
        }
        folders
    }
}

/// What version 1 says where there is no limit: the largest number of whole pages.
const NO_LIMIT_BYTES: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "cgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /c/memory cgroup rw,memory 0 0\n\
                          cgroup2 /c/unified cgroup2 rw 0 0\n";
    const OWN: &str = "4:memory:/outer/inner\n3:cpu,cpuacct:/outer/inner\n0::/mine/here\n";

    fn with(files: &[(&str, &str)]) -> Groups<impl Fn(&Path) -> Option<String>> {
        let read = |path: &Path| {
            let found = files.iter().find(|(file, _)| Path::new(file) == path);
            found.map(|(_, text)| format!("{text}\n"))
        };
        Groups { own: OWN.to_owned(), mounts: MOUNTS.to_owned(), read }
    }

    #[test]
    fn quotas_of_both_versions_are_shares_of_a_core() {
        let share = |files: &[(&str, &str)]| with(files).core_share();
        assert_eq!(share(&[]), 1.0);
        let inner = ("/c/cpu/outer/inner/cpu.cfs_quota_us", "4000");
        let period = ("/c/cpu/outer/inner/cpu.cfs_period_us", "10000");
        assert_eq!(share(&[inner, period]), 0.4);
        assert_eq!(share(&[("/c/cpu/outer/inner/cpu.cfs_quota_us", "-1"), period]), 1.0);
        let outer =
            [("/c/cpu/outer/cpu.cfs_quota_us", "20000"), ("/c/cpu/outer/cpu.cfs_period_us", "100000")];
        assert_eq!(share(&[inner, period, outer[0], outer[1]]), 0.2);
        assert_eq!(share(&[("/c/unified/mine/cpu.max", "50000 100000")]), 0.5);
        assert_eq!(share(&[("/c/unified/mine/cpu.max", "max 100000")]), 1.0);
        assert_eq!(
            share(&[("/c/unified/mine/cpu.max", "400000 100000")]),
            1.0,
            "four cores, but one for a thread"
        );
        assert!((0.001..=1.0).contains(&Groups::of_this_process().core_share()));
    }

    #[test]
    fn the_least_limit_of_memory_around_counts() {
        let limit = |files: &[(&str, &str)]| with(files).memory_limit_bytes();
        assert_eq!(limit(&[]), None);
        let none = ("/c/memory/memory.limit_in_bytes", "9223372036854771712");
        let outer = ("/c/memory/outer/memory.limit_in_bytes", "500000000");
        let inner = ("/c/memory/outer/inner/memory.limit_in_bytes", "800000000");
        assert_eq!(limit(&[none]), None);
        assert_eq!(limit(&[none, inner]), Some(800_000_000));
        assert_eq!(limit(&[none, inner, outer]), Some(500_000_000));
        let other = ("/c/memory/other/memory.limit_in_bytes", "7");
        assert_eq!(limit(&[other]), None);
        let second = ("/c/unified/mine/here/memory.max", "300000000");
        assert_eq!(limit(&[inner, second]), Some(300_000_000));
        assert_eq!(limit(&[("/c/unified/mine/memory.max", "max")]), None);
        assert_eq!(limit(&[second, ("/c/unified/mine/memory.high", "200000000")]), Some(200_000_000));
    }
}

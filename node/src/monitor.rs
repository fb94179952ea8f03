//! What this machine has and how busy it is, read from Linux. Power and batteries come later.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Used where the system does not say: a small board.
const MEMORY_FALLBACK_BYTES: u64 = 512 << 20;

/// Cores that this process may use: affinity and cgroup quota counted.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Share of one core that a thread of this process gets while it computes: below 1 where the quota of its control
/// group, or of one around that, is less than a core. Processor time divided by it is time by the clock.
pub fn core_share() -> f64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    core_share_in(&own, &mounts, |path| fs::read_to_string(path).ok())
}

fn core_share_in(own: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> f64 {
    let number = |folder: &Path, file: &str| read(&folder.join(file))?.trim().parse::<f64>().ok();
    // Version 1 has two files and -1 for none, version 2 one file and `max`.
    let of_first = |folder: &Path| {
        let quota_us = number(folder, "cpu.cfs_quota_us").filter(|quota_us| *quota_us > 0.0)?;
        Some(quota_us / number(folder, "cpu.cfs_period_us")?)
    };
    let of_second = |folder: &Path| {
        let text = read(&folder.join("cpu.max"))?;
        let (quota_us, period_us) = text.trim().split_once(' ')?;
        Some(quota_us.parse::<f64>().ok()? / period_us.parse::<f64>().ok()?)
    };
    let mut share = 1.0_f64;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, point, kind, options, ..] = fields[..] else { continue };
        let is_first = kind == "cgroup" && options.split(',').any(|option| option == "cpu");
        if !is_first && kind != "cgroup2" {
            continue;
        }
        let group = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let is_it = if is_first {
                controllers.split(',').any(|one| one == "cpu")
            } else {
                controllers.is_empty()
            };
            parts.next().filter(|_| is_it)
        });
        let folder = Path::new(point).join(group.unwrap_or("/").trim_start_matches('/'));
        for around in folder.ancestors().take_while(|around| around.starts_with(point)) {
            let limit = if is_first { of_first(around) } else { of_second(around) };
            share = share.min(limit.unwrap_or(1.0));
        }
    }
    // A share that no kernel gives would make all times endless.
    share.max(0.001)
}

/// Memory that partitions may take unless the owner says otherwise: half of what is available now,
/// or half of the cgroup's limit, so that the owner's other programs keep the rest.
pub fn memory_budget_bytes() -> u64 {
    let available = memory_available_bytes();
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    available.min(limit.unwrap_or(u64::MAX)) / 2
}

/// Memory that programs could still take without swapping, bytes.
pub fn memory_available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").ok();
    text.and_then(|text| meminfo_bytes(&text, "MemAvailable:")).unwrap_or(2 * MEMORY_FALLBACK_BYTES)
}

/// Seconds since 1970 by the machine's clock; 0 where it stands before that.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Minutes since midnight by the machine's clock, where the machine is; 0 where the system does not say.
#[allow(unsafe_code)]
pub fn minute_of_day() -> u16 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as libc::time_t;
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the length of the call, which keeps none of them; all of `tm` is
    // numbers and a pointer that may be null, so zeroes are a value of it whether or not it was written to.
    let local = unsafe {
        libc::localtime_r(&now, local.as_mut_ptr());
        local.assume_init()
    };
    u16::try_from(local.tm_hour * 60 + local.tm_min).unwrap_or(0)
}

/// Bytes that are free for this user on the disk of a folder.
///
/// # Errors
/// What the system says.
pub fn disk_free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Tells, from one call to the next, which share of the machine's cores was in use.
#[derive(Debug, Default)]
pub struct Utilisation {
    busy: u64,
    total: u64,
}

impl Utilisation {
    /// Counts from this moment on.
    pub fn since_now() -> Self {
        let mut utilisation = Self::default();
        utilisation.permille();
        utilisation
    }

    /// Share since the last call, in thousandths; 0 where the system does not say.
    pub fn permille(&mut self) -> u16 {
        let Some((busy, total)) = fs::read_to_string("/proc/stat").ok().and_then(|text| cpu_times(&text))
        else {
            return 0;
        };
        let (busy_since, total_since) =
            (busy.saturating_sub(self.busy), total.saturating_sub(self.total).max(1));
        (self.busy, self.total) = (busy, total);
        u16::try_from((busy_since * 1000 / total_since).min(1000)).unwrap_or(1000)
    }
}

/// Busy and total time of all cores together, in ticks.
fn cpu_times(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
    let total: u64 = times.iter().sum();
    // The fourth and fifth are idle and waiting for a disk.
    let idle = times.get(3)? + times.get(4)?;
    Some((total - idle, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_texts_are_read() {
        let meminfo = "MemTotal:       16 kB\nMemAvailable:        8 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable:"), Some(8192));
        assert_eq!(meminfo_bytes(meminfo, "Other:"), None);
        assert_eq!(cpu_times("cpu  10 0 5 80 5 0 0 0 0 0\ncpu0 1"), Some((15, 100)));
        assert_eq!(cpu_times("nothing"), None);
    }

    #[test]
    fn quotas_of_both_versions_are_shares_of_a_core() {
        let mounts = "cgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
        let own = "3:cpu,cpuacct:/outer/inner\n0::/mine\n";
        let with = |files: &[(&str, &str)]| {
            let read = |path: &Path| {
                let found = files.iter().find(|(file, _)| Path::new(file) == path);
                found.map(|(_, text)| format!("{text}\n"))
            };
            core_share_in(own, mounts, read)
        };
        assert_eq!(with(&[]), 1.0);
        let inner = ("/c/cpu/outer/inner/cpu.cfs_quota_us", "4000");
        let period = ("/c/cpu/outer/inner/cpu.cfs_period_us", "10000");
        assert_eq!(with(&[inner, period]), 0.4);
        assert_eq!(with(&[("/c/cpu/outer/inner/cpu.cfs_quota_us", "-1"), period]), 1.0);
        let outer =
            [("/c/cpu/outer/cpu.cfs_quota_us", "20000"), ("/c/cpu/outer/cpu.cfs_period_us", "100000")];
        assert_eq!(with(&[inner, period, outer[0], outer[1]]), 0.2);
        assert_eq!(with(&[("/c/unified/mine/cpu.max", "50000 100000")]), 0.5);
        assert_eq!(with(&[("/c/unified/mine/cpu.max", "max 100000")]), 1.0);
        assert_eq!(
            with(&[("/c/unified/mine/cpu.max", "400000 100000")]),
            1.0,
            "four cores, but one for a thread"
        );
        assert!((0.001..=1.0).contains(&core_share()));
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        assert!(cores() >= 1);
        assert!(memory_budget_bytes() > 0 && memory_available_bytes() > 0);
        assert!(minute_of_day() < 24 * 60);
        assert!(disk_free_bytes(Path::new("/")).is_ok());
        let mut utilisation = Utilisation::default();
        assert!(utilisation.permille() <= 1000);
    }
}

//! What this machine has and how busy it is, read from Linux. Power and batteries come later.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

mod groups;

/// Used where the system does not say: a small board.
const MEMORY_FALLBACK_BYTES: u64 = 512 << 20;
/// What a node takes beside its partitions: 44 MB before the first one, ONNX Runtime's library among it, and what is on
/// its way to and from others. A guess as to the latter.
const PROCESS_BYTES: u64 = 64 << 20;

/// Cores that this process may use: affinity and cgroup quota counted.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Share of one core that a thread of this process gets while it computes: below 1 where the quota of its control
/// group, or of one around that, is less than a core. Processor time divided by it is time by the clock.
pub fn core_share() -> f64 {
    groups::Groups::of_this_process().core_share()
}

/// Memory that partitions may take if the owner says nothing: half of what is available now, or of what the control group
/// of this process, or one around it, may have, so that the owner's other programs keep the rest.
pub fn memory_default_bytes() -> u64 {
    memory_available_bytes().min(memory_limit_bytes()) / 2
}

/// What they may take of so many bytes, whoever wished them: a limit has to leave what the process itself takes, or the
/// kernel ends it.
pub fn memory_budget_bytes(wished: u64) -> u64 {
    budget_within(wished, memory_limit_bytes().min(memory_total_bytes()))
}

fn budget_within(wished: u64, limit: u64) -> u64 {
    wished.min(limit.saturating_sub(PROCESS_BYTES))
}

fn memory_limit_bytes() -> u64 {
    groups::Groups::of_this_process().memory_limit_bytes().unwrap_or(u64::MAX)
}

/// Memory of the machine, bytes.
fn memory_total_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").ok();
    text.and_then(|text| meminfo_bytes(&text, "MemTotal:")).unwrap_or(u64::MAX)
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
    fn a_budget_leaves_the_process_its_own_memory() {
        const GIB: u64 = 1 << 30;
        assert_eq!(budget_within(8 * GIB, u64::MAX), 8 * GIB, "the owner's word");
        assert_eq!(budget_within(8 * GIB, GIB), GIB - PROCESS_BYTES);
        assert_eq!(budget_within(GIB / 4, GIB), GIB / 4);
        assert_eq!(budget_within(GIB, PROCESS_BYTES / 2), 0);
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        assert!(cores() >= 1);
        assert!(memory_default_bytes() > 0 && memory_available_bytes() > 0);
        assert!(minute_of_day() < 24 * 60);
        assert!(disk_free_bytes(Path::new("/")).is_ok());
        let mut utilisation = Utilisation::default();
        assert!(utilisation.permille() <= 1000);
    }
}

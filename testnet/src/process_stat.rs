//! What the kernel says of a process in `/proc/PID/stat`; see proc(5).

use std::fs;

/// Pages of Linux on the machines that this runs on.
const PAGE_BYTES: u64 = 4096;
/// Clock ticks of /proc, the same on all of Linux.
pub(crate) const TICK_US: u64 = 10_000;

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u32,
    /// Processor time so far.
    pub(crate) cpu_us: u64,
    parent: u32,
    /// That of its children which have ended.
    ended_us: u64,
}

/// Of a process; `None` when it is gone.
pub(crate) fn of(pid: u32) -> Option<ProcessStat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Processor time so far of this process and of all that it started, not of what these started in turn, microseconds.
pub(crate) fn of_own_us() -> u64 {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let used = pids.filter_map(|pid: u32| {
        let stat = of(pid)?;
        match pid == own {
            true => Some(stat.cpu_us + stat.ended_us),
            false => (stat.parent == own).then_some(stat.cpu_us),
        }
    });
    used.sum()
}

fn parse(stat: &str) -> Option<ProcessStat> {
    // The name may hold spaces and brackets; what follows its last bracket does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    // Field 3 of the manual, the state, is the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ProcessStat {
        resident_bytes: number(24)? * PAGE_BYTES,
        threads: u32::try_from(number(20)?).ok()?,
        cpu_us: (number(14)? + number(15)?) * TICK_US,
        parent: u32::try_from(number(4)?).ok()?,
        ended_us: (number(16)? + number(17)?) * TICK_US,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_counts_and_goes_on_counting_when_it_has_ended() {
        let before_us = of_own_us();
        let mut busy = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let used_us = || of_own_us() - before_us;
        crate::wait::until("a child's time", std::time::Duration::from_secs(60), || {
            if used_us() >= 5 * TICK_US { Ok(()) } else { Err(format!("{} us", used_us())) }
        })
        .unwrap();
        let living_us = used_us();
        drop(busy.stdin.take());
        busy.wait().unwrap();
        assert!(used_us() >= living_us, "{} of {living_us}", used_us());
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 3 1 20 0 9 0 100 1000000 300 18446744073709551615";
        let read = ProcessStat {
            resident_bytes: 300 * 4096,
            threads: 9,
            cpu_us: 120_000,
            parent: 1,
            ended_us: 40_000,
        };
        assert_eq!(parse(stat), Some(read));
        assert!(parse("42 (a) Z 1").is_none());
        let own = of(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0 && own.threads > 0, "{own:?}");
    }
}

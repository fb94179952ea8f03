//! What the kernel says of a process in `/proc/PID/stat`; see proc(5).

use std::fs;

/// Pages of Linux on the machines that this runs on.
const PAGE_BYTES: u64 = 4096;
/// Clock ticks of /proc, the same on all of Linux.
const TICK_US: u64 = 10_000;

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u32,
    /// Processor time so far.
    pub(crate) cpu_us: u64,
}

/// Of a process; `None` when it is gone.
pub(crate) fn of(pid: u32) -> Option<ProcessStat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 9 0 100 1000000 300 18446744073709551615";
        let read = ProcessStat { resident_bytes: 300 * 4096, threads: 9, cpu_us: 120_000 };
        assert_eq!(parse(stat), Some(read));
        assert!(parse("42 (a) Z 1").is_none());
        let own = of(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0 && own.threads > 0, "{own:?}");
    }
}

//! Memory of a process as the kernel accounts for it, ONNX Runtime's library counted apart.

use std::fs;
use std::io;

use serde::Serialize;

/// Part of the file name of ONNX Runtime's library, whatever its version.
const LIBRARY: &str = "libonnxruntime";

/// Memory of a process. A page that several processes share counts in equal parts for each in the
/// proportional set size, and fully in the resident set size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Proportional set size of all but ONNX Runtime's library.
    pub own_pss_bytes: u64,
    /// Proportional set size of ONNX Runtime's library.
    pub library_pss_bytes: u64,
    /// Resident set size of all but the library: the most it would be with no process to share with.
    pub own_rss_bytes: u64,
    /// Resident set size of the library.
    pub library_rss_bytes: u64,
}

/// Memory of a running process.
///
/// # Errors
/// When it is gone, or not ours to look at.
pub fn of_process(pid: u32) -> io::Result<Memory> {
    Ok(parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?))
}

/// The most that this process ever held at once, bytes; `None` where the kernel does not say.
pub fn own_peak_bytes() -> Option<u64> {
    peak_bytes(std::process::id())
}

/// The most that a process ever held at once, pages of mapped files among it, bytes; `None` where it is gone or the kernel
/// does not say.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Reads `smaps`: a line per mapping (`from-to rights offset device inode path`), then its figures.
fn parse(smaps: &str) -> Memory {
    let mut memory = Memory::default();
    let mut in_library = false;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            in_library = line.rsplit('/').next().is_some_and(|name| name.contains(LIBRARY));
            continue;
        }
        let Some(bytes) = words.next().and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib * 1024) else {
            continue;
        };
        match (first, in_library) {
            ("Pss:", false) => memory.own_pss_bytes += bytes,
            ("Pss:", true) => memory.library_pss_bytes += bytes,
            ("Rss:", false) => memory.own_rss_bytes += bytes,
            ("Rss:", true) => memory.library_rss_bytes += bytes,
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0a000-55d0b000 r-xp 00000000 08:01 131 /opt/stormo
Size:                  8 kB
Rss:                   8 kB
Pss:                   3 kB
Pss_Dirty:             1 kB
VmFlags: rd ex mr mw me
7f12a000-7f12b000 r-xp 00000000 08:01 132 /home/a b/cache/libonnxruntime.so.1.32.0
Rss:                 900 kB
Pss:                 300 kB
7f12b000-7f12c000 rw-p 00000000 00:00 0
Rss:                  16 kB
Pss:                  16 kB
7ffd1000-7ffd2000 rw-p 00000000 00:00 0                          [stack]
Rss:                   4 kB
Pss:                   4 kB
";

    #[test]
    fn counts_the_library_apart() {
        let expected = Memory {
            own_pss_bytes: 23 * 1024,
            library_pss_bytes: 300 * 1024,
            own_rss_bytes: 28 * 1024,
            library_rss_bytes: 900 * 1024,
        };
        assert_eq!(parse(SMAPS), expected);
    }

    #[test]
    fn sees_this_process() {
        let memory = of_process(std::process::id()).unwrap();
        assert!(memory.own_pss_bytes > 0);
        assert_eq!(memory.library_pss_bytes, 0);
    }
}

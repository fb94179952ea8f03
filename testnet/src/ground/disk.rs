//! Disks of a size: memory file systems, mounted where a node keeps its data.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A disk; unmounted and empty with its end.
#[derive(Debug)]
pub(super) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A disk of a size, mounted at a folder that is made.
    pub(super) fn mount(at: PathBuf, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&at)?;
        let options = CString::new(format!("size={bytes},mode=0700")).map_err(io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("stormo-testnet", &at, "tmpfs", flags, &*options)?;
        Ok(Self { at })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached, so that it goes also while something looks at it; the next run would try again.
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Unmounts all that is mounted in a folder, innermost first.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    below.reverse();
    for point in below {
        let _ = unmount(&point, UnmountFlags::DETACH);
    }
}

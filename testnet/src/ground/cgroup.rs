//! Machines of a size: control groups around a node's process alone, so that switch and load are outside.
//!
//! Both versions of cgroups are served. Of version 2 the freezer and the finding of its folder are tested on a kernel; its
//! limits of processor and memory are written after the kernel's documentation (`admin-guide/cgroup-v2.rst`), and tested on
//! paper only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::leftovers;
use crate::signals::{self, Signal};
use crate::wait;

/// Period of a share of a core: short, so that a node with a small share still says in time that it
/// lives.
const PERIOD_US: u64 = 10_000;
/// The kernel gives out no less in a period.
const QUOTA_US_MIN: u64 = 1_000;
/// The kernel takes no longer period.
const PERIOD_US_MAX: u64 = 1_000_000;
/// Until a group is frozen, or empty enough to be removed.
const SETTLED_MAX: Duration = Duration::from_secs(2);

/// What a group controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Freezer,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Freezer => "freezer",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group of one controller.
#[derive(Debug, Clone)]
struct Group {
    path: PathBuf,
    version: Version,
}

impl Group {
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|error| told(&path, &error))
    }

    fn reads(&self, file: &str, wanted: &str) -> bool {
        fs::read_to_string(self.path.join(file)).is_ok_and(|text| text.lines().any(|line| line == wanted))
    }
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The groups of one node. Gone with it, once its process is.
#[derive(Debug)]
pub(super) struct Machine {
    cpu: Option<Group>,
    memory: Option<Group>,
    freezer: Option<Group>,
    /// Whether [`Machine::set_memory`] ended what was in it.
    has_ended_for_memory: AtomicBool,
}

impl Machine {
    /// Groups of this name within those of a run; of those controllers that the machine has.
    pub(super) fn make(run_id: &str, label: &str) -> io::Result<Self> {
        let group = |controller| make_group(controller, run_id, label);
        Ok(Self {
            cpu: group(Controller::Cpu)?,
            memory: group(Controller::Memory)?,
            freezer: group(Controller::Freezer)?,
            has_ended_for_memory: AtomicBool::new(false),
        })
    }

    /// Takes a process in; its children will be in too.
    pub(super) fn take_in(&self, pid: u32) -> io::Result<()> {
        self.groups().try_for_each(|group| group.write("cgroup.procs", &pid.to_string()))
    }

    /// The processes that are in.
    pub(super) fn pids(&self) -> Vec<u32> {
        let group = self.groups().next();
        let listed = group.and_then(|group| fs::read_to_string(group.path.join("cgroup.procs")).ok());
        listed.unwrap_or_default().lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        [&self.cpu, &self.memory, &self.freezer].into_iter().flatten()
    }

    /// Limits it to a share of one core; `None` is all there is.
    pub(super) fn set_cpu(&self, share: Option<f64>) -> io::Result<()> {
        let group = self.cpu.as_ref().ok_or_else(|| missing(Controller::Cpu))?;
        let limit = share.map(quota_and_period_us).transpose()?;
        match (group.version, limit) {
            (Version::One, None) => group.write("cpu.cfs_quota_us", "-1"),
            (Version::One, Some((quota_us, period_us))) => {
                // Without a quota any period goes; with the old one the new period may be refused.
                group.write("cpu.cfs_quota_us", "-1")?;
                group.write("cpu.cfs_period_us", &period_us.to_string())?;
                group.write("cpu.cfs_quota_us", &quota_us.to_string())
            }
            (Version::Two, None) => group.write("cpu.max", "max"),
            (Version::Two, Some((quota_us, period_us))) => {
                group.write("cpu.max", &format!("{quota_us} {period_us}"))
            }
        }
    }

    /// Limits its memory, bytes; `None` is no limit. What holds more already, and cannot do with less, ends:
    /// in version 2 by the kernel. Version 1 refuses such a limit, so that here the testnet ends it as the
    /// kernel would.
    pub(super) fn set_memory(&self, bytes: Option<u64>) -> io::Result<()> {
        let group = self.memory.as_ref().ok_or_else(|| missing(Controller::Memory))?;
        let (file, no_limit) = match group.version {
            Version::One => ("memory.limit_in_bytes", "-1"),
            Version::Two => ("memory.max", "max"),
        };
        let limit = bytes.map_or(no_limit.to_owned(), |bytes| bytes.to_string());
        match group.write(file, &limit) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && group.version == Version::One => {
                self.has_ended_for_memory.store(true, Ordering::Relaxed);
                self.pids().into_iter().for_each(|pid| {
                    // One that is gone meanwhile is what is wanted.
                    let _ = signals::send(pid, Signal::Kill);
                });
                let mut refused = Some(error);
                wait::even_if_interrupted(SETTLED_MAX, || {
                    refused = group.write(file, &limit).err();
                    refused.is_none()
                });
                refused.map_or(Ok(()), Err)
            }
            done => done,
        }
    }

    /// Whether a process of it was ended for want of memory: by the kernel, which counts them, or in its place.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let counted = self.memory.as_ref().is_some_and(|group| {
            let file = match group.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            let text = fs::read_to_string(group.path.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
            count.is_some_and(|count: u64| count > 0)
        });
        counted || self.has_ended_for_memory.load(Ordering::Relaxed)
    }

    /// Whether it can be frozen.
    pub(super) fn has_freezer(&self) -> bool {
        self.freezer.is_some()
    }

    /// Lets all its threads stand still at once, and waits until they do; or lets them go on.
    pub(super) fn set_frozen(&self, is_frozen: bool) -> io::Result<()> {
        let group = self.freezer.as_ref().ok_or_else(|| missing(Controller::Freezer))?;
        let (file, value, shown_in, shown) = match (group.version, is_frozen) {
            (Version::One, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
            (Version::Two, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (Version::Two, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
        };
        group.write(file, value)?;
        let settled = wait::even_if_interrupted(SETTLED_MAX, || group.reads(shown_in, shown));
        if settled { Ok(()) } else { Err(io::Error::other(format!("{file} does not become {shown}"))) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for group in self.groups() {
            // What cannot be removed now, the next run removes.
            let _ = wait::even_if_interrupted(SETTLED_MAX, || leftovers::remove_empty(&group.path));
            let _ = group.path.parent().map(fs::remove_dir);
        }
    }
}

fn missing(controller: Controller) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this machine has no cgroup controller `{}`", controller.name()),
    )
}

/// Microseconds of one core in each period, and the period.
fn quota_and_period_us(share: f64) -> io::Result<(u64, u64)> {
    let least = QUOTA_US_MIN as f64 / PERIOD_US_MAX as f64;
    if !(share >= least && share.is_finite()) {
        return Err(io::Error::other(format!("a share of {share} of a core: at least {least}")));
    }
    let period_us = PERIOD_US.max((QUOTA_US_MIN as f64 / share).ceil() as u64);
    Ok(((period_us as f64 * share).round() as u64, period_us))
}

fn make_group(controller: Controller, run_id: &str, label: &str) -> io::Result<Option<Group>> {
    let Some((parent, version)) = parent_of(controller)? else { return Ok(None) };
    let run = parent.join(run_id);
    let path = run.join(label);
    fs::create_dir_all(&path).map_err(|error| told(&path, &error))?;
    if version == Version::Two {
        // Only what is asked for; the freezer is there always.
        for above in [&parent, &run] {
            if controller != Controller::Freezer {
                let file = above.join("cgroup.subtree_control");
                fs::write(&file, format!("+{}", controller.name())).map_err(|error| told(&file, &error))?;
            }
        }
    }
    Ok(Some(Group { path, version }))
}

/// Where groups of a run are made: within this process's own group, so that what limits it limits
/// them; in version 2 at the root, since there a group with processes can have no others below it.
fn parent_of(controller: Controller) -> io::Result<Option<(PathBuf, Version)>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    Ok(found(
        controller,
        &mounts,
        &own,
        |path| path.is_dir(),
        |file| fs::read_to_string(file).unwrap_or_default(),
    ))
}

fn found(
    controller: Controller,
    mounts: &str,
    own: &str,
    is_there: impl Fn(&Path) -> bool,
    read: impl Fn(&Path) -> String,
) -> Option<(PathBuf, Version)> {
    let name = controller.name();
    for (point, kind, options) in leftovers::mounts(mounts) {
        if kind == "cgroup" && options.split(',').any(|option| option == name) {
            let own = own.lines().filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers.split(',').any(|one| one == name).then(|| parts.next()).flatten()
            });
            let within = own.map(|path| point.join(path.trim_start_matches('/'))).find(|path| is_there(path));
            return Some((within.unwrap_or(point), Version::One));
        }
    }
    leftovers::mounts(mounts).find_map(|(point, kind, _)| {
        let has = || read(&point.join("cgroup.controllers")).split_whitespace().any(|one| one == name);
        let serves = kind == "cgroup2" && (controller == Controller::Freezer || has());
        serves.then_some((point, Version::Two))
    })
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;
    use crate::folder::RunFolder;
    use crate::{process_stat, trial};

    #[test]
    fn shares_become_quotas_of_short_periods() {
        assert_eq!(quota_and_period_us(1.5).unwrap(), (15_000, 10_000));
        assert_eq!(quota_and_period_us(0.1).unwrap(), (1_000, 10_000));
        assert_eq!(quota_and_period_us(0.05).unwrap(), (1_000, 20_000));
        assert!(
            [0.0, -1.0, f64::NAN, f64::INFINITY, 0.0001]
                .into_iter()
                .all(|share| quota_and_period_us(share).is_err())
        );
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let one = "cgroup /c/cpu cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
        let own = "3:cpu,cpuacct:/mine\n0::/\n";
        let nothing = |_: &Path| String::new();
        let cpu = found(Controller::Cpu, one, own, |_| true, nothing);
        assert_eq!(cpu, Some((PathBuf::from("/c/cpu/mine"), Version::One)));
        let cpu = found(Controller::Cpu, one, own, |_| false, nothing);
        assert_eq!(cpu, Some((PathBuf::from("/c/cpu"), Version::One)), "seen from within a container");
        let freezer = found(Controller::Freezer, one, own, |_| true, nothing);
        assert_eq!(freezer, Some((PathBuf::from("/c/unified"), Version::Two)));
        assert_eq!(found(Controller::Memory, one, own, |_| true, nothing), None);
        let two = "cgroup2 /c cgroup2 rw 0 0\n";
        let memory =
            found(Controller::Memory, two, "0::/user\n", |_| true, |_| "cpu memory pids\n".to_owned());
        assert_eq!(memory, Some((PathBuf::from("/c"), Version::Two)));
    }

    #[test]
    fn what_holds_more_memory_than_it_is_left_ends() {
        let folder = RunFolder::create().unwrap();
        if !rustix::process::geteuid().is_root() {
            trial::skipped("a limit of memory: it takes root");
            return;
        }
        let machine = Machine::make(folder.run_id(), "one").unwrap();
        if machine.memory.is_none() {
            trial::skipped("a limit of memory: this machine has no such controller");
            return;
        }
        // It waits to be taken in, then holds 64 MiB, says so and stays.
        let script = "read go; held=$(head -c 67108864 /dev/zero | tr '\\0' x); echo held; read end";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut holder = Busy(command.spawn().unwrap());
        machine.take_in(holder.0.id()).unwrap();
        io::Write::write_all(holder.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
        let mut said = [0; 5];
        io::Read::read_exact(holder.0.stdout.as_mut().unwrap(), &mut said).unwrap();
        machine.set_memory(Some(1 << 30)).unwrap();
        assert!(holder.0.try_wait().unwrap().is_none() && !machine.was_out_of_memory());
        machine.set_memory(Some(32 << 20)).unwrap();
        let ended =
            wait::even_if_interrupted(Duration::from_secs(20), || holder.0.try_wait().unwrap().is_some());
        assert!(ended && machine.was_out_of_memory());
        assert!(!holder.0.wait().unwrap().success());
    }

    /// A process that takes all of a core it gets.
    struct Busy(std::process::Child);

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Written to a plain folder: that the kernel takes them as they are is said by its documentation alone.
    #[test]
    fn the_second_version_is_told_its_limits_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let group = || Some(Group { path: folder.path().to_owned(), version: Version::Two });
        let has_ended_for_memory = AtomicBool::new(false);
        // There is no group to remove.
        let machine =
            ManuallyDrop::new(Machine { cpu: group(), memory: group(), freezer: None, has_ended_for_memory });
        let written = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        for (share, limit) in [(Some(0.25), "2500 10000"), (Some(1.0), "10000 10000"), (None, "max")] {
            machine.set_cpu(share).unwrap();
            assert_eq!(written("cpu.max"), limit);
        }
        for (bytes, limit) in [(Some(64 << 20), "67108864"), (None, "max")] {
            machine.set_memory(bytes).unwrap();
            assert_eq!(written("memory.max"), limit);
        }
        for (events, was_out) in [("low 0\noom 3\noom_kill 0\n", false), ("oom 3\noom_kill 1\n", true)] {
            fs::write(folder.path().join("memory.events"), events).unwrap();
            assert_eq!(machine.was_out_of_memory(), was_out);
        }
    }

    #[test]
    fn the_second_version_freezes_a_process_and_lets_it_go_on() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let second = leftovers::mounts(&mounts).find(|(_, kind, _)| *kind == "cgroup2");
        let Some((point, ..)) = second.filter(|_| rustix::process::geteuid().is_root()) else {
            trial::skipped("the second version's freezer: it takes root, and a mount of cgroup2");
            return;
        };
        let folder = RunFolder::create().unwrap();
        let path = point.join(folder.run_id()).join("one");
        fs::create_dir_all(&path).unwrap();
        let freezer = Some(Group { path, version: Version::Two });
        let machine =
            Machine { cpu: None, memory: None, freezer, has_ended_for_memory: AtomicBool::new(false) };
        let busy =
            Busy(std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
        machine.take_in(busy.0.id()).unwrap();
        assert_eq!(machine.pids(), [busy.0.id()]);
        let cpu_us = || process_stat::of(busy.0.id()).unwrap().cpu_us;
        let grows = |from_us: u64| wait::even_if_interrupted(Duration::from_secs(20), || cpu_us() > from_us);
        assert!(grows(cpu_us()));
        machine.set_frozen(true).unwrap();
        let frozen_us = cpu_us();
        assert!(!wait::even_if_interrupted(Duration::from_millis(300), || cpu_us() > frozen_us));
        machine.set_frozen(false).unwrap();
        assert!(grows(frozen_us));
        drop(busy);
    }
}

//! A command and all that it starts, as one process group that does not outlive this process, however that ends.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait;

/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Reads a line that tells that the group has ended. Without one whoever should have written it is gone. A signal at the
/// death of the parent would reach the command alone, and not what that has started.
const WATCH: &str = "read ended || kill -s KILL -- \"-$0\"";

/// The group; killed with its owner, or when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnGroup {
    leader: Child,
    /// Ends the group when its own input does, since this process is gone.
    watcher: Child,
    has_ended: bool,
}

impl OwnGroup {
    /// Starts a command as a group of its own, which reads nothing. The terminal's Ctrl-C is for the owner.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut leader = command.process_group(0).stdin(Stdio::null()).spawn()?;
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, &leader.id().to_string()]).process_group(0);
        let watch = watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        match watch.spawn() {
            Ok(watcher) => Ok(Self { leader, watcher, has_ended: false }),
            Err(error) => {
                kill(&mut leader);
                Err(error)
            }
        }
    }

    /// What it prints, if that was asked for and not taken yet.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.leader.stdout.take()
    }

    /// Waits for the command's end; `None` on Ctrl-C, after which dropping it ends the group.
    pub(crate) fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.leader.try_wait()? {
                self.has_ended = true;
                return Ok(Some(status));
            }
            if !wait::until_instant(Instant::now() + LOOK, || false) {
                return Ok(None);
            }
        }
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        if !self.has_ended {
            kill(&mut self.leader);
        }
        if let Some(mut watched) = self.watcher.stdin.take() {
            // One that is gone needs no telling.
            let _ = watched.write_all(b"\n");
        }
        let _ = self.watcher.wait();
    }
}

/// Kills the group of a child that was not waited for.
fn kill(leader: &mut Child) {
    if let Some(group) = i32::try_from(leader.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = leader.wait();
}

//! A node's process: started where its node is, frozen and ended in the way of that place.

use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::Ground;
use super::cgroup::Machine;
use super::network::{API_PORT, NODE_PORT};
use crate::signals::{self, Signal};

/// A process that was told to stand still does so within this time, or is not waited for.
const STILL_WITHIN: Duration = Duration::from_secs(1);

/// Where a node's process is to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) label: &'a str,
}

impl Place<'_> {
    /// Where its APIs and its listener for other nodes shall be, as options. No way leads to the API over gRPC of a
    /// node in a network of its own.
    pub(crate) fn options(&self) -> io::Result<[String; 6]> {
        let (api, grpc, listen) = match self.ground.emulated() {
            None => ("127.0.0.1:0".to_owned(), "127.0.0.1:0", "/ip4/127.0.0.1/tcp/0".to_owned()),
            Some(emulated) => {
                let address = emulated.network.address(self.label)?;
                (format!("127.0.0.1:{API_PORT}"), "off", format!("/ip4/{address}/tcp/{NODE_PORT}"))
            }
        };
        Ok(["--api".to_owned(), api, "--grpc".to_owned(), grpc.to_owned(), "--listen".to_owned(), listen])
    }

    /// The API's address for us, if it is not where the node says.
    pub(crate) fn api(&self) -> io::Result<Option<String>> {
        let emulated = self.ground.emulated();
        emulated.map(|emulated| Ok(format!("http://{}", emulated.network.api(self.label)?))).transpose()
    }

    /// Starts a process there.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<OwnChild> {
        let Some(emulated) = self.ground.emulated() else {
            return Ok(OwnChild { child: command.spawn()?, machine: None });
        };
        let machine = emulated.machine(self.label)?.clone();
        let child = emulated.network.at(self.label, || command.spawn())??;
        let child = OwnChild { child, machine: Some(machine.clone()) };
        machine.take_in(child.child.id())?;
        Ok(child)
    }
}

/// A child that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct OwnChild {
    child: Child,
    machine: Option<Arc<Machine>>,
}

impl OwnChild {
    /// Its number, its own until it was waited for.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        // One that stands still in the first version's freezer would not even be killed.
        if let Some(machine) = self.freezer() {
            machine.set_frozen(false)?;
        }
        self.child.wait()
    }

    /// Lets it stand still.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        match self.freezer() {
            Some(machine) => machine.set_frozen(true),
            None => {
                signals::send(self.id(), Signal::Freeze)?;
                wait_until_still(self.id());
                Ok(())
            }
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self.freezer() {
            Some(machine) => machine.set_frozen(false),
            None => signals::send(self.id(), Signal::Thaw),
        }
    }

    fn freezer(&self) -> Option<&Machine> {
        self.machine.as_deref().filter(|machine| machine.has_freezer())
    }
}

/// A signal stops a process's threads one after the other; on a busy machine one of them may answer for a moment more.
fn wait_until_still(process: u32) {
    let moves = |stat: &str| {
        // After the name in brackets, which may hold anything.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        !matches!(state, Some('T' | 't' | 'Z' | 'X'))
    };
    let deadline = Instant::now() + STILL_WITHIN;
    while Instant::now() < deadline {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return };
        let stats = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        if !stats.into_iter().any(|stat| moves(&stat)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Ok(None) = self.ended() {
            let _ = self.kill();
        }
    }
}

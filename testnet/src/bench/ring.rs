//! A ring of bare libp2p streams over as many processes as a chain has hops: each round moves the bytes
//! of each hop from one process to the next, as one request does.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Processes that wait for a round. They end when this is dropped.
pub(super) struct Ring {
    members: Vec<Member>,
}

struct Member {
    // Before the process: closing its input ends it.
    orders: Option<ChildStdin>,
    told: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Ring {
    /// Starts a process for each hop and lets them meet. The hops' bytes are in their order.
    ///
    /// # Errors
    /// When a process does not start or does not meet the others.
    pub(super) fn start(hops_bytes: &[u64]) -> Result<Self> {
        ensure!(hops_bytes.len() > 1, "a ring has two processes or more");
        let before = hops_bytes.iter().cycle().skip(hops_bytes.len() - 1);
        let members = before.zip(hops_bytes).enumerate();
        let are_two = hops_bytes.len() == 2;
        let role = |index| match index {
            0 => Some("--begins"),
            1 if are_two => Some("--waits"),
            _ => None,
        };
        let members = members.map(|(index, (takes, gives))| Member::start(*takes, *gives, role(index)));
        let mut ring = Self { members: members.collect::<Result<_>>()? };
        let addresses = ring.members.iter_mut().map(Member::hear).collect::<Result<Vec<_>>>()?;
        for (member, next) in ring.members.iter_mut().zip(addresses.iter().cycle().skip(1)) {
            member.say(next)?;
        }
        for member in &mut ring.members {
            let line = member.hear()?;
            ensure!(line == "ready", "a process of bare streams says {line}");
        }
        Ok(ring)
    }

    /// One round: from the first byte given to the last byte back at the first process.
    ///
    /// # Errors
    /// When a process broke down.
    pub(super) fn round(&mut self) -> Result<Duration> {
        let first = self.members.first_mut().context("it has members")?;
        first.say("go")?;
        Ok(Duration::from_micros(first.hear()?.parse()?))
    }
}

impl Member {
    fn start(takes: u64, gives: u64, role: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare-streams", "--takes", &takes.to_string(), "--gives", &gives.to_string()]);
        command.args(role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, told) = child.stdin.take().zip(child.stdout.take()).context("its pipes are there")?;
        Ok(Self { orders: Some(orders), told: BufReader::new(told).lines(), child })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("its input is open")?;
        Ok(writeln!(orders, "{line}")?)
    }

    fn hear(&mut self) -> Result<String> {
        Ok(self.told.next().context("a process of bare streams ended")??)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.orders = None;
        // It ends with its input; should it hang all the same, it is not left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

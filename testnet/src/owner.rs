//! Names of what a run makes on this machine (folders, cgroups, mounts): each says which process owns
//! it, so that what a killed run left behind is told from what a running one uses.

use std::fs;

/// Then come the number of the owner, the time of its start and something that nobody else has.
pub(crate) const PREFIX: &str = "stormo-testnet-";
/// Environment of every process of a run, and of what these start: the name of the run's folder.
pub(crate) const RUN_VARIABLE: &str = "STORMO_TESTNET_RUN";

/// A process, told from a later one of the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// Ticks of the system's clock from its start.
    started: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or(0) }
    }

    /// The begin of the names of what it owns.
    pub(crate) fn prefix(&self) -> String {
        format!("{PREFIX}{}-{}-", self.pid, self.started)
    }

    /// Whose something of this name is; `None` for names that no run gives.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
        let owner = Self { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? };
        parts.next().map(|_| owner)
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// When a process started; `None` when there is none of this number, or it has ended and only its parent has not
/// asked how.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, whatever that holds; the start is the 22nd.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let has_ended = matches!(fields.next()?, "Z" | "X");
    if has_ended { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_reaped_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let owner = Owner { pid: child.id(), started: started(child.id()).unwrap() };
        assert!(owner.is_alive());
        child.kill().unwrap();
        let is_gone = || !owner.is_alive();
        let was_gone = crate::wait::even_if_interrupted(std::time::Duration::from_secs(20), is_gone);
        child.wait().unwrap();
        assert!(was_gone);
    }

    #[test]
    fn names_tell_their_owner() {
        let this = Owner::this();
        assert!(this.is_alive());
        assert_eq!(Owner::of(&format!("{}abc", this.prefix())), Some(this));
        let other = Owner { started: this.started + 1, ..this };
        assert!(!other.is_alive(), "another process had this number before");
        for name in ["stormo-testnet-kept-1-2-abc", "stormo-testnet-1", "stormo-testnet-1-2", "other-1-2-abc"]
        {
            assert_eq!(Owner::of(name), None, "{name}");
        }
    }
}

//! What builds the node ends with the testnet, and so does what that has started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use stormo_testnet::wait;

const LONG: Duration = Duration::from_secs(120);
/// Stands for cargo, and for a compiler that it has started: tells their numbers and works for longer than any test.
const CARGO: &str =
    "#!/bin/sh\nsleep 1000 &\necho $$ $! > \"$NUMBERS.new\"\nmv \"$NUMBERS.new\" \"$NUMBERS\"\nwait\n";

/// A `cargo mesh up` that builds.
struct Building {
    testnet: Child,
    builders: Vec<String>,
}

impl Building {
    fn begin(folder: &Path) -> Result<Self> {
        let (cargo, numbers) = (folder.join("cargo"), folder.join("numbers"));
        fs::write(&cargo, CARGO)?;
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormo-testnet"));
        command.args(["up", "loopback"]).env("CARGO", cargo).env("NUMBERS", &numbers);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut building = Self { testnet: command.spawn()?, builders: Vec::new() };
        building.builders = wait::until("the build", LONG, || {
            let numbers = fs::read_to_string(&numbers).map_err(|error| error.to_string())?;
            Ok(numbers.split_whitespace().map(str::to_owned).collect())
        })?;
        ensure!(building.builders.len() == 2 && building.builders.iter().all(|pid| runs(pid)), "they run");
        Ok(building)
    }

    fn wait_for_their_end(&self) -> Result<()> {
        wait::until("cargo and its compiler to end", LONG, || {
            let left: Vec<&String> = self.builders.iter().filter(|pid| runs(pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
        })?;
        Ok(())
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        let _ = self.testnet.kill();
        let _ = self.testnet.wait();
        let left = self.builders.iter().filter(|pid| runs(pid));
        left.for_each(|pid| {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        });
    }
}

/// Whether a process is there and has not ended, waited for or not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, after_name)| !after_name.starts_with(['Z', 'X']))
}

#[test]
fn what_builds_ends_with_a_killed_testnet() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut building = Building::begin(folder.path())?;
    building.testnet.kill()?;
    building.wait_for_their_end()
}

#[test]
fn what_builds_ends_when_the_testnet_is_told_to() -> Result<()> {
    for signal in ["-INT", "-TERM"] {
        let folder = tempfile::tempdir()?;
        let mut building = Building::begin(folder.path())?;
        let pid = building.testnet.id().to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "kill {signal}");
        let code = building.testnet.wait()?.code();
        ensure!(code == Some(130), "{signal}: exit code {code:?}");
        building.wait_for_their_end()?;
    }
    Ok(())
}

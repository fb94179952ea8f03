//! What a run makes on this machine goes with it: at its end, after SIGTERM, and after kill -9 with the
//! next start. As root; otherwise left out.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_testnet::commands::Progress;
use stormo_testnet::folder::RunFolder;
use stormo_testnet::ground::{leftovers, network};
use stormo_testnet::{trial, wait};

const TOPOLOGY: &str = "about = \"a test\"\n[links]\nlatency = \"1 ms\"\n\
    [[node]]\nlabel = \"one\"\nclass = \"edge\"\nmemory_budget = \"64 MiB\"\ncpu = 0.5\nmemory = \"1 GiB\"\ndisk = \"64 MiB\"\n\
    [[node]]\nlabel = \"two\"\nclass = \"edge\"\nmemory_budget = \"64 MiB\"\n";
const TESTNET: &str = env!("CARGO_BIN_EXE_stormo-testnet");
const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_node_whose_owner_ended_before_it_began_does_not_begin() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stormo = trial::stormo()?;
    stormo.init(folder.path())?;
    let mut owner = Command::new("true").spawn()?;
    owner.wait()?;
    let options =
        ["node", "--api", "127.0.0.1:0", "--grpc", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data"];
    let mut words = trial::arguments(&options);
    words.push(folder.path().into());
    words.push(format!("--die-with-parent={}", owner.id()).into());
    let ran = stormo.run(&words, Progress::Kept, LONG)?;
    let is_told = ran.stderr.contains("has ended");
    ensure!(ran.status.code() == Some(1) && is_told, "{}: {}", ran.status, ran.stderr);
    Ok(())
}

/// A `cargo mesh up` that is up.
struct Up(Child);

impl Up {
    fn start(topology: &Path) -> Result<Self> {
        Self::start_by(Command::new(TESTNET), topology)
    }

    /// By a command that ends in the testnet's own, or becomes it.
    fn start_by(mut command: Command, topology: &Path) -> Result<Self> {
        command.arg("up").arg(topology).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut up = Self(command.spawn()?);
        let mut lines = BufReader::new(up.0.stdout.take().context("it was asked for")?).lines();
        let is_up = lines.any(|line| line.is_ok_and(|line| line.contains("Ctrl-C ends all of them")));
        ensure!(is_up, "it ended before it was up");
        Ok(up)
    }

    /// What it made: control groups, mounts, folders, processes of nodes.
    fn made(&self) -> Result<Vec<PathBuf>> {
        made(&format!("stormo-testnet-{}-", self.0.id()), &std::env::temp_dir())
    }
}

/// What has names that begin so.
fn made(name: &str, temporary: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points: Vec<PathBuf> =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect();
    let mut found: Vec<PathBuf> =
        points.iter().filter(|point| point.to_string_lossy().contains(name)).cloned().collect();
    points
        .iter()
        .filter(|point| point.starts_with("/sys/fs/cgroup"))
        .for_each(|point| look(point, name, &mut found));
    look(temporary, name, &mut found);
    for process in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        found.extend(String::from_utf8_lossy(&line).contains(name).then(|| process.path()));
    }
    Ok(found)
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Folders of which the name begins so, not those below them.
fn look(within: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(name) {
            found.push(entry.path());
        } else if within.starts_with("/sys/fs/cgroup") && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(&entry.path(), name, found);
        }
    }
}

#[test]
fn nothing_is_left_of_runs_that_are_told_to_end_or_killed() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("what emulated meshes leave: {why}"));
        return Ok(());
    }
    let _turn = trial::turn()?;
    let folder = tempfile::tempdir()?;
    let topology = folder.path().join("two.toml");
    fs::write(&topology, TOPOLOGY)?;

    let mut told = Up::start(&topology)?;
    ensure!(told.made()?.len() > 3, "it should have made something: {:?}", told.made()?);
    let pid = told.0.id().to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    let code = wait::until("it to end", LONG, || match told.0.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        _ => Err("it runs".to_owned()),
    })?;
    ensure!(code == Some(0), "a mesh that was up and left as told is no failure: {code:?}");
    let left = told.made()?;
    ensure!(left.is_empty(), "left after SIGTERM: {left:?}");

    let mut killed = Up::start(&topology)?;
    let groups = killed.made()?;
    // The worst case: a frozen process does not notice that its owner is gone.
    for group in groups.iter().filter(|path| path.join("one/freezer.state").exists()) {
        fs::write(group.join("one/freezer.state"), "FROZEN")?;
    }
    killed.0.kill()?;
    killed.0.wait()?;
    ensure!(!killed.made()?.is_empty(), "a killed run cannot clean");
    let alive = RunFolder::create()?;
    leftovers::clean();
    // Processes that were killed take a moment to be gone.
    wait::until("all of it to be gone", LONG, || {
        let left = killed.made().map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })?;
    ensure!(alive.path().is_dir(), "what a running process owns was removed");
    Ok(())
}

#[test]
fn runs_of_other_namespaces_and_places_are_told_by_their_locks() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("what emulated meshes in other namespaces leave: {why}"));
        return Ok(());
    }
    let is_there = |command: &str| Command::new(command).arg("--version").stdout(Stdio::null()).status();
    if is_there("unshare").is_err() {
        trial::skipped("what meshes in other namespaces leave: it takes `unshare` (Debian: util-linux)");
        return Ok(());
    }
    let _turn = trial::turn()?;
    // Both: numbers of processes that mean nothing here, and temporary files where nobody looks.
    let elsewhere = tempfile::tempdir()?;
    let topology = elsewhere.path().join("two.toml");
    fs::write(&topology, TOPOLOGY)?;
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(TESTNET);
    command.env("TMPDIR", elsewhere.path());
    let mut up = Up::start_by(command, &topology)?;
    let name = fs::read_dir(elsewhere.path())?.flatten().map(|entry| entry.file_name());
    let mut names =
        name.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("stormo-testnet-"));
    let name = names.next().context("it has a folder there")?;
    let groups = made(&name, elsewhere.path())?;
    ensure!(groups.len() > 3, "it should have made something: {groups:?}");

    leftovers::clean();
    ensure!(made(&name, elsewhere.path())? == groups, "what a living run uses was removed");
    ensure!(up.0.try_wait()?.is_none(), "a living run was ended");

    for group in groups.iter().filter(|path| path.join("one/freezer.state").exists()) {
        fs::write(group.join("one/freezer.state"), "FROZEN")?;
    }
    up.0.kill()?;
    up.0.wait()?;
    wait::until("all of it to be gone", LONG, || {
        leftovers::clean();
        let left = made(&name, elsewhere.path()).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })?;
    Ok(())
}

//! `stormo top` in a real terminal: what it draws, and that it gives the terminal back.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::commands::Progress;
use stormo_testnet::surroundings;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::wait;

const ENTERS_SCREEN: &str = "\x1b[?1049h";
const LEAVES_SCREEN: &str = "\x1b[?1049l";

/// A program in a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// `None` without a Python that makes terminals.
    fn run(program: &[&str]) -> Result<Option<Self>> {
        let Some(python) = surroundings::python_with("pty") else { return Ok(None) };
        let mut command = Command::new(python);
        command.arg(workspace_root().join("testnet/tests/clients/terminal.py")).args(program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let keys = child.stdin.take().context("its keys")?;
        let mut screen = child.stdout.take().context("its screen")?;
        let shown = Arc::new(Mutex::new(String::new()));
        let told = shown.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..length]).into_owned();
                told.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Some(Self { child, keys, shown }))
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        wait::until(&format!("`{text}` on the screen"), SOON, || {
            let shown = self.shown();
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        })?;
        Ok(())
    }

    fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.keys.write_all(keys)?;
        Ok(self.keys.flush()?)
    }

    /// Waits for its end; the terminal must be as before.
    fn end(mut self) -> Result<String> {
        let status = wait::until("its end", SOON, || {
            self.child.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned())
        })?;
        let shown = self.shown();
        ensure!(status.code() == Some(0), "it ended with {status}: {shown}");
        Ok(shown)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal goes with it, and the program with the terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_draws_goes_on_without_the_node_and_gives_the_terminal_back() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let api = mesh.node("two").client.base().to_owned();
        let binary = mesh.stormo().binary.to_string_lossy().into_owned();
        let top = [binary.as_str(), "top", "--api", &api];
        let Some(mut terminal) = Terminal::run(&top)? else {
            trial::skipped("no Python that makes terminals (module pty)");
            return Ok(());
        };
        for text in [ENTERS_SCREEN, "stormo top,", "MEMORY", "one", "two", "EVENTS"] {
            terminal.wait_for(text)?;
        }
        terminal.press(b"h")?;
        // The frame around the help: words may be drawn in pieces.
        terminal.wait_for("┌")?;
        terminal.press(b"h")?;
        mesh.node_mut("two").kill()?;
        terminal.wait_for("trying on")?;
        terminal.press(b"q")?;
        let shown = terminal.end()?;
        ensure!(shown.contains(LEAVES_SCREEN), "{shown}");
        // The same by Ctrl-C, which a terminal in raw mode gives as a key.
        let api = mesh.node("one").client.base().to_owned();
        let mut terminal = Terminal::run(&[&binary, "top", "--api", &api])?.context("a terminal")?;
        terminal.wait_for("stormo top,")?;
        terminal.press(b"\x03")?;
        ensure!(terminal.end()?.contains(LEAVES_SCREEN), "the screen was not given back");
        Ok(())
    })
}

#[test]
fn without_a_terminal_or_a_node_it_says_what_to_do() -> Result<()> {
    let stormo = trial::stormo()?;
    let ran = stormo.run(&arguments(&["top"]), Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.status.code() == Some(1) && ran.stderr.contains("stormo status"), "{}", ran.stderr);
    let binary = stormo.binary.to_string_lossy().into_owned();
    let Some(mut terminal) = Terminal::run(&[&binary, "top", "--api", "127.0.0.1:9"])? else {
        trial::skipped("no Python that makes terminals (module pty)");
        return Ok(());
    };
    terminal.wait_for("no node answers")?;
    ensure!(!terminal.shown().contains(ENTERS_SCREEN), "it took the screen");
    let status = wait::until("its end", SOON, || {
        terminal.child.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned())
    })?;
    ensure!(status.code() == Some(1), "{status}");
    Ok(())
}

#[test]
fn it_ends_with_its_terminal() -> Result<()> {
    let Some(python) = surroundings::python_with("pty") else {
        trial::skipped("a terminal that goes away: no Python that makes terminals");
        return Ok(());
    };
    trial::run(&[edge("one")], |mesh| {
        let binary = mesh.stormo().binary.clone();
        let mut command = Command::new(&python);
        command.arg(workspace_root().join("testnet/tests/clients/terminal_gone.py")).arg(binary);
        let status = command.args(["top", "--api", mesh.node("one").client.base()]).status()?;
        ensure!(status.success(), "it went on without a terminal");
        Ok(())
    })
}

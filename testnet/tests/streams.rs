//! `stormo stream`: frames of a folder, of a folder that fills, of standard input; in order or the newest; and what
//! becomes of them when a host is lost or a frame is none.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::digits::{self, Image};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, asker, edge};
use stormo_testnet::wait;

#[test]
fn frames_are_answered_in_order_wherever_they_come_from() -> Result<()> {
    trial::run(&[asker("asks"), edge("one"), edge("two")], |mesh| {
        deploy(mesh, &["--parts", "2", "--replicas", "1"])?;
        let images = digits::load()?;
        of_a_folder(mesh, &images)?;
        of_standard_input(mesh, &images)?;
        of_raw_pixels(mesh, &images)?;
        of_a_folder_that_fills(mesh, &images)?;
        the_newest(mesh)?;
        nobody_reads_on(mesh)?;
        what_is_no_frame(mesh, &images)
    })
}

#[test]
fn every_frame_is_answered_though_a_host_is_lost() -> Result<()> {
    trial::run(&[asker("asks"), edge("one"), edge("two")], |mesh| {
        deploy(mesh, &["--replicas", "2"])?;
        let count = digits::load()?.len();
        let mut stream = Stream::of(mesh, &folder(), &["--times", "0", "--fps", "200"])?;
        let told = |line: &Value, what: &str| {
            line["answer"]["parameters"][what].as_str().map(str::to_owned).context("it tells by whom")
        };
        let mut frame = 3 * count as u64;
        let lines: Vec<Value> = (0..frame).map(|frame| stream.answer(frame)).collect::<Result<_>>()?;
        let last = lines.last().context("frames were answered")?;
        let (used, plan) = (told(last, "nodes")?, told(last, "plan_id")?);
        // The image may be decoded where it entered.
        let victim =
            ["one", "two"].into_iter().find(|label| used.contains(&mesh.node(label).id().to_string()));
        let victim = victim.with_context(|| format!("nothing of `{used}` is a host"))?;
        mesh.kill(victim)?;
        loop {
            let line = stream.answer(frame)?;
            if told(&line, "nodes")? != used && told(&line, "plan_id")? != plan {
                break;
            }
            ensure!(frame < 10_000, "plans do not leave who is lost: {line}");
            frame += 1;
        }
        stream.interrupt()?;
        let (status, summary) = stream.end()?;
        ensure!(status.success() && summary["failed"] == 0, "{status}: {summary}");
        ensure!(summary["plan_changes"].as_u64() >= Some(1), "{summary}");
        Ok(())
    })
}

fn deploy(mesh: &Mesh, options: &[&str]) -> Result<()> {
    let card = workspace_root().join("testnet/models/digits.toml").to_string_lossy().into_owned();
    let options = [&["--card", &card], options].concat();
    trial::deploy(mesh, "asks", "digits", &digits::model(), &options)?;
    Ok(())
}

fn folder() -> String {
    digits::folder().to_string_lossy().into_owned()
}

fn of_a_folder(mesh: &Mesh, images: &[Image]) -> Result<()> {
    let mut stream = Stream::of(mesh, &folder(), &["--times", "3"])?;
    for frame in 0..3 * images.len() {
        let line = stream.answer(frame as u64)?;
        let image = &images[frame % images.len()];
        ensure!(line["source"] == image.name.as_str(), "{line}");
        reads(mesh, &line, &digits::folder().join(&image.name))?;
    }
    let (status, summary) = stream.end()?;
    ensure!(status.success() && summary["answered"] == 3 * images.len(), "{status}: {summary}");
    ensure!(summary["dropped"] == 0 && summary["outrun"] == 0 && summary["failed"] == 0, "{summary}");
    let answered = mesh.stormo().run(
        &arguments(&["stream", "digits", &folder(), "--api", mesh.node("asks").client.base()]),
        Progress::Kept,
        COMMAND_MAX,
    )?;
    let lines = answered.stdout.lines().count();
    ensure!(answered.status.success() && lines == images.len(), "{}{}", answered.stdout, answered.stderr);
    ensure!(answered.stderr.contains(" a second; latency "), "{}", answered.stderr);
    Ok(())
}

/// The answer is that of the same image alone.
fn reads(mesh: &Mesh, line: &Value, image: &Path) -> Result<()> {
    let words =
        [arguments(&["infer", "digits", "--api", mesh.node("asks").client.base()]), vec![image.into()]]
            .concat();
    let alone: Value = mesh.stormo().json(&words, Progress::Kept, COMMAND_MAX)?;
    let meaning = |answer: &Value| -> Result<Value> {
        Ok(serde_json::from_str(answer["outputs"][0]["data"][0].as_str().context("a meaning")?)?)
    };
    let (got, wanted) = (meaning(&line["answer"])?, meaning(&alone)?);
    ensure!(got["found"][0]["index"] == wanted["found"][0]["index"], "{got}, alone {wanted}");
    Ok(())
}

fn of_standard_input(mesh: &Mesh, images: &[Image]) -> Result<()> {
    let mut stream = Stream::of(mesh, "-", &[])?;
    let paths: Vec<PathBuf> = images.iter().map(|image| digits::folder().join(&image.name)).collect();
    let input = paths.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?.concat();
    stream.write(input)?;
    for (frame, path) in paths.iter().enumerate() {
        let line = stream.answer(frame as u64)?;
        ensure!(line["source"].is_null(), "{line}");
        reads(mesh, &line, path)?;
    }
    let (status, summary) = stream.end()?;
    ensure!(status.success() && summary["answered"] == images.len(), "{status}: {summary}");
    Ok(())
}

fn of_raw_pixels(mesh: &Mesh, images: &[Image]) -> Result<()> {
    let mut frames = Vec::new();
    let mut size = (0, 0);
    for image in images.iter().take(4) {
        let decoded = image::open(digits::folder().join(&image.name))?.to_rgb8();
        size = decoded.dimensions();
        frames.extend_from_slice(&decoded);
    }
    let mut stream = Stream::of(mesh, "-", &["--raw", &format!("{}x{}", size.0, size.1)])?;
    // And a half of one more.
    frames.extend_from_slice(&[0; 3]);
    stream.write(frames)?;
    for (frame, image) in images.iter().take(4).enumerate() {
        reads(mesh, &stream.answer(frame as u64)?, &digits::folder().join(&image.name))?;
    }
    let (status, summary) = stream.end()?;
    ensure!(status.code() == Some(1) && summary["answered"] == 4, "{status}: {summary}");
    Ok(())
}

fn of_a_folder_that_fills(mesh: &Mesh, images: &[Image]) -> Result<()> {
    let watched = mesh.folder().join("watched");
    fs::create_dir(&watched)?;
    let mut stream = Stream::of(mesh, &watched.to_string_lossy(), &["--watch"])?;
    for (frame, image) in images.iter().take(3).enumerate() {
        fs::copy(digits::folder().join(&image.name), watched.join(&image.name))?;
        let line = stream.answer(frame as u64)?;
        ensure!(line["source"] == image.name.as_str(), "{line}");
    }
    stream.interrupt()?;
    let (status, summary) = stream.end()?;
    ensure!(status.success() && summary["answered"] == 3, "{status}: {summary}");
    Ok(())
}

fn the_newest(mesh: &Mesh) -> Result<()> {
    let mut stream =
        Stream::of(mesh, &folder(), &["--times", "200", "--fps", "10000", "--newest", "--window", "2"])?;
    let mut last = None;
    let summary = loop {
        let line = stream.line()?;
        if !line["summary"].is_null() {
            break line["summary"].clone();
        }
        let frame = line["frame"].as_u64().context("a number")?;
        ensure!(last.is_none_or(|last| last < frame), "{frame} after {last:?}");
        last = Some(frame);
    };
    let count = |of: &str| summary[of].as_u64().unwrap_or(0);
    ensure!(count("dropped") > 0, "{summary}");
    let all = 200 * digits::load()?.len() as u64;
    let told = count("answered") + count("failed") + count("dropped") + count("outrun");
    ensure!(told == all, "{told} of {all} are accounted for: {summary}");
    Ok(())
}

/// `stormo stream ... | head -1`, and a reader that stands still while it is interrupted.
fn nobody_reads_on(mesh: &Mesh) -> Result<()> {
    let mut enough = Stream::of(mesh, &folder(), &["--times", "0"])?;
    enough.answer(0)?;
    let Stream { child, lines } = &mut enough;
    let (closed, _) = std::io::pipe()?;
    *lines = BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(closed)));
    let status = ended(child)?;
    ensure!(status.success(), "{status}");

    let mut stuck = Stream::of(mesh, &folder(), &["--times", "0", "--fps", "10000"])?;
    stuck.answer(0)?;
    // If answers fit into the pipe the first is enough; if not, it takes another one.
    wait::until("its end", COMMAND_MAX, || {
        let _ = stuck.interrupt();
        match stuck.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    Ok(())
}

fn ended(child: &mut Child) -> Result<ExitStatus> {
    Ok(wait::until("its end", COMMAND_MAX, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    })?)
}

fn what_is_no_frame(mesh: &Mesh, images: &[Image]) -> Result<()> {
    let mixed = mesh.folder().join("mixed");
    fs::create_dir(&mixed)?;
    fs::copy(digits::folder().join(&images[0].name), mixed.join("a.png"))?;
    fs::write(mixed.join("b.png"), "no image")?;
    fs::copy(digits::folder().join(&images[1].name), mixed.join("c.png"))?;
    let mut stream = Stream::of(mesh, &mixed.to_string_lossy(), &[])?;
    stream.answer(0)?;
    let broken = stream.line()?;
    ensure!(broken["error"].as_str().is_some_and(|error| error.contains("cannot be read")), "{broken}");
    stream.answer(2)?;
    let (status, summary) = stream.end()?;
    ensure!(status.code() == Some(1) && summary["failed"] == 1, "{status}: {summary}");

    let empty = mesh.folder().join("nothing");
    fs::create_dir(&empty)?;
    let empty = empty.to_string_lossy().into_owned();
    let cases: [(&[&str], &str); 5] = [
        (&[&empty], "--watch waits for some"),
        (&["no/such/folder"], "no/such/folder"),
        (&["-", "--watch"], "standard input comes once"),
        (&["-"], "no frame came"),
        (&[&folder(), "--raw", "640x480"], "give `-` as the source"),
    ];
    let stormo: &Stormo = mesh.stormo();
    for (words, told) in cases {
        let asked = ["stream", "digits", "--api", mesh.node("asks").client.base()];
        let ran = stormo.run(&arguments(&[&asked, words].concat()), Progress::Kept, COMMAND_MAX)?;
        ensure!(ran.status.code() == Some(1) && ran.stderr.contains(told), "{words:?}: {}", ran.stderr);
    }
    for wrong in [["--fps", "1e-19"], ["--raw", "16384x16384"], ["--window", "0"]] {
        let asked = ["stream", "digits", "-", "--api", mesh.node("asks").client.base()];
        let ran = stormo.run(&arguments(&[&asked[..], &wrong].concat()), Progress::Kept, COMMAND_MAX)?;
        ensure!(ran.status.code() == Some(2), "{wrong:?}: {} {}", ran.status, ran.stderr);
    }
    let mut garbage = Stream::of(mesh, "-", &[])?;
    garbage.write(b"RIFF and so on".to_vec())?;
    let (status, summary) = garbage.end()?;
    ensure!(status.code() == Some(1) && summary["answered"] == 0, "{status}: {summary}");
    Ok(())
}

/// A stream under way, told as JSON.
struct Stream {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Stream {
    fn of(mesh: &Mesh, source: &str, options: &[&str]) -> Result<Self> {
        let asked = ["stream", "digits", source, "--json", "--api", mesh.node("asks").client.base()];
        let mut command = Command::new(&mesh.stormo().binary);
        command.args(asked).args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, lines })
    }

    /// Gives it so much on standard input, and no more.
    fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        let mut input = self.child.stdin.take().context("its input")?;
        // Beside reading, since it stops taking frames while nobody reads its answers. One that has
        // enough closes its end.
        std::thread::spawn(move || input.write_all(&bytes));
        Ok(())
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("`{line}`"))
    }

    /// The next line, which is to be the answer about this frame.
    fn answer(&mut self, frame: u64) -> Result<Value> {
        let line = self.line()?;
        ensure!(line["frame"] == frame && line["answer"].is_object(), "not the answer to {frame}: {line}");
        Ok(line)
    }

    fn interrupt(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("it runs")?;
        Ok(kill_process(pid, Signal::INT)?)
    }

    /// How it ends, and its summary.
    fn end(mut self) -> Result<(ExitStatus, Value)> {
        let summary = loop {
            let line = self.line()?;
            if !line["summary"].is_null() {
                break line["summary"].clone();
            }
        };
        Ok((ended(&mut self.child)?, summary))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

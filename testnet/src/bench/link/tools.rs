//! `ping` and `iperf3`, run on emulated machines and read.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stormo_testnet::ground::network::Network;
use stormo_testnet::wait;

use super::{FROM, TO};

/// Longest run of one tool, beyond what it is asked to take.
const SLACK: Duration = Duration::from_secs(30);

/// That programs are there.
pub(super) fn look_for(programs: &[&str]) -> Result<()> {
    for program in programs {
        let asked =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let package = if *program == "ping" { "iputils-ping" } else { program };
        asked
            .map(drop)
            .with_context(|| format!("`{program}` is needed (on Debian: apt-get install {package})"))?;
    }
    Ok(())
}

/// A tool that runs on a machine, and ends with its owner, also one that is killed.
struct Tool(Child);

impl Tool {
    fn start(network: &Network, machine: &str, words: &[&str]) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = network.at(machine, || command.spawn())?;
        Ok(Self(child.with_context(|| format!("cannot run `{}`", words.join(" ")))?))
    }

    /// What it prints until its end.
    fn output(mut self, within: Duration) -> Result<String> {
        let pipe = self.0.stdout.take().context("its output was asked for")?;
        // Read beside, so that it is never stopped by a full pipe.
        let reader = thread::spawn(move || std::io::read_to_string(pipe));
        wait::until("a tool to end", within + SLACK, || match self.0.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `ping` says.
#[derive(Debug, Default)]
pub(super) struct Ping {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) doubles: u64,
    pub(super) min_ms: f64,
    pub(super) mean_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

pub(super) fn ping(network: &Network, count: u64, pause: Duration) -> Result<Ping> {
    let (count_text, pause_text) = (count.to_string(), pause.as_secs_f64().to_string());
    let to = network.address(TO)?.to_string();
    let words = ["ping", "-n", "-W", "1", "-c", &count_text, "-i", &pause_text, &to];
    let said = Tool::start(network, FROM, &words)?.output(pause * count as u32)?;
    read_ping(&said).with_context(|| format!("`{}` said:\n{said}", words.join(" ")))
}

fn read_ping(said: &str) -> Option<Ping> {
    let mut times: Vec<f64> = said
        .lines()
        .filter(|line| !line.contains("DUP!"))
        .filter_map(|line| line.split_once("time=")?.1.split_once(' ')?.0.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    let totals = said.lines().find(|line| line.contains("packets transmitted"))?;
    let number = |name: &str| {
        let part = totals.split(',').find(|part| part.contains(name))?;
        part.trim().trim_start_matches('+').split(' ').next()?.parse().ok()
    };
    let mut ping = Ping {
        sent: number("transmitted")?,
        received: number("received")?,
        doubles: number("duplicates").unwrap_or(0),
        ..Ping::default()
    };
    if let (Some(min), Some(max)) = (times.first(), times.last()) {
        (ping.min_ms, ping.max_ms) = (*min, *max);
        ping.mean_ms = times.iter().sum::<f64>() / times.len() as f64;
        ping.p99_ms = times[(times.len() * 99 / 100).min(times.len() - 1)];
    }
    Some(ping)
}

/// A stream or datagrams under way.
pub(super) struct Load {
    server: Tool,
    client: Tool,
    seconds: u64,
}

impl Load {
    /// Waits for its end; what the sender says, which the receiver told it.
    pub(super) fn end(self) -> Result<Value> {
        let said = self.client.output(Duration::from_secs(self.seconds))?;
        drop(self.server);
        let read: Value = serde_json::from_str(&said).with_context(|| format!("iperf3 said:\n{said}"))?;
        match read.get("error") {
            Some(error) => bail!("iperf3: {error}"),
            None => Ok(read),
        }
    }
}

fn begin(network: &Network, seconds: u64, more: &[&str]) -> Result<Load> {
    let server = Tool::start(network, TO, &["iperf3", "--server", "--one-off", "--json"])?;
    let to = network.address(TO)?.to_string();
    wait::until("iperf3 to listen", SLACK, || {
        let address = (network.address(TO).map_err(|error| error.to_string())?, 5201);
        let found = network.at(TO, || std::net::TcpListener::bind(address));
        match found {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(()),
            _ => Err("its port is free".to_owned()),
        }
    })?;
    let seconds_text = seconds.to_string();
    let mut words = vec!["iperf3", "--client", &to, "--json", "--time", &seconds_text];
    words.extend(more);
    let client = Tool::start(network, FROM, &words)?;
    Ok(Load { server, client, seconds })
}

/// What one TCP stream brings, bits of payload in a second.
pub(super) fn stream_bits_per_s(network: &Network, seconds: u64) -> Result<f64> {
    // The first second is that of TCP's slow start.
    let read = begin(network, seconds, &["--omit", "1"])?.end()?;
    let rate = read.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    rate.with_context(|| format!("no rate in {read}"))
}

/// Begins to send datagrams of 1400 bytes.
pub(super) fn begin_datagrams(network: &Network, bits_per_s: u64, seconds: u64) -> Result<Load> {
    let rate = bits_per_s.to_string();
    begin(network, seconds, &["--udp", "--length", "1400", "--bitrate", &rate, "--get-server-output"])
}

/// Share of datagrams that the receiver saw after a later one.
pub(super) fn out_of_order_percent(network: &Network, bits_per_s: u64, seconds: u64) -> Result<f64> {
    let read = begin_datagrams(network, bits_per_s, seconds)?.end()?;
    let udp = "/server_output_json/end/streams/0/udp";
    let figure = |name: &str| {
        let found = read.pointer(&format!("{udp}/{name}")).and_then(Value::as_f64);
        found.with_context(|| format!("no {udp}/{name} in {read}"))
    };
    let packets = figure("packets")?;
    ensure!(packets > 0.0, "iperf3 sent nothing");
    Ok(figure("out_of_order")? * 100.0 / packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ping_says() {
        let said = "PING 10.1.0.2 (10.1.0.2) 56(84) bytes of data.\n\
                    64 bytes from 10.1.0.2: icmp_seq=1 ttl=64 time=5.25 ms\n\
                    64 bytes from 10.1.0.2: icmp_seq=1 ttl=64 time=9.25 ms (DUP!)\n\
                    64 bytes from 10.1.0.2: icmp_seq=2 ttl=64 time=7.75 ms\n\n\
                    --- 10.1.0.2 ping statistics ---\n\
                    3 packets transmitted, 2 received, +1 duplicates, 33.3333% packet loss, time 2001ms\n\
                    rtt min/avg/max/mdev = 5.250/6.500/7.750/1.250 ms\n";
        let ping = read_ping(said).unwrap();
        assert_eq!((ping.sent, ping.received, ping.doubles), (3, 2, 1));
        assert_eq!((ping.min_ms, ping.mean_ms, ping.max_ms), (5.25, 6.5, 7.75));
    }
}

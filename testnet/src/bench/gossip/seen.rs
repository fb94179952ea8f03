//! What can be seen of real nodes from outside: their logs of what they said and heard, and the bytes of their sockets.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use stormo_testnet::mesh::Mesh;

/// Microseconds since 1970, as logs have them.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// How changes spread.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) changes: usize,
    /// From the saying of each change until each other node knew it, microseconds.
    pub(super) times_us: Vec<u64>,
    /// Pairs of a change and a node that never heard of it.
    pub(super) unheard: usize,
}

/// Of the changes that were said in a time, by the logs of all nodes.
pub(super) fn spread(mesh: &Mesh, since_us: u64, until_us: u64) -> Result<Spread> {
    let logs: Vec<String> =
        mesh.nodes().iter().map(|node| fs::read_to_string(node.log())).collect::<Result<_, _>>()?;
    Ok(spread_in(&logs, since_us, until_us))
}

/// A record: whose, and its generation and sequence.
type Name = (String, u64, u64);

fn spread_in(logs: &[String], since_us: u64, until_us: u64) -> Spread {
    let lines: Vec<Vec<(u64, bool, Name)>> =
        logs.iter().map(|log| log.lines().filter_map(line).collect()).collect();
    let mut said: BTreeMap<&Name, u64> = BTreeMap::new();
    for (at_us, _, name) in lines.iter().flatten().filter(|(at_us, says, _)| *says && *at_us >= since_us) {
        if *at_us < until_us {
            said.entry(name).or_insert(*at_us);
        }
    }
    let mut spread = Spread { changes: said.len(), ..Spread::default() };
    let mut heard: BTreeMap<&Name, usize> = BTreeMap::new();
    for (at_us, _, name) in lines.iter().flatten().filter(|(_, says, _)| !says) {
        if let Some(said_us) = said.get(name) {
            spread.times_us.push(at_us.saturating_sub(*said_us));
            *heard.entry(name).or_default() += 1;
        }
    }
    let others = logs.len().saturating_sub(1);
    spread.unheard =
        said.keys().map(|name| others.saturating_sub(heard.get(name).copied().unwrap_or(0))).sum();
    spread
}

/// `2026-01-02T03:04:05.123456Z TRACE stormo::spread: said node=... generation=1 sequence=2`: when, whether it was said
/// (and not heard), and which record.
fn line(text: &str) -> Option<(u64, bool, Name)> {
    let (time, rest) = text.split_once(' ')?;
    let (_, rest) = rest.split_once("stormo::spread: ")?;
    let (verb, fields) = rest.split_once(' ')?;
    let field = |name: &str| {
        fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let number = |name| field(name)?.parse().ok();
    let name = (field("node")?, number("generation")?, number("sequence")?);
    Some((micros(time)?, verb == "said", name))
}

/// Microseconds since 1970 of a time in UTC (RFC 3339).
fn micros(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.split(':');
    let (hour, minute, second) = (clock.next()?, clock.next()?, clock.next()?);
    let seconds_us = (second.parse::<f64>().ok()? * 1e6).round() as u64;
    let minutes = days_since_1970(year, month, day)? * 1_440 + hour.parse::<u64>().ok()? * 60;
    Some((minutes + minute.parse::<u64>().ok()?) * 60_000_000 + seconds_us)
}

/// Days of the Gregorian calendar, years beginning in March (Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day.checked_sub(1)?;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

/// What the nodes' sockets have sent so far.
#[derive(Debug)]
pub(super) struct Sent {
    /// Payload of TCP, by node in their order.
    pub(super) bytes: Vec<u64>,
    /// Ends of connections between nodes.
    pub(super) connections: usize,
}

/// What counts bytes of sockets, and what enters a node's network.
pub(super) fn look_for_tools() -> Result<()> {
    for tool in ["ss", "nsenter"] {
        let found = Command::new(tool).arg("--version").output().is_ok_and(|ran| ran.status.success());
        ensure!(found, "`{tool}` is not there (Debian: iproute2, util-linux): it counts what nodes send");
    }
    Ok(())
}

/// Sockets that closed meanwhile are not counted: in a calm mesh none do.
pub(super) fn sent(mesh: &Mesh) -> Result<Sent> {
    let mut sent = Sent { bytes: Vec::new(), connections: 0 };
    for node in mesh.nodes() {
        let pid = node.pid().to_string();
        let mut command = match mesh.network() {
            Some(_) => {
                let mut enter = Command::new("nsenter");
                enter.args(["--target", &pid, "--net", "ss"]);
                enter
            }
            None => Command::new("ss"),
        };
        let ran = command.args(["-tinpH", "state", "established"]).output().context("running `ss`")?;
        if !ran.status.success() {
            bail!("`ss` failed: {}", String::from_utf8_lossy(&ran.stderr).trim());
        }
        let api =
            node.ready.api.rsplit_once(':').map(|(_, port)| port.trim_end_matches('/')).unwrap_or_default();
        let (bytes, connections) =
            sockets(&String::from_utf8_lossy(&ran.stdout), &pid, api, mesh.network().is_some());
        sent.bytes.push(bytes);
        sent.connections += connections;
    }
    Ok(sent)
}

/// Bytes that one process's sockets sent, and how many they are; its API's are none of the mesh.
fn sockets(listed: &str, pid: &str, api_port: &str, is_emulated: bool) -> (u64, usize) {
    let (mut bytes, mut count, mut counts) = (0, 0, false);
    for line in listed.lines() {
        if !line.starts_with([' ', '\t']) || line.contains("users:(") {
            let local = line.split_whitespace().nth(2).unwrap_or_default();
            let is_api = local.ends_with(&format!(":{api_port}"))
                || is_emulated && (local.starts_with("127.") || local.starts_with("[::1]"));
            counts = line.contains(&format!("pid={pid},")) && !is_api;
            count += usize::from(counts);
        }
        if counts
            && let Some(sent) = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_sent:"))
        {
            bytes += sent.parse::<u64>().unwrap_or(0);
        }
    }
    (bytes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_logs_are_read() {
        assert_eq!(micros("1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(micros("2024-03-01T00:00:00Z"), Some(1_709_251_200_000_000));
        assert_eq!(micros("2026-11-28T18:35:56.123456Z"), Some(1_795_890_956_123_456));
        assert_eq!(micros("nonsense"), None);
    }

    #[test]
    fn a_change_spreads_from_who_said_it_to_all_others() {
        let line = |second: &str, verb: &str, node: &str, sequence: u64| {
            format!(
                "2026-01-01T00:00:{second}Z TRACE stormo::spread: {verb} node={node} generation=1 sequence={sequence}\n"
            )
        };
        let logs = [
            line("01.000000", "said", "a", 5) + &line("03.000000", "said", "a", 6) + "anything else\n",
            line("00.500000", "known", "a", 4) + &line("01.020000", "known", "a", 5),
            line("01.050000", "known", "a", 5) + &line("03.500000", "known", "a", 6),
        ];
        let since = micros("2026-01-01T00:00:00Z").unwrap();
        let until = micros("2026-01-01T00:00:02Z").unwrap();
        let of_first = Spread { changes: 1, times_us: vec![20_000, 50_000], unheard: 0 };
        assert_eq!(spread_in(&logs, since, until), of_first);
        assert_eq!(spread_in(&logs, since, until + 5_000_000).unheard, 1);
    }

    #[test]
    fn bytes_of_sockets_are_those_of_one_process_and_not_of_its_api() {
        let listed = "0 0 10.0.0.2:4001 10.0.0.3:5000 users:((\"stormo\",pid=12,fd=3))\n\t cubic bytes_sent:100 bytes_acked:90\n\
                      0 0 10.0.0.2:4001 10.0.0.4:5000 users:((\"stormo\",pid=12,fd=4))\n\t cubic bytes_sent:11\n\
                      0 0 127.0.0.1:8080 127.0.0.1:5001 users:((\"stormo\",pid=12,fd=5))\n\t cubic bytes_sent:7\n\
                      0 0 10.0.0.9:4001 10.0.0.4:5000 users:((\"stormo\",pid=123,fd=4))\n\t cubic bytes_sent:500\n";
        assert_eq!(sockets(listed, "12", "9", true), (111, 2));
        assert_eq!(sockets(listed, "12", "8080", false), (111, 2));
        assert_eq!(sockets(listed, "12", "9", false), (118, 3));
    }
}

//! Emulated links: what was asked of them beside what standard tools (`ping`, `iperf3`) find.

mod tools;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use stormo_protocol::state::Class;
use stormo_testnet::ground::EMULATION;
use stormo_testnet::ground::network::{self, Network};
use stormo_testnet::interrupt;
use stormo_testnet::link::LinkSpec;
use stormo_testnet::topology::{NodeSpec, Topology};

use crate::table::{Align, Table};
use crate::told::tell;
use tools::{Ping, ping, stream_bits_per_s};

/// The ends of the measured link; it is changed in this direction only, the way back has no limit.
pub(super) const FROM: &str = "near";
pub(super) const TO: &str = "far";
/// Of the chances of links; the same every time.
const SEED: u64 = 4;
const STREAM_S: u64 = 4;
const MBIT: u64 = 1_000_000;

/// So far from what was asked for a figure counts as missed: milliseconds, a share of a rate, and percentage points of
/// two thousand echoes.
const MISSED_MS: f64 = 1.0;
const MISSED_RATE_SHARE: f64 = 0.05;
const MISSED_POINTS: f64 = 2.0;

/// A figure that was asked for, and what was found.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    asked: Option<f64>,
    measured: f64,
}

impl Row {
    fn is_missed(&self) -> bool {
        let Some(asked) = self.asked else { return false };
        let allowed = match self.unit {
            "Mbit/s" => asked * MISSED_RATE_SHARE,
            "ms" => MISSED_MS,
            _ => MISSED_POINTS,
        };
        (self.measured - asked).abs() > allowed
    }
}

/// Measures and prints.
pub(super) fn run(is_json: bool) -> Result<()> {
    if let Err(why) = network::is_possible() {
        bail!("it needs {EMULATION}: {why}");
    }
    tools::look_for(&["ping", "iperf3", "setpriv"])?;
    let nodes = [FROM, TO].map(|label| NodeSpec::new(label, Class::Edge, 1));
    let network = Network::start(&Topology::plain("a link", nodes.to_vec()), SEED)?;
    let mut rows = Vec::new();
    for measure in [rates, latencies, chances, cut] {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        measure(&network, &mut rows).context("measuring a link")?;
    }
    super::kept::show("link", is_json, &rows, |rows| print(rows))
}

fn set(network: &Network, spec: LinkSpec) -> Result<()> {
    note!("link: {spec}");
    Ok(network.set_link(FROM, TO, spec)?)
}

/// One TCP stream at each rate. What is counted is payload: 1448 of 1500 bytes.
fn rates(network: &Network, rows: &mut Vec<Row>) -> Result<()> {
    let payload = 1448.0 / 1500.0;
    for rate in [Some(1), Some(20), Some(200), Some(800), None] {
        let rate_bits_per_s = rate.map(|rate: u64| rate * MBIT);
        set(network, LinkSpec { rate_bits_per_s, latency_us: 1_000, ..LinkSpec::default() })?;
        let measured = stream_bits_per_s(network, STREAM_S)? / 1e6;
        let asked = rate.map(|rate| rate as f64 * payload);
        let what =
            rate.map_or("TCP, no limit, 1 ms".to_owned(), |rate| format!("TCP, rate {rate} Mbit/s, 1 ms"));
        rows.push(Row { what, unit: "Mbit/s", asked, measured });
    }
    set(network, LinkSpec::default())?;
    let measured = stream_bits_per_s(network, STREAM_S)? / 1e6;
    rows.push(Row { what: "TCP, no limit, no latency".to_owned(), unit: "Mbit/s", asked: None, measured });
    Ok(())
}

/// Round trips, idle and beside datagrams at a rate.
fn latencies(network: &Network, rows: &mut Vec<Row>) -> Result<()> {
    for latency_us in [0_u64, 5_000, 50_000] {
        set(network, LinkSpec { latency_us, ..LinkSpec::default() })?;
        let Ping { mean_ms, max_ms, .. } = ping(network, 200, Duration::from_millis(10))?;
        let asked = latency_us as f64 / 1e3;
        rows.push(Row {
            what: format!("ping, {asked} ms, mean"),
            unit: "ms",
            asked: Some(asked),
            measured: mean_ms,
        });
        rows.push(Row {
            what: format!("ping, {asked} ms, longest"),
            unit: "ms",
            asked: Some(asked),
            measured: max_ms,
        });
    }
    let spec = LinkSpec { latency_us: 20_000, ..LinkSpec::default() };
    for rate in [20, 100, 200] {
        set(network, spec)?;
        let load = tools::begin_datagrams(network, rate * MBIT, STREAM_S)?;
        let Ping { mean_ms, p99_ms, .. } = ping(network, 250, Duration::from_millis(10))?;
        load.end()?;
        for (measured, name) in [(mean_ms, "mean"), (p99_ms, "99 of 100")] {
            let what = format!("ping, 20 ms beside UDP of {rate} Mbit/s, {name}");
            rows.push(Row { what, unit: "ms", asked: Some(20.0), measured });
        }
    }
    set(network, LinkSpec { latency_us: 20_000, jitter_us: 5_000, ..LinkSpec::default() })?;
    let Ping { min_ms, mean_ms, max_ms, .. } = ping(network, 400, Duration::from_millis(10))?;
    for (what, asked, measured) in
        [("least", 15.0, min_ms), ("mean", 20.0, mean_ms), ("longest", 25.0, max_ms)]
    {
        let what = format!("ping, 20 ms, jitter 5 ms, {what}");
        rows.push(Row { what, unit: "ms", asked: Some(asked), measured });
    }
    Ok(())
}

/// Loss, damage and doubles of 2,000 echoes, whose answers nothing disturbs; and the order of datagrams.
fn chances(network: &Network, rows: &mut Vec<Row>) -> Result<()> {
    let plain = LinkSpec { latency_us: 1_000, ..LinkSpec::default() };
    let mut row = |what: &str, asked: f64, measured: f64| {
        rows.push(Row { what: what.to_owned(), unit: "%", asked: Some(asked), measured });
    };
    let echoes = |spec: LinkSpec| {
        set(network, spec)?;
        ping(network, 2_000, Duration::from_millis(2))
    };
    let lost = |ping: &Ping| (ping.sent - ping.received) as f64 * 100.0 / ping.sent as f64;
    for loss in [0.0, 0.01, 0.1] {
        let what = format!("ping, loss {} %", loss * 100.0);
        row(&what, loss * 100.0, lost(&echoes(LinkSpec { loss, ..plain })?));
    }
    let damaged = echoes(LinkSpec { corrupt: 0.05, ..plain })?;
    row("ping, 5 % damaged (dropped by a checksum)", 5.0, lost(&damaged));
    let Ping { sent, doubles, .. } = echoes(LinkSpec { duplicate: 0.05, ..plain })?;
    row("ping, 5 % doubled", 5.0, doubles as f64 * 100.0 / sent as f64);
    set(network, LinkSpec { reorder: 0.02, ..plain })?;
    let late = tools::out_of_order_percent(network, 20 * MBIT, STREAM_S)?;
    row("UDP of 20 Mbit/s, 2 % held back (come out of order)", 2.0, late);
    Ok(())
}

fn cut(network: &Network, rows: &mut Vec<Row>) -> Result<()> {
    set(network, LinkSpec { cut: true, ..LinkSpec::default() })?;
    let Ping { sent, received, .. } = ping(network, 50, Duration::from_millis(10))?;
    let measured = received as f64 * 100.0 / sent as f64;
    rows.push(Row { what: "ping, one way cut, answered".to_owned(), unit: "%", asked: Some(0.0), measured });
    set(network, LinkSpec::default())?;
    let Ping { sent, received, .. } = ping(network, 50, Duration::from_millis(10))?;
    let measured = received as f64 * 100.0 / sent as f64;
    rows.push(Row { what: "ping, mended, answered".to_owned(), unit: "%", asked: Some(100.0), measured });
    Ok(())
}

fn print(rows: &[Row]) {
    let columns = [
        ("", Align::Left),
        ("link", Align::Left),
        ("asked", Align::Right),
        ("measured", Align::Right),
        ("unit", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for row in rows {
        let mark = if row.is_missed() { "✗" } else { "" };
        let asked = row.asked.map_or("-".to_owned(), |asked| format!("{asked:.2}"));
        table.row([
            mark.to_owned(),
            row.what.clone(),
            asked,
            format!("{:.2}", row.measured),
            row.unit.to_owned(),
        ]);
    }
    table.lines().iter().for_each(|line| tell!("{line}"));
    let missed = rows.iter().filter(|row| row.is_missed()).count();
    if missed > 0 {
        tell!(
            "✗: {missed} of {} figures missed what was asked for by more than {MISSED_MS} ms, {} % of a rate or \
             {MISSED_POINTS} points",
            rows.len(),
            MISSED_RATE_SHARE * 100.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_far_from_what_was_asked_for_are_marked() {
        let is_missed =
            |unit, asked, measured| Row { what: String::new(), unit, asked, measured }.is_missed();
        let cases = [
            ("ms", Some(20.0), 21.0, false),
            ("ms", Some(20.0), 21.1, true),
            ("ms", Some(20.0), 18.9, true),
            ("Mbit/s", Some(800.0), 761.0, false),
            ("Mbit/s", Some(800.0), 759.0, true),
            ("Mbit/s", None, 1.0, false),
            ("%", Some(10.0), 11.9, false),
            ("%", Some(0.0), 2.1, true),
        ];
        for (unit, asked, measured, missed) in cases {
            assert_eq!(is_missed(unit, asked, measured), missed, "{unit} {asked:?} {measured}");
        }
    }
}

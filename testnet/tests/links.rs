//! Emulated links as sockets and `ping` see them, counted and not timed. As root; otherwise left out.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_protocol::state::Class;
use stormo_testnet::ground::network::{self, Network};
use stormo_testnet::link::{Counts, LinkSpec};
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial;

const SEED: u64 = 7;
/// For datagrams that are under way: a bound of waiting, not a measure.
const LONG: Duration = Duration::from_secs(30);
const PACKETS: u64 = 400;
/// Sent at once: fewer than the switch reads at once, and than fit any buffer of a socket.
const GROUP: u64 = 20;

fn network(test: impl FnOnce(&Network) -> Result<()>) -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("emulated links: {why}"));
        return Ok(());
    }
    let nodes = ["a", "b"].map(|label| NodeSpec::new(label, Class::Edge, 1));
    let topology = Topology::plain("a link", nodes.to_vec());
    test(&Network::start(&topology, SEED)?).with_context(|| format!("seed {SEED}"))
}

fn socket(network: &Network, label: &str) -> Result<(UdpSocket, SocketAddr)> {
    let address = network.address(label)?;
    let socket = network.at(label, || UdpSocket::bind((address, 0)))??;
    socket.set_read_timeout(Some(LONG))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Sends numbered datagrams and a last one over a link that is mended for it; which of them came.
fn sent(network: &Network, spec: LinkSpec) -> Result<(Vec<u64>, Counts)> {
    let ((near, _), (far, to)) = (socket(network, "a")?, socket(network, "b")?);
    let before = network.counts("a", "b")?;
    network.set_link("a", "b", spec)?;
    let mut came = Vec::new();
    let mut bytes = [0; 200];
    for number in 0..PACKETS {
        near.send_to(&number.to_le_bytes().repeat(25), to)?;
        if number % GROUP == GROUP - 1 {
            drain(network, &near, &far, to, &mut came, &mut bytes)?;
        }
    }
    let counts = network.counts("a", "b")?;
    network.set_link("a", "b", LinkSpec::default())?;
    Ok((came, difference(counts, before)))
}

/// Reads all that has come: up to a mark that is sent after it on the way that nothing disturbs.
fn drain(
    network: &Network,
    near: &UdpSocket,
    far: &UdpSocket,
    to: SocketAddr,
    came: &mut Vec<u64>,
    bytes: &mut [u8; 200],
) -> Result<()> {
    let spec = network.link("a", "b")?;
    // An order waits until what was sent before it has been read.
    network.counts("a", "b")?;
    network.set_link("a", "b", LinkSpec { latency_us: spec.latency_us + 10_000, ..LinkSpec::default() })?;
    near.send_to(&[0xFF; 8], to)?;
    loop {
        let (length, _) = far.recv_from(bytes)?;
        let number = u64::from_le_bytes(bytes[..8].try_into()?);
        if number == u64::MAX {
            break;
        }
        ensure!(
            length == 200 && bytes.chunks(8).all(|part| part == number.to_le_bytes()),
            "a damaged datagram came"
        );
        came.push(number);
    }
    network.set_link("a", "b", spec).map_err(anyhow::Error::from)
}

fn difference(now: Counts, before: Counts) -> Counts {
    Counts {
        offered: now.offered - before.offered,
        lost: now.lost - before.lost,
        queue_full: now.queue_full - before.queue_full,
        cut: now.cut - before.cut,
        reordered: now.reordered - before.reordered,
        duplicated: now.duplicated - before.duplicated,
        corrupted: now.corrupted - before.corrupted,
        busy_ns: now.busy_ns - before.busy_ns,
    }
}

#[test]
fn a_plain_link_brings_all_in_order() -> Result<()> {
    network(|network| {
        let (came, counts) = sent(network, LinkSpec::default())?;
        ensure!(came == (0..PACKETS).collect::<Vec<_>>(), "{came:?}");
        ensure!(counts.lost + counts.queue_full + counts.cut == 0, "{counts:?}");
        Ok(())
    })
}

#[test]
fn lost_and_damaged_packets_do_not_come() -> Result<()> {
    network(|network| {
        for spec in
            [LinkSpec { loss: 0.2, ..LinkSpec::default() }, LinkSpec { corrupt: 0.2, ..LinkSpec::default() }]
        {
            let (came, counts) = sent(network, spec)?;
            let gone = counts.lost + counts.corrupted;
            ensure!((20..200).contains(&gone), "about 80 of 400: {counts:?}");
            ensure!(came.len() as u64 == PACKETS - gone, "{} came: {counts:?}", came.len());
        }
        Ok(())
    })
}

#[test]
fn doubled_packets_come_twice() -> Result<()> {
    network(|network| {
        let (came, counts) = sent(network, LinkSpec { duplicate: 0.3, ..LinkSpec::default() })?;
        ensure!((40..250).contains(&counts.duplicated), "about 120 of 400: {counts:?}");
        ensure!(came.len() as u64 == PACKETS + counts.duplicated, "{} came: {counts:?}", came.len());
        Ok(())
    })
}

#[test]
fn a_cut_is_of_one_direction() -> Result<()> {
    network(|network| {
        let (came, counts) = sent(network, LinkSpec { cut: true, ..LinkSpec::default() })?;
        ensure!(came.is_empty() && counts.cut == PACKETS, "{} came: {counts:?}", came.len());
        network.set_link("a", "b", LinkSpec { cut: true, ..LinkSpec::default() })?;
        let ((near, to), (far, _)) = (socket(network, "a")?, socket(network, "b")?);
        far.send_to(b"back", to)?;
        let (length, _) = near.recv_from(&mut [0; 8])?;
        ensure!(length == 4);
        Ok(())
    })
}

#[test]
fn ping_counts_what_the_link_counts() -> Result<()> {
    if Command::new("ping").arg("-V").output().is_err() {
        trial::skipped("emulated links by `ping`: it is not there (apt-get install iputils-ping)");
        return Ok(());
    }
    network(|network| {
        network.set_link("a", "b", LinkSpec { loss: 0.1, ..LinkSpec::default() })?;
        let to = network.address("b")?.to_string();
        let mut ping = Command::new("ping");
        ping.args(["-q", "-n", "-c", "300", "-i", "0.002", "-W", "1", &to]);
        let said = String::from_utf8(network.at("a", || ping.output())??.stdout)?;
        let counts = network.counts("a", "b")?;
        let arrived = format!("300 packets transmitted, {} received", 300 - counts.lost);
        ensure!(counts.offered == 300 && counts.lost > 0, "{counts:?}");
        ensure!(said.contains(&arrived), "{counts:?}, and ping says:\n{said}");
        Ok(())
    })
}

//! One process of a ring of bare libp2p streams: takes so many bytes from the one before it, then gives
//! so many to the one after it, and does nothing else. What frames and stages are compared with, so it
//! shares no code with `node`, only the transport: TCP, Noise, Yamux, as the node has them.
//!
//! It is told by lines on its standard input and tells by lines on its standard output; it ends with
//! its input.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Behaviour, Control, IncomingStreams};
use tokio::sync::{mpsc, watch};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/stormo-bench/bare");
/// All processes of a ring are on one machine and start together.
const MEETING_MAX: Duration = Duration::from_secs(30);

/// What this process does.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BareArgs {
    /// Bytes to take from the process before
    #[arg(long)]
    takes: usize,
    /// Bytes to give to the process after
    #[arg(long)]
    gives: usize,
    /// Let the process before dial, which is the next one too: two that dial each other at once may
    /// collide
    #[arg(long)]
    waits: bool,
    /// Begin a round at each line of the input, and print how many microseconds it took
    #[arg(long)]
    begins: bool,
}

/// Takes part in rounds until the input ends.
pub(crate) fn run(args: &BareArgs) -> Result<()> {
    // As the node's own runtime is.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On its workers, as the node's streams are: the thread that waits here would have to be woken for
    // every word of the connection's task.
    let taking_part = runtime.spawn(take_part(args.clone()));
    runtime.block_on(taking_part)?
}

async fn take_part(args: BareArgs) -> Result<()> {
    let mut orders = orders();
    let (mut swarm, address) = listening().await?;
    let mut control = swarm.behaviour().new_control();
    let incoming = control.accept(PROTOCOL).map_err(|_| anyhow!("the protocol is taken"))?;
    tell(&address.to_string())?;
    let next: Multiaddr = orders.recv().await.context("no address of the next process")?.parse()?;
    if !args.waits {
        swarm.dial(next.clone())?;
    }
    let Some(Protocol::P2p(peer)) = next.iter().last() else { bail!("an address without a peer: {next}") };
    let connected = drive(swarm, peer);
    let meeting = meet(control, incoming, peer, connected, args.waits);
    let (from, to) = tokio::time::timeout(MEETING_MAX, meeting).await.context("the ring did not meet")??;
    tell("ready")?;
    let ring = Ring { from, to, taken: vec![0; args.takes], given: vec![1; args.gives] };
    if args.begins { ring.begin_at(orders).await } else { ring.pass_on_until_end_of(orders).await }
}

/// The lines of the input, until it ends.
fn orders() -> mpsc::Receiver<String> {
    let (sender, orders) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.blocking_send(line))
    });
    orders
}

async fn listening() -> Result<(Swarm<Behaviour>, Multiaddr)> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| Behaviour::new())?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            let own = Protocol::P2p(*swarm.local_peer_id());
            return Ok((swarm, address.with(own)));
        }
    }
}

/// Runs the swarm as long as this process; tells whether it has, or never will have, a connection to a peer.
fn drive(mut swarm: Swarm<Behaviour>, peer: PeerId) -> watch::Receiver<Option<Result<(), String>>> {
    let (met, connected) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                    met.send_replace(Some(Ok(())));
                }
                SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. }
                    if peer_id == peer =>
                {
                    met.send_if_modified(|known| {
                        let is_first = known.is_none();
                        known.get_or_insert(Err(error.to_string()));
                        is_first
                    });
                }
                _ => {}
            }
        }
    });
    connected
}

/// The stream from the process before and the one to the process after. That one is opened once the swarm has told
/// of its connection: `libp2p_stream` has one only after the connection's own task runs, and a stream that is asked
/// for in between waits for a dial that never comes, since there is a connection.
async fn meet(
    mut control: Control,
    mut incoming: IncomingStreams,
    next: PeerId,
    mut connected: watch::Receiver<Option<Result<(), String>>>,
    waits: bool,
) -> Result<(Stream, Stream)> {
    let open = async {
        let known = connected.wait_for(Option::is_some).await.context("the swarm has ended")?.clone();
        if let Some(Err(error)) = known {
            bail!("no connection to the next process: {error}");
        }
        let mut to = control.open_stream(next, PROTOCOL).await?;
        // The protocol's name travels with the first bytes.
        to.write_all(&[0]).await?;
        to.flush().await?;
        anyhow::Ok(to)
    };
    let accept = async {
        let (_, mut from) = incoming.next().await.context("no stream came")?;
        from.read_exact(&mut [0]).await?;
        anyhow::Ok(from)
    };
    if waits {
        return Ok((accept.await?, open.await?));
    }
    let (to, from) = futures::try_join!(open, accept)?;
    Ok((from, to))
}

struct Ring {
    from: Stream,
    to: Stream,
    taken: Vec<u8>,
    given: Vec<u8>,
}

impl Ring {
    async fn begin_at(mut self, mut orders: mpsc::Receiver<String>) -> Result<()> {
        while orders.recv().await.is_some() {
            let started = Instant::now();
            self.give().await?;
            self.from.read_exact(&mut self.taken).await?;
            tell(&started.elapsed().as_micros().to_string())?;
        }
        Ok(())
    }

    async fn pass_on_until_end_of(mut self, mut orders: mpsc::Receiver<String>) -> Result<()> {
        let pass_on = async {
            while self.from.read_exact(&mut self.taken).await.is_ok() && self.give().await.is_ok() {}
        };
        tokio::select! {
            // A neighbour that ended before this one: the ring is over.
            _ = pass_on => Ok(()),
            _ = orders.recv() => Ok(()),
        }
    }

    async fn give(&mut self) -> Result<()> {
        self.to.write_all(&self.given).await?;
        Ok(self.to.flush().await?)
    }
}

fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

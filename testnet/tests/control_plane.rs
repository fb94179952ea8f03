//! What the control plane has to withstand, with real processes: old words said again by a raw peer, halves of a mesh
//! that do not hear each other, a data folder that was put back. In virtual time: `mesh/member/tests.rs`,
//! `mesh/stewardship/tests.rs`, `simulate/tests.rs`; which fault is held where: README of this folder's crate.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stormo::net::{Identity, Net, NetEvent};
use stormo::serve::json::{DeploymentView, NodeView};
use stormo_protocol::control::{Request, Response};
use stormo_protocol::exchange::{Exchange, News};
use stormo_protocol::ids::{MeshKey, NodeId};
use stormo_protocol::state::{NodeRecord, Signed, Stamp, Topic};
use stormo_testnet::commands::Progress;
use stormo_testnet::ground::{GroundKind, network};
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::raw_peer;
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::{digits, wait};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// gossipsub forgets within a minute what it has passed on, and a view whom it has not heard.
const TWO_MINUTES: Duration = Duration::from_secs(120);
/// How long the halves of a mesh are parted.
const PARTED: Duration = Duration::from_secs(30);
/// Of the links' chances.
const SEED: u64 = 5;

/// A member of the mesh by its key that keeps to no rule: it says what it likes.
struct RawPeer {
    runtime: Runtime,
    net: Net,
    identity: Identity,
    key: MeshKey,
    /// Takes what is said to it, which nobody answers.
    listens: JoinHandle<()>,
}

impl RawPeer {
    fn join(mesh: &mut Mesh) -> Result<Self> {
        let config = raw_peer::config(mesh, 77)?;
        let (identity, key) = (config.identity.clone(), config.mesh.clone());
        let runtime = Runtime::new()?;
        let (net, mut events) = runtime.block_on(Net::start(config))?;
        let listens =
            runtime.spawn(async move { while events.recv().await.map(drop::<NetEvent>).is_some() {} });
        for node in mesh.nodes() {
            let (id, addresses) = (node.id(), &node.ready.addresses);
            runtime.block_on(net.reachable(id, addresses));
            for address in addresses {
                runtime.block_on(net.dial(address))?;
            }
        }
        Ok(Self { runtime, net, identity, key, listens })
    }

    fn ask(&self, node: NodeId, request: &Request) -> Result<Response, String> {
        self.runtime.block_on(self.net.ask(node, request, SOON)).map_err(|error| error.to_string())
    }

    /// All that a node knows: records, heartbeats, wishes, orders.
    fn record(&self, node: NodeId) -> Result<News, String> {
        match self.ask(node, &Request::Exchange(Exchange::default().to_bytes()))? {
            Response::News(bytes) => News::from_bytes(&bytes).map_err(|error| error.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Gossips it, and says it to each of these.
    fn say(&self, nodes: &[NodeId], news: &News) -> Result<(), String> {
        news.records.iter().for_each(|signed| self.runtime.block_on(self.net.publish(signed)));
        let told = News { wanted: vec![], more: false, ..news.clone() };
        nodes.iter().try_for_each(|node| self.ask(*node, &Request::Tell(told.to_bytes())).map(drop))
    }

    /// A record of its own, honest but for what it borrows of another one.
    fn own_record(&self, like: &NodeRecord, sequence: u64) -> Result<Signed> {
        let mut record = NodeRecord {
            node: self.identity.node(),
            stamp: Stamp { generation: 1, sequence },
            hosted: vec![],
            goals: vec![],
            links: vec![],
            demands: vec![],
            ..like.clone()
        };
        (record.machine.label, record.machine.addresses) = ("raw".to_owned(), vec![]);
        let signed = self.identity.sign(Topic::Node, self.key.mesh_id(), record.to_bytes());
        signed.context("it can sign")
    }

    /// Gossips a record of its own until all of these have it: what was said before has come, too.
    fn is_heard(&self, mesh: &Mesh, labels: &[&str], like: &NodeRecord, sequence: u64) -> Result<()> {
        let signed = self.own_record(like, sequence)?;
        wait::until("gossip of the raw peer", SOON, || {
            self.runtime.block_on(self.net.publish(&signed));
            labels.iter().try_for_each(|label| {
                let seen =
                    view_of(&mesh.node(label).client.nodes().map_err(|error| error.to_string())?, "raw");
                let has = seen.as_ref().is_some_and(|raw| raw.sequence >= sequence);
                if has { Ok(()) } else { Err(format!("{label} sees {seen:?}")) }
            })
        })?;
        Ok(())
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

fn view_of(nodes: &[NodeView], label: &str) -> Option<NodeView> {
    nodes.iter().find(|node| node.label == label).cloned()
}

fn undeploy(mesh: &Mesh, at: &str, name: &str) -> Result<()> {
    let words = arguments(&["undeploy", name, "--api", mesh.node(at).client.base()]);
    mesh.stormo().json::<DeploymentView>(&words, Progress::Kept, COMMAND_MAX)?;
    Ok(())
}

/// Whether a node knows neither the victim nor any deployment.
fn has_forgotten(mesh: &Mesh, label: &str) -> Result<(), String> {
    let client = &mesh.node(label).client;
    let nodes = client.nodes().map_err(|error| error.to_string())?;
    let known = client.deployments().map_err(|error| error.to_string())?.deployments;
    match view_of(&nodes, "victim") {
        Some(victim) => Err(format!("{label} lists {victim:?}")),
        None if known.is_empty() => Ok(()),
        None => Err(format!("{label} knows {known:?}")),
    }
}

/// A record of a node that died since, a wish that was taken back since and its order, all with valid signatures, by
/// gossip and by word.
#[test]
fn what_a_raw_peer_says_again_after_two_minutes_is_not_accepted() -> Result<()> {
    trial::run(&[edge("a"), edge("b"), edge("victim")], |mesh| {
        let raw = RawPeer::join(mesh)?;
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "2"])?;
        let [a, b, victim] = ["a", "b", "victim"].map(|label| mesh.node(label).id());
        let recorded = wait::until("a record of each kind", SOON, || {
            let news = raw.record(a)?;
            let has = |topic| news.records.iter().any(|signed| signed.topic == topic);
            let said =
                news.records.iter().any(|signed| signed.topic == Topic::Node && signed.author == victim);
            if said && has(Topic::Deployment) && has(Topic::Order) {
                Ok(news)
            } else {
                Err(format!("{news:?}"))
            }
        })?;
        let since = Instant::now();
        let of_victim =
            recorded.records.iter().find(|signed| signed.author == victim).context("it is there")?;
        let of_victim = NodeRecord::from_bytes(&of_victim.body)?;
        undeploy(mesh, "a", "digits")?;
        mesh.kill("victim")?;
        // Of those that live, what they said then is old as well; it is left out so that nothing else is judged.
        let old = |signed: &Signed| signed.topic != Topic::Node || signed.author == victim;
        let records = recorded.records.iter().filter(|signed| old(signed)).cloned().collect();
        let replayed = News { records, ..recorded };
        wait::until("two minutes to pass", 2 * TWO_MINUTES, || {
            let left = TWO_MINUTES.saturating_sub(since.elapsed());
            if left.is_zero() { Ok(()) } else { Err(format!("{} s are left", left.as_secs())) }
        })?;
        for label in ["a", "b"] {
            wait::until("the victim to be forgotten", SOON, || has_forgotten(mesh, label))?;
        }
        raw.is_heard(mesh, &["a", "b"], &of_victim, 1)?;
        for _ in 0..3 {
            raw.say(&[a, b], &replayed).map_err(anyhow::Error::msg)?;
        }
        raw.is_heard(mesh, &["a", "b"], &of_victim, 2)?;
        for label in ["a", "b"] {
            has_forgotten(mesh, label).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    })
}

/// What a node believes: who may be used, and of each deployment who is its steward and which order counts.
type Belief = (Vec<String>, Vec<(String, Option<String>, Option<u64>)>);

fn belief(mesh: &Mesh, label: &str) -> Result<Belief, String> {
    let client = &mesh.node(label).client;
    let nodes = client.nodes().map_err(|error| error.to_string())?;
    let mut usable: Vec<String> =
        nodes.into_iter().filter(|node| node.usable).map(|node| node.label).collect();
    usable.sort();
    let known = client.deployments().map_err(|error| error.to_string())?.deployments;
    let stewards = known.into_iter().map(|view| {
        let steward = view.steward.map(|steward| steward.label);
        (view.name, steward, view.sequence)
    });
    Ok((usable, stewards.collect()))
}

/// Whether all nodes believe the same, of all of them and of this one deployment.
fn agree(mesh: &Mesh, labels: &[&str]) -> Result<Belief, String> {
    let first = belief(mesh, labels[0])?;
    ensure_told(first.0 == labels, || format!("{} uses {:?}", labels[0], first.0))?;
    ensure_told(first.1.len() == 1 && first.1[0].1.is_some(), || format!("{:?}", first.1))?;
    for label in labels {
        let other = belief(mesh, label)?;
        ensure_told(other == first, || format!("{} believes {first:?}, {label} {other:?}", labels[0]))?;
    }
    Ok(first)
}

fn ensure_told(holds: bool, else_told: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_told()) }
}

#[test]
fn halves_of_four_agree_again_and_what_was_removed_stays_away() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("emulated links: {why}"));
        return Ok(());
    }
    let labels = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let nodes: Vec<NodeSpec> = labels.map(edge).to_vec();
    let mut topology = Topology::plain("eight with 1 ms between them", nodes);
    topology.default_link = LinkSpec { latency_us: 1_000, ..LinkSpec::default() };
    trial::run_on(GroundKind::Emulated { seed: SEED }, &topology, |mesh| {
        mesh.wait_for_nodes(labels.len(), SOON)?;
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "2"])?;
        trial::deploy(mesh, "a", "removed", &digits::model(), &["--replicas", "2"])?;
        for label in labels {
            wait::until("both to be known", SOON, || {
                let known = belief(mesh, label)?.1.len();
                ensure_told(known == 2, || format!("{label} knows {known} deployments"))
            })?;
        }
        mesh.partition(&[&labels[..4], &labels[4..]])?;
        let parted = Instant::now();
        for (one, other) in [("a", "h"), ("h", "a")] {
            trial::wait_until_left_out(&mesh.node(one).client, other)?;
        }
        undeploy(mesh, "a", "removed")?;
        wait::until("the halves to have been parted", 2 * PARTED, || {
            let left = PARTED.saturating_sub(parted.elapsed());
            ensure_told(left.is_zero(), || format!("{} s are left", left.as_secs()))
        })?;
        let there = belief(mesh, "h").map_err(anyhow::Error::msg)?.1;
        ensure!(there.iter().any(|(name, ..)| name == "removed"), "the other half heard of it: {there:?}");
        mesh.heal()?;
        let healed = Instant::now();
        wait::until("all to see all", SOON, || {
            labels.iter().try_for_each(|label| {
                let usable = belief(mesh, label)?.0;
                ensure_told(usable == labels, || format!("{label} uses {usable:?}"))
            })
        })?;
        let seen_s = healed.elapsed().as_secs_f64();
        wait::until("one belief", SOON, || agree(mesh, &labels))?;
        let agreed_s = healed.elapsed().as_secs_f64();
        trial::told(&format!(
            "after 4/4 for 30 s: all see all after {seen_s:.1} s, all agree after {agreed_s:.1} s"
        ));
        wait::until("what was removed to be freed", SOON, || {
            labels.iter().try_for_each(|label| {
                let hosted = mesh.node(label).client.node().map_err(|error| error.to_string())?.hosted;
                let names: Vec<String> = hosted.into_iter().map(|hosted| hosted.model).collect();
                ensure_told(names.iter().all(|name| name == "digits"), || format!("{label} hosts {names:?}"))
            })
        })?;
        agree(mesh, &labels).map_err(anyhow::Error::msg)?;
        trial::check_reads(&mesh.node("h").client)
    })
}

/// A data folder that was put back from a backup: others hold newer records of it than it will make.
#[test]
fn a_node_that_starts_with_an_older_generation_is_used_again() -> Result<()> {
    trial::run(&[edge("a"), edge("b"), edge("c")], |mesh| {
        let file = mesh.node("c").data().join("generation");
        let backup = fs::read(&file)?;
        for _ in 0..2 {
            mesh.kill("c")?;
            mesh.add(&edge("c"))?;
            mesh.wait_for_nodes(3, SOON)?;
        }
        let before = mesh.node("c").client.node()?.generation;
        mesh.kill("c")?;
        fs::write(&file, &backup)?;
        mesh.add(&edge("c"))?;
        for label in ["a", "b"] {
            wait::until("its newest record", SOON, || {
                let own = mesh.node("c").client.node().map_err(|error| error.to_string())?;
                let nodes = mesh.node(label).client.nodes().map_err(|error| error.to_string())?;
                let seen = view_of(&nodes, "c").ok_or("it is not listed")?;
                let is_it = seen.usable && seen.generation == own.generation && own.generation > before;
                let told = || {
                    format!(
                        "{} of {} seen as {} of {}",
                        own.sequence, own.generation, seen.sequence, seen.generation
                    )
                };
                ensure_told(is_it, told)
            })?;
        }
        Ok(mesh.wait_for_nodes(3, SOON)?)
    })
}

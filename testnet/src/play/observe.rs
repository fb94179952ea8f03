//! Looks at the nodes while load is on: whom each entry would use, and what each process takes. Nothing of
//! it is asked often enough to weigh.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stormo::serve::json::{DeploymentState, DeploymentsView, HostView, NodeState, NodeView, NodesView};
use ureq::Agent;

use super::strain;
use crate::history::{HostingChange, StateChange, Strain, Usage};
use crate::mesh::Mesh;
use crate::process_stat::{self, ProcessStat};
use crate::scenario::Scenario;
use crate::wait;

/// Between two looks at what an entry thinks of the others, where few are asked about few.
const LOOK: Duration = Duration::from_millis(100);
/// Nodes that are told of in one look, all entries together, for that.
const FEW: usize = 24;
/// An entry that says nothing for so long is not waited for.
const SAY_MAX: Duration = Duration::from_secs(1);
/// Between two looks at processes.
const USAGE_MIN: Duration = Duration::from_millis(250);
const USAGE_MAX: Duration = Duration::from_secs(10);
/// Looks of a run at each process.
const USAGE_LOOKS: u32 = 200;
/// Changes that are kept; a mesh that flips more often is told so by those.
const CHANGES_MAX: usize = 100_000;
/// Looks at an entry that are noted: of the longest scenario, and twice as many.
const LOOKS_MAX: usize = 300_000;

/// Where a node is asked, and which process it is.
#[derive(Debug, Clone)]
struct Whereabouts {
    api: String,
    pid: u32,
    life: u32,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    is_over: AtomicBool,
    nodes: Mutex<Vec<Whereabouts>>,
    peers: BTreeMap<String, u16>,
    states: Mutex<Vec<StateChange>>,
    usage: Mutex<Vec<Usage>>,
    hosting: Mutex<Vec<HostingChange>>,
    looks: Mutex<BTreeMap<u16, Vec<u64>>>,
    hosting_looks: Mutex<Vec<u64>>,
}

/// What they saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) states: Vec<StateChange>,
    pub(super) usage: Vec<Usage>,
    pub(super) hosting: Vec<HostingChange>,
    pub(super) looks: BTreeMap<u16, Vec<u64>>,
    pub(super) hosting_looks: Vec<u64>,
    pub(super) look_every_us: u64,
    pub(super) strain: Strain,
}

/// Those who look.
#[derive(Debug)]
pub(super) struct Observers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    strained: Option<JoinHandle<Strain>>,
    look: Duration,
}

impl Observers {
    pub(super) fn begin(scenario: &Scenario, mesh: &Mesh, begun: Instant) -> Self {
        let labels = || scenario.topology.nodes.iter().map(|node| node.label.as_str());
        let whereabouts = labels().map(|label| {
            let node = mesh.node(label);
            Whereabouts { api: node.client.base().to_owned(), pid: node.pid(), life: 0 }
        });
        let peers =
            labels().enumerate().map(|(place, label)| (mesh.node(label).id().to_string(), place as u16));
        let shared = Arc::new(Shared {
            begun,
            is_over: AtomicBool::new(false),
            nodes: Mutex::new(whereabouts.collect()),
            peers: peers.collect(),
            states: Mutex::new(Vec::new()),
            usage: Mutex::new(Vec::new()),
            hosting: Mutex::new(Vec::new()),
            looks: Mutex::new(BTreeMap::new()),
            hosting_looks: Mutex::new(Vec::new()),
        });
        let mut entries: Vec<usize> =
            scenario.loads.iter().flat_map(|load| load.at.iter().copied()).collect();
        entries.sort_unstable();
        entries.dedup();
        let told = entries.len() * scenario.topology.nodes.len();
        let look = LOOK * u32::try_from(told.div_ceil(FEW)).unwrap_or(1);
        let looks = Duration::from_micros(scenario.duration_us) / USAGE_LOOKS;
        let first = entries.first().copied();
        let mut threads: Vec<JoinHandle<()>> = entries
            .into_iter()
            .map(|entry| {
                let shared = shared.clone();
                thread::spawn(move || shared.watch_states(entry, look))
            })
            .collect();
        if let Some(entry) = first.filter(|_| scenario.expect.restored_within_ms.is_some()) {
            let shared = shared.clone();
            threads.push(thread::spawn(move || shared.watch_hosting(entry, look)));
        }
        let watching = shared.clone();
        threads.push(thread::spawn(move || watching.watch_usage(looks.clamp(USAGE_MIN, USAGE_MAX))));
        let strain = shared.clone();
        let strained = thread::spawn(move || strain::watch(begun, || strain.is_over.load(Ordering::Relaxed)));
        Self { shared, threads, strained: Some(strained), look }
    }

    /// A node runs again, elsewhere.
    pub(super) fn is_back(&self, place: usize, api: &str, pid: u32) {
        let mut nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get_mut(place) {
            *node = Whereabouts { api: api.to_owned(), pid, life: node.life + 1 };
        }
    }

    pub(super) fn end(mut self) -> Seen {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Who looked has panicked or not; what it saw is there all the same.
            let _ = thread.join();
        }
        let strain = self.strained.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let shared = &self.shared;
        let mut states = taken(&shared.states);
        states.sort_by_key(|state| state.at_us);
        Seen {
            states,
            usage: taken(&shared.usage),
            hosting: taken(&shared.hosting),
            looks: taken(&shared.looks),
            hosting_looks: taken(&shared.hosting_looks),
            look_every_us: self.look.as_micros() as u64,
            strain,
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn taken<T: Default>(of: &Mutex<T>) -> T {
    std::mem::take(&mut *of.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn node(&self, place: usize) -> Option<Whereabouts> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// Waits from one look to the next; whether there is one.
    fn again(&self, next: &mut Instant, between: Duration) -> bool {
        let is_over = || self.is_over.load(Ordering::Relaxed);
        // A look that took longer than it should is not made up for.
        *next = (*next + between).max(Instant::now());
        wait::until_instant(*next, is_over) && !is_over()
    }

    fn watch_states(&self, entry: usize, between: Duration) {
        let config = Agent::config_builder().timeout_global(Some(SAY_MAX)).proxy(None);
        let agent = config.build().new_agent();
        let mut known: BTreeMap<u16, (bool, bool)> = BTreeMap::new();
        let mut next = self.begun;
        while self.again(&mut next, between) {
            let Some(node) = self.node(entry) else { return };
            let said = agent.get(format!("{}/v1/nodes", node.api)).call();
            let Some(view) = said.ok().and_then(|mut said| said.body_mut().read_json::<NodesView>().ok())
            else {
                continue;
            };
            let at_us = self.now_us();
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let own = looks.entry(entry as u16).or_default();
            if own.len() < LOOKS_MAX {
                own.push(at_us);
            }
            drop(looks);
            let is_lost = |node: &NodeView| matches!(node.state, NodeState::Suspected | NodeState::Lost);
            let seen: BTreeMap<u16, (bool, bool)> = view
                .nodes
                .iter()
                .filter_map(|node| {
                    Some((*self.peers.get(&node.id.to_string())?, (node.usable, is_lost(node))))
                })
                .collect();
            for of in self.peers.values() {
                // One that it does not know (any more) it cannot use.
                let (is_usable, is_lost) = seen.get(of).copied().unwrap_or((false, true));
                if known.insert(*of, (is_usable, is_lost)).unwrap_or((true, false)) != (is_usable, is_lost) {
                    let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
                    if states.len() < CHANGES_MAX {
                        states.push(StateChange { at_us, by: entry as u16, of: *of, is_usable, is_lost });
                    }
                }
            }
        }
    }

    fn watch_hosting(&self, entry: usize, between: Duration) {
        let agent = Agent::config_builder().timeout_global(Some(SAY_MAX)).proxy(None).build().new_agent();
        let mut wanted: BTreeMap<String, Cover> = BTreeMap::new();
        let mut known = None;
        let mut next = self.begun;
        while self.again(&mut next, between) {
            let Some(node) = self.node(entry) else { return };
            let said = agent.get(format!("{}/v1/deployments", node.api)).call();
            let said = said.ok().and_then(|mut said| said.body_mut().read_json::<DeploymentsView>().ok());
            let Some(DeploymentsView { deployments }) = said else { continue };
            let mut looks = self.hosting_looks.lock().unwrap_or_else(PoisonError::into_inner);
            if looks.len() < LOOKS_MAX {
                looks.push(self.now_us());
            }
            drop(looks);
            for view in &deployments {
                wanted.entry(view.name.clone()).or_insert_with(|| cover(&view.hosts, |_| true));
            }
            let is_whole = wanted.iter().all(|(name, wanted)| {
                let view = deployments.iter().find(|view| view.name == *name);
                let there = view.map(|view| cover(&view.hosts, |state| state == DeploymentState::Ready));
                there.is_some_and(|there| is_covered(wanted, &there))
            });
            if known.replace(is_whole) != Some(is_whole) {
                let mut hosting = self.hosting.lock().unwrap_or_else(PoisonError::into_inner);
                if hosting.len() < CHANGES_MAX {
                    hosting.push(HostingChange { at_us: self.now_us(), is_whole });
                }
            }
        }
    }

    fn watch_usage(&self, between: Duration) {
        let count = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut next = self.begun;
        while self.again(&mut next, between) {
            let connected = connected_ports();
            for place in 0..count {
                let Some(node) = self.node(place) else { continue };
                // A node that is down takes nothing.
                let Some(mut usage) = usage_of(node.pid) else { continue };
                // As many as its callers want is no leak.
                usage.descriptors = usage.descriptors.saturating_sub(callers(&node.api, &connected));
                usage.at_us = self.now_us();
                usage.node = place as u16;
                usage.life = node.life;
                self.usage.lock().unwrap_or_else(PoisonError::into_inner).push(usage);
            }
        }
    }
}

/// On how many hosts each block of each variant is.
type Cover = BTreeMap<(String, u16), usize>;

fn cover(hosts: &[HostView], counts: impl Fn(DeploymentState) -> bool) -> Cover {
    let mut cover = Cover::new();
    for host in hosts.iter().filter(|host| counts(host.state)) {
        for block in host.blocks[0]..host.blocks[1] {
            *cover.entry((host.variant.clone(), block)).or_default() += 1;
        }
    }
    cover
}

fn is_covered(wanted: &Cover, there: &Cover) -> bool {
    wanted.iter().all(|(block, count)| there.get(block).is_some_and(|there| there >= count))
}

/// Port at the far end of each connection that is open here, of IPv4 (proc_pid_net(5)).
fn connected_ports() -> Vec<u16> {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    table.lines().skip(1).filter_map(established).collect()
}

/// The far port of one that is established.
fn established(line: &str) -> Option<u16> {
    let mut columns = line.split_whitespace().skip(2);
    let (_, port) = columns.next()?.rsplit_once(':')?;
    (columns.next()? == "01").then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

/// Connections to an API.
fn callers(api: &str, connected: &[u16]) -> u32 {
    let port = api.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    connected.iter().filter(|connected| Some(**connected) == port).count() as u32
}

/// What a process takes; `None` when it is gone.
fn usage_of(pid: u32) -> Option<Usage> {
    let ProcessStat { resident_bytes, threads, cpu_us, .. } = process_stat::of(pid)?;
    let descriptors = u32::try_from(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).ok()?;
    Some(Usage { at_us: 0, node: 0, life: 0, resident_bytes, descriptors, threads, cpu_us })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn parts_are_there_again_when_each_block_is_on_as_many_hosts() {
        let cover = |hosts: &[[u16; 2]]| {
            let mut cover = Cover::new();
            for block in hosts.iter().flat_map(|[first, end]| *first..*end) {
                *cover.entry(("base".to_owned(), block)).or_default() += 1;
            }
            cover
        };
        let wanted = cover(&[[0, 2], [2, 4], [0, 2], [2, 4]]);
        assert!(is_covered(&wanted, &cover(&[[0, 3], [3, 4], [0, 4]])), "divided otherwise");
        assert!(
            !is_covered(&wanted, &cover(&[[0, 2], [0, 2], [0, 2], [2, 4]])),
            "as many hosts of other parts"
        );
        assert!(!is_covered(&wanted, &Cover::new()));
    }

    #[test]
    fn callers_are_counted_while_they_are_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let api = format!("http://{address}");
        let count = || callers(&api, &connected_ports());
        assert_eq!(count(), 0);
        let clients: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(address).expect("connects")).collect();
        assert_eq!(count(), 3);
        drop(clients);
        assert_eq!(count(), 0);
    }
}

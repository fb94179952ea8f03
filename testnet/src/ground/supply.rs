//! The batteries of machines: drained by what their nodes really do, shown as Linux shows a battery, and their
//! machines off once they are empty.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cgroup::Machine;
use super::network::Network;
use crate::battery::{Battery, BatterySpec, Spent};
use crate::process_stat;
use crate::signals::{self, Signal};

/// Between two looks at what was spent.
const LOOK: Duration = Duration::from_millis(200);

/// A battery at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct BatteryState {
    /// Whose.
    pub label: String,
    /// Drawn so far, joules.
    pub drawn_j: f64,
    /// How full it is, 0 to 1.
    pub level: f64,
    /// Since when it is empty.
    pub empty_since: Option<Instant>,
}

/// A battery with its machine, and what was known of that at the last look.
#[derive(Debug)]
struct Supply {
    label: String,
    machine: Arc<Machine>,
    battery: Battery,
    folder: PathBuf,
    looked: Instant,
    /// Processor time of each process, microseconds.
    compute_us: BTreeMap<u32, u64>,
    busy_ns: (u64, u64),
    empty_since: Option<Instant>,
    was_empty: bool,
}

/// All batteries of a mesh, and the thread that drains them; ends with it.
#[derive(Debug)]
pub(super) struct Supplies {
    all: Arc<Mutex<Vec<Supply>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supplies {
    /// Batteries by their nodes' labels, and the folders that they are shown in.
    pub(super) fn start(
        batteries: Vec<(String, Arc<Machine>, BatterySpec, PathBuf)>,
        network: Arc<Network>,
    ) -> io::Result<Self> {
        let mut all = Vec::new();
        for (label, machine, spec, folder) in batteries {
            fs::create_dir_all(&folder)?;
            let battery = Battery::new(spec);
            show(&battery, &folder)?;
            let looked = Instant::now();
            let (compute_us, busy_ns, empty_since) = (BTreeMap::new(), (0, 0), None);
            let was_empty = false;
            all.push(Supply {
                label,
                machine,
                battery,
                folder,
                looked,
                compute_us,
                busy_ns,
                empty_since,
                was_empty,
            });
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let has_any = !all.is_empty();
        let all = Arc::new(Mutex::new(all));
        let (watched, ends) = (all.clone(), is_over.clone());
        let watch = move || {
            while !ends.load(Ordering::Relaxed) {
                let mut all = watched.lock().unwrap_or_else(PoisonError::into_inner);
                all.iter_mut().for_each(|supply| supply.look(&network));
                drop(all);
                thread::sleep(LOOK);
            }
        };
        let thread = has_any.then(|| thread::Builder::new().name("batteries".to_owned()).spawn(watch));
        Ok(Self { all, is_over, thread: thread.transpose()? })
    }

    pub(super) fn states(&self) -> Vec<BatteryState> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |supply: &Supply| BatteryState {
            label: supply.label.clone(),
            drawn_j: supply.battery.drawn_j(),
            level: supply.battery.level(),
            empty_since: supply.empty_since,
        };
        all.iter().map(state).collect()
    }

    /// Whether one was empty at some time, so that its machine was off.
    pub(super) fn was_empty(&self, label: &str) -> bool {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|supply| supply.label == label && supply.was_empty)
    }

    pub(super) fn set_level(&self, label: &str, level: f64) -> io::Result<()> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let supply = all.iter_mut().find(|supply| supply.label == label);
        let supply = supply.ok_or_else(|| io::Error::other("the topology gives it no `battery`"))?;
        supply.battery.set_level(level);
        Ok(())
    }
}

impl Drop for Supplies {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Supply {
    fn look(&mut self, network: &Network) {
        let now = Instant::now();
        let time_us = now.duration_since(std::mem::replace(&mut self.looked, now)).as_micros() as u64;
        // Without a switch there is no mesh any more; without power nothing is drawn.
        let Ok(Some(busy_ns)) = network.busy_ns(&self.label) else { return };
        let busy_us = |now_ns: u64, before_ns: u64| now_ns.saturating_sub(before_ns) / 1_000;
        let pids = self.machine.pids().into_iter();
        let compute_us: BTreeMap<u32, u64> =
            pids.filter_map(|pid| Some((pid, process_stat::of(pid)?.cpu_us))).collect();
        let since = |(pid, now_us): (&u32, &u64)| now_us - self.compute_us.get(pid).unwrap_or(&0).min(now_us);
        let spent = Spent {
            time_us,
            compute_us: compute_us.iter().map(since).sum(),
            send_us: busy_us(busy_ns.0, self.busy_ns.0),
            receive_us: busy_us(busy_ns.1, self.busy_ns.1),
        };
        (self.compute_us, self.busy_ns) = (compute_us, busy_ns);
        self.battery.draw(spent);
        // A folder that cannot be written is told by whoever reads it.
        let _ = show(&self.battery, &self.folder);
        if self.battery.is_empty() {
            self.power_off(network, now);
        } else {
            self.empty_since = None;
        }
    }

    /// The machine is off: nobody hears of it.
    fn power_off(&mut self, network: &Network, now: Instant) {
        let _ = network.set_power(&self.label, false);
        for pid in self.machine.pids() {
            let _ = signals::send(pid, Signal::Kill);
        }
        self.empty_since.get_or_insert(now);
        self.was_empty = true;
    }
}

/// Shows a battery in a folder, each file whole at any time.
fn show(battery: &Battery, folder: &Path) -> io::Result<()> {
    battery.power_supply().into_iter().try_for_each(|(name, value)| {
        let unfinished = folder.join(format!(".{name}"));
        fs::write(&unfinished, value + "\n")?;
        fs::rename(&unfinished, folder.join(name))
    })
}

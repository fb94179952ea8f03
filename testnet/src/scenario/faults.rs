//! The faults that a scenario can name.

use std::fmt;

use crate::link::LinkSpec;

/// A fault with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// Line of the file that it stands in.
    pub line: usize,
    /// What.
    pub kind: FaultKind,
    /// When, from the beginning of the load.
    pub at_us: u64,
    /// How long; `None`: it stays.
    pub for_us: Option<u64>,
}

/// Whom a fault is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The node of this label.
    Node(String),
    /// Whoever ran most of the answers of the second before, entries of loads apart: where nodes choose
    /// freely, a file cannot know who that will be.
    Busiest,
    /// A node that hosts blocks of a deployment, entries of loads apart, the first by label: who that is, nodes
    /// choose as well.
    Host,
}

/// The word for [`Target::Busiest`] in files.
pub(super) const BUSIEST: &str = "@busiest";
/// The word for [`Target::Host`].
pub(super) const HOST: &str = "@host";

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Node(label) => label,
            Self::Busiest => BUSIEST,
            Self::Host => HOST,
        })
    }
}

/// What is changed on a link; what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkChange {
    /// Rate.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that wait for it.
    pub queue_bytes: Option<u64>,
    /// One way.
    pub latency_us: Option<u64>,
    /// At most this much more.
    pub jitter_us: Option<u64>,
    /// Share of packets that are dropped.
    pub loss: Option<f64>,
    /// Share that is overtaken.
    pub reorder: Option<f64>,
    /// Share that comes twice.
    pub duplicate: Option<f64>,
    /// Share that is changed.
    pub corrupt: Option<f64>,
}

/// A fault.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// SIGKILL; healed by a start with the same data.
    Kill(Target),
    /// SIGKILL and a start at once.
    Restart(Target),
    /// SIGKILL while all its links are cut, so that nobody hears of it; healed by a start.
    PowerLoss(Target),
    /// It stands still; healed by letting it go on.
    Freeze(Target),
    /// A share of one core is left to it.
    Cpu(Target, f64),
    /// So much memory, in bytes, is left to it.
    Memory(Target, u64),
    /// Its disk, which must be one of its own, is filled to the last byte; healed by making room again.
    Disk(Target),
    /// Its battery, which it must have, is set to a share of its capacity; nothing undoes it.
    Battery(Target, f64),
    /// Its wall clock is off by so many seconds; the one that only counts goes on as it is.
    Clock(Target, f64),
    /// Rates of all that it sends and receives, bit/s; what is absent has no limit.
    Uplink {
        /// Whose.
        node: Target,
        /// Sent.
        up_bits_per_s: Option<u64>,
        /// Received.
        down_bits_per_s: Option<u64>,
    },
    /// A link gets worse, or better.
    Link {
        /// From.
        from: String,
        /// To.
        to: String,
        /// And back likewise.
        both_ways: bool,
        /// What changes.
        change: LinkChange,
    },
    /// Nothing passes.
    Cut {
        /// From.
        from: String,
        /// To.
        to: String,
        /// Nor back.
        both_ways: bool,
    },
    /// Nothing passes between groups; who is in none keeps all its links.
    Partition(Vec<Vec<String>>),
}

/// Every kind by its name in files.
pub(super) const KINDS: [&str; 13] = [
    "kill",
    "restart",
    "power_loss",
    "freeze",
    "cpu",
    "memory",
    "disk",
    "battery",
    "clock",
    "uplink",
    "link",
    "cut",
    "partition",
];

impl FaultKind {
    /// Its name in files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Restart(_) => "restart",
            Self::PowerLoss(_) => "power_loss",
            Self::Freeze(_) => "freeze",
            Self::Cpu(..) => "cpu",
            Self::Memory(..) => "memory",
            Self::Disk(_) => "disk",
            Self::Battery(..) => "battery",
            Self::Clock(..) => "clock",
            Self::Uplink { .. } => "uplink",
            Self::Link { .. } => "link",
            Self::Cut { .. } => "cut",
            Self::Partition(_) => "partition",
        }
    }

    /// Whether it takes links, processors or memory that are emulated.
    pub fn needs_emulation(&self) -> bool {
        !matches!(self, Self::Kill(_) | Self::Restart(_) | Self::Freeze(_) | Self::Clock(..))
    }

    /// The node that it is done to, if it is one.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Kill(target)
            | Self::Restart(target)
            | Self::PowerLoss(target)
            | Self::Freeze(target)
            | Self::Cpu(target, _)
            | Self::Memory(target, _)
            | Self::Disk(target)
            | Self::Battery(target, _)
            | Self::Clock(target, _)
            | Self::Uplink { node: target, .. } => Some(target),
            Self::Link { .. } | Self::Cut { .. } | Self::Partition(_) => None,
        }
    }

    /// The nodes and the ends of links that it names.
    pub(super) fn labels(&self) -> Vec<&str> {
        match self {
            Self::Link { from, to, .. } | Self::Cut { from, to, .. } => vec![from, to],
            Self::Partition(_) => Vec::new(),
            _ => match self.target() {
                Some(Target::Node(label)) => vec![label],
                _ => Vec::new(),
            },
        }
    }

    /// Whether two faults act on the same thing, so that undoing one would undo the other. A node that is chosen
    /// is no other fault's.
    pub fn shares_with(&self, other: &Self) -> bool {
        let is_same_node = || matches!((self.target(), other.target()), (Some(Target::Node(one)), Some(Target::Node(two))) if one == two);
        match (self, other) {
            (Self::Cpu(..), Self::Cpu(..))
            | (Self::Memory(..), Self::Memory(..))
            | (Self::Disk(_), Self::Disk(_))
            | (Self::Battery(..), Self::Battery(..))
            | (Self::Clock(..), Self::Clock(..))
            | (Self::Uplink { .. }, Self::Uplink { .. }) => is_same_node(),
            // A node that starts again may find a new disk; one that is down or stands still can be lost no
            // second time.
            (Self::Disk(_), other) | (other, Self::Disk(_)) if other.takes_down() => is_same_node(),
            (one, two) if one.takes_down() && two.takes_down() => is_same_node(),
            (Self::Partition(_), other) => other.is_way(),
            (one, Self::Partition(_)) => one.is_way(),
            (one, two) => match (one.ways(), two.ways()) {
                (Some(ones), Some(twos)) => {
                    ones.iter().flatten().any(|way| twos.iter().flatten().any(|other| way == other))
                }
                _ => false,
            },
        }
    }

    /// Whether it is done at once, and nothing undoes it.
    pub(super) fn is_momentary(&self) -> bool {
        matches!(self, Self::Restart(_) | Self::Battery(..))
    }

    /// Whether its node is lost, be it for want of power.
    fn takes_down(&self) -> bool {
        self.is_loss() || matches!(self, Self::Battery(_, level) if *level <= 0.0)
    }

    fn is_way(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Cut { .. } | Self::Partition(_))
    }

    /// The directions of a link that it acts on.
    fn ways(&self) -> Option<[Option<(&str, &str)>; 2]> {
        match self {
            Self::Link { from, to, both_ways, .. } | Self::Cut { from, to, both_ways } => {
                let back = both_ways.then_some((to.as_str(), from.as_str()));
                Some([Some((from, to)), back])
            }
            _ => None,
        }
    }

    /// Whether the node can neither hear nor answer anybody meanwhile.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::PowerLoss(_) | Self::Freeze(_) | Self::Restart(_))
    }

    /// Whether some nodes cannot hear some others meanwhile.
    pub fn is_split(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Partition(_))
    }

    /// In words, done to this node.
    pub fn told(&self, node: Option<&str>) -> String {
        let arrow = |both: bool| if both { "↔" } else { "→" };
        let node = node.unwrap_or("?");
        match self {
            Self::Kill(_) => format!("kill {node}"),
            Self::Restart(_) => format!("restart {node}"),
            Self::PowerLoss(_) => format!("power loss at {node}"),
            Self::Freeze(_) => format!("freeze {node}"),
            Self::Cpu(_, share) => format!("{node} has {} % of a core", share * 100.0),
            Self::Memory(_, bytes) => format!("{node} has {} MiB", bytes >> 20),
            Self::Disk(_) => format!("disk of {node} full"),
            Self::Battery(_, level) => format!("battery of {node} at {} %", level * 100.0),
            Self::Clock(_, offset_s) => format!("clock of {node} off by {offset_s:+} s"),
            Self::Uplink { up_bits_per_s, down_bits_per_s, .. } => {
                let rate = |rate: &Option<u64>| {
                    rate.map_or("no limit".to_owned(), |rate| format!("{} Mbit/s", rate as f64 / 1e6))
                };
                format!("{node} sends at {}, receives at {}", rate(up_bits_per_s), rate(down_bits_per_s))
            }
            Self::Link { from, to, both_ways, change } => {
                format!("link {from} {} {to}: {}", arrow(*both_ways), change.told())
            }
            Self::Cut { from, to, both_ways } => format!("cut {from} {} {to}", arrow(*both_ways)),
            Self::Partition(groups) => {
                let groups: Vec<String> = groups.iter().map(|group| group.join(" ")).collect();
                format!("partition {}", groups.join(" | "))
            }
        }
    }

    /// As it stands in a file, without its times.
    pub fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let mut set = |name: &str, value: toml::Value| {
            table.insert(name.to_owned(), value);
        };
        set("kind", self.name().into());
        if let Some(target) = self.target() {
            set("node", target.to_string().into());
        }
        match self {
            Self::Cpu(_, share) => set("cpu_share", (*share).into()),
            Self::Memory(_, bytes) => set("memory_bytes", number(*bytes)),
            Self::Battery(_, level) => set("level", (*level).into()),
            Self::Clock(_, offset_s) => set("offset_s", (*offset_s).into()),
            Self::Uplink { up_bits_per_s, down_bits_per_s, .. } => {
                let rates = [("up_bits_per_s", up_bits_per_s), ("down_bits_per_s", down_bits_per_s)];
                rates.into_iter().filter_map(|(name, rate)| Some((name, (*rate)?))).for_each(
                    |(name, rate)| {
                        set(name, number(rate));
                    },
                );
            }
            Self::Link { from, to, both_ways, .. } | Self::Cut { from, to, both_ways } => {
                set("from", from.clone().into());
                set("to", to.clone().into());
                set("both_ways", (*both_ways).into());
            }
            Self::Partition(groups) => set("groups", groups.clone().into()),
            _ => {}
        }
        if let Self::Link { change, .. } = self {
            change.fields().into_iter().for_each(|(name, value)| set(name, value));
        }
        table
    }
}

impl LinkChange {
    /// A link as it is then.
    pub fn of(&self, spec: &LinkSpec) -> LinkSpec {
        LinkSpec {
            rate_bits_per_s: self.rate_bits_per_s.or(spec.rate_bits_per_s),
            queue_bytes: self.queue_bytes.unwrap_or(spec.queue_bytes),
            latency_us: self.latency_us.unwrap_or(spec.latency_us),
            jitter_us: self.jitter_us.unwrap_or(spec.jitter_us),
            loss: self.loss.unwrap_or(spec.loss),
            reorder: self.reorder.unwrap_or(spec.reorder),
            duplicate: self.duplicate.unwrap_or(spec.duplicate),
            corrupt: self.corrupt.unwrap_or(spec.corrupt),
            cut: spec.cut,
        }
    }

    /// What it changes, by the names in files.
    pub(super) fn fields(&self) -> Vec<(&'static str, toml::Value)> {
        let ms = |us: u64| toml::Value::from(us as f64 / 1000.0);
        let named = [
            ("rate_bits_per_s", self.rate_bits_per_s.map(number)),
            ("queue_bytes", self.queue_bytes.map(number)),
            ("latency_ms", self.latency_us.map(ms)),
            ("jitter_ms", self.jitter_us.map(ms)),
            ("loss", self.loss.map(toml::Value::from)),
            ("reorder", self.reorder.map(toml::Value::from)),
            ("duplicate", self.duplicate.map(toml::Value::from)),
            ("corrupt", self.corrupt.map(toml::Value::from)),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn told(&self) -> String {
        let fields: Vec<String> =
            self.fields().iter().map(|(name, value)| format!("{name} {value}")).collect();
        fields.join(", ")
    }
}

/// TOML has signed numbers only.
fn number(value: u64) -> toml::Value {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}

impl Scheduled {
    /// As it stands in a file.
    pub fn table(&self) -> toml::Table {
        let seconds = |us: u64| toml::Value::from(us as f64 / 1e6);
        let mut table = self.kind.table();
        table.insert("at_s".to_owned(), seconds(self.at_us));
        if let Some(for_us) = self.for_us {
            table.insert("for_s".to_owned(), seconds(for_us));
        }
        table
    }
}

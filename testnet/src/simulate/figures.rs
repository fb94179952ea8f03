//! What is measured: how soon changes are known, the dead are suspected and views are equal again, and what
//! it costs.

use stormo::mesh::Belief;
use stormo_protocol::state::Stamp;

use super::host::{Host, KINDS, Kind};
use super::measured::{Busiest, Delays, FalseDeath, Measured, Rate, Spread};
use super::pipes::HostIndex;

/// A change in the last moments of a run has no time to be told, microseconds.
const LAST_US: u64 = 5_000_000;
const MINUTE_US: u64 = 60_000_000;
/// A change that is not known to all by then never will be, microseconds.
const CHANGE_US_MAX: u64 = 20_000_000;
/// Hosts whose view is looked at for false deaths; each sees all others.
pub(super) const OBSERVERS_MAX: usize = 100;
/// Of the false deaths so many are told one by one.
const FALSE_DEATHS_TOLD: usize = 10;
/// Between two such looks, microseconds.
const LOOK_US: u64 = 500_000;
/// A host counts for false deaths once it runs for so long, microseconds: it has to be heard first.
const SETTLED_US: u64 = 15_000_000;
/// And for what it says and hears once it runs for so long, microseconds: in this time a machine that joins is to be
/// seen by all, which its first connection and lost packets of it take.
const JOINS_US: u64 = 3_000_000;
/// What a partition or a cut leaves behind is over after this, microseconds: TCP repeats late.
const AFTERMATH_US: u64 = 60_000_000;

/// Something that a host said, on its way into all views.
#[derive(Debug)]
struct Change {
    stamp: Stamp,
    at_us: u64,
    /// Who was there when it was said.
    lacking: Vec<bool>,
    others: usize,
    times_us: Vec<u64>,
}

impl Change {
    /// When this share of the others knew it.
    fn known_us(&self, share: f64) -> Option<u64> {
        let count = ((self.others as f64 * share).ceil() as usize).max(1);
        let mut times_us = self.times_us.clone();
        times_us.sort_unstable();
        times_us.get(count - 1).copied()
    }
}

#[derive(Debug)]
struct Death {
    host: HostIndex,
    life: u32,
    at_us: u64,
    suspected_us: Option<u64>,
}

/// Everything that is counted during a run.
#[derive(Debug)]
pub(super) struct Figures {
    from_us: u64,
    formed_us: Option<u64>,
    changes: Vec<Change>,
    /// The change of each host that is under way.
    current: Vec<Option<usize>>,
    deaths: Vec<Death>,
    usable: Vec<Vec<bool>>,
    looked_us: u64,
    false_deaths: u64,
    /// By whom and when a node behind a cut way was dropped, microseconds.
    flips: Vec<(HostIndex, u64)>,
    one_way: Option<(HostIndex, HostIndex, u64, bool)>,
    /// Whether that way was cut between two who used each other.
    cut_a_link: bool,
    parted: Option<(u64, bool)>,
    healed_us: Option<u64>,
    sent_before: Vec<([u64; KINDS.len()], u64)>,
    refused: (u64, u64),
    wrongly_dropped: Vec<FalseDeath>,
}

impl Figures {
    pub(super) fn new(hosts: usize, from_us: u64) -> Self {
        Self {
            from_us,
            formed_us: None,
            changes: Vec::new(),
            current: vec![None; hosts],
            deaths: Vec::new(),
            usable: vec![vec![false; hosts]; hosts.min(OBSERVERS_MAX)],
            looked_us: 0,
            false_deaths: 0,
            flips: Vec::new(),
            one_way: None,
            cut_a_link: false,
            parted: None,
            healed_us: None,
            sent_before: Vec::new(),
            refused: (0, 0),
            wrongly_dropped: Vec::new(),
        }
    }

    /// Whether a host said something that is on its way.
    pub(super) fn awaits(&self, author: HostIndex) -> bool {
        self.current[usize::from(author)].is_some()
    }

    pub(super) fn changed(&mut self, now_us: u64, author: HostIndex, stamp: Stamp, hosts: &[Host]) {
        let parted = self.parted.is_some_and(|(since_us, cut)| cut || now_us < since_us + AFTERMATH_US);
        let joined = |host: &Host| host.alive && now_us >= host.started_us + JOINS_US;
        let is_followed = !parted && !self.awaits(author) && now_us >= self.from_us;
        if !is_followed || !joined(&hosts[usize::from(author)]) {
            return;
        }
        let lacking: Vec<bool> = hosts.iter().map(|host| joined(host) && host.index != author).collect();
        let others = lacking.iter().filter(|lacks| **lacks).count();
        self.current[usize::from(author)] = Some(self.changes.len());
        self.changes.push(Change { stamp, at_us: now_us, lacking, others, times_us: Vec::new() });
    }

    /// A host holds this record of another. Time in which it got no processor does not count: it could know nothing.
    pub(super) fn knows(&mut self, now_us: u64, host: &Host, author: HostIndex, stamp: Stamp) {
        let Some(change) = self.current[usize::from(author)].map(|place| &mut self.changes[place]) else {
            return;
        };
        if stamp >= change.stamp && std::mem::take(&mut change.lacking[usize::from(host.index)]) {
            change.times_us.push(now_us - change.at_us.max(host.paused_until_us).min(now_us));
            if change.times_us.len() >= change.others {
                self.current[usize::from(author)] = None;
            }
        }
    }

    pub(super) fn died(&mut self, now_us: u64, host: HostIndex, hosts: &[Host]) {
        let life = hosts[usize::from(host)].life;
        self.deaths.push(Death { host, life, at_us: now_us, suspected_us: None });
        // What it had not told all is told no further, and the dead learn nothing any more.
        if let Some(change) = self.current[usize::from(host)].take().map(|place| &mut self.changes[place]) {
            change.others = change.times_us.len();
            change.lacking.fill(false);
        }
        for change in &mut self.changes {
            if std::mem::take(&mut change.lacking[usize::from(host)]) {
                change.others -= 1;
            }
        }
    }

    pub(super) fn one_way(&mut self, now_us: u64, from: &Host, to: &Host, cut: bool) {
        if cut {
            let uses = |one: &Host, other: &Host| one.member.view().is_usable(one.clock_ms(now_us), other.id);
            self.cut_a_link = uses(from, to) && uses(to, from);
        }
        let (from, to) = (from.index, to.index);
        self.one_way = Some((from, to, now_us, cut));
    }

    /// Where the way leads that is cut in one direction.
    pub(super) fn cut_to(&self) -> Option<HostIndex> {
        self.one_way.map(|(_, to, ..)| to)
    }

    pub(super) fn partition(&mut self, now_us: u64, cut: bool) {
        // What was on its way is told to some much later.
        for current in self.current.iter_mut().filter_map(|current| current.take()) {
            self.changes[current].others = self.changes[current].times_us.len();
        }
        self.parted = Some((now_us, cut));
    }

    /// A stream of gossip was refused; perhaps the connection carries none from now on.
    pub(super) fn refused(&mut self, silenced: bool) {
        self.refused.0 += 1;
        self.refused.1 += u64::from(silenced);
    }

    pub(super) fn observe(&mut self, now_us: u64, hosts: &[Host]) {
        let late = |change: &Change| now_us > change.at_us + CHANGE_US_MAX;
        for current in &mut self.current {
            *current = current.filter(|place| !late(&self.changes[*place]));
        }
        if self.sent_before.is_empty() && now_us >= self.from_us {
            self.sent_before = hosts.iter().map(|host| (host.sent_bytes, host.received_bytes)).collect();
        }
        self.observe_deaths(now_us, hosts);
        if self.formed_us.is_none() && hosts.iter().all(|host| host.alive) && all_see_all(hosts) {
            self.formed_us = Some(now_us);
        }
        if let Some((healed_us, false)) = self.parted
            && self.healed_us.is_none()
            && all_see_all(hosts)
        {
            self.healed_us = Some(now_us - healed_us);
        }
        if now_us >= self.looked_us + LOOK_US {
            self.looked_us = now_us;
            self.look(now_us, hosts);
        }
    }

    fn observe_deaths(&mut self, now_us: u64, hosts: &[Host]) {
        for death in self.deaths.iter_mut().filter(|death| death.suspected_us.is_none()) {
            let victim = &hosts[usize::from(death.host)];
            // Who gets no processor plans nothing.
            let runs = |host: &Host| host.alive && host.paused_until_us <= now_us;
            let held =
                |host: &Host| runs(host) && host.member.view().is_usable(host.clock_ms(now_us), victim.id);
            if victim.life == death.life && !hosts.iter().any(held) {
                death.suspected_us = Some(now_us - death.at_us);
            }
        }
    }

    /// Who was usable to an observer and is no longer, although nothing happened to it.
    fn look(&mut self, now_us: u64, hosts: &[Host]) {
        let settled = |host: &Host| host.alive && now_us > host.started_us + SETTLED_US;
        let parted = self.parted.is_some_and(|(since_us, cut)| cut || now_us < since_us + AFTERMATH_US);
        for (observer, usable) in hosts.iter().zip(&mut self.usable) {
            let (clock_ms, view) = (observer.clock_ms(now_us), observer.member.view());
            for (other, before) in hosts.iter().zip(usable) {
                let now = view.is_usable(clock_ms, other.id);
                let was = std::mem::replace(before, now);
                if !was || now || now_us < self.from_us || !settled(observer) || !settled(other) {
                    continue;
                }
                let between = |(from, to, since_us, cut): (HostIndex, HostIndex, u64, bool)| {
                    let pair = [observer.index, other.index];
                    pair.contains(&from) && pair.contains(&to) && (cut || now_us < since_us + AFTERMATH_US)
                };
                if self.one_way.is_some_and(between) {
                    self.flips.push((observer.index, now_us));
                } else if !parted {
                    self.false_deaths += 1;
                    if self.wrongly_dropped.len() < FALSE_DEATHS_TOLD {
                        let (belief, heard_ms) = view
                            .get(other.id)
                            .map_or((None, 0), |known| (Some(known.belief()), known.heard_ms));
                        self.wrongly_dropped.push(FalseDeath {
                            at_s: now_us as f64 / 1e6,
                            by: observer.index,
                            of: other.index,
                            silent_s: clock_ms.saturating_sub(heard_ms) as f64 / 1e3,
                            connection_lost: belief == Some(Belief::Lost),
                        });
                    }
                }
            }
        }
    }

    fn flips_in_a_minute(&self) -> usize {
        let within = |first: &(HostIndex, u64)| {
            let same = |next: &&(HostIndex, u64)| {
                next.0 == first.0 && (first.1..first.1 + MINUTE_US).contains(&next.1)
            };
            self.flips.iter().filter(same).count()
        };
        self.flips.iter().map(within).max().unwrap_or(0)
    }

    /// What each host sent, by kind, and received since the start of the measurement, bytes a second.
    fn rates<'a>(
        &'a self,
        now_us: u64,
        hosts: &'a [Host],
    ) -> impl Iterator<Item = ([f64; KINDS.len()], f64)> + 'a {
        let measured_s = (now_us.saturating_sub(self.from_us)) as f64 / 1e6;
        hosts.iter().zip(&self.sent_before).map(move |(host, (sent, received))| {
            let since = |kind: usize| (host.sent_bytes[kind] - sent[kind]) as f64 / measured_s;
            (std::array::from_fn(since), (host.received_bytes - received) as f64 / measured_s)
        })
    }

    /// All of it as a report's part.
    pub(super) fn report(&self, now_us: u64, hosts: &[Host], work_s: f64) -> Measured {
        let known = |share| {
            let is_told = |change: &&Change| change.others > 0 && change.at_us + LAST_US <= now_us;
            let told = self.changes.iter().filter(is_told);
            let times: Vec<Option<u64>> = told.map(|change| change.known_us(share)).collect();
            Spread::of(&times)
        };
        let suspected: Vec<Option<u64>> = self.deaths.iter().map(|death| death.suspected_us).collect();
        let sent: Vec<[f64; KINDS.len()]> = self.rates(now_us, hosts).map(|(sent, _)| sent).collect();
        let mean_of =
            |kind: Kind| sent.iter().map(|sent| sent[kind as usize]).sum::<f64>() / sent.len().max(1) as f64;
        Measured {
            formed_ms: self.formed_us.map(|time| time as f64 / 1_000.0),
            changes: self.changes.len(),
            known_to_half_ms: known(0.5),
            known_to_99_percent_ms: known(0.99),
            known_to_all_ms: known(1.0),
            delays: Delays::of(
                self.changes.iter().flat_map(|change| change.times_us.iter().copied()).collect(),
            ),
            deaths: self.deaths.len(),
            dead_suspected_by_all_ms: Spread::of(&suspected),
            false_deaths: self.false_deaths,
            wrongly_dropped: self.wrongly_dropped.clone(),
            flips_under_one_way_cut: self.flips.len(),
            flips_in_a_minute: self.one_way.filter(|_| self.cut_a_link).map(|_| self.flips_in_a_minute()),
            views_equal_after_heal_ms: self.parted.map(|_| self.healed_us.map(|time| time as f64 / 1_000.0)),
            sent_bytes_per_s: Rate::of(sent.iter().map(own_bytes)),
            received_bytes_per_s: Rate::of(self.rates(now_us, hosts).map(|(_, received)| received)),
            sent_by_kind: KINDS.iter().map(|(kind, name)| (*name, mean_of(*kind))).collect(),
            busiest: busiest(&sent, hosts),
            gossip_degree: hosts.iter().map(|host| host.gossip.degree()).sum::<usize>() as f64
                / hosts.len() as f64,
            connections: hosts.iter().map(|host| host.peers.len()).sum::<usize>() as f64 / hosts.len() as f64,
            gossip_streams_refused: self.refused.0,
            connections_without_gossip: self.refused.1,
            work_s,
        }
    }
}

/// What the mesh costs by itself: requests carry their tensors besides.
fn own_bytes(sent: &[f64; KINDS.len()]) -> f64 {
    sent.iter().sum::<f64>() - sent[Kind::Work as usize]
}

/// The node that sent most, by what it was for.
fn busiest(sent: &[[f64; KINDS.len()]], hosts: &[Host]) -> Busiest {
    let most =
        sent.iter().zip(hosts).max_by(|(one, _), (other, _)| own_bytes(one).total_cmp(&own_bytes(other)));
    let Some((sent, host)) = most else { return Busiest::default() };
    Busiest {
        node: host.index,
        connections: host.peers.len(),
        sent_by_kind: KINDS.iter().zip(sent).map(|((_, name), bytes)| (*name, *bytes)).collect(),
    }
}

/// Whether all views are equal: each host believes all others that live to be alive. (What came and went is perhaps
/// not used yet.)
fn all_see_all(hosts: &[Host]) -> bool {
    let alive = || hosts.iter().filter(|host| host.alive);
    alive().all(|host| {
        let believes = |id| host.member.view().get(id).is_some_and(|known| known.belief() == Belief::Alive);
        alive().all(|other| other.index == host.index || believes(other.id))
    })
}

//! What happens in the mesh as this node sees it, told to whoever watches; and how requests go that enter
//! here. A watcher that does not keep up misses events, and nobody waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::state::{NodeRecord, Offer};
use tokio::sync::broadcast;

use super::Driver;
use crate::app::plan_table::Figures;
use crate::serve::json::{EventView, Health, NodeNamed, NodeState, RequestsView, What};

/// Ticks between two looks at nodes and deployments, while somebody watches and while nobody does: 200 ms, 1 s.
const LOOK_TICKS: [u64; 2] = [2, 10];
/// Requests that end within this time make the figures of `/v1/requests`.
const WINDOW: Duration = Duration::from_secs(10);
/// And at most so many of them.
const ENDED_MAX: usize = 16_384;

/// What of a node is told when it changes.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    state: NodeState,
    label: String,
    offer: Offer,
    hosted: Vec<(VariantId, u16, u16)>,
}

impl Seen {
    fn of(record: &NodeRecord, state: NodeState) -> Self {
        let hosted = record.hosted.iter().map(|hosted| (hosted.variant, hosted.first, hosted.end));
        Self { state, label: record.machine.label.clone(), offer: record.offer, hosted: hosted.collect() }
    }
}

/// What watchers were told of the mesh, to tell them what is another since.
#[derive(Debug, Default)]
struct Told {
    nodes: BTreeMap<NodeId, Seen>,
    deployments: BTreeMap<String, (u64, Option<Health>)>,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: Instant,
    /// `None` where it failed.
    latency_ms: Option<f64>,
}

/// The watchers, and what there is to tell them.
#[derive(Debug)]
pub(super) struct Watching {
    events: broadcast::Sender<EventView>,
    sequence: u64,
    /// `None` before the first look.
    told: Option<Told>,
    ended: VecDeque<Ended>,
    answered: u64,
    failed: u64,
}

impl Watching {
    pub(super) fn new(events: broadcast::Sender<EventView>) -> Self {
        Self { events, sequence: 0, told: None, ended: VecDeque::new(), answered: 0, failed: 0 }
    }

    /// Tells all watchers; what it is about is put into words only if there are some.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> What) {
        if self.events.receiver_count() == 0 {
            return;
        }
        self.sequence += 1;
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        // The last watcher may have gone just now.
        let _ = self.events.send(EventView { sequence: self.sequence, unix_ms, what: what() });
    }

    /// Counts a request that ended.
    pub(super) fn count(&mut self, latency_ms: Option<f64>) {
        match latency_ms {
            Some(_) => self.answered += 1,
            None => self.failed += 1,
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { at: Instant::now(), latency_ms });
    }

    fn requests(
        &mut self,
        under_way: usize,
        running: Duration,
        (plans, hedged): (Figures, u64),
    ) -> RequestsView {
        let now = Instant::now();
        let was_full = self.ended.len() >= ENDED_MAX;
        while self.ended.front().is_some_and(|ended| now.duration_since(ended.at) > WINDOW) {
            self.ended.pop_front();
        }
        let oldest = self.ended.front().map(|ended| now.duration_since(ended.at));
        let window = if was_full { oldest.unwrap_or(WINDOW) } else { WINDOW.min(running) };
        let mut answered: Vec<f64> = self.ended.iter().filter_map(|ended| ended.latency_ms).collect();
        answered.sort_by(f64::total_cmp);
        let at = |share: f64| {
            answered.get(((answered.len() as f64 * share) as usize).min(answered.len().max(1) - 1))
        };
        let seconds = window.as_secs_f64().max(0.001);
        RequestsView {
            under_way,
            answered: self.answered,
            failed: self.failed,
            plans_looked_up: plans.looked_up,
            plans_made: plans.missed,
            hedged,
            window_ms: window.as_millis() as u64,
            answered_per_s: answered.len() as f64 / seconds,
            failed_per_s: (self.ended.len() - answered.len()) as f64 / seconds,
            p50_ms: at(0.5).copied(),
            p99_ms: at(0.99).copied(),
        }
    }
}

impl Driver {
    pub(super) fn requests_view(&mut self) -> RequestsView {
        let (under_way, running) = (self.origins.len(), self.started.elapsed());
        let figures = (self.plan_figures(), self.hedging.begun);
        self.watching.requests(under_way, running, figures)
    }

    /// Looks for what is another than watchers know.
    pub(super) fn watch_tick(&mut self) {
        // Also while nobody watches: what happens between a watcher's coming and the next look is news.
        let is_watched = self.watching.events.receiver_count() > 0;
        if !self.ticks.is_multiple_of(LOOK_TICKS[usize::from(!is_watched)]) {
            return;
        }
        let now = Told { nodes: self.nodes_seen(), deployments: self.deployments_seen() };
        // What the first look finds is no news.
        let Some(before) = self.watching.told.replace(now) else { return };
        let mut news = Vec::new();
        if let Some(now) = &self.watching.told {
            nodes_news(&before.nodes, &now.nodes, &mut news);
            deployments_news(&before.deployments, &now.deployments, &mut news);
        }
        for what in news {
            self.watching.tell(|| what);
        }
    }

    fn nodes_seen(&self) -> BTreeMap<NodeId, Seen> {
        let own = self.record();
        let mut seen = BTreeMap::from([(own.node, Seen::of(&own, self.own_state_now()))]);
        seen.extend(
            self.member
                .view()
                .iter()
                .map(|known| (known.record.node, Seen::of(&known.record, self.state_of_other(known)))),
        );
        seen
    }

    fn deployments_seen(&self) -> BTreeMap<String, (u64, Option<Health>)> {
        let all = self.deployments_view().deployments.into_iter();
        all.map(|view| (view.name, (view.version, view.health.and_then(|health| health.state)))).collect()
    }
}

fn nodes_news(before: &BTreeMap<NodeId, Seen>, now: &BTreeMap<NodeId, Seen>, news: &mut Vec<What>) {
    for (node, seen) in now {
        let named = || NodeNamed { node: *node, label: seen.label.clone() };
        let Some(was) = before.get(node) else {
            news.push(What::NodeJoined(named()));
            continue;
        };
        if was.state != seen.state {
            news.push(match seen.state {
                NodeState::Usable => What::NodeReturned(named()),
                NodeState::Suspected => What::NodeSuspected(named()),
                NodeState::Lost => What::NodeLost(named()),
                NodeState::Leaving => What::NodeLeft(named()),
            });
        }
        if (&was.label, was.offer, &was.hosted) != (&seen.label, seen.offer, &seen.hosted) {
            news.push(What::NodeChanged(named()));
        }
    }
    // Who said goodbye was told of then.
    let gone = before.iter().filter(|(node, was)| !now.contains_key(node) && was.state != NodeState::Leaving);
    news.extend(gone.map(|(node, was)| What::NodeLeft(NodeNamed { node: *node, label: was.label.clone() })));
}

type Deployments = BTreeMap<String, (u64, Option<Health>)>;

fn deployments_news(before: &Deployments, now: &Deployments, news: &mut Vec<What>) {
    for (model, (version, health)) in now {
        let was = before.get(model);
        if was.is_none_or(|(before, _)| before != version) {
            news.push(What::Deployed { model: model.clone(), version: *version });
        }
        // Nobody serves what was just wished; hosts may be ready before the first look at it.
        let before = was.and_then(|(_, health)| *health).unwrap_or(Health::Down);
        if let Some(now) = health.filter(|now| *now != before) {
            news.push(What::HealthChanged { model: model.clone(), before, now });
        }
    }
    let gone = before.keys().filter(|model| !now.contains_key(*model));
    news.extend(gone.map(|model| What::Undeployed { model: model.clone() }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: NodeState, blocks: &[u16]) -> Seen {
        let variant = VariantId { deployment: stormo_protocol::ids::DeploymentId([1; 16]), index: 0 };
        let hosted = blocks.iter().map(|first| (variant, *first, first + 1)).collect();
        Seen { state, label: "n".into(), offer: Offer::default(), hosted }
    }

    fn told(before: Option<Seen>, now: Option<Seen>) -> Vec<What> {
        let node = NodeId([1; 32]);
        let map = |seen: Option<Seen>| seen.map(|seen| (node, seen)).into_iter().collect();
        let mut news = Vec::new();
        nodes_news(&map(before), &map(now), &mut news);
        news
    }

    #[test]
    fn each_change_of_a_node_is_told_once() {
        use NodeState::{Leaving, Lost, Suspected, Usable};
        let named = || NodeNamed { node: NodeId([1; 32]), label: "n".into() };
        let of = |state| Some(seen(state, &[0]));
        assert_eq!(told(None, of(Usable)), [What::NodeJoined(named())]);
        assert_eq!(told(of(Usable), of(Usable)), []);
        assert_eq!(told(of(Usable), of(Suspected)), [What::NodeSuspected(named())]);
        assert_eq!(told(of(Suspected), of(Lost)), [What::NodeLost(named())]);
        assert_eq!(told(of(Lost), of(Usable)), [What::NodeReturned(named())]);
        assert_eq!(told(of(Usable), of(Leaving)), [What::NodeLeft(named())]);
        assert_eq!(told(of(Leaving), None), []);
        assert_eq!(told(of(Lost), None), [What::NodeLeft(named())]);
        assert_eq!(told(of(Usable), Some(seen(Usable, &[0, 1]))), [What::NodeChanged(named())]);
    }

    #[test]
    fn deployments_come_change_and_go() {
        let map = |version, health| Deployments::from([("m".to_owned(), (version, health))]);
        let told = |before: &Deployments, now: &Deployments| {
            let mut news = Vec::new();
            deployments_news(before, now, &mut news);
            news
        };
        let (none, model) = (Deployments::new(), || "m".to_owned());
        let (ready, down) = (map(1, Some(Health::Ready)), map(1, Some(Health::Down)));
        let better = What::HealthChanged { model: model(), before: Health::Down, now: Health::Ready };
        assert_eq!(told(&none, &ready), [What::Deployed { model: model(), version: 1 }, better]);
        assert_eq!(told(&none, &down), [What::Deployed { model: model(), version: 1 }]);
        assert_eq!(told(&ready, &none), [What::Undeployed { model: model() }]);
        let worse = What::HealthChanged { model: model(), before: Health::Ready, now: Health::Down };
        assert_eq!(told(&ready, &down), [worse]);
        assert_eq!(told(&ready, &map(2, None)), [What::Deployed { model: model(), version: 2 }]);
    }

    #[test]
    fn figures_of_requests() {
        let (events, _) = broadcast::channel(4);
        let mut watching = Watching::new(events);
        let none = watching.requests(3, Duration::from_secs(60), (Figures::default(), 0));
        assert_eq!((none.under_way, none.answered, none.p50_ms, none.p99_ms), (3, 0, None, None));
        (1..=100).for_each(|ms| watching.count(Some(f64::from(ms))));
        watching.count(None);
        let some = watching.requests(0, Duration::from_secs(60), (Figures::default(), 0));
        assert_eq!((some.answered, some.failed, some.window_ms), (100, 1, 10_000));
        assert_eq!((some.p50_ms, some.p99_ms), (Some(51.0), Some(100.0)));
        assert_eq!((some.answered_per_s, some.failed_per_s), (10.0, 0.1));
    }
}

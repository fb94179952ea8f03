//! Load from outside: requests over HTTP, in closed loops or at times that nothing delays, each followed
//! from its intended time to its end. One thread sends and reads, one keeps the time; both together stay
//! light, since they share the machine with what they measure.
//!
//! What can be seen from here, and what not: a request is *sent* when its last byte is with this machine's
//! kernel. Whether the node has read it is known only when it answers; one that is sent and then dies with
//! its connection may have been read or not, and counts as accepted. Two answers to one request show as
//! bytes that nobody waits for on its connection, or as an answer that carries another one's id.

mod answer;
mod arrivals;
mod connection;
mod record;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::counted::counted;
pub use crate::generator::arrivals::{ARRIVALS_MAX, Arrival, arrivals};
use crate::generator::connection::{Broken, Connections};
pub use crate::generator::record::Recorded;
use crate::generator::record::{End, Exchange, Recorder};
use crate::history::Outcome;
use crate::wait;

/// Requests under way at one node: many more than the 352 that it takes, so that it has time to refuse, and below the 512
/// connections that it takes, so that others can ask it too.
const UNDER_WAY_MAX: usize = 490;
/// What is more waits so long for its turn, and is looked after so often. A jump of the load meets nodes that first have to take as
/// many connections.
const TURN_MAX: Duration = Duration::from_millis(250);
const TURN_LOOK: Duration = Duration::from_millis(2);
/// Beyond its deadline a node has this long to say that it is over.
pub const GRACE: Duration = Duration::from_secs(5);
/// A caller of a closed loop waits so long after what cost no time: a refused connection.
const PAUSE: Duration = Duration::from_millis(20);
/// Arrivals that wait to be sent: more are more than can be under way.
const DUE_MAX: usize = 4096;
/// An arrival that is due when the load is told to end may be so late.
const LATE_AT_END_MAX: Duration = Duration::from_secs(1);

/// A request's bytes but for its id.
#[derive(Debug, Clone)]
pub struct Body {
    /// JSON behind the id.
    pub head: Arc<str>,
    /// Binary tensors.
    pub tensors: Arc<[u8]>,
}

/// One load to send.
#[derive(Debug, Clone)]
pub struct Course {
    /// Path of the call.
    pub path: String,
    /// The inputs.
    pub bodies: Vec<Body>,
    /// Places of the nodes where requests enter.
    pub at: Vec<u16>,
    /// When.
    pub pace: CoursePace,
    /// Deadline of each.
    pub timeout: Duration,
}

/// When requests of a course are sent.
#[derive(Debug, Clone)]
pub enum CoursePace {
    /// By callers that wait for their answers.
    Closed {
        /// How many.
        clients: u16,
        /// From when, since the load's beginning.
        from_us: u64,
        /// Until when.
        until_us: u64,
    },
    /// At these times.
    Open(Arc<[Arrival]>),
}

/// What threads share.
#[derive(Debug)]
struct Shared {
    begun: Instant,
    ids: String,
    addresses: Mutex<Vec<Option<SocketAddr>>>,
    recorder: Mutex<Recorder>,
    is_over: AtomicBool,
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn address(&self, entry: u16) -> Option<SocketAddr> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(usize::from(entry)).copied().flatten()
    }

    fn recorder(&self) -> std::sync::MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Generator {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Generator {
    /// Begins. `ids` is what the ids of its requests start with; `addresses` are those of the nodes' APIs;
    /// `begun` is where times count from.
    pub fn begin(
        courses: Vec<Course>,
        ids: String,
        addresses: Vec<Option<SocketAddr>>,
        begun: Instant,
    ) -> Self {
        let shared = Arc::new(Shared {
            begun,
            ids,
            addresses: Mutex::new(addresses),
            recorder: Mutex::new(Recorder::default()),
            is_over: AtomicBool::new(false),
        });
        let (due, dues) = mpsc::channel(DUE_MAX);
        let courses: Arc<[Course]> = courses.into();
        let (clock, sender) = (shared.clone(), shared.clone());
        let schedule = merged(&courses);
        let threads = vec![
            thread::spawn(move || keep_time(&clock, &schedule, &due)),
            thread::spawn(move || send_all(&sender, &courses, dues)),
        ];
        Self { shared, threads }
    }

    /// A node answers elsewhere now, or nowhere.
    pub fn set_address(&self, node: u16, address: Option<SocketAddr>) {
        let mut addresses = self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get_mut(usize::from(node)) {
            *known = address;
        }
    }

    /// Peer ids of those who ran the answers since a time, each as often as it did.
    pub fn ran_since(&self, since_us: u64) -> Vec<String> {
        self.shared.recorder().ran_since(since_us)
    }

    /// Requests that have ended so far.
    pub fn count(&self) -> usize {
        self.shared.recorder().count()
    }

    /// Sends no more.
    pub fn stop(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }

    /// Waits until every request has ended, which each does within its deadline and a grace, and tells all.
    pub fn end(self) -> Recorded {
        let mut busy = Duration::ZERO;
        let mut faults = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(time) => busy += time,
                Err(_) => faults.push("a thread of the load generator panicked".to_owned()),
            }
        }
        let recorder = std::mem::take(&mut *self.shared.recorder());
        recorder.told(busy, faults)
    }
}

/// What is due, and when: course, arrival.
type Due = (u16, Arrival);

fn merged(courses: &[Course]) -> Vec<Due> {
    let mut all: Vec<Due> = Vec::new();
    for (place, course) in courses.iter().enumerate() {
        if let CoursePace::Open(arrivals) = &course.pace {
            all.extend(arrivals.iter().map(|arrival| (place as u16, *arrival)));
        }
    }
    all.sort_by_key(|(_, arrival)| arrival.at_us);
    all
}

/// Hands out each arrival at its time; the timer of the asynchronous runtime counts milliseconds only.
fn keep_time(shared: &Shared, schedule: &[Due], due: &mpsc::Sender<Due>) -> Duration {
    let mut late_max = Duration::ZERO;
    for (place, (course, arrival)) in schedule.iter().enumerate() {
        let at = shared.begun + Duration::from_micros(arrival.at_us);
        let is_on_time = wait::until_instant(at, || shared.is_over.load(Ordering::Relaxed));
        let late = Instant::now().saturating_duration_since(at);
        // What is due when the load is told to end is sent as long as it is little late.
        if !is_on_time && (late.is_zero() || late > LATE_AT_END_MAX) {
            let unsent = schedule.len() - place;
            let what = format!(
                "{unsent} of {}: never sent, since the load had ended",
                counted(schedule.len(), "request")
            );
            shared.recorder().fault(what);
            break;
        }
        late_max = late_max.max(late);
        if due.try_send((*course, *arrival)).is_err() {
            let mut recorder = shared.recorder();
            let serial = recorder.next_serial();
            recorder.end(
                serial,
                &shared.ids,
                *course,
                *arrival,
                Exchange::unsent(shared.begun, Outcome::Shed),
            );
        }
    }
    shared.recorder().late_max = late_max;
    wait::thread_time()
}

fn send_all(shared: &Arc<Shared>, courses: &Arc<[Course]>, mut dues: mpsc::Receiver<Due>) -> Duration {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
        shared.recorder().fault("no runtime for the load generator".to_owned());
        return Duration::ZERO;
    };
    runtime.block_on(async {
        let connections = Connections::default();
        let mut under_way = JoinSet::new();
        for (place, course) in courses.iter().enumerate() {
            if let CoursePace::Closed { clients, from_us, until_us } = course.pace {
                for client in 0..clients {
                    let caller = Caller {
                        shared: shared.clone(),
                        courses: courses.clone(),
                        course: place as u16,
                        connections: connections.clone(),
                    };
                    under_way.spawn(caller.call_on(client, from_us, until_us));
                }
            }
        }
        while let Some((course, arrival)) = dues.recv().await {
            while under_way.try_join_next().is_some() {}
            let caller = Caller {
                shared: shared.clone(),
                courses: courses.clone(),
                course,
                connections: connections.clone(),
            };
            under_way.spawn(caller.call(arrival));
        }
        while under_way.join_next().await.is_some() {}
        shared.recorder().unasked += connections.unasked_at_end();
    });
    wait::thread_time()
}

/// Who sends one request, or one after the other.
struct Caller {
    shared: Arc<Shared>,
    courses: Arc<[Course]>,
    course: u16,
    connections: Connections,
}

impl Caller {
    /// A closed loop.
    async fn call_on(self, client: u16, from_us: u64, until_us: u64) {
        tokio::time::sleep_until((self.shared.begun + Duration::from_micros(from_us)).into()).await;
        let Some(course) = self.courses.get(usize::from(self.course)) else { return };
        let (entries, inputs) = (course.at.len(), course.bodies.len());
        for turn in usize::from(client).. {
            let at_us = self.shared.now_us();
            let is_over = at_us >= until_us || self.shared.is_over.load(Ordering::Relaxed);
            if is_over || entries == 0 || inputs == 0 {
                return;
            }
            if self.shared.recorder().count() >= ARRIVALS_MAX {
                let told = format!("the load ended early, after {ARRIVALS_MAX} requests: more are not kept");
                return self.shared.recorder().fault(told);
            }
            let arrival = Arrival { at_us, entry: course.at[turn % entries], input: (turn % inputs) as u16 };
            let cost_time = self.send(arrival).await;
            if !cost_time {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn call(self, arrival: Arrival) {
        self.send(arrival).await;
    }

    async fn exchange(
        &self,
        entry: u16,
        address: SocketAddr,
        request: &[Vec<u8>],
        until: Instant,
    ) -> Exchange {
        let begun = self.shared.begun;
        let (sent_us, ended) = self.connections.exchange(entry, address, request, until, begun).await;
        let mut recorder = self.shared.recorder();
        let end = match ended {
            Ok(response) => End::Response(response),
            Err(Broken::NotConnected(error)) => {
                End::Outcome(Outcome::NotConnected { error: recorder.name(&error.to_string()) })
            }
            Err(Broken::Lost(error)) => {
                End::Outcome(Outcome::Broken { error: recorder.name(&error.to_string()) })
            }
            Err(Broken::NoHttp(what)) => End::Outcome(Outcome::Malformed { error: recorder.name(&what) }),
            Err(Broken::Silent) => End::Outcome(Outcome::Silent),
        };
        Exchange { sent_us, ended_us: self.shared.now_us(), end }
    }

    /// Whether an entry ends enough of its requests in time that another may be sent. The wait counts as
    /// latency, as that is from when the request was meant to be sent.
    async fn wait_for_turn(&self, entry: u16) -> bool {
        let until = Instant::now() + TURN_MAX;
        loop {
            if self.connections.under_way(entry) < UNDER_WAY_MAX {
                return true;
            }
            if Instant::now() >= until || self.shared.is_over.load(Ordering::Relaxed) {
                return false;
            }
            tokio::time::sleep(TURN_LOOK).await;
        }
    }

    /// Sends one and notes how it ended; whether it ever was on its way.
    async fn send(&self, arrival: Arrival) -> bool {
        let Some(course) = self.courses.get(usize::from(self.course)) else { return false };
        let serial = self.shared.recorder().next_serial();
        let begun = self.shared.begun;
        let has_turn = self.wait_for_turn(arrival.entry).await;
        let sent = match self.shared.address(arrival.entry) {
            _ if !has_turn => Exchange::unsent(begun, Outcome::Shed),
            None => {
                let error = self.shared.recorder().name("the node is down");
                Exchange::unsent(begun, Outcome::NotConnected { error })
            }
            Some(address) => {
                let id = format!("{}-{serial}", self.shared.ids);
                let request =
                    connection::request(&course.path, &id, &course.bodies[usize::from(arrival.input)]);
                let until = Instant::now() + course.timeout + GRACE;
                self.exchange(arrival.entry, address, &request, until).await
            }
        };
        let was_sent = sent.sent_us.is_some();
        self.shared.recorder().end(serial, &self.shared.ids, self.course, arrival, sent);
        was_sent
    }
}

#[cfg(test)]
mod tests;

//! The way to the collector: a bounded queue of ended requests that drops the oldest, and one task that posts what is
//! in it, once a second at the most.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::post::{Said, post};
use super::{Exporter, RequestTrace, otlp, spans};

/// Requests that wait to be told of; beyond that the oldest is dropped. As many as end in two seconds under the
/// heaviest load that two cores were seen to carry; some 2 kB each.
const WAITING_MAX: usize = 2048;
/// Between two posts.
const PAUSE: Duration = Duration::from_secs(1);
/// Spans of one post. Each is some 500 bytes of JSON, so that a body stays well below the 20 MiB that the
/// OpenTelemetry Collector takes by default; requests through three stages make 20 or so. The last request of a post may
/// go beyond by its own, 400 at the most.
const SPANS_MAX: usize = 8192;
/// A post is answered within this time, or was in vain.
const POST_MAX: Duration = Duration::from_secs(10);
/// Times that a body is posted.
const TRIES_MAX: u32 = 2;
/// Before the second, unless the collector says how long.
const TRY_PAUSE: Duration = Duration::from_secs(5);
/// Longest that it may say.
const TRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Between two warnings.
const WARNING_PAUSE: Duration = Duration::from_secs(60);
/// What is left is told within this time when the node ends.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Where ended requests go; they never wait for anything there.
#[derive(Debug, Clone)]
pub struct Traces {
    waiting: broadcast::Sender<Arc<RequestTrace>>,
}

impl Traces {
    /// Tells of a request that ended.
    pub fn tell(&self, trace: RequestTrace) {
        // Without the task that tells it on there is nobody left to tell.
        let _ = self.waiting.send(Arc::new(trace));
    }
}

/// The task that tells it on.
#[derive(Debug)]
pub struct Exporting {
    task: JoinHandle<()>,
}

impl Exporting {
    /// Waits until what was told last is there, for two seconds at most. All [`Traces`] must be gone.
    pub async fn end(mut self) {
        if timeout(FLUSH_MAX, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Begins to tell a collector what is told.
pub fn start(exporter: Exporter) -> (Traces, Exporting) {
    let (waiting, told) = broadcast::channel(WAITING_MAX);
    let task = Task {
        exporter: Arc::new(exporter),
        told,
        dropped: 0,
        next_post: Instant::now(),
        next_warning: Instant::now(),
    };
    (Traces { waiting }, Exporting { task: tokio::spawn(task.run()) })
}

struct Task {
    exporter: Arc<Exporter>,
    told: broadcast::Receiver<Arc<RequestTrace>>,
    /// Requests that nobody was told of, and no warning either.
    dropped: u64,
    next_post: Instant,
    next_warning: Instant,
}

impl Task {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            let count = batch.len() as u64;
            let lagged = self.dropped;
            let problem = self.send(batch).await.err();
            match problem {
                Some(problem) => {
                    self.dropped += count;
                    self.warn(&problem);
                }
                None if lagged > 0 => self.warn("more requests end than are told of in time"),
                None => {}
            }
            self.next_post = Instant::now() + PAUSE;
        }
    }

    /// Ended requests to tell of, once it is time to; `None` when no more will come.
    async fn gather(&mut self) -> Option<Vec<Arc<RequestTrace>>> {
        let (mut batch, mut spans) = (Vec::new(), 0);
        while spans < SPANS_MAX {
            let received = tokio::select! {
                received = self.told.recv() => received,
                () = sleep_until(self.next_post), if !batch.is_empty() => break,
            };
            match received {
                Ok(trace) => {
                    spans += spans_at_most(&trace);
                    batch.push(trace);
                }
                Err(RecvError::Lagged(dropped)) => self.dropped += dropped,
                Err(RecvError::Closed) => return Some(batch).filter(|batch| !batch.is_empty()),
            }
        }
        sleep_until(self.next_post).await;
        Some(batch)
    }

    /// Posts a batch, once more if that may help; what it was in vain for.
    async fn send(&self, batch: Vec<Arc<RequestTrace>>) -> Result<(), String> {
        let exporter = self.exporter.clone();
        // Some milliseconds of work: beside the tasks.
        let written = tokio::task::spawn_blocking(move || {
            let spans: Vec<_> = batch.iter().flat_map(|trace| spans::of(trace)).collect();
            otlp::body(&exporter, &spans)
        });
        let body = written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let body = Bytes::from(body);
        let mut tries = 1;
        loop {
            let (problem, pause) = match timeout(POST_MAX, post(&self.exporter.endpoint, body.clone())).await
            {
                Ok(Ok(Said { status, .. })) if status.is_success() => return Ok(()),
                Ok(Ok(said)) => (format!("it answered {}", said.status), pause_after(&said)),
                Ok(Err(error)) => (error.to_string(), Some(TRY_PAUSE)),
                Err(_) => (format!("no answer within {} s", POST_MAX.as_secs()), Some(TRY_PAUSE)),
            };
            let Some(pause) = pause.filter(|_| tries < TRIES_MAX) else { return Err(problem) };
            tries += 1;
            sleep(pause).await;
        }
    }

    fn warn(&mut self, problem: &str) {
        let now = Instant::now();
        if now < self.next_warning {
            return;
        }
        self.next_warning = now + WARNING_PAUSE;
        let (dropped, endpoint) = (std::mem::take(&mut self.dropped), &self.exporter.endpoint);
        tracing::warn!(
            dropped,
            %endpoint,
            "traces of requests were dropped: {problem}; look whether a collector takes OTLP over HTTP (JSON) there, or \
             start this node without --otlp"
        );
    }
}

/// After how long a collector that refused is asked again, if it may take the same then. Source: OTLP, "Failures".
fn pause_after(said: &Said) -> Option<Duration> {
    let wanted = said.retry_after_s.map(|seconds| Duration::from_secs(seconds).min(TRY_PAUSE_MAX));
    matches!(said.status.as_u16(), 429 | 502 | 503 | 504).then(|| wanted.unwrap_or(TRY_PAUSE))
}

/// What it will make: the request, its plan, its attempts, the input and the result of the one that answered, and six for each stage.
fn spans_at_most(trace: &RequestTrace) -> usize {
    let stages = trace.outcome.as_ref().map_or(0, |answered| answered.plan.stages.len());
    2 + trace.attempts.len() + 4 + 6 * stages
}

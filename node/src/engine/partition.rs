//! A partition: one session on one thread of its own, with a bounded queue before it.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::Session;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{Tensor, TensorSpec, total_bytes};
use tokio::sync::oneshot;

use super::batch::{self, OpenBatch};
use super::ending::{EndRun, Ending};
use super::served::{Caches, Job, Load, Outputs, QUEUE_JOBS_MAX, QueuedJob, Served, caught};
use super::session::{self, LoadError, Weight, Weights};
use super::together::Joining;
use super::values::bounded;
use super::{Shared, memory};

/// Jobs that a partition holds in any case, the running one included. Deeper queues only make late answers: at
/// 50 ms a run the last of 16 waits 0.8 s already.
pub const QUEUE_JOBS_MIN: usize = 16;
/// Stack of a partition's thread, bytes. As for a main thread: ONNX Runtime recurses into subgraphs.
/// Only what is touched takes memory.
pub(super) const STACK_BYTES: usize = 8 << 20;

/// What a partition is made of.
#[derive(Debug, Clone)]
pub struct PartitionSource {
    /// The ONNX model, without the data of its large initialisers.
    pub model: Vec<u8>,
    /// That data.
    pub weights: Vec<Weight>,
    /// The inputs, by name, as every request must bring them.
    pub inputs: Vec<TensorSpec>,
    /// The outputs in the order in which a run gives them.
    pub outputs: Vec<TensorSpec>,
    /// How much ONNX Runtime may rewrite.
    pub level: OrtLevel,
    /// The open first axis, if a run may bring several items.
    pub batch: Option<OpenBatch>,
    /// Names of outputs that have as many elements as a run finds; their descriptions tell the rank.
    pub variable: Vec<String>,
}

/// A loaded partition. Dropping the last handle ends its thread and frees the session.
#[derive(Debug)]
pub struct Partition {
    label: String,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    batch: Option<OpenBatch>,
    /// Leads to the session's thread; there is none where nothing is to be computed.
    jobs: Option<mpsc::SyncSender<QueuedJob>>,
    load: Arc<Load>,
}

/// What the session's thread does with a run that succeeded, before whoever waits for it is woken. It is to take
/// little time: the next run waits.
pub type AtOnce = Box<dyn FnOnce(&Ran) + Send>;

/// What a run gave.
#[derive(Debug, Default)]
pub struct Ran {
    /// The outputs in declared order.
    pub outputs: Vec<Tensor>,
    /// From the call until a permit was there.
    pub queued: Duration,
    /// From then until the outputs were there; of a run for several requests, this one's share.
    pub ran: Duration,
    /// Processor time in that: what `ran` would be on a core that nobody else uses.
    pub computed: Duration,
    /// Items of all requests that ran together; 0 where nothing ran.
    pub items: u64,
}

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The queue is full; try another host, or later.
    #[error("the partition's queue is full")]
    QueueFull,
    /// The inputs are not those that were declared.
    #[error("wrong inputs: {0}")]
    WrongInputs(String),
    /// The model gave something else than declared, or more than is accepted.
    #[error("unexpected outputs: {0}")]
    UnexpectedOutputs(String),
    /// ONNX Runtime's own words.
    #[error("the run failed: {0}")]
    Failed(String),
    /// ONNX Runtime's own words, where the same session runs on other values.
    #[error("the model does not take these values: {0}")]
    BadValues(String),
    /// The partition's session is gone, since it broke down in this run or an earlier one.
    #[error("the partition is closed; load it again")]
    Closed,
}

/// A run that is under way, or waits for those before it. Dropped, it ends.
pub struct Running(Option<(oneshot::Receiver<Result<Ran, RunError>>, EndRun)>);

impl Running {
    /// Waits for what it gives.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn ran(self) -> Result<Ran, RunError> {
        // Where nothing is to be computed, nothing runs.
        let Some((answer, _end_run)) = self.0 else { return Ok(Ran::default()) };
        answer.await.unwrap_or(Err(RunError::Closed))
    }
}

impl Partition {
    /// Builds the session on a new thread; the caller only waits.
    pub(super) async fn load(
        shared: Arc<Shared>,
        label: String,
        mut source: PartitionSource,
        folder: Option<PathBuf>,
    ) -> Result<Self, LoadError> {
        let weights = match folder {
            Some(folder) => Weights::InFolder(folder),
            None => Weights::InMemory(std::mem::take(&mut source.weights)),
        };
        let (jobs, queue) = mpsc::sync_channel(QUEUE_JOBS_MAX);
        let load = Arc::new(Load::default());
        let computes = !source.outputs.is_empty();
        let partition = Self {
            label,
            inputs: source.inputs.clone(),
            outputs: source.outputs.clone(),
            batch: source.batch.clone(),
            jobs: computes.then_some(jobs),
            load: load.clone(),
        };
        if !computes {
            return Ok(partition);
        }
        let (built, result) = oneshot::channel();
        let counted = shared.count_session();
        std::thread::Builder::new()
            .name(thread_name(&partition.label))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _counted = counted;
                let outputs = Outputs {
                    declared: source.outputs.clone(),
                    batch: source.batch.clone(),
                    variable: source.variable.clone(),
                };
                let joining = Joining::of(&source, shared.batch_within);
                let join =
                    |session: &mut Session| joining.filter(|joining| outputs.keeps_apart(session, joining));
                if let Some((session, joining)) = build_and_report(&shared, source, weights, built, join) {
                    let (permits, load) = (&shared.permits, &load);
                    Served { session, outputs: &outputs, joining, permits, load }.serve(&queue);
                }
                memory::give_back_freed();
            })
            .map_err(LoadError::Thread)?;
        result.await.unwrap_or(Err(LoadError::BrokeDown))?;
        Ok(partition)
    }

    /// Runs the partition once. Dropping the future ends the run.
    ///
    /// # Errors
    /// At once when the queue is full or the inputs do not fit; see [`RunError`].
    pub async fn run(&self, inputs: Vec<Tensor>) -> Result<Ran, RunError> {
        self.call(inputs, Caches::AsTheyAre, false, None)?.ran().await
    }

    /// The same, begun before anything is awaited: it takes no other task's turn to start it, or to do what is to be
    /// done at once when it has succeeded. Dropping what it gives ends the run.
    ///
    /// # Errors
    /// Likewise.
    pub fn begin(&self, inputs: Vec<Tensor>, at_once: Option<AtOnce>) -> Result<Running, RunError> {
        self.call(inputs, Caches::AsTheyAre, true, at_once)
    }

    /// The same as it goes between other work, for measuring: runs that follow each other at once find
    /// the weights of small partitions in the core's caches, those that wait for tensors to arrive do not
    /// (SqueezeNet's parts take up to a third longer).
    ///
    /// # Errors
    /// Likewise.
    pub async fn run_between(&self, inputs: Vec<Tensor>) -> Result<Ran, RunError> {
        self.call(inputs, Caches::Displaced, false, None)?.ran().await
    }

    fn call(
        &self,
        inputs: Vec<Tensor>,
        caches: Caches,
        may_join: bool,
        at_once: Option<AtOnce>,
    ) -> Result<Running, RunError> {
        let items = batch::items(self.batch.as_ref(), &self.inputs, &inputs);
        self.check_inputs(&inputs, items)?;
        let Some(jobs) = &self.jobs else { return Ok(Running(None)) };
        let place = self.load.take_place(total_bytes(&inputs)).ok_or(RunError::QueueFull)?;
        let ending = Ending::new().map_err(|error| RunError::Failed(bounded(error.message())))?;
        let ending = Arc::new(ending);
        let end_run = EndRun(ending.clone());
        let (reply, answer) = oneshot::channel();
        let called = Instant::now();
        let job = Job { inputs, items, ending, called, caches, may_join, at_once, place };
        // Places are as many as the channel is long, so it is never full here.
        jobs.try_send(QueuedJob { job, reply }).map_err(|_| RunError::Closed)?;
        Ok(Running(Some((answer, end_run))))
    }

    /// Jobs waiting and running.
    pub fn queue_len(&self) -> usize {
        self.load.jobs()
    }

    /// How long a job called now would wait for those before it, by the moving average of run times.
    pub fn expected_wait(&self) -> Duration {
        let jobs = u32::try_from(self.queue_len()).unwrap_or(u32::MAX);
        self.run_time().unwrap_or_default().saturating_mul(jobs)
    }

    /// Moving average of the time of a run; `None` before the first.
    pub fn run_time(&self) -> Option<Duration> {
        self.load.run_time()
    }

    /// What it was called when loaded.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The inputs that a run needs.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The outputs that a run gives.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn check_inputs(&self, inputs: &[Tensor], items: u64) -> Result<(), RunError> {
        for declared in &self.inputs {
            let expected = batch::of_items(self.batch.as_ref(), declared, items);
            let mut given = inputs.iter().filter(|tensor| tensor.spec().name == declared.name);
            let text = match (given.next(), given.next()) {
                (Some(one), None) if *one.spec() == *expected => continue,
                (Some(one), None) => {
                    format!("`{}` must be {}, not {}", declared.name, form(&expected), form(one.spec()))
                }
                (Some(_), Some(_)) => format!("`{}` is given twice", declared.name),
                (None, _) => format!("`{}` is missing", declared.name),
            };
            return Err(RunError::WrongInputs(text));
        }
        let unknown = inputs.iter().map(|tensor| &tensor.spec().name);
        match unknown.into_iter().find(|name| self.inputs.iter().all(|declared| declared.name != **name)) {
            Some(name) => Err(RunError::WrongInputs(format!("there is no input `{name}`"))),
            None => Ok(()),
        }
    }
}

pub(super) fn form(spec: &TensorSpec) -> String {
    format!("{} {:?}", spec.dtype.oip_name(), spec.shape)
}

/// Linux shows 15 bytes of a thread's name; a zero byte would make the spawn panic.
fn thread_name(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(15).collect()
}

/// Builds the session and says how that went; `None` when there is nothing to serve.
fn build_and_report(
    shared: &Shared,
    source: PartitionSource,
    weights: Weights,
    built: oneshot::Sender<Result<(), LoadError>>,
    join: impl FnOnce(&mut Session) -> Option<Joining>,
) -> Option<(Session, Option<Joining>)> {
    // One at a time on a node: building is a burst of memory. No permit is taken, since running
    // partitions must not wait for it.
    let one_at_a_time = shared.building.acquire();
    if built.is_closed() {
        return None;
    }
    let built_and_tried = || {
        let mut session = build_compared(&shared.environment, source, weights)?;
        let joining = join(&mut session);
        Ok((session, joining))
    };
    let session = caught(built_and_tried).unwrap_or(Err(LoadError::BrokeDown));
    memory::give_back_freed();
    drop(one_at_a_time);
    match session {
        Ok(session) => built.send(Ok(())).is_ok().then_some(session),
        Err(error) => {
            // The caller may have gone meanwhile; then nobody needs the reason.
            let _ = built.send(Err(error));
            None
        }
    }
}

fn build_compared(
    environment: &Environment,
    source: PartitionSource,
    weights: Weights,
) -> Result<Session, LoadError> {
    let session = session::build(environment, &source.model, weights, source.level)?;
    session::compare(&session, &source.inputs, &source.outputs)?;
    Ok(session)
}

//! A partition: one session on one thread of its own, with a bounded queue before it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use stormo_protocol::limits::VARIABLE_OUTPUTS_BYTES_MAX;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{Tensor, TensorSpec, total_bytes};
use tokio::sync::oneshot;

use super::batch::{self, OpenBatch};
use super::permits::Permits;
use super::session::{self, LoadError, Weight, Weights};
use super::values::{self, ValueError, bounded};
use super::{Shared, memory, thread_time};

/// Jobs that a partition holds in any case, the running one included. Deeper queues only make late answers: at
/// 50 ms a run the last of 16 waits 0.8 s already.
pub const QUEUE_JOBS_MIN: usize = 16;
/// As many as it runs within this time are held as well: a crowd that turns here at once, since another host was lost,
/// is better kept for a moment than sent on.
const QUEUE_WAIT_MAX: Duration = Duration::from_millis(100);
/// But no more than these, and with inputs of no more bytes.
const QUEUE_JOBS_MAX: usize = 128;
const QUEUE_BYTES_MAX: u64 = 16 << 20;
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
    jobs: Option<mpsc::SyncSender<Job>>,
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
    /// From then until the outputs were there.
    pub ran: Duration,
    /// Processor time in that: what `ran` would be on a core that nobody else uses.
    pub computed: Duration,
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

/// How busy a partition is, kept by its thread and read by anyone.
#[derive(Debug, Default)]
struct Load {
    jobs: AtomicUsize,
    /// Of their inputs.
    bytes: AtomicU64,
    /// Moving average of the time of a run, microseconds; 0 before the first.
    run_us: AtomicU64,
}

/// What a run finds in the caches of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caches {
    /// Whatever was left there.
    AsTheyAre,
    /// Nothing of use.
    Displaced,
}

struct Job {
    inputs: Vec<Tensor>,
    /// Items in their batch.
    items: u64,
    options: Arc<RunOptions<NoSelectedOutputs>>,
    called: Instant,
    caches: Caches,
    at_once: Option<AtOnce>,
    reply: oneshot::Sender<Result<Ran, RunError>>,
    _place: Place,
}

/// A place in the queue, free again when the job is done or given up.
struct Place {
    load: Arc<Load>,
    bytes: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.jobs.fetch_sub(1, Ordering::AcqRel);
        self.load.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Load {
    /// Jobs that are held now, with inputs of so many bytes more.
    fn jobs_max(&self, bytes: u64) -> usize {
        let run_us = self.run_us.load(Ordering::Acquire);
        if run_us == 0 || self.bytes.load(Ordering::Acquire).saturating_add(bytes) > QUEUE_BYTES_MAX {
            return QUEUE_JOBS_MIN;
        }
        let soon = QUEUE_WAIT_MAX.as_micros() as u64 / run_us;
        usize::try_from(soon).unwrap_or(QUEUE_JOBS_MAX).clamp(QUEUE_JOBS_MIN, QUEUE_JOBS_MAX)
    }
}

/// Ends the run when the caller no longer waits: the deadline passed, or the request was cancelled.
pub(super) struct EndRun(pub(super) Arc<RunOptions<NoSelectedOutputs>>);

impl Drop for EndRun {
    fn drop(&mut self) {
        if let Err(error) = self.0.terminate() {
            tracing::debug!("a run could not be ended: {error}");
        }
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
                if let Some(session) = build_and_report(&shared, source, weights, built) {
                    serve(session, &outputs, &queue, &shared.permits, &load);
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
        self.begin(inputs, None)?.ran().await
    }

    /// The same, begun before anything is awaited: it takes no other task's turn to start it, or to do what is to be
    /// done at once when it has succeeded. Dropping what it gives ends the run.
    ///
    /// # Errors
    /// Likewise.
    pub fn begin(&self, inputs: Vec<Tensor>, at_once: Option<AtOnce>) -> Result<Running, RunError> {
        self.call(inputs, Caches::AsTheyAre, at_once)
    }

    /// The same as it goes between other work, for measuring: runs that follow each other at once find
    /// the weights of small partitions in the core's caches, those that wait for tensors to arrive do not
    /// (SqueezeNet's parts take up to a third longer).
    ///
    /// # Errors
    /// Likewise.
    pub async fn run_between(&self, inputs: Vec<Tensor>) -> Result<Ran, RunError> {
        self.call(inputs, Caches::Displaced, None)?.ran().await
    }

    fn call(
        &self,
        inputs: Vec<Tensor>,
        caches: Caches,
        at_once: Option<AtOnce>,
    ) -> Result<Running, RunError> {
        let items = batch::items(self.batch.as_ref(), &self.inputs, &inputs);
        self.check_inputs(&inputs, items)?;
        let Some(jobs) = &self.jobs else { return Ok(Running(None)) };
        let place = self.take_place(total_bytes(&inputs))?;
        let options = RunOptions::new().map_err(|error| RunError::Failed(bounded(error.message())))?;
        let options = Arc::new(options);
        let end_run = EndRun(options.clone());
        let (reply, answer) = oneshot::channel();
        let called = Instant::now();
        let job = Job { inputs, items, options, called, caches, at_once, reply, _place: place };
        // Places are as many as the channel is long, so it is never full here.
        jobs.try_send(job).map_err(|_| RunError::Closed)?;
        Ok(Running(Some((answer, end_run))))
    }

    /// Jobs waiting and running.
    pub fn queue_len(&self) -> usize {
        self.load.jobs.load(Ordering::Acquire)
    }

    /// How long a job called now would wait for those before it, by the moving average of run times.
    pub fn expected_wait(&self) -> Duration {
        let run_us = self.load.run_us.load(Ordering::Acquire);
        Duration::from_micros(run_us.saturating_mul(self.queue_len() as u64))
    }

    /// Moving average of the time of a run; `None` before the first.
    pub fn run_time(&self) -> Option<Duration> {
        let run_us = self.load.run_us.load(Ordering::Acquire);
        (run_us > 0).then(|| Duration::from_micros(run_us))
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

    fn take_place(&self, bytes: u64) -> Result<Place, RunError> {
        let jobs_max = self.load.jobs_max(bytes);
        let one_more = |jobs| (jobs < jobs_max).then_some(jobs + 1);
        let taken = self.load.jobs.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.map_err(|_| RunError::QueueFull)?;
        self.load.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(Place { load: self.load.clone(), bytes })
    }
}

fn form(spec: &TensorSpec) -> String {
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
) -> Option<Session> {
    // One at a time on a node: building is a burst of memory. No permit is taken, since running
    // partitions must not wait for it.
    let one_at_a_time = shared.building.acquire();
    if built.is_closed() {
        return None;
    }
    let session =
        caught(|| build_compared(&shared.environment, source, weights)).unwrap_or(Err(LoadError::BrokeDown));
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

/// Does jobs until the last handle is gone, or one breaks down.
fn serve(
    mut session: Session,
    outputs: &Outputs,
    queue: &mpsc::Receiver<Job>,
    permits: &Permits,
    load: &Load,
) {
    while let Ok(job) = queue.recv() {
        let permit = permits.acquire();
        if job.reply.is_closed() {
            continue;
        }
        if job.caches == Caches::Displaced {
            memory::displace_caches();
        }
        let (start, computed_before) = (Instant::now(), thread_time::used());
        let result = caught(|| run(&mut session, &job, outputs));
        let computed = thread_time::used().saturating_sub(computed_before);
        drop(permit);
        let broke_down = result.is_none();
        let ran = start.elapsed();
        if let Some(Ok(_)) = &result {
            let averaged_us = averaged(load.run_us.load(Ordering::Acquire), ran, job.items);
            load.run_us.store(averaged_us, Ordering::Release);
        }
        let queued = start.duration_since(job.called);
        let answer = result
            .unwrap_or_else(|| Err(RunError::Failed("ONNX Runtime broke down".into())))
            .map(|outputs| Ran { outputs, queued, ran, computed });
        let Job { at_once, reply, _place: place, .. } = job;
        drop(place);
        if let (Some(at_once), Ok(ran)) = (at_once, &answer) {
            caught(|| at_once(ran));
        }
        // A caller that gave up meanwhile needs no answer.
        let _ = reply.send(answer);
        if broke_down {
            break;
        }
    }
    // Freeing a session that broke down may break down in turn.
    caught(|| drop(session));
}

/// An average in which a run counts an eighth, at least 1 so that it differs from "never ran". Of a batch
/// counts the time of one item.
fn averaged(old_us: u64, ran: Duration, items: u64) -> u64 {
    let new_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX) / items.max(1);
    let mixed_us = if old_us == 0 { new_us } else { old_us - old_us / 8 + new_us / 8 };
    mixed_us.max(1)
}

/// Runs what may panic inside the binding; the panic ends here. Everything that was in use is given
/// up afterwards, so no half-changed state is seen.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// What a session gives.
struct Outputs {
    declared: Vec<TensorSpec>,
    batch: Option<OpenBatch>,
    /// Names of those whose dimensions are not declared.
    variable: Vec<String>,
}

impl Outputs {
    /// Takes a declared output of a run on so many items as it is, if that fits.
    fn accept(&self, declared: &TensorSpec, items: u64, tensor: Tensor) -> Result<Tensor, RunError> {
        let expected = batch::of_items(self.batch.as_ref(), declared, items);
        let given = tensor.spec();
        let fits = if self.variable.contains(&declared.name) {
            (given.dtype, given.shape.len()) == (expected.dtype, expected.shape.len())
        } else {
            *given == *expected
        };
        if fits {
            return Ok(tensor);
        }
        let (got, expected) = (form(given), form(&expected));
        Err(RunError::UnexpectedOutputs(format!("`{}` is {got}, not {expected}", declared.name)))
    }

    /// Those whose dimensions nobody knew before are no more than a frame is to carry.
    fn check_size(&self, outputs: &[Tensor]) -> Result<(), RunError> {
        let variable = outputs.iter().filter(|tensor| self.variable.contains(&tensor.spec().name));
        let bytes: u64 = variable.map(|tensor| tensor.data().as_bytes().len() as u64).sum();
        if bytes <= VARIABLE_OUTPUTS_BYTES_MAX {
            return Ok(());
        }
        let names = self.variable.join("`, `");
        Err(RunError::UnexpectedOutputs(bounded(&format!(
            "{bytes} bytes of `{names}`, above the {VARIABLE_OUTPUTS_BYTES_MAX} that are accepted of outputs whose \
             size depends on values"
        ))))
    }
}

fn run(
    session: &mut Session,
    Job { inputs, items, options, .. }: &Job,
    expected: &Outputs,
) -> Result<Vec<Tensor>, RunError> {
    let mut values = Vec::with_capacity(inputs.len());
    for tensor in inputs {
        let value = values::input_value(tensor).map_err(|error| RunError::WrongInputs(error.to_string()))?;
        values.push((tensor.spec().name.as_str(), value));
    }
    let mut outputs = session
        .run_with_options(values, options)
        .map_err(|error| RunError::Failed(bounded(error.message())))?;
    let unexpected = |error: ValueError| RunError::UnexpectedOutputs(error.to_string());
    let declared = expected.declared.iter();
    let outputs: Vec<Tensor> = declared
        .map(|declared| {
            let value = outputs.remove(&declared.name).ok_or(RunError::Closed)?;
            let tensor = values::tensor_of(&declared.name, value, inputs).map_err(unexpected)?;
            expected.accept(declared, *items, tensor)
        })
        .collect::<Result<_, _>>()?;
    expected.check_size(&outputs)?;
    Ok(outputs)
}

//! A session that is served: the queue before it, and its jobs, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ort::session::{NoSelectedOutputs, RunOptions, Session};
use stormo_protocol::limits::VARIABLE_OUTPUTS_BYTES_MAX;
use stormo_protocol::tensor::{Tensor, TensorSpec};
use tokio::sync::oneshot;

use super::batch::{self, OpenBatch};
use super::ending::{Ending, Joint};
use super::partition::{AtOnce, QUEUE_JOBS_MIN, Ran, RunError, form};
use super::permits::{Permit, Permits};
use super::together::Joining;
use super::values::{self, ValueError, bounded};
use super::{memory, thread_time};

/// As many jobs as a session runs within this time are held as well: a crowd that turns here at once, since another host
/// was lost, is better kept for a moment than sent on.
const QUEUE_WAIT_MAX: Duration = Duration::from_millis(100);
/// But no more than these, and with inputs of no more bytes.
pub(super) const QUEUE_JOBS_MAX: usize = 128;
const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// A session whose runs keep a core busy for so long gives way to other threads; one whose are shorter would only be
/// switched away from more often: in three parts over loopback, digits answered a fifth less in a second.
const LONG_RUN: Duration = Duration::from_millis(2);
/// The median of so many runs tells, the first of which find it cold.
const RUNS_UNTIL_KNOWN: usize = 16;
/// How much nicer than other threads a session is that gives way: these get three times the time when both want it.
const NICER_BY: i32 = 5;
const NICENESS_MAX: i32 = 19;

/// How busy a session is, kept by its jobs and read by anyone.
#[derive(Debug, Default)]
pub(super) struct Load {
    jobs: AtomicUsize,
    /// Of their inputs.
    bytes: AtomicU64,
    /// Moving average of the time of a run, microseconds; 0 before the first.
    run_us: AtomicU64,
}

/// What a run finds in the caches of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caches {
    /// Whatever was left there.
    AsTheyAre,
    /// Nothing of use.
    Displaced,
}

/// A run that is asked for.
pub(super) struct Job {
    pub(super) inputs: Vec<Tensor>,
    /// Items in their batch.
    pub(super) items: u64,
    pub(super) ending: Arc<Ending>,
    pub(super) called: Instant,
    pub(super) caches: Caches,
    /// Whether it may run together with others.
    pub(super) may_join: bool,
    pub(super) at_once: Option<AtOnce>,
    pub(super) place: Place,
}

/// One that waits for its turn, and who waits for it.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    pub(super) reply: oneshot::Sender<Result<Ran, RunError>>,
}

/// A place in the queue, free again when the job is done or given up.
pub(super) struct Place {
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
    /// A place for a job with inputs of so many bytes; none when all are taken.
    pub(super) fn take_place(self: &Arc<Self>, bytes: u64) -> Option<Place> {
        let jobs_max = self.jobs_max(bytes);
        let one_more = |jobs| (jobs < jobs_max).then_some(jobs + 1);
        self.jobs.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Place { load: self.clone(), bytes })
    }

    /// Jobs waiting and running.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    /// Moving average of the time of a run; `None` before the first.
    pub(super) fn run_time(&self) -> Option<Duration> {
        let run_us = self.run_us.load(Ordering::Acquire);
        (run_us > 0).then(|| Duration::from_micros(run_us))
    }

    /// Jobs that are held now, with inputs of so many bytes more.
    fn jobs_max(&self, bytes: u64) -> usize {
        let Some(run_time) = self.run_time() else { return QUEUE_JOBS_MIN };
        if self.bytes.load(Ordering::Acquire).saturating_add(bytes) > QUEUE_BYTES_MAX {
            return QUEUE_JOBS_MIN;
        }
        let soon = QUEUE_WAIT_MAX.as_micros() / run_time.as_micros();
        usize::try_from(soon).unwrap_or(QUEUE_JOBS_MAX).clamp(QUEUE_JOBS_MIN, QUEUE_JOBS_MAX)
    }

    /// An average in which a run counts an eighth, at least 1 so that it differs from "never ran". Of a batch
    /// counts the time of one item.
    fn ran(&self, time: Duration, items: u64) {
        let old_us = self.run_us.load(Ordering::Acquire);
        let new_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / items.max(1);
        let mixed_us = if old_us == 0 { new_us } else { old_us - old_us / 8 + new_us / 8 };
        self.run_us.store(mixed_us.max(1), Ordering::Release);
    }
}

/// What a session's first runs computed, until that is known.
struct FirstRuns(Vec<Duration>);

impl FirstRuns {
    /// Once, when its runs are known to be long, lets the threads of connections go before this one: where runs fill a
    /// machine, signs of life, refusals and what comes next for the other stages would wait for their turn behind them.
    fn note(&mut self, computed: Duration) {
        if self.0.len() >= RUNS_UNTIL_KNOWN {
            return;
        }
        self.0.push(computed);
        if self.0.len() == RUNS_UNTIL_KNOWN {
            self.0.sort_unstable();
            if self.0[RUNS_UNTIL_KNOWN / 2] >= LONG_RUN {
                give_way();
            }
        }
    }
}

fn give_way() {
    // Linux means the calling thread alone, others the process.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let nicer = |niceness: i32| setpriority_process(None, (niceness + NICER_BY).min(NICENESS_MAX));
        if let Err(error) = getpriority_process(None).and_then(nicer) {
            tracing::debug!(%error, "sessions have the priority of connections");
        }
    }
}

/// A session on its thread.
pub(super) struct Served<'a> {
    pub(super) session: Session,
    pub(super) outputs: &'a Outputs,
    /// How jobs are joined, if they are.
    pub(super) joining: Option<Joining>,
    pub(super) permits: &'a Permits,
    pub(super) load: &'a Load,
}

/// The session broke down; it is of no more use.
struct BrokeDown;

impl Served<'_> {
    /// Does jobs until the last handle is gone, or one breaks down.
    pub(super) fn serve(mut self, queue: &mpsc::Receiver<QueuedJob>) {
        let mut first = FirstRuns(Vec::new());
        let mut next = None;
        while let Some(queued) = next.take().or_else(|| queue.recv().ok()) {
            let mut jobs = vec![queued];
            if let Some(joining) = &self.joining {
                next = joining.wait(&mut jobs, queue);
            }
            let permit = self.permits.acquire();
            if let (Some(joining), None) = (&self.joining, &next) {
                next = joining.take(&mut jobs, queue);
            }
            jobs.retain(|queued| !queued.reply.is_closed());
            let ran = match jobs.len() {
                0 => Ok(()),
                1 => self.each(jobs, permit, &mut first),
                _ => self.together(jobs, permit, &mut first),
            };
            if ran.is_err() {
                break;
            }
        }
        let Self { session, .. } = self;
        // Freeing a session that broke down may break down in turn.
        caught(|| drop(session));
    }

    /// One job after the other.
    fn each(
        &mut self,
        jobs: Vec<QueuedJob>,
        permit: Permit<'_>,
        first: &mut FirstRuns,
    ) -> Result<(), BrokeDown> {
        let mut permit = Some(permit);
        for QueuedJob { job, reply } in jobs {
            let permit = permit.take().unwrap_or_else(|| self.permits.acquire());
            if job.caches == Caches::Displaced {
                memory::displace_caches();
            }
            let inputs = &job.inputs;
            let (start, ran) = self.timed((inputs, job.items, job.ending.options()), permit, first);
            let broke_down = ran.is_none();
            let queued = start.duration_since(job.called);
            let answer = ran.unwrap_or_else(|| Err(RunError::Failed("ONNX Runtime broke down".into())));
            answered(job, reply, answer.map(|ran| Ran { queued, ..ran }));
            if broke_down {
                return Err(BrokeDown);
            }
        }
        Ok(())
    }

    /// Several jobs in one run; one after the other, where that is not possible or fails over one of them.
    fn together(
        &mut self,
        jobs: Vec<QueuedJob>,
        permit: Permit<'_>,
        first: &mut FirstRuns,
    ) -> Result<(), BrokeDown> {
        let joined =
            self.joining.as_ref().and_then(|joining| joining.inputs(&jobs)).zip(Joint::of(&jobs).ok());
        let Some((inputs, joint)) = joined else { return self.each(jobs, permit, first) };
        let items = jobs.iter().map(|queued| queued.job.items).sum();
        let (start, ran) = self.timed((&inputs, items, joint.options()), permit, first);
        let parted = ran.and_then(Result::ok).and_then(|ran| {
            let outputs = self.joining.as_ref()?.outputs(&jobs, &ran.outputs)?;
            Some((outputs, ran))
        });
        let Some((outputs, ran)) = parted else {
            let permit = self.permits.acquire();
            return self.each(jobs, permit, first);
        };
        for (QueuedJob { job, reply }, outputs) in jobs.into_iter().zip(outputs) {
            let queued = start.duration_since(job.called);
            let share = |time: Duration| time.mul_f64(job.items as f64 / items as f64);
            let (ran, computed) = (share(ran.ran), share(ran.computed));
            answered(job, reply, Ok(Ran { outputs, queued, ran, computed, items }));
        }
        Ok(())
    }

    /// A run, when it began and what it took; `None` if the session broke down.
    fn timed(
        &mut self,
        (inputs, items, options): (&[Tensor], u64, &RunOptions<NoSelectedOutputs>),
        permit: Permit<'_>,
        first: &mut FirstRuns,
    ) -> (Instant, Option<Result<Ran, RunError>>) {
        let (start, computed_before) = (Instant::now(), thread_time::used());
        let result = caught(|| run(&mut self.session, inputs, items, options, self.outputs));
        let computed = thread_time::used().saturating_sub(computed_before);
        drop(permit);
        let ran = start.elapsed();
        if let Some(Ok(_)) = &result {
            self.load.ran(ran, items);
            first.note(computed);
        }
        let timed = |outputs| Ran { outputs, queued: Duration::ZERO, ran, computed, items };
        (start, result.map(|result| result.map(timed)))
    }
}

/// Tells whoever waits for a job, and does what is to be done at once.
fn answered(job: Job, reply: oneshot::Sender<Result<Ran, RunError>>, answer: Result<Ran, RunError>) {
    let Job { at_once, place, .. } = job;
    drop(place);
    if let (Some(at_once), Ok(ran)) = (at_once, &answer) {
        caught(|| at_once(ran));
    }
    // A caller that gave up meanwhile needs no answer.
    let _ = reply.send(answer);
}

/// Runs what may panic inside the binding; the panic ends here. Everything that was in use is given
/// up afterwards, so no half-changed state is seen.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// What a session gives.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) declared: Vec<TensorSpec>,
    pub(super) batch: Option<OpenBatch>,
    /// Names of those whose dimensions are not declared.
    pub(super) variable: Vec<String>,
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

    /// Whether jobs of several callers can run together in this session.
    pub(super) fn keeps_apart(&self, session: &mut Session, joining: &Joining) -> bool {
        let Ok(options) = RunOptions::new() else { return false };
        joining.keeps_apart(|inputs, items| run(session, inputs, items, &options, self).ok())
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
    inputs: &[Tensor],
    items: u64,
    options: &RunOptions<NoSelectedOutputs>,
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
            expected.accept(declared, items, tensor)
        })
        .collect::<Result<_, _>>()?;
    expected.check_size(&outputs)?;
    Ok(outputs)
}

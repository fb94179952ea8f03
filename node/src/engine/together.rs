//! Jobs of several callers in one run, where the model leaves its first axis open: the weights are read once for all of
//! them. A sum over more rows may be added up in another order, so what a caller is given can differ in its last digits
//! from what it would be given alone; that is why a node does it only if its owner says so. An open axis alone does not
//! say that its items have nothing to do with each other (they may be the points of a cloud, or the words of a text), so
//! two made-up ones are run alone and together before.

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use stormo_protocol::tensor::{DType, Tensor, TensorBuffer, TensorData, TensorSpec};

use super::batch::{self, OpenBatch};
use super::partition::PartitionSource;
use super::served::{Job, QueuedJob};
use crate::sample;

/// Most items in a joint run: its activations take so many times the memory of one.
const JOINED_ITEMS_MAX: u64 = 8;
/// Items that are run together to see whether they change each other.
const TRIED_ITEMS: u64 = 2;
/// What a sum in another order may change, relative to the largest value.
const DIFFERENCE_MAX: f64 = 1e-4;

/// How jobs of a partition are joined.
#[derive(Debug)]
pub(super) struct Joining {
    /// The first of them waits so long for others.
    within: Duration,
    batch: OpenBatch,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Joining {
    /// If the owner wishes it and the partition can: its batch is open, all that it reads and gives is of known size, and
    /// items can be made up for it.
    pub(super) fn of(source: &PartitionSource, within: Option<Duration>) -> Option<Self> {
        let (within, batch) = (within?, source.batch.clone()?);
        let (inputs, outputs) = (source.inputs.clone(), source.outputs.clone());
        let is_sized = inputs.iter().chain(&outputs).all(|spec| spec.dtype != DType::Text);
        let mut open = inputs.iter().filter(|spec| batch.tensors.contains(&spec.name)).peekable();
        let is_open = open.peek().is_some() && open.all(|spec| has_noise(spec.dtype));
        let joining = Self { within, batch, inputs, outputs };
        (is_sized && is_open && joining.batch.items_max >= TRIED_ITEMS && source.variable.is_empty())
            .then_some(joining)
    }

    /// Whether a run gives each of several made-up items what it gives it alone.
    pub(super) fn keeps_apart(&self, mut run: impl FnMut(&[Tensor], u64) -> Option<Vec<Tensor>>) -> bool {
        let mut tried = || {
            let whole = |spec| noise(batch::of_items(Some(&self.batch), spec, TRIED_ITEMS).into_owned());
            let inputs: Vec<Tensor> = self.inputs.iter().map(whole).collect::<Option<_>>()?;
            let together = run(&inputs, TRIED_ITEMS)?;
            for item in 0..TRIED_ITEMS {
                let alone = run(&self.rows(&self.inputs, &inputs, item..item + 1)?, 1)?;
                let own = self.rows(&self.outputs, &together, item..item + 1)?;
                if alone.iter().zip(&own).any(|(alone, own)| !are_close(alone, own)) {
                    return None;
                }
            }
            Some(())
        };
        tried().is_some()
    }

    /// Adds to a job those that come within its time, until no more fit; gives what came and did not.
    pub(super) fn wait(
        &self,
        jobs: &mut Vec<QueuedJob>,
        queue: &mpsc::Receiver<QueuedJob>,
    ) -> Option<QueuedJob> {
        let until = jobs.first()?.job.called + self.within;
        self.add(jobs, || queue.recv_timeout(until.saturating_duration_since(Instant::now())).ok())
    }

    /// The same of those that are there already.
    pub(super) fn take(
        &self,
        jobs: &mut Vec<QueuedJob>,
        queue: &mpsc::Receiver<QueuedJob>,
    ) -> Option<QueuedJob> {
        self.add(jobs, || queue.try_recv().ok())
    }

    fn add(
        &self,
        jobs: &mut Vec<QueuedJob>,
        mut next: impl FnMut() -> Option<QueuedJob>,
    ) -> Option<QueuedJob> {
        let mut items: u64 = jobs.iter().map(|queued| queued.job.items).sum();
        let items_max = self.batch.items_max.min(JOINED_ITEMS_MAX);
        while jobs.first()?.job.may_join && items < items_max {
            let more = next()?;
            items += more.job.items;
            if items > items_max || !self.fits(&jobs[0].job, &more.job) {
                return Some(more);
            }
            jobs.push(more);
        }
        None
    }

    /// Whether what does not follow the batch is the same for both.
    fn fits(&self, one: &Job, other: &Job) -> bool {
        let fixed = self.inputs.iter().filter(|spec| !self.is_batched(spec));
        let same = |spec: &TensorSpec| named(&one.inputs, spec) == named(&other.inputs, spec);
        other.may_join && fixed.into_iter().all(same)
    }

    fn is_batched(&self, spec: &TensorSpec) -> bool {
        self.batch.tensors.contains(&spec.name)
    }

    /// The inputs of all jobs as one: their rows one after the other.
    pub(super) fn inputs(&self, jobs: &[QueuedJob]) -> Option<Vec<Tensor>> {
        let items = jobs.iter().map(|queued| queued.job.items).sum();
        let input = |spec: &TensorSpec| {
            if !self.is_batched(spec) {
                return named(&jobs.first()?.job.inputs, spec).cloned();
            }
            let whole = batch::of_items(Some(&self.batch), spec, items).into_owned();
            let mut rows = TensorBuffer::zeroed(usize::try_from(whole.byte_length().ok()?).ok()?);
            let mut rest = rows.as_mut_bytes();
            for queued in jobs {
                let bytes = named(&queued.job.inputs, spec)?.data().as_bytes();
                let (own, behind) = rest.split_at_mut_checked(bytes.len())?;
                own.copy_from_slice(bytes);
                rest = behind;
            }
            Tensor::new(whole, rows.freeze()).ok()
        };
        self.inputs.iter().map(input).collect()
    }

    /// What each of these jobs is given of what the run gave, in declared order.
    pub(super) fn outputs(&self, jobs: &[QueuedJob], outputs: &[Tensor]) -> Option<Vec<Vec<Tensor>>> {
        let mut before = 0;
        let mut of_job = |queued: &QueuedJob| {
            let first = before;
            before += queued.job.items;
            self.rows(&self.outputs, outputs, first..before)
        };
        jobs.iter().map(&mut of_job).collect()
    }

    /// Those of some items in the declared tensors of more; views where the rows are aligned.
    fn rows(&self, declared: &[TensorSpec], tensors: &[Tensor], items: Range<u64>) -> Option<Vec<Tensor>> {
        let of_items = |(spec, whole): (&TensorSpec, &Tensor)| {
            if !self.is_batched(spec) {
                return Some(whole.clone());
            }
            let own = batch::of_items(Some(&self.batch), spec, items.end - items.start).into_owned();
            let item_bytes = spec.byte_length().ok()?;
            let [start, end] = [items.start, items.end].map(|item| usize::try_from(item * item_bytes));
            let rows = Rows { of: whole.data().clone(), bytes: start.ok()?..end.ok()? };
            rows.of.as_bytes().get(rows.bytes.clone())?;
            Tensor::new(own, TensorData::shared(Arc::new(rows))).ok()
        };
        declared.iter().zip(tensors).map(of_items).collect()
    }
}

/// Whether noise is as good a value of this type as any: integers may be indices, which noise is not.
fn has_noise(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::U8 | DType::I8)
}

fn noise(spec: TensorSpec) -> Option<Tensor> {
    if !matches!(spec.dtype, DType::U8 | DType::I8) {
        return sample::tensor(spec).ok();
    }
    let floats = TensorSpec { dtype: DType::F32, ..spec.clone() };
    let floats = sample::tensor(floats).ok()?;
    let bytes: Vec<u8> =
        floats.data().as_slice_of::<f32>()?.iter().map(|value| (value * 127.0) as u8).collect();
    Tensor::new(spec, TensorData::copied_from(&bytes)).ok()
}

/// Whether two tensors differ by no more than sums in another order make them.
fn are_close(one: &Tensor, other: &Tensor) -> bool {
    let (one, other) = (numbers(one), numbers(other));
    let (Some(one), Some(other)) = (one, other) else { return false };
    let largest = one.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let close = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= DIFFERENCE_MAX * largest;
    one.len() == other.len() && one.iter().zip(&other).all(close)
}

/// Its elements; `None` for types that are compared by no difference.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = tensor.data();
    Some(match tensor.spec().dtype {
        DType::F32 => data.as_slice_of::<f32>()?.iter().map(|value| f64::from(*value)).collect(),
        DType::F64 => data.as_slice_of::<f64>()?.to_vec(),
        DType::F16 => {
            data.as_slice_of::<u16>()?.iter().map(|bits| half::f16::from_bits(*bits).to_f64()).collect()
        }
        DType::BF16 => {
            data.as_slice_of::<u16>()?.iter().map(|bits| half::bf16::from_bits(*bits).to_f64()).collect()
        }
        // Equal, or not: of integers a rounding may be one more.
        _ => data.as_bytes().iter().map(|byte| f64::from(*byte)).collect(),
    })
}

/// Some rows of a tensor.
struct Rows {
    of: TensorData,
    bytes: Range<usize>,
}

impl AsRef<[u8]> for Rows {
    fn as_ref(&self) -> &[u8] {
        // Within bounds, as was looked at before it was made.
        &self.of.as_bytes()[self.bytes.clone()]
    }
}

fn named<'a>(tensors: &'a [Tensor], spec: &TensorSpec) -> Option<&'a Tensor> {
    tensors.iter().find(|tensor| tensor.spec().name == spec.name)
}

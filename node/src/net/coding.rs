//! Tensors to coded payloads and back, beside the tasks that move them. How a codec works, and which one
//! an edge uses, is said elsewhere.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stormo_protocol::codec::payload::{BadPayload, Codec, CodedTensor, Scratch};
use stormo_protocol::tensor::{Tensor, total_bytes};
use tokio::sync::Semaphore;

/// Frames coded at once; more wait. Each takes a core and, at most, twice its largest tensor.
const CODERS_MAX: usize = 4;
/// Up to this many bytes, coding takes less than handing it to another thread and back (some 50 us): the
/// slowest codec does 1.4 GB/s.
const AT_ONCE_BYTES_MAX: u64 = 64 << 10;

/// Buffers for coding, kept from frame to frame.
pub(super) struct Coders {
    permits: Semaphore,
    kept: Mutex<Vec<Scratch>>,
}

impl Default for Coders {
    fn default() -> Self {
        Self { permits: Semaphore::new(CODERS_MAX), kept: Mutex::default() }
    }
}

impl Coders {
    /// Encodes a frame's tensors; how long that took.
    pub(super) async fn encode(
        self: &Arc<Self>,
        codec: Codec,
        tensors: Vec<Tensor>,
    ) -> io::Result<(Vec<CodedTensor>, Duration)> {
        if codec == Codec::Raw {
            return Ok((tensors.into_iter().map(CodedTensor::from).collect(), Duration::ZERO));
        }
        let bytes = total_bytes(&tensors);
        let encode = move |scratch: &mut Scratch| {
            tensors.iter().map(|tensor| CodedTensor::encode(codec, tensor, scratch)).collect()
        };
        self.coded(bytes, encode).await
    }

    /// Decodes a frame's tensors; how long that took.
    pub(super) async fn decode(
        self: &Arc<Self>,
        tensors: Vec<CodedTensor>,
    ) -> io::Result<(Vec<Tensor>, Duration)> {
        let is_raw = tensors.iter().all(|tensor| tensor.codec() == Codec::Raw);
        let bytes = tensors.iter().map(|tensor| tensor.spec().byte_length().unwrap_or(u64::MAX));
        let bytes = bytes.fold(0, u64::saturating_add);
        let decode = move |scratch: &mut Scratch| {
            tensors.into_iter().map(|tensor| tensor.decode(scratch)).collect::<Result<Vec<_>, BadPayload>>()
        };
        let (tensors, time) = if is_raw {
            (decode(&mut Scratch::default()), Duration::ZERO)
        } else {
            self.coded(bytes, decode).await?
        };
        Ok((tensors.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?, time))
    }

    /// Does work of so many bytes with a buffer that is kept.
    async fn coded<T: Send + 'static>(
        self: &Arc<Self>,
        bytes: u64,
        work: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> io::Result<(T, Duration)> {
        // Never closed.
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let coders = self.clone();
        let timed = move || {
            let mut scratch = coders.kept().pop().unwrap_or_default();
            let started = Instant::now();
            let done = work(&mut scratch);
            let time = started.elapsed();
            if scratch.is_worth_keeping() {
                coders.kept().push(scratch);
            }
            (done, time)
        };
        if bytes <= AT_ONCE_BYTES_MAX { Ok(timed()) } else { Ok(tokio::task::spawn_blocking(timed).await?) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::tensor::{DType, TensorData, TensorSpec};

    fn ramp(elements: u64) -> Tensor {
        let numbers: Vec<f32> = (0..elements).map(|index| (index % 100) as f32).collect();
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, elements] };
        Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(&numbers))).unwrap()
    }

    #[tokio::test]
    async fn frames_of_any_size_come_back_and_buffers_are_kept() {
        let coders = Arc::new(Coders::default());
        for elements in [1, 1000, 100_000] {
            let frame = vec![ramp(elements), ramp(elements / 2)];
            for codec in [Codec::Raw, Codec::ShuffleLz4] {
                let (coded, _) = coders.encode(codec, frame.clone()).await.unwrap();
                assert_eq!(coders.decode(coded).await.unwrap().0, frame);
            }
        }
        assert_eq!(coders.kept().len(), 1);
    }

    #[tokio::test]
    async fn a_payload_that_is_none_is_an_error_and_its_buffer_is_kept() {
        let coders = Arc::new(Coders::default());
        let nonsense = TensorData::copied_from(&[0xff; 300]);
        let tensor = CodedTensor::new(ramp(100).spec().clone(), Codec::ShuffleLz4, nonsense).unwrap();
        assert_eq!(coders.decode(vec![tensor]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(coders.kept().len(), 1);
    }
}

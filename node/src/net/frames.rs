//! Frames and signs on a stream: bytes in, typed values out. What they mean is decided elsewhere.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use stormo_protocol::frame::{
    HEADER_BYTES, Header, SIGN_BYTES, Sign, StageTrace, preamble, preamble_bytes, read_preamble,
};
use stormo_protocol::tensor::{Tensor, TensorBuffer, TensorSpec};

/// Bytes read or written between two looks at the clock; also what makes progress visible.
const CHUNK_BYTES: usize = 256 << 10;

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    Header::from_bytes(&bytes).map_err(malformed)
}

/// Reads traces and descriptors. The header bounds their length to some 70 KiB.
pub(super) async fn read_descriptions(
    stream: &mut (impl AsyncRead + Unpin),
    header: &Header,
) -> io::Result<(Vec<StageTrace>, Vec<TensorSpec>)> {
    let mut bytes = vec![0; preamble_bytes(header)];
    stream.read_exact(&mut bytes).await?;
    read_preamble(header, &bytes).map_err(malformed)
}

/// Reads the payload straight into the buffers that the session will read.
pub(super) async fn read_payload(
    stream: &mut (impl AsyncRead + Unpin),
    specs: Vec<TensorSpec>,
    received: &AtomicU64,
) -> io::Result<Vec<Tensor>> {
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        let bytes = spec.byte_length().map_err(malformed)?;
        let mut buffer = TensorBuffer::zeroed(usize::try_from(bytes).map_err(malformed)?);
        for chunk in buffer.as_mut_bytes().chunks_mut(CHUNK_BYTES) {
            stream.read_exact(chunk).await?;
            received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        tensors.push(Tensor::new(spec, buffer.freeze()).map_err(malformed)?);
    }
    Ok(tensors)
}

pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &Header,
    traces: &[StageTrace],
    tensors: &[Tensor],
) -> io::Result<()> {
    let mut head = header.to_bytes().to_vec();
    head.extend_from_slice(&preamble(traces, tensors));
    stream.write_all(&head).await?;
    for tensor in tensors {
        for chunk in tensor.data().as_bytes().chunks(CHUNK_BYTES) {
            stream.write_all(chunk).await?;
        }
    }
    stream.flush().await
}

pub(super) async fn read_sign(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Sign> {
    let mut bytes = [0; SIGN_BYTES];
    stream.read_exact(&mut bytes).await?;
    Sign::from_bytes(&bytes).map_err(malformed)
}

pub(super) async fn write_sign(stream: &mut (impl AsyncWrite + Unpin), sign: Sign) -> io::Result<()> {
    stream.write_all(&sign.to_bytes()).await?;
    stream.flush().await
}

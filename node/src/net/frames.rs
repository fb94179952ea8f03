//! Frames and signs on a stream: bytes in, typed values out. What they mean is decided elsewhere.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;
use stormo_protocol::codec::payload::CodedTensor;
use stormo_protocol::frame::{
    Descriptor, HEADER_BYTES, Header, Preamble, SIGN_BYTES, Sign, preamble_bytes, read_preamble,
};
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::tensor::TensorData;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Where each piece wakes the receiver, so much is copied into one piece with what describes it.
const FIRST_BYTES: usize = 64 << 10;

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    Header::from_bytes(&bytes).map_err(malformed)
}

/// Reads plan, traces and descriptors. The header bounds their length to some 90 KiB.
pub(super) async fn read_described(
    stream: &mut (impl AsyncRead + Unpin),
    header: &Header,
    known: Option<&Arc<EncodedPlan>>,
) -> io::Result<Preamble> {
    let mut bytes = vec![0; preamble_bytes(header)];
    stream.read_exact(&mut bytes).await?;
    read_preamble(header, &bytes, known).map_err(malformed)
}

/// Reads the payload as it is coded, in steps of so many bytes at most; what is raw, straight into the buffers that the
/// session will read.
pub(super) async fn read_payload(
    stream: &mut (impl AsyncRead + Unpin),
    described: Vec<Descriptor>,
    step_bytes: usize,
    received: &AtomicU64,
) -> io::Result<Vec<CodedTensor>> {
    let mut tensors = Vec::with_capacity(described.len());
    for Descriptor { spec, codec, coded_bytes } in described {
        let coded_bytes = usize::try_from(coded_bytes).map_err(malformed)?;
        // Not filled with zeros before: that takes as long as reading what comes.
        let mut bytes = Vec::with_capacity(coded_bytes);
        while bytes.len() < coded_bytes {
            let step = step_bytes.min(coded_bytes - bytes.len());
            let read = stream.read_buf(&mut (&mut bytes).limit(step)).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.fetch_add(read as u64, Ordering::Relaxed);
        }
        let data = TensorData::shared(Arc::new(bytes));
        tensors.push(CodedTensor::new(spec, codec, data).map_err(malformed)?);
    }
    Ok(tensors)
}

pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &Header,
    preamble: &[u8],
    tensors: &[CodedTensor],
) -> io::Result<()> {
    let mut first = [header.to_bytes().as_slice(), preamble].concat();
    let end = first.len() + if stream.is_write_vectored() { 0 } else { FIRST_BYTES };
    let mut rest = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (early, late) = tensor.bytes().split_at(tensor.bytes().len().min(end - first.len()));
        first.extend_from_slice(early);
        rest.push(late);
    }
    let mut pieces: Vec<IoSlice<'_>> = [first.as_slice()].into_iter().chain(rest).map(IoSlice::new).collect();
    let mut pieces = pieces.as_mut_slice();
    while !pieces.is_empty() {
        let written = stream.write_vectored(pieces).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut pieces, written);
    }
    stream.flush().await
}

pub(super) async fn read_sign(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Sign> {
    let mut bytes = [0; SIGN_BYTES];
    stream.read_exact(&mut bytes).await?;
    Sign::from_bytes(&bytes).map_err(malformed)
}

/// Writes signs that are told together.
pub(super) async fn write_signs(stream: &mut (impl AsyncWrite + Unpin), signs: &[Sign]) -> io::Result<()> {
    let bytes: Vec<u8> = signs.iter().flat_map(|sign| sign.to_bytes()).collect();
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use stormo_protocol::codec::payload::{Codec, Scratch};
    use stormo_protocol::frame::{DeliveryKey, Edge, ORIGIN, preamble};
    use stormo_protocol::ids::{PlanId, RequestId};
    use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
    use tokio_util::compat::FuturesAsyncReadCompatExt;

    #[tokio::test]
    async fn every_codec_is_read_as_written() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, 2, 64] };
        // Small numbers whose steps of int8 are whole: no codec rounds them.
        let numbers: Vec<f32> = (0..128).map(|index| [0.0, 1.0, 255.0, 7.0][index % 4]).collect();
        let tensor = Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(&numbers))).unwrap();
        let edge = Edge { from: ORIGIN, to: 0 };
        let key = DeliveryKey { request: RequestId([1; 16]), attempt: 1, edge };
        let header = Header::of(key, PlanId([2; 16]), 1000, &[], std::slice::from_ref(&tensor));
        for codec in Codec::ALL {
            let coded = [CodedTensor::encode(codec, &tensor, &mut Scratch::default())];
            assert_eq!(coded[0].codec(), codec);
            let header = header.coded(&coded);
            let preamble = preamble(&[], &[], &coded);
            let mut in_pieces = Cursor::new(Vec::new());
            write_frame(&mut in_pieces, &header, &preamble, &coded).await.unwrap();
            let mut singly = futures::io::Cursor::new(Vec::new()).compat();
            write_frame(&mut singly, &header, &preamble, &coded).await.unwrap();
            for mut stream in [in_pieces, Cursor::new(singly.into_inner().into_inner())] {
                stream.set_position(0);
                assert_eq!(read_header(&mut stream).await.unwrap(), header);
                let described = read_described(&mut stream, &header, None).await.unwrap().described;
                let received = AtomicU64::new(0);
                let tensors = read_payload(&mut stream, described, 100, &received).await.unwrap();
                let decoded: Vec<Tensor> =
                    tensors.into_iter().map(|coded| coded.decode(&mut Scratch::default()).unwrap()).collect();
                assert_eq!(decoded, std::slice::from_ref(&tensor), "{}", codec.name());
                assert_eq!(received.into_inner(), header.payload_bytes);
            }
        }
    }
}

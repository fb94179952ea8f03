//! Messages are read whatever pieces they come in, and no more of them is kept than there is room for.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

/// A body in pieces; after the last it ends, or nothing comes any more.
struct Pieces {
    pieces: VecDeque<Bytes>,
    ends: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn pieces(bytes: &[u8], lengths: &[usize], ends: bool) -> Pieces {
    let (mut bytes, mut pieces) = (Bytes::copy_from_slice(bytes), VecDeque::new());
    for length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        pieces.push_back(bytes.split_to((*length).clamp(1, bytes.len())));
    }
    Pieces { pieces, ends }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn messages_come_in_any_pieces(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        lengths in prop::collection::vec(1..40_usize, 1..5),
    ) {
        let all: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
        let mut reader = Reader::of_requests(pieces(&all, &lengths, true), Admission::new());
        run(async {
            for payload in &payloads {
                let Ok(Some(Read::Message { bytes, place })) = reader.next().await else {
                    panic!("a message was lost");
                };
                assert!(bytes == payload.as_slice() && place.is_some());
            }
            assert!(matches!(reader.next().await, Ok(None)));
        });
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        lengths in prop::collection::vec(1..9_usize, 1..5),
    ) {
        let mut reader = Reader::of_small(pieces(&bytes, &lengths, true));
        run(async { while let Ok(Some(_)) = reader.next().await {} });
    }
}

#[test]
fn what_is_too_long_cut_or_compressed_is_told() {
    let long = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let wrong = [
        (long, Code::ResourceExhausted),
        (framed(&[1, 2, 3])[..6].to_vec(), Code::InvalidArgument),
        (vec![0, 0], Code::InvalidArgument),
        (vec![1, 0, 0, 0, 0], Code::Unimplemented),
        (vec![], Code::InvalidArgument),
    ];
    for (bytes, expected) in wrong {
        let mut reader = Reader::of_requests(pieces(&bytes, &[2], true), Admission::new());
        assert_eq!(run(reader.only(None)).unwrap_err().code, expected, "{bytes:?}");
    }
}

#[test]
fn without_room_a_message_is_skipped_and_the_next_is_read() {
    let admission = Admission::new();
    let all = admission.admit(BODY_BYTES_MAX).unwrap();
    let bytes = [framed(&[1; 100]), framed(&[2; 100])].concat();
    let mut reader = Reader::of_request(pieces(&bytes, &[64], true), admission.clone());
    assert_eq!(run(reader.only(None)).unwrap_err().code, Code::ResourceExhausted);
    let mut reader = Reader::of_requests(pieces(&bytes, &[64], true), admission);
    run(async {
        assert!(matches!(reader.next().await, Ok(Some(Read::Refused(CallError::Overloaded(_))))));
        drop(all);
        let Ok(Some(Read::Message { bytes, .. })) = reader.next().await else { panic!("it is not read") };
        assert!(bytes == [2; 100].as_slice());
    });
}

#[test]
fn a_message_comes_within_its_call() {
    let mut reader = Reader::of_request(pieces(&framed(&[1; 100])[..50], &[64], false), Admission::new());
    let over = std::time::Instant::now();
    assert_eq!(run(reader.only(Some(over))).unwrap_err().code, Code::DeadlineExceeded);
}

/// A body whose pieces are sent.
struct Sent(mpsc::Receiver<Bytes>);

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|come| come.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[test]
fn what_was_read_stays_when_the_reader_is_interrupted() {
    let (send, come) = mpsc::channel(1);
    let mut reader = Reader::of_requests(Sent(come), Admission::new());
    run(async {
        for piece in framed(&[7; 50]).chunks(3) {
            tokio::select! {
                biased;
                _ = reader.next() => panic!("it is not whole"),
                () = std::future::ready(()) => {}
            }
            send.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let Ok(Some(Read::Message { bytes, .. })) = reader.next().await else { panic!("it is lost") };
        assert!(bytes == [7; 50].as_slice());
    });
}

//! One connection of the gRPC front: HTTP/2 with bounds on what it may have open and wait for.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::serve::connections::HEAD_TIMEOUT;
use crate::serve::{BODY_TIMEOUT, Shared};

/// Calls of one connection at once; a client keeps further ones back.
const CALLS_MAX: u32 = 128;
/// What a call may send before it is read, bytes: a millisecond at 1 Gbit/s.
const CALL_WINDOW_BYTES: u32 = 128 << 10;
/// The same of all calls of a connection: fifteen streams whose windows are full leave room for others.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// Longest headers of a call, bytes: twice the longest token.
const HEADERS_BYTES_MAX: u32 = 32 << 10;
/// Who has calls open and says nothing is asked whether it lives, and is given up without an answer in time.
const ASKED_EVERY: Duration = Duration::from_secs(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A call under way, until it is dropped.
pub(super) struct OpenCall(watch::Sender<usize>);

impl OpenCall {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

tokio::task_local! {
    /// Since when a part of a call's answers waits to be taken, if one does.
    static WAITS_SINCE: Cell<Option<Instant>>;
}

/// Notes whether the call that asks has handed over a part of its answers that waits to be taken.
pub(super) fn waits(is_waiting: bool) {
    // Outside a call nobody wants to know.
    let _ = WAITS_SINCE.try_with(|since| since.set(is_waiting.then(Instant::now)));
}

/// Runs each call of a connection as a task, and ends it if its answers are not taken. It does not know of that by
/// itself: who waits for the caller's window does not ask it for more.
#[derive(Clone)]
struct Calls;

impl<C: Future<Output = ()> + Send + 'static> Executor<C> for Calls {
    fn execute(&self, call: C) {
        tokio::spawn(WAITS_SINCE.scope(Cell::new(None), async move {
            tokio::select! {
                biased;
                () = call => {}
                () = untaken(BODY_TIMEOUT) => tracing::debug!("a call ended whose answers were not taken"),
            }
        }));
    }
}

/// Waits until a part of the call's answers was not taken for so long.
async fn untaken(long: Duration) {
    loop {
        let since = WAITS_SINCE.with(Cell::get);
        let left = since.map_or(long, |since| long.saturating_sub(since.elapsed()));
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}

/// Serves a connection until it ends.
pub(in crate::serve) async fn serve(stream: TcpStream, shared: Shared) {
    let (open, mut calls) = watch::channel(0);
    let service = service_fn(move |request| {
        let (shared, open) = (shared.clone(), OpenCall::new(&open));
        async move { Ok::<_, Infallible>(super::answered(shared, request, open).await) }
    });
    let connection = http2::Builder::new(Calls)
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(ASKED_EVERY)
        .keep_alive_timeout(ANSWERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = idle(&mut calls, HEAD_TIMEOUT) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection.as_mut() => served,
                // What had been asked by then is answered, and the end of an answer has time to be taken.
                () = idle(&mut calls, BODY_TIMEOUT) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the gRPC API ended early");
    }
}

/// Waits until no call was open for so long.
async fn idle(calls: &mut watch::Receiver<usize>, long: Duration) {
    while calls.wait_for(|open| *open == 0).await.is_ok() {
        if timeout(long, calls.changed()).await.is_err() {
            return;
        }
    }
    // All is gone; the connection ends by itself.
    sleep(long).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_nobody_takes_its_answers() {
        let long = Duration::from_millis(1);
        let call = async {
            waits(true);
            untaken(long).await;
            // What is taken, late or not, is taken.
            waits(true);
            waits(false);
            assert!(timeout(10 * long, untaken(long)).await.is_err());
        };
        WAITS_SINCE.scope(Cell::new(None), call).await;
    }
}

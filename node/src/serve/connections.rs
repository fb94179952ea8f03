//! Connections of the APIs: bounded in number and in the time that a request's head may take. What is
//! asked over them is not looked at here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections of one API at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// A request's head comes within this time; also how long a connection may lie idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Before the next try when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the task is ended; `serve` has each connection to itself.
pub(super) async fn accept<S>(listener: TcpListener, serve: impl Fn(TcpStream) -> S)
where
    S: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the API cannot take a connection; trying on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it, small answers may wait 40 ms for an acknowledgement; with an error they do.
        let _ = stream.set_nodelay(true);
        let served = serve(stream);
        connections.spawn(async move {
            served.await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves a connection over HTTP/1.1 until it ends.
pub(super) async fn serve(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the API ended early");
    }
}

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
/// Who neither acknowledges nor takes what is sent for so long is gone: the system's own patience is 15 minutes.
#[cfg(target_os = "linux")]
const TAKES_WITHIN: Duration = Duration::from_secs(30);
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
        // Without it, who vanished keeps its requests for minutes; with an error they do.
        #[cfg(target_os = "linux")]
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, TAKES_WITHIN.as_millis() as u32);
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt::tcp_user_timeout;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn connections_are_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut told) = mpsc::channel(1);
        let serve = move |stream: TcpStream| {
            let tell = tell.clone();
            async move { tell.send(tcp_user_timeout(&stream).unwrap()).await.unwrap() }
        };
        let accepting = tokio::spawn(accept(listener, serve));
        let _client = TcpStream::connect(address).await.unwrap();
        assert_eq!(told.recv().await, Some(30_000));
        accepting.abort();
    }
}

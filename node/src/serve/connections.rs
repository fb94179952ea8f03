//! Connections of the APIs: bounded in number and in the time that a request's head may take. What is
//! asked over them is not looked at here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of one API at once.
const CONNECTIONS_MAX: usize = 512;
/// Further ones that are told so at once; those beyond wait to be accepted.
const REFUSED_AT_ONCE: usize = 64;
/// For one of these to take its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
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
    let [permits, refused] = [CONNECTIONS_MAX, REFUSED_AT_ONCE].map(|most| Arc::new(Semaphore::new(most)));
    let mut connections = JoinSet::new();
    loop {
        let Ok(refusing) = refused.clone().acquire_owned().await else { return };
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
        match permits.clone().try_acquire_owned() {
            Ok(permit) => {
                let served = serve(stream);
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(_) => {
                connections.spawn(async move {
                    // Who does not take it has gone, or is slow.
                    let _ = timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                    drop(refusing);
                });
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Says that there are too many connections, whatever is asked, and lets the caller take that before the end.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let body = json!({ "error": "too many connections at once; close idle ones, or try again shortly" });
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head, body].concat().into_bytes()).await?;
    stream.shutdown().await?;
    // What is unread when it is closed would take the answer with it.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
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

    #[tokio::test]
    async fn one_too_many_is_told_so_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, |stream: TcpStream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        }));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        // More of them than are refused at once, one after the other.
        for _ in 0..2 * REFUSED_AT_ONCE {
            let mut more = TcpStream::connect(address).await.unwrap();
            more.write_all(b"GET /v1/node HTTP/1.1\r\n\r\n").await.unwrap();
            let mut said = String::new();
            more.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("too many connections"), "{said}");
        }
        accepting.abort();
    }
}

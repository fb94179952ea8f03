//! One body to a collector, by a connection of its own.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Endpoint;

/// Most of an answer's head that is kept, bytes; its body is not read.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// Nobody is there, or the connection broke.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// What is there speaks no HTTP, or broke off.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The address makes no request.
    #[error("{0}")]
    Address(#[from] hyper::http::Error),
}

/// What a collector says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: StatusCode,
    /// It wants to be asked again after so many seconds.
    pub(super) retry_after_s: Option<u64>,
}

pub(super) async fn post(endpoint: &Endpoint, body: Bytes) -> Result<Said, PostError> {
    let request = Request::post(endpoint.path.as_str())
        .header(HOST, endpoint.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("stormo/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))?;
    // An address of IPv6 stands in brackets in URLs alone.
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, endpoint.port)).await?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    // Ends with this function.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let response = sender.send_request(request).await?;
    let retry_after = response.headers().get(RETRY_AFTER);
    Ok(Said {
        status: response.status(),
        retry_after_s: retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok()),
    })
}

//! Kept connections to the nodes' APIs, and one exchange over one of them. HTTP by hand: what is sent and
//! when it was sent must be known to the byte, and a client library costs more than the request.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::Body;

/// An idle connection is given up long before the node would close it (30 s), so that no request meets a
/// connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest answer that is read: above what a frame can carry.
const BODY_BYTES_MAX: usize = 80 << 20;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// Up to here head and tensors go out in one piece.
const SMALL_BYTES: usize = 16 << 10;
/// What every answer begins with.
const BEGIN: &[u8] = b"HTTP/1.1 ";
/// Connections that are kept although the node closes them.
const CLOSING_MAX: usize = 256;

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Length of the JSON before binary tensors, if there are any.
    pub(super) json_bytes: Option<usize>,
    pub(super) body: Vec<u8>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Broken {
    NotConnected(io::Error),
    Lost(io::Error),
    NoHttp(String),
    Silent,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    idle: HashMap<u16, Vec<Idle>>,
    under_way: HashMap<u16, usize>,
    /// Those that the node is about to close, the oldest first.
    closing: VecDeque<TcpStream>,
    unasked: u32,
}

/// Connections that wait for their next request.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    kept: Arc<Mutex<Kept>>,
}

/// The bytes of a request: in one piece if they are few.
pub(super) fn request(path: &str, id: &str, body: &Body) -> Vec<Vec<u8>> {
    let json_bytes = "{\"id\":\"".len() + id.len() + body.head.len();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: mesh\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {json_bytes}\r\n\r\n{{\"id\":\"{id}{}",
        json_bytes + body.tensors.len(),
        body.head
    )
    .into_bytes();
    if body.tensors.len() <= SMALL_BYTES {
        head.extend_from_slice(&body.tensors);
        return vec![head];
    }
    vec![head, body.tensors.to_vec()]
}

impl Kept {
    /// Keeps a connection for a while that the node closes: it may say something that nobody asked before it does.
    fn close(&mut self, stream: TcpStream) {
        if self.closing.len() >= CLOSING_MAX
            && let Some(oldest) = self.closing.pop_front()
        {
            self.unasked += u32::from(said_unasked(&oldest).unwrap_or(false));
        }
        self.closing.push_back(stream);
    }
}

impl Connections {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests under way at a node.
    pub(super) fn under_way(&self, entry: u16) -> usize {
        self.kept().under_way.get(&entry).copied().unwrap_or(0)
    }

    /// Sends a request and waits for its answer until a time at most. Also says when the last byte was with
    /// the kernel, in microseconds since `begun`.
    pub(super) async fn exchange(
        &self,
        entry: u16,
        address: SocketAddr,
        request: &[Vec<u8>],
        until: Instant,
        begun: Instant,
    ) -> (Option<u64>, Result<Response, Broken>) {
        *self.kept().under_way.entry(entry).or_default() += 1;
        let mut sent_us = None;
        let done = self.talk(entry, address, request, until, || {
            sent_us = Some(begun.elapsed().as_micros() as u64);
        });
        let done = done.await;
        if let Some(count) = self.kept().under_way.get_mut(&entry) {
            *count -= 1;
        }
        (sent_us, done)
    }

    async fn talk(
        &self,
        entry: u16,
        address: SocketAddr,
        request: &[Vec<u8>],
        until: Instant,
        mut sent: impl FnMut(),
    ) -> Result<Response, Broken> {
        let until = until.into();
        let mut stream = match self.take(entry, address) {
            Some(stream) => stream,
            None => {
                let connected = timeout_at(until, TcpStream::connect(address)).await;
                let stream = connected.map_err(|_| Broken::Silent)?.map_err(Broken::NotConnected)?;
                // Without it, small requests may wait for an acknowledgement.
                stream.set_nodelay(true).map_err(Broken::NotConnected)?;
                stream
            }
        };
        for piece in request {
            let written = timeout_at(until, stream.write_all(piece)).await;
            written.map_err(|_| Broken::Silent)?.map_err(Broken::Lost)?;
        }
        sent();
        let read = timeout_at(until, read(&mut stream)).await.map_err(|_| Broken::Silent)?;
        let (response, is_kept, more) = read?;
        if more > 0 {
            self.kept().unasked += 1;
        } else if is_kept {
            let idle = Idle { stream, address, since: Instant::now() };
            self.kept().idle.entry(entry).or_default().push(idle);
        } else {
            self.kept().close(stream);
        }
        Ok(response)
    }

    /// An idle connection that is still good.
    fn take(&self, entry: u16, address: SocketAddr) -> Option<TcpStream> {
        let mut kept = self.kept();
        loop {
            let idle = kept.idle.get_mut(&entry)?.pop()?;
            if idle.address != address || idle.since.elapsed() > IDLE_MAX {
                continue;
            }
            match said_unasked(&idle.stream) {
                Ok(false) => return Some(idle.stream),
                Ok(true) => kept.unasked += 1,
                // Closed by the node meanwhile.
                Err(_) => {}
            }
        }
    }

    /// How often a node said something that nobody had asked; to be asked when all requests have ended.
    pub(super) fn unasked_at_end(&self) -> u32 {
        let mut kept = self.kept();
        let idle = std::mem::take(&mut kept.idle);
        let late = idle.values().flatten().filter(|idle| said_unasked(&idle.stream).unwrap_or(false)).count();
        while let Some(oldest) = kept.closing.pop_front() {
            kept.unasked += u32::from(said_unasked(&oldest).unwrap_or(false));
        }
        std::mem::take(&mut kept.unasked) + late as u32
    }
}

/// Whether bytes lie there; an error when the other side is gone.
fn said_unasked(stream: &TcpStream) -> io::Result<bool> {
    match stream.try_read(&mut [0; 1]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// An answer, whether the connection stays, and how many bytes came behind it.
async fn read(stream: &mut TcpStream) -> Result<(Response, bool, usize), Broken> {
    let mut bytes = Vec::with_capacity(4096);
    let head_bytes = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Broken::NoHttp("the head of the answer is longer than any node's".to_owned()));
        }
        more(stream, &mut bytes, READ_BYTES).await?;
        // Whatever speaks otherwise may never come to an end of its head.
        let begin = bytes.len().min(BEGIN.len());
        if bytes[..begin] != BEGIN[..begin] {
            return Err(Broken::NoHttp("what came is not the status line of HTTP/1.1".to_owned()));
        }
    };
    let head = head(&bytes[..head_bytes]).map_err(Broken::NoHttp)?;
    if head.content_bytes > BODY_BYTES_MAX {
        return Err(Broken::NoHttp(format!("an answer of {} bytes", head.content_bytes)));
    }
    let mut body = bytes.split_off(head_bytes);
    while body.len() < head.content_bytes {
        let missing = head.content_bytes - body.len();
        more(stream, &mut body, missing.max(READ_BYTES)).await?;
    }
    let extra = body.len() - head.content_bytes;
    body.truncate(head.content_bytes);
    let response = Response { status: head.status, json_bytes: head.json_bytes, body };
    Ok((response, !head.closes, extra))
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>, room: usize) -> Result<(), Broken> {
    bytes.reserve(room);
    match stream.read_buf(bytes).await {
        Ok(0) => Err(Broken::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Broken::Lost(error)),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    content_bytes: usize,
    json_bytes: Option<usize>,
    closes: bool,
}

fn head(bytes: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the head of the answer is no text".to_owned())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| "no status line of HTTP/1.1".to_owned())?;
    let mut head = Head { status, content_bytes: usize::MAX, json_bytes: None, closes: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let number = || value.parse().map_err(|_| format!("`{name}: {value}` is no number"));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.content_bytes = number()?,
            "inference-header-content-length" => head.json_bytes = Some(number()?),
            "connection" => head.closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    if head.content_bytes == usize::MAX {
        return Err("the answer does not say how long it is".to_owned());
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let read =
            head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\ninference-header-content-length: 5\r\n\r\n");
        assert_eq!(read, Ok(Head { status: 200, content_bytes: 12, json_bytes: Some(5), closes: false }));
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let body = Body { head: "\",\"inputs\":[]}".into(), tensors: vec![1, 2, 3].into() };
        let bytes = request("/v2/models/m/infer", "1-2", &body).concat();
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(&bytes[at..], b"{\"id\":\"1-2\",\"inputs\":[]}\x01\x02\x03");
        let text = String::from_utf8_lossy(&bytes[..at]).into_owned();
        assert!(text.contains(&format!("Content-Length: {}\r\n", bytes.len() - at)), "{text}");
        assert!(text.contains("Inference-Header-Content-Length: 24\r\n"), "{text}");
    }
}

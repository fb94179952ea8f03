//! HTTP by hand, for requests that no client library would send.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::client::RawAnswer;

/// A node that says nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Sends these bytes to the node at `base` and reads its answer.
///
/// # Errors
/// When it cannot be reached, stays silent, or answers no HTTP.
pub fn exchange(base: &str, bytes: &[u8]) -> io::Result<RawAnswer> {
    let answer = read(send(base, bytes)?)?;
    parse(&answer).ok_or_else(|| io::Error::other(format!("no HTTP: {}", String::from_utf8_lossy(&answer))))
}

/// Sends these bytes, says that no more will come, and waits until the node closes the connection;
/// gives its answer if there was one.
///
/// # Errors
/// When it cannot be reached, or keeps the connection and stays silent.
pub fn break_off(base: &str, bytes: &[u8]) -> io::Result<Option<RawAnswer>> {
    let stream = send(base, bytes)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(parse(&read(stream)?))
}

/// Sends these bytes and closes the connection at once.
///
/// # Errors
/// When the node cannot be reached.
pub fn hang_up(base: &str, bytes: &[u8]) -> io::Result<()> {
    send(base, bytes).map(drop)
}

fn read(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Read::by_ref(&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn send(base: &str, bytes: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://"))?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// A `POST` of a body with these further headers; its length is told as `length`.
pub fn post(path: &str, headers: &[(&str, &str)], length: usize, body: &[u8]) -> Vec<u8> {
    let mut head =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n");
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    [head.as_bytes(), b"\r\n", body].concat()
}

fn parse(answer: &[u8]) -> Option<RawAnswer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(RawAnswer { status, body: answer[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nx: y\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b"body"[..]));
        assert!(parse(b"").is_none());
    }
}

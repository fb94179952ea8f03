//! A collector of OpenTelemetry traces for tests: it keeps what nodes post, or is as bad as collectors may be.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What a collector does with what is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes it.
    Takes,
    /// Answers this status.
    Answers(u16),
    /// Lets everybody wait for ever.
    Hangs,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Post {
    /// The path, and the type of the body.
    pub head: [String; 2],
    /// The body.
    pub body: Value,
}

#[derive(Default)]
struct Kept {
    posts: Mutex<Vec<Post>>,
    /// Connections that stand, where it hangs.
    held: Mutex<Vec<TcpStream>>,
    came: AtomicUsize,
}

/// A collector on a port of its own, as long as this process runs.
pub struct Collector {
    /// Its base URL.
    pub url: String,
    kept: Arc<Kept>,
}

impl Collector {
    /// Starts one.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(manner: Manner) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let kept = Arc::<Kept>::default();
        let keeping = kept.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                keeping.came.fetch_add(1, Ordering::Relaxed);
                let keeping = keeping.clone();
                thread::spawn(move || keeping.serve(stream, manner));
            }
        });
        Ok(Self { url, kept })
    }

    /// All that was posted so far.
    pub fn posts(&self) -> Vec<Post> {
        self.kept.posts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.kept.came.load(Ordering::Relaxed)
    }
}

impl Kept {
    fn serve(&self, stream: TcpStream, manner: Manner) {
        if manner == Manner::Hangs {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            return;
        }
        // Who breaks off gets no answer, and nothing of it is kept.
        let Ok(post) = read(&stream) else { return };
        self.posts.lock().unwrap_or_else(PoisonError::into_inner).push(post);
        let status = if let Manner::Answers(status) = manner { status } else { 200 };
        let _ = write!(&stream, "HTTP/1.1 {status} so\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
    }
}

fn read(stream: &TcpStream) -> io::Result<Post> {
    let wrong = || io::Error::other("no post");
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.by_ref().take(16 << 10).read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines.first().and_then(|line| line.strip_prefix("POST ")?.strip_suffix(" HTTP/1.1"));
    let header = |name: &str| {
        let named = |line: &String| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        lines.iter().find_map(named).ok_or_else(wrong)
    };
    let length: usize = header("content-length")?.parse().map_err(|_| wrong())?;
    let mut body = vec![0; Some(length).filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(wrong)?];
    reader.read_exact(&mut body)?;
    let head = [path.ok_or_else(wrong)?.to_owned(), header("content-type")?];
    Ok(Post { head, body: serde_json::from_slice(&body)? })
}

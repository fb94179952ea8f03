//! Readers of events over real connections: fast, slow, and too many.

use std::collections::BTreeSet;

use stormo_protocol::ids::NodeId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;
use crate::pool::{DiskBudget, Pool};
use crate::serve::json::{NodeNamed, What};
use crate::serve::{Front, Serving, start};

/// More than sockets hold on their way: some 200 bytes each.
const FLOOD: u64 = 100_000;
const KEPT: usize = 64;

struct Served {
    watchers: broadcast::Sender<EventView>,
    address: std::net::SocketAddr,
    _serving: Serving,
    _folder: tempfile::TempDir,
}

async fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let pool = Arc::new(Pool::open(folder.path(), DiskBudget::Bytes(1 << 20)).unwrap());
    let (watchers, _) = broadcast::channel(KEPT);
    let (events, _) = tokio::sync::mpsc::channel(1);
    let front = Front { events, pool, token: None, watchers: watchers.clone(), stores: true };
    let serving = start(([127, 0, 0, 1], 0).into(), None, front).await.unwrap();
    Served { watchers, address: serving.api, _serving: serving, _folder: folder }
}

fn event(sequence: u64) -> EventView {
    let named = NodeNamed { node: NodeId([1; 32]), label: "n".into() };
    EventView { sequence, unix_ms: 0, what: What::NodeChanged(named) }
}

/// A connection whose answer's head says this.
async fn connect(served: &Served) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut status = String::new();
    stream.read_line(&mut status).await.unwrap();
    (status, stream)
}

async fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    assert!(reader.read_line(&mut line).await.unwrap() > 0, "the stream ended");
    line.trim_end().to_owned()
}

async fn until_line(reader: &mut BufReader<TcpStream>, wanted: &str) {
    while line(reader).await != wanted {}
}

#[tokio::test]
async fn an_event_comes_with_its_topic_and_number() {
    let served = served().await;
    let (status, mut reader) = connect(&served).await;
    assert!(status.contains("200"), "{status}");
    until_line(&mut reader, ": events follow").await;
    served.watchers.send(event(7)).unwrap();
    until_line(&mut reader, "event: node").await;
    assert_eq!(line(&mut reader).await, "id: 7");
    let data = line(&mut reader).await;
    let read: EventView = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(read, event(7));
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up_and_is_told_what_it_missed() {
    let served = served().await;
    let (_, mut reader) = connect(&served).await;
    until_line(&mut reader, ": events follow").await;
    for sequence in 1..=FLOOD {
        served.watchers.send(event(sequence)).unwrap();
        // Others run in between, as in a node; the reader reads nothing.
        tokio::task::yield_now().await;
    }
    let (mut read, mut missed) = (BTreeSet::new(), 0);
    while !read.contains(&FLOOD) {
        let line = line(&mut reader).await;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        match serde_json::from_str::<MissedView>(data) {
            Ok(view) => missed += view.missed,
            Err(_) => {
                read.insert(serde_json::from_str::<EventView>(data).unwrap().sequence);
            }
        }
    }
    assert!(missed > 0, "nothing was dropped: the sockets hold all of it");
    assert_eq!(read.len() as u64 + missed, FLOOD);
}

#[tokio::test]
async fn one_reader_too_many_is_refused_until_another_goes() {
    let served = served().await;
    let mut readers = Vec::new();
    for _ in 0..READERS_MAX {
        let (status, reader) = connect(&served).await;
        assert!(status.contains("200"), "{status}");
        readers.push(reader);
    }
    let (status, refused) = connect(&served).await;
    let mut told = vec![0; 512];
    let mut refused = refused.into_inner();
    let length = refused.read(&mut told).await.unwrap_or(0);
    assert!(status.contains("503"), "{status} {}", String::from_utf8_lossy(&told[..length]));
    readers.clear();
    // The place is free once the node has seen that the reader is gone.
    loop {
        let (status, _reader) = connect(&served).await;
        if status.contains("200") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

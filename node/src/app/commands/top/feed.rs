//! What `stormo top` shows, asked of the node on threads beside the screen. They end with the process, or when
//! nobody listens any more.

use std::io::BufRead;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::state::{News, Snapshot};
use crate::app::client::{Client, CommandError};
use crate::serve::json::{DeploymentsView, EventView, MissedView, NodeView, NodesView, RequestsView};

/// Between two looks at the mesh, and before the next try when the node is not there.
const PAUSE: Duration = Duration::from_secs(1);

/// A signal ends it within this.
const END_MAX: Duration = Duration::from_secs(1);

/// How the mesh is now.
///
/// # Errors
/// When the node does not answer.
pub(super) fn ask(client: &Client) -> Result<Snapshot, CommandError> {
    let nodes: NodesView = client.get("/v1/nodes")?;
    let deployments: DeploymentsView = client.get("/v1/deployments")?;
    let requests: RequestsView = client.get("/v1/requests")?;
    let own: NodeView = client.get("/v1/node")?;
    Ok(Snapshot { nodes: nodes.nodes, deployments: deployments.deployments, requests, own })
}

/// Begins to bring news; `ended` hears of a signal, should the screen not end by it.
///
/// # Errors
/// When a thread cannot be made.
pub(super) fn start(
    client: &Client,
    news: &SyncSender<News>,
    ended: SyncSender<std::io::Result<()>>,
) -> std::io::Result<()> {
    let (asking, send) = (client.clone(), news.clone());
    thread::Builder::new().name("top-asks".into()).spawn(move || {
        loop {
            thread::sleep(PAUSE);
            let heard = match ask(&asking) {
                Ok(snapshot) => News::Snapshot(Box::new(snapshot)),
                Err(error) => News::Silent(error.to_string()),
            };
            if send.send(heard).is_err() {
                return;
            }
        }
    })?;
    let (reading, send) = (client.clone(), news.clone());
    thread::Builder::new().name("top-reads-events".into()).spawn(move || {
        // Whether anybody listens is seen when there is something to tell.
        while read_events(&reading, &send).is_ok() {
            thread::sleep(PAUSE);
        }
    })?;
    let send = news.clone();
    thread::Builder::new().name("top-signals".into()).spawn(move || {
        if wait_for_end().is_ok() {
            let _ = send.send(News::End);
            // Where the terminal itself is gone, the screen never comes back from looking for keys.
            thread::sleep(END_MAX);
            let _ = ended.send(Ok(()));
        }
    })?;
    Ok(())
}

/// Until the node ends the stream; an error when nobody listens any more.
fn read_events(client: &Client, news: &SyncSender<News>) -> Result<(), std::sync::mpsc::SendError<News>> {
    let Ok(stream) = client.lines("/v1/events") else { return Ok(()) };
    for line in stream.lines().map_while(Result::ok) {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if let Ok(event) = serde_json::from_str::<EventView>(data) {
            news.send(News::Event(event))?;
        } else if let Ok(MissedView { missed }) = serde_json::from_str(data) {
            news.send(News::Missed(missed))?;
        }
    }
    Ok(())
}

/// Told to end by a signal, the screen is given back first.
fn wait_for_end() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            _ = hung_up.recv() => {}
        }
        Ok(())
    })
}

//! `/v1/events`: what happens in the mesh, as server-sent events, until the reader hangs up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::json::{EventView, MissedView};
use super::{Shared, refusal};

/// Readers at once.
const READERS_MAX: usize = 16;
/// A quiet stream shows that it lives this often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where events come from, and how many more may read them.
#[derive(Clone)]
pub(super) struct Readers {
    events: broadcast::Sender<EventView>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(events: broadcast::Sender<EventView>) -> Self {
        Self { events, places: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/events", get(events))
}

struct Reading {
    events: broadcast::Receiver<EventView>,
    _place: OwnedSemaphorePermit,
}

async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.readers.places.clone().try_acquire_owned() else {
        let text =
            format!("{READERS_MAX} readers of events are connected already; end one, or ask another node");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let reading = Reading { events: shared.readers.events.subscribe(), _place: place };
    // At once: a client sees that it is connected before anything happens.
    let begun = stream::iter([Ok::<_, Infallible>(Sent::default().comment("events follow"))]);
    let follow = stream::unfold(reading, |mut reading| async move {
        let sent = match reading.events.recv().await {
            Ok(event) => one(&event),
            Err(RecvError::Lagged(missed)) => {
                Sent::default().event("missed").json_data(MissedView { missed }).unwrap_or_default()
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(sent), reading))
    });
    let beat = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Sse::new(futures::StreamExt::chain(begun, follow)).keep_alive(beat).into_response()
}

fn one(event: &EventView) -> Sent {
    let sent = Sent::default().event(event.what.topic()).id(event.sequence.to_string());
    // Such a value always has a JSON form.
    sent.json_data(event).unwrap_or_default()
}

#[cfg(test)]
mod tests;

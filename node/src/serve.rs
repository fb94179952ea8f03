//! The fronts of a node: Open Inference Protocol and mesh API over HTTP, the former over gRPC too. They read and answer
//! calls; what these do is decided by the driver.

mod admission;
mod connections;
mod events;
mod grpc;
pub mod json;
pub(crate) mod mesh_api;
mod named;
mod oip;
mod windows;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http_body_util::LengthLimitError;
use stormo_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::app::Event;
use crate::app::calls::{Call, CallError, Reply};
use crate::pool::Pool;
use json::ErrorView;

/// Largest body of a request: the tensors of one frame and their JSON.
const BODY_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize + (1 << 20);
/// Requests with bodies that are read at once; more are refused at once, so that memory is bounded.
const BODIES_MAX: usize = 32;
/// Bytes of all that are read at once, by what was announced: as many as four of the largest.
const BODIES_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// They are counted in these.
const BODIES_UNIT_BYTES: usize = 1 << 10;
/// A body comes within this time, or not at all.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// And one that nobody will read within this, or the connection ends.
const SKIP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a caller without the token is told.
const TOKEN_WANTED: &str = "send the API token as `Authorization: Bearer TOKEN`";

/// Why the API does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("the API cannot listen on {address}: {source}; choose another with --api (port 0: any free one)")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The same of the one over gRPC.
    #[error(
        "the gRPC API cannot listen on {address}: {source}; choose another with --grpc (port 0: any free one), or none \
         with --grpc off"
    )]
    BindGrpc {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The fronts at work, until it is dropped.
pub struct Serving {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the one over gRPC does, if there is one.
    pub grpc: Option<SocketAddr>,
    _tasks: JoinSet<()>,
}

/// What the front works with.
#[derive(Clone)]
pub struct Front {
    /// Where calls go.
    pub events: mpsc::Sender<Event>,
    /// Where uploads go.
    pub pool: Arc<Pool>,
    /// What callers must send, if anything.
    pub token: Option<String>,
    /// Where events of the mesh come from.
    pub watchers: broadcast::Sender<json::EventView>,
    /// Whether peers may fetch what is uploaded here.
    pub stores: bool,
}

#[derive(Clone)]
struct Shared {
    front: Front,
    bodies: Arc<Semaphore>,
    /// What of [`BODIES_BYTES_MAX`] is left.
    body_units: Arc<Semaphore>,
    admission: admission::Admission,
    readers: events::Readers,
}

/// Binds and serves.
///
/// # Errors
/// When an address cannot be bound.
pub async fn start(
    address: SocketAddr,
    grpc: Option<SocketAddr>,
    front: Front,
) -> Result<Serving, ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let api = listener.local_addr().map_err(failed)?;
    let readers = events::Readers::new(front.watchers.clone());
    let bodies = Arc::new(Semaphore::new(BODIES_MAX));
    let body_units = Arc::new(Semaphore::new(BODIES_BYTES_MAX / BODIES_UNIT_BYTES));
    let shared = Shared { front, bodies, body_units, admission: admission::Admission::new(), readers };
    let mut tasks = JoinSet::new();
    let grpc = match grpc {
        Some(address) => Some(start_grpc(address, shared.clone(), &mut tasks).await?),
        None => None,
    };
    let router = router(shared);
    tasks.spawn(connections::accept(listener, move |stream| connections::serve(stream, router.clone())));
    Ok(Serving { api, grpc, _tasks: tasks })
}

async fn start_grpc(
    address: SocketAddr,
    shared: Shared,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, ServeError> {
    let failed = |source| ServeError::BindGrpc { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tasks.spawn(connections::accept(listener, move |stream| grpc::serve(stream, shared.clone())));
    Ok(bound)
}

fn router(shared: Shared) -> Router {
    Router::new()
        .merge(oip::routes())
        .merge(mesh_api::routes())
        .merge(events::routes())
        .fallback(|| async {
            refusal(StatusCode::NOT_FOUND, "there is nothing here; the API is under /v2 and /v1")
        })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), authorised))
        .with_state(shared)
}

/// Lets a call in if it brings the token, where one is wanted.
async fn authorised(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if !shared.lets_in(request.headers()) {
        return refusal(StatusCode::UNAUTHORIZED, TOKEN_WANTED);
    }
    next.run(request).await
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    (status, axum::Json(ErrorView { error: error.into() })).into_response()
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refusal(status, self.to_string())
    }
}

impl Shared {
    /// Whether a call brings the token, where one is wanted.
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.front.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // Hashes are compared, so that timing tells nothing of the token.
        blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes())
    }

    /// Asks the driver.
    async fn call<T>(&self, make: impl FnOnce(Reply<T>) -> Call) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        let gone = || CallError::Unavailable("the node is ending".into());
        self.front.events.send(Event::Call(make(reply))).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// See [`admission::Admission::look`].
    fn look(&self, model: &str) -> Result<(), CallError> {
        self.admission.look(model).inspect_err(|_| self.turn_away(model))
    }

    /// See [`admission::Admission::enter`].
    fn enter(&self, model: &str) -> Result<windows::Entered, CallError> {
        self.admission.enter(model).inspect_err(|_| self.turn_away(model))
    }

    /// Those who are turned away want something, too.
    fn turn_away(&self, model: &str) {
        if let Some(counts) = self.admission.turn_away(model) {
            // A loop that has no room for it has more to do than to count.
            let _ = self.front.events.try_send(Event::Call(Call::TurnedAway(counts)));
        }
    }

    /// Takes in what of a body is on its way, and forgets it: a caller who still writes would see a broken connection
    /// instead of the refusal. One who waits to be asked for the body is not.
    async fn skip_body(&self, request: Request) {
        if request.headers().contains_key(header::EXPECT) {
            return;
        }
        let mut body = request.into_body().into_data_stream();
        let skip = async {
            let mut bytes = 0;
            while let Some(Ok(chunk)) = body.next().await
                && bytes < BODY_BYTES_MAX
            {
                bytes += chunk.len();
            }
        };
        let _ = timeout(SKIP_TIMEOUT, skip).await;
    }

    /// Reads a body whole, in bounded time and memory.
    async fn body(&self, request: Request) -> Result<axum::body::Bytes, Response> {
        let Ok(_permit) = self.bodies.try_acquire() else {
            self.skip_body(request).await;
            return Err(refusal(StatusCode::TOO_MANY_REQUESTS, "too many bodies at once; try again shortly"));
        };
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared: Option<u64> = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        if let Some(bytes) = declared.filter(|bytes| *bytes > BODY_BYTES_MAX as u64) {
            let text = format!("a body has at most {BODY_BYTES_MAX} bytes; {bytes} were announced");
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        // What is not announced may be as long as is allowed.
        let bytes = declared.map_or(BODY_BYTES_MAX, |bytes| bytes as usize);
        let units = u32::try_from(bytes.div_ceil(BODIES_UNIT_BYTES)).unwrap_or(u32::MAX);
        let Ok(_units) = self.body_units.try_acquire_many(units) else {
            self.skip_body(request).await;
            let text = "bodies of too many bytes at once; try again shortly, and announce their length (Content-Length)";
            return Err(refusal(StatusCode::TOO_MANY_REQUESTS, text));
        };
        let limited = axum::RequestExt::with_limited_body(request);
        let read = axum::body::to_bytes(limited.into_body(), BODY_BYTES_MAX);
        match timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_too_long(&error) => {
                let text = format!("a body has at most {BODY_BYTES_MAX} bytes; more came");
                Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, text))
            }
            Ok(Err(error)) => {
                Err(refusal(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}")))
            }
            Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;

    use super::is_too_long;

    #[tokio::test]
    async fn a_body_without_a_length_that_is_too_long_is_known() {
        let read = |text: &'static str, most| async move {
            let request =
                Request::new(Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(text)])));
            to_bytes(axum::RequestExt::with_limited_body(request).into_body(), most).await
        };
        assert!(is_too_long(&read("four", 3).await.unwrap_err()));
        assert!(read("four", 4).await.is_ok());
        let broken =
            Body::from_stream(futures::stream::iter([Err::<&str, _>(std::io::Error::other("broken"))]));
        assert!(!is_too_long(&to_bytes(broken, 3).await.unwrap_err()));
    }
}

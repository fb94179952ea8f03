//! The mesh API under `/v1`: nodes, models, deployments, plans, requests, and uploads to the pool.

use axum::body::HttpBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{ObjectId, RequestId};
use stormo_protocol::limits::OBJECT_BYTES_MAX;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::json::DeployBody;
use super::named::Named;
use super::oip::request::{above_zero, accuracy};
use super::{BODY_TIMEOUT, Shared, refusal};
use crate::app::calls::{Call, CallError, PlanLimits, PlannerName, PlansAsked, Reply};
use crate::plan::Objective;
use crate::pool::PoolError;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/node", get(own_node))
        .route("/v1/node/work", put(take_work))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{name}", get(node))
        .route("/v1/models", get(|State(shared): State<Shared>| answer(shared, Call::Models)))
        .route("/v1/models/{name}", get(model))
        .route(
            "/v1/deployments",
            get(|State(shared): State<Shared>| answer(shared, Call::Deployments)).post(deploy),
        )
        .route("/v1/deployments/{name}", delete(undeploy))
        .route("/v1/plans", get(plans))
        .route("/v1/plans/instance", get(instance))
        .route("/v1/requests", get(|State(shared): State<Shared>| answer(shared, Call::Requests)))
        .route("/v1/requests/{id}", get(request))
        .route(
            "/v1/objects/{id}",
            get(object_here).put(upload).layer(axum::extract::DefaultBodyLimit::disable()),
        )
}

async fn answer<T: serde::Serialize>(shared: Shared, call: impl FnOnce(Reply<T>) -> Call) -> Response {
    match shared.call(call).await {
        Ok(value) => Json(value).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Whether state is asked for as it is now, not as it was last told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodesQuery {
    #[serde(default)]
    fresh: bool,
}

type NodesQueried = Result<Query<NodesQuery>, QueryRejection>;

fn is_fresh(query: NodesQueried) -> Result<bool, CallError> {
    let wrong = |error| CallError::BadRequest(format!("{error}; an example: /v1/nodes?fresh=true"));
    query.map(|Query(query)| query.fresh).map_err(wrong)
}

async fn own_node(State(shared): State<Shared>, query: NodesQueried) -> Response {
    match is_fresh(query) {
        Ok(fresh) => answer(shared, |reply| Call::Node { fresh, reply }).await,
        Err(error) => error.into_response(),
    }
}

/// Whether the node takes work of others from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkBody {
    take: bool,
}

async fn take_work(State(shared): State<Shared>, request: Request) -> Response {
    let body = match shared.body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match serde_json::from_slice(&body) {
        Ok(WorkBody { take }) => answer(shared, |reply| Call::TakeWork { take, reply }).await,
        Err(error) => refusal(StatusCode::BAD_REQUEST, format!("{error}; an example: {{\"take\": false}}")),
    }
}

async fn nodes(State(shared): State<Shared>, query: NodesQueried) -> Response {
    match is_fresh(query) {
        Ok(fresh) => answer(shared, |reply| Call::Nodes { fresh, reply }).await,
        Err(error) => error.into_response(),
    }
}

async fn node(State(shared): State<Shared>, Named(name): Named<String>, query: NodesQueried) -> Response {
    match is_fresh(query) {
        Ok(fresh) => answer(shared, |reply| Call::NodeNamed { name, fresh, reply }).await,
        Err(error) => error.into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelQuery {
    variant: Option<String>,
}

async fn model(
    State(shared): State<Shared>,
    Named(name): Named<String>,
    query: Result<Query<ModelQuery>, QueryRejection>,
) -> Response {
    let Query(ModelQuery { variant }) = match query {
        Ok(query) => query,
        Err(error) => return CallError::BadRequest(error.body_text()).into_response(),
    };
    answer(shared, |reply| Call::Model { name, variant, reply }).await
}

/// What is deployed here is fetched from here.
pub(crate) const NO_STORE: &str =
    "this node gives no objects to others (--roles): deploy at a node with the role `store`, by --api";

async fn deploy(State(shared): State<Shared>, request: Request) -> Response {
    if !shared.front.stores {
        return CallError::Conflict(NO_STORE.to_owned()).into_response();
    }
    let body = match shared.body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match serde_json::from_slice::<DeployBody>(&body) {
        Ok(body) => {
            let mut response = answer(shared, |reply| Call::Deploy(body, reply)).await;
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::ACCEPTED;
            }
            response
        }
        Err(error) => refusal(StatusCode::BAD_REQUEST, format!("the body is no deployment: {error}")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UndeployQuery {
    #[serde(default)]
    take_over: bool,
}

async fn undeploy(
    State(shared): State<Shared>,
    Named(name): Named<String>,
    query: Result<Query<UndeployQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(UndeployQuery { take_over })) => {
            answer(shared, |reply| Call::Undeploy { name, take_over, reply }).await
        }
        Err(error) => CallError::BadRequest(error.body_text()).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlansQuery {
    model: String,
    variant: Option<String>,
    #[serde(default)]
    all: bool,
    image: Option<bool>,
    #[serde(default)]
    force_first: bool,
    #[serde(default)]
    force_last: bool,
    min_accuracy: Option<f64>,
    max_latency_ms: Option<f64>,
    max_energy_j: Option<f64>,
    #[serde(default)]
    objective: Objective,
    #[serde(default)]
    planner: PlannerName,
    #[serde(default)]
    warm: bool,
    /// With commas between.
    #[serde(default)]
    without: String,
    codec: Option<Codec>,
}

type PlansQueried = Result<Query<PlansQuery>, QueryRejection>;

async fn plans(State(shared): State<Shared>, query: PlansQueried) -> Response {
    match plans_asked(query) {
        Ok(asked) => answer(shared, |reply| Call::Plans(asked, reply)).await,
        Err(error) => error.into_response(),
    }
}

/// The same question, answered with what a planner is given for it.
async fn instance(State(shared): State<Shared>, query: PlansQueried) -> Response {
    match plans_asked(query) {
        Ok(asked) => answer(shared, |reply| Call::Instance(asked, reply)).await,
        Err(error) => error.into_response(),
    }
}

fn plans_asked(query: PlansQueried) -> Result<PlansAsked, CallError> {
    let wrong = |error| CallError::BadRequest(format!("{error}; an example: /v1/plans?model=NAME&all=true"));
    let Query(query) = query.map_err(wrong)?;
    let PlansQuery { model, variant, all, image, force_first, force_last, .. } = query;
    let PlansQuery { codec, planner, objective, warm, without, .. } = query;
    let without = without.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let limits = PlanLimits {
        force_first,
        force_last,
        min_accuracy: query.min_accuracy.map(accuracy).transpose()?,
        max_latency_ms: query.max_latency_ms.map(|most| above_zero("max_latency_ms", most)).transpose()?,
        max_energy_j: query.max_energy_j.map(|most| above_zero("max_energy_j", most)).transpose()?,
        objective,
    };
    Ok(PlansAsked { model, variant, all, image, limits, codec, planner, warm, without })
}

async fn request(State(shared): State<Shared>, Named(id): Named<String>) -> Response {
    match id.parse::<RequestId>() {
        Ok(id) => answer(shared, |reply| Call::Request(id, reply)).await,
        Err(error) => CallError::BadRequest(error.to_string()).into_response(),
    }
}

/// Objects that are read from the disk at once to see whether they are whole.
static READING: Semaphore = Semaphore::const_new(2);

/// Whether an object is here, whole (GET and HEAD); its bytes are not given.
async fn object_here(State(shared): State<Shared>, Named(id): Named<String>) -> Response {
    let id = match id.parse::<ObjectId>() {
        Ok(id) => id,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let _permit = READING.acquire().await;
    match spawn_blocking(move || shared.front.pool.has_for_upload(id)).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => refusal(StatusCode::NOT_FOUND, "the object is not here"),
        Err(error) => pool_refusal(error.into()),
    }
}

/// Stores an object as it comes, without holding it in memory.
async fn upload(State(shared): State<Shared>, Named(id): Named<String>, request: Request) -> Response {
    let id = match id.parse::<ObjectId>() {
        Ok(id) => id,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if !shared.front.stores {
        return CallError::Conflict(NO_STORE.to_owned()).into_response();
    }
    if request.body().size_hint().lower() > OBJECT_BYTES_MAX {
        let text = format!("an object has at most {OBJECT_BYTES_MAX} bytes");
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, text);
    }
    let Ok(_permit) = shared.bodies.try_acquire() else {
        return refusal(StatusCode::TOO_MANY_REQUESTS, "too many uploads at once; try again shortly");
    };
    match store(&shared, id, request).await {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(refused) => refused,
    }
}

async fn store(shared: &Shared, id: ObjectId, request: Request) -> Result<(), Response> {
    let mut incoming = shared.front.pool.begin_shared(id).map_err(pool_refusal)?;
    let mut body = request.into_body().into_data_stream();
    let mut length = 0;
    loop {
        let chunk = match timeout(BODY_TIMEOUT, body.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => return beside(move || incoming.finish()).await,
            Ok(Some(Err(error))) => {
                return Err(refusal(StatusCode::BAD_REQUEST, format!("the upload broke off: {error}")));
            }
            Err(_) => return Err(refusal(StatusCode::REQUEST_TIMEOUT, "the upload fell silent")),
        };
        length += chunk.len() as u64;
        if length > OBJECT_BYTES_MAX {
            let text = format!("an object has at most {OBJECT_BYTES_MAX} bytes");
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        incoming = beside(move || incoming.write(&chunk).map(|()| incoming)).await?;
    }
}

/// Does what may wait for a disk, for seconds where that is a slow card, beside the runtime: where this has one worker only,
/// all connections would stand still meanwhile.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PoolError> + Send + 'static,
) -> Result<T, Response> {
    let done = spawn_blocking(work).await;
    let broken = |error: JoinError| refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    done.map_err(broken)?.map_err(pool_refusal)
}

fn pool_refusal(error: PoolError) -> Response {
    let status = match error {
        PoolError::Damaged(_) => StatusCode::BAD_REQUEST,
        PoolError::Disk { .. } | PoolError::Unreadable { .. } | PoolError::Full { .. } => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        PoolError::Missing(_) | PoolError::Nowhere { .. } => StatusCode::NOT_FOUND,
        PoolError::Unwanted | PoolError::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refusal(status, error.to_string())
}

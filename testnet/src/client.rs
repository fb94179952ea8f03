//! The HTTP API of one node, with typed answers.

use std::time::Duration;

use serde::de::DeserializeOwned;
use stormo::serve::json::{
    DeploymentsView, ErrorView, ModelsView, NodeView, NodesView, PlansView, RequestView,
};
use ureq::Agent;
use ureq::http::Response;

use crate::oip::{AnswerParameters, InferAnswer, InferRequest};
use serde_json::Value;

/// Longest call: twice the node's own deadline for a request, so that the node speaks first.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Longest answer that is read: far above the output of any model used here.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The node cannot be reached, or went silent.
    #[error("{url}: {cause}")]
    Unreachable {
        /// What was called.
        url: String,
        /// What went wrong.
        cause: Box<ureq::Error>,
    },
    /// The node refused, or failed.
    #[error("{url} answered {status}: {error}")]
    Refused {
        /// What was called.
        url: String,
        /// HTTP status.
        status: u16,
        /// The node's own words.
        error: String,
    },
    /// The answer is not what the API promises.
    #[error("{url}: unexpected answer: {cause}")]
    Unexpected {
        /// What was called.
        url: String,
        /// What does not fit.
        cause: serde_json::Error,
    },
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Calls one node.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    /// For the node at this address (`http://127.0.0.1:8000`).
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(CALL_MAX));
        // The nodes are on this machine, whatever proxy the environment names.
        let agent = config.proxy(None).build().new_agent();
        Self { agent, base: base.trim_end_matches('/').to_owned() }
    }

    /// The address given.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The node, as it knows itself.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn node(&self) -> Result<NodeView, ApiError> {
        self.get("/v1/node")
    }

    /// All nodes that it knows, itself included.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn nodes(&self) -> Result<Vec<NodeView>, ApiError> {
        Ok(self.get::<NodesView>("/v1/nodes")?.nodes)
    }

    /// The models that it knows.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn models(&self) -> Result<ModelsView, ApiError> {
        self.get("/v1/models")
    }

    /// The deployments that it knows.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn deployments(&self) -> Result<DeploymentsView, ApiError> {
        self.get("/v1/deployments")
    }

    /// All plans that it can run for a model, best first.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn plans(&self, model: &str) -> Result<PlansView, ApiError> {
        self.get(&format!("/v1/plans?model={model}&all=true"))
    }

    /// The same with nothing coded between nodes, so that the bytes that travel are known before.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn uncoded_plans(&self, model: &str) -> Result<PlansView, ApiError> {
        self.get(&format!("/v1/plans?model={model}&all=true&codec=raw"))
    }

    /// How one of the last requests that entered there went.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn request(&self, id: &str) -> Result<RequestView, ApiError> {
        self.get(&format!("/v1/requests/{id}"))
    }

    /// Runs a model.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn infer(&self, model: &str, request: &InferRequest) -> Result<InferAnswer, ApiError> {
        let url = self.url(&format!("/v2/models/{model}/infer"));
        let sent = self.agent.post(&url).send_json(request);
        read(&url, sent)
    }

    /// Runs a model on inputs that follow their description as bytes; of the answer, only how it ran.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn infer_binary(
        &self,
        model: &str,
        head: &Value,
        bytes: &[u8],
    ) -> Result<AnswerParameters, ApiError> {
        #[derive(serde::Deserialize)]
        struct Head {
            parameters: AnswerParameters,
        }
        let url = self.url(&format!("/v2/models/{model}/infer"));
        let head = head.to_string();
        let request = self.agent.post(&url).header("inference-header-content-length", head.len());
        let request = request.header("content-type", "application/octet-stream");
        let body = good(&url, raw(&url, request.send([head.as_bytes(), bytes].concat()))?)?;
        // The outputs' bytes follow.
        let mut read = serde_json::Deserializer::from_slice(&body).into_iter::<Head>();
        let head = read.next().unwrap_or_else(|| Err(serde::de::Error::custom("an empty answer")));
        head.map(|head| head.parameters).map_err(|cause| ApiError::Unexpected { url, cause })
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When the node does not answer, refuses, or answers something else than `T`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let url = self.url(path);
        let sent = self.agent.get(&url).call();
        read(&url, sent)
    }

    /// Sends a body as it is, for answers that are not to be typed.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn post_raw(&self, path: &str, content_type: &str, body: &[u8]) -> Result<RawAnswer, ApiError> {
        let url = self.url(path);
        let sent = self.agent.post(&url).header("content-type", content_type).send(body);
        raw(&url, sent)
    }

    /// Puts a body as it is.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn put_raw(&self, path: &str, body: &[u8]) -> Result<RawAnswer, ApiError> {
        let url = self.url(path);
        raw(&url, self.agent.put(&url).send(body))
    }

    /// Asks for a path, for answers that are not to be typed.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn get_raw(&self, path: &str) -> Result<RawAnswer, ApiError> {
        let url = self.url(path);
        raw(&url, self.agent.get(&url).call())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

fn raw(url: &str, sent: Result<Response<ureq::Body>, ureq::Error>) -> Result<RawAnswer, ApiError> {
    let unreachable = |cause| ApiError::Unreachable { url: url.to_owned(), cause: Box::new(cause) };
    let mut response = sent.map_err(unreachable)?;
    let body =
        response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
    Ok(RawAnswer { status: response.status().as_u16(), body })
}

fn read<T: DeserializeOwned>(
    url: &str,
    sent: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<T, ApiError> {
    let body = good(url, raw(url, sent)?)?;
    serde_json::from_slice(&body).map_err(|cause| ApiError::Unexpected { url: url.to_owned(), cause })
}

/// The body, unless the node refuses.
fn good(url: &str, RawAnswer { status, body }: RawAnswer) -> Result<Vec<u8>, ApiError> {
    if !(200..300).contains(&status) {
        let said = serde_json::from_slice::<ErrorView>(&body).map(|view| view.error);
        let error = said.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
        return Err(ApiError::Refused { url: url.to_owned(), status, error });
    }
    Ok(body)
}

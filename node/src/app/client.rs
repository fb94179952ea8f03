//! Calls to a node's API, for the commands.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cli::{ApiArgs, NodeApiArgs};
use super::config::TOKEN_BYTES_MAX;
use crate::files;
use crate::serve::json::ErrorView;

/// An answer may take as long as a request may, and a little more.
const CALL_TIMEOUT: Duration = Duration::from_secs(660);
/// What is read at once is answered within this, or its node stands still.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The same of one whose time its caller has said, which the node counts from when it has the body: that may take a minute,
/// and a large answer some time more.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(90);
/// A stream that tells what happens is opened again after this: if its node lost its power, nothing else
/// would show.
const STREAM_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

/// Why a command failed, in words for its user.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No node answers.
    #[error("no node answers at {api}: {reason}\nStart one with `stormo node`, or name another with --api.")]
    Unreachable {
        /// Where.
        api: String,
        /// What was said.
        reason: String,
    },
    /// A node is there, and does not answer.
    #[error(
        "the node at {api} does not answer: it stands still, or has too much to do\nAsk another one with --api."
    )]
    Still {
        /// Where.
        api: String,
    },
    /// The node says no.
    #[error("{0}")]
    Refused(String),
    /// The node's answer is not understood.
    #[error("the node's answer is not understood ({0}); is it the same version of stormo?")]
    Answer(String),
    /// Something on this side.
    #[error("{0}")]
    Here(String),
}

/// The API of one node.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
    /// For what is read at once.
    read_within: Duration,
}

/// An answer's body.
pub struct Answered {
    /// Status code.
    pub status: u16,
    /// `Inference-Header-Content-Length`, if given.
    pub header_length: Option<usize>,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Client {
    /// The node that the arguments name.
    ///
    /// # Errors
    /// When the token's file cannot be read.
    pub fn new(args: &ApiArgs) -> Result<Self, CommandError> {
        Self::with_patience(&args.node, CALL_TIMEOUT)
    }

    /// The same for requests that end after so many milliseconds, or the node stands still.
    ///
    /// # Errors
    /// Likewise.
    pub fn for_requests(args: &ApiArgs, timeout_ms: f64) -> Result<Self, CommandError> {
        let timeout = Duration::from_secs_f64((timeout_ms / 1000.0).clamp(0.0, CALL_TIMEOUT.as_secs_f64()));
        Self::with_patience(&args.node, timeout + BEYOND_TIMEOUT)
    }

    /// The node that the arguments name; it is to answer within this time.
    ///
    /// # Errors
    /// When the token's file cannot be read.
    pub fn with_patience(args: &NodeApiArgs, within: Duration) -> Result<Self, CommandError> {
        let token = args.api_token.as_deref().map(read_token).transpose()?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(within))
            .http_status_as_error(false)
            .build()
            .into();
        let base = args.api.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        Ok(Self { base, token, agent, read_within: within.min(READ_TIMEOUT) })
    }

    /// Where the node is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Lines as they come, until the node or [`STREAM_TIMEOUT`] ends them.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn lines(&self, path: &str) -> Result<impl BufRead + use<>, CommandError> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        let request = request.config().timeout_global(Some(STREAM_TIMEOUT)).build();
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        match response.status().as_u16() {
            200 => Ok(BufReader::new(response.into_body().into_reader())),
            status => Err(CommandError::Refused(format!("the node answered {status}"))),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> CommandError {
        let api = self.base.clone();
        match error {
            ureq::Error::Timeout(_) => CommandError::Still { api },
            error => CommandError::Unreachable { api, reason: error.to_string() },
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> String {
        self.token.as_ref().map(|token| format!("Bearer {token}")).unwrap_or_default()
    }

    /// Reads a value that is at hand.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        self.value(request.config().timeout_global(Some(self.read_within)).build().call())
    }

    /// Reads a value that takes time to make.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn get_made<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        self.value(request.call())
    }

    /// Sends a value and reads the answer.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CommandError> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.value(request.send_json(body))
    }

    /// Sets a value and reads what came of it.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CommandError> {
        let request = self.agent.put(self.url(path)).header("authorization", self.bearer());
        self.value(request.config().timeout_global(Some(self.read_within)).build().send_json(body))
    }

    /// Deletes something and reads what it was.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let request = self.agent.delete(self.url(path)).header("authorization", self.bearer());
        self.value(request.config().timeout_global(Some(self.read_within)).build().call())
    }

    /// Whether an object is in the node's pool, and undamaged.
    ///
    /// # Errors
    /// When no node answers.
    pub fn has_object(&self, id: &str) -> Result<bool, CommandError> {
        let url = self.url(&format!("/v1/objects/{id}"));
        let answered = self.read(self.agent.get(url).header("authorization", self.bearer()).call())?;
        Ok(answered.status == 204)
    }

    /// Puts an object into the node's pool.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn put_object(&self, id: &str, bytes: &[u8]) -> Result<(), CommandError> {
        let url = self.url(&format!("/v1/objects/{id}"));
        let request = self.agent.put(url).header("authorization", self.bearer());
        good(self.read(request.send(bytes))?).map(|_| ())
    }

    /// Sends an inference request with binary tensors.
    ///
    /// # Errors
    /// When no node answers, or it says no.
    pub fn infer(&self, model: &str, header_length: usize, body: &[u8]) -> Result<Answered, CommandError> {
        good(self.try_infer(model, header_length, body)?)
    }

    /// Likewise; a refusal is an answer too.
    ///
    /// # Errors
    /// When no node answers.
    pub fn try_infer(
        &self,
        model: &str,
        header_length: usize,
        body: &[u8],
    ) -> Result<Answered, CommandError> {
        let request = self
            .agent
            .post(self.url(&format!("/v2/models/{}/infer", encoded(model))))
            .header("authorization", self.bearer())
            .header("inference-header-content-length", header_length)
            .header("content-type", "application/octet-stream");
        self.read(request.send(body))
    }

    fn value<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, CommandError> {
        let answered = good(self.read(response)?)?;
        serde_json::from_slice(&answered.body).map_err(|error| CommandError::Answer(error.to_string()))
    }

    fn read(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answered, CommandError> {
        let unreachable = |error: ureq::Error| self.unreachable(&error);
        let mut response = response.map_err(unreachable)?;
        let header_length = response.headers().get("inference-header-content-length");
        let header_length = header_length.and_then(|value| value.to_str().ok()?.parse().ok());
        let body =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
        Ok(Answered { status: response.status().as_u16(), header_length, body })
    }
}

/// For a path or a query: everything but letters, digits and a few signs by its number.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// An answer that is no refusal.
///
/// # Errors
/// The refusal, in the node's words.
pub fn good(answered: Answered) -> Result<Answered, CommandError> {
    if (200..300).contains(&answered.status) {
        return Ok(answered);
    }
    let said = serde_json::from_slice::<ErrorView>(&answered.body).map(|view| view.error);
    Err(CommandError::Refused(said.unwrap_or_else(|_| format!("the node answered {}", answered.status))))
}

fn read_token(path: &Path) -> Result<String, CommandError> {
    let text = files::read_text(path, TOKEN_BYTES_MAX);
    let text = text.map_err(|error| CommandError::Here(format!("`{}`: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

//! The command line's end of the admin endpoint: one request on one connection, with a deadline on all of it.
//!
//! It blocks and brings its own runtime, so that commands stay plain functions. Never use it inside the program.

mod workers;

pub use workers::WhichLines;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tidegate_config::model::{Address, Secret};
use tokio::io::{AsyncRead, AsyncWrite};

use super::view::{Problem, ReloadReport, Status};

/// Largest answer that is read.
const LARGEST_ANSWER: usize = 64 << 20;

/// Talks to one admin endpoint.
#[derive(Debug, Clone)]
pub struct AdminClient {
    address: Address,
    token: Option<Secret>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No such socket.
    #[error("tidegate is not running: no socket at {0}")]
    NoSocket(String),
    /// A socket that nobody listens on.
    #[error("tidegate is not running: nobody listens at {0}")]
    NobodyListens(String),
    /// Not our account.
    #[error("no permission to use {0}; run this as root or as the account that started tidegate")]
    NoPermission(String),
    /// Another account's token, or none.
    #[error("{at} refused the token; give the one of admin.token with --token-file")]
    Token {
        /// Path or address.
        at: String,
    },
    /// Took too long.
    #[error("{at} did not answer within {}", super::view::span(*deadline))]
    Deadline {
        /// Path or address.
        at: String,
        /// How long we waited.
        deadline: Duration,
    },
    /// The connection failed.
    #[error("{at}: {error}")]
    Connection {
        /// Path or address.
        at: String,
        /// Why.
        error: String,
    },
    /// Another program, or another version.
    #[error("{at} answered {status}: {error}")]
    Answer {
        /// Path or address.
        at: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        error: String,
    },
}

impl AdminClient {
    /// For this address, with a token where the endpoint wants one.
    #[must_use]
    pub const fn new(address: Address, token: Option<Secret>) -> Self {
        Self { address, token }
    }

    /// `GET /status`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self, deadline: Duration) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/status", deadline, &[StatusCode::OK])
    }

    /// `POST /reload`; a refusal is an answer too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn reload(&self, deadline: Duration) -> Result<ReloadReport, ClientError> {
        self.ask(Method::POST, "/reload", deadline, &[StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY])
    }

    /// `POST /stop`; returns when the shutdown has begun.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn stop(&self, deadline: Duration) -> Result<(), ClientError> {
        self.ask::<serde_json::Value>(Method::POST, "/stop", deadline, &[StatusCode::ACCEPTED]).map(drop)
    }

    /// Path or address, for messages.
    fn at(&self) -> String {
        match &self.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(address) => address.to_string(),
        }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        deadline: Duration,
        wanted: &[StatusCode],
    ) -> Result<T, ClientError> {
        let body = self.fetch(method, path, deadline, wanted)?;
        self.read(StatusCode::OK, &body)
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| {
            let error = format!("the answer cannot be read: {error}");
            ClientError::Answer { at: self.at(), status, error }
        })
    }

    /// The whole answer to one request.
    fn fetch(
        &self,
        method: Method,
        path: &str,
        deadline: Duration,
        wanted: &[StatusCode],
    ) -> Result<Bytes, ClientError> {
        let whole = async {
            let response = self.exchange(method, path).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| self.failed(error))?.to_bytes()))
        };
        let (status, body) = self.runtime()?.block_on(self.in_time(deadline, whole))?;
        if wanted.contains(&status) { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// The lines of an answer as they come; `deadline` is for its head. Ends with the answer, or when `each` fails.
    fn lines(
        &self,
        path: &str,
        deadline: Duration,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        self.runtime()?.block_on(async {
            let response = self.in_time(deadline, self.exchange(Method::GET, path)).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut rest = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.failed(error))?;
                rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|_| status == StatusCode::OK) {
                    let line = rest.split_to(end + 1);
                    if let Err(error) = each(line.strip_suffix(b"\n").unwrap_or(&line)) {
                        return Ok(Err(error));
                    }
                }
            }
            if status == StatusCode::OK { Ok(Ok(())) } else { Err(self.refused(status, &rest)) }
        })
    }

    fn runtime(&self) -> Result<tokio::runtime::Runtime, ClientError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| self.failed(error))
    }

    async fn in_time<T>(
        &self,
        deadline: Duration,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = |_| ClientError::Deadline { at: self.at(), deadline };
        tokio::time::timeout(deadline, answer).await.map_err(late)?
    }

    fn failed(&self, error: impl ToString) -> ClientError {
        ClientError::Connection { at: self.at(), error: error.to_string() }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let at = self.at();
        if status == StatusCode::UNAUTHORIZED {
            return ClientError::Token { at };
        }
        let problem = serde_json::from_slice::<Problem>(body).map(|problem| problem.error);
        let error = problem.unwrap_or_else(|_| "it is not the admin endpoint of tidegate".to_owned());
        ClientError::Answer { at, status, error }
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
        match &self.address {
            Address::Unix(socket) => {
                let stream =
                    tokio::net::UnixStream::connect(socket).await.map_err(|error| self.not_connected(&error))?;
                self.request(stream, method, path, "localhost").await
            }
            Address::Tcp(address) => {
                let stream =
                    tokio::net::TcpStream::connect(address).await.map_err(|error| self.not_connected(&error))?;
                self.request(stream, method, path, &address.to_string()).await
            }
        }
    }

    async fn request(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        method: Method,
        path: &str,
        host: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(Secret(token)) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| self.failed(error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.failed(error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.failed(error))?;
        // Ends with the runtime, which lives for one answer. What goes wrong with it is told by the answer too.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| self.failed(error))
    }

    fn not_connected(&self, error: &io::Error) -> ClientError {
        let at = self.at();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket(at),
            io::ErrorKind::ConnectionRefused => ClientError::NobodyListens(at),
            io::ErrorKind::PermissionDenied => ClientError::NoPermission(at),
            _ => ClientError::Connection { at, error: error.to_string() },
        }
    }
}

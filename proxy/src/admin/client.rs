//! The command line's end of the admin endpoint: one request on one connection, with a deadline on all of it.
//!
//! It blocks and brings its own runtime, so that commands stay plain functions. Never use it inside the program.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
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
        let at = self.at();
        let failed = |error: String| ClientError::Connection { at: at.clone(), error };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let answer = runtime.block_on(async { tokio::time::timeout(deadline, self.exchange(method, path)).await });
        let (status, body) = answer.map_err(|_| ClientError::Deadline { at: at.clone(), deadline })??;
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Token { at });
        }
        let unexpected = |error: String| ClientError::Answer { at: at.clone(), status, error };
        if !wanted.contains(&status) {
            let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
            return Err(unexpected(problem.unwrap_or_else(|_| "it is not the admin endpoint of tidegate".to_owned())));
        }
        serde_json::from_slice(&body).map_err(|error| unexpected(format!("the answer cannot be read: {error}")))
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
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
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let failed = |error: String| ClientError::Connection { at: self.at(), error };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(Secret(token)) = &self.token {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed(error.to_string()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| failed(error.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            Err(error) = connection => Err(failed(error.to_string())),
        }
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

//! The admin endpoint, as a client on its unix socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::net::UnixStream;

use crate::client::{Answer, Ask, Connection};

/// The admin endpoint of one edge.
#[derive(Debug, Clone)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// The endpoint behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(&self, ask: Ask) -> Result<Answer> {
        let place = || format!("the admin socket '{}'", self.socket.display());
        let stream = UnixStream::connect(&self.socket).await.with_context(place)?;
        let mut connection = Connection::http1(stream).await.with_context(place)?;
        connection.send(ask.host("localhost")).await.with_context(place)
    }

    /// The answer to `GET path`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(Ask::get(path)).await
    }

    /// `GET /status`, read.
    pub async fn status(&self) -> Result<Value> {
        let answer = self.get("/status").await?;
        anyhow::ensure!(answer.status == 200, "the status answers {}: {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).context("the status is no JSON")
    }

    /// `GET /metrics`, as text.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics").await?.text())
    }
}

//! WebSocket conversations through an edge, on plain TCP and on TLS.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

use crate::{
    certificates::{HTTP1, trusting_client},
    client::{Client, DEFAULT_HOST, Kind},
    connect::{self, Stream},
};

/// An open conversation.
pub struct WebSocket {
    socket: WebSocketStream<Box<dyn Stream>>,
}

impl WebSocket {
    /// Upgrades a connection of `client`, which must be one of the HTTP/1.1 kinds.
    pub async fn connect(client: Client, path: &str) -> Result<Self> {
        let (scheme, stream): (_, Box<dyn Stream>) = match client.kind() {
            Kind::Http1 => ("ws", Box::new(connect::tcp(client.address()).await?)),
            Kind::Http1Tls => {
                let config = trusting_client(&[HTTP1]);
                ("wss", Box::new(connect::tls(client.address(), DEFAULT_HOST, config).await?))
            }
            Kind::H2c | Kind::H2Tls => bail!("this client speaks WebSocket over HTTP/1.1 only"),
        };
        let request = format!("{scheme}://{DEFAULT_HOST}{path}").into_client_request()?;
        let (socket, _) = timeout(LIMIT, client_async(request, stream)).await.context("no handshake in time")??;
        Ok(Self { socket })
    }

    /// Sends a message.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        timeout(LIMIT, self.socket.send(message.into())).await.context("cannot send in time")?.context("cannot send")
    }

    /// The next message that is no ping or pong; `None` when the conversation is over.
    pub async fn receive(&mut self) -> Result<Option<Message>> {
        loop {
            match timeout(LIMIT, self.socket.next()).await.context("no message in time")? {
                None => return Ok(None),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(message) => return Ok(Some(message?)),
            }
        }
    }

    /// Sends a message and takes the same one back.
    ///
    /// # Panics
    /// When anything else happens.
    pub async fn assert_echo(&mut self, message: impl Into<Message>) {
        let message = message.into();
        self.send(message.clone()).await.unwrap_or_else(|error| panic!("{error:#}"));
        let back = self.receive().await.unwrap_or_else(|error| panic!("no echo: {error:#}"));
        assert_eq!(back, Some(message));
    }

    /// Closes in good manners, and returns what the other side says to it.
    pub async fn close(&mut self) -> Result<Option<CloseFrame>> {
        self.socket.close(None).await?;
        match self.receive().await? {
            Some(Message::Close(frame)) => Ok(frame),
            other => bail!("instead of a close: {other:?}"),
        }
    }
}

const LIMIT: Duration = Duration::from_secs(10);

//! Sockets that the engine opens, within the budget of descriptors.
//!
//! The engine connects through this, so that a connection has its descriptor before it is made, and tells of its end. One
//! that is taken from the engine's own pool has one already. What idles there counts and is not given back for others:
//! the engine has no way to be asked for it.

use crate::edge::admission::Descriptor;
use crate::edge::shard::Shared;
use crate::upstream::connect::is_local;
use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{PeerOptions, Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

/// The socket that one attempt may open; see the module's text.
#[derive(Clone)]
pub(crate) struct EngineSocket {
    shared: Arc<Shared>,
    /// Guards the descriptor of the connection that was made, until it has closed.
    descriptor: Arc<Mutex<Option<Descriptor>>>,
}

impl EngineSocket {
    /// None is open yet.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, descriptor: Arc::default() }
    }

    /// Has the engine connect through it.
    pub(crate) fn attach(self, options: &mut PeerOptions) {
        options.tracer = Some(Tracer(Box::new(self.clone())));
        options.custom_l4 = Some(Arc::new(self));
    }

    fn hold(&self, descriptor: Option<Descriptor>) {
        let mut held = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *held, descriptor);
        drop(held);
        drop(before);
    }
}

impl fmt::Debug for EngineSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineSocket").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for EngineSocket {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::InternalError, "HTTP/2 endpoints are TCP");
        };
        let Some(descriptor) = self.shared.descriptor() else {
            return Error::e_explain(ErrorType::SocketError, "no descriptor left for a connection");
        };
        let stream = TcpStream::connect(address).await.map_err(|error| {
            let kind = error_type(&error);
            Error::because(kind, "connect", error)
        })?;
        self.hold(Some(descriptor));
        Ok(stream.into())
    }
}

impl Tracing for EngineSocket {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.hold(None);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

fn error_type(error: &io::Error) -> ErrorType {
    match error.kind() {
        _ if is_local(error) => ErrorType::SocketError,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        _ => ErrorType::ConnectError,
    }
}

//! One check of one server: a connection, a request, or a question by gRPC's health protocol.
//!
//! Spoken as requests are: the same TLS, a PROXY protocol header where there is one (LOCAL: no client is behind it),
//! HTTP/2 where the upstream has it.

use super::{grpc, http};
use crate::edge::socket::Socket;
use crate::tls::upstream::UpstreamTls;
use crate::upstream::connect::connect_to;
use crate::upstream::link::Link;
use crate::upstream::proxy_protocol;
use async_trait::async_trait;
use pingora::lb::Backend;
use pingora::lb::health_check;
use pingora_core::protocols::l4::socket::SocketAddr as EngineAddress;
use pingora_core::{Error, ErrorType};
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_config::model::{Address, CheckKind, HealthCheck, ProxyHeader, UpstreamProtocol};
use tidegate_traffic::pool::endpoint::Endpoint;

/// Whom a check asks, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) proxy_protocol: Option<ProxyHeader>,
    pub(crate) tls: Option<Arc<UpstreamTls>>,
}

/// See the module's text.
pub(crate) struct Probe {
    definition: Arc<HealthCheck>,
    target: Target,
    /// What requests name as their host.
    host: String,
}

impl Probe {
    pub(crate) fn new(definition: Arc<HealthCheck>, target: Target) -> Self {
        let host = match (target.endpoint.host(), target.endpoint.address()) {
            (Some(name), Address::Tcp(address)) => format!("{name}:{}", address.port()),
            (None, Address::Tcp(address)) => address.to_string(),
            (_, Address::Unix(_)) => "localhost".to_owned(),
        };
        Self { definition, target, host }
    }

    pub(crate) fn definition(&self) -> &Arc<HealthCheck> {
        &self.definition
    }

    /// Where it asks; `None` for a unix socket whose path is none for the system.
    pub(crate) fn backend(&self) -> Option<Backend> {
        let addr = match self.target.endpoint.address() {
            Address::Tcp(address) => {
                let port = self.definition.port.unwrap_or(address.port());
                EngineAddress::Inet(SocketAddr::new(address.ip(), port))
            }
            Address::Unix(path) => EngineAddress::Unix(std::os::unix::net::SocketAddr::from_pathname(path).ok()?),
        };
        Some(Backend { addr, weight: 1, ext: Default::default() })
    }

    async fn ask(&self, address: &Address) -> Result<(), String> {
        let first = self.target.proxy_protocol.map(|version| proxy_protocol::header(version, None)).unwrap_or_default();
        // The deadline is that of the whole check.
        let (tls, limit) = (self.target.tls.as_deref(), self.definition.timeout);
        let name = self.target.endpoint.host().map(AsRef::as_ref);
        let link = connect_to(address, name, &first, tls, limit).await;
        let link = link.map_err(|error| error.to_string())?;
        match (&self.definition.kind, self.target.protocol) {
            (CheckKind::Connect, _) => Ok(()),
            (CheckKind::Http(request), UpstreamProtocol::Http1) => http::http1(link, request, &self.host).await,
            (CheckKind::Http(request), UpstreamProtocol::H2) => http::http2(plain(link)?, request, &self.host).await,
            (CheckKind::Grpc { service }, _) => grpc::ask(plain(link)?, service, &self.host).await,
        }
    }
}

#[async_trait]
impl health_check::HealthCheck for Probe {
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let address = match &target.addr {
            EngineAddress::Inet(address) => Address::Tcp(*address),
            EngineAddress::Unix(address) => Address::Unix(address.as_pathname().unwrap_or_else(|| "".as_ref()).into()),
        };
        self.ask(&address).await.map_err(|why| Error::explain(ErrorType::Custom("health check"), why))
    }

    fn health_threshold(&self, success: bool) -> usize {
        (if success { self.definition.rise } else { self.definition.fall }) as usize
    }
}

/// HTTP/2 endpoints are spoken to without TLS.
fn plain(link: Link) -> Result<Socket, String> {
    match link {
        Link::Plain(socket) => Ok(socket),
        Link::Tls(_) => Err("HTTP/2 over TLS is not spoken to servers".to_owned()),
    }
}

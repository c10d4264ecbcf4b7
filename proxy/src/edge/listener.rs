//! A listener at run time: what outlives reloads (identity, sockets, TLS state) and what a reload replaces.

use super::admission::Seats;
use crate::observe::metrics::ListenerMetrics;
use crate::tls::policy::ListenerTls;
use arc_swap::ArcSwap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tidegate_config::model::{
    Address, ClientTimeouts, HalfClose, HeadLimits, Http2, Listener as Model, Parsing, ProxyProtocol, Transport,
    TrustedProxies,
};
use tokio::sync::watch;

/// Identity of a listener across reloads; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListenerKey(pub(crate) u64);

/// What a reload may change without touching the socket.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Name in the file.
    pub(crate) name: String,
    /// What is spoken.
    pub(crate) transport: Transport,
    /// Deadlines of its connections.
    pub(crate) timeouts: ClientTimeouts,
    /// Limits on heads.
    pub(crate) head_limits: HeadLimits,
    /// What an HTTP/2 connection may use.
    pub(crate) http2: Http2,
    /// How HTTP/1.1 requests are read.
    pub(crate) parsing: Parsing,
    /// Most connections at a time.
    pub(crate) max_connections: Option<usize>,
    /// Who has to send a PROXY protocol header.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Whose word about clients is taken.
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    /// What becomes of a request whose client sends nothing more.
    pub(crate) half_close: HalfClose,
    /// Counters of its name.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// For `Transport::Tls`; the same value as long as the listener has TLS, so that sessions resume across reloads.
    pub(crate) tls: Option<Arc<ListenerTls>>,
}

/// A listener at run time.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Its identity.
    pub(crate) key: ListenerKey,
    /// As the file says.
    pub(crate) configured: Address,
    /// As bound.
    pub(crate) actual: Address,
    /// Its connections.
    pub(crate) seats: Arc<Seats>,
    /// Turns true when its connections are to end: it left the configuration, or the process drains.
    closing: watch::Sender<bool>,
    settings: ArcSwap<Settings>,
}

impl Listener {
    /// A bound listener.
    pub(crate) fn new(key: ListenerKey, configured: Address, actual: Address, settings: Settings) -> Self {
        let (seats, closing) = (Arc::default(), watch::Sender::new(false));
        Self { key, configured, actual, seats, closing, settings: ArcSwap::from_pointee(settings) }
    }

    /// Whether this listener serves what `model` describes: the same address. With port 0 that is any address, so then
    /// the name has to be the same too.
    pub(crate) fn is_for(&self, model: &Model) -> bool {
        let any_port = matches!(self.configured, Address::Tcp(address) if address.port() == 0);
        self.configured == model.address && (!any_port || self.settings.load().name == model.name)
    }

    /// Tells its connections to end: idle ones now, others after what they do.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Turns true when its connections are to end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The settings for a connection that begins now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// New settings for connections to come.
    pub(crate) fn replace(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }
}

impl Settings {
    /// The settings that `model` asks for.
    pub(crate) fn of(model: &Model, tls: Option<Arc<ListenerTls>>, metrics: Arc<ListenerMetrics>) -> Self {
        Self {
            name: model.name.clone(),
            transport: model.transport,
            timeouts: model.timeouts,
            head_limits: model.head_limits,
            http2: model.http2,
            parsing: model.parsing,
            max_connections: model.max_connections,
            proxy_protocol: model.proxy_protocol.clone(),
            trusted_proxies: model.trusted_proxies.clone(),
            half_close: model.half_close,
            metrics,
            tls,
        }
    }

    /// The PROXY protocol that this peer has to begin with; `None` is the client of a unix socket.
    pub(crate) fn proxy_protocol_for(&self, peer: Option<SocketAddr>) -> Option<&ProxyProtocol> {
        self.proxy_protocol.as_ref().filter(|protocol| protocol.from.contain(peer.map(|peer| peer.ip())))
    }

    /// Whose address a connection counts for: nobody's where many clients share it.
    pub(crate) fn counts_for(&self, peer: Option<SocketAddr>) -> Option<IpAddr> {
        peer.filter(|_| !self.trusts(peer)).map(|peer| peer.ip())
    }

    /// Whether the word of this peer about clients is taken.
    pub(crate) fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        self.trusted_proxies.as_ref().is_some_and(|proxies| proxies.from.contain(peer.map(|peer| peer.ip())))
    }
}

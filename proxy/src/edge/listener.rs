//! A listener at run time: what outlives reloads (identity, sockets, TLS state) and what a reload replaces.

use crate::observe::metrics::ListenerMetrics;
use crate::tls::policy::TlsPolicy;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tidegate_config::model::{Address, ClientTimeouts, HeadLimits, Listener as Model, Transport};
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
    /// Counters of its name.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// For `Transport::Tls`; the same value as long as the listener has TLS, so that sessions resume across reloads.
    pub(crate) tls: Option<TlsPolicy>,
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
    /// Turns true when its connections are to end: it left the configuration, or the process drains.
    closing: watch::Sender<bool>,
    settings: ArcSwap<Settings>,
}

impl Listener {
    /// A bound listener.
    pub(crate) fn new(key: ListenerKey, configured: Address, actual: Address, settings: Settings) -> Self {
        Self { key, configured, actual, closing: watch::Sender::new(false), settings: ArcSwap::from_pointee(settings) }
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
    pub(crate) fn of(model: &Model, tls: Option<TlsPolicy>, metrics: Arc<ListenerMetrics>) -> Self {
        Self {
            name: model.name.clone(),
            transport: model.transport,
            timeouts: model.timeouts,
            head_limits: model.head_limits,
            metrics,
            tls,
        }
    }
}

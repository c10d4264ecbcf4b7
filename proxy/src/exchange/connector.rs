//! A connection to an endpoint for one attempt: one that idles, or a new one. Needs nothing of the client, so that two attempts
//! of one request can connect at once.

use crate::edge::shard::{Shard, View};
use crate::observe::metrics::UpstreamMetrics;
use crate::tls::upstream::UpstreamTls;
use crate::upstream::connect::{ConnectError, connect, is_local};
use crate::upstream::connection::Connection;
use std::sync::Arc;
use std::time::Instant;
use tidegate_traffic::pool::endpoint::Endpoint;
use tidegate_traffic::pool::lease::ConnPermit;
use tidegate_traffic::retry::{Cause, Failure, Heard, Sent, Stage};
use tidegate_traffic::{Attempt, TransportId};

/// How often idle connections are looked through: others take and leave them meanwhile.
const LOOKS: u32 = 3;

/// See the module's text.
#[derive(Clone, Copy)]
pub(super) struct Connector<'a> {
    pub(super) shard: &'a Arc<Shard>,
    pub(super) view: &'a View,
}

impl Connector<'_> {
    /// An idle connection, or a new one; see [`Self::idle`] and [`Self::open`].
    pub(super) async fn connect(
        self,
        attempt: &Attempt,
        careful: bool,
        first: Vec<u8>,
    ) -> Result<Box<Connection>, Failure> {
        match self.idle(attempt, careful) {
            Some(connection) => Ok(connection),
            None => self.open(attempt, first).await,
        }
    }

    /// The attempt begins: with an idle connection, if there is one that it may use. `careful`: none that may be closed already.
    pub(super) fn idle(self, attempt: &Attempt, careful: bool) -> Option<Box<Connection>> {
        let metrics = self.view.upstream_metrics(&attempt.pool);
        if let (Some(reason), Some(metrics)) = (attempt.reason, metrics) {
            metrics.retried(reason);
        }
        if attempt.fresh || attempt.proxy_protocol.is_some() {
            return None;
        }
        let key = (attempt.endpoint.id(), attempt.transport);
        let connection = self.shard.idle.take(key, tokio::time::Instant::now(), careful)?;
        count(metrics, |metrics| &metrics.reused);
        Some(Box::new(connection))
    }

    /// A new connection that begins with `first`, before HTTP and TLS.
    pub(super) async fn open(self, attempt: &Attempt, first: Vec<u8>) -> Result<Box<Connection>, Failure> {
        let endpoint = &attempt.endpoint;
        let metrics = self.view.upstream_metrics(&attempt.pool);
        let Some(permit) = (0..LOOKS).find_map(|_| self.permit(endpoint)) else {
            return Err(connect_failure(Cause::Full));
        };
        let Some(descriptor) = self.shard.shared.descriptor() else {
            tracing::debug!(upstream = %attempt.pool.name(), "no descriptor left for a connection");
            return Err(connect_failure(Cause::Local));
        };
        let tls = if attempt.transport == TransportId::PLAIN { None } else { self.view.upstream_tls(&attempt.pool) };
        match connect(endpoint, &first, tls, attempt.timeouts.connect).await {
            Ok(link) => {
                count(metrics, |metrics| &metrics.opened);
                Ok(Box::new(Connection::new(link, permit, descriptor)))
            }
            Err(error) => {
                count(metrics, |metrics| &metrics.failed);
                report(attempt, tls, &error);
                Err(connect_failure(connect_cause(&error)))
            }
        }
    }

    /// A permit that is free, or else can be had.
    fn permit(self, endpoint: &Arc<Endpoint>) -> Option<ConnPermit> {
        let permit = ConnPermit::try_new(endpoint, endpoint.max_connections());
        permit.or_else(|| self.permit_of_another(endpoint))
    }

    /// A permit that an idle connection had, of whichever shard.
    fn permit_of_another(self, endpoint: &Arc<Endpoint>) -> Option<ConnPermit> {
        let mut pools = self.shard.shared.idle.iter();
        pools.find_map(|pool| {
            let given = pool.give_one_back(endpoint.id());
            given.then(|| ConnPermit::try_new(endpoint, endpoint.max_connections())).flatten()
        })
    }
}

fn connect_failure(cause: Cause) -> Failure {
    Failure {
        stage: Stage::Connect,
        cause,
        reused: false,
        sent: Sent::Nothing,
        body_replayable: true,
        heard: Heard::Nothing,
    }
}

/// Failing TLS needs somebody to act, and a failing connect is what retries are for.
fn report(attempt: &Attempt, tls: Option<&UpstreamTls>, error: &ConnectError) {
    let (upstream, endpoint) = (attempt.pool.name(), attempt.endpoint.address());
    match error {
        ConnectError::Tls(_) if tls.is_some_and(|tls| tls.is_news(Instant::now())) => {
            tracing::warn!(%upstream, %endpoint, %error, "no TLS with the endpoint");
        }
        _ => tracing::debug!(%upstream, %endpoint, %error, "connect failed"),
    }
}

/// What a failed connect means.
fn connect_cause(error: &ConnectError) -> Cause {
    match error {
        ConnectError::Tls(_) => Cause::Tls,
        ConnectError::Io(error) if is_local(error) => Cause::Local,
        ConnectError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Cause::TimedOut,
        ConnectError::Io(_) => Cause::Closed,
    }
}

fn count(metrics: Option<&Arc<UpstreamMetrics>>, counter: impl Fn(&UpstreamMetrics) -> &prometheus::IntCounter) {
    if let Some(metrics) = metrics {
        counter(metrics).inc();
    }
}

//! Accounts for an exchange that is over: counters and the access log, for every client protocol and every way an
//! exchange can end.

use super::driver::Account;
use crate::edge::accept::Origin;
use crate::edge::bind;
use crate::edge::shard::{Shard, View};
use crate::observe::access_log::{ClientCertificate, Record, UpstreamRecord};
use crate::observe::metrics::RouteMetrics;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_traffic::{Client, Exchange, HeadView, HttpVersion, Refusal, RequestId, TlsClient};

/// An exchange that is about to be accounted for.
pub(crate) struct Finished<'a> {
    /// Where it was served.
    pub(crate) shard: &'a Shard,
    /// Its connection.
    pub(crate) origin: &'a Origin,
    /// When its head was complete.
    pub(crate) started: Instant,
}

/// Bytes of both bodies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bytes {
    /// From the client.
    pub(crate) received: u64,
    /// To the client.
    pub(crate) sent: u64,
}

impl Finished<'_> {
    /// Accounts for an exchange whose parts are still at hand.
    pub(crate) fn record(
        &self,
        view: &View,
        exchange: &Exchange,
        request: &HeadView<'_>,
        account: &Account,
        bytes: Bytes,
    ) {
        let elapsed = self.started.elapsed();
        let metrics = view.route_metrics(exchange.route());
        metrics.observe(account.status, elapsed, bytes.received, bytes.sent);
        let timings = exchange.timings();
        if let Some((began, head)) = timings.last_attempt.zip(timings.response_head) {
            metrics.answered_after(head.saturating_duration_since(began));
        }
        if let Some(reason) = account.reason {
            self.shard.shared.metrics.refusals(reason).inc();
        }
        count_tries(view, exchange);
        if !self.shard.log.is_active() {
            return;
        }
        let route = exchange.route().and_then(|route| view.traffic.router.info(route));
        let address = account.endpoint.as_ref().map(|endpoint| bind::display(endpoint.address()));
        let field = |name: &str| request.fields.first(name);
        self.shard.log.record(&Record {
            time: SystemTime::now(),
            remote_addr: remote_address(self.origin, request.client),
            method: request.method.as_bytes(),
            target: request.raw_target.as_bytes(),
            path: request.target.path().as_bytes(),
            host: request.host.map_or(&[], |host| host.name().as_bytes()),
            protocol: protocol(request.version),
            scheme: request.client.scheme(),
            status: account.status,
            body_bytes_sent: bytes.sent,
            request_body_bytes: bytes.received,
            elapsed,
            request_id: exchange.id().0,
            upstream: address.as_deref().map(|address| upstream(exchange, account, address)),
            site: route.map_or("", |route| &route.site),
            route: route.map_or("", |route| &route.name),
            reason: account.reason,
            certificate: ClientCertificate::of(self.origin.tls.as_ref()),
            field: &field,
        });
    }

    /// What is needed to account for it when its snapshot and head are gone.
    pub(crate) fn labels(&self, view: &View, exchange: &Exchange, request: &HeadView<'_>) -> Labels {
        let route = exchange.route().and_then(|route| view.traffic.router.info(route));
        let mut fields = Vec::new();
        request.fields.each(&mut |name, value| fields.push((name.to_ascii_lowercase(), value.to_vec())));
        Labels {
            metrics: view.route_metrics(exchange.route()).clone(),
            started: self.started,
            remote: remote_address(self.origin, request.client),
            tls: self.origin.tls.clone(),
            scheme: request.client.scheme(),
            method: request.method.to_owned(),
            target: request.raw_target.to_owned(),
            path: request.target.path().to_owned(),
            host: request.host.map(|host| host.name().to_owned()).unwrap_or_default(),
            protocol: protocol(request.version),
            id: exchange.id(),
            upstream: exchange.pool().map(|pool| pool.name().clone()),
            site: route.map(|route| route.site.clone()),
            route: route.map(|route| route.name.clone()),
            fields,
        }
    }
}

/// An exchange that outlives its snapshot or its head: a tunnel, or a request in the engine.
pub(crate) struct Labels {
    metrics: Arc<RouteMetrics>,
    started: Instant,
    remote: Option<IpAddr>,
    tls: Option<TlsClient>,
    scheme: &'static str,
    method: String,
    target: String,
    path: String,
    host: String,
    protocol: &'static str,
    id: RequestId,
    upstream: Option<Arc<str>>,
    site: Option<Arc<str>>,
    route: Option<Arc<str>>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Labels {
    /// Accounts for it.
    pub(crate) fn record(&self, shard: &Shard, account: &Account, bytes: Bytes) {
        let elapsed = self.started.elapsed();
        self.metrics.observe(account.status, elapsed, bytes.received, bytes.sent);
        if let Some(reason) = account.reason {
            shard.shared.metrics.refusals(reason).inc();
        }
        if !shard.log.is_active() {
            return;
        }
        let address = account.endpoint.as_ref().map(|endpoint| bind::display(endpoint.address()));
        let field = |name: &str| {
            let mut named = self.fields.iter().filter(|(field, _)| field == name);
            named.next().map(|(_, value)| value.as_slice())
        };
        shard.log.record(&Record {
            time: SystemTime::now(),
            remote_addr: self.remote,
            method: self.method.as_bytes(),
            target: self.target.as_bytes(),
            path: self.path.as_bytes(),
            host: self.host.as_bytes(),
            protocol: self.protocol,
            scheme: self.scheme,
            status: account.status,
            body_bytes_sent: bytes.sent,
            request_body_bytes: bytes.received,
            elapsed,
            request_id: self.id.0,
            upstream: address.as_deref().map(|address| UpstreamRecord {
                name: self.upstream.as_deref().unwrap_or_default(),
                address,
                status: account.upstream_status,
                response_time: response_time(account),
                tries: account.attempts,
            }),
            site: self.site.as_deref().unwrap_or_default(),
            route: self.route.as_deref().unwrap_or_default(),
            reason: account.reason,
            certificate: ClientCertificate::of(self.tls.as_ref()),
            field: &field,
        });
    }
}

/// Accounts for something that never became a request.
pub(crate) fn unparsed(
    shard: &Shard,
    view: &View,
    origin: &Origin,
    refusal: &Refusal,
    (status, sent): (u16, u64),
    (method, target, protocol): (&str, &str, &str),
    id: RequestId,
) {
    view.route_metrics(None).observe(status, Duration::ZERO, 0, sent);
    shard.shared.metrics.refusals(refusal.reason()).inc();
    tracing::debug!(%refusal, peer = ?origin.peer, "request refused");
    if !shard.log.is_active() {
        return;
    }
    shard.log.record(&Record {
        time: SystemTime::now(),
        remote_addr: origin.peer.map(|peer| peer.ip().to_canonical()),
        method: method.as_bytes(),
        target: target.as_bytes(),
        path: &[],
        host: &[],
        protocol,
        scheme: scheme(origin),
        status,
        body_bytes_sent: sent,
        request_body_bytes: 0,
        elapsed: Duration::ZERO,
        request_id: id.0,
        upstream: None,
        site: "",
        route: "",
        reason: Some(refusal.reason()),
        certificate: ClientCertificate::of(origin.tls.as_ref()),
        field: &|_| None,
    });
}

/// Counts the retry that the budget did not pay for, and what came of a hedge.
pub(super) fn count_tries(view: &View, exchange: &Exchange) {
    let (denied, hedged) = (exchange.was_denied_a_retry(), exchange.hedged());
    if !denied && hedged.is_none() {
        return;
    }
    let Some(metrics) = exchange.pool().and_then(|pool| view.upstream_metrics(pool)) else { return };
    if denied {
        metrics.denied.inc();
    }
    if let Some(hedged) = hedged {
        metrics.hedged(hedged);
    }
}

fn upstream<'a>(exchange: &'a Exchange, account: &Account, address: &'a str) -> UpstreamRecord<'a> {
    UpstreamRecord {
        name: exchange.pool().map_or("", |pool| pool.name().as_ref()),
        address,
        status: account.upstream_status,
        response_time: response_time(account),
        tries: account.attempts,
    }
}

fn response_time(account: &Account) -> Duration {
    let done = account.endpoint_done.unwrap_or_else(Instant::now);
    account.attempt_started.map(|started| done.saturating_duration_since(started)).unwrap_or_default()
}

/// The client's address; on a unix socket there is one only if a trusted proxy names it.
fn remote_address(origin: &Origin, client: &Client) -> Option<IpAddr> {
    (origin.peer.is_some() || client.is_named()).then(|| client.address())
}

/// `http` or `https`.
pub(crate) fn scheme(origin: &Origin) -> &'static str {
    if origin.tls.is_some() { "https" } else { "http" }
}

const fn protocol(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Http10 => "HTTP/1.0",
        HttpVersion::Http11 => "HTTP/1.1",
        HttpVersion::Http2 => "HTTP/2.0",
    }
}

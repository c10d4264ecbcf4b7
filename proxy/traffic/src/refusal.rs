//! Why a request is not answered by an endpoint.
//!
//! A refusal says what happened, whose fault it is and whether trying again may help. It does not say which status
//! the client sees: that is chosen in one place of the program, so the kinds here stay free of any protocol.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A request that we answer ourselves because it cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.reason())]
pub struct Refusal {
    /// What happened.
    pub kind: RefusalKind,
    /// For the operator: the place and the value. Never sent to a client.
    pub detail: Cow<'static, str>,
    /// After what time the same request may fare better, where that is known.
    pub retry_after: Option<Duration>,
    /// The status that the file asks for, where it has a say.
    pub status: Option<u16>,
    /// What the client is to see besides: only where clients are the application's developers.
    pub shown: Option<Arc<str>>,
}

impl Refusal {
    /// A refusal with its text for the operator.
    pub fn new(kind: RefusalKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, status: None, shown: None }
    }

    /// The request breaks a rule of the protocol.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::BadRequest, detail)
    }

    /// Who has to change something for this to go away.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.kind.fault()
    }

    /// See [`RefusalKind::retryable`].
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.kind.retryable()
    }

    /// See [`RefusalKind::reason`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }

    /// See [`RefusalKind::client_text`].
    #[must_use]
    pub fn client_text(&self) -> &'static str {
        self.kind.client_text()
    }
}

/// Who has to change something for a refusal to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request, or the client's connection.
    Client,
    /// The endpoint that the request was given to, or that there is none.
    Upstream,
    /// This program.
    Us,
}

macro_rules! refusal_kinds {
    ($($(#[$doc:meta])* $kind:ident: $fault:ident, $retryable:literal, $reason:literal, $text:literal;)+) => {
        /// What happened. Closed: every kind is produced somewhere and mapped to a status in one place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalKind { $($(#[$doc])* $kind,)+ }

        impl RefusalKind {
            /// Every kind, in the order of this file.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Who has to change something for this to go away.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$kind => Fault::$fault,)+ }
            }

            /// Whether the same request may succeed when the client sends it again later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$kind => $retryable,)+ }
            }

            /// Whether no other request on the connection can fare better: it ends with the answer.
            #[must_use]
            pub const fn ends_connection(self) -> bool {
                matches!(self, Self::TlsPolicyChanged)
            }

            /// Token for the reason header and the access log; stable, in snake case.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$kind => $reason,)+ }
            }

            /// The short text a client may see: no name, address or value of ours.
            #[must_use]
            pub const fn client_text(self) -> &'static str {
                match self { $(Self::$kind => $text,)+ }
            }
        }
    };
}

refusal_kinds! {
    /// The head breaks a rule of HTTP or could be read in two ways.
    BadRequest: Client, false, "bad_request", "the request is malformed";
    /// The head has too many bytes or fields.
    HeadTooLarge: Client, false, "head_too_large", "the request head is too large";
    /// The request target has too many bytes.
    TargetTooLong: Client, false, "target_too_long", "the request target is too long";
    /// The head did not arrive in time.
    ClientHeadTimeout: Client, true, "client_head_timeout", "the request head took too long to arrive";
    /// An HTTP version that is not spoken here.
    UnsupportedVersion: Client, false, "unsupported_version", "this HTTP version is not supported";
    /// A transfer coding other than `chunked`.
    UnsupportedCoding: Client, false, "unsupported_coding", "this transfer coding is not supported";
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed: Client, false, "expectation_failed", "the expectation cannot be met";
    /// CONNECT and TRACE are never forwarded.
    MethodNotAllowed: Client, false, "method_not_allowed", "this method is not allowed";
    /// No site of the listener has this host.
    UnknownHost: Client, false, "unknown_host", "no such host here";
    /// The connection was made for another host (RFC 9110 section 15.5.20).
    Misdirected: Client, true, "misdirected", "this connection does not serve that host";
    /// A reload has changed what this connection's handshake would have asked for: only a new one can.
    TlsPolicyChanged: Client, true, "tls_policy_changed", "this connection is out of date: open a new one";
    /// The site has no route for this request.
    NoRoute: Client, false, "no_route", "not found";
    /// More requests of this client than a limit of the route admits.
    RateLimited: Client, true, "rate_limited", "too many requests";
    /// As many requests of this client are under way as a limit of the route admits.
    ConcurrencyLimited: Client, true, "concurrency_limited", "too many requests at a time";
    /// The body is longer than the route allows.
    BodyTooLarge: Client, false, "body_too_large", "the request body is too large";
    /// The body stopped arriving.
    ClientBodyTimeout: Client, true, "client_body_timeout", "the request body took too long to arrive";
    /// The client went away before it had its answer; seen in logs only.
    ClientClosed: Client, true, "client_closed", "the client closed the connection";
    /// The pool is empty, or every endpoint of it is out of service or full.
    NoEndpoint: Upstream, true, "no_endpoint", "no server is available for this request";
    /// No worker is ready, and none starts soon.
    NoWorker: Upstream, true, "no_worker", "the application is not running at the moment";
    /// Workers fail one after the other, and none is ready.
    Crashloop: Upstream, true, "crashloop", "the application does not start at the moment";
    /// The newest version of the application does not start, and its developers are to see why.
    BrokenVersion: Upstream, true, "broken_version", "the new version of the application does not start";
    /// The last workers finish what they have, and none follows them.
    Draining: Upstream, true, "draining", "the application is stopping";
    /// Too many requests failed lately: nobody is sent for a while.
    BreakerOpen: Upstream, true, "breaker_open", "the application is not well at the moment";
    /// Every endpoint is full, and as many requests wait as may.
    QueueFull: Upstream, true, "queue_full", "too many requests are waiting for the application";
    /// The queue was overloaded, and this request had waited too long to be of use.
    QueueLate: Upstream, true, "queue_late", "the application has too much to do at the moment";
    /// Every endpoint has as many upgraded connections and long streams as it may.
    TunnelsFull: Upstream, true, "tunnels_full", "the application has too many open connections";
    /// No endpoint had room in time.
    QueueTimeout: Upstream, true, "queue_timeout", "the application was busy for too long";
    /// Workers were starting, but none became ready in time.
    NotReadyInTime: Upstream, true, "not_ready_in_time", "the application is still starting";
    /// No endpoint accepted a connection.
    ConnectFailed: Upstream, true, "connect_failed", "the application could not be reached";
    /// No endpoint accepted a connection in time.
    ConnectTimeout: Upstream, true, "connect_timeout", "the application did not accept the connection in time";
    /// No TLS with the endpoint: its certificate does not verify, or it refused ours.
    UpstreamTls: Upstream, true, "upstream_tls", "the application could not be reached safely";
    /// The endpoint did not take the request in time.
    UpstreamWriteTimeout: Upstream, true, "upstream_write_timeout", "the application stopped reading the request";
    /// The endpoint did not begin to answer in time.
    HeadTimeout: Upstream, true, "head_timeout", "the application did not answer in time";
    /// The endpoint closed the connection before it answered.
    UpstreamClosed: Upstream, true, "upstream_closed", "the application closed the connection";
    /// The endpoint's answer breaks a rule of HTTP.
    UpstreamBadResponse: Upstream, true, "upstream_bad_response", "the application sent an invalid answer";
    /// The endpoint stopped in the middle of its answer.
    UpstreamReadTimeout: Upstream, true, "upstream_read_timeout", "the application stopped in its answer";
    /// The worker took longer than it may for one request.
    RequestTimeout: Upstream, true, "request_timeout", "the application took too long";
    /// The time that a route gives the whole request is over.
    Deadline: Upstream, true, "deadline", "the request took longer than it may";
    /// We are going down and take nothing new.
    ShuttingDown: Us, true, "shutting_down", "the server is shutting down";
    /// A limit of our own process: descriptors, local ports, memory for sockets.
    OutOfResources: Us, true, "out_of_resources", "the server has too much to do at the moment";
    /// A fault in this program.
    Internal: Us, true, "internal", "internal error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_snake_case_tokens() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in RefusalKind::ALL {
            assert!(kind.reason().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{kind:?}");
            assert!(seen.insert(kind.reason()), "{kind:?} repeats a reason");
        }
    }

    #[test]
    fn the_operator_sees_reason_and_detail() {
        let refusal = Refusal::new(RefusalKind::NoRoute, "site: shop, path: /x");
        assert_eq!(refusal.to_string(), "no_route: site: shop, path: /x");
        assert_eq!(refusal.fault(), Fault::Client);
    }
}

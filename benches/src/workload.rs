//! What is asked for, over which protocol, by how many clients.

use std::fmt;

use clap::{ValueEnum, builder::PossibleValue};

/// One row group of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Tiny,
    TenKib,
    OneMib,
    TinyFull,
    TenKibFull,
    OneMibFull,
    TinyTls,
    TenKibTls,
    Handshake,
    Resumed,
    Connect,
    TinyH2,
    TenKibH2,
    TinyH2c,
    TenKibH2c,
    WebSocket,
}

/// Which of a peer's ports, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http1Tls,
    Http2Tls,
    Http2Plain,
    WebSocket,
}

/// What the origin answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Tiny,
    TenKib,
    OneMib,
    /// The 64 bytes of a WebSocket message come back.
    Echo,
}

/// What becomes of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// Held open for the whole run.
    Kept,
    /// One request each; on TLS with a full handshake.
    Fresh,
    /// One request each, with a TLS session taken up again.
    Resumed,
}

/// What a peer does besides forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Features {
    /// Nothing.
    Bare,
    /// Access log, a limit that is checked and never reached, metrics.
    Full,
    /// Nothing, but a peer that can says in each answer whether the TLS session was resumed.
    Told,
}

struct Facts {
    name: &'static str,
    title: &'static str,
    protocol: Protocol,
    body: Body,
    connections: Connections,
    clients: u32,
}

impl Workload {
    pub(crate) const ALL: [Self; 16] = [
        Self::Tiny,
        Self::TenKib,
        Self::OneMib,
        Self::TinyFull,
        Self::TenKibFull,
        Self::OneMibFull,
        Self::TinyTls,
        Self::TenKibTls,
        Self::Handshake,
        Self::Resumed,
        Self::Connect,
        Self::TinyH2,
        Self::TenKibH2,
        Self::TinyH2c,
        Self::TenKibH2c,
        Self::WebSocket,
    ];

    /// The name in tables and in `--only`.
    pub(crate) fn name(self) -> &'static str {
        self.facts().name
    }

    /// One line for a reader of the tables.
    pub(crate) fn title(self) -> &'static str {
        self.facts().title
    }

    pub(crate) fn protocol(self) -> Protocol {
        self.facts().protocol
    }

    pub(crate) fn body(self) -> Body {
        self.facts().body
    }

    pub(crate) fn connections(self) -> Connections {
        self.facts().connections
    }

    /// Clients that work at the same time, each with at most one connection.
    pub(crate) fn clients(self) -> u32 {
        self.facts().clients
    }

    /// Requests in flight per connection.
    pub(crate) fn streams(self) -> u32 {
        match self.protocol() {
            Protocol::Http1 | Protocol::Http1Tls | Protocol::WebSocket => 1,
            Protocol::Http2Tls | Protocol::Http2Plain => 32,
        }
    }

    pub(crate) fn features(self) -> Features {
        match self {
            Self::TinyFull | Self::TenKibFull | Self::OneMibFull => Features::Full,
            _ => Features::Bare,
        }
    }

    /// Whether its instructions and system calls are counted: one of each kind, because a run under an instrument is
    /// slow.
    pub(crate) fn counted(self) -> bool {
        use Workload::{OneMib, OneMibFull, TenKibFull, TenKibH2, TenKibH2c, TenKibTls, TinyH2};
        !matches!(self, OneMib | OneMibFull | TenKibFull | TenKibH2 | TenKibH2c | TenKibTls | TinyH2)
    }

    /// Whether each request comes with a TLS handshake of its own.
    pub(crate) fn makes_handshakes(self) -> bool {
        self.protocol().is_tls() && self.connections() != Connections::Kept
    }

    /// The workload that asks the origin itself for the same body.
    pub(crate) fn direct(self) -> Self {
        match self.body() {
            Body::Tiny => Self::Tiny,
            Body::TenKib => Self::TenKib,
            Body::OneMib => Self::OneMib,
            Body::Echo => Self::WebSocket,
        }
    }

    fn facts(self) -> Facts {
        use Body::{Echo, OneMib, TenKib, Tiny};
        use Connections::{Fresh, Kept, Resumed};
        use Protocol::{Http1, Http1Tls, Http2Plain, Http2Tls, WebSocket};
        let facts = |name, title, protocol, body, connections, clients| Facts {
            name,
            title,
            protocol,
            body,
            connections,
            clients,
        };
        match self {
            Self::Tiny => facts("tiny", "tiny body, HTTP/1.1 keep-alive", Http1, Tiny, Kept, 64),
            Self::TenKib => facts("10k", "10 KiB, HTTP/1.1 keep-alive", Http1, TenKib, Kept, 64),
            Self::OneMib => facts("1m", "1 MiB, HTTP/1.1 keep-alive", Http1, OneMib, Kept, 16),
            Self::TinyFull => facts("tiny-full", "tiny body with access log, limit, metrics", Http1, Tiny, Kept, 64),
            Self::TenKibFull => facts("10k-full", "10 KiB with access log, limit, metrics", Http1, TenKib, Kept, 64),
            Self::OneMibFull => facts("1m-full", "1 MiB with access log, limit, metrics", Http1, OneMib, Kept, 16),
            Self::TinyTls => facts("tiny-tls", "tiny body, HTTP/1.1 on TLS 1.3", Http1Tls, Tiny, Kept, 64),
            Self::TenKibTls => facts("10k-tls", "10 KiB, HTTP/1.1 on TLS 1.3", Http1Tls, TenKib, Kept, 64),
            Self::Handshake => facts("handshake", "full TLS 1.3 handshake per request", Http1Tls, Tiny, Fresh, 32),
            Self::Resumed => facts("resumed", "resumed TLS 1.3 handshake per request", Http1Tls, Tiny, Resumed, 32),
            Self::Connect => facts("connect", "new connection per request, HTTP/1.1", Http1, Tiny, Fresh, 64),
            Self::TinyH2 => facts("tiny-h2", "tiny body, HTTP/2 on TLS 1.3", Http2Tls, Tiny, Kept, 16),
            Self::TenKibH2 => facts("10k-h2", "10 KiB, HTTP/2 on TLS 1.3", Http2Tls, TenKib, Kept, 16),
            Self::TinyH2c => facts("tiny-h2c", "tiny body, HTTP/2 without TLS", Http2Plain, Tiny, Kept, 16),
            Self::TenKibH2c => facts("10k-h2c", "10 KiB, HTTP/2 without TLS", Http2Plain, TenKib, Kept, 16),
            Self::WebSocket => facts("websocket", "WebSocket echo of 64 bytes", WebSocket, Echo, Kept, 64),
        }
    }
}

impl ValueEnum for Workload {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.title()))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Body {
    /// The origin's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Tiny => "/tiny",
            Self::TenKib => "/10k",
            Self::OneMib => "/1m",
            Self::Echo => "/ws",
        }
    }

    /// Bytes that every answer must have.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Tiny => 13,
            Self::TenKib => 10 << 10,
            Self::OneMib => 1 << 20,
            Self::Echo => 64,
        }
    }
}

impl Protocol {
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::Http2Tls)
    }
}

/// The name all certificates and sites of the bench are for.
pub(crate) const HOST: &str = "bench.test";

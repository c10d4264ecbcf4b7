//! What is asked for, over which protocol, by how many clients.

use clap::ValueEnum;

/// One row group of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// A tiny body over HTTP/1.1
    Tiny,
    /// 10 KiB over HTTP/1.1
    #[value(name = "10k")]
    TenKib,
    /// 1 MiB over HTTP/1.1
    #[value(name = "1m")]
    OneMib,
    /// A tiny body over HTTP/1.1 on TLS 1.3
    TinyTls,
    /// A tiny body over HTTP/2 on TLS 1.3
    TinyH2,
    /// A tiny body over HTTP/2 without TLS
    TinyH2c,
}

/// Which of a peer's ports, and what h2load speaks there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http1Tls,
    Http2Tls,
    Http2Plain,
}

impl Workload {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tiny, Self::TenKib, Self::OneMib, Self::TinyTls, Self::TinyH2, Self::TinyH2c];

    /// The name in tables and in `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::TenKib => "10k",
            Self::OneMib => "1m",
            Self::TinyTls => "tiny-tls",
            Self::TinyH2 => "tiny-h2",
            Self::TinyH2c => "tiny-h2c",
        }
    }

    /// One line for a reader of the tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tiny => "tiny body, HTTP/1.1 keep-alive",
            Self::TenKib => "10 KiB, HTTP/1.1 keep-alive",
            Self::OneMib => "1 MiB, HTTP/1.1 keep-alive",
            Self::TinyTls => "tiny body, HTTP/1.1 on TLS 1.3",
            Self::TinyH2 => "tiny body, HTTP/2 on TLS 1.3",
            Self::TinyH2c => "tiny body, HTTP/2 without TLS",
        }
    }

    /// The origin's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::TenKib => "/10k",
            Self::OneMib => "/1m",
            Self::Tiny | Self::TinyTls | Self::TinyH2 | Self::TinyH2c => "/tiny",
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Tiny | Self::TenKib | Self::OneMib => Protocol::Http1,
            Self::TinyTls => Protocol::Http1Tls,
            Self::TinyH2 => Protocol::Http2Tls,
            Self::TinyH2c => Protocol::Http2Plain,
        }
    }

    /// Client connections, each held open for the whole run.
    pub(crate) fn connections(self) -> u32 {
        match self {
            Self::Tiny | Self::TenKib | Self::TinyTls => 64,
            Self::OneMib | Self::TinyH2 | Self::TinyH2c => 16,
        }
    }

    /// Requests in flight per connection.
    pub(crate) fn streams(self) -> u32 {
        match self.protocol() {
            Protocol::Http1 | Protocol::Http1Tls => 1,
            Protocol::Http2Tls | Protocol::Http2Plain => 32,
        }
    }
}

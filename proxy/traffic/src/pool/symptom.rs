//! What speaks against an endpoint.

use std::fmt;

use crate::refusal::RefusalKind;

/// How an endpoint failed an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Symptom {
    /// It refused the connection, or nobody was there.
    ConnectFailed,
    /// It did not accept the connection in time.
    ConnectTimeout,
    /// No TLS with it.
    Tls,
    /// It did not take the request in time.
    WriteTimeout,
    /// It did not begin to answer in time.
    HeadTimeout,
    /// It closed the connection before it answered.
    Closed,
    /// Its answer breaks a rule of HTTP.
    BadResponse,
    /// It stopped in the middle of its answer.
    ReadTimeout,
    /// It took longer than a request may take.
    RequestTimeout,
    /// It answered with a status that counts as a failure.
    Status(u16),
}

impl Symptom {
    /// How many kinds there are.
    pub(super) const KINDS: usize = 10;

    /// Their tokens, by kind.
    pub(super) const TOKENS: [&'static str; Self::KINDS] = [
        Self::ConnectFailed.token(),
        Self::ConnectTimeout.token(),
        Self::Tls.token(),
        Self::WriteTimeout.token(),
        Self::HeadTimeout.token(),
        Self::Closed.token(),
        Self::BadResponse.token(),
        Self::ReadTimeout.token(),
        Self::RequestTimeout.token(),
        Self::Status(0).token(),
    ];

    /// Its number among the kinds.
    pub(super) const fn kind(self) -> usize {
        match self {
            Self::ConnectFailed => 0,
            Self::ConnectTimeout => 1,
            Self::Tls => 2,
            Self::WriteTimeout => 3,
            Self::HeadTimeout => 4,
            Self::Closed => 5,
            Self::BadResponse => 6,
            Self::ReadTimeout => 7,
            Self::RequestTimeout => 8,
            Self::Status(_) => 9,
        }
    }

    /// What a refusal says of the endpoint; `None` where it says nothing.
    #[must_use]
    pub fn of_refusal(kind: RefusalKind) -> Option<Self> {
        Some(match kind {
            RefusalKind::ConnectFailed => Self::ConnectFailed,
            RefusalKind::ConnectTimeout => Self::ConnectTimeout,
            RefusalKind::UpstreamTls => Self::Tls,
            RefusalKind::UpstreamWriteTimeout => Self::WriteTimeout,
            RefusalKind::HeadTimeout => Self::HeadTimeout,
            RefusalKind::UpstreamClosed => Self::Closed,
            RefusalKind::UpstreamBadResponse => Self::BadResponse,
            RefusalKind::UpstreamReadTimeout => Self::ReadTimeout,
            RefusalKind::RequestTimeout => Self::RequestTimeout,
            _ => return None,
        })
    }

    /// Token for labels of metrics; that of the refusal where there is one.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::ConnectFailed => RefusalKind::ConnectFailed.reason(),
            Self::ConnectTimeout => RefusalKind::ConnectTimeout.reason(),
            Self::Tls => RefusalKind::UpstreamTls.reason(),
            Self::WriteTimeout => RefusalKind::UpstreamWriteTimeout.reason(),
            Self::HeadTimeout => RefusalKind::HeadTimeout.reason(),
            Self::Closed => RefusalKind::UpstreamClosed.reason(),
            Self::BadResponse => RefusalKind::UpstreamBadResponse.reason(),
            Self::ReadTimeout => RefusalKind::UpstreamReadTimeout.reason(),
            Self::RequestTimeout => RefusalKind::RequestTimeout.reason(),
            Self::Status(_) => "status",
        }
    }
}

/// For people.
impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectFailed => "connection refused or lost",
            Self::ConnectTimeout => "no connection in time",
            Self::Tls => "no TLS",
            Self::WriteTimeout => "request not taken in time",
            Self::HeadTimeout => "no answer in time",
            Self::Closed => "closed before it answered",
            Self::BadResponse => "invalid answer",
            Self::ReadTimeout => "answer broke off or stopped",
            Self::RequestTimeout => "longer than a request may take",
            Self::Status(status) => return write!(f, "status {status}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Fault;

    /// Whatever else is an endpoint's fault is that of the whole pool.
    #[test]
    fn every_refusal_that_one_endpoint_causes_is_a_symptom() {
        for kind in RefusalKind::ALL {
            let of_pool = matches!(
                kind,
                RefusalKind::NoEndpoint
                    | RefusalKind::NoWorker
                    | RefusalKind::Crashloop
                    | RefusalKind::BrokenVersion
                    | RefusalKind::Draining
                    | RefusalKind::TunnelsFull
                    | RefusalKind::NotReadyInTime
                    | RefusalKind::BreakerOpen
                    | RefusalKind::Deadline
                    | RefusalKind::QueueFull
                    | RefusalKind::QueueLate
                    | RefusalKind::QueueTimeout
            );
            let symptom = Symptom::of_refusal(*kind);
            assert_eq!(symptom.is_some(), kind.fault() == Fault::Upstream && !of_pool, "{kind:?}");
            assert!(symptom.is_none_or(|symptom| symptom.token() == kind.reason()), "{kind:?}");
        }
    }
}

//! Who may use the admin endpoint.
//!
//! A unix socket is guarded by its permissions. Over TCP every request needs the token and a `Host` of this machine, and
//! nothing that a browser sends from another site is answered, which ends cross-site requests and DNS rebinding.

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, StatusCode};
use tidegate_config::model::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules of one admin endpoint; clones share the token, which a reload may replace.
#[derive(Debug, Clone)]
pub struct Guard {
    token: Arc<ArcSwapOption<Secret>>,
    /// Whether `Host` must name this machine.
    tcp: bool,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the token is missing or wrong: send it as \"Authorization: Bearer TOKEN\"")]
    Token,
    #[error("the host is not one of this machine: use 127.0.0.1, [::1] or localhost")]
    Host,
    #[error("requests from other sites are refused")]
    CrossSite,
}

impl Denied {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::CrossSite => StatusCode::FORBIDDEN,
        }
    }
}

impl Guard {
    /// For a unix socket; with a token, that is needed too.
    #[must_use]
    pub fn unix(token: Option<Secret>) -> Self {
        Self { token: shared(token), tcp: false }
    }

    /// For loopback TCP.
    #[must_use]
    pub fn tcp(token: Secret) -> Self {
        Self { token: shared(Some(token)), tcp: true }
    }

    /// Requests from now on need this token.
    pub fn replace_token(&self, token: Option<Secret>) {
        self.token.store(token.map(Arc::new));
    }

    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if self.tcp && !host_is_local(headers) {
            return Err(Denied::Host);
        }
        if is_cross_site(headers) {
            return Err(Denied::CrossSite);
        }
        match self.token.load().as_deref() {
            Some(Secret(token)) if !presents(headers, token) => Err(Denied::Token),
            // Over TCP nobody is let in without one.
            None if self.tcp => Err(Denied::Token),
            _ => Ok(()),
        }
    }
}

fn shared(token: Option<Secret>) -> Arc<ArcSwapOption<Secret>> {
    Arc::new(ArcSwapOption::from_pointee(token))
}

fn host_is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    host.to_str().ok().and_then(host_without_port).is_some_and(is_local)
}

/// The host of `host[:port]`; `None` when the port is none.
fn host_without_port(text: &str) -> Option<&str> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<Ipv6Addr>().ok()?;
            (address, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())).map(|_| host)
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a browser adds to a request that another site caused. No client of ours sends either field.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let same_site = |value: &[u8]| value == b"none" || value == b"same-origin";
    let fetched = headers.get_all(SEC_FETCH_SITE).iter().any(|value| !same_site(value.as_bytes()));
    fetched || headers.get_all(ORIGIN).iter().any(|origin| !is_own_origin(headers, origin.as_bytes()))
}

/// Whether an origin is the address the request was sent to. There is no TLS on the admin endpoint.
fn is_own_origin(headers: &HeaderMap, origin: &[u8]) -> bool {
    let host = headers.get(HOST).map(http::HeaderValue::as_bytes);
    origin.strip_prefix(b"http://").is_some_and(|origin| Some(origin) == host)
}

fn presents(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let value = value.as_bytes();
    let Some((scheme, presented)) = value.split_at_checked(b"Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && equal(presented.trim_ascii(), token.as_bytes())
}

/// Compares in a time that depends only on the presented text, which the client knows. An empty secret equals nothing.
fn equal(presented: &[u8], secret: &[u8]) -> bool {
    let Some(last) = secret.len().checked_sub(1) else { return false };
    let mut difference = u8::from(presented.len() != secret.len());
    for (at, byte) in presented.iter().enumerate() {
        difference |= black_box(byte ^ secret[at.min(last)]);
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn tokens_are_equal_only_when_they_are() {
        let rows = [
            ("secret", "secret", true),
            ("secret", "secreT", false),
            ("secre", "secret", false),
            ("secrett", "secret", false),
            ("", "secret", false),
            ("", "", false),
            ("x", "", false),
        ];
        for (presented, secret, wanted) in rows {
            assert_eq!(equal(presented.as_bytes(), secret.as_bytes()), wanted, "{presented:?} {secret:?}");
        }
    }

    #[test]
    fn tcp_needs_host_token_and_no_other_site() {
        let guard = Guard::tcp(Secret("t0ken".to_owned()));
        const BEARER: (&str, &str) = ("authorization", "Bearer t0ken");
        type Row<'a> = (&'a [(&'static str, &'static str)], Result<(), Denied>);
        let rows: [Row<'_>; 18] = [
            (&[("host", "127.0.0.1:9000"), BEARER], Ok(())),
            (&[("host", "localhost"), ("authorization", "bearer t0ken")], Ok(())),
            (&[("host", "[::1]:9000"), BEARER], Ok(())),
            (&[("host", "[::1]"), BEARER, ("origin", "http://[::1]")], Ok(())),
            (&[("host", "localhost:1"), BEARER, ("sec-fetch-site", "same-origin")], Ok(())),
            (&[BEARER], Err(Denied::Host)),
            (&[("host", "evil.example"), BEARER], Err(Denied::Host)),
            (&[("host", "localhost.evil.example"), BEARER], Err(Denied::Host)),
            (&[("host", "127.0.0.1:9000:1"), BEARER], Err(Denied::Host)),
            (&[("host", "[::1]x"), BEARER], Err(Denied::Host)),
            (&[("host", "[127.0.0.1]"), BEARER], Err(Denied::Host)),
            (&[("host", "localhost"), ("host", "evil"), BEARER], Err(Denied::Host)),
            (&[("host", "localhost")], Err(Denied::Token)),
            (&[("host", "localhost"), ("authorization", "Basic t0ken")], Err(Denied::Token)),
            (&[("host", "localhost"), ("authorization", "Bearer nope")], Err(Denied::Token)),
            (&[("host", "localhost"), BEARER, BEARER], Err(Denied::Token)),
            (&[("host", "localhost"), BEARER, ("origin", "http://evil.example")], Err(Denied::CrossSite)),
            (&[("host", "localhost"), BEARER, ("sec-fetch-site", "cross-site")], Err(Denied::CrossSite)),
        ];
        for (fields, wanted) in rows {
            assert_eq!(guard.admit(&headers(fields)), wanted, "{fields:?}");
        }
    }

    #[test]
    fn a_unix_socket_asks_for_a_token_only_when_there_is_one() {
        assert_eq!(Guard::unix(None).admit(&headers(&[])), Ok(()));
        assert_eq!(Guard::unix(None).admit(&headers(&[("origin", "null")])), Err(Denied::CrossSite));
        assert_eq!(Guard::unix(Some(Secret("t".to_owned()))).admit(&headers(&[])), Err(Denied::Token));
    }
}

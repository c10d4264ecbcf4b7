//! Clients that stay with an endpoint, by a cookie that names it.
//!
//! The name is a keyed hash of what the endpoint is (a server's address, a worker's slot), so it says nothing about it,
//! nobody can make one up, and it stays the same over reloads, restarts and the worker's next start. Names are made when
//! endpoints come; a request costs one look.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::endpoint::{Endpoint, EndpointId, Origin};
use super::{Inner, Pool};
use crate::edits::Inline;

/// A keyed hash of 32 bytes, such as HMAC-SHA256 (RFC 2104); whoever does not have its key cannot tell it from chance.
pub trait Seal: fmt::Debug + Send + Sync {
    /// The hash of a message.
    fn seal(&self, message: &[u8]) -> [u8; 32];
}

/// What endpoints of an upstream are named with: the first makes new names, those of all are known.
pub type Seals = Arc<[Arc<dyn Seal>]>;

/// The name of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; Self::BYTES]);

impl Token {
    const BYTES: usize = 24;
    /// Bytes it is found by. The rest, 128 bits, is compared in a time that tells nothing.
    const FOUND_BY: usize = 8;
    /// The form, in case there is ever another one.
    const VERSION: u8 = b'1';
    const TEXT: usize = 33;

    fn new(hash: &[u8; 32]) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(&hash[..Self::BYTES]);
        Self(bytes)
    }

    /// The token that a cookie's value may be; `None` where it has another form.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(&[Self::VERSION]).filter(|_| text.len() == Self::TEXT)?;
        let mut bytes = [0; Self::BYTES];
        let length = BASE64.decode_slice(digits, &mut bytes).ok()?;
        (length == Self::BYTES).then_some(Self(bytes))
    }

    /// As a cookie's value: 33 characters that need no quotation marks (RFC 6265 section 4.1.1).
    #[must_use]
    pub fn text(&self) -> Inline {
        let mut text = [Self::VERSION; Self::TEXT];
        let written = BASE64.encode_slice(self.0, &mut text[1..]);
        debug_assert_eq!(written, Ok(Self::TEXT - 1));
        Inline::display(&String::from_utf8_lossy(&text))
    }

    fn found_by(&self) -> [u8; Self::FOUND_BY] {
        let mut key = [0; Self::FOUND_BY];
        key.copy_from_slice(&self.0[..Self::FOUND_BY]);
        key
    }

    /// Looks at every byte, whichever differ.
    fn is(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (one, other)| black_box(all | (one ^ other)));
        differences == 0
    }
}

/// A token lets its owner choose an endpoint, so it stays out of logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What an answer says to a client about the endpoint that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// The cookie that it has names this endpoint.
    Kept,
    /// It is to have this cookie from now on.
    Set(Token),
}

/// Answers of a pool that names its endpoints to clients.
#[derive(Debug, Default)]
pub struct Bonds {
    new: AtomicU64,
    kept: AtomicU64,
    moved: AtomicU64,
    unknown: AtomicU64,
}

impl Bonds {
    /// What it counts, with the words of the metric.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 4] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("new", count(&self.new)),
            ("kept", count(&self.kept)),
            ("moved", count(&self.moved)),
            ("unknown", count(&self.unknown)),
        ]
    }
}

/// The endpoints of a pool by their names. Guarded by the pool's lock.
#[derive(Debug)]
pub(super) struct Names {
    upstream: Arc<str>,
    seals: Seals,
    bonds: Arc<Bonds>,
    /// Whom the rest is about.
    endpoints: Vec<EndpointId>,
    /// The name that each has now.
    current: HashMap<EndpointId, Token>,
    /// Endpoints by the names of each seal: several while a worker takes another one's place.
    known: HashMap<[u8; Token::FOUND_BY], Vec<(Token, Arc<Endpoint>)>>,
}

impl Names {
    /// Names of nobody yet, that count where others did.
    pub(super) fn new(upstream: Arc<str>, seals: Seals, bonds: Arc<Bonds>) -> Self {
        Self { upstream, seals, bonds, endpoints: Vec::new(), current: HashMap::new(), known: HashMap::new() }
    }

    /// These are the endpoints from now on. Costs nothing to speak of when they are the same.
    pub(super) fn align(&mut self, endpoints: &[Arc<Endpoint>]) {
        let ids = || endpoints.iter().map(|endpoint| endpoint.id());
        if self.endpoints.iter().copied().eq(ids()) {
            return;
        }
        self.endpoints = ids().collect();
        (self.current, self.known) = (HashMap::new(), HashMap::new());
        // The latest first: of two workers of one slot it is the one that stays.
        for endpoint in endpoints.iter().rev() {
            let message = identity(&self.upstream, endpoint);
            for (place, seal) in self.seals.iter().enumerate() {
                let token = Token::new(&seal.seal(&message));
                if place == 0 {
                    self.current.insert(endpoint.id(), token);
                }
                self.known.entry(token.found_by()).or_default().push((token, Arc::clone(endpoint)));
            }
        }
    }

    /// The endpoint of this name that is a candidate.
    pub(super) fn find(&self, token: &Token, candidate: impl Fn(&Endpoint) -> bool) -> Option<Arc<Endpoint>> {
        self.named(token).find(|endpoint| candidate(endpoint)).cloned()
    }

    /// What an answer of this endpoint says to a client with this cookie.
    pub(super) fn bond(&self, asked: Asked, endpoint: EndpointId) -> Option<Bond> {
        let bonds = &self.bonds;
        let current = *self.current.get(&endpoint)?;
        let (counter, bond) = match asked {
            Asked::Nothing => (&bonds.new, Bond::Set(current)),
            Asked::Token(token) if token.is(&current) => (&bonds.kept, Bond::Kept),
            // Named with a seal that goes: it stays with the endpoint under its new name.
            Asked::Token(token) if self.named(&token).any(|named| named.id() == endpoint) => {
                (&bonds.kept, Bond::Set(current))
            }
            Asked::Token(token) if self.named(&token).next().is_some() => (&bonds.moved, Bond::Set(current)),
            Asked::Token(_) | Asked::Nonsense => (&bonds.unknown, Bond::Set(current)),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Some(bond)
    }

    fn named(&self, token: &Token) -> impl Iterator<Item = &Arc<Endpoint>> {
        let found = self.known.get(&token.found_by()).map(Vec::as_slice).unwrap_or_default();
        found.iter().filter(|(known, _)| known.is(token)).map(|(_, endpoint)| endpoint)
    }
}

impl Pool {
    /// Names its endpoints to clients with these from now on, or not at all.
    pub fn name_by(&self, seals: Option<&Seals>) {
        let mut inner = self.lock();
        let Inner { balance, endpoints, .. } = &mut *inner;
        let names = balance.names();
        let bonds = names.as_ref().map(|names| Arc::clone(&names.bonds)).unwrap_or_default();
        *names = seals.map(|seals| Names::new(Arc::clone(&self.name), Arc::clone(seals), bonds));
        if let Some(names) = names {
            names.align(endpoints);
        }
    }

    /// What an answer of this endpoint says to a client with this cookie; counts it. `None` where clients do not stay
    /// with endpoints, or this one has left.
    pub fn bond(&self, asked: Asked, endpoint: EndpointId) -> Option<Bond> {
        self.lock().balance.names().as_ref()?.bond(asked, endpoint)
    }

    /// What it has counted of them.
    #[must_use]
    pub fn bonds(&self) -> Option<Arc<Bonds>> {
        Some(Arc::clone(&self.lock().balance.names().as_ref()?.bonds))
    }
}

/// The cookie that a request came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// None.
    Nothing,
    /// One that no endpoint could have.
    Nonsense,
    /// One of the right form.
    Token(Token),
}

impl Asked {
    /// From the value of the cookie, if the request has it.
    #[must_use]
    pub fn of(value: Option<&[u8]>) -> Self {
        value.map_or(Self::Nothing, |value| Token::parse(value).map_or(Self::Nonsense, Self::Token))
    }

    /// The token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Nothing | Self::Nonsense => None,
        }
    }
}

/// What an endpoint is, whatever process serves it. With the upstream's name, so that a cookie of one means nothing to
/// another.
fn identity(upstream: &str, endpoint: &Endpoint) -> Vec<u8> {
    let own = match endpoint.origin() {
        Origin::Static => format!("server {}", endpoint.address()),
        Origin::Worker { key, .. } => format!("worker {}", key.slot),
    };
    format!("tidegate sticky 1\0{upstream}\0{own}").into_bytes()
}

#[cfg(test)]
mod tests;

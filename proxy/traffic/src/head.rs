//! What a decision may read of a message head.
//!
//! A head is never copied or changed here: [`HeadView`] borrows it, and changes are described by
//! [`HeadEdits`](crate::edits::HeadEdits), which the serialiser applies while it writes. Nothing assumes HTTP/1:
//! the driver implements [`Fields`] over whatever it has read.

use std::net::IpAddr;
use std::sync::Arc;

use crate::edits::Inline;
use crate::host::Host;
use crate::target::Target;
use crate::trusted::Said;

/// The fields of a head, in order, with repetitions.
pub trait Fields: Sync {
    /// Value of the first field of this name, which is given in lower case; names compare without case.
    fn first(&self, name_lower: &str) -> Option<&[u8]>;

    /// Visits every value of this name, in order.
    fn all(&self, name_lower: &str, visit: &mut dyn FnMut(&[u8]));

    /// Visits every field, in order. Names come as they are stored, so their case may vary.
    fn each(&self, visit: &mut dyn FnMut(&str, &[u8]));
}

impl Fields for http::HeaderMap {
    fn first(&self, name_lower: &str) -> Option<&[u8]> {
        self.get(name_lower).map(http::HeaderValue::as_bytes)
    }

    fn all(&self, name_lower: &str, visit: &mut dyn FnMut(&[u8])) {
        self.get_all(name_lower).iter().for_each(|value| visit(value.as_bytes()));
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes()));
    }
}

/// Place of a listener in the model's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

/// The client: the same for every request on a connection, unless trusted proxies say otherwise.
#[derive(Debug, Clone)]
pub struct Client {
    peer: IpAddr,
    peer_port: u16,
    address: IpAddr,
    address_text: Inline,
    listener: ListenerId,
    tls: Option<TlsClient>,
    said: Option<Said>,
}

impl Client {
    /// A connection. An IPv4 address that was mapped into IPv6 becomes IPv4 again, so that one client has one
    /// address; its text is made here once, not for every request.
    #[must_use]
    pub fn new(peer: IpAddr, peer_port: u16, listener: ListenerId, tls: Option<TlsClient>) -> Self {
        let peer = peer.to_canonical();
        let address_text = Inline::display(&peer);
        Self { peer, peer_port, address: peer, address_text, listener, tls, said: None }
    }

    /// The same connection with what trusted proxies said of one request on it.
    pub(crate) fn told(&self, address: IpAddr, said: Said) -> Self {
        let address_text = Inline::display(&address);
        Self { address, address_text, tls: self.tls.clone(), said: Some(said), ..*self }
    }

    /// Its address: that of the connection, or the one that trusted proxies vouch for.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its address as text.
    #[must_use]
    pub fn address_text(&self) -> &[u8] {
        self.address_text.as_bytes()
    }

    /// The client and the proxies it came through, as far as they are known for sure.
    #[must_use]
    pub fn chain(&self) -> &[u8] {
        match &self.said {
            Some(said) if !said.chain.is_empty() => said.chain.as_bytes(),
            Some(_) | None => self.address_text(),
        }
    }

    /// `http` or `https`: what it speaks, with us or with the first trusted proxy.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        let own = if self.tls.is_some() { "https" } else { "http" };
        self.said.as_ref().and_then(|said| said.scheme).unwrap_or(own)
    }

    /// The host that it asked a trusted proxy for.
    #[must_use]
    pub fn forwarded_host(&self) -> Option<&str> {
        self.said.as_ref()?.host.as_deref()
    }

    /// Whether trusted proxies named its address.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.said.as_ref().is_some_and(|said| !said.chain.is_empty())
    }

    /// The address of the connection, after its PROXY protocol header.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The port of the connection.
    #[must_use]
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// Which listener accepted it.
    #[must_use]
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Its TLS session, if it has one.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsClient> {
        self.tls.as_ref()
    }
}

/// What the TLS handshake told about the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// Server name it asked for, if it named one.
    pub server_name: Option<Box<str>>,
    /// Policy that the handshake went by.
    pub policy: TlsPolicyRef,
    /// Its verified certificate as a value of `Client-Cert` (RFC 9440), where the policy tells endpoints.
    pub certificate: Option<Arc<str>>,
    /// Who its verified certificate says it is; `None` when it has shown none.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Whom a verified client certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Distinguished name (RFC 4514).
    pub subject: Box<str>,
    /// Serial number, in hexadecimal.
    pub serial: Box<str>,
}

/// Number of a TLS policy at run time: a policy whose content changes gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsPolicyId(pub u64);

/// A TLS policy at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPolicyRef {
    /// Name and content.
    pub id: TlsPolicyId,
    /// Name only.
    pub name: Arc<str>,
}

/// HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// What a request head says about its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// There is none.
    None,
    /// This many bytes; `Known(0)` is a body that is empty.
    Known(u64),
    /// Ends when its framing says so.
    Unknown,
}

/// A request head, read only.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    /// As sent; methods compare with case (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The target in origin form (or `*`), otherwise as sent; forwarded by routes with `forward_path: raw`.
    pub raw_target: &'a str,
    /// The same target, checked and canonical.
    pub target: &'a Target<'a>,
    /// The host asked for: the target's authority if it has one, else the `Host` field, else `None`.
    pub host: Option<&'a Host<'a>>,
    /// Version of the request.
    pub version: HttpVersion,
    /// Its fields, without pseudo-fields.
    pub fields: &'a dyn Fields,
    /// It is a valid WebSocket request (RFC 6455 section 4.1) on a protocol that can switch.
    pub upgrade: bool,
    /// Its body.
    pub body: BodyLength,
    /// The connection it came on.
    pub client: &'a Client,
}

/// A response head, read only.
#[derive(Clone, Copy)]
pub struct ResponseView<'a> {
    /// 100 to 999.
    pub status: u16,
    /// Its fields, without pseudo-fields.
    pub fields: &'a dyn Fields,
    /// The request could be sent again: everything taken from its body so far is still at hand.
    pub replayable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_client() {
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let client = Client::new(mapped, 4000, ListenerId(0), None);
        assert_eq!(client.address_text(), b"192.0.2.7");
        assert_eq!(client.peer(), "192.0.2.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_longest_address_fits() {
        let long: IpAddr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
        assert_eq!(Client::new(long, 1, ListenerId(0), None).address_text(), long.to_string().as_bytes());
    }
}

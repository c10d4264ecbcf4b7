//! Who the client is when trusted proxies stand before us.
//!
//! Each proxy writes down who it was asked by, behind what others wrote before. So the end of the field is the word of
//! whoever connected to us, and each address that is a trusted proxy's vouches for the one before it; the first that
//! is none is the client. The field is therefore read from its end, and nothing a client puts in front can change
//! what is found there.

use std::borrow::Cow;
use std::net::IpAddr;

use tidegate_config::model::{ForwardedHeader, TrustedProxies};

use crate::head::{Client, Fields};
use crate::host::Host;

/// What trusted proxies said of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Who asked, and every proxy on the way, the last one being who connected to us. Never empty for a client with an
    /// address.
    pub(crate) chain: String,
    /// What the client spoke.
    pub(crate) scheme: Option<&'static str>,
    /// The host it asked for, in canonical form.
    pub(crate) host: Option<String>,
}

/// The client of one request on a connection whose other end is trusted. `peer` is that end, `None` on a unix socket.
#[must_use]
pub fn resolve(policy: &TrustedProxies, peer: Option<IpAddr>, client: &Client, fields: &dyn Fields) -> Client {
    let mut walk = Walk { policy, chain: peer.map(|peer| peer.to_canonical()).into_iter().collect() };
    let mut said = match policy.header {
        ForwardedHeader::XForwardedFor => walk.x_forwarded_for(fields),
        ForwardedHeader::Forwarded => walk.forwarded(fields),
    };
    let Some(address) = walk.chain.last().copied() else { return client.told(client.address(), said) };
    for (place, hop) in walk.chain.iter().rev().enumerate() {
        if place > 0 {
            said.chain.push_str(", ");
        }
        said.chain.push_str(&hop.to_string());
    }
    client.told(address, said)
}

/// The way back along the proxies.
struct Walk<'p> {
    policy: &'p TrustedProxies,
    /// From us towards the client.
    chain: Vec<IpAddr>,
}

impl Walk<'_> {
    /// One step towards the client; whether another one may follow.
    fn step(&mut self, address: IpAddr) -> bool {
        self.chain.push(address);
        self.policy.from.contain(Some(address))
    }

    fn x_forwarded_for(&mut self, fields: &dyn Fields) -> Said {
        let list = joined(fields, "x-forwarded-for").unwrap_or_default();
        for element in list.rsplit(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty()) {
            match address(element) {
                Some(address) if self.step(address) => {}
                Some(_) | None => break,
            }
        }
        let scheme = only(fields, "x-forwarded-proto").and_then(scheme);
        let host = only(fields, "x-forwarded-host").and_then(host);
        Said { chain: String::new(), scheme, host }
    }

    fn forwarded(&mut self, fields: &dyn Fields) -> Said {
        let list = joined(fields, "forwarded").unwrap_or_default();
        let mut said = Said::default();
        let mut rest = Some(&list[..]);
        while let Some(list) = rest {
            let (before, element) = split_last(list);
            rest = before;
            if trim(element).is_empty() {
                continue;
            }
            let Some((address, element)) = forwarded_element(element) else { break };
            said = element;
            if !self.step(address) {
                break;
            }
        }
        said
    }
}

/// All values of a field as one list (RFC 9110 section 5.3).
fn joined<'f>(fields: &'f dyn Fields, name: &str) -> Option<Cow<'f, [u8]>> {
    let first = fields.first(name)?;
    let mut count = 0;
    fields.all(name, &mut |_| count += 1);
    if count == 1 {
        return Some(Cow::Borrowed(first));
    }
    let mut list = Vec::new();
    fields.all(name, &mut |value| {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(value);
    });
    Some(Cow::Owned(list))
}

/// The value of a field that is there once.
fn only<'f>(fields: &'f dyn Fields, name: &str) -> Option<&'f [u8]> {
    let mut count = 0;
    fields.all(name, &mut |_| count += 1);
    fields.first(name).filter(|_| count == 1)
}

fn scheme(value: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(trim(value)))
}

fn host(value: &[u8]) -> Option<String> {
    Host::parse(trim(value)).ok().map(|host| host.authority().to_owned())
}

/// An address as proxies write it: bare, with a port, or in brackets. An IPv4 address inside IPv6 becomes IPv4.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address: IpAddr = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address.parse().ok()?)
        }
        None => match text.parse() {
            Ok(address) => address,
            Err(_) => {
                let (address, port) = text.split_once(':')?;
                IpAddr::V4(address.parse().ok().filter(|_| is_port(port))?)
            }
        },
    };
    Some(address.to_canonical())
}

/// Digits, or a made-up word after an underscore (RFC 7239 section 6.3).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(word) => {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Takes the last element off a list whose elements may hold quoted text. It is read from the end too, so that a quote
/// that a client left open cannot swallow what a proxy added behind it.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (place, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' if !quoted => quoted = true,
            b'"' if !is_escaped(&list[..place]) => quoted = false,
            b',' if !quoted => return (Some(&list[..place]), &list[place + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// Whether what follows is taken literally: an odd number of backslashes stands before it.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Who asked a proxy, and how (RFC 7239 section 4); `None` for what is malformed, or names nobody.
fn forwarded_element(element: &[u8]) -> Option<(IpAddr, Said)> {
    let mut said = Said::default();
    let mut asked_by = None;
    let mut names = [false; 3];
    for pair in pairs(element).map(trim).filter(|pair| !pair.is_empty()) {
        let middle = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..middle], unquoted(&pair[middle + 1..])?);
        let known = ["for", "proto", "host"].iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name));
        if let Some(known) = known
            && std::mem::replace(&mut names[known], true)
        {
            return None;
        }
        match known {
            Some(0) => asked_by = Some(address(&value)?),
            Some(1) => said.scheme = scheme(&value),
            Some(2) => said.host = host(&value),
            _ => {}
        }
    }
    Some((asked_by?, said))
}

/// The parts of an element, split at semicolons outside of quotes.
fn pairs(element: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    element.split(move |byte| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => escaped = true,
            b';' => return !quoted,
            _ => {}
        }
        false
    })
}

/// A token or quoted text without its quotes.
fn unquoted(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return (!value.is_empty() && !value.contains(&b'"')).then_some(Cow::Borrowed(value));
    };
    let inner = inner.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
    Some(Cow::Owned(text))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests;

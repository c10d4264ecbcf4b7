//! The header of the PROXY protocol, versions 1 and 2, without IO.
//!
//! A proxy that passes TCP on sends it first of all, and tells by it whom it speaks for. The parser looks at bytes
//! that have arrived so far; it needs none behind the header, and says exactly where the header ends. Strict: whoever
//! sends it is configured to, so anything odd is an error and never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Begins version 1.
const TEXT: &[u8] = b"PROXY ";
/// Longest header of version 1, with its line end.
const LONGEST_TEXT: usize = 107;
/// Begins version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;
/// Most bytes that may follow those: addresses and additions (TLVs).
const LONGEST_REST: usize = 4 * 1024;

/// Most bytes that a header can have.
pub const LONGEST_HEADER: usize = FIXED + LONGEST_REST;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its bytes; what follows is the client's.
    pub length: usize,
    /// The client, or `None` when the header names nobody: the proxy speaks for itself (LOCAL), or for somebody without
    /// an IP address.
    pub client: Option<SocketAddr>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// They begin neither version.
    #[error("no PROXY protocol header")]
    Missing,
    /// Version 1, but not well formed.
    #[error("malformed PROXY protocol line")]
    Line,
    /// Version 2, but not well formed.
    #[error("malformed PROXY protocol header")]
    Binary,
    /// Longer than it may be.
    #[error("PROXY protocol header too long")]
    TooLong,
}

use ProxyHeaderError::{Binary, Line, Missing, TooLong};

/// Reads the header at the front of `bytes`; `None` when more of it has to come.
///
/// # Errors
///
/// As soon as the bytes cannot become a header any more.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins(bytes, TEXT) {
        return parse_text(bytes);
    }
    Err(Missing)
}

/// Whether `bytes` begin with `mark`, or with the first part of it and nothing else.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let seen = bytes.len().min(mark.len());
    bytes[..seen] == mark[..seen]
}

fn parse_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let seen = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LONGEST_TEXT { Err(TooLong) } else { Ok(None) };
    };
    let line = seen[..end].strip_suffix(b"\r").ok_or(Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Line)?;
    let client = parse_line(line).ok_or(Line)?;
    Ok(Some(ProxyHeader { length: end + 1, client }))
}

/// The inner `None` is a line that names nobody.
fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    let (_, family) = (words.next()?, words.next()?);
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let none_left = words.next().is_none();
    let source: IpAddr = match family {
        "TCP4" => {
            let _: Ipv4Addr = destination.parse().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            let _: Ipv6Addr = destination.parse().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    let _: u16 = destination_port;
    none_left.then(|| Some(SocketAddr::new(source.to_canonical(), source_port)))
}

/// 0 to 65,535 without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| digits && !leading_zero)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let at = |index: usize| bytes.get(index).copied();
    let Some(command) = at(12) else { return Ok(None) };
    // The upper half is the version; the lower one says who speaks: 0 the proxy for itself, 1 for a client.
    if !matches!(command, 0x20 | 0x21) {
        return Err(Binary);
    }
    let (Some(family), Some(high), Some(low)) = (at(13), at(14), at(15)) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > LONGEST_REST {
        return Err(TooLong);
    }
    let addresses = addresses(command, family)?;
    if rest < addresses.length() {
        return Err(Binary);
    }
    let Some(body) = bytes.get(FIXED..FIXED + rest) else { return Ok(None) };
    Ok(Some(ProxyHeader { length: FIXED + rest, client: addresses.source(body) }))
}

/// Kinds of addresses in version 2.
#[derive(Clone, Copy)]
enum Addresses {
    /// To be skipped.
    None,
    V4,
    V6,
    Unix,
}

fn addresses(command: u8, family: u8) -> Result<Addresses, ProxyHeaderError> {
    match (command, family) {
        // Of a connection that the proxy makes for itself nothing else is looked at.
        (0x20, _) | (_, 0x00) => Ok(Addresses::None),
        // Streams only: there is no other kind of connection here.
        (_, 0x11) => Ok(Addresses::V4),
        (_, 0x21) => Ok(Addresses::V6),
        (_, 0x31) => Ok(Addresses::Unix),
        _ => Err(Binary),
    }
}

impl Addresses {
    const fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }

    /// The source; `body` has at least [`Self::length`] bytes.
    fn source(self, body: &[u8]) -> Option<SocketAddr> {
        let (address, port): (IpAddr, _) = match self {
            Self::None | Self::Unix => return None,
            Self::V4 => (Ipv4Addr::from(*body.first_chunk::<4>()?).into(), body.get(8..10)?),
            Self::V6 => (Ipv6Addr::from(*body.first_chunk::<16>()?).into(), body.get(32..34)?),
        };
        let port = u16::from_be_bytes(*port.first_chunk::<2>()?);
        Some(SocketAddr::new(address.to_canonical(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn v4_body() -> Vec<u8> {
        vec![192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb]
    }

    fn v6_body() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0x9c, 0x40, 0x01, 0xbb]].concat()
    }

    /// Whole, and split at every byte: nothing but the whole header is one.
    fn check(bytes: &[u8], expected: Result<Option<&str>, ProxyHeaderError>) {
        let with_more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        match expected {
            Ok(client) => {
                let client = client.map(|client| client.parse().unwrap());
                let header = Ok(Some(ProxyHeader { length: bytes.len(), client }));
                assert_eq!(parse(bytes), header, "{}", bytes.escape_ascii());
                assert_eq!(parse(&with_more), header, "{}", bytes.escape_ascii());
                for cut in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..cut]), Ok(None), "{} cut at {cut}", bytes.escape_ascii());
                }
            }
            Err(error) => {
                assert_eq!(parse(bytes), Err(error), "{}", bytes.escape_ascii());
                assert_eq!(parse(&with_more), Err(error), "{}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn lines() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LONGEST_TEXT - 16));
        let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LONGEST_TEXT - 15));
        assert_eq!(longest.len(), 107);
        let rows = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n", Ok(Some("192.0.2.7:40000"))),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Ok(Some("255.255.255.255:65535"))),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 0 0\r\n", Ok(Some("192.0.2.7:0"))),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", Ok(Some("[2001:db8::7]:40000"))),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", Ok(Some("192.0.2.7:1"))),
            ("PROXY UNKNOWN\r\n", Ok(None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None)),
            (&longest, Ok(None)),
            (&too_long, Err(TooLong)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\n", Err(Line)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 40000 443 \r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", Err(Line)),
            ("PROXY  TCP4 192.0.2.7 198.51.100.1 40000 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2 198.51.100.1 1 443\r\n", Err(Line)),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n", Err(Line)),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 1 443\r\n", Err(Line)),
            ("PROXY TCP4 host 198.51.100.1 1 443\r\n", Err(Line)),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n", Err(Line)),
            ("PROXY tcp4 192.0.2.7 198.51.100.1 1 443\r\n", Err(Line)),
            ("PROXY \r\n", Err(Line)),
            ("proxy TCP4 192.0.2.7 198.51.100.1 1 443\r\n", Err(Missing)),
            ("PROXY\tTCP4 192.0.2.7 198.51.100.1 1 443\r\n", Err(Missing)),
            (" PROXY UNKNOWN\r\n", Err(Missing)),
            ("GET / HTTP/1.1\r\n", Err(Missing)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(Missing)),
            ("\u{16}\u{3}\u{1}", Err(Missing)),
        ];
        for (line, expected) in rows {
            check(line.as_bytes(), expected);
        }
        check(b"PROXY TCP4 192.0.2.7\0 198.51.100.1 1 443\r\n", Err(Line));
        check(b"PROXY UNKNOWN \xff\r\n", Err(Line));
    }

    #[test]
    fn binaries() {
        let with_tlv = |body: Vec<u8>| [&body[..], &[0x04, 0, 3, 1, 2, 3], &[0x20, 0, 1, 0xff]].concat();
        let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let mapped = [&mapped.octets()[..], &[0; 16], &[0, 1, 0, 2]].concat();
        let rows = [
            (binary(0x21, 0x11, &v4_body()), Ok(Some("192.0.2.7:40000"))),
            (binary(0x21, 0x21, &v6_body()), Ok(Some("[2001:db8::7]:40000"))),
            (binary(0x21, 0x21, &mapped), Ok(Some("192.0.2.7:1"))),
            (binary(0x21, 0x11, &with_tlv(v4_body())), Ok(Some("192.0.2.7:40000"))),
            (binary(0x21, 0x11, &[v4_body(), vec![0; LONGEST_REST - 12]].concat()), Ok(Some("192.0.2.7:40000"))),
            (binary(0x21, 0x31, &[7; 216]), Ok(None)),
            (binary(0x21, 0x00, &[]), Ok(None)),
            (binary(0x21, 0x00, &[1, 2, 3]), Ok(None)),
            (binary(0x20, 0x00, &[]), Ok(None)),
            (binary(0x20, 0x11, &v4_body()), Ok(None)),
            (binary(0x20, 0xff, &[9; 100]), Ok(None)),
            (binary(0x21, 0x11, &vec![0; LONGEST_REST + 1]), Err(TooLong)),
            (binary(0x21, 0x11, &v4_body()[..11]), Err(Binary)),
            (binary(0x21, 0x21, &v4_body()), Err(Binary)),
            (binary(0x21, 0x31, &[0; 100]), Err(Binary)),
            (binary(0x21, 0x12, &v4_body()), Err(Binary)),
            (binary(0x21, 0x41, &v4_body()), Err(Binary)),
            (binary(0x22, 0x11, &v4_body()), Err(Binary)),
            (binary(0x11, 0x11, &v4_body()), Err(Binary)),
            (binary(0x31, 0x11, &v4_body()), Err(Binary)),
        ];
        for (bytes, expected) in rows {
            check(&bytes, expected);
        }
        check(b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0", Err(Missing));
        check(b"\r\n\r\nGET / HTTP/1.1\r\n", Err(Missing));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_alike_however_they_come(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let start = [&b""[..], b"PROXY TCP4 ", SIGNATURE][kind as usize];
            let bytes = [start, &bytes].concat();
            let whole = parse(&bytes);
            if let Ok(Some(header)) = whole {
                prop_assert!(header.length <= bytes.len() && header.length <= LONGEST_HEADER);
                // Nothing behind the header was looked at.
                prop_assert_eq!(parse(&bytes[..header.length]), whole);
            }
            // What is no header in parts is none as a whole, and none that is one becomes another.
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(None) => {}
                    judged => prop_assert_eq!(judged, whole),
                }
            }
        }

        #[test]
        fn lines_that_are_written_are_read(source: [u8; 4], port: u16) {
            let source = Ipv4Addr::from(source);
            let line = format!("PROXY TCP4 {source} 127.0.0.1 {port} 80\r\n");
            let client = Some(SocketAddr::new(source.into(), port));
            prop_assert_eq!(parse(line.as_bytes()), Ok(Some(ProxyHeader { length: line.len(), client })));
        }
    }
}

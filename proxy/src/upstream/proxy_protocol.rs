//! The header of the PROXY protocol, as we write it to servers (the HAProxy specification, sections 2.1 and 2.2).

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use tidegate_config::model::ProxyHeader;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a client's connection; `None` is a client without addresses, such as one on a unix socket.
pub(crate) fn header(version: ProxyHeader, connection: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let connection = connection.map(|(client, local)| alike(client, local));
    match version {
        ProxyHeader::V1 => text(connection),
        ProxyHeader::V2 => binary(connection),
    }
}

/// Both addresses in one family: IPv4 where both are, also as mapped into IPv6.
fn alike(client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, local) = (plain(client), plain(local));
    if client.is_ipv4() == local.is_ipv4() {
        return (client, local);
    }
    (
        SocketAddr::new(IpAddr::V6(mapped(client.ip())), client.port()),
        SocketAddr::new(IpAddr::V6(mapped(local.ip())), local.port()),
    )
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn text(connection: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((client, local)) = connection else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port()).into_bytes()
}

fn binary(connection: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, local)) = connection else {
        // LOCAL, and no addresses.
        header.extend_from_slice(&[0x20, 0, 0, 0]);
        return header;
    };
    let (family, length) = if client.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    header.extend_from_slice(&[0x21, family, 0, length]);
    for address in [client, local] {
        // Writing into a vector cannot fail.
        let _ = match address.ip() {
            IpAddr::V4(ip) => header.write_all(&ip.octets()),
            IpAddr::V6(ip) => header.write_all(&ip.octets()),
        };
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&local.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_the_specification_has_them() {
        let pair = |client: &str, local: &str| Some((client.parse().unwrap(), local.parse().unwrap()));
        let rows = [
            (pair("192.0.2.7:4000", "198.51.100.1:443"), "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"),
            (pair("[2001:db8::7]:4000", "[2001:db8::1]:443"), "PROXY TCP6 2001:db8::7 2001:db8::1 4000 443\r\n"),
            (pair("[::ffff:192.0.2.7]:1", "198.51.100.1:2"), "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"),
            (pair("192.0.2.7:1", "[2001:db8::1]:2"), "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ];
        for (connection, expected) in rows {
            assert_eq!(String::from_utf8(header(ProxyHeader::V1, connection)).unwrap(), expected);
        }
        let four = header(ProxyHeader::V2, rows[0].0);
        assert_eq!(four[..12], SIGNATURE);
        assert_eq!(four[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x0f, 0xa0, 0x01, 0xbb]);
        let six = header(ProxyHeader::V2, rows[1].0);
        assert_eq!((&six[12..16], six.len()), (&[0x21, 0x21, 0, 36][..], 16 + 36));
        assert_eq!(six[48..], [0x0f, 0xa0, 0x01, 0xbb]);
        assert_eq!(header(ProxyHeader::V2, None)[12..], [0x20, 0, 0, 0]);
    }
}

//! Who the client is, row by row: what the proxies wrote, and the chain that is believed.

use proptest::prelude::*;
use tidegate_config::Networks;

use super::*;
use crate::fixtures::{FieldList, fields};
use crate::head::ListenerId;

const PROXY: &str = "10.0.0.1";

fn policy(header: ForwardedHeader) -> TrustedProxies {
    TrustedProxies { from: "10.0.0.0/8, fd00::/8, 192.168.1.1".parse::<Networks>().unwrap(), header }
}

fn resolved(header: ForwardedHeader, peer: Option<&str>, fields: &FieldList) -> Client {
    let peer: Option<IpAddr> = peer.map(|peer| peer.parse().unwrap());
    let placeholder = IpAddr::from([127, 0, 0, 1]);
    let client = Client::new(peer.unwrap_or(placeholder), 4000, ListenerId(0), None);
    resolve(&policy(header), peer, &client, fields)
}

fn chain(client: &Client) -> String {
    String::from_utf8(client.chain().to_vec()).unwrap()
}

#[test]
fn x_forwarded_for_is_read_from_its_end() {
    let rows: &[(&[&str], &str)] = &[
        // Nothing said: the proxy itself.
        (&[], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        (&[" , ,"], "10.0.0.1"),
        // One client, in every form.
        (&["203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["  203.0.113.9\t"], "203.0.113.9, 10.0.0.1"),
        (&["203.0.113.9:4711"], "203.0.113.9, 10.0.0.1"),
        (&["2001:db8::9"], "2001:db8::9, 10.0.0.1"),
        (&["2001:DB8:0:0:0:0:0:9"], "2001:db8::9, 10.0.0.1"),
        (&["[2001:db8::9]"], "2001:db8::9, 10.0.0.1"),
        (&["[2001:db8::9]:4711"], "2001:db8::9, 10.0.0.1"),
        (&["::ffff:203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["[::ffff:203.0.113.9]:1"], "203.0.113.9, 10.0.0.1"),
        // What a client wrote in front is not believed.
        (&["198.51.100.1, 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["10.9.9.9, 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["garbage, 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["\", 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        // Trusted proxies on the way.
        (&["203.0.113.9, 10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1"),
        (&["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1"),
        (&["203.0.113.9,fd00::2,192.168.1.1"], "203.0.113.9, fd00::2, 192.168.1.1, 10.0.0.1"),
        (&["198.51.100.1, 203.0.113.9, 10.0.0.2:80, 10.0.0.3"], "203.0.113.9, 10.0.0.2, 10.0.0.3, 10.0.0.1"),
        (&["203.0.113.9, 192.168.1.2, 10.0.0.3"], "192.168.1.2, 10.0.0.3, 10.0.0.1"),
        // All of them trusted: the first.
        (&["10.0.0.4, 10.0.0.3"], "10.0.0.4, 10.0.0.3, 10.0.0.1"),
        // Several fields are one list.
        (&["198.51.100.1", "203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["203.0.113.9", "10.0.0.2", "10.0.0.3"], "203.0.113.9, 10.0.0.2, 10.0.0.3, 10.0.0.1"),
        (&["203.0.113.9", ""], "203.0.113.9, 10.0.0.1"),
        // What is no address ends the walk at the last good one.
        (&["203.0.113.9, unknown"], "10.0.0.1"),
        (&["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2, 10.0.0.1"),
        (&["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2, 10.0.0.1"),
        (&["203.0.113.9 10.0.0.2"], "10.0.0.1"),
        (&["203.0.113.9:"], "10.0.0.1"),
        (&["203.0.113.9:99999"], "10.0.0.1"),
        (&["203.0.113.09"], "10.0.0.1"),
        (&["203.0.113"], "10.0.0.1"),
        (&["0x7f.0.0.1"], "10.0.0.1"),
        (&["2130706433"], "10.0.0.1"),
        (&["[203.0.113.9]"], "10.0.0.1"),
        (&["[2001:db8::9"], "10.0.0.1"),
        (&["[2001:db8::9]x"], "10.0.0.1"),
        (&["fe80::1%eth0"], "10.0.0.1"),
        (&["\"203.0.113.9\""], "10.0.0.1"),
        (&["203.0.113.9;10.0.0.2"], "10.0.0.1"),
        (&["example.com"], "10.0.0.1"),
        (&["203.0.113.9\u{a0}"], "10.0.0.1"),
    ];
    assert!(rows.len() >= 40);
    for (values, expected) in rows {
        for name in ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"] {
            let list: Vec<(&str, &str)> = values.iter().map(|value| (name, *value)).collect();
            let client = resolved(ForwardedHeader::XForwardedFor, Some(PROXY), &fields(&list));
            assert_eq!(chain(&client), *expected, "{values:?}");
            assert_eq!(Some(client.address().to_string().as_str()), expected.split(", ").next(), "{values:?}");
            assert_eq!(client.address_text(), client.address().to_string().as_bytes());
            assert_eq!(client.peer().to_string(), PROXY);
        }
    }
}

#[test]
fn forwarded_is_read_from_its_end() {
    let rows: &[(&[&str], &str)] = &[
        (&[], "10.0.0.1"),
        (&["for=203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["For=\"203.0.113.9:80\""], "203.0.113.9, 10.0.0.1"),
        (&["FOR=\"[2001:db8::9]:4711\""], "2001:db8::9, 10.0.0.1"),
        (&["for=\"[2001:db8::9]:_port\""], "2001:db8::9, 10.0.0.1"),
        (&["for=\"\\[2001:db8::9]\""], "2001:db8::9, 10.0.0.1"),
        (&["by=10.0.0.1; for=203.0.113.9 ;proto=http"], "203.0.113.9, 10.0.0.1"),
        (&["for=198.51.100.1, for=203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["for=203.0.113.9;by=\"a,b;c\", for=10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1"),
        (&["for=203.0.113.9;secret=\"a\\\",b\", for=10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1"),
        (&["for=203.0.113.9", "for=10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1"),
        (&["for=10.0.0.3, , for=10.0.0.2,"], "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        // An open quote of the client swallows nothing.
        (&["for=\"198.51.100.1, for=203.0.113.9"], "203.0.113.9, 10.0.0.1"),
        (&["for=\"x\\", "for=\"[2001:db8::9]\""], "2001:db8::9, 10.0.0.1"),
        (&["for=\"x, for=\"[2001:db8::9]\";proto=https"], "2001:db8::9, 10.0.0.1"),
        // Nobody named, or malformed: the last good one.
        (&["for=203.0.113.9, for=unknown, for=10.0.0.2"], "10.0.0.2, 10.0.0.1"),
        (&["for=203.0.113.9, for=_obfuscated"], "10.0.0.1"),
        (&["for=203.0.113.9, proto=https"], "10.0.0.1"),
        (&["for=203.0.113.9;for=203.0.113.10"], "10.0.0.1"),
        (&["for=203.0.113.9;proto=http;Proto=https"], "10.0.0.1"),
        (&["for="], "10.0.0.1"),
        (&["for"], "10.0.0.1"),
        (&["203.0.113.9"], "10.0.0.1"),
        (&["for=\"203.0.113.9"], "10.0.0.1"),
        (&["for=203.0.113.9\""], "10.0.0.1"),
        (&["for=\"203.0.113.9\\\""], "10.0.0.1"),
    ];
    for (values, expected) in rows {
        let list: Vec<(&str, &str)> = values.iter().map(|value| ("Forwarded", *value)).collect();
        assert_eq!(chain(&resolved(ForwardedHeader::Forwarded, Some(PROXY), &fields(&list))), *expected, "{values:?}");
    }
}

#[test]
fn only_the_named_field_is_read() {
    let list = fields(&[("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=203.0.113.2;proto=https")]);
    assert_eq!(chain(&resolved(ForwardedHeader::XForwardedFor, Some(PROXY), &list)), "203.0.113.1, 10.0.0.1");
    let client = resolved(ForwardedHeader::Forwarded, Some(PROXY), &list);
    assert_eq!((chain(&client).as_str(), client.scheme()), ("203.0.113.2, 10.0.0.1", "https"));
    let list = fields(&[("x-forwarded-proto", "https"), ("x-forwarded-host", "other.example")]);
    let client = resolved(ForwardedHeader::Forwarded, Some(PROXY), &list);
    assert_eq!((client.scheme(), client.forwarded_host()), ("http", None));
}

#[test]
fn scheme_and_host_are_kept_where_they_are_valid() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);
    let rows: &[Row<'_>] = &[
        (&[], "http", None),
        (&[("x-forwarded-proto", "https")], "https", None),
        (&[("X-Forwarded-Proto", "HTTPS ")], "https", None),
        (&[("x-forwarded-proto", "https, http")], "http", None),
        (&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "https")], "http", None),
        (&[("x-forwarded-proto", "javascript")], "http", None),
        (&[("x-forwarded-host", "Shop.Example.")], "http", Some("shop.example")),
        (&[("x-forwarded-host", "shop.example:8443")], "http", Some("shop.example:8443")),
        (&[("x-forwarded-host", "a.example, b.example")], "http", None),
        (&[("x-forwarded-host", "a.example"), ("x-forwarded-host", "a.example")], "http", None),
        (&[("x-forwarded-host", "a.example/path")], "http", None),
        (&[("x-forwarded-host", "user@a.example")], "http", None),
    ];
    for (list, scheme, host) in rows {
        let client = resolved(ForwardedHeader::XForwardedFor, Some(PROXY), &fields(list));
        assert_eq!((client.scheme(), client.forwarded_host()), (*scheme, *host), "{list:?}");
    }
    // Of the element that names the client, whatever others say.
    let list = fields(&[(
        "forwarded",
        "for=1.1.1.1;proto=http, for=203.0.113.9;proto=https;host=\"a.example:8443\", for=10.0.0.2;proto=http;host=b",
    )]);
    let client = resolved(ForwardedHeader::Forwarded, Some(PROXY), &list);
    assert_eq!((client.scheme(), client.forwarded_host()), ("https", Some("a.example:8443")));
}

#[test]
fn a_unix_socket_has_no_address_of_its_own() {
    let said = fields(&[("x-forwarded-for", "203.0.113.9, 10.0.0.2")]);
    let client = resolved(ForwardedHeader::XForwardedFor, None, &said);
    assert_eq!(chain(&client), "203.0.113.9, 10.0.0.2");
    let silent = resolved(ForwardedHeader::XForwardedFor, None, &fields(&[]));
    assert_eq!((chain(&silent).as_str(), silent.address().to_string().as_str()), ("127.0.0.1", "127.0.0.1"));
}

proptest! {
    /// Whatever a client writes, the proxy's own addition decides.
    #[test]
    fn nothing_in_front_changes_the_end(junk in "[ -~]{0,60}") {
        let appended = format!("{junk}, 203.0.113.9");
        let client = resolved(ForwardedHeader::XForwardedFor, Some(PROXY), &fields(&[("x-forwarded-for", &appended)]));
        prop_assert_eq!(chain(&client), "203.0.113.9, 10.0.0.1");
        for own in ["for=203.0.113.9", "for=\"203.0.113.9:1\";proto=https;by=\"[::1]\""] {
            let appended = format!("{junk}, {own}");
            for list in [fields(&[("forwarded", &appended)]), fields(&[("forwarded", &junk), ("forwarded", own)])] {
                let client = resolved(ForwardedHeader::Forwarded, Some(PROXY), &list);
                prop_assert_eq!(chain(&client), "203.0.113.9, 10.0.0.1", "{}", appended);
            }
        }
    }
}

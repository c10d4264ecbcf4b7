//! What an endpoint and a client see of a head.

use tidegate_config::model::{ForwardedHeader, TrustedProxies};

use super::*;
use crate::fixtures::{Request, fields, get, rendered};
use crate::head::HttpVersion;
use crate::refusal::RefusalKind;
use crate::trusted;

const PLAIN: RequestContext<'static> = RequestContext {
    id: RequestId(0xab),
    protocol: UpstreamProtocol::Http1,
    websocket: false,
    worker: false,
    own_cookie: None,
    default_host: None,
    began: None,
};
const OURS: &str = "x-forwarded-for=192.0.2.7 x-forwarded-proto=http x-forwarded-host=h x-real-ip=192.0.2.7";
const ID: &str = "x-request-id=000000000000000000000000000000ab";

fn forwarded(request: &Request, context: &RequestContext<'_>) -> String {
    request.view(|head| rendered(&request_edits(head, context), head.fields)).unwrap()
}

fn refused(request: &Request) -> Option<RefusalKind> {
    request.view(|head| check_request(head).err().map(|refusal| refusal.kind)).unwrap()
}

#[test]
fn a_plain_request_gets_our_fields_and_keeps_its_own() {
    let request = get("h", "/").with("Accept", "*/*").with("X-Custom", "1").with("x-custom", "2");
    assert_eq!(forwarded(&request, &PLAIN), format!("Host=h Accept=*/* X-Custom=1 x-custom=2 {OURS} {ID}"));
}

#[test]
fn an_endpoint_that_is_told_when_a_request_began_hears_it_from_us_alone() {
    let request = get("h", "/").with("X-Request-Start", "t=1");
    assert_eq!(forwarded(&request, &PLAIN), format!("Host=h X-Request-Start=t=1 {OURS} {ID}"));
    let began = Some(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_123_456_789));
    let told = RequestContext { began, ..PLAIN };
    assert_eq!(forwarded(&request, &told), format!("Host=h {OURS} {ID} x-request-start=t=1700000000123456"));
}

#[test]
fn nothing_a_client_says_about_clients_survives() {
    let names = [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X-FORWARDED-PROTO",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Anything",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-Request-ID",
        "Client-Cert",
        "SSL-Client-Verify",
        "X-SSL-Client-S-DN",
        "X-Client-Cert",
    ];
    let mut request = get("h", "/");
    for name in names {
        request = request.with(name, "forged").with(name, "again");
    }
    assert_eq!(forwarded(&request, &PLAIN), format!("Host=h {OURS} {ID}"));
}

#[test]
fn fields_about_the_connection_end_here() {
    let request = get("h", "/")
        .with("Connection", "close, keep-alive")
        .with("Keep-Alive", "5")
        .with("Proxy-Connection", "x")
        .with("TE", "trailers")
        .with("Trailer", "x")
        .with("Transfer-Encoding", "chunked")
        .with("Content-Length", "1")
        .with("Upgrade", "h2c")
        .with("HTTP2-Settings", "x")
        .with("Expect", "100-continue")
        .with("Proxy", "http://evil")
        .with("Authorization", "kept");
    assert_eq!(forwarded(&request, &PLAIN), format!("Host=h Authorization=kept {OURS} {ID}"));
}

#[test]
fn a_websocket_is_asked_for_in_our_words() {
    let request = Request { upgrade: true, ..get("h", "/").with("Connection", "keep-alive, Upgrade") };
    let context = RequestContext { websocket: true, ..PLAIN };
    assert_eq!(forwarded(&request, &context), format!("Host=h connection=upgrade upgrade=websocket {OURS} {ID}"));
}

#[test]
fn the_host_is_forwarded_in_its_canonical_form() {
    let rows =
        [(get("H.Example.:80", "/"), "h.example:80"), (Request { version: HttpVersion::Http2, ..get("h", "/") }, "h")];
    for (request, host) in rows {
        let ours = OURS.replace("x-forwarded-host=h", &format!("x-forwarded-host={host}"));
        assert_eq!(forwarded(&request, &PLAIN), format!("{ours} host={host} {ID}"));
    }
    let without = Request { host: None, version: HttpVersion::Http10, ..get("", "/") };
    let context = RequestContext { default_host: Some("www.example"), ..PLAIN };
    let seen = forwarded(&without, &context);
    let ours = OURS.replace(" x-forwarded-host=h", "");
    assert_eq!(seen, format!("{ours} host=www.example {ID}"));
}

#[test]
fn tls_clients_are_said_to_use_https() {
    let request = Request { server_name: Some("h"), ..get("h", "/") };
    assert!(forwarded(&request, &PLAIN).contains("x-forwarded-proto=https"));
}

#[test]
fn cookies_split_by_http2_are_one_field_for_http1() {
    let request = Request { version: HttpVersion::Http2, ..get("h", "/").with("cookie", "a=1").with("cookie", "b=2") };
    let seen = forwarded(&request, &PLAIN);
    assert!(seen.contains("cookie=a=1; b=2") && seen.matches("cookie=").count() == 1, "{seen}");
    let seen = forwarded(&request, &RequestContext { protocol: UpstreamProtocol::H2, ..PLAIN });
    assert!(seen.contains("cookie=a=1 cookie=b=2"), "{seen}");
}

#[test]
fn a_cookie_between_us_and_the_client_goes_no_further() {
    let rows: [(&[&str], &str); 6] = [
        (&["sid=1"], ""),
        (&["a=1; sid=2; b=\"3\""], " cookie=a=1; b=\"3\""),
        (&["sid=1; sid=2", "a=1"], " cookie=a=1"),
        (&["a=1;;  asid=2 ;sid", "SID=3"], " cookie=a=1; asid=2; SID=3"),
        (&["a=1", "b=2"], " Cookie=a=1 Cookie=b=2"),
        (&["a=sid=1"], " Cookie=a=sid=1"),
    ];
    let context = RequestContext { own_cookie: Some("sid"), ..PLAIN };
    for (cookies, expected) in rows {
        let request = cookies.iter().fold(get("h", "/"), |request, cookies| request.with("Cookie", cookies));
        assert_eq!(forwarded(&request, &context), format!("Host=h{expected} {OURS} {ID}"));
    }
}

#[test]
fn trailers_are_announced_to_http2_endpoints_only() {
    let request = get("h", "/").with("TE", "trailers");
    let h2 = RequestContext { protocol: UpstreamProtocol::H2, ..PLAIN };
    assert!(forwarded(&request, &h2).contains("te=trailers"));
    assert!(!forwarded(&get("h", "/").with("TE", "gzip"), &h2).contains("te="));
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let bad = Some(RefusalKind::BadRequest);
    let rows = [
        ("X_Forwarded_For", "1", bad),
        ("Content_Length", "1", bad),
        ("Expect", "100-Continue", None),
        ("Expect", "200-ok", Some(RefusalKind::ExpectationFailed)),
        ("X-Fine", "a_b", None),
    ];
    for (name, value, expected) in rows {
        assert_eq!(refused(&get("h", "/").with(name, value)), expected, "{name}: {value}");
    }
}

#[test]
fn responses_lose_what_is_about_the_connection_and_get_the_id() {
    let list = fields(&[
        ("Connection", "close"),
        ("Keep-Alive", "5"),
        ("Upgrade", "websocket"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"),
        ("X-Request-Id", "theirs"),
        ("Alt-Svc", "kept"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
    ]);
    let plain = rendered(&response_edits(RequestId(0xab), false), &list);
    assert_eq!(plain, format!("Alt-Svc=kept Set-Cookie=a Set-Cookie=b {ID}"));
    let tunnel = rendered(&response_edits(RequestId(0xab), true), &list);
    assert_eq!(tunnel, format!("Alt-Svc=kept Set-Cookie=a Set-Cookie=b connection=upgrade upgrade=websocket {ID}"));
}

#[test]
fn a_worker_gets_the_client_and_a_server_the_whole_chain() {
    let policy = TrustedProxies { from: "192.0.2.0/24".parse().unwrap(), header: ForwardedHeader::XForwardedFor };
    let request = get("h", "/")
        .with("X-Forwarded-For", "1.1.1.1, 203.0.113.9, 192.0.2.8")
        .with("X-Forwarded-Proto", "https")
        .with("X-Forwarded-Host", "Shop.example")
        .with("X-Forwarded-Port", "1")
        .with("X-Real-IP", "1.1.1.1")
        .with("Forwarded", "for=1.1.1.1");
    let edited = |worker: bool| {
        request
            .view(|head| {
                let client = trusted::resolve(&policy, Some(head.client.peer()), head.client, head.fields);
                let head = HeadView { client: &client, ..*head };
                rendered(&request_edits(&head, &RequestContext { worker, ..PLAIN }), head.fields)
            })
            .unwrap()
    };
    let rest = "x-forwarded-proto=https x-forwarded-host=shop.example x-real-ip=203.0.113.9";
    assert_eq!(edited(true), format!("Host=h x-forwarded-for=203.0.113.9 {rest} {ID}"));
    assert_eq!(edited(false), format!("Host=h x-forwarded-for=203.0.113.9, 192.0.2.8, 192.0.2.7 {rest} {ID}"));
}

//! Upstreams that speak HTTP/2: what every client gets from them, and what they get from every client.
//!
//! These requests go another way through the program than those to HTTP/1.1 upstreams, so what is promised for all
//! upstreams is tried here again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderValue;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home},
    h2_origin::{Break, H2Answer, H2Origin, H2Seen, Reason, Reply},
    hole::Hole,
    pattern::pattern,
    raw::{End, Raw, field, status},
    recorder::Recorder,
    site::{Site, free_port},
    wait::{wait_for, wait_until},
};
use tokio::time::timeout;

/// An edge before one HTTP/2 server; `more` stands in the upstream beside it.
async fn edge_before(origin: &H2Origin, more: &str) -> Edge {
    Edge::start(site_before(&[origin.address()], more)).await
}

fn site_before(servers: &[SocketAddr], more: &str) -> Site {
    let servers: Vec<String> = servers.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    let upstreams = format!("app: {{ protocol: h2, servers: [{}]{more} }}", servers.join(", "));
    Site::usual("- { path: /, proxy: app, max_body: 2MiB }", &upstreams)
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port(&Default::default())).into()
}

#[tokio::test]
async fn bodies_pass_unharmed_both_ways() {
    let origin = H2Origin::echo().await;
    let edge = edge_before(&origin, "").await;
    for client in edge.clients() {
        for size in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 300_000, 1 << 20] {
            let body = pattern(size);
            let answer = client.ask(Ask::post("/", body.clone())).await;
            assert_eq!(answer.status, 200, "{size} bytes over {}: {}", client.kind(), answer.text());
            answer.assert(200, &body);
        }
        let pieces: Vec<Bytes> = pattern(100_000).chunks(7_000).map(Bytes::copy_from_slice).collect();
        client.ask(Ask::post_pieces("/", pieces)).await.assert(200, &pattern(100_000));
        client.get("/").await.assert(200, b"");
    }
}

#[tokio::test]
async fn a_body_is_not_held_back() {
    let origin = H2Origin::echo().await;
    let edge = edge_before(&origin, "").await;
    for client in edge.clients() {
        let (ask, sender) = Ask::post_channel("/");
        let mut connection = client.connect().await.expect("the edge listens");
        let answer = tokio::spawn(async move { connection.start(ask).await.map(|coming| (connection, coming)) });
        sender.send(Bytes::from_static(b"one")).await.expect("the client reads");
        let (_connection, mut coming) = answer.await.expect("no panic").expect("a head");
        for piece in ["one", "two"] {
            assert_eq!(coming.piece().await.expect("a piece").as_deref(), Some(piece.as_bytes()), "{}", client.kind());
            let _ = sender.send(Bytes::from_static(b"two")).await;
        }
    }
}

/// Answers by path.
fn by_path(seen: &H2Seen) -> Reply {
    Reply::Answer(match seen.path.as_str() {
        "/length" => H2Answer::new(200).header("content-length", "5").body("12345"),
        "/head" => H2Answer::new(200).header("content-length", "12345"),
        "/204" => H2Answer::new(204),
        "/304" => H2Answer::new(304).header("etag", "\"x\""),
        "/404" => H2Answer::new(404).body("no such thing"),
        "/503" => H2Answer::new(503).header("retry-after", "7").body("busy"),
        "/trailers" => H2Answer::new(200).body("body").trailer("x-checksum", "abc"),
        "/fields" => H2Answer::new(200).header("set-cookie", "a=1").header("set-cookie", "b=2").header("x-a", "b"),
        _ => H2Answer::new(200).body("other"),
    })
}

#[tokio::test]
async fn answers_arrive_as_they_were_sent() {
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, "").await;
    for client in edge.clients() {
        let kind = client.kind();
        client.get("/length").await.assert(200, b"12345");
        client.get("/404").await.assert(404, b"no such thing");
        let busy = client.get("/503").await;
        busy.assert(503, b"busy");
        assert_eq!(busy.header("retry-after"), Some("7"), "{kind}");
        assert_eq!(busy.header("x-tidegate-reason"), None, "the 503 is the origin's, over {kind}");
        let head = client.ask(Ask::new("HEAD", "/head")).await;
        head.assert(200, b"");
        assert_eq!(head.header("content-length"), Some("12345"), "{kind}");
        let empty = client.get("/204").await;
        empty.assert(204, b"");
        assert_eq!(empty.header("content-length"), None, "{kind}");
        let unchanged = client.get("/304").await;
        unchanged.assert(304, b"");
        assert_eq!(unchanged.header("etag"), Some("\"x\""), "{kind}");
        client.get("/trailers").await.assert(200, b"body");
        let fields = client.get("/fields").await;
        let cookies: Vec<_> = fields.headers.get_all("set-cookie").iter().flat_map(HeaderValue::to_str).collect();
        assert_eq!((cookies, fields.header("x-a")), (vec!["a=1", "b=2"], Some("b")), "{kind}");
    }
}

#[tokio::test]
async fn the_origin_learns_who_asks() {
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, "").await;
    for (index, client) in edge.clients().into_iter().enumerate() {
        let kind = client.kind();
        let ask = Ask::get("/a%20b?c=d").header("x-forwarded-for", "6.6.6.6").header("x-real-ip", "6.6.6.6");
        let answer = client.ask(ask.header("x-own", "1").header("connection", "x-hop").header("x-hop", "1")).await;
        if kind.is_h2() {
            // RFC 9113 section 8.2.2: fields about the connection make the request malformed.
            if answer.status == 400 {
                client.ask(Ask::get("/a%20b?c=d").header("x-forwarded-for", "6.6.6.6").header("x-own", "1")).await;
            }
        } else {
            assert_eq!(answer.status, 200, "{kind}");
        }
        let seen = origin.requests_at_least(index + 1).await.pop().expect("a request");
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/a%20b?c=d"), "{kind}");
        assert_eq!(seen.header("x-own"), Some("1"), "{kind}");
        let scheme = if kind.is_tls() { "https" } else { "http" };
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{kind}: {seen:#?}");
        assert_eq!(seen.header("x-forwarded-proto"), Some(scheme), "{kind}: {seen:#?}");
        assert_eq!(seen.header("x-forwarded-host"), Some("test.example"), "{kind}: {seen:#?}");
        assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"), "{kind}: {seen:#?}");
        assert_eq!(seen.header("x-request-id").map(str::len), Some(32), "{kind}: {seen:#?}");
        assert_eq!(seen.header("x-hop"), None, "{kind}: {seen:#?}");
        let host = seen.authority.as_deref().filter(|authority| !authority.is_empty()).or(seen.header("host"));
        assert_eq!(host, Some("test.example"), "{kind}: {seen:#?}");
    }
}

#[tokio::test]
async fn a_request_id_is_the_same_for_all() {
    let origin = H2Origin::start(by_path).await;
    let site = site_before(&[origin.address()], "").and("logging: { access: { format: \"id=$request_id\" } }");
    let edge = Edge::start(site).await;
    let answer = edge.client(Kind::Http1).get("/").await;
    let id = origin.only_request().header("x-request-id").expect("an id").to_owned();
    assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{:?}", answer.headers);
    let output = edge.output();
    wait_for("the id in the access log", Duration::from_secs(5), || {
        output.stdout().contains(&format!("id={id}")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_connect_is_a_502() {
    let edge = Edge::start(site_before(&[nobody()], "")).await;
    for client in edge.clients() {
        for ask in [Ask::get("/"), Ask::post("/", "body")] {
            let answer = client.ask(ask).await;
            assert_eq!(reason(&answer), (502, Some("connect_failed")), "over {}", client.kind());
            assert!(answer.is_complete(), "over {}", client.kind());
        }
    }
}

#[tokio::test]
async fn another_server_takes_over() {
    let origin = H2Origin::echo().await;
    let edge = Edge::start(site_before(&[nobody(), origin.address()], "")).await;
    for client in edge.clients() {
        for _ in 0..4 {
            client.get("/").await.assert(200, b"");
            client.ask(Ask::post("/", "body")).await.assert(200, b"body");
        }
    }
}

#[tokio::test]
async fn a_stream_nobody_worked_on_goes_elsewhere() {
    // RFC 9113 section 8.7: REFUSED_STREAM says that nothing was done.
    let refusing = H2Origin::start(|_| Reply::Refuse(Reason::REFUSED_STREAM)).await;
    let origin = H2Origin::named("second").await;
    let edge = Edge::start(site_before(&[refusing.address(), origin.address()], "")).await;
    for client in edge.clients() {
        for _ in 0..2 {
            client.get("/").await.assert(200, b"second");
        }
    }
}

#[tokio::test]
async fn a_body_too_long_is_a_413() {
    let origin = H2Origin::start(by_path).await;
    let edge = Edge::start(site_before(&[origin.address()], "").replace("max_body: 2MiB", "max_body: 1KiB")).await;
    for client in edge.clients() {
        let kind = client.kind();
        client.ask(Ask::post("/", pattern(1_024))).await.assert(200, b"other");
        let known = client.ask(Ask::post("/", pattern(1_025))).await;
        assert_eq!(reason(&known), (413, Some("body_too_large")), "over {kind}");
        let pieces = vec![Bytes::from(pattern(1_000)), Bytes::from(pattern(1_000))];
        let unknown = client.ask(Ask::post_pieces("/", pieces)).await;
        assert_eq!(reason(&unknown), (413, Some("body_too_large")), "in pieces over {kind}");
        client.get("/").await.assert(200, b"other");
    }
    assert!(origin.requests().iter().all(|seen| seen.body.len() <= 1_024), "{:#?}", origin.requests());
}

#[tokio::test]
async fn an_origin_that_does_not_answer_is_a_504() {
    let origin = H2Origin::start(|_| Reply::Stall).await;
    let edge = edge_before(&origin, ", timeouts: { head: 300ms, read: 300ms }").await;
    for client in edge.clients() {
        let asked = Instant::now();
        let answer = client.ask(Ask::get("/").within(Duration::from_secs(5))).await;
        assert_eq!(reason(&answer), (504, Some("head_timeout")), "over {}", client.kind());
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_is_not_waited_for() {
    let half = || Reply::Broken(H2Answer::new(200).header("content-length", "10").body("half"), Break::Stall);
    let origin = H2Origin::start(move |_| half()).await;
    let edge = edge_before(&origin, ", timeouts: { head: 300ms, read: 300ms }").await;
    for client in edge.clients() {
        let answer = client.ask(Ask::get("/").within(Duration::from_secs(5))).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"half"[..]), "over {}", client.kind());
        assert!(!answer.is_complete(), "over {}", client.kind());
    }
}

#[tokio::test]
async fn an_upload_takes_the_time_it_takes() {
    // The deadline for the head begins when the request has been sent.
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, ", timeouts: { head: 400ms, read: 400ms }").await;
    let pieces = || (0..8).map(|_| Bytes::from_static(b"piece")).collect();
    for client in edge.clients() {
        client.ask(Ask::post_slowly("/", pieces(), Duration::from_millis(150))).await.assert(200, b"other");
    }
}

#[tokio::test]
async fn a_connect_has_its_deadlines() {
    let (hole, pit) = (Hole::open(), Hole::open());
    let both = [hole.address(), pit.address()];
    for (servers, timeouts, least, most) in [
        (&both[..1], "connect: 300ms", 280, 1_500),
        (&both[..], "connect: 1s", 1_900, 3_500),
        (&both[..], "connect: 1s, total_connect: 1s", 900, 1_700),
    ] {
        let edge = Edge::start(site_before(servers, &format!(", timeouts: {{ {timeouts} }}"))).await;
        let ask = |kind: Kind| {
            let client = edge.client(kind);
            async move {
                let asked = Instant::now();
                (kind, client.get("/").await, asked.elapsed().as_millis())
            }
        };
        for (kind, answer, took) in join_all(Kind::ALL.map(ask)).await {
            assert_eq!(reason(&answer), (504, Some("connect_timeout")), "{timeouts} over {kind}");
            assert!((least..most).contains(&took), "{timeouts} over {kind}: {took} ms");
        }
    }
}

#[tokio::test]
async fn idle_connections_end_in_time() {
    for (more, is_kept) in [("", true), (", timeouts: { idle: 300ms }", false)] {
        let (origin, ended) = after_two_requests(more).await;
        assert_eq!((origin.connections(), !ended), (1, is_kept), "with '{more}'");
    }
}

#[tokio::test]
async fn what_it_cannot_honour_is_refused_by_name() {
    for (more, named) in [
        (", idle_connections: 0", "idle_connections"),
        (", timeouts: { head: 300ms }", "head"),
        (", timeouts: { read: 300ms }", "read"),
        (", timeouts: { head: 300ms, read: 400ms }", "head"),
    ] {
        let finished = Home::new(&site_before(&[nobody()], more)).tidegate(&["check"]).await;
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert!(finished.status.code() == Some(1) && told.contains(named), "with '{more}': {told}");
    }
}

/// An origin after two requests in turn, and whether all its connections end within a second and a half.
async fn after_two_requests(more: &str) -> (H2Origin, bool) {
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, more).await;
    let mut connection = edge.client(Kind::Http1).connect().await.expect("the edge listens");
    for _ in 0..2 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"other");
    }
    let end = wait_for("the end", LIMIT, || (origin.open_connections() == 0).then_some(()));
    let ended = timeout(Duration::from_millis(1_500), end).await.is_ok();
    (origin, ended)
}

#[tokio::test]
async fn a_truncated_answer_never_looks_complete() {
    let origin = H2Origin::start(|seen| {
        let how = match seen.path.rsplit('/').next() {
            Some("reset") => Break::Reset(Reason::INTERNAL_ERROR),
            Some("cancel") => Break::Reset(Reason::CANCEL),
            Some("quiet") => Break::Reset(Reason::NO_ERROR),
            _ => Break::Connection,
        };
        let answer = H2Answer::new(200).body("half");
        let with_length = seen.path.starts_with("/length/");
        Reply::Broken(if with_length { answer.header("content-length", "10") } else { answer }, how)
    })
    .await;
    let edge = edge_before(&origin, "").await;
    for client in edge.clients() {
        for framing in ["length", "open"] {
            for how in ["reset", "cancel", "quiet", "gone"] {
                match client.send(Ask::get(&format!("/{framing}/{how}"))).await {
                    Ok(answer) if answer.status == 200 => {
                        assert!(!answer.is_complete(), "{framing}, {how}, over {}: {answer:?}", client.kind());
                    }
                    Ok(answer) => assert_eq!(answer.status, 502, "{framing}, {how}, over {}", client.kind()),
                    // A client may lose the head with the connection.
                    Err(_) => {}
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_refused_rather_than_misled() {
    // It knows no chunks (RFC 9112 section 6.1), and the length of an answer may be unknown.
    let origin = H2Origin::named("whole").await;
    let edge = edge_before(&origin, "").await;
    let request = "GET / HTTP/1.0\r\nhost: test.example\r\n\r\n";
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert_eq!((status(&answer), field(&answer, "transfer-encoding")), (505, None), "{answer:?}");
    assert_eq!((field(&answer, "x-tidegate-reason"), end), (Some("unsupported_version"), End::Closed), "{answer:?}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_reset_before_the_head_is_a_502() {
    let origin = H2Origin::start(|_| Reply::Refuse(Reason::INTERNAL_ERROR)).await;
    let edge = edge_before(&origin, "").await;
    for client in edge.clients() {
        let answer = client.ask(Ask::post("/", "body")).await;
        assert_eq!(answer.status, 502, "over {}", client.kind());
        assert!(answer.header("x-tidegate-reason").is_some(), "over {}", client.kind());
    }
    let posts = origin.requests().len();
    assert_eq!(posts, 4, "a POST that may have had an effect is not sent again");
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let (origin, old) = (H2Origin::echo().await, Recorder::friendly().await);
    let upstreams = format!(
        "app: {{ protocol: h2, servers: [{{ address: \"{}\" }}] }}\nold: {{ servers: [{{ address: \"{}\" }}] }}",
        origin.address(),
        old.address()
    );
    let routes = "- { path: /, proxy: app }\n- { path: /old, proxy: old }\n- { path: /own, respond: { body: own } }";
    let edge = Edge::start(Site::usual(routes, &upstreams)).await;
    for kind in Kind::ALL {
        let mut connection = edge.client(kind).connect().await.expect("the edge listens");
        for round in 0..3 {
            let body = pattern(10_000 * round);
            for (ask, expected) in [
                (Ask::get("/"), &b""[..]),
                (Ask::post("/", body.clone()), &body),
                (Ask::post_pieces("/", vec![Bytes::from(body.clone())]), &body),
                (Ask::get("/old"), b"ok\n"),
                (Ask::new("HEAD", "/"), b""),
                (Ask::get("/own"), b"own"),
            ] {
                let what = ask.to_string();
                let answer = connection.send(ask).await;
                let answer = answer.unwrap_or_else(|error| panic!("{what}, round {round} over {kind}: {error:#}"));
                answer.assert(200, expected);
            }
            assert!(!connection.is_closed(), "after round {round} over {kind}");
        }
    }
    assert!(origin.connections() <= 8, "{} connections for 48 requests in turn", origin.connections());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = H2Origin::start(|seen| Reply::Answer(H2Answer::new(200).body(seen.path.clone()))).await;
    let edge = edge_before(&origin, "").await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: test.example\r\n{more}\r\n");
    raw.send(format!("{}{}{}", head("/1", ""), head("/2", ""), head("/3", "connection: close\r\n"))).await;
    let (read, end) = raw.read_to_end(Duration::from_secs(10)).await;
    let read = String::from_utf8_lossy(&read);
    let places: Vec<_> = ["/1", "/2", "/3"].iter().map(|path| read.find(path)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {read}");
    assert_eq!(end, End::Closed);
}

#[tokio::test]
async fn an_idle_client_is_let_go_here_too() {
    let origin = H2Origin::echo().await;
    let site = site_before(&[origin.address()], "").replace("name: plain,", "name: plain, timeouts: { idle: 300ms },");
    let edge = Edge::start(site).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    assert_eq!(status(&raw.read_head().await), 200);
    let (_, end) = raw.read_to_end(Duration::from_secs(3)).await;
    assert_eq!(end, End::Closed);
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_told() {
    let origin = H2Origin::start(by_path).await;
    let site =
        site_before(&[origin.address()], "").replace("name: plain,", "name: plain, timeouts: { body_idle: 300ms },");
    let edge = Edge::start(site).await;
    let request = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 10\r\n\r\nabc";
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert_eq!((status(&answer), end), (408, End::Closed), "{answer:?}");
}

#[tokio::test]
async fn requests_are_logged_and_counted() {
    let origin = H2Origin::start(by_path).await;
    let format =
        "\"line $request_method $uri $status $body_bytes_sent $upstream_name $upstream_addr $upstream_status\"";
    let site = site_before(&[origin.address()], "").and(&format!("logging: {{ access: {{ format: {format} }} }}"));
    let edge = Edge::start(site).await;
    for client in edge.clients() {
        client.get("/404").await.assert(404, b"no such thing");
    }
    let output = edge.output();
    let expected = format!("line GET /404 404 13 app {} 404", origin.address());
    wait_for("four lines", Duration::from_secs(5), || {
        (output.stdout().lines().filter(|line| *line == expected).count() == 4).then_some(())
    })
    .await;
    let metrics = edge.admin().metrics().await.expect("metrics");
    assert_eq!(
        metric(&metrics, "tidegate_requests_total", "status=\"4xx\",upstream=\"app\"").round(),
        4.0,
        "{metrics}"
    );
    assert_eq!(
        metric(&metrics, "tidegate_response_body_bytes_total", "upstream=\"app\"").round(),
        4.0 * 13.0,
        "{metrics}"
    );
    let in_flight = &edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"];
    assert_eq!(in_flight, 0);
}

#[tokio::test]
async fn connections_to_it_are_counted() {
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, "").await;
    let mut connection = edge.client(Kind::Http1).connect().await.expect("the edge listens");
    for _ in 0..3 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"other");
    }
    let metrics = edge.admin().metrics().await.expect("metrics");
    let counted = |name: &str| metric(&metrics, name, "upstream=\"app\"").round();
    let seen = ["opened", "reused"].map(|what| counted(&format!("tidegate_upstream_connections_{what}_total")));
    assert_eq!(seen, [1.0, 2.0], "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream() {
    let origin = H2Origin::start(|_| Reply::Stall).await;
    let edge = edge_before(&origin, "").await;
    let in_flight = async || edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"].as_u64();
    for (index, client) in edge.clients().into_iter().enumerate() {
        let waiting = tokio::spawn(async move { client.send(Ask::get("/")).await });
        origin.requests_at_least(index + 1).await;
        wait_until("the request in flight", LIMIT, async || (in_flight().await == Some(1)).then_some(())).await;
        waiting.abort();
        wait_until("its end", LIMIT, async || (in_flight().await == Some(0)).then_some(())).await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_gets_it() {
    // RFC 9110 section 10.1.1.
    let origin = H2Origin::echo().await;
    let edge = edge_before(&origin, "").await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("POST / HTTP/1.1\r\nhost: test.example\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(status(&raw.read_head().await), 100);
    raw.send("body").await;
    assert_eq!(status(&raw.read_head().await), 200);
    assert!(raw.read_until("body", LIMIT).await.is_ok());
}

#[tokio::test]
async fn an_upgrade_is_no_reason_to_hang() {
    // A server may ignore the wish (RFC 9110 section 7.8), and must not say 101 when it does.
    let origin = H2Origin::start(by_path).await;
    let edge = edge_before(&origin, "").await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send(request).await;
    let head = raw.read_head().await;
    assert!(status(&head) >= 200, "{head}");
    assert!(origin.requests().iter().all(|seen| seen.header("upgrade").is_none()), "{:#?}", origin.requests());
}

#[tokio::test]
async fn many_streams_share_few_connections() {
    let origin = H2Origin::echo().await;
    let edge = edge_before(&origin, "").await;
    let client: Client = edge.client(Kind::H2c);
    let asks = (0..64).map(|index| async move { client.ask(Ask::post("/", pattern(index * 100))).await });
    for (index, answer) in join_all(asks).await.into_iter().enumerate() {
        answer.assert(200, &pattern(index * 100));
    }
    assert_eq!(origin.requests().len(), 64);
}

/// The value of the first line with this name and text.
fn metric(metrics: &str, name: &str, with: &str) -> f64 {
    let found = metrics.lines().find(|line| line.starts_with(name) && line.contains(with));
    let value = found.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} with {with} in\n{metrics}"))
}

fn reason(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.header("x-tidegate-reason"))
}

const LIMIT: Duration = Duration::from_secs(10);

//! Servers write head and body apart, and may die in between: a client that has nothing of an answer yet gets a whole one from
//! another server, and nobody waits for more than a moment.

use std::time::{Duration, Instant};

use http_body_util::Full;
use tidegate_tests::{
    client::{Ask, Ending, Kind},
    edge::Edge,
    every_client,
    recorder::{Recorder, Step},
    site::Site,
};

every_client! {
    what_dies_behind_its_head_is_asked_elsewhere,
    what_dies_with_its_last_server_is_no_answer,
    a_post_is_carried_out_once,
    a_body_that_dawdles_is_waited_for_a_moment,
    what_may_be_long_is_not_waited_for,
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-from: first\r\n\r\n";
const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-from: second\r\n\r\nok\n";
/// Time enough for a head to be passed on, if it were not kept back; and far less than it is kept back.
const MEANWHILE: Duration = Duration::from_millis(5);
/// Longer than any head is kept back, by far.
const LONG: Duration = Duration::from_millis(600);
const HALF: Duration = Duration::from_millis(300);

async fn edge_before(servers: &[&Recorder], more: &str) -> Edge {
    let servers: Vec<_> = servers.iter().map(|server| format!("{{ address: \"{}\" }}", server.address())).collect();
    let site = Site::proxy(&format!("servers: [{}]\n{more}", servers.join(", ")));
    // So that a body can be sent again.
    Edge::start(site.replace("{ path: /, proxy: app }", "{ path: /, proxy: app, buffer: { request: on } }")).await
}

/// A server that sends these bytes of an answer, and dies a little later.
async fn dying(sent: Vec<u8>, end: Step) -> Recorder {
    Recorder::start(move |_| vec![Step::Send(sent.clone()), Step::Pause(MEANWHILE), end.clone()]).await
}

async fn what_dies_behind_its_head_is_asked_elsewhere(kind: Kind) {
    for body in ["", "o", "ok"] {
        for end in [Step::Close, Step::Reset] {
            let sent = [HEAD, body.as_bytes()].concat();
            let (first, second) = (dying(sent, end.clone()).await, Recorder::answering(WHOLE).await);
            let edge = edge_before(&[&first, &second], "").await;
            for _ in 0..4 {
                let answer = edge.client(kind).get("/").await;
                answer.assert(200, b"ok\n");
                assert_eq!(answer.header("x-from"), Some("second"), "{body:?}, then {end:?}");
            }
            assert_eq!((first.requests().len(), second.requests().len()), (2, 4), "{body:?}, then {end:?}");
            for _ in 0..2 {
                let put = Ask::new("PUT", "/put").body(Full::from("all of it"));
                edge.client(kind).ask(put).await.assert(200, b"ok\n");
            }
            let puts = [first.requests(), second.requests()].concat();
            let puts: Vec<_> = puts.iter().filter(|seen| seen.target() == "/put").map(|seen| &seen.body[..]).collect();
            assert_eq!(puts, [b"all of it"; 3], "one of two went to both, whole");
        }
    }
}

async fn what_dies_with_its_last_server_is_no_answer(kind: Kind) {
    for (servers, more) in [(1, ""), (2, ""), (2, "retry: off"), (2, "retry: { on: [connect] }")] {
        let all = [dying(HEAD.to_vec(), Step::Close).await, dying(HEAD.to_vec(), Step::Close).await];
        let edge = edge_before(&all.iter().take(servers).collect::<Vec<_>>(), more).await;
        let answer = edge.client(kind).get("/").await;
        let told = (answer.status.as_u16(), answer.header("x-tidegate-reason"), answer.header("x-from"));
        assert_eq!(told, (502, Some("upstream_closed"), None), "{servers} servers, {more}");
        assert!(answer.is_complete(), "{servers} servers, {more}");
        let asked = all.iter().map(|server| server.requests().len()).sum::<usize>();
        assert_eq!(asked, if more.is_empty() { servers } else { 1 }, "{servers} servers, {more}");
    }
}

async fn a_post_is_carried_out_once(kind: Kind) {
    let all = [dying(HEAD.to_vec(), Step::Close).await, dying(HEAD.to_vec(), Step::Reset).await];
    let edge = edge_before(&[&all[0], &all[1]], "").await;
    for count in 1..=4 {
        let answer = edge.client(kind).ask(Ask::post("/", "x")).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (502, Some("upstream_closed")));
        assert_eq!(all[0].requests().len() + all[1].requests().len(), count);
    }
}

async fn a_body_that_dawdles_is_waited_for_a_moment(kind: Kind) {
    // A long time for the head, and a short one for what follows: neither is about the moment in between.
    for (more, dies) in [("", false), ("", true), ("timeouts: { head: 20ms, read: 5s }", false)] {
        let origin = Recorder::start(move |_| {
            let last = if dies { Step::Close } else { Step::Send(b"ok\n".to_vec()) };
            vec![Step::Send(HEAD.to_vec()), Step::Pause(LONG), last]
        })
        .await;
        let other = Recorder::answering(WHOLE).await;
        let servers = if dies { vec![&origin] } else { vec![&origin, &other] };
        let edge = edge_before(&servers, more).await;
        let mut connection = edge.client(kind).connect().await.expect("a connection");
        let asked = Instant::now();
        let coming = connection.start(Ask::get("/")).await.expect("a head");
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(45), "not kept back at all: {took:?}");
        assert!(took < HALF, "kept back for {took:?}");
        assert_eq!(coming.headers["x-from"], "first", "what is late is not asked elsewhere");
        let answer = coming.rest().await;
        match dies {
            false => answer.assert(200, b"ok\n"),
            // The client has its head, and sees that nothing follows.
            true => assert!(matches!(answer.ending, Ending::Cut(_)), "{answer:?}"),
        }
        assert_eq!(other.requests().len(), 0);
    }
}

async fn what_may_be_long_is_not_waited_for(kind: Kind) {
    for head in [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 16385\r\n\r\n",
    ] {
        let origin = Recorder::start(move |_| vec![Step::Send(head.to_vec()), Step::Stall]).await;
        let edge = edge_before(&[&origin], "").await;
        let client = edge.client(kind);
        // The quickest of some: a machine that is busy may take its time once.
        let mut quickest = Duration::MAX;
        for _ in 0..10 {
            let mut connection = client.connect().await.expect("a connection");
            let asked = Instant::now();
            connection.start(Ask::get("/")).await.expect("a head");
            quickest = quickest.min(asked.elapsed());
        }
        assert!(quickest < Duration::from_millis(45), "{quickest:?} for {}", String::from_utf8_lossy(head));
    }
}

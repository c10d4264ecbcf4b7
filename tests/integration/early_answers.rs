//! Endpoints that answer before they have the whole request: the answer arrives, and nothing of the request is ever taken
//! for another one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::ensure;
use bytes::Bytes;
use futures_util::{StreamExt, future::ready, stream};
use tidegate_tests::{
    client::{Answer, Ask, Client, Connection, Kind},
    drill::{amount, say},
    edge::Edge,
    every_client,
    load::Load,
    pattern::{hash, pattern},
    raw::End,
    recorder::{Recorder, Seen, Step},
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::time::sleep;

use crate::buffering::{is_freed, slow_reader};

every_client! {
    the_answer_arrives_and_the_next_request_gets_its_own,
    an_endpoint_that_takes_no_more_still_answers,
    an_endpoint_that_neither_reads_nor_writes_is_given_up,
    an_answer_begins_while_the_upload_goes_on_and_both_end,
    an_upload_that_stops_costs_no_byte_of_an_answer_under_way,
}

const SIZES: [usize; 5] = [0, 1, 64 << 10, 1 << 20, 8 << 20];
/// Far above the deadlines that the sites below set, far below the defaults.
const PATIENCE: Duration = Duration::from_secs(8);

/// An origin that answers every head at once with its target, and then does what the target's first segment says.
async fn hasty() -> Recorder {
    Recorder::start_eager(|seen: &Seen| {
        let target = seen.target();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len());
        let then = match target.split('/').nth(1) {
            Some("closes") => Some(Step::Close),
            Some("resets") => Some(Step::Reset),
            Some("deaf") => Some(Step::Deaf),
            _ => None,
        };
        [Step::Send(answer.into_bytes())].into_iter().chain(then).collect()
    })
    .await
}

fn upload(target: &str, size: usize, framed: bool) -> Ask {
    if framed {
        return Ask::post(target, vec![b'x'; size]);
    }
    Ask::post_pieces(target, vec![b'x'; size].chunks(16 << 10).map(Bytes::copy_from_slice).collect())
}

/// Sends on `connection`, or on a new one where that has ended: an answer that says so ends it.
async fn send_on(client: &Client, connection: &mut Option<Connection>, ask: Ask) -> anyhow::Result<Answer> {
    let mut open = match connection.take().filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => client.connect().await?,
    };
    let answer = open.send(ask).await?;
    *connection = Some(open).filter(|_| answer.header("connection") != Some("close"));
    Ok(answer)
}

/// Whether a request line is one of this test's.
fn is_asked(line: &str) -> bool {
    line.starts_with("POST /") || line.starts_with("GET /canary/") || line.starts_with("GET /another/")
}

async fn the_answer_arrives_and_the_next_request_gets_its_own(kind: Kind) {
    for buffer in ["on", "off"] {
        let origin = hasty().await;
        let route = format!("{{ path: /, proxy: app, max_body: 16MiB, buffer: {{ request: {buffer} }} }}");
        let site = Site::proxy_to(origin.address()).replace("{ path: /, proxy: app }", &route);
        let edge = Edge::start(site).await;
        let client = edge.client(kind);
        for (number, size) in SIZES.into_iter().enumerate() {
            for (then, framed) in
                ["keeps", "closes", "resets", "deaf"].map(|then| [(then, true), (then, false)]).concat()
            {
                // One that has a whole request and reads no more has broken its own word.
                if then == "deaf" && size < 8 << 20 {
                    continue;
                }
                let mut connection = None;
                let target = format!("/{then}/{framed}/{number}");
                let answer = send_on(&client, &mut connection, upload(&target, size, framed)).await;
                let place = format!("{target}, {size} bytes, request: {buffer}, over {kind}");
                let answer = answer.unwrap_or_else(|error| panic!("{place}: {error:#}"));
                assert_eq!((answer.status.as_u16(), answer.text()), (200, target.clone()), "{place}");
                if size == 8 << 20 {
                    // More than is read of an upload whose answer is complete, so this connection may end any time.
                    connection = connection.filter(|_| kind.is_h2());
                }
                for canary in [format!("/canary/{number}{then}"), format!("/another/{number}{then}")] {
                    // Whoever closes behind a request that it has whole has not kept its word either: what cannot be sent
                    // again may be lost then, by any proxy.
                    let surprised = matches!(then, "closes" | "resets") && size <= 8 << 10;
                    let ask = if surprised { Ask::get(&canary) } else { Ask::post(&canary, "abc") };
                    let answer = send_on(&client, &mut connection, ask).await;
                    let answer = answer.unwrap_or_else(|error| panic!("behind {place}: {error:#}"));
                    assert_eq!((answer.status.as_u16(), answer.text()), (200, canary), "behind {place}");
                }
            }
        }
        // Nothing of a body was read as a request.
        let strange: Vec<_> = origin.requests().into_iter().filter(|seen| !is_asked(seen.line())).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_behind_bodies_that_nobody_reads() {
    lose_no_request(3_000).await;
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn no_request_is_lost_behind_bodies_that_nobody_reads_long() {
    lose_no_request(amount("TIDEGATE_DRILL_EARLY", 100_000) as u64).await;
}

/// The demo answers `/` without reading the body, and closes its connection behind the answer where the body was not there
/// yet. It does not say so beforehand, so whoever comes next on that connection is lost.
async fn lose_no_request(count: u64) {
    for buffer in ["on", "off"] {
        let route = format!("{{ path: /, proxy: app, buffer: {{ request: {buffer} }} }}");
        let edge = Edge::start(Site::demo_workers(1, &[]).replace("{ path: /, proxy: app }", &route)).await;
        edge.ready_workers("app", 1).await;
        let turn = AtomicU64::new(0);
        let question = move || {
            let turn = turn.fetch_add(1, Ordering::Relaxed) as usize;
            let (sizes, pauses) = ([0, 1, 1, 5_000, 65_536], [0, 0, 1, 5]);
            let body = Bytes::from(vec![b'x'; sizes[turn % sizes.len()]]);
            // So that some bodies come behind their heads, by less or more than the endpoint needs.
            let pause = Duration::from_millis(pauses[turn / sizes.len() % pauses.len()]);
            let late = stream::once(async move {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                body
            });
            // An empty body is no piece at all: frames of HTTP/2 without content are taken for a flood.
            Ask::post_stream("/", late.filter(|piece| ready(!piece.is_empty())))
        };
        let load = Load::asking(&edge.clients(), 8, question, |answer| {
            ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
            Ok(())
        });
        let limit = Duration::from_secs(60) + Duration::from_millis(count * 5);
        wait_for("load", limit, || (load.sent() >= count).then_some(())).await;
        let tally = load.stop().await;
        say(format!("early answers, request: {buffer}: {} right, {} wrong", tally.right, tally.errors.len()));
        tally.assert_clean();
    }
}

/// The usual front with bodies streamed and these deadlines.
fn streaming(origin: &Recorder, timeouts: &str) -> Site {
    let app = format!("servers: [{{ address: \"{}\" }}]\ntimeouts: {{ {timeouts} }}", origin.address());
    let route = "{ path: /, proxy: app, max_body: 64MiB, buffer: { request: off } }";
    Site::proxy(&app).replace("{ path: /, proxy: app }", route)
}

const PAGE: usize = 300_000;

/// The head of an answer and the beginning of its body, and the rest.
fn halves() -> [Step; 2] {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {PAGE}\r\n\r\n").into_bytes();
    let page = pattern(PAGE);
    [Step::Send([head, page[..1_000].to_vec()].concat()), Step::Send(page[1_000..].to_vec())]
}

/// An origin that begins its answer at once, pauses, ends it, and never reads a byte of a body.
async fn deaf(pause: Duration) -> Recorder {
    Recorder::start_eager(move |_| {
        let [begin, rest] = halves();
        vec![begin, Step::Pause(pause), rest, Step::Deaf]
    })
    .await
}

async fn an_endpoint_that_takes_no_more_still_answers(kind: Kind) {
    // It reads nothing for longer than a write to it may take.
    let origin = deaf(Duration::from_millis(1_500)).await;
    let edge = Edge::start(streaming(&origin, "write: 500ms, read: 20s")).await;
    let answer = edge.client(kind).ask(upload("/", 32 << 20, true).within(PATIENCE)).await;
    answer.assert(200, &pattern(PAGE));
}

async fn an_endpoint_that_neither_reads_nor_writes_is_given_up(kind: Kind) {
    let origin = Recorder::start_eager(|_| vec![halves()[0].clone(), Step::Deaf]).await;
    let edge = Edge::start(streaming(&origin, "write: 500ms, read: 500ms")).await;
    let answer = edge.client(kind).send(upload("/", 32 << 20, true).within(PATIENCE)).await;
    // A client may see its connection end before it has read the head.
    if let Ok(answer) = answer {
        assert!(!answer.is_complete() || answer.status != 200, "{kind}: {} bytes", answer.body.len());
    }
    let let_go = async || (edge.status().await["upstreams"][0]["endpoints"][0]["connections"] == 0).then_some(());
    wait_until("the endpoint to be let go", PATIENCE, let_go).await;
}

async fn an_answer_begins_while_the_upload_goes_on_and_both_end(kind: Kind) {
    // The upload takes longer than a read from the endpoint may: until it has all of it, it owes nothing.
    let origin = deaf(Duration::from_millis(2_300)).await;
    let edge = Edge::start(streaming(&origin, "write: 20s, read: 1s")).await;
    let pieces = vec![Bytes::from_static(b"piece"); 20];
    let ask = Ask::post_slowly("/", pieces, Duration::from_millis(100)).within(PATIENCE);
    edge.client(kind).ask(ask).await.assert(200, &pattern(PAGE));
}

async fn an_upload_that_stops_costs_no_byte_of_an_answer_under_way(kind: Kind) {
    for limits in ["body_idle: 500ms", "body_rate: { rate: 1KiB/s, over: 500ms }"] {
        let origin = deaf(Duration::from_millis(1_500)).await;
        let site = ["plain", "h2c", "tls"].iter().fold(streaming(&origin, "write: 20s, read: 20s"), |site, name| {
            site.replace(&format!("name: {name},"), &format!("name: {name}, timeouts: {{ {limits} }},"))
        });
        let edge = Edge::start(site).await;
        let (ask, sender) = Ask::post_channel("/");
        sender.send(Bytes::from_static(b"piece")).await.expect("the client reads");
        let answer = edge.client(kind).ask(ask.within(PATIENCE)).await;
        answer.assert(200, &pattern(PAGE));
        // The upload was open to the end.
        drop(sender);
    }
}

// Once: a client that takes nothing is a matter of its socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_arrives_whole_when_the_endpoint_falls_silent() {
    let (size, good) = (12 << 20, 10 << 20);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    let answer = [head, pattern(good)].concat();
    let origin = Recorder::start(move |_| vec![Step::Send(answer.clone()), Step::Stall]).await;
    let edge = Edge::start(streaming(&origin, "read: 500ms")).await;
    let mut reader = slow_reader(&edge, "/").await;
    // The read timeout has struck when the endpoint is let go.
    assert!(is_freed(&edge, PATIENCE).await);
    let (body, end) = reader.read_to_end(PATIENCE).await;
    assert_eq!((body.len(), end), (good, End::Closed), "a length tells that it is short");
    assert_eq!(hash(&body), hash(&pattern(good)));
}

//! An answer that was cut short at the endpoint never looks whole to a client.

use std::time::Duration;

use tidegate_tests::{
    client::{Ending, Kind},
    edge::Edge,
    every_client,
    fault::{Fault, FaultProxy, Plan},
    pattern::pattern,
    recorder::{Recorder, Step},
    site::Site,
};

every_client! {
    a_known_length_that_ends_early_is_seen,
    a_known_length_that_is_reset_is_seen,
    chunks_without_the_last_one_are_seen,
    chunks_that_are_reset_are_seen,
    a_body_that_stalls_is_cut_off_visibly,
    a_body_that_ends_by_a_reset_is_not_taken_for_its_end,
}

const BODY: usize = 40_000;

fn known_length() -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").into_bytes(), pattern(BODY)].concat()
}

fn chunked() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in pattern(BODY).chunks(9_000) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend(chunk);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

/// Cuts `answer` at a spread of places, and asks through all clients.
async fn assert_never_complete(kind: Kind, answer: Vec<u8>, fault: Fault) {
    let whole = answer.clone();
    let recorder = Recorder::start(move |_| vec![Step::Send(answer.clone())]).await;
    let proxy = FaultProxy::start(recorder.socket_address()).await;
    let app = format!(
        "servers: [{{ address: \"{}\" }}]\nidle_connections: 0\ntimeouts: {{ head: 500ms, read: 500ms }}",
        proxy.address()
    );
    let edge = Edge::start(Site::proxy(&app)).await;
    let client = edge.client(kind);
    client.get("/").await.assert(200, &pattern(BODY));
    let head = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("the answer has a head") + 4;
    let last = whole.len() - 1;
    for after in [
        0,
        1,
        head - 1,
        head,
        head + 1,
        head + 9_000,
        head + 9_003,
        head + 9_008,
        whole.len() / 2,
        last - 4,
        last - 1,
        last,
    ] {
        proxy.set(Some(Plan::answer(after, fault.clone())));
        let client = edge.client(kind);
        let Ok(answer) = client.send(tidegate_tests::client::Ask::get("/").within(Duration::from_secs(5))).await else {
            continue;
        };
        let place = format!("{fault:?} after {after} of {} over {}", whole.len(), client.kind());
        if answer.status == 200 {
            assert!(matches!(answer.ending, Ending::Cut(_)), "looks whole with {} bytes: {place}", answer.body.len());
            assert!(pattern(BODY).starts_with(&answer.body), "wrong bytes: {place}");
        } else {
            // The head alone may have been kept back for the first bytes of the body, which never came.
            assert!(after <= head + 1, "{} after bytes of the body were there: {place}", answer.status);
            assert!(answer.status == 502 || answer.status == 504, "{}: {place}", answer.status);
        }
    }
}

async fn a_known_length_that_ends_early_is_seen(kind: Kind) {
    assert_never_complete(kind, known_length(), Fault::Fin).await;
}

async fn a_known_length_that_is_reset_is_seen(kind: Kind) {
    assert_never_complete(kind, known_length(), Fault::Reset).await;
}

async fn chunks_without_the_last_one_are_seen(kind: Kind) {
    assert_never_complete(kind, chunked(), Fault::Fin).await;
}

async fn chunks_that_are_reset_are_seen(kind: Kind) {
    assert_never_complete(kind, chunked(), Fault::Reset).await;
}

async fn a_body_that_stalls_is_cut_off_visibly(kind: Kind) {
    assert_never_complete(kind, known_length(), Fault::Stall).await;
}

async fn a_body_that_ends_by_a_reset_is_not_taken_for_its_end(kind: Kind) {
    // Without a length or chunks only the way the connection ends tells.
    let steps = |_: &_| {
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf".to_vec();
        vec![Step::Send(answer), Step::Pause(Duration::from_millis(50)), Step::Reset]
    };
    let recorder = Recorder::start(steps).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    let answer = client.ask(tidegate_tests::client::Ask::get("/")).await;
    assert!(answer.status != 200 || !answer.is_complete(), "looks whole over {}: {answer:?}", client.kind());
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_request_that_ends_early_is_never_carried_out() {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    for body in [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n5\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: test.example\r\n{body}");
        let mut raw = tidegate_tests::raw::Raw::connect(edge.address("plain")).await;
        raw.send(&request).await;
        raw.finish().await;
        let (answer, _) = raw.read_to_end(Duration::from_secs(5)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{request:?} got {answer:?}");
    }
    assert!(recorder.requests().is_empty(), "{:#?}", recorder.requests());
}

//! An answer that was cut short at the endpoint never looks whole to a client.

use std::time::Duration;

use tidegate_tests::{
    client::Ending,
    edge::Edge,
    fault::{Fault, FaultProxy, Plan},
    pattern::pattern,
    recorder::{Recorder, Step},
    site::Site,
};

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
async fn assert_never_complete(answer: Vec<u8>, fault: Fault) {
    let whole = answer.clone();
    let recorder = Recorder::start(move |_| vec![Step::Send(answer.clone())]).await;
    let proxy = FaultProxy::start(recorder.socket_address()).await;
    let app = format!(
        "servers: [{{ address: \"{}\" }}]\nidle_connections: 0\ntimeouts: {{ head: 500ms, read: 500ms }}",
        proxy.address()
    );
    let edge = Edge::start(Site::proxy(&app)).await;
    for client in edge.clients() {
        client.get("/").await.assert(200, &pattern(BODY));
    }
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
        for client in edge.clients() {
            let Ok(answer) = client.send(tidegate_tests::client::Ask::get("/").within(Duration::from_secs(5))).await
            else {
                continue;
            };
            let place = format!("{fault:?} after {after} of {} over {}", whole.len(), client.kind());
            if answer.status == 200 {
                assert!(
                    matches!(answer.ending, Ending::Cut(_)),
                    "looks whole with {} bytes: {place}",
                    answer.body.len()
                );
                assert!(pattern(BODY).starts_with(&answer.body), "wrong bytes: {place}");
            } else {
                assert!(after < head, "{} after the head was there: {place}", answer.status);
                assert!(answer.status == 502 || answer.status == 504, "{}: {place}", answer.status);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_length_that_ends_early_is_seen() {
    assert_never_complete(known_length(), Fault::Fin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_length_that_is_reset_is_seen() {
    assert_never_complete(known_length(), Fault::Reset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_without_the_last_one_are_seen() {
    assert_never_complete(chunked(), Fault::Fin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_are_reset_are_seen() {
    assert_never_complete(chunked(), Fault::Reset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_is_cut_off_visibly() {
    assert_never_complete(known_length(), Fault::Stall).await;
}

#[tokio::test]
async fn a_body_that_ends_by_a_reset_is_not_taken_for_its_end() {
    // Without a length or chunks only the way the connection ends tells.
    let steps = |_: &_| {
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf".to_vec();
        vec![Step::Send(answer), Step::Pause(Duration::from_millis(50)), Step::Reset]
    };
    let recorder = Recorder::start(steps).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    for client in edge.clients() {
        let answer = client.ask(tidegate_tests::client::Ask::get("/")).await;
        assert!(answer.status != 200 || !answer.is_complete(), "looks whole over {}: {answer:?}", client.kind());
    }
}

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

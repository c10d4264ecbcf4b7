//! Requests sent behind each other without waiting, one of them bad: the ones before it are answered in order, it is refused,
//! and nothing behind it happened.

use std::time::Duration;

use tidegate_tests::{
    certificates::{HTTP1, install_crypto, trusting_client},
    connect::{self, Stream},
    drill::{amount, say, seed},
    edge::Edge,
    random::Random,
    raw::status,
    recorder::{Recorder, Seen, Step},
    site::Site,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

const REQUESTS: usize = 10;
const LIMIT: Duration = Duration::from_secs(20);

/// What stands in place of a good request: nobody may pass it on, and nobody may guess where the next one begins.
const BAD: [&str; 10] = [
    "GET /bad HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
    "GET /bad HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
    "GET /bad HTTP/1.1\nhost: a\n\n",
    "GET /bad HTTP/1.1\r\n\r\n",
    "GET /bad HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET  /bad HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /bad\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
    "POST /bad HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
];

/// One connection's worth of requests.
struct Round {
    bytes: Vec<u8>,
    /// Method and target of each that has to be answered, in order.
    good: Vec<(&'static str, String)>,
    has_bad: bool,
}

// Once: pipelining is of HTTP/1.1; plain and TLS by turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_order_until_the_bad_one() {
    rounds(100).await;
}

// Once: pipelining is of HTTP/1.1; plain and TLS by turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn answers_come_in_order_until_the_bad_one_a_thousand_times() {
    rounds(amount("TIDEGATE_DRILL_ROUNDS", 1_000)).await;
}

async fn rounds(count: usize) {
    install_crypto();
    let origin = Recorder::start(|seen: &Seen| {
        let method = seen.line().split(' ').next().unwrap_or_default();
        let body = format!("{method} {} {}", seen.target(), seen.body.len());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        vec![Step::Send(if method == "HEAD" { head } else { head + &body }.into_bytes())]
    })
    .await;
    let edge = Edge::start(Site::proxy_to(origin.address()).replace("[localhost, ", "[a, localhost, ")).await;
    let seed = seed();
    let mut bad = 0;
    for number in 0..count {
        let mut random = Random::of(seed, number as u64);
        let place = format!("round {number} of seed {seed}");
        let round = round(&mut random, number);
        bad += usize::from(round.has_bad);
        let read = converse(&edge, number % 2 == 1, &round.bytes, &mut random).await;
        check(&round, &read).unwrap_or_else(|problem| panic!("{place}: {problem}"));
        let seen: Vec<_> = origin.requests().iter().map(|seen| seen.target().to_owned()).collect();
        let good: Vec<_> = round.good.iter().map(|(_, target)| target.clone()).collect();
        let (mut sorted, mut meant) = (seen, good);
        sorted.sort();
        meant.sort();
        assert_eq!(sorted, meant, "{place}: what arrived");
        origin.forget();
    }
    say(format!("{count} rounds of {REQUESTS} requests, {bad} with a bad one, seed {seed}"));
}

fn round(random: &mut Random, number: usize) -> Round {
    // One in eleven rounds has none.
    let bad = random.within(0..REQUESTS + 1);
    let mut round = Round { bytes: Vec::new(), good: Vec::new(), has_bad: bad < REQUESTS };
    for index in 0..REQUESTS {
        if index == bad {
            round.bytes.extend_from_slice(random.one_of(&BAD).as_bytes());
            continue;
        }
        let length = *random.one_of(&[0, 1, 30, 3_000, 20_000]);
        let method = *random.one_of(&["GET", "HEAD", "POST", "PUT"]);
        let target = format!("/{number}/{index}/{length}");
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: a\r\n");
        // What a body holds looks like a request, for whoever loses count.
        let body = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1 + length / 30);
        match method {
            "GET" | "HEAD" => text += "\r\n",
            _ if random.chance(50) => text += &format!("content-length: {length}\r\n\r\n{}", &body[..length]),
            _ if length == 0 => text += "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            _ => text += &format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n", &body[..length]),
        }
        round.bytes.extend_from_slice(text.as_bytes());
        if index < bad {
            round.good.push((method, target));
        }
    }
    if !round.has_bad {
        round.bytes.extend_from_slice(b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        round.good.push(("GET", "/last".to_owned()));
    }
    round
}

/// Sends all of it, in pieces cut anywhere, and reads to the end.
async fn converse(edge: &Edge, on_tls: bool, bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut stream: Box<dyn Stream> = if on_tls {
        Box::new(connect::tls(edge.address("tls"), "localhost", trusting_client(&[HTTP1])).await.expect("TLS"))
    } else {
        Box::new(connect::tcp(edge.address("plain")).await.expect("a connection"))
    };
    let cut = random.within(0..bytes.len());
    for piece in [&bytes[..cut], &bytes[cut..]] {
        // A refusal may come before everything is sent.
        let _ = timeout(LIMIT, stream.write_all(piece)).await;
        let _ = timeout(LIMIT, stream.flush()).await;
    }
    let mut read = Vec::new();
    let reading = timeout(LIMIT, stream.read_to_end(&mut read)).await;
    assert!(reading.is_ok(), "still open after {LIMIT:?}: {}", String::from_utf8_lossy(&read));
    read
}

/// Whether what came are the answers that were due, in order, and a refusal where one was due.
fn check(round: &Round, read: &[u8]) -> Result<(), String> {
    let mut rest = read;
    for (method, target) in &round.good {
        let (head, body) = take_answer(&mut rest, *method == "HEAD")?;
        let wanted = format!("{method} {target} ");
        let is_own = *method == "HEAD" || body.starts_with(&wanted);
        if status(&head) != 200 || !is_own {
            return Err(format!("{wanted} got {head}{body}"));
        }
    }
    if round.has_bad {
        let (head, _) = take_answer(&mut rest, false)?;
        let closes = head.to_lowercase().contains("connection: close");
        if !(400..=501).contains(&status(&head)) || !closes || !head.contains("x-tidegate-reason") {
            return Err(format!("the bad one got {head}"));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("and then came {}", String::from_utf8_lossy(rest))) }
}

/// The answer at the front of `rest`, head and body.
fn take_answer(rest: &mut &[u8], bodiless: bool) -> Result<(String, String), String> {
    let text = String::from_utf8_lossy(rest).into_owned();
    let end = text.find("\r\n\r\n").ok_or_else(|| format!("no head in {text:?}"))? + 4;
    let length = tidegate_tests::raw::field(&text[..end], "content-length").and_then(|value| value.parse().ok());
    let length = if bodiless { 0 } else { length.unwrap_or(0) };
    let body = text.get(end..end + length).ok_or_else(|| format!("a body cut short: {text:?}"))?;
    *rest = &rest[end + length..];
    Ok((text[..end].to_owned(), body.to_owned()))
}

//! A check by a request, over HTTP/1.1 or HTTP/2: its status, and perhaps what its body has.

use crate::edge::socket::Socket;
use crate::upstream::link::Link;
use bytes::{Buf, BytesMut};
use http::{Request, Response};
use std::future::poll_fn;
use tidegate_config::model::{HttpCheck, ValuePattern};
use tidegate_http1::{Asked, BodyDecoder, HeadLimits, HeadWriter, ParsePolicy, ResponseFraming, ResponseHead};

/// Most of a body that is looked at.
const MOST_BODY: usize = 64 * 1024;
const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " health check");
/// Interim answers before the answer proper.
const MOST_INTERIM: usize = 8;

/// Asks over HTTP/1.1; why the answer is not what it should be.
pub(super) async fn http1(mut link: Link, check: &HttpCheck, host: &str) -> Result<(), String> {
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line(&check.method, &check.path);
    for (name, value) in fields(check, host) {
        writer.field(name, value);
    }
    writer.field("connection", "close");
    writer.end();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let count = poll_fn(|cx| link.poll_write(cx, rest)).await.map_err(|error| format!("request: {error}"))?;
        rest = &rest[count..];
    }
    let mut read = BytesMut::new();
    let (status, framing) = head(&mut link, &mut read, check).await?;
    judge_status(status, check)?;
    match &check.body {
        Some(pattern) => judge_body(&body(&mut link, &mut read, framing).await?, pattern),
        None => Ok(()),
    }
}

/// Host and the like, and what the file adds.
fn fields<'a>(check: &'a HttpCheck, host: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let given = |name: &str| check.headers.iter().any(|(known, _)| known == name);
    let host = (!given("host")).then_some(("host", check.host.as_deref().unwrap_or(host)));
    let agent = (!given("user-agent")).then_some(("user-agent", AGENT));
    let more = check.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    host.into_iter().chain(agent).chain(more)
}

async fn fill(link: &mut Link, read: &mut BytesMut) -> Result<usize, String> {
    read.reserve(4096);
    poll_fn(|cx| link.poll_read_buf(cx, read)).await.map_err(|error| format!("answer: {error}"))
}

/// Reads up to the end of the answer's head.
async fn head(link: &mut Link, read: &mut BytesMut, check: &HttpCheck) -> Result<(u16, ResponseFraming), String> {
    let asked = if check.method == "HEAD" { Asked::Head } else { Asked::Other };
    let mut parsed = ResponseHead::new();
    let mut interim = 0;
    loop {
        match parsed.parse(read, &HeadLimits::default(), asked, ParsePolicy::Strict) {
            Ok(Some(length)) if parsed.is_informational() && interim < MOST_INTERIM => {
                interim += 1;
                read.advance(length);
                parsed.clear();
            }
            Ok(Some(length)) => {
                let found = (parsed.status(), parsed.framing());
                read.advance(length);
                return Ok(found);
            }
            Ok(None) => {
                if fill(link, read).await? == 0 {
                    return Err("closed before it answered".to_owned());
                }
            }
            Err(error) => return Err(format!("answer: {error}")),
        }
    }
}

/// The body, as far as it is looked at.
async fn body(link: &mut Link, read: &mut BytesMut, framing: ResponseFraming) -> Result<Vec<u8>, String> {
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Vec::new();
    while !decoder.is_done() && body.len() < MOST_BODY {
        if read.is_empty() && fill(link, read).await? == 0 {
            return decoder.finish_eof().map(|_| body).map_err(|error| format!("answer: {error}"));
        }
        let found = decoder.decode(read).map_err(|error| format!("answer: {error}"))?;
        body.extend_from_slice(&read[found.data.clone()]);
        read.advance(found.consumed);
    }
    body.truncate(MOST_BODY);
    Ok(body)
}

/// Asks over HTTP/2.
pub(super) async fn http2(socket: Socket, check: &HttpCheck, host: &str) -> Result<(), String> {
    let authority = check.host.as_deref().unwrap_or(host);
    let mut request = Request::builder().method(check.method.as_str()).uri(format!("http://{authority}{}", check.path));
    for (name, value) in fields(check, host).filter(|(name, _)| *name != "host") {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| format!("request: {error}"))?;
    exchange(socket, request, None, async |response| {
        judge_status(response.status().as_u16(), check)?;
        let Some(pattern) = &check.body else { return Ok(()) };
        let mut body = Vec::new();
        let mut stream = response.into_body();
        while let Some(data) = stream.data().await {
            let data = data.map_err(|error| format!("answer: {error}"))?;
            // A window that stays shut is no concern: what is looked at fits into the first one.
            body.extend_from_slice(&data);
            if body.len() >= MOST_BODY {
                body.truncate(MOST_BODY);
                break;
            }
        }
        judge_body(&body, pattern)
    })
    .await
}

/// One request on a connection of its own; `look` takes the answer.
pub(super) async fn exchange(
    socket: Socket,
    request: Request<()>,
    body: Option<bytes::Bytes>,
    look: impl AsyncFnOnce(Response<h2::RecvStream>) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: h2::Error| format!("answer: {error}");
    let mut builder = h2::client::Builder::new();
    // The window of the connection bounds what a stream may send too, and is smaller by default.
    let window = 2 * MOST_BODY as u32;
    builder.initial_window_size(window).initial_connection_window_size(window).max_header_list_size(32 * 1024);
    let (mut sender, connection) = builder.handshake::<_, bytes::Bytes>(socket).await.map_err(told)?;
    let asking = async {
        sender = sender.ready().await.map_err(told)?;
        let (answer, mut stream) = sender.send_request(request, body.is_none()).map_err(told)?;
        if let Some(body) = body {
            stream.send_data(body, true).map_err(told)?;
        }
        look(answer.await.map_err(told)?).await
    };
    tokio::select! {
        result = asking => result,
        ended = connection => Err(match ended {
            Ok(()) => "closed before it answered".to_owned(),
            Err(error) => format!("answer: {error}"),
        }),
    }
}

fn judge_status(status: u16, check: &HttpCheck) -> Result<(), String> {
    let well = check.statuses.iter().any(|range| range.contains(&status));
    if well { Ok(()) } else { Err(format!("status {status}")) }
}

fn judge_body(body: &[u8], pattern: &ValuePattern) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let found = match pattern {
        ValuePattern::Present => !text.is_empty(),
        ValuePattern::Exact(part) => text.contains(part.as_str()),
        ValuePattern::Regex(regex) => regex.is_match(&text),
    };
    if found { Ok(()) } else { Err("the body has not what it should have".to_owned()) }
}

//! What each path answers. One flat list; a new path is one line in [`answer`] and one function.

use std::{
    future, hint,
    process::{abort, exit},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    app::App,
    body::Body,
    flood::{self, Flood},
    number::{self, Number, OutOfRange},
    page,
    server::Session,
    websocket,
};

/// Answers one request.
pub(crate) async fn answer(app: &App, session: &Session, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query();
    let answered = match request.uri().path() {
        "/tiny" => Ok(constant(Bytes::from_static(b"hello, world\n"))),
        "/10k" => Ok(constant(app.ten_kib.clone())),
        "/1m" => Ok(constant(app.one_mib.clone())),
        "/" => Ok(who(app, &request)),
        "/healthz" => Ok(text("ok\n")),
        "/count" => Ok(json(StatusCode::OK, &json!({ "count": app.served(), "pid": app.identity.pid }))),
        "/slow" => slow(app, query).await,
        "/cpu" => cpu(app, query),
        "/bytes" => N_BYTES.read(query).map(|length| typed(OCTETS, Body::pattern(length))),
        "/stream" => stream(query, request.headers()),
        "/echo" => Ok(echo(request)),
        "/ws" => Ok(websocket::upgrade(session, request)),
        "/crash" => crash(query),
        "/hang" => future::pending().await,
        "/leak" => leak(app, query),
        "/log" => log(query).await,
        path => match path.strip_prefix("/status/") {
            Some(code) => Ok(status(code)),
            None => Ok(unknown(path)),
        },
    };
    answered.unwrap_or_else(|refused| problem(StatusCode::BAD_REQUEST, &refused.to_string()))
}

fn constant(bytes: Bytes) -> Response<Body> {
    typed(TEXT, Body::whole(bytes))
}

/// `/`: who served the request, and what arrived of it.
fn who(app: &App, request: &Request<Incoming>) -> Response<Body> {
    let facts = facts(app, request);
    if accepts(request.headers(), "text/html") {
        typed(HTML, Body::whole(page::render(&facts)))
    } else {
        json(StatusCode::OK, &facts)
    }
}

fn facts(app: &App, request: &Request<Incoming>) -> Value {
    let headers =
        request.headers().iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    json!({
        "pid": app.identity.pid,
        "slot": app.identity.slot,
        "generation": app.identity.generation,
        "served": app.served(),
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "version": format!("{:?}", request.version()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// `/slow?ms=`: waits without using the CPU, as a handler that awaits a database does.
async fn slow(app: &App, query: Option<&str>) -> Result<Response<Body>, OutOfRange> {
    let ms = Number { name: "ms", default: 1_000, most: 600_000 }.read(query)?;
    sleep(Duration::from_millis(ms)).await;
    Ok(json(StatusCode::OK, &json!({ "slept_ms": ms, "pid": app.identity.pid })))
}

/// `/cpu?ms=`: burns this much CPU time of the thread, and so blocks everything else on it.
fn cpu(app: &App, query: Option<&str>) -> Result<Response<Body>, OutOfRange> {
    let ms = Number { name: "ms", default: 100, most: 60_000 }.read(query)?;
    let end = thread_cpu_time() + Duration::from_millis(ms);
    let mut sum: u64 = 0;
    while thread_cpu_time() < end {
        for number in 0..1_000 {
            sum = hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
    Ok(json(StatusCode::OK, &json!({ "burnt_ms": ms, "pid": app.identity.pid })))
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `/stream?n=&ms=`: `n` lines, `ms` apart; as server-sent events for who accepts those.
fn stream(query: Option<&str>, headers: &HeaderMap) -> Result<Response<Body>, OutOfRange> {
    let count = Number { name: "n", default: 10, most: 1_000_000 }.read(query)?;
    let pause = Duration::from_millis(Number { name: "ms", default: 100, most: 60_000 }.read(query)?);
    if accepts(headers, "text/event-stream") {
        let mut response =
            typed(EVENTS, Body::lines(count, pause, |line| format!("id: {line}\ndata: line {line}\n\n")));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(response);
    }
    Ok(typed(TEXT, Body::lines(count, pause, |line| format!("line {line}\n"))))
}

/// `/echo`: the request's body back, as it comes, under its own content type.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Body::echo(body));
    let content_type = head.headers.get(CONTENT_TYPE).cloned().unwrap_or_else(|| HeaderValue::from_static(OCTETS));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// `/crash`: ends the process at once, with status 134 or (`?how=abort`) by SIGABRT.
fn crash(query: Option<&str>) -> Result<Response<Body>, OutOfRange> {
    match number::value(query, "how") {
        Some("abort") => abort(),
        _ => exit(134),
    }
}

/// `/leak?mb=`: memory that is never given back.
fn leak(app: &App, query: Option<&str>) -> Result<Response<Body>, OutOfRange> {
    let mib = Number { name: "mb", default: 1, most: 1_024 }.read(query)?;
    let held = app.leak(mib)?;
    Ok(json(StatusCode::OK, &json!({ "leaked_mib": held, "pid": app.identity.pid })))
}

/// `/log?mb=&ms=`: prints so many MiB of lines each second for this long, beside whatever else it does.
async fn log(query: Option<&str>) -> Result<Response<Body>, OutOfRange> {
    let mib = Number { name: "mb", default: 1, most: 1_024 }.read(query)?;
    let time = Duration::from_millis(Number { name: "ms", default: 100, most: 60_000 }.read(query)?);
    let flood = spawn_blocking(move || flood::print(mib, time)).await;
    Ok(match flood {
        Ok(Flood { lines, elapsed }) => {
            json(StatusCode::OK, &json!({ "lines": lines, "ms": elapsed.as_millis() as u64 }))
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    })
}

/// `/status/<code>`: an answer with that status, with a body where one is allowed (RFC 9110 sections 15.3.5 and 15.4.5).
fn status(code: &str) -> Response<Body> {
    let code =
        code.parse().ok().filter(|code| (200..=599).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    match code {
        Some(code @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)) => {
            let mut response = Response::new(Body::whole(""));
            *response.status_mut() = code;
            response
        }
        Some(code) => {
            let mut response = text(format!("status {}\n", code.as_u16()));
            *response.status_mut() = code;
            response
        }
        None => problem(StatusCode::BAD_REQUEST, "the status must be a number from 200 to 599"),
    }
}

fn unknown(path: &str) -> Response<Body> {
    json(StatusCode::NOT_FOUND, &json!({ "error": "nothing is served under this path", "path": path, "paths": PATHS }))
}

pub(crate) fn problem(status: StatusCode, message: &str) -> Response<Body> {
    json(status, &json!({ "error": message }))
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = typed(JSON, Body::whole(format!("{value}\n")));
    *response.status_mut() = status;
    response
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    typed(TEXT, Body::whole(text))
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Whether the client names this type; `*/*` is no wish for anything.
fn accepts(headers: &HeaderMap, content_type: &str) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(content_type))
}

/// What the page of `/` links to and a 404 lists.
pub(crate) const PATHS: [&str; 17] = [
    "/",
    "/slow?ms=",
    "/cpu?ms=",
    "/bytes?n=",
    "/stream?n=&ms=",
    "/echo",
    "/ws",
    "/status/<code>",
    "/crash",
    "/hang",
    "/leak?mb=",
    "/log?mb=&ms=",
    "/healthz",
    "/count",
    "/tiny",
    "/10k",
    "/1m",
];

const N_BYTES: Number = Number { name: "n", default: 1 << 10, most: 1 << 32 };

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const OCTETS: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn status_answers_final_codes_only() {
        for (code, expected) in
            [("200", 200), ("204", 204), ("404", 404), ("599", 599), ("101", 400), ("x", 400), ("", 400)]
        {
            assert_eq!(status(code).status().as_u16(), expected, "{code}");
        }
    }

    #[tokio::test]
    async fn answers_without_a_body_have_none() {
        for code in ["204", "304"] {
            let body = status(code).into_body().collect().await.expect("a body");
            assert!(body.to_bytes().is_empty(), "{code}");
        }
    }

    #[test]
    fn cpu_burns_what_it_says() {
        let before = thread_cpu_time();
        let app = App::new(crate::app::Identity { pid: 1, slot: None, generation: None });
        assert!(cpu(&app, Some("ms=20")).is_ok());
        let burnt = thread_cpu_time() - before;
        assert!((20..200).contains(&burnt.as_millis()), "{burnt:?}");
    }

    #[test]
    fn events_are_for_who_asks_for_them() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let content_type = |headers: &HeaderMap| {
            let response = stream(Some("n=1"), headers).expect("a correct query");
            response.headers()[CONTENT_TYPE].clone()
        };
        assert_eq!(content_type(&headers), TEXT);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        assert_eq!(content_type(&headers), EVENTS);
    }
}

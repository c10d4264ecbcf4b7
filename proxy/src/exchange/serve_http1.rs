//! A client's HTTP/1.1 connection: one request after another.

use super::downstream::Downstream;
use super::downstream::http1::{After, Http1Downstream, RequestTraits};
use super::driver::{Account, Driven, Driver, send_own};
use super::engine;
use super::failure;
use super::fields::RequestFields;
use super::finish::{self, Bytes, Finished};
use super::parsing;
use super::tunnel;
use crate::edge::accept::{Origin, turned};
use crate::edge::conn::Conn;
use crate::edge::handshake::{FIRST_BYTES_GRACE, closed_for};
use crate::edge::listener::Settings;
use crate::edge::shard::{Shard, View};
use crate::edge::timer::Timer;
use bytes::BytesMut;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tidegate_http1::{BodyDecoder, BodyFraming, HeadLimits, RequestHead, Upgrade, Version};
use tidegate_traffic::{BodyLength, Client, Exchange, HeadView, Host, HttpVersion, Refusal, RefusalKind, Target};
use tokio::sync::watch;

/// How long a connection waits before it is stripped to what waiting needs: no buffers, no frames of a request.
const QUIET: Duration = Duration::from_secs(1);

/// What came of waiting for a request.
enum Arrival {
    /// A head of this length stands at the front of the buffer.
    Head(usize),
    /// Nothing has come for a while; what is waited for may still come until then.
    Quiet(tokio::time::Instant),
    /// Nothing more will come, and nothing is owed.
    Over,
    /// To be answered, then closed.
    Refused(Refusal),
}

/// Serves a connection to its end. Its future is what an idle connection costs, so all that requests need lives in a
/// box of its own, which is dropped while nothing comes.
pub(crate) async fn serve_http1(mut resting: Box<Resting>) {
    loop {
        match Box::pin(Session::wake(resting)).await {
            Some(quiet) => resting = quiet,
            None => return,
        }
        if !resting.wait().await {
            return Box::pin(resting.conn.close_idle()).await;
        }
    }
}

/// A connection on which nothing is under way.
pub(crate) struct Resting {
    conn: Conn,
    origin: Origin,
    shard: Arc<Shard>,
    settings: Arc<Settings>,
    client: Option<Arc<Client>>,
    closing: watch::Receiver<bool>,
    /// No request has come yet.
    first: bool,
    /// When the wait for the next request is over, if it began already.
    until: Option<tokio::time::Instant>,
}

impl Resting {
    /// A connection whose first request is to come; by `until`, where that has begun to come already.
    pub(crate) fn new(
        conn: Conn,
        until: Option<tokio::time::Instant>,
        origin: Origin,
        shard: Arc<Shard>,
        settings: Arc<Settings>,
    ) -> Box<Self> {
        let closing = origin.listener.closing();
        Box::new(Self { conn, origin, shard, settings, client: None, closing, first: true, until })
    }

    /// Waits with next to nothing in memory; false when the time is over or the listener closes.
    async fn wait(&mut self) -> bool {
        self.conn.strip();
        let Some(until) = self.until else { return true };
        let conn = &mut self.conn;
        tokio::select! {
            biased;
            () = poll_fn(|cx| conn.poll_readable(cx)) => true,
            () = tokio::time::sleep_until(until) => false,
            // A connection that rests is older than the moment that new ones get.
            () = turned(&mut self.closing) => false,
        }
    }
}

struct Session {
    origin: Origin,
    shard: Arc<Shard>,
    settings: Arc<Settings>,
    limits: HeadLimits,
    head: RequestHead,
    timer: Timer,
    out: BytesMut,
    client: Option<Arc<Client>>,
    closing: watch::Receiver<bool>,
    first: bool,
    until: Option<tokio::time::Instant>,
}

impl Session {
    /// Serves requests until none comes for a while, which gives the connection back, or to the connection's end.
    async fn wake(resting: Box<Resting>) -> Option<Box<Resting>> {
        let Resting { mut conn, origin, shard, settings, client, closing, first, until } = *resting;
        let limits = HeadLimits {
            bytes: settings.head_limits.bytes,
            fields: settings.head_limits.fields,
            target: settings.head_limits.target,
        };
        let (head, timer, out) = (RequestHead::new(), Timer::default(), BytesMut::new());
        let mut session = Self { origin, shard, settings, limits, head, timer, out, client, closing, first, until };
        loop {
            let after = match session.next_head(&mut conn).await {
                Arrival::Quiet(until) => return Some(session.rest(conn, until)),
                Arrival::Over => {
                    Box::pin(conn.close_idle()).await;
                    return None;
                }
                Arrival::Refused(refusal) => {
                    let seen = (session.head.method(&conn.read_buffer), session.head.target(&conn.read_buffer));
                    let (method, target) = (seen.0.to_owned(), seen.1.to_owned());
                    Box::pin(session.refuse(&mut conn, &refusal, (&method, &target))).await
                }
                Arrival::Head(length) => {
                    let (served, after) = session.exchange(conn, length).await?;
                    conn = served;
                    after
                }
            };
            match after {
                After::KeepAlive => {}
                After::Done => {
                    Box::pin(conn.close_idle()).await;
                    return None;
                }
                After::Close => {
                    Box::pin(conn.close()).await;
                    return None;
                }
                After::Reset => {
                    conn.reset();
                    return None;
                }
            }
        }
    }

    fn rest(self, conn: Conn, until: tokio::time::Instant) -> Box<Resting> {
        let Self { origin, shard, settings, client, closing, first, .. } = self;
        Box::new(Resting { conn, origin, shard, settings, client, closing, first, until: Some(until) })
    }

    /// Waits for the next request head under its deadlines: idle until its first byte, then the head's own.
    async fn next_head(&mut self, conn: &mut Conn) -> Arrival {
        let timeouts = self.settings.timeouts;
        let begun = tokio::time::Instant::now();
        // Of a connection that has just been made the request may be on its way.
        let (idle, grace) =
            if self.first { (timeouts.head, FIRST_BYTES_GRACE) } else { (timeouts.idle, Duration::ZERO) };
        let mut started = !conn.read_buffer.is_empty();
        let until = self.until.take();
        let idle_until = until.unwrap_or(begun + idle);
        let mut deadline = if started { until.unwrap_or(begun + timeouts.head) } else { idle_until.min(begun + QUIET) };
        self.head.clear();
        loop {
            if started {
                match self.head.parse(&conn.read_buffer, &self.limits, parsing::policy(self.settings.parsing)) {
                    Ok(Some(length)) => {
                        self.first = false;
                        return Arrival::Head(length);
                    }
                    Ok(None) => {}
                    Err(error) => return Arrival::Refused(failure::of_request_error(&error)),
                }
            }
            let timer = &mut self.timer;
            let filled = poll_fn(|cx| match conn.poll_fill(cx) {
                Poll::Ready(filled) => Poll::Ready(Some(filled)),
                Poll::Pending if timer.poll_expired(cx, deadline) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let filled = tokio::select! {
                biased;
                filled = filled => filled,
                // A request that has begun is still served; a connection that only waits is closed.
                () = closed_for(&mut self.closing, grace), if !started => return Arrival::Over,
            };
            match filled {
                Some(Ok(0)) | Some(Err(_)) => return Arrival::Over,
                Some(Ok(_)) if !started => {
                    started = true;
                    deadline = tokio::time::Instant::now() + timeouts.head;
                }
                Some(Ok(_)) => {}
                None if started => {
                    let detail = "request head not complete in time";
                    return Arrival::Refused(Refusal::new(RefusalKind::ClientHeadTimeout, detail));
                }
                None if deadline < idle_until => return Arrival::Quiet(idle_until),
                None => return Arrival::Over,
            }
        }
    }

    /// Answers something that never became a request; `seen` is as much of its method and target as was understood.
    async fn refuse(&mut self, conn: &mut Conn, refusal: &Refusal, seen: (&str, &str)) -> After {
        let view = self.shard.view();
        let id = self.shard.ids.next();
        let own = failure::response(refusal, failure::Form::Text, None, id, SystemTime::now());
        let traits = RequestTraits { version: Version::Http11, keep_alive: false, expect_continue: false };
        let decoder = BodyDecoder::new(BodyFraming::None);
        let out = std::mem::take(&mut self.out);
        let mut down = Http1Downstream::new(conn, out, traits, decoder, &self.settings, self.closing.clone());
        // A client that does not take the answer is closed all the same.
        let _ = send_own(&mut down, &own, seen.0 == "HEAD").await;
        let seen = (seen.0, seen.1, "HTTP/1.1");
        finish::unparsed(&self.shard, &view, &self.origin, refusal, (own.status, down.bytes_out()), seen, id);
        After::Close
    }

    /// Serves the request whose head stands at the front of the buffer. `None`: the connection is gone.
    async fn exchange(&mut self, mut conn: Conn, length: usize) -> Option<(Conn, After)> {
        let started = Instant::now();
        let view = self.shard.view();
        self.place_client(&view);
        let head_bytes = conn.read_buffer.split_to(length);
        // Taken for the time of the exchange, so that the request can borrow it beside the connection.
        let head = std::mem::take(&mut self.head);
        let served = self.exchange_with(conn, &head, head_bytes, view, started).await;
        self.head = head;
        served
    }

    /// The client as the current snapshot numbers its listener.
    fn place_client(&mut self, view: &View) {
        let listener = view.listener_id(self.origin.listener.key);
        if self.client.as_ref().is_none_or(|client| client.listener() != listener) {
            self.client = Some(Arc::new(self.origin.client(listener)));
        }
    }

    async fn exchange_with(
        &mut self,
        mut conn: Conn,
        head: &RequestHead,
        head_bytes: BytesMut,
        view: Arc<View>,
        started: Instant,
    ) -> Option<(Conn, After)> {
        let client = self.client.clone()?;
        let parsed = match parse(head, &head_bytes) {
            Ok(parsed) => parsed,
            Err(refusal) => {
                let seen = (head.method(&head_bytes), head.path_and_query(&head_bytes));
                let after = Box::pin(self.refuse(&mut conn, &refusal, seen)).await;
                return Some((conn, after));
            }
        };
        let fields = RequestFields { head, bytes: &head_bytes };
        let named = self.origin.named_client(&self.settings, &client, &fields);
        let request = parsed.view(&fields, named.as_ref().unwrap_or(&client));
        let traits = traits(head);
        let out = std::mem::take(&mut self.out);
        let decoder = BodyDecoder::new(head.framing());
        let mut down = Http1Downstream::new(&mut conn, out, traits, decoder, &self.settings, self.closing.clone());
        let mut exchange = Exchange::new(self.shard.ids.next(), started);
        let mut account = Account::default();
        let driver = Driver {
            shard: &self.shard,
            view: &view,
            exchange: &mut exchange,
            request,
            down: &mut down,
            account: &mut account,
        };
        let driven = driver.run().await;
        let finished = Finished { shard: &self.shard, origin: &self.origin, started };
        match driven {
            Driven::Done => {
                let bytes = Bytes { received: down.bytes_in(), sent: down.bytes_out() };
                finished.record(&view, &exchange, &request, &account, bytes);
                // What is left of the upload is not under way any more.
                drop(exchange);
                if down.owes_body() {
                    Box::pin(down.drain_body()).await;
                }
                let (after, out) = down.end();
                self.out = out;
                Some((conn, after))
            }
            Driven::Tunnel(mut up) => {
                let out = down.into_unsent();
                let labels = finished.labels(&view, &exchange, &request);
                // A tunnel must not keep an old configuration alive.
                drop(view);
                let lease = exchange.take_tunnel();
                let tunnelled = self.shard.shared.ending.tunnel();
                let tunnel = tunnel::run(&mut conn, out, &mut up, self.settings.timeouts.tunnel_idle);
                let passed = Box::pin(tunnel).await;
                drop(tunnelled);
                drop(lease);
                labels.record(&self.shard, &account, passed);
                Some((conn, After::Close))
            }
            Driven::Engine(attempt) => {
                self.out = down.into_unsent();
                let job = engine::Job::new(&finished, view, exchange, &request, account, attempt);
                Box::pin(self.hand_over(conn, head, &head_bytes, Box::new(job))).await
            }
        }
    }

    /// Has the engine serve a request whose head was taken from the connection's buffer.
    async fn hand_over(
        &self,
        mut conn: Conn,
        head: &RequestHead,
        head_bytes: &[u8],
        job: Box<engine::Job>,
    ) -> Option<(Conn, After)> {
        let rest = split_body(&mut conn.read_buffer, head.framing());
        // The engine reads the head again: put it back in front of what follows it, in the form that leaves nothing to
        // its own leniency.
        let mut front = BytesMut::with_capacity(head_bytes.len());
        head.write(head_bytes, &mut front);
        front.unsplit(conn.read_buffer.split());
        conn.read_buffer = front;
        let keep_alive = head.keep_alive();
        let handed = engine::Handed { keep_alive, expect_continue: head.expect_continue() };
        let mut conn = engine::serve_http1(&self.shard, conn, *job, &self.settings, &self.closing, handed).await?;
        conn.read_buffer.unsplit(rest);
        Some((conn, if keep_alive { After::KeepAlive } else { After::Close }))
    }
}

/// Takes out of a buffer what follows a body that lies in it whole: bytes of later requests. A chunked body keeps
/// everything, since only its decoder knows its end.
fn split_body(buffer: &mut BytesMut, framing: BodyFraming) -> BytesMut {
    let body = match framing {
        BodyFraming::None => 0,
        BodyFraming::Length(length) => usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len()),
        BodyFraming::Chunked => buffer.len(),
    };
    buffer.split_off(body)
}

/// The parts of a head that have a canonical form.
struct Parsed<'b> {
    target: Target<'b>,
    host: Option<Host<'b>>,
}

impl<'b> Parsed<'b> {
    /// The request as decisions see it.
    fn view(&'b self, fields: &'b RequestFields<'b>, client: &'b Client) -> HeadView<'b> {
        let RequestFields { head, bytes } = fields;
        HeadView {
            method: head.method(bytes),
            raw_target: head.path_and_query(bytes),
            target: &self.target,
            host: self.host.as_ref(),
            version: version(head.version()),
            fields,
            upgrade: head.upgrade(bytes) == Upgrade::WebSocket,
            body: body_length(head.framing()),
            client,
        }
    }
}

fn traits(head: &RequestHead) -> RequestTraits {
    RequestTraits { version: head.version(), keep_alive: head.keep_alive(), expect_continue: head.expect_continue() }
}

fn parse<'b>(head: &RequestHead, bytes: &'b [u8]) -> Result<Parsed<'b>, Refusal> {
    let target = Target::parse(head.path_and_query(bytes))?;
    let host = head.host(bytes).map(Host::parse).transpose()?;
    Ok(Parsed { target, host })
}

const fn version(version: Version) -> HttpVersion {
    match version {
        Version::Http10 => HttpVersion::Http10,
        Version::Http11 => HttpVersion::Http11,
    }
}

const fn body_length(framing: BodyFraming) -> BodyLength {
    match framing {
        BodyFraming::None => BodyLength::None,
        BodyFraming::Length(length) => BodyLength::Known(length),
        BodyFraming::Chunked => BodyLength::Unknown,
    }
}

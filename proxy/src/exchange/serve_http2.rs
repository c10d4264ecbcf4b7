//! A client's HTTP/2 connection: the engine's session, our accept loop, limits and exchanges.

use super::downstream::Downstream;
use super::downstream::http2::Http2Downstream;
use super::downstream::memory::SharedMemory;
use super::driver::{Account, Driven, Driver};
use super::engine;
use super::failure::{self, Form};
use super::finish::{self, Bytes, Finished};
use super::parsing;
use crate::edge::accept::Origin;
use crate::edge::conn::Conn;
use crate::edge::gathered::Turn;
use crate::edge::handshake::{FIRST_BYTES_GRACE, closed_for};
use crate::edge::listener::Settings;
use crate::edge::shard::{Shard, View};
use crate::edge::timer::Timer;
use bytes::Bytes as Data;
use futures_util::task::AtomicWaker;
use h2::Reason;
use h2::server::Connection;
use http::HeaderMap;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, GetSocketDigest as _, Stream};
use std::future::{Future as _, poll_fn};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tidegate_config::model::HeadLimits;
use tidegate_http1::{ParsePolicy, admit_field};
use tidegate_traffic::stream_budget::{StreamBudget, Waste};
use tidegate_traffic::{BodyLength, Exchange, HeadView, Host, HttpVersion, Refusal, RefusalKind, Target};

/// Decoded bytes of a header list, names, values and 32 for each field, before it is ours to judge.
const HEADER_LIST: usize = 64 * 1024;
/// Bytes of answers that the session may hold for a connection, and for one stream of it: a client grants windows
/// without limit and reads nothing. A stream is given enough for its frames to be whole ones.
const HELD_ANSWERS: usize = 2 * 1024 * 1024;
const HELD_BY_STREAM: RangeInclusive<usize> = 16 * 1024..=64 * 1024;
/// Bytes that streams may have read ahead of their client besides, beyond the one read of 16 KiB that each may.
const SHARED_MEMORY: usize = HELD_ANSWERS / 4;
/// What a proxy may break off for its clients, in allowances of one client.
const RESETS_OF_MANY: u32 = 10;
/// What a client has to take leave: an idle connection is closed in order, a hostile one told why.
const FAREWELL: Duration = Duration::from_secs(5);
const CALM_FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection to its end.
pub(crate) async fn serve_http2(mut conn: Conn, origin: Origin, shard: Arc<Shard>, settings: Arc<Settings>) {
    let socket_digest = conn.get_socket_digest();
    let turn = conn.gather();
    let digest = Digest { ssl_digest: None, timing_digest: Vec::new(), proxy_digest: None, socket_digest };
    let mut closing = origin.listener.closing();
    let greeted = tokio::select! {
        biased;
        greeted = handshake(Box::new(conn), Some(options(&settings))) => greeted,
        // A listener that closes need not wait for a client that has not begun.
        () = closed_for(&mut closing, FIRST_BYTES_GRACE) => return,
    };
    let connection = match greeted {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(listener = %settings.name, peer = ?origin.peer, %error, "no HTTP/2 connection");
            return;
        }
    };
    let streams = Streams {
        shard,
        budget: Mutex::new(StreamBudget::new(allowed_resets(&settings, &origin))),
        indebted: AtomicBool::new(false),
        origin,
        settings,
        overdrawn: AtomicBool::new(false),
        active: AtomicUsize::new(0),
        memory: SharedMemory::new(SHARED_MEMORY),
        turn,
        leaving: AtomicBool::new(false),
        waker: AtomicWaker::new(),
    };
    Arc::new(streams).accept(connection, Arc::new(digest)).await;
}

fn options(settings: &Settings) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(settings.http2.streams)
        .max_header_list_size(u32::try_from(settings.head_limits.bytes.max(HEADER_LIST)).unwrap_or(u32::MAX))
        .initial_window_size(settings.http2.stream_window)
        .initial_connection_window_size(settings.http2.connection_window)
        .max_send_buffer_size(held_by_stream(settings.http2.streams));
    // The session also ends a connection that makes it reset 1,024 streams in its life (CVE-2025-8671). Correct clients
    // do cause some: by requests beyond the limit on streams, and by what they still send of an upload it has refused.
    options
}

/// Behind a proxy whose word is taken, many people share a connection.
fn allowed_resets(settings: &Settings, origin: &Origin) -> u32 {
    settings.http2.resets.saturating_mul(if origin.trusted { RESETS_OF_MANY } else { 1 })
}

fn held_by_stream(streams: u32) -> usize {
    let share = HELD_ANSWERS / usize::try_from(streams).unwrap_or(usize::MAX).max(1);
    share.clamp(*HELD_BY_STREAM.start(), *HELD_BY_STREAM.end())
}

/// The streams of one connection.
struct Streams {
    origin: Origin,
    shard: Arc<Shard>,
    settings: Arc<Settings>,
    /// Guards the account of wasted streams; touched only once one was wasted.
    budget: Mutex<StreamBudget>,
    /// One was.
    indebted: AtomicBool,
    /// Too many were wasted: the connection ends.
    overdrawn: AtomicBool,
    active: AtomicUsize,
    memory: SharedMemory,
    /// Of the session. While its writes are blocked, ends of answers wait in it, though their streams are served.
    turn: Arc<Turn>,
    /// An answer said that no other request will be served.
    leaving: AtomicBool,
    /// Wakes the connection's task when it may be idle, is overdrawn or leaves.
    waker: AtomicWaker,
}

/// A stream being served.
struct Active(Arc<Streams>);

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.waker.wake();
        }
    }
}

/// What became of a stream, for its connection's account.
pub(crate) enum Ending {
    /// The client has an endpoint's whole answer.
    Whole,
    /// The client broke it off.
    BrokenOff,
    /// We answered, or somebody else was at fault.
    Other,
}

impl Ending {
    pub(super) fn of(account: &Account) -> Self {
        match account.upstream_status {
            _ if account.client_left() => Self::BrokenOff,
            Some(_) if account.reason.is_none() && !account.truncated => Self::Whole,
            _ => Self::Other,
        }
    }
}

/// Why a connection is to end.
enum End {
    Idle,
    Leaving,
    Overdrawn,
}

/// When a connection began to be idle.
#[derive(Default)]
struct Idle {
    since: Option<tokio::time::Instant>,
    timer: Timer,
}

impl Streams {
    /// Takes streams until the connection ends. The engine has such a loop too; only who owns the connection can end it
    /// with a reason, though, or account for requests that the session refuses.
    async fn accept(self: Arc<Self>, mut connection: Connection<Stream, Data>, digest: Arc<Digest>) {
        let mut listener = self.origin.listener.closing();
        let mut closing = pin!(async move { listener.wait_for(|closing| *closing).await.is_ok() });
        let (mut ending, mut idle) = (false, Idle::default());
        loop {
            let limit = if ending { FAREWELL } else { self.settings.timeouts.idle };
            let accepted = tokio::select! {
                biased;
                _ = &mut closing, if !ending => {
                    connection.graceful_shutdown();
                    ending = true;
                    continue;
                }
                end = poll_fn(|cx| self.poll_end(cx, &mut idle, limit)) => match end {
                    End::Overdrawn => return self.dismiss(connection).await,
                    End::Idle if ending => return,
                    End::Leaving if ending => continue,
                    End::Idle | End::Leaving => {
                        connection.graceful_shutdown();
                        (ending, idle.since) = (true, None);
                        continue;
                    }
                },
                accepted = poll_fn(|cx| self.poll_accept(cx, &mut connection, &digest)) => accepted,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    self.active.fetch_add(1, Ordering::Relaxed);
                    let stream = Active(self.clone());
                    // The runtime moves a future several times before it runs and after it has ended.
                    tokio::spawn(Box::pin(async move { stream.0.exchange(session).await }));
                }
                Ok(Some(H2Accept::Rejected)) => self.rejected(),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(peer = ?self.origin.peer, %error, "HTTP/2 connection broke");
                    return;
                }
            }
        }
    }

    /// Polls for the next stream, by which the session does all its work.
    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<Stream, Data>,
        digest: &Arc<Digest>,
    ) -> Poll<pingora::Result<Option<H2Accept>>> {
        self.turn.begin();
        let accepted = pin!(HttpSession::from_h2_conn(connection, digest.clone())).poll(cx);
        if self.turn.end() && accepted.is_pending() {
            // Nothing more to do: this time it flushes.
            return pin!(HttpSession::from_h2_conn(connection, digest.clone())).poll(cx);
        }
        accepted
    }

    fn poll_end(&self, cx: &mut Context<'_>, idle: &mut Idle, limit: Duration) -> Poll<End> {
        self.waker.register(cx.waker());
        if self.overdrawn.load(Ordering::Relaxed) {
            return Poll::Ready(End::Overdrawn);
        }
        if self.leaving.swap(false, Ordering::Relaxed) {
            return Poll::Ready(End::Leaving);
        }
        if self.active.load(Ordering::Relaxed) > 0 {
            idle.since = None;
            return Poll::Pending;
        }
        let since = *idle.since.get_or_insert_with(tokio::time::Instant::now);
        if !idle.timer.poll_expired(cx, since + limit) {
            return Poll::Pending;
        }
        if !self.turn.is_blocked() {
            return Poll::Ready(End::Idle);
        }
        // A client that is slow to take its answers is not idle; one that takes nothing is ended by the write limit.
        idle.since = None;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends a connection whose client wastes streams (RFC 9113 section 10.5); what is under way ends with it.
    async fn dismiss(&self, mut connection: Connection<Stream, Data>) {
        tracing::debug!(peer = ?self.origin.peer, "HTTP/2 connection ended: too many streams were broken off");
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // A client that does not take its leave is cut off.
        let _ = tokio::time::timeout(CALM_FAREWELL, poll_fn(|cx| connection.poll_closed(cx))).await;
    }

    fn wasted(&self, waste: Waste) {
        self.indebted.store(true, Ordering::Relaxed);
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.spend(waste, Instant::now()) {
            self.overdrawn.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// An answer was taken whole. Ours do not count: they cost a client nothing, and us little.
    fn answered(&self) {
        if self.indebted.load(Ordering::Relaxed) {
            self.budget.lock().unwrap_or_else(PoisonError::into_inner).earn();
        }
    }

    /// The session refused a request that is none: it has been answered with 400, or reset, and its head is gone.
    fn rejected(&self) {
        self.wasted(Waste::Malformed);
        let refusal = Refusal::new(RefusalKind::BadRequest, "malformed HTTP/2 request");
        let (view, id) = (self.shard.view(), self.shard.ids.next());
        let answer = (failure::status(refusal.kind), 0);
        finish::unparsed(&self.shard, &view, &self.origin, &refusal, answer, ("", "", "HTTP/2.0"), id);
    }
}

/// A request's head, owned, so that the session can be used beside it.
struct Head {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    fields: HeaderMap,
    body: BodyLength,
    /// Nothing follows it.
    ended: bool,
}

impl Head {
    fn of(session: &HttpSession) -> Self {
        let header = session.req_header();
        let length = header.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match length {
            _ if session.is_body_empty() => length.map_or(BodyLength::None, BodyLength::Known),
            Some(length) => BodyLength::Known(length),
            None => BodyLength::Unknown,
        };
        let host = header.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
        Self {
            method: header.method.as_str().to_owned(),
            target: header.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            host: host.or_else(|| header.headers.get(http::header::HOST).map(|host| host.as_bytes().to_vec())),
            fields: header.headers.clone(),
            body,
            ended: session.is_body_empty(),
        }
    }

    /// The listener's limits, counted as HTTP/2 counts a header list (RFC 9113 section 6.5.2).
    fn check(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        if self.target.len() > limits.target {
            return Err(Refusal::new(RefusalKind::TargetTooLong, format!("target: {} bytes", self.target.len())));
        }
        let fields = self.fields.len();
        let bytes: usize = self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        let bytes = bytes + self.target.len() + self.method.len();
        if fields > limits.fields || bytes > limits.bytes {
            return Err(Refusal::new(RefusalKind::HeadTooLarge, format!("fields: {fields}, bytes: {bytes}")));
        }
        Ok(())
    }

    /// What the session takes and HTTP/1 could not be trusted with.
    fn admit_fields(&mut self, policy: ParsePolicy) -> Result<(), Refusal> {
        if self.ended && matches!(self.body, BodyLength::Known(1..)) {
            // RFC 9113 section 8.1.1; the session compares lengths only where a body follows.
            return Err(Refusal::new(RefusalKind::BadRequest, "content-length of a request without a body"));
        }
        let mut forgotten = Vec::new();
        for (name, value) in &self.fields {
            match admit_field(name.as_str().as_bytes(), value.as_bytes(), policy) {
                Ok(true) => {}
                Ok(false) => forgotten.push(name.clone()),
                Err(fault) => return Err(Refusal::new(RefusalKind::BadRequest, fault.to_string())),
            }
        }
        for name in forgotten {
            self.fields.remove(name);
        }
        Ok(())
    }

    fn parse(&self) -> Result<(Target<'_>, Option<Host<'_>>), Refusal> {
        let target = Target::parse(&self.target)?;
        let host = self.host.as_deref().map(Host::parse).transpose()?;
        Ok((target, host))
    }
}

impl Streams {
    async fn exchange(&self, session: HttpSession) {
        if self.overdrawn.load(Ordering::Relaxed) {
            return;
        }
        let started = Instant::now();
        let view = self.shard.view();
        let mut head = Head::of(&session);
        let admitted = head
            .check(&self.settings.head_limits)
            .and_then(|()| head.admit_fields(parsing::policy(self.settings.parsing)));
        match admitted.and_then(|()| head.parse()) {
            Ok((target, host)) => {
                let listener = view.listener_id(self.origin.listener.key);
                let client = self.origin.client(listener);
                let named = self.origin.named_client(&self.settings, &client, &head.fields);
                let request = HeadView {
                    method: &head.method,
                    raw_target: &head.target,
                    target: &target,
                    host: host.as_ref(),
                    version: HttpVersion::Http2,
                    fields: &head.fields,
                    upgrade: false,
                    body: head.body,
                    client: named.as_ref().unwrap_or(&client),
                };
                self.serve(session, view, request, started).await;
            }
            Err(refusal) => Box::pin(self.refuse(session, &view, &refusal, &head)).await,
        }
    }

    fn downstream(&self, session: HttpSession) -> Http2Downstream<'_> {
        Http2Downstream::new(session, &self.settings.timeouts, &self.memory)
    }

    async fn serve(&self, session: HttpSession, view: Arc<View>, request: HeadView<'_>, started: Instant) {
        let mut down = self.downstream(session);
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
        let ending = match driven {
            Driven::Engine(attempt) => {
                let job = engine::Job::new(&finished, view, exchange, &request, account, attempt);
                let closing = self.origin.listener.closing();
                let timeouts = &self.settings.timeouts;
                Box::pin(engine::serve_http2(&self.shard, down.into_session(), job, timeouts, &closing)).await
            }
            // There is no tunnel in an HTTP/2 stream: no request of it is an upgrade.
            Driven::Done | Driven::Tunnel(_) => {
                let bytes = Bytes { received: down.bytes_in(), sent: down.bytes_out() };
                finished.record(&view, &exchange, &request, &account, bytes);
                if down.connection_ends() {
                    self.leaving.store(true, Ordering::Relaxed);
                    self.waker.wake();
                }
                Ending::of(&account)
            }
        };
        match ending {
            Ending::BrokenOff => self.wasted(Waste::Reset),
            Ending::Whole => self.answered(),
            Ending::Other => {}
        }
    }

    async fn refuse(&self, session: HttpSession, view: &View, refusal: &Refusal, head: &Head) {
        let id = self.shard.ids.next();
        let form = Form::of(HttpVersion::Http2, &head.fields);
        let own = failure::response(refusal, form, None, id, std::time::SystemTime::now());
        let mut down = self.downstream(session);
        // A client that does not take the answer has left.
        let sending = super::driver::send_own(&mut down, &own, head.method == "HEAD");
        let _ = tokio::time::timeout(FAREWELL, sending).await;
        let seen = (head.method.as_str(), head.target.as_str(), "HTTP/2.0");
        finish::unparsed(&self.shard, view, &self.origin, refusal, (own.status, down.bytes_out()), seen, id);
    }
}

//! Requests for HTTP/2 endpoints: routed and decided by us, carried by the engine's proxy.
//!
//! The decision travels with the session as a `Job`: in the request's extensions for an HTTP/2 client, as connection
//! context for an HTTP/1 client (whose head does not exist yet when the engine takes over). Each hook is a short
//! call into the same `Exchange::step` that our own driver uses, so nothing is decided twice.

use super::began::began;
use super::driver::Account;
use super::engine_socket::EngineSocket;
use super::failure::{self, Form};
use super::finish::{self, Bytes as Passed, Finished, Labels};
use super::serve_http2::Ending;
use super::waiting::Waiting;
use crate::edge::conn::Conn;
use crate::edge::listener::Settings;
use crate::edge::shard::{Shard, Shared, View};
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};
use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tidegate_config::model::{Address, ClientTimeouts};
use tidegate_traffic::body::{BodyPipe, BodyPlan};
use tidegate_traffic::pool::lease::Outcome;
use tidegate_traffic::pool::queue::Ticket;
use tidegate_traffic::retry::{Cause, Failure, Heard, Sent, Stage};
use tidegate_traffic::{
    Action, Answer, Attempt, BodyLength, Event, Exchange, HeadView, Refusal, RefusalKind, ResponseView,
};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

/// Streams that one connection to an endpoint carries at once.
const MAX_STREAMS: usize = 100;
/// What may still come of a body whose answer is complete.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The engine's read timeout while a client uploads; the client is held to its own limits meanwhile.
const UPLOAD_LIMIT: Duration = Duration::from_secs(3_600);
/// Idle connections of one shard to all HTTP/2 endpoints.
const POOL_SIZE: usize = 128;
/// More than any request's attempts, which our own decisions bound.
const MAX_ATTEMPTS: usize = 10_000;
/// An answer that gives way to another try.
const DISCARDED: ErrorType = ErrorType::Custom("discarded");
/// How long after its deadline a request may take to be told of it.
const TELLING: Duration = Duration::from_secs(1);

/// The engine's proxy of one shard; made when the first HTTP/2 endpoint is used.
#[derive(Default)]
pub(crate) struct Engine {
    proxy: OnceLock<Arc<HttpProxy<Bridge>>>,
}

impl Engine {
    fn proxy(&self) -> &Arc<HttpProxy<Bridge>> {
        self.proxy.get_or_init(|| {
            let conf = ServerConf {
                threads: 1,
                upstream_keepalive_pool_size: POOL_SIZE,
                max_retries: MAX_ATTEMPTS,
                ..ServerConf::default()
            };
            Arc::new(http_proxy(&Arc::new(conf), Bridge))
        })
    }
}

/// A routed request on its way through the engine.
pub(crate) struct Job {
    shared: Arc<Shared>,
    view: Arc<View>,
    labels: Labels,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
    form: Form,
    limits: Limits,
    has_body: bool,
    /// How long the endpoint may take for its head once it has the whole request.
    head_limit: Duration,
    /// How long it may take no bytes.
    write_limit: Duration,
    /// Wakes the watch when the request is complete.
    request_complete: Notify,
    /// Set when the client's HTTP/1 connection has to end with a reset.
    broken: Option<Arc<AtomicBool>>,
    state: Mutex<State>,
}

/// What the client's side is held to.
#[derive(Default)]
struct Limits {
    keep_alive: Option<u64>,
    body_idle: Duration,
    write_idle: Duration,
    /// How long an HTTP/2 client's body may stand still. The engine has no such limit, and does not tell a client that
    /// sends nothing from an endpoint that takes nothing; the latter is over at its write limit.
    upload_idle: Option<Duration>,
}

impl Limits {
    fn of(timeouts: &ClientTimeouts, keep_alive: bool) -> Self {
        Self {
            keep_alive: keep_alive.then(|| timeouts.idle.as_secs().max(1)),
            body_idle: timeouts.body_idle,
            write_idle: timeouts.write_idle,
            upload_idle: None,
        }
    }
}

struct State {
    exchange: Exchange,
    account: Account,
    attempt: Option<Attempt>,
    /// When the next attempt is to be asked for.
    delayed: Option<Instant>,
    /// Another attempt is to follow once there is an endpoint for it.
    queued: Option<Queued>,
    refusal: Option<Refusal>,
    pipe: Option<BodyPipe>,
    /// When the body's last piece came.
    body_moved: Instant,
    response_passed: bool,
    outcome: Outcome,
    bytes: Passed,
}

impl Job {
    /// A request for which the exchange chose an HTTP/2 endpoint.
    pub(crate) fn new(
        finished: &Finished<'_>,
        view: Arc<View>,
        exchange: Exchange,
        request: &HeadView<'_>,
        mut account: Account,
        attempt: Attempt,
    ) -> Self {
        account.begin_attempt(&attempt.endpoint);
        let mut fields = Vec::new();
        exchange.request_edits(request, began(&exchange)).apply(request.fields, &mut |name, value| {
            fields.push((name.to_owned(), value.to_vec()));
        });
        let length = match request.body {
            BodyLength::Known(length) => Some(length),
            BodyLength::None | BodyLength::Unknown => None,
        };
        Self {
            labels: finished.labels(&view, &exchange, request),
            shared: finished.shard.shared.clone(),
            view,
            target: exchange.forward_target(request).into_owned(),
            fields,
            length,
            form: Form::of(request.version, request.fields),
            limits: Limits::default(),
            has_body: !matches!(request.body, BodyLength::None | BodyLength::Known(0)),
            head_limit: attempt.timeouts.head,
            write_limit: attempt.timeouts.write,
            request_complete: Notify::new(),
            broken: None,
            state: Mutex::new(State {
                pipe: exchange.body_plan().map(BodyPlan::request_pipe),
                exchange,
                account,
                attempt: Some(attempt),
                delayed: None,
                queued: None,
                refusal: None,
                body_moved: Instant::now(),
                response_passed: false,
                outcome: Outcome::Ok,
                bytes: Passed::default(),
            }),
        }
    }

    fn held_to(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Guards the exchange while one hook of the engine runs; never held across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the exchange of a failure; whether another attempt follows. `untouched`: the endpoint says that it did
    /// nothing with the request (RFC 9113 section 8.7).
    fn attempt_failed(&self, session: &Session, stage: Stage, cause: Cause, reused: bool, untouched: bool) -> bool {
        let mut state = self.state();
        let failure = Failure {
            stage,
            cause,
            reused,
            sent: if untouched || stage == Stage::Connect { Sent::Nothing } else { Sent::Some },
            body_replayable: is_replayable(session),
            heard: if state.response_passed { Heard::Passed } else { Heard::Nothing },
        };
        state.account.end_attempt();
        let action = state.exchange.step(&self.view.traffic, Event::AttemptFailed(failure), Instant::now());
        state.take(action)
    }

    /// Carries a request with a body under the client's body limit and the endpoint's head limit. The engine's own read
    /// timeout runs while the client still sends, so it cannot hold an upload to that limit; here time counts from the
    /// end of the body. `None`: one of them kept silent for too long, and the client's stream or connection was cut.
    async fn watch<T>(&self, serving: impl Future<Output = T>) -> Option<T> {
        let Some(deadline) = self.deadline() else { return self.watch_body(serving).await };
        let overdue = async {
            tokio::time::sleep_until(deadline.into()).await;
            // The engine's read timeout ends with the deadline, and it answers then.
            if !self.state().response_passed {
                tokio::time::sleep(TELLING).await;
            }
        };
        tokio::select! {
            served = self.watch_body(serving) => served,
            () = overdue => {
                let mut state = self.state();
                if state.account.status == 0 {
                    state.account.status = failure::status(RefusalKind::Deadline);
                }
                state.account.reason = Some(RefusalKind::Deadline.reason());
                self.break_off(&mut state);
                let over = state.exchange.step(&self.view.traffic, Event::DeadlineOver, Instant::now());
                drop(over);
                None
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.state().exchange.deadline()
    }

    /// The body comes from its beginning: what was sent to another endpoint comes again.
    fn begin_body(&self) {
        let mut state = self.state();
        state.pipe = state.exchange.body_plan().map(BodyPlan::request_pipe);
        state.bytes.received = 0;
    }

    /// Waits where the next attempt is to wait, and then asks for it.
    async fn wait_for_turn(&self, session: &mut Session) -> Result<()> {
        let Some(until) = self.state().delayed.take() else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = client_gone(session) => return Err(left()),
        }
        let mut state = self.state();
        state.attempt = None;
        let action = state.exchange.step(&self.view.traffic, Event::DelayOver, Instant::now());
        state.take(action);
        Ok(())
    }

    async fn watch_body<T>(&self, serving: impl Future<Output = T>) -> Option<T> {
        if !self.has_body {
            return Some(serving.await);
        }
        let overdue = async {
            if !self.upload().await {
                return (RefusalKind::ClientBodyTimeout, Outcome::ClientGone);
            }
            tokio::time::sleep(self.head_limit).await;
            if self.state().response_passed {
                std::future::pending::<()>().await;
            }
            (RefusalKind::HeadTimeout, Outcome::of_refusal(RefusalKind::HeadTimeout))
        };
        tokio::select! {
            served = serving => Some(served),
            (kind, outcome) = overdue => {
                let mut state = self.state();
                state.account.reason = Some(kind.reason());
                state.account.status = failure::status(kind);
                state.account.truncated = true;
                state.outcome = outcome;
                None
            }
        }
    }

    /// Whether this is a gRPC call that its endpoint has taken up. It may well be silent for longer than any upload: its
    /// deadline is the caller's.
    fn is_call(&self) -> bool {
        self.form == Form::Grpc && self.state().response_passed
    }

    /// Waits for the end of the request's body; false when nothing more comes of it.
    async fn upload(&self) -> bool {
        let mut complete = pin!(self.request_complete.notified());
        let Some(limit) = self.limits.upload_idle else {
            complete.await;
            return true;
        };
        loop {
            let until = self.state().body_moved + limit;
            if Instant::now() >= until {
                if !self.is_call() {
                    return false;
                }
                complete.await;
                return true;
            }
            tokio::select! {
                () = &mut complete => return true,
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// The answer broke off: nobody may take it for complete.
    fn break_off(&self, state: &mut State) {
        state.account.truncated = true;
        if let Some(broken) = &self.broken {
            broken.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for an endpoint if the last attempt ended so.
    async fn wait(&self, session: &mut Session) -> Result<()> {
        let Some(Queued { ticket, until }) = self.state().queued.take() else { return Ok(()) };
        let _queued =
            self.state().exchange.pool().and_then(|pool| self.view.upstream_metrics(pool)).map(|all| all.queued());
        let mut waiting = Waiting::new(ticket, until);
        let event = tokio::select! {
            event = poll_fn(|cx| waiting.poll(cx)) => event,
            () = client_gone(session) => return Err(left()),
        };
        drop(waiting);
        let mut state = self.state();
        let action = state.exchange.step(&self.view.traffic, event, Instant::now());
        state.take(action);
        Ok(())
    }

    fn finish(&self, shard: &Shard) {
        let mut state = self.state();
        let outcome = state.outcome;
        state.exchange.step(&self.view.traffic, Event::Finished(outcome), Instant::now());
        finish::count_tries(&self.view, &state.exchange);
        self.labels.record(shard, &state.account, state.bytes);
    }
}

/// A place in a queue.
struct Queued {
    ticket: Ticket,
    until: Instant,
}

impl State {
    /// Remembers what an action means for the engine; whether it is another attempt.
    fn take(&mut self, action: Action) -> bool {
        match action {
            // An attempt on an endpoint of the other protocol cannot happen: a pool speaks one.
            Action::Forward(attempt) => {
                self.account.begin_attempt(&attempt.endpoint);
                self.attempt = Some(attempt);
                true
            }
            Action::Respond(Answer::Refused(refusal)) => {
                self.refusal = Some(refusal);
                false
            }
            Action::Delay { until } => {
                self.delayed = Some(until);
                true
            }
            Action::Queue { ticket, until } => {
                self.attempt = None;
                self.queued = Some(Queued { ticket, until });
                true
            }
            // Requests to HTTP/2 endpoints are not hedged.
            Action::Respond(Answer::Fixed(_))
            | Action::Hedge(_)
            | Action::Keep(_)
            | Action::Discard
            | Action::Collect { .. }
            | Action::Relay { .. }
            | Action::Done => false,
        }
    }
}

/// Serves a request of an HTTP/2 client.
pub(crate) async fn serve_http2(
    shard: &Arc<Shard>,
    mut session: HttpSession,
    job: Job,
    timeouts: &ClientTimeouts,
    closing: &ShutdownWatch,
) -> Ending {
    let mut limits = Limits::of(timeouts, false);
    // What a request says of itself makes nobody trustworthy, but an endpoint of gRPC may wait for the end of a call before
    // it answers: until it has, a call is held to the time that the answer itself may take.
    let silence = if job.form == Form::Grpc { timeouts.body_idle.max(job.head_limit) } else { timeouts.body_idle };
    limits.upload_idle = Some(silence + job.write_limit);
    let job = Arc::new(job.held_to(limits));
    session.req_header_mut().extensions_mut().insert(job.clone());
    job.watch(shard.engine.proxy().process_new_http(ServerSession::new_http2(session), closing)).await;
    job.finish(shard);
    Ending::of(&job.state().account)
}

/// What is known of an HTTP/1 request that the engine takes over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed {
    /// The client wants, and we allow, another request on the connection.
    pub(crate) keep_alive: bool,
    /// The client waits for 100 before it sends its body.
    pub(crate) expect_continue: bool,
}

/// Serves a request of an HTTP/1 client, whose head stands at the front of the connection's buffer again. The
/// connection comes back when it can carry another request.
pub(crate) async fn serve_http1(
    shard: &Arc<Shard>,
    mut conn: Conn,
    job: Job,
    settings: &Settings,
    closing: &ShutdownWatch,
    handed: Handed,
) -> Option<Conn> {
    let mut job = job.held_to(Limits::of(&settings.timeouts, handed.keep_alive));
    job.broken = Some(conn.broken_flag());
    let job = Arc::new(job);
    if handed.expect_continue {
        // The engine never asks for the body. A client that does not take this has left.
        if conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() || conn.flush().await.is_err() {
            job.state().account.reason = Some(RefusalKind::ClientClosed.reason());
            job.state().account.status = failure::status(RefusalKind::ClientClosed);
            job.finish(shard);
            return None;
        }
    }
    let mut session = ServerSession::new_http1(Box::new(conn));
    session.set_read_timeout(Some(settings.timeouts.head));
    session.set_connection_user_context(Some(Box::new(job.clone())));
    let reused = job.watch(shard.engine.proxy().process_new_http(session, closing)).await.flatten();
    job.finish(shard);
    let (stream, _) = reused?.consume();
    stream.into_any().downcast::<Conn>().ok().map(|conn| *conn)
}

/// Our decisions as the engine's hooks.
pub(crate) struct Bridge;

/// Context of one request in the engine.
#[derive(Default)]
pub(crate) struct Context {
    job: Option<Arc<Job>>,
}

impl Context {
    fn job(&self) -> Result<&Arc<Job>> {
        self.job.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "request without a decision"))
    }
}

#[async_trait]
impl ProxyHttp for Bridge {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    /// None of the engine's modules is used; its default set costs an allocation for each request.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    fn on_connection_reuse(&self, _: &mut Session, ctx: &mut Context, previous: Box<dyn Any + Send + Sync>) {
        ctx.job = previous.downcast::<Arc<Job>>().ok().map(|job| *job);
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if ctx.job.is_none() {
            ctx.job = session.req_header().extensions.get::<Arc<Job>>().cloned();
        }
        let job = ctx.job()?;
        let limits = &job.limits;
        session.set_keepalive(limits.keep_alive);
        session.set_read_timeout(Some(limits.body_idle));
        session.set_write_timeout(Some(limits.write_idle));
        session.as_downstream_mut().set_total_drain_timeout(Some(DRAIN_TIME));
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let job = ctx.job()?;
        job.wait_for_turn(session).await?;
        job.wait(session).await?;
        let state = job.state();
        let Some(attempt) = &state.attempt else {
            return Error::e_explain(ErrorType::InternalError, "no endpoint was chosen");
        };
        if let (Some(reason), Some(metrics)) = (attempt.reason, job.view.upstream_metrics(&attempt.pool)) {
            metrics.retried(reason);
        }
        // Not before the deadline, so that what follows sees that it has passed.
        let left = state.exchange.deadline().map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let Address::Tcp(address) = attempt.endpoint.address() else {
            return Error::e_explain(ErrorType::InternalError, "HTTP/2 endpoints are TCP");
        };
        let mut peer = HttpPeer::new(*address, false, String::new());
        let timeouts = &attempt.timeouts;
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = MAX_STREAMS;
        let connect = timeouts.connect.min(left);
        peer.options.connection_timeout = Some(connect);
        peer.options.total_connection_timeout = Some(connect);
        let read = timeouts.head.max(timeouts.read);
        peer.options.read_timeout = Some(left.min(if job.has_body { read.max(UPLOAD_LIMIT) } else { read }));
        peer.options.write_timeout = Some(timeouts.write);
        peer.options.idle_timeout = Some(timeouts.idle);
        EngineSocket::new(job.shared.clone()).attach(&mut peer.options);
        Ok(Box::new(peer))
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        let job = ctx.job()?;
        if end {
            job.request_complete.notify_one();
        }
        let Some(data) = body else { return Ok(()) };
        let mut state = job.state();
        state.body_moved = Instant::now();
        state.bytes.received += data.len() as u64;
        let pushed = state.pipe.as_mut().map_or(Ok(()), |pipe| pipe.push(data.len()));
        if let Err(refusal) = pushed {
            let text = refusal.to_string();
            state.refusal = Some(refusal);
            let mut error = Error::explain(ErrorType::HTTPStatus(413), text);
            error.esource = ErrorSource::Downstream;
            return Err(error);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let job = ctx.job()?;
        job.begin_body();
        let mut fresh = RequestHeader::build(request.method.clone(), job.target.as_bytes(), Some(job.fields.len()))?;
        fresh.set_version(http::Version::HTTP_2);
        for (name, value) in &job.fields {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "field name", error))?;
            fresh.append_header(name, value.as_slice())?;
        }
        if let Some(length) = job.length {
            fresh.insert_header(http::header::CONTENT_LENGTH, length)?;
        }
        fresh.set_send_end_stream(true);
        *request = fresh;
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let job = ctx.job()?;
        let mut state = job.state();
        let replayable = is_replayable(session) && session.response_written().is_none();
        let view = ResponseView { status: response.status.as_u16(), fields: &response.headers, replayable };
        let action = state.exchange.step(&job.view.traffic, Event::ResponseHead(view), Instant::now());
        if matches!(action, Action::Discard) {
            let now = Instant::now();
            state.account.end_attempt();
            let next = state.exchange.step(&job.view.traffic, Event::Discarded, now);
            state.take(next);
            // The engine gives the stream up and asks for a peer again.
            return Err(Error::explain(DISCARDED, "the answer gives way to another try").into_up());
        }
        let Action::Relay { edits, .. } = action else {
            state.take(action);
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "response head refused");
        };
        let mut fields = Vec::new();
        edits.apply(&response.headers, &mut |name, value| fields.push((name.to_owned(), value.to_vec())));
        // RFC 9110 section 8.6: these have no body and announce none.
        let bodiless = response.status.is_informational() || response.status == http::StatusCode::NO_CONTENT;
        let length = response.headers.get(http::header::CONTENT_LENGTH).filter(|_| !bodiless).cloned();
        let mut fresh = ResponseHeader::build(response.status, Some(fields.len() + 1))?;
        for (name, value) in fields.into_iter() {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "field name", error))?;
            fresh.append_header(name, value)?;
        }
        if let Some(length) = length {
            fresh.insert_header(http::header::CONTENT_LENGTH, length)?;
        }
        if !response.status.is_informational() {
            state.response_passed = true;
            state.account.upstream_status = Some(response.status.as_u16());
        }
        *response = fresh;
        Ok(())
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        _: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let job = ctx.job()?;
        let state = job.state();
        if let Some(attempt) = &state.attempt
            && let Some(metrics) = job.view.upstream_metrics(&attempt.pool)
        {
            if reused { metrics.reused.inc() } else { metrics.opened.inc() }
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry =
            ctx.job.as_ref().is_some_and(|job| job.attempt_failed(session, Stage::Connect, cause(&error), false, true));
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        if *error.etype() == DISCARDED {
            let follows = ctx.job.as_ref().is_some_and(|job| job.state().refusal.is_none());
            error.retry.decide_reuse(reused);
            error.set_retry(follows);
            return error;
        }
        // Decided by the engine for REFUSED_STREAM and an orderly GOAWAY only.
        let untouched = error.retry == RetryType::Decided(true) && *error.etype() == ErrorType::H2Error;
        let cause = if untouched { Cause::Closed } else { cause(&error) };
        error.retry.decide_reuse(reused);
        let ours = matches!(error.esource, ErrorSource::Downstream | ErrorSource::Internal);
        let refused = ctx.job.as_ref().is_some_and(|job| job.state().refusal.is_some());
        let retry = !ours
            && !refused
            && session.response_written().is_none()
            && ctx.job.as_ref().is_some_and(|job| job.attempt_failed(session, Stage::Head, cause, reused, untouched));
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let Some(job) = ctx.job.clone() else { return FailToProxy { error_code: 500, can_reuse_downstream: false } };
        let own = {
            let mut state = job.state();
            let kind = refusal_kind(error);
            state.outcome = match *error.esource() {
                ErrorSource::Downstream => Outcome::ClientGone,
                ErrorSource::Upstream if state.response_passed => Outcome::of_refusal(RefusalKind::UpstreamReadTimeout),
                ErrorSource::Upstream => Outcome::of_refusal(kind),
                ErrorSource::Internal | ErrorSource::Unset => Outcome::Cancelled,
            };
            if state.response_passed {
                job.break_off(&mut state);
                let late = state.exchange.deadline().is_some_and(|deadline| Instant::now() >= deadline);
                let ours = *error.esource() == ErrorSource::Downstream;
                let kind = if late {
                    RefusalKind::Deadline
                } else if ours {
                    kind
                } else {
                    RefusalKind::UpstreamClosed
                };
                state.account.reason = Some(kind.reason());
                return FailToProxy { error_code: 0, can_reuse_downstream: false };
            }
            if kind == RefusalKind::ClientClosed && state.refusal.is_none() {
                state.account.reason = Some(kind.reason());
                state.account.status = failure::status(kind);
                return FailToProxy { error_code: 0, can_reuse_downstream: false };
            }
            let refusal = state.refusal.take().unwrap_or_else(|| Refusal::new(kind, error.to_string()));
            state.account.reason = Some(refusal.reason());
            let route = state.exchange.route().and_then(|route| job.view.traffic.router.info(route));
            let pages = route.map(|route| &*route.error_pages);
            let mut own = failure::response(&refusal, job.form, pages, state.exchange.id(), SystemTime::now());
            own.tell(state.exchange.limit_fields());
            state.account.status = own.status;
            own
        };
        session.set_keepalive(None);
        if let Err(error) = write_own(session, &own).await {
            tracing::debug!(%error, "client did not take the answer");
        }
        FailToProxy { error_code: own.status, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Context) {
        let Some(job) = &ctx.job else { return };
        let mut state = job.state();
        if state.account.status == 0 {
            state.account.status = session.response_written().map_or(0, |head| head.status.as_u16());
        }
        state.bytes.sent = session.body_bytes_sent() as u64;
    }
}

/// Whether all that was taken of the request's body can be sent again: the engine holds the first 64 KiB of it.
fn is_replayable(session: &Session) -> bool {
    !session.as_downstream().retry_buffer_truncated()
}

/// Waits until the client has left. Of an HTTP/1 client that still sends only its body would tell, and that is the engine's to
/// read.
async fn client_gone(session: &mut Session) {
    let client = session.as_downstream_mut();
    if !client.is_http2() && !client.is_body_done() {
        return std::future::pending().await;
    }
    // Nothing else ends it.
    let _ = client.read_body_or_idle(true).await;
}

/// The client is gone before it was its turn.
fn left() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client left while it waited").into_down()
}

async fn write_own(session: &mut Session, own: &failure::OwnResponse) -> Result<()> {
    let mut head = ResponseHeader::build(own.status, Some(own.fields.len() + 1))?;
    for (name, value) in &own.fields {
        head.append_header(name.clone(), value.as_str())?;
    }
    head.insert_header(http::header::CONTENT_LENGTH, own.body.len())?;
    let empty = own.body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), empty).await?;
    if empty && !session.as_downstream().is_http2() {
        return Ok(());
    }
    // An HTTP/2 stream is ended by a body only, an empty one too: the session forgets what its head said of that.
    let body = if empty { Bytes::new() } else { own.body.clone() };
    session.write_response_body(Some(body), true).await
}

/// What ended an attempt, in the words of decisions.
fn cause(error: &Error) -> Cause {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => Cause::TimedOut,
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 | ErrorType::H2Error => Cause::Malformed,
        ErrorType::SocketError | ErrorType::BindError => Cause::Local,
        _ => Cause::Closed,
    }
}

fn refusal_kind(error: &Error) -> RefusalKind {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => RefusalKind::ClientBodyTimeout,
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader | ErrorType::Custom("InvalidChunk")) => {
            RefusalKind::BadRequest
        }
        (ErrorSource::Downstream, _) => RefusalKind::ClientClosed,
        (ErrorSource::Upstream, ErrorType::ReadTimedout) => RefusalKind::HeadTimeout,
        (ErrorSource::Upstream, ErrorType::ConnectTimedout) => RefusalKind::ConnectTimeout,
        (ErrorSource::Upstream, ErrorType::InvalidHTTPHeader | ErrorType::H2Error) => RefusalKind::UpstreamBadResponse,
        (ErrorSource::Upstream, _) => RefusalKind::UpstreamClosed,
        _ => RefusalKind::Internal,
    }
}

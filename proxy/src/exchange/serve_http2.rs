//! A client's HTTP/2 connection: the engine's session and accept loop, our exchanges.

use super::downstream::Downstream;
use super::downstream::http2::Http2Downstream;
use super::driver::{Account, Driven, Driver};
use super::engine;
use super::failure;
use super::finish::{self, Bytes, Finished};
use crate::edge::accept::Origin;
use crate::edge::conn::Conn;
use crate::edge::listener::Settings;
use crate::edge::shard::{Shard, View};
use async_trait::async_trait;
use http::HeaderMap;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, HttpSession, default_h2_options};
use pingora_core::server::ShutdownWatch;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_config::model::{ClientTimeouts, HeadLimits};
use tidegate_traffic::{BodyLength, Client, Exchange, HeadView, Host, HttpVersion, Refusal, RefusalKind, Target};

/// Bytes that one stream's request body may be ahead of us, and all streams of a connection together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve_http2(conn: Conn, origin: Origin, shard: Arc<Shard>, settings: &Settings) {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(settings.timeouts.idle);
    let shutdown = origin.listener.closing();
    let app = Arc::new(Http2App { origin, shard, timeouts: settings.timeouts, limits: settings.head_limits, options });
    app.process_new(Box::new(conn), &shutdown).await;
}

/// Receives the streams of one connection.
struct Http2App {
    origin: Origin,
    shard: Arc<Shard>,
    timeouts: ClientTimeouts,
    limits: HeadLimits,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Http2App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if let ServerSession::H2(session) = session {
            self.exchange(session, shutdown).await;
        }
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.initial_window_size(STREAM_WINDOW);
        options.initial_connection_window_size(CONNECTION_WINDOW);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// A request's head, owned, so that the session can be used beside it.
struct Head {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    fields: HeaderMap,
    body: BodyLength,
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

    fn parse(&self, limits: &HeadLimits) -> Result<(Target<'_>, Option<Host<'_>>), Refusal> {
        self.check(limits)?;
        let target = Target::parse(&self.target)?;
        let host = self.host.as_deref().map(Host::parse).transpose()?;
        Ok((target, host))
    }
}

impl Http2App {
    async fn exchange(&self, session: HttpSession, shutdown: &ShutdownWatch) {
        let started = Instant::now();
        let view = self.shard.view();
        let head = Head::of(&session);
        match head.parse(&self.limits) {
            Ok((target, host)) => {
                let peer = self.origin.peer;
                let listener = view.listener_id(self.origin.listener.key);
                let client = Client::new(peer.ip(), peer.port(), listener, self.origin.tls.clone());
                let request = HeadView {
                    method: &head.method,
                    raw_target: &head.target,
                    target: &target,
                    host: host.as_ref(),
                    version: HttpVersion::Http2,
                    fields: &head.fields,
                    upgrade: false,
                    body: head.body,
                    client: &client,
                };
                self.serve(session, view, request, started, shutdown).await;
            }
            Err(refusal) => self.refuse(session, &view, &refusal, &head).await,
        }
    }

    fn downstream(&self, session: HttpSession) -> Http2Downstream {
        Http2Downstream::new(session, self.timeouts.body_idle, self.timeouts.write_idle)
    }

    async fn serve(
        &self,
        session: HttpSession,
        view: Arc<View>,
        request: HeadView<'_>,
        started: Instant,
        shutdown: &ShutdownWatch,
    ) {
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
        match driven {
            Driven::Engine(attempt) => {
                let job = engine::Job::new(&finished, view, exchange, &request, account, attempt);
                engine::serve_http2(&self.shard, down.into_session(), job, &self.timeouts, shutdown).await;
            }
            // There is no tunnel in an HTTP/2 stream: no request of it is an upgrade.
            Driven::Done | Driven::Tunnel(_) => {
                let bytes = Bytes { received: down.bytes_in(), sent: down.bytes_out() };
                finished.record(&view, &exchange, &request, &account, bytes);
            }
        }
    }

    async fn refuse(&self, session: HttpSession, view: &View, refusal: &Refusal, head: &Head) {
        let id = self.shard.ids.next();
        let own = failure::response(refusal, None, id, std::time::SystemTime::now());
        let mut down = self.downstream(session);
        // A client that does not take the answer has left.
        let _ = tokio::time::timeout(Duration::from_secs(5), super::driver::send_own(&mut down, &own, false)).await;
        let seen = (head.method.as_str(), head.target.as_str(), "HTTP/2.0");
        finish::unparsed(&self.shard, view, &self.origin, refusal, (own.status, down.bytes_out()), seen, id);
    }
}

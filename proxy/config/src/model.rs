//! What the program runs on: a checked site file with every default resolved.
//!
//! Nothing here is read from or written to text (that is `raw.rs`), so these types may change freely
//! without changing the file format. After compile there is nothing left to check and no
//! default left to guess: a `Model` that exists can be run.

mod breaker;
mod canary;
mod discovery;
mod ejection;
mod error_pages;
mod health_check;
mod launch;
mod preset;
mod readiness;
mod sticky;
mod timing;
mod warmup;
mod worker_logs;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::network::Networks;
pub use breaker::Breaker;
pub use canary::{CanaryHold, MaxDelta, Share};

mod grpc_codes;
mod hang;
mod recycle;
mod restart;
mod retry;
pub use discovery::{Dns, Families, ServerAddress};
pub use ejection::{Ejection, SuccessRate};
pub use error_pages::{ErrorPage, ErrorPages, PageKind, PageStatus, PageValue, Piece};
pub use grpc_codes::GrpcCodes;
pub use hang::Hang;
pub use health_check::{CheckKind, HealthCheck, HttpCheck};
pub use launch::{LaunchSettings, ProcessLimits, StopSignal};
pub use preset::{Preset, WorkerProgram};
pub use readiness::{LinePattern, Readiness};
pub use recycle::Recycle;
pub use restart::Restart;
pub use retry::{Backoff, Retry, RetryBudget, RetryOn, Statuses};
pub use sticky::{SameSite, Sticky};
pub use timing::Timing;
pub use warmup::Warmup;
pub use worker_logs::{WorkerLogFile, WorkerLogFormat};

mod capacity;
mod concurrency;
mod deploy;

pub use concurrency::ConcurrencyLimit;
pub use deploy::{DeployPolicy, DeployStrategy, OnFailure, OnHup, Portion, PreStart};

pub use capacity::{Capacity, QUEUE_LEAST, QUEUE_MOST, QueueOrder, QueuePolicy};

/// One whole site file, its includes merged in.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// In the order of the file; names are unique.
    pub listeners: Vec<Listener>,
    /// In the order of the file; names are unique.
    pub sites: Vec<Site>,
    /// By name, so that every user of the model sees them in one order.
    pub upstreams: BTreeMap<String, Upstream>,
    /// By name; `default` is always there.
    pub tls_policies: BTreeMap<String, TlsPolicy>,
    /// By name, those without one in the file among them.
    pub rate_limits: BTreeMap<String, RateLimit>,
    /// By name, those without one in the file among them.
    pub concurrency_limits: BTreeMap<String, ConcurrencyLimit>,
    /// The admin endpoint.
    pub admin: Admin,
    /// Program log and access log.
    pub logging: Logging,
    /// Settings of the process as a whole.
    pub server: Server,
}

/// A socket, its protocol and TLS mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// `name:` in the file, else the address as written.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// What is spoken on an accepted connection.
    pub transport: Transport,
    /// Name of the TLS policy for sites without one of their own; means nothing without TLS.
    pub tls_policy: String,
    /// Name of the site that answers when no site's host matches; `None` answers 421 (TLS, name differs) or 404.
    pub default_site: Option<String>,
    /// Most connections at a time.
    pub max_connections: Option<usize>,
    /// Who has to send a PROXY protocol header first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whose word about the client is taken.
    pub trusted_proxies: Option<TrustedProxies>,
    /// What becomes of a request whose HTTP/1.1 client has ended its sending side.
    pub half_close: HalfClose,
    /// Deadlines of a downstream connection.
    pub timeouts: ClientTimeouts,
    /// Sizes a request head may have.
    pub head_limits: HeadLimits,
    /// What an HTTP/2 connection may use.
    pub http2: Http2,
    /// How HTTP/1.1 requests are read.
    pub parsing: Parsing,
}

/// What an HTTP/2 connection may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Streams at once.
    pub streams: u32,
    /// Streams that a client may break off or get wrong within ten seconds.
    pub resets: u32,
    /// Bytes that one stream's body may be ahead of us.
    pub stream_window: u32,
    /// The same for all streams together; not less than `stream_window`.
    pub connection_window: u32,
}

/// How HTTP/1.1 heads are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parsing {
    /// As RFC 9112 asks senders to write them.
    Strict,
    /// As nginx reads them; ambiguous framing is refused all the same.
    Lenient,
}

/// A listening or dialling address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `127.0.0.1:80`, `[::1]:80`, and `:80` as `[::]:80` (which takes IPv4 too).
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// What is spoken on an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP/1.1; with `h2c`, HTTP/2 by prior knowledge too.
    Plain {
        /// HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3).
        h2c: bool,
    },
    /// TLS with ALPN `h2` and `http/1.1`.
    Tls,
}

/// Name of the TLS policy where nothing is said.
pub const DEFAULT_TLS_POLICY: &str = "default";

/// How clients do TLS. Two policies share no session, whatever they have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Never empty; at least one is for TLS 1.3 when that is the oldest version.
    pub cipher_suites: Vec<CipherSuite>,
    /// Never empty; the preferred one first.
    pub key_exchange: Vec<KeyExchange>,
    /// Never empty; the preferred one first.
    pub alpn: Vec<Alpn>,
    /// What clients must or may show; `None` does not ask.
    pub client_certificates: Option<ClientCertificates>,
    /// Whether clients get tickets.
    pub tickets: bool,
    /// Sessions kept for clients without tickets.
    pub session_cache: usize,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::V1_2,
            cipher_suites: CipherSuite::ALL.to_vec(),
            key_exchange: KeyExchange::ALL.to_vec(),
            alpn: vec![Alpn::H2, Alpn::Http1],
            client_certificates: None,
            tickets: true,
            session_cache: 8_192,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// A cipher suite; the words are those of its IANA name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// TLS_AES_256_GCM_SHA384
    Aes256Gcm,
    /// TLS_AES_128_GCM_SHA256
    Aes128Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256
    Chacha20Poly1305,
    /// TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    EcdheEcdsaAes256Gcm,
    /// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    EcdheEcdsaAes128Gcm,
    /// TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    EcdheEcdsaChacha20Poly1305,
    /// TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    EcdheRsaAes256Gcm,
    /// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    EcdheRsaAes128Gcm,
    /// TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    EcdheRsaChacha20Poly1305,
}

impl CipherSuite {
    /// Every suite, the strongest of each version first.
    pub const ALL: [Self; 9] = [
        Self::Aes256Gcm,
        Self::Aes128Gcm,
        Self::Chacha20Poly1305,
        Self::EcdheEcdsaAes256Gcm,
        Self::EcdheEcdsaAes128Gcm,
        Self::EcdheEcdsaChacha20Poly1305,
        Self::EcdheRsaAes256Gcm,
        Self::EcdheRsaAes128Gcm,
        Self::EcdheRsaChacha20Poly1305,
    ];

    /// The version that it belongs to.
    #[must_use]
    pub const fn version(self) -> TlsVersion {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm | Self::Chacha20Poly1305 => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        }
    }
}

/// A key exchange group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// Curve25519.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
    /// Curve25519 and ML-KEM-768; TLS 1.3 only.
    X25519MlKem768,
}

impl KeyExchange {
    /// Every group, the cheapest first.
    pub const ALL: [Self; 4] = [Self::X25519, Self::Secp256r1, Self::Secp384r1, Self::X25519MlKem768];
}

/// A protocol inside TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

/// Certificates that clients are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file with those who may issue them; absolute. Compile has not read it.
    pub ca: PathBuf,
    /// A client without one fails its handshake.
    pub required: bool,
    /// Endpoints are told by the field `Client-Cert` (RFC 9440).
    pub forward: bool,
}

/// The PROXY protocol of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Who must send the header.
    pub from: Networks,
    /// From the connection to the end of the header.
    pub timeout: Duration,
}

/// Proxies whose word about the client is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Who they are.
    pub from: Networks,
    /// The field they write.
    pub header: ForwardedHeader,
}

/// What becomes of a request whose client has ended its sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// It is answered.
    Serve,
    /// It is given up.
    Abort,
}

/// A field that names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The slowest pace of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRate {
    /// Bytes in a second; not zero.
    pub rate: u64,
    /// Time of waiting for the client over which it is measured; not zero.
    pub over: Duration,
}

/// Deadlines of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// TLS handshake, total.
    pub handshake: Duration,
    /// Request head, total, for the first and for every later request.
    pub head: Duration,
    /// No request under way.
    pub idle: Duration,
    /// Between two reads of a request body.
    pub body_idle: Duration,
    /// Slowest pace of a request body.
    pub body_rate: Option<BodyRate>,
    /// A response write without any progress.
    pub write_idle: Duration,
    /// An upgraded connection (WebSocket) on which neither side sends.
    pub tunnel_idle: Duration,
}

/// Sizes a request head may have; over them the answer is 431 or, for the target, 414.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// All bytes of the head.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// Host names, a certificate policy and ordered routes.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// `name:` in the file, else its first host.
    pub name: String,
    /// Which requests are its own.
    pub hosts: Vec<HostPattern>,
    /// Names of the listeners it answers on; compile fills in all of them when the file names none.
    pub listeners: Vec<String>,
    /// Where its certificate comes from; `None` is possible only when none of its listeners has TLS.
    pub tls: Option<SiteTls>,
    /// Name of the TLS policy that its clients must have used; `None` is that of the listener.
    pub tls_policy: Option<String>,
    /// For requests that are none of its routes'.
    pub error_pages: Arc<ErrorPages>,
    /// Never empty.
    pub routes: Vec<Route>,
}

/// A host name of a site, in lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `api.example.com`, or an IP address.
    Exact(String),
    /// `*.example.com`, held as `example.com`: any name with at least one more label.
    Wildcard(String),
    /// `*`: any host at all.
    Any,
}

/// Where a site's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SiteTls {
    /// PEM files, absolute or made absolute against the site file's folder. Compile has not read them.
    Files {
        /// Leaf first, then intermediates.
        certificate: PathBuf,
        /// PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
    /// Issued by a local CA kept in the state directory; for development.
    Internal,
}

/// One rule: which requests, and what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `name:` in the file, else the path pattern as written (`site` + this name is unique within a site's siblings).
    pub name: String,
    /// Which paths.
    pub path: PathPattern,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What becomes of the request.
    pub action: RouteAction,
    /// Bodies longer than this are answered with 413.
    pub max_body: u64,
    /// Which bodies are held for slow clients.
    pub buffer: Buffer,
    /// Limits that must all admit a request.
    pub rate_limits: Vec<RateLimitUse>,
    /// Names of the [`Model::concurrency_limits`] that must all admit a request.
    pub concurrency: Vec<String>,
    /// When a request is tried again; settled with what the upstream says.
    pub retry: Retry,
    /// The longest time from the head of a request to the end of its answer.
    pub deadline: Option<Duration>,
    /// In which form the path is forwarded.
    pub forward_path: ForwardPath,
    /// For its requests that are refused.
    pub error_pages: Arc<ErrorPages>,
}

/// A limit as a route goes by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitUse {
    /// Its name in [`Model::rate_limits`].
    pub limit: String,
    /// What a request counts; not zero.
    pub cost: u32,
}

/// How many requests of one client are admitted in a time (nginx's `limit_req`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Its key in the file; where it stands, for a limit without one.
    pub name: String,
    /// Whether the file gives it a name.
    pub named: bool,
    /// How many in which time.
    pub rate: Rate,
    /// Requests that may be ahead of the rate.
    pub burst: u32,
    /// Requests ahead of the rate that are not delayed, at most `burst`; `None` delays none.
    pub delay: Option<u32>,
    /// What clients are told apart by; the first that a request has counts, and the client's address where it has none.
    pub key: Vec<Variable>,
    /// Status of a request that is refused.
    pub status: u16,
    /// Fields that tell clients of it.
    pub headers: RateLimitHeaders,
    /// Only count.
    pub dry_run: bool,
    /// Clients that are never limited.
    pub allow: Networks,
    /// Clients that are remembered at a time.
    pub entries: usize,
}

/// Requests in a time; neither is zero, and there are 1 a day to 1,000,000 a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub requests: u32,
    /// In which time.
    pub per: Duration,
}

/// As a site file reads it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, per } = self;
        match per.as_secs() {
            1 if per.subsec_nanos() == 0 => write!(f, "{requests}/s"),
            60 if per.subsec_nanos() == 0 => write!(f, "{requests}/m"),
            _ => write!(f, "{requests} per {}", crate::units::format_duration(*per)),
        }
    }
}

/// Fields that tell clients of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitHeaders {
    /// None.
    Off,
    /// `RateLimit` and `RateLimit-Policy`.
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    Legacy,
    /// Both.
    All,
}

/// How much of a route's bodies is held, so that a slow client keeps no endpoint busy. Zero holds nothing: the body is
/// passed on as it comes. Both are zero for a route whose upstream speaks HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Most bytes of a request body that are collected before an endpoint is chosen; never more than `max_body`.
    pub request: u64,
    /// Most bytes of a response body that are held while the client does not take them.
    pub response: u64,
}

/// Which canonical paths a route takes, and with which precedence (nginx's `location`).
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// `= /path`: this path only; wins over everything.
    Exact(String),
    /// `/path`: the longest one is remembered, then regexes are tried. Ends at a segment boundary: `/admin` takes
    /// `/admin` and `/admin/x`, not `/administrator`.
    Prefix(String),
    /// `^~ /path`: like a prefix, but if it is the longest, regexes are not tried.
    PrefixStop(String),
    /// `~ regex` or `~* regex` (without case): tried in the file's order.
    Regex(Arc<regex::Regex>),
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::PrefixStop(a), Self::PrefixStop(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A condition besides the path.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// One of these methods.
    Method(Vec<String>),
    /// A field of the head, its name in lower case; one of its values matches.
    Header(String, ValuePattern),
    /// A query parameter, percent-decoded.
    Query(String, ValuePattern),
    /// A cookie.
    Cookie(String, ValuePattern),
}

/// What a condition's value must be.
#[derive(Debug, Clone)]
pub enum ValuePattern {
    /// `"*"`: present, whatever its value.
    Present,
    /// Exactly this.
    Exact(String),
    /// `"~ regex"`, `"~* regex"` (without case): somewhere in the value.
    Regex(Arc<regex::Regex>),
}

impl PartialEq for ValuePattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// Forwarded to the upstream of this name, which exists.
    Proxy(String),
    /// Answered at once.
    Respond(FixedResponse),
    /// Only a frame for inner routes; a request that matches none of them is answered with 404.
    Nested(Vec<Route>),
}

/// `respond:`, an answer that needs no upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599.
    pub status: u16,
    /// Fields in order, names in lower case; never framing fields.
    pub headers: Vec<(String, String)>,
    /// The body; `content-type` defaults to `text/plain; charset=utf-8` and stands in `headers` already.
    pub body: Arc<[u8]>,
}

/// In which form the path is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardPath {
    /// The form that was matched.
    Canonical,
    /// As the client sent it.
    Raw,
}

/// A group of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its key in the file.
    pub name: String,
    /// What its endpoints speak.
    pub protocol: UpstreamProtocol,
    /// Set when it is spoken over TLS.
    pub tls: Option<UpstreamTls>,
    /// Which header tells it of the client; a connection serves one request then.
    pub proxy_protocol: Option<ProxyHeader>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// Set where clients stay with an endpoint; `balance` chooses it for new ones.
    pub sticky: Option<Sticky>,
    /// How long a new endpoint takes to its whole share; zero is none.
    pub slow_start: Duration,
    /// How much of them may be asked at a time, and who waits.
    pub capacity: Capacity,
    /// Who they are.
    pub source: EndpointSource,
    /// How the names of its servers are resolved; `None` where none has a name.
    pub dns: Option<Dns>,
    /// Deadlines towards an endpoint.
    pub timeouts: UpstreamTimeouts,
    /// Idle connections kept, for each endpoint and shard; 0 keeps none.
    pub idle_connections: usize,
    /// How HTTP/1.1 answers are read.
    pub parsing: Parsing,
    /// When endpoints that fail are taken out of service for a time; `None` is never.
    pub ejection: Option<Ejection>,
    /// How its servers are asked whether they are well; workers never are.
    pub health_check: Option<HealthCheck>,
    /// How many retries there may be; `None` is as many as routes ask for.
    pub retry_budget: Option<RetryBudget>,
    /// When nobody is sent for a while; `None` is never.
    pub breaker: Option<Breaker>,
    /// Whether the program is ready only while one of them is in service.
    pub required: bool,
    /// What endpoints and clients are told of times.
    pub timing: Timing,
    /// Where lines of its workers go; `None` is the program log.
    pub worker_log: Option<WorkerLogFile>,
    /// Files and folders whose change replaces the workers, and shows clients why new ones fail; absolute.
    pub watch: Vec<PathBuf>,
    /// Whether it is worked out what requests of each route cost its workers.
    pub cost: bool,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// TLS with endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file with those who may issue their certificates, absolute and not read by compile; `None` is the system's CAs.
    pub ca: Option<PathBuf>,
    /// A DNS name or an IP address; `None` is the endpoint's own name, or its address where it has none.
    pub server_name: Option<String>,
    /// Whether certificates are verified.
    pub verify: bool,
    /// What we show when asked.
    pub identity: Option<CertificateFiles>,
}

/// A certificate with its key in PEM files, absolute and not read by compile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// Leaf first, then intermediates.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    H2,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Balance {
    /// nginx's smooth weighted round robin.
    RoundRobin,
    /// Fewest in-flight requests for its weight; ties in weighted turn.
    LeastConn,
    /// nginx's: by the first three bytes of the client's IPv4 address, or its IPv6 address.
    IpHash,
    /// By chance and weight.
    Random,
    /// The one with fewer in-flight requests of two that chance and weight choose.
    RandomTwo,
    /// The one with the shorter recent answers of two that chance and weight choose.
    Ewma,
    /// nginx's `hash KEY`: shares by weight.
    Hash(Vec<Variable>),
    /// nginx's `hash KEY consistent`: Ketama.
    Consistent(Vec<Variable>),
    /// Maglev.
    Maglev(Vec<Variable>),
}

impl Balance {
    /// What requests are told apart by, for the policies that do; the first that a request has counts. `Some` and empty
    /// for the client's address itself.
    #[must_use]
    pub fn key(&self) -> Option<&[Variable]> {
        match self {
            Self::Hash(key) | Self::Consistent(key) | Self::Maglev(key) => Some(key),
            Self::IpHash => Some(&[]),
            Self::RoundRobin | Self::LeastConn | Self::Random | Self::RandomTwo | Self::Ewma => None,
        }
    }
}

/// As in the file, for people.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) = match self {
            Self::RoundRobin => return f.write_str("round_robin"),
            Self::LeastConn => return f.write_str("least_conn"),
            Self::IpHash => return f.write_str("ip_hash"),
            Self::Random => return f.write_str("random"),
            Self::RandomTwo => return f.write_str("random_two"),
            Self::Ewma => return f.write_str("ewma"),
            Self::Hash(key) => ("hash", key),
            Self::Consistent(key) => ("consistent", key),
            Self::Maglev(key) => ("maglev", key),
        };
        let key: Vec<String> = key.iter().map(ToString::to_string).collect();
        write!(f, "{kind}({})", key.join(", "))
    }
}

/// A value of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// The client's address as text, IPv4 where it was mapped into IPv6.
    ClientAddress,
    /// The host asked for: lower case, without port.
    Host,
    /// The method.
    Method,
    /// The canonical path.
    Path,
    /// The canonical path with the query.
    Target,
    /// The first header field of this name, in lower case.
    Header(String),
    /// The first query parameter of this name, decoded.
    Query(String),
    /// The first cookie of this name.
    Cookie(String),
}

/// As in the file.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Target => f.write_str("target"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Who the endpoints are.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and they live as long as the configuration")]
pub enum EndpointSource {
    /// Servers that others run.
    Servers(Vec<StaticServer>),
    /// Processes that we start.
    Workers(WorkerSpec),
}

/// One server of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticServer {
    /// Where it listens; a name may stand for several.
    pub address: ServerAddress,
    /// 1 to 65,535.
    pub weight: u32,
    /// Its tier: those of a lower number come first.
    pub priority: u32,
    /// Most requests under way at a time.
    pub max_conns: Option<u32>,
    /// Out of service, and with hashes still the owner of its keys.
    pub down: bool,
    /// Failures within `fail_timeout` that take it out, if not those of its upstream; 0 is never.
    pub max_fails: Option<u32>,
    /// Its own, if not that of its upstream.
    pub fail_timeout: Option<Duration>,
}

/// Deadlines towards an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// One connection attempt.
    pub connect: Duration,
    /// All connection attempts of one request together.
    pub total_connect: Duration,
    /// From the end of the request to the response head.
    pub head: Duration,
    /// Between two reads of a response body.
    pub read: Duration,
    /// A request write without any progress.
    pub write: Duration,
    /// An idle pooled connection is closed after this.
    pub idle: Duration,
    /// From the end of the request to the end of the answer; `None` is no limit.
    pub request: Option<Duration>,
    /// The place of a request that took longer is taken for so long, while its worker lives.
    pub abandoned_hold: Duration,
}

/// How a group of identical worker processes is started and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// argv; never empty. May hold the templates of [`Template`].
    pub command: Vec<String>,
    /// How many.
    pub count: WorkerCount,
    /// How they are reached.
    pub transport: WorkerTransport,
    /// Working directory, absolute; `None` is ours.
    pub cwd: Option<PathBuf>,
    /// Set on top of the inherited ones; values may hold templates.
    pub env: BTreeMap<String, String>,
    /// Which of our variables they inherit.
    pub env_inherit: EnvInherit,
    /// Names of our variables that the site file itself refers to (`${NAME}`): never inherited, they may be secrets.
    pub env_secret: Vec<String>,
    /// Account to run as; `None` is ours.
    pub user: Option<String>,
    /// When one may get requests.
    pub ready: Readiness,
    /// How often its connections and requests are tried again then; `None` is never.
    pub ready_interval: Option<Duration>,
    /// What it is asked for then, before it gets requests.
    pub warmup: Option<Warmup>,
    /// From spawn to ready, at most.
    pub boot_timeout: Duration,
    /// In-flight requests may finish for this long before the stop signal.
    pub drain_timeout: Duration,
    /// Tunnels and streams may go on for this long from the beginning of the drain.
    pub stream_grace: Duration,
    /// From the stop signal to SIGKILL.
    pub stop_timeout: Duration,
    /// What runs once before the workers of a generation.
    pub pre_start: Option<PreStart>,
    /// How a new generation takes over.
    pub deploy: DeployPolicy,
    /// When one that serves is replaced.
    pub recycle: Recycle,
    /// When one that ended unasked is started again.
    pub restart: Restart,
    /// When one counts as hung; `None` is never.
    pub hang: Option<Hang>,
    /// What its process is given besides.
    pub launch: LaunchSettings,
    /// What they are; their commands and numbers follow from it already.
    pub program: WorkerProgram,
}

impl WorkerSpec {
    /// `stream_grace` where the file does not say.
    pub const STREAM_GRACE: Duration = Duration::from_secs(5);

    /// As in a file that says nothing but the command.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            count: WorkerCount::Auto,
            transport: WorkerTransport::Unix,
            cwd: None,
            env: BTreeMap::new(),
            env_inherit: EnvInherit::All,
            env_secret: Vec::new(),
            user: None,
            ready: Readiness::Connect,
            ready_interval: None,
            warmup: None,
            boot_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            stream_grace: Self::STREAM_GRACE,
            stop_timeout: Duration::from_secs(10),
            pre_start: None,
            deploy: DeployPolicy::default(),
            recycle: Recycle::default(),
            restart: Restart::default(),
            hang: Some(Hang::default()),
            launch: LaunchSettings::default(),
            program: WorkerProgram::default(),
        }
    }
}

/// How many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerCount {
    /// 1 or more.
    Fixed(u32),
    /// At least 2, else as many as effective CPUs; fewer where memory has no room for them.
    Auto,
}

/// How a worker is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerTransport {
    /// A private unix socket, its path in `{socket}`.
    Unix,
    /// A free port of 127.0.0.1, in `{port}`.
    Port,
    /// A private unix socket that is bound before the worker runs, which inherits it: descriptor [`LISTENER`], in `{fd}`.
    Fd,
}

/// Descriptor under which a worker inherits its socket: where systemd puts the first one.
pub const LISTENER: u32 = 3;

impl WorkerTransport {
    /// As in the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Port => "port",
            Self::Fd => "fd",
        }
    }
}

/// Which of our environment variables a worker inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvInherit {
    /// All but our secrets and service-manager variables.
    All,
    /// PATH, HOME, LANG, TZ, USER and LC_* only.
    Clean,
    /// PATH and these.
    Only(Vec<String>),
}

/// Words in braces that are replaced in argv and environment values of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// `{socket}`: path of the private unix socket.
    Socket,
    /// `{port}`: the private port.
    Port,
    /// `{host}`: `127.0.0.1`.
    Host,
    /// `{slot}`: the worker's small stable number, from 0.
    Slot,
    /// `{generation}`: number of the spawn specification.
    Generation,
    /// `{pool}`: the upstream's name.
    Pool,
    /// `{fd}`: the descriptor of the socket that it inherits.
    Fd,
    /// `{pid_proxy}`: number of the process that supervises.
    PidProxy,
}

impl Template {
    /// Every template, in the order of the documentation.
    pub const ALL: [Self; 8] =
        [Self::Socket, Self::Port, Self::Host, Self::Fd, Self::Slot, Self::Generation, Self::Pool, Self::PidProxy];

    /// The word between the braces.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Port => "port",
            Self::Host => "host",
            Self::Slot => "slot",
            Self::Generation => "generation",
            Self::Pool => "pool",
            Self::Fd => "fd",
            Self::PidProxy => "pid_proxy",
        }
    }
}

/// The admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens: a unix socket (created 0600), or TCP, which compile allows only with a token.
    pub listen: Address,
    /// Bearer token asked of every client when set.
    pub token: Option<Secret>,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Program log and access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Lowest level of the program log.
    pub level: LogLevel,
    /// Shape of the program log.
    pub format: LogFormat,
    /// The access log; `None` writes none.
    pub access: Option<AccessLog>,
}

/// Level of the program log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// We coped.
    Warn,
    /// Life cycle.
    Info,
    /// Per request.
    Debug,
    /// Everything.
    Trace,
}

/// Shape of the program log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes.
    pub to: LogTarget,
    /// Shape of a line.
    pub format: AccessFormat,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file; reopened on SIGUSR1.
    File(PathBuf),
}

/// Shape of an access log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessFormat {
    /// nginx's `combined`.
    Combined,
    /// One JSON object a line.
    Json,
    /// Literal text and variables.
    Template(Vec<AccessPart>),
}

/// Piece of an access log template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessPart {
    /// Copied.
    Literal(String),
    /// Replaced, control bytes escaped; `-` when there is no value.
    Variable(AccessVariable),
}

/// A variable of the access log, by nginx's name where nginx has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessVariable {
    /// `$remote_addr`
    RemoteAddr,
    /// `$remote_user`: always `-` until authentication exists.
    RemoteUser,
    /// `$time_local`
    TimeLocal,
    /// `$time_iso8601`
    TimeIso8601,
    /// `$request`: request line.
    Request,
    /// `$request_method`
    RequestMethod,
    /// `$request_uri`: target as sent.
    RequestUri,
    /// `$uri`: canonical path.
    Uri,
    /// `$host`
    Host,
    /// `$server_protocol`
    ServerProtocol,
    /// `$scheme`
    Scheme,
    /// `$status`
    Status,
    /// `$body_bytes_sent`
    BodyBytesSent,
    /// `$request_length`: bytes of the request body.
    RequestLength,
    /// `$request_time`: seconds with milliseconds.
    RequestTime,
    /// `$request_id`
    RequestId,
    /// `$upstream_name`
    UpstreamName,
    /// `$upstream_addr`
    UpstreamAddr,
    /// `$upstream_status`
    UpstreamStatus,
    /// `$upstream_response_time`: seconds with milliseconds.
    UpstreamResponseTime,
    /// `$upstream_tries`: attempts, those included that found nobody.
    UpstreamTries,
    /// `$site`
    Site,
    /// `$route`
    Route,
    /// `$reason`: why we answered ourselves.
    Reason,
    /// `$ssl_client_verify`: `SUCCESS`, or `NONE` where TLS knows no certificate of the client.
    SslClientVerify,
    /// `$ssl_client_s_dn`: the subject of the client's verified certificate (RFC 4514).
    SslClientSubject,
    /// `$ssl_client_serial`: its serial number, in hexadecimal.
    SslClientSerial,
    /// `$http_<name>`: a field of the request, name in lower case with `-`.
    RequestHeader(String),
}

/// Settings of the process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Threads of the data plane.
    pub shards: ShardCount,
    /// Account to change to once the listeners are bound; `None` stays.
    pub user: Option<String>,
    /// State that outlives the process (local CA); `None` means the platform's default.
    pub state_dir: Option<PathBuf>,
    /// Sockets of workers and admin; `None` means the platform's default.
    pub runtime_dir: Option<PathBuf>,
    /// Caps on connections.
    pub connections: ConnectionLimits,
    /// Temporary files of bodies.
    pub spool: SpoolSettings,
    /// In-flight exchanges may finish for this long.
    pub drain_timeout: Duration,
    /// From the stop signal to exit, in all.
    pub shutdown_timeout: Duration,
    /// Failures of workers before one was ever ready that end the program.
    pub fail_fast: Option<u32>,
}

/// Where bodies are held that are too long for memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Folder of the files; `None` is `spool` in the folder of state.
    pub dir: Option<PathBuf>,
    /// Bytes of all files together.
    pub total: u64,
}

/// Threads of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCount {
    /// One per effective CPU.
    Auto,
    /// 1 to 1,024.
    Fixed(u16),
}

/// Caps on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All clients together; `None` is what the descriptor limit allows.
    pub total: Option<usize>,
    /// For each client address (IPv6 by /64).
    pub per_address: usize,
    /// TLS handshakes under way at a time.
    pub handshakes: usize,
    /// Descriptors kept free for files, logs and the admin endpoint.
    pub fd_reserve: usize,
}

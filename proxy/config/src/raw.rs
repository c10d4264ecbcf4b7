//! The site file as it is written: one struct for each mapping, one doc comment for each key.
//!
//! The published schema is generated from these types, and the file is checked against that same schema, so what is
//! documented is what is accepted. Every doc comment says what the key does, its default and its unit. A field is an
//! `Option` even where the key is required (`schemars(required)`): a file with one faulty key is still compiled, so
//! that its other faults are found in the same run. Nobody but `compile` sees these types.

mod breaker;
mod canary;
mod concurrency;
mod deploy;
mod dns;
mod ejection;
mod error_pages;
mod health_check;
mod launch;
mod limit_choice;
mod preset;
mod ready;
mod sticky;
mod worker_logs;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize as DeriveDeserialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

mod queue;

use crate::model::Rate;
use crate::rate::parse_rate;
use crate::share::{parse_delta, parse_factor, parse_percent};
use crate::status_range::parse_status_range;
use crate::suggest::did_you_mean;
use crate::units::{Reason, parse_duration, parse_size};
pub(crate) use breaker::Breaker;
pub(crate) use canary::{CanaryDelta, DeltaChoice, DeltaWord};
pub(crate) use concurrency::ConcurrencyLimit;
pub(crate) use deploy::{Deploy, DeployStrategy, OnFailure, OnHup, Surge, Unavailable};
pub(crate) use dns::{Dns, Families};
pub(crate) use ejection::{Ejection, EjectionRule, EjectionWord, SuccessRate};
pub(crate) use error_pages::ErrorPageChoice;
pub(crate) use health_check::{GrpcCheck, HealthCheck, HttpCheck};
pub(crate) use launch::{EnvFiles, StopSignal, WorkerLimits};
pub(crate) use limit_choice::LimitChoice;
pub(crate) use preset::Preset;
pub(crate) use queue::{Queue, QueueChoice, QueueOrder, QueueWord};
pub(crate) use ready::{Ready, ReadyWhen, ReadyWord};
pub(crate) use sticky::{SameSite, Secrets, Sticky};
pub(crate) use worker_logs::{Compression, WorkerLogFile, WorkerLogFormat, WorkerLogs, WorkerLogsWord};

mod retry;
pub(crate) use retry::*;

mod hang;
mod recycle;
mod restart;
pub(crate) use hang::{Hang, HangChoice, HangWord};
pub(crate) use recycle::Recycle;
pub(crate) use restart::Restart;

/// A site file: what listens, which sites there are and where their requests go.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteFile {
    /// Files to read as well, relative to this one; `*`, `?` and `[...]` match names, and a pattern that matches
    /// nothing is fine. Lists are joined, `upstreams` are merged by name. Default: none.
    #[schemars(extend("default" = []))]
    pub(crate) include: Option<Vec<String>>,
    /// Sockets that take requests. Required: at least one.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Option<Vec<Listener>>,
    /// Host names with their routes. Default: none, and every request is refused.
    #[schemars(extend("default" = []))]
    pub(crate) sites: Option<Vec<Site>>,
    /// Groups of endpoints by name (1 to 64 letters, digits, `_`, `.`, `-`). Default: none.
    #[schemars(extend("default" = {}))]
    pub(crate) upstreams: Option<Named<Upstream>>,
    /// Kinds of TLS by name (1 to 64 letters, digits, `_`, `.`, `-`), for listeners and sites to refer to. `default` is the
    /// one where nothing is said, and may be given here too. Default: none but that one.
    #[schemars(extend("default" = {}))]
    pub(crate) tls_policies: Option<Named<TlsPolicy>>,
    /// Limits of request rates by name (1 to 64 letters, digits, `_`, `.`, `-`), for sites and routes to refer to. All that
    /// refer to one share its levels, and a reload keeps them. Default: none.
    #[schemars(extend("default" = {}))]
    pub(crate) rate_limits: Option<Named<RateLimit>>,
    /// Limits of requests under way by name (1 to 64 letters, digits, `_`, `.`, `-`), for sites and routes to refer to. All
    /// that refer to one share what it counts, and a reload keeps it. Default: none.
    #[schemars(extend("default" = {}))]
    pub(crate) concurrency_limits: Option<Named<ConcurrencyLimit>>,
    /// How names of servers are resolved, for all upstreams. Default: as the system does.
    pub(crate) dns: Option<Dns>,
    /// The admin endpoint. Default: a private unix socket.
    pub(crate) admin: Option<Admin>,
    /// Program log and access log. Default: both on, access log to standard output.
    pub(crate) logging: Option<Logging>,
    /// Settings of the process as a whole. Default: one shard per CPU.
    pub(crate) server: Option<Server>,
}

/// A socket, its protocol and TLS mode.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Name by which sites refer to it. Default: the address as written.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) name: Option<String>,
    /// Where it listens: `:80` (all IPv6 and IPv4 addresses), `127.0.0.1:80`, `[::1]:80` or `unix:/path` (at most 107
    /// bytes). Port 0 takes a free port. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) address: Option<String>,
    /// Speak TLS (HTTP/1.1 and HTTP/2); certificates come from the sites, by server name. Default: absent, plaintext.
    pub(crate) tls: Option<ListenerTls>,
    /// Take HTTP/2 by prior knowledge on this plaintext listener. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) h2c: Option<bool>,
    /// Name of the site that answers when no site's host matches; it must be on this listener. Default: none, such
    /// requests are refused with 404 or 421.
    #[schemars(length(min = 1))]
    pub(crate) default_site: Option<String>,
    /// Most connections at a time; more are closed at once. Default: no cap of its own. Unit: connections.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_connections: Option<usize>,
    /// Expect a PROXY protocol header (version 1 or 2) before anything else. Default: absent, none is accepted.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Whom to believe about the client's address. Default: absent, nobody but the connection itself.
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    /// A client that ends its sending side after an HTTP/1.1 request: `serve` it all the same, or `abort` the request.
    /// Until an answer is written, one that has closed for good looks the same. Default: serve.
    #[schemars(extend("default" = "serve"))]
    pub(crate) half_close: Option<HalfClose>,
    /// Deadlines of a client's connection.
    pub(crate) timeouts: Option<ClientTimeouts>,
    /// Sizes a request head may have.
    pub(crate) head_limits: Option<HeadLimits>,
    /// What an HTTP/2 connection may use. For listeners with `tls` or `h2c`.
    pub(crate) http2: Option<Http2>,
    /// How HTTP/1.1 requests are read: `lenient` takes what nginx takes besides, namely lines that end in LF alone, spare
    /// empty lines and spaces around the request line, and HTTP/1.2 to 1.9 for 1.1; fields with an underscore in their
    /// name are dropped. Ambiguous framing is refused by both. Default: strict.
    #[schemars(extend("default" = "strict"))]
    pub(crate) parsing: Option<Parsing>,
}

/// How HTTP/1.1 heads are read. Ambiguous framing is refused by both.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parsing {
    /// As RFC 9112 asks senders to write them.
    Strict,
    /// As nginx reads them.
    Lenient,
}

/// TLS of a listener: `tls: {}` takes every default.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// Name of the TLS policy for sites without one of their own. Default: default.
    #[schemars(length(min = 1), extend("default" = "default"))]
    pub(crate) policy: Option<String>,
}

/// How clients do TLS: versions, algorithms, client certificates, resumption. Sessions are resumed within one policy only.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsPolicy {
    /// Oldest version that is spoken: `1.2` or `1.3`. Default: 1.2.
    #[schemars(extend("default" = "1.2"))]
    pub(crate) min_version: Option<Text>,
    /// Cipher suites that are used, by their IANA names. Default: all nine that are known here.
    #[schemars(length(min = 1))]
    pub(crate) cipher_suites: Option<Vec<CipherSuite>>,
    /// Key exchange groups that are used, the preferred one first. Default: X25519, secp256r1, secp384r1,
    /// X25519MLKEM768.
    #[schemars(length(min = 1))]
    pub(crate) key_exchange: Option<Vec<KeyExchange>>,
    /// Protocols that are offered, the preferred one first; a client that asks for none speaks HTTP/1.1. Default: h2,
    /// http/1.1.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Option<Vec<Alpn>>,
    /// Ask clients for a certificate. Default: absent, clients are not asked.
    pub(crate) client_certificates: Option<ClientCertificates>,
    /// Give clients tickets to resume their sessions with; the keys live in memory and change every 12 hours. Default:
    /// true.
    #[schemars(extend("default" = true))]
    pub(crate) tickets: Option<bool>,
    /// Sessions kept for clients that resume without a ticket; 0 keeps none. Default: 8192. Unit: sessions.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 8192))]
    pub(crate) session_cache: Option<usize>,
}

/// A cipher suite by its IANA name.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
pub(crate) enum CipherSuite {
    /// TLS 1.3.
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    TlsAes256GcmSha384,
    /// TLS 1.3.
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    TlsAes128GcmSha256,
    /// TLS 1.3.
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    TlsChacha20Poly1305Sha256,
    /// TLS 1.2, ECDSA or Ed25519 certificates.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    TlsEcdheEcdsaWithAes256GcmSha384,
    /// TLS 1.2, ECDSA or Ed25519 certificates.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    TlsEcdheEcdsaWithAes128GcmSha256,
    /// TLS 1.2, ECDSA or Ed25519 certificates.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    TlsEcdheEcdsaWithChacha20Poly1305Sha256,
    /// TLS 1.2, RSA certificates.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    TlsEcdheRsaWithAes256GcmSha384,
    /// TLS 1.2, RSA certificates.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    TlsEcdheRsaWithAes128GcmSha256,
    /// TLS 1.2, RSA certificates.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    TlsEcdheRsaWithChacha20Poly1305Sha256,
}

/// A key exchange group by its IANA name.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
pub(crate) enum KeyExchange {
    /// Curve25519.
    X25519,
    /// NIST P-256.
    #[serde(rename = "secp256r1")]
    Secp256r1,
    /// NIST P-384.
    #[serde(rename = "secp384r1")]
    Secp384r1,
    /// Curve25519 and ML-KEM-768 together, safe from quantum computers; TLS 1.3.
    X25519MLKEM768,
}

/// A protocol inside TLS.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
pub(crate) enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

/// Certificates that clients are asked for.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificates {
    /// Who may issue them: certificates in PEM; relative to this file's folder. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) ca: Option<String>,
    /// Whether a client without one is turned away. Default: require.
    #[schemars(extend("default" = "require"))]
    pub(crate) mode: Option<ClientCertificateMode>,
    /// Tell endpoints by the field `Client-Cert` (RFC 9440), which is never taken from clients. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) forward: Option<bool>,
}

/// Whether a client without a certificate is turned away.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientCertificateMode {
    /// Its handshake fails.
    Require,
    /// It is served; a certificate that does not verify fails the handshake all the same.
    Optional,
}

/// The PROXY protocol of a listener: balancers before us tell by it whom they speak for.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// Who must send the header: networks (`10.0.0.0/8`), addresses, `private`, `loopback` or `unix`. Others are
    /// ordinary clients, from whom a header is refused. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) from: Option<Vec<String>>,
    /// From the connection to the end of the header. Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) timeout: Option<PositiveTime>,
}

/// Proxies before us whose word about the client is taken.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustedProxies {
    /// Who they are: networks (`10.0.0.0/8`), addresses, `private`, `loopback` or `unix`. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) from: Option<Vec<String>>,
    /// The field they write; it is read from its end, as far as it was written by them. Default: x_forwarded_for.
    #[schemars(extend("default" = "x_forwarded_for"))]
    pub(crate) header: Option<ForwardedHeader>,
}

/// What becomes of a request whose client sends nothing more.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HalfClose {
    /// It is answered.
    Serve,
    /// It is given up.
    Abort,
}

/// A field that names the client.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Deadlines of a client's connection; none may be zero.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientTimeouts {
    /// TLS handshake, in all. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake: Option<PositiveTime>,
    /// Request head, in all, for the first and for every later request. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) head: Option<PositiveTime>,
    /// Connection without a request under way. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) idle: Option<PositiveTime>,
    /// Between two reads of a request body. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) body_idle: Option<PositiveTime>,
    /// Slowest pace of a request body: `off`, or a rate and the time over which it is measured. Default:
    /// `{ rate: 500B/s, over: 30s }`.
    pub(crate) body_rate: Option<BodyRate>,
    /// A response write without any progress. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) write_idle: Option<PositiveTime>,
    /// An upgraded connection (WebSocket) on which neither side sends. Default: 1h. Unit: duration.
    #[schemars(extend("default" = "1h"))]
    pub(crate) tunnel_idle: Option<PositiveTime>,
}

/// The slowest pace of a request body.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum BodyRate {
    /// A word.
    Word(BodyRateWord),
    /// A rate.
    Least(LeastRate),
}

/// No slowest pace.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyRateWord {
    /// Any pace will do.
    Off,
}

/// The slowest pace of a request body; time in which we do not wait for the client does not count.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeastRate {
    /// Bytes in a second. Default: 500B/s. Unit: size per second.
    #[schemars(extend("default" = "500B/s"))]
    pub(crate) rate: Option<ByteRate>,
    /// Time over which it is measured, of waiting for the client. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) over: Option<PositiveTime>,
}

/// Sizes a request head may have; over them the answer is 431 or, for the target, 414.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadLimits {
    /// All bytes of the head. Default: 32KiB. Unit: size, 4KiB to 1MiB.
    #[schemars(extend("default" = "32KiB"))]
    pub(crate) bytes: Option<PositiveSize>,
    /// Number of fields. Default: 100. Unit: fields, 10 to 1000.
    #[schemars(range(min = 10, max = 1000), extend("default" = 100))]
    pub(crate) fields: Option<usize>,
    /// Bytes of the request target. Default: 8KiB. Unit: size, 256B to 64KiB, less than `bytes`.
    #[schemars(extend("default" = "8KiB"))]
    pub(crate) target: Option<PositiveSize>,
}

/// What an HTTP/2 connection may use.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http2 {
    /// Requests under way at once; more are refused, which a client may try again. Default: 100. Unit: streams, 1 to 1000.
    #[schemars(range(min = 1, max = 1000), extend("default" = 100))]
    pub(crate) streams: Option<u32>,
    /// Requests that a client may break off, or get wrong, within 10s; a connection with more is ended. Default: 100. Unit:
    /// streams, 10 to 10000.
    #[schemars(range(min = 10, max = 10000), extend("default" = 100))]
    pub(crate) resets: Option<u32>,
    /// Bytes of one request body that may be on their way before we have read them; more make uploads over long distances
    /// faster. Default: 256KiB. Unit: size, 16KiB to 16MiB.
    #[schemars(extend("default" = "256KiB"))]
    pub(crate) stream_window: Option<PositiveSize>,
    /// The same for all streams of a connection together. Default: 1MiB, or four times `stream_window`. Unit: size, 64KiB to
    /// 64MiB, not less than `stream_window`.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) connection_window: Option<PositiveSize>,
}

/// Host names, a certificate and ordered routes.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    /// Name by which listeners and logs refer to it. Default: its first host.
    #[schemars(length(min = 1, max = 255))]
    pub(crate) name: Option<String>,
    /// Host names it answers for: `api.example.com`, `*.example.org` (one label or more), `*` (any), or an IP address.
    /// Required: at least one.
    #[schemars(required, length(min = 1))]
    pub(crate) hosts: Option<Vec<String>>,
    /// Names of the listeners it answers on. Default: all.
    #[schemars(length(min = 1))]
    pub(crate) listeners: Option<Vec<String>>,
    /// Where its certificate comes from. Required when one of its listeners has TLS, refused when none has.
    pub(crate) tls: Option<Box<SiteTls>>,
    /// Name of the TLS policy that its clients must have used. Default: that of the listener.
    #[schemars(length(min = 1))]
    pub(crate) tls_policy: Option<Box<str>>,
    /// Longest request body of its routes. Default: 1MiB. Unit: size.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) max_body: Option<PositiveSize>,
    /// Which bodies of its routes are held while a client sends or takes them slowly.
    pub(crate) buffer: Option<Box<Buffer>>,
    /// How often its routes may be asked for, unless they say so themselves: the name of one of `rate_limits`, a limit of this
    /// site alone, or a list of names. Default: without a limit.
    pub(crate) rate_limit: Option<Box<LimitChoice<RateLimit, RateLimitUse>>>,
    /// How many requests to its routes may be under way for a client, unless they say so themselves: the name of one of
    /// `concurrency_limits`, a limit of this site alone, or a list of names. Default: without a limit.
    pub(crate) concurrency: Option<Box<LimitChoice<ConcurrencyLimit, String>>>,
    /// When requests of its routes are tried again, or `off`. Default: as their upstreams.
    pub(crate) retry: Option<Box<RetryChoice>>,
    /// The longest time from a request's head to the end of its answer, tries and waits included: 504 before the answer has
    /// begun, a visible break after; or `off`. WebSockets are exempt once they are open. Default: off. Unit: duration.
    #[schemars(extend("default" = "off"))]
    pub(crate) deadline: Option<Text>,
    /// Files that stand for our own answers to refused requests, by status (`503`) or class (`4xx`, `5xx`): a file that ends
    /// in `.html`, `.json` or `.txt`, relative to this one, up to 256KiB; a list of different kinds, of which clients get what
    /// they accept; or `off`. Answers of endpoints are never replaced. Default: our own form.
    pub(crate) error_pages: Option<Box<Named<ErrorPageChoice>>>,
    /// In which form its routes forward the path. Default: canonical.
    #[schemars(extend("default" = "canonical"))]
    pub(crate) forward_path: Option<ForwardPath>,
    /// What becomes of requests. Required: at least one.
    #[schemars(required, length(min = 1))]
    pub(crate) routes: Option<Vec<Route>>,
}

/// Where a site's certificate comes from.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum SiteTls {
    /// A word.
    Word(SiteTlsWord),
    /// PEM files.
    Files(SiteTlsFiles),
}

/// A certificate without files.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SiteTlsWord {
    /// Issued by a local CA kept in the state directory; for development.
    Internal,
}

/// A certificate in PEM files.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteTlsFiles {
    /// Certificate chain in PEM, leaf first; relative to this file's folder. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) certificate: Option<String>,
    /// Private key in PEM (PKCS#8, PKCS#1 or SEC1); relative to this file's folder. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) key: Option<String>,
}

/// One rule: which requests, and what becomes of them. Exactly one of `proxy`, `respond` and `routes`.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Which paths, as in nginx: `/p` (prefix, ends at a segment boundary; the longest wins), `= /p` (exact, wins over
    /// all), `^~ /p` (prefix that stops regexes), `~ regex`, `~* regex` (without case). Required.
    #[schemars(required, length(min = 1))]
    pub(crate) path: Option<String>,
    /// Name in logs and metrics. Default: the path as written, behind the methods if there are any (`GET,HEAD /api/`);
    /// routes beside each other need different names.
    #[schemars(length(min = 1, max = 255))]
    pub(crate) name: Option<String>,
    /// Only these methods. Default: all.
    #[schemars(length(min = 1))]
    pub(crate) methods: Option<Vec<String>>,
    /// Only with these header fields: `"*"` present, `"~ regex"`, `"~* regex"` (without case), else exactly this value.
    /// Default: no condition.
    pub(crate) headers: Option<Named<Text>>,
    /// Only with these query parameters; values as for `headers`. Default: no condition.
    pub(crate) query: Option<Named<Text>>,
    /// Only with these cookies; values as for `headers`. Default: no condition.
    pub(crate) cookies: Option<Named<Text>>,
    /// Longest request body; longer ones are answered with 413. Default: that of the outer route or site. Unit: size.
    pub(crate) max_body: Option<PositiveSize>,
    /// Which bodies are held while a client sends or takes them slowly. Default: as the outer route or site.
    pub(crate) buffer: Option<Box<Buffer>>,
    /// How often it may be asked for: the name of one of `rate_limits`, a limit of this route alone, a list of names of
    /// which all must admit a request, or `off` for none. Default: that of the outer route or site.
    pub(crate) rate_limit: Option<Box<LimitChoice<RateLimit, RateLimitUse>>>,
    /// How many requests to it may be under way for a client: the name of one of `concurrency_limits`, a limit of this route
    /// alone, a list of names of which all must admit a request, or `off` for none. Default: that of the outer route or site.
    pub(crate) concurrency: Option<Box<LimitChoice<ConcurrencyLimit, String>>>,
    /// When requests are tried again, or `off`. Default: as the outer route, site or upstream.
    pub(crate) retry: Option<Box<RetryChoice>>,
    /// The longest time from a request's head to the end of its answer, or `off`. Default: that of the outer route or site.
    /// Unit: duration.
    pub(crate) deadline: Option<Text>,
    /// Files that stand for our own answers to refused requests, as in a site. Default: those of the outer route or site, for
    /// each status and class that is not given here.
    pub(crate) error_pages: Option<Box<Named<ErrorPageChoice>>>,
    /// In which form the path is forwarded. Default: that of the outer route or site.
    pub(crate) forward_path: Option<ForwardPath>,
    /// Forward to the upstream of this name.
    #[schemars(length(min = 1))]
    pub(crate) proxy: Option<String>,
    /// Answer at once.
    pub(crate) respond: Option<Respond>,
    /// Inner routes, tried among themselves; their paths lie under this one, and what matches none gets 404.
    #[schemars(length(min = 1))]
    pub(crate) routes: Option<Vec<Self>>,
}

/// Bodies that are held, in memory first and then in an unlinked temporary file, so that a slow client keeps no worker
/// busy. Not for upstreams with `protocol: h2`.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Buffer {
    /// A request body is complete before an endpoint is chosen: `on` (whole, up to `max_body`), `off` (passed on as it
    /// comes), or the most bytes to hold, the rest of which is passed on as it comes. Default: on for workers, off for
    /// servers. Unit: size.
    pub(crate) request: Option<Holding>,
    /// What a client does not take yet of a response body is held: `on` (16MiB), `off`, or the most bytes. What has come
    /// is always passed on at once. Event streams and answers with `X-Accel-Buffering: no` are not held. Default: on
    /// with HTTP/1.1 endpoints. Unit: size.
    pub(crate) response: Option<Holding>,
}

/// One of several limits of a route.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RateLimitUse {
    /// A name.
    Name(String),
    /// A name, and what a request counts.
    Cost(RateLimitCost),
}

/// A limit of which a request takes more than one share.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimitCost {
    /// Name of one of `rate_limits`. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) limit: Option<String>,
    /// What a request of this route counts: it is admitted like any other, and then so many count as admitted. Default: 1.
    /// Unit: requests, 1 to 1000.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub(crate) cost: Option<u32>,
}

/// How many requests of one client are admitted in a time, as nginx's `limit_req` does it: a request that comes sooner than
/// the rate has it is delayed until its time, and refused when more than `burst` requests are ahead of the rate.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// How many requests in a time: `10/s`, `30/m`, `1000/h`, `100 per 60s`; nginx's `10r/s` means the same. From one in a
    /// day to a million in a second. Required.
    #[schemars(required)]
    pub(crate) rate: Option<RequestRate>,
    /// Requests that may be ahead of the rate; more are refused. Default: 0. Unit: requests, 0 to 100000.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 0))]
    pub(crate) burst: Option<u32>,
    /// Whether requests ahead of the rate are served at once. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) nodelay: Option<bool>,
    /// Requests ahead of the rate that are served at once; those beyond wait. Not with `nodelay`. Default: 0. Unit: requests,
    /// 0 to `burst`.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 0))]
    pub(crate) delay: Option<u32>,
    /// What clients are told apart by: a variable (`client_address`, `host`, `method`, `path`, `target`, `header:NAME`,
    /// `query:NAME`, `cookie:NAME`), or a list of which the first that the request has counts. A request with none counts
    /// for its client's address; an IPv6 client for its network of 64 bits. Default: client_address.
    #[schemars(extend("default" = "client_address"))]
    pub(crate) key: Option<Variables>,
    /// Status of a request that is refused, 400 to 599. Default: 429.
    #[schemars(range(min = 400, max = 599), extend("default" = 429))]
    pub(crate) status: Option<u16>,
    /// Fields that tell every client how much is left: `standard` (`RateLimit`, `RateLimit-Policy`), `legacy`
    /// (`X-RateLimit-Limit`, `-Remaining`, `-Reset`), `all` or `off`. Default: off.
    #[schemars(extend("default" = "off"))]
    pub(crate) headers: Option<RateLimitHeaders>,
    /// Only count what would be delayed or refused, and serve it. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) dry_run: Option<bool>,
    /// Clients that are never limited: networks (`10.0.0.0/8`), addresses, `private` or `loopback`. Default: none.
    #[schemars(extend("default" = []))]
    pub(crate) allow: Option<Vec<String>>,
    /// Clients that are remembered at a time, 16 bytes each; of more, those with the least on their account are forgotten.
    /// Default: 262144. Unit: clients, 1024 to 4194304.
    #[schemars(range(min = 1024, max = 4_194_304), extend("default" = 262_144))]
    pub(crate) entries: Option<u32>,
}

/// Fields that tell a client of its limits.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RateLimitHeaders {
    /// None.
    Off,
    /// `RateLimit` and `RateLimit-Policy`.
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    Legacy,
    /// Both.
    All,
}

/// In which form a path is forwarded.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ForwardPath {
    /// The form that was matched.
    Canonical,
    /// As the client sent it.
    Raw,
}

/// An answer that needs no upstream.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Respond {
    /// Status code, 200 to 599. Default: 200.
    #[schemars(range(min = 200, max = 599), extend("default" = 200))]
    pub(crate) status: Option<u16>,
    /// Header fields, in this order. Default: `content-type: text/plain; charset=utf-8`.
    pub(crate) headers: Option<Named<Text>>,
    /// The body. Default: empty.
    #[schemars(extend("default" = ""))]
    pub(crate) body: Option<String>,
}

/// A group of endpoints. Exactly one of `servers` and `workers`.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// What its endpoints speak. Default: http1.
    #[schemars(extend("default" = "http1"))]
    pub(crate) protocol: Option<UpstreamProtocol>,
    /// How an endpoint is chosen: a word, or a mapping with one key for choices by a value of the request. Default:
    /// round_robin.
    #[schemars(extend("default" = "round_robin"))]
    pub(crate) balance: Option<Balance>,
    /// How long an endpoint that is new or back gets less than its share: it grows from a tenth in ten steps, and beside
    /// workers that are not new so do a new worker's places (`cap`), from one. Not with choices by a value, whose keys would
    /// move at each step. Default: 0s, at once. Unit: time.
    #[schemars(extend("default" = "0s"))]
    pub(crate) slow_start: Option<Time>,
    /// Most requests under way with all endpoints together; more wait in the `queue`. A WebSocket counts until it is
    /// established. Default: no limit. Unit: requests.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_in_flight: Option<u32>,
    /// Most requests under way with each endpoint, servers without `max_conns` and workers alike; more go to other
    /// endpoints or wait in the `queue`. Default: no limit for servers, `workers.cap` for workers. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_in_flight_per_endpoint: Option<u32>,
    /// Most WebSockets and long streams through each endpoint. They count apart from requests under way, because they last: a
    /// WebSocket beyond this is refused (503, `tunnels_full`), a stream goes on counting as a request. An endpoint with a limit
    /// of requests has no more connections from us than both together and two. Not for `protocol: h2`. Default: 1000 for
    /// workers, no limit for servers. Unit: connections.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) max_tunnels: Option<u32>,
    /// How long an answer streams before it counts as one of `max_tunnels` instead of a request under way, so that it keeps
    /// nobody waiting: a time, or `off`. Not for `protocol: h2`. Default: 10s for workers, but off for those of which each
    /// request takes a thread (gunicorn's sync and gthread, puma); off for servers. Unit: duration.
    pub(crate) stream_after: Option<Text>,
    /// What becomes of requests that no endpoint can take at once: `off` refuses them, else they wait within bounds.
    /// Default: they wait, all bounds at their defaults.
    pub(crate) queue: Option<QueueChoice>,
    /// Speak TLS with the servers; over HTTP/1.1 only. Default: absent, plaintext.
    pub(crate) tls: Option<UpstreamTls>,
    /// Begin each connection with a PROXY protocol header of this version, which names the client; such a connection
    /// serves one request, because the next one may be of another client. Over HTTP/1.1 only. Default: none.
    pub(crate) proxy_protocol: Option<ProxyHeader>,
    /// Servers that others run, by address or name. A request never waits for a name once it has been answered for.
    #[schemars(length(min = 1))]
    pub(crate) servers: Option<Vec<StaticServer>>,
    /// How the names of its servers are resolved, where that differs from `dns` of the file. Default: as there.
    pub(crate) dns: Option<Dns>,
    /// Processes to start and keep alive.
    pub(crate) workers: Option<Workers>,
    /// Deadlines towards an endpoint.
    pub(crate) timeouts: Option<UpstreamTimeouts>,
    /// Idle connections kept, for each endpoint and shard; 0 keeps none. Default: 32. Unit: connections.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 32))]
    pub(crate) idle_connections: Option<usize>,
    /// How HTTP/1.1 answers are read: `lenient` takes heads whose lines end in LF alone, and HTTP/1.2 to 1.9 for 1.1.
    /// Ambiguous framing is refused by both; answers that end with their connection are taken by both. Not for
    /// `protocol: h2`. Default: strict.
    #[schemars(extend("default" = "strict"))]
    pub(crate) parsing: Option<Parsing>,
    /// Endpoints that fail requests are left alone for a time: `off`, or when and for how long. Default: after 3 failures
    /// in 10s, for 10s and each further time 10s longer.
    pub(crate) ejection: Option<Ejection>,
    /// Servers are asked whether they are well, beside the requests. Default: absent, not.
    pub(crate) health_check: Option<HealthCheck>,
    /// When requests are tried again, or `off`. Sites and routes may say otherwise.
    pub(crate) retry: Option<Box<RetryChoice>>,
    /// What retries may come to, or `off` for as many as there are. Default: 20% of recent requests, at least 10/s.
    pub(crate) retry_budget: Option<RetryBudgetChoice>,
    /// After too many failures nobody is sent for a while, and then a few to see. Default: absent, none.
    pub(crate) breaker: Option<Breaker>,
    /// Whether the program counts as ready (`/readyz` of the admin endpoint) only while an endpoint of this upstream is in
    /// service. Whether it is alive (`/healthz`) never depends on that. Default: true.
    #[schemars(extend("default" = true))]
    pub(crate) required: Option<bool>,
    /// Tell endpoints when a request began, by `X-Request-Start: t=` and microseconds since 1970; monitoring of applications
    /// makes the time in the queue of it. What clients send under this name is taken out then. Default: true for workers,
    /// false for servers.
    pub(crate) request_start: Option<bool>,
    /// Tell clients how long a request waited for an endpoint, by `Server-Timing: queue;dur=` and milliseconds, beside what
    /// the endpoint says there. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) server_timing: Option<bool>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProxyHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// TLS with servers: `tls: {}` verifies them against the system's CAs, by their name or address.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// Who may issue the servers' certificates: certificates in PEM; relative to this file's folder. Default: the
    /// system's CAs.
    #[schemars(length(min = 1))]
    pub(crate) ca: Option<String>,
    /// Name that is asked for and that the certificate must have. Default: the name of the server, with `srv` that of the
    /// record's target, or its IP address where it has no name.
    #[schemars(length(min = 1, max = 253))]
    pub(crate) server_name: Option<String>,
    /// Whether the certificate is verified; without, anybody in between can be the server. Default: true.
    #[schemars(extend("default" = true))]
    pub(crate) verify: Option<bool>,
    /// Certificate chain in PEM that we show, leaf first; relative to this file's folder. Default: none is shown.
    #[schemars(length(min = 1))]
    pub(crate) certificate: Option<String>,
    /// Private key of `certificate` in PEM; relative to this file's folder. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) key: Option<String>,
}

/// What endpoints speak.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge, over TCP only.
    H2,
}

/// How an endpoint is chosen.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Balance {
    /// A word.
    Word(BalanceWord),
    /// By a value of the request.
    Key(BalanceKey),
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BalanceWord {
    /// In turn, by weight, as nginx does.
    RoundRobin,
    /// Fewest requests under way for its weight.
    LeastConn,
    /// By the client's address as nginx does: one endpoint for each IPv4 network of 256 addresses, or IPv6 address.
    IpHash,
    /// By chance and weight.
    Random,
    /// Of two by chance the one with fewer requests under way.
    RandomTwo,
    /// Of two by chance the one that answers faster lately, for the requests under way there.
    Ewma,
}

/// A choice by a value of the request. Exactly one key. Requests without the value go in turn, and so do those whose
/// endpoints are out of service.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalanceKey {
    /// Shares by weight, as nginx's `hash`: most keys move when an endpoint comes or goes. A variable (`client_address`,
    /// `host`, `method`, `path`, `target`, `header:NAME`, `query:NAME`, `cookie:NAME`), or a list of which the first that
    /// the request has counts. Default: none.
    pub(crate) hash: Option<Variables>,
    /// Points on a ring (Ketama), as nginx's `hash ... consistent`: few keys move. 160 points for each unit of weight, and
    /// 1,048,576 altogether: where weights ask for more, they say how these are divided. Variables as for `hash`. Default:
    /// none.
    pub(crate) consistent: Option<Variables>,
    /// A Maglev table: few keys move, and shares are even. Variables as for `hash`. Default: none.
    pub(crate) maglev: Option<Variables>,
    /// By a cookie that keeps clients with their endpoint. Default: none.
    pub(crate) sticky: Option<Box<Sticky>>,
}

/// What requests are told apart by.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Variables {
    /// A variable.
    One(String),
    /// Several, of which the first that a request has counts.
    Several(#[schemars(length(min = 1, max = 8))] Vec<String>),
}

/// One server, or all that a name stands for. Exactly one of `address` and `srv`; what else is said holds for each of its
/// addresses.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticServer {
    /// Where it listens: `10.0.0.1:8000`, `[::1]:8000`, `unix:/path`, or a name and a port, `api.internal:8000`, which is
    /// every address of the name and is resolved anew when its records end. A name that does not resolve has no endpoint
    /// until it does; start and reload do not wait for it.
    #[schemars(length(min = 1))]
    pub(crate) address: Option<String>,
    /// Name whose SRV records say host, port, weight and priority (RFC 2782), such as `_http._tcp.api.internal`. Records
    /// of the lowest priority come first, those of higher ones as further tiers behind this server's own priority.
    #[schemars(length(min = 1))]
    pub(crate) srv: Option<String>,
    /// Its share of the requests; not with `srv`, whose records say it. Default: 1. Unit: parts, 1 to 65535.
    #[schemars(range(min = 1, max = 65535), extend("default" = 1))]
    pub(crate) weight: Option<u32>,
    /// Gets requests only while no other server can take them; the same as `priority: 1`. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) backup: Option<bool>,
    /// Its tier: servers of a higher number get requests only while none of a lower one can take them. Default: 0.
    /// Unit: rank, 0 to 255.
    #[schemars(range(min = 0, max = 255), extend("default" = 0))]
    pub(crate) priority: Option<u32>,
    /// Most requests under way at a time; more go to other servers or wait in the upstream's `queue`. Default:
    /// `max_in_flight_per_endpoint`. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_conns: Option<u32>,
    /// Out of service. With choices by a value it keeps its keys, which go elsewhere meanwhile. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) down: Option<bool>,
    /// Failures within `fail_timeout` that take it out of service for a time; 0 is never. Default: that of `ejection`. Unit:
    /// failures.
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) max_fails: Option<u32>,
    /// Time within which its failures count together, and for which it is out then. Default: that of `ejection`. Unit:
    /// duration.
    pub(crate) fail_timeout: Option<PositiveTime>,
}

/// A group of identical worker processes.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workers {
    /// What the workers are: a server program of which all is known, so that `app` is enough, or `custom`. Default:
    /// custom.
    #[schemars(extend("default" = "custom"))]
    pub(crate) preset: Option<Preset>,
    /// Program and arguments, as a list; no shell. `{socket}`, `{port}`, `{host}`, `{fd}`, `{slot}`, `{generation}`, `{pool}`
    /// and `{pid_proxy}` are replaced, `{{` is a brace. With a preset only what starts its program, such as `[venv/bin/uvicorn]`. Default:
    /// the preset's own name; without a preset it is required.
    #[schemars(length(min = 1))]
    pub(crate) command: Option<Vec<Text>>,
    /// The application, in the form of the preset's program: `main:app`, `server.js`. Default: none; every preset but
    /// `puma` needs one.
    #[schemars(length(min = 1))]
    pub(crate) app: Option<String>,
    /// More arguments for the preset's program; they win over what the preset says. Words in braces as in `command`.
    /// Default: none.
    #[schemars(extend("default" = []))]
    pub(crate) args: Option<Vec<Text>>,
    /// How long a worker keeps an idle connection; a preset tells its program so where that can be told. Our own idle
    /// connections (`timeouts.idle`) end a second before it. Default: that of the preset, else not known. Unit: time.
    pub(crate) keep_alive: Option<Time>,
    /// Most requests under way with each worker; more go to other workers or wait in the `queue`. The same as
    /// `max_in_flight_per_endpoint`. Default: that of the preset, else no limit. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) cap: Option<u32>,
    /// How many: a number, or `auto` for one per CPU but at least 2, and no more than memory has room for with a deploy under
    /// way. `auto` follows CPUs and memory as they change. Default: auto.
    #[schemars(extend("default" = "auto"))]
    pub(crate) count: Option<WorkerCount>,
    /// Working directory, relative to this file's folder. Default: that of the program.
    #[schemars(length(min = 1))]
    pub(crate) cwd: Option<String>,
    /// Environment variables to set; values may hold the words in braces of `command`. Default: none.
    #[schemars(extend("default" = {}))]
    pub(crate) env: Option<Named<Text>>,
    /// Which variables are inherited: `all` but secrets, `clean` (PATH, HOME, LANG, TZ, USER, LC_*), or PATH and these
    /// names. Default: all.
    #[schemars(extend("default" = "all"))]
    pub(crate) env_inherit: Option<EnvInherit>,
    /// A file of environment variables, or a list: one `NAME=value` a line, relative to this file's folder. Read anew for each
    /// generation, so `tidegate deploy` takes over what has changed. `env` wins over it, and so does what workers are told of
    /// themselves, as `PORT` and `WEB_CONCURRENCY`. Default: none.
    pub(crate) env_file: Option<EnvFiles>,
    /// Account to run as. Default: that of the program.
    #[schemars(length(min = 1))]
    pub(crate) user: Option<String>,
    /// What each worker may use. Default: what the program may, with open files as they were before it raised its limit.
    pub(crate) limits: Option<WorkerLimits>,
    /// Permissions that files workers create do not get, in octal digits. Default: 0022.
    #[schemars(extend("default" = "0022"))]
    pub(crate) umask: Option<Text>,
    /// The signal on which workers finish and end. Default: TERM.
    #[schemars(extend("default" = "TERM"))]
    pub(crate) stop_signal: Option<StopSignal>,
    /// How workers are reached: `unix` and `port` tell them where to listen, with `fd` they inherit a socket that listens already.
    /// Default: unix, with the preset `node` port.
    pub(crate) transport: Option<WorkerTransport>,
    /// When a worker may get requests: `connect`, `notify`, or a mapping such as `{ http: /healthz }`. Default: connect,
    /// with the preset `gunicorn` and with `transport: fd` `{ http: / }`.
    pub(crate) ready: Option<Ready>,
    /// Paths that a new worker is asked for once it is ready, one after the other and each once, before it gets requests:
    /// what is slow only the first time is then slow for nobody. Any answer below 500 will do, and is read to its end. With
    /// another one the worker has failed to start. Default: none.
    #[schemars(length(min = 1), extend("default" = []))]
    pub(crate) warmup: Option<Vec<String>>,
    /// For all paths of `warmup` together; a worker that takes longer has failed to start. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) warmup_timeout: Option<PositiveTime>,
    /// From start to ready, at most; what `warmup` takes comes on top. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) boot_timeout: Option<PositiveTime>,
    /// Requests under way may finish for this long before the stop signal. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain_timeout: Option<Time>,
    /// Once requests have finished, what streams may go on for this long from the beginning of the drain before the stop
    /// signal, by which a program ends it itself: WebSockets, event streams and what counts as a stream (`stream_after`).
    /// Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) stream_grace: Option<Time>,
    /// From the stop signal to SIGKILL. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) stop_timeout: Option<Time>,
    /// Program and arguments of a command that runs once for each generation, before its first worker is started: as the
    /// workers' account, in their folder and environment, but for what differs from worker to worker. When it fails, the
    /// generation is given up. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) pre_start: Option<Vec<Text>>,
    /// How long `pre_start` may take before it is stopped and counts as failed. Default: 300s. Unit: duration.
    #[schemars(extend("default" = "300s"))]
    pub(crate) pre_start_timeout: Option<PositiveTime>,
    /// How a new generation of workers takes over. Default: one new worker first, then slot by slot.
    pub(crate) deploy: Option<Deploy>,
    /// What SIGHUP does besides reading the site file again: `reload`, nothing where that changes nothing for these workers; or
    /// `deploy`, they are deployed all the same, as `tidegate deploy` does. Where the file is refused nothing happens. Default:
    /// reload.
    #[schemars(extend("default" = "reload"))]
    pub(crate) on_hup: Option<OnHup>,
    /// When a worker that serves is replaced by a new one. Default: never.
    pub(crate) recycle: Option<Recycle>,
    /// Where lines that workers print go: `inherit`, to the program log, or a file of their own. Default: inherit.
    #[schemars(extend("default" = "inherit"))]
    pub(crate) logs: Option<WorkerLogs>,
    /// For development: files and folders, relative to this file's folder; when one of them changes, new workers take over. Until
    /// they are ready the old ones serve, and when they fail, their last lines are what clients see until a version starts
    /// again. `deploy.min_ready` is 0 then, if nothing else is said. Default: none.
    #[schemars(length(min = 1, max = 64), extend("default" = []))]
    pub(crate) watch: Option<Vec<String>>,
    /// Whether it is worked out what requests of each route cost these workers: CPU time, and memory that they grow by
    /// (`tidegate workers --cost`). Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) cost: Option<bool>,
    /// When a worker that ended unasked is started again. Default: at once, then after growing waits.
    pub(crate) restart: Option<Restart>,
    /// When a worker that does not answer any more is replaced; `off` is never. Default: after about 25s.
    pub(crate) hang: Option<HangChoice>,
    /// How long a worker may take for one request, from its end to that of the answer; then the client gets 504 (or what came
    /// of the answer), and nobody sends the request again. Answers that count as streams have no such limit. Where each
    /// request takes a thread of the worker (sync workers of `gunicorn`, `--threads`, `puma`, `cap: 1`), the worker is replaced
    /// as one that hangs, at once, unless `hang` is off. Default: 60s there, else off. Unit: duration, or off.
    pub(crate) request_timeout: Option<Text>,
    /// A request that took longer than `request_timeout` takes its place for so long, unless its worker ends: its handler may
    /// be running. Default: 30s. Unit: time.
    #[schemars(extend("default" = "30s"))]
    pub(crate) abandoned_hold: Option<Time>,
}

/// How many workers.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WorkerCount {
    /// A word.
    Word(AutoWord),
    /// A number, 1 to 1000.
    Number(#[schemars(range(min = 1, max = 1000))] u32),
}

/// A number that the program chooses.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AutoWord {
    /// By the number of effective CPUs.
    Auto,
}

/// Which environment variables workers inherit.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum EnvInherit {
    /// A word.
    Word(EnvInheritWord),
    /// PATH and these names.
    Names(Vec<String>),
}

/// Which environment variables workers inherit.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EnvInheritWord {
    /// All but secrets and variables of the service manager.
    All,
    /// PATH, HOME, LANG, TZ, USER and LC_* only.
    Clean,
}

/// How workers are reached.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerTransport {
    /// A private unix socket each, `{socket}`.
    Unix,
    /// A free port of 127.0.0.1 each, `{port}`.
    Port,
    /// A private unix socket each, which they inherit open: `{fd}`, or else by systemd's protocol (`LISTEN_FDS`).
    Fd,
}

/// Deadlines towards an endpoint; none may be zero.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTimeouts {
    /// One connection attempt. Default: 2s. Unit: duration.
    #[schemars(extend("default" = "2s"))]
    pub(crate) connect: Option<PositiveTime>,
    /// All connection attempts of one request together. Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) total_connect: Option<PositiveTime>,
    /// From the end of the request to the response head. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) head: Option<PositiveTime>,
    /// Between two reads of a response body. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) read: Option<PositiveTime>,
    /// A request write without any progress. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) write: Option<PositiveTime>,
    /// An idle connection is closed after this; keep it below the endpoint's own limit. Default: 50s, for workers at
    /// least a second less than their `keep_alive`, and 4s where that is not known. Unit: duration.
    pub(crate) idle: Option<PositiveTime>,
}

/// The admin endpoint.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// Where it listens: `unix:/path`, or a loopback address with port, which needs a token. Default: `admin.sock` in
    /// the runtime directory.
    #[schemars(length(min = 1))]
    pub(crate) listen: Option<String>,
    /// Bearer token asked of every client; best written as `"${file:/path}"`. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) token: Option<String>,
}

/// Program log and access log.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logging {
    /// Lowest level of the program log. Default: info.
    #[schemars(extend("default" = "info"))]
    pub(crate) level: Option<LogLevel>,
    /// Shape of the program log. Default: auto.
    #[schemars(extend("default" = "auto"))]
    pub(crate) format: Option<LogFormat>,
    /// The access log: `off`, or where it goes and its shape. Default: to standard output, combined.
    pub(crate) access: Option<Access>,
}

/// Level of the program log.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
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
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Access {
    /// A word.
    Word(AccessWord),
    /// Where it goes and its shape.
    Log(AccessLog),
}

/// No access log.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessWord {
    /// Write none.
    Off,
}

/// Where the access log goes and its shape.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// Where lines go: `stdout`, `stderr`, or a file (an absolute path). Default: stdout.
    #[schemars(length(min = 1), extend("default" = "stdout"))]
    pub(crate) to: Option<String>,
    /// Shape of a line: `combined`, `json`, or a template with nginx variables such as
    /// `"$remote_addr $status $request_time"`. Default: combined.
    #[schemars(length(min = 1), extend("default" = "combined"))]
    pub(crate) format: Option<String>,
}

/// Settings of the process as a whole.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Threads that serve requests: a number, or `auto` for one per CPU. Cannot change live. Default: auto.
    #[schemars(extend("default" = "auto"))]
    pub(crate) shards: Option<ShardCount>,
    /// Account to change to once the listeners are bound. Cannot change live. Default: none, stay.
    #[schemars(length(min = 1))]
    pub(crate) user: Option<String>,
    /// Folder of state that outlives the process (local CA), an absolute path. Cannot change live. Default:
    /// /var/lib/tidegate for root, else that of XDG.
    #[schemars(length(min = 1))]
    pub(crate) state_dir: Option<String>,
    /// Folder of sockets, an absolute path. Cannot change live. Default: /run/tidegate for root, else that of XDG.
    #[schemars(length(min = 1))]
    pub(crate) runtime_dir: Option<String>,
    /// Caps on connections.
    pub(crate) connections: Option<Connections>,
    /// Temporary files of bodies that `buffer` holds.
    pub(crate) spool: Option<Spool>,
    /// Requests under way may finish for this long when something is replaced or stopped. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain_timeout: Option<Time>,
    /// From the stop signal to exit, in all. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) shutdown_timeout: Option<PositiveTime>,
    /// Ends the program with status 3 when so many workers have failed since its start and none of any upstream was ever
    /// ready. For containers, whose orchestrator sees that and goes back. Default: never. Unit: failures.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) fail_fast: Option<u32>,
}

/// Temporary files of bodies that are held; they have no names, so none outlives the process.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spool {
    /// Folder of the files, an absolute path to a private folder on a disk. Cannot change live. Default: `spool` in
    /// `state_dir`.
    #[schemars(length(min = 1))]
    pub(crate) dir: Option<String>,
    /// Bytes of all files together; beyond them bodies are passed on as they come. Default: 1GiB. Unit: size.
    #[schemars(extend("default" = "1GiB"))]
    pub(crate) total: Option<PositiveSize>,
}

/// How many shards.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ShardCount {
    /// A word.
    Word(AutoWord),
    /// A number, 1 to 1024.
    Number(#[schemars(range(min = 1, max = 1024))] u16),
}

/// Caps on connections.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connections {
    /// All clients together. Default: what the descriptor limit allows, less the reserve and room for upstreams. Unit:
    /// connections.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) total: Option<usize>,
    /// For each client address (IPv6 by /64). Default: 1024. Unit: connections.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 1024))]
    pub(crate) per_address: Option<usize>,
    /// TLS handshakes under way; more wait for their turn within their own time. One that waits for its client for more
    /// than a second counts no longer. Default: 4096. Unit: handshakes.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 4096))]
    pub(crate) handshakes: Option<usize>,
    /// Descriptors kept free for files, logs and the admin endpoint. Default: 128. Unit: descriptors.
    #[schemars(range(min = 16, max = 1_000_000), extend("default" = 128))]
    pub(crate) fd_reserve: Option<usize>,
}

/// A mapping with keys of the user's choice, in the order of the file.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// Text for which a number or boolean is accepted too, as it is written: `PORT: 8080`.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"], "format": Format::Text.name() })
    }
}

/// Texts with rules of their own, by the `format` keyword of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Time,
    PositiveTime,
    PositiveSize,
    Holding,
    ByteRate,
    RequestRate,
    /// A share in percent.
    Percent,
    /// How much worse something may be, in percent.
    Delta,
    /// A number with a point.
    Factor,
    /// A status or a range of them.
    StatusRange,
}

impl Format {
    const ALL: [Self; 11] = [
        Self::Text,
        Self::Time,
        Self::PositiveTime,
        Self::PositiveSize,
        Self::Holding,
        Self::ByteRate,
        Self::RequestRate,
        Self::Percent,
        Self::Delta,
        Self::Factor,
        Self::StatusRange,
    ];

    /// The word in the schema.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "duration",
            Self::PositiveTime => "positive-duration",
            Self::PositiveSize => "positive-size",
            Self::Holding => "holding",
            Self::ByteRate => "byte-rate",
            Self::RequestRate => "request-rate",
            Self::Percent => "percent",
            Self::Delta => "delta",
            Self::Factor => "factor",
            Self::StatusRange => "status-range",
        }
    }

    /// The format with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// For `expected a, found b`.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time | Self::PositiveTime => "a duration such as 30s",
            Self::PositiveSize => "a size such as 1MiB",
            Self::Holding => "on, off or a size such as 1MiB",
            Self::ByteRate => "a rate such as 500B/s",
            Self::RequestRate => "a rate such as 10/s",
            Self::Percent => "a share such as 50%",
            Self::Delta => "a difference such as 1% or 0.5%",
            Self::Factor => "a number such as 1.5",
            Self::StatusRange => "a status such as 204 or 200-399",
        }
    }

    /// Whether a text keeps the rules.
    pub(crate) fn check(self, text: &str) -> Result<(), Reason> {
        match self {
            Self::Text => Ok(()),
            Self::Time => parse_duration(text).map(drop),
            Self::PositiveTime => positive_time(text).map(drop),
            Self::PositiveSize => positive_size(text).map(drop),
            Self::Holding => holding(text).map(drop),
            Self::ByteRate => byte_rate(text).map(drop),
            Self::RequestRate => parse_rate(text).map(drop),
            Self::Percent => parse_percent(text).map(drop),
            Self::Delta => parse_delta(text).map(drop),
            Self::Factor => parse_factor(text).map(drop),
            Self::StatusRange => parse_status_range(text).map(drop),
        }
    }
}

fn positive_time(text: &str) -> Result<Duration, Reason> {
    match parse_duration(text)? {
        Duration::ZERO => Err(Reason::new(
            "must not be zero",
            "every wait has an end: write a long one, such as 1h, where a short one hurts",
        )),
        duration => Ok(duration),
    }
}

fn positive_size(text: &str) -> Result<u64, Reason> {
    match parse_size(text)? {
        0 => Err(Reason::new(
            "must not be zero",
            "nginx takes 0 for \"no limit\": write the size you mean, for instance 100GiB",
        )),
        size => Ok(size),
    }
}

fn holding(text: &str) -> Result<HoldingSize, Reason> {
    match text {
        "on" => Ok(HoldingSize::On),
        "off" => Ok(HoldingSize::Off),
        "0" => Err(Reason::new("is no size to hold", "write off to hold nothing")),
        text if text.starts_with(|first: char| first.is_ascii_digit()) => positive_size(text).map(HoldingSize::UpTo),
        text => {
            let hint =
                did_you_mean(text, ["on", "off"]).unwrap_or_else(|| "write on, off or a size such as 16MiB".to_owned());
            Err(Reason::new("is neither on, off nor a size", hint))
        }
    }
}

/// How much of a body is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding(pub(crate) HoldingSize);

/// What `on`, `off` or a size mean.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HoldingSize {
    /// As much as is sensible.
    On,
    /// Nothing.
    Off,
    /// So many bytes.
    UpTo(u64),
}

fn byte_rate(text: &str) -> Result<u64, Reason> {
    let form = "rates are written like 500B/s, 64KiB/s or 1MiB/s";
    let size = text.strip_suffix("/s").ok_or_else(|| Reason::new("is not a rate", form))?;
    match parse_size(size) {
        Ok(0) => Err(Reason::new("must not be zero", "write off where any pace will do")),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Reason::new("is not a rate", form)),
    }
}

/// Requests in a time, neither of them zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRate(pub(crate) Rate);

/// A share in percent, 1 to 100.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) u8);

/// A difference in thousandths, 1 to 10,000.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delta(pub(crate) u16);

/// A number with a point, 0.1 to 10.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factor(pub(crate) f64);

/// A status or a range of them.
#[derive(Debug, Clone)]
pub(crate) struct StatusRange(pub(crate) std::ops::RangeInclusive<u16>);

/// A duration that may be zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

/// A duration that may not be zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PositiveTime(pub(crate) Duration);

/// A size in bytes that may not be zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PositiveSize(pub(crate) u64);

/// Bytes in a second, not zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteRate(pub(crate) u64);

/// Gives a type that is written as text its reader and its schema.
macro_rules! written_as_text {
    ($type:ident, $format:expr, $parse:expr, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(|reason: Reason| D::Error::custom(reason.problem))
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert("format".to_owned(), $format.name().into());
                schema
            }
        }
    };
}

written_as_text!(Time, Format::Time, parse_duration, {
    "type": ["string", "integer"],
    "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
    "minLength": 1,
    "minimum": 0,
    "maximum": 0
});
written_as_text!(PositiveTime, Format::PositiveTime, positive_time, {
    "type": "string",
    "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
    "minLength": 2
});
written_as_text!(PositiveSize, Format::PositiveSize, positive_size, {
    "type": "string",
    "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB|[kKmMgG])$"
});
written_as_text!(Holding, Format::Holding, holding, {
    "type": "string",
    "pattern": "^(on|off|[0-9]+(B|KiB|MiB|GiB|TiB|[kKmMgG]))$"
});
written_as_text!(ByteRate, Format::ByteRate, byte_rate, {
    "type": "string",
    "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB|[kKmMgG])/s$"
});
written_as_text!(RequestRate, Format::RequestRate, parse_rate, {
    "type": "string",
    "pattern": "^[0-9]+( per ([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|(r?/(s|m|h|d)))$"
});
written_as_text!(Percent, Format::Percent, parse_percent, {
    "type": "string",
    "pattern": "^[0-9]+%$"
});
written_as_text!(Delta, Format::Delta, parse_delta, {
    "type": "string",
    "pattern": "^[0-9]+(\\.[0-9])?%$"
});
written_as_text!(Factor, Format::Factor, parse_factor, {
    "type": ["number", "string"],
    "pattern": "^[0-9]+(\\.[0-9]+)?$"
});
written_as_text!(StatusRange, Format::StatusRange, parse_status_range, {
    "type": ["integer", "string"],
    "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$",
    "minimum": 100,
    "maximum": 599
});

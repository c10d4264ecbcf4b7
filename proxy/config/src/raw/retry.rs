//! What is written about tries, their budget and deadlines.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{RequestRate, Text, Time};

/// Whether and how requests are tried again.
#[derive(Debug, Clone, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RetryChoice {
    /// Never: the first failure is the answer.
    Word(OffWord),
    /// By these rules.
    Policy(Retry),
}

/// Something that is switched off.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OffWord {
    /// Nothing of it.
    Off,
}

/// When a request that failed at one endpoint goes to another one. A request that is not idempotent (POST, PATCH) is never
/// sent a second time once a byte of it may have reached an endpoint, and none is once a byte of an answer has reached the
/// client. What a mapping leaves out is as further out: route, site, upstream.
#[derive(Debug, Clone, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Tries that may reach an endpoint, the first included. Endpoints that cannot be reached do not count: of these all
    /// are asked within `total_connect`. Default: 2. Unit: tries, 1 to 10.
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub(crate) tries: Option<u32>,
    /// What is tried again: `connect` (no connection), `closed` (it closed before it answered, or within a small
    /// answer of which the client has nothing yet), `timeout` (no head of an answer in time), `invalid` (the answer is not
    /// HTTP), and statuses of an answer, 400 to 599. When no other try can follow, such an answer is passed on as it is. Default: [connect, closed, timeout].
    #[schemars(length(min = 1, max = 32))]
    pub(crate) on: Option<Vec<Text>>,
    /// Codes of gRPC calls that are tried again, as long as the endpoint has answered nothing but the code: all calls are POST,
    /// so whoever names a code says that a call which ended with it may run twice. What was sent is held for that, up to 64
    /// KiB. Default: none.
    #[schemars(extend("default" = []))]
    pub(crate) grpc: Option<Vec<GrpcCode>>,
    /// How long one try may take to connect and to the head of its answer, as long as another one can follow: a time, `off`,
    /// or `auto`, which is 2s for servers and off for workers, whose slow pages must not run twice. Not for upstreams with
    /// `protocol: h2`. Default: auto. Unit: duration.
    #[schemars(extend("default" = "auto"))]
    pub(crate) try_timeout: Option<Text>,
    /// After so long without the head of an answer, a request that may be sent twice goes to another endpoint as well: the
    /// first head of an answer counts, unless its status stands in `on`, and the other connection is closed. At most once for a request, only to an endpoint that is free, only with its whole body at hand, and never for
    /// WebSockets. It is a try and costs the budget one. A time below `try_timeout`, or `off`. Not for upstreams with
    /// `protocol: h2`. Default: off. Unit: duration.
    #[schemars(extend("default" = "off"))]
    pub(crate) hedge: Option<Text>,
    /// How long a further try waits. Where this stands, `{}` included, endpoints in service that failed may be asked again
    /// once all were, as long as tries are left: not after a timeout. Default: absent, each endpoint is asked once.
    pub(crate) backoff: Option<Backoff>,
    /// Whether a try after an answer with `Retry-After` waits as long as that says, in seconds or by a date: the longest such
    /// wait, or `off`. An answer that asks for more is passed on. Default: off. Unit: duration.
    #[schemars(extend("default" = "off"))]
    pub(crate) respect_retry_after: Option<Text>,
}

/// How a gRPC call ended.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrpcCode {
    /// 1: by whoever asked, mostly.
    Cancelled,
    /// 4: too late.
    DeadlineExceeded,
    /// 8: a quota, or no room.
    ResourceExhausted,
    /// 13: broken.
    Internal,
    /// 14: not now.
    Unavailable,
}

/// Waits between tries: any time, by chance, up to one that doubles with each. A first retry at an endpoint that was not
/// asked yet goes at once.
#[derive(Debug, Clone, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backoff {
    /// The longest first wait. Default: 25ms. Unit: duration.
    #[schemars(extend("default" = "25ms"))]
    pub(crate) base: Option<Time>,
    /// The longest wait of all. Default: 250ms. Unit: duration.
    #[schemars(extend("default" = "250ms"))]
    pub(crate) max: Option<Time>,
}

/// How many tries beyond the first an upstream may get.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RetryBudgetChoice {
    /// As many as `retry` asks for.
    Word(OffWord),
    /// A share.
    Budget(RetryBudget),
}

/// What retries may come to, so that they cannot bury an upstream that is failing. Counted over ten seconds and for all
/// routes together. Endpoints that could not be reached cost nothing.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBudget {
    /// Retries for each hundred requests. Default: 20%. Unit: percent, 0% to 1000%.
    #[schemars(extend("default" = "20%"))]
    pub(crate) share: Option<Text>,
    /// Retries that there may always be. Default: 10/s.
    #[schemars(extend("default" = "10/s"))]
    pub(crate) floor: Option<RequestRate>,
}

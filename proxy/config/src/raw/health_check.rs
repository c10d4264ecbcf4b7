//! How servers are asked whether they are well, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{Named, PositiveTime, StatusRange, Text, Time};

/// How servers are asked whether they are well. Without `http` and `grpc` a connection is enough, with TLS where requests have it.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheck {
    /// Send this request. Default: none.
    pub(crate) http: Option<HttpCheck>,
    /// Ask by gRPC's own health protocol (grpc.health.v1); needs `protocol: h2`. Default: not.
    pub(crate) grpc: Option<GrpcCheck>,
    /// From one check of a server to the next. Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) interval: Option<PositiveTime>,
    /// Up to so much is added to each interval by chance, so that checks do not come in step. Default: 500ms. Unit: duration.
    #[schemars(extend("default" = "500ms"))]
    pub(crate) jitter: Option<Time>,
    /// A check as a whole, from the connection to the last byte. Default: 2s. Unit: duration.
    #[schemars(extend("default" = "2s"))]
    pub(crate) timeout: Option<PositiveTime>,
    /// Checks in a row that must pass for a server to come back; its very first check counts at once. Default: 2. Unit:
    /// checks.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub(crate) rise: Option<u32>,
    /// Checks in a row that must fail to take a server out; its very first check counts at once. Default: 3. Unit: checks.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    pub(crate) fall: Option<u32>,
    /// Port that is asked. Default: that of the server.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: Option<u16>,
}

/// A request that tells whether a server is well.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpCheck {
    /// Its method. Default: GET.
    #[schemars(length(min = 1, max = 32), extend("default" = "GET"))]
    pub(crate) method: Option<String>,
    /// Its path and query. Default: /.
    #[schemars(length(min = 1), extend("default" = "/"))]
    pub(crate) path: Option<String>,
    /// Its host. Default: the server's name or address.
    #[schemars(length(min = 1, max = 255))]
    pub(crate) host: Option<String>,
    /// More fields. Default: none.
    pub(crate) headers: Option<Named<Text>>,
    /// Statuses that are well: numbers and ranges. Default: 200-399.
    #[schemars(length(min = 1))]
    pub(crate) statuses: Option<Vec<StatusRange>>,
    /// What the body must have in its first 64 KiB: a text, or `"~ REGEX"`. Default: anything.
    #[schemars(length(min = 1))]
    pub(crate) body: Option<String>,
}

/// A question by gRPC's health protocol.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrpcCheck {
    /// The service that is asked for. Default: none, the server as a whole.
    #[schemars(length(min = 1))]
    pub(crate) service: Option<String>,
}

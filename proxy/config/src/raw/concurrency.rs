//! Limits of requests under way.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Variables;

/// How many requests of one client may be under way at a time, as nginx's `limit_conn` counts them: from the head to the end
/// of the answer, and a WebSocket until it ends. One more is refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcurrencyLimit {
    /// Most requests of a client that are under way, 1 to 1000000. Required.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) max: Option<u32>,
    /// What clients are told apart by: a variable (`client_address`, `host`, `method`, `path`, `target`, `header:NAME`,
    /// `query:NAME`, `cookie:NAME`), or a list of which the first that the request has counts. A request with none counts
    /// for its client's address; an IPv6 client for its network of 64 bits. Default: client_address.
    #[schemars(extend("default" = "client_address"))]
    pub(crate) key: Option<Variables>,
    /// Status of a request that is refused, 400 to 599. Default: 503.
    #[schemars(range(min = 400, max = 599), extend("default" = 503))]
    pub(crate) status: Option<u16>,
    /// Only count what would be refused, and serve it. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) dry_run: Option<bool>,
    /// Clients that are never limited: networks (`10.0.0.0/8`), addresses, `private` or `loopback`. Default: none.
    #[schemars(extend("default" = []))]
    pub(crate) allow: Option<Vec<String>>,
}

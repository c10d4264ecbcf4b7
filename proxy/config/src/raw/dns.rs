//! How names of servers are resolved.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{PositiveTime, Time};

/// How names of servers are resolved. The keys of an upstream stand before those of the file.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dns {
    /// Name servers to ask, in this order until one answers: `10.0.0.2`, `10.0.0.2:5353` or `[fd00::2]:53`. Default: what
    /// /etc/resolv.conf says, read at start and whenever it changes; its `search`, `ndots`, `timeout` and `attempts` hold in
    /// any case. Names in /etc/hosts are never asked for.
    #[schemars(length(min = 1, max = 8))]
    pub(crate) servers: Option<Vec<String>>,
    /// Shortest time between two resolutions of a name, whatever its records say. Default: 1s. Unit: time.
    #[schemars(extend("default" = "1s"))]
    pub(crate) min_ttl: Option<PositiveTime>,
    /// Longest time between two resolutions of a name, whatever its records say. Default: 5m. Unit: time.
    #[schemars(extend("default" = "5m"))]
    pub(crate) max_ttl: Option<PositiveTime>,
    /// How long one question to one name server waits for its answer. Default: what /etc/resolv.conf says, 5s there. Unit:
    /// time.
    pub(crate) timeout: Option<PositiveTime>,
    /// Which addresses count. By default a server that has both IPv4 and IPv6 is one endpoint, not two. Default:
    /// prefer_ipv4.
    #[schemars(extend("default" = "prefer_ipv4"))]
    pub(crate) families: Option<Families>,
    /// How long the last addresses of a name stay once name servers say that there is none any more; 0 drops them at once, as
    /// nginx's `resolve` and Envoy's STRICT_DNS do, 30s is HAProxy's `hold nx`. Failures of name servers never drop any.
    /// Default: for ever, because a slip in a zone should not end what works, and servers that are really gone are found by
    /// connecting to them. Unit: time.
    pub(crate) keep_missing: Option<Time>,
}

/// Which of a name's addresses count.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Families {
    /// All.
    Both,
    /// IPv4 (A records) only.
    Ipv4,
    /// IPv6 (AAAA records) only.
    Ipv6,
    /// IPv6 only where there is no IPv4.
    PreferIpv4,
    /// IPv4 only where there is no IPv6.
    PreferIpv6,
}

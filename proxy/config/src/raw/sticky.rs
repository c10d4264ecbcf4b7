//! Clients that stay with an endpoint.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{BalanceWord, PositiveTime};

/// Clients stay with an endpoint by a cookie that names it. The name is a keyed hash (HMAC-SHA256) of a server's address or
/// a worker's slot, so it tells nothing, cannot be made up, and holds over reloads, restarts and the worker's next
/// start. The cookie is set when it changes, taken out of requests before they are forwarded, and honoured as long as its
/// endpoint is in service and has room. A request that goes elsewhere brings the cookie of whoever answered it.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sticky {
    /// Its name. Upstreams behind one host and path need different ones. Required.
    #[schemars(required, length(min = 1, max = 64))]
    pub(crate) cookie: Option<String>,
    /// A file with a secret of at least 16 bytes (`openssl rand -hex 32`), relative to this file's folder, or a list: the first
    /// signs, cookies of all are honoured. Several hosts that share one honour each other's cookies. Default: a secret of its
    /// own, made once in the state folder.
    pub(crate) secret: Option<Secrets>,
    /// How an endpoint is chosen for clients without one. Default: least_conn.
    #[schemars(extend("default" = "least_conn"))]
    pub(crate) by: Option<BalanceWord>,
    /// How long browsers keep the cookie, from when it was set. Default: absent, until they are closed. Unit: time, 1s at least.
    pub(crate) max_age: Option<PositiveTime>,
    /// Paths that the cookie is sent for. Default: /.
    #[schemars(length(min = 1, max = 1024), extend("default" = "/"))]
    pub(crate) path: Option<String>,
    /// Host that the cookie is sent to, with those below it. Default: absent, the host that was asked, alone.
    #[schemars(length(min = 1, max = 253))]
    pub(crate) domain: Option<String>,
    /// Whether the cookie is sent over TLS only. Default: true for clients that came over TLS.
    pub(crate) secure: Option<bool>,
    /// Whether the cookie is sent when another site leads here. `none` makes it `secure`. Default: lax.
    #[schemars(extend("default" = "lax"))]
    pub(crate) same_site: Option<SameSite>,
    /// Whether the cookie is kept from scripts. Default: true.
    #[schemars(extend("default" = true))]
    pub(crate) http_only: Option<bool>,
}

/// Files with secrets.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Secrets {
    /// One.
    One(String),
    /// Several: the first signs.
    Several(#[schemars(length(min = 1, max = 8))] Vec<String>),
}

/// Whether a cookie is sent when another site leads here.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SameSite {
    /// Never.
    Strict,
    /// When the user follows a link.
    Lax,
    /// Always.
    None,
}

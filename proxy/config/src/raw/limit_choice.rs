//! Which limits hold for a route.

use schemars::JsonSchema;
use serde::Deserialize;

/// Which limits of a kind hold for a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{L}Choice")]
pub(crate) enum LimitChoice<L, U> {
    /// A name, or `off`.
    Name(String),
    /// A limit without a name: what it counts belongs to the site or route where it stands.
    Own(L),
    /// Several, which must all admit a request.
    Several(#[schemars(length(min = 1, max = 8))] Vec<U>),
}

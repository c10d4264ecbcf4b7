//! From a request on a client's connection to its answer.
//!
//! `serve_http1` and `serve_http2` read requests; `driver` does what each exchange's decisions ask for; `relay`
//! speaks HTTP/1.1 with endpoints, `engine` hands requests for HTTP/2 endpoints to the engine; `failure` alone
//! turns refusals into answers; `finish` alone accounts for what happened.

mod asking;
mod began;
mod broken_page;
mod collected;
mod connector;
pub(crate) mod downstream;
pub(crate) mod driver;
pub(crate) mod engine;
mod engine_socket;
mod error_page;
pub(crate) mod failure;
mod fields;
mod finish;
mod held;
mod parsing;
mod race;
mod relay;
mod serve_http1;
mod serve_http2;
pub(crate) mod spool;
mod tunnel;
mod waiting;

pub(crate) use serve_http1::{Resting, serve_http1};
pub(crate) use serve_http2::serve_http2;

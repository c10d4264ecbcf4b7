//! The integration tests: one file per subject, in the order in which a reader would break them.
//!
//! What they run is built first: `cargo build -p tidegate -p upstream-demo` (or all of it: `make test`).

mod admin;
mod bodies;
mod drill;
mod effects;
mod errors;
mod fastapi;
mod forwarding;
mod h2_upstream;
mod keys;
mod limits;
mod reload;
mod routing;
mod start;
mod tidy;
mod tls;
mod truncation;
mod websocket;
mod workers;

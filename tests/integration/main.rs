//! The integration tests: one file per subject, in the order in which a reader would break them.
//!
//! What they run is built first: `cargo build -p tidegate -p upstream-demo` (or all of it: `make test`).

mod admin;
mod balancing;
mod bodies;
mod buffering;
mod checks;
mod client_certificates;
mod clients;
mod concurrency;
mod cuts;
mod differential;
mod discovery;
mod drill;
mod early_answers;
mod effects;
mod errors;
mod fastapi;
mod forwarding;
mod grpc;
mod h2_upstream;
mod halved_answers;
mod health;
mod http2_attacks;
mod http2_frames;
mod keys;
mod kills;
mod limits;
mod pipelining;
mod queue;
mod rate_limits;
mod reload;
mod retries;
mod routing;
mod slow;
mod start;
mod sticky;
mod tidy;
mod times;
mod tls;
mod truncation;
mod upstream_tls;
mod vectors;
mod websocket;
mod workers;
mod writes;

//! The mechanics of the integration tests, so that a test reads: site, upstream, request, expectation.
//!
//! Real processes, real sockets, loopback only. Nothing here links the program under test: what it does is seen from
//! outside, as its users see it. The modules' own tests need no program at all.

pub mod admin;
pub mod authority;
pub mod binary;
pub mod certificates;
pub mod client;
pub mod connect;
pub mod curl;
pub mod drill;
pub mod edge;
pub mod every_client;
pub mod fault;
pub mod frames;
pub mod grpc;
pub mod h2_origin;
pub mod hole;
pub mod ledger;
pub mod load;
pub mod name_server;
pub mod pattern;
pub mod process;
pub mod python;
pub mod random;
pub mod rate;
pub mod raw;
pub mod recorder;
pub mod site;
pub mod tls_origin;
pub mod wait;
pub mod websocket;

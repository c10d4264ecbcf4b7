//! The admin endpoint: what the program tells about itself and the few things it can be told to do, over a unix socket or
//! loopback TCP.
//!
//! `socket` binds, `guard` decides who may ask, `routes` answers through [`control::Control`], `server` runs it;
//! `client` and `table` are the other end, for the command line. `view` holds everything that goes over the wire.

pub mod client;
pub mod control;
pub mod follow;
pub mod guard;
pub mod order;
mod routes;
pub mod server;
pub mod socket;
pub mod table;
pub mod view;
mod worker_routes;

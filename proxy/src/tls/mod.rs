//! Certificates and TLS policies of the listeners.
//!
//! `store` holds what each site presents, `internal` issues for development, `sni` chooses by server name and `policy`
//! keeps one `ServerConfig` for each listener. Nothing here owns a socket: the edge does the handshakes.

pub mod credentials;
pub mod fault;
pub mod internal;
pub mod policy;
pub mod sni;
mod state_file;
pub mod store;

#[cfg(test)]
mod fixture;

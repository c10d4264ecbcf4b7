//! Certificates and TLS policies of the listeners.
//!
//! `store` holds what each site presents, `internal` issues for development, `sni` chooses by server name and `policy`
//! says what a handshake may agree on and resumes; `upstream` is our side of handshakes with servers. Nothing here owns a socket: the edge does the handshakes.

pub mod credentials;
pub mod fault;
pub(crate) mod identity;
pub mod internal;
pub mod policy;
mod sessions;
pub mod sni;
pub(crate) mod state_file;
pub mod store;
pub mod ticketer;
pub mod upstream;

#[cfg(test)]
mod fixture;

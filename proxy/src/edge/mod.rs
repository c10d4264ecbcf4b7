//! The edge: sockets, connections, handshakes and the threads that carry them.
//!
//! Nothing here knows what a request is; `exchange` takes over once a connection's protocol is known.

pub(crate) mod accept;
pub(crate) mod admission;
pub(crate) mod bind;
pub(crate) mod conn;
pub(crate) mod ending;
pub(crate) mod gathered;
pub(crate) mod handshake;
pub(crate) mod listener;
pub(crate) mod proxy_header;
pub(crate) mod request_ids;
pub(crate) mod shard;
pub(crate) mod socket;
pub(crate) mod timer;

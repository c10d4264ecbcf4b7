//! Connections to endpoints: made here, kept here while idle, spoken on by `exchange`.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod idle;
pub(crate) mod link;
pub(crate) mod proxy_protocol;

//! Connections to endpoints: made here, kept here while idle, spoken on by `exchange`.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod idle;

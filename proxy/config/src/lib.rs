//! Text of a site file to a checked model: no async, no sockets, nothing of the engine.

pub mod model;

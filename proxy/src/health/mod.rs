//! Health of endpoints, as far as it needs the program: who asks them, and who hears of changes.

pub(crate) mod checker;
mod grpc;
mod http;
pub(crate) mod news;
mod probe;

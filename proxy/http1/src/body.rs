//! Bodies on the wire: taking the framing off what is read and putting it on what is written, without copying data.

mod chunked;
mod decoder;
mod encoder;

pub use chunked::BodyError;
pub use decoder::{BodyDecoder, Decoded, Truncated};
pub use encoder::{BodyEncoder, EncodeError};

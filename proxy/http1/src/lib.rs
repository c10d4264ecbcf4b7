//! HTTP/1.1 codec without IO, strict unless told otherwise ([`ParsePolicy`]), for both sides of a proxy (RFC 9110, RFC 9112).
//!
//! The server side reads requests ([`RequestHead`]) and writes responses; the client side writes requests and reads
//! responses ([`ResponseHead`]). Bodies go through [`BodyDecoder`] and [`BodyEncoder`], heads are written with
//! [`HeadWriter`]. Nothing here waits, reads a clock or owns a socket: the caller brings bytes and takes bytes.
//!
//! Two rules carry the design. A message that two implementations could read differently is refused, never repaired.
//! And a parsed head is a set of ranges over the caller's buffer, so that reading one allocates nothing once the
//! [`RequestHead`] value has been used before.
//!
//! What it does not do: decide paths (canonical form, `..`, `%2f`), trust forwarding fields, bound body sizes or time.
//! Those are decisions about a request, and a codec makes none.

mod body;
mod connection;
mod field;
mod framing;
mod host;
mod limits;
mod line;
mod octet;
mod policy;
mod reason;
mod request;
mod response;
mod target;
mod upgrade;
mod writer;

pub use body::{BodyDecoder, BodyEncoder, BodyError, Decoded, EncodeError, Truncated};
pub use field::{Field, FieldKind};
pub use framing::{BodyFraming, FramingFault, ResponseFraming};
pub use limits::HeadLimits;
pub use line::{FieldFault, admit_field};
pub use policy::ParsePolicy;
pub use reason::canonical_reason;
pub use request::{RequestError, RequestHead};
pub use response::{Asked, ResponseError, ResponseHead};
pub use upgrade::Upgrade;
pub use writer::{BadField, HeadWriter, Output};

/// The two versions this codec speaks (RFC 9112 section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `HTTP/1.0`: one request per connection unless the client asks otherwise, no chunked bodies.
    Http10,
    /// `HTTP/1.1`.
    Http11,
}

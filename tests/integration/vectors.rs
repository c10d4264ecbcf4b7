//! The codec's vectors through the running program: every one is refused, or reaches the origin as exactly the requests
//! that it is, and whoever comes next through the same pool gets an answer of his own.
//!
//! The files are those of `proxy/http1/tests/vectors`; what they mean is asked of the codec itself, and what arrived is
//! read by its strict policy, so that leniency in front never shows behind. Listeners and upstreams come with either
//! policy, connections plain and on TLS, cold and after another request.

#[path = "../../proxy/http1/tests/vectors/format.rs"]
mod format;

mod client;
mod lanes;
mod meaning;
pub(crate) mod origins;
mod requests;
mod responses;

use format::{Vector, load};
use tidegate_tests::binary::repository;

/// The vectors of a file, by its name.
fn vectors(file: &str) -> Vec<Vector> {
    let path = repository().join("proxy/http1/tests/vectors").join(file).with_extension("txt");
    load(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("'{}': {error}", path.display())))
}

/// The vectors of bodies, each behind this head.
fn bodies_behind(head: &str) -> Vec<Vector> {
    let mut vectors = vectors("bodies");
    for vector in &mut vectors {
        vector.input.splice(0..0, head.bytes());
    }
    vectors
}

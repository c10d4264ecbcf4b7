//! gRPC calls that end before they have brought anything.

use crate::head::ResponseView;

/// The code of an answer that is nothing else: the call's end stands in its head ("Trailers-Only" of gRPC over HTTP/2).
#[must_use]
pub fn code(response: &ResponseView<'_>) -> Option<u32> {
    const TYPE: &[u8] = b"application/grpc";
    let code = response.fields.first("grpc-status")?;
    let kind = response.fields.first("content-type")?;
    let is_grpc = kind.get(..TYPE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TYPE));
    if response.status != 200 || !is_grpc {
        return None;
    }
    std::str::from_utf8(code).ok()?.trim_ascii().parse().ok()
}

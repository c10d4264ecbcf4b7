//! What endpoints and clients are told of times.

/// Who is told what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Endpoints hear when a request began, by `X-Request-Start`.
    pub request_start: bool,
    /// Clients hear how long a request waited for an endpoint, by `Server-Timing`.
    pub server_timing: bool,
}

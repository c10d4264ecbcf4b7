//! How much a head may deviate from the grammar.

/// What a head may look like besides the one form that the grammar prescribes.
///
/// Whatever was accepted is written anew in that one form. What two readers could frame differently is refused under
/// both policies: Content-Length beside Transfer-Encoding, either of them twice, a list of codings, a coding in
/// HTTP/1.0, folded lines, whitespace in front of a colon. Bodies have one form under both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ParsePolicy {
    /// The grammar of RFC 9112 as a sender has to keep it, with one empty line in front of a request.
    #[default]
    Strict,
    /// What a recipient may accept besides (RFC 9112 sections 2.2, 2.3 and 3), and nginx does: lines that end in LF
    /// alone, several empty lines in front of a request, several spaces between the parts of its first line and behind
    /// them, and minor versions above 1, which mean HTTP/1.1. Request fields with an underscore in their name are
    /// dropped rather than refused, unless a hyphen in its place would make a framing field or Host of it.
    Lenient,
}

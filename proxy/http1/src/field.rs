//! The fields of one head, as ranges, each with the class that decides what a proxy does with it.

use crate::line::{FieldFault, Line, Progress, Span, Underscores};
use crate::{connection, line, octet};

/// What a proxy has to do with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Forwarded as it is.
    EndToEnd,
    /// `X-Forwarded-*`, `Forwarded`, `X-Real-IP`: forwarded only when the peer is trusted to set it.
    Forwarding,
    /// `Host`: written anew by whoever forwards.
    Host,
    /// `Content-Length`: framing, written anew.
    ContentLength,
    /// `Expect`: answered by this hop.
    Expect,
    /// `Connection`: about this hop only.
    Connection,
    /// Other fields about this hop only (RFC 9110 section 7.6.1), with `HTTP2-Settings`, and `Proxy`, which CGI style
    /// applications take for an environment variable.
    HopByHop,
    /// Named by the `Connection` field of the same head, hence about this hop only.
    Nominated,
}

impl FieldKind {
    /// Whether the field goes on to the next hop: `EndToEnd` and `Forwarding`.
    #[inline]
    pub fn is_forwardable(self) -> bool {
        matches!(self, Self::EndToEnd | Self::Forwarding)
    }
}

/// One field of a parsed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as sent: a token.
    pub name: &'b [u8],
    /// The value without surrounding whitespace.
    pub value: &'b [u8],
    /// What to do with it.
    pub kind: FieldKind,
    /// The whole line, when it is exactly `name: value` CRLF and can be copied in one go.
    pub(crate) line: Option<&'b [u8]>,
}

impl<'b> Field<'b> {
    /// The name as text.
    #[inline]
    pub fn name_str(&self) -> &'b str {
        octet::text(self.name)
    }
}

/// Names that mean something to the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Connection,
    ContentLength,
    Expect,
    Forwarding,
    HopByHop,
    Host,
    Other,
    TransferEncoding,
    Upgrade,
    WebSocketKey,
    WebSocketVersion,
}

impl Name {
    /// Sorts a name by length first: most names of a head end at the first comparison.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::HopByHop,
            4 if is(b"host") => Self::Host,
            5 if is(b"proxy") => Self::HopByHop,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            7 if is(b"trailer") => Self::HopByHop,
            9 if is(b"forwarded") || is(b"x-real-ip") => Self::Forwarding,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::HopByHop,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::HopByHop,
            16 if is(b"proxy-connection") => Self::HopByHop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"sec-websocket-key") => Self::WebSocketKey,
            18 if is(b"proxy-authenticate") => Self::HopByHop,
            19 if is(b"proxy-authorization") => Self::HopByHop,
            21 if is(b"sec-websocket-version") => Self::WebSocketVersion,
            12.. if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => Self::Forwarding,
            _ => Self::Other,
        }
    }

    #[inline]
    pub(crate) fn kind(self) -> FieldKind {
        match self {
            Self::Connection => FieldKind::Connection,
            Self::ContentLength => FieldKind::ContentLength,
            Self::Expect => FieldKind::Expect,
            Self::Forwarding => FieldKind::Forwarding,
            Self::HopByHop | Self::TransferEncoding | Self::Upgrade => FieldKind::HopByHop,
            Self::Host => FieldKind::Host,
            Self::Other | Self::WebSocketKey | Self::WebSocketVersion => FieldKind::EndToEnd,
        }
    }
}

impl Underscores {
    /// Whether a field of this name is to be dropped. What would be a framing field, or Host, by another spelling is
    /// refused all the same: somebody in front of us may have read it that way.
    pub(crate) fn drop(self, name: &[u8]) -> Result<bool, FieldFault> {
        if self != Self::Dropped || !name.contains(&b'_') {
            return Ok(false);
        }
        let hyphens: Vec<u8> = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
        match Name::of(&hyphens) {
            Name::ContentLength | Name::TransferEncoding | Name::Host => Err(FieldFault::Underscore),
            _ => Ok(true),
        }
    }
}

/// Ranges of all fields, in the order sent. Cleared, it keeps its allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldSection {
    spans: Vec<FieldSpan>,
}

#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    name: Span,
    value: Span,
    kind: FieldKind,
    /// The line reads `name: value` CRLF without other whitespace.
    plain: bool,
}

/// What reading the next line of a section gave.
pub(crate) enum Step {
    Incomplete(Progress),
    End(usize),
    Field {
        name: Name,
        value: Span,
        next: usize,
    },
    /// A line that is not kept; where the next one starts.
    Dropped(usize),
}

impl FieldSection {
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Reads the line `progress` stands in and keeps its ranges.
    #[inline]
    pub(crate) fn read_line<const LENIENT: bool>(
        &mut self,
        buffer: &[u8],
        progress: Progress,
        underscores: Underscores,
    ) -> Result<Step, FieldFault> {
        match line::read::<LENIENT>(buffer, progress, underscores)? {
            Line::Incomplete(progress) => Ok(Step::Incomplete(progress)),
            Line::End(next) => Ok(Step::End(next)),
            Line::Field { name, next, .. } if LENIENT && underscores.drop(name.of(buffer))? => Ok(Step::Dropped(next)),
            Line::Field { name: span, value, next } => {
                let name = Name::of(span.of(buffer));
                let plain = value.start() == span.end() + 2
                    && value.end() + 2 == next
                    && buffer[span.end() + 1] == b' '
                    // A line that ends in LF alone may have a space in the CR's place.
                    && (!LENIENT || buffer[value.end()] == b'\r')
                    && value.len() > 0;
                self.spans.push(FieldSpan { name: span, value, kind: name.kind(), plain });
                Ok(Step::Field { name, value, next })
            }
        }
    }

    /// Marks every forwardable field that a Connection field names as belonging to this hop, protected ones aside.
    ///
    /// The number of names is bounded where the Connection fields are read.
    pub(crate) fn nominate_all(&mut self, buffer: &[u8]) {
        let lists: Vec<Span> = self.values(FieldKind::Connection).collect();
        let names = lists.iter().flat_map(|list| connection::elements(list.of(buffer)));
        for name in names.filter(|name| !connection::is_protected(name)) {
            self.nominate(buffer, name);
        }
    }

    fn nominate(&mut self, buffer: &[u8], name: &[u8]) {
        for span in &mut self.spans {
            if span.kind.is_forwardable() && span.name.of(buffer).eq_ignore_ascii_case(name) {
                span.kind = FieldKind::Nominated;
            }
        }
    }

    #[inline]
    pub(crate) fn iter<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = Field<'b>> + 'b {
        self.spans.iter().map(move |span| Field {
            name: span.name.of(buffer),
            value: span.value.of(buffer),
            kind: span.kind,
            line: span.plain.then(|| Span::new(span.name.start(), span.value.end() + 2).of(buffer)),
        })
    }

    /// The fields of the message: all but those that its Connection field calls the connection's.
    #[inline]
    pub(crate) fn of_message<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'b {
        let kept = self.spans.iter().filter(|span| span.kind != FieldKind::Nominated);
        kept.map(move |span| (octet::text(span.name.of(buffer)), span.value.of(buffer)))
    }

    /// Value ranges of all fields of one kind. Collecting is up to the caller.
    pub(crate) fn values(&self, kind: FieldKind) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().filter(move |span| span.kind == kind).map(|span| span.value)
    }

    /// First value of the message's field called `name`, compared without case.
    #[inline]
    pub(crate) fn first<'b>(&self, buffer: &'b [u8], name: &str) -> Option<&'b [u8]> {
        self.all(buffer, name).next()
    }

    /// All values of the message's fields called `name`, in order.
    #[inline]
    pub(crate) fn all<'s, 'b: 's>(&'s self, buffer: &'b [u8], name: &'s str) -> impl Iterator<Item = &'b [u8]> + 's {
        self.spans
            .iter()
            .filter(move |span| {
                span.name.len() == name.len()
                    && span.name.of(buffer).eq_ignore_ascii_case(name.as_bytes())
                    && span.kind != FieldKind::Nominated
            })
            .map(move |span| span.value.of(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_without_case() {
        for (name, kind) in [
            ("HOST", FieldKind::Host),
            ("x-forwarded-For", FieldKind::Forwarding),
            ("X-Forwarded-Anything-At-All", FieldKind::Forwarding),
            ("Forwarded", FieldKind::Forwarding),
            ("TE", FieldKind::HopByHop),
            ("Transfer-Encoding", FieldKind::HopByHop),
            ("Content-length", FieldKind::ContentLength),
            ("Content-Type", FieldKind::EndToEnd),
            ("x-forwarded", FieldKind::EndToEnd),
            ("HTTP2-Settings", FieldKind::HopByHop),
        ] {
            assert_eq!(Name::of(name.as_bytes()).kind(), kind, "{name}");
        }
    }
}

//! Reading a request head (RFC 9112 sections 2 to 7).

mod error;

pub use error::RequestError;

use crate::connection::{self, ConnectionOptions, Protected};
use crate::field::{Field, FieldKind, FieldSection, Name, Step};
use crate::framing::{BodyFraming, FramingFields};
use crate::line::{Progress, Span, Underscores};
use crate::target::{Path, Target};
use crate::upgrade::{Upgrade, UpgradeFields};
use crate::{HeadLimits, HeadWriter, Output, ParsePolicy, Version, host, line, octet};

const LONGEST_METHOD: usize = 32;
/// Most empty lines in front of a request, and most spaces in one place of its first line, where several are accepted.
/// They are looked at again with each read, so their number is kept small.
const MOST_BLANKS: usize = 16;
const HTTP2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// One request head, as ranges over the buffer it was read from.
///
/// Every accessor that takes a `buffer` wants the bytes [`parse`](Self::parse) was last given (the same bytes, not
/// necessarily at the same address), starting at the same place. With other bytes the answers are meaningless, yet
/// nothing panics. After a refusal the accessors tell what was read until then, for the log.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    stage: Stage,
    /// Place in the line that is being read.
    progress: Progress,
    method: Span,
    target: Target,
    version: Option<Version>,
    fields: FieldSection,
    host: Option<Span>,
    framing: FramingFields,
    connection: ConnectionOptions,
    upgrade: UpgradeFields,
    expect_continue: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    #[default]
    RequestLine,
    Fields,
    Complete,
    Refused(RequestError),
}

impl RequestHead {
    /// An empty head. Its first [`parse`](Self::parse) allocates room for the ranges of the fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the value ready for the next request, keeping its allocation.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Reads a head at the start of `buffer`.
    ///
    /// `Ok(Some(length))`: the head is complete and takes `length` bytes, tolerated empty lines in front included.
    /// `Ok(None)`: it is not; call again with the same bytes and more behind them. Work already done is not repeated.
    /// Once complete or refused the answer stays the same until [`clear`](Self::clear). The verdict does not depend
    /// on how the bytes were split over calls. `policy` has to be the same in all of them.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        policy: ParsePolicy,
    ) -> Result<Option<usize>, RequestError> {
        match self.stage {
            Stage::RequestLine | Stage::Fields => {}
            Stage::Complete => return Ok(Some(self.progress.start)),
            Stage::Refused(error) => return Err(error),
        }
        let (bytes, is_full) = limits.window(buffer);
        if bytes.len() < self.progress.checked {
            // Fewer bytes than before: nothing new to say about them.
            return Ok(None);
        }
        let outcome = match policy {
            ParsePolicy::Strict => self.advance::<false>(bytes, limits),
            ParsePolicy::Lenient => self.advance::<true>(bytes, limits),
        };
        match outcome {
            Ok(None) if is_full => Err(self.refuse(RequestError::HeadTooLarge)),
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// The method as sent: a token of at most 32 bytes, never `CONNECT` or `TRACE` in an accepted head.
    #[inline]
    pub fn method<'b>(&self, buffer: &'b [u8]) -> &'b str {
        octet::text(self.method.of(buffer))
    }

    /// The request target as sent.
    #[inline]
    pub fn target<'b>(&self, buffer: &'b [u8]) -> &'b str {
        octet::text(self.target.whole.of(buffer))
    }

    /// Path and query of the target: what goes into the request line of the forwarded request. Starts with `/`, or is
    /// `*` in an OPTIONS request.
    #[inline]
    pub fn path_and_query<'b>(&self, buffer: &'b [u8]) -> &'b str {
        match self.target.path {
            Path::Sent(span) => octet::text(span.of(buffer)),
            Path::Root => "/",
            Path::Asterisk => "*",
        }
    }

    /// The authority of an absolute target. Equal to the Host field, case aside, where there is one.
    #[inline]
    pub fn authority<'b>(&self, buffer: &'b [u8]) -> Option<&'b [u8]> {
        self.target.authority.map(|span| span.of(buffer))
    }

    /// The host the request is for, with its port if one was sent: the Host field, else the authority of the target.
    /// `None` only in HTTP/1.0.
    #[inline]
    pub fn host<'b>(&self, buffer: &'b [u8]) -> Option<&'b [u8]> {
        self.host.or(self.target.authority).map(|span| span.of(buffer))
    }

    /// The version of the request; 1.1 as long as no request line was read.
    #[inline]
    pub fn version(&self) -> Version {
        self.version.unwrap_or(Version::Http11)
    }

    /// All fields as sent: names in their spelling, values trimmed, order kept. A field that `Connection` may name and
    /// does is about the connection ([`FieldKind::Nominated`]): neither this nor the search by name shows it.
    #[inline]
    pub fn fields<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'b {
        self.fields.of_message(buffer)
    }

    /// The fields that go on to the next hop: all but those about this hop ([`FieldKind::is_forwardable`]). Whoever
    /// forwards writes Host and framing itself, and decides about [`FieldKind::Forwarding`].
    #[inline]
    pub fn forwardable<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = Field<'b>> + 'b {
        self.fields.iter(buffer).filter(|field| field.kind.is_forwardable())
    }

    /// All fields with their kind.
    #[inline]
    pub fn classified<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = Field<'b>> + 'b {
        self.fields.iter(buffer)
    }

    /// Value of the first field called `name`, compared without case.
    #[inline]
    pub fn field<'b>(&self, buffer: &'b [u8], name: &str) -> Option<&'b [u8]> {
        self.fields.first(buffer, name)
    }

    /// Values of all fields called `name`, in order.
    #[inline]
    pub fn field_all<'s, 'b: 's>(&'s self, buffer: &'b [u8], name: &'s str) -> impl Iterator<Item = &'b [u8]> + 's {
        self.fields.all(buffer, name)
    }

    /// Number of fields.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// How the body is delimited. Without Content-Length and Transfer-Encoding there is none.
    #[inline]
    pub fn framing(&self) -> BodyFraming {
        match self.framing {
            FramingFields { chunked: true, .. } => BodyFraming::Chunked,
            FramingFields { length: Some(length), .. } => BodyFraming::Length(length),
            FramingFields { .. } => BodyFraming::None,
        }
    }

    /// Whether the client wants the connection kept: the default of 1.1, and of 1.0 only when asked for.
    #[inline]
    pub fn keep_alive(&self) -> bool {
        match self.version() {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }

    /// What the request asks to turn the connection into. A WebSocket handshake is a GET in 1.1 without body, with
    /// `Connection: upgrade`, `Upgrade: websocket`, version 13 and a key; everything else is an ordinary request.
    pub fn upgrade(&self, buffer: &[u8]) -> Upgrade {
        let is_websocket = self.upgrade.is_handshake()
            && self.connection.upgrade
            && self.version() == Version::Http11
            && self.method.of(buffer) == b"GET"
            && !self.has_body();
        match self.upgrade.is_present() {
            false => Upgrade::None,
            true if is_websocket => Upgrade::WebSocket,
            true => Upgrade::Other,
        }
    }

    /// Whether the client waits for `100 Continue` before it sends its body. Never in 1.0 or without a body.
    pub fn expect_continue(&self) -> bool {
        self.expect_continue && self.version() == Version::Http11 && self.has_body()
    }

    /// The fields this head calls hop-by-hop: elements of its Connection fields, `close` and the like included.
    pub fn connection_options<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = &'b str> + 'b {
        self.fields
            .values(FieldKind::Connection)
            .flat_map(|span| connection::elements(span.of(buffer)))
            .map(octet::text)
    }

    /// Writes the head in its one canonical form, for somebody who parses it again: the request line, then all fields,
    /// those about this hop included.
    pub fn write(&self, buffer: &[u8], out: &mut impl Output) {
        let version: &[u8] = match self.version() {
            Version::Http10 => b" HTTP/1.0\r\n",
            Version::Http11 => b" HTTP/1.1\r\n",
        };
        for part in [self.method.of(buffer), b" ", self.target.whole.of(buffer), version] {
            out.put(part);
        }
        let mut writer = HeadWriter::new(out);
        for field in self.classified(buffer) {
            writer.forward(&field);
        }
        writer.end();
    }

    fn has_body(&self) -> bool {
        !matches!(self.framing(), BodyFraming::None | BodyFraming::Length(0))
    }

    fn refuse(&mut self, error: RequestError) -> RequestError {
        self.stage = Stage::Refused(error);
        error
    }

    fn advance<const LENIENT: bool>(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, RequestError> {
        let underscores = if LENIENT { Underscores::Dropped } else { Underscores::Refused };
        if matches!(self.stage, Stage::RequestLine) {
            let Some(next) = self.read_request_line::<LENIENT>(bytes, limits)? else { return Ok(None) };
            self.progress = Progress::at(next);
            self.stage = Stage::Fields;
        }
        loop {
            if self.fields.len() >= limits.fields && line::is_field::<LENIENT>(bytes, self.progress.start) {
                return Err(RequestError::TooManyFields);
            }
            match self.fields.read_line::<LENIENT>(bytes, self.progress, underscores)? {
                Step::Incomplete(progress) => {
                    self.progress = progress;
                    return Ok(None);
                }
                Step::Field { name, value, next } => {
                    self.accept(bytes, name, value)?;
                    self.progress = Progress::at(next);
                }
                Step::Dropped(next) => self.progress = Progress::at(next),
                Step::End(next) => {
                    self.finish(bytes)?;
                    self.progress = Progress::at(next);
                    self.stage = Stage::Complete;
                    return Ok(Some(next));
                }
            }
        }
    }

    /// Reads the request line, after one tolerated empty line (RFC 9112 section 2.2), and gives the place after it.
    fn read_request_line<const LENIENT: bool>(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, RequestError> {
        let start = match bytes {
            _ if LENIENT => after_empty_lines(bytes),
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        if matches!(bytes[start..], [] | [b'\r']) {
            return Ok(None);
        }
        let Some(at) = self.read_method(bytes, start)? else { return Ok(None) };
        let Some(at) = after_spaces::<LENIENT>(bytes, at)? else { return Ok(None) };
        let Some(at) = self.read_target(bytes, at, limits.target)? else { return Ok(None) };
        let Some(at) = after_spaces::<LENIENT>(bytes, at)? else { return Ok(None) };
        let Some(version) = read_version::<LENIENT>(&bytes[at..])? else { return Ok(None) };
        self.version = Some(version);
        let Some(end) = after_spaces::<LENIENT>(bytes, at + VERSION_LENGTH)? else { return Ok(None) };
        match bytes.get(end) {
            None | Some(b'\r' | b'\n') => Ok(line::line_end::<LENIENT>(bytes, end)?),
            Some(_) => Err(RequestError::Version),
        }
    }

    fn read_method(&mut self, bytes: &[u8], start: usize) -> Result<Option<usize>, RequestError> {
        let longest = bytes.len().min(start + LONGEST_METHOD + 1);
        let end = start + octet::run(&bytes[start..longest], octet::TOKEN);
        if end - start > LONGEST_METHOD {
            return Err(RequestError::MethodTooLong);
        }
        match bytes.get(end) {
            None => return Ok(None),
            Some(b' ') if end > start => {}
            Some(b'\r' | b'\n') if end == start => return Err(RequestError::LeadingEmptyLine),
            Some(b'\r' | b'\n') => return Err(RequestError::RequestLine),
            Some(_) => return Err(RequestError::Method),
        }
        self.method = Span::new(start, end);
        match &bytes[start..end] {
            b"CONNECT" | b"TRACE" => Err(RequestError::MethodNotAllowed),
            b"PRI" => match is_http2_preface(&bytes[start..]) {
                None => Ok(None),
                Some(true) => Err(RequestError::Http2Preface),
                Some(false) => Ok(Some(end + 1)),
            },
            _ => Ok(Some(end + 1)),
        }
    }

    fn read_target(&mut self, bytes: &[u8], start: usize, limit: usize) -> Result<Option<usize>, RequestError> {
        let from = self.progress.checked.max(start);
        let end = from + octet::run(&bytes[from..], octet::TARGET);
        self.progress.checked = end;
        if end - start > limit {
            return Err(RequestError::TargetTooLong);
        }
        match bytes.get(end) {
            None => return Ok(None),
            Some(b' ') if end > start => {}
            Some(b' ' | b'\r' | b'\n') => return Err(RequestError::RequestLine),
            Some(&byte) => return Err(RequestError::TargetByte(byte)),
        }
        // Kept before it is judged, for the log.
        self.target.whole = Span::new(start, end);
        self.target = Target::read(bytes, self.target.whole, self.method.of(bytes))?;
        Ok(Some(end + 1))
    }

    /// Takes note of a field that means something here.
    #[inline]
    fn accept(&mut self, bytes: &[u8], name: Name, span: Span) -> Result<(), RequestError> {
        let value = span.of(bytes);
        match name {
            Name::Other | Name::Forwarding | Name::HopByHop => {}
            Name::Host => self.accept_host(bytes, span)?,
            Name::ContentLength => self.framing.content_length(value)?,
            Name::TransferEncoding => self.framing.transfer_encoding(value, self.version())?,
            Name::Connection => self.connection.add(value, Protected::Fault)?,
            Name::Upgrade => self.upgrade.upgrade(value),
            Name::WebSocketKey => self.upgrade.key(value),
            Name::WebSocketVersion => self.upgrade.version(value),
            Name::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expect_continue = true,
            Name::Expect => return Err(RequestError::Expectation),
        }
        Ok(())
    }

    fn accept_host(&mut self, bytes: &[u8], span: Span) -> Result<(), RequestError> {
        if self.host.is_some() {
            return Err(RequestError::RepeatedHost);
        }
        if !host::is_valid(span.of(bytes)) {
            return Err(RequestError::Host);
        }
        if self.target.authority.is_some_and(|authority| !authority.of(bytes).eq_ignore_ascii_case(span.of(bytes))) {
            return Err(RequestError::HostMismatch);
        }
        self.host = Some(span);
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        if self.host.is_none() && self.version() == Version::Http11 {
            return Err(RequestError::MissingHost);
        }
        if self.connection.nominates {
            self.fields.nominate_all(bytes);
        }
        Ok(())
    }
}

/// Length of `HTTP/1.1`.
pub(crate) const VERSION_LENGTH: usize = 8;

/// The place after the empty lines that `bytes` starts with.
fn after_empty_lines(bytes: &[u8]) -> usize {
    (0..MOST_BLANKS).fold(0, |at, _| match bytes[at..] {
        [b'\n', ..] => at + 1,
        [b'\r', b'\n', ..] => at + 2,
        _ => at,
    })
}

/// The place after further spaces at `at`, of which there are none unless `LENIENT`; `None` when more may come.
#[inline]
fn after_spaces<const LENIENT: bool>(bytes: &[u8], at: usize) -> Result<Option<usize>, RequestError> {
    if !LENIENT {
        return Ok(Some(at));
    }
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.iter().take(MOST_BLANKS).position(|&byte| byte != b' ') {
        Some(count) => Ok(Some(at + count)),
        None if rest.len() < MOST_BLANKS => Ok(None),
        None => Err(RequestError::RequestLine),
    }
}

/// Reads the version at the start of `bytes`; `None` when it is cut off. `LENIENT`: a minor version above 1 means 1.1
/// (RFC 9110 section 2.5).
fn read_version<const LENIENT: bool>(bytes: &[u8]) -> Result<Option<Version>, RequestError> {
    if bytes.starts_with(b"HTTP/1.1") {
        return Ok(Some(Version::Http11));
    }
    let is_version = |(place, &byte): (usize, &u8)| match place {
        5 | 7 => byte.is_ascii_digit(),
        _ => byte == b"HTTP/1.1"[place],
    };
    if !bytes.iter().take(VERSION_LENGTH).enumerate().all(is_version) {
        return Err(RequestError::Version);
    }
    match bytes.get(..VERSION_LENGTH) {
        None => Ok(None),
        Some(b"HTTP/1.0") => Ok(Some(Version::Http10)),
        Some([b'H', b'T', b'T', b'P', b'/', b'1', ..]) if LENIENT => Ok(Some(Version::Http11)),
        Some(_) => Err(RequestError::VersionNotSupported),
    }
}

/// Whether `bytes` starts with the first line of an HTTP/2 connection; `None` when they are too few to tell.
fn is_http2_preface(bytes: &[u8]) -> Option<bool> {
    let seen = bytes.len().min(HTTP2_PREFACE_LINE.len());
    match bytes[..seen] == HTTP2_PREFACE_LINE[..seen] {
        true if seen < HTTP2_PREFACE_LINE.len() => None,
        is_preface => Some(is_preface),
    }
}

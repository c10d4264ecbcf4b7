//! Reading a response head (RFC 9112 sections 4 to 7), as strictly as a request: an upstream that cannot frame its
//! answer makes the connection to it worthless.

use crate::connection::{ConnectionFault, ConnectionOptions, Protected};
use crate::field::{Field, FieldSection, Name, Step};
use crate::framing::{FramingFault, FramingFields, ResponseFraming};
use crate::line::{FieldFault, Progress, Span, Underscores};
use crate::request::VERSION_LENGTH;
use crate::upgrade::UpgradeFields;
use crate::{HeadLimits, ParsePolicy, Version, line, octet};

/// What the request was that a response answers: the same bytes mean different bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A HEAD request: the answer has no body.
    Head,
    /// A WebSocket handshake: 101 is a possible answer.
    WebSocket,
    /// Any other request.
    Other,
}

/// Why a response head is refused. The client gets 502 and the connection to the upstream is dropped.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// The head is larger than [`HeadLimits::bytes`].
    #[error("response head is too large")]
    HeadTooLarge,
    /// More fields than [`HeadLimits::fields`].
    #[error("response has too many fields")]
    TooManyFields,
    /// Not `HTTP/1.0` or `HTTP/1.1`, a space, a status from 100 to 599 and a reason.
    #[error("status line is malformed")]
    StatusLine,
    /// A 101 nobody asked for.
    #[error("101 answer to a request that asked for no upgrade")]
    UnexpectedUpgrade,
    /// A 101 that does not switch to what was asked for.
    #[error("101 answer that does not switch to websocket")]
    Upgrade,
    /// The Connection field is not a list of tokens, or lists too many.
    #[error("connection field is not a short list of names")]
    Connection,
    /// A malformed field line.
    #[error(transparent)]
    Field(#[from] FieldFault),
    /// Ambiguous or unknown body framing.
    #[error(transparent)]
    Framing(#[from] FramingFault),
}

impl From<ConnectionFault> for ResponseError {
    fn from(_: ConnectionFault) -> Self {
        Self::Connection
    }
}

/// One response head, as ranges over the buffer it was read from. The contract is that of
/// [`RequestHead`](crate::RequestHead).
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    stage: Stage,
    /// Place in the line that is being read.
    progress: Progress,
    version: Option<Version>,
    status: u16,
    reason: Span,
    fields: FieldSection,
    framing_fields: FramingFields,
    framing: Option<ResponseFraming>,
    connection: ConnectionOptions,
    upgrade: UpgradeFields,
}

#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    #[default]
    StatusLine,
    Fields,
    Complete,
    Refused(ResponseError),
}

impl ResponseHead {
    /// An empty head. Its first [`parse`](Self::parse) allocates room for the ranges of the fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the value ready for the next response, keeping its allocation.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Reads a head at the start of `buffer`, as the answer to what was `asked`. [`HeadLimits::target`] plays no part.
    ///
    /// `Ok(Some(length))`: complete. When [`is_informational`](Self::is_informational), the answer proper is still to
    /// come: drop `length` bytes, clear and parse again, and count, because an upstream may send such heads for ever.
    /// `Ok(None)`: call again with the same bytes and more behind them. An end of file in that state is a truncation.
    /// `policy` has to be the same for all bytes of one head.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        asked: Asked,
        policy: ParsePolicy,
    ) -> Result<Option<usize>, ResponseError> {
        match self.stage {
            Stage::StatusLine | Stage::Fields => {}
            Stage::Complete => return Ok(Some(self.progress.start)),
            Stage::Refused(error) => return Err(error),
        }
        let (bytes, is_full) = limits.window(buffer);
        if bytes.len() < self.progress.checked {
            // Fewer bytes than before: nothing new to say about them.
            return Ok(None);
        }
        let outcome = match policy {
            ParsePolicy::Strict => self.advance::<false>(bytes, limits, asked),
            ParsePolicy::Lenient => self.advance::<true>(bytes, limits, asked),
        };
        match outcome {
            Ok(None) if is_full => Err(self.refuse(ResponseError::HeadTooLarge)),
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// The status, 100 to 599; 0 as long as none was read.
    #[inline]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as sent, which may be empty and may hold `obs-text`.
    #[inline]
    pub fn reason<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        self.reason.of(buffer)
    }

    /// The version of the response; 1.1 as long as no status line was read.
    #[inline]
    pub fn version(&self) -> Version {
        self.version.unwrap_or(Version::Http11)
    }

    /// All fields as sent: names in their spelling, values trimmed, order kept. A field that `Connection` may name and
    /// does is about the connection (`FieldKind::Nominated`): neither this nor the search by name shows it.
    #[inline]
    pub fn fields<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'b {
        self.fields.of_message(buffer)
    }

    /// The fields that go on to the client: all but those about this hop and framing, which is written anew.
    #[inline]
    pub fn forwardable<'b>(&'b self, buffer: &'b [u8]) -> impl Iterator<Item = Field<'b>> + 'b {
        self.fields.iter(buffer).filter(|field| field.kind.is_forwardable())
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

    /// How the body is delimited: not at all for answers to HEAD, 1xx, 204 and 304, whatever the fields say.
    #[inline]
    pub fn framing(&self) -> ResponseFraming {
        self.framing.unwrap_or(ResponseFraming::None)
    }

    /// The Content-Length sent, also where it delimits nothing: answers to HEAD and 304 tell the length a GET would
    /// have got, and are forwarded with it.
    #[inline]
    pub fn content_length(&self) -> Option<u64> {
        self.framing_fields.length
    }

    /// Whether the connection can carry another request once this answer has been read to its end.
    ///
    /// Not after a 204 that announces a body: such an upstream is likely to send one, into the next answer.
    #[inline]
    pub fn keep_alive(&self) -> bool {
        let is_wanted = match self.version() {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        };
        is_wanted && self.status != 101 && self.framing() != ResponseFraming::UntilClose && !self.announces_in_vain()
    }

    /// Whether another head follows this one: 1xx other than 101.
    #[inline]
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether this is a 101 that accepts the WebSocket handshake: what follows is the tunnel.
    #[inline]
    pub fn is_upgrade(&self) -> bool {
        self.status == 101
    }

    fn announces_in_vain(&self) -> bool {
        self.status == 204
            && (self.framing_fields.chunked || self.framing_fields.length.is_some_and(|length| length > 0))
    }

    fn refuse(&mut self, error: ResponseError) -> ResponseError {
        self.stage = Stage::Refused(error);
        error
    }

    fn advance<const LENIENT: bool>(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Option<usize>, ResponseError> {
        if matches!(self.stage, Stage::StatusLine) {
            let Some(next) = self.read_status_line::<LENIENT>(bytes)? else { return Ok(None) };
            self.progress = Progress::at(next);
            self.stage = Stage::Fields;
        }
        loop {
            if self.fields.len() >= limits.fields && line::is_field::<LENIENT>(bytes, self.progress.start) {
                return Err(ResponseError::TooManyFields);
            }
            match self.fields.read_line::<LENIENT>(bytes, self.progress, Underscores::Allowed)? {
                Step::Incomplete(progress) => {
                    self.progress = progress;
                    return Ok(None);
                }
                Step::Field { name, value, next } => {
                    self.accept(name, value.of(bytes))?;
                    self.progress = Progress::at(next);
                }
                Step::Dropped(next) => self.progress = Progress::at(next),
                Step::End(next) => {
                    self.finish(bytes, asked)?;
                    self.progress = Progress::at(next);
                    self.stage = Stage::Complete;
                    return Ok(Some(next));
                }
            }
        }
    }

    /// Reads the status line and gives the place after it. The space before an empty reason may be missing: some
    /// applications leave it out, and no other reading exists.
    fn read_status_line<const LENIENT: bool>(&mut self, bytes: &[u8]) -> Result<Option<usize>, ResponseError> {
        if !bytes.iter().take(STATUS_END).enumerate().all(is_status_line::<LENIENT>) {
            return Err(ResponseError::StatusLine);
        }
        let Some(start) = bytes.get(..STATUS_END) else { return Ok(None) };
        self.version = Some(if start[VERSION_LENGTH - 1] == b'0' { Version::Http10 } else { Version::Http11 });
        self.status = start[STATUS_START..].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let reason_start = match bytes.get(STATUS_END) {
            None => return Ok(None),
            Some(b' ') => STATUS_END + 1,
            Some(b'\r' | b'\n') => STATUS_END,
            Some(_) => return Err(ResponseError::StatusLine),
        };
        let from = self.progress.checked.max(reason_start);
        let reason_end = from + octet::value_run(&bytes[from..]);
        self.progress.checked = reason_end;
        self.reason = Span::new(reason_start, reason_end);
        match bytes.get(reason_end) {
            None | Some(b'\r' | b'\n') => Ok(line::line_end::<LENIENT>(bytes, reason_end)?),
            Some(_) => Err(ResponseError::StatusLine),
        }
    }

    #[inline]
    fn accept(&mut self, name: Name, value: &[u8]) -> Result<(), ResponseError> {
        match name {
            Name::ContentLength => self.framing_fields.content_length(value)?,
            Name::TransferEncoding => self.framing_fields.transfer_encoding(value, self.version())?,
            Name::Connection => self.connection.add(value, Protected::Ignored)?,
            Name::Upgrade => self.upgrade.upgrade(value),
            Name::Expect | Name::Forwarding | Name::HopByHop | Name::Host | Name::Other => {}
            Name::WebSocketKey | Name::WebSocketVersion => {}
        }
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8], asked: Asked) -> Result<(), ResponseError> {
        if self.status == 101 {
            self.check_upgrade(asked)?;
        }
        if self.connection.nominates {
            self.fields.nominate_all(bytes);
        }
        self.framing = Some(match (self.status, self.framing_fields) {
            _ if asked == Asked::Head => ResponseFraming::None,
            (100..200 | 204 | 304, _) => ResponseFraming::None,
            (_, FramingFields { chunked: true, .. }) => ResponseFraming::Chunked,
            (_, FramingFields { length: Some(length), .. }) => ResponseFraming::Length(length),
            (_, FramingFields { .. }) => ResponseFraming::UntilClose,
        });
        Ok(())
    }

    fn check_upgrade(&self, asked: Asked) -> Result<(), ResponseError> {
        match asked {
            Asked::Head | Asked::Other => Err(ResponseError::UnexpectedUpgrade),
            Asked::WebSocket
                if self.upgrade.is_websocket() && self.connection.upgrade && self.version() == Version::Http11 =>
            {
                Ok(())
            }
            Asked::WebSocket => Err(ResponseError::Upgrade),
        }
    }
}

const STATUS_START: usize = VERSION_LENGTH + 1;
const STATUS_END: usize = STATUS_START + 3;

/// Whether `byte` may stand at `place` of a status line, as far as the end of the status. `LENIENT`: a minor version
/// above 1 means 1.1.
fn is_status_line<const LENIENT: bool>((place, &byte): (usize, &u8)) -> bool {
    match place {
        7 if LENIENT => byte.is_ascii_digit(),
        7 => matches!(byte, b'0' | b'1'),
        STATUS_START => matches!(byte, b'1'..=b'5'),
        10.. => byte.is_ascii_digit(),
        _ => byte == b"HTTP/1.1 "[place],
    }
}

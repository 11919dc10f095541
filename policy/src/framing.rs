//! HTTP/1.1 as bytes on a connection: a stream of messages is followed from its first byte and refused at
//! the first one that leaves any doubt where a message ends (RFC 9112 §2.2, §5, §6, §11; D15, D17).
//!
//! Parsers are lenient in different ways: one takes a bare line feed for the end of a line, another
//! forgets a length that stands beside chunks. Two of them behind each other read one stream as two
//! different sequences of messages, and what one took for a body is a request to the other. So this stands
//! in front of the parser and lets through only what all of them read alike.

mod head;

use head::{Answer, Body};

/// No head is followed further than this many bytes; the parser behind has a limit of its own below it.
const MAX_HEAD: usize = 512 * 1024;
/// No line of chunk framing, and no block of trailers, is longer than this many bytes.
const MAX_EXTRA: usize = 16 * 1024;
/// With which HTTP/2 begins (RFC 9113 §3.4); it frames its messages itself.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No request gets more interim answers than this.
const MAX_INTERIM: u8 = 16;

/// Why a stream is refused. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FramingRefusal {
    /// A line feed without the carriage return before it.
    #[error("a line ends with a bare line feed")]
    BareLineFeed,
    /// A carriage return without the line feed after it.
    #[error("a carriage return stands alone")]
    BareCarriageReturn,
    /// NUL or another control character in a head.
    #[error("a head holds a control character")]
    Control,
    /// A header line that begins with white space (`obs-fold`, RFC 9112 §5.2).
    #[error("a header is folded")]
    Folded,
    /// An empty line where a message should begin.
    #[error("an empty line stands before a message")]
    EmptyLine,
    /// Not `method SP target SP HTTP/1.x`, or not a status line.
    #[error("the first line is malformed")]
    StartLine,
    /// A header whose name is no token directly followed by a colon.
    #[error("a header name is malformed")]
    FieldName,
    /// More than one `Content-Length`, equal or not.
    #[error("there is more than one length")]
    SeveralLengths,
    /// A `Content-Length` that is not digits only.
    #[error("the length is malformed")]
    Length,
    /// A `Transfer-Encoding` that is not `chunked`, once, in HTTP/1.1.
    #[error("the transfer coding is not taken")]
    TransferCoding,
    /// `Content-Length` and `Transfer-Encoding` in one message.
    #[error("there is a length beside a transfer coding")]
    LengthAndCoding,
    /// A length or coding on a message that has no body by its kind.
    #[error("a message without a body has a length")]
    NoBodyHere,
    /// A chunk whose size is not 1 to 16 hexadecimal digits and a line end.
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// A chunk extension of a request.
    #[error("a chunk has an extension")]
    ChunkExtension,
    /// Chunk data that is not followed by a line end.
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    /// A head, chunk line or trailer block beyond its bound.
    #[error("framing is longer than its bound")]
    TooLong,
    /// 101, or more interim answers than the bound.
    #[error("an interim answer is not taken")]
    Interim,
    /// An answer, or a byte of one, that no request asked for.
    #[error("an answer came that nobody asked for")]
    Unasked,
}

impl FramingRefusal {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLineFeed => "FramingBareLineFeed",
            Self::BareCarriageReturn => "FramingBareCarriageReturn",
            Self::Control => "FramingControlCharacter",
            Self::Folded => "FramingFoldedHeader",
            Self::EmptyLine => "FramingEmptyLine",
            Self::StartLine => "FramingStartLine",
            Self::FieldName => "FramingHeaderName",
            Self::SeveralLengths => "FramingSeveralLengths",
            Self::Length => "FramingLength",
            Self::TransferCoding => "FramingTransferCoding",
            Self::LengthAndCoding => "FramingLengthAndCoding",
            Self::NoBodyHere => "FramingNoBodyHere",
            Self::ChunkSize => "FramingChunkSize",
            Self::ChunkExtension => "FramingChunkExtension",
            Self::ChunkEnd => "FramingChunkEnd",
            Self::TooLong => "FramingTooLong",
            Self::Interim => "FramingInterimAnswer",
            Self::Unasked => "FramingUnaskedAnswer",
        }
    }
}

/// Where a stream stopped being good: so many bytes of the last piece came before the offending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Bytes of the piece that may go on.
    pub good: usize,
    /// Why the next may not.
    pub why: FramingRefusal,
    /// True when it happened within the head of a message, before any of its body.
    pub in_head: bool,
}

/// Follows the messages that go one way on one connection.
#[derive(Debug)]
pub struct Framing {
    kind: Kind,
    state: State,
    head: Vec<u8>,
    stopped: Option<FramingRefusal>,
}

#[derive(Debug)]
enum Kind {
    /// How many heads have ended, and whether the last was of a `HEAD` request.
    Requests { heads: u64, head_only: bool },
    /// The request that waits for its answer: whether it is a `HEAD`. Interim answers so far.
    Answers { asked: Option<bool>, interim: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of [`PREFACE`] have come, and nothing else.
    Preface {
        seen: usize,
    },
    Head,
    Data {
        left: u64,
    },
    UntilEnd,
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkExtension {
        size: u64,
        len: usize,
    },
    ChunkSizeLf {
        size: u64,
    },
    ChunkData {
        left: u64,
    },
    ChunkDataCr,
    ChunkDataLf,
    /// At the beginning of a trailer line; so many bytes of trailers before it.
    Trailer {
        len: usize,
    },
    TrailerLine {
        len: usize,
    },
    TrailerLineLf {
        len: usize,
    },
    LastLf,
}

impl Framing {
    /// Requests, as a server reads them.
    #[must_use]
    pub fn requests() -> Self {
        Self::new(Kind::Requests { heads: 0, head_only: false })
    }

    /// Requests on a connection that may turn out to be HTTP/2, which is not followed.
    #[must_use]
    pub fn requests_or_http2() -> Self {
        Self { state: State::Preface { seen: 0 }, ..Self::requests() }
    }

    /// Answers, as a client reads them; none may come before [`Framing::asked`].
    #[must_use]
    pub fn answers() -> Self {
        Self::new(Kind::Answers { asked: None, interim: 0 })
    }

    fn new(kind: Kind) -> Self {
        Self { kind, state: State::Head, head: Vec::new(), stopped: None }
    }

    /// So many heads of requests have ended; none of answers is counted.
    #[must_use]
    pub fn heads(&self) -> u64 {
        if let Kind::Requests { heads, .. } = self.kind { heads } else { 0 }
    }

    /// True when the last request was a `HEAD`, whose answer has no body.
    #[must_use]
    pub fn head_only(&self) -> bool {
        matches!(self.kind, Kind::Requests { head_only: true, .. })
    }

    /// A request has been sent: one answer may come.
    pub fn asked(&mut self, head_only: bool) {
        if let Kind::Answers { asked, interim } = &mut self.kind {
            *asked = Some(head_only);
            *interim = 0;
        }
    }

    /// Follows the next bytes of the stream. After an error every further piece is one.
    ///
    /// # Errors
    /// At the first byte that leaves a doubt.
    pub fn follow(&mut self, piece: &[u8]) -> Result<(), Stop> {
        let mut rest = piece;
        if let Some(why) = self.stopped {
            return if piece.is_empty() { Ok(()) } else { Err(Stop { good: 0, why, in_head: false }) };
        }
        while !rest.is_empty() {
            let in_head = matches!(self.state, State::Head | State::Preface { .. });
            match self.step(rest) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(why) => {
                    self.stopped = Some(why);
                    self.head = Vec::new();
                    return Err(Stop { good: piece.len().saturating_sub(rest.len()), why, in_head });
                }
            }
        }
        Ok(())
    }

    /// Takes at least one byte; says how many.
    fn step(&mut self, rest: &[u8]) -> Result<usize, FramingRefusal> {
        let Some(&byte) = rest.first() else { return Ok(0) };
        let available = rest.len();
        let some = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(available);
        match self.state {
            State::Data { left } | State::ChunkData { left } => {
                let taken = some(left);
                let left = left.saturating_sub(taken as u64);
                self.state = match (self.state, left) {
                    (State::Data { .. }, 0) => self.message_ended(),
                    (State::Data { .. }, left) => State::Data { left },
                    (_, 0) => State::ChunkDataCr,
                    (_, left) => State::ChunkData { left },
                };
                return Ok(taken);
            }
            State::UntilEnd => return Ok(available),
            State::Preface { seen } => self.preface_byte(seen, byte)?,
            State::Head => self.head_byte(byte)?,
            _ => self.state = self.chunk_byte(byte)?,
        }
        Ok(1)
    }

    fn preface_byte(&mut self, seen: usize, byte: u8) -> Result<(), FramingRefusal> {
        if PREFACE.get(seen) == Some(&byte) {
            let seen = seen.saturating_add(1);
            self.state = if seen == PREFACE.len() { State::UntilEnd } else { State::Preface { seen } };
            return Ok(());
        }
        self.state = State::Head;
        for before in PREFACE.iter().take(seen) {
            self.head_byte(*before)?;
        }
        self.head_byte(byte)
    }

    fn head_byte(&mut self, byte: u8) -> Result<(), FramingRefusal> {
        let last = self.head.last().copied();
        if last.is_none() {
            if matches!(self.kind, Kind::Answers { asked: None, .. }) {
                return Err(FramingRefusal::Unasked);
            }
            if matches!(byte, b'\r' | b'\n') {
                return Err(FramingRefusal::EmptyLine);
            }
        }
        match (last, byte) {
            (Some(b'\r'), b'\n') => {}
            (Some(b'\r'), _) => return Err(FramingRefusal::BareCarriageReturn),
            (_, b'\n') => return Err(FramingRefusal::BareLineFeed),
            (Some(b'\n'), b' ' | b'\t') => return Err(FramingRefusal::Folded),
            (_, b'\r' | b'\t') => {}
            (_, 0..=0x1f | 0x7f) => return Err(FramingRefusal::Control),
            _ => {}
        }
        if self.head.len() >= MAX_HEAD {
            return Err(FramingRefusal::TooLong);
        }
        if byte == b'\n' && self.head.ends_with(b"\r\n\r") {
            let mut text = std::mem::take(&mut self.head);
            self.state = self.head_ended(&text)?;
            // Kept for the next head on this connection.
            text.clear();
            self.head = text;
            return Ok(());
        }
        self.head.push(byte);
        Ok(())
    }

    fn head_ended(&mut self, text: &[u8]) -> Result<State, FramingRefusal> {
        let body = match &mut self.kind {
            Kind::Requests { heads, head_only } => {
                let (body, is_head) = head::request(text)?;
                *heads = heads.saturating_add(1);
                *head_only = is_head;
                body
            }
            Kind::Answers { asked, interim } => match head::answer(text, asked.unwrap_or(false))? {
                Answer::Interim if *interim >= MAX_INTERIM => return Err(FramingRefusal::Interim),
                Answer::Interim => {
                    *interim = interim.saturating_add(1);
                    return Ok(State::Head);
                }
                Answer::Final(body) => body,
            },
        };
        Ok(match body {
            Body::None => self.message_ended(),
            Body::Length(left) => State::Data { left },
            Body::Chunked => State::ChunkSize { size: 0, digits: 0 },
            Body::UntilEnd => State::UntilEnd,
        })
    }

    fn message_ended(&mut self) -> State {
        if let Kind::Answers { asked, .. } = &mut self.kind {
            *asked = None;
        }
        State::Head
    }

    /// One byte of chunk framing (RFC 9112 §7.1).
    fn chunk_byte(&mut self, byte: u8) -> Result<State, FramingRefusal> {
        let longer = |len: usize| match len.saturating_add(1) {
            len if len > MAX_EXTRA => Err(FramingRefusal::TooLong),
            len => Ok(len),
        };
        Ok(match (self.state, byte) {
            (State::ChunkSize { size, digits }, b'\r') if digits > 0 => State::ChunkSizeLf { size },
            (State::ChunkSize { size, digits }, b';') if digits > 0 => {
                // Nobody here needs them; answers may have them, and the parser drops them.
                if matches!(self.kind, Kind::Requests { .. }) {
                    return Err(FramingRefusal::ChunkExtension);
                }
                State::ChunkExtension { size, len: 0 }
            }
            (State::ChunkSize { size, digits }, byte) if digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(FramingRefusal::ChunkSize)?;
                State::ChunkSize { size: (size << 4) | u64::from(digit), digits: digits.saturating_add(1) }
            }
            (State::ChunkSize { .. }, _) => return Err(FramingRefusal::ChunkSize),
            (State::ChunkExtension { size, .. }, b'\r') => State::ChunkSizeLf { size },
            (State::ChunkExtension { .. } | State::TrailerLine { .. } | State::Trailer { .. }, b'\n') => {
                return Err(FramingRefusal::BareLineFeed);
            }
            (State::ChunkExtension { size, len }, _) => State::ChunkExtension { size, len: longer(len)? },
            (State::ChunkSizeLf { size: 0 }, b'\n') => State::Trailer { len: 0 },
            (State::ChunkSizeLf { size }, b'\n') => State::ChunkData { left: size },
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (State::ChunkDataCr | State::ChunkDataLf, _) => return Err(FramingRefusal::ChunkEnd),
            (State::Trailer { .. }, b'\r') => State::LastLf,
            (State::Trailer { .. }, b' ' | b'\t') => return Err(FramingRefusal::Folded),
            (State::TrailerLine { len }, b'\r') => State::TrailerLineLf { len },
            (State::Trailer { len } | State::TrailerLine { len }, _) => {
                State::TrailerLine { len: longer(len)? }
            }
            (State::TrailerLineLf { len }, b'\n') => State::Trailer { len },
            (State::LastLf, b'\n') => self.message_ended(),
            _ => return Err(FramingRefusal::BareCarriageReturn),
        })
    }
}

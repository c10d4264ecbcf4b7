//! A client that sends any bytes and reads answers by the strict policy.

use std::{net::SocketAddr, time::Duration};

use tidegate_http1::{Asked, BodyDecoder, HeadLimits, ParsePolicy, ResponseHead};
use tidegate_tests::{
    certificates::{HTTP1, trusting_client},
    connect::{self, Stream},
    raw::End,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::meaning::{decode, text};

/// One connection.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
    ended: Option<End>,
}

/// One final answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// False when it broke off.
    pub(super) complete: bool,
    /// Whether it says that the connection ends with it.
    pub(super) closes: bool,
}

impl Client {
    pub(super) async fn plain(address: SocketAddr) -> Self {
        Self::over(connect::tcp(address).await.unwrap_or_else(|error| panic!("{error:#}")))
    }

    pub(super) async fn tls(address: SocketAddr) -> Self {
        let stream = connect::tls(address, "localhost", trusting_client(&[HTTP1])).await;
        Self::over(stream.unwrap_or_else(|error| panic!("{error:#}")))
    }

    fn over(stream: impl Stream) -> Self {
        Self { stream: Box::new(stream), ahead: Vec::new(), ended: None }
    }

    /// Sends bytes. A connection that the other side has ended swallows them.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(LIMIT, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await;
    }

    /// Ends our direction.
    pub(super) async fn finish(&mut self) {
        let _ = timeout(LIMIT, self.stream.shutdown()).await;
    }

    /// The next final answer; `None` when the connection ends instead. An error says what was wrong with it.
    pub(super) async fn answer(&mut self, asked: Asked) -> Result<Option<Answer>, String> {
        let head = loop {
            let mut head = ResponseHead::new();
            let parsed = head.parse(&self.ahead, &LIMITS, asked, ParsePolicy::Strict);
            match parsed.map_err(|error| format!("malformed answer: {error}: {}", text(&self.ahead)))? {
                Some(length) if head.is_informational() => drop(self.ahead.drain(..length)),
                Some(length) => break (head, length),
                None if self.more().await? => {}
                None if self.ahead.is_empty() || self.ended == Some(End::Reset) => return Ok(None),
                None => return Err(format!("the connection ends inside a head: {}", text(&self.ahead))),
            }
        };
        let (head, length) = head;
        let fields = head.fields(&self.ahead).map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
        let mut answer = Answer {
            status: head.status(),
            fields: fields.collect(),
            body: Vec::new(),
            complete: false,
            closes: !head.keep_alive(),
        };
        self.ahead.drain(..length);
        let mut decoder = BodyDecoder::new(head.framing());
        loop {
            let taken = decode(&mut decoder, &self.ahead, &mut answer.body);
            let taken = taken.map_err(|()| format!("malformed body: {}", text(&self.ahead)))?;
            self.ahead.drain(..taken);
            if decoder.is_done() {
                answer.complete = true;
                return Ok(Some(answer));
            }
            if !self.more().await? {
                answer.complete = decoder.finish_eof().is_ok() && self.ended == Some(End::Closed);
                return Ok(Some(answer));
            }
        }
    }

    /// Reads to the end: what came besides the answers that were read.
    pub(super) async fn rest(&mut self) -> Result<&[u8], String> {
        while self.more().await? {}
        Ok(&self.ahead)
    }

    /// Reads once; false at the end.
    async fn more(&mut self) -> Result<bool, String> {
        if self.ended.is_some() {
            return Ok(false);
        }
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.ahead)).await;
        match read.map_err(|_| format!("nothing within {LIMIT:?}, and the connection is open"))? {
            Ok(count) if count > 0 => return Ok(true),
            Ok(_) => self.ended = Some(End::Closed),
            Err(_) => self.ended = Some(End::Reset),
        }
        Ok(false)
    }
}

impl Answer {
    /// The value of a field, the first one.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &value[..])
    }
}

const LIMIT: Duration = Duration::from_secs(10);
const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 1000, target: 0 };

//! A ledger of requests: each id is answered exactly once, to the client that asked, with the right body, and its
//! effect happened as often as it should.
//!
//! Load generators reconnect and try again; they hide resets, crossed answers and repeated effects. The ledger does not:
//! it knows both ends. Its origin counts what was carried out, its entries what the clients got, and
//! [`Ledger::report`] compares the two.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    client::{Answer, Ask, Ending},
    pattern::hash,
};

/// The books and the origin that belongs to them. The origin stops when the last copy is dropped.
#[derive(Clone)]
pub struct Ledger {
    books: Arc<Mutex<BTreeMap<u64, Page>>>,
    address: SocketAddr,
    _origin: Arc<Origin>,
}

/// A request that was entered and waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an entry without its outcome counts as lost"]
pub struct Entry {
    id: u64,
}

/// Everything that is wrong, by id. All lists are empty when nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests entered.
    pub entered: usize,
    /// Requests with their own answer, whole.
    pub answered: usize,
    /// Refused by a status of 500 or above that is not the origin's, or by the origin's 400 for a body that broke off: an
    /// honest failure.
    pub refused: Vec<u64>,
    /// No answer, or one that visibly broke off.
    pub lost: Vec<u64>,
    /// More than one answer.
    pub doubled: Vec<u64>,
    /// An answer that belongs to another request.
    pub crossed: Vec<u64>,
    /// A body that is wrong although it looks whole.
    pub wrong: Vec<u64>,
    /// A request with an effect that was carried out more than once. Those without may be tried again.
    pub repeated: Vec<u64>,
    /// Answered as done, and never carried out.
    pub invented: Vec<u64>,
    /// Arrived at the origin with another body than was sent.
    pub garbled: Vec<u64>,
}

#[derive(Debug, Clone, Default)]
struct Page {
    has_effect: bool,
    sent: u64,
    length: usize,
    carried_out: Vec<u64>,
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    Refused,
    Lost,
    Crossed,
    Wrong,
}

struct Origin(JoinHandle<()>);

impl Ledger {
    /// Opens the books and starts the origin on a free loopback port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let books = Arc::default();
        let origin = Arc::new(Origin(tokio::spawn(serve(listener, Arc::clone(&books)))));
        Self { books, address, _origin: origin }
    }

    /// Where the origin listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Enters a request without a body whose answer has `length` bytes.
    pub fn get(&self, length: usize) -> (Entry, Ask) {
        self.enter("GET", Bytes::new(), length)
    }

    /// Enters a request with an effect: it carries `sent` bytes and gets `length` back.
    pub fn post(&self, sent: usize, length: usize) -> (Entry, Ask) {
        let id = lock(&self.books).len() as u64;
        self.enter("POST", body_of(id ^ u64::MAX, sent), length)
    }

    /// Notes what a client got for an entry.
    pub fn close(&self, entry: &Entry, answer: &Result<Answer>) {
        let mut books = lock(&self.books);
        let Some(page) = books.get_mut(&entry.id) else { return };
        let outcome = judge(entry.id, page.length, answer);
        page.outcomes.push(outcome);
    }

    /// Compares what the clients got with what the origin did.
    pub fn report(&self) -> Report {
        let books = lock(&self.books);
        let mut report = Report { entered: books.len(), ..Report::default() };
        for (id, page) in books.iter() {
            report.add(*id, page);
        }
        report
    }

    fn enter(&self, method: &str, body: Bytes, length: usize) -> (Entry, Ask) {
        let mut books = lock(&self.books);
        let id = books.len() as u64;
        books.insert(id, Page { has_effect: method == "POST", sent: hash(&body), length, ..Page::default() });
        let ask = Ask::new(method, &format!("/ledger/{id}?length={length}"));
        (Entry { id }, ask.body(Full::new(body)))
    }
}

impl Report {
    /// # Panics
    /// When a single request was not answered exactly once, rightly, by one effect.
    pub fn assert_clean(&self) {
        assert!(self.refused.is_empty() && self.lost.is_empty(), "{self:#?}");
        self.assert_honest();
        assert_eq!(self.answered, self.entered, "{self:#?}");
    }

    /// Failures that say so are allowed; lies are not.
    ///
    /// # Panics
    /// When an answer was doubled, crossed, wrong or invented, or an effect repeated.
    pub fn assert_honest(&self) {
        let lies = [&self.doubled, &self.crossed, &self.wrong, &self.repeated, &self.invented, &self.garbled];
        assert!(lies.iter().all(|ids| ids.is_empty()), "{self:#?}");
    }

    fn add(&mut self, id: u64, page: &Page) {
        let was = |outcome| page.outcomes.contains(&outcome);
        let right = was(Outcome::Right);
        for (list, holds) in [
            (&mut self.doubled, page.outcomes.len() > 1),
            (&mut self.lost, page.outcomes.is_empty() || was(Outcome::Lost)),
            (&mut self.refused, was(Outcome::Refused)),
            (&mut self.crossed, was(Outcome::Crossed)),
            (&mut self.wrong, was(Outcome::Wrong)),
            (&mut self.repeated, page.has_effect && page.carried_out.len() > 1),
            (&mut self.invented, right && page.carried_out.is_empty()),
            (&mut self.garbled, page.carried_out.iter().any(|arrived| *arrived != page.sent)),
        ] {
            if holds {
                list.push(id);
            }
        }
        self.answered += usize::from(right);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: TcpListener, books: Arc<Mutex<BTreeMap<u64, Page>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            let service = service_fn(move |request| carry_out(Arc::clone(&books), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn carry_out(
    books: Arc<Mutex<BTreeMap<u64, Page>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.uri().path().strip_prefix("/ledger/").and_then(|id| id.parse().ok());
    let length = request.uri().query().and_then(|query| query.strip_prefix("length=")?.parse().ok());
    let (Some(id), Some(length)) = (id, length) else { return Ok(answer(404, None, Bytes::new())) };
    // A request whose body broke off has no effect.
    let Ok(body) = request.into_body().collect().await else { return Ok(answer(400, None, Bytes::new())) };
    lock(&books).entry(id).or_default().carried_out.push(hash(&body.to_bytes()));
    Ok(answer(200, Some(id), body_of(id, length)))
}

fn answer(status: u16, id: Option<u64>, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    if let Some(id) = id {
        response = response.header(ID, id);
    }
    response.body(Full::new(body)).expect("a number is a header value")
}

fn judge(id: u64, length: usize, answer: &Result<Answer>) -> Outcome {
    let Ok(answer) = answer else { return Outcome::Lost };
    match (answer.header(ID), &answer.ending) {
        (_, Ending::Cut(_)) => Outcome::Lost,
        (Some(other), _) if other.parse() != Ok(id) => Outcome::Crossed,
        (Some(_), _) if answer.body == body_of(id, length) => Outcome::Right,
        (None, _) if answer.status.is_server_error() || answer.status == 400 => Outcome::Refused,
        _ => Outcome::Wrong,
    }
}

/// The bytes that belong to an id: no two ids share a piece of eight bytes at the same place.
pub fn body_of(id: u64, length: usize) -> Bytes {
    let first = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    for index in 0..length.div_ceil(8) as u64 {
        bytes.extend_from_slice(&first.wrapping_add(index).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

// Guards the books only; held while a page is read or changed.
fn lock(books: &Mutex<BTreeMap<u64, Page>>) -> MutexGuard<'_, BTreeMap<u64, Page>> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

const ID: &str = "x-ledger-id";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{Client, Kind},
        fault::{Fault, FaultProxy, Plan},
    };

    async fn send(ledger: &Ledger, entry: &Entry, ask: Ask, address: SocketAddr) -> Result<Answer> {
        let answer = Client::new(Kind::Http1, address).send(ask).await;
        ledger.close(entry, &answer);
        answer
    }

    #[tokio::test]
    async fn honest_work_is_clean() {
        let ledger = Ledger::open().await;
        for length in [0, 1, 100_000] {
            let (entry, ask) = ledger.get(length);
            send(&ledger, &entry, ask, ledger.address()).await.expect("the origin answers");
            let (entry, ask) = ledger.post(length, 10);
            send(&ledger, &entry, ask, ledger.address()).await.expect("the origin answers");
        }
        let report = ledger.report();
        report.assert_clean();
        assert_eq!(report.answered, 6);
    }

    #[tokio::test]
    async fn a_lost_answer_is_found() {
        let ledger = Ledger::open().await;
        let _never_sent = ledger.get(5);
        let proxy = FaultProxy::start(ledger.address()).await;
        proxy.set(Some(Plan::answer(60, Fault::Reset)));
        let (entry, ask) = ledger.post(3, 1_000);
        let _ = send(&ledger, &entry, ask, proxy.address()).await;
        let report = ledger.report();
        assert_eq!(report.lost, [0, 1]);
        report.assert_honest();
    }

    #[tokio::test]
    async fn a_repeated_effect_and_a_doubled_answer_are_found() {
        let ledger = Ledger::open().await;
        let (entry, ask) = ledger.post(3, 10);
        send(&ledger, &entry, ask, ledger.address()).await.expect("the origin answers");
        let again = Ask::post("/ledger/0?length=10", body_of(u64::MAX, 3));
        send(&ledger, &entry, again, ledger.address()).await.expect("the origin answers");
        let report = ledger.report();
        assert_eq!((report.repeated, report.doubled), (vec![0], vec![0]));
        assert!(report.garbled.is_empty());
    }

    #[tokio::test]
    async fn crossed_garbled_and_shortened_bodies_are_found() {
        let ledger = Ledger::open().await;
        let entries: Vec<_> = (0..3).map(|_| ledger.get(10)).collect();
        // The answer of another one.
        send(&ledger, &entries[0].0, Ask::get("/ledger/1?length=10"), ledger.address()).await.expect("an answer");
        // A body nobody sent.
        send(&ledger, &entries[1].0, Ask::post("/ledger/1?length=10", "x"), ledger.address()).await.expect("an answer");
        // Less than was asked for, and it looks whole.
        send(&ledger, &entries[2].0, Ask::get("/ledger/2?length=9"), ledger.address()).await.expect("an answer");
        let report = ledger.report();
        assert_eq!((report.crossed, report.garbled, report.wrong), (vec![0], vec![1], vec![2]));
    }

    #[tokio::test]
    async fn an_invented_answer_and_an_honest_refusal_are_told_apart() {
        let ledger = Ledger::open().await;
        let (invented, refused) = (ledger.get(2), ledger.get(2));
        let made_up = |status: u16, id: Option<u64>, body: Bytes| {
            let (head, _) = answer(status, id, Bytes::new()).into_parts();
            let (version, ending) = (head.version, Ending::Complete);
            Ok(Answer { status: head.status, version, headers: head.headers, body, trailers: None, ending })
        };
        ledger.close(&invented.0, &made_up(200, Some(0), body_of(0, 2)));
        ledger.close(&refused.0, &made_up(503, None, Bytes::new()));
        let report = ledger.report();
        assert_eq!((report.invented, report.refused), (vec![0], vec![1]));
    }
}

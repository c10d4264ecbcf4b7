//! Random cuts between the edge and its endpoints: what was cut never looks whole, what looks whole is right, and no
//! effect happens twice.
//!
//! Each request has a plan of its own, drawn from the seed of the run and the request's number: how its answer is
//! framed, how long it is, after how many bytes it stops, and how. The origins know the number from the path and draw
//! the same plan, so that a failed request is had again by its number. Only the first attempt breaks; who may try again
//! gets the whole answer.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tidegate_tests::{
    client::{Answer, Ask, Client, Connection},
    drill::{amount, say, seed},
    edge::Edge,
    fault::{Fault, cut},
    ledger::body_of,
    pattern::hash,
    random::Random,
    recorder::{Recorder, Seen, Step},
    site::Site,
    wait::wait_until,
};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_cuts_tell_no_lie() {
    run(1, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_hundred_thousand_cuts_tell_no_lie() {
    run(seed(), amount("TIDEGATE_DRILL_CUTS", 100_000) as u64).await;
}

async fn run(seed: u64, count: u64) {
    let books = Arc::new(Books { seed, ..Books::default() });
    let mut origins = Vec::new();
    for number in 0..2 {
        let books = Arc::clone(&books);
        origins.push(Recorder::start(move |seen| books.carry_out(number, seen)).await);
    }
    let app = format!(
        "servers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]\ntimeouts: {{ head: 1s, read: 1s }}",
        origins[0].address(),
        origins[1].address()
    );
    let edge = Edge::start(Site::proxy(&app).and("logging: { access: off }")).await;
    let (started, next) = (Instant::now(), Arc::<AtomicU64>::default());
    let mut clients = JoinSet::new();
    for client in edge.clients().into_iter().cycle().take(CLIENTS) {
        clients.spawn(ask_in_turn(client, Arc::clone(&books), Arc::clone(&next), count));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    let tally = books.tally();
    say(format_args!("{count} requests in {:.1?}, seed {seed}: {tally}", started.elapsed()));
    tally.assert_honest(seed);
    wait_until("the end of all leases", Duration::from_secs(10), async || {
        let status = edge.status().await;
        let endpoints = status["upstreams"][0]["endpoints"].as_array()?.clone();
        endpoints.iter().all(|endpoint| endpoint["in_flight"] == 0).then_some(())
    })
    .await;
}

/// Asks one request after the other on one connection, as long as that lasts.
async fn ask_in_turn(client: Client, books: Arc<Books>, next: Arc<AtomicU64>, count: u64) {
    let mut connection = None;
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        if id >= count {
            return;
        }
        let plan = Plan::draw(books.seed, id);
        let answer = send(client, &mut connection, plan.ask()).await;
        // HTTP/1.1 tells a cut by ending the connection, which its client may not have noticed yet.
        if !answer.as_ref().is_ok_and(Answer::is_complete) && !client.kind().is_h2() {
            connection = None;
        }
        books.judge(&plan, client, &answer);
    }
}

async fn send(client: Client, connection: &mut Option<Connection>, ask: Ask) -> Result<Answer> {
    let usable = connection.take().filter(|connection| !connection.is_closed());
    let mut usable = match usable {
        Some(open) => open,
        None => client.connect().await?,
    };
    let answer = usable.send(ask).await;
    *connection = Some(usable);
    answer
}

/// What becomes of one request.
struct Plan {
    id: u64,
    method: &'static str,
    /// Bytes of the request's body.
    sent: usize,
    framing: Framing,
    /// Bytes of the answer's body.
    length: usize,
    /// Bytes of the answer that arrive, head and framing included; all of them where there is no fault.
    after: usize,
    fault: Option<Fault>,
    answer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

impl Plan {
    fn draw(seed: u64, id: u64) -> Self {
        let random = &mut Random::of(seed, id);
        let method = *random.one_of(&["GET", "GET", "POST", "POST", "PUT", "DELETE"]);
        // An effect needs no body, and one without is the easier to repeat.
        let has_body = ["POST", "PUT"].contains(&method) && random.chance(70);
        let sent = if has_body { random.within(1..3_000) } else { 0 };
        let framing = *random.one_of(&[Framing::Length, Framing::Length, Framing::Chunked, Framing::UntilClose]);
        let length = match random.within(0..20) {
            0 => 0,
            1..=7 => random.within(1..200),
            8..=17 => random.within(200..9_000),
            _ => random.within(9_000..90_000),
        };
        let answer = whole_answer(random, id, framing, length);
        let head = head_length(&answer);
        let after = match random.within(0..20) {
            0..=2 => 0,
            3..=5 => random.within(1..head),
            6 => head,
            7..=8 => answer.len() - random.within(1..8),
            9 => answer.len(),
            _ => random.within(head..answer.len() + 1),
        };
        let fault = match random.within(0..20) {
            0..=8 => Some(Fault::Fin),
            9..=14 => Some(Fault::Reset),
            15 => Some(Fault::Stall),
            16 => Some(Fault::HalfClose),
            _ => None,
        };
        // Without a length or chunks an end in order is the end; in the body only other faults can be told from it.
        let (fault, after) = match (framing, fault) {
            (Framing::UntilClose, None) => (Some(Fault::Fin), answer.len()),
            (_, None) => (None, answer.len()),
            // Silence behind a whole answer would meet the next request on that connection.
            (Framing::Length | Framing::Chunked, Some(Fault::Stall)) if after == answer.len() => (None, after),
            (Framing::UntilClose, Some(Fault::Fin | Fault::HalfClose)) if after >= head => (Some(Fault::Reset), after),
            (_, fault) => (fault, after),
        };
        Self { id, method, sent, framing, length, after, fault, answer }
    }

    fn ask(&self) -> Ask {
        Ask::new(self.method, &format!("/cut/{}", self.id))
            .body(http_body_util::Full::new(body_of(!self.id, self.sent)))
    }

    /// Whether the first attempt's answer has all that was promised.
    fn is_whole(&self) -> bool {
        self.after == self.answer.len() && (self.framing != Framing::UntilClose || self.fault == Some(Fault::Fin))
    }

    fn has_effect(&self) -> bool {
        self.method == "POST"
    }

    /// Whether the edge must try again: nothing of an answer came, and the request may be repeated with all it has.
    fn is_repeated(&self) -> bool {
        self.after == 0 && ["GET", "DELETE"].contains(&self.method)
    }

    /// What an origin does at the first attempt.
    fn steps(&self) -> Vec<Step> {
        match &self.fault {
            Some(fault) => cut(&self.answer, self.after, fault),
            None => vec![Step::Send(self.answer.clone())],
        }
    }

    /// What an origin does at a later attempt.
    fn whole_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Send(self.answer.clone())];
        if self.framing == Framing::UntilClose {
            steps.push(Step::Close);
        }
        steps
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, method, sent, framing, length, after, fault, answer } = self;
        let (head, all) = (head_length(answer), answer.len());
        write!(f, "request {id}: {method} with {sent} bytes, {framing:?} answer with {length} bytes, ")?;
        write!(f, "{fault:?} after {after} of {all} (head {head})")
    }
}

fn whole_answer(random: &mut Random, id: u64, framing: Framing, length: usize) -> Vec<u8> {
    let body = body_of(id, length);
    let head = format!("HTTP/1.1 200 OK\r\nx-cut: {id}\r\n");
    match framing {
        Framing::Length => [format!("{head}content-length: {length}\r\n\r\n").as_bytes(), &body].concat(),
        Framing::UntilClose => [format!("{head}connection: close\r\n\r\n").as_bytes(), &body].concat(),
        Framing::Chunked => {
            let mut answer = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
            for chunk in body.chunks(random.within(1..4_000)) {
                answer.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                answer.extend([chunk, b"\r\n"].concat());
            }
            answer.extend(b"0\r\n\r\n");
            answer
        }
    }
}

fn head_length(answer: &[u8]) -> usize {
    answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4
}

/// What the origins did, and what the clients got.
#[derive(Default)]
struct Books {
    seed: u64,
    /// By request, the origin of each attempt that arrived whole.
    attempts: Mutex<BTreeMap<u64, Vec<usize>>>,
    tally: Mutex<Tally>,
}

/// What came of a run. The lists hold lies, in words; all of them are empty when there was none.
#[derive(Debug, Default, Clone)]
struct Tally {
    /// Right and complete at the first attempt.
    whole: usize,
    /// Right and complete after another attempt.
    again: usize,
    /// Broken off, and the client can tell.
    cut: usize,
    /// Refused with 502 or 504.
    refused: usize,
    /// Refused although an attempt would have brought the whole answer: connections that the cuts before it had closed
    /// used the attempts up.
    stale: usize,
    /// Incomplete bodies shown as complete.
    shown_whole: Vec<String>,
    /// Complete, and another body or another request's answer.
    wrong: Vec<String>,
    /// Effects that happened more than once.
    repeated: Vec<String>,
    /// Requests that arrived with another body.
    garbled: Vec<String>,
    /// Requests that another attempt could have answered, and did not.
    given_up: Vec<String>,
    /// No answer where the client can be told.
    silent: Vec<String>,
}

impl Books {
    /// Notes a request that arrived at an origin, and says what to do.
    fn carry_out(&self, origin: usize, seen: &Seen) -> Vec<Step> {
        let id = seen.target().strip_prefix("/cut/").and_then(|id| id.parse().ok()).expect("the clients send numbers");
        let plan = Plan::draw(self.seed, id);
        if hash(&seen.body) != hash(&body_of(!id, plan.sent)) {
            lock(&self.tally).garbled.push(plan.to_string());
        }
        let attempts = {
            let mut attempts = lock(&self.attempts);
            let attempts = attempts.entry(id).or_default();
            attempts.push(origin);
            attempts.len()
        };
        if attempts == 1 { plan.steps() } else { plan.whole_steps() }
    }

    /// Notes what a client got.
    fn judge(&self, plan: &Plan, client: Client, answer: &Result<Answer>) {
        let attempts = lock(&self.attempts).get(&plan.id).cloned().unwrap_or_default();
        let told = || format!("{plan} over {}: {}, attempts at {attempts:?}", client.kind(), summary(answer));
        let mut tally = lock(&self.tally);
        if plan.has_effect() && attempts.len() > 1 {
            tally.repeated.push(told());
        }
        let body = body_of(plan.id, plan.length);
        let own = |answer: &Answer| answer.header("x-cut") == Some(plan.id.to_string().as_str());
        match answer {
            // The head may go down with the body that broke off behind it; a reset takes both.
            Err(_) if !plan.is_whole() && plan.after >= head_length(&plan.answer) => tally.cut += 1,
            Err(_) => tally.silent.push(told()),
            Ok(answer) if answer.status != 200 => {
                let honest = (answer.status == 502 || answer.status == 504) && answer.is_complete();
                let could_be_whole = plan.is_whole() || plan.is_repeated();
                match honest {
                    false => tally.wrong.push(told()),
                    true if could_be_whole && answer.status == 502 => tally.stale += 1,
                    true if could_be_whole => tally.given_up.push(told()),
                    true => tally.refused += 1,
                }
            }
            Ok(answer) if !own(answer) || !body.starts_with(&answer.body) => tally.wrong.push(told()),
            Ok(answer) if !answer.is_complete() => tally.cut += 1,
            Ok(answer) if hash(&answer.body) != hash(&body) => tally.shown_whole.push(told()),
            Ok(_) if attempts.len() > 1 => tally.again += 1,
            // All bytes of the body, and no end: a last chunk that never came, or a reset.
            Ok(_) if !plan.is_whole() => tally.shown_whole.push(told()),
            Ok(_) => tally.whole += 1,
        }
        // Silence is no stale connection: the second attempt is at an endpoint that was not tried.
        let silent = plan.is_repeated() && plan.fault == Some(Fault::Stall);
        if silent && attempts.len() > 1 && attempts[0] == attempts[1] {
            tally.given_up.push(told());
        }
    }

    fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }
}

impl Tally {
    fn assert_honest(&self, seed: u64) {
        for (name, lies) in self.lies() {
            assert!(
                lies.is_empty(),
                "seed {seed}: {} {name}, among them {:#?}",
                lies.len(),
                &lies[..lies.len().min(5)]
            );
        }
        for (name, seen) in [("whole", self.whole), ("again", self.again), ("cut", self.cut), ("refused", self.refused)]
        {
            assert!(seen > 0, "seed {seed}: nothing was {name}: {self}");
        }
        assert!(self.stale * 20 < self.again, "seed {seed}: hardly an accident any more: {self}");
    }

    fn lies(&self) -> [(&'static str, &[String]); 6] {
        let Self { shown_whole, wrong, repeated, garbled, given_up, silent, .. } = self;
        [
            ("shown as complete", shown_whole),
            ("wrong", wrong),
            ("executed twice", repeated),
            ("garbled", garbled),
            ("given up", given_up),
            ("without an answer", silent),
        ]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, again, cut, refused, stale, .. } = self;
        write!(f, "{whole} whole, {again} whole at another attempt, {cut} visibly cut, {refused} refused, ")?;
        write!(f, "{stale} refused on a stale connection")?;
        self.lies().iter().try_for_each(|(name, lies)| write!(f, ", {} {name}", lies.len()))
    }
}

fn summary(answer: &Result<Answer>) -> String {
    match answer {
        Err(error) => format!("no answer ({error:#})"),
        Ok(answer) => {
            let reason = answer.header("x-tidegate-reason").unwrap_or("no reason");
            format!("{} ({reason}) with {} bytes, {:?}", answer.status, answer.body.len(), answer.ending)
        }
    }
}

// Guards records only; held while they are read or added to.
fn lock<T>(records: &Mutex<T>) -> MutexGuard<'_, T> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At once, a quarter of each kind. Stalled ones wait for a deadline, the others use the time.
const CLIENTS: usize = 192;

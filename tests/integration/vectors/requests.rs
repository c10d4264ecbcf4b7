//! Request vectors: refused with an error and the end of the connection, or well-formed at the origin.

use std::{sync::Arc, time::Duration};

use tidegate_http1::{Asked, ParsePolicy};
use tidegate_tests::recorder::{Recorder, Seen, Step};
use tokio::time::timeout;

use super::{
    bodies_behind,
    client::{Answer, Client},
    lanes::{Canary, Lane, Outcome, POLICIES, Running, Tally, Way, spread, word},
    meaning::{Conversation, Ending, Request, conversation, text},
    origins, vectors,
};

/// One run of one vector.
struct Run {
    name: String,
    conversation: Conversation,
    way: Way,
    /// After another request on the same connection.
    reused: bool,
    /// What the codec says of the first head, where it refuses it.
    refusal: Option<u16>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_refused_or_arrives_as_what_it_is() {
    let mut recorders = Vec::new();
    for _ in 0..LANES {
        let recorder = Arc::new(Recorder::start(echo).await);
        recorders.push((recorder.address().to_owned(), Some(recorder), ECHO));
    }
    let lanes = Lane::open(recorders).await;
    spread(lanes, runs(|_| true), one_run).await.report("requests before the recorder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_origins_see_no_other_request() {
    before_real_origins(|run| !run.way.tls && !run.reused && run.refusal.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn real_origins_see_no_other_request_in_any_way() {
    before_real_origins(|_| true).await;
}

async fn before_real_origins(which: fn(&Run) -> bool) {
    let origins = origins::all().await;
    let mut running = tokio::task::JoinSet::new();
    for origin in &origins {
        // Two lanes each: their pools are apart, their origin is one.
        let lanes = vec![(origin.address.clone(), None, origin.canary); 2];
        let name = origin.name;
        running.spawn(async move { (name, spread(Lane::open(lanes).await, runs(which), one_run).await) });
    }
    let (mut all, mut names) = (Tally::default(), Vec::new());
    for (name, mut tally) in running.join_all().await {
        for problem in &mut tally.problems {
            problem.insert_str(0, &format!("{name}: "));
        }
        names.push(name);
        all.add(tally);
    }
    names.sort_unstable();
    all.report(&format!("requests before {}", names.join(", ")));
}

/// Every vector with both policies, plain and on TLS, on cold and on reused connections.
fn runs(which: fn(&Run) -> bool) -> Vec<Run> {
    let mut all = vectors("requests");
    all.extend(bodies_behind("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut runs = Vec::new();
    for vector in &all {
        for (policy, tls, reused) in ways() {
            let conversation = conversation(&vector.input, policy);
            let verdict = if policy == ParsePolicy::Strict { &vector.strict } else { &vector.lenient };
            let refused = conversation.requests.is_empty() && matches!(conversation.end, Ending::Refused(_));
            let refusal = verdict.get(..3).and_then(|status| status.parse().ok()).filter(|_| refused);
            let connection = if reused { "reused" } else { "cold" };
            let kind = if tls { "tls" } else { "plain" };
            let name = format!("{} ({}, {kind}, {connection})", vector.name, word(policy));
            runs.push(Run { name, conversation, way: Way { policy, tls }, reused, refusal });
        }
    }
    runs.retain(which);
    runs
}

fn ways() -> impl Iterator<Item = (ParsePolicy, bool, bool)> {
    POLICIES.into_iter().flat_map(|policy| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(tls, reused)| (policy, tls, reused))
    })
}

fn one_run(mut lane: Lane, run: Arc<Run>) -> Running {
    Box::pin(async move {
        let outcome = async {
            let outcome = timeout(RUN_LIMIT, converse(&mut lane, &run)).await;
            let outcome = outcome.map_err(|_| format!("not over within {RUN_LIMIT:?}"))??;
            lane.send_canary(run.way.policy).await?;
            let seen = lane.arrived(1).await?;
            if lane.recorder.is_some() && seen.len() != 1 {
                return Err(format!("DESYNC: with the canary came {seen:?}"));
            }
            Ok(outcome)
        }
        .await;
        (lane, run.name.clone(), outcome)
    })
}

/// Sends a vector, reads what comes, and holds both it and what arrived against what the vector means.
async fn converse(lane: &mut Lane, run: &Run) -> Result<Outcome, String> {
    let Conversation { bytes, requests, end } = &run.conversation;
    let mut client = lane.connect(run.way).await;
    if run.reused {
        client.send(b"GET /first HTTP/1.1\r\nHost: first\r\n\r\n").await;
        let first = client.answer(Asked::Other).await?;
        if !first.is_some_and(|answer| answer.complete && !answer.closes) {
            return Err("the request in front was not served".to_owned());
        }
        lane.arrived(1).await?;
    }
    if matches!(end, Ending::Broken | Ending::Cut) {
        lane.expect_part();
    }
    client.send(bytes).await;
    let answers = answers(&mut client, requests, *end).await?;
    let last = answers.last();
    if let (Some(refusal), Some(answer)) = (run.refusal, last)
        && answer.status != refusal
    {
        return Err(format!("refused with {}, the codec says {refusal}", answer.status));
    }
    let is_over = answers.len() < requests.len() && last.is_some_and(|answer| answer.closes);
    let is_tunnel = last.is_some_and(|answer| answer.status == 101);
    if answers.len() < requests.len() && !is_over && !is_tunnel {
        return Err(format!("{} answers to {} requests: {answers:?}", answers.len(), requests.len()));
    }
    let refused = matches!(end, Ending::Refused(_));
    if answers.len() > requests.len() && refused && last.is_some_and(|answer| answer.status < 400) {
        return Err(format!("DESYNC: {} answers to {} requests: {answers:?}", answers.len(), requests.len()));
    }
    drop(client);
    let forwarded = if lane.recorder.is_some() {
        arrived_as_meant(lane, run, &answers).await?
    } else {
        answers.iter().filter(|answer| answer.field("x-tidegate-reason").is_none()).count()
    };
    Ok(if forwarded == 0 { Outcome::Refused } else { Outcome::Forwarded })
}

/// The answers to these requests and to what follows them, and that nothing else comes until the connection ends.
async fn answers(client: &mut Client, requests: &[Request], end: Ending) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    for request in requests {
        let Some(answer) = client.answer(request.asked).await? else { break };
        let (is_last, is_tunnel) = (answer.closes, answer.status == 101);
        answers.push(answer);
        if is_tunnel {
            return Ok(answers);
        }
        if is_last {
            break;
        }
    }
    if answers.len() == requests.len() && !answers.last().is_some_and(|answer| answer.closes) {
        // The program ends a connection whose head or body it refuses; otherwise the end is ours.
        if matches!(end, Ending::Clean | Ending::Cut) {
            client.finish().await;
        }
        if end != Ending::Clean {
            let refusal = client.answer(Asked::Other).await?;
            // An origin may have answered what was still to break.
            let is_ours = |answer: &&Answer| answer.field("x-tidegate-reason").is_some();
            if refusal.as_ref().filter(is_ours).is_some_and(|answer| !answer.closes) {
                return Err(format!("a refusal that does not close: {refusal:?}"));
            }
            if refusal.is_none() && end != Ending::Cut && end != Ending::Broken {
                return Err("refused without an answer".to_owned());
            }
            answers.extend(refusal);
        }
    }
    match client.rest().await? {
        [] => Ok(answers),
        rest => Err(format!("DESYNC: behind the answers came {}", text(rest))),
    }
}

/// Whether the origin got exactly those requests that it answered, as they were meant; gives their number.
async fn arrived_as_meant(lane: &mut Lane, run: &Run, answers: &[Answer]) -> Result<usize, String> {
    let requests = &run.conversation.requests;
    let answered: Vec<(&Request, &[u8])> =
        requests.iter().zip(answers).filter_map(|(request, answer)| Some((request, answer.field("x-echo")?))).collect();
    let seen = lane.arrived(answered.len()).await?;
    if seen.len() != answered.len() {
        return Err(format!("DESYNC: the origin got {seen:?}, and the client answers {answers:?}"));
    }
    for (seen, (meant, echo)) in seen.iter().zip(&answered) {
        let target = if run.way.tls { &seen.target } else { &meant.target };
        let same = (&seen.method, &seen.target, &seen.body) == (&meant.method, target, &meant.body)
            && (meant.host.is_none() || seen.host == meant.host);
        if !same {
            return Err(format!("DESYNC: meant {meant:?}, the origin got {seen:?}"));
        }
        if *echo != format!("{} {}", seen.method, seen.target).as_bytes() {
            return Err(format!("DESYNC: {seen:?} has the answer to {}", echo.escape_ascii()));
        }
    }
    Ok(seen.len())
}

/// Says which request an answer belongs to.
fn echo(seen: &Seen) -> Vec<Step> {
    let method = seen.line().split(' ').next().unwrap_or_default();
    let body = format!("{}\n", seen.target());
    let head =
        format!("HTTP/1.1 200 OK\r\nx-echo: {method} {}\r\ncontent-length: {}\r\n\r\n", seen.target(), body.len());
    vec![Step::Send(if method == "HEAD" { head } else { head + &body }.into_bytes())]
}

const ECHO: Canary = Canary { target: "/canary/#", body: "/canary/#\n" };
const LANES: usize = 6;
const RUN_LIMIT: Duration = Duration::from_secs(20);

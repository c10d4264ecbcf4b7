//! Response vectors: the client sees the answer as it is meant, or an error, or a visible break; never anything else,
//! and never a byte of it in somebody else's answer.

use std::{sync::Arc, time::Duration};

use tidegate_http1::{Asked, ParsePolicy};
use tidegate_tests::{
    recorder::{Recorder, Step},
    wait::wait_for,
};
use tokio::time::timeout;

use super::{
    bodies_behind,
    client::Answer,
    lanes::{Canary, Lane, Outcome, POLICIES, Running, Way, spread, word},
    meaning::{Reply, Seen, reply, text},
    vectors,
};

/// One run of one vector.
struct Run {
    name: String,
    /// Its place in the list that the origins answer from.
    index: usize,
    asked: Asked,
    policy: ParsePolicy,
    seen: Seen,
    /// Nothing may follow the answer on its connection.
    is_last: bool,
}

/// What an origin does for each run.
type Scripts = Vec<Vec<Step>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_arrives_as_it_is_meant_or_not_at_all() {
    // Whole, and in two pieces.
    answers(|length| vec![length, length / 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn an_answer_cut_anywhere_arrives_as_it_is_meant_or_not_at_all() {
    // Long ones are long by repetition.
    answers(|length| (1..=length).step_by(1 + length / 200).collect()).await;
}

async fn answers(cuts: fn(usize) -> Vec<usize>) {
    let (runs, scripts) = runs(cuts);
    let (scripts, mut origins) = (Arc::new(scripts), Vec::new());
    for _ in 0..LANES {
        let scripts = Arc::clone(&scripts);
        let script = move |seen: &tidegate_tests::recorder::Seen| match seen.target().strip_prefix("/vector/") {
            Some(index) => scripts[index.parse::<usize>().expect("the test asks by number")].clone(),
            None => {
                let body = format!("{}\n", seen.target());
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                vec![Step::Send((head + &body).into_bytes())]
            }
        };
        let recorder = Arc::new(Recorder::start(script).await);
        origins.push((recorder.address().to_owned(), Some(recorder), CANARY));
    }
    spread(Lane::open(origins).await, runs, one_run).await.report("answers");
}

fn runs(cuts: fn(usize) -> Vec<usize>) -> (Vec<Run>, Scripts) {
    let mut all = vectors("responses");
    all.extend(bodies_behind("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let (mut runs, mut scripts) = (Vec::new(), Vec::new());
    for (vector, policy) in all.iter().flat_map(|vector| POLICIES.map(|policy| (vector, policy))) {
        let asked = match vector.asked.as_str() {
            "head" => Asked::Head,
            "websocket" => Asked::WebSocket,
            _ => Asked::Other,
        };
        let Reply { bytes, seen, closes, is_last } = reply(&vector.input, asked, policy);
        let verdict = if policy == ParsePolicy::Strict { &vector.strict } else { &vector.lenient };
        let limited = verdict.contains("TooManyFields");
        assert!(!verdict.starts_with("502") || limited || seen == Seen::Refused, "{}: {seen:?}", vector.name);
        for cut in cuts(bytes.len()) {
            let (first, second) = bytes.split_at(cut);
            let mut steps = vec![Step::Send(first.to_vec())];
            if !second.is_empty() {
                // So that they arrive apart.
                steps.extend([Step::Pause(Duration::from_millis(1)), Step::Send(second.to_vec())]);
            }
            steps.extend(closes.then_some(Step::Close));
            let name = format!("{} ({}, {cut} of {})", vector.name, word(policy), bytes.len());
            runs.push(Run { name, index: scripts.len(), asked, policy, seen: seen.clone(), is_last });
            scripts.push(steps);
        }
        if !is_last {
            // Behind an answer that is over, while nothing is asked: whoever asks next must not get it.
            let steps = vec![Step::Send(bytes), Step::Pause(LATE), Step::Send(GHOST.into())];
            let name = format!("{} ({}, and another one late)", vector.name, word(policy));
            runs.push(Run { name, index: scripts.len(), asked, policy, seen, is_last: true });
            scripts.push(steps);
        }
    }
    (runs, scripts)
}

fn one_run(mut lane: Lane, run: Arc<Run>) -> Running {
    Box::pin(async move {
        let outcome = match timeout(RUN_LIMIT, ask(&lane, &run)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("not over within {RUN_LIMIT:?}")),
        };
        let outcome = match outcome {
            Ok(outcome) => {
                // What comes behind an answer has to be there: bytes that come later still cannot be told from the next one.
                let recorder = lane.recorder.clone().expect("a lane of this test has a recorder");
                wait_for("the end of the script", RUN_LIMIT, || (!recorder.is_at_work()).then_some(())).await;
                let canary = lane.send_canary(run.policy).await;
                let behind = recorder.targets_behind(&format!("/vector/{}", run.index));
                match canary {
                    Ok(()) if run.is_last && !behind.is_empty() => {
                        Err(format!("DESYNC: behind it, on the same connection, came {behind:?}"))
                    }
                    canary => canary.map(|()| outcome),
                }
            }
            Err(problem) => Err(problem),
        };
        (lane, run.name.clone(), outcome)
    })
}

async fn ask(lane: &Lane, run: &Run) -> Result<Outcome, String> {
    let mut client = lane.connect(Way { policy: run.policy, tls: false }).await;
    let method = if run.asked == Asked::Head { "HEAD" } else { "GET" };
    let handshake = match run.asked {
        Asked::WebSocket => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        _ => "",
    };
    client.send(format!("{method} /vector/{} HTTP/1.1\r\nHost: a\r\n{handshake}\r\n", run.index).as_bytes()).await;
    let Some(mut answer) = client.answer(run.asked).await? else {
        // A head that did not leave before its body broke.
        let is_break = matches!(run.seen, Seen::Broken { .. });
        return if is_break { Ok(Outcome::Refused) } else { Err("no answer".to_owned()) };
    };
    if answer.status == 101 {
        answer.body = client.rest().await?.to_vec();
    } else if answer.complete && !answer.closes {
        client.finish().await;
        if let rest @ [_, ..] = client.rest().await? {
            return Err(format!("DESYNC: behind the answer came {}", text(rest)));
        }
    }
    judge(&run.seen, &answer).ok_or_else(|| format!("meant {:?}, seen {answer:?}", run.seen))
}

/// Whether a client that sees `answer` sees what was meant.
fn judge(meant: &Seen, answer: &Answer) -> Option<Outcome> {
    let is_refused = answer.status == 502 && answer.complete && answer.field("x-tidegate-reason").is_some();
    match meant {
        Seen::Refused => is_refused.then_some(Outcome::Refused),
        Seen::Broken { status } => {
            (is_refused || (answer.status == *status && !answer.complete)).then_some(Outcome::Refused)
        }
        Seen::Whole { status, fields, body } => {
            let has = |field| answer.fields.contains(field);
            let same = answer.complete && answer.status == *status && answer.body == *body && fields.iter().all(has);
            same.then_some(Outcome::Forwarded)
        }
    }
}

const CANARY: Canary = Canary { target: "/canary/#", body: "/canary/#\n" };
/// Longer than an answer takes to its client.
const LATE: Duration = Duration::from_millis(20);
/// What nobody asked for.
const GHOST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nghost";
const LANES: usize = 6;
const RUN_LIMIT: Duration = Duration::from_secs(20);

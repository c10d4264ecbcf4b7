//! HTTP/2 connections that mean harm. Each attack is bounded or its connection ended; meanwhile a client on another
//! connection is served, and afterwards the program is alive with its memory back.
//!
//! Each attack has a length for every run, and a longer one for `make drill`.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_tests::{
    client::{Ask, Client, Kind},
    drill::{amount, say},
    edge::Edge,
    frames::{
        END_HEADERS, END_STREAM, Frames, Outcome, block, frame_bytes, get, kind, post, request, reset, settings_frame,
        window,
    },
    h2_origin::H2Origin,
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::{task::JoinHandle, time::Instant};

/// An edge under attack, and a client that wants to be served all the while.
struct Siege {
    edge: Edge,
    recorder: Recorder,
    memory: u64,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    bystander: JoinHandle<Duration>,
}

impl Siege {
    async fn start(listener: &str) -> Self {
        let recorder = Recorder::start(origin).await;
        let site = Site::proxy_to(recorder.address()).replace("h2c: true", &format!("h2c: true{listener}"));
        Self::before(recorder, site).await
    }

    async fn before(recorder: Recorder, site: Site) -> Self {
        let edge = Edge::start(site).await;
        edge.client(Kind::H2c).get("/").await.assert(200, b"ok\n");
        recorder.forget();
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let bystander = tokio::spawn(bystand(edge.client(Kind::H2c), Arc::clone(&stop), Arc::clone(&served)));
        wait_for("the bystander", PATIENCE, || (served.load(Ordering::Relaxed) > 0).then_some(())).await;
        Self { memory: resident(&edge), edge, recorder, stop, served, bystander }
    }

    async fn attacker(&self, settings: &[(u16, u32)]) -> Frames {
        Frames::connect(self.edge.address("h2c"), settings).await
    }

    /// Requests that reached the origin, but those of the bystander.
    fn starts(&self) -> usize {
        let heads = self.recorder.connections().into_iter().map(|connection| connection.bytes);
        heads.map(|bytes| String::from_utf8_lossy(&bytes).matches(" /attack HTTP/1.1").count()).sum()
    }

    /// What the program holds more than before, in KiB.
    fn growth(&self) -> u64 {
        resident(&self.edge).saturating_sub(self.memory)
    }

    /// Ends the siege: the bystander was served in time, and memory is back.
    async fn end(self, name: &str, most: u64) {
        let back = || (self.growth() < most).then_some(());
        wait_for(&format!("{name}: memory below {most} KiB more"), Duration::from_secs(20), back).await;
        let before = self.served.load(Ordering::Relaxed);
        let goes_on = || (self.served.load(Ordering::Relaxed) > before).then_some(());
        wait_for(&format!("{name}: the bystander"), PATIENCE, goes_on).await;
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.bystander.await.expect("the bystander saw only right answers");
        let served = self.served.load(Ordering::Relaxed);
        assert!(longest < PATIENCE, "{name}: the bystander waited {longest:?}");
        say(format!(
            "{name}: {} KiB more, bystander {served} answers, longest {longest:?}",
            resident(&self.edge).saturating_sub(self.memory)
        ));
        self.edge.client(Kind::H2c).get("/").await.assert(200, b"ok\n");
        assert_eq!(self.edge.status().await["listeners"].as_array().map(Vec::len), Some(3));
    }
}

async fn bystand(client: Client, stop: Arc<AtomicBool>, served: Arc<AtomicUsize>) -> Duration {
    let mut connection = client.connect().await.expect("the edge listens");
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        connection.send(Ask::get("/honest")).await.expect("an answer").assert(200, b"ok\n");
        longest = longest.max(started.elapsed());
        served.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    longest
}

fn origin(seen: &Seen) -> Vec<Step> {
    match seen.target() {
        "/attack" => vec![Step::Stall],
        "/big" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n");
            vec![Step::Send(head.into()), Step::Send(vec![b'x'; BIG])]
        }
        _ => vec![Step::Send(OK.into())],
    }
}

/// Resident memory in KiB.
fn resident(edge: &Edge) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid())).expect("the edge runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Processor time of a process, in hundredths of a second.
fn processor_time(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1;
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn attack(stream: u32) -> Vec<u8> {
    get(stream, "/attack")
}

fn odd(number: usize) -> u32 {
    2 * u32::try_from(number).expect("few streams") + 1
}

/// The end of a connection: the last frames are read until it is closed.
async fn end_of(frames: &mut Frames) -> Outcome {
    frames.outcome(0, Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_broken_off_at_once_end_the_connection() {
    rapid_resets(2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_hundred_thousand_requests_broken_off_end_the_connection() {
    rapid_resets(amount("TIDEGATE_DRILL_RESETS", 100_000)).await;
}

/// CVE-2023-44487: all at once, one by one, and a hundred at a time.
async fn rapid_resets(count: usize) {
    for (name, batch, waits) in [("all at once", 100, false), ("one by one", 1, true), ("by hundreds", 100, true)] {
        let siege = Siege::start("").await;
        let mut frames = siege.attacker(&[]).await;
        let streams: Vec<u32> = (0..count).map(odd).collect();
        for batch in streams.chunks(batch) {
            let heads: Vec<u8> = batch.iter().flat_map(|stream| attack(*stream)).collect();
            let resets: Vec<u8> = batch.iter().flat_map(|stream| reset(*stream)).collect();
            let alive = if waits {
                frames.send(heads).await && frames.settled(PATIENCE).await && frames.send(resets).await
            } else {
                frames
                    .send(
                        batch.iter().flat_map(|stream| [attack(*stream), reset(*stream)].concat()).collect::<Vec<_>>(),
                    )
                    .await
            };
            if !alive {
                break;
            }
        }
        let ended = wait_until("the end", PATIENCE, async || (!frames.send(window(0, 1)).await).then_some(()));
        ended.await;
        assert!(siege.starts() <= 200, "{name}: {} requests reached the origin", siege.starts());
        siege.end(&format!("rapid resets, {name}"), 32 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_hostile_connection_says_why() {
    let siege = Siege::start(", http2: { resets: 10 }").await;
    let mut frames = siege.attacker(&[]).await;
    for stream in (0..10).map(odd) {
        frames.send(attack(stream)).await;
        assert!(frames.settled(PATIENCE).await, "stream {stream}");
        frames.send(reset(stream)).await;
    }
    // Ten are allowed, and a connection that has used them up still serves.
    frames.send(get(21, "/")).await;
    assert_eq!(frames.outcome(21, PATIENCE).await, Outcome::Answer(200));
    for stream in (11..13).map(odd) {
        frames.send(attack(stream)).await;
        frames.settled(PATIENCE).await;
        frames.send(reset(stream)).await;
    }
    assert_eq!(end_of(&mut frames).await.to_string(), "GOAWAY ENHANCE_YOUR_CALM");
    assert_eq!(end_of(&mut frames).await, Outcome::Closed);
    siege.end("a reason", 32 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_end_the_connection_and_are_logged() {
    let siege = Siege::start("").await;
    let mut frames = siege.attacker(&[]).await;
    let malformed = request("GET", "/bad", &[("host", "other.example")]);
    let head = |stream| frame_bytes(kind::HEADERS, END_HEADERS | END_STREAM, stream, &malformed);
    frames.send((0..60).map(odd).flat_map(head).collect::<Vec<_>>()).await;
    assert_eq!(end_of(&mut frames).await.to_string(), "GOAWAY ENHANCE_YOUR_CALM");
    let output = siege.edge.output();
    wait_for("lines of the access log", PATIENCE, || {
        (output.stdout().matches("\"-\" 400").count() >= 30).then_some(())
    })
    .await;
    siege.end("malformed requests", 32 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provoked_resets_end_the_connection() {
    provoked_resets(1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn ten_thousand_provoked_resets_end_the_connection() {
    provoked_resets(10_000).await;
}

/// CVE-2025-8671: the server is made to reset what it has begun to work on.
async fn provoked_resets(count: usize) {
    let primitives: [(&str, Primitive); 6] = [
        ("WINDOW_UPDATE of 0", |stream| window(stream, 0)),
        ("a window beyond 2^31", |stream| window(stream, u32::MAX >> 1)),
        ("DATA after the end", |stream| frame_bytes(kind::DATA, 1, stream, b"x")),
        ("HEADERS after the end", |stream| {
            frame_bytes(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("x-t", "1")]))
        }),
        ("PRIORITY of four bytes", |stream| frame_bytes(kind::PRIORITY, 0, stream, &[0; 4])),
        ("a stream that depends on itself", |stream| {
            frame_bytes(kind::PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())
        }),
    ];
    for (name, provoke) in primitives {
        let siege = Siege::start("").await;
        let mut frames = siege.attacker(&[]).await;
        let mut sent = 0;
        while sent < count {
            let batch = (sent..count.min(sent + 50)).map(odd);
            let bytes: Vec<u8> = batch.flat_map(|stream| [attack(stream), provoke(stream)].concat()).collect();
            if !frames.send(bytes).await || !frames.settled(PATIENCE).await {
                break;
            }
            sent += 50;
        }
        say(format!("{name}: ended within {sent} streams, {} requests reached the origin", siege.starts()));
        assert!(siege.starts() <= 200, "{name}: {} requests reached the origin", siege.starts());
        // Frames that provoke nothing leave a hundred streams that stall, and every other one is refused.
        siege.end(name, 32 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_without_end_is_cut_off() {
    let count = 20_000;
    let more: [(&str, Vec<u8>); 3] =
        [("empty", Vec::new()), ("small", block(&[("x-a", "1")])), ("large", block(&[("x-a", "x".repeat(8_000))]))];
    for (name, more) in more {
        let siege = Siege::start("").await;
        let mut frames = siege.attacker(&[]).await;
        frames.send(frame_bytes(kind::HEADERS, END_STREAM, 1, &request("GET", "/attack", &[]))).await;
        let continuation = frame_bytes(kind::CONTINUATION, 0, 1, &more).repeat(100);
        let mut sent = 0;
        while sent < count && frames.send(&continuation).await {
            sent += 100;
        }
        let outcome = end_of(&mut frames).await;
        assert!(matches!(outcome, Outcome::GoAway(_) | Outcome::Closed), "{name}: {outcome} after {sent} frames");
        assert_eq!(siege.starts(), 0, "{name}");
        siege.end(&format!("CONTINUATION, {name}"), 8 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_small_frames_are_bounded() {
    floods(200_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn long_floods_of_small_frames_are_bounded() {
    floods(amount("TIDEGATE_DRILL_FRAMES", 5_000_000)).await;
}

/// Frames that cost their sender nothing, from a client that does not read what they are answered with.
async fn floods(count: usize) {
    let kinds: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", settings_frame(&[(1, 4_096), (4, 65_535)])),
        ("PING", frame_bytes(kind::PING, 0, 0, b"12345678")),
        ("PRIORITY", frame_bytes(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("empty DATA", frame_bytes(kind::DATA, 0, 1, b"")),
        ("WINDOW_UPDATE of 1", window(0, 1)),
        ("WINDOW_UPDATE of 1 on a stream", window(1, 1)),
    ];
    for (name, frame) in kinds {
        let siege = Siege::start("").await;
        let mut frames = siege.attacker(&[(4, 1)]).await;
        frames.send(post(1, &[])).await;
        frames.send(get(3, "/big")).await;
        let pid = siege.edge.pid().to_string();
        let (ours, theirs) = (processor_time("self"), processor_time(&pid));
        let (bytes, started) = (frame.repeat(100), Instant::now());
        let (mut sent, mut most) = (0, 0);
        // A server that stops reading until its answers are read is one way to be bounded.
        while sent < count && started.elapsed() < FLOOD && frames.send_within(&bytes, Duration::from_secs(1)).await {
            sent += 100;
            if sent % 4_000 == 0 {
                most = most.max(siege.growth());
            }
        }
        // What still lies in between is dealt with, or the connection has ended.
        frames.settled(PATIENCE).await;
        most = most.max(siege.growth());
        let (ours, theirs) = (processor_time("self") - ours, processor_time(&pid) - theirs);
        say(format!("{name}: {sent} frames, processor time {theirs} for {ours} of ours, {most} KiB more"));
        assert!(most < 64 << 10, "{name}: {most} KiB more");
        drop(frames);
        siege.end(name, 32 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_grow_are_refused() {
    let tiny: Vec<(String, &str)> = (0..10_000).map(|index| (format!("x-{index}"), "")).collect();
    let crumbs = vec![("cookie", "a"); 10_000];
    let long = "x".repeat(70_000);
    // One entry of 4,000 bytes in the table, and ten thousand references to it (index 62).
    let mut bomb = request("GET", "/attack", &[]);
    bomb.extend([0x40, 3, b'x', b'-', b'b', 127, 0xa1, 0x1e]);
    bomb.extend([b'x'; 4_000]);
    bomb.extend([0xbe; 10_000]);
    let tables = [0x20_u8].repeat(10_000);
    let shapes: [(&str, Vec<u8>); 5] = [
        ("a long value", request("GET", "/attack", &[("x-long", &long)])),
        ("many names", [request("GET", "/attack", &[]), block(&tiny)].concat()),
        ("many crumbs", [request("GET", "/attack", &[]), block(&crumbs)].concat()),
        ("a bomb", bomb),
        ("table sizes", tables),
    ];
    for (name, head) in shapes {
        let siege = Siege::start("").await;
        for _ in 0..20 {
            let mut frames = siege.attacker(&[]).await;
            let mut pieces = head.chunks(16_000).peekable();
            let mut first = true;
            while let Some(piece) = pieces.next() {
                let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
                let (kind, flags) = if first { (kind::HEADERS, END_STREAM | end) } else { (kind::CONTINUATION, end) };
                frames.send(frame_bytes(kind, flags, 1, piece)).await;
                first = false;
            }
            let outcome = frames.outcome(1, PATIENCE).await;
            let refused = matches!(outcome, Outcome::Answer(431) | Outcome::Reset(_) | Outcome::GoAway(_));
            assert!(refused, "{name}: {outcome}");
        }
        assert_eq!(siege.starts(), 0, "{name}");
        siege.end(name, 20 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_nobody_takes_are_held_back_and_let_go() {
    let siege = Siege::start(", timeouts: { write_idle: 2s }").await;
    let mut frames = siege.attacker(&[(4, 0)]).await;
    let heads: Vec<u8> = (0..100).flat_map(|stream| get(odd(stream), "/big")).collect();
    frames.send(heads).await;
    let mut most = 0;
    let asked = || {
        most = most.max(siege.growth());
        let requests = siege.recorder.requests();
        (requests.iter().filter(|seen| seen.target() == "/big").count() == 100).then_some(())
    };
    wait_for("a hundred requests at the origin", PATIENCE, asked).await;
    // Each stream is given up, and what its answer held.
    let (until, mut given_up) = (Instant::now() + Duration::from_secs(20), 0);
    while given_up < 100 {
        let frame = frames.next(until).await.expect("an end in time").expect("the connection stays");
        given_up += usize::from(frame.kind == kind::RST_STREAM);
        most = most.max(siege.growth());
    }
    say(format!("zero window: {most} KiB for a hundred answers of 1 MiB"));
    assert!(most < UNREAD, "{most} KiB for a hundred answers of 1 MiB");
    siege.end("zero window", 32 << 10).await;
}

/// Windows are the client's word; what they let us hold is ours to bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_stay_in_the_socket_are_held_back() {
    let siege = Siege::start("").await;
    let mut frames = Frames::connect_unread(siege.edge.address("h2c")).await;
    frames.send((0..100).flat_map(|stream| get(odd(stream), "/big")).collect::<Vec<_>>()).await;
    let asked = || {
        let requests = siege.recorder.requests();
        (requests.iter().filter(|seen| seen.target() == "/big").count() == 100).then_some(())
    };
    wait_for("a hundred requests at the origin", PATIENCE, asked).await;
    let (mut most, mut still) = (0, 0);
    // What can be taken is taken; then nothing moves.
    let settled = || {
        let grown = siege.growth();
        still = if grown > most { 0 } else { still + 1 };
        most = most.max(grown);
        (still >= 50).then_some(())
    };
    wait_for("the end of growth", Duration::from_secs(20), settled).await;
    say(format!("unread socket: {most} KiB for a hundred answers of 1 MiB"));
    assert!(most < UNREAD, "{most} KiB for a hundred answers of 1 MiB");
    drop(frames);
    siege.end("unread socket", 32 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_requests_end_in_order() {
    let siege = Siege::start(", timeouts: { idle: 500ms, head: 1s }").await;
    let mut used = siege.attacker(&[]).await;
    used.send(get(1, "/")).await;
    assert_eq!(used.outcome(1, PATIENCE).await, Outcome::Answer(200));
    // RFC 9113 section 6.8: first a warning with the highest number, then the last one that was served.
    assert_eq!(used.outcome(0, PATIENCE).await.to_string(), "GOAWAY NO_ERROR");
    assert_ne!(end_of(&mut used).await, Outcome::Nothing, "it stays open");
    let silent: [(&str, Vec<u8>); 4] = [
        ("nothing more", Vec::new()),
        ("half a frame", vec![0, 0, 10, 0]),
        ("half a head", frame_bytes(kind::HEADERS, END_STREAM, 1, &request("GET", "/attack", &[]))),
        ("half a payload", get(1, "/attack")[..20].to_vec()),
    ];
    for (name, bytes) in silent {
        let mut frames = siege.attacker(&[]).await;
        frames.send(bytes).await;
        let started = Instant::now();
        while !matches!(end_of(&mut frames).await, Outcome::Closed) {
            assert!(started.elapsed() < PATIENCE, "{name}: it stays open");
        }
    }
    let mut half = Frames::bare(siege.edge.address("h2c")).await;
    half.send(&b"PRI * HTTP/2.0\r\n\r\nSM"[..]).await;
    assert_eq!(end_of(&mut half).await, Outcome::Closed, "half a preface");
    siege.end("idle", 32 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stands_still_costs_its_stream_alone() {
    let h2 = H2Origin::echo().await;
    let recorder = Recorder::start(origin).await;
    let upstreams = format!(
        "app: {{ servers: [{{ address: \"{}\" }}] }}\nh2: {{ protocol: h2, timeouts: {{ write: 500ms }}, servers: [{{ address: \"{}\" }}] }}",
        recorder.address(),
        h2.address()
    );
    let site = Site::usual("- { path: /h2, proxy: h2 }\n- { path: /, proxy: app }", &upstreams)
        .replace("h2c: true", "h2c: true, timeouts: { body_idle: 500ms }");
    let siege = Siege::before(recorder, site).await;
    for (path, expected) in [("/", "408"), ("/h2", "RST CANCEL|200")] {
        let mut frames = siege.attacker(&[]).await;
        frames.send(frame_bytes(kind::HEADERS, END_HEADERS, 1, &request("POST", path, &[]))).await;
        frames.send(frame_bytes(kind::DATA, 0, 1, b"x")).await;
        let mut outcome = frames.outcome(1, PATIENCE).await;
        if path == "/h2" && outcome == Outcome::Answer(200) {
            // The echo has begun; what matters is that it does not go on for ever.
            outcome = frames.outcome(1, PATIENCE).await;
            assert!(matches!(outcome, Outcome::Reset(_)), "{path}: {outcome}");
        } else {
            assert_eq!(outcome.to_string(), expected, "{path}");
        }
        frames.send(get(3, "/")).await;
        assert_eq!(frames.outcome(3, PATIENCE).await, Outcome::Answer(200), "a sibling");
    }
    siege.end("slow body", 32 << 10).await;
}

/// What makes a server reset the stream of this number.
type Primitive = fn(u32) -> Vec<u8>;

/// What a hundred unread answers may cost, in KiB: some 4 MiB of bodies for the connection (2 in the session, 16 KiB for
/// each stream, 512 KiB that they share), and what a hundred exchanges and their connections are besides.
const UNREAD: u64 = 12 << 10;
/// One answer of the zero window test.
const BIG: usize = 1 << 20;
/// Far beyond what an attack may cost anybody, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(8);
/// The most that one flood may take.
const FLOOD: Duration = Duration::from_secs(60);

//! Whole decisions: against nginx's own arithmetic, and row by row.

use proptest::prelude::*;
use tidegate_config::model::{Rate, RateLimit, RateLimitHeaders, RateLimitUse};

use super::*;
use crate::fixtures::{Request, get, model, respond, route, site};

const SECOND: Duration = Duration::from_secs(1);

fn limit(name: &str, requests: u32, burst: u32) -> RateLimit {
    RateLimit {
        name: name.to_owned(),
        named: true,
        rate: Rate { requests, per: SECOND },
        burst,
        delay: None,
        key: vec![Variable::ClientAddress],
        status: 429,
        headers: RateLimitHeaders::Off,
        dry_run: false,
        allow: Networks::default(),
        entries: 1024,
    }
}

fn use_of(limit: &str, cost: u32) -> RateLimitUse {
    RateLimitUse { limit: limit.to_owned(), cost }
}

fn file(limits: Vec<RateLimit>) -> Model {
    let mut model = model(vec![site("s", &["h"], vec![route("/", respond("x"))])], Vec::new());
    model.rate_limits = limits.into_iter().map(|limit| (limit.name.clone(), limit)).collect();
    model
}

/// Limits under which requests come.
struct Gate {
    limits: Limits,
    uses: Box<[LimitUse]>,
    start: Instant,
}

impl Gate {
    fn new(limits: Vec<RateLimit>, uses: &[(&str, u32)]) -> Self {
        let model = file(limits);
        let uses: Vec<_> = uses.iter().map(|(name, cost)| use_of(name, *cost)).collect();
        Self {
            limits: Limits::new(&model, None, &RandomState::new()),
            uses: Limits::uses(&model, &uses),
            start: Instant::now(),
        }
    }

    fn one(limit: RateLimit) -> Self {
        let name = limit.name.clone();
        Self::new(vec![limit], &[(&name, 1)])
    }

    fn decide(&self, request: &Request, at: u64) -> Decision {
        let now = self.start + Duration::from_millis(at);
        request.view(|head| self.limits.decide(&self.uses, head, now)).unwrap()
    }

    /// `ok`, the delay in milliseconds, or `no` and after what time.
    fn word(&self, request: &Request, at: u64) -> String {
        match self.decide(request, at) {
            Decision { refusal: Some(refusal), .. } => format!("no {}", refusal.retry_after.unwrap().as_millis()),
            Decision { delay: Duration::ZERO, .. } => "ok".to_owned(),
            Decision { delay, .. } => delay.as_millis().to_string(),
        }
    }

    fn words(&self, request: &Request, times: &[u64]) -> String {
        times.iter().map(|at| self.word(request, *at)).collect::<Vec<_>>().join(", ")
    }
}

/// `ngx_http_limit_req_lookup` and its callers for one limit: milliseconds, and thousandths of a request.
#[derive(Default)]
struct Nginx {
    rate: i64,
    burst: i64,
    delay: i64,
    known: Option<(i64, i64)>,
}

impl Nginx {
    fn new(rate: u32, burst: u32, delay: Option<u32>) -> Self {
        let delay = delay.map_or(i64::MAX / 1000, |delay| i64::from(delay) * 1000);
        Self { rate: i64::from(rate) * 1000, burst: i64::from(burst) * 1000, delay, known: None }
    }

    fn word(&mut self, now: i64) -> String {
        let Some((mut last, before)) = self.known else {
            self.known = Some((now, 0));
            return "ok".to_owned();
        };
        let passed = (now - last).max(0);
        let excess = (before - self.rate * passed / 1000 + 1000).max(0);
        if excess > self.burst {
            return "no".to_owned();
        }
        if passed > 0 {
            last = now;
        }
        self.known = Some((last, excess));
        let delay = if excess <= self.delay { 0 } else { (excess - self.delay) * 1000 / self.rate };
        if delay == 0 { "ok".to_owned() } else { delay.to_string() }
    }
}

proptest! {
    /// Every decision and every delay is nginx's, for rates whose arithmetic is exact in both.
    #[test]
    fn nginx_decides_the_same(
        rate in prop::sample::select(vec![1_u32, 2, 4, 5, 8, 10, 20, 25, 50, 100, 125, 200, 500, 1000]),
        burst in 0..30_u32,
        delay in prop::option::of(0..30_u32),
        pauses in prop::collection::vec(prop_oneof![3 => 0..3_u64, 2 => 0..60_u64, 1 => 0..3000_u64], 1..80),
    ) {
        let delay = delay.map(|delay| delay.min(burst));
        let gate = Gate::one(RateLimit { delay, ..limit("a", rate, burst) });
        let mut nginx = Nginx::new(rate, burst, delay);
        let mut at = 0;
        for pause in pauses {
            at += pause;
            let word = gate.word(&get("h", "/"), at);
            let word = word.split(' ').next().unwrap();
            let expected = nginx.word(i64::try_from(at).unwrap());
            prop_assert_eq!(word, expected, "at {} ms", at);
        }
    }

    /// In no time are more requests served than the burst, one, and what the rate has let come.
    #[test]
    fn the_rate_is_never_exceeded(
        rate in 1..500_u32,
        burst in 0..20_u32,
        pauses in prop::collection::vec(0..50_u64, 1..200),
    ) {
        let gate = Gate::one(limit("a", rate, burst));
        let (mut at, mut served) = (0, 0);
        for pause in pauses {
            at += pause;
            served += u64::from(gate.word(&get("h", "/"), at) == "ok");
        }
        prop_assert!(served <= u64::from(burst) + 1 + at * u64::from(rate) / 1000, "{} in {} ms", served, at);
    }
}

#[test]
fn bursts_and_delays() {
    let rows = [
        (RateLimit { delay: Some(0), ..limit("a", 10, 0) }, "ok, no 100, no 50, ok"),
        (RateLimit { delay: Some(0), ..limit("a", 10, 2) }, "ok, 100, 150, 200"),
        (limit("a", 10, 2), "ok, ok, ok, ok"),
        (RateLimit { delay: Some(1), ..limit("a", 10, 2) }, "ok, ok, 50, 100"),
        (limit("a", 10, 1), "ok, ok, no 50, ok"),
    ];
    for (limit, expected) in rows {
        let shown = format!("{limit:?}");
        assert_eq!(Gate::one(limit).words(&get("h", "/"), &[0, 0, 50, 100]), expected, "{shown}");
    }
}

#[test]
fn all_limits_must_admit_and_none_is_charged_for_another() {
    let slow = limit("slow", 1, 0);
    let fast = limit("fast", 10, 0);
    for order in [[("slow", 1), ("fast", 1)], [("fast", 1), ("slow", 1)]] {
        let gate = Gate::new(vec![slow.clone(), fast.clone()], &order);
        assert_eq!(gate.words(&get("h", "/"), &[0, 100, 200, 999, 1000]), "ok, no 900, no 800, no 1, ok");
        // `fast` has seen two requests and was asked five times.
        let fast =
            Gate { uses: Box::new([gate.uses[order.iter().position(|(name, _)| *name == "fast").unwrap()]]), ..gate };
        assert_eq!(fast.words(&get("h", "/"), &[1099, 1100]), "no 1, ok");
    }
    let delayed = [RateLimit { delay: Some(0), ..limit("a", 10, 5) }, RateLimit { delay: Some(0), ..limit("b", 2, 5) }];
    let gate = Gate::new(delayed.into(), &[("a", 1), ("b", 1)]);
    assert_eq!(gate.words(&get("h", "/"), &[0, 0]), "ok, 500", "the longest delay counts");
    let counts: Vec<_> = gate.limits.iter().map(|limit| limit.counts().delayed()).collect();
    assert_eq!(counts, [1, 1]);
}

#[test]
fn a_request_may_cost_more() {
    let gate = Gate::new(vec![limit("a", 10, 4)], &[("a", 5)]);
    assert_eq!(gate.words(&get("h", "/"), &[0, 0, 99, 100, 100]), "ok, no 100, no 1, ok, no 500");
}

#[test]
fn clients_are_told_apart_by_the_first_value_they_have() {
    let key = vec![Variable::Header("x-user".to_owned()), Variable::Cookie("sid".to_owned())];
    let gate = Gate::one(RateLimit { key, ..limit("a", 1, 0) });
    let request = || get("h", "/");
    for (request, expected) in [
        (request().with("x-user", "ann"), "ok"),
        (request().with("x-user", "ann").with("cookie", "sid=9"), "no 1000"),
        (request().with("x-user", "bob"), "ok"),
        (request().with("cookie", "sid=ann"), "ok"),
        (request().with("x-user", "").with("cookie", "sid=ann"), "no 1000"),
        (request(), "ok"),
        (request().with("x-user", ""), "no 1000"),
        (request().with("x-user", "192.0.2.7"), "ok"),
    ] {
        assert_eq!(gate.word(&request, 0), expected, "{:?}", request.fields);
    }
    let address_first = vec![Variable::ClientAddress, Variable::Header("x-user".to_owned())];
    let gate = Gate::one(RateLimit { key: address_first, ..limit("a", 1, 0) });
    assert_eq!(gate.word(&request().with("x-user", "ann"), 0), "ok");
    assert_eq!(gate.word(&request().with("x-user", "bob"), 0), "no 1000");
}

#[test]
fn an_ipv6_client_is_its_network() {
    let secret = RandomState::new();
    let key = [Variable::ClientAddress];
    let number = |address: &str| {
        let client = crate::head::Client::new(address.parse().unwrap(), 1, crate::head::ListenerId(0), None);
        get("h", "/").view(|head| client_of(&key, &HeadView { client: &client, ..*head }, &secret)).unwrap()
    };
    assert_eq!(number("2001:db8:1:2::1"), number("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(number("2001:db8:1:2::1"), number("2001:db8:1:3::1"));
    assert_ne!(number("192.0.2.1"), number("192.0.2.2"));
    assert_eq!(number("192.0.2.1"), number("::ffff:192.0.2.1"));
}

fn client_of(key: &[Variable], head: &HeadView<'_>, secret: &RandomState) -> u64 {
    client(key, head, secret.build_hasher())
}

#[test]
fn some_are_never_limited() {
    let gate = Gate::one(RateLimit { allow: "192.0.2.0/24".parse().unwrap(), ..limit("a", 1, 0) });
    assert_eq!(gate.words(&get("h", "/"), &[0, 0, 0]), "ok, ok, ok");
    let gate = Gate::one(RateLimit { allow: "192.0.3.0/24, loopback".parse().unwrap(), ..limit("a", 1, 0) });
    assert_eq!(gate.words(&get("h", "/"), &[0, 0]), "ok, no 1000");
}

#[test]
fn a_dry_run_counts_and_admits() {
    let gate = Gate::one(RateLimit { dry_run: true, delay: Some(0), ..limit("a", 1, 1) });
    assert_eq!(gate.words(&get("h", "/"), &[0, 0, 0, 0]), "ok, ok, ok, ok");
    let limit_a = gate.limits.iter().next().unwrap();
    assert_eq!((limit_a.counts().dry_run(), limit_a.counts().delayed(), limit_a.counts().rejected()), (3, 0, 0));
    let dry = RateLimit { dry_run: true, ..limit("a", 1, 0) };
    let gate = Gate::new(vec![dry, limit("b", 1, 0)], &[("a", 1), ("b", 1)]);
    assert_eq!(gate.words(&get("h", "/"), &[0, 0, 0]), "ok, no 1000, no 1000");
    let counts: Vec<_> =
        gate.limits.iter().map(|limit| (limit.counts().dry_run(), limit.counts().rejected())).collect();
    assert_eq!(counts, [(0, 0), (0, 2)], "what is refused never came to the dry one");
}

#[test]
fn clients_are_told_what_is_left() {
    let told = |gate: &Gate, at| {
        let fields = gate.decide(&get("h", "/"), at).fields;
        fields.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
    };
    let gate = Gate::one(RateLimit { headers: RateLimitHeaders::Standard, ..limit("per-user", 10, 20) });
    assert_eq!(told(&gate, 0), r#"ratelimit-policy: "per-user";q=21;w=3; ratelimit: "per-user";r=20;t=1"#);
    let gate = Gate::one(RateLimit { headers: RateLimitHeaders::Legacy, ..limit("a", 1, 1) });
    assert_eq!(told(&gate, 0), "x-ratelimit-limit: 2; x-ratelimit-remaining: 1; x-ratelimit-reset: 1");
    assert_eq!(told(&gate, 0), "x-ratelimit-limit: 2; x-ratelimit-remaining: 0; x-ratelimit-reset: 2");
    assert_eq!(told(&gate, 0), "x-ratelimit-limit: 2; x-ratelimit-remaining: 0; x-ratelimit-reset: 2", "refused");
    let both = |name, requests| RateLimit { headers: RateLimitHeaders::All, ..limit(name, requests, 0) };
    let unnamed = RateLimit { named: false, ..both("site s, route /", 1) };
    let gate = Gate::new(vec![both("a", 2), unnamed], &[("a", 1), ("site s, route /", 1)]);
    assert_eq!(
        told(&gate, 0),
        r#"ratelimit-policy: "a";q=1;w=1, "default";q=1;w=1; ratelimit: "a";r=0;t=1, "default";r=0;t=1; "#.to_owned()
            + "x-ratelimit-limit: 1; x-ratelimit-remaining: 0; x-ratelimit-reset: 1"
    );
    assert_eq!(told(&Gate::one(limit("a", 1, 0)), 0), "");
}

#[test]
fn levels_survive_a_reload_by_name() {
    let before = Gate::one(limit("a", 1, 0));
    assert_eq!(before.words(&get("h", "/"), &[0, 0]), "ok, no 1000");
    let rows = [
        ("as it was", limit("a", 1, 0), "no 1000"),
        ("another rate", limit("a", 2, 0), "no 1000"),
        ("another key", RateLimit { key: vec![Variable::Host], ..limit("a", 1, 0) }, "ok"),
        ("another size", RateLimit { entries: 4096, ..limit("a", 1, 0) }, "ok"),
        ("another name", limit("b", 1, 0), "ok"),
        ("another burst", limit("a", 1, 1), "ok"),
    ];
    for (what, limit, expected) in rows {
        let name = limit.name.clone();
        let model = file(vec![limit]);
        let limits = Limits::new(&model, Some(&before.limits), &RandomState::new());
        let counted = limits.iter().next().unwrap().counts().rejected();
        assert_eq!(
            counted,
            u64::from(name == "a") * before.limits.iter().next().unwrap().counts().rejected(),
            "{what}"
        );
        let gate = Gate { limits, uses: Limits::uses(&model, &[use_of(&name, 1)]), start: before.start };
        assert_eq!(gate.word(&get("h", "/"), 0), expected, "{what}");
    }
    assert_eq!(before.word(&get("h", "/"), 0), "no 2000", "requests of both are on one account");
}

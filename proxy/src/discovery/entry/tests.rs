//! Answers of all kinds, one after another.

use super::*;
use proptest::prelude::*;

const NOBODY: &str = "no answer";

fn dns(change: impl FnOnce(&mut Dns)) -> Arc<Dns> {
    let mut dns = Dns {
        servers: Vec::new(),
        min_ttl: Duration::from_secs(1),
        max_ttl: Duration::from_secs(300),
        timeout: None,
        families: Families::PreferIpv4,
        keep_missing: None,
    };
    change(&mut dns);
    Arc::new(dns)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn found(list: &[&str], seconds: u64) -> Option<Lookup> {
    Some(Lookup::Found(list.iter().map(|text| ip(text)).collect(), Duration::from_secs(seconds)))
}

fn failed() -> Option<Lookup> {
    Some(Lookup::Failed(NOBODY.to_owned()))
}

fn missing() -> Option<Lookup> {
    Some(Lookup::Missing(Lack::Name))
}

fn target(host: &str, ipv4: Option<Lookup>, ipv6: Option<Lookup>) -> Target {
    Target { host: host.into(), port: 80, share: None, answer: HostAnswer { ipv4, ipv6 } }
}

fn host(ipv4: Option<Lookup>, ipv6: Option<Lookup>) -> Answer {
    Answer::Targets(vec![target("a", ipv4, ipv6)], Duration::from_secs(3_600))
}

fn set(entry: &Entry) -> Vec<String> {
    entry.set().iter().map(|one| one.address.ip().to_string()).collect()
}

struct Run {
    entry: Entry,
    now: Instant,
}

impl Run {
    fn new(change: impl FnOnce(&mut Dns)) -> Self {
        let now = Instant::now();
        Self { entry: Entry::new(dns(change), now), now }
    }

    /// Settles an answer when it is due; returns what follows with the seconds until the next.
    fn settle(&mut self, answer: Answer) -> (Settled, f64) {
        self.now = self.entry.due();
        let settled = self.entry.settle(answer, self.now, 0);
        (settled, (self.entry.due() - self.now).as_secs_f64())
    }
}

const SAME: Settled = Settled { changed: false, news: News::None };
const CHANGED: Settled = Settled { changed: true, news: News::None };
const LOST: Settled = Settled { changed: false, news: News::Lost };

#[test]
fn records_say_when_to_ask_again_within_bounds() {
    let mut run = Run::new(|dns| (dns.min_ttl, dns.max_ttl) = (Duration::from_secs(5), Duration::from_secs(60)));
    for (ttl, expected) in [(0, 5.0), (4, 5.0), (5, 5.0), (42, 42.0), (60, 60.0), (86_400, 60.0)] {
        assert_eq!(run.settle(host(found(&["10.0.0.1"], ttl), None)).1, expected, "{ttl}");
    }
    let both = host(found(&["10.0.0.1"], 40), found(&["::1"], 20));
    assert_eq!(run.settle(both).1, 20.0, "the shortest counts");
    let short = Answer::Targets(vec![target("a", found(&["10.0.0.1"], 40), None)], Duration::from_secs(10));
    assert_eq!(run.settle(short).1, 10.0, "and the SRV record's own");
}

#[test]
fn the_order_of_answers_means_nothing() {
    let mut run = Run::new(|_| {});
    assert_eq!(run.settle(host(found(&["10.0.0.2", "10.0.0.1"], 9), None)).0, CHANGED);
    assert_eq!(set(&run.entry), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(run.settle(host(found(&["10.0.0.1", "10.0.0.2"], 9), None)).0, SAME);
    assert_eq!(run.settle(host(found(&["10.0.0.2"], 9), None)).0, CHANGED);
}

#[test]
fn failures_keep_what_was_good_and_are_told_once() {
    let mut run = Run::new(|_| {});
    run.settle(host(found(&["10.0.0.1"], 9), None));
    let mut pauses = Vec::new();
    for round in 0..7 {
        let (settled, pause) = run.settle(host(failed(), failed()));
        assert_eq!(settled, if round == 0 { LOST } else { SAME });
        assert_eq!(set(&run.entry), ["10.0.0.1"]);
        pauses.push(pause);
    }
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    assert_eq!(run.entry.state().trouble().as_deref(), Some(NOBODY));
    let (settled, _) = run.settle(host(found(&["10.0.0.1"], 9), None));
    assert_eq!(settled, Settled { changed: false, news: News::Back });
    assert_eq!(run.settle(Answer::Failed("x".to_owned())).1, 1.0, "it begins anew");
}

#[test]
fn chance_spreads_questions_and_never_delays_them() {
    let now = Instant::now();
    for (draw, least, most) in [(0, 1.0, 1.0), (u64::MAX / 2, 0.8, 0.9), (u64::MAX, 0.74, 0.76)] {
        let mut entry = Entry::new(dns(|_| {}), now);
        entry.settle(Answer::Failed(String::new()), now, draw);
        let pause = (entry.due() - now).as_secs_f64();
        assert!((least..=most).contains(&pause), "{draw}: {pause}");
    }
    let mut entry = Entry::new(dns(|dns| dns.max_ttl = Duration::from_millis(500)), now);
    entry.settle(Answer::Failed(String::new()), now, 0);
    assert_eq!(entry.due() - now, Duration::from_millis(500), "never later than a good answer");
}

#[test]
fn a_name_that_is_gone_keeps_its_addresses_unless_the_file_says_otherwise() {
    let mut run = Run::new(|_| {});
    run.settle(host(found(&["10.0.0.1"], 9), None));
    assert_eq!(run.settle(Answer::Missing(Lack::Name)).0, LOST);
    for _ in 0..99 {
        assert_eq!(run.settle(host(missing(), missing())).0, SAME);
    }
    assert_eq!(set(&run.entry), ["10.0.0.1"]);

    let mut run = Run::new(|dns| dns.keep_missing = Some(Duration::ZERO));
    run.settle(host(found(&["10.0.0.1"], 9), None));
    assert_eq!(run.settle(host(missing(), missing())).0, Settled { changed: true, news: News::Lost });
    assert_eq!(set(&run.entry), Vec::<String>::new());
    // What was dropped does not come back by a failure.
    run.settle(host(failed(), failed()));
    assert_eq!(set(&run.entry), Vec::<String>::new());
}

#[test]
fn a_name_that_is_gone_keeps_its_addresses_for_the_time_of_the_file() {
    let mut run = Run::new(|dns| dns.keep_missing = Some(Duration::from_secs(10)));
    run.settle(host(found(&["10.0.0.1"], 9), None));
    let mut passed = 0.0;
    let mut seen = Vec::new();
    while !run.entry.set().is_empty() {
        let (_, pause) = run.settle(Answer::Missing(Lack::Name));
        if !run.entry.set().is_empty() {
            passed += pause;
            seen.push(passed);
        }
    }
    // The last one is asked for exactly when the time is over.
    assert_eq!(seen, [1.0, 3.0, 7.0, 10.0]);
}

#[test]
fn one_family_that_fails_leaves_its_own_addresses_alone() {
    let mut run = Run::new(|dns| dns.families = Families::Both);
    run.settle(host(found(&["10.0.0.1"], 9), found(&["::1"], 9)));
    let doubtful = Settled { changed: true, news: News::Doubtful };
    assert_eq!(run.settle(host(found(&["10.0.0.2"], 9), failed())).0, doubtful);
    assert_eq!(set(&run.entry), ["10.0.0.2", "::1"]);
    let well = Settled { changed: true, news: News::Back };
    assert_eq!(run.settle(host(found(&["10.0.0.2"], 9), missing())).0, well);
    assert_eq!(set(&run.entry), ["10.0.0.2"]);
}

#[test]
fn families() {
    use Families::{Both, Ipv4, Ipv6, PreferIpv4, PreferIpv6};
    let (four, six) = (found(&["10.0.0.1"], 9), found(&["::1"], 9));
    for (families, ipv4, ipv6, expected) in [
        (Both, &four, &six, &["10.0.0.1", "::1"][..]),
        (Ipv4, &four, &None, &["10.0.0.1"]),
        (Ipv6, &None, &six, &["::1"]),
        (PreferIpv4, &four, &six, &["10.0.0.1"]),
        (PreferIpv4, &missing(), &six, &["::1"]),
        (PreferIpv4, &failed(), &six, &["::1"]),
        (PreferIpv6, &four, &six, &["::1"]),
        (PreferIpv6, &four, &missing(), &["10.0.0.1"]),
    ] {
        let mut run = Run::new(|dns| dns.families = families);
        run.settle(host(ipv4.clone(), ipv6.clone()));
        assert_eq!(set(&run.entry), expected, "{families:?}");
    }
    // What is preferred was good a moment ago.
    let mut run = Run::new(|dns| dns.families = PreferIpv4);
    run.settle(host(four, None));
    assert!(!run.settle(host(failed(), six)).0.changed);
}

#[test]
fn a_service_keeps_the_addresses_of_a_host_that_fails() {
    let two = |second: Option<Lookup>| {
        let targets = vec![target("a", found(&["10.0.0.1"], 9), None), target("b", second, missing())];
        Answer::Targets(targets, Duration::from_secs(9))
    };
    let mut run = Run::new(|_| {});
    run.settle(two(found(&["10.0.0.2"], 9)));
    assert_eq!(run.entry.trouble(), None);
    assert_eq!(run.settle(two(failed())).0, Settled { changed: false, news: News::Doubtful });
    assert_eq!(run.entry.trouble().as_deref(), Some("b: no answer"));
    assert_eq!(run.settle(two(missing())).0, CHANGED);
    assert_eq!(run.entry.trouble().as_deref(), Some("b: no such name"));
    assert_eq!(set(&run.entry), ["10.0.0.1"]);
    assert_eq!(run.settle(two(failed())).0, SAME, "nobody says that it is back");
    assert_eq!(run.settle(two(found(&["10.0.0.2"], 9))).0, Settled { changed: true, news: News::Back });
    assert_eq!((run.entry.trouble(), set(&run.entry).len()), (None, 2));
}

#[test]
fn tiers_come_in_their_order() {
    let share = |tier| Some(Share { weight: 1, tier });
    let first = Target { share: share(1), ..target("a", found(&["10.0.0.1"], 9), None) };
    let second = Target { share: share(0), ..target("b", found(&["10.0.0.2"], 9), None) };
    let mut run = Run::new(|_| {});
    run.settle(Answer::Targets(vec![first, second], Duration::from_secs(9)));
    assert_eq!(set(&run.entry), ["10.0.0.2", "10.0.0.1"]);
}

fn lookups() -> impl Strategy<Value = Option<Lookup>> {
    let addresses = prop::collection::vec(1_u8..6, 1..4);
    prop_oneof![
        3 => (addresses, 0_u64..1_000).prop_map(|(last, ttl)| {
            let addresses = last.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect();
            Some(Lookup::Found(addresses, Duration::from_secs(ttl)))
        }),
        1 => Just(failed()),
        1 => Just(missing()),
    ]
}

proptest! {
    /// Whatever is answered: the next question is neither now nor later than the longest time, addresses that were there
    /// go only by an answer that is fresh, and what is told as changed is.
    #[test]
    fn an_entry_is_never_idle_and_never_loses_addresses_to_silence(
        answers in prop::collection::vec((lookups(), any::<u64>()), 1..40),
        max in 2_u64..100,
    ) {
        let mut run = Run::new(|dns| dns.max_ttl = Duration::from_secs(max));
        for (lookup, draw) in answers {
            let before = run.entry.set().to_vec();
            run.now = run.entry.due();
            let fresh = matches!(lookup, Some(Lookup::Found(..)));
            let settled = run.entry.settle(host(lookup, missing()), run.now, draw);
            let pause = run.entry.due() - run.now;
            prop_assert!(pause >= Duration::from_millis(700) && pause <= Duration::from_secs(max), "{pause:?}");
            prop_assert_eq!(settled.changed, before != run.entry.set());
            prop_assert!(fresh || !settled.changed);
            prop_assert!(!fresh || !run.entry.set().is_empty());
        }
    }
}

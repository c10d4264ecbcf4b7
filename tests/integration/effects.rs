//! Effects happen at most once, whatever breaks between the edge and the endpoint.

use std::time::{Duration, Instant};

use tidegate_tests::{
    drill::{amount, say, seed},
    edge::Edge,
    fault::{Fault, FaultProxy, Plan},
    ledger::Ledger,
    load::Load,
    random::Random,
    site::Site,
    wait::wait_for,
};

/// Puts load on an edge whose way to the endpoint breaks in all of `plans` by turns, and returns the ledger.
async fn broken_by_turns(plans: &[Plan], idle_connections: usize) -> Ledger {
    let ledger = Ledger::open().await;
    let proxy = FaultProxy::start(ledger.address()).await;
    let app = format!(
        "servers: [{{ address: \"{}\" }}]\nidle_connections: {idle_connections}\ntimeouts: {{ head: 500ms, read: 500ms }}",
        proxy.address()
    );
    let edge = Edge::start(Site::proxy(&app)).await;
    let load = Load::ledger(&edge.clients(), 8, &ledger, 2_000);
    for plan in plans.iter().cycle().take(plans.len() * 3) {
        for plan in [Some(plan.clone()), None] {
            let (sent, connections) = (load.sent(), proxy.connections());
            proxy.set(plan);
            // Connections that are open keep their plan, so new ones have to come before the next.
            wait_for("load under the plan", Duration::from_secs(20), || {
                (load.sent() > sent + 16 && (idle_connections > 0 || proxy.connections() > connections + 8))
                    .then_some(())
            })
            .await;
        }
    }
    load.stop().await;
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_answers_repeat_no_effect() {
    let plans: Vec<_> = [0, 1, 20, 150, 500, 1_500]
        .into_iter()
        .flat_map(|after| [Plan::answer(after, Fault::Fin), Plan::answer(after, Fault::Reset)])
        .collect();
    for idle_connections in [0, 32] {
        let report = broken_by_turns(&plans, idle_connections).await.report();
        report.assert_honest();
        assert!(report.answered > 0 && report.answered < report.entered, "nothing broke: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_requests_repeat_no_effect() {
    let plans: Vec<_> = [0, 10, 100, 300, 500]
        .into_iter()
        .flat_map(|after| [Plan::request(after, Fault::Fin), Plan::request(after, Fault::Reset)])
        .collect();
    let report = broken_by_turns(&plans, 0).await.report();
    report.assert_honest();
    assert!(report.answered > 0, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_repeats_no_effect() {
    let plans = [Plan::answer(0, Fault::Stall), Plan::answer(600, Fault::Stall)];
    let report = broken_by_turns(&plans, 0).await.report();
    report.assert_honest();
    assert!(report.answered < report.entered, "nothing broke: {report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_repeat_no_post() {
    broken_at_random(1, 1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn random_faults_repeat_none_of_many_posts() {
    broken_at_random(seed(), amount("TIDEGATE_DRILL_POSTS", 20_000) as u64).await;
}

/// Sends posts to an edge whose connections to the endpoint break, each at a place and in a way of its own, some of them in the
/// middle of their third or tenth request.
async fn broken_at_random(seed: u64, count: u64) {
    let ledger = Ledger::open().await;
    let mut proxies = Vec::new();
    for side in [seed, !seed] {
        let choose = move |number: usize, _| Some(any_plan(&mut Random::of(side, number as u64)));
        proxies.push(FaultProxy::start_with(ledger.address(), choose).await);
    }
    // Two ways to the one endpoint: who tried again would have where to.
    let servers: Vec<_> = proxies.iter().map(|proxy| format!("{{ address: \"{}\" }}", proxy.address())).collect();
    let app = format!("servers: [{}]\ntimeouts: {{ head: 500ms, read: 500ms, write: 500ms }}", servers.join(", "));
    let edge = Edge::start(Site::proxy(&app).and("logging: { access: off }")).await;
    let started = Instant::now();
    let load = Load::entering(&edge.clients(), 64, &ledger, move |ledger, turn| {
        let random = &mut Random::of(seed.rotate_left(32), turn);
        let sent = if random.chance(70) { random.within(1..4_000) } else { 0 };
        ledger.post(sent, random.within(0..2_000))
    });
    wait_for("the posts", Duration::from_secs(60 + count / 50), || (load.sent() >= count).then_some(())).await;
    load.stop().await;
    let report = ledger.report();
    say(format_args!(
        "{} posts in {:.1?} over {} connections, seed {seed}: {} answered, {} refused, {} lost to a visible break, {} executed twice",
        report.entered,
        started.elapsed(),
        proxies.iter().map(FaultProxy::connections).sum::<usize>(),
        report.answered,
        report.refused.len(),
        report.lost.len(),
        report.repeated.len(),
    ));
    report.assert_honest();
    assert!(report.answered > 0 && report.answered < report.entered, "nothing broke: {report:#?}");
}

/// Breaks a connection somewhere in its first few requests or answers.
fn any_plan(random: &mut Random) -> Plan {
    let fault = match random.within(0..100) {
        0..50 => Fault::Fin,
        50..90 => Fault::Reset,
        90..97 => Fault::HalfClose,
        _ => Fault::Stall,
    };
    let after = match random.within(0..4) {
        0 => 0,
        1 => random.within(1..400),
        _ => random.within(400..12_000),
    };
    if random.chance(50) { Plan::answer(after, fault) } else { Plan::request(after, fault) }
}

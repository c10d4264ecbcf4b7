//! Effects happen at most once, whatever breaks between the edge and the endpoint.

use std::time::Duration;

use tidegate_tests::{
    edge::Edge,
    fault::{Fault, FaultProxy, Plan},
    ledger::Ledger,
    load::Load,
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

//! What `/metrics` says of workers, and that the page of metrics says the same.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use tidegate_tests::{
    client::Kind,
    edge::Edge,
    process::{Signal, send_signal},
    site::Site,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(20);

/// Values by series, as they are written.
async fn scrape(edge: &Edge) -> BTreeMap<String, f64> {
    let text = edge.admin().metrics().await.expect("metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            line.rsplit_once(' ').map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        })
        .collect()
}

fn workers(count: usize) -> Site {
    let command = "[\"@demo@\", --uds, \"{socket}\"]";
    Site::proxy(&format!(
        "workers:\n  command: {command}\n  count: {count}\n  cap: 7\n  deploy: {{ min_ready: 0 }}\nejection: off\nretry: off"
    ))
}

// Once: requests only make numbers here.
#[tokio::test]
async fn workers_are_told_by_slot_and_counted_over_their_lives() {
    let mut edge = Edge::start(workers(2)).await;
    let before = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    for _ in 0..20 {
        client.get("/tiny").await.assert(200, b"hello, world\n");
    }
    assert_eq!(client.get("/status/503").await.status, 503);
    let answered = |now: &BTreeMap<String, f64>| -> f64 {
        (0..3)
            .filter_map(|slot| {
                now.get(&format!(
                    "tidegate_worker_requests_total{{result=\"answered\",slot=\"{slot}\",upstream=\"app\"}}"
                ))
            })
            .sum()
    };
    // An exchange ends a moment after its client has the answer.
    wait_until("all of them", SOON, async || (answered(&scrape(&edge).await) == 21.0).then_some(())).await;
    send_signal(before[0].pid, Signal::SIGKILL);
    edge.workers_until("app", SOON, |workers| {
        workers.iter().all(|worker| worker.is_ready() && worker.pid != before[0].pid) && workers.len() == 2
    })
    .await;
    let reloaded = edge.reload(&workers(3)).await;
    assert!(reloaded.status.success(), "{}", reloaded.stderr);
    edge.ready_workers("app", 3).await;
    let now = wait_until("figures of three workers", SOON, async || {
        let now = scrape(&edge).await;
        let figures = |name: &str| now.keys().filter(|series| series.starts_with(name)).count();
        let are_all =
            ["resident", "proportional"].map(|kind| figures(&format!("tidegate_worker_{kind}_memory_bytes"))) == [3, 3];
        are_all.then_some(now)
    })
    .await;
    assert_eq!(answered(&now), 21.0, "what a worker did outlives it");
    for (series, value) in [
        ("tidegate_workers_ready{upstream=\"app\"}", 3.0),
        ("tidegate_workers_target{upstream=\"app\"}", 3.0),
        ("tidegate_workers_state{state=\"healthy\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_state{slot=\"2\",state=\"ready\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_generation{slot=\"0\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_max_in_flight{slot=\"0\",upstream=\"app\"}", 7.0),
        ("tidegate_worker_in_flight{slot=\"0\",upstream=\"app\"}", 0.0),
        ("tidegate_worker_starts_total{reason=\"first\",upstream=\"app\"}", 3.0),
        ("tidegate_worker_starts_total{reason=\"restart\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_exits_total{reason=\"crash_signal\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_scale_events_total{direction=\"up\",reason=\"file\",upstream=\"app\"}", 1.0),
        ("tidegate_worker_boot_seconds_count{upstream=\"app\"}", 4.0),
    ] {
        assert_eq!(now.get(series), Some(&value), "{series} in {now:#?}");
    }
    let heads = now.iter().find(|(series, _)| {
        series.starts_with("tidegate_upstream_response_head_seconds_count") && series.contains("upstream=\"app\"")
    });
    assert_eq!(heads.map(|(_, count)| *count), Some(21.0), "{now:#?}");
    let errors = now.iter().filter(|(series, _)| series.starts_with("tidegate_worker_server_errors_total"));
    assert_eq!(errors.map(|(_, count)| count).sum::<f64>(), 1.0);
    for figure in ["resident_memory_bytes", "proportional_memory_bytes", "threads", "open_fds", "start_time_seconds"] {
        let value = now.get(&format!("tidegate_worker_{figure}{{slot=\"0\",upstream=\"app\"}}"));
        assert!(value.is_some_and(|value| *value >= 1.0), "{figure}: {value:?}");
    }
    every_metric_is_on_the_page(&edge).await;
}

/// With its type and its labels; the page is complete by a test of its own.
async fn every_metric_is_on_the_page(edge: &Edge) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page).expect("the page");
    let text = edge.admin().metrics().await.expect("metrics");
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(kinds.len() > 40, "{kinds:?}");
    for (name, kind) in kinds {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | {kind} |")));
        let row = row.unwrap_or_else(|| panic!("no {kind} {name} on the page"));
        let series = text.lines().find(|line| line.starts_with(name)).expect("a series");
        let labels = series.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap_or_default());
        for label in
            labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).filter(|label| *label != "le")
        {
            assert!(row.contains(&format!("`{label}`")), "{name} has no label {label} on the page");
        }
    }
}

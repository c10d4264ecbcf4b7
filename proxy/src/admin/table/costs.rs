//! What requests cost their workers, for people.

use std::io::{self, Write};
use std::time::Duration;

use super::{Cell, Colours, Table, printable};
use crate::admin::view::{CostGroup, Costs, Figure, RouteCost, span};

/// Prints a table for each upstream.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_costs(costs: &Costs, colours: Colours, out: &mut dyn Write) -> io::Result<()> {
    if costs.upstreams.is_empty() {
        return writeln!(out, "no costs are known: workers with cost: true are looked at every 5s");
    }
    for (index, group) in costs.upstreams.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let CostGroup { name, generation, intervals, seconds, cpu_seconds, rss_bytes, idle, routes } = group;
        let time = span(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
        writeln!(
            out,
            "UPSTREAM {}: generation {generation}, {intervals} intervals of workers, {time}: {cpu_seconds:.1}s of CPU, memory {}, idle {}",
            printable(name),
            bytes(*rss_bytes, true),
            figure(idle, &|cpus| format!("{:.1}%", cpus * 100.0)),
        )?;
        table(routes).print(colours, out)?;
    }
    Ok(())
}

fn table(routes: &[RouteCost]) -> Table {
    let rows = routes.iter().map(|one| {
        let RouteCost { site, route, requests, held_ms, cpu_ms, rss_bytes, cpu_share } = one;
        let or_dash = |text: Option<String>| Cell::right(&text.unwrap_or_else(|| "-".to_owned()));
        vec![
            Cell::text(site.as_deref().unwrap_or("-")),
            Cell::text(route.as_deref().unwrap_or("(others)")),
            Cell::number(requests),
            or_dash(held_ms.map(milliseconds)),
            Cell::right(&figure(cpu_ms, &milliseconds)),
            or_dash(cpu_share.map(|share| format!("{:.0}%", share * 100.0))),
            Cell::right(&figure(rss_bytes, &|size| bytes(size, false))),
        ]
    });
    let heads = ["SITE", "ROUTE", "REQUESTS", "TIME", "CPU/REQUEST", "CPU", "MEMORY/REQUEST"];
    Table::new("  ", &heads, rows.collect())
}

fn figure(figure: &Figure, unit: &dyn Fn(f64) -> String) -> String {
    let Figure { value, error, unknown, at_most } = figure;
    if let Some((value, error)) = value.zip(*error) {
        return format!("{} \u{b1} {}", unit(value), unit(error));
    }
    let why = match unknown.as_deref() {
        Some("too_few") => "too few yet",
        // What it may be at the most is told instead.
        Some("maybe_nothing") => "",
        _ => "not told apart yet",
    };
    let most = at_most.map(|most| format!("less than {}", unit(most.max(0.0))));
    most.unwrap_or_else(|| why.to_owned())
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}ms"),
        10.0..100.0 => format!("{ms:.1}ms"),
        _ => format!("{ms:.0}ms"),
    }
}

fn bytes(size: f64, is_signed: bool) -> String {
    let sign = if is_signed && size >= 0.0 { "+" } else { "" };
    match size.abs() {
        0.0..1_024.0 => format!("{sign}{size:.0} B"),
        1_024.0..1_048_576.0 => format!("{sign}{:.1} KiB", size / 1_024.0),
        _ => format!("{sign}{:.1} MiB", size / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_errors_and_the_others_a_reason() {
        let known = |value, error| Figure { value: Some(value), error: Some(error), ..Figure::default() };
        let unknown = |why: &str, at_most| Figure { unknown: Some(why.to_owned()), at_most, ..Figure::default() };
        let route = |name: &str, requests, cpu_ms, rss_bytes, cpu_share| RouteCost {
            site: Some("shop".to_owned()),
            route: Some(name.to_owned()),
            requests,
            held_ms: Some(20.4),
            cpu_ms,
            rss_bytes,
            cpu_share,
        };
        let others = RouteCost {
            site: None,
            route: None,
            held_ms: None,
            ..route("", 1, unknown("too_few", None), unknown("too_few", None), None)
        };
        let routes = vec![
            route("search\x1b[2J", 1_200, known(18.2, 0.9), unknown("maybe_nothing", Some(900.0)), Some(0.62)),
            route("upload", 40, unknown("together", None), known(1_300_000.0, 40_000.0), None),
            others,
        ];
        let group = CostGroup {
            name: "app".to_owned(),
            generation: 2,
            intervals: 60,
            seconds: 300.0,
            cpu_seconds: 35.04,
            rss_bytes: -2_097_152.0,
            idle: known(0.011, 0.002),
            routes,
        };
        let mut out = Vec::new();
        print_costs(&Costs { upstreams: vec![group] }, Colours::Off, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
UPSTREAM app: generation 2, 60 intervals of workers, 5m 0s: 35.0s of CPU, memory -2.0 MiB, idle 1.1% \u{b1} 0.2%
  SITE  ROUTE       REQUESTS    TIME         CPU/REQUEST  CPU      MEMORY/REQUEST
  shop  search\u{fffd}[2J      1200  20.4ms     18.2ms \u{b1} 0.90ms  62%     less than 900 B
  shop  upload            40  20.4ms  not told apart yet    -  1.2 MiB \u{b1} 39.1 KiB
  -     (others)           1       -         too few yet    -         too few yet
"
        );
    }
}

//! Deploys of workers, for people.

use std::io::{self, Write};
use std::time::Duration;

use super::{mebibytes, printable};
use crate::admin::view::{
    Deploy, DeployBoots, DeployFailure, DeployPlan, DeployQueue, DeployReceipt, GenerationReceipt,
};

/// How far a deploy of an upstream is, in a line; `None` once it is over.
#[must_use]
pub fn deploy_progress(upstream: &str, deploy: &Deploy) -> Option<String> {
    let Deploy { generation, serving, slots, ready_ms, failure, .. } = deploy;
    let what = match deploy.phase.as_str() {
        "preparing" => "pre_start runs".to_owned(),
        "canary" => match ready_ms {
            None => "the first new worker boots".to_owned(),
            Some(ms) => format!("the first new worker was ready after {}, and has to stay so", seconds(*ms)),
        },
        "holding" => "the first new worker takes requests, and is compared with the old ones".to_owned(),
        "rolling" => format!("generation {generation} serves {serving} of {slots} slots"),
        "leaving" => format!("generation {generation} serves every slot, old workers finish their requests"),
        "reverting" => {
            let why = failure.as_ref().map(|failure| format!(" ({})", failure.what)).unwrap_or_default();
            format!("generation {generation} is given up{why}")
        }
        _ => return None,
    };
    Some(printable(&format!("{upstream}: {what}")))
}

/// How a deploy of an upstream brings its workers up, in a line.
#[must_use]
pub fn deploy_plan(upstream: &str, plan: &DeployPlan) -> String {
    let DeployPlan { way, surge, by_memory, workers, old_bytes, each_bytes, need_bytes, spare_bytes, fits } = plan;
    let how = match way.as_str() {
        "green" => format!("all {workers} new workers come up before the first old one leaves"),
        "rolling" => format!("rolling, at most {surge} beyond {workers} workers"),
        "one_by_one" => "each old worker leaves before its successor starts, and requests wait meanwhile".to_owned(),
        other => other.to_owned(),
    };
    let one =
        each_bytes.map(|each| format!("a worker takes {}, all together {}", mebibytes(each), mebibytes(*old_bytes)));
    let need = need_bytes.filter(|need| *need > 0).map(|need| format!("{} more are needed", mebibytes(need)));
    let spare = spare_bytes.map(|spare| format!("{} may be taken", mebibytes(spare)));
    let figures = [one, need, spare].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let figures = if figures.is_empty() { "memory is not known".to_owned() } else { figures };
    let verdict = match (by_memory, fits) {
        (_, false) => "; that is more than there is: strategy: auto would take less",
        (true, true) => "",
        (false, true) => "; as the site file says",
    };
    printable(&format!("{upstream}: plan: {how} ({figures}){verdict}"))
}

/// What a deploy came to, and why.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_deploy(upstream: &str, deploy: &Deploy, out: &mut dyn Write) -> io::Result<()> {
    let Deploy { generation, replaces, ms, ready_ms, outcome, failure, phase, .. } = deploy;
    let kind = replaces.map_or_else(|| "first start".to_owned(), |old| format!("instead of generation {old}"));
    let (end, consequence) = match outcome.as_deref() {
        Some("reverted") => ("failed and reverted", "; the workers from before serve"),
        Some("frozen") => ("failed half way and frozen", "; new workers that served serve on, the others are old"),
        Some("failed") => ("failed", ", with nothing to go back to; it is tried again"),
        Some(other) => (other, ""),
        None => (phase.as_str(), ", under way"),
    };
    let ready = ready_ms.map(|ms| format!(", first worker ready after {}", seconds(ms))).unwrap_or_default();
    let line =
        format!("{upstream}: generation {generation} ({kind}): {end} after {}{ready}{consequence}", seconds(*ms));
    writeln!(out, "{}", printable(&line))?;
    if let Some(receipt) = &deploy.receipt {
        receipt_lines(receipt).iter().try_for_each(|line| writeln!(out, "  {}", printable(line)))?;
    }
    // Where it was given up for that, that is the failure.
    if let Some(canary) = deploy.canary.as_ref().filter(|_| failure.is_none()) {
        writeln!(out, "  {}", printable(&format!("canary: {}", canary.what)))?;
    }
    let Some(DeployFailure { what, pid, lines, .. }) = failure else { return Ok(()) };
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    writeln!(out, "  {}", printable(&format!("{what}{pid}")))?;
    lines.iter().try_for_each(|line| writeln!(out, "    | {}", printable(line)))
}

/// What became of requests and workers, in a line for each generation and one for the rest. Nothing is said of what there
/// was none of, but that no request failed.
fn receipt_lines(receipt: &DeployReceipt) -> Vec<String> {
    let DeployReceipt { generations, queue, boots, longest_drain_ms, lost } = receipt;
    let mut lines: Vec<String> = generations.iter().map(generation_line).collect();
    let DeployQueue { peak, full, late, timeout } = queue;
    let boots = boots.as_ref().map(|DeployBoots { count, shortest_ms, longest_ms }| match count {
        1 => format!("1 boot of {}", seconds(*longest_ms)),
        _ => format!("{count} boots of {} to {}", seconds(*shortest_ms), seconds(*longest_ms)),
    });
    let rest = [
        boots,
        longest_drain_ms.map(|ms| format!("longest drain {}", seconds(ms))),
        Some(format!("at most {peak} waited")),
        some(full + late + timeout, "refused by the queue"),
        some((*lost).into(), "workers lost"),
    ];
    lines.push(rest.into_iter().flatten().collect::<Vec<_>>().join(", "));
    lines
}

fn generation_line(receipt: &GenerationReceipt) -> String {
    let GenerationReceipt {
        generation,
        answered,
        server_errors,
        retried,
        failed,
        causes,
        abandoned,
        cancelled,
        overtaken,
    } = receipt;
    let causes: Vec<String> = causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    let parts = [
        Some(format!("{answered} answered")),
        some(*server_errors, "of them with 5xx"),
        some(*retried, "sent again"),
        Some(format!("{failed} failed")),
        some(*abandoned, "left by their client"),
        some(*cancelled, "ended by us"),
        some(*overtaken, "overtaken"),
    ];
    let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
    format!("generation {generation}: {parts}{causes}")
}

fn some(count: u64, what: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {what}"))
}

fn seconds(ms: u64) -> String {
    format!("{:.1}s", Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Deploy {
        let lines = vec!["Traceback:".to_owned(), "  \u{1b}[31mImportError".to_owned()];
        let what = "worker app/0 (generation 2, spawn 5): boot_exit: exit code 3".to_owned();
        let failure = DeployFailure { what, slot: Some(0), pid: Some(77), lines };
        let outcome = Some("reverted".to_owned());
        Deploy { generation: 2, replaces: Some(1), ms: 812, outcome, failure: Some(failure), ..Deploy::default() }
    }

    #[test]
    fn the_end_is_told_with_the_workers_last_words() {
        let mut out = Vec::new();
        print_deploy("app", &failed(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "app: generation 2 (instead of generation 1): failed and reverted after 0.8s; the workers from before serve\n  \
             worker app/0 (generation 2, spawn 5): boot_exit: exit code 3 (pid 77)\n    | Traceback:\n    |   \u{fffd}[31mImportError\n"
        );
    }

    #[test]
    fn a_plan_tells_how_and_why() {
        let plan = |way: &str, surge, by_memory, fits| DeployPlan {
            way: way.to_owned(),
            surge,
            by_memory,
            workers: 4,
            old_bytes: 400 << 20,
            each_bytes: Some(110 << 20),
            need_bytes: Some(u64::from(surge) * (110 << 20)),
            spare_bytes: Some(120 << 20),
            fits,
        };
        let figures =
            "(a worker takes 110.0 MiB, all together 400.0 MiB, 110.0 MiB more are needed, 120.0 MiB may be taken)";
        for (plan, expected) in [
            (plan("rolling", 1, true, true), format!("app: plan: rolling, at most 1 beyond 4 workers {figures}")),
            (
                plan("rolling", 1, false, true),
                format!("app: plan: rolling, at most 1 beyond 4 workers {figures}; as the site file says"),
            ),
            (
                plan("one_by_one", 0, true, true),
                "app: plan: each old worker leaves before its successor starts, and requests wait meanwhile (a worker takes \
                 110.0 MiB, all together 400.0 MiB, 120.0 MiB may be taken)"
                    .to_owned(),
            ),
            (
                plan("green", 4, false, false),
                "app: plan: all 4 new workers come up before the first old one leaves (a worker takes 110.0 MiB, all \
                 together 400.0 MiB, 440.0 MiB more are needed, 120.0 MiB may be taken); that is more than there is: \
                 strategy: auto would take less"
                    .to_owned(),
            ),
        ] {
            assert_eq!(deploy_plan("app", &plan), expected);
        }
    }

    #[test]
    fn a_receipt_tells_what_became_of_requests() {
        let old = GenerationReceipt {
            generation: 1,
            answered: 1_203,
            retried: 3,
            failed: 1,
            causes: [("upstream_closed".to_owned(), 4)].into(),
            ..GenerationReceipt::default()
        };
        let new = GenerationReceipt {
            generation: 2,
            answered: 10,
            server_errors: 2,
            abandoned: 1,
            ..GenerationReceipt::default()
        };
        let receipt = DeployReceipt {
            generations: vec![old, new],
            queue: DeployQueue { peak: 4, full: 1, late: 1, timeout: 0 },
            boots: Some(DeployBoots { count: 3, shortest_ms: 480, longest_ms: 2_000 }),
            longest_drain_ms: Some(210),
            lost: 1,
        };
        assert_eq!(
            receipt_lines(&receipt),
            [
                "generation 1: 1203 answered, 3 sent again, 1 failed (upstream_closed 4)",
                "generation 2: 10 answered, 2 of them with 5xx, 0 failed, 1 left by their client",
                "3 boots of 0.5s to 2.0s, longest drain 0.2s, at most 4 waited, 2 refused by the queue, 1 workers lost",
            ]
        );
        assert_eq!(receipt_lines(&DeployReceipt::default()), ["at most 0 waited"]);
    }

    #[test]
    fn progress_has_a_line_for_each_step() {
        let at =
            |phase: &str| Deploy { phase: phase.to_owned(), serving: 1, slots: 4, generation: 2, ..Deploy::default() };
        let ready = Deploy { ready_ms: Some(1_250), ..at("canary") };
        for (deploy, line) in [
            (at("preparing"), Some("app: pre_start runs")),
            (at("canary"), Some("app: the first new worker boots")),
            (ready, Some("app: the first new worker was ready after 1.2s, and has to stay so")),
            (at("rolling"), Some("app: generation 2 serves 1 of 4 slots")),
            (at("leaving"), Some("app: generation 2 serves every slot, old workers finish their requests")),
            (at("over"), None),
        ] {
            assert_eq!(deploy_progress("app", &deploy).as_deref(), line);
        }
    }
}

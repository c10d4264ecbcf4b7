//! When a worker may get requests.

use std::time::Duration;

use super::{each, keep};
use crate::fault::Code;
use crate::model::{LinePattern, Readiness};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::Reason;

/// What the file says of readiness.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) when: Readiness,
    /// How often it is asked again.
    pub(super) interval: Option<Duration>,
}

/// Compiles `ready` of workers.
pub(super) fn ready(raw: raw::Ready, spot: Spot<'_>, report: &mut Report) -> Option<Ready> {
    match raw {
        raw::Ready::Word(word) => Some(Ready { when: word.into(), interval: None }),
        raw::Ready::When(raw) => {
            let interval = raw.interval.map(|time| time.0);
            let when = when(*raw, true, spot, report)?;
            if interval.is_some() && !when.parts().any(can_be_asked) {
                let problem =
                    "nothing here can be asked again: that a line was printed or a time has passed stays true";
                let finding = report.fault(spot.key("interval").key_span(), Code::Conflict, problem);
                finding.hint("write all_of: [connect, ...] or { http: /healthz } beside it, or remove interval");
                return None;
            }
            Some(Ready { when, interval })
        }
    }
}

/// A socket that listens before its worker runs accepts connections at once: that proves nothing, an answer does.
pub(super) fn for_inherited(when: &mut Readiness, is_given: bool, workers: Spot<'_>, report: &mut Report) {
    if !when.parts().any(|part| *part == Readiness::Connect) {
        return;
    }
    if is_given {
        let problem = "with transport: fd a connection proves nothing: the socket listens before the program runs";
        let finding = report.fault(workers.key("ready").span(), Code::Conflict, problem);
        finding.related(workers.key("transport").span(), "the transport is here").hint("write { http: / }, or notify");
        return;
    }
    *when = Readiness::Http("/".to_owned());
}

fn can_be_asked(part: &Readiness) -> bool {
    matches!(part, Readiness::Connect | Readiness::Http(_))
}

/// One condition, or at the outermost place a list of them.
fn when(raw: raw::ReadyWhen, is_outermost: bool, spot: Spot<'_>, report: &mut Report) -> Option<Readiness> {
    let raw::ReadyWhen { http, log, delay, all_of, interval } = raw;
    let inner = [("all_of", all_of.is_some()), ("interval", interval.is_some())];
    if let Some((key, _)) = inner.into_iter().find(|(_, is_given)| *is_given && !is_outermost) {
        let problem = format!("\"{key}\" stands at the outermost place only");
        report.fault(spot.key(key).key_span(), Code::Conflict, problem).hint("write it beside the first all_of");
        return None;
    }
    let keys = ["http", "log", "delay", "all_of"];
    let given: Vec<&str> = keys.into_iter().filter(|key| spot.has(key)).collect();
    let [_] = given[..] else {
        if spot.is_damaged() {
            return None;
        }
        let problem = match given.get(1) {
            Some(second) => format!("\"{}\" and \"{second}\" are two conditions", given[0]),
            None => "there is no condition here".to_owned(),
        };
        let span = given.get(1).map_or(spot.span(), |second| spot.key(second).key_span());
        let hint = if given.is_empty() { "for example { http: /healthz }" } else { "write all_of: [{ ... }, { ... }]" };
        report.fault(span, Code::Conflict, problem).hint(hint);
        return None;
    };
    if let Some(path) = http {
        return target(path, spot.key("http"), report).map(Readiness::Http);
    }
    if let Some(text) = log {
        let hint = "a regex, such as \"Application startup complete\"; backslashes need single quotes in YAML";
        let pattern = LinePattern::new(&text).map_err(|problem| Reason::new(problem, hint));
        return keep(pattern, &text, spot.key("log"), report).map(Readiness::Log);
    }
    if let Some(raw::Time(time)) = delay {
        return Some(Readiness::Delay(time));
    }
    let all_of = all_of?;
    let count = all_of.len();
    let parts = each(all_of, spot.key("all_of"), report, |raw, spot, report| match raw {
        raw::Ready::Word(word) => Some(word.into()),
        raw::Ready::When(raw) => when(*raw, false, spot, report),
    });
    (parts.len() == count).then_some(Readiness::AllOf(parts))
}

/// What a worker is asked for, in the form that goes into a request (RFC 9112 section 3.2.1).
pub(super) fn target(path: String, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Some(path);
    }
    keep(Err(Reason::new("is not a path", "write it as in /healthz")), &path, spot, report)
}

impl From<raw::ReadyWord> for Readiness {
    fn from(raw: raw::ReadyWord) -> Self {
        match raw {
            raw::ReadyWord::Connect => Self::Connect,
            raw::ReadyWord::Notify => Self::Notify,
        }
    }
}

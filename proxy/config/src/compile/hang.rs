//! When a worker counts as hung.

use super::keep;
use crate::fault::Code;
use crate::model::{Hang, Readiness, Template};
use crate::raw;
use crate::report::Report;
use crate::template::{Piece, pieces};
use crate::tree::Spot;
use crate::units::Reason;

/// What else is known of the workers.
pub(super) struct Known<'a> {
    /// What makes them ready.
    pub(super) ready: &'a Readiness,
    /// Each request holds a thread of theirs.
    pub(super) holds_threads: bool,
}

/// Compiles the choice of a group; `None` when hung workers stay.
pub(super) fn hang(
    raw: Option<raw::HangChoice>,
    known: &Known<'_>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Hang> {
    let raw = match raw {
        Some(raw::HangChoice::Word(raw::HangWord::Off)) => return None,
        Some(raw::HangChoice::Hang(raw)) => raw,
        None => raw::Hang::default(),
    };
    let raw::Hang { suspect_after, watchdog, tries, try_timeout, path, guard, kill_interval, on_hang } = raw;
    let default = Hang::default();
    let asked = known.ready.parts().find_map(|part| match part {
        Readiness::Http(path) => Some(path.clone()),
        _ => None,
    });
    let path = path.and_then(|text| keep(target(&text), &text, spot.key("path"), report));
    let on_hang = on_hang.map(|command| words(command, spot.key("on_hang"), report));
    Some(Hang {
        suspect_after: suspect_after.map_or(default.suspect_after, |time| time.0),
        watchdog: watchdog.map(|time| time.0),
        tries: tries.unwrap_or(default.tries),
        try_timeout: try_timeout.map_or(default.try_timeout, |time| time.0),
        path: path.or(asked).unwrap_or(default.path),
        guard: guard.map_or(default.guard, |share| share.0),
        kill_interval: kill_interval.map_or(default.kill_interval, |time| time.0),
        on_hang,
        spares_full: known.holds_threads,
    })
}

fn words(command: Vec<raw::Text>, spot: Spot<'_>, report: &mut Report) -> Vec<String> {
    let words = command.into_iter().enumerate();
    words.filter_map(|(at, raw::Text(text))| word(text, at == 0, spot.item(at), report)).collect()
}

fn word(text: String, is_program: bool, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    let problem = if text.contains('\0') {
        Some("a zero byte cannot be passed to a program")
    } else if is_program && text.is_empty() {
        Some("the program has no name")
    } else {
        None
    };
    if let Some(problem) = problem {
        report.fault(spot.span(), Code::BadValue, problem);
        return None;
    }
    if is_program && text.contains(char::is_whitespace) {
        let hint = "write each word on its own, or [sh, -c, \"...\"]".to_owned();
        return keep(Err(Reason::new("is a shell line, not a program", hint)), &text, spot, report);
    }
    let is_known = |piece: &Piece<'_>| match piece {
        Piece::Literal(_) | Piece::Braced(_) | Piece::Unknown("pid") => true,
        Piece::Template(template) => matches!(template, Template::Slot | Template::Generation | Template::Pool),
        Piece::Unknown(_) => false,
    };
    if !pieces(&text).iter().all(is_known) {
        let problem = "it has a word in braces that is replaced by nothing here";
        let hint = "known here are {pid}, {slot}, {generation} and {pool}; a brace in the text itself is doubled: {{";
        report.fault(spot.span(), Code::UnknownName, problem).hint(hint);
        return None;
    }
    Some(text)
}

fn target(text: &str) -> Result<String, Reason> {
    let is_target = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_target { Ok(text.to_owned()) } else { Err(Reason::new("is not a path", "write path: /healthz")) }
}

//! When a worker counts as hung.

use super::keep;
use crate::model::{Hang, Readiness};
use crate::raw;
use crate::report::Report;
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
    let raw::Hang { suspect_after, tries, try_timeout, path, guard, kill_interval } = raw;
    let default = Hang::default();
    let asked = known.ready.parts().find_map(|part| match part {
        Readiness::Http(path) => Some(path.clone()),
        _ => None,
    });
    let path = path.and_then(|text| keep(target(&text), &text, spot.key("path"), report));
    Some(Hang {
        suspect_after: suspect_after.map_or(default.suspect_after, |time| time.0),
        tries: tries.unwrap_or(default.tries),
        try_timeout: try_timeout.map_or(default.try_timeout, |time| time.0),
        path: path.or(asked).unwrap_or(default.path),
        guard: guard.map_or(default.guard, |share| share.0),
        kill_interval: kill_interval.map_or(default.kill_interval, |time| time.0),
        spares_full: known.holds_threads,
    })
}

fn target(text: &str) -> Result<String, Reason> {
    let is_target = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_target { Ok(text.to_owned()) } else { Err(Reason::new("is not a path", "write path: /healthz")) }
}

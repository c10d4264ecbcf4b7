//! The command that runs once before a generation's workers.

use std::time::Duration;

use super::keep;
use crate::fault::Code;
use crate::model::{PreStart, Template};
use crate::raw;
use crate::report::Report;
use crate::template::{Piece, pieces};
use crate::tree::Spot;
use crate::units::Reason;

/// Compiles `pre_start` and its timeout; `workers` is where both stand.
pub(super) fn pre_start(
    command: Option<Vec<raw::Text>>,
    timeout: Option<raw::PositiveTime>,
    workers: Spot<'_>,
    report: &mut Report,
) -> Option<PreStart> {
    let Some(command) = command else {
        if timeout.is_some() && !workers.is_damaged() {
            let problem = "there is no `pre_start` that could take too long";
            report.fault(workers.key("pre_start_timeout").key_span(), Code::Conflict, problem).hint("remove it");
        }
        return None;
    };
    let spot = workers.key("pre_start");
    let words = command.into_iter().enumerate();
    let command: Vec<String> =
        words.filter_map(|(at, raw::Text(text))| word(text, at == 0, spot.item(at), report)).collect();
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, |time| time.0);
    Some(PreStart { command, timeout })
}

fn word(text: String, is_program: bool, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    if text.contains('\0') {
        report.fault(spot.span(), Code::BadValue, "a zero byte cannot be passed to a program");
        return None;
    }
    if is_program && text.is_empty() {
        report.fault(spot.span(), Code::BadValue, "the program has no name").hint("write its path or name first");
        return None;
    }
    if is_program && text.contains(char::is_whitespace) {
        let reason = Reason::new(
            "is a shell line, not a program",
            "write each word on its own, or [sh, -c, \"...\"]".to_owned(),
        );
        return keep(Err(reason), &text, spot, report);
    }
    for piece in pieces(&text) {
        let problem = match piece {
            Piece::Literal(_)
            | Piece::Braced(_)
            | Piece::Template(Template::Generation | Template::Pool | Template::PidProxy) => continue,
            Piece::Template(one) => format!("{{{}}} is of one worker, and this runs once for all of them", one.word()),
            Piece::Unknown(_) if spot.is_expanded() => {
                // Where the word comes from a variable it may be part of a secret.
                "the value has a word in braces that is replaced by nothing".to_owned()
            }
            Piece::Unknown(word) => format!("\"{{{word}}}\" is replaced by nothing"),
        };
        let hint = "known here are {pool}, {generation} and {pid_proxy}; a brace in the text itself is doubled: {{";
        report.fault(spot.span(), Code::UnknownName, problem).hint(hint);
        return None;
    }
    Some(text)
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

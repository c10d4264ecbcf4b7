//! When workers are replaced although nothing is wrong with them.

use super::keep;
use crate::fault::Code;
use crate::model::Recycle;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::{Reason, format_duration};

/// Compiles the limits of a group's workers.
pub(super) fn recycle(raw: Option<raw::Recycle>, spot: Spot<'_>, report: &mut Report) -> Recycle {
    let raw::Recycle { max_requests, jitter, max_lifetime, max_rss, hard_rss } = raw.unwrap_or_default();
    let jitter = jitter.and_then(|raw::Text(text)| keep(parse_jitter(&text), &text, spot.key("jitter"), report));
    let recycle = Recycle {
        max_requests,
        jitter: jitter.unwrap_or(Recycle::JITTER),
        max_lifetime: max_lifetime.map(|time| time.0),
        max_rss: max_rss.map(|size| size.0),
        hard_rss: hard_rss.map(|size| size.0),
    };
    if let Some(life) = recycle.max_lifetime.filter(|life| *life < Recycle::SHORTEST_LIFE) {
        let shortest = format_duration(Recycle::SHORTEST_LIFE);
        let problem =
            format!("workers that are replaced after {} are replaced once in {shortest} only", format_duration(life));
        let finding = report.warning(spot.key("max_lifetime").span(), Code::Suspicious, problem);
        finding.hint(format!("write {shortest} or more"));
    }
    if let (Some(soft), Some(hard)) = (recycle.max_rss, recycle.hard_rss)
        && hard <= soft
    {
        let problem = "a worker is killed before it can be replaced in peace: hard_rss is not above max_rss";
        let finding = report.fault(spot.key("hard_rss").span(), Code::Conflict, problem);
        finding
            .related(spot.key("max_rss").span(), "max_rss is here")
            .hint("leave room between both, as 512MiB and 1GiB");
    }
    recycle
}

fn parse_jitter(text: &str) -> Result<u8, Reason> {
    let form = "it goes from 0% to 100%, in whole numbers";
    let number = text.strip_suffix('%').ok_or_else(|| Reason::new("is not a share", "shares are written like 20%"))?;
    match number.parse() {
        Ok(share) if share <= 100 && !number.starts_with('+') => Ok(share),
        _ => Err(Reason::new("is out of range", form)),
    }
}
